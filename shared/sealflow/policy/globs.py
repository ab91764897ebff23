"""Patterns over slash-separated names, and the one form in which locations are compared with them.

``*`` stays inside one segment, ``**`` crosses segments, nothing else is special.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

_TOKEN = re.compile(r"\*\*|\*|[^*]", re.DOTALL)
_UNRESERVED = re.compile(r"[A-Za-z0-9/~*._-]+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

_FILE = re.compile(r"file:(?://(?:localhost)?)?/(?!/)")

# Nearly all patterns are seen to be sound at one glance; the others are looked at closely.
_SOUND = re.compile(r"(?:(?:s3|file|gs)://|/)?[A-Za-z0-9_*-][A-Za-z0-9_*.-]*(?:/[A-Za-z0-9_*-][A-Za-z0-9_*.-]*)*")

#: Marks a pattern over signed logical names instead of locations.
NAME_PREFIX: Final = "name:"

# Schemes of the same place: rules are about places.
_SAME: Final = {
    **{"s3a": "s3", "s3n": "s3", "minio": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "adl": "abfs"},
    **{"ssh": "sftp", "jlab": "jupyter", "arrow_hdfs": "hdfs"},
}
# As locations write paths (:func:`sealflow.storage.local.to_uri`).
_SAFE: Final = "/~!$&'()*+,;=:@-._"

# Beyond so many wildcards a regular expression could try more ways than there is time for.
_FEW: Final = 2


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
    if rest.replace("**", "*").count("*") >= _FEW:
        states = _automaton(pattern)
        return bool(_consume(states, text, states.deep) & states.end)
    return _compiled(pattern).fullmatch(text) is not None


class _Automaton(NamedTuple):
    """A pattern as a machine whose set of states is one number: bit n stands for "the first n tokens are done"."""

    literal: dict[str, int]
    wild: int
    deep: int
    end: int


@lru_cache(maxsize=4096)
def _automaton(pattern: str) -> _Automaton:
    literals: dict[str, int] = {}
    wild = deep = 0
    tokens = _TOKEN.findall(pattern)
    for index, item in enumerate(tokens):
        bit = 1 << index
        if item in ("*", "**"):
            wild |= bit
            deep |= bit if item == "**" else 0
        else:
            literals[item] = literals.get(item, 0) | bit
    return _Automaton(literals, wild, deep, 1 << len(tokens))


def _consume(machine: _Automaton, text: str, deep: int) -> int:
    """Return the states after a text; ``deep`` are the wildcards that may take a slash."""
    shallow = machine.wild & ~machine.deep | deep
    states = _skipped(machine, 1)
    for char in text:
        stay = deep if char == "/" else shallow
        states = _skipped(machine, (states & machine.literal.get(char, 0)) << 1 | states & stay)
        if not states:
            break
    return states


def _skipped(machine: _Automaton, states: int) -> int:
    # A wildcard may stand for nothing.
    while (more := states | (states & machine.wild) << 1) != states:
        states = more
    return states


def reaches(pattern: str, folder: str) -> bool:
    """Tell whether a pattern names something below a folder, so that who opens the folder opens that too.

    A ``**`` that would have to stand for a part of the folder's own location does not count: such a pattern may name
    something below any folder, and whether it does shows in what the folder holds (:func:`hides`).
    """
    below = inside(folder, "")
    start = literal(pattern)
    if start.startswith(below):
        return True
    if not below.startswith(start):
        return False
    return bool(_consume(_automaton(pattern), below, 0))


def hides(pattern: str) -> bool:
    """Tell whether a pattern may name something below a folder of which :func:`reaches` does not tell."""
    return "**" in pattern.rstrip("*")


def holds(pattern: str, folder: str, names: Iterable[str]) -> bool:
    """Tell whether a pattern names one of the files in a folder.

    Args:
        pattern: In the form of :func:`place_pattern`.
        folder: The folder's location.
        names: Names of files inside of it.
    """
    # One look at its end saves most of the others.
    end = pattern.rpartition("*")[2]
    return any(text.endswith(end) and matches(pattern, text) for text in (inside(folder, name) for name in names))


def inside(folder: str, name: str) -> str:
    """Return the location of a file inside a folder, in the form that patterns are compared with."""
    if folder.startswith("file://"):
        name = quote(name.encode("utf-8", "surrogateescape"), safe=_SAFE)
    return f"{folder}{name}" if folder.endswith("/") else f"{folder}/{name}"


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
    if first == second:
        return True
    if "*" not in first:
        return matches(second, first)
    if "*" not in second:
        return matches(first, second)
    # What matches both begins and ends as each of them does.
    begin, start = literal(first), literal(second)
    end, tail = first.rpartition("*")[2], second.rpartition("*")[2]
    if not (begin.startswith(start) or start.startswith(begin)) or not (end.endswith(tail) or tail.endswith(end)):
        return False
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
    if pattern.startswith("s3://"):
        return pattern
    if pattern.startswith("/"):
        return "file://" + (pattern if _UNRESERVED.fullmatch(pattern) else quote(pattern, safe=_SAFE))
    match = _SCHEME.match(pattern)
    if match is None:
        return place_pattern("file://" + pattern[5:]) if pattern[:6].lower() == "file:/" else pattern
    scheme, rest = match[1].lower(), pattern[match.end() :]
    if scheme == "file":
        # Each path has one spelling as a URI; whoever writes a rule may use another one.
        rest = rest.removeprefix("localhost")
        return "file://" + (rest if _UNRESERVED.fullmatch(rest) else quote(unquote_to_bytes(rest), safe=_SAFE))
    return f"{_SAME.get(scheme, scheme)}://{rest}"


def check_pattern(pattern: str) -> str:
    """Return what is wrong with a pattern, empty when nothing is."""
    # Patterns over names of tasks and producers are no locations, and the most of a policy.
    if "***" not in pattern and "://" not in pattern and not pattern.startswith(("/", "arn:", "file:/")):
        return ""
    if _SOUND.fullmatch(pattern) is not None and "***" not in pattern:
        return ""
    if "***" in pattern:
        return f"{pattern!r} holds ***; write * or **"
    if pattern.startswith("arn:"):
        return f"{pattern!r} is an ARN; write s3://bucket/key"
    match = _SCHEME.match(pattern)
    if match is None and not pattern.startswith(("/", "file:/")):
        return ""
    rest = pattern[match.end() :] if match else pattern
    if pattern[:6].lower() == "file:/":
        # What is encoded in it counts for what it stands for.
        rest = place_pattern(pattern).removeprefix("file://")
        if rest.count("*") != pattern.count("*"):
            return f"{pattern!r} holds an encoded *, which would stand for any text"
    elif match and match[1].lower() in ("s3", "gs") and rest.partition("/")[0] == "":
        return f"{pattern!r} names no bucket"
    if match and match[1].lower() in ("s3a", "s3n", "gcs", "abfss", "az", "adl"):
        return f"{match[1]}:// is another name of a place; write {_SAME[match[1].lower()]}://{rest}"
    if "//" in rest:
        return f"{pattern!r} holds an empty path segment, which no location has"
    if any(part in (".", "..") for part in rest.split("/")):
        return f"{pattern!r} holds . or .., which no location has"
    if rest.endswith("/"):
        return f"{pattern!r} ends with a slash, which no location does; write {pattern}** for all below it"
    return ""


def is_absolute(location: str) -> bool:
    """Tell whether a location means the same in every working directory."""
    match = _SCHEME.match(location)
    if location.startswith("/") or _FILE.match(location):
        return True
    return match is not None and match[1].lower() != "file"


def check_place(pattern: str) -> str:
    """Return what is wrong with a pattern over locations or logical names, empty when nothing is.

    A pattern that can match no location would leave open what somebody meant to close.
    """
    if pattern.startswith(("/", "s3://", "gs://")):
        return check_pattern(pattern)
    if pattern.startswith(NAME_PREFIX):
        return "" if pattern != NAME_PREFIX else f"{pattern!r} holds no name"
    if problem := check_pattern(pattern):
        return problem
    match = _SCHEME.match(pattern)
    if match is not None and match[1].lower() == "file":
        if not pattern[match.end() :].removeprefix("localhost").startswith(("/", "*")):
            return f"{pattern!r} names a host; write file:///path or /path"
    elif match is None and not pattern.startswith(("/", "*", "file:/")) and "://" not in pattern:
        return f"{pattern!r} is no location; write /path, s3://bucket/key, or name:… for a signed logical name"
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
            if not plain:
                found.append(scheme + host)
    return tuple(dict.fromkeys(found))
