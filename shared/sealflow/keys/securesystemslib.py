"""Signing keys in Google Cloud KMS, Azure Key Vault and HashiCorp Vault, through the signers of ``securesystemslib``.

The URIs are that library's: ``gcpkms:projects/…/cryptoKeyVersions/1``, ``azurekms://<vault>.vault.azure.net/keys/…``,
``hv:<key>/<version>``. Each names one version of a key, so what signs never changes under a policy that pins it. The
services' own configuration says how they are reached and who asks.

The digest is made here and sent alone. Every signature is checked with the public key before anybody sees it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from sealflow.errors import MissingExtraError, SealflowError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys.public import PublicKey, parse_public_key, read_key_file
from sealflow.keys.signer import load_chain, split_query

_OPTIONS: Final = frozenset({"certificate", "public-key"})

#: What Vault calls the digest of each kind of key, and how long it is (transit API, "Sign data").
_VAULT_DIGESTS: Final[dict[str, tuple[str, type[hashes.HashAlgorithm]]]] = {
    "ECDSA P-256": ("sha2-256", hashes.SHA256),
    "ECDSA P-384": ("sha2-384", hashes.SHA384),
    "ECDSA P-521": ("sha2-512", hashes.SHA512),
}

_DENIED: Final = (401, 403)
#: Errors of the services' libraries that carry no HTTP status, by name: none of these libraries is imported here.
_DENIED_NAMES: Final = frozenset(
    {"ClientAuthenticationError", "CredentialUnavailableError", "DefaultCredentialsError", "Forbidden", "RefreshError"}
    | {"Unauthorized"}
)
_ABSENT_NAMES: Final = frozenset({"InvalidPath", "NotFound", "ResourceNotFoundError"})
_UNSUPPORTED_NAMES: Final = frozenset({"UnsupportedAlgorithmError", "UnsupportedKeyType"})


class _Service(NamedTuple):
    noun: str
    extra: str
    example: str
    fetch: Callable[[str], tuple[str, PublicKey]]
    open: Callable[[str, PublicKey], Any]


def public_key(uri: str) -> PublicKey:
    """Return the public half of a key in one of the services.

    Raises:
        UsageError: No such key, or not one that makes our signatures.
        UnavailableError: The service does not answer or refuses.
        MissingExtraError: The service's library is not installed.
    """
    bare, options = split_query(uri, _OPTIONS)
    service = _service(bare)
    if (source := options.get("public-key")) is not None:
        return parse_public_key(read_key_file(source), printable(source))
    with _calling(service, bare):
        found, key = service.fetch(bare)
    if found != bare:
        raise UsageError(
            f"{printable(bare)} is not the version of the key that {service.noun} hands out.",
            code="KEY_MISSING",
            next_step=f"Write {printable(found)}, or name the public key of this version: ?public-key=/path.pem.",
        )
    return key


class ServiceSigner:
    """Signs with a key in one of the services. See :class:`~sealflow.keys.signer.KeySigner`.

    Args:
        uri: The key's URI with an optional ``?certificate=`` and ``public-key=``, places of PEM files.

    Raises:
        UsageError: No such key, or not one that makes our signatures.
        UnavailableError: The service does not answer or refuses.
        MissingExtraError: The service's library is not installed.
    """

    def __init__(self, uri: str) -> None:
        self.uri, options = split_query(uri, _OPTIONS)
        self._service = _service(self.uri)
        self.public_key = public_key(uri)
        with _calling(self._service, self.uri):
            self._signer = self._service.open(self.uri, self.public_key)
        self.certificates = load_chain(options.get("certificate"), self.public_key)

    def sign(self, data: bytes) -> bytes:
        """See :class:`~sealflow.keys.signer.KeySigner`."""
        with _calling(self._service, self.uri):
            signature = bytes.fromhex(self._signer.sign(data).signature)
        # A service that hashed the digest again, or signed with another version, must not leave a useless signature.
        if not self.public_key.verify(signature, data):
            raise UnavailableError(
                f"{self._service.noun} returned a signature of {printable(self.uri)} that does not verify."
            )
        return signature


@contextmanager
def _calling(service: _Service, uri: str) -> Iterator[None]:
    """Turn whatever a service's library raises into our errors. Its texts stay out: some hold tokens."""
    try:
        yield
    except SealflowError:
        raise
    except Exception as error:
        raise _ours(error, service, uri) from None


def _ours(error: Exception, service: _Service, uri: str) -> SealflowError:
    shown, name = printable(uri), type(error).__name__
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    if isinstance(error, ImportError) or name == "UnsupportedLibraryError":
        return MissingExtraError(service.noun, service.extra)
    if name in _UNSUPPORTED_NAMES:
        return _unsupported(shown)
    if status in _DENIED or name in _DENIED_NAMES:
        return UnavailableError(
            f"{service.noun} does not let this process use {shown} ({name}).",
            code="PERMISSION_DENIED",
            next_step="Check the credentials of this process and its rights to the key.",
        )
    if status == 404 or name in _ABSENT_NAMES:
        return UsageError(f"{service.noun} has no key {shown}.", code="KEY_MISSING")
    return UnavailableError(f"{service.noun} failed for {shown} ({name}).")


def _unsupported(shown: str) -> UsageError:
    return UsageError(
        f"{shown} is a key that cannot make our signatures.",
        code="KEY_UNSUPPORTED",
        next_step="Use an elliptic-curve signing key on P-256 or P-384.",
    )


def _from_library(key: Any) -> PublicKey:
    if key.keytype != "ecdsa":
        raise _unsupported("The key")
    return PublicKey(serialization.load_pem_public_key(key.keyval["public"].encode("ascii")))


def _to_library(key: PublicKey) -> Any:
    from securesystemslib.signer import SSlibKey

    return SSlibKey.from_crypto(serialization.load_pem_public_key(key.pem))


def _service(uri: str) -> _Service:
    scheme = uri.partition(":")[0]
    service = _SERVICES[scheme]
    # The names become parts of an address to which this process's credentials go: closed forms, and nothing else.
    if not _FORMS[scheme].fullmatch(uri):
        raise UsageError(f"{printable(uri)} names no version of a key.", next_step=f"Write {service.example}.")
    return service


_SEGMENT: Final = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"
_FORMS: Final = {
    "gcpkms": re.compile(
        rf"gcpkms:projects/{_SEGMENT}/locations/{_SEGMENT}/keyRings/{_SEGMENT}/cryptoKeys/{_SEGMENT}"
        r"/cryptoKeyVersions/[1-9][0-9]{0,9}"
    ),
    "azurekms": re.compile(
        r"azurekms://([A-Za-z0-9-]{1,127})"
        r"\.(vault\.azure\.net|vault\.azure\.cn|vault\.usgovcloudapi\.net|managedhsm\.azure\.net)"
        r"/keys/([A-Za-z0-9-]{1,127})/[0-9a-f]{1,64}"
    ),
    "hv": re.compile(r"hv:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}/[1-9][0-9]{0,9}"),
}


# --- Google Cloud KMS ---


def _gcp_fetch(uri: str) -> tuple[str, PublicKey]:
    from securesystemslib.signer import GCPSigner

    found, key = GCPSigner.import_(uri.removeprefix("gcpkms:"))
    return found, _from_library(key)


def _gcp_open(uri: str, key: PublicKey) -> Any:
    from securesystemslib.signer import GCPSigner

    return GCPSigner.from_priv_key_uri(uri, _to_library(key))


# --- Azure Key Vault ---


def _azure_fetch(uri: str) -> tuple[str, PublicKey]:
    from securesystemslib.signer import AzureSigner

    match = _FORMS["azurekms"].fullmatch(uri)
    assert match is not None  # noqa: S101  (looked at before)
    if match[2] != "vault.azure.net":
        raise UsageError(
            f"The public key of {printable(uri)} is fetched from vault.azure.net only.",
            next_step="Name its place: ?public-key=/path.pem.",
        )
    found, key = AzureSigner.import_(match[1], match[3])
    return found, _from_library(key)


def _azure_open(uri: str, key: PublicKey) -> Any:
    from securesystemslib.signer import AzureSigner

    return AzureSigner.from_priv_key_uri(uri, _to_library(key))


# --- HashiCorp Vault, transit secrets engine ---


def _vault_name(uri: str) -> tuple[str, int]:
    name, _, version = uri.removeprefix("hv:").partition("/")
    return name, int(version)


def _vault_fetch(uri: str) -> tuple[str, PublicKey]:
    import hvac

    name, version = _vault_name(uri)
    body = hvac.Client().secrets.transit.read_key(name)["data"]
    try:
        text = body["keys"][str(version)]["public_key"]
    except (KeyError, TypeError):
        raise UsageError(f"Vault has no version {version} of the key {printable(name)}.", code="KEY_MISSING") from None
    try:
        if body["type"] == "ed25519":
            return uri, PublicKey(ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True)))
        return uri, PublicKey(serialization.load_pem_public_key(text.encode("ascii")))
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        raise _unsupported(printable(uri)) from None


def _vault_open(uri: str, key: PublicKey) -> Any:
    from securesystemslib.signer import VaultSigner

    name, version = _vault_name(uri)
    if key.algorithm == "Ed25519":
        return VaultSigner(name, _to_library(key), version)
    return _VaultEcdsa(name, version, key)


class _VaultEcdsa:
    """What the library's signer lacks: it knows Ed25519 only, which OMS v1.0 does not allow for artifacts."""

    def __init__(self, name: str, version: int, key: PublicKey) -> None:
        import hvac

        self._name, self._version = name, version
        self._algorithm, self._digest = _VAULT_DIGESTS[key.algorithm]
        self._keyid = key.hint
        self._client = hvac.Client()

    def sign(self, data: bytes) -> Any:
        """Return the signature in the library's form; DER."""
        from securesystemslib.signer import Signature

        state = hashes.Hash(self._digest())
        state.update(data)
        answer = self._client.secrets.transit.sign_data(
            self._name,
            hash_input=base64.b64encode(state.finalize()).decode("ascii"),
            key_version=self._version,
            hash_algorithm=self._algorithm,
            prehashed=True,
            marshaling_algorithm="asn1",
        )
        # vault:v<version>:<Base64>
        signature = base64.b64decode(answer["data"]["signature"].split(":")[2], validate=True)
        return Signature(self._keyid, signature.hex())


_SERVICES: Final = {
    "gcpkms": _Service(
        "Google Cloud KMS",
        "gcp",
        "gcpkms:projects/<project>/locations/<location>/keyRings/<ring>/cryptoKeys/<key>/cryptoKeyVersions/<version>",
        _gcp_fetch,
        _gcp_open,
    ),
    "azurekms": _Service(
        "Azure Key Vault",
        "azure",
        "azurekms://<vault>.vault.azure.net/keys/<key>/<version>",
        _azure_fetch,
        _azure_open,
    ),
    "hv": _Service("HashiCorp Vault", "vault", "hv:<key>/<version>", _vault_fetch, _vault_open),
}
