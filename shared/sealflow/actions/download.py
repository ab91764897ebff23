"""Download: a verified copy of an artifact at a path of this machine, there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions.verify import check_into, settle, verify
from sealflow.audit import AuditSink
from sealflow.errors import ArtifactError, SealflowError, UnavailableError, UsageError
from sealflow.evidence import ArtifactRef, EvidenceStore, StoredEvidence, default_store
from sealflow.evidence.store import SUMMARY, EvidenceId
from sealflow.findings import Verdict, printable
from sealflow.hashing import Digest
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.manifest import build_manifest
from sealflow.manifest.build import Progress
from sealflow.storage import Storages
from sealflow.storage.files import exists, short, translate
from sealflow.storage.local import to_path, to_uri

if TYPE_CHECKING:
    from sealflow.actions.checking import Check
    from sealflow.policy.compose import CompiledPolicy

#: Kinds of evidence that go along with a copy.
CARRIED: Final = frozenset({"signature", "provenance", "lineage"})

#: Where what is replaced waits in a private folder until the new one has its place.
_ASIDE: Final = "replaced"


@dataclass(frozen=True)
class Downloaded:
    """What a download made.

    Attributes:
        verdict: The verdict about the copied bytes.
        ref: The reference to the copy.
    """

    verdict: Verdict
    ref: ArtifactRef


def download(artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any], destination: str, **options: Any) -> str:
    """Copy an artifact to a path of this machine, verified, and decrypted where it is encrypted; return the path.

    :func:`download_artifact` takes the options and returns more.
    """
    return to_path(download_artifact(artifact, destination, **options).ref.uri)


def download_artifact(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    destination: str | os.PathLike[str],
    *,
    recipients: Any = None,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    evidence_store: str | None = None,
    destination_store: str | None = None,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    overwrite: bool = False,
    verifier: str | KeySigner | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Downloaded:
    """Copy an artifact to a path of this machine, verified, and decrypted where it is encrypted.

    Nothing is there before the verdict is ``passed``, and then everything at once. A download of an encrypted artifact
    that was interrupted goes on: what it left is checked frame by frame against the signed digests. The same artifact
    at the destination is a success. Its evidence comes along.

    Args:
        artifact: Location or reference.
        destination: Path of the file or folder to make.
        recipients: URIs of the keys that open an encrypted artifact, by default what the surroundings set.
        identities: Who may sign, as in :func:`sealflow.actions.verify.verify`.
        name: Expected logical name.
        producer: Expected producer.
        evidence_store: Where the artifact's evidence lies.
        require: Kinds of evidence that must be there.
        policy: One more policy; it can only tighten.
        verifier: Signer of verification summaries.
        destination_store: Where the copy's evidence goes, by default what the surroundings set for clear artifacts,
            else ``<destination>.evidence``.
        overwrite: Replace what lies there.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        audit: Takes audit events.
        progress: Called with bytes read and, when known, bytes in all.

    Raises:
        VerificationError: The verdict is not ``passed``; nothing was written to the destination.
        ArtifactError: ``ARTIFACT_EXISTS``: something else lies at the destination.
        UsageError: A parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach, there is no room, or another process downloads to this place.
    """
    storages = storages or Storages()
    path = _path(destination)
    check = settle(
        artifact,
        identities=identities,
        name=name,
        producer=producer,
        evidence_store=evidence_store,
        require=require,
        policy=policy,
        recipients=recipients,
        verifier=verifier,
        passphrase=passphrase,
        storages=storages,
    )
    target = to_uri(path)
    # The signature lists the files. What was encrypted keeps them from those who can read a common store.
    common = None if check.surely_encrypted() else check.surroundings.settings.evidence_store
    store = EvidenceStore(destination_store or common or default_store(target, storages), storages)
    refuse_overlap(check, target, store)
    if check.ref is not None and not overwrite and os.path.lexists(path):
        verdict = _already(check.ref, path, store, identities, name, producer, require, policy, storages, audit)
        if verdict.passed:
            return Downloaded(verdict, ArtifactRef(target, check.ref.digest, store.uri))
    with _partial(path, check.canonical) as folder:
        check.salvage = _earlier(folder)
        content, verdict = check_into(check, os.path.join(folder, "artifact"), "download", audit, progress)
        digest = Digest.parse(verdict.digest)
        if not overwrite and os.path.lexists(path):
            if _digest(path, storages) != digest:
                raise exists(path)
        else:
            # The evidence first: a copy that nobody can check is of no use.
            carry_evidence(_evidence(check, digest), store, digest)
            _open_up(content)
            _move(content, path, folder, overwrite=overwrite)
    return Downloaded(verdict, ArtifactRef(target, digest, store.uri))


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
            _open_up(content)
        except OSError as error:
            raise UnavailableError(f"{printable(parent)} cannot be written: {error.strerror or error}.") from None
        _move(content, path, beside, overwrite=overwrite)
    finally:
        _discard(beside)


def refuse_overlap(check: Check, destination: str, store: EvidenceStore) -> None:
    """Refuse a destination that is the artifact or its evidence, or holds them, and evidence within an artifact.

    Args:
        check: About the artifact.
        destination: Where the copy is to lie.
        store: Where its evidence goes.

    Raises:
        UsageError: To replace such a place, or to write there, would destroy what is to be copied.
    """
    source, target, evidence = _real(check.canonical), _real(destination), _real(store.uri)
    if _within(target, source):
        raise UsageError("An artifact cannot be copied into itself.")
    if _within(source, target) or (check.store is not None and _within(_real(check.store.uri), target)):
        raise UsageError(
            f"{printable(destination)} holds the artifact that is to be copied, or its evidence.",
            next_step="Choose another destination.",
        )
    if _within(evidence, target) or _within(evidence, source):
        raise UsageError(
            f"The evidence store {printable(store.uri)} would lie inside the artifact.",
            next_step="Name another place with `destination_store`.",
        )


def _within(inner: str, outer: str) -> bool:
    return f"{inner}/".startswith(f"{outer.rstrip('/')}/")


def _real(uri: str) -> str:
    """Return a location without links on the way to it: two ways may lead to one place."""
    if not uri.startswith("file:"):
        return uri.rstrip("/")
    folder, name = os.path.split(to_path(uri).rstrip("/"))
    return to_uri(os.path.join(os.path.realpath(folder), name))


def carry_evidence(evidence: Sequence[StoredEvidence], store: EvidenceStore, digest: Digest) -> None:
    """Store evidence about a copy beside it. It stays what it is: whoever reads it checks it.

    Raises:
        EvidenceError: An object with other bytes lies under one of the names.
        UnavailableError: The store is out of reach.
    """
    for item in evidence:
        if item.kind in CARRIED and not item.altered and not item.problem:
            store.put(digest, item.kind, item.data)


def carry_all(source: EvidenceStore, target: EvidenceStore, about: EvidenceId) -> None:
    """Copy all evidence about something but verification summaries, which are somebody's word about the old place.

    Raises:
        EvidenceError: An object with other bytes lies under one of the names.
        UnavailableError: A store is out of reach. What could not be read might be what readers of the copy demand.
    """
    found = source.collect(about)
    for _, error in found.unread:
        if isinstance(error, UnavailableError):
            raise error
    for item in found.objects:
        if item.kind and item.kind != SUMMARY and not item.altered and not item.problem:
            target.put(about, item.kind, item.data)


def _evidence(check: Check, digest: Digest) -> list[StoredEvidence]:
    found = list(check.handed)
    if check.opened is not None:
        found.append(StoredEvidence("signature in the artifact", check.opened.signature, "signature"))
    if check.store is not None:
        found += check.store.collect(digest, kinds=CARRIED).objects
    return found


def _path(destination: str | os.PathLike[str]) -> str:
    text = os.fspath(destination)
    if "://" in text and not text.startswith("file:"):
        raise UsageError(
            "A download goes to a path of this machine.", next_step="Use `sealflow copy` from one store to another."
        )
    path = to_path(text)
    if not os.path.basename(path):
        raise UsageError(f"{printable(path)} is no place for an artifact.")
    return path


def _already(
    ref: ArtifactRef,
    path: str,
    store: EvidenceStore,
    identities: Any,
    name: str | None,
    producer: str | None,
    require: Iterable[str] | None,
    policy: Any,
    storages: Storages,
    audit: AuditSink | None,
) -> Verdict:
    """Return the verdict about what lies there, if it has the digest that is wanted; anything else is in the way."""
    if _digest(path, storages) != ref.digest:
        raise exists(path)
    there = ArtifactRef(to_uri(path), ref.digest, store.uri)
    verdict = verify(
        there,
        identities=identities,
        name=name,
        producer=producer,
        require=require,
        policy=policy,
        storages=storages,
        audit=audit,
    )
    return verdict


def _digest(path: str, storages: Storages) -> Digest | None:
    storage = storages.for_uri(path)
    try:
        location = storage.locate(path)
        return build_manifest(storage, location).digest if location is not None else None
    except ArtifactError:
        return None


@contextlib.contextmanager
def _partial(path: str, source: str) -> Iterator[str]:
    """Give the private folder of one download, beside its destination; it stays where going on makes sense."""
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


def _earlier(folder: str) -> str | None:
    """Set aside what an earlier attempt left, and return where it lies."""
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


def _open_up(content: str) -> None:
    """Give the copy the modes that new files have here; until now nobody else could reach it."""
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


def _move(content: str, path: str, folder: str, *, overwrite: bool) -> None:
    """Put the copy in its place in one step; where that fails, what lay there lies there again."""
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
