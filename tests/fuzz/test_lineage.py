"""Whatever bytes stand in files of DVC, only our own errors come out, and a broken repository never passes."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealflow import strictyaml
from sealflow.errors import EvidenceError
from sealflow.lineage.check import check_repository
from sealflow.lineage.content import directory_digest, directory_object
from sealflow.lineage.files import Definition, own_checksum, parse_dvc_file, parse_lock, parse_pipeline
from sealflow.lineage.params import parse_params, same, value_at
from sealflow.lineage.template import Problem, resolve
from tests.core.lineage.repos import codes, lock, md5, out, simple

# Many examples each.
pytestmark = pytest.mark.slow

EXAMPLES = 4 * settings().max_examples

PIECES = [
    b"'", b'"', b"{", b"}", b"[", b"]", b",", b":", b": ", b"\n", b"\n  ", b"- ", b"&a ", b"*a", b"<<: ", b"!!int ",
    b"? ", b"---\n", b"...\n", b"#", b"|\n", b">-\n", b"%YAML 1.1\n", b"~", b"null", b"yes", b"1e999", b"-.inf",
    b".nan", b"0x", b"9" * 5000, b"2020-99-99", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\t", b"${", b"${lr}", b"${item}",
    b"\\${", b"../", b"/", b"foreach", b"matrix: ", b"do: ", b"vars: ", b"wdir: ", b"cmd: ", b"path: ", b"hash: ",
    b"md5: ", b".dir", b"[" * 60, b"{a: " * 60, b"a: &a [x]\nb: [*a, *a]\n",
]  # fmt: skip
STAGE = {"cmd": "x", "deps": [out("d", "1")], "outs": [out("o", "2")], "params": {"p": {"k": 1}}}
LOCK = json.dumps(lock(a=STAGE)).encode()
YAML_LOCK = b"""schema: '2.0'
stages:
  a:
    cmd: x
    deps:
    - path: d
      hash: md5
      md5: c4ca4238a0b923820dcc509a6f75849b
      size: 1
"""
DVC_FILE = b"""md5: 0
frozen: true
deps:
- path: p
  repo:
    url: u
outs:
- md5: c4ca4238a0b923820dcc509a6f75849b
  path: p
"""
PIPELINE = b"""vars:
- a: {b: [1, x]}
stages:
  s: {cmd: "${a.b[1]} ${lr}", deps: [d], params: [lr, {q.json: [k]}], outs: [o: {cache: false}]}
  f: {foreach: ["${lr}", b], do: {cmd: "${item}"}}
  m: {matrix: {x: [1, 2], y: "${a.b}"}, cmd: "${key}"}
"""
PARAMS = {
    "p.yaml": b"lr: 0.1\nlist: [1, {a: b}]\n",
    "p.json": b'{"a": [1.5, null]}',
    "p.toml": b"a = 1\n[b]\nc = 'x'\n",
}


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        kind = draw(st.integers(0, 3))
        piece = draw(st.sampled_from(PIECES)) if kind < 2 else draw(st.binary(max_size=6))
        if kind == 3:
            data[start:end] = data[start:end] * 2
        else:
            data[start : start if kind == 0 else end] = piece
    return bytes(data)


def only_our_errors(act: Callable[[], object]) -> object:
    try:
        return act()
    except EvidenceError:
        return None


@settings(max_examples=EXAMPLES)
@given(mutated([LOCK, YAML_LOCK]))
def test_locks(data: bytes) -> None:
    for stage in (only_our_errors(lambda: parse_lock(data, "dvc.lock")) or {}).values():  # type: ignore[attr-defined]
        assert isinstance(stage.cmd, (str, list))
        for item in (*stage.deps, *stage.outs):
            assert "\0" not in item.path
            assert item.digest == "" or len(item.digest.removesuffix(".dir")) == 32


@settings(max_examples=EXAMPLES)
@given(mutated([DVC_FILE, DVC_FILE.replace(b"0\n", b"'0'\n", 1)]))
def test_dvc_files(data: bytes) -> None:
    found: Any = only_our_errors(lambda: parse_dvc_file(data, "a.dvc"))
    assert found is None or found.outs


@settings(max_examples=EXAMPLES)
@given(mutated([PIPELINE]), st.sampled_from([{"lr": 0.1}, {"lr": {"a": [1]}, "a": 5}, {"lr": []}]))
def test_pipelines(data: bytes, params: dict[str, Any]) -> None:
    pipeline: Any = only_our_errors(lambda: parse_pipeline(data, "dvc.yaml"))
    if pipeline is not None:
        found = list(resolve(pipeline, "dvc.yaml", "", {"params.yaml": params}.get))
        for item in found:
            assert isinstance(item, (Definition, Problem))
        # Every stage is answered, but for groups that go over nothing.
        names = {item.name.partition("@")[0] for item in found} | {item.name for item in found}
        for name, body in pipeline.stages.items():
            assert name in names or "foreach" in body or "matrix" in body or "@" in name


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(sorted(PARAMS)).flatmap(lambda name: st.tuples(st.just(name), mutated([PARAMS[name]]))),
       st.text("ab.list0*[", max_size=8))  # fmt: skip
def test_parameters(given_file: tuple[str, bytes], key: str) -> None:
    name, data = given_file
    found: Any = only_our_errors(lambda: parse_params(data, name, name))
    if found is not None:
        only_our_errors(lambda: value_at(found, key, name))
        same(found, found)


@settings(max_examples=EXAMPLES)
@given(mutated([*PARAMS.values(), PIPELINE, YAML_LOCK]), st.sampled_from([None, strictyaml.core]))
def test_yaml(data: bytes, scalar: Any) -> None:
    found: Any = only_our_errors(lambda: strictyaml.loads(data, limit=1 << 16, what="doc", scalar=scalar))
    if found is not None:
        assert () in found[1] or found[0] is None


@pytest.mark.oracle
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(mutated([*PARAMS.values(), PIPELINE, YAML_LOCK]))
def test_what_we_read_dvc_reads_the_same(data: bytes) -> None:
    """Two readers that see two documents would check another pipeline than the one that runs."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    found: Any = only_our_errors(lambda: strictyaml.loads(data, limit=1 << 16, what="doc", scalar=strictyaml.core))
    if found is None:
        return
    try:
        theirs = YAML(typ="safe", pure=True).load(data)
    except (YAMLError, ValueError, AttributeError, IndexError, NotImplementedError):
        # Refused there: DVC does not run it.
        return
    assert repr(found[0]) == repr(theirs) or found[0] == theirs, (found[0], theirs)


names = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


@settings(max_examples=EXAMPLES)
@given(st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), st.text("0123456789abcdef", max_size=32)))
def test_directory_objects(files: dict[str, str]) -> None:
    expected = json.dumps([{"md5": files[name], "relpath": name} for name in sorted(files)], sort_keys=True)
    assert directory_object(files.items()) == expected.encode("ascii")
    assert directory_digest(files.items()) == md5(expected) + ".dir"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=EXAMPLES)
@given(st.dictionaries(st.sampled_from(["wdir", "meta", "frozen", "x", "cmd"]), values))
def test_checksums(body: dict[str, Any]) -> None:
    assert own_checksum(body) == own_checksum({**body, "md5": "x"})


@settings(max_examples=EXAMPLES // 4, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(["dvc.yaml", "dvc.lock", "params.yaml", "x.dvc", ".dvc/config"]), st.data())
def test_whole_repositories(name: str, data: st.DataObject) -> None:
    """A changed file changes the answer, unless it says the same in other words."""
    folder = Path(tempfile.mkdtemp())
    try:
        root = simple(folder / "r")
        (root / "x.dvc").write_text(json.dumps({"outs": [out("in.csv", "1\n")]}))
        (root / ".dvc/config").write_text("[cache]\n    dir = /nowhere\n")
        before = (root / name).read_bytes()
        changed = data.draw(mutated([before]))
        (root / name).write_bytes(changed)
        found = check_repository(str(root))
        if codes(found) == set() and name == "dvc.lock":
            old, new = parse_lock(before, ""), parse_lock(changed, "")
            assert set(old) == set(new)
            assert [item.digest for item in old["make"].outs] == [item.digest for item in new["make"].outs]
            assert old["make"].cmd == new["make"].cmd
    finally:
        shutil.rmtree(folder)
