"""Pods at admission: what KFP and Argo make is taken, and what somebody makes instead is refused."""

import copy
import json

import pytest

from sealflow import strictjson
from sealflow_kfp.admission.decide import decide
from sealflow_kfp.admission.settings import parse_settings
from sealflow_kfp.spec_patch import pod_patch
from tests.kubeflow.argo import ARGO_IMAGE, DIGEST, TASK_IMAGE, Task, compiled
from tests.kubeflow.argo_pods import stored, task_pod
from tests.kubeflow.cluster_pods import (
    AUDIT,
    NOTEBOOK_IMAGE,
    SETTINGS,
    SETTINGS_TEXT,
    answered,
    changed,
    good_pods,
    review,
)

GOOD = good_pods()
CONTROLLER = "system:serviceaccount:kube-system:statefulset-controller"


@pytest.mark.parametrize("name", GOOD)
def test_what_kfp_and_argo_make_is_taken(name):
    decision = decide(review(GOOD[name]), SETTINGS)
    assert decision.allowed, answered(decision)
    assert decision.findings == ()
    assert decision.status == 200


@pytest.mark.slow
def test_what_is_taken_is_a_pod_of_kubernetes():
    import kubernetes_validate

    for pod in GOOD.values():
        kubernetes_validate.validate(pod, "1.31", strict=True)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_taken_is_still_taken_when_it_is_changed_in_passing(name):
    old = GOOD[name]
    new = copy.deepcopy(old)
    new["metadata"].setdefault("labels", {})["workflows.argoproj.io/completed"] = "true"
    new["spec"]["activeDeadlineSeconds"] = 10
    assert decide(review(new, operation="UPDATE", oldObject=old), SETTINGS).allowed


@pytest.mark.parametrize(
    ("kind", "index", "image"),
    [
        ("containers", 1, f"registry.example/team/other@{DIGEST}"),
        ("containers", 1, NOTEBOOK_IMAGE),
        ("containers", 0, ARGO_IMAGE.replace(":a", ":b")),
        ("initContainers", 0, TASK_IMAGE),
    ],
)
def test_no_container_of_a_running_task_is_started_a_second_time_by_another_image(kind, index, image):
    # Each of them alone could be a good pod's.
    old = GOOD["a task under guard"]
    new = copy.deepcopy(old)
    new["spec"][kind][index]["image"] = image
    decision = decide(review(new, operation="UPDATE", oldObject=old), SETTINGS)
    assert not decision.allowed
    assert "POD_REFUSED" in {finding.code for finding in decision.findings}


def test_a_running_task_may_get_other_resources():
    old = GOOD["a task under guard"]
    new = copy.deepcopy(old)
    new["spec"]["containers"][1]["resources"] = {"limits": {"memory": "2Gi"}}
    members = {"operation": "UPDATE", "oldObject": old, "subResource": "resize"}
    assert decide(review(new, **members), SETTINGS).allowed


def test_an_exempt_pod_may_get_another_exempt_image_and_no_other():
    old = _plain("registry.example/own:1")
    for image, user, allowed in ((NOTEBOOK_IMAGE, "somebody", False), ("registry.example/own:2", CONTROLLER, True)):
        members = {"operation": "UPDATE", "oldObject": old, "userInfo": {"username": user}}
        assert decide(review(_plain(image), **members), SETTINGS).allowed is allowed


def test_a_pod_from_before_enforcement_may_end():
    old = {**GOOD["a task under guard"], "spec": {"containers": [{"name": "work", "image": "busybox"}]}}
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = []
    assert decide(review(new, operation="UPDATE", oldObject=old), SETTINGS).allowed


def test_a_container_for_debugging_is_refused_in_a_running_task():
    old = stored(GOOD["a task under guard"])
    new = copy.deepcopy(old)
    new["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": TASK_IMAGE, "targetContainerName": "main"}]
    members = {"operation": "UPDATE", "oldObject": old, "subResource": "ephemeralcontainers"}
    decision = decide(review(new, **members), SETTINGS)
    assert not decision.allowed
    assert [finding.code for finding in decision.findings] == ["ISOLATION_BROKEN"]


def _plain(image=NOTEBOOK_IMAGE, **spec):
    container = {"name": "viewer", "image": image}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "nb-0"},
        "spec": {"containers": [container], **spec},
    }


def test_a_pod_of_exempt_images_is_let_be():
    decision = decide(review(_plain()), SETTINGS)
    assert decision.allowed
    assert [(finding.code, finding.severity) for finding in decision.findings] == [("POD_EXEMPT", "note")]


def test_one_image_that_is_not_exempt_spoils_the_others():
    pod = _plain()
    pod["spec"]["initContainers"] = [{"name": "first", "image": TASK_IMAGE}]
    assert not decide(review(pod), SETTINGS).allowed


def test_an_image_in_a_volume_counts_as_well():
    pod = _plain(volumes=[{"name": "more", "image": {"reference": TASK_IMAGE}}])
    assert not decide(review(pod), SETTINGS).allowed


@pytest.mark.parametrize(
    ("members", "allowed"),
    [
        ({"userInfo": {"username": CONTROLLER}}, True),
        ({"userInfo": {"username": "somebody"}}, False),
        ({"userInfo": {}}, False),
        ({"userInfo": {"username": CONTROLLER}, "namespace": "team-b"}, False),
    ],
)
def test_an_exemption_holds_for_all_that_it_says(members, allowed):
    assert decide(review(_plain("busybox"), **members), SETTINGS).allowed is allowed


@pytest.mark.parametrize(
    "spec",
    [
        {"hostPID": True},
        {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]},
        {"volumes": [{"name": "keys", "secret": {"secretName": "sealflow"}}]},
        {"volumes": [{"name": "keys", "projected": {"sources": [{"secret": {"name": "sealflow"}}]}}]},
        {"volumes": [{"name": "keys", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "sealflow"}}}]},
        {"initContainers": [{"name": "i", "image": "b", "securityContext": {"privileged": True}}]},
        {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "sealflow"}}]}]},
    ],
)
def test_an_exempt_controller_makes_no_pod_with_keys_or_the_nodes_powers(spec):
    pod = _plain("busybox", **spec)
    assert not decide(review(pod, userInfo={"username": CONTROLLER}), SETTINGS).allowed


@pytest.mark.parametrize(
    "spec",
    [
        {"hostPID": True},
        {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": "c", "image": NOTEBOOK_IMAGE, "securityContext": {"privileged": True}}]},
        {"ephemeralContainers": [{"name": "c", "image": NOTEBOOK_IMAGE, "securityContext": {"privileged": True}}]},
    ],
)
def test_an_exempt_image_reaches_no_node_unless_the_settings_say_so_of_its_creator(spec):
    pod = _plain(**spec)
    pod["spec"]["containers"][0]["command"] = ["sh", "-c", "steal"]
    assert not decide(review(pod), SETTINGS).allowed
    assert not decide(review(pod, userInfo={"username": CONTROLLER}), SETTINGS).allowed
    text = SETTINGS_TEXT.replace("  - name: notebooks\n", "  - name: notebooks\n    privileged: true\n")
    settings = parse_settings(text.encode())
    assert not decide(review(pod), settings).allowed
    assert decide(review(pod, userInfo={"username": CONTROLLER}), settings).allowed


def test_a_privileged_container_for_debugging_is_refused_in_an_exempt_pod():
    old = _plain()
    new = _plain(ephemeralContainers=[{"name": "d", "image": NOTEBOOK_IMAGE, "securityContext": {"privileged": True}}])
    members = {"operation": "UPDATE", "oldObject": old, "subResource": "ephemeralcontainers"}
    assert not decide(review(new, **members), SETTINGS).allowed
    del new["spec"]["ephemeralContainers"][0]["securityContext"]
    assert decide(review(new, **members), SETTINGS).allowed


@pytest.mark.parametrize(
    ("account", "allowed"),
    [
        ({"serviceAccountName": "viewer"}, True),
        ({"serviceAccountName": "viewer", "serviceAccount": "viewer"}, True),
        ({"serviceAccountName": "viewer", "serviceAccount": "editor"}, False),
        ({"serviceAccountName": "editor"}, False),
        ({}, False),
    ],
)
def test_an_exempt_service_account_is_exact(account, allowed):
    settings = parse_settings(
        (SETTINGS_TEXT + "  - name: accounts\n    service_accounts: [viewer]\n").encode(),
    )
    assert decide(review(_plain("busybox", **account)), settings).allowed is allowed


@pytest.mark.parametrize("kind", ["PodExecOptions", "PodAttachOptions"])
def test_nobody_runs_commands_in_a_pod_but_whom_the_settings_name(kind):
    body = {"apiVersion": "v1", "kind": kind, "container": "main", "command": ["cat", "/var/run/sealflow/key.pem"]}
    members = {"operation": "CONNECT", "name": "churn-x", "subResource": "exec"}
    refused = decide(review(body, **members, userInfo={"username": "author"}), SETTINGS)
    assert not refused.allowed
    settings = parse_settings((SETTINGS_TEXT + "exec_users: [admin]\n").encode())
    assert decide(review(body, **members, userInfo={"username": "admin"}), settings).allowed
    assert not decide(review(body, **members, userInfo={"username": "author"}), settings).allowed


def test_own_components_guard_themselves_in_images_that_the_admin_named():
    from sealflow_kfp.hardening.commands import _sources

    program = (
        'program_path=$(mktemp -d)\nprintf "%s" "$0" > "$program_path/ephemeral_component.py"\n'
        "_KFP_RUNTIME=true python3 -m kfp.dsl.executor_main --component_module_path "
        '"$program_path/ephemeral_component.py" "$@"\n'
    )
    source = "\nimport kfp\nfrom kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n\n"
    task = Task(
        "verify",
        command=("sh", "-ec", program, source + _sources()["verify_artifact"]),
        args=("--executor_input", "{{$}}", "--function_to_execute", "verify_artifact"),
    )
    settings = parse_settings((SETTINGS_TEXT + f'images:\n  sealflow: ["{TASK_IMAGE}"]\n').encode())
    workflow = changed(compiled([task]), settings)
    pod = task_pod(workflow, "verify")
    main = pod["spec"]["containers"][1]
    assert main["args"][:2] == ["sh", "-ec"]
    assert decide(review(pod), settings).allowed
    # Elsewhere it is a task like any other.
    assert not decide(review(pod), SETTINGS).allowed
    assert task_pod(changed(compiled([task])), "verify")["spec"]["containers"][1]["args"][0] == "/sealflow/guard/guard"
    main["args"][3] += "\n# more"
    assert not decide(review(pod), settings).allowed


@pytest.mark.parametrize("name", ["a task under guard", "the driver of a task", "an import"])
def test_the_spec_patch_and_admission_go_together(name):
    # The patch is merged into every pod of a Workflow, the driver's as well.
    patch = pod_patch(SETTINGS.guard.mounts)
    text = strictjson.dumps(patch).decode()
    settings = parse_settings(
        SETTINGS_TEXT.replace("  sidecar_images", f"  pod_spec_patches: ['{text}']\n  sidecar_images").encode()
    )
    workflow = compiled([Task("train")])
    workflow["spec"]["podSpecPatch"] = text
    changed(workflow, settings)
    pod = copy.deepcopy(GOOD[name])
    [main] = [item for item in pod["spec"]["containers"] if item["name"] == "main"]
    for part, items in (
        (pod["spec"]["initContainers"], patch["initContainers"]),
        (pod["spec"]["volumes"], patch["volumes"]),
        (main["volumeMounts"], patch["containers"][0]["volumeMounts"]),
    ):
        there = {item["name"] for item in part}
        part += [item for item in items if item["name"] not in there]
    assert decide(review(pod), settings).allowed
    main["volumeMounts"].append({"name": "sealflow-guard", "mountPath": "/elsewhere"})
    assert not decide(review(pod), settings).allowed


def _with_files(path):
    pod = copy.deepcopy(GOOD["a task under guard"])
    pod["spec"]["volumes"].append({"name": "files", "configMap": {"name": "mine"}})
    pod["spec"]["containers"][1]["volumeMounts"].append({"name": "files", "mountPath": path})
    return pod


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/opt/models", True),
        ("/mnt/a/b", True),
        ("/mnt", True),
        ("/opt/models/a", False),
        ("/opt/modelsx", False),
        ("/srv/mnt/a", False),
        # Whatever the settings say, nothing lies where its path alone says that the guard lies.
        ("/sealflow/guard/x", False),
        ("/kfp-launcher/x", False),
    ],
)
def test_an_admin_says_where_files_may_lie_in_images_whose_links_he_knows(path, allowed):
    settings = parse_settings((SETTINGS_TEXT + "images:\n  mounts: [/opt/models, /mnt/]\n").encode())
    assert decide(review(_with_files(path)), settings).allowed is allowed
    assert not decide(review(_with_files(path)), SETTINGS).allowed


def test_argos_program_comes_from_argos_image():
    pod = copy.deepcopy(GOOD["a task under an Argo without init containers"])
    pod["spec"]["volumes"][-1]["image"]["reference"] = TASK_IMAGE
    assert {finding.code for finding in decide(review(pod), SETTINGS).findings} == {"IMAGE_NOT_ALLOWED"}


def test_a_tag_is_a_warning_where_digests_are_advised():
    settings = parse_settings((SETTINGS_TEXT + "images:\n  digests: advised\n").encode())
    pod = task_pod(changed(compiled([Task("train", image="python:3.11")]), settings), "train")
    decision = decide(review(pod), settings)
    assert decision.allowed
    assert ["python:3.11" in warning for warning in answered(decision)["warnings"]] == [True]


def test_images_come_from_the_repositories_that_the_settings_name():
    settings = parse_settings((SETTINGS_TEXT + 'images:\n  repositories: ["registry.example/other/"]\n').encode())
    decision = decide(review(GOOD["a task under guard"]), settings)
    assert [finding.code for finding in decision.findings] == ["IMAGE_NOT_ALLOWED"]


def test_audit_takes_everything_and_says_the_same():
    pod = copy.deepcopy(GOOD["a task under guard"])
    pod["spec"]["hostPID"] = True
    pod["spec"]["containers"][1]["args"] = ["sh", "-c", "steal"]
    refused, told = decide(review(pod), SETTINGS), decide(review(pod), AUDIT)
    assert (refused.allowed, told.allowed) == (False, True)
    assert refused.findings == told.findings
    answer = answered(told)
    assert len(answer["warnings"]) == len(told.findings) == 2
    assert answer["auditAnnotations"]["codes"] == "ISOLATION_BROKEN TASK_UNGUARDED"
    assert "status" not in answer


def test_a_refusal_says_all_that_one_needs():
    pod = copy.deepcopy(GOOD["a task under guard"])
    pod["spec"]["containers"][1]["args"] = ["sh", "-c", "steal"]
    message = answered(decide(review(pod), SETTINGS))["status"]["message"]
    assert message == (
        "sealflow refuses Pod team-a/churn-x-system-container-impl-1:\n"
        "- TASK_UNGUARDED container 'main': The guard does not stand first in its arguments. Expected "
        "'/sealflow/guard/guard --executor-input {{$}} --', found 'sh -c steal'. Rule: guard.\n"
        "Next: Run it as a KFP pipeline, through the admission server that changes Workflows."
    )
    assert json.loads(decide(review(pod), SETTINGS).response)["response"]["status"]["code"] == 403
