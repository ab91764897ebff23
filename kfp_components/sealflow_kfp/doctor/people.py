"""Checks of who may do what would undo the guard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sealflow_kfp.doctor.place import API_SERVER, NobodyKnowsError, Place
from sealflow_kfp.doctor.report import Said
from sealflow_kfp.doctor.rights import Deed, deeds_of, holders, named

_CHANGES: Final = ("create", "update", "patch", "delete", "deletecollection")


def _changes(group: str, resource: str, name: str = "", namespace: str = "") -> list[Deed]:
    return [Deed(verb, group, resource, name, namespace) for verb in _CHANGES]


def _judged(place: Place, deeds: Iterable[Deed], own: Iterable[str] = ()) -> Said:
    may = holders(place.grants, deeds)
    left = sorted(set(may) - place.wanted.allowed - set(own))
    if not left:
        return Said("PASS", "nobody else by RBAC")
    sources = sorted({source for item in left for source in may[item]})
    return Said("FAIL", f"{named(left)}; by {named(sources, 5)}")


def workflow_creators(place: Place) -> Said:
    """Say who but KFP makes or changes Workflows where runs are."""
    deeds = [
        Deed(verb, "argoproj.io", kind, namespace=namespace)
        for namespace in place.namespaces
        for verb in ("create", "update", "patch")
        for kind in ("workflows", "cronworkflows", "workflowtemplates")
    ]
    kubeflow = place.wanted.kubeflow
    own = [f"ServiceAccount {kubeflow}/{name}" for name in (API_SERVER, "ml-pipeline-scheduledworkflow", "argo")]
    return _judged(place, deeds, own)


def pod_creators(place: Place) -> Said:
    """Say who but Argo's controller makes or changes pods where runs are."""
    deeds = [
        Deed(verb, "", kind, namespace=namespace)
        for namespace in place.namespaces
        for verb, kind in (
            ("create", "pods"),
            ("patch", "pods"),
            ("update", "pods"),
            ("patch", "pods/ephemeralcontainers"),
            ("update", "pods/ephemeralcontainers"),
        )
    ]
    return _judged(place, deeds, [f"ServiceAccount {place.wanted.kubeflow}/argo"])


def pod_visitors(place: Place) -> Said:
    """Say who comes into pods that run."""
    deeds = [
        Deed(verb, "", kind, namespace=namespace)
        for namespace in place.namespaces
        for verb in ("create", "get")
        for kind in ("pods/exec", "pods/attach")
    ]
    return _judged(place, deeds)


def key_readers(place: Place) -> Said:
    """Say who but its pods' kubelet reads the secret with the tasks' keys."""
    name = place.wanted.mounts.secret
    if not name:
        return Said("UNKNOWN", "nobody said which secret it is", "Name it: --secret.")
    deeds = [
        Deed(verb, "", "secrets", name, namespace)
        for namespace in place.namespaces
        for verb in ("get", "list", "watch", "update", "patch", "delete")
    ]
    return _judged(place, deeds)


def policy_writers(place: Place) -> Said:
    """Say who may change what names the policy, or how KFP's API server is set up."""
    deeds = _changes("apps", "deployments", API_SERVER, place.wanted.kubeflow)
    name = place.wanted.mounts.policy_config_map
    for namespace in place.namespaces if name else ():
        deeds += _changes("", "configmaps", name, namespace)
    return _judged(place, deeds)


def gate_changers(place: Place) -> Said:
    """Say who may take a namespace, a webhook or a policy out of the way."""
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
    for kind in ("clusterroles", "clusterrolebindings"):
        deeds += [Deed(verb, "rbac.authorization.k8s.io", kind) for verb in ("bind", "escalate")]
    deeds += [Deed("impersonate", "", kind) for kind in ("users", "groups", "serviceaccounts")]
    return _judged(place, deeds)


def task_accounts(place: Place) -> Said:
    """Say what the service accounts of tasks may do that no task needs."""
    problems = []
    try:
        found = place.grants
    except NobodyKnowsError:
        return _asked(place)
    for namespace in place.namespaces:
        for account in place.accounts:
            deeds = list(deeds_of(found, account, namespace, _no_task_needs(namespace)))
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
            for deed in _no_task_needs(namespace):
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


def _no_task_needs(namespace: str) -> list[Deed]:
    return [
        Deed("create", "argoproj.io", "workflows", namespace=namespace),
        Deed("patch", "argoproj.io", "workflows", namespace=namespace),
        Deed("create", "", "pods", namespace=namespace),
        Deed("create", "", "pods/exec", namespace=namespace),
        Deed("list", "", "secrets", namespace=namespace),
        Deed("patch", "", "configmaps", namespace=namespace),
        Deed("patch", "", "namespaces", namespace, namespace),
    ]


def _word(deed: Deed) -> str:
    return f"{deed.verb} {deed.resource}"
