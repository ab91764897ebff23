"""The connection holds references and nothing else; who wins over whom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import UnavailableError, UsageError
from tests.pki import write_key

pytestmark = pytest.mark.airflow

SECRET = "hunter2-9f2c"
PEM = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n"


def settings(conn_id: str = "sealflow_default"):
    from sealflow_airflow import SealflowHook

    return SealflowHook(conn_id).get_conn()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        pytest.param({"password": SECRET}, "password", id="password"),
        pytest.param({"login": SECRET}, "login", id="login"),
        pytest.param({"host": SECRET}, "host", id="host"),
        pytest.param({"schema": SECRET}, "schema", id="schema"),
        pytest.param({"port": 22}, "port", id="port"),
        pytest.param({"extra": {"passphrase": SECRET}}, "passphrase", id="unknown-member"),
        pytest.param({"extra": {"notaries": "file:/k"}}, "notaries", id="member-of-a-later-release"),
        pytest.param({"extra": {"audit_spool": "/tmp/a"}}, "audit_spool", id="the-admins-setting"),
        pytest.param({"extra": {"signer": PEM}}, "private key", id="private-key-as-signer"),
        pytest.param({"extra": {"identities": {"a": {"key": PEM}}}}, "private key", id="private-key-in-a-rule"),
        pytest.param({"extra": {"identities": [PEM]}}, "private key", id="private-key-in-a-list"),
        pytest.param(
            {"extra": {"evidence_store": f"s3://AKIA:{SECRET}@bucket/e"}}, "credentials", id="credentials-in-a-location"
        ),
        pytest.param({"extra": {"recipients": [f"aes:/k\n{PEM}"]}}, "private key", id="private-key-among-recipients"),
        pytest.param(
            {"extra": {"recipients": ["aes:/k", f"awskms:arn?endpoint=http://u:{SECRET}@kms"]}},
            "credentials in recipients",
            id="credentials-among-recipients",
        ),
        pytest.param({"extra": {"signer": 1}}, "signer", id="signer-is-no-text"),
        pytest.param({"extra": {"evidence_store": ["a"]}}, "evidence_store", id="store-is-no-text"),
        pytest.param({"extra": json.dumps([SECRET])}, "JSON object", id="extra-is-a-list"),
        pytest.param({"extra": "{" + SECRET}, "JSON object", id="extra-is-no-json"),
    ],
)
def test_connection_with_more_than_references_is_refused(connect, fields: dict[str, Any], word: str):
    connect(**fields)
    with pytest.raises(UsageError, match=word) as caught:
        settings()
    assert SECRET not in str(caught.value)


def test_connection_gives_settings(connect):
    rules = {"trainer": {"key": "file:/k.pub.pem", "producers": ["airflow:train/*"]}}
    connect(extra={"signer": "awskms:alias/a", "identities": rules, "evidence_store": "s3://bucket/e"})
    found = settings()
    assert (found.signer, found.identities, found.evidence_store) == ("awskms:alias/a", rules, "s3://bucket/e")
    assert found.verifier is None
    connect(extra={"verifier": "awskms:alias/verifier"})
    assert settings().verifier == "awskms:alias/verifier"


@pytest.mark.parametrize(
    "given", ["rsa:/keys/team.pem", ["rsa:/keys/team.pem", "aes:/keys/r.key"], '["rsa:/keys/team.pem"]'], ids=repr
)
def test_connection_gives_recipients(connect, given):
    connect(extra={"recipients": given})
    assert settings().recipients == given


def test_connection_as_uri_gives_settings(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_SEALFLOW_DEFAULT", "sealflow://?signer=file%3A%2Fk.pem&identities=file%3A%2Fk.pub")
    assert (settings().signer, settings().identities) == ("file:/k.pem", "file:/k.pub")


def test_fields_left_empty_in_the_form_are_unset(connect):
    connect(login="", password="", extra={"signer": "", "identities": None})
    assert (settings().signer, settings().identities) == (None, None)


def test_missing_default_connection_gives_no_identities():
    found = settings()
    assert (found.signer, found.identities, found.evidence_store) == (None, None, None)


def test_missing_named_connection_is_an_error():
    with pytest.raises(UsageError, match="'team_a' does not exist") as caught:
        settings("team_a")
    assert caught.value.code == "CONNECTION_MISSING"


def test_missing_connection_of_the_configuration_is_an_error(monkeypatch):
    monkeypatch.setenv("AIRFLOW__SEALFLOW__CONN_ID", "team_a")
    with pytest.raises(UsageError, match="'team_a' does not exist"):
        settings()


def test_default_means_the_configured_connection(connect, monkeypatch):
    connect(extra={"signer": "file:/default.pem"})
    connect("team_a", extra={"signer": "file:/team-a.pem"})
    monkeypatch.setenv("AIRFLOW__SEALFLOW__CONN_ID", "team_a")
    assert settings().signer == "file:/team-a.pem"


def test_connection_that_airflow_keeps_back_is_unavailable(monkeypatch):
    from sealflow_airflow import SealflowHook

    def denied(conn_id: str):
        raise PermissionError("no")

    monkeypatch.setattr(SealflowHook, "get_connection", staticmethod(denied))
    with pytest.raises(UnavailableError, match="PermissionError"):
        settings()


def test_store_of_the_connection_wins_over_the_configuration(connect, monkeypatch):
    monkeypatch.setenv("AIRFLOW__SEALFLOW__EVIDENCE_STORE", "/configured")
    assert settings().evidence_store == "/configured"
    connect(extra={"evidence_store": "/connected"})
    assert settings().evidence_store == "/connected"


def test_the_audit_spool_lies_in_airflow_home_unless_configured(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", "/dev/null")
    assert settings().audit_spool == str(tmp_path / "sealflow" / "audit" / "spool")
    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_SPOOL", "/var/lib/sealflow")
    assert settings().audit_spool == "/var/lib/sealflow"


def test_an_inbox_alone_leaves_no_spool_for_a_task_to_name(monkeypatch, tmp_path):
    from sealflow import Settings

    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_INBOX", "s3://audit/inbox")
    assert settings().audit_inbox == "s3://audit/inbox"
    assert settings().audit_spool is None
    assert settings().over(Settings(audit_spool="/tmp/mine")).audit_spool is None
    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_SPOOL", "/var/lib/sealflow")
    assert (settings().audit_spool, settings().audit_inbox) == ("/var/lib/sealflow", "s3://audit/inbox")


def test_connection_test_opens_keys_and_identities(connect, key, tmp_path: Path):
    from sealflow_airflow import SealflowHook

    hook = SealflowHook()
    assert hook.test_connection() == (False, "The connection 'sealflow_default' does not exist.")
    connect(extra={"signer": key.signer, "identities": [f"file:{key.public}"]})
    passed, message = hook.test_connection()
    assert passed
    assert message.endswith("1 identity rule, no recipients")
    (tmp_path / "team.key").write_bytes(bytes(range(32)))
    connect(extra={"recipients": [f"aes:{tmp_path}/team.key"]})
    assert hook.test_connection() == (True, "no signer, no identity rules, 1 recipient")


@pytest.mark.parametrize("broken", ["signer", "identities", "recipients", "form", "password"])
def test_connection_test_says_what_is_wrong(connect, key, tmp_path: Path, broken):
    from sealflow_airflow import SealflowHook

    extra: dict[str, Any] = {"signer": key.signer, "identities": [f"file:{key.public}"]}
    fields: dict[str, Any] = {"extra": extra}
    if broken == "password":
        fields["password"] = SECRET
    else:
        extra |= {
            "signer": {"signer": f"file:{tmp_path}/absent.pem"},
            "identities": {"identities": f"file:{tmp_path}/absent.pub.pem"},
            "recipients": {"recipients": f"aes:{tmp_path}/absent.key"},
            "form": {"identities": {"a": {"keys": "file:/k"}}},
        }[broken]
    connect(**fields)
    passed, message = SealflowHook().test_connection()
    assert not passed
    assert SECRET not in message
    assert ("absent" in message) is (broken in ("signer", "identities", "recipients"))


def test_airflow_itself_tests_the_connection(connection):
    from airflow.sdk import Connection

    passed, message = Connection.get("sealflow_default").test_connection()
    assert passed, message


def test_other_key_is_no_secret(connect, tmp_path):
    """A public key as PEM text is a reference that needs no file; it must pass where a private one is refused."""
    pem = write_key(tmp_path).public.read_text()
    connect(extra={"identities": pem})
    assert settings().identities == pem
