"""Who signed a piece of evidence: the first question about each, whatever it says.

Nothing in a payload is parsed here; that is for after the signature was checked.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from sealflow.errors import EvidenceError, MissingExtraError, UnavailableError
from sealflow.evidence.bundle import Bundle, pae, pae_of_model_signing_0_2, parse_bundle
from sealflow.evidence.store import StoredEvidence
from sealflow.evidence.timestamp import Authority, Stamp
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.findings import Finding
from sealflow.keys import PublicKey
from sealflow.policy import Identity
from sealflow.policy.identities import Refused
from sealflow.policy.requirement import Revocations
from sealflow.verification.revoked import Entry, revocation_of
from sealflow.verification.trusted_time import TrustedTime

if TYPE_CHECKING:
    from sealflow.verification.opening import Opened

#: What may be otherwise at the time of a timestamp. A chain can be broken by an authority's certificate that expired.
_OUT_OF_TIME: Final = frozenset(
    {"KEY_EXPIRED", "KEY_NOT_YET_VALID", "CERTIFICATE_EXPIRED", "CERTIFICATE_NOT_YET_VALID", "CERTIFICATE_UNTRUSTED"}
)


class Authentic(NamedTuple):
    """A piece of evidence whose signature holds.

    Attributes:
        item: The piece.
        bundle: Its bundle; the payload is what was signed. Empty for what was opened ahead.
        identities: Those whose key made the signature.
        key: That key.
        legacy: Whether it was signed in the encoding of model-signing 0.2.
        stamp: By when an authority saw the signature; ``None`` where none did, or it made no difference.
        unstamped: Why there is none, where it was asked for.
        notes: What a verdict must say of the signer: that he counts only for what he signed in time.
    """

    item: StoredEvidence
    bundle: Bundle
    identities: tuple[Identity, ...]
    key: PublicKey
    legacy: bool = False
    stamp: datetime.datetime | None = None
    unstamped: str = ""
    notes: tuple[Finding, ...] = ()


def authenticate(
    item: StoredEvidence,
    identities: Sequence[Identity],
    *,
    now: datetime.datetime,
    revoked: Revocations,
    unavailable: dict[object, Finding],
    authorities: Sequence[Authority | WitnessedLog] = (),
    stamped: bool = False,
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
        authorities: Whose word about time is believed.
        stamped: Whether a rule asks for a timestamp, so that it is looked at in any case.
        legacy_limit: Bytes of the largest payload for which the encoding of model-signing 0.2 is tried too; it spells
            each byte as text, up to four characters for one.
        opened: The same piece, opened ahead: its bundle is not parsed again, nor its signature checked again under the
            key under which it holds. Whether that key may speak is asked as ever.

    Returns:
        The piece, or refusals, one for each reason; none at all where only an identity that cannot be had could tell.
        One of severity ``unverifiable`` where only a timestamp could tell, and the library is missing that reads it.
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
        time = TrustedTime(item, bundle, authorities, now, revoked)
        return _hold(
            item, bundle, identities, now, revoked, unavailable, legacy_limit, opened and opened.key, time, stamped
        )
    except MissingExtraError as error:
        text = f"Only its timestamp could say whether it counts. {error.message}"
        return (Finding(error.code, "unverifiable", item.name, text, next_step=error.next_step),)
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
    time: TrustedTime,
    stamped: bool,
) -> Authentic | tuple[Finding, ...]:
    holding: list[Identity] = []
    key: PublicKey | None = None
    legacy = False
    refusals: list[tuple[Identity, Refused]] = []
    notes: list[Finding] = []
    unread: MissingExtraError | None = None
    for identity in identities:
        if unavailable and identity in unavailable:
            continue
        try:
            answer, stamp = _key_of(identity, bundle, now, time)
            if isinstance(answer, Refused):
                refusals.append((identity, answer))
                continue
            if proved is not None and proved != answer.hint:
                bundle, proved = parse_bundle(item.data), None
            holds, in_legacy = (True, False) if proved is not None else _verify(bundle, answer, legacy_limit)
            entry = revocation_of(answer.hint, bundle, revoked) if holds else None
            late = _too_late(entry, identity, bundle, time) if entry is not None else None
        except UnavailableError as error:
            unavailable[identity] = Finding(
                error.code, "unverifiable", identity.name, error.message, next_step=error.next_step
            )
            continue
        except MissingExtraError as error:
            # Somebody else may have signed it, of whom no timestamp needs to tell.
            unread = error
            continue
        if late is not None:
            refusals.append((identity, late))
        elif holds:
            # Where it counts by its timestamp a note says so, and nobody takes the key for another piece's.
            if entry is not None and time.stamp is not None:
                notes.append(_in_time(item, identity, entry, time.stamp))
            elif stamp is not None:
                notes.append(_while_valid(item, identity, stamp))
            holding.append(identity)
            key, legacy = answer, in_legacy
        elif bundle.hint is None and not bundle.chain:
            refusals.append((identity, Refused("SIGNER_NOT_ALLOWED", "Not signed with the pinned key.", "no key hint")))
        else:
            refusals.append((identity, Refused("SIGNATURE_INVALID", "The signature does not fit the signed bytes.")))
    if key is not None:
        asked = stamped or bool(notes)
        stamp = time.stamp if asked else None
        unstamped = time.problem if asked else ""
        return Authentic(item, bundle, tuple(holding), key, legacy, stamp and stamp.latest, unstamped, tuple(notes))
    if unread is not None:
        raise unread
    return tuple(
        _refusal(item, refused.code, refused.message, refused.expected, refused.found, identity.name)
        for identity, refused in refusals
    )


def _key_of(
    identity: Identity, bundle: Bundle, now: datetime.datetime, time: TrustedTime
) -> tuple[PublicKey | Refused, Stamp | None]:
    """Return the key under which a bundle must verify: by now, or else by the time at which it was stamped.

    With it the stamp by which it was judged, ``None`` where it counts by now.
    """
    try:
        found = identity.outside_window(now) or identity.key_for(bundle, now)
    except MissingExtraError as error:
        # Of the identity's own key: no other piece of evidence can be judged by it either.
        raise UnavailableError(error.message, code=error.code, next_step=error.next_step) from None
    if not isinstance(found, Refused) or found.code not in _OUT_OF_TIME or not time.given:
        return found, None
    stamp = time.stamp
    if stamp is None:
        return found._replace(found=f"{found.found}; {time.problem}".lstrip("; ")), None
    return _then(identity, bundle, stamp), stamp


def _then(identity: Identity, bundle: Bundle, stamp: Stamp) -> PublicKey | Refused:
    """Return the key under which a bundle had to verify when it was stamped."""
    return identity.outside_window(stamp.time) or identity.key_for(bundle, stamp.time)


def _too_late(entry: Entry, identity: Identity, bundle: Bundle, time: TrustedTime) -> Refused | None:
    """Return why nothing counts that a revoked signer made, ``None`` where it was seen before."""
    revoked = entry.revoked
    said = f"{entry.subject}: {revoked.reason}"
    since = f"{revoked.since.astimezone(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    if entry.final:
        return Refused("KEY_REVOKED", "An authority above the signer is revoked.", said, "another authority")
    wanted = f"a timestamp from before {since}"
    if not time.given:
        return Refused("KEY_REVOKED", "The signer is revoked.", said, wanted)
    stamp = time.stamp
    if stamp is None:
        return Refused("KEY_REVOKED", "The signer is revoked.", f"{said}; {time.problem}", wanted)
    stamped = f"{said}; seen by {stamp.authority} at {stamp.time:%Y-%m-%dT%H:%M:%SZ}"
    if stamp.latest >= revoked.since and time.unread is not None:
        raise time.unread
    if stamp.latest >= revoked.since:
        return Refused("KEY_REVOKED", "The signer was revoked before it was signed.", stamped, wanted)
    if isinstance(then := _then(identity, bundle, stamp), Refused):
        # A certificate from after the revocation would be good for a signature of anybody, stamped in advance.
        text = "The signer is revoked, and was not one yet when it was signed."
        return Refused("KEY_REVOKED", text, f"{stamped}; {then.message}", wanted)
    return None


def _while_valid(item: StoredEvidence, identity: Identity, stamp: Stamp) -> Finding:
    return Finding(
        "SIGNED_IN_TIME",
        "note",
        item.name,
        f"The signer is out of its time by now; {stamp.authority} saw the signature before.",
        found=f"{stamp.time:%Y-%m-%dT%H:%M:%SZ}",
        rule=identity.name,
    )


def _in_time(item: StoredEvidence, identity: Identity, entry: Entry, stamp: Stamp) -> Finding:
    subject, revoked, _ = entry
    return Finding(
        "SIGNED_BEFORE_REVOCATION",
        "warning",
        item.name,
        f"The signer was revoked later; {stamp.authority} saw the signature before.",
        expected=f"before {revoked.since.astimezone(datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        found=f"{stamp.time:%Y-%m-%dT%H:%M:%SZ}; {subject}: {revoked.reason}",
        rule=identity.name,
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
