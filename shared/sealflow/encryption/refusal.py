"""Why an encrypted artifact is not opened. The usual next step of each code stands with the code."""

from __future__ import annotations

from sealflow.errors import EXIT_REFUSED_IDENTITY, EvidenceError, SealflowError
from sealflow.findings import CODES


class RecipientError(SealflowError):
    """None of the keys at hand opens the encrypted artifact."""

    code = "RECIPIENT_MISSING"
    exit_status = EXIT_REFUSED_IDENTITY


def refused(code: str, message: str) -> EvidenceError:
    """Return the error for bytes that are refused."""
    return EvidenceError(message, code=code, next_step=CODES[code].next_step)


def no_key(code: str, message: str) -> RecipientError:
    """Return the error for keys that do not open what is sound in itself."""
    return RecipientError(message, code=code, next_step=CODES[code].next_step)
