"""The sealed XCom backend against everybody who can write where XComs are stored."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sealflow.encryption import encrypt_message
from tests.airflow.xcom_world import Rows

pytestmark = pytest.mark.airflow

SLOT = {"dag_id": "train", "run_id": "manual__2", "task_id": "fit"}
VALUE = {"model": "s3://models/churn", "scores": [0.91, None, True], "who": "Zoë"}
COMMON_IO = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"


def write_key(folder: Path, name: str, fill: int) -> str:
    path = folder / name
    path.write_bytes(bytes([fill]) * 32)
    path.chmod(0o600)
    return f"aes:{path}"


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Start anew with these options, as a process does."""
    from sealflow_airflow import xcom

    # What Airflow does with `[core] xcom_backend`.
    monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom", xcom.SealedXComBackend)

    def start(**options: str) -> Any:
        given = {"xcom_keys": write_key(tmp_path, "one.key", 1), **options}
        monkeypatch.setattr(xcom, "_FROZEN", {name: given.get(name, "") for name in xcom._OPTIONS})
        xcom.keys.cache_clear()
        xcom.storage.cache_clear()
        xcom._gaps.clear()
        return xcom.SealedXComBackend

    yield start
    xcom.keys.cache_clear()
    xcom.storage.cache_clear()


@pytest.fixture
def backend(configure: Callable[..., Any]) -> Any:
    return configure()


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What Airflow's metrics were told."""
    from airflow.sdk.observability.stats import Stats

    told: list[tuple[str, str]] = []

    def incr(name: str, count: int = 1, *, tags: dict[str, str] | None = None) -> None:
        told.extend([(name, (tags or {}).get("code", ""))] * count)

    monkeypatch.setattr(Stats, "incr", staticmethod(incr))
    return told


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    from airflow.sdk.execution_time import task_runner

    made = Rows()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made, raising=False)
    return made


def push(backend: Any, value: Any, key: str = "return_value", **slot: Any) -> None:
    backend.set(key, value, **{**SLOT, **slot})


def pull(backend: Any, key: str = "return_value", **slot: Any) -> Any:
    return backend.get_one(key=key, **{**SLOT, **slot})


def refusal(call: Callable[[], Any]) -> str:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException) as caught:
        call()
    return str(caught.value).partition(":")[0]


VALUES = {
    "object": VALUE,
    "text": "text",
    "empty": "",
    "number": 3,
    "false": False,
    "list": [1, [2, {"a": None}]],
    "tuple": (1, ("a", 2)),
    "looks-like-an-envelope": {"sealed_by": "sealflow", "sealed": "AAAA"},
    "half-a-surrogate": "\ud800",
    "infinite": float("inf"),
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_is_pushed_is_pulled(backend, rows, value):
    push(backend, value)
    assert pull(backend) == value
    assert type(pull(backend)) is type(value)


def test_classes_come_back_as_airflow_allows(backend, rows):
    import datetime

    when = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)
    push(backend, {"at": when})
    assert pull(backend) == {"at": when}


def test_what_is_stored_is_an_envelope_that_people_can_read(backend, rows, counted):
    push(backend, VALUE)
    (stored,) = rows.rows.values()
    assert {name: stored[name] for name in ("sealed_by", "algorithm", "bytes")} == {
        "sealed_by": "sealflow",
        "algorithm": "AES-256-GCM",
        "bytes": len(json.dumps(VALUE)),
    }
    assert len(stored["key_id"]) == 32
    assert "churn" not in json.dumps(stored)
    assert pull(backend) == VALUE
    assert [name for name, _ in counted] == ["sealflow.xcom.sealed", "sealflow.xcom.opened"]


def test_null_and_nothing_are_none(backend, rows):
    assert pull(backend) is None
    push(backend, None)
    assert rows.rows
    assert pull(backend) is None


def test_asynchronously(backend, rows):
    async def both() -> list[Any]:
        await backend.aset("return_value", VALUE, **SLOT)
        return [
            await backend.aget_one(key="return_value", **SLOT),
            await backend.aget_all(key="return_value", **SLOT),
        ]

    assert asyncio.run(both()) == [VALUE, [VALUE]]


# --- Somebody writes to the database, or through the REST API ---


def other_slot(backend: Any, rows: Rows, **slot: Any) -> Any:
    """An envelope that another slot truly holds."""
    push(backend, VALUE, slot.pop("key", "return_value"), **slot)
    return rows.rows.pop(next(reversed(rows.rows)))


def other_deployment(folder: Path) -> Any:
    from sealflow.encryption.value import load_value_keys, seal_value
    from sealflow_airflow import xcom

    names = {
        xcom.DAG: SLOT["dag_id"],
        xcom.RUN: SLOT["run_id"],
        xcom.TASK: SLOT["task_id"],
        xcom.MAP_INDEX: "-1",
        xcom.KEY: "return_value",
    }
    (key,) = load_value_keys([write_key(folder, "other.key", 9)])
    return seal_value(b"{}", names, key, limit=4096).as_dict()


ATTACKS = {
    "clear": (lambda b, r, s, f: {"injected": True}, "VALUE_CLEAR"),
    "clear-text": (lambda b, r, s, f: "text", "VALUE_CLEAR"),
    "clear-path": (lambda b, r, s, f: "file:///etc/passwd", "VALUE_CLEAR"),
    "class-in-clear": (
        lambda b, r, s, f: {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]},
        "VALUE_CLEAR",
    ),
    "false": (lambda b, r, s, f: False, "VALUE_CLEAR"),
    "extra-member": (lambda b, r, s, f: s | {"note": "me"}, "VALUE_MALFORMED"),
    "member-of-the-scheduler": (lambda b, r, s, f: {"followed": ["x"]} | s, "VALUE_MALFORMED"),
    "flipped": (
        lambda b, r, s, f: s | {"sealed": s["sealed"][:-8] + "AAAA" + s["sealed"][-4:]},
        "VALUE_ALTERED",
    ),
    "cut": (lambda b, r, s, f: s | {"sealed": s["sealed"][:-4]}, "VALUE_ALTERED"),
    "huge": (lambda b, r, s, f: s | {"sealed": "A" * (24 << 20)}, "VALUE_TOO_LARGE"),
    "other-key-of-the-task": (lambda b, r, s, f: other_slot(b, r, key="secret"), "VALUE_MISPLACED"),
    "other-task": (lambda b, r, s, f: other_slot(b, r, task_id="evaluate"), "VALUE_MISPLACED"),
    "other-dag": (lambda b, r, s, f: other_slot(b, r, dag_id="mine"), "VALUE_MISPLACED"),
    "earlier-run": (lambda b, r, s, f: other_slot(b, r, run_id="manual__1"), "VALUE_MISPLACED"),
    "other-deployment": (lambda b, r, s, f: other_deployment(f), "VALUE_FOREIGN"),
    "artifact-of-this-key": (
        lambda b, r, s, f: (
            s | {"sealed": __import__("base64").b64encode(encrypt_message(b"{}", _keys(), {"a": "b"})).decode()}
        ),
        "VALUE_MALFORMED",
    ),
}


def _keys() -> Any:
    from sealflow_airflow import xcom

    return xcom.keys()


@pytest.mark.parametrize("storage", ["", COMMON_IO], ids=["database", "object-storage"])
@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS)
def test_refused(configure, objects, rows, monkeypatch, counted, tmp_path, attack, code, storage):
    monkeypatch.setattr("airflow.providers.common.io.xcom.backend._get_threshold", lambda: 0)
    backend = configure(xcom_storage=storage)
    push(backend, VALUE)
    ((slot, stored),) = rows.rows.items()
    assert pull(backend) == VALUE
    planted = attack(backend, rows, stored, tmp_path)
    rows.rows[slot] = planted
    if storage and code in ("VALUE_ALTERED", "VALUE_MALFORMED") and isinstance(planted, dict):
        code = "VALUE_MALFORMED"  # a location that was tampered with names nothing
    counted.clear()
    for read in (
        lambda: pull(backend),
        lambda: backend.get_all(key="return_value", **SLOT),
        lambda: backend.get_value(
            ti_key=SimpleNamespace(**SLOT, map_index=-1),
            key="return_value",
        ),
        lambda: asyncio.run(backend.aget_one(key="return_value", **SLOT)),
        lambda: asyncio.run(backend.aget_all(key="return_value", **SLOT)),
    ):
        assert refusal(read) == code
    assert counted == [("sealflow.xcom.refused", code)] * 5


def test_an_unmapped_value_is_no_mapped_one(backend, rows):
    push(backend, VALUE)
    ((slot, _),) = rows.rows.items()
    rows.rows[slot] = other_slot(backend, rows, map_index=0)
    assert refusal(lambda: pull(backend)) == "VALUE_MISPLACED"


def test_a_value_that_nobody_asked_for_is_refused(backend, rows):
    push(backend, VALUE)
    (stored,) = rows.rows.values()
    assert refusal(lambda: backend.deserialize_value(SimpleNamespace(value=stored))) == "VALUE_MISPLACED"


def test_what_is_asked_for_is_forgotten_after_a_refusal(backend, rows):
    push(backend, VALUE)
    (stored,) = rows.rows.values()
    rows.rows[next(iter(rows.rows))] = "clear"
    assert refusal(lambda: pull(backend)) == "VALUE_CLEAR"
    assert refusal(lambda: backend.deserialize_value(SimpleNamespace(value=stored))) == "VALUE_MISPLACED"


def test_an_older_try_of_the_same_slot_is_not_told_apart(backend, rows):
    """What the documentation says is not bound."""
    push(backend, "first try")
    ((slot, first),) = rows.rows.items()
    push(backend, "second try")
    rows.rows[slot] = first
    assert pull(backend) == "first try"


# --- Several values: a mapped task ---


def mapped(backend: Any, *indexes: int, **slot: Any) -> None:
    for index in indexes:
        push(backend, f"value {index}", map_index=index, **slot)


def sequence(**source: str) -> Any:
    from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

    operator = SimpleNamespace(dag_id=SLOT["dag_id"], task_id=source.get("task_id", SLOT["task_id"]))
    return LazyXComSequence(
        xcom_arg=SimpleNamespace(operator=operator, key="return_value"), ti=SimpleNamespace(run_id=SLOT["run_id"])
    )


@pytest.mark.parametrize("indexes", [(0, 1, 2), (0, 2, 5)], ids=["all", "some-skipped"])
def test_values_of_a_mapped_task(backend, rows, indexes):
    mapped(backend, *indexes)
    expected = [f"value {index}" for index in indexes]
    assert backend.get_all(key="return_value", **SLOT) == expected
    lazy = sequence()
    assert list(lazy) == expected
    assert list(lazy) == expected
    assert (lazy[-1], lazy[0], lazy[2]) == (expected[-1], expected[0], expected[2])
    assert (lazy[:], lazy[1:], lazy[::-1], lazy[:1]) == (expected, expected[1:], expected[::-1], expected[:1])
    assert [pull(backend, map_index=index) for index in indexes] == expected


def swap(rows: Rows, one: int, two: int) -> None:
    slots = {slot[3]: slot for slot in rows.rows}
    rows.rows[slots[one]], rows.rows[slots[two]] = rows.rows[slots[two]], rows.rows[slots[one]]


def repeat(rows: Rows, at: int, source: int) -> None:
    slots = {slot[3]: slot for slot in rows.rows}
    rows.rows[slots[at]] = rows.rows[slots[source]]


MOVES = {
    "first-two-swapped": lambda r: swap(r, 0, 1),
    "last-two-swapped": lambda r: swap(r, 1, 2),
    "ends-swapped": lambda r: swap(r, 0, 2),
    "first-repeated": lambda r: repeat(r, 1, 0),
    "last-repeated": lambda r: repeat(r, 1, 2),
    "one-for-all": lambda r: [repeat(r, index, 2) for index in (0, 1)],
}
READS = {
    "all": lambda b: b.get_all(key="return_value", **SLOT),
    "iterated": lambda b: list(sequence()),
    "iterated-backwards": lambda b: [sequence()[index] for index in (2, 1, 0)],
    "slice": lambda b: sequence()[:],
    "backwards": lambda b: sequence()[::-1],
    "one-by-one": lambda b: [pull(b, map_index=index) for index in range(3)],
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_values_moved_between_map_indexes(backend, rows, move, read):
    mapped(backend, 0, 1, 2)
    assert sorted(read(backend)) == ["value 0", "value 1", "value 2"]
    move(rows)
    assert refusal(lambda: read(backend)) == "VALUE_MISPLACED"


#: One read in a process of its own, as each instance of a task that is mapped over a mapped task does.
LONE_READS = {
    "first": lambda: sequence()[0],
    "second": lambda: sequence()[1],
    "last": lambda: sequence()[-1],
    "last-but-one": lambda: sequence()[-2],
    "slice-of-one": lambda: sequence()[:1],
    "slice-of-two": lambda: sequence()[1:],
    "slice-from-the-end": lambda: sequence()[-2:],
    "every-other": lambda: sequence()[::2],
    "backwards-from-the-end": lambda: sequence()[:-3:-1],
}


@pytest.mark.parametrize("read", LONE_READS.values(), ids=LONE_READS)
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("present", [(0, 1, 2), (5, 7, 9)], ids=["all", "some-skipped"])
def test_a_single_read_gets_what_belongs_there_or_nothing(backend, rows, present, move, read):
    from airflow.sdk.exceptions import AirflowFailException

    from sealflow_airflow import xcom

    mapped(backend, *present)
    expected = read()
    rows.rows = {(*slot[:3], present.index(slot[3]), slot[4]): value for slot, value in rows.rows.items()}
    move(rows)
    rows.rows = {(*slot[:3], present[slot[3]], slot[4]): value for slot, value in rows.rows.items()}
    xcom._gaps.clear()
    try:
        got = read()
    except AirflowFailException as error:
        got = str(error).partition(":")[0]
    assert got in (expected, "VALUE_MISPLACED")


def test_a_value_that_is_gone_leaves_the_others_in_order(backend, rows):
    """What the documentation says is not bound: that a value is there."""
    mapped(backend, 0, 1, 2)
    del rows.rows["train", "manual__2", "fit", 0, "return_value"]
    assert (sequence()[0], sequence()[-1], sequence()[:1]) == ("value 1", "value 2", ["value 1"])
    with pytest.raises(IndexError):
        sequence()[2]


def test_where_some_were_skipped_one_value_may_stand_where_it_would_without(backend, rows):
    """What the documentation says is not bound: its neighbour is refused, and so is the whole."""
    mapped(backend, 1, 2, 4)
    repeat(rows, 2, 1)
    assert sequence()[1] == "value 1"
    assert refusal(lambda: sequence()[0]) == "VALUE_MISPLACED"
    assert refusal(lambda: list(sequence())) == "VALUE_MISPLACED"
    assert refusal(lambda: sequence()[:]) == "VALUE_MISPLACED"


def test_where_nothing_is_missing_one_value_is_one_request(backend, rows, monkeypatch):
    mapped(backend, 0, 1, 2)
    asked: list[str] = []
    send = rows.send
    monkeypatch.setattr(rows, "send", lambda msg: asked.append(type(msg).__name__) or send(msg))
    assert sequence()[1] == "value 1"
    assert asked == ["GetXComSequenceItem"]


def test_where_some_are_missing_the_rest_is_looked_at_once(backend, rows, monkeypatch):
    mapped(backend, 0, 2, 5)
    asked: list[str] = []
    send = rows.send
    monkeypatch.setattr(rows, "send", lambda msg: asked.append(type(msg).__name__) or send(msg))
    assert list(sequence()) == ["value 0", "value 2", "value 5"]
    assert asked.count("GetXComSequenceSlice") == 1


@pytest.mark.parametrize("moved", [{"task_id": "other"}, {"run_id": "manual__1"}, {"dag_id": "other"}], ids=str)
def test_a_lazy_sequence_knows_its_slot(backend, rows, moved):
    mapped(backend, 0)
    ((slot, _),) = rows.rows.items()
    rows.rows[slot] = other_slot(backend, rows, map_index=0, **moved)
    for read in (lambda: sequence()[0], lambda: sequence()[-1], lambda: sequence()[:], lambda: list(sequence())):
        assert refusal(read) == "VALUE_MISPLACED"


def test_values_of_earlier_runs_where_they_are_asked_for(backend, rows):
    push(backend, "earlier", run_id="manual__1")
    assert pull(backend) is None
    assert pull(backend, include_prior_dates=True) == "earlier"
    push(backend, "now")
    assert pull(backend, include_prior_dates=True) == "now"
    assert backend.get_all(key="return_value", include_prior_dates=True, **SLOT) == ["earlier", "now"]
    slot = (*("train", "manual__2", "fit"), -1, "return_value")
    rows.rows[slot] = other_slot(backend, rows, task_id="other")
    assert refusal(lambda: pull(backend, include_prior_dates=True)) == "VALUE_MISPLACED"


# --- What the scheduler has to read ---


@pytest.mark.parametrize("member", ["followed", "skipped"])
def test_the_scheduler_reads_what_a_branch_says(backend, rows, member):
    from airflow.ti_deps.deps.not_previously_skipped_dep import XCOM_SKIPMIXIN_KEY

    from sealflow_airflow.xcom import SKIPPED_KEY

    assert SKIPPED_KEY == XCOM_SKIPMIXIN_KEY
    push(backend, {member: ["a", "b"]}, SKIPPED_KEY)
    ((slot, stored),) = rows.rows.items()
    assert stored[member] == ["a", "b"]
    assert stored["sealed_by"] == "sealflow"
    assert pull(backend, SKIPPED_KEY) == {member: ["a", "b"]}
    for planted in (
        stored | {member: ["a"]},
        {name: item for name, item in stored.items() if name != member},
        stored | {"followed": [], "skipped": []},
    ):
        rows.rows[slot] = planted
        assert refusal(lambda: pull(backend, SKIPPED_KEY)) == "VALUE_ALTERED"


@pytest.mark.parametrize(
    "value", [{"followed": "text"}, {"followed": [], "more": 1}, ["followed"], {"a": ["b"]}], ids=str
)
def test_nothing_else_of_that_key_stands_in_clear(backend, rows, value):
    push(backend, value, "skipmixin_key")
    (stored,) = rows.rows.values()
    assert not stored.keys() & {"followed", "skipped", "more", "a"}
    assert pull(backend, "skipmixin_key") == value


# --- A task that has the key, as all on a worker have ---


def own_seal(value: bytes, map_index: str = "-1") -> Any:
    from sealflow.encryption.value import seal_value
    from sealflow_airflow import xcom

    slot = {
        xcom.DAG: SLOT["dag_id"],
        xcom.RUN: SLOT["run_id"],
        xcom.TASK: SLOT["task_id"],
        xcom.MAP_INDEX: map_index,
        xcom.KEY: "return_value",
    }
    return seal_value(value, slot, xcom.keys()[0], limit=1 << 20).as_dict()


@pytest.mark.parametrize(
    ("value", "map_index"),
    [
        pytest.param(b"no json", "-1", id="no-json"),
        pytest.param(b"\xff", "-1", id="no-text"),
        pytest.param(b"[" * 200_000, "-1", id="deep"),
        pytest.param(b"1", "first", id="no-map-index"),
        pytest.param(b"1", "9" * 5000, id="endless-map-index"),
    ],
)
def test_sealed_by_somebody_who_has_the_key(backend, rows, value, map_index):
    rows.rows["train", "manual__2", "fit", -1, "return_value"] = own_seal(value, map_index)
    assert refusal(lambda: backend.get_all(key="return_value", **SLOT)) == "VALUE_MALFORMED"


def test_classes_that_airflow_does_not_allow_stay_out(backend, rows):
    rows.rows["train", "manual__2", "fit", -1, "return_value"] = own_seal(
        b'{"__classname__": "subprocess.Popen", "__version__": 1, "__data__": ["true"]}'
    )
    with pytest.raises(ImportError, match="allow list"):
        pull(backend)


# --- Keys ---


def test_rotation(configure, rows, tmp_path):
    old, new = write_key(tmp_path, "old.key", 1), write_key(tmp_path, "new.key", 2) + "?name=2026-11"
    push(configure(xcom_keys=old), VALUE)
    backend = configure(xcom_keys=f"{new},\n{old}")
    assert pull(backend) == VALUE
    push(backend, VALUE)
    (stored,) = rows.rows.values()
    assert stored["key_id"] == "2026-11"
    assert refusal(lambda: pull(configure(xcom_keys=old))) == "VALUE_FOREIGN"
    assert pull(configure(xcom_keys=new)) == VALUE


MISTAKES = {
    "no-key": ({"xcom_keys": ""}, "KEY_MISSING"),
    "missing-key": ({"xcom_keys": "aes:/nowhere/xcom.key"}, "KEY_MISSING"),
    "public-key": ({"xcom_keys": "rsa:/nowhere/xcom.pem"}, "KEY_UNSUPPORTED"),
    "no-storage": ({"xcom_storage": "nowhere.Backend"}, "USAGE"),
    "no-backend": ({"xcom_storage": "json.JSONEncoder"}, "USAGE"),
    "itself": ({"xcom_storage": "sealflow_airflow.xcom.SealedXComBackend"}, "USAGE"),
    "no-number": ({"xcom_max_bytes": "much"}, "USAGE"),
    "zero": ({"xcom_max_bytes": "0"}, "USAGE"),
    "endless": ({"xcom_max_bytes": "9" * 30}, "USAGE"),
    "no-boolean": ({"xcom_accept_clear": "perhaps"}, "USAGE"),
}


@pytest.mark.parametrize(("options", "code"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_of_the_admin(configure, rows, counted, options, code):
    push(configure(), VALUE)
    backend = configure(**options)
    assert refusal(lambda: push(backend, VALUE)) == code
    assert refusal(lambda: pull(backend)) == code
    assert counted[-1] == ("sealflow.xcom.misused", code)


def test_exposed_key_file(configure, rows, tmp_path):
    uri = write_key(tmp_path, "open.key", 4)
    (tmp_path / "open.key").chmod(0o644)
    assert refusal(lambda: push(configure(xcom_keys=uri), VALUE)) == "KEY_EXPOSED"


def test_a_configuration_that_cannot_be_read_is_said_by_each_value(monkeypatch, backend, rows):
    from airflow.sdk.configuration import conf

    from sealflow_airflow import xcom

    def broken(*_: Any, **__: Any) -> str:
        raise RuntimeError("planted")

    monkeypatch.setattr(type(conf), "get", broken)
    monkeypatch.setattr(xcom, "_FROZEN", xcom._freeze())
    assert refusal(lambda: push(backend, VALUE)) == "USAGE"


def test_key_file_out_of_reach_is_tried_again(configure, rows, counted, monkeypatch):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    backend = configure()

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError(5, "I/O error")

    # For all of Python, pytest included; so for as short as can be.
    with monkeypatch.context() as patch:
        patch.setattr("sealflow.encryption.value.os.stat", broken)
        with pytest.raises(AirflowException, match="BACKEND_UNAVAILABLE") as caught:
            push(backend, VALUE)
    assert not isinstance(caught.value, AirflowFailException)
    assert counted == [("sealflow.xcom.unavailable", "BACKEND_UNAVAILABLE")]


def test_size_limit(configure, rows):
    backend = configure(xcom_max_bytes="64")
    push(backend, "a" * 62)
    assert pull(backend) == "a" * 62
    assert refusal(lambda: push(backend, "a" * 63)) == "VALUE_TOO_LARGE"
    assert refusal(lambda: pull(configure(xcom_max_bytes="63"))) == "VALUE_TOO_LARGE"


def test_relative_keys_mean_the_place_where_the_process_started(monkeypatch, tmp_path):
    from sealflow_airflow import xcom

    monkeypatch.setenv("AIRFLOW__SEALFLOW__XCOM_KEYS", "aes:keys/xcom.key?name=a, aes:~/old.key")
    frozen = xcom._freeze()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("HOME", str(tmp_path))
        found = xcom.Settings.parse(frozen).keys
    assert found == (f"aes:{Path.cwd()}/keys/xcom.key?name=a", f"aes:{Path.home()}/old.key")
    with pytest.raises(TypeError):
        frozen["xcom_keys"] = "aes:/mine"


# --- Moving over ---


def test_clear_values_pass_while_the_admin_says_so(configure, rows, counted, caplog):
    backend = configure(xcom_accept_clear="True")
    slot = ("train", "manual__2", "fit", -1, "return_value")
    rows.rows[slot] = {"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1, 2]}
    with caplog.at_level(logging.WARNING, "sealflow_airflow.xcom"):
        assert pull(backend) == (1, 2)
    assert "airflow-task fit" in caplog.text
    assert ("sealflow.xcom.clear", "") in counted
    # What claims to be sealed is held to it.
    push(backend, VALUE)
    rows.rows[slot] = rows.rows[slot] | {"note": 1}
    assert refusal(lambda: pull(backend)) == "VALUE_MALFORMED"


# --- Object storage ---


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    from airflow.providers.common.io.xcom import backend

    folder = tmp_path / "objects"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", f"file://{folder}")
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD", "1000")
    caches = (backend._get_base_path, backend._get_compression, backend._get_threshold)
    for cached in caches:
        cached.cache_clear()
    yield folder
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def stored_away(configure: Callable[..., Any], objects: Path) -> Any:
    return configure(xcom_storage=COMMON_IO)


LARGE = ["churn" * 400]


def test_large_values_go_to_the_storage_sealed(stored_away, rows, objects):
    push(stored_away, "small")
    push(stored_away, LARGE, "large")
    small, large = rows.rows.values()
    assert not small["sealed"].startswith("file:")
    assert large["sealed"].startswith(f"file://{objects}/train/manual__2/fit/")
    assert large["sealed_by"] == "sealflow"
    (path,) = (path for path in objects.rglob("*") if path.is_file())
    assert b"churn" not in path.read_bytes()
    assert pull(stored_away) == "small"
    assert pull(stored_away, "large") == LARGE
    assert stored_away.get_all(key="large", **SLOT) == [LARGE]


def test_deleting_a_value_deletes_its_object(stored_away, rows, objects):
    push(stored_away, LARGE)
    stored_away.delete("return_value", SLOT["task_id"], SLOT["dag_id"], SLOT["run_id"])
    assert not rows.rows
    assert not [path for path in objects.rglob("*") if path.is_file()]


def test_a_planted_path_deletes_nothing(stored_away, rows, objects):
    push(stored_away, LARGE)
    ((slot, stored),) = rows.rows.items()
    rows.rows[slot] = stored["sealed"]
    stored_away.delete("return_value", SLOT["task_id"], SLOT["dag_id"], SLOT["run_id"])
    assert [path for path in objects.rglob("*") if path.is_file()]


def test_without_a_storage_nothing_is_deleted_but_the_row(backend, rows):
    push(backend, VALUE)
    backend.delete("return_value", SLOT["task_id"], SLOT["dag_id"], SLOT["run_id"])
    assert not rows.rows


OBJECTS = {
    "gone": (lambda one, two: one.unlink(), "VALUE_MALFORMED"),
    "of-another-key": (lambda one, two: one.write_bytes(two.read_bytes()), "VALUE_MISPLACED"),
    "clear": (lambda one, two: one.write_text(json.dumps(["injected"])), "VALUE_MALFORMED"),
    "clear-text": (lambda one, two: one.write_text(json.dumps("injected")), "VALUE_MALFORMED"),
    "no-json": (lambda one, two: one.write_text("{"), "VALUE_MALFORMED"),
    "cut": (lambda one, two: one.write_text(json.dumps(json.loads(one.read_text())[:-40])), "VALUE_ALTERED"),
    "huge": (lambda one, two: one.write_text(json.dumps("A" * (24 << 20))), "VALUE_TOO_LARGE"),
}


@pytest.mark.parametrize(("attack", "code"), OBJECTS.values(), ids=OBJECTS)
def test_attacks_on_the_object(stored_away, rows, objects, attack, code):
    push(stored_away, LARGE)
    push(stored_away, LARGE, "other")
    one, two = (Path(stored["sealed"].removeprefix("file://")) for stored in rows.rows.values())
    attack(one, two)
    assert refusal(lambda: pull(stored_away)) == code
    assert pull(stored_away, "other") == LARGE


def test_locations_are_not_followed_out_of_the_storage(stored_away, rows, objects, tmp_path):
    push(stored_away, LARGE)
    ((slot, stored),) = rows.rows.items()
    inside = Path(stored["sealed"].removeprefix("file://"))
    outside = tmp_path / "outside.json"
    outside.write_bytes(inside.read_bytes())
    rows.rows[slot] = stored | {"sealed": f"file://{outside}"}
    assert refusal(lambda: pull(stored_away)) == "VALUE_MALFORMED"


def test_no_class_of_an_object_is_made_before_its_seal_is_checked(stored_away, rows, objects, monkeypatch):
    push(stored_away, LARGE)
    (stored,) = rows.rows.values()
    path = Path(stored["sealed"].removeprefix("file://"))
    made: list[str] = []
    monkeypatch.setattr("airflow.sdk.serde.import_string", lambda name: made.append(name) or dict)
    for name in ("airflow.sdk.definitions.connection.Connection", "pandas.core.frame.DataFrame", "os.system"):
        path.write_text(json.dumps({"__classname__": name, "__version__": 1, "__data__": {}}))
        assert refusal(lambda: pull(stored_away)) == "VALUE_MALFORMED"
    assert made == []


def test_no_more_of_an_object_is_read_than_a_value_may_have(configure, rows, objects, monkeypatch):
    from airflow.providers.common.io.xcom import backend

    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION", "gzip")
    backend._get_compression.cache_clear()
    stored_away = configure(xcom_storage=COMMON_IO, xcom_max_bytes="100000")
    push(stored_away, LARGE)
    assert pull(stored_away) == LARGE
    (stored,) = rows.rows.values()
    path = Path(stored["sealed"].removeprefix("file://"))
    path.write_bytes(gzip.compress(b'"' + b"A" * (256 << 20) + b'"'))
    tracemalloc.start()
    try:
        assert refusal(lambda: pull(stored_away)) == "VALUE_TOO_LARGE"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    for torn in (gzip.compress(b'"AAAA"')[:-9], b"\x1f\x8b" + bytes(40), b"no gzip"):
        path.write_bytes(torn)
        assert refusal(lambda: pull(stored_away)) == "VALUE_MALFORMED"


@pytest.mark.parametrize(
    "deep", ["[" * 200_000, "1" * 6000, '"\\ud800"', '"x" "y"'], ids=["deep", "digits", "half", "two"]
)
def test_an_object_that_holds_nonsense(stored_away, rows, objects, deep):
    push(stored_away, LARGE)
    (stored,) = rows.rows.values()
    Path(stored["sealed"].removeprefix("file://")).write_text(deep)
    assert refusal(lambda: pull(stored_away)) == "VALUE_MALFORMED"


ESCAPES = {
    "up": "file://{objects}/../outside.json",
    "up-and-down": "file://{objects}/train/../../outside.json",
    "elsewhere": "file://{outside}",
}


@pytest.mark.parametrize("clear", ["False", "True"], ids=["sealed-only", "clear-let-pass"])
@pytest.mark.parametrize("location", ESCAPES.values(), ids=ESCAPES)
def test_nothing_outside_the_storage_is_read_or_deleted(configure, rows, objects, tmp_path, location, clear):
    backend = configure(xcom_storage=COMMON_IO, xcom_accept_clear=clear)
    push(backend, LARGE)
    ((slot, stored),) = rows.rows.items()
    outside = tmp_path / "outside.json"
    # Also where it holds what was truly sealed for this slot.
    outside.write_bytes(Path(stored["sealed"].removeprefix("file://")).read_bytes())
    (objects / "train").mkdir(exist_ok=True)
    planted = location.format(objects=objects, outside=outside)
    rows.rows[slot] = stored | {"sealed": planted}
    assert refusal(lambda: pull(backend)) == "VALUE_MALFORMED"
    delete(backend)
    rows.rows[slot] = planted
    if clear == "True":
        assert pull(backend) == planted
    delete(backend)
    assert outside.exists()
    assert not rows.rows


def delete(backend: Any, key: str = "return_value") -> None:
    """What Airflow does when a task starts again."""
    backend.delete(key, SLOT["task_id"], SLOT["dag_id"], SLOT["run_id"], -1)


def test_an_object_of_another_value_is_not_deleted(stored_away, rows, objects, caplog, counted):
    push(stored_away, LARGE, task_id="other")
    ((_, other),) = rows.rows.items()
    push(stored_away, LARGE)
    (*_, (slot, stored)) = rows.rows.items()
    rows.rows[slot] = stored | {"sealed": other["sealed"]}
    with caplog.at_level(logging.WARNING, "sealflow_airflow.xcom"):
        delete(stored_away)
    assert "VALUE_MISPLACED" in caplog.text
    assert slot not in rows.rows
    assert pull(stored_away, task_id="other") == LARGE


def test_what_a_branch_said_is_deleted_with_its_object(configure, rows, objects, monkeypatch):
    monkeypatch.setattr("airflow.providers.common.io.xcom.backend._get_threshold", lambda: 0)
    backend = configure(xcom_storage=COMMON_IO)
    push(backend, {"followed": ["a"]}, "skipmixin_key")
    assert [path for path in objects.rglob("*") if path.is_file()]
    delete(backend, "skipmixin_key")
    assert not [path for path in objects.rglob("*") if path.is_file()]


def test_a_task_starts_again_where_its_value_cannot_be_opened(configure, rows, objects, tmp_path):
    push(configure(xcom_storage=COMMON_IO), LARGE)
    delete(configure(xcom_storage=COMMON_IO, xcom_keys=write_key(tmp_path, "other.key", 7)))
    assert not rows.rows
    assert [path for path in objects.rglob("*") if path.is_file()]


# --- What we build on ---


def test_airflow_hands_values_over_as_we_know_it():
    """A new way into or out of the backend would have to be sealed too."""
    from airflow.sdk.bases.xcom import BaseXCom

    assert {name for name in vars(BaseXCom) if not name.startswith("__")} == {
        "XCOM_RETURN_KEY",
        "_get_xcom_db_ref",
        "_set_xcom_in_db",
        "aget_all",
        "aget_one",
        "aget_value",
        "aset",
        "delete",
        "deserialize_value",
        "get_all",
        "get_one",
        "get_value",
        "purge",
        "serialize_value",
        "set",
    }


def test_importing_it_pulls_in_nothing_heavy():
    from tests.airflow.test_provider import HEAVY, imported_by

    names = imported_by("import sealflow_airflow.xcom, sealflow_airflow.cli, sealflow_airflow.metrics")
    assert not {name.partition(".")[0] for name in names} & set(HEAVY)
    assert not [name for name in names if name.startswith(("sealflow.encryption", "sealflow_airflow.doctor"))]


def test_teaching_twice_changes_nothing():
    from airflow.sdk.execution_time.lazy_sequence import LazyXComSequence

    from sealflow_airflow import xcom

    before = LazyXComSequence.__getitem__
    xcom._teach(LazyXComSequence)
    assert LazyXComSequence.__getitem__ is before


# --- What the documents say ---

ROOT = Path(__file__).resolve().parents[2]


def test_the_documents_name_every_option_and_refusal():
    from sealflow_airflow import xcom
    from sealflow_airflow.get_provider_info import get_provider_info

    options = get_provider_info()["config"]["sealflow"]["options"]
    assert {name for name in options if name.startswith("xcom_")} == set(xcom._OPTIONS)
    reference = (ROOT / "docs/reference/airflow.md").read_text()
    guide = (ROOT / "docs/how-to/sealed-xcom.md").read_text()
    assert [name for name in xcom._OPTIONS if f"| `{name}` |" not in reference] == []
    source = (ROOT / "shared/sealflow/encryption/value.py").read_text() + Path(xcom.__file__).read_text()
    codes = set(re.findall(r'"(VALUE_[A-Z_]+)"', source))
    assert codes
    assert set(re.findall(r"`(VALUE_[A-Z_]+)` \|", guide)) == codes
    assert str(xcom.DEFAULT_MAX_BYTES) in reference


def test_the_envelope_of_the_documents(configure, rows, tmp_path):
    guide = (ROOT / "docs/how-to/sealed-xcom.md").read_text()
    shown = json.loads(guide.partition("```json\n")[2].partition("```")[0])
    key = tmp_path / "xcom.key"
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    push(configure(xcom_keys=f"aes:{key}?name=2026-11"), VALUE)
    (stored,) = rows.rows.values()
    assert list(stored) == list(shown)
    assert {**stored, "bytes": 0, "sealed": ""} == {**shown, "bytes": 0, "sealed": ""}
    assert stored["sealed"][:4] == shown["sealed"][:4]
