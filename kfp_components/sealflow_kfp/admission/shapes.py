"""What Kubeflow Pipelines and Argo write, name by name: whatever is not listed here is not theirs.

The shapes are those of KFP 2.3 to 2.17 (``backend/src/v2/compiler/argocompiler``, ``backend/src/v2/driver``) and Argo
Workflows 3.4 to 4.1 (``workflow/controller/workflowpod.go``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sealflow.findings import printable

#: Where the launcher lies in a task's pod, and the volume that brings it.
LAUNCHER: Final = "/kfp-launcher/launch"
LAUNCHER_VOLUME: Final = "kfp-launcher"
LAUNCHER_MOUNT: Final = "/kfp-launcher"

#: Argo's program: copied into the pod, or mounted from its image where pods have no init container of Argo's.
EMISSARIES: Final = ("/var/run/argo/argoexec", "/argo-bin/bin/argoexec")
ARGO_VOLUME: Final = "var-run-argo"
ARGO_MOUNT: Final = "/var/run/argo"
ARGO_IMAGE_VOLUME: Final = "argoexec-bin"
#: Under which Argo's own container beside a task has what the task has mounted.
MIRROR: Final = "/mainctrfs"
#: Options that the controller gives to its program, each with a value.
EXECUTOR_OPTIONS: Final = frozenset({"loglevel", "log-format", "gloglevel"})
#: What makes Argo's program take a container's arguments from a file, which nobody sees at admission.
HIDDEN_ARGUMENTS: Final = "ARGO_CONTAINER_ARGS_FILE"
#: What makes it wait for the container that writes its template, where no init container does.
WAITS: Final = "ARGO_WAIT_FOR_READY"

#: A task that a template hands on as it is; otherwise it is written out, as JSON, with space before it at most.
HANDED_ON: Final = "{{inputs.parameters.task}}"
JSON_SPACE: Final = " \t\r\n"
#: What a task's template runs until the driver says otherwise.
PLACEHOLDER: Final = "should-be-overridden-during-runtime"
POD_SPEC_PATCH: Final = "{{inputs.parameters.pod-spec-patch}}"

#: Options that are truth values: KFP to 2.17 writes them bare, and later ones with a value behind an equals sign.
TRUTH_OPTIONS: Final = frozenset({"cache_disabled", "metadata_tls_enabled", "ml_pipeline_tls_enabled"})
#: Options beside `--copy` that the launcher has where it copies itself into a pod.
COPY_OPTIONS: Final = frozenset({"cache_disabled", "copy", "log_level", "publish_logs"})
#: Options of the launcher, without dashes.
LAUNCHER_OPTIONS: Final = frozenset(
    {
        "ca_cert_path",
        "cache_disabled",
        "component_spec",
        "execution_id",
        "executor_input",
        "executor_type",
        "importer_spec",
        "log_level",
        "metadata_tls_enabled",
        "ml_pipeline_server_address",
        "ml_pipeline_server_port",
        "ml_pipeline_tls_enabled",
        "mlmd_server_address",
        "mlmd_server_port",
        "parent_dag_id",
        "pipeline_name",
        "pod_name",
        "pod_uid",
        "publish_logs",
        "run_id",
        "task_spec",
    }
)
#: Options of the driver that say what a task is, and the only values they have: somebody else's would be unseen.
DRIVER_VALUES: Final = {
    "component": ("{{inputs.parameters.component}}",),
    "container": ("{{inputs.parameters.container}}",),
    "kubernetes_config": ("{{inputs.parameters.kubernetes-config}}",),
    "task": (HANDED_ON,),
    "type": ("CONTAINER", "DAG", "ROOT_DAG", "{{inputs.parameters.driver-type}}"),
    "pod_spec_patch_path": ("{{outputs.parameters.pod-spec-patch.path}}",),
    "cached_decision_path": ("{{outputs.parameters.cached-decision.path}}",),
}

# Fields. What is set by an admin through COMPILED_PIPELINE_SPEC_PATCH, and moves nothing into a task, is among them.
_SCHEDULING: Final = frozenset({"affinity", "nodeSelector", "priorityClassName", "schedulerName", "tolerations"})
SPEC_FIELDS: Final = _SCHEDULING | {
    "activeDeadlineSeconds", "archiveLogs", "arguments", "automountServiceAccountToken", "dnsConfig", "dnsPolicy",
    "entrypoint", "executor", "imagePullSecrets", "metrics", "parallelism", "podDisruptionBudget", "podGC",
    "podMetadata", "podPriorityClassName", "podSpecPatch", "priority", "retryStrategy", "securityContext",
    "serviceAccountName", "shutdown", "suspend", "synchronization", "templates", "ttlStrategy", "volumeClaimGC",
    "volumeClaimTemplates", "volumes", "workflowMetadata",
}  # fmt: skip
#: Fields of a Workflow's spec that stop, pause or tidy up, and so are taken whatever else the Workflow holds.
STOPPING_FIELDS: Final = frozenset(
    {"activeDeadlineSeconds", "parallelism", "podGC", "priority", "shutdown", "suspend", "ttlStrategy"}
)
_TEMPLATE: Final = _SCHEDULING | {"inputs", "metadata", "name", "outputs", "parallelism", "failFast", "timeout"}
DAG_FIELDS: Final = _TEMPLATE | {"dag"}
POD_TEMPLATE_FIELDS: Final = _TEMPLATE | {
    "activeDeadlineSeconds", "automountServiceAccountToken", "container", "executor", "hostAliases", "initContainers",
    "podResources", "podSpecPatch", "priority", "retryStrategy", "securityContext", "serviceAccountName", "volumes",
}  # fmt: skip
DAG_TASK_FIELDS: Final = frozenset(
    {"arguments", "continueOn", "dependencies", "depends", "hooks", "name", "template", "when", "withSequence"}
)
CONTAINER_FIELDS: Final = frozenset(
    {
        "args", "command", "env", "envFrom", "image", "imagePullPolicy", "name", "ports", "resizePolicy", "resources",
        "securityContext", "terminationMessagePath", "terminationMessagePolicy", "volumeMounts", "workingDir",
    }
)  # fmt: skip
POD_FIELDS: Final = _SCHEDULING | {
    "activeDeadlineSeconds", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy",
    "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostIPC", "hostNetwork", "hostPID", "hostUsers",
    "hostname", "hostnameOverride", "imagePullSecrets", "initContainers", "nodeName", "os", "overhead",
    "preemptionPolicy", "priority", "readinessGates", "resourceClaims", "resources", "restartPolicy",
    "runtimeClassName", "schedulingGates", "securityContext", "serviceAccount", "serviceAccountName",
    "setHostnameAsFQDN", "shareProcessNamespace", "subdomain", "terminationGracePeriodSeconds",
    "topologySpreadConstraints", "volumes",
}  # fmt: skip
#: Fields of a pod that an update may change without a task becoming another one.
POD_UPDATES: Final = frozenset(
    {"activeDeadlineSeconds", "nodeName", "nodeSelector", "affinity", "resources", "schedulingGates",
     "terminationGracePeriodSeconds", "tolerations"}
)  # fmt: skip
#: Fields of a task's implementation (``PipelineContainerSpec``), and of an importer's (``ImporterSpec``).
IMPLEMENTATION_FIELDS: Final = frozenset({"args", "command", "env", "image", "resources"})
IMPORTER_FIELDS: Final = frozenset(
    {"artifactUri", "downloadToWorkspace", "metadata", "properties", "customProperties", "reimport", "typeSchema"}
)

#: A reference to one of the Workflow's own parameters; anything else would be filled in from elsewhere.
REFERENCE: Final = re.compile(r"\{\{workflow\.parameters\.([A-Za-z0-9._-]{1,300})\}\}")
_PATCH_SOURCE: Final = re.compile(r"\{\{tasks\.([A-Za-z0-9_-]{1,300})\.outputs\.parameters\.pod-spec-patch\}\}")
_DECISIONS: Final = re.compile(
    r"false|\{\{(?:inputs\.parameters|tasks\.[A-Za-z0-9_-]{1,300}\.outputs\.parameters)\.cached-decision\}\}"
)
# JSON knows no other texts and objects than these.
_STR: Final = frozenset({str})
_DICT: Final = frozenset({dict})
#: What Argo fills in, or runs as an expression, inside of any text. ``{{$`` is KFP's own and comes later.
ARGO_TAG: Final = re.compile(
    r"\{\{\s*(?:=|workflow\.|inputs\.|outputs\.|tasks\.|steps\.|item|pod\.|node\.|retries|lastRetry|cronworkflow\.)"
)
# Where neither is, there is no tag: two braces that are KFP's own alone, and none that is spelled as an escape. Nearly
# every text is like that, and is not looked at any closer.
_BRACES: Final = re.compile(r"\{\{[^$]")
_SPELLED_BRACE: Final = re.compile(r"\\u007")


def argo_reference(text: str, value: Any = None) -> str:
    """Return what Argo would fill in inside of a text of JSON, with what follows it; empty for nothing.

    Escapes and line breaks are looked through: KFP's driver reads the JSON and writes it again, before Argo looks.

    Args:
        text: The JSON.
        value: What it says.
    """
    if _BRACES.search(text) is None and _SPELLED_BRACE.search(text) is None:
        return ""
    texts_in = [text]
    waiting = [value] if "\\" in text else []
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            texts_in.append(one)
        elif isinstance(one, dict):
            texts_in += one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    match = ARGO_TAG.search("\0".join(texts_in))
    return match.string[match.start() :].partition("\0")[0] if match is not None else ""


def patch_source(text: str) -> str | None:
    """Return the task whose output is a pod patch, empty for the template's own input, ``None`` for anything else."""
    if text == POD_SPEC_PATCH:
        return ""
    match = _PATCH_SOURCE.fullmatch(text)
    return match[1] if match is not None else None


def is_decision(text: str) -> bool:
    """Tell whether a text is the driver's decision on the cache, or the decision to run."""
    return _DECISIONS.fullmatch(text) is not None


def options(words: Sequence[str]) -> dict[str, str] | None:
    """Read the options of one of KFP's programs as Go's ``flag`` package does.

    Returns:
        Each option's value, ``None`` where anything but options stands there, or one stands there with two values:
        the program would stop reading options there, or somebody tries to be read in two ways.
    """
    found: dict[str, str] = {}
    index = 0
    while index < len(words):
        word = words[index]
        if not word.startswith("-") or word in ("-", "--"):
            return None
        name, sign, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not sign and name in TRUTH_OPTIONS:
            value = "true"
        elif not sign:
            index += 1
            if index == len(words):
                return None
            value = words[index]
        # KFP itself writes some twice, with one value.
        if not name or name.startswith("-") or found.get(name, value) != value:
            return None
        found[name] = value
        index += 1
    return found


def copies_launcher(container: Mapping[str, Any], program: Sequence[str]) -> bool:
    """Tell whether a container copies KFP's launcher to where tasks have it, and does nothing else."""
    command, args = texts(container.get("command")), texts(container.get("args"))
    if command is None or args is None or command[: len(program)] != list(program):
        return False
    # To 2.4 the options stood in the command.
    given = options([*command[len(program) :], *args]) or {}
    return given.get("copy") == LAUNCHER and not given.keys() - COPY_OPTIONS


def texts(value: Any) -> list[str] | None:
    """Return a list of texts, empty for none at all; ``None`` for anything else."""
    if value is None:
        return []
    return value if isinstance(value, list) and _STR.issuperset(map(type, value)) else None


def objects(value: Any) -> list[dict[str, Any]] | None:
    """Return a list of objects, empty for none at all; ``None`` for anything else."""
    if value is None:
        return []
    return value if isinstance(value, list) and _DICT.issuperset(map(type, value)) else None


def name_of(body: Mapping[str, Any], member: str = "name") -> str:
    """Return the name of a part, empty where it has none, or one that is no text."""
    name = body.get(member)
    return name if isinstance(name, str) else ""


def shown(value: Any, limit: int = 80) -> str:
    """Return a value in quotes for messages, cut."""
    return f"'{printable(value, limit)}'"
