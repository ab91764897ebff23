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
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.findings import Finding, printable
from sealflow.lineage.check import check_repository
from sealflow.lineage.clone import Watch, is_ours, tail
from sealflow.lineage.config import is_remote_name
from sealflow.lineage.content import directory_object
from sealflow.lineage.files import MAX_DIRECTORY, parse_directory
from sealflow.lineage.git_program import Child, Deadline, Stopped, environment, refused, unverifiable
from sealflow.lineage.preflight import refused_place
from sealflow.lineage.repository import Stage
from sealflow.names import check_tree
from sealflow.storage import Entry
from sealflow.storage.local import LocalReader, to_path

#: Seconds and bytes that the fetching of data takes at most.
TIME_LIMIT: Final = 3600.0
SIZE_LIMIT: Final = 64 << 30
#: Most files that are put into the work tree.
MAX_FILES: Final = 2_000_000
_MAX_OUTPUT: Final = 16 << 20
#: Largest size of all ``.dir`` objects together, in bytes; they are held in memory.
_MAX_FOLDERS: Final = 512 << 20
# Files of one folder that are named; the rest is counted.
_NAMED: Final = 20

_S3: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._~=@:!+-]+)*)/?")
# What a caller may hand to DVC: credentials and region of AWS, and the way out of this machine.
_HANDED: Final = re.compile(
    r"AWS_[A-Z0-9_]+|(?:HTTPS?|NO|ALL)_PROXY|https?_proxy|no_proxy|REQUESTS_CA_BUNDLE|SSL_CERT_(?:FILE|DIR)"
)
_SECRET: Final = re.compile(r"KEY|SECRET|TOKEN|PROXY|proxy")

_SETTINGS: Final = """\
[core]
    no_scm = true
    analytics = false
    check_update = false
    autostage = false
    interactive = false
    remote = sealflow
[cache]
    dir = "{cache}"
    type = copy
    slow_link_warning = false
['remote "sealflow"']
    url = "{url}"
    verify = true
"""


def data_source(remote: str) -> str:
    """Return the canonical URL of a remote that data may come from: ``s3://bucket/prefix`` or an absolute path.

    Raises:
        UsageError: Anything else.
    """
    if match := _S3.fullmatch(remote):
        if {".", ".."} & set(match[2].split("/")):
            raise _bad_remote()
        return f"s3://{match[1]}{match[2]}"
    # The name of a remote would mean what the repository says.
    if is_remote_name(remote) or ("://" in remote and not remote.startswith("file:///")):
        raise _bad_remote()
    return to_path(remote)


def _bad_remote() -> UsageError:
    # It may hold credentials, so it is not repeated.
    return UsageError(
        "Data of a repository from elsewhere is fetched from S3 or from a folder.",
        code="REMOTE_UNSUPPORTED",
        next_step="Write s3://bucket/prefix, a path or file:///path; credentials are handed over as variables.",
    )


def s3_environment(client: Any) -> dict[str, str]:
    """Return the variables with which another program has the credentials and the endpoint of a boto3 S3 client.

    Args:
        client: The client; credentials that it renews itself are those of this moment.
    """
    found = {"AWS_DEFAULT_REGION": client.meta.region_name or "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    if ".amazonaws.com" not in client.meta.endpoint_url:
        found["AWS_ENDPOINT_URL_S3"] = client.meta.endpoint_url
    credentials = client._request_signer._credentials
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        found["AWS_ACCESS_KEY_ID"] = frozen.access_key
        found["AWS_SECRET_ACCESS_KEY"] = frozen.secret_key
        if frozen.token:
            found["AWS_SESSION_TOKEN"] = frozen.token
    return found


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
    for name in handed:
        if _HANDED.fullmatch(name) is None:
            raise UsageError(
                f"The variable {printable(name, 80)!r} is not handed to DVC.",
                next_step="Hand over AWS_*, HTTPS_PROXY, NO_PROXY and files of certificates alone.",
            )
    try:
        wanted = _wanted(root, targets)
        if not wanted.outs:
            return ()
        with _private_folder_in(os.path.dirname(root)) as folder:
            source: _Source
            limits = _Limits(Deadline(time_limit), size_limit)
            if place.startswith("s3://"):
                source = _WithDvc(place, folder, handed, python, limits)
            else:
                source = _Folder(place, folder, limits)
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


@dataclass(frozen=True)
class _Limits:
    deadline: Deadline
    size: int


# --- What is needed ---


class _Object(tuple[str, bool]):
    """Digest of an object, and whether it is one of DVC 2, which lie elsewhere."""

    __slots__ = ()

    @property
    def path(self) -> str:
        digest, legacy = self
        return f"{'' if legacy else 'files/md5/'}{digest[:2]}/{digest[2:]}"

    @property
    def is_folder(self) -> bool:
        return self[0].endswith(".dir")


@dataclass
class _Wanted:
    """Path in the repository → object, and what is known of folders from the repository itself."""

    outs: dict[str, _Object] = field(default_factory=dict)
    listed: dict[_Object, bytes] = field(default_factory=dict)


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
            found.outs[place] = _Object((out.digest, out.legacy))
            if out.files and out.digest.endswith(".dir"):
                found.listed[found.outs[place]] = directory_object(out.files)
    return found


# --- Where it comes from ---


class _Source:
    """Brings objects into a folder of ours, by their path on the remote."""

    cache: str

    def folders(self, objects: Sequence[_Object]) -> Iterator[tuple[_Object, bytes | None]]:
        """Yield ``.dir`` objects as they are on the remote, ``None`` for those that it does not hold."""
        raise NotImplementedError

    def files(self, objects: Sequence[_Object], folders: Mapping[_Object, bytes]) -> set[_Object]:
        """Bring files, and return those that are on the remote with other bytes, where that is known.

        Args:
            objects: The files.
            folders: Checked ``.dir`` objects, which name them.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the remote."""


class _Folder(_Source):
    """A remote that is a folder."""

    def __init__(self, remote: str, folder: str, limits: _Limits) -> None:
        self.cache = os.path.join(folder, "cache")
        self._remote = remote
        self._limits = limits
        self._left = limits.size
        try:
            # The way to the remote may lead through links, the way inside may not.
            self._reader = LocalReader(os.open(remote, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as error:
            raise unverifiable("DATA_FETCH_FAILED", remote, f"The remote cannot be read: {error.strerror}.") from None

    def close(self) -> None:
        self._reader.__exit__()

    def folders(self, objects: Sequence[_Object]) -> Iterator[tuple[_Object, bytes | None]]:
        for item in objects:
            data = bytearray()
            yield item, bytes(data) if self._read(item, data.extend, MAX_DIRECTORY) else None

    def files(self, objects: Sequence[_Object], folders: Mapping[_Object, bytes]) -> set[_Object]:
        return {item for item in objects if not self._copy(item, os.path.join(self.cache, item.path))}

    def _copy(self, item: _Object, path: str) -> bool:
        """Copy one object, if the remote holds it; false when it holds other bytes."""
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        hasher = hashlib.md5(usedforsecurity=False)
        with open(path, "xb") as file:

            def take(piece: Any) -> None:
                file.write(piece)
                hasher.update(piece)

            found = self._read(item, take, self._limits.size)
        # Digests of DVC 2 are not those of the bytes; the check compares them.
        right = item[1] or not found or hasher.hexdigest() == item[0]
        if not found or not right:
            os.unlink(path)
        return right

    def _read(self, item: _Object, consume: Callable[[Any], object], limit: int) -> bool:
        size = 0

        def counted(piece: Any) -> None:
            nonlocal size
            size += len(piece)
            self._left -= len(piece)
            if self._left < 0 or size > limit:
                raise unverifiable("DATA_FETCH_FAILED", self._remote, "The data is larger than the limit.")
            if not self._limits.deadline.left():
                raise unverifiable("DATA_FETCH_FAILED", self._remote, "The time limit was reached.")
            consume(piece)

        try:
            self._reader.read(Entry(item.path), counted)
        except (ArtifactError, UnavailableError) as error:
            if not os.path.lexists(os.path.join(self._remote, item.path)):
                return False
            raise unverifiable("DATA_FETCH_FAILED", self._remote, error.message) from None
        return True


class _WithDvc(_Source):
    """DVC, in a folder that holds nothing but what we wrote."""

    def __init__(self, url: str, folder: str, handed: Mapping[str, str], python: str, limits: _Limits) -> None:
        if python == sys.executable and importlib.util.find_spec("dvc") is None:
            raise _missing("dvc")
        self.cache = os.path.join(folder, "cache")
        self._url = url
        self._folder = folder
        self._python = python
        self._limits = limits
        self._secrets = {value for name, value in handed.items() if _SECRET.search(name) and len(value) > 5}
        home = os.path.join(folder, "home")
        os.mkdir(home, 0o700)
        self._environ = environment(
            home,
            DVC_SITE_CACHE_DIR=os.path.join(home, "site"),
            DVC_GLOBAL_CONFIG_DIR=os.path.join(home, "global"),
            DVC_SYSTEM_CONFIG_DIR=os.path.join(home, "system"),
            DVC_NO_ANALYTICS="1",
            PYTHONDONTWRITEBYTECODE="1",
            AWS_EC2_METADATA_DISABLED="true",
        )
        self._environ.update(handed)

    def folders(self, objects: Sequence[_Object]) -> Iterator[tuple[_Object, bytes | None]]:
        # Imports by URL: the one command of DVC that fetches several objects without looking into them.
        for index, item in enumerate(objects):
            self._write_stage(
                "folders",
                f"m{index}.dvc",
                {
                    "frozen": True,
                    "deps": [{"path": f"remote://sealflow/{item.path}"}],
                    "outs": [{"path": f"m{index}", "hash": "md5", "cache": False}],
                },
            )
        names = [f"m{index}" for index in range(len(objects))]
        for start in range(0, len(names), 500):
            batch = [f"{name}.dvc" for name in names[start : start + 500]]
            self._run("folders", "update", "--", *batch)
        for name, item in zip(names, objects, strict=True):
            path = os.path.join(self._folder, "folders", name)
            data = None
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) <= MAX_DIRECTORY:
                with open(path, "rb") as file:
                    data = file.read()
            yield item, data

    def files(self, objects: Sequence[_Object], folders: Mapping[_Object, bytes]) -> set[_Object]:
        # A folder is listed as itself, so that DVC asks the remote for its files together.
        for item, data in folders.items():
            path = os.path.join(self.cache, item.path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        outs = [
            {"path": f"o{index}", "md5": item[0], **({} if item[1] else {"hash": "md5"})}
            for index, item in enumerate(dict.fromkeys((*folders, *objects)))
        ]
        self._write_stage("files", "all.dvc", {"outs": outs})
        self._run("files", "fetch", "--remote", "sealflow", "--", "all.dvc")
        return set()

    def _write_stage(self, folder: str, name: str, body: Mapping[str, Any]) -> None:
        at = os.path.join(self._folder, folder)
        if not os.path.isdir(at):
            os.makedirs(os.path.join(at, ".dvc"), mode=0o700)
            with open(os.path.join(at, ".dvc", "config"), "x", encoding="utf-8") as file:
                file.write(_SETTINGS.format(cache=self.cache, url=self._url))
        with open(os.path.join(at, name), "x", encoding="utf-8") as file:
            json.dump(body, file)

    def _run(self, folder: str, *arguments: str) -> None:
        watch = Watch(self._folder, self._limits.size, "DATA_FETCH_FAILED", self._url)
        try:
            with Child(
                # Isolated: neither the working directory nor PYTHON* variables say which modules are loaded.
                [self._python, "-I", "-m", "dvc", *arguments],
                environ=self._environ,
                folder=os.path.join(self._folder, folder),
                deadline=self._limits.deadline,
                what="dvc",
                watch=watch,
            ) as child:
                status, output = child.finish(_MAX_OUTPUT)
                said = bytes(child.diagnostics) or output
        except Stopped as stopped:
            if stopped.finding.code in ("PROGRAM_MISSING", "DATA_FETCH_FAILED"):
                raise
            raise unverifiable("DATA_FETCH_FAILED", self._url, stopped.finding.message) from None
        watch.now()
        if status == 0:
            return
        if b"No module named dvc" in said:
            raise _missing("dvc")
        if b"dvc-s3" in said and b"requires" in said:
            raise _missing("dvc-s3")
        # The last lines of DVC are an invitation to its support.
        shown = said.partition(b"Having any troubles?")[0]
        raise unverifiable("DATA_FETCH_FAILED", self._url, f"DVC could not fetch: {tail(shown, self._secrets)}")


def _missing(package: str) -> Stopped:
    step = "pip install 'sealflow[dvc]'" if package == "dvc" else "pip install dvc-s3"
    return unverifiable(
        "EXTRA_MISSING", package, f"Fetching data from S3 needs {package}, which is not installed.", next_step=step
    )


# --- How it is put in place ---


def _fetch(root: str, wanted: _Wanted, source: _Source) -> Iterator[Finding]:
    folders: dict[_Object, Mapping[str, str]] = {}
    data: dict[_Object, bytes] = dict(wanted.listed)
    lost: dict[_Object, str] = {}
    asked = [item for item in dict.fromkeys(wanted.outs.values()) if item.is_folder and item not in data]
    for item, found in source.folders(asked) if asked else ():
        if found is None:
            lost[item] = "REMOTE_MISSING"
        elif hashlib.md5(found, usedforsecurity=False).hexdigest() + ".dir" != item[0]:
            lost[item] = "REMOTE_CORRUPT"
        else:
            data[item] = found
            if sum(map(len, data.values())) > _MAX_FOLDERS:
                raise unverifiable("DATA_FETCH_FAILED", root, f"The .dir objects exceed {_MAX_FOLDERS} bytes.")
    files: dict[_Object, None] = {}
    count = 0
    for path, item in wanted.outs.items():
        if not item.is_folder:
            files[item] = None
            count += 1
        elif item in data:
            folders[item] = listed = _listed(path, data[item])
            files.update(dict.fromkeys(_Object((digest, item[1])) for digest in listed.values()))
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
        gone = [name for name, digest in folders[item].items() if _Object((digest, item[1])) in lost]
        for name, digest in folders[item].items():
            if (inner := _Object((digest, item[1]))) not in lost:
                put.file(inner, f"{path}/{name}")
        for name in gone[:_NAMED]:
            inner = _Object((folders[item][name], item[1]))
            yield _lost(f"{path}/{name}", inner, lost[inner])
        if len(gone) > _NAMED:
            yield Finding("REMOTE_MISSING", "refusal", path, f"{len(gone) - _NAMED} more files could not be fetched.")


def _lost(path: str, item: _Object, code: str) -> Finding:
    if code == "REMOTE_CORRUPT":
        return Finding(code, "refusal", path, f"The remote holds other bytes under the digest {item[0]}.")
    message = "The remote does not hold the data, or holds other bytes under its digest."
    return Finding(code, "refusal", path, message, expected=item[0])


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

    def object(self, item: _Object, content: bytes | None = None) -> bool:
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

    def file(self, item: _Object, path: str) -> None:
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

    def _cached(self, item: _Object) -> str:
        return os.path.join(self._root, ".dvc", "cache", item.path)

    def _folder(self, path: str) -> None:
        if path not in self._made:
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._made.add(path)
