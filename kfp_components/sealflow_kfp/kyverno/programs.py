"""What a pod's main container runs: a task under guard, KFP's driver, an import, or something else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import mounts, shapes
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.hardening.commands import own_patterns
from sealflow_kfp.kyverno.expressions import (
    Rule,
    Variable,
    all_of,
    any_of,
    begins,
    matches,
    one_line,
    option_is,
    options,
    positions,
    sidecar,
    text,
    texts,
)

#: Where the programs before the guard lie, and when they are used.
_PROGRAMS: Final = {
    place: f"variables.command.size() > 0 && variables.command[0].startsWith({text(f'{place}/')})"
    for place in (shapes.ARGO_MOUNT, "/argo-bin")
} | {shapes.LAUNCHER_MOUNT: "variables.launched"}


def variables(settings: Settings) -> Iterator[Variable]:
    """Yield names for the parts of the main container's command, and for what it is."""
    kubeflow = settings.kubeflow
    yield Variable("positions", positions())
    yield Variable("mains", 'object.spec.containers.filter(c, c.name == "main")')
    for name, field in (("command", "command"), ("args", "args"), ("mounts", "volumeMounts")):
        yield Variable(
            name, f"variables.mains.size() == 1 && has(variables.mains[0].{field}) ? variables.mains[0].{field} : []"
        )
    yield Variable(
        "image", 'variables.mains.size() == 1 && has(variables.mains[0].image) ? variables.mains[0].image : ""'
    )
    yield Variable(
        "seams", 'variables.positions.filter(i, i < variables.command.size() && variables.command[i] == "--")'
    )
    # Where Argo's program ends, and what it starts begins.
    yield Variable("start", "variables.seams.size() > 0 ? variables.seams[0] + 1 : 0")
    yield Variable(
        "emissary",
        one_line(f"""
            variables.start > 2 && variables.command[0] in {texts(shapes.EMISSARIES)}
            && variables.command[1] == "emissary"
            && {options("variables.command", "2", "variables.start - 1", shapes.EXECUTOR_OPTIONS)}
        """),
    )
    known = shapes.LAUNCHER_OPTIONS | set(kubeflow.options)
    last = "variables.command.size() - 1"
    yield Variable(
        "launched",
        one_line(f"""
            variables.emissary && variables.seams.size() == 2 && variables.seams[1] == {last}
            && variables.command[variables.start] == {text(shapes.LAUNCHER)}
            && {options("variables.command", "variables.start + 1", last, known)}
            && {option_is("variables.command", "executor_type", "container")}
            && variables.command.exists(word, word == "--executor_input" || word.startsWith("--executor_input="))
        """),
    )
    yield Variable("guarded", _guarded(settings))
    yield Variable("task", "variables.launched && variables.guarded")
    yield Variable("driver", _program(kubeflow.driver_command, kubeflow.driver_images, "", settings))
    importer = option_is("variables.args", "executor_type", "importer")
    named = 'variables.args.exists(word, word == "--executor_type" || word == "--executor_type=importer")'
    yield Variable(
        "importer",
        _program(kubeflow.launcher_command, kubeflow.launcher_images, f"{named} && {importer}", settings, known=True),
    )


def _guarded(settings: Settings) -> str:
    under = (
        f"variables.args.size() > {len(guard_command.IN_DIRECTORY)} && "
        f"{begins('variables.args', guard_command.IN_DIRECTORY)}"
    )
    if not settings.images.sealflow:
        return under
    return any_of([under, f"variables.image in {texts(settings.images.sealflow)} && {own_component()}"])


def own_component() -> str:
    """Return the expression that the arguments are one of sealflow's own components, source and all."""
    shell, sources, last = own_patterns()
    named = any_of(
        f"variables.args[7] == {text(name)} && {matches('variables.args[3]', source)}"
        for name, source in sources.items()
    )
    return one_line(f"""
        variables.args.size() == 8 && variables.args[0] == "sh" && variables.args[1] == "-ec"
        && {matches("variables.args[2]", shell)} && {begins("variables.args", last, "4")} && ({named})
    """)


def _program(
    command: tuple[str, ...], images: tuple[str, ...], more: str, settings: Settings, *, known: bool = False
) -> str:
    names = shapes.LAUNCHER_OPTIONS | set(settings.kubeflow.options) if known else None
    return one_line(f"""
        variables.emissary && variables.image in {texts(images)}
        && variables.command.size() == variables.start + {len(command)}
        && {begins("variables.command", command, "variables.start")}
        && {options("variables.args", "0", "variables.args.size()", names)} {f"&& {more}" if more else ""}
    """)


def rules(settings: Settings) -> Iterator[Rule]:
    """Yield the rules on what runs."""
    # Whoever makes pods runs anything in these, and so nothing in them is near the task.
    beside = sidecar(settings.kubeflow.sidecar_images)
    yield Rule(
        f"""variables.everything.all(c, ({beside}) || !has(c.env)
            || c.env.all(e, e.name != {text(shapes.HIDDEN_ARGUMENTS)}))""",
        "ARGUMENTS_HIDDEN: the arguments come from a config map, where nobody sees them at admission. Shorten them.",
    )
    yield Rule(
        all_of(["variables.mains.size() == 1", "variables.task || variables.driver || variables.importer"]),
        "TASK_UNGUARDED: no task under sealflow's guard, no driver or import of KFP's, and no pod that is exempt. "
        "Harden the pipeline: sealflow kfp harden --guard directory.",
    )
    brought = [
        f"!({needed}) || variables.mounts.exists(m, "
        f"m.mountPath == {text(place)} && m.name == {text(mounts.SYSTEM[place])})"
        for place, needed in _PROGRAMS.items()
    ]
    yield Rule(
        all_of(brought),
        "TASK_UNGUARDED: Argo's program or KFP's launcher is the image's own, where the cluster's has to be mounted.",
    )
    yield Rule(
        'has(object.spec.restartPolicy) && object.spec.restartPolicy == "Never"',
        "POD_REFUSED: its containers are started again in the same pod, where one could put something for the next.",
    )
    yield Rule(
        f"""variables.everything.all(c, ({beside}) || !has(c.env) || c.env.all(e,
            !e.name.matches("(?i)^(?:SEALFLOW_.*|LD_PRELOAD|LD_AUDIT|ARGO_DEBUG_.*)$")))""",
        "VARIABLE_REFUSED: a variable SEALFLOW_…, LD_PRELOAD, LD_AUDIT or ARGO_DEBUG_… is set.",
    )
