"""Checks of Kubeflow Pipelines itself: how its API server is set up, and what its latest runs were like."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow_kfp.doctor.place import Place
from sealflow_kfp.doctor.report import Said, UnclearError, dig, listed, mapped, text, texts
from sealflow_kfp.guard_command import INIT_CONTAINER, GuardMounts, has_digest, is_guarded

#: Workflows of each namespace that are looked at, the latest the API server names first.
_RUNS: Final = 20
_MAX_PARAMETER: Final = 4 << 20
#: What Go's strconv.ParseBool, by which KFP reads the variable, takes for false.
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_NOT_CACHED: Final = "--cache_disabled=true"


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


# --- The latest runs ---


def _workflows(place: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    for namespace in place.namespaces:
        path = f"/apis/argoproj.io/v1alpha1/namespaces/{quote(namespace, safe='')}/workflows?limit={_RUNS}"
        body = place.need(place.cluster.raw(path))
        if body is not None and not isinstance(body.get("items"), list):
            raise UnclearError("no list of Workflows")
        for item in listed(body, "items"):
            if mapped(item, "metadata", "labels").get("pipeline/runid") or _parameters(item):
                yield f"{namespace}/{text(item, 'metadata', 'name')}", mapped(item)


def _parameters(workflow: Any) -> dict[str, str]:
    found = {}
    for item in listed(workflow, "spec", "arguments", "parameters"):
        name = text(item, "name")
        if name.startswith("implementations-"):
            found[name] = text(item, "value")
    return found


def runs_cached(place: Place) -> Said:
    """Say whether tasks of the latest runs could be taken from the cache."""
    seen, cached = 0, []
    for name, workflow in _workflows(place):
        seen += 1
        if _may_be_cached(workflow):
            cached.append(name)
    if cached:
        return Said("FAIL", f"caching on in {len(cached)} of {seen} runs: {', '.join(map(printable, cached[:5]))}")
    return Said("PASS", f"off in {seen} runs") if seen else Said("UNKNOWN", "no run to look at", "Start one.")


def _may_be_cached(workflow: dict[str, Any]) -> bool:
    asked = disabled = False
    for template in listed(workflow, "spec", "templates"):
        arguments = texts(template, "container", "args")
        if "--cached_decision_path" in arguments:
            if _NOT_CACHED not in arguments:
                asked = True
            else:
                disabled = True
    if disabled and not asked:
        return False
    return any(_enables(value) for value in _task_parameters(workflow))


def _task_parameters(workflow: dict[str, Any]) -> Iterator[str]:
    for template in listed(workflow, "spec", "templates"):
        for task in listed(template, "dag", "tasks"):
            for item in listed(task, "arguments", "parameters"):
                if text(item, "name") == "task":
                    yield text(item, "value")


def _enables(value: str) -> bool:
    # The root has none of its own, and loops hand theirs on.
    if not value.startswith("{") or value.startswith("{{"):
        return False
    try:
        body = strictjson.loads(value.encode(), limit=_MAX_PARAMETER, what="A task")
    except EvidenceError as error:
        raise UnclearError(error.message) from None
    # Protocol buffers in JSON have two spellings.
    options = [mapped(body, name) for name in ("cachingOptions", "caching_options")]
    return any(item.get(name) for item in options for name in ("enableCache", "enable_cache"))


def runs_guarded(place: Place) -> Said:
    """Say whether all tasks of the latest runs ran behind the wrapper."""
    seen, bare = 0, []
    for name, workflow in _workflows(place):
        seen += 1
        if not all(_guarded(value) for value in _parameters(workflow).values()):
            bare.append(name)
    if bare:
        return Said("FAIL", f"without the wrapper: {', '.join(map(printable, bare[:5]))} ({len(bare)} of {seen} runs)")
    return Said("PASS", f"all tasks of {seen} runs") if seen else Said("UNKNOWN", "no run to look at", "Start one.")


def _guarded(value: str) -> bool:
    try:
        body = strictjson.loads(value.encode(), limit=_MAX_PARAMETER, what="An implementation")
    except EvidenceError as error:
        raise UnclearError(error.message) from None
    command = [*texts(body, "command"), *texts(body, "args")]
    return is_guarded(command) is not None or _own(texts(body, "command"), texts(body, "args"))


def _own(command: list[str], arguments: list[str]) -> bool:
    from sealflow_kfp.hardening.commands import own_component

    found = own_component(command, arguments)
    return found is not None and found[1]


def crds(place: Place) -> Said:
    """Say whether the cluster knows Argo's Workflows."""
    body = place.need(place.cluster.raw("/apis/argoproj.io/v1alpha1"))
    if body is not None and text(body, "kind") != "APIResourceList":
        raise UnclearError("no list of resources")
    names = {dig(item, "name") for item in listed(body, "resources")}
    if "workflows" in names:
        return Said("PASS", "argoproj.io/v1alpha1")
    return Said("FAIL", "no Workflows: KFP cannot run anything here")
