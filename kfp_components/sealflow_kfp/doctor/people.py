"""Checks of who may do what would undo the guard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sealflow_kfp.doctor import gates
from sealflow_kfp.doctor.place import API_SERVER, NobodyKnowsError, Place
from sealflow_kfp.doctor.report import Said
from sealflow_kfp.doctor.rights import Deed, deeds_of, holders, named

_CHANGES: Final = ("create", "update", "patch", "delete", "deletecollection")

_RBAC: Final = "rbac.authorization.k8s.io"
#: What makes pods by itself: whoever writes one of them chooses what runs.
_WORKLOADS: Final = (
    ("", "replicationcontrollers"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("batch", "jobs"),
    ("batch", "cronjobs"),
)


def _changes(group: str, resource: str, name: str = "", namespace: str = "") -> list[Deed]:
    return [Deed(verb, group, resource, name, namespace) for verb in _CHANGES]


def _judged(place: Place, *asked: tuple[Iterable[Deed], Iterable[str]]) -> Said:
    """Say who may do any of the deeds, but for whom it is his own work."""
    left: dict[str, set[str]] = {}
    for deeds, own in asked:
        for who, sources in holders(place.grants, deeds).items():
            if who not in place.wanted.allowed and who not in own:
                left.setdefault(who, set()).update(sources)
    if not left:
        return Said("PASS", "nobody else by RBAC")
    return Said("FAIL", f"{named(left)}; by {named(set().union(*left.values()), 5)}")


def _own(place: Place, *names: str) -> list[str]:
    return [f"ServiceAccount {place.wanted.kubeflow}/{name}" for name in names]


def _makes_workflows(place: Place, namespaces: Iterable[str]) -> tuple[list[Deed], list[str]]:
    deeds = [
        Deed(verb, "argoproj.io", kind, namespace=namespace)
        for namespace in namespaces
        for verb in ("create", "update", "patch")
        for kind in ("workflows", "cronworkflows", "workflowtemplates")
    ]
    return deeds, _own(place, API_SERVER, "ml-pipeline-scheduledworkflow", "argo")


def _makes_pods(place: Place, namespaces: Iterable[str]) -> tuple[list[Deed], list[str]]:
    deeds = [
        Deed(verb, "", kind, namespace=namespace)
        for namespace in namespaces
        for verb, kind in (
            ("create", "pods"),
            ("patch", "pods"),
            ("update", "pods"),
            ("patch", "pods/ephemeralcontainers"),
            ("update", "pods/ephemeralcontainers"),
        )
    ]
    return deeds, _own(place, "argo")


def workflow_creators(place: Place) -> Said:
    """Say who but KFP makes or changes Workflows where runs are."""
    return _judged(place, _makes_workflows(place, place.namespaces))


def pod_creators(place: Place) -> Said:
    """Say who but Argo's controller makes or changes pods where runs are, or has controllers make them."""
    workloads = [
        Deed(verb, group, kind, namespace=namespace)
        for namespace in place.namespaces
        for verb in ("create", "update", "patch")
        for group, kind in _WORKLOADS
    ]
    return _judged(place, _makes_pods(place, place.namespaces), (workloads, ()))


def pod_visitors(place: Place) -> Said:
    """Say who comes into pods that run."""
    deeds = [deed for namespace in place.namespaces for deed in _visits(namespace)]
    # A kubelet that is asked through the API server runs commands in any pod of its node, and no gate is asked.
    deeds += [Deed(verb, "", "nodes/proxy") for verb in ("create", "get")]
    return _judged(place, (deeds, ()))


def _visits(namespace: str) -> list[Deed]:
    return [
        Deed(verb, "", kind, namespace=namespace) for verb in ("create", "get") for kind in ("pods/exec", "pods/attach")
    ]


def key_readers(place: Place) -> Said:
    """Say who but its pods' kubelet reads the secret with the tasks' keys, or gets what a task gets by its account."""
    name = place.wanted.mounts.secret
    if not name:
        return Said("UNKNOWN", "nobody said which secret it is", "Name it: --secret.")
    deeds = [
        Deed(verb, "", "secrets", name, namespace)
        for namespace in place.namespaces
        for verb in ("get", "list", "watch", "update", "patch", "delete")
    ]
    # A cloud gives its keys to whoever shows a token of the account.
    deeds += [
        Deed("create", "", "serviceaccounts/token", account, namespace)
        for namespace in place.namespaces
        for account in place.accounts
    ]
    return _judged(place, (deeds, ()))


def policy_writers(place: Place) -> Said:
    """Say who may change what names the policy, or how KFP's API server is set up."""
    deeds = _changes("apps", "deployments", API_SERVER, place.wanted.kubeflow)
    name = place.wanted.mounts.policy_config_map
    for namespace in place.namespaces if name else ():
        deeds += _changes("", "configmaps", name, namespace)
    return _judged(place, (deeds, ()))


def gate_changers(place: Place) -> Said:
    """Say who may take a namespace, a webhook, a policy or a gate itself out of the way."""
    deeds = [deed for namespace in place.namespaces for deed in _changes("", "namespaces", namespace, namespace)]
    for kind in (
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ):
        deeds += _changes("admissionregistration.k8s.io", kind)
    for group, kind in (("policies.kyverno.io", "validatingpolicies"), ("kyverno.io", "clusterpolicies")):
        deeds += _changes(group, kind)
    for group in ("policies.kyverno.io", "kyverno.io"):
        deeds += [
            Deed(verb, group, "policyexceptions", namespace=item)
            for item in place.namespaces
            for verb in ("create", "update", "patch")
        ]
    deeds += [Deed("unguard", "sealflow", "namespaces", namespace) for namespace in place.namespaces]
    homes = gates.homes(place)
    for home in homes:
        deeds += _takes_over(home)
    deeds += _becomes(place, homes)
    # Argo's controller makes pods everywhere, for whoever makes Workflows.
    return _judged(place, (deeds, ()), _makes_pods(place, homes), _makes_workflows(place, homes))


def _takes_over(home: str) -> list[Deed]:
    """Return what changes a gate where it runs: its pods, what they are told, and the key that it shows."""
    deeds = [deed for group, kind in _WORKLOADS for deed in _changes(group, kind, namespace=home)]
    deeds += [deed for kind in ("configmaps", "secrets") for deed in _changes("", kind, namespace=home)]
    deeds += [Deed(verb, "", "secrets", namespace=home) for verb in ("get", "list", "watch")]
    return deeds + _visits(home)


def _becomes(place: Place, gate_homes: tuple[str, ...]) -> list[Deed]:
    """Return what makes somebody another, or gives him rights that he does not have."""
    deeds = [Deed("impersonate", "", kind) for kind in ("users", "groups", "serviceaccounts")]
    for kind in ("clusterroles", "clusterrolebindings"):
        deeds += [Deed(verb, _RBAC, kind) for verb in ("bind", "escalate")]
    accounts = [name for name in place.wanted.allowed if name.startswith("ServiceAccount ")]
    trusted = {name.removeprefix("ServiceAccount ").partition("/")[0] for name in accounts}
    # Where accounts are that may do what nobody else may.
    homes = {*gate_homes, place.wanted.kubeflow, "kube-system", *trusted}
    for home in sorted(homes):
        deeds += [
            Deed("create", "", "serviceaccounts/token", namespace=home),
            Deed("impersonate", "", "serviceaccounts", namespace=home),
        ]
    for home in sorted({*homes, *place.namespaces}):
        deeds += [
            Deed(verb, _RBAC, kind, namespace=home)
            for verb, kind in (
                ("bind", "clusterroles"),
                ("bind", "roles"),
                ("escalate", "roles"),
            )
        ]
    return deeds


def task_accounts(place: Place) -> Said:
    """Say what the service accounts of tasks may do that no task needs."""
    problems = []
    try:
        found = place.grants
    except NobodyKnowsError:
        return _asked(place)
    for namespace in place.namespaces:
        for account in place.accounts:
            deeds = list(deeds_of(found, account, namespace, _no_task_needs(place, namespace)))
            if deeds:
                problems.append(f"{namespace}/{account}: {', '.join(sorted({_word(item) for item in deeds}))}")
    return _summed(problems)


def _asked(place: Place) -> Said:
    """Ask the cluster in the account's name, where roles may not be read."""
    problems = []
    for namespace in place.namespaces:
        for account in place.accounts:
            who = f"system:serviceaccount:{namespace}:{account}"
            may = []
            for deed in _no_task_needs(place, namespace):
                kind = f"{deed.resource}.{deed.group}" if deed.group else deed.resource
                if place.need(place.cluster.can(who, deed.verb, kind, deed.namespace)):
                    may.append(_word(deed))
            if may:
                problems.append(f"{namespace}/{account}: {', '.join(sorted(set(may)))}")
    return _summed(problems)


def _summed(problems: list[str]) -> Said:
    if problems:
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        return Said("FAIL", "; ".join(problems[:6]) + more)
    return Said("PASS", "nothing of it")


def _no_task_needs(place: Place, namespace: str) -> list[Deed]:
    return [
        Deed("create", "argoproj.io", "workflows", namespace=namespace),
        Deed("patch", "argoproj.io", "workflows", namespace=namespace),
        Deed("create", "", "pods", namespace=namespace),
        Deed("create", "", "pods/exec", namespace=namespace),
        Deed("create", "", "nodes/proxy"),
        Deed("get", "", "nodes/proxy"),
        Deed("create", "", "serviceaccounts/token", namespace=namespace),
        Deed("impersonate", "", "serviceaccounts", namespace=namespace),
        Deed("list", "", "secrets", place.wanted.mounts.secret, namespace),
        Deed("patch", "", "configmaps", namespace=namespace),
        Deed("patch", "", "namespaces", namespace, namespace),
    ]


def _word(deed: Deed) -> str:
    return f"{deed.verb} {deed.resource}"
