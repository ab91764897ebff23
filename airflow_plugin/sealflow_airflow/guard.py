"""The guard in the worker: inlets are verified before a task works, outlets are signed after it.

What is managed, believed and signed is decided by :mod:`sealflow.actions.guarding`. Here stands what only Airflow
knows: which assets a task declares, which events led to it, and how a task of it ends.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow_airflow.assets import Place, alias_name, each, inlets_of, place_of
from sealflow_airflow.metrics import count
from sealflow_airflow.observed import MAX_LOGGED

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

    from sealflow.actions.guarding import Admitted, Managed
    from sealflow.errors import SealflowError

#: Where a reference travels in an asset event's extra.
REFERENCE: Final = "sealflow"
#: Where an author names the concrete location in an asset event's extra.
LOCATION: Final = "sealflow_uri"
#: Events of one asset among which those of this DAG run are looked for: so many at first, and at most.
_RECENT: Final = 16
_MAX_RECENT: Final = 4096

_log = logging.getLogger(__name__)


class Inlet(NamedTuple):
    """An inlet's location, and the event that told of what lies there.

    Attributes:
        place: The asset's own location.
        event: The event, ``None`` where there is none.
        exact: Whether it is the event that this DAG run was started by, or comes from this DAG run.
    """

    place: Place
    event: Any = None
    exact: bool = False


def guarded(context: Context, task: BaseOperator, work: Callable[[], Any]) -> Any:
    """Do a task's work under guard.

    Raises:
        AirflowFailException: An inlet is refused, was changed while the task ran, or an outlet cannot be signed; or a
            trigger would end the task where nobody can sign.
        AirflowException: Nobody can say: a store, a key service, the admin's policy or the audit log is out of reach.
    """
    from airflow.sdk.exceptions import (
        AirflowFailException,
        DagRunTriggerException,
        DownstreamTasksSkipped,
        TaskDeferred,
    )

    from sealflow_airflow.outcome import airflow_errors

    watch = _Lineage()
    guard = _Guard(context, task)
    with airflow_errors():
        guard.before()
    try:
        result = work()
    except TaskDeferred as deferred:
        # Whoever lets a trigger end the task ends it where nobody can sign.
        if getattr(deferred.trigger, "end_from_trigger", False) and guard.concerned:
            text = (
                "This trigger would end the task without its worker, where nothing can be signed. "
                "Let the operator come back (`end_from_trigger=False`)."
            )
            if any(managed.enforced for managed in guard.declared):
                raise AirflowFailException(text) from None
            _log.warning("%s The rules are only audited.", text)
        raise
    except (DownstreamTasksSkipped, DagRunTriggerException) as ending:
        # These end a task with success, and its asset events are emitted. One that waits for the DAG which it triggers,
        # and comes back when that is done, is guarded again then.
        comes_back = getattr(ending, "wait_for_completion", False) and getattr(ending, "deferrable", False)
        if not comes_back:
            with airflow_errors():
                guard.after(None, watch)
        raise
    with airflow_errors():
        guard.after(result, watch)
    return result


@dataclass
class _Guard:
    """One run of one task."""

    context: Context
    task: BaseOperator
    admitted: list[tuple[Admitted, Place]] = field(default_factory=list)
    declared: list[Managed] = field(default_factory=list)
    signed: int = 0
    untouched: int = 0
    concerned: bool = False
    _storages: dict[str | None, Any] = field(default_factory=dict)
    _surroundings: Any = None

    def before(self) -> None:
        """Verify the inlets, and see whether the outlets can be signed."""
        inlets = list(self._inlets())
        outlets = [place for item in each(self.task.outlets) if (place := place_of(item, ask=True)) is not None]
        if not inlets and not outlets:
            return
        from sealflow.actions import guarding

        found = [(inlet, managed) for inlet in inlets if (managed := self._managed(inlet.place)) is not None]
        made = [managed for place in outlets if (managed := self._managed(place)) is not None]
        self.untouched = len(inlets) + len(outlets) - len(found) - len(made)
        self.declared = [managed for _, managed in found] + made
        self.concerned = bool(found or made)
        if not self.concerned:
            return
        with self._run():
            for managed in made:
                if managed.enforced:
                    guarding.ready(managed)
            for inlet, managed in found:
                self._admit(inlet, managed)

    def after(self, result: Any, watch: _Lineage) -> None:
        """Check the inlets again, sign the outlets, and say what was used undeclared."""
        # Airflow reports what the task object holds by now.
        outputs = [item for item in self._outputs() if self._managed(item.place) is not None]
        read, written = watch.seen()
        if self.concerned or outputs or read or written:
            from sealflow.actions import guarding

            with self._run():
                self._seal(outputs, result)
                found = guarding.undeclared(read, written, self.declared)
            for finding in found[:MAX_LOGGED]:
                _log.warning("%s", finding.line())
            count("sealflow.guard.undeclared", len(found))
        count("sealflow.guard.untouched", self.untouched)
        if self.untouched or self.concerned or outputs:
            _log.info(
                "sealflow: %d inlets verified, %d outlets signed, %d assets not managed.",
                len(self.admitted),
                self.signed,
                self.untouched,
            )

    def _admit(self, inlet: Inlet, managed: Managed) -> None:
        from sealflow.actions import guarding
        from sealflow.errors import SealflowError

        place = managed
        try:
            storages = self._storages_for(inlet.place)
            extra = getattr(inlet.event, "extra", None) or {}
            artifact, place = claimed(inlet.place, extra, managed, storages)
            self.declared.append(place)
            told = None if inlet.event is None else guarding.Told(_source(inlet.event))
            admitted = guarding.admit(place, artifact, told=told, storages=storages)
        except SealflowError as error:
            self._bear(place, error)
            return
        self.admitted.append((admitted, inlet.place))
        count("sealflow.guard.verified")
        for finding in admitted.findings[:MAX_LOGGED]:
            if finding.severity != "note":
                _log.warning("%s", finding.line())
        _log.info("%s Digest %s.", admitted.checked.verdict.summary(), admitted.checked.verdict.digest)

    def _seal(self, outputs: Sequence[_Output], result: Any) -> None:
        from sealflow.actions import context as core
        from sealflow.actions import guarding
        from sealflow.errors import SealflowError

        places: list[tuple[_Output, Managed, Any]] = []
        for output in outputs:
            managed = self._managed(output.place)
            assert managed is not None  # noqa: S101  (the caller has seen to it)
            storages = self._storages_for(output.place)
            given = output.extra.get(LOCATION)
            try:
                named = _location(given) if isinstance(given, str) else ""
                place = guarding.concrete(managed, named, storages) if named else managed
            except SealflowError as error:
                self._spare(managed, output, error)
                continue
            places.append((output, place, storages))
        replaced = {place.uri for _, place, _ in places}
        for admitted, inlet in self.admitted:
            if admitted.managed.uri in replaced:
                core.forget_verified(core.current().run, admitted.managed.uri)
                continue
            try:
                guarding.still(admitted, storages=self._storages_for(inlet))
            except SealflowError as error:
                core.forget_verified(core.current().run, admitted.managed.uri)
                self._bear(admitted.managed, error)
        for output, place, storages in places:
            try:
                ref = guarding.seal(place, name=output.place.name, made=result, storages=storages)
            except SealflowError as error:
                self._spare(place, output, error)
                continue
            output.extra[REFERENCE] = ref.as_dict()
            self.declared.append(place)
            self.signed += 1
            count("sealflow.guard.signed")
            _log.info("Signed %s: %s", ref.uri, ref.digest)

    @staticmethod
    def _bear(place: Managed, error: SealflowError) -> None:
        """Let an input be used that nobody vouches for, where rules are only audited."""
        if place.enforced:
            raise error
        count("sealflow.guard.audited", code=error.code)
        _log.warning("Not believed, which is only audited here: %s", error)

    @staticmethod
    def _spare(place: Managed, output: _Output, error: SealflowError) -> None:
        """Let an output go unsigned where rules are only audited; what an author claims of it goes."""
        if place.enforced:
            raise error
        output.extra.pop(REFERENCE, None)
        count("sealflow.guard.audited", code=error.code)
        _log.warning("Not signed, which is only audited here: %s", error)

    def _managed(self, place: Place) -> Managed | None:
        import sealflow
        from sealflow.actions import guarding
        from sealflow_airflow.run_context import identity_of

        # Whether it is managed is asked without the connection, which tasks that are not concerned may not have.
        with sealflow.run(sealflow.Surroundings(identity_of(self.context))):
            return guarding.managed(place.uri)

    def _run(self) -> Any:
        import sealflow
        from sealflow_airflow.run_context import surroundings

        if self._surroundings is None:
            self._surroundings = surroundings(self.context)
        return sealflow.run(self._surroundings)

    def _storages_for(self, place: Place) -> Any:
        from sealflow_airflow.aws import storages

        if place.conn_id not in self._storages:
            self._storages[place.conn_id] = storages(place.conn_id)
        return self._storages[place.conn_id]

    def _inlets(self) -> Iterator[Inlet]:
        known = set()
        for item in inlets_of(self.task):
            own = place_of(item, ask=True)
            which = own or alias_name(item)
            if which is None or which in known:
                continue
            known.add(which)
            if own is not None and self._managed(own) is None:
                yield Inlet(own)
                continue
            events = self._events(item)
            if not events:
                if own is not None:
                    yield Inlet(own)
                continue
            # A consumer may go by any of them, so only what speaks of the same place is replaced by a later one.
            latest: dict[frozenset[str], Inlet] = {}
            for event, exact in events:
                place = Place.parse(event.asset.uri, event.asset.name)
                latest[_places_in(event.extra or {}, place)] = Inlet(place, event, exact)
            yield from latest.values()

    def _events(self, item: Any) -> list[tuple[Any, bool]]:
        """Return the events that told of an inlet, the oldest first: those that started this DAG run before others."""
        triggering = self.context.get("triggering_asset_events")
        if triggering is not None:
            try:
                found = list(triggering[item])
            except KeyError:
                found = []
            if found:
                return [(event, True) for event in sorted(found, key=lambda event: event.timestamp)]
        recent, own = self._recent(item)
        if own:
            # What a task emits anew, when it was cleared, takes the place of what it emitted before.
            by_source = {(event.asset.uri, event.source_task_id, event.source_map_index): event for event in own}
            return [(event, True) for event in sorted(by_source.values(), key=lambda event: event.timestamp)]
        return [(recent[0], False)] if recent else []

    def _recent(self, item: Any) -> tuple[list[Any], list[Any]]:
        """Return an inlet's latest events, the latest first, and those of this DAG run, the oldest first."""
        ti, number = self.context["ti"], _RECENT
        while True:
            recent = list(self._told(item).ascending(False).limit(number))
            own = [(event.source_dag_id, event.source_run_id) == (ti.dag_id, ti.run_id) for event in recent]
            # A mapped task may have emitted any number of them.
            if len(recent) < number or number >= _MAX_RECENT or not any(own[number // 2 :]):
                return recent, [event for event, mine in zip(recent, own, strict=True) if mine][::-1]
            number *= 4

    def _told(self, item: Any) -> Any:
        """Return Airflow's accessor of an inlet's events."""
        try:
            return self.context["inlet_events"][item]
        except KeyError:
            # It knows of nothing inside of a condition, nor of arguments.
            from airflow.sdk.execution_time.context import InletEventsAccessors

            return InletEventsAccessors([item])[item]

    def _outputs(self) -> Iterator[_Output]:
        events, known = self.context["outlet_events"], set()
        for item in each(self.context["ti"].task.outlets):
            if alias_name(item) is None:
                place = place_of(item, ask=True)
                if place is not None and place not in known and self._managed(place) is not None:
                    yield _Output(place, events[item].extra)
                known.add(place)
                continue
            for event in events[item].asset_alias_events:
                yield _Output(Place.parse(event.dest_asset_key.uri, event.dest_asset_key.name), event.extra)


def claimed(place: Place, extra: Mapping[str, Any], managed: Managed, storages: Any) -> tuple[Any, Managed]:
    """Return what an event says an asset's artifact is, a reference or a location, and its place.

    Args:
        place: The asset's own location.
        extra: The event's extra.
        managed: What the policy says of that location.
        storages: Finds storage.

    Raises:
        UsageError: It says nothing of this asset, or different things: whoever reads the event may go by either.
    """
    from sealflow.actions import guarding
    from sealflow.errors import UsageError
    from sealflow.findings import printable

    ref, given = extra.get(REFERENCE), extra.get(LOCATION)
    named = guarding.concrete(managed, _location(given), storages) if isinstance(given, str) and given else None
    if ref is None:
        return (place.uri, managed) if named is None else (named.uri, named)
    if not isinstance(ref, dict):
        raise UsageError(f"`{REFERENCE}` in the asset event's extra is no reference.", code="REFERENCE_MALFORMED")
    where = ref.get("uri")
    found = guarding.concrete(managed, where, storages) if isinstance(where, str) else managed
    if named is not None and named.uri != found.uri:
        raise UsageError(
            f"The asset event names {printable(named.uri)}, and its reference {printable(found.uri)}.",
            code="LOCATION_OUTSIDE_ASSET",
            next_step="Run the task again that emitted it, under guard.",
        )
    return ref, found


class _Output(NamedTuple):
    """An outlet, and the extra of the event that will tell of it."""

    place: Place
    extra: dict[str, Any]


class _Lineage:
    """What Airflow's hook lineage sees between two moments."""

    def __init__(self) -> None:
        self._before = self._collected()

    def seen(self) -> tuple[list[str], list[str]]:
        """Return what was read and written since the beginning."""
        now = self._collected()
        read, written = (
            [uri for uri, count in now[index].items() if count > self._before[index].get(uri, 0)] for index in (0, 1)
        )
        return read, written

    @staticmethod
    def _collected() -> tuple[dict[str, int], dict[str, int]]:
        counts: tuple[dict[str, int], dict[str, int]] = ({}, {})
        module = sys.modules.get("airflow.sdk.lineage")
        # Making the collector loads the hooks of all providers, for seconds; without one, no hook was used.
        if module is None or not module.get_hook_lineage_collector.cache_info().currsize:
            return counts
        found = module.get_hook_lineage_collector().collected_assets
        for index, items in enumerate((found.inputs, found.outputs)):
            for item in items:
                uri = Place.parse(item.asset.uri, item.asset.name).uri
                counts[index][uri] = counts[index].get(uri, 0) + item.count
        return counts


def _location(given: str) -> str:
    # As of an asset's uri: authors write `str(ObjectStoragePath(…))`, which names the connection.
    return Place.parse(given).uri


def _places_in(extra: Mapping[str, Any], place: Place) -> frozenset[str]:
    """Return the locations that an event names, as their storages write them: one, unless somebody lies."""
    from sealflow.errors import SealflowError
    from sealflow.storage import Storages

    ref = extra.get(REFERENCE)
    named = [_location(extra[LOCATION])] if isinstance(extra.get(LOCATION), str) and extra[LOCATION] else []
    if ref is not None:
        named.append(str(ref.get("uri")) if isinstance(ref, dict) else str(ref))
    found = set()
    for uri in named or [place.uri]:
        try:
            found.add(Storages().for_uri(uri).canonical(uri))
        except SealflowError:
            found.add(uri)
    return frozenset(found)


def _source(event: Any) -> str:
    """Return which task instance the API server saw emitting an event, as an invocation; empty for none."""
    if not (event.source_dag_id and event.source_task_id and event.source_run_id):
        return ""
    text = f"airflow:{event.source_dag_id}/{event.source_task_id}/{event.source_run_id}"
    index = event.source_map_index
    return text if index is None or index < 0 else f"{text}/{index}"
