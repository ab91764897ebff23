"""Checks of the admission server: whether it is asked, whether it answers, how long its certificates are good."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.findings import printable
from sealflow_kfp.doctor.place import Place, selects
from sealflow_kfp.doctor.report import Said, UnclearError, dig, listed, mapped, text, texts

#: Names of the webhooks in deploy/kubeflow, and what each must be asked about: group, resource, operations.
WEBHOOKS: Final = {
    "mutating": (("argoproj.io", "workflows", ("CREATE", "UPDATE")),),
    "validating": (
        ("argoproj.io", "workflows", ("CREATE", "UPDATE")),
        ("", "pods", ("CREATE", "UPDATE")),
        ("", "pods/ephemeralcontainers", ("UPDATE",)),
        ("", "pods/exec", ("CONNECT",)),
        ("", "pods/attach", ("CONNECT",)),
    ),
}
#: The version under which the API server hands each group's objects over; webhooks are asked about equivalents of it.
_VERSIONS: Final = {"": "v1", "argoproj.io": "v1alpha1"}
#: Where the server changes, and where it judges: at the other place it answers another question.
_PATHS: Final = {"mutating": "/mutate", "validating": "/validate"}
_SUFFIX: Final = ".admission.sealflow"
_DAY: Final = 24 * 3600


def configured(place: Place, kind: str) -> list[dict[str, Any]]:
    """Return our webhooks of a kind, ``mutating`` or ``validating``."""
    body = place.get(f"{kind}webhookconfigurations")
    return [
        mapped(hook)
        for item in listed(body, "items")
        for hook in listed(item, "webhooks")
        if text(hook, "name").endswith(_SUFFIX)
    ]


def deciding(place: Place) -> list[dict[str, Any]]:
    """Return the webhooks on which something depends; those that only advise may be out of reach."""
    return [
        hook
        for kind, wanted in WEBHOOKS.items()
        for hook in configured(place, kind)
        if {resource for _, resource, _ in wanted} & {name for rule in _rules(hook) for name in _resources(rule)}
        or any("*" in name for rule in _rules(hook) for name in _resources(rule))
    ]


def _rules(hook: dict[str, Any]) -> list[Any]:
    return listed(hook, "rules")


def _resources(rule: Any) -> list[str]:
    return texts(rule, "resources")


def _none(place: Place) -> Said:
    return place.not_there("admission", "no webhook of sealflow's")


def webhook(place: Place) -> Said:
    """Say whether the cluster asks about everything that has to be judged."""
    if not deciding(place):
        return _none(place)
    missing = []
    for kind, wanted in WEBHOOKS.items():
        hooks = configured(place, kind)
        for group, resource, operations in wanted:
            for operation in operations:
                if not any(_asks(hook, group, resource, operation, _PATHS[kind]) for hook in hooks):
                    missing.append(f"{operation} {resource} ({kind})")
    if missing:
        return Said("FAIL", f"not asked about {', '.join(missing)}")
    servers = sorted({_server(hook) for hook in deciding(place)})
    if len(servers) != 1:
        # What one of them says of itself says nothing of the other.
        return Said("FAIL", f"several are asked: {printable(', '.join(servers), 300)}", "Have one service asked.")
    return Said("PASS", "all of it")


def _server(hook: dict[str, Any]) -> str:
    namespace, name = service(hook)
    port = dig(hook, "clientConfig", "service", "port")
    return f"{namespace}/{name}:{443 if port is None else port}"


def _asks(hook: dict[str, Any], group: str, resource: str, operation: str, path: str) -> bool:
    if text(hook, "clientConfig", "service", "path") != path:
        return False
    if mapped(hook, "objectSelector") or listed(hook, "matchConditions"):
        # Labels and names are an author's; what conditions leave out, nobody judges.
        return False
    if text(hook, "matchPolicy") == "Exact":
        return False
    for rule in listed(hook, "rules"):
        # A star stands for every resource, and for no subresource.
        named = {resource, "*/*", f"{resource.partition('/')[0]}/*"} if "/" in resource else {resource, "*", "*/*"}
        if (
            {group, "*"} & set(texts(rule, "apiGroups"))
            and {operation, "*"} & set(texts(rule, "operations"))
            and named & set(texts(rule, "resources"))
            and {_VERSIONS[group], "*"} & set(texts(rule, "apiVersions"))
            and text(rule, "scope") in ("", "*", "Namespaced")
        ):
            return True
    return False


def failure_policy(place: Place) -> Said:
    """Say what happens where the server does not answer."""
    hooks = deciding(place)
    if not hooks:
        return _none(place)
    lenient = [text(hook, "name") for hook in hooks if text(hook, "failurePolicy") not in ("", "Fail")]
    if lenient:
        return Said("FAIL", f"let through where nobody answers: {', '.join(map(printable, lenient))}")
    return Said("PASS", "refused")


def namespaces(place: Place) -> Said:
    """Say whether every namespace with runs is one that the webhooks are asked about."""
    hooks = deciding(place)
    if not hooks:
        return _none(place)
    left = []
    for namespace in place.namespaces:
        labels = place.labels(namespace)
        left += [
            f"{namespace} ({text(hook, 'name').removesuffix(_SUFFIX)})"
            for hook in hooks
            if not selects(mapped(hook, "namespaceSelector"), labels)
        ]
    if left:
        return Said("FAIL", f"not asked about {', '.join(map(printable, left[:8]))}")
    return Said("PASS", f"asked about {', '.join(place.namespaces[:8])}")


def authority(place: Place) -> Said:
    """Say whether the API server can know the admission server by its certificate, and for how long."""
    hooks = deciding(place)
    if not hooks:
        return _none(place)
    ends = []
    for hook in hooks:
        bundle = text(hook, "clientConfig", "caBundle")
        if not bundle:
            return Said("FAIL", f"{printable(text(hook, 'name'))} names no certificate authority")
        good = [end for end in _ends(bundle) if end > time.time()]
        if not good:
            return Said("FAIL", f"the certificate authority of {printable(text(hook, 'name'))} has expired")
        ends.append(max(good))
    return _lasting(min(ends), place)


def _ends(bundle: str) -> Iterator[float]:
    from cryptography import x509

    try:
        pem = strictjson.base64_bytes(bundle, "The bundle")
        certificates = x509.load_pem_x509_certificates(pem)
    except (EvidenceError, ValueError) as error:
        raise UnclearError(f"a bundle of certificates: {printable(error, 120)}") from None
    for certificate in certificates:
        yield certificate.not_valid_after_utc.timestamp()


def _lasting(end: float, place: Place) -> Said:
    days = math.floor((end - time.time()) / _DAY)
    when = time.strftime("%Y-%m-%d", time.gmtime(end))
    if days < place.wanted.days:
        return Said("FAIL", f"until {when} ({'expired' if days < 0 else f'{days} days'})")
    return Said("PASS", f"until {when}")


def _metric(place: Place, hook: dict[str, Any], name: str) -> list[float]:
    """Return the values of one of the server's metrics, asked for through the API server."""
    namespace, server = service(hook)
    path = f"/api/v1/namespaces/{namespace}/services/http:{server}:metrics/proxy/metrics"
    found = place.need(place.cluster.text(path)) or b""
    pattern = rb"^%s(?:\{[^}\n]*\})? ([0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?)$" % name.encode()
    return [float(value) for value in re.findall(pattern, found, re.MULTILINE)]


def mode(place: Place) -> Said:
    """Say whether the server refuses, or only tells."""
    hooks = deciding(place)
    if not hooks:
        return _none(place)
    found = _metric(place, hooks[0], "sealflow_admission_enforcing")
    if not found:
        return Said("UNKNOWN", "the server's metrics do not say it", "Look at the metrics of the admission server.")
    if not all(value == 1 for value in found):
        return Said("FAIL", "audit: nothing is refused")
    return Said("PASS", "enforce, as the one that was asked says")


def certificate(place: Place) -> Said:
    """Say for how long the server's own certificate is good, as the server itself says. Its secret is not read."""
    hooks = deciding(place)
    if not hooks:
        return _none(place)
    ends = _metric(place, hooks[0], "sealflow_admission_certificate_not_after_seconds")
    if not ends or not all(math.isfinite(end) and 0 < end < 1 << 40 for end in ends):
        return Said("UNKNOWN", "the server's metrics do not say it", "Look at the metrics of the admission server.")
    return _lasting(min(ends), place)


def service(hook: dict[str, Any]) -> tuple[str, str]:
    """Return namespace and name of the service that a webhook asks.

    Raises:
        UnclearError: It asks somebody else.
    """
    asked = mapped(hook, "clientConfig", "service")
    namespace, name = text(asked, "namespace"), text(asked, "name")
    if not re.fullmatch(r"[a-z0-9-]{1,63}", namespace) or not re.fullmatch(r"[a-z0-9-]{1,63}", name):
        raise UnclearError("a webhook that is no service of the cluster")
    return namespace, name


def endpoints(place: Place) -> Said:
    """Say whether somebody stands behind the service that the webhooks name."""
    hooks = deciding(place)
    if not hooks:
        return _none(place)
    found = []
    for namespace, name in sorted({service(hook) for hook in hooks}):
        if place.get("service", name, namespace) is None:
            return Said("FAIL", f"no Service {namespace}/{name}")
        slices = listed(place.get("endpointslices.discovery.k8s.io", namespace=namespace), "items")
        ready = [
            address
            for item in slices
            if mapped(item, "metadata", "labels").get("kubernetes.io/service-name") == name
            for endpoint in listed(item, "endpoints")
            if dig(endpoint, "conditions", "ready") is not False
            for address in texts(endpoint, "addresses")
        ]
        if not ready:
            return Said("FAIL", f"nobody ready behind {namespace}/{name}: every Workflow and pod is refused")
        found.append(f"{len(set(ready))} behind {namespace}/{name}")
    return Said("PASS", ", ".join(found))
