"""The evidence store: immutable objects ``<store>/<id>/<kind>-<sha256 of the bundle>.json``.

Objects are only ever created, so writers cannot race and history cannot be edited in place. ``<id>`` is the artifact
digest. What a listing shows proves nothing about what is missing; absence is judged by the verification.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

from sealflow.errors import EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.evidence.ahead import Outcome, in_order
from sealflow.evidence.bundle import MAX_BUNDLE
from sealflow.findings import CODES, Finding, printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.storage import Storage, Storages

#: Most objects of each kind that one check reads for one artifact. More is a flooded store, and is reported as such.
#: Each kind has its own share, so that none can crowd out another; every run that makes the same bytes adds one each.
MAX_OBJECTS: Final = {"encryption": 128, "lineage": 128, "provenance": 512, "signature": 128}
#: Kind of verification summaries: what was once concluded from evidence, and no evidence of that itself.
SUMMARY: Final = "summary"
#: Most objects of any other kind.
MAX_OTHERS: Final = 64
#: Most names that are looked at.
MAX_NAMES: Final = 4096
#: Most bytes that one check reads for one artifact.
MAX_BYTES: Final = 512 << 20
#: Most proofs that a log holds some of the evidence, and the largest one in bytes. Ours have 2 to 6 KiB.
MAX_INCLUSIONS: Final = 512
MAX_INCLUSION: Final = 256 << 10
#: Largest attestation. Only signatures list files and grow with the artifact.
MAX_ATTESTATION: Final = 1 << 20

# A backend that is down fails at every object, each time after its own time-out; a single odd object fails at once.
_PATIENCE = 30.0

# Most objects of a kind of trouble that a check names.
_MAX_NAMED = 10

_NAME = re.compile(r"([a-z][a-z-]{0,30})-([0-9a-f]{64})\.json")
# Digests that signed evidence names, as bytes: no evidence by itself.
_LIST = re.compile(r"frames-[0-9a-f]{64}\.bin")
# Proofs of a log (C2SP tlog-proof) are no evidence by themselves either: they tell since when some of it exists.
_INCLUSION = re.compile(r"inclusion-([0-9a-f]{64})\.tlog-proof")
_MESSAGE = re.compile(r"message-([0-9a-f]{64})")


def is_evidence_name(name: str) -> bool:
    """Tell whether an object of a store is named as a signature or an attestation is."""
    return _NAME.fullmatch(name) is not None


class EvidenceId(Protocol):
    """What evidence is kept by: an artifact digest, or the id of an encrypted message."""

    @property
    def path_segment(self) -> str:
        """The id as one path segment."""


@dataclass(frozen=True)
class StoredEvidence:
    """Bytes that claim to be evidence.

    Attributes:
        name: Where they came from, for messages: the object's name, a file, ``metadata``.
        data: The bytes.
        kind: The kind that the name claims, ``None`` when it claims none.
        altered: Whether the name promises another digest than the bytes have.
        problem: Why no evidence could be taken out of what carried it, such as malformed metadata; empty when it could.
        inclusions: Bytes that claim to prove when a log held evidence that lies with this piece, perhaps this very one.
    """

    name: str
    data: bytes
    kind: str | None = None
    altered: bool = False
    problem: str = ""
    inclusions: tuple[bytes, ...] = ()


class Collected(NamedTuple):
    """What one look into a store found.

    Attributes:
        objects: The evidence.
        foreign: Names of objects that are no evidence objects.
        too_much: Whether the store holds more than is read.
        unread: Names of objects that could not be read, and why. One of them may be what a check misses.
        inclusions: What claims to prove when a log held some of the evidence. Each object carries them, too.
    """

    objects: tuple[StoredEvidence, ...]
    foreign: tuple[str, ...] = ()
    too_much: bool = False
    unread: tuple[tuple[str, SealflowError], ...] = ()
    inclusions: tuple[bytes, ...] = ()

    def findings(self, store: str) -> list[Finding]:
        """Return what a check should say of what it did not take; that decides only where the rest is not enough.

        Args:
            store: The store's location.
        """
        found = [
            Finding(
                "EVIDENCE_MALFORMED", "warning", name, "The store holds an object that is no evidence; it was not read."
            )
            for name in self.foreign[:_MAX_NAMED]
        ]
        found += [
            Finding(
                error.code if isinstance(error, UnavailableError) and error.code in CODES else "EVIDENCE_UNREADABLE",
                "unverifiable",
                name,
                error.message,
            )
            for name, error in self.unread[:_MAX_NAMED]
        ]
        if self.too_much:
            message = "The store holds more objects than one check reads."
            found.append(Finding("EVIDENCE_TOO_MUCH", "unverifiable", store, message))
        return found


class _Patience:
    """Takes down what could not be read, until that is too much."""

    def __init__(self, unread: list[tuple[str, SealflowError]]) -> None:
        self._unread = unread
        self._until = float("inf")

    def bytes_of(self, name: str, outcome: Outcome) -> bytes | None:
        """Return what was read, ``None`` where nothing was.

        Raises:
            SealflowError: Why not, where the first trouble is long ago.
        """
        if not isinstance(outcome, SealflowError):
            return outcome
        if time.monotonic() > self._until:
            raise outcome
        self._until = min(self._until, time.monotonic() + _PATIENCE)
        self._unread.append((name, outcome))
        return None


class EvidenceStore:
    """Reads and writes the evidence of artifacts at one location.

    Args:
        uri: The store's folder.
        storages: Finds the storage for it.
    """

    def __init__(self, uri: str, storages: Storages) -> None:
        self._storage: Storage = storages.for_uri(uri)
        self.uri = self._storage.canonical(uri).rstrip("/")

    def _folder(self, about: EvidenceId) -> str:
        return f"{self.uri}/{about.path_segment}"

    def put(self, digest: EvidenceId, kind: str, bundle: bytes) -> str:
        """Store one bundle and return the object's name. Storing the same bytes again is a success.

        Raises:
            EvidenceError: An object with other bytes lies under this name.
            UnavailableError: The store cannot be written.
        """
        name = f"{kind}-{sha256_hex(bundle)}.json"
        self._create(f"{self._folder(digest)}/{name}", bundle)
        return name

    def put_list(self, about: EvidenceId, data: bytes) -> str:
        """Store a list of digests that signed evidence names, and return the object's name.

        Raises:
            EvidenceError: An object with other bytes lies under this name.
            UnavailableError: The store cannot be written.
        """
        name = f"frames-{sha256_hex(data)}.bin"
        self._create(f"{self._folder(about)}/{name}", data)
        return name

    def put_inclusion(self, about: EvidenceId, proof: bytes) -> str:
        """Store the proof that a log holds evidence which lies here, and return the object's name.

        Raises:
            EvidenceError: An object with other bytes lies under this name.
            UnavailableError: The store cannot be written.
        """
        name = f"inclusion-{sha256_hex(proof)}.tlog-proof"
        self._create(f"{self._folder(about)}/{name}", proof)
        return name

    def bundles(self, about: EvidenceId) -> tuple[dict[str, str], list[str]]:
        """Return the names of the evidence about something by the SHA-256 that each promises, and those of proofs.

        Nothing is read, so whether an object has the bytes that it promises is not known.

        Raises:
            UnavailableError: The store cannot be read.
        """
        names = self._storage.list_objects(self._folder(about), MAX_NAMES)[:MAX_NAMES]
        found = {match[2]: name for name in names if (match := _NAME.fullmatch(name))}
        return found, [name for name in names if _INCLUSION.fullmatch(name)]

    def get_inclusion(self, about: EvidenceId, name: str) -> bytes | None:
        """Return the bytes of a proof of a log, ``None`` where there is none of this name, or not the promised one.

        Raises:
            EvidenceError: It has too many bytes.
            UnavailableError: The store cannot be read.
        """
        match = _INCLUSION.fullmatch(name)
        data = self._storage.get(f"{self._folder(about)}/{name}", MAX_INCLUSION) if match else None
        return data if match and data is not None and sha256_hex(data) == match[1] else None

    def get_list(self, about: EvidenceId, sha256: str, limit: int) -> bytes | None:
        """Return the list of this digest, ``None`` where there is none.

        Raises:
            EvidenceError: ``EVIDENCE_ALTERED``: what lies there has another digest; or it has too many bytes.
            UnavailableError: The store cannot be read.
        """
        name = f"frames-{sha256}.bin"
        data = self._storage.get(f"{self._folder(about)}/{name}", limit)
        if data is not None and sha256_hex(data) != sha256:
            raise EvidenceError(
                f"The bytes of {name} are not those that its name promises.",
                code="EVIDENCE_ALTERED",
                next_step=CODES["EVIDENCE_ALTERED"].next_step,
            )
        return data

    def _create(self, uri: str, data: bytes) -> None:
        if not self._storage.create(uri, data) and self._storage.get(uri, MAX_BUNDLE) != data:
            raise EvidenceError(
                f"{printable(uri)} exists with other bytes.",
                code="EVIDENCE_ALTERED",
                next_step="Somebody wrote over evidence; find out who before you sign again.",
            )

    def collect(
        self, digest: EvidenceId, most_bytes: int = MAX_BYTES, kinds: Collection[str] | None = None
    ) -> Collected:
        """Read all evidence about an artifact, within limits. An object that cannot be read keeps no other from it.

        Args:
            digest: The artifact digest, or the id of an encrypted message.
            most_bytes: How much is read.
            kinds: Kinds that are read, as the names of the objects claim them; all by default.

        Raises:
            UnavailableError: The store cannot be read.
        """
        folder = self._folder(digest)
        names = self._storage.list_objects(folder, MAX_NAMES)
        too_much = len(names) > MAX_NAMES
        # Sorted by kind, so signatures, which alone can be large, come last and find the rest of the budget.
        matches = [(name, _NAME.fullmatch(name)) for name in names[:MAX_NAMES]]
        proofs = [name for name, match in matches if match is None and _INCLUSION.fullmatch(name)]
        apart = {*proofs}
        foreign = [name for name, match in matches if match is None and name not in apart and not _LIST.fullmatch(name)]
        shares = dict(MAX_OBJECTS)
        others = MAX_OTHERS
        chosen: list[tuple[str, str, str]] = []
        for name, match in matches:
            if match is None:
                continue
            kind = match[1]
            if kinds is not None and kind not in kinds:
                continue
            if kind not in shares:
                others -= 1
                if others < 0:
                    continue
            elif not shares[kind]:
                too_much = True
                continue
            else:
                shares[kind] -= 1
            chosen.append((name, kind, match[2]))
        unread: list[tuple[str, SealflowError]] = []
        patience = _Patience(unread)
        wanted = [
            (f"{folder}/{name}", MAX_BUNDLE if kind == "signature" else MAX_ATTESTATION) for name, kind, _ in chosen
        ]
        objects: list[StoredEvidence] = []
        with closing(in_order(self._storage, wanted, most_bytes)) as outcomes:
            for (name, kind, promised), outcome in zip(chosen, outcomes, strict=True):
                if outcome is None:
                    outcome = UnavailableError(f"{printable(name)} vanished while it was read.")
                if (data := patience.bytes_of(name, outcome)) is not None:
                    objects.append(StoredEvidence(name, data, kind, sha256_hex(data) != promised))
        if not proofs:
            return Collected(tuple(objects), tuple(foreign), too_much, tuple(unread))
        too_much |= len(proofs) > MAX_INCLUSIONS
        del proofs[MAX_INCLUSIONS:]
        inclusions: list[bytes] = []
        wanted = [(f"{folder}/{name}", MAX_INCLUSION) for name in proofs]
        with closing(in_order(self._storage, wanted, MAX_INCLUSION * len(proofs))) as outcomes:
            for name, outcome in zip(proofs, outcomes, strict=True):
                data = patience.bytes_of(name, outcome)
                if data is not None and name == f"inclusion-{sha256_hex(data)}.tlog-proof":
                    inclusions.append(data)
        told = tuple(inclusions)
        return Collected(
            tuple([replace(item, inclusions=told) for item in objects] if told else objects),
            tuple(foreign),
            too_much,
            tuple(unread),
            told,
        )

    def digests(self, limit: int) -> list[Digest]:
        """Return at most ``limit`` artifact digests for which the store holds a folder.

        Raises:
            UnavailableError: The store cannot be read.
        """
        found = []
        for name in self._storage.list_folders(self.uri, limit * 4):
            algorithm, _, value = name.partition("-")
            try:
                found.append(Digest.parse(f"{algorithm}:{value}"))
            except UsageError:
                continue
        return found[:limit]

    def messages(self, limit: int) -> list[str]:
        """Return the ids in hex of at most ``limit`` encrypted messages for which the store holds a folder.

        Raises:
            UnavailableError: The store cannot be read.
        """
        names = self._storage.list_folders(self.uri, limit * 4)
        return [match[1] for name in names if (match := _MESSAGE.fullmatch(name))][:limit]
