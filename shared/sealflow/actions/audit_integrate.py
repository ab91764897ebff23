"""Integrate: what lies in the audit inbox gets its place in the log, under a signed checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow.actions import context
from sealflow.audit.inbox import Refusal, Waiting, open_inbox
from sealflow.audit.integrate import ask_witnesses, integrate
from sealflow.audit.log import open_log
from sealflow.audit.note import VerifierKey
from sealflow.audit.witness import Witness
from sealflow.errors import SealflowError, UsageError
from sealflow.findings import Finding
from sealflow.keys import KeySigner, PassphraseCallback, load_signer
from sealflow.storage import Storages

#: Most findings that are kept; the others are counted.
MAX_FINDINGS: Final = 100

_MESSAGES: Final = {
    "AUDIT_MALFORMED": "This is no entry of an audit log, or not in its place; it was left out of the log.",
    "AUDIT_SIGNATURE": "Its writer did not sign this; it was left out of the log.",
    "AUDIT_CHAIN": "This does not continue its writer's chain; it was left out of the log.",
    "AUDIT_SQUATTED": "Another entry has this number already; this one was left out of the log.",
}


@dataclass(frozen=True)
class Integration:
    """What one run did.

    Attributes:
        inbox: Location of the inbox.
        log: Location of the log.
        log_key: The log's verifier key, for those who verify it.
        added: Entries that this run added.
        size: Entries of the log now.
        root: Its root, in hex.
        findings: What was left out, each reported once by one of the runs.
        more_findings: How many more there are.
        witnesses: Names of the given witnesses whose cosignature the checkpoint bears.
        waiting: What could not be taken, because the entry before it is not in the inbox; a finding says so, too.
    """

    inbox: str
    log: str
    log_key: str
    added: int
    size: int
    root: str
    findings: tuple[Finding, ...] = ()
    more_findings: int = 0
    witnesses: tuple[str, ...] = ()
    waiting: Waiting = field(default_factory=Waiting)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "inbox": self.inbox,
            "log": self.log,
            "log_key": self.log_key,
            "added": self.added,
            "size": self.size,
            "root": self.root,
            "findings": [finding.as_dict() for finding in self.findings],
            "more_findings": self.more_findings,
            "witnesses": list(self.witnesses),
            "waiting": self.waiting._asdict(),
        }


def integrate_audit_log(
    inbox: str | None = None,
    log: str | None = None,
    *,
    signer: str | KeySigner,
    origin: str,
    witnesses: Sequence[str | Witness] = (),
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    progress: Callable[[int], object] | None = None,
) -> Integration:
    """Bring everything that waits in an inbox into its log. Any number of processes may do so at once, and be killed.

    What is no entry, not signed by its writer or does not continue its chain is left out and reported.

    Args:
        inbox: Location of the inbox, by default that of the settings.
        log: Location of the log, a folder or in S3, by default that of the settings. Begun where there is none.
        signer: The log's key, Ed25519: no writer may be able to use it.
        origin: The log's name, such as ``example.com/audit``.
        witnesses: Who cosigns the checkpoint, as ``<url>=<verifier key>``. One that does not is a finding.
        passphrase: Asks for the passphrase of a key file.
        storages: Finds the storage.
        progress: Called with the log's size after each checkpoint.

    Raises:
        UsageError: A place is missing, or the key is not Ed25519.
        EvidenceError: The log is not as it was left, or was not made from this inbox; nothing was signed. Or a witness
            knows another history.
        UnavailableError: Inbox, log or key are out of reach; another run goes on.
    """
    settings = context.current().settings
    where, into = inbox or settings.audit_inbox, log or settings.audit_log
    if not where:
        raise UsageError("No inbox is named.", next_step="Name it with --inbox or the setting audit_inbox.")
    if not into:
        raise UsageError("No log is named.", next_step="Name it with --log or the setting audit_log.")
    asked = [Witness.parse(item) if isinstance(item, str) else item for item in witnesses]
    key = load_signer(signer, passphrase) if isinstance(signer, str) else signer
    storages = storages or Storages()
    store = open_log(into, storages)
    opened = open_inbox(where, storages)
    try:
        done = integrate(opened, store, key, origin, progress=progress)
    finally:
        opened.close()
    verifier = VerifierKey.of(key, origin)
    silent = ask_witnesses(store, verifier, asked)
    refused = opened.refusals
    return Integration(
        opened.uri,
        store.uri,
        str(verifier),
        done.added,
        done.size,
        done.root.hex(),
        (
            *(_unwitnessed(name, error) for name, error in silent.items()),
            *_left(done.waiting),
            *map(_finding, refused[:MAX_FINDINGS]),
        ),
        max(0, len(refused) - MAX_FINDINGS),
        tuple(witness.key.name for witness in asked if witness.key.name not in silent),
        done.waiting,
    )


def _finding(refusal: Refusal) -> Finding:
    return Finding(refusal.code, "warning", refusal.where, _MESSAGES[refusal.code])


def _left(waiting: Waiting) -> tuple[Finding, ...]:
    if not waiting.entries:
        return ()
    came = f", in the inbox since {waiting.since}" if waiting.since else ""
    message = (
        f"{waiting.entries} entries are not in the log: they wait for one before them in their chains that the inbox "
        f"does not hold. This is one of them{came}."
    )
    return (Finding("AUDIT_WAITING", "warning", waiting.oldest, message),)


def _unwitnessed(name: str, error: SealflowError) -> Finding:
    return Finding("LOG_UNWITNESSED", "warning", name, error.message, next_step=error.next_step)
