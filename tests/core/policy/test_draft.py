"""Drafts: the lines that messages name, and what YAML would have made of innocent text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sealflow import strictjson
from sealflow.errors import PolicyError, UsageError
from sealflow.policy.draft import parse_draft, read_draft
from tests.pki import write_key, write_pki

HEAD = "apiVersion: sealflow/v1\nversion: 3\nexpires: 2027-06-30T00:00:00Z\n"


def parse(text: str | bytes):  # type: ignore[no-untyped-def]
    return parse_draft(text if isinstance(text, bytes) else text.encode(), "the draft")


# --- Lines ---


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEAD + "defaults: x\n", 4),
        (HEAD + "\n\n# a comment\nrules:\n- name: a\n  scope: {artifact: ['m/**']}\n", 9),
        (HEAD + "rules:\n- name: a\n  scope:\n    artifact:\n    - '/x'\n    - m\n", 9),
        (HEAD + "rules:\n- name: a\n  scope: {artifact: [/x]}\n  level: enforced\n", 7),
        (HEAD + "rules:\n- name: a\n  scope: {artifact: [/x]}\n  require:\n    gates: [x]\n", 8),
        ("apiVersion: sealflow/v2\n" + HEAD.partition("\n")[2], 1),
        ("version: 3\n", 1),
        (HEAD.replace("2027", "1027"), 3),
    ],
)
def test_the_line_of_a_problem(text: str, line: int) -> None:
    with pytest.raises(PolicyError, match=rf"\(line {line}\)"):
        parse(text).policy()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2\n", 2),
        ("a: &x 1\nb: *x\n", 1),
        ("a: 1\n---\nb: 1\n", 2),
        ("a: 1\nb: [\n", 3),
        ("a: 1\nb: yes\n", 2),
        ("a: 1\nb:\n", 2),
        ("a: 1\nb: 1.5\n", 2),
        ("a: 1\nb: 0x10\n", 2),
        ("a: 1\n? [x]\n: 1\n", 1),
    ],
)
def test_the_line_of_a_trick(text: str, line: int) -> None:
    with pytest.raises(PolicyError, match=rf"\(line {line}\)"):
        parse(text)


# --- Tricks ---

TRICKS = {
    "reference": "a: &x [1]\nb: *x\n",
    "anchor-alone": "a: &x 1\n",
    "merge": "a: {b: 1}\nc:\n  <<: {b: 2}\n  <<: {b: 3}\n",
    "laughs": "a: &a [x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(9)),
    "duplicate": "version: 1\nversion: 2\n",
    "duplicate-quoted": "version: 1\n'version': 2\n",
    "duplicate-typed": "1: a\n'1': b\n",
    "two-documents": "a: 1\n--- \nb: 1\n",
    "python": "a: !!python/object/apply:os.system [id]\n",
    "python-name": "a: !!python/name:os.system\n",
    "binary": "a: !!binary aGk=\n",
    "set": "a: !!set {b}\n",
    "deep": "[" * 3000 + "]" * 3000,
    "deep-mapping": "a: " + "{a: " * 100 + "1" + "}" * 100,
    "octal": "a: 010\n",
    "octal-new": "a: 0o10\n",
    "hex": "a: 0x1f\n",
    "grouped": "a: 1_000\n",
    "sexagesimal": "a: 1:30\n",
    "signed": "a: +5\n",
    "negative": "a: -5\n",
    "float": "a: 1.0\n",
    "exponent": "a: 1e3\n",
    "infinity": "a: .inf\n",
    "huge": "a: " + "9" * 5000 + "\n",
    "foreign-digits": "a: !!int \u0663\n",
    "null": "a: ~\n",
    "nothing": "a:\n",
    "norway": "a: no\n",
    "off": "level: off\n",
    "on": "a: On\n",
    "surrogate": 'a: "\\ud800"\n',
    "surrogate-in-a-name": '"\\ud800": 1\n',
    "empty": "",
    "only-a-comment": "# nothing\n",
    "list": "- a\n",
    "text": "hello\n",
    "number": "5\n",
    "tab": "a:\n\t- b\n",
    "control": "a: \x07\n",
    "unknown-directive": "%YAML 3.0\n---\na: 1\n",
    "complex-key": "? {a: b}\n: 1\n",
}


@pytest.mark.parametrize("case", TRICKS)
def test_tricks(case: str) -> None:
    with pytest.raises(PolicyError):
        parse(TRICKS[case]).policy()


@pytest.mark.parametrize("case", [b"\xff\xfea\x00", b"\xffa: 1", b"a: \xed\xa0\x80", b" " * (5 << 20)])
def test_bytes(case: bytes) -> None:
    with pytest.raises(PolicyError):
        parse(case)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'off'", "off"),
        ("'010'", "010"),
        ("2027-06-30", "2027-06-30"),
        ("2027-06-30T00:00:00Z", "2027-06-30T00:00:00Z"),
        ("24h", "24h"),
        ("true", True),
        ("FALSE", False),
        ("0", 0),
        ("10", 10),
        ("!!str 5", "5"),
        ("|\n  a\n  b", "a\nb\n"),
        ("{b: [1, x]}", {"b": [1, "x"]}),
        ("s3://models/**", "s3://models/**"),
        ('"\\u00fc"', "ü"),
    ],
)
def test_values(text: str, value: object) -> None:
    assert parse(f"a: {text}\n").body == {"a": value}


def test_json_is_a_draft_too() -> None:
    body = {"a": [1, {"b": 'ü " \\ /', "c": True}], "d": "x"}
    for text in (json.dumps(body), json.dumps(body, indent=2, ensure_ascii=False)):
        assert parse(text).body == body
        assert strictjson.loads(parse(text).json, limit=1 << 20, what="x") == body


# --- Keys ---


def test_keys_are_put_in(tmp_path: Path) -> None:
    key, team = write_key(tmp_path, "k"), write_key(tmp_path, "team")
    pki = write_pki(tmp_path)
    (tmp_path / "p.yaml").write_text(
        HEAD
        + "identities:\n  a: {key: k.pub.pem}\n"
        + f"  b:\n    certificate:\n      roots: [{pki.root_file.name}]\n      names: ['email:a@example.org']\n"
        + f"delegations:\n- {{team: t, artifact: ['/x/**'], key: 'file:{team.public}', policy: /p.json}}\n"
    )
    draft = read_draft(str(tmp_path / "p.yaml"))
    policy = draft.policy()
    assert policy.identities["a"].key == key.public.read_text()
    assert policy.delegations[0].key == team.public.read_text()
    certificate = policy.identities["b"].certificate
    assert certificate is not None
    assert certificate.roots[0] == pki.root.pem.decode()
    assert b"k.pub.pem" not in draft.json


@pytest.mark.parametrize("key", ["nowhere.pem", "k.pem", ".", "file:nowhere", "s3://keys/k.pem"])
def test_keys_that_cannot_be_had(tmp_path: Path, key: str) -> None:
    write_key(tmp_path, "k")
    (tmp_path / "p.yaml").write_text(HEAD + f"identities:\n  a:\n    key: {key}\n")
    with pytest.raises(PolicyError, match=r"\(line 6\)") as caught:
        read_draft(str(tmp_path / "p.yaml"))
    assert "BEGIN" not in str(caught.value)


def test_no_such_draft(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_draft(str(tmp_path / "nowhere.yaml"))
