"""`sealflow kfp doctor`: Kyverno in the place of the admission server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sealflow_kfp.doctor import Wanted
from sealflow_kfp.kyverno import policies
from tests.kubeflow import cluster as clusters
from tests.kubeflow.cluster import Cluster, may, outcome
from tests.kubeflow.cluster_changes import drop, no_webhooks, right, without_label


@pytest.fixture
def kyverno(good: Cluster) -> Cluster:
    """A cluster with Kyverno in the place of the admission server."""
    from tests.kubeflow.cluster_pods import SETTINGS

    no_webhooks(good)
    for policy in policies(SETTINGS):
        body = json.loads(json.dumps(policy))
        body["status"] = {"conditionStatus": {"ready": True, "message": ""}}
        good.put("validatingpolicies.policies.kyverno.io", body)
    hook = clusters.hook(
        "vpol.validate.kyverno.svc-fail", [clusters.rule("", ["pods"], ["CREATE"])], clusters.authority()
    )
    hook["clientConfig"]["service"] = {"name": "kyverno-svc", "namespace": "kyverno", "path": "/vpol"}
    hook["namespaceSelector"] = {
        "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kyverno"]}]
    }
    metadata = clusters.named("kyverno-resource", **{"webhook.kyverno.io/managed-by": "kyverno"})
    good.put("validatingwebhookconfigurations", {"metadata": metadata, "webhooks": [hook]})
    return good


def with_settings(**members: Any) -> Wanted:
    from tests.kubeflow.cluster_pods import SETTINGS

    return Wanted(namespaces=("team-a",), settings=SETTINGS, mounts=SETTINGS.guard.mounts, **members)


def policy(cluster: Cluster, name: str) -> dict[str, Any]:
    return dict(cluster.get("validatingpolicies.policies.kyverno.io", name))


def not_ready(cluster: Cluster) -> None:
    policy(cluster, "sealflow-pods")["status"]["conditionStatus"]["ready"] = False


def only_tells(cluster: Cluster) -> None:
    policy(cluster, "sealflow-pods")["spec"]["validationActions"] = ["Audit"]


def never(cluster: Cluster) -> None:
    policy(cluster, "sealflow-workflows")["spec"]["matchConditions"] = [{"name": "x", "expression": "false"}]


def lenient(cluster: Cluster) -> None:
    cluster.get("validatingwebhookconfigurations", "kyverno-resource")["webhooks"][0]["failurePolicy"] = "Ignore"


def excluded(cluster: Cluster) -> None:
    hook = cluster.get("validatingwebhookconfigurations", "kyverno-resource")["webhooks"][0]
    hook["namespaceSelector"]["matchExpressions"][0]["values"].append("team-a")


@pytest.mark.parametrize(
    ("change", "expected", "words"),
    [
        (lambda cluster: None, "PASS", "3 policies"),
        (drop("validatingpolicies.policies.kyverno.io", "sealflow-connections"), "FAIL", "no policy sealflow-conn"),
        (not_ready, "FAIL", "not ready"),
        (only_tells, "FAIL", "only tells: Audit"),
        (never, "FAIL", "not what this release generates"),
        (lenient, "FAIL", "fails closed"),
        (excluded, "FAIL", "team-a"),
        (without_label, "FAIL", "leaves out team-a"),
    ],
    ids=["good", "one missing", "not ready", "audit", "a condition", "fails open", "excluded", "no label"],
)
def test_kyverno_as_the_gate(change: Callable[[Cluster], Any], expected: str, words: str, kyverno: Cluster) -> None:
    change(kyverno)
    report = kyverno.examine(with_settings())
    found, said = outcome(report, "kyverno")
    assert (found, words in said) == (expected, True), said
    assert outcome(report, "enforcement")[0] == expected
    assert outcome(report, "webhook")[0] == "SKIPPED"


def test_kyverno_without_settings_is_not_known(kyverno: Cluster) -> None:
    assert outcome(kyverno.examine(), "kyverno") == ("UNKNOWN", "sealflow-pods, from settings that nobody named")


@pytest.mark.parametrize(
    ("rule", "namespace", "expected"),
    [
        (may("apps", "deployments", "patch"), "kyverno", "FAIL"),
        (may("", "configmaps", "patch"), "kyverno", "FAIL"),
        (may("", "serviceaccounts/token", "create"), "kyverno", "FAIL"),
        (may("apps", "deployments", "patch"), "elsewhere", "PASS"),
        (may("", "pods", "list"), "kyverno", "PASS"),
    ],
    ids=["its Deployments", "its settings", "its accounts", "another Deployment", "a look at it"],
)
def test_who_changes_kyverno_itself_is_seen(
    rule: dict[str, Any], namespace: str, expected: str, kyverno: Cluster
) -> None:
    right("User somebody@example.com", rule, namespace=namespace)(kyverno)
    assert outcome(kyverno.examine(with_settings()), "gate_changers")[0] == expected
