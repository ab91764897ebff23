"""A download that was interrupted: what it left is used where it is still what was signed, and nowhere else."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.errors import ArtifactError, SealflowError, UnavailableError, VerificationError
from sealflow.transfer import receive
from sealflow.transfer.archive import Index, Member, padding, tar_header
from sealflow.transfer.receive import Salvage
from tests.core.transfer.stores import down
from tests.core.transfer.world import PLACE, TREE, Sender, giving_away, read_tree, shaped, write_tree

pytestmark = pytest.mark.slow

FRAME = 256
FILES = {**TREE, "a.bin": os.urandom(5000), "sub/z.bin": os.urandom(3000), "sub/ü/" + "n" * 120: b"long"}


@pytest.fixture(autouse=True)
def _small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "_GROUP", 2 * FRAME)
    monkeypatch.setattr(receive, "_SHORT", 1)
    monkeypatch.setattr(receive, "_FIRST_TAIL", 2048)


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    made = Sender(tmp_path / "world", FILES)
    with shaped(FRAME, 4):
        made.upload()
    return made


def fetched(sender: Sender) -> int:
    """Bytes that were read of the object since the last call."""
    count = sum(length for item in sender.store.opened for _, length in item.reads)
    sender.store.opened.clear()
    return count


def interrupt(sender: Sender, at: int, make: Callable[[], BaseException] = down) -> bool:
    """Download, and let a read fail; tell whether it came so far."""
    left = [at]

    def hook(name: str) -> None:
        if name.startswith("read "):
            left[0] -= 1
            if not left[0]:
                raise make()

    sender.store.hook = hook
    try:
        sender.download()
    except (VerificationError, UnavailableError, KeyboardInterrupt, MemoryError):
        return True
    finally:
        sender.store.hook = lambda _: None
    return False


def partial(sender: Sender) -> Path:
    (name,) = sender.left()
    assert name.startswith(".copy.")
    return sender.folder / "out" / name


@pytest.mark.parametrize("make", [down, KeyboardInterrupt, MemoryError])
def test_goes_on(sender: Sender, make: Any) -> None:
    sender.download(to="whole")
    whole = fetched(sender)
    for at in (14, 25, 38):
        assert interrupt(sender, at, make)
        assert not (sender.folder / "out" / "copy").exists()
        fetched(sender)
        sender.download()
        assert sender.copy() == FILES
        assert fetched(sender) < whole - (at - 12) * FRAME
        assert sender.left() == ["copy", "copy.evidence", "whole", "whole.evidence"]
        for name in ("run.sh", "a.bin"):
            assert os.access(sender.folder / "out" / "copy" / name, os.X_OK) is (name == "run.sh")
        shutil.rmtree(sender.folder / "out" / "copy")


def test_attempt_that_dies_early_costs_nothing(sender: Sender) -> None:
    interrupt(sender, 30)
    interrupt(sender, 3)
    interrupt(sender, 1)
    fetched(sender)
    sender.download(to="whole")
    whole = fetched(sender)
    sender.download()
    assert sender.copy() == FILES
    assert fetched(sender) < whole * 2 // 3


ALTERED: dict[str, Callable[[Path], object]] = {
    "flipped": lambda path: path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes())),
    "last-byte": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x00"),
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "link": lambda path: (path.rename(path.with_name("real")), path.symlink_to("real")),
    "executable": lambda path: path.chmod(0o777),
}


@pytest.mark.parametrize("how", ALTERED)
def test_what_was_left_is_no_evidence(sender: Sender, how: str) -> None:
    """Each frame of it is compared with its signed digest."""
    interrupt(sender, 30)
    files = [path for path in sorted((partial(sender) / "artifact").rglob("*")) if path.is_file()]
    assert len(files) > 1
    for path in files:
        ALTERED[how](path)
    sender.download()
    assert sender.copy() == FILES
    assert not os.access(sender.folder / "out" / "copy" / "a.bin", os.X_OK)
    assert sender.left() == ["copy", "copy.evidence"]


def test_other_artifact_meanwhile(sender: Sender) -> None:
    interrupt(sender, 30)
    sender.write({"a.bin": bytes(reversed(FILES["a.bin"])), "run.sh": b"#!/bin/false\n"})
    with shaped(FRAME, 4):
        sender.upload(overwrite=True)
    sender.download()
    assert sender.copy() == {**FILES, "a.bin": bytes(reversed(FILES["a.bin"])), "run.sh": b"#!/bin/false\n"}


def test_refused_meanwhile(sender: Sender) -> None:
    """What cannot be believed leaves nothing behind, neither new nor old."""
    interrupt(sender, 30)
    data = bytearray(sender.message)
    data[-700] ^= 1
    sender.store.place(PLACE, bytes(data))
    with pytest.raises(VerificationError):
        sender.download()
    assert sender.left() == []


def test_one_process_at_a_time(sender: Sender) -> None:
    seen: list[str] = []

    def hook(name: str) -> None:
        if name.startswith("read ") and not seen:
            seen.append(name)
            with pytest.raises(UnavailableError) as caught:
                sender.download()
            seen.append(caught.value.code)

    sender.store.hook = hook
    sender.download()
    assert seen[1] == "DOWNLOAD_RUNNING"
    assert sender.copy() == FILES


PLANTED: dict[str, Callable[[Path, Callable[[Path], None]], object]] = {
    "open-to-others": lambda path, away: path.mkdir() or path.chmod(0o755),
    "of-another-user": lambda path, away: path.mkdir(mode=0o700) or away(path),
    "link": lambda path, away: (path.with_name("elsewhere").mkdir(mode=0o700), path.symlink_to("elsewhere")),
    "file": lambda path, away: path.touch(mode=0o600),
    "fifo": lambda path, away: os.mkfifo(path, 0o600),
}


@pytest.mark.parametrize("how", PLANTED)
def test_planted_where_others_may_write(sender: Sender, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    interrupt(sender, 30)
    path = partial(sender)
    path.rename(sender.folder / "away")
    PLANTED[how](path, giving_away(monkeypatch))
    with pytest.raises(UnavailableError):
        sender.download()
    assert not (sender.folder / "out" / "copy").exists()
    assert not list((sender.folder / "out").glob("elsewhere/*"))


def test_something_else_at_the_destination(sender: Sender) -> None:
    write_tree(sender.folder / "out" / "copy", {"a.bin": b"mine"})
    for target in (None, sender.verify() and PLACE):
        with pytest.raises(ArtifactError) as caught:
            sender.download(target)
        assert caught.value.code == "ARTIFACT_EXISTS"
    assert sender.copy() == {"a.bin": b"mine"}
    sender.download(overwrite=True)
    assert sender.copy() == FILES


# --- Killed ---


def killed(sender: Sender, at: int) -> bool:
    """Download in a process of its own that dies at its n-th read; tell whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            left = [at]

            def hook(name: str) -> None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            sender.store.hook = hook
            sender.download()
            status = 0
        finally:
            os._exit(status)
    _, waited = os.waitpid(child, 0)
    assert os.WIFSIGNALED(waited) or os.WEXITSTATUS(waited) == 0
    return os.WIFSIGNALED(waited)


@pytest.mark.slow
def test_killed_at_every_step(sender: Sender) -> None:
    """Nothing at the destination, or all; and the next attempt is none the worse for it."""
    at = 0
    while killed(sender, at):
        assert not (sender.folder / "out" / "copy").exists()
        at += 1
        assert at < 1000
    assert sender.copy() == FILES
    for step in range(0, 60, 7):
        target = Sender(sender.folder.parent / f"world-{step}", FILES)
        with shaped(FRAME, 4):
            target.upload()
        if killed(target, step):
            target.download()
        assert target.copy() == FILES
        assert target.left() == ["copy", "copy.evidence"]


# --- The reader of what is left ---


def index_of(files: dict[str, bytes]) -> tuple[Index, bytes]:
    made, members = bytearray(), []
    for name, content in sorted(files.items()):
        made += tar_header(f"m/{name}", len(content))
        members.append(Member(name, len(made), len(content), "0" * 64))
        made += content + bytes(padding(len(content)))
    return Index("tree", "m", tuple(members), (0, 0), 0, 0), bytes(made[: members[-1].end])


@given(
    files=st.dictionaries(st.sampled_from(["a", "b", "c/d", "e" * 150, "ü"]), st.binary(max_size=1300), min_size=1),
    data=st.data(),
)
def test_gives_what_the_archive_has_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("left")
    index, archive = index_of(files)
    cut = data.draw(st.none() | st.sampled_from(sorted(files)))
    write_tree(
        folder, {name: content[: len(content) // 2] if name == cut else content for name, content in files.items()}
    )
    start = data.draw(st.integers(0, len(archive)))
    out = bytearray(data.draw(st.integers(0, len(archive) - start)))
    found = Salvage(index, str(folder)).read_into(start, memoryview(out))
    if found:
        assert bytes(out) == archive[start : start + len(out)]
    elif cut is None:
        assert start < index.members[0].offset
    assert read_tree(folder).keys() == files.keys()


def test_gap_that_is_too_short_for_its_header(tmp_path: Path) -> None:
    """An index may say so; the header that should stand there does not fit, so nothing is left of it."""
    members = (Member("a", 512, 512, "0" * 64), Member("n" * 150, 1536, 512, "0" * 64))
    write_tree(tmp_path, {"a": b"a" * 512, "n" * 150: b"n" * 512})
    salvage = Salvage(Index("tree", "m", members, (0, 0), 0, 0), str(tmp_path))
    assert not salvage.read_into(512, memoryview(bytearray(1536)))
    assert salvage.read_into(512, memoryview(bytearray(512)))


def test_altered_object_while_something_is_left(sender: Sender) -> None:
    """Refused, or what was altered is what an earlier attempt had fetched as it was signed."""
    refused = 0
    for at in range(600, len(sender.message), 997):
        interrupt(sender, 30)
        before = sender.message
        data = bytearray(before)
        data[at] ^= 1
        sender.store.place(PLACE, bytes(data))
        try:
            sender.download()
        except SealflowError:
            refused += 1
            assert not (sender.folder / "out" / "copy").exists()
        else:
            assert sender.copy() == FILES
            shutil.rmtree(sender.folder / "out")
        sender.store.place(PLACE, before)
    assert refused
