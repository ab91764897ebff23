"""Reads all evidence in stores, whoever it is about, for those who ask how far something got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from sealflow.actions.gathering import EvidenceReader
from sealflow.errors import SealflowError
from sealflow.evidence import EvidenceStore, StoredEvidence
from sealflow.evidence.encryption import MessageId
from sealflow.evidence.store import Collected, EvidenceId
from sealflow.findings import CODES, Finding, Severity
from sealflow.hashing import Digest
from sealflow.storage import Storages
from sealflow.verification.radius import Radius
from sealflow.verification.radius_evidence import Said, Signers, hear
from sealflow.verification.radius_log import LogFacts

#: Most artifacts, and most encrypted messages, of one evidence store that are looked at.
MAX_ARTIFACTS: Final = 200_000
#: Most bytes of evidence that are read.
MAX_SIZE: Final = 4 << 30
#: Kinds of evidence that say who signed; for what was made from what the large one of them says nothing.
_KINDS: Final = frozenset({"encryption", "gate", "lineage", "promotion", "provenance", "re-sign", "summary", "waiver"})
_KINDS_WITH_SIGNATURES: Final = _KINDS | {"signature"}
_MAX_NAMED: Final = 20


class EvidenceReading:
    """Reads all evidence there is, within limits.

    Args:
        stores: Evidence stores.
        storages: Finds storage.
        signers: Whose keys are known.
        asked: Fingerprints and names that are asked about: what they signed is read whatever its kind. Empty for none;
            then signatures are not read, which say nothing of what was made from what.

    Raises:
        UsageError: A store is no location that can hold evidence.
    """

    def __init__(self, stores: Sequence[str], storages: Storages, signers: Signers, asked: frozenset[str]) -> None:
        self.findings: list[Finding] = []
        self._stores = list({store.uri: store for store in (EvidenceStore(uri, storages) for uri in stores)}.values())
        self._storages = storages
        self._signers = signers
        self._kinds = _KINDS_WITH_SIGNATURES if asked else _KINDS
        self._asked = asked
        self._size = 0
        self._named: Counter[str] = Counter()
        self._elsewhere: list[tuple[Digest, Said]] = []
        self._seen: set[tuple[Digest, str]] = set()

    def read(self) -> list[Said]:
        """Return what all evidence in the stores says."""
        said: list[Said] = []
        for store in self._stores:
            try:
                digests = store.digests(MAX_ARTIFACTS + 1)
                messages = store.messages(MAX_ARTIFACTS + 1)
            except SealflowError as error:
                self._out_of_reach(store.uri, error)
                continue
            if max(len(digests), len(messages)) > MAX_ARTIFACTS:
                self._too_much(store.uri, f"The store holds evidence of more than {MAX_ARTIFACTS} artifacts.")
            message = f"Read the evidence of {len(digests[:MAX_ARTIFACTS])} artifacts; what lies elsewhere is not seen."
            self.findings.append(Finding("LINEAGE_PLACES", "note", store.uri, message))
            everything: list[tuple[Digest | None, EvidenceId]] = [(item, item) for item in digests[:MAX_ARTIFACTS]]
            everything += [(None, MessageId(item)) for item in messages[:MAX_ARTIFACTS]]
            for filed, about in everything:
                if self._size > MAX_SIZE:
                    self._too_much(store.uri, f"There are more than the {MAX_SIZE} bytes of evidence that are read.")
                    return said
                try:
                    found = store.collect(about, kinds=None if self._asked else self._kinds)
                except SealflowError as error:
                    self._out_of_reach(f"{store.uri}/{about.path_segment}", error)
                    continue
                said += self._hear_all(found, filed, store.uri)
        return said

    def beside(self, facts: LogFacts | None) -> Iterator[Said]:
        """Read the default stores beside the places at which artifacts were made, by the log."""
        reader = EvidenceReader((), self._storages)
        asked: set[tuple[Digest, str]] = set()
        for use in facts.makes if facts is not None else ():
            if use.digest is None or not use.artifact or (use.digest, use.artifact) in asked:
                continue
            asked.add((use.digest, use.artifact))
            if self._size > MAX_SIZE:
                self._too_much(use.artifact, f"There are more than the {MAX_SIZE} bytes of evidence that are read.")
                return
            gathered = reader(use.digest, (use.artifact,), self._kinds)
            self.findings += [item for item in gathered.findings if item.severity == "unverifiable"]
            yield from self._hear_all(Collected(tuple(gathered.evidence)), use.digest, use.artifact)

    def _hear_all(self, found: Collected, filed: Digest | None, where: str) -> list[Said]:
        said: list[Said] = []
        self.findings += [item for item in found.findings(where) if item.severity == "unverifiable"]
        for item in found.objects:
            self._size += len(item.data)
            if filed is not None:
                # The same object in two stores is one piece of evidence.
                if not item.altered and (filed, item.name) in self._seen:
                    continue
                self._seen.add((filed, item.name))
            try:
                heard = hear(item, filed, self._signers, self._asked)
            except SealflowError as error:
                self._unread(item, filed, error)
                continue
            if item.altered:
                message = "Its bytes are not those that its name promises; what its signature covers was read."
                self._name("EVIDENCE_ALTERED", "warning", _subject(item, filed), message)
            for one in heard:
                if filed is not None and one.about != filed:
                    self._elsewhere.append((filed, one))
            said += heard
        return said

    def misfiled(self, radius: Radius) -> list[Finding]:
        """Say which evidence about touched artifacts lies where nobody who verifies finds it."""
        found = [
            Finding(
                "EVIDENCE_OF_OTHER_ARTIFACT",
                "warning",
                one.evidence,
                "It is filed under another artifact than the one that it is about.",
                str(filed),
                str(one.about),
            )
            for filed, one in self._elsewhere
            if one.about in radius.artifacts
        ]
        return found[:_MAX_NAMED]

    def _unread(self, item: StoredEvidence, filed: Digest | None, error: SealflowError) -> None:
        message = f"It could be evidence of something that was touched. {error.message}"
        self._name("EDGE_UNVERIFIED", "unverifiable", _subject(item, filed), message)

    def _out_of_reach(self, subject: str, error: SealflowError) -> None:
        code = error.code if error.code in CODES else "BACKEND_UNAVAILABLE"
        self._name(code, "unverifiable", subject, error.message)

    def _too_much(self, subject: str, message: str) -> None:
        self.findings.append(Finding("EVIDENCE_TOO_MUCH", "unverifiable", subject, message))

    def _name(self, code: str, severity: Severity, subject: str, message: str) -> None:
        self._named[code] += 1
        if self._named[code] < _MAX_NAMED:
            self.findings.append(Finding(code, severity, subject, message))
        elif self._named[code] == _MAX_NAMED:
            self.findings.append(Finding(code, severity, "evidence", "There are more of these than are named."))


def _subject(item: StoredEvidence, filed: Digest | None) -> str:
    return f"{filed.path_segment}/{item.name}" if filed is not None else item.name
