"""Every figure that was promised, the row that measures it, and the bound that this row has to name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.record import Records
from benchmarks.table import Figure, Kind, Rate, Row, Timing


@dataclass(frozen=True)
class Promise:
    """One figure that was promised.

    Attributes:
        part: Where it is measured.
        row: Name of its row; of rows with data, ``data: name``, and ``(memory)`` behind it for their memory.
        least: The least it has to be, in the unit that the page shows.
        most: The most it may be.
    """

    part: str
    row: str
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Shown:
    """A row as it is held against a promise.

    Attributes:
        value: What was measured.
        unit: Its unit.
        least: The least it has to be.
        most: The most it may be.
    """

    value: float
    unit: str
    least: float | None
    most: float | None

    @property
    def holds(self) -> bool:
        """Whether it keeps its bounds."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)


MEMORY = " (memory)"

PROMISES = (
    *(
        Promise("signing", f"{data}: sealflow {what}{kind}", most=64 if kind else most)
        for data, most in (("20,000 x 4 KiB", 1.5), ("4 x 512 MiB", 1.15))
        for what in ("sign", "verify")
        for kind in ("", MEMORY)
    ),
    Promise("imports", "import sealflow", most=200),
    Promise("imports", "operators, above import airflow.sdk", most=50),
    Promise("policy", "load and verify a policy of 500 rules", most=50),
    Promise("policy", "one decision under it", most=0.2),
    Promise("lineage", "20,000 x 4 KiB: check at L2, after imports", most=600),
    Promise("lineage", "20,000 x 4 KiB: whole process, times as fast as `dvc status` without its state", least=4),
    Promise("lineage", "one file of 2,048 MiB, its lineage signed: processor time over openssl's", most=1.15),
    Promise("lineage", "three stages: check at L2, after imports", most=50),
    Promise("walk", "100,000 attestations, 3.8 inputs each: trace from a local store", most=20_000),
    Promise("respond", "blast radius of a stolen key over 10000 artifacts, 721 touched", most=10_000),
    Promise("respond", "blast radius of a dataset over 10000 artifacts, 934 touched", most=10_000),
    Promise("encryption", "encrypt, 2 threads", least=4.5),
    Promise("encryption", "decrypt, 2 threads", least=4.5),
    *(
        promise
        for server in ("Ceph", "JuiceFS")
        for promise in (
            *(
                promise
                for here in (f"{server}, https", f"{server}, http")
                for promise in (
                    Promise("transfer", f"{here}, upload: speed of plain `boto3.upload_file` reached", least=0.9),
                    Promise("transfer", f"{here}, verified download: speed of plain `download_file` reached", least=1),
                )
            ),
            *(
                Promise("transfer", f"{server}, https, {what}", least=1.3)
                for what in (
                    "upload: times as fast as `age` piped to `aws s3 cp -`",
                    "download: times as fast as `aws s3 cp -` piped to `age -d`",
                    "upload: times as fast as the S3 Encryption Client",
                    "download: times as fast as the S3 Encryption Client",
                )
            ),
            Promise("transfer", f"{server}, https, up: peak memory", most=150),
            Promise("transfer", f"{server}, https, down: peak memory", most=150),
        )
    ),
    Promise("transfer", "64 KiB somewhere in an opened artifact, over a plain range GET", most=3),
    Promise("transfer", "1 KiB uploaded, beyond the store's answers", most=50),
    Promise("transfer", "1 KiB downloaded, beyond the store's answers", most=50),
    Promise("transfer", "20000 files of 4 KiB: times as fast as boto3's transfer threads", least=20),
    Promise("transfer", "cold open of an artifact of 10 GiB: requests", most=6),
    Promise("transfer", "cold open of an artifact of 10 GiB: bytes", most=8),
    Promise("transfer", "upload of 10 GiB: peak memory", most=150),
    Promise("transfer", "download of 10 GiB: peak memory", most=150),
    *(
        Promise("transfer", f"upload in the parts of {size}: peak memory", most=150)
        for size in ("290 GiB", "1 TiB", "5 TiB")
    ),
    Promise("audit", "recording beyond the fsync", most=1),
    Promise("audit", "PostgreSQL: batches of 100, 8 writers", least=10_000),
    Promise("audit", "PostgreSQL: single events, 16 writers", least=2_000),
    Promise("audit", "PostgreSQL: integrated into a folder", least=20_000),
    Promise("audit", "SQLite: integrated into a folder", least=20_000),
    Promise("audit", "verify 1,000,000 entries, chains of 100", most=6),
    Promise("airflow", "guard, parsing a file with 20 tasks", most=20),
    Promise("airflow", "guard, a task, all of that done", most=50),
    *(
        Promise("gate", f"gate, {what}", most=1)
        for what in (
            "a request of another kind",
            "a heartbeat",
            "a task that failed",
            "a read that is recorded",
            "a success of a task without outlets",
            "a success with one signed outlet, judged",
        )
    ),
    *(
        Promise("pages", f"Trust, for one who may see {what}: {share}", most=300)
        for what in ("all", "500 DAGs", "one DAG")
        for share in ("p50", "p95")
    ),
    Promise("kubeflow", "wrapper, one input and one output, beyond hashing and cryptography", most=100),
    Promise("kubeflow", "wrapper, the same under a policy", most=100),
    Promise("hardening", "harden a pipeline of 200 tasks, a fresh process", most=500),
    Promise("admission", "50 connections, each a review a second: 99 of 100", most=50),
    Promise("admission", "50 reviews always in flight: 99 of 100", most=50),
    Promise("admission", "server memory: growth in the later half of the load", most=48),
)


def found(promise: Promise, records: Records) -> Shown | None:
    """Return the row that measures what was promised, ``None`` where it was not measured yet."""
    name = promise.row.removesuffix(MEMORY)
    for section in records.get(promise.part, {}).values():
        for row in section.rows:
            if called(row) == name and (shown := _shown(row, memory=promise.row.endswith(MEMORY))):
                return shown
    return None


def unmeasured(records: Records) -> Iterator[Promise]:
    """Yield what was promised and not measured."""
    return (promise for promise in PROMISES if found(promise, records) is None)


def called(row: Kind) -> str:
    """The name of a row, by which it is found."""
    return f"{row.data}: {row.name}" if isinstance(row, Row) else row.name


def _shown(row: Kind, *, memory: bool) -> Shown | None:
    if isinstance(row, Row):
        if memory:
            return None if row.memory is None else Shown(row.memory, "MiB above idle", None, row.memory_bound)
        return Shown(row.ratio, "x the CPU of a bare hash", None, row.bound)
    if isinstance(row, Timing):
        return Shown(row.seconds * 1000, "ms", None, None if row.bound is None else row.bound * 1000)
    if isinstance(row, Rate):
        return Shown(row.wall, "GB/s", row.bound, None)
    return Shown(row.value, row.unit, row.least, row.most) if isinstance(row, Figure) else None
