"""Two signers while one key replaces another: two bundles over one payload, each good by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import sealflow
from sealflow.actions import keys_rotate
from sealflow.actions.sign import open_signer
from sealflow.actions.verify import verify_artifact
from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence import EvidenceStore, make_bundle, parse_bundle
from sealflow.evidence.encryption import KIND as ENCRYPTION
from sealflow.evidence.timestamp import Stamping
from sealflow.keys import load_public_key, load_signer
from sealflow.keys.signer import chains_of, signers_of
from sealflow.storage import Storages
from sealflow.storage.local import to_path
from tests.audit_events import read_events
from tests.core.policy.deployment import Deployment, at, policy, rule
from tests.pki import KeyPair, write_key, write_pki
from tests.servers.timestamp_authority import TimestampAuthority
from tests.trees import write_tree

# Of the object beside which they lie, and by digest, where lineage looks.
KINDS = (ENCRYPTION, "provenance")


@pytest.fixture
def old(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path, "old")


@pytest.fixture
def new(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path, "new", curve="p384")


def both(first: KeyPair, second: KeyPair) -> str:
    return f"{first.signer}?also={second.signer}"


def pieces(ref: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in EvidenceStore(ref.evidence, Storages()).collect(ref.digest).objects:
        found.setdefault(item.kind or "", []).append(parse_bundle(item.data))
    return found


def test_two_bundles_over_one_payload(tmp_path: Path, old: KeyPair, new: KeyPair, monkeypatch: Any) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    model = write_tree(tmp_path / "model", {"a": b"1", "b/c": b"2"})
    made = sealflow.sign_artifact(model, signer=both(old, new))
    found = pieces(made.ref)
    assert {kind: len(bundles) for kind, bundles in found.items()} == {"signature": 2, "provenance": 2}
    for bundles in found.values():
        assert len({bundle.payload for bundle in bundles}) == 1
        assert {bundle.hint for bundle in bundles} == {
            signer.public_key.hint for signer in signers_of(load_signer(both(old, new)))
        }
    assert len(made.evidence) == 4
    for keys in (old, new):
        assert sealflow.verify(made.ref, identities=str(keys.public)).passed
    # Each key's use is on record before it is used.
    recorded = [event for event in read_events(tmp_path / "spool") if "sign" in event["action"]]
    events = [(event["action"], event["phase"], event.get("key")) for event in recorded]
    first, second = (f"sha256:{load_signer(keys.signer).public_key.hint}" for keys in (old, new))
    assert sorted(events[:2]) == [("co-sign", "intent", second), ("sign", "intent", first)]
    assert sorted(events[2:]) == [("co-sign", "outcome", second), ("sign", "outcome", first)]


def test_a_second_signer_that_fails_leaves_nothing(tmp_path: Path, old: KeyPair, new: KeyPair) -> None:
    model = write_tree(tmp_path / "model", {"a": b"1"})
    new.private.unlink()
    with pytest.raises(UsageError):
        sealflow.sign(model, signer=both(old, new))
    assert not (tmp_path / "model.evidence").exists()


def test_an_uploads_statements_have_both(tmp_path: Path, old: KeyPair, new: KeyPair) -> None:
    """The one signature inside an encrypted object is the first signer's."""
    (tmp_path / "team.key").write_bytes(bytes(range(32)))
    model = write_tree(tmp_path / "model", {"a": b"1"})
    uploaded = sealflow.upload_artifact(
        model, str(tmp_path / "sealed"), signer=both(old, new), recipients=f"aes:{tmp_path}/team.key"
    )
    store = Path(to_path(uploaded.ref.evidence))
    kinds = sorted(path.name.partition("-")[0] for path in store.rglob("*.json"))
    assert [kinds.count(kind) for kind in KINDS] == [2, 4]
    opener = {"recipients": f"aes:{tmp_path}/team.key"}
    assert sealflow.verify(uploaded.ref, identities=str(old.public), **opener).passed
    assert sealflow.verify(uploaded.ref, identities=[str(old.public), str(new.public)], **opener).passed


def test_the_policy_lets_tasks_sign_with_both(tmp_path: Path) -> None:
    """No DAG and no pipeline changes: the signer that the policy chooses has a second one."""
    deployment = Deployment(tmp_path / "deployment")
    identities = {
        "trainer": deployment.identity("trainer", expires=at(days=30)),
        "trainer-next": deployment.identity("next", valid_from=at(days=-1)),
    }
    demand = {"identities": {"at_least": 2, "of": ["trainer", "trainer-next"]}}
    body = policy([rule("models", "**", (), require=demand)], identities)
    body["signers"] = [{"uri": both(deployment.key("trainer"), deployment.key("next"))}]
    deployment.publish(body)
    path = deployment.model()
    with sealflow.run(sealflow.Surroundings(admin=deployment.channel())):
        ref = sealflow.sign(path)
    verdict = deployment.verify(ref)
    assert verdict.passed
    assert {signer.identity for signer in verdict.signers} == {"trainer", "trainer-next"}


def test_a_certificate_beside_a_key(tmp_path: Path, old: KeyPair) -> None:
    pki = write_pki(tmp_path)
    uri = f"{old.signer}?also={quote(pki.signer, safe=':/')}"
    first, second = signers_of(load_signer(uri))
    assert first.certificates == ()
    assert second.certificates
    turned = f"{pki.signer}&also={old.signer}"
    assert signers_of(load_signer(turned))[0].certificates


@pytest.mark.parametrize(
    "query",
    ["also=", "also={new}&also={new}", "also={old}", "also={new}%3Falso%3D{old}", "also=new.pem", "also=nobody:x"],
)
def test_refused(old: KeyPair, new: KeyPair, query: str) -> None:
    with pytest.raises(UsageError):
        load_signer(f"{old.signer}?{query.format(old=old.signer, new=new.signer)}")


def test_both_must_fit_oms(tmp_path: Path, old: KeyPair) -> None:
    from sealflow.actions.keys_generate import generate_key

    generate_key(str(tmp_path / "ed"), algorithm="ed25519")
    with pytest.raises(UsageError) as caught:
        sealflow.sign(write_tree(tmp_path / "m", {"a": b"1"}), signer=f"{old.signer}?also=file:{tmp_path}/ed")
    assert caught.value.code == "KEY_UNSUPPORTED"


def test_the_chains_that_a_uri_names() -> None:
    """Asked without opening anything: whoever warns of their ends need not reach the key."""
    assert chains_of("file:/a.pem") == ()
    assert chains_of("awskms:alias/x?region=eu&certificate=/a%20b.pem") == ("/a b.pem",)
    both = "file:/a.pem?certificate=/a.crt&also=pkcs11:object=k%3Fpin-source=/pin%26certificate=/b.crt"
    assert chains_of(both) == ("/a.crt", "/b.crt")


# --- What a rotation signs is what was checked ---


@pytest.mark.parametrize("how", ["swapped", "gone"])
def test_evidence_that_changes_after_the_check_is_not_signed(
    tmp_path: Path, old: KeyPair, new: KeyPair, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whoever may write to the store exchanges an object between the check and the second look."""
    model = write_tree(tmp_path / "model", {"a": b"1"})
    ref = sealflow.sign(model, signer=old.signer)
    evil = sealflow.sign(write_tree(tmp_path / "evil", {"a": b"2"}), signer=old.signer, name="evil")
    (stolen,) = Path(to_path(evil.evidence)).rglob("provenance-*.json")
    (target,) = Path(to_path(ref.evidence)).rglob("provenance-*.json")
    real = keys_rotate.verify_artifact

    def verify_then_swap(*args: Any, **options: Any) -> Any:
        checked = real(*args, **options)
        assert checked.verdict.passed
        target.unlink()
        if how == "swapped":
            target.write_bytes(stolen.read_bytes())
        return checked

    monkeypatch.setattr(keys_rotate, "verify_artifact", verify_then_swap)
    before = {path.name for path in target.parent.iterdir()}
    with pytest.raises(EvidenceError) as caught:
        keys_rotate.rotate_artifacts([ref], old=load_public_key(str(old.public)), signer=new.signer)
    assert caught.value.code == "EVIDENCE_ALTERED"
    assert {path.name for path in target.parent.iterdir()} <= before


def test_a_planted_bundle_of_the_new_key_is_no_reason_to_sign_nothing(
    tmp_path: Path, old: KeyPair, new: KeyPair
) -> None:
    """It says the new key's hint, over the same payload, with a signature that is none."""
    ref = sealflow.sign(write_tree(tmp_path / "model", {"a": b"1"}), signer=old.signer)
    store = EvidenceStore(ref.evidence, Storages())
    hint = load_public_key(str(new.public)).hint
    for item in store.collect(ref.digest).objects:
        body = json.loads(item.data)
        body["verificationMaterial"]["publicKey"]["hint"] = hint
        store.put(ref.digest, item.kind or "", json.dumps(body).encode())
    (done,) = keys_rotate.rotate_artifacts([ref], old=load_public_key(str(old.public)), signer=new.signer)
    assert (len(done.added), done.present) == (2, 0)
    assert sealflow.verify(ref, identities=str(new.public)).passed


def test_what_passed_without_the_old_key_is_not_signed(
    tmp_path: Path, old: KeyPair, new: KeyPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Audited rules and waivers let pass what nobody signed."""
    ref = sealflow.sign(write_tree(tmp_path / "model", {"a": b"1"}), signer=old.signer)

    def verify_leniently(*arguments: Any, **options: Any) -> Any:
        checked = verify_artifact(*arguments, **options)
        return replace(checked, verdict=replace(checked.verdict, signers=()))

    monkeypatch.setattr(keys_rotate, "verify_artifact", verify_leniently)
    before = [item.name for item in EvidenceStore(ref.evidence, Storages()).collect(ref.digest).objects]
    with pytest.raises(EvidenceError) as caught:
        keys_rotate.rotate_artifacts([ref], old=load_public_key(str(old.public)), signer=new.signer)
    assert caught.value.code == "EVIDENCE_MISSING"
    assert [item.name for item in EvidenceStore(ref.evidence, Storages()).collect(ref.digest).objects] == before


# --- Two signers and trusted time ---


@pytest.fixture
def stamps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[bytes]]]:
    """The option that asks for stamps, and the signatures that were stamped."""
    stamped: list[bytes] = []
    real = Stamping.stamp
    monkeypatch.setattr(Stamping, "stamp", lambda self, made: stamped.append(made) or real(self, made))
    with TimestampAuthority(tmp_path / "authority").serving() as authority:
        yield f"timestamp={quote(authority.url, safe='')}", stamped


def test_each_of_two_signatures_is_stamped(
    tmp_path: Path, old: KeyPair, new: KeyPair, stamps: tuple[str, list[bytes]]
) -> None:
    query, stamped = stamps
    ref = sealflow.sign(write_tree(tmp_path / "model", {"a": b"1"}), signer=f"{both(old, new)}&{query}")
    assert [len(bundle.timestamps) for bundles in pieces(ref).values() for bundle in bundles] == [1] * 4
    assert len(stamped) == 4


def test_the_signature_inside_an_encrypted_object_is_stamped(
    tmp_path: Path, old: KeyPair, new: KeyPair, stamps: tuple[str, list[bytes]]
) -> None:
    (tmp_path / "team.key").write_bytes(bytes(range(32)))
    query, stamped = stamps
    model = write_tree(tmp_path / "model", {"a": b"1"})
    options = {"signer": f"{both(old, new)}&{query}", "recipients": f"aes:{tmp_path}/team.key"}
    sealflow.upload(model, str(tmp_path / "sealed"), **options)
    assert len(stamped) == 5  # two provenances, two statements about the object, one signature inside of it


def test_a_bundle_of_two_signers_is_the_firsts(old: KeyPair, new: KeyPair, stamps: tuple[str, list[bytes]]) -> None:
    """Whoever makes one bundle alone must not lose its token."""
    bundle = parse_bundle(make_bundle(b"{}", open_signer(f"{both(old, new)}&{stamps[0]}")))
    assert bundle.hint == load_public_key(str(old.public)).hint
    assert len(bundle.timestamps) == 1


def test_a_second_signer_is_refused_where_it_would_sign_nothing(tmp_path: Path, old: KeyPair, new: KeyPair) -> None:
    """A policy with one signature, and the word of an admin who believes that it has two."""
    from sealflow.actions.keys_generate import generate_key
    from sealflow.audit.note import VerifierKey
    from sealflow.policy.signed import POLICY_TYPE, make_signed

    with pytest.raises(UsageError, match="second signer"):
        make_signed(b"{}", load_signer(both(old, new)), POLICY_TYPE)
    for name in ("one", "two"):
        generate_key(str(tmp_path / name), algorithm="ed25519")
    with pytest.raises(UsageError, match="second signer"):
        VerifierKey.of(load_signer(f"file:{tmp_path}/one?also=file:{tmp_path}/two"), "log.example")
