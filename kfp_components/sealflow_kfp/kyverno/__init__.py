"""Policies of Kyverno that refuse what the admission server refuses, for clusters that run Kyverno already.

They are of the kind ``ValidatingPolicy``, whose rules are CEL. They refuse and change nothing: what was not hardened
does not run. They are generated from the settings of admission, and carry the digest of the trust policy that the
guard enforces, so that an auditor sees what belongs together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sealflow import __version__, strictjson
from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.kyverno import pods, status, workflows
from sealflow_kfp.kyverno.expressions import Rule, Variable, texts

#: Names of the policies.
PODS: Final = "sealflow-pods"
WORKFLOWS: Final = "sealflow-workflows"
CONNECTIONS: Final = "sealflow-connections"
POLICY_NAMES: Final = (PODS, WORKFLOWS, CONNECTIONS)
#: Versions of Kyverno's API that have one and the same form: Kyverno 1.14 to 1.15, 1.16, and 1.17 on.
API_VERSIONS: Final = ("v1alpha1", "v1beta1", "v1")
GROUP: Final = "policies.kyverno.io"
#: The label of guarded namespaces.
LABEL: Final = ("sealflow/guard", "true")

_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class TrustPolicyMark:
    """The trust policy that the guard enforces, as policies name it.

    Attributes:
        digest: ``sha256:`` and the digest of its signed bytes, as in verdicts.
        version: Its version.
    """

    digest: str
    version: int


def policies(
    settings: Settings,
    trust_policy: TrustPolicyMark | None = None,
    *,
    namespaces: Iterable[str] = (),
    api_version: str = "v1beta1",
) -> list[dict[str, Any]]:
    """Return the policies, as manifests.

    Args:
        settings: The settings of admission.
        trust_policy: What the guard enforces; it stands in an annotation.
        namespaces: Names of the guarded namespaces; by default those with the label :data:`LABEL`.
        api_version: One of :data:`API_VERSIONS`.

    Raises:
        UsageError: A namespace or a version cannot be.
    """
    names = tuple(dict.fromkeys(namespaces))
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise UsageError(f"{printable(name, 80)!r} is no name that Kubernetes gives to a namespace.")
    if api_version not in API_VERSIONS:
        raise UsageError(f"{printable(api_version, 40)!r} is no version of Kyverno's policies.", next_step=_VERSIONS)
    selector = _selector(names)
    guarded = "refuses pods that are no task under sealflow's guard, and no part of Kubeflow Pipelines or Argo"
    made = [
        _policy(
            PODS,
            guarded,
            _rule("", "v1", pods.RESOURCES, ("CREATE", "UPDATE")),
            pods.variables(settings),
            pods.rules(settings),
        ),
        _policy(
            WORKFLOWS,
            "refuses Workflows whose tasks are not guarded, or may be taken from the cache",
            _rule(workflows.GROUP, workflows.VERSION, workflows.RESOURCES, ("CREATE", "UPDATE")),
            workflows.variables(settings),
            [*workflows.rules(settings), *status.rules(settings)],
        ),
        _policy(
            CONNECTIONS,
            "refuses that anybody runs commands in pods, where a task's keys are mounted",
            _rule("", "v1", ("pods/exec", "pods/attach"), ("CONNECT",)),
            (),
            [
                Rule(
                    f"request.userInfo.username in {texts(settings.exec_users)}",
                    "ISOLATION_BROKEN: whoever runs commands in a task's pod reads its keys (exec_users).",
                )
            ],
        ),
    ]
    annotations = _annotations(settings, trust_policy)
    for policy in made:
        policy["apiVersion"] = f"{GROUP}/{api_version}"
        policy["metadata"]["annotations"].update(annotations)
        policy["spec"]["matchConstraints"]["namespaceSelector"] = selector
        policy["spec"]["validationActions"] = ["Deny" if settings.enforced else "Audit"]
    return made


_VERSIONS: Final = f"Use {', '.join(API_VERSIONS)}."


def _selector(namespaces: tuple[str, ...]) -> dict[str, Any]:
    if not namespaces:
        name, value = LABEL
        return {"matchLabels": {name: value}}
    # The API server sets this label on each namespace, and nobody can change it.
    named = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": sorted(namespaces)}
    return {"matchExpressions": [named]}


def _rule(group: str, version: str, resources: tuple[str, ...], operations: tuple[str, ...]) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": list(operations),
        "resources": list(resources),
        "scope": "Namespaced",
    }


def _policy(
    name: str, description: str, rule: dict[str, Any], variables: Iterable[Variable], rules: Iterable[Rule]
) -> dict[str, Any]:
    spec = {
        "autogen": {"podControllers": {"controllers": []}},
        # What is there already was let in; and who made it is known at admission alone.
        "evaluation": {"admission": {"enabled": True}, "background": {"enabled": False}},
        "failurePolicy": "Fail",
        "matchConstraints": {"matchPolicy": "Equivalent", "resourceRules": [rule]},
        "validations": [{"expression": item.expression, "message": item.message} for item in rules],
        "webhookConfiguration": {"timeoutSeconds": 10},
    }
    named = [item._asdict() for item in variables]
    if named:
        spec["variables"] = named
    return {
        "apiVersion": "",
        "kind": "ValidatingPolicy",
        "metadata": {
            "name": name,
            "annotations": {
                "policies.kyverno.io/description": f"Generated by sealflow; {description}.",
                "policies.kyverno.io/title": name,
            },
            "labels": {"app.kubernetes.io/part-of": "sealflow"},
        },
        "spec": spec,
    }


def _annotations(settings: Settings, trust_policy: TrustPolicyMark | None) -> dict[str, str]:
    digest = hashlib.sha256(strictjson.dumps(settings.model_dump(mode="json"))).hexdigest()
    found = {"sealflow/release": __version__, "sealflow/settings": f"sha256:{digest}"}
    if trust_policy is not None:
        found["sealflow/trust-policy"] = trust_policy.digest
        found["sealflow/trust-policy-version"] = str(trust_policy.version)
    return found


def manifest(made: Iterable[Mapping[str, Any]]) -> bytes:
    """Return policies as YAML; the same policies always give the same bytes."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            # Policies share their selector, and readers of YAML need not follow references.
            return True

    text = yaml.dump_all(list(made), Dumper=Dumper, sort_keys=True, allow_unicode=True, width=116, explicit_start=True)
    return str(text).encode("utf-8")


def is_own(policy: Mapping[str, Any], settings: Settings) -> bool:
    """Tell whether a policy of a cluster holds exactly the rules that this release generates from settings.

    Which namespaces it is about is not compared; whoever asks judges that by the namespaces that matter.
    """
    metadata = policy.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    wanted = {item["metadata"]["name"]: item for item in policies(settings)}.get(str(name))
    found = policy.get("spec")
    if wanted is None or not isinstance(found, Mapping):
        return False
    return _without_selector(found) == _without_selector(wanted["spec"])


def _without_selector(spec: Mapping[str, Any]) -> dict[str, Any]:
    matched = spec.get("matchConstraints")
    bare = (
        {name: item for name, item in matched.items() if name != "namespaceSelector"}
        if isinstance(matched, Mapping)
        else matched
    )
    # An empty selector of objects takes all in, and the API server may write it out.
    if isinstance(bare, dict) and bare.get("objectSelector") == {}:
        del bare["objectSelector"]
    return {**spec, "matchConstraints": bare}
