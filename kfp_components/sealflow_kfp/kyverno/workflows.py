"""The policy on Workflows: what can be seen before their pods are made, and caching, of which pods show nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.settings import STUB_IMAGES, Settings
from sealflow_kfp.kyverno.expressions import (
    MAX_WORDS,
    Rule,
    Variable,
    any_of,
    one_line,
    option_is,
    positions,
    text,
)

#: An option that turns caching on, in both spellings that KFP's readers of JSON know.
_CACHES: Final = r'"(?:enableCache|enable_cache)"\s*:\s*true'
_OBJECT: Final = rf"^[{shapes.JSON_SPACE}]*\{{"
#: An escape in JSON that stands for a letter, a digit or an underscore: nobody writes one but to hide a word.
_HIDDEN: Final = r"(?:^|[^\\])(?:\\\\)*\\u00(?:3[0-9]|[46][1-9a-fA-F]|5[0-9aA]|7[0-9aA]|5[fF])"


def variables(settings: Settings) -> list[Variable]:
    """Return what the rules have names for."""
    return [
        Variable("positions", positions()),
        Variable("templates", "has(object.spec.templates) ? object.spec.templates : []"),
        Variable(
            "parameters",
            one_line("""
                has(object.spec.arguments) && has(object.spec.arguments.parameters)
                ? object.spec.arguments.parameters : []
            """),
        ),
        Variable("dags", "variables.templates.filter(t, has(t.dag) && has(t.dag.tasks))"),
        # A driver that looks into the cache says where its answer goes.
        Variable(
            "drivers",
            one_line("""
                variables.templates.filter(t, has(t.container) && has(t.container.args)
                && t.container.args.exists(word, word.matches("(?s)^--?cached_decision_path(?:=.*)?$")))
            """),
        ),
        Variable(
            "uncached",
            one_line("""
                variables.drivers.all(t, t.container.args.exists(word, word == "--cache_disabled=true")
                && t.container.args.all(word, word == "--cache_disabled=true"
                    || !word.matches("(?s)^--?cache_disabled(?:=.*)?$")))
            """),
        ),
    ]


def rules(settings: Settings) -> Iterator[Rule]:
    """Yield the rules. Each is also about what was changed since the Workflow was made."""
    yield _changed(
        "!has(object.spec.workflowTemplateRef) && variables.templates.all(t, (has(t.dag) || has(t.container)) && "
        "!has(t.steps)) && variables.dags.all(t, t.dag.tasks.all(k, !has(k.templateRef) && !has(k.inline)))",
        "WORKFLOW_REFUSED: a template is none that KFP compiles, or stands in another object, where nobody sees it.",
    )
    # KFP writes a task out. What Argo would fill in could turn caching on, or be all of it.
    written = f"""p.value == "" || p.value == {text(shapes.HANDED_ON)}
        || (p.value.matches({text(_OBJECT)}) && !p.value.matches({text(shapes.ARGO_TAG.pattern)}))"""
    yield _changed(
        f"""{_tasks(f"has(p.value) && ({written})")} && variables.templates.all(t, !has(t.inputs)
            || !has(t.inputs.parameters) || t.inputs.parameters.all(p, !has(p.name) || p.name != "task"
                || (!has(p.value) && !has(p.valueFrom) && (!has(p.default) || p.default == ""))))""",
        "WORKFLOW_REFUSED: a task is not written out in the Workflow, so that nobody sees whether it is cached.",
    )
    yield _changed(
        _tasks(f"!has(p.value) || !p.value.matches({text(_HIDDEN)})"),
        "WORKFLOW_REFUSED: a task is written with escapes for letters, so that nobody sees whether it is cached.",
    )
    handed = option_is("t.container.args", "task", shapes.HANDED_ON)
    spelled = f"!word.matches({text('(?s)^(?:-task(?:=.*)?|--task=.*)$')})"
    yield _changed(
        f"""(variables.uncached && variables.drivers.size() > 0)
            || ({_tasks(f"!has(p.value) || !p.value.matches({text(_CACHES)})")}
                && variables.templates.all(t, !has(t.container) || !has(t.container.args)
                    || (t.container.args.size() <= {MAX_WORDS} && {handed}
                        && t.container.args.all(word, {spelled}))))""",
        "CACHE_ON: a task may be taken from the cache, where nothing is verified. Set CACHEENABLED=false on the "
        "Deployment ml-pipeline, or harden the pipeline.",
    )
    yield _changed(
        f"""variables.parameters.all(p, !has(p.name) || !p.name.startsWith("implementations-")
            || (has(p.value) && !p.value.matches({text(_HIDDEN)}) && ({any_of(_implementations(settings))})))""",
        "TASK_UNGUARDED: a task's command does not begin with the guard, or is written with escapes for letters. "
        "Harden the pipeline: sealflow kfp harden --guard directory.",
    )


def _tasks(rule: str) -> str:
    """Return the expression that a rule holds for each argument ``p`` called task, of tasks and of their hooks."""
    each = """(!has({0}.arguments) || !has({0}.arguments.parameters)
        || {0}.arguments.parameters.all(p, !has(p.name) || p.name != "task" || ({1})))"""
    task, hook = each.format("k", rule), each.format("k.hooks[h]", rule)
    return f"variables.dags.all(t, t.dag.tasks.all(k, {task} && (!has(k.hooks) || k.hooks.all(h, {hook}))))"


def _implementations(settings: Settings) -> Iterator[str]:
    words = r"\s*,\s*".join(rf'"\Q{word}\E"' for word in guard_command.IN_DIRECTORY)
    begins = rf'"command"\s*:\s*\[\s*{words}\s*[,\]]'
    yield f"p.value.matches({text(begins)})"
    # What runs no command of its own: imports, and the volumes that KFP's driver makes itself.
    yield """!p.value.contains("\\"image\\"") && !p.value.contains("\\"command\\"")"""
    images = [*sorted(STUB_IMAGES), *settings.images.sealflow]
    named = "|".join(rf"\Q{image}\E" for image in images)
    pattern = rf'"image"\s*:\s*"(?:{named})"'
    yield f"p.value.matches({text(pattern)})"


def _changed(expression: str, message: str) -> Rule:
    same = 'request.operation == "UPDATE" && has(oldObject.spec) && object.spec == oldObject.spec'
    return Rule(one_line(f"({same}) || ({expression})"), message)


RESOURCES = ("workflows",)
#: Version of Argo's API that Workflows have.
GROUP, VERSION = "argoproj.io", "v1alpha1"
