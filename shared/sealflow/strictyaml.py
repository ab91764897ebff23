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
        text = data.decode("utf-8")
        _check_events(yaml.parse(text, Loader=loader), what, depth, scalar is core)
        root = yaml.compose(text, Loader=loader)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        problem = printable(getattr(error, "problem", None) or error, 200)
        raise EvidenceError(f"{what} is not YAML: {problem}{line}.") from None
    lines: Lines = {}
    if root is None:
        return None, lines
    return _Reader(yaml, what, scalar or unambiguous, lines).value(root, ()), lines


def _check_events(events: Any, what: str, most: int, no_tags: bool) -> None:
    # From the parser's events: building the document from deep or much-referenced text crashes or never ends.
    import yaml

    depth = documents = 0
    for count, event in enumerate(events):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        line = f" (line {event.start_mark.line + 1})"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise EvidenceError(f"{what} uses a YAML reference; write the value out{line}.")
        if no_tags and getattr(event, "tag", None):
            raise EvidenceError(f"{what} uses the YAML tag {printable(event.tag, 60)!r}; leave it out{line}.")
        if depth > most or count > _MAX_EVENTS:
            raise EvidenceError(f"{what} is nested too deep or holds too much{line}.")
        if documents > 1:
            raise EvidenceError(f"{what} holds more than one document{line}.")


class _Reader:
    def __init__(self, yaml: Any, what: str, scalar: Scalar, lines: Lines) -> None:
        self._sequence = yaml.SequenceNode
        self._mapping = yaml.MappingNode
        self._scalar_node = yaml.ScalarNode
        self._what = what
        self._scalar = scalar
        self._lines = lines

    def value(self, node: Any, path: tuple[Any, ...]) -> Any:
        line = node.start_mark.line + 1
        self._lines.setdefault(path, line)
        if isinstance(node, self._sequence):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, self._mapping):
            return self._read(node, line)
        found: dict[Any, Any] = {}
        for key, item in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, self._scalar_node):
                raise EvidenceError(f"{self._what} has a field whose name is no text (line {line}).")
            name = self._read(key, at) if self._scalar is core else str(key.value)
            if self._scalar is core and name == "<<" and not key.style:
                raise EvidenceError(f"{self._what} merges mappings; write the values out (line {at}).")
            if name in found:
                raise EvidenceError(f"{self._what} has the field {printable(name, 60)!r} twice (line {at}).")
            inner = (*path, name)
            self._lines[inner] = at
            found[name] = self.value(item, inner)
        return found

    def _read(self, node: Any, line: int) -> Any:
        return self._scalar(str(node.value), node.tag.rpartition(":")[2], not node.style, line, self._what)


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
