"""Hardens one compiled pipeline: the verb behind :func:`sealflow_kfp.harden`."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow import strictjson
from sealflow.findings import printable
from sealflow_kfp.guard_command import IN_DIRECTORY, IN_IMAGE
from sealflow_kfp.hardening import commands, installs, platform
from sealflow_kfp.hardening.reading import PipelineError
from sealflow_kfp.hardening.report import Gap, Report
from sealflow_kfp.hardening.structure import Dag, Task, mapping, members, part, shown, strings, text
from sealflow_kfp.plan import PLAN_PARAMETER, TASK_PARAMETER, Plan
from sealflow_kfp.run_context import RESERVED_PREFIX, RUN_ID_PARAMETER

_KINDS: Final = frozenset({"container", "importer", "resolver", "customJob"})
_CONTAINER: Final = frozenset({"image", "command", "args", "lifecycle", "resources", "env"})
#: An output that the hardener adds: a page on what the wrapper checked. The task's command does not see it.
VERDICT_OUTPUT: Final = "sealflow_verdict"
_VERDICT: Final = {"artifactType": {"schemaTitle": "system.HTML", "schemaVersion": "0.0.1"}}

# What KFP puts in their place, where a constant is nothing else.
_RUN_ID: Final = "{{$.pipeline_job_uuid}}"
_TASK_NAME: Final = "{{$.pipeline_task_name}}"

# KFP hands a task all of its input in one argument; the kernel takes no longer one (MAX_ARG_STRLEN).
_LARGEST: Final = 131_071
#: What is left for parameters that are known only when the pipeline runs.
_ROOM: Final = 32 << 10
#: What an artifact adds with its evidence: a provenance of usual size in Base64, location, type.
_ARTIFACT: Final = 8 << 10


#: Where the guard can be, and what then stands before a command.
GUARDS: Final = {"image": IN_IMAGE, "directory": IN_DIRECTORY}


@dataclass(frozen=True)
class Options:
    """How to harden.

    Attributes:
        secret: Kubernetes secret with settings and keys; empty: the cluster mounts them.
        policy_config_map: Config map with the admin's file; empty: the cluster mounts it.
        entrypoints: For images whose executors have no command: what the image would run.
        keep_installs: Leave run-time installs as they are.
        lock: Replaces run-time installs.
        local: For kfp.local, never for a cluster.
        guard: Where the guard is, a key of :data:`GUARDS`.
    """

    secret: str = ""
    policy_config_map: str = ""
    entrypoints: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep_installs: bool = False
    lock: installs.Lock | None = None
    local: bool = False
    guard: str = "image"


def harden_pipeline(spec: dict[str, Any], platform_spec: dict[str, Any], options: Options) -> Report:
    """Harden a pipeline in place.

    Args:
        spec: Its ``PipelineSpec``.
        platform_spec: Its ``PlatformSpec``, empty where it has none.
        options: How.

    Raises:
        PipelineError: It is no pipeline, or holds what can never be guarded.
        UsageError: An option does not fit it.
    """
    dag = Dag(spec, _speaks)
    report = Report(dag.name)
    report.renamed = dag.tell_apart(platform.producers(platform_spec))
    _Executors(dag, platform_spec, options, report).harden()
    for body in dag.all_bodies():
        # An entry of the cache is found without a look at any byte.
        body["cachingOptions"] = {}
    for task in dag.tasks():
        _harden_task(dag, task, options, report)
    for name, count in Counter(task.path.rpartition("/")[2] for task in dag.tasks()).items():
        if count > 1:
            report.gaps.add(
                Gap("SAME_NAME", name, f"{count} tasks are called so.", "Give each task a name of its own.")
            )
    if options.guard == "directory" and report.wrapped:
        report.gaps.add(
            Gap(
                "GUARD_DIRECTORY",
                dag.name,
                "The cluster has to mount the guard directory; a pipeline of kfp 2.16 and 2.17 cannot ask for it.",
                "Set the spec patch (sealflow kfp spec-patch), or run the admission server.",
            )
        )
    if platform.has_workspace(platform_spec):
        report.gaps.add(
            Gap(
                "WORKSPACE",
                dag.name,
                "The pipeline has a workspace, and what lies there can be changed by each of its tasks.",
                "Hand artifacts on as outputs; policy refuses what comes from a workspace without evidence.",
            )
        )
    return report


def _speaks(executor: dict[str, Any]) -> bool:
    container = executor.get("container")
    # What a component of sealflow's hands on keeps the evidence of who made it.
    return isinstance(container, dict) and _own(container) is None


def _own(container: dict[str, Any]) -> str | None:
    command = commands.unmarked(strings(container.get("command"), "a command"))
    found = commands.own_component(command, strings(container.get("args"), "arguments"))
    return found[0] if found is not None and found[1] else None


class _Executors:
    """The executors of a pipeline."""

    def __init__(self, dag: Dag, platform_spec: dict[str, Any], options: Options, report: Report) -> None:
        self._dag = dag
        self._executors = dag.executors
        self._platform = platform_spec
        self._options = options
        self._report = report

    def harden(self) -> None:
        there = mapping(self._platform.get("platforms"), "platforms")
        platform.check_platforms(self._platform, self._executors)
        for beside in (*platform.others(self._platform), *self._dag.component_settings()):
            # Nobody knows which executor these are for.
            self._check("", {}, beside)
        mounts = bool(self._options.secret or self._options.policy_config_map)
        configs = platform.executors(self._platform) if there or mounts else {}
        for label, executor in self._executors.items():
            where = f"The executor {shown(label)}"
            kinds = members(executor, f"the executor {shown(label)}", _KINDS)
            if len(kinds) != 1:
                raise PipelineError(f"{where} must be one thing: a container or an importer.")
            if "importer" in executor:
                self._importer(label, mapping(executor["importer"], "an importer"))
                continue
            if "container" not in executor:
                self._gap(
                    "EXECUTOR_UNKNOWN", label, f"It is a {next(iter(kinds))}, which runs elsewhere.", "Take it out."
                )
                continue
            container = members(executor["container"], f"the executor {shown(label)}", _CONTAINER)
            config = configs.get(label)
            self._check(label, container, config)
            if not self._command(label, container):
                continue
            if mounts:
                configs[label] = mapping(config, f"the platform's {shown(label)}")
                platform.mount(configs[label], self._options.secret, self._options.policy_config_map)

    def _gap(self, code: str, label: str, message: str, next_step: str) -> None:
        self._report.gaps.add(Gap(code, label, message, next_step))

    def _importer(self, label: str, importer: dict[str, Any]) -> None:
        self._gap(
            "IMPORTER",
            label,
            "KFP imports the artifact unseen; the tasks that read it verify it by the policy alone.",
            "Use sealflow_kfp.verified_import, or let the policy pin the digest.",
        )
        uri = mapping(importer.get("artifactUri"), "a location")
        if any(isinstance(value, str) and value.startswith("oci://") for value in (uri.get("constant"),)):
            self._gap("OCI_INPUT", label, "It imports an image.", "Pin the image's digest in the policy.")
        if importer.get("downloadToWorkspace"):
            self._gap("WORKSPACE", label, "It puts the artifact into the workspace, in clear.", "Import without that.")

    def _check(self, label: str, container: dict[str, Any], config: Any) -> None:
        where = f"The executor {shown(label)}" if label else "The pipeline"
        label = label or self._dag.name
        apart = self._options.guard == "directory"
        for path in platform.check_volumes(config, where, self._options.secret, self._options.policy_config_map, apart):
            self._gap("PROGRAM_VOLUME", label, f"It mounts a volume at {printable(path, 120)}.", "Mount it elsewhere.")
        for name in platform.check_variables(container, config, where, apart):
            self._gap("PROGRAM_VARIABLE", label, f"It sets {name}.", "Set what it names in the image.")
        if container.get("lifecycle"):
            self._gap(
                "LIFECYCLE_HOOK", label, "It has a hook that runs before the cache is asked.", "Take the hook out."
            )

    def _command(self, label: str, container: dict[str, Any]) -> bool:
        """Wrap an executor's command; ``False`` where it has none."""
        where = f"The executor {shown(label)}"
        command = commands.unmarked(strings(container.get("command"), f"the command of {shown(label)}"))
        args = strings(container.get("args"), f"the arguments of {shown(label)}")
        if not command:
            image = text(container.get("image"), f"the image of {shown(label)}")
            command = list(self._options.entrypoints.get(image, ()))
            if not command:
                self._gap(
                    "ENTRYPOINT_UNKNOWN",
                    label,
                    f"It has no command; what runs is said by the image {printable(image, 120)} alone.",
                    f"Say what it runs: --entrypoint '{printable(image, 120)}=COMMAND …'",
                )
                return False
        own = commands.own_component(command, args)
        if own is not None and own[1]:
            container["command"] = command
            self._report.own.add(label)
            return True
        if own is not None:
            self._gap(
                "OTHER_RELEASE",
                label,
                f"It is called {own[0]}, and its source is not this release's.",
                "Compile the pipeline with this release of sealflow.",
            )
        if self._options.lock is not None:
            command = installs.pinned(command, self._options.lock, where)
        elif not self._options.keep_installs and (packages := installs.installed(command, where)):
            command = installs.without_install(command)
            self._gap(
                "INSTALL_REMOVED",
                label,
                f"It no longer installs {printable(', '.join(packages))}.",
                "Use an image that holds it, or pin it: --lock FILE.",
            )
        if installs.installs_elsewhere(command, args):
            self._gap(
                "RUNTIME_INSTALL", label, "It speaks of installing packages when it runs.", "Put them into the image."
            )
        if self._options.local:
            command = commands.marked(command)
        container["command"] = commands.wrapped(command, where, GUARDS[self._options.guard])
        self._report.wrapped.add(label)
        return True


def _harden_task(dag: Dag, task: Task, options: Options, report: Report) -> None:
    executor = dag.executors[task.label]
    if "container" not in executor:
        return
    report.tasks += 1
    values = {RUN_ID_PARAMETER: _RUN_ID}
    given = part(task.body, "inputs", "parameters")
    definitions = part(task.component, "inputDefinitions", "parameters")
    if task.label in report.own:
        if RUN_ID_PARAMETER in definitions:
            _give(given, definitions, values)
        return
    plan = Plan(
        pipeline=dag.name,
        task=task.path,
        inputs={name: dag.producers(task, name) for name in task.inputs},
        outputs=tuple(sorted(set(task.outputs) - {VERDICT_OUTPUT})),
    )
    values |= {TASK_PARAMETER: _TASK_NAME, PLAN_PARAMETER: plan.to_text()}
    for name in {**definitions, **given, **task.inputs}:
        if name.startswith(RESERVED_PREFIX) and name not in values:
            raise _reserved(task, "parameter" if name not in task.inputs else "input", name)
    for name, definition in task.outputs.items():
        if name.startswith(RESERVED_PREFIX) and definition != _VERDICT:
            raise _reserved(task, "output", name)
    part(task.component, "outputDefinitions", "artifacts")[VERDICT_OUTPUT] = copy.deepcopy(_VERDICT)
    _give(given, definitions, values)
    _check_size(task, given, report)
    for loop in dag.loops(task, plan):
        report.gaps.add(
            Gap("LOOP", loop, "Its iterations hand artifacts on, and are not told apart.", "Use one task an iteration.")
        )


def _reserved(task: Task, kind: str, name: str) -> PipelineError:
    return PipelineError(
        f"The task {shown(task.path)} has the {kind} {shown(name)}.",
        next_step="Names that begin with sealflow_ are not for pipelines: none of them chooses policy or keys.",
    )


def _give(given: dict[str, Any], definitions: dict[str, Any], values: dict[str, str]) -> None:
    for name, value in values.items():
        given[name] = {"runtimeValue": {"constant": value}}
        definitions[name] = {"isOptional": True, "parameterType": "STRING"}


def _check_size(task: Task, given: dict[str, Any], report: Report) -> None:
    size = len(strictjson.dumps(given)) + _ARTIFACT * (len(task.inputs) + len(task.outputs))
    lists = sorted(name for name, item in task.inputs.items() if isinstance(item, dict) and item.get("isArtifactList"))
    if size > _LARGEST - _ROOM:
        message = f"Its known inputs alone come to about {size} bytes."
    elif lists:
        # A provenance has at most 16 KiB, and some 330 bytes for each thing that it was made of.
        message = f"The input {shown(lists[0])} may be many artifacts; a task can take about 40."
    else:
        return
    report.gaps.add(Gap("LARGE_INPUT", task.path, message, "Hand over less at once: files instead of parameters."))
