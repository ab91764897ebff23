"""Sealed values: each attack on an envelope, by the code that it meets."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow.encryption import encrypt_message, load_recipient
from sealflow.encryption.raw import AesRecipient
from sealflow.encryption.value import Opened, SealedValue, load_value_keys, open_value, seal_value
from sealflow.errors import SealflowError, UsageError
from tests.core.encryption.messages import public_rsa

LIMIT = 4096
SLOT = {"dag": "train", "task": "fit", "key": "return_value"}
NAMES = frozenset(SLOT)
VALUE = b'{"score": 0.93, "rows": [1, 2, 3]}'


def write_key(folder: Path, fill: int, query: str = "") -> str:
    path = folder / f"{fill}.key"
    path.write_bytes(bytes([fill]) * 32)
    path.chmod(0o600)
    return f"aes:{path}{query}"


def keyring(folder: Path, *fills: int) -> tuple[AesRecipient, ...]:
    return load_value_keys([write_key(folder, fill) for fill in fills])


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> AesRecipient:
    return keyring(tmp_path_factory.mktemp("keys"), 1)[0]


def opened(found: Any, *keys: AesRecipient, expected: dict[str, str] | None = None) -> Opened:
    envelope = SealedValue.parse(found, limit=LIMIT)
    return open_value(envelope, keys, NAMES, SLOT if expected is None else expected)


@given(value=st.binary(max_size=300))
def test_round_trips(key: AesRecipient, value: bytes) -> None:
    envelope = seal_value(value, SLOT, key, limit=LIMIT).as_dict()
    assert opened(envelope, key) == (value, SLOT, key.name)
    assert envelope["bytes"] == len(value)
    assert value not in base64.b64decode(envelope["sealed"]) or len(value) < 5


def test_two_envelopes_of_one_value_have_nothing_in_common(key):
    one, two = (base64.b64decode(seal_value(VALUE, SLOT, key, limit=LIMIT).sealed)[-50:] for _ in range(2))
    assert one != two


def test_what_the_reader_does_not_know_is_told(key):
    envelope = seal_value(VALUE, SLOT, key, limit=LIMIT).as_dict()
    assert opened(envelope, key, expected={"dag": "train"}).slot == SLOT


def test_several_keys_open_and_the_first_seals(tmp_path):
    old, new = keyring(tmp_path, 1)[0], keyring(tmp_path, 2)[0]
    envelope = seal_value(VALUE, SLOT, old, limit=LIMIT).as_dict()
    assert opened(envelope, new, old).key_id == old.name
    with pytest.raises(SealflowError) as caught:
        opened(envelope, new)
    assert (caught.value.code, caught.value.exit_status) == ("VALUE_FOREIGN", 4)


def message_of(envelope: dict[str, Any]) -> bytearray:
    return bytearray(base64.b64decode(envelope["sealed"]))


def with_message(envelope: dict[str, Any], message: bytes) -> dict[str, Any]:
    return envelope | {"sealed": base64.b64encode(message).decode()}


def test_no_bit_of_the_message_can_be_flipped(key):
    envelope = seal_value(VALUE, SLOT, key, limit=LIMIT).as_dict()
    size = len(message_of(envelope))
    for at in range(size):
        message = message_of(envelope)
        message[at] ^= 1 << (at % 8)
        with pytest.raises(SealflowError, match="VALUE_"):
            opened(with_message(envelope, message), key)


def test_no_end_of_the_message_can_be_cut(key):
    envelope = seal_value(VALUE, SLOT, key, limit=LIMIT).as_dict()
    for length in range(len(message_of(envelope))):
        with pytest.raises(SealflowError, match="VALUE_"):
            opened(with_message(envelope, message_of(envelope)[:length]), key)


def other_recipients(envelope: dict[str, Any], key: AesRecipient, folder: Path) -> dict[str, Any]:
    return with_message(envelope, encrypt_message(VALUE, [key, public_rsa(folder)], SLOT))


ATTACKS = {
    "clear-object": (lambda e, k, f: {"score": 0.93}, "VALUE_CLEAR"),
    "clear-text": (lambda e, k, f: "0.93", "VALUE_CLEAR"),
    "clear-list": (lambda e, k, f: [e], "VALUE_CLEAR"),
    "null": (lambda e, k, f: None, "VALUE_CLEAR"),
    "text-of-the-envelope": (lambda e, k, f: str(e), "VALUE_CLEAR"),
    "sealed-by-another": (lambda e, k, f: e | {"sealed_by": "Sealflow"}, "VALUE_CLEAR"),
    "extra-member": (lambda e, k, f: e | {"note": 1}, "VALUE_MALFORMED"),
    "member-missing": (lambda e, k, f: {n: v for n, v in e.items() if n != "bytes"}, "VALUE_MALFORMED"),
    "later-format": (lambda e, k, f: e | {"format": 2}, "VALUE_MALFORMED"),
    "format-is-a-boolean": (lambda e, k, f: e | {"format": True}, "VALUE_MALFORMED"),
    "other-algorithm": (lambda e, k, f: e | {"algorithm": "none"}, "VALUE_MALFORMED"),
    "bytes-is-a-float": (lambda e, k, f: e | {"bytes": float(len(VALUE))}, "VALUE_MALFORMED"),
    "bytes-below-zero": (lambda e, k, f: e | {"bytes": -1}, "VALUE_MALFORMED"),
    "another-length": (lambda e, k, f: e | {"bytes": len(VALUE) - 1}, "VALUE_ALTERED"),
    "huge-length": (lambda e, k, f: e | {"bytes": 10**30}, "VALUE_TOO_LARGE"),
    "another-key-id": (lambda e, k, f: e | {"key_id": "other"}, "VALUE_ALTERED"),
    "empty-key-id": (lambda e, k, f: e | {"key_id": ""}, "VALUE_MALFORMED"),
    "long-key-id": (lambda e, k, f: e | {"key_id": "k" * 300}, "VALUE_MALFORMED"),
    "not-base64": (lambda e, k, f: e | {"sealed": "%%%"}, "VALUE_MALFORMED"),
    "other-spelling-of-base64": (lambda e, k, f: e | {"sealed": e["sealed"] + "\n"}, "VALUE_MALFORMED"),
    "beyond-ascii": (lambda e, k, f: e | {"sealed": "ü" * 8}, "VALUE_MALFORMED"),
    "empty": (lambda e, k, f: e | {"sealed": ""}, "VALUE_MALFORMED"),
    "a-location": (lambda e, k, f: e | {"sealed": "file:///xcom/train/1.json"}, "VALUE_MALFORMED"),
    "huge": (lambda e, k, f: e | {"sealed": "A" * 1_000_000}, "VALUE_TOO_LARGE"),
    "bytes-behind-it": (lambda e, k, f: with_message(e, bytes(message_of(e)) + b"\0"), "VALUE_ALTERED"),
    "an-artifact": (
        lambda e, k, f: with_message(e, encrypt_message(VALUE, [k], {"sealflow-artifact": "sha256:00"})),
        "VALUE_MALFORMED",
    ),
    "one-more-pair": (
        lambda e, k, f: with_message(e, encrypt_message(VALUE, [k], SLOT | {"more": "1"})),
        "VALUE_MALFORMED",
    ),
    "one-pair-less": (
        lambda e, k, f: with_message(e, encrypt_message(VALUE, [k], {"dag": "train"})),
        "VALUE_MALFORMED",
    ),
    "for-one-more-key": (other_recipients, "VALUE_MALFORMED"),
    "to-a-public-key": (
        lambda e, k, f: with_message(e, encrypt_message(VALUE, [public_rsa(f)], SLOT)),
        "VALUE_FOREIGN",
    ),
    "another-deployments": (
        lambda e, k, f: seal_value(VALUE, SLOT, keyring(f, 9)[0], limit=LIMIT).as_dict(),
        "VALUE_FOREIGN",
    ),
    "another-key-of-this-name": (
        lambda e, k, f: seal_value(
            VALUE, SLOT, load_recipient(write_key(f, 9, f"?name={k.name}")), limit=LIMIT
        ).as_dict(),
        "VALUE_FOREIGN",
    ),
    "another-slot": (
        lambda e, k, f: seal_value(VALUE, SLOT | {"task": "evaluate"}, k, limit=LIMIT).as_dict(),
        "VALUE_MISPLACED",
    ),
}


@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS)
def test_refused(key, tmp_path, attack, code):
    envelope = seal_value(VALUE, SLOT, key, limit=LIMIT).as_dict()
    assert opened(envelope, key).value == VALUE
    with pytest.raises(SealflowError) as caught:
        opened(attack(envelope, key, tmp_path), key)
    assert caught.value.code == code
    assert not caught.value.retryable
    assert caught.value.next_step
    assert "0.93" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(SLOT))
def test_each_name_of_the_slot_is_bound(key, name):
    sealed = seal_value(VALUE, SLOT, key, limit=LIMIT)
    with pytest.raises(SealflowError, match="VALUE_MISPLACED"):
        open_value(sealed, [key], NAMES, SLOT | {name: SLOT[name] + "x"})


def test_too_large_to_seal(key):
    assert seal_value(bytes(LIMIT), SLOT, key, limit=LIMIT).size == LIMIT
    with pytest.raises(UsageError, match="VALUE_TOO_LARGE"):
        seal_value(bytes(LIMIT + 1), SLOT, key, limit=LIMIT)


def test_a_value_at_the_limit_is_read(key):
    limit = 3 << 20
    sealed = seal_value(bytes(limit), SLOT, key, limit=limit)
    assert SealedValue.parse(sealed.as_dict(), limit=limit) == sealed
    assert open_value(sealed, [key], NAMES, SLOT).value == bytes(limit)


def exposed(mode: int):
    def make(folder: Path) -> str:
        uri = write_key(folder, 3)
        Path(uri.removeprefix("aes:")).chmod(mode)
        return uri

    return make


KEYS = {
    "others-read": (exposed(0o604), "KEY_EXPOSED"),
    "others-write": (exposed(0o602), "KEY_EXPOSED"),
    "group-writes": (exposed(0o620), "KEY_EXPOSED"),
    "missing": (lambda f: f"aes:{f}/none.key", "KEY_MISSING"),
    "a-folder": (lambda f: f"aes:{f}", "KEY_EXPOSED"),
    "public-key": (lambda f: f"rsa:{f}/team.pem", "KEY_UNSUPPORTED"),
    "service": (lambda f: "awskms:alias/xcom", "KEY_UNSUPPORTED"),
    "path": (lambda f: f"{f}/1.key", "KEY_UNSUPPORTED"),
    "unprintable-name": (lambda f: write_key(f, 3, "?name=a%0Ab"), "KEY_UNSUPPORTED"),
    "long-name": (lambda f: write_key(f, 3, "?name=" + "n" * 257), "KEY_UNSUPPORTED"),
}


@pytest.mark.parametrize(("make", "code"), KEYS.values(), ids=KEYS)
def test_key_refused(tmp_path, make, code):
    with pytest.raises(UsageError) as caught:
        load_value_keys([make(tmp_path)])
    assert caught.value.code == code


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_key_taken(tmp_path, mode):
    uri = write_key(tmp_path, 3)
    Path(uri.removeprefix("aes:")).chmod(mode)
    assert len(load_value_keys([uri + "?name=2026"])) == 1


def test_no_key_and_a_short_key(tmp_path):
    with pytest.raises(UsageError, match="KEY_MISSING"):
        load_value_keys([])
    (tmp_path / "3.key").write_bytes(b"short")
    (tmp_path / "3.key").chmod(0o600)
    with pytest.raises(UsageError, match="KEY_UNREADABLE"):
        load_value_keys([f"aes:{tmp_path}/3.key"])


def test_an_envelope_is_what_its_members_say(key):
    sealed = seal_value(VALUE, SLOT, key, limit=LIMIT)
    assert sealed.as_dict() | {"sealed": "…"} == {
        "sealed_by": "sealflow",
        "format": 1,
        "algorithm": "AES-256-GCM",
        "key_id": key.name,
        "bytes": len(VALUE),
        "sealed": "…",
    }
    moved = dataclasses.replace(sealed, sealed="s3://bucket/xcom/1.json")
    assert SealedValue.parse(moved.as_dict(), limit=LIMIT) == moved
