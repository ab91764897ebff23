"""What a pod has beside the task: other containers, images, volumes, mounts, and what reaches out of it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any, Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import isolation, mounts, pod_helpers, shapes
from sealflow_kfp.admission.pod import MAX_SOURCES
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.kyverno import program_mounts
from sealflow_kfp.kyverno.expressions import (
    Rule,
    all_of,
    any_of,
    begins,
    fields,
    matches,
    off,
    option_is,
    options,
    text,
    texts,
)

#: Most containers, volumes and mounts of a pod. Kubernetes itself has no bound but the size of the object.
_MOST: Final = 200
_DIGEST: Final = r"[^\s@]+@sha256:[0-9a-f]{64}"
#: A path that says where it leads: no detours, no empty parts but a last one.
PLAIN: Final = r"/|(?:/(?:[^/.][^/]*|\.[^/.][^/]*|\.\.[^/]+))+/?"
_READ_ONLY: Final = "has(m.readOnly) && m.readOnly == true"
_PLAIN_MOUNT: Final = ("mountPath", "name", "readOnly")
_MODE: Final = "has({0}.defaultMode) && {0}.defaultMode != 420"


def sizes() -> Iterator[Rule]:
    """Yield the rule that comes first: others compare parts of a pod with each other, and somebody pays for it."""
    yield Rule(
        all_of(
            [
                f"variables.everything.size() <= {_MOST}",
                f"variables.volumes.size() <= {_MOST}",
                f"""variables.everything.all(c, (!has(c.volumeMounts) || c.volumeMounts.size() <= {_MOST})
                    && (!has(c.command) || c.command.size() <= {_MOST}))""",
                f"""variables.volumes.all(v, !has(v.projected) || !has(v.projected.sources)
                    || v.projected.sources.size() <= {MAX_SOURCES})""",
            ]
        ),
        f"POD_REFUSED: the pod has more than {_MOST} containers or volumes, or as many mounts or words in a command.",
        "all",
    )


def rules(settings: Settings) -> Iterator[Rule]:
    """Yield the rules on everything but the task's own command."""
    yield Rule(
        "variables.visitors.size() == 0",
        "ISOLATION_BROKEN: an ephemeral container sees what the task sees. Look at its log instead.",
    )
    same = """{0}.all(c, oldObject.spec.{1}.exists(o, o.name == c.name && has(o.image) && has(c.image)
        && o.image == c.image))"""
    yield Rule(
        f"""request.operation != "UPDATE" || ({same.format("object.spec.containers", "containers")}
            && (variables.inits.size() == 0 || ({same.format("variables.inits", "initContainers")})))""",
        "POD_REFUSED: another image starts a container a second time in the same pod, where the first run left "
        "something. Make another pod.",
    )
    yield from _containers(settings)
    yield from _images(settings)
    yield from _isolation(settings)
    yield from _volumes(settings)
    yield from _mounts(settings)
    yield from program_mounts.rules(settings, tokens(), any_of(ours(settings).values()))


# --- Containers beside the task ---


def _containers(settings: Settings) -> Iterator[Rule]:
    sidecar = f"has(c.image) && c.image in {texts(settings.kubeflow.sidecar_images)}"
    beside = any_of(_argo(name, word, settings) for name, word in pod_helpers.ARGO_BESIDE.items())
    before = any_of(_argo(name, word, settings) for name, word in pod_helpers.ARGO_BEFORE.items())
    own = texts([guard_command.INIT_CONTAINER, "kfp-launcher"])
    yield Rule(
        all_of(
            [
                f'object.spec.containers.all(c, c.name == "main" || ({sidecar}) || {beside})',
                f"variables.inits.all(c, c.name in {own} || ({sidecar}) || {before})",
                "variables.everything.all(c, variables.everything.filter(d, d.name == c.name).size() == 1)",
            ]
        ),
        "IMAGE_NOT_ALLOWED: a container beside the task is none of Argo's, KFP's or the admin's "
        "(kubeflow.executor_images, kubeflow.sidecar_images).",
    )
    yield Rule(
        f"""variables.inits.all(c, c.name != "kfp-launcher" || (has(c.image)
            && c.image in {texts(settings.kubeflow.launcher_images)} && has(c.command)
            && [c.command + (has(c.args) ? c.args : [])].all(words, {_copies(settings)})))""",
        "IMAGE_NOT_ALLOWED: KFP's launcher is not the admin's (kubeflow.launcher_images), or does something else.",
    )
    yield Rule(
        f"variables.inits.all(c, c.name != {text(guard_command.INIT_CONTAINER)} || ({_guard(settings)}))",
        "GUARD_FORGED: the init container that brings the guard is not the admin's (guard.image).",
    )
    yield Rule(
        f"""!variables.task || {texts([guard_command.INIT_CONTAINER, "kfp-launcher"])}.all(name,
            variables.inits.exists_one(c, c.name == name))""",
        "TASK_UNGUARDED: the init containers that bring guard and launcher are not there. Set the spec patch: "
        "sealflow kfp spec-patch.",
    )
    own_names = [guard_command.INIT_CONTAINER, "kfp-launcher"]
    yield Rule(
        f"""variables.everything.all(c, !(c.name == "main" || c.name in {texts(own_names)} || !({sidecar}))
            || {fields("c", {*shapes.CONTAINER_FIELDS, *settings.kubeflow.fields})})""",
        "POD_REFUSED: a container has a field that neither KFP nor Argo writes, such as a hook or a probe "
        "(kubeflow.fields).",
    )


def _argo(name: str, word: str, settings: Settings) -> str:
    return f"""c.name == {text(name)} && has(c.image) && c.image in {texts(settings.kubeflow.executor_images)}
        && has(c.command) && c.command.size() > 1 && c.command[0] == "argoexec" && c.command[1] == {text(word)}
        && [c.command + (has(c.args) ? c.args : [])].all(words,
            {options("words", "2", "words.size()", shapes.EXECUTOR_OPTIONS)})"""


def _copies(settings: Settings) -> str:
    program = settings.kubeflow.launcher_command
    return all_of(
        [
            begins("words", program),
            options("words", str(len(program)), "words.size()", shapes.COPY_OPTIONS),
            option_is("words", "copy", shapes.LAUNCHER),
            'words.exists(word, word == "--copy" || word.startsWith("--copy="))',
        ]
    )


def _guard(settings: Settings) -> str:
    wanted = settings.guard.mounts.init_container()
    (target,) = wanted["volumeMounts"]
    filled = all_of(
        [f"m.name == {text(target['name'])}", f"m.mountPath == {text(target['mountPath'])}", fields("m", target)]
    )
    # Argo, and what gives pods an identity in a cloud, add mounts to every container.
    names = texts(volume["name"] for volume in settings.guard.mounts.volumes())
    beside = all_of(
        [
            matches("m.mountPath", PLAIN),
            _apart(text(f"{mounts.GUARDED[0]}/")),
            f"!(m.name in {names})",
            f"!({_keys(settings)})",
        ]
    )
    return f"""has(c.image) && c.image in {texts(settings.guard.images)}
        && has(c.command) && c.command == {texts(wanted["command"])}
        && has(c.securityContext) && {_equal("c.securityContext", wanted["securityContext"], "procMount")}
        && (!has(c.securityContext.procMount) || c.securityContext.procMount == "Default")
        && (!has(c.args) || c.args.size() == 0) && (!has(c.envFrom) || c.envFrom.size() == 0)
        && !has(c.workingDir) && !has(c.ports)
        && has(c.volumeMounts) && c.volumeMounts.exists_one(m, {filled})
        && c.volumeMounts.all(m, ({filled}) || ({beside}))"""


def _keys(settings: Settings) -> str:
    """Return the expression that the mount ``m`` is of a volume with the guard's keys."""
    return f"""variables.volumes.exists(v, v.name == m.name && has(v.secret) && has(v.secret.secretName)
        && v.secret.secretName == {text(settings.guard.secret)})"""


def _equal(expression: str, wanted: dict[str, Any], *more: str) -> str:
    """Return the expression that an object is exactly this one; a literal of several types is none in CEL."""
    parts = [fields(expression, {*wanted, *more})]
    for name, value in wanted.items():
        place = f"{expression}.{name}"
        if isinstance(value, dict):
            parts.append(f"has({place}) && {_equal(place, value)}")
        elif isinstance(value, list):
            parts.append(f"has({place}) && {place} == {texts(value)}")
        elif isinstance(value, bool):
            parts.append(f"has({place}) && {place} == {str(value).lower()}")
        elif isinstance(value, int):
            parts.append(f"has({place}) && {place} == {value}")
        else:
            parts.append(f"has({place}) && {place} == {text(value)}")
    return all_of(parts)


# --- Images ---


def _images(settings: Settings) -> Iterator[Rule]:
    rules = settings.images
    if rules.digests == "required":
        yield Rule(
            f"!variables.task || {matches('variables.image', _DIGEST)}",
            "IMAGE_NOT_PINNED: the task's image is named by a tag, which can be moved. Name it by digest.",
        )
    if rules.repositories:
        starts = any_of(f"variables.image.startsWith({text(item)})" for item in rules.repositories)
        yield Rule(
            f"!variables.task || {starts}",
            "IMAGE_NOT_ALLOWED: the image lies in no repository that the settings name (images.repositories).",
        )


# --- What reaches out of the pod ---


def _isolation(settings: Settings) -> Iterator[Rule]:
    yield Rule(
        fields("object.spec", {*shapes.POD_FIELDS, *settings.kubeflow.fields}),
        "POD_REFUSED: the pod has a field that neither KFP nor Argo nor the cluster writes (kubeflow.fields).",
    )
    host = "!has({0}.securityContext) || !has({0}.securityContext.windowsOptions) || " + off(
        "{0}.securityContext.windowsOptions", "hostProcess"
    )
    yield Rule(
        all_of([off("object.spec", *isolation.SHARED), host.format("object.spec")]),
        "ISOLATION_BROKEN: the pod shares the node's network, processes or memory, or its containers their processes.",
        "isolation",
    )
    context = "c.securityContext"
    added = f"{context}.capabilities.add.all(name, name in {texts(sorted(isolation.CAPABILITIES))})"
    yield Rule(
        f"""variables.everything.all(c, !has(c.volumeDevices) && (!has({context}) || ({off(context, "privileged")}
            && (!has({context}.procMount) || {context}.procMount == "Default")
            && (!has({context}.capabilities) || !has({context}.capabilities.add) || {added})
            && ({host.format("c")}))))""",
        "ISOLATION_BROKEN: a container is privileged, adds capabilities, or opens a block device.",
        "isolation",
    )
    yield Rule(
        f"""variables.everything.all(c, !has(c.terminationMessagePath) || c.terminationMessagePath in
            {texts(["", isolation.TERMINATION])})""",
        f"MOUNT_REFUSED: a termination message lies somewhere else than at {isolation.TERMINATION}.",
        "isolation",
    )
    yield Rule(
        f"variables.volumes.all(v, {all_of(f'!has(v.{name})' for name in mounts.OF_THE_NODE)})",
        "ISOLATION_BROKEN: a volume is of the node.",
        "isolation",
    )


# --- Volumes ---


def _volumes(settings: Settings) -> Iterator[Rule]:
    guard = settings.guard
    ours = [f"v.name != {text(volume['name'])} || ({_volume(volume)})" for volume in guard.mounts.volumes()]
    empty = f"!(v.name in {texts(sorted(mounts.EMPTY))}) || {fields('v', ['name', 'emptyDir'])} && has(v.emptyDir)"
    argo = f"""v.name != {text(shapes.ARGO_IMAGE_VOLUME)} || ({fields("v", ["name", "image"])} && has(v.image)
        && has(v.image.reference) && v.image.reference in {texts(settings.kubeflow.executor_images)})"""
    once = "variables.volumes.filter(w, w.name == v.name).size() == 1"
    yield Rule(
        f"variables.volumes.all(v, {all_of([once, *ours, empty, argo])})",
        "GUARD_FORGED: a volume of the guard's, KFP's or Argo's is not what they make, or there twice.",
        "isolation",
    )
    name = text(guard.secret)
    elsewhere = f"""v.all(k, k == "name" || ((!has(v[k].secretName) || v[k].secretName != {name})
            && (!has(v[k].secretRef) || !has(v[k].secretRef.name) || v[k].secretRef.name != {name})
            && (!has(v[k].nodePublishSecretRef) || !has(v[k].nodePublishSecretRef.name)
                || v[k].nodePublishSecretRef.name != {name})))
        && (!has(v.projected) || !has(v.projected.sources) || v.projected.sources.all(s, !has(s.secret)
            || !has(s.secret.name) || s.secret.name != {name}))"""
    yield Rule(
        f"""variables.volumes.all(v, (variables.exemption == 0 && has(v.secret) && ({_secret(settings)}))
                || ({elsewhere}))
            && variables.everything.all(c, (!has(c.env) || c.env.all(e, !has(e.valueFrom)
                    || !has(e.valueFrom.secretKeyRef) || !has(e.valueFrom.secretKeyRef.name)
                    || e.valueFrom.secretKeyRef.name != {name}))
                && (!has(c.envFrom) || c.envFrom.all(e, !has(e.secretRef) || !has(e.secretRef.name)
                    || e.secretRef.name != {name})))""",
        "MOUNT_REFUSED: the secret with the guard's keys stands elsewhere than where the guard reads it.",
        "all",
    )


def _volume(wanted: dict[str, Any]) -> str:
    """Return the expression that the volume ``v`` is one of ours; what the API server fills in may be there."""
    (source,) = [name for name in wanted if name != "name"]
    place, body = f"v.{source}", wanted[source]
    known = {*body, "defaultMode"} if source != "emptyDir" else set(body)
    values = [
        f"has({place}.{name}) && {place}.{name} == {str(value).lower() if isinstance(value, bool) else text(value)}"
        for name, value in body.items()
    ]
    default = [] if source == "emptyDir" else [f"!({_MODE.format(place)})"]
    return all_of([f"has({place})", fields("v", wanted), fields(place, known), *values, *default])


def _secret(settings: Settings) -> str:
    return _whole("secret", "secretName", settings.guard.secret)


def _whole(kind: str, key: str, name: str) -> str:
    """Return the expression that the volume ``v`` is a whole secret or config map, which has to be there."""
    place = f"v.{kind}"
    return all_of(
        [
            fields("v", ["name", kind]),
            f"has({place}) && has({place}.{key}) && {place}.{key} == {text(name)}",
            fields(place, [key, "defaultMode", "optional"]),
            off(place, "optional"),
        ]
    )


# --- Mounts ---


def ours(settings: Settings) -> dict[str, str]:
    """Return for each place of the guard's the expression that the mount ``m`` there is the admin's."""
    whole = fields("m", ["name", "mountPath", "readOnly", "recursiveReadOnly"])
    policy = _whole("configMap", "name", settings.guard.policy_config_map)
    wanted = {
        guard_command.GUARD_DIRECTORY: f"m.name == {text(guard_command.GUARD_VOLUME)} && {_READ_ONLY}",
        guard_command.SECRET_MOUNT: f"variables.volumes.exists_one(v, v.name == m.name && ({_secret(settings)}))",
        guard_command.ADMIN_MOUNT: f"variables.volumes.exists_one(v, v.name == m.name && ({policy}))",
    }
    return {path: f"m.mountPath == {text(path)} && {whole} && ({rule})" for path, rule in wanted.items()}


def _mounts(settings: Settings) -> Iterator[Rule]:
    guard = settings.guard
    mine, wanted = text(guard_command.GUARD_VOLUME), ours(settings)
    each = [
        f"variables.mounts.filter(m, m.mountPath == {text(path)}).size() == 1 && variables.mounts.exists(m, {rule})"
        for path, rule in wanted.items()
    ]
    there = f"variables.volumes.exists_one(v, v.name == {mine})"
    yield Rule(
        f"!variables.task || ({all_of([there, *each])})",
        "TASK_UNGUARDED: guard directory, keys or policy are not mounted as the admin says. Set the spec patch: "
        "sealflow kfp spec-patch.",
    )
    yield Rule(
        f"!variables.task || variables.mounts.exists(m, {tokens()})",
        "TASK_UNGUARDED: the token of the service account is not mounted, from which the guard knows its namespace.",
    )
    places = sorted({f"{place}/" for name in mounts.GUARDED for place in spellings(name)})
    yield Rule(
        f"""!variables.task || variables.mounts.all(m, {matches("m.mountPath", PLAIN)}
            && (m.mountPath in {texts(wanted)} || {texts(places)}.all(p, {_apart("p")}))
            && (m.name != {mine} || m.mountPath == {text(guard_command.GUARD_DIRECTORY)}))""",
        "MOUNT_REFUSED: something is mounted over or under guard, keys or policy, or at a path with detours.",
    )
    yield Rule(
        f"!variables.task || variables.mounts.all(m, m.mountPath in {texts(wanted)} || ({all_of(_system())}))",
        "MOUNT_REFUSED: a volume lies where KFP, Argo or the cluster mount theirs.",
    )
    names = texts(volume["name"] for volume in guard.mounts.volumes())
    task = 'c.name == "main" && variables.task'
    sidecar = f"has(c.image) && c.image in {texts(settings.kubeflow.sidecar_images)}"
    # A spec patch mounts into every container of this name what tasks have.
    argo = f"object.spec.containers.exists(d, d.name == c.name) && c.name in {texts(pod_helpers.ARGO_BESIDE)}"
    mirror = any_of(
        f"m.name == {text(name)} && m.mountPath == {text(path)}" for name, path in pod_helpers.MIRRORED.items()
    )
    mirrored = f"{argo} && !({sidecar}) && ({mirror}) && {fields('m', _PLAIN_MOUNT)}"
    patched = f'c.name == "main" && ({any_of(wanted.values())})'
    yield Rule(
        f"""variables.everything.all(c, c.name == {text(guard_command.INIT_CONTAINER)}
            || ({task}) || !has(c.volumeMounts) || c.volumeMounts.all(m, ({patched}) || ({mirrored})
                || (!(m.name in {names})
                && (c.name == "kfp-launcher" || m.name != {text(shapes.LAUNCHER_VOLUME)}) && !({_keys(settings)})
                && (!({sidecar}) || !(m.name in {texts(sorted(mounts.EMPTY))})))))""",
        "GUARD_FORGED: something else than a guarded task mounts a volume of the guard's or the launcher's.",
    )


def _system() -> Iterator[str]:
    for path, volume in mounts.SYSTEM.items():
        own = [f"{path}/", path]
        exact = f"m.mountPath in {texts(own)} && m.name == {text(volume)} && {fields('m', _PLAIN_MOUNT)}"
        yield any_of([exact, _apart_from(spellings(path))])
    yield any_of([tokens(), _apart_from(spellings(mounts.TOKEN))])
    yield _apart_from(["/oci"])


def tokens() -> str:
    """Return the expression that the mount ``m`` is what the cluster adds for the account, and nothing besides."""
    one = 's.size() == 1 && s.all(kind, kind in ["serviceAccountToken", "configMap", "downwardAPI"])'
    certificates = any_of(
        f"s.configMap.name == {text(name)} && s.configMap.items.all(item, item.path == {text(path)})"
        for name, path in mounts.CERTIFICATES
    )
    source = f"""{one}
        && (!has(s.serviceAccountToken) || s.serviceAccountToken.path == "token")
        && (!has(s.configMap) || (has(s.configMap.name) && has(s.configMap.items) && s.configMap.items.size() == 1
            && ({certificates})))
        && (!has(s.downwardAPI) || (has(s.downwardAPI.items) && s.downwardAPI.items.size() == 1
            && s.downwardAPI.items.all(item, item.path == "namespace" && has(item.fieldRef)
                && item.fieldRef.fieldPath == "metadata.namespace")))"""
    return f"""m.mountPath == {text(mounts.TOKENS)} && {fields("m", [*_PLAIN_MOUNT, "recursiveReadOnly"])}
        && variables.volumes.exists_one(v, v.name == m.name && {fields("v", ["name", "projected"])} && has(v.projected)
            && has(v.projected.sources) && v.projected.sources.size() > 0 && v.projected.sources.all(s, {source}))"""


def spellings(path: str) -> list[str]:
    """Return a path, and its other name where ``/run`` is a link to ``/var/run``."""
    path = posixpath.normpath(path)
    return [path, path.removeprefix("/var")] if path.startswith("/var/run") else [path]


def _apart_from(places: Iterable[str]) -> str:
    return all_of(_apart(text(f"{place}/")) for place in places)


def _apart(place: str) -> str:
    """Return the expression that the mount ``m`` lies neither in a place nor over it; places end with a slash."""
    path = '(m.mountPath.endsWith("/") ? m.mountPath : m.mountPath + "/")'
    return f"!{path}.startsWith({place}) && !{place}.startsWith({path})"
