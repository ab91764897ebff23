"""Every reader of untrusted bytes has a target with seeds, and none knows an answer that is not ours."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.decoders import ROOT, decoders, modules
from tests.fuzz.elsewhere import HELD, OURS
from tests.fuzz.targets import CORPUS, TARGETS, Target
from tests.fuzz.test_untrusted_bytes import mutated

GOOD = [(target.name, seed) for target in TARGETS.values() for seed in target.seeds() if seed.startswith("good-")]
BAD = [(target.name, seed) for target in TARGETS.values() for seed in target.seeds() if not seed.startswith("good-")]

#: What has surprised readers somewhere, whatever the format.
HOSTILE = {
    "nothing": b"",
    "a zero": b"\x00",
    "zeros": bytes(400),
    "ones": b"\xff" * 400,
    "no UTF-8": b'{"a": "\xff"}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a raw surrogate": b'"\xed\xa0\x80"',
    "a name twice": b'{"a": 1, "a": 2}',
    "no number": b'{"a": NaN}',
    "a number beyond all": b'{"a": 1e999}',
    "a number of many digits": b'{"a": ' + b"9" * 5000 + b"}",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "deep flow": b"{a: " * 5000,
    "null": b"null",
    "a text": b'"x"',
    "a list": b"[]",
    "an object": b"{}",
    "a list of lists": b"[[]]",
    "a number": b"1",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "an alias bomb": b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]\n",
    "a tag": b"!!python/object/apply:os.system [id]\n",
    "a date that is none": b"a: 2020-99-99\n",
    "a gzip file cut short": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "DER of endless length": b"\x30\x84\xff\xff\xff\xff",
    "DER of no length": b"\x30\x80" * 200,
    "PEM of nothing": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    "PEM that is none": b"-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
    "a path upwards": b"../../../../etc/passwd",
    "a line break": b"\n",
    "blank lines": b"\n\n\n\n",
}


def answer(target: Target, data: bytes) -> bool:
    """Tell whether a reader takes bytes; anything but its own errors comes out."""
    try:
        target.read(data)
    except target.refuses:
        return False
    return True


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_has_seeds(name: str) -> None:
    assert any(seed.startswith("good-") for seed in TARGETS[name].seeds())
    for seed, data in TARGETS[name].seeds().items():
        assert seed.startswith(("good-", "bad-")), seed
        assert len(data) <= 32 << 10, f"{seed} is no small sample"


def test_every_folder_of_seeds_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} - {"roots"} == set(TARGETS)


@pytest.mark.parametrize(("name", "seed"), GOOD)
def test_a_good_seed_is_accepted(name: str, seed: str) -> None:
    TARGETS[name].read(TARGETS[name].seeds()[seed])


@pytest.mark.parametrize(("name", "seed"), BAD)
def test_a_bad_seed_is_refused(name: str, seed: str) -> None:
    assert not answer(TARGETS[name], TARGETS[name].seeds()[seed])


@pytest.mark.parametrize("name", TARGETS)
def test_what_surprised_other_readers(name: str) -> None:
    for document in HOSTILE.values():
        answer(TARGETS[name], document)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_mutated_seeds(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    answer(target, data.draw(mutated(list(target.seeds().values()))))


# --- The table is whole ---


def _file(module: str) -> str:
    found = importlib.util.find_spec(module)
    assert found is not None, f"there is no {module}"
    assert found.origin is not None
    return str(Path(found.origin).resolve())


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_runs_the_modules_that_it_is_there_for(name: str) -> None:
    target = TARGETS[name]
    ran: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            ran.add(frame.f_code.co_filename)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for seed in target.seeds().values():
            answer(target, seed)
    finally:
        sys.setprofile(before)
    here = {str(Path(path).resolve()) for path in ran}
    assert [module for module in target.modules if _file(module) not in here] == []


def test_every_module_that_decodes_is_in_the_table() -> None:
    covered = {module for target in TARGETS.values() for module in target.modules}
    missing = {
        name: sorted(calls) for name, calls in modules().items() if name not in covered | HELD.keys() | OURS.keys()
    }
    assert missing == {}, "give it a target in tests/fuzz/targets, or say in tests/fuzz/elsewhere.py who holds it"


def test_nothing_in_the_table_is_out_of_date() -> None:
    covered = {module for target in TARGETS.values() for module in target.modules}
    assert sorted((HELD.keys() | OURS.keys()) & covered) == []
    assert sorted(HELD.keys() & OURS.keys()) == []
    assert sorted((HELD.keys() | OURS.keys()) - modules().keys()) == []
    for test in HELD.values():
        path, _, name = test.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, test


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import json\njson.loads(data)", {"json.loads"}),
        ("def f(data):\n    return [strictjson.loads(data, limit=1)]", {"strictjson.loads"}),
        ("x = int.from_bytes(data, 'big')", {"int.from_bytes"}),
        ("self._form.unpack_from(data)", {"self._form.unpack_from"}),
        ("json.dumps({})", set()),
    ],
)
def test_a_decoder_is_seen(source: str, found: set[str]) -> None:
    assert decoders(source) == found
