"""What tasks send to Airflow's API server."""

from __future__ import annotations

from typing import Final

from sealflow.errors import EvidenceError, SealflowError
from tests.fuzz.targets.base import Target


def _report(data: bytes) -> object:
    from sealflow_airflow.gate.closed import _tells
    from sealflow_airflow.gate.messages import parse_report

    _tells(data)
    return parse_report(data)


def _unreadable() -> tuple[type[Exception], ...]:
    from sealflow_airflow.gate.messages import UnreadableError

    return (SealflowError, UnreadableError)


def _worker_token(data: bytes) -> object:
    from sealflow_airflow.gate.middleware import _subject

    if not (found := _subject(data.decode("latin-1"))):
        raise EvidenceError("It names no task instance.")
    return found


TARGETS: Final = [
    Target("task-report", _report, ("sealflow_airflow.gate.messages", "sealflow_airflow.gate.closed"), _unreadable()),
    Target("worker-token", _worker_token, ("sealflow_airflow.gate.middleware",)),
]
