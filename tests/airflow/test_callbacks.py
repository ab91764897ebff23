"""Callbacks: on a refusal, and on nothing else, the DAG is paused, somebody is told, a finding is written."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.respond_refusal import Refusal
from sealflow.errors import UnavailableError, VerificationError
from sealflow.findings import Finding, Verdict
from sealflow_airflow.callbacks import OnRefusal
from tests.audit_events import read_events

pytestmark = pytest.mark.airflow

SECRET = "hunter2-callback-password"
TOKEN = "token-5f1c"


class Api:
    """Airflow's public API, as far as a callback sees it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.paused: dict[str, bool] = {}
        self.status = 200
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.seen.append(("POST", self.path, ""))
                good = body == {"username": "responder", "password": SECRET}
                self.answer(201 if good else 401, {"access_token": TOKEN} if good else {})

            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.seen.append(("PATCH", self.path, self.headers["Authorization"]))
                if api.status == 200:
                    api.paused[self.path.partition("?")[0].rpartition("/")[2]] = body["is_paused"]
                self.answer(api.status, {"is_paused": body["is_paused"]})

            def answer(self, status: int, body: Any) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return self.server.server_address[1]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    made = Api()
    connection = {
        "conn_type": "http",
        "schema": "http",
        "host": "127.0.0.1",
        "port": made.port,
        "login": "responder",
        "password": SECRET,
    }
    monkeypatch.setenv("AIRFLOW_CONN_AIRFLOW_API", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_TOKEN_API", json.dumps({**connection, "login": None, "password": TOKEN}))
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


@pytest.fixture(autouse=True)
def _spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_SPOOL", str(tmp_path / "spool"))


@pytest.fixture
def task_context(context: dict[str, Any]) -> Any:
    return lambda: context


def refused() -> BaseException:
    finding = Finding("KEY_REVOKED", "refusal", "s3://m", "The key is revoked.")
    return VerificationError(Verdict("failed", "s3://m", findings=(finding,)))


def failure(task_context: Any, error: Any) -> Any:
    return {**task_context(), "exception": error}


def notes(text: str, told: list[str]) -> Any:
    """A notifier of a user's choice."""
    # Seconds to import, which a run of the quick tests need not wait for.
    from airflow.sdk import BaseNotifier

    class Notes(BaseNotifier):
        template_fields = ("text",)

        def __init__(self) -> None:
            super().__init__()
            self.text = text

        def notify(self, context: Any) -> None:
            told.append(self.text)

    return Notes()


@pytest.mark.parametrize("conn_id", ["airflow_api", "token_api"])
def test_a_refusal_pauses_tells_and_reports(api: Api, task_context: Any, tmp_path: Path, conn_id: str) -> None:
    told: list[str] = []
    seen: list[Refusal] = []
    callback = OnRefusal(
        pause_conn_id=conn_id,
        notifiers=[
            notes("{{ sealflow_refusal.codes[0] }} in {{ ti.dag_id }}", told),
            lambda context: seen.append(context["sealflow_refusal"]),
        ],
        ocsf=str(tmp_path / "siem"),
    )
    context = failure(task_context, refused())
    callback(context)
    callback(context)
    assert api.paused == {context["ti"].dag_id: True}
    assert {token for method, _, token in api.seen if method == "PATCH"} == {f"Bearer {TOKEN}"}
    assert told == [f"KEY_REVOKED in {context['ti'].dag_id}"] * 2
    assert seen[0].codes == ("KEY_REVOKED",)
    (path,) = (tmp_path / "siem").iterdir()
    assert json.loads(path.read_bytes())["class_uid"] == 2004
    events = read_events(tmp_path / "spool")
    assert [item["action"] for item in events if item["phase"] == "intent"] == ["pause", "report-refusal"] * 2
    assert events[0]["artifact"] == f"airflow:{context['ti'].dag_id}"
    assert SECRET not in json.dumps(events)


@pytest.mark.parametrize(
    "error",
    [
        None,
        "a text",
        ValueError("a bug"),
        UnavailableError("The store is down."),
        VerificationError(Verdict("unverifiable", "s3://m")),
    ],
    ids=repr,
)
def test_other_failures_are_left_alone(api: Api, task_context: Any, tmp_path: Path, error: Any) -> None:
    told: list[str] = []
    callback = OnRefusal(pause_conn_id="airflow_api", notifiers=notes("x", told), ocsf=str(tmp_path / "siem"))
    callback(failure(task_context, error))
    assert (api.seen, told) == ([], [])
    assert not (tmp_path / "siem").exists()


@pytest.mark.parametrize("status", [401, 403, 404, 500, 302])
def test_an_api_that_refuses_keeps_nothing_else_from_being_done(
    api: Api, task_context: Any, tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    api.status = status
    told: list[str] = []
    callback = OnRefusal(pause_conn_id="airflow_api", notifiers=[notes("x", told)], ocsf=str(tmp_path / "siem"))
    callback(failure(task_context, refused()))
    assert told == ["x"]
    assert len(list((tmp_path / "siem").iterdir())) == 1
    outcomes = {item["action"]: item["outcome"] for item in read_events(tmp_path / "spool") if "outcome" in item}
    assert outcomes == {"pause": "error", "report-refusal": "done"}
    assert SECRET not in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("broken", ["nothing_there", "no connection"])
def test_no_way_to_the_api(task_context: Any, tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.airflow.home import unused_port

    if broken == "nothing_there":
        connection = {
            "conn_type": "http",
            "schema": "http",
            "host": "127.0.0.1",
            "port": unused_port(),
            "password": TOKEN,
        }
        monkeypatch.setenv("AIRFLOW_CONN_NOTHING_THERE", json.dumps(connection))
    told: list[str] = []
    OnRefusal(pause_conn_id=broken.replace(" ", "_"), notifiers=[notes("x", told)])(failure(task_context, refused()))
    assert told == ["x"]


def test_a_notifier_that_breaks_keeps_no_other_from_being_told(task_context: Any) -> None:
    told: list[str] = []

    def breaking(_: Any) -> None:
        raise RuntimeError("no chat")

    OnRefusal(notifiers=[breaking, notes("x", told)])(failure(task_context, refused()))
    assert told == ["x"]


def test_nothing_is_done_unless_asked_for(api: Api, task_context: Any) -> None:
    OnRefusal()(failure(task_context, refused()))
    assert api.seen == []


def test_what_a_task_wraps(task_context: Any) -> None:
    """An operator turns refusals into Airflow's own exception, and hides the first one from the reader."""
    from airflow.sdk.exceptions import AirflowFailException

    from sealflow_airflow.outcome import airflow_errors

    seen: list[Any] = []
    callback = OnRefusal(notifiers=[lambda context: seen.append(context["sealflow_refusal"].codes)])
    for error in (refused(), sealflow.SealflowError("x")):
        try:
            with airflow_errors():
                raise error
        except AirflowFailException as failed:
            callback(failure(task_context, failed))
    assert seen == [("KEY_REVOKED",)]
