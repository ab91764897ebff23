"""Times are held against their neighbours': quiet logs stay quiet, false clocks show."""

from __future__ import annotations

from collections.abc import Iterable

from sealflow.audit.clock import SKEW, TOLERANCE, place

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 20_000 * DAY


def doubts(times: Iterable[tuple[int, str]], now: int = START + 1000 * DAY) -> list[tuple[str, int]]:
    entries = [(time, writer, number) for number, (time, writer) in enumerate(times)]
    found = list(place(iter(entries), now))
    assert [item.item for item in found] == list(range(len(entries)))
    return [(item.doubt, item.earliest) for item in found]


def steady(count: int, step: int = HOUR, writers: int = 50) -> list[tuple[int, str]]:
    return [(START + number * step, f"w{number % writers}") for number in range(count)]


def test_order_of_time_is_without_doubt() -> None:
    assert doubts(steady(1000)) == [("", time) for time, _ in steady(1000)]


def test_quiet_times_are_no_doubt() -> None:
    """Once a month something runs."""
    assert {doubt for doubt, _ in doubts(steady(600, step=30 * DAY), START + 10**6 * DAY)} == {""}


def test_each_month_a_burst_is_no_doubt() -> None:
    times = [(START + month * 30 * DAY + number, f"{month}-{number}") for month in range(12) for number in range(40)]
    assert {doubt for doubt, _ in doubts(times)} == {""}


def test_few_writers_say_nothing() -> None:
    assert doubts([(START + 9 * DAY, "a"), (START, "b"), (START + 5 * DAY, "a")])[1] == ("", START)


def test_time_far_behind_is_late() -> None:
    times = steady(400)
    times[300] = (times[300][0] - TOLERANCE - 40 * HOUR, "mallory")
    found = doubts(times)
    assert found[300][0] == "late"
    assert abs(found[300][1] - (START + 300 * HOUR)) < 9 * HOUR
    assert [number for number, (doubt, _) in enumerate(found) if doubt] == [300]


def test_time_far_ahead_of_those_that_came_later_is_ahead() -> None:
    times = steady(2000, step=HOUR // 60)
    times[300] = (times[300][0] + 9 * DAY, "mallory")
    found = doubts(times)
    assert [number for number, (doubt, _) in enumerate(found) if doubt] == [300]
    assert found[300][0] == "ahead"
    assert abs(found[300][1] - times[299][0]) < DAY


def test_future_is_ahead_even_at_the_end_and_moves_nothing() -> None:
    now = START + 100 * HOUR
    times = [*steady(100), *((now + SKEW + 1, f"m{number}") for number in range(100)), (now, "honest")]
    found = doubts(times, now)
    assert {doubt for doubt, _ in found[100:200]} == {"ahead"}
    assert found[200] == ("", now)


def test_one_writer_moves_nothing_however_much_it_writes() -> None:
    times = steady(100)
    flood = [(START - 100 * DAY, "mallory")] * 5000
    found = doubts([*times, *flood, (START + 101 * HOUR, "honest")])
    assert {doubt for doubt, _ in found[100:5100]} == {"late"}
    assert found[-1][0] == ""
