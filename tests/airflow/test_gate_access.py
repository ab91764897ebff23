"""Who read which connection, variable and XCom: before Airflow's own API, and where too much comes at once."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sealflow.actions.context import Settings
from sealflow.run_identity import RunIdentity
from sealflow_airflow.gate.access import Access, AccessAudit
from tests.airflow.gate_world import World, airflow_database, world
from tests.audit_events import read_events

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(120)]
__all__ = ["airflow_database", "world"]

ACTIONS = ("connection-read", "variable-read", "xcom-read")


@pytest.mark.parametrize(
    ("method", "path", "action", "artifact"),
    [
        ("GET", "/execution/connections/aws", "connection-read", "airflow:connection/aws"),
        ("GET", "/af/execution/connections/a%20b", "connection-read", "airflow:connection/a%2520b"),
        ("GET", "/execution/connection-tests/7/connection", "connection-read", "airflow:connection-test/7"),
        ("GET", "/execution/variables/a/b c", "variable-read", "airflow:variable/a%2Fb%20c"),
        ("GET", "/execution/variables/keys", "variable-read", "airflow:variable/"),
        ("GET", "/execution/xcoms/d/r/t/return_value", "xcom-read", "airflow:xcom/d/r/t/return_value"),
        ("HEAD", "/execution/xcoms/d/r/t/k", "xcom-read", "airflow:xcom/d/r/t/k"),
        ("GET", "/execution/xcoms/d/r/t/k/item/3", "xcom-read", "airflow:xcom/d/r/t/k"),
        ("GET", "/execution/xcoms/d/r/t/k/l/slice", "xcom-read", "airflow:xcom/d/r/t/k%2Fl"),
        ("GET", "/execution/variables/x\r\ny\n", "variable-read", "airflow:variable/x%0D%0Ay%0A"),
    ],
)
def test_what_a_path_reads(method: str, path: str, action: str, artifact: str) -> None:
    assert AccessAudit.of(method, path) == Access(action, artifact)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/execution/variables/a"),
        ("GET", "/execution/dags/a"),
        ("PATCH", "/execution/connection-tests/7"),
        ("GET", "/api/v2/connections/a"),
        ("POST", "/execution/xcoms/d/r/t/k"),
        ("GET", "/execution/xcoms/d/r/t"),
    ],
)
def test_other_requests_are_not_recorded(method: str, path: str) -> None:
    assert AccessAudit.of(method, path) is None


def test_reads_over_the_execution_api_are_recorded_by_task(world: World) -> None:
    from airflow.models import Connection, Variable
    from airflow.utils.session import create_session

    world.store(mapped=[], other=[])
    tasks = world.start()
    reader = tasks["mapped[1]"]
    with create_session(scoped=False) as session:
        session.merge(Connection(conn_id=f"{world.dag_id}_db", conn_type="http", password="tops3cret"))
        session.merge(Variable(key=f"{world.dag_id}_key", val="hidden value"))
    with world.server("off", access_audit=True) as client:
        headers = world.headers(reader)
        assert client.get(f"/execution/connections/{world.dag_id}_db", headers=headers).status_code == 200
        assert client.get(f"/execution/variables/{world.dag_id}_key", headers=headers).status_code == 200
        assert client.get("/execution/variables/missing", headers=headers).status_code == 404
        assert client.get("/execution/xcoms/a/b/c/d", headers=headers).status_code == 404
        assert client.get("/execution/connections/aws", headers={"Authorization": "Bearer x.y.z"}).status_code == 403
        assert client.get("/execution/connections/aws").status_code in (401, 403)
        assert world.gate._accesses.settle()
    events = [event for event in read_events(world.spool) if event["action"] in ACTIONS]
    assert [(event["action"], event["artifact"], event["outcome"]) for event in events] == [
        ("connection-read", f"airflow:connection/{world.dag_id}_db", "done"),
        ("variable-read", f"airflow:variable/{world.dag_id}_key", "done"),
        ("variable-read", "airflow:variable/missing", "failed"),
        ("xcom-read", "airflow:xcom/a/b/c/d", "failed"),
    ]
    for event in events:
        run = event["run"]
        assert (run["workflow"], run["task"], run["run"], run["map_index"], run["instance"]) == (
            world.dag_id,
            "mapped",
            "run-1",
            1,
            reader.instance,
        )
    for path in world.spool.rglob("*"):
        if path.is_file():
            assert b"tops3cret" not in path.read_bytes()
            assert b"hidden value" not in path.read_bytes()


def test_chain_of_a_task_is_complete_while_the_server_runs(world: World) -> None:
    """So a server that is killed leaves no gap that looks like a task's."""
    world.store(fit=[])
    fit = world.start()["fit"]
    with world.server("off", access_audit=True) as client:
        client.get("/execution/variables/missing", headers=world.headers(fit))
        assert world.gate._accesses.settle()
        found = read_events(world.spool, ends=True)
    assert [event["phase"] for event in found] == ["outcome", "end"]


ID = uuid.uuid4()
SCOPE = {"ti_token": SimpleNamespace(id=ID)}
READ = Access("variable-read", "airflow:variable/a")


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Any]:
    made: list[AccessAudit] = []

    def make(most: int = 10, spool: str = "spool") -> AccessAudit:
        settings = Settings(audit_spool=str(tmp_path / spool))
        made.append(
            AccessAudit(
                lambda ids: {item: RunIdentity("airflow", "d", "t", "r") for item in ids}, lambda: settings, most
            )
        )
        return made[-1]

    yield make
    for item in made:
        item.close(1)


def stopped(made: AccessAudit, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let nothing be taken out of the queue; return what starts it."""
    begin = made._begin
    monkeypatch.setattr(made, "_begin", lambda: setattr(made, "_pid", os.getpid()))

    def start() -> None:
        waiting, gaps = made._waiting, made._gaps
        with made._wake:
            begin()
            made._waiting, made._gaps = waiting, gaps
            made._wake.notify()

    return start


def test_flood_is_counted_and_recorded_as_a_gap(audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = audit(most=5)
    start = stopped(made, monkeypatch)
    for _ in range(12):
        made.record(READ, 200, SCOPE)
    start()
    assert made.settle()
    events = read_events(tmp_path / "spool")
    (gap,) = [event for event in events if event["action"] == "access-gap"]
    assert gap["codes"] == ["ACCESS_DROPPED"]
    assert gap["artifact"].startswith("airflow:access/?missing=7&from=20")
    assert gap["run"]["producer"] == "airflow:d/t"
    assert sum(event["action"] == "variable-read" for event in events) == 5


def test_task_that_floods_blinds_nobody_but_itself(audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = audit(most=10)
    start = stopped(made, monkeypatch)
    quiet = uuid.uuid4()
    for _ in range(50):
        made.record(READ, 404, SCOPE)
    made.record(Access("connection-read", "airflow:connection/prod"), 200, {"ti_token": SimpleNamespace(id=quiet)})
    for _ in range(50):
        made.record(READ, 404, SCOPE)
    monkeypatch.setattr(
        made, "_identify", lambda ids: {item: RunIdentity("airflow", str(item), "t", "r") for item in ids}
    )
    start()
    assert made.settle()
    events = read_events(tmp_path / "spool")
    assert [event["run"]["workflow"] for event in events if event["action"] == "connection-read"] == [str(quiet)]
    assert {event["run"]["workflow"] for event in events if event["action"] == "access-gap"} == {str(ID)}


def test_events_wait_for_a_log_that_is_away_and_none_is_lost(
    audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealflow_airflow.gate.access._WAIT", 0.05)
    spool = tmp_path / "spool"
    spool.write_text("in the way")
    made = audit()
    for _ in range(3):
        made.record(READ, 200, SCOPE)
    assert not made.settle(0.3)
    spool.unlink()
    assert made.settle()
    assert sum(event["action"] == "variable-read" for event in read_events(spool)) == 3


def test_process_that_ends_makes_durable_what_waits(audit: Any, tmp_path: Path) -> None:
    made = audit()
    made.record(READ, 200, SCOPE)
    made.close()
    assert sum(event["action"] == "variable-read" for event in read_events(tmp_path / "spool")) == 1


def test_recording_waits_for_nothing(audit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = audit(most=10_000)
    monkeypatch.setattr(made, "_write", lambda *_: time.sleep(10))
    start = time.perf_counter()
    for _ in range(1000):
        made.record(READ, 200, SCOPE)
    # Less than the time of one writing, however busy the machine is.
    assert time.perf_counter() - start < 9


def test_read_of_somebody_unknown_that_was_answered_is_recorded_without_a_name(audit: Any, tmp_path: Path) -> None:
    """A release of Airflow that keeps the token elsewhere must not silence the audit."""
    made = audit()
    made.record(READ, 200, {})
    made.record(READ, 403, {})
    assert made.settle()
    events = [event for event in read_events(tmp_path / "spool") if event["phase"] == "outcome"]
    assert [(event["action"], event["run"]["producer"]) for event in events] == [("variable-read", "airflow")]


def test_personal_members_go_into_a_payload(tmp_path: Path) -> None:
    settings = Settings(audit_spool=str(tmp_path / "spool"), audit_personal="artifact,host")
    made = AccessAudit(lambda ids: {}, lambda: settings)
    made.record(READ, 200, SCOPE)
    assert made.settle()
    made.close(1)
    (event,) = [event for event in read_events(tmp_path / "spool") if event["phase"] == "outcome"]
    assert "artifact" not in event
    assert event["details"].startswith("sha256:")
    assert event["run"]["instance"] == str(ID)


def test_review_counts_what_tasks_read(audit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who touched what is asked of the log, with the tool that is there for it."""
    from tests.audit_events import entries
    from tests.core.actions.access_log import made, review

    recorder = audit()
    # In one chain, so that the log has them in their order.
    start = stopped(recorder, monkeypatch)
    secret = Access("connection-read", "airflow:connection/warehouse")
    recorder.record(secret, 403, SCOPE)
    recorder.record(secret, 200, SCOPE)
    recorder.record(READ, 200, SCOPE)
    start()
    assert recorder.settle()
    recorder.close()
    log = made(tmp_path / "log", [entry.line for entry in entries(tmp_path / "spool")])
    reviewed = review(log, since="2000-01-01", until="2100-01-01")
    accesses = {item["artifact"]: item for item in reviewed.report["accesses"]}
    assert accesses["airflow:connection/warehouse"]["accesses"] == 2
    assert accesses["airflow:connection/warehouse"]["actions"] == {"connection-read": 2}
    assert accesses["airflow:variable/a"]["principal"] == "airflow:d/t"
    codes = {item["code"] for item in reviewed.report["findings"]}
    assert "DENIED_THEN_ALLOWED" in codes
    assert not codes & {"AUDIT_GAP", "AUDIT_MALFORMED"}
