"""Pods that a gate at admission has to take, and pods that it has to refuse; whichever gate it is.

Each hostile pod is a good one with one thing changed, as somebody would do who may make pods in a guarded namespace.
"""

from __future__ import annotations

import copy
import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

import jsonpatch

from sealflow_kfp.admission.decide import Decision, decide
from sealflow_kfp.admission.settings import Settings, parse_settings
from tests.kubeflow.argo import (
    ARGO_IMAGE,
    DIGEST,
    DRIVER_IMAGE,
    GUARD_IMAGE,
    LAUNCHER_IMAGE,
    TASK_IMAGE,
    Task,
    compiled,
)
from tests.kubeflow.argo_pods import program_pod, stored, task_pod
from tests.kubeflow.baseline_pods import good_confined, hostile_confined
from tests.kubeflow.program_pods import MESH_IMAGE, good_programs, hostile_programs

OTHER = "sha256:" + "e" * 64
NOTEBOOK_IMAGE = f"registry.example/notebook@{DIGEST}"
SETTINGS_TEXT = f"""
sealflow_admission: 1
mode: enforce
guard:
  image: "{GUARD_IMAGE}"
  secret: sealflow
  policy_config_map: sealflow-policy
kubeflow:
  launcher_images: ["{LAUNCHER_IMAGE}"]
  driver_images: ["{DRIVER_IMAGE}"]
  executor_images: ["{ARGO_IMAGE}"]
  sidecar_images: ["{MESH_IMAGE}"]
exempt:
  - name: notebooks
    namespaces: [team-a]
    creators: ["system:serviceaccount:kube-system:statefulset-controller"]
  - name: viewer
    images: ["{NOTEBOOK_IMAGE}"]
"""
#: The settings that both tables are for.
SETTINGS: Settings = parse_settings(SETTINGS_TEXT.encode())
AUDIT: Settings = parse_settings(SETTINGS_TEXT.replace("mode: enforce", "mode: audit").encode())

_KINDS = {"Workflow": ("argoproj.io", "v1alpha1"), "PipelineVersion": ("pipelines.kubeflow.org", "v2beta1")}


def review(body: dict[str, Any], **members: Any) -> bytes:
    """Return an AdmissionReview of an object, as an API server sends it."""
    group, version = _KINDS.get(body["kind"], ("", "v1"))
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": group, "version": version, "kind": body["kind"]},
        "resource": {"group": group, "version": version, "resource": f"{body['kind'].lower()}s"},
        "operation": "CREATE",
        "namespace": "team-a",
        "userInfo": {"username": "system:serviceaccount:kubeflow:argo", "groups": ["system:authenticated"]},
        "object": body,
        "oldObject": None,
        "dryRun": False,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    }
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**request, **members}}
    return json.dumps(whole).encode()


def answered(decision: Decision) -> dict[str, Any]:
    """Return the response part of an answer."""
    body = json.loads(decision.response)
    assert (body["apiVersion"], body["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    return dict(body["response"])


def changes(decision: Decision) -> list[dict[str, Any]]:
    """Return the operations of an answer's patch."""
    patch = answered(decision).get("patch")
    return list(json.loads(b64decode(patch))) if patch else []


def changed(workflow: dict[str, Any], settings: Settings = SETTINGS) -> dict[str, Any]:
    """Return a Workflow as the mutating webhook leaves it."""
    decision = decide(review(workflow), settings)
    assert decision.allowed, decision.response.decode()
    return dict(jsonpatch.apply_patch(workflow, changes(decision)))


#: What brings files of an author's into a pod.
_FILES: dict[str, dict[str, Any]] = {
    "config-map": {"configMap": {"name": "mine", "defaultMode": 493}},
    "secret": {"secret": {"secretName": "mine"}},
    "claim": {"persistentVolumeClaim": {"claimName": "mine"}},
    "image": {"image": {"reference": TASK_IMAGE}},
    "share": {"nfs": {"server": "nfs.example", "path": "/"}},
    "labels": {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.annotations"}}]}},
    "ephemeral-claim": {"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}},
}


def _good_task() -> dict[str, Any]:
    return task_pod(changed(compiled([Task("train", args=("--rows", "3"))])), "train")


def good_pods() -> dict[str, dict[str, Any]]:
    """Return pods that have to be taken, by what they are."""
    platform = {
        "secretAsVolume": [{"secretName": "sealflow", "mountPath": "/var/run/sealflow", "optional": False}],
        "configMapAsVolume": [{"configMapName": "sealflow-policy", "mountPath": "/etc/sealflow", "optional": False}],
        "pvcMount": [{"constant": "data", "mountPath": "/data"}],
    }
    workflow = changed(
        compiled(
            [
                Task("train", platform=platform),
                Task("again", variant="retry-"),
                Task("bare", command=(), args=("run",)),
            ],
            importer=True,
            certificates=True,
        )
    )
    driver = {"container": "{}", "component": "{}", "task": "{}", "kubernetes_config": "", "driver_type": "DAG"}
    found = {
        "a task under guard": _good_task(),
        "a task with keys and policy from its own platform part": task_pod(workflow, "train"),
        "a task that is tried again": task_pod(workflow, "again", "retry-"),
        "a task without a command of its own": task_pod(workflow, "bare"),
        "the driver of a task": program_pod(workflow, "system-container-driver", **driver),
        "the driver of a pipeline": program_pod(workflow, "system-dag-driver", **driver),
        "an import": program_pod(workflow, "system-importer", task="{}", component="{}", importer="{}"),
    }
    older = found["a task of KFP 2.16 with an admin's options"] = _good_task()
    command = _main(older)["command"]
    _replace(command, "--cache_disabled=true", ["--cache_disabled"])
    _replace(command, "--ml_pipeline_tls_enabled=false", ["--ml_pipeline_tls_enabled", "--metadata_tls_enabled"])
    # KFP itself writes it a second time.
    command[-1:-1] = ["--publish_logs", "true"]
    _init(older, "kfp-launcher")["args"] += ["--cache_disabled", "--log_level", "3", "--publish_logs", "true"]
    oldest = found["a task of KFP 2.3"] = _good_task()
    copying = _init(oldest, "kfp-launcher")
    copying["command"] += copying.pop("args")
    command = _main(oldest)["command"]
    del command[2 : command.index("--")]
    at = command.index("--executor_type")
    del command[at : at + 2]
    found["a task as the API server stores it"] = stored(found["a task under guard"])
    later = found["a task under an Argo without init containers"] = _good_task()
    _supervisor('{"name":"system-container-impl","inputs":{},"container":{}}')(later)
    whole = found["a task under Argo 3.4"] = _good_task()
    for container in (*whole["spec"]["initContainers"], *whole["spec"]["containers"]):
        # It tells its template to every container, with the parameters, and where logs go.
        value = {"inputs": {"parameters": [{"name": "pod-spec-patch", "value": '{"a":"\\"artifacts\\":"}'}]}}
        value |= {"name": "system-container-impl", "outputs": {}, "archiveLocation": {"archiveLogs": True, "s3": {}}}
        _drop(container["env"], "ARGO_TEMPLATE")
        container["env"].append({"name": "ARGO_TEMPLATE", "value": json.dumps(value)})
    found["a task with files of its own"] = files = _good_task()
    for name, source in _FILES.items():
        files["spec"]["volumes"].append({"name": name, **source})
        _main(files)["volumeMounts"].insert(0, {"name": name, "mountPath": f"/{name}"})
    files["spec"]["volumes"].append({"name": "room", "emptyDir": {}})
    _main(files)["volumeMounts"] += [
        {"name": "room", "mountPath": "/opt/app/cache"},
        {"name": "room", "mountPath": "/tmp"},
    ]
    mesh = stored(found["a task under guard"])
    mesh["spec"]["containers"].append({"name": "mesh", "image": MESH_IMAGE, "readinessProbe": {"exec": {}}})
    found["a task with the mesh's container"] = mesh
    cloud = found["a task with an identity in a cloud"] = stored(found["a task under guard"])
    token = [{"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}}]
    cloud["spec"]["volumes"].append({"name": "aws-iam-token", "projected": {"sources": token, "defaultMode": 420}})
    for container in (*cloud["spec"]["initContainers"], *cloud["spec"]["containers"]):
        place = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
        container["env"] += [
            {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::111122223333:role/pipelines"},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": f"{place}/token"},
        ]
        container["volumeMounts"].append({"name": "aws-iam-token", "mountPath": place, "readOnly": True})
    variables = _good_task()
    _main(variables)["env"] += [
        {"name": "PYTHONPATH", "value": "/app"}, {"name": "PATH", "value": "/app/bin"},
        {"name": "LD_LIBRARY_PATH", "value": "/usr/local/nvidia/lib64"}, {"name": "HOME", "value": "/tmp"},
    ]  # fmt: skip
    found["a task with variables that the guard does not hear"] = variables
    found.update(good_programs(found))
    found.update(good_confined(found))
    return {name: copy.deepcopy(pod) for name, pod in found.items()}


def _main(pod: dict[str, Any]) -> dict[str, Any]:
    return next(item for item in pod["spec"]["containers"] if item["name"] == "main")


def _init(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in pod["spec"]["initContainers"] if item["name"] == name)


def _volume(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in pod["spec"]["volumes"] if item["name"] == name)


def _mount(pod: dict[str, Any], path: str) -> dict[str, Any]:
    return next(item for item in _main(pod)["volumeMounts"] if item["mountPath"] == path)


def _with_volume(pod: dict[str, Any], source: dict[str, Any], path: str, **more: Any) -> None:
    pod["spec"]["volumes"].append({"name": "extra", **source})
    _main(pod)["volumeMounts"].append({"name": "extra", "mountPath": path, **more})


def _first(source: dict[str, Any], path: str, name: str = "extra") -> Callable[[dict[str, Any]], None]:
    """Return what mounts something before all else, as the driver's patch does."""

    def change(pod: dict[str, Any]) -> None:
        pod["spec"]["volumes"].append({"name": name, **source})
        _main(pod)["volumeMounts"].insert(0, {"name": name, "mountPath": path})

    return change


def _replace(items: list[Any], old: Any, new: list[Any]) -> None:
    index = items.index(old)
    items[index : index + 1] = new


def _drop(items: list[dict[str, Any]], name: str) -> None:
    items[:] = [item for item in items if item["name"] != name]


def _told(container: str, value: Any, **more: Any) -> Callable[[dict[str, Any]], None]:
    """Return what tells Argo's program another template."""

    def change(pod: dict[str, Any]) -> None:
        for item in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            if item["name"] == container:
                _drop(item["env"], "ARGO_TEMPLATE")
                text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
                item["env"].append({"name": "ARGO_TEMPLATE", "value": text, **more})

    return change


def _beside(name: str, member: str, *items: Any) -> Callable[[dict[str, Any]], None]:
    """Return what adds to a member of one of the containers."""

    def change(pod: dict[str, Any]) -> None:
        for item in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            if item["name"] == name:
                item[member] = [*item.get(member, []), *items]

    return change


def _brought(name: str, path: str, source: dict[str, Any] | None = None) -> Callable[[dict[str, Any]], None]:
    """Return what mounts something of an author's into one of the containers."""

    def change(pod: dict[str, Any]) -> None:
        pod["spec"]["volumes"].append({"name": "extra", **(source or {"configMap": {"name": "mine"}})})
        _beside(name, "volumeMounts", {"name": "extra", "mountPath": path})(pod)

    return change


def _env(pod: dict[str, Any], name: str, value: str = "1") -> None:
    _main(pod)["env"].append({"name": name, "value": value})


def _hidden(pod: dict[str, Any]) -> None:
    main = _main(pod)
    del main["args"]
    main["env"].append({"name": "ARGO_CONTAINER_ARGS_FILE", "value": "/argo/config/ARGO_CONTAINER_ARGS_FILE"})
    main["volumeMounts"].append({"name": "argo-env-config", "mountPath": "/argo/config"})
    pod["spec"]["volumes"].append({"name": "argo-env-config", "configMap": {"name": "churn-x"}})


def _early_separator(pod: dict[str, Any]) -> None:
    command = _main(pod)["command"]
    at = command.index("/kfp-launcher/launch")
    command[at + 1 : at + 1] = ["--", "sh", "-c", "steal"]


def _own_program(pod: dict[str, Any]) -> None:
    main = _main(pod)
    main["command"] = [*main["command"][: main["command"].index("/kfp-launcher/launch")], "sh", "-c"]
    main["args"] = ["steal", *main["args"]]


def _second_init(pod: dict[str, Any]) -> None:
    pod["spec"]["initContainers"].append(
        {
            "name": "helper", "image": TASK_IMAGE, "command": ["cp", "/evil", "/sealflow/guard/guard"],
            "volumeMounts": [{"name": "sealflow-guard", "mountPath": "/sealflow/guard"}],
        }
    )  # fmt: skip


def _writes_guard(name: str) -> Callable[[dict[str, Any]], None]:
    def change(pod: dict[str, Any]) -> None:
        for item in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            if item["name"] == name:
                item["volumeMounts"].append({"name": "sealflow-guard", "mountPath": "/elsewhere"})

    return change


def _hook(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: _main(pod).update({name: value})


def _spec(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"].update({name: value})


def _security(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: _main(pod)["securityContext"].update(members)


def _supervisor(template: str | None) -> Callable[[dict[str, Any]], None]:
    """Return what makes a pod one of an Argo that has no init containers of its own."""

    def change(pod: dict[str, Any]) -> None:
        main, beside = _main(pod), pod["spec"]["containers"][0]
        main["command"][0] = "/argo-bin/bin/argoexec"
        main["volumeMounts"].append({"name": "argoexec-bin", "mountPath": "/argo-bin", "readOnly": True})
        main["env"].append({"name": "ARGO_WAIT_FOR_READY", "value": "true"})
        beside.update(name="supervisor", command=["argoexec", "supervisor", *beside["command"][2:]])
        if template is not None:
            beside["env"].append({"name": "ARGO_TEMPLATE", "value": template})
        _drop(pod["spec"]["initContainers"], "init")
        pod["spec"]["volumes"].append({"name": "argoexec-bin", "image": {"reference": ARGO_IMAGE}})

    return change


_EXEC = {"exec": {"command": ["sh", "-c", "steal"]}}
_KEY = {"secretKeyRef": {"name": "sealflow", "key": "sign.pem"}}
_SOURCES = [{"secret": {"name": "sealflow"}}]

_TOOL = {
    "name": "../../../var/run/argo/argoexec",
    "path": "/x",
    "raw": {"data": "#!/bin/sh"},
    "archive": {"none": {}},
    "mode": 493,
}
_STOLEN = {"name": "k", "path": "/var/run/sealflow/sign.pem"}
_CONFIG = {"configMapRef": {"name": "mine"}}
_KFP_CONFIG = {"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}
_KEY_OUTPUT = {"name": "k", "valueFrom": {"path": "/var/run/sealflow/sign.pem"}}
#: What Argo's program does at another's word, by what it is told.
TEMPLATES: dict[str, Any] = {
    "artifacts": {"inputs": {"artifacts": [_TOOL]}},
    "artifacts in Go's other spelling": {"inputs": {"Artifacts": [_TOOL]}},
    "artifacts with another s, which Go takes for one": {"inputs": {"artifact\u017f": [_TOOL]}},
    "inputs in Go's other spelling": {"Inputs": {"artifacts": [_TOOL]}},
    "inputs a second time": '{"inputs":{},"inputs":{"artifacts":[{"name":"../x"}]}}',
    "artifacts behind an escape": '{"inputs":{"artifact\\u0073":[{"name":"../x"}]}}',
    "artifacts on another line": '{"inputs":{"artifacts"\n:\t[\n{"name":"../x"}]}}',
    "a script": {"inputs": {}, "script": {"source": "x"}},
    "a script in Go's other spelling": {"inputs": {}, "Script": {"source": "x"}},
    "a resource": {"inputs": {}, "resource": {"action": "create"}},
    "data": {"inputs": {}, "data": {"source": {}}},
    "a plugin": {"inputs": {}, "plugin": {"x": {}}},
    "containers that are tried again": {"inputs": {}, "containerSet": {"retryStrategy": {"retries": 9}}},
    "sidecars": {"inputs": {}, "sidecars": [{"name": "main"}]},
    "artifacts to send": {"inputs": {}, "outputs": {"artifacts": [_STOLEN]}},
    "parameters to send": {"inputs": {}, "outputs": {"parameters": [_KEY_OUTPUT]}},
    "parameters to send in Go's other spelling": {"inputs": {}, "outputs": {"Parameters": [_KEY_OUTPUT]}},
    "logs by a plugin": {"inputs": {}, "archiveLocation": {"plugin": {"name": "x"}}},
    "what lies in a config map": "offloaded",
    "nothing": "",
    "no object": "[]",
}

#: What somebody would change, by name.
ATTACKS: dict[str, Callable[[dict[str, Any]], None]] = {
    # The command.
    "no guard before the command": lambda pod: _main(pod).update(args=["sh", "-c", "steal"]),
    "python3 of the image as guard": lambda pod: _replace(
        _main(pod)["args"], "/sealflow/guard/guard", ["python3", "-I", "-m", "sealflow_kfp.exec"]
    ),
    "another program of the guard directory": lambda pod: _replace(
        _main(pod)["args"], "/sealflow/guard/guard", ["/sealflow/guard/python"]
    ),
    "a path that only looks like the guard": lambda pod: _replace(
        _main(pod)["args"], "/sealflow/guard/guard", ["/sealflow/guard/../../evil"]
    ),
    "another executor input": lambda pod: _replace(_main(pod)["args"], "{{$}}", ["{}"]),
    "one option more before the guard's command": lambda pod: _main(pod)["args"].insert(1, "--mode=audit"),
    "the guard after a shell": lambda pod: _main(pod).update(args=["sh", "-c", "steal", *_main(pod)["args"]]),
    "the guard with nothing to run": lambda pod: _main(pod).update(args=_main(pod)["args"][:4]),
    "arguments in a config map": _hidden,
    "arguments left out": lambda pod: _main(pod).pop("args"),
    "arguments in a file, the guard for show": lambda pod: _env(pod, "ARGO_CONTAINER_ARGS_FILE", "/data/args"),
    "an early -- for the launcher": _early_separator,
    "an option of the launcher that nobody knows": lambda pod: _main(pod)["command"].insert(-1, "--run_first=evil"),
    "an option of the launcher with two values": lambda pod: _main(pod)["command"].insert(-1, "--run_id=2"),
    "a word behind a truth value": lambda pod: _main(pod)["command"].__setitem__(
        slice(-1, -1), ["--metadata_tls_enabled", "steal"]
    ),
    "the launcher copied with an option more": lambda pod: _init(pod, "kfp-launcher")["args"].extend(
        ["--executor_type", "container"]
    ),
    "the launcher copied with a command": lambda pod: _init(pod, "kfp-launcher")["args"].extend(["--", "sh"]),
    "another command before the launcher's copy": lambda pod: _init(pod, "kfp-launcher")["command"].insert(0, "sh"),
    "no -- for the launcher": lambda pod: _main(pod)["command"].pop(),
    "the launcher as importer with a command": lambda pod: _replace(_main(pod)["command"], "container", ["importer"]),
    "a launcher of its own": lambda pod: _replace(_main(pod)["command"], "/kfp-launcher/launch", ["/data/launch"]),
    "the launcher of the image": lambda pod: _main(pod)["volumeMounts"].remove(_mount(pod, "/kfp-launcher")),
    "the emissary of the image": lambda pod: _main(pod)["volumeMounts"].remove(_mount(pod, "/var/run/argo")),
    "a part of the launcher's volume": lambda pod: _mount(pod, "/kfp-launcher").update(subPath="x"),
    "a part of the launcher's volume by an expression": lambda pod: _mount(pod, "/kfp-launcher").update(
        subPathExpr="$(X)"
    ),
    "containers that start again": _spec("restartPolicy", "OnFailure"),
    "containers that start again by default": lambda pod: pod["spec"].pop("restartPolicy"),
    "an emissary of its own": lambda pod: _replace(_main(pod)["command"], "/var/run/argo/argoexec", ["/data/argoexec"]),
    "an option of the emissary that nobody knows": lambda pod: _main(pod)["command"].insert(2, "--template=/data/t"),
    "no emissary": lambda pod: _main(pod).update(
        command=_main(pod)["command"][_main(pod)["command"].index("--") + 1 :]
    ),
    "a shell under the emissary": _own_program,
    "no command": lambda pod: _main(pod).pop("command"),
    "an image by tag": lambda pod: _main(pod).update(image="registry.example/team/train:latest"),
    # The guard directory.
    "no guard init container": lambda pod: _drop(pod["spec"]["initContainers"], "sealflow-guard"),
    "another image under the guard's name": lambda pod: _init(pod, "sealflow-guard").update(
        image=f"registry.example/sealflow-guard@{OTHER}"
    ),
    "another command in the guard's image": lambda pod: _init(pod, "sealflow-guard").update(
        command=["/sealflow/guard/guard", "--copy-to", "/tmp"]
    ),
    "arguments for the guard's copy": lambda pod: _init(pod, "sealflow-guard").update(args=["--force"]),
    "a variable for the guard's copy": lambda pod: _init(pod, "sealflow-guard")["env"].append(
        {"name": "LD_PRELOAD", "value": "/evil.so"}
    ),
    "the guard's copy as root": lambda pod: _init(pod, "sealflow-guard").update(securityContext={"runAsUser": 0}),
    "the guard's copy that goes on running": lambda pod: _init(pod, "sealflow-guard").update(restartPolicy="Always"),
    "a folder under the guard's copy": lambda pod: _init(pod, "sealflow-guard")["volumeMounts"].append(
        {"name": "gcs-scratch", "mountPath": "/sealflow"}
    ),
    "the guard's volume twice in its copy": lambda pod: _init(pod, "sealflow-guard")["volumeMounts"].append(
        {"name": "sealflow-guard", "mountPath": "/data"}
    ),
    "another volume in the guard's copy": lambda pod: _init(pod, "sealflow-guard")["volumeMounts"].append(
        {"name": "gcs-scratch", "mountPath": "/sealflow/guard"}
    ),
    "a part of the guard's volume": lambda pod: _mount(pod, "/sealflow/guard").update(subPath="evil"),
    "the guard's volume with mounts from elsewhere": lambda pod: _mount(pod, "/sealflow/guard").update(
        mountPropagation="HostToContainer"
    ),
    "the guard's volume to write": lambda pod: _mount(pod, "/sealflow/guard").update(readOnly=False),
    "the guard's volume to write a second time": _writes_guard("main"),
    "the guard's volume in Argo's container": _writes_guard("wait"),
    "a part of the guard's volume in Argo's container": lambda pod: pod["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "sealflow-guard", "mountPath": "/mainctrfs/sealflow/guard", "subPath": "x"}
    ),
    "the guard's volume mirrored into Argo's init container": lambda pod: _init(pod, "init")["volumeMounts"].append(
        {"name": "sealflow-guard", "mountPath": "/mainctrfs/sealflow/guard"}
    ),
    "the guard's volume mirrored into the mesh's container": lambda pod: pod["spec"]["containers"].append(
        {
            "name": "wait2",
            "image": MESH_IMAGE,
            "volumeMounts": [{"name": "sealflow-guard", "mountPath": "/mainctrfs/sealflow/guard"}],
        }
    ),
    "a supervisor that brings artifacts": _supervisor(
        '{"inputs":{"artifacts":[{"name":"a","path":"/sealflow/guard"}]}}'
    ),
    "a supervisor whose template is in a config map": _supervisor("offloaded"),
    "a supervisor without a template": _supervisor(None),
    **{
        f"Argo's {name} is told {what}": _told(name, value)
        for name in ("init", "wait")
        for what, value in TEMPLATES.items()
    },
    "main is told containers that are tried again": _told("main", TEMPLATES["containers that are tried again"]),
    "Argo's init is told twice": _beside("init", "env", {"name": "ARGO_TEMPLATE", "value": "{}"}),
    "Argo's init is told by a config map": _told(
        "init", "", valueFrom={"configMapKeyRef": {"name": "mine", "key": "template"}}
    ),
    "Argo's init is told nothing": lambda pod: _drop(_init(pod, "init")["env"], "ARGO_TEMPLATE"),
    "no init container of Argo's": lambda pod: _drop(pod["spec"]["initContainers"], "init"),
    "a supervisor that nobody waits for": lambda pod: (
        _supervisor('{"inputs":{}}')(pod),
        _drop(_main(pod)["env"], "ARGO_WAIT_FOR_READY"),
    )[0],
    **{
        f"variables from elsewhere in {name}": _beside(name, "envFrom", _CONFIG)
        for name in ("main", "init", "wait", "kfp-launcher")
    },
    "variables from elsewhere under a prefix": _beside("main", "envFrom", {**_CONFIG, "prefix": "ARGO_CONTAINER_"}),
    "KFP's variables under a prefix": lambda pod: _main(pod).update(envFrom=[{**_KFP_CONFIG, "prefix": "ARGO_"}]),
    "KFP's variables in Argo's container": _beside("wait", "envFrom", _KFP_CONFIG),
    "KFP's variables, all of them": _beside("main", "envFrom", _KFP_CONFIG),
    **{
        f"{variable} for {name}": _beside(name, "env", {"name": variable, "value": "/mainctrfs/data"})
        for name in ("init", "wait", "kfp-launcher")
        for variable in ("PATH", "KUBECONFIG", "HOME", "AWS_CONFIG_FILE")
    },
    **{
        f"files at {path} in {name}": _brought(name, path)
        for name in ("init", "wait", "kfp-launcher")
        for path in ("/bin", "/data", "/root/.kube", "/var/run/secrets/x")
    },
    "another folder for the launcher to start in": lambda pod: _init(pod, "kfp-launcher").update(workingDir="/data"),
    "the launcher's own folder over its program": _beside(
        "kfp-launcher", "volumeMounts", {"name": "kfp-launcher", "mountPath": "/bin"}
    ),
    "files in Argo's init container as if mirrored": _brought("init", "/mainctrfs/data"),
    "files over Argo's program by a detour": _brought("wait", "/mainctrfs/../bin"),
    "the guard's volume in Argo's init container": _writes_guard("init"),
    "the guard's volume in the launcher's init container": _writes_guard("kfp-launcher"),
    "the guard's volume in an init container of its own": _second_init,
    "a claim under the guard's name": lambda pod: _volume(pod, "sealflow-guard").update(
        emptyDir=None, persistentVolumeClaim={"claimName": "mine"}
    ),
    "an image as the guard's volume": lambda pod: (
        _volume(pod, "sealflow-guard").pop("emptyDir"),
        _volume(pod, "sealflow-guard").update(image={"reference": TASK_IMAGE}),
    )[0],
    "the guard not mounted": lambda pod: _main(pod)["volumeMounts"].remove(_mount(pod, "/sealflow/guard")),
    # Over and under it.
    "a claim over the guard": lambda pod: _with_volume(
        pod, {"persistentVolumeClaim": {"claimName": "mine"}}, "/sealflow/guard/lib"
    ),
    "a claim under the guard": lambda pod: _with_volume(pod, {"emptyDir": {}}, "/sealflow"),
    "a claim over the guard by a detour": lambda pod: _with_volume(pod, {"emptyDir": {}}, "/data/../sealflow/guard"),
    "a config map over the settings": lambda pod: _with_volume(
        pod, {"configMap": {"name": "mine"}}, "/var/run/sealflow/sealflow.json", subPath="sealflow.json"
    ),
    "a config map over the settings by /run": lambda pod: _with_volume(
        pod, {"configMap": {"name": "mine"}}, "/run/sealflow"
    ),
    "a config map over the policy": lambda pod: _with_volume(pod, {"configMap": {"name": "mine"}}, "/etc/sealflow"),
    "a folder under the policy": lambda pod: _with_volume(pod, {"emptyDir": {}}, "/etc"),
    **{
        f"files of a {name} where a link of the image could lead": _first(source, "/opt/a/b/c")
        for name, source in _FILES.items()
    },
    "files as deep as the guard": _first({"configMap": {"name": "mine"}}, "/opt/link"),
    "files listed after the launcher": lambda pod: _with_volume(pod, {"configMap": {"name": "mine"}}, "/link"),
    "a claim of many pods at /tmp": _first({"persistentVolumeClaim": {"claimName": "mine"}}, "/tmp"),
    "any files in the place of certificates": _first({"configMap": {"name": "mine"}}, "/kfp/certs", "custom-ca"),
    "any files in the place of a cloud's tokens": _first({"configMap": {"name": "mine"}}, "/var/run/secrets/a/b"),
    "tokens where a link of the image could lead": _first(
        {"projected": {"sources": [{"serviceAccountToken": {"path": "sealflow.json"}}]}}, "/opt/a/b/c"
    ),
    "a claim over the launcher": lambda pod: _with_volume(
        pod, {"persistentVolumeClaim": {"claimName": "mine"}}, "/kfp-launcher"
    ),
    "a claim over the emissary": lambda pod: _with_volume(
        pod, {"persistentVolumeClaim": {"claimName": "mine"}}, "/var/run/argo"
    ),
    "a claim over the artifacts": lambda pod: _with_volume(
        pod, {"persistentVolumeClaim": {"claimName": "mine"}}, "/minio/bucket"
    ),
    "a claim as the launcher's volume": lambda pod: (
        _volume(pod, "kfp-launcher").pop("emptyDir"),
        _volume(pod, "kfp-launcher").update(persistentVolumeClaim={"claimName": "mine"}),
    )[0],
    "the namespace of the image": lambda pod: _main(pod)["volumeMounts"].remove(
        _mount(pod, "/var/run/secrets/kubernetes.io/serviceaccount")
    ),
    "another namespace beside the token": lambda pod: _volume(pod, "kube-api-access-x7k2p")["projected"][
        "sources"
    ].append({"configMap": {"name": "mine", "items": [{"key": "n", "path": "namespace"}]}}),
    "another namespace in the token's folder": lambda pod: _with_volume(
        pod, {"configMap": {"name": "mine"}}, "/var/run/secrets/kubernetes.io/serviceaccount/namespace", subPath="n"
    ),
    "another folder for the token": lambda pod: (
        _volume(pod, "kube-api-access-x7k2p").pop("projected"),
        _volume(pod, "kube-api-access-x7k2p").update(configMap={"name": "mine"}),
    )[0],
    "the termination message over the settings": _hook("terminationMessagePath", "/var/run/sealflow/sealflow.json"),
    # Keys and policy.
    "another secret as keys": lambda pod: _volume(pod, "sealflow-secret")["secret"].update(secretName="mine"),
    "other items of the keys": lambda pod: _volume(pod, "sealflow-secret")["secret"].update(
        items=[{"key": "mine", "path": "sealflow.json"}]
    ),
    "keys that may be missing": lambda pod: _volume(pod, "sealflow-secret")["secret"].update(optional=True),
    "another config map as policy": lambda pod: _volume(pod, "sealflow-policy")["configMap"].update(name="mine"),
    "the keys not mounted": lambda pod: _main(pod)["volumeMounts"].remove(_mount(pod, "/var/run/sealflow")),
    "the policy not mounted": lambda pod: _main(pod)["volumeMounts"].remove(_mount(pod, "/etc/sealflow")),
    "the keys in a variable": lambda pod: _main(pod)["env"].append({"name": "KEY", "valueFrom": _KEY}),
    "the keys as variables": lambda pod: _main(pod).update(envFrom=[{"secretRef": {"name": "sealflow"}}]),
    "the keys in a volume of many sources": lambda pod: _with_volume(
        pod, {"projected": {"sources": _SOURCES}}, "/keys"
    ),
    # Variables.
    "a setting of sealflow's": lambda pod: _env(pod, "SEALFLOW_MOUNT", "/data"),
    "a library for every program": lambda pod: _env(pod, "LD_PRELOAD", "/data/evil.so"),
    "an auditor for every program": lambda pod: _env(pod, "LD_AUDIT", "/data/evil.so"),
    # Others in the pod.
    "a second container": lambda pod: pod["spec"]["containers"].append({"name": "helper", "image": TASK_IMAGE}),
    "a second container called main": lambda pod: pod["spec"]["containers"].append(
        {"name": "main", "image": TASK_IMAGE}
    ),
    "the mesh's image with the emissary's folder": lambda pod: pod["spec"]["initContainers"].append(
        {
            "name": "mesh",
            "image": MESH_IMAGE,
            "restartPolicy": "Always",
            "command": ["cp", "/x", "/a/argoexec"],
            "volumeMounts": [{"name": "var-run-argo", "mountPath": "/a"}],
        }
    ),
    "the mesh's image with the artifacts": lambda pod: pod["spec"]["containers"].append(
        {"name": "mesh", "image": MESH_IMAGE, "volumeMounts": [{"name": "minio-scratch", "mountPath": "/a"}]}
    ),
    "the mesh's image with the launcher": lambda pod: pod["spec"]["containers"].append(
        {"name": "mesh", "image": MESH_IMAGE, "volumeMounts": [{"name": "kfp-launcher", "mountPath": "/a"}]}
    ),
    "the mesh's image with the keys": lambda pod: pod["spec"]["containers"].append(
        {"name": "mesh", "image": MESH_IMAGE, "volumeMounts": [{"name": "sealflow-secret", "mountPath": "/a"}]}
    ),
    "an init container of its own": lambda pod: pod["spec"]["initContainers"].insert(
        0, {"name": "first", "image": TASK_IMAGE}
    ),
    "Argo's init container from another image": lambda pod: _init(pod, "init").update(image=TASK_IMAGE),
    "another command in Argo's container": lambda pod: pod["spec"]["containers"][0].update(command=["sh", "-c", "x"]),
    "the launcher from another image": lambda pod: _init(pod, "kfp-launcher").update(
        image=f"registry.example/kfp-launcher@{OTHER}"
    ),
    "the launcher copied elsewhere": lambda pod: _init(pod, "kfp-launcher").update(args=["--copy", "/minio/launch"]),
    "a container for debugging": _spec("ephemeralContainers", [{"name": "debug", "image": TASK_IMAGE}]),
    "a hook after the start": _hook("lifecycle", {"postStart": _EXEC}),
    "a hook before the end": _hook("lifecycle", {"preStop": _EXEC}),
    "a liveness probe": _hook("livenessProbe", _EXEC),
    "a readiness probe": _hook("readinessProbe", _EXEC),
    "a startup probe": _hook("startupProbe", _EXEC),
    # Out of the pod.
    "shared processes": _spec("shareProcessNamespace", True),
    "the node's processes": _spec("hostPID", True),
    "the node's memory": _spec("hostIPC", True),
    "the node's network": _spec("hostNetwork", True),
    "a folder of the node": lambda pod: _with_volume(pod, {"hostPath": {"path": "/var/lib/kubelet"}}, "/node"),
    "a privileged container": _security(privileged=True),
    "the power to trace": _security(capabilities={"add": ["SYS_PTRACE"]}),
    "the whole of /proc": _security(procMount="Unmasked"),
    "a block device": _hook("volumeDevices", [{"name": "disk", "devicePath": "/dev/sda"}]),
    "a field that nobody knows": _spec("somethingNew", {"of": "tomorrow"}),
}


def hostile_pods() -> dict[str, dict[str, Any]]:
    """Return pods that have to be refused, by what is wrong with them."""
    good = _good_task()
    found: dict[str, dict[str, Any]] = {}
    for index, (name, change) in enumerate(ATTACKS.items()):
        # Every other one as the API server stores it, since a gate sees pods with everything filled in.
        pod = stored(good) if index % 2 else copy.deepcopy(good)
        change(pod)
        found[name] = pod
    workflow = changed(compiled([Task("train")], importer=True))
    driver = program_pod(workflow, "system-container-driver")
    imports = program_pod(workflow, "system-importer")
    for name, base, change in _OTHERS:
        pod = copy.deepcopy(driver if base == "driver" else imports)
        change(pod)
        found[name] = pod
    bare = {"name": "work", "image": TASK_IMAGE, "command": ["sleep", "inf"]}
    plain = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [bare]}}
    found["a pod that is no task"] = plain
    keys = copy.deepcopy(plain)
    keys["spec"]["volumes"] = [{"name": "k", "secret": {"secretName": "sealflow"}}]
    keys["spec"]["containers"][0] = {"name": "viewer", "image": NOTEBOOK_IMAGE}
    found["an exempt pod with the keys"] = keys
    tag = copy.deepcopy(plain)
    tag["spec"]["containers"][0] = {"name": "viewer", "image": "registry.example/notebook:latest"}
    found["an exempt image by tag"] = tag
    others = good_pods()
    found.update(hostile_programs(others))
    found.update(hostile_confined(others))
    return found


_OTHERS: list[tuple[str, str, Callable[[dict[str, Any]], None]]] = [
    ("the driver from another image", "driver", lambda pod: _main(pod).update(image=TASK_IMAGE)),
    ("the driver with a command behind its options", "driver", lambda pod: _main(pod)["args"].extend(["sh", "-c"])),
    (
        "the driver with the guard's volume", "driver",
        lambda pod: _main(pod).update(volumeMounts=[{"name": "sealflow-guard", "mountPath": "/x"}]),
    ),
    ("an import with a command", "import", lambda pod: _main(pod)["args"].extend(["--", "sh", "-c", "steal"])),
    ("an import that is a task", "import", lambda pod: _replace(_main(pod)["args"], "importer", ["container"])),
    ("an import from another image", "import", lambda pod: _main(pod).update(image=TASK_IMAGE)),
    *(
        (f"{what} in {name}", name, change)
        for name in ("driver", "import")
        for what, change in (
            ("variables from elsewhere", _beside("main", "envFrom", _CONFIG)),
            ("a PATH", _beside("main", "env", {"name": "PATH", "value": "/kfp-workspace"})),
            ("a configuration for kubectl", _beside("main", "env", {"name": "KUBECONFIG", "value": "/kfp-workspace"})),
            ("files over its program", _brought("main", "/bin")),
            ("a key to send by wait", _told("wait", {"inputs": {}, "outputs": {"parameters": [_KEY_OUTPUT]}})),
            (
                "a path with detours to send",
                _told("init", {"outputs": {"parameters": [
                    {"name": "k", "valueFrom": {"path": "/tmp/outputs/../../var/run/sealflow/k"}}
                ]}}),
            ),
            ("artifacts to bring", _told("init", {"inputs": {"artifacts": [_TOOL]}})),
        )
    ),
    ("KFP's variables in an import, all of them", "import", _beside("main", "envFrom", _KFP_CONFIG)),
    ("a hook in the driver", "driver", lambda pod: _main(pod).update(lifecycle={"postStart": _EXEC})),
]  # fmt: skip
