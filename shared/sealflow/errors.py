"""Exceptions of sealflow. Each carries a stable code, a next step and the exit status of the command line.

Exit statuses are part of the public interface: scripts and orchestrators branch on them.

====== ===================================================================
status meaning
====== ===================================================================
0      done, or verdict ``passed``
1      a defect of sealflow itself
2      usage: an argument, a setting or a key that cannot work
3      refused: the bytes and the evidence do not belong together
4      refused: the evidence is sound, but not from an identity that may speak
5      unverifiable: a backend, a permission or a file could not be reached
====== ===================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealflow.findings import Verdict

EXIT_OK = 0
EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_REFUSED_EVIDENCE = 3
EXIT_REFUSED_IDENTITY = 4
EXIT_UNVERIFIABLE = 5


class SealflowError(Exception):
    """Base of every error that sealflow raises on purpose.

    Attributes:
        code: Stable, upper-case identifier.
        next_step: What the reader can do about it; may be empty.
        exit_status: Exit status of the ``sealflow`` command for this error.
    """

    code = "ERROR"
    exit_status = EXIT_DEFECT
    retryable = False

    def __init__(self, message: str, *, code: str | None = None, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}"
        return f"{text} Next: {self.next_step}" if self.next_step else text


class UsageError(SealflowError):
    """An argument, a setting or a key cannot work as given; trying again changes nothing."""

    code = "USAGE"
    exit_status = EXIT_USAGE


class MissingExtraError(UsageError):
    """An optional library is not installed.

    Attributes:
        extra: The extra of the distribution that brings it.
    """

    code = "EXTRA_MISSING"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an optional library that is not installed.",
            next_step=f"pip install 'sealflow[{extra}]'",
        )
        self.extra = extra


class PolicyError(UsageError):
    """A policy, a waiver or what somebody adds to them cannot be taken.

    Attributes:
        problems: Each problem's place in the document, names and indices from the root, and one sentence.
    """

    code = "POLICY_MALFORMED"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        next_step: str = "",
        problems: Sequence[tuple[tuple[Any, ...], str]] = (),
    ) -> None:
        super().__init__(message, code=code, next_step=next_step)
        self.problems: Sequence[tuple[tuple[Any, ...], str]] = tuple(problems) or (((), message),)


class ArtifactError(SealflowError):
    """The artifact itself cannot be taken: a hostile name, a link, a special file, a change while it was read."""

    code = "ARTIFACT_REFUSED"
    exit_status = EXIT_REFUSED_EVIDENCE


class EvidenceError(SealflowError):
    """Bytes that should be evidence are not: malformed, oversized or altered."""

    code = "EVIDENCE_MALFORMED"
    exit_status = EXIT_REFUSED_EVIDENCE


class UnavailableError(SealflowError):
    """A store, a key service or a permission is out of reach; the same call may work later."""

    code = "BACKEND_UNAVAILABLE"
    exit_status = EXIT_UNVERIFIABLE
    retryable = True


class VerificationError(SealflowError):
    """A verdict that is not ``passed``.

    Attributes:
        verdict: The whole verdict, findings included.
    """

    code = "REFUSED"

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.summary())
        self.verdict = verdict
        self.exit_status = verdict.exit_status
        self.retryable = verdict.status == "unverifiable"
        first = verdict.deciding_finding
        if first is not None:
            self.code = first.code
            self.next_step = first.next_step
