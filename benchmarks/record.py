"""What was measured, kept as JSON: benchmarks/figures.json is what docs/performance.md is made from."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.parts import Measured, Part

FILE = Path(__file__).with_name("figures.json")
_KINDS = {kind.__name__: kind for kind in (table.Row, table.Timing, table.Rate, table.Figure)}


@dataclasses.dataclass(frozen=True)
class Record:
    """One measured part.

    Attributes:
        rows: What was measured.
        machine: On what.
        measured: The day.
        rounds: Half of the counted runs of each command.
    """

    rows: Measured
    machine: str
    measured: str
    rounds: int

    @property
    def broken(self) -> list[str]:
        """Names of the rows out of their bounds."""
        return [row.name for row in self.rows if not row.holds]


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


def read() -> dict[str, Record]:
    """Read what was kept, by the part's name; nothing is an empty record."""
    if not FILE.exists():
        return {}
    return {
        name: Record(
            [_KINDS[row.pop("kind")](**row) for row in body["rows"]], body["machine"], body["measured"], body["rounds"]
        )
        for name, body in json.loads(FILE.read_text(encoding="utf-8")).items()
    }


def keep(measured: Sequence[tuple[Part, Measured]], rounds: int) -> None:
    """Put parts measured now in the place of what was kept of them."""
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    for part, rows in measured:
        kept[part.name] = {
            "machine": machine(),
            "measured": today,
            "rounds": rounds,
            "rows": [{"kind": type(row).__name__, **dataclasses.asdict(row)} for row in rows],
        }
    FILE.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
