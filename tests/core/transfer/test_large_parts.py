"""Parts that are too large for memory, and what an upload writes down: bounded at any size that a store takes."""

from __future__ import annotations

import errno
import os
import re
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sealflow.actions.copy import send_file
from sealflow.encryption import ARTIFACT, MessageEncryptor, load_recipient
from sealflow.errors import ArtifactError, UnavailableError
from sealflow.evidence.encryption import MAX_LIST
from sealflow.storage import Entry, memory
from sealflow.storage.memory import buffer, buffer_in_file, part_buffer, release
from sealflow.storage.s3_uploads import _Body
from sealflow.transfer import receive, send
from sealflow.transfer.receive import stored_pieces
from sealflow.transfer.resume import UploadState
from sealflow.transfer.send import LARGEST, Shape
from tests.core.transfer.stores import FolderStore
from tests.core.transfer.world import Sender, read_tree, shaped

MIB, TIB = 1 << 20, 1 << 40


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "room"
    folder.mkdir()
    monkeypatch.setenv("SEALFLOW_TMPDIR", str(folder))
    return folder


@pytest.fixture
def in_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every part lie in a file; the sizes of those that were made."""
    made: list[int] = []

    def counted(size: int) -> memoryview:
        made.append(size)
        return buffer_in_file(size)

    monkeypatch.setattr(memory, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setattr(send, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setattr(receive, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setattr(memory, "buffer_in_file", counted)
    return made


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path / "world")


def resident(place: Path) -> int:
    """Bytes of this process's memory that are pages of files in a folder, as the kernel counts them."""
    total = 0
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(place) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


# --- Buffers in files ---


def test_a_buffer_in_a_file_takes_memory_only_until_it_is_released(place: Path) -> None:
    view = buffer_in_file(8 * MIB)
    view[:] = os.urandom(MIB) * 8
    before = bytes(view[5 * MIB : 6 * MIB])
    assert resident(place) == 8 * MIB
    release(view[MIB:])
    assert resident(place) == 0
    assert view[5 * MIB : 6 * MIB] == before
    assert resident(place) >= MIB
    release(view)
    assert resident(place) == 0


def test_a_buffer_in_a_file_is_of_zeros_and_leaves_nothing(place: Path) -> None:
    view = buffer_in_file(100_000)
    assert len(view) == 100_000
    assert not any(view)
    assert os.listdir(place) == []
    assert len(buffer_in_file(0)) == 0


def test_other_memory_is_not_released() -> None:
    view = buffer(MIB)
    view[:3] = b"abc"
    release(view)
    release(memoryview(b"abc"))
    assert view[:3] == b"abc"


def test_where_a_part_lies(place: Path) -> None:
    assert type(part_buffer(memory.LARGEST_IN_MEMORY).obj) is not memory._InFile
    assert type(part_buffer(memory.LARGEST_IN_MEMORY + 1).obj) is memory._InFile


def test_the_body_of_a_request_holds_one_piece_of_a_large_part(place: Path) -> None:
    content = os.urandom(MIB) * 4
    view = buffer_in_file(len(content))
    view[:] = content
    body = _Body(view)
    for _ in range(2):  # each attempt sends the same
        body.seek(0)
        read = bytearray()
        while piece := body.read(1 << 14):
            read += piece
            assert resident(place) <= 2 * MIB  # the piece, and what the kernel reads around it
        assert read == content


def test_no_room_is_said_and_not_met_later(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with holes would end the process by a signal when the disk is full."""
    reserved: list[int] = []

    def full(fd: int, start: int, size: int) -> None:
        reserved.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UnavailableError, match=r"no room for a part of 552 MiB.*No space left") as caught:
        buffer_in_file(552 * MIB)
    assert (caught.value.code, reserved) == ("NO_SPACE", [552 * MIB])
    assert "SEALFLOW_TMPDIR" in str(caught.value.next_step)
    assert os.listdir(place) == []


def test_all_of_a_buffer_in_a_file_is_reserved(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    reserve = os.posix_fallocate

    def reserved(fd: int, start: int, size: int) -> None:
        reserve(fd, start, size)
        taken.append(os.fstat(fd).st_blocks * 512)

    monkeypatch.setattr(os, "posix_fallocate", reserved)
    assert len(buffer_in_file(3 * MIB)) == 3 * MIB
    assert taken
    assert taken[0] >= 3 * MIB


def test_where_a_file_cannot_be_reserved_it_is_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    view = buffer_in_file(MIB + 1)
    assert len(view) == MIB + 1
    assert not any(view)


# --- Uploads, downloads and copies ---


def test_an_upload_whose_parts_lie_in_files(sender: Sender, in_files: list[int], place: Path) -> None:
    with shaped(64, 2):
        sender.store.hook = lambda step: os.listdir(place) == [] or pytest.fail(f"{step}: a file has a name")
        uploaded = sender.upload()
    assert in_files
    sender.store.hook = lambda step: None
    sender.download(uploaded.ref)
    assert sender.copy() == read_tree(sender.source)
    assert resident(place) == 0


def test_one_file_is_enough(sender: Sender, in_files: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is room for one part only, parts are filled and sent in turn."""
    once = memory.buffer_in_file

    def full(size: int) -> memoryview:
        if in_files:
            raise UnavailableError("full", code="NO_SPACE")
        return once(size)

    monkeypatch.setattr(memory, "buffer_in_file", full)
    with shaped(64, 2):
        uploaded = sender.upload()
    assert len(in_files) == 1
    assert sender.verify(uploaded.ref).passed


def test_no_room_at_all_begins_nothing(sender: Sender, in_files: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(size: int) -> memoryview:
        raise UnavailableError("full", code="NO_SPACE")

    monkeypatch.setattr(memory, "buffer_in_file", full)
    with shaped(64, 2), pytest.raises(UnavailableError) as caught:
        sender.upload()
    assert caught.value.code == "NO_SPACE"
    assert sender.store.content(sender.place) is None
    assert sender.store.unfinished(sender.place, 10) == []


@pytest.mark.parametrize("least", [1, 1000, 1 << 20])
def test_stored_pieces_from_files(sender: Sender, in_files: list[int], least: int) -> None:
    with shaped(64, 2):
        uploaded = sender.upload()
    in_files.clear()
    sealed = receive.look(sender.store, sender.place)
    assert sealed is not None
    pieces = [(offset, bytes(view)) for offset, view in stored_pieces(sealed, sender.digests(uploaded), least)]
    assert len(in_files) == 1
    assert b"".join(piece for _, piece in pieces) == sender.message
    assert [offset for offset, _ in pieces] == [sum(len(p) for _, p in pieces[:at]) for at in range(len(pieces))]


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 201, 1000])
@pytest.mark.parametrize("pieces", [1, 7, 100, 250, 1000])
def test_a_clear_file_is_sent_in_parts(
    tmp_path: Path, in_files: list[int], monkeypatch: pytest.MonkeyPatch, size: int, pieces: int
) -> None:
    monkeypatch.setattr(send, "PART", 100)
    content = os.urandom(size)
    store = FolderStore(tmp_path / "store")
    sent: list[str] = []
    store.hook = sent.append

    class Reader:
        def read(self, entry: Entry, consume: Any) -> int:
            for at in range(0, size, pieces):
                consume(content[at : at + pieces])
            return size

    send_file(store, "s3://bucket/file", Reader(), Entry("file", size), overwrite=False)
    assert store.content("s3://bucket/file") == content
    parts = [step for step in sent if step.startswith("send ")]
    assert len(parts) == (-(-size // 100) if size > 100 else 0)
    assert in_files == [max(1, min(size, 100))]


@pytest.mark.parametrize("size", [0, 4, 15])
def test_a_clear_file_that_grew_is_not_sent(tmp_path: Path, size: int) -> None:
    store = FolderStore(tmp_path / "store")

    class Reader:
        def read(self, entry: Entry, consume: Any) -> int:
            consume(b"more than it was")
            return 16

    with pytest.raises(ArtifactError) as caught:
        send_file(store, "s3://bucket/file", Reader(), Entry("file", size), overwrite=False)
    assert caught.value.code == "ARTIFACT_CHANGED"
    assert store.content("s3://bucket/file") is None
    assert store.unfinished("s3://bucket", 10) == []


# --- What grows: the digests of frames ---


@pytest.mark.parametrize("size", [TIB, 5 * TIB, 8 * TIB, LARGEST])
def test_the_list_of_digests_has_room_for_every_size(size: int) -> None:
    # Headers and paddings of files, index and signature come on top.
    frames = (size + size // 50) // Shape.of(size, None).frame + 2
    assert 32 * (frames + 1) <= MAX_LIST
    assert size > 5 * TIB or 32 * frames <= 22 * MIB


def test_what_has_no_room_in_the_format_is_refused_at_the_start() -> None:
    with pytest.raises(ArtifactError, match="has 32 TiB; one encrypted object holds 31 at most"):
        Shape.of(LARGEST + 1, None)


def test_a_download_takes_the_longest_frames_one_after_another() -> None:
    def window(length: int) -> receive.Window:
        artifact: Any = SimpleNamespace(
            content=lambda group: length,
            stored=lambda group: length + 32,
            sealed=SimpleNamespace(layout=SimpleNamespace(frame_length=length)),
        )
        return receive.Window(artifact, [(number, number) for number in range(1, 10)], None, whole=True)

    for length, parallel in ((8 * MIB, 3), (16 * MIB, 1)):
        opened = window(length)
        opened.close()
        assert opened._parallel == parallel
        assert (opened._pool is None) == (parallel == 1)


def encryptor_of(sender: Sender) -> MessageEncryptor:
    recipient = load_recipient(sender.recipients[0])
    return MessageEncryptor([recipient], {ARTIFACT: "model"}, frame_length=1, keeper=recipient)


def test_the_digests_of_an_upload_are_held_once(sender: Sender) -> None:
    encryptor = encryptor_of(sender)
    parts = send._Parts(encryptor, Shape(1, 1000), lambda: pytest.fail("begun"), None, lambda count: None)  # type: ignore[arg-type]
    count = 200
    tracemalloc.start()
    try:
        for number in range(count):
            part: Any = SimpleNamespace(
                frames=[(0, 1)] * 1000,
                first=1 + number * 1000,
                buffer=memoryview(bytes([number])),
                filled=1,
                content=b"",
            )
            parts._digest(part)
        listed = parts._digests.getvalue()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = 32 * (1 + count * 1000)
    assert len(listed) == size
    assert listed[:32] == encryptor.header_sha256
    # It grows by an eighth at a time, and is handed on without a copy.
    assert peak < 1.3 * size + MIB


@pytest.mark.slow
def test_what_is_written_down_of_5_tib_is_held_once(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it by the process that writes it, and one copy by the one that goes on."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    shape = Shape.of(5 * TIB, 10_000)
    parts = -(-5 * TIB // (shape.frame * shape.frames))
    encryptor = encryptor_of(sender)
    state = UploadState("source", "destination")
    state.begin(encryptor, "token", 1, shape.frames, [load_recipient(sender.recipients[0])])
    digests = [bytes([number]) * 32 * shape.frames for number in range(2)]
    before = None
    tracemalloc.start()
    try:
        for number in range(1, parts + 1):
            state.sending(number, 1 + (number - 1) * shape.frames, digests[number % 2], False)
            state.sent(number, f'"{number:032x}"')
            if number == 1:
                before, _ = tracemalloc.get_traced_memory()
        written, _ = tracemalloc.get_traced_memory()
        assert before is not None
        assert written - before < 3 * MIB
        state.close()
        tracemalloc.reset_peak()
        resumed = UploadState("source", "destination")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert resumed.resumed
    assert resumed.knows(parts * shape.frames)
    assert not resumed.knows(parts * shape.frames + 1)
    resumed.close()
    listed = 32 * parts * shape.frames
    assert 20 * MIB < listed < 22 * MIB
    assert peak < listed + 8 * MIB
