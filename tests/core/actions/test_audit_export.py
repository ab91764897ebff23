"""Export: every event once, with its way back, and none from a log that does not verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.audit_export import Exported, export_events
from sealflow.audit.entry import parse_entry
from sealflow.errors import EvidenceError, UsageError
from tests.core.actions.access_log import at, made, one
from tests.core.audit.logs import MadeLog

URI = "s3://models/churn/model.pkl"


def export(log: MadeLog, **arguments: Any) -> list[Exported]:
    return list(export_events(log.store.uri, key=str(log.key), **arguments))


def lines(days: int = 300) -> list[bytes]:
    return [line for day in range(days) for line in one(at(day / 10), URI)]


def test_every_entry_once_with_its_leaf(tmp_path: Path) -> None:
    given = lines()
    rows = [json.loads(item.line) for item in export(made(tmp_path, given))]
    assert [row["index"] for row in rows] == list(range(900))
    for row, line in zip(rows, given, strict=True):
        entry = parse_entry(line)
        assert (row["leaf_hash"], row["writer"], row["n"]) == (entry.hash, entry.writer, entry.n)
        assert row["event"] == json.loads(entry.event)
        assert row["log"] == "log.example/audit"


def test_one_line_each(tmp_path: Path) -> None:
    given = one(at(0), "s3://b/line\nend\u2028\x85")
    assert all(b"\n" not in item.line for item in export(made(tmp_path, given)))


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 90),
        ({"start": 80}, 10),
        ({"start": 90}, 0),
        ({"since": "2026-09-02"}, 60),
        ({"until": "2026-09-02"}, 30),
        ({"since": "2026-09-02", "until": "2026-09-03"}, 30),
    ],
    ids=str,
)
def test_period_and_continuation(tmp_path: Path, arguments: dict[str, Any], count: int) -> None:
    assert len(export(made(tmp_path, lines(30)), **arguments)) == count


@pytest.mark.parametrize("form", ["jsonl", "ocsf"])
def test_malformed_entries_are_shown_as_such_in_every_period(tmp_path: Path, form: str) -> None:
    items = export(made(tmp_path, [*lines(1), b"nonsense"]), form=form, since="2030-01-01")
    assert [(item.index, item.malformed) for item in items] == [(3, True)]
    assert b"leaf_hash" in items[0].line


def test_nothing_comes_from_a_log_that_does_not_verify(tmp_path: Path) -> None:
    log = made(tmp_path, lines())
    bundle = log.path("tile/entries/003.p/132")
    data = bytearray(bundle.read_bytes())
    data[-100] ^= 1
    bundle.chmod(0o644)
    bundle.write_bytes(data)
    seen: list[Exported] = []
    with pytest.raises(EvidenceError) as caught:
        seen.extend(export_events(log.store.uri, key=str(log.key)))
    assert (caught.value.code, seen) == ("LOG_ALTERED", [])


def test_log_that_changes_between_the_two_readings_is_refused(tmp_path: Path) -> None:
    log = made(tmp_path, lines())
    bundle = log.path("tile/entries/003.p/132")
    good = bundle.read_bytes()
    rows = export_events(log.store.uri, key=str(log.key))
    calls = 0
    get = log.store.get

    class Swapping:
        uri = log.store.uri

        def get(self, name: str, limit: int) -> bytes | None:
            nonlocal calls
            calls += name == "tile/entries/003.p/132"
            data = get(name, limit)
            return data if calls < 2 or data != good else good[:-1] + bytes([good[-1] ^ 1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sealflow.actions.audit_opening.open_log", lambda *_: Swapping())
        with pytest.raises(EvidenceError) as caught:
            list(rows)
    assert caught.value.code == "LOG_ALTERED"


@pytest.mark.parametrize("arguments", [{"form": "xml"}, {"start": -1}, {"since": "now"}, {"until": "2026"}], ids=str)
def test_arguments_that_cannot_work(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        export(made(tmp_path, lines(1)), **arguments)
