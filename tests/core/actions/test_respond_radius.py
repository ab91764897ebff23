"""The blast radius: exact over random histories, honest about what nobody can look at."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealflow.actions.respond_radius import BlastRadius
from sealflow.errors import ArtifactError, UsageError
from sealflow.evidence import EvidenceStore
from sealflow.storage import Storages
from tests.audit_events import read_events
from tests.core.actions.radius_world import Event, History, Statement, World, digest, numbers
from tests.pki import certify, private_pem, public_pem

ARTIFACTS = 8
_artifact = st.integers(0, ARTIFACTS - 1)
_who = st.sampled_from(["alice", "bob", "stolen", "stranger"])
_statement = st.builds(
    Statement,
    _artifact,
    _who,
    st.lists(_artifact, max_size=3, unique=True).map(tuple),
    st.integers(0, 4),
    st.booleans(),
)
_read = st.builds(
    Event,
    st.integers(0, 4),
    _artifact,
    st.just("verify"),
    st.sampled_from(["passed", "failed", "unverifiable"]),
    signers=st.lists(_who, max_size=1).map(tuple),
)
_make = st.builds(Event, st.integers(0, 4), _artifact, st.just("sign"), st.sampled_from(["done", "error"]), _who)
_history = st.builds(
    History,
    st.lists(_statement, max_size=14),
    st.lists(st.tuples(_artifact, _who), max_size=6),
    st.lists(_read | _make, min_size=1, max_size=8),
    st.just(ARTIFACTS),
)


@pytest.fixture(autouse=True)
def _spool(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path_factory.mktemp("spool")))


def codes(found: BlastRadius) -> set[str]:
    return {item.code for item in found.verdict.findings if item.severity in ("refusal", "unverifiable")}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=_history, start=_artifact)
@pytest.mark.slow
def test_exact_over_random_histories(history: History, start: int) -> None:
    """Neither a miss nor a false hit, for a key and for an artifact, against the oracle."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), history)
        known = ("alice", "bob", "stolen")
        assert numbers(world.ask(world.folder / "stolen.pub.pem"), ARTIFACTS) == history.reach(
            key="stolen", known=known
        )
        assert numbers(world.ask(digest(start)), ARTIFACTS) == history.reach(start=start, known=known)


def world(folder: Path, *statements: Statement, **more: Any) -> World:
    return World(folder / "world", History(statements, **more))


CHAIN = (
    Statement(0, "alice", (), 0),
    Statement(1, "stolen", (0,), 1),
    Statement(2, "alice", (1,), 2),
    Statement(3, "bob", (2,), 3),
    Statement(4, "bob", (0,), 4),
)


def test_a_key_and_all_that_came_of_it(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(5, 3), Event(6, 4), Event(7, 2, outcome="failed")])
    found = made.ask(made.fingerprint("stolen"))
    assert found.verdict.passed, found.verdict.summary()
    assert numbers(found, 5) == ({1, 2, 3}, set())
    assert set(found.radius.runs) == {made.run(number).invocation for number in (1, 2, 3, 5)}
    # Who was refused it is told, and is not touched by it.
    assert [(use.outcome, use.producer) for use in found.radius.readers] == [
        ("passed", "airflow:flow/task5"),
        ("failed", "airflow:flow/task7"),
    ]
    final = [item.name for item in found.radius.artifacts.values() if item.final]
    assert final == ["name-3"]
    body = found.as_dict()
    assert body["counts"] == {
        "touched": 3, "possible": 0, "runs": 4, "reads": 2, "key_uses": 0, "log_entries": 6,
    }  # fmt: skip
    assert body["artifacts"][0]["signed"][0].startswith(digest(1).path_segment)


def test_a_dataset_forward_and_never_back(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(5, 0)])
    assert numbers(made.ask(digest(2)), 5) == ({2, 3}, set())
    assert numbers(made.ask(digest(0)), 5) == ({0, 1, 2, 3, 4}, set())
    # The run that made what is asked about was not touched by it.
    assert made.run(2).invocation not in made.ask(digest(2)).radius.runs


def test_the_file_itself(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(5, 0)])
    path = tmp_path / "data"
    path.write_bytes(b"artifact 2")
    assert numbers(made.ask(path), 5) == ({2, 3}, set())
    with pytest.raises(ArtifactError, match="Nothing lies"):
        made.ask(tmp_path / "nothing")


def test_a_stranger_adds_to_what_is_possible_alone(tmp_path: Path) -> None:
    claims = [Statement(5, "stranger", (1,), 5), Statement(6, "alice", (5,), 6)]
    made = world(tmp_path, *CHAIN, *claims, events=[Event(9, 8)])
    found = made.ask(made.fingerprint("stolen"))
    assert numbers(found, 8) == ({1, 2, 3}, {5, 6})
    assert found.verdict.status == "unverifiable"
    assert "EDGE_UNVERIFIED" in codes(found)
    everybody = ("alice", "bob", "stolen", "stranger")
    assert numbers(made.ask(made.fingerprint("stolen"), known=everybody), 8) == ({1, 2, 3, 5, 6}, set())


def test_a_key_that_nobody_holds_any_more(tmp_path: Path) -> None:
    """By fingerprint alone nothing that names it can be verified; with the key it can, whoever is trusted now."""
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    found = made.ask(made.fingerprint("stolen"), known=("alice", "bob"))
    assert numbers(found, 5) == (set(), {1, 2, 3})
    assert found.verdict.status == "unverifiable"
    found = made.ask(made.folder / "stolen.pub.pem", known=("alice", "bob"))
    assert numbers(found, 5) == ({1, 2, 3}, set())


def test_speaking_for_another_producer_proves_no_edge(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    narrow = {
        "alice": str(made.folder / "alice.pub.pem"),
        "bob": {"key": str(made.folder / "bob.pub.pem"), "producers": ["airflow:flow/task4"]},
    }
    assert numbers(made.ask(digest(0), identities=narrow), 5)[1] == {1, 2, 3}
    assert numbers(made.ask(digest(2), identities=narrow), 5) == ({2}, {3})


def test_evidence_that_was_removed_is_known_from_the_log(tmp_path: Path) -> None:
    events = [Event(1, 6, "sign", "done", "stolen"), Event(2, 7, signers=("stolen",)), Event(3, 6)]
    made = world(tmp_path, *CHAIN, events=events)
    found = made.ask(made.folder / "stolen.pub.pem")
    assert numbers(found, 8) == ({1, 2, 3, 6, 7}, set())
    assert {item.why for item in found.radius.artifacts.values() if item.who} == {"signed", "accepted"}
    assert found.radius.runs[made.run(2).invocation].ways == dict.fromkeys(["made", "read", "accepted"])
    assert "signed" in found.radius.runs[made.run(1).invocation].ways


def test_a_run_that_read_and_left_it_out(tmp_path: Path) -> None:
    """Provenance is what its signer says; the log knows what its run had read before."""
    events = [Event(7, 1), Event(7, 6, "sign", "done"), Event(8, 7, "sign", "done"), Event(8, 1)]
    made = world(tmp_path, *CHAIN, events=events)
    assert numbers(made.ask(digest(1)), 8) == ({1, 2, 3}, {6})


def test_a_use_of_the_key_that_nobody_knows_the_end_of(tmp_path: Path) -> None:
    events = [Event(1, 6, "sign", "done", "stolen")]
    made = world(tmp_path, *CHAIN, events=events)
    from tests.core.actions.access_log import Run, at

    run = Run()
    run.event(at(1), "intent", "sign", artifact="file:///lake/lost", key=made.fingerprint("stolen"))
    assert made.log is not None
    made.log.add(run.lines)
    found = made.ask(made.folder / "stolen.pub.pem")
    assert codes(found) == {"AUDIT_GAP"}
    assert "file:///lake/lost" in {item.subject for item in found.verdict.findings}


def test_certificates(tmp_path: Path) -> None:
    """The key of an expired certificate is found, and what it signed is believed as of when it was valid."""
    import datetime

    from sealflow.evidence.bundle import make_bundle
    from sealflow.evidence.provenance import make_provenance_statement
    from sealflow.keys import load_signer
    from tests.core.actions.radius_world import NOW
    from tests.pki import NOW as PRESENT

    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    long_ago = PRESENT - datetime.timedelta(days=400)
    root = certify("root", ca=True, valid_from=long_ago)
    leaf = certify("worker", root, valid_from=long_ago, valid_to=PRESENT - datetime.timedelta(days=30))
    (tmp_path / "leaf.pem").write_bytes(private_pem(leaf.key))
    (tmp_path / "chain.pem").write_bytes(leaf.pem)
    (tmp_path / "root.pem").write_bytes(root.pem)
    signer = load_signer(f"file:{tmp_path / 'leaf.pem'}?certificate={tmp_path / 'chain.pem'}")
    from sealflow.evidence.provenance import Dependency

    statement = make_provenance_statement(
        "n", digest(6), made.run(6), dependencies=[Dependency("", digest(3), "")], now=NOW
    )
    made.file(digest(6), "provenance", make_bundle(statement, signer))
    assert numbers(made.ask(f"sha256:{signer.public_key.hint}"), 8) == ({6}, set())
    assert numbers(made.ask(digest(3)), 8) == ({3}, {6})
    rule = {"certificate": {"roots": str(tmp_path / "root.pem"), "names": ["subject:CN=worker"]}}
    assert numbers(made.ask(digest(3), identities={"worker": rule}), 8) == ({3, 6}, set())


class Authority:
    """A root, an authority under it, and a worker's certificate; the chain that the worker signs with."""

    def __init__(self, folder: Path, made: World) -> None:
        from cryptography import x509

        self.folder, self.world = folder, made
        self.root = certify("root", ca=True)
        self.between = certify("between", self.root, ca=True)
        self.leaf = certify("worker", self.between, alternative=[x509.RFC822Name("anna@example.org")])
        self.stranger = certify("stranger", ca=True)
        for name in ("root", "between", "leaf", "stranger"):
            (folder / f"{name}.pub").write_bytes(public_pem(getattr(self, name).key))
        (folder / "leaf.pem").write_bytes(private_pem(self.leaf.key))

    def sign(self, number: int, *above: Any) -> None:
        from sealflow.evidence.bundle import make_bundle
        from sealflow.evidence.provenance import make_provenance_statement
        from sealflow.keys import load_signer
        from tests.core.actions.radius_world import NOW

        chain = self.folder / "chain.pem"
        chain.write_bytes(b"".join(item.pem for item in (self.leaf, *above)))
        signer = load_signer(f"file:{self.folder / 'leaf.pem'}?certificate={chain}")
        statement = make_provenance_statement("n", digest(number), self.world.run(number), now=NOW)
        self.world.file(digest(number), "provenance", make_bundle(statement, signer))

    @property
    def rule(self) -> dict[str, Any]:
        return {"certificate": {"roots": self.root.pem.decode(), "names": ["email:anna@example.org"]}}


@pytest.mark.parametrize("target", ["leaf.pub", "between.pub", "root.pub", "email:anna@example.org", "anna"])
def test_authorities_names_and_identities(tmp_path: Path, target: str) -> None:
    """Each of them can be revoked, so each of them can be asked about."""
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    authority = Authority(tmp_path, made)
    authority.sign(6, authority.between)
    asked = str(tmp_path / target) if target.endswith(".pub") else target
    found = made.ask(asked, identities={"anna": authority.rule})
    assert numbers(found, 8) == ({6}, set())


def test_an_authority_that_is_only_attached_proves_nothing(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    authority = Authority(tmp_path, made)
    authority.sign(6, authority.between, authority.stranger)
    rule = {"anna": authority.rule}
    assert numbers(made.ask(tmp_path / "stranger.pub", identities=rule), 8) == (set(), {6})
    # A name under no known root is anybody's.
    assert numbers(made.ask("email:anna@example.org"), 8) == (set(), {6})


def test_the_log_knows_who_signed_under_an_authority(tmp_path: Path) -> None:
    from tests.core.actions.access_log import Run, at

    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    authority = Authority(tmp_path, made)
    authority.sign(6, authority.between)
    leaf = next(iter(made.ask(tmp_path / "leaf.pub", identities={"anna": authority.rule}).target.marks))
    run = Run()
    run.does(at(1), "file:///lake/7", "done", "sign", digest=str(digest(7)), key=f"sha256:{leaf}")
    assert made.log is not None
    made.log.add(run.lines)
    assert numbers(made.ask(tmp_path / "between.pub", identities={"anna": authority.rule}), 8) == ({6, 7}, set())


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("kind", ["curve", "dsa", "nonsense"])
def test_odd_certificates_stop_nobody(tmp_path: Path, kind: str, place: int) -> None:
    import base64
    import json

    from cryptography.hazmat.primitives.asymmetric import dsa, ec

    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    authority = Authority(tmp_path, made)
    authority.sign(6, authority.between)
    if kind == "nonsense":
        der = b"\x30\x03\x02\x01"
    else:
        key = ec.generate_private_key(ec.SECP256K1()) if kind == "curve" else dsa.generate_private_key(1024)
        from cryptography.hazmat.primitives.serialization import Encoding

        der = certify("odd", authority.root, key=key).certificate.public_bytes(Encoding.DER)
    (path,) = (made.folder / "evidence" / digest(6).path_segment).iterdir()
    bundle = json.loads(path.read_bytes())
    chain = bundle["verificationMaterial"]["x509CertificateChain"]["certificates"]
    chain.insert(place, {"rawBytes": base64.b64encode(der).decode()})
    made.file(digest(6), "provenance", json.dumps(bundle).encode())
    found = made.ask(tmp_path / "leaf.pub", identities={"anna": authority.rule})
    assert 6 in numbers(found, 8)[0]


# --- What somebody does to the evidence ---


def test_filed_under_another_artifact(tmp_path: Path) -> None:
    """A signed statement is true wherever it lies; a copy under another artifact says nothing about that one."""
    made = world(tmp_path, *CHAIN, signatures=[(6, "stolen")], events=[Event(9, 8)])
    signature = next((made.folder / "evidence" / digest(6).path_segment).iterdir())
    moved = made.folder / "evidence" / digest(7).path_segment / signature.name
    moved.parent.mkdir()
    signature.rename(moved)
    found = made.ask(made.folder / "stolen.pub.pem")
    assert {item.digest for item in found.radius.of("touched")} == set(map(digest, (1, 2, 3, 6)))
    # Nobody can say whether it is the signature of a folder that holds this file alone.
    assert [item.digest.algorithm for item in found.radius.of("possible")] == ["dirHash"]
    assert "EVIDENCE_OF_OTHER_ARTIFACT" in {item.code for item in found.verdict.findings}


def test_renamed_objects_count(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    (path,) = (made.folder / "evidence" / digest(2).path_segment).iterdir()
    path.rename(path.with_name("provenance-" + "0" * 64 + ".json"))
    found = made.ask(digest(1))
    assert numbers(found, 8) == ({1, 2, 3}, set())
    assert "EVIDENCE_ALTERED" in {item.code for item in found.verdict.findings}


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[" * 100_000, b"\xff" * 1000, b"{" + b'"a":1,' * 10, b"x" * ((1 << 20) + 1)],
    ids=["empty", "no bundle", "deep", "bytes", "cut", "large"],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, data: bytes) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    made.file(digest(5), "provenance", data)
    found = made.ask(digest(1))
    assert numbers(found, 8) == ({1, 2, 3}, set())
    assert found.verdict.status == "unverifiable"
    assert found.verdict.exit_status == 5


def test_a_thousand_unreadable_objects_are_counted(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    for number in range(100):
        made.file(digest(5), "provenance", b"%d" % number)
    found = made.ask(digest(1))
    assert len(found.verdict.findings) < 40
    assert found.verdict.status == "unverifiable"


def test_a_store_and_a_log_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.errors import UnavailableError

    made = world(tmp_path, *CHAIN, events=[Event(9, 1)])

    def broken(*_: Any) -> Any:
        raise UnavailableError("The store does not answer.")

    with monkeypatch.context() as patch:
        patch.setattr(EvidenceStore, "digests", broken)
        found = made.ask(digest(1))
    assert codes(found) == {"BACKEND_UNAVAILABLE"}
    assert [use.producer for use in found.radius.readers] == ["airflow:flow/task9"]


def test_a_log_that_was_changed_says_nothing(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(number, 1) for number in range(300)])
    assert made.log is not None
    bundle = made.log.path("tile/entries/000")
    bundle.chmod(0o644)
    bundle.write_bytes(bundle.read_bytes().replace(b"task1", b"task2", 1))
    found = made.ask(digest(1))
    assert found.verdict.status == "failed"
    assert found.verdict.exit_status == 3
    assert found.radius.readers == []
    # Evidence stands on its own.
    assert numbers(found, 8) == ({1, 2, 3}, set())


def test_without_a_log_nobody_knows_who_read(tmp_path: Path) -> None:
    found = world(tmp_path, *CHAIN).ask(digest(1))
    assert codes(found) == {"REVIEW_INCOMPLETE"}


def test_an_entry_that_is_none(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(9, 1)])
    assert made.log is not None
    made.log.add([b"nonsense"])
    assert codes(made.ask(digest(1))) == {"AUDIT_MALFORMED"}


def test_circles_end(tmp_path: Path) -> None:
    statements = [Statement(0, "alice", (2,), 0), Statement(1, "alice", (0,), 1), Statement(2, "alice", (1,), 2)]
    made = world(tmp_path, *statements, events=[Event(9, 8)])
    for start in range(3):
        assert numbers(made.ask(digest(start)), 8) == ({0, 1, 2}, set())


@pytest.mark.slow
def test_a_long_chain_needs_no_recursion(tmp_path: Path) -> None:
    statements = [Statement(number, "alice", (number - 1,), number) for number in range(1, 1500)]
    made = world(tmp_path, *statements, events=[Event(2000, 0)])
    assert numbers(made.ask(digest(0)), 1500) == (set(range(1500)), set())


def test_encrypted_artifacts_are_found_by_their_message(tmp_path: Path) -> None:
    import datetime

    from sealflow.evidence.bundle import make_bundle
    from sealflow.evidence.encryption import FrameDigests, MessageId, make_encryption_statement

    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    message = MessageId("ab" * 32)
    statement = make_encryption_statement(
        message, FrameDigests(b"\1" * 64), digest(6), made.run(6), now=datetime.datetime.now(datetime.timezone.utc)
    )
    made.store.put(message, "encryption", make_bundle(statement, made.signers["stolen"]))
    found = made.ask(made.folder / "stolen.pub.pem")
    assert numbers(found, 8) == ({1, 2, 3, 6}, set())


def test_kinds_that_nobody_knows_count_as_signed(tmp_path: Path) -> None:
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    made.file(digest(6), "other", made.other(6, "stolen"))
    made.file(digest(6), "waiver", made.other(6, "stolen", "https://example.org/w"))
    assert 6 in numbers(made.ask(made.folder / "stolen.pub.pem"), 8)[0]


def test_evidence_beside_what_the_log_names(tmp_path: Path) -> None:
    """Nobody lists the default stores of ten thousand artifacts; the log knows where they were made."""
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    from tests.core.actions.access_log import Run, at

    place = tmp_path / "lake" / "six"
    place.parent.mkdir()
    beside = EvidenceStore(f"{place}.evidence", Storages())
    beside.put(digest(6), "provenance", made.provenance(Statement(6, "alice", (3,), 6)))
    run = Run()
    run.does(at(1), f"file://{place}", "done", "upload", digest=str(digest(6)))
    assert made.log is not None
    made.log.add(run.lines)
    assert numbers(made.ask(digest(3)), 8) == ({3, 6}, set())


@pytest.mark.parametrize(
    ("target", "error"),
    [("md5:" + "0" * 32, UsageError), ("http://web/x", UsageError), ("sha256:short", (UsageError, ArtifactError))],
)
def test_targets_that_cannot_work(tmp_path: Path, target: str, error: Any) -> None:
    with pytest.raises(error):
        world(tmp_path, *CHAIN, events=[Event(9, 8)]).ask(target)


def test_the_act_is_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    made = world(tmp_path, *CHAIN, events=[Event(9, 8)])
    made.ask(digest(1))
    events = read_events(tmp_path / "spool")
    assert [(event["action"], event["phase"]) for event in events] == [
        ("blast-radius", "intent"),
        ("blast-radius", "outcome"),
    ]
    assert events[1]["outcome"] == "passed"


def test_a_picture_can_be_drawn(tmp_path: Path) -> None:
    from sealflow.actions.picture import as_html, as_svg

    made = world(tmp_path, *CHAIN, Statement(5, "stranger", (1,), 5), events=[Event(9, 8)])
    found = made.ask(made.folder / "stolen.pub.pem")
    svg = as_svg(found.graph(), found.verdict)
    assert all(f"name-{number}" in svg for number in (1, 2, 3, 5))
    assert "name-4" not in svg
    assert "touched" in as_html(found.graph(), found.verdict)


def test_every_order_of_writing_gives_one_answer(tmp_path: Path) -> None:
    answers = set()
    for number, order in enumerate(itertools.islice(itertools.permutations(CHAIN), 0, 120, 30)):
        made = World(tmp_path / str(number), History(order, events=[Event(9, 8)]))
        answers.add(str(numbers(made.ask(made.folder / "stolen.pub.pem"), 8)))
    assert len(answers) == 1
