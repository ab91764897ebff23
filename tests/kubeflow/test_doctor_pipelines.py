"""`sealflow kfp doctor`: how Kubeflow Pipelines is set up, and what its runs were like."""

from __future__ import annotations

import pytest

from tests.kubeflow.cluster import GUARD, Cluster
from tests.kubeflow.cluster_changes import Wrong, drop, native, patched, runs, see, variable

WRONG: dict[str, Wrong] = {
    "no namespace": (drop("namespace", "kubeflow"), "cluster", "FAIL", "no namespace kubeflow"),
    "no Argo": (
        lambda cluster: cluster.raw.pop("/apis/argoproj.io/v1alpha1"), "workflows", "FAIL", "no Workflows",
    ),
    "caching on": (variable("CACHEENABLED", "true"), "caching", "FAIL", "true"),
    "caching not set": (variable("CACHEENABLED", None), "caching", "FAIL", "not set"),
    "caching off in no word of Go's": (variable("CACHEENABLED", "no"), "caching", "FAIL", "takes for true"),
    "logs published": (variable("PUBLISH_LOGS", "true"), "publish_logs", "FAIL", "true"),
    "logs not set": (variable("PUBLISH_LOGS", None), "publish_logs", "FAIL", "not set"),
    "launcher by tag": (variable("V2_LAUNCHER_IMAGE", "kfp-launcher:2.17"), "launcher_image", "FAIL", "2.17"),
    "launcher not set": (variable("V2_LAUNCHER_IMAGE", None), "launcher_image", "FAIL", "by tag"),
    "driver by tag": (variable("V2_DRIVER_IMAGE", "kfp-driver:2.17"), "driver_image", "FAIL", "2.17"),
    "native mode": (native, "native_mode", "FAIL", "PipelineVersions"),
    "no Deployment": (drop("deployment", "ml-pipeline", "kubeflow"), "caching", "UNKNOWN", "no Deployment"),
    "a patch that is no JSON": (variable("COMPILED_PIPELINE_SPEC_PATCH", "{x"), "spec_patch", "FAIL", "JSON"),
    "a patch of somebody else's": (
        variable("COMPILED_PIPELINE_SPEC_PATCH", '{"parallelism":2}'), "spec_patch", "FAIL", "without sealflow",
    ),
    "a whole patch": (patched(lambda body: None), "spec_patch", "PASS", GUARD),
    "a patch without a mount": (
        patched(lambda body: body["containers"][0]["volumeMounts"].pop()), "spec_patch", "FAIL", "not all",
    ),
    "a patch with a volume more": (
        patched(lambda body: body["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
        "spec_patch", "FAIL", "other things",
    ),
    "a patch with another image": (
        patched(lambda body: body["initContainers"][0].update(image=GUARD.replace("aaa", "bbb"))),
        "spec_patch", "FAIL", "the guard image is",
    ),
    "a patch with an image by tag": (
        patched(lambda body: body["initContainers"][0].update(image="registry.example/guard:1")),
        "spec_patch", "FAIL", "by tag",
    ),
    "a patch with a variable that the guard does not hear": (
        patched(lambda body: body["containers"][0].update(env=[{"name": "LD_PRELOAD", "value": "/x"}])),
        "spec_patch", "FAIL", "LD_PRELOAD",
    ),
    "a run without the wrapper": (runs(guard=()), "runs_guarded", "FAIL", "team-a/run-3"),
    "a run with caching": (runs(cached=True), "runs_cached", "FAIL", "team-a/run-3"),
    "a run with caching that the server overrules": (runs(cached=True, disabled=True), "runs_cached", "PASS", "3 runs"),
    "no runs": (lambda cluster: cluster.workflows.clear(), "runs_guarded", "UNKNOWN", "no run"),
    "no secret": (drop("secret", "sealflow", "team-a"), "secret", "FAIL", "team-a"),
    "no policy": (drop("configmap", "sealflow-policy", "team-a"), "policy_config_map", "FAIL", "team-a"),
    "a policy without its item": (
        lambda cluster: cluster.get("configmap", "sealflow-policy", "team-a")["data"].clear(),
        "policy_config_map", "FAIL", "admin.json",
    ),
    "no launcher configuration": (drop("configmap", "kfp-launcher", "team-a"), "launcher_config", "FAIL", "team-a"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_seen(name: str, good: Cluster) -> None:
    see(WRONG[name], good)
