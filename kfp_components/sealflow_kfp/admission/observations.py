"""What was seen of one object, in findings, and the texts that say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sealflow.findings import Finding, Severity

#: Most findings that are kept of one object; further ones are counted.
MAX_KEPT: Final = 100
#: Most refusals that one message tells.
_TOLD: Final = 8


class Observations:
    """Findings about one object.

    Attributes:
        subject: The object's name for messages.
        kept: The first findings.
        refused: Number of refusals, those not kept included.
        count: Number of all findings, those not kept included.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.kept: list[Finding] = []
        self.refused = 0
        self.count = 0

    def refuse(
        self, code: str, where: str, message: str, *, expected: str = "", found: str = "", rule: str = ""
    ) -> None:
        """Add what refuses the object."""
        self.refused += 1
        self._add("refusal", code, where, message, expected, found, rule)

    def warn(self, code: str, where: str, message: str, *, expected: str = "", found: str = "", rule: str = "") -> None:
        """Add what somebody should know."""
        self._add("warning", code, where, message, expected, found, rule)

    def note(self, code: str, where: str, message: str) -> None:
        """Add what was done or let be."""
        self._add("note", code, where, message, "", "", "")

    def _add(
        self, severity: Severity, code: str, where: str, message: str, expected: str, found: str, rule: str
    ) -> None:
        self.count += 1
        if len(self.kept) < MAX_KEPT:
            subject = f"{self.subject}, {where}" if where else self.subject
            self.kept.append(Finding(code, severity, subject, message, expected, found, rule))

    def refusals(self) -> list[Finding]:
        """Return the refusals that were kept."""
        return [finding for finding in self.kept if finding.severity == "refusal"]

    def text(self) -> str:
        """Return the message of a refusal: one line for each finding, and the next steps."""
        refusals = self.refusals()
        lines = [f"sealflow refuses {self.subject}:"]
        for finding in refusals[:_TOLD]:
            rule = f" Rule: {finding.rule}." if finding.rule else ""
            lines.append(f"- {_line(finding, self.subject)}{rule}")
        if self.refused > len(refusals[:_TOLD]):
            lines.append(f"- and {self.refused - len(refusals[:_TOLD])} more.")
        steps = dict.fromkeys(finding.next_step for finding in refusals[:_TOLD])
        return "\n".join([*lines, *(f"Next: {step}" for step in steps)])

    def lines(self, severities: Sequence[Severity]) -> list[str]:
        """Return one line for each finding of some severities."""
        return [f"sealflow: {_line(finding, self.subject)}" for finding in self.kept if finding.severity in severities]

    def codes(self) -> list[str]:
        """Return the codes of refusals, each once, in their order."""
        return list(dict.fromkeys(finding.code for finding in self.refusals()))


def _line(finding: Finding, subject: str) -> str:
    # The object's name stands above all lines already.
    where = finding.subject.removeprefix(subject).removeprefix(", ")
    line = finding.line().removeprefix(f"{finding.code} {finding.subject}: ")
    return f"{finding.code}{f' {where}' if where else ''}: {line}"
