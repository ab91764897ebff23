"""What every use of an fsspec file system needs: its errors as ours, and a name for the bytes that it holds."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

from sealflow.errors import SealflowError, UnavailableError
from sealflow.findings import printable
from sealflow.storage.files import NO_ROOM, translate

_PINS = ("ETag", "etag", "generation", "version_id", "mtime", "LastModified", "last_modified", "created", "content_md5")


def pin_of(info: dict[str, Any]) -> str | None:
    """Return what a file system says of a file that changes with its bytes, ``None`` where that is nothing."""
    # Some file systems give the same time as a number in a listing and as a datetime for a single file.
    pins = [
        f"{name}={value.timestamp() if isinstance(value, datetime.datetime) else value}"
        for name in _PINS
        if (value := info.get(name)) is not None
    ]
    return ";".join(pins) or None


@contextlib.contextmanager
def errors(uri: str) -> Iterator[None]:
    """Turn what a file system raises into errors of ours."""
    try:
        yield
    except SealflowError:
        raise
    except PermissionError:
        raise UnavailableError(f"No permission for {printable(uri)}.", code="PERMISSION_DENIED") from None
    except OSError as error:
        if error.errno in NO_ROOM:
            raise translate(error, uri) from None
        raise UnavailableError(f"{printable(uri)}: {printable(error)}") from None
    except Exception as error:
        # Each file system brings exceptions of its own cloud's library, and none of them may look like an answer.
        raise UnavailableError(f"{printable(uri)}: {type(error).__name__}: {printable(error)}") from None
