"""Whatever stands in an archive, a list of frames, their statement or an upload's state: only our errors come out."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow.evidence.encryption import PREDICATE_TYPE, FrameDigests, parse_encryption
from sealflow.evidence.statement import parse_statement
from sealflow.names import check_name, check_tree
from sealflow.transfer.archive import (
    END,
    LOCATOR,
    TAIL,
    check_gap,
    index_length,
    padding,
    parse_index,
    tar_header,
)
from sealflow.transfer.resume import UploadState
from tests.core.transfer.test_archive import archived
from tests.core.transfer.world import PLACE
from tests.fuzz.test_untrusted_bytes import EXAMPLES, mutated

# Many examples each.
pytestmark = pytest.mark.slow

ARCHIVE = archived({"a.bin": b"first weights", "run.sh": b"#!/bin/sh", "sub/ü": b"x" * 513})
LENGTH = index_length(ARCHIVE[-TAIL:], len(ARCHIVE))
INDEX_BYTES = ARCHIVE[-len(END) - LENGTH : -len(END)]
BODY = json.loads(INDEX_BYTES[:-LOCATOR])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@hypothesis_settings(max_examples=EXAMPLES)
@given(st.binary(max_size=100) | mutated([ARCHIVE[-200:]]), st.integers(0, 1 << 40))
def test_ends(tail: bytes, content: int) -> None:
    try:
        length = index_length(tail, content)
    except EvidenceError as error:
        if error.code != "ARCHIVE_MALFORMED":
            raise
        return
    assert 0 < length <= content
    assert length % 512 == 0
    assert tail.endswith(b"\n%020d\n" % length + END)


def holds(index: Any, content: int) -> None:
    """What every reader of an index relies on."""
    names = [item.name for item in index.members]
    assert names == sorted(set(names))
    assert index.kind == "tree" or names == [index.name]
    check_tree(names)
    for name in (index.name, *names):
        check_name(name)
    end = 0
    for start, stop, _, size, _ in index.gaps():
        assert start == end
        assert 512 <= stop - start <= 17 * 512
        assert stop % 512 == 0
        end = stop + size
    assert end + padding(index.length) + len(END) == content == index.size


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated([INDEX_BYTES]), st.sampled_from([len(ARCHIVE), 0, 512, 1 << 40]))
def test_indexes(data: bytes, content: int) -> None:
    try:
        index = parse_index(data, content)
    except EvidenceError as error:
        if error.code != "ARCHIVE_MALFORMED":
            raise
        return
    holds(index, content)


numbers = st.integers(-2, 6).map(lambda blocks: blocks * 512) | st.integers(-1, 1 << 64) | st.booleans() | st.floats()
entries = st.tuples(
    st.sampled_from(["a", "A", "a/b", "b", "../x", "", "é", "e\u0301"]) | st.text(max_size=8),
    numbers,
    numbers,
    st.just("ab" * 32) | st.text(max_size=4),
    st.integers(-1, 2),
).map(list)


@st.composite
def bodies(draw: st.DrawFn) -> Any:
    """Indexes of the right form that say anything."""
    body = json.loads(json.dumps(BODY))
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 4))
        files = body.get("files")
        if kind == 0:
            body[draw(st.sampled_from([*BODY, "more"]))] = draw(JSON)
        elif kind == 1 and isinstance(files, list) and files:
            which, what = draw(st.integers(0, len(files) - 1)), draw(st.integers(0, 4))
            if isinstance(files[which], list) and len(files[which]) == 5:
                files[which][what] = draw(JSON | numbers)
        elif kind == 2:
            body["files"] = draw(st.lists(entries, max_size=4))
        elif kind == 3:
            body["signature"] = draw(st.lists(numbers, max_size=3))
        else:
            body["name"], body["kind"] = draw(st.text(max_size=5)), draw(st.sampled_from(["tree", "file"]))
    return body


@hypothesis_settings(max_examples=EXAMPLES)
@given(bodies())
def test_indexes_that_say_anything(body: Any) -> None:
    try:
        line = strictjson.dumps(body)
    except (ValueError, UnicodeEncodeError):
        return
    line += b" " * padding(len(line) + LOCATOR)
    data = line + b"\n%020d\n" % (len(line) + LOCATOR)
    try:
        index = parse_index(data, len(ARCHIVE))
    except EvidenceError as error:
        if error.code != "ARCHIVE_MALFORMED":
            raise
        return
    holds(index, len(ARCHIVE))


PATHS = ["model/a.bin", "model/ü/" + "n" * 120, "model/x"]


@hypothesis_settings(max_examples=EXAMPLES)
@given(st.data(), st.sampled_from(PATHS), st.sampled_from([0, 13, 8**11]), st.booleans(), st.integers(0, 511))
def test_gaps(data: st.DataObject, path: str, size: int, executable: bool, fill: int) -> None:
    """One spelling and no other."""
    expected = bytes(fill) + tar_header(path, size, executable=executable)
    gap = data.draw(mutated([expected]) | st.binary(max_size=1100))
    try:
        check_gap(gap, path, size, executable)
    except EvidenceError as error:
        if error.code != "ARCHIVE_MALFORMED":
            raise
        return
    header = tar_header(path, size, executable=executable)
    assert gap == bytes(len(gap) - len(header)) + header
    assert len(gap) - len(header) < 512


# --- Evidence ---


@given(st.binary(max_size=200))
def test_lists(data: bytes) -> None:
    try:
        digests = FrameDigests(data)
    except EvidenceError:
        return
    pieces = [digests.header, *(digests[number] for number in range(1, digests.frames + 1))]
    assert digests.frames >= 1
    assert b"".join(pieces) == data
    for wrong in (0, -1, digests.frames + 1):
        with pytest.raises(IndexError):
            digests[wrong]


STATEMENT = strictjson.dumps(
    {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "0f" * 32, "digest": {"sha256": "ab" * 32}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "format": "aws-encryption-sdk/v2",
            "frames": 3,
            "artifact": {"dirHash": "cd" * 32},
            "producer": "airflow:train/fit",
            "builder": "x",
            "invocationId": "y",
            "finishedOn": "2026-01-01T00:00:00Z",
        },
    }
)


@st.composite
def statements(draw: st.DrawFn) -> bytes:
    body = json.loads(STATEMENT)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from([body, body["predicate"], *body["subject"]]))
        if isinstance(place, dict):
            place[draw(st.sampled_from([*place, "more"]))] = draw(JSON)
        if not isinstance(body.get("predicate"), dict) or not isinstance(body.get("subject"), list):
            break
    return json.dumps(body).encode()


@hypothesis_settings(max_examples=EXAMPLES)
@given(mutated([STATEMENT]) | statements())
def test_statements(data: bytes) -> None:
    try:
        said = parse_encryption(parse_statement(data))
    except EvidenceError:
        return
    assert len(bytes.fromhex(said.message.hex)) == len(bytes.fromhex(said.list_sha256)) == 32
    assert said.message.path_segment == f"message-{said.message.hex}"
    assert said.frames >= 1
    assert said.producer.isprintable()


# --- The state of an upload ---


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A state as an upload leaves it: its file and its content."""
    from tests.core.transfer.test_resume import state_file, stop
    from tests.core.transfer.world import Sender

    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEALFLOW_STATE_DIR", "")
        sender = Sender(folder / "world")
        stop(sender, "commit")
        return state_file(sender), state_file(sender).read_bytes()


def opened(file: Path, data: bytes) -> UploadState:
    file.write_bytes(data)
    file.chmod(0o600)
    os.environ["SEALFLOW_STATE_DIR"] = str(file.parent)
    return UploadState(f"file://{file.parent.parent / 'model'}", PLACE)


def test_state_as_it_was_left(state: tuple[Path, bytes]) -> None:
    found = opened(*state)
    assert found.resumed
    found.close()


@hypothesis_settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_states(state: tuple[Path, bytes], data: st.DataObject) -> None:
    """Begun anew, or gone on with from a part of the very same lines."""
    file, own = state
    altered = data.draw(mutated([own]) | st.binary(max_size=300))
    found = opened(file, altered)
    try:
        if not found.resumed:
            assert found.encryptor([], "") is None
            assert file.stat().st_size == 0
        else:
            kept = file.read_bytes()
            assert own.startswith(kept)
            assert altered.startswith(kept)
    finally:
        found.close()


@hypothesis_settings(max_examples=EXAMPLES)
@given(body=JSON | st.fixed_dictionaries({"sealflow_upload": JSON, "kept": JSON, "header": JSON, "token": JSON}))
def test_states_of_another_release(state: tuple[Path, bytes], body: Any) -> None:
    """Authentic lines that say what no line of ours says."""
    import hmac

    file, _ = state
    found = opened(file, b"")
    text = json.dumps(body).encode()
    mac = base64.b64encode(hmac.digest(found._mac_key, text, "sha256"))
    found.close()
    again = opened(file, text + b"\t" + mac + b"\n")
    assert not again.resumed
    again.close()
