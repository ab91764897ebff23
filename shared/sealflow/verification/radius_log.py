"""What an audit log records that can tell how far something got: who used a key, who read and who made what.

Events are what writers said. Their number is bounded; where the bound is met, the answer says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sealflow.audit import AuditEvent
from sealflow.audit.entry import Entry, parse_entry
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import Finding
from sealflow.hashing import Digest
from sealflow.verification.accesses import ALLOWED, MAKING
from sealflow.verification.vouching import CLAIMED, Speakers

#: Most events that are held.
MAX_USES: Final = 2_000_000
#: Actions after which nobody has the bytes: they look at evidence, or write some.
_NO_READING: Final = MAKING | {
    "blast-radius",
    "check_lineage",
    "descendants",
    "quarantine",
    "revoke",
    "sign_lineage",
    "summarize",
    "trace",
}
_MAX_NAMED: Final = 20
_CORRELATION: Final = re.compile(rb'"correlation":"[0-9a-f]{32}"')


class Use(NamedTuple):
    """One action.

    Attributes:
        entry: Number of its outcome's entry in the log; of its intent's, where there is none.
        action: The verb.
        outcome: As the event has it; empty where none is recorded.
        producer: Who acted.
        run: Invocation id; empty for whoever has no run.
        time: By the writer's clock.
        artifact: Location.
        version: Version of the object.
        digest: Artifact digest, where one is recorded.
        who: ``vouched`` or ``claimed``.
    """

    entry: int
    action: str
    outcome: str
    producer: str
    run: str
    time: str
    artifact: str
    version: str
    digest: Digest | None
    who: str

    @property
    def allowed(self) -> bool:
        """Whether the actor has, or has made, what it asked for."""
        return self.outcome in ALLOWED

    def as_dict(self) -> dict[str, str | int]:
        """Return the JSON form; empty members are left out."""
        members = {**self._asdict(), "digest": str(self.digest or "")}
        return {name: value for name, value in members.items() if value != ""}


@dataclass
class LogFacts:
    """What was found.

    Attributes:
        reads: Outcomes of actions that read an artifact.
        makes: Outcomes of actions that made one.
        signed: Uses of the key.
        accepted: Uses of artifacts that rest on evidence of the key.
        open: Actions without an outcome: nobody knows how they ended.
        findings: What could not be looked at.
        entries: Entries that were read.
        writers: Writers for whom somebody vouches; a vouch is worth something only where the writer's chain holds.
    """

    reads: list[Use] = field(default_factory=list)
    makes: list[Use] = field(default_factory=list)
    signed: list[Use] = field(default_factory=list)
    accepted: list[Use] = field(default_factory=list)
    open: list[Use] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    entries: int = 0
    writers: set[str] = field(default_factory=set)


def read_facts(lines: Iterable[bytes], log: str, keys: frozenset[str], speakers: Speakers) -> LogFacts:
    """Read a log's entries in their order.

    Args:
        lines: The entries. What is made of them counts only if this ends without an error.
        log: The log's location, for messages.
        keys: Fingerprints of the keys that are asked about, with ``sha256:``; empty for none.
        speakers: Say who an event is of.

    Raises:
        EvidenceError: These are not the entries of the log.
        UnavailableError: The log cannot be read.
    """
    facts = LogFacts()
    reader = _Reader(facts, log, keys, speakers)
    for index, line in enumerate(lines):
        facts.entries += 1
        reader.take(index, line)
        if reader.held > MAX_USES:
            message = f"The log holds more than the {MAX_USES} actions that are looked at."
            facts.findings.append(Finding("REVIEW_INCOMPLETE", "unverifiable", log, message))
            break
    reader.finish()
    return facts


class _Reader:
    """Takes entries one by one.

    Most are intents that an outcome follows, which says all that they say: those are not parsed. In canonical JSON a
    member's text stands in no string, where its quotes would be escaped.
    """

    def __init__(self, facts: LogFacts, log: str, keys: frozenset[str], speakers: Speakers) -> None:
        self.held = 0
        self._facts, self._log, self._keys, self._speakers = facts, log, keys, speakers
        self._digests: dict[str, Digest | None] = {"": None}
        self._intents: dict[tuple[str, bytes], tuple[int, Entry]] = {}
        self._vouched: set[str] = set()
        self._malformed = 0

    def take(self, index: int, line: bytes) -> None:
        """Take the next entry."""
        try:
            entry = parse_entry(line)
        except EvidenceError as error:
            self._odd(index, error)
            return
        if entry.n == 0 and b'"vouch":' in entry.event:
            self._vouched.add(entry.writer)
        elif entry.writer not in self._vouched and b'"phase":"end"' in entry.event:
            return
        correlation = _CORRELATION.search(entry.event)
        chain = entry.writer, correlation[0] if correlation else b""
        if b'"phase":"intent"' in entry.event and correlation is not None:
            if entry.writer in self._vouched:
                self._read(index, entry)  # whose vouch it is stands in the first
            self.held += 1
            self._intents[chain] = index, entry
            return
        event, who = self._read(index, entry)
        if event is None or event.phase != "outcome":
            return
        if self._intents.pop(chain, None) is None:
            self.held += 1
        self._sort(self._use(index, event, who), event)

    def finish(self) -> None:
        """Look at what was begun and has no end."""
        for index, entry in self._intents.values():
            event, who = self._read(index, entry)
            if event is None:
                continue
            use = self._use(index, event, who)
            if event.action not in _NO_READING:
                self._facts.open.append(use)
            if event.key in self._keys:
                self._facts.signed.append(use)
        if self._malformed > _MAX_NAMED:
            message = f"{self._malformed} entries cannot be read; each could be about something that was touched."
            self._facts.findings.append(Finding("AUDIT_MALFORMED", "unverifiable", self._log, message))

    def _read(self, index: int, entry: Entry) -> tuple[AuditEvent | None, str]:
        try:
            event = AuditEvent.parse(entry.event)
        except EvidenceError as error:
            self._odd(index, error)
            return None, CLAIMED
        who = self._speakers.of(entry, event)["who"] if entry.writer in self._vouched else CLAIMED
        if who != CLAIMED:
            self._facts.writers.add(entry.writer)
        return event, who

    def _odd(self, index: int, error: EvidenceError) -> None:
        self._malformed += 1
        if self._malformed <= _MAX_NAMED:
            message = f"The entry could be about something that was touched. {error.message}"
            subject = f"{self._log} entry {index}"
            self._facts.findings.append(Finding("AUDIT_MALFORMED", "unverifiable", subject, message))

    def _sort(self, use: Use, event: AuditEvent) -> None:
        facts = self._facts
        if event.key in self._keys:
            facts.signed.append(use)
        if use.allowed and not self._keys.isdisjoint(event.signers):
            facts.accepted.append(use)
        if use.digest is None:
            return
        if event.action in MAKING:
            if use.allowed:
                facts.makes.append(use)
        elif event.action not in _NO_READING:
            facts.reads.append(use)

    def _use(self, index: int, event: AuditEvent, who: str) -> Use:
        if event.digest not in self._digests:
            self._digests[event.digest] = _digest(event.digest)
        run = event.run
        return Use(
            index,
            event.action,
            event.outcome,
            run.producer,
            run.invocation if run.run else "",
            event.time,
            event.artifact,
            event.version,
            self._digests[event.digest],
            who,
        )


def _digest(text: str) -> Digest | None:
    try:
        return Digest.parse(text)
    except UsageError:
        return None
