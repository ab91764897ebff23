"""What is counted, in the names that the documentation gives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealflow.encryption import RecipientError
from sealflow.errors import EvidenceError, UnavailableError, UsageError

pytestmark = pytest.mark.airflow

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "airflow.md"


class Backend:
    """As much of Airflow's StatsLogger as a counter needs."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []

    def incr(self, stat: str, **more: Any) -> None:
        self.told.append((stat, more.get("tags") or {}))


@pytest.fixture
def backend() -> Iterator[Backend]:
    """Airflow's own module, with this behind it."""
    from airflow.sdk._shared.observability.metrics import stats

    before = (stats._factory, stats._export_legacy_names)
    made = Backend()
    stats.initialize(factory=lambda: made, export_legacy_names=True)
    yield made
    stats.initialize(factory=before[0], export_legacy_names=before[1])


def test_airflow_is_told(backend):
    from sealflow_airflow.metrics import count

    count("sealflow.xcom.sealed")
    count("sealflow.refused", code="FILE_CHANGED")
    count("sealflow.guard.untouched", 0)
    assert backend.told == [("sealflow.xcom.sealed", {}), ("sealflow.refused", {"code": "FILE_CHANGED"})]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        pytest.param(EvidenceError("x"), "refused", id="evidence"),
        pytest.param(RecipientError("x"), "refused", id="identity"),
        pytest.param(UnavailableError("x"), "unavailable", id="outage"),
        pytest.param(UsageError("x"), "misused", id="mistake"),
    ],
)
def test_errors_are_counted_by_their_kind(backend, error, name):
    from airflow.sdk.exceptions import AirflowException

    from sealflow_airflow.outcome import airflow_errors

    with pytest.raises(AirflowException), airflow_errors():
        raise error
    assert backend.told == [(f"sealflow.{name}", {"code": error.code})]


def test_a_refusal_of_an_operator_is_counted_once(backend, connection, context, artifact):
    from airflow.sdk.exceptions import AirflowFailException

    from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator

    ref = SignArtifactOperator(task_id="sign", artifact=str(artifact)).execute(context)
    gate = VerifyArtifactOperator(task_id="gate", artifact=ref)
    gate.execute(context)
    (artifact / "january.csv").write_bytes(b"day,value\n1,21\n")
    with pytest.raises(AirflowFailException):
        gate.execute(context)
    assert backend.told == [
        ("sealflow.verdict.passed", {}),
        ("sealflow.verdict.failed", {}),
        ("sealflow.refused", {"code": "FILE_CHANGED"}),
    ]


def test_metrics_that_fail_fail_no_task(backend, monkeypatch):
    from sealflow_airflow.metrics import count

    monkeypatch.setattr(backend, "incr", lambda *_, **__: 1 / 0)
    count("sealflow.xcom.sealed")


def test_the_documentation_names_them_all():
    from sealflow_airflow.metrics import NAMES

    found = dict(re.findall(r"^\| `(sealflow\.[a-z.]+)` \| (.+) \|$", REFERENCE.read_text(), re.MULTILINE))
    assert found == NAMES


def test_no_other_is_used():
    from sealflow_airflow.metrics import NAMES

    source = "".join(path.read_text() for path in Path(__import__("sealflow_airflow").__file__).parent.rglob("*.py"))
    used = set(re.findall(r'count\("(sealflow\.[a-z.]+)"', source))
    used |= {f"sealflow.verdict.{status}" for status in ("passed", "failed", "unverifiable")}
    used |= {f"{of}.{how}" for of in ("sealflow", "sealflow.xcom") for how in ("refused", "unavailable", "misused")}
    assert used == set(NAMES)
