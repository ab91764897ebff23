"""The commands of executors: put the wrapper before them, know sealflow's own, and take run-time installs away."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path
from typing import Final

from sealflow_kfp.guard_command import IN_IMAGE, is_guarded, looks_guarded
from sealflow_kfp.hardening.reading import PipelineError
from sealflow_kfp.hardening.structure import shown

# How kfp starts a lightweight component (dsl/component_factory.py, 2.0 to 2.17), white space aside.
_PROGRAM: Final = (
    'program_path=$(mktemp -d) printf "%s" "$0" > "$program_path/ephemeral_component.py" _KFP_RUNTIME=true python3 -m '
    'kfp.dsl.executor_main --component_module_path "$program_path/ephemeral_component.py" "$@"'
)
_HEADER: Final = re.compile(
    r"(?:(?:import kfp|from kfp import dsl|from kfp\.dsl import \*|from typing import (?:\*|NamedTuple))?\n)*"
)
_ARGUMENTS: Final = ("--executor_input", "{{$}}", "--function_to_execute")
_EXECUTOR: Final = "kfp.dsl.executor_main"
_MARKED: Final = ("env", f"SEALFLOW_LOCAL_RUNNER={_EXECUTOR}")


def wrapped(command: list[str], where: str, guard: tuple[str, ...] = IN_IMAGE) -> list[str]:
    """Return a command behind the guard.

    Args:
        command: It, as :func:`unmarked` returns it.
        where: Its executor, for messages.
        guard: What stands before it.

    Raises:
        PipelineError: It starts the wrapper itself.
    """
    if looks_guarded(command):
        raise PipelineError(
            f"{where} starts the wrapper itself, in another way than the hardener.",
            next_step="Take the wrapper out of the command; the hardener puts it there.",
        )
    return [*guard, *command]


def unmarked(command: list[str]) -> list[str]:
    """Return what was the command before the hardener came; one that it has not seen stays as it is."""
    guarded = is_guarded(command)
    if guarded is None:
        return command
    return guarded[len(_MARKED) :] if tuple(guarded[: len(_MARKED)]) == _MARKED else guarded


def marked(command: list[str]) -> list[str]:
    """Return a command that kfp.local's SubprocessRunner runs; it runs what speaks of kfp's executor, and no other."""
    return command if any(_EXECUTOR in item for item in command) else [*_MARKED, *command]


def own_component(command: list[str], args: list[str]) -> tuple[str, bool] | None:
    """Return which of sealflow's components an executor is, and whether it is exactly this release's.

    Only the whole source tells: a name is whatever its author likes.
    """
    if len(args) != 4 or tuple(args[:3]) != _ARGUMENTS:
        return None
    name = args[3]
    source = _sources().get(name)
    if source is None:
        return None
    exact = (
        len(command) == 4
        and command[:2] == ["sh", "-ec"]
        and " ".join(command[2].split()) == _PROGRAM
        and command[3].rstrip("\n").endswith(source)
        and _HEADER.fullmatch(command[3].rstrip("\n")[: -len(source)]) is not None
    )
    return name, exact


def own_patterns() -> tuple[str, dict[str, str], tuple[str, ...]]:
    """Return how this release's own components look, for what judges commands without this module.

    Returns:
        A pattern (RE2) for the shell's program, one for the source by the component's name, and the arguments that
        stand before that name.
    """
    program = r"\s+".join(rf"\Q{word}\E" for word in _PROGRAM.split())
    sources = {name: rf"{_HEADER.pattern}\Q{source}\E\n*" for name, source in _sources().items()}
    return rf"\s*{program}\s*", sources, _ARGUMENTS


@functools.cache
def _sources() -> dict[str, str]:
    """Return the source of every component by its name, without importing the module, which imports kfp."""
    spec = importlib.util.find_spec("sealflow_kfp._functions")
    if spec is None or spec.origin is None:
        raise PipelineError(f"The source of sealflow's components is missing from {shown(__name__)}.")
    text = Path(spec.origin).read_text(encoding="utf-8")
    return {
        node.name: ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
    }
