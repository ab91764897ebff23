"""Volumes and mounts: the admin's are exact, and nothing of an author's lies over or under them."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.admission.shapes import shown

#: Volumes that reach the node, and so the pods of others.
OF_THE_NODE: Final = ("flexVolume", "gitRepo", "hostPath", "local", "photonPersistentDisk")
#: What the API server fills in.
_DEFAULT_MODE: Final = 420

#: Where nothing of an author's may be mounted: the guard, its settings, keys and policy.
GUARDED: Final = (
    posixpath.dirname(guard_command.GUARD_DIRECTORY),
    guard_command.SECRET_MOUNT,
    guard_command.ADMIN_MOUNT,
)
#: Where KFP and Argo mount volumes of their own, by mount and volume. Elsewhere they would be somebody else's.
SYSTEM: Final = {
    shapes.LAUNCHER_MOUNT: shapes.LAUNCHER_VOLUME,
    shapes.ARGO_MOUNT: shapes.ARGO_VOLUME,
    "/argo-bin": shapes.ARGO_IMAGE_VOLUME,
    "/gcs": "gcs-scratch",
    "/minio": "minio-scratch",
    "/s3": "s3-scratch",
}
EMPTY: Final = frozenset(
    {
        shapes.LAUNCHER_VOLUME, shapes.ARGO_VOLUME, "tmp-dir-argo", "gcs-scratch", "minio-scratch", "s3-scratch",
        "dot-cache-scratch", "dot-config-scratch", "dot-local-scratch",
    }
)  # fmt: skip
# secretKeyRef, secretRef, nodePublishSecretRef, authSecretRef …
_SECRETS: Final = ("secretref", "secretkeyref")
#: Where the cluster puts a pod's token, and where oci:// artifacts lie; the wrapper takes both for what they say.
TOKEN: Final = "/var/run/secrets/kubernetes.io"  # noqa: S105 - a path
TOKENS: Final = f"{TOKEN}/serviceaccount"
_OCI: Final = "/oci"
#: Where clouds put tokens.
IDENTITIES: Final = "/var/run/secrets/"
#: KFP's bundle of certificates, where an installation has one.
CERTIFICATE_MOUNT: Final = "/kfp/certs"
CERTIFICATE_VOLUME: Final = "custom-ca"
#: Config maps of the cluster's own in that volume, and the one file that each brings.
CERTIFICATES: Final = (("kube-root-ca.crt", "ca.crt"), ("openshift-service-ca.crt", "service-ca.crt"))


def settled(path: str) -> str:
    """Return a path of a container without detours; ``/run`` is ``/var/run``, as in most images."""
    path = posixpath.normpath("/" + path.lstrip("/"))
    if path == "/run" or path.startswith("/run/"):
        path = "/var" + path
    return path.rstrip("/")


def overlap(one: str, other: str) -> bool:
    """Tell whether one of two settled paths lies in the other, or is it."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def secret_names(value: Any) -> Iterator[str]:
    """Yield the name of every secret that a part of a pod speaks of, in a volume, a variable or anything else."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for name, item in one.items():
                if name == "secretName" and isinstance(item, str):
                    yield item
                elif (name == "secret" or name.lower().endswith(_SECRETS)) and isinstance(item, dict):
                    yield from (item[key] for key in ("name", "secretName") if isinstance(item.get(key), str))
                if isinstance(item, (dict, list)):
                    waiting.append(item)
        elif isinstance(one, list):
            waiting += one


def _is_secret(volume: Mapping[str, Any], settings: Settings) -> bool:
    source = volume.get("secret")
    if not isinstance(source, dict) or set(volume) != {"name", "secret"}:
        return False
    return _is_whole(source, "secretName", settings.guard.secret)


def _is_policy(volume: Mapping[str, Any], settings: Settings) -> bool:
    source = volume.get("configMap")
    if not isinstance(source, dict) or set(volume) != {"name", "configMap"}:
        return False
    return _is_whole(source, "name", settings.guard.policy_config_map)


def _is_whole(source: Mapping[str, Any], key: str, name: str) -> bool:
    # `items` would put other files under the names that the guard reads; `optional` would start it without any.
    return (
        source.get(key) == name
        and not source.keys() - {key, "defaultMode", "optional"}
        and source.get("optional") in (None, False)
    )


def judge_volumes(volumes: list[dict[str, Any]], where: str, settings: Settings, seen: Observations) -> None:
    """Refuse volumes that reach the node, take our names, or hold our keys under another name than it should be."""
    ours = {volume["name"]: volume for volume in settings.guard.mounts.volumes()}
    counted = Counter(shapes.name_of(volume) for volume in volumes)
    for name in sorted(name for name, times in counted.items() if times > 1):
        seen.refuse("MOUNT_REFUSED", where, f"It has the volume {shown(name)} twice.")
    for volume in volumes:
        name = shapes.name_of(volume)
        for kind in OF_THE_NODE:
            if kind in volume:
                seen.refuse("ISOLATION_BROKEN", where, f"The volume {shown(name)} is of the node ({kind}).")
        expected = ours.get(name)
        if expected is not None:
            if not _same_volume(volume, expected):
                seen.refuse(
                    "GUARD_FORGED", where, f"The volume {shown(name)} is not the admin's.",
                    expected=shown(expected, 120), found=shown(volume, 120), rule="guard",
                )  # fmt: skip
        elif settings.guard.secret in secret_names(volume) and not _is_secret(volume, settings):
            seen.refuse(
                "MOUNT_REFUSED", where, f"The volume {shown(name)} holds the guard's keys.", rule="guard.secret"
            )
        if name in EMPTY and set(volume) != {"name", "emptyDir"}:
            seen.refuse("MOUNT_REFUSED", where, f"The volume {shown(name)} is no empty folder of the pod's own.")
        if name == shapes.ARGO_IMAGE_VOLUME:
            image = volume.get("image")
            reference = image.get("reference") if isinstance(image, dict) else None
            if reference not in settings.kubeflow.executor_images or set(volume) != {"name", "image"}:
                seen.refuse(
                    "IMAGE_NOT_ALLOWED", where, f"The volume {shown(name)} is not Argo's program.",
                    expected="one of kubeflow.executor_images", found=shown(reference, 200),
                )  # fmt: skip


def _same_volume(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    if found == expected:
        return True
    # Without what the API server fills in.
    bare = {
        name: {key: value for key, value in item.items() if (key, value) != ("defaultMode", _DEFAULT_MODE)}
        if isinstance(item, dict)
        else item
        for name, item in found.items()
    }
    return bare == expected


def judge_mounts(
    container: dict[str, Any], volumes: Mapping[str, dict[str, Any]], where: str, settings: Settings, seen: Observations
) -> None:
    """Judge the mounts of a task's container: the admin's are all there, and nothing lies over or under them."""
    mounts = shapes.objects(container.get("volumeMounts"))
    if mounts is None:
        seen.refuse("MOUNT_REFUSED", where, "Its mounts are no list of objects.")
        return
    wanted = {guard_command.GUARD_DIRECTORY: 0, guard_command.SECRET_MOUNT: 0, guard_command.ADMIN_MOUNT: 0}
    launched = False
    for mount in mounts:
        path = mount.get("mountPath")
        if not isinstance(path, str):
            seen.refuse("MOUNT_REFUSED", where, "It has a mount without a path.")
            continue
        if path in wanted and is_ours(mount, volumes.get(shapes.name_of(mount), {}), settings):
            wanted[path] += 1
        elif _judge_other(mount, settled(path), volumes, where, seen) and (
            brings_files(mount, volumes) and not may_lie(path, settings, launched=launched)
        ):
            seen.refuse(
                "MOUNT_REFUSED", where, f"It mounts files, {shown(mount.get('name'))}, at {shown(path)}: over the "
                "guard if its image has a link there, or over the guard's private copies.",
                expected="a path of one part, such as /data, listed before KFP's own", rule="images.mounts",
            )  # fmt: skip
        launched = launched or path == shapes.LAUNCHER_MOUNT
    for path, times in wanted.items():
        if times != 1:
            seen.refuse(
                "TASK_UNGUARDED", where, f"The admin's volume is mounted {times} times at {path}.",
                expected="once, as the admission server does it", rule="guard",
            )  # fmt: skip
    if not any(is_tokens(mount, volumes) for mount in mounts):
        seen.refuse(
            "TASK_UNGUARDED", where, "The token of its service account is not mounted, nor the name of its namespace.",
            expected=f"the cluster's own volume at {TOKENS}", found="what the image has there",
        )  # fmt: skip


def is_ours(mount: Mapping[str, Any], volume: Mapping[str, Any], settings: Settings) -> bool:
    """Tell whether a mount is one of the admin's, as a guarded task has it."""
    if mount.keys() - {"name", "mountPath", "readOnly", "recursiveReadOnly"}:
        return False
    path = mount.get("mountPath")
    if path == guard_command.GUARD_DIRECTORY:
        return mount.get("name") == guard_command.GUARD_VOLUME and mount.get("readOnly") is True
    # Hardened pipelines bring these two themselves. Kubernetes mounts secrets and config maps read-only in any case.
    if path == guard_command.SECRET_MOUNT:
        return _is_secret(volume, settings)
    return path == guard_command.ADMIN_MOUNT and _is_policy(volume, settings)


def _judge_other(
    mount: Mapping[str, Any], path: str, volumes: Mapping[str, dict[str, Any]], where: str, seen: Observations
) -> bool:
    """Judge a mount that is none of ours by its path, and tell whether it may be there."""
    name = shapes.name_of(mount)
    rule = "nothing lies over or under the guard, its keys, its policy and the artifacts"
    if name == guard_command.GUARD_VOLUME:
        seen.refuse(
            "GUARD_FORGED", where, f"It mounts the guard's volume at {shown(mount.get('mountPath'))}.", rule=rule
        )
    for place in GUARDED:
        if overlap(path, place):
            seen.refuse(
                "MOUNT_REFUSED", where, f"It mounts {shown(name)} at {shown(mount.get('mountPath'))}.",
                expected=f"nothing of its own at {place}", rule=rule,
            )  # fmt: skip
            return False
    if is_tokens(mount, volumes):
        return True
    for place, volume in (*SYSTEM.items(), (TOKEN, None), (_OCI, None)):
        if overlap(path, settled(place)) and (
            path != settled(place) or name != volume or mount.keys() - {"mountPath", "name", "readOnly"}
        ):
            seen.refuse(
                "MOUNT_REFUSED", where, f"It mounts {shown(name)} at {shown(mount.get('mountPath'))}.",
                expected=f"at most {volume or 'what the cluster mounts'} at {place}", rule=rule,
            )  # fmt: skip
            return False
    return True


def may_lie(path: str, settings: Settings, *, launched: bool = False) -> bool:
    """Tell whether a volume with files of an author's may be mounted at a path.

    A runtime mounts what has fewer parts in its path first, and follows the links of the image: what has as many as the
    guard's own, or more, would lie over the guard where a link leads there. Of those with one part, as KFP's launcher
    has, it mounts first what stands first.

    Args:
        path: Where.
        settings: The admin's, who may know that no image has such links.
        launched: Whether the launcher's own mount stands before it.
    """
    path = settled(path)
    for item in settings.images.mounts:
        if path == item.rstrip("/") or (item.endswith("/") and path.startswith(item)):
            return True
    # Another pod could write the guard's private copies there.
    return path.count("/") == 1 and path != "/tmp" and not launched  # noqa: S108 - a path in the task


def brings_files(mount: Mapping[str, Any], volumes: Mapping[str, dict[str, Any]]) -> bool:
    """Tell whether a mount brings files that an author could have made before the guard starts."""
    name, path = shapes.name_of(mount), shapes.name_of(mount, "mountPath")
    volume = volumes.get(name, {})
    if set(volume) == {"name", "emptyDir"} or SYSTEM.get(path) == name or is_tokens(mount, volumes):
        return False
    if is_identity(volume):
        return not settled(path).startswith(IDENTITIES)
    certificates = (path, name) == (CERTIFICATE_MOUNT, CERTIFICATE_VOLUME) and _one_file(volume)
    return not certificates or bool(mount.get("subPath") or mount.get("subPathExpr"))


def _one_file(volume: Mapping[str, Any]) -> bool:
    """Tell whether a volume is the bundle of certificates that KFP mounts, one file of one name."""
    source = volume.get("configMap") or volume.get("secret")
    items = shapes.objects(source.get("items")) if isinstance(source, dict) else None
    return [item.get("path") for item in items or []] == ["ca.crt"]


def is_identity(volume: Mapping[str, Any]) -> bool:
    """Tell whether a volume holds tokens of the pod's account alone, as clouds add one to every container."""
    projected = volume.get("projected")
    sources = shapes.objects(projected.get("sources")) if isinstance(projected, dict) else None
    return bool(sources) and all(source.keys() == {"serviceAccountToken"} for source in sources or ())


def is_tokens(mount: Mapping[str, Any], volumes: Mapping[str, dict[str, Any]]) -> bool:
    """Tell whether a mount is what the cluster adds to a container for the pod's service account."""
    at = mount.get("mountPath") == TOKENS and not mount.keys() - {"mountPath", "name", "readOnly", "recursiveReadOnly"}
    return at and is_token(volumes.get(shapes.name_of(mount), {}))


def is_token(volume: Mapping[str, Any]) -> bool:
    """Tell whether a volume is what the cluster adds for a pod's service account, and nothing besides.

    Tasks learn from it which namespace they run in, so an author's file under that name would speak for another one.
    """
    projected = volume.get("projected")
    sources = shapes.objects(projected.get("sources")) if isinstance(projected, dict) else None
    return set(volume) == {"name", "projected"} and bool(sources) and all(map(_is_token_source, sources or ()))


def _is_token_source(source: Mapping[str, Any]) -> bool:
    [kind, body] = next(iter(source.items())) if len(source) == 1 else ("", None)
    if not isinstance(body, dict):
        return False
    if kind == "serviceAccountToken":
        return body.get("path") == "token"
    paths = [item.get("path") for item in shapes.objects(body.get("items")) or []]
    if kind == "configMap":
        return bool(paths) and (body.get("name"), *paths) in CERTIFICATES
    fields = [item.get("fieldRef") for item in shapes.objects(body.get("items")) or []]
    named = [field.get("fieldPath") for field in fields if isinstance(field, dict)]
    return kind == "downwardAPI" and paths == ["namespace"] and named == ["metadata.namespace"]
