"""A cluster, or a kubectl, that answers what nobody expects: the doctor says so, and says nothing is well."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealflow_kfp.doctor import CHECKS, Kubectl, Report, examine
from sealflow_kfp.doctor import kubectl as program
from tests.kubeflow import cluster as clusters
from tests.kubeflow.cluster import WANTED, Cluster, outcome


def script(folder: Path, body: str) -> str:
    path = folder / "kubectl"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def outcomes(report: Report) -> set[str]:
    return {item.outcome for item in report.results}


# --- kubectl itself ---


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("printf 'no json'", "not understood"),
        ("printf '{\"items\":[],\"items\":[]}'", "twice"),
        ("printf '%0.s[' $(seq 500)", "not understood"),
        ("printf '\\377\\376'", "not understood"),
        ("printf '{}'", "something else"),
        ("printf '{\"metadata\":{\"name\":\"other\"}}'", "something else"),
        ("printf '[1, 2]'", "not understood"),
        ("printf '\"text\"'", "not understood"),
        ("", "not understood"),
        ("echo 'Error from server (Forbidden): User \"a\" cannot get' >&2; exit 1", "cannot get"),
        ("echo 'Error from server (InternalError): etcd is away' >&2; exit 1", "etcd is away"),
        ("echo 'error: You must be logged in to the server (Unauthorized)' >&2; exit 1", "logged in"),
        ("echo 'error: context \"x\" does not exist' >&2; exit 1", "does not exist"),
        ("echo 'Unable to connect to the server: no route' >&2; exit 1", "no route"),
        ("printf '\\033[2Jgone' >&2; exit 7", "\\u001b[2Jgone"),
        ("kill -9 $$", "kubectl said nothing"),
        ("exit 1", "kubectl said nothing"),
    ],
    ids=[
        "garbage", "duplicate names", "deep", "no text", "an empty object",
        "another object", "a list", "a text", "nothing", "no right", "an inner error",
        "no login", "no context", "no route", "control characters", "killed", "a status alone",
    ],
)  # fmt: skip
def test_a_kubectl_that_is_of_no_use_leaves_all_unknown(body: str, words: str, tmp_path: Path) -> None:
    report = examine(Kubectl(script(tmp_path, body), timeout=60), WANTED)
    assert outcomes(report) <= {"UNKNOWN", "SKIPPED"}
    assert report.verdict.status == "unverifiable"
    assert report.verdict.exit_status == 5
    assert words in outcome(report, "cluster")[1]
    assert all(item.next_step for item in report.results if item.outcome == "UNKNOWN")


def test_no_kubectl(tmp_path: Path) -> None:
    report = examine(Kubectl(str(tmp_path / "none")), WANTED)
    assert outcomes(report) == {"UNKNOWN", "SKIPPED"}
    assert "cannot be started" in outcome(report, "cluster")[1]


def test_who_is_not_reached_is_asked_once(tmp_path: Path) -> None:
    log = tmp_path / "asked"
    body = f"echo x >> '{log}'; echo 'Unable to connect to the server: dial tcp' >&2; exit 1"
    examine(Kubectl(script(tmp_path, body), timeout=60), WANTED)
    assert log.read_text() == "x\n"


def test_a_slow_answer_is_given_up(tmp_path: Path) -> None:
    left = tmp_path / "pid"
    # A helper that holds the pipe goes with it.
    body = f"sleep 300 & echo $! > '{left}'; sleep 300"
    began = time.monotonic()
    answer = Kubectl(script(tmp_path, body), timeout=0.2).get("namespace", "kubeflow")
    assert "in time" in answer.problem
    assert time.monotonic() - began < 100
    helper = int(left.read_text())
    for _ in range(200):
        state = Path(f"/proc/{helper}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the helper still runs")


def test_time_for_all_questions_ends(tmp_path: Path) -> None:
    cluster = Kubectl(script(tmp_path, "exit 1"), budget=0)
    assert "is over" in cluster.get("namespace", "kubeflow").problem
    assert outcomes(examine(cluster, WANTED)) == {"UNKNOWN", "SKIPPED"}


def test_a_huge_answer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "MAX_ANSWER", 1 << 20)
    answer = Kubectl(script(tmp_path, "exec cat /dev/zero"), timeout=100).get("namespace", "kubeflow")
    assert "more than 1 MiB" in answer.problem


def test_huge_diagnostics_are_cut(tmp_path: Path) -> None:
    body = "head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1"
    answer = Kubectl(script(tmp_path, body), timeout=100).get("namespace", "kubeflow")
    assert len(answer.problem) <= 300


def test_a_context_is_handed_on(tmp_path: Path) -> None:
    body = f"printf '%s\\n' \"$@\" > '{tmp_path}/arguments'; echo '{{}}'"
    Kubectl(script(tmp_path, body), "prod; rm -rf /", timeout=7).get("namespace", "kubeflow")
    assert (tmp_path / "arguments").read_text().splitlines() == [
        "--request-timeout=7s", "--context=prod; rm -rf /", "get", "namespace", "kubeflow", "--output=json",
    ]  # fmt: skip


# --- What the cluster says ---


@pytest.mark.parametrize("kind", ["clusterroles", "clusterrolebindings", "roles", "rolebindings"])
def test_rights_that_cannot_be_read_are_unknown(kind: str, good: Cluster) -> None:
    where = [] if kind.startswith("cluster") else ["--all-namespaces"]
    refusal = f'Error from server (Forbidden): {kind} is forbidden: User "a" cannot list resource "{kind}"'
    good.refused[("get", kind, *where, "--output=json")] = refusal
    report = good.examine()
    unknown = {item.check for item in report.results if item.outcome == "UNKNOWN"}
    assert unknown == {
        "task_accounts", "workflow_creators", "pod_creators", "pod_visitors", "key_readers", "policy_writers",
        "gate_changers",
    }  # fmt: skip
    assert report.verdict.status == "unverifiable"


def test_a_cluster_without_roles_is_not_believed(good: Cluster) -> None:
    for kind, namespace, name in [item for item in good.objects if item[0] == "clusterrolebindings"]:
        good.drop(kind, name, namespace)
    assert outcome(good.examine(), "gate_changers")[0] == "UNKNOWN"


def test_webhooks_that_cannot_be_read_are_no_gate(good: Cluster) -> None:
    kind = "validatingwebhookconfigurations"
    refusal = f'Error from server (Forbidden): {kind} is forbidden: User "a" cannot list resource "{kind}"'
    good.refused["get", kind, "--output=json"] = refusal
    report = good.examine()
    assert outcome(report, "webhook")[0] == "UNKNOWN"
    assert outcome(report, "enforcement")[0] == "UNKNOWN"


def test_kyverno_that_is_not_there_is_an_answer(good: Cluster) -> None:
    kind = "validatingpolicies.policies.kyverno.io"
    good.refused["get", kind, "--output=json"] = f'error: the server doesn\'t have a resource type "{kind}"\n'
    assert good.examine().verdict.passed


@pytest.mark.parametrize(
    "value",
    ['{"cachingOptions":{"enableCache":true,"enableCache":false}}', "{", f"{{{'[' * 500}", '{"cachingOptions":7}'],
    ids=["twice", "half", "deep", "a number"],
)
def test_a_task_that_is_not_understood_is_not_called_uncached(value: str, good: Cluster) -> None:
    (task,) = good.workflows[0]["spec"]["templates"][1]["dag"]["tasks"]
    task["arguments"]["parameters"][0]["value"] = value
    assert outcome(good.examine(), "runs_cached")[0] == "UNKNOWN"


def test_names_of_the_cluster_are_made_safe(good: Cluster) -> None:
    good.workflows.append(clusters.workflow("\x1b[2J‮run", guard=()))
    assert "\x1b" not in json.dumps(good.examine().as_dict(), ensure_ascii=False)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for name, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ()):
        yield from _places(item, (*path, name))


_ODD = (None, 7, "", "x", [], {}, [[]], [None], [7], {"x": None}, True, "\x00", 1 << 70)


@pytest.mark.slow
def test_no_answer_makes_it_crash(good: Cluster) -> None:
    """Each answer with one part of it exchanged for something odd."""
    numbers = random.Random(20261123)
    answers = [(("objects", name), body) for name, body in good.objects.items()]
    answers += [(("raw", name), body) for name, body in good.raw.items() if isinstance(body, dict)]
    answers += [(("workflows", index), body) for index, body in enumerate(good.workflows)]
    seen = set()
    for _ in range(150):
        (kind, name), body = numbers.choice(answers)
        path = numbers.choice(list(_places(body)))
        changed = copy.deepcopy(body)
        place: Any = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = numbers.choice(_ODD)
        getattr(good, kind)[name] = changed
        report = good.examine()
        seen |= outcomes(report)
        assert [item.check for item in report.results] == list(CHECKS)
        getattr(good, kind)[name] = body
    assert seen == {"PASS", "FAIL", "UNKNOWN", "SKIPPED"}
    assert good.examine().verdict.passed
