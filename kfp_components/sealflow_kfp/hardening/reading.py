"""Compiled pipelines as text: read strictly, written as KFP's compiler writes them.

KFP compiles to YAML with PyYAML (1.1) and a cluster reads it with Go (1.1 and a bit of 1.2). Words that these read
differently are read here as the compiler meant them, and written with quotes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow import strictjson, strictyaml
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable

#: Largest accepted text in bytes. The API server of KFP takes a few MiB.
MAX_PIPELINE: Final = 16 << 20
#: Most levels of lists and mappings.
MAX_DEPTH: Final = 64
#: Most documents in one text.
MAX_DOCUMENTS: Final = 100

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,308})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")
_STR: Final = "tag:yaml.org,2002:str"
_NUMBERS: Final = frozenset("-+.0123456789")
_INTEGER = re.compile(r"-(?:[1-9][0-9]{0,18})")
# A marker at the start of a line is one wherever YAML allows it to stand: text of several lines is indented.
_BETWEEN = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_HIDDEN_BREAK = re.compile("\r|\x85|\u2028|\u2029".encode())
_COMMENTS = re.compile(rb"(?:#[^\n]*\n)*")


class PipelineError(UsageError):
    """What should be a compiled pipeline is none, or holds what cannot be guarded."""

    code = "PIPELINE_MALFORMED"


@dataclass
class Source:
    """A text in parts.

    Attributes:
        documents: Its documents, none of them empty.
        comments: The comment lines before the first one, in which the compiler says what the pipeline takes.
    """

    documents: list[Any]
    comments: bytes = field(default=b"")


def read(data: bytes, what: str) -> Source:
    """Read an untrusted compiled pipeline, YAML or JSON.

    Args:
        data: UTF-8 encoded text.
        what: Name of the text for messages.

    Raises:
        PipelineError: Too long or deep, not YAML, references, duplicate keys, or words that mean different things to
            different readers. Names the line.
    """
    if len(data) > MAX_PIPELINE:
        raise PipelineError(f"{what} has more than {MAX_PIPELINE} bytes.")
    try:
        if data.lstrip()[:1] == b"{":
            return Source([strictjson.loads(data, limit=MAX_PIPELINE, what=what)])
        comments = b"".join(_COMMENTS.findall(data)[:1])
        if _HIDDEN_BREAK.search(comments):
            # To YAML 1.1 a line ends there, and what follows is no comment.
            comments = b""
        parts = _BETWEEN.split(data, maxsplit=MAX_DOCUMENTS)
        if len(parts) > MAX_DOCUMENTS:
            raise PipelineError(f"{what} holds more than {MAX_DOCUMENTS} documents.")
        documents = []
        for number, part in enumerate(parts, 1):
            named = f"{what} (document {number})" if number > 1 else what
            value, _ = strictyaml.loads(part, limit=MAX_PIPELINE, what=named, scalar=_scalar, depth=MAX_DEPTH)
            if value is not None:
                documents.append(value)
    except EvidenceError as error:
        raise PipelineError(error.message) from None
    return Source(documents, comments)


def write(source: Source) -> bytes:
    """Return the text: sorted keys, no references, as the compiler lays it out."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return source.comments + str(yaml.emit(_events(yaml, source.documents), Dumper=dumper)).encode("utf-8")


def plain(value: Any, what: str, depth: int = 0) -> Any:
    """Return a copy of a document that holds nothing but what JSON knows.

    Raises:
        PipelineError: Other types, names that are no text, numbers that are none, or more than 64 levels.
    """
    if depth > MAX_DEPTH:
        raise PipelineError(f"{what} is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise PipelineError(f"{what} has the name {printable(name, 60)!r}, which is no text.")
        return {name: plain(item, what, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, what, depth + 1) for item in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise PipelineError(f"{what} holds {printable(value, 60)!r}, which is nothing that JSON knows; quote it.")


def _scalar(text: str, tag: str, plainly: bool, line: int, what: str) -> Any:
    if tag == "null" and text in ("", "~", "null"):
        return None
    if tag == "float" and _NUMBER.fullmatch(text):
        return float(text)
    if tag == "int" and _INTEGER.fullmatch(text):
        return int(text)
    if tag == "timestamp" and plainly:
        raise EvidenceError(f"{what}: {printable(text, 40)!r} is a date to some readers; quote it (line {line}).")
    return strictyaml.unambiguous(text, tag, plainly, line, what)


def _events(yaml: Any, documents: list[Any]) -> Iterator[Any]:
    # The library's own way from values to events costs five times as much: it asks for each scalar anew what it looks
    # like, and a pipeline says the same few words over and over.
    resolve, node = yaml.resolver.Resolver().resolve, yaml.ScalarNode
    styles: dict[str, tuple[bool, bool]] = {}

    def scalar(value: Any) -> Any:
        if isinstance(value, str):
            style = styles.get(value)
            if style is None:
                is_text = resolve(node, value, (True, False)) == _STR
                style = styles[value] = (is_text and not (value[:1] in _NUMBERS and _is_other(value)), True)
            return yaml.ScalarEvent(None, None, style, value)
        return yaml.ScalarEvent(None, None, (True, False), _word(value))

    def events(value: Any) -> Iterator[Any]:
        if isinstance(value, dict):
            yield yaml.MappingStartEvent(None, None, True, flow_style=not value)
            for name in sorted(value):
                yield scalar(name)
                yield from events(value[name])
            yield yaml.MappingEndEvent()
        elif isinstance(value, list):
            yield yaml.SequenceStartEvent(None, None, True, flow_style=not value)
            for item in value:
                yield from events(item)
            yield yaml.SequenceEndEvent()
        else:
            yield scalar(value)

    yield yaml.StreamStartEvent()
    for index, document in enumerate(documents):
        yield yaml.DocumentStartEvent(explicit=index > 0)
        yield from events(document)
        yield yaml.DocumentEndEvent()
    yield yaml.StreamEndEvent()


def _word(value: float | bool | None) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    # To YAML 1.1 a float has a point.
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _is_other(text: str) -> bool:
    """Tell whether YAML 1.2 reads a plain word as anything but text."""
    try:
        return not isinstance(strictyaml.core(text, "", True, 0, ""), str)
    except EvidenceError:
        return True
