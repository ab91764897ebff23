"""Airflow's own models and routes, as the gate mirrors them: another release must not change them unseen.

When one of these fails under a new release of Airflow, read what changed, teach :mod:`sealflow_airflow.gate` to read
it, and add the release to ``KNOWN_RELEASES``. Until then the gate refuses what it does not know.
"""

from __future__ import annotations

import inspect
import typing
from typing import Any

import pytest

pytestmark = pytest.mark.airflow


def test_installed_release_is_one_that_was_read() -> None:
    import airflow

    from sealflow_airflow.gate.messages import KNOWN_RELEASES

    assert ".".join(airflow.__version__.split(".")[:2]) in KNOWN_RELEASES


def test_success_has_the_members_that_we_read() -> None:
    from airflow.api_fastapi.execution_api.datamodels.asset import AssetProfile
    from airflow.api_fastapi.execution_api.datamodels.taskinstance import TISuccessStatePayload

    from sealflow_airflow.gate import messages

    assert set(TISuccessStatePayload.model_fields) == messages._MEMBERS
    assert TISuccessStatePayload.model_config["extra"] == "forbid"
    assert typing.get_args(TISuccessStatePayload.model_fields["state"].annotation) == ("success",)
    assert set(AssetProfile.model_fields) == messages._OUTLET
    assert AssetProfile.model_config["extra"] == "forbid"


def test_no_other_report_carries_outlets() -> None:
    from airflow.api_fastapi.execution_api.datamodels import taskinstance

    carrying = {
        name
        for name, model in vars(taskinstance).items()
        if name.startswith("TI") and {"task_outlets", "outlet_events"} & set(getattr(model, "model_fields", ()))
    }
    assert carrying == {"TISuccessStatePayload"}


def test_workers_send_events_with_the_members_that_we_read() -> None:
    import attrs
    from airflow.sdk.definitions.asset import AssetAliasEvent, AssetUniqueKey
    from airflow.sdk.execution_time import task_runner

    from sealflow_airflow.gate import messages

    alias = {item.name for item in attrs.fields(AssetAliasEvent)}
    assert alias <= messages._EVENT
    assert {item.name for item in attrs.fields(AssetUniqueKey)} == messages._KEY
    source = inspect.getsource(task_runner._serialize_outlet_events)
    assert {"dest_asset_key", "extra", "partition_key"} | alias == messages._EVENT
    assert [word for word in ("dest_asset_key", "extra", "partition_key") if f'"{word}"' not in source] == []


def test_worker_lists_outlets_of_the_types_that_we_read() -> None:
    from airflow.sdk import Asset, AssetAlias
    from airflow.sdk.execution_time.task_runner import _build_asset_profiles

    from sealflow_airflow.gate import messages

    outlets = [Asset(name="a", uri="s3://a/b"), Asset.ref(name="a"), Asset.ref(uri="s3://a/b"), AssetAlias("x")]
    assert {item.type for item in _build_asset_profiles(outlets)} == messages._TYPES


#: What ``register_asset_changes_in_db`` and its companions were when the gate was written. When this differs, read the
#: new text beside :func:`sealflow_airflow.gate.telling.told`.
MIRRORED = {
    "task_outlets",
    "outlet_events",
    '"source_alias_name" in outlet_event',
    'o.type == "Asset" and o.name and o.uri',
    'o.type == "AssetNameRef" and o.name',
    'o.type == "AssetUriRef" and o.uri',
    'o.type == "AssetAlias" and o.name',
    'event["source_alias_name"]',
    "if alias_name not in outlet_alias_names:",
    "AssetModel.active.has()",
    "extra=payload.extra",
}


def test_airflow_writes_events_for_what_we_think() -> None:
    from airflow.models.taskinstance import TaskInstance

    source = inspect.getsource(TaskInstance.register_asset_changes_in_db)
    assert {text for text in MIRRORED if text not in source} == set()
    # One place writes an event for each of the three ways.
    assert source.count("asset_manager.register_asset_change(") == 4


def test_events_of_tasks_are_written_in_one_place() -> None:
    """Whoever else writes asset events is no task: the trigger of an asset's watcher, and the REST API's users."""
    import ast
    from pathlib import Path

    import airflow

    root = Path(airflow.__file__).parent
    callers = set()
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "register_asset_change" not in text or "/_vendor/" in str(path):
            continue
        for node in ast.walk(ast.parse(text)):
            name = getattr(getattr(node, "func", None), "attr", "")
            if name in ("register_asset_change", "register_asset_changes_in_db"):
                callers.add(str(path.relative_to(root)))
    assert callers == {
        "api_fastapi/core_api/routes/public/assets.py",
        "api_fastapi/execution_api/routes/task_instances.py",
        "models/taskinstance.py",
        "models/trigger.py",
    }


def _routes() -> set[tuple[str, str]]:
    from airflow.api_fastapi.execution_api.routes import execution_api_router

    found = set()

    def walk(router: Any, prefix: str = "") -> None:
        for route in router.routes:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                walk(inner, prefix + (getattr(route, "prefix", "") or getattr(route.include_context, "prefix", "")))
                continue
            for method in getattr(route, "methods", None) or ():
                found.add((method, prefix + route.path))

    walk(execution_api_router)
    return found


def test_paths_are_those_that_we_look_for() -> None:
    from sealflow_airflow.gate.access import AccessAudit
    from sealflow_airflow.gate.messages import reported_instance

    routes = _routes()
    states = {(method, path) for method, path in routes if path.endswith("/state") and method != "GET"}
    assert states == {("PATCH", "/task-instances/{task_instance_id}/state")}
    assert all(reported_instance(method, f"/execution{path}") for method, path in states)
    watched = {
        (method, path)
        for method, path in routes
        if path.split("/")[1] in ("connections", "connection-tests", "variables", "xcoms") and method in ("GET", "HEAD")
    }
    assert watched == {
        ("GET", "/connections/{connection_id}"),
        ("GET", "/connection-tests/{connection_test_id}/connection"),
        ("GET", "/variables/keys"),
        ("GET", "/variables/{variable_key:path}"),
        ("GET", "/xcoms/{dag_id}/{run_id}/{task_id}/{key:path}"),
        ("GET", "/xcoms/{dag_id}/{run_id}/{task_id}/{key:path}/item/{offset}"),
        ("GET", "/xcoms/{dag_id}/{run_id}/{task_id}/{key:path}/slice"),
        ("HEAD", "/xcoms/{dag_id}/{run_id}/{task_id}/{key:path}"),
    }
    assert all(AccessAudit.of(method, f"/execution{path}") for method, path in watched)


def test_all_known_routes_of_the_api_are_these() -> None:
    """A new way to set a state, or to hand out a secret, would be a new route."""
    assert {path.split("/")[1] for _, path in _routes()} == {
        "asset-events",
        "assets",
        "connection-tests",
        "connections",
        "dag-runs",
        "dags",
        "health",
        "hitlDetails",
        "store",
        "task-instances",
        "task-reschedules",
        "variables",
        "xcoms",
    }


def test_airflow_keeps_whom_it_authenticated_where_we_look() -> None:
    from airflow.api_fastapi.execution_api import security

    from sealflow_airflow.gate.access import TOKEN

    assert security._REQUEST_SCOPE_TOKEN_KEY == TOKEN


def test_versions_of_the_api_are_those_that_were_read() -> None:
    from airflow.api_fastapi.execution_api.versions import bundle

    # None of them renames a member of the success message, or migrates one that we read.
    assert str(bundle.versions[0].value) == "2026-06-30"
    changes = [
        str(change)
        for version in bundle.versions
        for change in version.changes
        if "TISuccessStatePayload" in inspect.getsource(inspect.getmodule(change) or change)
    ]
    assert {name.rpartition(".")[2].rstrip("'>") for name in changes} <= {
        "AddRenderedMapIndexField",
        "AddPartitionKeyField",
    }


def test_airflow_takes_middlewares_of_plugins_and_makes_the_token_that_we_check() -> None:
    from airflow.api_fastapi import app
    from airflow.api_fastapi.execution_api.app import _jwt_validator

    assert "app.add_middleware(middleware, *args, **kwargs)" in inspect.getsource(app.init_plugins)
    # Plugins are loaded for the core app alone, which is why `--apps execution` needs another way.
    source = inspect.getsource(app.create_app)
    assert source.index('"core" in apps_list') < source.index("init_plugins(app)")
    assert callable(_jwt_validator)


def test_threat_model_names_tests_that_there_are() -> None:
    import re
    from pathlib import Path

    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "explanation" / "threat-model.md").read_text()
    section = page.partition("## The gate and the notary in Airflow")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(test_\w+)`", section))
    files = [*(root / "tests" / "airflow").glob("test_*.py"), root / "tests" / "core" / "actions" / "test_attested.py"]
    there = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)}
    assert len(named) > 20
    assert named <= there, named - there
