"""Who can open an encrypted artifact: shown from its header, or changed by writing it anew under a new data key.

Never a new header over an old body: the header's tag has a fixed nonce, so a second one under the same key would give
the power to forge away, and whoever is removed may have kept the data key.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions.download import carry_all
from sealflow.actions.encrypted import Opening, opened
from sealflow.actions.places import refuse_overlap
from sealflow.actions.recipients import demanded_recipients, open_recipients, recipient_uris, refuse_recipients
from sealflow.actions.recording import Recording
from sealflow.actions.sign import chosen_signer, co_signing, open_signer
from sealflow.actions.upload import write_encryption_evidence
from sealflow.actions.verify import judge_opened, judged_opening, settle
from sealflow.audit import AuditSink
from sealflow.encryption import ARTIFACT, RUN, EncryptedDataKey, MessageEncryptor, Recipient
from sealflow.encryption.recipient import KMS_PROVIDER, Published
from sealflow.errors import ArtifactError, SealflowError, UsageError, VerificationError
from sealflow.evidence import ArtifactRef, EvidenceStore, default_store
from sealflow.evidence.encryption import MessageId
from sealflow.evidence.reference import is_reference
from sealflow.findings import Verdict, printable
from sealflow.hashing import sha256_hex
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.storage import Storages
from sealflow.transfer.receive import EncryptedFiles, look
from sealflow.transfer.send import Progress, Shape, send

if TYPE_CHECKING:
    from sealflow.actions.checking import Check
    from sealflow.manifest import Manifest
    from sealflow.policy.compose import CompiledPolicy
    from sealflow.storage.base import Outgoing
    from sealflow.transfer.receive import Sealed

#: How RSA keys are called whose URI says nothing else: the SHA-256 of their PEM text.
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Holder:
    """One who can open an encrypted artifact, as its header says; nothing of a header is proved.

    Attributes:
        provider: Key provider: ``aws-kms`` or a namespace.
        name: Name of the key.
    """

    provider: str
    name: str

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"provider": self.provider, "name": self.name}


@dataclass(frozen=True)
class Changed:
    """What a change made.

    Attributes:
        ref: The reference to the new object.
        verdict: The verdict about what was written anew.
        holders: Who can open it now.
    """

    ref: ArtifactRef
    verdict: Verdict
    holders: tuple[Holder, ...]


def list_recipients(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any], *, storages: Storages | None = None
) -> tuple[Holder, ...]:
    """Return who can open an encrypted artifact, as its header says. No key is needed, and nothing is verified.

    Raises:
        UsageError: It is not encrypted.
        ArtifactError: Nothing lies there.
        UnavailableError: It cannot be reached.
    """
    ref = ArtifactRef.parse(artifact) if is_reference(artifact) else None
    uri = ref.uri if ref is not None else os.fspath(artifact)  # type: ignore[arg-type]
    storages = storages or Storages()
    sealed = look(storages.for_uri(uri), uri, ref.version_id if ref is not None else None)
    if sealed is None:
        raise UsageError(f"What lies at {printable(uri)} is not encrypted, or nothing does.")
    with sealed.object:
        return _holders(sealed.header.data_keys)


def change_recipients(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    *,
    add: Any = (),
    remove: Sequence[str] = (),
    recipients: Any = None,
    destination: str | None = None,
    signer: str | KeySigner | None = None,
    identities: Any = None,
    name: str | None = None,
    evidence_store: str | None = None,
    policy: str | CompiledPolicy | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Changed:
    """Write an encrypted artifact anew, for other recipients, under a new data key. Nothing is written in clear.

    The artifact is verified on the way, and the new object appears only if the verdict is ``passed``. Its signature and
    its provenance stay; that these are its bytes now is signed by ``signer``, whom its readers must accept.

    Args:
        artifact: Location or reference.
        add: URIs of those who shall be able to open it too.
        remove: Those who shall not: URIs, or names as :func:`list_recipients` gives them.
        recipients: URIs of the keys that open it, by default what the surroundings set. A shared secret that is to stay
            a recipient has to be among them: only public keys stand in the artifact.
        destination: Where the new object goes, by default in the place of the old one.
        signer: Signer URI.
        identities: Who may have signed the artifact.
        name: Expected logical name.
        evidence_store: Where its evidence lies, and the new goes.
        policy: One more policy; it can only tighten.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.
        audit: Takes audit events.
        progress: Called with bytes sent and, when known, bytes in all.

    Raises:
        VerificationError: The verdict is not ``passed``; nothing was written.
        ArtifactError: ``ARTIFACT_CHANGED``: something else lies there by now, and is left as it is.
        UsageError: Nobody would be left, one to be removed is no recipient, or could open it under another name, or
            is named by what others are called too; a key to wrap to is missing.
        UnavailableError: A store, a key service or the audit log is out of reach.
    """
    storages = storages or Storages()
    check = settle(
        artifact,
        identities=identities,
        name=name,
        evidence_store=evidence_store,
        policy=policy,
        recipients=recipients,
        passphrase=passphrase,
        storages=storages,
    )
    surroundings = check.surroundings
    target = storages.for_uri(destination or check.uri)
    canonical = target.canonical(destination or check.uri)
    key = open_signer(chosen_signer(canonical, surroundings, signer), passphrase)
    store = check.store
    if destination is not None:
        where = evidence_store or surroundings.settings.evidence_store or default_store(canonical, storages)
        store = EvidenceStore(where, storages)
    assert store is not None  # noqa: S101  (evidence is looked for in a store)
    refuse_overlap(
        check.canonical,
        store.uri,
        destination=canonical if destination is not None else None,
        mounts=surroundings.mounts,
    )
    added = open_recipients(uris, passphrase) if (uris := recipient_uris(add)) else ()
    fingerprint = f"sha256:{key.public_key.hint}"
    with (
        Recording(
            "change-recipients", canonical, surroundings, key=fingerprint, sink=audit, policy=policy
        ) as recording,
        co_signing(key, canonical, surroundings, audit, ()) as co_signed,
        contextlib.ExitStack() as stack,
    ):
        check.unwrapped = recording.unwrapped
        opening: list[Opening] = []

        def judge_told() -> Any:
            opening.append(stack.enter_context(opened(check)))
            artifact = opening[0].artifact
            told = artifact.index.manifest() if artifact is not None else None
            return judge_opened(check, opening[0], told, None, unread=True)

        # First what is told, so that nothing is sent that nobody stands for; then what was read, before the commit.
        _demand(check, judged_opening(check, judge_told).verdict, recording)
        source = check.opened
        assert source is not None  # noqa: S101  (it passed)
        logical = source.sealed.header.context.pairs.get(ARTIFACT, name or "")
        everybody = _everybody(
            check,
            demanded_recipients(canonical, logical, surroundings, policy),
            source.index.recipients,
            source.sealed.header.data_keys,
            added,
            remove,
        )
        files = EncryptedFiles(source)
        entries = files.entries(opening[0].location)
        size = sum(entry.size or 0 for entry in entries)
        pairs = {ARTIFACT: logical, RUN: surroundings.run.invocation}
        shape = Shape.of(size, target.most_parts)
        encryptor = MessageEncryptor(everybody, pairs, frame_length=shape.frame)
        holders = [(item.provider, item.info) for item in encryptor.header.data_keys]
        refuse_recipients(canonical, logical, surroundings, holders, policy)
        begun: list[Outgoing] = []

        def begin() -> Outgoing:
            begun.append(target.begin(canonical, overwrite=destination is None))
            return begun[0]

        def signature(manifest: Manifest) -> bytes:
            if manifest.digest != source.index.digest():
                raise ArtifactError("The artifact is not what its index tells.", code="ARCHIVE_MALFORMED")
            return source.signature

        try:
            sent = send(
                files,
                opening[0].location,
                entries,
                encryptor,
                shape,
                signature,
                begin,
                recipients=[item.published for item in everybody if item.public],
                progress=progress,
            )
            verdict = judged_opening(check, lambda: judge_opened(check, opening[0], sent.manifest, None)).verdict
            _demand(check, verdict, recording)
            digest = sent.manifest.digest
            message = MessageId(encryptor.header.message_id.hex())
            carried = [item.data for item in opening[0].evidence if item.kind == "provenance" and not item.altered]
            made = write_encryption_evidence(store, message, sent.digests, digest, carried, surroundings.run, key)
            if destination is None:
                _demand_unchanged(check, source.sealed)
            elif check.store is not None and check.store.uri != store.uri:
                carry_all(check.store, store, digest)
            if sent.outgoing is not None:
                version = sent.outgoing.commit(sent.parts)
            else:
                assert sent.single is not None  # noqa: S101
                version = target.put(canonical, sent.single, overwrite=destination is None)
        except BaseException:
            for outgoing in begun:
                with contextlib.suppress(SealflowError):
                    outgoing.abort()
            raise
        recording.made(*made)
        recording.done(str(digest), version)
        co_signed(str(digest), version)
        ref = ArtifactRef(canonical, digest, store.uri, version, encrypted=True)
        return Changed(ref, verdict, _holders(encryptor.header.data_keys))


def _demand(check: Check, verdict: Verdict, recording: Recording) -> None:
    if verdict.passed:
        return
    recording.judged(verdict)
    raise (check.surroundings.refusal if verdict.status == "failed" else VerificationError)(verdict)


def _demand_unchanged(check: Check, sealed: Sealed) -> None:
    """Refuse to replace anything but what was read: neither a newer artifact nor, by an old reference, the newest."""
    found = check.storage.open_object(check.uri, 1)
    if found is not None:
        with found:
            if (found.size, found.pin) == (sealed.object.size, sealed.object.pin):
                return
    raise ArtifactError(
        f"What lies at {printable(check.canonical)} is not what was read.",
        code="ARTIFACT_CHANGED",
        next_step="Start again with what lies there now, or name another destination.",
    )


def _holders(keys: Sequence[EncryptedDataKey]) -> tuple[Holder, ...]:
    return tuple(Holder(key.provider, key.name) for key in keys)


def _everybody(
    check: Check,
    demanded: Sequence[Recipient],
    published: Sequence[Published],
    wrapped: Sequence[EncryptedDataKey],
    added: Sequence[Recipient],
    remove: Sequence[str],
) -> tuple[Recipient, ...]:
    """Return the recipients of the new object: those of the old one, without some, and with others."""
    at_hand = [
        *open_recipients(check.recipients, check.passphrase),
        *demanded,
        *(item for known in published if (item := _public(known))),
    ]
    meant: dict[str, set[Holder]] = {text: set() for text in remove}
    kept: list[Recipient] = []
    gone: list[tuple[EncryptedDataKey, Recipient | None]] = []
    for key in wrapped:
        known = next((item for item in at_hand if item.owns(key)), None)
        names = {key.name, f"{key.provider}:{key.name}", *((known.uri,) if known is not None else ())}
        named = [text for text in meant if text in names or _names_key(text, key, check)]
        for text in named:
            meant[text].update(_holders([key]))
        if named:
            gone.append((key, known))
        elif known is not None:
            kept.append(known)
        else:
            raise UsageError(
                f"{printable(f'{key.provider}:{key.name}')} can open the artifact, and its key is not at hand.",
                next_step="Name the key among the recipients that open it, or remove it.",
            )
    _demand_one_each(meant)
    everybody = (*kept, *(item for item in added if not any(item.same_key(other) for other in kept)))
    _demand_gone(gone, everybody, added)
    if not everybody:
        raise UsageError("Nobody could open the artifact then.", next_step="Add somebody, or keep somebody.")
    return everybody


def _demand_one_each(meant: dict[str, set[Holder]]) -> None:
    """Refuse to remove nobody, or more than one by one name."""
    for text, holders in meant.items():
        if not holders:
            raise UsageError(
                f"{printable(text)} cannot open the artifact, so it cannot be removed.",
                next_step="`sealflow recipients list` shows who can.",
            )
        if len(holders) > 1:
            called = ", ".join(sorted(f"{item.provider}:{item.name}" for item in holders))
            raise UsageError(
                f"{printable(text)} means more than one, at least two keys: {printable(called, 400)}.",
                next_step="Name each as `sealflow recipients list` shows it.",
            )


def _demand_gone(
    gone: Sequence[tuple[EncryptedDataKey, Recipient | None]],
    everybody: Sequence[Recipient],
    added: Sequence[Recipient],
) -> None:
    """Refuse to remove somebody who could open the artifact all the same."""
    for key, known in gone:
        public = known.public if known is not None else ""
        for item in everybody:
            # A key that is changed for another one of the same name is removed and added; where the old one is not
            # known, nobody can tell.
            if (public and item.public == public) or (item in added and item.owns(key) and not public):
                held = item.published
                raise UsageError(
                    f"{printable(key.name)} is to be removed, and could open the artifact as "
                    f"{printable(f'{held.provider}:{held.name}')} all the same.",
                    next_step="Remove that too, and do not add it.",
                )


def _names_key(text: str, key: EncryptedDataKey, check: Check) -> bool:
    try:
        return open_recipients([text], check.passphrase)[0].owns(key)
    except SealflowError:
        return False


def _public(known: Published) -> Recipient | None:
    """Return the recipient of a public key in the index, which is signed for; ``None`` for one that is unknown here."""
    try:
        if known.provider == KMS_PROVIDER:
            from sealflow.encryption.awskms import AwsKmsRecipient

            made = AwsKmsRecipient(f"awskms:{known.key}")
            # Nothing but an ARN: an option would send the new data key, in clear, to whatever endpoint it names.
            return made if made.arn == known.key and known.name in ("", known.key) else None
        from sealflow.encryption.raw import RsaRecipient

        what = f"{known.provider}:{known.name}"
        key = RsaRecipient.from_pem(known.key, what, namespace=known.provider, name=known.name)
        # Where the name says which key it is, only that key bears it.
        return None if _DIGEST.fullmatch(known.name) and known.name != sha256_hex(key.public_pem) else key
    except UsageError:
        return None
