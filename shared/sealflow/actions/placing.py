"""Placing: a private copy on this machine gets its name at once, and nothing that lay there is lost on the way."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from typing import Final

from sealflow.errors import SealflowError, UnavailableError
from sealflow.findings import printable
from sealflow.storage.files import exists, short, translate
from sealflow.storage.local import to_path

#: Where what is replaced waits in a private folder until the new one has its place.
_ASIDE: Final = "replaced"


def put_in_place(source: str, destination: str, *, overwrite: bool) -> None:
    """Put a private copy on this machine in its place in one step.

    Args:
        source: Location of the copy.
        destination: Location where it shall be.
        overwrite: Replace what lies there.

    Raises:
        ArtifactError: ``ARTIFACT_EXISTS``.
        UnavailableError: It cannot be written.
    """
    path = to_path(destination)
    parent, name = os.path.split(path)
    # Beside its place first: a rename does not cross file systems.
    beside = os.path.join(parent, f".{short(name)}.{secrets.token_hex(8)}.partial")
    try:
        try:
            os.makedirs(parent, exist_ok=True)
            os.mkdir(beside, 0o700)
            content = os.path.join(beside, "artifact")
            shutil.move(to_path(source), content)
            open_up(content)
        except OSError as error:
            raise UnavailableError(f"{printable(parent)} cannot be written: {error.strerror or error}.") from None
        move(content, path, beside, overwrite=overwrite)
    finally:
        _discard(beside)


@contextlib.contextmanager
def partial(path: str, source: str) -> Iterator[str]:
    """Give the private folder of one download, beside its destination; it stays where going on makes sense.

    No other process has it meanwhile, and what one that died had set aside is given back first.

    Args:
        path: The destination.
        source: Location of what is to be there: another download to the same place has another folder.

    Raises:
        UnavailableError: It cannot be made, ``PERMISSION_DENIED``: something else lies there, or others can reach it;
            ``DOWNLOAD_RUNNING``: another process downloads from there to here.
    """
    parent, name = os.path.split(path)
    mark = hashlib.sha256(f"{source}\0{path}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder = os.path.join(parent, f".{short(name)}.{mark}.partial")
    try:
        os.makedirs(parent, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"{printable(parent)} cannot be written: {error.strerror or error}.") from None
    try:
        if os.fstat(fd).st_uid != os.geteuid() or os.fstat(fd).st_mode & 0o077:
            raise UnavailableError(
                f"{printable(folder)} is not private.", code="PERMISSION_DENIED", next_step="Remove it, then try again."
            )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UnavailableError(
                f"Another process is downloading to {printable(path)}.",
                code="DOWNLOAD_RUNNING",
                next_step="Wait for it, or stop it; then try again.",
            ) from None
        keep = False
        try:
            _give_back(folder, path)
            yield folder
        except OSError as error:
            keep = True
            raise translate(error, path) from None
        except BaseException as error:
            # Interrupted, killed, out of reach: the next attempt begins with what is there. Refused: nothing stays.
            keep = not isinstance(error, SealflowError) or getattr(error, "retryable", False)
            raise
        finally:
            if not keep:
                _discard(folder)
    finally:
        os.close(fd)


def _give_back(folder: str, path: str) -> None:
    """Give what a process that died had set aside its place back."""
    aside = os.path.join(folder, _ASIDE)
    if not os.path.lexists(aside) or _restore(aside, path):
        return
    if _bytes(os.path.join(folder, "artifact")):
        raise _kept(path, aside)
    _remove(aside)  # the new one has its place, and only this was left to do


def _kept(path: str, aside: str) -> UnavailableError:
    return UnavailableError(
        f"{printable(path)} was taken by somebody else while it was replaced; what lay there is kept at "
        f"{printable(aside, 4096)}.",
        next_step="Move it to where it belongs, then try again.",
    )


def _restore(aside: str, path: str) -> bool:
    """Put what was set aside back, unless something lies there; tell whether it was done."""
    try:
        if os.path.isdir(aside) and not os.path.islink(aside):
            if os.path.lexists(path):
                return False
            os.rename(aside, path)
        else:
            os.link(aside, path, follow_symlinks=False)
            os.unlink(aside)
    except OSError:
        return False
    return True


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _discard(folder: str) -> None:
    """Remove a private folder, unless the only copy of what was to be replaced lies in it."""
    if not os.path.lexists(os.path.join(folder, _ASIDE)):
        shutil.rmtree(folder, ignore_errors=True)


def earlier(folder: str) -> str | None:
    """Set aside what an earlier attempt left, and return where it lies, ``None`` where there is nothing.

    Args:
        folder: The private folder of the download.

    Raises:
        OSError: It cannot be moved.
    """
    before, now = os.path.join(folder, "before"), os.path.join(folder, "artifact")
    if os.path.isdir(now):
        # An attempt that died early must not cost what the one before it had.
        if _bytes(now) >= _bytes(before):
            shutil.rmtree(before, ignore_errors=True)
            os.rename(now, before)
        else:
            shutil.rmtree(now)
    return before if os.path.isdir(before) else None


def _bytes(folder: str) -> int:
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names)


def open_up(content: str) -> None:
    """Give the copy the modes that new files have here; until now nobody else could reach it.

    Args:
        content: Path of the copy, a file or a folder.

    Raises:
        OSError: A mode cannot be set.
    """
    # A name of its own: one made from the content's may be too long, or left by a process that died here.
    probe = os.path.join(os.path.dirname(content), f".{secrets.token_hex(8)}")
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777)
    allowed = os.fstat(fd).st_mode & 0o777
    os.close(fd)
    os.unlink(probe)
    if os.path.isfile(content):
        _open_file(content, allowed)
        return
    for place, _, names in os.walk(content):
        os.chmod(place, allowed)
        for name in names:
            _open_file(os.path.join(place, name), allowed)


def _open_file(path: str, allowed: int) -> None:
    executable = os.lstat(path).st_mode & 0o100
    os.chmod(path, allowed if executable else allowed & 0o666)


def move(content: str, path: str, folder: str, *, overwrite: bool) -> None:
    """Put the copy in its place in one step; where that fails, what lay there lies there again.

    Args:
        content: Path of the copy, a file or a folder, on the file system of its place.
        path: Where it shall be.
        folder: The private folder; what is replaced waits in it meanwhile.
        overwrite: Replace what lies there.

    Raises:
        ArtifactError: ``ARTIFACT_EXISTS``.
        UnavailableError: It cannot be made; or somebody else took the place meanwhile, and the message says where that
            is kept which lay there.
    """
    aside = os.path.join(folder, _ASIDE)
    try:
        if overwrite and os.path.lexists(path):
            if os.path.isdir(content) or (os.path.isdir(path) and not os.path.islink(path)):
                # A folder cannot be replaced in one step: between these two there is nothing, never a mixture.
                os.rename(path, aside)
                _take_place(content, path)
            else:
                os.replace(content, path)
        else:
            _take_place(content, path)
    except BaseException as error:
        if os.path.lexists(aside) and not _restore(aside, path) and isinstance(error, OSError):
            raise _kept(path, aside) from None
        if not isinstance(error, OSError):
            raise
        if isinstance(error, FileExistsError) or (not overwrite and os.path.lexists(path)):
            raise exists(path) from None
        raise UnavailableError(f"{printable(path)} cannot be made: {error.strerror or error}.") from None
    _remove(aside)


def _take_place(content: str, path: str) -> None:
    if os.path.isdir(content):
        os.rename(content, path)  # refuses a folder with files in it; an empty one is nothing
    else:
        os.link(content, path)
