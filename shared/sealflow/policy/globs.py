"""Patterns over slash-separated names, and the one form in which locations are compared with them.

``*`` stays inside one segment, ``**`` crosses segments, nothing else is special.
"""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

_TOKEN = re.compile(r"\*\*|\*|[^*]", re.DOTALL)
_UNRESERVED = re.compile(r"[A-Za-z0-9/~*._-]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

# Nearly all patterns are seen to be sound at one glance; the others are looked at closely.
_SOUND = re.compile(r"(?:(?:s3|file|gs)://|/)?[A-Za-z0-9_*-][A-Za-z0-9_*.-]*(?:/[A-Za-z0-9_*-][A-Za-z0-9_*.-]*)*")

#: Marks a pattern over signed logical names instead of locations.
NAME_PREFIX: Final = "name:"

# Schemes of the same place: rules are about places.
_SAME: Final = {"s3a": "s3", "s3n": "s3", "minio": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "adl": "abfs"}


@lru_cache(maxsize=16384)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    special = {"*": "[^/]*", "**": ".*"}
    return re.compile("".join(special.get(part) or re.escape(part) for part in parts), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole of ``text`` matches ``pattern``, case-sensitively."""
    # The two usual forms need no regular expression, whose making is dearer than a decision may be.
    start, star, rest = pattern.partition("*")
    if not star:
        return text == pattern
    if rest == "*":
        return text.startswith(start)
    if not rest:
        return text.startswith(start) and "/" not in text[len(start) :]
    return _compiled(pattern).fullmatch(text) is not None


def literal(pattern: str) -> str:
    """Return what stands before the first wildcard."""
    return pattern.partition("*")[0]


def includes(wide: str, narrow: str) -> bool:
    """Tell whether whatever matches ``narrow`` matches ``wide`` too; ``False`` also where that cannot be shown."""
    if wide == narrow or wide == "**":
        return True
    # Among all that matches the narrow pattern, something departs from its literal beginning right after it.
    if not literal(narrow).startswith(literal(wide)):
        return False
    tokens = _TOKEN.findall(wide)
    # States of the wide pattern in which the narrow one can have left it. A wildcard of the narrow pattern stands for
    # any text of its kind, the empty one too, so only a wildcard as wide can take it, by staying where it is.
    states = _closed(tokens, {0})
    for token in _TOKEN.findall(narrow):
        following = set()
        for state in states:
            mine = tokens[state] if state < len(tokens) else ""
            if mine in ("*", "**"):
                if _takes(mine, token):
                    following.add(state)
            elif mine == token:
                following.add(state + 1)
        states = _closed(tokens, following)
    return len(tokens) in states


def overlaps(first: str, second: str) -> bool:
    """Tell whether some text may match both patterns."""
    return _meet(_TOKEN.findall(first), _TOKEN.findall(second))


def _takes(wildcard: str, other: str) -> bool:
    return wildcard == "**" or other not in ("**", "/")


def _closed(pattern: list[str], states: set[int]) -> set[int]:
    result = set(states)
    for state in states:
        while state < len(pattern) and pattern[state] in ("*", "**"):
            state += 1
            result.add(state)
    return result


def _meet(first: list[str], second: list[str]) -> bool:
    seen: set[tuple[int, int]] = set()
    stack = [(0, 0)]
    while stack:
        left, right = pair = stack.pop()
        if pair in seen:
            continue
        seen.add(pair)
        if left == len(first) and right == len(second):
            return True
        one = first[left] if left < len(first) else ""
        two = second[right] if right < len(second) else ""
        if one in ("*", "**"):
            stack.append((left + 1, right))
            if two and (two in ("*", "**") or _takes(one, two)):
                stack.append((left, right + 1))
        if two in ("*", "**"):
            stack.append((left, right + 1))
            if one and (one in ("*", "**") or _takes(two, one)):
                stack.append((left + 1, right))
        if one and one == two and one not in ("*", "**"):
            stack.append((left + 1, right + 1))
    return False


def place_pattern(pattern: str) -> str:
    """Return a pattern over locations in the form that :func:`readings` compares: one scheme a place, paths as URIs."""
    if pattern.startswith(("s3://", "file://")):
        return pattern
    if pattern.startswith("/"):
        return (
            "file://" + pattern
            if _UNRESERVED.fullmatch(pattern)
            else "file://" + quote(pattern, safe="/~!$&'()*+,;=:@-._")
        )
    match = _SCHEME.match(pattern)
    if match is None:
        return pattern
    scheme = match[1].lower()
    return f"{_SAME.get(scheme, scheme)}://{pattern[match.end() :]}"


def check_pattern(pattern: str) -> str:
    """Return what is wrong with a pattern, empty when nothing is."""
    if _SOUND.fullmatch(pattern) is not None and "***" not in pattern:
        return ""
    if "***" in pattern:
        return f"{pattern!r} holds ***; write * or **"
    if pattern.startswith("arn:"):
        return f"{pattern!r} is an ARN; write s3://bucket/key"
    match = _SCHEME.match(pattern)
    if match is None and not pattern.startswith("/"):
        return ""
    rest = pattern[match.end() :] if match else pattern
    if match and match[1].lower() in ("s3a", "s3n", "gcs", "abfss", "az", "adl"):
        return f"{match[1]}:// is another name of a place; write {_SAME[match[1].lower()]}://{rest}"
    if "//" in rest:
        return f"{pattern!r} holds an empty path segment, which no location has"
    if any(part in (".", "..") for part in rest.split("/")):
        return f"{pattern!r} holds . or .., which no location has"
    if rest.endswith("/"):
        return f"{pattern!r} ends with a slash, which no location does; write {pattern}** for all below it"
    return ""


def readings(canonical: str, resolved: str | None = None) -> tuple[str, ...]:
    """Return every reading of a location under which a rule may apply, the canonical one first.

    Stores differ in what they make of ``//``, ``..`` and ``%2F`` in a key, and a local path can lead through links. A
    rule applies when it matches any reading: an alias can bring more rules, never fewer.

    Args:
        canonical: The location as its storage writes it.
        resolved: For local paths, the location without links.
    """
    found = [place_pattern(canonical)]
    if resolved is not None:
        found.append(place_pattern(resolved))
    match = _SCHEME.match(found[0])
    if match is not None and match[1] != "file":
        scheme, rest = match[0], found[0][match.end() :]
        for text in (rest, unquote(rest)):
            host, slash, path = text.partition("/")
            plain = posixpath.normpath("/" + path).lstrip("/") if path else ""
            found += [scheme + text, scheme + host + slash + plain]
    return tuple(dict.fromkeys(found))
