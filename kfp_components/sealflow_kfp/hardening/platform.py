"""The platform part of a pipeline: which secrets and config maps a cluster mounts into which task.

Field names are those of ``kubernetes_executor_config.proto`` (kfp-kubernetes) in JSON.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from sealflow.actions.context import MOUNT
from sealflow.findings import printable
from sealflow_kfp.guard_command import ADMIN_MOUNT, GUARD_DIRECTORY
from sealflow_kfp.guard_directory import ADMITTED
from sealflow_kfp.hardening.reading import PipelineError
from sealflow_kfp.hardening.structure import mapping, members, part, shown

#: Nothing of an author's may be mounted there: settings, policy, the guard directory, what tells a pod its namespace,
#: and the folders in which the launcher shows a task its artifacts, which the wrapper takes for the task's own.
_OURS: Final = (
    MOUNT,
    ADMIN_MOUNT,
    posixpath.dirname(GUARD_DIRECTORY),
    "/var/run/secrets/kubernetes.io",
    "/gcs",
    "/minio",
    "/oci",
    "/s3",
)
_PREFIX: Final = "SEALFLOW_"
#: What chooses programs, libraries, certificates, or places for private copies. PYTHON… is not heard behind -I.
_RISKY = re.compile(
    r"PATH|HOME|TMP|TEMP|TMPDIR|GCONV_PATH|LD_.*|OPENSSL_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|XDG_.*"
    r"|AWS_CONFIG_FILE|AWS_SHARED_CREDENTIALS_FILE|AWS_CA_BUNDLE|AWS_ENDPOINT_URL.*|(?:HTTPS?|ALL)_PROXY"
)
#: Where images keep programs and libraries, and where private copies are made.
_PROGRAMS: Final = ("/bin", "/lib", "/lib64", "/opt", "/proc", "/sbin", "/tmp", "/usr")  # noqa: S108
#: Those among them that the guard directory uses as well: it brings programs and libraries of its own.
_USED: Final = ("/proc", "/tmp")  # noqa: S108
_PLATFORM: Final = frozenset({"deploymentSpec", "pipelineConfig", "platform", "config"})


def check_platforms(platform: dict[str, Any], labels: Collection[str]) -> None:
    """Refuse members of a platform that are not known, and executors that the pipeline does not have.

    Raises:
        PipelineError: Names the member.
    """
    for name, one in mapping(platform.get("platforms"), "platforms").items():
        known = members(one, f"the platform {shown(name)}", _PLATFORM)
        deployment = members(known.get("deploymentSpec"), f"the platform {shown(name)}", frozenset({"executors"}))
        for label in mapping(deployment.get("executors"), f"the executors of the platform {shown(name)}"):
            if label not in labels:
                raise PipelineError(f"The platform speaks of the executor {shown(label)}, which is not there.")


def executors(platform: dict[str, Any]) -> dict[str, Any]:
    """Return the executors of the platform Kubernetes, by label; the parts on the way are made where they lack."""
    return part(platform, "platforms", "kubernetes", "deploymentSpec", "executors")


def has_workspace(platform: dict[str, Any]) -> bool:
    """Tell whether tasks share a volume."""
    kubernetes = mapping(mapping(platform.get("platforms"), "platforms").get("kubernetes"), "kubernetes")
    return bool(mapping(kubernetes.get("pipelineConfig"), "pipelineConfig").get("workspace"))


def producers(platform: dict[str, Any]) -> set[str]:
    """Return the names of tasks that volumes and secrets are taken from."""
    found: set[str] = set()
    waiting: list[Any] = [platform]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found |= {str(value[name]) for name in ("producerTask", "producer_task") if name in value}
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return found


def others(platform: dict[str, Any]) -> Iterator[Any]:
    """Yield the settings that platforms have beside those of executors on Kubernetes."""
    for name, one in mapping(platform.get("platforms"), "platforms").items():
        settings = mapping(one, f"the platform {shown(name)}")
        yield {key: value for key, value in settings.items() if name != "kubernetes" or key != "deploymentSpec"}


def mount(config: dict[str, Any], secret: str, config_map: str) -> None:
    """Add settings and keys, and the admin's file, to the volumes of an executor.

    Args:
        config: The executor's ``KubernetesExecutorConfig``; changed in place.
        secret: Name of the secret with settings and keys; empty for none.
        config_map: Name of the config map with the admin's file; empty for none.
    """
    if secret:
        _add(config, "secretAsVolume", "secretName", secret, MOUNT)
    if config_map:
        _add(config, "configMapAsVolume", "configMapName", config_map, ADMIN_MOUNT)


def _add(config: dict[str, Any], kind: str, key: str, name: str, path: str) -> None:
    # As kfp-kubernetes 2.16 and 2.17 write it.
    volume = {
        "mountPath": path,
        "optional": False,
        key: name,
        f"{key}Parameter": {"runtimeValue": {"constant": name}},
    }
    listed = config.get(kind) or []
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise PipelineError(f"{kind} must be a list of objects.")
    others = [item for item in listed if item.get("mountPath") != path]
    # Where it stood: hardening again changes no order.
    place = next((index for index, item in enumerate(listed) if item.get("mountPath") == path), len(others))
    others.insert(place, volume)
    config[kind] = others


def check_volumes(config: Any, where: str, secret: str, config_map: str, apart: bool = False) -> list[str]:
    """Refuse volumes where settings, keys and policy are looked for, unless they are those that are mounted there.

    Args:
        config: The executor's ``KubernetesExecutorConfig``.
        where: The executor, for messages.
        secret: Name of the secret with settings and keys; empty for none.
        config_map: Name of the config map with the admin's file; empty for none.
        apart: The guard comes from the guard directory, and uses little of the image.

    Returns:
        The paths of volumes that lie over programs, libraries or artifacts.

    Raises:
        PipelineError: Names the path.
    """
    risky = []
    for kind, item, path in _volumes(config):
        if not any(_overlap(path, mine) for mine in _OURS):
            if any(_overlap(path, program) for program in (_USED if apart else _PROGRAMS)):
                risky.append(path)
            continue
        expected = {("secretAsVolume", MOUNT): secret, ("configMapAsVolume", ADMIN_MOUNT): config_map}.get((kind, path))
        name = item.get("secretName") or item.get("configMapName")
        constant = {"runtimeValue": {"constant": name}}
        parameter = item.get("secretNameParameter", item.get("configMapNameParameter", constant))
        if expected and name == expected and parameter == constant:
            continue
        raise PipelineError(
            f"{where} mounts {shown(str(name or 'a volume'))} at {printable(path, 120)}.",
            next_step="Keys, policy and artifacts lie there, put there by the hardener or the cluster and nobody else.",
        )
    return sorted(set(risky))


def _volumes(value: Any, kind: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
    waiting: list[tuple[str, Any]] = [(kind, value)]
    while waiting:
        kind, value = waiting.pop()
        if isinstance(value, dict):
            for name in ("mountPath", "mount_path"):
                if name in value:
                    yield kind, value, value[name] if isinstance(value[name], str) else "/"
            waiting += [(name, item) for name, item in value.items()]
        elif isinstance(value, list):
            waiting += [(kind, item) for item in value]


def _overlap(path: str, mine: str) -> bool:
    # /var/run is a link to /run in most images.
    one, other = (f"{_settled(item)}/" for item in (path, mine))
    return one.startswith(other) or other.startswith(one)


def _settled(path: str) -> str:
    path = posixpath.normpath("/" + path.lstrip("/"))
    if path == "/run" or path.startswith("/run/"):
        path = "/var" + path
    return path.rstrip("/")


def check_variables(container: dict[str, Any], config: Any, where: str, apart: bool = False) -> list[str]:
    """Refuse environment variables that are sealflow's settings; return those that change which programs run.

    Args:
        container: The executor's container.
        config: Its ``KubernetesExecutorConfig``.
        where: The executor, for messages.
        apart: The guard comes from the guard directory, which hears few variables.

    Raises:
        PipelineError: Names the variable.
    """
    risky = []
    for name in sorted(set(_variables(container, config))):
        if name.upper().startswith(_PREFIX):
            raise PipelineError(
                f"{where} sets the environment variable {shown(name)}.",
                next_step="Settings reach a guarded task by the mounted secret alone.",
            )
        if _RISKY.fullmatch(name.upper()) and not (apart and name not in ADMITTED):
            risky.append(name)
    return risky


def _variables(container: dict[str, Any], config: Any) -> Iterator[str]:
    for item in container.get("env") or []:
        yield str(mapping(item, "an environment variable").get("name"))
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (str(value[name]) for name in ("envVar", "env_var") if name in value)
            if "fieldPath" in value or "field_path" in value:
                yield str(value.get("name"))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
