"""What the annotations of a form are made of: limits, patterns, checks, and times.

A form may hold text, whole numbers, booleans, times, words (``Literal``), lists (``tuple[X, ...]``), mappings with
names of one kind, other forms, and alternatives of these.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any, Final


class About:
    """What a member means, for readers of the schema.

    Args:
        text: One or two sentences; may be empty.
        examples: A few values.
    """

    __slots__ = ("examples", "text")

    def __init__(self, text: str = "", examples: tuple[str, ...] = ()) -> None:
        self.text = text
        self.examples = examples


class Size:
    """How long a text, a list or a mapping is, in characters or entries.

    Args:
        least: Shortest.
        most: Longest; ``inf`` where the size of the document is the only limit.
    """

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: float) -> None:
        self.least = least
        self.most = most


class Between:
    """Which whole numbers there may be.

    Args:
        least: The least, from 0.
        most: The greatest.
    """

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most


class Matches:
    """The form of a text.

    Args:
        pattern: A regular expression between ``^`` and ``$`` over the whole text, in what Python, Rust and ECMA 262
            have in common.
    """

    __slots__ = ("pattern",)

    def __init__(self, pattern: str) -> None:
        if not (pattern.startswith("^") and pattern.endswith("$")):
            raise ValueError(f"{pattern} is not about a whole text")
        self.pattern = pattern


class Check:
    """What a pattern cannot say of a text.

    Args:
        check: Raises ``ValueError`` with what is wrong, as a message ends.
    """

    __slots__ = ("check",)

    def __init__(self, check: Callable[[str], object]) -> None:
        self.check = check


_RFC3339: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?(?:[Zz]|([+-])(\d{2}):(\d{2}))", re.ASCII
)
# Far enough for everybody, and far enough from the ends of the calendar that a time zone or a grace can be added.
_FIRST_YEAR: Final = 2000
_LAST_YEAR: Final = 2999


def is_moment(value: object) -> None:
    """Refuse what is not written as a time.

    Raises:
        ValueError: With what is wrong.
    """
    # Numbers, and texts of digits, would be taken for seconds or milliseconds since 1970, by their size.
    if type(value) is not str or not _RFC3339.fullmatch(value):
        raise ValueError("a time is written as 2027-06-30T00:00:00Z (RFC 3339)")


def is_near(value: datetime.datetime) -> None:
    """Refuse years at which arithmetic ends.

    Raises:
        ValueError: With what is wrong.
    """
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"a time lies between the years {_FIRST_YEAR} and {_LAST_YEAR}")


def read_moment(value: Any) -> datetime.datetime:
    """Return a time, aware, from text.

    Raises:
        ValueError: It is none.
    """
    match = _RFC3339.fullmatch(value) if type(value) is str else None
    if match is None:
        raise ValueError("a time is written as 2027-06-30T00:00:00Z (RFC 3339)")
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups(default="")
    zone = datetime.timezone.utc
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            raise ValueError("there is no such time zone")
        ahead = datetime.timedelta(hours=int(hours), minutes=int(minutes))
        zone = datetime.timezone(-ahead if sign == "-" else ahead)
    moment = datetime.datetime(
        int(year), int(month), int(day), int(hour), int(minute), int(second or 0), int(f"{fraction:0<6}"), zone
    )
    is_near(moment)
    return moment
