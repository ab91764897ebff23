"""Runs the command of a task: signals go to all of its processes, and its exit status is the task's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Final

#: What is forwarded: all that ends, stops or tells a program something, and can be caught.
FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGWINCH,
)
#: ``PR_SET_CHILD_SUBREAPER`` of prctl(2), Linux 3.4.
_SET_CHILD_SUBREAPER: Final = 36
#: Seconds between two looks at processes that are being ended.
_PAUSE: Final = 0.005
#: Statuses of a shell for a command that cannot be run (POSIX, 2.8.2).
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127


class StoppedError(BaseException):
    """The wrapper was told to end while no command was running.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Keeps signals until a command runs, then forwards them to it.

    Outside of the command those that end a program raise :class:`StoppedError`, so that private copies are removed.
    """

    def __init__(self) -> None:
        self._group: int | None = None
        self._starting = False
        self._waiting: list[int] = []
        self._sending = False
        self._stopped: int | None = None
        sys.unraisablehook = _tell_unraisable
        for number in FORWARDED:
            # What was ignored on purpose (nohup) stays ignored, for the command too.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._starting:
            # As little as can be: a flood of signals interrupts this, too, and must not pile up.
            if number not in self._waiting:
                self._waiting.append(number)
            if self._group is not None and not self._sending:
                self._forward(self._group)
        elif number in FORWARDED[:4]:
            self.ignore()
            self._stopped = number
            raise StoppedError(number)

    def _forward(self, group: int) -> None:
        while self._waiting:
            self._sending = True
            while self._waiting:
                _send(group, self._waiting.pop(0))
            # What comes between the last look and this line is seen by the outer loop.
            self._sending = False

    def check(self) -> None:
        """Raise once more what was raised where nobody could take it: an object was just being cleaned up.

        Raises:
            StoppedError: The wrapper was told to end.
        """
        if self._stopped is not None:
            raise StoppedError(self._stopped)

    @staticmethod
    def ignore() -> None:
        """Take no signal from now on: what is cleaned up now must not be interrupted."""
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command to its end, and return its status; 128 and the signal's number where one ended it.

        What it leaves running is ended, wherever it went: it could still write to what is signed next.

        Raises:
            UsageError: It left something running, and nothing here says what: there is no ``/proc``.
        """
        self._starting = True
        adopted = _adopt()
        try:
            # A group of its own: what a signal is meant for is the command with all of its children.
            child = subprocess.Popen(command, env=dict(environment), start_new_session=True)  # noqa: S603
        except FileNotFoundError:
            self._starting = False
            return _cannot(command, "there is no such program", NOT_FOUND)
        except (OSError, ValueError) as error:
            self._starting = False
            return _cannot(command, getattr(error, "strerror", None) or str(error), NOT_EXECUTABLE)
        self._group = child.pid
        self._forward(child.pid)
        try:
            _wait(child.pid)
        finally:
            _send(child.pid, signal.SIGKILL)
            # From here on the number can become somebody else's.
            self._group = None
            status = child.wait()
            if adopted:
                _end_children()
            self._starting = False
            # What came too late for the command is for the wrapper.
            self._stopped = next((number for number in self._waiting if number in FORWARDED[:4]), None)
        return status if status >= 0 else 128 - status


def _tell_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    error = unraisable.exc_value
    # Python's word for a signal that came just when it was to be ignored.
    ignored = unraisable.object is None and isinstance(error, OSError) and "race condition" in str(error)
    if not ignored and not isinstance(error, StoppedError):
        sys.__unraisablehook__(unraisable)


def _wait(command: int) -> None:
    """Wait until the command has ended, without reaping it: its group's number belongs to nobody else meanwhile."""
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) is not None and ended.si_pid != command:
        os.waitpid(ended.si_pid, 0)


def _adopt() -> bool:
    """Become the parent of all descendants whose own parent ends; tell whether this system can."""
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (AttributeError, OSError):
        return False  # not Linux: KFP's local runner on somebody's own machine


def _end_children() -> None:
    """End all descendants: children of one that ends become ours, so none is left when no child is left."""
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for number in _children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        time.sleep(_PAUSE)


def _children() -> list[int]:
    found, own = [], str(os.getpid())
    try:
        names = os.listdir("/proc")
    except OSError:
        names = []
    if own not in names:
        from sealflow.errors import UsageError

        raise UsageError(
            "The command left processes running, and there is no /proc that would name them.",
            next_step="Mount /proc into the container, or let the command wait for what it starts.",
        )
    for name in names:
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                # The name in parentheses may hold anything; state and parent follow the last one.
                if file.read().rpartition(")")[2].split()[1] == own:
                    found.append(int(name))
    return found


def _send(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _cannot(command: Sequence[str], why: str, status: int) -> int:
    from sealflow.findings import printable

    print(f"sealflow: {printable(command[0])} cannot be run: {printable(why)}.", file=sys.stderr, flush=True)
    return status
