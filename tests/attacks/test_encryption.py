"""Attacks on encrypted artifacts: whatever is done to the bytes or the keys, nothing but the plaintext comes out."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealflow.encryption import (
    ARTIFACT,
    MAX_HEADER,
    RUN,
    EncryptedDataKey,
    EncryptionContext,
    MessageDecryptor,
    Recipient,
    decrypt_message,
    encrypt_message,
    parse_header,
)
from sealflow.encryption.awskms import AwsKmsRecipient
from sealflow.encryption.suite import derive, header_tag
from sealflow.errors import EXIT_REFUSED_EVIDENCE, EXIT_REFUSED_IDENTITY, EvidenceError, SealflowError
from sealflow.findings import CODES
from tests.core.encryption.messages import (
    ARN,
    DATA_KEY,
    OTHER_ARN,
    SIGNED_SUITE,
    SIGNING_KEY,
    SUITE,
    Kms,
    Knows,
    aes,
    encode_pairs,
    forge,
    parts,
)

CONTEXT = {ARTIFACT: "sha256:ab", RUN: "r7"}
CONTENT = bytes(range(40))  # three frames of 16, 16 and 8
STATES = {"evidence": EXIT_REFUSED_EVIDENCE, "identity": EXIT_REFUSED_IDENTITY}
OTHER_SIGNING_KEY = ec.generate_private_key(ec.SECP384R1())


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Recipient:
    return aes(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def message(key: Recipient) -> bytes:
    return encrypt_message(CONTENT, [key], CONTEXT, frame_length=16)


@pytest.fixture(scope="module")
def signed() -> bytes:
    keys = [EncryptedDataKey("held", b"name", b"wrapped")]
    return forge(CONTENT, keys, DATA_KEY, context=CONTEXT, suite=SIGNED_SUITE, signing_key=SIGNING_KEY)


def refusal(message: bytes, key: Recipient, expected: dict[str, str] | None = None) -> str:
    """The code with which a message is refused."""
    with pytest.raises(SealflowError) as caught:
        decrypt_message(message, [key], expected=CONTEXT if expected is None else expected)
    error = caught.value
    assert error.exit_status == STATES[CODES[error.code].group]
    assert error.next_step
    return error.code


def regions(message: bytes) -> dict[str, tuple[int, int]]:
    """Where the fields of a message of ours (one wrapped key) begin and end."""
    header, frames, footer = parts(message)
    context = 37 + struct.unpack_from(">H", message, 35)[0]
    keys = len(header) - 16 - 37
    found = {
        "version": (0, 1),
        "suite": (1, 3),
        "message-id": (3, 35),
        "context": (35, context),
        "key-count": (context, context + 2),
        "data-keys": (context + 2, keys),
        "content-type": (keys, keys + 1),
        "frame-length": (keys + 1, keys + 5),
        "commitment": (keys + 5, keys + 37),
        "header-tag": (keys + 37, len(header)),
    }
    at = len(header)
    for number, frame in enumerate(frames, 1):
        found[f"frame-{number}"] = (at, at + len(frame))
        at += len(frame)
    found["footer"] = (at, at + len(footer))
    assert at + len(footer) == len(message)
    return found


# --- Every single bit ---

MALFORMED, ALTERED = "MESSAGE_MALFORMED", "MESSAGE_ALTERED"
MISSING, WRONG = "RECIPIENT_MISSING", "RECIPIENT_KEY_WRONG"
UNSUPPORTED, COMMITMENT, CONTEXT_CODE = "MESSAGE_UNSUPPORTED", "COMMITMENT_MISMATCH", "CONTEXT_MISMATCH"
FLIPS = {
    "version": {UNSUPPORTED},
    # One bit apart: 0x0578, which would need a signing key in the context.
    "suite": {UNSUPPORTED, MALFORMED},
    "message-id": {COMMITMENT},
    "context": {CONTEXT_CODE, MALFORMED, UNSUPPORTED, WRONG},
    "key-count": {MALFORMED, UNSUPPORTED},
    "data-keys": {MISSING, WRONG, MALFORMED, UNSUPPORTED},
    "content-type": {UNSUPPORTED},
    "frame-length": {MALFORMED, ALTERED},
    "commitment": {COMMITMENT},
    "header-tag": {ALTERED},
    "frame-1": {MALFORMED, ALTERED},
    "frame-2": {MALFORMED, ALTERED},
    "frame-3": {MALFORMED, ALTERED},
}


@pytest.mark.parametrize("region", FLIPS)
def test_every_flipped_bit(message: bytes, key: Recipient, region: str) -> None:
    start, end = regions(message)[region]
    codes = set()
    for position in range(start, end):
        for bit in range(8):
            altered = bytearray(message)
            altered[position] ^= 1 << bit
            codes.add(refusal(bytes(altered), key))
    # Which of them depends on random bytes that a wrong length lays over others.
    assert codes <= FLIPS[region]


SIGNED_FLIPS = FLIPS | {
    "suite": {UNSUPPORTED, MALFORMED},
    # Nothing wraps this data key, so a name is all that a wrapped key has here.
    "context": {CONTEXT_CODE, MALFORMED, UNSUPPORTED, ALTERED},
    "data-keys": {MALFORMED, UNSUPPORTED, ALTERED},
    "frame-1": {"SIGNATURE_INVALID"},
    "frame-2": {"SIGNATURE_INVALID"},
    "frame-3": {"SIGNATURE_INVALID"},
    "footer": {"SIGNATURE_INVALID", MALFORMED},
}


@pytest.mark.slow
@pytest.mark.parametrize("region", SIGNED_FLIPS)
def test_every_flipped_bit_of_a_signed_message(signed: bytes, region: str) -> None:
    start, end = regions(signed)[region]
    codes = set()
    for position in range(start, end):
        for bit in range(8):
            altered = bytearray(signed)
            altered[position] ^= 1 << bit
            codes.add(refusal(bytes(altered), Knows(DATA_KEY)))
    assert codes <= SIGNED_FLIPS[region]


# --- Cut and lengthened ---


@pytest.mark.parametrize("kind", ["plain", "signed"])
def test_every_truncation(message: bytes, signed: bytes, key: Recipient, kind: str) -> None:
    whole, recipient = (message, key) if kind == "plain" else (signed, Knows(DATA_KEY))
    assert decrypt_message(whole, [recipient], expected=CONTEXT) == CONTENT
    codes = {refusal(whole[:length], recipient) for length in range(len(whole))}
    assert codes <= {MALFORMED, "SIGNATURE_INVALID"}


@pytest.mark.parametrize("kind", ["plain", "signed"])
@pytest.mark.parametrize("tail", [b"\x00", b"\x00" * 8, b"\xff" * 32, b"\x00" * 48, b"\x00" * 56], ids=len)
def test_trailing_bytes(message: bytes, signed: bytes, key: Recipient, kind: str, tail: bytes) -> None:
    whole, recipient = (message, key) if kind == "plain" else (signed, Knows(DATA_KEY))
    assert refusal(whole + tail, recipient) in (MALFORMED, "SIGNATURE_INVALID")


def test_messages_one_after_the_other(message: bytes, key: Recipient) -> None:
    assert refusal(message + message, key) == MALFORMED


# --- Frames and headers that belong elsewhere ---

Mix = Callable[[bytes, list[bytes], bytes, list[bytes]], bytes]
MIXES: dict[str, tuple[Mix, str]] = {
    "frames-swapped": (lambda h, f, h2, f2: h + f[1] + f[0] + f[2], MALFORMED),
    "frames-swapped-and-renumbered": (lambda h, f, h2, f2: h + renumber(f[1], 1) + renumber(f[0], 2) + f[2], ALTERED),
    "frame-twice": (lambda h, f, h2, f2: h + f[0] + f[0] + f[2], MALFORMED),
    "frame-twice-and-renumbered": (lambda h, f, h2, f2: h + f[0] + renumber(f[0], 2) + f[2], ALTERED),
    "frame-inserted": (lambda h, f, h2, f2: h + f[0] + f[0] + f[1] + f[2], MALFORMED),
    "frame-dropped": (lambda h, f, h2, f2: h + f[0] + f[2], MALFORMED),
    "first-frame-dropped": (lambda h, f, h2, f2: h + f[1] + f[2], MALFORMED),
    "final-frame-only": (lambda h, f, h2, f2: h + f[2], MALFORMED),
    "final-frame-first": (lambda h, f, h2, f2: h + f[2] + f[0] + f[1], MALFORMED),
    "final-frame-twice": (lambda h, f, h2, f2: h + f[0] + f[2] + f[2], MALFORMED),
    "no-final-frame": (lambda h, f, h2, f2: h + f[0] + f[1], MALFORMED),
    "regular-frame-marked-final": (lambda h, f, h2, f2: h + f[0] + as_final(f[1]), ALTERED),
    "no-frames": (lambda h, f, h2, f2: h, MALFORMED),
    "frame-of-another-artifact": (lambda h, f, h2, f2: h + f[0] + f2[1] + f[2], ALTERED),
    "final-frame-of-another-artifact": (lambda h, f, h2, f2: h + f[0] + f[1] + f2[2], ALTERED),
    "body-of-another-artifact": (lambda h, f, h2, f2: h + b"".join(f2), ALTERED),
    "header-of-another-artifact": (lambda h, f, h2, f2: h2 + b"".join(f), ALTERED),
}


def renumber(frame: bytes, sequence: int) -> bytes:
    return struct.pack(">I12s", sequence, sequence.to_bytes(12, "big")) + frame[16:]


def as_final(frame: bytes) -> bytes:
    return b"\xff" * 4 + frame[:16] + struct.pack(">I", len(frame) - 32) + frame[16:]


@pytest.mark.parametrize("name", MIXES)
def test_frames_and_headers_mixed(message: bytes, key: Recipient, name: str) -> None:
    """Between two artifacts for the same recipients, of the same size and context."""
    other = encrypt_message(CONTENT, [key], CONTEXT, frame_length=16)
    (header, frames, _), (other_header, other_frames, _) = parts(message), parts(other)
    mix, code = MIXES[name]
    assert refusal(mix(header, frames, other_header, other_frames), key) == code


def test_a_frame_that_another_recipient_forged_is_not_the_signed_one(key: Recipient) -> None:
    """Each recipient knows the data key; only the signed digest tells frames of theirs from ours."""
    wrapped = key.wrap(DATA_KEY, EncryptionContext.of(CONTEXT))
    ours, theirs = (forge(content, [wrapped], DATA_KEY, context=CONTEXT) for content in (CONTENT, b"x" * 40))
    assert decrypt_message(theirs, [key], expected=CONTEXT) == b"x" * 40
    decryptor = MessageDecryptor(theirs, [key], expected=CONTEXT, size=len(theirs))
    digests = [digest(frame) for frame in parts(ours)[1]]
    for sequence, frame in enumerate(parts(theirs)[1], 1):
        out = bytearray(b"\xaa" * decryptor.layout.content_length(sequence))
        with pytest.raises(EvidenceError, match="not the one that was signed") as caught:
            decryptor.open(sequence, frame, out, sha256=digests[sequence - 1])
        assert caught.value.code == ALTERED
        assert set(out) == {0xAA}


def digest(frame: bytes) -> bytes:
    return hashlib.sha256(frame).digest()


@pytest.mark.parametrize("position", [0, 4, 16, 30, -1], ids=["number", "nonce", "content", "late-content", "tag"])
def test_nothing_of_an_altered_frame_is_left_in_the_buffer(message: bytes, key: Recipient, position: int) -> None:
    """The library leaves what it decrypted in the buffer although the tag does not fit."""
    decryptor = MessageDecryptor(message, [key], expected=CONTEXT, size=len(message))
    frame = bytearray(parts(message)[1][0])
    frame[position] ^= 1
    out = bytearray(16)
    with pytest.raises(EvidenceError):
        decryptor.open(1, frame, out)
    assert out == bytes(16)
    with pytest.raises(ValueError, match="buffer"):
        decryptor.open(1, parts(message)[1][0], bytearray(15))


# --- Keys ---


def test_two_keys_for_one_message(tmp_path: Path) -> None:
    """Without commitment, a message could open for each recipient to another plaintext."""
    first, second = aes(tmp_path, 1), aes(tmp_path, 2)
    context = EncryptionContext.of(CONTEXT)
    wrapped = [first.wrap(b"1" * 32, context), second.wrap(b"2" * 32, context)]
    message = forge(CONTENT, wrapped, b"1" * 32, context=CONTEXT)
    assert decrypt_message(message, [first], expected=CONTEXT) == CONTENT
    assert refusal(message, second) == COMMITMENT


def test_a_commitment_to_one_key_and_a_body_under_another(key: Recipient) -> None:
    """The commitment of key 1, everything else made with key 2."""
    message_id = bytes(range(32))
    wrapped = key.wrap(b"1" * 32, EncryptionContext.of(CONTEXT))
    message = forge(CONTENT, [wrapped], b"2" * 32, context=CONTEXT)
    header, frames, _ = parts(message)
    _, commitment = derive(b"1" * 32, SUITE, message_id)
    cipher, _ = derive(b"2" * 32, SUITE, message_id)
    body = header[:-48] + commitment
    assert refusal(body + header_tag(cipher, body) + b"".join(frames), key) == ALTERED
    assert refusal(message, key) == COMMITMENT


def test_another_key_under_the_same_name(tmp_path: Path) -> None:
    ours, theirs = aes(tmp_path, 1, "?name=team"), aes(tmp_path, 2, "?name=team")
    message = encrypt_message(CONTENT, [theirs], CONTEXT)
    assert refusal(message, ours) == WRONG


def test_a_key_that_the_artifact_is_not_for(message: bytes, tmp_path: Path) -> None:
    assert refusal(message, aes(tmp_path, 9)) == MISSING


def test_a_key_in_kms_put_into_the_header_is_not_asked(tmp_path: Path) -> None:
    """A stranger's key would tell the stranger who reads what, and give us a data key that the stranger chose."""
    kms = Kms(ARN, OTHER_ARN)
    message = encrypt_message(CONTENT, [AwsKmsRecipient(f"awskms:{OTHER_ARN}", kms)], CONTEXT)
    kms.calls.clear()
    assert refusal(message, AwsKmsRecipient(f"awskms:{ARN}", kms)) == "KMS_KEY_NOT_ALLOWED"
    assert kms.calls == []


def test_a_new_header_over_an_old_body(message: bytes, key: Recipient, tmp_path: Path) -> None:
    """Somebody who never knew the data key wraps one of their own to us."""
    header = encrypt_message(b"", [key], CONTEXT, frame_length=16)[:-40]
    assert refusal(header + b"".join(parts(message)[1]), key) == ALTERED


# --- Context ---


@pytest.mark.parametrize(
    "expected",
    [{RUN: "r8"}, {ARTIFACT: "sha256:AB"}, {**CONTEXT, "extra": ""}, {"extra": "x"}, {RUN: "r7 "}],
    ids=["other-run", "other-case", "missing-empty", "missing", "space"],
)
def test_another_context_than_expected(message: bytes, expected: dict[str, str]) -> None:
    """Told before any key is used, so that no key service is asked on behalf of another artifact."""
    holder = Knows(DATA_KEY)
    assert refusal(message, holder, expected) == CONTEXT_CODE
    assert holder.asked == 0


def test_a_context_rewritten_by_somebody_without_the_key(message: bytes, key: Recipient) -> None:
    altered = message.replace(b"r7", b"r8")
    assert refusal(altered, key, {RUN: "r8"}) == WRONG
    # With a recipient whose wrapping is not bound to the context, the header's tag is.
    held = forge(CONTENT, [EncryptedDataKey("held", b"", b"")], DATA_KEY, context=CONTEXT)
    assert refusal(held.replace(b"r7", b"r8"), Knows(DATA_KEY), {RUN: "r8"}) == ALTERED


@pytest.mark.parametrize(
    "encoded",
    [
        encode_pairs([("a", "1"), ("a", "2")]),
        encode_pairs([("a", "1"), ("b", "1"), ("a", "1")]),
        encode_pairs([]),
        encode_pairs([("a", "1")]) + b"\x00",
        encode_pairs([("a", "1")])[:-1],
        b"\x00",
        b"\x00\x02" + encode_pairs([("a", "1")])[2:],
        b"\x00\x01\xff\xff",
        b"\x00\x01\x00\x01\xff\x00\x00",
        encode_pairs([(f"{number:03}", "") for number in range(65)]),
        encode_pairs([("a", "x" * (17 << 10))]),
        encode_pairs([("aws-crypto-public-key", "AAAA")]),
    ],
    ids=[
        "twice",
        "twice-apart",
        "count-of-nothing",
        "left-over",
        "cut",
        "half-a-count",
        "fewer-than-counted",
        "length-beyond-the-end",
        "no-utf-8",
        "too-many",
        "too-long",
        "signing-key-without-signature",
    ],
)
def test_contexts_of_another_form(encoded: bytes) -> None:
    body = struct.pack(">BH32sH", 2, SUITE, bytes(32), len(encoded)) + encoded + b"\x00\x01" + b"\x00\x00" * 3
    body += struct.pack(">BI32s", 2, 16, bytes(32))
    assert refusal(body + bytes(16 + 40), Knows(DATA_KEY), {}) == MALFORMED


# --- Other forms than ours ---

OTHER_SUITES = (0x0014, 0x0046, 0x0078, 0x0114, 0x0146, 0x0178, 0x0214, 0x0346, 0x0378, 0x0000, 0x0478 ^ 0x8000, 0xFFFF)


@pytest.mark.parametrize("suite", OTHER_SUITES, ids=hex)
def test_every_other_suite(message: bytes, suite: int) -> None:
    """Also where somebody with the data key made a message that is sound in that suite."""
    holder = Knows(DATA_KEY)
    assert refusal(message[:1] + struct.pack(">H", suite) + message[3:], holder) == UNSUPPORTED
    assert refusal(forge(CONTENT, [EncryptedDataKey("held", b"", b"")], DATA_KEY, suite=suite), holder) == UNSUPPORTED
    assert holder.asked == 0


@pytest.mark.parametrize("version", [0, 1, 3, 0x80, 255])
def test_every_other_version(message: bytes, version: int) -> None:
    assert refusal(bytes([version]) + message[1:], Knows(DATA_KEY)) == UNSUPPORTED
    assert refusal(bytes([version]), Knows(DATA_KEY)) == UNSUPPORTED


@pytest.mark.parametrize("content_type", [0, 1, 3, 255])
def test_bodies_without_frames(content_type: int) -> None:
    message = forge(CONTENT, [EncryptedDataKey("held", b"", b"")], DATA_KEY)
    at = len(parts(message)[0]) - 16 - 37
    altered = message[:at] + bytes([content_type]) + message[at + 1 :]
    assert refusal(altered, Knows(DATA_KEY), {}) == UNSUPPORTED


@pytest.mark.parametrize("data", [b"", b"\x02", b"PK\x03\x04", b"age-encryption.org/v1\n", b"\x85\x01", b"{}"])
def test_other_files(data: bytes) -> None:
    assert refusal(data, Knows(DATA_KEY)) == (UNSUPPORTED if data and data[0] != 2 else MALFORMED)


# --- More than a header should cost ---

START = struct.pack(">BH32sH", 2, SUITE, bytes(32), 0)
BOMBS = {
    "no-keys": START + b"\x00\x00",
    "65535-keys": START + b"\xff\xff" + b"\x00" * 0xFFFF * 6,
    "33-keys": START + b"\x00\x21" + b"\x00" * 33 * 6,
    "huge-key": START + b"\x00\x01" + b"\x00\x00\x00\x00\xff\xff" + b"\x00" * (1 << 17),
    "keys-beyond-the-limit": START + b"\x00\x20" + (b"\x00\x00\x00\x00\x10\x00" + b"\x00" * 4096) * 32,
    "huge-context": struct.pack(">BH32sH", 2, SUITE, bytes(32), 0xFFFF) + b"\x00\x01" + b"\x00" * (1 << 17),
    "frames-of-0": START + b"\x00\x01" + b"\x00" * 6 + struct.pack(">BI32s", 2, 0, bytes(32)) + bytes(100),
    "frames-of-4-GiB": START
    + b"\x00\x01"
    + b"\x00" * 6
    + struct.pack(">BI32s", 2, 0xFFFF_FFFF, bytes(32))
    + bytes(100),
    "frames-of-16-MiB-and-1": START
    + b"\x00\x01"
    + b"\x00" * 6
    + struct.pack(">BI32s", 2, (16 << 20) + 1, bytes(32))
    + bytes(100),
    "zeros": b"\x02\x04\x78" + b"\x00" * (1 << 20),
    "ones": b"\x02\x04\x78" + b"\xff" * (1 << 20),
}


@pytest.mark.parametrize("name", BOMBS)
def test_header_bombs(name: str) -> None:
    holder = Knows(DATA_KEY)
    tracemalloc.start()
    try:
        assert refusal(BOMBS[name], holder, {}) == MALFORMED
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MAX_HEADER
    assert holder.asked == 0


def test_the_largest_header_is_read() -> None:
    keys = [EncryptedDataKey("held", b"", bytes(1800))] * 32
    message = forge(CONTENT, keys, DATA_KEY)
    assert MAX_HEADER - 8192 < len(parts(message)[0]) <= MAX_HEADER
    assert decrypt_message(message, [Knows(DATA_KEY)], expected={}) == CONTENT
    assert parse_header(message[:MAX_HEADER]).raw == parts(message)[0]


def test_sizes_that_lie(message: bytes, key: Recipient) -> None:
    """The size comes from a store, which may say anything."""
    for size in (0, -1, len(message) + 9, 1 << 62):
        with pytest.raises(EvidenceError) as caught:
            MessageDecryptor(message, [key], expected=CONTEXT, size=size)
        assert caught.value.code == MALFORMED
    for size in (len(message) - 1, len(message) - 8, len(message) + 8, len(message) + 48):
        decryptor = MessageDecryptor(message, [key], expected=CONTEXT, size=size)
        number = decryptor.layout.frames
        start, end = decryptor.layout.span(number)
        out = bytearray(decryptor.layout.final_length)
        with pytest.raises(EvidenceError):
            decryptor.open(number, message[start:end], out)
        assert not any(out)


# --- Signed messages ---


def test_nothing_is_released_before_the_signature(signed: bytes) -> None:
    decryptor = MessageDecryptor(signed, [Knows(DATA_KEY)], expected=CONTEXT, size=len(signed), tail=signed[-200:])
    _, frames, footer = parts(signed)
    out = bytearray(16)
    bad = footer[:-1] + bytes([footer[-1] ^ 1])
    for attempt in (
        lambda: decryptor.open(1, frames[0], out),
        lambda: decryptor.verify_signature(frames, bad),
        lambda: decryptor.open(1, frames[0], out),
    ):
        with pytest.raises(EvidenceError) as caught:
            attempt()
        assert caught.value.code == "SIGNATURE_INVALID"
        assert not any(out)
    decryptor.verify_signature(frames, footer)
    decryptor.open(1, frames[0], out)
    assert out == CONTENT[:16]


def test_frames_exchanged_after_the_signature_was_verified(signed: bytes) -> None:
    """By somebody who knows the data key, between the two times the object is read."""
    keys = [EncryptedDataKey("held", b"name", b"wrapped")]
    other = forge(bytes(40), keys, DATA_KEY, context=CONTEXT, suite=SIGNED_SUITE, signing_key=SIGNING_KEY)
    decryptor = MessageDecryptor(signed, [Knows(DATA_KEY)], expected=CONTEXT, size=len(signed), tail=signed)
    decryptor.verify_signature(*parts(signed)[1:])
    assert len(parts(other)[1][0]) == len(parts(signed)[1][0])
    out = bytearray(16)
    with pytest.raises(EvidenceError, match="not the one that was signed"):
        decryptor.open(1, parts(other)[1][0], out)
    assert not any(out)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda f: f[:-1], MALFORMED),
        (lambda f: [*f, f[-1]], MALFORMED),
        (lambda f: [*f, b""], MALFORMED),
        (lambda f: [f[1], f[0], f[2]], "SIGNATURE_INVALID"),
        (lambda f: [f[0][:-1], *f[1:]], MALFORMED),
        (lambda f: [f[0] + f[1], f[2]], MALFORMED),
        (lambda f: [], MALFORMED),
    ],
    ids=["fewer", "more", "an-empty-one-more", "swapped", "shorter", "two-in-one", "none"],
)
def test_other_frames_than_were_signed(signed: bytes, change: Callable[[list[bytes]], list[bytes]], code: str) -> None:
    decryptor = MessageDecryptor(signed, [Knows(DATA_KEY)], expected=CONTEXT, size=len(signed), tail=signed)
    _, frames, footer = parts(signed)
    with pytest.raises(EvidenceError) as caught:
        decryptor.verify_signature(change(frames), footer)
    assert caught.value.code == code
    for other in (footer + b"\x00", footer[:-1], b""):
        with pytest.raises(EvidenceError) as caught:
            decryptor.verify_signature(frames, other)
        assert caught.value.code == MALFORMED


@pytest.mark.parametrize("name", ["other-signer", "no-signature", "claims-to-be-unsigned", "claims-to-be-signed"])
def test_signatures_that_are_not_the_producers(signed: bytes, message: bytes, name: str) -> None:
    keys = [EncryptedDataKey("held", b"name", b"wrapped")]

    def made(**options: object) -> bytes:
        return forge(CONTENT, keys, DATA_KEY, context=CONTEXT, **options)  # type: ignore[arg-type]

    footer = parts(signed)[2]
    cases = {
        "other-signer": (
            made(suite=SIGNED_SUITE, signing_key=SIGNING_KEY, signer=OTHER_SIGNING_KEY),
            "SIGNATURE_INVALID",
        ),
        "no-signature": (signed[: -len(footer)], MALFORMED),
        "claims-to-be-unsigned": (made(suite=SUITE, signing_key=SIGNING_KEY)[: -len(footer)], MALFORMED),
        "claims-to-be-signed": (made(suite=SIGNED_SUITE) + footer, MALFORMED),
    }
    data, code = cases[name]
    assert refusal(data, Knows(DATA_KEY)) == code


@pytest.mark.parametrize(
    "value",
    [
        "",
        "AAAA",
        "!" * 68,
        base64.b64encode(b"\x04" + bytes(48)).decode(),
        base64.b64encode(b"\x02" + b"\xff" * 48).decode(),
        base64.b64encode(
            SIGNING_KEY.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
        ).decode(),
    ],
    ids=["empty", "short", "no-base64", "wrong-form", "no-point", "uncompressed"],
)
def test_signing_keys_that_are_none(value: str) -> None:
    encoded = encode_pairs([("aws-crypto-public-key", value)])
    body = struct.pack(">BH32sH", 2, SIGNED_SUITE, bytes(32), len(encoded)) + encoded
    body += b"\x00\x01" + b"\x00" * 6 + struct.pack(">BI32s", 2, 16, bytes(32)) + bytes(16)
    footer = struct.pack(">H", 72) + b"\x30\x46" + bytes(70)
    holder = Knows(DATA_KEY)
    code = refusal(body + bytes(40) + footer, holder, {})
    assert code == MALFORMED
    assert holder.asked == 0


def test_a_footer_that_can_be_read_in_two_ways(signed: bytes) -> None:
    """A signature that ends in what looks like a shorter one: nobody guesses."""
    inner = struct.pack(">H", 16) + b"\x30\x0e" + bytes(14)
    outer = b"\x30\x46" + os.urandom(70 - len(inner)) + inner
    header, frames, _ = parts(signed)
    assert refusal(header + b"".join(frames) + struct.pack(">H", 72) + outer, Knows(DATA_KEY)) == MALFORMED
