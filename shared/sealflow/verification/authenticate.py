"""Who signed a piece of evidence: the first question about each, whatever it says.

Nothing in a payload is parsed here; that is for after the signature was checked.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from sealflow.errors import EvidenceError, MissingExtraError, UnavailableError
from sealflow.evidence.bundle import Bundle, pae, pae_of_model_signing_0_2, parse_bundle
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import Finding
from sealflow.keys import PublicKey
from sealflow.policy import Identity
from sealflow.policy.identities import Refused
from sealflow.policy.requirement import Revocations
from sealflow.verification.opening import Opened


class Authentic(NamedTuple):
    """A piece of evidence whose signature holds.

    Attributes:
        item: The piece.
        bundle: Its bundle; the payload is what was signed. Empty for what was opened ahead.
        identities: Those whose key made the signature.
        key: That key.
        legacy: Whether it was signed in the encoding of model-signing 0.2.
    """

    item: StoredEvidence
    bundle: Bundle
    identities: tuple[Identity, ...]
    key: PublicKey
    legacy: bool = False


def authenticate(
    item: StoredEvidence,
    identities: Sequence[Identity],
    *,
    now: datetime.datetime,
    revoked: Revocations,
    unavailable: dict[object, Finding],
    legacy_limit: float = 0,
    opened: Opened | None = None,
) -> Authentic | tuple[Finding, ...]:
    """Return the piece when the signature of one of the identities holds, otherwise why it counts for nothing.

    Args:
        item: The piece of evidence.
        identities: Who may have signed.
        now: Time of the check, aware.
        revoked: Keys that count no longer.
        unavailable: Identities whose key cannot be had, with the finding that says so; filled here, and asked no second
            time: a key service that is down must not be waited for at every planted object.
        legacy_limit: Bytes of the largest payload for which the encoding of model-signing 0.2 is tried too; it spells
            each byte as text, up to four characters for one.
        opened: The same piece, opened ahead: its bundle is not parsed again, nor its signature checked again under the
            key under which it holds. Whether that key may speak is asked as ever.

    Returns:
        The piece, or refusals, one for each reason; none at all where only an identity that cannot be had could tell.
    """
    if item.altered:
        return (_refusal(item, "EVIDENCE_ALTERED", "The object's bytes are not those that its name promises."),)
    if item.problem:
        return (_refusal(item, "EVIDENCE_MALFORMED", item.problem),)
    try:
        bundle = parse_bundle(item.data) if opened is None else opened.bundle
        if bundle.keyless:
            message = "Keyless (Fulcio) bundles are not verified by this release."
            return (_refusal(item, "SIGNATURE_UNSUPPORTED", message),)
        return _hold(item, bundle, identities, now, revoked, unavailable, legacy_limit, opened and opened.key)
    except EvidenceError as error:
        return (_refusal(item, "EVIDENCE_MALFORMED", error.message),)


def _hold(
    item: StoredEvidence,
    bundle: Bundle,
    identities: Sequence[Identity],
    now: datetime.datetime,
    revoked: Revocations,
    unavailable: dict[object, Finding],
    legacy_limit: float,
    proved: str | None,
) -> Authentic | tuple[Finding, ...]:
    holding: list[Identity] = []
    key: PublicKey | None = None
    legacy = False
    refusals: list[tuple[Identity, Refused]] = []
    for identity in identities:
        if unavailable and identity in unavailable:
            continue
        if identity.expires is not None and now >= identity.expires:
            # No time that a signer wrote is believed, so nothing of an expired identity is.
            expired = identity.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
            refusals.append((identity, Refused("KEY_EXPIRED", "The identity has expired.", f"expired {expired}")))
            continue
        try:
            answer = identity.key_for(bundle, now)
        except (UnavailableError, MissingExtraError) as error:
            unavailable[identity] = Finding(
                error.code, "unverifiable", identity.name, error.message, next_step=error.next_step
            )
            continue
        if isinstance(answer, Refused):
            refusals.append((identity, answer))
            continue
        if proved is not None and proved != answer.hint:
            bundle, proved = parse_bundle(item.data), None
        holds, in_legacy = (True, False) if proved is not None else _verify(bundle, answer, legacy_limit)
        if holds and answer.hint in revoked.keys:
            reason = revoked.keys[answer.hint]
            refusals.append((identity, Refused("KEY_REVOKED", "The key is revoked.", f"{answer.hint}: {reason}")))
        elif holds:
            holding.append(identity)
            key, legacy = answer, in_legacy
        elif bundle.hint is None and not bundle.chain:
            refusals.append((identity, Refused("SIGNER_NOT_ALLOWED", "Not signed with the pinned key.", "no key hint")))
        else:
            refusals.append((identity, Refused("SIGNATURE_INVALID", "The signature does not fit the signed bytes.")))
    if key is not None:
        return Authentic(item, bundle, tuple(holding), key, legacy)
    return tuple(
        _refusal(item, refused.code, refused.message, refused.expected, refused.found, identity.name)
        for identity, refused in refusals
    )


def _verify(bundle: Bundle, key: PublicKey, legacy_limit: float) -> tuple[bool, bool]:
    if key.verify(bundle.signature, pae(bundle.payload)):
        return True, False
    if len(bundle.payload) > legacy_limit or not key.fits_oms:
        return False, False
    legacy = key.verify(bundle.signature, pae_of_model_signing_0_2(bundle.payload), legacy_sha256=True)
    return legacy, legacy


def _refusal(
    item: StoredEvidence, code: str, message: str, expected: str = "", found: str = "", rule: str = ""
) -> Finding:
    return Finding(code, "refusal", item.name, message, expected=expected, found=found, rule=rule)
