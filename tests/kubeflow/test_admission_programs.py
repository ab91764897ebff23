"""KFP's and Argo's own programs in a Workflow: nothing of an author's lies beside them, or becomes one of them."""

import copy

import pytest

from sealflow.errors import UsageError
from sealflow_kfp.admission.decide import decide
from sealflow_kfp.admission.settings import parse_settings
from tests.kubeflow.argo import Task, compiled
from tests.kubeflow.argo_pods import template
from tests.kubeflow.cluster_pods import SETTINGS, SETTINGS_TEXT, changed, good_pods, review
from tests.kubeflow.program_pods import container_of

_MINE = {"name": "mine", "configMap": {"name": "mine", "defaultMode": 0o755}}
_PROGRAMS = ("system-container-driver", "system-dag-driver", "system-importer", "system-container-impl")


def _workflow():
    return compiled([Task("train")], importer=True, certificates=True)


def _program(workflow, name):
    """Return the template and the container of one of KFP's programs in it."""
    one = template(workflow, name)
    return one, one["initContainers"][-1] if "initContainers" in one else one["container"]


def _mounted(path, **more):
    def change(one, container):
        one.setdefault("volumes", []).append(copy.deepcopy(_MINE))
        container.setdefault("volumeMounts", []).append({"name": "mine", "mountPath": path, **more})

    return change


CHANGES = {
    "a config map at /bin": _mounted("/bin"),
    "a program at /usr/local/bin": _mounted("/usr/local/bin/launcher-v2", subPath="launcher-v2"),
    "another search path": lambda _, container: container.setdefault("env", []).append(
        {"name": "PATH", "value": "/data"}
    ),
    "a folder to start in": lambda _, container: container.update(workingDir="/data"),
    "a volume at the root": _mounted("/"),
    "another volume as certificates": _mounted("/kfp/certs"),
}


def test_the_workflow_that_is_changed_here_is_taken():
    assert changed(_workflow())


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("name", _PROGRAMS)
@pytest.mark.parametrize("late", [False, True], ids=["submitted", "changed-behind-us"])
def test_no_program_of_kfp_is_another_one_under_its_name(name, what, late):
    workflow = changed(_workflow()) if late else _workflow()
    CHANGES[what](*_program(workflow, name))
    assert not decide(review(workflow), SETTINGS, validate=late).allowed


def test_the_admin_names_further_places():
    pod = copy.deepcopy(good_pods()["a task under guard"])
    pod["spec"]["volumes"].append({"name": "authorities", "configMap": {"name": "authorities"}})
    for name in ("init", "wait", "kfp-launcher"):
        container_of(pod, name)["volumeMounts"].append({"name": "authorities", "mountPath": "/etc/ssl/certs"})
    assert not decide(review(pod), SETTINGS).allowed
    text = SETTINGS_TEXT.replace("  sidecar_images", "  mounts: [/etc/ssl/certs]\n  sidecar_images")
    settings = parse_settings(text.encode())
    assert decide(review(pod), settings).allowed
    container_of(pod, "sealflow-guard")["volumeMounts"].append({"name": "authorities", "mountPath": "/etc/ssl/certs"})
    assert not decide(review(pod), settings).allowed


@pytest.mark.parametrize("place", ["/", "bin", "/etc/../bin", "/etc/", "//etc"])
def test_a_place_is_a_path_without_detours(place):
    text = SETTINGS_TEXT.replace("  sidecar_images", f"  mounts: ['{place}']\n  sidecar_images")
    with pytest.raises(UsageError, match="detours"):
        parse_settings(text.encode())


_DEVICES = {"cdi.k8s.io/mine": "vendor.example/hook=all"}


@pytest.mark.parametrize(("there", "allowed"), [(False, False), (True, True)], ids=["new", "there-before"])
def test_an_update_brings_no_annotation_that_the_node_obeys(there, allowed):
    old = copy.deepcopy(good_pods()["a task under guard"])
    new = copy.deepcopy(old)
    for pod in (old, new) if there else (new,):
        pod["metadata"]["annotations"].update(_DEVICES)
    decision = decide(review(new, operation="UPDATE", oldObject=old), SETTINGS)
    assert decision.allowed is allowed


def test_an_exempt_pod_may_have_devices_by_annotations():
    bare = {"containers": [{"name": "notebook", "image": "registry.example/any:1"}]}
    metadata = {"name": "n", "annotations": _DEVICES}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": bare}
    controller = {"username": SETTINGS.exempt[0].creators[0]}
    assert decide(review(pod, userInfo=controller), SETTINGS).allowed
    assert not decide(review(pod), SETTINGS).allowed
