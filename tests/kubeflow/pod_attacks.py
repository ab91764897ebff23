"""What somebody would change about a task's pod, or about one of KFP's programs, by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.kubeflow.argo import (
    ARGO_IMAGE,
    TASK_IMAGE,
)
from tests.kubeflow.program_pods import MESH_IMAGE

OTHER = "sha256:" + "e" * 64

#: What brings files of an author's into a pod.
FILES: dict[str, dict[str, Any]] = {
    "config-map": {"configMap": {"name": "mine", "defaultMode": 493}},
    "secret": {"secret": {"secretName": "mine"}},
    "claim": {"persistentVolumeClaim": {"claimName": "mine"}},
    "image": {"image": {"reference": TASK_IMAGE}},
    "share": {"nfs": {"server": "nfs.example", "path": "/"}},
    "labels": {"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.annotations"}}]}},
    "ephemeral-claim": {"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}},
}


def main_of(pod: dict[str, Any]) -> dict[str, Any]:
    return next(item for item in pod["spec"]["containers"] if item["name"] == "main")


def init_of(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in pod["spec"]["initContainers"] if item["name"] == name)


def _volume(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in pod["spec"]["volumes"] if item["name"] == name)


def _mount(pod: dict[str, Any], path: str) -> dict[str, Any]:
    return next(item for item in main_of(pod)["volumeMounts"] if item["mountPath"] == path)


def _with_volume(pod: dict[str, Any], source: dict[str, Any], path: str, **more: Any) -> None:
    pod["spec"]["volumes"].append({"name": "extra", **source})
    main_of(pod)["volumeMounts"].append({"name": "extra", "mountPath": path, **more})


def _first(source: dict[str, Any], path: str, name: str = "extra") -> Callable[[dict[str, Any]], None]:
    """Return what mounts something before all else, as the driver's patch does."""

    def change(pod: dict[str, Any]) -> None:
        pod["spec"]["volumes"].append({"name": name, **source})
        main_of(pod)["volumeMounts"].insert(0, {"name": name, "mountPath": path})

    return change


def put_for(items: list[Any], old: Any, new: list[Any]) -> None:
    index = items.index(old)
    items[index : index + 1] = new


def drop(items: list[dict[str, Any]], name: str) -> None:
    items[:] = [item for item in items if item["name"] != name]


def _told(container: str, value: Any, **more: Any) -> Callable[[dict[str, Any]], None]:
    """Return what tells Argo's program another template."""

    def change(pod: dict[str, Any]) -> None:
        for item in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
            if item["name"] == container:
                drop(item["env"], "ARGO_TEMPLATE")
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
    main_of(pod)["env"].append({"name": name, "value": value})


def _hidden(pod: dict[str, Any]) -> None:
    main = main_of(pod)
    del main["args"]
    main["env"].append({"name": "ARGO_CONTAINER_ARGS_FILE", "value": "/argo/config/ARGO_CONTAINER_ARGS_FILE"})
    main["volumeMounts"].append({"name": "argo-env-config", "mountPath": "/argo/config"})
    pod["spec"]["volumes"].append({"name": "argo-env-config", "configMap": {"name": "churn-x"}})


def _early_separator(pod: dict[str, Any]) -> None:
    command = main_of(pod)["command"]
    at = command.index("/kfp-launcher/launch")
    command[at + 1 : at + 1] = ["--", "sh", "-c", "steal"]


def _own_program(pod: dict[str, Any]) -> None:
    main = main_of(pod)
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
    return lambda pod: main_of(pod).update({name: value})


def _spec(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: pod["spec"].update({name: value})


def _security(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda pod: main_of(pod)["securityContext"].update(members)


def supervised(template: str | None) -> Callable[[dict[str, Any]], None]:
    """Return what makes a pod one of an Argo that has no init containers of its own."""

    def change(pod: dict[str, Any]) -> None:
        main, beside = main_of(pod), pod["spec"]["containers"][0]
        main["command"][0] = "/argo-bin/bin/argoexec"
        main["volumeMounts"].append({"name": "argoexec-bin", "mountPath": "/argo-bin", "readOnly": True})
        main["env"].append({"name": "ARGO_WAIT_FOR_READY", "value": "true"})
        beside.update(name="supervisor", command=["argoexec", "supervisor", *beside["command"][2:]])
        if template is not None:
            beside["env"].append({"name": "ARGO_TEMPLATE", "value": template})
        drop(pod["spec"]["initContainers"], "init")
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
    "no guard before the command": lambda pod: main_of(pod).update(args=["sh", "-c", "steal"]),
    "python3 of the image as guard": lambda pod: put_for(
        main_of(pod)["args"], "/sealflow/guard/guard", ["python3", "-I", "-m", "sealflow_kfp.exec"]
    ),
    "another program of the guard directory": lambda pod: put_for(
        main_of(pod)["args"], "/sealflow/guard/guard", ["/sealflow/guard/python"]
    ),
    "a path that only looks like the guard": lambda pod: put_for(
        main_of(pod)["args"], "/sealflow/guard/guard", ["/sealflow/guard/../../evil"]
    ),
    "another executor input": lambda pod: put_for(main_of(pod)["args"], "{{$}}", ["{}"]),
    "one option more before the guard's command": lambda pod: main_of(pod)["args"].insert(1, "--mode=audit"),
    "the guard after a shell": lambda pod: main_of(pod).update(args=["sh", "-c", "steal", *main_of(pod)["args"]]),
    "the guard with nothing to run": lambda pod: main_of(pod).update(args=main_of(pod)["args"][:4]),
    "arguments in a config map": _hidden,
    "arguments left out": lambda pod: main_of(pod).pop("args"),
    "arguments in a file, the guard for show": lambda pod: _env(pod, "ARGO_CONTAINER_ARGS_FILE", "/data/args"),
    "an early -- for the launcher": _early_separator,
    "an option of the launcher that nobody knows": lambda pod: main_of(pod)["command"].insert(-1, "--run_first=evil"),
    "an option of the launcher with two values": lambda pod: main_of(pod)["command"].insert(-1, "--run_id=2"),
    "a word behind a truth value": lambda pod: main_of(pod)["command"].__setitem__(
        slice(-1, -1), ["--metadata_tls_enabled", "steal"]
    ),
    "the launcher copied with an option more": lambda pod: init_of(pod, "kfp-launcher")["args"].extend(
        ["--executor_type", "container"]
    ),
    "the launcher copied with a command": lambda pod: init_of(pod, "kfp-launcher")["args"].extend(["--", "sh"]),
    "another command before the launcher's copy": lambda pod: init_of(pod, "kfp-launcher")["command"].insert(0, "sh"),
    "no -- for the launcher": lambda pod: main_of(pod)["command"].pop(),
    "the launcher as importer with a command": lambda pod: put_for(main_of(pod)["command"], "container", ["importer"]),
    "a launcher of its own": lambda pod: put_for(main_of(pod)["command"], "/kfp-launcher/launch", ["/data/launch"]),
    "the launcher of the image": lambda pod: main_of(pod)["volumeMounts"].remove(_mount(pod, "/kfp-launcher")),
    "the emissary of the image": lambda pod: main_of(pod)["volumeMounts"].remove(_mount(pod, "/var/run/argo")),
    "a part of the launcher's volume": lambda pod: _mount(pod, "/kfp-launcher").update(subPath="x"),
    "a part of the launcher's volume by an expression": lambda pod: _mount(pod, "/kfp-launcher").update(
        subPathExpr="$(X)"
    ),
    "containers that start again": _spec("restartPolicy", "OnFailure"),
    "containers that start again by default": lambda pod: pod["spec"].pop("restartPolicy"),
    "an emissary of its own": lambda pod: put_for(
        main_of(pod)["command"], "/var/run/argo/argoexec", ["/data/argoexec"]
    ),
    "an option of the emissary that nobody knows": lambda pod: main_of(pod)["command"].insert(2, "--template=/data/t"),
    "no emissary": lambda pod: main_of(pod).update(
        command=main_of(pod)["command"][main_of(pod)["command"].index("--") + 1 :]
    ),
    "a shell under the emissary": _own_program,
    "no command": lambda pod: main_of(pod).pop("command"),
    "an image by tag": lambda pod: main_of(pod).update(image="registry.example/team/train:latest"),
    # The guard directory.
    "no guard init container": lambda pod: drop(pod["spec"]["initContainers"], "sealflow-guard"),
    "another image under the guard's name": lambda pod: init_of(pod, "sealflow-guard").update(
        image=f"registry.example/sealflow-guard@{OTHER}"
    ),
    "another command in the guard's image": lambda pod: init_of(pod, "sealflow-guard").update(
        command=["/sealflow/guard/guard", "--copy-to", "/tmp"]
    ),
    "arguments for the guard's copy": lambda pod: init_of(pod, "sealflow-guard").update(args=["--force"]),
    "a variable for the guard's copy": lambda pod: init_of(pod, "sealflow-guard")["env"].append(
        {"name": "LD_PRELOAD", "value": "/evil.so"}
    ),
    "the guard's copy as root": lambda pod: init_of(pod, "sealflow-guard").update(securityContext={"runAsUser": 0}),
    "the guard's copy that goes on running": lambda pod: init_of(pod, "sealflow-guard").update(restartPolicy="Always"),
    "a folder under the guard's copy": lambda pod: init_of(pod, "sealflow-guard")["volumeMounts"].append(
        {"name": "gcs-scratch", "mountPath": "/sealflow"}
    ),
    "the guard's volume twice in its copy": lambda pod: init_of(pod, "sealflow-guard")["volumeMounts"].append(
        {"name": "sealflow-guard", "mountPath": "/data"}
    ),
    "another volume in the guard's copy": lambda pod: init_of(pod, "sealflow-guard")["volumeMounts"].append(
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
    "the guard's volume mirrored into Argo's init container": lambda pod: init_of(pod, "init")["volumeMounts"].append(
        {"name": "sealflow-guard", "mountPath": "/mainctrfs/sealflow/guard"}
    ),
    "the guard's volume mirrored into the mesh's container": lambda pod: pod["spec"]["containers"].append(
        {
            "name": "wait2",
            "image": MESH_IMAGE,
            "volumeMounts": [{"name": "sealflow-guard", "mountPath": "/mainctrfs/sealflow/guard"}],
        }
    ),
    "a supervisor that brings artifacts": supervised(
        '{"inputs":{"artifacts":[{"name":"a","path":"/sealflow/guard"}]}}'
    ),
    "a supervisor whose template is in a config map": supervised("offloaded"),
    "a supervisor without a template": supervised(None),
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
    "Argo's init is told nothing": lambda pod: drop(init_of(pod, "init")["env"], "ARGO_TEMPLATE"),
    "no init container of Argo's": lambda pod: drop(pod["spec"]["initContainers"], "init"),
    "a supervisor that nobody waits for": lambda pod: (
        supervised('{"inputs":{}}')(pod),
        drop(main_of(pod)["env"], "ARGO_WAIT_FOR_READY"),
    )[0],
    **{
        f"variables from elsewhere in {name}": _beside(name, "envFrom", _CONFIG)
        for name in ("main", "init", "wait", "kfp-launcher")
    },
    "variables from elsewhere under a prefix": _beside("main", "envFrom", {**_CONFIG, "prefix": "ARGO_CONTAINER_"}),
    "KFP's variables under a prefix": lambda pod: main_of(pod).update(envFrom=[{**_KFP_CONFIG, "prefix": "ARGO_"}]),
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
    "another folder for the launcher to start in": lambda pod: init_of(pod, "kfp-launcher").update(workingDir="/data"),
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
    "the guard not mounted": lambda pod: main_of(pod)["volumeMounts"].remove(_mount(pod, "/sealflow/guard")),
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
        for name, source in FILES.items()
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
    "the namespace of the image": lambda pod: main_of(pod)["volumeMounts"].remove(
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
    "the keys not mounted": lambda pod: main_of(pod)["volumeMounts"].remove(_mount(pod, "/var/run/sealflow")),
    "the policy not mounted": lambda pod: main_of(pod)["volumeMounts"].remove(_mount(pod, "/etc/sealflow")),
    "the keys in a variable": lambda pod: main_of(pod)["env"].append({"name": "KEY", "valueFrom": _KEY}),
    "the keys as variables": lambda pod: main_of(pod).update(envFrom=[{"secretRef": {"name": "sealflow"}}]),
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
    "Argo's init container from another image": lambda pod: init_of(pod, "init").update(image=TASK_IMAGE),
    "another command in Argo's container": lambda pod: pod["spec"]["containers"][0].update(command=["sh", "-c", "x"]),
    "the launcher from another image": lambda pod: init_of(pod, "kfp-launcher").update(
        image=f"registry.example/kfp-launcher@{OTHER}"
    ),
    "the launcher copied elsewhere": lambda pod: init_of(pod, "kfp-launcher").update(args=["--copy", "/minio/launch"]),
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


#: And of pods that run no task: its name, which one, and the change.
PROGRAM_ATTACKS: list[tuple[str, str, Callable[[dict[str, Any]], None]]] = [
    ("the driver from another image", "driver", lambda pod: main_of(pod).update(image=TASK_IMAGE)),
    ("the driver with a command behind its options", "driver", lambda pod: main_of(pod)["args"].extend(["sh", "-c"])),
    (
        "the driver with the guard's volume", "driver",
        lambda pod: main_of(pod).update(volumeMounts=[{"name": "sealflow-guard", "mountPath": "/x"}]),
    ),
    ("an import with a command", "import", lambda pod: main_of(pod)["args"].extend(["--", "sh", "-c", "steal"])),
    ("an import that is a task", "import", lambda pod: put_for(main_of(pod)["args"], "importer", ["container"])),
    ("an import from another image", "import", lambda pod: main_of(pod).update(image=TASK_IMAGE)),
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
    ("a hook in the driver", "driver", lambda pod: main_of(pod).update(lifecycle={"postStart": _EXEC})),
]  # fmt: skip
