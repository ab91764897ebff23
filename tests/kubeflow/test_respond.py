"""The exit task that responds to a refusal: what it takes for one, what it does, and that KFP compiles it so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sealflow_kfp
from sealflow.errors import UnavailableError
from tests.kubeflow.conftest import Mounted

pytestmark = pytest.mark.kfp


def ended(state: str, message: str | None) -> Any:
    from kfp.dsl import PipelineTaskFinalStatus

    return PipelineTaskFinalStatus(state, "projects/p/runs/run-7", "fit", 9, message)


@pytest.fixture
def disabled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Recurring runs that KFP's API was asked to disable."""
    asked: list[str] = []

    class Client:
        def __init__(self, host: str | None = None) -> None:
            self.host = host

        def disable_recurring_run(self, recurring_run_id: str) -> None:
            if recurring_run_id == "gone":
                raise RuntimeError("404 Authorization: Bearer secret")
            asked.append(recurring_run_id)

    monkeypatch.setattr("kfp.Client", Client)
    return asked


@pytest.mark.parametrize(
    ("message", "codes"),
    [
        ("KEY_REVOKED s3://m: The key is revoked.", ["KEY_REVOKED"]),
        ("main: Error (exit code 3)", []),
        ("main: Error (exit code 4)", []),
    ],
)
def test_a_refusal_disables_and_reports(
    mounted: Mounted, disabled: list[str], tmp_path: Path, message: str, codes: list[str]
) -> None:
    for _ in range(2):
        (found,) = sealflow_kfp.respond_to_refusal.python_func(
            status=ended("FAILED", message), recurring_run="nightly", ocsf=str(tmp_path / "siem")
        )
        assert found == codes
    assert disabled == ["nightly", "nightly"]
    (path,) = (tmp_path / "siem").iterdir()
    assert json.loads(path.read_bytes())["class_uid"] == 2004
    intents = [event["action"] for event in mounted.events() if event["phase"] == "intent"]
    assert intents == ["pause", "report-refusal"] * 2


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("SUCCEEDED", "KEY_REVOKED"),
        ("FAILED", "main: Error (exit code 1)"),
        ("FAILED", "main: Error (exit code 34)"),
        ("FAILED", "BACKEND_UNAVAILABLE"),
        ("FAILED", None),
        ("CANCELLED", "exit code 3"),
    ],
)
def test_all_else_is_left_alone(
    mounted: Mounted, disabled: list[str], tmp_path: Path, state: str, message: str | None
) -> None:
    (found,) = sealflow_kfp.respond_to_refusal.python_func(
        status=ended(state, message), recurring_run="nightly", ocsf=str(tmp_path / "siem")
    )
    assert (found, disabled) == ([], [])
    assert not (tmp_path / "siem").exists()


def test_what_cannot_be_disabled_is_reported_all_the_same(
    mounted: Mounted, disabled: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnavailableError, match="not disabled") as caught:
        sealflow_kfp.respond_to_refusal.python_func(
            status=ended("FAILED", "KEY_REVOKED"), recurring_run="gone", ocsf=str(tmp_path / "siem")
        )
    assert "secret" not in str(caught.value)
    assert len(list((tmp_path / "siem").iterdir())) == 1


def test_it_compiles_as_an_exit_task(tmp_path: Path) -> None:
    import yaml
    from kfp import compiler, dsl

    from tests.kubeflow.pipelines import make_model

    @dsl.pipeline(name="guarded")
    def guarded():
        last = sealflow_kfp.respond_to_refusal(recurring_run="nightly")
        with dsl.ExitHandler(last):
            make_model()

    path = tmp_path / "guarded.yaml"
    compiler.Compiler().compile(guarded, str(path))
    (task,) = [
        item
        for name, item in yaml.safe_load(path.read_text())["root"]["dag"]["tasks"].items()
        if name == "respond-to-refusal"
    ]
    assert task["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert task["inputs"]["parameters"]["status"] == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
