"""A stand-in for kubectl over a folder of answers, and a cluster as it should be, in the shapes that kubectl prints."""

from __future__ import annotations

import base64
import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealflow_kfp import guard_command
from sealflow_kfp.doctor import Kubectl, Report, Wanted, examine

DEPLOYED = Path(__file__).resolve().parents[2] / "deploy" / "kubeflow" / "base" / "webhooks.yaml"
GUARD = f"registry.example/sealflow-guard@sha256:{'a' * 64}"
LAUNCHER = f"ghcr.io/kubeflow/kfp-launcher@sha256:{'b' * 64}"
DRIVER = f"ghcr.io/kubeflow/kfp-driver@sha256:{'c' * 64}"
TASK = f"registry.example/train@sha256:{'d' * 64}"
MOUNTS = guard_command.GuardMounts(GUARD, "sealflow", "sealflow-policy")
SYSTEM = "sealflow-system"

# What is asked is the name of a file, so one line of shell answers: cheap, and a process all the same.
_PROGRAM = """#!/bin/sh
key=$(printf '%s' "$*" | sed -e 's/^--request-timeout=[0-9]*s //' -e 's/^--context=[a-z]* //' | tr -c 'A-Za-z0-9.,=-' _)
printf '%s\\n' "$key" >> '{folder}/asked'
if [ -f "{folder}/$key" ]; then exec cat "{folder}/$key"; fi
if [ -f "{folder}/$key.error" ]; then cat "{folder}/$key.error" >&2; exit 1; fi
if [ -f "{folder}/$key.no" ]; then cat "{folder}/$key.no"; exit 1; fi
echo 'Error from server (NotFound): there is no such thing' >&2
exit 1
"""


def key(*arguments: str) -> str:
    """Return the name of the file that answers a question."""
    return "".join(c if c.isalnum() or c in ".,=-" else "_" for c in " ".join(arguments))


@dataclass
class Cluster:
    """A cluster: what lies in it by the question, as kubectl is asked.

    Attributes:
        folder: Where the answers lie.
        objects: Objects by kind, namespace and name; a name of its own lists them.
        raw: Answers by path of the API server: objects, or text.
        refused: What is answered with an error, by the arguments of kubectl.
        workflows: Workflows, of all namespaces; ``None`` where the cluster knows no such kind.
    """

    folder: Path
    objects: dict[tuple[str, str, str], Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)
    refused: dict[tuple[str, ...], str] = field(default_factory=dict)
    workflows: list[dict[str, Any]] | None = field(default_factory=list)

    def get(self, kind: str, name: str, namespace: str = "") -> Any:
        """Return an object, to be changed."""
        return self.objects[kind, namespace, name]

    def put(self, kind: str, body: dict[str, Any]) -> None:
        """Add an object."""
        metadata = body["metadata"]
        self.objects[kind, metadata.get("namespace", ""), metadata["name"]] = body

    def drop(self, kind: str, name: str, namespace: str = "") -> None:
        """Take an object away."""
        del self.objects[kind, namespace, name]

    def program(self) -> Path:
        """Write the answers and the program, and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "asked").touch()
        path = self.folder / "kubectl"
        if not path.exists():
            path.write_text(_PROGRAM.format(folder=self.folder))
            path.chmod(0o755)
        lists: dict[tuple[str, ...], list[Any]] = {}
        for (kind, namespace, name), body in self.objects.items():
            where = [f"--namespace={namespace}"] if namespace else []
            self._write(("get", kind, name, *where, "--output=json"), body)
            self._write(("get", kind, name, *where, "--no-headers"), f"{name}   Opaque   2   3d\n")
            listed = f"{kind}s" if not kind.endswith("s") else kind
            for wider in ([], ["--all-namespaces"], where):
                lists.setdefault(("get", listed, *wider, "--output=json"), []).append(body)
                lists.setdefault(("get", kind, *wider, "--output=json"), []).append(body)
        for kind in LISTED:
            for wider in ([], ["--all-namespaces"], [f"--namespace={SYSTEM}"]):
                lists.setdefault(("get", kind, *wider, "--output=json"), [])
        for arguments, items in lists.items():
            unique = list({id(item): item for item in items}.values())
            self._write(arguments, {"apiVersion": "v1", "kind": "List", "items": unique})
        if self.workflows is not None:
            self._write_workflows(self.workflows)
        for location, body in self.raw.items():
            self._write(("get", f"--raw={location}"), body)
        for arguments, text in self.refused.items():
            (self.folder / key(*arguments)).unlink(missing_ok=True)
            (self.folder / f"{key(*arguments)}.error").write_text(text)
        return path

    def _write_workflows(self, workflows: list[dict[str, Any]]) -> None:
        rows = []
        for body in workflows:
            metadata = body.get("metadata") if isinstance(body, dict) else None
            found = metadata if isinstance(metadata, dict) else {}
            rows.append([str(found.get(name, "<none>")) for name in ("namespace", "creationTimestamp", "name")])
        everywhere = "".join(f"{row[0]}   {row[2]}   Succeeded   3d\n" for row in rows)
        self._write(("get", WORKFLOWS, "--all-namespaces", "--no-headers"), everywhere)
        for namespace in [name for kind, _, name in self.objects if kind == "namespace"]:
            mine = [(row, body) for row, body in zip(rows, workflows, strict=True) if row[0] == namespace]
            where = f"--namespace={namespace}"
            self._write(
                ("get", WORKFLOWS, where, "--no-headers", "--chunk-size=100", COLUMNS),
                "".join(f"{created}   {name}\n" for (_, created, name), _ in mine),
            )
            # The latest, as they are then asked for by their names.
            latest = sorted(mine, key=lambda item: item[0][1:], reverse=True)[:20]
            bodies = [body for _, body in latest]
            answer: Any = bodies[0] if len(bodies) == 1 else {"apiVersion": "v1", "kind": "List", "items": bodies}
            names = [row[2] for row, _ in latest]
            if names and sum(map(len, names)) < 180:
                self._write(("get", WORKFLOWS, *names, where, "--ignore-not-found", "--output=json"), answer)

    def _write(self, arguments: tuple[str, ...], body: Any) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        (self.folder / key(*arguments)).write_text(text)

    def _lookup(self, arguments: list[str], given: bytes, seconds: float) -> tuple[int, bytes, bytes, str]:
        """Answer as the program does, in this process."""
        name = key(*arguments[1:])
        with open(self.folder / "asked", "a") as asked:
            asked.write(f"{name}\n")
        for path, status in ((self.folder / name, 0), (self.folder / f"{name}.no", 1)):
            if path.exists():
                return status, path.read_bytes(), b"", ""
        error = self.folder / f"{name}.error"
        said = error.read_bytes() if error.exists() else b"Error from server (NotFound): there is no such thing\n"
        return 1, b"", said, ""

    def asked(self) -> list[str]:
        """Return what was asked, in order."""
        return (self.folder / "asked").read_text().splitlines()

    def examine(
        self, wanted: Wanted | None = None, *, process: bool = False, write: bool = True, **options: Any
    ) -> Report:
        """Look at it; with ``process`` through a program, which takes a second; ``write`` its answers before."""
        kubectl = Kubectl(str(self.program() if write else self.folder / "kubectl"), timeout=60)
        if not process:
            kubectl._call = self._lookup  # type: ignore[method-assign]
        return examine(kubectl, wanted or WANTED, **options)


#: Kinds of which there may be none.
LISTED = (
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingpolicies.policies.kyverno.io",
    "endpointslices.discovery.k8s.io",
    "clusterroles",
    "clusterrolebindings",
    "roles",
    "rolebindings",
    "namespaces",
)

WANTED = Wanted(mounts=MOUNTS, namespaces=("team-a",))


def outcome(report: Report, check: str) -> tuple[str, str]:
    """Return what came of one check, and what was found."""
    (item,) = [item for item in report.results if item.check == check]
    return item.outcome, item.said.found


def named(name: str, namespace: str = "", **labels: str) -> dict[str, Any]:
    """Return metadata."""
    found: dict[str, Any] = {"name": name, "uid": "1"}
    if namespace:
        found["namespace"] = namespace
    if labels:
        found["labels"] = labels
    return found


def authority(days: float = 365, ago: float = 1) -> str:
    """Return a certificate authority's bundle, as webhooks hold it."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sealflow")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=ago))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(private, hashes.SHA256())
    )
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def hook(name: str, rules: list[dict[str, Any]], bundle: str) -> dict[str, Any]:
    """Return one webhook, with what the API server fills in."""
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "caBundle": bundle,
            "service": {"name": "sealflow-admission", "namespace": SYSTEM, "path": "/admit", "port": 443},
        },
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchLabels": {"sealflow/guard": "true"}},
        "objectSelector": {},
        "rules": rules,
        "sideEffects": "None",
        "timeoutSeconds": 10,
    }


def rule(group: str, resources: list[str], operations: list[str]) -> dict[str, Any]:
    """Return one rule of a webhook."""
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": operations,
        "resources": resources,
        "scope": "*",
    }


def api_server(**variables: str) -> dict[str, Any]:
    """Return the Deployment of KFP's API server."""
    env = {
        "CACHEENABLED": "false",
        "PUBLISH_LOGS": "false",
        "V2_LAUNCHER_IMAGE": LAUNCHER,
        "V2_DRIVER_IMAGE": DRIVER,
        "COMPILED_PIPELINE_SPEC_PATCH": "{}",
        **variables,
    }
    container = {
        "name": "ml-pipeline-api-server",
        "image": "ghcr.io/kubeflow/kfp-api-server:2.17.0",
        "env": [
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            *({"name": name, "value": value} for name, value in env.items()),
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": named("ml-pipeline", "kubeflow"),
        "spec": {"template": {"spec": {"containers": [container, {"name": "istio-proxy", "image": "proxy"}]}}},
    }


def workflow(
    name: str,
    *,
    guard: tuple[str, ...] = guard_command.IN_DIRECTORY,
    cached: bool = False,
    disabled: bool = False,
    namespace: str = "team-a",
    created: str = "2026-11-01T00:00:00Z",
) -> dict[str, Any]:
    """Return a Workflow as KFP's API server makes it of a run with one task, which runs behind a guard."""
    command = [*guard, "sh", "-c", "train"]
    task = {"cachingOptions": {"enableCache": True} if cached else {}, "componentRef": {"name": "comp-train"}}
    arguments = ["--type", "CONTAINER", "--cached_decision_path", "{{outputs.parameters.cached-decision.path}}"]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {**named(name, namespace, **{"pipeline/runid": "0c1f"}), "creationTimestamp": created},
        "spec": {
            "arguments": {
                "parameters": [
                    {"name": "components-root", "value": "{}"},
                    {"name": "implementations-1", "value": json.dumps({"command": command, "image": TASK})},
                ]
            },
            "templates": [
                {
                    "name": "system-container-driver",
                    "container": {
                        "image": DRIVER,
                        "command": ["driver"],
                        "args": [*arguments, f"--cache_disabled={str(disabled).lower()}"],
                    },
                },
                {
                    "name": "root",
                    "dag": {
                        "tasks": [
                            {
                                "name": "train-driver",
                                "arguments": {"parameters": [{"name": "task", "value": json.dumps(task)}]},
                            }
                        ]
                    },
                },
            ],
        },
    }


def bound(
    subject: dict[str, str], rules: list[dict[str, Any]], namespace: str = ""
) -> list[tuple[str, dict[str, Any]]]:
    """Return a role and a binding that give somebody rights, as kind and object."""
    name = f"of-{subject['name']}"
    kind = "Role" if namespace else "ClusterRole"
    role = {"kind": kind, "metadata": named(name, namespace), "rules": rules}
    binding = {
        "kind": f"{kind}Binding",
        "metadata": named(name, namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [subject],
    }
    listed = f"{kind.lower()}s"
    return [(listed, role), (f"{kind.lower()}bindings", binding)]


def may(group: str, resource: str, *verbs: str, names: list[str] | None = None) -> dict[str, Any]:
    """Return one rule of a role."""
    found: dict[str, Any] = {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
    if names is not None:
        found["resourceNames"] = names
    return found


def good(folder: Path, bundle: str) -> Cluster:
    """Return a cluster with the admission server, set up as it should be."""
    cluster = Cluster(folder)
    for name, labels in (
        ("kubeflow", {}),
        (SYSTEM, {}),
        ("team-a", {"app.kubernetes.io/part-of": "kubeflow-profile", "sealflow/guard": "true"}),
    ):
        cluster.put("namespace", {"kind": "Namespace", "metadata": named(name, **labels)})
    cluster.put("deployment", api_server())
    # What deploy/kubeflow brings, with what the API server or cert-manager fills in.
    for body in yaml.safe_load_all(DEPLOYED.read_text(encoding="utf-8")):
        for item in body["webhooks"]:
            item["clientConfig"]["caBundle"] = bundle
            item["objectSelector"] = {}
        cluster.put(f"{body['kind'].lower()}s", body)
    cluster.put("service", {"kind": "Service", "metadata": named("sealflow-admission", SYSTEM)})
    ready = [{"addresses": ["10.0.0.7"], "conditions": {"ready": True}}]
    labels = {"kubernetes.io/service-name": "sealflow-admission"}
    cluster.put(
        "endpointslices.discovery.k8s.io",
        {"kind": "EndpointSlice", "metadata": named("sealflow-admission-1", SYSTEM, **labels), "endpoints": ready},
    )
    cluster.put("secret", {"kind": "Secret", "metadata": named("sealflow", "team-a")})
    maps = {
        "sealflow-policy": {"admin.json": "{}"},
        "kfp-launcher": {"defaultPipelineRoot": "minio://artifacts/team-a"},
    }
    for name, data in maps.items():
        cluster.put("configmap", {"kind": "ConfigMap", "metadata": named(name, "team-a"), "data": data})
    account = {"kind": "ServiceAccount", "namespace": "kubeflow"}
    rights = [
        bound({**account, "name": "ml-pipeline"}, [may("argoproj.io", "workflows", "create", "update", "patch")]),
        bound({**account, "name": "argo"}, [may("", "pods", "create", "patch", "delete")]),
        bound({"kind": "Group", "name": "system:masters"}, [may("*", "*", "*")]),
        bound(
            {"kind": "ServiceAccount", "namespace": "team-a", "name": "default-editor"},
            [may("argoproj.io", "workflowtaskresults", "create", "patch"), may("", "configmaps", "get")],
            "team-a",
        ),
    ]
    for pairs in rights:
        for kind, body in pairs:
            cluster.put(kind, body)
    cluster.raw["/apis/argoproj.io/v1alpha1"] = {"kind": "APIResourceList", "resources": [{"name": "workflows"}]}
    cluster.workflows = [workflow("run-1"), workflow("run-2")]
    end = (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=60)).timestamp()
    cluster.raw[METRICS] = (
        "# TYPE sealflow_admission_certificate_not_after_seconds gauge\n"
        f"sealflow_admission_certificate_not_after_seconds {end}\n"
        "sealflow_admission_enforcing 1.0\n"
    )
    return cluster


WORKFLOWS = "workflows.argoproj.io"
COLUMNS = "--output=custom-columns=CREATED:.metadata.creationTimestamp,NAME:.metadata.name"
METRICS = f"/api/v1/namespaces/{SYSTEM}/services/http:sealflow-admission:metrics/proxy/metrics"
