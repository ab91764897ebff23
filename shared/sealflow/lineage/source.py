"""Places that data of a private clone may come from: a folder, read by us, or S3, fetched by DVC.

DVC runs as a process of its own, in a folder that holds nothing but what is written here: a configuration with one
remote, and lists of digests.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from sealflow.errors import ArtifactError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.lineage.clone import Watch, tail
from sealflow.lineage.config import is_remote_name
from sealflow.lineage.files import MAX_DIRECTORY
from sealflow.lineage.git_program import Child, Deadline, Stopped, environment, unverifiable
from sealflow.storage import Entry
from sealflow.storage.aws import is_aws
from sealflow.storage.local import LocalReader, to_path

_MAX_OUTPUT: Final = 16 << 20

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
    if not is_aws(client):
        found["AWS_ENDPOINT_URL_S3"] = client.meta.endpoint_url
    credentials = client._request_signer._credentials
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        found["AWS_ACCESS_KEY_ID"] = frozen.access_key
        found["AWS_SECRET_ACCESS_KEY"] = frozen.secret_key
        if frozen.token:
            found["AWS_SESSION_TOKEN"] = frozen.token
    return found


def check_handed(variables: Mapping[str, str]) -> None:
    """Refuse variables that DVC is not to have.

    Raises:
        UsageError: Names the first.
    """
    for name in variables:
        if _HANDED.fullmatch(name) is None:
            raise UsageError(
                f"The variable {printable(name, 80)!r} is not handed to DVC.",
                next_step="Hand over AWS_*, HTTPS_PROXY, NO_PROXY and files of certificates alone.",
            )


@dataclass(frozen=True)
class Limits:
    """How long the fetching may take, and how many bytes it may bring."""

    deadline: Deadline
    size: int


class Object(NamedTuple):
    """One object of DVC.

    Attributes:
        digest: MD5 in hex, with ``.dir`` for the list of a folder's files.
        legacy: Whether it is one of DVC 2, which lie elsewhere.
    """

    digest: str
    legacy: bool

    @property
    def path(self) -> str:
        """Where it lies on a remote or in a cache."""
        return f"{'' if self.legacy else 'files/md5/'}{self.digest[:2]}/{self.digest[2:]}"

    @property
    def is_folder(self) -> bool:
        """Whether it lists the files of a folder."""
        return self.digest.endswith(".dir")


class Source(Protocol):
    """Brings objects into a folder of ours.

    Attributes:
        cache: The folder; objects lie in it by their path on the remote.
    """

    cache: str

    def folders(self, objects: Sequence[Object]) -> Iterator[tuple[Object, bytes | None]]:
        """Yield ``.dir`` objects as they are on the remote, ``None`` for those that it does not hold.

        Raises:
            Stopped: The remote cannot be read.
        """

    def files(self, objects: Sequence[Object], folders: Mapping[Object, bytes]) -> set[Object]:
        """Bring files, and return those that are on the remote with other bytes, where that is known.

        Args:
            objects: The files.
            folders: Checked ``.dir`` objects, which name some of them.

        Raises:
            Stopped: The remote cannot be read.
        """

    def close(self) -> None:
        """Let go of the remote."""


class FolderSource:
    """A remote that is a folder.

    Args:
        remote: Its absolute path.
        folder: A private folder.
        limits: When to give up.

    Raises:
        Stopped: It cannot be read.
    """

    def __init__(self, remote: str, folder: str, limits: Limits) -> None:
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
        """See :class:`Source`."""
        self._reader.__exit__()

    def folders(self, objects: Sequence[Object]) -> Iterator[tuple[Object, bytes | None]]:
        """See :class:`Source`."""
        for item in objects:
            data = bytearray()
            yield item, bytes(data) if self._read(item, data.extend, MAX_DIRECTORY) else None

    def files(self, objects: Sequence[Object], folders: Mapping[Object, bytes]) -> set[Object]:
        """See :class:`Source`."""
        return {item for item in objects if not self._copy(item, os.path.join(self.cache, item.path))}

    def _copy(self, item: Object, path: str) -> bool:
        """Copy one object, if the remote holds it; false when it holds other bytes."""
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        hasher = hashlib.md5(usedforsecurity=False)
        with open(path, "xb") as file:

            def take(piece: Any) -> None:
                file.write(piece)
                hasher.update(piece)

            found = self._read(item, take, self._limits.size)
        # Digests of DVC 2 are not those of the bytes; the check compares them.
        right = item.legacy or not found or hasher.hexdigest() == item.digest
        if not found or not right:
            os.unlink(path)
        return right

    def _read(self, item: Object, consume: Callable[[Any], object], limit: int) -> bool:
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


class DvcSource:
    """A remote in S3, which DVC reads.

    Args:
        url: Its canonical URL.
        folder: A private, empty folder.
        handed: Variables that DVC gets besides its own; see :func:`check_handed`.
        python: Interpreter that has DVC.
        limits: When to give up.

    Raises:
        Stopped: There is no DVC.
    """

    def __init__(self, url: str, folder: str, handed: Mapping[str, str], python: str, limits: Limits) -> None:
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

    def folders(self, objects: Sequence[Object]) -> Iterator[tuple[Object, bytes | None]]:
        """See :class:`Source`."""
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

    def files(self, objects: Sequence[Object], folders: Mapping[Object, bytes]) -> set[Object]:
        """See :class:`Source`."""
        # A folder is listed as itself, so that DVC asks the remote for its files together.
        for item, data in folders.items():
            path = os.path.join(self.cache, item.path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as file:
                file.write(data)
        outs = [
            {"path": f"o{index}", "md5": item.digest, **({} if item.legacy else {"hash": "md5"})}
            for index, item in enumerate(dict.fromkeys((*folders, *objects)))
        ]
        self._write_stage("files", "all.dvc", {"outs": outs})
        self._run("files", "fetch", "--remote", "sealflow", "--", "all.dvc")
        return set()

    def close(self) -> None:
        """See :class:`Source`."""

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
