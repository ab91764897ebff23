"""The containers of a pod beside the one that runs the task: Argo's, the launcher's copy, the guard's, a mesh's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.argo_template import judge_template
from sealflow_kfp.admission.isolation import judge_container_isolation, judge_fields, judge_variables
from sealflow_kfp.admission.mounts import EMPTY, GUARDED, is_ours, overlap, secret_names, settled
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.program_mounts import BEFORE, BESIDE, GUARD, LAUNCHER, ProgramMounts
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.admission.shapes import shown
from sealflow_kfp.admission.variables import check_program_variables

#: Argo's own containers, by the word after its program.
ARGO_BESIDE: Final = {"wait": "wait", "supervisor": "supervisor"}
ARGO_BEFORE: Final = {"init": "init"}
#: Where Argo shows its own container beside the task what the task has mounted, to bring outputs away: all of it, and
#: writable. What is exactly there is Argo's doing, and Argo's program reads it alone.
MIRRORED: Final = {
    guard_command.GUARD_VOLUME: f"{shapes.MIRROR}{guard_command.GUARD_DIRECTORY}",
    guard_command.SECRET_VOLUME: f"{shapes.MIRROR}{guard_command.SECRET_MOUNT}",
    guard_command.POLICY_VOLUME: f"{shapes.MIRROR}{guard_command.ADMIN_MOUNT}",
    shapes.LAUNCHER_VOLUME: f"{shapes.MIRROR}{shapes.LAUNCHER_MOUNT}",
}


_MIRROR_FIELDS: Final = frozenset({"mountPath", "name", "readOnly"})


class HelperJudge:
    """Judges containers that are no task's.

    Args:
        settings: The admin's.
        seen: Takes what is found.
        volumes: The pod's volumes.
        driver: Whether the pod runs KFP's driver.
    """

    def __init__(
        self, settings: Settings, seen: Observations, volumes: list[dict[str, Any]], *, driver: bool = False
    ) -> None:
        self._driver = driver
        self._settings = settings
        self._seen = seen
        self._fields = frozenset(settings.kubeflow.fields)
        self._mounts = ProgramMounts(settings, seen, volumes)
        self._by_name = {shapes.name_of(volume): volume for volume in volumes}
        secret = settings.guard.secret
        ours = {volume["name"] for volume in settings.guard.mounts.volumes()}
        self._volumes = ours | {shapes.name_of(volume) for volume in volumes if secret in secret_names(volume)}

    def beside(self, container: Mapping[str, Any]) -> None:
        """Judge a container that runs at the same time as the task."""
        self._argo_or_sidecar(container, ARGO_BESIDE)

    def before(self, containers: list[dict[str, Any]], *, guarded: bool) -> None:
        """Judge the init containers of a pod.

        Args:
            containers: They.
            guarded: Whether the pod runs a task, which needs the launcher's copy and the guard.
        """
        counted = {"kfp-launcher": 0, guard_command.INIT_CONTAINER: 0}
        for container in containers:
            name = shapes.name_of(container)
            if name == guard_command.INIT_CONTAINER:
                counted[name] += 1
                self._guard(container)
            elif name == "kfp-launcher":
                counted[name] += 1
                self._launcher(container)
            else:
                self._argo_or_sidecar(container, ARGO_BEFORE)
        for name, times in counted.items():
            if guarded and times != 1:
                self._seen.refuse(
                    "TASK_UNGUARDED", "", f"It has {times} init containers {shown(name)}.",
                    expected="one, as the admission server puts it there", rule="guard",
                )  # fmt: skip

    def no_guard_volumes(
        self,
        container: Mapping[str, Any],
        where: str,
        *,
        launcher: bool = False,
        main: bool = False,
        mirrors: bool = False,
        others: frozenset[str] = frozenset(),
    ) -> None:
        """Refuse that something else than a guarded task has the guard's volumes, keys or the launcher's folder.

        Args:
            container: It.
            where: Its name for messages.
            launcher: Whether it may have the launcher's folder.
            main: Whether it is KFP's driver or an import; a spec patch mounts into every container of that name what
                tasks have, and then it has to be exactly that.
            mirrors: Whether it is Argo's container beside a task, which has them where Argo mirrors them.
            others: Further volumes that it may not have.
        """
        names = self._volumes | others if launcher else self._volumes | others | {shapes.LAUNCHER_VOLUME}
        mounts = shapes.objects(container.get("volumeMounts"))
        if mounts is None:
            self._seen.refuse("MOUNT_REFUSED", where, "Its mounts are no list of objects.")
            return
        for mount in mounts:
            name = shapes.name_of(mount)
            if main and is_ours(mount, self._by_name.get(name, {}), self._settings):
                continue
            if mirrors and mount.get("mountPath") == MIRRORED.get(name) and mount.keys() <= _MIRROR_FIELDS:
                continue
            if name in names:
                self._seen.refuse(
                    "GUARD_FORGED", where, f"It mounts {shown(mount.get('name'))} at {shown(mount.get('mountPath'))}.",
                    expected="the guard's and the launcher's volumes in a guarded task alone", rule="guard",
                )  # fmt: skip
        self._no_keys(container, where)

    def _no_keys(self, container: Mapping[str, Any], where: str) -> None:
        if self._settings.guard.secret in secret_names([container.get("env"), container.get("envFrom")]):
            self._seen.refuse("MOUNT_REFUSED", where, "It has the guard's keys in variables.", rule="guard.secret")

    def program(self, container: Mapping[str, Any], role: str, where: str) -> None:
        """Refuse what could put another program or its configuration into a container that runs KFP's or Argo's."""
        check_program_variables(container, frozenset(self._settings.kubeflow.variables), where, self._seen)
        self._mounts.judge(container, role, where)

    def _argo_or_sidecar(self, container: Mapping[str, Any], argo: Mapping[str, str]) -> None:
        name, image = shapes.name_of(container), container.get("image")
        where = f"container {shown(name)}"
        kubeflow = self._settings.kubeflow
        sidecar = image in kubeflow.sidecar_images
        # Whoever makes the pod says what runs in such an image: nothing in it may reach what the task is made of.
        mirrors = not sidecar and argo is ARGO_BESIDE and name in argo
        self.no_guard_volumes(container, where, mirrors=mirrors, others=EMPTY if sidecar else frozenset())
        judge_container_isolation(container, where, self._seen)
        if sidecar:
            return
        if name not in argo:
            self._seen.refuse(
                "IMAGE_NOT_ALLOWED", where, "Neither KFP nor Argo has a container of this name.",
                expected="one of kubeflow.sidecar_images", found=shown(image, 200), rule="kubeflow.sidecar_images",
            )  # fmt: skip
            return
        if image not in kubeflow.executor_images:
            self._seen.refuse(
                "IMAGE_NOT_ALLOWED", where, "It is not Argo's.", expected="one of kubeflow.executor_images",
                found=shown(image, 200), rule="kubeflow.executor_images",
            )  # fmt: skip
        judge_fields(container, shapes.CONTAINER_FIELDS, self._fields, where, self._seen)
        judge_variables(container, where, self._seen)
        self.program(container, BESIDE if argo is ARGO_BESIDE else BEFORE, where)
        judge_template(container, where, self._seen, required=name != "wait", driver=self._driver)
        command, args = shapes.texts(container.get("command")) or [], shapes.texts(container.get("args"))
        options = shapes.options([*command[2:], *args]) if args is not None else None
        if command[:2] != ["argoexec", argo[name]] or options is None or options.keys() - shapes.EXECUTOR_OPTIONS:
            self._seen.refuse(
                "POD_REFUSED", where, "It does not run what Argo runs there.",
                expected=f"'argoexec {argo[name]} …'", found=shown(" ".join(command[:6]), 120),
            )  # fmt: skip

    def _launcher(self, container: Mapping[str, Any]) -> None:
        where, kubeflow = "container 'kfp-launcher'", self._settings.kubeflow
        self._common(container, where)
        self.no_guard_volumes(container, where, launcher=True)
        judge_variables(container, where, self._seen)
        self.program(container, LAUNCHER, where)
        if container.get("image") not in kubeflow.launcher_images:
            self._seen.refuse(
                "IMAGE_NOT_ALLOWED", where, "It is not KFP's launcher.", expected="one of kubeflow.launcher_images",
                found=shown(container.get("image"), 200), rule="kubeflow.launcher_images",
            )  # fmt: skip
        if not shapes.copies_launcher(container, kubeflow.launcher_command):
            called = (container.get("command"), container.get("args"))
            self._seen.refuse(
                "POD_REFUSED", where, "It does not copy the launcher as KFP does.",
                expected=f"'--copy {shapes.LAUNCHER}'", found=shown(called, 120),
            )  # fmt: skip

    def _common(self, container: Mapping[str, Any], where: str) -> None:
        judge_fields(container, shapes.CONTAINER_FIELDS, self._fields, where, self._seen)
        judge_container_isolation(container, where, self._seen)

    def _guard(self, container: Mapping[str, Any]) -> None:
        where = f"container {shown(guard_command.INIT_CONTAINER)}"
        self._common(container, where)
        self.program(container, GUARD, where)
        self._no_keys(container, where)
        wanted = self._settings.guard.mounts.init_container()
        if container.get("image") not in self._settings.guard.images:
            self._forged(where, "Its image is not the admin's.", wanted["image"], container.get("image"))
        if container.get("command") != wanted["command"]:
            self._forged(where, "Its command is not the admin's.", wanted["command"], container.get("command"))
        context = container.get("securityContext")
        if isinstance(context, dict) and context.get("procMount") == "Default":
            context = {name: value for name, value in context.items() if name != "procMount"}
        if context != wanted["securityContext"]:
            self._forged(where, "Its securityContext is not the admin's.", wanted["securityContext"], context)
        for name in ("args", "envFrom", "workingDir", "ports"):
            if container.get(name):
                self._forged(where, f"It has {name}, and the admin's has none.", "none", container[name])
        # Argo, and what gives pods an identity in a cloud, add variables and mounts to every container. The guard's
        # own program hears no variable, and reads and writes below one folder alone.
        judge_variables(container, where, self._seen)
        mounts = shapes.objects(container.get("volumeMounts")) or []
        targets = [mount for mount in mounts if mount in wanted["volumeMounts"]]
        if len(targets) != len(wanted["volumeMounts"]):
            self._forged(where, "It does not fill the guard's volume.", wanted["volumeMounts"], mounts)
        for mount in mounts:
            path, name = shapes.name_of(mount, "mountPath"), shapes.name_of(mount)
            if mount not in targets and (not path or overlap(settled(path), GUARDED[0]) or name in self._volumes):
                self._forged(where, f"It mounts {shown(name)} at {shown(path)}.", wanted["volumeMounts"], mount)

    def _forged(self, where: str, message: str, expected: Any, found: Any) -> None:
        self._seen.refuse(
            "GUARD_FORGED", where, message, expected=shown(expected, 200), found=shown(found, 200), rule="guard.image"
        )
