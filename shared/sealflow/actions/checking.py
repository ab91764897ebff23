"""What one check of one artifact is about: its parameters, settled, and what it comes across on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sealflow.actions.context import Surroundings
from sealflow.errors import SealflowError, UnavailableError
from sealflow.evidence import ArtifactRef, EvidenceStore, StoredEvidence
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.manifest import Manifest
from sealflow.manifest.build import Source
from sealflow.policy import Requirement
from sealflow.policy.compose import Arguments, Ruling
from sealflow.storage import Storage, Storages
from sealflow.verification.judge import Judgement

#: How an encrypted artifact of ours begins: version 2 of the header, suite 0x0478.
MESSAGE: Final = b"\x02\x04\x78"

if TYPE_CHECKING:
    from sealflow.actions.policies import Policies
    from sealflow.encryption.header import EncryptedDataKey
    from sealflow.policy.compose import CompiledPolicy
    from sealflow.transfer.receive import EncryptedArtifact


@dataclass(eq=False, repr=False)
class Found:
    """What a check comes across on its way and needs later.

    Attributes:
        summaries: Verification summaries in the evidence store.
        signer: The opened signer of the summary to be made.
        problem: Why there is none although one is set.
    """

    summaries: list[StoredEvidence] = field(default_factory=list)
    signer: KeySigner | None = None
    problem: UnavailableError | None = None


# Nobody compares or shows checks, and every task would compile what does.
@dataclass(eq=False, repr=False)
class Check:
    """One check, its parameters settled.

    Attributes:
        surroundings: Who checks.
        storages: Finds storage.
        storage: The artifact's.
        uri: The location that was given.
        canonical: The same as its storage writes it.
        ref: The reference that was given.
        store: The evidence store; ``None`` where only handed evidence counts.
        handed: Evidence that was handed over.
        exclusive: Whether nothing but that counts.
        arguments: What the call itself demands.
        policies: The policies around it; ``None`` where none is configured or given, or where they are not to be had.
        ruling: What must be proved, as far as no signed name is known, and before the listing no content.
        blocked: Why nothing can be judged: a policy is configured and not to be had.
        verifier: Who signs a verification summary.
        added: One more policy, as the call gave it.
        found: What the check comes across.
        contents: Names of all files in a folder, where rules depend on them.
        recipients: URIs of the keys that may open an encrypted artifact.
        passphrase: Asked for the passphrase of such a key.
        opened: The encrypted artifact, once it was opened.
        unwrapped: Told which key of an encrypted artifact's header gave its data key.
        salvage: Folder with what an interrupted download left; each frame of it is checked before it is used.
    """

    surroundings: Surroundings
    storages: Storages
    storage: Storage
    uri: str
    canonical: str
    ref: ArtifactRef | None
    store: EvidenceStore | None
    handed: tuple[StoredEvidence, ...]
    exclusive: bool
    arguments: Arguments
    policies: Policies | None
    ruling: Ruling
    blocked: UnavailableError | None
    verifier: str | KeySigner | None = None
    added: str | CompiledPolicy | None = None
    found: Found = field(default_factory=Found)
    contents: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    passphrase: PassphraseCallback | None = None
    opened: EncryptedArtifact | None = None
    salvage: str | None = None
    unwrapped: Callable[[EncryptedDataKey], None] | None = None

    @property
    def source(self) -> Source:
        """Where the artifact's files are read."""
        if self.opened is None:
            return self.storage
        from sealflow.transfer.receive import EncryptedFiles

        return EncryptedFiles(self.opened, self.requirement.files or None, self.salvage)

    def seems_encrypted(self) -> bool:
        """Tell whether what is to be checked looks like an encrypted object, or should be one.

        Raises:
            ArtifactError: It cannot be taken.
            UnavailableError: It cannot be reached.
        """
        if self.ref is not None:
            return self.ref.encrypted
        # In a store every look is a request, which who cannot open anything need not pay for.
        if not self.canonical.startswith("file:") and not self.recipients:
            return False
        location = self.storage.locate(self.uri)
        if location is None or location.kind != "file":
            return False
        found = self.storage.open_object(self.uri, len(MESSAGE), location.version_id)
        if found is None:
            return False
        with found:
            return found.head == MESSAGE

    def surely_encrypted(self) -> bool:
        """Tell the same where it can be told; what cannot be reached is for the check to say."""
        try:
            return self.blocked is None and self.seems_encrypted()
        except SealflowError:
            return False

    @property
    def requirement(self) -> Requirement:
        """What must be proved."""
        return self.ruling.requirement

    def look_inside(self, manifest: Manifest) -> None:
        """Bring in the rules about files of which only the listing of a folder tells that they lie in it.

        Raises:
            PolicyError: ``POLICY_LOCKED``: the call sets what such a rule locks, or loosens.
            UnavailableError: The policy of a team to which such a file was given is not to be had.
        """
        if self.policies is None or not self.policies.hide or manifest.kind != "tree" or self.requirement.files:
            return
        self.contents = tuple(item.name for item in manifest.resources)
        self.policies = self.policies.listed(self.contents)
        self.ruling = self.policies.ruling(self.arguments, contents=self.contents)

    def deciding(self, judgement: Judgement) -> Ruling:
        """Return the ruling that decides, which signed logical names may have brought rules into."""
        if self.policies is not None and judgement.names:
            named = self.policies.ruling(self.arguments, judgement.names, self.contents)
            if named.rules != self.ruling.rules or named.managed != self.ruling.managed:
                return named
        return self.ruling
