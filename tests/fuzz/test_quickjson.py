"""The quick reader of JSON and the strict one say the same, of whatever arrives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow_kfp.admission import quickjson
from tests.fuzz.test_untrusted_bytes import mutated

# Many examples each.
pytestmark = pytest.mark.slow

_LIMIT = 1 << 16
_TEXTS = st.text(st.sampled_from('ab<>&\\"/\u2028\u2029u003c{}[]:,\n\x01é\U0001f600'), max_size=8)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**66), 2**66)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)
#: JSON by its pieces, much of which is none, or says a thing twice.
_PIECES = st.lists(
    st.sampled_from(
        ['{"a":1,', '"a":2', "}", "[", "]", ",", '"\\u0061"', ":", '"<"', '"\\u003c"', '"\\\\u003c"', "1", "1.0", "-0",
         "1e400", "null", "\n", " ", '"\\ud800"', '{"":{', '"":[]}}', "[" * 33, "]" * 33]
    ),
    max_size=12,
)  # fmt: skip


def same(data: bytes) -> None:
    answers = []
    for read in (quickjson.loads, strictjson.loads):
        try:
            answers.append(("read", repr(read(data, limit=_LIMIT, what="It"))))
        except EvidenceError:
            answers.append(("refused", ""))
    assert answers[0] == answers[1], data


def go(text: str) -> str:
    for character in "&<>\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@given(_VALUES, st.booleans(), st.booleans(), st.sampled_from(["", "\n"]), st.booleans())
def test_of_documents(value: Any, compact: bool, escaped: bool, end: str, ascii_only: bool) -> None:
    text = json.dumps(value, separators=(",", ":") if compact else None, ensure_ascii=ascii_only)
    same(((go(text) if escaped else text) + end).encode())


@given(_PIECES)
@example(['{"a":1,', '"a":2', "}"])
def test_of_pieces(pieces: list[str]) -> None:
    same("".join(pieces).encode())


@given(_VALUES, st.data())
def test_of_changed_bytes(value: Any, data: st.DataObject) -> None:
    text = go(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    same(data.draw(mutated([text.encode()])))


@given(_VALUES, st.sampled_from(["a", "<", "\\", '"', "\u2028"]), st.data())
def test_of_a_member_that_is_there_twice(value: Any, name: str, data: st.DataObject) -> None:
    one = json.dumps(name, ensure_ascii=False)
    parts = [one, go(one), json.dumps(name)]
    inner = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    text = f"{{{data.draw(st.sampled_from(parts))}:{inner},{data.draw(st.sampled_from(parts))}:{inner}}}"
    with pytest.raises(EvidenceError):
        quickjson.loads(text, limit=_LIMIT, what="It")
