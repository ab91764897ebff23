"""Pods in which one of KFP's or Argo's own programs would be somebody else's, or would do something else.

Written for every such program at once: which pod it is in, the container, and what is changed about it. And pods with
what installations differ in about these programs, which have to be taken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.kubeflow.argo import DIGEST

#: An image of containers that a mesh adds, in the settings of the tables.
MESH_IMAGE = f"registry.example/mesh@{DIGEST}"
#: Where each program is, by what it is: a pod of the table of good ones, and the container.
PROGRAMS = {
    "the launcher's copy": ("a task under guard", "kfp-launcher"),
    "Argo's init container": ("a task under guard", "init"),
    "Argo's container beside the task": ("a task under guard", "wait"),
    "the supervisor": ("a task under an Argo without init containers", "supervisor"),
    "the guard's copy": ("a task under guard", "sealflow-guard"),
    "the driver": ("the driver of a task", "main"),
    "Argo's container beside the driver": ("the driver of a task", "wait"),
    "Argo's init container before the driver": ("the driver of a task", "init"),
    "an import": ("an import", "main"),
}


def container_of(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a container of a pod."""
    spec = pod["spec"]
    return next(item for item in (*spec.get("initContainers", ()), *spec["containers"]) if item["name"] == name)


Change = Callable[[dict[str, Any], dict[str, Any]], None]
_CONFIG: Mapping[str, Any] = {"configMap": {"name": "mine", "defaultMode": 0o755}}


def _volume(path: str, source: Mapping[str, Any] = _CONFIG, **more: Any) -> Change:
    def change(pod: dict[str, Any], container: dict[str, Any]) -> None:
        pod["spec"].setdefault("volumes", []).append({"name": "extra", **copy.deepcopy(dict(source))})
        container.setdefault("volumeMounts", []).append({"name": "extra", "mountPath": path, **more})

    return change


def _known(name: str, path: str, **more: Any) -> Change:
    """Return what mounts a volume that is in the pod already."""
    return lambda _, container: container.setdefault("volumeMounts", []).append(
        {"name": name, "mountPath": path, **more}
    )


def _mesh(more: Mapping[str, Any]) -> Change:
    """Return what makes the task's image one whose containers are let be."""
    return lambda _, container: container.update(image=MESH_IMAGE, **copy.deepcopy(dict(more)))


def _settings(pod: dict[str, Any], container: dict[str, Any]) -> None:
    pod["spec"]["volumes"].append({"name": "dot-config-scratch", "configMap": {"name": "mine"}})
    container.setdefault("volumeMounts", []).append({"name": "dot-config-scratch", "mountPath": "/.config"})


_TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "mine"}}]}}

#: What somebody would change about any of them.
CHANGES: dict[str, Change] = {
    "a config map at /bin": _volume("/bin"),
    "a config map at /usr/local/bin": _volume("/usr/local/bin"),
    "a file at /usr/bin": _volume("/usr/bin/argoexec", subPath="argoexec"),
    "a claim at /lib": _volume("/lib", {"persistentVolumeClaim": {"claimName": "mine"}}),
    "an image at /sbin": _volume("/sbin", {"image": {"reference": "registry.example/mine:1"}}),
    "a folder at the root": _volume("/", {"emptyDir": {}}),
    "a folder elsewhere": _volume("/data", {"emptyDir": {}}),
    "a certificate elsewhere": _volume("/etc/ssl/certs"),
    "Argo's folder at /bin": _known("var-run-argo", "/bin"),
    "a detour through Argo's folder": _known("var-run-argo", "/var/run/argo/../../../bin"),
    "a part of Argo's folder": _known("var-run-argo", "/var/run/argo", subPath="x"),
    "files in a cloud's place": _volume("/var/run/secrets/eks.amazonaws.com/serviceaccount"),
    "files beside a cloud's token": _volume("/var/run/secrets/eks.amazonaws.com/serviceaccount", _TOKEN),
    "files in the token's place": _volume("/var/run/secrets/kubernetes.io/serviceaccount"),
    "files below the token": _volume("/var/run/secrets/kubernetes.io/serviceaccount/x", _TOKEN),
    "a detour through a cloud's place": _volume("/var/run/secrets/../../../bin"),
    "mounts that are a text": lambda _, container: container.update(volumeMounts="/bin"),
    "a folder to start in": lambda _, container: container.update(workingDir="/data"),
    "a hook": lambda _, container: container.update(lifecycle={"postStart": {"exec": {"command": ["sh"]}}}),
    "a probe": lambda _, container: container.update(startupProbe={"exec": {"command": ["sh"]}}),
    "another image": lambda _, container: container.update(image="registry.example/mine@sha256:" + "d" * 64),
    "another command": lambda _, container: container.update(command=["sh", "-c", "steal"]),
    "a word behind its arguments": lambda _, container: container.update(args=[*container.get("args", ()), "steal"]),
    "a command behind its arguments": lambda _, container: container.update(
        args=[*container.get("args", ()), "--", "sh", "-c", "steal"]
    ),
    "one that goes on running": lambda _, container: container.update(restartPolicy="Always"),
}

#: More, for one of them.
_OF_ONE: dict[str, tuple[str, str, Change]] = {
    "the launcher's own volume at /bin": ("a task under guard", "kfp-launcher", _known("kfp-launcher", "/bin")),
    "the launcher's own volume over Argo's program": (
        "a task under guard", "init", _known("kfp-launcher", "/var/run/argo"),
    ),
    "a path beside the mirrors": ("a task under guard", "wait", _volume("/mainctrfs/../bin")),
    "a volume over all mirrors": ("a task under guard", "wait", _volume("/mainctrfs")),
    "Argo's passing files as a part of their own choice": (
        "a task under guard", "wait", _known("tmp-dir-argo", "/tmp", subPath="../x"),
    ),
    "a config map as the artifact store's keys": ("a task under guard", "init", _volume("/argo/secret/mine")),
    "a workspace in the driver": ("the driver of a task", "main", _known("kfp-workspace", "/kfp-workspace")),
    "another volume as the workspace": ("an import", "main", _volume("/kfp-workspace")),
    "a task in the mesh's image that hides its arguments": (
        "a task under guard", "main",
        _mesh({"envFrom": [{"configMapRef": {"name": "mine", "optional": True}}]}),
    ),
    "a task in the mesh's image with arguments in a file": (
        "a task under guard", "main", _mesh({"env": [{"name": "ARGO_CONTAINER_ARGS_FILE", "value": "/data/args"}]}),
    ),
    "a task in the mesh's image with a library for every program": (
        "a task under guard", "main", _mesh({"env": [{"name": "LD_PRELOAD", "value": "/data/evil.so"}]}),
    ),
    "a config map as the driver's folder for settings": ("the driver of a task", "main", _settings),
    "another volume as the certificates": ("an import", "main", _volume("/kfp/certs")),
}  # fmt: skip


def good_programs(good: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield pods that have to be taken, made of others."""
    for base in ("a task under guard", "the driver of a task"):
        pod = copy.deepcopy(good[base])
        name = "mlpipeline-minio-artifact"
        pod["spec"]["volumes"].append(
            {"name": name, "secret": {"secretName": name, "items": [{"key": "accesskey", "path": "accesskey"}]}}
        )
        for argo in ("init", "wait"):
            mount = {"name": name, "mountPath": f"/argo/secret/{name}", "readOnly": True}
            container_of(pod, argo)["volumeMounts"].append(mount)
        yield f"{base}, with the artifact store's keys in a secret", pod
    pod = copy.deepcopy(good["a task under guard"])
    token = {"audience": "api://AzureADTokenExchange", "expirationSeconds": 3600, "path": "azure-identity-token"}
    projected = {"sources": [{"serviceAccountToken": token}], "defaultMode": 420}
    pod["spec"]["volumes"].append({"name": "azure-identity-token", "projected": projected})
    for container in (*pod["spec"]["initContainers"], *pod["spec"]["containers"]):
        container["volumeMounts"].append(
            {"name": "azure-identity-token", "mountPath": "/var/run/secrets/azure/tokens", "readOnly": True}
        )
    yield "a task with an identity in another cloud", pod
    pod = copy.deepcopy(good["an import"])
    claim = {"claimName": "churn-x-kfp-workspace"}
    pod["spec"]["volumes"].append({"name": "kfp-workspace", "persistentVolumeClaim": claim})
    container_of(pod, "main")["volumeMounts"].append({"name": "kfp-workspace", "mountPath": "/kfp-workspace"})
    container_of(pod, "wait")["volumeMounts"].append({"name": "kfp-workspace", "mountPath": "/mainctrfs/kfp-workspace"})
    yield "an import into the run's workspace", pod
    pod = copy.deepcopy(good["the driver of a task"])
    for name in ("cache", "config", "local"):
        pod["spec"]["volumes"].append({"name": f"dot-{name}-scratch", "emptyDir": {}})
        container_of(pod, "main").setdefault("volumeMounts", []).append(
            {"name": f"dot-{name}-scratch", "mountPath": f"/.{name}"}
        )
    yield "a driver with folders to write into", pod


def hostile_programs(good: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield pods by what is wrong with them, made of good ones."""
    for program, (base, name) in PROGRAMS.items():
        for what, change in CHANGES.items():
            yield f"{program}: {what}", _changed(good[base], name, change)
    for what, (base, name, change) in _OF_ONE.items():
        yield what, _changed(good[base], name, change)


def _changed(good: dict[str, Any], name: str, change: Change) -> dict[str, Any]:
    pod = copy.deepcopy(good)
    change(pod, container_of(pod, name))
    return pod
