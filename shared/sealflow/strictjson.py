"""Reading untrusted JSON: size first, then duplicate keys, depth, constants, types.

RFC 8259 leaves duplicate names and very deep nesting to the reader. A verifier must not: two readers that
resolve them differently see two different signed documents.
"""

from __future__ import annotations

import binascii
import json
import math
import re
import sys
from typing import Any

from sealflow.errors import EvidenceError

MAX_DEPTH = 32


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        # In one pass: an object of a million keys must not buy its author hours of our time.
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise EvidenceError(f"JSON object has the key {name[:80]!r} twice.")
            seen.add(name)
    return result


def _no_constant(text: str) -> Any:
    raise EvidenceError(f"JSON holds {text}, which RFC 8259 does not know.")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise EvidenceError(f"JSON holds the number {text[:40]}, which is too large.")
    return value


# One for all documents: making it costs as much as reading a small one.
_decode = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite).decode

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

# An escaped UTF-16 surrogate; without its other half the text has no UTF-8 form, and two readers may differ on it.
_SURROGATE = re.compile(r"[\ud800-\udfff]")

_NOT_STRUCTURAL = bytes(set(range(256)) - set(b'[]{}"'))
_NOT_COUNTED = bytes(set(range(256)) - set(b",[{"))


def _check_depth_of_text(data: bytes) -> None:
    # Escapes go first, pairs of backslashes before escaped quotes, so that each remaining quote opens or closes
    # a string; every other pass runs in C, which keeps a manifest of a million files cheap.
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NOT_STRUCTURAL)
    brackets = b"".join(bare.split(b'"')[::2]).translate(bytes.maketrans(b"[]", b"{}"))
    # Taking the innermost pairs away lowers the depth by one. What is left after that many rounds is too deep, or has
    # no partner, which is no JSON either.
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"{}", b"")
    if brackets:
        raise EvidenceError(f"JSON is nested deeper than {MAX_DEPTH} levels, or its brackets do not match.")


def check_depth(value: Any) -> None:
    """Walk a parsed document level by level, which is quicker than its text where texts are nearly all of it.

    Raises:
        EvidenceError: Nested deeper than 32.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for one in level:
            inner += one.values() if type(one) is dict else one if type(one) is list else ()
        level = [one for one in inner if type(one) is dict or type(one) is list]
        if not level:
            return
    raise EvidenceError(f"JSON is nested deeper than {MAX_DEPTH} levels.")


def more_values(data: bytes, most: int) -> bool:
    """Tell whether a text holds more commas and brackets than ``most``, those within its texts included."""
    return len(data) > most and len(data.translate(None, _NOT_COUNTED)) > most


def _no_surrogates(value: Any) -> None:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise EvidenceError("JSON holds half of a surrogate pair.")
    elif isinstance(value, dict):
        for name, item in value.items():
            _no_surrogates(name)
            _no_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _no_surrogates(item)


def loads(data: bytes, *, limit: int, what: str, most_values: int | None = None, texts: bool = False) -> Any:
    """Parse untrusted JSON.

    Args:
        data: UTF-8 encoded text.
        limit: Largest accepted length in bytes.
        what: Name of the document for messages.
        most_values: Largest accepted number of commas and brackets, for documents that hold few values: parsed, an
            empty list takes twenty times its three bytes.
        texts: Whether it is long for its texts rather than for its values; says only what is quicker.

    Raises:
        EvidenceError: Too long, not UTF-8, not JSON, duplicate keys, nested deeper than 32, NaN, Infinity, half of a
            surrogate pair, or a number that no float or integer of Python holds.
    """
    if len(data) > limit:
        raise EvidenceError(f"{what} has {len(data)} bytes, more than the limit of {limit}.")
    if most_values is not None and more_values(data, most_values):
        raise EvidenceError(f"{what} holds more than {most_values} values.")
    try:
        # Fewer brackets open than may be open at once: nearly every document but a manifest.
        deep = len(data) > MAX_DEPTH and data.count(b"[") + data.count(b"{") > MAX_DEPTH
        if deep and not texts:
            _check_depth_of_text(data)
        text = data.decode("utf-8")
        # The decoder itself gives up where Python's own stack ends.
        value = _decode(text)
        if deep and texts:
            check_depth(value)
        # Only an escape can bring one in: the decoder refuses encoded ones. Without an escape nothing is walked.
        if "\\" in text and ("\\ud" in text or "\\uD" in text):
            _no_surrogates(value)
        return value
    except EvidenceError as error:
        raise EvidenceError(f"{what}: {error.message}") from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise EvidenceError(f"{what} is not valid JSON: {str(error)[:200]}.") from None


def dumps(value: Any) -> bytes:
    """Serialize as canonical JSON: sorted keys, no white space, UTF-8 (RFC 8785 for our strings, ints, bools)."""
    return _encode(value).encode("utf-8")


def member(obj: Any, key: str, kind: type | tuple[type, ...], what: str, *, required: bool = True) -> Any:
    """Return ``obj[key]`` when it has the type ``kind``; ``None`` when it is absent or null and not required.

    Raises:
        EvidenceError: ``obj`` is no object, the key is missing, or the value has another type.
    """
    if not isinstance(obj, dict):
        raise EvidenceError(f"{what} must be a JSON object, found {type(obj).__name__}.")
    value = obj.get(key)
    if type(value) is kind:
        return value
    if value is None:
        if required:
            raise EvidenceError(f"{what} lacks the member {key!r}.")
        return None
    # bool is a subclass of int in Python, not in JSON.
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise EvidenceError(f"{what}: member {key!r} has the wrong type {type(value).__name__}.")
    return value


def only_members(obj: Any, allowed: frozenset[str], what: str) -> None:
    """Refuse members that are not in ``allowed``.

    Raises:
        EvidenceError: ``obj`` is no object; or names the first unknown member.
    """
    if not isinstance(obj, dict):
        raise EvidenceError(f"{what} must be a JSON object, found {type(obj).__name__}.")
    for key in obj:
        if key not in allowed:
            raise EvidenceError(f"{what} has the unknown member {key[:80]!r}.")


def base64_bytes(text: str, what: str) -> bytes:
    """Decode standard Base64 strictly (RFC 4648 section 4, no line breaks, no foreign characters).

    Raises:
        EvidenceError: Not Base64.
    """
    try:
        if sys.version_info >= (3, 11):
            data = binascii.a2b_base64(text, strict_mode=True)
            # The last group could still be spelled in several ways, by bits that are thrown away: one text only.
            checked, expected = data[-(len(data) % 3 or 3) :], text[-4:]
        else:
            # This decoder forgives much. What it took is the text only if it encodes back to it.
            data = binascii.a2b_base64(text)
            checked, expected = data, text
    except ValueError:
        raise EvidenceError(f"{what} is not valid Base64.") from None
    if binascii.b2a_base64(checked, newline=False).decode("ascii") != expected:
        raise EvidenceError(f"{what} is not valid Base64.")
    return data
