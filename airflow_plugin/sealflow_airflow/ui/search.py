"""What a reader asks the index for, and what of it he may see."""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from sealflow_airflow.ui.index import REFUSED, Row, read_rows

#: Rows of one page.
PAGE: Final = 25
#: What a reader may ask for, and the longest text of each.
FIELDS: Final[Mapping[str, int]] = {
    "dag": 250,
    "task": 512,
    "run": 512,
    "artifact": 1024,
    "code": 128,
    "status": 16,
    "since": 32,
    "until": 32,
}
#: Statuses, and the outcomes that they stand for.
STATUSES: Final[Mapping[str, tuple[str, ...]]] = {
    "refused": REFUSED,
    "failed": ("failed",),
    "unverifiable": ("unverifiable",),
    "error": ("error",),
    "passed": ("passed",),
    "done": ("done",),
}
# Up to so many DAGs each is looked up by itself.
_FEW: Final = 40


@dataclass(frozen=True)
class Sight:
    """Which rows somebody may see.

    Attributes:
        dags: DAGs that he may see.
        others: Whether he may see everything else, too: pipelines, programs, and DAGs that are gone. Only who may see
            all DAGs may.
        all: Whether he may see all DAGs and their audit logs, and so what the policy says of everybody's artifacts.
    """

    dags: frozenset[str] = frozenset()
    others: bool = False
    all: bool = False

    def sees(self, row: Row) -> bool:
        """Tell whether he may see a row."""
        return self.others or row.owner in self.dags

    def condition(self) -> tuple[str, dict[str, Any]]:
        """Return the condition for the index, and its values."""
        if self.others:
            return "1", {}
        column = "owner" if len(self.dags) <= _FEW else "+owner"
        condition = f"{column} IN (SELECT value FROM json_each(:dags))"  # noqa: S608 - values are bound
        return condition, {"dags": json.dumps(sorted(self.dags))}


@dataclass(frozen=True)
class Query:
    """What a reader asks for. Members are what he typed, cut.

    Attributes:
        before: Rows with smaller indices only: the next page.
    """

    dag: str = ""
    task: str = ""
    run: str = ""
    artifact: str = ""
    code: str = ""
    status: str = ""
    since: str = ""
    until: str = ""
    before: int | None = None

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Query:
        """Read the parameters of a request. What cannot be meant is left out."""
        said = {name: given.get(name, "").strip()[:longest] for name, longest in FIELDS.items()}
        before = given.get("before", "")
        if said["status"] not in STATUSES:
            said["status"] = ""
        for name in ("since", "until"):
            if said[name] and _moment(said[name]) is None:
                said[name] = ""
        number = int(before) if before.isascii() and before.isdecimal() and len(before) < 19 else None
        return cls(**said, before=number)

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for in particular."""
        return not any(getattr(self, name) for name in FIELDS)

    def link(self, **changed: Any) -> str:
        """Return the query of an address that asks for this, changed."""
        other = replace(self, **changed)
        said = {name: value for name in (*FIELDS, "before") if (value := getattr(other, name)) not in ("", None)}
        return urlencode(said)

    def condition(self) -> tuple[list[str], dict[str, Any]]:
        """Return the conditions for the index, and their values."""
        parts: list[str] = []
        values: dict[str, Any] = {}
        for name, column in (("dag", "workflow"), ("task", "task"), ("run", "run")):
            if text := getattr(self, name):
                if text.endswith("*"):
                    parts.append(f"{column} GLOB :{name}")
                    values[name] = _literal(text[:-1]) + "*"
                else:
                    parts.append(f"{column} = :{name}")
                    values[name] = text
        if self.artifact:
            parts.append("(digest = :artifact OR instr(artifact, :artifact) > 0)")
            values["artifact"] = self.artifact
        if self.code:
            parts.append("instr(' ' || codes || ' ', ' ' || :code || ' ') > 0")
            values["code"] = self.code.upper() if self.code.islower() else self.code
        if self.status:
            # As the partial index writes it, so that it is used.
            parts.append(f"outcome IN ({', '.join(repr(item) for item in STATUSES[self.status])})")
        for name, sign in (("since", ">="), ("until", "<")):
            if text := getattr(self, name):
                moment = _moment(text)
                assert moment is not None  # noqa: S101 - parse has seen to it
                parts.append(f"time {sign} :{name}")
                values[name] = moment.isoformat(timespec="microseconds")
        if self.before is not None:
            parts.append("idx < :before")
            values["before"] = self.before
        return parts, values


@dataclass(frozen=True)
class Page:
    """One page of rows, the latest first.

    Attributes:
        rows: The rows.
        more: Index to ask before for the next ones, ``None`` when there are none.
    """

    rows: tuple[Row, ...]
    more: int | None = None


def find(connection: sqlite3.Connection, query: Query, sight: Sight, limit: int = PAGE) -> Page:
    """Return one page of what somebody asks for and may see."""
    parts, values = query.condition()
    seen, more = sight.condition()
    rows = read_rows(
        connection,
        f"WHERE {' AND '.join([*parts, seen])} ORDER BY idx DESC LIMIT {limit + 1}",
        {**values, **more},
    )
    return Page(tuple(rows[:limit]), rows[limit - 1].idx if len(rows) > limit else None)


def of_run(
    connection: sqlite3.Connection,
    dag: str,
    run: str,
    limit: int,
    *,
    task: str = "",
    map_index: int | None = None,
    refused: bool = False,
) -> list[Row]:
    """Return what the log tells of a DAG run, or of one task or task instance in it, the latest first."""
    parts, values = ["owner = :dag", "run = :run"], {"dag": dag, "run": run, "task": task, "map_index": map_index}
    if task:
        parts.append("task = :task")
    if map_index is not None:
        parts.append("map_index = :map_index")
    if refused:
        parts.append(f"outcome IN ({', '.join(map(repr, REFUSED))})")
    return read_rows(connection, f"WHERE {' AND '.join(parts)} ORDER BY idx DESC LIMIT {limit}", values)


def at(connection: sqlite3.Connection, idx: int) -> Row | None:
    """Return the row of an entry."""
    return next(iter(read_rows(connection, "WHERE idx = :idx", {"idx": idx})), None)


def counted(connection: sqlite3.Connection, since: datetime.datetime, sight: Sight) -> dict[str, int]:
    """Return how many of each outcome there were since a moment, by the writers' clocks."""
    seen, values = sight.condition()
    text = f"SELECT outcome, count(*) FROM verdicts WHERE time >= :since AND {seen} GROUP BY outcome"  # noqa: S608
    since = since.astimezone(datetime.timezone.utc)
    return dict(connection.execute(text, {**values, "since": since.isoformat(timespec="microseconds")}))


def latest(connection: sqlite3.Connection, dags: frozenset[str]) -> dict[str, tuple[str, str]]:
    """Return time and outcome of the latest verdict of each DAG that has one."""
    text = (
        "SELECT v.owner, v.time, v.outcome FROM json_each(:dags) d JOIN verdicts v ON v.idx = "
        "(SELECT idx FROM verdicts WHERE owner = d.value ORDER BY idx DESC LIMIT 1)"
    )
    found = connection.execute(text, {"dags": json.dumps(sorted(dags))})
    return {owner: (time, outcome) for owner, time, outcome in found}


def _moment(text: str) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        # Without a zone it is UTC, as everything on the pages is.
        return (found.replace(tzinfo=datetime.timezone.utc) if found.tzinfo is None else found).astimezone(
            datetime.timezone.utc
        )
    except (ValueError, OverflowError):
        return None


def _literal(text: str) -> str:
    """Return a GLOB pattern for this text alone."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)
