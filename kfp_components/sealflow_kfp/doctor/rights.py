"""Who may do what, by the roles and bindings of Kubernetes' own authorization (RBAC). Pure.

Other authorizers of a cluster, and aggregation by a controller that has not run yet, are not seen; somebody who may
write pods as another account, impersonate, bind or escalate can become more than what stands here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sealflow.findings import printable
from sealflow_kfp.doctor.report import UnclearError, dig, listed, text, texts

#: The cluster's own: whoever is these rules it anyway, and no binding could take it away.
_CONTROL_PLANE: Final = frozenset(
    {
        "Group system:masters",
        "Group system:nodes",
        "User system:apiserver",
        "User system:kube-controller-manager",
        "User system:kube-scheduler",
    }
)
_CONTROL_NAMESPACE: Final = "ServiceAccount kube-system/"


class Deed(NamedTuple):
    """Something that somebody may do.

    Attributes:
        verb: Verb of the API.
        group: Group of the API, empty for the core.
        resource: Resource, with its subresource behind a slash.
        name: Name of the one object that matters; empty where any does.
        namespace: The namespace that matters; empty for cluster-wide things.
    """

    verb: str
    group: str
    resource: str
    name: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class Grant:
    """A rule that reaches somebody.

    Attributes:
        subject: ``User NAME``, ``Group NAME`` or ``ServiceAccount NAMESPACE/NAME``.
        rule: The rule of the role.
        namespace: Where it holds; empty for everywhere.
        source: The binding by which it does.
    """

    subject: str
    rule: dict[str, Any]
    namespace: str
    source: str


def grants(roles: Iterable[Any], bindings: Iterable[Any]) -> tuple[Grant, ...]:
    """Read roles and bindings, of namespaces and of the cluster.

    Raises:
        UnclearError: One of them has another form than Kubernetes gives it.
    """
    rules: dict[tuple[str, str, str], list[Any]] = {}
    for role in roles:
        kind, namespace, name = text(role, "kind"), text(role, "metadata", "namespace"), text(role, "metadata", "name")
        rules[kind, namespace if kind == "Role" else "", name] = listed(role, "rules")
    found = []
    for binding in bindings:
        kind, namespace = text(binding, "kind"), text(binding, "metadata", "namespace")
        if kind not in ("RoleBinding", "ClusterRoleBinding"):
            raise UnclearError("a binding of no known kind")
        where = namespace if kind == "RoleBinding" else ""
        wanted = text(binding, "roleRef", "kind")
        place = where if wanted == "Role" else ""
        source = f"{kind} {text(binding, 'metadata', 'name')}"
        for rule in rules.get((wanted, place, text(binding, "roleRef", "name")), []):
            if not isinstance(rule, dict):
                raise UnclearError("a rule of a role that is no object")
            found += [Grant(_subject(item, where), rule, where, source) for item in listed(binding, "subjects")]
    return tuple(found)


def _subject(subject: Any, where: str) -> str:
    kind, name = text(subject, "kind"), text(subject, "name")
    if not kind or not name:
        raise UnclearError("a binding to nobody")
    if kind == "ServiceAccount":
        return f"ServiceAccount {text(subject, 'namespace') or where}/{name}"
    # An account has a name as a user as well.
    account = name.split(":")
    if kind == "User" and account[:2] == ["system", "serviceaccount"] and len(account) == 4:
        return f"ServiceAccount {account[2]}/{account[3]}"
    return f"{kind} {name}"


def allows(rule: dict[str, Any], deed: Deed) -> bool:
    """Tell whether a rule lets somebody do something.

    Raises:
        UnclearError: The rule has another form than Kubernetes gives it.
    """
    _, slash, part = deed.resource.partition("/")
    resources = texts(rule, "resources")
    names = texts(rule, "resourceNames")
    if not {deed.verb, "*"} & set(texts(rule, "verbs")) or not {deed.group, "*"} & set(texts(rule, "apiGroups")):
        return False
    if not ({deed.resource, "*"} & set(resources) or (slash and f"*/{part}" in resources)):
        return False
    if not names:
        return True
    if deed.verb == "deletecollection":
        # It has no name that a rule could hold it to, so such a rule lets nobody in.
        return False
    if deed.verb == "create" and not slash and not {"patch", "*"} & set(texts(rule, "verbs")):
        # Neither has what is created, unless it is applied: `create` is then asked for with the name. Lists are held to
        # one by a field selector, and subresources have that of their object.
        return False
    return not deed.name or deed.name in names


def holders(found: Iterable[Grant], deeds: Iterable[Deed]) -> dict[str, set[str]]:
    """Return who may do any of the deeds, and by which bindings; the control plane's own are left out."""
    everywhere: set[Deed] = set()
    there: dict[str, list[Deed]] = {}
    for deed in deeds:
        # What holds everywhere holds in whatever namespace: one of many is enough.
        everywhere.add(deed._replace(namespace=""))
        there.setdefault(deed.namespace, []).append(deed)
    may: dict[str, set[str]] = {}
    for grant in found:
        if grant.subject in _CONTROL_PLANE or grant.subject.startswith(_CONTROL_NAMESPACE):
            continue
        if any(
            allows(grant.rule, deed) for deed in (there.get(grant.namespace, ()) if grant.namespace else everywhere)
        ):
            may.setdefault(grant.subject, set()).add(grant.source)
    return may


def deeds_of(found: Iterable[Grant], account: str, namespace: str, deeds: Iterable[Deed]) -> Iterator[Deed]:
    """Yield which of the deeds a service account may do, by its own name and by the groups that every account is in."""
    mine = {
        f"ServiceAccount {namespace}/{account}",
        "Group system:serviceaccounts",
        f"Group system:serviceaccounts:{namespace}",
        "Group system:authenticated",
    }
    own = [grant for grant in found if grant.subject in mine]
    for deed in deeds:
        if any(grant.namespace in ("", deed.namespace) and allows(grant.rule, deed) for grant in own):
            yield deed


def named(subjects: Iterable[str], limit: int = 8) -> str:
    """Return names for people, the first of them when there are many."""
    ordered = sorted(printable(item, 120) for item in subjects)
    more = f", and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + more


def read_lists(*answers: Any) -> list[Any]:
    """Return the objects of lists; kubectl leaves the kind to each.

    Raises:
        UnclearError: There is no list.
    """
    found: list[Any] = []
    for body in answers:
        items = dig(body, "items")
        if not isinstance(items, list):
            raise UnclearError("no list of roles or bindings")
        found += items
    return found
