"""Whatever arrives as an AdmissionReview: an answer; and what passes is under guard."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sealflow.errors import UsageError
from sealflow_kfp import guard_command
from sealflow_kfp.admission.decide import decide
from sealflow_kfp.admission.settings import Settings, parse_settings
from tests.fuzz.test_untrusted_bytes import mutated
from tests.kubeflow.argo import DRIVER_IMAGE, LAUNCHER_IMAGE, TASK_IMAGE, Task, compiled, dumps
from tests.kubeflow.cluster_pods import AUDIT, SETTINGS, SETTINGS_TEXT, changed, good_pods, review

# Many examples each.
pytestmark = pytest.mark.slow

EXAMPLES = 2 * hypothesis_settings().max_examples

WORKFLOW = compiled(
    [
        Task("train", platform={"pvcMount": [{"constant": "data", "mountPath": "/data"}]}),
        Task("again", variant="retry-"),
    ],
    importer=True,
    exit_task=Task("tell", command=("echo",)),
)
OBJECTS = [WORKFLOW, changed(WORKFLOW), *good_pods().values()]
REVIEWS = [review(body) for body in OBJECTS]
WORDS = [
    "main", "sealflow-guard", "kfp-launcher", "/sealflow/guard", "/sealflow/guard/guard", "/var/run/sealflow", "{{$}}",
    "--", "sh", "command", "args", "script", "container", "image", TASK_IMAGE, LAUNCHER_IMAGE, DRIVER_IMAGE, "driver",
    "{{inputs.parameters.pod-spec-patch}}", "system-container-impl", "root", "hooks", "templateRef", "env", "volumes",
    "/kfp-launcher/launch", "emissary", dumps({"image": TASK_IMAGE, "command": ["sh"]}), "\u202e\n\x00", "",
]  # fmt: skip
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from(WORDS), st.text(max_size=5), st.just([]), st.just({}),
    st.lists(st.sampled_from(WORDS), max_size=4),
    st.dictionaries(st.sampled_from(WORDS), st.sampled_from(WORDS), max_size=2),
    st.just({"image": TASK_IMAGE, "command": ["sh", "-c", "steal"], "name": "main"}),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every place in a document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += places(item, (*path, key))
    return found


@st.composite
def changed_objects(draw: st.DrawFn) -> dict[str, Any]:
    """An object in which one to three places hold something else, are gone, or are there twice."""
    body = copy.deepcopy(draw(st.sampled_from(OBJECTS)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(body)))
        parent = body
        for step in path[:-1]:
            parent = parent[step]
        kind = draw(st.sampled_from(["replace", "remove", "add"]))
        # A value is one object for all examples, and the next change may go into it.
        value = copy.deepcopy(draw(VALUES))
        if kind == "replace":
            parent[path[-1]] = value
        elif kind == "remove":
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(WORDS))] = value
        else:
            twice = draw(st.booleans())
            parent.insert(path[-1], copy.deepcopy(parent[path[-1]]) if twice else value)
        if not places(body):
            break
    return body


def guarded_pod(spec: dict[str, Any]) -> bool:
    """Tell, in other words than the gate's, whether what a pod runs is the guard, KFP's driver or an import."""
    main = next(item for item in spec["containers"] if item["name"] == "main")
    program = main["command"][main["command"].index("--") + 1 :]
    if program[0] == "/kfp-launcher/launch":
        copies = [item["image"] for item in spec["initContainers"] if item["name"] == "sealflow-guard"]
        return main["args"][:4] == list(guard_command.IN_DIRECTORY) and copies == [SETTINGS.guard.image]
    return main["image"] in (DRIVER_IMAGE, LAUNCHER_IMAGE)


def check(body: Any, settings: Settings) -> None:
    """Whatever is asked is answered, and what is taken is as it should be."""
    decision = decide(review(body), settings)
    answer = json.loads(decision.response)["response"]
    assert answer["allowed"] is decision.allowed
    assert len(decision.response) < 200_000
    if not settings.enforced:
        assert decision.allowed
        assert "patch" not in answer
        return
    if not decision.allowed:
        return
    if body["kind"] == "Pod":
        if not any(finding.code == "POD_EXEMPT" for finding in decision.findings):
            assert guarded_pod(body["spec"])
        return
    patch = json.loads(base64.b64decode(answer["patch"])) if "patch" in answer else []
    after = jsonpatch.apply_patch(body, patch)
    for item in after["spec"]["arguments"]["parameters"]:
        found = json.loads(item["value"]) if item["name"].startswith("implementations-") else {}
        if "image" in found:
            assert found["command"][:4] == list(guard_command.IN_DIRECTORY)
    again = decide(review(after), settings, validate=True)
    assert again.allowed, again.response
    assert "patch" not in json.loads(again.response)["response"]


@hypothesis_settings(max_examples=EXAMPLES)
@given(changed_objects())
def test_objects(body: Any) -> None:
    # Its kind is the request's: what somebody writes into the object counts for nothing.
    body.setdefault("kind", "Pod")
    if body["kind"] not in ("Pod", "Workflow"):
        body["kind"] = "Workflow"
    for settings in (SETTINGS, AUDIT):
        check(body, settings)


@hypothesis_settings(max_examples=EXAMPLES)
@given(st.one_of(st.binary(max_size=200), *(mutated(one) for one in REVIEWS[:4])))
def test_bytes(data: bytes) -> None:
    decision = decide(data, SETTINGS)
    answer = json.loads(decision.response)["response"]
    assert answer["allowed"] is decision.allowed
    assert (decision.status == 400) == (decision.uid == "")
    if decision.status == 400:
        assert not decision.allowed


@hypothesis_settings(max_examples=EXAMPLES)
@given(st.one_of(st.binary(max_size=200), mutated(SETTINGS_TEXT.encode())))
def test_settings(data: bytes) -> None:
    try:
        parsed = parse_settings(data)
    except UsageError:
        return
    assert parsed.mode in ("enforce", "audit")
    assert guard_command.has_digest(parsed.guard.image)


def test_what_is_changed_was_sound() -> None:
    for body in OBJECTS:
        assert decide(review(body), SETTINGS).allowed
