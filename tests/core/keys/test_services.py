"""Keys in Google Cloud KMS, Azure Key Vault and HashiCorp Vault, through securesystemslib's own signers.

Google's and Azure's client classes are replaced by stand-ins that do what their documentation says; Vault is an HTTP
server that speaks the transit API. Everything between those and us is the real library.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import sealflow
from sealflow.errors import MissingExtraError, UnavailableError, UsageError
from sealflow.keys import load_public_key, load_signer
from tests.pki import CURVES, certify
from tests.servers.vault import Vault, vault_server
from tests.trees import write_tree

GCP = "gcpkms:projects/p/locations/eu/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
AZURE = "azurekms://team.vault.azure.net/keys/models/0123456789abcdef"
HV = "hv:models/1"
SECRET = "bearer-token-of-somebody"


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class World:
    """What the three services hold, and how they misbehave."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.key: Any = None
        self.hashes_again = False
        self.error: Exception | None = None

    def hold(self, key: Any) -> None:
        self.key = key
        self.vault.keys["models"] = [key]

    def digest_signature(self, digest: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
        if self.error is not None:
            raise self.error
        assert len(digest) == algorithm.digest_size, "the service refuses a digest of another length"
        return self.key.sign(digest, ec.ECDSA(algorithm if self.hashes_again else Prehashed(algorithm)))

    def misbehave(self) -> None:
        self.hashes_again = self.vault.hashes_again = True


@pytest.fixture(scope="module")
def _vault() -> Iterator[Vault]:
    with vault_server() as vault:
        yield vault


@pytest.fixture
def world(_vault: Vault, monkeypatch: pytest.MonkeyPatch) -> World:
    _vault.keys.clear()
    _vault.requests.clear()
    _vault.hashes_again, _vault.status = False, 0
    monkeypatch.setenv("VAULT_ADDR", _vault.url)
    monkeypatch.setenv("VAULT_TOKEN", _vault.token)
    world = World(_vault)
    world.hold(ec.generate_private_key(ec.SECP256R1()))
    google(world, monkeypatch)
    azure(world, monkeypatch)
    return world


def google(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud import kms
    from google.cloud.kms_v1.types import AsymmetricSignResponse, ChecksummedData, CryptoKeyVersion
    from google.cloud.kms_v1.types import PublicKey as Answer

    algorithms = CryptoKeyVersion.CryptoKeyVersionAlgorithm

    def algorithm() -> Any:
        if isinstance(world.key, ed25519.Ed25519PrivateKey):
            return algorithms.EC_SIGN_ED25519
        if isinstance(world.key, rsa.RSAPrivateKey):
            return algorithms.RSA_SIGN_PSS_2048_SHA256
        return {
            "secp256r1": algorithms.EC_SIGN_P256_SHA256,
            "secp384r1": algorithms.EC_SIGN_P384_SHA384,
        }.get(world.key.curve.name, algorithms.EC_SIGN_SECP256K1_SHA256)

    class Client:
        def get_public_key(self, request: dict[str, Any]) -> Any:
            if world.error is not None:
                raise world.error
            assert request["name"] == GCP.removeprefix("gcpkms:")
            return Answer(algorithm=algorithm(), public_key=ChecksummedData(data=pem(world.key)))

        def asymmetric_sign(self, request: dict[str, Any]) -> Any:
            ((name, digest),) = request["digest"].items()
            made = {"sha256": hashes.SHA256, "sha384": hashes.SHA384}[name]()
            return AsymmetricSignResponse(signature=world.digest_signature(digest, made))

    monkeypatch.setattr(kms, "KeyManagementServiceClient", Client)


def azure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.keyvault.keys.crypto import SignatureAlgorithm
    from securesystemslib.signer import _azure_signer as module

    made = {
        SignatureAlgorithm.es256: (hashes.SHA256(), "secp256r1"),
        SignatureAlgorithm.es384: (hashes.SHA384(), "secp384r1"),
        SignatureAlgorithm.es512: (hashes.SHA512(), "secp521r1"),
    }

    class Keys:
        def __init__(self, vault_url: str, credential: Any) -> None:
            assert vault_url == "https://team.vault.azure.net/"

        def get_key(self, name: str) -> Any:
            if world.error is not None:
                raise world.error
            assert name == "models"
            if not isinstance(world.key, ec.EllipticCurvePrivateKey):
                return SimpleNamespace(key=SimpleNamespace(kty="RSA"))
            numbers, size = world.key.public_key().public_numbers(), (world.key.curve.key_size + 7) // 8
            curve = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(world.key.curve.name, "x")
            return SimpleNamespace(
                key=SimpleNamespace(
                    kty="EC",
                    crv=curve,
                    x=numbers.x.to_bytes(size, "big"),
                    y=numbers.y.to_bytes(size, "big"),
                    kid=AZURE.replace("azurekms:", "https:"),
                )
            )

    class Crypto:
        def __init__(self, key: str, credential: Any) -> None:
            assert key == AZURE.replace("azurekms:", "https:")

        def sign(self, algorithm: Any, digest: bytes) -> Any:
            hashed, curve = made[algorithm]
            assert world.key.curve.name == curve
            r, s = decode_dss_signature(world.digest_signature(digest, hashed))
            size = (world.key.curve.key_size + 7) // 8
            return SimpleNamespace(signature=r.to_bytes(size, "big") + s.to_bytes(size, "big"))

    monkeypatch.setattr(module, "DefaultAzureCredential", lambda: None)
    monkeypatch.setattr(module, "KeyClient", Keys)
    monkeypatch.setattr(module, "CryptographyClient", Crypto)


@pytest.mark.parametrize(
    ("uri", "curve"),
    [(GCP, "p256"), (GCP, "p384"), *((uri, curve) for uri in (AZURE, HV) for curve in CURVES)],
    ids=lambda value: value.partition(":")[0],
)
def test_signs_on_every_curve_that_the_service_has(world: World, uri: str, curve: str) -> None:
    world.hold(ec.generate_private_key(CURVES[curve]))
    signer = load_signer(uri)
    data = b"x" * 100_000
    assert signer.public_key.verify(signer.sign(data), data)
    assert load_public_key(uri).pem == pem(world.key)
    assert signer.uri == uri


def test_ed25519_in_vault_signs_attestations(world: World) -> None:
    world.hold(ed25519.Ed25519PrivateKey.generate())
    signer = load_signer(HV)
    assert signer.public_key.algorithm == "Ed25519"
    assert signer.public_key.verify(signer.sign(b"statement"), b"statement")


def test_vault_is_sent_the_digest_alone(world: World) -> None:
    load_signer(HV).sign(b"x" * 100_000)
    path, body = world.vault.requests[-1]
    assert path == "/v1/transit/sign/models"
    assert len(body["input"]) == 44
    assert (body["prehashed"], body["key_version"], body["marshaling_algorithm"]) == (True, 1, "asn1")


@pytest.mark.parametrize("uri", [GCP, AZURE, HV], ids=lambda uri: uri.partition(":")[0])
class TestEach:
    def test_a_signed_artifact_verifies_with_the_public_half_alone(
        self, world: World, uri: str, tmp_path: Path
    ) -> None:
        model = write_tree(tmp_path / "model", {"a": b"1"})
        ref = sealflow.sign(model, signer=uri)
        world.error, world.vault.status = ConnectionError(), 503
        assert sealflow.verify(ref, identities=pem(world.key).decode()).passed

    def test_a_service_that_hashes_the_digest_again_is_found_out(self, world: World, uri: str, tmp_path: Path) -> None:
        world.misbehave()
        model = write_tree(tmp_path / "model", {"a": b"1"})
        with pytest.raises(UnavailableError, match="does not verify"):
            sealflow.sign(model, signer=uri)
        assert not (tmp_path / "model.evidence").exists()

    def test_a_service_that_signs_with_another_key_is_found_out(self, world: World, uri: str) -> None:
        signer = load_signer(uri)
        world.hold(ec.generate_private_key(ec.SECP256R1()))
        with pytest.raises(UnavailableError, match="does not verify"):
            signer.sign(b"data")

    def test_the_public_half_can_be_given(self, world: World, uri: str, tmp_path: Path) -> None:
        """Then the service needs to be asked for signatures only."""
        (tmp_path / "key.pub").write_bytes(pem(world.key))
        signer = load_signer(f"{uri}?public-key={tmp_path}/key.pub")
        assert signer.public_key.verify(signer.sign(b"data"), b"data")
        assert signer.uri == uri
        (tmp_path / "key.pub").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
        with pytest.raises(UnavailableError, match="does not verify"):
            load_signer(f"{uri}?public-key={tmp_path}/key.pub").sign(b"data")

    def test_its_certificate(self, world: World, uri: str, tmp_path: Path) -> None:
        (tmp_path / "cert.pem").write_bytes(certify("service", key=world.key).pem)
        assert len(load_signer(f"{uri}?certificate={tmp_path}/cert.pem").certificates) == 1
        (tmp_path / "cert.pem").write_bytes(certify("other").pem)
        with pytest.raises(UsageError, match="another key"):
            load_signer(f"{uri}?certificate={tmp_path}/cert.pem")

    def test_options_of_other_schemes_are_refused(self, world: World, uri: str) -> None:
        with pytest.raises(UsageError, match="takes certificate, public-key"):
            load_signer(f"{uri}?region=eu")

    @pytest.mark.parametrize(
        "make",
        [lambda: ec.generate_private_key(ec.SECP256K1()), lambda: rsa.generate_private_key(65537, 2048)],
        ids=["secp256k1", "rsa"],
    )
    def test_kinds_that_cannot_sign_for_us(self, world: World, uri: str, make: Callable[[], Any]) -> None:
        world.hold(make())
        with pytest.raises(UsageError) as caught:
            load_signer(uri)
        assert caught.value.code == "KEY_UNSUPPORTED"

    def test_without_the_library_one_error_names_the_extra(
        self, world: World, uri: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from securesystemslib.signer import _azure_signer, _gcp_signer

        if uri == HV:
            monkeypatch.setitem(sys.modules, "hvac", None)
        monkeypatch.setattr(_azure_signer, "AZURE_IMPORT_ERROR", "missing")
        monkeypatch.setattr(_gcp_signer, "GCP_IMPORT_ERROR", "missing")
        for act in (load_public_key, load_signer):
            with pytest.raises(MissingExtraError) as caught:
                act(uri)
            assert caught.value.extra == {"gcpkms": "gcp", "azurekms": "azure", "hv": "vault"}[uri.partition(":")[0]]


@pytest.mark.parametrize("uri", [GCP, AZURE, HV], ids=lambda uri: uri.partition(":")[0])
def test_without_securesystemslib(uri: str) -> None:
    """In a process of its own: a library that was imported once cannot be taken away again."""
    code = (
        "import sys; sys.modules['securesystemslib'] = None; sys.modules['hvac'] = None\n"
        "from sealflow.keys import load_signer\n"
        f"try: load_signer({uri!r})\n"
        "except Exception as error: print(type(error).__name__, error.extra)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"MissingExtraError (gcp|azure|vault)\n", done.stdout)


# --- What the services' own errors become ---


def google_errors() -> list[tuple[Exception, type[Exception], str]]:
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError

    return [
        (exceptions.Forbidden(SECRET), UnavailableError, "PERMISSION_DENIED"),
        (exceptions.Unauthenticated(SECRET), UnavailableError, "PERMISSION_DENIED"),
        (DefaultCredentialsError(SECRET), UnavailableError, "PERMISSION_DENIED"),
        (exceptions.NotFound(SECRET), UsageError, "KEY_MISSING"),
        (exceptions.ServiceUnavailable(SECRET), UnavailableError, "BACKEND_UNAVAILABLE"),
        (exceptions.FailedPrecondition(SECRET), UnavailableError, "BACKEND_UNAVAILABLE"),
    ]


def azure_errors() -> list[tuple[Exception, type[Exception], str]]:
    from azure.core.exceptions import (
        ClientAuthenticationError,
        HttpResponseError,
        ResourceNotFoundError,
        ServiceRequestError,
    )

    denied = HttpResponseError(SECRET)
    denied.status_code = 403
    return [
        (denied, UnavailableError, "PERMISSION_DENIED"),
        (ClientAuthenticationError(SECRET), UnavailableError, "PERMISSION_DENIED"),
        (ResourceNotFoundError(SECRET), UsageError, "KEY_MISSING"),
        (ServiceRequestError(SECRET), UnavailableError, "BACKEND_UNAVAILABLE"),
    ]


@pytest.mark.parametrize(("uri", "errors"), [(GCP, google_errors), (AZURE, azure_errors)], ids=["gcpkms", "azurekms"])
def test_errors_of_the_clouds(world: World, uri: str, errors: Callable[[], list[Any]]) -> None:
    for error, kind, code in errors():
        world.error = error
        with pytest.raises(kind) as caught:
            load_signer(uri)
        assert caught.value.code == code, error  # type: ignore[attr-defined]
        assert SECRET not in str(caught.value)
    world.error = None
    signer = load_signer(uri)
    world.error = errors()[0][0]
    with pytest.raises(UnavailableError) as refused:
        signer.sign(b"data")
    assert refused.value.code == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, UnavailableError, "PERMISSION_DENIED"),
        (403, UnavailableError, "PERMISSION_DENIED"),
        (404, UsageError, "KEY_MISSING"),
        (429, UnavailableError, "BACKEND_UNAVAILABLE"),
        (500, UnavailableError, "BACKEND_UNAVAILABLE"),
        (503, UnavailableError, "BACKEND_UNAVAILABLE"),  # sealed
    ],
)
def test_errors_of_vault(world: World, status: int, kind: type[Exception], code: str) -> None:
    world.vault.status = status
    with pytest.raises(kind) as caught:
        load_signer(HV)
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert world.vault.token not in str(caught.value)


def test_a_vault_that_is_not_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")
    with pytest.raises(UnavailableError):
        load_signer(HV)
    monkeypatch.setenv("VAULT_ADDR", world.vault.url)
    monkeypatch.setenv("VAULT_TOKEN", "another")
    with pytest.raises(UnavailableError) as caught:
        load_signer(HV)
    assert caught.value.code == "PERMISSION_DENIED"


def test_a_version_stays_the_one_that_the_uri_names(world: World) -> None:
    old, new = world.key, ec.generate_private_key(ec.SECP256R1())
    world.vault.keys["models"] = [old, new]
    assert load_public_key(HV).pem == pem(old)
    assert load_public_key("hv:models/2").pem == pem(new)
    signer = load_signer(HV)
    assert signer.public_key.verify(signer.sign(b"data"), b"data")
    with pytest.raises(UsageError) as caught:
        load_signer("hv:models/3")
    assert caught.value.code == "KEY_MISSING"
    # Azure hands out its newest version only.
    with pytest.raises(UsageError, match="not the version"):
        load_signer(AZURE.replace("0123", "ffff"))


@pytest.mark.parametrize(
    "uri",
    [
        "gcpkms:projects/p/locations/eu/keyRings/r/cryptoKeys/k",
        "azurekms://team.vault.azure.net/keys/models",
        "azurekms://team.vault.azure.net/secrets/models/1",
        "azurekms://team.vault.azure.net.evil.example/keys/models/1",
        "azurekms://evil.example/keys/models/1",
        "azurekms:",
        "azurekms://localhost#.vault.azure.net/keys/models/1",
        "azurekms://a@b.vault.azure.net/keys/models/1",
        "azurekms://team.vault.azure.net:444/keys/models/1",
        "azurekms://team.vault.azure.net/keys/../1",
        "gcpkms:projects/p/locations/eu/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1/../2",
        "hv:../1",
        "hv:a%2Fb/1",
        "hv:a#b/1",
        "hv:models",
        "hv:models/latest",
        "hv:models/0",
        "hv:/1",
        "hv:a/b/1",
    ],
)
def test_uris_that_name_no_version_of_a_key(world: World, uri: str, tmp_path: Path) -> None:
    """Their parts become an address to which this process's credentials go."""
    (tmp_path / "key.pub").write_bytes(pem(world.key))
    for more in ("", f"?public-key={tmp_path}/key.pub"):
        with pytest.raises(UsageError):
            load_signer(uri + more)
    assert world.vault.requests == []


def test_vaults_answers_are_read_strictly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Vault, "read", lambda self, name: (200, {"data": {"type": "ecdsa-p256", "keys": {"1": {"public_key": "x"}}}})
    )
    with pytest.raises(UsageError) as caught:
        load_signer(HV)
    assert caught.value.code == "KEY_UNSUPPORTED"
