"""What pieces of evidence say of a compromise: which artifact each is about, who signed it, from what it was made.

Whether a key is revoked or expired plays no part: what a stolen key signed is just what is looked for. Nor does the
place where a piece is filed: the signed statement says which artifact it is about, and is as true elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from sealflow.errors import EvidenceError, SealflowError, UnavailableError
from sealflow.evidence import encryption, oms, promotion, provenance
from sealflow.evidence.bundle import Bundle, pae, pae_of_model_signing_0_2, parse_bundle
from sealflow.evidence.own_provenance import read_own_form
from sealflow.evidence.provenance import parse_dependencies, parse_digest_set, parse_provenance
from sealflow.evidence.statement import Statement, parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import CODES, Finding, printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import PublicKey, certificate
from sealflow.policy.identities import CertificateIdentity, Identity, KeyIdentity, Refused

#: Largest payload for which the encoding of model-signing 0.2 is tried too, in bytes; see ``authenticate``.
_LEGACY: Final = 1 << 20
#: Most keys that are tried for a bundle that names none.
_MAX_TRIED: Final = 64
#: Most different certificate chains whose holders are remembered.
_MAX_CHAINS: Final = 10_000
#: How a bundle of a bare key ends that we wrote.
_TAIL: Final = re.compile(rb'"publicKey":\{"hint":"([0-9a-f]{64})"\},"tlogEntries":\[\]\}\}\Z')
_TAIL_LENGTH: Final = 112
#: What ``cryptography`` raises for certificates that are not what they should be.
_MALFORMED: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Held(NamedTuple):
    """Who signed a bundle.

    Attributes:
        key: Fingerprint of the key under which it verifies, in hex; empty where it verifies under none that is known.
        claimed: Fingerprint of the key that it names.
        identities: Those who are known to hold the key.
        marks: What this was surely signed with: the key, the keys of the authorities above it as far as each vouches
            for the one below, and under a known root the names of the certificate.
        hints: What it says so of itself and does not prove.
    """

    key: str
    claimed: str
    identities: tuple[Identity, ...] = ()
    marks: frozenset[str] = frozenset()
    hints: frozenset[str] = frozenset()

    @property
    def doubted(self) -> Held:
        """The same, as far as nobody can say whether it is about this artifact."""
        return self._replace(key="", marks=frozenset(), hints=self.marks | self.hints)


class Said(NamedTuple):
    """What one piece of evidence says about one artifact.

    Attributes:
        about: The artifact, as it is stated.
        held: Who signed it.
        believed: Whether it verifies under the key of somebody who may say this.
        evidence: Where it lies, for messages.
        kind: Kind of the statement: ``signature``, ``provenance``, ``encryption``, ``promotion``, ``other``.
        name: Logical name.
        producer: Producer.
        run: Invocation id.
        when: When, as the signer claims.
        inputs: Artifacts that it was made from.
        places: Where it or an input is said to lie, with the digest of which.
    """

    about: Digest
    held: Held
    believed: bool
    evidence: str
    kind: str
    name: str = ""
    producer: str = ""
    run: str = ""
    when: str = ""
    inputs: tuple[tuple[Digest, str], ...] = ()
    places: tuple[tuple[Digest, str], ...] = ()


class Signers:
    """All whose keys are known.

    Args:
        identities: Identities, whatever has expired.
        keys: Keys that no identity needs to have, such as the stolen one.

    Attributes:
        findings: Identities whose key cannot be had.
    """

    def __init__(self, identities: Iterable[Identity], keys: Iterable[PublicKey] = ()) -> None:
        self.findings: list[Finding] = []
        self._keys: dict[str, tuple[PublicKey, list[Identity]]] = {key.hint: (key, []) for key in keys}
        self._certificates: list[CertificateIdentity] = []
        self._chains: dict[tuple[bytes, ...], _Chain] = {}
        for identity in identities:
            if isinstance(identity, CertificateIdentity):
                self._certificates.append(identity)
            elif isinstance(identity, KeyIdentity):
                try:
                    key = identity.public_key
                except SealflowError as error:
                    code = error.code if error.code in CODES else "BACKEND_UNAVAILABLE"
                    message = f"What it signed cannot be verified. {error.message}"
                    self.findings.append(Finding(code, "unverifiable", identity.name, message))
                    continue
                self._keys.setdefault(key.hint, (key, []))[1].append(identity)

    def knows(self, fingerprint: str) -> bool:
        """Tell whether the key of this fingerprint is at hand."""
        return fingerprint in self._keys

    def hold(self, bundle: Bundle) -> Held:
        """Return who signed a bundle.

        Raises:
            EvidenceError: Its certificates are malformed.
        """
        if bundle.chain:
            chain = self._certified(bundle)
            held = _verifies(bundle, chain.key)
            marks, hints = (chain.marks, chain.hints) if held else (frozenset[str](), chain.marks | chain.hints)
            return Held(chain.key.hint if held else "", chain.key.hint, chain.identities, marks, hints)
        if bundle.hint is not None:
            found = self._keys.get(bundle.hint)
            if found is None or not _verifies(bundle, found[0]):
                return Held("", bundle.hint, hints=frozenset({bundle.hint}))
            return Held(bundle.hint, bundle.hint, tuple(found[1]), frozenset({bundle.hint}))
        for hint, (tried, named) in list(self._keys.items())[:_MAX_TRIED]:
            if _verifies(bundle, tried):
                return Held(hint, hint, tuple(named), frozenset({hint}))
        return Held("", "")

    def _certified(self, bundle: Bundle) -> _Chain:
        known = self._chains.get(bundle.chain)
        if known is None:
            if len(self._chains) >= _MAX_CHAINS:
                self._chains.clear()
            try:
                known = self._chains[bundle.chain] = self._chain(bundle)
            except (SealflowError, *_MALFORMED) as error:
                raise EvidenceError(f"The certificate chain holds what cannot be read. {error}") from None
        return known

    def _chain(self, bundle: Bundle) -> _Chain:
        chain = certificate.parse_chain(bundle.chain)
        leaf = chain[0]
        # At a time at which it was valid: since when it is not says nothing of what it signed.
        then = leaf.not_valid_before_utc
        holding: list[Identity] = []
        anchored = False
        above: set[str] = set()
        for identity in self._certificates:
            try:
                refused = identity.key_for(bundle, then)
                roots = [item for source in identity.roots for item in certificate.load_certificates(source)]
                if not isinstance(refused, Refused):
                    holding.append(identity)
                certificate.check_chain(chain, roots, then)
            except certificate.CertificateError:
                continue
            except UnavailableError as error:
                message = f"What it signed cannot be verified. {error.message}"
                self.findings.append(Finding("BACKEND_UNAVAILABLE", "unverifiable", identity.name, message))
                continue
            anchored = True
            above |= {_fingerprint(root) for root in roots if _vouches(root, chain[-1]) or root == chain[-1]}
        prints = [_fingerprint(item) for item in chain]
        sure = 1
        while sure < len(chain) and _vouches(chain[sure], chain[sure - 1]):
            sure += 1
        found = certificate.names(leaf)
        names = {f"subject:{found.subject}", *found.alternative}
        marks = {*prints[:sure], *above, *(names if anchored else ())}
        return _Chain(
            PublicKey(leaf.public_key()), tuple(holding), frozenset(marks), frozenset({*prints, *names} - marks)
        )


class _Chain(NamedTuple):
    """What a certificate chain comes to, whatever is signed with it."""

    key: PublicKey
    identities: tuple[Identity, ...]
    marks: frozenset[str]
    hints: frozenset[str]


def _fingerprint(item: x509.Certificate) -> str:
    return sha256_hex(certificate.public_pem(item))


def _vouches(authority: x509.Certificate, item: x509.Certificate) -> bool:
    try:
        item.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, *_MALFORMED):
        return False
    return True


def _verifies(bundle: Bundle, key: PublicKey) -> bool:
    if key.verify(bundle.signature, pae(bundle.payload)):
        return True
    if len(bundle.payload) > _LEGACY or not key.fits_oms:
        return False
    return key.verify(bundle.signature, pae_of_model_signing_0_2(bundle.payload), legacy_sha256=True)


def hear(item: StoredEvidence, filed: Digest | None, signers: Signers, asked: Collection[str] = ()) -> list[Said]:
    """Return what a piece of evidence says, whoever says it.

    Args:
        item: The piece.
        filed: The artifact under which it is filed; ``None`` for an encrypted message.
        signers: Whose keys are known.
        asked: Fingerprints in hex and names of certificates that are asked about.

    Raises:
        EvidenceError: It cannot be read, so nobody knows what it says.
    """
    if item.problem:
        raise EvidenceError(item.problem)
    if item.kind == "signature" and not item.altered:
        # Half of all evidence in most stores: whose it is stands at its end, as we write it.
        tail = _TAIL.search(item.data, len(item.data) - _TAIL_LENGTH) if len(item.data) > _TAIL_LENGTH else None
        if tail is not None and tail[1].decode("ascii") not in asked:
            return []
    bundle = parse_bundle(item.data)
    if bundle.keyless:
        raise EvidenceError("Keyless (Fulcio) bundles are not verified by this release.", code="SIGNATURE_UNSUPPORTED")
    if item.kind == "signature" and bundle.hint is not None and bundle.hint not in asked:
        return []  # another's, and no verifier looks for anything but a signature in it
    held = signers.hold(bundle)
    where = f"{filed.path_segment}/{item.name}" if filed is not None else item.name
    own = read_own_form(bundle.payload)
    if own is None:
        statement = parse_statement(bundle.payload)
        if statement.predicate_type != provenance.PREDICATE_TYPE:
            return _hear_other(statement, held, where, filed)
        said = parse_provenance(statement)
        inputs = parse_dependencies(said)
    else:
        said, inputs = own
    believed = bool(held.key) and any(one.may_speak_for(said.producer, said.builder) for one in held.identities)
    return [
        Said(
            said.digest,
            held,
            believed,
            where,
            "provenance",
            said.name,
            said.producer,
            # Whoever has no run has an invocation in common with all who have none.
            said.invocation if said.invocation != said.producer else "",
            said.finished_on,
            tuple([(used.digest, used.name) for used in inputs]),
            tuple([(used.digest, used.uri) for used in inputs if used.uri]),
        )
    ]


def _hear_other(statement: Statement, held: Held, where: str, filed: Digest | None) -> list[Said]:
    believed = bool(held.key and held.identities)
    if statement.predicate_type in (oms.PREDICATE_TYPE, oms.LEGACY_PREDICATE_TYPE):
        manifest = oms.parse_oms_statement(statement)
        both = (manifest.artifact_digest("file"), manifest.artifact_digest("tree"))
        follow = [digest for digest in both if digest is not None]
        if filed in follow:
            follow = [item for item in follow if item == filed]
        if not follow and filed is not None:
            # From digests of parts none follows for the whole: only bytes could say whether it is filed rightly.
            return [Said(filed, held.doubted, False, where, "signature")]
        # A signature over one file does not say whether it is of the file or of a folder that holds it alone.
        sure = follow[:1]
        return [Said(item, held if item in sure else held.doubted, believed, where, "signature") for item in follow]
    if statement.predicate_type == encryption.PREDICATE_TYPE:
        made = encryption.parse_encryption(statement)
        return [Said(made.artifact, held, believed, where, "encryption", producer=made.producer, when=made.finished_on)]
    places: tuple[str, ...] = ()
    if statement.predicate_type == promotion.PREDICATE_TYPE:
        stated = [statement.predicate.get(name) for name in ("source", "destination")]
        places = tuple(printable(text, 4096) for text in stated if isinstance(text, str) and text)
    found: list[Said] = []
    for subject in statement.subjects:
        try:
            about = parse_digest_set(subject.digests)
        except EvidenceError:
            continue  # about something that is no artifact of ours
        kind = "promotion" if statement.predicate_type == promotion.PREDICATE_TYPE else "other"
        found.append(Said(about, held, believed, where, kind, places=tuple((about, place) for place in places)))
    return found
