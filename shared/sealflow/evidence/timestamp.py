"""Timestamps of authorities that both sides trust (RFC 3161): asked for when signing, verified offline ever after.

A token says that its authority saw a digest at a time. Ours is over the bytes of a DSSE signature, and lies where the
Sigstore bundle has a place for it, so that stock tools still read the bundle:
``verificationMaterial.timestampVerificationData.rfc3161Timestamps[].signedTimestamp``, a DER ``TimeStampResp``.

``rfc3161-client`` parses and verifies; what it leaves open is judged here, rule by rule.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from sealflow.errors import EvidenceError, MissingExtraError, SealflowError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys import KeySigner, PublicKey
from sealflow.keys.signer import TwoSigners, signers_of

if TYPE_CHECKING:
    from cryptography import x509

#: Largest token in bytes, and most tokens in a bundle. One with its whole chain has 2 to 8 KiB.
MAX_TOKEN: Final = 64 << 10
MAX_TOKENS: Final = 4

#: Seconds that an authority has for its answer.
TIMEOUT: Final = 20.0

_QUERY: Final = "application/timestamp-query"
_REPLY: Final = "application/timestamp-reply"
_HASHES: Final = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
#: How far ahead an authority's clock may be.
SKEW: Final = datetime.timedelta(minutes=5)
#: How much later than the whole second that it writes a witness may have seen something, or an authority that states no
#: accuracy.
RESOLUTION: Final = datetime.timedelta(microseconds=999_999)
_MOST_CERTIFICATES: Final = 16


class Authority(NamedTuple):
    """One whose tokens are believed.

    Attributes:
        name: Its name in the policy.
        roots: PEM texts; its certificates must lead to one of them, and nothing else is trusted.
        url: Where it is asked; empty for one that is only believed.
    """

    name: str
    roots: tuple[str, ...] = ()
    url: str = ""


class Stamp(NamedTuple):
    """A token that holds.

    Attributes:
        time: When the authority saw the signature, aware.
        latest: The same with the accuracy that the token states, or to the end of its second: by then at the latest.
        authority: Its name.
    """

    time: datetime.datetime
    latest: datetime.datetime
    authority: str


def earliest_stamp(
    tokens: Sequence[bytes], signature: bytes, authorities: Sequence[Authority], now: datetime.datetime
) -> Stamp | str:
    """Return the earliest proved time of a signature, or why there is none.

    Args:
        tokens: What a bundle carries.
        signature: The signature's bytes, as the bundle carries them.
        authorities: Who is believed.
        now: The time of the check, aware.

    Raises:
        MissingExtraError: There is a token, and ``rfc3161-client`` is not installed.
    """
    if not tokens:
        return "no timestamp"
    if not authorities:
        return "a timestamp, and the policy names no authority whose tokens are believed"
    found: list[Stamp] = []
    problems: list[str] = []
    for token in tokens:
        for authority in authorities:
            try:
                found.append(check_token(token, signature, authority, now))
                break
            except EvidenceError as error:
                problems.append(f"{authority.name}: {error.message}")
    return min(found, key=lambda item: item.latest) if found else "; ".join(dict.fromkeys(problems))[:500]


def check_token(token: bytes, signature: bytes, authority: Authority, now: datetime.datetime) -> Stamp:
    """Return what a token proves.

    Args:
        token: DER ``TimeStampResp``.
        signature: What it should be over.
        authority: Whose it should be.
        now: The time, aware.

    Raises:
        EvidenceError: ``TIMESTAMP_INVALID``: it proves nothing, and why.
        MissingExtraError: ``rfc3161-client`` is not installed.
    """
    library = _library()
    with _strictly():
        answer = _parse(token)
        info = answer.tst_info
        _check_imprint(info, signature)
        # Two certificates by one name would let the library judge one of them and OpenSSL use the other.
        leaf = _signer(answer)
        _check_purpose(leaf)
        try:
            library.VerifierBuilder(roots=list(_roots(authority.roots))).build().verify_message(answer, signature)
        except library.VerificationError as error:
            raise _refused(f"it does not lead to the authority's roots: {printable(error, 160)}") from None
        time = info.gen_time.astimezone(datetime.timezone.utc)
        if not leaf.not_valid_before_utc <= time <= leaf.not_valid_after_utc:
            raise _refused("the authority's certificate was not valid when it signed")
        if time > now + SKEW:
            raise _refused(f"it is from the future, {time:%Y-%m-%dT%H:%M:%SZ}")
        return Stamp(time, time + _accuracy(info), authority.name)


def _library() -> Any:
    try:
        import rfc3161_client
    except ImportError:
        raise MissingExtraError("A timestamp (RFC 3161)", "timestamp") from None
    return rfc3161_client


def _refused(why: str) -> EvidenceError:
    return EvidenceError(f"The timestamp counts for nothing: {why}.", code="TIMESTAMP_INVALID")


@contextlib.contextmanager
def _strictly() -> Iterator[None]:
    """Turn whatever foreign parsers make of untrusted bytes into a refusal."""
    try:
        yield
    except SealflowError:
        raise
    except Exception:
        # Both libraries parse member by member as they are looked at, and say in many ways what they do not know.
        raise _refused("it is malformed") from None
    except BaseException as error:
        # What a library in Rust raises where it gives up; it is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise _refused("it is malformed") from None


def _parse(token: bytes) -> Any:
    if len(token) > MAX_TOKEN:
        raise _refused(f"it has more than {MAX_TOKEN} bytes")
    answer = _library().decode_timestamp_response(token)
    if answer.status != 0:
        raise _refused("the authority did not grant it")
    return answer


def _check_imprint(info: Any, signature: bytes) -> None:
    name = _HASHES.get(info.message_imprint.hash_algorithm.dotted_string)
    if name is None:
        raise _refused("its digest is none of SHA-256, SHA-384 and SHA-512")
    if info.message_imprint.message != hashlib.new(name, signature).digest():
        raise _refused("it is over other bytes than this signature")


def _signer(answer: Any) -> x509.Certificate:
    from cryptography import x509

    given = answer.signed_data.certificates
    signers = answer.signed_data.signer_infos
    if len(signers) != 1:
        raise _refused(f"it has {len(signers)} signers, not one")
    if not 1 <= len(given) <= _MOST_CERTIFICATES:
        raise _refused(f"it carries {len(given)} certificates")
    (signer,) = signers
    parsed = [x509.load_der_x509_certificate(der) for der in given]
    mine = [item for item in parsed if (item.issuer, item.serial_number) == (signer.issuer, signer.serial_number)]
    if len(mine) != 1:
        raise _refused(f"{len(mine)} of its certificates go by the signer's name, not one")
    return mine[0]


def _check_purpose(leaf: x509.Certificate) -> None:
    """RFC 3161 section 2.3: the key is for this alone, and its certificate says so in a critical extension."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        raise _refused("its signer's certificate is not one for timestamps") from None
    if not purposes.critical or list(purposes.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise _refused("its signer's certificate is not one for timestamps alone (critical timeStamping)")


@functools.lru_cache(maxsize=64)
def _roots(sources: tuple[str, ...]) -> tuple[x509.Certificate, ...]:
    from sealflow.keys.certificate import load_certificates

    return tuple(dict.fromkeys(item for source in sources for item in load_certificates(source)))


def _accuracy(info: Any) -> datetime.timedelta:
    stated = info.accuracy
    if stated is None:
        return RESOLUTION
    return datetime.timedelta(
        seconds=stated.seconds or 0, milliseconds=stated.millis or 0, microseconds=stated.micros or 0
    )


class Stamping:
    """A signer whose signatures an authority stamps. Its place in the bundle is for whoever makes that.

    Args:
        signer: The signer.
        authority: Who stamps; with roots what it answers is verified like any other token.
    """

    def __init__(self, signer: KeySigner, authority: Authority) -> None:
        check_url(authority.url)
        _library()
        self._signer = signer
        self.authority = authority
        self.uri: str = signer.uri
        self.public_key: PublicKey = signer.public_key
        self.certificates: tuple[bytes, ...] = signer.certificates

    def sign(self, data: bytes) -> bytes:
        """See :class:`~sealflow.keys.KeySigner`."""
        return self._signer.sign(data)

    def stamp(self, signature: bytes) -> bytes:
        """Return a token over a signature.

        Raises:
            UnavailableError: The authority cannot be reached, or its answer is no token over this signature.
        """
        return request_token(self.authority, signature)


def stamping(signer: KeySigner, authority: Authority) -> KeySigner:
    """Return a signer whose every signature is stamped, that of a second key during a rotation as well.

    Raises:
        UsageError: The authority's address is none.
        MissingExtraError: ``rfc3161-client`` is not installed.
    """
    made = [Stamping(each, authority) for each in signers_of(signer)]
    return TwoSigners(*made) if len(made) == 2 else made[0]


def check_url(url: str) -> None:
    """Refuse what is no address of an authority.

    Raises:
        UsageError: Not ``http:`` or ``https:`` with a host, or with credentials in it.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None and url.isascii()
        _ = parts.port
    except ValueError:
        sound = False
    if not sound or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise UsageError(
            f"{printable(url, 100)!r} is no address of a timestamp authority.",
            next_step="Write http://… or https://…, without credentials; or the name of an authority of the policy.",
        )


def request_token(authority: Authority, signature: bytes) -> bytes:
    """Ask an authority for a token over a signature, and return its answer once it was verified.

    Raises:
        UnavailableError: It cannot be reached, refuses, or answers with what proves nothing.
        MissingExtraError: ``rfc3161-client`` is not installed.
    """
    import http.client

    # Only who asks for a token needs what speaks HTTP.
    from sealflow.post import post

    library = _library()
    where = f"The timestamp authority at {printable(authority.url)}"
    request = library.TimestampRequestBuilder().data(signature).hash_algorithm(library.HashAlgorithm.SHA256).build()
    try:
        answer = post(authority.url, request.as_bytes(), {"Content-Type": _QUERY}, seconds=TIMEOUT, limit=MAX_TOKEN)
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"{where} cannot be reached: {printable(error, 120)}.") from None
    if answer.status != 200 or answer.kind != _REPLY:
        raise UnavailableError(f"{where} answers with status {answer.status} and {printable(answer.kind, 60)!r}.")
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        with _strictly():
            token = _parse(answer.data)
            _check_imprint(token.tst_info, signature)
            if token.tst_info.nonce != request.nonce:
                raise _refused("it answers another request")
        if authority.roots:
            check_token(answer.data, signature, authority, now)
    except EvidenceError as error:
        raise UnavailableError(f"{where} gave no token that could be used. {error.message}") from None
    return answer.data
