"""docs/performance.md and its plots, made from what was measured: ratios against peers first."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.parts import PARTS, PARTS_BY_NAME, Measured, Part
from benchmarks.promises import PROMISES, called, found
from benchmarks.record import Record, Records
from benchmarks.table import (
    Figure,
    Kind,
    Missing,
    Rate,
    Row,
    Timing,
    figures,
    markdown,
    missing,
    number,
    rates,
    timings,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "performance.md"
PLOTS = DOCS / "images" / "performance"

_HEAD = """# Performance

Made by `make bench`, which measures ours and its peers in turn, in the same run; a part or a section of it alone with
`make bench PARTS='signing transfer:open'`. It ends with 1 when a bound does not hold or a figure could not be had.
Absolute times are those of the machine that each part names; ratios move less.
"""


class Compared(NamedTuple):
    """One of ours beside its peers, in one plot.

    Attributes:
        part: Where the rows are.
        title: What is compared.
        unit: Of what is drawn.
        rows: Names of rows, ours first, and what they are called; of rows with data, ``data: name``.
        more: Whether more is better.
    """

    part: str
    title: str
    unit: str
    rows: Mapping[str, str]
    more: bool = False


COMPARED = (
    Compared(
        "signing",
        "Sign 20,000 files of 4 KiB",
        "CPU seconds",
        {
            "20,000 x 4 KiB: sealflow sign": "sealflow",
            "20,000 x 4 KiB: model_signing sign": "model_signing",
            "20,000 x 4 KiB: hashlib walk": "bare hash",
        },
    ),
    Compared(
        "signing",
        "Verify 20,000 files of 4 KiB",
        "CPU seconds",
        {
            "20,000 x 4 KiB: sealflow verify": "sealflow",
            "20,000 x 4 KiB: model_signing verify": "model_signing",
            "20,000 x 4 KiB: hashlib walk": "bare hash",
        },
    ),
    Compared(
        "signing",
        "Verify 2 GiB",
        "CPU seconds",
        {
            "4 x 512 MiB: sealflow verify": "sealflow",
            "4 x 512 MiB: model_signing verify": "model_signing",
            "4 x 512 MiB: openssl dgst -sha256": "openssl",
        },
    ),
    Compared(
        "lineage",
        "Check 20,000 DVC-tracked files",
        "seconds",
        {
            "20,000 x 4 KiB: check at L2, whole process": "sealflow",
            "20,000 x 4 KiB: dvc status without its state, whole process": "dvc status",
            "20,000 x 4 KiB: bare walk with MD5, whole process": "bare hash",
        },
    ),
    Compared(
        "encryption",
        "Encrypt in memory",
        "GB/s",
        {
            "encrypt, 2 threads": "sealflow",
            "tink: streaming AES256_GCM_HKDF_1MB": "tink",
            "aws-encryption-sdk: unsigned, 1 MiB frames": "aws-encryption-sdk",
            "bare cipher, 2 threads": "bare cipher",
        },
        more=True,
    ),
    *(
        compared
        for server in ("JuiceFS", "Ceph")
        for compared in (
            Compared(
                "transfer",
                f"Upload 1 GiB to {server}, over HTTPS",
                "seconds",
                {
                    f"{server}, https, up: wall": "sealflow",
                    f"{server}, https, plain up: wall": "plain boto3",
                    f"{server}, https, age up: wall": "age and aws s3",
                    f"{server}, https, S3 Encryption Client up: wall": "S3 Encryption Client",
                },
            ),
            Compared(
                "transfer",
                f"Download 1 GiB from {server}, over HTTPS",
                "seconds",
                {
                    f"{server}, https, down: wall": "sealflow",
                    f"{server}, https, plain down: wall": "plain boto3",
                    f"{server}, https, age down: wall": "aws s3 and age",
                    f"{server}, https, S3 Encryption Client down: wall": "S3 Encryption Client",
                },
            ),
        )
    ),
    Compared(
        "audit",
        "Audit events, one by one, from 16 writers",
        "entries/s",
        {
            "PostgreSQL: single events, 16 writers": "sealflow",
            "PostgreSQL: single events, 16 writers, a table with a row counter": "row counter",
        },
        more=True,
    ),
    Compared(
        "audit",
        "Audit events, in batches of 100, from 8 writers",
        "entries/s",
        {
            "PostgreSQL: batches of 100, 8 writers": "sealflow",
            "PostgreSQL: batches of 100, 8 writers, a table with a row counter": "row counter",
        },
        more=True,
    ),
)


def page(records: Records) -> str:
    """Return the page; what was promised or is measured, and has no figure yet, is named as such."""
    compared = [(item, values) for item in COMPARED if (values := _values(item, records))]
    parts = [_HEAD]
    if compared:
        rows = [
            (item.title, name, f"{number(value)} {item.unit}", _times(item, values, name))
            for item, values in compared
            for name, value in values.items()
        ]
        parts.append("## Against peers\n")
        parts.append(markdown(("what", "who", "measured", "ours is so many times as fast"), rows) + "\n")
        parts += [
            f"![{item.title}: {', '.join(values)}](images/performance/{_slug(item)}.svg)\n" for item, values in compared
        ]
    parts += _promised(records)
    broken = [
        (PARTS_BY_NAME[name].title, called(row))
        for name, sections in records.items()
        for record in sections.values()
        for row in record.rows
        if not row.holds
    ]
    if broken:
        parts.append("## Out of their bounds here\n")
        parts += [f"- {title}: {row}" for title, row in sorted(broken)]
        parts.append("")
    for part in PARTS:
        parts += _part(part, records.get(part.name, {}))
    return "\n".join(parts)


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _promised(records: Records) -> list[str]:
    """What was promised, beside what was measured; each figure that is missed or missing says so."""
    rows = []
    for promise in PROMISES:
        bound = f"≥ {promise.least:,g}" if promise.least is not None else f"≤ {promise.most:,g}"
        shown = found(promise, records)
        title = PARTS_BY_NAME[promise.part].title
        if shown is None:
            rows.append((title, promise.row, bound, "", "", "**not measured yet**"))
        else:
            kept = "yes" if shown.holds else "**no**"
            rows.append((title, promise.row, bound, number(shown.value), shown.unit, kept))
    kept, missed = (sum(row[-1] == word for row in rows) for word in ("yes", "**no**"))
    said = f"Of {len(rows)} figures {kept} are kept, {missed} missed and {len(rows) - kept - missed} not measured yet."
    table = markdown(("of", "figure", "promised", "measured", "unit", "kept"), rows)
    return ["## What was promised\n", f"{said}\n", f"{table}\n"]


def _part(part: Part, sections: Mapping[str, Record]) -> list[str]:
    lines = [f"## {part.title}\n"]
    measured = [name for name in part.sections if name in sections]
    if measured:
        lines.append(rendered(part, [row for name in measured for row in sections[name].rows]) + "\n")
    said: dict[str, list[str]] = {}
    for name in measured:
        record = sections[name]
        said.setdefault(
            f"{record.measured}, {record.machine}. Medians of {2 * record.rounds} runs at most.", []
        ).append(f"`{part.called(name)}`" + (f" in {duration(record.seconds)}" if record.seconds is not None else ""))
    lines += [f"{', '.join(names)}: {text}\n" for text, names in said.items()]
    if absent := [f"`{part.called(name)}`" for name in part.sections if name not in sections]:
        lines.append(f"Not measured yet: {', '.join(absent)}.\n")
    return lines + [text + "\n" for module in part.modules if (text := _about(module))]


def rendered(part: Part, rows: Measured) -> str:
    """Return a part's rows as tables, one for each kind."""
    tables = []
    if ratios := [row for row in rows if isinstance(row, Row)]:
        tables.append(_ratios(ratios))
    if times := [row for row in rows if isinstance(row, Timing)]:
        tables.append(timings(part.title, times, part.digits))
    if speeds := [row for row in rows if isinstance(row, Rate)]:
        tables.append(rates(part.title, speeds))
    if others := [row for row in rows if isinstance(row, Figure)]:
        tables.append(figures(part.title, others))
    if absent := [row for row in rows if isinstance(row, Missing)]:
        tables.append(missing(part.title, absent))
    return "\n\n".join(tables)


def write(records: Records) -> None:
    """Write the page and its plots."""
    PAGE.write_text(page(records), encoding="utf-8")
    PLOTS.mkdir(parents=True, exist_ok=True)
    for item in COMPARED:
        if values := _values(item, records):
            _plot(item, values, PLOTS / f"{_slug(item)}.svg")


def _ratios(rows: Sequence[Row]) -> str:
    head = ("data", "command", "CPU ratio", "bound", "CPU s", "wall s", "MiB above idle", "bound ")
    cells = [
        (
            row.data,
            row.name,
            f"{row.ratio:.2f}",
            "" if row.bound is None else f"{row.bound:.2f}",
            f"{row.cpu:.2f}",
            f"{row.wall:.2f}",
            "" if row.memory is None else f"{row.memory:.0f}",
            "" if row.memory_bound is None else f"{row.memory_bound:.0f}",
        )
        for row in rows
    ]
    return markdown(head, cells)


def _values(item: Compared, records: Records) -> dict[str, float]:
    """What is drawn, by the name it is drawn under; nothing unless ours and a peer were measured."""
    rows = [row for record in records.get(item.part, {}).values() for row in record.rows]
    drawn = {called(row): value for row in rows if (value := _drawn(row)) is not None}
    ours = next(iter(item.rows))
    found = {name: drawn[row] for row, name in item.rows.items() if row in drawn}
    return found if ours in drawn and len(found) > 1 else {}


def _drawn(row: Kind) -> float | None:
    if isinstance(row, Row):
        return row.cpu
    if isinstance(row, Timing):
        return row.seconds
    if isinstance(row, Rate):
        return row.wall
    return row.value if isinstance(row, Figure) else None


def _times(item: Compared, values: Mapping[str, float], name: str) -> str:
    ours = next(iter(values.values()))
    if name == next(iter(values)) or not ours or not values[name]:
        return ""
    return f"{ours / values[name] if item.more else values[name] / ours:.2f}"


def _about(module: object) -> str:
    """What a module says of how it measures, beyond its first line."""
    return inspect.cleandoc(getattr(module, "__doc__", None) or "").partition("\n\n")[2].replace("``", "`")


def _slug(item: Compared) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in item.title.lower()).split())


def _plot(item: Compared, values: Mapping[str, float], target: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context({"svg.hashsalt": "sealflow", "font.size": 10, "svg.fonttype": "none"}):
        figure, axes = pyplot.subplots(figsize=(6.5, 0.6 + 0.4 * len(values)))
        bars = axes.barh(list(values), list(values.values()), color=["#0969da", *["#8c959f"] * (len(values) - 1)])
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.invert_yaxis()
        axes.set_title(f"{item.title} ({item.unit}, {'more' if item.more else 'less'} is better)", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.15)
        figure.tight_layout()
        figure.savefig(target, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
