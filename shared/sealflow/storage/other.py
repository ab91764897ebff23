"""Every other fsspec URL (``gs://``, ``abfs://``, ``memory://`` …), behind the same protocol.

fsspec offers neither pinned reads nor conditional writes in general, so the listing is compared before and after each
read, and evidence objects, whose names are the digest of their bytes, are written only where none is listed.
"""

from __future__ import annotations

import contextlib
from typing import Any

from sealflow.errors import ArtifactError, EvidenceError, MissingExtraError, SealflowError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.hashing import CHUNK
from sealflow.names import check_name
from sealflow.storage.base import Consumer, Entry, Location, Unfinished
from sealflow.storage.other_call import errors, pin_of
from sealflow.storage.other_objects import FsspecObject, FsspecOutgoing, refuse_unprotected, unfinished


class FsspecStorage:
    """Artifacts and evidence on any file system that fsspec knows."""

    parallel = 4
    smallest_part = 1
    largest_part: int | None = None
    most_parts: int | None = None

    def canonical(self, uri: str) -> str:
        """See :class:`~sealflow.storage.base.Storage`."""
        scheme, _, rest = uri.partition("://")
        host = rest.split("/", 1)[0]
        if "@" in host or "?" in rest:
            raise UsageError(
                f"{printable(scheme)}://… carries credentials or a query, which would be recorded.",
                next_step="Configure credentials in the file system's own settings (fsspec configuration).",
            )
        return uri.rstrip("/")

    def _fs(self, uri: str) -> tuple[Any, str]:
        try:
            import fsspec
        except ImportError:
            raise MissingExtraError("Storage that is neither local nor S3", "fsspec") from None
        try:
            fs, path = fsspec.core.url_to_fs(self.canonical(uri))
        except ImportError as error:
            raise UsageError(f"{printable(uri)}: {printable(error)}") from None
        except ValueError as error:
            raise UsageError(f"{printable(uri)} is not a location that fsspec knows: {printable(error)}") from None
        fs.invalidate_cache()
        return fs, path

    def locate(self, uri: str) -> Location | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        with errors(uri):
            fs, path = self._fs(uri)
            try:
                info = fs.info(path)
            except FileNotFoundError:
                return None
        name = path.rstrip("/").rpartition("/")[2]
        kind = info.get("type")
        if kind == "directory":
            check_name(name)
            return Location(self.canonical(uri), "tree", name)
        if kind == "file" and not info.get("islink"):
            check_name(name)
            return Location(self.canonical(uri), "file", name)
        raise ArtifactError(f"{printable(uri)} is neither a file nor a folder.")

    def entries(self, location: Location, *, sizes: bool = False) -> list[Entry]:
        """See :class:`~sealflow.storage.base.Storage`."""
        with errors(location.uri):
            fs, path = self._fs(location.uri)
            if location.kind == "file":
                info = fs.info(path)
                return [Entry(location.name, info.get("size"), pin_of(info))]
            root = path.rstrip("/") + "/"
            entries = []
            for full, info in fs.find(path, withdirs=False, detail=True).items():
                if not full.startswith(root):
                    raise ArtifactError(
                        f"The listing of {printable(location.uri)} names {printable(full)}, outside it."
                    )
                name = full[len(root) :]
                check_name(name)
                if info.get("type") != "file" or info.get("islink"):
                    raise ArtifactError(f"{printable(name)} is not a regular file.")
                entries.append(Entry(name, info.get("size"), pin_of(info)))
            if sizes and any(entry.size is None for entry in entries):
                raise UnavailableError(f"The listing of {printable(location.uri)} does not say how long its files are.")
        return sorted(entries, key=lambda entry: entry.name)

    def open(self, location: Location) -> FsspecReader:
        """See :class:`~sealflow.storage.base.Storage`."""
        return FsspecReader(*self._fs(location.uri), location)

    def get(self, uri: str, limit: int) -> bytes | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        with errors(uri):
            fs, path = self._fs(uri)
            try:
                with fs.open(path, "rb") as file:
                    data = bytes(file.read(limit + 1))
            except FileNotFoundError:
                return None
        if len(data) > limit:
            raise EvidenceError(f"{printable(uri)} has more than {limit} bytes.")
        return data

    def list_objects(self, uri: str, limit: int) -> list[str]:
        """See :class:`~sealflow.storage.base.Storage`."""
        return self._list(uri, limit, "file")

    def list_folders(self, uri: str, limit: int) -> list[str]:
        """See :class:`~sealflow.storage.base.Storage`."""
        return self._list(uri, limit, "directory")

    def _list(self, uri: str, limit: int, kind: str) -> list[str]:
        with errors(uri):
            fs, path = self._fs(uri)
            try:
                items = fs.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = [item["name"].rstrip("/").rpartition("/")[2] for item in items if item.get("type") == kind]
        return sorted(names)[: limit + 1]

    def create(self, uri: str, data: bytes) -> bool:
        """See :class:`~sealflow.storage.base.Storage`."""
        with errors(uri):
            fs, path = self._fs(uri)
            if fs.exists(path):
                return False
            with contextlib.suppress(NotImplementedError, FileExistsError):
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(path, data)
        return True

    def open_object(self, uri: str, first: int, version_id: str | None = None) -> FsspecObject | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        if version_id is not None:
            raise ArtifactError(f"{printable(uri)}: versions can be opened in S3 only.")
        with errors(uri):
            fs, path = self._fs(uri)
            try:
                return FsspecObject(fs, path, self.canonical(uri), first)
            except FileNotFoundError:
                return None

    def begin(self, uri: str, *, overwrite: bool) -> FsspecOutgoing:
        """See :class:`~sealflow.storage.base.Storage`. Nothing protects what lies there, so it must be overwritten."""
        with errors(uri):
            fs, path = self._fs(uri)
            refuse_unprotected(fs, path, self.canonical(uri), overwrite=overwrite)
            return FsspecOutgoing(fs, path, self.canonical(uri))

    def resume(self, uri: str, token: str, *, overwrite: bool) -> FsspecOutgoing | None:
        """See :class:`~sealflow.storage.base.Storage`. The upload starts over."""
        with errors(uri):
            fs, path = self._fs(uri)
            refuse_unprotected(fs, path, self.canonical(uri), overwrite=overwrite)
            return FsspecOutgoing.resume(fs, path, self.canonical(uri), token)

    def put(self, uri: str, data: bytes | memoryview, *, overwrite: bool) -> str | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        out = self.begin(uri, overwrite=overwrite)
        try:
            return out.commit([(1, out.send(1, 0, memoryview(data)))])
        except BaseException:
            with contextlib.suppress(SealflowError):
                out.abort()
            raise

    def unfinished(self, uri: str, limit: int) -> list[Unfinished]:
        """See :class:`~sealflow.storage.base.Storage`."""
        with errors(uri):
            fs, path = self._fs(uri)
            return unfinished(fs, path, self.canonical(uri), limit)


class FsspecReader:
    """Reads the files of one artifact and compares what the store says of them before and after."""

    def __init__(self, fs: Any, path: str, location: Location) -> None:
        self._fs = fs
        self._path = path
        self._location = location

    def __enter__(self) -> FsspecReader:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, entry: Entry, consume: Consumer) -> int:
        """See :class:`~sealflow.storage.base.Reader`."""
        path = self._path if self._location.kind == "file" else f"{self._path.rstrip('/')}/{entry.name}"
        total = 0
        with errors(entry.name):
            try:
                with self._fs.open(path, "rb", block_size=CHUNK) as file:
                    while piece := file.read(CHUNK):
                        consume(piece)
                        total += len(piece)
                self._fs.invalidate_cache()
                after = self._fs.info(path)
            except FileNotFoundError:
                raise _changed(entry) from None
        if after.get("size") != total or (entry.size is not None and total != entry.size) or pin_of(after) != entry.pin:
            raise _changed(entry)
        return total


def _changed(entry: Entry) -> ArtifactError:
    return ArtifactError(f"{printable(entry.name)} changed while it was read.", code="ARTIFACT_CHANGED")
