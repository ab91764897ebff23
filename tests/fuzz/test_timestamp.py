"""Whatever bytes stand for a timestamp, only our own errors come out, and nobody is given another time."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.errors import EvidenceError
from sealflow.evidence.timestamp import Authority, Stamp, check_token
from tests.fuzz.test_untrusted_bytes import EXAMPLES
from tests.servers.timestamp_authority import TimestampAuthority

SIGNATURE = b"the bytes of a signature"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Authority, Stamp]:
    made = TimestampAuthority(Path(tmp_path_factory.mktemp("authority")))
    token, authority = made.token(SIGNATURE), Authority("company", tuple(made.roots))
    return token, authority, check_token(token, SIGNATURE, authority, _now())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _tells(token: bytes, authority: Authority) -> Stamp | str:
    try:
        return check_token(token, SIGNATURE, authority, _now())
    except EvidenceError as error:
        return error.code


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_mutated_token(sound: tuple[bytes, Authority, Stamp], data: st.DataObject) -> None:
    token, authority, told = sound
    changed = bytearray(token)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        how = data.draw(st.sampled_from(["flip", "set", "cut", "double"]))
        if how == "cut" and len(changed) > 8:
            del changed[at : at + data.draw(st.integers(1, 4))]
        elif how == "double":
            changed[at:at] = changed[at : at + 4]
        else:
            changed[at] = (
                changed[at] ^ 1 << data.draw(st.integers(0, 7)) if how == "flip" else data.draw(st.integers(0, 255))
            )
        if not changed:
            return
    assert _tells(bytes(changed), authority) in (told, "TIMESTAMP_INVALID")


@pytest.mark.slow
def test_each_byte_set_to_each_tag(sound: tuple[bytes, Authority, Stamp]) -> None:
    """Tags are where parsers are surprised: each byte is made each universal string, number and container."""
    token, authority, told = sound
    for at in range(0, len(token), 3):
        for tag in (0x00, 0x09, 0x13, 0x16, 0x1C, 0x1E, 0x30, 0x31, 0x80, 0xFF):
            changed = token[:at] + bytes([tag]) + token[at + 1 :]
            assert _tells(changed, authority) in (told, "TIMESTAMP_INVALID")


@settings(max_examples=EXAMPLES)
@given(st.binary(max_size=400))
def test_junk(sound: tuple[bytes, Authority, Stamp], data: bytes) -> None:
    with pytest.raises(EvidenceError):
        check_token(data, SIGNATURE, sound[1], _now())
