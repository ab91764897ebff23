"""Tokens of timestamp authorities: one that is sound, and all that is wrong with the others."""

from __future__ import annotations

import base64
import datetime
import json
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from sealflow.errors import EvidenceError, MissingExtraError, UnavailableError, UsageError
from sealflow.evidence import timestamp
from sealflow.evidence.bundle import make_bundle, pae, parse_bundle
from sealflow.evidence.timestamp import (
    Authority,
    check_token,
    check_url,
    earliest_stamp,
    request_token,
    stamping,
)
from sealflow.keys import load_signer
from sealflow.keys.signer import TwoSigners, split_authority, stamped_by
from tests.pki import DAY, NOW, certify, write_key
from tests.servers.timestamp_authority import TimestampAuthority, leaf, rewritten

SIGNATURE = b"the bytes of a signature"
SOON = datetime.timedelta(minutes=10)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TimestampAuthority:
    return TimestampAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def sound(authority: TimestampAuthority) -> bytes:
    return authority.token(SIGNATURE)


def trusted(authority: TimestampAuthority, name: str = "company") -> Authority:
    return Authority(name, tuple(authority.roots))


def test_a_sound_token(authority: TimestampAuthority, sound: bytes) -> None:
    found = check_token(sound, SIGNATURE, trusted(authority), now())
    assert found.authority == "company"
    assert abs(found.time - now()) < SOON
    assert found.latest - found.time == datetime.timedelta(seconds=1)


@pytest.mark.parametrize("accuracy", ["secs:60", "secs:1, millisecs:500, microsecs:100"])
def test_its_accuracy_counts_against_it(tmp_path: Path, accuracy: str) -> None:
    other = TimestampAuthority(tmp_path, accuracy=accuracy)
    found = check_token(other.token(SIGNATURE), SIGNATURE, trusted(other), now())
    assert found.latest - found.time in (
        datetime.timedelta(seconds=60),
        datetime.timedelta(seconds=1, microseconds=500_100),
    )


# --- Forged ---


def _of(tmp_path: Path, **knobs: object) -> TimestampAuthority:
    """An authority whose root is trusted and whose signer is odd."""
    root = certify("stamps root", ca=True)
    between = certify("stamps between", root, ca=True)
    return TimestampAuthority(tmp_path, root, (between,), leaf(between, **knobs))  # type: ignore[arg-type]


def _by_a_signer_of_code(tmp_path: Path) -> tuple[TimestampAuthority, TimestampAuthority]:
    """The authority's own CA also made a certificate for somebody else, who issues one for stamps."""
    root = certify("stamps root", ca=True)
    between = certify("stamps between", root, ca=True)
    somebody = certify("signer of code", between)
    honest = TimestampAuthority(tmp_path / "honest", root, (between,))
    return honest, TimestampAuthority(tmp_path / "forged", root, (somebody, between), leaf(somebody))


def _own_root(tmp_path: Path) -> tuple[TimestampAuthority, TimestampAuthority]:
    """Same names, other keys."""
    return TimestampAuthority(tmp_path / "honest"), TimestampAuthority(tmp_path / "forged")


def _own_root_and_the_true_one(tmp_path: Path) -> tuple[TimestampAuthority, TimestampAuthority]:
    """The token brings the trusted root along, and is signed under another."""
    honest = TimestampAuthority(tmp_path / "honest")
    root = certify("stamps root", ca=True)
    between = certify("stamps between", root, ca=True)
    chain = (between, root, honest.root, *honest.between)
    return honest, TimestampAuthority(tmp_path / "forged", root, chain, leaf(between))


def _two_certificates_by_one_name(tmp_path: Path) -> tuple[TimestampAuthority, TimestampAuthority]:
    """One that the CA made for other purposes, and one that says it is for stamps and that nobody issued."""
    root = certify("stamps root", ca=True)
    between = certify("stamps between", root, ca=True)
    key = ec.generate_private_key(ec.SECP256R1())
    genuine = leaf(between, "tls server", purposes=(ExtendedKeyUsageOID.SERVER_AUTH,), serial=77, key=key)
    stranger = certify("stamps between", ca=True)
    faked = leaf(stranger, "tls server", serial=77, key=key)
    honest = TimestampAuthority(tmp_path / "honest", root, (between,))
    return honest, TimestampAuthority(tmp_path / "forged", root, (genuine, between), faked)


FORGED: dict[str, Callable[[Path], tuple[TimestampAuthority, TimestampAuthority]]] = {
    "another-root-of-the-same-name": _own_root,
    "another-root-and-the-true-one": _own_root_and_the_true_one,
    "issued-by-a-signer-of-code": _by_a_signer_of_code,
    "two-certificates-by-one-name": _two_certificates_by_one_name,
    "for-tls": lambda p: (_of(p, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,)),) * 2,
    "for-code": lambda p: (_of(p, purposes=(ExtendedKeyUsageOID.CODE_SIGNING,)),) * 2,
    "for-anything": lambda p: (_of(p, purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)),) * 2,
    "for-stamps-and-more": lambda p: (
        (_of(p, purposes=(ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING)),) * 2
    ),
    "not-critical": lambda p: (_of(p, critical=False),) * 2,
    "no-purpose": lambda p: (_of(p, purposes=()),) * 2,
    "expired-when-it-signed": lambda p: (_of(p, valid_from=NOW - 9 * DAY, valid_to=NOW - DAY),) * 2,
    "not-valid-when-it-signed": lambda p: (_of(p, valid_from=NOW + DAY),) * 2,
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token(tmp_path: Path, make: Callable[[Path], tuple[TimestampAuthority, TimestampAuthority]]) -> None:
    honest, forger = make(tmp_path)
    token = _unchecked(forger)
    for _ in range(8):  # sets have no order
        with pytest.raises(EvidenceError) as caught:
            check_token(token, SIGNATURE, trusted(honest), now())
        assert caught.value.code == "TIMESTAMP_INVALID"
        assert "malformed" not in caught.value.message, "it never came to the question"


def _unchecked(forger: TimestampAuthority) -> bytes:
    """OpenSSL's program refuses to sign with an unfit certificate: sign with a fit one, and put the other in place."""
    assert forger.signer is not None
    theirs = forger.signer.certificate
    fit = leaf(forger.between[0], serial=theirs.serial_number, key=forger.signer.key)
    try:
        token = forger.token(SIGNATURE)
    except AssertionError:
        token = TimestampAuthority(forger.folder / "fit", forger.root, forger.between, fit).token(SIGNATURE)
    old = fit.certificate.public_bytes(Encoding.DER)
    return rewritten(token, old, theirs.public_bytes(Encoding.DER), theirs.public_bytes(Encoding.DER))


def test_a_token_over_other_bytes(authority: TimestampAuthority, sound: bytes) -> None:
    with pytest.raises(EvidenceError, match="other bytes"):
        check_token(sound, SIGNATURE + b"!", trusted(authority), now())


def test_a_token_from_the_future(authority: TimestampAuthority, sound: bytes) -> None:
    with pytest.raises(EvidenceError, match="future"):
        check_token(sound, SIGNATURE, trusted(authority), now() - SOON)


def test_a_token_outlives_its_authoritys_certificates(authority: TimestampAuthority, sound: bytes) -> None:
    assert check_token(sound, SIGNATURE, trusted(authority), now() + 4000 * DAY).authority == "company"


@pytest.mark.parametrize("size", [0, 1, 100, timestamp.MAX_TOKEN + 1])
def test_what_is_no_token(authority: TimestampAuthority, size: int) -> None:
    for data in (b"\x30" * size, b"\x00" * size, random.Random(size).randbytes(size)):
        with pytest.raises(EvidenceError):
            check_token(data, SIGNATURE, trusted(authority), now())


def test_a_changed_token_says_nothing_else(authority: TimestampAuthority, sound: bytes) -> None:
    """What still passes is changed where nothing is said: in a certificate that is not used, in a status text."""
    told = check_token(sound, SIGNATURE, trusted(authority), now())
    rnd = random.Random(7)
    refused = 0
    for _ in range(600):
        data = bytearray(sound)
        data[rnd.randrange(len(data))] ^= 1 << rnd.randrange(8)
        try:
            assert check_token(bytes(data), SIGNATURE, trusted(authority), now()) == told
        except EvidenceError:
            refused += 1
    assert refused > 300


def test_a_refusal_is_no_token(authority: TimestampAuthority) -> None:
    """PKIStatus 2 (rejection) carries no token; OpenSSL gives it for garbage."""
    with pytest.raises(EvidenceError):
        check_token(bytes.fromhex("30053003020102"), SIGNATURE, trusted(authority), now())


class TestEarliest:
    """Which of several tokens counts."""

    def test_none(self, authority: TimestampAuthority) -> None:
        assert earliest_stamp([], SIGNATURE, [trusted(authority)], now()) == "no timestamp"

    def test_nobody_is_believed(self, sound: bytes) -> None:
        assert "no authority" in str(earliest_stamp([sound], SIGNATURE, [], now()))

    def test_bad_ones_take_nothing_away(self, authority: TimestampAuthority, sound: bytes) -> None:
        found = earliest_stamp([b"junk", sound, b""], SIGNATURE, [Authority("x", ()), trusted(authority)], now())
        assert isinstance(found, timestamp.Stamp)

    def test_only_bad_ones(self, authority: TimestampAuthority) -> None:
        assert "malformed" in str(earliest_stamp([b"junk"], SIGNATURE, [trusted(authority)], now()))


def test_without_the_library(authority: TimestampAuthority, sound: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rfc3161_client", None)
    with pytest.raises(MissingExtraError) as caught:
        check_token(sound, SIGNATURE, trusted(authority), now())
    assert "sealflow[timestamp]" in caught.value.next_step
    with pytest.raises(MissingExtraError):
        stamping(None, Authority("x", (), "http://127.0.0.1/"))  # type: ignore[arg-type]


# --- Asking ---


@pytest.fixture
def served(authority: TimestampAuthority) -> Iterator[TimestampAuthority]:
    with authority.serving():
        authority.answer = None
        yield authority
        authority.answer = None


@pytest.mark.parametrize("rooted", [True, False])
def test_asking(served: TimestampAuthority, rooted: bool) -> None:
    asked = Authority("company", tuple(served.roots) if rooted else (), served.url)
    assert check_token(request_token(asked, SIGNATURE), SIGNATURE, trusted(served), now())


ANSWERS = {
    "an-error": (500, "application/timestamp-reply", b""),
    "a-page": (200, "text/html", b"<html>"),
    "nothing": (200, "application/timestamp-reply", b""),
    "junk": (200, "application/timestamp-reply", b"\x30\x03\x02\x01\x00"),
    "too-much": (200, "application/timestamp-reply", b"\x30" * (timestamp.MAX_TOKEN + 2)),
    "a-redirect": (302, "text/html", b""),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_that_is_no_token(served: TimestampAuthority, answer: tuple[int, str, bytes]) -> None:
    served.answer = answer
    with pytest.raises(UnavailableError):
        request_token(Authority("company", tuple(served.roots), served.url), SIGNATURE)


def test_the_answer_to_an_earlier_request(served: TimestampAuthority, sound: bytes) -> None:
    served.answer = (200, "application/timestamp-reply", sound)
    with pytest.raises(UnavailableError, match="another request"):
        request_token(Authority("company", tuple(served.roots), served.url), SIGNATURE)


def test_an_answer_of_somebody_else(served: TimestampAuthority, tmp_path: Path) -> None:
    other = TimestampAuthority(tmp_path)
    with pytest.raises(UnavailableError, match="roots"):
        request_token(Authority("company", tuple(other.roots), served.url), SIGNATURE)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(UnavailableError, match="cannot be reached"):
            request_token(Authority("company", (), url), SIGNATURE)


def test_an_authority_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timestamp, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(UnavailableError):
            request_token(Authority("company", (), url), SIGNATURE)


@pytest.mark.parametrize(
    "url",
    ["", "company", "file:///etc/passwd", "ftp://x/", "http://", "http://user:secret@x/", "http://x:99999999/",
     "http://x/\n", "http://exämple/", "//x/"],
)  # fmt: skip
def test_no_address(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert "secret" not in caught.value.message or url.startswith("http://user")


@pytest.mark.parametrize("uri", ["file:/k.pem", "file:/k.pem?certificate=/c.pem", "pkcs11:token=a?x=y&z=w"])
@pytest.mark.parametrize("name", ["company", "https://tsa.example/x?y=1&z"])
def test_who_stamps_is_part_of_a_signers_uri(uri: str, name: str) -> None:
    assert split_authority(stamped_by(uri, name)) == (uri, name)
    assert split_authority(uri) == (uri, "")
    for wrong in (f"{stamped_by(uri, name)}&timestamp=other", f"{uri}{'&' if '?' in uri else '?'}timestamp="):
        with pytest.raises(UsageError):
            split_authority(wrong)


# --- In bundles ---


class TestBundles:
    """Where a token lies in a bundle."""

    def test_a_stamped_bundle(self, served: TimestampAuthority, tmp_path: Path) -> None:
        signer = stamping(load_signer(write_key(tmp_path).signer), Authority("x", (), served.url))
        bundle = parse_bundle(make_bundle(b"{}", signer))
        assert signer.public_key.verify(bundle.signature, pae(b"{}"))
        (token,) = bundle.timestamps
        assert check_token(token, bundle.signature, trusted(served), now())

    def test_each_of_two_signers_is_stamped(self, served: TimestampAuthority, tmp_path: Path) -> None:
        """Also where somebody makes a bundle of the pair, which is the first one's."""
        pair = TwoSigners(*(load_signer(write_key(tmp_path, name).signer) for name in ("old", "new")))
        signer = stamping(pair, Authority("x", (), served.url))
        assert isinstance(signer, TwoSigners)
        for each in (signer, signer.first, signer.also):
            assert len(parse_bundle(make_bundle(b"{}", each)).timestamps) == 1

    def test_a_key_can_be_opened_whoever_stamps(self, tmp_path: Path) -> None:
        uri = write_key(tmp_path).signer
        assert load_signer(stamped_by(uri, "company")).uri == load_signer(uri).uri

    @pytest.mark.parametrize(
        "listed",
        [3, "x", {}, [3], [{}], [{"signedTimestamp": 3}], [{"signedTimestamp": "!"}],
         [{"signedTimestamp": "AA==", "x": 1}], [{"signedTimestamp": "AA=="}] * 5,
         [{"signedTimestamp": "A" * (3 * timestamp.MAX_TOKEN)}]],
    )  # fmt: skip
    def test_what_has_another_form(self, tmp_path: Path, listed: object) -> None:
        body = json.loads(make_bundle(b"{}", load_signer(write_key(tmp_path).signer)))
        body["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": listed}
        with pytest.raises(EvidenceError):
            parse_bundle(json.dumps(body).encode())

    @pytest.mark.parametrize("data", [{}, {"rfc3161Timestamps": []}, None])
    def test_none(self, tmp_path: Path, data: object) -> None:
        body = json.loads(make_bundle(b"{}", load_signer(write_key(tmp_path).signer)))
        body["verificationMaterial"]["timestampVerificationData"] = data
        assert parse_bundle(json.dumps(body).encode()).timestamps == ()

    def test_their_order_is_kept(self, tmp_path: Path) -> None:
        body = json.loads(make_bundle(b"{}", load_signer(write_key(tmp_path).signer)))
        listed = [{"signedTimestamp": base64.b64encode(item).decode()} for item in (b"a", b"b")]
        body["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": listed}
        assert parse_bundle(json.dumps(body).encode()).timestamps == (b"a", b"b")


def test_whatever_a_parser_raises_is_a_refusal(
    authority: TimestampAuthority, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library in Rust gives up with what is no Exception; who interrupts us is not swallowed with it."""

    class PanicException(BaseException):
        pass

    for error in (KeyError(9), RuntimeError(), PanicException()):
        monkeypatch.setattr(timestamp, "_signer", _raising(error))
        with pytest.raises(EvidenceError, match="malformed"):
            check_token(sound, SIGNATURE, trusted(authority), now())
    monkeypatch.setattr(timestamp, "_signer", _raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        check_token(sound, SIGNATURE, trusted(authority), now())


def _raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail
