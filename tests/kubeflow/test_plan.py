"""Plans: what the hardener says to the wrapper, and what the wrapper takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sealflow.errors import EvidenceError, UsageError
from sealflow_kfp.plan import MAX_PLAN, Plan, Producer

GOOD: dict[str, Any] = {
    "sealflow_plan": 1,
    "pipeline": "churn",
    "task": "loop/score",
    "inputs": {
        "data": {"producers": []},
        "model": {"producers": [["condition-1/train", "model"], ["condition-2/fit", "model"]]},
    },
    "outputs": ["report", "scores"],
}


def canonical(body: Any) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def with_(**changes: Any) -> str:
    return canonical({**GOOD, **changes})


def without(name: str) -> str:
    return canonical({key: value for key, value in GOOD.items() if key != name})


def inputs(value: Any) -> str:
    return with_(inputs={"model": value})


def test_round_trip() -> None:
    plan = Plan.parse(canonical(GOOD))
    assert (plan.pipeline, plan.task, plan.outputs) == ("churn", "loop/score", ("report", "scores"))
    assert plan.inputs == {
        "data": (),
        "model": (Producer("condition-1/train", "model"), Producer("condition-2/fit", "model")),
    }
    assert plan.to_text() == canonical(GOOD)


def test_order_and_repetition_do_not_change_the_text() -> None:
    one, other = Producer("a", "x"), Producer("b", "x")
    first = Plan("p", "t", {"m": (one, other), "n": ()}, ("y", "z"))
    second = Plan("p", "t", {"n": (), "m": (other, one, one)}, ("z", "y", "z"))
    assert first.to_text() == second.to_text()


def test_empty_plan() -> None:
    assert Plan.parse(Plan("p", "t").to_text()) == Plan("p", "t")


def test_names_may_be_those_of_any_language() -> None:
    plan = Plan("Prüfung", "größe", {"eingabe": (Producer("größe-2", "ausgabe"),)})
    assert Plan.parse(plan.to_text()) == plan


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="nothing"),
        pytest.param(GOOD, id="object-instead-of-text"),
        pytest.param("", id="empty"),
        pytest.param("[]", id="list"),
        pytest.param("{", id="cut-off"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param(json.dumps(GOOD), id="not-canonical"),
        pytest.param(canonical(GOOD) + " ", id="trailing-space"),
        pytest.param(canonical(GOOD).replace('"task"', '"task":"x","task"'), id="key-twice"),
        pytest.param(with_(sealflow_plan=2), id="next-version"),
        pytest.param(with_(sealflow_plan=True), id="version-true"),
        pytest.param(with_(sealflow_plan="1"), id="version-text"),
        pytest.param(with_(policy="/tmp/policy.yaml"), id="names-a-policy"),
        pytest.param(with_(mode="audit"), id="names-a-mode"),
        *(pytest.param(without(name), id=f"without-{name}") for name in GOOD),
        pytest.param(with_(pipeline=""), id="pipeline-empty"),
        pytest.param(with_(pipeline=7), id="pipeline-number"),
        pytest.param(with_(pipeline="p" * 257), id="pipeline-long"),
        pytest.param(with_(task="/score"), id="task-absolute"),
        pytest.param(with_(task="loop//score"), id="task-empty-part"),
        pytest.param(with_(task="t" * 1025), id="task-long"),
        pytest.param(with_(task="{{$.pipeline_task_name}}"), id="task-placeholder"),
        pytest.param(with_(task="sc\u202eore"), id="task-direction-override"),
        pytest.param(with_(outputs="scores"), id="outputs-text"),
        pytest.param(with_(outputs=["b", "a"]), id="outputs-out-of-order"),
        pytest.param(with_(outputs=["a", "a"]), id="outputs-twice"),
        pytest.param(with_(outputs=["a\nb"]), id="output-control-character"),
        pytest.param(with_(inputs=[]), id="inputs-list"),
        pytest.param(inputs([]), id="input-list"),
        pytest.param(inputs({}), id="input-without-producers"),
        pytest.param(inputs({"producers": [], "digest": "x"}), id="input-unknown-member"),
        pytest.param(inputs({"producers": [["a"]]}), id="producer-without-output"),
        pytest.param(inputs({"producers": [["a", "b", "c"]]}), id="producer-of-three"),
        pytest.param(inputs({"producers": ["ab"]}), id="producer-text"),
        pytest.param(inputs({"producers": [["a", None]]}), id="producer-null"),
        pytest.param(inputs({"producers": [["b", "x"], ["a", "x"]]}), id="producers-out-of-order"),
        pytest.param(inputs({"producers": [["a", "x"], ["a", "x"]]}), id="producers-twice"),
        pytest.param(with_(inputs={"": {"producers": []}}), id="input-without-name"),
        pytest.param(with_(outputs=[f"output-{i:06}" for i in range(5000)]), id="too-long"),
        pytest.param("[" * 40 + "]" * 40, id="too-deep"),
    ],
)
def test_malformed_plans_are_refused(text: Any) -> None:
    with pytest.raises(EvidenceError, match="sealflow_plan"):
        Plan.parse(text)


def test_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(EvidenceError, match=f"more than {MAX_PLAN} bytes"):
        Plan.parse(" " * (MAX_PLAN + 1))


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan("p", "{{task}}"), id="placeholder"),
        pytest.param(Plan("", "t"), id="no-pipeline"),
        pytest.param(Plan("p", "t", {"a\0b": ()}), id="control-character"),
        pytest.param(Plan("p", "t", {}, tuple(f"output-{i}" for i in range(5000))), id="too-long"),
    ],
)
def test_what_could_not_be_read_is_not_written(plan: Plan) -> None:
    with pytest.raises(UsageError, match="can have no plan"):
        plan.to_text()
