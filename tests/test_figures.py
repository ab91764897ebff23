"""What was promised is measured, and what is published was measured."""

from __future__ import annotations

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import audit_inbox, audit_row_counter, measure, peers, promises, record, report, transfer_large
from benchmarks.parts import PARTS, PARTS_BY_NAME, WHOLE, Part
from benchmarks.promises import PROMISES, Promise
from benchmarks.table import Figure, Missing, Rate, Row, Timing

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"

#: Rows whose benchmark is newer than the last measurement on a quiet machine. The page says so of each. Measured ones
#: come off this list.
AWAITED: set[str] = set()

#: The same, of what is drawn beside ours.
AWAITED_PEERS: set[str] = set()


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _promised() -> dict[tuple[str, str], list[str]]:
    """The cells of the page's table of promises, by part and row."""
    text = PAGE.read_text(encoding="utf-8").partition("## What was promised")[2].partition("\n## ")[0]
    lines = [_cells(line) for line in text.splitlines() if line.startswith("| ")]
    return {(cells[0], cells[1]): cells for cells in lines[1:]}


def test_each_promise_was_measured_or_is_awaited() -> None:
    assert {promise.row for promise in promises.unmeasured(record.read())} == AWAITED


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: f"{promise.part}-{promise.row}")
def test_the_page_shows_bound_and_figure_of(promise: Promise) -> None:
    shown = promises.found(promise, record.read())
    cells = _promised()[PARTS_BY_NAME[promise.part].title, promise.row]
    bound = f"≥ {promise.least:,g}" if promise.most is None else f"≤ {promise.most:,g}"
    assert cells[2] == bound
    if shown is None:
        assert promise.row in AWAITED
        assert cells[3:] == ["", "", "**not measured yet**"]
        return
    # A benchmark that forgot its bound would end with 0 whatever it found.
    assert (shown.least, shown.most) == pytest.approx((promise.least, promise.most))
    within = shown.value >= promise.least if promise.most is None else shown.value <= promise.most
    assert cells[5] == ("yes" if within else "**no**")
    assert float(cells[3].replace(",", "")) == pytest.approx(shown.value, rel=0.005, abs=0.0006)


def test_a_promise_names_one_row() -> None:
    assert not [name for name, count in Counter((item.part, item.row) for item in PROMISES).items() if count > 1]
    records = record.read()
    for promise in PROMISES:
        name = promise.row.removesuffix(promises.MEMORY)
        rows = [row for one in records[promise.part].values() for row in one.rows if promises.called(row) == name]
        assert len(rows) <= 1, promise
    assert all(len([bound for bound in (item.least, item.most) if bound is not None]) == 1 for item in PROMISES)


def test_what_is_compared_is_measured_or_awaited() -> None:
    """A row that was given another name would vanish from its plot."""
    records = record.read()
    rows = {(part, promises.called(row)) for part, some in records.items() for one in some.values() for row in one.rows}
    assert {name for item in report.COMPARED for name in item.rows if (item.part, name) not in rows} == AWAITED_PEERS


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record and a page of their own."""
    monkeypatch.setattr(record, "FILE", tmp_path / "figures.json")
    monkeypatch.setattr(report, "PAGE", tmp_path / "performance.md")
    monkeypatch.setattr(report, "PLOTS", tmp_path / "plots")
    return tmp_path


def _fails(*_: Any) -> list[Figure]:
    raise RuntimeError("the disk is full\nof things")


def _use(monkeypatch: pytest.MonkeyPatch, name: str, sections: Mapping[str, Any], within: Any = None) -> None:
    parts = tuple(
        dataclasses.replace(part, sections=sections, within=within) if part.name == name else part for part in PARTS
    )
    monkeypatch.setattr(command, "PARTS", parts)


def _gives(*rows: Figure | Missing | Timing | Rate | Row) -> Any:
    return lambda place, rounds, quick: list(rows)


@pytest.mark.usefixtures("kept")
class TestRuns:
    """How a run ends."""

    def test_a_section_that_fails_is_named_and_the_next_is_measured(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        good = Figure("good", 1.0, "x", least=0.5)
        _use(monkeypatch, "audit", {"writing": _fails, "inbox": _gives(good)})
        assert command.main(["audit"]) == 1
        said = capsys.readouterr()
        assert "- audit:writing: RuntimeError: the disk is full" in said.err
        assert "| good" in said.out
        assert "All of it took 0 s." in said.out
        assert list(record.read()["audit"]) == ["inbox"]

    def test_a_part_whose_server_fails_names_each_section(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        @contextmanager
        def within(folder: Path) -> Iterator[None]:
            raise RuntimeError("there is no server")
            yield

        _use(monkeypatch, "transfer", {"https": _gives(), "http": _gives()}, within)
        assert command.main(["transfer"]) == 1
        said = capsys.readouterr().err
        assert "- transfer:https: RuntimeError: there is no server" in said
        assert "- transfer:http: RuntimeError: there is no server" in said
        assert record.read() == {}

    def test_a_peer_that_is_missing_is_said_on_the_page_and_in_the_status(
        self, kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _use(monkeypatch, "encryption", {WHOLE: _gives(Missing("tink", "no network"))})
        assert command.main(["encryption"]) == 1
        assert "- encryption: tink: no network" in capsys.readouterr().err
        assert re.search(r"^\| tink +\| no network +\|$", (kept / "performance.md").read_text(), re.MULTILINE)

    def test_a_broken_bound_is_named(
        self, kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _use(monkeypatch, "encryption", {WHOLE: _gives(Rate("encrypt, 2 threads", 4.0, 2.0, 4.5))})
        assert command.main(["encryption"]) == 1
        assert "- encryption: encrypt, 2 threads" in capsys.readouterr().err
        page = (kept / "performance.md").read_text()
        assert re.search(r"\| encrypt, 2 threads +\| +≥ 4.5 \| +4.000 \| +GB/s \| +\*\*no\*\* \|", page)
        assert f"Of {len(PROMISES)} figures 0 are kept, 1 missed and {len(PROMISES) - 1} not measured yet." in page

    def test_all_that_holds_ends_with_0(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _use(monkeypatch, "encryption", {WHOLE: _gives(Rate("encrypt, 2 threads", 5.0, 2.0, 4.5))})
        assert command.main(["encryption"]) == 0

    @pytest.mark.parametrize("option", ["--quick", "--dry"])
    def test_nothing_is_kept_when_it_is_tried(self, kept: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
        _use(monkeypatch, "encryption", {WHOLE: _gives(Rate("encrypt, 2 threads", 5.0, 2.0, 4.5))})
        assert command.main(["encryption", option]) == 0
        assert list(kept.iterdir()) == []

    def test_a_section_takes_the_place_of_its_own_figures_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second, again = (Figure(name, 1.0, "x") for name in ("first", "second", "again"))
        _use(monkeypatch, "audit", {"writing": _gives(first), "inbox": _gives(second)})
        assert command.main(["audit"]) == 0
        _use(monkeypatch, "audit", {"writing": _gives(again), "inbox": _fails})
        assert command.main(["audit:writing"]) == 0
        rows = {name: list(one.rows) for name, one in record.read()["audit"].items()}
        assert rows == {"writing": [again], "inbox": [second]}

    def test_each_section_has_an_empty_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def writes(place: Path, rounds: int, quick: bool) -> list[Figure]:
            assert list(place.iterdir()) == []
            (place / "left").write_text("")
            return []

        _use(monkeypatch, "audit", {"writing": writes, "inbox": writes})
        assert command.main(["audit"]) == 0

    def test_an_unknown_name_measures_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            command.main(["signing", "transfer:nothing"])
        assert ended.value.code == 2
        assert "unknown: transfer:nothing; known: " in capsys.readouterr().err


def test_what_is_chosen_comes_in_its_order() -> None:
    found = command.chosen(["transfer:open", "audit", "signing"])
    assert [(part.name, sections) for part, sections in found] == [
        ("signing", [WHOLE]),
        ("transfer", ["open"]),
        ("audit", ["writing", "inbox", "log"]),
    ]
    assert [part for part, _ in command.chosen([])] == list(PARTS)


@pytest.mark.parametrize(
    "row",
    [
        Row("data", "name", 1.0, 2.0, 3.0, 4.0, None, 5.0, 64.0),
        Timing("name", 1.0, 2.0),
        Rate("name", 1.0, 2.0, None),
        Figure("name", 1.0, "ms", most=2.0),
        Missing("name", "why"),
    ],
    ids=lambda row: type(row).__name__,
)
def test_a_row_that_is_kept_is_read_again(kept: Path, row: Any) -> None:
    part = Part("signing", "Sign", (), {WHOLE: _gives(row)})
    record.keep(part, WHOLE, [row], 3, 61.04)
    [read] = record.read()["signing"].values()
    assert (list(read.rows), read.rounds, read.seconds) == ([row], 3, 61.0)


class TestMeasuring:
    """One process, measured."""

    def test_its_peak_is_its_own_and_not_ours(self) -> None:
        ours = b"\1" * (200 << 20)
        assert measure.run(["true"]).peak < 60
        assert measure.run(measure.python(f"x = b'\\1' * ({len(ours)} // 2)")).peak > 100

    def test_its_time_is_its_own(self) -> None:
        sample = measure.run(
            measure.python("import time; start = time.process_time()\nwhile time.process_time() - start < 0.2: pass")
        )
        assert 0.2 <= sample.cpu < 2
        assert sample.wall >= 0.2

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (["sh", "-c", "echo the disk is full >&2; exit 3"], "ended with 3: the disk is full"),
            (["sh", "-c", "kill -9 $$"], "ended with -9"),
            (["there-is-no-such-program"], "there-is-no-such-program"),
        ],
        ids=["status", "signal", "missing"],
    )
    def test_its_failure_is_no_figure(self, command: list[str], said: str) -> None:
        with pytest.raises(RuntimeError, match=said):
            measure.run(command)


@pytest.mark.slow
def test_a_command_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with pytest.raises(RuntimeError, match=r"did not end within 5 s \(sh -c"):
        measure.run(["sh", "-c", f"sleep 600 & echo $! > {started}; wait"], patience=5)
    stat = Path(f"/proc/{int(started.read_text())}/stat")
    # Where nothing reaps orphans, a zombie is left.
    for _ in range(200):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("what it started still runs")


class TestTurns:
    """Uploads and downloads in turn, beside peers."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[Path, Path]:
        (tmp_path / "data").write_bytes(b"sent")
        return tmp_path / "data", tmp_path / "back"

    @pytest.mark.parametrize(
        ("does", "why"),
        [
            ("echo out of memory >&2; exit 9", r"ended with 9: out of memory"),
            ("printf other > {back}", "what came back is not what was sent"),
            ("true", "what came back is not what was sent"),
        ],
        ids=["fails", "alters", "brings nothing"],
    )
    def test_a_peer_that_does_not_do_it_has_no_figure(self, files: tuple[Path, Path], does: str, why: str) -> None:
        source, back = files
        good, bad = (["sh", "-c", text.format(source=source, back=back)] for text in ("cp {source} {back}", does))
        taken, failed = transfer_large.in_turn({"peer down": bad, "down": good}, {"peer down"}, 2, {}, source, back)
        assert list(taken) == ["down"]
        assert len(taken["down"]) == 2
        assert all(one.client.wall > 0 for one in taken["down"])
        assert list(failed) == ["peer down"]
        assert re.match(why, failed["peer down"])
        with pytest.raises(RuntimeError, match=why):
            transfer_large.in_turn({"down": bad}, set(), 2, {}, source, back)


def test_a_ratio_is_of_what_ran_side_by_side() -> None:
    """A machine that slows down between rounds has no say in it."""
    runs = {
        name: [transfer_large._Taken(measure.Sample(0, wall, 0), 0) for wall in walls]
        for name, walls in {"peer": (3, 30, 100), "ours": (2, 10, 50)}.items()
    }
    row = transfer_large._ratio("so many times as fast", runs, "peer", "ours", 1.3)
    assert (row.value, row.least, row.holds) == (2.0, 1.3, True)


def test_peers_that_cannot_be_installed_say_why(tmp_path: Path) -> None:
    pins = tmp_path / "peers.txt"
    pins.write_text("./there-is-no-such-wheel.whl\n")
    with pytest.raises(peers.PeerError, match=r"The peers in peers\.txt cannot be installed here: .*no-such-wheel"):
        peers.python(pins, tmp_path / "peers")
    # A half-made environment is not taken for a whole one.
    with pytest.raises(peers.PeerError):
        peers.python(pins, tmp_path / "peers")


def test_every_peer_is_pinned() -> None:
    lines = [line for line in peers.PINS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.match(r"[\w.-]+==[\w.]+( ; .+)?$", line) for line in lines)
    assert {line.partition("==")[0] for line in lines} >= {"tink", "amazon-s3-encryption-client-python", "boto3"}


#: What reads as a measured speed or time, of programs and not of settings.
_CLAIM = re.compile(r"\d ?(?:µs|ms|[kMG]i?B/s|entries/s)\b|\d s of CPU|\d (?:times|x|\u00d7) (?:as fast|faster|slower)")
#: What a program prints while it works.
_EXAMPLE = "Sending: 3.1 GiB of 9.8 GiB (31 %)"
_WRITTEN = (
    "*.md",
    "benchmarks/*.py",
    "docs/**/*.md",
    "shared/**/*.py",
    "airflow_plugin/**/*.py",
    "kfp_components/**/*.py",
)


def test_figures_are_published_on_the_page_of_figures_only() -> None:
    """Elsewhere nothing would hold them."""
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for pattern in _WRITTEN
        for path in ROOT.glob(pattern)
        if path != PAGE and "build" not in path.relative_to(ROOT).parts
        for line in path.read_text(encoding="utf-8").splitlines()
        if _CLAIM.search(line) and _EXAMPLE not in line
    }
    assert found == set()


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 7])
def test_the_row_counter_numbers_each_row_once_while_all_write(postgresql: Any, batch: int) -> None:
    """Otherwise a peer would be measured that does not do the work."""

    def write(uri: str) -> float:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in postgresql.environment.items():
                patch.setenv(name, value)
            return audit_inbox.writers(audit_row_counter.WRITER, uri, count=3, batch=batch, seconds=0.2)

    assert audit_row_counter.measure(postgresql, write) > 0


@pytest.mark.server
def test_a_row_counter_that_loses_rows_is_no_figure(postgresql: Any) -> None:
    def write(uri: str) -> float:
        database = uri.rpartition("/")[2]
        postgresql.execute(
            database,
            "INSERT INTO entries (n, writer, line) VALUES (1, 'w', ''), (3, 'w', '')",
            "UPDATE counter SET n = 3",
        )
        return 1000.0

    with pytest.raises(RuntimeError, match="the row counter says 3, and there are 2 rows from 1 to 3"):
        audit_row_counter.measure(postgresql, write)
