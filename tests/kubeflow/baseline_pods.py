"""Pods whose containers let go of what confines them, by a field or by an annotation."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from tests.kubeflow.program_pods import container_of

_CONTEXTS: dict[str, dict[str, Any]] = {
    "no profile for system calls": {"seccompProfile": {"type": "Unconfined"}},
    "no profile for files": {"appArmorProfile": {"type": "Unconfined"}},
    "a privileged kind of SELinux": {"seLinuxOptions": {"type": "spc_t"}},
    "another user of SELinux": {"seLinuxOptions": {"user": "system_u"}},
    "another role of SELinux": {"seLinuxOptions": {"type": "container_t", "role": "system_r"}},
    "a process of the node": {"windowsOptions": {"hostProcess": True}},
}
_ANNOTATIONS = {
    "devices by CDI": {"cdi.k8s.io/mine": "vendor.example/hook=all"},
    "users of the node": {"io.kubernetes.cri-o.userns-mode": "host"},
    "a profile of CRI-O": {"seccomp-profile.kubernetes.cri-o.io/main": "unconfined"},
    "a quota of CRI-O": {"cpu-quota.crio.io": "disable"},
    "mounts by a plugin": {"mounts.nri.io/container.main": "- source: /"},
    "another hypervisor": {"io.katacontainers.config.hypervisor.path": "/evil"},
    "files of a sandbox": {"dev.gvisor.spec.mount.x.source": "/"},
    "a traced call": {"io.containers.trace-syscall": "of:/etc"},
    "no profile by its old name": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"},
    "a line break in the name": {"cdi.k8s.io/a\nb": "x"},
}
_HARMLESS = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "container.apparmor.security.beta.kubernetes.io/main": "runtime/default",
    "sidecar.istio.io/inject": "false",
    "kubectl.kubernetes.io/default-container": "main",
}


def good_confined(good: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield pods that have to be taken, made of others."""
    pod = copy.deepcopy(good["a task under guard"])
    pod["metadata"]["annotations"].update(_HARMLESS)
    labels = {"type": "container_t", "level": "s0:c1,c2"}
    pod["spec"]["securityContext"].update(
        seLinuxOptions=labels, sysctls=[{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]
    )
    main = container_of(pod, "main")
    main["securityContext"].update(
        seLinuxOptions=labels, appArmorProfile={"type": "RuntimeDefault"}, seccompProfile={"type": "RuntimeDefault"}
    )
    main["ports"] = [{"containerPort": 8080, "protocol": "TCP"}]
    yield "a task whose confinement is written out", pod


def hostile_confined(good: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield pods by what is wrong with them, made of good ones."""
    for what, context in _CONTEXTS.items():
        for name in ("main", "wait", "init"):
            pod = copy.deepcopy(good["a task under guard"])
            container_of(pod, name).setdefault("securityContext", {}).update(context)
            yield f"{what} for {name}", pod
        pod = copy.deepcopy(good["a task under guard"])
        pod["spec"]["securityContext"].update(context)
        yield f"{what} for all of them", pod
    for base in ("a task under guard", "the driver of a task"):
        for what, brought in _ANNOTATIONS.items():
            pod = copy.deepcopy(good[base])
            pod["metadata"]["annotations"].update(brought)
            yield f"{base}: {what}", pod
    pod = copy.deepcopy(good["a task under guard"])
    pod["spec"]["securityContext"]["sysctls"] = [{"name": "kernel.msgmax", "value": "1"}]
    yield "a kernel parameter of the node", pod
    pod = copy.deepcopy(good["a task under guard"])
    container_of(pod, "main")["ports"] = [{"containerPort": 8080, "hostPort": 8080}]
    yield "a port of the node", pod
