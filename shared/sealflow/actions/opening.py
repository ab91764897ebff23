"""The process beside a walk: reads evidence from stores of this machine and opens it, as it is told on a pipe.

Frames on the pipes are a length of eight bytes and what :mod:`marshal` makes of tuples and texts: both ends are the
same installation, and nobody else writes to these pipes. A process knows no rules and judges nothing.
"""

from __future__ import annotations

import gc
import marshal
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final

from sealflow._version import __version__
from sealflow.actions.gathering import EvidenceReader
from sealflow.collector import rare_collection
from sealflow.evidence.own_provenance import Digests
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import Finding
from sealflow.hashing import Digest
from sealflow.keys.public import PublicKey, parse_public_key
from sealflow.storage import Storages
from sealflow.verification.assess import WITH_SUMMARIES, Gathered
from sealflow.verification.opening import Claim, open_plainly, understand_plain

#: First frame of a process: it is up, and of this installation.
HELLO: Final = ("sealflow", __version__)

#: Most bytes of evidence in one answer. What is beyond is left to the walk, which holds one artifact's at a time.
MAX_ANSWER: Final = 4 << 20

_HEAD: Final = 8


def frame(value: Any) -> bytes:
    """Return a value as one frame."""
    data = marshal.dumps(value)
    return len(data).to_bytes(_HEAD, "little") + data


def take_frame(buffer: bytearray) -> Any:
    """Take the first frame from a buffer; ``None`` while it is not whole.

    Raises:
        ValueError: It is none.
    """
    end = _HEAD + int.from_bytes(buffer[:_HEAD], "little")
    if len(buffer) < max(end, _HEAD + 1):
        return None
    with memoryview(buffer) as view:
        try:
            value = marshal.loads(view[_HEAD:end])  # noqa: S302  (our own process wrote it)
        except (EOFError, TypeError) as error:
            raise ValueError(str(error)) from None
    del buffer[:end]
    return value


def serve() -> None:
    """Answer until the other end closes the pipe.

    The first frame names the stores and says whether to look beside locations. Each further one lists claims with their
    keys that were learned meanwhile, and the artifacts; the answer has one entry for each, see :func:`unpack`.
    """
    given, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever prints must not get between the frames
    stores, beside = _read(given)
    reader = EvidenceReader(stores, Storages(), beside=beside)
    keys: dict[Claim, PublicKey] = {}
    _write(answers, HELLO)
    gc.freeze()
    with rare_collection():
        while (asked := _read(given)) is not None:
            learned, wanted = asked
            keys.update((claim, parse_public_key(pem, "A key")) for claim, pem in learned)
            _write(answers, _answer(reader, keys.get, wanted))


def _answer(
    reader: EvidenceReader, key_of: Callable[[Claim], PublicKey | None], wanted: Sequence[tuple[str, Sequence[str]]]
) -> list[Any]:
    made: list[Any] = []
    left = MAX_ANSWER
    for text, locations in wanted:
        entry = None
        if left > 0:
            try:
                found = reader(Digest.parse(text), locations, WITH_SUMMARIES)
                left -= sum([len(item.data) for item in found.evidence])
                if left > 0:
                    entry = _pack(found, key_of)
            except Exception:
                entry = None  # the walk meets the same, and says so
        made.append(entry)
    return made


def _pack(found: Gathered, key_of: Callable[[Claim], PublicKey | None]) -> Any:
    """Open what was gathered, and return it as tuples and texts."""
    pieces = [
        ((item.name, item.data, item.kind, item.altered, item.problem, item.inclusions), open_plainly(item, key_of))
        for item in found.evidence
    ]
    return pieces, [tuple(item.as_dict().items()) for item in found.findings]


def unpack(packed: Any, digests: Digests) -> Gathered:
    """Return what was packed.

    Args:
        packed: The entry of an answer.
        digests: Gives the digests.
    """
    pieces, findings = packed
    evidence = [StoredEvidence(*item) for item, _ in pieces]
    opened = [None if plain is None else understand_plain(plain, digests) for _, plain in pieces]
    return Gathered(evidence, [Finding(**dict(item)) for item in findings] if findings else (), opened)


def _read(source: BinaryIO) -> Any:
    """Return the next value, ``None`` at the end."""
    head = source.read(_HEAD)
    data = source.read(int.from_bytes(head, "little")) if len(head) == _HEAD else b""
    return marshal.loads(data) if data else None  # noqa: S302  (our own process wrote it)


def _write(target: Any, value: Any) -> None:
    data = memoryview(frame(value))
    while data:
        data = data[target.write(data) :]
