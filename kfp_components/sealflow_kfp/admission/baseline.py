"""The rest of the baseline of Kubernetes' Pod Security Standards, and annotations that a node's runtime obeys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.shapes import shown

#: Kinds of SELinux that a container may be of; another user or role of SELinux is none of them.
SELINUX: Final = ("", "container_engine_t", "container_init_t", "container_kvm_t", "container_t")
#: Kernel parameters that are the pod's own.
SYSCTLS: Final = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies", "net.ipv4.tcp_wmem",
)  # fmt: skip
#: Profiles that confine system calls and files, and the one that does not.
PROFILES: Final = ("appArmorProfile", "seccompProfile")
UNCONFINED: Final = "Unconfined"
#: Annotations by which containerd, CRI-O, Kata Containers, gVisor and their plugins give a container devices, hooks,
#: mounts or another sandbox.
OF_THE_RUNTIME: Final = (
    r"cdi\.k8s\.io/.*|(?:[a-z0-9.-]+\.)?(?:crio|cri-o|nri)\.io(?:/.*)?"
    r"|(?:io\.kubernetes\.cri-o|io\.containers|io\.katacontainers|dev\.gvisor)[./].*"
)
#: The name of a container's profile before Kubernetes had a field for it.
APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_RUNTIME = re.compile(OF_THE_RUNTIME, re.DOTALL)


def judge_context(context: Mapping[str, Any], where: str, seen: Observations) -> None:
    """Refuse a security context, of a pod or a container, that lets go of what confines it."""
    for name in PROFILES:
        profile = context.get(name)
        if isinstance(profile, dict) and profile.get("type") == UNCONFINED:
            seen.refuse("ISOLATION_BROKEN", where, f"Its {name} is {UNCONFINED}.", expected="another, or none")
    labels = context.get("seLinuxOptions")
    if isinstance(labels, dict) and (labels.get("type", "") not in SELINUX or labels.get("user") or labels.get("role")):
        seen.refuse(
            "ISOLATION_BROKEN", where, "Its kind of SELinux is none of a container's.",
            expected="seLinuxOptions of the baseline of the Pod Security Standards", found=shown(labels, 120),
        )  # fmt: skip
    for item in shapes.objects(context.get("sysctls")) or []:
        if item.get("name") not in SYSCTLS:
            seen.refuse("ISOLATION_BROKEN", where, f"It sets {shown(item.get('name'))}, which is the node's.")


def judge_ports(container: Mapping[str, Any], where: str, seen: Observations) -> None:
    """Refuse a container that takes a port of the node."""
    for port in shapes.objects(container.get("ports")) or []:
        if port.get("hostPort"):
            seen.refuse("ISOLATION_BROKEN", where, f"It takes the node's port {shown(port['hostPort'])}.")


def obeyed_annotations(body: Any, old: Any) -> list[str]:
    """Return the names of annotations that a node's runtime obeys, and that an update did not find there."""
    there, before = _annotations(body), _annotations(old)
    return [name for name, value in there.items() if _obeyed(name, value) and before.get(name) != value]


def _annotations(body: Any) -> dict[str, Any]:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _obeyed(name: str, value: Any) -> bool:
    return _RUNTIME.fullmatch(name) is not None or (name.startswith(APPARMOR) and value == "unconfined")
