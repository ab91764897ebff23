"""Receiving: an encrypted object, opened for reads of its files.

Each frame is compared with the digest that was signed before it is decrypted, and handed on only after its tag held.
The one exception: bytes of files in an artifact that is read whole, which the signature over the files binds. Threads
fetch, compare and decrypt some frames ahead, in the order in which they are needed.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

from sealflow.encryption import MAX_HEADER, Header, Layout, MessageDecryptor, Recipient, parse_header
from sealflow.encryption.frames import FINAL_OVERHEAD, OVERHEAD
from sealflow.encryption.refusal import refused
from sealflow.errors import ArtifactError, EvidenceError
from sealflow.evidence.encryption import FrameDigests, MessageId
from sealflow.findings import printable
from sealflow.storage import Entry, Location, Storage
from sealflow.storage.base import Consumer
from sealflow.storage.memory import LARGEST_IN_MEMORY, buffer, part_buffer, release
from sealflow.transfer.archive import END, TAIL, Index, Member, check_gap, index_length, parse_index, tar_header

if TYPE_CHECKING:
    from sealflow.encryption.header import EncryptedDataKey
    from sealflow.storage import OpenObject

#: Bytes that are fetched by one request.
_GROUP: Final = 8 << 20
#: Frames shorter than this are fetched as if they had this length.
_SHORT: Final = 512
#: Requests at the same time; each has a buffer for what is fetched, and one for what was decrypted waits ahead.
_PARALLEL: Final = 3
#: Bytes that are fetched at the same time. The longest frames, of 16 MiB, come one after another.
_AHEAD: Final = _PARALLEL * _GROUP
#: Bytes at the end that are fetched first: most indexes fit.
_FIRST_TAIL: Final = 256 << 10
#: Bytes at the beginning that are fetched first; a longer header costs one more request.
_FIRST_HEAD: Final = 8 << 10

#: How a message of ours begins: version 2 of the header, suite 0x0478 or 0x0578.
_BEGINNINGS: Final = (b"\x02\x04\x78", b"\x02\x05\x78")


class Sealed(NamedTuple):
    """An encrypted object of which nothing is proved yet.

    Attributes:
        object: The object, pinned to one version.
        header: Its header.
        layout: Where its frames lie.
        uri: Its location.
    """

    object: OpenObject
    header: Header
    layout: Layout
    uri: str

    @property
    def message(self) -> MessageId:
        """Its message id."""
        return MessageId(self.header.message_id.hex())


def look(storage: Storage, uri: str, version_id: str | None = None) -> Sealed | None:
    """Open what lies at a location if it is an encrypted object; ``None`` where it is not, or nothing is there.

    The caller closes ``object``.

    Raises:
        EvidenceError: ``MESSAGE_MALFORMED`` or ``MESSAGE_UNSUPPORTED``: it begins like one and is none of ours.
        ArtifactError: It cannot be taken.
        UnavailableError: It cannot be reached.
    """
    found = storage.open_object(uri, _FIRST_HEAD, version_id)
    if found is None:
        return None
    try:
        if not found.head.startswith(_BEGINNINGS):
            found.close()
            return None
        header = _header(found)
        if header.signed:
            raise EvidenceError(
                "The encrypted artifact is signed in its own format, which binds no run and no name.",
                code="MESSAGE_UNSUPPORTED",
                next_step="Upload it with sealflow.",
            )
        return Sealed(found, header, Layout.of_message(header, found.size), storage.canonical(uri))
    except BaseException:
        found.close()
        raise


def stored_pieces(sealed: Sealed, digests: FrameDigests, least: int = _GROUP) -> Iterator[tuple[int, memoryview]]:
    """Yield an object as it lies in its store, where each piece begins and its bytes; no key is needed.

    Args:
        sealed: The object.
        digests: The digests that were signed; header and frames are compared with them.
        least: Bytes of each piece but the last, at least. A piece ends with a frame and is valid until the next.

    Raises:
        EvidenceError: ``MESSAGE_ALTERED``.
        ArtifactError: ``ARTIFACT_CHANGED``: another object lies there now.
        UnavailableError: The store is out of reach.
    """
    layout = sealed.layout
    if hashlib.sha256(sealed.header.raw).digest() != digests.header:
        raise refused("MESSAGE_ALTERED", "The header of the encrypted artifact is not the one that was signed.")
    step = min(layout.frames, -(-least // (layout.frame_length + OVERHEAD)))
    area = part_buffer(layout.header + step * (layout.frame_length + FINAL_OVERHEAD))
    # What lies in memory comes by one request; of what lies in a file, no more is in memory than a group.
    group = step if len(area) <= LARGEST_IN_MEMORY else max(1, _GROUP // layout.frame_length)
    offset = 0
    for first in range(1, layout.frames + 1, step):
        last = min(layout.frames, first + step - 1)
        end = layout.span(last)[1]
        view = area[: end - offset]
        if offset == 0:
            view[: layout.header] = sealed.header.raw
        for number in range(first, last + 1, group):
            until = min(last, number + group - 1)
            begin, stop = layout.span(number)[0], layout.span(until)[1]
            sealed.object.read_into(begin, view[begin - offset : stop - offset])
            for each in range(number, until + 1):
                begin, stop = layout.span(each)
                if hashlib.sha256(view[begin - offset : stop - offset]).digest() != digests[each]:
                    text = f"Frame {each} of the encrypted artifact is not the one that was signed."
                    raise refused("MESSAGE_ALTERED", text)
            release(area)
        yield offset, view
        offset = end


def _header(found: OpenObject) -> Header:
    try:
        return parse_header(found.head)
    except EvidenceError as error:
        if error.code != "MESSAGE_MALFORMED" or found.size <= len(found.head) or len(found.head) >= MAX_HEADER:
            raise
    data = bytearray(min(found.size, MAX_HEADER))
    found.read_into(0, memoryview(data))
    return parse_header(bytes(data))


class EncryptedArtifact:
    """An encrypted artifact whose frames can be read.

    Attributes:
        sealed: The object.
        digests: The signed digests of its header and frames.
        index: What lies where in it.
        signature: The OMS bundle in it.

    Args:
        sealed: The object.
        digests: The digests of its header and frames, as an accepted signer signed them.
        recipients: Our keys.
        expected: Pairs that its encryption context must hold.
        used: Told which wrapped key gave the data key, even where the artifact is refused after that.

    Raises:
        EvidenceError: ``MESSAGE_ALTERED``, ``COMMITMENT_MISMATCH``, ``CONTEXT_MISMATCH``, ``ARCHIVE_MALFORMED``.
        RecipientError: None of our keys opens it.
        ArtifactError: ``ARTIFACT_CHANGED``: another object lies there now.
        UnavailableError: A key service or the store is out of reach.
    """

    def __init__(
        self,
        sealed: Sealed,
        digests: FrameDigests,
        recipients: Sequence[Recipient],
        *,
        expected: Mapping[str, str],
        used: Callable[[EncryptedDataKey], None] | None = None,
    ) -> None:
        self.sealed = sealed
        self.digests = digests
        self._layout = sealed.layout
        self._decryptor = MessageDecryptor(
            sealed.header, recipients, expected=expected, size=sealed.object.size, used=used
        )
        content = self._layout.content
        if content < TAIL:
            raise EvidenceError(
                "The encrypted artifact holds no archive.",
                code="ARCHIVE_MALFORMED",
                next_step="Open it with the program that wrote it.",
            )
        start = max(0, content - _FIRST_TAIL)
        tail = self.read(start, content - start)
        length = index_length(tail[-TAIL:], content)
        begin = content - len(END) - length
        if begin < start:
            tail, start = self.read(begin, start - begin) + tail, begin
        self.index = parse_index(tail[begin - start : -len(END)], content)
        self._starts = [member.offset for member in self.index.members]
        # What follows the files is read here once, so that every reader of the tar sees what the index tells.
        after = self.index.members[-1].end
        if after < start:
            tail, start = self.read(after, start - after) + tail, after
        rest = memoryview(tail)[after - start :]
        gaps = list(self.index.gaps())[-2:]
        for first, end, path, size, executable in gaps:
            check_gap(bytes(rest[first - after : end - after]), path, size, executable)
        place, size = self.index.signature
        self.signature = bytes(rest[place - after : place - after + size])

    def read(self, start: int, length: int) -> bytes:
        """Return a range of the plaintext. Only frames that were signed for are released.

        Raises:
            ValueError: It does not lie in the plaintext.
            EvidenceError: ``MESSAGE_ALTERED``.
            ArtifactError: ``ARTIFACT_CHANGED``: another object lies there now.
            UnavailableError: The store is out of reach.
        """
        if start < 0 or length < 0 or start + length > self._layout.content:
            raise ValueError(f"{start}+{length} is not within {self._layout.content} bytes")
        if not length:
            return b""
        first, last = self._frames(start, start + length)
        step = self._step()
        pieces = []
        for number in range(first, last + 1, step):
            group = (number, min(last, number + step - 1))
            plain = memoryview(bytearray(self.content(group)))
            self.fetch(group, memoryview(bytearray(self.stored(group))), plain)
            base = (number - 1) * self._layout.frame_length
            pieces.append(bytes(plain[max(0, start - base) : start + length - base]))
        return b"".join(pieces)

    def member(self, name: str) -> Member:
        """Return one file of the artifact.

        Raises:
            ArtifactError: There is none of this name.
        """
        # A name that was asked for exists, or is a mistake: no need for a table.
        for member in self.index.members:
            if member.name == name:
                return member
        raise ArtifactError(f"The artifact holds no file {printable(name)!r}.", code="ARTIFACT_MISSING")

    @property
    def holders(self) -> tuple[tuple[str, bytes], ...]:
        """Provider and key information of every wrapped data key: who can open it."""
        return tuple((key.provider, key.info) for key in self.sealed.header.data_keys)

    def give_modes(self, folder: str) -> None:
        """Give unpacked files back the only part of their modes that is kept: whether they can be executed."""
        for member in self.index.members:
            path = os.path.join(folder, member.name)
            if member.executable and os.path.lexists(path):
                os.chmod(path, 0o700)

    def fetch(self, group: tuple[int, int], stored: memoryview, plain: memoryview, *, whole: bool = False) -> None:
        """Fetch frames, compare and decrypt them. On any error nothing of the frame stands in ``plain``.

        Args:
            group: Numbers of the first and the last.
            stored: Takes them as they are stored.
            plain: Takes their content.
            whole: Whether the artifact is read whole and nothing of it released before its evidence was judged. Then
                the signed digest of each file binds what is nothing but its bytes, and to digest these twice is left
                out. Every frame with anything else in it is compared.
        """
        start, _ = self._layout.span(group[0])
        self.sealed.object.read_into(start, stored)
        try:
            self._open(group, stored, plain, whole)
        except EvidenceError:
            # Bytes can be altered on their way, too: once more. What lies there altered stays so.
            self.sealed.object.read_into(start, stored)
            self._open(group, stored, plain, whole)

    def _open(self, group: tuple[int, int], stored: memoryview, plain: memoryview, whole: bool) -> None:
        layout, at = self._layout, 0
        start, _ = layout.span(group[0])
        for number in range(group[0], group[1] + 1):
            first, end = layout.span(number)
            length = layout.content_length(number)
            frame = stored[first - start : end - start]
            bound = None if whole and self._is_content(number) else self.digests[number]
            self._decryptor.open(number, frame, plain[at : at + length], sha256=bound)
            at += length

    def _step(self) -> int:
        # Frames of a few bytes are mostly overhead: what is fetched counts, not what is in it.
        return max(1, _GROUP // max(self._layout.frame_length, _SHORT))

    def _is_content(self, number: int) -> bool:
        """Tell whether a frame holds bytes of one file and nothing else."""
        start = (number - 1) * self._layout.frame_length
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and start + self._layout.content_length(number) <= self.index.members[at].end

    def stored(self, group: tuple[int, int]) -> int:
        """Return how many bytes frames have as they are stored."""
        return self._layout.span(group[1])[1] - self._layout.span(group[0])[0]

    def content(self, group: tuple[int, int]) -> int:
        """Return how many bytes of plaintext frames hold."""
        return (group[1] - group[0]) * self._layout.frame_length + self._layout.content_length(group[1])

    def _frames(self, start: int, end: int) -> tuple[int, int]:
        return start // self._layout.frame_length + 1, max(end - 1, start) // self._layout.frame_length + 1

    def window(
        self, spans: Iterable[tuple[int, int]], salvage: Salvage | None = None, *, whole: bool = False
    ) -> Window:
        """Return a reader of these ranges of the plaintext, sorted, each from its start to its end.

        Args:
            spans: The ranges.
            salvage: Where content may lie that an earlier attempt fetched.
            whole: As in :meth:`fetch`.
        """
        step = self._step()
        groups: list[tuple[int, int]] = []
        for start, end in spans:
            if start == end:
                continue
            first, last = self._frames(start, end)
            if groups and first <= groups[-1][1] + 1:
                first = groups.pop()[0] if groups[-1][1] - groups[-1][0] + 1 < step else groups[-1][1] + 1
            groups += [(number, min(last, number + step - 1)) for number in range(first, last + 1, step)]
        return Window(self, groups, salvage, whole=whole)

    def salvaged(self, group: tuple[int, int], salvage: Salvage, plain: memoryview) -> bool:
        """Take frames from what an earlier attempt left, if each of them is still what was signed."""
        at = 0
        for number in range(group[0], group[1] + 1):
            length = self._layout.content_length(number)
            content = plain[at : at + length]
            start = (number - 1) * self._layout.frame_length
            if not salvage.read_into(start, content):
                return False
            if not self._decryptor.seals_to(number, content, self.digests[number]):
                return False
            at += length
        return True


class Window:
    """Plaintext in ascending order, fetched ahead by threads."""

    def __init__(
        self,
        artifact: EncryptedArtifact,
        groups: Sequence[tuple[int, int]],
        salvage: Salvage | None,
        *,
        whole: bool,
    ) -> None:
        self._artifact = artifact
        self._whole = whole
        self._salvage = salvage
        self._frame = artifact.sealed.layout.frame_length
        self._left = iter(groups)
        self._ahead: deque[tuple[tuple[int, int], Future[memoryview] | None]] = deque()
        self._sizes = [max(map(size, groups), default=0) for size in (artifact.content, artifact.stored)]
        self._parallel = min(_PARALLEL, len(groups), max(1, _AHEAD // max(self._sizes[0], 1)))
        self._pool = ThreadPoolExecutor(self._parallel, "sealflow-fetch") if self._parallel > 1 else None
        self._plain: SimpleQueue[memoryview] = SimpleQueue()
        self._stored: SimpleQueue[memoryview] = SimpleQueue()
        self._start = self._end = 0
        self._view: memoryview | None = None

    def piece(self, position: int, most: int) -> memoryview:
        """Return what stands at a position: at least one byte, at most ``most``; valid until the next call."""
        while not self._start <= position < self._end:
            self._advance()
        assert self._view is not None  # noqa: S101
        at = position - self._start
        return self._view[at : min(at + most, self._end - self._start)]

    def _advance(self) -> None:
        if self._view is not None:
            self._plain.put(self._view)
            self._view = None
        while len(self._ahead) <= (self._parallel if self._pool else 0):
            group = next(self._left, None)
            if group is None:
                break
            self._ahead.append((group, self._pool.submit(self._fetch, group) if self._pool else None))
        group, future = self._ahead.popleft()  # IndexError: a defect, nobody asks for more than was announced
        self._view = future.result() if future is not None else self._fetch(group)
        self._start = (group[0] - 1) * self._frame
        self._end = self._start + self._artifact.content(group)

    def _fetch(self, group: tuple[int, int]) -> memoryview:
        plain, stored = _buffer(self._plain, self._sizes[0]), _buffer(self._stored, self._sizes[1])
        try:
            artifact = self._artifact
            if self._salvage is None or not artifact.salvaged(group, self._salvage, plain):
                artifact.fetch(group, stored[: artifact.stored(group)], plain, whole=self._whole)
        finally:
            self._stored.put(stored)
        return plain

    def close(self) -> None:
        """Let no thread go on."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _buffer(free: SimpleQueue[memoryview], size: int) -> memoryview:
    try:
        return free.get_nowait()
    except Empty:  # asked in one step: two threads must not both wait for the last one
        return buffer(size)


class Salvage:
    """What an interrupted download left behind: some files of the artifact, the last of them cut short.

    Args:
        index: What lies where in the plaintext.
        folder: The folder with the files.
    """

    def __init__(self, index: Index, folder: str) -> None:
        self._index = index
        self._folder = folder
        self._starts = [member.offset for member in index.members]

    def read_into(self, start: int, out: memoryview) -> bool:
        """Fill ``out`` with what stands at a place of the plaintext; tell whether all of it is there."""
        end = start + len(out)
        members = self._index.members
        at = bisect_right(self._starts, start) - 1
        if end > members[-1].end:
            return False  # what follows the files is not left
        while start < end:
            # Before the first file stands its header and nothing else.
            member = members[at] if at >= 0 else Member("", 0, 0, "")
            if start >= member.end:
                # What stands between two files follows from the index.
                at += 1
                following = members[at]
                gap = tar_header(self._index.path(following), following.size, executable=following.executable)
                if member.end + len(gap) > following.offset:
                    return False  # another header stands there, and whoever reads the archive refuses it
                gap = bytes(following.offset - member.end - len(gap)) + gap
                length = min(end - member.end, len(gap)) - (start - member.end)
                out[:length] = gap[start - member.end :][:length]
            else:
                length = min(end, member.end) - start
                if not self._read(member, start - member.offset, out[:length]):
                    return False
            start += length
            out = out[length:]
        return True

    def _read(self, member: Member, at: int, out: memoryview) -> bool:
        try:
            fd = os.open(os.path.join(self._folder, member.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return os.preadv(fd, [out], at) == len(out)
            finally:
                os.close(fd)
        except OSError:
            return False


class EncryptedFiles:
    """The files of an encrypted artifact, as a source of files like any storage.

    Args:
        artifact: The artifact.
        files: Only these are going to be read; all of them by default, and then every byte between them is looked at.
        salvage: Folder with what an interrupted download left.
    """

    parallel = 1

    def __init__(
        self, artifact: EncryptedArtifact, files: Iterable[str] | None = None, salvage: str | None = None
    ) -> None:
        self._artifact = artifact
        self._files = None if files is None else frozenset(files)
        self._salvage = Salvage(artifact.index, salvage) if salvage is not None else None

    def entries(self, location: Location, *, sizes: bool = False) -> list[Entry]:
        """Return the files; see :class:`~sealflow.storage.base.Storage`."""
        return [Entry(item.name, item.size, None, item.executable) for item in self._artifact.index.members]

    def open(self, location: Location) -> EncryptedReader:
        """Return a reader, which takes the files in their order, each once."""
        return EncryptedReader(self._artifact, self._files, self._salvage)


class EncryptedReader:
    """Reads the files of one encrypted artifact in their order."""

    def __init__(self, artifact: EncryptedArtifact, files: frozenset[str] | None, salvage: Salvage | None) -> None:
        self._artifact = artifact
        self._whole = files is None
        index = artifact.index
        self._members = {item.name: item for item in index.members if files is None or item.name in files}
        spans: Iterable[tuple[int, int]]
        if files is None:
            spans = [(0, index.members[-1].end)]
        else:
            spans = [(item.offset, item.end) for item in self._members.values()]
        self._window = artifact.window(spans, salvage, whole=self._whole)
        self._position = 0

    def __enter__(self) -> EncryptedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._window.close()

    def read(self, entry: Entry, consume: Consumer) -> int:
        """See :class:`~sealflow.storage.base.Reader`."""
        member = self._members[entry.name]
        if self._whole:
            gap = b"".join([bytes(piece) for piece in self._pieces(self._position, member.offset)])
            check_gap(gap, self._artifact.index.path(member), member.size, member.executable)
            self._position = member.end
        for piece in self._pieces(member.offset, member.end):
            consume(piece)
        return member.size

    def _pieces(self, start: int, end: int) -> Iterator[memoryview]:
        while start < end:
            piece = self._window.piece(start, end - start)
            yield piece
            start += len(piece)
