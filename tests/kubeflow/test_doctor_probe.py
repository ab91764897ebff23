"""`sealflow kfp doctor --probe`: what the cluster says of an unguarded pod, and whose refusal is sealflow's."""

from __future__ import annotations

import json

import pytest

from sealflow_kfp.doctor import Kubectl, Wanted, probe
from sealflow_kfp.doctor.kubectl import Answer
from sealflow_kfp.doctor.place import Place
from tests.kubeflow.cluster import MOUNTS, WANTED, Cluster, key, outcome

QUESTION = ("create", "--dry-run=server", "--validate=false", "--output=name", "--filename=-")
FORBIDDEN = "Error from server (Forbidden): "
DENIED = f'{FORBIDDEN}error when creating "STDIN": admission webhook'

#: What kubectl prints, what the check says of it, and words of it.
ANSWERS = {
    "the admission server": (
        f'{FORBIDDEN}admission webhook "pods.admission.sealflow" denied the request: x', "PASS", "refused in team-a",
    ),
    "the admission server, of a file": (
        f'{DENIED} "pods.admission.sealflow" denied the request: x', "PASS", "refused in team-a",
    ),
    "Kyverno": (
        'Error from server: error when creating "STDIN": admission webhook "vpol.validate.kyverno.svc-fail" '
        "denied the request: Policy sealflow-pods failed: TASK_UNGUARDED", "PASS", "",
    ),
    "Kyverno, after another policy": (
        f'{DENIED} "vpol.validate.kyverno.svc-fail" denied the request: Policy labels failed: none; '
        "Policy sealflow-pods failed: TASK_UNGUARDED", "PASS", "",
    ),
    "Kyverno, which could not judge": (
        f'{DENIED} "vpol.validate.kyverno.svc-fail" denied the request: Policy sealflow-pods error: x', "UNKNOWN", "",
    ),
    "another policy of Kyverno's": (
        f'{DENIED} "vpol.validate.kyverno.svc-fail" denied the request: Policy sealflow-labels failed: no',
        "UNKNOWN", "",
    ),
    "no right to ask": (f'{FORBIDDEN}pods is forbidden: User "a" cannot create resource "pods"', "UNKNOWN", ""),
    "another webhook": (f'{FORBIDDEN}admission webhook "other" denied the request: no', "UNKNOWN", "other"),
    "another webhook, which names the pod": (
        f'{DENIED} "pods.corp.example" denied the request: pod sealflow-doctor-abc12 has no owner', "UNKNOWN", "corp",
    ),
    "another webhook, which speaks of ours": (
        f'{DENIED} "pods.corp.example" denied the request: admission webhook "pods.admission.sealflow" denied the'
        " request: Policy sealflow-pods failed: x", "UNKNOWN", "corp",
    ),
    "another webhook of a similar name": (
        f'{DENIED} "pods.admission.sealflow.example" denied the request: no', "UNKNOWN", "example",
    ),
    "a quota": (
        f'{FORBIDDEN}error when creating "STDIN": pods "sealflow-x" is forbidden: exceeded quota: sealflow', "UNKNOWN",
        "quota",
    ),
    "a policy of the API server": (
        f'{FORBIDDEN}pods "x" is forbidden: ValidatingAdmissionPolicy \'sealflow-pods\' with binding \'x\' denied'
        " request: no", "UNKNOWN", "ValidatingAdmissionPolicy",
    ),
    "the server, which does not answer": (
        'Error from server (InternalError): Internal error occurred: failed calling webhook "pods.admission.sealflow": '
        "no endpoints available", "UNKNOWN", "no endpoints",
    ),
    "nobody: it may start": (None, "FAIL", "may start in team-a"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_the_cluster_judges_an_unguarded_pod(name: str, good: Cluster) -> None:
    answer, expected, words = ANSWERS[name]
    if answer is None:
        good.program()
        (good.folder / key(*QUESTION)).write_text("pod/guard-probe-x created (server dry run)\n")
    else:
        good.refused[QUESTION] = answer
    report = good.examine(Wanted(namespaces=("team-a",), mounts=MOUNTS, probe=True))
    found, said = outcome(report, "refusal")
    assert (found, words in said) == (expected, True), said


def test_a_pod_that_may_start_is_told_though_another_namespace_says_nothing(
    good: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = Kubectl(str(good.program()))
    said = {"team-a": Answer(body=b"pod/x\n"), "team-b": Answer(problem="etcd is away", next_step="Wait.")}
    monkeypatch.setattr(kubectl, "try_out", lambda body: said[json.loads(body)["metadata"]["namespace"]])
    found = probe.answers(Place(kubectl, Wanted(namespaces=("team-b", "team-a"), probe=True)))
    assert (found.outcome, "team-a" in found.found) == ("FAIL", True)


def test_nothing_in_the_pod_is_named_like_a_gate() -> None:
    assert "sealflow" not in probe._pod("team-a").decode()


def test_it_is_not_asked_unbidden(good: Cluster) -> None:
    assert outcome(good.examine(WANTED), "refusal")[0] == "SKIPPED"
    assert not [question for question in good.asked() if question.startswith("create")]
