"""How a command is put under the guard: the one place that says so, for the hardener and for all that a cluster does.

Two ways lead to the same wrapper (:mod:`sealflow_kfp.exec`):

- **in the image**: ``python3`` and sealflow are installed in the task's own image, which is then believed to have them;
- **from the guard directory**: an init container copies an interpreter, its libraries and sealflow into a volume of the
  pod, mounted read-only at :data:`GUARD_DIRECTORY`. The image needs nothing, and chooses nothing.

Nothing of kfp is imported here, nor anything heavy: an admission server asks these functions for every pod.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sealflow.actions.context import MOUNT
from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.policy.channel import MACHINE_FILE

#: The module that guards one command.
MODULE: Final = "sealflow_kfp.exec"
_EXECUTOR_INPUT: Final = ("--executor-input", "{{$}}", "--")
#: What stands before a command in an image with sealflow. Policy, keys and mode are never among it. Isolated (-I),
#: since Python would load modules from the working folder and from what PYTHON… variables name before it loads ours.
IN_IMAGE: Final = ("python3", "-I", "-m", MODULE, *_EXECUTOR_INPUT)

#: Where the guard directory is mounted in every guarded container.
GUARD_DIRECTORY: Final = "/sealflow/guard"
_GUARD_FILES: Final = f"{GUARD_DIRECTORY}/"
#: Its only entry: a static program, so that no variable (LD_…, PYTHON…) and no file of the image (``ld.so.preload``)
#: can make it load anything. It starts the directory's own interpreter with its own libraries, by absolute paths.
GUARD_PROGRAM: Final = f"{GUARD_DIRECTORY}/guard"
#: What stands before a command that is guarded from the guard directory.
IN_DIRECTORY: Final = (GUARD_PROGRAM, *_EXECUTOR_INPUT)

#: Where the admin's file is mounted that names the policy and its keys.
ADMIN_MOUNT: Final = posixpath.dirname(MACHINE_FILE)
#: Where settings and keys are mounted.
SECRET_MOUNT: Final = MOUNT

INIT_CONTAINER: Final = "sealflow-guard"
GUARD_VOLUME: Final = "sealflow-guard"
SECRET_VOLUME: Final = "sealflow-secret"  # noqa: S105 - the name of a volume
POLICY_VOLUME: Final = "sealflow-policy"
#: Where the init container has the volume: its image keeps the directory itself at :data:`GUARD_DIRECTORY`.
_TARGET: Final = "/sealflow/target"

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
# RFC 1123 subdomain, as Kubernetes names secrets and config maps.
_LABEL: Final = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def is_guarded(argv: Sequence[str], prefixes: Iterable[tuple[str, ...]] = (IN_IMAGE, IN_DIRECTORY)) -> list[str] | None:
    """Return the command that runs under the guard, or ``None`` where nothing guards it.

    Compared word for word: what only looks like the guard is none.

    Args:
        argv: Command and arguments, as they are run; ``{{$}}`` still stands there, for KFP's launcher to fill in.
        prefixes: Which ways of guarding count; where the image is not trusted, :data:`IN_DIRECTORY` alone.
    """
    words = tuple(argv)
    for prefix in prefixes:
        if len(words) > len(prefix) and words[: len(prefix)] == prefix:
            return list(words[len(prefix) :])
    return None


def looks_guarded(argv: Sequence[str]) -> bool:
    """Tell whether a command starts a guard, ours or another, in whatever way."""
    first = argv[:5]
    return MODULE in first or any(word.startswith(_GUARD_FILES) for word in first)


def has_digest(image: str) -> bool:
    """Tell whether an image is named by digest, and so can be no other tomorrow."""
    return _DIGEST.fullmatch(image) is not None


def resource_name(name: str | None, what: str) -> str:
    """Return the name of a secret or config map, empty for none.

    Raises:
        UsageError: Kubernetes takes no such name.
    """
    if name is not None and (len(name) > 253 or _NAME.fullmatch(name) is None):
        raise UsageError(f"{printable(name, 80)!r} is no name of a {what}.")
    return name or ""


@dataclass(frozen=True)
class GuardMounts:
    """What a pod needs for the guard directory, in the words of Kubernetes' pod spec.

    Attributes:
        image: The guard image. Whoever makes this judges it; see :func:`has_digest`.
        secret: Name of the secret with settings and keys; empty: none is mounted.
        policy_config_map: Name of the config map with the admin's file; empty: none is mounted.
    """

    image: str
    secret: str = ""
    policy_config_map: str = ""

    def init_container(self) -> dict[str, Any]:
        """Return the container that copies the guard directory into the pod, as any user and without a shell."""
        return {
            "name": INIT_CONTAINER,
            "image": self.image,
            "command": [GUARD_PROGRAM, "--copy-to", _TARGET],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "runAsGroup": 65532,
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [{"name": GUARD_VOLUME, "mountPath": _TARGET}],
        }

    def volumes(self) -> list[dict[str, Any]]:
        """Return the pod's volumes."""
        found: list[dict[str, Any]] = [{"name": GUARD_VOLUME, "emptyDir": {"sizeLimit": "256Mi"}}]
        if self.secret:
            found.append({"name": SECRET_VOLUME, "secret": {"secretName": self.secret, "optional": False}})
        if self.policy_config_map:
            found.append({"name": POLICY_VOLUME, "configMap": {"name": self.policy_config_map, "optional": False}})
        return found

    def volume_mounts(self) -> list[dict[str, Any]]:
        """Return what is mounted into a guarded container, all of it read-only."""
        found = [{"name": GUARD_VOLUME, "mountPath": GUARD_DIRECTORY, "readOnly": True}]
        if self.secret:
            found.append({"name": SECRET_VOLUME, "mountPath": SECRET_MOUNT, "readOnly": True})
        if self.policy_config_map:
            found.append({"name": POLICY_VOLUME, "mountPath": ADMIN_MOUNT, "readOnly": True})
        return found
