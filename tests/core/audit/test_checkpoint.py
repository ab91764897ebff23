"""Checkpoints: what is accepted and by whose key."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealflow.audit import merkle
from sealflow.audit.checkpoint import Checkpoint, open_checkpoint, parse_text, sign_checkpoint
from sealflow.audit.note import Signature, VerifierKey, parse_note, sign_note, with_signatures
from sealflow.errors import EvidenceError
from tests.core.audit.logs import ORIGIN, ed25519_signer
from tests.core.audit.test_note import cosign

ROOT = base64.b64encode(bytes(range(32))).decode()


def test_round_trip(tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    checkpoint = Checkpoint(ORIGIN, 20_852_163, bytes(range(32)))
    note = sign_checkpoint(checkpoint, signer)
    assert note.startswith(f"{ORIGIN}\n20852163\n{ROOT}\n\n— {ORIGIN} ".encode())
    opened = open_checkpoint(note, VerifierKey.of(signer, ORIGIN))
    assert opened.checkpoint == checkpoint
    assert opened.witnesses == {}


def test_extensions_are_read_and_not_understood(tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    note = sign_note(f"{ORIGIN}\n1\n{ROOT}\nextension\n".encode(), signer, ORIGIN)
    opened = open_checkpoint(note, VerifierKey.of(signer, ORIGIN))
    assert opened.checkpoint.extensions == ("extension",)
    assert opened.checkpoint.text == opened.note.text


MALFORMED = {
    "empty": "",
    "two lines": f"{ORIGIN}\n1\n",
    "no final line end": f"{ORIGIN}\n1\n{ROOT}",
    "no origin": f"\n1\n{ROOT}\n",
    "leading zero": f"{ORIGIN}\n01\n{ROOT}\n",
    "negative": f"{ORIGIN}\n-1\n{ROOT}\n",
    "a plus": f"{ORIGIN}\n+1\n{ROOT}\n",
    "an underscore": f"{ORIGIN}\n1_0\n{ROOT}\n",
    "a space": f"{ORIGIN}\n1 \n{ROOT}\n",
    "foreign digits": f"{ORIGIN}\n\u0661\n{ROOT}\n",
    "too large": f"{ORIGIN}\n9223372036854775808\n{ROOT}\n",
    "far too large": f"{ORIGIN}\n{'9' * 5000}\n{ROOT}\n",
    "a short root": f"{ORIGIN}\n1\n{ROOT[:-4]}\n",
    "a root of two texts": f"{ORIGIN}\n1\n{ROOT[:-2]}9=\n",
    "an empty extension": f"{ORIGIN}\n1\n{ROOT}\n\nmore\n",
    "nothing with a root": f"{ORIGIN}\n0\n{ROOT}\n",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed_texts(text: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_text(text.encode())
    assert caught.value.code == "LOG_CHECKPOINT"


def test_the_empty_log() -> None:
    empty = Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT)
    assert parse_text(empty.text) == empty


def test_another_log_another_key_and_an_altered_text(tmp_path: Path) -> None:
    signer, other = ed25519_signer(tmp_path), ed25519_signer(tmp_path, "other")
    note = sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), signer)
    refused = [
        (note, VerifierKey.of(signer, "log.example/other"), "not of"),
        (note, VerifierKey.of(other, ORIGIN), "not signed"),
        (note.replace(b"\n5\n", b"\n6\n"), VerifierKey.of(signer, ORIGIN), "not its key's"),
        # Signed by the log's key, under its name, for another log.
        (sign_note(Checkpoint("x", 5, bytes(32)).text, signer, ORIGIN), VerifierKey.of(signer, ORIGIN), "not of"),
    ]
    for data, key, message in refused:
        with pytest.raises(EvidenceError, match=message) as caught:
            open_checkpoint(data, key)
        assert caught.value.code == "LOG_CHECKPOINT"


def test_witnesses_are_counted_by_key(tmp_path: Path) -> None:
    signer = ed25519_signer(tmp_path)
    key = VerifierKey.of(signer, ORIGIN)
    note = parse_note(sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), signer))
    one, two = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    first, signature = cosign(one, "w.example/1", note.text, 10)
    alias, again = cosign(one, "w.example/2", note.text, 20)
    second, other = cosign(two, "w.example/3", note.text, 30)
    cosigned = with_signatures(note, [signature, again, other], [first, alias, second]).encode()
    assert len(open_checkpoint(cosigned, key, [first, alias]).witnesses) == 1
    assert open_checkpoint(cosigned, key, [first, second]).witnesses == {"w.example/1": 10, "w.example/3": 30}
    assert open_checkpoint(cosigned, key, [second]).witnesses == {"w.example/3": 30}
    assert open_checkpoint(note.encode(), key, [first]).witnesses == {}


def test_what_another_log_signs_is_no_cosignature(tmp_path: Path) -> None:
    signer, other = ed25519_signer(tmp_path), ed25519_signer(tmp_path, "other")
    note = parse_note(sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), signer))
    named = VerifierKey.of(other, "log.example/other")
    signature = Signature(named.name, named.id, other.sign(note.text))
    signed = with_signatures(note, [signature], [named]).encode()
    assert open_checkpoint(signed, VerifierKey.of(signer, ORIGIN), [named]).witnesses == {}


def test_the_log_is_no_witness_of_itself(tmp_path: Path) -> None:
    private = Ed25519PrivateKey.generate()
    signer = ed25519_signer(tmp_path)
    note = parse_note(sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), signer))
    key = VerifierKey.of(signer, ORIGIN)
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    log_key = load_pem_private_key((tmp_path / "log.pem").read_bytes(), None)
    assert isinstance(log_key, Ed25519PrivateKey)
    itself, signature = cosign(log_key, "w.example/1", note.text, 10)
    other, honest = cosign(private, "w.example/2", note.text, 10)
    cosigned = with_signatures(note, [signature, honest], [itself, other]).encode()
    assert open_checkpoint(cosigned, key, [itself, other]).witnesses == {"w.example/2": 10}
