"""Read, sign and put in force the list of revocations."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.recording import Recording
from sealflow.errors import EvidenceError, PolicyError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys import KeySigner, PassphraseCallback, load_public_key, load_signer
from sealflow.policy.revocations import MAX_SIGNED_LIST, CompiledRevocations, RevocationList, parse_revocations
from sealflow.policy.signed import REVOCATIONS_TYPE, make_signed, open_signed
from sealflow.storage import Storage, Storages
from sealflow.storage.files import errors
from sealflow.storage.local import LocalStorage, replace_file, to_path
from sealflow.storage.s3 import S3Storage


@dataclass(frozen=True)
class ListFile:
    """A signed list whose signature holds.

    Attributes:
        document: The list.
        digest: ``sha256:`` and the digest of the signed bytes.
        key: ``sha256:`` and the fingerprint of the key that signed it.
        written: Whether it was written just now; otherwise it lay there already.
        warnings: What the admin should know: names that the policy of this machine does not have.
        data: The signed bytes.
    """

    document: RevocationList
    digest: str
    key: str
    written: bool = False
    warnings: tuple[str, ...] = ()
    data: bytes = field(default=b"", repr=False)


def read_list(place: str, keys: Sequence[str], storages: Storages | None = None) -> ListFile | None:
    """Return the signed list that lies at a place, ``None`` where nothing does.

    Args:
        place: Location of the list.
        keys: Public keys one of which must have signed it: PEM texts, paths or URIs.
        storages: Finds storage.

    Raises:
        PolicyError: What lies there is no list, or signed by somebody else; ``POLICY_VERSION``: it is an older one than
            this machine has seen in force, or none.
        UsageError: A key cannot be read.
        UnavailableError: The store is out of reach.
    """
    shown = printable(place)
    try:
        data = (storages or Storages()).for_uri(place).get(place, MAX_SIGNED_LIST)
        if data is None:
            _refuse_rollback(place, None)
            return None
        opened = open_signed(data, [load_public_key(source) for source in keys], REVOCATIONS_TYPE)
    except EvidenceError as error:
        raise PolicyError(
            f"{shown} is no list of revocations to build on. {error.message}",
            code=error.code,
            next_step="Name the list itself, and the admin's key that signed it.",
        ) from None
    document = parse_revocations(opened.payload, shown)
    _refuse_rollback(place, document)
    digest = f"sha256:{hashlib.sha256(opened.payload).hexdigest()}"
    return ListFile(document, digest, f"sha256:{opened.key}", data=data)


def sign_list(
    document: RevocationList,
    *,
    signer: str | KeySigner,
    output: str,
    keys: Sequence[str] = (),
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
) -> ListFile:
    """Sign a list and put it in its place. The same list once more changes nothing.

    Of two admins who write the next version at the same moment one is refused: no entry gets lost.

    Args:
        document: The list.
        signer: URI of an admin's signer, or the signer.
        output: Location of the list.
        keys: Public keys one of which must have signed what lies there; the signer's own counts always.
        passphrase: Asked for the passphrase of an encrypted key.
        storages: Finds storage.

    Raises:
        PolicyError: ``POLICY_VERSION``: its version does not rise over that of the list that lies there; or somebody
            else wrote one at the same moment. What lies there is no list.
        UsageError: The signer cannot be opened, or the store exchanges nothing under a condition.
        UnavailableError: The key service or the store is out of reach.
    """
    storages = storages or Storages()
    storage = storages.for_uri(output)
    key = load_signer(signer, passphrase) if isinstance(signer, str) else signer
    mark = f"sha256:{key.public_key.hint}"
    if mark in {item.key for item in document.revocations}:
        raise PolicyError(
            f"The list would be signed with a key that it revokes, {mark}.",
            code="POLICY_SIGNER",
            next_step="Sign it with another key of the channel, and take the revoked one out of its `keys`.",
        )
    payload = strictjson.dumps(document.as_json(without="none"))
    parse_revocations(payload)  # what is too large for readers is not written
    digest = f"sha256:{hashlib.sha256(payload).hexdigest()}"
    before = read_list(output, [key.public_key.pem.decode("ascii"), *keys], storages)
    if before is not None and before.digest == digest and before.key == mark:
        return before
    if before is not None and mark in {item.key for item in before.document.revocations}:
        raise PolicyError(
            f"{printable(output)} revokes the key {mark}, so it signs no next list.",
            code="POLICY_SIGNER",
            next_step="Sign it with another key of the channel.",
        )
    if before is not None and before.digest != digest and document.version <= before.document.version:
        raise PolicyError(
            f"The version is {document.version}, and {printable(output)} has the version {before.document.version}.",
            code="POLICY_VERSION",
            next_step=f"Add to that list, as version {before.document.version + 1}.",
            problems=[(("version",), "the version must rise with every change")],
        )
    if before is not None and (lost := _compiled(document).lacks(_compiled(before.document))):
        raise PolicyError(
            f"The list leaves out {printable(lost)}, which {printable(output)} revokes.",
            code="POLICY_MALFORMED",
            next_step="Keep the entry, or name it under `withdrawn` with the reason.",
            problems=[(("revocations",), "an entry is left out and not withdrawn")],
        )
    where = storage.canonical(output)
    with Recording("revocations-sign", where, context.current(), key=mark, ruled=False) as recording:
        data = make_signed(payload, key, REVOCATIONS_TYPE)
        if not _exchange(storage, output, before.data if before is not None else None, data):
            raise PolicyError(
                f"Somebody else wrote {printable(output)} just now.",
                code="POLICY_VERSION",
                next_step="Read it again, and add to it.",
            )
        recording.done(digest)
    return ListFile(document, digest, mark, True, unknown_identities(document), data)


def _compiled(document: RevocationList) -> CompiledRevocations:
    return CompiledRevocations(document, digest="")


def _refuse_rollback(place: str, document: RevocationList | None) -> None:
    """Refuse to build on an older list than this machine has seen: what it lacks would be gone for good.

    Raises:
        PolicyError: ``POLICY_VERSION``.
    """
    from sealflow.policy.source import AdminChannel, last_good_revocations

    channel = context.current().admin
    if not isinstance(channel, AdminChannel) or not channel.revocations:
        return
    storage = Storages().for_uri(place)
    if storage.canonical(place) != Storages().for_uri(channel.revocations).canonical(channel.revocations):
        return
    known = last_good_revocations(channel)
    least = max(channel.revocations_minimum_version - 1, known.document.version if known is not None else 0)
    there = document.version if document is not None else 0
    if there < least:
        where = f"the last good copy lies in {printable(channel.state)}" if known is not None and channel.state else ""
        raise PolicyError(
            f"{printable(place)} has the version {there or 'none'}, and version {least} was in force before.",
            code="POLICY_VERSION",
            next_step=f"Find out who put it back, and restore version {least} first{where and f'; {where}'}.",
        )


def unknown_identities(document: RevocationList) -> tuple[str, ...]:
    """Say which identities a list names that the admin's policy does not have; empty where none is at hand."""
    from sealflow.audit.event import utc_now
    from sealflow.policy.source import AdminChannel, policy_in_force, resolve

    channel = context.current().admin
    if not isinstance(channel, AdminChannel) or not any(item.identity for item in document.revocations):
        return ()
    try:
        # Without the list: it may be just the one that is missing.
        policy = policy_in_force(replace(channel, revocations=""), Storages(), utc_now()).policy
    except UnavailableError:
        return ()
    _, findings = resolve(CompiledRevocations(document, digest=""), policy)
    return tuple(f"{item.subject}: {item.message}" for item in findings)


def _exchange(storage: Storage, place: str, old: bytes | None, new: bytes) -> bool:
    """Put a list in the place of another, or of nothing; ``False``: something else lies there by now."""
    if isinstance(storage, S3Storage):
        found = storage.get_pinned(place, MAX_SIGNED_LIST)
        if (found and found[0]) != old:
            return False
        # The answer to an attempt that succeeded may have been lost.
        return storage.replace(place, new, found and found[1]) or storage.get(place, MAX_SIGNED_LIST) == new
    if isinstance(storage, LocalStorage):
        path = to_path(place)
        with _locked(os.path.dirname(path)):
            if storage.get(path, MAX_SIGNED_LIST) != old:
                return False
            replace_file(path, new)
        return True
    if old is None:
        return storage.create(place, new)
    raise UsageError(
        f"{printable(place)} lies in a store that can be written once, but not over.",
        code="OVERWRITE_NOT_PROTECTED",
        next_step="Keep the list in a folder or in S3.",
    )


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    with errors(folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with errors(folder):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
