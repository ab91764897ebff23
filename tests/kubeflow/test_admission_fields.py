"""Each container of each good pod, each field of a container: what may be changed about it, and why.

A table made by machine, since one written by hand has no row for what nobody thought of. A change is refused unless it
is listed here with a reason.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sealflow_kfp.admission.decide import decide
from sealflow_kfp.kyverno import PODS, policies
from tests.kubeflow.argo import TASK_IMAGE
from tests.kubeflow.cluster_pods import SETTINGS, good_pods, review
from tests.kubeflow.program_pods import MESH_IMAGE, container_of

GOOD = good_pods()
Change = Callable[[dict[str, Any], dict[str, Any]], None]
_EXEC = {"exec": {"command": ["sh", "-c", "steal"]}}
_OTHER = f"registry.example/other@sha256:{'e' * 64}"


def _set(name: str, value: Any) -> Change:
    return lambda _, container: container.update({name: value})


def _variable(name: str, **value: Any) -> Change:
    def change(_: dict[str, Any], container: dict[str, Any]) -> None:
        container["env"] = [*container.get("env", ()), {"name": name, **(value or {"value": "/data"})}]

    return change


def _mount(path: str, **more: Any) -> Change:
    def change(pod: dict[str, Any], container: dict[str, Any]) -> None:
        pod["spec"]["volumes"].append({"name": "extra", "configMap": {"name": "mine", "defaultMode": 0o755}})
        mount = {"name": "extra", "mountPath": path, **more}
        container["volumeMounts"] = [mount, *container.get("volumeMounts", ())]

    return change


def _template(text: str) -> Change:
    def change(_: dict[str, Any], container: dict[str, Any]) -> None:
        kept = [item for item in container.get("env", ()) if item["name"] != "ARGO_TEMPLATE"]
        container["env"] = [*kept, {"name": "ARGO_TEMPLATE", "value": text}]

    return change


_SCRIPT = json.dumps({"name": "x", "inputs": {}, "script": {"image": "x", "command": ["sh"], "source": "steal"}})
_ARTIFACT = json.dumps({"inputs": {"artifacts": [{"name": "../a", "path": "/x", "raw": {"data": "steal"}}]}})

#: Fields of a container that somebody could write, by what is written.
CHANGES: dict[str, Change] = {
    "name": _set("name", "other"),
    "image": _set("image", _OTHER),
    "image by tag": _set("image", "registry.example/other:latest"),
    "imagePullPolicy": _set("imagePullPolicy", "Always"),
    "command": _set("command", ["sh", "-c", "steal"]),
    "no command": lambda _, container: container.pop("command", None),
    "args": _set("args", ["sh", "-c", "steal"]),
    "more args": lambda _, container: container.update(args=[*container.get("args", ()), "--", "sh"]),
    "workingDir": _set("workingDir", "/data"),
    "hostPort": _set("ports", [{"containerPort": 80, "hostPort": 80}]),
    "env PATH": _variable("PATH"),
    "env KUBECONFIG": _variable("KUBECONFIG"),
    "env AWS_CONFIG_FILE": _variable("AWS_CONFIG_FILE"),
    "env LD_PRELOAD": _variable("LD_PRELOAD"),
    "env SEALFLOW_MOUNT": _variable("SEALFLOW_MOUNT"),
    "env ARGO_CONTAINER_ARGS_FILE": _variable("ARGO_CONTAINER_ARGS_FILE"),
    "env with the keys": _variable("KEY", valueFrom={"secretKeyRef": {"name": "sealflow", "key": "sign.pem"}}),
    "ARGO_TEMPLATE with a script": _template(_SCRIPT),
    "ARGO_TEMPLATE with an artifact": _template(_ARTIFACT),
    "ARGO_TEMPLATE elsewhere": _template("offloaded"),
    "envFrom a config map": _set("envFrom", [{"configMapRef": {"name": "mine"}}]),
    "envFrom a secret": _set("envFrom", [{"secretRef": {"name": "mine"}}]),
    "resources": _set("resources", {"limits": {"cpu": "2"}}),
    "resizePolicy": _set("resizePolicy", [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]),
    "restartPolicy": _set("restartPolicy", "Always"),
    "restartPolicyRules": _set("restartPolicyRules", [{"action": "Restart", "exitCodes": {"operator": "In"}}]),
    **{
        f"mount at {path}": _mount(path)
        for path in ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/lib", "/lib64")
    },
    "mount at /sealflow/guard/guard": _mount("/sealflow/guard/guard", subPath="guard"),
    "mount at /var/run/sealflow": _mount("/var/run/sealflow"),
    "mount at /etc/sealflow": _mount("/etc/sealflow"),
    "mount at /kfp-launcher": _mount("/kfp-launcher/launch", subPath="launch"),
    "mount at /var/run/argo": _mount("/var/run/argo/argoexec", subPath="argoexec"),
    "mount at /": _mount("/"),
    "volumeDevices": _set("volumeDevices", [{"name": "disk", "devicePath": "/dev/sda"}]),
    "livenessProbe": _set("livenessProbe", _EXEC),
    "readinessProbe": _set("readinessProbe", _EXEC),
    "startupProbe": _set("startupProbe", _EXEC),
    "lifecycle": _set("lifecycle", {"postStart": _EXEC, "preStop": _EXEC}),
    "terminationMessagePath": _set("terminationMessagePath", "/etc/sealflow/admin.json"),
    "terminationMessagePolicy": _set("terminationMessagePolicy", "FallbackToLogsOnError"),
    "privileged": lambda _, container: container.update(securityContext={"privileged": True}),
    "SYS_PTRACE": lambda _, container: container.update(securityContext={"capabilities": {"add": ["SYS_PTRACE"]}}),
    "procMount": lambda _, container: container.update(securityContext={"procMount": "Unmasked"}),
    "Unconfined": lambda _, container: container.update(securityContext={"seccompProfile": {"type": "Unconfined"}}),
    "stdin": _set("stdin", True),
    "tty": _set("tty", True),
    "a field of tomorrow": _set("somethingNew", {"of": "tomorrow"}),
}

#: What is taken, by who has the container, and why.
_ANYBODY = {
    "imagePullPolicy": "says when an image is fetched, not which",
    "resources": "how much, not what",
    "resizePolicy": "how much, not what",
    "terminationMessagePolicy": "what is shown of its log",
}
_TASK = {
    "image": "an author's, by digest; whoever wants fewer names repositories",
    "env PATH": "the guard's program is called by its path and hears no PATH; the command may have its own",
    "env KUBECONFIG": "the guard does not hear it",
    "env AWS_CONFIG_FILE": "the guard does not hear it",
    "workingDir": "the emissary, the launcher and the guard are called by their paths",
    "more args": "the command's own arguments, behind the guard",
    # Of one part, before KFP's own; the programs called by a path are static.
    **{f"mount at {path}": "an author's files in an author's image" for path in ("/sbin", "/bin", "/lib", "/lib64")},
}
_UNREAD = {
    name: "Argo tells it to every init container, and this one's program does not read it"
    for name in CHANGES
    if name.startswith("ARGO_TEMPLATE")
}
_MESH = {
    name: "whoever makes pods runs anything in such an image; it reaches nothing of the task's"
    for name in CHANGES
    if name.split(" ")[0] in ("name", "command", "no", "args", "more", "workingDir", "env", "ARGO_TEMPLATE", "mount")
    or name.startswith("envFrom")
    or name.split(" ")[0] in ("restartPolicy", "restartPolicyRules", "livenessProbe", "readinessProbe", "startupProbe")
    or name in ("lifecycle", "stdin", "tty", "a field of tomorrow")
}
_NOT_MESH = ("env with the keys",)


def _kind(pod: dict[str, Any], container: dict[str, Any]) -> str:
    if container["image"] == MESH_IMAGE:
        return "mesh"
    if container["name"] in ("kfp-launcher", "sealflow-guard"):
        return "unread"
    return "task" if container["name"] == "main" and container["image"] == TASK_IMAGE else "program"


def _taken(kind: str) -> dict[str, str]:
    if kind == "mesh":
        return {**_ANYBODY, **{name: why for name, why in _MESH.items() if name not in _NOT_MESH}}
    return {**_ANYBODY, **{"task": _TASK, "unread": _UNREAD}.get(kind, {})}


def _rows(name: str) -> Iterator[tuple[str, str, bool, dict[str, Any]]]:
    """Yield each container of a pod, each change, whether it may be taken, and the pod with it."""
    good = GOOD[name]
    for container in (*good["spec"]["initContainers"], *good["spec"]["containers"]):
        taken = _taken(_kind(good, container))
        for what, change in CHANGES.items():
            pod = copy.deepcopy(good)
            changed = container_of(pod, container["name"])
            before = copy.deepcopy(changed)
            change(pod, changed)
            if changed != before:
                yield container["name"], what, what in taken, pod


#: One pod of each kind that has containers of its own.
_FEW = ("a task under guard", "the driver of a task", "an import", "a task with the mesh's container")


@pytest.mark.parametrize(
    "name", [name if name in _FEW else pytest.param(name, marks=pytest.mark.slow) for name in GOOD]
)
def test_each_field_of_each_container_is_refused_or_listed(name: str) -> None:
    wrong = [
        f"{container}: {what} is {'taken' if decided else 'refused'}"
        for container, what, expected, pod in _rows(name)
        if (decided := decide(review(pod), SETTINGS).allowed) is not expected
    ]
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", _FEW)
def test_kyverno_gives_the_same_answers(name: str, loud: Callable[[str], None]) -> None:
    if sys.version_info < (3, 11):
        what = "the policies for Kyverno are not evaluated: cel-expr-python has nothing for Python 3.10"
        loud(what)
        pytest.skip(what)
    made = {item["metadata"]["name"]: item for item in policies(SETTINGS)}
    gate = importlib.import_module("tests.kubeflow.cel").Policy(made[PODS])
    user = {"username": "system:serviceaccount:kubeflow:argo"}
    request = {"operation": "CREATE", "namespace": "team-a", "userInfo": user}
    wrong = [
        f"{container}: {what} is {'refused' if refused else 'taken'}"
        for container, what, expected, pod in _rows(name)
        if (refused := bool(gate.refusals(object=pod, request=request, most=1))) is expected
    ]
    assert wrong == []
