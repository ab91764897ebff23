"""What can be wrong with a cluster: changes to a good one, and what a check must say of it then."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from sealflow_kfp import spec_patch
from sealflow_kfp.doctor import CHECKS
from tests.kubeflow import cluster as clusters
from tests.kubeflow.cluster import METRICS, MOUNTS, SYSTEM, Cluster, bound, outcome

#: What is done to a good cluster, the check that is to see it, what that check says, and words of what it found.
Wrong = tuple[Callable[[Cluster], Any], str, str, str]


def see(row: Wrong, cluster: Cluster) -> None:
    """Change a good cluster, and have it looked at."""
    change, check, expected, words = row
    change(cluster)
    report = cluster.examine()
    found, said = outcome(report, check)
    assert (found, words in said) == (expected, True), said
    advisory = CHECKS[check].advisory
    if not advisory and expected != "PASS":
        assert report.verdict.status == (
            "failed" if "FAIL" in {r.outcome for r in report.results if not r.rule.advisory} else "unverifiable"
        )
        assert report.verdict.exit_status == (3 if report.verdict.status == "failed" else 5)
    for item in report.results:
        # Whatever is not as it should be comes with a next step.
        assert item.outcome in ("PASS", "SKIPPED") or item.next_step, item.check


def variable(name: str, value: str | None) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        (container, _) = cluster.get("deployment", "ml-pipeline", "kubeflow")["spec"]["template"]["spec"]["containers"]
        container["env"] = [item for item in container["env"] if item["name"] != name]
        if value is not None:
            container["env"].append({"name": name, "value": value})

    return change


def hooks(cluster: Cluster) -> list[dict[str, Any]]:
    return [
        hook
        for kind in ("mutating", "validating")
        for hook in cluster.get(f"{kind}webhookconfigurations", "sealflow-admission")["webhooks"]
    ]


def each_hook(**members: Any) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for hook in hooks(cluster):
            hook.update(copy.deepcopy(members))

    return change


def each_rule(**members: Any) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for hook in hooks(cluster):
            for rule in hook["rules"]:
                rule.update(copy.deepcopy(members))

    return change


def paths(**kinds: str) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for kind, path in kinds.items():
            for hook in cluster.get(f"{kind}webhookconfigurations", "sealflow-admission")["webhooks"]:
                hook["clientConfig"]["service"]["path"] = path

    return change


def another_service(name: str, namespace: str, port: int = 443) -> Callable[[Cluster], None]:
    """Have one of the webhooks ask another service, which has a pod as well."""

    def change(cluster: Cluster) -> None:
        (hook,) = [item for item in hooks(cluster) if item["name"] == "pods.admission.sealflow"]
        hook["clientConfig"]["service"].update(name=name, namespace=namespace, port=port)
        if (name, namespace) != ("sealflow-admission", SYSTEM):
            cluster.put("service", {"kind": "Service", "metadata": clusters.named(name, namespace)})
            labels = {"kubernetes.io/service-name": name}
            metadata = clusters.named(f"{name}-1", namespace, **labels)
            ready = [{"addresses": ["10.0.0.8"], "conditions": {"ready": True}}]
            body = {"kind": "EndpointSlice", "metadata": metadata, "endpoints": ready}
            cluster.put("endpointslices.discovery.k8s.io", body)

    return change


def bundle(**options: float) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for hook in hooks(cluster):
            hook["clientConfig"]["caBundle"] = clusters.authority(**options)

    return change


def right(subject: str, *rules: dict[str, Any], namespace: str = "") -> Callable[[Cluster], None]:
    kind, _, name = subject.partition(" ")
    found = {"kind": kind, "name": name}
    if kind == "ServiceAccount":
        found["namespace"], _, found["name"] = name.partition("/")

    def change(cluster: Cluster) -> None:
        for listed, body in bound(found, list(rules), namespace):
            body["metadata"]["name"] += "-more"
            if "roleRef" in body:
                body["roleRef"]["name"] += "-more"
            cluster.put(listed, body)

    return change


def runs(**options: Any) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        cluster.workflows.append(clusters.workflow("run-3", **options))

    return change


def drop(kind: str, name: str, namespace: str = "") -> Callable[[Cluster], None]:
    return lambda cluster: cluster.drop(kind, name, namespace)


def no_webhooks(cluster: Cluster) -> None:
    for kind in ("mutating", "validating"):
        cluster.drop(f"{kind}webhookconfigurations", "sealflow-admission")


def nobody_ready(cluster: Cluster) -> None:
    body = cluster.get("endpointslices.discovery.k8s.io", "sealflow-admission-1", SYSTEM)
    body["endpoints"][0]["conditions"]["ready"] = False


def without_label(cluster: Cluster) -> None:
    cluster.get("namespace", "team-a")["metadata"]["labels"] = {}


def forgets(resource: str) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        for hook in hooks(cluster):
            hook["rules"] = [rule for rule in hook["rules"] if resource not in rule["resources"]]

    return change


def native(cluster: Cluster) -> None:
    (container, _) = cluster.get("deployment", "ml-pipeline", "kubeflow")["spec"]["template"]["spec"]["containers"]
    container["args"] = ["--config=/config", "--pipelinesStoreKubernetes=true"]


def metric(text: str) -> Callable[[Cluster], None]:
    return lambda cluster: cluster.raw.update({METRICS: text})


def patched(change: Callable[[dict[str, Any]], None]) -> Callable[[Cluster], None]:
    body = spec_patch.pod_patch(MOUNTS)
    change(body)
    return variable("COMPILED_PIPELINE_SPEC_PATCH", json.dumps({"podSpecPatch": json.dumps(body)}))
