"""A store for tests: S3 as far as an upload or a download sees it, in a folder that outlives the process.

Everything that ever reached it is written down before it counts (:meth:`FolderStore.received`), so that a test can say
of each number of each message that one thing left under it, whatever died in between.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sealflow.encryption import parse_header
from sealflow.errors import ArtifactError, EvidenceError, UnavailableError
from sealflow.storage import Entry, Location, Storages, Unfinished
from sealflow.storage.base import Consumer

#: Called with the name of a step before and after it is done: ``send 3``, ``sent 3``, ``read 0+512``.
Hook = Callable[[str], object]


def down(what: str = "the store") -> UnavailableError:
    """What a storage says when it cannot be reached."""
    return UnavailableError(f"{what} does not answer.", code="BACKEND_UNAVAILABLE")


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


@dataclass
class FolderObject:
    """See :class:`~sealflow.storage.base.OpenObject`."""

    store: FolderStore
    uri: str
    size: int
    pin: str | None
    version_id: str | None
    head: bytes
    #: Ranges that were read: start and length.
    reads: list[tuple[int, int]] = field(default_factory=list)

    def __enter__(self) -> FolderObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to give back."""

    def read_into(self, start: int, out: memoryview) -> None:
        if start < 0 or start + len(out) > self.size:
            raise ValueError("The range does not lie within the object.")
        self.store.hook(f"read {start}+{len(out)}")
        self.reads.append((start, len(out)))
        data = self.store.content(self.uri)
        if data is None or _tag(data) != self.pin:
            raise ArtifactError("The object changed while it was read.", code="ARTIFACT_CHANGED")
        out[:] = data[start : start + len(out)]
        self.store.hook(f"done {start}+{len(out)}")


@dataclass
class FolderOutgoing:
    """See :class:`~sealflow.storage.base.Outgoing`."""

    store: FolderStore
    uri: str
    token: str
    overwrite: bool
    parallel: int = 1

    @property
    def folder(self) -> Path:
        return self.store.root / "uploads" / self.token

    def send(self, number: int, offset: int, data: memoryview) -> str:
        body = bytes(data)
        self.store.hook(f"send {number}")
        self.store.receive(self.token, number, body)
        if not self.folder.is_dir():
            raise UnavailableError("There is no such upload.", code="UPLOAD_LOST")
        temporary = self.folder / f"{number}.{secrets.token_hex(4)}.tmp"
        temporary.write_bytes(body)
        os.replace(temporary, self.folder / str(number))
        self.store.hook(f"sent {number}")
        return _tag(body)

    def present(self) -> dict[int, tuple[str, int]]:
        parts = [path for path in self.folder.iterdir() if path.name.isdigit()]
        return {int(path.name): (_tag(path.read_bytes()), path.stat().st_size) for path in parts}

    def commit(self, parts: Sequence[tuple[int, str]]) -> str | None:
        self.store.hook("commit")
        here = self.present()
        if [(number, here.get(number, ("", 0))[0]) for number, _ in parts] != list(parts):
            raise UnavailableError("The store does not hold these parts.", code="UPLOAD_LOST")
        body = b"".join((self.folder / str(number)).read_bytes() for number, _ in parts)
        self.store.place(self.uri, body, overwrite=self.overwrite)
        shutil.rmtree(self.folder)
        self.store.hook("committed")
        return None

    def abort(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class FolderReader:
    """See :class:`~sealflow.storage.base.Reader`."""

    def __init__(self, store: FolderStore, location: Location) -> None:
        self._store, self._location = store, location

    def __enter__(self) -> FolderReader:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, entry: Entry, consume: Consumer) -> int:
        tree = self._location.kind == "tree"
        data = self._store.content(f"{self._location.uri}/{entry.name}" if tree else self._location.uri)
        if data is None:
            raise ArtifactError("It is gone.", code="ARTIFACT_CHANGED")
        consume(data)
        return len(data)


class FolderStore:
    """See :class:`~sealflow.storage.base.Storage`.

    Args:
        root: Folder of the store.
        hook: Told of each step; may raise, or kill.
    """

    parallel = 1
    smallest_part = 1
    largest_part: int | None = None
    most_parts: int | None = None

    def __init__(self, root: Path, hook: Hook | None = None) -> None:
        self.root = root
        self.hook: Hook = hook or (lambda _: None)
        #: How many parts are sent at the same time; more than one leaves their order to chance.
        self.at_once = 1
        self.opened: list[FolderObject] = []
        for name in ("objects", "uploads", "received"):
            (root / name).mkdir(parents=True, exist_ok=True)

    # --- what tests ask ---

    def receive(self, token: str, number: int, body: bytes) -> None:
        """Write down what arrived."""
        head = json.dumps([token, number, len(body)]).encode() + b"\n"
        with open(self.root / "received" / token, "ab") as file:
            file.write(head + body)

    def received(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield all that ever arrived: token of the upload, number of the part, its bytes."""
        for path in sorted((self.root / "received").iterdir()):
            data = path.read_bytes()
            at = 0
            while at < len(data):
                end = data.index(b"\n", at)
                token, number, length = json.loads(data[at:end])
                yield token, number, data[end + 1 : end + 1 + length]
                at = end + 1 + length

    def objects(self) -> dict[str, bytes]:
        """Return all that can be seen: location and bytes."""
        return {unquote(path.name): path.read_bytes() for path in sorted((self.root / "objects").iterdir())}

    def uploads(self) -> list[str]:
        """Return the tokens of unfinished uploads."""
        return sorted(path.name for path in (self.root / "uploads").iterdir())

    def content(self, uri: str) -> bytes | None:
        path = self._path(uri)
        return path.read_bytes() if path.is_file() else None

    def place(self, uri: str, data: bytes, *, overwrite: bool = True) -> None:
        path = self._path(uri)
        if path.exists() and not overwrite:
            raise ArtifactError(f"Something lies at {uri}.", code="ARTIFACT_EXISTS")
        temporary = self.root / f"{secrets.token_hex(8)}.tmp"
        temporary.write_bytes(data)
        os.replace(temporary, path)

    def remove(self, uri: str) -> None:
        self._path(uri).unlink()

    def _path(self, uri: str) -> Path:
        return self.root / "objects" / quote(uri, safe="")

    # --- the protocol ---

    def canonical(self, uri: str) -> str:
        return uri

    def locate(self, uri: str) -> Location | None:
        name = uri.rpartition("/")[2]
        if self.content(uri) is not None:
            return Location(uri, "file", name)
        return Location(uri, "tree", name) if any(item.startswith(uri + "/") for item in self.objects()) else None

    def entries(self, location: Location, *, sizes: bool = False) -> list[Entry]:
        if location.kind == "file":
            return [Entry(location.name, len(self.content(location.uri) or b""))]
        prefix = location.uri + "/"
        found = {uri.removeprefix(prefix): data for uri, data in self.objects().items() if uri.startswith(prefix)}
        return [Entry(name, len(data)) for name, data in sorted(found.items())]

    def open(self, location: Location) -> FolderReader:
        return FolderReader(self, location)

    def get(self, uri: str, limit: int) -> bytes | None:
        self.hook(f"get {uri}")
        data = self.content(uri)
        if data is not None and len(data) > limit:
            raise EvidenceError(f"{uri} has more than {limit} bytes.")
        return data

    def _below(self, uri: str) -> list[str]:
        prefix = uri.rstrip("/") + "/"
        return [name.removeprefix(prefix) for name in self.objects() if name.startswith(prefix)]

    def list_objects(self, uri: str, limit: int) -> list[str]:
        return sorted(name for name in self._below(uri) if "/" not in name)[: limit + 1]

    def list_folders(self, uri: str, limit: int) -> list[str]:
        return sorted({name.partition("/")[0] for name in self._below(uri) if "/" in name})[: limit + 1]

    def create(self, uri: str, data: bytes) -> bool:
        self.hook(f"create {uri}")
        if self.content(uri) is not None:
            return False
        self.place(uri, data)
        self.hook(f"created {uri}")
        return True

    def open_object(self, uri: str, first: int, version_id: str | None = None) -> FolderObject | None:
        data = self.content(uri)
        if data is None:
            return None
        found = FolderObject(self, uri, len(data), _tag(data), None, data[:first])
        self.opened.append(found)
        return found

    def begin(self, uri: str, *, overwrite: bool) -> FolderOutgoing:
        if not overwrite and self.content(uri) is not None:
            raise ArtifactError(f"Something lies at {uri}.", code="ARTIFACT_EXISTS")
        token = secrets.token_hex(8)
        (self.root / "uploads" / token).mkdir()
        self.hook("begun")
        return FolderOutgoing(self, uri, token, overwrite, self.at_once)

    def resume(self, uri: str, token: str, *, overwrite: bool) -> FolderOutgoing | None:
        found = FolderOutgoing(self, uri, token, overwrite, self.at_once)
        return found if found.folder.is_dir() else None

    def put(self, uri: str, data: bytes | memoryview, *, overwrite: bool) -> str | None:
        self.hook("put")
        self.receive(f"put-{secrets.token_hex(8)}", 1, bytes(data))
        self.place(uri, bytes(data), overwrite=overwrite)
        return None

    def unfinished(self, uri: str, limit: int) -> list[Unfinished]:
        now = datetime.datetime.now(datetime.timezone.utc)
        return [Unfinished(uri, token, now) for token in self.uploads()]


class Stores(Storages):
    """Finds :class:`FolderStore` for everything in S3."""

    def __init__(self, store: FolderStore) -> None:
        super().__init__()
        self._made["s3"] = store


def frames_of(message: bytes, frame: int, *, header: bool) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each frame in a part of a message."""
    at = len(parse_header(message).raw) if header else 0
    while at < len(message):
        final = message[at : at + 4] == b"\xff\xff\xff\xff"
        number = int.from_bytes(message[at + 4 : at + 8] if final else message[at : at + 4], "big")
        end = len(message) if final else at + 4 + 12 + frame + 16
        assert end <= len(message)
        yield number, message[at:end]
        at = end


def sent_under(store: FolderStore, frame: int) -> dict[tuple[str, int], set[bytes]]:
    """Return what ever arrived under each number of each upload; 0 is the header.

    Each upload is a message: asserted, and that no two of them share a key or an id.
    """
    found: dict[tuple[str, int], set[bytes]] = {}
    messages: dict[str, Any] = {}
    for token, number, body in store.received():
        if number == 1:
            header = parse_header(body)
            found.setdefault((token, 0), set()).add(header.raw)
            messages.setdefault(token, set()).add((header.message_id, header.commitment))
        for sequence, data in frames_of(body, frame, header=number == 1):
            found.setdefault((token, sequence), set()).add(data)
    assert all(len(seen) == 1 for seen in messages.values())
    assert len({next(iter(seen)) for seen in messages.values()}) == len(messages)
    return found


def no_number_twice(store: FolderStore, frame: int) -> int:
    """Assert that one thing, and never another, arrived under each number; return how many numbers there are."""
    found = sent_under(store, frame)
    twice = {key: len(seen) for key, seen in found.items() if len(seen) > 1}
    assert not twice
    return len(found)
