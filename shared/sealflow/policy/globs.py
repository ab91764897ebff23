"""Patterns over slash-separated names.

``*`` stays inside one segment, ``**`` crosses segments, nothing else is special.
"""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    special = {"*": "[^/]*", "**": ".*"}
    return re.compile("".join(special.get(part) or re.escape(part) for part in parts), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole of ``text`` matches ``pattern``, case-sensitively."""
    return _compiled(pattern).fullmatch(text) is not None
