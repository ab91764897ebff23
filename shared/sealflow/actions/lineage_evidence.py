"""The evidence about the data of a DVC repository: where it lies, and who vouches for what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from sealflow.actions.context import Surroundings
from sealflow.audit.event import utc_now
from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence import EvidenceStore, StoredEvidence, parse_bundle
from sealflow.evidence.lineage import KIND, parse_lineage
from sealflow.evidence.statement import parse_statement
from sealflow.findings import Finding, Signer
from sealflow.hashing import Digest
from sealflow.lineage.content import Content
from sealflow.lineage.files import Recorded
from sealflow.policy.identities import Identity, parse_identities
from sealflow.policy.requirement import Requirement
from sealflow.storage import Storages
from sealflow.storage.local import to_path, to_uri
from sealflow.verification.lineage import judge_binding

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

#: How many other artifacts' statements are looked at to explain a refusal.
_SEARCH: Final = 1024


def store_of(path: str, evidence_store: str | None, surroundings: Surroundings, storages: Storages) -> EvidenceStore:
    """Return the evidence store of a repository: the one given, the settings', or the one beside the repository.

    Evidence about what a repository holds lies together, outside of it: inside, it would become data itself.

    Raises:
        UsageError: The repository is the URL of a Git repository, beside which nothing lies, and no store is named.
    """
    named = evidence_store or surroundings.settings.evidence_store
    if named is None and not path:
        raise UsageError("There is no place beside the URL of a Git repository.", next_step="Name the evidence store.")
    return EvidenceStore(named or f"{to_uri(path)}.evidence", storages)


class Vouchers:
    """Asks the evidence store, for each path of data, who vouches that its bytes have the recorded MD5.

    Args:
        uri: Location of the repository.
        store: The evidence store.
        identities: Who may sign, if the call says so.
        policy: One more policy.
        surroundings: Who checks.

    Attributes:
        digests: Artifact digest by path of data.
        store: The evidence store.
    """

    def __init__(
        self,
        uri: str,
        store: EvidenceStore,
        identities: tuple[Identity, ...] | None,
        policy: str | CompiledPolicy | None,
        surroundings: Surroundings,
    ) -> None:
        self._uri = uri
        self._policy = policy
        self._surroundings = surroundings
        self._identities = identities
        self._defaults = parse_identities(surroundings.settings.identities)
        # Where no policy says anything, the same holds for all data.
        self._alone = None
        if surroundings.admin is None and policy is None:
            self._alone = Requirement.of_call(self._defaults if identities is None else identities)
        self._signers: dict[Signer, None] = {}
        self._notes: dict[Finding, None] = {}
        self.store = store
        self.digests: dict[str, Digest] = {}

    def location(self, path: str) -> str:
        """Return where the data at a path lies."""
        return to_uri(f"{to_path(self._uri)}/{path}") if self._uri.startswith("file:") else f"{self._uri}/{path}"

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Those who vouch for something, each once."""
        return tuple(self._signers)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What must be said of them, each once."""
        return tuple(self._notes)

    def requirement(self, path: str) -> Requirement | Finding:
        """Return what must be proved about the data at a path, or why nothing can be.

        Raises:
            UnavailableError: The policy is not to be had, and the data is managed.
        """
        if self._alone is not None:
            return self._alone
        from sealflow.actions.policies import policies_for
        from sealflow.policy.compose import Arguments

        policies = policies_for(self.location(path), self._surroundings, self._policy)
        ruling = policies.ruling(Arguments(self._identities, defaults=self._defaults))
        if ruling.unmatched:
            message = "The policy manages this data, and no rule holds for this task."
            consumer = self._surroundings.run.producer
            return Finding("POLICY_NO_RULE", "refusal", path, message, "a rule", consumer, "rules")
        return ruling.requirement

    def __call__(self, path: str, content: Content, item: Recorded) -> Sequence[Finding]:
        """Say why nobody vouches, nothing where somebody does.

        Raises:
            ArtifactError: A file of a folder has a name that no signed tree may hold.
            UnavailableError: The evidence store or the policy is out of reach.
        """
        digest = self.digests[path] = content.artifact_digest()
        requirement = self.requirement(path)
        if isinstance(requirement, Finding):
            return (requirement,)
        collected = self.store.collect(digest, kinds={KIND})
        signers, found = judge_binding(
            digest,
            item.digest,
            collected.objects,
            requirement,
            subject=path,
            now=utc_now(),
            consumer=self._surroundings.run.producer,
        )
        if signers:
            self._signers.update(dict.fromkeys(signers))
            self._notes.update(dict.fromkeys(found))
            return ()
        # What could not be read may be the very statement that is missing.
        doubts = collected.findings(self.store.uri)
        if any(finding.severity == "unverifiable" for finding in doubts):
            return doubts
        return (*self._other_bytes(path, digest, item.digest, requirement), *found, *doubts)

    def _other_bytes(self, path: str, digest: Digest, md5: str, requirement: Requirement) -> tuple[Finding, ...]:
        """Say so when somebody who may has signed that other bytes have the recorded MD5."""
        consumer = self._surroundings.run.producer
        for other, item in self._claims.get(md5, ()):
            if other == digest:
                continue
            signers, _ = judge_binding(other, md5, [item], requirement, subject=path, now=utc_now(), consumer=consumer)
            if signers:
                message = "Other bytes were signed with the recorded MD5."
                return (Finding("SHA256_MISMATCH", "refusal", path, message, str(other), str(digest)),)
        return ()

    @cached_property
    def _claims(self) -> dict[str, list[tuple[Digest, StoredEvidence]]]:
        """What lies in the store about an MD5, by whomever; of a large store a part."""
        found: dict[str, list[tuple[Digest, StoredEvidence]]] = {}
        for digest in self.store.digests(_SEARCH)[:_SEARCH]:
            for item in self.store.collect(digest, kinds={KIND}).objects:
                try:
                    said = parse_lineage(parse_statement(parse_bundle(item.data).payload))
                except EvidenceError:
                    continue
                if said.digest == digest:
                    found.setdefault(said.md5, []).append((digest, item))
        return found
