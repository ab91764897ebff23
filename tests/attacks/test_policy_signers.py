"""Who signs what: shared keys, several signers, certificates, ends, revocations, clocks, verifiers."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

import sealflow
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.provenance import make_provenance_statement
from sealflow.evidence.store import EvidenceStore
from sealflow.keys import load_public_key, load_signer
from sealflow.run_identity import ADOPTED_BUILDER, RunIdentity
from sealflow.storage import Storages
from tests.core.policy.deployment import FIT, SCORE, Body, Deployment, at, code, codes, policy, rule
from tests.pki import NOW, Certified, certify, private_pem

pytest_plugins = ["tests.core.policy.fixtures"]

CLEAN = RunIdentity("airflow", "clean", "wash", "run-3", None, 1)


@pytest.fixture
def path(deployment: Deployment) -> Path:
    return deployment.model()


def publish(deployment: Deployment, identities: dict[str, Body], require: Body, **more: Any) -> None:
    deployment.publish(policy([rule("models", "**", [], require=require)], identities, **more))


def provenance(
    deployment: Deployment, path: Path, key: str = "trainer", run: RunIdentity = FIT, when: datetime.datetime = NOW
) -> None:
    """Put provenance that says anything, truly signed, beside what is there."""
    digest = deployment.sign(path, key, run, evidence_store=str(deployment.folder / "thrown-away")).ref.digest
    statement = make_provenance_statement("m.bin", digest, run, now=when)
    bundle = make_bundle(statement, load_signer(deployment.key(key).signer))
    EvidenceStore(f"{path}.evidence", Storages()).put(digest, "provenance", bundle)


def drop(path: Path, kind: str) -> None:
    for item in Path(f"{path}.evidence").rglob(f"{kind}-*.json"):
        item.unlink()


# --- Who produced ---


class TestProducers:
    REQUIRE: Body = {"identities": {"any_of": ["trainer"]}, "producers": ["airflow:train/*"]}  # noqa: RUF012

    def test_a_key_of_its_own(self, deployment: Deployment, path: Path) -> None:
        publish(deployment, {"trainer": deployment.identity(producers=["airflow:train/*"])}, self.REQUIRE)
        deployment.sign(path)
        assert deployment.verify(path).passed

    @pytest.mark.parametrize(
        "producers",
        [
            None,
            ["airflow:*/*"],
            ["airflow:**"],
            ["airflow:train/*", "airflow:clean/*"],
            ["airflow:train/**"],
            ["*:train/*"],
        ],
        ids=str,
    )
    def test_a_key_for_more(self, deployment: Deployment, path: Path, producers: list[str] | None) -> None:
        more = {} if producers is None else {"producers": producers}
        publish(deployment, {"trainer": deployment.identity(**more)}, self.REQUIRE)
        deployment.sign(path)
        assert code(deployment.verify(path)) == "KEY_SHARED"

    @pytest.mark.parametrize(
        "other",
        [{"producers": ["airflow:clean/*"]}, {}, {"producers": ["airflow:clean/*"], "builders": ["urn:x"]},
         {"producers": ["airflow:clean/*"], "expires": at(days=-1)}],
        ids=["another-producer", "everybody", "another-builder", "expired"],
    )  # fmt: skip
    def test_a_key_under_two_names(self, deployment: Deployment, path: Path, other: Body) -> None:
        """Also where the second name stands in no rule."""
        identities = {
            "trainer": deployment.identity(producers=["airflow:train/*"]),
            "somebody": deployment.identity(**other),
        }
        publish(deployment, identities, self.REQUIRE)
        deployment.sign(path)
        assert code(deployment.verify(path)) == "KEY_SHARED"

    def test_another_producers_name(self, deployment: Deployment, path: Path) -> None:
        identities = {
            "trainer": deployment.identity(producers=["airflow:train/*"]),
            "cleaner": deployment.identity("cleaner", producers=["airflow:clean/*"]),
        }
        publish(deployment, identities, {**self.REQUIRE, "identities": {"any_of": ["trainer", "cleaner"]}})
        deployment.sign(path, "cleaner", CLEAN)
        assert code(deployment.verify(path)) == "PRODUCER_MISMATCH"
        deployment.sign(path, "cleaner", FIT)
        assert not deployment.verify(path).passed
        deployment.sign(path)
        assert deployment.verify(path).passed

    def test_a_call_that_names_the_key_without_limits(self, deployment: Deployment, path: Path) -> None:
        publish(deployment, {"trainer": deployment.identity(producers=["airflow:train/*"])}, self.REQUIRE)
        deployment.sign(path, run=CLEAN)
        key = str(deployment.key("trainer").public)
        assert not deployment.verify(path, identities=key).passed
        assert not deployment.verify(path, identities={"key": key, "producers": ["airflow:clean/*"]}).passed

    def test_an_adopted_artifact(self, deployment: Deployment, path: Path) -> None:
        publish(deployment, {"trainer": deployment.identity()}, {"identities": {"any_of": ["trainer"]}})
        deployment.sign(path, run=replace(FIT, builder=ADOPTED_BUILDER))
        assert code(deployment.verify(path)) == "PROVENANCE_ADOPTED"
        deployment.sign(path)
        assert deployment.verify(path).passed

    def test_another_builder(self, deployment: Deployment, path: Path) -> None:
        identities = {"trainer": deployment.identity(builders=["urn:notary"])}
        publish(deployment, identities, {"identities": {"any_of": ["trainer"]}})
        deployment.sign(path)
        assert code(deployment.verify(path)) == "PRODUCER_NOT_ALLOWED"
        deployment.sign(path, run=replace(FIT, builder="urn:notary"))
        assert deployment.verify(path).passed

    def test_a_limited_key_and_a_bare_signature(self, deployment: Deployment, path: Path) -> None:
        """No provenance names a producer, and a call that asks for some does not change whom the rule hears."""
        identities = {"trainer": deployment.identity(producers=["airflow:train/*"])}
        publish(deployment, identities, {"identities": {"any_of": ["trainer"]}, "evidence": {"signature": {}}})
        deployment.sign(path)
        assert not deployment.verify(path).passed
        assert not deployment.verify(path, require=["provenance"]).passed
        own = {"key": str(deployment.key("trainer").public), "producers": ["airflow:train/*"]}
        assert not deployment.verify(path, identities=own).passed

    def test_a_calls_limit_is_checked_where_the_rule_asks_for_a_signature(
        self, deployment: Deployment, path: Path
    ) -> None:
        identities = {"trainer": deployment.identity()}
        publish(deployment, identities, {"identities": {"any_of": ["trainer"]}, "evidence": {"signature": {}}})
        deployment.sign(path)
        key = str(deployment.key("trainer").public)
        assert deployment.verify(path, identities=key).passed
        assert deployment.verify(path, identities={"key": key, "producers": ["airflow:train/*"]}).passed
        assert not deployment.verify(path, identities={"key": key, "producers": ["airflow:clean/*"]}).passed
        drop(path, "provenance")
        assert deployment.verify(path, identities=key).passed
        assert not deployment.verify(path, identities={"key": key, "producers": ["airflow:train/*"]}).passed


# --- Several ---


class TestSeveral:
    def ask(self, deployment: Deployment, identities: dict[str, Body], demand: Body, **require: Any) -> None:
        publish(deployment, identities, {"identities": demand, **require})

    def test_each_counts(self, deployment: Deployment, path: Path) -> None:
        three = deployment.identities("a", "b", "c")
        self.ask(deployment, three, {"at_least": 2, "of": ["a", "b", "c"]})
        deployment.sign(path, "a")
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"
        deployment.sign(path, "a")
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"
        deployment.sign(path, "stranger")
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"
        deployment.sign(path, "c")
        assert deployment.verify(path).passed

    @pytest.mark.parametrize("demand", [{"all_of": ["a", "b"]}, {"at_least": 2, "of": ["a", "b"]}], ids=str)
    def test_one_key_under_two_names(self, deployment: Deployment, path: Path, demand: Body) -> None:
        self.ask(deployment, {"a": deployment.identity("a"), "b": deployment.identity("a")}, demand)
        deployment.sign(path, "a")
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"
        deployment.sign(path, "b")
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"

    def test_a_name_that_a_call_adds_is_no_second_signer(self, deployment: Deployment, path: Path) -> None:
        self.ask(deployment, deployment.identities("a", "b"), {"all_of": ["a", "b"]})
        deployment.sign(path, "a")
        key = str(deployment.key("a").public)
        assert not deployment.verify(path, identities={"a": key, "b": key}).passed

    def test_signatures_do_not_stand_in_for_provenance(self, deployment: Deployment, path: Path) -> None:
        """A rule that counts provenance counts that, also where a call asks for a signature too."""
        demand = {"all_of": ["a", "b"]}
        self.ask(deployment, deployment.identities("a", "b"), demand, evidence={"provenance": {}})
        deployment.sign(path, "a")
        deployment.sign(path, "b", evidence_store=str(deployment.folder / "other"))
        target = next(Path(f"{path}.evidence").iterdir())
        for item in (deployment.folder / "other").rglob("signature-*.json"):
            (target / item.name).write_bytes(item.read_bytes())
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"
        assert code(deployment.verify(path, require=["signature"])) == "SIGNERS_TOO_FEW"
        assert code(deployment.verify(path, require=["signature", "provenance"])) == "SIGNERS_TOO_FEW"
        deployment.sign(path, "b")
        assert deployment.verify(path, require=["signature"]).passed

    def test_one_of_them_expired_or_revoked(self, deployment: Deployment, path: Path) -> None:
        identities = deployment.identities("a", "b", "c")
        demand = {"at_least": 2, "of": ["a", "b", "c"]}
        deployment.sign(path, "a")
        deployment.sign(path, "b")
        identities["b"]["expires"] = at(days=-1)
        self.ask(deployment, identities, demand)
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"
        del identities["b"]["expires"]
        hint = load_public_key(str(deployment.key("b").public)).hint
        revoked = [{"key": f"sha256:{hint}", "since": at(days=-1), "reason": "stolen"}]
        publish(deployment, identities, {"identities": demand}, revocations=revoked)
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"

    def test_signatures_over_other_bytes(self, deployment: Deployment, path: Path) -> None:
        self.ask(deployment, deployment.identities("a", "b"), {"all_of": ["a", "b"]})
        deployment.sign(path, "a")
        deployment.sign(path, "b", evidence_store=str(deployment.folder / "old"))
        path.write_bytes(b"newer weights")
        deployment.sign(path, "a")
        target = next(
            item for item in Path(f"{path}.evidence").iterdir() if deployment.verify(path).digest[7:] in str(item)
        )
        for item in (deployment.folder / "old").rglob("*.json"):
            (target / item.name).write_bytes(item.read_bytes())
        assert not deployment.verify(path).passed

    def test_rules_intersect(self, deployment: Deployment, path: Path) -> None:
        rules = [rule("one", "**", ["a", "b"]), rule("two", "**", ["b", "c"])]
        deployment.publish(policy(rules, deployment.identities("a", "b", "c")))
        for key in ("a", "c"):
            deployment.sign(path, key)
        assert code(deployment.verify(path)) == "SIGNER_NOT_ALLOWED"
        deployment.sign(path, "b")
        assert deployment.verify(path).passed


class TestCertificates:
    """One person is one signer, however many certificates they get."""

    @pytest.fixture
    def root(self) -> Certified:
        return certify("root", ca=True, valid_from=NOW - datetime.timedelta(days=365))

    def signer(self, deployment: Deployment, root: Certified, *names: str, **knobs: Any) -> str:
        leaf = certify("leaf", root, alternative=[x509.RFC822Name(name) for name in names], **knobs)
        stem = deployment.folder / f"leaf-{len(list(deployment.folder.glob('leaf-*')))}"
        stem.with_suffix(".key").write_bytes(private_pem(leaf.key))
        stem.with_suffix(".pem").write_bytes(leaf.pem)
        return f"file:{stem.with_suffix('.key')}?certificate={stem.with_suffix('.pem')}"

    def identity(self, root: Certified, *names: str, **more: Any) -> Body:
        return {"certificate": {"roots": [root.pem.decode()], "names": [f"email:{name}" for name in names]}, **more}

    def sign(self, path: Path, signer: str, run: RunIdentity = FIT) -> None:
        with sealflow.run(sealflow.Surroundings(run)):
            sealflow.sign(path, signer=signer)

    def test_two_certificates_of_one_name(self, deployment: Deployment, root: Certified, path: Path) -> None:
        identities = {"anna": self.identity(root, "anna@x"), "ben": self.identity(root, "ben@x")}
        publish(deployment, identities, {"identities": {"at_least": 2, "of": ["anna", "ben"]}})
        self.sign(path, self.signer(deployment, root, "anna@x"))
        self.sign(path, self.signer(deployment, root, "anna@x"))
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"
        self.sign(path, self.signer(deployment, root, "ben@x"))
        assert deployment.verify(path).passed

    def test_one_certificate_of_two_names(self, deployment: Deployment, root: Certified, path: Path) -> None:
        identities = {"anna": self.identity(root, "anna@x"), "ben": self.identity(root, "ben@x")}
        publish(deployment, identities, {"identities": {"all_of": ["anna", "ben"]}})
        self.sign(path, self.signer(deployment, root, "anna@x", "ben@x"))
        assert code(deployment.verify(path)) == "SIGNERS_TOO_FEW"

    def test_one_name_in_two_identities_is_shared(self, deployment: Deployment, root: Certified, path: Path) -> None:
        identities = {
            "train": self.identity(root, "anna@x", producers=["airflow:train/*"]),
            "clean": self.identity(root, "anna@x", "ben@x", producers=["airflow:clean/*"]),
        }
        require = {"identities": {"any_of": ["train"]}, "producers": ["airflow:train/*"]}
        publish(deployment, identities, require)
        self.sign(path, self.signer(deployment, root, "anna@x"))
        assert code(deployment.verify(path)) == "KEY_SHARED"
        publish(deployment, {"train": identities["train"]}, require)
        assert deployment.verify(path).passed

    def test_a_certificate_with_the_names_of_two_producers(
        self, deployment: Deployment, root: Certified, path: Path
    ) -> None:
        identities = {
            "train": self.identity(root, "anna@x", producers=["airflow:train/*"]),
            "clean": self.identity(root, "ben@x", producers=["airflow:clean/*"]),
        }
        require = {"identities": {"any_of": ["train", "clean"]}, "producers": ["airflow:train/*"]}
        publish(deployment, identities, require)
        self.sign(path, self.signer(deployment, root, "anna@x", "ben@x"))
        assert code(deployment.verify(path)) == "KEY_SHARED"

    def test_another_root(self, deployment: Deployment, root: Certified, path: Path) -> None:
        publish(deployment, {"anna": self.identity(root, "anna@x")}, {"identities": {"any_of": ["anna"]}})
        other = certify("root", ca=True, valid_from=NOW - datetime.timedelta(days=365))
        self.sign(path, self.signer(deployment, other, "anna@x"))
        assert code(deployment.verify(path)) == "CERTIFICATE_UNTRUSTED"

    def test_a_revoked_leaf(self, deployment: Deployment, root: Certified, path: Path) -> None:
        signer = self.signer(deployment, root, "anna@x")
        hint = load_signer(signer).public_key.hint
        revoked = [{"key": f"sha256:{hint}", "since": at(days=-1), "reason": "stolen"}]
        demand = {"identities": {"any_of": ["anna"]}}
        publish(deployment, {"anna": self.identity(root, "anna@x")}, demand, revocations=revoked)
        self.sign(path, signer)
        assert code(deployment.verify(path)) == "KEY_REVOKED"
        self.sign(path, self.signer(deployment, root, "anna@x"))
        assert deployment.verify(path).passed


# --- Ends ---


@pytest.mark.parametrize("level", ["enforce", "audit"])
@pytest.mark.parametrize("seconds", [-100, -1, 86_400])  # a test run takes longer than some minutes
def test_an_identity_that_ends(deployment: Deployment, path: Path, seconds: int, level: str) -> None:
    identities = {"trainer": deployment.identity(expires=at(seconds=seconds))}
    deployment.publish(policy([rule("models", "**", level=level)], identities))
    provenance(deployment, path, when=NOW - datetime.timedelta(days=30))
    deployment.sign(path)
    verdict = deployment.verify(path)
    if seconds > 0:
        assert verdict.passed
        assert verdict.signers
    else:
        assert (code(verdict) == "KEY_EXPIRED") is (level == "enforce")
        assert not verdict.signers


@pytest.mark.parametrize("level", ["enforce", "audit"])
@pytest.mark.parametrize("seconds", [-1, 86_400])
def test_an_identity_that_begins(deployment: Deployment, path: Path, seconds: int, level: str) -> None:
    """What the evidence says of its own time plays no part: a thief of next year's key writes any."""
    identities = {"trainer": deployment.identity(valid_from=at(seconds=seconds), expires=at(days=30))}
    deployment.publish(policy([rule("models", "**", level=level)], identities))
    provenance(deployment, path, when=NOW - datetime.timedelta(minutes=1))
    deployment.sign(path)
    verdict = deployment.verify(path)
    assert bool(verdict.signers) is (seconds < 0)
    assert ("KEY_NOT_YET_VALID" in {item.code for item in verdict.findings}) is (seconds > 0)
    assert verdict.passed or level == "enforce"


@pytest.mark.parametrize("level", ["enforce", "audit", "off"])
@pytest.mark.parametrize("since", [at(days=-3), at(days=3)], ids=["three-days-ago", "in-three-days"])
def test_a_revoked_key(deployment: Deployment, path: Path, level: str, since: str) -> None:
    """From when on is for people: the time in the evidence is what the thief wrote."""
    hint = deployment.sign(path).key
    revoked = [{"key": hint, "since": since, "reason": "stolen"}]
    rules = [rule("models", f"{deployment.folder}/**", level=level)]
    deployment.publish(policy(rules, deployment.identities("trainer"), revocations=revoked))
    key = str(deployment.key("trainer").public)
    assert code(deployment.verify(path, identities=key)) == "KEY_REVOKED"
    assert not deployment.verify(path).passed


@pytest.mark.parametrize("kind", ["file", "tree", "subset"])
@pytest.mark.parametrize("level", ["enforce", "audit", "off"])
def test_a_revoked_artifact(deployment: Deployment, path: Path, level: str, kind: str) -> None:
    target = path if kind == "file" else path.parent
    store = str(deployment.folder / "store")
    digest = str(deployment.sign(target, evidence_store=store).ref.digest)
    revoked = [{"digest": digest, "since": at(days=-3), "reason": "poisoned"}]
    rules = [rule("models", f"{deployment.folder}/**", level=level)]
    deployment.publish(policy(rules, deployment.identities("trainer"), revocations=revoked))
    options: dict[str, Any] = {"files": ["m.bin"]} if kind == "subset" else {}
    verdict = deployment.verify(
        target, identities=str(deployment.key("trainer").public), evidence_store=store, **options
    )
    assert code(verdict) == "ARTIFACT_REVOKED"


# --- Clocks ---


class TestClocks:
    """The only time in evidence is the one that its signer wrote."""

    def ask(self, deployment: Deployment, **require: Any) -> None:
        publish(deployment, deployment.identities("trainer"), {"identities": {"any_of": ["trainer"]}, **require})

    @pytest.mark.parametrize("delta", [{"days": -31}, {"days": 1}, {"hours": 1}, {"days": 4000}], ids=str)
    @pytest.mark.parametrize("field", ["max_age", "freshness"])
    def test_out_of_bounds(self, deployment: Deployment, path: Path, delta: dict[str, int], field: str) -> None:
        provenance(deployment, path, when=NOW + datetime.timedelta(**delta))
        deployment.sign(path, evidence_store=str(deployment.folder / "s"))
        target = next(Path(f"{path}.evidence").iterdir())
        for item in (deployment.folder / "s").rglob("signature-*.json"):
            (target / item.name).write_bytes(item.read_bytes())
        self.ask(deployment)
        assert deployment.verify(path).passed
        if field == "max_age":
            self.ask(deployment, evidence={"signature": {}, "provenance": {"max_age": "30d"}})
            assert code(deployment.verify(path)) == "EVIDENCE_TOO_OLD"
        else:
            self.ask(deployment, freshness={"max_age": "30d"})
            assert code(deployment.verify(path)) == "FRESHNESS_UNPROVED"

    def test_the_least_age_counts(self, deployment: Deployment, path: Path) -> None:
        rules = [
            rule("long", "**", require={"evidence": {"signature": {}, "provenance": {"max_age": "90d"}}}),
            rule("short", "**", require={"evidence": {"provenance": {"max_age": "1h"}}}),
        ]
        deployment.publish(policy(rules, deployment.identities("trainer")))
        deployment.sign(path)
        assert deployment.verify(path).passed
        drop(path, "provenance")
        provenance(deployment, path, when=NOW - datetime.timedelta(days=2))
        verdict = deployment.verify(path)
        assert code(verdict) == "EVIDENCE_TOO_OLD"
        assert verdict.deciding_finding is not None
        assert verdict.deciding_finding.rule == "short"

    def test_pinned(self, deployment: Deployment, path: Path) -> None:
        self.ask(deployment, freshness="pinned")
        ref = deployment.sign(path).ref
        assert code(deployment.verify(path)) == "FRESHNESS_UNPROVED"
        assert deployment.verify(ref).passed
        path.write_bytes(b"newer")
        deployment.sign(path)
        assert not deployment.verify(ref).passed

    def test_pinned_stands_before_an_age(self, deployment: Deployment, path: Path) -> None:
        rules = [
            rule("aged", "**", require={"freshness": {"max_age": "30d"}}),
            rule("pinned", "**", require={"freshness": "pinned"}),
        ]
        deployment.publish(policy(rules, deployment.identities("trainer")))
        deployment.sign(path)
        assert code(deployment.verify(path)) == "FRESHNESS_UNPROVED"


# --- Verifiers ---


class TestVerifiers:
    @pytest.mark.parametrize("kinds", [None, {"signature": {}}, {"provenance": {}}], ids=str)
    def test_a_verifier_is_no_producer(self, deployment: Deployment, path: Path, kinds: Body | None) -> None:
        identities = {**deployment.identities("trainer"), "checker": deployment.identity("checker", verifier=True)}
        require: Body = {"identities": {"any_of": ["trainer"]}, "reuse_verdict": {"max_age": "1d"}}
        if kinds:
            require["evidence"] = kinds
        publish(deployment, identities, require)
        deployment.sign(path, "checker")
        assert code(deployment.verify(path)) == "SIGNER_NOT_ALLOWED"
        draft = deployment.draft(policy([rule("own", "**", ["checker"])], deployment.identities("checker")))
        assert not deployment.verify(path, policy=draft).passed
        assert not deployment.verify(path, identities=str(deployment.key("checker").public)).passed


def test_loaders(deployment: Deployment, path: Path) -> None:
    require = {"identities": {"any_of": ["trainer"]}, "loaders": ["airflow:score/*"]}
    publish(deployment, deployment.identities("trainer"), require)
    deployment.sign(path)
    assert deployment.verify(path, SCORE).passed
    for run in (FIT, RunIdentity(), RunIdentity("cli"), RunIdentity("kfp", "score", "load", "r")):
        assert code(deployment.verify(path, run)) == "LOADER_NOT_ALLOWED"
    assert code(deployment.verify(path, RunIdentity("airflow", "score", "load/deeper", "r"))) == "LOADER_NOT_ALLOWED"


def test_the_verdict_names_rules_policy_and_signers(deployment: Deployment, path: Path) -> None:
    publish(deployment, deployment.identities("trainer"), {"identities": {"any_of": ["trainer"]}})
    deployment.sign(path)
    body = deployment.verify(path).as_dict()
    assert body["rules"] == ["models"]
    assert {signer["identity"] for signer in body["signers"]} == {"trainer"}
    payload = base64.b64decode(json.loads(deployment.place.read_bytes())["dsseEnvelope"]["payload"])
    assert body["policy"] == "sha256:" + hashlib.sha256(payload).hexdigest()
    assert "NOT_MANAGED" not in codes(deployment.verify(path))


# --- Whose key a call signs with ---


@pytest.mark.parametrize(
    ("given", "ruled", "mounted", "expected"),
    [
        ("stranger", True, True, "stranger"),
        ("stranger", False, False, "stranger"),
        (None, True, True, "reviewer"),
        (None, True, False, "reviewer"),
        (None, False, True, "trainer"),
    ],
    ids=["given", "given-alone", "policy-before-settings", "policy", "settings"],
)
def test_the_nearest_signer_signs(
    deployment: Deployment, path: Path, given: str | None, ruled: bool, mounted: bool, expected: str
) -> None:
    """The call's, then the policy's, then the settings'; whose signature counts is another question."""
    deployment.publish(policy([rule("models", "**")], deployment.identities("trainer"),
                              signers=[{"uri": deployment.key("reviewer").signer}]))  # fmt: skip
    settings = sealflow.Settings(signer=deployment.key("trainer").signer if mounted else None)
    around = sealflow.Surroundings(FIT, settings, admin=deployment.channel() if ruled else None)
    with sealflow.run(around):
        made = sealflow.sign_artifact(path, signer=deployment.key(given).signer if given else None)
    assert made.key == f"sha256:{load_public_key(str(deployment.key(expected).public)).hint}"
