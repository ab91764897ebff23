"""Fetching the data of a private clone; only transport, for every byte is checked afterwards.

DVC runs as a process of its own and never sees the repository. It sees a folder that we wrote: a configuration with
one remote, the caller's, and one ``.dvc`` file that lists digests. Two things it is not trusted with:

- ``.dir`` objects. DVC makes paths of the digests in them before it looks at these, so a hostile one deletes and
  writes files outside of the cache. They are fetched as plain files, checked here, and only then given to DVC.
- A remote that is a folder. DVC changes the modes of its objects, and deletes those that are not what their name
  says. They are read here, without DVC.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.findings import Finding, printable
from sealflow.lineage.check import check_repository
from sealflow.lineage.clone import is_ours
from sealflow.lineage.content import directory_object
from sealflow.lineage.files import parse_directory
from sealflow.lineage.git_program import Deadline, Stopped, refused, unverifiable
from sealflow.lineage.preflight import refused_place
from sealflow.lineage.repository import Stage
from sealflow.lineage.source import DvcSource, FolderSource, Limits, Object, Source, check_handed, data_source
from sealflow.names import check_tree

#: Seconds and bytes that the fetching of data takes at most.
TIME_LIMIT: Final = 3600.0
SIZE_LIMIT: Final = 64 << 30
#: Most files that are put into the work tree.
MAX_FILES: Final = 2_000_000
#: Largest size of all ``.dir`` objects together, in bytes; they are held in memory.
_MAX_FOLDERS: Final = 512 << 20
# Files of one folder that are named; the rest is counted.
_NAMED: Final = 20


def fetch(
    root: str,
    *,
    remote: str,
    targets: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    time_limit: float = TIME_LIMIT,
    size_limit: int = SIZE_LIMIT,
) -> tuple[Finding, ...]:
    """Fetch the data that targets need and that the clone does not hold, from one remote.

    What lies in the clone is never overwritten. Nothing outside of the clone's private folder is written, and on the
    remote nothing at all.

    Args:
        root: A clone of :func:`~sealflow.lineage.clone.cloned` that :func:`~sealflow.lineage.preflight.preflight` has
            nothing against.
        remote: Where data may come from: ``s3://bucket/prefix``, a path or ``file:///path``.
        targets: As for a check; everything upstream of them is fetched too. All when there are none.
        environment: Variables for DVC: ``AWS_*``, proxies and certificate files. It gets no others but its own; the
            credentials of this process are not handed down.
        python: Interpreter that has DVC, and ``dvc-s3`` for S3.
        time_limit: Seconds after which it is given up.
        size_limit: Bytes that the data may have.

    Returns:
        Why data is missing; empty when all of it is there. ``REMOTE_MISSING`` and ``REMOTE_CORRUPT`` are refusals,
        ``DATA_FETCH_FAILED`` and ``EXTRA_MISSING`` make the check unverifiable.

    Raises:
        UsageError: A folder that is no clone of ours, a remote, a variable or a target that cannot be taken.
    """
    if not is_ours(root):
        raise UsageError("Data is fetched into a private clone alone, never into a repository of somebody's.")
    place = data_source(remote)
    handed = dict(environment or {})
    check_handed(handed)
    try:
        wanted = _wanted(root, targets)
        if not wanted.outs:
            return ()
        with _private_folder_in(os.path.dirname(root)) as folder:
            source: Source
            limits = Limits(Deadline(time_limit), size_limit)
            if place.startswith("s3://"):
                source = DvcSource(place, folder, handed, python, limits)
            else:
                source = FolderSource(place, folder, limits)
            with contextlib.closing(source):
                return tuple(_fetch(root, wanted, source))
    except Stopped as stopped:
        return (stopped.finding,)
    except UsageError:
        raise
    except SealflowError as error:
        severity: Any = "unverifiable" if isinstance(error, UnavailableError) else "refusal"
        return (Finding(error.code, severity, root, error.message),)


@contextlib.contextmanager
def _private_folder_in(parent: str) -> Iterator[str]:
    # Beside the clone, so that objects can be linked from one to the other.
    folder = os.path.join(parent, "transport")
    os.mkdir(folder, 0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- What is needed ---


@dataclass
class _Wanted:
    """Path in the repository → object, and what is known of folders from the repository itself."""

    outs: dict[str, Object] = field(default_factory=dict)
    listed: dict[Object, bytes] = field(default_factory=dict)


def _wanted(root: str, targets: Sequence[str]) -> _Wanted:
    # The check knows which stages the targets need; what it says of data that is not there yet is of no interest.
    stages: Iterable[Stage] = check_repository(root, targets, level="L1").stages
    found = _Wanted()
    for stage in stages:
        for out in stage.recorded_outs:
            place = stage.place(out.path)
            if not out.digest or place is None or os.path.lexists(os.path.join(root, place)):
                continue
            if problem := refused_place(place):
                raise refused("FOREIGN_REFUSED", stage.address, problem, found=place)
            found.outs[place] = Object(out.digest, out.legacy)
            if out.files and out.digest.endswith(".dir"):
                found.listed[found.outs[place]] = directory_object(out.files)
    return found


# --- How it is put in place ---


def _fetch(root: str, wanted: _Wanted, source: Source) -> Iterator[Finding]:
    folders: dict[Object, Mapping[str, str]] = {}
    data: dict[Object, bytes] = dict(wanted.listed)
    lost: dict[Object, str] = {}
    asked = [item for item in dict.fromkeys(wanted.outs.values()) if item.is_folder and item not in data]
    for item, found in source.folders(asked) if asked else ():
        if found is None:
            lost[item] = "REMOTE_MISSING"
        elif hashlib.md5(found, usedforsecurity=False).hexdigest() + ".dir" != item.digest:
            lost[item] = "REMOTE_CORRUPT"
        else:
            data[item] = found
            if sum(map(len, data.values())) > _MAX_FOLDERS:
                raise unverifiable("DATA_FETCH_FAILED", root, f"The .dir objects exceed {_MAX_FOLDERS} bytes.")
    files: dict[Object, None] = {}
    count = 0
    for path, item in wanted.outs.items():
        if not item.is_folder:
            files[item] = None
            count += 1
        elif item in data:
            folders[item] = listed = _listed(path, data[item])
            files.update(dict.fromkeys(Object(digest, item.legacy) for digest in listed.values()))
            count += len(listed)
        if count > MAX_FILES:
            raise unverifiable("DATA_FETCH_FAILED", root, f"The data has more than {MAX_FILES} files.")
    if files:
        for item in source.files(list(files), data):
            lost[item] = "REMOTE_CORRUPT"
    put = _Put(root, source.cache)
    for item, content in data.items():
        put.object(item, content)
    for item in files:
        if item not in lost and not put.object(item):
            lost[item] = "REMOTE_MISSING"
    for path, item in wanted.outs.items():
        if item in lost:
            yield _lost(path, item, lost[item])
            continue
        if not item.is_folder:
            put.file(item, path)
            continue
        os.makedirs(os.path.join(root, path), mode=0o700, exist_ok=True)
        gone = [name for name, digest in folders[item].items() if Object(digest, item.legacy) in lost]
        for name, digest in folders[item].items():
            if (inner := Object(digest, item.legacy)) not in lost:
                put.file(inner, f"{path}/{name}")
        for name in gone[:_NAMED]:
            inner = Object(folders[item][name], item.legacy)
            yield _lost(f"{path}/{name}", inner, lost[inner])
        if len(gone) > _NAMED:
            yield Finding("REMOTE_MISSING", "refusal", path, f"{len(gone) - _NAMED} more files could not be fetched.")


def _lost(path: str, item: Object, code: str) -> Finding:
    if code == "REMOTE_CORRUPT":
        return Finding(code, "refusal", path, f"The remote holds other bytes under the digest {item.digest}.")
    message = "The remote does not hold the data, or holds other bytes under its digest."
    return Finding(code, "refusal", path, message, expected=item.digest)


def _listed(path: str, data: bytes) -> Mapping[str, str]:
    """Return name and digest of the files of a ``.dir`` object.

    Raises:
        Stopped: It is malformed, or names what must not be written.
    """
    try:
        listed = parse_directory(data, f"The .dir object of {printable(path)}")
        for name in listed:
            if problem := refused_place(f"{path}/{name}"):
                raise refused("FOREIGN_REFUSED", f"{path}/{name}", problem)
        check_tree(listed)
    except EvidenceError as error:
        raise refused(error.code, path, error.message) from None
    except ArtifactError as error:
        raise refused("FOREIGN_REFUSED", path, error.message) from None
    return listed


class _Put:
    """Puts fetched objects into the cache of a clone, and from there into its work tree."""

    def __init__(self, root: str, fetched: str) -> None:
        self._root = root
        self._fetched = fetched
        self._made: set[str] = set()

    def object(self, item: Object, content: bytes | None = None) -> bool:
        """Put one object into the cache; false when it was not fetched."""
        target = self._cached(item)
        if os.path.lexists(target):
            return True
        self._folder(os.path.dirname(target))
        if content is not None:
            with open(target, "xb") as file:
                file.write(content)
            return True
        source = os.path.join(self._fetched, item.path)
        if os.path.islink(source) or not os.path.isfile(source):
            return False
        os.rename(source, target)
        return True

    def file(self, item: Object, path: str) -> None:
        """Put a file into the work tree, where nothing lies yet.

        Raises:
            Stopped: Something lies there.
        """
        target = os.path.join(self._root, path)
        try:
            self._folder(os.path.dirname(target))
            try:
                os.link(self._cached(item), target, follow_symlinks=False)
            except FileExistsError:
                raise
            except OSError:
                # The file system knows no links, or no more of them.
                with open(self._cached(item), "rb") as source, open(target, "xb") as file:
                    shutil.copyfileobj(source, file)
        except (FileExistsError, NotADirectoryError):
            raise refused(
                "OUT_OVERLAP", path, "Two outputs claim this place, or a file of the commit has it."
            ) from None

    def _cached(self, item: Object) -> str:
        return os.path.join(self._root, ".dvc", "cache", item.path)

    def _folder(self, path: str) -> None:
        if path not in self._made:
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._made.add(path)
