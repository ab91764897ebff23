"""Whether a signer is on the list of revocations: by its key, a key of its certificate chain, or its name. Pure."""

from __future__ import annotations

from typing import NamedTuple

from sealflow.evidence.bundle import Bundle
from sealflow.hashing import sha256_hex
from sealflow.policy.requirement import Revocations, Revoked


class Entry(NamedTuple):
    """What of a signer is revoked.

    Attributes:
        subject: A key or a certificate name, as the list names it.
        revoked: Since when, and why.
        final: Whether no timestamp helps: a stolen key of an authority makes a certificate for any signature, however
            old, and dates it as it likes. A timestamp is over the signature and says nothing of the certificate.
    """

    subject: str
    revoked: Revoked
    final: bool = False


def revocation_of(hint: str, bundle: Bundle, revoked: Revocations) -> Entry | None:
    """Return what is revoked of those who made a signature that holds: what no timestamp helps, else the earliest.

    Every certificate that the bundle carries counts, those between leaf and root too: a stolen key of an authority
    makes leaves under any name.

    Args:
        hint: Fingerprint of the key that made the signature.
        bundle: The bundle, whose chain was parsed and leads to that key.
        revoked: What counts no longer.

    Raises:
        EvidenceError: The chain holds a certificate that cannot be read.
    """
    found: list[Entry] = []
    if (entry := revoked.keys.get(hint)) is not None:
        found.append(Entry(f"sha256:{hint}", entry))
    if bundle.chain and (revoked.keys or revoked.names):
        from sealflow.keys import certificate

        chain = certificate.parse_chain(bundle.chain)
        for item in chain[1:]:
            key = sha256_hex(certificate.public_pem(item))
            if (entry := revoked.keys.get(key)) is not None:
                found.append(Entry(f"sha256:{key}", entry, True))
        if revoked.names:
            leaf = certificate.names(chain[0])
            for name in (f"subject:{leaf.subject}", *leaf.alternative):
                if (entry := revoked.names.get(name)) is not None:
                    found.append(Entry(name, entry))
    return min(found, key=lambda item: (not item.final, item.revoked.since), default=None)
