"""Moves an artifact under a quarantine prefix so that at every moment its bytes lie whole somewhere.

On this machine the artifact is renamed first, to a hidden place beside its own: from then on nobody finds it under its
name, and nobody writes into it. Only a copy whose digest was read back lets anything be removed. In a store objects are
copied, read back, and removed one by one under the version that was copied.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from sealflow.actions.copy import send_file
from sealflow.errors import ArtifactError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.hashing import Digest
from sealflow.manifest import Manifest, build_manifest
from sealflow.storage import Location, Storage, Storages
from sealflow.storage.files import short, sync_folder
from sealflow.storage.local import to_path, to_uri
from sealflow.storage.resolve import is_s3


@dataclass(frozen=True)
class Move:
    """One artifact's way.

    Attributes:
        source: Where it lies.
        target: Where it goes.
        digest: What it is.
        storages: Finds storage.
    """

    source: str
    target: str
    digest: Digest
    storages: Storages

    @property
    def aside(self) -> str:
        """Where a local artifact waits, hidden, on its way; the same for every attempt."""
        path = to_path(self.source)
        folder, name = os.path.split(path)
        mark = hashlib.sha256(f"{path}\0{self.digest}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return os.path.join(folder, f".{short(name)}.{mark}.quarantined")

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return self.source.startswith("file:")

    def begun(self) -> bool:
        """Tell whether an earlier attempt has taken it aside."""
        return self.is_local and os.path.lexists(self.aside)

    def arrived(self) -> bool:
        """Tell whether all of it lies at the target.

        Raises:
            UnavailableError: The target is out of reach.
        """
        storage = self.storages.for_uri(self.target)
        found = storage.locate(self.target)
        return found is not None and build_manifest(storage, found).digest == self.digest

    def run(self) -> None:
        """Move it, or go on where an earlier attempt ended.

        Raises:
            ArtifactError: ``ARTIFACT_CHANGED``: other bytes were written there meanwhile. They lie where they lay.
            UsageError: Nothing can be removed from this kind of storage.
            UnavailableError: A place is out of reach; try again.
        """
        if self.is_local:
            if self._take_aside():
                if not self.arrived():
                    self._bring(to_uri(self.aside))
                self._check()
            self._remove_aside()
        elif is_s3(self.source):
            if not self.arrived():
                self._bring(self.source)
            self._check()
            self._remove_objects()
        else:
            raise UsageError(
                f"Nothing can be moved away from {printable(self.source)}.",
                next_step="Revoke the artifact's digest instead (sealflow respond revoke), and move it by hand.",
            )

    def _check(self) -> None:
        if not self.arrived():
            raise UnavailableError(
                f"What arrived at {printable(self.target)} is not what was sent; nothing was removed.",
                next_step="Look at the store, then quarantine it again.",
            )

    # --- on this machine ---

    def _take_aside(self) -> bool:
        """Take it aside, unless an earlier attempt has; tell whether all of it lies there.

        Otherwise it is the rest of what arrived, whose removal had begun.

        Raises:
            ArtifactError: ``ARTIFACT_CHANGED``: it is neither: somebody wrote to it after it was read. It lies where it
                lay, or aside where that is taken; nothing is removed.
        """
        path = to_path(self.source)
        with _translated(path):
            if not self.begun():
                os.rename(path, self.aside)
                sync_folder(os.path.dirname(path))
        aside = self._manifest(to_uri(self.aside))
        if aside is not None and aside.digest == self.digest:
            return True
        if self.arrived():
            if os.path.isdir(self.aside) and not any(names for _, _, names in os.walk(self.aside)):
                return False
            there = self._manifest(self.target)
            if aside is not None and aside.kind == "tree" and there is not None and leftovers_of(aside, there):
                return False
        # Whatever it is now, it is not for us to hide it.
        with contextlib.suppress(OSError):
            if not os.path.lexists(path):
                os.rename(self.aside, path)
        raise ArtifactError(
            f"{printable(self.source)} was changed while it was moved.",
            code="ARTIFACT_CHANGED",
            next_step="Stop what writes there, then quarantine it again.",
        )

    def _manifest(self, place: str) -> Manifest | None:
        storage = self.storages.for_uri(place)
        try:
            found = storage.locate(place)
            return None if found is None else build_manifest(storage, found)
        except ArtifactError:
            return None

    def _remove_aside(self) -> None:
        if not self.begun():
            return
        with _translated(self.aside):
            if os.path.isdir(self.aside):
                shutil.rmtree(self.aside)
            else:
                os.unlink(self.aside)

    def _bring(self, place: str) -> None:
        storage = self.storages.for_uri(place)
        found = storage.locate(place)
        if found is None:
            raise ArtifactError(f"Nothing lies at {printable(place)} any more.", code="ARTIFACT_MISSING")
        if self.target.startswith("file:"):
            self._bring_here(storage, found)
        else:
            self._bring_to_store(storage, found)

    def _bring_here(self, storage: Storage, found: Location) -> None:
        path = to_path(self.target)
        folder = os.path.dirname(path)
        with _translated(path):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if os.path.lexists(path):
                # Neither whole, or nobody would bring it, nor ours to remove.
                raise ArtifactError(
                    f"Something else lies at {printable(self.target)}.",
                    code="ARTIFACT_EXISTS",
                    next_step="Quarantine under another prefix.",
                )
            if found.uri.startswith("file:"):
                try:
                    os.rename(to_path(found.uri), path)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                else:
                    sync_folder(folder)
                    return
            partial = os.path.join(folder, f".{secrets.token_hex(8)}.partial")
            try:
                self._copy(storage, found, partial)
                os.rename(partial, path)
                sync_folder(folder)
            finally:
                # Only ever a copy: what it was made from is there still.
                shutil.rmtree(partial, ignore_errors=True)
                with contextlib.suppress(OSError):
                    os.unlink(partial)

    def _copy(self, storage: Storage, found: Location, partial: str) -> None:
        with storage.open(found) as reader:
            for entry in storage.entries(found, sizes=True):
                path = partial if found.kind == "file" else os.path.join(partial, *entry.name.split("/"))
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                with open(path, "xb") as file:
                    reader.read(entry, file.write)
                    file.flush()
                    os.fsync(file.fileno())

    def _bring_to_store(self, storage: Storage, found: Location) -> None:
        target = self.storages.for_uri(self.target)
        there = target.locate(self.target)
        known = {item.name for item in target.entries(there)} if there is not None and there.kind == "tree" else set()
        with storage.open(found) as reader:
            for entry in storage.entries(found, sizes=True):
                if found.kind == "tree" and entry.name in known:
                    continue
                uri = self.target if found.kind == "file" else f"{self.target}/{entry.name}"
                if found.kind == "file" and there is not None:
                    raise ArtifactError(f"Something else lies at {printable(uri)}.", code="ARTIFACT_EXISTS")
                # The place is named by the digest: who else writes there at this moment writes the same. And what would
                # keep an upload from replacing something leaves probes behind where it is killed.
                send_file(target, uri, reader, entry, overwrite=True)

    # --- in S3 ---

    def _remove_objects(self) -> None:
        """Remove from a store what was copied, each object under the version whose bytes were compared.

        Raises:
            ArtifactError: ``ARTIFACT_CHANGED``: something else lies there by now. It stays.
        """
        storage = self.storages.s3(self.source)
        found = storage.locate(self.source)
        if found is None:
            return
        arrived = self._manifest(self.target)
        assert arrived is not None  # noqa: S101  (just checked)
        copied = {item.name: item.digest for item in arrived.resources}
        lone = found.kind == "file"
        left = False
        with storage.open(found) as reader:
            for entry in storage.entries(found, sizes=True):
                uri = found.uri if lone else f"{found.uri}/{entry.name}"
                expected = next(iter(copied.values())) if lone else copied.get(entry.name)
                made = hashlib.sha256()
                try:
                    # Under the version that was listed; the same one is removed, or none.
                    reader.read(entry, made.update)
                except ArtifactError:
                    left = True
                    continue
                facts = storage.facts(uri)
                if made.hexdigest() != expected or (facts is not None and facts.pin != entry.pin):
                    left = True
                elif facts is not None:
                    storage.remove(uri, entry.pin)
        if left:
            raise ArtifactError(
                f"{printable(self.source)} was written to while it was moved; what is new lies there still.",
                code="ARTIFACT_CHANGED",
                next_step="Look at what is new; quarantine it again to move that, too.",
            )


def leftovers_of(manifest: Manifest, whole: Manifest) -> bool:
    """Tell whether what lies somewhere is a part of what was moved: an attempt ended while it removed."""
    known = {item.name: item.digest for item in whole.resources}
    return all(known.get(item.name) == item.digest for item in manifest.resources)


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        code = "PERMISSION_DENIED" if isinstance(error, PermissionError) else "BACKEND_UNAVAILABLE"
        raise UnavailableError(f"{printable(path)}: {error.strerror or error}.", code=code) from None
