"""Signed notes: the examples of the specification and of Go, and what is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealflow.audit.note import (
    COSIGNATURE,
    ED25519,
    MAX_NOTE,
    Note,
    Signature,
    VerifierKey,
    load_verifier_key,
    parse_note,
    sign_note,
    with_signatures,
)
from sealflow.errors import EvidenceError, UsageError
from sealflow.keys import load_signer
from tests.core.audit.logs import ed25519_signer
from tests.pki import write_key

# C2SP signed-note, "Example".
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
""".encode()
# golang.org/x/mod/sumdb/note, example_test.go.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
""".encode()


@pytest.mark.parametrize(("key", "note"), [(SPEC_KEY, SPEC_NOTE), (GO_KEY, GO_NOTE)], ids=["specification", "Go"])
def test_published_examples(key: str, note: bytes) -> None:
    verifier = VerifierKey.parse(key)
    assert str(verifier) == key
    opened = parse_note(note)
    assert len(opened.by(verifier)) == 1
    assert opened.encode() == note
    altered = parse_note(note.replace(b"is", b"si", 1))
    with pytest.raises(EvidenceError) as caught:
        altered.by(verifier)
    assert caught.value.code == "LOG_CHECKPOINT"


def test_a_text_may_hold_empty_lines(tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    text = b"Ognuno\n\ned \xc3\xa8 subito sera.\n"
    note = sign_note(text, signer, "quasimodo.example/salvatore")
    opened = parse_note(note)
    assert opened.text == text
    assert opened.by(VerifierKey.of(signer, "quasimodo.example/salvatore"))


def test_signatures_of_unknown_keys_are_ignored(tmp_path: Path) -> None:
    signer, other = ed25519_signer(tmp_path), ed25519_signer(tmp_path, "other")
    note = parse_note(sign_note(b"text\n", signer, "a.example"))
    key = VerifierKey.of(signer, "a.example")
    junk = [Signature("a.example", b"\0\0\0\1", b"junk"), Signature("b.example", key.id, b"junk")]
    crowded = parse_note(Note(note.text, (*junk * 8, *note.signatures)).encode())
    assert len(crowded.signatures) == 17
    assert crowded.by(key) == note.signatures
    assert note.by(VerifierKey.of(other, "a.example")) == ()


def test_one_bad_signature_of_a_known_key_refuses_the_note(tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    note = parse_note(sign_note(b"text\n", signer, "a.example"))
    good = note.signatures[0]
    bad = good._replace(data=bytes(64))
    for both in ((good, bad), (bad, good)):
        with pytest.raises(EvidenceError):
            Note(note.text, both).by(VerifierKey.of(signer, "a.example"))


GOOD = SPEC_NOTE.decode().splitlines()[2]
MALFORMED = {
    "empty": b"",
    "no blank line": b"text\n" + GOOD.encode() + b"\n",
    "no signatures": b"text\n\n",
    "no final line end": SPEC_NOTE[:-1],
    "a hyphen": SPEC_NOTE.replace("—".encode(), b"-"),
    "carriage return": SPEC_NOTE.replace(b"message.", b"message.\r"),
    "a NUL": SPEC_NOTE.replace(b"message.", b"message.\0"),
    "a tab": SPEC_NOTE.replace(b"message.", b"message.\t"),
    "not UTF-8": SPEC_NOTE.replace(b"message.", b"message.\xff"),
    "text after the signatures": SPEC_NOTE + b"text\n",
    "no name": SPEC_NOTE.replace(b"example.com/foo ", b" "),
    "a plus in the name": SPEC_NOTE.replace(b"example.com/foo ", b"example.com+foo "),
    "a space in the name": SPEC_NOTE.replace(b"example.com/foo ", "example.com\u2003foo ".encode()),
    "no base64": SPEC_NOTE.replace(b"IneyaQM=", b"IneyaQM"),
    "base64 of two texts": SPEC_NOTE.replace(b"IneyaQM=", b"IneyaQN="),
    "base64 of foreign digits": SPEC_NOTE.replace(b"IneyaQM=", "IneyaQ٣=".encode()),
    "a short signature": "text\n\n— a AAAAAA==\n".encode(),
    "too many signatures": SPEC_NOTE + (GOOD + "\n").encode() * 100,
    "too long": b"x" * MAX_NOTE + SPEC_NOTE,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_notes(data: bytes) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_note(data)
    assert caught.value.code == "LOG_CHECKPOINT"


MALFORMED_KEYS = {
    "empty": "",
    "no id": "example.com/foo+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    "another id": SPEC_KEY.replace("530d903a", "530d903b"),
    "upper case": SPEC_KEY.replace("530d903a", "530D903A"),
    "another name": SPEC_KEY.replace("foo", "bar"),
    "a kind that we do not know": "a+00000000+" + base64.b64encode(b"\2" + bytes(32)).decode(),
    "short": "a+00000000+" + base64.b64encode(b"\1" + bytes(31)).decode(),
    "no base64": "a+00000000+AA",
    "no name": SPEC_KEY.removeprefix("example.com/foo"),
    "a space": SPEC_KEY.replace("foo", "f oo"),
}


@pytest.mark.parametrize("text", MALFORMED_KEYS.values(), ids=MALFORMED_KEYS)
def test_malformed_verifier_keys(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        VerifierKey.parse(text)
    assert caught.value.code == "KEY_UNSUPPORTED"


def test_a_verifier_key_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SPEC_KEY + "\n")
    expected = VerifierKey.parse(SPEC_KEY)
    assert load_verifier_key(str(tmp_path / "key")) == load_verifier_key(SPEC_KEY) == expected
    (tmp_path / "key").write_bytes(b"\xff")
    with pytest.raises(UsageError):
        load_verifier_key(str(tmp_path / "key"))
    with pytest.raises(UsageError):
        load_verifier_key(str(tmp_path / "none"))


def test_only_ed25519_signs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ECDSA"):
        sign_note(b"text\n", load_signer(write_key(tmp_path).signer), "a.example")
    with pytest.raises(UsageError, match="name"):
        sign_note(b"text\n", ed25519_signer(tmp_path), "a example")


def cosign(key: Ed25519PrivateKey, name: str, text: bytes, time: int) -> tuple[VerifierKey, Signature]:
    verifier = VerifierKey(name, COSIGNATURE, key.public_key().public_bytes_raw())
    made = key.sign(f"cosignature/v1\ntime {time}\n".encode() + text)
    return verifier, Signature(name, verifier.id, time.to_bytes(8, "big") + made)


def test_cosignatures(tmp_path: Path) -> None:
    note = parse_note(sign_note(b"text\n", ed25519_signer(tmp_path), "a.example"))
    key = Ed25519PrivateKey.generate()
    witness, first = cosign(key, "w.example", note.text, 1_679_315_147)
    cosigned = with_signatures(note, [first], [witness])
    assert cosigned.by(witness)[0].time == 1_679_315_147
    assert parse_note(cosigned.encode()) == cosigned
    # A later one takes the place of the earlier one; one of somebody else is left out.
    _, second = cosign(key, "w.example", note.text, 1_679_315_200)
    _, foreign = cosign(Ed25519PrivateKey.generate(), "x.example", note.text, 1)
    again = with_signatures(cosigned, [foreign, second], [witness])
    assert again.signatures == (note.signatures[0], second)
    # Its time is signed, and a plain signature is none.
    assert not witness.verifies(note.text, (1_679_315_148).to_bytes(8, "big") + first.data[8:])
    assert not witness.verifies(note.text, key.sign(note.text))
    assert not VerifierKey("w.example", ED25519, witness.raw).verifies(note.text, first.data)
    beyond = (1 << 63).to_bytes(8, "big")
    message = b"cosignature/v1\ntime %d\n" % (1 << 63) + note.text
    assert not witness.verifies(note.text, beyond + key.sign(message))
    with pytest.raises(EvidenceError):
        with_signatures(note, [first._replace(data=second.data[:8] + first.data[8:])], [witness])
