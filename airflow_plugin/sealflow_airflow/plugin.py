"""The plugin: what Airflow takes from us in its servers and workers, each only where an admin has asked for it.

Airflow collects hook lineage only where some plugin reads it; ours is read by :mod:`sealflow_airflow.guard`. The gate
stands before the API server, see :mod:`sealflow_airflow.gate`; the notary listens in it.

Airflow runs on without a plugin that fails to load, and so without its gate. So nothing here raises: what cannot be
loaded is left out by itself, and the gate closes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from airflow.plugins_manager import AirflowPlugin

_log = logging.getLogger(__name__)


def _middlewares() -> list[Any]:
    name = "sealflow gate"
    try:
        from sealflow_airflow.gate.settings import read_settings

        settings = read_settings()
        if not settings.needed:
            return []
        from sealflow_airflow.gate.middleware import Gate
    except Exception as error:
        from sealflow_airflow.gate.closed import ClosedGate

        why = f"{type(error).__name__}: {error}."
        return [{"name": name, "middleware": ClosedGate, "args": [why], "kwargs": {}}]
    return [{"name": name, "middleware": Gate, "args": [settings], "kwargs": {}}]


def _listeners() -> list[Any]:
    from sealflow_airflow.notary import read_settings

    # Any listener at all makes DAGs an error that let a trigger end a task.
    if not read_settings().signer:
        return []
    from sealflow_airflow import notary_listener

    return [notary_listener]


def _lineage_readers() -> list[Any]:
    from sealflow_airflow.policy import configured

    if not configured():
        return []
    from airflow.sdk.lineage import HookLineageReader

    return [HookLineageReader]


def _apps() -> list[Any]:
    from sealflow_airflow.ui import FASTAPI_APPS

    return FASTAPI_APPS


def _views() -> list[Any]:
    from sealflow_airflow.ui import EXTERNAL_VIEWS

    return EXTERNAL_VIEWS


def _unless_broken(what: str, find: Callable[[], list[Any]]) -> list[Any]:
    try:
        return find()
    except Exception:
        _log.exception("sealflow: %s cannot be loaded, and will be missing.", what)
        return []


class SealflowPlugin(AirflowPlugin):
    """Turns on what is configured, and does nothing else."""

    name = "sealflow"
    fastapi_root_middlewares: list[Any] = _middlewares()
    hook_lineage_readers: list[Any] = _unless_broken("the reader of hook lineage", _lineage_readers)
    listeners: list[Any] = _unless_broken("the notary", _listeners)
    fastapi_apps: list[Any] = _unless_broken("the pages", _apps)
    external_views: list[Any] = _unless_broken("the pages", _views)
