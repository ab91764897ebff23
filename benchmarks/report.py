"""docs/performance.md and its plots, made from what was measured: ratios against peers first."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.parts import PARTS, Part
from benchmarks.record import Record
from benchmarks.table import Figure, Rate, Row, Timing, figures, markdown, rates, timings

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "performance.md"
PLOTS = DOCS / "images" / "performance"

_HEAD = """# Performance

Made by `make bench`, which measures ours and its peers in turn, in the same run; a part alone with
`make bench PARTS=signing`. It ends with 1 when a bound does not hold. Absolute times are those of the machine that each
part names; ratios move less.
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
    Compared(
        "transfer",
        "Upload 1 GiB to S3, over HTTPS",
        "seconds",
        {
            "https, up: wall": "sealflow",
            "https, plain up: wall": "plain boto3",
            "https, age up: wall": "age and aws s3",
        },
    ),
    Compared(
        "transfer",
        "Download 1 GiB from S3, over HTTPS",
        "seconds",
        {
            "https, down: wall": "sealflow",
            "https, plain down: wall": "plain boto3",
            "https, age down: wall": "aws s3 and age",
        },
    ),
)


def page(records: Mapping[str, Record]) -> str:
    """Return the page; parts that were never measured are named as such."""
    compared = [(item, values) for item in COMPARED if (values := _values(item, records))]
    parts = [_HEAD]
    if compared:
        rows = [
            (item.title, name, f"{value:.2f} {item.unit}", _times(item, values, name))
            for item, values in compared
            for name, value in values.items()
        ]
        parts.append("## Against peers\n")
        parts.append(markdown(("what", "who", "measured", "ours is so many times as fast"), rows) + "\n")
        parts += [
            f"![{item.title}: {', '.join(values)}](images/performance/{_slug(item)}.svg)\n" for item, values in compared
        ]
    broken = [(PARTS_BY_NAME[name].title, row) for name, record in records.items() for row in record.broken]
    if broken:
        parts.append("## Out of their bounds here\n")
        parts += [f"- {title}: {row}" for title, row in sorted(broken)]
        parts.append("")
    for part in PARTS:
        parts.append(f"## {part.title}\n")
        if part.name not in records:
            parts.append("Not measured yet.\n")
            continue
        record = records[part.name]
        parts.append(rendered(part, record.rows) + "\n")
        parts.append(f"{record.measured}, {record.machine}. Medians of {2 * record.rounds} runs at most.\n")
        parts += [text + "\n" for module in part.modules if (text := _about(module))]
    return "\n".join(parts)


def rendered(part: Part, rows: Sequence[Row] | Sequence[Timing] | Sequence[Rate] | Sequence[Figure]) -> str:
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
    return "\n\n".join(tables)


def write(records: Mapping[str, Record]) -> None:
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


def _values(item: Compared, records: Mapping[str, Record]) -> dict[str, float]:
    """What is drawn, by the name it is drawn under; nothing unless ours was measured."""
    found = {}
    for row in records[item.part].rows if item.part in records else ():
        key = f"{row.data}: {row.name}" if isinstance(row, Row) else row.name
        if key in item.rows:
            found[key] = (
                row.cpu
                if isinstance(row, Row)
                else row.seconds
                if isinstance(row, Timing)
                else row.wall
                if isinstance(row, Rate)
                else row.value
            )
    ours = next(iter(item.rows))
    return {name: found[key] for key, name in item.rows.items() if key in found} if ours in found else {}


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


PARTS_BY_NAME = {part.name: part for part in PARTS}
