"""The notary: a listener in the API server that signs what the server saw, with a key that workers never see.

Airflow tells listeners of an event when it is written, after the task was answered, and takes no veto. So nothing is
refused here, and what is signed is done in a thread of its own: a request waits for no key and no store. Set
``[sealflow] notary_signer`` for the API server alone: with any listener in the DAG processor, Airflow refuses DAGs that
hold an operator with ``end_from_trigger=True``.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sealflow_airflow.gate.fair import FairQueue
from sealflow_airflow.metrics import count

if TYPE_CHECKING:
    from sealflow.errors import SealflowError
    from sealflow.evidence.notary import SeenEvent
    from sealflow.keys import KeySigner

#: What `[sealflow] notary_mode` can be.
MODES: Final = ("event", "hash")
#: Most events that wait. Each waits for a key service, two stores, and in mode ``hash`` for the artifact's bytes.
MAX_WAITING: Final = 1000
#: Events that are signed at the same time, each of another DAG.
_THREADS: Final = 4
#: Most bytes of an artifact that are read, unless an option says it.
MAX_BYTES: Final = 64 << 30
#: Seconds that an ending process waits for them.
_LAST: Final = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NotarySettings:
    """The notary's settings.

    Attributes:
        signer: URI of its key; empty for no notary.
        mode: ``event`` or ``hash``.
        store: Its own evidence store.
        stores: Evidence stores that references may name.
        max_bytes: Most bytes of an artifact that mode ``hash`` reads.
        problem: Why the options could not be taken as they stand.
    """

    signer: str = ""
    mode: str = "event"
    store: str = ""
    stores: tuple[str, ...] = ()
    problem: str = ""
    max_bytes: int = MAX_BYTES


def read_settings() -> NotarySettings:
    """Return the settings."""
    from airflow.configuration import AIRFLOW_HOME

    from sealflow_airflow.gate.settings import option
    from sealflow_airflow.gate.settings import read_settings as gate_settings

    texts = {name: option(name) for name in ("notary_signer", "notary_mode", "notary_store", "notary_max_bytes")}
    mode = texts["notary_mode"].lower() or "event"
    problems = [] if mode in MODES else [f"notary_mode is none of {', '.join(MODES)} and counts as event"]
    most = texts["notary_max_bytes"]
    if most and not most.isdecimal():
        problems.append(f"notary_max_bytes is no number and counts as {MAX_BYTES}")
    return NotarySettings(
        texts["notary_signer"],
        # The lesser claim where nobody can tell which one was meant.
        mode if mode in MODES else "event",
        texts["notary_store"] or os.path.join(AIRFLOW_HOME, "sealflow", "notary"),
        gate_settings().stores,
        "; ".join(problems),
        int(most) if most.isdecimal() else MAX_BYTES,
    )


class Notary:
    """Signs events in threads of its own, one event of each DAG at a time.

    Args:
        settings: Its settings.
    """

    def __init__(self, settings: NotarySettings) -> None:
        self._settings = settings
        self._signer: KeySigner | None = None
        self._wake = threading.Condition()
        self._pid = 0
        self._empty()
        if settings.problem:
            _log.error("sealflow: %s.", settings.problem)

    def _empty(self) -> None:
        self._waiting: FairQueue[str, SeenEvent] = FairQueue(MAX_WAITING)
        self._dropped: dict[str, tuple[SeenEvent, int]] = {}
        self._busy: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._ending = False

    def take(self, event: SeenEvent) -> None:
        """Have an event signed. Never waits, never raises."""
        with self._wake:
            if self._pid != os.getpid():
                self._begin()
            out = self._waiting.put(event.source.workflow, event)
            if out is not None:
                # Of whoever has most waiting: a DAG that emits without end takes no other's turn.
                key, lost = out
                number = self._dropped[key][1] if key in self._dropped else 0
                self._dropped[key] = lost, number + 1
            self._wake.notify()

    def settled(self) -> bool:
        """Tell whether nothing waits and nothing is being signed."""
        with self._wake:
            return not self._waiting and not self._busy and not self._dropped

    def close(self, timeout: float = _LAST) -> None:
        """Sign what waits, for some seconds."""
        with self._wake:
            if self._pid != os.getpid():
                return
            self._ending, threads = True, self._threads
            self._wake.notify_all()
        end = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            _log.error("sealflow: the notary ends before it has signed %d events.", len(self._waiting))
        self._pid = 0

    def _begin(self) -> None:
        self._empty()
        self._pid = os.getpid()
        self._threads = [
            threading.Thread(target=self._work, name=f"sealflow-notary-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close)

    def _work(self) -> None:
        while True:
            with self._wake:
                while (taken := self._waiting.take(1, self._busy)) is None and not self._dropped:
                    if self._ending:
                        return
                    self._wake.wait()
                lost = self._dropped.popitem() if self._dropped else None
                if taken is not None:
                    self._busy.add(taken[0])
            if lost is not None:
                self._tell_lost(*lost[1])
            if taken is not None:
                try:
                    self._sign_one(taken[1][0])
                finally:
                    with self._wake:
                        self._busy.discard(taken[0])
                        self._wake.notify_all()

    def _sign_one(self, event: SeenEvent) -> None:
        try:
            self.sign(event)
        except Exception as error:
            code = str(getattr(error, "code", type(error).__name__))
            count("sealflow.notary.failed", server=True, code=code)
            _log.error("sealflow: the notary does not sign the event of %s: %s", event.uri, error)

    def _tell_lost(self, event: SeenEvent, number: int) -> None:
        from sealflow.errors import UnavailableError

        count("sealflow.notary.failed", number, server=True, code="NOTARY_BUSY")
        text = f"Too many events of one DAG wait; {number} are not signed, {event.uri} among them."
        _log.error("sealflow: %s", text)
        with contextlib.suppress(Exception):
            self._refuse(event, event.uri, UnavailableError(text, code="NOTARY_BUSY"))

    @staticmethod
    def _refuse(event: SeenEvent, uri: str, error: SealflowError) -> None:
        """Record that an event is not signed, and raise why.

        Raises:
            SealflowError: Why.
        """
        import sealflow
        from sealflow.actions.recording import refusals_recorded
        from sealflow_airflow.hooks.sealflow import configured_settings

        with sealflow.run(sealflow.Surroundings(event.source, configured_settings())), refusals_recorded("notary", uri):
            raise error

    def sign(self, event: SeenEvent) -> bool:
        """Sign an event of a managed asset; tell whether it was one.

        Raises:
            SealflowError: It is not signed.
        """
        import sealflow
        from sealflow.actions.context import Surroundings
        from sealflow.actions.countersign import countersign
        from sealflow.actions.guarding import managed
        from sealflow.actions.recording import refusals_recorded
        from sealflow.errors import ArtifactError, SealflowError
        from sealflow.evidence import ArtifactRef
        from sealflow.keys import load_signer
        from sealflow_airflow.assets import Place
        from sealflow_airflow.aws import storages
        from sealflow_airflow.guard import REFERENCE, claimed
        from sealflow_airflow.hooks.sealflow import SealflowHook

        place = Place.parse(event.uri, event.name)
        with sealflow.run(Surroundings(event.source)):
            try:
                found = managed(place.uri)
            except SealflowError as error:
                self._refuse(event, place.uri, error)
                raise
        if found is None:
            return False
        try:
            settings = SealflowHook().get_conn()
            if self._signer is None:
                self._signer = load_signer(self._settings.signer)
        except SealflowError as error:
            self._refuse(event, found.uri, error)
            raise
        with sealflow.run(Surroundings(event.source, settings)):
            with refusals_recorded("notary", found.uri):
                if not event.source.run:
                    text = "No task emitted the event, so there is no source to sign."
                    raise ArtifactError(text, code="SOURCE_MISSING")
                if event.extra.get(REFERENCE) is None:
                    raise ArtifactError("The event carries no reference to signed bytes.", code="OUTLET_UNSIGNED")
                reach = storages(place.conn_id)
                given, where = claimed(place, event.extra, found, reach)
                ref = ArtifactRef.parse(given)
            name = countersign(
                where,
                event,
                ref,
                self._signer,
                self._settings.store,
                read_bytes=self._settings.mode == "hash",
                most_bytes=self._settings.max_bytes,
                stores=self._settings.stores,
                storages=reach,
            )
        count("sealflow.notary.signed", server=True)
        _log.info("sealflow: the notary has signed the event of %s: %s", where.uri, name)
        return True


def seen(asset_event: Any) -> SeenEvent:
    """Return an event of Airflow's, with the source that the server set."""
    from sealflow.evidence.notary import SeenEvent
    from sealflow.run_identity import RunIdentity

    index = asset_event.source_map_index
    source = RunIdentity("airflow")
    if asset_event.source_dag_id and asset_event.source_task_id and asset_event.source_run_id:
        source = RunIdentity(
            "airflow",
            asset_event.source_dag_id,
            asset_event.source_task_id,
            asset_event.source_run_id,
            None if index is None or index < 0 else index,
        )
    return SeenEvent(
        asset_event.asset.name,
        asset_event.asset.uri,
        source,
        dict(asset_event.extra or {}),
        str(asset_event.partition_key or ""),
        tuple(item.name for item in asset_event.source_aliases),
    )
