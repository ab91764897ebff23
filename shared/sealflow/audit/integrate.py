"""From an inbox into the log: what has its index is appended, in that order, and then vouched for.

1. The inbox fixes the order of what came in (``sequence``). It is fixed for ever, before any tile is written.
2. What lies beyond the log's checkpoint is appended. Tiles and bundles follow from the order alone, so whoever writes
   them writes the same bytes, wherever another one died or still works. They are only ever created.
3. The checkpoint is replaced last, if it is still the one that was built upon. Who comes second begins again.

A checkpoint is signed only over one of our own: the one before has to bear our signature, and the tiles that are read
have to lead to its root. The first one is signed while there is no tile, so tiles without a checkpoint mean that
somebody removed it, and nothing is signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sealflow.audit import merkle, tiles
from sealflow.audit.append import append
from sealflow.audit.checkpoint import NAME, Checkpoint, open_checkpoint, sign_checkpoint
from sealflow.audit.inbox import Inbox, Waiting, forked
from sealflow.audit.log import LogStore
from sealflow.audit.note import MAX_NOTE, VerifierKey
from sealflow.audit.witness import Witness, cosign
from sealflow.errors import EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys import KeySigner

#: Most entries that one checkpoint adds, and about how many bytes. Each checkpoint costs some waits for the disk.
BATCH: Final = 16_384
BATCH_BYTES: Final = 64 << 20

# Most entries that are asked for at once: 64 MiB where each is as large as can be.
_PIECE = 1024
_SEQUENCE = 4096

#: How sure it is that an entry stays: durable with its writer or in the inbox; its index is fixed; a checkpoint of the
#: log includes it; somebody outside cosigned such a checkpoint.
Level = Literal["spooled", "sequenced", "included", "witnessed"]
LEVELS: Final[tuple[Level, ...]] = ("spooled", "sequenced", "included", "witnessed")


@dataclass(frozen=True)
class Integrated:
    """What one run did.

    Attributes:
        added: Entries that this run added to the log; others may have added more meanwhile.
        size: Entries of the log at the end.
        root: Its root.
        waiting: What was left because the entry before it is not there.
    """

    added: int
    size: int
    root: bytes
    waiting: Waiting = field(default_factory=Waiting)


def integrate(
    inbox: Inbox,
    log: LogStore,
    signer: KeySigner,
    origin: str,
    *,
    batch: int = BATCH,
    progress: Callable[[int], object] | None = None,
) -> Integrated:
    """Bring everything that can be taken from an inbox into its log. Any number of processes may do so at once.

    Args:
        inbox: Where writers put their entries.
        log: A log that is fed from this inbox alone; a new one is begun where there is none.
        signer: The log's key, Ed25519.
        origin: The log's name, which stands in its checkpoints and its verifier key.
        batch: Most entries that one checkpoint adds.
        progress: Called with the size after each checkpoint.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``, ``LOG_ALTERED``, ``LOG_TRUNCATED``: the log is not as we left it;
            ``LOG_FORKED``: it was not made from this inbox.
        UnavailableError: Inbox, log or key are out of reach. What was done stays; the next run goes on.
        UsageError: The key is not Ed25519, or the origin is none.
    """
    key = VerifierKey.of(signer, origin)
    old, state = _begin(inbox, log, signer, key)
    _demand_same_history(inbox, log, state)
    added = 0
    while True:
        moved = inbox.sequence(_SEQUENCE)
        while moved and moved % _SEQUENCE == 0 and moved < batch and (more := inbox.sequence(_SEQUENCE)):
            moved += more
        try:
            lines = _lines(inbox, state.size, batch)
        except SealflowError:
            # Another one was faster, and the inbox keeps nothing for those who come late.
            if log.get(NAME, MAX_NOTE) == old:
                raise
            old, state = _read(log, key)
            continue
        if lines:
            appended = append(log.get, state.size, lines, root=state.root)
            log.create_all(appended.objects)
            grown = Checkpoint(origin, appended.size, appended.root)
            new = sign_checkpoint(grown, signer)
            if log.swap_checkpoint(old, new):
                inbox.published(state.size, grown.size)
                added += len(lines)
                old, state = new, grown
                if progress is not None:
                    progress(grown.size)
                continue
            old, state = _read(log, key)
        elif not moved:
            return Integrated(added, state.size, state.root, inbox.waiting())


def ask_witnesses(log: LogStore, key: VerifierKey, witnesses: Sequence[Witness]) -> dict[str, SealflowError]:
    """Have the log's published checkpoint cosigned, and publish it with the cosignatures.

    It is published first without: a witness that knew of more than is published would take the next integrator's
    checkpoint for a step back.

    Args:
        log: The log.
        key: The log's.
        witnesses: Who is asked; only those are whose cosignature it does not bear.

    Returns:
        For each witness, by name, that did not cosign, why: it cannot be reached, or does not know the log.

    Raises:
        EvidenceError: ``LOG_FORKED``, ``LOG_ROLLED_BACK``, ``LOG_CHECKPOINT``: a witness knows another history.
        UnavailableError: The log cannot be read or written.
    """
    while True:
        data = log.get(NAME, MAX_NOTE)
        if data is None:
            return {}
        signed = open_checkpoint(data, key, [witness.key for witness in witnesses])
        note = signed.note
        silent: dict[str, SealflowError] = {}
        for witness in witnesses:
            if note.by(witness.key):
                continue
            try:
                note = cosign(log.get, signed.checkpoint, note, witness)
            except (UnavailableError, UsageError) as error:
                silent[witness.key.name] = error
            except EvidenceError:
                # It may know of what another integrator published meanwhile.
                if log.get(NAME, MAX_NOTE) == data:
                    raise
                break
        else:
            if note == signed.note or log.swap_checkpoint(data, note.encode()):
                return silent


def level_of(
    writer: str,
    n: int,
    inbox: Inbox,
    log: LogStore | None = None,
    key: VerifierKey | None = None,
    witnesses: Sequence[VerifierKey] = (),
) -> Level:
    """Tell how far an entry got that is durable with its writer or in the inbox.

    That it is included means that a checkpoint with the log's signature covers its index; that the tree holds just this
    entry there is for a proof to show.

    Args:
        writer: Its writer.
        n: Its number.
        inbox: The inbox into which it goes.
        log: The log, where more than ``sequenced`` is of interest.
        key: Of the log.
        witnesses: Keys of witnesses; one that cosigned is enough here.

    Raises:
        EvidenceError: ``LOG_CHECKPOINT``: the checkpoint is not the log's.
        UnavailableError: Inbox or log are out of reach.
    """
    index = inbox.index_of(writer, n)
    if index is None:
        return "spooled"
    data = log.get(NAME, MAX_NOTE) if log is not None and key is not None else None
    if data is None or key is None:
        return "sequenced"
    signed = open_checkpoint(data, key, witnesses)
    if signed.checkpoint.size <= index:
        return "sequenced"
    return "witnessed" if signed.witnesses else "included"


def _begin(inbox: Inbox, log: LogStore, signer: KeySigner, key: VerifierKey) -> tuple[bytes, Checkpoint]:
    """Return the checkpoint to build upon; that of an empty log is published first where there is none."""
    if log.get(NAME, MAX_NOTE) is None:
        widths = range(1, min(tiles.WIDTH, inbox.size() + 1))
        for name in [tiles.tile_name(0, 0), *(tiles.tile_name(0, 0, width) for width in widths)]:
            if log.get(name, tiles.MAX_TILE) is not None:
                # It may have come meanwhile, from another integrator.
                if log.get(NAME, MAX_NOTE) is not None:
                    break
                raise EvidenceError(
                    f"The log {printable(log.uri)} has tiles and no checkpoint.",
                    code="LOG_TRUNCATED",
                    next_step="Restore the checkpoint from a copy; somebody removed it.",
                )
        else:
            log.swap_checkpoint(None, sign_checkpoint(Checkpoint(key.name, 0, merkle.EMPTY_ROOT), signer))
    return _read(log, key)


def _read(log: LogStore, key: VerifierKey) -> tuple[bytes, Checkpoint]:
    data = log.get(NAME, MAX_NOTE)
    if data is None:
        raise EvidenceError(
            f"The checkpoint of the log {printable(log.uri)} vanished.",
            code="LOG_TRUNCATED",
            next_step="Restore the checkpoint from a copy; somebody removed it.",
        )
    return data, open_checkpoint(data, key).checkpoint


def _demand_same_history(inbox: Inbox, log: LogStore, state: Checkpoint) -> None:
    """Refuse an inbox that another log was made from, by the last entry that both have.

    Raises:
        EvidenceError: ``LOG_FORKED``.
    """
    if not state.size:
        return
    number, at = divmod(state.size - 1, tiles.WIDTH)
    leaf = tiles.Tree(log.get, state.size).tile(0, number)[at].hex()
    if inbox.last_hash(state.size) != leaf:
        raise forked(inbox.uri, f"entry {state.size - 1} is another one in {printable(log.uri)}")


def _lines(inbox: Inbox, start: int, batch: int) -> list[bytes]:
    lines: list[bytes] = []
    size = 0
    while len(lines) < batch and size < BATCH_BYTES:
        more = inbox.sequenced(start + len(lines), min(_PIECE, batch - len(lines)))
        if not more:
            break
        lines += more
        size += sum(map(len, more))
    return lines
