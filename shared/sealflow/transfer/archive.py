"""The plaintext of an encrypted artifact: a deterministic tar with its OMS bundle and its index as last members.

Stock tools unpack it; the index lets us read one file, or a part of one, without what lies before it. Every reader has
to see the same artifact: on a full read whatever stands between the files is compared with the index
(:func:`check_gap`).

Sources: POSIX.1-2017, ``pax``, sections "pax Interchange Format" and "ustar Interchange Format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sealflow import strictjson
from sealflow.encryption.recipient import Published
from sealflow.encryption.refusal import refused
from sealflow.errors import ArtifactError, EvidenceError
from sealflow.hashing import Digest
from sealflow.manifest import Manifest, Resource
from sealflow.names import check_name, check_tree, fold

#: Folder of the archive that holds what is ours. No artifact may have this name.
FOLDER: Final = ".sealflow"
SIGNATURE: Final = f"{FOLDER}/signature.json"
INDEX: Final = f"{FOLDER}/index.json"

BLOCK: Final = 512
#: Two blocks of zeros end a tar.
END: Final = bytes(2 * BLOCK)
#: The last bytes of the index: its own length in decimal digits, between two line feeds.
LOCATOR: Final = 22
#: Largest index and largest signature in bytes: both list every file.
MAX_INDEX: Final = 256 << 20
#: So many bytes at the end of the plaintext are enough to find the index.
TAIL: Final = len(END) + LOCATOR

_LOCATOR = re.compile(rb"\n([0-9]{20})\n")
_HEX = re.compile(r"[0-9a-f]{64}")
_MEMBERS = frozenset({"sealflow_index", "kind", "name", "signature", "files", "recipients"})
_MAX_RECIPIENTS = 32
# A header of ours: up to three blocks of extended header, one of them for each 512 bytes of the name, and its own.
_MAX_HEADER = 16 * BLOCK
_EXECUTABLE: Final = 0o755
_PLAIN: Final = 0o644


class Member(NamedTuple):
    """One file in the archive.

    Attributes:
        name: Relative to the artifact's root; the artifact's name for a single file.
        offset: Where its bytes begin in the plaintext.
        size: How many they are.
        sha256: Their digest in hex.
        executable: Whether its owner may execute it: all that is kept of its mode.
    """

    name: str
    offset: int
    size: int
    sha256: str
    executable: bool = False

    @property
    def end(self) -> int:
        """Where its bytes end."""
        return self.offset + self.size


def padding(size: int) -> int:
    """Return how many zeros follow so many bytes of a file."""
    return -size % BLOCK


def tar_header(path: str, size: int, *, executable: bool = False) -> bytes:
    """Return the header of one member; the same for the same arguments, whoever writes it and when."""
    from tarfile import PAX_FORMAT, TarInfo

    info = TarInfo(path)
    info.size = size
    info.mode = _EXECUTABLE if executable else _PLAIN
    return info.tobuf(PAX_FORMAT, "utf-8", "strict")


@dataclass(frozen=True)
class Index:
    """What lies where in the plaintext.

    Attributes:
        kind: Whether the artifact is a file or a tree.
        name: Its name: the file's, or that of the folder in the archive.
        members: Its files, sorted by name in code-point order, which is their order in the archive too.
        signature: Where the OMS bundle lies: offset and size.
        length: Bytes of the index itself as a member.
        offset: Where it begins.
        recipients: Those who can open the artifact, as far as they have a public key. Who changes the recipients needs
            the keys, and the header only tells their names.
    """

    kind: Literal["file", "tree"]
    name: str
    members: tuple[Member, ...]
    signature: tuple[int, int]
    offset: int
    length: int
    recipients: tuple[Published, ...] = ()

    def path(self, member: Member) -> str:
        """Return the name of a file in the archive."""
        return archive_path(self.kind, self.name, member.name)

    def manifest(self) -> Manifest:
        """Return the manifest of the artifact as the index tells it."""
        resources = tuple(Resource(member.name, member.sha256) for member in self.members)
        return Manifest(self.kind, self.name, resources, size=sum(member.size for member in self.members))

    def digest(self) -> Digest:
        """Return the artifact digest that follows from the index."""
        return self.manifest().digest

    def gaps(self) -> Iterator[tuple[int, int, str, int, bool]]:
        """Yield what lies before each member that the archive has: start, end, and the path, size and mode it tells."""
        end = 0
        for member in self.members:
            yield end, member.offset, self.path(member), member.size, member.executable
            end = member.end
        yield end, self.signature[0], SIGNATURE, self.signature[1], False
        yield sum(self.signature), self.offset, INDEX, self.length, False

    @property
    def size(self) -> int:
        """Bytes of the plaintext."""
        return self.offset + self.length + padding(self.length) + len(END)


def archive_path(kind: str, name: str, file: str) -> str:
    """Return the name that a file of an artifact has in the archive."""
    return name if kind == "file" else f"{name}/{file}"


def check_artifact_name(name: str) -> None:
    """Refuse a name under which an artifact cannot stand in an archive of ours.

    Raises:
        ArtifactError: The name of our own folder, however it is spelled, or a hostile one.
    """
    check_name(name)
    if fold(name) == FOLDER or "/" in name:
        raise ArtifactError(f"An artifact that is to be encrypted cannot be called {FOLDER!r}.")


def make_index(
    kind: Literal["file", "tree"],
    name: str,
    members: Sequence[Member],
    signature: tuple[int, int],
    recipients: Sequence[Published] = (),
) -> bytes:
    """Return the index as the bytes of its member: a line of JSON, blanks, and its own length."""
    body = {
        "sealflow_index": 1,
        "kind": kind,
        "name": name,
        "signature": list(signature),
        "recipients": [list(item) for item in recipients],
        "files": [[item.name, item.offset, item.size, item.sha256, int(item.executable)] for item in members],
    }
    line = strictjson.dumps(body)
    # To a whole block, so that the end of the archive tells where the index ends.
    fill = padding(len(line) + LOCATOR)
    length = len(line) + fill + LOCATOR
    if length > MAX_INDEX:
        raise ArtifactError(f"The index of the archive has {length} bytes, more than {MAX_INDEX}: too many files.")
    return line + b" " * fill + b"\n%020d\n" % length


def index_length(tail: bytes, content: int) -> int:
    """Return the length of the index, which the end of the plaintext tells.

    Args:
        tail: The last :data:`TAIL` bytes of the plaintext, or more.
        content: Bytes of the plaintext.

    Raises:
        EvidenceError: ``ARCHIVE_MALFORMED``: no archive of ours ends so.
    """
    match = _LOCATOR.fullmatch(tail[-TAIL : -len(END)])
    length = int(match[1]) if match is not None else 0
    if match is None or tail[-len(END) :] != END or length % BLOCK or not 0 < length <= MAX_INDEX:
        raise _malformed("does not end with an index")
    if length + len(END) > content:
        raise _malformed("is shorter than its index says")
    return length


def parse_index(data: bytes, content: int) -> Index:
    """Read the index.

    Args:
        data: The bytes of its member.
        content: Bytes of the plaintext.

    Raises:
        EvidenceError: ``ARCHIVE_MALFORMED``: another form, members that overlap or lie outside, hostile names.
    """
    try:
        body = strictjson.loads(data[:-LOCATOR], limit=MAX_INDEX, what="The index of the archive")
        strictjson.only_members(body, _MEMBERS, "The index of the archive")
        if strictjson.member(body, "sealflow_index", int, "The index of the archive") != 1:
            raise _malformed("has an index of another version; update sealflow")
        kind = strictjson.member(body, "kind", str, "The index of the archive")
        name = strictjson.member(body, "name", str, "The index of the archive")
        members = tuple(map(_member, strictjson.member(body, "files", list, "The index of the archive")))
        signature = _pair(strictjson.member(body, "signature", list, "The index of the archive"))
        recipients = strictjson.member(body, "recipients", list, "The index of the archive")
        if len(recipients) > _MAX_RECIPIENTS or not all(map(_is_published, recipients)):
            raise _malformed("has an index with recipients of another form")
        check_artifact_name(name)
        if kind == "tree":
            for member in members:
                check_name(member.name)
        check_tree(member.name for member in members)
    except EvidenceError as error:
        raise refused("ARCHIVE_MALFORMED", error.message) from None
    except ArtifactError as error:
        raise refused("ARCHIVE_MALFORMED", f"The index of the archive: {error.message}") from None
    if kind not in ("file", "tree") or not members or (kind == "file" and [item.name for item in members] != [name]):
        raise _malformed("holds neither one file nor a folder of files")
    found = Index(
        kind,
        name,
        members,
        signature,
        content - len(END) - len(data),
        len(data),
        tuple(Published(*item) for item in recipients),
    )
    last = ""
    for member in members:
        if last and member.name <= last:
            raise _malformed("has an index that is not sorted")
        last = member.name
    for start, end, *_ in found.gaps():
        # Each member begins behind the one before it, its padding and a header.
        room = end - start - padding(start)
        if end % BLOCK or not BLOCK <= room <= _MAX_HEADER:
            raise _malformed("has an index whose members overlap, or have something between them")
    return found


def check_gap(gap: bytes, path: str, size: int, executable: bool) -> None:
    """Compare what stands before a member's bytes with what the index says of it.

    Args:
        gap: The padding of the member before, and this one's header.
        path: Its name in the archive.
        size: Its size.
        executable: Whether it is said to be executable.

    Raises:
        EvidenceError: ``ARCHIVE_MALFORMED``: a reader of the tar would see something else.
    """
    # Byte for byte: a header has many forms, some of which unpack to other files with other readers of the tar.
    expected = tar_header(path, size, executable=executable)
    fill = len(gap) - len(expected)
    if not 0 <= fill < BLOCK or not gap.endswith(expected) or any(gap[:fill]):
        raise _malformed("says something else of its files than its index")


def _member(item: Any) -> Member:
    if not isinstance(item, list) or len(item) != 5:
        raise _malformed("has an index with an entry of another form")
    name, offset, size, sha256, executable = item
    numbers = all(type(number) is int and 0 <= number < 1 << 63 for number in (offset, size, executable))
    if not isinstance(name, str) or not numbers or not isinstance(sha256, str) or not _HEX.fullmatch(sha256):
        raise _malformed("has an index with an entry of another form")
    if not name or executable > 1:
        raise _malformed("has an index with an entry of another form")
    return Member(name, offset, size, sha256, bool(executable))


def _is_published(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 3 and all(isinstance(text, str) for text in item)


def _pair(item: list[Any]) -> tuple[int, int]:
    if len(item) != 2 or not all(type(number) is int and 0 <= number < 1 << 63 for number in item):
        raise _malformed("has an index that does not say where the signature lies")
    offset, size = item
    if size > MAX_INDEX:
        raise _malformed("has a signature beyond the limit")
    return offset, size


def _malformed(what: str) -> EvidenceError:
    return refused("ARCHIVE_MALFORMED", f"The archive in the encrypted artifact {what}.")
