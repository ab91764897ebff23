"""Run the benchmarks, print their tables and keep them: ``python -m benchmarks [PART…] [--rounds N] [--quick]``.

What is kept is benchmarks/figures.json, from which docs/performance.md and its plots are written anew. With ``--quick``
nothing is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import record, report
from benchmarks.parts import PARTS


def main() -> int:
    """Measure, print, keep, and say which bounds do not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = [part.name for part in PARTS]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what is measured (all): {', '.join(known)}")
    parser.add_argument("--rounds", type=int, default=5, help="half of the counted runs of each command (default 5)")
    parser.add_argument("--quick", action="store_true", help="small data; for trying the benchmarks, not for figures")
    parser.add_argument("--dry", action="store_true", help="keep nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    broken = []
    # In memory where possible: a disk would be measured instead of us.
    shm = "/dev/shm"
    roomy = os.path.isdir(shm) and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 4 << 30
    for part in PARTS:
        if arguments.parts and part.name not in arguments.parts:
            continue
        with tempfile.TemporaryDirectory(prefix="sealflow-bench-", dir=shm if roomy else None) as folder:
            rows = part.measure(Path(folder), arguments.rounds, arguments.quick)
        print(f"{part.title}\n\n{report.rendered(part, rows)}\n", flush=True)
        broken += [f"{part.name}: {row.name}" for row in rows if not row.holds]
        # After each part: a run takes long, and what was measured is not lost with it.
        if rows and not arguments.quick and not arguments.dry:
            record.keep([(part, rows)], arguments.rounds)
            report.write(record.read())
    if broken:
        print(f"Out of bounds: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
