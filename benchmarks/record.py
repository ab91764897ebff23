"""What was measured, kept as JSON: benchmarks/figures.json is what docs/performance.md is made from."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.parts import Measured, Part

FILE = Path(__file__).with_name("figures.json")
_KINDS = {kind.__name__: kind for kind in (table.Row, table.Timing, table.Rate, table.Figure, table.Missing)}


@dataclasses.dataclass(frozen=True)
class Record:
    """One measured section.

    Attributes:
        rows: What was measured.
        machine: On what.
        measured: The day.
        rounds: Half of the counted runs of each command.
        seconds: How long it took, ``None`` where that was not kept.
    """

    rows: Measured
    machine: str
    measured: str
    rounds: int
    seconds: float | None = None


#: Sections by name, by the name of their part.
Records = Mapping[str, Mapping[str, Record]]


def machine() -> str:
    """Say what the figures are from."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs{f' ({model})' if model else ''}, {memory:.0f} GiB, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}"
    )


def read() -> Records:
    """Read what was kept; nothing is an empty record."""
    return {
        part: {
            name: Record(
                [_KINDS[row.pop("kind")](**row) for row in body["rows"]],
                body["machine"],
                body["measured"],
                body["rounds"],
                body["seconds"],
            )
            for name, body in sections.items()
        }
        for part, sections in _kept().items()
    }


def keep(part: Part, section: str, rows: Measured, rounds: int, seconds: float) -> None:
    """Put a section measured now in the place of what was kept of it."""
    kept = _kept()
    kept.setdefault(part.name, {})[section] = {
        "machine": machine(),
        "measured": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "rounds": rounds,
        "rows": [{"kind": type(row).__name__, **dataclasses.asdict(row)} for row in rows],
        "seconds": round(seconds, 1),
    }
    # A section that is gone or has another name takes its figures with it.
    kept[part.name] = {name: body for name, body in kept[part.name].items() if name in part.sections}
    FILE.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _kept() -> dict[str, dict[str, Any]]:
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.exists() else {}
