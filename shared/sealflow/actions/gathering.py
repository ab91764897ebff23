"""Finds the evidence of artifacts that somebody else names: in given stores, and beside the places that they name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from sealflow.errors import MissingExtraError, SealflowError, UnavailableError, UsageError
from sealflow.evidence.place import repository_store
from sealflow.evidence.store import Collected, EvidenceStore, StoredEvidence
from sealflow.findings import CODES, Finding
from sealflow.hashing import Digest
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage, to_path, to_uri
from sealflow.storage.resolve import S3_SCHEMES
from sealflow.verification.assess import Gathered

#: Storage in which the first part of a location names no server.
_BUCKETS: Final = frozenset({"abfs", "abfss", "az", "gcs", "gs"})
#: After how many failures in a row a backend is asked no more.
_PATIENCE: Final = 3


class EvidenceReader:
    """Gives a walk its evidence. A location is a hint: it can lead to more evidence, never to less.

    Beside a location is looked only on this machine, in S3, and in other storage from which a store was given: whoever
    names a location must not choose with which servers we speak.

    Args:
        stores: Evidence stores in which everything is looked for.
        storages: Finds storage.
        beside: Whether the default stores beside named locations are read too.

    Raises:
        UsageError: A given store is no location that can hold evidence.
    """

    def __init__(self, stores: Sequence[str], storages: Storages, *, beside: bool = True) -> None:
        made = [EvidenceStore(uri, storages) for uri in stores]
        self.stores = tuple({store.uri: store for store in made}.values())
        self._uris = frozenset(store.uri for store in self.stores)
        self._storages = storages
        self.beside = beside
        self._schemes = frozenset(urlsplit(uri).scheme for uri in self._uris)
        self._failures: dict[str, tuple[Finding, ...]] = {}
        #: Folders of this machine that hints name, and whether they are there.
        self._folders: dict[str, bool] = {}
        self._repositories: dict[str, str | None] = {}

    @property
    def is_local(self) -> bool:
        """Whether all stores are folders of this machine, read in the ordinary way."""
        plain = type(self._storages) is Storages and type(self._storages.for_uri("file:///")) is LocalStorage
        return plain and all(uri.startswith("file:") for uri in self._uris)

    def __call__(self, digest: Digest, locations: Sequence[str], kinds: frozenset[str]) -> Gathered:
        """Return what was found about a digest; see :data:`sealflow.verification.assess.Gather`."""
        evidence: list[StoredEvidence] = []
        findings: list[Finding] = []
        beside = self._stores_beside(locations) if self.beside and locations else []
        for store in (*self.stores, *beside):
            if isinstance(store, Finding):
                findings.append(store)
                continue
            found = self._collect(store, digest, kinds)
            if isinstance(found, Finding):
                findings.append(found)
                continue
            if evidence:
                # The same object in two stores is one piece of evidence.
                known = {item.name: place for place, item in enumerate(evidence) if not item.altered}
                evidence += [item for item in found.objects if item.altered or item.name not in known]
                for item in found.objects if found.inclusions else ():
                    # And what proves since when it exists may lie in either.
                    if not item.altered and (place := known.get(item.name)) is not None:
                        both = (*evidence[place].inclusions, *item.inclusions)
                        evidence[place] = replace(evidence[place], inclusions=tuple(dict.fromkeys(both)))
            else:
                evidence += found.objects
            if found.foreign or found.unread or found.too_much:
                findings += found.findings(store.uri)
        return Gathered(evidence, findings)

    def _stores_beside(self, locations: Sequence[str]) -> list[EvidenceStore | Finding]:
        found: list[EvidenceStore | Finding] = []
        for location in locations:
            scheme, _, rest = location.partition("://") if "://" in location else ("file", "", location)
            scheme = scheme.lower()
            if scheme != "file" and scheme not in S3_SCHEMES:
                server = f"{scheme}://{rest.partition('/')[0]}/"
                known = any(uri.startswith(server) for uri in self._uris)
                if not known and not (scheme in _BUCKETS and scheme in self._schemes):
                    continue
            elif scheme == "file" and self._leads_nowhere(location):
                continue
            try:
                place = self._repository_of(location) if scheme == "file" else None
                store = EvidenceStore(place or location.rstrip("/") + ".evidence", self._storages)
            except (MissingExtraError, UnavailableError) as error:
                found.append(_out_of_reach(location, error))
                continue
            except (UsageError, ValueError):
                continue  # a hint that leads nowhere
            if store.uri not in self._uris:
                found.append(store)
        return found

    def _repository_of(self, location: str) -> str | None:
        """Return the store of the DVC repository that holds a location."""
        folder = location.rstrip("/").rpartition("/")[0]
        if folder not in self._repositories:
            try:
                self._repositories[folder] = repository_store(to_uri(to_path(location)))
            except UsageError:
                self._repositories[folder] = None
        return self._repositories[folder]

    def _leads_nowhere(self, location: str) -> bool:
        """Tell whether not even the folder is there: most hints that others wrote mean another machine."""
        folder = location.rstrip("/").rpartition("/")[0]
        if folder not in self._folders:
            try:
                self._folders[folder] = os.path.lexists(to_path(folder))
            except UsageError:
                self._folders[folder] = True
        return not self._folders[folder]

    def _collect(self, store: EvidenceStore, digest: Digest, kinds: frozenset[str]) -> Collected | Finding:
        local = store.uri.startswith("file:")
        if local or not self._failures:
            backend = ""
            failed: tuple[Finding, ...] = ()
        else:
            backend = _backend(store.uri)
            failed = self._failures.get(backend, ())
            if len(failed) >= _PATIENCE:
                return failed[-1]
        try:
            found = store.collect(digest, kinds=kinds)
        except SealflowError as error:
            finding = _out_of_reach(store.uri, error)
            if not local:
                self._failures[_backend(store.uri)] = (*failed, finding)
            return finding
        if failed:
            del self._failures[backend]
        return found


def _backend(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def _out_of_reach(subject: str, error: SealflowError) -> Finding:
    code = error.code if error.code in CODES else "BACKEND_UNAVAILABLE"
    return Finding(code, "unverifiable", subject, error.message, next_step=error.next_step)
