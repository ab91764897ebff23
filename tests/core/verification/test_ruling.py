"""What an audited or waived rule lets pass, code by code."""

from __future__ import annotations

import pytest

from sealflow.findings import CODES
from sealflow.verification.ruling import RELAXABLE

#: Bytes and evidence contradict each other, somebody withdrew them, or nobody can say.
NEVER = {
    "ARTIFACT_CHANGED",
    "ARTIFACT_MISSING",
    "ARTIFACT_REFUSED",
    "ARTIFACT_REVOKED",
    "BACKEND_UNAVAILABLE",
    "DIGEST_MISMATCH",
    "EVIDENCE_ALTERED",
    "EVIDENCE_MALFORMED",
    "EVIDENCE_TOO_MUCH",
    "EVIDENCE_UNREADABLE",
    "EXTRA_MISSING",
    "FILE_CHANGED",
    "FILE_IGNORED",
    "FILE_MISSING",
    "FILE_UNSIGNED",
    "KEY_REVOKED",
    "PERMISSION_DENIED",
    "POLICY_TOO_NEW",
    "POLICY_UNAVAILABLE",
    "SIGNATURE_INVALID",
}


@pytest.mark.parametrize("code", sorted(NEVER))
def test_never_relaxed(code: str) -> None:
    assert code in CODES
    assert code not in RELAXABLE


def test_only_refusals_are_relaxed() -> None:
    assert all(CODES[code].group in ("evidence", "identity") for code in RELAXABLE)
