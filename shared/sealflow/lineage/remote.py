"""Level L4: the objects that the lock names are whole on the DVC remote.

A remote is a folder or S3, and it is only read. In a folder every byte is hashed. S3 is asked for what it knows: an
ETag that is the MD5, or a checksum of the whole object; where these prove nothing, the bytes are read if the caller
wants that, and the answer is ``unverifiable`` otherwise. ``.dir`` objects are always read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from sealflow.errors import ArtifactError, EvidenceError, UnavailableError, UsageError
from sealflow.findings import Finding, printable
from sealflow.lineage.config import is_remote_name, remote_url
from sealflow.lineage.content import Content, WorkTree
from sealflow.lineage.files import MAX_DIRECTORY, Recorded, parse_directory
from sealflow.lineage.repository import Stage
from sealflow.storage import Entry, Location, Storages
from sealflow.storage.local import LocalStorage, to_path
from sealflow.storage.resolve import S3_SCHEMES
from sealflow.storage.s3 import ObjectFacts, S3Storage

__all__ = ["Wanted", "check_remote", "is_remote_name", "remote_url", "wanted_objects"]

_T = TypeVar("_T")

_DIGEST: Final = re.compile(r"[0-9a-f]{32}(?:\.dir)?")
_PLAIN_ETAG: Final = re.compile(r'"?([0-9A-Fa-f]{32})"?')

# Objects of one output that are named by code; the rest is counted.
_NAMED: Final = 20
# Up to here one HEAD for each object costs no more than a listing, and says more.
_FEW: Final = 32
# Pages of a listing before the rest is asked for one by one: a remote may hold much that nobody asked for.
_PAGES: Final = 16
_OBJECTS_A_PAGE: Final = 8
# A store that refused this often is not asked again.
_ENOUGH: Final = 32
_LARGE: Final = 4 << 20

_WHOSE: Final = "Endpoint and credentials are those of this process; what .dvc/config says of them is not used."


class Wanted(NamedTuple):
    """One recorded object.

    Attributes:
        path: Path of the data, for findings.
        digest: MD5 as DVC records it, ``.dir`` at its end for a folder.
        size: Recorded bytes, of a folder those of its files together; ``None`` when they are not recorded.
        legacy: Whether the digest is one of DVC 2, whose objects lie at the top of the remote.
        files: Relative name → MD5 of a folder whose bytes were checked, ``None`` otherwise.
        sha256: SHA-256 of a file in hex, empty when it is not known.
        checked: Relative name → size and SHA-256 (empty when it is not known) of the files of a folder, where its
            bytes were checked; with signed SHA-256 digests nobody makes MD5 digests of the files.
    """

    path: str
    digest: str
    size: int | None
    legacy: bool
    files: Mapping[str, str] | None
    sha256: str = ""
    checked: Mapping[str, tuple[int, str]] | None = None


def wanted_objects(stages: Iterable[Stage], contents: Mapping[str, Content]) -> dict[str, list[Wanted]]:
    """Return what DVC keeps on remotes, by the name of the remote; the empty name is the default one.

    Data that is not cached is no business of a remote, and what was imported from a repository stays on the remote of
    that one.

    Args:
        stages: The stages and ``.dvc`` files that were checked.
        contents: What was found at each path.
    """
    wanted: dict[str, list[Wanted]] = {}
    for stage in stages:
        if stage.dvc is not None and any(dep.upstream.startswith("repository") for dep in stage.dvc.deps):
            continue
        flags = {out.path: (out.cache, out.remote) for out in stage.definition.outs} if stage.definition else {}
        for item in stage.recorded_outs:
            cached, remote = flags.get(item.path, (item.cache, item.remote))
            path = stage.place(item.path)
            if cached and item.digest and path is not None:
                wanted.setdefault(remote, []).append(_wanted(path, item, contents.get(path)))
    return wanted


def _wanted(path: str, item: Recorded, content: Content | None) -> Wanted:
    if content is None or content.digest != item.digest:
        # Other bytes than the recorded ones say nothing about what the remote should hold.
        return Wanted(path, item.digest, item.size, item.legacy, None)
    if content.files is None:
        return Wanted(path, item.digest, item.size, item.legacy, None, content.sha256)
    files: dict[str, str] | None = {name: file.md5 for name, file in content.files.items()}
    if files and not all(files.values()):
        files = None
    checked = {name: (file.size, file.sha256) for name, file in content.files.items()}
    return Wanted(path, item.digest, item.size, item.legacy, files, "", checked)


def check_remote(
    url: str, wanted: Sequence[Wanted], *, storages: Storages, read: bool = False, root: str = ""
) -> tuple[Finding, ...]:
    """Check that objects are whole on a remote.

    Args:
        url: A folder (a path or a ``file:`` URI) or an S3 location. It comes from the caller or from the committed
            configuration (:func:`~sealflow.lineage.config.remote_url`).
        wanted: The objects. Each is looked at once, however many paths name it.
        storages: Brings the S3 client; nothing else of the repository's configuration is used to reach a store.
        read: Whether objects in S3 are read where the store's own words do not prove them.
        root: Folder of the repository when ``url`` comes from its configuration: a relative path is then relative to
            ``<root>/.dvc``, as DVC takes it.

    Returns:
        Findings: ``refusal`` for what is missing or wrong, ``unverifiable`` for what cannot be told. None when every
        object is whole.

    Raises:
        UsageError: A digest is none of DVC's, or S3 cannot be used in this process.
    """
    if not wanted:
        return ()
    for item in wanted:
        if _DIGEST.fullmatch(item.digest) is None:
            raise UsageError(f"{printable(item.digest, 60)!r} is no digest of DVC.")
    try:
        remote = _remote(url, storages, root, read, sha256=any(map(_knows_sha256, wanted)))
    except UnavailableError as error:
        return (Finding(error.code, "unverifiable", _shown(url), error.message, next_step=error.next_step),)
    with remote:
        return _check(remote, wanted)


@dataclass
class _Object:
    """One object on the remote, and everything known about it.

    Attributes:
        key: Where it lies, relative to the remote.
        digest: Its MD5, with ``.dir``.
        owner: The output that it belongs to, first of all.
        subject: The path that it is reported under.
        sizes: Recorded sizes.
        most: Bytes that it cannot exceed, ``None`` when nobody knows.
        sha256: Known SHA-256 digests.
    """

    key: str
    digest: str
    legacy: bool
    owner: str
    subject: str
    sizes: set[int] = field(default_factory=set)
    most: int | None = None
    sha256: set[str] = field(default_factory=set)

    def corrupt(self, message: str, expected: str = "", found: str = "") -> Finding:
        return Finding("REMOTE_CORRUPT", "refusal", self.subject, message, expected or self.digest, found)

    def missing(self) -> Finding:
        return Finding("REMOTE_MISSING", "refusal", self.subject, "The remote does not hold the object.", self.digest)

    def misfit(self, size: int | None) -> Finding | None:
        """Return the finding for an object of this size, before anybody reads it."""
        if size is None or self.legacy:
            # DVC 2 took files with other line ends, and so of other sizes, for the same.
            return None
        for recorded in self.sizes:
            if size != recorded:
                return self.corrupt("The object has another size.", f"{recorded} bytes", str(size))
        if self.most is not None and size > self.most:
            return self.corrupt("The object is larger than its whole folder.", f"{self.most} bytes at most", str(size))
        return None

    def compare(self, md5: str, sha256: str) -> Finding | None:
        """Return the finding for an object with these digests, either of which may be empty when it is not known."""
        if md5 and md5 != self.digest:
            return self.corrupt("The bytes on the remote are not the recorded ones.", self.digest, md5)
        if sha256 and self.sha256 and self.sha256 != {sha256}:
            known = f"sha256:{min(self.sha256)}"
            return self.corrupt("The bytes on the remote have the MD5, but are others.", known, f"sha256:{sha256}")
        return None


class _Remote(Protocol):
    """A place that holds objects."""

    def __enter__(self) -> _Remote: ...

    def __exit__(self, *_: object) -> None: ...

    def get(self, item: _Object) -> bytes | None:
        """Return a whole ``.dir`` object, ``None`` where there is none.

        Raises:
            ArtifactError, EvidenceError: What lies there cannot be taken.
            UnavailableError: Nobody can say.
        """

    def look(self, items: Sequence[_Object]) -> Iterator[Finding | None]:
        """Yield a finding for each object, ``None`` for a whole one."""

    def workers(self, items: Sequence[_Object]) -> int:
        """Return how many objects may usefully be looked at at once."""


def _remote(url: str, storages: Storages, root: str, read: bool, *, sha256: bool) -> _Remote:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    try:
        if scheme in S3_SCHEMES:
            storage = storages.for_uri(url)
            assert isinstance(storage, S3Storage)  # noqa: S101 - Storages says so
            if re.search(r"[?#]|//|(?:^|/)\.{1,2}(?:/|$)", url.partition("://")[2].rstrip("/")):
                raise UsageError("A query, a fragment or dots mean one place to DVC and another to S3.")
            return _Bucket(storage, storage.canonical(url).rstrip("/"), read)
        if scheme not in ("", "file"):
            raise UsageError(
                f"What lies at {printable(scheme, 20)}:// cannot be checked; it is neither a folder nor S3."
            )
        if root and not scheme and url.startswith("~"):
            raise UsageError("A path from somebody's home folder means another place to everybody.")
        if scheme and (not url.startswith("file://") or (root and (url[7:8] != "/" or "%" in url))):
            # DVC takes what follows file:// as it stands.
            raise UsageError("A file URI with a host or escapes means one place to DVC and another elsewhere.")
        path = to_path(os.path.join(root, ".dvc", url) if root and not scheme else url)
    except UsageError as error:
        raise UnavailableError(
            f"{error.message} Nothing on the remote was looked at.",
            code="REMOTE_UNSUPPORTED",
            next_step=error.next_step,
        ) from None
    if not os.path.isdir(path):
        raise UnavailableError(
            "There is no such folder here; nothing on the remote was looked at.",
            next_step="Mount the remote, or name the place where it is.",
        )
    return _Folder(path, sha256)


def _shown(url: str) -> str:
    # Who writes a password into a location should not find it in a verdict.
    scheme, separator, rest = url.partition("://")
    plain = scheme.lower() in (*S3_SCHEMES, "file") and not set(rest) & set("@?#")
    return url if plain or not separator else f"{scheme}://…"


def _check(remote: _Remote, wanted: Sequence[Wanted]) -> tuple[Finding, ...]:
    found = _Report()
    folders: dict[str, _Object] = {}
    spoken: dict[str, list[Wanted]] = {}
    objects: dict[str, _Object] = {}
    for item in wanted:
        if item.digest.endswith(".dir"):
            folder = _add(folders, item.path, item.path, item.digest, item.legacy)
            spoken.setdefault(folder.key, []).append(item)
        else:
            known = _add(objects, item.path, item.path, item.digest, item.legacy)
            known.sha256 |= {item.sha256} - {""}
            if item.size is not None:
                known.sizes.add(item.size)
    listed = _each(lambda item: _directory(remote, item), list(folders.values()), remote.workers(()))
    for folder, (files, problem) in zip(folders.values(), listed, strict=True):
        found.add(folder, problem)
        for item in spoken[folder.key]:
            if files is not None and (name := _differing(files, item)) is not None:
                found.add(folder, folder.corrupt("The .dir object lists other files than were checked.", found=name))
            for name, digest in (files if files is not None else item.files or {}).items():
                known = _add(objects, item.path, f"{item.path}/{name}", digest, item.legacy)
                if item.size is not None:
                    known.most = min(item.size, known.most) if known.most is not None else item.size
                if item.checked is not None and name in item.checked:
                    size, sha256 = item.checked[name]
                    known.sizes.add(size)
                    known.sha256 |= {sha256} - {""}
    asked = []
    for known in objects.values():
        if len(known.sha256) > 1 or (len(known.sizes) > 1 and not known.legacy):
            found.add(known, known.corrupt("Different files of the repository have this MD5; a remote keeps only one."))
        else:
            asked.append(known)
    for known, finding in zip(asked, remote.look(asked), strict=True):
        found.add(known, finding)
    return found.findings()


def _knows_sha256(item: Wanted) -> bool:
    return bool(item.sha256) or any(sha256 for _, sha256 in (item.checked or {}).values())


def _differing(files: Mapping[str, str], item: Wanted) -> str | None:
    """Return a file that a ``.dir`` object lists and nobody checked, or the other way round."""
    if item.files is not None and files != dict(item.files):
        return min(name for name, _ in files.items() ^ dict(item.files).items())
    if item.checked is not None and files.keys() != item.checked.keys():
        return min(files.keys() ^ item.checked.keys())
    return None


def _add(objects: dict[str, _Object], owner: str, subject: str, digest: str, legacy: bool) -> _Object:
    key = f"{'' if legacy else 'files/md5/'}{digest[:2]}/{digest[2:]}"
    if key not in objects:
        objects[key] = _Object(key, digest, legacy, owner, subject)
    return objects[key]


def _directory(remote: _Remote, item: _Object) -> tuple[dict[str, str] | None, Finding | None]:
    try:
        data = remote.get(item)
        if data is None:
            return None, item.missing()
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest() + ".dir"
        if digest != item.digest:
            return None, item.corrupt("The .dir object is not what its name says.", item.digest, digest)
        return parse_directory(data, "The .dir object on the remote"), None
    except UnavailableError as error:
        return None, _unavailable(item, error)
    except (ArtifactError, EvidenceError) as error:
        return None, _refused(item, error)


def _refused(item: _Object, error: ArtifactError | EvidenceError) -> Finding:
    if error.code in ("ARTIFACT_CHANGED", "DIR_MANIFEST_ESCAPE"):
        return Finding(error.code, "refusal", item.subject, error.message, item.digest)
    return item.corrupt(f"The object cannot be taken: {error.message}")


def _unavailable(item: _Object, error: UnavailableError) -> Finding:
    return Finding(error.code, "unverifiable", item.subject, error.message, item.digest, next_step=error.next_step)


def _each(work: Callable[[_Object], Any], items: Sequence[_Object], workers: int) -> Iterator[Any]:
    if workers < 2 or len(items) < 2:
        yield from map(work, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix="sealflow-remote") as pool:
        yield from pool.map(work, items)


class _Report:
    """Findings in order; of many alike some are named and the rest is counted."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], Finding] = {}

    def add(self, item: _Object, finding: Finding | None) -> None:
        if finding is None:
            return
        # A store out of reach is one observation, whatever was asked of it.
        owner = item.owner if finding.severity == "refusal" or finding.code == "REMOTE_UNPROVED" else ""
        kind = (owner, finding.code)
        self._counts[kind] += 1
        self._first.setdefault(kind, finding)
        if self._counts[kind] <= (_NAMED if owner else 1):
            self._findings.append(finding)

    def findings(self) -> tuple[Finding, ...]:
        for (owner, code), count in self._counts.items():
            more = count - (_NAMED if owner else 1)
            if more > 0:
                first = self._first[owner, code]
                text = f"The same goes for {more} more object{'s' if more > 1 else ''}."
                self._findings.append(
                    Finding(code, first.severity, owner or first.subject, text, next_step=first.next_step)
                )
        return tuple(self._findings)


class _Folder:
    """A remote in a folder: every object is read and hashed, through no link.

    Args:
        path: The folder.
        sha256: Whether SHA-256 digests are known that could be compared.
    """

    def __init__(self, path: str, sha256: bool) -> None:
        self._root = os.path.realpath(path)
        self._stack = ExitStack()
        self._tree = self._stack.enter_context(WorkTree(self._root, sha256=sha256))

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def workers(self, items: Sequence[_Object]) -> int:
        return LocalStorage.parallel if any(max(item.sizes, default=0) >= _LARGE for item in items) else 1

    def get(self, item: _Object) -> bytes | None:
        return self._tree.get(item.key, MAX_DIRECTORY)

    def look(self, items: Sequence[_Object]) -> Iterator[Finding | None]:
        return _each(self._look, items, self.workers(items))

    def _look(self, item: _Object) -> Finding | None:
        try:
            # A glance, which spares reading what cannot be it; what it may be is opened with care.
            info = os.lstat(os.path.join(self._root, item.key))
            if stat.S_ISDIR(info.st_mode):
                return item.corrupt("A folder lies in the place of the object.")
            if stat.S_ISREG(info.st_mode) and (misfit := item.misfit(info.st_size)):
                return misfit
        except OSError:
            pass  # reading finds the words for it
        try:
            content = self._tree.look(item.key, legacy=item.legacy)
        except UnavailableError as error:
            return _unavailable(item, error)
        except ArtifactError as error:
            return _refused(item, error)
        if content is None:
            return item.missing()
        return item.misfit(content.size) or item.compare(content.digest, content.sha256)


class _Bucket:
    """A remote in S3, asked for sizes, ETags and checksums first.

    Args:
        storage: S3.
        uri: The remote, without a final slash.
        read: Whether objects that these do not prove are read.
    """

    def __init__(self, storage: S3Storage, uri: str, read: bool) -> None:
        self._storage = storage
        self._uri = uri
        self._read = read
        # Directory buckets (S3 Express One Zone) have ETags that are no MD5.
        self._etag_is_md5 = not uri.partition("://")[2].partition("/")[0].endswith("--x-s3")
        self._failures: list[str] = []
        self._confirmed = False

    def __enter__(self) -> _Bucket:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def workers(self, items: Sequence[_Object]) -> int:
        return self._storage.parallel

    def get(self, item: _Object) -> bytes | None:
        return self._ask(lambda: self._storage.get(f"{self._uri}/{item.key}", MAX_DIRECTORY))

    def _ask(self, question: Callable[[], _T]) -> _T:
        if len(self._failures) >= _ENOUGH:
            code = self._failures[-1]
            raise UnavailableError("S3 failed too often; the object was not asked for.", code=code, next_step=_WHOSE)
        try:
            return question()
        except UnavailableError as error:
            self._failures.append(error.code)
            step = f"{error.next_step} {_WHOSE}".strip()
            raise UnavailableError(error.message, code=error.code, next_step=step) from None

    def look(self, items: Sequence[_Object]) -> Iterator[Finding | None]:
        try:
            listed, absent = self._ask(lambda: self._list(items))
        except UnavailableError as error:
            for item in items:
                yield _unavailable(item, error)
            return
        told: dict[str, Finding | None] = {}
        for item in items:
            entry = listed.get(item.key)
            if item.key in absent:
                told[item.key] = item.missing()
            elif entry is not None and entry.size is not None:
                finding = item.misfit(entry.size)
                if finding is not None or _is_md5(entry.pin, item.digest):
                    told[item.key] = finding
        asked = [item for item in items if item.key not in told]
        for item, finding in zip(asked, _each(self._look, asked, self._storage.parallel), strict=True):
            told[item.key] = finding
        yield from (told[item.key] for item in items)

    def _list(self, items: Sequence[_Object]) -> tuple[dict[str, Entry], set[str]]:
        """Return what listings say of objects, and the keys that a complete listing does not hold."""
        listed: dict[str, Entry] = {}
        absent: set[str] = set()
        for prefix in ("files/md5/", ""):
            keys = {item.key for item in items if item.legacy is not bool(prefix)}
            if len(keys) <= _FEW:
                continue
            budget = _PAGES + len(keys) // _OBJECTS_A_PAGE
            try:
                for number, page in enumerate(self._storage.pages(f"{self._uri}/{prefix}"), 1):
                    listed.update((prefix + entry.name, entry) for entry in page if prefix + entry.name in keys)
                    if number == budget:
                        break
                else:
                    absent |= keys - listed.keys()
            except UnavailableError as error:
                if error.code != "PERMISSION_DENIED":
                    raise
                # Who may not list may still read.
        return listed, absent

    def _look(self, item: _Object) -> Finding | None:
        try:
            return self._ask(lambda: self._look_closely(item))
        except UnavailableError as error:
            return _unavailable(item, error)
        except ArtifactError as error:
            return _refused(item, error)

    def _look_closely(self, item: _Object) -> Finding | None:
        facts = self._storage.facts(f"{self._uri}/{item.key}")
        if facts is None:
            self._confirm()
            return item.missing()
        if misfit := item.misfit(facts.size):
            return misfit
        sha256, md5 = facts.checksums.get("sha256", ""), facts.checksums.get("md5", "")
        if sha256 and item.sha256:
            return item.compare("", sha256)
        if item.legacy:
            if _is_md5(facts.pin, item.digest) or md5 == item.digest:
                return None
            return self._unproved(item, "The digest is one of DVC 2, made over text with other line ends")
        if md5:
            return item.compare(md5, "")
        if _is_md5(facts.pin, item.digest):
            return None
        if self._read:
            return self._compare_bytes(item, facts)
        etag = _PLAIN_ETAG.fullmatch(facts.pin)
        if etag is None:
            return self._unproved(item, "The object was uploaded in parts, or for another reason its ETag is no MD5")
        if facts.encryption not in ("", "AES256"):
            return self._unproved(item, f"The object is encrypted ({facts.encryption}), so its ETag is no MD5")
        if not self._etag_is_md5:
            return self._unproved(item, "ETags of a directory bucket are no MD5")
        return item.compare(etag[1].lower(), "")

    def _confirm(self) -> None:
        """Make sure that there is a bucket: an answer to HEAD does not tell a missing object from a missing bucket.

        Raises:
            UnavailableError: There is none, or nobody can say.
        """
        if not self._confirmed:
            next(self._storage.pages(self._uri), None)
            self._confirmed = True

    def _unproved(self, item: _Object, why: str) -> Finding:
        message = f"{why}, and the store has no checksum of it that could be compared."
        return Finding("REMOTE_UNPROVED", "unverifiable", item.subject, message, item.digest)

    def _compare_bytes(self, item: _Object, facts: ObjectFacts) -> Finding | None:
        if not facts.pin:
            # Without a version what is read need not be what was asked about.
            return self._unproved(item, "The store names no version (ETag) of the object")
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        left = facts.size

        def consume(piece: Any) -> None:
            nonlocal left
            left -= len(piece)
            if left < 0:
                raise ArtifactError(f"S3 sends more than the {facts.size} bytes it speaks of.", code="ARTIFACT_CHANGED")
            md5.update(piece)
            if item.sha256:
                sha256.update(piece)

        uri = f"{self._uri}/{item.key}"
        name = item.key.rpartition("/")[2]
        with self._storage.open(Location(uri, "file", name)) as reader:
            reader.read(Entry(name, facts.size, facts.pin), consume)
        return item.compare(md5.hexdigest(), sha256.hexdigest() if item.sha256 else "")


def _is_md5(pin: str | None, digest: str) -> bool:
    # No other bytes get an ETag that is this MD5, in whatever case and quotes the store writes it.
    match = _PLAIN_ETAG.fullmatch(pin or "")
    return match is not None and match[1].lower() == digest
