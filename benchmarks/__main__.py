"""Run the benchmarks, print their tables and keep them: ``python -m benchmarks [PART[:SECTION]…] [--rounds N]``.

What is kept is benchmarks/figures.json, from which docs/performance.md and its plots are written anew, after each
section. With ``--quick`` or ``--dry`` nothing is kept. What cannot be measured here is named with the reason, and the
rest goes on. The status is 1 when a figure is out of its bounds or was not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import record, report
from benchmarks.parts import PARTS, Part
from benchmarks.promises import called
from benchmarks.table import Missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep, and say what was not measured and which bounds do not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(part.called(section) for part in PARTS for section in part.sections)
    parser.add_argument("parts", nargs="*", metavar="PART[:SECTION]", help=f"what is measured (all): {names}")
    parser.add_argument("--rounds", type=int, default=5, help="half of the counted runs of each command (default 5)")
    parser.add_argument("--quick", action="store_true", help="small data; for trying the benchmarks, not for figures")
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    options = parser.parse_args(arguments)
    try:
        asked = chosen(options.parts)
    except ValueError as error:
        parser.error(str(error))
    start = time.perf_counter()
    run = _Run(options.rounds, options.quick, keep=not options.quick and not options.dry)
    for part, sections in asked:
        run.part(part, sections)
    print(f"All of it took {report.duration(time.perf_counter() - start)}.", flush=True)
    for title, lines in (("Not measured", run.unmeasured), ("Out of bounds", run.broken)):
        if lines:
            print(f"{title}:\n" + "\n".join(f"- {line}" for line in lines), file=sys.stderr)
    return 1 if run.unmeasured or (run.broken and not options.quick) else 0


def chosen(names: Sequence[str]) -> list[tuple[Part, list[str]]]:
    """Return parts and sections of these names in their order, all of them without a name.

    Raises:
        ValueError: A name is unknown.
    """
    known = {part.called(section) for part in PARTS for section in part.sections} | {part.name for part in PARTS}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    found = []
    for part in PARTS:
        sections = [name for name in part.sections if not names or {part.name, part.called(name)} & set(names)]
        if sections:
            found.append((part, sections))
    return found


class _Run:
    """One run, and what it cannot say of itself before its end.

    Attributes:
        unmeasured: What was not measured, and why.
        broken: Rows out of their bounds.
    """

    def __init__(self, rounds: int, quick: bool, keep: bool) -> None:
        self._rounds, self._quick, self._keep = rounds, quick, keep
        self.unmeasured: list[str] = []
        self.broken: list[str] = []

    def part(self, part: Part, sections: Sequence[str]) -> None:
        """Measure sections of a part; an error is told and ends that section alone."""
        with contextlib.ExitStack() as stack:
            within = None
            try:
                if part.within:
                    within = stack.enter_context(part.within(Path(stack.enter_context(_folder()))))
            except Exception as error:
                for section in sections:
                    self._failed(part.called(section), error)
                return
            for section in sections:
                self._section(part, section, within)

    def _section(self, part: Part, section: str, within: Any) -> None:
        name, start = part.called(section), time.perf_counter()
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            with _folder() as folder:
                place = Path(folder) if within is None else within
                measured = part.sections[section](place, self._rounds, self._quick)
        except Exception as error:
            self._failed(name, error)
            return
        seconds = time.perf_counter() - start
        print(f"{part.title}: {name}, {report.duration(seconds)}\n\n{report.rendered(part, measured)}\n", flush=True)
        self.unmeasured += [f"{name}: {row.name}: {row.why}" for row in measured if isinstance(row, Missing)]
        self.broken += [f"{name}: {called(row)}" for row in measured if not row.holds]
        # After each section: a run takes long, and what was measured is not lost with it.
        if self._keep:
            record.keep(part, section, measured, self._rounds, seconds)
            report.write(record.read())

    def _failed(self, name: str, error: Exception) -> None:
        traceback.print_exception(error)
        self.unmeasured.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _folder() -> tempfile.TemporaryDirectory[str]:
    # In memory where possible: a disk would be measured instead of us.
    shm = "/dev/shm"
    roomy = os.path.isdir(shm) and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 4 << 30
    return tempfile.TemporaryDirectory(prefix="sealflow-bench-", dir=shm if roomy else None)


if __name__ == "__main__":
    sys.exit(main())
