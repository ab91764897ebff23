"""Strict JSON at the speed of orjson, for documents in the one spelling that Go's and Python's encoders have.

orjson takes the last of two members with one name, and knows no depth. So what it read is written again: where that is
the document, byte by byte, no member was lost and nothing was understood in another way than it is written. Every
other document is read by :mod:`sealflow.strictjson`, whose answer is the same: this one is only quicker.
"""

from __future__ import annotations

from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError

#: What Go's encoder writes for characters that only ever stand within texts, so that it moves no bracket and no comma.
_GO_ESCAPES: Final = (
    (b"&", b"\\u0026"),
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def loads(data: bytes | str, *, limit: int, what: str, most_values: int | None = None) -> Any:
    """Parse untrusted JSON.

    Args:
        data: UTF-8 encoded text, or the text.
        limit: Largest accepted length in bytes.
        what: Name of the document for messages.
        most_values: Largest accepted number of commas and brackets.

    Raises:
        EvidenceError: As :func:`sealflow.strictjson.loads`, in its words.
    """
    import orjson

    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if len(raw) <= limit and (most_values is None or not strictjson.more_values(raw, most_values)):
        try:
            value = orjson.loads(raw)
            strictjson.check_depth(value)
            again = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE if raw.endswith(b"\n") else None)
        except (EvidenceError, ValueError, TypeError):
            # Whatever it is, the words for it are the other's.
            return strictjson.loads(raw, limit=limit, what=what, most_values=most_values, texts=True)
        if again == raw or _as_go(again, len(raw)) == raw:
            return value
    return strictjson.loads(raw, limit=limit, what=what, most_values=most_values, texts=True)


def dumps(value: Any) -> bytes:
    """Serialize as canonical JSON, as :func:`sealflow.strictjson.dumps` does but for the spelling of some floats."""
    import orjson

    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # A number of more than 64 bits, or what is nested too deep for it.
        return strictjson.dumps(value)


def _as_go(data: bytes, length: int) -> bytes:
    """Return a document in Go's spelling, or halfway there where that is longer than so many bytes."""
    for character, escape in _GO_ESCAPES:
        if character not in data:
            continue
        if len(data) + data.count(character) * (len(escape) - len(character)) > length:
            break
        data = data.replace(character, escape)
    return data
