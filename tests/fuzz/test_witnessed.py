"""Whatever bytes stand for a log's proof, only our own errors come out, and nobody is given another time."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.audit import AuditEvent
from sealflow.audit.entry import Chain
from sealflow.audit.note import parse_note
from sealflow.audit.proof import Proof
from sealflow.errors import EvidenceError
from sealflow.evidence.timestamp import Stamp
from sealflow.evidence.witnessed import WitnessedLog
from sealflow.policy.requirement import NOTHING_REVOKED
from sealflow.run_identity import RunIdentity
from sealflow.verification.inclusion import check_inclusion, earliest_inclusion
from tests.attacks.test_witnessed_time import Witness
from tests.core.audit.logs import MadeLog, chain_lines
from tests.fuzz.test_untrusted_bytes import EXAMPLES
from tests.pki import NOW

SHA256 = "5e" * 32
CODES = {"LOG_PROOF", "LOG_CHECKPOINT", "LOG_UNWITNESSED", "AUDIT_SIGNATURE", "AUDIT_MALFORMED"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, WitnessedLog, Stamp]:
    log = MadeLog(Path(tmp_path_factory.mktemp("log")))
    witnesses = [Witness("w.example/one"), Witness("w.example/two")]
    event = AuditEvent("sign", "outcome", RunIdentity(), outcome="done", evidence=(f"sha256:{SHA256}",))
    line = Chain().add(event.to_json()).line
    log.add([line, *chain_lines(4)])
    note = log.checkpoint
    assert note is not None
    note += b"".join(each.line(parse_note(note).text, -2) for each in witnesses)
    from sealflow.audit.tiles import Tree

    proof = Proof(0, tuple(Tree(log.store.get, log.size).inclusion_proof(0)), note, line).encode()
    believed = WitnessedLog("log", str(log.key), tuple(str(each.key) for each in witnesses), 2)
    return proof, believed, check_inclusion(proof, SHA256, believed, NOW, NOTHING_REVOKED)


def _tells(proof: bytes, log: WitnessedLog) -> Stamp | str:
    try:
        return check_inclusion(proof, SHA256, log, NOW, NOTHING_REVOKED)
    except EvidenceError as error:
        return error.code


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_mutated_proof(sound: tuple[bytes, WitnessedLog, Stamp], data: st.DataObject) -> None:
    proof, log, told = sound
    changed = bytearray(proof)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        how = data.draw(st.sampled_from(["flip", "set", "cut", "double", "line"]))
        if how == "cut" and len(changed) > 8:
            del changed[at : at + data.draw(st.integers(1, 4))]
        elif how == "double":
            changed[at:at] = changed[at : at + 4]
        elif how == "line":
            lines = bytes(changed).split(b"\n")
            moved = lines.pop(data.draw(st.integers(0, len(lines) - 1)))
            lines.insert(data.draw(st.integers(0, len(lines))), moved)
            changed = bytearray(b"\n".join(lines))
        elif how == "flip":
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            changed[at] = data.draw(st.integers(0, 255))
    found = _tells(bytes(changed), log)
    assert found == told or found in CODES


def test_each_byte_changed(sound: tuple[bytes, WitnessedLog, Stamp]) -> None:
    """No byte of a proof is free."""
    proof, log, told = sound
    for at in range(len(proof)):
        changed = proof[:at] + bytes([proof[at] ^ 1]) + proof[at + 1 :]
        assert _tells(changed, log) in CODES, at
    assert _tells(proof, log) == told


@settings(max_examples=EXAMPLES)
@given(st.lists(st.binary(max_size=400), max_size=4))
def test_junk(sound: tuple[bytes, WitnessedLog, Stamp], junk: list[bytes]) -> None:
    proof, log, told = sound
    now = NOW + datetime.timedelta(seconds=1)
    assert isinstance(earliest_inclusion(junk, SHA256, [log], now, NOTHING_REVOKED), str)
    assert earliest_inclusion([*junk, proof], SHA256, [log], now, NOTHING_REVOKED) == told
