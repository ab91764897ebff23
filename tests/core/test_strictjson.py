"""Untrusted JSON: what two readers could read differently is refused."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealflow import strictjson
from sealflow.errors import EvidenceError


def loads(data: bytes) -> object:
    return strictjson.loads(data, limit=1 << 20, what="The document")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_agrees_with_the_standard_library(value: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    assert loads(data) == json.loads(text)


@given(values)
def test_canonical_text_reads_back(value: object) -> None:
    try:
        data = strictjson.dumps(value)
    except UnicodeEncodeError:
        return
    assert loads(data) == value
    assert strictjson.dumps(loads(data)) == data
    assert b": " not in json.dumps({"a": 1}, separators=(",", ":")).encode()


def test_canonical_form() -> None:
    assert strictjson.dumps({"b": [1, True, None], "a": "é\n"}) == '{"a":"é\\n","b":[1,true,null]}'.encode()


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"x": [{"a": 1, "a": 1}]}',
    ],
)
def test_a_key_twice(data: bytes) -> None:
    with pytest.raises(EvidenceError, match="key 'a' twice"):
        loads(data)


@pytest.mark.parametrize("data", [b"NaN", b"[Infinity]", b'{"a": -Infinity}'])
def test_constants_that_json_does_not_know(data: bytes) -> None:
    with pytest.raises(EvidenceError, match="RFC 8259"):
        loads(data)


@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"{", b"[1,]", b"{'a': 1}", b'{"a"}', b"[1] [2]", b'"\x00"', b'"\n"', b"01", b"1.", b"+1", b"\xff",
     b'"\xff"', b"\xef\xbb\xbf{}", '"a"'.encode("utf-16"), b'"\xed\xa0\x80"', b'"\xc0\xaf"'],
    ids=ascii,
)  # fmt: skip
def test_not_json(data: bytes) -> None:
    with pytest.raises(EvidenceError, match="The document"):
        loads(data)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_depth() -> None:
    loads(nested(strictjson.MAX_DEPTH))
    with pytest.raises(EvidenceError, match="The document: JSON is nested deeper than 32"):
        loads(nested(strictjson.MAX_DEPTH + 1))


@pytest.mark.parametrize("depth", [1, strictjson.MAX_DEPTH, strictjson.MAX_DEPTH + 1, 500, 10_000])
@pytest.mark.parametrize("inner", [b"", b'"[[[[{{{{\\"["', b'{"a":1}'])
@pytest.mark.parametrize("width", [1, 40])
def test_depth_of_what_is_long_for_its_texts(depth: int, inner: bytes, width: int) -> None:
    data = b"[" + b",".join([b"[" * (depth - 1) + inner + b"]" * (depth - 1)] * width) + b"]" if depth > 1 else b"[]"

    def refused(texts: bool) -> bool:
        try:
            strictjson.loads(data, limit=1 << 24, what="The document", texts=texts)
        except EvidenceError:
            return True
        return False

    assert refused(texts=True) == refused(texts=False)
    assert refused(texts=True) == (depth + (inner == b'{"a":1}' and depth > 1) > strictjson.MAX_DEPTH)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" * 500_000, id="only-opened"),
        pytest.param(b'{"a":' * 200_000, id="objects"),
        pytest.param(nested(100_000), id="closed"),
        pytest.param(b'["\\\\",' * 50_000, id="behind-backslashes"),
        pytest.param(b'["\\\\\\"",' * 50_000, id="behind-escaped-quotes"),
        pytest.param(b'["",' * 50_000, id="behind-empty-texts"),
        pytest.param(b"}" * 50 + b"[" * 100_000, id="after-too-many-closed"),
        pytest.param(b'"' + b"[" * 100_000, id="in-a-text-that-never-ends"),
    ],
)
def test_depth_bombs(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        loads(data)


def test_brackets_in_texts_are_no_depth() -> None:
    value = {"a": "[" * 1000, "b\\": '"[[{{', "c": ["\\", '\\"[' * 100]}
    assert loads(json.dumps(value).encode()) == value
    wide = [[number, {"n": "{["}] for number in range(1000)]
    assert loads(json.dumps(wide).encode()) == wide


@given(st.text(alphabet='[]{}"\\a,:1', max_size=60))
def test_never_anything_but_a_value_or_a_finding(text: str) -> None:
    try:
        value = loads(text.encode())
    except EvidenceError:
        return
    assert value == json.loads(text)


@given(st.lists(st.sampled_from(['["', '"]', "\\", '"', "[", "]", "a"]), max_size=80).map("".join))
def test_depth_is_never_underestimated(text: str) -> None:
    """Where the standard parser reads more than 32 levels, ours has refused before."""
    text = "[" * 30 + text
    try:
        loads(text.encode())
    except EvidenceError:
        return
    raise AssertionError("30 levels are never closed here")


def test_length() -> None:
    assert strictjson.loads(b"[1]", limit=3, what="It") == [1]
    with pytest.raises(EvidenceError, match="It has 4 bytes, more than the limit of 3"):
        strictjson.loads(b"[12]", limit=3, what="It")


def test_huge_numbers() -> None:
    assert loads(b"123456789012345678901234567890") == 123456789012345678901234567890
    # Python refuses to turn a text of this length into an integer, and takes quadratic time where it does.
    with pytest.raises(EvidenceError):
        loads(b"1" * 100_000)
    with pytest.raises(EvidenceError):
        loads(b"1e999")


@pytest.mark.parametrize("key", ["absent", "null"])
def test_member_that_is_not_there(key: str) -> None:
    body = {"null": None}
    assert strictjson.member(body, key, str, "It", required=False) is None
    with pytest.raises(EvidenceError, match=f"It lacks the member '{key}'"):
        strictjson.member(body, key, str, "It")


@pytest.mark.parametrize(
    ("value", "kind"),
    [(1, str), ("1", int), (True, int), (1, bool), ([], dict), ({}, list), (1.0, int), (True, (int, float))],
    ids=repr,
)
def test_member_of_another_type(value: object, kind: type) -> None:
    with pytest.raises(EvidenceError, match="wrong type"):
        strictjson.member({"a": value}, "a", kind, "It")


@pytest.mark.parametrize("body", [None, [], "text", 1])
def test_member_of_something_that_is_no_object(body: object) -> None:
    with pytest.raises(EvidenceError, match="must be a JSON object"):
        strictjson.member(body, "a", str, "It")


def test_unknown_members() -> None:
    strictjson.only_members({"a": 1}, frozenset({"a", "b"}), "It")
    with pytest.raises(EvidenceError, match="unknown member 'c'"):
        strictjson.only_members({"a": 1, "c": 2}, frozenset({"a", "b"}), "It")


@given(st.binary(max_size=40))
def test_base64(data: bytes) -> None:
    import base64

    assert strictjson.base64_bytes(base64.b64encode(data).decode(), "It") == data


NOT_BASE64 = ["?", "QQ", "QQ=", "QQ==\n", "Q Q=", "QQ==QQ==", "-_-_", "é", "QUFB\n", "QR==", "QUJ="]


@pytest.mark.parametrize("text", NOT_BASE64)
def test_not_base64(text: str) -> None:
    with pytest.raises(EvidenceError, match="It is not valid Base64"):
        strictjson.base64_bytes(text, "It")


def test_floats_survive() -> None:
    assert math.isclose(float(str(loads(b"1.5e3"))), 1500)


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_nothing_is_written_that_could_not_be_read(value: object) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        strictjson.dumps(value)
