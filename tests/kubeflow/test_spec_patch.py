"""What KFP's API server adds to every pod: merged as Kubernetes merges, and valid as Kubernetes sees it."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import UsageError
from sealflow_kfp.guard_command import GuardMounts
from sealflow_kfp.spec_patch import mounts, patch, pod_patch, to_text

IMAGE = "registry.example/sealflow-guard@sha256:" + "a" * 64
GIVEN = GuardMounts(IMAGE, "sealflow", "sealflow-policy")

# How Kubernetes merges lists: each by the member that its API says (`x-kubernetes-patch-merge-key`), in its own schema.
SCHEMA = "v1.31.0-local"


@functools.cache
def schema(reference: str) -> dict[str, Any]:
    """Part of the API, by what refers to it: `<file>#/<path>`."""
    import kubernetes_validate

    name, _, path = reference.partition("#")
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / SCHEMA
    found = json.loads((folder / (name or "_definitions.json")).read_text())
    for part in path.split("/")[1:]:
        found = found[part]
    return found


POD = "#/$defs/io.k8s.api.core.v1.PodSpec"


def merged(original: Any, change: Any, definition: dict[str, Any]) -> Any:
    """Merge as a strategic merge patch: members of objects, items of lists with a key, everything else replaced."""
    if "$ref" in definition:
        definition = {**schema("#" + definition["$ref"].partition("#")[2]), **definition}
    if isinstance(change, dict) and isinstance(original, dict):
        known = definition.get("properties", {})
        result = dict(original)
        for name, value in change.items():
            result[name] = merged(result.get(name), value, known.get(name, {}))
        return result
    key = definition.get("x-kubernetes-patch-merge-key")
    if isinstance(change, list) and isinstance(original, list) and key:
        result = list(original)
        for item in change:
            place = next((index for index, one in enumerate(result) if one[key] == item[key]), None)
            if place is None:
                result.append(item)
            else:
                result[place] = merged(result[place], item, definition["items"])
        return result
    return change


def task_pod() -> dict[str, Any]:
    """A pod as Argo makes it for a task of KFP, before podSpecPatch is applied."""
    launcher = {"name": "kfp-launcher", "emptyDir": {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "churn-x-1", "labels": {"pipelines.kubeflow.org/v2_component": "true"}},
        "spec": {
            "serviceAccountName": "pipeline-runner",
            "restartPolicy": "Never",
            "containers": [
                {"name": "wait", "image": "argoexec", "command": ["argoexec", "wait"]},
                {
                    "name": "main",
                    "image": "alpine",
                    "command": ["/var/run/argo/argoexec", "emissary", "--", "/kfp-launcher/launch", "--"],
                    "args": ["/sealflow/guard/guard", "--executor-input", "{{$}}", "--", "sh", "-c", "true"],
                    "env": [{"name": "AWS_REGION", "value": "us-east-1"}, {"name": "OWN", "value": "1"}],
                    "envFrom": [{"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}],
                    "volumeMounts": [
                        {"name": "kfp-launcher", "mountPath": "/kfp-launcher"},
                        {"name": "minio", "mountPath": "/minio"},
                    ],
                },
            ],
            "initContainers": [
                {"name": "init", "image": "argoexec", "command": ["argoexec", "init"]},
                {
                    "name": "kfp-launcher",
                    "image": "launcher",
                    "command": ["launcher-v2", "--copy", "/kfp-launcher/launch"],
                    "volumeMounts": [{"name": "kfp-launcher", "mountPath": "/kfp-launcher"}],
                },
            ],
            "volumes": [launcher, {"name": "minio", "emptyDir": {}}],
        },
    }


def applied(change: dict[str, Any]) -> dict[str, Any]:
    pod = task_pod()
    pod["spec"] = merged(pod["spec"], change, schema(POD))
    return pod


def test_only_the_patch_of_pods_is_set() -> None:
    value = json.loads(to_text(GIVEN))
    # WorkflowSpec.podSpecPatch is a text to Argo.
    assert set(value) == {"podSpecPatch"}
    assert json.loads(value["podSpecPatch"]) == pod_patch(GIVEN)
    # Argo puts values in the place of what stands in double braces.
    assert "{{" not in to_text(GIVEN)


def test_a_merged_pod_has_the_guard_and_keeps_what_it_had() -> None:
    import kubernetes_validate

    pod = applied(pod_patch(GIVEN, {"AWS_REGION": "eu-central-1"}))
    kubernetes_validate.validate(pod, "1.31", strict=True)
    before, spec = task_pod()["spec"], pod["spec"]
    wait, main = spec["containers"]
    assert wait == before["containers"][0]
    assert (main["command"], main["args"]) == (before["containers"][1]["command"], before["containers"][1]["args"])
    named = {item["name"]: item.get("value") for item in main["env"]}
    metadata = {"METADATA_GRPC_SERVICE_HOST": None, "METADATA_GRPC_SERVICE_PORT": None}
    assert named == {"AWS_REGION": "eu-central-1", "OWN": "1", **metadata}
    # Nothing comes from a config map that names no variables.
    assert not main["envFrom"]
    assert [item["mountPath"] for item in main["volumeMounts"]] == [
        "/kfp-launcher",
        "/minio",
        "/sealflow/guard",
        "/var/run/sealflow",
        "/etc/sealflow",
    ]
    assert spec["initContainers"] == [*before["initContainers"], GIVEN.init_container()]
    assert spec["volumes"] == [*before["volumes"], *GIVEN.volumes()]


def test_merging_twice_changes_nothing() -> None:
    once = applied(pod_patch(GIVEN))["spec"]
    assert merged(once, pod_patch(GIVEN), schema(POD)) == once


@pytest.mark.oracle
@pytest.mark.slow
def test_kubectl_merges_it_as_we_think(tmp_path: Path, loud: Callable[[str], None]) -> None:
    if shutil.which("kubectl") is None:
        what = "no kubectl merged the spec patch; the merge that follows Kubernetes' published schema did"
        loud(f"PROGRAM: {what}")
        pytest.skip(what)
    (tmp_path / "pod.json").write_text(json.dumps(task_pod()))
    change = json.dumps({"spec": pod_patch(GIVEN, {"AWS_REGION": "eu-central-1"})})
    command = ["kubectl", "patch", "--local", "--type", "strategic", "-f", "pod.json", "-p", change, "-o", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = applied(pod_patch(GIVEN, {"AWS_REGION": "eu-central-1"}))["spec"]
    theirs = json.loads(done.stdout)["spec"]
    for name in ("containers", "initContainers", "volumes"):
        assert by_name(theirs[name]) == by_name(ours[name])


def by_name(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Items of a list by name, and mounts by path: where in a list a new item lands means nothing."""
    found = {}
    for item in items:
        kept = {key: value for key, value in item.items() if key != "resources" or value}
        if "volumeMounts" in kept:
            kept["volumeMounts"] = {mount["mountPath"]: mount for mount in kept["volumeMounts"]}
        if "env" in kept:
            kept["env"] = {variable["name"]: variable for variable in kept["env"]}
        found[item["name"]] = kept
    return found


def test_without_secret_and_config_map_the_guard_alone_is_mounted() -> None:
    change = pod_patch(GuardMounts(IMAGE))
    assert [item["name"] for item in change["volumes"]] == ["sealflow-guard"]
    assert all("value" not in item for item in change["containers"][0]["env"])


@pytest.mark.parametrize(
    "image",
    [
        "registry.example/sealflow-guard:1",
        "sealflow-guard",
        "registry.example/sealflow-guard@sha256:abc",
        "registry.example/sealflow-guard@sha512:" + "a" * 64,
        "",
        "-x",
        "a b@sha256:" + "a" * 64,
        '{{workflow.name}}@sha256:"' + "a" * 64,
    ],
)
def test_an_image_that_can_change_is_refused(image: str) -> None:
    with pytest.raises(UsageError):
        mounts(image)


def test_a_tag_is_taken_where_it_is_asked_for_but_no_broken_digest() -> None:
    assert mounts("guard:1", allow_tag=True).image == "guard:1"
    with pytest.raises(UsageError, match="digest"):
        mounts("guard@sha256:abc", allow_tag=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LD_PRELOAD", "/x"),
        ("SEALFLOW_MOUNT", "/x"),
        ("PATH", "/x"),
        ("AWS_CONFIG_FILE", "/x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_SESSION_TOKEN", "x"),
        ("AWS_REGION", "{{workflow.name}}"),
        ("AWS_REGION", "a\nb"),
    ],
)
def test_what_the_guard_does_not_hear_or_nobody_may_read_is_no_variable(name: str, value: str) -> None:
    with pytest.raises(UsageError):
        patch(GIVEN, {name: value})


def test_what_the_patch_says_so_far_is_kept() -> None:
    before = b'{"ttlStrategy": {"secondsAfterCompletion": 60}}'
    value = json.loads(to_text(GIVEN, onto=before))
    assert value == {"ttlStrategy": {"secondsAfterCompletion": 60}, **patch(GIVEN)}
    assert to_text(GIVEN, onto=to_text(GIVEN).encode()) == to_text(GIVEN)


@pytest.mark.parametrize(
    "before", [b'{"podSpecPatch": "{\\"volumes\\": []}"}', b"[]", b"{", b'{"a": 1, "a": 2}', b"\xff"]
)
def test_a_patch_that_cannot_be_joined_is_refused(before: bytes) -> None:
    with pytest.raises(UsageError, match=r"so far|JSON"):
        to_text(GIVEN, onto=before)
