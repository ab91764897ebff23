"""Large objects on any fsspec file system: one stream in, ranges out.

fsspec writes a file from its beginning to its end, so parts must come in order, and an upload that was left starts
over. The file is written under another name beside its place and renamed at commit; many file systems rename by
copying.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Any

from sealflow.errors import ArtifactError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.storage.base import Unfinished
from sealflow.storage.files import exists
from sealflow.storage.other_call import errors, pin_of

_TOKEN = re.compile(r"[0-9a-f]{16}")
_PARTIAL = re.compile(r"(.+)\.([0-9a-f]{16})\.partial", re.DOTALL)


class FsspecObject:
    """See :class:`~sealflow.storage.base.OpenObject`. What the store says of the file is compared after each read."""

    version_id: str | None = None

    def __init__(self, fs: Any, path: str, uri: str, first: int) -> None:
        self._fs = fs
        self._path = path
        self.uri = uri
        info = fs.info(path)
        if info.get("type") != "file" or info.get("islink"):
            raise ArtifactError(f"{printable(uri)} is not a regular file.")
        if not isinstance(info.get("size"), int):
            raise UnavailableError(f"The store does not say how long {printable(uri)} is.")
        self.size: int = info["size"]
        self.pin = pin_of(info)
        head = bytearray(min(max(first, 0), self.size))
        self.read_into(0, memoryview(head))
        self.head = bytes(head)

    def __enter__(self) -> FsspecObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """See :class:`~sealflow.storage.base.OpenObject`. Nothing is kept open."""

    def read_into(self, start: int, out: memoryview) -> None:
        """See :class:`~sealflow.storage.base.OpenObject`."""
        end = start + len(out)
        if start < 0 or end > self.size:
            raise ValueError("The range does not lie within the object.")
        if not out:
            return
        with errors(self.uri):
            try:
                data = self._fs.cat_file(self._path, start=start, end=end)
                self._fs.invalidate_cache()
                after = self._fs.info(self._path)
            except FileNotFoundError:
                raise self._changed() from None
        if len(data) != len(out) or after.get("size") != self.size or pin_of(after) != self.pin:
            raise self._changed()
        out[:] = data

    def _changed(self) -> ArtifactError:
        return ArtifactError(f"{printable(self.uri)} changed while it was read.", code="ARTIFACT_CHANGED")


class FsspecOutgoing:
    """See :class:`~sealflow.storage.base.Outgoing`."""

    parallel = 1

    def __init__(self, fs: Any, path: str, uri: str, token: str | None = None) -> None:
        self._fs = fs
        self._path = path
        self._uri = uri
        self._token = token or secrets.token_hex(8)
        self._partial = f"{path}.{self._token}.partial"
        self._file: Any = None
        self._sent: list[tuple[int, str]] = []
        self._size = 0
        self._broken = False

    @classmethod
    def resume(cls, fs: Any, path: str, uri: str, token: str) -> FsspecOutgoing | None:
        """See :class:`~sealflow.storage.base.Storage`."""
        if not _TOKEN.fullmatch(token):
            return None
        found = cls(fs, path, uri, token)
        return found if fs.exists(found._partial) else None

    @property
    def token(self) -> str:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        return self._token

    def send(self, number: int, offset: int, data: memoryview) -> str:
        """See :class:`~sealflow.storage.base.Outgoing`. The tag is the part's SHA-256 in hex."""
        if self._broken:
            raise self._lost()
        if number != len(self._sent) + 1 or offset != self._size:
            raise ValueError("Parts must be sent once, one after another.")
        # What of a part that failed was written, nobody knows.
        self._broken = True
        with errors(self._uri):
            if self._file is None:
                with contextlib.suppress(NotImplementedError, FileExistsError):
                    self._fs.makedirs(self._path.rpartition("/")[0], exist_ok=True)
                self._file = self._fs.open(self._partial, "wb")
            self._file.write(data)
        self._broken = False
        tag = hashlib.sha256(data).hexdigest()
        self._sent.append((number, tag))
        self._size += data.nbytes
        return tag

    def present(self) -> dict[int, tuple[str, int]]:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        return {}

    def commit(self, parts: Sequence[tuple[int, str]]) -> str | None:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        if self._broken or not parts or list(parts) != self._sent:
            raise self._lost()
        with errors(self._uri):
            _refuse_folder(self._fs, self._path, self._uri)
            if not self._file.closed:
                self._file.close()
            self._fs.invalidate_cache()
            if self._fs.info(self._partial).get("size") != self._size:
                raise self._lost()
            self._fs.mv(self._partial, self._path)
            self._fs.invalidate_cache()
            if self._fs.info(self._path).get("size") != self._size:
                raise self._lost()
        return None

    def abort(self) -> None:
        """See :class:`~sealflow.storage.base.Outgoing`."""
        self._broken = True
        if self._file is not None and not self._file.closed:
            # What can be discarded before it is complete is; the rest is completed and then removed.
            with contextlib.suppress(Exception):
                self._file.discard()
            with contextlib.suppress(Exception):
                self._file.close()
        with errors(self._uri), contextlib.suppress(FileNotFoundError):
            self._fs.invalidate_cache()
            self._fs.rm_file(self._partial)

    def _lost(self) -> UnavailableError:
        return UnavailableError(
            f"The unfinished file for {printable(self._uri)} does not hold the parts as they were sent.",
            code="UPLOAD_LOST",
            next_step="Start the upload again.",
        )


def refuse_unprotected(fs: Any, path: str, uri: str, *, overwrite: bool) -> None:
    """Refuse to write without leave to overwrite: fsspec has no condition that every file system keeps.

    Raises:
        ArtifactError: It is a folder; ``ARTIFACT_EXISTS``: something lies there and ``overwrite`` is false.
        UsageError: ``OVERWRITE_NOT_PROTECTED``: nothing lies there, and ``overwrite`` is false.
    """
    _refuse_folder(fs, path, uri)
    if overwrite:
        return
    if fs.exists(path):
        raise exists(uri)
    raise UsageError(
        f"Nothing could keep an upload to {printable(uri)} from replacing what comes there meanwhile.",
        code="OVERWRITE_NOT_PROTECTED",
        next_step="Ask for it to be overwritten and see to it yourself that nobody else writes there, or use S3 or a "
        "shared folder.",
    )


def unfinished(fs: Any, path: str, uri: str, limit: int) -> list[Unfinished]:
    """Return at most ``limit + 1`` uploads of an object or below a folder; ``since`` is now where nobody says more."""
    found: dict[str, Any] = {}
    folder, name = path.rstrip("/").rpartition("/")[::2]
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        # Of the object itself, which need not exist.
        found |= {
            item["name"]: item
            for item in fs.ls(folder, detail=True)
            if item["name"].rpartition("/")[2].startswith(f"{name}.")
        }
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found |= fs.find(path, detail=True)
    listed = []
    for full, info in found.items():
        match = _PARTIAL.fullmatch(full)
        below = match is not None and match[1].startswith(path.rstrip("/") + "/")
        if match is None or info.get("type") != "file" or (match[1] != path and not below):
            continue
        listed.append(Unfinished(uri + match[1][len(path) :], match[2], _since(info)))
    return sorted(listed)[: limit + 1]


def _since(info: dict[str, Any]) -> datetime.datetime:
    for name in ("mtime", "LastModified", "last_modified", "created", "updated"):
        value = info.get(name)
        if isinstance(value, (int, float)):
            return datetime.datetime.fromtimestamp(value, datetime.timezone.utc)
        if isinstance(value, datetime.datetime):
            return value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
    return datetime.datetime.now(datetime.timezone.utc)


def _refuse_folder(fs: Any, path: str, uri: str) -> None:
    try:
        kind = fs.info(path).get("type")
    except FileNotFoundError:
        return
    if kind != "file":
        raise ArtifactError(f"{printable(uri)} is not a file that could be replaced.")
