"""Files of this machine are read into the frames: what is digested, encrypted and brought back is the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.errors import ArtifactError
from sealflow.hashing import CHUNK
from sealflow.storage import local
from sealflow.storage.base import Filled
from sealflow.storage.memory import buffer
from tests.core.transfer.world import Sender, shaped

FRAME = 64 << 10
#: Shorter files are read by one call, and handed on.
SHORTEST = CHUNK


def content(size: int) -> bytes:
    """Bytes of which no two ranges are alike."""
    return hashlib.shake_128(b"content").digest(size)


# A header of 512 bytes stands before the file, so FRAME - 512 of it fill a frame.
@pytest.mark.parametrize("more", [0, 1, FRAME - 513, FRAME - 512, FRAME - 511, 2 * FRAME - 512])
def test_a_file_that_ends_anywhere_in_a_frame(tmp_path: Path, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(tmp_path / "world", {"model": content(SHORTEST + more)})
    in_place: list[int] = []
    before = local._consume_rest

    def watched(fd: int, total: int, consume: Any) -> int:
        assert isinstance(consume, Filled)
        in_place.append(before(fd, total, consume))
        return in_place[-1]

    monkeypatch.setattr(local, "_consume_rest", watched)
    with shaped(FRAME, 3):
        uploaded = sender.upload()
    assert in_place == [SHORTEST + more]
    monkeypatch.undo()
    assert sender.plaintext[512:][: SHORTEST + more] == content(SHORTEST + more)
    assert sender.verify(uploaded.ref).passed
    sender.download(uploaded.ref)
    assert sender.copy() == {"copy": content(SHORTEST + more)}


def test_large_files_among_small_ones(tmp_path: Path) -> None:
    files = {"a": b"small", "b": content(SHORTEST), "c": b"", "d": content(SHORTEST + FRAME + 77), "e": b"end"}
    sender = Sender(tmp_path / "world", files)
    with shaped(FRAME, 2):
        uploaded = sender.upload()
    sender.download(uploaded.ref)
    assert sender.copy() == files


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: os.truncate(path, SHORTEST + 2 * FRAME), id="grows"),
        pytest.param(lambda path: os.truncate(path, SHORTEST), id="shrinks"),
        pytest.param(lambda path: path.write_bytes(content(SHORTEST + FRAME)[::-1]), id="is-written-anew"),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], Any]
) -> None:
    sender = Sender(tmp_path / "world", {"model": content(SHORTEST + FRAME)})
    readv, calls = os.readv, []

    def changing(fd: int, buffers: Any) -> int:
        calls.append(fd)
        if len(calls) == 2:
            change(sender.source)
        return readv(fd, buffers)

    monkeypatch.setattr(os, "readv", changing)
    with shaped(FRAME, 3), pytest.raises(ArtifactError) as caught:
        sender.upload()
    assert caught.value.code == "ARTIFACT_CHANGED"
    assert len(calls) > 2
    assert sender.store.content(sender.place) is None
    assert sender.store.uploads() == []


@pytest.mark.parametrize("size", [0, 1, 4097, (2 << 20) - 1, 2 << 20, (4 << 20) + 5])
def test_a_buffer_is_writable_zero_and_of_its_size(size: int) -> None:
    view = buffer(size)
    assert len(view) == size
    assert bytes(view) == bytes(size)
    view[:] = b"\x5a" * size
    assert bytes(view) == b"\x5a" * size


def test_a_buffer_is_not_shared_with_a_process_that_is_forked() -> None:
    view = buffer(4096)
    child = os.fork()
    if child == 0:
        view[:5] = b"child"
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(view[:5]) == bytes(5)
