"""Progress for logs: a line every few seconds, with the rate of these seconds and the time that is left at it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Seconds between two lines. What is done sooner says nothing.
INTERVAL: Final = 5.0


def size_text(count: float | None) -> str:
    """Return a number of bytes for people."""
    if count is None:
        return "?"
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


class ProgressLines:
    """What actions call with bytes done and, when known, bytes in all.

    The actions never call it from two threads at once.

    Args:
        say: Takes a line.
        what: What goes on, the beginning of each line.
        interval: Seconds between two lines.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        say: Callable[[str], object],
        what: str,
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._what = what
        self._interval = interval
        self._clock = clock
        self._then = clock()
        self._before = 0

    def __call__(self, done: int, total: int | None) -> None:
        """Say a line if it is time."""
        now = self._clock()
        if now - self._then < self._interval:
            return
        # Of the last seconds, not of all: what an earlier attempt did is done at once, and says nothing of the rest.
        rate = (done - self._before) / (now - self._then)
        self._then, self._before = now, done
        line = f"{self._what}: {size_text(done)}"
        if total:
            line += f" of {size_text(total)} ({100 * done // total} %)"
        line += f", {size_text(rate)}/s"
        if total and rate > 0:
            line += f", {_time_text((total - done) / rate)} left"
        self._say(line)


def _time_text(seconds: float) -> str:
    """Return a time for people: ``42 s``, ``3 min 5 s``, ``2 h 7 min``."""
    whole = max(0, round(seconds))
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
