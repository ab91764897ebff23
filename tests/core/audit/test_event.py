"""Audit events: strict, bounded, without a free member."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from sealflow.audit import AuditEvent
from sealflow.audit.event import MAX_EVENT
from sealflow.errors import UsageError
from sealflow.run_identity import RunIdentity

RUN = RunIdentity("airflow", "train", "fit", "r1", None, 1)


def test_json_form() -> None:
    event = AuditEvent("sign", "outcome", RUN, "s3://b/k", digest="d", key="k", outcome="done", codes=("A",))
    body = json.loads(event.to_json())
    assert body["sealflow_audit"] == 1
    assert body["run"] == {
        "producer": "airflow:train/fit",
        "invocation": "airflow:train/fit/r1#1",
        "orchestrator": "airflow",
        "workflow": "train",
        "task": "fit",
        "run": "r1",
        "attempt": 1,
    }
    assert body["codes"] == ["A"]
    assert datetime.fromisoformat(body["time"]).utcoffset() == timedelta(0)
    assert b"\n" not in event.to_json()


def test_empty_members_are_left_out() -> None:
    body = json.loads(AuditEvent("verify", "intent", RUN, "x").to_json())
    assert {"digest", "key", "outcome", "codes", "policy", "signers", "producer"}.isdisjoint(body)


def test_ids_differ_and_the_outcome_can_name_its_intent() -> None:
    intent = AuditEvent("sign", "intent", RUN, "x")
    outcome = AuditEvent("sign", "outcome", RUN, "x", outcome="done", correlation=intent.correlation)
    assert intent.id != outcome.id
    assert intent.correlation == outcome.correlation


def test_intents_have_no_outcome_and_outcomes_have_one() -> None:
    with pytest.raises(UsageError):
        AuditEvent("sign", "intent", RUN, "x", outcome="done")
    with pytest.raises(UsageError):
        AuditEvent("sign", "outcome", RUN, "x")


@pytest.mark.parametrize(
    "member", ["action", "artifact", "digest", "key", "policy", "producer", "correlation", "id", "time"]
)
@pytest.mark.parametrize("value", ["x" * 4097, 1, None])
def test_members_are_bounded_text(member: str, value: object) -> None:
    members = {"action": "sign", "artifact": "x"} | {member: value}
    with pytest.raises(UsageError, match=member):
        AuditEvent(phase="intent", run=RUN, **members)  # type: ignore[arg-type]


@pytest.mark.parametrize("member", ["codes", "signers"])
def test_lists_are_bounded(member: str) -> None:
    members = {member: tuple(f"C{n}" for n in range(500))}
    event = AuditEvent("verify", "outcome", RUN, "x", outcome="failed", **members)  # type: ignore[arg-type]
    assert len(getattr(event, member)) == 100
    assert getattr(event, member)[-1] == "MORE"


def test_who_signed_and_who_produced_stand_beside_who_checked() -> None:
    key = "sha256:" + "0" * 64
    event = AuditEvent(
        "verify", "outcome", RUN, "x", outcome="passed", signers=(key,), producer="airflow:prepare/clean"
    )  # fmt: skip
    body = json.loads(event.to_json())
    assert body["signers"] == [key]
    assert body["producer"] == "airflow:prepare/clean"
    assert body["run"]["producer"] == "airflow:train/fit"


def test_the_whole_event_is_bounded() -> None:
    fits = AuditEvent("sign", "intent", RUN, "\u20ac" * 4096)
    assert len(fits.to_json()) <= MAX_EVENT
    run = RunIdentity("airflow", "w" * 30_000, "t", "r")
    with pytest.raises(UsageError, match=str(MAX_EVENT)):
        AuditEvent("sign", "intent", run, "x").to_json()


def test_control_characters_stay_inside_the_line() -> None:
    data = AuditEvent("sign", "intent", RUN, "a\nb\x1b[2J\u2028").to_json()
    assert b"\n" not in data
    assert b"\x1b" not in data
    assert json.loads(data)["artifact"] == "a\nb\x1b[2J\u2028"
