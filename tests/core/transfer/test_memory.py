"""How much is held in memory at the same time, at any size: as planned, and as an upload and a download then do it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.storage import memory
from sealflow.storage.local import LocalStorage
from sealflow.storage.other import FsspecStorage
from sealflow.storage.s3 import S3Storage
from sealflow.transfer import receive, send
from sealflow.transfer.send import PART, Shape, buffers, part_size
from tests.core.transfer.world import Sender, shaped

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
#: Header and what encryption adds to each frame of a part, more than that.
OVERHEAD = 64 << 10
#: The largest object of S3.
LARGEST = 5 * TIB
BUFFERS = 72 * MIB


def planned(size: int, most_parts: int | None, parallel: int = 16) -> tuple[int, int]:
    """Return how many buffers an upload of a size has, and the bytes of each."""
    shape = Shape.of(size, most_parts)
    part = shape.frame * shape.frames
    return buffers(part + OVERHEAD, parallel), part


@pytest.mark.parametrize(
    ("size", "held", "part"),
    [
        pytest.param(0, 4, 63 * MIB // 4, id="nothing"),
        pytest.param(16 * GIB, 4, 63 * MIB // 4, id="16-GiB"),
        pytest.param(148 * GIB, 4, 16 * MIB, id="148-GiB"),
        pytest.param(149 * GIB, 4, 17 * MIB, id="149-GiB"),
        pytest.param(256 * GIB, 2, 28 * MIB, id="256-GiB"),
        pytest.param(296 * GIB, 2, 32 * MIB, id="last-in-memory"),
        pytest.param(298 * GIB, 3, 36 * MIB, id="first-in-files"),
        pytest.param(TIB, 3, 112 * MIB, id="1-TiB"),
        pytest.param(LARGEST, 3, 552 * MIB, id="5-TiB"),
        pytest.param(31 * TIB, 3, 3424 * MIB, id="31-TiB"),
    ],
)
def test_buffers_of_an_upload_to_s3(size: int, held: int, part: int) -> None:
    assert planned(size, S3Storage.most_parts) == (held, part)


@given(st.integers(0, send.LARGEST), st.integers(1, 64))
def test_an_upload_to_s3_holds_72_mib_of_parts_or_three_files(size: int, parallel: int) -> None:
    held, part = planned(size, S3Storage.most_parts, parallel)
    assert held >= 2
    if part + OVERHEAD <= memory.LARGEST_IN_MEMORY:
        assert held * part <= BUFFERS
    else:
        assert held <= 3
        assert size > 290 * GIB
    assert part <= size / 9_500 + Shape.of(size, None).frame or part <= 16 * MIB
    assert S3Storage.largest_part is not None
    assert part + OVERHEAD <= S3Storage.largest_part


@given(st.integers(0, send.LARGEST), st.integers(1, 64))
@pytest.mark.parametrize("storage", [LocalStorage, FsspecStorage])
def test_an_upload_to_any_other_place_holds_72_mib_at_any_size(storage: Any, size: int, parallel: int) -> None:
    held, part = planned(size, storage.most_parts, parallel)
    # Whole frames, and the longest have 16 MiB.
    assert part_size(size, storage.most_parts) == PART <= part <= 16 * MIB
    assert held * part <= BUFFERS


@pytest.mark.parametrize("room", [0, 1, 2, 5])
def test_an_upload_makes_no_more_buffers_than_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Where there is room for one only, or not even for that, parts are filled and sent in turn.

    The store takes one part at a time, so two are enough at any rate.
    """
    made: list[int] = []
    before = send._Part.__init__

    def counted(self: Any, size: int) -> None:
        made.append(size)
        before(self, size)

    sender = Sender(tmp_path / "world")
    with shaped(64, 2):
        monkeypatch.setattr(send._Part, "__init__", counted)
        sender.upload(destination="s3://bucket/before/model.sealed")
        size = made[0]
        made.clear()
        monkeypatch.setattr(send, "_MEMORY", room * size + size - 1)
        uploaded = sender.upload()
    assert made == [size] * max(1, min(room, 2))
    assert sender.verify(uploaded.ref).passed


@pytest.mark.parametrize("size", [0, GIB, 100 * GIB, TIB, 5 * TIB, 8 * TIB])
def test_a_group_of_a_download_has_8_mib_at_any_size(size: int) -> None:
    frame = Shape.of(size, None).frame
    assert frame <= receive._GROUP
    assert max(1, receive._GROUP // frame) * frame == 8 * MIB


def test_a_download_makes_seven_buffers_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three for what is fetched, four for what was decrypted: 56 MiB."""
    sender = Sender(tmp_path / "world")
    with shaped(64, 2):
        uploaded = sender.upload()
    monkeypatch.setattr(receive, "_GROUP", 128)
    seen: list[Any] = []
    monkeypatch.setattr(receive, "_buffer", counting(receive._buffer, seen))
    with sender.opened(uploaded) as artifact:
        window = artifact.window([(0, artifact.index.members[-1].end)], whole=True)
        try:
            at, end = 0, artifact.index.members[-1].end
            while at < end:
                at += len(window.piece(at, end - at))
        finally:
            window.close()
    assert len({id(view.obj) for view in seen}) <= 2 * receive._PARALLEL + 1
    assert len(seen) > 2 * (2 * receive._PARALLEL + 1)


def counting(function: Any, seen: list[Any]) -> Any:
    """Return the function, whose results are kept."""

    def counted(*given: Any) -> Any:
        seen.append(function(*given))
        return seen[-1]

    return counted


_UPLOAD = """
import sys
from sealflow.actions.upload import upload
from sealflow.storage.local import LocalStorage
LocalStorage.most_parts = int(sys.argv[5]) or None  # as a store that takes so many parts and no more
upload(sys.argv[1], sys.argv[2], recipients="aes:" + sys.argv[3], signer="file:" + sys.argv[4], overwrite=True)
# Not the kernel's account of the process: that begins with the memory of whoever started it.
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.mark.slow
def test_the_peak_of_an_upload_does_not_grow_with_the_artifact(tmp_path: Path) -> None:
    """A small stand-in: a file of a few parts, one of many, and one whose store takes few parts, so that they grow."""
    sender = Sender(tmp_path / "world")
    secret = sender.recipients[0].removeprefix("aes:")
    key = str(sender.key.signer).removeprefix("file:")
    peaks = {}
    for name, size, most in (("few", 100 * MIB, 0), ("many", 300 * MIB, 0), ("limit", 300 * MIB, 5)):
        with open(tmp_path / "data", "wb") as file:
            file.truncate(size)
        target = tmp_path / "sealed"
        command = [sys.executable, "-c", _UPLOAD, tmp_path / "data", target, secret, key, str(most)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[name] = int(re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)[-1]) / 1024
        target.unlink()
    # The buffers of the first two are the same; the third one's part is a fifth of the file, and lies in a file.
    assert part_size(300 * MIB, 5) > memory.LARGEST_IN_MEMORY
    # How many of their buffers the first two really take is a matter of luck; what they hold else is not.
    assert peaks["many"] < peaks["few"] + BUFFERS / MIB + 8, peaks
    assert peaks["limit"] < peaks["few"], peaks
    assert max(peaks.values()) < 150, peaks
