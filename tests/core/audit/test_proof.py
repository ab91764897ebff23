"""Proofs: what is accepted, and what is none."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from sealflow.audit.proof import MAX_PROOF, Proof, open_proof, parse_proof
from sealflow.audit.tiles import Tree
from sealflow.errors import EvidenceError
from tests.core.audit.logs import MadeLog, chain_lines

LINES = chain_lines(300)
HASH = base64.b64encode(bytes(range(32))).decode()


def proof_of(log: MadeLog, index: int) -> Proof:
    assert log.checkpoint is not None
    proof = Tree(log.store.get, log.size).inclusion_proof(index)
    return Proof(index, tuple(proof), log.checkpoint, LINES[index])


def test_round_trip(tmp_path: Path) -> None:
    log = MadeLog(tmp_path)
    log.add(LINES)
    for index in (0, 128, 255, 256, 299):
        proof = proof_of(log, index)
        data = proof.encode()
        assert data.startswith(b"c2sp.org/tlog-proof@v1\nextra ")
        assert parse_proof(data) == proof
        assert parse_proof(replace(proof, extra=b"").encode()) == replace(proof, extra=b"")
        assert open_proof(proof, LINES[index], log.key).checkpoint.size == 300


def test_what_it_does_not_prove(tmp_path: Path) -> None:
    log = MadeLog(tmp_path)
    log.add(LINES)
    other = MadeLog(tmp_path, uri=str(tmp_path / "other"), key="other")
    other.add(LINES)
    proof = proof_of(log, 7)
    assert other.checkpoint is not None
    refused = [
        (proof, LINES[8], "LOG_PROOF"),
        (replace(proof, index=6), LINES[7], "LOG_PROOF"),
        (replace(proof, index=300), LINES[7], "LOG_PROOF"),
        (replace(proof, hashes=proof.hashes[1:]), LINES[7], "LOG_PROOF"),
        (replace(proof, hashes=(*proof.hashes, bytes(32))), LINES[7], "LOG_PROOF"),
        (replace(proof, checkpoint=other.checkpoint), LINES[7], "LOG_CHECKPOINT"),
        (replace(proof, checkpoint=proof.checkpoint.replace(b"\n300\n", b"\n299\n")), LINES[7], "LOG_CHECKPOINT"),
    ]
    for altered, line, code in refused:
        with pytest.raises(EvidenceError) as caught:
            open_proof(altered, line, log.key)
        assert caught.value.code == code


MALFORMED = {
    "empty": "",
    "another version": f"c2sp.org/tlog-proof@v2\nindex 1\n{HASH}\n\nnote",
    "no index": f"c2sp.org/tlog-proof@v1\n{HASH}\n\nnote",
    "nothing but its name": "c2sp.org/tlog-proof@v1\n\nnote",
    "no checkpoint": f"c2sp.org/tlog-proof@v1\nindex 1\n{HASH}\n",
    "leading zero": f"c2sp.org/tlog-proof@v1\nindex 01\n{HASH}\n\nnote",
    "negative": f"c2sp.org/tlog-proof@v1\nindex -1\n{HASH}\n\nnote",
    "extra twice": f"c2sp.org/tlog-proof@v1\nextra AA==\nextra AA==\nindex 1\n{HASH}\n\nnote",
    "extra after the index": f"c2sp.org/tlog-proof@v1\nindex 1\nextra AA==\n{HASH}\n\nnote",
    "extra that is no base64": f"c2sp.org/tlog-proof@v1\nextra AA\nindex 1\n{HASH}\n\nnote",
    "a short hash": f"c2sp.org/tlog-proof@v1\nindex 1\n{HASH[4:]}\n\nnote",
    "a hash of two texts": f"c2sp.org/tlog-proof@v1\nindex 1\n{HASH[:-2]}9=\n\nnote",
    "too many hashes": "c2sp.org/tlog-proof@v1\nindex 1\n" + f"{HASH}\n" * 64 + "\nnote",
    "not ASCII": f"c2sp.org/tlog-proof@v1\nindex \u0661\n{HASH}\n\nnote",
    "carriage returns": f"c2sp.org/tlog-proof@v1\r\nindex 1\r\n{HASH}\r\n\r\nnote",
    "too long": f"c2sp.org/tlog-proof@v1\nindex 1\n{HASH}\n\n" + "x" * MAX_PROOF,
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed(text: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_proof(text.encode())
    assert caught.value.code == "LOG_PROOF"
