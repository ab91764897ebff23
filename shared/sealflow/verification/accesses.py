"""Who touched what: an audit log's entries, read once in their order, judged and counted.

Names, numbers and times are what writers said, so everything here has a bound. Where a bound is met, the review says
so (``REVIEW_INCOMPLETE``) and is never ``passed``.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from sealflow.audit import AuditEvent
from sealflow.audit.clock import Placed, place
from sealflow.audit.entry import parse_entry
from sealflow.audit.volume import BASELINE_DAYS, LEAST_DAYS, Volume, judge_volume
from sealflow.errors import EvidenceError
from sealflow.findings import Finding, Severity, printable
from sealflow.policy.globs import matches, place_pattern, readings
from sealflow.run_identity import RunIdentity
from sealflow.verification.vouching import CLAIMED, OTHER_RUN, Vouchers, Word

DAY: Final = 86_400_000_000
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)

#: Outcomes after which the actor has, or has made, what it asked for.
ALLOWED: Final = frozenset({"done", "passed"})
#: Codes with which a store or a key service denies what is asked, other than by a verdict.
_DENIALS: Final = frozenset({"PERMISSION_DENIED"})
#: Actions that make an artifact; all others use one.
MAKING: Final = frozenset({"sign", "upload", "adopt"})

_SEVERITIES: Final[dict[str, Severity]] = {
    "FIRST_SEEN": "note",
    "INSUFFICIENT_HISTORY": "note",
    "AUDIT_VOUCH": "refusal",
    "AUDIT_VOUCHER": "refusal",
    "REVIEW_INCOMPLETE": "unverifiable",
    "TRAIL_MALFORMED": "refusal",
    "TRAIL_SILENT": "unverifiable",
}
#: Codes that a review itself finds.
CODES: Final = (
    "LOG_UNREMEMBERED",
    "AUDIT_MALFORMED",
    "AUDIT_GAP",
    "AUDIT_CLOCK",
    "AUDIT_VOUCH",
    "AUDIT_VOUCHER",
    "AUDIT_CLAIMED",
    "FIRST_SEEN",
    "VOLUME",
    "INSUFFICIENT_HISTORY",
    "DENIED_THEN_ALLOWED",
    "ACCESS_NOT_ALLOWED",
    "UNRECORDED_ACCESS",
    "PHANTOM_ACCESS",
    "TRAIL_MALFORMED",
    "TRAIL_SILENT",
    "REVIEW_INCOMPLETE",
)


@dataclass(frozen=True)
class Limits:
    """How much a review holds at once.

    Attributes:
        names: Characters of all different names of principals, artifacts and datasets.
        pairs: Pairs of principal and artifact, or of principal and dataset.
        open: Chains without an end, and actions without an outcome.
        spans: Actions on objects in S3, to be compared with CloudTrail.
        findings: Findings of one code; the others are counted.
        marks: Different actions, outcomes and codes of one pair; the others are counted together.
    """

    names: int = 64 << 20
    pairs: int = 200_000
    open: int = 200_000
    spans: int = 1_000_000
    findings: int = 1000
    marks: int = 40


@dataclass(frozen=True)
class Scope:
    """What is reviewed.

    Attributes:
        since: Begin of the period, in microseconds since 1970.
        until: Its end, which it does not hold.
        artifacts: Patterns over locations; empty for all.
        principals: Patterns over producers, such as ``airflow:train/*``; empty for all.
        datasets: Locations each of which counts as one dataset with all below it; what lies in none of them counts
            with the folder that it lies in.
    """

    since: int
    until: int
    artifacts: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    def takes_artifact(self, artifact: str) -> bool:
        """Tell whether an artifact is reviewed, under any reading of its location."""
        if not self.artifacts:
            return True
        patterns = [place_pattern(pattern) for pattern in self.artifacts]
        return any(matches(pattern, text) for text in readings(artifact) for pattern in patterns)

    def takes_principal(self, principal: str) -> bool:
        """Tell whether a principal is reviewed."""
        return not self.principals or any(matches(pattern, principal) for pattern in self.principals)

    def dataset(self, artifact: str) -> str:
        """Return the dataset that an artifact counts with."""
        found = [item for item in self.datasets if artifact == item or artifact.startswith(item.rstrip("/") + "/")]
        return max(found, key=len) if found else artifact.rpartition("/")[0] + "/"


def microseconds(text: str) -> int:
    """Return a time of an event, RFC 3339, in microseconds since 1970."""
    return (datetime.datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


def time_text(time: int) -> str:
    """Return a time as RFC 3339, in whole seconds."""
    try:
        return (_EPOCH + time // 1_000_000 * datetime.timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return "beyond all calendars"


class Findings:
    """Collects findings, counts them all and keeps some of each code.

    Args:
        limit: How many of one code are kept.
        fail_on: Codes that refuse.
    """

    def __init__(self, limit: int, fail_on: Iterable[str] = ()) -> None:
        self._limit = limit
        self._fail_on = frozenset(fail_on)
        self.counts: Counter[str] = Counter()
        self.kept: list[Finding] = []

    def add(
        self, code: str, subject: str, message: str, *, expected: str = "", found: str = "", rule: str = ""
    ) -> None:
        """Add a finding; texts of others are made printable with it."""
        self.counts[code] += 1
        if self.counts[code] <= self._limit:
            severity: Severity = "refusal" if code in self._fail_on else _SEVERITIES.get(code, "warning")
            self.kept.append(Finding(code, severity, subject, message, expected, found, rule))

    def once(self, code: str, subject: str, message: str) -> None:
        """Add a finding, unless there is one of its code."""
        if not self.counts[code]:
            self.add(code, subject, message)


@dataclass(slots=True)
class Access:
    """What one principal did with one artifact in the period."""

    principal: int
    artifact: int
    count: int = 0
    first: int = 0
    last: int = 0
    first_entry: int = 0
    last_entry: int = 0
    refused: int = 0
    denied: int = -1
    denied_then_allowed: bool = False
    marks: dict[str, int] = field(default_factory=dict)

    def mark(self, kind: str, name: str, limit: int) -> None:
        """Count an action, an outcome or a code."""
        key = f"{kind}{name}"
        if key not in self.marks and len(self.marks) >= limit:
            key = f"{kind}MORE"
        self.marks[key] = self.marks.get(key, 0) + 1

    def marked(self, kind: str) -> dict[str, int]:
        """Return what was counted of one kind."""
        return {name[1:]: count for name, count in sorted(self.marks.items()) if name[0] == kind}


class Span(NamedTuple):
    """An action on an object in S3, with the time that it took.

    Attributes:
        start: When it began, in microseconds since 1970.
        end: When its outcome was recorded.
        principal: Number of who acted.
        entry: Number of the outcome in the log, of the intent where there is no outcome.
        version: Object version, where the event names one.
        must_show: Whether the store must have seen it.
    """

    start: int
    end: int
    principal: int
    entry: int
    version: str
    must_show: bool


class Names:
    """Numbers for names, within a bound that several share.

    A principal for whose writers somebody vouches and one who only claims the name have a number each: what a stranger
    says in somebody's name is counted apart, and is no history of his.

    Attributes:
        texts: The names.
        vouched: Of each whether somebody vouches for those who bear it.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.vouched: list[bool] = []
        self._numbers: dict[tuple[str, bool], int] = {}

    def number(self, text: str, room: list[int], vouched: bool = False) -> int | None:
        """Return the number of a name, ``None`` where there is no room for a new one."""
        found = self._numbers.get((text, vouched))
        if found is None:
            if room[0] < len(text):
                return None
            room[0] -= len(text)
            found = self._numbers[text, vouched] = len(self.texts)
            self.texts.append(text)
            self.vouched.append(vouched)
        return found

    def said(self, number: int) -> str:
        """Return a principal's name for a message."""
        return self.texts[number] if self.vouched[number] else f"{self.texts[number]} ({CLAIMED})"


@dataclass(slots=True)
class _Chain:
    invocation: str
    principal: str
    first_entry: int
    seen: int = 0
    top: int = 0
    count: int | None = None
    time: int = 0
    last_entry: int = 0
    next: str = ""
    run: RunIdentity | None = None
    by: str = ""


class _Row(NamedTuple):
    number: int
    writer: str
    event: AuditEvent
    time: int
    by: str
    #: Of the first event of a chain, and of one that is of another run than it.
    word: Word | None


@dataclass(slots=True)
class _Claims:
    events: int
    first_entry: int


class _Intent(NamedTuple):
    time: int
    reviewed: bool
    principal: int
    artifact: int
    entry: int
    action: str


#: Says why a principal may not act so on an artifact by the policy, and by which rule; ``None``: it may.
Judge = Callable[[RunIdentity, str, bool], "tuple[str, str, str] | None"]


class AccessReview:
    """A review. :meth:`read` takes the log, :meth:`finish` what only its end shows.

    Args:
        scope: What is reviewed.
        now: The present time, in microseconds since 1970.
        grace: How long an action or a run may last, in microseconds: what began less than that before the end of the
            period, or before now, may still go on.
        fail_on: Codes that refuse.
        judge: What the policy says of an access that was allowed; ``None``: no policy is asked.
        vouchers: Who may vouch for writers; ``None``: nobody is named, and all is claimed.
        spans: Keep the actions on objects in S3.
        limits: How much is held.
    """

    def __init__(
        self,
        scope: Scope,
        *,
        now: int,
        grace: int = DAY,
        fail_on: Iterable[str] = (),
        judge: Judge | None = None,
        vouchers: Vouchers | None = None,
        spans: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.scope = scope
        self.now = now
        self.limits = limits or Limits()
        self.findings = Findings(self.limits.findings, fail_on)
        self.principals, self.artifacts, self._datasets = Names(), Names(), Names()
        self.accesses: dict[tuple[int, int], Access] = {}
        self.spans: dict[int, list[Span]] = {}
        #: Entries of the log, events of the period, accesses reviewed, how many of these somebody vouches for and how
        #: many are claimed, actions that may still go on, and so on.
        self.counts: Counter[str] = Counter(
            entries=0,
            malformed=0,
            in_period=0,
            reviewed=0,
            vouched=0,
            claimed=0,
            doubtful=0,
            open=0,
            unnamed=0,
            left_out=0,
        )
        self.outcomes: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.volumes: dict[int, list[Volume]] = {}
        self.first_time: int | None = None
        self._stale = min(now, scope.until) - grace
        self._judge = judge
        self._vouchers = vouchers
        #: Writers whose chains the check of the log refuses: nobody vouches for what stands in them.
        self.unsound: frozenset[str] = frozenset()
        self._claims: dict[str, _Claims] = {}
        self._keep_spans = spans
        self._room = [self.limits.names]
        self._known: set[tuple[int, int]] = set()
        self._judged: set[tuple[int, int, str, bool]] = set()
        self._days: dict[int, dict[int, int]] = {}
        self._chains: dict[str, _Chain] = {}
        self._root: dict[str, str] = {}
        self._intents: dict[tuple[str, str], _Intent] = {}
        self._clocks: set[str] = set()
        self._span_count = 0
        self._taken: dict[str, bool] = {}

    @property
    def vouchers(self) -> list[str]:
        """Names of those who may vouch for writers."""
        groups = self._vouchers.groups if self._vouchers is not None else ()
        return sorted({item.name for group in groups for item in group})

    def read(self, lines: Iterable[bytes]) -> None:
        """Read the log's entries, all of them, in their order."""
        for placed in place(((row.time, row.writer, row) for row in self._rows(lines)), self.now):
            self._take(placed)

    def _rows(self, lines: Iterable[bytes]) -> Iterator[_Row]:
        for index, line in enumerate(lines):
            self.counts["entries"] += 1
            try:
                entry = parse_entry(line)
                event = AuditEvent.parse(entry.event)
                time = microseconds(event.time)
            except EvidenceError as error:
                self.counts["malformed"] += 1
                self.findings.add("AUDIT_MALFORMED", f"entry {index}", error.message)
                continue
            by, word = self._follow(index, entry.writer, entry.n, event, time)
            yield _Row(index, entry.writer, event, time, by, word)

    def _follow(self, index: int, writer: str, n: int, event: AuditEvent, time: int) -> tuple[str, Word | None]:
        """Follow a writer's chain until all of its entries are there; return who vouches for the event."""
        word = self._vouchers.judge(writer, event.run, event.vouch) if self._vouchers is not None and n == 0 else None
        chain = self._chains.get(writer)
        if chain is None:
            if len(self._chains) >= self.limits.open:
                self._incomplete("chains without an end")
                return "", word
            invocation, principal = printable(event.run.invocation), printable(event.run.producer)
            chain = self._chains[writer] = _Chain(invocation, principal, index)
            if n == 0:
                chain.run, chain.by = event.run, word.by if word is not None else ""
            before = self._chains.get(event.after) if n == 0 and event.after else None
            # Everybody can say to go on for somebody; only within one run it is believed, for what it explains.
            if before is not None and before.invocation == invocation and len(self._root) < self.limits.open:
                before.next = writer
                self._root[writer] = self._root.get(event.after, event.after)
        chain.seen += 1
        chain.top = max(chain.top, n)
        chain.time = max(chain.time, time)
        chain.last_entry = index
        chain.count = event.count if event.count is not None else chain.count
        if chain.count is not None and chain.count == chain.top + 1 and chain.seen >= chain.count:
            del self._chains[writer]
        # Whoever vouches for a writer vouches for one run.
        if chain.run is not None and chain.run != event.run:
            return "", Word(
                code="AUDIT_VOUCH", message=OTHER_RUN, expected=chain.invocation, found=event.run.invocation
            )
        return ("" if writer in self.unsound else chain.by), word

    def _take(self, placed: Placed) -> None:
        row: _Row = placed.item
        event, scope = row.event, self.scope
        period = scope.since <= row.time < scope.until
        time = row.time
        if placed.doubt:
            # Where it stands in the log counts too: who sets a clock does not choose what is reviewed, nor history.
            stands = placed.earliest < scope.until and scope.since <= placed.latest
            if not period and not stands:
                return
            period, time = True, min(max(placed.earliest, scope.since), scope.until - 1) if stands else row.time
            self._doubt(row, placed)
        self.first_time = time if self.first_time is None else min(self.first_time, time)
        if period:
            self.counts["in_period"] += 1
            self._hear(row)
        if event.phase == "end" or not (period or time < scope.since):
            return
        if not event.artifact:
            # Kept apart as personal; or nothing that an artifact is about.
            self.counts["unnamed"] += period and event.phase == "outcome"
            return
        principal_text = event.run.producer
        if not scope.takes_principal(principal_text) or not self._takes(event.artifact):
            return
        principal = self.principals.number(principal_text, self._room, bool(row.by))
        artifact = self.artifacts.number(event.artifact, self._room)
        if principal is None or artifact is None:
            self._incomplete("names")
            return
        key = (self._root.get(row.writer, row.writer), event.correlation)
        if event.phase == "intent":
            if len(self._intents) >= self.limits.open:
                self._incomplete("actions without an outcome")
                return
            self._intents[key] = _Intent(time, period, principal, artifact, row.number, event.action)
            return
        intent = self._intents.pop(key, None)
        self._count_day(principal, time)
        if period:
            self._review(row, time, principal, artifact, intent)
        dataset = self._datasets.number(scope.dataset(event.artifact), self._room)
        if dataset is None:
            self._incomplete("names")
        elif (principal, dataset) not in self._known:
            if len(self._known) >= self.limits.pairs:
                self._incomplete("pairs of principal and dataset")
                return
            self._known.add((principal, dataset))
            if period:
                self.findings.add(
                    "FIRST_SEEN",
                    self._datasets.texts[dataset],
                    f"{self.principals.said(principal)} touches it for the first time in this log.",
                    found=f"{event.action} of {printable(event.artifact, 99)} at {time_text(time)}, entry {row.number}",
                )

    def _hear(self, row: _Row) -> None:
        """Note who speaks for the writer of an event of the period."""
        if not self.scope.takes_principal(row.event.run.producer):
            return
        if row.word is not None and row.word.code:
            word = row.word
            found = f"{word.found}, entry {row.number}"
            self.findings.add(word.code, f"writer {row.writer}", word.message, expected=word.expected, found=found)
        if row.by or self._vouchers is None:
            return
        producer = row.event.run.producer
        known = self._claims.get(producer)
        if known is not None:
            known.events += 1
        elif self._room[0] < len(producer):
            self._incomplete("names")
        else:
            self._room[0] -= len(producer)
            self._claims[producer] = _Claims(1, row.number)

    def _takes(self, artifact: str) -> bool:
        found = self._taken.get(artifact)
        if found is None:
            found = self.scope.takes_artifact(artifact)
            if len(artifact) <= 1024:
                if len(self._taken) >= 10_000:
                    self._taken.clear()
                self._taken[artifact] = found
        return found

    def _doubt(self, row: _Row, placed: Placed) -> None:
        self.counts["doubtful"] += 1
        if row.writer in self._clocks or len(self._clocks) >= self.limits.open:
            return
        self._clocks.add(row.writer)
        self.findings.add(
            "AUDIT_CLOCK",
            row.event.run.invocation,
            "The writer's clock is false, or its events were delivered late."
            if placed.doubt == "late"
            else "The writer's clock is ahead of the log around it.",
            expected=f"between {time_text(placed.earliest)} and {time_text(placed.latest)}, as its neighbours say",
            found=f"{time_text(row.time)} in entry {row.number} of the writer {row.writer[:16]}…",
        )

    def _count_day(self, principal: int, time: int) -> None:
        day = time // DAY
        counts = self._days.setdefault(principal, {})
        # Of what lies before the baseline only the beginning matters.
        beginning = self.scope.since // DAY - BASELINE_DAYS
        if day < beginning:
            earlier = [other for other in counts if other < beginning]
            if earlier and earlier[0] <= day:
                return
            for other in earlier:
                del counts[other]
        counts[day] = counts.get(day, 0) + 1

    def _review(self, row: _Row, time: int, principal: int, artifact: int, intent: _Intent | None) -> None:
        event = row.event
        access = self._access(principal, artifact)
        if access is None:
            return
        self.counts["reviewed"] += 1
        self.counts["vouched" if row.by else "claimed"] += 1
        self.outcomes[event.outcome] += 1
        if not access.count:
            access.first, access.first_entry, access.last, access.last_entry = time, row.number, time, row.number
        if time < access.first:
            access.first, access.first_entry = time, row.number
        if time >= access.last:
            access.last, access.last_entry = time, row.number
        access.count += 1
        limit = self.limits.marks
        access.mark("a", event.action, limit)
        access.mark("o", event.outcome, limit)
        if row.by:
            access.mark("v", row.by, limit)
        for code in dict.fromkeys(event.codes):
            access.mark("c", code, limit)
            self.codes[code if code in self.codes or len(self.codes) < 1000 else "MORE"] += 1
        allowed = event.outcome in ALLOWED
        if event.outcome == "failed" or not _DENIALS.isdisjoint(event.codes):
            access.refused += 1
            access.denied = row.number
        elif allowed and access.denied >= 0:
            access.denied_then_allowed = True
            self.findings.add(
                "DENIED_THEN_ALLOWED",
                event.artifact,
                f"{self.principals.said(principal)} was refused, and allowed later.",
                found=f"refused in entry {access.denied}, {event.outcome} in entry {row.number} at {time_text(time)}",
            )
            access.denied = -1
        if allowed and self._judge is not None:
            self._ask_policy(row, principal, artifact)
        start = min(intent.time, time) if intent is not None else time
        must_show = allowed and event.action in TOUCHING and "VERDICT_REUSED" not in event.codes
        self._span(event.artifact, artifact, Span(start, time, principal, row.number, event.version, must_show))

    def _access(self, principal: int, artifact: int) -> Access | None:
        found = self.accesses.get((principal, artifact))
        if found is None:
            if len(self.accesses) >= self.limits.pairs:
                self._incomplete("pairs of principal and artifact")
                return None
            found = self.accesses[principal, artifact] = Access(principal, artifact)
        return found

    def _ask_policy(self, row: _Row, principal: int, artifact: int) -> None:
        event = row.event
        making = event.action in MAKING
        key = (principal, artifact, event.run.team, making)
        if self._judge is None or key in self._judged:
            return
        if len(self._judged) >= self.limits.pairs:
            self._incomplete("pairs of principal and artifact")
            return
        self._judged.add(key)
        run = replace(event.run, run="", map_index=None, attempt=None, instance="")
        against = self._judge(run, event.artifact, making)
        if against is not None:
            message, expected, rule = against
            found = f"{event.action} by {self.principals.said(principal)}, entry {row.number}"
            self.findings.add("ACCESS_NOT_ALLOWED", event.artifact, message, expected=expected, found=found, rule=rule)

    def _span(self, uri: str, artifact: int, span: Span) -> None:
        if not self._keep_spans or not uri.startswith("s3://"):
            return
        if self._span_count >= self.limits.spans:
            self._incomplete("actions on objects in S3")
            return
        self._span_count += 1
        self.spans.setdefault(artifact, []).append(span)

    def finish(self) -> None:
        """Find what is missing, and apply the volume rule."""
        for intent in self._intents.values():
            if not intent.reviewed:
                continue
            artifact = self.artifacts.texts[intent.artifact]
            # It may have happened, so it explains what the store saw.
            span = Span(intent.time, max(intent.time, self._stale), intent.principal, intent.entry, "", False)
            self._span(artifact, intent.artifact, span)
            if intent.time >= self._stale:
                self.counts["open"] += 1
                continue
            access = self._access(intent.principal, intent.artifact)
            if access is not None:
                access.mark("o", "missing", self.limits.marks)
                if not access.count:
                    access.first = access.last = intent.time
                    access.first_entry = access.last_entry = intent.entry
            self.outcomes["missing"] += 1
            self.findings.add(
                "AUDIT_GAP",
                artifact,
                f"{self.principals.said(intent.principal)} began an action, and its outcome is missing.",
                expected="an outcome",
                found=f"the intent of {intent.action} at {time_text(intent.time)}, entry {intent.entry}",
            )
        for writer, chain in self._chains.items():
            self._gap(writer, chain)
        self._intents.clear()
        self._chains.clear()
        for producer, claims in self._claims.items():
            self.findings.add(
                "AUDIT_CLAIMED",
                producer,
                "Nobody who is named vouches for the writers of these events, so they are this principal's by claim.",
                expected="a vouch for each writer",
                found=f"{claims.events} events, the first is entry {claims.first_entry}",
            )
        self._judge_volumes()
        if self.counts["reviewed"] and (self.first_time or 0) > self.scope.since - LEAST_DAYS * DAY:
            self.findings.add(
                "INSUFFICIENT_HISTORY",
                "the log",
                f"It begins less than {LEAST_DAYS} days before the period: a first time says little.",
                found=f"its first event at {time_text(self.first_time or 0)}",
            )

    def _gap(self, writer: str, chain: _Chain) -> None:
        if chain.time < self.scope.since or not self.scope.takes_principal(chain.principal):
            return
        if chain.time >= self._stale and chain.count is None:
            self.counts["open"] += 1
            return
        more = f"; the writer {chain.next[:16]}… says to go on for it" if chain.next else ""
        self.findings.add(
            "AUDIT_GAP",
            chain.invocation,
            "The run's chain has no end." if chain.count is None else "Entries of the run's chain are missing.",
            expected=f"{chain.count} entries" if chain.count is not None else "a signed count of its entries",
            found=f"{chain.seen} entries of the writer {writer[:16]}…, from {chain.first_entry} to {chain.last_entry}, "
            f"the last at {time_text(chain.time)}{more}",
        )

    def _judge_volumes(self) -> None:
        first, last = self.scope.since // DAY, (self.scope.until - 1) // DAY
        for principal, counts in self._days.items():
            name, said = self.principals.texts[principal], self.principals.said(principal)
            found = [judge_volume(counts, day) for day in sorted(counts) if first <= day <= last]
            if not found:
                continue
            self.volumes[principal] = found
            for item in found:
                if item.status == "above":
                    self.findings.add(
                        "VOLUME",
                        name,
                        f"Far more accesses of {said} on {item.as_dict()['day']} than in {BASELINE_DAYS} days before.",
                        expected=f"at most {item.limit} (the most before was {item.greatest})",
                        found=str(item.accesses),
                    )
            short = [item for item in found if item.status == "insufficient_history"]
            if short:
                item = max(short, key=lambda item: item.accesses)
                self.findings.add(
                    "INSUFFICIENT_HISTORY",
                    name,
                    f"The volume of {said} on {len(short)} days cannot be judged.",
                    expected=f"{LEAST_DAYS} days of history",
                    found=f"{item.history} days before {item.as_dict()['day']}, with {item.accesses} accesses",
                )

    def _incomplete(self, what: str) -> None:
        self.counts["left_out"] += 1
        self.findings.once(
            "REVIEW_INCOMPLETE",
            "the review",
            f"There are more {what} than a review holds, and the others are left out.",
        )


#: Actions that read or write the bytes of the artifact that they name.
TOUCHING: Final = frozenset({"change-recipients", "copy", "download", "promote", "read", "sign", "upload", "verify"})


def principals_of(review: AccessReview) -> dict[int, list[Access]]:
    """Return the accesses of each principal."""
    found: dict[int, list[Access]] = {}
    for access in review.accesses.values():
        found.setdefault(access.principal, []).append(access)
    return found


def artifacts_of(review: AccessReview) -> Mapping[int, Sequence[Access]]:
    """Return the accesses to each artifact."""
    found: dict[int, list[Access]] = {}
    for access in review.accesses.values():
        found.setdefault(access.artifact, []).append(access)
    return found
