"""The volume rule, at its edges and with its numbers."""

from __future__ import annotations

import random

import pytest

from sealflow.audit.volume import judge_volume

DAY = 20_000


def steady(count: int, days: int) -> dict[int, int]:
    return {DAY - back: count for back in range(1, days + 1)}


@pytest.mark.parametrize(
    ("before", "today", "status", "greatest", "limit"),
    [
        (steady(40, 28), 80, "ok", 40, 80),
        (steady(40, 28), 81, "above", 40, 80),
        (steady(3, 28), 50, "ok", 3, 50),
        (steady(3, 28), 51, "above", 3, 50),
        (steady(40, 14), 81, "above", 40, 80),
        (steady(40, 13), 40, "insufficient_history", 40, 80),
        (steady(40, 13), 100_000, "insufficient_history", 40, 80),
        ({}, 1, "insufficient_history", 0, 50),
        # A greater count that lies too far back is no excuse, but it is history.
        ({DAY - 29: 1000}, 51, "above", 0, 50),
        ({DAY - 28: 1000}, 2000, "ok", 1000, 2000),
        # Days to come are no history.
        ({DAY + 1: 1000}, 51, "insufficient_history", 0, 50),
        # Nor is a day on which nothing was counted.
        ({DAY - 20: 0}, 51, "insufficient_history", 0, 50),
    ],
)
def test_edges(before: dict[int, int], today: int, status: str, greatest: int, limit: int) -> None:
    found = judge_volume({**before, DAY: today}, DAY)
    assert (found.status, found.greatest, found.limit, found.accesses) == (status, greatest, limit, today)


def test_day_is_written_as_a_date() -> None:
    assert judge_volume({}, 0).as_dict() == {
        "day": "1970-01-01", "accesses": 0, "greatest": 0, "limit": 50, "history": 0, "status": "insufficient_history",
    }  # fmt: skip


def test_false_alarms_are_rare_and_spikes_are_found() -> None:
    """Counts of very different days, as people make them; the rule is only worth something if both hold."""
    chance = random.Random(7)
    alarms = days = found = 0
    for _ in range(200):
        mean = chance.choice((2, 10, 40, 150))
        counts = {day: int(chance.gammavariate(1.5, mean / 1.5)) for day in range(90)}
        for day in range(28, 90):
            days += 1
            alarms += judge_volume(counts, day).status == "above"
        spike = {**counts, 89: 10 * max(counts.values()) + 51}
        found += judge_volume(spike, 89).status == "above"
    assert found == 200
    assert alarms * 1000 / days < 5
