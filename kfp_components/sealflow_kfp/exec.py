"""``python3 -I -m sealflow_kfp.exec --executor-input '{{$}}' -- COMMAND…``: guards any command of a KFP task.

The task's inputs are verified, and decrypted, before the command runs; its outputs are signed, and encrypted, after it.
Whom to believe, who signs and how strict to be comes from the admin's policy and from what is mounted into the task,
never from an argument, a parameter or a variable that a pipeline can set.

====== ================================================================================================
status meaning
====== ================================================================================================
0      the command ended with 0, and every output is signed
97     refused: an input or an output is not to be believed
98     the task cannot be guarded as it is set up: arguments, plan, settings, keys
99     nobody can say: a policy, a store, a key service or the audit log is out of reach; another try may
other  the command's own; 128 + n when signal n ended it, 126 and 127 when it cannot be run
====== ================================================================================================

KFP uploads outputs after status 0 only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NoReturn

from sealflow_kfp.child import Signals, StoppedError

if TYPE_CHECKING:
    from sealflow.errors import SealflowError
    from sealflow_kfp.executor_io import ExecutorInput

REFUSED: Final = 97
MISCONFIGURED: Final = 98
UNAVAILABLE: Final = 99

OPTION: Final = "--executor-input"
_USAGE: Final = "python3 -I -m sealflow_kfp.exec --executor-input '{{$}}' -- COMMAND…"
#: Variables that settings of the core can come from, or that say what Python loads; and those among them that stay.
_PREFIXES: Final = ("SEALFLOW_", "PYTHON")
_KEPT: Final = frozenset({"SEALFLOW_MOUNT", "SEALFLOW_STATE_DIR", "SEALFLOW_TERMINATION_LOG", "SEALFLOW_TMPDIR"})


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Guard one command, and return the exit status.

    Args:
        arguments: By default those of the process.
        environment: The command's; by default the one of the process.
    """
    signals = Signals()
    try:
        from sealflow.collector import end_without_collection, rare_collection

        end_without_collection()
        # Most of a small task is imports.
        with rare_collection():
            return _main(
                sys.argv[1:] if arguments is None else list(arguments),
                dict(os.environ if environment is None else environment),
                signals,
            )
    except StoppedError as stopped:
        return 128 + stopped.number
    finally:
        # What is done is done, and the interpreter's own end is no place for an exception.
        signals.ignore()


def _main(arguments: list[str], environment: dict[str, str], signals: Signals) -> int:
    from sealflow.errors import SealflowError, UsageError

    try:
        text, command = _parsed(arguments)
        # The core knows a task by this argument. What stands in the command's own is the command's affair.
        sys.argv = [sys.argv[0], "--executor_input", text]
        for name in list(os.environ):
            # A pipeline can set any variable.
            if name.startswith(_PREFIXES) and name not in _KEPT:
                del os.environ[name]
        # What is wrong with a policy is worded with pydantic. Plugins of it that lie in a task's image have no say in
        # that.
        os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
        from sealflow_kfp.executor_io import ExecutorInput

        given = ExecutorInput.parse(text)
    except SealflowError as error:
        return _end([error if isinstance(error, UsageError) else _as_usage(error)])
    return _guarded(given, command, environment, signals)


def _guarded(given: ExecutorInput, command: list[str], environment: dict[str, str], signals: Signals) -> int:
    from sealflow.errors import SealflowError

    if not given.concerned:
        # A task of parameters alone need not pay for what guards artifacts.
        return _unguarded(given, command, environment, signals)
    from sealflow_kfp.task_guard import Guard, Problems, say
    from sealflow_kfp.telling import terminate

    guard = Guard(given)
    begun = done = False
    try:
        try:
            guard.before()
            text = given.rewritten(guard.moved, guard.metadata)
            command = given.command(command, text, guard.moved)
        except SealflowError as error:
            raise Problems([error]) from None
        begun = True
        try:
            status = signals.run(command, environment)
        except SealflowError as error:
            raise Problems([error]) from None
        if status:
            said = f"The command itself ended with status {status}; nothing is signed."
            say(said)
            if status in (REFUSED, MISCONFIGURED, UNAVAILABLE):
                terminate(said)
            return status
        signals.check()
        guard.after()
        signals.check()
        done = True
    except Problems as problems:
        guard.record(problems)
        return _end(problems.errors)
    finally:
        signals.ignore()
        guard.close()
        if begun and not done:
            guard.discard()
    say(guard.summary())
    return 0


def _unguarded(given: ExecutorInput, command: list[str], environment: dict[str, str], signals: Signals) -> int:
    """Run the command of a task without artifacts; where the pipeline asks for a page, that is the only one."""
    from sealflow.errors import SealflowError

    text = given.rewritten({}, {})
    try:
        status = signals.run(given.command(command, text, {}), environment)
    except SealflowError as error:
        return _end([error])
    if status or given.page is None:
        return status
    from sealflow.storage.local import replace_file
    from sealflow_kfp.executor_io import ExecutorOutput
    from sealflow_kfp.page import make_page
    from sealflow_kfp.run_context import NO_ARTIFACTS, names_in

    found = names_in(given.page.uri)
    page = make_page(f"kfp:{found.workflow}/{found.task}" if found else "kfp", found.run if found else "")
    try:
        if given.output_file:
            output = ExecutorOutput.read(given.output_file)
            before = output.to_bytes()
            output.drop(NO_ARTIFACTS)
            if output.to_bytes() != before:
                replace_file(given.output_file, output.to_bytes())
        os.makedirs(os.path.dirname(given.page.path), exist_ok=True)
        replace_file(given.page.path, page.encode("utf-8"))
    except SealflowError as error:
        return _end([error])
    return 0


def _parsed(arguments: list[str]) -> tuple[str, list[str]]:
    from sealflow.errors import UsageError
    from sealflow.findings import printable

    text: str | None = None
    rest = list(arguments)
    while rest and rest[0] != "--":
        option, sign, value = rest.pop(0).partition("=")
        if option != OPTION:
            raise UsageError(
                f"{printable(option, 80)!r} is no option of the wrapper.",
                next_step=f"Write {_USAGE}. Policy, keys and settings come from mounts alone.",
            )
        if text is not None or (not sign and not rest):
            raise UsageError(f"{OPTION} takes one value, once.", next_step=f"Write {_USAGE}.")
        text = value if sign else rest.pop(0)
    if text is None or len(rest) < 2:
        raise UsageError("There is no executor input, or no command.", next_step=f"Write {_USAGE}.")
    return text, rest[1:]


def _as_usage(error: SealflowError) -> SealflowError:
    from sealflow.errors import UsageError

    return UsageError(error.message, next_step=f"Let KFP write it: {_USAGE}.")


def _end(errors: Sequence[SealflowError]) -> int:
    from sealflow_kfp.telling import status_of, tell

    status = status_of(errors, refused=REFUSED, misconfigured=MISCONFIGURED, unavailable=UNAVAILABLE)
    tell(errors, status)
    return status


def _run() -> NoReturn:
    # Python puts the working folder before all others, unless it was told not to (-I). What lies there is not ours.
    here = os.getcwd()
    if sys.path and sys.path[0] in ("", here) and not __file__.startswith(os.path.join(here, "sealflow_kfp", "")):
        del sys.path[0]
    sys.exit(main())


if __name__ == "__main__":
    _run()
