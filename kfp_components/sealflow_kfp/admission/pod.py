"""Pods, the last gate: here everything is filled in, and nothing that was said before has to be believed.

Labels and names are whatever an author likes, so every pod of a guarded namespace is judged: it is a task under guard,
a part of KFP that runs no command of an author's, or exempt by a rule of the admin's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any, Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.argo_template import judge_template
from sealflow_kfp.admission.baseline import obeyed_annotations
from sealflow_kfp.admission.implementations import is_own, judge_image
from sealflow_kfp.admission.isolation import (
    judge_container_isolation,
    judge_fields,
    judge_pod_isolation,
    judge_variables,
)
from sealflow_kfp.admission.mounts import SYSTEM, judge_mounts, judge_volumes, secret_names
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.pod_helpers import HelperJudge
from sealflow_kfp.admission.program_mounts import DRIVER, IMPORTER
from sealflow_kfp.admission.review import Review
from sealflow_kfp.admission.settings import Exemption, Settings
from sealflow_kfp.admission.shapes import shown

MAIN: Final = "main"
#: Most containers, and volumes, of a pod; mounts of a container; and parts of one volume.
MAX_PARTS: Final = 1000
MAX_MOUNTS: Final = 200
MAX_SOURCES: Final = 50
_TASK: Final = "task"
_OTHER: Final = "other"
_EXPECTED: Final = "a task of a KFP pipeline under guard, KFP's driver or importer, or a pod that the settings exempt"


def judge_connection(review: Review, settings: Settings, seen: Observations) -> None:
    """Refuse that somebody runs commands in a pod, where a task's keys are mounted."""
    if review.user not in settings.exec_users:
        seen.refuse(
            "ISOLATION_BROKEN", "", "Whoever runs commands in a task's pod reads its keys and changes what it does.",
            expected="one of exec_users", found=shown(review.user, 120), rule="exec_users",
        )  # fmt: skip


def judge_pod(review: Review, settings: Settings, seen: Observations) -> None:
    """Judge a pod that is made, or whose containers are changed."""
    spec = review.body.get("spec") if isinstance(review.body, dict) else None
    if not isinstance(spec, dict):
        seen.refuse("POD_REFUSED", "", "It has no spec.")
        return
    obeyed = obeyed_annotations(review.body, review.old if review.operation == "UPDATE" else None)
    if obeyed and _exemption(review, spec, settings) is None:
        seen.refuse(
            "ISOLATION_BROKEN", "", "The node's runtime obeys its annotations, with devices, hooks or mounts.",
            expected="none of the runtime's", found=shown(", ".join(obeyed), 120), rule="exempt",
        )  # fmt: skip
    old = review.old.get("spec") if review.operation == "UPDATE" and isinstance(review.old, dict) else None
    if isinstance(old, dict):
        kept = (spec.keys() | old.keys()) - shapes.POD_UPDATES
        if all(spec.get(name) == old.get(name) for name in kept):
            return
    exemption = _exemption(review, spec, settings)
    known = exemption is not None and isinstance(old, dict) and _exemption(review, old, settings) is not None
    if isinstance(old, dict) and not known and not _same_containers(spec, old):
        # Kubernetes starts a container with another image again, whatever restartPolicy says, and it finds in the pod's
        # folders what ran there before: its own launcher, for one.
        seen.refuse(
            "POD_REFUSED", "", "A container is changed, and would be started a second time in the same pod.",
            expected="another pod", rule="exempt",
        )  # fmt: skip
        return
    if exemption is not None:
        _judge_exempt(exemption, spec, settings, seen)
        return
    _Judge(settings, seen).judge(spec)


def _same_containers(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Tell whether two versions of a pod run the same, with other resources at most."""
    for kind in ("initContainers", "containers"):
        then, now = shapes.objects(old.get(kind)), shapes.objects(new.get(kind))
        if then is None or now is None or [_bare(item) for item in then] != [_bare(item) for item in now]:
            return False
    return True


def _bare(container: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in container.items() if name != "resources"}


def _images(spec: Mapping[str, Any]) -> list[Any] | None:
    found: list[Any] = []
    for name in ("initContainers", "containers", "ephemeralContainers"):
        listed = shapes.objects(spec.get(name))
        if listed is None:
            return None
        found += [container.get("image") for container in listed]
    for volume in shapes.objects(spec.get("volumes")) or []:
        if isinstance(volume.get("image"), dict):
            found.append(volume["image"].get("reference"))
    return found


def _exemption(review: Review, spec: Mapping[str, Any], settings: Settings) -> Exemption | None:
    images = _images(spec)
    for rule in settings.exempt:
        if rule.namespaces and review.namespace not in rule.namespaces:
            continue
        if rule.creators and review.user not in rule.creators:
            continue
        # The account's old name is still written by some, and the API server takes either for the other.
        accounts = {spec[name] for name in ("serviceAccountName", "serviceAccount") if isinstance(spec.get(name), str)}
        if rule.service_accounts and (not accounts or accounts - set(rule.service_accounts)):
            continue
        if rule.images and (not images or any(image not in rule.images for image in images)):
            continue
        return rule
    return None


def _judge_exempt(rule: Exemption, spec: Mapping[str, Any], settings: Settings, seen: Observations) -> None:
    name = f"exempt {rule.name}"
    if settings.guard.secret in secret_names(spec):
        seen.refuse(
            "MOUNT_REFUSED", "", f"It is exempt ({shown(rule.name)}), and has the guard's keys.",
            expected=f"no secret {settings.guard.secret}", rule=name,
        )  # fmt: skip
    if not rule.privileged:
        # Anybody can be such a pod: an image runs any command.
        judge_pod_isolation(spec, seen)
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            for container in shapes.objects(spec.get(kind)) or []:
                judge_container_isolation(container, f"container {shown(container.get('name'))}", seen)
        judge_volumes(shapes.objects(spec.get("volumes")) or [], "", settings, seen)
    if not seen.refused:
        seen.note("POD_EXEMPT", "", f"Rule {shown(rule.name)} of the settings.")


def _parts(volume: Mapping[str, Any]) -> int:
    projected = volume.get("projected")
    return len(shapes.objects(projected.get("sources")) or []) if isinstance(projected, dict) else 0


class _Judge:
    def __init__(self, settings: Settings, seen: Observations) -> None:
        self._settings = settings
        self._seen = seen
        self._fields = frozenset(settings.kubeflow.fields)

    def judge(self, spec: Mapping[str, Any]) -> None:
        containers, initial = shapes.objects(spec.get("containers")), shapes.objects(spec.get("initContainers"))
        volumes = shapes.objects(spec.get("volumes"))
        if containers is None or initial is None or volumes is None:
            self._seen.refuse("POD_REFUSED", "", "Its containers or volumes are no lists of objects.")
            return
        if max(map(len, (containers, initial, volumes))) > MAX_PARTS:
            self._seen.refuse("POD_REFUSED", "", f"It has more than {MAX_PARTS} containers or volumes.")
            return
        mounts = (shapes.objects(container.get("volumeMounts")) or [] for container in (*initial, *containers))
        if max(map(len, mounts), default=0) > MAX_MOUNTS or any(_parts(volume) > MAX_SOURCES for volume in volumes):
            self._seen.refuse(
                "POD_REFUSED", "", f"A container has more than {MAX_MOUNTS} mounts, or a volume {MAX_SOURCES} sources."
            )
            return
        mains = [container for container in containers if container.get("name") == MAIN]
        if len(mains) != 1:
            self._seen.refuse(
                "POD_REFUSED", "", "It is no task of a pipeline, and no rule exempts it.",
                expected=_EXPECTED, found=f"{len(mains)} containers called '{MAIN}'", rule="exempt",
            )  # fmt: skip
            self._keys(spec)
            return
        names = [shapes.name_of(container) for container in (*initial, *containers)]
        if len(set(names)) != len(names):
            self._seen.refuse("POD_REFUSED", "", "Two of its containers share a name.")
        judge_fields(spec, shapes.POD_FIELDS, self._fields, "", self._seen)
        judge_pod_isolation(spec, self._seen)
        if spec.get("restartPolicy") != "Never":
            # What ran once could have put something else where Argo's program and the launcher lie.
            self._seen.refuse(
                "POD_REFUSED", "", "Its containers are started again in the same pod.",
                expected="restartPolicy: Never", found=shown(spec.get("restartPolicy")),
            )  # fmt: skip
        if spec.get("ephemeralContainers"):
            self._seen.refuse(
                "ISOLATION_BROKEN",
                "",
                "It has containers for debugging, which see what the task sees.",
                expected="none",
            )
        judge_volumes(volumes, "", self._settings, self._seen)
        by_name = {shapes.name_of(volume): volume for volume in volumes}
        role = self._main(mains[0], by_name)
        helpers = HelperJudge(self._settings, self._seen, volumes, driver=role == DRIVER)
        judge_template(mains[0], f"container '{MAIN}'", self._seen, required=False, driver=role == DRIVER)
        self._first(mains[0], initial, containers)
        if role != _TASK:
            helpers.no_guard_volumes(mains[0], f"container '{MAIN}'", main=True)
        if role in (DRIVER, IMPORTER):
            helpers.program(mains[0], role, f"container '{MAIN}'")
        for container in containers:
            if container.get("name") != MAIN:
                helpers.beside(container)
        helpers.before(initial, guarded=role == _TASK)

    def _keys(self, spec: Mapping[str, Any]) -> None:
        if self._settings.guard.secret in secret_names(spec):
            self._seen.refuse(
                "MOUNT_REFUSED", "", "It has the guard's keys, and is no task under guard.", rule="guard.secret"
            )

    def _main(self, container: Mapping[str, Any], volumes: Mapping[str, dict[str, Any]]) -> str:
        """Judge the container that runs a task, KFP's driver or an import, and return which."""
        where = f"container '{MAIN}'"
        seen, kubeflow = self._seen, self._settings.kubeflow
        judge_fields(container, shapes.CONTAINER_FIELDS, self._fields, where, seen)
        judge_container_isolation(container, where, seen)
        judge_variables(container, where, seen)
        if self._settings.guard.secret in secret_names([container.get("env"), container.get("envFrom")]):
            seen.refuse("MOUNT_REFUSED", where, "It has the guard's keys in variables.", rule="guard.secret")
        command, args = shapes.texts(container.get("command")), shapes.texts(container.get("args"))
        program = _under_emissary(command or [])
        if program is None or args is None:
            seen.refuse(
                "TASK_UNGUARDED", where, "Argo's emissary does not start it as Argo writes it.",
                expected=f"'{shapes.EMISSARIES[0]} emissary … -- …'", found=shown(" ".join((command or [])[:6]), 120),
            )  # fmt: skip
            return _OTHER
        self._mounted(container, posixpath.dirname((command or [""])[0]), where)
        if program[0] == shapes.LAUNCHER:
            self._mounted(container, shapes.LAUNCHER, where)
            self._task(container, program[1:], args, volumes, where)
            return _TASK
        options, role = shapes.options(args), _OTHER
        if program == list(kubeflow.driver_command):
            role = DRIVER
            self._image(container, kubeflow.driver_images, "kubeflow.driver_images", where)
        elif program == list(kubeflow.launcher_command):
            role = IMPORTER
            self._image(container, kubeflow.launcher_images, "kubeflow.launcher_images", where)
            unknown = (options or {}).keys() - shapes.LAUNCHER_OPTIONS - set(kubeflow.options)
            if unknown or (options or {}).get("executor_type") != "importer":
                options = None
        else:
            seen.refuse(
                "TASK_UNGUARDED", where, "It runs a command of its own.",
                expected=_EXPECTED, found=shown(" ".join([*program, *args]), 120),
            )  # fmt: skip
            return _OTHER
        if options is None:
            seen.refuse(
                "TASK_UNGUARDED", where, "Its arguments are not those of KFP's driver, or of an import.",
                expected="options with values, such as --executor_type importer", found=shown(" ".join(args), 120),
            )  # fmt: skip
        return role

    def _first(self, container: Mapping[str, Any], initial: list[dict[str, Any]], beside: list[dict[str, Any]]) -> None:
        """Refuse a pod in which Argo's program would take its template from elsewhere than Argo's own container."""
        program = (shapes.texts(container.get("command")) or [""])[:1]
        if program == [shapes.EMISSARIES[0]]:
            fine = any(item.get("name") == "init" for item in initial)
        else:
            waits = [item for item in shapes.objects(container.get("env")) or [] if item.get("name") == shapes.WAITS]
            fine = any(item.get("name") == "supervisor" for item in beside) and waits == [
                {"name": shapes.WAITS, "value": "true"}
            ]
        if not fine:
            self._seen.refuse(
                "TASK_UNGUARDED", f"container '{MAIN}'", "Argo's own container does not write the template before it.",
                expected=f"the init container init, or supervisor and {shapes.WAITS}: true", found="neither",
            )  # fmt: skip

    def _mounted(self, container: Mapping[str, Any], program: str, where: str) -> None:
        """Refuse a container in which a program of Argo's or KFP's is the image's own."""
        mounts = shapes.objects(container.get("volumeMounts")) or []
        for place, volume in SYSTEM.items():
            brought = any((mount.get("mountPath"), mount.get("name")) == (place, volume) for mount in mounts)
            if f"{program}/".startswith(f"{place}/") and not brought:
                self._seen.refuse(
                    "TASK_UNGUARDED", where, f"What lies at {place} is its image's own.",
                    expected=f"the volume {volume} at {place}", found="none",
                )  # fmt: skip

    def _image(self, container: Mapping[str, Any], images: tuple[str, ...], rule: str, where: str) -> None:
        if container.get("image") not in images:
            self._seen.refuse(
                "IMAGE_NOT_ALLOWED", where, "It runs a program of KFP's from another image.",
                expected=f"one of {rule}", found=shown(container.get("image"), 200), rule=rule,
            )  # fmt: skip

    def _task(
        self,
        container: Mapping[str, Any],
        words: list[str],
        args: list[str],
        volumes: Mapping[str, dict[str, Any]],
        where: str,
    ) -> None:
        seen = self._seen
        options = shapes.options(words[:-1]) if words[-1:] == ["--"] else None
        known = shapes.LAUNCHER_OPTIONS | set(self._settings.kubeflow.options)
        if (
            options is None
            or options.keys() - known
            or options.get("executor_type", "container") != "container"
            or "executor_input" not in options
        ):
            # One `--` too early, and something else than the arguments would be run.
            seen.refuse(
                "TASK_UNGUARDED", where, "KFP's launcher is not called as KFP's driver writes it.",
                expected=f"'{shapes.LAUNCHER} --option value … --'", found=shown(" ".join(words), 160),
            )  # fmt: skip
        image = container.get("image")
        if not isinstance(image, str):
            seen.refuse("IMAGE_NOT_ALLOWED", where, "It names no image.")
            image = ""
        else:
            judge_image(image, where, self._settings, seen)
        if not args:
            seen.refuse(
                "ARGUMENTS_HIDDEN", where, "It has no arguments, where the task's command has to stand.",
                expected=shown(" ".join(guard_command.IN_DIRECTORY)), found="none", rule="guard",
            )  # fmt: skip
        elif is_own(args[:4], args[4:], image, self._settings):
            pass
        elif guard_command.is_guarded(args, (guard_command.IN_DIRECTORY,)) is None:
            seen.refuse(
                "GUARD_FORGED" if guard_command.looks_guarded(args) else "TASK_UNGUARDED",
                where, "The guard does not stand first in its arguments.",
                expected=shown(" ".join(guard_command.IN_DIRECTORY)), found=shown(" ".join(args), 120), rule="guard",
            )  # fmt: skip
        judge_mounts(dict(container), volumes, where, self._settings, seen)


def _under_emissary(command: list[str]) -> list[str] | None:
    """Return what Argo's emissary starts, ``None`` where something else starts first."""
    if command[:1] not in ([program] for program in shapes.EMISSARIES) or command[1:2] != ["emissary"]:
        return None
    if "--" not in command:
        return None
    end = command.index("--")
    options = shapes.options(command[2:end])
    if options is None or options.keys() - shapes.EXECUTOR_OPTIONS:
        return None
    return command[end + 1 :] or None
