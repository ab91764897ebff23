"""The walk over signed provenance: from artifacts back to the datasets that they were made from. Pure.

Evidence and requirements come through callbacks. Edges join on the artifact digest. Each digest is judged by the rules
that hold for it, from its own evidence: what somebody else says of it opens no door. It is judged once, and again only
where it turns out to have one more location, which may bring in rules and evidence. Nothing recurses, so the length of
a chain is bounded by :class:`Limits` alone.
"""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple, Protocol

from sealflow.evidence.bundle import Bundle
from sealflow.findings import Finding
from sealflow.hashing import Digest
from sealflow.keys import PublicKey
from sealflow.policy import Identity
from sealflow.verification.assess import Assessed, Assessor, Gather, Start, TermsFor, undecided
from sealflow.verification.graph import Graph, Node

#: Most locations of one artifact. More could not be told apart from an attempt to hide one.
MAX_LOCATIONS: Final = 64


class Limits(NamedTuple):
    """How much a walk takes before it says that it is too much.

    Attributes:
        nodes: Artifacts.
        edges: Edges between them.
        size: Bytes of evidence.
    """

    nodes: int = 250_000
    edges: int = 2_000_000
    size: int = 4 << 30


_LIMITS: Final = Limits()
#: For how many artifacts at once an announcement is worth while.
_ENOUGH: Final = 32


class Ahead(Protocol):
    """Gets evidence ready before a walk asks for it. Whether it does changes nothing of what is found."""

    def room(self, known: int) -> int:
        """Return how many more artifacts it wants to hear of, when this many are known."""

    def announce(self, wanted: Sequence[tuple[Digest, Sequence[str]]]) -> None:
        """Hear of artifacts, each with its locations, in the order in which they will be asked for."""

    def learn(self, bundle: Bundle, key: PublicKey) -> None:
        """Hear with which key a bundle turned out to be signed."""


class Walked(NamedTuple):
    """What a walk found.

    Attributes:
        graph: The graph.
        findings: Observations in the order of the graph's nodes.
        reused: Whether a summary stands for part of the way.
        stated: All that each accepted provenance of a start names, sources included.
        names: Signed names of those artifacts that have several.
    """

    graph: Graph
    findings: tuple[Finding, ...]
    reused: bool
    stated: Mapping[Digest, frozenset[frozenset[Digest]]]
    names: Mapping[Digest, tuple[str, ...]]


@dataclass(eq=False, slots=True)
class _Known:
    """What the way to a digest says about it, and what was found there."""

    digest: Digest
    locations: dict[str, None]
    name: str
    #: Name of the first artifact found that was made from it; empty for a start.
    user: str
    start: Start | None = None
    waiting: bool = True
    #: Whether it was met only as a source, which nobody follows.
    source: bool = False
    judged: Assessed | None = None
    #: What it was made from, in the order of the digests.
    inputs: tuple[_Known, ...] = ()


def walk(
    starts: Iterable[Start],
    gather: Gather,
    terms_for: TermsFor,
    *,
    roots: Sequence[Identity] = (),
    datasets: Collection[Digest] = (),
    now: datetime.datetime,
    consumer: str = "",
    limits: Limits = _LIMITS,
    ahead: Ahead | None = None,
) -> Walked:
    """Walk from artifacts back to the datasets that they were made from.

    Args:
        starts: Where to begin; what several have in common is judged once.
        gather: Gives the evidence about a digest. Must not raise for what lies in a store.
        terms_for: Gives what holds for an artifact.
        roots: Data owners: a walk ends at what one of them signed and did not adopt. Whoever may also sign the
            artifact as its producer ends it only where there is nothing that it was made from.
        datasets: Digests at which a walk ends too.
        now: Time of the check, aware.
        consumer: Producer string of the task that checks.
        limits: How much is too much.
        ahead: Gets evidence ready for ``gather``.

    Raises:
        UsageError: An identity names a key that does not exist or is of an unsupported kind.
    """
    assessor = Assessor(gather, terms_for, roots=roots, datasets=datasets, now=now, consumer=consumer)
    if ahead is not None:
        assessor.learn = ahead.learn
    return _Walk(assessor, limits, ahead).walk(starts)


class _Walk:
    """Finds all artifacts on the way, then looks at the whole."""

    def __init__(self, assessor: Assessor, limits: Limits, ahead: Ahead | None) -> None:
        self._assessor = assessor
        self._limits = limits
        self._ahead = ahead
        #: How many at the beginning of the queue were announced.
        self._announced = 0
        self._known: dict[Digest, _Known] = {}
        self._queue: deque[_Known] = deque()
        self._judged = 0
        self._edges = 0

    def walk(self, starts: Iterable[Start]) -> Walked:
        for start in starts:
            known = self._meet(start.digest, start.locations, "", "")
            known.start = (
                start if known.start is None else known.start._replace(pinned=start.pinned and known.start.pinned)
            )
        begun = tuple(self._known.values())
        while self._queue:
            if self._ahead is not None and self._announced <= len(self._queue) - _ENOUGH:
                self._announce(self._ahead)
            self._visit(self._queue.popleft())
            if self._announced:
                self._announced -= 1
        return self._look(begun)

    def _announce(self, ahead: Ahead) -> None:
        room = ahead.room(len(self._known))
        if room >= _ENOUGH:
            upcoming = list(islice(self._queue, self._announced, self._announced + room))
            ahead.announce([(known.digest, _places(known)) for known in upcoming])
            self._announced += len(upcoming)

    def _visit(self, known: _Known) -> None:
        digest, limits = known.digest, self._limits
        known.waiting = False
        locations = _places(known)
        known.inputs = ()
        full = self._judged >= limits.nodes or self._edges > limits.edges or self._assessor.size > limits.size
        self._judged += known.judged is None
        if len(locations) > MAX_LOCATIONS:
            message = f"Signed provenance names more than {MAX_LOCATIONS} locations of one artifact."
            known.judged = undecided(Finding("EVIDENCE_TOO_MUCH", "unverifiable", str(digest), message))
            return
        if full:
            known.judged = undecided(_too_much(limits))
            return
        judged = known.judged = self._assessor.assess(digest, locations, known.start)
        if judged.state == "unattested" and known.user:
            expected = f"signed provenance of this input of {known.user}"
            judged.findings = tuple([replace(item, expected=item.expected or expected) for item in judged.findings])
        if judged.inputs:
            self._edges += len(judged.inputs)
            user = judged.name or str(digest)
            used = []
            for other, items in sorted(judged.inputs.items(), key=_hex):
                first = items[0]
                if len(items) == 1:
                    near = self._known.get(other)
                    if near is not None and not near.source and (not first.uri or first.uri in near.locations):
                        used.append(near)  # nothing new is said of it
                        continue
                    places, source = [first.uri] if first.uri else [], first.source
                else:
                    places, source = [item.uri for item in items if item.uri], all(item.source for item in items)
                used.append(self._meet(other, places, first.name, user, source=source))
            known.inputs = tuple(used)
            judged.inputs = {}  # a hundred thousand of them would fill the memory

    def _meet(self, digest: Digest, locations: Sequence[str], name: str, user: str, *, source: bool = False) -> _Known:
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = _Known(digest, dict.fromkeys(locations), name, user, source=source)
            known.waiting = not source
            if not source:
                self._queue.append(known)
            return known
        # What one run takes for a source and another for data is data.
        fresh = known.source and not source
        known.source = known.source and source
        for location in locations:
            if location not in known.locations:
                known.locations[location] = None
                fresh = True
        if fresh and not known.waiting and not known.source:
            known.waiting = True
            self._queue.append(known)
        return known

    def _look(self, starts: tuple[_Known, ...]) -> Walked:
        """Keep what the starts lead to, find cycles, and put everything in order, the nearest first."""
        order = list(starts)
        seen = set(starts)
        inputs: dict[Digest, tuple[Digest, ...]] = {}
        for known in order:  # grows at its end meanwhile
            if known.inputs:
                inputs[known.digest] = tuple([used.digest for used in known.inputs])
                if not seen.issuperset(known.inputs):
                    order += [used for used in known.inputs if used not in seen]
                    seen.update(known.inputs)
        cycles = _cycles(starts)
        findings: list[Finding] = []
        nodes: dict[Digest, Node] = {}
        names: dict[Digest, tuple[str, ...]] = {}
        reused = False
        source = Assessed("source")
        for known in order:
            digest = known.digest
            judged = source if known.source or known.judged is None else known.judged
            closing = cycles.get(known) if cycles else None
            if closing is not None:
                message = "Signed provenance says that it was made from something that was made from it."
                found = f"an input of {closing.digest}"
                findings.append(Finding("LINEAGE_CYCLE", "refusal", str(digest), message, "", found, "provenance"))
            reused = reused or judged.state == "summarised"
            if len(judged.names) > 1:
                names[digest] = judged.names
            findings += judged.findings
            nodes[digest] = node_of(judged, digest, known.locations, known.name, closing is not None)
        stated = {known.digest: known.judged.stated for known in starts if known.judged is not None}
        graph = Graph(tuple([known.digest for known in starts]), nodes, inputs)
        return Walked(graph, tuple(dict.fromkeys(findings)), reused, stated, names)


def _places(known: _Known) -> tuple[str, ...]:
    return tuple(sorted(known.locations) if len(known.locations) > 1 else known.locations)


def _too_much(limits: Limits) -> Finding:
    message = "The walk ends here: there is more than one walk takes."
    expected = f"at most {limits.nodes} artifacts, {limits.edges} edges and {limits.size} bytes of evidence"
    return Finding("EVIDENCE_TOO_MUCH", "unverifiable", "lineage", message, expected)


def node_of(judged: Assessed, digest: Digest, locations: Iterable[str], name: str, cyclic: bool = False) -> Node:
    """Return the node of a judged artifact.

    Args:
        judged: What its evidence adds up to.
        digest: Its digest.
        locations: Where it is said to lie.
        name: What others call it.
        cyclic: Whether it would be made from itself.
    """
    codes: tuple[str, ...] = ()
    if cyclic or judged.findings:
        deciding = [item.code for item in judged.findings if item.severity in ("refusal", "unverifiable")]
        codes = tuple(dict.fromkeys(["LINEAGE_CYCLE", *deciding] if cyclic else deciding))
    return Node(
        digest,
        "cycle" if cyclic else judged.state,
        judged.name or name,
        tuple(sorted(locations)),
        judged.producer,
        judged.run,
        judged.signers,
        judged.when,
        codes,
    )


def _hex(item: tuple[Digest, object]) -> str:
    return item[0].hex


def _cycles(starts: Sequence[_Known]) -> dict[_Known, _Known]:
    """Return the artifacts that would be made from themselves, each with the one that closes the circle."""
    found: dict[_Known, _Known] = {}
    done: set[_Known] = set()
    on_the_way: set[_Known] = set()
    for start in starts:
        if start in done:
            continue
        way = [(start, iter(start.inputs))]
        on_the_way.add(start)
        while way:
            known, rest = way[-1]
            for used in rest:
                if used in on_the_way:
                    found.setdefault(used, known)
                elif used not in done:
                    on_the_way.add(used)
                    way.append((used, iter(used.inputs)))
                    break
            else:
                way.pop()
                on_the_way.discard(known)
                done.add(known)
    return found
