"""Pods that a gate at admission has to take, and pods that it has to refuse; whichever gate it is.

Each hostile pod is a good one with one thing changed, as somebody would do who may make pods in a guarded namespace.
"""

from __future__ import annotations

import copy
import functools
import json
from base64 import b64decode
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
from tests.kubeflow.pod_attacks import ATTACKS, FILES, PROGRAM_ATTACKS, drop, init_of, main_of, put_for, supervised
from tests.kubeflow.program_pods import MESH_IMAGE, good_programs, hostile_programs

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
    command = main_of(older)["command"]
    put_for(command, "--cache_disabled=true", ["--cache_disabled"])
    put_for(command, "--ml_pipeline_tls_enabled=false", ["--ml_pipeline_tls_enabled", "--metadata_tls_enabled"])
    # KFP itself writes it a second time.
    command[-1:-1] = ["--publish_logs", "true"]
    init_of(older, "kfp-launcher")["args"] += ["--cache_disabled", "--log_level", "3", "--publish_logs", "true"]
    oldest = found["a task of KFP 2.3"] = _good_task()
    copying = init_of(oldest, "kfp-launcher")
    copying["command"] += copying.pop("args")
    command = main_of(oldest)["command"]
    del command[2 : command.index("--")]
    at = command.index("--executor_type")
    del command[at : at + 2]
    found["a task as the API server stores it"] = stored(found["a task under guard"])
    later = found["a task under an Argo without init containers"] = _good_task()
    supervised('{"name":"system-container-impl","inputs":{},"container":{}}')(later)
    whole = found["a task under Argo 3.4"] = _good_task()
    for container in (*whole["spec"]["initContainers"], *whole["spec"]["containers"]):
        # It tells its template to every container, with the parameters, and where logs go.
        value = {"inputs": {"parameters": [{"name": "pod-spec-patch", "value": '{"a":"\\"artifacts\\":"}'}]}}
        value |= {"name": "system-container-impl", "outputs": {}, "archiveLocation": {"archiveLogs": True, "s3": {}}}
        drop(container["env"], "ARGO_TEMPLATE")
        container["env"].append({"name": "ARGO_TEMPLATE", "value": json.dumps(value)})
    found["a task with files of its own"] = files = _good_task()
    for name, source in FILES.items():
        files["spec"]["volumes"].append({"name": name, **source})
        main_of(files)["volumeMounts"].insert(0, {"name": name, "mountPath": f"/{name}"})
    files["spec"]["volumes"].append({"name": "room", "emptyDir": {}})
    main_of(files)["volumeMounts"] += [
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
    main_of(variables)["env"] += [
        {"name": "PYTHONPATH", "value": "/app"}, {"name": "PATH", "value": "/app/bin"},
        {"name": "LD_LIBRARY_PATH", "value": "/usr/local/nvidia/lib64"}, {"name": "HOME", "value": "/tmp"},
    ]  # fmt: skip
    found["a task with variables that the guard does not hear"] = variables
    found.update(good_programs(found))
    found.update(good_confined(found))
    return {name: copy.deepcopy(pod) for name, pod in found.items()}


@functools.cache
def hostile_pods() -> dict[str, dict[str, Any]]:
    """Return pods that have to be refused, by what is wrong with them. To make them takes seconds: change copies."""
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
    for name, base, change in PROGRAM_ATTACKS:
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
