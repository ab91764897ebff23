"""Verify a whole audit log, remember what was seen of it, and have its checkpoint cosigned by witnesses."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sealflow.actions import context
from sealflow.actions.audit_opening import log_and_key
from sealflow.actions.audit_scan import scan_all
from sealflow.actions.audit_vouchers import vouchers_for
from sealflow.actions.recording import Recording
from sealflow.audit.checkpoint import NAME, open_checkpoint
from sealflow.audit.event import utc_now
from sealflow.audit.log import LogStore
from sealflow.audit.note import COSIGNATURE, MAX_NOTE, VerifierKey, load_verifier_key
from sealflow.audit.witness import Witness, cosign
from sealflow.errors import EvidenceError, SealflowError, UnavailableError, UsageError, VerificationError
from sealflow.findings import CODES, Finding, Severity, Verdict, conclude, printable
from sealflow.storage import Storages
from sealflow.storage.files import errors
from sealflow.storage.local import LocalStorage, replace_file
from sealflow.verification.audit_log import GRACE, Demands, LogReport, verify_log
from sealflow.verification.vouching import Vouchers

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

_HISTORY = frozenset({"LOG_MISSING", "LOG_CHECKPOINT", "LOG_FORKED", "LOG_ROLLED_BACK", "LOG_TRUNCATED", "LOG_ALTERED"})


@dataclass(frozen=True)
class History:
    """What a log is held against beside itself: what was seen of it before, kept elsewhere, and cosigned.

    Attributes:
        key: The log's verifier key.
        kept: Checkpoints that were kept elsewhere, each with its location.
        witnesses: Keys of witnesses that count.
        quorum: How many of them must have cosigned.
    """

    key: VerifierKey
    kept: tuple[tuple[str, bytes], ...] = ()
    witnesses: tuple[VerifierKey, ...] = ()
    quorum: int = 0

    @classmethod
    def of(
        cls,
        key: VerifierKey,
        checkpoints: Iterable[str],
        witnesses: Iterable[str],
        quorum: int | None,
        storages: Storages,
    ) -> History:
        """Read what the arguments name.

        Args:
            key: The log's verifier key.
            checkpoints: Locations of checkpoints that were kept elsewhere.
            witnesses: Verifier keys of witnesses, or paths.
            quorum: How many of them must have cosigned, by default all.
            storages: Finds storage.

        Raises:
            UsageError: An argument cannot work.
            UnavailableError: A checkpoint or a key cannot be read.
        """
        if isinstance(checkpoints, str) or isinstance(witnesses, str):
            raise UsageError("Checkpoints and witnesses are given as lists.")
        named = witness_keys(witnesses)
        wanted = quorum_of(named, quorum)
        kept = []
        for name in checkpoints:
            data = storages.for_uri(name).get(name, MAX_NOTE)
            if data is None:
                raise UsageError(f"There is no checkpoint at {printable(name)}.")
            kept.append((name, data))
        return cls(key, tuple(kept), named, wanted)

    def check(self, store: LogStore, *, must_remember: bool = True, **demands: Any) -> LogReport:
        """Re-compute a whole log, and remember its checkpoint where that grew out of the one that was seen last.

        The one way in which logs are checked here: whoever only reviews a log remembers it as well.

        Args:
            store: The log.
            must_remember: The report is ``unverifiable`` where the checkpoint cannot be kept for the next time.
                Otherwise a warning says so (``LOG_UNREMEMBERED``): in a pod there may be no place for it, and no next
                time.
            demands: Members of :class:`~sealflow.verification.audit_log.Demands`.

        Raises:
            UnavailableError: The log cannot be read, or what is remembered of it.
        """
        path = seen_path(self.key)
        files = LocalStorage()
        with _alone(path):
            seen = files.get(path, MAX_NOTE)
            known = [] if seen is None else [("the checkpoint seen last", seen)]
            held = Demands(self.key, [*known, *self.kept], self.witnesses, self.quorum, **demands)
            report = verify_log(store.get, store.uri, held, lambda size: scan_all(store, size, held.vouchers))
            if report.note is not None and not _HISTORY & report.counts.keys() and report.note != seen:
                try:
                    replace_file(path, report.note, 0o600)
                except SealflowError as error:
                    severity: Severity = "unverifiable" if must_remember else "warning"
                    report = _with(report, [Finding("LOG_UNREMEMBERED", severity, store.uri, error.message)])
        return report


def verify_audit_log(
    log: str | None = None,
    key: str | None = None,
    *,
    checkpoints: Iterable[str] = (),
    witnesses: Iterable[str] = (),
    quorum: int | None = None,
    identities: Any = None,
    policy: str | CompiledPolicy | None = None,
    vouched: bool = False,
    accept_gaps: Iterable[str] = (),
    grace: datetime.timedelta = GRACE,
    strict: bool = True,
    storages: Storages | None = None,
) -> LogReport:
    """Re-compute a whole log, and hold it against the last checkpoint of it that was verified on this machine.

    That one is kept in :func:`seen_path`, and replaced by the new one only where the new one grew out of it.

    Args:
        log: Where the log lies, by default the settings' ``audit_log``.
        key: Its verifier key or the path of a file that holds it, by default the settings' ``audit_log_key``.
        checkpoints: Locations of checkpoints of the log that were kept elsewhere; it must have grown out of each.
        witnesses: Verifier keys of witnesses, or paths.
        quorum: How many of them must have cosigned, by default all.
        identities: Who may vouch for writers, see :func:`~sealflow.actions.audit_vouchers.vouchers_for`.
        policy: One more policy, whose identities may, a draft's path or a policy already read.
        vouched: Refuse chains for whose writer nobody vouches.
        accept_gaps: Writer ids of chains whose missing end, or bad vouch, was looked into.
        grace: How long a chain may be without its end.
        strict: Raise when the verdict is not ``passed``. Otherwise it is only reported.
        storages: Finds storage.

    Raises:
        VerificationError: ``strict``, and the verdict is not ``passed``.
        UsageError: An argument cannot work.
        PolicyError: The policy cannot be taken.
        UnavailableError: The audit event cannot be written.
    """
    surroundings = context.current()
    storages = storages or Storages()
    store, verifier = log_and_key(log, key, surroundings, storages)
    history = History.of(verifier, checkpoints, witnesses, quorum, storages)
    silent: list[Finding] = []
    vouchers: Vouchers | None = None
    try:
        vouchers = vouchers_for(surroundings, identities, policy)
    except UnavailableError as error:
        # The log itself is looked at even so: what is wrong with it must not wait for a policy.
        silent.append(_unavailable(error, "who may vouch"))
    else:
        demand_vouchers(vouchers, vouched)
    now = utc_now()
    with Recording("audit_verify", store.uri, surroundings) as recording:
        try:
            report = history.check(
                store, gaps=frozenset(accept_gaps), grace=grace, now=now, vouchers=vouchers, vouched=vouched
            )
        except UnavailableError as error:
            silent.append(_unavailable(error, store.uri))
            checked_at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
            report = LogReport(Verdict("unverifiable", store.uri, checked_at=checked_at))
        if silent:
            report = _with(report, silent)
        recording.judged(report.verdict)
    if strict and not report.verdict.passed:
        raise VerificationError(report.verdict)
    return report


def demand_vouchers(vouchers: Vouchers | None, vouched: bool) -> None:
    """Refuse to demand that somebody vouches where nobody is named who may.

    Raises:
        UsageError: So it is.
    """
    if vouched and vouchers is None:
        raise UsageError(
            "That writers are vouched for is demanded, and nobody is named who may vouch.",
            next_step="Name the key of the deployment's `audit_signer` in `identities`, or give a policy that does.",
        )


def _with(report: LogReport, more: Sequence[Finding]) -> LogReport:
    status, findings = conclude([*report.verdict.findings, *more])
    return replace(report, verdict=replace(report.verdict, status=status, findings=findings))


def _unavailable(error: UnavailableError, subject: str) -> Finding:
    code = error.code if error.code in CODES else "BACKEND_UNAVAILABLE"
    return Finding(code, "unverifiable", subject, error.message, next_step=error.next_step)


@contextlib.contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keep others who verify the same log waiting: who began earlier must not set back what the other one remembers."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        # What cannot be locked cannot be replaced either, which is said where it has to be.
        yield
        return
    try:
        with errors(path):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def witness_keys(sources: Iterable[str]) -> tuple[VerifierKey, ...]:
    """Return the verifier keys of witnesses.

    Raises:
        UsageError: One is none, or of a kind that makes no cosignatures.
        UnavailableError: A file cannot be read.
    """
    found = tuple(load_verifier_key(source) for source in sources)
    for key in found:
        if key.kind != COSIGNATURE:
            raise UsageError(f"The key of {key.name} makes no cosignatures (type 04).", code="KEY_UNSUPPORTED")
    return found


def quorum_of(witnesses: Sequence[VerifierKey], quorum: int | None) -> int:
    """Return how many witnesses must have cosigned, by default all; each key counts once.

    Raises:
        UsageError: There are not so many.
    """
    most = len({key.raw for key in witnesses})
    if quorum is None:
        return most
    if not 0 <= quorum <= most:
        raise UsageError(f"A quorum of {quorum} cannot be had of {most} witnesses.")
    return quorum


def seen_path(key: VerifierKey) -> str:
    """Return where the last verified checkpoint of a log is kept: ``$XDG_STATE_HOME/sealflow/audit/seen/…``.

    One file for each log *key*, wherever the log lies: a copy elsewhere is the same log or a fork of it.
    """
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    name = hashlib.sha256(str(key).encode()).hexdigest()
    return os.path.join(state, "sealflow", "audit", "seen", f"{name}.{NAME}")


def witness_log(
    witnesses: Sequence[str],
    log: str | None = None,
    key: str | None = None,
    *,
    storages: Storages | None = None,
) -> dict[str, int]:
    """Have witnesses cosign the log's checkpoint, and put their cosignatures under it.

    Args:
        witnesses: Each ``<url>=<verifier key>``.
        log: Where the log lies, by default the settings' ``audit_log``.
        key: Its verifier key or the path of a file that holds it, by default the settings' ``audit_log_key``.
        storages: Finds storage.

    Returns:
        Names of those that cosigned, and when, in seconds since 1970.

    Raises:
        EvidenceError: ``LOG_MISSING``; and what :func:`~sealflow.audit.witness.cosign` raises.
        UsageError: An argument cannot work; a witness does not know the log.
        UnavailableError: A witness does not answer, the log cannot be read, or integrators are always faster.
    """
    asked = [Witness.parse(text) for text in witnesses]
    surroundings = context.current()
    store, verifier = log_and_key(log, key, surroundings, storages or Storages())
    keys = [witness.key for witness in asked]
    with Recording("audit_witness", store.uri, surroundings) as recording:
        for _ in range(4):
            data = store.get(NAME, MAX_NOTE)
            if data is None:
                raise EvidenceError(f"No checkpoint lies in {store.uri}.", code="LOG_MISSING")
            signed = open_checkpoint(data, verifier)
            note = signed.note
            for witness in asked:
                note = cosign(store.get, signed.checkpoint, note, witness)
            if store.swap_checkpoint(data, note.encode()):
                recording.done("")
                return open_checkpoint(note.encode(), verifier, keys).witnesses
    raise UnavailableError("The log grows faster than its witnesses cosign.", next_step="Try again.")
