"""Recipients: which keys wrap and unwrap, and what is said when they do not."""

from __future__ import annotations

import copy
import hmac
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sealflow.encryption import EncryptedDataKey, EncryptionContext, decrypt_message, encrypt_message, load_recipient
from sealflow.encryption import recipient as recipient_module
from sealflow.encryption.awskms import AwsKmsRecipient
from sealflow.encryption.raw import RsaRecipient
from sealflow.encryption.recipient import RECIPIENTS, register_recipient
from sealflow.encryption.refusal import RecipientError
from sealflow.errors import EXIT_REFUSED_IDENTITY, SealflowError, UnavailableError, UsageError
from sealflow.findings import CODES
from sealflow.hashing import sha256_hex
from tests.core.encryption.messages import (
    ARN,
    OTHER_ARN,
    RSA_KEY,
    RSA_PEM,
    RSA_PUBLIC_PEM,
    Kms,
    Knows,
    Refuses,
    aes,
    client_error,
    encode_pairs,
    forge,
    private_rsa,
    public_rsa,
)

CONTEXT = EncryptionContext.of({"a": "b"})


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def kms(*arns: str) -> tuple[Kms, list[AwsKmsRecipient]]:
    fake = Kms(*arns)
    return fake, [AwsKmsRecipient(f"awskms:{arn}", fake) for arn in arns]


# --- Keys in files ---


def test_names_in_the_header_can_be_told_without_us(tmp_path: Path) -> None:
    key = public_rsa(tmp_path).wrap(bytes(32), CONTEXT)
    assert (key.provider, key.info) == ("sealflow", sha256_hex(RSA_PUBLIC_PEM).encode())
    named = aes(tmp_path, query="?namespace=team&name=2026").wrap(bytes(32), CONTEXT)
    assert (named.provider, named.info[:4], len(named.info)) == ("team", b"2026", 4 + 20)


def test_the_name_of_a_symmetric_key_is_its_own_and_does_not_tell_it(tmp_path: Path) -> None:
    name = aes(tmp_path).wrap(bytes(32), CONTEXT).info[:-20]
    # HKDF by its definition (RFC 5869).
    extracted = hmac.digest(bytes(32), bytes([7]) * 32, "sha256")
    assert name.decode() == hmac.digest(extracted, b"sealflow recipient name\x01", "sha256")[:16].hex()


def test_an_encrypted_private_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = RSA_KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    uri = f"rsa:{write(tmp_path / 'rsa.pem', pem)}"
    message = encrypt_message(b"x", [public_rsa(tmp_path)], {})
    assert decrypt_message(message, [load_recipient(uri, lambda _: b"secret")], expected={}) == b"x"
    monkeypatch.setenv("SEALFLOW_KEY_PASSPHRASE", "secret")
    assert decrypt_message(message, [load_recipient(uri)], expected={}) == b"x"
    for wrong in (b"other", b""):
        with pytest.raises(UsageError, match="passphrase") as caught:
            load_recipient(uri, lambda _, wrong=wrong: wrong)
        assert caught.value.code == "KEY_UNREADABLE"


def test_a_public_key_only_encrypts(tmp_path: Path) -> None:
    message = encrypt_message(b"x", [private_rsa(tmp_path)], {})
    with pytest.raises(RecipientError, match="only encrypts") as caught:
        decrypt_message(message, [public_rsa(tmp_path)], expected={})
    assert caught.value.code == "RECIPIENT_KEY_WRONG"


# With names: a key made here would give every process of a test run other ones.
@pytest.mark.parametrize(
    "text", [RSA_PUBLIC_PEM, RSA_PUBLIC_PEM.decode(), b"\n" + RSA_PUBLIC_PEM + b"\n"], ids=["bytes", "text", "blanks"]
)
def test_a_public_key_in_memory_is_the_one_in_the_file(tmp_path: Path, text: str | bytes) -> None:
    made = RsaRecipient.from_pem(text, "policy:recovery")
    of_file = public_rsa(tmp_path)
    assert isinstance(of_file, RsaRecipient)
    assert (made.uri, made.provider, made.name) == ("policy:recovery", of_file.provider, of_file.name)
    assert made.public_pem == RSA_PUBLIC_PEM
    message = encrypt_message(b"x", [made], {})
    assert decrypt_message(message, [private_rsa(tmp_path)], expected={}) == b"x"
    with pytest.raises(RecipientError, match="only encrypts"):
        decrypt_message(message, [made], expected={})


def test_a_key_in_memory_may_have_another_name(tmp_path: Path) -> None:
    made = RsaRecipient.from_pem(RSA_PUBLIC_PEM, "x", namespace="team", name="2026")
    message = encrypt_message(b"x", [made], {})
    assert decrypt_message(message, [private_rsa(tmp_path, "?namespace=team&name=2026")], expected={}) == b"x"


EC_PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)
SHORT_PEM = (
    rsa.generate_private_key(65537, 1024)
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (RSA_PEM, {}, "private key"),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", {}, "private key"),
        (EC_PEM, {}, "not an RSA key"),
        (SHORT_PEM, {}, "1024 bits"),
        (b"", {}, "not an RSA key"),
        (b"k" * 32, {}, "not an RSA key"),
        (RSA_PUBLIC_PEM, {"namespace": "aws-kms"}, "namespace"),
        (RSA_PUBLIC_PEM, {"namespace": ""}, "namespace"),
        (RSA_PUBLIC_PEM, {"name": ""}, "name"),
    ],
    ids=["private", "private-encrypted", "elliptic", "short", "empty", "symmetric", "kms", "no-namespace", "no-name"],
)
def test_what_is_no_public_key_in_memory(text: bytes, options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        RsaRecipient.from_pem(text, "policy:recovery", **options)
    assert "policy:recovery" in caught.value.message
    assert text.decode()[:40] not in caught.value.message or not text


@pytest.mark.parametrize(
    ("scheme", "data", "code"),
    [
        ("rsa", b"", "KEY_UNREADABLE"),
        ("rsa", b"\x00" * 32, "KEY_UNREADABLE"),
        ("rsa", EC_PEM, "KEY_UNREADABLE"),
        ("rsa", SHORT_PEM, "KEY_UNSUPPORTED"),
        ("rsa", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "KEY_UNREADABLE"),
        ("aes", b"", "KEY_UNREADABLE"),
        ("aes", b"k" * 16, "KEY_UNREADABLE"),
        ("aes", b"k" * 31, "KEY_UNREADABLE"),
        ("aes", b"k" * 33, "KEY_UNREADABLE"),
        ("aes", RSA_PUBLIC_PEM, "KEY_UNREADABLE"),
        ("rsa", None, "KEY_MISSING"),
        ("aes", None, "KEY_MISSING"),
    ],
    ids=[
        "empty",
        "no-pem",
        "elliptic",
        "1024-bits",
        "broken",
        "aes-empty",
        "aes-128",
        "aes-short",
        "aes-long",
        "aes-pem",
        "rsa-missing",
        "aes-missing",
    ],
)
def test_files_that_hold_no_such_key(tmp_path: Path, scheme: str, data: bytes | None, code: str) -> None:
    path = tmp_path / "key"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        load_recipient(f"{scheme}:{path}")
    assert caught.value.code == code


@pytest.mark.parametrize("query", ["?namespace=aws-kms", "?namespace=", "?name=", "?nmae=x"])
def test_options_that_make_no_sense(tmp_path: Path, query: str) -> None:
    with pytest.raises(UsageError):
        aes(tmp_path, query=query)


@pytest.mark.parametrize(
    "damage",
    [
        lambda key: EncryptedDataKey(key.provider, key.info, key.ciphertext[:-1]),
        lambda key: EncryptedDataKey(key.provider, key.info, key.ciphertext + b"\x00"),
        lambda key: EncryptedDataKey(key.provider, key.info, b""),
        lambda key: EncryptedDataKey(key.provider, key.info, bytes([key.ciphertext[0] ^ 1]) + key.ciphertext[1:]),
    ],
    ids=["shorter", "longer", "empty", "altered"],
)
@pytest.mark.parametrize("kind", ["aes", "rsa", "awskms"])
def test_damaged_wrapped_keys_all_look_the_same(tmp_path: Path, kind: str, damage: Any) -> None:
    keys = {"aes": lambda: aes(tmp_path), "rsa": lambda: private_rsa(tmp_path), "awskms": lambda: kms(ARN)[1][0]}
    recipient = keys[kind]()
    wrapped = damage(recipient.wrap(bytes(32), CONTEXT))
    assert recipient.owns(wrapped)
    with pytest.raises(RecipientError) as caught:
        recipient.unwrap(wrapped, CONTEXT)
    assert caught.value.code == "RECIPIENT_KEY_WRONG"
    assert "does not unwrap" in caught.value.message


@pytest.mark.parametrize("position", [3, 7], ids=["tag", "iv"])
def test_a_symmetric_wrapping_with_a_shorter_tag_or_iv(tmp_path: Path, position: int) -> None:
    recipient = aes(tmp_path)
    wrapped = recipient.wrap(bytes(32), CONTEXT)
    info = bytearray(wrapped.info)
    info[-20 + position] -= 4
    with pytest.raises(RecipientError, match="does not unwrap"):
        recipient.unwrap(EncryptedDataKey(wrapped.provider, bytes(info), wrapped.ciphertext), CONTEXT)


@pytest.mark.parametrize("kind", ["aes", "awskms"])
def test_a_wrapping_is_bound_to_the_context(tmp_path: Path, kind: str) -> None:
    recipient = aes(tmp_path) if kind == "aes" else kms(ARN)[1][0]
    with pytest.raises(RecipientError):
        recipient.unwrap(recipient.wrap(bytes(32), CONTEXT), EncryptionContext.of({"a": "c"}))


# --- Keys in KMS ---


def test_the_data_key_is_made_by_kms_when_it_comes_first(tmp_path: Path) -> None:
    fake, (recipient,) = kms(ARN)
    message = encrypt_message(b"x", [recipient, aes(tmp_path)], {"run": "7"})
    assert [name for name, _ in fake.calls] == ["Encrypt"]
    assert fake.made == 1
    assert decrypt_message(message, [recipient], expected={"run": "7"}) == b"x"
    operation, arguments = fake.calls[-1]
    assert operation == "Decrypt"
    assert arguments["KeyId"] == ARN
    assert arguments["EncryptionContext"] == {"run": "7"}


def test_kms_after_another(tmp_path: Path) -> None:
    fake, recipients = kms(ARN, OTHER_ARN)
    message = encrypt_message(b"x", [aes(tmp_path), *recipients], {})
    assert fake.made == 0
    for recipient in recipients:
        assert decrypt_message(message, [recipient], expected={}) == b"x"


def test_keys_that_nobody_listed_are_not_asked(tmp_path: Path) -> None:
    fake, (ours, foreign) = kms(ARN, OTHER_ARN)
    message = encrypt_message(b"x", [foreign], {})
    fake.calls.clear()
    for recipients in ([ours], [aes(tmp_path), ours]):
        with pytest.raises(RecipientError, match="ffff") as caught:
            decrypt_message(message, recipients, expected={})
        assert caught.value.code == "KMS_KEY_NOT_ALLOWED"
        assert caught.value.exit_status == EXIT_REFUSED_IDENTITY
    assert fake.calls == []


@pytest.mark.parametrize(
    "key",
    [
        "alias/models",
        "arn:aws:kms:eu-west-1:123456789012:alias/models",
        "1b2c3d4e-0000-4000-8000-123456789abc",
        "",
        ARN + "/x",
        ARN.replace("kms", "s3"),
        ARN + "\n",
    ],
    ids=["alias", "alias-arn", "id", "nothing", "longer", "other-service", "line-end"],
)
def test_only_key_arns(key: str) -> None:
    with pytest.raises(UsageError, match="not the ARN of a key"):
        AwsKmsRecipient(f"awskms:{key}", Kms())


@pytest.mark.parametrize("operation", ["generate", "wrap", "unwrap"])
def test_kms_that_answers_for_another_key(operation: str) -> None:
    fake, (recipient,) = kms(ARN)
    wrapped = recipient.wrap(bytes(32), CONTEXT)
    fake.answers = {"KeyId": OTHER_ARN}
    calls = {
        "generate": lambda: recipient.generate(CONTEXT),
        "wrap": lambda: recipient.wrap(bytes(32), CONTEXT),
        "unwrap": lambda: recipient.unwrap(wrapped, CONTEXT),
    }
    with pytest.raises((UnavailableError, RecipientError)):
        calls[operation]()


class Failing:
    """A KMS client whose every call fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            raise self.error

        return call


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (client_error("AccessDeniedException", "x"), UnavailableError, "PERMISSION_DENIED"),
        (client_error("ExpiredTokenException", "x"), UnavailableError, "PERMISSION_DENIED"),
        (client_error("ThrottlingException", "x"), UnavailableError, "BACKEND_UNAVAILABLE"),
        (client_error("KMSInvalidStateException", "x"), UnavailableError, "BACKEND_UNAVAILABLE"),
        (client_error("NotFoundException", "x"), UsageError, "KEY_UNSUPPORTED"),
        (EndpointConnectionError(endpoint_url="https://x"), UnavailableError, "BACKEND_UNAVAILABLE"),
    ],
    ids=["denied", "expired", "throttled", "disabled", "missing", "unreachable"],
)
def test_what_kms_says(error: Exception, kind: type[SealflowError], code: str) -> None:
    recipient = AwsKmsRecipient(f"awskms:{ARN}", Failing(error))
    wrapped = EncryptedDataKey("aws-kms", ARN.encode(), b"x")
    for call in (lambda: recipient.generate(CONTEXT), lambda: recipient.unwrap(wrapped, CONTEXT)):
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.code == code


def test_wrong_ciphertext_is_no_outage() -> None:
    recipient = AwsKmsRecipient(f"awskms:{ARN}", Failing(client_error("InvalidCiphertextException", "Decrypt")))
    with pytest.raises(RecipientError) as caught:
        recipient.unwrap(EncryptedDataKey("aws-kms", ARN.encode(), b"x"), CONTEXT)
    assert caught.value.code == "RECIPIENT_KEY_WRONG"


def test_the_region_is_that_of_the_arn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    recipient = load_recipient(f"awskms:{ARN}?endpoint=http://127.0.0.1:9")
    client = recipient._client()  # type: ignore[attr-defined]
    assert client.meta.region_name == "eu-west-1"
    assert client.meta.endpoint_url == "http://127.0.0.1:9"


# --- Several ---


UNAVAILABLE = UnavailableError("not now")
WRONG = RecipientError("no", code="RECIPIENT_KEY_WRONG")
GONE = UsageError("no such key", code="KEY_UNSUPPORTED")


def held(message_key: bytes) -> bytes:
    return forge(b"x", [EncryptedDataKey("held", b"", b"")], message_key)


def test_one_that_opens_is_enough() -> None:
    message = held(b"k" * 32)
    opener = Knows(b"k" * 32)
    for first in (Refuses(UNAVAILABLE), Refuses(WRONG), Refuses(GONE)):
        assert decrypt_message(message, [first, opener], expected={}) == b"x"
        assert decrypt_message(message, [opener, first], expected={}) == b"x"


def test_an_outage_counts_more_than_a_wrong_key() -> None:
    with pytest.raises(UnavailableError):
        decrypt_message(held(bytes(32)), [Refuses(WRONG), Refuses(UNAVAILABLE)], expected={})


def test_what_is_wrong_with_the_first_key_is_said() -> None:
    for refusals in ([GONE, WRONG], [WRONG, GONE]):
        with pytest.raises(type(refusals[0])):
            decrypt_message(held(bytes(32)), [Refuses(error) for error in refusals], expected={})


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_data_keys_of_another_length(length: int) -> None:
    with pytest.raises(RecipientError) as caught:
        decrypt_message(held(bytes(32)), [Knows(bytes(length))], expected={})
    assert caught.value.code == "RECIPIENT_KEY_WRONG"


def test_keys_wrapped_to_unknown_providers_are_skipped(tmp_path: Path) -> None:
    recipient = aes(tmp_path)
    keys = [
        EncryptedDataKey("post-quantum", b"x-wing", b"\xff" * 1200),
        EncryptedDataKey("", b"", b""),
        recipient.wrap(b"k" * 32, EncryptionContext.of({})),
        EncryptedDataKey("post-quantum", b"x-wing", b""),
    ]
    assert decrypt_message(forge(b"x", keys, b"k" * 32), [recipient], expected={}) == b"x"
    with pytest.raises(RecipientError, match="post-quantum") as caught:
        decrypt_message(forge(b"x", keys[:2], b"k" * 32), [recipient], expected={})
    assert caught.value.code == "RECIPIENT_MISSING"
    assert caught.value.next_step == CODES["RECIPIENT_MISSING"].next_step


@pytest.mark.parametrize("kind", [aes, private_rsa])
def test_a_namespace_is_part_of_the_name(tmp_path: Path, kind: Any) -> None:
    ours, theirs = (kind(tmp_path, query=f"?name=key&namespace={space}") for space in ("ours", "theirs"))
    assert ours.owns(ours.wrap(bytes(32), CONTEXT))
    assert not ours.owns(theirs.wrap(bytes(32), CONTEXT))
    assert not ours.owns(EncryptedDataKey("ours", b"", b""))


def test_a_context_is_sorted_by_its_bytes() -> None:
    pairs = {"z": "1", "a": "2", "\U0001f600": "3", "\uffff": "4", "ab": "5"}
    assert EncryptionContext.of(pairs).encoded == encode_pairs(sorted(pairs.items(), key=lambda pair: pair[0].encode()))


def test_names_for_people(tmp_path: Path) -> None:
    recipients = [aes(tmp_path, query="?name=2026"), public_rsa(tmp_path, "?name=2026"), kms(ARN)[1][0]]
    assert [recipient.wrap(bytes(32), CONTEXT).name for recipient in recipients] == ["2026", "2026", ARN]
    assert EncryptedDataKey("x", b"", b"").name == ""
    assert EncryptedDataKey("x", b"\xff\n", b"").name == "\\xff\\u000a"


def test_hostile_names_are_made_safe_to_show(tmp_path: Path) -> None:
    keys = [EncryptedDataKey("\x1b[2J\u202e", b"\x00\n\xff", b"")]
    with pytest.raises(RecipientError) as caught:
        decrypt_message(forge(b"x", keys, bytes(32)), [aes(tmp_path)], expected={})
    assert str(caught.value).isprintable()


# --- The table ---


@pytest.mark.parametrize("uri", ["", "key.pem", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC"])
def test_no_uri(uri: str) -> None:
    with pytest.raises(UsageError, match="not a recipient URI") as caught:
        load_recipient(uri)
    assert not uri or uri not in caught.value.message


def test_unknown_schemes() -> None:
    with pytest.raises(UsageError, match="aes, awskms, rsa"):
        load_recipient("pkcs11:x")


def test_schemes_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipient_module, "RECIPIENTS", copy.copy(RECIPIENTS))
    register_recipient("mine", lambda uri, passphrase: Knows(bytes(32)))
    assert isinstance(load_recipient("mine:x"), Knows)
    with pytest.raises(UsageError, match="taken"):
        register_recipient("rsa", lambda uri, passphrase: Knows(bytes(32)))


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "theirs"

        @staticmethod
        def load() -> Any:
            return lambda uri, passphrase: Knows(bytes(32))

    monkeypatch.setattr(recipient_module, "RECIPIENTS", copy.copy(RECIPIENTS))
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Entry] if "recipients" in group else [])
    assert isinstance(load_recipient("theirs:x"), Knows)


def test_an_arn_of_another_provider_is_not_ours() -> None:
    _, (recipient,) = kms(ARN)
    assert recipient.owns(recipient.wrap(bytes(32), CONTEXT))
    assert not recipient.owns(EncryptedDataKey("not-kms", ARN.encode(), b""))
