"""What a KFP executor process knows of itself."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from sealflow.actions import context
from sealflow_kfp.run_context import current

RUN = "0c1f1bd5-35a6-4d5c-9d5e-6f2b0c0b0a01"
SALT = "9c2b7b1e-8f52-4a51-8f0e-0d8f3f3c7a02"
LOCAL = "/srv/local_outputs/train-and-score-2026-11-22-07-15-23-240111/train"


def executor_input(*uris: str, output_file: str = "/tmp/kfp_outputs/output_metadata.json", **parameters: Any) -> str:
    artifacts = {f"out{number}": {"artifacts": [{"name": "o", "uri": uri}]} for number, uri in enumerate(uris)}
    return json.dumps(
        {"inputs": {"parameterValues": parameters}, "outputs": {"artifacts": artifacts, "outputFile": output_file}}
    )


def run_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["executor_main.py", "--component_module_path", "m.py", *arguments])
    return current()


PLACES = {
    "cluster, minio": (f"minio://bucket/v2/artifacts/train-and-score/{RUN}/train/{SALT}/model", RUN),
    "cluster, s3 below a namespace": (f"s3://b/private-artifacts/ns/v2/train-and-score/{RUN}/train/{SALT}/model", RUN),
    "cluster, local mount of the output file": (
        f"/minio/bucket/v2/artifacts/train-and-score/{RUN}/train/{SALT}/output_metadata.json",
        RUN,
    ),
    "local": (f"{LOCAL}/model", "train-and-score-2026-11-22-07-15-23-240111"),
    "local, in two loops": (
        f"{LOCAL.removesuffix('/train')}/for-loop-2-iteration-0/for-loop-4-iteration-11/train/model",
        "train-and-score-2026-11-22-07-15-23-240111",
    ),
}


@pytest.mark.parametrize(("place", "run"), PLACES.values(), ids=PLACES)
def test_names_come_from_the_places_of_outputs(monkeypatch: pytest.MonkeyPatch, place: str, run: str) -> None:
    found = run_with(monkeypatch, "--executor_input", executor_input(place)).run
    assert (found.orchestrator, found.workflow, found.task, found.run) == ("kfp", "train-and-score", "train", run)
    assert found.producer == "kfp:train-and-score/train"
    assert found.attempt is None


@pytest.mark.parametrize(("place", "run"), PLACES.values(), ids=PLACES)
def test_a_task_without_artifacts_has_its_output_file(monkeypatch: pytest.MonkeyPatch, place: str, run: str) -> None:
    assert run_with(monkeypatch, "--executor_input", executor_input(output_file=place)).run.run == run


def test_pod_name_is_the_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_POD_NAME", "train-abc-1")
    found = run_with(monkeypatch, "--executor_input", executor_input(f"{LOCAL}/model"))
    assert found.run.instance == "train-abc-1"


UNKNOWN = {
    "a place of another form": "gs://bucket/somewhere/else/entirely/model",
    "no salt": f"s3://bucket/train/{RUN}/train/model",
    "run id that is no UUID": f"s3://bucket/train/run-7/train/{SALT}/model",
    "too short": f"{RUN}/train/{SALT}/model",
    "local run without a time": "/srv/local_outputs/train/train/model",
    "nothing but loops": "/for-loop-2-iteration-0/for-loop-4-iteration-1/train/model",
    "empty": "",
}


@pytest.mark.parametrize("place", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_not_said(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    found = run_with(monkeypatch, "--executor_input", executor_input(place)).run
    assert (found.workflow, found.task, found.run, found.instance) == ("", "", "", "")
    assert found.producer == "kfp"


def test_executor_logs_are_never_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    other = f"s3://b/other/{SALT}/other/{RUN}/executor-logs"
    body = json.loads(executor_input(PLACES["cluster, minio"][0]))
    body["outputs"]["artifacts"] = {
        "executor-logs": {"artifacts": [{"uri": other}]},
        **body["outputs"]["artifacts"],
    }
    assert run_with(monkeypatch, "--executor_input", json.dumps(body)).run.workflow == "train-and-score"


def test_hidden_parameter_gives_the_run_where_no_place_does(monkeypatch: pytest.MonkeyPatch) -> None:
    text = executor_input("gs://elsewhere/model", sealflow_run_id=RUN)
    found = run_with(monkeypatch, "--executor_input", text)
    assert found.run.run == RUN
    assert "sealflow_run_id" not in found.parameters


def test_place_outweighs_the_hidden_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    text = executor_input(PLACES["cluster, minio"][0], sealflow_run_id="15845914")
    assert run_with(monkeypatch, "--executor_input", text).run.run == RUN


def test_unresolved_placeholder_is_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = executor_input("gs://elsewhere/model", sealflow_run_id="{{$.pipeline_job_uuid}}")
    assert run_with(monkeypatch, "--executor_input", text).run.run == ""


def test_parameters_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = executor_input(f"{LOCAL}/model", rate=0.5, name="é", flags=["a", True], nothing=None)
    found = run_with(monkeypatch, "--executor_input", text)
    assert found.parameters == {"rate": "0.5", "name": "é", "flags": '["a",true]', "nothing": "null"}


def test_option_in_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with(monkeypatch, "--executor_input=" + executor_input(f"{LOCAL}/model")).run.task == "train"


NOT_KFP: dict[str, tuple[str, ...]] = {
    "no option": (),
    "option without a value": ("--executor_input",),
    "another program's option": ("--executor_input", "yes"),
    "not an object": ("--executor_input", "[]"),
    "no outputs": ("--executor_input", "{}"),
    "outputs of another type": ("--executor_input", '{"outputs": 1}'),
    "longer than an argument can be": ("--executor_input", '{"outputs": {"a": "' + "x" * (128 << 10) + '"}}'),
    "too deep": ("--executor_input", '{"outputs":' + "[" * 100 + "]" * 100 + "}"),
    "a key twice": ("--executor_input", '{"outputs": {}, "outputs": {}}'),
}


@pytest.mark.parametrize("arguments", NOT_KFP.values(), ids=NOT_KFP)
def test_nothing_outside_of_an_executor(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    assert run_with(monkeypatch, *arguments) is None


WRONG_TYPES = {
    "inputs": '{"inputs": 3, "outputs": {}}',
    "values": '{"inputs": {"parameterValues": []}, "outputs": {}}',
    "artifacts": '{"outputs": {"artifacts": []}}',
    "list": '{"outputs": {"artifacts": {"a": {"artifacts": {}}}}}',
    "item": '{"outputs": {"artifacts": {"a": {"artifacts": [7]}}}}',
    "uri": '{"outputs": {"artifacts": {"a": {"artifacts": [{"uri": 7}]}}, "outputFile": 7}}',
}


@pytest.mark.parametrize("text", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types_claim_nothing(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert run_with(monkeypatch, "--executor_input", text).run.producer == "kfp"


def test_the_core_finds_it_through_the_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["m", "--executor_input", executor_input(f"{LOCAL}/model", who="me")])
    found = context.current()
    assert found.run.producer == "kfp:train-and-score/train"
    assert found.parameters == {"who": "me"}
