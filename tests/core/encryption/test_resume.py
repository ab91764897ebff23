"""Going on with a message whose writer died: the same bytes again, or new numbers, and nothing in between."""

from __future__ import annotations

import gc
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.encryption import (
    EncryptedDataKey,
    MessageDecryptor,
    MessageEncryptor,
    RecipientError,
    Sent,
    decrypt_message,
    encrypt_message,
)
from sealflow.encryption import suite as suite_module
from sealflow.errors import ArtifactError, EvidenceError, SealflowError
from tests.core.encryption.messages import (
    DATA_KEY,
    SIGNED_SUITE,
    SIGNING_KEY,
    Knows,
    aes,
    forge,
    parts,
    private_rsa,
    public_rsa,
)

FRAME = 16


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def sealed(encryptor: MessageEncryptor, sequence: int, content: bytes, *, final: bool = False) -> bytes:
    out = bytearray(encryptor.sealed_length(len(content), final=final))
    encryptor.seal(sequence, content, out, final=final)
    return bytes(out)


def begun(tmp_path: Path) -> tuple[bytes, EncryptedDataKey, bytes]:
    """A message whose frames 2 and 3 were sent: its header, the kept key, and those frames."""
    encryptor = MessageEncryptor([public_rsa(tmp_path)], {"run": "7"}, frame_length=FRAME, keeper=aes(tmp_path))
    assert encryptor.kept is not None
    assert encryptor.kept not in encryptor.header.data_keys
    frames = sealed(encryptor, 2, b"b" * FRAME) + sealed(encryptor, 3, b"c" * FRAME)
    return encryptor.header.raw, encryptor.kept, frames


def records(frames: bytes, first: int = 2, *, final: bool = False) -> list[Sent]:
    """What was written down of frames that were sent: a digest of each."""
    step = FRAME + 32
    digests = b"".join(sha(frames[at : at + step]) for at in range(0, len(frames), step))
    return [Sent(first, digests, final)]


def resumed(tmp_path: Path) -> tuple[MessageEncryptor, bytes]:
    header, kept, frames = begun(tmp_path)
    return MessageEncryptor.resume(header, aes(tmp_path), kept, records(frames)), frames


def test_goes_on(tmp_path: Path) -> None:
    header, kept, frames = begun(tmp_path)
    encryptor = MessageEncryptor.resume(header, aes(tmp_path), kept, records(frames))
    assert encryptor.header.raw == header
    again = bytearray(len(frames))
    encryptor.repeat(2, b"b" * FRAME, memoryview(again)[: FRAME + 32])
    encryptor.repeat(3, b"c" * FRAME, memoryview(again)[FRAME + 32 :])
    assert bytes(again) == frames
    message = header + sealed(encryptor, 1, b"a" * FRAME) + frames
    assert not encryptor.complete
    message += sealed(encryptor, 4, b"end", final=True)
    assert encryptor.complete
    content = b"a" * FRAME + b"b" * FRAME + b"c" * FRAME + b"end"
    assert decrypt_message(message, [private_rsa(tmp_path)], expected={"run": "7"}) == content


def test_the_final_frame_is_repeated_as_such(tmp_path: Path) -> None:
    encryptor = MessageEncryptor([aes(tmp_path)], {}, frame_length=FRAME)
    header = encryptor.header.raw
    frame = sealed(encryptor, 1, b"end", final=True)
    del encryptor
    gc.collect()
    encryptor = MessageEncryptor.resume(header, aes(tmp_path), None, [Sent(1, sha(frame), True)])
    again = bytearray(len(frame))
    encryptor.repeat(1, b"end", again)
    assert bytes(again) == frame
    with pytest.raises(ArtifactError):
        encryptor.repeat(1, b"end" + bytes(13), bytearray(FRAME + 32))


def test_a_recipient_of_the_message_may_keep_it(tmp_path: Path) -> None:
    header = MessageEncryptor([aes(tmp_path)], {}, frame_length=FRAME).header.raw
    assert MessageEncryptor.resume(header, aes(tmp_path), None, []).kept is None


@pytest.mark.parametrize(("sequence", "final"), [(2, False), (3, False), (2, True), (3, True), (1, True)], ids=str)
def test_numbers_that_were_sent_are_used(tmp_path: Path, sequence: int, final: bool) -> None:
    encryptor, _ = resumed(tmp_path)
    with pytest.raises(SealflowError) as caught:
        sealed(encryptor, sequence, b"x" * FRAME, final=final)
    assert caught.value.code == "NONCE_REUSE"


@pytest.mark.parametrize(
    "content", [b"d" * FRAME, b"b" * 15, b"", b"b" * 17], ids=["other", "shorter", "none", "longer"]
)
@pytest.mark.parametrize("length", [FRAME + 32, FRAME + 40, 32, 0], ids=str)
def test_other_content_never_leaves(tmp_path: Path, content: bytes, length: int) -> None:
    encryptor, _ = resumed(tmp_path)
    out = bytearray(b"x" * length)
    with pytest.raises(ArtifactError) as caught:
        encryptor.repeat(2, content, out)
    assert caught.value.code == "ARTIFACT_CHANGED"
    assert not any(out)


@pytest.mark.parametrize("sequence", [0, 1, 4, -1])
def test_only_what_was_sent_is_repeated(tmp_path: Path, sequence: int) -> None:
    encryptor, _ = resumed(tmp_path)
    with pytest.raises(ValueError, match="not sent"):
        encryptor.repeat(sequence, b"b" * FRAME, bytearray(FRAME + 32))


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ([Sent(1, bytes(64), False), Sent(2, bytes(32), False)], SealflowError),
        ([Sent(1, bytes(32), False), Sent(1, bytes(32), False)], SealflowError),
        ([Sent(1, bytes(32), True), Sent(2, bytes(32), False)], SealflowError),
        ([Sent(1, bytes(32), True), Sent(2, bytes(32), True)], SealflowError),
        ([Sent(0, bytes(32), False)], ValueError),
        ([Sent(1, b"", True)], ValueError),
        ([Sent(1, bytes(33), False)], ValueError),
    ],
    ids=["overlap", "twice", "behind-the-end", "two-ends", "number-0", "no-frames", "torn"],
)
def test_records_that_contradict_themselves(tmp_path: Path, sent: list[Sent], error: type[Exception]) -> None:
    header, kept, _ = begun(tmp_path)
    with pytest.raises(error):
        MessageEncryptor.resume(header, aes(tmp_path), kept, sent)


@pytest.mark.slow
def test_one_writer_at_a_time(tmp_path: Path) -> None:
    encryptor = MessageEncryptor([aes(tmp_path)], {}, frame_length=FRAME)
    header = encryptor.header.raw
    with pytest.raises(SealflowError, match="already") as caught:
        MessageEncryptor.resume(header, aes(tmp_path), None, [])
    assert caught.value.code == "NONCE_REUSE"
    del encryptor, caught
    gc.collect()
    resumed = MessageEncryptor.resume(header, aes(tmp_path), None, [])
    with pytest.raises(SealflowError, match="already"):
        MessageEncryptor.resume(header, aes(tmp_path), None, [])
    assert resumed.header.raw == header


def test_repeating_does_not_cross_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encryptor, _ = resumed(tmp_path)
    here = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)
    with pytest.raises(SealflowError, match="fork"):
        encryptor.repeat(2, b"b" * FRAME, bytearray(FRAME + 32))


def test_states_that_were_tampered_with(tmp_path: Path) -> None:
    header, kept, frames = begun(tmp_path)
    sent = records(frames)
    other = begun(tmp_path)
    keeper = aes(tmp_path)
    with pytest.raises(RecipientError):
        MessageEncryptor.resume(header, aes(tmp_path, 8), kept, sent)
    with pytest.raises(RecipientError):
        MessageEncryptor.resume(header, keeper, replace(kept, ciphertext=kept.ciphertext[:-1] + b"\x00\x00"), sent)
    with pytest.raises(EvidenceError) as caught:
        MessageEncryptor.resume(header, keeper, other[1], sent)
    assert caught.value.code == "COMMITMENT_MISMATCH"
    with pytest.raises(EvidenceError) as caught:
        MessageEncryptor.resume(header[:-1] + bytes([header[-1] ^ 1]), keeper, kept, sent)
    assert caught.value.code == "MESSAGE_ALTERED"


def test_signed_messages_are_not_ours() -> None:
    keys = [EncryptedDataKey("held", b"", b"")]
    message = forge(b"x", keys, DATA_KEY, suite=SIGNED_SUITE, signing_key=SIGNING_KEY)
    with pytest.raises(EvidenceError, match="not one of ours"):
        MessageEncryptor.resume(parts(message)[0], Knows(DATA_KEY), None, [])


class Book:
    """An AES-GCM that keeps book of what was encrypted under each key and nonce."""

    used: dict[tuple[bytes, bytes], set[tuple[bytes, bytes]]]

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.real = REAL(key)

    def _note(self, nonce: bytes, data: bytes, aad: bytes) -> None:
        self.used.setdefault((self.key, bytes(nonce)), set()).add((bytes(data), bytes(aad)))

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        self._note(nonce, data, aad)
        return self.real.encrypt(nonce, data, aad)

    def encrypt_into(self, nonce: bytes, data: bytes, aad: bytes, out: memoryview) -> int:
        self._note(nonce, data, aad)
        return self.real.encrypt_into(nonce, data, aad, out)

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        return self.real.decrypt(nonce, data, aad)

    def decrypt_into(self, nonce: bytes, data: bytes, aad: bytes, out: memoryview) -> int:
        return self.real.decrypt_into(nonce, data, aad, out)


REAL = suite_module.AESGCM


@given(
    data=st.data(),
    size=st.integers(0, 200),
    frames=st.integers(1, 3),
    crashes=st.integers(0, 4),
)
def test_killed_again_and_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, size: int, frames: int, crashes: int
) -> None:
    """Parts of some frames; before a part leaves it is written down; the source may change between two lives."""
    keeper = Knows(DATA_KEY)
    content = os.urandom(size)
    part = frames * FRAME
    count = max(1, -(-size // part))
    Book.used = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite_module, "AESGCM", Book)
        encryptor = MessageEncryptor([keeper], {}, frame_length=FRAME)
        header = encryptor.header.raw
        sent: dict[int, Sent] = {}
        stored: dict[int, bytes] = {}
        for life in range(crashes + 1):
            if life:
                del encryptor
                encryptor = MessageEncryptor.resume(header, keeper, None, sent.values())
            numbers = data.draw(st.permutations(range(count)))
            if life < crashes:
                numbers = numbers[: data.draw(st.integers(0, count))]
            for number in numbers:
                piece = content[number * part : (number + 1) * part]
                first = number * frames + 1
                last = number == count - 1
                slices = [piece[at : at + FRAME] for at in range(0, len(piece), FRAME)] or [b""]
                out, digests = bytearray(), b""
                for index, one in enumerate(slices):
                    final = last and index == len(slices) - 1
                    if first in sent:
                        if data.draw(st.booleans()):
                            with pytest.raises(ArtifactError):
                                encryptor.repeat(first + index, one + b"changed", bytearray(1))
                        frame = bytearray(encryptor.sealed_length(len(one), final=final))
                        encryptor.repeat(first + index, one, frame)
                    else:
                        frame = bytearray(sealed(encryptor, first + index, one, final=final))
                    out += frame
                    digests += sha(frame)
                sent[first] = Sent(first, digests, last)
                assert stored.setdefault(number, bytes(out)) == bytes(out)
        message = header + b"".join(stored[number] for number in range(count))
        decryptor = MessageDecryptor(message, [keeper], expected={}, size=len(message))
        assert decryptor.layout.content == size
        assert decrypt_message(message, [keeper], expected={}) == content
    assert all(len(what) == 1 for what in Book.used.values())


def test_an_ordinary_message_is_not_kept(tmp_path: Path) -> None:
    assert MessageEncryptor([aes(tmp_path)], {}).kept is None
    assert encrypt_message(b"", [aes(tmp_path)], {})
