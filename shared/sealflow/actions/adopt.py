"""Adopt: sign in bulk what existed before anything was signed.

Such provenance names no maker (builder id :data:`~sealflow.run_identity.ADOPTED_BUILDER`), only who took the artifact
over, when and why, so it never satisfies a rule that asks for provenance.

A journal says what is done. It is no evidence and nobody's word is taken from it: whoever writes to it can only make
this command leave an artifact unsigned.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sealflow import errors, strictjson
from sealflow.actions import context
from sealflow.actions.sign import chosen_signer, open_signer, sign_artifact
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.audit.spool import default_spool
from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.evidence import EvidenceStore, default_store
from sealflow.evidence.provenance import check_reason
from sealflow.findings import printable
from sealflow.hashing import sha256_hex
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.names import MAX_LEVELS, check_name
from sealflow.storage import Location, Storage, Storages
from sealflow.storage.local import sync_folder, to_path, to_uri

#: Most artifacts directly in one folder.
MAX_ARTIFACTS: Final = 1_000_000

_EVIDENCE: Final = ".evidence"
_MAX_LINE: Final = 64 << 10
_MAX_STORED: Final = 64
#: How every line of a journal begins.
_BEGINNING: Final = b'{"digest":"'

Status = Literal["signed", "to sign", "done before", "has evidence", "changed", "refused", "unavailable"]

#: Statuses that leave something undone.
UNDONE: Final = ("changed", "refused", "unavailable")


@dataclass(frozen=True)
class Adopted:
    """What became of one artifact.

    Attributes:
        location: Where it lies.
        status: ``signed`` now; ``to sign`` in a dry run; ``done before`` by an earlier run of this journal; ``has
            evidence`` already, which is left alone; ``changed`` since an earlier run signed it; ``refused`` as it
            lies there; ``unavailable``, so that nobody can say.
        files: Number of its files.
        size: Bytes in all, ``None`` where the listing does not say.
        digest: Artifact digest where it is known.
        evidence: Location of the evidence store where it was signed.
        code: Code of what is wrong.
        message: What is wrong, one sentence.
    """

    location: str
    status: Status
    files: int = 0
    size: int | None = None
    digest: str = ""
    evidence: str = ""
    code: str = ""
    message: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; empty members are left out."""
        return {name: value for name, value in vars(self).items() if value not in ("", None)}


@dataclass(frozen=True)
class Adoption:
    """What one run did.

    Attributes:
        prefix: The folder.
        journal: Path of the journal.
        artifacts: What became of each artifact, in the order of their locations.
        dry_run: Whether nothing was written.
    """

    prefix: str
    journal: str
    artifacts: tuple[Adopted, ...]
    dry_run: bool = False

    def count(self, *statuses: str) -> int:
        """Return how many artifacts have one of these statuses."""
        return sum(item.status in statuses for item in self.artifacts)

    @property
    def size(self) -> int:
        """Bytes that were signed, or would be."""
        return sum(item.size or 0 for item in self.artifacts if item.status in ("signed", "to sign"))

    @property
    def exit_status(self) -> int:
        """Exit status of the command: that all is signed, or what kept some from it."""
        if self.count("changed", "refused"):
            return errors.EXIT_REFUSED_EVIDENCE
        return errors.EXIT_UNVERIFIABLE if self.count("unavailable") else errors.EXIT_OK

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        counts = {status: self.count(status) for status in sorted({item.status for item in self.artifacts})}
        return {
            "sealflow_adoption": 1,
            "prefix": self.prefix,
            "journal": self.journal,
            "dry_run": self.dry_run,
            "counts": counts,
            "size": self.size,
            "artifacts": [item.as_dict() for item in self.artifacts],
        }


def adopt(
    prefix: str | os.PathLike[str],
    *,
    reason: str,
    signer: str | KeySigner | None = None,
    evidence_store: str | None = None,
    files: bool = False,
    dry_run: bool = False,
    journal: str | os.PathLike[str] | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    on_artifact: Callable[[Adopted], None] | None = None,
) -> Adoption:
    """Sign each artifact in a folder.

    An artifact that cannot be taken is told and the others are signed. A run that was stopped goes on where it stopped
    when it is started again: what its journal names and the listing still shows unchanged is not read again.

    Args:
        prefix: The folder: path or location.
        reason: Why they are taken over; it stands in the provenance.
        signer: Signer URI, by default the one that the policy chooses, then the one that the surroundings set.
        evidence_store: Where the evidence goes, by default what the surroundings set, else ``<artifact>.evidence``.
        files: Take every file below the folder as an artifact, instead of each file and folder directly in it.
        dry_run: Say what would be signed, and write nothing.
        journal: Path of the journal, by default one of these arguments' own below ``$XDG_STATE_HOME/sealflow/adopt``.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        audit: Takes audit events.
        on_artifact: Called with what became of each artifact as soon as it is known.

    Raises:
        UsageError: No folder, no reason, no signer, or a journal that is another run's.
        UnavailableError: The folder, the journal or the audit log is out of reach.
    """
    if not check_reason(reason):
        raise UsageError("Adopting needs a reason: one line of text, which everybody can read in the provenance.")
    surroundings = context.current()
    storages = storages or Storages()
    uri = os.fspath(prefix)
    storage = storages.for_uri(uri)
    root = storage.locate(uri)
    if root is None or root.kind != "tree":
        raise UsageError(
            f"{printable(storage.canonical(uri))} is no folder.",
            next_step="Name the folder that holds the artifacts; sign a single one with `sealflow sign`.",
        )
    store = evidence_store or surroundings.settings.evidence_store
    task = _Task(storages, storage, surroundings, reason, signer, passphrase, audit, store)
    if not dry_run and (signer or surroundings.admin is None):
        # A wrong key should be known before the first of many artifacts. A policy may choose one for each.
        task.key_for(root.uri)
    mark = strictjson.dumps([root.uri, files, store, signer if isinstance(signer, str) else None])
    path = os.path.abspath(journal or os.path.join(_state_folder(), f"{sha256_hex(mark)[:32]}.jsonl"))
    done = []
    with _Journal(path, write=not dry_run) as entries:
        for location, problem in sorted(_artifacts(task, root, path, deep=files)):
            if problem:
                item = Adopted(location, "refused", code="ARTIFACT_REFUSED", message=problem)
            else:
                item = task.adopt(location, entries, dry_run=dry_run)
            done.append(item)
            if on_artifact is not None:
                on_artifact(item)
    return Adoption(root.uri, path, tuple(done), dry_run)


def _state_folder() -> str:
    return os.path.join(os.path.dirname(os.path.dirname(default_spool())), "adopt")


@dataclass
class _Task:
    storages: Storages
    storage: Storage
    surroundings: context.Surroundings
    reason: str
    signer: str | KeySigner | None
    passphrase: PassphraseCallback | None
    audit: AuditSink | None
    store: str | None
    #: Folders of evidence that lie beside artifacts.
    beside: set[str] = field(default_factory=set)
    keys: dict[str, KeySigner] = field(default_factory=dict)

    def key_for(self, location: str) -> KeySigner:
        """Return the signer of an artifact, each opened once: it may ask for a passphrase."""
        chosen = chosen_signer(location, self.surroundings, self.signer)
        if chosen is not None and not isinstance(chosen, str):
            return chosen
        if (chosen or "") not in self.keys:
            self.keys[chosen or ""] = open_signer(chosen, self.passphrase)
        return self.keys[chosen or ""]

    def adopt(self, location: str, entries: _Journal, *, dry_run: bool) -> Adopted:
        """Sign one artifact, unless something speaks against it."""
        found = Adopted(location, "refused")
        try:
            place = self.storage.locate(location)
            if place is None:
                raise ArtifactError("Nothing lies there.", code="ARTIFACT_MISSING")
            state, found = _look(self.storage, place)
            known = entries.known.get(location)
            gone = known is not None and known.evidence == location + _EVIDENCE and known.evidence not in self.beside
            if known is not None and known.state == state and not gone:
                return _as(found, "done before", digest=known.digest, evidence=known.evidence)
            if known is not None and known.state != state:
                message = "It is not what an earlier run signed; whoever changed it should say so."
                return _as(found, "changed", code="ARTIFACT_CHANGED", message=message)
            if location + _EVIDENCE in self.beside and self._is_signed(location + _EVIDENCE):
                return _as(found, "has evidence", evidence=location + _EVIDENCE)
            store = self.store or default_store(location, self.storages)
            if dry_run:
                return _as(found, "to sign", evidence=store)
            made = sign_artifact(
                location,
                signer=self.key_for(location),
                evidence_store=store,
                adoption=self.reason,
                storages=self.storages,
                audit=self.audit,
            )
        except SealflowError as error:
            if error.code == "AUDIT_UNAVAILABLE":
                raise
            status: Status = "unavailable" if isinstance(error, UnavailableError) else "refused"
            return _as(found, status, code=error.code, message=error.message)
        entries.add(location, _Entry(state, str(made.ref.digest), made.ref.evidence), made.key)
        return _as(found, "signed", digest=str(made.ref.digest), evidence=made.ref.evidence)

    def _is_signed(self, store: str) -> bool:
        """Tell whether anybody signed what lies beside. The signature comes last, so without one nothing is signed."""
        storage = self.storages.for_uri(store)
        for folder in storage.list_folders(store, _MAX_STORED):
            names = storage.list_objects(f"{store}/{folder}", MAX_ARTIFACTS)
            if any(name.startswith("signature-") for name in names):
                return True
        return False


def _as(item: Adopted, status: Status, **members: Any) -> Adopted:
    return Adopted(**{**vars(item), "status": status, **members})


def _artifacts(task: _Task, root: Location, journal: str, *, deep: bool) -> Iterator[tuple[str, str]]:
    """Yield the locations of the artifacts, without evidence and this run's own files, and why one is none."""
    base = root.uri.rstrip("/")
    skipped = {task.storage.canonical(journal)} if base.startswith("file:") else set()
    if task.store is not None:
        skipped.add(EvidenceStore(task.store, task.storages).uri)
    folders = [(base, 0)]
    while folders:
        folder, level = folders.pop()
        names = frozenset(task.storage.list_objects(folder, MAX_ARTIFACTS))
        inner = task.storage.list_folders(folder, MAX_ARTIFACTS)
        if len(names) > MAX_ARTIFACTS or len(inner) > MAX_ARTIFACTS:
            raise UsageError(f"{printable(folder)} holds more than {MAX_ARTIFACTS} artifacts; adopt its folders.")
        # One that is an object and a folder at the same time is one artifact, and refused.
        for name in sorted({*names, *inner}):
            place = _below(folder, name)
            if place in skipped:
                continue
            if name not in names and name.endswith(_EVIDENCE):
                task.beside.add(place)
                continue
            problem = _problem(name)
            if problem or name in names or not deep:
                yield place, problem
            elif level >= MAX_LEVELS or not _stays(place, base):
                yield place, "It lies too deep, or behind a link."
            else:
                folders.append((place, level + 1))


def _problem(name: str) -> str:
    try:
        check_name(name)
    except ArtifactError as error:
        return error.message
    return ""


def _below(folder: str, name: str) -> str:
    return to_uri(os.path.join(to_path(folder), name)) if folder.startswith("file:") else f"{folder}/{name}"


def _stays(folder: str, base: str) -> bool:
    """Tell whether a folder still lies in the tree: somebody may have put a link there since the listing."""
    if not folder.startswith("file:"):
        return True
    top, path = to_path(base), to_path(folder)
    return os.path.realpath(path) == os.path.join(os.path.realpath(top), os.path.relpath(path, top))


def _look(storage: Storage, place: Location) -> tuple[str, Adopted]:
    """Return a digest of what the listing says of an artifact, and its size: no byte of it is read."""
    if place.uri.startswith("file:"):
        lines = sorted(_stats(to_path(place.uri)))
        sizes: list[int | None] = [line[1] for line in lines]
        state = strictjson.dumps([[os.fsencode(line[0]).hex(), *line[1:]] for line in lines])
    else:
        listed = storage.entries(place)
        sizes = [entry.size for entry in listed]
        state = strictjson.dumps([place.version_id, [list(entry) for entry in listed]])
    size = None if None in sizes else sum(item or 0 for item in sizes)
    return sha256_hex(state), Adopted(place.uri, "to sign", len(sizes), size)


def _stats(path: str) -> Iterator[tuple[str, int, int, int]]:
    """Yield name, size, time and inode of each file; links are not followed."""
    try:
        if not os.path.isdir(path) or os.path.islink(path):
            info = os.lstat(path)
            yield "", info.st_size, info.st_mtime_ns, info.st_ino
            return
        for folder, folders, names in os.walk(path, onerror=_raise):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in (*names, *links):
                full = os.path.join(folder, name)
                info = os.lstat(full)
                yield os.path.relpath(full, path), info.st_size, info.st_mtime_ns, info.st_ino
    except OSError as error:
        code = "PERMISSION_DENIED" if isinstance(error, PermissionError) else None
        raise UnavailableError(f"{printable(path)}: {error.strerror}.", code=code) from None


def _raise(error: OSError) -> None:
    raise error


@dataclass(frozen=True)
class _Entry:
    state: str
    digest: str
    evidence: str


class _Journal:
    """What earlier runs have signed: JSON lines, each durable before the next artifact is looked at.

    Args:
        path: The file; its folder is made when missing.
        write: Whether this run adds to it.

    Raises:
        UsageError: Another run holds it, or it is no journal.
        UnavailableError: It cannot be read or written.
    """

    def __init__(self, path: str, *, write: bool) -> None:
        self._path = path
        self._write = write
        self._fd = -1
        self.known: dict[str, _Entry] = {}

    def __enter__(self) -> _Journal:
        try:
            if self._write:
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                self._fd = os.open(self._path, flags, 0o600)
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sync_folder(os.path.dirname(self._path))
            else:
                with contextlib.suppress(FileNotFoundError):
                    self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            if self._fd >= 0:
                self._read()
        except BlockingIOError:
            self._close()
            raise UsageError(
                f"Another run is writing to the journal {printable(self._path)}.",
                next_step="Wait until it ends, or give this run a journal of its own.",
            ) from None
        except OSError as error:
            self._close()
            raise self._unavailable(error) from None
        except SealflowError:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _unavailable(self, error: OSError) -> UnavailableError:
        return UnavailableError(
            f"The journal {printable(self._path)} cannot be used: {error.strerror or error}.",
            next_step="Give this run a writable journal with --journal.",
        )

    def _read(self) -> None:
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            raise UsageError(f"{printable(self._path)} is not a file.")
        lines, first = 0, b""
        with open(self._fd, "rb", closefd=False) as file:
            while line := file.readline(_MAX_LINE + 1):
                lines, first = lines + 1, first or line
                # A run that was stopped can leave half a line; what it was about is looked at again.
                with contextlib.suppress(EvidenceError):
                    body = strictjson.loads(line, limit=_MAX_LINE, what="A line")
                    texts = [strictjson.member(body, name, str, "A line") for name in _Entry.__annotations__]
                    self.known[strictjson.member(body, "location", str, "A line")] = _Entry(*texts)
        begun = first.startswith(_BEGINNING) or _BEGINNING.startswith(first)
        if lines and not self.known and not (lines == 1 and begun and not first.endswith(b"\n")):
            # Somebody else's file, given by mistake; nothing is written to it.
            raise UsageError(f"{printable(self._path)} is no journal of an adoption.")

    def add(self, location: str, entry: _Entry, key: str) -> None:
        """Note that an artifact is signed, durably.

        Raises:
            UnavailableError: It could not be written.
        """
        when = utc_now().isoformat(timespec="seconds")
        line = strictjson.dumps({"location": location, **vars(entry), "key": key, "time": when}) + b"\n"
        try:
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(self._fd, line) != len(line):
                os.ftruncate(self._fd, size)
                raise OSError("the disk is full")
            os.fsync(self._fd)
        except OSError as error:
            raise self._unavailable(error) from None
        self.known[location] = entry
