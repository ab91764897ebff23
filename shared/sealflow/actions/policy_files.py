"""Policy files: drafts and signed documents as an admin has them at hand, and how they are written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError, PolicyError, SealflowError, UsageError
from sealflow.evidence.bundle import parse_bundle
from sealflow.findings import printable
from sealflow.keys import load_public_key
from sealflow.policy.compose import CompiledPolicy
from sealflow.policy.document import TrustPolicy, Waiver, parse_policy, parse_waiver
from sealflow.policy.draft import parse_draft, read_draft
from sealflow.policy.revocations import (
    MAX_SIGNED_LIST,
    CompiledRevocations,
    RevocationList,
    parse_revocations,
)
from sealflow.policy.signed import POLICY_TYPE, REVOCATIONS_TYPE, WAIVER_TYPE, open_signed
from sealflow.storage import Storages
from sealflow.storage.local import LocalStorage, replace_file, to_path


@dataclass(frozen=True)
class SignedFile:
    """A signed policy, waiver or list of revocations, read. Its signature was checked only where ``verified`` says so.

    Attributes:
        kind: ``policy``, ``waiver`` or ``revocations``.
        document: What was signed.
        payload: The signed bytes.
        key: Fingerprint of the key that the file says it was signed with; empty where it says none.
        verified: Whether one of the given keys made the signature; ``None`` where none was given.
        problem: Why the signature does not hold.
    """

    kind: str
    document: TrustPolicy | Waiver | RevocationList
    payload: bytes
    key: str
    verified: bool | None
    problem: str = ""

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the signed bytes, as verdicts name the policy."""
        return hashlib.sha256(self.payload).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        body: dict[str, Any] = {
            "kind": self.kind,
            "verified": self.verified,
            "problem": self.problem,
            "digest": f"sha256:{self.digest}",
            "key": f"sha256:{self.key}" if self.key else "",
            "document": strictjson.loads(self.payload, limit=MAX_SIGNED_LIST, what="The document"),
        }
        return body


def is_signed(data: bytes) -> bool:
    """Tell whether bytes look like a signed document and not like a draft."""
    return data.lstrip()[:1] == b"{" and b'"dsseEnvelope"' in data


def fetch(uri: str) -> bytes:
    """Return the bytes of a draft or signed document.

    Raises:
        UsageError: There is none.
        UnavailableError: It cannot be read.
    """
    try:
        data = Storages().for_uri(uri).get(uri, MAX_SIGNED_LIST)
    except EvidenceError as error:
        raise PolicyError(error.message) from None
    if data is None:
        raise UsageError(f"There is no policy at {printable(uri)}.", code="POLICY_MISSING")
    return data


_Parse = Callable[[bytes, str], TrustPolicy | Waiver | RevocationList]
_KINDS: Final[tuple[tuple[str, str, _Parse], ...]] = (
    ("policy", POLICY_TYPE, parse_policy),
    ("waiver", WAIVER_TYPE, parse_waiver),
    ("revocations", REVOCATIONS_TYPE, parse_revocations),
)


def read_signed(data: bytes, what: str, keys: tuple[str, ...] = ()) -> SignedFile:
    """Read a signed policy, waiver or list of revocations.

    Args:
        data: The bytes.
        what: Name for messages.
        keys: Public keys, one of which should have signed it.

    Raises:
        PolicyError: No signed document of a known kind, or what was signed has not the form of one.
        UsageError: A key cannot be read.
    """
    problem: SealflowError | None = None
    for kind, media_type, parse in _KINDS:
        try:
            bundle = parse_bundle(data, media_type)
        except EvidenceError as error:
            problem = problem or error
            continue
        document = parse(bundle.payload, what)
        verified, why = None, ""
        if keys:
            try:
                open_signed(data, [load_public_key(source) for source in keys], media_type)
                verified = True
            except EvidenceError as error:
                verified, why = False, error.message
        return SignedFile(kind, document, bundle.payload, bundle.hint or "", verified, why)
    raise PolicyError(
        f"{what} is no signed policy, waiver or list of revocations. {problem.message if problem else ''}",
        code="POLICY_UNSIGNED",
        next_step="Sign the draft with `sealflow policy sign`.",
    )


def read_either(path: str) -> tuple[CompiledPolicy, str]:
    """Return the policy in a draft or a signed file, and how far it can be believed, in words.

    Raises:
        PolicyError: It is neither.
        UsageError: There is no such file.
    """
    shown = printable(path)
    data = fetch(path)
    if is_signed(data):
        signed = read_signed(data, shown)
        if not isinstance(signed.document, TrustPolicy):
            raise PolicyError(f"{shown} is no policy but of the kind {signed.kind}.")
        return CompiledPolicy(signed.document, digest=signed.digest, uri=path), "signed; the signature was not checked"
    draft = read_draft(path)
    return CompiledPolicy(draft.policy(), digest=hashlib.sha256(draft.json).hexdigest(), uri=path), "a draft"


def read_revocations(path: str) -> CompiledRevocations:
    """Return the list of revocations in a draft or a signed file; its signature is not checked.

    Raises:
        PolicyError: It is neither.
        UsageError: There is no such file.
    """
    shown = printable(path)
    data = fetch(path)
    payload = read_signed(data, shown).payload if is_signed(data) else parse_draft(data, shown).json
    return CompiledRevocations(parse_revocations(payload, shown), digest=hashlib.sha256(payload).hexdigest(), uri=path)


def write_file(path: str, data: bytes, *, overwrite: bool) -> None:
    """Write a file whole or not at all.

    Args:
        path: A local path; a location elsewhere only where nothing lies there.
        data: The bytes.
        overwrite: Replace what lies there.

    Raises:
        UsageError: It is there already, and is not to be overwritten.
        UnavailableError: It cannot be written.
    """
    storage = Storages().for_uri(path)
    if not overwrite:
        if not storage.create(path, data):
            raise UsageError(
                f"{printable(path)} exists.", code="FILE_EXISTS", next_step="Use --overwrite, or another name."
            )
        return
    if not isinstance(storage, LocalStorage):
        raise UsageError(
            f"{printable(path)} can be written once, but not over.",
            next_step="Sign into a local file, and put that to its place with the store's own tool.",
        )
    replace_file(to_path(path), data)
