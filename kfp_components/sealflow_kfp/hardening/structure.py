"""The DAG of a compiled pipeline: its tasks at all levels, and who makes what each of them reads.

Field names are those of ``pipeline_spec.proto`` (kubeflow/pipelines, api/v2alpha1) in JSON. Readers of that form also
take ``snake_case``; here an unknown member is refused, so that nobody reads more in a pipeline than we do.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow import strictjson
from sealflow.findings import printable
from sealflow_kfp.hardening.reading import MAX_PIPELINE, PipelineError
from sealflow_kfp.plan import Plan, Producer

#: Most tasks, those of parts that are used several times counted each time.
MAX_TASKS: Final = 10_000
#: Most DAGs in one another.
MAX_LEVELS: Final = 32

_SPEC = frozenset(
    {"pipelineInfo", "deploymentSpec", "sdkVersion", "schemaVersion", "components", "root", "defaultPipelineRoot"}
)
_COMPONENT = frozenset(
    {
        "inputDefinitions",
        "outputDefinitions",
        "dag",
        "executorLabel",
        "singlePlatformSpecs",
        "taskConfigPassthroughs",
    }
)
_DAG = frozenset({"tasks", "outputs"})
_TASK = frozenset(
    {
        "taskInfo",
        "inputs",
        "dependentTasks",
        "cachingOptions",
        "componentRef",
        "triggerPolicy",
        "artifactIterator",
        "parameterIterator",
        "retryPolicy",
        "iteratorPolicy",
    }
)
_PAIR = frozenset({"artifacts", "parameters"})
_REFERENCE = frozenset({"name"})
_INPUT = frozenset({"taskOutputArtifact", "componentInputArtifact"})
_FROM_TASK = frozenset({"producerTask", "outputArtifactKey"})
_OUTPUT = frozenset({"artifactSelectors"})
_SELECTOR = frozenset({"producerSubtask", "outputArtifactKey"})


@dataclass(eq=False)
class Task:
    """One place at which a component is used.

    Attributes:
        path: Names of the DAG tasks around it and its own, joined by ``/``. The last one stands in the places of its
            outputs (since KFP 2.14; a display name is shown and nothing else).
        body: Its ``PipelineTaskSpec``.
        component: The ``ComponentSpec`` that it uses.
        outer: The DAG task around it, ``None`` at the root.
        siblings: The tasks of the same DAG by name, itself among them.
        inner: The tasks of its DAG by name; empty for one of an executor.
    """

    path: str
    body: dict[str, Any]
    component: dict[str, Any]
    outer: Task | None
    siblings: dict[str, Task]
    inner: dict[str, Task] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The executor's label, empty for a DAG."""
        label: str = self.component.get("executorLabel", "")
        return label

    @property
    def inputs(self) -> dict[str, Any]:
        """Definitions of the input artifacts."""
        return artifacts(self.component.get("inputDefinitions"), f"the inputs of {shown(self.path)}")

    @property
    def outputs(self) -> dict[str, Any]:
        """Definitions of the output artifacts."""
        return artifacts(self.component.get("outputDefinitions"), f"the outputs of {shown(self.path)}")


def members(value: Any, what: str, known: frozenset[str]) -> dict[str, Any]:
    """Return an object whose members are all known; an empty one where there is none.

    Raises:
        PipelineError: No object, or an unknown member.
    """
    for name in mapping(value, what):
        if name not in known:
            raise PipelineError(
                f"In {what} stands {printable(name, 80)!r}, which this release does not know.",
                next_step="Compile it with the kfp SDK 2.16 or 2.17; if a newer one wrote this, update sealflow.",
            )
    return value if value is not None else {}


def mapping(value: Any, what: str) -> dict[str, Any]:
    """Return an object; an empty one where there is none.

    Raises:
        PipelineError: It is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise PipelineError(f"{what[:1].upper()}{what[1:]} must be an object, found {type(value).__name__}.")
    return value


def part(value: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return an object within objects; those that lack on the way are made.

    Raises:
        PipelineError: Something else lies there.
    """
    for name in names:
        if value.get(name) is None:
            value[name] = {}
        value = mapping(value[name], name)
    return value


def text(value: Any, what: str) -> str:
    """Return a text that is not empty.

    Raises:
        PipelineError: It is something else.
    """
    if not isinstance(value, str) or not value:
        raise PipelineError(f"{what[:1].upper()}{what[1:]} must be text.")
    return value


def strings(value: Any, what: str) -> list[str]:
    """Return a list of texts; an empty one where there is none.

    Raises:
        PipelineError: It is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise PipelineError(f"{what[:1].upper()}{what[1:]} must be a list of texts.")
    return value


def shown(name: str) -> str:
    """Return a name for messages."""
    return repr(printable(name, 120))


def artifacts(value: Any, what: str) -> dict[str, Any]:
    """Return the artifacts of a ``{"artifacts": …, "parameters": …}`` pair."""
    return mapping(members(value, what, _PAIR).get("artifacts"), what)


class Dag:
    """All tasks of a pipeline. DAGs that are used several times are copied, so that each task has one place.

    Args:
        spec: The ``PipelineSpec``; it is changed in place.
        speaks: Tells whether what tasks of an executor make is signed in the task's own name.

    Attributes:
        spec: The ``PipelineSpec``.
        name: The pipeline's name.
        executors: The executors by label.
    """

    def __init__(self, spec: dict[str, Any], speaks: Callable[[dict[str, Any]], bool]) -> None:
        self.spec = members(spec, "the pipeline", _SPEC)
        self.name = text(mapping(spec.get("pipelineInfo"), "pipelineInfo").get("name"), "the pipeline's name")
        self.components = mapping(spec.get("components"), "components")
        deployment = members(spec.get("deploymentSpec"), "deploymentSpec", frozenset({"executors"}))
        self.executors: dict[str, Any] = mapping(deployment.get("executors"), "deploymentSpec.executors")
        for name, component in self._specs():
            _check_component(component, f"the component {shown(name)}")
        self._speaks = speaks
        self._copied = 0
        self._read_all()

    def _read_all(self) -> None:
        self._count = 0
        self._used: dict[str, int] = {}
        self._made: dict[tuple[Task, str], frozenset[Producer] | None] = {}
        root = mapping(self.spec.get("root"), "root")
        if "dag" not in root:
            raise PipelineError("The pipeline's root has no DAG.")
        self._tasks = self._read(root, None, 1)

    def tell_apart(self, kept: Collection[str]) -> dict[str, str]:
        """Give every task of an executor a name that no other task of the pipeline has.

        The place of an output holds the task's own name, and none of the DAGs around it. Outer tasks keep their names.

        Args:
            kept: Names that cannot be changed, since something else speaks of them.

        Returns:
            The path that each renamed task had, and its new name.
        """
        taken: set[str] = set()
        every: set[str] = set()
        waiting: list[tuple[dict[str, Any], dict[str, Task]]] = [(self.spec["root"]["dag"], self._tasks)]
        levels = []
        while waiting:
            dag, tasks = waiting.pop(0)
            levels.append((dag, tasks))
            every |= tasks.keys()
            waiting += [(task.component["dag"], task.inner) for task in tasks.values() if not task.label]
        numbers: Counter[str] = Counter()
        renamed = {}
        for dag, tasks in levels:
            for name, task in tasks.items():
                if not task.label:
                    continue
                if name in taken and name not in kept:
                    new = name
                    while new in every:
                        numbers[name] += 1
                        new = f"{name}-{numbers[name] + 1}"
                    every.add(new)
                    _rename(dag, name, new)
                    renamed[task.path] = new
                    name = new
                taken.add(name)
        if renamed:
            self._read_all()
        return renamed

    def _specs(self) -> Iterator[tuple[str, Any]]:
        yield from self.components.items()
        yield "root", self.spec.get("root")

    def all_bodies(self) -> Iterator[dict[str, Any]]:
        """Yield every ``PipelineTaskSpec``, those of parts that nothing uses among them."""
        for _, component in self._specs():
            if "dag" in component:
                yield from component["dag"].get("tasks", {}).values()

    def component_settings(self) -> Iterator[Any]:
        """Yield what components say of platforms by themselves."""
        for _, component in self._specs():
            if "singlePlatformSpecs" in component:
                yield component["singlePlatformSpecs"]

    def loops(self, task: Task, plan: Plan) -> Iterator[str]:
        """Yield the loops around a task in which its inputs are made as well."""
        makers = {producer.task for producers in plan.inputs.values() for producer in producers}
        outer = task.outer
        while outer is not None:
            if {"parameterIterator", "artifactIterator"} & outer.body.keys() and any(
                maker.startswith(f"{outer.path}/") for maker in makers
            ):
                yield outer.path
            outer = outer.outer

    def tasks(self) -> Iterator[Task]:
        """Yield the tasks of executors, from the root on."""
        waiting = list(reversed(self._tasks.values()))
        while waiting:
            task = waiting.pop()
            if task.label:
                yield task
            waiting += reversed(task.inner.values())

    def _read(self, component: dict[str, Any], outer: Task | None, level: int) -> dict[str, Task]:
        if level > MAX_LEVELS:
            raise PipelineError(
                f"The pipeline has more than {MAX_LEVELS} DAGs in one another, or one that holds itself."
            )
        found: dict[str, Task] = {}
        for name, body in component["dag"].get("tasks", {}).items():
            self._count += 1
            if self._count > MAX_TASKS:
                raise PipelineError(f"The pipeline has more than {MAX_TASKS} tasks.")
            if not name or "/" in name:
                raise PipelineError(f"{shown(name)} is no name of a task.")
            path = name if outer is None else f"{outer.path}/{name}"
            task = Task(path, body, self._component_of(body, path), outer, found)
            found[name] = task
            if not task.label:
                task.inner = self._read(task.component, task, level + 1)
            elif task.label not in self.executors:
                raise PipelineError(
                    f"The task {shown(path)} names the executor {shown(task.label)}, which is not there."
                )
        return found

    def _component_of(self, body: dict[str, Any], path: str) -> dict[str, Any]:
        where = f"the component of {shown(path)}"
        name = text(members(body.get("componentRef"), where, _REFERENCE).get("name"), where)
        component: dict[str, Any] | None = self.components.get(name)
        if component is None:
            raise PipelineError(f"The task {shown(path)} names the component {shown(name)}, which is not there.")
        if "dag" not in component:
            return component
        if name not in self._used:
            self._used[name] = 1
            return component
        # Copies of copies grow without end in a pipeline of a few lines.
        self._copied += len(strictjson.dumps(component))
        if self._copied > MAX_PIPELINE:
            raise PipelineError(f"Written out, the pipeline has more than {MAX_PIPELINE} bytes.")
        made = name
        while made in self.components:
            self._used[name] += 1
            made = f"{name}-{self._used[name]}"
        body["componentRef"]["name"] = made
        component = self.components[made] = copy.deepcopy(component)
        self._used[made] = 1
        return component

    def producers(self, task: Task, name: str) -> tuple[Producer, ...]:
        """Return who may have made a task's input; empty when the pipeline does not say.

        Raises:
            PipelineError: The pipeline names a task or an output that is not there.
        """
        found = self._of_input(task, name)
        return () if found is None else tuple(sorted(found))

    def _of_input(self, task: Task, name: str) -> frozenset[Producer] | None:
        while True:
            where = f"the input {shown(name)} of {shown(task.path)}"
            given = artifacts(task.body.get("inputs"), f"the inputs of {shown(task.path)}").get(name)
            if given is None:
                return None
            source = members(given, where, _INPUT)
            if len(source) != 1:
                raise PipelineError(f"{where[:1].upper()}{where[1:]} must come from one place.")
            if "taskOutputArtifact" in source:
                made = members(source["taskOutputArtifact"], where, _FROM_TASK)
                producer = task.siblings.get(text(made.get("producerTask"), where))
                if producer is None:
                    raise PipelineError(f"{where[:1].upper()}{where[1:]} comes from a task that is not there.")
                return self._of_output(producer, text(made.get("outputArtifactKey"), where))
            name = text(source["componentInputArtifact"], where)
            if task.outer is None:
                return None
            task = task.outer
            iterator = mapping(task.body.get("artifactIterator"), f"the iterator of {shown(task.path)}")
            if iterator.get("itemInput") == name:
                items = mapping(iterator.get("items"), f"the iterator of {shown(task.path)}")
                name = text(items.get("inputArtifact"), f"the iterator of {shown(task.path)}")

    def _of_output(self, task: Task, name: str) -> frozenset[Producer] | None:
        key = (task, name)
        if key not in self._made:
            self._made[key] = self._makers(task, name)
        return self._made[key]

    def _makers(self, task: Task, name: str) -> frozenset[Producer] | None:
        where = f"the output {shown(name)} of {shown(task.path)}"
        if task.label:
            if name not in task.outputs:
                raise PipelineError(f"{where[:1].upper()}{where[1:]} is not there.")
            return frozenset({Producer(task.path, name)}) if self._speaks(self.executors[task.label]) else None
        outputs = artifacts(task.component["dag"].get("outputs"), f"the outputs of {shown(task.path)}")
        if name not in outputs:
            raise PipelineError(f"{where[:1].upper()}{where[1:]} is not there.")
        listed = members(outputs[name], where, _OUTPUT).get("artifactSelectors")
        if not isinstance(listed, list) or not listed:
            raise PipelineError(f"{where[:1].upper()}{where[1:]} comes from nowhere.")
        found: set[Producer] = set()
        known = True
        for item in listed:
            selector = members(item, where, _SELECTOR)
            inner = task.inner.get(text(selector.get("producerSubtask"), where))
            if inner is None:
                raise PipelineError(f"{where[:1].upper()}{where[1:]} comes from a task that is not there.")
            makers = self._of_output(inner, text(selector.get("outputArtifactKey"), where))
            found |= makers or frozenset()
            known = known and makers is not None
        return frozenset(found) if known else None


def _rename(dag: dict[str, Any], old: str, new: str) -> None:
    """Rename a task of a DAG, and whatever in the DAG speaks of it."""
    tasks = dag["tasks"]
    tasks[new] = tasks.pop(old)
    info = mapping(tasks[new].get("taskInfo"), "taskInfo")
    if info.get("name") == old:
        info["name"] = new
    for body in tasks.values():
        if isinstance(body.get("dependentTasks"), list):
            body["dependentTasks"] = [new if name == old else name for name in body["dependentTasks"]]
        _replace(body.get("inputs"), "producerTask", old, new)
    _replace(dag.get("outputs"), "producerSubtask", old, new)


def _replace(value: Any, key: str, old: str, new: str) -> None:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get(key) == old:
                value[key] = new
            # What an author gives as a constant is his, whatever it looks like.
            waiting += [item for name, item in value.items() if name != "runtimeValue"]
        elif isinstance(value, list):
            waiting += value


def _check_component(component: Any, what: str) -> None:
    members(component, what, _COMPONENT)
    if not component or ("dag" in component) is ("executorLabel" in component):
        raise PipelineError(f"{what[:1].upper()}{what[1:]} must have either a DAG or an executor.")
    if "executorLabel" in component:
        text(component["executorLabel"], f"the executor of {what}")
        return
    if component["dag"] is None:
        component["dag"] = {}
    dag = members(component["dag"], f"the DAG of {what}", _DAG)
    if dag.get("tasks") is None:
        dag.pop("tasks", None)
    for name, body in mapping(dag.get("tasks"), f"the tasks of {what}").items():
        members(body, f"the task {shown(name)} of {what}", _TASK)
        if not body:
            raise PipelineError(f"The task {shown(name)} of {what} is empty.")
