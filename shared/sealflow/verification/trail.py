"""An audit log's actions on objects in S3, held against what CloudTrail says that S3 saw.

Our events carry no request id of S3, so the two are joined by object, object version where both name one, and time:
an action explains every request for its object, for what lies below it, and for its evidence, from its intent to its
outcome, give or take the difference of clocks. Where the caller says which role belongs to which principals, the
principal has to fit, too. One action makes many requests (ranges, parts), so nothing is joined one to one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow.audit.cloudtrail import ObjectAccess
from sealflow.findings import printable
from sealflow.policy.globs import matches
from sealflow.verification.accesses import AccessReview, Span, time_text

#: How the two were joined, for the report.
JOINED_BY: Final = "object, object version where both name one, and time"

#: How far CloudTrail's clock and ours may differ, in microseconds.
SLACK: Final = 300_000_000

#: Ends the location of an artifact's evidence, by default.
_EVIDENCE: Final = ".evidence"


@dataclass(slots=True)
class Unrecorded:
    """Requests of one kind that the log does not explain."""

    count: int
    first: int
    last: int
    address: str
    request: str


@dataclass
class TrailCheck:
    """Compares a finished review with CloudTrail.

    Args:
        review: The review; it kept its spans.
        roles: Patterns over ARNs, and for each the patterns of the principals that act under it.
        slack: How far clocks may differ, in microseconds.
    """

    review: AccessReview
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    slack: int = SLACK
    records: int = 0
    compared: int = 0
    matched: int = 0
    denied: int = 0
    phantoms: int = 0
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        self._by_place: dict[str, _Spans] = {}
        self._unrecorded: dict[tuple[str, str, str], Unrecorded] = {}
        self._allowed: dict[str, Callable[[str], bool]] = {}
        self.buckets: set[str] = set()
        for artifact, spans in self.review.spans.items():
            place = self.review.artifacts.texts[artifact].rstrip("/")
            known = self._by_place.get(place)
            self._by_place[place] = _Spans([*(known.spans if known else ()), *spans], self.slack)

    def read(self, accesses: Iterable[ObjectAccess]) -> None:
        """Take records of CloudTrail, in any order. One that comes twice is counted twice, and changes nothing else."""
        scope = self.review.scope
        for access in accesses:
            self.records += 1
            self.buckets.add(_bucket(access.uri))
            if not scope.since <= access.time < scope.until or not scope.takes_artifact(access.uri):
                continue
            self.compared += 1
            self.first = access.time if self.first is None else min(self.first, access.time)
            self.last = access.time if self.last is None else max(self.last, access.time)
            if access.error:
                # Nobody got anything; most of these are questions whether an object is there.
                self.denied += 1
            elif self._explained(access):
                self.matched += 1
            else:
                self._note(access)

    def _explained(self, access: ObjectAccess) -> bool:
        allowed = self._principals(access.principal)
        found = False
        for place in _places(access.uri):
            spans = self._by_place.get(place)
            if spans is not None:
                spans.seen.add(access.time)
                found = found or spans.explain(access, allowed, self.review.principals.texts)
        return found

    def _principals(self, arn: str) -> Callable[[str], bool] | None:
        """Return which principals act under an ARN; ``None``: the caller did not say."""
        if arn not in self._allowed:
            patterns = [item for role, names in self.roles.items() if matches(role, arn) for item in names]
            if not patterns:
                return None
            self._allowed[arn] = lambda name: any(matches(pattern, name) for pattern in patterns)
        return self._allowed[arn]

    def _note(self, access: ObjectAccess) -> None:
        key = (access.principal, access.name, access.uri)
        found = self._unrecorded.get(key)
        if found is None:
            if len(self._unrecorded) >= self.review.limits.pairs:
                self.review.findings.once(
                    "REVIEW_INCOMPLETE", "CloudTrail", "There are more unrecorded accesses than a review holds."
                )
                return
            self._unrecorded[key] = Unrecorded(1, access.time, access.time, access.address, access.request)
            return
        found.count += 1
        found.first, found.last = min(found.first, access.time), max(found.last, access.time)

    def finish(self) -> None:
        """Add the findings."""
        review = self.review
        for (principal, name, uri), item in self._unrecorded.items():
            review.findings.add(
                "UNRECORDED_ACCESS",
                uri,
                f"{printable(principal) or 'Somebody'} accessed it, and the log knows nothing of it.",
                expected="an action in the log at that time",
                found=f"{item.count} {printable(name, 60)} from {time_text(item.first)} to {time_text(item.last)}, "
                f"first from {printable(item.address, 60)}, request {printable(item.request, 60)}",
            )
        silent: dict[str, int] = {}
        for place, spans in self._by_place.items():
            for span in spans.spans:
                if not span.must_show or spans.is_shown(span):
                    continue
                if _bucket(place) not in self.buckets:
                    silent[_bucket(place)] = silent.get(_bucket(place), 0) + 1
                    continue
                self.phantoms += 1
                review.findings.add(
                    "PHANTOM_ACCESS",
                    place,
                    f"The log says that {review.principals.said(span.principal)} accessed it, "
                    "and CloudTrail knows nothing of it.",
                    expected="a request at that time",
                    found=f"entry {span.entry}, {time_text(span.start)} to {time_text(span.end)}",
                )
        for bucket, count in sorted(silent.items()):
            review.findings.add(
                "TRAIL_SILENT",
                f"s3://{bucket}",
                "CloudTrail holds no record of this bucket at all, so its accesses could not be compared.",
                expected=f"records of {count} actions",
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "joined_by": JOINED_BY + (", and principals by role" if self.roles else ""),
            "slack_seconds": self.slack // 1_000_000,
            "records": self.records,
            "compared": self.compared,
            "explained": self.matched,
            "denied": self.denied,
            "unrecorded": sum(item.count for item in self._unrecorded.values()),
            "phantom": self.phantoms,
            "first": time_text(self.first) if self.first is not None else None,
            "last": time_text(self.last) if self.last is not None else None,
        }


class _Spans:
    """Actions on one object, and when CloudTrail saw requests for it."""

    def __init__(self, spans: Sequence[Span], slack: int) -> None:
        self.spans = spans
        #: Whole seconds, so there are not more of them than a period has.
        self.seen: set[int] = set()
        self._slack = slack
        self._sorted: list[int] | None = None
        # By principal and version, times that follow each other joined: a search takes a few steps, however many
        # actions there were and however long one lasted.
        self._times: dict[tuple[int, str], tuple[list[int], list[int]]] = {}
        for span in sorted(spans):
            starts, ends = self._times.setdefault((span.principal, span.version), ([], []))
            start, end = span.start - slack, span.end + slack
            if ends and start <= ends[-1]:
                ends[-1] = max(ends[-1], end)
            else:
                starts.append(start)
                ends.append(end)

    def explain(self, access: ObjectAccess, allowed: Callable[[str], bool] | None, names: Sequence[str]) -> bool:
        """Tell whether an action explains a request."""
        for (principal, version), (starts, ends) in self._times.items():
            if version and access.version and version != access.version:
                continue
            number = bisect_right(starts, access.time) - 1
            if number >= 0 and access.time <= ends[number] and (allowed is None or allowed(names[principal])):
                return True
        return False

    def is_shown(self, span: Span) -> bool:
        """Tell whether CloudTrail saw any request during an action."""
        if self._sorted is None:
            self._sorted = sorted(self.seen)
        number = bisect_left(self._sorted, span.start - self._slack)
        return number < len(self._sorted) and self._sorted[number] <= span.end + self._slack


def _places(uri: str) -> Iterable[str]:
    """Yield the locations of artifacts that a request for an object can belong to: its own, and each folder above."""
    place = uri.rstrip("/")
    while place.count("/") > 2:
        yield place
        if place.endswith(_EVIDENCE):
            yield place[: -len(_EVIDENCE)]
        place = place.rpartition("/")[0]


def _bucket(uri: str) -> str:
    return uri[5:].partition("/")[0]
