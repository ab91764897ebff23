"""What the audit log tells of where a run's artifacts come from, as a graph that the core draws.

The log tells what tasks verified and signed, not whether the signatures hold today: that is what
`sealflow lineage trace` checks.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sealflow.actions.picture import as_svg
from sealflow.errors import SealflowError
from sealflow.findings import Signer, Status, Verdict
from sealflow.hashing import Digest
from sealflow.verification.graph import Graph, Node, State
from sealflow_airflow.ui.index import Row, read_rows
from sealflow_airflow.ui.search import Sight
from sealflow_airflow.ui.words import IN, SIGNED, worst

#: Most artifacts of a picture, and how many makers lie between the first and the last.
MAX_NODES: Final = 60
MAX_STEPS: Final = 6
# Rows that are looked at for one task instance.
_ROWS: Final = 200

_STATES: Final[Mapping[str, State]] = {"failed": "refused", "unverifiable": "unverifiable", "error": "unverifiable"}
_STATUSES: Final[Mapping[str, Status]] = {"failed": "failed", "unverifiable": "unverifiable", "error": "unverifiable"}


def lineage_of(connection: sqlite3.Connection, rows: Sequence[Row], sight: Sight, names: Mapping[str, str]) -> Graph:
    """Return the way back from what a run made, or from what it read where it made nothing.

    Args:
        connection: The index.
        rows: What the log tells of the run.
        sight: What the reader may see: of anything else only the digest is drawn.
        names: Fingerprints of keys and whose they are.
    """
    made = _digests(row for row in rows if row.action in SIGNED and row.outcome == "done")
    starts = made or _digests(row for row in rows if row.action in IN)
    nodes: dict[Digest, Node] = {}
    inputs: dict[Digest, tuple[Digest, ...]] = {}
    waiting = deque((digest, 0) for digest in starts[:MAX_NODES])
    while waiting:
        digest, steps = waiting.popleft()
        if digest in nodes or len(nodes) >= MAX_NODES:
            continue
        told = _told(connection, digest)
        nodes[digest] = _node(digest, told, sight, names)
        maker = next((row for row in told if row.action in SIGNED and row.outcome == "done"), None)
        if maker is None or steps >= MAX_STEPS or not sight.sees(maker):
            continue
        used = [item for item in _digests(_inputs(connection, maker)) if item != digest]
        if used:
            inputs[digest] = tuple(used)
            waiting.extend((item, steps + 1) for item in used)
    kept = {made: tuple(item for item in items if item in nodes) for made, items in inputs.items()}
    return Graph(tuple(starts[:MAX_NODES]), nodes, {made: items for made, items in kept.items() if items})


def drawn(graph: Graph, rows: Sequence[Row], name: str) -> str:
    """Return the picture as an SVG element.

    Args:
        graph: The graph.
        rows: What the log tells of the run.
        name: What it is the lineage of.
    """
    status = _STATUSES.get(worst(rows), "passed")
    _, _, element = as_svg(graph, Verdict(status, name)).partition("\n")
    return element


def _told(connection: sqlite3.Connection, digest: Digest) -> list[Row]:
    return read_rows(connection, f"WHERE digest = :digest ORDER BY idx DESC LIMIT {_ROWS}", {"digest": str(digest)})


def _inputs(connection: sqlite3.Connection, maker: Row) -> list[Row]:
    """Return what the task instance had verified that made something, by then."""
    return read_rows(
        connection,
        "WHERE owner = :owner AND workflow = :workflow AND run = :run AND task = :task AND map_index = :map_index "
        f"AND idx < :idx AND outcome = 'passed' ORDER BY idx DESC LIMIT {_ROWS}",
        {name: getattr(maker, name) for name in ("owner", "workflow", "run", "task", "map_index", "idx")},
    )


def _digests(rows: Iterable[Row]) -> list[Digest]:
    found: dict[Digest, None] = {}
    for row in rows:
        try:
            found[Digest.parse(row.digest)] = None
        except SealflowError:
            # Nobody knew it, or somebody wrote nonsense.
            continue
    return list(found)


def _node(digest: Digest, told: Sequence[Row], sight: Sight, names: Mapping[str, str]) -> Node:
    seen = [row for row in told if sight.sees(row)]
    if not seen:
        return Node(digest, "attested" if told else "unattested", producer="not yours to see" if told else "")
    # The last word on it counts, and its maker says who it is from.
    last = seen[0]
    maker = next((row for row in seen if row.action in SIGNED and row.outcome == "done"), None)
    keys = (maker.key,) if maker is not None else next((row.signers for row in seen if row.signers), ())
    place = next((row.artifact for row in seen if row.artifact), "")
    return Node(
        digest,
        _STATES.get(last.outcome, "attested" if maker is not None or last.outcome == "passed" else "unattested"),
        name=place.rstrip("/").rpartition("/")[2],
        locations=(place,) if place else (),
        producer=_producer(maker) if maker is not None else next((row.producer for row in seen if row.producer), ""),
        run=maker.run if maker is not None else "",
        signers=tuple(Signer(names.get(key, f"{key[:15]}…"), key, "signature", "") for key in keys if key),
        when=(maker or last).time,
        codes=last.codes if last.refused else (),
    )


def _producer(row: Row) -> str:
    return f"{row.orchestrator}:{row.workflow}/{row.task}" if row.workflow else row.orchestrator
