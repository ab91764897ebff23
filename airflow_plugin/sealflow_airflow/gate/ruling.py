"""The decision about one success: which managed outlets it tells of, and whether signed evidence stands behind each.

Runs in threads. What is managed and believed is decided by the core.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow import strictjson
from sealflow_airflow.assets import Place
from sealflow_airflow.gate.database import AssetKey, Task, resolve, task_of
from sealflow_airflow.gate.messages import Success, Unknown
from sealflow_airflow.gate.telling import SILENT, Told, plainly_wrong, told
from sealflow_airflow.guard import LOCATION, REFERENCE, claimed
from sealflow_airflow.metrics import count
from sealflow_airflow.observed import MAX_LOGGED

if TYPE_CHECKING:
    import uuid

    from sealflow.actions.context import Surroundings
    from sealflow.actions.guarding import Managed
    from sealflow.errors import SealflowError

#: Most refusals that an answer names.
MAX_NAMED: Final = 5
#: Most claims of one task that are judged.
MAX_JUDGED: Final = 128
#: Most texts of a message of an unknown form that are looked up.
_MAX_TEXTS: Final = 500
#: Longest name or location of an asset that Airflow's database takes, in characters, and to spare.
_MAX_NAME: Final = 4096

_log = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """Why a success is not passed on.

    Attributes:
        code: Code of the first reason.
        message: What a person reads in the task's log.
        again: Whether the same message may pass later.
    """

    code: str
    message: str
    again: bool = False


#: Goes on with a success: returns what came of it, or what goes on from there.
Stage = Callable[[], Any]


@dataclass
class Ruling:
    """Decides about the successes of a deployment's tasks.

    Args:
        enforce: Whether refusals are more than recorded.
        stores: Evidence stores that references may name, beside those that are always read.
        dags: Returns Airflow's ``DBDagBag``.
        surroundings: Returns what surrounds an action about a task, by its identity.
        record: Has something recorded, without waiting for it.
    """

    enforce: bool
    stores: tuple[str, ...]
    dags: Callable[[], Any]
    surroundings: Callable[[Any], Surroundings] = field(default_factory=lambda: surroundings_of)
    record: Callable[[Callable[[], None]], object] = field(default=lambda work: work())

    def look(self, instance: uuid.UUID, report: Success | Unknown) -> Refusal | Stage | None:
        """Look whether a success has to do with any asset. Asks Airflow's database alone, as Airflow itself will.

        Returns:
            ``None``: it may pass; a refusal; or what goes on from there: first whether something is managed, which may
            wait for the policy, and that may return what reads evidence, which may wait for stores.
        """
        try:
            task = task_of(instance, self.dags())
            if task is None:
                return None  # Airflow knows no such task either
            if isinstance(report, Unknown):
                return partial(self._then, partial(self._unknown, task, report), report)
            events = list(told(task, report))
            silent = task.reported - {event.key for event in events}
        except Exception as error:
            return self._broken(report, error)
        if not events and not silent:
            return None
        return partial(self._then, partial(self._sort, task, events, silent), report)

    def _then(self, stage: Stage, report: Success | Unknown) -> Refusal | Stage | None:
        try:
            found = stage()
        except Exception as error:
            return self._broken(report, error)
        return partial(self._guarded, found) if callable(found) else _counted(found)

    def _guarded(self, stage: Stage) -> Refusal | Stage | None:
        try:
            found = stage()
        except Exception as error:
            _log.exception("sealflow: the gate could not judge a success.")
            count("sealflow.gate.broken", server=True)
            # It has to do with something managed, or it would not be judged.
            return _not_judged(error) if self.enforce else None
        return found if callable(found) else _counted(found)

    def _sort(self, task: Task, events: list[Told], silent: set[AssetKey]) -> Refusal | Stage | None:
        """Return a refusal for which no evidence is needed, or what judges the rest."""
        from sealflow import run
        from sealflow.actions.context import Surroundings

        problems: list[SealflowError] = []
        # Whether something is managed is asked without the connection, which may not be to be had.
        with run(Surroundings(task.run)):
            concerned = [
                (place, managed, event)
                for place, managed, event in _managed([(event.key, event) for event in events], problems)
                if event is not None
            ]
            missing = [managed for _, managed, _ in _managed([(key, None) for key in silent], problems)]
        if not (concerned or missing or problems):
            return None
        # These wait for no store, so nobody gains by making stores slow.
        plain = [(managed, *why) for _, managed, event in concerned if (why := plainly_wrong(event)) is not None]
        plain += [(managed, *SILENT) for managed in missing]
        if self.enforce and any(managed.enforced for managed, _, _ in plain):
            return self._refuse_plainly(task, plain)
        return partial(self._judge_all, task, concerned, plain, problems)

    def _refuse_plainly(self, task: Task, plain: list[tuple[Managed, str, str]]) -> Refusal | None:
        """Refuse, and have it recorded apart: a log that is slow, or away, must not turn a refusal into a wait."""
        from sealflow.errors import VerificationError
        from sealflow.findings import Finding, Verdict

        found = []
        for managed, code, message in plain[:MAX_NAMED]:
            finding = Finding(code, "refusal", managed.uri, message, rule="gate")
            found.append(VerificationError(Verdict("failed", managed.uri, findings=(finding,))))
        self.record(partial(self._record_plain, task, plain))
        return _refusal(task, list(found))

    def _record_plain(self, task: Task, plain: list[tuple[Managed, str, str]]) -> None:
        from sealflow import run
        from sealflow.actions.attested import refuse

        try:
            with run(self.surroundings(task.run)):
                for managed, code, message in plain[:MAX_JUDGED]:
                    refuse(managed, code, message)
        except Exception:
            _log.exception("sealflow: a refusal of %s could not be recorded.", task.run.invocation)

    def _judge_all(
        self,
        task: Task,
        concerned: list[tuple[Place, Managed, Told]],
        plain: list[tuple[Managed, str, str]],
        problems: list[SealflowError],
    ) -> Refusal | None:
        from sealflow import run
        from sealflow.errors import SealflowError

        try:
            surroundings = self.surroundings(task.run)
        except SealflowError as error:
            # Without the connection nobody can tell where evidence lies.
            if any(item.enforced for item in (*(managed for _, managed, _ in concerned), *(one[0] for one in plain))):
                problems.append(error)
        else:
            with run(surroundings):
                for managed, code, message in plain[:MAX_JUDGED]:
                    self._bear(managed, partial(_raise_recorded, managed, code, message), problems)
                self._judge_each(task, concerned, problems)
        if not self.enforce:
            for error in problems:
                self._let_pass(error)
            return None
        return _refusal(task, problems)

    def _judge_each(
        self, task: Task, concerned: list[tuple[Place, Managed, Told]], problems: list[SealflowError]
    ) -> None:
        """Judge each claim once, however many partitions tell of it."""
        claims: dict[tuple[str, bytes], tuple[Place, Managed, Told]] = {}
        for place, managed, event in concerned:
            if plainly_wrong(event) is None:
                said = {name: event.extra.get(name) for name in (REFERENCE, LOCATION)}
                claims.setdefault((managed.uri, strictjson.dumps(said)), (place, managed, event))
        if len(claims) > MAX_JUDGED:
            from sealflow.errors import UsageError

            # Which ones are left out must not be the author's choice.
            text = f"The task tells of {len(claims)} managed artifacts; the gate judges {MAX_JUDGED} of one task."
            problems.append(UsageError(text, code="OUTLETS_TOO_MANY", next_step="Split the task."))
            return
        for place, managed, event in claims.values():
            self._bear(managed, partial(self._judge, task, place, managed, event), problems)

    @staticmethod
    def _let_pass(error: SealflowError) -> None:
        count("sealflow.gate.audited", server=True, code=error.code)
        _log.warning("sealflow: the gate lets pass what it would refuse, since this is only audited: %s", error)

    def _bear(self, managed: Managed, judge: Callable[[], None], problems: list[SealflowError]) -> None:
        from sealflow.errors import SealflowError

        try:
            judge()
        except SealflowError as error:
            if self.enforce and managed.enforced:
                problems.append(error)
            else:
                self._let_pass(error)
        else:
            count("sealflow.gate.passed", server=True)

    def _judge(self, task: Task, place: Place, managed: Managed, event: Told) -> None:
        """Judge one event of a managed asset.

        Raises:
            SealflowError: It is refused, or nobody can say.
        """
        from sealflow.actions import guarding
        from sealflow.actions.attested import attest
        from sealflow.actions.recording import refusals_recorded
        from sealflow.evidence import ArtifactRef
        from sealflow.run_identity import without_attempt
        from sealflow_airflow.aws import storages

        reach = storages(place.conn_id)
        with refusals_recorded("gate", managed.uri):
            given, where = claimed(place, event.extra, managed, reach)
            ref = ArtifactRef.parse(given)
        source = without_attempt(task.run.invocation)
        checked = attest(
            where, ref, told=guarding.Told(source, "Airflow's database"), stores=self.stores, storages=reach
        )
        _log.info("sealflow: %s", checked.verdict.summary())

    def _unknown(self, task: Task, report: Unknown) -> Refusal | None:
        """Refuse a message of an unknown form where it, or the task, has to do with a managed artifact."""
        from sealflow import run
        from sealflow.actions.context import Surroundings

        texts = [text for text in dict.fromkeys(report.strings) if len(text) <= _MAX_NAME]
        if len(texts) > _MAX_TEXTS:
            return self._strange(report, "it holds more texts than can be looked up")
        # Whatever a text means in it: a location, or the name of an asset that Airflow knows.
        keys = [AssetKey("", text) for text in texts if "/" in text]
        keys += resolve(texts, texts)
        keys += [key for item in task.declared for key in item.assets]
        problems: list[SealflowError] = []
        with run(Surroundings(task.run)):
            found = [managed for _, managed, _ in _managed([(key, None) for key in dict.fromkeys(keys)], problems)]
        concerned = any(item.enforced for item in found)
        if not (concerned or problems or task.open_ended):
            return None
        return self._strange(report, "the task has to do with managed artifacts, or may have")

    def _strange(self, report: Unknown, why: str) -> Refusal | None:
        text = (
            f"The gate of sealflow does not know the form of this message ({report.why}), and {why}; so it is refused. "
            "Use a release of sealflow that knows this release of Airflow, or have the admin set [sealflow] gate to "
            "audit."
        )
        if not self.enforce:
            count("sealflow.gate.audited", server=True, code="MESSAGE_UNKNOWN")
            _log.warning("%s It is only audited.", text)
            return None
        return Refusal("MESSAGE_UNKNOWN", text)

    def _broken(self, report: Success | Unknown, error: Exception) -> Refusal | None:
        """Answer where nobody can look: closed for what may be managed, open for what tells of nothing managed."""
        _log.exception("sealflow: the gate could not look at a success.")
        count("sealflow.gate.broken", server=True)
        if not self.enforce:
            return None
        places = report.places if isinstance(report, Success) else None
        if places is not None and not any(map(_perhaps_managed, dict.fromkeys(places))):
            return None
        return _not_judged(error)


def _not_judged(error: Exception) -> Refusal:
    return Refusal(
        "GATE_BROKEN",
        f"The gate of sealflow could not judge this success ({type(error).__name__}), and it tells of an outlet that "
        "may be managed. The API server's log says more.",
        again=True,
    )


def _counted(found: Refusal | None) -> Refusal | None:
    if found is not None and found.again:
        count("sealflow.gate.unavailable", server=True, code=found.code)
    elif found is not None:
        count("sealflow.gate.refused", server=True, code=found.code)
    return found


def surroundings_of(identity: Any) -> Surroundings:
    """Return what surrounds an action of the API server about a task.

    Raises:
        UsageError: The default connection is refused.
        UnavailableError: It is not to be had.
    """
    from sealflow.actions.context import Surroundings
    from sealflow_airflow.hooks.sealflow import SealflowHook

    return Surroundings(identity, SealflowHook().get_conn())


def _managed(
    items: Iterable[tuple[AssetKey, Told | None]], problems: list[SealflowError]
) -> Iterator[tuple[Place, Managed, Told | None]]:
    from sealflow.actions.guarding import managed
    from sealflow.errors import SealflowError

    for key, event in items:
        place = Place.parse(key.uri, key.name)
        try:
            found = managed(place.uri)
        except SealflowError as error:
            # Nobody can tell what it names, or what the policy says of it.
            problems.append(error)
            continue
        if found is not None:
            yield place, found, event


def _raise_recorded(managed: Managed, code: str, message: str) -> None:
    from sealflow.actions.attested import refuse

    raise refuse(managed, code, message)


def _refusal(task: Task, problems: list[SealflowError]) -> Refusal | None:
    if not problems:
        return None
    # What is known to be wrong stays wrong when a store is back.
    final = [error for error in problems if not error.retryable]
    shown = (final or problems)[:MAX_NAMED]
    for error in problems[:MAX_LOGGED]:
        _log.warning("sealflow: the gate refuses the success of %s: %s", task.run.invocation, error)
    more = f" And {len(problems) - len(shown)} more." if len(problems) > len(shown) else ""
    what = "cannot judge" if not final else "refuses"
    return Refusal(
        shown[0].code, f"sealflow {what} this success: {' '.join(str(error) for error in shown)}{more}", not final
    )


def _perhaps_managed(text: str) -> bool:
    from sealflow.actions.guarding import managed

    try:
        return managed(Place.parse(text).uri) is not None
    except Exception:
        return True
