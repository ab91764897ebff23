"""Whatever authors, teams and calls add to the admin's policy, nothing passes that the admin refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.errors import PolicyError, SealflowError
from sealflow.policy.compose import CompiledPolicy
from sealflow.policy.source import forget
from tests.core.policy.deployment import FIT, SCORE, Body, Deployment, at, code, codes, compiled, policy, rule

pytest_plugins = ["tests.core.policy.fixtures"]

LEVELS = ["enforce", "audit", "off"]


def models(deployment: Deployment) -> str:
    return f"{deployment.folder}/models/**"


def strangers_draft(deployment: Deployment, **more: Any) -> str:
    body = policy([rule("own", models(deployment), ["stranger"], **more)], deployment.identities("stranger"))
    return deployment.draft(body)


# --- What a call adds ---


@pytest.mark.parametrize("level", LEVELS)
class TestACallsPolicy:
    """An author's draft believes the author and asks for little."""

    def test_under_an_enforced_rule(self, deployment: Deployment, level: str) -> None:
        deployment.publish(policy([rule("models", models(deployment))], deployment.identities("trainer")))
        path = deployment.model()
        deployment.sign(path, "stranger")
        assert code(deployment.verify(path, policy=strangers_draft(deployment, level=level))) == "SIGNER_NOT_ALLOWED"

    def test_where_no_rule_holds_for_the_task(self, deployment: Deployment, level: str) -> None:
        rules = [rule("models", models(deployment), dag=["train"])]
        deployment.publish(policy(rules, deployment.identities("trainer")))
        path = deployment.model()
        deployment.sign(path, "stranger")
        verdict = deployment.verify(path, policy=strangers_draft(deployment, level=level))
        assert code(verdict) == "POLICY_NO_RULE"
        assert not verdict.rules

    def test_where_a_rule_names_nobody(self, deployment: Deployment, level: str) -> None:
        rules = [rule("models", models(deployment), [], require={"loaders": ["**"]})]
        deployment.publish(policy(rules, deployment.identities("trainer")))
        path = deployment.model()
        deployment.sign(path, "stranger")
        verdict = deployment.verify(path, policy=strangers_draft(deployment, level=level))
        assert code(verdict) == "IDENTITY_RULE_MISSING"
        stranger = str(deployment.key("stranger").public)
        assert code(deployment.verify(path, identities=stranger)) == "IDENTITY_RULE_MISSING"

    def test_a_shared_key_called_somebodys_own(self, deployment: Deployment, level: str) -> None:
        path = deployment.model()
        identities = {
            "trainer": deployment.identity("shared", producers=["airflow:train/*"]),
            "cleaner": deployment.identity("shared", producers=["airflow:clean/*"]),
        }
        rules = [rule("models", models(deployment), require={"producers": ["airflow:train/*"]})]
        deployment.publish(policy(rules, identities))
        deployment.sign(path, "shared")
        assert code(deployment.verify(path)) == "KEY_SHARED"
        own = {"mine": deployment.identity("shared", producers=["airflow:train/*"])}
        draft = deployment.draft(policy([rule("own", models(deployment), ["mine"], level=level)], own))
        assert code(deployment.verify(path, policy=draft)) == "KEY_SHARED"

    def test_under_an_audited_rule(self, deployment: Deployment, level: str) -> None:
        """What audit lets pass, a call may refuse; nothing becomes laxer."""
        rules = [rule("models", models(deployment), level="audit")]
        deployment.publish(policy(rules, deployment.identities("trainer")))
        path = deployment.model()
        assert deployment.verify(path).passed
        verdict = deployment.verify(path, policy=strangers_draft(deployment, level=level))
        assert verdict.passed is (level != "enforce")


class TestACallsArguments:
    @pytest.fixture
    def signed(self, deployment: Deployment) -> Path:
        path = deployment.model()
        deployment.publish(policy([rule("models", models(deployment))], deployment.identities("trainer")))
        deployment.sign(path, "stranger")
        return path

    @pytest.mark.parametrize(
        "options",
        [
            {"require": ["signature"]},
            {"require": ["provenance"]},
            {"name": "m.bin"},
            {"producer": "airflow:train/*"},
            {"only_given_evidence": True},
            {"evidence_store": "/nowhere"},
        ],
        ids=str,
    )
    def test_none_loosens(self, deployment: Deployment, signed: Path, options: dict[str, Any]) -> None:
        assert not deployment.verify(signed, **options).passed
        assert not deployment.verify(signed, identities=str(deployment.key("stranger").public), **options).passed

    def test_legacy_forms(self, deployment: Deployment, signed: Path) -> None:
        with pytest.raises(PolicyError, match="POLICY_LOCKED"):
            deployment.verify(signed, accept_legacy=True)

    @pytest.mark.parametrize("options", [{"policy": ""}, {"policy": "/nowhere"}, {"policy": "s3://policies/p.yaml"}])
    def test_a_policy_that_is_not_there(self, deployment: Deployment, signed: Path, options: dict[str, Any]) -> None:
        with pytest.raises(SealflowError):
            deployment.verify(signed, **options)

    def test_a_compiled_policy_that_ranks_as_the_admins(self, deployment: Deployment, signed: Path) -> None:
        body = policy([rule("models", models(deployment), ["stranger"])], deployment.identities("stranger"))
        for made in (compiled(body), compiled(body, team="ml")):
            with pytest.raises(PolicyError):
                deployment.verify(signed, policy=made)
        made = compiled(body, team="policy")
        assert isinstance(made, CompiledPolicy)
        assert code(deployment.verify(signed, policy=made)) == "SIGNER_NOT_ALLOWED"

    def test_a_draft_that_delegates(self, deployment: Deployment, signed: Path) -> None:
        body = policy(
            [rule("own", models(deployment), ["stranger"])],
            deployment.identities("stranger"),
            delegations=[
                {"team": "t", "artifact": [models(deployment)], "key": deployment.pem("team"), "policy": "/p.json"}
            ],
        )
        with pytest.raises(PolicyError, match="delegates"):
            deployment.verify(signed, policy=deployment.draft(body))

    def test_a_draft_that_has_expired(self, deployment: Deployment, signed: Path) -> None:
        body = policy([rule("own", models(deployment), ["stranger"])], deployment.identities("stranger"))
        with pytest.raises(PolicyError, match="expired"):
            deployment.verify(signed, policy=deployment.draft({**body, "expires": at(days=-1)}))

    def test_settings_are_asked_only_where_no_rule_is(self, deployment: Deployment, signed: Path) -> None:
        settings = sealflow.Settings(identities=str(deployment.key("stranger").public))
        assert code(deployment.verify(signed, settings=settings)) == "SIGNER_NOT_ALLOWED"
        other = deployment.model("free/f.bin")
        deployment.sign(other, "stranger")
        verdict = deployment.verify(other, settings=settings)
        assert verdict.passed
        assert "NOT_MANAGED" in codes(verdict)


class TestWhatACallStatesUnderAudit:
    """Audit relaxes what the policy asks for. What the call asks for, and what contradicts it, stays refused."""

    @pytest.fixture(params=["audit", "waiver"])
    def relaxed(self, deployment: Deployment, request: pytest.FixtureRequest) -> Path:
        level = "audit" if request.param == "audit" else "enforce"
        rules = [rule("models", models(deployment), require={"loaders": ["airflow:nobody/*"]}, level=level)]
        deployment.publish(policy(rules, deployment.identities("trainer")))
        if request.param == "waiver":
            deployment.waive(deployment.waiver("models"))
        return deployment.model()

    def test_nothing_stated(self, deployment: Deployment, relaxed: Path) -> None:
        verdict = deployment.verify(relaxed)
        assert verdict.passed
        assert {"POLICY_AUDIT", "WAIVER_USED"} & codes(verdict)
        assert not verdict.signers

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({}, "passed"),
            ({"name": "m.bin"}, "passed"),
            ({"name": "other"}, "NAME_MISMATCH"),
            ({"producer": "airflow:train/*"}, "passed"),
            ({"producer": "airflow:other/*"}, "PRODUCER_MISMATCH"),
        ],
        ids=str,
    )
    def test_a_contradiction(
        self, deployment: Deployment, relaxed: Path, options: dict[str, Any], expected: str
    ) -> None:
        deployment.sign(relaxed)
        assert code(deployment.verify(relaxed, **options)) == expected

    def test_identities(self, deployment: Deployment, relaxed: Path) -> None:
        trainer = str(deployment.key("trainer").public)
        assert code(deployment.verify(relaxed, identities=trainer)) == "EVIDENCE_MISSING"
        assert code(deployment.verify(relaxed, identities=[])) in ("IDENTITY_RULE_MISSING", "EVIDENCE_MISSING")
        deployment.sign(relaxed, "stranger")
        assert code(deployment.verify(relaxed, identities=trainer)) == "SIGNER_NOT_ALLOWED"
        deployment.sign(relaxed)
        assert deployment.verify(relaxed, identities=trainer).passed

    def test_a_pinned_digest(self, deployment: Deployment, relaxed: Path) -> None:
        ref = deployment.sign(relaxed).ref
        assert deployment.verify(ref).passed
        relaxed.write_bytes(b"other weights")
        assert code(deployment.verify(ref)) in ("DIGEST_MISMATCH", "FILE_CHANGED")

    def test_a_changed_byte(self, deployment: Deployment, relaxed: Path) -> None:
        deployment.sign(relaxed)
        relaxed.write_bytes(b"the Weights")
        assert code(deployment.verify(relaxed)) == "FILE_CHANGED"

    def test_a_changed_bundle(self, deployment: Deployment, relaxed: Path) -> None:
        deployment.sign(relaxed)
        for path in Path(f"{relaxed}.evidence").rglob("signature-*.json"):
            body = json.loads(path.read_bytes())
            signature = bytearray(base64.b64decode(body["dsseEnvelope"]["signatures"][0]["sig"]))
            signature[-1] ^= 1
            body["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(signature).decode()
            path.write_text(json.dumps(body))
        assert code(deployment.verify(relaxed)) in ("EVIDENCE_ALTERED", "SIGNATURE_INVALID")

    @pytest.mark.parametrize("what", ["key", "digest"])
    def test_revoked(self, deployment: Deployment, relaxed: Path, what: str) -> None:
        signed = deployment.sign(relaxed)
        value = signed.key if what == "key" else str(signed.ref.digest)
        body = dict(deployment.body)
        body["revocations"] = [{what: value, "since": at(days=-1), "reason": "stolen"}]
        deployment.publish(body)
        assert code(deployment.verify(relaxed)) == ("KEY_REVOKED" if what == "key" else "ARTIFACT_REVOKED")

    @pytest.mark.slow
    def test_a_store_that_cannot_be_read(self, deployment: Deployment, relaxed: Path) -> None:
        deployment.sign(relaxed)
        verdict = deployment.verify(relaxed, evidence_store="s3://no-such-bucket-anywhere/evidence")
        assert not verdict.passed


def test_a_revoked_digest_without_any_evidence(deployment: Deployment) -> None:
    path = deployment.model()
    digest = str(deployment.sign(path, evidence_store=str(deployment.folder / "elsewhere")).ref.digest)
    for level in LEVELS:
        body = policy([rule("models", models(deployment), level=level)], deployment.identities("trainer"))
        body["revocations"] = [{"digest": digest, "since": at(days=-1), "reason": "poisoned"}]
        deployment.publish(body)
        assert "ARTIFACT_REVOKED" in codes(deployment.verify(path)), level
        assert not deployment.verify(path).passed


# --- Levels ---


@pytest.mark.parametrize(
    "pattern",
    ["**", "*", "**/x", "*/x", "/**", "/*/x", "s3://**", "s3://*/x", "s3://mod*/**", "*://**", "file:///**", "name:*",
     "name:**", "name:*-x", "s3://**/x", "**.pkl", "gs://*"],
)  # fmt: skip
def test_off_is_never_global(deployment: Deployment, pattern: str) -> None:
    deployment.publish(policy([rule("off", pattern, [], level="off")]))
    verdict = deployment.verify(deployment.model())
    assert code(verdict) == "POLICY_UNAVAILABLE"


@pytest.mark.parametrize("scope", [{}, {"dag": ["**"]}, {"team": ["ml"]}], ids=str)
def test_off_yields_to_any_other_rule(deployment: Deployment, scope: dict[str, Any]) -> None:
    path = deployment.model()
    rules = [rule("models", "**"), rule("off", models(deployment), [], level="off", **scope)]
    deployment.publish(policy(rules, deployment.identities("trainer")))
    assert code(deployment.verify(path, identities=str(deployment.key("stranger").public))) == "EVIDENCE_MISSING"


def test_off_alone_leaves_the_call_alone(deployment: Deployment) -> None:
    path = deployment.model()
    deployment.publish(policy([rule("off", models(deployment), level="off")], deployment.identities("trainer")))
    assert code(deployment.verify(path)) == "IDENTITY_RULE_MISSING"
    deployment.sign(path, "stranger")
    assert deployment.verify(path, identities=str(deployment.key("stranger").public)).passed


# --- Teams ---


class Team:
    """A team to which ``models`` is given, with a policy of its own."""

    def __init__(self, deployment: Deployment, rules: list[Body], **changes: Any) -> None:
        self.deployment = deployment
        self.place = deployment.folder / "team.json"
        delegation = {
            "team": "ml",
            "artifact": [models(deployment)],
            "key": deployment.pem("team"),
            "policy": str(self.place),
        }
        deployment.publish(policy(rules, deployment.identities("trainer"), delegations=[{**delegation, **changes}]))

    def publish(self, rules: list[Body], key: str = "team", **more: Any) -> None:
        body = policy(rules, self.deployment.identities("trainer", "stranger", "reviewer"), **more)
        self.deployment.publish(body, key, self.place)


def admins(deployment: Deployment, **more: Any) -> list[Body]:
    return [rule("models", models(deployment), **more)]


@pytest.fixture
def path(deployment: Deployment) -> Path:
    return deployment.model()


class TestTeams:
    def test_a_team_tightens(self, deployment: Deployment, path: Path) -> None:
        team = Team(deployment, admins(deployment))
        team.publish([rule("loaders", models(deployment), [], require={"loaders": ["airflow:serve/*"]})])
        deployment.sign(path)
        verdict = deployment.verify(path)
        assert code(verdict) == "LOADER_NOT_ALLOWED"
        assert verdict.rules == ("models", "ml/loaders")
        outside = deployment.model("free/f.bin")
        deployment.sign(outside, "stranger")
        assert deployment.verify(outside, identities=str(deployment.key("stranger").public)).passed

    @pytest.mark.parametrize("below", ["fraud/**", "fraud/m.bin", "*.bin"])
    def test_what_is_a_teams_shows_in_the_listing_of_a_folder(self, deployment: Deployment, below: str) -> None:
        given = f"{deployment.folder}/**/{below}"
        team = Team(deployment, [rule("other", "/other/**")], artifact=[given])
        team.publish([rule("ours", given, ["trainer"])])
        opened = deployment.model("data/eu/fraud/m.bin").parents[1]
        deployment.sign(opened, "stranger")
        identities = str(deployment.key("stranger").public)
        verdict = deployment.verify(opened, identities=identities)
        assert (code(verdict), verdict.rules) == ("SIGNER_NOT_ALLOWED", ("ml/ours",))
        team.place.unlink()
        forget()
        assert code(deployment.verify(opened, identities=identities)) == "POLICY_UNAVAILABLE"
        beside = deployment.model("data/us/m.txt").parent
        deployment.sign(beside, "stranger")
        assert deployment.verify(beside, identities=identities).passed

    def test_the_calls_policy_still_adds_where_a_folder_was_listed(self, deployment: Deployment) -> None:
        given = f"{deployment.folder}/**/m.bin"
        team = Team(deployment, [rule("ours", given)], artifact=[given])
        team.publish([rule("theirs", given, ["trainer"])])
        opened = deployment.model("data/m.bin").parent
        deployment.sign(opened)
        added = rule("added", given, [], require={"loaders": ["airflow:serve/*"]})
        verdict = deployment.verify(opened, policy=deployment.draft(policy([added])))
        assert (code(verdict), verdict.rules) == ("LOADER_NOT_ALLOWED", ("ours", "ml/theirs", "policy/added"))

    @pytest.mark.parametrize("level", LEVELS)
    def test_a_team_does_not_loosen(self, deployment: Deployment, path: Path, level: str) -> None:
        team = Team(deployment, admins(deployment))
        team.publish([rule("ours", models(deployment), ["stranger", "trainer"], level=level)])
        deployment.sign(path, "stranger")
        assert code(deployment.verify(path)) == "SIGNER_NOT_ALLOWED"

    @pytest.mark.parametrize("level", LEVELS)
    def test_a_team_fills_no_gap(self, deployment: Deployment, path: Path, level: str) -> None:
        team = Team(deployment, admins(deployment, dag=["train"]))
        team.publish([rule("ours", models(deployment), ["stranger"], level=level)])
        deployment.sign(path, "stranger")
        assert code(deployment.verify(path)) == "POLICY_NO_RULE"
        team.publish([rule("ours", "name:m.bin", ["stranger"], level=level)])
        assert code(deployment.verify(path)) == "POLICY_NO_RULE"

    def test_a_team_names_nobody_in_the_admins_place(self, deployment: Deployment, path: Path) -> None:
        rules = [rule("models", models(deployment), [], require={"loaders": ["**"]})]
        Team(deployment, rules).publish([rule("ours", models(deployment), ["stranger"])])
        deployment.sign(path, "stranger")
        assert code(deployment.verify(path)) == "IDENTITY_RULE_MISSING"

    def test_a_shared_key_called_the_teams_own(self, deployment: Deployment, path: Path) -> None:
        team = Team(deployment, [])
        identities = {
            "trainer": deployment.identity(producers=["airflow:train/*"]),
            "cleaner": deployment.identity(producers=["airflow:clean/*"]),
        }
        deployment.publish(
            {
                **deployment.body,
                "identities": identities,
                "rules": [rule("models", models(deployment), require={"producers": ["airflow:train/*"]})],
            }
        )
        own = {"mine": deployment.identity(producers=["airflow:train/*"])}
        deployment.publish(policy([rule("ours", models(deployment), ["mine"])], own), "team", team.place)
        deployment.sign(path)
        assert code(deployment.verify(path)) == "KEY_SHARED"

    @pytest.mark.parametrize(
        "place",
        ["{}/other/**", "**", "{}/mod*/**", "{}/models", "s3://models/**", "{}/models*/**", "*://{}/models/**"],
    )
    def test_outside_of_its_artifacts(self, deployment: Deployment, path: Path, place: str) -> None:
        team = Team(deployment, admins(deployment))
        team.publish([rule("ours", place.format(deployment.folder), ["trainer"])])
        deployment.sign(path)
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"
        outside = deployment.model("other/f.bin")
        assert code(deployment.verify(outside)) == "IDENTITY_RULE_MISSING"

    def test_a_name_means_only_the_teams_artifacts(self, deployment: Deployment) -> None:
        team = Team(deployment, [rule("all", "**")])
        team.publish([rule("ours", "name:*", ["trainer"], require={"loaders": ["airflow:nobody/*"]})])
        inside, outside = deployment.model(), deployment.model("other/m.bin")
        deployment.sign(inside)
        deployment.sign(outside)
        assert code(deployment.verify(inside)) == "LOADER_NOT_ALLOWED"
        assert deployment.verify(outside).passed

    def _break(self, deployment: Deployment, team: Team, how: str) -> None:
        rules = admins(deployment)
        makers: dict[str, Callable[[], object]] = {
            "missing": lambda: team.place.unlink(missing_ok=True),
            "unsigned": lambda: team.place.write_text(json.dumps(policy(rules))),
            "another-key": lambda: team.publish(rules, "stranger"),
            "the-admins-own-policy": lambda: team.place.write_bytes(deployment.place.read_bytes()),
            "a-waiver": lambda: team.place.write_bytes(
                deployment.bundle(deployment.waiver("models"), "team", "application/vnd.sealflow.waiver.v1+json")
            ),
            "expired": lambda: team.publish(rules, expires=at(days=-1)),
            "expired-with-grace": lambda: team.publish(rules, expires=at(hours=-1), grace_hours=100),
            "delegates": lambda: team.publish(
                rules,
                delegations=[
                    {"team": "x", "artifact": [models(deployment)], "key": deployment.pem("x"), "policy": "/x.json"}
                ],
            ),
            "newer": lambda: team.publish(rules, apiVersion="sealflow/v2"),
            "not-landed": lambda: team.publish([{**rules[0], "require": {"gates": ["x"]}}]),
            "malformed": lambda: team.place.write_bytes(b"\x00"),
        }
        makers[how]()
        forget()

    @pytest.mark.parametrize(
        "how",
        ["missing", "unsigned", "another-key", "the-admins-own-policy", "a-waiver", "expired", "expired-with-grace",
         "delegates", "newer", "not-landed", "malformed"],
    )  # fmt: skip
    def test_not_to_be_had(self, deployment: Deployment, path: Path, how: str) -> None:
        """It may hold what would refuse, so its artifacts wait for it; others do not."""
        team = Team(deployment, admins(deployment))
        team.publish(admins(deployment))
        deployment.sign(path)
        assert deployment.verify(path).passed
        self._break(deployment, team, how)
        verdict = deployment.verify(path)
        assert (verdict.status, verdict.exit_status) == ("unverifiable", 5)
        assert code(verdict) == ("POLICY_TOO_NEW" if how == "newer" else "POLICY_UNAVAILABLE")
        outside = deployment.model("other/f.bin")
        deployment.sign(outside)
        assert deployment.verify(outside, identities=str(deployment.key("trainer").public)).passed

    def test_rollback(self, deployment: Deployment, path: Path) -> None:
        team = Team(deployment, admins(deployment), minimum_version=3)
        deployment.sign(path)
        team.publish(admins(deployment), version=3)
        assert deployment.verify(path).passed
        team.publish(admins(deployment), version=2)
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"

    def test_a_folder_above(self, deployment: Deployment, path: Path) -> None:
        team = Team(deployment, [])
        team.publish([rule("ours", models(deployment))])
        store = str(deployment.folder / "evidence")
        (deployment.folder / "all" / "inner").mkdir(parents=True)
        deployment.sign(path.parent, "stranger", evidence_store=store)
        stranger = str(deployment.key("stranger").public)
        assert not deployment.verify(path.parent, evidence_store=store, identities=stranger).passed

    def test_the_admins_own_key(self, deployment: Deployment, path: Path) -> None:
        """Signed with one key, a team's policy could be put in the admin's place."""
        Team(deployment, admins(deployment), key=deployment.pem("admin"))
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"

    @pytest.mark.parametrize("key", ["{}/team.pub.pem", "file:{}/team.pub.pem", "awskms:alias/team"])
    def test_a_key_by_its_place(self, deployment: Deployment, path: Path, key: str) -> None:
        deployment.key("team")
        Team(deployment, admins(deployment), key=key.format(deployment.folder))
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"

    def test_a_team_called_policy(self, deployment: Deployment, path: Path) -> None:
        Team(deployment, admins(deployment), team="policy")
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"

    def test_a_team_by_name_of_artifacts(self, deployment: Deployment, path: Path) -> None:
        Team(deployment, admins(deployment), artifact=["name:*"])
        assert code(deployment.verify(path)) == "POLICY_UNAVAILABLE"


# --- Locks ---

REQUIRES: dict[str, Body] = {
    "identities": {"identities": {"any_of": ["trainer"]}},
    "evidence": {"evidence": {"signature": {}, "provenance": {}}},
    "producers": {"producers": ["airflow:train/*"]},
    "freshness": {"freshness": {"max_age": "1d"}},
    "loaders": {"loaders": ["**"]},
}


class TestLocks:
    """A locked field may not even be tightened by others, so that an admin can reason about it."""

    @pytest.mark.parametrize(
        ("field", "options"),
        [
            ("identities", {"identities": "{trainer}"}),
            ("identities", {"identities": []}),
            ("producers", {"producer": "airflow:train/*"}),
        ],
        ids=str,
    )
    def test_arguments(self, deployment: Deployment, path: Path, field: str, options: dict[str, Any]) -> None:
        deployment.publish(policy(admins(deployment, locked=[field]), deployment.identities("trainer")))
        deployment.sign(path)
        assert deployment.verify(path).passed
        given = {
            key: str(deployment.key("trainer").public) if value == "{trainer}" else value
            for key, value in options.items()
        }
        with pytest.raises(PolicyError, match="POLICY_LOCKED"):
            deployment.verify(path, **given)

    def test_evidence(self, deployment: Deployment, path: Path) -> None:
        rules = admins(deployment, locked=["evidence"], require={"evidence": {"signature": {}}})
        deployment.publish(policy(rules, deployment.identities("trainer")))
        deployment.sign(path)
        with pytest.raises(PolicyError, match="POLICY_LOCKED"):
            deployment.verify(path, require=["provenance"])

    @pytest.mark.parametrize("field", REQUIRES)
    def test_teams_and_drafts(self, deployment: Deployment, path: Path, field: str) -> None:
        team = Team(deployment, admins(deployment, locked=[field]))
        team.publish([rule("ours", models(deployment), [], require=REQUIRES[field])])
        deployment.sign(path)
        with pytest.raises(PolicyError, match="POLICY_LOCKED"):
            deployment.verify(path)
        team.publish([])
        body = policy([rule("own", models(deployment), [], require=REQUIRES[field])])
        body["identities"] = deployment.identities("trainer")
        with pytest.raises(PolicyError, match="POLICY_LOCKED"):
            deployment.verify(path, policy=deployment.draft(body))

    def test_a_team_locks_out_calls_and_not_the_admin(self, deployment: Deployment, path: Path) -> None:
        team = Team(deployment, admins(deployment, require={"loaders": ["**"]}))
        team.publish([rule("ours", models(deployment), locked=["loaders", "identities"])])
        deployment.sign(path)
        assert deployment.verify(path).passed
        body = policy([rule("own", models(deployment), [], require={"loaders": ["**"]})])
        with pytest.raises(PolicyError, match="POLICY_LOCKED"):
            deployment.verify(path, policy=deployment.draft(body))
        with pytest.raises(PolicyError, match="POLICY_LOCKED"):
            deployment.verify(path, identities=str(deployment.key("trainer").public))


def test_names_bring_rules_whatever_a_call_demands(deployment: Deployment) -> None:
    """One artifact under two names: stating one of them does not lead around the rule for the other."""
    path = deployment.model("free/f.bin")
    rules = [rule("churn", "name:churn-*", require={"loaders": ["airflow:serve/*"]})]
    deployment.publish(policy(rules, deployment.identities("trainer")))
    deployment.sign(path, name="plain")
    deployment.sign(path, name="churn-1")
    trainer = str(deployment.key("trainer").public)
    assert code(deployment.verify(path, identities=trainer)) == "LOADER_NOT_ALLOWED"
    assert code(deployment.verify(path, identities=trainer, name="plain")) == "LOADER_NOT_ALLOWED"
    assert code(deployment.verify(path, identities=trainer, producer="airflow:train/*")) == "LOADER_NOT_ALLOWED"


def test_a_name_whose_rule_does_not_hold_here(deployment: Deployment) -> None:
    path = deployment.model("free/f.bin")
    deployment.publish(policy([rule("churn", "name:churn-*", dag=["serve"])], deployment.identities("trainer")))
    deployment.sign(path, name="churn-1")
    trainer = str(deployment.key("trainer").public)
    assert code(deployment.verify(path, identities=trainer)) == "POLICY_NO_RULE"
    draft = deployment.draft(policy([rule("own", f"{deployment.folder}/**")], deployment.identities("trainer")))
    assert code(deployment.verify(path, policy=draft)) == "POLICY_NO_RULE"


def test_each_task_has_its_own_rules(deployment: Deployment) -> None:
    path = deployment.model()
    rules = [
        rule("fit", models(deployment), ["stranger"], dag=["train"]),
        rule("other", models(deployment), dag=["score"]),
    ]
    deployment.publish(policy(rules, deployment.identities("trainer", "stranger")))
    deployment.sign(path)
    assert deployment.verify(path, SCORE).passed
    assert code(deployment.verify(path, FIT)) == "SIGNER_NOT_ALLOWED"
