"""A gate that cannot be loaded: closed for tasks that tell of assets, open for all others; and what turns it on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealflow_airflow.gate.closed import ClosedGate
from tests.airflow.test_gate_middleware import PATH, SUCCESS, TELLING, App, request

pytestmark = pytest.mark.airflow

TWICE = b'{"task_outlets": [{"uri": "s3://a/b"}], "task_outlets": [], "state": "success"}'
EVENT = b'{"state": "success", "outlet_events": [{"extra": {}}]}'


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(TELLING, id="outlet"),
        pytest.param(EVENT, id="event"),
        pytest.param(TWICE, id="twice"),
        pytest.param(TELLING.decode().encode("utf-16"), id="utf-16"),
        pytest.param(b'{"state": "success", "new_member": {"a": 1}}', id="unknown-member"),
        pytest.param(b"x" * (5 << 20), id="too-large"),
    ],
)
def test_success_that_tells_of_an_asset_is_sent_back(data: bytes) -> None:
    app = App()
    status, answer = request(ClosedGate(app, "ImportError: no."), data)  # type: ignore[arg-type]
    assert (status, answer["detail"]["code"]) == (503, "GATE_BROKEN")
    assert "ImportError: no." in answer["detail"]["message"]
    assert not app.types


@pytest.mark.parametrize(
    ("method", "path", "data"),
    [
        pytest.param("PATCH", PATH, SUCCESS, id="nothing-to-tell"),
        pytest.param("PATCH", PATH, b'{"state": "failed"}', id="failed"),
        pytest.param("PATCH", PATH, b"no json", id="no-json"),
        pytest.param("PATCH", PATH, b"[1, 2]", id="a-list"),
        pytest.param("GET", PATH, TELLING, id="another-method"),
        pytest.param("POST", "/api/v2/dags", TELLING, id="another-path"),
    ],
)
def test_everything_else_passes_whole(method: str, path: str, data: bytes) -> None:
    app = App()
    assert request(ClosedGate(app, "x"), data, b"", method=method, path=path)[0] == 204  # type: ignore[arg-type]
    assert app.bodies == [data]


def test_lifespan_passes() -> None:
    app = App()
    asyncio.run(ClosedGate(app, "x")({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert app.types == ["lifespan"]


def test_installation_that_cannot_load_the_gate_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow_airflow import plugin

    monkeypatch.setenv("AIRFLOW__SEALFLOW__GATE", "enforce")
    monkeypatch.setitem(sys.modules, "sealflow_airflow.gate.middleware", None)
    ((item,),) = (plugin._middlewares(),)
    assert item["middleware"] is ClosedGate
    assert "ModuleNotFoundError" in item["args"][0]


LOADED = """
from airflow.plugins_manager import get_fastapi_plugins, get_import_errors
found = [item["middleware"].__name__ for item in get_fastapi_plugins()[1] if item["name"] == "sealflow gate"]
errors = {name: text for name, text in get_import_errors().items() if "sealflow" in name}
print(found, errors)
"""


@pytest.mark.parametrize(
    "slip",
    [
        pytest.param({"notary_signer": "pkcs11:token=my%20token;object=notary"}, id="percent-sign"),
        pytest.param({"notary_mode": "%"}, id="percent-alone"),
        pytest.param({"notary_signer": "%(nothing)s"}, id="interpolation"),
        pytest.param({"pages": "maybe"}, id="pages-maybe"),
        pytest.param({"pages": ""}, id="pages-empty"),
        pytest.param({"policy": "%"}, id="policy"),
        pytest.param({"gate_evidence_stores": "s3://a/%20b"}, id="stores"),
    ],
)
@pytest.mark.parametrize("where", ["environment", "file"])
@pytest.mark.slow
def test_slip_in_another_option_takes_no_gate_away(tmp_path: Path, slip: dict[str, str], where: str) -> None:
    """In a process of its own, as Airflow loads plugins."""
    home = tmp_path / "home"
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    if where == "environment":
        env |= {f"AIRFLOW__SEALFLOW__{name.upper()}": value for name, value in slip.items()}
        env["AIRFLOW__SEALFLOW__GATE"] = "enforce"
    else:
        lines = [f"{name} = {value}" for name, value in {**slip, "gate": "enforce"}.items()]
        (home / "airflow.cfg").write_text("\n".join(["[sealflow]", *lines, ""]))
    done = subprocess.run([sys.executable, "-c", LOADED], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "['Gate'] {}", done.stdout + done.stderr[-2000:]


def options(**texts: str) -> Any:
    from sealflow_airflow.gate.settings import read_settings

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GATE", "GATE_ACCESS_AUDIT", "GATE_EVIDENCE_STORES"):
            patch.delenv(f"AIRFLOW__SEALFLOW__{name}", raising=False)
        for name, value in texts.items():
            patch.setenv(f"AIRFLOW__SEALFLOW__{name.upper()}", value)
        return read_settings()


@pytest.mark.parametrize(
    ("texts", "mode", "access", "problem"),
    [
        ({}, "off", False, False),
        ({"gate": "off"}, "off", False, False),
        ({"gate": "Audit"}, "audit", False, False),
        ({"gate": " enforce "}, "enforce", False, False),
        ({"gate": "on"}, "enforce", False, True),
        ({"gate_access_audit": "true"}, "off", True, False),
        ({"gate_access_audit": "no"}, "off", False, False),
        ({"gate_access_audit": "sometimes"}, "off", True, True),
    ],
)
def test_options_are_read_strictly_and_slips_close(texts: Any, mode: str, access: bool, problem: bool) -> None:
    found = options(**texts)
    assert (found.mode, found.access_audit, bool(found.problem)) == (mode, access, problem)
    assert found.needed == (mode != "off" or access)


def test_stores_are_a_list() -> None:
    assert options(gate_evidence_stores="s3://a/b, /c\ns3://d").stores == ("s3://a/b", "/c", "s3://d")


def test_nothing_is_loaded_where_the_gate_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow_airflow import plugin

    for name in ("GATE", "GATE_ACCESS_AUDIT"):
        monkeypatch.delenv(f"AIRFLOW__SEALFLOW__{name}", raising=False)
    monkeypatch.setitem(sys.modules, "sealflow_airflow.gate.middleware", None)
    assert plugin._middlewares() == []
