"""What reaches a terminal."""

from __future__ import annotations

import sys

import pytest

from sealflow.findings import printable

#: Control characters, C0 and C1; marks and overrides of direction; separators of lines; halves of surrogate pairs.
HOSTILE = {
    *range(0x20),
    *range(0x7F, 0xA0),
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
    *range(0xD800, 0xE000),
}


@pytest.mark.slow
def test_every_character() -> None:
    """Each code point by itself: it stands as it is, or as its escape."""
    for code in range(sys.maxunicode + 1):
        shown = printable(chr(code))
        assert shown == (f"\\u{code:04x}" if code in HOSTILE else chr(code)), hex(code)


@pytest.mark.parametrize("text", ["a" * 300, "a" * 301, "\n" * 300, "é" * 500], ids=["at", "over", "escaped", "wide"])
def test_the_limit(text: str) -> None:
    assert len(printable(text)) <= 300
    assert printable(text).isprintable()
    assert printable(text, 10**6) == text.replace("\n", "\\u000a")
