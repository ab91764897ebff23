"""Entries of the audit log: one line, one chain, one key."""

from __future__ import annotations

import hashlib

import pytest

from sealflow.audit.entry import MAX_ENTRY, NO_PREV, Chain, parse_entry
from sealflow.errors import EvidenceError


def test_a_chain_names_what_came_before() -> None:
    chain = Chain()
    entries = [chain.add(b'{"a":%d}' % n) for n in range(3)]
    assert [entry.n for entry in entries] == [0, 1, 2]
    assert [entry.prev for entry in entries] == [NO_PREV, entries[0].hash, entries[1].hash]
    assert all(entry.is_signed() and parse_entry(entry.line) == entry for entry in entries)
    assert chain.count == 3


def test_the_hash_is_that_of_rfc_6962() -> None:
    entry = Chain().add(b"{}")
    assert entry.hash == hashlib.sha256(b"\0" + entry.line).hexdigest()


def test_writers_have_keys_of_their_own() -> None:
    one, other = Chain(), Chain()
    assert one.writer != other.writer
    line = one.add(b"{}").line.replace(one.writer.encode(), other.writer.encode())
    assert not parse_entry(line).is_signed()


def is_taken(line: bytes) -> bool:
    try:
        return parse_entry(line).is_signed()
    except EvidenceError:
        return False


@pytest.mark.parametrize("bit", [1, 2, 128])
def test_no_bit_can_be_changed(bit: int) -> None:
    line = bytearray(Chain().add(b'{"action":"sign","artifact":"s3://models/a"}').line)
    for place in range(len(line)):
        line[place] ^= bit
        assert not is_taken(bytes(line))
        line[place] ^= bit
    assert is_taken(bytes(line))


def test_a_signature_has_one_text() -> None:
    """The last of its digits holds bits that count for nothing."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    line = Chain().add(b"{}").line.decode()
    others = [f"{line[:-3]}{digit}==" for digit in digits if digit != line[-3]]
    assert not any(is_taken(other.encode()) for other in others)


@pytest.mark.parametrize(
    "event", [b"", b"1", b"{}\n{}", b'{"a":"' + b"x" * MAX_ENTRY + b'"}'], ids=["empty", "number", "two-lines", "large"]
)
def test_what_is_no_event(event: bytes) -> None:
    chain = Chain()
    with pytest.raises(EvidenceError, match="AUDIT_MALFORMED"):
        chain.add(event)
    assert chain.count == 0
    assert chain.add(b"{}").n == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda line: b"",
        lambda line: line + b"\n",
        lambda line: line + b" ",
        lambda line: line.replace(b"/v1", b"/v2"),
        lambda line: line.replace(b" 0 ", b" 00 "),
        lambda line: line.replace(b" 0 ", b" -1 "),
        lambda line: line.replace(b" 0 ", b" 1" + b"0" * 18 + b" "),
        lambda line: line[:-2],
        lambda line: line.upper(),
    ],
)
def test_what_is_no_entry(change: object) -> None:
    with pytest.raises(EvidenceError, match="AUDIT_MALFORMED"):
        parse_entry(change(Chain().add(b"{}").line))  # type: ignore[operator]
