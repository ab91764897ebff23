"""The pages in Airflow's UI: Trust, and the Evidence tab of DAG runs and task instances.

Airflow's plugin manager imports this module in every process of Airflow's, each task's included, so nothing is built
before the API server is asked for a page.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

#: Where the pages are mounted, below the path of ``[api] base_url``.
PREFIX: Final = "/sealflow"

_ON: Final = ("", "true", "t", "1", "yes", "on")
_OFF: Final = ("false", "f", "0", "no", "off")

_log = logging.getLogger(__name__)


class Pages:
    """The pages as an ASGI application. Whoever is not signed in to Airflow gets 401, whatever he asks for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if self._app is None:
            import asyncio

            # Building imports much, and the loop serves others meanwhile.
            await asyncio.to_thread(self._build)
        await self._app(scope, receive, send)

    def _build(self) -> None:
        from sealflow_airflow.ui.app import make_app

        with self._lock:
            if self._app is None:
                self._app = make_app()


def _wanted() -> bool:
    # Whatever stands there: a plugin that cannot be imported takes the gate away with the pages.
    try:
        from airflow.configuration import conf

        text = str(conf.get("sealflow", "pages", fallback="") or "").strip().lower()
    except Exception:
        _log.exception("[sealflow] pages cannot be read; the pages are not shown.")
        return False
    if text not in (*_ON, *_OFF):
        _log.error("[sealflow] pages is neither True nor False; the pages are not shown.")
    return text in _ON


_EVIDENCE: Final = "sealflow/evidence?dag_id={DAG_ID}&run_id={RUN_ID}"

_APPS: Final[list[Any]] = [{"app": Pages(), "url_prefix": PREFIX, "name": "sealflow"}]
_VIEWS: Final[list[Any]] = [
    {"name": "Trust", "href": "sealflow/trust", "destination": "nav", "category": "browse", "url_route": "trust"},
    {"name": "Evidence", "href": _EVIDENCE, "destination": "dag_run", "url_route": "evidence"},
    {
        "name": "Evidence",
        "href": f"{_EVIDENCE}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}",
        "destination": "task_instance",
        "url_route": "evidence_of_task",
    },
]

#: What the plugin mounts.
FASTAPI_APPS: Final[list[Any]] = _APPS if _wanted() else []
#: What the plugin shows in Airflow's UI. Relative, so that they hold behind a proxy's prefix.
EXTERNAL_VIEWS: Final[list[Any]] = _VIEWS if _wanted() else []
