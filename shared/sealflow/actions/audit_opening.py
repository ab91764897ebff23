"""Which log, and with which key: from arguments and settings to what a check can open."""

from __future__ import annotations

from sealflow.actions.context import Surroundings
from sealflow.audit.checkpoint import NAME, SignedCheckpoint, open_checkpoint
from sealflow.audit.log import LogStore, open_log
from sealflow.audit.note import MAX_NOTE, VerifierKey, load_verifier_key
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow.storage import Storages


def log_and_key(
    log: str | None, key: str | None, surroundings: Surroundings, storages: Storages
) -> tuple[LogStore, VerifierKey]:
    """Return the log and its verifier key, from the call or the settings.

    Raises:
        UsageError: One of them is not named, or cannot work.
        UnavailableError: The file of the key cannot be read.
    """
    log = log or surroundings.settings.audit_log
    key = key or surroundings.settings.audit_log_key
    if not log:
        raise UsageError("No audit log is named.", next_step="Name it, or set SEALFLOW_AUDIT_LOG.")
    if not key:
        raise UsageError(
            "The audit log's verifier key is not named, and without it nothing in the log proves anything.",
            next_step="Name it, or set SEALFLOW_AUDIT_LOG_KEY.",
        )
    return open_log(log, storages), load_verifier_key(key)


def read_checkpoint(store: LogStore, key: VerifierKey) -> SignedCheckpoint:
    """Return the log's checkpoint, verified.

    Raises:
        EvidenceError: ``LOG_MISSING``: there is none; ``LOG_CHECKPOINT``: it is not the key's.
        UnavailableError: The log cannot be read.
    """
    data = store.get(NAME, MAX_NOTE)
    if data is None:
        raise EvidenceError(f"There is no checkpoint of a log at {printable(store.uri)}.", code="LOG_MISSING")
    return open_checkpoint(data, key)
