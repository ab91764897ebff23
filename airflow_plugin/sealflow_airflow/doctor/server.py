"""What stands in the API server: the gate, asked over the network, and the notary's key, which no worker may have."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from sealflow import strictjson
from sealflow.errors import EvidenceError, SealflowError
from sealflow.findings import printable
from sealflow_airflow.doctor.report import Line

#: A task that is none: nothing becomes of what is asked about it, and Airflow refuses it without a token in any case.
_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
_TIMEOUT: Final = 5
_MAX_ANSWER: Final = 64 << 10


def gate(same: dict[str, str]) -> Iterator[Line]:
    """Say whether the gate is configured, loaded here, knows this Airflow, and stands where workers report."""
    from sealflow_airflow.gate.settings import read_settings

    settings = read_settings()
    if settings.problem:
        yield Line("gate", "fault", "options that can be read", settings.problem, "Correct [sealflow] in this process.")
    if not settings.needed:
        found = "off: what a task reports is not checked in the API server"
        yield Line("gate", "note", "off, or a gate where workers report", found)
        return
    yield _loaded()
    if settings.mode == "off":
        yield Line("gate", "note", "off, audit or enforce", "off; reads are recorded")
        return
    yield _known_release()
    if settings.mode == "audit":
        yield Line("gate", "warning", "enforce", "audit: what would be refused is only recorded", "Set gate = enforce.")
    yield _asked(execution_url())


def _loaded() -> Line:
    from airflow.plugins_manager import get_fastapi_plugins, get_import_errors

    expected = "our middleware among those of Airflow's plugins"
    found = [item for item in get_fastapi_plugins()[1] if item.get("name") == "sealflow gate"]
    if found:
        return Line("gate", "ok", expected, "there")
    errors = "; ".join(f"{name}: {text}" for name, text in get_import_errors().items())
    hint = "Install sealflow anew, in this environment, and restart the API server: Airflow runs on without a plugin."
    return Line("gate", "fault", expected, f"it is not there. {printable(errors, 500)}".strip(), hint)


def _known_release() -> Line:
    import airflow

    from sealflow_airflow.gate.messages import KNOWN_RELEASES

    release = ".".join(airflow.__version__.split(".")[:2])
    expected = f"a release whose messages the gate knows: {', '.join(sorted(KNOWN_RELEASES))}"
    if release in KNOWN_RELEASES:
        return Line("gate", "ok", expected, release)
    hint = "Update sealflow. Until then a message of another form is refused where something managed is concerned."
    return Line("gate", "warning", expected, release, hint)


def execution_url() -> str:
    """Return where workers report, as Airflow's configuration says."""
    from airflow.configuration import conf

    own = conf.get("core", "execution_api_server_url", fallback="") or ""
    if not own:
        base = conf.get("api", "base_url", fallback="") or "http://localhost:8080"
        own = f"{base.rstrip('/')}/execution/"
    return str(own)


def _asked(url: str) -> Line:
    """Ask where workers report who answers a success without a token: the gate before Airflow, or Airflow itself."""
    expected = "a gate that answers where workers report"
    shown = printable(url, 300)
    if urlsplit(url).scheme not in ("http", "https"):
        return Line("gate", "unknown", expected, f"{shown} is no web address", "Correct execution_api_server_url.")
    body = strictjson.dumps({"state": "success", "end_date": "2000-01-01T00:00:00Z"})
    request = urllib.request.Request(  # noqa: S310  (http or https)
        f"{url.rstrip('/')}/task-instances/{_NOBODY}/state",
        data=body,
        method="PATCH",
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            status, data = answer.status, answer.read(_MAX_ANSWER)
    except urllib.error.HTTPError as error:
        status, data = error.code, error.read(_MAX_ANSWER)
    except OSError as error:
        hint = "Start the API server, or run the doctor where it can be reached."
        return Line("gate", "unknown", expected, f"nobody answers at {shown}: {printable(str(error), 200)}", hint)
    if _is_ours(data):
        return Line("gate", "ok", expected, f"it answers at {shown}")
    apart = (
        "Restart the API server with [sealflow] gate set. One that runs `airflow api-server --apps execution` loads no "
        "plugins: start it as `uvicorn --factory sealflow_airflow.gate.execution_app:create`."
    )
    return Line("gate", "fault", expected, f"{shown} answers {status} without it", apart)


def _is_ours(data: bytes) -> bool:
    try:
        body: Any = strictjson.loads(data, limit=_MAX_ANSWER, what="The answer")
    except EvidenceError:
        return False
    detail = body.get("detail") if isinstance(body, dict) else None
    return isinstance(detail, dict) and detail.get("reason") == "sealflow"


def notary(same: dict[str, str], *, worker: bool = False) -> Iterator[Line]:
    """Say whether the notary's key is where it should be: in the API server, and not where tasks run."""
    from sealflow.keys import load_signer
    from sealflow_airflow.notary import read_settings

    settings = read_settings()
    expected = "a notary's key in the API server alone, or none"
    if not settings.signer:
        yield Line("notary", "note", expected, "none is named here")
        return
    if settings.problem:
        yield Line("notary", "fault", "options that can be read", settings.problem, "Correct [sealflow] notary_mode.")
    try:
        opened = load_signer(settings.signer).public_key.hint[:12]
    except SealflowError as error:
        if worker:
            yield Line("notary", "ok", expected, f"named here, and it cannot be opened: {error.code}")
        else:
            found = f"{error.code}: {error.message}"
            yield Line("notary", "fault", expected, found, "Give the API server, and nobody else, the notary's key.")
        return
    if worker:
        hint = "Take it away from this process: a task could sign in the notary's name."
        yield Line("notary", "fault", expected, f"tasks run here, and the key {opened} can be opened", hint)
        return
    yield Line("notary", "ok", expected, f"the key {opened}, mode {settings.mode}, statements in {settings.store}")
    if os.environ.get("AIRFLOW__SEALFLOW__NOTARY_SIGNER") is None:
        found = "notary_signer stands in airflow.cfg, which other processes may read"
        yield Line("notary", "warning", expected, found, "Set it in the API server's own environment.")
