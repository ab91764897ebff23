"""The index of verdicts: made from the log and the inbox, and never more than these say."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sealflow.audit.entry import Chain, parse_entry
from sealflow.audit.inbox_sqlite import SqliteInbox
from sealflow.errors import UnavailableError
from sealflow_airflow.ui import index as table
from sealflow_airflow.ui.follow import Follower, Source
from sealflow_airflow.ui.index import Facts, Row
from sealflow_airflow.ui.search import Query, Sight, at, counted, find, latest
from tests.airflow.ui_world import STORY, Log, lines, told

pytestmark = pytest.mark.airflow
ALL = Sight(others=True)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
def follow(tmp_path: Path, log: Log) -> Callable[..., Follower]:
    def make(most: int = 1000, **source: str) -> Follower:
        named = source or {"log": log.store.uri, "key": str(log.key_file)}
        return Follower(str(tmp_path / "pages"), Source(**named), most)

    return make


def facts(follower: Follower) -> Facts:
    with follower.index.reading() as connection:
        return table.facts_of(connection)


def rows(follower: Follower, sight: Sight = ALL, **query: str) -> list[Row]:
    with follower.index.reading() as connection:
        return list(find(connection, Query.parse(query), sight, 1000).rows)


def test_every_outcome_of_the_log_is_in_the_index_and_nothing_else(log, follow):
    log.tell(*STORY)
    made = follow()
    assert made.refresh()
    found = rows(made)
    assert [row.idx for row in found] == list(range(15, 0, -2))
    assert {(row.owner, row.task, row.outcome) for row in found} == {
        (event.run.workflow if event.run.orchestrator == "airflow" else "", event.run.task, event.outcome)
        for event in STORY
    }
    assert facts(made).size == 16
    assert facts(made).problem == ""


def test_only_what_is_new_is_read(log, follow, monkeypatch):
    log.tell(*STORY)
    made = follow()
    made.refresh()
    seen = []
    from sealflow_airflow.ui import follow as module

    take = module._row
    monkeypatch.setattr(module, "_row", lambda idx, line: seen.append(idx) or take(idx, line))
    log.tell(told(run="manual__9"))
    made.refresh()
    assert seen == [16, 17]
    assert rows(made)[0].run == "manual__9"


def test_a_new_process_goes_on_and_a_removed_index_is_made_anew(log, follow):
    log.tell(*STORY)
    first = follow()
    first.refresh()
    log.tell(told(run="manual__9"))
    second = follow()
    second.refresh()
    before = rows(second)
    second.index.remove()
    third = follow()
    third.refresh()
    assert rows(third) == before


def test_reads_of_what_tasks_are_given_are_no_verdicts_unless_they_are_refused(log, follow):
    log.tell(
        told("connection-read", "done", artifact="airflow:connection/db"),
        told("xcom-read", "done", artifact="airflow:xcom/a"),
        told("variable-read", "failed", artifact="airflow:variable/key"),
    )
    made = follow()
    made.refresh()
    assert [row.action for row in rows(made)] == ["variable-read"]


# --- Attacks ---


def test_a_log_that_was_cut_is_said_and_what_was_known_stays(log, follow):
    log.tell(*STORY[:2])
    old = log.checkpoint
    log.tell(*STORY[2:])
    made = follow()
    made.refresh()
    known = rows(made)
    log.path().write_bytes(old)
    made.refresh()
    assert facts(made).problem == "LOG_TRUNCATED"
    assert rows(made) == known


def test_a_log_with_another_history_is_said(log, follow, tmp_path):
    log.tell(*STORY)
    made = follow()
    made.refresh()
    known = rows(made)
    other = tmp_path / "other"
    other.mkdir()
    (other / "log.pem").write_bytes((tmp_path / "log.pem").read_bytes())
    forked = Log(other)
    forked.tell(*STORY, told(run="forked"))
    (tmp_path / "log").rename(tmp_path / "old")
    (other / "log").rename(tmp_path / "log")
    made.refresh()
    assert facts(made).problem == "LOG_ALTERED"
    assert rows(made) == known


def test_an_entry_that_was_changed_is_never_shown(log, follow):
    log.tell(*STORY)
    path = next(log.path("tile/entries").rglob("000*"))
    path = path if path.is_file() else next(path.rglob("*"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"failed"', b'"passed"'))
    made = follow()
    made.refresh()
    assert facts(made).problem == "LOG_ALTERED"
    assert rows(made) == []


def test_a_log_of_another_key_is_not_read(log, follow, tmp_path):
    log.tell(*STORY)
    other = tmp_path / "other"
    other.mkdir()
    made = follow(log=log.store.uri, key=str(Log(other, key="mine").key_file))
    made.refresh()
    assert facts(made).problem == "LOG_CHECKPOINT"
    assert rows(made) == []


def test_without_a_key_nothing_of_the_log_is_believed(log, follow):
    log.tell(*STORY)
    made = follow(log=log.store.uri)
    made.refresh()
    assert rows(made) == []


@pytest.mark.parametrize(
    "line",
    [
        b"no entry at all",
        Chain().add(b'{"phase":"outcome"}').line,
        Chain().add(b'{"action":"verify", "phase":"outcome"}').line,
        Chain().add(b'{"x":"' + b"[" * 50_000 + b'","phase":"outcome"}').line,
    ],
    ids=["no entry", "no event", "not canonical", "deep"],
)
def test_what_holds_no_event_is_counted_and_hides_nothing(log, follow, line):
    log.add([line + b'"phase":"outcome"' if line.startswith(b"no") else line, *lines([told()])])
    made = follow()
    made.refresh()
    assert len(rows(made)) == 1
    assert facts(made).unreadable == 1


def test_the_longest_texts_are_cut_and_none_becomes_the_name_of_a_dag(log, follow):
    long = "d" * 251
    log.tell(told(dag=long, task="t" * 4000, run="r" * 4000, artifact="a" * 4096, codes=("C" * 256,) * 100))
    made = follow()
    made.refresh()
    (row,) = rows(made)
    assert row.owner == "d" * 250 + "…"
    assert rows(made, Sight(frozenset({"d" * 250}))) == []
    assert sum(len(str(value)) for value in row.values) < 8192


def test_the_oldest_go_when_there_are_too_many(log, follow):
    log.tell(*(told(run=f"r{number}") for number in range(60)))
    made = follow(most=10)
    made.refresh()
    assert [row.run for row in rows(made)] == [f"r{number}" for number in range(59, 49, -1)]
    assert facts(made).left == 50
    log.tell(told(run="r60"))
    made.refresh()
    assert [row.run for row in rows(made)][:10] == [f"r{number}" for number in range(60, 50, -1)]
    log.tell(told(run="r61"))
    made.refresh()
    assert [row.run for row in rows(made)] == [f"r{number}" for number in range(61, 51, -1)]


@pytest.mark.parametrize("flood", ["passed", "failed", "invented"])
def test_a_flood_of_one_tasks_verdicts_leaves_the_refusals_of_others(log, tmp_path, flood):
    known = {"quiet", "loud"}
    made = Follower(str(tmp_path / "pages"), Source(log.store.uri, str(log.key_file)), 40, known=lambda: known)
    log.tell(*(told(outcome="failed", dag="quiet", run=f"quiet{number}") for number in range(3)))
    made.refresh()
    for number in range(4):
        log.tell(
            *(
                told(
                    outcome="passed" if flood == "passed" else "failed",
                    dag=f"made-up-{number}-{item}" if flood == "invented" else "loud",
                )
                for item in range(100)
            )
        )
        made.refresh()
    assert len(rows(made)) <= 44
    assert {row.run for row in rows(made, dag="quiet")} == {"quiet0", "quiet1", "quiet2"}
    assert facts(made).left + len(rows(made)) == 403


def test_of_a_long_log_only_the_end_is_read_and_still_proved(log, follow, monkeypatch):
    log.tell(*(told(run=f"r{number}") for number in range(600)))
    made = follow(most=20)
    from sealflow_airflow.ui import follow as module

    seen = []
    take = module._row
    monkeypatch.setattr(module, "_row", lambda idx, line: seen.append(idx) or take(idx, line))
    made.refresh()
    assert min(seen) == 1024
    assert len(rows(made)) == 20
    log.tell(told(run="later"))
    made.refresh()
    assert rows(made)[0].run == "later"


def test_a_broken_index_is_thrown_away_and_made_anew(log, follow):
    log.tell(*STORY)
    made = follow()
    made.refresh()
    path = Path(made.index.path)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(UnavailableError):
        rows(made)
    made.refresh()
    assert len(rows(made)) == 8


def test_nobody_else_may_read_the_index(log, follow):
    log.tell(*STORY)
    made = follow()
    made.refresh()
    for path in (Path(made.index.folder), *Path(made.index.folder).iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_a_link_in_its_place_is_not_followed(log, follow, tmp_path):
    made = follow()
    os.makedirs(made.index.folder)
    aim = tmp_path / "aim"
    os.symlink(aim, made.index.path)
    with pytest.raises(UnavailableError):
        made.refresh()
    assert not aim.exists()


def poisoned(**members: object) -> list[bytes]:
    """An entry whose event has the log's form and numbers that no table holds."""
    event = told(run="poison")
    return lines([replace(event, run=replace(event.run, **members))])


@pytest.mark.parametrize(
    "members",
    [{"map_index": -(2**70)}, {"map_index": 2**70}, {"attempt": -(2**70)}, {"attempt": 2**70}, {"map_index": -2}],
    ids=str,
)
@pytest.mark.parametrize("where", ["log", "inbox"])
def test_numbers_without_measure_stop_nothing_that_comes_after_them(log, follow, tmp_path, where, members):
    made_lines = [*poisoned(**members), *lines([told(outcome="failed", run="after")])]
    inbox = SqliteInbox(f"sqlite:{tmp_path}/inbox.db")
    if where == "log":
        log.add(made_lines)
    else:
        inbox.put([parse_entry(line) for line in made_lines])
        while inbox.sequence(100):
            pass
    made = follow(log=log.store.uri, key=str(log.key_file), inbox=inbox.uri)
    made.refresh()
    assert [row.run for row in rows(made)] == ["after", "poison"]
    assert facts(made).problem == ""


@pytest.mark.parametrize("error", [OverflowError("huge"), RecursionError("deep"), KeyError("gone")])
def test_an_entry_that_breaks_us_is_counted_and_hides_nothing(log, follow, monkeypatch, error):
    log.tell(*STORY, told(outcome="failed", run="after"))
    real = Row.of
    monkeypatch.setattr(Row, "of", lambda idx, event: (_ for _ in ()).throw(error) if idx == 3 else real(idx, event))
    made = follow()
    made.refresh()
    assert rows(made)[0].run == "after"
    assert facts(made).unreadable == 1


def test_whatever_stops_the_reading_is_said(log, follow, monkeypatch):
    log.tell(*STORY)
    made = follow()
    made.refresh()
    monkeypatch.setattr(table, "insert", lambda *arguments: (_ for _ in ()).throw(OverflowError("huge")))
    log.tell(told(outcome="failed", run="after"))
    made.refresh()
    assert facts(made).problem == "OverflowError"
    monkeypatch.undo()
    made.refresh()
    assert (facts(made).problem, rows(made)[0].run) == ("", "after")


# --- The inbox ---


def test_what_is_only_in_the_inbox_is_shown_and_replaced_by_what_the_log_says(log, follow, tmp_path):
    inbox = SqliteInbox(f"sqlite:{tmp_path}/inbox.db")
    made_lines = lines(STORY[:2])
    inbox.put([parse_entry(line) for line in made_lines])
    while inbox.sequence(100):
        pass
    made = follow(log=log.store.uri, key=str(log.key_file), inbox=inbox.uri)
    made.refresh()
    assert [row.idx for row in rows(made)] == [3, 1]
    assert (facts(made).size, facts(made).next) == (0, 4)
    # The log was made from another order: it counts, and nothing of the other is left.
    log.add(lines([told(run="of the log")]))
    made.refresh()
    assert [(row.idx, row.run) for row in rows(made)] == [(3, "manual__1"), (1, "of the log")]
    assert (facts(made).size, facts(made).next) == (2, 4)


def test_an_entry_of_the_inbox_that_its_writer_did_not_sign_is_not_shown(follow, tmp_path):
    inbox = SqliteInbox(f"sqlite:{tmp_path}/inbox.db")
    inbox.put([parse_entry(line) for line in lines(STORY[:1])])
    while inbox.sequence(100):
        pass
    forged = lines([told(run="forged")])
    with sqlite3.connect(tmp_path / "inbox.db") as connection:
        body = forged[1].rpartition(b" ")[0] + b" " + forged[0].rpartition(b" ")[2]
        connection.execute("UPDATE entries SET line = ? WHERE idx = 1", (body,))
    made = follow(inbox=inbox.uri)
    made.refresh()
    assert rows(made) == []
    assert facts(made).unreadable == 1


def test_an_inbox_that_is_not_there_is_not_made(follow, tmp_path):
    made = follow(inbox=f"sqlite:{tmp_path}/inbox.db")
    made.refresh()
    assert not (tmp_path / "inbox.db").exists()
    assert facts(made).problem == ""


# --- Several at once ---


def test_one_writes_while_others_read_and_who_comes_second_leaves_it_to_the_first(log, follow):
    log.tell(*STORY)
    made = follow()
    with made._alone() as alone:
        assert alone
        assert not follow().refresh()
    made.refresh()
    with made.index.reading() as connection:
        before = find(connection, Query(), ALL).rows
        log.tell(told(run="meanwhile"))
        assert follow().refresh()
        assert find(connection, Query(), ALL).rows == before
    assert rows(made)[0].run == "meanwhile"


_PROGRAM = """
import sys
from sealflow_airflow.ui.follow import Follower, Source
folder, log, key = sys.argv[1:]
follower = Follower(folder, Source(log, key), 100_000)
while not follower.refresh():
    pass
"""


def test_several_processes_make_the_same_index(log, follow, tmp_path):
    log.tell(*(told(run=f"r{number}") for number in range(500)))
    made = follow()
    command = [sys.executable, "-c", _PROGRAM, made.index.folder, log.store.uri, str(log.key_file)]
    running = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(rows(made)) == 500


def test_a_writer_that_is_killed_leaves_what_was_there(log, follow, monkeypatch):
    log.tell(*STORY)
    made = follow()
    made.refresh()
    known = rows(made)
    log.tell(told(run="later"))
    monkeypatch.setattr(table, "keep_facts", lambda *arguments, **more: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made.refresh()
    monkeypatch.undo()
    assert rows(made) == known
    made.refresh()
    assert rows(made)[0].run == "later"


def test_pages_do_not_wait_for_a_log_that_does_not_answer(log, follow, monkeypatch):
    log.tell(*STORY)
    made = follow()
    made.freshen()
    assert len(rows(made)) == 8
    blocked = threading.Event()
    monkeypatch.setattr(Follower, "_read_log", lambda self, facts: blocked.wait(20))
    monkeypatch.setattr(made, "_looked", float("-inf"))
    made.freshen()
    assert made.busy
    blocked.set()


# --- What is asked ---


@pytest.fixture
def told_story(log, follow) -> Follower:
    log.tell(*STORY)
    made = follow()
    made.refresh()
    return made


@pytest.mark.parametrize(
    ("query", "runs"),
    [
        ({"dag": "score"}, ["manual__3", "manual__2", "manual__1"]),
        ({"dag": "sco*"}, ["manual__3", "manual__2", "manual__1"]),
        ({"dag": "sco"}, []),
        ({"dag": "*"}, ["r1", "manual__4", "manual__3", "manual__2", *["manual__1"] * 4]),
        ({"dag": "[s]*"}, []),
        ({"task": "load", "status": "failed"}, ["manual__2"]),
        ({"status": "refused"}, ["manual__4", "manual__3", "manual__2"]),
        ({"status": "'; DROP TABLE verdicts; --"}, ["r1", "manual__4", "manual__3", "manual__2", *["manual__1"] * 4]),
        ({"code": "SIGNATURE_INVALID"}, ["manual__2"]),
        ({"code": "signature_invalid"}, ["manual__2"]),
        ({"code": "SIGNATURE"}, []),
        ({"artifact": "models"}, ["r1", "manual__2", "manual__1", "manual__1"]),
        ({"artifact": "%"}, []),
        ({"artifact": f"sha256:{3:064x}"}, ["manual__2"]),
        ({"run": "manual__3"}, ["manual__3"]),
        ({"since": "2020-01-01", "until": "2020-01-02"}, []),
        ({"since": "nonsense", "run": "r1"}, ["r1"]),
        ({"since": "2020-01-01T00:00:00+02:00", "run": "r1"}, ["r1"]),
        ({"before": "5"}, ["manual__1", "manual__1"]),
        ({"before": "-5", "run": "r1"}, ["r1"]),
        ({"before": "9" * 30, "run": "r1"}, ["r1"]),
    ],
)  # fmt: skip
def test_search(told_story, query, runs):
    assert [row.run for row in rows(told_story, **query)] == runs


@pytest.mark.parametrize(
    ("sight", "owners"),
    [
        (Sight(), set()),
        (Sight(frozenset({"score"})), {"score"}),
        (Sight(frozenset({"score", "train"})), {"score", "train"}),
        (Sight(frozenset({"score", *(f"other{number}" for number in range(100))})), {"score"}),
        (Sight(frozenset({""})), {""}),
        (Sight(frozenset({"score"}), others=True), {"score", "train", "prepare", ""}),
        (Sight(others=True), {"score", "train", "prepare", ""}),
    ],
)
def test_nobody_sees_more_than_he_may(told_story, sight, owners):
    found = rows(told_story, sight)
    assert {row.owner for row in found} == owners
    assert all(sight.sees(row) for row in found)
    assert {row.idx for row in rows(told_story) if sight.sees(row)} == {row.idx for row in found}
    import datetime

    with told_story.index.reading() as connection:
        since = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
        assert sum(counted(connection, since, sight).values()) == len(found)


def test_the_latest_verdict_of_dags(told_story):
    with told_story.index.reading() as connection:
        found = latest(connection, frozenset({"score", "prepare", "none", "it's"}))
        row = at(connection, 11)
    assert {dag: outcome for dag, (_, outcome) in found.items()} == {"score": "unverifiable", "prepare": "done"}
    assert row is not None
    assert row.run == "manual__3"
