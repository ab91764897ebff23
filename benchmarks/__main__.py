"""Run all benchmarks and print their tables: ``python -m benchmarks [--rounds N] [--quick] [--write FILE]``."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import (
    admission,
    airflow,
    audit_inbox,
    audit_log,
    audit_writing,
    encryption,
    gate,
    hardening,
    imports,
    kubeflow,
    lineage,
    pages,
    policy,
    respond,
    signing,
    transfer,
    walk,
)
from benchmarks.table import Figure, Rate, Timing, figures, markdown, rates, timings


def main() -> int:
    """Measure, print, and say which bounds do not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="half of the counted runs of each command (default 5)")
    parser.add_argument("--quick", action="store_true", help="small data; for trying the benchmarks, not for figures")
    parser.add_argument("--write", metavar="FILE", help="also write the tables to this Markdown file")
    arguments = parser.parse_args()
    # In memory where possible: a disk would be measured instead of us.
    shm = "/dev/shm"
    roomy = os.path.isdir(shm) and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 4 << 30
    with tempfile.TemporaryDirectory(prefix="sealflow-bench-", dir=shm if roomy else None) as folder:
        rows = signing.measure(Path(folder), arguments.rounds, arguments.quick)
        (Path(folder) / "policy").mkdir()
        ruled = policy.measure(Path(folder) / "policy", arguments.rounds)
        (Path(folder) / "lineage").mkdir()
        checked = lineage.measure(Path(folder) / "lineage", arguments.rounds, arguments.quick)
        (Path(folder) / "walk").mkdir()
        walked = walk.measure(Path(folder) / "walk", min(arguments.rounds, 3), arguments.quick)
        (Path(folder) / "respond").mkdir()
        walked += respond.measure(Path(folder) / "respond", min(arguments.rounds, 3), arguments.quick)
        (Path(folder) / "encryption").mkdir()
        encrypted = encryption.measure(Path(folder) / "encryption", arguments.rounds, arguments.quick)
        (Path(folder) / "transfer").mkdir()
        sent = transfer.measure(Path(folder) / "transfer", arguments.rounds, arguments.quick)
        (Path(folder) / "audit").mkdir()
        logged = audit_log.measure(Path(folder) / "audit", arguments.rounds, arguments.quick)
        (Path(folder) / "airflow").mkdir()
        guarded = airflow.measure(Path(folder) / "airflow", arguments.rounds)
        (Path(folder) / "pages").mkdir()
        shown = pages.measure(Path(folder) / "pages", arguments.rounds, arguments.quick)
        (Path(folder) / "gate").mkdir()
        gated = gate.measure(Path(folder) / "gate", min(arguments.rounds, 3))
        (Path(folder) / "hardening").mkdir()
        (Path(folder) / "kubeflow").mkdir()
        wrapped = kubeflow.measure(Path(folder) / "kubeflow", arguments.rounds)
        wrapped += hardening.measure(Path(folder) / "hardening", arguments.rounds)
        (Path(folder) / "admission").mkdir()
        admitted = admission.measure(Path(folder) / "admission", arguments.rounds, arguments.quick)
    imported = imports.measure(arguments.rounds)
    audited = [*audit_writing.measure(), *audit_inbox.measure(arguments.rounds, arguments.quick), *logged]
    text = _text(
        rows,
        imported,
        [ruled, guarded, wrapped, gated],
        [*checked, *walked],
        encrypted,
        sent,
        audited,
        shown,
        admitted,
        arguments,
    )
    print(text)
    if arguments.write:
        Path(arguments.write).write_text(text + "\n", encoding="utf-8")
    broken = [
        row.name
        for row in (
            *rows,
            *imported,
            *checked,
            *walked,
            *ruled,
            *guarded,
            *wrapped,
            *encrypted,
            *sent,
            *audited,
            *shown,
            *admitted,
        )
        if not row.holds
    ]
    if broken:
        print(f"\nOut of bounds: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken and not arguments.quick else 0


def _text(
    rows: list[signing.Row],
    imported: list[Timing],
    ruled: list[list[Timing]],
    traced: list[Timing],
    encrypted: list[Rate],
    sent: list[Figure],
    audited: list[Figure],
    shown: list[Figure],
    admitted: list[Figure],
    arguments: argparse.Namespace,
) -> str:
    speed = markdown(
        ("data", "command", "CPU s", "wall s", "CPU ratio", "bound", "MiB above idle", "bound "),
        [
            (
                row.data,
                row.name,
                f"{row.cpu:.2f}",
                f"{row.wall:.2f}",
                f"{row.ratio:.2f}",
                "" if row.bound is None else f"{row.bound:.2f}",
                "" if row.memory is None else f"{row.memory:.0f}",
                "" if row.memory_bound is None else f"{row.memory_bound:.0f}",
            )
            for row in rows
        ],
    )
    tables = (
        speed,
        timings("import", imported),
        timings("policy", ruled[0], digits=2),
        timings("Airflow", ruled[1], digits=1),
        timings("Airflow's API server", ruled[3], digits=3),
        timings("Kubeflow", ruled[2]),
        timings("lineage", traced),
        rates("encryption, 1 GiB in memory", encrypted),
        *([figures("encrypted transfer of 1 GiB, Ceph RGW on this machine", sent)] if sent else []),
        figures("audit", audited),
        figures("pages: 1,000 DAGs, 100,000 verdicts", shown),
        figures("Kubeflow's admission, two servers", admitted),
    )
    return (
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}. Whole "
        f"processes, medians of {2 * arguments.rounds} runs in turn (model_signing: {(arguments.rounds + 1) // 2}) "
        "after one warm-up. The CPU ratio is against the first row of the same data.\n\n"
    ) + "\n\n".join(tables)


if __name__ == "__main__":
    sys.exit(main())
