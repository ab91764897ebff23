"""Prove an event to an auditor, and check such a proof."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.audit_opening import log_and_key
from sealflow.actions.audit_verify import quorum_of, witness_keys
from sealflow.actions.recording import Recording
from sealflow.audit import merkle
from sealflow.audit.checkpoint import NAME, Checkpoint, open_checkpoint
from sealflow.audit.entry import MAX_ENTRY, parse_entry
from sealflow.audit.log import LogStore
from sealflow.audit.note import MAX_NOTE, VerifierKey, load_verifier_key
from sealflow.audit.proof import MAX_PROOF, SUFFIX, Proof
from sealflow.audit.reading import entries
from sealflow.audit.tiles import Get, Tree
from sealflow.errors import EvidenceError, UsageError, VerificationError
from sealflow.findings import Verdict, printable
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage, replace_file
from sealflow.verification.audit_proof import judge_proof

#: Names in the folder of a proof.
ENTRY_SUFFIX = ".entry"
KEY_FILE = "log.vkey"


@dataclass(frozen=True)
class Proved:
    """One proved event.

    Attributes:
        index: Of its entry in the log.
        event: The event; empty where the entry holds none.
        files: What was written: the entry as it was hashed, the proof, the log's key.
    """

    index: int
    event: dict[str, object]
    files: tuple[str, ...]


def prove_event(
    destination: str,
    log: str | None = None,
    key: str | None = None,
    *,
    index: int | None = None,
    event: str | None = None,
    correlation: str | None = None,
    overwrite: bool = False,
    storages: Storages | None = None,
) -> list[Proved]:
    """Write what proves events to somebody who has nothing but the log's key from a source that he trusts.

    For each event ``<index>.entry``, the bytes that were hashed, and ``<index>.tlog-proof`` (C2SP tlog-proof), which
    carries the entry along; and ``log.vkey``, the log's verifier key.

    Args:
        destination: Folder for the files.
        log: Where the log lies, by default the settings' ``audit_log``.
        key: Its verifier key or the path of a file that holds it, by default the settings' ``audit_log_key``.
        index: The entry's index in the log. Exactly one of these three has to be given.
        event: The event's id; the whole log is searched.
        correlation: What joins intents with their outcomes: all these events are proved.
        overwrite: Replace files of these names that hold something else.
        storages: Finds storage.

    Raises:
        EvidenceError: ``LOG_MISSING``: there is no log, or no such event in it; ``LOG_CHECKPOINT``, ``LOG_ALTERED``,
            ``LOG_TRUNCATED``: the log is not what its key signed.
        UsageError: Not exactly one event was named; or a file lies there that holds something else.
        UnavailableError: The log cannot be read, or the files cannot be written.
    """
    named = {name: value for name, value in {"id": event, "correlation": correlation}.items() if value}
    if len(named) + (index is not None) != 1:
        raise UsageError("Name the event by one of index, event id and correlation.")
    surroundings = context.current()
    store, verifier = log_and_key(log, key, surroundings, storages or Storages())
    with Recording("audit_prove", store.uri, surroundings) as recording:
        note, checkpoint = _checkpoint(store, verifier)
        tree = Tree(store.get, checkpoint.size)
        if index is not None:
            found = [index] if 0 <= index < checkpoint.size else []
        else:
            found = list(_search(store.get, checkpoint, *next(iter(named.items()))))
        if not found:
            raise EvidenceError(
                f"The log of {checkpoint.size} entries has no such event.",
                code="LOG_MISSING",
                next_step="Check the id; or integrate first: sealflow audit integrate.",
            )
        folder = os.path.abspath(destination)
        proved = []
        for number in found:
            proof = prove_entry(tree, checkpoint, note, number)
            line = proof.extra
            names = {f"{number}{ENTRY_SUFFIX}": line, f"{number}{SUFFIX}": proof.encode()}
            names[KEY_FILE] = f"{verifier}\n".encode()
            written = {os.path.join(folder, name): content for name, content in names.items()}
            for path, content in written.items():
                if not overwrite and _other(path, content):
                    raise UsageError(
                        f"{printable(path)} holds something else already.",
                        next_step="Choose another folder, or give --overwrite.",
                    )
            for path, content in written.items():
                replace_file(path, content)
            files = tuple(written)
            proved.append(Proved(number, _body(line), files))
        recording.done("")
    return proved


def proof_at(index: int, store: LogStore, key: VerifierKey) -> Proof:
    """Return the proof of the entry at an index, which carries the entry along. Nothing is written or recorded.

    Raises:
        EvidenceError: ``LOG_MISSING``: there is no log, or no such entry in it; ``LOG_CHECKPOINT``, ``LOG_ALTERED``,
            ``LOG_TRUNCATED``: the log is not what its key signed.
        UnavailableError: The log cannot be read.
    """
    note, checkpoint = _checkpoint(store, key)
    if not 0 <= index < checkpoint.size:
        raise EvidenceError(f"The log of {checkpoint.size} entries has no entry {index}.", code="LOG_MISSING")
    return prove_entry(Tree(store.get, checkpoint.size), checkpoint, note, index)


def _checkpoint(store: LogStore, key: VerifierKey) -> tuple[bytes, Checkpoint]:
    note = store.get(NAME, MAX_NOTE)
    if note is None:
        raise EvidenceError(f"No checkpoint lies in {printable(store.uri)}.", code="LOG_MISSING")
    return note, open_checkpoint(note, key).checkpoint


def prove_entry(tree: Tree, checkpoint: Checkpoint, note: bytes, index: int) -> Proof:
    """Return the proof of an entry of an opened log, which carries the entry along.

    Raises:
        EvidenceError: ``LOG_ALTERED``, ``LOG_TRUNCATED``: the log is not what its key signed.
        UnavailableError: The log cannot be read.
    """
    line = tree.entry(index)
    proof = Proof(index, tuple(tree.inclusion_proof(index)), note, line)
    if not merkle.is_included(index, checkpoint.size, merkle.leaf_hash(line), proof.hashes, checkpoint.root):
        raise EvidenceError(
            f"The log's tiles do not lead from entry {index} to the root that its key signed.", code="LOG_ALTERED"
        )
    return proof


def _other(path: str, content: bytes) -> bool:
    if not os.path.lexists(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(content) + 1) != content
    except OSError:
        return True


def _search(get: Get, checkpoint: Checkpoint, member: str, value: str) -> Iterator[int]:
    """Yield the indices of events; whoever altered the log so that none is found is found instead."""
    needle = strictjson.dumps({member: value})[1:-1]
    for index, line in enumerate(entries(get, checkpoint)):
        if needle in line and _body(line).get(member) == value:
            yield index


def _body(line: bytes) -> dict[str, object]:
    """Return the event of an entry; empty where it holds none, for anybody may write an id into nonsense."""
    try:
        body: dict[str, object] = strictjson.loads(parse_entry(line).event, limit=MAX_ENTRY, what="The event")
    except EvidenceError:
        return {}
    return body


def check_proof(
    path: str,
    key: str,
    *,
    entry: str | None = None,
    witnesses: Iterable[str] = (),
    quorum: int | None = None,
    strict: bool = True,
) -> tuple[Verdict, dict[str, object]]:
    """Check a proof offline, and return the verdict and the event that it proves (empty where it proves none).

    Args:
        path: The proof's file.
        key: The log's verifier key, or the path of a file that holds it. From a source that is trusted: the one that
            lies beside the proof is whose word the proof is.
        entry: File with the entry, by default the one that the proof carries along.
        witnesses: Verifier keys of witnesses, or paths.
        quorum: How many of them must have cosigned, by default all.
        strict: Raise when the verdict is not ``passed``.

    Raises:
        VerificationError: ``strict``, and the verdict is not ``passed``.
        UsageError: An argument cannot work.
        UnavailableError: A file cannot be read.
    """
    named = witness_keys(witnesses)
    wanted = quorum_of(named, quorum)
    read = _reader(LocalStorage())
    line = None if entry is None else read(entry, MAX_ENTRY)
    verdict, found = judge_proof(
        read(path, MAX_PROOF), path, load_verifier_key(key), line=line, witnesses=named, quorum=wanted
    )
    if strict and not verdict.passed:
        raise VerificationError(verdict)
    return verdict, {} if found is None else _body(found.line)


def _reader(files: LocalStorage) -> Callable[[str, int], bytes]:
    def read(path: str, limit: int) -> bytes:
        data = files.get(path, limit)
        if data is None:
            raise UsageError(f"There is no file at {printable(path)}.")
        return data

    return read
