"""DVC remotes written by hand: what should lie there, a folder that holds it, and an S3 client that says anything."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealflow.findings import Finding
from sealflow.lineage.content import directory_object
from sealflow.lineage.remote import Wanted, check_remote
from sealflow.storage import Storages
from tests.core.lineage.repos import md5


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def key_of(digest: str, legacy: bool = False) -> str:
    return f"{'' if legacy else 'files/md5/'}{digest[:2]}/{digest[2:]}"


def file(path: str, data: bytes, **more: Any) -> Wanted:
    """What a lock says of a file with these bytes."""
    usual: dict[str, Any] = {"size": len(data), "legacy": False, "files": None}
    return Wanted(path, md5(data), **{**usual, **more})


def folder(path: str, held: Mapping[str, bytes], **more: Any) -> Wanted:
    """What a lock says of a folder with these files."""
    digests = {name: md5(data) for name, data in held.items()}
    usual: dict[str, Any] = {"size": sum(map(len, held.values())), "legacy": False, "files": digests}
    return Wanted(path, listing_digest(held), **{**usual, **more})


def listing(files: Mapping[str, bytes]) -> bytes:
    return directory_object((name, md5(data)) for name, data in files.items())


def listing_digest(files: Mapping[str, bytes]) -> str:
    return f"{md5(listing(files))}.dir"


def objects(*data: bytes, folders: tuple[Mapping[str, bytes], ...] = (), legacy: bool = False) -> dict[str, bytes]:
    """Objects of a remote by key."""
    found = {key_of(md5(one), legacy): one for one in data}
    for files in folders:
        found[key_of(listing_digest(files), legacy)] = listing(files)
        found.update(objects(*files.values(), legacy=legacy))
    return found


def write_remote(root: Path, held: Mapping[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for key, data in held.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    return root


def codes(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.code, finding.subject) for finding in findings]


@dataclass
class Held:
    """One object as a store tells of it.

    Attributes:
        data: What it sends.
        etag: What it calls it; the MD5 in quotes when absent.
        size: What it says of the size; the truth when absent.
        head: More members of its answer to HEAD.
        body: Sends the bytes, when it does not send ``data``.
    """

    data: bytes
    etag: str | None = None
    size: int | None = None
    head: Mapping[str, Any] = field(default_factory=dict)
    body: Callable[[], Any] | None = None

    @property
    def tag(self) -> str:
        return f'"{md5(self.data)}"' if self.etag is None else self.etag

    @property
    def length(self) -> int:
        return len(self.data) if self.size is None else self.size


def checksum(data: bytes, kind: str | None = "FULL_OBJECT", **more: Any) -> dict[str, Any]:
    """Members of an answer to HEAD for an object that was uploaded with SHA-256."""
    found = {"ChecksumSHA256": base64.b64encode(hashlib.sha256(data).digest()).decode(), **more}
    return found if kind is None else {**found, "ChecksumType": kind}


KMS = {"ServerSideEncryption": "aws:kms"}


class Store:
    """An S3 client over a dictionary. It says what it was told to say, and remembers what it was asked."""

    def __init__(self, held: Mapping[str, bytes | Held], page: int = 1000) -> None:
        self.held = {key: one if isinstance(one, Held) else Held(one) for key, one in held.items()}
        self.page = page
        self.asked: list[tuple[str, str]] = []
        self.errors: dict[str, str] = {}

    def _error(self, operation: str, code: str) -> Exception:
        from botocore.exceptions import ClientError

        return ClientError({"Error": {"Code": code}}, operation)

    def _take(self, operation: str, key: str) -> Held:
        self.asked.append((operation, key))
        if operation in self.errors:
            raise self._error(operation, self.errors[operation])
        if key not in self.held:
            raise self._error(operation, "NoSuchKey")
        return self.held[key]

    def list_objects_v2(self, *, Bucket: str, Prefix: str, ContinuationToken: str = "0", **_: Any) -> dict[str, Any]:  # noqa: N803
        self.asked.append(("LIST", Prefix))
        if "LIST" in self.errors:
            raise self._error("LIST", self.errors["LIST"])
        keys = sorted(key for key in self.held if key.startswith(Prefix))
        start = int(ContinuationToken)
        page = keys[start : start + self.page]
        found: dict[str, Any] = {
            "Contents": [
                {"Key": key, "Size": self.held[key].length, "ETag": self.held[key].tag} for key in page
            ],
            "IsTruncated": start + self.page < len(keys),
        }  # fmt: skip
        if found["IsTruncated"]:
            found["NextContinuationToken"] = str(start + self.page)
        return found

    def head_object(self, *, Bucket: str, Key: str, ChecksumMode: str) -> dict[str, Any]:  # noqa: N803
        assert ChecksumMode == "ENABLED"
        held = self._take("HEAD", Key)
        return {"ContentLength": held.length, "ETag": held.tag, **held.head}

    def get_object(self, *, Bucket: str, Key: str, IfMatch: str | None = None, **_: Any) -> dict[str, Any]:  # noqa: N803
        held = self._take("GET", Key)
        if IfMatch is not None and IfMatch != held.tag:
            raise self._error("GET", "PreconditionFailed")
        return {"Body": held.body() if held.body else Body(held.data), "ContentLength": held.length, "ETag": held.tag}

    def count(self, operation: str) -> int:
        return sum(asked == operation for asked, _ in self.asked)

    def check(self, *wanted: Wanted, read: bool = False, url: str = "s3://bucket/dvc") -> tuple[Finding, ...]:
        return check_remote(url, wanted, storages=Storages(self), read=read)


class Body:
    """The stream of an answer."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, amount: int = -1) -> bytes:
        return self._file.read(amount)

    def iter_chunks(self, size: int) -> Any:
        while piece := self._file.read(size):
            yield piece

    def close(self) -> None:
        pass


def in_bucket(held: Mapping[str, bytes | Held], prefix: str = "dvc/") -> dict[str, bytes | Held]:
    return {prefix + key: one for key, one in held.items()}
