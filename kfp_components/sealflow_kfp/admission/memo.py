"""What was found of texts that come again: a pipeline that runs each hour brings the same tasks each hour."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from sealflow_kfp.admission.settings import Settings

#: Longest text that is remembered, and most characters of all together, what they became included.
MAX_TEXT: Final = 64 << 10
MAX_ALL: Final = 8 << 20


class Memo:
    """Remembers implementations of which there was nothing to say, in bounded memory; the oldest go first.

    An answer is the same with it and without it.

    Args:
        settings: The settings under which they were judged; of others it remembers nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._size = 0

    def get(self, text: str, settings: Settings) -> tuple[str, str] | None:
        """Return what a text is and becomes, ``None`` where nobody remembers."""
        return self._found.get(text) if settings is self._settings else None

    def keep(self, text: str, settings: Settings, found: tuple[str, str]) -> None:
        """Remember what a text is and becomes."""
        if settings is not self._settings or len(text) > MAX_TEXT or text in self._found:
            return
        self._found[text] = found
        self._size += len(text) + len(found[1])
        while self._size > MAX_ALL:
            old, (_, became) = self._found.popitem(last=False)
            self._size -= len(old) + len(became)
