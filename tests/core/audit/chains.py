"""Chains of entries for tests of what takes and orders them."""

from __future__ import annotations

from sealflow.audit.entry import Chain, Entry


def chain(length: int, event: bytes = b'{"sealflow_audit":1}') -> list[Entry]:
    """The entries of a new writer."""
    writer = Chain()
    return [writer.add(event) for _ in range(length)]


def forged(entry: Entry) -> Entry:
    """The entry with the signature of somebody else."""
    line = entry.line.rpartition(b" ")[0] + b" " + Chain().add(b"{}").line.rpartition(b" ")[2]
    return entry._replace(line=line)


def log_of(inbox) -> list[bytes]:
    """Put everything in order that can be, and return it."""
    while inbox.sequence(100):
        pass
    lines: list[bytes] = []
    while more := inbox.sequenced(len(lines), 1000):
        lines += more
    assert inbox.size() == len(lines)
    return lines
