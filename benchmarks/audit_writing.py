"""What recording an audit event costs beyond the one fsync that makes it durable, and what reading it again costs.

The fsync is measured in the same folder, by turns with the recording, since a disk's mood changes: an append of as many
bytes to a file of its own.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.table import Figure
from sealflow.audit import AuditEvent
from sealflow.audit.writer import Writer
from sealflow.run_identity import RunIdentity

RUN = RunIdentity("airflow", "train", "fit", "scheduled__2026-01-01T00:00:00+00:00", 3, 1, "0" * 36, "ml")

_READS = 500


def _event() -> AuditEvent:
    key = "sha256:" + "0" * 64
    return AuditEvent(
        "verify", "outcome", RUN, "s3://models/churn/2026-01-01/model.bin", digest=key, outcome="passed", policy=key,
        rule="models", signers=(key,), producer="airflow:train/fit", host="worker-1", claims={"triggered_by": "alice"},
    )  # fmt: skip


def measure(events: int = 300) -> list[Figure]:
    """Return what the events took: recorded, in ms, medians; read, in µs, the best of some rounds."""
    with tempfile.TemporaryDirectory() as folder:
        spool = os.path.join(folder, "spool")
        began = time.perf_counter()
        writer = Writer(RUN, spool=spool)
        writer.record(_event())
        first = time.perf_counter() - began
        size = Path(spool, os.listdir(spool)[0]).stat().st_size
        recorded, synced = [], []
        with open(os.path.join(folder, "plain"), "wb", buffering=0) as plain:
            for _ in range(events):
                began = time.perf_counter()
                writer.record(_event())
                recorded.append(time.perf_counter() - began)
                began = time.perf_counter()
                plain.write(bytes(size))
                os.fsync(plain.fileno())
                synced.append(time.perf_counter() - began)
        writer.close()
    data = _event().to_json()
    rounds = []
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(_READS):
            AuditEvent.parse(data)
        rounds.append((time.perf_counter() - began) / _READS)
    more = statistics.median(one - other for one, other in zip(recorded, synced, strict=True))
    return [
        Figure("first event of a process", first * 1e3, "ms"),
        Figure(f"audit event of {size} bytes", statistics.median(recorded) * 1e3, "ms"),
        Figure("write and fsync of as many bytes, by turns", statistics.median(synced) * 1e3, "ms"),
        Figure("event read strictly", min(rounds) * 1e6, "µs", most=60),
        Figure("recording beyond the fsync", more * 1e3, "ms", most=1.0),
    ]
