"""What a task reports, read as Airflow reads it, or not believed to be known."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from sealflow_airflow.gate.messages import (
    MAX_BODY,
    MAX_LISTED,
    MAX_VALUES,
    Success,
    Unknown,
    UnreadableError,
    parse_instance,
    parse_report,
    reported_instance,
)

ID = "01a2019c-0000-7000-8000-000000000001"


def body(**more: Any) -> dict[str, Any]:
    return {
        "state": "success",
        "end_date": "2026-11-23T00:00:00Z",
        "task_outlets": [{"name": "model", "uri": "s3://models/model", "type": "Asset"}],
        "outlet_events": [{"dest_asset_key": {"name": "model", "uri": "s3://models/model"}, "extra": {"rows": 3}}],
        "rendered_map_index": None,
        **more,
    }


def test_success_is_read() -> None:
    report = parse_report(json.dumps(body()).encode())
    assert isinstance(report, Success)
    assert [tuple(item) for item in report.outlets] == [("Asset", "model", "s3://models/model")]
    assert [tuple(item) for item in report.events] == [("model", "s3://models/model", {"rows": 3}, None)]
    # Nobody has to send what is empty.
    assert parse_report(b'{"state": "success", "end_date": "x"}') == Success((), ())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"state": "failed", "end_date": "x"}', id="another-state"),
        pytest.param(b'["success"]', id="no-object"),
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"state": "failed", "state": "skipped", "n": NaN}', id="strange-but-no-success"),
        pytest.param(b'{"state": ["success"]}', id="a-list-is-no-state"),
    ],
)
def test_message_that_cannot_set_success_is_let_alone(data: bytes) -> None:
    assert parse_report(data) is None


def changed(**more: Any) -> bytes:
    return json.dumps(body(**more)).encode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(changed(new_member=1), id="new-member"),
        pytest.param(changed(task_outlets={"a": 1}), id="outlets-no-list"),
        pytest.param(changed(task_outlets=[{"name": "a", "uri": "s3://a", "type": "AssetGroup"}]), id="new-type"),
        pytest.param(changed(task_outlets=[{"name": "a", "uri": "s3://a", "type": ["Asset"]}]), id="type-no-text"),
        pytest.param(changed(task_outlets=[{"name": "a", "uri": 1, "type": "Asset"}]), id="uri-no-text"),
        pytest.param(changed(task_outlets=[{"name": "a", "group": "b", "type": "Asset"}]), id="outlet-member"),
        pytest.param(changed(outlet_events=[{"dest_asset_key": "model", "extra": {}}]), id="key-no-object"),
        pytest.param(changed(outlet_events=[{"dest_asset_key": {"name": "a"}, "extra": {}}]), id="key-without-uri"),
        pytest.param(changed(outlet_events=[{"extra": {}}]), id="event-without-key"),
        pytest.param(
            changed(
                outlet_events=[{"dest_asset_key": {"name": "a", "uri": "b"}, "extra": {}, "source_alias_name": None}]
            ),
            id="alias-no-text",
        ),
        pytest.param(changed(outlet_events=[1]), id="event-no-object"),
        pytest.param(changed(task_outlets=[{"type": "Asset"}] * (MAX_LISTED + 1)), id="too-many"),
    ],
)
def test_strange_success_is_unknown_with_all_its_texts(data: bytes) -> None:
    report = parse_report(data)
    assert isinstance(report, Unknown), report
    assert "success" in report.strings
    assert report.why


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"state": "failed", "state": "success", "task_outlets": []}', id="two-states"),
        pytest.param(b'{"state": "success", "task_outlets": [], "task_outlets": [{"uri": "s3://a/b"}]}', id="twice"),
        pytest.param(json.dumps(body()).encode("utf-16"), id="utf-16"),
        pytest.param(json.dumps(body()).encode("utf-32"), id="utf-32"),
        pytest.param(b"\xef\xbb\xbf" + json.dumps(body()).encode(), id="byte-order-mark"),
        pytest.param(b'{"state": "success", "extra": NaN}', id="nan"),
        pytest.param(b'{"state": "success", "x": ' + b"[" * 40 + b"]" * 40 + b"}", id="deep"),
        pytest.param(b'{"state": "success", "x": "\\ud800"}', id="surrogate"),
        pytest.param(b'{"state": "success", "x": [' + b"0," * (MAX_VALUES + 1) + b"0]}", id="too-many-values"),
        pytest.param(b'{"state": "success", "x": "' + b"a" * MAX_BODY + b'"}', id="too-large"),
        pytest.param(b'{"state": "success", "x": ' + b"[" * 973 + b"]" * 973 + b"}", id="as-deep-as-python-goes"),
        pytest.param(b'{"st\\u0061te": "success", "state": "failed", "state": "failed"}', id="escaped-and-twice"),
        pytest.param(b"success", id="no-json"),
    ],
)
def test_message_that_others_may_read_differently_is_not_read(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        parse_report(data)


DEEP = b"[" * 40 + b"]" * 40


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        pytest.param(b'{"state":"deferred","next_kwargs":{"on":"success","x":' + DEEP + b"}}", True, id="deep"),
        pytest.param(b'{"state": "failed", "x": "success", "y": NaN}', True, id="nan"),
        pytest.param(b'{"state":"deferred","x":"success' + b"a" * MAX_BODY + b'"}', True, id="large"),
        pytest.param(b'{"state":"deferred","x":' + DEEP + b',"state":"success"}', False, id="twice"),
        pytest.param(b'{"state":"deferred","x":' + DEEP + b',"st\\u0061te":"success"}', False, id="twice-escaped"),
        pytest.param(b'{"x":' + DEEP + b',"state":"success"}', False, id="not-first"),
        pytest.param(b'{"state":"success","x":' + DEEP + b"}", False, id="success"),
        pytest.param(b'{"state":"\\u0073uccess","x":' + DEEP + b"}", False, id="success-escaped"),
        pytest.param('{"state":"failed","x":NaN,"y":"success"}'.encode("utf-16-le"), False, id="utf-16"),
    ],
)
def test_message_of_another_state_passes_whatever_a_task_sends_along(data: bytes, passes: bool) -> None:
    if passes:
        assert parse_report(data) is None
        return
    with pytest.raises(UnreadableError):
        parse_report(data)


@pytest.mark.parametrize(
    "path",
    [
        f"/execution/task-instances/{ID}/state",
        f"/airflow/execution/task-instances/{ID}/state",
        f"/execution/task-instances/{ID}/state/",
        f"/execution/task-instances/{ID}/state\n",
        f"//execution//task-instances//{ID}//state",
    ],
)
def test_every_spelling_of_the_path_is_seen(path: str) -> None:
    assert reported_instance("PATCH", path) == ID
    assert reported_instance("patch", path) == ID
    assert reported_instance("GET", path) is None


@pytest.mark.parametrize(
    "path", ["/api/v2/dags", "/execution/task-instances/x/run", f"/execution/task-instances/{ID}/state/x", "/execution"]
)
def test_other_paths_are_let_alone(path: str) -> None:
    assert reported_instance("PATCH", path) is None


@pytest.mark.parametrize("text", [ID, ID.upper(), ID.replace("-", ""), f"urn:uuid:{ID}", f"{{{ID}}}"])
def test_every_spelling_of_an_id_that_airflow_takes_is_read(text: str) -> None:
    from pydantic import TypeAdapter

    assert parse_instance(text) == uuid.UUID(ID) == TypeAdapter(uuid.UUID).validate_python(text)


def test_what_is_no_id_is_none() -> None:
    assert parse_instance("x" * 36) is None
