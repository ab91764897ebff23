"""Whole processes, measured by the kernel's own accounting: CPU seconds, wall seconds, peak memory."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One finished process.

    Attributes:
        cpu: User and system seconds.
        wall: Seconds.
        peak: Peak resident set in MiB.
    """

    cpu: float
    wall: float
    peak: float


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of every measured process: bytecode is kept, as it is wherever a wheel is installed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **(extra or {})}


# A process begins with the peak of the one that it was forked from, and we may have grown; this one is as small as an
# idle interpreter.
_LAUNCHER = """
import json, os, sys, time
report, command = int(sys.argv[1]), sys.argv[2:]
os.set_inheritable(report, False)
start = time.perf_counter()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
taken = [usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss / 1024]
os.write(report, json.dumps([os.waitstatus_to_exitcode(status), taken]).encode())
"""


#: Most seconds of one command: a full disk of a server blocks its clients for ever, without an error.
PATIENCE = 1800.0


def run(command: Sequence[str], env: Mapping[str, str] | None = None, patience: float = PATIENCE) -> Sample:
    """Run a command to its end and measure it; its failure is an error, never a figure.

    Args:
        command: The program and its arguments.
        env: More variables for it.
        patience: Seconds after which it is ended, and what it started with it.

    Raises:
        RuntimeError: It failed, or took too long.
    """
    called = " ".join(" ".join(map(str, command)).split())[:300]
    ours, theirs = os.pipe()
    with open(ours, "rb") as answer:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(theirs), *map(str, command)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment(env),
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        try:
            _, errors = process.communicate(timeout=patience)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise RuntimeError(f"did not end within {patience:g} s ({called})") from None
            raise
        status, taken = json.loads(answer.read() or b"[-1, []]")
    if process.returncode or status:
        raise RuntimeError(f"ended with {status}: {errors.decode(errors='replace')[-2000:]} ({called})")
    return Sample(*taken)


def interleaved(
    commands: Mapping[str, Sequence[str]], rounds: int, env: Mapping[str, str] | None = None
) -> dict[str, Sample]:
    """Run all commands in turn, one warm-up round and then ``rounds``, and return each one's medians.

    In turn, so that a machine whose speed drifts slows the peers alike.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            sample = run(command, env)
            if turn:
                samples[name].append(sample)
    return {
        name: Sample(
            *(statistics.median(values) for values in zip(*((s.cpu, s.wall, s.peak) for s in taken), strict=True))
        )
        for name, taken in samples.items()
    }


def python(code: str) -> list[str]:
    """Return the command that runs a piece of Python without the site's own hooks being measured twice."""
    return [sys.executable, "-c", code]
