"""Checks of Kubeflow Pipelines itself: how its API server is set up, and what namespaces with runs hold."""

from __future__ import annotations

import re
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow_kfp.doctor.place import Place
from sealflow_kfp.doctor.report import Said, UnclearError, dig, listed, mapped, text, texts
from sealflow_kfp.guard_command import INIT_CONTAINER, GuardMounts, has_digest

_MAX_PARAMETER: Final = 4 << 20
#: What Go's strconv.ParseBool, by which KFP reads the variable, takes for false.
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})


def server(place: Place) -> Said:
    """Say whether the cluster answers at all."""
    body = place.get("namespace", place.wanted.kubeflow)
    if body is None:
        return Said("FAIL", f"no namespace {place.wanted.kubeflow}")
    return Said("PASS", f"the namespace {place.wanted.kubeflow}")


def caching(place: Place) -> Said:
    """Say whether the API server lets tasks be taken from the cache."""
    value = place.variable("CACHEENABLED")
    if value is None:
        return Said("FAIL", "not set, which means true")
    if value in _FALSE:
        return Said("PASS", value)
    # Anything that is no truth value counts as the default, which is true.
    return Said("FAIL", value if value in _TRUE else f"{printable(value, 60)}, which KFP takes for true")


def publish_logs(place: Place) -> Said:
    """Say whether the launcher uploads logs."""
    value = place.variable("PUBLISH_LOGS")
    if value is None:
        return Said("FAIL", "not set, which means true")
    return Said("FAIL" if value == "true" else "PASS", printable(value, 60) or "empty, which is not true")


def image_of(variable: str) -> Any:
    """Return the check of an image that the API server names."""

    def judge(place: Place) -> Said:
        value = place.variable(variable)
        if not value:
            return Said("FAIL", "not set: the API server's own default, by tag")
        return Said("PASS" if has_digest(value) else "FAIL", printable(value, 200))

    return judge


def native_mode(place: Place) -> Said:
    """Say where pipelines are kept."""
    container = place.api_container
    words = [*texts(container, "command"), *texts(container, "args")]
    native = any(re.fullmatch(r"--?pipelinesStoreKubernetes(=(1|t|T|true|TRUE|True))?", word) for word in words)
    if not native:
        return Said("PASS", "in KFP's database")
    return Said("FAIL", "as PipelineVersions: whoever may make one uploads a pipeline")


def spec_patch(place: Place) -> Said:
    """Say whether the API server gives each task the guard directory, keys and policy."""
    value = (place.variable("COMPILED_PIPELINE_SPEC_PATCH") or "").strip()
    if value in ("", "{}"):
        return place.not_there("spec-patch", "not set")
    try:
        body = strictjson.loads(value.encode(), limit=_MAX_PARAMETER, what="The patch")
    except EvidenceError as error:
        return Said("FAIL", printable(error.message, 200), "KFP compiles no pipeline with it; generate it anew.")
    return judge_patch(body, place)


def judge_patch(body: Any, place: Place) -> Said:
    """Judge a patch that is JSON: for pods it must say exactly what this release writes for the names in it."""
    from sealflow_kfp import spec_patch

    pods = text(body, "podSpecPatch")
    given = strictjson.loads(pods.encode(), limit=_MAX_PARAMETER, what="Its podSpecPatch") if pods else {}
    images = [text(item, "image") for item in listed(given, "initContainers") if text(item, "name") == INIT_CONTAINER]
    if len(images) != 1:
        return Said("FAIL", "a patch without sealflow's init container")
    mounts = GuardMounts(images[0], _source(given, "secret", "secretName"), _source(given, "configMap", "name"))
    variables = {
        text(item, "name"): text(item, "value")
        for container in listed(given, "containers")
        for item in listed(container, "env")
    }
    try:
        whole = given == spec_patch.pod_patch(mounts, variables)
    except UsageError as error:
        return Said("FAIL", f"sealflow's init container, and {printable(error.message, 200)}")
    if not whole:
        return Said("FAIL", "sealflow's init container among other things, or not all that belongs to it")
    if not has_digest(mounts.image):
        return Said("FAIL", f"a guard image by tag: {printable(mounts.image, 200)}")
    wanted = place.wanted.mounts
    for what, found, expected in (
        ("the guard image", mounts.image, wanted.image),
        ("the secret", mounts.secret, wanted.secret),
        ("the policy's config map", mounts.policy_config_map, wanted.policy_config_map),
    ):
        if expected and found != expected:
            return Said("FAIL", f"{what} is {printable(found or 'none', 200)}, not {printable(expected, 200)}")
    more = ", ".join(sorted(mapped(body).keys() - {"podSpecPatch"}))
    return Said("PASS", f"this release's, with {mounts.image}" + (f"; and {printable(more, 100)}" if more else ""))


def _source(given: Any, kind: str, name: str) -> str:
    """Return what the volumes of a patch name as secret or config map."""
    found = [text(item, kind, name) for item in listed(given, "volumes") if mapped(item, kind)]
    return found[0] if len(found) == 1 else ""


# --- What a namespace holds ---


def secrets(place: Place) -> Said:
    """Say whether each namespace has the secret that is mounted into tasks."""
    name = place.wanted.mounts.secret
    if not name:
        return Said("UNKNOWN", "nobody said which", "Name it: --secret.")

    def there(namespace: str) -> bool:
        return bool(place.need(place.cluster.exists("secret", name, namespace)))

    return _in_namespaces(place, f"secret {name}", there)


def policy_config_maps(place: Place) -> Said:
    """Say whether each namespace has the config map with the admin's file."""
    name = place.wanted.mounts.policy_config_map
    if not name:
        return Said("UNKNOWN", "nobody said which", "Name it: --policy-config-map.")

    def there(namespace: str) -> bool:
        body = place.get("configmap", name, namespace)
        return body is not None and "admin.json" in mapped(body, "data")

    return _in_namespaces(place, f"{name} with admin.json", there)


def launcher_config(place: Place) -> Said:
    """Say whether each namespace has the launcher's configuration, which says where its artifacts lie."""

    def there(namespace: str) -> bool:
        body = place.get("configmap", "kfp-launcher", namespace)
        return bool(text(body, "data", "defaultPipelineRoot"))

    return _in_namespaces(place, "kfp-launcher with a defaultPipelineRoot", there)


def _in_namespaces(place: Place, what: str, there: Any) -> Said:
    missing = [namespace for namespace in place.namespaces if not there(namespace)]
    if missing:
        return Said("FAIL", f"no {what} in {', '.join(missing[:10])}")
    return Said("PASS", f"{what} in {len(place.namespaces)} namespaces")


def crds(place: Place) -> Said:
    """Say whether the cluster knows Argo's Workflows."""
    body = place.need(place.cluster.raw("/apis/argoproj.io/v1alpha1"))
    if body is not None and text(body, "kind") != "APIResourceList":
        raise UnclearError("no list of resources")
    names = {dig(item, "name") for item in listed(body, "resources")}
    if "workflows" in names:
        return Said("PASS", "argoproj.io/v1alpha1")
    return Said("FAIL", "no Workflows: KFP cannot run anything here")
