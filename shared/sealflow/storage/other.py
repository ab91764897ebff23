"""Every other fsspec URL (``gs://``, ``abfs://``, ``memory://`` …), behind the same protocol.

fsspec offers neither pinned reads nor conditional writes in general, so the listing is compared before and after each
read, and evidence objects, whose names are the digest of their bytes, are written only where none is listed.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

from sealflow.errors import ArtifactError, EvidenceError, MissingExtraError, SealflowError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.hashing import CHUNK
from sealflow.names import check_name
from sealflow.storage.base import Consumer, Entry, Later, Location

_PINS = ("ETag", "etag", "generation", "version_id", "mtime", "LastModified", "last_modified", "created", "content_md5")


class FsspecStorage(Later):
    """Artifacts and evidence on any file system that fsspec knows."""

    parallel = 4

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
        with _errors(uri):
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
        with _errors(location.uri):
            fs, path = self._fs(location.uri)
            if location.kind == "file":
                info = fs.info(path)
                return [Entry(location.name, info.get("size"), _pin(info))]
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
                entries.append(Entry(name, info.get("size"), _pin(info)))
            if sizes and any(entry.size is None for entry in entries):
                raise UnavailableError(f"The listing of {printable(location.uri)} does not say how long its files are.")
        return sorted(entries, key=lambda entry: entry.name)

    def open(self, location: Location) -> FsspecReader:
        """See :class:`~sealflow.storage.base.Storage`."""
        return FsspecReader(*self._fs(location.uri), location)

    def get(self, uri: str, limit: int) -> bytes | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        with _errors(uri):
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
        with _errors(uri):
            fs, path = self._fs(uri)
            try:
                items = fs.ls(path, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = [item["name"].rstrip("/").rpartition("/")[2] for item in items if item.get("type") == kind]
        return sorted(names)[: limit + 1]

    def create(self, uri: str, data: bytes) -> bool:
        """See :class:`~sealflow.storage.base.Storage`."""
        with _errors(uri):
            fs, path = self._fs(uri)
            if fs.exists(path):
                return False
            with contextlib.suppress(NotImplementedError, FileExistsError):
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(path, data)
        return True


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
        with _errors(entry.name):
            try:
                with self._fs.open(path, "rb", block_size=CHUNK) as file:
                    while piece := file.read(CHUNK):
                        consume(piece)
                        total += len(piece)
                self._fs.invalidate_cache()
                after = self._fs.info(path)
            except FileNotFoundError:
                raise _changed(entry) from None
        if after.get("size") != total or (entry.size is not None and total != entry.size) or _pin(after) != entry.pin:
            raise _changed(entry)
        return total


def _changed(entry: Entry) -> ArtifactError:
    return ArtifactError(f"{printable(entry.name)} changed while it was read.", code="ARTIFACT_CHANGED")


def _pin(info: dict[str, Any]) -> str | None:
    # Some file systems give the same time as a number in a listing and as a datetime for a single file.
    pins = [
        f"{name}={value.timestamp() if isinstance(value, datetime.datetime) else value}"
        for name in _PINS
        if (value := info.get(name)) is not None
    ]
    return ";".join(pins) or None


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except SealflowError:
        raise
    except PermissionError:
        raise UnavailableError(f"No permission for {printable(uri)}.", code="PERMISSION_DENIED") from None
    except OSError as error:
        raise UnavailableError(f"{printable(uri)}: {printable(error)}") from None
    except Exception as error:
        # Each file system brings exceptions of its own cloud's library, and none of them may look like an answer.
        raise UnavailableError(f"{printable(uri)}: {type(error).__name__}: {printable(error)}") from None
