"""Whatever stands in DVC's configuration, in ``.dir`` objects and in a store's answers, only our errors come out."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealflow.errors import EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.lineage.config import parse_configuration, remote_url
from sealflow.lineage.files import is_contained, parse_directory
from sealflow.lineage.remote import Wanted, check_remote
from sealflow.storage import Storages
from tests.core.lineage.remotes import Held, Store, file, folder, in_bucket, key_of, listing, listing_digest, objects
from tests.core.lineage.repos import md5

# Many examples each.
pytestmark = pytest.mark.slow

EXAMPLES = 4 * settings().max_examples

CONFIGURATION = b"""\
# by hand
[core]
    remote = store # usual
    analytics = false
['remote "store"']
    url = remote://base/sub
    version_aware = false
[remote "base"]
    url = "s3://bucket/dvc, store"
[cache]
    type = reflink, copy
    dir = ../cache
[parsing]
    bool = boolean_optional
"""
PIECES = [
    b"'", b'"', b"'''", b'"""', b"[", b"]", b"[[", b"]]", b"=", b",", b"#", b"\n", b"\r", b"\r\n", b"\t", b" ",
    b"%(url)s", b"%", b"$HOME", b"~", b"\x00", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8",
    b"\xc2\xa0", b"\xef\xbb\xbf", b"\xff", b"[core]", b"[CORE]", b"remote", b"Remote", b"url = x", b"remote = x", b"remote://store",
    b"remote \"store\"", b";", b":", b"\\", b"true", b"list = a, 'b', ", b"s3://", b"worktree = TRUE\n",
]  # fmt: skip
DIRECTORY = listing({"a": b"1", "b/c": b"2", "ü\n": b""})
JSON_PIECES = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"1e999", b"NaN", b"\\ud800", b"\\u0000", b"../", b"/", b"\xff",
    b'"md5"', b'"relpath"', b".dir", b"{}", b"[" * 60, b'"relpath": "../../x"', b'"relpath": ""', b"A",
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seed: bytes, pieces: list[bytes]) -> bytes:
    data = bytearray(seed)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        kind = draw(st.integers(0, 3))
        piece = draw(st.sampled_from(pieces)) if kind < 2 else draw(st.binary(max_size=6))
        if kind == 3:
            data[start:end] = data[start:end] * 2
        else:
            data[start : start if kind == 0 else end] = piece
    return bytes(data)


@settings(max_examples=EXAMPLES)
@given(mutated(CONFIGURATION, PIECES), st.none() | st.sampled_from(["store", "base", "", "\x00", 'x"y']))
def test_configurations(data: bytes, name: str | None) -> None:
    try:
        url = remote_url(data, name)
    except (EvidenceError, UsageError, UnavailableError):
        return
    assert url.isprintable() or "\t" in url
    for finding in check_remote(url, [file("x", b"x")], storages=Storages(Store({})), root="/nowhere"):
        assert finding.severity in ("refusal", "unverifiable")


@pytest.mark.oracle
@settings(max_examples=EXAMPLES)
@given(mutated(CONFIGURATION, PIECES))
def test_what_we_read_dvc_reads_the_same(data: bytes) -> None:
    """Two readers that see two remotes would check another one than the one that is pulled from."""
    from configobj import ConfigObj, ConfigObjError

    try:
        ours = parse_configuration(data, "config")
    except EvidenceError:
        return
    # As DVC opens it: text, with every line end made one.
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8").read()
    try:
        theirs = ConfigObj(io.StringIO(text)).dict()
    except ConfigObjError:
        pytest.fail(f"ConfigObj refuses what we read as {ours}")
    assert ours == {
        section.lower(): {
            key.lower(): tuple(value) if isinstance(value, list) else value for key, value in body.items()
        }
        for section, body in theirs.items()
    }


lines = st.text(st.sampled_from("abAB_ =,#'\"%()[]s3:/\\.\t"), max_size=12)


@pytest.mark.oracle
@settings(max_examples=EXAMPLES)
@given(st.lists(lines, max_size=4), st.lists(lines, min_size=1, max_size=3))
def test_every_form_of_a_value(before: list[str], values: list[str]) -> None:
    text = "\n".join([*before, "[core]", *(f"k{number} = {value}" for number, value in enumerate(values))])
    test_what_we_read_dvc_reads_the_same.hypothesis.inner_test(text.encode())  # type: ignore[attr-defined]


@settings(max_examples=EXAMPLES)
@given(mutated(DIRECTORY, JSON_PIECES))
def test_directory_objects(data: bytes) -> None:
    try:
        files = parse_directory(data, "object")
    except EvidenceError:
        files = None
    else:
        assert all(is_contained(name) and len(digest) == 32 for name, digest in files.items())
        # What is read is what any JSON reader finds.
        assert files == {entry["relpath"]: entry["md5"] for entry in json.loads(data)}
    item = Wanted("data", f"{md5(data)}.dir", None, False, None)
    found = Store(in_bucket({key_of(item.digest): data})).check(item)
    # Whatever it lists, nothing of it lies there.
    assert found or files == {}


FILES = {"a": b"1", "b": b"22"}
WANTED = (file("raw", b"raw"), folder("data", FILES))
HELD = objects(b"raw", folders=(FILES,))
junk = st.none() | st.booleans() | st.integers(-2, 1 << 60) | st.text(max_size=4) | st.sampled_from(
    [md5(b"raw"), f'"{md5(b"raw")}"', f'"{md5(b"raw")}-1"', "aws:kms", "FULL_OBJECT", "COMPOSITE", "AAAA"]
)  # fmt: skip
MEMBERS = ["ContentLength", "ETag", "ChecksumSHA256", "ChecksumMD5", "ChecksumType", "ServerSideEncryption",
           "SSECustomerAlgorithm"]  # fmt: skip


@settings(max_examples=EXAMPLES)
@given(
    st.dictionaries(st.sampled_from(MEMBERS), junk),
    st.dictionaries(st.sampled_from(["raw", "a", "b"]), st.binary(max_size=3)),
    st.booleans(),
)
def test_answers_of_a_store(head: dict[str, Any], other: dict[str, bytes], read: bool) -> None:
    """Wrong bytes under honest ETags never pass, whatever else the store says; nothing but our findings comes out."""
    true = {"raw": b"raw", "a": b"1", "b": b"22"}
    held: dict[str, Any] = {**HELD}
    for name, data in other.items():
        held[key_of(md5(true[name]))] = Held(data, head={key: head[key] for key in head if key not in MEMBERS[:2]})
    store = Store(in_bucket(held))
    try:
        found = store.check(*WANTED, read=read)
    except SealflowError as error:
        pytest.fail(str(error))
    wrong = {name for name, data in other.items() if data != true[name]}
    assert len(found) == len(wrong)
    # Members of any kind at all are an answer, too.
    real = store.head_object
    store.head_object = lambda **arguments: {**real(**arguments), **head}  # type: ignore[method-assign]
    for finding in store.check(*WANTED, read=read):
        assert finding.severity in ("refusal", "unverifiable")


def test_the_digest_of_the_seed() -> None:
    """The seeds are what they should be; a fuzz target over garbage alone would test nothing."""
    assert remote_url(CONFIGURATION, None) == "s3://bucket/dvc, store/sub"
    assert parse_directory(DIRECTORY, "object") == {"a": md5(b"1"), "b/c": md5(b"2"), "ü\n": md5(b"")}
    assert listing_digest({}) == f"{md5(b'[]')}.dir"
    assert Store(in_bucket(HELD)).check(*WANTED) == ()
