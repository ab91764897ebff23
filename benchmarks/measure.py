"""Whole processes, measured by the kernel's own accounting: CPU seconds, wall seconds, peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
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


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> Sample:
    """Run a command to its end and measure it; its failure is an error, never a figure."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(env))
    assert process.stderr is not None
    with process.stderr:
        errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:300]} ended with {process.returncode}: {errors.decode()[-2000:]}")
    return Sample(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss / 1024)


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
