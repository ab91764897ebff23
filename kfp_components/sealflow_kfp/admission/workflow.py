"""Argo Workflows: what KFP's API server makes of a run, and everything else that somebody may submit as one.

The only shape that is taken is the one that KFP compiles; what a task runs stands in it at one place alone, in the
parameters ``implementations-…``, and that is where the guard goes. Nothing that an author writes is trusted to call
itself a driver, a task or guarded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sealflow.errors import EvidenceError
from sealflow_kfp.admission import implementations, quickjson, shapes
from sealflow_kfp.admission.memo import Memo
from sealflow_kfp.admission.mounts import judge_volumes
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.review import Operation
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.admission.shapes import shown
from sealflow_kfp.admission.templates import DRIVER, EXECUTOR, Templates

#: Arguments of a task that say what it runs; others are values.
_JUDGED: Final = frozenset({"cached-decision", "container", "importer", "kubernetes-config", "pod-spec-patch", "task"})
_ARGUMENT_FIELDS: Final = frozenset({"name", "value", "default"})
#: Caching as KFP writes it, and as it is turned off.
_CACHE_ON: Final = '"cachingOptions":{"enableCache":true}'
_CACHE_OFF: Final = '"cachingOptions":{}'
_IMPLEMENTATIONS: Final = "implementations-"
_PLATFORMS: Final = "kubernetes-"
_COMPONENTS: Final = "components-"
#: Most tasks, templates and parameters of one Workflow: KFP's own are stored in 1.5 MiB.
MAX_ITEMS: Final = 10_000


def judge_workflow(
    body: Any, settings: Settings, seen: Observations, *, old: Any = None, memo: Memo | None = None, user: str = ""
) -> list[Operation]:
    """Judge a Workflow, and say how it has to be changed.

    Args:
        body: The Workflow.
        settings: The admin's.
        seen: Takes what is found.
        old: What it was before an update.
        memo: What was found of tasks before; makes it quicker, and nothing else.
        user: Who asks.

    Returns:
        Operations of a JSON patch that put every task under the guard and turn caching off; none for a Workflow that
        is as it should be, or was so before. They hold only where nothing was refused.
    """
    spec = body.get("spec") if isinstance(body, dict) else None
    if not isinstance(spec, dict):
        seen.refuse("WORKFLOW_REFUSED", "", "It has no spec.")
        return []
    _judge_status(body.get("status"), old, user, settings, seen)
    if isinstance(old, dict) and _same(spec, old.get("spec")):
        # The controller writes progress here all the time, and whoever stops a run must be able to.
        return []
    return _Judge(settings, seen, memo).judge(spec)


def _judge_status(status: Any, old: Any, user: str, settings: Settings, seen: Observations) -> None:
    """Refuse that an author says what ran: Argo believes it, and skips what has succeeded, a verifying task as well."""
    if user in settings.kubeflow.status_writers:
        return
    before = old.get("status") if isinstance(old, dict) else None
    if status != before and not _says_nothing(status):
        seen.refuse(
            "WORKFLOW_REFUSED", "", "Its status is written by somebody else than Argo and KFP.",
            expected="one of kubeflow.status_writers, or no status", found=shown(user, 120),
            rule="kubeflow.status_writers",
        )  # fmt: skip


def _says_nothing(status: Any) -> bool:
    # Go writes out a status of which nothing is known, with empty times.
    return status is None or (isinstance(status, dict) and all(value in (None, "") for value in status.values()))


def _same(new: dict[str, Any], old: Any) -> bool:
    if not isinstance(old, dict):
        return False
    kept = (new.keys() | old.keys()) - shapes.STOPPING_FIELDS
    return all(new.get(name) == old.get(name) for name in kept)


class _Place:
    """A task of a Workflow: where it stands, in words and as a path only once somebody asks."""

    __slots__ = ("_exit", "_indexes", "_task", "_template")

    def __init__(
        self, template: Mapping[str, Any], task: Mapping[str, Any], indexes: tuple[int, int], *, at_exit: bool = False
    ) -> None:
        self._template = template
        self._task = task
        self._indexes = indexes
        self._exit = at_exit

    @property
    def path(self) -> str:
        """The task, or its exit hook, as JSON Pointer (RFC 6901)."""
        template, task = self._indexes
        return f"/spec/templates/{template}/dag/tasks/{task}{'/hooks/exit' if self._exit else ''}"

    def __str__(self) -> str:
        hook = ", its exit hook" if self._exit else ""
        task, template = shown(self._task.get("name"), 120), shown(self._template.get("name"), 120)
        return f"template {template}, task {task}{hook}"


class _Judge:
    def __init__(self, settings: Settings, seen: Observations, memo: Memo | None) -> None:
        self._settings = settings
        self._seen = seen
        self._memo = memo
        self._operations: list[Operation] = []
        #: What each implementation is, by the parameter's name.
        self._kinds: dict[str, str] = {}
        self._platforms: set[str] = set()

    def judge(self, spec: dict[str, Any]) -> list[Operation]:
        self._fields(spec)
        self._parameters(spec.get("arguments"))
        templates = shapes.objects(spec.get("templates"))
        if not templates or len(templates) > MAX_ITEMS:
            self._seen.refuse("WORKFLOW_REFUSED", "", "It has no templates, or too many.")
            return []
        names = [shapes.name_of(template) for template in templates]
        if len(set(names)) != len(names) or spec.get("entrypoint") not in names:
            self._seen.refuse("WORKFLOW_REFUSED", "", "Two of its templates share a name, or its entrypoint is none.")
            return []
        judged = Templates(self._settings, self._seen, self._operations)
        roles = {shapes.name_of(template): judged.role(template, index) for index, template in enumerate(templates)}
        for index, template in enumerate(templates):
            if "dag" in template:
                self._dag(template, roles, index)
            elif roles[shapes.name_of(template)] == DRIVER:
                self._turn_cache_off(template, index)
        return self._operations

    def _fields(self, spec: Mapping[str, Any]) -> None:
        kubeflow = self._settings.kubeflow
        for name in sorted(spec.keys() - shapes.SPEC_FIELDS - set(kubeflow.fields)):
            if spec[name] not in (None, {}, [], "", False):
                self._seen.refuse(
                    "WORKFLOW_REFUSED", "", f"KFP compiles no field {shown(name)} there.", rule="kubeflow.fields"
                )
        patch = spec.get("podSpecPatch")
        if patch and patch not in kubeflow.pod_spec_patches:
            self._seen.refuse(
                "WORKFLOW_REFUSED", "", "It patches all of its pods.", found=shown(patch, 120),
                rule="kubeflow.pod_spec_patches",
            )  # fmt: skip
        volumes = shapes.objects(spec.get("volumes"))
        if volumes is None:
            self._seen.refuse("WORKFLOW_REFUSED", "", "Its volumes are no list of objects.")
            return
        ours = {volume["name"] for volume in self._settings.guard.mounts.volumes()}
        for volume in volumes:
            if shapes.name_of(volume) in ours:
                self._seen.refuse("GUARD_FORGED", "", f"It brings the guard's volume {shown(volume.get('name'))}.")
        judge_volumes(volumes, "", self._settings, self._seen)

    def _parameters(self, arguments: Any) -> None:
        arguments = {} if arguments is None else arguments
        listed = shapes.objects(arguments.get("parameters")) if isinstance(arguments, dict) else None
        if listed is None or arguments.keys() - {"parameters"} or len(listed) > MAX_ITEMS:
            self._seen.refuse("WORKFLOW_REFUSED", "", "Its arguments are not a list of parameters alone.")
            return
        seen: set[str] = set()
        for index, item in enumerate(listed):
            name, value = item.get("name"), item.get("value")
            where = f"parameter {shown(name, 120)}"
            if type(name) is not str or type(value) is not str or len(item) != 2:
                self._seen.refuse(
                    "WORKFLOW_REFUSED", where, "Its value is not written out, so nobody can see it at admission.",
                    expected="a name and a value", found=shown(", ".join(sorted(item)), 120),
                )  # fmt: skip
                continue
            if name in seen:
                self._seen.refuse("WORKFLOW_REFUSED", where, "It is there twice.")
            seen.add(name)
            if name.startswith(_IMPLEMENTATIONS):
                kind, text = self._wrapped(value, where)
                self._kinds[name] = kind
                if text != value:
                    path = f"/spec/arguments/parameters/{index}/value"
                    self._operations.append({"op": "replace", "path": path, "value": text})
            elif name.startswith(_PLATFORMS):
                implementations.judge_platform(value, where, self._settings, self._seen)
                self._platforms.add(name)
            elif name.startswith(_COMPONENTS):
                implementations.judge_component(value, where, self._seen)

    def _wrapped(self, value: str, where: str) -> tuple[str, str]:
        found = self._memo.get(value, self._settings) if self._memo is not None else None
        if found is not None:
            return found
        count = self._seen.count
        found = implementations.wrapped(value, where, self._settings, self._seen)
        if self._memo is not None and self._seen.count == count:
            self._memo.keep(value, self._settings, found)
        return found

    def _dag(self, template: Mapping[str, Any], roles: Mapping[str, str], index: int) -> None:
        dag = template["dag"]
        tasks = shapes.objects(dag.get("tasks")) if isinstance(dag, dict) else None
        if tasks is None or dag.keys() - {"tasks", "target", "failFast"} or len(tasks) > MAX_ITEMS:
            where = f"template {shown(template.get('name'), 120)}"
            self._seen.refuse("WORKFLOW_REFUSED", where, "Its dag is not a list of tasks alone.")
            return
        targets = {shapes.name_of(task): roles.get(shapes.name_of(task, "template"), "") for task in tasks}
        for number, task in enumerate(tasks):
            at = _Place(template, task, (index, number))
            if not task.keys() <= shapes.DAG_TASK_FIELDS:
                for name in sorted(task.keys() - shapes.DAG_TASK_FIELDS):
                    self._seen.refuse("WORKFLOW_REFUSED", str(at), f"KFP compiles no field {shown(name)} there.")
            self._task(task, targets, roles, at)
            hooks = task.get("hooks")
            if hooks is None:
                continue
            if not isinstance(hooks, dict):
                self._seen.refuse("WORKFLOW_REFUSED", str(at), "Its hooks are no object.")
                continue
            for name, hook in hooks.items():
                if not isinstance(hook, dict) or not hook.keys() <= {"template", "arguments"} or name != "exit":
                    self._seen.refuse("WORKFLOW_REFUSED", str(at), f"KFP compiles no hook {shown(name)} of this kind.")
                    continue
                self._task(hook, targets, roles, _Place(template, task, (index, number), at_exit=True))

    def _task(self, task: Mapping[str, Any], targets: Mapping[str, str], roles: Mapping[str, str], at: _Place) -> None:
        role = roles.get(shapes.name_of(task, "template"))
        if role is None:
            missing = f"It runs {shown(task.get('template'))}, which is not there."
            self._seen.refuse("WORKFLOW_REFUSED", str(at), missing)
        arguments = task.get("arguments")
        arguments = {} if arguments is None else arguments
        listed = shapes.objects(arguments.get("parameters")) if isinstance(arguments, dict) else None
        if listed is None or not arguments.keys() <= {"parameters"}:
            self._seen.refuse("WORKFLOW_REFUSED", str(at), "Its arguments are not a list of parameters alone.")
            return
        names = set()
        for index, item in enumerate(listed):
            name, value = item.get("name"), item.get("value")
            more = len(item) != 2 and not item.keys() <= _ARGUMENT_FIELDS
            if type(name) is not str or type(value) is not str or more:
                unseen = f"The value of its argument {shown(name)} is not written out."
                self._seen.refuse("WORKFLOW_REFUSED", str(at), unseen)
                continue
            names.add(name)
            if name in _JUDGED:
                self._argument(name, value, targets, at, index)
        if len(names) != len(listed):
            self._seen.refuse("WORKFLOW_REFUSED", str(at), "It has an argument twice.")
        if role == EXECUTOR and "pod-spec-patch" not in names:
            self._seen.refuse("WORKFLOW_REFUSED", str(at), "It runs a task without what the driver says.")

    def _argument(self, name: str, value: str, targets: Mapping[str, str], at: _Place, index: int) -> None:
        if name == "container":
            self._refers(value, implementations.TASK, at, name)
        elif name == "importer":
            self._refers(value, implementations.IMPORTER, at, name)
        elif name == "kubernetes-config":
            match = shapes.REFERENCE.fullmatch(value)
            if value and (match is None or match[1] not in self._platforms):
                self._unknown(at, name, value, f"a reference to a parameter {_PLATFORMS}…")
        elif name == "pod-spec-patch":
            source = shapes.patch_source(value)
            if source is None or (source and targets.get(source) != DRIVER):
                self._unknown(at, name, value, "the output of one of KFP's drivers")
        elif name == "cached-decision":
            if not shapes.is_decision(value):
                self._unknown(at, name, value, "the driver's decision")
        elif value not in ("", shapes.HANDED_ON):
            # What Argo would fill in could turn caching on, or be all of it.
            if not value.lstrip(shapes.JSON_SPACE).startswith("{") or ("{{" in value and shapes.ARGO_TAG.search(value)):
                self._unknown(at, name, value, f"a task written out, or {shapes.HANDED_ON}")
                return
            text = self._without_cache(value, at)
            if text != value:
                path = f"{at.path}/arguments/parameters/{index}/value"
                self._operations.append({"op": "replace", "path": path, "value": text})

    def _refers(self, value: str, kind: str, at: _Place, name: str) -> None:
        match = shapes.REFERENCE.fullmatch(value)
        if match is None or self._kinds.get(match[1]) != kind:
            self._unknown(at, name, value, f"a reference to a parameter {_IMPLEMENTATIONS}… of this Workflow")

    def _unknown(self, at: _Place, name: str, value: str, expected: str) -> None:
        self._seen.refuse(
            "WORKFLOW_REFUSED", str(at), f"Its argument {shown(name)} is not what KFP passes.",
            expected=expected, found=shown(value, 120),
        )  # fmt: skip

    def _without_cache(self, text: str, at: _Place) -> str:
        """Return a task with caching turned off; the same text where it is off, or cannot be read."""
        if "\\" not in text:
            # Nothing is spelled in another way, so what does not stand there is not there, and what stands there once
            # is the field itself: nearly every task, and reading hundreds of them takes time.
            times = text.count("aching")
            if not times or (times == 1 and _CACHE_OFF in text):
                return text
            if times == 1 and _CACHE_ON in text:
                return text.replace(_CACHE_ON, _CACHE_OFF)
        try:
            body = quickjson.loads(text, limit=implementations.MAX_PARAMETER, what="Its task")
            if not isinstance(body, dict) or "caching_options" in body:
                raise EvidenceError("Its task is no object, or has a field that KFP spells otherwise.")
        except EvidenceError as error:
            self._seen.refuse("WORKFLOW_REFUSED", str(at), error.message)
            return text
        if not body.get("cachingOptions"):
            return text
        return quickjson.dumps({**body, "cachingOptions": {}}).decode("utf-8")

    def _turn_cache_off(self, template: Mapping[str, Any], index: int) -> None:
        """Tell the driver of an installation that knows it not to look into the cache, and to fill none."""
        args = shapes.texts(template["container"].get("args")) or []
        for number, word in enumerate(args):
            if word.startswith("--cache_disabled=") and word != "--cache_disabled=true":
                path = f"/spec/templates/{index}/container/args/{number}"
                self._operations.append({"op": "replace", "path": path, "value": "--cache_disabled=true"})
