"""The manifests of the admission server: sound objects, that no one can walk round and that lock nobody out."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml

from sealflow.cli.kfp import kfp_app
from sealflow_kfp.admission import server
from sealflow_kfp.admission.settings import parse_settings
from tests.kubeflow.deployed import BASE, CONTAINER, DEPLOY, DEPLOYMENT, POD, RELEASES, ROOT

CLUSTER = ("kube-system", "kube-public", "kube-node-lease", "sealflow-system", "cert-manager")

POLICY = BASE["ValidatingAdmissionPolicy", "sealflow-guard-label"]


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", sorted({kind for kind, _ in BASE}))
def test_each_object_is_what_kubernetes_knows(kind: str, release: str) -> None:
    for (its, _), item in BASE.items():
        if its == kind:
            # Strict: an unknown field is an error, as with `kubectl apply --validate=strict`.
            kubernetes_validate.validate(item, release, strict=True)


def test_a_misspelt_field_would_be_seen() -> None:
    broken = {**BASE["Service", "sealflow-admission"], "specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, RELEASES[0], strict=True)


def test_no_file_is_left_out() -> None:
    for kustomization in DEPLOY.rglob("kustomization.yaml"):
        said = yaml.safe_load(kustomization.read_text())
        generators = said.get("configMapGenerator", []) + said.get("secretGenerator", [])
        named = {*said.get("resources", ()), *(file for item in generators for file in item["files"])}
        there = {path.name for path in kustomization.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert there <= named


WEBHOOKS = [
    (kind.removesuffix("WebhookConfiguration"), hook)
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    for hook in BASE[kind, "sealflow-admission"]["webhooks"]
]


@pytest.mark.parametrize(("kind", "hook"), WEBHOOKS, ids=lambda item: item if isinstance(item, str) else item["name"])
def test_a_webhook_fails_closed_and_cannot_be_talked_out_of_it(kind: str, hook: dict[str, Any]) -> None:
    advice = hook["name"].startswith("pipelineversions.")
    assert hook["failurePolicy"] == ("Ignore" if advice else "Fail")
    assert hook["sideEffects"] == "None"
    assert hook["matchPolicy"] == "Equivalent"
    assert hook["admissionReviewVersions"] == ["v1"]
    # We give up before the API server does.
    assert server.GIVEN_UP < hook["timeoutSeconds"] <= 10
    # An author writes labels, annotations and names of objects.
    assert "objectSelector" not in hook
    assert "matchConditions" not in hook
    assert hook.get("reinvocationPolicy") == ("IfNeeded" if kind == "Mutating" else None)
    service = hook["clientConfig"]["service"]
    assert server.PATHS[service["path"]] is (kind == "Validating")
    assert (service["name"], service["namespace"], service["port"]) == ("sealflow-admission", "sealflow-system", 443)


ASKED = {
    ("Mutating", "argoproj.io", "workflows"): {"CREATE", "UPDATE"},
    ("Validating", "argoproj.io", "workflows"): {"CREATE", "UPDATE"},
    ("Validating", "", "pods"): {"CREATE", "UPDATE"},
    ("Validating", "", "pods/ephemeralcontainers"): {"CREATE", "UPDATE"},
    ("Validating", "", "pods/resize"): {"CREATE", "UPDATE"},
    ("Validating", "", "pods/exec"): {"CONNECT"},
    ("Validating", "", "pods/attach"): {"CONNECT"},
    ("Validating", "pipelines.kubeflow.org", "pipelineversions"): {"CREATE", "UPDATE"},
}


def test_all_ways_that_a_task_can_start_are_asked_about() -> None:
    asked: dict[tuple[str, str, str], set[str]] = {}
    for kind, hook in WEBHOOKS:
        for rule in hook["rules"]:
            assert rule["apiVersions"] == ["*"]
            assert rule["scope"] == "Namespaced"
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    asked.setdefault((kind, group, resource), set()).update(rule["operations"])
    assert asked == ASKED


def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """What Kubernetes makes of a label selector."""
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] in ("In", "NotIn")
        # An absent label is in no list.
        inside = labels.get(expression["key"]) in expression["values"]
        if inside is not (expression["operator"] == "In"):
            return False
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


NAMESPACES = {
    "guarded": ({"sealflow/guard": "true"}, "team-a", True),
    "guarded, with labels of the cluster's own": (
        {"sealflow/guard": "true", "name": "kube-system", "control-plane": "true", "sealflow": "no"}, "team-a", True,
    ),
    "of Kubeflow itself": ({"sealflow/guard": "true"}, "kubeflow", True),
    "not guarded": ({}, "team-b", False),
    "guarded with another word": ({"sealflow/guard": "True"}, "team-b", False),
    "guarded with nothing": ({"sealflow/guard": ""}, "team-b", False),
    **{f"the cluster's own {name}": ({"sealflow/guard": "true"}, name, False) for name in CLUSTER},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMESPACES)
def test_the_label_chooses_and_the_cluster_is_never_locked_out(name: str) -> None:
    labels, namespace, expected = NAMESPACES[name]
    # The API server sets this one, and lets nobody change it.
    labels = {**labels, "kubernetes.io/metadata.name": namespace}
    assert {selected(hook["namespaceSelector"], labels) for _, hook in WEBHOOKS} == {expected}


LABELS = {
    "taken off": ({"sealflow/guard": "true"}, {}, False),
    "all labels taken off": ({"sealflow/guard": "true"}, None, False),
    "emptied": ({"sealflow/guard": "true"}, {"sealflow/guard": ""}, False),
    "turned": ({"sealflow/guard": "true"}, {"sealflow/guard": "false"}, False),
    "written otherwise": ({"sealflow/guard": "true"}, {"sealflow/guard": "TRUE", "Sealflow/guard": "true"}, False),
    "kept": ({"sealflow/guard": "true"}, {"sealflow/guard": "true", "x": "y"}, True),
    "put on": ({}, {"sealflow/guard": "true"}, True),
    "put on the first": (None, {"sealflow/guard": "true"}, True),
    "never there": (None, {"x": "y"}, True),
    "another value before": ({"sealflow/guard": "false"}, {}, True),
}


@pytest.fixture
def cel(loud: Callable[[str], None]) -> Any:
    """Google's own implementation of the language."""
    if sys.version_info < (3, 11):
        what = "the rule on the label is not evaluated: cel-expr-python has nothing for Python 3.10"
        loud(what)
        pytest.skip(what)
    return importlib.import_module("cel_expr_python.cel")


@pytest.mark.parametrize("permitted", [False, True], ids=["without the right", "with the right"])
@pytest.mark.parametrize("name", LABELS)
def test_the_label_stays(cel: Any, name: str, permitted: bool) -> None:
    before, after, expected = LABELS[name]
    spec = POLICY["spec"]
    assert spec["failurePolicy"] == "Fail"
    expressions = {item["name"]: item["expression"] for item in spec["variables"]}
    assert expressions.pop("permitted") == (
        "authorizer.group('sealflow').resource('namespaces').name(object.metadata.name).check('unguard').allowed()"
    )

    def namespace(labels: dict[str, str] | None) -> dict[str, Any]:
        return {"metadata": {"name": "team-a"} | ({} if labels is None else {"labels": labels})}

    objects = {"oldObject": namespace(before), "object": namespace(after)}
    environment = cel.NewEnv(variables=dict.fromkeys(("oldObject", "object", "variables"), cel.Type.DYN))
    values = {key: environment.compile(text).eval(data=objects).value() for key, text in expressions.items()}
    data = {**objects, "variables": {**values, "permitted": permitted}}
    (rule,) = spec["validations"]
    assert environment.compile(rule["expression"]).eval(data=data).value() is (expected or permitted)
    assert "team-a" in environment.compile(rule["messageExpression"]).eval(data=data).value()


def test_the_label_is_watched_however_it_is_written() -> None:
    (rule,) = POLICY["spec"]["matchConstraints"]["resourceRules"]
    assert rule["resources"] == ["namespaces", "namespaces/status", "namespaces/finalize"]
    assert (rule["apiGroups"], rule["apiVersions"], rule["operations"]) == ([""], ["*"], ["UPDATE"])
    binding = BASE["ValidatingAdmissionPolicyBinding", "sealflow-guard-label"]["spec"]
    assert binding == {"policyName": "sealflow-guard-label", "validationActions": ["Deny", "Audit"]}


def test_nobody_gets_a_right() -> None:
    kinds = {kind for kind, _ in BASE}
    assert not kinds & {"Role", "RoleBinding", "ClusterRoleBinding"}
    assert BASE["ClusterRole", "sealflow-unguard"]["rules"] == [
        {"apiGroups": ["sealflow"], "resources": ["namespaces"], "verbs": ["unguard"]}
    ]
    assert BASE["ServiceAccount", "sealflow-admission"]["automountServiceAccountToken"] is False


def test_the_pod_is_of_the_restricted_kind() -> None:
    """Pod Security Standards, profile restricted, which its namespace enforces; and more."""
    namespace = BASE["Namespace", "sealflow-system"]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "shareProcessNamespace"} & POD.keys()
    assert POD["automountServiceAccountToken"] is False
    security = POD["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {kind for volume in POD["volumes"] for kind in volume} == {"name", "configMap", "secret"}
    assert all(mount["readOnly"] for mount in CONTAINER["volumeMounts"])
    assert CONTAINER["resources"]["limits"]["memory"]
    assert "env" not in CONTAINER


def test_the_command_is_one_that_we_have_and_finds_its_files() -> None:
    command = typer.main.get_command(kfp_app).commands["admission"]  # type: ignore[attr-defined]
    assert CONTAINER["command"] == ["sealflow", "kfp", "admission"]
    given = command.make_context("admission", [*CONTAINER["args"], "--audit"]).params
    mounts = {mount["mountPath"]: mount["name"] for mount in CONTAINER["volumeMounts"]}
    # Whole folders: Kubernetes never renews a file that is mounted alone.
    assert mounts == {"/etc/sealflow/admission": "settings", "/etc/sealflow/tls": "tls"}
    assert Path(given["settings"]) == Path("/etc/sealflow/admission/settings.yaml")
    assert (given["certificate"], given["key"]) == ("/etc/sealflow/tls/tls.crt", "/etc/sealflow/tls/tls.key")
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"https": given["port"], "metrics": given["status_port"]}
    assert given["drain"] + 10 < POD["terminationGracePeriodSeconds"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == "metrics"
        assert CONTAINER[probe]["httpGet"]["path"] in ("/healthz", "/readyz")


def test_the_service_leads_to_the_pods_and_nothing_leads_out() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    service = BASE["Service", "sealflow-admission"]["spec"]
    network = BASE["NetworkPolicy", "sealflow-admission"]["spec"]
    budget = BASE["PodDisruptionBudget", "sealflow-admission"]["spec"]
    for selector in (
        service["selector"],
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        network["podSelector"]["matchLabels"],
        budget["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    names = {port["name"] for port in CONTAINER["ports"]}
    assert {port["targetPort"] for port in service["ports"]} == names
    assert {port["port"] for rule in network["ingress"] for port in rule["ports"]} == names
    assert network["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in network
    assert DEPLOYMENT["spec"]["replicas"] > budget["minAvailable"] >= 1
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_settings_are_settings_and_name_no_image_that_there_is() -> None:
    data = (DEPLOY / "base" / "settings.yaml").read_bytes()
    assert parse_settings(data).enforced
    assert set(re.findall(rb"sha256:(\S+)", data)) == {b"0" * 64}


def test_each_test_that_the_threat_model_names_is_there() -> None:
    page = (ROOT / "docs" / "explanation" / "threat-model.md").read_text()
    section = page.split("## The admission server on a Kubeflow cluster", 1)[1].split("\n## ", 1)[0]
    named = set(re.findall(r"`(test_\w+)`", section))
    sources = [p.read_text() for folder in ("kubeflow", "fuzz") for p in (ROOT / "tests" / folder).glob("test_*.py")]
    there = {name for text in sources for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}
    assert len(named) > 15
    assert named <= there
