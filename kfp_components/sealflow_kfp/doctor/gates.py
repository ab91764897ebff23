"""Checks of what stands before the cluster: Kyverno's policies, and whether anything does at all."""

from __future__ import annotations

from typing import Any

from sealflow.findings import printable
from sealflow_kfp.doctor import webhook
from sealflow_kfp.doctor.place import Place, selects
from sealflow_kfp.doctor.report import Said, dig, listed, mapped, text, texts

_KIND = "validatingpolicies.policies.kyverno.io"


def kyverno(place: Place) -> Said:
    """Say whether Kyverno holds this release's policies, enforces them, and is ready to."""
    from sealflow_kfp.kyverno import PODS, POLICY_NAMES, is_own

    there = _policies(place)
    if not there:
        return place.not_there("kyverno", "no policy of sealflow's")
    for name in POLICY_NAMES:
        policy = there.get(name)
        if policy is None:
            return Said("FAIL", f"no policy {name}")
        spec = mapped(policy, "spec")
        if texts(spec, "validationActions") not in ([], ["Deny"]):
            return Said("FAIL", f"{name} only tells: {', '.join(map(printable, texts(spec, 'validationActions')))}")
        if text(spec, "failurePolicy") not in ("", "Fail"):
            return Said("FAIL", f"{name} lets through what nobody could judge")
        if dig(policy, "status", "conditionStatus", "ready") is not True:
            return Said(
                "FAIL", f"{name} is not ready: {printable(text(policy, 'status', 'conditionStatus', 'message'))}"
            )
        if place.wanted.settings is None:
            return Said("UNKNOWN", f"{name}, from settings that nobody named", "Name them: --settings.")
        if not is_own(policy, place.wanted.settings):
            return Said("FAIL", f"{name} is not what this release generates", "Generate it anew and apply it.")
        left = [item for item in place.namespaces if not selects(_selector(spec), place.labels(item))]
        if left:
            return Said("FAIL", f"{name} leaves out {', '.join(left[:8])}")
    lenient = _lenient(place)
    if lenient:
        return Said("FAIL", lenient, "Start Kyverno without forceFailurePolicyIgnore, and keep its webhooks' Fail.")
    return Said("PASS", f"{len(there)} policies, {PODS} among them")


def _policies(place: Place) -> dict[str, dict[str, Any]]:
    """Return policies with names of sealflow's."""
    from sealflow_kfp.kyverno import POLICY_NAMES

    return {
        text(item, "metadata", "name"): mapped(item)
        for item in listed(place.get(_KIND), "items")
        if text(item, "metadata", "name") in POLICY_NAMES
    }


def _selector(spec: dict[str, Any]) -> dict[str, Any]:
    return mapped(spec, "matchConstraints", "namespaceSelector")


def _lenient(place: Place) -> str:
    """Say what is wrong with the webhooks by which the cluster asks Kyverno itself."""
    strict = [hook for hook in _asking(place) if text(hook, "failurePolicy") in ("", "Fail")]
    for namespace in place.namespaces:
        if not any(selects(mapped(hook, "namespaceSelector"), place.labels(namespace)) for hook in strict):
            return f"no webhook of Kyverno's that fails closed is asked about pods in {namespace}"
    return ""


def _asking(place: Place) -> list[dict[str, Any]]:
    """Return the webhooks by which the cluster asks Kyverno about pods."""
    return [
        mapped(hook)
        for item in listed(place.get("validatingwebhookconfigurations"), "items")
        if mapped(item, "metadata", "labels").get("webhook.kyverno.io/managed-by") == "kyverno"
        for hook in listed(item, "webhooks")
        if any({"pods", "*", "*/*"} & set(texts(rule, "resources")) for rule in listed(hook, "rules"))
    ]


def homes(place: Place) -> tuple[str, ...]:
    """Return the namespaces in which the gates run: whoever may change what is there changes what they say.

    Raises:
        UnclearError: One runs outside of the cluster.
        NobodyKnowsError: Webhooks or policies may not be read.
    """
    hooks = webhook.deciding(place)
    if _policies(place):
        hooks += _asking(place)
    return tuple(sorted({webhook.service(hook)[0] for hook in hooks}))


def enforcement(place: Place) -> Said:
    """Say whether anything at all refuses a task that is not guarded."""
    server = [
        check(place).outcome
        for check in (webhook.webhook, webhook.mode, webhook.failure_policy, webhook.namespaces, webhook.endpoints)
    ]
    policies = kyverno(place).outcome
    if all(outcome == "PASS" for outcome in server):
        return Said("PASS", "the admission server")
    if policies == "PASS":
        return Said("PASS", "Kyverno")
    if "UNKNOWN" in (*server, policies):
        return Said("UNKNOWN", "neither gate is known to be whole", "See the checks of the gates; or ask by --probe.")
    return Said("FAIL", "neither the admission server nor Kyverno's policies are whole")
