"""Writers: one chain per process and run, ended by a signed count, over both ways of delivery."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealflow.audit import AuditEvent, spool
from sealflow.audit import writer as module
from sealflow.audit.entry import Entry
from sealflow.audit.event import vouched
from sealflow.audit.writer import Writer, close_writers, writer_for
from sealflow.errors import EvidenceError, UnavailableError, UsageError
from sealflow.run_identity import RunIdentity
from tests.audit_events import entries, read_events, spooled

pytestmark = pytest.mark.slow

RUN = RunIdentity("airflow", "train", "fit", "r1")


def event(artifact: str = "x") -> AuditEvent:
    return AuditEvent("sign", "intent", RUN, artifact)


class FakeInbox:
    """Keeps entries by slot, and is out of reach while `down`."""

    uri = "fake:"

    def __init__(self) -> None:
        self.slots: dict[tuple[str, int], bytes] = {}
        self.puts: list[tuple[str, int]] = []
        self.down = False
        self.closed = False
        self.squat: Callable[[Entry], bool] = lambda entry: False

    def put(self, entries: list[Entry]) -> None:
        if self.down:
            raise UnavailableError("gone")
        for entry in entries:
            self.puts.append((entry.writer, entry.n))
            kept = b"other" if self.squat(entry) else self.slots.setdefault((entry.writer, entry.n), entry.line)
            if kept != entry.line:
                raise EvidenceError("squatted", code="AUDIT_SQUATTED")

    def events(self) -> list[dict[str, Any]]:
        from sealflow.audit.entry import parse_entry

        return [json.loads(parse_entry(line).event) for _, line in sorted(self.slots.items())]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def inbox() -> FakeInbox:
    return FakeInbox()


@pytest.fixture
def made(inbox: FakeInbox) -> Writer:
    return Writer(RUN, inbox=lambda: inbox)


def test_a_chain_ends_with_its_count(tmp_path: Path) -> None:
    writer = spooled(tmp_path)
    for name in "abc":
        writer.record(event(name))
    writer.close()
    events = read_events(tmp_path, ends=True)
    assert [item.get("artifact") for item in events] == ["a", "b", "c", None]
    assert (events[-1]["phase"], events[-1]["count"]) == ("end", 4)
    assert [entry.n for entry in entries(tmp_path)] == [0, 1, 2, 3]


def test_after_its_end_a_writer_begins_another_chain(tmp_path: Path) -> None:
    writer = spooled(tmp_path)
    for _ in range(2):
        writer.record(event())
        writer.close()
        writer.close()
    assert sorted(entry.n for entry in entries(tmp_path)) == [0, 0, 1, 1]


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    spooled(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_long_chains_are_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHAIN", 4)
    monkeypatch.setattr(spool, "MAX_CHAIN", 4)
    writer = spooled(tmp_path)
    for _ in range(7):
        writer.record(event())
    writer.close()
    ends = [item["count"] for item in read_events(tmp_path, ends=True) if item["phase"] == "end"]
    assert ends == [4, 4, 2]
    assert len(read_events(tmp_path)) == 7


def test_many_threads_share_a_chain(tmp_path: Path) -> None:
    writer = spooled(tmp_path)
    threads = [
        threading.Thread(target=lambda t=t: [writer.record(event(f"{t}-{n}")) for n in range(20)]) for t in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert len({item["artifact"] for item in read_events(tmp_path)}) == 160
    assert len({entry.writer for entry in entries(tmp_path)}) == 1


def test_an_event_that_is_too_large_takes_no_number(tmp_path: Path) -> None:
    writer = spooled(tmp_path)
    writer.record(event())
    with pytest.raises(UsageError):
        writer.record(AuditEvent("sign", "intent", RunIdentity("airflow", "w" * 60_000, "t", "r"), "x"))
    writer.record(event())
    writer.close()
    assert [entry.n for entry in entries(tmp_path)] == [0, 1, 2]


def test_an_exception_out_of_nowhere_leaves_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = spooled(tmp_path)
    writer.record(event("a"))
    # As a signal's handler would, between the entry and its keeping.
    writer._chain.add(event("lost").to_json())  # type: ignore[union-attr]
    writer.record(event("b"))
    writer.close()
    found = read_events(tmp_path)
    assert [item["artifact"] for item in found] == ["a", "b"]
    assert found[1]["after"] == next(entry.writer for entry in entries(tmp_path) if b'"artifact":"a"' in entry.event)


@pytest.mark.parametrize("call", ["fsync", "pwrite", "rename"])
def test_a_timeout_in_the_middle_of_a_write_leaves_the_chain_whole(tmp_path: Path, monkeypatch, call: str) -> None:
    class TimeOut(BaseException):
        pass

    def late(*_: object) -> None:
        raise TimeOut

    writer = spooled(tmp_path)
    if call != "rename":
        writer.record(event("a"))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, late)
        with pytest.raises(TimeOut):
            writer.record(event("b"))
    writer.record(event("c"))
    writer.close()
    assert [item["artifact"] for item in read_events(tmp_path)] == ["b", "c"] if call == "rename" else ["a", "b", "c"]


# --- To an inbox ---


def test_an_event_is_in_the_inbox_when_it_is_recorded(made: Writer, inbox: FakeInbox) -> None:
    made.record(event("a"))
    assert [item["artifact"] for item in inbox.events()] == ["a"]
    made.close()
    assert inbox.events()[-1]["count"] == 2
    assert inbox.closed


def test_while_the_inbox_is_gone_nothing_goes_on_and_nothing_is_lost(made: Writer, inbox: FakeInbox) -> None:
    made.record(event("a"))
    inbox.down = True
    for name in "bc":
        with pytest.raises(UnavailableError) as caught:
            made.record(event(name))
        assert caught.value.code == "AUDIT_UNAVAILABLE"
        assert caught.value.retryable
    inbox.down = False
    made.record(event("d"))
    made.close()
    assert [item.get("artifact") for item in inbox.events()] == ["a", "b", "d", None]
    assert inbox.events()[-1]["count"] == 4
    assert {n for _, n in inbox.slots} == {0, 1, 2, 3}


def test_an_answer_that_was_lost_puts_the_same_entry_again(made: Writer, inbox: FakeInbox) -> None:
    put = inbox.put

    def lose(entries: list[Entry]) -> None:
        put(entries)
        inbox.put = put  # type: ignore[method-assign]
        raise UnavailableError("no answer")

    inbox.put = lose  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        made.record(event("a"))
    made.record(event("b"))
    assert [n for _, n in inbox.puts] == [0, 0, 1]
    assert [item["artifact"] for item in inbox.events()] == ["a", "b"]


def test_a_squatted_slot_is_told_and_the_writer_goes_on(made: Writer, inbox: FakeInbox, caplog) -> None:
    made.record(event("a"))
    ((first, _),) = inbox.slots
    inbox.squat = lambda entry: entry.writer == first
    made.record(event("b"))
    made.close()
    found = {item.get("artifact"): item for item in inbox.events()}
    assert found["b"]["after"] == first
    assert found["b"]["codes"] == ["AUDIT_SQUATTED"]
    assert found[None]["count"] == 2
    assert "AUDIT_SQUATTED" in caplog.text


def test_who_squats_every_slot_stops_the_action(made: Writer, inbox: FakeInbox) -> None:
    inbox.squat = lambda entry: True
    with pytest.raises(UnavailableError) as caught:
        made.record(event("a"))
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert len(inbox.puts) <= 5
    inbox.squat = lambda entry: False
    made.record(event("b"))
    assert [item["artifact"] for item in inbox.events()] == ["a", "b"]


def test_a_squatted_end_is_no_error(made: Writer, inbox: FakeInbox) -> None:
    made.record(event("a"))
    inbox.squat = lambda entry: b'"count"' in entry.event
    made.close()
    assert len(inbox.slots) == 1


def test_a_removed_spool_file_is_told_in_a_new_chain(tmp_path: Path) -> None:
    writer = spooled(tmp_path)
    writer.record(event("a"))
    (path,) = tmp_path.iterdir()
    path.unlink()
    writer.record(event("b"))
    writer.close()
    (found,) = read_events(tmp_path)
    assert found["after"] == path.name.partition(".")[0]
    assert found["codes"] == ["AUDIT_UNAVAILABLE"]


def test_what_cannot_end_is_only_told(made: Writer, inbox: FakeInbox, caplog) -> None:
    made.record(event("a"))
    inbox.down = True
    made.close()
    assert "without its end" in caplog.text


def test_the_deployment_vouches_once(tmp_path: Path) -> None:
    asked: list[str] = []

    def vouch(writer: str) -> dict[str, str]:
        asked.append(writer)
        return {"key": "k", "signature": vouched(writer, RUN).decode()[:40]}

    writer = Writer(RUN, spool=str(tmp_path), vouch=vouch)
    for _ in range(3):
        writer.record(event())
    first, *others = read_events(tmp_path)
    assert asked == [entries(tmp_path)[0].writer]
    assert first["vouch"]["signature"] == f"sealflow-audit-writer/v1 {asked[0]}"[:40]
    assert all("vouch" not in item for item in others)
    assert vouched("ab", RUN) == b"sealflow-audit-writer/v1 ab airflow:train/fit/r1"


# --- Processes ---


def test_a_forked_child_writes_a_chain_of_its_own(tmp_path: Path) -> None:
    writer = spooled(tmp_path)
    writer.record(event("parent"))
    child = os.fork()
    if not child:
        try:
            writer.record(event("child"))
            writer.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    writer.record(event("parent"))
    chains = {item.writer for item in entries(tmp_path)}
    assert len(chains) == 2
    with_end = [item for item in read_events(tmp_path, ends=True) if item["phase"] == "end"]
    assert len(with_end) == 1
    alive = []
    for name in spool.writers(str(tmp_path)):
        with spool.opened(str(tmp_path), name) as chain:
            assert chain is not None
            alive.append(chain.alive)
    assert sorted(alive) == [False, True]


def test_a_child_that_only_lives_does_not_hold_its_parents_lock(tmp_path: Path) -> None:
    script = """
import os, sys, time
from tests.core.audit.test_writer import *
spooled(sys.argv[1]).record(event())
if os.fork():
    os._exit(0)
print("child", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"child\n"
        process.wait()
        (name,) = spool.writers(str(tmp_path))
        with spool.opened(str(tmp_path), name) as chain:
            assert chain is not None
            assert not chain.alive
        process.stdin.close()


def test_a_child_does_not_touch_the_connection_of_its_parent(made: Writer, inbox: FakeInbox) -> None:
    made.record(event("a"))
    child = os.fork()
    if not child:
        made.close()
        os._exit(0 if not inbox.closed and not [n for _, n in inbox.puts if n > 0] else 1)
    assert os.waitpid(child, 0)[1] == 0


ENDS = """
import multiprocessing, os, sys
from tests.core.audit.test_writer import *
from sealflow.audit.writer import writer_for
def work():
    writer_for((sys.argv[1],), lambda: spooled(sys.argv[1])).record(event())
{how}
"""


@pytest.mark.parametrize(
    ("how", "chains"),
    [
        pytest.param("work()", 1, id="plain"),
        pytest.param("work(); raise SystemExit(3)", 1, id="exit"),
        pytest.param("work(); raise RuntimeError", 1, id="exception"),
        pytest.param("multiprocessing.get_context('fork').Process(target=work).start()", 1, id="multiprocessing"),
        pytest.param("work(); multiprocessing.get_context('fork').Process(target=work).start()", 2, id="both"),
        pytest.param("work()\nif not os.fork(): work()\nelse: os.wait()", 2, id="fork"),
        # As Airflow does it in the process of a task: what the parent registered is forgotten.
        pytest.param(
            "import atexit; work()\n"
            "if not os.fork(): atexit._clear(); work(); atexit._run_exitfuncs(); os._exit(0)\n"
            "else: os.wait()",
            2,
            id="fork-that-forgets",
        ),
        pytest.param("spooled(sys.argv[1]).record(event())", 1, id="not-kept-by-anybody"),
    ],
)
def test_every_orderly_end_of_a_process_ends_its_chains(tmp_path: Path, how: str, chains: int) -> None:
    done = subprocess.run([sys.executable, "-c", ENDS.format(how=how), str(tmp_path)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr or "RuntimeError" in done.stderr
    ends = [item["count"] for item in read_events(tmp_path, ends=True) if item["phase"] == "end"]
    assert ends == [2] * chains


def test_writers_are_found_again_and_end_with_their_owner(tmp_path: Path) -> None:
    owner, other = object(), object()
    made = [writer_for((n,), lambda n=n: spooled(tmp_path / str(n)), owner if n else other) for n in range(3)]
    assert writer_for((1,), pytest.fail) is made[1]
    for writer in made:
        writer.record(event())
    close_writers(owner)
    counts = [len(read_events(tmp_path / str(n), ends=True)) for n in range(3)]
    assert counts == [1, 2, 2]
    close_writers(other)
    assert len(read_events(tmp_path / "0", ends=True)) == 2


def test_a_process_that_serves_many_runs_keeps_few_writers(tmp_path: Path) -> None:
    for n in range(70):
        writer_for(("many", n), lambda: spooled(tmp_path)).record(event())
    ends = [item for item in read_events(tmp_path, ends=True) if item["phase"] == "end"]
    assert 6 <= len(ends) <= 70
    close_writers()


def test_multiprocessing_is_not_loaded_for_it(tmp_path: Path) -> None:
    script = "import sys; from sealflow.audit import writer; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"multiprocessing", "multiprocessing.util", "pydantic"}.isdisjoint(done.stdout.split())
