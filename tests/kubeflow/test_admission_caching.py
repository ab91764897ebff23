"""Caching stays off however a task is written: what is not seen at admission is not taken."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest

from sealflow_kfp.admission.decide import decide
from sealflow_kfp.kyverno import WORKFLOWS, policies
from tests.kubeflow.argo import Task, compiled, parameter
from tests.kubeflow.argo_pods import template
from tests.kubeflow.cluster_pods import SETTINGS, changed, review

_ON = '{"cachingOptions":{"enableCache":true},"taskInfo":{"name":"train"}}'


def _workflow(*, older: bool = True) -> dict[str, Any]:
    """Return a Workflow as the webhook leaves it, of a KFP whose drivers have no option about the cache."""
    workflow = changed(compiled([Task("train")], importer=True, exit_task=Task("mail")))
    for one in workflow["spec"]["templates"] if older else ():
        args = one.get("container", {}).get("args", [])
        args[:] = [word for word in args if not word.startswith("--cache_disabled")]
    return workflow


def _argument(workflow: dict[str, Any], value: Any, step: str = "train-driver") -> None:
    for one in workflow["spec"]["templates"]:
        for task in one.get("dag", {}).get("tasks", []):
            for item in task["arguments"]["parameters"] if task["name"] == step else ():
                if item["name"] == "task":
                    item.pop("value")
                    item.update(value if isinstance(value, dict) else {"value": value})


def _parameter(workflow: dict[str, Any], value: str) -> None:
    workflow["spec"]["arguments"]["parameters"].append(parameter("mine", value))


def _by_reference(workflow: dict[str, Any]) -> None:
    _parameter(workflow, _ON)
    _argument(workflow, "{{workflow.parameters.mine}}")


def _by_a_part(workflow: dict[str, Any]) -> None:
    _parameter(workflow, 'x","cachingOptions":{"enableCache":true},"y":"')
    _argument(workflow, '{"taskInfo":{"name":"{{workflow.parameters.mine}}"}}')


def _by_another_input(workflow: dict[str, Any]) -> None:
    template(workflow, "root")["inputs"]["parameters"].append({"name": "mine", "default": _ON})
    _argument(workflow, "{{inputs.parameters.mine}}")


def _by_default(workflow: dict[str, Any]) -> None:
    template(workflow, "root")["inputs"]["parameters"].append({"name": "task", "default": _ON})
    _argument(workflow, "{{inputs.parameters.task}}")


def _in_the_driver(word: str) -> Callable[[dict[str, Any]], None]:
    def change(workflow: dict[str, Any]) -> None:
        template(workflow, "system-container-driver")["container"]["args"] += [word, _ON] if "=" not in word else [word]

    return change


def _hooked(workflow: dict[str, Any]) -> None:
    arguments = [parameter("task", "{{workflow.parameters.mine}}")]
    for one in workflow["spec"]["templates"]:
        for task in one.get("dag", {}).get("tasks", []):
            if task.get("hooks"):
                task["hooks"]["exit"]["arguments"]["parameters"] += arguments


ATTACKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "as KFP writes it": lambda workflow: _argument(workflow, _ON),
    "a blank before it": lambda workflow: _argument(workflow, f" {_ON}"),
    "a line break before it": lambda workflow: _argument(workflow, f"\n\t{_ON}"),
    "a space of another kind before it": lambda workflow: _argument(workflow, f"\u00a0{_ON}"),
    "another parameter": _by_reference,
    "a part of it from another parameter": _by_a_part,
    "a part of it by an expression": lambda workflow: _argument(workflow, '{"a":"{{= sprig.trim(\'x\') }}"}'),
    "another input's default": _by_another_input,
    "its own default": _by_default,
    "a config map": lambda workflow: _argument(
        workflow, {"valueFrom": {"configMapKeyRef": {"name": "mine", "key": "task"}}}
    ),
    "an import's, with a blank": lambda workflow: _argument(workflow, f" {_ON}", "importer"),
    "a text": lambda workflow: _argument(workflow, f'"{_ON}"'),
    "the driver's own option": _in_the_driver("--task"),
    "the driver's own option with one dash": _in_the_driver("-task"),
    "the driver's own option as one word": _in_the_driver(f"--task={_ON}"),
    "the driver's own option on two lines": _in_the_driver("-task=" + _ON.replace(",", ",\n")),
    "an exit hook": _hooked,
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_task_that_may_be_cached_is_not_let_be(name: str) -> None:
    workflow = _workflow()
    ATTACKS[name](workflow)
    submitted, final = decide(review(workflow), SETTINGS), decide(review(workflow), SETTINGS, validate=True)
    assert not final.allowed
    # It is refused at once, or turned off in the open.
    assert not submitted.allowed or decide(review(changed(workflow)), SETTINGS, validate=True).allowed


@pytest.mark.parametrize("older", [False, True])
def test_what_kfp_writes_is_taken(older: bool) -> None:
    assert decide(review(_workflow(older=older)), SETTINGS, validate=True).allowed


@pytest.mark.parametrize("value", ["{{inputs.parameters.task}}", "", ' {"taskInfo":{"name":"{{$.task}}"}}'])
def test_a_task_may_be_handed_on(value: str) -> None:
    workflow = _workflow()
    _argument(workflow, value)
    assert decide(review(workflow), SETTINGS, validate=True).allowed


@pytest.fixture(scope="module")
def gate(loud: Callable[[str], None]) -> Any:
    """Kyverno's policy on Workflows."""
    if sys.version_info < (3, 11):
        what = "the policies for Kyverno are not evaluated: cel-expr-python has nothing for Python 3.10"
        loud(what)
        pytest.skip(what)
    made = {item["metadata"]["name"]: item for item in policies(SETTINGS)}
    return importlib.import_module("tests.kubeflow.cel").Policy(made[WORKFLOWS])


def _said(gate: Any, workflow: dict[str, Any]) -> set[str]:
    request = {"operation": "CREATE", "namespace": "team-a", "userInfo": {"username": "somebody"}}
    return {item.partition(":")[0] for item in gate.refusals(object=workflow, request=request)}


@pytest.mark.parametrize("name", ATTACKS)
def test_kyverno_sees_it_too(name: str, gate: Any) -> None:
    workflow = _workflow()
    assert _said(gate, workflow) == set()
    ATTACKS[name](workflow)
    assert _said(gate, workflow) & {"CACHE_ON", "WORKFLOW_REFUSED"}


def test_an_option_that_takes_another_back_is_seen_by_kyverno(gate: Any) -> None:
    for word in ("--cache_disabled=false", "-cache_disabled=false"):
        workflow = _workflow(older=False)
        _argument(workflow, _ON)
        assert _said(gate, workflow) == set()
        template(workflow, "system-container-driver")["container"]["args"].append(word)
        assert _said(gate, workflow) == {"CACHE_ON"}


_ELSEWHERE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a template in another object": lambda workflow: workflow["spec"].update(workflowTemplateRef={"name": "mine"}),
    "a task's template in another object": lambda workflow: template(workflow, "root")["dag"]["tasks"][0].update(
        templateRef={"name": "mine", "template": "x"}
    ),
    "a template inside of a task": lambda workflow: template(workflow, "root")["dag"]["tasks"][0].update(inline={}),
    "steps": lambda workflow: workflow["spec"]["templates"].append({"name": "x", "steps": []}),
    "a script": lambda workflow: workflow["spec"]["templates"].append({"name": "x", "script": {}}),
}


@pytest.mark.parametrize("name", _ELSEWHERE)
def test_kyverno_sees_every_template(name: str, gate: Any) -> None:
    workflow = _workflow()
    _ELSEWHERE[name](workflow)
    assert _said(gate, workflow) == {"WORKFLOW_REFUSED"}


@pytest.mark.parametrize(("old", "new"), [('"image"', '"im\\u0061ge"'), ('"command"', '"comm\\u0061nd"')])
def test_kyverno_is_not_told_a_command_in_other_letters(old: str, new: str, gate: Any) -> None:
    workflow = copy.deepcopy(compiled([Task("train")]))
    for item in workflow["spec"]["arguments"]["parameters"]:
        if item["name"].startswith("implementations-"):
            item["value"] = item["value"].replace('"image"', '"im\\u0061ge"').replace(old, new)
    assert "TASK_UNGUARDED" in _said(gate, workflow)
