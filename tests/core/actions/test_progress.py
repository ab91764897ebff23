"""What a log learns of a long transfer."""

from __future__ import annotations

import pytest

from sealflow.actions.progress import ProgressLines, size_text

MIB, GIB = 1 << 20, 1 << 30


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(*steps: tuple[float, int, int | None]) -> list[str]:
    """The lines after calls at some seconds after the start."""
    clock, lines = Clock(), []
    progress = ProgressLines(lines.append, "Sending model", clock=clock)
    for seconds, done, total in steps:
        clock.now = 100.0 + seconds
        progress(done, total)
    return lines


def test_a_line_every_few_seconds_with_rate_and_time_left():
    steps = [(second / 2, second * GIB // 20, GIB) for second in range(1, 21)]
    assert told(*steps) == [
        "Sending model: 512.0 MiB of 1.0 GiB (50 %), 102.4 MiB/s, 5 s left",
        "Sending model: 1.0 GiB of 1.0 GiB (100 %), 102.4 MiB/s, 0 s left",
    ]


def test_what_is_done_soon_says_nothing():
    assert told((0.1, 1, 10), (4.9, 10, 10)) == []


def test_the_rate_is_that_of_the_last_seconds():
    """An upload that goes on counts what lies there at once; the time left must not be told by that."""
    lines = told((5, 90 * GIB, 100 * GIB), (10, 90 * GIB + 100 * MIB, 100 * GIB))
    assert lines[1].endswith("(90 %), 20.0 MiB/s, 8 min 27 s left")


@pytest.mark.parametrize(
    ("done", "total", "end"),
    [
        pytest.param(10 * 1024, None, ": 10.0 KiB, 2.0 KiB/s", id="nobody-knows-the-total"),
        pytest.param(0, 0, ": 0 bytes, 0 bytes/s", id="empty"),
        pytest.param(0, 10, "(0 %), 0 bytes/s", id="nothing-moves"),
        pytest.param(50, 10 * 65 + 50, "1 min 5 s left", id="minutes"),
        pytest.param(50, 10 * 7300 + 50, "2 h 1 min left", id="hours"),
    ],
)
def test_odd_cases(done: int, total: int | None, end: str):
    (line,) = told((5, done, total))
    assert line.endswith(end)


def test_sizes():
    assert [size_text(count) for count in (None, 0, 1023, 1024, 5 << 40, 9 << 50)] == [
        "?", "0 bytes", "1023 bytes", "1.0 KiB", "5.0 TiB", "9216.0 TiB",
    ]  # fmt: skip
