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
from typing import Final, NamedTuple

from sealflow.findings import Finding
from sealflow.hashing import Digest
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


@dataclass
class _Known:
    """What the way to a digest says about it."""

    digest: Digest
    locations: dict[str, None]
    name: str
    #: Name of the first artifact found that was made from it; empty for a start.
    user: str
    start: Start | None = None
    waiting: bool = True
    #: Whether it was met only as a source, which nobody follows.
    source: bool = False


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

    Raises:
        UsageError: An identity names a key that does not exist or is of an unsupported kind.
    """
    assessor = Assessor(gather, terms_for, roots=roots, datasets=datasets, now=now, consumer=consumer)
    return _Walk(assessor, limits).walk(starts)


class _Walk:
    """Finds all artifacts on the way, then looks at the whole."""

    def __init__(self, assessor: Assessor, limits: Limits) -> None:
        self._assessor = assessor
        self._limits = limits
        self._known: dict[Digest, _Known] = {}
        self._judged: dict[Digest, Assessed] = {}
        self._inputs: dict[Digest, tuple[Digest, ...]] = {}
        self._queue: deque[Digest] = deque()
        self._edges = 0

    def walk(self, starts: Iterable[Start]) -> Walked:
        for start in starts:
            known = self._meet(start.digest, start.locations, "", "")
            known.start = (
                start if known.start is None else known.start._replace(pinned=start.pinned and known.start.pinned)
            )
        begun = tuple(self._known)
        while self._queue:
            self._visit(self._queue.popleft())
        return self._look(begun)

    def _visit(self, digest: Digest) -> None:
        known, limits = self._known[digest], self._limits
        known.waiting = False
        locations = tuple(sorted(known.locations) if len(known.locations) > 1 else known.locations)
        self._inputs.pop(digest, None)
        if len(locations) > MAX_LOCATIONS:
            message = f"Signed provenance names more than {MAX_LOCATIONS} locations of one artifact."
            self._judged[digest] = undecided(Finding("EVIDENCE_TOO_MUCH", "unverifiable", str(digest), message))
            return
        if len(self._judged) >= limits.nodes or self._edges > limits.edges or self._assessor.size > limits.size:
            self._judged[digest] = undecided(_too_much(limits))
            return
        judged = self._judged[digest] = self._assessor.assess(digest, locations, known.start)
        if judged.state == "unattested" and known.user:
            expected = f"signed provenance of this input of {known.user}"
            judged.findings = [replace(item, expected=item.expected or expected) for item in judged.findings]
        if judged.inputs:
            self._edges += len(judged.inputs)
            user = judged.name or str(digest)
            used = []
            for other, items in sorted(judged.inputs.items(), key=_hex):
                used.append(other)
                first = items[0]
                if len(items) == 1:
                    places, source = [first.uri] if first.uri else [], first.source
                else:
                    places, source = [item.uri for item in items if item.uri], all(item.source for item in items)
                self._meet(other, places, first.name, user, source=source)
            self._inputs[digest] = tuple(used)
            judged.inputs = {}  # a hundred thousand of them would fill the memory

    def _meet(self, digest: Digest, locations: Sequence[str], name: str, user: str, *, source: bool = False) -> _Known:
        known = self._known.get(digest)
        if known is None:
            known = self._known[digest] = _Known(digest, dict.fromkeys(locations), name, user, source=source)
            known.waiting = not source
            if not source:
                self._queue.append(digest)
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
            self._queue.append(digest)
        return known

    def _look(self, starts: tuple[Digest, ...]) -> Walked:
        """Keep what the starts lead to, find cycles, and put everything in order, the nearest first."""
        order = list(starts)
        seen = set(starts)
        inputs: dict[Digest, tuple[Digest, ...]] = {}
        for digest in order:  # grows at its end meanwhile
            if digest in self._inputs:
                inputs[digest] = self._inputs[digest]
                order += [used for used in inputs[digest] if used not in seen]
                seen.update(inputs[digest])
        cycles = _cycles(starts, inputs)
        findings: list[Finding] = []
        nodes: dict[Digest, Node] = {}
        names: dict[Digest, tuple[str, ...]] = {}
        reused = False
        for digest in order:
            known = self._known[digest]
            judged = Assessed("source") if known.source else self._judged[digest]
            closing = cycles.get(digest)
            if closing is not None:
                message = "Signed provenance says that it was made from something that was made from it."
                found = f"an input of {closing}"
                findings.append(Finding("LINEAGE_CYCLE", "refusal", str(digest), message, "", found, "provenance"))
            reused = reused or judged.state == "summarised"
            if len(judged.names) > 1:
                names[digest] = judged.names
            findings += judged.findings
            nodes[digest] = node_of(judged, known.digest, known.locations, known.name, closing is not None)
        stated = {digest: self._judged[digest].stated for digest in starts}
        return Walked(Graph(starts, nodes, inputs), tuple(dict.fromkeys(findings)), reused, stated, names)


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
    codes = [item.code for item in judged.findings if item.severity in ("refusal", "unverifiable")]
    return Node(
        digest,
        "cycle" if cyclic else judged.state,
        judged.name or name,
        tuple(sorted(locations)),
        judged.producer,
        judged.run,
        judged.signers,
        judged.when,
        tuple(dict.fromkeys(["LINEAGE_CYCLE", *codes] if cyclic else codes)),
    )


def _hex(item: tuple[Digest, object]) -> str:
    return item[0].hex


def _cycles(starts: Sequence[Digest], inputs: Mapping[Digest, tuple[Digest, ...]]) -> dict[Digest, Digest]:
    """Return the artifacts that would be made from themselves, each with the one that closes the circle."""
    found: dict[Digest, Digest] = {}
    done: set[Digest] = set()
    on_the_way: set[Digest] = set()
    for start in starts:
        if start in done:
            continue
        way = [(start, iter(inputs.get(start, ())))]
        on_the_way.add(start)
        while way:
            digest, rest = way[-1]
            for used in rest:
                if used in on_the_way:
                    found.setdefault(used, digest)
                elif used not in done:
                    on_the_way.add(used)
                    way.append((used, iter(inputs.get(used, ()))))
                    break
            else:
                way.pop()
                on_the_way.discard(digest)
                done.add(digest)
    return found
