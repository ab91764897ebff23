"""Reading untrusted YAML: size, depth, references and duplicate keys first, and no guessing at what a word means.

YAML leaves more to its reader than JSON does. Two readings of plain words are offered: :func:`unambiguous` refuses what
YAML 1.1 and 1.2 read differently; :func:`core` reads as DVC does (ruamel.yaml, YAML 1.2).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any, Final

from sealflow.errors import EvidenceError
from sealflow.findings import printable

MAX_DEPTH: Final = 24
_MAX_EVENTS: Final = 2_000_000

#: Path of names and indices → line, from 1; sequences and mappings have the line of their first entry.
Lines = dict[tuple[Any, ...], int]

#: Value of a scalar, from its text, the tag that YAML 1.1 gives it, whether it stands there without quotes, the line
#: and the document's name.
Scalar = Callable[[str, str, bool, int, str], Any]


def loads(
    data: bytes, *, limit: int, what: str, scalar: Scalar | None = None, depth: int = MAX_DEPTH
) -> tuple[Any, Lines]:
    """Parse untrusted YAML, or JSON, which is a subset of it.

    Args:
        data: UTF-8 encoded text.
        limit: Largest accepted length in bytes.
        what: Name of the document for messages.
        scalar: Reads scalars; :func:`unambiguous` when absent. With :func:`core` names of fields are read by it too.
        depth: Most levels of lists and mappings.

    Returns:
        The document (``None`` when it is empty) and the line of every field.

    Raises:
        EvidenceError: Too long, not UTF-8, not YAML, references, duplicate keys, tags where ``scalar`` knows none,
            nested too deep, several documents, or a scalar that is refused. Names the line.
    """
    if len(data) > limit:
        raise EvidenceError(f"{what} has more than {limit} bytes.")
    import yaml

    # The C parser is ten times as fast; builds without it have the other.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        reader = _Reader(yaml, what, scalar or unambiguous, depth)
        return reader.read(yaml.parse(data.decode("utf-8"), Loader=loader)), reader.lines
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        problem = printable(getattr(error, "problem", None) or error, 200)
        raise EvidenceError(f"{what} is not YAML: {problem}{line}.") from None


_NO_KEY: Final = object()


class _Open:
    """A list or mapping that is being read."""

    __slots__ = ("key", "line", "path", "value")

    def __init__(self, value: Any, path: tuple[Any, ...], line: int) -> None:
        self.value = value
        self.path = path
        self.line = line
        self.key: Any = _NO_KEY


class _Reader:
    """Builds the document from the parser's events.

    The library's own composer recurses, and follows references, before anybody can look: deep or much-referenced text
    crashes it or never ends.
    """

    def __init__(self, yaml: Any, what: str, scalar: Scalar, depth: int) -> None:
        self._yaml = yaml
        self._what = what
        self._scalar = scalar
        self._depth = depth
        self._core = scalar is core
        self._resolver = yaml.resolver.Resolver()
        self.lines: Lines = {}

    def read(self, events: Any) -> Any:
        yaml, core_reading, lines = self._yaml, self._core, self.lines
        scalar, mapping, sequence = yaml.ScalarEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent
        ends = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
        root: Any = None
        documents = 0
        stack: list[_Open] = []
        for count, event in enumerate(events):
            kind = type(event)
            if count > _MAX_EVENTS:
                raise self._error("is nested too deep or holds too much", event)
            if kind in ends:
                value = stack.pop().value
                if not stack:
                    root = value
                continue
            if kind is not scalar and kind is not mapping and kind is not sequence:
                if kind is yaml.AliasEvent:
                    raise self._error("uses a YAML reference; write the value out", event)
                documents += kind is yaml.DocumentStartEvent
                if documents > 1:
                    raise self._error("holds more than one document", event)
                continue
            if event.anchor:
                raise self._error("uses a YAML reference; write the value out", event)
            if core_reading and event.tag:
                raise self._error(f"uses the YAML tag {printable(event.tag, 60)!r}; leave it out", event)
            line = event.start_mark.line + 1
            top = stack[-1] if stack else None
            if top is not None and top.key is _NO_KEY and type(top.value) is dict:
                top.key = self._name(event, kind is scalar, top, line)
                place = (*top.path, top.key)
                lines[place] = line
                continue
            if top is None:
                path: tuple[Any, ...] = ()
            elif type(top.value) is dict:
                path = (*top.path, top.key)
            else:
                path = (*top.path, len(top.value))
            lines.setdefault(path, line)
            value = self._value(event, line) if kind is scalar else {} if kind is mapping else []
            if top is None:
                root = value
            elif type(top.value) is dict:
                top.value[top.key] = value
                top.key = _NO_KEY
            else:
                top.value.append(value)
            if kind is not scalar:
                if len(stack) >= self._depth:
                    raise self._error("is nested too deep or holds too much", event)
                stack.append(_Open(value, path, line))
        return root

    def _error(self, problem: str, event: Any) -> EvidenceError:
        return EvidenceError(f"{self._what} {problem} (line {event.start_mark.line + 1}).")

    def _name(self, event: Any, is_scalar: bool, top: _Open, line: int) -> Any:
        if not is_scalar:
            raise EvidenceError(f"{self._what} has a field whose name is no text (line {top.line}).")
        name = self._value(event, line) if self._core else str(event.value)
        if self._core and name == "<<" and not event.style:
            raise EvidenceError(f"{self._what} merges mappings; write the values out (line {line}).")
        if name in top.value:
            raise EvidenceError(f"{self._what} has the field {printable(name, 60)!r} twice (line {line}).")
        return name

    def _value(self, event: Any, line: int) -> Any:
        text = str(event.value)
        if self._core:
            return core(text, "", not event.style, line, self._what)
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._resolver.resolve(self._yaml.ScalarNode, text, event.implicit)
        return self._scalar(text, str(tag).rpartition(":")[2], not event.style, line, self._what)


_BOOLEANS: Final = {"true": True, "false": False}
_PLAIN_INT: Final = re.compile(r"0|[1-9][0-9]{0,18}")


def unambiguous(text: str, tag: str, plain: bool, line: int, what: str) -> Any:
    """Read text, whole numbers and truth values; refuse whatever readers of YAML disagree on.

    Raises:
        EvidenceError: Names the line and the way to write it.
    """
    if tag == "null":
        raise EvidenceError(f"{what} has a field without a value (line {line}).")
    if tag == "bool":
        # YAML 1.1 also takes yes, no, on and off; who writes these means a word as often as not.
        if text.lower() not in _BOOLEANS:
            raise EvidenceError(f"{what}: write true or false, or quote {text!r} (line {line}).")
        return _BOOLEANS[text.lower()]
    if tag == "int":
        # 010 is eight to one reader and ten to another.
        if not _PLAIN_INT.fullmatch(text):
            raise EvidenceError(f"{what}: {printable(text, 40)!r} is no plain whole number; quote it (line {line}).")
        return int(text)
    if tag in ("str", "timestamp"):
        return text
    raise EvidenceError(
        f"{what}: {printable(text, 40)!r} is neither text, a whole number nor a truth value (line {line})."
    )


# The implicit resolvers of ruamel.yaml for YAML 1.2, in their order.
_CORE_BOOL: Final = re.compile(r"true|True|TRUE|false|False|FALSE")
_CORE_FLOAT: Final = re.compile(
    r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9_]+(?:[eE][-+][0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_CORE_INT: Final = re.compile(r"[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?[0-9_]+|[-+]?0x[0-9a-fA-F_]+")
_CORE_NULL: Final = frozenset(("~", "null", "Null", "NULL", ""))
_TIMESTAMP: Final = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)"
    r"(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.(\d*))?(?:[ \t]*(?:Z|([-+])(\d\d?)(?::(\d\d))?))?)?",
    re.ASCII,
)
_NUMBER_START: Final = frozenset("-+0123456789.")
# Python refuses to convert longer ones, and nobody writes one.
_MAX_DIGITS: Final = 4000


def core(text: str, tag: str, plain: bool, line: int, what: str) -> Any:
    """Read scalars as YAML 1.2 does, timestamps included.

    Raises:
        EvidenceError: A number that Python cannot hold, or a date that is none. Names the line.
    """
    if not plain:
        return text
    if text in _CORE_NULL:
        return None
    if text[0] in _NUMBER_START:
        try:
            return _number(text)
        except (ValueError, OverflowError):
            raise EvidenceError(f"{what}: {printable(text, 40)!r} is no number; quote it (line {line}).") from None
    if text == "=":
        raise EvidenceError(f"{what}: quote the lone '=' (line {line}).")
    if _CORE_BOOL.fullmatch(text):
        return _BOOLEANS[text.lower()]
    return text


def _number(text: str) -> Any:
    if _CORE_FLOAT.fullmatch(text):
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    if _CORE_INT.fullmatch(text):
        digits = text.replace("_", "")
        if len(digits) > _MAX_DIGITS:
            raise ValueError
        bare = digits.lstrip("+-")
        base = {"0b": 2, "0x": 16, "0o": 8}.get(bare[:2], 10)
        value = int(bare if base == 10 else bare[2:], base)
        return -value if digits[0] == "-" else value
    if (match := _TIMESTAMP.fullmatch(text)) is not None:
        return _timestamp(match)
    return text


def _timestamp(match: re.Match[str]) -> datetime.date | str:
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    if match[4] is None:
        # Without a time the short forms are words.
        return datetime.date(year, month, day) if len(match[0]) == 10 else match[0]
    fraction = int((match[7] or "").ljust(6, "0")[:6])
    moment = datetime.datetime(year, month, day, int(match[4]), int(match[5]), int(match[6]), fraction)
    if match[8]:
        away = datetime.timedelta(hours=int(match[9]), minutes=int(match[10] or 0))
        return moment.replace(tzinfo=datetime.timezone(-away if match[8] == "-" else away))
    return moment.replace(tzinfo=datetime.timezone.utc) if match[0].endswith("Z") else moment
