"""From a location to the storage that reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.storage.base import Storage
from sealflow.storage.local import LocalStorage

if TYPE_CHECKING:
    from sealflow.storage.s3 import S3Storage

S3_SCHEMES: Final = ("s3", "s3a", "s3n", "minio")

# File systems of fsspec that stand before others or beside us: rules about a location must meet its one name.
ALIASES: Final = frozenset(
    {"async_wrapper", "asynclocal", "blockcache", "cached", "data", "dir", "filecache", "generic", "libarchive"}
    | {"local", "reference", "simplecache", "tar", "zip"}
)

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


def is_s3(uri: str) -> bool:
    """Tell whether a location lies in S3."""
    match = _SCHEME.match(uri)
    return match is not None and match[1].lower() in S3_SCHEMES


def reads(uri: str) -> bool:
    """Tell whether a location is one whose bytes we read: no symbolic name, no table, no web address."""
    match = _SCHEME.match(uri)
    if match is None:
        return uri.startswith(("/", "file:/"))
    scheme = match[1].lower()
    if scheme in ("file", *S3_SCHEMES):
        return True
    if scheme in ("http", "https") or scheme in ALIASES:
        return False
    try:
        from fsspec import available_protocols
    except ImportError:
        return False
    return scheme in available_protocols()


class Storages:
    """Finds the storage for a location.

    Args:
        s3_client: A boto3 S3 client to use for every S3 location, for callers that keep credentials themselves.
        bucket_owners: For each bucket the number of the account that must own it, as far as that is known; ``None``:
            what ``SEALFLOW_BUCKET_OWNERS`` says.
    """

    def __init__(self, s3_client: Any = None, bucket_owners: Mapping[str, str] | None = None) -> None:
        self._s3_client = s3_client
        self._bucket_owners = bucket_owners
        self._made: dict[str, Storage] = {"local": LocalStorage()}

    def for_uri(self, uri: str) -> Storage:
        """Return the storage that reads ``uri``.

        Raises:
            UsageError: The scheme cannot hold artifacts, or chains file systems (``a::b``).
        """
        match = _SCHEME.match(uri)
        scheme = match[1].lower() if match else ""
        # fsspec would open the chain, wherever in the location it stands.
        # Credentials may stand anywhere in what is refused, so no refusal repeats it.
        if "::" in (uri if scheme not in ("", "file", *S3_SCHEMES) else uri.partition("/")[0]):
            raise UsageError(f"A location of {printable(scheme or uri.partition(':')[0])} chains file systems.")
        if scheme not in ("", "file") and printable(uri, len(uri)) != uri:
            raise UsageError(f"The location {printable(uri)!r} holds characters that no location of ours has.")
        if scheme in ("", "file"):
            if match is None and re.match(r"[a-z0-9]+:", uri) and not uri.startswith("file:"):
                raise UsageError(
                    f"{printable(uri.partition(':')[0])}:… looks like a URI, but not like a location.",
                    next_step="Write a path, file:///path, s3://bucket/key or another fsspec URL.",
                )
            return self._made["local"]
        if scheme in S3_SCHEMES:
            return self._get("s3")
        if scheme in ("http", "https"):
            raise UsageError(
                "Web addresses are not storage: their bytes have no version that could be pinned.",
                next_step="Download the file first, or use the store's own scheme.",
            )
        if scheme in ALIASES:
            raise UsageError(
                f"{scheme}:// is another name for places that have a name of their own.",
                next_step="Write the plain location: a path, file:///path, s3://bucket/key.",
            )
        return self._get("other")

    def s3(self, uri: str) -> S3Storage:
        """Return the storage of a location in S3.

        Raises:
            UsageError: It lies elsewhere.
        """
        from sealflow.storage.s3 import S3Storage

        found = self.for_uri(uri)
        if not isinstance(found, S3Storage):
            raise UsageError(f"{printable(uri)} does not lie in S3.")
        return found

    def _get(self, kind: str) -> Storage:
        # Made when first needed: most processes read one kind of storage.
        if kind not in self._made:
            if kind == "s3":
                from sealflow.storage.s3 import S3Storage

                self._made[kind] = S3Storage(self._s3_client, self._bucket_owners)
            else:
                from sealflow.storage.other import FsspecStorage

                self._made[kind] = FsspecStorage()
        return self._made[kind]
