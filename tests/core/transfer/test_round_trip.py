"""An artifact goes into a store as one encrypted object and comes out as it was, however it is cut."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.encryption import parse_header
from sealflow.errors import ArtifactError, EvidenceError, SealflowError
from sealflow.transfer import receive
from sealflow.transfer.receive import EncryptedFiles, look
from sealflow.transfer.send import LARGEST, PART, Shape
from tests.core.transfer.stores import down, no_number_twice
from tests.core.transfer.world import PLACE, TREE, Sender, shaped

pytestmark = pytest.mark.slow

SHAPES = [(16, 1), (511, 2), (512, 4), (1 << 20, 8)]


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path / "world")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("at_once", [1, 4], ids=["one-by-one", "at-once"])
def test_tree(sender: Sender, shape: tuple[int, int], at_once: int) -> None:
    sender.store.at_once = at_once
    with shaped(*shape):
        uploaded = sender.upload()
    assert sender.verify(uploaded.ref).status == "passed"
    assert sender.verify(uploaded.ref, files=["sub/weights.bin", "empty"]).status == "passed"
    downloaded = sender.download(uploaded.ref)
    assert sender.copy() == TREE
    assert downloaded.ref.digest == uploaded.ref.digest
    assert os.access(sender.folder / "out" / "copy" / "run.sh", os.X_OK)
    assert not (sender.folder / "out" / "copy" / "empty").stat().st_mode & 0o111
    assert sender.left() == ["copy", "copy.evidence"]
    assert sender.store.uploads() == []
    assert uploaded.stored == len(sender.message)
    assert uploaded.message == parse_header(sender.message).message_id.hex()
    no_number_twice(sender.store, shape[0])


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4095, 4096, 4097])
@pytest.mark.parametrize("shape", [(512, 2), (4096, 1)], ids=str)
def test_file_of_any_size(tmp_path: Path, size: int, shape: tuple[int, int]) -> None:
    sender = Sender(tmp_path / "world", {"model": os.urandom(size)})
    with shaped(*shape):
        uploaded = sender.upload()
    sender.download(uploaded.ref)
    assert sender.copy() == {"copy": sender.files["model"]}
    assert str(uploaded.ref.digest) == f"sha256:{hashlib.sha256(sender.files['model']).hexdigest()}"


@pytest.mark.parametrize("more", range(-2, 3))
def test_message_that_ends_with_a_frame(tmp_path: Path, more: int) -> None:
    """The last frame is full, almost full, or holds a byte or two."""
    sender = Sender(tmp_path / "world", {"model": b"x"})
    with shaped(1 << 20, 1):
        length = len(sender.upload() and sender.plaintext)
    for frame in (length + more, length // 2 + more):
        sender.store.remove(PLACE)
        with shaped(frame, 1):
            uploaded = sender.upload()
        assert sender.verify(uploaded.ref).status == "passed"


def test_same_tree_gives_the_same_plaintext(sender: Sender) -> None:
    """But for signature and index: who looks at two versions sees that nothing changed."""
    made = []
    for number in range(2):
        place = f"s3://bucket/{number}"
        sender.place = place
        os.utime(sender.source / "empty", (number, number))
        uploaded = sender.upload()
        with sender.opened(uploaded) as artifact:
            made.append((sender.plaintext[: artifact.index.members[-1].end], sender.message, artifact.index.members))
    assert made[0][0] == made[1][0]
    assert made[0][2] == made[1][2]
    first, second = (parse_header(item[1]) for item in made)
    assert first.message_id != second.message_id
    assert first.commitment != second.commitment
    assert first.data_keys != second.data_keys


def test_source_is_read_once(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.storage.local import LocalReader

    read: list[str] = []
    before = LocalReader.read

    def counted(self: Any, entry: Any, consume: Any) -> int:
        read.append(entry.name)
        return before(self, entry, consume)

    monkeypatch.setattr(LocalReader, "read", counted)
    with shaped(64, 2):
        sender.upload()
    assert sorted(read) == sorted(TREE)


def test_progress_ends_at_its_total(sender: Sender) -> None:
    seen: list[tuple[int, int | None]] = []
    with shaped(64, 2):
        sender.upload(progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(total is not None and done <= total for done, total in seen)


# --- Shapes ---


@given(st.integers(0, LARGEST))
def test_shape_fits_into_the_store(size: int) -> None:
    shape = Shape.of(size, 10_000)
    part = shape.frame * shape.frames
    assert part >= PART
    assert 1 <= shape.frame <= 16 << 20
    assert -(-size // part) <= 9_500
    assert Shape.of(size, None) == (shape.frame, -(-PART // shape.frame))


# --- Reads ---


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEALFLOW_STATE_DIR", "")
        sender = Sender(tmp_path_factory.mktemp("stored") / "world")
        with shaped(48, 5):
            return sender, sender.upload()


@settings(max_examples=100)
@given(data=st.data(), group=st.sampled_from([1, 48, 100, 400, 8 << 20]))
def test_ranges(stored: Any, data: st.DataObject, group: int) -> None:
    sender, uploaded = stored
    plaintext = sender.plaintext
    start = data.draw(st.integers(0, len(plaintext)))
    length = data.draw(st.integers(0, len(plaintext) - start))
    with pytest.MonkeyPatch.context() as patch, sender.opened(uploaded) as artifact:
        patch.setattr(receive, "_GROUP", group)
        assert artifact.read(start, length) == plaintext[start : start + length]
        chosen = data.draw(st.sets(st.sampled_from(sorted(TREE))))
        source = EncryptedFiles(artifact, chosen)
        entries = [entry for entry in source.entries(None) if entry.name in chosen]  # type: ignore[arg-type]
        with source.open(None) as reader:  # type: ignore[arg-type]
            for entry in entries:
                pieces: list[bytes] = []
                assert reader.read(entry, lambda piece, pieces=pieces: pieces.append(bytes(piece))) == entry.size
                assert b"".join(pieces) == TREE[entry.name]


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (0, 1 << 40), (1 << 40, 0)])
def test_range_outside(stored: Any, start: int, length: int) -> None:
    sender, uploaded = stored
    with sender.opened(uploaded) as artifact, pytest.raises(ValueError, match="is not within"):
        artifact.read(start, length)


def test_read_of_one_file_fetches_no_other(stored: Any) -> None:
    sender, uploaded = stored
    with pytest.MonkeyPatch.context() as patch, sender.opened(uploaded) as artifact:
        patch.setattr(receive, "_GROUP", 48)
        artifact.sealed.object.reads.clear()
        member = artifact.member("config.json")
        assert artifact.read(member.offset, member.size) == TREE["config.json"]
        assert sum(length for _, length in artifact.sealed.object.reads) <= 2 * (48 + 32)


def test_file_that_is_not_there(stored: Any) -> None:
    sender, uploaded = stored
    with sender.opened(uploaded) as artifact, pytest.raises(ArtifactError) as caught:
        artifact.member("other")
    assert caught.value.code == "ARTIFACT_MISSING"


def test_buffer_that_another_thread_took() -> None:
    """Two threads see the last free buffer; the one that comes late makes its own instead of waiting for ever."""

    class Taken(SimpleQueue[memoryview]):
        def empty(self) -> bool:
            return False

    made: list[memoryview] = []
    thread = threading.Thread(target=lambda: made.append(receive._buffer(Taken(), 8)), daemon=True)
    thread.start()
    thread.join(10)
    assert [len(item) for item in made] == [8]


def test_frames_of_one_byte_cost_no_gigabytes(sender: Sender) -> None:
    """What is fetched at once is bounded by its bytes in the store, however short the frames are."""
    with shaped(1, 1 << 20):
        uploaded = sender.upload()
    with sender.opened(uploaded) as artifact:
        window = artifact.window([(0, 100)])
        assert max(window._sizes) <= 9 << 20
        window.close()


# --- What goes wrong on the way ---


def fail(sender: Sender, step: str, make: Callable[[], BaseException] = down) -> None:
    """Upload, and let the first step of this name fail."""
    left = [make()]

    def hook(name: str) -> None:
        if name.startswith(step) and left:
            raise left.pop()

    sender.store.hook = hook
    kind = type(left[0])
    try:
        sender.upload()
    except kind:  # not by pytest's hands, which hold the error, and with it all that was going on
        pass
    else:
        pytest.fail(f"nothing failed at {step}")
    sender.store.hook = lambda _: None


STEPS = ["send 1", "sent 1", "send 3", "sent 3", "create ", "commit", "committed"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("at_once", [1, 4], ids=["one-by-one", "at-once"])
@pytest.mark.parametrize("error", [down, KeyboardInterrupt])
def test_failed_upload_is_gone_on_with(sender: Sender, step: str, at_once: int, error: Any) -> None:
    sender.store.at_once = at_once
    with shaped(256, 2):
        fail(sender, step, error)
        visible = step == "committed"
        assert (sender.store.content(PLACE) is not None) is visible
        again = sender.upload()
    assert again.existed is visible
    assert sender.verify(again.ref).status == "passed"
    sender.download(again.ref)
    assert sender.copy() == TREE
    assert sender.store.uploads() == []
    assert len({token for token, _, _ in sender.store.received()}) == 1
    no_number_twice(sender.store, 256)


def test_what_arrived_is_not_sent_again(sender: Sender) -> None:
    with shaped(64, 3):
        fail(sender, "send 9")
        sender.upload()
    numbers = [number for _, number, _ in sender.store.received()]
    assert sorted(numbers) == list(range(1, max(numbers) + 1))


def test_source_that_changes_while_it_is_read(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.storage.local import LocalReader

    before = LocalReader.read

    def read(self: Any, entry: Any, consume: Any) -> int:
        def changing(piece: Any) -> None:
            consume(piece)
            (sender.source / entry.name).write_bytes(b"y" * entry.size)

        return before(self, entry, changing if entry.name.startswith("sub/") else consume)

    monkeypatch.setattr(LocalReader, "read", read)
    with shaped(64, 3), pytest.raises(ArtifactError) as caught:
        sender.upload()
    assert caught.value.code == "ARTIFACT_CHANGED"
    assert sender.store.objects() == {}
    assert sender.store.uploads() == []
    assert os.listdir(sender.folder / "state") == ["keeper.key"]


def test_somebody_else_was_faster(sender: Sender) -> None:
    def hook(name: str) -> None:
        if name == "commit":
            sender.store.place(PLACE, b"theirs")

    with shaped(64, 3):
        sender.store.hook = hook
        with pytest.raises(ArtifactError) as caught:
            sender.upload()
    assert caught.value.code == "ARTIFACT_EXISTS"
    assert sender.store.content(PLACE) == b"theirs"
    assert sender.store.uploads() == []
    assert os.listdir(sender.folder / "state") == ["keeper.key"]


def test_upload_that_the_store_lost(sender: Sender) -> None:
    """Another key for what begins anew."""
    with shaped(64, 3):
        fail(sender, "send 5")
        (token,) = sender.store.uploads()
        sender.store.resume(PLACE, token, overwrite=True).abort()  # type: ignore[union-attr]
        uploaded = sender.upload()
    assert sender.verify(uploaded.ref).status == "passed"
    assert len({token for token, _, _ in sender.store.received()}) == 2
    no_number_twice(sender.store, 64)


def test_another_object_between_reads(sender: Sender) -> None:
    with shaped(64, 3):
        first = sender.upload()
        data = sender.message
        sender.upload(overwrite=True)
        other = sender.message
    assert data != other
    for step in range(1, 6):
        sender.store.place(PLACE, data)
        count = [0]

        def hook(name: str, count: list[int] = count, step: int = step) -> None:
            if name.startswith("read "):
                count[0] += 1
                if count[0] == step:
                    sender.store.place(PLACE, other)

        sender.store.hook = hook
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(receive, "_GROUP", 64)
            verdict = sender.verify(first.ref)
            sender.store.place(PLACE, data)
            count[0] = 0
            with pytest.raises(SealflowError):
                sender.download(first.ref)
        assert verdict.status != "passed"
        assert verdict.deciding_finding is not None
        assert verdict.deciding_finding.code == "ARTIFACT_CHANGED"
        assert sender.left() == []


def test_object_that_is_none(sender: Sender) -> None:
    assert look(sender.store, PLACE) is None
    sender.store.place(PLACE, b"plain")
    assert look(sender.store, PLACE) is None
    for junk in (b"\x02\x04\x78", b"\x02\x05\x78" + bytes(200), b"\x02\x04\x78" + b"\xff" * (70 << 10)):
        sender.store.place(PLACE, junk)
        with pytest.raises(EvidenceError):
            look(sender.store, PLACE)


@pytest.mark.parametrize("count", [1, 20, 32])
def test_long_header_is_read_whole(sender: Sender, count: int) -> None:
    """More than the first read brings."""
    from tests.core.encryption.messages import RSA_PUBLIC_PEM

    (sender.folder / "team.pub").write_bytes(RSA_PUBLIC_PEM)
    more = [f"rsa:{sender.folder / 'team.pub'}?name={number}-{'n' * 500}" for number in range(count - 1)]
    uploaded = sender.upload(recipients=[*sender.recipients, *more])
    assert len(parse_header(sender.message).data_keys) == count
    assert sender.verify(uploaded.ref).status == "passed"
