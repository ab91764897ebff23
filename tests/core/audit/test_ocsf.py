"""What stands where in an exported OCSF event. That the published schema takes it: tests/conformance/test_ocsf.py."""

from __future__ import annotations

from typing import Any

import pytest

from sealflow.audit.entry import parse_entry
from sealflow.audit.ocsf import to_ocsf
from tests.core.actions.access_log import Run, at

URI = "s3://models/churn/model.pkl"


def exported(outcome: str = "passed", action: str = "verify", **members: Any) -> dict[str, Any]:
    run = Run(instance="pod-1")
    event = run.event(at(0), "outcome", action, artifact=URI, outcome=outcome, **members)
    return to_ocsf(parse_entry(run.lines[0]), event, 7, "log.example/audit")


def test_row_leads_back_to_the_log() -> None:
    run = Run()
    event = run.event(at(0), "intent", artifact=URI)
    entry = parse_entry(run.lines[0])
    body = to_ocsf(entry, event, 7, "log.example/audit")
    assert body["metadata"]["sequence"] == 7
    assert body["metadata"]["uid"] == event.id
    assert body["unmapped"]["sealflow"] == {
        "log": "log.example/audit", "index": 7, "leaf_hash": entry.hash, "writer": entry.writer, "n": 0,
        "who": "claimed", "event": event.as_dict(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "activity"),
    [("upload", 1), ("verify", 2), ("download", 2), ("change-recipients", 3), ("something-new", 99)],
)
def test_activity(action: str, activity: int) -> None:
    body = exported(action=action)
    assert (body["activity_id"], body["type_uid"]) == (activity, 600_300 + activity)


@pytest.mark.parametrize(
    ("outcome", "status", "severity"),
    [("passed", 1, 1), ("done", 1, 1), ("failed", 2, 3), ("unverifiable", 2, 2), ("error", 2, 2)],
)
def test_outcome(outcome: str, status: int, severity: int) -> None:
    body = exported(outcome, codes=("DIGEST_MISMATCH", "FILE_CHANGED"))
    assert (body["status_id"], body["severity_id"]) == (status, severity)
    assert (body["status_code"], body["status_detail"]) == (
        "DIGEST_MISMATCH", f"{outcome}, DIGEST_MISMATCH, FILE_CHANGED",
    )  # fmt: skip


def test_who_what_when_where() -> None:
    body = exported(digest="sha256:" + "ab" * 32, version="v1", host="worker-1", claims={"triggered_by": "ada"})
    assert body["actor"]["app_uid"] == "airflow:train/fit"
    assert body["actor"]["invoked_by"] == "ada"
    assert body["resources"] == [{"name": URI, "uid": "sha256:" + "ab" * 32, "type": "artifact", "version": "v1"}]
    assert body["src_endpoint"] == {"hostname": "worker-1", "instance_uid": "pod-1", "name": "worker-1"}
    assert body["time"] == 1_788_220_800_000


def test_event_without_a_host_still_has_an_endpoint() -> None:
    assert exported()["src_endpoint"]["name"].startswith("airflow:train/fit/")
