"""Figures as a table for terminals and for docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured command; the ratio is its CPU time over the bare hash of the same bytes.

    Attributes:
        data: Data set.
        name: Command.
        cpu: CPU seconds.
        wall: Wall seconds.
        peak: Peak memory in MiB.
        ratio: CPU over the peer's.
        bound: The ratio that it must not exceed, ``None`` for peers.
        memory: MiB above an idle interpreter.
        memory_bound: The most it may take.
    """

    data: str
    name: str
    cpu: float
    wall: float
    peak: float
    ratio: float
    bound: float | None
    memory: float | None
    memory_bound: float | None

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bounds."""
        within = self.bound is None or self.ratio <= self.bound
        return within and (self.memory_bound is None or (self.memory or 0) <= self.memory_bound)


@dataclass(frozen=True)
class Timing:
    """One time that is a figure by itself, without a peer.

    Attributes:
        name: What was done.
        seconds: Wall seconds.
        bound: The most it may take, ``None`` where nothing was promised.
    """

    name: str
    seconds: float
    bound: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.bound is None or self.seconds <= self.bound


@dataclass(frozen=True)
class Rate:
    """How many bytes go through in a second; more is better.

    Attributes:
        name: What was done.
        wall: GB (10^9 bytes) a second.
        cpu: GB a CPU second, which neighbours hardly disturb.
        bound: The least it has to be by the clock, ``None`` where nothing was promised.
    """

    name: str
    wall: float
    cpu: float
    bound: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.bound is None or self.wall >= self.bound


@dataclass(frozen=True)
class Figure:
    """A figure of any kind.

    Attributes:
        name: What was measured.
        value: The figure.
        unit: Its unit: ``x`` for a ratio.
        least: The least it has to be, ``None`` where nothing was promised.
        most: The most it may be.
    """

    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bounds."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


@dataclass(frozen=True)
class Missing:
    """A figure that could not be had, said aloud in its place.

    Attributes:
        name: What was to be measured.
        why: Why it was not.
    """

    name: str
    why: str

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bounds; there is none."""
        return True


Kind = Row | Timing | Rate | Figure | Missing


def missing(title: str, rows: Sequence[Missing]) -> str:
    """Return what was not measured as a table."""
    return markdown((title, "was not measured"), [(row.name, row.why) for row in rows])


def number(value: float) -> str:
    """Return a figure with three digits or more, so that one near its bound is seen beyond it."""
    return f"{value:.3f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def figures(title: str, rows: Sequence[Figure]) -> str:
    """Return figures as a table."""

    def bound(row: Figure) -> str:
        parts = [
            f"≥ {row.least:,g}" if row.least is not None else "",
            f"≤ {row.most:,g}" if row.most is not None else "",
        ]
        return ", ".join(part for part in parts if part)

    cells = [(row.name, "", number(row.value), row.unit, bound(row)) for row in rows]
    return markdown((title, "", "measured", "unit", "bound"), cells)


def rates(title: str, rows: Sequence[Rate]) -> str:
    """Return rates as a table of GB a second."""
    cells = [
        (row.name, "", f"{row.wall:.2f}", f"{row.cpu:.2f}", "" if row.bound is None else f"{row.bound:.2f}")
        for row in rows
    ]
    return markdown((title, "", "GB/s", "GB per CPU s", "at least"), cells)


def timings(title: str, rows: Sequence[Timing], digits: int = 0) -> str:
    """Return times as a table of milliseconds with so many digits after the point."""

    def milliseconds(seconds: float | None) -> str:
        return "" if seconds is None else f"{seconds * 1000:.{digits}f}"

    cells = [(row.name, "", milliseconds(row.seconds), milliseconds(row.bound)) for row in rows]
    return markdown((title, "", "ms", "bound"), cells)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table, which reads well on a terminal too."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = (
        "|"
        + "|".join("-" * (width + 2) if column < 2 else "-" * (width + 1) + ":" for column, width in enumerate(widths))
        + "|"
    )
    return "\n".join([line(head), rule, *map(line, rows)])
