"""The policy's field `lineage`: how demands are joined, and what verification makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.policy_explain import explain
from sealflow.actions.policy_tables import read_table, run_table
from sealflow.errors import PolicyError
from sealflow.findings import Verdict
from sealflow.hashing import sha256_hex
from sealflow.policy.compose import Arguments, compose
from sealflow.policy.document import parse_policy
from sealflow.policy.draft import read_draft
from sealflow.run_identity import RunIdentity
from tests.core.policy.deployment import FIT, SCORE, Deployment, code, compiled, policy, rule
from tests.pki import NOW

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64


@pytest.fixture
def there(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "deployment")


def _rule(there: Deployment, name: str, artifact: str, any_of: tuple[str, ...], **lineage: Any) -> dict[str, Any]:
    return rule(name, f"{there.folder}/{artifact}", any_of, require={"lineage": lineage} if lineage else {})


def _chain(there: Deployment, *, raw_by: str = "owner", clean_by: str = "cleaner") -> sealflow.ArtifactRef:
    """raw (a data owner's) → clean (made by a run) → model (made by another)."""
    # A process remembers what a run has verified, so each test has runs of its own.
    prepare = RunIdentity("airflow", "prepare", "clean", str(there.folder), None, 1)
    fit = RunIdentity("airflow", "train", "fit", str(there.folder), None, 1)
    raw = there.sign(there.model("data/raw.csv", b"raw"), raw_by, RunIdentity())
    with sealflow.run(sealflow.Surroundings(prepare)):
        assert sealflow.verify(raw.ref, identities=there.pem(raw_by)).passed
    clean = there.sign(there.model("data/clean.csv", b"clean"), clean_by, prepare)
    with sealflow.run(sealflow.Surroundings(fit)):
        assert sealflow.verify(clean.ref, identities=there.pem(clean_by)).passed
    return there.sign(there.model(), "trainer", fit).ref


def _deciding(verdict: Verdict) -> set[str]:
    return {item.code for item in verdict.findings if item.severity in ("refusal", "unverifiable")}


def _body(there: Deployment, *, roots: list[str] | None = None, **more: Any) -> dict[str, Any]:
    lineage: dict[str, Any] = {"roots": roots or ["owner"], **more}
    return policy(
        [
            _rule(there, "models", "models/**", ("trainer",), **lineage),
            _rule(there, "clean", "data/clean.csv", ("cleaner",)),
            _rule(there, "raw", "data/raw.csv", ("owner",)),
        ],
        there.identities("trainer", "cleaner", "owner"),
    )


def test_an_artifact_is_traced_back(there: Deployment) -> None:
    ref = _chain(there)
    there.publish(_body(there))
    verdict = there.verify(ref)
    assert verdict.passed, verdict.summary()


@pytest.mark.parametrize("lost", ["data/clean.csv", "data/raw.csv"])
def test_a_missing_link_refuses(there: Deployment, lost: str) -> None:
    ref = _chain(there)
    for path in (there.folder / f"{lost}.evidence").glob("*/provenance-*.json"):
        path.unlink()
    there.publish(_body(there))
    verdict = there.verify(ref)
    assert (verdict.status, code(verdict), verdict.exit_status) == ("failed", "LINEAGE_UNPROVED", 3)
    assert "DEP_UNATTESTED" in {finding.code for finding in verdict.findings}


def test_data_of_nobody_who_owns_data_refuses(there: Deployment) -> None:
    ref = _chain(there)
    there.publish(_body(there, roots=["trainer"]))
    assert _deciding(there.verify(ref)) == {"LINEAGE_UNPROVED"}


def test_a_listed_dataset_is_a_beginning(there: Deployment) -> None:
    ref = _chain(there)
    body = _body(there)
    lineage = body["rules"][0]["require"]["lineage"]
    del lineage["roots"]
    lineage["datasets"] = [OTHER]
    there.publish(body)
    assert _deciding(there.verify(ref)) == {"LINEAGE_UNPROVED"}
    lineage["datasets"] = [OTHER, f"sha256:{sha256_hex(b'raw')}"]
    there.publish(body)
    assert there.verify(ref).passed


def test_links_hold_under_their_own_rules(there: Deployment) -> None:
    ref = _chain(there, clean_by="stranger")
    there.publish(_body(there))
    assert _deciding(there.verify(ref)) == {"LINEAGE_UNPROVED"}


def test_links_begin_where_their_own_rules_say(there: Deployment) -> None:
    ref = _chain(there)
    body = _body(there, roots=["cleaner", "owner"])
    # The model may begin at what the cleaner signed; what he signed may not.
    body["rules"][1]["require"]["lineage"] = {"datasets": [OTHER]}
    there.publish(body)
    verdict = there.verify(ref)
    assert _deciding(verdict) == {"LINEAGE_UNPROVED"}, verdict.summary()


def test_under_audit_it_is_said(there: Deployment) -> None:
    ref = _chain(there)
    body = _body(there, roots=["trainer"])
    body["rules"][0]["level"] = "audit"
    there.publish(body)
    verdict = there.verify(ref)
    assert verdict.passed, verdict.summary()
    assert {"LINEAGE_UNPROVED", "POLICY_AUDIT"} <= {finding.code for finding in verdict.findings}


def test_a_waiver_stands_in(there: Deployment) -> None:
    ref = _chain(there)
    there.publish(_body(there, roots=["trainer"]))
    there.waive(there.waiver("models"))
    verdict = there.verify(ref)
    assert verdict.passed, verdict.summary()
    assert "WAIVER_USED" in {finding.code for finding in verdict.findings}


def test_a_copy_is_handed_out_only_then(there: Deployment) -> None:
    ref = _chain(there)
    there.publish(_body(there, roots=["trainer"]))
    with (
        sealflow.run(sealflow.Surroundings(SCORE, admin=there.channel())),
        pytest.raises(sealflow.VerificationError),
        sealflow.verified(ref),
    ):
        raise AssertionError("handed out")


# --- Documents ---


@pytest.mark.parametrize(
    ("lineage", "reason"),
    [
        ({}, "roots or datasets"),
        ({"roots": []}, "at least 1"),
        ({"roots": ["nobody"]}, "no signer"),
        ({"roots": ["checker"]}, "no signer"),
        ({"datasets": ["sha256:1"]}, "64 hex"),
        ({"level": "L7"}, "L6"),
        ({"level": "L2", "commits": {"allowed_signers": "a b c", "branch": "refs/heads/main"}}, "level L3"),
        ({"roots": ["owner"], "commits": {"allowed_signers": "a b c", "branch": "refs/heads/main"}}, "level L3"),
        ({"level": "L3", "commits": {"branch": "refs/heads/main"}}, "allowed_signers"),
        ({"roots": ["owner"], "more": 1}, "more"),
    ],
    ids=str,
)
def test_what_no_policy_says(there: Deployment, lineage: dict[str, Any], reason: str) -> None:
    identities = {**there.identities("owner"), "checker": {**there.identity("checker"), "verifier": True}}
    body = policy([rule("r", "/data/**", ("owner",), require={"lineage": lineage})], identities)
    with pytest.raises(PolicyError) as caught:
        parse_policy(json.dumps(body).encode())
    assert reason in f"{caught.value.message} {caught.value.problems}"


def test_it_needs_provenance(there: Deployment) -> None:
    require = {"lineage": {"roots": ["owner"]}, "evidence": {"signature": {}}}
    body = policy([rule("r", "/data/**", ("owner",), require=require)], there.identities("owner"))
    with pytest.raises(PolicyError, match="provenance"):
        parse_policy(json.dumps(body).encode())


def test_demands_are_joined(there: Deployment) -> None:
    first = {"roots": ["owner", "cleaner"], "datasets": [DIGEST, OTHER], "level": "L2"}
    second = {"roots": ["owner"], "datasets": [DIGEST], "level": "L4"}
    body = policy(
        [
            rule("a", "/data/**", ("owner",), require={"lineage": first}),
            rule("b", "/data/x/**", ("owner",), require={"lineage": second}),
            rule("c", "/data/**", ("owner",), require={"lineage": {"level": "L1"}}),
        ],
        there.identities("owner", "cleaner"),
    )
    found = compose([compiled(body)], Arguments(), places=("file:///data/x/y",), run=FIT, now=NOW).requirement
    roots, datasets = found.beginnings
    assert ([item.name for item in roots], {str(item) for item in datasets}) == (["owner"], {DIGEST})
    assert max(item.level for item in found.lineage) == 4
    assert "provenance" in found.kinds


def test_beginnings_that_nothing_satisfies_are_a_contradiction(there: Deployment) -> None:
    rules = [
        rule("a", "/data/**", ("owner",), require={"lineage": {"roots": ["owner"]}}),
        rule("b", "/data/x/**", ("owner",), require={"lineage": {"roots": ["cleaner"]}}),
    ]
    with pytest.raises(PolicyError) as caught:
        compiled(policy(rules, there.identities("owner", "cleaner")))
    assert caught.value.code == "POLICY_CONTRADICTION"
    rules[1]["require"]["lineage"]["datasets"] = rules[0]["require"]["lineage"]["datasets"] = [DIGEST]
    compiled(policy(rules, there.identities("owner", "cleaner")))


def test_the_rule_that_a_waiver_names_covers_the_owners(there: Deployment) -> None:
    def digest(owner: str) -> str:
        require = {"lineage": {"roots": ["owner"]}}
        identities = {"owner": there.identity(owner), "trainer": there.identity("trainer")}
        (made,) = compiled(policy([rule("r", "/data/**", require=require)], identities)).rules
        return made.digest

    assert digest("owner") != digest("eve")


def test_a_draft_names_the_file_of_allowed_signers(there: Deployment, tmp_path: Path) -> None:
    text = "ada@example.org ssh-ed25519 AAAA\n"
    (tmp_path / "signers").write_text(text)
    (tmp_path / "owner.pub").write_text(there.pem("owner"))
    lineage = {"level": "L3", "commits": {"allowed_signers": "signers", "branch": "refs/heads/main"}}
    body = policy([rule("r", "/data/**", ("owner",), require={"lineage": lineage})], {"owner": {"key": "owner.pub"}})
    (tmp_path / "p.yaml").write_text(json.dumps(body))
    made = read_draft(str(tmp_path / "p.yaml")).policy()
    demand = made.rules[0].require.lineage
    assert demand is not None
    assert demand.commits is not None
    assert demand.commits.allowed_signers == text
    lineage["commits"]["allowed_signers"] = "nowhere"  # type: ignore[index]
    (tmp_path / "p.yaml").write_text(json.dumps(body))
    with pytest.raises(PolicyError, match="nowhere"):
        read_draft(str(tmp_path / "p.yaml"))


def test_explain_says_where_artifacts_begin(there: Deployment) -> None:
    body = _body(there, level="L4", datasets=[DIGEST])
    there.publish(body)
    surroundings = sealflow.Surroundings(SCORE, admin=there.channel())
    found = explain(str(there.folder / "models/m.bin"), surroundings)
    said = {item.text for item in found.demands if item.what == "lineage"}
    assert said == {
        "traced back to data of owner, 1 listed datasets",
        "a DVC repository is checked at level L4 or above",
    }


@pytest.mark.parametrize(("traced", "status"), [(True, "passed"), (False, "refused")])
def test_a_table_supposes_the_way_back(there: Deployment, traced: bool, status: str) -> None:
    run = {"artifact": f"{there.folder}/models/m.bin", "dag": "score", "task": "load", "pinned": True}
    by = {"by": "trainer", "producer": "airflow:train/fit"}
    case = {"name": "c", **run, "evidence": [by], "traced": traced, "expect": status}
    body = {"apiVersion": "sealflow/v1", "kind": "PolicyTests", "cases": [case]}
    if not traced:
        case["code"] = "LINEAGE_UNPROVED"
    table, draft = read_table(json.dumps(body).encode(), "table")
    (result,) = run_table(compiled(_body(there)), table, draft)
    assert result.ok, result
