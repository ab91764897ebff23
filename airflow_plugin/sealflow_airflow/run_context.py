"""Tells the core which Airflow task is running. Cheap and silent outside of one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealflow.actions.context import Surroundings


def current() -> Surroundings | None:
    """Return the running task's surroundings, ``None`` outside of a task."""
    if "airflow.sdk" not in sys.modules:
        return None
    return None
