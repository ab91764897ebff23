"""A whole Airflow with the pages in its API server: what tasks record, who may look at it, and Airflow's own UI."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from sealflow.actions.audit_integrate import integrate_audit_log
from sealflow.actions.audit_prove import check_proof
from sealflow.audit.note import VerifierKey
from tests.airflow.home import AirflowHome, unused_port
from tests.airflow.standalone import STANDALONE, Standalone, standalone, until
from tests.airflow.test_guard_runs import Guarded
from tests.airflow.test_ui import text_of
from tests.airflow.ui_browser import BEHIND, PACKAGE, Look, browse
from tests.core.audit.logs import ORIGIN, ed25519_signer
from tests.pki import write_key

pytestmark = STANDALONE

DAGS = Path(__file__).parent / "guard_chain"
PASSWORDS = {"root": "of the admin", "guest": "of a viewer"}


class Shown(Guarded):
    """A running Airflow with the pages."""

    running: Standalone
    token: str
    env: dict[str, str]

    def integrate(self) -> None:
        """Bring what was recorded into the log."""
        integrate_audit_log(
            f"sqlite:{self.folder}/inbox.db",
            str(self.folder / "log"),
            signer=ed25519_signer(self.folder),
            origin=ORIGIN,
        )

    def ask(self, path: str, token: str | None = None, **headers: str) -> tuple[int, bytes]:
        """Ask the API server as a browser does."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.running.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def page(self, path: str) -> str:
        """Return a page as a user sees it who is signed in."""
        status, body = self.ask(path, self.token)
        assert status == 200, body
        return body.decode()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("ui-standalone")
    home = AirflowHome(folder, write_key(folder, "signing"))
    home.add_dags(DAGS)
    made = Shown(home, "shown")
    key = VerifierKey.of(ed25519_signer(made.folder), ORIGIN)
    (made.folder / "log.vkey").write_text(f"{key}\n")
    environment = made.environment(
        AIRFLOW__CORE__DAGS_FOLDER=str(home.dags),
        AIRFLOW__SEALFLOW__AUDIT_INBOX=f"sqlite:{made.folder}/inbox.db",
        AIRFLOW__SEALFLOW__AUDIT_LOG=str(made.folder / "log"),
        AIRFLOW__SEALFLOW__AUDIT_LOG_KEY=str(made.folder / "log.vkey"),
    )
    (folder / "passwords.json").write_text(json.dumps(PASSWORDS))
    made.env = {
        **environment,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "root:admin,guest:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
    }
    with standalone(home, made.env, PASSWORDS) as made.running:
        number = (DAGS / "chain.py").read_text().count("@dag(")
        until(lambda: home.rows("SELECT count(*) FROM dag")[0][0] == number or None, 120, "the DAGs")
        made.token = made.running.token("guest")
        first = made.running.trigger("chain_make")
        assert made.running.finished("chain_make", first) == {"make": ("success", 1)}, made.running.log("chain_make")
        for dag in ("chain_use", "chain_late"):
            made.running.started(dag)
            made.running.finished(dag)
        made.integrate()
        yield made


def evidence(shown: Shown, dag: str, task: str = "") -> str:
    """Return the address of a tab as Airflow's UI fills it in."""
    from sealflow_airflow.ui import EXTERNAL_VIEWS

    run = shown.running.runs(dag)[0]
    destination = "task_instance" if task else "dag_run"
    (href,) = (item["href"] for item in EXTERNAL_VIEWS if item["destination"] == destination)
    for name, value in (("DAG_ID", dag), ("RUN_ID", run), ("TASK_ID", task)):
        href = href.replace(f"{{{name}}}", quote(value, safe=""))
    return f"/{href}"


def settled(shown: Shown, path: str, text: str) -> str:
    """Ask for a page until the index has what it should show."""

    def there() -> str | None:
        page = shown.page(path)
        return page if text in text_of(page) else None

    found: str = until(there, 60, f"{text} at {path}")
    return found


@pytest.mark.parametrize(
    "path",
    ["trust", "verdicts", "dags", "evidence?dag_id=chain_make&run_id=x", "proof?index=0", "docs", "openapi.json"],
)
def test_without_a_session_there_is_nothing(shown: Shown, path: str) -> None:
    assert shown.ask(f"/sealflow/{path}")[0] == 401
    assert shown.ask(f"/sealflow/{path}", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.")[0] == 401


def test_airflow_lists_the_views_and_a_browsers_cookie_opens_them(shown: Shown) -> None:
    plugins = shown.running.call("GET", "/api/v2/plugins")["plugins"]
    (views,) = (plugin["external_views"] for plugin in plugins if plugin["name"] == "sealflow")
    assert [view["destination"] for view in views] == ["nav", "dag_run", "task_instance"]
    assert shown.ask("/sealflow/trust", Cookie=f"_token={shown.token}")[0] == 200


def test_what_tasks_recorded_is_on_the_tab_of_their_run(shown: Shown) -> None:
    made = text_of(settled(shown, evidence(shown, "chain_make", "make"), "went out signed"))
    assert "All that this task recorded holds: 0 artifacts came in verified, 1 went out signed." in made
    assert f"{shown.folder}/models/model" in made
    used = text_of(settled(shown, evidence(shown, "chain_use"), "came in verified"))
    assert "airflow:chain_make/make" in used
    assert "signed by trainer" in used


def test_a_refusal_is_told_with_the_next_step(shown: Shown) -> None:
    page = text_of(settled(shown, evidence(shown, "chain_late", "use"), "refused"))
    assert "use may not use file://" in page
    assert "FILE_CHANGED" in page
    assert "Next step: Ask the producer to sign the artifact again" in page


def test_the_proof_holds_without_airflow(shown: Shown, tmp_path: Path) -> None:
    page = settled(shown, evidence(shown, "chain_make", "make"), "Proof")
    index = re.search(r'href="(proof\?index=\d+)"', page)
    assert index is not None
    (tmp_path / "proof").write_bytes(shown.ask(f"/sealflow/{index[1]}", shown.token)[1])
    verdict, event = check_proof(str(tmp_path / "proof"), str(shown.folder / "log.vkey"))
    assert verdict.passed
    assert event["run"]["workflow"] == "chain_make"


def test_guarded_dags_are_told_apart(shown: Shown) -> None:
    page = text_of(settled(shown, "/sealflow/dags", "page 1 of"))
    assert re.search(r"chain_make ✓ guarded Rules name file://", page)
    assert "In force: version 1." in text_of(shown.page("/sealflow/trust"))


@pytest.fixture
def api_server(shown: Shown) -> Iterator[int]:
    """A second API server of the same Airflow, which signs everybody in: a browser cannot type a password here."""
    port = unused_port()
    settings = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}{BEHIND}",
        "AIRFLOW__API__WORKERS": "1",
    }
    command = [shown.home.python, "-m", "airflow", "api-server", "--host", "127.0.0.1", "--port", str(port)]
    env = shown.home.environment(**{**shown.env, **settings})
    with (shown.folder / "api-server.log").open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output, start_new_session=True)

        def answers() -> bool | None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{BEHIND}/api/v2/version", timeout=5):
                    return True
            except OSError:
                assert process.poll() is None, (shown.folder / "api-server.log").read_text()[-3000:]
                return None

        try:
            until(answers, 120, "the API server")
            yield port
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def test_airflows_own_ui_shows_the_tab_behind_a_prefix(
    shown: Shown, api_server: int, need_program: Callable[[str, str, str], None]
) -> None:
    need_program("chromium", PACKAGE, "the pages were not seen in Airflow's own UI")
    run = quote(shown.running.runs("chain_late")[0], safe="")
    to = quote(f"{BEHIND}/dags/chain_late/runs/{run}/tasks/use/plugin/evidence_of_task", safe="")
    address = f"http://127.0.0.1:{api_server}{BEHIND}/auth/token/login?next={to}"
    document, console = browse(address, Look(1400, 1000), patience=30)
    frames = re.findall(r"<iframe[^>]*>", document)
    assert any("sealflow/evidence?dag_id=chain_late" in frame for frame in frames), (document[-2000:], console)
    assert "violates the following Content Security Policy" not in console
