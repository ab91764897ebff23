"""Whatever a launcher, a metadata store or a command writes: only our errors come out, and no path leads away."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sealflow.errors import EvidenceError, SealflowError, UsageError
from sealflow_kfp.evidence_metadata import KEY
from sealflow_kfp.executor_io import FOLDERS, ExecutorInput, ExecutorOutput, Handed, path_of
from sealflow_kfp.run_context import names_in
from tests.fuzz.test_transfer import JSON
from tests.fuzz.test_untrusted_bytes import EXAMPLES, mutated

# Many examples each.
pytestmark = pytest.mark.slow

MODEL = {
    "name": "7",
    "type": {"schemaTitle": "system.Model"},
    "uri": "minio://b/k/model",
    "metadata": {KEY: "{}", "n": 1.0},
}
BODY = {
    "inputs": {
        "parameterValues": {"rate": 0.5, "sealflow_run_id": "1"},
        "artifacts": {"model": {"artifacts": [MODEL, {**MODEL, "uri": "/local/run/task/model"}]}},
    },
    "outputs": {
        "artifacts": {
            "scores": {"artifacts": [{"name": "scores", "uri": "s3://b/k/scores", "metadata": {}}]},
            "executor-logs": {"artifacts": [{"uri": "s3://b/k/executor-logs"}]},
            "sealflow_verdict": {"artifacts": [{"uri": "s3://b/k/page"}]},
        },
        "outputFile": "/s3/b/k/output_metadata.json",
    },
}
OUTPUT = {
    "parameterValues": {"n": 1},
    "artifacts": {
        "scores": {"artifacts": [{"name": "scores", "uri": "s3://b/k/s", "metadata": {"a": [1]}, "custom_path": "/x"}]}
    },
}
SCORES = Handed("scores", "s3://b/k/scores", "/s3/b/k/scores", {"given": 1})


def paths(value: Any) -> Any:
    """Yield places of which each part is hostile in some way."""
    part = st.sampled_from(["..", ".", "", "a", "\x00", "b\n", "..\u202e", "%2e%2e", "c d", "-", "~"])
    scheme = st.sampled_from([*FOLDERS, "/", "", "oci://", "file://", "https://", "S3://"])
    return st.tuples(scheme, st.lists(part, max_size=6)).map(lambda item: item[0] + "/".join(item[1]))


@st.composite
def replaced(draw: st.DrawFn, body: Any) -> Any:
    """Return a document with one value exchanged."""
    made = json.loads(json.dumps(body))
    place = made
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return made
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], (dict, list)) or draw(st.integers(0, 3)) == 0:
            place[key] = draw(JSON | paths(None))
            return made
        place = place[key]


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated([json.dumps(BODY).encode()]) | replaced(BODY).map(lambda body: json.dumps(body).encode()))
def test_executor_input(data: bytes) -> None:
    try:
        given_input = ExecutorInput.parse(data.decode("utf-8", "surrogateescape"))
    except (EvidenceError, UsageError):
        return
    for item in (*given_input.inputs, *given_input.outputs.values()):
        assert ".." not in item.path.split("/")
        assert item.path.isprintable()
    for path in [item.path for item in given_input.outputs.values()]:
        assert os.path.abspath(path).count("/") >= 3
    moved = {item.key: "/tmp/sealflow-x/copy" for item in given_input.inputs}
    text = given_input.rewritten(moved, {})
    again = ExecutorInput.parse(text)
    assert {item.path for item in again.inputs} <= {"/tmp/sealflow-x/copy"}
    assert {name: item.path for name, item in again.outputs.items()} == {
        name: item.path for name, item in given_input.outputs.items()
    }
    with contextlib.suppress(UsageError):
        (argument,) = given_input.command([f"--in={given_input.text}"], text, moved)
        assert argument == f"--in={text}"
    for item in given_input.outputs.values():
        names_in(item.uri)


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated([json.dumps(OUTPUT).encode()]) | replaced(OUTPUT).map(lambda body: json.dumps(body).encode()))
def test_executor_output(data: bytes) -> None:
    try:
        output = ExecutorOutput.parse(data)
        uri, custom = output.place(SCORES)
        assert ".." not in path_of(uri, "scores").split("/")
        assert ".." not in custom.split("/")
        before = output.metadata(SCORES)
        output.settle(SCORES, {KEY: "ours"})
    except EvidenceError:
        return
    again = ExecutorOutput.parse(output.to_bytes())
    entry = again.entry("scores")
    assert entry is not None
    assert entry["metadata"][KEY] == "ours"
    assert not entry.get("customPath")
    assert not entry.get("custom_path")
    assert {**before, KEY: "ours"} == again.metadata(SCORES)


@hypothesis_settings(max_examples=EXAMPLES)
@given(paths(None) | st.text(max_size=40))
def test_places(uri: str) -> None:
    try:
        path = path_of(uri, "x")
    except EvidenceError:
        return
    if path:
        assert ".." not in path.split("/")
        for scheme, folder in FOLDERS.items():
            if uri.startswith(scheme):
                assert os.path.normpath(path).startswith(folder.rstrip("/"))


@hypothesis_settings(max_examples=EXAMPLES)
@given(
    st.text(max_size=60), st.sampled_from(["/r/run/task/m", "/r/run/task/m2", "/r/run/task/m.b"]), st.text(max_size=60)
)
def test_no_argument_keeps_the_place_of_a_moved_input(before: str, path: str, after: str) -> None:
    body = {"inputs": {"artifacts": {"m": {"artifacts": [{"uri": "/r/run/task/m"}]}}}, "outputs": {}}
    given_input = ExecutorInput.parse(json.dumps(body))
    try:
        (made,) = given_input.command([before + path + after], given_input.text, {("m", 0): "/tmp/c/m"})
    except SealflowError:
        return
    # What opens a path splits it off at such a sign.
    for word in made.replace("=", " ").replace(":", " ").replace("'", " ").replace('"', " ").split():
        assert word != "/r/run/task/m"
        assert not word.startswith("/r/run/task/m/")


def test_the_documents_that_are_mutated_are_sound(tmp_path: Path) -> None:
    assert len(ExecutorInput.parse(json.dumps(BODY)).inputs) == 2
    (tmp_path / "o").write_text(json.dumps(OUTPUT))
    assert ExecutorOutput.read(str(tmp_path / "o")).place(SCORES) == ("s3://b/k/s", "/x")
