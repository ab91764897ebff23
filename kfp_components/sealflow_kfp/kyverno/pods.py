"""The policy on pods: the admission server's last gate, as far as CEL can say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.settings import Exemption, Settings
from sealflow_kfp.kyverno import baseline, files, helpers, parts, programs
from sealflow_kfp.kyverno.expressions import Rule, Variable, all_of, one_line, texts

#: What is asked about. Kyverno leaves out subresources that are not named.
RESOURCES = ("pods", "pods/ephemeralcontainers", "pods/resize")


def variables(settings: Settings) -> list[Variable]:
    """Return what the rules have names for, in an order in which each needs only those before it."""
    everything = [
        Variable("inits", "has(object.spec.initContainers) ? object.spec.initContainers : []"),
        Variable("visitors", "has(object.spec.ephemeralContainers) ? object.spec.ephemeralContainers : []"),
        Variable("volumes", "has(object.spec.volumes) ? object.spec.volumes : []"),
        Variable("everything", "object.spec.containers + variables.inits + variables.visitors"),
        Variable("unchanged", _unchanged()),
        Variable("exemption", _exemption(settings)),
    ]
    return [*everything, *programs.variables(settings)]


def rules(settings: Settings) -> Iterator[Rule]:
    """Yield the rules, those first that say most."""
    # An image runs any command, so only what the admin says in so many words reaches the node.
    known = [number for number, item in enumerate(settings.exempt, 1) if item.privileged]
    passes = {
        "all": "variables.unchanged",
        "task": "variables.unchanged || variables.exemption != 0",
        "annotations": "variables.exemption != 0",
        "isolation": f"variables.unchanged || variables.exemption in {known}" if known else "variables.unchanged",
    }
    for rule in (
        *parts.sizes(),
        *programs.rules(settings),
        *parts.rules(settings),
        *helpers.rules(settings),
        *baseline.rules(),
        *files.rules(settings),
    ):
        yield rule._replace(expression=one_line(f"{passes[rule.reach]} || ({rule.expression})"))


def _unchanged() -> str:
    """Return the expression that an update changes nothing that a task could be another one by."""
    free = texts(sorted(shapes.POD_UPDATES))
    return one_line(f"""
        request.operation == "UPDATE" && object.spec.all(field, field in {free}
            || (field in oldObject.spec && object.spec[field] == oldObject.spec[field]))
        && oldObject.spec.all(field, field in {free} || field in object.spec)
    """)


def _exemption(settings: Settings) -> str:
    """Return the expression for the number of the first rule that exempts a pod; 0 for none."""
    expression = "0"
    for number, item in reversed(list(enumerate(settings.exempt, 1))):
        expression = f"({_holds(item)}) ? {number} : ({expression})"
    return expression


def _holds(item: Exemption) -> str:
    held: list[Any] = []
    if item.namespaces:
        held.append(f"request.namespace in {texts(item.namespaces)}")
    if item.creators:
        held.append(f"request.userInfo.username in {texts(item.creators)}")
    if item.service_accounts:
        # The account's old name is still written by some, and the API server takes either for the other.
        names = texts(item.service_accounts)
        held += [f"!has(object.spec.{name}) || object.spec.{name} in {names}" for name in _ACCOUNTS]
        held.append(" || ".join(f"has(object.spec.{name})" for name in _ACCOUNTS))
    if item.images:
        names = texts(item.images)
        held.append(f"variables.everything.all(c, has(c.image) && c.image in {names})")
        held.append(
            f"variables.volumes.all(v, !has(v.image) || (has(v.image.reference) && v.image.reference in {names}))"
        )
    return all_of(held)


_ACCOUNTS = ("serviceAccountName", "serviceAccount")
