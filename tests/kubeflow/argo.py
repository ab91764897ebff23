"""What KFP's API server, its driver and Argo's controller make of a pipeline, as their sources describe it.

``compiled`` is ``backend/src/v2/compiler/argocompiler``, ``task_pod`` is the driver's pod patch
(``backend/src/v2/driver``) on what Argo builds from the template (``workflow/controller/workflowpod.go``), and
``stored`` what an API server fills in. Only what reaches an admission server is here.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DIGEST = "sha256:" + "a" * 64
LAUNCHER_IMAGE = f"registry.example/kfp-launcher@{DIGEST}"
DRIVER_IMAGE = f"registry.example/kfp-driver@{DIGEST}"
ARGO_IMAGE = f"registry.example/argoexec@{DIGEST}"
GUARD_IMAGE = f"registry.example/sealflow-guard@{DIGEST}"
TASK_IMAGE = f"registry.example/team/train@{DIGEST}"

_POD_NAME = [
    {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "KFP_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
]
_LOCKED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SCRATCH = {
    "kfp-launcher": "/kfp-launcher",
    "gcs-scratch": "/gcs",
    "s3-scratch": "/s3",
    "minio-scratch": "/minio",
    "dot-local-scratch": "/.local",
    "dot-cache-scratch": "/.cache",
    "dot-config-scratch": "/.config",
}
_SERVERS = ["--ml_pipeline_server_address", "ml-pipeline.kubeflow", "--ml_pipeline_server_port", "8887"]


@dataclass(frozen=True)
class Task:
    """A task of a pipeline.

    Attributes:
        name: Its name.
        command: What its container runs.
        args: And with which arguments.
        image: Its image.
        platform: Its part of the platform spec (``KubernetesExecutorConfig``).
        more: Further members of its implementation.
        after: Tasks before it.
        variant: What stands before the names of its templates, such as ``retry-``.
    """

    name: str
    command: Sequence[str] = ("sh", "-c", "echo trained")
    args: Sequence[str] = ()
    image: str = TASK_IMAGE
    platform: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    after: Sequence[str] = ()
    variant: str = ""


def dumps(value: Any) -> str:
    """Return JSON as Go writes it: sorted names, no space."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def parameter(name: str, value: str) -> dict[str, Any]:
    """Return one argument."""
    return {"name": name, "value": value}


def _driver(kind: str, extra: list[str]) -> list[str]:
    return [
        "--type", kind, "--pipeline_name", "churn", "--run_id", "{{workflow.uid}}", "--run_display_name", "",
        "--dag_execution_id", "{{inputs.parameters.parent-dag-id}}", "--component", "{{inputs.parameters.component}}",
        "--task", "{{inputs.parameters.task}}", "--task_name", "{{inputs.parameters.task-name}}", *extra,
        "--iteration_index", "{{inputs.parameters.iteration-index}}", "--http_proxy", "", *_SERVERS,
        "--cache_disabled=false", "--log_level", "1", "--publish_logs", "true", "--ml_pipeline_tls_enabled=false",
        "--ca_cert_path", "",
    ]  # fmt: skip


def _inputs(*names: str, **defaults: str) -> dict[str, Any]:
    listed: list[dict[str, Any]] = [{"name": name} for name in names]
    return {"parameters": listed + [{"name": name.replace("_", "-"), "default": one} for name, one in defaults.items()]}


def _program(name: str, image: str, command: str, args: list[str], inputs: Any, outputs: Any, role: str) -> Any:
    return {
        "name": name,
        "container": {
            "name": "", "image": image, "command": [command], "args": args, "env": list(_POD_NAME),
            "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}},
            "securityContext": {**_LOCKED, "runAsNonRoot": True},
        },
        "inputs": inputs,
        "outputs": outputs,
        "metadata": {"annotations": {"pipelines.kubeflow.org/runtime-role": role}},
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip


def _container_driver() -> dict[str, Any]:
    extra = [
        "--container", "{{inputs.parameters.container}}",
        "--cached_decision_path", "{{outputs.parameters.cached-decision.path}}",
        "--pod_spec_patch_path", "{{outputs.parameters.pod-spec-patch.path}}",
        "--kubernetes_config", "{{inputs.parameters.kubernetes-config}}",
    ]  # fmt: skip
    names = ("component", "task", "container", "task-name", "parent-dag-id")
    outputs = {
        "parameters": [
            {"name": "pod-spec-patch", "valueFrom": {"default": "", "path": "/tmp/outputs/pod-spec-patch"}},
            {"name": "cached-decision", "default": "false", "valueFrom": {"path": "/tmp/outputs/cached-decision"}},
        ]
    }
    inputs = _inputs(*names, iteration_index="-1", kubernetes_config="")
    args = _driver("CONTAINER", extra)
    return _program("system-container-driver", DRIVER_IMAGE, "driver", args, inputs, outputs, "driver")


def _dag_driver() -> dict[str, Any]:
    inputs = _inputs(
        "component",
        runtime_config="",
        task="",
        task_name="",
        parent_dag_id="0",
        iteration_index="-1",
        driver_type="DAG",
    )
    outputs = {"parameters": [{"name": "execution-id", "valueFrom": {"path": "/tmp/outputs/execution-id"}}]}
    args = _driver("{{inputs.parameters.driver-type}}", ["--runtime_config", "{{inputs.parameters.runtime-config}}"])
    return _program("system-dag-driver", DRIVER_IMAGE, "driver", args, inputs, outputs, "driver")


def _importer(workspace: bool) -> dict[str, Any]:
    args = [
        "--executor_type", "importer", "--task_spec", "{{inputs.parameters.task}}",
        "--component_spec", "{{inputs.parameters.component}}", "--importer_spec", "{{inputs.parameters.importer}}",
        "--pipeline_name", "churn", "--run_id", "{{workflow.uid}}", "--parent_dag_id",
        "{{inputs.parameters.parent-dag-id}}", "--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)",
        "--cache_disabled=false", "--ca_cert_path", "", "--log_level", "1", "--publish_logs", "true",
    ]  # fmt: skip
    inputs = _inputs("task", "component", "importer", "parent-dag-id")
    name = "system-importer-workspace" if workspace else "system-importer"
    found = _program(name, LAUNCHER_IMAGE, "launcher-v2", args, inputs, {}, "launcher")
    found["container"]["envFrom"] = [{"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}]
    if workspace:
        claim = {"claimName": "{{workflow.name}}-kfp-workspace"}
        found["volumes"] = [{"name": "kfp-workspace", "persistentVolumeClaim": claim}]
        found["container"]["volumeMounts"] = [{"name": "kfp-workspace", "mountPath": "/kfp-workspace"}]
    return found


def _executor(variant: str) -> list[dict[str, Any]]:
    patch = parameter("pod-spec-patch", "{{inputs.parameters.pod-spec-patch}}")
    wrapper = {
        "name": f"{variant}system-container-executor",
        "inputs": _inputs("pod-spec-patch", cached_decision="false"),
        "outputs": {},
        "metadata": {},
        "dag": {
            "tasks": [
                {
                    "name": "executor", "template": f"{variant}system-container-impl",
                    "arguments": {"parameters": [patch]}, "when": "{{inputs.parameters.cached-decision}} != true",
                }
            ]
        },
    }  # fmt: skip
    impl: dict[str, Any] = {
        "name": f"{variant}system-container-impl",
        "inputs": _inputs("pod-spec-patch"),
        "outputs": {},
        "metadata": {"annotations": {"pipelines.kubeflow.org/runtime-role": "launcher"}},
        "podSpecPatch": "{{inputs.parameters.pod-spec-patch}}",
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "container": {
            "name": "", "image": "gcr.io/ml-pipeline/should-be-overridden-during-runtime",
            "command": ["should-be-overridden-during-runtime"], "env": list(_POD_NAME), "resources": {},
            "envFrom": [{"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}],
            "securityContext": dict(_LOCKED),
            "volumeMounts": [{"mountPath": path, "name": name} for name, path in _SCRATCH.items()],
        },
        "initContainers": [
            {
                "name": "kfp-launcher", "image": LAUNCHER_IMAGE, "command": ["launcher-v2"],
                "args": ["--copy", "/kfp-launcher/launch"], "resources": {"requests": {"cpu": "100m"}},
                "securityContext": {**_LOCKED, "runAsNonRoot": True},
                "volumeMounts": [{"mountPath": "/kfp-launcher", "name": "kfp-launcher"}],
            }
        ],
        "volumes": [{"emptyDir": {}, "name": name} for name in _SCRATCH],
    }  # fmt: skip
    if variant.startswith("retry-"):
        impl["retryStrategy"] = {"limit": "{{inputs.parameters.retry-max-count}}", "backoff": {"factor": "2"}}
        impl["container"]["env"] += [{"name": "KFP_RETRY_INDEX", "value": "{{retries}}"}]
    return [wrapper, impl]


def compiled(
    tasks: Sequence[Task], *, importer: bool = False, workspace: bool = False, exit_task: Task | None = None,
    certificates: bool = False, loop: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Return the Workflow that KFP's API server submits for one run.

    Args:
        tasks: Its tasks.
        importer: Whether it imports an artifact as well.
        workspace: Whether the import goes into the run's workspace.
        exit_task: What runs at the end whatever happens.
        certificates: Whether the installation has a bundle of certificates.
        loop: Whether the tasks stand in a loop.
    """
    parameters: list[dict[str, Any]] = []
    templates: dict[str, dict[str, Any]] = {"system-container-driver": _container_driver()}
    for task in [*tasks, *([exit_task] if exit_task else [])]:
        templates.update({template["name"]: template for template in _executor(task.variant)})
        parameters += _parameters(task, parameters)
    body = "for-loop-1" if loop else "root"
    inner: list[dict[str, Any]] = [step for task in tasks for step in _steps(task)]
    if importer or workspace:
        name = "system-importer-workspace" if workspace else "system-importer"
        spec = {"artifactUri": {"constant": "s3://bucket/data.csv"}, "typeSchema": {"schemaTitle": "system.Dataset"}}
        parameters += [
            parameter("components-comp-importer", dumps({"executorLabel": "exec-importer"})),
            parameter("implementations-comp-importer", dumps(spec)),
        ]
        templates[name] = _importer(workspace)
        arguments = [
            parameter("task", dumps({"cachingOptions": {"enableCache": True}, "taskInfo": {"name": "importer"}})),
            parameter("component", "{{workflow.parameters.components-comp-importer}}"),
            parameter("importer", "{{workflow.parameters.implementations-comp-importer}}"),
            parameter("parent-dag-id", "{{inputs.parameters.parent-dag-id}}"),
        ]
        inner.append({"name": "importer", "template": name, "arguments": {"parameters": arguments}})
    templates[body] = _dag(body, inner)
    root: dict[str, Any] = {
        "name": "root", "template": "root", "depends": "root-driver.Succeeded",
        "arguments": {
            "parameters": [
                parameter("parent-dag-id", "{{tasks.root-driver.outputs.parameters.execution-id}}"),
                parameter("condition", ""),
            ]
        },
    }  # fmt: skip
    if loop:
        iteration = [
            parameter("parent-dag-id", "{{inputs.parameters.parent-dag-id}}"),
            parameter("iteration-index", "{{item}}"),
        ]
        each = {
            "name": "for-loop-1", "template": "for-loop-1", "arguments": {"parameters": iteration},
            "withSequence": {"count": "{{tasks.root-driver.outputs.parameters.iteration-count}}"},
        }  # fmt: skip
        templates["root"] = _dag("root", [each])
    if exit_task is not None:
        hook = f"exit-hook-root-{exit_task.name}"
        templates[hook] = _dag(hook, _steps(exit_task))
        arguments = [parameter("parent-dag-id", "{{inputs.parameters.parent-dag-id}}")]
        root["hooks"] = {"exit": {"template": hook, "arguments": {"parameters": arguments}}}
    parameters.append(parameter("components-root", dumps({"dag": {"tasks": {task.name: {} for task in tasks}}})))
    templates["system-dag-driver"] = _dag_driver()
    first = {
        "name": "root-driver", "template": "system-dag-driver",
        "arguments": {
            "parameters": [
                parameter("component", "{{workflow.parameters.components-root}}"),
                parameter("runtime-config", '{"parameterValues":{}}'),
                parameter("driver-type", "ROOT_DAG"),
            ]
        },
    }  # fmt: skip
    templates["entrypoint"] = {**_dag("entrypoint", [first, root]), "inputs": {}}
    if certificates:
        for template in templates.values():
            if "container" in template:
                bundle = {"name": "kfp-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
                template.setdefault("volumes", []).append({"name": "custom-ca", "configMap": bundle})
                mounts = template["container"].setdefault("volumeMounts", [])
                mounts.append({"name": "custom-ca", "mountPath": "/kfp/certs"})
    mark = {"pipelines.kubeflow.org/v2_component": "true"}
    return copy.deepcopy(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": "churn-", "namespace": "team-a", "labels": {"pipeline/runid": "1-2-3"}},
            "spec": {
                "arguments": {"parameters": parameters},
                "entrypoint": "entrypoint",
                "podMetadata": {"annotations": dict(mark), "labels": {**mark, "pipeline/runid": "1-2-3"}},
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "serviceAccountName": "pipeline-runner",
                "templates": list(templates.values()),
            },
            "status": {"finishedAt": None, "startedAt": None},
        }
    )


def _parameters(task: Task, there: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    label = _label(task)
    if not any(item["name"] == f"implementations-{label}" for item in there):
        found.append(parameter(f"components-{label}", dumps({"executorLabel": f"exec-{task.name}"})))
        found.append(parameter(f"implementations-{label}", implementation(task)))
    if task.platform:
        found.append(parameter(f"kubernetes-comp-{task.name}", dumps(task.platform)))
    return found


def implementation(task: Task) -> str:
    """Return the JSON of what a task runs (``PipelineContainerSpec``)."""
    body = {"args": list(task.args), "command": list(task.command), "image": task.image, **task.more}
    return dumps({name: value for name, value in body.items() if value})


def _label(task: Task) -> str:
    return hashlib.sha256(implementation(task).encode()).hexdigest()


def _dag(name: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    inputs = _inputs("parent-dag-id")
    return {"name": name, "inputs": inputs, "outputs": {}, "metadata": {}, "dag": {"tasks": tasks}}


def _steps(task: Task) -> list[dict[str, Any]]:
    driver = f"{task.name}-driver"
    spec = {"cachingOptions": {"enableCache": True}, "componentRef": {"name": f"comp-{task.name}"}}
    arguments = [
        parameter("component", f"{{{{workflow.parameters.components-{_label(task)}}}}}"),
        parameter("task", dumps({**spec, "taskInfo": {"name": task.name}})),
        parameter("container", f"{{{{workflow.parameters.implementations-{_label(task)}}}}}"),
        parameter("task-name", task.name),
        parameter("parent-dag-id", "{{inputs.parameters.parent-dag-id}}"),
    ]
    if task.platform:
        arguments.append(parameter("kubernetes-config", f"{{{{workflow.parameters.kubernetes-comp-{task.name}}}}}"))
    outputs = f"{{{{tasks.{driver}.outputs.parameters"
    first: dict[str, Any] = {
        "name": driver, "template": "system-container-driver", "arguments": {"parameters": arguments},
    }  # fmt: skip
    if task.after:
        first["depends"] = " && ".join(f"{name}.Succeeded" for name in task.after)
    decision = {"name": "cached-decision", "default": "false", "value": f"{outputs}.cached-decision}}}}"}
    run = {
        "name": task.name, "template": f"{task.variant}system-container-executor", "depends": f"{driver}.Succeeded",
        "arguments": {"parameters": [parameter("pod-spec-patch", f"{outputs}.pod-spec-patch}}}}"), decision]},
    }  # fmt: skip
    return [first, run]
