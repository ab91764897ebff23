"""The Execution API alone, behind the gate: for deployments that run it apart from the rest of the API server.

``airflow api-server --apps execution`` loads no plugins, so it has no gate. Start this application instead::

    uvicorn --factory sealflow_airflow.gate.execution_app:create --host 0.0.0.0 --port 9091
"""

from __future__ import annotations

import os
from typing import Any


def create() -> Any:
    """Return Airflow's Execution API behind the gate, as ``[sealflow]`` sets it."""
    # As Airflow's own entry point does, before anything of Airflow's is imported.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from airflow.api_fastapi.app import create_app

    from sealflow_airflow.gate.middleware import Gate
    from sealflow_airflow.gate.settings import read_settings

    app, settings = create_app(apps="execution"), read_settings()
    return Gate(app, settings) if settings.needed else app
