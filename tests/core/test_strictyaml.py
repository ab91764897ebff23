"""Strict YAML: what is refused, with its line, and the two readings of plain words."""

from __future__ import annotations

import datetime
import math

import pytest

from sealflow import strictyaml
from sealflow.errors import EvidenceError

ACCEPTED = "a:\n  - 1\n  - {b: text}\n"


def read(text: str | bytes, scalar: strictyaml.Scalar | None = strictyaml.core, depth: int = 24) -> object:
    data = text if isinstance(text, bytes) else text.encode()
    return strictyaml.loads(data, limit=1000, what="doc", scalar=scalar, depth=depth)[0]


def test_values_and_lines() -> None:
    value, lines = strictyaml.loads(ACCEPTED.encode(), limit=1000, what="doc")
    assert value == {"a": [1, {"b": "text"}]}
    assert (lines["a",], lines["a", 0], lines["a", 1, "b"]) == (1, 2, 3)
    assert strictyaml.loads(b"# nothing\n", limit=100, what="doc") == (None, {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", r"'a' twice \(line 3\)", id="duplicate-key"),
        pytest.param("a: {b: 1, b: 2}\n", r"'b' twice \(line 1\)", id="duplicate-key-inside"),
        pytest.param("1: a\n1.0: b\n", "twice", id="two-spellings-of-one-number"),
        pytest.param("a: &x 1\nb: 2\n", r"reference.*\(line 1\)", id="anchor"),
        pytest.param("a: *x\n", "reference|not YAML", id="alias"),
        pytest.param("<<: {a: 1}\n", "merges", id="merge"),
        pytest.param("a: !!python/object:os.system {}\n", "tag", id="tag"),
        pytest.param("a: !!str 1\n", "tag", id="harmless-tag"),
        pytest.param("[" * 25 + "]" * 25, "too deep", id="depth"),
        pytest.param("[" * 900, "too deep|not YAML", id="unclosed"),
        pytest.param("a: 1\n---\nb: 2\n", "one document", id="two-documents"),
        pytest.param("? [1]\n: 2\n", "no text", id="list-as-key"),
        pytest.param(b"\xff\xfe\x00", "not YAML", id="not-utf-8"),
        pytest.param("x" * 1001, "more than 1000", id="size"),
        pytest.param("a: [\n", r"not YAML.*\(line 2\)", id="syntax"),
        pytest.param("a: 2020-13-01\n", "no number", id="impossible-date"),
        pytest.param("a: -\n_: +_\nb: -_\n", "no number|not YAML", id="sign-alone"),
        pytest.param("a: =\n", "quote", id="default-value"),
        pytest.param("a: " + "9" * 900 + "0x\n", None, id="word-of-digits"),
    ],
)
def test_refusals(text: str | bytes, reason: str | None) -> None:
    if reason is None:
        assert read(text)
        return
    with pytest.raises(EvidenceError, match=reason):
        read(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("off", "off"), ("true", True), ("TRUE", True), ("False", False), ("tRue", "tRue"),
        ("~", None), ("null", None), ("", None), ("nULL", "nULL"), ("'null'", "null"), ('"1"', "1"),
        ("1", 1), ("-1", -1), ("+1", 1), ("0123", 123), ("0o17", 15), ("0x1F", 31), ("0b11", 3), ("1_000", 1000),
        ("1.5", 1.5), ("1e3", 1000.0), ("1e-3", 0.001), (".5", 0.5), ("1.", 1.0), (".inf", math.inf),
        ("-.INF", -math.inf), ("1:30", "1:30"), ("1.2.3", "1.2.3"), ("1e", "1e"), ("--x", "--x"),
        ("2020-01-02", datetime.date(2020, 1, 2)), ("2020-1-2", "2020-1-2"),
        ("2020-01-02 03:04:05.5", datetime.datetime(2020, 1, 2, 3, 4, 5, 500000)),
    ],
)  # fmt: skip
def test_the_core_reading(text: str, value: object) -> None:
    found = read(f"a: {text}\n")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)  # type: ignore[index]


@pytest.mark.oracle
@pytest.mark.parametrize(
    "text",
    ["yes", "0123", "1e3", "1_0", ".5", "1e-3", "+.inf", "2020-01-02", "a: b", "012_3", "0o7", "08", "1.e1", "-0", "''",
     "2020-01-02 03:04:05Z", "2020-01-02 03:04:05 +1:30", "2020-1-2 3:04:05", "0x_f", "1__0", "._1"],
)  # fmt: skip
def test_the_core_reading_is_dvcs(text: str) -> None:
    from ruamel.yaml import YAML

    document = f"a: {text}\n" if ": " not in text else f"a: {{{text}}}\n"
    theirs = YAML(typ="safe").load(document)
    ours = read(document)
    assert ours == theirs or str(ours) == str(theirs), (ours, theirs)
    kind = type(ours["a"])  # type: ignore[index]
    assert kind is type(theirs["a"]) or issubclass(type(theirs["a"]), kind)


@pytest.mark.parametrize(
    "text", ["yes", "on", "1_000", "0123", "1.5", "~", "0x1f", "1:30", ".inf"], ids=lambda text: f"word-{text}"
)
def test_the_unambiguous_reading_refuses(text: str) -> None:
    with pytest.raises(EvidenceError, match=r"\(line 1\)"):
        read(f"a: {text}\n", None)


def test_the_unambiguous_reading_takes_text() -> None:
    assert read("a: 2020-01-02\nb: 'yes'\nc: True\n1: x\n", None) == {
        "a": "2020-01-02",
        "b": "yes",
        "c": True,
        "1": "x",
    }


def test_depth_is_the_callers() -> None:
    assert read("[[1]]", depth=2) == [[1]]
    with pytest.raises(EvidenceError, match="too deep"):
        read("[[1]]", depth=1)
