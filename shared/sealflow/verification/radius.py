"""How far a key, an artifact or a dataset got: forward over what was signed, made and read. Pure.

Two answers, kept apart. *Touched* is what follows from evidence that verifies, whatever is revoked since, and from the
log. *Possible* is what follows only where something is believed besides that nobody can prove: an unknown signer's
word, or that a run which read a touched artifact let it into what it made, though its provenance does not say so.
A forged claim can therefore add to the second answer alone, and takes nothing away from either.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from sealflow.findings import Finding, printable
from sealflow.hashing import Digest
from sealflow.verification.radius_evidence import Said
from sealflow.verification.radius_log import LogFacts, Use

Certainty = Literal["touched", "possible"]
Why = Literal["start", "signed", "accepted", "made", "same-run"]

#: What each reason means, for people.
WHYS: Final[dict[Why, str]] = {
    "start": "it is what was asked about",
    "signed": "signed with the key",
    "accepted": "used on the word of the key",
    "made": "made from",
    "same-run": "its run read",
}
_MAX_NAMED: Final = 20


class Edge(NamedTuple):
    """One step.

    Attributes:
        made: Where it leads.
        used: Where it comes from.
        why: Why it leads there.
        certain: Whether it is proved.
    """

    made: Digest
    used: Digest
    why: Why
    certain: bool


@dataclass
class Touched:
    """One artifact.

    Attributes:
        digest: Its digest.
        certainty: Whether that follows from what is proved.
        why: How it was reached first.
        via: The artifact that it was reached from; ``None`` at the beginning.
        steps: How many steps away it is.
        names: Logical names; signed ones where there are any.
        producers: Who made it.
        runs: Invocations that made it.
        places: Where it is said to lie.
        signed: Evidence that the key signed.
        final: Whether nothing is known to be made from it: a model, or whatever else is used as it is.
        who: ``vouched`` or ``claimed`` where only the log says it; empty otherwise.
    """

    digest: Digest
    certainty: Certainty
    why: Why
    via: Digest | None
    steps: int
    names: dict[str, None] = field(default_factory=dict)
    producers: dict[str, None] = field(default_factory=dict)
    runs: dict[str, None] = field(default_factory=dict)
    places: dict[str, None] = field(default_factory=dict)
    signed: list[str] = field(default_factory=list)
    final: bool = True
    who: str = ""

    @property
    def name(self) -> str:
        """One name, empty where none is known."""
        return next(iter(self.names), "")

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; empty members are left out."""
        members: dict[str, Any] = {
            "digest": str(self.digest),
            "certainty": self.certainty,
            "why": self.why,
            "via": str(self.via or ""),
            "steps": self.steps,
            "names": [printable(text) for text in self.names],
            "producers": [printable(text, 2048) for text in self.producers],
            "runs": [printable(text, 2048) for text in self.runs],
            "places": [printable(text, 2048) for text in self.places],
            "signed": self.signed,
            "final": self.final,
            "who": self.who,
        }
        return {name: value for name, value in members.items() if value not in ("", [])}


@dataclass
class TouchedRun:
    """One run.

    Attributes:
        run: Invocation id.
        producer: Which task.
        certainty: As of the artifacts through which it was touched.
        ways: ``made``, ``read``, ``signed`` (it used the key), ``accepted`` (it relied on the key's evidence).
    """

    run: str
    producer: str
    certainty: Certainty
    ways: dict[str, None]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "run": printable(self.run, 2048),
            "producer": printable(self.producer, 2048),
            "certainty": self.certainty,
            "ways": list(self.ways),
        }


@dataclass
class Radius:
    """All that was found.

    Attributes:
        artifacts: The artifacts, the nearest first.
        runs: The runs.
        readers: Who read what of it, and who tried: in the order of the log.
        uses: Uses of the key that the log records.
        edges: The steps between the artifacts.
        findings: What nobody could look at or prove.
    """

    artifacts: dict[Digest, Touched]
    runs: dict[str, TouchedRun]
    readers: list[Use]
    uses: list[Use]
    edges: list[Edge]
    findings: list[Finding]

    def of(self, certainty: Certainty) -> list[Touched]:
        """Return the artifacts of one certainty."""
        return [item for item in self.artifacts.values() if item.certainty == certainty]


def spread(
    said: Sequence[Said], facts: LogFacts | None, *, asked: frozenset[str] = frozenset(), digests: Iterable[Digest] = ()
) -> Radius:
    """Follow what was touched.

    Args:
        said: What all evidence says.
        facts: What the log records; ``None`` where none was read.
        asked: Fingerprints in hex, and names of certificates, that are asked about; empty for none.
        digests: The artifacts that are asked about.
    """
    return _Spread(said, facts or LogFacts(), asked, tuple(digests)).run()


class _Spread:
    def __init__(
        self, said: Sequence[Said], facts: LogFacts, asked: frozenset[str], digests: tuple[Digest, ...]
    ) -> None:
        self.said, self.facts, self.asked, self.digests = said, facts, asked, digests
        self.found: dict[Digest, Touched] = {}
        self.edges: list[Edge] = []
        self.findings: list[Finding] = []
        self.forward: dict[Digest, list[Edge]] = {}

    def run(self) -> Radius:
        self._join()
        self._begin(certain=True)
        self._follow(certain=True)
        self._begin(certain=False)
        self._follow(certain=False)
        self._describe()
        readers = [use for use in self.facts.reads if use.digest in self.found]
        places = {place: item for item in self.found.values() for place in item.places}
        readers += [use for use in self.facts.open if use.artifact and use.artifact in places]
        readers.sort(key=lambda use: use.entry)
        uses = sorted(self.facts.signed, key=lambda use: use.entry)
        self._doubt(uses, places)
        runs = self._runs(readers)
        order = sorted(self.found.values(), key=lambda item: (item.certainty != "touched", item.steps, item.digest.hex))
        return Radius(
            {item.digest: item for item in order},
            runs,
            readers,
            uses,
            [edge for edge in self.edges if edge.made in self.found and edge.used in self.found],
            list(dict.fromkeys(self.findings)),
        )

    # --- steps ---

    def _join(self) -> None:
        """Make edges of what evidence and log say."""
        edges: dict[tuple[Digest, Digest], Edge] = {}
        for item in self.said:
            # What the key itself signed is touched already; whom else it drags in is no more than its word.
            for used, _ in item.inputs:
                self._edge(edges, Edge(item.about, used, "made", item.believed))
        made_by: dict[str, dict[Digest, int | None]] = {}
        for item in self.said:
            if item.kind == "provenance" and item.run:
                made_by.setdefault(item.run, {})[item.about] = None
        for use in self.facts.makes:
            if use.run and use.digest is not None:
                made_by.setdefault(use.run, {})[use.digest] = use.entry
        for use in self.facts.reads:
            if not use.allowed or use.digest is None:
                continue
            for made, index in made_by.get(use.run, {}).items() if use.run else ():
                # What it had made before cannot hold what it read after.
                if made != use.digest and (index is None or index > use.entry):
                    self._edge(edges, Edge(made, use.digest, "same-run", False))
        self.edges = list(edges.values())
        for edge in self.edges:
            self.forward.setdefault(edge.used, []).append(edge)

    @staticmethod
    def _edge(edges: dict[tuple[Digest, Digest], Edge], edge: Edge) -> None:
        known = edges.get((edge.made, edge.used))
        if known is None or (not known.certain and (edge.certain or (known.why == "same-run" and edge.why == "made"))):
            edges[edge.made, edge.used] = edge

    def _begin(self, *, certain: bool) -> None:
        certainty: Certainty = "touched" if certain else "possible"
        if certain:
            for digest in self.digests:
                self._reach(digest, certainty, "start", None, 0)
        if not self.asked:
            return
        for item in self.said:
            # A hint is no signature, and nobody can say that there was none before somebody altered the object.
            if not self.asked & (item.held.marks if certain else item.held.hints):
                continue
            self._reach(item.about, certainty, "signed", None, 1)
        reasons: tuple[tuple[list[Use], Why], ...] = ((self.facts.signed, "signed"), (self.facts.accepted, "accepted"))
        for uses, why in reasons if certain else ():
            for use in uses:
                if use.digest is not None and use.allowed:
                    self._reach(use.digest, certainty, why, None, 1, use.who)

    def _reach(
        self, digest: Digest, certainty: Certainty, why: Why, via: Digest | None, steps: int, who: str = ""
    ) -> bool:
        known = self.found.get(digest)
        if known is not None:
            if not who and known.certainty == certainty:
                known.who = ""  # evidence says it too
            return False
        self.found[digest] = Touched(digest, certainty, why, via, steps, who=who)
        return True

    def _follow(self, *, certain: bool) -> None:
        certainty: Certainty = "touched" if certain else "possible"
        queue = deque(self.found)
        while queue:
            used = queue.popleft()
            for edge in self.forward.get(used, ()):
                if certain and not edge.certain:
                    continue
                if self._reach(edge.made, certainty, edge.why, used, self.found[used].steps + 1):
                    queue.append(edge.made)

    # --- what is said of it ---

    def _describe(self) -> None:
        for item in sorted(self.said, key=lambda item: not item.believed):
            known = self.found.get(item.about)
            if known is not None:
                for group, text in ((known.names, item.name), (known.producers, item.producer), (known.runs, item.run)):
                    if text:
                        group[text] = None
                if self.asked & item.held.marks:
                    known.signed.append(item.evidence)
            for digest, place in item.places:
                if digest in self.found:
                    self.found[digest].places[place] = None
            for digest, name in item.inputs:
                if name and digest in self.found and not self.found[digest].names:
                    self.found[digest].names[name] = None
        for use in (*self.facts.makes, *self.facts.reads, *self.facts.signed):
            if use.digest in self.found and use.artifact:
                self.found[use.digest].places[use.artifact] = None
        for edge in self.edges:
            if edge.used in self.found and edge.made in self.found:
                self.found[edge.used].final = False
        claimed = [known for known in self.found.values() if known.certainty == "possible"]
        for known in claimed[:_MAX_NAMED]:
            message = "It may be touched, and nobody can prove that it is or is not."
            how = f"{WHYS[known.why]} {known.via or ''}".strip()
            self.findings.append(Finding("EDGE_UNVERIFIED", "unverifiable", str(known.digest), message, found=how))
        if len(claimed) > _MAX_NAMED:
            message = f"{len(claimed)} artifacts may be touched, and nobody can prove that they are or are not."
            self.findings.append(Finding("EDGE_UNVERIFIED", "unverifiable", "evidence", message))

    def _doubt(self, uses: list[Use], places: dict[str, Touched]) -> None:
        """Say for which uses of the key nobody knows what came of them."""
        doubtful = [use for use in uses if not use.allowed and use.artifact not in places]
        for use in doubtful[:_MAX_NAMED]:
            ended = f"ended with {use.outcome}" if use.outcome else "has no recorded end"
            message = f"{use.producer} used the key for this ({use.action}, entry {use.entry}), which {ended}."
            severity: Literal["warning", "unverifiable"] = "warning" if use.outcome else "unverifiable"
            self.findings.append(Finding("AUDIT_GAP", severity, use.artifact or use.run, message))
        if len(doubtful) > _MAX_NAMED:
            message = f"{len(doubtful)} uses of the key have no recorded result."
            self.findings.append(Finding("AUDIT_GAP", "unverifiable", "log", message))

    def _runs(self, readers: list[Use]) -> dict[str, TouchedRun]:
        runs: dict[str, TouchedRun] = {}

        def add(run: str, producer: str, certainty: Certainty, way: str) -> None:
            if not run:
                run = producer  # whoever has no run is one for all that it does
            if not run:
                return
            known = runs.setdefault(run, TouchedRun(run, producer, certainty, {}))
            known.ways[way] = None
            if certainty == "touched":
                known.certainty = certainty

        for item in self.said:
            if item.kind != "provenance":
                continue
            if self.asked & item.held.marks:
                add(item.run, item.producer, "touched", "made")
                continue
            used = [self.found[digest].certainty for digest, _ in item.inputs if digest in self.found]
            if used:
                add(item.run, item.producer, "touched" if item.believed and "touched" in used else "possible", "made")
        for use in readers:
            if use.digest is not None and use.allowed:
                add(use.run, use.producer, self.found[use.digest].certainty, "read")
            elif not use.outcome:
                add(use.run, use.producer, "possible", "read")
        for uses, way in ((self.facts.signed, "signed"), (self.facts.accepted, "accepted")):
            for use in uses:
                add(use.run, use.producer, "touched", way)
        return dict(sorted(runs.items(), key=lambda item: (item[1].certainty != "touched", item[0])))
