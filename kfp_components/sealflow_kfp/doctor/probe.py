"""The check that has the cluster judge an unguarded pod, as a dry run, and tells whose refusal it gets."""

from __future__ import annotations

import re
from typing import Final

from sealflow import strictjson
from sealflow_kfp.doctor.place import Place
from sealflow_kfp.doctor.report import Said

#: A webhook's refusal as kubectl prints it, from its beginning: what a webhook says behind it is the webhook's own.
_REFUSED: Final = re.compile(
    r"Error from server(?: \([A-Za-z]{1,60}\))?: (?:error when creating \"[^\"]{1,200}\": )?"
    r"admission webhook \"([A-Za-z0-9.-]{1,253})\" denied the request: (.*)"
)
_SERVER: Final = "pods.admission.sealflow"
#: Kyverno has one webhook for the policies of this kind that fail closed, or one for each.
_KYVERNO: Final = re.compile(r"vpol\.validate\.kyverno\.svc-fail(?:-[a-z0-9.-]+)?")


def answers(place: Place) -> Said:
    """Have the cluster judge an unguarded pod in each namespace; it is not made, whatever comes of it."""
    let_in: list[str] = []
    unclear: Said | None = None
    for namespace in place.namespaces:
        answer = place.cluster.try_out(_pod(namespace))
        if answer.known:
            let_in.append(namespace)
        elif not _is_ours(answer.refusal):
            # Who else says no to this pod may say yes to the next.
            unclear = unclear or Said("UNKNOWN", answer.problem, answer.next_step)
    if let_in:
        return Said("FAIL", f"an unguarded pod may start in {', '.join(let_in[:8])}")
    return unclear or Said("PASS", f"refused in {', '.join(place.namespaces[:8])}")


def _is_ours(refusal: str) -> bool:
    """Tell whether a refusal is the admission server's, or that of the policy for Kyverno."""
    from sealflow_kfp.kyverno import PODS

    found = _REFUSED.fullmatch(refusal)
    if found is None:
        return False
    if found[1] == _SERVER:
        return True
    # Kyverno strings together what each of its policies says.
    said = f"; {found[2]}"
    return _KYVERNO.fullmatch(found[1]) is not None and f"; Policy {PODS} failed: " in said


def _pod(namespace: str) -> bytes:
    container = {
        "name": "main",
        "image": f"registry.invalid/guard-probe@sha256:{'0' * 64}",
        "command": ["true"],
        "resources": {"limits": {"cpu": "10m", "memory": "16Mi"}, "requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return strictjson.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "guard-probe-", "namespace": namespace},
            "spec": {"containers": [container], "automountServiceAccountToken": False, "restartPolicy": "Never"},
        }
    )
