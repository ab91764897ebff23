"""Recipients whose keys are files: RSA (OAEP) and AES-256 (GCM), wrapped as the SDK's raw keyrings wrap.

Source: AWS Encryption SDK specification, ``framework/raw-rsa-keyring.md`` and ``framework/raw-aes-keyring.md``.
"""

from __future__ import annotations

import re
import secrets
import struct
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sealflow.encryption.context import EncryptionContext
from sealflow.encryption.header import IV, TAG, EncryptedDataKey
from sealflow.encryption.recipient import KMS_PROVIDER, Recipient, wrong_key
from sealflow.encryption.refusal import RecipientError
from sealflow.encryption.suite import DATA_KEY
from sealflow.errors import UsageError
from sealflow.findings import printable
from sealflow.hashing import sha256_hex
from sealflow.keys import PassphraseCallback
from sealflow.keys.public import read_key_file
from sealflow.keys.signer import split_query

#: Key namespace of keys whose URI names no other.
NAMESPACE: Final = "sealflow"

_MIN_RSA_BITS = 2048
_OPTIONS = frozenset({"namespace", "name"})
# 32 bytes in hex or Base64. A digest makes a poor name of a key file; its folder can be written before it (./).
_SECRET = re.compile(r"[0-9A-Fa-f]{64}|[A-Za-z0-9+/_-]{43}=")
_OAEP = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
_AES_INFO = struct.Struct(f">II{IV}s")


def _open(uri: str) -> tuple[str, bytes, str, str | None]:
    bare, options = split_query(uri, _OPTIONS)
    if _SECRET.fullmatch(bare.partition(":")[2]):
        # Not repeated: it is the key itself, put where its place belongs.
        raise UsageError(
            "The name of a key file looks like a symmetric key.",
            code="KEY_MISSING",
            next_step="Name the file that holds the key; and change the key, which may be in a log by now.",
        )
    data = read_key_file("file:" + bare.partition(":")[2])
    namespace, name = options.get("namespace", NAMESPACE), options.get("name")
    _check_names(bare, namespace, name)
    return bare, data, namespace, name


def _check_names(what: str, namespace: str, name: str | None) -> None:
    if not namespace or name == "" or namespace == KMS_PROVIDER:
        raise UsageError(f"{printable(what)}: a key needs a namespace other than {KMS_PROVIDER}, and a name.")


class RsaRecipient(Recipient):
    """An RSA key: the public half wraps, the private half unwraps too.

    Its name in the header is the SHA-256 of the public key's PEM text, which ``sha256sum`` prints, unless the URI gives
    another.

    Args:
        uri: ``rsa:/path/key.pem`` with optional ``?namespace=`` and ``name=``.
        passphrase: Asked only when the key is encrypted.

    Raises:
        UsageError: No such file, not an RSA key in PEM of at least 2048 bits, a wrong passphrase.
        UnavailableError: The file cannot be read.
    """

    def __init__(self, uri: str, passphrase: PassphraseCallback) -> None:
        bare, pem, namespace, name = _open(uri)
        self._take(bare, _load_rsa(pem, bare, passphrase), namespace, name)

    @classmethod
    def from_pem(
        cls, pem: str | bytes, what: str, *, namespace: str = NAMESPACE, name: str | None = None
    ) -> RsaRecipient:
        """Return the recipient of a public key whose text is at hand, as in a policy.

        Args:
            pem: The public key; a private one is refused, since it does not belong where others read it.
            what: What messages call it, in the place of a URI.
            namespace: Key namespace in the header.
            name: Name in the header; absent: the SHA-256 of the PEM text.

        Raises:
            UsageError: Not an RSA public key in PEM of at least 2048 bits, or a namespace that is not to be had.
        """
        data = pem.encode("utf-8") if isinstance(pem, str) else pem
        if b"PRIVATE KEY" in data:
            raise UsageError(
                f"{printable(what)} holds a private key where a public key belongs.",
                next_step="Name the public key: openssl pkey -in private.pem -pubout",
            )
        _check_names(what, namespace, name)
        made = cls.__new__(cls)
        # A public key has no passphrase, so nobody is asked.
        made._take(what, _load_rsa(data, what, lambda _: b""), namespace, name)
        return made

    def _take(self, uri: str, key: rsa.RSAPrivateKey | rsa.RSAPublicKey, namespace: str, name: str | None) -> None:
        self.uri, self.provider = uri, namespace
        self._private = key if isinstance(key, rsa.RSAPrivateKey) else None
        self._public = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
        if self._public.key_size < _MIN_RSA_BITS:
            raise UsageError(
                f"{printable(self.uri)} has {self._public.key_size} bits; an RSA key needs {_MIN_RSA_BITS}.",
                code="KEY_UNSUPPORTED",
            )
        #: The public key as SubjectPublicKeyInfo in PEM, in the one spelling that its name is made from.
        self.public_pem = self._public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.name = name or sha256_hex(self.public_pem)

    @property
    def public(self) -> str:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return self.public_pem.decode("ascii")

    def same_key(self, other: Recipient) -> bool:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return (
            isinstance(other, RsaRecipient)
            and (self.provider, self.name) == (other.provider, other.name)
            and self._public == other._public
        )

    def wrap(self, data_key: bytes, context: EncryptionContext) -> EncryptedDataKey:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return EncryptedDataKey(self.provider, self.name.encode("utf-8"), self._public.encrypt(data_key, _OAEP))

    def owns(self, key: EncryptedDataKey) -> bool:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return key.provider == self.provider and key.info == self.name.encode("utf-8")

    def unwrap(self, key: EncryptedDataKey, context: EncryptionContext) -> bytes:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        if self._private is None:
            raise RecipientError(
                f"{printable(self.uri)} is a public key, which only encrypts.",
                code="RECIPIENT_KEY_WRONG",
                next_step="Name the private key.",
            )
        try:
            return self._private.decrypt(key.ciphertext, _OAEP)
        except ValueError:
            raise wrong_key(self) from None


def _load_rsa(pem: bytes, uri: str, passphrase: PassphraseCallback) -> rsa.RSAPrivateKey | rsa.RSAPublicKey:
    encrypted = b"ENCRYPTED" in pem
    key: object = None
    try:
        if b"PRIVATE KEY" not in pem:
            key = serialization.load_pem_public_key(pem)
        else:
            key = serialization.load_pem_private_key(pem, passphrase(uri) if encrypted else None)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # TypeError: an empty passphrase
        if encrypted:
            raise UsageError(
                f"{printable(uri)} cannot be opened with this passphrase.",
                code="KEY_UNREADABLE",
                next_step="Check the passphrase.",
            ) from None
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return key
    raise UsageError(
        f"{printable(uri)} is not an RSA key in PEM.",
        code="KEY_UNREADABLE",
        next_step="Make one: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072",
    )


class AesRecipient(Recipient):
    """A symmetric key: 32 bytes that both sides have.

    Its name in the header is derived from the key, which it does not tell, unless the URI gives another.

    Args:
        uri: ``aes:/path/key`` with optional ``?namespace=`` and ``name=``; the file holds the 32 bytes and no more.

    Raises:
        UsageError: No such file, or not of 32 bytes.
        UnavailableError: The file cannot be read.
    """

    def __init__(self, uri: str) -> None:
        self.uri, key, self.provider, name = _open(uri)
        if len(key) != DATA_KEY:
            raise UsageError(
                f"{printable(self.uri)} has {len(key)} bytes; a symmetric key has exactly {DATA_KEY}.",
                code="KEY_UNREADABLE",
                next_step=f"Make one: openssl rand {DATA_KEY} > key",
            )
        self._cipher = AESGCM(key)
        self._fingerprint = HKDF(SHA256(), 32, salt=None, info=b"sealflow recipient fingerprint").derive(key).hex()
        self.name = name or HKDF(SHA256(), 16, salt=None, info=b"sealflow recipient name").derive(key).hex()

    @property
    def fingerprint(self) -> str:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return self._fingerprint

    def wrap(self, data_key: bytes, context: EncryptionContext) -> EncryptedDataKey:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        iv = secrets.token_bytes(IV)
        info = self.name.encode("utf-8") + _AES_INFO.pack(TAG * 8, IV, iv)
        return EncryptedDataKey(self.provider, info, self._cipher.encrypt(iv, data_key, context.encoded))

    def owns(self, key: EncryptedDataKey) -> bool:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        return key.provider == self.provider and key.info[: -_AES_INFO.size] == self.name.encode("utf-8")

    def unwrap(self, key: EncryptedDataKey, context: EncryptionContext) -> bytes:
        """See :class:`~sealflow.encryption.recipient.Recipient`."""
        tag_bits, iv_length, iv = _AES_INFO.unpack(key.info[-_AES_INFO.size :])
        try:
            # A shorter tag would be easier to forge.
            if (tag_bits, iv_length, len(key.ciphertext)) == (TAG * 8, IV, DATA_KEY + TAG):
                return self._cipher.decrypt(iv, key.ciphertext, context.encoded)
        except InvalidTag:
            pass
        raise wrong_key(self)
