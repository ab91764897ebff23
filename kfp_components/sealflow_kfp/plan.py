"""What a hardened pipeline says to each of its tasks: where its inputs come from, and what it makes.

The hardener writes it as the value of a parameter, the wrapper around the task's command reads it. Canonical JSON:

    {"inputs": {"model": {"producers": [["train-loop/train", "model"]]}}, "outputs": ["scores"], "pipeline": "churn",
     "sealflow_plan": 1, "task": "score"}

Whoever compiles a pipeline can write any plan. It can therefore only tighten what the policy demands: it names the
producers that are expected, and nobody is trusted because a plan names him.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable

#: Parameters that the hardener adds to each task; the run's is :data:`sealflow_kfp.run_context.RUN_ID_PARAMETER`.
PLAN_PARAMETER: Final = "sealflow_plan"
TASK_PARAMETER: Final = "sealflow_task"
VERSION: Final = 1
#: Longest text in bytes. It is handed over within one argument of at most 128 KiB.
MAX_PLAN: Final = 32 << 10
#: Longest name of a task's path, an input or an output, in characters.
MAX_NAME: Final = 1024

_WHAT = f"The parameter {PLAN_PARAMETER}"
_MEMBERS = frozenset({"sealflow_plan", "pipeline", "task", "inputs", "outputs"})
_INPUT = frozenset({"producers"})


class Producer(NamedTuple):
    """An output of a task.

    Attributes:
        task: The task's path: the names of the DAG tasks around it and its own, joined by ``/``.
        output: The output's name.
    """

    task: str
    output: str


class Plan(NamedTuple):
    """What one task of a pipeline is expected to be given and to make.

    Attributes:
        pipeline: The pipeline's name.
        task: The task's path in the DAG.
        inputs: For each input artifact the outputs one of which it must be; several where branches join or a loop is
            collected. Empty: the pipeline does not say, and the policy alone judges.
        outputs: Names of the output artifacts, sorted.
    """

    pipeline: str
    task: str
    inputs: Mapping[str, tuple[Producer, ...]] = MappingProxyType({})
    outputs: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return the canonical text.

        Raises:
            UsageError: A name that cannot stand in a plan, or more than 32 KiB.
        """
        body = {
            "sealflow_plan": VERSION,
            "pipeline": self.pipeline,
            "task": self.task,
            "inputs": {
                name: {"producers": [list(producer) for producer in sorted(set(producers))]}
                for name, producers in self.inputs.items()
            },
            "outputs": sorted(set(self.outputs)),
        }
        text = strictjson.dumps(body).decode("utf-8")
        try:
            Plan.parse(text)
        except EvidenceError as error:
            raise UsageError(
                f"The task {printable(self.task, 200)!r} can have no plan: {error.message}",
                next_step="Names have at most 256 printable signs and no '{{'; a plan has at most 32 KiB.",
            ) from None
        return text

    @classmethod
    def parse(cls, text: Any) -> Plan:
        """Read an untrusted plan.

        Raises:
            EvidenceError: Not text, too long, not this form, not canonical, or of another version.
        """
        if not isinstance(text, str):
            raise EvidenceError(f"{_WHAT} is {type(text).__name__}, not text.")
        # Before encoding: a character has at least one byte.
        if len(text) > MAX_PLAN:
            raise EvidenceError(f"{_WHAT} has more than {MAX_PLAN} bytes.")
        body = strictjson.loads(text.encode("utf-8", "replace"), limit=MAX_PLAN, what=_WHAT)
        version = strictjson.member(body, "sealflow_plan", int, _WHAT)
        if version != VERSION:
            raise EvidenceError(f"{_WHAT} has the version {version}; this release reads version {VERSION}.")
        strictjson.only_members(body, _MEMBERS, _WHAT)
        if strictjson.dumps(body).decode("utf-8") != text:
            raise EvidenceError(f"{_WHAT} is not in canonical form.")
        inputs = strictjson.member(body, "inputs", dict, _WHAT)
        outputs = [_name(item, "an output") for item in strictjson.member(body, "outputs", list, _WHAT)]
        if outputs != sorted(set(outputs)):
            raise EvidenceError(f"{_WHAT} lists outputs twice or out of order.")
        return cls(
            pipeline=_name(body.get("pipeline"), "the pipeline"),
            task=_path(body.get("task")),
            inputs={_name(name, "an input"): _producers(name, value) for name, value in inputs.items()},
            outputs=tuple(outputs),
        )


def _producers(name: str, value: Any) -> tuple[Producer, ...]:
    what = f"{_WHAT}: input {printable(name, 80)!r}"
    listed = strictjson.member(value, "producers", list, what)
    strictjson.only_members(value, _INPUT, what)
    found = []
    for item in listed:
        if not isinstance(item, list) or len(item) != 2:
            raise EvidenceError(f"{what}: a producer is a pair of a task and an output.")
        found.append(Producer(_path(item[0]), _name(item[1], "an output")))
    if found != sorted(set(found)):
        raise EvidenceError(f"{what} lists producers twice or out of order.")
    return tuple(found)


def _path(value: Any) -> str:
    path = _name(value, "a task", MAX_NAME)
    if not all(path.split("/")):
        raise EvidenceError(f"{_WHAT}: {printable(path, 80)!r} is no path of a task.")
    return path


def _name(value: Any, what: str, longest: int = 256) -> str:
    # Braces are a placeholder to KFP and to Argo; what it becomes, this plan would not have said.
    if not isinstance(value, str) or not value.isprintable() or "{{" in value or not 0 < len(value) <= longest:
        raise EvidenceError(f"{_WHAT}: {printable(value, 80)!r} is no name of {what}.")
    return value
