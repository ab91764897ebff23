"""What a check of a cluster says: the shape of ``sealflow audit posture``, so that one reader understands both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sealflow.errors import EvidenceError
from sealflow.findings import Finding, Verdict, printable

Outcome = Literal["PASS", "FAIL", "UNKNOWN", "SKIPPED"]

_MAX_SHOWN: Final = 1000


class Check(NamedTuple):
    """One check.

    Attributes:
        expected: What must hold.
        next_step: What to do where it does not.
        advisory: Whether it only warns.
    """

    expected: str
    next_step: str
    advisory: bool = False


class Said(NamedTuple):
    """What came of one question.

    Attributes:
        outcome: ``UNKNOWN`` where nobody can say.
        found: What was there, or why nobody knows.
        next_step: What can be done, where it is not what the check says by itself.
    """

    outcome: Outcome
    found: str
    next_step: str = ""


class UnclearError(Exception):
    """An object of the cluster does not have the form that Kubernetes gives it."""


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
        check: Name of the check.
        resource: What was looked at.
        rule: The check.
        said: What came of it.
    """

    check: str
    resource: str
    rule: Check
    said: Said

    @property
    def outcome(self) -> Outcome:
        """What came of it, in one word."""
        return self.said.outcome

    @property
    def next_step(self) -> str:
        """What can be done; empty where all is well."""
        return self.said.next_step or (self.rule.next_step if self.outcome == "FAIL" else "")

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "check": self.check,
            "resource": printable(self.resource),
            "outcome": self.outcome,
            "expected": self.rule.expected,
            "found": printable(self.said.found, _MAX_SHOWN),
            "advisory": self.rule.advisory,
            "next_step": printable(self.next_step),
        }

    def finding(self) -> Finding | None:
        """Return it as a finding, ``None`` where all is well."""
        subject = f"{self.check} {self.resource}"
        if self.outcome == "PASS":
            return None
        if self.outcome == "SKIPPED":
            return Finding("POSTURE_SKIPPED", "note", subject, f"Left out: {self.said.found}", rule=self.check)
        failed = self.outcome == "FAIL"
        return Finding(
            "POSTURE_FAILED" if failed else "POSTURE_UNKNOWN",
            "warning" if self.rule.advisory else "refusal" if failed else "unverifiable",
            subject,
            "It is not set up as expected." if failed else "Nobody knows whether there is what is expected.",
            self.rule.expected,
            self.said.found,
            self.check,
            self.next_step,
        )


@dataclass(frozen=True)
class Report:
    """What a cluster looks like.

    Attributes:
        results: What came of each check.
        verdict: What they add up to: ``failed`` where one is not as expected, else ``unverifiable`` where nobody can
            say, else ``passed``.
    """

    results: tuple[Result, ...]
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"checks": [item.as_dict() for item in self.results], "verdict": self.verdict.as_dict()}


# --- Reading objects of the cluster, which are what their authors made of them ---


def dig(body: Any, *path: str | int) -> Any:
    """Return what lies under names and indices, ``None`` where there is nothing.

    Raises:
        UnclearError: There is something else than an object or a list on the way.
    """
    for step in path:
        if body is None:
            return None
        if isinstance(step, int):
            if not isinstance(body, list):
                raise UnclearError(f"no list around {step}")
            body = body[step] if step < len(body) else None
        elif isinstance(body, dict):
            body = body.get(step)
        else:
            raise UnclearError(f"no object around {step}")
    return body


def text(body: Any, *path: str | int) -> str:
    """Return the text under names and indices, empty where there is none.

    Raises:
        UnclearError: It is no text.
    """
    value = dig(body, *path)
    if value is not None and not isinstance(value, str):
        raise UnclearError(f"{path[-1]} is no text")
    return value or ""


def listed(body: Any, *path: str | int) -> list[Any]:
    """Return the list under names and indices, empty where there is none.

    Raises:
        UnclearError: It is no list.
    """
    value = dig(body, *path)
    if value is not None and not isinstance(value, list):
        raise UnclearError(f"{path[-1]} is no list")
    return value or []


def mapped(body: Any, *path: str | int) -> dict[str, Any]:
    """Return the object under names and indices, empty where there is none.

    Raises:
        UnclearError: It is no object.
    """
    value = dig(body, *path)
    if value is not None and not isinstance(value, dict):
        raise UnclearError(f"{path[-1]} is no object")
    return value or {}


def texts(body: Any, *path: str | int) -> list[str]:
    """Return the list of texts under names and indices.

    Raises:
        UnclearError: It is no list of texts.
    """
    found = listed(body, *path)
    if not all(isinstance(item, str) for item in found):
        raise UnclearError(f"{path[-1]} is no list of texts")
    return found


def findings(results: tuple[Result, ...]) -> Iterator[Finding]:
    """Yield the findings that results add up to."""
    for result in results:
        found = result.finding()
        if found is not None:
            yield found


#: What reading an object of the cluster can end with.
UNCLEAR: Final = (UnclearError, EvidenceError, RecursionError)
