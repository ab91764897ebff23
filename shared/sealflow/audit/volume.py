"""The volume rule: does somebody touch far more today than in the four weeks before?

A day is above the limit when its count exceeds twice the greatest count of the 28 days before it, and 50 at any rate.
A rule over the greatest count bears days of very different counts, which one over mean and deviation does not. With
less than 14 days of history nothing is said: the answer is then :data:`INSUFFICIENT_HISTORY`, never ``ok``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

#: Days before a day that it is compared with.
BASELINE_DAYS: Final = 28
#: Fewer days of history than this tell nothing.
LEAST_DAYS: Final = 14
#: How many times the greatest count of the baseline is still usual.
FACTOR: Final = 2
#: A count up to this is usual for everybody.
FLOOR: Final = 50

INSUFFICIENT_HISTORY: Final = "insufficient_history"

Status = Literal["ok", "above", "insufficient_history"]


class Volume(NamedTuple):
    """What the rule says about one day, with the numbers that it used.

    Attributes:
        day: Number of the day, UTC, 0 is 1970-01-01.
        accesses: Accesses on that day.
        greatest: Greatest count on one of the days before it.
        limit: Greatest count that is usual.
        history: Days before the day since the first known access, at most :data:`BASELINE_DAYS`.
        status: What follows.
    """

    day: int
    accesses: int
    greatest: int
    limit: int
    history: int
    status: Status

    def as_dict(self) -> dict[str, int | str]:
        """Return the JSON form; the day as a date."""
        import datetime

        day = (datetime.date(1970, 1, 1) + datetime.timedelta(days=self.day)).isoformat()
        return {**self._asdict(), "day": day}


def judge_volume(counts: Mapping[int, int], day: int) -> Volume:
    """Apply the rule to one day.

    Args:
        counts: Accesses per day; days without any may be left out.
        day: The day.
    """
    before = [other for other in counts if other < day and counts[other] > 0]
    history = min(day - min(before), BASELINE_DAYS) if before else 0
    greatest = max((counts[other] for other in before if other >= day - BASELINE_DAYS), default=0)
    limit = max(FACTOR * greatest, FLOOR)
    count = counts.get(day, 0)
    if history < LEAST_DAYS:
        return Volume(day, count, greatest, limit, history, INSUFFICIENT_HISTORY)
    return Volume(day, count, greatest, limit, history, "above" if count > limit else "ok")
