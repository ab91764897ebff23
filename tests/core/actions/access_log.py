"""Writers whose entries make the log of a review: runs that read and write artifacts, on a clock of the test's own."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sealflow.actions.audit_review import Reviewed, review_accesses
from sealflow.audit import AuditEvent
from sealflow.audit.entry import Chain
from sealflow.run_identity import RunIdentity
from tests.core.audit.logs import MadeLog

UTC = datetime.timezone.utc
#: The present time of these tests is the machine's; their logs lie before it.
DAY_0 = datetime.datetime(2026, 9, 1, tzinfo=UTC)
_ids = itertools.count(1)


def at(day: float, seconds: float = 0) -> datetime.datetime:
    """A time so many days after the first."""
    return DAY_0 + datetime.timedelta(days=day, seconds=seconds)


class Run:
    """One run of a task, with its chain."""

    def __init__(self, workflow: str = "train", task: str = "fit", **more: Any) -> None:
        self.run = RunIdentity("airflow", workflow, task, f"run-{next(_ids)}", **more)
        self.chain = Chain()
        self.lines: list[bytes] = []

    @property
    def principal(self) -> str:
        return self.run.producer

    def event(self, time: datetime.datetime, phase: Any, action: str = "verify", **members: Any) -> AuditEvent:
        """Add one entry."""
        made = AuditEvent(action, phase, self.run, time=time.isoformat(timespec="microseconds"), **members)
        self.lines.append(self.chain.add(made.to_json()).line)
        return made

    def does(
        self, time: datetime.datetime, artifact: str, outcome: Any = "passed", action: str = "verify", **members: Any
    ) -> Run:
        """Add an intent and its outcome a second later."""
        intent = self.event(time, "intent", action, artifact=artifact)
        later = time + datetime.timedelta(seconds=1)
        self.event(
            later, "outcome", action, artifact=artifact, outcome=outcome, correlation=intent.correlation, **members
        )
        return self

    def ends(self, time: datetime.datetime) -> list[bytes]:
        """End the chain; its entries."""
        self.event(time + datetime.timedelta(seconds=2), "end", "end", count=self.chain.count + 1)
        return self.lines


def one(time: datetime.datetime, artifact: str, outcome: Any = "passed", **more: Any) -> list[bytes]:
    """The entries of a run that does one thing."""
    names = {name: more.pop(name) for name in ("workflow", "task", "team") if name in more}
    return Run(**names).does(time, artifact, outcome, **more).ends(time)


def made(folder: Path, lines: Sequence[bytes]) -> MadeLog:
    """A log of these entries."""
    folder.mkdir(exist_ok=True)
    log = MadeLog(folder)
    log.add(lines)
    return log


def review(log: MadeLog, **arguments: Any) -> Reviewed:
    """Review October of the test's year, unless the test says otherwise."""
    arguments = {"since": "2026-10-01", "until": "2026-11-01"} | arguments
    return review_accesses(log.store.uri, key=str(log.key), **arguments)


def found(reviewed: Reviewed, code: str) -> list[dict[str, str]]:
    """The findings of one code."""
    return [item for item in reviewed.report["findings"] if item["code"] == code]
