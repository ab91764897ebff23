"""`sealflow kfp doctor`: who may do what would undo the guard."""

from __future__ import annotations

import pytest

from sealflow_kfp.doctor import Wanted
from tests.kubeflow.cluster import MOUNTS, SYSTEM, Cluster, key, may, outcome
from tests.kubeflow.cluster_changes import Wrong, each_hook, right, see

TASK = "ServiceAccount team-a/default-editor"
SOMEBODY = "User somebody@example.com"

WRONG: dict[str, Wrong] = {
    "tasks that make Workflows": (
        right(TASK, may("argoproj.io", "workflows", "create"), namespace="team-a"),
        "task_accounts", "FAIL", "create workflows",
    ),
    "tasks that come into pods": (
        right("Group system:serviceaccounts:team-a", may("", "pods/exec", "create"), namespace="team-a"),
        "task_accounts", "FAIL", "create pods/exec",
    ),
    "tasks that do everything": (right(TASK, may("*", "*", "*")), "task_accounts", "FAIL", "list secrets"),
    "somebody who makes Workflows": (
        right(SOMEBODY, may("argoproj.io", "*", "*"), namespace="team-a"), "workflow_creators", "FAIL", SOMEBODY,
    ),
    "somebody elsewhere who makes Workflows": (
        right(SOMEBODY, may("argoproj.io", "*", "*"), namespace="team-b"), "workflow_creators", "PASS", "nobody",
    ),
    "somebody who makes pods": (right(SOMEBODY, may("", "pods", "create")), "pod_creators", "FAIL", SOMEBODY),
    "somebody who has a controller make pods": (
        right(SOMEBODY, may("batch", "jobs", "create"), namespace="team-a"), "pod_creators", "FAIL", SOMEBODY,
    ),
    "somebody who changes what a controller makes": (
        right(SOMEBODY, may("apps", "statefulsets", "patch"), namespace="team-a"), "pod_creators", "FAIL", SOMEBODY,
    ),
    "somebody who deletes what a controller makes": (
        right(SOMEBODY, may("apps", "statefulsets", "delete"), namespace="team-a"), "pod_creators", "PASS", "nobody",
    ),
    "somebody who comes into pods": (
        right(SOMEBODY, may("", "pods/exec", "create"), namespace="team-a"), "pod_visitors", "FAIL", SOMEBODY,
    ),
    "everybody comes into pods": (
        right("Group system:authenticated", may("", "*/exec", "get")), "pod_visitors", "FAIL", "system:authenticated",
    ),
    "somebody who reads the keys": (
        right(SOMEBODY, may("", "secrets", "get", names=["sealflow"]), namespace="team-a"),
        "key_readers", "FAIL", SOMEBODY,
    ),
    "somebody who reads other secrets": (
        right(SOMEBODY, may("", "secrets", "get", names=["other"]), namespace="team-a"),
        "key_readers", "PASS", "nobody",
    ),
    "somebody who lists the secret by its name": (
        right(SOMEBODY, may("", "secrets", "list", names=["sealflow"]), namespace="team-a"),
        "key_readers", "FAIL", SOMEBODY,
    ),
    "somebody who lists another secret by its name": (
        right(SOMEBODY, may("", "secrets", "list", names=["other"]), namespace="team-a"),
        "key_readers", "PASS", "nobody",
    ),
    "somebody who comes into one pod": (
        right(SOMEBODY, may("", "pods/exec", "create", names=["train-1"]), namespace="team-a"),
        "pod_visitors", "FAIL", SOMEBODY,
    ),
    "somebody who makes a pod of one name by applying it": (
        right(SOMEBODY, may("", "pods", "create", "patch", names=["x"]), namespace="team-a"),
        "pod_creators", "FAIL", SOMEBODY,
    ),
    "somebody who may make pods of no name": (
        right(SOMEBODY, may("", "pods", "create", names=["x"]), namespace="team-a"), "pod_creators", "PASS", "nobody",
    ),
    "somebody who applies an exception of one name": (
        right(SOMEBODY, may("kyverno.io", "policyexceptions", "create", "patch", names=["x"]), namespace="team-a"),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who changes an exception": (
        right(SOMEBODY, may("policies.kyverno.io", "policyexceptions", "update"), namespace="team-a"),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who deletes all policies, held to one name": (
        right(SOMEBODY, may("policies.kyverno.io", "validatingpolicies", "deletecollection", names=["x"])),
        "gate_changers", "PASS", "nobody",
    ),
    "somebody who writes the policy": (
        right(SOMEBODY, may("", "configmaps", "patch"), namespace="team-a"), "policy_writers", "FAIL", SOMEBODY,
    ),
    "somebody who sets KFP up": (
        right(SOMEBODY, may("apps", "deployments", "update"), namespace="kubeflow"), "policy_writers", "FAIL", SOMEBODY,
    ),
    "somebody who labels namespaces": (
        right(SOMEBODY, may("", "namespaces", "patch")), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who labels his own namespace": (
        right(SOMEBODY, may("", "namespaces", "patch"), namespace="team-a"), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who changes webhooks": (
        right(SOMEBODY, may("admissionregistration.k8s.io", "*", "*")), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who makes exceptions": (
        right(SOMEBODY, may("policies.kyverno.io", "policyexceptions", "create"), namespace="team-a"),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who becomes others": (
        right(SOMEBODY, may("", "users", "impersonate")), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who reaches pods through their nodes": (
        right(SOMEBODY, may("", "nodes/proxy", "create")), "pod_visitors", "FAIL", SOMEBODY,
    ),
    "somebody who reaches pods through one node, and only reads": (
        right(SOMEBODY, may("", "nodes/proxy", "get", names=["node-1"])), "pod_visitors", "FAIL", SOMEBODY,
    ),
    "somebody who reads nodes": (right(SOMEBODY, may("", "nodes", "get")), "pod_visitors", "PASS", "nobody"),
    "tasks that reach pods through their nodes": (
        right(TASK, may("", "nodes/proxy", "get")), "task_accounts", "FAIL", "get nodes/proxy",
    ),
    "tasks that become others": (
        right(TASK, may("", "serviceaccounts/token", "create"), namespace="team-a"),
        "task_accounts", "FAIL", "create serviceaccounts/token",
    ),
    "tasks that list a secret of another name": (
        right(TASK, may("", "secrets", "list", names=["store"]), namespace="team-a"),
        "task_accounts", "PASS", "nothing",
    ),
    "somebody who gets tokens of a task's account": (
        right(SOMEBODY, may("", "serviceaccounts/token", "create", names=["default-editor"]), namespace="team-a"),
        "key_readers", "FAIL", SOMEBODY,
    ),
    "somebody who gets tokens of another account": (
        right(SOMEBODY, may("", "serviceaccounts/token", "create", names=["viewer"]), namespace="team-a"),
        "key_readers", "PASS", "nobody",
    ),
    "somebody who gets tokens of Argo's controller": (
        right(SOMEBODY, may("", "serviceaccounts/token", "create", names=["argo"]), namespace="kubeflow"),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who gets tokens of the cluster's controllers": (
        right(SOMEBODY, may("", "serviceaccounts/token", "create"), namespace="kube-system"),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who gets tokens where nobody has rights": (
        right(SOMEBODY, may("", "serviceaccounts/token", "create"), namespace="team-b"),
        "gate_changers", "PASS", "nobody",
    ),
    "somebody who acts as accounts of KFP's": (
        right(SOMEBODY, may("", "serviceaccounts", "impersonate"), namespace="kubeflow"),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who changes the admission server": (
        right(SOMEBODY, may("apps", "deployments", "patch", names=["sealflow-admission"]), namespace=SYSTEM),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who makes pods beside the admission server": (
        right(SOMEBODY, may("", "pods", "create"), namespace=SYSTEM), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who makes jobs beside the admission server": (
        right(SOMEBODY, may("batch", "jobs", "create"), namespace=SYSTEM), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who changes what the admission server is told": (
        right(SOMEBODY, may("", "configmaps", "update"), namespace=SYSTEM), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who reads the admission server's key": (
        right(SOMEBODY, may("", "secrets", "get"), namespace=SYSTEM), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who comes into the admission server": (
        right(SOMEBODY, may("", "pods/exec", "create"), namespace=SYSTEM), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who looks at the admission server": (
        right(SOMEBODY, may("", "pods", "get", "list"), namespace=SYSTEM), "gate_changers", "PASS", "nobody",
    ),
    "somebody who gives rights away there": (
        right(SOMEBODY, may("rbac.authorization.k8s.io", "roles", "bind"), namespace=SYSTEM),
        "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who may take off the label": (
        right(SOMEBODY, may("sealflow", "namespaces", "unguard")), "gate_changers", "FAIL", SOMEBODY,
    ),
    "somebody who may take off another namespace's label": (
        right(SOMEBODY, may("sealflow", "namespaces", "unguard", names=["team-b"])), "gate_changers", "PASS", "nobody",
    ),
    "a gate that lies elsewhere": (
        each_hook(clientConfig={"url": "https://gate.example/", "caBundle": ""}), "gate_changers", "UNKNOWN",
        "no service",
    ),
    "an account in a user's clothes": (
        right("User system:serviceaccount:team-a:default-editor", may("*", "*", "*")),
        "gate_changers", "FAIL", "ServiceAccount team-a/default-editor",
    ),
    "a controller of the cluster itself": (
        right("ServiceAccount kube-system/namespace-controller", may("*", "*", "*")), "gate_changers", "PASS", "nobody",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen(name: str, good: Cluster) -> None:
    see(WRONG[name], good)


def test_who_is_allowed_is_left_out(good: Cluster) -> None:
    right(SOMEBODY, may("*", "*", "*"))(good)
    report = good.examine(Wanted(namespaces=("team-a",), mounts=MOUNTS, allowed=frozenset({SOMEBODY})))
    assert report.verdict.passed


def test_rights_are_asked_for_where_roles_may_not_be_read(good: Cluster) -> None:
    good.refused["get", "clusterroles", "--output=json"] = (
        'Error from server (Forbidden): clusterroles is forbidden: User "a" cannot list resource "clusterroles"'
    )
    good.program()
    who = "--as=system:serviceaccount:team-a:default-editor"
    for account in ("pipeline-runner", "default-editor"):
        for verb, kind in (
            ("create", "workflows.argoproj.io"), ("patch", "workflows.argoproj.io"), ("create", "pods"),
            ("create", "pods/exec"), ("list", "secrets"), ("patch", "configmaps"), ("patch", "namespaces"),
            ("create", "serviceaccounts/token"), ("impersonate", "serviceaccounts"), ("create", "nodes/proxy"),
            ("get", "nodes/proxy"),
        ):  # fmt: skip
            where = [] if kind.startswith("nodes") else ["--namespace=team-a"]
            name = key("auth", "can-i", verb, kind, f"--as=system:serviceaccount:team-a:{account}", *where)
            (good.folder / f"{name}.no").write_text("no - nobody said so\n")
    report = good.examine()
    assert outcome(report, "task_accounts")[0] == "PASS"
    assert outcome(report, "gate_changers")[0] == "UNKNOWN"
    name = key("auth", "can-i", "create", "pods/exec", who, "--namespace=team-a")
    (good.folder / name).write_text("yes\n")
    found, said = outcome(good.examine(), "task_accounts")
    assert (found, said) == ("FAIL", "team-a/default-editor: create pods/exec")


def test_accounts_of_whoever_is_allowed_are_not_anybody_s(good: Cluster) -> None:
    right(SOMEBODY, may("", "serviceaccounts/token", "create"), namespace="tools")(good)
    wanted = Wanted(namespaces=("team-a",), mounts=MOUNTS)
    assert outcome(good.examine(wanted), "gate_changers")[0] == "PASS"
    trusted = Wanted(namespaces=("team-a",), mounts=MOUNTS, allowed=frozenset({"ServiceAccount tools/argocd"}))
    found, said = outcome(good.examine(trusted), "gate_changers")
    assert (found, SOMEBODY in said) == ("FAIL", True)
