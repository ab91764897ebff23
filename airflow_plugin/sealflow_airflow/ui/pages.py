"""Puts together what each page shows, and renders it.

Everything that is shown is other people's text, so all of it is made printable and escaped, by the environment of the
templates and by nobody else.
"""

from __future__ import annotations

import datetime
import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sealflow import __version__
from sealflow.errors import SealflowError
from sealflow.findings import CODES, printable
from sealflow_airflow.ui import index as table
from sealflow_airflow.ui import lineage, search, standing, words
from sealflow_airflow.ui.access import known_dags
from sealflow_airflow.ui.aged import Aged, Seen
from sealflow_airflow.ui.follow import Follower, Source
from sealflow_airflow.ui.index import Facts, Row
from sealflow_airflow.ui.search import Query, Sight

#: Rows of a run that are looked at, and that a table of its page shows.
MAX_OF_RUN: Final = 2000
MAX_SHOWN: Final = 100
_MAX_REFUSED: Final = 20
_POLICY_PATIENCE: Final = 60.0
_HERE: Final = os.path.dirname(__file__)


class Shown(NamedTuple):
    """One or several like rows, as a table shows them.

    Attributes:
        row: The latest of them.
        words: What it says.
        times: How many there are.
        proof: Whether its proof can be had.
    """

    row: Row
    words: words.Words
    times: int = 1
    proof: bool = False


@dataclass(frozen=True)
class Journal:
    """Where the index stands, for a page to say.

    Attributes:
        source: What it is made from.
        facts: What it says of itself.
        busy: Whether it is being read just now.
        age: Seconds since it was read, ``None`` for never.
        problem: What keeps it from being used at all.
        next_step: What to do about it, or about the problem that it tells of.
    """

    source: Source
    facts: Facts
    busy: bool = False
    age: int | None = None
    problem: str = ""
    next_step: str = ""


class World:
    """What the pages look at: the audit log through its index, the policy, Airflow's DAGs. One for each process."""

    def __init__(self) -> None:
        self._follower: Follower | None = None
        self._coverage = standing.Coverage()
        self.policy: Aged[standing.Policy] = Aged(self._in_context(standing.read_policy), 30.0)
        self.guarding: Aged[dict[str, standing.Guarding]] = Aged(self._in_context(self._guarding), 60.0)

    @functools.cached_property
    def settings(self) -> Any:
        """The settings of this process, as ``[sealflow]`` and the machine have them."""
        from sealflow.actions import context
        from sealflow_airflow.hooks.sealflow import configured_settings

        with context.run(context.Surroundings(settings=configured_settings())):
            return context.current().settings

    @property
    def follower(self) -> Follower:
        """What keeps the index."""
        if self._follower is None:
            self._follower = Follower(state_folder(), Source.of(self.settings), known=known_dags)
        return self._follower

    def trust(self, sight: Sight) -> str:
        """Return the page Trust."""
        policy, guarding = self.policy.get(), self.guarding.get()
        known = _seen_dags(guarding, sight)
        journal = self._journal()
        counts: dict[str, int] = {}
        refused = recent = search.Page(())
        said: dict[str, tuple[str, str]] = {}
        if not journal.problem:
            since = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
            try:
                with self.follower.index.reading() as connection:
                    counts = search.counted(connection, since, sight)
                    refused = search.find(connection, Query(status="refused"), sight, 10)
                    recent = search.find(connection, Query(), sight, 10)
                    worst = [item for item in known if item.state != "unconcerned"][: search.PAGE]
                    said = search.latest(connection, frozenset(item.dag for item in worst))
            except SealflowError as error:
                journal = replace(journal, problem=error.message, next_step=error.next_step)
        return render(
            "trust.html",
            policy=policy,
            guarding=guarding,
            numbers=standing.in_numbers({item.dag: item for item in known}),
            worst=[item for item in known if item.state in ("unguarded", "audited")][: search.PAGE],
            said=said,
            counts=counts,
            refused=_shown(refused.rows),
            recent=_shown(recent.rows),
            journal=journal,
            names=_names(policy),
            sight=sight,
        )

    def verdicts(self, sight: Sight, given: Mapping[str, str]) -> str:
        """Return the page that searches verdicts."""
        query = Query.parse(given)
        journal = self._journal()
        page = search.Page(())
        if not journal.problem:
            try:
                with self.follower.index.reading() as connection:
                    page = search.find(connection, query, sight)
            except SealflowError as error:
                journal = replace(journal, problem=error.message, next_step=error.next_step)
        more = None if page.more is None else query.link(before=page.more)
        return render(
            "verdicts.html",
            query=query,
            rows=_shown(page.rows),
            more=more,
            first=query.link(before=None),
            journal=journal,
            names=_names(self.policy.get()),
            statuses=tuple(search.STATUSES),
            sight=sight,
        )

    def dags(self, sight: Sight, given: Mapping[str, str]) -> str:
        """Return the page that lists DAGs."""
        guarding = self.guarding.get()
        name = given.get("dag", "").strip()[:250]
        state = given.get("state", "")
        known = [
            item
            for item in _seen_dags(guarding, sight)
            if name.lower() in item.dag.lower() and state in ("", item.state)
        ]
        number = given.get("page", "")
        page = int(number) if number.isascii() and number.isdecimal() and len(number) < 7 else 0
        listed = known[page * search.PAGE : (page + 1) * search.PAGE]
        journal = self._journal()
        said: dict[str, tuple[str, str]] = {}
        if not journal.problem:
            try:
                with self.follower.index.reading() as connection:
                    said = search.latest(connection, frozenset(item.dag for item in listed))
            except SealflowError as error:
                journal = replace(journal, problem=error.message, next_step=error.next_step)
        return render(
            "dags.html",
            guarding=guarding,
            rows=listed,
            said=said,
            total=len(known),
            page=page,
            pages=max(1, -(-len(known) // search.PAGE)),
            name=name,
            state=state,
            states=standing.STATES,
            journal=journal,
        )

    def evidence(self, sight: Sight, given: Mapping[str, str], *, proofs: bool) -> str:
        """Return the page about a DAG run or a task in it.

        Args:
            sight: What the reader may see; the DAG is among it.
            given: The parameters of the request.
            proofs: Whether the reader may have the log's entries.
        """
        dag, run, task = (given.get(name, "")[:512] for name in ("dag_id", "run_id", "task_id"))
        number = given.get("map_index", "")
        # Airflow leaves the placeholder as it is for a task that is not mapped.
        map_index = int(number) if number.isascii() and number.isdecimal() and len(number) < 8 else None
        journal, policy = self._journal(), self.policy.get()
        rows: list[Row] = []
        refused: list[Row] = []
        picture, nodes = "", []
        if not journal.problem:
            try:
                with self.follower.index.reading() as connection:
                    of = functools.partial(search.of_run, connection, dag, run, task=task, map_index=map_index)
                    rows, refused = of(MAX_OF_RUN), of(_MAX_REFUSED, refused=True)
                    graph = lineage.lineage_of(connection, rows, sight, _names(policy))
                    if graph.nodes:
                        name = f"{dag}/{task}" if task else dag
                        picture, nodes = lineage.drawn(graph, rows, f"{name}, run {run}"), list(graph.nodes.values())
            except SealflowError as error:
                journal = replace(journal, problem=error.message, next_step=error.next_step)
        size = journal.facts.size if proofs else 0
        now, before = _tries(rows, refused)
        guarding = self.guarding.get()
        return render(
            "evidence.html",
            dag=dag,
            run=run,
            task=task,
            map_index=map_index,
            verdict=words.worst([*now, *rows]),
            refused=_shown(now, size),
            before=_shown(before, size),
            verified=len(
                {(row.artifact, row.digest) for row in rows if row.action in words.IN and row.outcome == "passed"}
            ),
            signed=len({row.digest for row in rows if row.action in words.SIGNED and row.outcome == "done"}),
            came_in=_shown((row for row in rows if row.action in words.IN), size),
            went_out=_shown((row for row in rows if row.action in words.OUT), size),
            others=_shown((row for row in rows if row.action not in words.IN | words.OUT), size),
            cut=len(rows) >= MAX_OF_RUN,
            most=MAX_SHOWN,
            picture=Markup(picture),  # noqa: S704 - the core has escaped what is in it
            nodes=nodes,
            journal=journal,
            policy=policy,
            names=_names(policy),
            standing=(guarding.value or {}).get(dag),
        )

    def row_at(self, idx: int) -> Row | None:
        """Return the row of an entry that the log has."""
        with self.follower.index.reading() as connection:
            return search.at(connection, idx) if idx < table.facts_of(connection).size else None

    def proof(self, idx: int) -> bytes:
        """Return the proof of an entry, as C2SP tlog-proof writes it.

        Raises:
            SealflowError: The log is out of reach, or not what its key signed.
        """
        from sealflow.actions.audit_opening import log_and_key
        from sealflow.actions.audit_prove import proof_at
        from sealflow.actions.context import Surroundings
        from sealflow.storage import Storages

        source = self.follower.source
        store, key = log_and_key(source.log, source.key, Surroundings(), Storages())
        return proof_at(idx, store, key).encode()

    def _journal(self) -> Journal:
        follower = self.follower
        try:
            follower.freshen()
            with follower.index.reading() as connection:
                facts = table.facts_of(connection)
        except SealflowError as error:
            return Journal(follower.source, Facts(), problem=error.message, next_step=error.next_step)
        age = max(0, int(time.time() - facts.read_at)) if facts.read_at else None
        kind = CODES.get(facts.problem)
        return Journal(follower.source, facts, follower.busy, age, next_step=kind.next_step if kind else "")

    def _guarding(self) -> dict[str, standing.Guarding]:
        # This is a thread of its own, and nobody waits for it longer than he likes.
        policy = self.policy.get(_POLICY_PATIENCE)
        if policy.value is None:
            raise RuntimeError(policy.problem or "The policy is still being read.")
        return self._coverage.read(policy.value)

    def _in_context(self, make: Any) -> Any:
        def made() -> Any:
            from sealflow.actions import context

            with context.run(context.Surroundings(settings=self.settings)):
                return make()

        return made


def state_folder() -> str:
    """Return the folder of the index."""
    from airflow.configuration import AIRFLOW_HOME, conf

    named = conf.get("sealflow", "pages_state", fallback="") or ""
    return os.path.abspath(os.path.expanduser(named)) if named else os.path.join(AIRFLOW_HOME, "sealflow", "pages")


def _seen_dags(guarding: Seen[dict[str, standing.Guarding]], sight: Sight) -> list[standing.Guarding]:
    order = {state: number for number, state in enumerate(standing.STATES)}
    known = [item for item in (guarding.value or {}).values() if item.dag in sight.dags]
    return sorted(known, key=lambda item: (order[item.state], item.dag))


def _names(policy: Seen[standing.Policy]) -> Mapping[str, str]:
    return policy.value.names if policy.value is not None else {}


def _tries(rows: Sequence[Row], refused: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Part what was refused into that of each task's last try, and that of tries before it."""
    last: dict[tuple[str, int], int] = {}
    for row in (*rows, *refused):
        mark = (row.task, row.map_index)
        last[mark] = max(last.get(mark, 0), row.attempt)
    now = [row for row in refused if row.attempt >= last[row.task, row.map_index]]
    return now, [row for row in refused if row.attempt < last[row.task, row.map_index]]


def _shown(rows: Any, size: int = 0) -> list[Shown]:
    """Put like rows together: the guard looks at an input before and after the task."""
    found: dict[tuple[Any, ...], Shown] = {}
    for row in rows:
        alike = (row.owner, row.workflow, row.run, row.task, row.map_index, row.attempt)
        mark = (*alike, row.action, row.outcome, row.artifact, row.digest, row.codes)
        if mark in found:
            found[mark] = found[mark]._replace(times=found[mark].times + 1)
        else:
            found[mark] = Shown(row, words.words_of(row), 1, row.idx < size)
    return list(found.values())


@functools.cache
def style() -> str:
    """Return the pages' style sheet."""
    with open(os.path.join(_HERE, "style.css"), encoding="utf-8") as file:
        return file.read()


def render(template: str, /, **values: Any) -> str:
    """Return a page."""
    return _environment().get_template(template).render(version=__version__, words=words, **values)


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(os.path.join(_HERE, "templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters["moment"] = _moment
    made.filters["short"] = _short
    made.filters["signers"] = _signers
    return made


def _printable(value: Any) -> Any:
    return value if isinstance(value, (Markup, int)) else printable(value, 2048)


def _moment(value: Any) -> str:
    """Return a time as the pages show it: to the second, UTC."""
    if isinstance(value, datetime.datetime):
        value = value.astimezone(datetime.timezone.utc).isoformat()
    text = str(value).replace("T", " ")
    return f"{text[:19]} UTC" if len(text) >= 19 else text


def _short(digest: str) -> str:
    """Return the beginning of a digest or fingerprint."""
    algorithm, colon, value = digest.partition(":")
    return f"{algorithm}{colon}{value[:12]}…" if len(value) > 12 else digest


def _signers(keys: Sequence[str], names: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys(names.get(key, _short(key)) for key in keys if key))
