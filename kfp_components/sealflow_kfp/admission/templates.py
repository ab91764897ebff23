"""The templates of a Workflow: only what KFP compiles, and the guard in each that runs a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.argo_template import outputs_problem
from sealflow_kfp.admission.mounts import judge_volumes, overlap, settled
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.program_mounts import LAUNCHER, ProgramMounts
from sealflow_kfp.admission.review import Operation
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.admission.shapes import shown
from sealflow_kfp.admission.variables import (
    NAMED,
    SOURCE,
    check_program_variables,
    check_sources,
    check_variable,
)

DAG: Final = "dag"
DRIVER: Final = "driver"
EXECUTOR: Final = "executor"
IMPORTER: Final = "importer"

#: Inputs that say what runs; a default would stand in for what a task does not pass.
_DECIDING: Final = frozenset({"component", "container", "importer", "kubernetes-config", "pod-spec-patch", "task"})
#: Outputs of the driver that say what runs, and the only values that they have without it.
_DECIDING_OUTPUTS: Final = frozenset({"cached-decision", "pod-spec-patch"})
_DECISIONS: Final = (None, "", "false")
_OUTPUT_FIELDS: Final = frozenset({"default", "description", "name", "valueFrom"})
_PARAMETER_FIELDS: Final = frozenset({"default", "description", "name", "value"})


def _inputs_own(item: Mapping[str, Any]) -> bool:
    """Tell whether an input stands in for what a task should pass."""
    if item.keys() - _PARAMETER_FIELDS:
        return True
    # The driver's `task` has an empty default where no task is, and so have configurations.
    return shapes.name_of(item) in _DECIDING and (bool(item.get("default")) or "value" in item)


def _outputs_own(item: Mapping[str, Any]) -> bool:
    """Tell whether an output stands in for what KFP's driver should say."""
    source = item.get("valueFrom")
    source = {} if source is None else source
    if not isinstance(source, dict) or item.keys() - _OUTPUT_FIELDS or source.keys() - {"default", "path"}:
        return True
    return any(value not in _DECISIONS for value in (item.get("default"), source.get("default"))) and (
        shapes.name_of(item) in _DECIDING_OUTPUTS
    )


class Templates:
    """Judges the templates of one Workflow.

    Args:
        settings: The admin's.
        seen: Takes what is found.
        operations: Takes what is to change.
    """

    def __init__(self, settings: Settings, seen: Observations, operations: list[Operation]) -> None:
        self._settings = settings
        self._seen = seen
        self._operations = operations
        self._guard = settings.guard.mounts
        self._fields = frozenset(settings.kubeflow.fields)

    def role(self, template: dict[str, Any], index: int) -> str:
        """Judge one template but for its tasks, and return what it is; empty for nothing of KFP's."""
        where = f"template {shown(template.get('name'), 120)}"
        inputs_fine = self._io(template, where)
        if "dag" in template:
            self._unknown(template, shapes.DAG_FIELDS, where)
            return DAG if inputs_fine else ""
        container = template.get("container")
        if not isinstance(container, dict):
            kinds = sorted(template.keys() - shapes.POD_TEMPLATE_FIELDS - self._fields)
            self._seen.refuse(
                "WORKFLOW_REFUSED", where, "It is none that KFP compiles.",
                expected="a dag, or a container of KFP's driver or launcher", found=shown(", ".join(kinds), 120),
            )  # fmt: skip
            return ""
        self._unknown(template, shapes.POD_TEMPLATE_FIELDS, where)
        self._unknown(container, shapes.CONTAINER_FIELDS, f"{where}, its container")
        volumes = shapes.objects(template.get("volumes"))
        if volumes is None:
            self._seen.refuse("WORKFLOW_REFUSED", where, "Its volumes are no list of objects.")
            volumes = []
        judge_volumes(volumes, where, self._settings, self._seen)
        if container.get("envFrom") == [SOURCE]:
            self._name_variables(container, f"/spec/templates/{index}/container")
        else:
            check_sources(container, where, self._seen)
        self._variables(container, where)
        if "podSpecPatch" in template or template.get("initContainers"):
            self._executor(template, container, volumes, where, index)
            role = EXECUTOR
        else:
            self._mounts(container, where)
            check_program_variables(container, frozenset(self._settings.kubeflow.variables), where, self._seen)
            role = self._program(container, where)
            if role:
                ProgramMounts(self._settings, self._seen, volumes).judge(container, role, where)
        problem = outputs_problem(template.get("outputs"), driver=role == DRIVER)
        if problem:
            self._seen.refuse(
                "WORKFLOW_REFUSED", where, problem, expected="outputs of KFP's driver alone, below /tmp/outputs"
            )
        return role

    def _name_variables(self, container: Mapping[str, Any], path: str) -> None:
        """Name the variables that KFP takes from its config map; see ``SOURCE``."""
        names = {shapes.name_of(item) for item in shapes.objects(container.get("env")) or []}
        self._operations.append({"op": "remove", "path": f"{path}/envFrom"})
        self._insert(f"{path}/env", container.get("env"), [item for item in NAMED if item["name"] not in names])

    def _unknown(self, body: Mapping[str, Any], known: frozenset[str], where: str) -> None:
        for name in sorted(body.keys() - known - self._fields):
            if body[name] not in (None, {}, [], "", False):
                self._seen.refuse(
                    "WORKFLOW_REFUSED", where, f"KFP compiles no field {shown(name)} there.", rule="kubeflow.fields"
                )

    def _io(self, template: Mapping[str, Any], where: str) -> bool:
        for name in ("inputs", "outputs"):
            part = template.get(name)
            if part is None:
                continue
            parameters = shapes.objects(part.get("parameters")) if isinstance(part, dict) else None
            if parameters is None or not isinstance(part, dict) or part.keys() - {"parameters"}:
                self._seen.refuse("WORKFLOW_REFUSED", where, f"Its {name} are not parameters alone.")
                return False
            for item in parameters:
                own = _inputs_own(item) if name == "inputs" else _outputs_own(item)
                if own:
                    self._seen.refuse(
                        "WORKFLOW_REFUSED",
                        where,
                        f"The value of one of its {name}, {shown(item.get('name'))}, is its own.",
                    )
        return True

    def _variables(self, container: Mapping[str, Any], where: str) -> None:
        listed = shapes.objects(container.get("env"))
        if listed is None:
            self._seen.refuse("WORKFLOW_REFUSED", where, "Its variables are no list of objects.")
            return
        for item in listed:
            check_variable(item.get("name"), where, self._seen)

    def _mounts(self, container: Mapping[str, Any], where: str) -> None:
        """Refuse mounts of the guard's volumes, and over its places, in what is no task."""
        mounts = shapes.objects(container.get("volumeMounts"))
        names = {volume["name"] for volume in self._guard.volumes()}
        if mounts is None or any(shapes.name_of(mount) in names for mount in mounts):
            self._seen.refuse("MOUNT_REFUSED", where, "It mounts a volume of the guard and runs no task.")

    def _program(self, container: Mapping[str, Any], where: str) -> str:
        """Judge a template that runs KFP's driver, or its launcher as importer."""
        kubeflow = self._settings.kubeflow
        image, command = container.get("image"), shapes.texts(container.get("command"))
        options = shapes.options(shapes.texts(container.get("args")) or [])
        if command == list(kubeflow.driver_command):
            role, images, setting = DRIVER, kubeflow.driver_images, "kubeflow.driver_images"
        elif command == list(kubeflow.launcher_command):
            role, images, setting = IMPORTER, kubeflow.launcher_images, "kubeflow.launcher_images"
        else:
            self._seen.refuse(
                "WORKFLOW_REFUSED", where, "It runs a command of its own.",
                expected="KFP's driver or launcher", found=shown(" ".join(command or ["none"]), 120),
            )  # fmt: skip
            return ""
        if image not in images:
            self._seen.refuse(
                "IMAGE_NOT_ALLOWED", where, f"It runs KFP's {role} from another image.",
                expected=f"one of {setting}", found=shown(image, 200), rule=setting,
            )  # fmt: skip
        if options is None:
            self._seen.refuse("WORKFLOW_REFUSED", where, f"The arguments of KFP's {role} are not options with values.")
            return ""
        if role == IMPORTER:
            unknown = options.keys() - shapes.LAUNCHER_OPTIONS - set(kubeflow.options)
            if unknown or options.get("executor_type") != "importer":
                self._seen.refuse(
                    "WORKFLOW_REFUSED", where, "It runs KFP's launcher for something else than an import.",
                    expected="--executor_type importer", found=shown(options.get("executor_type", "none")),
                )  # fmt: skip
            return role
        for name, values in shapes.DRIVER_VALUES.items():
            if options.get(name, values[0]) not in values:
                self._seen.refuse(
                    "WORKFLOW_REFUSED", where, f"The driver's option --{name} has a value of its own.",
                    expected=values[0], found=shown(options[name]),
                )  # fmt: skip
        return role

    def _executor(
        self, template: Mapping[str, Any], container: Mapping[str, Any], volumes: list[Any], where: str, index: int
    ) -> None:
        kubeflow = self._settings.kubeflow
        if template.get("podSpecPatch") != shapes.POD_SPEC_PATCH:
            self._seen.refuse(
                "WORKFLOW_REFUSED", where, "Its pod is patched with something else than the driver's output.",
                expected=shapes.POD_SPEC_PATCH, found=shown(template.get("podSpecPatch")),
            )  # fmt: skip
        if container.get("command") != [shapes.PLACEHOLDER] or container.get("args"):
            self._seen.refuse(
                "WORKFLOW_REFUSED", where, "A command of its own stands in it.",
                expected=f"'{shapes.PLACEHOLDER}'", found=shown(container.get("command"), 120),
            )  # fmt: skip
        initial = shapes.objects(template.get("initContainers"))
        guard = self._guard.init_container()
        others = [item for item in initial or [] if item.get("name") != guard["name"]]
        if (
            len(others) != 1
            or others[0].get("name") != "kfp-launcher"
            or others[0].get("image") not in kubeflow.launcher_images
            or not shapes.copies_launcher(others[0], kubeflow.launcher_command)
            or others[0].keys() - shapes.CONTAINER_FIELDS - {"mirrorVolumeMounts"}
            or others[0].get("mirrorVolumeMounts")
        ):
            self._seen.refuse(
                "IMAGE_NOT_ALLOWED", where, "Its init containers are not KFP's launcher alone.",
                expected="kfp-launcher with one of kubeflow.launcher_images",
                found=shown(", ".join(f"{item.get('name')}={item.get('image')}" for item in others) or "none", 200),
                rule="kubeflow.launcher_images",
            )  # fmt: skip
        for item in others:
            check_sources(item, where, self._seen)
            self._variables(item, where)
            check_program_variables(item, frozenset(kubeflow.variables), where, self._seen)
            self._mounts(item, where)
            ProgramMounts(self._settings, self._seen, volumes).judge(item, LAUNCHER, f"{where}, kfp-launcher")
        self._add_guard(container, initial or [], volumes, where, f"/spec/templates/{index}", template)

    def _add_guard(
        self,
        container: Mapping[str, Any],
        initial: list[dict[str, Any]],
        volumes: list[dict[str, Any]],
        where: str,
        path: str,
        template: Mapping[str, Any],
    ) -> None:
        guard = self._guard.init_container()
        present = [item for item in initial if item.get("name") == guard["name"]]
        older = [{**guard, "image": image} for image in self._settings.guard.previous_images]
        if len(present) == 1 and present[0] in older:
            # A run from before an upgrade that is tried again.
            place = f"{path}/initContainers/{initial.index(present[0])}/image"
            self._operations.append({"op": "replace", "path": place, "value": guard["image"]})
            present = [guard]
        if any(item != guard for item in present) or len(present) > 1:
            self._seen.refuse(
                "GUARD_FORGED", where, f"Its init container {shown(guard['name'])} is not the admin's.",
                expected=shown(guard["image"], 200), found=shown(present[0].get("image"), 200), rule="guard.image",
            )  # fmt: skip
        elif not present:
            # Before all others: what they could do, they do to an empty folder.
            self._insert(f"{path}/initContainers", template.get("initContainers"), [guard], first=True)
        there = {shapes.name_of(volume) for volume in volumes}
        missing = [volume for volume in self._guard.volumes() if volume["name"] not in there]
        self._insert(f"{path}/volumes", template.get("volumes"), missing)
        mounts = shapes.objects(container.get("volumeMounts"))
        if mounts is None:
            self._seen.refuse("WORKFLOW_REFUSED", where, "Its mounts are no list of objects.")
            return
        wanted = self._guard.volume_mounts()
        for mount in mounts:
            mounted = settled(str(mount.get("mountPath")))
            names = {item["name"] for item in wanted}
            if mount not in wanted and (
                shapes.name_of(mount) in names or any(overlap(mounted, settled(item["mountPath"])) for item in wanted)
            ):
                self._seen.refuse(
                    "MOUNT_REFUSED", where, f"It mounts {shown(mount.get('name'))} at {shown(mount.get('mountPath'))}.",
                    expected=f"nothing of its own at or around {guard_command.GUARD_DIRECTORY}, keys and policy",
                )  # fmt: skip
        absent = [item for item in wanted if item not in mounts]
        self._insert(f"{path}/container/volumeMounts", container.get("volumeMounts"), absent)

    def _insert(self, path: str, there: Any, items: list[dict[str, Any]], *, first: bool = False) -> None:
        if items and there is None:
            self._operations.append({"op": "add", "path": path, "value": items})
            return
        for item in items:
            self._operations.append({"op": "add", "path": f"{path}/{0 if first else '-'}", "value": item})
