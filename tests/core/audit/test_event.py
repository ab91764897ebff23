"""Audit events: strict, bounded, canonical, without a free member."""

from __future__ import annotations

import datetime
import json
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow import strictjson
from sealflow.audit import AuditEvent
from sealflow.audit.entry import Chain
from sealflow.audit.event import FORMS, MAX_EVENT, TEXTS
from sealflow.audit.event_model import EventModel
from sealflow.errors import EvidenceError, UsageError
from sealflow.run_identity import RunIdentity

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = ROOT / "docs" / "reference" / "audit-event.schema.json"
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
    assert datetime.datetime.fromisoformat(body["time"]).utcoffset() == datetime.timedelta(0)
    assert b"\n" not in event.to_json()


def test_empty_members_are_left_out() -> None:
    body = json.loads(AuditEvent("verify", "intent", RUN, "x").to_json())
    assert set(body) == {"sealflow_audit", "id", "time", "action", "phase", "run", "artifact", "correlation"}


def test_ids_differ_and_the_outcome_can_name_its_intent() -> None:
    intent = AuditEvent("sign", "intent", RUN, "x")
    outcome = AuditEvent("sign", "outcome", RUN, "x", outcome="done", correlation=intent.correlation)
    assert intent.id != outcome.id
    assert intent.correlation == outcome.correlation


def test_a_claim_is_marked_as_one() -> None:
    event = AuditEvent("sign", "intent", RUN, "x", claims={"triggered_by": "alice"})
    assert json.loads(event.to_json())["claims"] == {"triggered_by": "alice"}
    assert "alice" not in json.dumps(json.loads(event.to_json())["run"])


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"phase": "intent", "outcome": "done"}, id="intent-with-outcome"),
        pytest.param({"phase": "outcome"}, id="outcome-without"),
        pytest.param({"phase": "end"}, id="end-without-count"),
        pytest.param({"phase": "end", "count": 0}, id="end-of-nothing"),
        pytest.param({"phase": "intent", "count": 1}, id="count-without-end"),
        pytest.param({"phase": "intent", "claims": {"password": "x"}}, id="free-claim"),
        pytest.param({"phase": "intent", "claims": {"triggered_by": 1}}, id="claim-of-another-type"),
        pytest.param({"phase": "intent", "vouch": {"key": "k"}}, id="half-a-vouch"),
        pytest.param({"phase": "intent", "after": "0"}, id="short-writer"),
        pytest.param({"phase": "intent", "details": "sha256:0"}, id="short-digest"),
        pytest.param({"phase": "intent", "codes": ("x" * 257,)}, id="long-code"),
    ],
)
def test_members_that_do_not_go_together(members: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AuditEvent("sign", run=RUN, artifact="x", **members)


@pytest.mark.parametrize("member", [*FORMS, *TEXTS])
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


def test_the_whole_event_is_bounded_and_fits_into_an_entry() -> None:
    fits = AuditEvent("sign", "intent", RUN, "\u20ac" * 4096)
    assert len(fits.to_json()) <= MAX_EVENT
    run = RunIdentity("airflow", "w" * 30_000, "t", "r")
    with pytest.raises(UsageError, match=str(MAX_EVENT)):
        AuditEvent("sign", "intent", run, "x").to_json()
    longest = b'{"a":"' + b"x" * (MAX_EVENT - 8) + b'"}'
    assert Chain().add(longest).event == longest


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(UsageError, match="surrogate"):
        AuditEvent("sign", "intent", RUN, "\udc80").to_json()


def test_control_characters_stay_inside_the_line() -> None:
    data = AuditEvent("sign", "intent", RUN, "a\nb\x1b[2J\u2028").to_json()
    assert b"\n" not in data
    assert b"\x1b" not in data
    assert json.loads(data)["artifact"] == "a\nb\x1b[2J\u2028"


# --- Reading back ---

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAME = TEXT.filter(bool)
RUNS = st.builds(
    RunIdentity,
    st.sampled_from(["airflow", "kfp", "python", "cli"]),
    TEXT,
    TEXT,
    TEXT,
    st.none() | st.integers(0, 9999),
    st.none() | st.integers(1, 99),
    TEXT,
    TEXT,
    TEXT,
)
HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
PHASES = st.one_of(
    st.just({"phase": "intent"}),
    st.builds(lambda outcome: {"phase": "outcome", "outcome": outcome}, st.sampled_from(["done", "failed", "error"])),
    st.builds(lambda count: {"phase": "end", "count": count}, st.integers(1, 10**9)),
)
EVENTS = st.builds(
    lambda phase, listed, members: AuditEvent(**phase, **listed, **members),
    PHASES,
    st.fixed_dictionaries({name: st.lists(NAME, max_size=105).map(tuple) for name in ("codes", "signers")}),
    st.fixed_dictionaries(
        {
            "action": st.sampled_from(["sign", "check_lineage", "policy-sign"]),
            "run": RUNS,
            **dict.fromkeys(TEXTS, TEXT),
            "claims": st.just({}) | st.builds(lambda who: {"triggered_by": who}, NAME),
            "vouch": st.just({}) | st.builds(lambda key, text: {"key": key, "signature": text}, NAME, NAME),
            "details": st.just("") | HEX.map("sha256:".__add__),
            "after": st.just("") | HEX,
        }
    ),
)


@pytest.mark.slow
@given(EVENTS)
def test_what_is_read_back_is_what_was_written(event: AuditEvent) -> None:
    data = event.to_json()
    assert AuditEvent.parse(data) == event
    assert strictjson.dumps(json.loads(data)) == data
    assert Chain().add(data).event == data
    jsonschema.validate(json.loads(data), json.loads(SCHEMA.read_text(encoding="utf-8")))


GOOD = AuditEvent("verify", "outcome", RUN, "x", outcome="failed", codes=("A",), claims={"triggered_by": "me"})


def changed(**members: Any) -> bytes:
    body = {**GOOD.as_dict(), **members}
    return strictjson.dumps({name: value for name, value in body.items() if value is not None})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="a-list"),
        pytest.param(b"null", id="null"),
        pytest.param(GOOD.to_json() + b"\n", id="line-end"),
        pytest.param(b" " + GOOD.to_json(), id="white-space"),
        pytest.param(json.dumps(GOOD.as_dict()).encode(), id="not-canonical"),
        pytest.param(GOOD.to_json().replace(b'"verify"', b'"v\\u0065rify"'), id="escaped-without-need"),
        pytest.param(GOOD.to_json().replace(b"{", b'{"action":"sign",', 1), id="member-twice"),
        pytest.param(changed(sealflow_audit=2), id="another-version"),
        pytest.param(changed(sealflow_audit=True), id="true-is-not-1"),
        pytest.param(changed(sealflow_audit=None), id="no-version"),
        pytest.param(changed(secret="x"), id="unknown-member"),
        pytest.param(changed(claims={"triggered_by": "me", "password": "x"}), id="unknown-claim"),
        pytest.param(changed(run={**GOOD.as_dict()["run"], "more": "x"}), id="unknown-member-of-the-run"),
        pytest.param(changed(run={**GOOD.as_dict()["run"], "producer": "airflow:other/task"}), id="a-derived-lie"),
        pytest.param(changed(run={**GOOD.as_dict()["run"], "attempt": "1"}), id="text-for-a-number"),
        pytest.param(changed(run={**GOOD.as_dict()["run"], "orchestrator": "cron"}), id="unknown-orchestrator"),
        pytest.param(changed(run=None), id="no-run"),
        pytest.param(changed(policy=""), id="an-empty-member"),
        pytest.param(changed(codes=[]), id="an-empty-list"),
        pytest.param(changed(codes="A"), id="text-for-a-list"),
        pytest.param(changed(codes=[str(n) for n in range(101)]), id="long-list"),
        pytest.param(changed(outcome=None), id="outcome-without-outcome"),
        pytest.param(changed(count=3), id="count-without-end"),
        pytest.param(changed(artifact="x" * 4097), id="long-text"),
        pytest.param(changed(time="2026-99-99T00:00:00.000000+00:00"), id="no-time"),
        pytest.param(changed(time="2026-01-01T00:00:00Z"), id="another-form-of-time"),
        pytest.param(changed(id="x"), id="no-id"),
        pytest.param(GOOD.to_json().replace(b'"me"', b'"\\ud800"'), id="half-a-surrogate-pair"),
        pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40, id="deep"),
        pytest.param(b'{"a":"' + b"x" * MAX_EVENT + b'"}', id="too-large"),
    ],
)
def test_what_is_no_event_is_refused(data: bytes) -> None:
    assert AuditEvent.parse(GOOD.to_json()) == GOOD
    with pytest.raises(EvidenceError) as caught:
        AuditEvent.parse(data)
    assert caught.value.code == "AUDIT_MALFORMED"


def test_the_model_reads_what_is_written() -> None:
    written = {*AuditEvent.__dataclass_fields__, "sealflow_audit"}
    assert set(EventModel.model_fields) == written


def test_the_published_schema_is_that_of_the_code() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_audit_docs.py"))
    assert SCHEMA.read_text(encoding="utf-8") == script["schema"](), "run scripts/make_audit_docs.py"
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text(encoding="utf-8")))
