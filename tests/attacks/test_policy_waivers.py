"""A waiver is signed by an admin, for one rule as it stands, one scope and a while; integrity it never touches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.evidence.bundle import PAYLOAD_TYPE
from sealflow.policy import source
from sealflow.policy.signed import POLICY_TYPE
from sealflow.policy.source import forget
from tests.core.policy.deployment import FIT, SCORE, Body, Deployment, at, code, codes, policy, rule

pytest_plugins = ["tests.core.policy.fixtures"]


@pytest.fixture
def path(deployment: Deployment) -> Path:
    """An artifact that nobody signed, and a rule that asks for the trainer's signature."""
    deployment.publish(body(deployment))
    return deployment.model()


def body(deployment: Deployment, **more: Any) -> Body:
    rules = [
        rule("models", f"{deployment.folder}/models/**"),
        rule("loaders", f"{deployment.folder}/models/**", require={"loaders": ["airflow:score/*"]}),
    ]
    return policy(rules, deployment.identities("trainer"), **more)


def test_it_lets_pass_what_it_names_and_says_so(deployment: Deployment, path: Path) -> None:
    assert code(deployment.verify(path)) == "EVIDENCE_MISSING"
    deployment.waive(deployment.waiver("models", "loaders"))
    verdict = deployment.verify(path)
    assert verdict.passed
    used = next(finding for finding in verdict.findings if finding.code == "WAIVER_USED")
    assert used.rule == "w1"
    assert "burned down" in used.message
    assert "sha256:" in used.found
    assert "EVIDENCE_MISSING" in codes(verdict)
    assert verdict.rules == ("loaders", "models")
    assert not verdict.signers


def _other_text(deployment: Deployment, waiver: Body) -> None:
    changed = body(deployment, version=2)
    changed["rules"][0]["require"]["freshness"] = "pinned"
    deployment.publish(changed)


def _other_key(deployment: Deployment, waiver: Body) -> None:
    """Another deployment, or another time: the rule reads the same and believes somebody else."""
    changed = body(deployment, version=2)
    changed["identities"] = {"trainer": deployment.identity("somebody-else")}
    deployment.publish(changed)


def _edit(deployment: Deployment, waiver: Body, **change: Any) -> None:
    place = deployment.waivers / "w1.json"
    import base64

    bundle = json.loads(place.read_bytes())
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload.update(change)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    place.write_text(json.dumps(bundle))


USELESS: dict[str, Callable[[Deployment, Body], object]] = {
    "other-artifact": lambda d, w: d.waive({**w, "scope": {"artifact": [f"{d.folder}/models/other.bin"]}}),
    "a-folder-above": lambda d, w: d.waive({**w, "scope": {"artifact": [f"{d.folder}/models"]}}),
    "by-a-name-that-nobody-signed": lambda d, w: d.waive({**w, "scope": {"artifact": ["name:**"]}}),
    "other-task": lambda d, w: d.waive({**w, "scope": {**w["scope"], "task": ["fit"]}}),
    "other-dag": lambda d, w: d.waive({**w, "scope": {**w["scope"], "dag": ["train"]}}),
    "other-team": lambda d, w: d.waive({**w, "scope": {**w["scope"], "team": ["fraud"]}}),
    "other-orchestrator": lambda d, w: d.waive({**w, "scope": {**w["scope"], "orchestrator": ["kfp"]}}),
    "other-bytes": lambda d, w: d.waive({**w, "digest": "sha256:" + "0" * 64}),
    "other-kind-of-digest": lambda d, w: d.waive({**w, "digest": "dirHash:" + "0" * 64}),
    "other-rule-text": _other_text,
    "other-identities-behind-the-rule": _other_key,
    "other-digest": lambda d, w: d.waive(
        {**w, "rules": [{**item, "digest": "sha256:" + "0" * 64} for item in w["rules"]]}
    ),
    "digests-swapped": lambda d, w: d.waive(
        {
            **w,
            "rules": [
                {"name": one["name"], "digest": other["digest"]}
                for one, other in zip(w["rules"], reversed(w["rules"]), strict=True)
            ],
        }
    ),
    "only-one-of-two-rules": lambda d, w: d.waive({**w, "rules": w["rules"][:1]}),
    "a-teams-rule": lambda d, w: d.waive(
        {**w, "rules": [{**item, "name": f"ml/{item['name']}"} for item in w["rules"]]}
    ),
    "expired": lambda d, w: d.waive({**w, "not_before": at(days=-3), "expires": at(seconds=-2)}),
    "not-yet": lambda d, w: d.waive({**w, "not_before": at(hours=1)}),
    "too-long": lambda d, w: d.waive({**w, "expires": at(days=120)}),
    "backwards": lambda d, w: d.waive({**w, "not_before": at(days=3), "expires": at(days=-3)}),
    "for-ever": lambda d, w: d.waive({**w, "not_before": at(hours=-1), "expires": "9999-12-31T23:59:59Z"}),
    "from-the-end-of-time": lambda d, w: d.waive(
        {**w, "not_before": "9999-12-31T23:59:58Z", "expires": "9999-12-31T23:59:59Z"}
    ),
    "without-a-reason": lambda d, w: d.waive({k: v for k, v in w.items() if k != "reason"}),
    "with-a-short-reason": lambda d, w: d.waive({**w, "reason": "because"}),
    "without-an-artifact": lambda d, w: d.waive({**w, "scope": {"dag": ["score"]}}),
    "without-rules": lambda d, w: d.waive({**w, "rules": []}),
    "rules-by-name-only": lambda d, w: d.waive({**w, "rules": ["models", "loaders"]}),
    "unknown-field": lambda d, w: d.waive({**w, "integrity": "off"}),
    "newer-form": lambda d, w: d.waive({**w, "apiVersion": "sealflow/v2"}),
    "other-kind": lambda d, w: d.waive({**w, "kind": "Policy"}),
    "signed-by-a-producer": lambda d, w: d.waive(w, "trainer"),
    "signed-by-a-team": lambda d, w: d.waive(w, "team"),
    "signed-by-a-stranger": lambda d, w: d.waive(w, "stranger"),
    "signed-as-a-policy": lambda d, w: d.waive(w, payload_type=POLICY_TYPE),
    "signed-as-an-attestation": lambda d, w: d.waive(w, payload_type=PAYLOAD_TYPE),
    "unsigned": lambda d, w: (d.waivers / "w1.json").write_text(json.dumps(w)),
    "edited-scope": lambda d, w: (
        d.waive({**w, "scope": {"artifact": ["/nowhere/**"]}}),
        _edit(d, w, scope={"artifact": ["**"]}),
    ),
    "edited-end": lambda d, w: (
        d.waive({**w, "not_before": at(days=-3), "expires": at(days=-1)}),
        _edit(d, w, expires=at(days=1)),
    ),
    "empty": lambda d, w: (d.waivers / "w1.json").write_bytes(b""),
    "in-another-folder": lambda d, w: (d.waivers / "w1.json").rename(d.folder / "w1.json"),
    "in-a-folder-below": lambda d, w: (
        (d.waivers / "below").mkdir(),
        (d.waivers / "w1.json").rename(d.waivers / "below" / "w1.json"),
    ),
    "a-link": lambda d, w: (
        (d.waivers / "w1.json").rename(d.folder / "w1.json"),
        (d.waivers / "w1.json").symlink_to(d.folder / "w1.json"),
    ),
    "a-pipe": lambda d, w: ((d.waivers / "w1.json").unlink(), os.mkfifo(d.waivers / "w1.json")),
}


@pytest.mark.parametrize("how", USELESS)
def test_useless(deployment: Deployment, path: Path, how: str) -> None:
    waiver = deployment.waiver("models", "loaders", artifact=f"{deployment.folder}/models/**")
    deployment.waive(waiver)
    assert deployment.verify(path).passed
    USELESS[how](deployment, waiver)
    forget()
    verdict = deployment.verify(path)
    assert code(verdict) == "EVIDENCE_MISSING", verdict.as_dict()
    assert "WAIVER_USED" not in codes(verdict)
    # And it spoils nothing.
    deployment.sign(path, "somebody-else" if how == "other-identities-behind-the-rule" else "trainer")
    assert code(deployment.verify(path)) == ("FRESHNESS_UNPROVED" if how == "other-rule-text" else "passed")


def test_keys_for_waivers_sign_no_policy(deployment: Deployment, path: Path) -> None:
    channel = deployment.channel(waiver_keys=[str(deployment.key("on-call").public)])
    deployment.waive(deployment.waiver("models", "loaders"), "on-call")
    assert deployment.verify(path, channel=channel).passed
    assert code(deployment.verify(path)) == "EVIDENCE_MISSING"
    deployment.publish(body(deployment, version=9), "on-call")
    assert code(deployment.verify(path, channel=channel)) == "POLICY_UNAVAILABLE"


@pytest.mark.parametrize("key", ["/nowhere/key.pem", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_waiver_key_that_cannot_be_had(deployment: Deployment, path: Path, key: str) -> None:
    """Then there are no waivers, and everything else is as it was."""
    deployment.waive(deployment.waiver("models", "loaders"))
    channel = deployment.channel(waiver_keys=[key])
    assert code(deployment.verify(path, channel=channel)) == "EVIDENCE_MISSING"
    deployment.sign(path)
    assert deployment.verify(path, channel=channel).passed


def test_what_is_left_is_enforced(deployment: Deployment, path: Path) -> None:
    deployment.waive(deployment.waiver("loaders"))
    deployment.sign(path)
    verdict = deployment.verify(path, FIT)
    assert verdict.passed
    assert "LOADER_NOT_ALLOWED" in codes(verdict)
    for evidence in Path(f"{path}.evidence").rglob("provenance-*.json"):
        evidence.unlink()
    assert code(deployment.verify(path, FIT)) == "PROVENANCE_MISSING"


def test_a_waiver_that_nothing_needs_is_not_told(deployment: Deployment, path: Path) -> None:
    deployment.waive(deployment.waiver("models", "loaders"))
    deployment.sign(path)
    assert "WAIVER_USED" not in codes(deployment.verify(path))


def test_the_rules_of_a_call_cannot_be_waived(deployment: Deployment, path: Path) -> None:
    deployment.waive(deployment.waiver("models", "loaders"))
    draft = deployment.draft(policy([rule("own", f"{deployment.folder}/models/**")], deployment.identities("trainer")))
    assert code(deployment.verify(path, policy=draft)) == "EVIDENCE_MISSING"
    waiver = deployment.waiver("models", "loaders")
    own = {item["name"]: item for item in waiver["rules"]}["models"]
    waiver["rules"].append({**own, "name": "policy/own"})
    deployment.waive(waiver)
    assert code(deployment.verify(path, policy=draft)) == "EVIDENCE_MISSING"


def test_a_task_without_a_rule_cannot_be_waived(deployment: Deployment) -> None:
    path = deployment.model()
    deployment.publish(policy([rule("models", "**", dag=["train"])], deployment.identities("trainer")))
    deployment.waive(deployment.waiver("models"))
    assert code(deployment.verify(path)) == "POLICY_NO_RULE"


def test_reused_verdicts_and_inputs(deployment: Deployment, path: Path) -> None:
    """What only a waiver let pass is no verified input of what the run signs."""
    deployment.waive(deployment.waiver("models", "loaders"))
    assert deployment.verify(path, SCORE).passed
    from sealflow.actions.context import verified_inputs

    assert str(path) not in "".join(item.uri for item in verified_inputs(SCORE))


class TestFloods:
    def test_of_waivers(self, deployment: Deployment, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """More than are read: some true ones may be missed, nothing else changes."""
        monkeypatch.setattr(source, "MAX_WAIVERS", 8)
        deployment.waivers.mkdir()
        for number in range(50):
            (deployment.waivers / f"0{number}.json").write_bytes(b"{")
        deployment.waive(deployment.waiver("models", "loaders"), name="zzz.json")
        assert code(deployment.verify(path)) in ("EVIDENCE_MISSING", "passed")
        deployment.sign(path)
        assert deployment.verify(path).passed

    def test_with_large_and_strange_objects(self, deployment: Deployment, path: Path) -> None:
        deployment.waive(deployment.waiver("models", "loaders"), name="m.json")
        (deployment.waivers / "large").write_bytes(b" " * (1 << 20))
        (deployment.waivers / "deep").write_bytes(b"[" * 100_000)
        (deployment.waivers / "folder").mkdir()
        (deployment.waivers / "\x1b[2J").write_bytes(b"x")
        os.mkfifo(deployment.waivers / "pipe")
        (deployment.waivers / "link").symlink_to("/dev/zero")
        verdict = deployment.verify(path)
        assert verdict.passed
        assert "\x1b" not in json.dumps(verdict.as_dict(), ensure_ascii=False)

    def test_a_file_in_the_place_of_the_folder(self, deployment: Deployment, path: Path) -> None:
        deployment.waivers.write_bytes(b"x")
        assert code(deployment.verify(path)) == "EVIDENCE_MISSING"


@pytest.mark.parametrize("elsewhere", ["its own store", "another store", "handed over"])
@pytest.mark.parametrize("relaxed", ["audit", "waived"])
def test_a_flipped_byte_contradicts_its_own_store(deployment: Deployment, relaxed: str, elsewhere: str) -> None:
    """Wherever the call looks for evidence: that no rule is enforced is no leave to use changed bytes."""
    path = deployment.model()
    level = "audit" if relaxed == "audit" else "enforce"
    deployment.publish(
        policy([rule("models", f"{deployment.folder}/**", level=level)], deployment.identities("trainer"))
    )
    if relaxed == "waived":
        deployment.waive(deployment.waiver("models", artifact=f"{deployment.folder}/**"))
    deployment.sign(path)
    path.write_bytes(b"other weights")
    options: dict[str, Any] = {
        "its own store": {},
        "another store": {"evidence_store": str(deployment.folder / "empty")},
        "handed over": {"only_given_evidence": True},
    }[elsewhere]
    assert code(deployment.verify(path, **options)) == "FILE_CHANGED"
    # The new bytes are new work once somebody vouches for them, whoever that is: audited, it is only said.
    deployment.sign(path, key="stranger")
    assert deployment.verify(path).passed
