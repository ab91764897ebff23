"""What is measured, part by part; each part can be run by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    admission,
    airflow,
    audit_inbox,
    audit_log,
    audit_writing,
    encryption,
    gate,
    guard_directory,
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
from benchmarks.table import Figure, Rate, Row, Timing

Measured = Sequence[Row] | Sequence[Timing] | Sequence[Rate] | Sequence[Figure]


@dataclass(frozen=True)
class Part:
    """A part of the benchmarks.

    Attributes:
        name: What it is called on the command line.
        title: What it is called in the documents.
        modules: Those that measure it; what their docstrings say beyond the first line is printed under the table.
        measure: Measures in a folder of its own, with so many rounds, quickly or not.
        digits: Of milliseconds, behind the point.
    """

    name: str
    title: str
    modules: tuple[object, ...]
    measure: Callable[[Path, int, bool], Measured]
    digits: int = 0


def _audit(folder: Path, rounds: int, quick: bool) -> list[Figure]:
    return [
        *audit_writing.measure(),
        *audit_inbox.measure(rounds, quick),
        *audit_log.measure(folder, rounds, quick),
    ]


def _few(rounds: int) -> int:
    # Single runs take minutes.
    return min(rounds, 3)


PARTS = (
    Part("signing", "Sign and verify", (signing,), signing.measure),
    Part("imports", "Imports", (imports,), lambda folder, rounds, quick: imports.measure(rounds)),
    Part("policy", "Policy", (policy,), lambda folder, rounds, quick: policy.measure(folder, rounds), 2),
    Part("lineage", "DVC lineage", (lineage,), lineage.measure),
    Part("walk", "Tracing", (walk,), lambda folder, rounds, quick: walk.measure(folder, _few(rounds), quick)),
    Part(
        "respond",
        "Incident response",
        (respond,),
        lambda folder, rounds, quick: respond.measure(folder, _few(rounds), quick),
    ),
    Part("encryption", "Encryption, 1 GiB in memory", (encryption,), encryption.measure),
    Part("transfer", "Encrypted transfer of 1 GiB", (transfer,), transfer.measure),
    Part("audit", "Audit", (audit_writing, audit_inbox, audit_log), _audit),
    Part("airflow", "Airflow: the guard", (airflow,), lambda folder, rounds, quick: airflow.measure(folder, rounds), 1),
    Part("gate", "Airflow: the gate", (gate,), lambda folder, rounds, quick: gate.measure(folder, _few(rounds)), 3),
    Part("pages", "Airflow: pages, with 1,000 DAGs and 100,000 verdicts", (pages,), pages.measure),
    Part(
        "kubeflow", "Kubeflow: the wrapper", (kubeflow,), lambda folder, rounds, quick: kubeflow.measure(folder, rounds)
    ),
    Part(
        "hardening",
        "Kubeflow: the hardener",
        (hardening,),
        lambda folder, rounds, quick: hardening.measure(folder, rounds),
    ),
    Part("guard", "Kubeflow: the guard directory", (guard_directory,), guard_directory.measure),
    Part("admission", "Kubeflow: admission", (admission,), admission.measure),
)
