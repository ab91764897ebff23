"""Attacks on the walk over provenance: nothing that somebody plants, moves or takes away makes a lineage pass.

Each attack starts from a lineage that passes, so it is the attack that is refused.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.picture import as_html, as_svg
from sealflow.evidence.provenance import make_provenance_statement
from sealflow.hashing import Digest, sha256_hex
from sealflow.run_identity import RunIdentity
from tests.audit_events import read_events
from tests.core.conftest import Cli, cli
from tests.core.policy.deployment import Body, at, rule
from tests.lineages import Lineage, deciding, digest, noted, payload, states

# Real repositories, or many signatures: minutes all together.
pytestmark = pytest.mark.slow

__all__ = ["cli"]  # a fixture


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lineage:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    lineage = Lineage(tmp_path / "world")
    assert lineage.trace().verdict.passed
    return lineage


@pytest.fixture
def governed(world: Lineage) -> Lineage:
    world.govern()
    assert world.trace().verdict.passed
    return world


def _dependency(name: str, index: int, change: Callable[[Body], None]) -> Callable[[Lineage], None]:
    def attack(world: Lineage) -> None:
        world.again(name, lambda s: change(s["predicate"]["buildDefinition"]["resolvedDependencies"][index]))

    return attack


def _moved(world: Lineage) -> None:
    """The cleaned table's genuine provenance, filed under another digest."""
    (source,) = world.objects("clean")
    world.attest("model", ["other"], signer="trainer")
    world.remove("model")
    world.attest("model", ["other"])
    world.file("other", source.read_bytes())


def _renamed(world: Lineage) -> None:
    (path,) = world.objects("clean")
    path.rename(path.with_name(f"provenance-{'0' * 64}.json"))


def _flip(world: Lineage) -> None:
    (path,) = world.objects("clean")
    bundle = json.loads(path.read_bytes())
    statement = payload(path.read_bytes())
    statement["predicate"]["buildDefinition"]["resolvedDependencies"] = []
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    path.unlink()
    world.file("clean", json.dumps(bundle).encode())


def _unsigned(world: Lineage) -> None:
    (path,) = world.objects("clean")
    bundle = json.loads(path.read_bytes())
    bundle["dsseEnvelope"]["signatures"] = []
    path.unlink()
    world.file("clean", json.dumps(bundle).encode())


def _replaced(name: str, inputs: tuple[str, ...], **options: Any) -> Callable[[Lineage], None]:
    def attack(world: Lineage) -> None:
        world.remove(name)
        world.attest(name, inputs, **options)

    return attack


def _cycle(world: Lineage) -> None:
    world.remove("raw")
    world.attest("raw", ["model"], signer="trainer")


def _itself(world: Lineage) -> None:
    world.remove("clean")
    world.attest("clean", ["clean"])


def _unreadable(world: Lineage) -> None:
    """A folder where the only evidence would be; nobody can say what it holds."""
    (path,) = world.objects("clean")
    path.unlink()
    path.symlink_to("/nowhere")


def _as_tree(item: Body) -> None:
    item["digest"] = {"dirHash": item["digest"]["sha256"]}


#: Attacks, each with the codes that may answer and the exit status.
ATTACKS: dict[str, tuple[Callable[[Lineage], None], set[str], int]] = {
    "provenance-of-an-input-deleted": (lambda w: w.remove("clean"), {"DEP_UNATTESTED"}, 3),
    "provenance-of-a-dataset-deleted": (lambda w: w.remove("raw"), {"DEP_UNATTESTED"}, 3),
    "provenance-of-the-start-deleted": (lambda w: w.remove("model"), {"EVIDENCE_MISSING"}, 3),
    "moved-under-another-digest": (_moved, {"EVIDENCE_OF_OTHER_ARTIFACT"}, 3),
    "object-renamed": (_renamed, {"EVIDENCE_ALTERED"}, 3),
    "inputs-taken-out-after-signing": (_flip, {"SIGNATURE_INVALID"}, 3),
    "signature-taken-out": (_unsigned, {"EVIDENCE_MALFORMED"}, 3),
    "signed-by-a-stranger": (_replaced("clean", ("raw",), signer="stranger"), {"SIGNER_NOT_ALLOWED"}, 4),
    "dataset-signed-by-a-producer": (_replaced("raw", (), signer="trainer"), {"ROOT_NOT_ALLOWED"}, 4),
    "inputs-hidden-by-the-producer": (_replaced("clean", ()), {"ROOT_NOT_ALLOWED"}, 4),
    "input-digest-swapped": (
        _dependency("clean", 0, lambda i: i["digest"].update(sha256="ab" * 32)), {"DEP_UNATTESTED"}, 3,
    ),
    "input-as-a-tree-of-the-same-hex": (_dependency("clean", 0, _as_tree), {"DEP_UNATTESTED"}, 3),
    "input-by-two-digests": (
        _dependency("clean", 0, lambda i: i["digest"].update(dirHash="ab" * 32)), {"EVIDENCE_MALFORMED"}, 3,
    ),
    "input-by-md5": (_dependency("clean", 0, lambda i: i.update(digest={"md5": "ab" * 16})), {"EVIDENCE_MALFORMED"}, 3),
    "input-in-upper-case": (
        _dependency("clean", 0, lambda i: i["digest"].update(sha256="AB" * 32)), {"EVIDENCE_MALFORMED"}, 3,
    ),
    "input-without-digest": (_dependency("clean", 0, lambda i: i.pop("digest")), {"EVIDENCE_MALFORMED"}, 3),
    "input-with-a-digest-of-numbers": (
        _dependency("clean", 0, lambda i: i.update(digest={"sha256": 7})), {"EVIDENCE_MALFORMED"}, 3,
    ),
    "input-named-with-an-escape": (
        _dependency("clean", 0, lambda i: i.update(name="\x1b[2Jraw")), {"EVIDENCE_MALFORMED"}, 3,
    ),
    "input-at-a-number": (_dependency("clean", 0, lambda i: i.update(uri=7)), {"EVIDENCE_MALFORMED"}, 3),
    "cycle": (_cycle, {"LINEAGE_CYCLE"}, 3),
    "made-from-itself": (_itself, {"LINEAGE_CYCLE"}, 3),
    "two-truths": (lambda w: w.attest("clean", ["labels"]), {"LINEAGE_AMBIGUOUS"}, 3),
    "one-truth-without-inputs": (lambda w: w.attest("clean", []), {"LINEAGE_AMBIGUOUS"}, 3),
    "adopted-in-the-middle": (_replaced("clean", ("raw",), adopted=True), {"PROVENANCE_ADOPTED"}, 3),
    "adopted-dataset": (_replaced("raw", (), signer="owner", adopted=True), {"PROVENANCE_ADOPTED"}, 3),
    "unreadable-object": (_unreadable, {"EVIDENCE_UNREADABLE"}, 5),
    "junk": (lambda w: (w.remove("clean"), w.file("clean", b"\xff" * 100))[0], {"EVIDENCE_MALFORMED"}, 3),
    "another-predicate": (
        lambda w: w.again("clean", lambda s: s.update(predicateType="https://slsa.dev/provenance/v0.2")),
        {"EVIDENCE_MALFORMED"}, 3,
    ),
    "another-build-type": (
        lambda w: w.again("clean", lambda s: s["predicate"]["buildDefinition"].update(buildType="urn:x")),
        {"EVIDENCE_MALFORMED"}, 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack(world: Lineage, name: str) -> None:
    attack, codes, status = ATTACKS[name]
    attack(world)
    traced = world.trace()
    assert deciding(traced) <= codes, traced.verdict.as_dict()
    assert deciding(traced), traced.verdict.as_dict()
    assert traced.verdict.exit_status == status
    # The picture and the tree say so too.
    assert any(not node.sound for node in traced.graph.nodes.values())


PLANTED: dict[str, Callable[[Lineage], object]] = {
    "junk": lambda w: w.file("clean", b"junk"),
    "of-another-artifact": lambda w: w.attest("labels", [], "owner", filed="clean"),
    "by-a-stranger-with-other-inputs": lambda w: w.attest("clean", ["labels"], "stranger"),
    "by-a-stranger-without-inputs": lambda w: w.attest("clean", [], "stranger"),
    "by-a-stranger-with-a-circle": lambda w: w.attest("clean", ["model"], "stranger"),
    "adopted": lambda w: w.attest("clean", ["labels"], adopted=True),
    "unreadable": lambda w: (w.objects("clean")[0].with_name(f"provenance-{'1' * 64}.json")).symlink_to("/nowhere"),
    "foreign": lambda w: (w.objects("clean")[0].with_name("readme.txt")).write_text("hello"),
    "a-flood": lambda w: [w.file("clean", b"junk %d" % number) for number in range(60)],
    "the-same-again": lambda w: w.attest("clean", ["raw"]),
    "verified-and-signed-again": lambda w: w.attest("clean", ["clean"]),
    "another-place": lambda w: w.attest("clean", ["raw"], places=lambda item: f"file:///elsewhere/{item}"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_beside_what_holds(world: Lineage, name: str) -> None:
    """Nobody can block a lineage by adding objects that do not count, and what counts may be said twice."""
    PLANTED[name](world)
    traced = world.trace()
    assert traced.verdict.passed, traced.verdict.summary()
    assert states(traced) == {"model": "attested", "clean": "attested", "raw": "dataset", "labels": "dataset"}


def test_a_diamond_is_no_circle(world: Lineage) -> None:
    world.attest("left", ["clean"])
    world.attest("right", ["clean", "raw"])
    world.attest("top", ["left", "right"])
    traced = world.trace("top")
    assert traced.verdict.passed
    assert len(traced.graph.nodes) == 5
    assert traced.graph.edges == 6


def test_the_circle_is_named_where_it_closes(world: Lineage) -> None:
    _cycle(world)
    traced = world.trace()
    assert states(traced)["model"] == "cycle"
    (finding,) = [item for item in traced.verdict.findings if item.code == "LINEAGE_CYCLE"]
    assert finding.subject == str(digest("model"))


def test_the_producer_may_speak_for_others_only(world: Lineage) -> None:
    identities = {"trainer": {"key": str(world.key("trainer").public), "producers": ["kfp:train/*"]}}
    traced = world.trace(identities=identities)
    assert deciding(traced) == {"PRODUCER_NOT_ALLOWED"}
    identities["trainer"]["producers"].append("airflow:prepare/clean")
    assert world.trace(identities=identities).verdict.passed


def test_the_data_owner_may_speak_for_others_only(world: Lineage) -> None:
    roots = {"owner": {"key": str(world.key("owner").public), "producers": ["airflow:other/*"]}}
    assert deciding(world.trace(roots=roots)) == {"PRODUCER_NOT_ALLOWED"}


def test_one_key_for_owner_and_producer_still_walks_on(world: Lineage) -> None:
    """Otherwise whoever names one key for both would end every walk where it begins."""
    both = {"trainer": str(world.key("trainer").public)}
    traced = world.trace(identities=both, roots=both)
    assert states(traced)["clean"] == "attested"
    assert deciding(traced) == {"SIGNER_NOT_ALLOWED"}
    world.attest("raw", [], "trainer")
    world.attest("labels", [], "trainer")
    traced = world.trace(identities=both, roots=both)
    assert traced.verdict.passed
    assert states(traced) == {"model": "attested", "clean": "attested", "raw": "dataset", "labels": "dataset"}


def test_nobody_named(world: Lineage) -> None:
    assert deciding(world.trace(identities=())) == {"IDENTITY_RULE_MISSING"}
    assert deciding(world.trace(roots=None)) == {"SIGNER_NOT_ALLOWED"}
    everybody = [str(world.key(name).public) for name in ("trainer", "owner")]
    traced = world.trace(identities=everybody, roots=None)
    assert deciding(traced) == {"ROOT_NOT_ALLOWED"}
    listed = [str(digest("raw")), digest("labels")]
    assert world.trace(roots=None, datasets=listed).verdict.passed
    assert not world.trace(roots=None, datasets=listed[:1]).verdict.passed


def test_an_oms_root_joins_nothing(world: Lineage) -> None:
    """The root digest of a signature ignores names; evidence is found by the artifact digest alone."""
    data = b"table"
    root = sha256_hex(bytes.fromhex(sha256_hex(data)))
    world.again(
        "clean", lambda s: s["predicate"]["buildDefinition"]["resolvedDependencies"][0]["digest"].update(sha256=root)
    )
    traced = world.trace()
    assert deciding(traced) == {"DEP_UNATTESTED"}


# --- Under a policy ---


def _aged(world: Lineage) -> None:
    rules = [rule("all", "**", ["owner", "trainer"], require={"evidence": {"provenance": {"max_age": "30d"}}})]
    world.govern(rules)
    world.remove("clean")
    world.attest("clean", ["raw"], ago=datetime.timedelta(days=31))


def _future(world: Lineage) -> None:
    rules = [rule("all", "**", ["owner", "trainer"], require={"evidence": {"provenance": {"max_age": "30d"}}})]
    world.govern(rules)
    world.remove("clean")
    world.attest("clean", ["raw"], ago=datetime.timedelta(hours=-1))


def _threshold(world: Lineage) -> None:
    demand = {"identities": {"all_of": ["trainer", "checker"]}, "evidence": {"provenance": {}}}
    rules = [rule("data", [world.lies("raw"), world.lies("labels")], ["owner"]),
             rule("two", [world.lies("clean"), world.lies("model")], [], require=demand)]  # fmt: skip
    rules[0]["require"]["evidence"] = {"provenance": {}}
    world.govern(rules, {"checker": world.identity("checker")})
    world.attest("model", ["clean", "labels"], "checker")


def _shared(world: Lineage) -> None:
    evidence = {"evidence": {"provenance": {}}}
    rules = [rule("data", [world.lies("raw"), world.lies("labels")], ["owner"], require=evidence),
             rule("model", world.lies("model"), ["trainer"], require=evidence),
             rule("clean", world.lies("clean"), ["trainer"],
                  require={**evidence, "producers": ["airflow:prepare/*"]})]  # fmt: skip
    world.govern(rules, {"trainer": world.identity("trainer", producers=["airflow:**", "kfp:**"])})


def _producer(world: Lineage) -> None:
    _shared(world)
    world.remove("clean")
    world.attest("clean", ["raw"], run=RunIdentity("airflow", "other", "clean", "run"))


def _no_rule(world: Lineage) -> None:
    world.govern([rule("data", [world.lies("raw"), world.lies("labels")], ["owner"],
                       require={"evidence": {"provenance": {}}}),
                  rule("made", [world.lies("clean"), world.lies("model")], dag=["other"])])  # fmt: skip


def _signature(world: Lineage) -> None:
    world.govern([rule("all", "**", ["owner", "trainer"])])


POLICED: dict[str, tuple[Callable[[Lineage], object], set[str], int]] = {
    "too-old": (_aged, {"EVIDENCE_TOO_OLD"}, 3),
    "from-the-future": (_future, {"EVIDENCE_TOO_OLD"}, 3),
    "one-of-two-signers": (_threshold, {"SIGNERS_TOO_FEW"}, 4),
    "a-key-for-several-producers": (_shared, {"KEY_SHARED"}, 4),
    "another-producer": (_producer, {"PRODUCER_MISMATCH"}, 4),
    "no-rule-for-this-task": (_no_rule, {"POLICY_NO_RULE"}, 4),
    "no-signature-where-one-is-asked-for": (_signature, {"SIGNATURE_MISSING"}, 3),
    "key-revoked-in-the-middle": (
        lambda w: w.govern(revocations=_revoked(key=f"sha256:{_hint(w, 'trainer')}")),
        {"KEY_REVOKED"}, 4,
    ),
    "owners-key-revoked": (
        lambda w: w.govern(revocations=_revoked(key=f"sha256:{_hint(w, 'owner')}")),
        {"KEY_REVOKED"}, 4,
    ),
    "input-revoked": (
        lambda w: w.govern(revocations=_revoked(digest=str(digest("raw")))),
        {"ARTIFACT_REVOKED"}, 3,
    ),
    "identity-expired": (
        lambda w: w.govern(identities={"trainer": w.identity("trainer", expires=at(seconds=-1))}), {"KEY_EXPIRED"}, 4,
    ),
    "the-owners-signature-instead-of-the-rules": (
        lambda w: (w.govern(), w.remove("clean"), w.attest("clean", [], "owner")), {"SIGNER_NOT_ALLOWED"}, 4,
    ),
    "listed-against-the-rules": (
        lambda w: (w.govern(), w.remove("clean"), w.options.update(datasets=[digest("clean")])), {"DEP_UNATTESTED"}, 3,
    ),
}  # fmt: skip


def _revoked(**what: str) -> list[Body]:
    return [{**what, "since": at(days=-1), "reason": "stolen or poisoned"}]


def _hint(world: Lineage, name: str) -> str:
    return sha256_hex(world.key(name).public.read_bytes())


@pytest.mark.parametrize("name", POLICED)
def test_under_a_policy(governed: Lineage, name: str) -> None:
    attack, codes, status = POLICED[name]
    attack(governed)
    traced = governed.trace()
    assert deciding(traced) <= codes, traced.verdict.as_dict()
    assert traced.verdict.exit_status == status, traced.verdict.as_dict()


def test_both_of_two_signers(governed: Lineage) -> None:
    _threshold(governed)
    governed.attest("clean", ["raw"], "checker")
    assert governed.trace().verdict.passed


def test_signatures_where_a_rule_asks_for_them(governed: Lineage) -> None:
    """Over exactly what has this digest, by those whom the rule names; nobody reads bytes for it."""
    governed.govern([rule("all", "**", ["owner", "trainer"])])
    for name, signer in (("model", "trainer"), ("clean", "trainer"), ("labels", "owner"), ("raw", "owner")):
        assert deciding(governed.trace()) == {"SIGNATURE_MISSING"}
        governed.signature(name, signer)
    assert governed.trace().verdict.passed
    governed.remove("clean", "signature")
    governed.signature("model", "trainer", filed="clean")
    assert deciding(governed.trace()) == {"EVIDENCE_OF_OTHER_ARTIFACT"}
    governed.remove("clean", "signature")
    governed.signature("clean", "stranger")
    assert deciding(governed.trace()) == {"SIGNER_NOT_ALLOWED"}
    governed.signature("clean", "trainer")
    assert governed.trace().verdict.passed


def test_the_rules_of_every_place_hold(governed: Lineage) -> None:
    """Two runs name the same bytes at two places; the rules for both hold, whichever is met first."""
    for first, second in (("left", "right"), ("right", "left")):
        governed.attest(first, ["raw"], "owner", places=lambda item: f"file://{governed.folder}/loose/{item}")
        governed.attest(second, ["raw"], "owner", places=lambda item: f"file://{governed.folder}/strict/{item}")
        governed.attest("top", ["left", "right"], "owner")
        strict = rule("strict", f"{governed.folder}/strict/**", ["trainer"], require={"evidence": {"provenance": {}}})
        loose = rule("loose", f"{governed.folder}/*/*", ["owner"], require={"evidence": {"provenance": {}}})
        loose["scope"]["artifact"] = [f"{governed.folder}/loose/**", f"{governed.folder}/data/**"]
        governed.govern([loose, strict])
        traced = governed.trace("top", roots={"owner": str(governed.key("owner").public)})
        assert states(traced)["raw"] == "refused", traced.verdict.as_dict()


def test_the_policy_cannot_be_had(governed: Lineage) -> None:
    from sealflow.policy.source import forget

    (governed.folder / "admin" / "policy.json").unlink()
    forget()
    traced = governed.trace(identities={"trainer": str(governed.key("trainer").public)})
    assert traced.verdict.status == "unverifiable"
    assert deciding(traced) == {"POLICY_UNAVAILABLE"}


# --- Verification summaries ---


def _set(path: str, value: Any) -> Callable[[Body], None]:
    def change(statement: Body) -> None:
        *folders, last = path.split(".")
        place: Any = statement
        for name in folders:
            place = place[int(name) if name.isdigit() else name]
        place[last] = value

    return change


OTHER = "ab" * 32
SUMMARIES: dict[str, Callable[[Body], None]] = {
    "moved-from-another-artifact": _set("subject.0.digest.sha256", digest("clean").hex),
    "of-a-tree-of-the-same-hex": lambda s: s["subject"][0].update(digest={"dirHash": digest("model").hex}),
    "another-policy": _set("predicate.policy.digest.sha256", OTHER),
    "another-requirement": _set("predicate.policy.annotations.sealflow_requirement", f"sha256:{OTHER}"),
    "too-old": _set("predicate.timeVerified", at(days=-1, minutes=-1)),
    "from-the-future": _set("predicate.timeVerified", at(hours=10)),
    "of-bytes-not-of-lineage": _set("predicate.verifiedLevels", ["SEALFLOW_PROVENANCE", "SEALFLOW_SIGNATURE"]),
    "failed": _set("predicate.verificationResult", "FAILED"),
    "another-verifiers-id": _set("predicate.verifier.id", "https://example.org/"),
}


def test_a_genuine_summary_saves_the_walk(governed: Lineage) -> None:
    statement = governed.summary()
    assert statement["predicate"]["verifiedLevels"] == ["SEALFLOW_LINEAGE"]
    governed.file("model", governed.signed(statement, "verifier"), "summary")
    traced = governed.trace()
    assert traced.verdict.passed
    assert traced.verdict.reused
    assert states(traced) == {"model": "summarised"}
    assert "LINEAGE_REUSED" in noted(traced)
    # The artifact's own evidence is judged all the same.
    governed.remove("model", "provenance")
    assert not governed.trace().verdict.passed


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_summary_about_something_else(governed: Lineage, name: str) -> None:
    statement = governed.summary()
    SUMMARIES[name](statement)
    governed.file("model", governed.signed(statement, "verifier"), "summary")
    governed.remove("raw")
    traced = governed.trace()
    assert not traced.verdict.reused
    assert deciding(traced) == {"DEP_UNATTESTED"}


@pytest.mark.parametrize("signer", ["trainer", "owner", "stranger", "admin"])
def test_a_summary_by_somebody_who_is_no_verifier(governed: Lineage, signer: str) -> None:
    governed.file("model", governed.signed(governed.summary(), signer), "summary")
    governed.remove("raw")
    traced = governed.trace()
    assert deciding(traced) == {"DEP_UNATTESTED"}
    assert "SUMMARY_REFUSED" in noted(traced)


CHANGES: dict[str, Callable[[Lineage], object]] = {
    "other-data-owners": lambda w: w.options.update(roots={"o": str(w.key("owner").public), "t": w.pem("stranger")}),
    "other-listed-datasets": lambda w: w.options.update(datasets=[digest("other")]),
    "another-policy": lambda w: w.govern(revocations=_revoked(digest=str(digest("x")))),
    "the-call-adds": lambda w: w.options.update(identities={"trainer": str(w.key("trainer").public)}),
    "other-identities-of-the-surroundings": lambda w: w.options.update(settings={"identities": w.pem("stranger")}),
    "the-verifier-revoked": lambda w: w.govern(revocations=_revoked(key=f"sha256:{_hint(w, 'verifier')}")),
    "the-artifact-revoked": lambda w: w.govern(revocations=_revoked(digest=str(digest("model")))),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_summary_made_under_other_terms(governed: Lineage, name: str) -> None:
    governed.file("model", governed.signed(governed.summary(), "verifier"), "summary")
    assert governed.trace().verdict.reused
    CHANGES[name](governed)
    assert not governed.trace().verdict.reused


def test_a_chain_of_summaries_does_not_keep_itself_alive(governed: Lineage) -> None:
    governed.file("clean", governed.signed(governed.summary("clean"), "verifier"), "summary")
    traced = governed.trace(verifier=governed.key("verifier").signer)
    assert states(traced)["clean"] == "summarised"
    assert traced.verdict.passed
    assert governed.summaries("model") == []


def test_a_summary_by_a_key_that_signed_on_the_way(governed: Lineage) -> None:
    traced = governed.trace(verifier=governed.key("trainer").signer)
    assert traced.verdict.passed
    assert "SUMMARY_NOT_WRITTEN" in noted(traced)
    assert governed.summaries("model") == []


def test_a_summary_speaks_of_the_beginnings_that_were_asked_for(world: Lineage) -> None:
    """The model's rule wants its data from the owner; that the cleaned table came from somebody else was fine there."""
    reuse = {"reuse_verdict": {"max_age": "1d", "verifiers": ["verifier"]}}
    evidence = {"evidence": {"provenance": {}}}
    data = [world.lies("raw"), world.lies("labels")]
    world.govern(
        [
            rule("data", data, ["owner", "stranger"], require={**reuse, **evidence}),
            rule("clean", world.lies("clean"), ["trainer"], require={**reuse, **evidence}),
            rule(
                "model",
                [world.lies("model"), world.lies("other")],
                ["trainer"],
                require={**reuse, **evidence, "lineage": {"roots": ["owner"]}},
            ),
        ],
        {"stranger": world.identity("stranger")},
    )
    world.remove("raw")
    world.attest("raw", [], "stranger")
    world.attest("other", ["clean"])
    loose = {"owner": world.pem("owner"), "stranger": world.pem("stranger")}
    assert world.trace("clean", roots=loose, verifier=world.key("verifier").signer).verdict.passed
    assert len(world.summaries("clean")) == 1
    assert states(world.trace("clean", roots=loose)) == {"clean": "summarised"}
    # With the same loose roots the summary fits the first walk, and not the one that the rule asks for.
    traced = world.trace("other", roots=loose)
    assert deciding(traced) == {"ROOT_NOT_ALLOWED"}, traced.verdict.as_dict()


def test_a_summary_of_lineage_saves_no_reading_of_bytes(governed: Lineage) -> None:
    """The two kinds share a format and a key; neither passes for the other."""
    from sealflow.evidence.store import StoredEvidence
    from sealflow.policy import parse_identities
    from sealflow.policy.requirement import Revocations
    from sealflow.verification.reuse import Wanted, choose

    statement = governed.summary()
    policy_of = statement["predicate"]["policy"]
    wanted = Wanted(
        digest("model"),
        statement["predicate"]["resourceUri"],
        "sha256:" + policy_of["digest"]["sha256"],
        policy_of["annotations"]["sealflow_requirement"],
        86400,
        parse_identities({"verifier": governed.pem("verifier")}),
        Revocations({}, {}),
        datetime.datetime.now(datetime.timezone.utc),
    )
    item = StoredEvidence("summary-x", governed.signed(statement, "verifier"), "summary")
    assert choose([item], wanted)[0] is None
    from dataclasses import replace

    assert choose([item], replace(wanted, lineage=True))[0] is not None


# --- Forward ---


def test_what_was_made_from_the_data(world: Lineage) -> None:
    traced = world.descendants()
    assert traced.verdict.passed
    assert states(traced) == {"raw": "dataset", "clean": "attested", "model": "attested"}
    assert "LINEAGE_PLACES" in noted(traced)


CLAIMS: dict[str, Callable[[Lineage], object]] = {
    "by-a-stranger": lambda w: w.attest("evil", ["raw"], "stranger"),
    "for-the-model": lambda w: w.attest("model", ["raw"], "stranger"),
    "ambiguous": lambda w: w.attest("clean", ["labels"]),
    "filed-elsewhere": lambda w: w.attest("evil", ["raw"], filed="other"),
    "junk": lambda w: w.file("evil", b"junk"),
    "adopted": lambda w: w.attest("evil", ["raw"], adopted=True),
    "a-circle": lambda w: w.attest("raw", ["model"], "trainer"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_what_only_claims_to_be_made_from_the_data(world: Lineage, name: str) -> None:
    """It is shown, it makes the answer uncertain, and it hides nothing."""
    CLAIMS[name](world)
    traced = world.descendants()
    assert traced.verdict.exit_status == 5
    assert deciding(traced) <= {"EDGE_UNVERIFIED", "LINEAGE_CYCLE"}
    if name != "ambiguous":
        proved = {
            made for made, used in traced.graph.inputs.items() if digest("raw") in used or digest("clean") in used
        }
        assert proved == {digest("clean"), digest("model")}


def test_a_claim_leads_no_further(world: Lineage) -> None:
    world.attest("evil", ["raw"], "stranger")
    world.attest("victim", ["evil"])
    traced = world.descendants()
    assert "victim" not in states(traced)
    assert "evil" in states(traced)


def test_a_store_out_of_reach_is_no_empty_store(world: Lineage, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.errors import UnavailableError
    from sealflow.storage.local import LocalStorage

    def out_of_reach(self: Any, uri: str, limit: int) -> list[str]:
        raise UnavailableError("The share is gone.")

    monkeypatch.setattr(LocalStorage, "list_folders", out_of_reach)
    assert world.descendants().verdict.status == "unverifiable"
    monkeypatch.setattr(LocalStorage, "list_objects", out_of_reach)
    traced = world.trace()
    assert traced.verdict.status == "unverifiable"
    assert deciding(traced) == {"BACKEND_UNAVAILABLE"}


# --- Whom a hint makes us speak to ---


@pytest.mark.parametrize(
    "uri",
    ["ftp://10.0.0.1/x", "http://169.254.169.254/latest", "github://org:repo@/x", "sftp://host/x", "memory://x",
     "s3://user:secret@bucket/x", "zip://a.zip::http://host/x", "file://host/share/x", "\u202efile:///x", "x" * 3000],
)  # fmt: skip
def test_a_location_leads_to_no_server(world: Lineage, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from sealflow.storage.other import FsspecStorage

    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *place: asked.append(place))
    monkeypatch.setattr(FsspecStorage, "list_objects", lambda *place: asked.append(place) or [])
    world.remove("clean")
    world.attest("clean", ["raw"], places=lambda _: uri)
    traced = world.trace()
    # What holds is found in the store that was named.
    assert traced.verdict.passed or deciding(traced) == {"EVIDENCE_MALFORMED"}, traced.verdict.summary()
    assert asked == []


# --- Hostile text in what people look at ---

HOSTILE = [
    "<script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "]]><svg onload=alert(1)>",
    '" onmouseover="alert(1)',
    "' style='background:url(//evil)",
    "&lt;b&gt;&amp;",
    "[bold red]passed[/bold red]",
    "[link=https://evil]click[/link]",
    ":smile: [/]",
    "\ufffe\uffff",
    "--><!--",
    "<!ENTITY x SYSTEM 'file:///etc/passwd'>",
    "javascript:alert(1)",
    "é" * 400,
]


class _Seen(HTMLParser):
    """Collects what a browser would make of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names(world: Lineage, text: str, cli: Cli, tmp_path: Path) -> None:
    name = text[:200]
    run = RunIdentity("airflow", name, name, name)
    made = make_provenance_statement(name, digest("model"), run, now=datetime.datetime.now(datetime.timezone.utc))
    world.remove("model")
    world.file("model", world.signed(made))
    world.attest("top", ["model"], places=lambda _: f"file:///{name}")
    options = ["--identity", str(world.key("trainer").public), "--evidence-store", str(world.store)]
    for suffix in ("svg", "html"):
        done = cli("lineage", "trace", str(digest("top")), *options, "--picture", f"picture.{suffix}")
        assert done.returncode == 4
        drawn = (tmp_path / f"picture.{suffix}").read_text(encoding="utf-8")
        seen = _Seen()
        seen.feed(drawn)
        assert "script" not in seen.tags
        assert not {name for name, _ in seen.attributes if name.startswith("on") or name in ("src", "href", "srcdoc")}
        assert not [value for _, value in seen.attributes if "url(" in value or "alert" in value]
        svg = drawn if suffix == "svg" else drawn[drawn.index("<svg") : drawn.index("</svg>") + 6]
        root = ElementTree.fromstring(svg)
        assert {item.tag.partition("}")[2] for item in root.iter()} <= {
            "svg",
            "title",
            "desc",
            "rect",
            "text",
            "path",
            "g",
        }
    # The markup of our own terminal library stays text.
    assert name[:20].replace("\ufffe", "").split("[")[0] in done.stdout
    if "[" in name:
        assert name.split(" ")[0] in done.stdout


def test_characters_of_control_and_direction_reach_nobody(world: Lineage, cli: Cli) -> None:
    """Statements with them are refused; what a caller passes is escaped."""
    for text in ("\x1b[31mpassed", "model\u202egnp", "a\nb", "\u2066x", "x\u200f"):
        world.remove("model")
        statement = world.statement("model", ["clean"])
        statement["subject"][0]["name"] = text
        world.file("model", world.signed(statement))
        traced = world.trace()
        assert deciding(traced) == {"EVIDENCE_MALFORMED"}
        assert text not in as_svg(traced.graph, traced.verdict)
        assert text not in as_html(traced.graph, traced.verdict)


def test_the_same_bytes_under_a_reference_that_lies(world: Lineage) -> None:
    """The reference's location is a hint; its digest decides which evidence counts."""
    ref = world.ref().moved_to(world.lies("clean"))
    traced = world.trace(target=ref)
    assert traced.verdict.name == "model"
    other = json.loads(world.ref().to_json()) | {"digest": str(Digest("dirHash", digest("model").hex))}
    assert deciding(world.trace(target=other)) == {"EVIDENCE_MISSING"}


def test_the_audit_log_has_the_trace(world: Lineage) -> None:
    spool = os.environ["SEALFLOW_AUDIT_SPOOL"]
    before = len(read_events(spool))
    world.remove("clean")
    world.trace()
    intent, outcome = read_events(spool)[before:]
    assert (intent["action"], outcome["action"]) == ("trace", "trace")
    assert outcome["outcome"] == "failed"
    assert outcome["codes"] == ["DEP_UNATTESTED"]
    assert outcome["digest"] == str(digest("model"))


# --- Names ---


def _named(world: Lineage, name: str, signer: str = "trainer") -> None:
    """Sign the cleaned table under another name."""
    statement = world.statement("clean", ["raw"], ago=datetime.timedelta(seconds=-1))
    statement["subject"][0]["name"] = name
    world.file("clean", world.signed(statement, signer))


def test_a_younger_name_hides_no_beginnings(world: Lineage) -> None:
    """A rule about a name on the way says where the artifact must begin; it was signed under two names."""
    kinds = {"evidence": {"provenance": {}}}
    strict = {**kinds, "lineage": {"roots": ["strict"]}}
    rules = [
        rule("all", "file:///**", ["trainer", "owner"], require=kinds),
        rule("named", "name:clean", ["trainer", "owner"], require=strict),
    ]
    world.govern(rules, {"strict": world.identity("strict")})
    owner = {"owner": {"key": world.pem("owner")}}
    assert deciding(world.trace(roots=owner)) == {"ROOT_NOT_ALLOWED"}
    _named(world, "harmless")
    assert deciding(world.trace(roots=owner)) == {"ROOT_NOT_ALLOWED"}


def test_names_bring_rules_whose_signers_say_more_names(world: Lineage) -> None:
    """A rule's signer gives it a second name, which has a rule of its own."""
    kinds = {"evidence": {"provenance": {}}}
    two = {**kinds, "identities": {"at_least": 2, "of": ["trainer", "boss"]}}
    rules = [
        rule("stage", "name:stage", ["trainer"], require=kinds),
        rule("prod", "name:prod", [], require=two),
    ]
    world.govern(rules, {"boss": world.identity("boss")})
    world.remove("clean")
    _named(world, "prod")
    _named(world, "stage", signer="ci")
    believed = {name: str(world.key(name).public) for name in ("ci", "owner")}
    assert deciding(world.trace("clean", settings={"identities": believed})) == {"SIGNERS_TOO_FEW"}
    (world.folder / "data").mkdir()
    Path(world.lies("clean").removeprefix("file://")).write_text("clean")
    with sealflow.run(world.surroundings(identities=believed)):
        verdict = sealflow.verify(world.ref("clean"))
    assert not verdict.passed
    assert "SIGNERS_TOO_FEW" in {item.code for item in verdict.findings}, verdict.summary()
