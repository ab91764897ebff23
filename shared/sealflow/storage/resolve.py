"""From a location to the storage that reads it."""

from __future__ import annotations

import re
from typing import Any

from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.storage.base import Storage
from sealflow.storage.local import LocalStorage
from sealflow.storage.other import FsspecStorage
from sealflow.storage.s3 import SCHEMES as S3_SCHEMES
from sealflow.storage.s3 import S3Storage

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


class Storages:
    """Finds the storage for a location.

    Args:
        s3_client: A boto3 S3 client to use for every S3 location, for callers that keep credentials themselves.
    """

    def __init__(self, s3_client: Any = None) -> None:
        self._local = LocalStorage()
        self._s3 = S3Storage(s3_client)
        self._other = FsspecStorage()

    def for_uri(self, uri: str) -> Storage:
        """Return the storage that reads ``uri``.

        Raises:
            UsageError: The scheme cannot hold artifacts, or chains file systems (``a::b``).
        """
        if "::" in uri.partition("/")[0]:
            raise UsageError(f"{printable(uri)} chains file systems; give the innermost location.")
        match = _SCHEME.match(uri)
        if match is None or match[1] == "file":
            if match is None and re.match(r"[a-z0-9]+:", uri) and not uri.startswith("file:"):
                raise UsageError(
                    f"{printable(uri)} looks like a URI, but not like a location.",
                    next_step="Write a path, file:///path, s3://bucket/key or another fsspec URL.",
                )
            return self._local
        if match[1] in S3_SCHEMES:
            return self._s3
        if match[1] in ("http", "https"):
            raise UsageError(
                "Web addresses are not storage: their bytes have no version that could be pinned.",
                next_step="Download the file first, or use the store's own scheme.",
            )
        return self._other
