"""Provenance, opened: its form, the key under which it verifies, what it states. No rule is asked here. Pure.

All of it follows from the bytes and a key alone, so another process can work it out ahead of a walk. Only what is in
order is opened; whatever is odd is left to :mod:`~sealflow.verification.authenticate` and to those who ask the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sealflow.errors import EvidenceError
from sealflow.evidence.bundle import Bundle, pae, parse_bundle
from sealflow.evidence.own_provenance import Digests, Told, find_own_form, tell, understand
from sealflow.evidence.provenance import Dependency, Provenance, parse_dependencies, parse_provenance
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.keys import PublicKey

#: Names the key that a bundle claims: a hint, or the signer's certificate in DER.
Claim = str | bytes

#: What was opened, as texts and bytes that another process can be sent: hint and certificates of the bundle, the
#: fingerprint of the key under which it holds, what it states; signature and timestamps where there are any.
Plain = tuple["str | None", tuple[bytes, ...], str, Told, "tuple[bytes, tuple[bytes, ...]] | None"]


class Opened(NamedTuple):
    """Provenance whose signature holds under a key, whoever that belongs to.

    Attributes:
        bundle: Its bundle; without payload, and without signature where no timestamp is over it.
        key: Fingerprint of the key, as hints write it.
        said: What it states; without its raw ``dependencies``.
        inputs: These, parsed.
    """

    bundle: Bundle
    key: str
    said: Provenance
    inputs: tuple[Dependency, ...]


def claim_of(bundle: Bundle) -> Claim | None:
    """Return what a bundle says of its signer's key; ``None`` where it says nothing."""
    return bundle.chain[0] if bundle.chain else bundle.hint


def open_plainly(item: StoredEvidence, key_of: Callable[[Claim], PublicKey | None]) -> Plain | None:
    """Open a piece of evidence.

    Args:
        item: The piece.
        key_of: Gives the key that a claim has turned out to mean before. The claim proves nothing: the signature must
            hold under the key, and whether that may speak is for the rules to say.

    Returns:
        ``None`` where it is no provenance in order, or the key is not known or another one.
    """
    if item.altered or item.problem or item.kind != "provenance":
        return None
    try:
        bundle = parse_bundle(item.data)
        claim = claim_of(bundle)
        key = key_of(claim) if claim is not None and not bundle.keyless else None
        # Nothing in a payload is parsed before its signature was checked.
        if key is None or not key.verify(bundle.signature, pae(bundle.payload)):
            return None
        told = find_own_form(bundle.payload)
        if told is None:
            said = parse_provenance(parse_statement(bundle.payload))
            told = tell(said, parse_dependencies(said))
    except EvidenceError:
        return None
    stamped = (bundle.signature, bundle.timestamps) if bundle.timestamps else None
    return bundle.hint, bundle.chain, key.hint, told, stamped


def understand_plain(plain: Plain, digests: Digests) -> Opened:
    """Return what was opened.

    Args:
        plain: What :func:`open_plainly` gave.
        digests: Gives the digests.
    """
    hint, chain, key, told, stamped = plain
    signature, timestamps = stamped or (b"", ())
    said, inputs = understand(told, digests)
    return Opened(Bundle(b"", signature, hint, chain, False, timestamps), key, said, inputs)


def open_provenance(item: StoredEvidence, key_of: Callable[[Claim], PublicKey | None]) -> Opened | None:
    """Open a piece of evidence for this process; see :func:`open_plainly`."""
    plain = open_plainly(item, key_of)
    return None if plain is None else understand_plain(plain, Digests())
