"""Signed policies, waivers and revocations: a DSSE envelope in a Sigstore bundle, around JSON of a type of its own.

The payload type is part of what is signed (DSSE protocol v1.0), so neither an artifact's signature nor a waiver can be
passed off as a policy, whoever signed it. Any DSSE tool opens the envelope; the payload is plain JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sealflow.errors import EvidenceError
from sealflow.evidence.bundle import make_bundle, pae, parse_bundle
from sealflow.keys import KeySigner, PublicKey
from sealflow.keys.signer import demand_one

POLICY_TYPE: Final = "application/vnd.sealflow.policy.v1+json"
WAIVER_TYPE: Final = "application/vnd.sealflow.waiver.v1+json"
REVOCATIONS_TYPE: Final = "application/vnd.sealflow.revocations.v1+json"

#: Largest signed document in bytes: Base64 takes four bytes for three.
MAX_SIGNED: Final = 6 << 20


class Opened(NamedTuple):
    """A payload whose signature holds.

    Attributes:
        payload: The signed bytes.
        key: Fingerprint of the key that signed them.
    """

    payload: bytes
    key: str


def make_signed(payload: bytes, signer: KeySigner, payload_type: str) -> bytes:
    """Sign a document and return the bundle.

    Raises:
        UsageError: Two signers: a document has one signature.
        UnavailableError: The key service does not answer.
    """
    demand_one(signer)
    return make_bundle(payload, signer, payload_type)


def open_signed(data: bytes, keys: Sequence[PublicKey], payload_type: str) -> Opened:
    """Return the signed bytes when one of the keys has signed them. Nothing in them is looked at before.

    Raises:
        EvidenceError: ``POLICY_UNSIGNED``: no bundle of this payload type; ``POLICY_SIGNER``: another key signed it, or
            its bytes were changed.
    """
    try:
        bundle = parse_bundle(data, payload_type)
    except EvidenceError as error:
        raise EvidenceError(
            f"It is not a signed document of its kind. {error.message}", code="POLICY_UNSIGNED"
        ) from None
    if not bundle.chain and not bundle.keyless:
        for key in keys:
            if bundle.hint in (None, key.hint) and key.verify(bundle.signature, pae(bundle.payload, payload_type)):
                return Opened(bundle.payload, key.hint)
        if bundle.hint in {key.hint for key in keys}:
            raise EvidenceError("The signature does not fit the signed bytes.", code="POLICY_SIGNER")
    found = f"sha256:{bundle.hint}" if bundle.hint else "another key"
    raise EvidenceError(
        f"It is signed with {found}, not with one of {', '.join('sha256:' + key.hint for key in keys)}.",
        code="POLICY_SIGNER",
    )
