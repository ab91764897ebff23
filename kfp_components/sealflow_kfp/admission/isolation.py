"""What would let a task reach the guard of its own pod from outside, or the pods of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sealflow_kfp.admission import baseline, shapes
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.shapes import shown
from sealflow_kfp.admission.variables import check_sources, check_variable

#: Of the pod: the node's processes, memory and network, and the processes of the pod's other containers.
SHARED: Final = ("hostIPC", "hostNetwork", "hostPID", "shareProcessNamespace")
#: What a container may add; the baseline of Kubernetes' Pod Security Standards.
CAPABILITIES: Final = frozenset(
    {
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    }
)  # fmt: skip
TERMINATION: Final = "/dev/termination-log"


def judge_pod_isolation(spec: Mapping[str, Any], seen: Observations) -> None:
    """Refuse a pod that shares what is not its own."""
    for name in SHARED:
        if spec.get(name):
            seen.refuse("ISOLATION_BROKEN", "", f"It sets {name}.", expected=f"{name}: false", found=f"{name}: true")
    _host_process(spec.get("securityContext"), "", seen)
    if isinstance(spec.get("securityContext"), dict):
        baseline.judge_context(spec["securityContext"], "", seen)


def judge_container_isolation(container: Mapping[str, Any], where: str, seen: Observations) -> None:
    """Refuse a container with the node's powers, or one that has a file of its own laid over another."""
    context = container.get("securityContext")
    if context is not None and not isinstance(context, dict):
        seen.refuse("ISOLATION_BROKEN", where, "Its securityContext is no object.")
        return
    context = context or {}
    if context.get("privileged"):
        seen.refuse("ISOLATION_BROKEN", where, "It is privileged.", expected="privileged: false", found="true")
    if context.get("procMount") not in (None, "Default"):
        seen.refuse("ISOLATION_BROKEN", where, f"Its procMount is {shown(context['procMount'])}.")
    added = context.get("capabilities")
    added = added.get("add") if isinstance(added, dict) else None
    more = set(map(str, added if isinstance(added, list) else [added] if added else [])) - CAPABILITIES
    if more:
        seen.refuse(
            "ISOLATION_BROKEN", where, f"It adds the capabilities {shown(', '.join(sorted(more)))}.",
            expected="none beyond the baseline of the Pod Security Standards",
        )  # fmt: skip
    _host_process(context, where, seen)
    baseline.judge_context(context, where, seen)
    baseline.judge_ports(container, where, seen)
    if container.get("volumeDevices"):
        seen.refuse("ISOLATION_BROKEN", where, "It opens a block device.")
    if container.get("terminationMessagePath") not in (None, "", TERMINATION):
        # Kubernetes lays a file of its own over that path, whatever lies there.
        seen.refuse(
            "MOUNT_REFUSED", where, "It has its termination message somewhere else.",
            expected=TERMINATION, found=shown(container["terminationMessagePath"]),
        )  # fmt: skip


def _host_process(context: Any, where: str, seen: Observations) -> None:
    windows = context.get("windowsOptions") if isinstance(context, dict) else None
    if isinstance(windows, dict) and windows.get("hostProcess"):
        seen.refuse("ISOLATION_BROKEN", where, "It is a process of the node (hostProcess).")


def judge_fields(
    body: Mapping[str, Any], known: frozenset[str], more: frozenset[str], where: str, seen: Observations
) -> None:
    """Refuse fields of a pod that neither KFP nor Argo nor the cluster writes, such as hooks and probes."""
    for name in sorted(body.keys() - known - more):
        if body[name] not in (None, {}, [], "", False):
            seen.refuse(
                "POD_REFUSED",
                where,
                f"Neither KFP nor Argo writes the field {shown(name)} there.",
                rule="kubeflow.fields",
            )


def judge_variables(container: Mapping[str, Any], where: str, seen: Observations) -> None:
    """Refuse variables that a container may not bring along."""
    listed = shapes.objects(container.get("env"))
    if listed is None:
        seen.refuse("VARIABLE_REFUSED", where, "Its variables are no list of objects.")
        return
    for item in listed:
        check_variable(item.get("name"), where, seen)
    check_sources(container, where, seen)
