"""The pods that Argo makes of a Workflow's templates, with what KFP's driver patches in and the API server fills in."""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.kubeflow.argo import ARGO_IMAGE, dumps

_LOG_OPTIONS = ["--loglevel", "info", "--log-format", "text", "--gloglevel", "0"]
_ARGO_MOUNT = {"name": "var-run-argo", "mountPath": "/var/run/argo"}
_TOKEN_MOUNT = {
    "name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True,
}  # fmt: skip


def parameters(workflow: dict[str, Any]) -> dict[str, str]:
    """Return a Workflow's parameters by name."""
    return {item["name"]: item["value"] for item in workflow["spec"]["arguments"]["parameters"]}


def template(workflow: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a Workflow's template."""
    return next(item for item in workflow["spec"]["templates"] if item["name"] == name)


def resolved(workflow: dict[str, Any], task: str, argument: str) -> Any:
    """Return an argument of a task's driver, as it stands in the Workflow's parameters."""
    for one in workflow["spec"]["templates"]:
        for step in one.get("dag", {}).get("tasks", []):
            if step["name"] == f"{task}-driver":
                for item in step["arguments"]["parameters"]:
                    if item["name"] == argument:
                        name = item["value"].removeprefix("{{workflow.parameters.").removesuffix("}}")
                        return json.loads(parameters(workflow)[name])
    return {}


def driver_patch(workflow: dict[str, Any], task: str) -> dict[str, Any]:
    """Return the driver's patch of a task's pod: what it runs, and what its platform part asks for."""
    body = resolved(workflow, task, "container")
    platform = resolved(workflow, task, "kubernetes-config")
    given = dumps({"inputs": {"parameterValues": {"rows": 3}}, "outputs": {}})
    options = {
        "executor_type": "container", "pipeline_name": "churn", "run_id": "1-2-3", "execution_id": "7",
        "executor_input": given, "component_spec": "{}", "pod_name": "$(KFP_POD_NAME)", "pod_uid": "$(KFP_POD_UID)",
        "mlmd_server_address": "metadata-grpc-service", "mlmd_server_port": "8080", "publish_logs": "true",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    words += ["--ml_pipeline_tls_enabled=false", "--cache_disabled=true", "--log_level", "1", "--"]
    volumes, mounts = [], []
    for item in platform.get("secretAsVolume", []):
        source = {"secretName": item["secretName"], "optional": item.get("optional", False)}
        volumes.append({"name": item["secretName"], "secret": source})
        mounts.append({"name": item["secretName"], "mountPath": item["mountPath"]})
    for item in platform.get("configMapAsVolume", []):
        source = {"name": item["configMapName"], "optional": item.get("optional", False)}
        volumes.append({"name": item["configMapName"], "configMap": source})
        mounts.append({"name": item["configMapName"], "mountPath": item["mountPath"]})
    for item in platform.get("pvcMount", []):
        volumes.append({"name": item["constant"], "persistentVolumeClaim": {"claimName": item["constant"]}})
        mounts.append({"name": item["constant"], "mountPath": item["mountPath"]})
    return {
        "command": ["/kfp-launcher/launch", *words],
        "args": [*body.get("command", []), *body.get("args", [])],
        "image": body["image"],
        "env": list(body.get("env", [])),
        "volumes": volumes,
        "mounts": mounts,
    }


def _merged(there: list[dict[str, Any]], more: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Merge lists as a strategic merge patch does, by one member; what the patch brings wins and comes first."""
    names = {item[key] for item in more}
    return [*more, *(item for item in there if item[key] not in names)]


def _argo(pod: dict[str, Any], initial: list[dict[str, Any]], spec: dict[str, Any]) -> dict[str, Any]:
    identity = [
        {"name": "ARGO_POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "ARGO_POD_UID", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}}},
        {"name": "GODEBUG", "value": "x509ignoreCN=0"},
        {"name": "ARGO_WORKFLOW_NAME", "value": "churn-x"},
    ]
    node = [
        {"name": "ARGO_NODE_ID", "value": "churn-x-1"},
        {"name": "ARGO_INCLUDE_SCRIPT_OUTPUT", "value": "false"},
        {"name": "ARGO_DEADLINE", "value": "0001-01-01T00:00:00Z"},
        {"name": "ARGO_PROGRESS_FILE", "value": "/var/run/argo/progress"},
    ]

    def program(name: str) -> dict[str, Any]:
        command = ["argoexec", name, *_LOG_OPTIONS]
        return {"name": name, "image": ARGO_IMAGE, "command": command, "env": identity, "resources": {}}

    main = pod["main"]
    main["command"] = ["/var/run/argo/argoexec", "emissary", *_LOG_OPTIONS, "--", *main["command"]]
    containers = [program("wait"), main]
    initial = [program("init"), *initial]
    for container in initial:
        container["env"] = [
            *container.get("env", []),
            {"name": "ARGO_CONTAINER_NAME", "value": container["name"]},
            {"name": "ARGO_TEMPLATE", "value": pod["template"]},
            *node,
        ]
    for container in containers:
        container["env"] = [
            *container.get("env", []), {"name": "ARGO_CONTAINER_NAME", "value": container["name"]}, *node,
        ]  # fmt: skip
    for container in (*initial, *containers):
        container["volumeMounts"] = [*container.get("volumeMounts", []), _ARGO_MOUNT, _TOKEN_MOUNT]
    # Whatever the template mounts, Argo shows to its own container as well, and writable.
    containers[0]["volumeMounts"] += [
        {**item, "mountPath": f"/mainctrfs{item['mountPath']}", "readOnly": False} for item in pod["mirrored"]
    ]
    containers[0]["volumeMounts"].append({"name": "tmp-dir-argo", "mountPath": "/tmp", "subPath": "0"})
    token = {
        "name": "kube-api-access-x7k2p",
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"fieldRef": {"fieldPath": "metadata.namespace"}, "path": "namespace"}]}},
            ],
            "defaultMode": 420,
        },
    }
    volumes = [{"name": "var-run-argo", "emptyDir": {}}, {"name": "tmp-dir-argo", "emptyDir": {}}]
    mark = {"pipelines.kubeflow.org/v2_component": "true", "pipeline/runid": "1-2-3"}
    return copy.deepcopy(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "churn-x-system-container-impl-1",
                "namespace": "team-a",
                "labels": {**mark, "workflows.argoproj.io/workflow": "churn-x"},
                "annotations": {"workflows.argoproj.io/node-name": "churn-x.root.train.executor"},
            },
            "spec": {
                "restartPolicy": "Never",
                "serviceAccountName": "pipeline-runner",
                "securityContext": spec.get("securityContext", {}),
                "initContainers": initial,
                "containers": containers,
                "volumes": [*volumes, *pod["volumes"], token],
            },
        }
    )


def told(one: dict[str, Any], **more: Any) -> str:
    """Return the template as Argo tells it to its own program: filled in, and without its input parameters."""
    return dumps({**one, "inputs": {}, **more})


def task_pod(workflow: dict[str, Any], task: str, variant: str = "") -> dict[str, Any]:
    """Return the pod of a task."""
    one = copy.deepcopy(template(workflow, f"{variant}system-container-impl"))
    patch = driver_patch(workflow, task)
    main = {
        **one["container"],
        "name": "main",
        "command": patch["command"],
        "args": patch["args"],
        "image": patch["image"],
        "env": _merged(one["container"]["env"], patch["env"], "name"),
        "volumeMounts": _merged(one["container"]["volumeMounts"], patch["mounts"], "mountPath"),
    }
    volumes = _merged(one["volumes"], patch["volumes"], "name")
    mirrored = one["container"]["volumeMounts"]
    parts = {"main": main, "volumes": volumes, "mirrored": mirrored}
    return _argo({**parts, "template": told(one, podSpecPatch=dumps(patch))}, one["initContainers"], one)


def program_pod(workflow: dict[str, Any], name: str, **values: str) -> dict[str, Any]:
    """Return the pod of KFP's driver or of an import.

    Args:
        workflow: The Workflow.
        name: Name of its template.
        values: What is filled in for the template's inputs, with low lines for dashes.
    """
    one = copy.deepcopy(template(workflow, name))
    given = {f"{{{{inputs.parameters.{key.replace('_', '-')}}}}}": value for key, value in values.items()}
    args = [given.get(word, word) for word in one["container"]["args"]]
    main = {**one["container"], "name": "main", "args": args}
    mirrored = one["container"].get("volumeMounts", [])
    parts = {"main": main, "volumes": one.get("volumes", []), "mirrored": mirrored}
    return _argo({**parts, "template": told(one)}, [], one)


def stored(pod: dict[str, Any]) -> dict[str, Any]:
    """Return a pod with what an API server fills in before it asks anybody to validate."""
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    filled = {
        "dnsPolicy": "ClusterFirst", "enableServiceLinks": True, "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0, "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
        "serviceAccount": spec["serviceAccountName"],
        "tolerations": [{"effect": "NoExecute", "key": "node.kubernetes.io/not-ready", "operator": "Exists"}],
    }  # fmt: skip
    pod["spec"] = {**filled, **spec}
    for container in (*spec["initContainers"], *spec["containers"]):
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        for item in container.get("env", []):
            if "fieldRef" in item.get("valueFrom", {}):
                item["valueFrom"]["fieldRef"].setdefault("apiVersion", "v1")
    for volume in spec["volumes"]:
        for kind in ("secret", "configMap"):
            if kind in volume:
                volume[kind].setdefault("defaultMode", 420)
    return pod
