"""Whatever stands in a note, a checkpoint, a proof, a tile, a bundle or an entry: only our errors come out."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sealflow.audit import merkle, tiles
from sealflow.audit.checkpoint import Checkpoint, open_checkpoint, parse_text
from sealflow.audit.entry import parse_entry
from sealflow.audit.note import VerifierKey, parse_note, parse_signatures
from sealflow.audit.proof import Proof, open_proof, parse_proof
from sealflow.errors import EvidenceError, UsageError
from sealflow.verification.audit_log import Segment, _follow
from tests.core.audit.logs import chain_lines
from tests.core.audit.test_note import SPEC_KEY, SPEC_NOTE
from tests.fuzz.test_untrusted_bytes import EXAMPLES, mutated

# Many examples each.
pytestmark = pytest.mark.slow

KEY = VerifierKey.parse(SPEC_KEY)
LINES = chain_lines(6)
TEXT = Checkpoint("example.com/foo", 6, bytes(range(32))).text
PROOF = Proof(3, (bytes(32), bytes(range(32))), SPEC_NOTE, LINES[3]).encode()
BUNDLE = tiles.pack_bundle(LINES)


def parsed(parse: Callable[..., Any], code: str, *arguments: object) -> Any:
    """What a parser returns, ``None`` where it refuses with this code; everything else comes out."""
    try:
        return parse(*arguments)
    except EvidenceError as error:
        if error.code != code:
            raise
        return None


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated(SPEC_NOTE))
def test_notes(data: bytes) -> None:
    note = parsed(parse_note, "LOG_CHECKPOINT", data)
    if note is None:
        return
    # One text for each: what was read is written the same.
    assert note.encode() == data
    try:
        signed = note.by(KEY)
    except EvidenceError:
        return
    assert not signed or note.text == b"This is an example message.\n"


@hypothesis_settings(max_examples=EXAMPLES)
@given(st.text(max_size=200))
def test_lines_of_signatures(text: str) -> None:
    try:
        found = parse_signatures(text)
    except EvidenceError:
        return
    assert "".join(item.line() for item in found) == text


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated(SPEC_KEY.encode()))
def test_verifier_keys(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        key = VerifierKey.parse(text)
    except UsageError:
        return
    assert str(key) == text


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated(TEXT))
def test_checkpoints(data: bytes) -> None:
    checkpoint = parsed(parse_text, "LOG_CHECKPOINT", data)
    if checkpoint is None:
        return
    assert checkpoint.text == data
    with pytest.raises(EvidenceError):
        open_checkpoint(data + SPEC_NOTE[SPEC_NOTE.index(b"\n\n") + 1 :], KEY)


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated(PROOF))
def test_proofs(data: bytes) -> None:
    proof = parsed(parse_proof, "LOG_PROOF", data)
    if proof is None:
        return
    assert proof.encode() == data
    with pytest.raises(EvidenceError):
        open_proof(proof, proof.extra, KEY)


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated(BUNDLE), st.integers(1, 8))
def test_bundles(data: bytes, width: int) -> None:
    entries = parsed(tiles.split_bundle, "LOG_ALTERED", data, width, "bundle")
    if entries is None:
        return
    assert len(entries) == width
    assert tiles.pack_bundle(entries) == data


@hypothesis_settings(max_examples=EXAMPLES)
@given(st.text(alphabet="tile/enris0123456789x.p", max_size=40))
def test_names_of_tiles(name: str) -> None:
    found = parsed(tiles.parse_tile_name, "LOG_ALTERED", name)
    if found is None:
        return
    level, index, width = found
    assert tiles.tile_name(level, index, width) == name


@hypothesis_settings(max_examples=EXAMPLES)
@given(st.none() | st.integers(0, 63), st.integers(0, 10**12), st.integers(1, 256))
def test_every_tile_has_one_name(level: int | None, index: int, width: int) -> None:
    assert tiles.parse_tile_name(tiles.tile_name(level, index, width)) == (level, index, width)


@hypothesis_settings(max_examples=EXAMPLES)
@given(st.integers(0, 5), st.data())
def test_the_fast_way_takes_only_what_the_strict_one_takes(at: int, data: st.DataObject) -> None:
    line = data.draw(mutated(LINES[at]))
    segment = Segment(0)
    hashes = _follow(segment, [*LINES[:at], line, *LINES[at + 1 :]], 0, None)
    assert hashes[at] == merkle.leaf_hash(line)
    try:
        parse_entry(line)
    except EvidenceError:
        assert "AUDIT_MALFORMED" in {finding.code for finding in segment.findings.kept}
    if line == LINES[at]:
        assert not segment.findings.kept
        assert list(segment.closed.values()) == [6]
    elif len(line) == len(LINES[at]) and base64.b64encode(line[-88:]) == base64.b64encode(LINES[at][-88:]):
        # Something before the signature: the next entry, or the signature of the last one, gives it away.
        assert segment.findings.kept or len(segment.closed) + len(segment.open) > 1
