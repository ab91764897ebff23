"""`sealflow kfp doctor`: whether the admission server is asked, answers, and refuses."""

from __future__ import annotations

import pytest

from tests.kubeflow import cluster as clusters
from tests.kubeflow.cluster import SYSTEM, Cluster
from tests.kubeflow.cluster_changes import (
    Wrong,
    another_service,
    bundle,
    drop,
    each_hook,
    each_rule,
    forgets,
    hooks,
    metric,
    no_webhooks,
    nobody_ready,
    paths,
    see,
    without_label,
)

AUTHORITY = clusters.authority()

WRONG: dict[str, Wrong] = {
    "no webhook": (no_webhooks, "enforcement", "FAIL", "neither"),
    "no mutating webhook": (
        drop("mutatingwebhookconfigurations", "sealflow-admission"), "webhook", "FAIL", "CREATE workflows (mutating)",
    ),
    "a webhook not asked about pods": (forgets("pods"), "webhook", "FAIL", "CREATE pods"),
    "a webhook not asked about debugging": (forgets("pods/ephemeralcontainers"), "webhook", "FAIL", "ephemeral"),
    "a webhook for some objects": (
        each_hook(objectSelector={"matchLabels": {"a": "b"}}), "webhook", "FAIL", "not asked about",
    ),
    "a webhook with a condition": (
        each_hook(matchConditions=[{"name": "x", "expression": "false"}]), "webhook", "FAIL", "not asked about",
    ),
    "a webhook for one version": (each_hook(matchPolicy="Exact"), "webhook", "FAIL", "not asked about"),
    "a webhook for versions that are not served": (
        each_rule(apiVersions=["v9"]), "webhook", "FAIL", "not asked about CREATE workflows",
    ),
    "a webhook for the versions that are served": (
        each_rule(apiVersions=["v1", "v1alpha1"]), "webhook", "PASS", "all of it",
    ),
    "a webhook for pods of the version of Workflows": (
        each_rule(apiVersions=["v1alpha1"]), "webhook", "FAIL", "CREATE pods",
    ),
    "a judging webhook that asks for changes": (
        paths(validating="/mutate"), "webhook", "FAIL", "not asked about CREATE workflows (validating)",
    ),
    "a changing webhook that asks for a judgement": (
        paths(mutating="/validate"), "webhook", "FAIL", "not asked about CREATE workflows (mutating)",
    ),
    "a webhook without a path": (paths(mutating="", validating=""), "webhook", "FAIL", "(validating)"),
    "webhooks at two services": (another_service("sealflow-other", SYSTEM), "webhook", "FAIL", "sealflow-other"),
    "webhooks at two services do not enforce": (
        another_service("sealflow-other", SYSTEM), "enforcement", "FAIL", "neither",
    ),
    "webhooks in two namespaces": (another_service("sealflow-admission", "team-a"), "webhook", "FAIL", "team-a/"),
    "webhooks at two ports": (another_service("sealflow-admission", SYSTEM, 8443), "webhook", "FAIL", ":8443"),
    "a webhook that fails open": (each_hook(failurePolicy="Ignore"), "webhook_failure_policy", "FAIL", "let through"),
    "a webhook that fails open does not enforce": (each_hook(failurePolicy="Ignore"), "enforcement", "FAIL", "neither"),
    "a namespace without the label": (without_label, "webhook_namespaces", "FAIL", "team-a"),
    "a namespace that is not there": (drop("namespace", "team-a"), "webhook_namespaces", "UNKNOWN", "no namespace"),
    "a selector of an unknown kind": (
        each_hook(namespaceSelector={"matchExpressions": [{"key": "a", "operator": "Near"}]}),
        "webhook_namespaces", "UNKNOWN", "Near",
    ),
    "an authority that has expired": (bundle(days=-1, ago=9), "webhook_authority", "FAIL", "expired"),
    "an authority that expires soon": (bundle(days=3), "webhook_authority", "FAIL", "2 days"),
    "no authority": (
        each_hook(clientConfig={"service": {"name": "sealflow-admission", "namespace": SYSTEM}}),
        "webhook_authority", "FAIL", "names no certificate authority",
    ),
    "an authority that is none": (
        each_hook(clientConfig={"caBundle": "eA==", "service": {"name": "a", "namespace": "b"}}),
        "webhook_authority", "UNKNOWN", "bundle",
    ),
    "a certificate that has expired": (
        metric("sealflow_admission_certificate_not_after_seconds 17e8\n"), "webhook_certificate", "FAIL", "expired",
    ),
    "a server that only tells": (
        metric("sealflow_admission_enforcing 0.0\n"), "webhook_mode", "FAIL", "audit",
    ),
    "a server that only tells does not enforce": (
        metric("sealflow_admission_enforcing 0.0\n"), "enforcement", "FAIL", "neither",
    ),
    "a server that does not say whether it refuses": (metric(""), "enforcement", "UNKNOWN", "neither"),
    "advice that may be out of reach": (
        lambda cluster: [hook.update(failurePolicy="Ignore") for hook in hooks(cluster) if "version" in hook["name"]],
        "webhook_failure_policy", "PASS", "refused",
    ),
    "a webhook not asked who comes into pods": (forgets("pods/exec"), "webhook", "FAIL", "CONNECT pods/exec"),
    "a certificate that nobody tells of": (metric("up 1\n"), "webhook_certificate", "UNKNOWN", "do not say"),
    "a certificate without end": (
        metric("sealflow_admission_certificate_not_after_seconds 9e99\n"), "webhook_certificate", "UNKNOWN", "do not",
    ),
    "nobody ready": (nobody_ready, "webhook_endpoints", "FAIL", "nobody ready"),
    "no service": (drop("service", "sealflow-admission", SYSTEM), "webhook_endpoints", "FAIL", "no Service"),
    "a webhook somewhere else": (
        each_hook(clientConfig={"url": "https://evil.example/admit", "caBundle": AUTHORITY}),
        "webhook_endpoints", "UNKNOWN", "no service of the cluster",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen(name: str, good: Cluster) -> None:
    see(WRONG[name], good)
