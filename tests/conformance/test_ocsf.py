"""Every event that we export passes the published schema of OCSF 1.8, API Activity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from sealflow.actions.audit_export import export_events
from sealflow.audit import AuditEvent
from sealflow.audit.entry import Chain
from sealflow.audit.ocsf import CLASS_UID, VERSION
from sealflow.run_identity import RunIdentity
from tests.core.audit.logs import MadeLog

NASTY = "s3://b/\u202e<script>\x1b[31m\U0001f600" + "x" * 4000


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION))
    return Draft202012Validator(schemas.get_class_schema(schemas.lookup_class_name_from_uid(CLASS_UID)))


def events() -> list[AuditEvent]:
    """One of each kind: the least that an event can hold, and the most."""
    full: dict[str, Any] = {
        "artifact": NASTY,
        "digest": "sha256:" + "ab" * 32,
        "version": "v1",
        "key": "sha256:" + "cd" * 32,
        "policy": "sha256:" + "ef" * 32,
        "rule": "models",
        "producer": "airflow:train/fit",
        "host": "worker-1",
        "claims": {"triggered_by": "ada@example.org"},
        "details": "sha256:" + "01" * 32,
        "codes": tuple(f"CODE_{number}" for number in range(200)),
        "signers": ("sha256:" + "23" * 32,),
    }
    runs = [RunIdentity(), RunIdentity("kfp", "p", "t", "r", 0, 1, "pod", "ns")]
    made = [AuditEvent("verify", "intent", run) for run in runs]
    for outcome in ("done", "passed", "failed", "unverifiable", "error"):
        for action in ("verify", "upload", "change-recipients", "new"):
            made += [AuditEvent(action, "outcome", run, outcome=outcome, **full) for run in runs]  # type: ignore[arg-type]
    return [*made, AuditEvent("end", "end", runs[0], count=len(made) + 1)]


def test_published_schema_takes_every_row(tmp_path: Path, validator: Draft202012Validator) -> None:
    log = MadeLog(tmp_path)
    chain = Chain()
    lines = [chain.add(event.to_json()).line for event in events()]
    log.add([*lines, b"nonsense"])
    rows = [json.loads(item.line) for item in export_events(log.store.uri, key=str(log.key), form="ocsf")]
    assert len(rows) == len(lines) + 1
    for row in rows:
        assert [error.message for error in validator.iter_errors(row)] == []
    assert rows[-1]["status_code"] == "AUDIT_MALFORMED"


@pytest.mark.parametrize("member", ["src_endpoint", "actor", "api", "metadata", "time", "type_uid"])
def test_schema_would_notice(tmp_path: Path, validator: Draft202012Validator, member: str) -> None:
    log = MadeLog(tmp_path)
    log.add([Chain().add(events()[0].to_json()).line])
    (row,) = (json.loads(item.line) for item in export_events(log.store.uri, key=str(log.key), form="ocsf"))
    del row[member]
    assert list(validator.iter_errors(row))
