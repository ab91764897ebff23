"""`sealflow policy`: what each command prints, writes and ends with."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions import context
from sealflow.actions.policy_init import first_policy
from sealflow.audit import AuditEvent, AuditSink
from sealflow.audit.event import utc_now
from sealflow.errors import UsageError
from sealflow.policy.lint import lint
from sealflow.policy.source import AdminChannel, BrokenChannel, forget
from sealflow.run_identity import ADOPTED_BUILDER, RunIdentity
from tests.audit_events import read_events, spooled
from tests.core.conftest import Cli, body
from tests.servers.s3 import S3Server

POLICY = """\
apiVersion: sealflow/v1
version: 1
expires: 2999-06-30T00:00:00Z
grace_hours: 24
identities:
  trainer:
    key: trainer.pem.pub
    producers: ["airflow:train/*", cli]
  reviewer:
    key: reviewer.pem.pub
    producers: ["airflow:train/*", cli]
signers:
  - scope: {dag: [train]}
    uri: file:/keys/train.pem
rules:
  - name: models
    scope:
      artifact: ["FOLDER/models/**"]
    require:
      identities: {any_of: [trainer, reviewer]}
      producers: ["airflow:train/*", cli]
      evidence: {signature: {}, provenance: {max_age: 30d}}
  - name: serving
    scope:
      artifact: ["FOLDER/models/**"]
      dag: [serve]
    require:
      identities: {any_of: [trainer]}
      evidence: {signature: {}, provenance: {max_age: 7d}}
      freshness: pinned
      loaders: ["airflow:serve/load"]
  - name: only-in-airflow
    scope:
      artifact: ["FOLDER/reports/**"]
      orchestrator: [airflow]
    require:
      identities: {any_of: [trainer]}
  - name: called-churn
    scope:
      artifact: ["name:churn-*"]
    require:
      identities: {any_of: [reviewer]}
"""


@pytest.fixture
def admin(cli: Cli, tmp_path: Path) -> Path:
    """Return a folder with a draft and keys."""
    for name in ("trainer", "reviewer", "stranger"):
        assert cli("keys", "generate", f"{name}.pem").returncode == 0
    assert cli("keys", "generate", "admin.pem", "--algorithm", "ed25519").returncode == 0
    (tmp_path / "policy.yaml").write_text(POLICY.replace("FOLDER", str(tmp_path)))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m").write_bytes(b"m")
    shutil.rmtree(tmp_path / "spool", ignore_errors=True)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def publish(cli: Cli, folder: Path) -> AdminChannel:
    """Sign the draft over what was signed before, and return the admin's channel."""
    done = cli("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--output", "policy.json", "--overwrite")
    assert done.returncode == 0, done.stderr
    forget()
    return AdminChannel.parse(
        {"policy": str(folder / "policy.json"), "keys": [str(folder / "admin.pem.pub")]}, "the channel of the test"
    )


# --- check ---


def test_check_is_content_with_a_sound_draft(cli: Cli, admin: Path) -> None:
    done = cli("policy", "check", "policy.yaml", "--strict")
    assert (done.returncode, done.stdout) == (0, "0 errors, 0 warnings\n")
    assert body(cli("policy", "check", "policy.yaml", "--json")) == {"ok": True, "problems": []}


def test_check_fails_for_errors_and_with_strict_for_warnings(cli: Cli, admin: Path) -> None:
    edit(admin / "policy.yaml", "grace_hours: 24\n", "")
    assert cli("policy", "check", "policy.yaml").returncode == 0
    assert cli("policy", "check", "policy.yaml", "--strict").returncode == 2
    edit(admin / "policy.yaml", "[trainer, reviewer]", "[trainr, reviewer]")
    done = cli("policy", "check", "policy.yaml", "--json")
    assert done.returncode == 2
    shown = body(done)
    assert shown["ok"] is False
    error = next(item for item in shown["problems"] if item["severity"] == "error")
    assert error == {
        "id": "IDENTITY_UNKNOWN",
        "line": 19,
        "message": "The rule models names 'trainr', which is no identity of this policy.",
        "place": "rules[0].require.identities.any_of[0]",
        "severity": "error",
        "suggestion": "did you mean trainer?",
    }
    text = cli("policy", "check", "policy.yaml").stdout
    assert "policy.yaml:19: error IDENTITY_UNKNOWN" in text
    assert "fix: did you mean trainer?" in text
    assert "1 error, 1 warning" in text


def test_check_of_no_file_is_a_usage_error(cli: Cli) -> None:
    assert cli("policy", "check", "nowhere.yaml").returncode == 2


def test_a_hostile_draft_does_not_reach_the_terminal(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text('apiVersion: "sealflow/v1"\n"\\e[2J\\u202e": 3\nidentities: {"a\\e[2J": 3}\n')
    done = cli("policy", "check", "p.yaml")
    assert done.returncode == 2
    assert "\x1b[2J" not in done.stdout
    assert "\u202e" not in done.stdout


# --- test ---

TABLE = """\
apiVersion: sealflow/v1
kind: PolicyTests
cases:
  - name: the trainer's model may be trained on
    artifact: FOLDER/models/m
    dag: train
    task: evaluate
    evidence: [{by: trainer, producer: airflow:train/fit}]
    expect: passed
    rules: [models]
  - name: serving needs a reference
    artifact: FOLDER/models/m
    dag: serve
    task: load
    evidence: [{by: trainer, producer: airflow:train/fit}]
    expect: refused
    code: FRESHNESS_UNPROVED
    rules: [models, serving]
  - name: with a reference it may be served
    artifact: FOLDER/models/m
    dag: serve
    task: load
    evidence: [{by: trainer, producer: airflow:train/fit, age: 6d}]
    pinned: true
    expect: passed
  - name: not when it is old
    artifact: FOLDER/models/m
    dag: serve
    task: load
    evidence: [{by: trainer, producer: airflow:train/fit, age: 8d}]
    pinned: true
    expect: refused
    code: EVIDENCE_TOO_OLD
  - name: nor by another task
    artifact: FOLDER/models/m
    dag: serve
    task: peek
    evidence: [{by: trainer, producer: airflow:train/fit}]
    pinned: true
    expect: refused
    code: LOADER_NOT_ALLOWED
  - name: a stranger signed
    artifact: FOLDER/models/m
    evidence: [{key: "sha256:0000000000000000000000000000000000000000000000000000000000000000", producer: cli}]
    expect: refused
    code: SIGNER_NOT_ALLOWED
  - name: nothing is signed
    artifact: FOLDER/models/m
    expect: refused
    code: EVIDENCE_MISSING
  - name: no rule holds for this task
    artifact: FOLDER/reports/r
    pipeline: p
    expect: refused
    code: POLICY_NO_RULE
  - name: nobody's business
    artifact: FOLDER/scratch/x
    expect: unmanaged
  - name: its signed name brings a rule
    artifact: FOLDER/scratch/x
    logical_name: churn-7
    evidence: [{by: trainer, producer: cli}]
    expect: refused
    code: SIGNER_NOT_ALLOWED
    rules: [called-churn]
  - name: its signed name brings a rule beside the folder's
    artifact: FOLDER/models/m
    logical_name: churn-7
    orchestrator: cli
    evidence: [{by: reviewer, producer: cli}]
    expect: passed
    rules: [called-churn, models]
"""


@pytest.fixture
def table(admin: Path) -> Path:
    path = admin / "cases.yaml"
    path.write_text(TABLE.replace("FOLDER", str(admin)))
    return path


def test_a_table_comes_out_as_expected(cli: Cli, table: Path) -> None:
    done = cli("policy", "test", "policy.yaml", "cases.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "11 of 11 cases as expected" in done.stdout
    assert cli("policy", "check", "policy.yaml", "--tests", "cases.yaml").returncode == 0


def test_a_table_runs_over_a_signed_policy_too(cli: Cli, admin: Path, table: Path) -> None:
    publish(cli, admin)
    assert cli("policy", "test", "policy.json", "cases.yaml").returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "of", "expected", "found"),
    [
        pytest.param("expect: unmanaged", "expect: passed", "expect", "passed", "unmanaged", id="outcome"),
        pytest.param("code: EVIDENCE_MISSING", "code: KEY_SHARED", "code", "KEY_SHARED", "EVIDENCE_MISSING", id="code"),
        pytest.param("rules: [models]", "rules: [serving]", "rules", "serving", "models", id="rules"),
        pytest.param("age: 6d", "age: 9d", "expect", "passed", "refused", id="evidence"),
    ],
)
def test_a_case_that_comes_out_otherwise_fails(
    cli: Cli, table: Path, old: str, new: str, of: str, expected: str, found: str
) -> None:
    edit(table, old, new)
    done = cli("policy", "test", "policy.yaml", "cases.yaml", "--json")
    assert done.returncode == 2
    shown = body(done)
    assert shown["ok"] is False
    (failed,) = [case for case in shown["cases"] if not case["ok"]]
    assert failed["differences"] == [{"of": of, "expected": expected, "found": found}]
    text = cli("policy", "test", "policy.yaml", "cases.yaml")
    assert text.returncode == 2
    assert f"(cases.yaml:{failed['line']})" in text.stdout
    assert f"{of}: expected {expected}, found {found}" in text.stdout
    assert cli("policy", "check", "policy.yaml", "--tests", "cases.yaml").returncode == 2


def test_audited_rules_are_told_apart_from_passing_ones(cli: Cli, admin: Path, table: Path) -> None:
    edit(admin / "policy.yaml", "  - name: models", "  - name: models\n    level: audit")
    edit(admin / "policy.yaml", "  - name: serving", "  - name: serving\n    level: audit")
    cases = {case["name"]: case for case in body(cli("policy", "test", "policy.yaml", "cases.yaml", "--json"))["cases"]}
    assert cases["nothing is signed"]["status"] == "audited"
    assert cases["serving needs a reference"]["status"] == "audited"
    assert cases["the trainer's model may be trained on"]["status"] == "passed"
    # What meets an enforced rule is enforced.
    assert cases["its signed name brings a rule"]["status"] == "refused"


@pytest.mark.parametrize(
    ("old", "new", "where", "said"),
    [
        pytest.param("expect: unmanaged", "expct: unmanaged", "expct", "mean expect", id="misspelt"),
        pytest.param("by: reviewer", "by: reviwer", "reviwer", "mean reviewer", id="unknown-identity"),
        pytest.param(
            "code: EVIDENCE_MISSING",
            "code: EVIDENCE_MISING",
            "nothing is signed",
            "EVIDENCE_MISSING",
            id="unknown-code",
        ),
        pytest.param(
            "{by: reviewer, producer: cli}", "{by: reviewer}", "reviewer", "names its producer", id="no-producer"
        ),
        pytest.param("pipeline: p", "pipeline: p\n    dag: d", "no rule holds", "two cases", id="two-workflows"),
        pytest.param("expect: unmanaged", "expect: unmanged", "unmanged", "mean unmanaged", id="unknown-outcome"),
        pytest.param("age: 6d", "age: 6 days", "6 days", "duration", id="duration"),
        pytest.param("kind: PolicyTests\n", "", "apiVersion", "'kind' is missing", id="no-kind"),
    ],
)
def test_a_malformed_table_is_told_with_its_line(
    cli: Cli, table: Path, old: str, new: str, where: str, said: str
) -> None:
    edit(table, old, new)
    line = table.read_text().partition(where)[0].count("\n") + 1
    done = cli("policy", "test", "policy.yaml", "cases.yaml", "--json")
    assert done.returncode == 2
    error = body(done)["error"]
    assert error["code"] == "TABLE_MALFORMED"
    assert f"cases.yaml:{line}: " in error["message"]
    assert said in error["message"]


def test_the_time_of_a_table_can_be_set(cli: Cli, admin: Path) -> None:
    edit(
        admin / "policy.yaml", "    key: trainer.pem.pub", "    expires: 2030-01-01T00:00:00Z\n    key: trainer.pem.pub"
    )
    case = {"name": "a", "artifact": f"{admin}/models/m", "expect": "refused", "code": "KEY_EXPIRED"}
    case["evidence"] = [{"by": "trainer", "producer": "cli"}]  # type: ignore[assignment]
    for year, status in ((2029, "passed"), (2031, "refused")):
        text = {"apiVersion": "sealflow/v1", "kind": "PolicyTests", "now": f"{year}-01-01T00:00:00Z", "cases": [case]}
        (admin / "t.json").write_text(json.dumps(text))
        (found,) = body(cli("policy", "test", "policy.yaml", "t.json", "--json"))["cases"]
        assert found["status"] == status


def test_revoked_bytes_and_adopted_ones_can_be_supposed(cli: Cli, admin: Path) -> None:
    digest = "sha256:" + "7" * 64
    text = (admin / "policy.yaml").read_text()
    (admin / "revocations.yaml").write_text(
        "apiVersion: sealflow/v1\nkind: Revocations\nversion: 1\nexpires: 2999-01-01T00:00:00Z\n"
        f"revocations:\n  - digest: {digest}\n    since: 2026-01-01T00:00:00Z\n    reason: poisoned\n"
    )
    (admin / "policy.yaml").write_text(text.replace("  - name: models", "  - name: models\n    level: audit"))
    signed = [{"by": "trainer", "producer": "cli"}]
    adopted = [{"by": "trainer", "producer": "cli", "builder": ADOPTED_BUILDER}]
    common = {"artifact": f"{admin}/models/m", "orchestrator": "cli"}
    cases = [
        {"name": "sound", "evidence": signed, "expect": "passed"},
        {"name": "revoked, at every level", "evidence": signed, "digest": digest, "expect": "refused",
         "code": "ARTIFACT_REVOKED"},
        {"name": "adopted", "evidence": adopted, "expect": "audited", "code": "PROVENANCE_ADOPTED"},
    ]  # fmt: skip
    table = {"apiVersion": "sealflow/v1", "kind": "PolicyTests", "cases": [{**common, **case} for case in cases]}
    (admin / "t.json").write_text(json.dumps(table))
    done = cli("policy", "test", "policy.yaml", "t.json", "--revocations", "revocations.yaml")
    assert done.returncode == 0, done.stdout
    # Without the list the revoked bytes pass.
    assert cli("policy", "test", "policy.yaml", "t.json").returncode == 2


# --- explain ---


def test_explain_names_the_deciding_rule_of_each_demand(cli: Cli, admin: Path) -> None:
    done = cli(
        "policy", "explain", "models/m", "--policy", "policy.yaml", "--dag", "serve", "--task", "load", "--json"
    )  # fmt: skip
    shown = body(done)
    assert done.returncode == 0
    assert [(rule["rule"], rule["because"]) for rule in shown["rules"]] == [("models", ""), ("serving", "")]
    demands = {(item["what"], tuple(item["rules"])): item["text"] for item in shown["demands"]}
    assert demands["level", ("models", "serving")] == "enforce"
    assert "at most 7 days" in demands["max_age", ("serving",)]
    assert "pins the digest" in demands["freshness", ("serving",)]
    assert "airflow:serve/load" in demands["loaders", ("serving",)]
    assert "airflow:train/*, cli" in demands["producers", ("models",)]
    assert "only evidence by trainer counts" in demands["signers", ("models", "serving")]
    assert demands["evidence", ("models", "serving")] in ("provenance", "signature")
    assert shown["signer"] == ""
    assert f"file://{admin}/models/m" in shown["readings"]


def test_explain_says_why_a_rule_does_not_hold(cli: Cli, admin: Path) -> None:
    shown = body(cli("policy", "explain", "models/m", "--policy", "policy.yaml", "--dag", "train", "--json"))
    assert [rule["because"] for rule in shown["rules"]] == ["", "dag is train, not serve"]
    assert shown["signer"] == "file:/keys/train.pem"
    text = cli("policy", "explain", "reports/r", "--policy", "policy.yaml", "--pipeline", "p").stdout
    assert "does not hold: orchestrator is kfp, not airflow" in text
    assert "POLICY_NO_RULE" in text
    assert "not managed" in cli("policy", "explain", "/elsewhere", "--policy", "policy.yaml").stdout


def test_explain_supposes_a_logical_name(cli: Cli, admin: Path) -> None:
    without = body(cli("policy", "explain", "/elsewhere", "--policy", "policy.yaml", "--json"))
    assert without["rules"] == []
    assert any("--name" in note for note in without["notes"])
    named = body(cli("policy", "explain", "/elsewhere", "--policy", "policy.yaml", "--name", "churn-7", "--json"))
    assert [rule["rule"] for rule in named["rules"]] == ["called-churn"]


def test_explain_shows_aliases_and_resolves_links(cli: Cli, admin: Path) -> None:
    (admin / "link").symlink_to(admin / "models")
    shown = body(cli("policy", "explain", "link/m", "--policy", "policy.yaml", "--json"))
    assert [rule["rule"] for rule in shown["rules"] if not rule["because"]] == ["models"]
    assert len(shown["readings"]) == 2
    odd = body(cli("policy", "explain", "s3://b/a%2Fc", "--policy", "policy.yaml", "--json"))
    assert "s3://b/a/c" in odd["readings"]


def test_explain_takes_a_reference(cli: Cli, admin: Path) -> None:
    ref = body(cli("sign", "models/m", "--signer", "file:trainer.pem", "--json"))["ref"]
    shown = body(cli("policy", "explain", json.dumps(ref), "--policy", "policy.yaml", "--json"))
    assert [rule["rule"] for rule in shown["rules"] if not rule["because"]] == ["models"]


def test_explain_names_the_rules_about_what_lies_inside(cli: Cli, admin: Path) -> None:
    shown = body(cli("policy", "explain", str(admin), "--policy", "policy.yaml", "--json"))
    assert {rule["rule"] for rule in shown["rules"]} == {"models", "serving", "only-in-airflow"}
    assert all("inside" in rule["by"] for rule in shown["rules"])


def test_a_hostile_policy_does_not_reach_the_terminal(cli: Cli, admin: Path) -> None:
    edit(admin / "policy.yaml", "file:/keys/train.pem", "file:/keys/\u202etrain.pem")
    done = cli("policy", "explain", "models/m", "--policy", "policy.yaml", "--dag", "train")
    assert done.returncode == 0
    assert "\u202e" not in done.stdout
    publish(cli, admin)
    assert "\u202e" not in cli("policy", "show", "policy.json").stdout


def test_explain_uses_the_policy_in_force(cli: Cli, admin: Path) -> None:
    channel = publish(cli, admin)
    made = body(cli(
        "policy", "waive", "--rule", "models", "--artifact", f"{admin}/models/**", "--reason", "the key is lost",
        "--hours", "2", "--signer", "file:admin.pem", "--json", channel=channel,
    ))  # fmt: skip
    shown = body(cli("policy", "explain", "models/m", "--json", channel=channel))
    assert shown["outcome"].startswith("enforced")
    ((waiver, rules),) = [(item["id"], item["rules"]) for item in shown["waivers"]]
    assert (waiver, rules) == (made["id"], ["models"])
    none = cli("policy", "explain", "models/m", "--json")
    assert none.returncode == 2
    assert body(none)["error"]["code"] == "POLICY_MISSING"
    (admin / "policy.json").write_text("{}")
    forget()
    gone = cli("policy", "explain", "models/m", "--json", channel=channel)
    assert gone.returncode == 5
    assert body(gone)["error"]["code"] == "POLICY_UNAVAILABLE"


@pytest.mark.parametrize(
    "options",
    [("--dag", "a", "--pipeline", "b"), ("--dag", "a", "--orchestrator", "kfp"), ("--orchestrator", "cron")],
    ids=["dag-and-pipeline", "dag-in-kubeflow", "unknown-orchestrator"],
)
def test_a_task_that_cannot_be_is_a_usage_error(cli: Cli, admin: Path, options: tuple[str, ...]) -> None:
    assert cli("policy", "explain", "x", "--policy", "policy.yaml", *options).returncode == 2


# --- sign and show ---


def test_sign_inlines_the_keys_and_prints_what_an_admin_compares(cli: Cli, admin: Path) -> None:
    done = cli("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--output", "policy.json", "--json")
    assert done.returncode == 0, done.stderr
    made = body(done)
    shown = body(cli("policy", "show", "policy.json", "--key", "admin.pem.pub", "--json"))
    assert shown["verified"] is True
    assert (made["version"], made["digest"], made["key"]) == (1, shown["digest"], shown["key"])
    assert shown["document"]["identities"]["trainer"]["key"] == (admin / "trainer.pem.pub").read_text()
    events = read_events(admin / "spool")
    assert [(event["action"], event["phase"], event["key"]) for event in events] == [
        ("policy-sign", "intent", made["key"]),
        ("policy-sign", "outcome", made["key"]),
    ]
    assert events[1]["digest"] == made["digest"]


def test_a_draft_with_errors_is_not_signed(cli: Cli, admin: Path) -> None:
    edit(admin / "policy.yaml", "[trainer, reviewer]", "[trainr, reviewer]")
    done = cli("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--output", "policy.json")
    assert done.returncode == 2
    assert "policy.yaml:20: error IDENTITY_UNKNOWN" in done.stderr
    assert not (admin / "policy.json").exists()


def test_nothing_is_written_over(cli: Cli, admin: Path) -> None:
    publish(cli, admin)
    before = (admin / "policy.json").read_bytes()
    edit(admin / "policy.yaml", "version: 1", "version: 2")
    command = ("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--output", "policy.json")
    assert cli(*command).returncode == 2
    assert (admin / "policy.json").read_bytes() == before
    assert cli(*command, "--overwrite").returncode == 0
    assert (admin / "policy.json").read_bytes() != before
    assert not list(admin.glob(".*policy.json*")), "a half-written file was left"


@pytest.mark.parametrize("how", ["--previous", "--overwrite"])
def test_a_version_only_rises(cli: Cli, admin: Path, how: str) -> None:
    edit(admin / "policy.yaml", "version: 1", "version: 5")
    publish(cli, admin)
    edit(admin / "policy.yaml", "max_age: 30d", "max_age: 40d")
    target = ("--output", "policy.json", "--overwrite")
    if how == "--previous":
        target = ("--output", "next.json", "--previous", "policy.json")
    for version, status in ((4, 2), (5, 2), (6, 0)):
        text = (admin / "policy.yaml").read_text()
        (admin / "policy.yaml").write_text(
            "\n".join([text.split("\n")[0], f"version: {version}", *text.split("\n")[2:]])
        )
        done = cli("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--json", *target)
        assert done.returncode == status, done.stdout
        if status:
            assert body(done)["error"]["code"] == "POLICY_VERSION"
            assert "version: 6" in body(done)["error"]["next_step"]


def test_the_same_text_may_be_signed_with_a_new_key(cli: Cli, admin: Path) -> None:
    publish(cli, admin)
    done = cli(
        "policy", "sign", "policy.yaml", "--signer", "file:stranger.pem", "--output", "policy.json", "--overwrite"
    )
    assert done.returncode == 0, done.stderr


def test_what_lies_there_and_is_no_policy_is_not_written_over(cli: Cli, admin: Path) -> None:
    (admin / "other.json").write_text('{"mine": true}')
    done = cli("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--output", "other.json", "--overwrite")
    assert done.returncode == 2
    assert (admin / "other.json").read_text() == '{"mine": true}'


def test_show_says_when_a_signature_does_not_hold(cli: Cli, admin: Path) -> None:
    publish(cli, admin)
    assert "not checked" in cli("policy", "show", "policy.json").stdout
    wrong = cli("policy", "show", "policy.json", "--key", "stranger.pem.pub")
    assert wrong.returncode == 3
    assert "does NOT hold" in wrong.stdout
    either = cli("policy", "show", "policy.json", "--key", "stranger.pem.pub", "--key", "admin.pem.pub", "--json")
    assert (either.returncode, body(either)["verified"]) == (0, True)
    bundle = json.loads((admin / "policy.json").read_text())
    import base64

    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b'"version":1', b'"version":9')
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (admin / "forged.json").write_text(json.dumps(bundle))
    forged = cli("policy", "show", "forged.json", "--key", "admin.pem.pub", "--json")
    assert (forged.returncode, body(forged)["verified"]) == (3, False)
    assert cli("policy", "show", "policy.yaml").returncode == 2


def test_a_waiver_that_was_written_by_hand_is_signed_too(cli: Cli, admin: Path) -> None:
    publish(cli, admin)
    made = body(cli(
        "policy", "waive", "--rule", "models", "--artifact", f"{admin}/models/**", "--reason", "the key is lost",
        "--hours", "2", "--signer", "file:admin.pem", "--policy", "policy.json", "--json",
    ))  # fmt: skip
    draft = body(cli("policy", "show", made["output"], "--json"))["document"]
    (admin / "waiver.yaml").write_text(json.dumps(draft))
    command = ("policy", "sign", "waiver.yaml", "--signer", "file:admin.pem", "--output", "waiver.json", "--json")
    assert body(cli(*command))["id"] == made["id"]
    assert body(cli("policy", "show", "waiver.json", "--key", "admin.pem.pub", "--json"))["kind"] == "waiver"
    assert cli(*command, "--previous", "policy.json").returncode == 2


# --- waive ---


def waive(cli: Cli, folder: Path, *options: str, rule: str = "models", **keywords: Any) -> Any:
    return cli(
        "policy", "waive", "--rule", rule, "--artifact", f"{folder}/models/**", "--reason", "the key is lost",
        "--hours", "2", "--signer", "file:admin.pem", "--json", *options, **keywords,
    )  # fmt: skip


def judged(folder: Path, channel: AdminChannel) -> Any:
    forget()
    with context.run(context.Surroundings(admin=channel)):
        return sealflow.verify(folder / "models" / "m")


def test_a_waiver_breaks_the_glass_and_nothing_else(cli: Cli, admin: Path) -> None:
    channel = publish(cli, admin)
    assert cli("sign", "models/m", "--signer", "file:stranger.pem").returncode == 0
    assert judged(admin, channel).status == "failed"
    made = waive(cli, admin, channel=channel)
    assert made.returncode == 0, made.stderr
    assert Path(body(made)["output"]).parent == admin / "policy.json.waivers"
    verdict = judged(admin, channel)
    assert verdict.status == "passed"
    assert "WAIVER_USED" in {finding.code for finding in verdict.findings}
    # The rule as it stands is waived, not whatever has its name later.
    edit(admin / "policy.yaml", "version: 1", "version: 2")
    edit(admin / "policy.yaml", "max_age: 30d", "max_age: 31d")
    assert judged(admin, publish(cli, admin)).status == "failed"
    (admin / "models" / "m").write_bytes(b"M")
    assert judged(admin, channel).status == "failed", "a waiver let changed bytes pass"


def test_a_waiver_for_some_bytes_is_for_these_only(cli: Cli, admin: Path) -> None:
    channel = publish(cli, admin)
    signed = body(cli("sign", "models/m", "--signer", "file:stranger.pem", "--json"))
    other = "sha256:" + "0" * 64
    assert waive(cli, admin, "--digest", other, channel=channel).returncode == 0
    assert judged(admin, channel).status == "failed"
    assert waive(cli, admin, "--digest", signed["ref"]["digest"], channel=channel).returncode == 0
    assert judged(admin, channel).status == "passed"


def test_a_rule_of_a_team_is_waived_by_its_full_name(cli: Cli, admin: Path) -> None:
    team = POLICY.partition("signers:")[0] + (
        'rules:\n  - name: own\n    scope: {artifact: ["FOLDER/models/team/**"]}\n'
        "    require: {identities: {any_of: [trainer]}}\n"
    )
    (admin / "team.yaml").write_text(team.replace("FOLDER", str(admin)))
    edit(
        admin / "policy.yaml",
        "rules:\n",
        f"delegations:\n  - team: fraud\n    artifact: ['{admin}/models/team/**']\n    key: reviewer.pem.pub\n"
        f"    policy: {admin}/team.json\nrules:\n",
    )
    signed = cli("policy", "sign", "team.yaml", "--signer", "file:reviewer.pem", "--output", "team.json")
    assert signed.returncode == 0, signed.stderr
    publish(cli, admin)
    made = body(waive(cli, admin, "--policy", "policy.json", rule="fraud/own"))
    document = body(cli("policy", "show", made["output"], "--json"))["document"]
    assert document["rules"][0]["name"] == "fraud/own"
    for wrong, hint in (("fraud/other", "fraud/own"), ("frod/own", "mean fraud"), ("model", "mean models")):
        refused = waive(cli, admin, "--policy", "policy.json", rule=wrong)
        assert refused.returncode == 2
        assert hint in body(refused)["error"]["next_step"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(("--artifact", "s3://elsewhere/**"), "none of it", id="not-about-the-artifact"),
        pytest.param(("--hours", "0"), "from 1 to", id="no-time"),
        pytest.param(("--hours", "9999"), "from 1 to", id="for-ever"),
        pytest.param(("--reason", "because"), "reason", id="no-reason"),
        pytest.param(("--digest", "abc"), "digest", id="no-digest"),
    ],
)
def test_a_waiver_that_changes_nothing_or_too_much_is_refused(
    cli: Cli, admin: Path, options: tuple[str, ...], said: str
) -> None:
    publish(cli, admin)
    done = waive(cli, admin, "--policy", "policy.json", *options)
    assert done.returncode == 2
    assert said in body(done)["error"]["message"]
    assert not (admin / "policy.json.waivers").exists()


def test_an_audited_rule_needs_no_waiver(cli: Cli, admin: Path) -> None:
    edit(admin / "policy.yaml", "  - name: models", "  - name: models\n    level: audit")
    publish(cli, admin)
    assert "nothing to waive" in body(waive(cli, admin, "--policy", "policy.json"))["error"]["message"]


def test_a_key_that_the_channel_does_not_accept_is_told(cli: Cli, admin: Path) -> None:
    channel = publish(cli, admin)
    made = body(waive(cli, admin, "--signer", "file:stranger.pem", channel=channel))
    assert any("does not accept" in text for text in made["warnings"])
    assert body(waive(cli, admin, channel=channel))["warnings"] == []


def test_policy_and_waivers_may_lie_in_a_bucket(
    cli: Cli, admin: Path, s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    place = f"s3://{s3_bucket}/security/policy.json"
    command = ("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--output", place)
    assert cli(*command).returncode == 0
    assert cli(*command).returncode == 2, "it wrote over an object"
    assert cli(*command, "--overwrite").returncode == 2, "what a store cannot do atomically is not done"
    channel = AdminChannel.parse({"policy": place, "keys": [str(admin / "admin.pem.pub")]}, "the channel of the test")
    made = waive(cli, admin, channel=channel)
    assert made.returncode == 0, made.stdout
    assert body(made)["output"].startswith(f"{place}.waivers/")
    shown = body(cli("policy", "status", "--json", channel=channel))
    assert (shown["state"], [item["id"] for item in shown["waivers"]]) == ("in_force", [body(made)["id"]])


# --- status ---


def test_the_three_states(cli: Cli, admin: Path) -> None:
    none = cli("policy", "status", "--json")
    assert (none.returncode, body(none)) == (0, {"state": "none"})
    channel = publish(cli, admin)
    waive(cli, admin, channel=channel)
    (admin / "policy.json.waivers" / "junk.json").write_text("{}")
    found = cli("policy", "status", "--json", channel=channel)
    assert found.returncode == 0
    shown = body(found)
    assert shown["state"] == "in_force"
    assert (shown["version"], shown["rules"]) == (1, {"enforce": 4, "audit": 0, "off": 0})
    assert [item["rules"] for item in shown["waivers"]] == [["models"]]
    assert len(shown["waivers_refused"]) == 1
    assert "junk.json" in shown["waivers_refused"][0]
    assert shown["channel"]["where"] == "the channel of the test"
    text = cli("policy", "status", channel=channel).stdout
    assert text.startswith("in force")
    assert "refused   junk.json" in text
    (admin / "policy.json").unlink()
    grace = body(cli("policy", "status", "--json", channel=channel))
    assert grace["state"] == "in_force", "the process has seen a good one, and it has a grace"
    assert [item["code"] for item in grace["warnings"]] == ["POLICY_IN_GRACE"]
    forget()
    gone = cli("policy", "status", "--json", channel=channel)
    assert gone.returncode == 5
    assert (body(gone)["state"], body(gone)["code"]) == ("unavailable", "POLICY_UNAVAILABLE")
    assert "policy.json" in body(gone)["reason"]
    assert cli("policy", "status", channel=channel).stdout.startswith("not to be had")


def test_a_broken_channel_is_not_none(cli: Cli) -> None:
    broken = BrokenChannel(UsageError("admin.json can be written by others."))
    done = cli("policy", "status", "--json", channel=broken)
    assert done.returncode == 5
    assert "written by others" in body(done)["reason"]
    assert cli("policy", "status", channel=broken).returncode == 5


# --- init ---


def test_a_template_is_sound(cli: Cli, tmp_path: Path) -> None:
    assert cli("policy", "init", "--output", "p.yaml").returncode == 0
    done = cli("policy", "check", "p.yaml", "--json")
    assert done.returncode == 0, done.stdout
    assert [item["id"] for item in body(done)["problems"]] == ["POLICY_EMPTY"]
    assert cli("policy", "init", "--output", "p.yaml").returncode == 2, "it wrote over a file"
    assert cli("policy", "init", "--output", "p.yaml", "--overwrite").returncode == 0
    assert (tmp_path / "p.yaml").read_text() == cli("policy", "init").stdout


def test_the_template_is_sound_without_its_comment_signs(cli: Cli, admin: Path) -> None:
    text = cli("policy", "init").stdout
    lines = [
        line.removeprefix("# ") if line.startswith(("# identities:", "# rules:")) else line for line in text.split("\n")
    ]
    lines = [line[1:] if line.startswith("#  ") else line for line in lines]
    (admin / "p.yaml").write_text("\n".join(lines))
    done = cli("policy", "check", "p.yaml", "--json")
    assert [item["id"] for item in body(done)["problems"]] == ["LEVEL_AUDIT"], done.stdout


def test_a_first_policy_from_what_happened(cli: Cli, admin: Path) -> None:
    (admin / "data").mkdir()
    (admin / "data" / "d").write_bytes(b"d")
    for path, key in (("models/m", "trainer"), ("data/d", "stranger")):
        assert cli("sign", path, "--signer", f"file:{key}.pem").returncode == 0
    assert cli("verify", "models/m", "--identity", "trainer.pem.pub").returncode == 0
    with next((admin / "spool").iterdir()).open("a") as chain:
        chain.write("this is no event\n")
    done = cli(
        "policy", "init", "--audit-events", "spool", "--key", "trainer.pem.pub", "--key", "reviewer.pem.pub",
        "--output", "first.yaml", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = body(done)
    assert (made["rules"], made["unread_lines"]) == (1, 1)
    stranger = body(cli("sign", "data/d", "--signer", "file:stranger.pem", "--json"))["key"]
    assert made["unknown_keys"] == [stranger]
    text = (admin / "first.yaml").read_text()
    assert f"# Seen and not known: the key {stranger}" in text
    assert f"{admin}/data" in text
    assert "reviewer" in text
    assert "nothing that it signed was seen" in text
    check = body(cli("policy", "check", "first.yaml", "--json"))
    assert {item["id"] for item in check["problems"]} == {"LEVEL_AUDIT"}
    assert cli("policy", "sign", "first.yaml", "--signer", "file:admin.pem", "--output", "p.json").returncode == 0
    rule = body(cli("policy", "show", "p.json", "--json"))["document"]["rules"][0]
    assert rule == {
        "level": "audit",
        "name": rule["name"],
        "require": {"identities": {"any_of": ["trainer"]}, "loaders": ["cli"], "producers": ["cli"]},
        "scope": {"artifact": [f"{admin}/models/**"]},
    }


KEYS = {name: f"sha256:{number:064x}" for number, name in enumerate(["a", "b", "c"], 1)}


def event(sink: AuditSink, artifact: str, key: str, producer: str, consumer: str = "") -> None:
    """Record a signature, or with a consumer a verification."""
    workflow, _, task = producer.partition("/")
    if consumer:
        run = RunIdentity("airflow", *consumer.split("/"))
        made = AuditEvent(
            "verify", "outcome", run, artifact, outcome="passed", signers=(key,), producer=f"airflow:{producer}"
        )
    else:
        made = AuditEvent("sign", "outcome", RunIdentity("airflow", workflow, task), artifact, outcome="done", key=key)
    sink.record(made)


@pytest.fixture
def keys(cli: Cli, tmp_path: Path) -> dict[str, str]:
    """Return the fingerprints of three new keys."""
    return {name: body(cli("keys", "generate", f"{name}.pem", "--json"))["key"] for name in "abc"}


def first(folder: Path, *names: str) -> tuple[dict[str, Any], str]:
    """Return the first policy's document and text; it must be sound."""
    made = first_policy(str(folder / "log"), [str(folder / f"{name}.pem.pub") for name in names], folder=str(folder))
    found = lint(made.text.encode(), "first", str(folder), utc_now())
    assert not found.errors, (made.text, found.errors)
    assert found.draft is not None
    return found.draft.body, made.text


def test_folders_inside_of_each_other_do_not_contradict(keys: dict[str, str], tmp_path: Path) -> None:
    sink = spooled(tmp_path / "log")
    event(sink, "s3://b/models/x", keys["a"], "train/fit", "serve/load")
    event(sink, "s3://b/models/fraud/x", keys["b"], "fraud/fit", "serve/load")
    document, _ = first(tmp_path, "a", "b")
    assert [rule["scope"]["artifact"] for rule in document["rules"]] == [
        ["s3://b/models/*"],
        ["s3://b/models/fraud/**"],
    ]
    assert [rule["require"]["producers"] for rule in document["rules"]] == [
        ["airflow:train/fit"],
        ["airflow:fraud/fit"],
    ]
    assert {rule["level"] for rule in document["rules"]} == {"audit"}


def test_dates_and_versions_make_one_rule(keys: dict[str, str], tmp_path: Path) -> None:
    sink = spooled(tmp_path / "log")
    for day in range(1, 9):
        event(sink, f"s3://b/data/2026-01-0{day}/part", keys["a"], "load/raw", "train/fit")
    document, text = first(tmp_path, "a")
    assert [rule["scope"]["artifact"] for rule in document["rules"]] == [["s3://b/data/**"]]
    assert "8 accepted by verifications" in text


def test_an_export_of_the_log_tells_the_same(keys: dict[str, str], tmp_path: Path) -> None:
    sink = spooled(tmp_path / "spool")
    event(sink, "s3://b/models/x", keys["a"], "train/fit", "serve/load")
    events = read_events(tmp_path / "spool")
    lines = [json.dumps({"index": index, "event": item}) for index, item in enumerate(events)]
    (tmp_path / "log").write_text("\n".join([*lines, '{"index": 1, "malformed": "x"}', ""]))
    document, text = first(tmp_path, "a")
    assert [rule["scope"]["artifact"] for rule in document["rules"]] == [["s3://b/models/**"]]
    assert "# 1 lines of the log could not be read." in text


def test_a_key_that_serves_several_demands_no_producer(keys: dict[str, str], tmp_path: Path) -> None:
    sink = spooled(tmp_path / "log")
    event(sink, "s3://b/one/x", keys["a"], "one/task")
    event(sink, "s3://b/two/x", keys["a"], "two/task")
    document, text = first(tmp_path, "a")
    assert document["identities"]["a"]["producers"] == ["airflow:one/task", "airflow:two/task"]
    assert not any("producers" in rule["require"] for rule in document["rules"])
    assert "a key of its own" in text


def test_refused_checks_and_foreign_events_make_no_rules(keys: dict[str, str], tmp_path: Path) -> None:
    sink = spooled(tmp_path / "log")
    run = RunIdentity("airflow", "a", "b")
    for outcome in ("failed", "unverifiable", "error"):
        sink.record(AuditEvent("verify", "outcome", run, "s3://b/m/x", outcome=outcome, signers=(keys["a"],)))  # type: ignore[arg-type]
    sink.record(AuditEvent("policy-sign", "outcome", run, "s3://b/m/x", outcome="done", key=keys["a"]))
    sink.record(AuditEvent("sign", "intent", run, "s3://b/m/x", key=keys["a"]))
    document, _ = first(tmp_path, "a")
    assert "rules" not in document


@pytest.mark.parametrize(
    "artifact",
    [
        "file:///data/a%0Ab%20c/x", "file:///data/%2A%2A/x", 's3://b/"quoted: {yaml}/x', "s3://b/a # b/x", "s3://b/\u202e/x",
        "s3://b/ünï/x", "s3://b//x/y", "x", "", "s3://b/\nrules: []/x", "file:///data/%ff/x", "s3://b/'/x",
    ],
)  # fmt: skip
def test_hostile_names_stay_text(keys: dict[str, str], tmp_path: Path, artifact: str) -> None:
    sink = spooled(tmp_path / "log")
    event(sink, artifact, keys["a"], "evil\n  - name: x/**", "a\u202e: {/]")
    event(sink, artifact, keys["b"], "evil\nrules: []/x")
    document, text = first(tmp_path, "a")
    assert set(document) <= {"apiVersion", "version", "expires", "grace_hours", "identities", "rules"}
    assert document["version"] == 1
    assert all(rule["level"] == "audit" for rule in document.get("rules", ()))
    assert "\u202e" not in text


def test_a_log_that_is_not_there_is_a_usage_error(cli: Cli) -> None:
    assert cli("policy", "init", "--audit-events", "nowhere.jsonl").returncode == 2


def test_keys_are_named_relative_to_the_draft(cli: Cli, admin: Path) -> None:
    os.makedirs(admin / "conf" / "keys")
    (admin / "trainer.pem.pub").rename(admin / "conf" / "keys" / "trainer.pub")
    assert cli("policy", "init", "--key", "conf/keys/trainer.pub", "--output", "conf/p.yaml").returncode == 0
    assert 'key: "keys/trainer.pub"' in (admin / "conf" / "p.yaml").read_text()
    assert cli("policy", "check", "conf/p.yaml").returncode == 0


# --- schema ---


@pytest.mark.parametrize(("options", "kind"), [((), "policy"), (("--waiver",), "waiver"), (("--tests",), "tests")])
def test_schemas_are_schemas(cli: Cli, options: tuple[str, ...], kind: str) -> None:
    import jsonschema

    schema = body(cli("policy", "schema", *options))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert kind in schema["$id"]
    assert cli("policy", "schema", "--waiver", "--tests").returncode == 2
