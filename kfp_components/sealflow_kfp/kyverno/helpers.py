"""KFP's and Argo's own programs in a pod: what they are told, and what lies beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sealflow_kfp import guard_command
from sealflow_kfp.admission import argo_template, pod_helpers, shapes, variables
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.kyverno.expressions import Rule, all_of, any_of, matches, sidecar, text, texts

#: Members of a template of Argo's that KFP compiles none of, in whatever case, as Go reads them. In a text inside of
#: the template the quotes have backslashes before them, so what is found is a member.
_BRINGS: Final = (
    r'(?i)"(?:artifacts|containerSet|daemon|dag|data|git|hdfs|http|plugin|raw|resource|script|sidecars|steps|suspend)"'
    r"\s*:"
)
#: Escapes for letters, by which such names could be hidden; Go takes two further signs for s and k.
_HIDDEN: Final = r"\\u(?:00(?:[46][1-9a-fA-F]|5[0-9aA]|7[0-9aA])|017[fF]|212[aA])"
_OUTPUTS: Final = r'(?i)"outputs"\s*:'
_NO_OUTPUTS: Final = r'(?i)"outputs"\s*:\s*(?:\{\s*[^}\s]|[^{\s])'
_TWO_OUTPUTS: Final = r'(?is)"outputs"\s*:.*"outputs"\s*:'
_TEXT: Final = r'"[^"\\]*"'
_SOURCE: Final = rf'(?:"default":{_TEXT}|"path":"{argo_template.OUTPUT_PATH}")'
_MEMBER: Final = rf'(?:"(?:default|description|name|value)":{_TEXT}|"valueFrom":\{{{_SOURCE}(?:,{_SOURCE})*\}})'
_PARAMETER: Final = rf"\{{{_MEMBER}(?:,{_MEMBER})*\}}"
#: Outputs of KFP's driver, as Go writes them.
_DRIVERS: Final = rf'"outputs":\{{(?:"parameters":\[{_PARAMETER}(?:,{_PARAMETER})*\])?\}}'


def rules(settings: Settings) -> Iterator[Rule]:
    """Yield the rules."""
    beside = sidecar(settings.kubeflow.sidecar_images)
    yield Rule(
        f"variables.everything.all(c, ({beside}) || !has(c.envFrom) || c.envFrom.size() == 0)",
        "VARIABLE_REFUSED: a container takes variables from where nobody sees them at admission (envFrom). Set the "
        "spec patch: sealflow kfp spec-patch.",
    )
    told = all_of([f"e.all(k, k in {texts(['name', 'value'])})", "has(e.value)", _template("e.value")])
    given = f'e.name == "{argo_template.VARIABLE}"'
    needed = texts(sorted({*pod_helpers.ARGO_BEFORE, *pod_helpers.ARGO_BESIDE} - {"wait"}))
    argo = texts(sorted({"main", *pod_helpers.ARGO_BEFORE, *pod_helpers.ARGO_BESIDE}))
    yield Rule(
        f"""variables.everything.all(c, !(c.name in {argo}) || ({beside}) || (
            [has(c.env) ? c.env.filter(e, {given}) : []].all(them, them.size() < 2
                && (them.size() == 1 || !(c.name in {needed})) && them.all(e, {told}))))""",
        "MOUNT_REFUSED: what Argo's program is told (ARGO_TEMPLATE) is not a template of KFP's, written out: it would "
        "bring files into the pod, send some away, or run something again.",
    )
    yield Rule(_first(), "TASK_UNGUARDED: Argo's own container does not write the template before main starts.")
    # Of containers beside the task, and of main where it runs KFP's program and no task.
    others = {"kfp-launcher", "main", guard_command.INIT_CONTAINER, *pod_helpers.ARGO_BEFORE, *pod_helpers.ARGO_BESIDE}
    program = f"""!({beside}) && (c.name != "main" || !variables.task) && c.name in {texts(sorted(others))}"""
    names = sorted({*variables.PROGRAM_VARIABLES, *settings.kubeflow.variables})
    yield Rule(
        f"""variables.everything.all(c, !({program}) || !has(c.env)
            || c.env.all(e, {matches("e.name", variables.PROGRAM_PATTERN)} || e.name in {texts(names)}))""",
        "VARIABLE_REFUSED: a program of KFP's or Argo's has a variable that neither gives it (kubeflow.variables).",
    )


def _template(value: str) -> str:
    """Return the expression that a text is a template of KFP's. CEL reads no JSON."""
    outputs = any_of(
        [
            f"!{value}.matches({text(_NO_OUTPUTS)})",
            f"""variables.driver && !{value}.matches({text(_TWO_OUTPUTS)})
                && (!{value}.matches({text(_OUTPUTS)}) || {value}.matches({text(_DRIVERS)}))""",
        ]
    )
    return all_of(
        [
            f'{value}.startsWith("{{") && {value}.endsWith("}}")',
            f"!{value}.matches({text(_BRINGS)}) && !{value}.matches({text(_HIDDEN)})",
            outputs,
        ]
    )


def _first() -> str:
    copied, mounted = shapes.EMISSARIES
    waits = f"""variables.mains[0].env.filter(e, e.name == {text(shapes.WAITS)})"""
    return f"""variables.mains.size() != 1 || variables.command.size() == 0
        || (variables.command[0] == {text(copied)} && variables.inits.exists(c, c.name == "init"))
        || (variables.command[0] == {text(mounted)} && object.spec.containers.exists(c, c.name == "supervisor")
            && has(variables.mains[0].env) && {waits}.size() == 1
            && {waits}.all(e, has(e.value) && e.value == "true"))"""
