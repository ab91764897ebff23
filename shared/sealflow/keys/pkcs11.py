"""Signing keys on PKCS#11 tokens: HSMs, smart cards, SoftHSM. The private half never leaves the token.

The digest is made here and the token signs it (``CKM_ECDSA``, PKCS#11 v3.0 section 2.3.6), since few tokens know the
mechanisms that hash by themselves. Ed25519 signs the data itself (``CKM_EDDSA``).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from sealflow.errors import MissingExtraError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys.pkcs11_uri import Pkcs11Uri, parse_pkcs11_uri
from sealflow.keys.public import CURVE_HASHES, CURVE_NAMES, PublicKey, read_key_file
from sealflow.keys.signer import PassphraseCallback, load_chain

#: Names the library of the token. Never the URI: reading a draft would run what it names.
MODULE_VARIABLE: Final = "SEALFLOW_PKCS11_MODULE"

_DIGESTS: Final = {f"ECDSA {CURVE_NAMES[name]}": digest for name, digest in CURVE_HASHES.items()}

# PKCS#11 sessions of one process share one login, so they are opened one after the other.
_lock = threading.Lock()
#: Library path to the process that initialised it: a fork inherits the memory, never the token's sessions.
_initialised: dict[str, int] = {}


def _after_fork() -> None:
    # Another thread may have held the lock at that moment, and there is nobody in the child who would release it.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)

T = TypeVar("T")


def public_key(uri: str) -> PublicKey:
    """Return the public half of a key on a token. No PIN is needed.

    Raises:
        UsageError: No such library, token or key, or a kind of key that is not ours.
        UnavailableError: The token does not answer.
        MissingExtraError: python-pkcs11 is not installed.
    """
    place = parse_pkcs11_uri(uri)
    return _act(place, None, lambda session: _public_key(place, session))


class Pkcs11Signer:
    """Signs with a key on a token. See :class:`~sealflow.keys.signer.KeySigner`.

    Args:
        uri: ``pkcs11:token=…;object=…`` (RFC 7512) with ``pin-source`` and ``certificate``.
        pin: Asked for the PIN where the URI names no ``pin-source``.

    Raises:
        UsageError: No such library, token or key, or a kind of key that is not ours.
        UnavailableError: The token does not answer.
        MissingExtraError: python-pkcs11 is not installed.
    """

    def __init__(self, uri: str, pin: PassphraseCallback) -> None:
        self._place = parse_pkcs11_uri(uri)
        self._ask = pin
        self.uri = self._place.text
        self.public_key = _act(self._place, None, lambda session: _public_key(self._place, session))
        self.certificates = load_chain(self._place.certificate, self.public_key)

    def sign(self, data: bytes) -> bytes:
        """See :class:`~sealflow.keys.signer.KeySigner`.

        Raises:
            UsageError: A wrong PIN, or none.
            UnavailableError: The token does not answer or refuses, or its signature does not verify.
        """
        pin = _pin(self._place, self._ask)
        signature = _act(self._place, pin, lambda session: self._sign(session, data))
        # A token whose object has another public half than its private one must not leave a useless signature.
        if not self.public_key.verify(signature, data):
            raise UnavailableError(f"The token returned a signature of {printable(self.uri)} that does not verify.")
        return signature

    def _sign(self, session: Any, data: bytes) -> bytes:
        from pkcs11 import Mechanism, ObjectClass

        key = _only(self._place, session, ObjectClass.PRIVATE_KEY, "private key")
        if self.public_key.algorithm not in _DIGESTS:
            return bytes(key.sign(data, mechanism=Mechanism.EDDSA))
        state = hashes.Hash(_DIGESTS[self.public_key.algorithm]())
        state.update(data)
        raw = bytes(key.sign(state.finalize(), mechanism=Mechanism.ECDSA))
        half = len(raw) // 2  # r and s, of equal length, big-endian (section 2.3.1)
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))


def _act(place: Pkcs11Uri, pin: str | None, work: Callable[[Any], T]) -> T:
    try:
        import pkcs11
        from pkcs11 import exceptions
    except ImportError:
        raise MissingExtraError("A PKCS#11 token", "pkcs11") from None

    shown = printable(place.text)
    try:
        with _lock, _session(_token(place, _library(pkcs11, exceptions, place)), pin, exceptions) as session:
            return work(session)
    except (exceptions.PinIncorrect, exceptions.PinInvalid, exceptions.PinLenRange):
        raise UsageError(
            f"The token of {shown} does not take this PIN.",
            code="KEY_UNREADABLE",
            next_step="Check the PIN before the next attempt: tokens lock after a few wrong ones.",
        ) from None
    except (exceptions.PinLocked, exceptions.PinExpired, exceptions.UserNotLoggedIn) as error:
        raise UnavailableError(
            f"The token of {shown} refuses ({type(error).__name__}).",
            code="PERMISSION_DENIED",
            next_step="Have the token's PIN reset or set.",
        ) from None
    except (exceptions.MechanismInvalid, exceptions.FunctionNotSupported):
        raise UsageError(f"The token of {shown} cannot sign with this kind of key.", code="KEY_UNSUPPORTED") from None
    except exceptions.PKCS11Error as error:
        raise UnavailableError(f"The token of {shown} failed ({type(error).__name__}).") from None


def _library(pkcs11: Any, exceptions: Any, place: Pkcs11Uri) -> Any:
    path = os.environ.get(MODULE_VARIABLE)
    if not path:
        raise UsageError(
            f"No library for the token of {printable(place.text)} is named.",
            next_step=f"Set {MODULE_VARIABLE} to its absolute path; p11-kit-proxy.so stands for several.",
        )
    if not os.path.isabs(path) or not os.path.isfile(path):
        # What is not absolute the loader would look for in folders that others may write.
        raise UsageError(f"There is no PKCS#11 library at {printable(path)}; its path is absolute.", code="KEY_MISSING")
    library = pkcs11.lib(path)
    if _initialised.setdefault(path, os.getpid()) != os.getpid():
        # A child process starts anew (PKCS#11 v3.0 section 5.4, C_Initialize); some libraries notice the fork and some
        # must be told.
        with contextlib.suppress(exceptions.PKCS11Error):
            library.finalize()
        library.initialize()
        _initialised[path] = os.getpid()
    return library


def _token(place: Pkcs11Uri, library: Any) -> Any:
    from pkcs11.exceptions import TokenNotPresent, TokenNotRecognised

    matching = []
    for slot in library.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except (TokenNotPresent, TokenNotRecognised):
            continue
        facts = {
            "token": token.label,
            "serial": token.serial.decode("utf-8", "replace").rstrip(),
            "manufacturer": token.manufacturer_id,
            "model": token.model,
            "slot-id": str(slot.slot_id),
        }
        if all(facts[name] == wanted for name, wanted in place.token):
            matching.append(token)
    if not matching:
        raise UnavailableError(
            f"No token here fits {printable(place.text)}.",
            next_step="Plug it in, or correct the URI (token=, serial=).",
        )
    if len(matching) > 1:
        raise UsageError(f"{len(matching)} tokens fit {printable(place.text)}.", next_step="Name its serial.")
    return matching[0]


@contextlib.contextmanager
def _session(token: Any, pin: str | None, exceptions: Any) -> Iterator[Any]:
    try:
        session = token.open(user_pin=pin)
    except exceptions.UserAlreadyLoggedIn:
        # Somebody else in this process uses the token; a login holds for all sessions of the process.
        session = token.open()
    with session:
        yield session


def _only(place: Pkcs11Uri, session: Any, kind: Any, noun: str) -> Any:
    from pkcs11 import Attribute

    wanted = {Attribute.CLASS: kind}
    if place.label is not None:
        wanted[Attribute.LABEL] = place.label
    if place.id is not None:
        wanted[Attribute.ID] = place.id
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        raise UsageError(
            f"The token has {len(found) or 'no'} {noun}{'s' * (len(found) > 1)} for {printable(place.text)}.",
            code="KEY_MISSING",
            next_step="Name the one by object= and id=." if found else "Check object= and id= of the URI.",
        )
    return found[0]


def _public_key(place: Pkcs11Uri, session: Any) -> PublicKey:
    from pkcs11 import Attribute, KeyType, ObjectClass
    from pkcs11.util.ec import encode_ec_public_key

    key = _only(place, session, ObjectClass.PUBLIC_KEY, "public key")
    try:
        if key.key_type == KeyType.EC:
            return PublicKey(serialization.load_der_public_key(encode_ec_public_key(key)))
        if key.key_type == KeyType.EC_EDWARDS:
            # An octet string of 32 bytes, or those bytes alone: PKCS#11 v3.0 and the tokens disagree.
            point = bytes(key[Attribute.EC_POINT])[-32:]
            return PublicKey(ed25519.Ed25519PublicKey.from_public_bytes(point))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"The public key of {printable(place.text)} is malformed.", code="KEY_UNSUPPORTED") from None
    kind = getattr(key.key_type, "name", str(key.key_type))
    raise UsageError(
        f"{printable(place.text)} is a key of the kind {printable(kind)}.",
        code="KEY_UNSUPPORTED",
        next_step="Use ECDSA on P-256, P-384 or P-521; Ed25519 for attestations only.",
    )


def _pin(place: Pkcs11Uri, ask: PassphraseCallback) -> str:
    source = place.pin_source
    if source is None:
        value = ask(place.text)
    elif source.startswith("env:"):
        text = os.environ.get(source.removeprefix("env:"))
        if text is None:
            raise UsageError(
                f"The variable that holds the PIN of {printable(place.text)} is not set.", code="PASSPHRASE_MISSING"
            )
        value = os.fsencode(text)
    else:
        value = read_key_file(source).rstrip(b"\r\n")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"The PIN of {printable(place.text)} is not UTF-8.", code="KEY_UNREADABLE") from None
