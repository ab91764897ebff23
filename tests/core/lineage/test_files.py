"""DVC's own files: what is read out of them, and what is refused with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sealflow.errors import EvidenceError
from sealflow.lineage.files import own_checksum, parse_dvc_file, parse_lock, parse_pipeline
from sealflow.lineage.params import parse_params, same, value_at
from tests.core.lineage.repos import lock, md5, out


def dumped(body: Any) -> bytes:
    return body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()


def test_a_lock() -> None:
    body = lock(
        a={"cmd": ["x", "y"], "deps": [out("d", "1", isexec=True)], "params": {"p": {"k": [1, {"z": None}]}}},
        b={"cmd": "x", "outs": [{"path": "o", "md5": "a" * 32 + ".dir", "size": 5, "nfiles": 2}]},
    )
    stages = parse_lock(dumped(body), "dvc.lock")
    assert (stages["a"].cmd, stages["a"].params) == (["x", "y"], {"p": {"k": [1, {"z": None}]}})
    recorded = stages["a"].deps[0]
    assert (recorded.path, recorded.digest, recorded.legacy, recorded.size, recorded.line) == (
        "d",
        md5("1"),
        False,
        1,
        1,
    )
    old = stages["b"].outs[0]
    assert (old.digest, old.legacy, old.nfiles) == ("a" * 32 + ".dir", True, 2)
    assert parse_lock(b"schema: '2.0'\n", "dvc.lock") == {}


def test_a_folder_recorded_file_by_file() -> None:
    files = [{"relpath": "b/c", "md5": md5("2"), "size": 1}, {"relpath": "a", "md5": md5("1"), "size": 1}]
    stage = parse_lock(dumped(lock(s={"cmd": "x", "outs": [{"path": "o", "hash": "md5", "files": files}]})), "l")["s"]
    text = json.dumps([{"md5": md5("1"), "relpath": "a"}, {"md5": md5("2"), "relpath": "b/c"}])
    assert stage.outs[0].digest == md5(text) + ".dir"
    assert dict(stage.outs[0].files) == {"a": md5("1"), "b/c": md5("2")}


def stage(**more: Any) -> dict[str, Any]:
    return lock(s={"cmd": "x", **more})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "schema"),
        ("[]", "schema"),
        ({"stages": {}}, "schema 'None'"),
        ({"schema": "1.0"}, "schema '1.0'"),
        ({"schema": 2.0}, "schema '2.0'"),
        ({"schema": "2.0", "more": 1}, "unknown field 'more'"),
        ({"schema": "2.0", "stages": []}, "wrong type list"),
        ({"schema": "2.0", "stages": {"a": None}}, "mapping"),
        ("schema: '2.0'\nstages:\n  1: {cmd: x}\n", r"no text \(line \d\)"),
        (lock(s={}), "lacks 'cmd'"),
        (lock(s={"cmd": {}}), "wrong type dict"),
        (lock(s={"cmd": ["a", 1]}), "no text"),
        (stage(outs={}), "wrong type dict"),
        (stage(outs=["a"]), "mapping"),
        (stage(outs=[{}]), "lacks 'path'"),
        (stage(outs=[{"path": 1}]), "wrong type int"),
        (stage(outs=[{"path": "a\0b"}]), "NUL|not YAML"),
        (stage(outs=[out("a", ""), out("a", "")]), "twice"),
        (stage(outs=[out("a", "", hash="sha256")]), "DVC knows md5"),
        (stage(outs=[out("a", "", md5="A" * 32)]), "none"),
        (stage(outs=[out("a", "", md5="a" * 31)]), "none"),
        (stage(outs=[out("a", "", md5="a" * 32 + ".dirs")]), "none"),
        (stage(outs=[out("a", "", md5=5)]), "wrong type int"),
        (stage(outs=[out("a", "", size=-1)]), "negative"),
        (stage(outs=[out("a", "", size=True)]), "wrong type bool"),
        (stage(outs=[out("a", "", size="1")]), "wrong type str"),
        (stage(outs=[out("a", "", mode=1)]), "unknown field"),
        (stage(outs=[{"path": "a", "files": [{"relpath": "../x", "md5": md5("")}]}]), "leaves"),
        (stage(outs=[{"path": "a", "files": [{"relpath": "/x", "md5": md5("")}]}]), "leaves"),
        (stage(outs=[{"path": "a", "files": [{"relpath": "x", "etag": "e"}]}]), "without an MD5"),
        (stage(outs=[{"path": "a", "files": [{"relpath": "x", "md5": md5("")}] * 2}]), "twice"),
        (stage(params={"p": [1]}), "no mapping"),
        ("schema: '2.0'\nstages: {s: {cmd: x, params: {p: {1: 2}}}}", "no text"),
        ("schema: '2.0'\nschema: '2.0'\n", r"twice \(line 2\)"),
        ("schema: &a '2.0'\nstages: *a\n", "reference"),
    ],
)  # fmt: skip
def test_locks_that_are_refused(body: Any, reason: str) -> None:
    with pytest.raises(EvidenceError, match=reason):
        parse_lock(dumped(body), "dvc.lock")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "mapping"),
        ({}, "names no data"),
        ({"outs": []}, "names no data"),
        ({"outs": [out("a", "")], "cmd": "x"}, "unknown field 'cmd'"),
        ({"outs": [out("a", "", cache="no")]}, "wrong type str"),
        ({"outs": [out("a", "")], "deps": [{"md5": md5("")}]}, "lacks 'path'"),
        ({"outs": [out("a", "")], "frozen": 1}, "wrong type int"),
        ({"outs": [out("a", "")], "wdir": 1}, "wrong type int"),
    ],
)
def test_dvc_files_that_are_refused(body: Any, reason: str) -> None:
    with pytest.raises(EvidenceError, match=reason):
        parse_dvc_file(dumped(body), "a.dvc")


def test_a_dvc_file() -> None:
    found = parse_dvc_file(
        dumped({"wdir": "..", "meta": {"any": [1]}, "outs": [out("a", "1", cache=False, desc="d", labels=["x"])]}),
        "a.dvc",
    )
    assert (found.wdir, found.frozen, found.altered, found.outs[0].cache) == ("..", False, False, False)


def test_the_checksum_of_an_import() -> None:
    body = {
        "frozen": True,
        "deps": [{"path": "d", "repo": {"url": "u", "rev_lock": "r"}}],
        "outs": [out("a", "1", desc="words", cache=True, push=True)],
    }
    plain = {**body, "outs": [out("a", "1")], "wdir": "."}
    assert own_checksum(body) == own_checksum(plain) == own_checksum({**plain, "md5": "x", "frozen": False})
    assert own_checksum({**body, "outs": [out("a", "1", cache=False)]}) != own_checksum(body)
    assert not parse_dvc_file(dumped({**body, "md5": own_checksum(body)}), "a.dvc").altered
    assert parse_dvc_file(dumped({**body, "md5": "0" * 32}), "a.dvc").altered
    assert (
        parse_dvc_file(dumped({**body, "md5": own_checksum(body)}), "a.dvc").deps[0].upstream.startswith("repository u")
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("[]", "mapping"),
        ({"stage": {}}, "unknown field 'stage'"),
        ({"stages": {"a": None}}, "mapping"),
        ({"stages": {"a": {"cmd": "x", "more": 1}}}, "unknown field 'more'"),
        ({"stages": {"a": {"foreach": [1]}}}, "lacks 'do'"),
        ({"stages": {"a": {"do": {"cmd": "x"}}}}, "lacks 'foreach'"),
        ({"stages": {"a": {"foreach": 1, "do": {"cmd": "x"}}}}, "wrong type int"),
        ({"stages": {"a": {"foreach": [1], "do": {"cmd": "x", "matrix": {}}}}}, "unknown field 'matrix'"),
        ({"stages": {"a": {"foreach": [1], "do": {"cmd": "x"}, "cmd": "y"}}}, "unknown field 'cmd'"),
        ({"stages": {"a": {"cmd": "x", "matrix": [1]}}}, "wrong type list"),
        ({"vars": [1]}, "neither a file nor a mapping"),
        ("stages:\n  1: {cmd: x}\n", "no text"),
    ],
)
def test_pipelines_that_are_refused(body: Any, reason: str) -> None:
    with pytest.raises(EvidenceError, match=reason):
        parse_pipeline(dumped(body), "dvc.yaml")


def test_an_empty_pipeline() -> None:
    assert parse_pipeline(b"# nothing\n", "dvc.yaml").stages == {}
    assert parse_pipeline(b"metrics: [a.json]\nplots: [b]\nartifacts: {}\n", "dvc.yaml").stages == {}


# --- Parameters ---


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("p.yaml", "a: 1\n", {"a": 1}), ("p.yaml", "", {}), ("p.yaml", "[]", {}), ("p", "a: yes", {"a": "yes"}),
        ("p.json", '{"a": [1.0]}', {"a": [1.0]}), ("p.json", " ", {}), ("P.TOML", "a = 1\r\n[b]\nc = 'x'\n",
        {"a": 1, "b": {"c": "x"}}), ("p.yaml", "1: a\n", {1: "a"}),
    ],
)  # fmt: skip
def test_parameters(name: str, text: str, value: Any) -> None:
    assert parse_params(text.encode(), name, name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.py", "lr = 1"), ("p.yaml", "a: [\n"), ("p.yaml", "text"), ("p.yaml", "a: 1\na: 1"), ("p.yaml", "a: &x 1"),
        ("p.json", "{"), ("p.json", '{"a": NaN}'), ("p.json", "[1]"), ("p.json", '{"a": 1, "a": 1}'),
        ("p.toml", "a = "), ("p.toml", "a = 1\na = 2"), ("p.toml", "\xff"), ("p.toml", "a = " + "[" * 3000),
    ],
)  # fmt: skip
def test_parameters_that_are_refused(name: str, text: str) -> None:
    with pytest.raises(EvidenceError) as refusal:
        parse_params(text.encode("latin-1"), name, name)
    assert refusal.value.code == "PARAMS_UNREADABLE"


def test_keys() -> None:
    body = {"a": {"b": [1, {"c": None}]}, 3: "three", True: "yes", "x.y": "dotted"}
    for key, value in [("a.b.0", 1), ("a.b.1.c", None), ("a", body["a"]), ("3", "three"), ("True", "yes")]:
        assert value_at(body, key, "p") == (True, value)
    for key in ["b", "a.b.2", "a.b.-1", "a.b.x", "x.y", "a.b.1.c.d", "", "a.b.\u0661"]:
        assert value_at(body, key, "p") == (False, None)
    for key in ["a.*", "a.?", "a.[b]"]:
        with pytest.raises(EvidenceError, match="pattern"):
            value_at(body, key, "p")


def test_sameness() -> None:
    assert same({"a": [1, "x", None]}, {"a": [1, "x", None]})
    for one, other in [
        (1, 1.0),
        (1, True),
        (0, False),
        ([1], [1, 2]),
        ({"a": 1}, {"b": 1}),
        ("1", 1),
        (float("nan"),) * 2,
    ]:
        assert not same(one, other)
        assert not same({"k": [one]}, {"k": [other]})
