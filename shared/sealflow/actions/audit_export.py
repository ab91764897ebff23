"""Export: the audit log's events for other systems, each with its way back to the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.audit_opening import log_and_key, read_checkpoint
from sealflow.actions.audit_review import parse_time
from sealflow.actions.audit_scan import scan_all
from sealflow.actions.audit_vouchers import vouchers_for
from sealflow.audit import AuditEvent
from sealflow.audit.checkpoint import SignedCheckpoint
from sealflow.audit.entry import leaf_hash, parse_entry
from sealflow.audit.log import LogStore
from sealflow.audit.note import VerifierKey
from sealflow.audit.ocsf import malformed_to_ocsf, to_ocsf
from sealflow.audit.reading import entries
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow.storage import Storages
from sealflow.verification.accesses import microseconds
from sealflow.verification.audit_log import Demands, judge
from sealflow.verification.vouching import Speakers

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

Form = Literal["jsonl", "ocsf"]
FORMS: Final[tuple[str, ...]] = get_args(Form)


@dataclass(frozen=True, slots=True)
class Exported:
    """One exported entry.

    Attributes:
        index: Its number in the log.
        line: Canonical JSON, without a line end.
        malformed: Whether its event could not be read; the line then says so.
    """

    index: int
    line: bytes
    malformed: bool


def export_events(
    log: str | None = None,
    *,
    key: str | None = None,
    form: Form = "jsonl",
    since: str | None = None,
    until: str | None = None,
    start: int = 0,
    identities: Any = None,
    policy: str | CompiledPolicy | None = None,
    storages: Storages | None = None,
) -> Iterator[Exported]:
    """Yield the log's events one by one, in bounded memory.

    The log is read twice: its entries must lead to its signed root before the first event is given away, and again,
    so that nobody changes them in between. Each event says whether somebody vouches for its writer; where somebody is
    named who may, the writers' chains and their signatures are checked, too, and what stands in one that does not
    hold is claimed.

    Args:
        log: Location of the log, by default the settings'.
        key: The log's verifier key or the path of a file that holds it, by default the settings'.
        form: ``jsonl``: the event with its index, leaf hash and writer; ``ocsf``: OCSF 1.8 API Activity.
        since: Begin of the period, by the writers' clocks; a date or an RFC 3339 time. Open by default.
        until: End of the period, which it does not hold. Open by default.
        start: The first index, for what continues an earlier export.
        identities: Who may vouch for writers, see :func:`~sealflow.actions.audit_vouchers.vouchers_for`.
        policy: One more policy, whose identities may.
        storages: Opens the log.

    Raises:
        EvidenceError: ``LOG_…``: the log does not verify.
        PolicyError: The policy cannot be taken.
        UsageError: An argument cannot work.
        UnavailableError: The log cannot be read.
    """
    if form not in FORMS:
        raise UsageError(f"The form {printable(form, 60)!r} is unknown; known: {', '.join(FORMS)}.")
    if start < 0:
        raise UsageError("Entries are counted from 0.")
    low = parse_time(since, "since") if since else None
    high = parse_time(until, "until") if until else None
    surroundings = context.current()
    store, verifier = log_and_key(log, key, surroundings, storages or Storages())
    vouchers = vouchers_for(surroundings, identities, policy)
    signed = read_checkpoint(store, verifier)
    checkpoint = signed.checkpoint
    unsound: frozenset[str] = frozenset()
    if vouchers is None:
        for _ in entries(store.get, checkpoint):
            pass
    else:
        unsound = _unsound(store, verifier, signed)
    speakers = Speakers(vouchers, unsound)
    for index, line in enumerate(entries(store.get, checkpoint)):
        try:
            entry = parse_entry(line)
            event = AuditEvent.parse(entry.event)
        except EvidenceError as error:
            # Whatever it was about, the reader must see that it is there.
            if index >= start:
                yield Exported(index, strictjson.dumps(_malformed(form, checkpoint.origin, index, line, error)), True)
            continue
        # Also what is left out can say who its chain is.
        said = speakers.of(entry, event)
        if index < start:
            continue
        time = microseconds(event.time)
        if (low is not None and time < low) or (high is not None and time >= high):
            continue
        if form == "ocsf":
            body = to_ocsf(entry, event, index, checkpoint.origin, said)
        else:
            body = {
                "sealflow_audit_export": 1,
                "log": checkpoint.origin,
                "index": index,
                "leaf_hash": entry.hash,
                "writer": entry.writer,
                "n": entry.n,
                **said,
                "event": event.as_dict(),
            }
        yield Exported(index, strictjson.dumps(body), False)


def _unsound(store: LogStore, key: VerifierKey, signed: SignedCheckpoint) -> frozenset[str]:
    """Return the writers whose chains do not hold: a vouch is for all that its writer signed, and for nothing else.

    Raises:
        EvidenceError: ``LOG_…``: the log itself does not hold.
        UnavailableError: The log cannot be read.
    """
    report = judge(store.get, store.uri, Demands(key), signed, scan_all(store, signed.checkpoint.size))
    for item in report.verdict.findings:
        if item.severity == "refusal" and item.code.startswith("LOG_"):
            raise EvidenceError(item.message, code=item.code)
    return report.unsound


def _malformed(form: Form, origin: str, index: int, line: bytes, error: EvidenceError) -> dict[str, Any]:
    found = {"log": origin, "index": index, "leaf_hash": leaf_hash(line), "malformed": error.message}
    if form == "jsonl":
        return {"sealflow_audit_export": 1, **found}
    return malformed_to_ocsf(found)
