"""The evidence that counted in a check, for those who sign its payloads again with another key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sealflow.errors import EvidenceError
from sealflow.evidence import StoredEvidence
from sealflow.evidence.bundle import pae, parse_bundle
from sealflow.findings import Signer, Verdict, printable
from sealflow.keys import KeySigner

#: Kinds whose payload is signed again, in the order in which they are stored: a signature last, so that none stands
#: without the provenance that qualifies it.
KINDS = ("provenance", "signature")


def counted_evidence(
    verdict: Verdict, objects: Sequence[StoredEvidence], keys: Collection[str] | None = None
) -> list[tuple[Signer, StoredEvidence]]:
    """Return what counted in a check, out of what a second look into the store found.

    An object's name holds the digest of its bytes, so what bears the name and is not altered is what was checked.

    Args:
        verdict: Of the check.
        objects: What lies in the store by now.
        keys: Fingerprints of the keys whose evidence is meant, ``sha256:…``; by default all.

    Raises:
        EvidenceError: ``EVIDENCE_ALTERED``: something that counted is gone, or has other bytes by now.
    """
    wanted = {
        signed.evidence: signed
        for signed in verdict.signers
        if signed.kind in KINDS and (keys is None or signed.key in keys)
    }
    found = [(wanted[item.name], item) for item in objects if item.name in wanted and not item.altered]
    if gone := wanted.keys() - {item.name for _, item in found}:
        raise EvidenceError(
            f"{printable(min(gone))} was changed or removed after it was verified.",
            code="EVIDENCE_ALTERED",
            next_step="Find out who writes to the evidence store before you sign anything in it.",
        )
    return found


def held_payloads(objects: Iterable[StoredEvidence], key: KeySigner) -> set[bytes]:
    """Return the payloads that a key has signed already, under the certificates that it has now."""
    found = set()
    for item in objects:
        if item.altered:
            continue
        try:
            bundle = parse_bundle(item.data)
        except EvidenceError:
            continue
        if bundle.chain == key.certificates and key.public_key.verify(bundle.signature, pae(bundle.payload)):
            found.add(bundle.payload)
    return found
