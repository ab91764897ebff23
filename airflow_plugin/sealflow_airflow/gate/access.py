"""Who read which connection, variable and XCom: recorded behind the request, into the audit log. Names, never values.

A request leaves a note in a bounded queue, and a thread makes audit events of the notes. So a read is answered before
its event is durable; when the queue is full, or the process is killed, notes are lost. A full queue drops what is of
the task that reads most, and an event of that task says how much is missing, and from when until when.
"""

from __future__ import annotations

import atexit
import datetime
import logging
import os
import re
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from sealflow_airflow.gate.fair import FairQueue
from sealflow_airflow.metrics import count

if TYPE_CHECKING:
    from sealflow.actions.context import Settings
    from sealflow.run_identity import RunIdentity

#: Most notes that wait.
MAX_WAITING: Final = 10_000
#: Where Airflow's Execution API keeps whom it authenticated, in the scope of a request.
TOKEN: Final = "ti_token"  # noqa: S105
_BATCH: Final = 500
#: Most tasks whose gaps are kept apart.
_MOST_GAPS: Final = 1000
#: Seconds between tries while events cannot be made durable, and seconds that an ending process waits for them.
_WAIT: Final = 5.0
_LAST: Final = 5.0
_REMEMBERED: Final = 10_000
_SETTINGS_KEPT: Final = 60.0

_PATH: Final = re.compile(
    r"/execution/+(?:"
    r"connections/+(?P<connection>[^/]+)"
    r"|connection-tests/+(?P<test>[^/]+)/+connection"
    r"|variables/+(?P<variable>.+)"
    r"|xcoms/+(?P<dag>[^/]+)/+(?P<run>[^/]+)/+(?P<task>[^/]+)/+(?P<key>.+?)(?:/item/[^/]+|/slice)?"
    r")/*\n?\Z",
    re.DOTALL,
)

_log = logging.getLogger(__name__)


class Access(NamedTuple):
    """What a request asks for.

    Attributes:
        action: Verb of the audit event.
        artifact: What is read, ``airflow:connection/<name>`` and so on, names percent-quoted.
    """

    action: str
    artifact: str


class _Note(NamedTuple):
    access: Access
    status: int
    instance: uuid.UUID | None
    time: datetime.datetime


class _Gap(NamedTuple):
    count: int
    first: datetime.datetime
    last: datetime.datetime


class AccessAudit:
    """Records accesses.

    Args:
        identify: Returns the identities of task instances; by default from Airflow's database.
        settings: Returns the settings; by default Airflow's configuration.
        most: Most notes that wait.
    """

    def __init__(
        self,
        identify: Callable[[list[uuid.UUID]], Mapping[uuid.UUID, RunIdentity]] | None = None,
        settings: Callable[[], Settings] | None = None,
        most: int = MAX_WAITING,
    ) -> None:
        self._identify = identify or _identities
        self._settings = settings or _settings
        self._most = most
        self._waiting: FairQueue[uuid.UUID | None, _Note] = FairQueue(most)
        self._gaps: dict[uuid.UUID | None, _Gap] = {}
        self._wake = threading.Condition()
        self._known: OrderedDict[uuid.UUID, RunIdentity] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._ending = False
        self._busy = False

    @staticmethod
    def of(method: str, path: str) -> Access | None:
        """Return what a request reads, ``None`` where it is none of our concern."""
        if method not in ("GET", "HEAD"):
            return None
        found = _PATH.search(path)
        if found is None:
            return None
        part = {name: quote(value, safe="") for name, value in found.groupdict().items() if value is not None}
        if "connection" in part:
            return Access("connection-read", f"airflow:connection/{part['connection']}")
        if "test" in part:
            # A worker that tries a connection for the UI is handed it whole.
            return Access("connection-read", f"airflow:connection-test/{part['test']}")
        if "variable" in part:
            if part["variable"] == "keys":
                # The list of their names.
                return Access("variable-read", "airflow:variable/")
            return Access("variable-read", f"airflow:variable/{part['variable']}")
        return Access("xcom-read", "airflow:xcom/" + "/".join(part[name] for name in ("dag", "run", "task", "key")))

    def record(self, access: Access, status: int, scope: Mapping[str, Any]) -> None:
        """Leave a note of an answered request. Never waits, never raises."""
        instance = getattr(scope.get(TOKEN), "id", None)
        # Somebody whom Airflow does not know was told nothing.
        if instance is None and status in (401, 403, 404):
            return
        note = _Note(access, status, instance, datetime.datetime.now(datetime.timezone.utc))
        with self._wake:
            if self._pid != os.getpid():
                self._begin()
            out = self._waiting.put(instance, note)
            if out is not None:
                self._note_gap(out[0], 1, out[1].time, out[1].time)
            self._wake.notify()

    def close(self, timeout: float = _LAST) -> None:
        """Make durable what waits, for some seconds."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(timeout)
        if left := len(self._waiting) + sum(gap.count for gap in self._gaps.values()):
            _log.error("sealflow: %d accesses were not recorded.", left)

    def settle(self, timeout: float = _LAST) -> bool:
        """Wait until nothing waits; tell whether that came."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            with self._wake:
                if not self._waiting and not self._gaps and not self._busy:
                    return True
            time.sleep(0.01)
        return False

    def _begin(self) -> None:
        # Notes of a parent process are the parent's.
        self._pid, self._waiting, self._gaps = os.getpid(), FairQueue(self._most), {}
        self._thread = threading.Thread(target=self._work, name="sealflow-access-audit", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _note_gap(
        self, instance: uuid.UUID | None, number: int, first: datetime.datetime, last: datetime.datetime
    ) -> None:
        known = self._gaps.get(instance)
        if known is None and len(self._gaps) >= _MOST_GAPS:
            # So many readers at once have no names of their own any more.
            instance, known = None, self._gaps.get(None)
        if known is not None:
            number, first, last = number + known.count, min(first, known.first), max(last, known.last)
        self._gaps[instance] = _Gap(number, first, last)

    def _work(self) -> None:
        while True:
            with self._wake:
                self._busy = False
                while not self._waiting and not self._gaps and not self._ending:
                    self._wake.wait()
                if self._ending and not self._waiting and not self._gaps:
                    return
                taken = self._waiting.take(_BATCH)
                gap = self._gaps.popitem() if self._gaps else None
                self._busy = True
            try:
                if gap is not None:
                    self._write_gap(*gap)
                    gap = None
                if taken is not None:
                    self._write(*taken)
                    taken = None
            except Exception:
                _log.warning("sealflow: accesses could not be recorded; trying again.", exc_info=True)
                with self._wake:
                    if taken is not None:
                        self._waiting.put_back(*taken)
                    if gap is not None:
                        self._note_gap(gap[0], *gap[1])
                    if self._ending:
                        return
                time.sleep(_WAIT)

    def _write(self, instance: uuid.UUID | None, notes: list[_Note]) -> None:
        """Record notes of one task.

        The chain ends with them, so a server that is killed leaves no gap.
        """
        run = self._run_of(instance)
        self._record(run, [self._event(note, run) for note in notes])
        count("sealflow.gate.accesses", len(notes), server=True)

    def _write_gap(self, instance: uuid.UUID | None, gap: _Gap) -> None:
        from sealflow.audit import AuditEvent

        run = self._run_of(instance)
        _log.error("sealflow: %d reads of %s were not recorded: too many at once.", gap.count, run.invocation)
        event = AuditEvent("access-gap", "outcome", run, outcome="error", codes=("ACCESS_DROPPED",))
        times = "&".join(f"{name}={time:%Y-%m-%dT%H:%M:%SZ}" for name, time in (("from", gap.first), ("to", gap.last)))
        said = {"artifact": f"airflow:access/?missing={gap.count}&{times}", "host": os.uname().nodename}
        self._record(run, [(event, said)])
        count("sealflow.gate.dropped", gap.count, server=True)

    def _record(self, run: RunIdentity, events: list[tuple[Any, dict[str, str]]]) -> None:
        import sealflow
        from sealflow.actions import context
        from sealflow.actions.recording import sink_for, with_said

        with sealflow.run(sealflow.Surroundings(run, self._settings())):
            surroundings = context.current()
            for event, said in events:
                sink_for(surroundings).record(with_said(event, said, surroundings.settings))

    @staticmethod
    def _event(note: _Note, run: RunIdentity) -> tuple[Any, dict[str, str]]:
        from sealflow.audit import AuditEvent

        outcome, codes = _outcome(note.status)
        event = AuditEvent(
            note.access.action,
            "outcome",
            run,
            outcome=outcome,  # type: ignore[arg-type]
            codes=codes,
            time=note.time.isoformat(timespec="microseconds"),
        )
        return event, {"artifact": note.access.artifact, "host": os.uname().nodename}

    def _run_of(self, instance: uuid.UUID | None) -> RunIdentity:
        from sealflow.run_identity import RunIdentity

        if instance is None:
            return RunIdentity("airflow")
        if instance not in self._known:
            self._known.update(self._identify([instance]))
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        # The token was good, and the task instance is gone since: its id is all that is known.
        return self._known.get(instance) or RunIdentity("airflow", instance=str(instance))


def _outcome(status: int) -> tuple[str, tuple[str, ...]]:
    if status < 400:
        return "done", ()
    if status in (401, 403):
        return "failed", ("PERMISSION_DENIED",)
    return ("failed", ("NOT_FOUND",)) if status == 404 else ("error", (f"HTTP_{status}",))


def _identities(instances: list[uuid.UUID]) -> dict[uuid.UUID, RunIdentity]:
    from airflow.utils.session import create_session

    from sealflow_airflow.gate.database import identity_of

    with create_session(scoped=False) as session:
        found = {item: identity_of(item, session) for item in instances}
    return {item: known[0] for item, known in found.items() if known is not None}


_settled: tuple[float, Settings] | None = None


def _settings() -> Settings:
    global _settled
    if _settled is None or time.monotonic() > _settled[0] + _SETTINGS_KEPT:
        from sealflow_airflow.hooks.sealflow import configured_settings

        _settled = time.monotonic(), configured_settings()
    return _settled[1]
