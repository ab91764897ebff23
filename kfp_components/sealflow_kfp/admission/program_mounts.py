"""Mounts of KFP's and Argo's own programs, and what else chooses which file is run there.

Such a program is named without a path (``launcher-v2``, ``argoexec``), so a volume at ``/bin`` would be another one
under its name, with the right to say what every task starts. What they have mounted is therefore listed, by container;
whatever is not listed is not theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sealflow_kfp.admission import mounts, shapes
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.admission.shapes import shown

#: Who has a container: Argo's, before and beside the task; KFP's launcher that copies itself; the guard's copy; and
#: what runs as ``main`` without being a task.
BEFORE: Final = "init"
BESIDE: Final = "wait"
LAUNCHER: Final = "kfp-launcher"
GUARD: Final = "sealflow-guard"
DRIVER: Final = "driver"
IMPORTER: Final = "importer"

_ARGO: Final = {shapes.ARGO_MOUNT: shapes.ARGO_VOLUME}
_SCRATCH: Final = {f"/.{name}": f"dot-{name}-scratch" for name in ("cache", "config", "local")}
_MAIN: Final = {**_ARGO, **_SCRATCH, "/argo-bin": shapes.ARGO_IMAGE_VOLUME, "/kfp/certs": "custom-ca"}
#: Places by container, with the volume that may lie there.
PLACES: Final[Mapping[str, Mapping[str, str]]] = {
    BEFORE: _ARGO,
    BESIDE: _ARGO,
    LAUNCHER: {**_ARGO, shapes.LAUNCHER_MOUNT: shapes.LAUNCHER_VOLUME},
    GUARD: _ARGO,
    DRIVER: _MAIN,
    IMPORTER: {**_MAIN, "/kfp-workspace": "kfp-workspace"},
}
#: Argo's containers; they also have the artifact store's keys, a folder for files in passing, and what the task has.
OF_ARGO: Final = (BEFORE, BESIDE)
#: What a mount of theirs may say; a part of a volume in one case alone.
FIELDS: Final = frozenset({"mountPath", "name", "readOnly", "recursiveReadOnly"})
#: Argo's folder for files in passing, of which each container has a part by its number.
PASSING: Final = ("/tmp", "tmp-dir-argo", "[0-9]{1,3}")  # noqa: S108 - a path in Argo's image
#: The artifact store's keys: a secret of any name.
STORE_KEYS: Final = r"/argo/secret/[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
#: Tokens by which a pod is known in a cloud, and nothing else.
IDENTITIES: Final = r"/var/run/secrets(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}){1,4}"
#: What the task has mounted, as Argo's container beside it has it.
MIRRORS: Final = shapes.MIRROR + r"(?:/(?:[^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))+/?"


def places(role: str, settings: Settings) -> tuple[str, ...]:
    """Return the places at which the admin lets a program have any volume; the guard's copy has none."""
    return () if role == GUARD else settings.kubeflow.mounts


class ProgramMounts:
    """Judges what KFP's and Argo's own programs of one pod, or of one template, have mounted.

    Args:
        settings: The admin's.
        seen: Takes what is found.
        volumes: The pod's.
    """

    def __init__(self, settings: Settings, seen: Observations, volumes: list[dict[str, Any]]) -> None:
        self._settings = settings
        self._seen = seen
        # Each volume is looked at once, however many mount it.
        self._by_name = {shapes.name_of(volume): volume for volume in volumes}
        self._tokens = {name for name, volume in self._by_name.items() if mounts.is_token(volume)}
        self._identities = {name for name, volume in self._by_name.items() if _is_identity(volume)}

    def judge(self, container: Mapping[str, Any], role: str, where: str) -> None:
        """Refuse whatever a program has mounted and is not listed, and a folder of its own to start in."""
        if container.get("workingDir"):
            self._seen.refuse(
                "POD_REFUSED", where, "It starts in a folder of somebody's choice.",
                expected="no workingDir", found=shown(container["workingDir"]),
            )  # fmt: skip
        listed = shapes.objects(container.get("volumeMounts"))
        if listed is None:
            self._seen.refuse("MOUNT_REFUSED", where, "Its mounts are no list of objects.")
            return
        for mount in listed:
            if not self._fine(mount, role):
                self._seen.refuse(
                    "MOUNT_REFUSED", where,
                    f"It mounts {shown(mount.get('name'))} at {shown(mount.get('mountPath'))}, where another program "
                    "could lie under its name.",
                    expected="what KFP, Argo and the cluster mount there", rule="kubeflow.mounts",
                )  # fmt: skip

    def _fine(self, mount: Mapping[str, Any], role: str) -> bool:
        path, name = shapes.name_of(mount, "mountPath"), shapes.name_of(mount)
        volume = self._by_name.get(name, {})
        if role in OF_ARGO and (path, name) == PASSING[:2]:
            part = mount.get("subPath", "0")
            return (
                isinstance(part, str) and bool(re.fullmatch(PASSING[2], part)) and mount.keys() <= FIELDS | {"subPath"}
            )
        if role == BESIDE and re.fullmatch(MIRRORS, path):
            # Read to bring outputs away, and never run.
            return True
        if not mount.keys() <= FIELDS:
            return False
        if path == mounts.TOKENS:
            return name in self._tokens or (role in OF_ARGO and volume.keys() == {"name", "secret"})
        if re.fullmatch(IDENTITIES, path):
            return name in self._identities and not mounts.overlap(path, mounts.TOKEN)
        if role in OF_ARGO and re.fullmatch(STORE_KEYS, path):
            return volume.keys() == {"name", "secret"}
        if role in (DRIVER, IMPORTER) and mounts.is_ours(mount, volume, self._settings):
            # A spec patch mounts into every container of this name what tasks have.
            return True
        if role == GUARD and mount in self._settings.guard.mounts.init_container()["volumeMounts"]:
            return True
        return PLACES[role].get(path) == name or path in places(role, self._settings)


def _is_identity(volume: Mapping[str, Any]) -> bool:
    projected = volume.get("projected")
    sources = shapes.objects(projected.get("sources")) if isinstance(projected, dict) else None
    return (
        volume.keys() == {"name", "projected"}
        and bool(sources)
        and all(source.keys() == {"serviceAccountToken"} for source in sources or ())
    )
