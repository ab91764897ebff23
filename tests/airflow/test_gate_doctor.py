"""What the doctor says of the gate and of the notary's key."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sealflow_airflow.doctor import server
from tests.airflow.home import unused_port
from tests.pki import write_key

pytestmark = pytest.mark.airflow


@pytest.fixture(autouse=True)
def _options(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GATE", "GATE_ACCESS_AUDIT", "NOTARY_SIGNER", "NOTARY_MODE"):
        monkeypatch.delenv(f"AIRFLOW__SEALFLOW__{name}", raising=False)


def states(check: Any) -> list[tuple[str, str]]:
    lines = list(check)
    assert all(line.next_step or line.state in ("ok", "note") for line in lines)
    return [(line.state, line.found) for line in lines]


class Answers(HTTPServer):
    """Answers every request in one way, and keeps what it was asked."""

    def __init__(self, status: int, body: bytes) -> None:
        asked: list[tuple[str, str, Any]] = []
        self.asked = asked

        class Handler(BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                asked.append((self.command, self.path, self.headers.get("Authorization")))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/execution/"


@pytest.fixture
def answers() -> Iterator[Any]:
    made: list[Answers] = []

    def make(status: int, body: bytes) -> Answers:
        made.append(Answers(status, body))
        return made[-1]

    yield make
    for item in made:
        item.shutdown()
        item.server_close()


def test_gate_that_is_off_is_said() -> None:
    assert states(server.gate({})) == [("note", "off: what a task reports is not checked in the API server")]


def test_misspelled_mode_is_a_fault_and_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow_airflow.gate.settings import read_settings

    monkeypatch.setenv("AIRFLOW__SEALFLOW__GATE", "enforced")
    monkeypatch.setattr(server, "_asked", lambda url: server.Line("gate", "ok", "x", "y"))
    assert read_settings().mode == "enforce"
    assert states(server.gate({}))[0] == ("fault", "gate is none of off, audit, enforce and counts as enforce")


def test_gate_that_answers_is_seen_and_nothing_is_told_to_it(answers: Any) -> None:
    ours = json.dumps({"detail": {"reason": "sealflow", "code": "TOKEN_REFUSED"}}).encode()
    there = answers(403, ours)
    line = server._asked(there.url)
    assert (line.state, line.found) == ("ok", f"it answers at {there.url}")
    assert there.asked == [("PATCH", f"/execution/task-instances/{server._NOBODY}/state", None)]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(401, b'{"detail": "Missing auth token"}', id="airflow-alone"),
        pytest.param(403, b'{"detail": {"reason": "other"}}', id="another-gate"),
        pytest.param(204, b"", id="who-takes-anything"),
        pytest.param(502, b"<html>", id="a-proxy"),
    ],
)
def test_split_without_the_gate_is_a_fault_that_says_what_to_do(answers: Any, status: int, body: bytes) -> None:
    line = server._asked(answers(status, body).url)
    assert line.state == "fault"
    assert "execution_app:create" in line.next_step


def test_nobody_there_is_unknown() -> None:
    assert server._asked(f"http://127.0.0.1:{unused_port()}/execution/").state == "unknown"
    assert server._asked("file:///etc/passwd").state == "unknown"


def test_plugin_that_airflow_did_not_load_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow import plugins_manager

    monkeypatch.setattr(plugins_manager, "get_fastapi_plugins", lambda: ([], []))
    monkeypatch.setattr(plugins_manager, "get_import_errors", lambda: {"sealflow": "ImportError: no"})
    line = server._loaded()
    assert (line.state, "ImportError: no" in line.found) == ("fault", True)


def test_release_that_was_not_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import airflow

    assert server._known_release().state == "ok"
    monkeypatch.setattr(airflow, "__version__", "3.99.0")
    assert server._known_release().state == "warning"


def test_where_workers_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", raising=False)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://host/airflow")
    assert server.execution_url() == "https://host/airflow/execution/"
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://apart:9091/execution/")
    assert server.execution_url() == "http://apart:9091/execution/"


def test_notarys_key_is_right_in_the_api_server_and_wrong_where_tasks_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert states(server.notary({})) == [("note", "none is named here")]
    key = write_key(tmp_path, "notary")
    monkeypatch.setenv("AIRFLOW__SEALFLOW__NOTARY_SIGNER", key.signer)
    assert [state for state, _ in states(server.notary({}))] == ["ok"]
    ((state, found),) = states(server.notary({}, worker=True))
    assert (state, "can be opened" in found) == ("fault", True)
    key.private.unlink()
    assert [state for state, _ in states(server.notary({}))] == ["fault"]
    assert [state for state, _ in states(server.notary({}, worker=True))] == ["ok"]
