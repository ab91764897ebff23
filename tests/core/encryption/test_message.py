"""Messages of ours: what is written is read, in any order and from threads, and no number is used twice."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.encryption import (
    ARTIFACT,
    RUN,
    EncryptedDataKey,
    EncryptionContext,
    Layout,
    MessageDecryptor,
    MessageEncryptor,
    Recipient,
    decrypt_message,
    encrypt_message,
)
from sealflow.encryption import raw as raw_module
from sealflow.encryption import suite as suite_module
from sealflow.errors import SealflowError, UnavailableError, UsageError
from tests.core.encryption.messages import Holder, aes, forge, private_rsa, public_rsa

CONTEXT = {ARTIFACT: "sha256:ab", RUN: "airflow:dag/task"}
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: not name.startswith("aws-crypto-")
)
contexts = st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5)


@pytest.fixture
def key(tmp_path: Path) -> Recipient:
    return aes(tmp_path)


@pytest.fixture(scope="module")
def recipient(tmp_path_factory: pytest.TempPathFactory) -> Recipient:
    return aes(tmp_path_factory.mktemp("key"))


@given(content=st.binary(max_size=300), frame_length=st.integers(1, 100), context=contexts)
def test_round_trips(recipient: Recipient, content: bytes, frame_length: int, context: dict[str, str]) -> None:
    message = encrypt_message(content, [recipient], context, frame_length=frame_length)
    assert decrypt_message(message, [recipient], expected=context) == content


@given(data=st.data(), content=st.binary(max_size=200), frame_length=st.integers(1, 40))
def test_frames_in_any_order_and_any_range(
    recipient: Recipient, data: st.DataObject, content: bytes, frame_length: int
) -> None:
    encryptor = MessageEncryptor([recipient], CONTEXT, frame_length=frame_length)
    layout = Layout.of_content(encryptor.header, len(content))
    assert layout.content == len(content)
    message = bytearray(layout.size)
    message[: layout.header] = encryptor.header.raw
    digests = {}
    for sequence in data.draw(st.permutations(range(1, layout.frames + 1))):
        start, end = layout.span(sequence)
        piece = content[(sequence - 1) * frame_length :][: layout.content_length(sequence)]
        assert not encryptor.complete
        digests[sequence] = encryptor.seal(
            sequence, piece, memoryview(message)[start:end], final=sequence == layout.frames
        )
        assert digests[sequence] == hashlib.sha256(message[start:end]).digest()
    assert encryptor.complete
    decryptor = MessageDecryptor(bytes(message), [recipient], expected=CONTEXT, size=len(message))
    assert decryptor.layout == layout
    start = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - start))
    found = b""
    for sequence, within in layout.covering(start, length):
        out = bytearray(layout.content_length(sequence))
        decryptor.open(sequence, message[slice(*layout.span(sequence))], out, sha256=digests[sequence])
        found += out[within]
    assert found == content[start : start + length]


@pytest.mark.parametrize("frame_length", [1, 16, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 33, 100])
def test_sizes(key: Recipient, size: int, frame_length: int) -> None:
    content = os.urandom(size)
    message = encrypt_message(content, [key], CONTEXT, frame_length=frame_length)
    assert decrypt_message(message, [key], expected=CONTEXT) == content
    frames = max(1, -(-size // frame_length))
    header = MessageDecryptor(message, [key], expected={}, size=len(message)).header
    assert len(message) == len(header.raw) + size + 32 * frames + 8


def test_an_empty_final_frame_as_others_may_write_it() -> None:
    holder = Holder(bytes(32))
    wrapped = [holder.wrap(b"", None)]  # type: ignore[arg-type]
    message = forge(b"x" * 32, wrapped, bytes(32), final_empty=True)
    assert decrypt_message(message, [holder], expected={}) == b"x" * 32


def test_each_recipient_opens_it(tmp_path: Path) -> None:
    keys = [aes(tmp_path), public_rsa(tmp_path), aes(tmp_path, 8)]
    message = encrypt_message(b"weights", keys, CONTEXT)
    for opener in (keys[0], private_rsa(tmp_path), keys[2]):
        assert decrypt_message(message, [opener], expected=CONTEXT) == b"weights"


def test_threads_share_an_encryptor_and_a_decryptor(key: Recipient) -> None:
    content = os.urandom(64 << 10)
    frame_length = 1 << 10
    encryptor = MessageEncryptor([key], CONTEXT, frame_length=frame_length)
    layout = Layout.of_content(encryptor.header, len(content))
    message = bytearray(layout.size)
    message[: layout.header] = encryptor.header.raw
    plain = bytearray(len(content))

    def seal(sequence: int) -> bytes:
        start, end = layout.span(sequence)
        at = (sequence - 1) * frame_length
        piece = content[at : at + frame_length]
        return encryptor.seal(sequence, piece, memoryview(message)[start:end], final=sequence == layout.frames)

    def unseal(item: tuple[int, bytes]) -> None:
        sequence, digest = item
        start, end = layout.span(sequence)
        at = (sequence - 1) * frame_length
        out = memoryview(plain)[at : at + frame_length]
        decryptor.open(sequence, memoryview(message)[start:end], out, sha256=digest)

    numbers = range(1, layout.frames + 1)
    with ThreadPoolExecutor(4) as pool:
        digests = list(pool.map(seal, numbers))
        decryptor = MessageDecryptor(message, [key], expected=CONTEXT, size=len(message))
        list(pool.map(unseal, zip(numbers, digests, strict=True)))
    assert bytes(plain) == content
    assert encryptor.complete


class Recorder:
    """An AES-GCM that keeps book of every key and nonce that encrypts."""

    used: list[tuple[bytes, bytes]]

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.real = REAL(key)

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        self.used.append((self.key, bytes(nonce)))
        return self.real.encrypt(nonce, data, aad)

    def encrypt_into(self, nonce: bytes, data: bytes, aad: bytes, out: memoryview) -> int:
        self.used.append((self.key, bytes(nonce)))
        return self.real.encrypt_into(nonce, data, aad, out)

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        return self.real.decrypt(nonce, data, aad)

    def decrypt_into(self, nonce: bytes, data: bytes, aad: bytes, out: memoryview) -> int:
        return self.real.decrypt_into(nonce, data, aad, out)


REAL = suite_module.AESGCM


def made_one(encryptor: MessageEncryptor, sequence: int, length: int, final: bool) -> bool:
    """Whether a frame was made; otherwise its number was taken."""
    try:
        encryptor.encrypt(sequence, os.urandom(length), bytearray(length + (40 if final else 32)), final=final)
    except SealflowError as error:
        if error.code != "NONCE_REUSE":
            raise
        return False
    return True


def test_no_key_and_nonce_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many messages to the same recipients, from threads that fight for the same numbers."""
    Recorder.used = []
    monkeypatch.setattr(suite_module, "AESGCM", Recorder)
    monkeypatch.setattr(raw_module, "AESGCM", Recorder)
    # A recipient that hands out the same data key again and again, as a broken key service might.
    keys = [Holder(bytes(32)), aes(tmp_path), aes(tmp_path, 8)]
    made = 0

    def work(encryptor: MessageEncryptor) -> int:
        regular = [(sequence, 16, False) for sequence in [*range(1, 20), *range(19, 0, -1)]]
        return sum(made_one(encryptor, *frame) for frame in [*regular, (20, 3, True), (20, 3, True)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(10):
                encryptor = MessageEncryptor(keys, CONTEXT, frame_length=16)
                made += sum(pool.map(work, [encryptor] * 4))
                assert encryptor.complete
    finally:
        sys.setswitchinterval(interval)
    assert made == 10 * 20
    # Frames, the header, and the two wrappings.
    assert len(Recorder.used) == made + 10 * 3
    assert len(set(Recorder.used)) == len(Recorder.used)


class Slow(set[int]):
    """Numbers that take so long to look up that other threads come in between, if they can."""

    def __contains__(self, number: object) -> bool:
        found = super().__contains__(number)
        time.sleep(0.01)
        return found


def test_two_threads_never_get_the_same_number(key: Recipient) -> None:
    encryptor = MessageEncryptor([key], CONTEXT, frame_length=16)
    encryptor._ahead = Slow()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: made_one(encryptor, 5, 16, False), range(4)))
    assert made.count(True) == 1


def encryptor_of(key: Recipient) -> MessageEncryptor:
    return MessageEncryptor([key], CONTEXT, frame_length=16)


@pytest.mark.parametrize(
    "calls",
    [
        [(1, False), (1, False)],
        [(1, False), (1, True)],
        [(1, True), (1, False)],
        [(1, True), (1, True)],
        [(1, True), (2, False)],
        [(1, True), (2, True)],
        [(2, True), (1, True)],
        [(3, False), (2, True)],
        [(3, False), (1, False), (2, False), (3, False)],
    ],
    ids=[
        "twice",
        "again-as-final",
        "again-as-regular",
        "final-twice",
        "behind-the-end",
        "final-behind-the-end",
        "final-before-the-end",
        "end-before-what-was-made",
        "out-of-order-twice",
    ],
)
def test_a_number_is_used_once(key: Recipient, calls: list[tuple[int, bool]]) -> None:
    encryptor = encryptor_of(key)
    *before, (sequence, final) = calls
    for number, last in before:
        encryptor.seal(number, bytes(16), bytearray(56 if last else 48), final=last)
    out = bytearray(56 if final else 48)
    with pytest.raises(SealflowError) as caught:
        encryptor.seal(sequence, bytes(16), out, final=final)
    assert caught.value.code == "NONCE_REUSE"
    assert not any(out)


@pytest.mark.parametrize(
    ("sequence", "content", "length", "final"),
    [
        (0, 16, 48, False),
        (-1, 16, 48, False),
        (0xFFFF_FFFF, 16, 48, False),
        (1, 15, 47, False),
        (1, 17, 49, False),
        (1, 17, 57, True),
        (1, 16, 47, False),
        (1, 16, 56, False),
        (1, 16, 48, True),
    ],
)
def test_what_does_not_fit_uses_no_number(
    key: Recipient, sequence: int, content: int, length: int, final: bool
) -> None:
    encryptor = encryptor_of(key)
    with pytest.raises(ValueError, match=r"frame|buffer"):
        encryptor.seal(sequence, bytes(content), bytearray(length), final=final)
    encryptor.seal(1, bytes(16), bytearray(48))


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_encryptor_is_not_copied(key: Recipient, how: object) -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        how(encryptor_of(key))  # type: ignore[operator]


def test_an_encryptor_does_not_cross_a_fork(key: Recipient, monkeypatch: pytest.MonkeyPatch) -> None:
    encryptor = encryptor_of(key)
    here = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)
    with pytest.raises(SealflowError, match="fork"):
        encryptor.seal(1, bytes(16), bytearray(48))


def test_every_message_has_keys_and_numbers_of_its_own(key: Recipient) -> None:
    first, second = encryptor_of(key).header, encryptor_of(key).header
    assert first.message_id != second.message_id
    assert first.commitment != second.commitment
    assert first.data_keys != second.data_keys


@pytest.mark.parametrize("frame_length", [0, -1, (16 << 20) + 1, 1 << 32])
def test_frame_lengths_that_nobody_would_read(frame_length: int) -> None:
    holder = Holder(bytes(32))
    with pytest.raises(UsageError, match="A frame holds"):
        MessageEncryptor([holder], {}, frame_length=frame_length)


def test_limits_are_checked_before_a_key_is_made() -> None:
    class Counted(Holder):
        made = 0

        def generate(self, context):
            self.made += 1
            return super().generate(context)

    holder = Counted(bytes(32))
    for recipients, context in (([holder] * 33, {}), ([holder], {"a": "x" * (17 << 10)}), ([holder], {"": "x"})):
        with pytest.raises(UsageError):
            MessageEncryptor(recipients, context)
    assert holder.made == 0
    with pytest.raises(UsageError, match="Nobody"):
        MessageEncryptor([], {})


@pytest.mark.parametrize(("count", "size"), [(32, 3000), (1, 0x10000)], ids=["together", "one"])
def test_headers_that_nobody_would_read(count: int, size: int) -> None:
    class Large(Holder):
        def wrap(self, data_key: bytes, context: EncryptionContext) -> EncryptedDataKey:
            return EncryptedDataKey("large", b"", bytes(size))

    with pytest.raises(UsageError, match="bytes"):
        MessageEncryptor([Large(bytes(32))] * count, {})


def test_a_data_key_of_another_length_is_not_used() -> None:
    with pytest.raises(UnavailableError, match="16 bytes"):
        MessageEncryptor([Holder(bytes(16))], {})


@pytest.mark.parametrize(
    "context",
    [{"aws-crypto-x": "1"}, {"a": 1}, {1: "a"}, {"a": "\ud800"}, {str(n): "" for n in range(65)}],
    ids=["reserved", "number", "number-as-name", "surrogate", "too-many"],
)
def test_contexts_that_are_not_written(context: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        MessageEncryptor([Holder(bytes(32))], context)


def test_ranges_beyond_the_content(key: Recipient) -> None:
    layout = Layout.of_content(encryptor_of(key).header, 100)
    for start, length in ((-1, 1), (0, 101), (101, 0), (5, -1)):
        with pytest.raises(ValueError, match="within"):
            list(layout.covering(start, length))
    for sequence in (0, 8):
        with pytest.raises(ValueError, match="no frame"):
            layout.span(sequence)


def test_other_threads_run_while_a_frame_is_made(key: Recipient) -> None:
    """The library's calls into a buffer let go of the interpreter; that is what callers' threads are for."""
    frame_length = 16 << 20
    content, out = bytes(frame_length), bytearray(frame_length + 32)
    encryptor = MessageEncryptor([key], CONTEXT, frame_length=frame_length)
    ticks: list[bool] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(True)
            time.sleep(0)

    ran = False
    thread = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nobody is made to let go
    thread.start()
    try:
        # On a busy machine the other thread may miss a frame or two for want of a processor.
        for sequence in range(1, 50):
            before = len(ticks)
            encryptor.encrypt(sequence, content, out)
            if ran := len(ticks) > before:
                break
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert ran


def test_nothing_heavy_is_imported() -> None:
    script = "import sys\nbefore = set(sys.modules)\nimport sealflow.encryption\nprint(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"boto3", "botocore", "aws_encryption_sdk", "pydantic", "yaml", "importlib.metadata"}
    assert heavy.isdisjoint(done.stdout.split())
