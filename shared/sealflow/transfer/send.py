"""Sending: the source is read once, and that one pass feeds every digest, the encryption and the upload.

The calling thread reads, digests files and encrypts frames into the buffer of a part; other threads digest the frames
of a full part, write down what is about to leave, and send it. Memory is the buffers of the parts in flight, bounded
whatever the size of the artifact: where a store takes few parts and they grow beyond that, they wait in files.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow.encryption import MessageEncryptor
from sealflow.encryption.recipient import Published
from sealflow.errors import ArtifactError, UnavailableError
from sealflow.evidence.encryption import FrameDigests
from sealflow.findings import printable
from sealflow.manifest import Manifest, Resource
from sealflow.manifest.build import Source
from sealflow.storage import Entry, Location, same_part
from sealflow.storage.memory import LARGEST_IN_MEMORY, buffer, part_buffer, release
from sealflow.transfer.archive import (
    END,
    INDEX,
    SIGNATURE,
    Member,
    archive_path,
    make_index,
    padding,
    tar_header,
)

if TYPE_CHECKING:
    from sealflow.storage.base import Outgoing
    from sealflow.transfer.resume import UploadState

Progress = Callable[[int, int | None], None]
#: Makes the OMS bundle over a manifest.
Signing = Callable[[Manifest], bytes]

#: Bytes of a part, as long as the store takes as many as come of it. Stores cut objects into pieces of 4 MiB (Ceph) and
#: pay for each: with what encryption adds to 63 frames of 256 KiB, four are full.
PART: Final = 63 << 18
#: Parts that are sent at the same time at most; each has a buffer.
MOST_IN_FLIGHT: Final = 4
#: Bytes of all buffers in memory together.
_MEMORY: Final = 72 << 20
#: So many larger parts, which wait in files, are held at most, and fewer where there is no room.
MOST_IN_FILES: Final = 3

# Frames of 256 KiB make a read of 64 KiB cheap; so many of them that their list of digests stays small.
_FRAMES: Final = (
    (256 << 10, 16 << 30),
    (1 << 20, 256 << 30),
    (4 << 20, 1 << 40),
    (8 << 20, 8 << 40),
    (16 << 20, None),
)
#: Bytes of the largest artifact: the longest list of digests holds two million, and the longest frame has 16 MiB.
LARGEST: Final = 31 << 40


def part_size(size: int, most_parts: int | None) -> int:
    """Return the least bytes of a part for about so many bytes of content.

    Args:
        size: Bytes of content.
        most_parts: Parts that the store takes, ``None``: any number. A twentieth of them is kept for index and
            signature, whose size is not known at the start.
    """
    return PART if most_parts is None else max(PART, -(-size // (most_parts - most_parts // 20)))


def buffers(part: int, parallel: int) -> int:
    """Return how many parts are held at the same time: those that are being sent, and one that is being filled.

    Where there is room for one only, it is filled and sent in turn.

    Args:
        part: Bytes of a part.
        parallel: Parts that may usefully be sent at the same time.
    """
    if part > LARGEST_IN_MEMORY:
        return min(MOST_IN_FILES, parallel + 1)
    return max(1, min(_MEMORY // part, min(parallel, MOST_IN_FLIGHT) + 1))


class Shape(NamedTuple):
    """How a message of some size is cut.

    Attributes:
        frame: Content bytes of a frame.
        frames: Frames of a part.
    """

    frame: int
    frames: int

    @classmethod
    def of(cls, size: int, most_parts: int | None) -> Shape:
        """Return the shape for about so many bytes of content, parameters as for :func:`part_size`.

        Raises:
            ArtifactError: The format has no room for so many.
        """
        if size > LARGEST:
            raise ArtifactError(
                f"The artifact has {-(-size >> 40)} TiB; one encrypted object holds {LARGEST >> 40} at most.",
                next_step="Upload it as several artifacts.",
            )
        frame = next(length for length, up_to in _FRAMES if up_to is None or size <= up_to)
        return cls(frame, max(1, -(-part_size(size, most_parts) // frame)))


class Sent(NamedTuple):
    """What was sent, and waits for its commit.

    Attributes:
        manifest: Manifest of the artifact, from the bytes that were sent.
        digests: Digests of header and frames.
        outgoing: The large object on its way; ``None`` for one that fits into a part.
        parts: Its parts and their tags.
        single: The whole message, where it fits into one part.
        size: Bytes of the message.
    """

    manifest: Manifest
    digests: FrameDigests
    outgoing: Outgoing | None
    parts: tuple[tuple[int, str], ...]
    single: bytes | None
    size: int


def send(
    storage: Source,
    location: Location,
    entries: Sequence[Entry],
    encryptor: MessageEncryptor,
    shape: Shape,
    sign: Signing,
    begin: Callable[[], Outgoing],
    *,
    recipients: Sequence[Published] = (),
    state: UploadState | None = None,
    progress: Progress | None = None,
) -> Sent:
    """Send an artifact as one encrypted object, all but the commit.

    Args:
        storage: Reads ``location``.
        location: The artifact.
        entries: Its files with their sizes, sorted.
        encryptor: A fresh one, or one that goes on with what ``state`` knows.
        shape: How the message is cut; the encryptor's frame length.
        sign: Makes the OMS bundle, once the bytes are known.
        begin: Makes the upload, or finds the one to go on with; called once, and only for more than one part.
        recipients: Public keys of those who can open it, for the index.
        state: Where it is written down what leaves, before it leaves.
        progress: Called with bytes sent and, when known, bytes in all.

    Raises:
        ArtifactError: The source changed while it was read, or since what was sent before.
        UnavailableError: The source, the store or the key service is out of reach.
    """
    # The layout adds a header and some padding to each file; the exact number is known only at the end.
    total = sum((entry.size or 0) + 2 * 512 for entry in entries)
    parts = _Parts(encryptor, shape, begin, state, _Meter(progress, total))
    try:
        manifest = _write(storage, location, entries, _Frames(encryptor, shape, parts), sign, recipients)
        return parts.finish(manifest)
    finally:
        parts.close()


def _write(
    storage: Source,
    location: Location,
    entries: Sequence[Entry],
    frames: _Frames,
    sign: Signing,
    recipients: Sequence[Published],
) -> Manifest:
    resources: list[Resource] = []
    members: list[Member] = []
    size = 0
    with storage.open(location) as reader:
        for entry in entries:
            assert entry.size is not None  # noqa: S101  (asked for)
            path = archive_path(location.kind, location.name, entry.name)
            frames.write(tar_header(path, entry.size, executable=entry.executable))
            offset, content = frames.position, _Content(frames)
            if reader.read(entry, content) != entry.size:
                raise ArtifactError(f"{printable(entry.name)} changed while it was read.", code="ARTIFACT_CHANGED")
            frames.write(bytes(padding(entry.size)))
            sha256 = content.digest.hexdigest()
            resources.append(Resource(entry.name, sha256))
            members.append(Member(entry.name, offset, entry.size, sha256, entry.executable))
            size += entry.size
    manifest = Manifest(location.kind, location.name, tuple(resources), size=size)
    signature = sign(manifest)
    frames.write(tar_header(SIGNATURE, len(signature)))
    place = (frames.position, len(signature))
    frames.write(signature)
    frames.write(bytes(padding(len(signature))))
    index = make_index(location.kind, location.name, members, place, recipients)
    frames.write(tar_header(INDEX, len(index)))
    frames.write(index)
    frames.write(END)
    frames.finish()
    return manifest


class _Frames:
    """Cuts the plaintext into frames and encrypts them, each as soon as it is certain not to be the last."""

    def __init__(self, encryptor: MessageEncryptor, shape: Shape, parts: _Parts) -> None:
        self._encryptor = encryptor
        self._parts = parts
        self._frame = buffer(shape.frame)
        self._filled = 0
        self._sequence = 1
        #: Bytes of plaintext so far.
        self.position = 0

    def write(self, piece: Any) -> None:
        view = memoryview(piece).cast("B")
        self.position += len(view)
        room = len(self._frame) - self._filled
        while len(view) > room:
            self._frame[self._filled :] = view[:room]
            view = view[room:]
            self._seal(self._frame, final=False)
            self._filled, room = 0, len(self._frame)
        self._frame[self._filled : self._filled + len(view)] = view
        self._filled += len(view)

    def room(self) -> memoryview:
        """Return the place of what comes next, at least a byte of it; something comes, whatever is put there."""
        if self._filled == len(self._frame):
            self._seal(self._frame, final=False)
            self._filled = 0
        return self._frame[self._filled :]

    def took(self, count: int) -> None:
        """Take so many bytes of what :meth:`room` returned as written."""
        self._filled += count
        self.position += count

    def finish(self) -> None:
        self._seal(self._frame[: self._filled], final=True)

    def _seal(self, content: memoryview, *, final: bool) -> None:
        encryptor = self._encryptor
        with self._parts.room(encryptor.sealed_length(len(content), final=final), final) as out:
            if final:
                self._parts.check_end(self._sequence)
            if self._parts.known(self._sequence):
                encryptor.repeat(self._sequence, content, out)
            else:
                encryptor.encrypt(self._sequence, content, out, final=final)
        self._sequence += 1


class _Content:
    """The bytes of one file on their way: digested, and put into frames."""

    def __init__(self, frames: _Frames) -> None:
        self._frames = frames
        self.digest = hashlib.sha256()

    def __call__(self, piece: Any) -> None:
        self.digest.update(piece)
        self._frames.write(piece)

    def room(self) -> memoryview:
        """See :class:`~sealflow.storage.base.Filled`."""
        self._room = self._frames.room()
        return self._room

    def took(self, count: int) -> None:
        """See :class:`~sealflow.storage.base.Filled`."""
        self.digest.update(self._room[:count])
        self._frames.took(count)


class _Part:
    """A buffer, and what stands in it."""

    def __init__(self, size: int) -> None:
        self.buffer = part_buffer(size)
        self.begin(0, 0, 1)

    def begin(self, number: int, offset: int, first: int) -> None:
        self.number, self.offset, self.first = number, offset, first
        self.filled = 0
        self.frames: list[tuple[int, int]] = []
        self.final = False

    @property
    def content(self) -> memoryview:
        return self.buffer[: self.filled]


class _Room:
    """The place of the next frame; leaving it takes the frame as written."""

    def __init__(self, parts: _Parts, part: _Part, length: int, final: bool) -> None:
        self._parts, self._part, self._length, self._final = parts, part, length, final

    def __enter__(self) -> memoryview:
        start = self._part.filled
        return self._part.buffer[start : start + self._length]

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            part = self._part
            part.frames.append((part.filled, part.filled + self._length))
            part.filled += self._length
            release(part.buffer)
            part.final = self._final
            self._parts.filled(part)


class _Parts:
    """Parts on their way: a few buffers, and threads that send them."""

    def __init__(
        self,
        encryptor: MessageEncryptor,
        shape: Shape,
        begin: Callable[[], Outgoing],
        state: UploadState | None,
        meter: _Meter,
    ) -> None:
        self._shape = shape
        self._begin = begin
        self._state = state
        self._meter = meter
        self._header = encryptor.header.raw
        self._size = len(self._header) + shape.frames * encryptor.sealed_length(shape.frame, final=True)
        self._outgoing: Outgoing | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._free: SimpleQueue[_Part] = SimpleQueue()
        self._made = 0
        self._futures: list[Future[tuple[int, str]]] = []
        # The list of digests, which can have tens of MiB: kept once, and handed on as it stands.
        self._digests = io.BytesIO(encryptor.header_sha256)
        self._digesting = threading.Lock()
        self._failure: BaseException | None = None
        self._present: dict[int, tuple[str, int]] = {}
        self._buffers = 1
        part = self._take(1, 0, 1)
        part.buffer[: len(self._header)] = self._header
        part.filled = len(self._header)
        self._part: _Part | None = part
        self._next = (2, 0, 1)
        self._last: _Part | None = None

    def known(self, sequence: int) -> bool:
        """Tell whether a frame of this number may have left before."""
        return self._state is not None and self._state.knows(sequence)

    def check_end(self, sequence: int) -> None:
        """Refuse a final frame before some that may have left."""
        if self._state is not None:
            self._state.check_end(sequence)

    def room(self, length: int, final: bool) -> _Room:
        """Return the place where the next frame is to be written."""
        if self._part is None:
            self._part = self._take(*self._next)
        return _Room(self, self._part, length, final)

    def filled(self, part: _Part) -> None:
        """Take a frame; a full part goes on its way."""
        if len(part.frames) < self._shape.frames and not part.final:
            return
        self._next = (part.number + 1, part.offset + part.filled, part.first + len(part.frames))
        self._part = None
        if part.final and part.number == 1:
            self._last = part
            return
        if self._outgoing is None:
            self._outgoing = self._begin()
            if self._state is not None and self._state.resumed:
                self._present = self._outgoing.present()
                self._state.check_present(self._present)
            self._buffers = buffers(self._size, self._outgoing.parallel)
            # As many as there are buffers: to fill one takes so little time that no thread has to be left out for that.
            threads = min(self._buffers, self._outgoing.parallel, MOST_IN_FLIGHT)
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sealflow-send")
        assert self._pool is not None  # noqa: S101
        self._futures.append(self._pool.submit(self._send, part))

    def _send(self, part: _Part) -> tuple[int, str]:
        try:
            if self._failure is not None:
                raise self._failure
            digests = self._digest(part)
            outgoing, state = self._outgoing, self._state
            assert outgoing is not None  # noqa: S101
            tag = None
            if state is not None:
                tag = state.sending(part.number, part.first, digests, part.final)
            # What the store holds counts only under the tag that it gave when we sent it.
            if tag is None or not self._holds(part, tag):
                tag = outgoing.send(part.number, part.offset, part.content)
                if state is not None:
                    state.sent(part.number, tag)
            self._meter(part.filled)
            return part.number, tag
        except BaseException as error:
            self._failure = self._failure or error
            raise
        finally:
            self._free.put(part)

    def _holds(self, part: _Part, tag: str) -> bool:
        listed, size = self._present.get(part.number, ("", -1))
        return size == part.filled and same_part(tag, listed)

    def _digest(self, part: _Part) -> bytes:
        """Put the digests of a part's frames into the list, and return them."""
        frames = []
        for start, end in part.frames:
            frames.append(hashlib.sha256(part.buffer[start:end]).digest())
            release(part.buffer)
        digests = b"".join(frames)
        with self._digesting:
            self._digests.seek(part.first * len(frames[0]))
            self._digests.write(digests)
        return digests

    def _take(self, number: int, offset: int, first: int) -> _Part:
        part = self._new() if self._made < self._buffers and self._free.empty() else None
        if part is None:
            part = self._free.get()
        if self._failure is not None:
            raise self._failure
        part.begin(number, offset, first)
        return part

    def _new(self) -> _Part | None:
        """Return another buffer, ``None`` where there is no room for it beside those that there are."""
        try:
            part = _Part(self._size)
        except UnavailableError:
            if not self._made:
                raise
            self._buffers = self._made
            return None
        self._made += 1
        return part

    def finish(self, manifest: Manifest) -> Sent:
        """Wait for all parts and return what was sent."""
        if self._last is not None:
            part = self._last
            self._digest(part)
            self._meter(part.filled)
            digests = FrameDigests(self._digests.getvalue())
            return Sent(manifest, digests, None, (), bytes(part.content), part.filled)
        parts = tuple([future.result() for future in self._futures])
        return Sent(manifest, FrameDigests(self._digests.getvalue()), self._outgoing, parts, None, self._next[1])

    def close(self) -> None:
        """Let no thread go on; parts that are being sent come to their end."""
        if self._pool is not None:
            self._failure = self._failure or RuntimeError("the upload was given up")
            self._pool.shutdown(wait=True, cancel_futures=True)
        # An error must not keep itself alive through us, and the encryptor with it: the next attempt goes on with the
        # message only when nobody else can.
        self._failure = None
        self._futures.clear()


class _Meter:
    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        if self._progress is not None:
            with self._lock:
                self._done += count
                self._progress(min(self._done, self._total), self._total)
