"""Sigstore bundles v0.3 around DSSE envelopes: the one container of every signature and attestation.

A bundle that we write holds exactly one signature. Readers get the signed bytes themselves; whatever is parsed is
parsed from them, after the signature was checked.

Sources: DSSE protocol v1.0; Sigstore bundle v0.3; OMS v1.0 sections 4 and 11.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.evidence.timestamp import MAX_TOKEN, MAX_TOKENS, Stamping
from sealflow.keys import KeySigner
from sealflow.keys.signer import signers_of

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

#: Largest bundle that is read, in bytes. A manifest of a million files has about 220 MB.
MAX_BUNDLE: Final = 256 << 20

# The manifest is one Base64 text, so a bundle of any size holds few values; log entries are the most of them.
_MAX_VALUES: Final = 10_000

# What make_bundle writes around the payload, the signature and the hint of a bare key.
_BEFORE: Final = b'{"dsseEnvelope":{"payload":"'
_BETWEEN: Final = b'","payloadType":"%s","signatures":[{"keyid":"","sig":"' % PAYLOAD_TYPE.encode()
_MATERIAL_OF_KEY: Final = b'"}]},"mediaType":"%s","verificationMaterial":{"publicKey":{"hint":"' % MEDIA_TYPE.encode()
_AFTER: Final = b'"},"tlogEntries":[]}}'
_HINT: Final = re.compile(rb"[0-9a-f]{64}")

_BUNDLE = frozenset({"mediaType", "verificationMaterial", "dsseEnvelope"})
_MATERIAL = frozenset({"publicKey", "x509CertificateChain", "certificate", "tlogEntries", "timestampVerificationData"})
_ENVELOPE = frozenset({"payload", "payloadType", "signatures"})
_SIGNATURE = frozenset({"sig", "keyid"})


def pae(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return the bytes that are signed: DSSE's Pre-Authentication Encoding (protocol.md v1.0)."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def pae_of_model_signing_0_2(payload: bytes) -> bytes:
    """Return what model-signing 0.2.0 signed instead: the text of a Python bytes literal, under another tag."""
    return f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} {payload!r}".encode()


class Bundle(NamedTuple):
    """A parsed bundle. Nothing in it has been checked but its form.

    Attributes:
        payload: The signed bytes.
        signature: The signature bytes.
        hint: ``publicKey.hint`` or ``None``.
        chain: DER certificates, leaf first; empty for a bare key.
        keyless: Whether it is a Fulcio bundle, which we recognise but do not verify.
        timestamps: RFC 3161 tokens over the signature, DER.
    """

    payload: bytes
    signature: bytes
    hint: str | None
    chain: tuple[bytes, ...]
    keyless: bool
    timestamps: tuple[bytes, ...] = ()


def make_bundle(payload: bytes, signer: KeySigner, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Sign a statement and return the bundle as canonical JSON.

    The payload type is signed too: nothing signed as one kind of document passes for another. The tlogEntries member is
    optional for keys and certificates, but older readers insist on it.

    Of two signers, while one key replaces another, the first makes it: a bundle has one signature.

    Raises:
        UnavailableError: The key service, or the timestamp authority of a :class:`Stamping`, does not answer.
    """
    if signer.certificates:
        chain = [{"rawBytes": base64.b64encode(der).decode("ascii")} for der in signer.certificates]
        material: dict[str, Any] = {"x509CertificateChain": {"certificates": chain}, "tlogEntries": []}
    else:
        material = {"publicKey": {"hint": signer.public_key.hint}, "tlogEntries": []}
    (signer, *_) = signers_of(signer)
    made = signer.sign(pae(payload, payload_type))
    signature = base64.b64encode(made).decode("ascii")
    if isinstance(signer, Stamping):
        token = base64.b64encode(signer.stamp(made)).decode("ascii")
        material["timestampVerificationData"] = {"rfc3161Timestamps": [{"signedTimestamp": token}]}
    return strictjson.dumps(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode("ascii"),
                "payloadType": payload_type,
                "signatures": [{"sig": signature, "keyid": ""}],
            },
        }
    )


def parse_bundle(data: bytes, payload_type: str = PAYLOAD_TYPE) -> Bundle:
    """Parse untrusted bytes as a bundle with one DSSE signature.

    Accepts what past releases of the reference implementation wrote (OMS v1.0 section 11.1): ``keyid`` absent, empty or
    null; ``tlogEntries`` absent; ``publicKey.rawBytes`` instead of ``hint``.

    Raises:
        EvidenceError: Anything else.
    """
    if payload_type == PAYLOAD_TYPE and (own := _own_form(data)) is not None:
        return own
    body = strictjson.loads(data, limit=MAX_BUNDLE, what="The bundle", most_values=_MAX_VALUES)
    if strictjson.member(body, "mediaType", str, "The bundle") != MEDIA_TYPE:
        raise EvidenceError(f"The bundle is not of the type {MEDIA_TYPE}.")
    strictjson.only_members(body, _BUNDLE, "The bundle")
    material = strictjson.member(body, "verificationMaterial", dict, "The bundle")
    strictjson.only_members(material, _MATERIAL, "verificationMaterial")
    envelope = strictjson.member(body, "dsseEnvelope", dict, "The bundle")
    strictjson.only_members(envelope, _ENVELOPE, "dsseEnvelope")
    if strictjson.member(envelope, "payloadType", str, "dsseEnvelope") != payload_type:
        raise EvidenceError(f"The envelope's payload is not of the type {payload_type}.")
    payload = strictjson.base64_bytes(strictjson.member(envelope, "payload", str, "dsseEnvelope"), "The payload")
    signatures = strictjson.member(envelope, "signatures", list, "dsseEnvelope")
    if len(signatures) != 1:
        raise EvidenceError(f"The envelope holds {len(signatures)} signatures; a bundle holds exactly one.")
    first = signatures[0]
    sig = strictjson.member(first, "sig", str, "The signature")
    strictjson.only_members(first, _SIGNATURE, "The signature")
    strictjson.member(first, "keyid", str, "The signature", required=False)
    hint, chain, keyless = _material(material)
    return Bundle(payload, strictjson.base64_bytes(sig, "The signature"), hint, chain, keyless, _timestamps(material))


def _own_form(data: bytes) -> Bundle | None:
    """Parse the very bytes that :func:`make_bundle` writes for a bare key; ``None`` for everything else.

    It is the form of nearly all evidence, and takes a third of the time so. Base64 and hex hold nothing that means
    something in JSON, so a JSON parser finds the same three texts.
    """
    if len(data) > MAX_BUNDLE or not (data.startswith(_BEFORE) and data.endswith(_AFTER)):
        return None
    payload, found, rest = data[len(_BEFORE) : -len(_AFTER)].partition(_BETWEEN)
    sig, also, hint = rest.partition(_MATERIAL_OF_KEY)
    if not (found and also and _HINT.fullmatch(hint)):
        return None
    try:
        texts = [strictjson.base64_bytes(item.decode("ascii"), "It") for item in (payload, sig)]
    except (EvidenceError, UnicodeDecodeError):
        return None
    return Bundle(texts[0], texts[1], hint.decode("ascii"), (), False)


def _timestamps(material: dict[str, Any]) -> tuple[bytes, ...]:
    what = "timestampVerificationData"
    data = strictjson.member(material, what, dict, "verificationMaterial", required=False)
    if not data:
        return ()
    strictjson.only_members(data, frozenset({"rfc3161Timestamps"}), what)
    listed = strictjson.member(data, "rfc3161Timestamps", list, what, required=False) or []
    if len(listed) > MAX_TOKENS:
        raise EvidenceError(f"The bundle carries {len(listed)} timestamps; {MAX_TOKENS} are accepted.")
    found = []
    for item in listed:
        text = strictjson.member(item, "signedTimestamp", str, "A timestamp")
        strictjson.only_members(item, frozenset({"signedTimestamp"}), "A timestamp")
        if len(text) > 2 * MAX_TOKEN:
            raise EvidenceError("A timestamp is too large.")
        found.append(strictjson.base64_bytes(text, "A timestamp"))
    return tuple(found)


def _material(material: dict[str, Any]) -> tuple[str | None, tuple[bytes, ...], bool]:
    given = [name for name in ("publicKey", "x509CertificateChain", "certificate") if material.get(name) is not None]
    if len(given) != 1:
        raise EvidenceError(
            "verificationMaterial must hold one of publicKey, x509CertificateChain and certificate, "
            f"found {', '.join(given) or 'none'}."
        )
    entries = strictjson.member(material, "tlogEntries", list, "verificationMaterial", required=False)
    content = strictjson.member(material, given[0], dict, "verificationMaterial")
    if given[0] == "certificate":
        if not entries:
            raise EvidenceError("A keyless bundle lacks its transparency log entry (tlogEntries).")
        return None, (), True
    if given[0] == "publicKey":
        hint = strictjson.member(content, "hint", str, "publicKey", required=False)
        # A key that stands in the bundle itself (rawBytes, before 1.1.0) proves nothing and is not looked at.
        return hint or None, (), False
    certificates = strictjson.member(content, "certificates", list, "x509CertificateChain")
    chain = tuple(
        strictjson.base64_bytes(strictjson.member(item, "rawBytes", str, "A certificate"), "A certificate")
        for item in certificates
    )
    if not chain:
        raise EvidenceError("x509CertificateChain holds no certificate.")
    return None, chain, False
