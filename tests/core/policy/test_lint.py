"""Lint: each check by its name, with the line that it names, and nothing about a sound policy."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealflow.actions.keys_generate import generate_key
from sealflow.policy.compose import CompiledPolicy
from sealflow.policy.document import TrustPolicy, parse_policy, parse_waiver
from sealflow.policy.draft import parse_draft
from sealflow.policy.lint import CHECKS, Linted, Problem, lint_file
from tests.core.encryption.messages import ARN, RSA_PEM, RSA_PUBLIC_PEM

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc)

SOUND = """\
apiVersion: sealflow/v1
version: 3
expires: 2027-06-30T00:00:00Z
grace_hours: 24
identities:
  trainer:
    key: a.pub
    producers: [airflow:train/*]
  reviewer:
    key: b.pub
    producers: [airflow:train/*, kfp:review/**]
  checker: {key: c.pub, verifier: true}
signers:
  - scope: {dag: [train]}
    uri: file:/keys/train.pem
  - uri: awskms:alias/models
rules:
  - name: models
    scope:
      artifact: [s3://models/**, name:churn-*]
    require:
      identities: {any_of: [trainer]}
      producers: [airflow:train/*]
      evidence: {signature: {}, provenance: {max_age: 30d}}
      freshness: {max_age: 30d}
      loaders: [airflow:serve/*, python]
      reuse_verdict: {max_age: 24h}
    locked: [identities]
  - name: reviewed
    scope:
      artifact: [/data/reviewed/**]
    require:
      identities: {all_of: [trainer, reviewer]}
delegations:
  - team: fraud
    artifact: [s3://models/fraud/**]
    key: b.pub
    policy: s3://policies/fraud.json
# the end
"""

#: A rule under which the others are put together.
RULE = """\
apiVersion: sealflow/v1
version: 3
expires: 2027-06-30T00:00:00Z
grace_hours: 24
identities:
  trainer: {key: a.pub, producers: ["airflow:train/*"]}
rules:
  - name: models
    scope:
      artifact: ["s3://models/**"]
    require:
      identities: {any_of: [trainer]}
"""


#: The same with recipients.
OPENED = f"""\
apiVersion: sealflow/v1
version: 3
expires: 2027-06-30T00:00:00Z
grace_hours: 24
identities:
  trainer: {{key: a.pub, producers: ["airflow:train/*"]}}
recipients:
  recovery: {{rsa: rsa.pub}}
  vault: {{kms: "{ARN}"}}
rules:
  - name: models
    scope:
      artifact: ["s3://models/**"]
    require:
      identities: {{any_of: [trainer]}}
      recipients: {{required: [recovery], only: [recovery, vault], encrypted: true}}
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in "abc":
        generate_key(str(folder / name), algorithm="ed25519")
    (folder / "rsa.pub").write_bytes(RSA_PUBLIC_PEM)
    (folder / "rsa.pem").write_bytes(RSA_PEM)
    (folder / "team.key").write_bytes(b"k" * 32)
    return folder


def lint(keys: Path, text: str) -> Linted:
    """Lint a draft beside the keys."""
    path = keys / "draft.yaml"
    path.write_text(text, encoding="utf-8")
    return lint_file(str(path), NOW)


def change(text: str, *changes: tuple[str, str]) -> str:
    """Return the text with changes; a change that does not fit is an error of the test."""
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
        text = text.replace(old, new)
    return text


def line_of(text: str, part: str) -> int:
    """Return the line of the only occurrence of a text."""
    assert text.count(part) == 1, part
    return text[: text.index(part)].count("\n") + 1


def test_a_sound_policy_is_sound(keys: Path) -> None:
    found = lint(keys, SOUND)
    assert found.problems == ()
    assert found.document is not None
    assert found.draft is not None
    assert b"-----BEGIN PUBLIC KEY-----" in found.draft.json


def test_the_small_policy_is_sound(keys: Path) -> None:
    assert lint(keys, RULE).problems == ()
    assert lint(keys, OPENED).problems == ()


# Name, base, changes, the id, its severity, a text of the line that it names, part of message or suggestion.
CASES = [
    ("two-documents", RULE, [("rules:", "---\nrules:")], "DRAFT_UNREADABLE", "error", "---", "more than one"),
    ("field-twice", RULE, [("grace_hours: 24", "grace_hours: 24\nversion: 4")], "DRAFT_UNREADABLE", "error",
     "version: 4", "twice"),
    ("reference", RULE, [("version: 3", "version: &a 3")], "DRAFT_UNREADABLE", "error", "&a", "reference"),
    ("newer-version", RULE, [("sealflow/v1", "sealflow/v2")], "VERSION_TOO_NEW", "error", "sealflow/v2", "Upgrade"),
    ("no-version", RULE, [("version: 3\n", "")], "FIELD_MISSING", "error", "apiVersion", "'version' is missing"),
    ("misspelt-field", RULE, [("grace_hours", "grace_hour")], "FIELD_UNKNOWN", "error", "grace_hour",
     "mean grace_hours"),
    ("misspelt-field-of-a-rule", RULE, [("    require:", "    requires:")], "FIELD_UNKNOWN", "error", "requires",
     "mean require"),
    ("misspelt-field-of-a-scope", RULE, [("      artifact:", "      pipline: [a]\n      artifact:")], "FIELD_UNKNOWN",
     "error", "pipline", "mean pipeline"),
    ("misspelt-kind-of-evidence", RULE, [("{any_of: [trainer]}",
     "{any_of: [trainer]}\n      evidence: {signatur: {}}")],
     "FIELD_MALFORMED", "error", "signatur", "mean signature"),
    ("misspelt-level", RULE, [("  - name: models", "  - level: enforced\n    name: models")], "FIELD_MALFORMED",
     "error",
     "enforced", "mean enforce"),
    ("version-as-text", RULE, [("version: 3", 'version: "3"')], "FIELD_MALFORMED", "error", '"3"', "whole number"),
    ("one-text-for-a-list", RULE, [('["s3://models/**"]', "s3://models/**")], "FIELD_MALFORMED", "error",
     "s3://models/**", "artifact: [s3://models/**]"),
    ("duration-in-words", RULE, [("{any_of: [trainer]}", "{any_of: [trainer]}\n      freshness: {max_age: 3 days}")],
     "FIELD_MALFORMED", "error", "3 days", "max_age: 24h"),
    ("freshness-of-another-word", RULE, [("{any_of: [trainer]}", "{any_of: [trainer]}\n      freshness: pined")],
     "FIELD_MALFORMED", "error", "pined", "neither `pinned` nor"),
    ("date-without-a-zone", RULE, [("2027-06-30T00:00:00Z", "2027-06-30")], "FIELD_MALFORMED", "error", "2027-06-30",
     "2027-06-30T00:00:00Z"),
    ("an-empty-list", RULE, [('["s3://models/**"]', "[]")], "FIELD_MALFORMED", "error", "[]", "empty"),
    ("two-forms-of-a-demand", RULE, [("{any_of: [trainer]}", "{any_of: [trainer], all_of: [trainer]}")],
     "FIELD_MALFORMED", "error", "all_of", "exactly one of"),
    ("an-alias-of-a-scheme", RULE, [("s3://models/**", "s3a://models/**")], "FIELD_MALFORMED", "error", "s3a",
     "write s3://models/**"),
    ("a-name-with-a-space", RULE, [("name: models", "name: my models")], "FIELD_MALFORMED", "error", "my models",
     "begins with a letter"),
    ("not-landed", RULE, [("{any_of: [trainer]}", "{any_of: [trainer]}\n      gates: all")], "FIELD_NOT_LANDED",
     "error", "gates", "gate results"),
    ("no-such-key", RULE, [("a.pub", "nowhere.pub")], "KEY_UNREADABLE", "error", "nowhere.pub", "no key file"),
    ("a-private-key", RULE, [("a.pub", "a")], "KEY_UNREADABLE", "error", "{key: a,", "private key"),
    ("no-such-key-of-a-team", SOUND, [("    key: b.pub\n    policy",
     "    key: gone.pub\n    policy")], "KEY_UNREADABLE",
     "error", "gone.pub", "no key file"),
    ("unknown-identity", RULE, [("[trainer]", "[trainr]")], "IDENTITY_UNKNOWN", "error", "trainr", "mean trainer"),
    ("unknown-verifier", SOUND, [("{max_age: 24h}", "{max_age: 24h, verifiers: [chekcer]}")], "IDENTITY_UNKNOWN",
     "error", "chekcer", "mean checker"),
    ("a-verifier-as-a-signer", SOUND, [("any_of: [trainer]", "any_of: [trainer, checker]")], "VERIFIER_MISUSED",
     "error",
     "[trainer, checker]", "it is a verifier"),
    ("a-signer-as-a-verifier", SOUND, [("{max_age: 24h}", "{max_age: 24h, verifiers: [reviewer]}")], "VERIFIER_MISUSED",
     "error", "verifiers: [reviewer]", "no verifier"),
    ("unknown-root", RULE, [("{any_of: [trainer]}", "{any_of: [trainer]}\n      lineage: {roots: [trainr]}")],
     "IDENTITY_UNKNOWN", "error", "roots: [trainr]", "mean trainer"),
    ("a-verifier-as-a-root", SOUND, [("{max_age: 24h}", "{max_age: 24h}\n      lineage: {roots: [checker]}")],
     "VERIFIER_MISUSED", "error", "roots: [checker]", "the data owner's own key"),
    ("verifier-unused", SOUND, [("      reuse_verdict: {max_age: 24h}\n", "")], "VERIFIER_UNUSED", "warning",
     "checker:",
     "No rule reuses"),
    ("lineage-without-commits", RULE, [("{any_of: [trainer]}", "{any_of: [trainer]}\n      lineage: {level: L4}")],
     "LINEAGE_NO_COMMITS", "warning", "level: L4", "allowed_signers"),
    ("verifier-missing", SOUND, [("  checker: {key: c.pub, verifier: true}\n", "")], "VERIFIER_MISSING", "warning",
     "reuse_verdict", "verifier: true"),
    ("a-verifier-with-a-signer's-key", SOUND, [("{key: c.pub, verifier", "{key: a.pub, verifier")], "VERIFIER_MISUSED",
     "error", "checker:", "nobody vouches for itself"),
    ("identity-unused", SOUND, [("[trainer, reviewer]", "[trainer]")], "IDENTITY_UNUSED", "warning", "  reviewer:",
     "No rule names reviewer"),
    ("identity-for-all-producers", RULE, [(', producers: ["airflow:train/*"]', "")], "IDENTITY_ANY_PRODUCER", "warning",
     "trainer: {", "every task"),
    ("identity-expired", SOUND, [("key: b.pub\n    producers",
     "key: b.pub\n    expires: 2026-05-01T00:00:00Z\n    producers"),
     ("all_of: [trainer, reviewer]", "any_of: [trainer, reviewer]")], "IDENTITY_EXPIRED", "warning",
     "expires: 2026-05-01T00:00:00Z", "nothing that it signed counts"),
    ("identity-expires-soon", RULE, [("{key: a.pub,", "{expires: 2026-06-09T00:00:00Z, key: a.pub,")],
     "IDENTITY_EXPIRES_SOON", "warning", "2026-06-09", "in 8 days"),
    ("policy-expired", RULE, [("2027-06-30", "2026-05-30")], "POLICY_EXPIRED", "error", "2026-05-30", "later date"),
    ("policy-expires-soon", RULE, [("2027-06-30", "2026-06-30")], "POLICY_EXPIRES_SOON", "warning", "2026-06-30",
     "in 29 days"),
    ("no-grace", RULE, [("grace_hours: 24\n", "")], "POLICY_NO_GRACE", "warning", "apiVersion", "grace_hours: 24"),
    ("no-rules", RULE.partition("rules:")[0], [], "POLICY_EMPTY", "warning", "apiVersion", "nothing is managed"),
    ("dag-in-kubeflow", RULE, [("    scope:", "    scope:\n      dag: [train]\n      orchestrator: [kfp]")],
     "RULE_NEVER_MATCHES", "error", "dag: [train]", "airflow"),
    ("pipeline-in-airflow", RULE, [("    scope:", "    scope:\n      pipeline: [p]\n      orchestrator: [airflow]")],
     "RULE_NEVER_MATCHES", "error", "pipeline: [p]", "kfp"),
    ("task-outside-of-orchestrators", RULE, [("    scope:",
     "    scope:\n      task: [t]\n      orchestrator: [python, cli]")],
     "RULE_NEVER_MATCHES", "error", "task: [t]", "add airflow or kfp"),
    ("dag-and-pipeline", RULE, [("    scope:", "    scope:\n      pipeline: [p]\n      dag: [d]")], "FIELD_MALFORMED",
     "error", "    scope:", "write two rules"),
    ("a-database", RULE, [("s3://models/**", "postgres://db/models")], "PATTERN_NO_PLACE", "error", "postgres://",
     "no storage"),
    ("a-scheme-of-nobody", RULE, [("s3://models/**", "x://models/**")], "PATTERN_NO_PLACE", "error", "x://",
     "no storage"),
    ("a-web-address", RULE, [("s3://models/**", "https://example.org/**")], "PATTERN_NO_PLACE", "error", "https://",
     "no storage"),
    ("a-symbolic-asset", RULE, [("s3://models/**", "churn_model")], "PATTERN_NO_PLACE", "error", "churn_model",
     "name:churn_model"),
    ("a-relative-path", RULE, [("s3://models/**", "models/**")], "PATTERN_NO_PLACE", "error", '"models/**"',
     "no scheme"),
    ("a-file-uri-with-a-host", RULE, [("s3://models/**", "file://data/**")], "PATTERN_NO_PLACE", "error", "file://",
     "/data/**"),
    ("a-signer's-scope-over-nothing", SOUND, [("scope: {dag: [train]}", "scope: {artifact: [train]}")],
     "PATTERN_NO_PLACE", "error", "scope: {artifact: [train]}", "no scheme"),
    ("a-folder-without-a-wildcard", RULE, [("s3://models/**", "s3://models/churn")], "PATTERN_LIKE_FOLDER", "warning",
     "s3://models/churn", "s3://models/churn/**"),
    ("a-bucket-without-a-wildcard", RULE, [("s3://models/**", "s3://models")], "PATTERN_LIKE_FOLDER", "warning",
     "s3://models", "s3://models/**"),
    ("no-identities", RULE, [("    require:\n      identities: {any_of: [trainer]}\n",
     "    require: {loaders: [cli]}\n"),
     ], "RULE_NO_IDENTITIES", "warning", "  - name: models", "nobody who may sign"),
    ("a-shared-key", RULE, [("rules:", '  twin: {key: a.pub, producers: ["kfp:p/*"]}\nrules:'),
     ("{any_of: [trainer]}", "{any_of: [trainer]}\n      producers: [airflow:train/*]")], "KEY_SHARED", "error",
     "producers: [airflow:train/*]\n", "kfp:p/*"),
    ("a-key-for-all-under-producers", RULE, [(', producers: ["airflow:train/*"]', ""),
     ("{any_of: [trainer]}", "{any_of: [trainer]}\n      producers: [airflow:train/*]")], "KEY_SHARED", "error",
     "producers: [airflow:train/*]", "every producer"),
    ("a-key-for-more-than-the-rule", RULE, [("airflow:train/*", "airflow:**"),
     ("{any_of: [trainer]}", "{any_of: [trainer]}\n      producers: [airflow:train/*]")], "KEY_SHARED", "error",
     "producers: [airflow:train/*]", "airflow:**"),
    ("one-of-two-keys-is-shared", SOUND, [("any_of: [trainer]", "any_of: [trainer, reviewer]"),
     ], "KEY_SHARED", "warning", "      producers: [airflow:train/*]\n      evidence", "reviewer"),
    ("two-names-of-one-key", RULE, [("rules:", '  twin: {key: a.pub, producers: ["airflow:train/*"]}\nrules:'),
     ("{any_of: [trainer]}", "{all_of: [trainer, twin]}")], "RULE_NEVER_PASSES", "error", "{all_of:", "1 key"),
    ("only-expired-identities", RULE, [("{key: a.pub,", "{expires: 2026-05-01T00:00:00Z, key: a.pub,")],
     "RULE_NEVER_PASSES", "error", "{any_of: [trainer]}", "not expired"),
    ("a-bare-signature-of-a-bound-key", RULE, [("{any_of: [trainer]}",
     "{any_of: [trainer]}\n      evidence: {signature: {}}")],
     "RULE_NEVER_PASSES", "error", "evidence:", "names no producer"),
    ("loaders-outside-of-the-scope", RULE, [("    scope:", "    scope:\n      dag: [serve]"),
     ("{any_of: [trainer]}", "{any_of: [trainer]}\n      loaders: [airflow:train/*, python]")], "RULE_NEVER_PASSES",
     "error", "loaders:", "same tasks"),
    ("a-producer-of-nobody", RULE, [("airflow:train/*", "train/fit")], "PRODUCER_NEVER_WRITTEN", "error", "train/fit",
     "airflow:train/fit"),
    ("a-producer-without-a-task", RULE, [("airflow:train/*", "airflow:train")], "PRODUCER_NEVER_WRITTEN", "error",
     "airflow:train", "airflow:train/*"),
    ("a-loader-of-nobody", RULE, [("{any_of: [trainer]}", "{any_of: [trainer]}\n      loaders: [airflow/serve]")],
     "PRODUCER_NEVER_WRITTEN", "error", "airflow/serve", "airflow:serve/*"),
    ("a-star-for-all-producers", RULE, [("airflow:train/*", "*")], "PRODUCER_NEVER_WRITTEN", "warning", '["*"]', "**"),
    ("unknown-recipient", OPENED, [("required: [recovery]", "required: [recovry]")], "RECIPIENT_UNKNOWN", "error",
     "recovry", "mean recovery"),
    ("unknown-recipient-among-only", OPENED, [("only: [recovery, vault]", "only: [recovery, vault, team]")],
     "RECIPIENT_UNKNOWN", "error", "team]", "beside identities"),
    ("recipient-unused", OPENED, [("only: [recovery, vault], ", "")], "RECIPIENT_UNUSED", "warning", "  vault:",
     "name it in a rule"),
    ("recipients-and-nothing-about-clear-artifacts", OPENED, [(", encrypted: true", "")], "RECIPIENTS_CLEAR", "warning",
     "required:", "encrypted: true"),
    ("a-required-recipient-that-only-leaves-out", OPENED, [("only: [recovery, vault]", "only: [vault]")],
     "FIELD_MALFORMED", "error", "only: [vault]", "leaves out recovery"),
    ("recipients-that-ask-for-nothing", OPENED, [("required: [recovery], only: [recovery, vault], encrypted: true",
     "encrypted: false")], "FIELD_MALFORMED", "error", "encrypted: false", "who opens artifacts"),
    ("a-symmetric-recipient", OPENED, [("{rsa: rsa.pub}", "{aes: team.key}")], "FIELD_MALFORMED", "error", "team.key",
     "is a secret"),
    ("a-symmetric-recipient-by-uri", OPENED, [("{rsa: rsa.pub}", '{rsa: "aes:team.key"}')], "FIELD_MALFORMED", "error",
     "team.key", "is a secret"),
    ("a-symmetric-key-for-a-public-one", OPENED, [("rsa.pub", "team.key")], "KEY_UNREADABLE", "error", "team.key",
     "not an RSA key"),
    ("a-private-key-of-a-recipient", OPENED, [("rsa.pub", "rsa.pem")], "KEY_UNREADABLE", "error", "rsa.pem",
     "private key"),
    ("a-signing-key-for-a-recipient", OPENED, [("rsa.pub", "b.pub")], "KEY_UNREADABLE", "error", "b.pub",
     "not an RSA key"),
    ("no-such-key-of-a-recipient", OPENED, [("rsa.pub", "gone.pub")], "KEY_UNREADABLE", "error", "gone.pub",
     "no key file"),
    ("a-recipient-by-alias", OPENED, [(f'"{ARN}"', "alias/vault")], "FIELD_MALFORMED", "error", "alias/vault",
     "write the ARN"),
    ("a-recipient-of-two-kinds", OPENED, [("{rsa: rsa.pub}", f'{{rsa: rsa.pub, kms: "{ARN}"}}')], "FIELD_MALFORMED",
     "error", "rsa.pub", "exactly one of"),
    ("a-namespace-for-a-key-in-kms", OPENED, [(f'"{ARN}"', f'"{ARN}", namespace: x')], "FIELD_MALFORMED", "error",
     "namespace", "by its ARN"),
    ("the-namespace-of-keys-in-kms", OPENED, [("rsa.pub}", "rsa.pub, namespace: aws-kms}")], "FIELD_MALFORMED", "error",
     "namespace", "choose another"),
    ("two-recipients-of-one-name-in-the-header", OPENED, [("recipients:\n  recovery",
     "recipients:\n  twin: {rsa: rsa.pub}\n  recovery")], "FIELD_MALFORMED", "error", "  twin: {rsa",
     "one name in the headers"),
    ("rules-that-nobody-satisfies-as-a-recipient", OPENED, [("rules:\n", "rules:\n  - name: inner\n"
     '    scope: {artifact: ["s3://models/x/*"]}\n    require: {identities: {any_of: [trainer]}, '
     "recipients: {only: [vault], encrypted: true}}\n")], "RULES_CONTRADICT", "error", "required: [recovery]",
     "Name the same recipients"),
    ("two-rules-of-one-name", SOUND, [("name: reviewed", "name: models")], "NAME_TWICE", "error",
     "  - name: models\n    scope:\n      artifact: [/data", "Line 18"),
    ("two-delegations-of-one-team", SOUND, [("# the end",
     "  - team: fraud\n    artifact: [s3://x/**]\n    key: b.pub\n"
     "    policy: s3://policies/x.json\n# the end")], "NAME_TWICE", "error",
     "team: fraud\n    artifact: [s3://x", "one"),
    ("the-same-rule-twice", RULE, [("rules:\n", 'rules:\n  - name: again\n    scope: {artifact: ["s3://models/**"]}\n'
     "    require: {identities: {any_of: [trainer]}}\n")], "RULE_TWICE", "warning", "  - name: models", "again"),
    ("contradicting-rules", SOUND, [("artifact: [/data/reviewed/**]", "artifact: [s3://models/x/*]"),
     ("all_of: [trainer, reviewer]", "any_of: [reviewer]")], "RULES_CONTRADICT", "error",
     "identities: {any_of: [reviewer]}",
     "nobody satisfies both"),
    ("off-inside-of-a-stricter-rule", RULE, [("rules:\n", 'rules:\n  - name: scratch\n    level: "off"\n'
     '    scope: {artifact: ["s3://models/scratch/**"]}\n')], "RULE_OFF_IDLE", "warning", 'level: "off"', "stricter"),
    ("left-in-audit", RULE, [("name: models", "name: models\n    level: audit")], "LEVEL_AUDIT", "warning",
     "level: audit",
     "level: enforce"),
    ("audit-that-meets-enforce", RULE, [("rules:\n", 'rules:\n  - name: trial\n    level: audit\n'
     '    scope: {artifact: ["s3://models/a/**"]}\n    require: {loaders: [cli]}\n')], "LEVEL_RAISED", "warning",
     "level: audit", "enforced where it meets models"),
    ("delegations-that-overlap", SOUND, [("# the end", "  - team: risk\n    artifact: [s3://models/fraud/a/*]\n"
     "    key: b.pub\n    policy: s3://policies/risk.json\n# the end")], "DELEGATIONS_OVERLAP", "warning",
     "artifact: [s3://models/fraud/a/*]", "fraud"),
    ("a-relative-place-of-a-team's-policy", SOUND, [("s3://policies/fraud.json", "fraud.json")], "FIELD_MALFORMED",
     "error", "  - team: fraud", "absolute"),
    ("a-signer-never-chosen", SOUND, [("  - scope: {dag: [train]}\n    uri: file", "  - uri: file:/a.pem\n"
     "  - scope: {dag: [train]}\n    uri: file"), ("  - uri: awskms:alias/models\n", "")], "SIGNER_SHADOWED", "warning",
     "scope: {dag: [train]}", "narrower entry first"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "changes", "code", "severity", "where", "said"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_a_problem_is_told_with_its_line(
    keys: Path, base: str, changes: list[tuple[str, str]], code: str, severity: str, where: str, said: str
) -> None:
    text = change(base, *changes)
    found = lint(keys, text)
    mine = [item for item in found.problems if item.id == code]
    assert mine, [(item.line, item.id, item.message) for item in found.problems]
    expected = line_of(text, where) + (where.count("\n") if where.startswith("\n") else 0)
    told = [item for item in mine if item.line == expected]
    assert told, f"expected line {expected}: {mine}"
    assert {item.severity for item in told} == {severity}
    assert any(said in f"{item.message} {item.suggestion}" for item in told), told
    assert (found.errors != ()) == any(item.severity == "error" for item in found.problems)


WAIVER = """\
apiVersion: sealflow/v1
kind: Waiver
id: release-7
scope:
  artifact: ["s3://models/churn/**"]
rules:
  - name: models
    digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
reason: the trainer's key service is down
not_before: 2026-05-31T00:00:00Z
expires: 2026-06-02T00:00:00Z
"""

WAIVERS = [
    ("expired", [("2026-06-02", "2026-06-01")], "WAIVER_EXPIRED", "error", "2026-06-01", "new waiver"),
    ("for-every-bucket", [("s3://models/churn/**", "s3://**")], "WAIVER_BROAD", "warning", "s3://**",
     "name the artifact"),
    ("over-nothing", [("s3://models/churn/**", "x://churn/**")], "PATTERN_NO_PLACE", "error", "x://", "no storage"),
    ("without-a-reason", [("the trainer's key service is down", "because")], "FIELD_MALFORMED", "error", "because", ""),
    ("of-a-rule-by-a-bad-name", [("name: models", "name: a/b/c")], "FIELD_MALFORMED", "error", "a/b/c", "team/rule"),
    ("misspelt", [("reason:", "reasn:")], "FIELD_UNKNOWN", "error", "reasn:", "mean reason"),
    ("longer-than-a-quarter", [("2026-06-02", "2027-06-02")], "FIELD_MALFORMED", "error", "apiVersion",
     "within 92 days"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code", "severity", "where", "said"), [case[1:] for case in WAIVERS], ids=[case[0] for case in WAIVERS]
)
def test_a_problem_of_a_waiver(
    keys: Path, changes: list[tuple[str, str]], code: str, severity: str, where: str, said: str
) -> None:
    text = change(WAIVER, *changes)
    mine = [item for item in lint(keys, text).problems if item.id == code]
    assert [(item.line, item.severity) for item in mine] == [(line_of(text, where), severity)]
    assert said in f"{mine[0].message} {mine[0].suggestion}"


def test_a_sound_waiver_is_sound(keys: Path) -> None:
    assert lint(keys, WAIVER).problems == ()


def test_every_check_is_tested() -> None:
    tested = {case[3] for case in CASES} | {case[2] for case in WAIVERS}
    assert tested == CHECKS.keys()


def test_all_problems_at_once(keys: Path) -> None:
    text = change(
        RULE,
        ("version: 3", 'version: "3"'),
        ("a.pub", "nowhere.pub"),
        ("[trainer]", "[trainr]"),
        ("s3://models/**", "churn"),
        ("  - name: models", "  - level: enforced\n    name: models"),
    )
    found = lint(keys, text)
    assert [item.id for item in found.problems if item.severity == "error"] == [
        "FIELD_MALFORMED",
        "KEY_UNREADABLE",
        "FIELD_MALFORMED",
        "PATTERN_NO_PLACE",
        "IDENTITY_UNKNOWN",
    ]
    assert found.document is None


def test_each_problem_is_told_once(keys: Path) -> None:
    text = change(RULE, ("{any_of: [trainer]}", "{any_of: [trainer]}\n      freshness: {max_ag: 24h}"))
    places = [(item.id, item.place) for item in lint(keys, text).problems]
    assert sorted(places) == [
        ("FIELD_MISSING", "rules[0].require.freshness.max_age"),
        ("FIELD_UNKNOWN", "rules[0].require.freshness.max_ag"),
    ]


@pytest.mark.parametrize("noise", ["pydantic", "tuple", "literal[", "Input should", "errors.", "FreshnessDemand"])
def test_no_word_of_the_library_reaches_the_admin(keys: Path, noise: str) -> None:
    for case in CASES:
        for item in lint(keys, change(case[1], *case[2])).problems:
            assert noise.lower() not in f"{item.place} {item.message} {item.suggestion}".lower(), item


def test_contradictions_that_have_nothing_to_do_with_each_other_are_all_told(keys: Path) -> None:
    text = change(RULE, ("rules:\n", '  other: {key: b.pub, producers: ["airflow:train/*"]}\nrules:\n'))
    for number, who in enumerate(["trainer", "other", "trainer", "other"]):
        text += (
            f"  - name: pair-{number}\n    scope: {{artifact: ['s3://pair-{number // 2}/**']}}\n"
            f"    require: {{identities: {{any_of: [{who}]}}}}\n"
        )
    found = [item.message for item in lint(keys, text).problems if item.id == "RULES_CONTRADICT"]
    assert len(found) == 2
    assert "pair-0" in found[0]
    assert "pair-2" in found[1]


def test_a_signed_document_is_no_draft(keys: Path) -> None:
    (problem,) = lint(keys, '{"dsseEnvelope": {}, "mediaType": "x"}').problems
    assert problem.id == "DRAFT_UNREADABLE"
    assert "sealflow policy show" in problem.suggestion


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "a: [", "rules: 3", "rules: [3]", "rules: [{scope: 3, require: x, name: []}]",
        "identities: []", "identities: {a: 3, b: {key: 3}, c: {certificate: {roots: 3}}}", "signers: [1, {scope: []}]",
        "delegations: [{artifact: x}, 3]", "kind: Waiver", "kind: Waiver\nrules: 3\nscope: []", "expires: soon",
        "revocations: {}", "rules: [{name: a, scope: {artifact: [1, ''], dag: 3}, require: {identities: {any_of: 3}}}]",
        "rules: [{require: {producers: [3], loaders: {}, reuse_verdict: 3, evidence: []}}]", "\x00", "a: !!binary x",
    ],
)  # fmt: skip
def test_nothing_crashes(keys: Path, text: str) -> None:
    found = lint(keys, text)
    assert found.errors
    assert all(isinstance(item, Problem) and item.line >= 1 for item in found.problems)


# --- Whatever stands in a draft ---

values = st.recursive(
    st.sampled_from(
        ["", "x", "**", "*", "s3://b/**", "name:x", "airflow:a/*", "trainer", "2999-01-01T00:00:00Z", "24h"]
    )
    | st.sampled_from([0, 1, -1, 2**60, True, False, None, 1.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "any_of", "x", "dag"]), inner),
    max_leaves=4,
)


def paths(body: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value."""
    items = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [where, *(path for name, value in items for path in paths(value, (*where, name)))]


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_lint_never_crashes_and_what_it_passes_can_be_loaded(keys: Path, data: st.DataObject) -> None:
    body = parse_draft((SOUND if data.draw(st.booleans()) else WAIVER).encode(), "draft").body
    for _ in range(data.draw(st.integers(1, 3))):
        *above, last = data.draw(st.sampled_from(paths(body)[1:]))
        inner: Any = body
        try:
            for part in above:
                inner = inner[part]
            if data.draw(st.booleans()):
                inner[last] = data.draw(values)
            else:
                del inner[last]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
    found = lint(keys, json.dumps(body))
    assert all(item.line >= 1 and item.message for item in found.problems)
    if found.errors:
        return
    assert found.draft is not None
    if isinstance(found.document, TrustPolicy):
        CompiledPolicy(parse_policy(found.draft.json), digest="0" * 64)
    else:
        parse_waiver(found.draft.json)


def test_a_bare_off_is_told_what_to_write(keys: Path) -> None:
    text = RULE.replace("name: models", "name: models\n    level: off")
    (problem,) = lint(keys, text).problems
    assert problem.line == line_of(text, "level: off")
    assert problem.suggestion == '"off"'
