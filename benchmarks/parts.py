"""What is measured, part by part and section by section; each can be run by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import (
    admission,
    airflow,
    audit_inbox,
    audit_log,
    audit_row_counter,
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
    transfer_large,
    transfer_whole,
    walk,
)
from benchmarks.table import Kind

Measured = Sequence[Kind]
#: Measures in a folder, or with what the part's sections share, with so many rounds, quickly or not.
Measure = Callable[[Any, int, bool], Measured]

#: The section of a part that has one only.
WHOLE = "whole"


@dataclass(frozen=True)
class Part:
    """A part of the benchmarks.

    Attributes:
        name: What it is called on the command line.
        title: What it is called in the documents.
        modules: Those that measure it; what their docstrings say beyond the first line is printed under the table.
        sections: What measures each section, by its name; ``name:section`` runs it alone.
        digits: Of milliseconds, behind the point.
        within: Makes from a folder what all its sections are measured with, a server for example; ``None``: each
            section has a folder of its own.
    """

    name: str
    title: str
    modules: tuple[object, ...]
    sections: Mapping[str, Measure]
    digits: int = 0
    within: Callable[[Path], AbstractContextManager[Any]] | None = None

    def called(self, section: str) -> str:
        """What a section is called on the command line."""
        return self.name if section == WHOLE else f"{self.name}:{section}"


def _whole(measure: Measure) -> dict[str, Measure]:
    return {WHOLE: measure}


def _few(rounds: int) -> int:
    # Single runs take minutes.
    return min(rounds, 3)


PARTS = (
    Part("signing", "Sign and verify", (signing,), _whole(signing.measure)),
    Part("imports", "Imports", (imports,), _whole(lambda folder, rounds, quick: imports.measure(rounds))),
    Part("policy", "Policy", (policy,), _whole(lambda folder, rounds, quick: policy.measure(folder, rounds)), 2),
    Part("lineage", "DVC lineage", (lineage,), _whole(lineage.measure)),
    Part("walk", "Tracing", (walk,), _whole(lambda folder, rounds, quick: walk.measure(folder, _few(rounds), quick))),
    Part(
        "respond",
        "Incident response",
        (respond,),
        _whole(lambda folder, rounds, quick: respond.measure(folder, _few(rounds), quick)),
    ),
    Part("encryption", "Encryption, 1 GiB in memory", (encryption,), _whole(encryption.measure)),
    Part(
        "transfer",
        "Encrypted transfer",
        (transfer, transfer_large, transfer_whole),
        {
            "https-ceph": partial(transfer_large.over_https, "Ceph"),
            "http-ceph": partial(transfer_large.over_http, "Ceph"),
            "random": transfer.random_reads,
            "small": transfer.one_small,
            "many": transfer.many_small,
            "open": transfer_whole.opening,
            "memory": transfer_whole.memory,
            "https-juicefs": partial(transfer_large.over_https, "JuiceFS"),
            "http-juicefs": partial(transfer_large.over_http, "JuiceFS"),
        },
        within=transfer.server,
    ),
    Part(
        "audit",
        "Audit",
        (audit_writing, audit_inbox, audit_row_counter, audit_log),
        {
            "writing": lambda folder, rounds, quick: audit_writing.measure(),
            "inbox": lambda folder, rounds, quick: audit_inbox.measure(rounds, quick),
            "log": audit_log.measure,
        },
    ),
    Part(
        "airflow",
        "Airflow: the guard",
        (airflow,),
        _whole(lambda folder, rounds, quick: airflow.measure(folder, rounds)),
        1,
    ),
    Part(
        "gate",
        "Airflow: the gate",
        (gate,),
        _whole(lambda folder, rounds, quick: gate.measure(folder, _few(rounds))),
        3,
    ),
    Part("pages", "Airflow: pages, with 1,000 DAGs and 100,000 verdicts", (pages,), _whole(pages.measure)),
    Part(
        "kubeflow",
        "Kubeflow: the wrapper",
        (kubeflow,),
        _whole(lambda folder, rounds, quick: kubeflow.measure(folder, rounds)),
    ),
    Part(
        "hardening",
        "Kubeflow: the hardener",
        (hardening,),
        _whole(lambda folder, rounds, quick: hardening.measure(folder, rounds)),
    ),
    Part("guard", "Kubeflow: the guard directory", (guard_directory,), _whole(guard_directory.measure)),
    Part("admission", "Kubeflow: admission", (admission,), _whole(admission.measure)),
)
PARTS_BY_NAME = {part.name: part for part in PARTS}
