"""`sealflow kfp doctor`: which runs are the latest, what they tell, and in which namespaces there are any."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sealflow_kfp.admission.settings import parse_settings
from sealflow_kfp.doctor import Wanted
from sealflow_kfp.guard_command import IN_IMAGE
from sealflow_kfp.hardening.commands import _sources
from tests.kubeflow import cluster as clusters
from tests.kubeflow.cluster import MOUNTS, TASK, WANTED, WORKFLOWS, Cluster, named, outcome
from tests.kubeflow.cluster_pods import SETTINGS, SETTINGS_TEXT

FORBIDDEN = 'Error from server (Forbidden): workflows is forbidden: User "a" cannot list resource "workflows"'


def on_day(day: int, name: str, **options: Any) -> dict[str, Any]:
    return clusters.workflow(name, created=f"2026-10-{day:02}T00:00:00Z", **options)


# --- The latest ---


@pytest.mark.parametrize(
    ("check", "options"), [("runs_guarded", {"guard": ()}), ("runs_cached", {"cached": True})], ids=["bare", "cached"]
)
def test_the_latest_run_is_looked_at_whatever_its_name(check: str, options: dict[str, Any], good: Cluster) -> None:
    good.workflows = [on_day(day, f"a-{day:02}") for day in range(1, 25)] + [on_day(25, "z-last", **options)]
    found, said = outcome(good.examine(), check)
    assert (found, "team-a/z-last" in said) == ("FAIL", True), said


def test_runs_that_are_too_old_are_said_to_be_left_out(good: Cluster) -> None:
    good.workflows = [on_day(1, "z-first", guard=())] + [on_day(day, f"a-{day:02}") for day in range(2, 26)]
    expected = ("PASS", "all tasks of 20 runs; 5 older Workflows not looked at")
    assert outcome(good.examine(), "runs_guarded") == expected
    assert outcome(good.examine(), "runs_cached") == ("PASS", "off in 20 runs; 5 older Workflows not looked at")


def test_the_latest_of_each_namespace_are_looked_at(good: Cluster) -> None:
    good.put("namespace", {"kind": "Namespace", "metadata": named("team-b")})
    good.workflows = [on_day(day, f"a-{day:02}") for day in range(1, 25)]
    good.workflows.append(on_day(1, "other", namespace="team-b", guard=()))
    found, said = outcome(good.examine(Wanted(namespaces=("team-a", "team-b"), mounts=MOUNTS)), "runs_guarded")
    assert (found, said) == ("FAIL", "without the wrapper: team-b/other (1 of 21 runs)")


def test_workflows_that_are_no_runs_are_none(good: Cluster) -> None:
    body = on_day(2, "other")
    body["metadata"].pop("labels")
    body["spec"]["arguments"]["parameters"].clear()
    good.workflows = [body]
    assert outcome(good.examine(), "runs_guarded")[0] == "UNKNOWN"


def test_one_run_is_looked_at(good: Cluster) -> None:
    good.workflows = [on_day(1, "only")]
    assert outcome(good.examine(), "runs_guarded") == ("PASS", "all tasks of 1 runs")


@pytest.mark.parametrize(
    "change",
    [{"creationTimestamp": "<none>"}, {"creationTimestamp": "yesterday"}, {"name": "--all"}, {"name": "a b"}],
    ids=["no time", "no time that sorts", "an option", "two words"],
)
def test_a_table_that_is_not_understood(change: dict[str, str], good: Cluster) -> None:
    body = on_day(1, "odd")
    body["metadata"].update(change)
    good.workflows = [body]
    assert outcome(good.examine(), "runs_guarded")[0] == "UNKNOWN"


def test_another_run_than_was_asked_for_is_not_believed(good: Cluster) -> None:
    good.workflows = [on_day(1, "run-1")]
    question = ("get", WORKFLOWS, "run-1", "--namespace=team-a", "--ignore-not-found", "--output=json")
    good.raw["unused"] = ""
    good.program()
    good._write(question, on_day(1, "run-2"))
    report = good.examine(write=False)
    assert outcome(report, "runs_guarded")[0] == "UNKNOWN"


def test_runs_that_are_gone_meanwhile_are_none(good: Cluster) -> None:
    good.workflows = [on_day(1, "run-1")]
    good.program()
    good._write(("get", WORKFLOWS, "run-1", "--namespace=team-a", "--ignore-not-found", "--output=json"), "")
    assert outcome(good.examine(write=False), "runs_guarded") == ("UNKNOWN", "no run to look at")


# --- Caching, written in other ways ---

CACHED = json.dumps({"cachingOptions": {"enableCache": True}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f" \n{CACHED}", "FAIL"),
        ("{{workflow.parameters.mine}}", "UNKNOWN"),
        ('{"name": "{{workflow.parameters.mine}}"}', "UNKNOWN"),
        ("{{inputs.parameters.other}}", "UNKNOWN"),
        ("{{=sprig.b64dec('e30=')}}", "UNKNOWN"),
        ("train", "UNKNOWN"),
        ("{{inputs.parameters.task}}", "PASS"),
        ("", "PASS"),
        ('{"name": "{{$.inputs.parameters[\'x\']}}"}', "PASS"),
    ],
    ids=[
        "blanks", "a parameter", "a parameter inside", "another input", "an expression", "no JSON", "handed on",
        "nothing", "KFP's own",
    ],
)  # fmt: skip
def test_a_task_in_other_words_is_not_called_uncached(value: str, expected: str, good: Cluster) -> None:
    (task,) = good.workflows[0]["spec"]["templates"][1]["dag"]["tasks"]
    task["arguments"]["parameters"][0]["value"] = value
    assert outcome(good.examine(), "runs_cached")[0] == expected


@pytest.mark.parametrize(
    ("check", "options"), [("runs_guarded", {"guard": ()}), ("runs_cached", {"cached": True})], ids=["bare", "cached"]
)
def test_a_run_that_nobody_understands_hides_no_other(check: str, options: dict[str, Any], good: Cluster) -> None:
    odd = clusters.workflow("odd")
    (task,) = odd["spec"]["templates"][1]["dag"]["tasks"]
    task["arguments"]["parameters"][0]["value"] = odd["spec"]["arguments"]["parameters"][1]["value"] = "{"
    good.workflows.insert(0, odd)
    found, said = outcome(good.examine(), check)
    assert (found, "team-a/odd" in said) == ("UNKNOWN", True), said
    good.workflows.append(clusters.workflow("wrong", **options))
    found, said = outcome(good.examine(), check)
    assert (found, "team-a/wrong" in said) == ("FAIL", True), said


def test_a_task_by_default_counts(good: Cluster) -> None:
    driver = good.workflows[0]["spec"]["templates"][0]
    driver["inputs"] = {"parameters": [{"name": "task", "default": CACHED}]}
    assert outcome(good.examine(), "runs_cached")[0] == "FAIL"


def test_a_task_from_elsewhere_is_not_understood(good: Cluster) -> None:
    (task,) = good.workflows[0]["spec"]["templates"][1]["dag"]["tasks"]
    task["arguments"]["parameters"][0] = {"name": "task", "valueFrom": {"expression": "x"}}
    assert outcome(good.examine(), "runs_cached")[0] == "UNKNOWN"


@pytest.mark.parametrize(
    "options",
    [["--cache_disabled=false"], ["-cache_disabled=false"], ["--cache_disabled=0", "--cache_disabled=true"]],
    ids=["the last counts", "one dash", "the first"],
)
def test_an_option_that_is_taken_back_switches_nothing_off(options: list[str], good: Cluster) -> None:
    good.workflows = [on_day(1, "run", cached=True, disabled=True)]
    assert outcome(good.examine(), "runs_cached")[0] == "PASS"
    good.workflows[0]["spec"]["templates"][0]["container"]["args"] += options
    assert outcome(good.examine(), "runs_cached")[0] == "FAIL"


# --- Which guard counts ---


def own(image: str = TASK) -> dict[str, Any]:
    """Return a run of one of sealflow's own components."""
    program = (
        'program_path=$(mktemp -d)\nprintf "%s" "$0" > "$program_path/ephemeral_component.py"\n_KFP_RUNTIME=true '
        'python3 -m kfp.dsl.executor_main --component_module_path "$program_path/ephemeral_component.py" "$@"\n'
    )
    command = ["sh", "-ec", program, f"\nimport kfp\nfrom kfp import dsl\n\n{_sources()['verify_artifact']}\n"]
    arguments = ["--executor_input", "{{$}}", "--function_to_execute", "verify_artifact"]
    body = clusters.workflow("own")
    body["spec"]["arguments"]["parameters"][1]["value"] = json.dumps(
        {"image": image, "command": command, "args": arguments}
    )
    return body


NAMED = parse_settings(f"{SETTINGS_TEXT}images:\n  sealflow: ['{TASK}']\n".encode())
IMAGE = clusters.workflow("in-image", guard=IN_IMAGE)

GUARDS = {
    "an image's own guard, where nobody judges pods": (IMAGE, (), None, "PASS", "1 of them by a guard in their image"),
    "an image's own guard, behind the admission server": (IMAGE, ("admission",), None, "FAIL", "team-a/in-image"),
    "an image's own guard, behind Kyverno": (IMAGE, ("kyverno",), SETTINGS, "FAIL", "team-a/in-image"),
    "an image's own guard, with the spec patch": (IMAGE, ("spec-patch",), None, "PASS", "in their image"),
    "the guard directory": (clusters.workflow("run"), ("admission",), None, "PASS", "all tasks of 1 runs"),
    "an own component, where nobody judges pods": (own(), (), None, "PASS", "in their image"),
    "an own component in an image that is named": (own(), ("admission",), NAMED, "PASS", "all tasks of 1 runs"),
    "an own component in another image": (own("evil@sha256:0"), ("admission",), NAMED, "FAIL", "team-a/own"),
    "an own component, without settings": (own(), ("admission",), None, "UNKNOWN", "settings"),
}


@pytest.mark.parametrize("name", GUARDS)
def test_which_guard_counts(name: str, good: Cluster) -> None:
    body, routes, settings, expected, words = GUARDS[name]
    good.workflows = [body]
    wanted = Wanted(namespaces=("team-a",), mounts=MOUNTS, routes=frozenset(routes), settings=settings)
    found, said = outcome(good.examine(wanted), "runs_guarded")
    assert (found, words in said) == (expected, True), said


# --- Where runs are ---


def test_a_namespace_of_no_profile_with_runs_is_looked_at(good: Cluster) -> None:
    good.put("namespace", {"kind": "Namespace", "metadata": named("lab")})
    good.workflows.append(clusters.workflow("bare", namespace="lab", guard=()))
    report = good.examine(Wanted(mounts=MOUNTS))
    assert "lab" in outcome(report, "webhook_namespaces")[1]
    assert outcome(report, "runs_guarded")[0] == "FAIL"
    assert outcome(report, "secret")[1] == "no secret sealflow in kubeflow, lab"


@pytest.mark.parametrize(("value", "there"), [("true", True), ("yes", True), ("false", False)])
def test_a_labelled_namespace_without_runs_is_looked_at(value: str, there: bool, good: Cluster) -> None:
    good.put("namespace", {"kind": "Namespace", "metadata": named("lab", **{"sealflow/guard": value})})
    assert ("lab" in outcome(good.examine(Wanted(mounts=MOUNTS)), "secret")[1]) == there


def test_runs_of_a_namespace_that_nobody_named_are_not_asked_for(good: Cluster) -> None:
    good.examine(WANTED)
    assert not [question for question in good.asked() if "all-namespaces" in question and "workflows" in question]


def test_namespaces_are_unknown_where_workflows_may_not_be_read(good: Cluster) -> None:
    good.refused["get", WORKFLOWS, "--all-namespaces", "--no-headers"] = FORBIDDEN
    report = good.examine(Wanted(mounts=MOUNTS))
    assert outcome(report, "webhook_namespaces") == ("UNKNOWN", FORBIDDEN)
    assert not {"secret", "task_accounts", "gate_changers", "runs_guarded"} & {
        item.check for item in report.results if item.outcome == "PASS"
    }


def test_a_table_with_odd_namespaces_is_not_understood(good: Cluster) -> None:
    good.workflows.append(clusters.workflow("x", namespace="--all"))
    assert outcome(good.examine(Wanted(mounts=MOUNTS)), "secret")[0] == "UNKNOWN"


def test_a_cluster_without_workflows_has_the_namespaces_of_profiles(good: Cluster) -> None:
    good.workflows = None
    assert outcome(good.examine(Wanted(mounts=MOUNTS)), "secret")[1] == "no secret sealflow in kubeflow"
