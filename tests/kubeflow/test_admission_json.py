"""JSON that is read quickly is read as strictly as all other JSON."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow_kfp.admission import quickjson
from tests.kubeflow.argo import Task, compiled
from tests.kubeflow.cluster_pods import review

_LIMIT = 1 << 20

# Every way in which two readers could come to two documents, and what orjson alone would take or read otherwise.
HOSTILE = {
    "a member twice": b'{"a":1,"a":2}',
    "a member twice, the same": b'{"a":1,"a":1}',
    "a member twice, deep": b'[{"b":{"a":[],"a":[]}}]',
    "a member twice, spelled twice": b'{"a":1,"\\u0061":2}',
    "a member twice, spelled as Go does": b'{"<":1,"\\u003c":2}',
    "a member twice, the Go way behind a backslash": b'{"\\\\u003c":1,"\\\\u003c":2}',
    "a member twice that looks like two": b'{"a\\u0026":1,"a&":1}',
    "an empty member twice": b'{"":1,"":2}',
    "a member twice at the end of a line": b'{"a":1,"a":2}\n',
    "too deep, lists": b"[" * 33 + b"]" * 33,
    "too deep, objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "too deep for orjson": b"[" * 2000 + b"]" * 2000,
    "too deep for anybody": b"[" * 200_000 + b"]" * 200_000,
    "only opened": b"[" * 100_000,
    "half of a surrogate pair": b'"\\ud800"',
    "the other half": b'{"a":"\\udc00"}',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "no UTF-8": b'"\xff"',
    "an overlong form": b'"\xc0\xaf"',
    "UTF-16": '"a"'.encode("utf-16"),
    "a mark of the byte order": b"\xef\xbb\xbf{}",
    "NaN": b"[NaN]",
    "infinity": b"[-Infinity]",
    "a number that is infinite": b"[1e999]",
    "a control character": b'"\x01"',
    "a comma too many": b"[1,]",
    "a comment": b"[1/**/]",
    "two documents": b"{}{}",
    "two documents, two lines": b"{}\n{}\n",
    "nothing": b"",
    "a line": b"\n",
    "a leading zero": b"[01]",
    "a plus": b"[+1]",
    "text behind a zero byte": b'{"a":1}\x00{"a":2}',
}

# What is read, in whichever spelling; each means something else to a reader that is not careful.
TAKEN = {
    "as Python writes it": b'{"a":"\xc3\xa9 <b> & \\n\\u0001"}',
    "as Go writes it": b'{"a":"\\u003cb\\u003e \\u0026 \\u2028\\u2029"}\n',
    "Go's escapes behind a backslash": b'{"a":"\\\\u003c \\\\\\u003c <"}',
    "half as Go writes it": b'{"a":"\\u003cb> & \\u0026"}',
    "spaces": b' { "a" : [ 1 , 2 ] } ',
    "two lines at the end": b"[1]\n\n",
    "escapes nobody needs": b'["\\/","\\u0041","\\u00e9","\\ud83d\\ude00"]',
    "numbers": b"[0,-0,-0.0,1.0,1.10,1E5,1e5,0.1,1e-7,1e16,123456789012345678901234567890,18446744073709551615]",
    "a number for Go's encoder": b"[1e+21,1e-07,100000000000000000000]",
    "as deep as may be": b"[" * 32 + b"]" * 32,
    "as deep as may be, with a value": b"[" * 32 + b'"[[[["' + b"]" * 32,
    "brackets in texts": b'["' + b"[{" * 500 + b'"]',
    "nothing but a text": b'"a"',
    "null": b"null",
}


def told(read: Any, data: bytes, **limits: Any) -> tuple[str, str]:
    """Return what a reader makes of a document: the value with its types, or the refusal."""
    try:
        value = read(data, limit=_LIMIT, what="It", **limits)
    except EvidenceError as error:
        return "refused", error.message
    return "read", repr(value)


def strictly(data: bytes, *, limit: int, what: str, most_values: int | None = None) -> Any:
    return strictjson.loads(data, limit=limit, what=what, most_values=most_values, texts=True)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_two_readers_read_differently_is_refused(data: bytes) -> None:
    found = told(quickjson.loads, data)
    assert found[0] == "refused", found
    assert found == told(strictly, data)


def test_a_text_that_no_encoding_holds_is_refused_in_words() -> None:
    with pytest.raises(EvidenceError):
        quickjson.loads('"\ud800"', limit=_LIMIT, what="It")


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN.keys())
def test_whatever_the_spelling_the_document_is_the_same(data: bytes) -> None:
    found = told(quickjson.loads, data)
    assert found[0] == "read", found
    assert found == told(strictly, data)
    text = data.decode()
    assert told(quickjson.loads, text) == found


@pytest.mark.parametrize("last", [b"", b"\n"])
def test_sizes_are_bounded_in_the_same_words(last: bytes) -> None:
    for data in (b"[" + b"1," * 40 + b"1]" + last, b'"' + b"a" * _LIMIT + b'"' + last, b"[[[[[[]]]]]]" + last):
        assert told(quickjson.loads, data, most_values=5) == told(strictly, data, most_values=5)
        assert told(quickjson.loads, data, most_values=5)[0] == "refused"
    # Commas in texts count as well: whoever counts does not parse.
    assert told(quickjson.loads, b'["' + b"," * 40 + b'"]', most_values=41)[0] == "read"
    assert told(quickjson.loads, b'["' + b"," * 40 + b'"]', most_values=40)[0] == "refused"


@pytest.mark.parametrize("go", [False, True], ids=["python", "go"])
def test_what_an_api_server_sends_is_read_by_the_quick_reader(go: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = compiled([Task("train", args=["--more", "a < b && c > d", "é\u2028\u2029\x7f"]), Task("again")])
    data = json.dumps(json.loads(review(workflow)), separators=(",", ":"), ensure_ascii=False).encode()
    if go:
        for character in ("&", "<", ">", "\u2028", "\u2029"):
            data = data.replace(character.encode(), f"\\u{ord(character):04x}".encode())
        data += b"\n"
    expected = strictly(data, limit=_LIMIT, what="It")

    def slow(*_: Any, **__: Any) -> Any:
        raise AssertionError("the slow reader was asked")

    monkeypatch.setattr(strictjson, "loads", slow)
    assert quickjson.loads(data, limit=_LIMIT, what="It") == expected


@pytest.mark.parametrize(
    "value",
    [
        {"b": [1, True, None, 0.5], "a": "é\n\x01\x7f\u2028<>&"},
        {"": {}},
        [],
        "",
        {"é": 1, "z": 2, "\U0001f600": 3, "a": 4},
    ],
    ids=ascii,
)
def test_texts_are_written_as_everywhere(value: Any) -> None:
    assert quickjson.dumps(value) == strictjson.dumps(value)


@pytest.mark.parametrize("value", [2**70, 1e16, 1e-7, -0.0, 1.5], ids=str)
def test_numbers_are_written_as_what_they_are(value: float) -> None:
    assert repr(json.loads(quickjson.dumps([value]))) == repr([value])


def peak_of(character: str) -> float:
    """Return how much of a text's own size is held at most while it is read."""
    data = b'"' + character.encode() * (1 << 20) + b'" '
    tracemalloc.start()
    try:
        assert len(quickjson.loads(data, limit=len(data), what="It")) == 1 << 20
        return tracemalloc.get_traced_memory()[1] / len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("character", ["<", ">", "&", "\u2028"], ids=ascii)
def test_no_text_is_made_many_times_as_long(character: str) -> None:
    """As Go writes it, this one would have six bytes for each; nobody needs to write it out to see that it is none."""
    assert peak_of(character) < peak_of("a") + 1
