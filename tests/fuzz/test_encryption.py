"""Whatever stands where an encrypted artifact should, only our errors come out, and soon."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.encryption import EncryptedDataKey, MessageDecryptor, decrypt_message, parse_header
from sealflow.encryption.header import header_body
from sealflow.errors import SealflowError
from sealflow.findings import CODES
from tests.core.encryption.messages import DATA_KEY, SIGNED_SUITE, SIGNING_KEY, SUITE, Knows, encode_pairs, forge, parts

# Many examples each.
pytestmark = pytest.mark.slow

EXAMPLES = 4 * settings().max_examples

KEYS = [EncryptedDataKey("held", b"name", b"wrapped"), EncryptedDataKey("ü", b"", b"")]
CONTEXT = {"a": "1", "ü": "日本"}
PLAIN = forge(bytes(range(40)), KEYS, DATA_KEY, context=CONTEXT)
SIGNED = forge(bytes(range(40)), KEYS, DATA_KEY, context=CONTEXT, suite=SIGNED_SUITE, signing_key=SIGNING_KEY)
PIECES = [
    b"\x00", b"\x01", b"\x02", b"\xff", b"\x00\x00", b"\x00\x01", b"\x00\x02", b"\xff\xff", b"\x00" * 16, b"\xff" * 4,
    b"\x02\x04\x78", b"\x02\x05\x78", b"\x01\x80\x03\x78", b"\x00\x00\x00\x01", b"\x00\x10\x00\x00", 
    b"\x01\x00\x00\x00",
    b"\x00\x00\x00\x00", b"\x00\x01a", b"\x00\x15aws-crypto-public-key", b"aws-kms", b"\xc3", b"\xed\xa0\x80",
    struct.pack(">H", 103) + b"\x30\x65", PLAIN[:37], PLAIN[-48:], SIGNED[-105:],
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, *seeds: bytes) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        kind = draw(st.integers(0, 3))
        piece = draw(st.sampled_from(PIECES)) if kind < 2 else draw(st.binary(max_size=6))
        if kind == 3:
            data[start:end] = data[start:end] * 2
        else:
            data[start : start if kind == 0 else end] = piece
    return bytes(data)


texts = st.text(max_size=6) | st.sampled_from(["aws-crypto-public-key", "a", "ü", ""])
blobs = st.binary(max_size=12)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Headers of the right form whose fields say anything."""
    encoded = draw(
        st.just(b"")
        | st.lists(st.tuples(texts, texts), max_size=4).map(encode_pairs)
        | st.dictionaries(texts, texts, max_size=4).map(lambda pairs: encode_pairs(sorted(pairs.items())))
    )
    suite = draw(st.sampled_from([SUITE, SUITE, SUITE, SIGNED_SUITE, 0x0378]))
    data_keys = draw(st.lists(st.tuples(texts.map(str.encode) | blobs, blobs, blobs), max_size=4))
    header = struct.pack(">BH32sH", 2, suite, bytes(32), len(encoded)) + encoded + struct.pack(">H", len(data_keys))
    for fields in data_keys:
        for field in fields:
            header += struct.pack(">H", len(field)) + field
    frame_length = draw(st.sampled_from([1, 16, 4096, 1 << 20, 16 << 20]) | st.integers(0, 0xFFFF_FFFF))
    header += struct.pack(">BI32s", draw(st.sampled_from([2, 2, 2, 1])), frame_length, bytes(32)) + bytes(16)
    return header + draw(blobs)


@settings(max_examples=EXAMPLES)
@given(mutated(PLAIN, SIGNED, PLAIN[:200]) | headers() | st.binary(max_size=300))
def test_headers(data: bytes) -> None:
    try:
        header = parse_header(data)
    except SealflowError as error:
        if error.code not in ("MESSAGE_MALFORMED", "MESSAGE_UNSUPPORTED"):
            raise
        return
    assert data.startswith(header.raw)
    assert parse_header(header.raw) == header
    # What was read is all that stands there: written again it is the same, but for the order of the context.
    if not header.signed:
        again = header_body(header.message_id, header.context, header.data_keys, header.frame_length, header.commitment)
        assert sorted(again) == sorted(header.body)
        if header.context.encoded in header.body:
            assert again == header.body


@pytest.mark.oracle
@settings(max_examples=EXAMPLES)
@given(mutated(PLAIN, SIGNED) | headers())
def test_what_we_read_the_sdk_reads_the_same(data: bytes) -> None:
    from aws_encryption_sdk.internal.formatting.deserialize import deserialize_header

    try:
        ours = parse_header(data)
    except SealflowError:
        return
    theirs, raw = deserialize_header(io.BytesIO(data))
    assert raw == ours.body
    assert theirs.algorithm.algorithm_id == ours.suite
    assert theirs.message_id == ours.message_id
    assert theirs.encryption_context == ours.context.pairs
    assert theirs.frame_length == ours.frame_length
    assert theirs.commitment_key == ours.commitment
    assert {
        (key.key_provider.provider_id, key.key_provider.key_info, key.encrypted_data_key)
        for key in theirs.encrypted_data_keys
    } == {(key.provider, key.info, key.ciphertext) for key in ours.data_keys}


@settings(max_examples=EXAMPLES)
@given(mutated(PLAIN, SIGNED))
def test_messages(data: bytes) -> None:
    """By somebody who has the data key, so that nothing is refused for the want of it."""
    expected: Mapping[str, str] = {"a": "1"}
    try:
        content = decrypt_message(data, [Knows(DATA_KEY)], expected=expected)
    except SealflowError as error:
        if error.code not in CODES:
            raise
        return
    assert data in (PLAIN, SIGNED)
    assert content == bytes(range(40))


@settings(max_examples=EXAMPLES)
@given(st.integers(-10, 600) | st.integers(0, 1 << 70), mutated(SIGNED[-120:]), st.sampled_from([PLAIN, SIGNED]))
def test_sizes_and_tails(size: int, tail: bytes, message: bytes) -> None:
    try:
        decryptor = MessageDecryptor(message, [Knows(DATA_KEY)], expected={}, size=size, tail=tail)
    except SealflowError as error:
        if error.code != "MESSAGE_MALFORMED":
            raise
        return
    layout = decryptor.layout
    assert layout.size == size
    assert layout.span(1)[0] == len(parts(message)[0])
    assert layout.span(layout.frames)[1] + layout.footer == size
