"""A SoftHSM2 token for one test run, in a folder of its own: a real PKCS#11 library without the hardware."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "softhsm2"
LABEL = "sealflow test"

_LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
# CKA_ID and OID or name of each key's curve.
KEYS = {"p256": ("secp256r1", b"\x01"), "p384": ("secp384r1", b"\x02"), "p521": ("secp521r1", b"\x03")}
_ED25519 = "1.3.101.112"


def library() -> str:
    """Path of the library; empty where it is not installed."""
    return next((path for path in _LIBRARIES if os.path.exists(path)), "")


def missing() -> str:
    """What of SoftHSM2 is not installed; empty where it is."""
    if shutil.which("softhsm2-util") is None:
        return "softhsm2-util"
    return "" if library() else "libsofthsm2.so"


@dataclass(frozen=True)
class SoftHsm:
    """A token that holds a key pair for each name in ``KEYS``, an Ed25519 one, and an RSA one.

    Attributes:
        library: Path of the library.
        pin: The user's PIN.
        home: Folder of the token and its configuration.
    """

    library: str
    pin: str
    home: Path

    def uri(self, name: str, **query: str) -> str:
        """Return the URI of a key, by its label."""
        options = "&".join(f"{key}={value}" for key, value in query.items())
        return f"pkcs11:token={LABEL.replace(' ', '%20')};object={name}{options and '?'}{options}"

    @contextlib.contextmanager
    def session(self) -> Iterator:
        """Open a session that may write."""
        import pkcs11

        with pkcs11.lib(self.library).get_token(token_label=LABEL).open(rw=True, user_pin=self.pin) as session:
            yield session


@contextlib.contextmanager
def softhsm_token() -> Iterator[SoftHsm]:
    """Make a token with its keys; the library of this process and of its children sees no other."""
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters as curve

    home = Path(tempfile.mkdtemp(prefix="sf-hsm-"))
    path = library()
    pin, so_pin = secrets.token_hex(8), secrets.token_hex(8)
    (home / "tokens").mkdir()
    (home / "softhsm2.conf").write_text(
        f"directories.tokendir = {home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(home / "softhsm2.conf"))
        try:
            subprocess.run(
                [
                    *("softhsm2-util", "--init-token", "--free", "--label", LABEL),
                    *("--pin", pin, "--so-pin", so_pin),
                ],
                check=True,
                capture_output=True,
                timeout=60,
            )
            token = SoftHsm(path, pin, home)
            with token.session() as session:
                for name, (oid, ident) in KEYS.items():
                    parameters = session.create_domain_parameters(
                        pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: curve(oid)}, local=True
                    )
                    parameters.generate_keypair(store=True, label=name, id=ident)
                edwards = session.create_domain_parameters(
                    pkcs11.KeyType.EC_EDWARDS, {pkcs11.Attribute.EC_PARAMS: curve(_ED25519)}, local=True
                )
                edwards.generate_keypair(
                    mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label="ed25519", id=b"\x04"
                )
                session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="rsa", id=b"\x05")
            yield token
        finally:
            pkcs11.unload(path)
            shutil.rmtree(home, ignore_errors=True)
