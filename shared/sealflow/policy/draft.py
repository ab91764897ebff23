"""Drafts: policies as people write them, in YAML or JSON, with the line of every field.

YAML is read strictly: no references, no duplicate keys, no depth, and no guessing at dates.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import PolicyError, SealflowError
from sealflow.findings import printable
from sealflow.keys import load_public_key
from sealflow.policy.document import MAX_DOCUMENT, TrustPolicy, Waiver, parse_policy, parse_waiver

_MAX_DEPTH: Final = 24
_MAX_EVENTS: Final = 2_000_000
_PUBLIC_KEY: Final = "-----BEGIN "

Lines = dict[tuple[Any, ...], int]


@dataclass(frozen=True)
class Draft:
    """A draft as it was read.

    Attributes:
        body: The document as JSON values.
        lines: Path of names and indices → line, from 1; sequences and mappings have the line of their first entry.
        where: Name for messages.
    """

    body: dict[str, Any]
    lines: Lines
    where: str

    def line(self, place: tuple[Any, ...]) -> int:
        """Return the line of a field, or of what comes closest around it."""
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 1)

    @property
    def json(self) -> bytes:
        """The document as canonical JSON: what is signed."""
        return strictjson.dumps(self.body)

    def policy(self) -> TrustPolicy:
        """Return the policy.

        Raises:
            PolicyError: The document is no policy; the message names the line.
        """
        with self._located():
            return parse_policy(self.json, self.where)

    def waiver(self) -> Waiver:
        """Return the waiver.

        Raises:
            PolicyError: The document is no waiver; the message names the line.
        """
        with self._located():
            return parse_waiver(self.json, self.where)

    @contextlib.contextmanager
    def _located(self) -> Iterator[None]:
        try:
            yield
        except PolicyError as error:
            line = self.line(error.problems[0][0])
            raise PolicyError(
                f"{error.message} (line {line})", code=error.code, next_step=error.next_step, problems=error.problems
            ) from None


def read_draft(path: str) -> Draft:
    """Read a draft from a local file and put the keys that it names into it.

    Keys and roots named by relative paths are looked for beside the draft.

    Raises:
        PolicyError: Not YAML or JSON of the strict kind, too large, or a key cannot be read; names the line.
        UsageError: There is no such file.
    """
    from sealflow.errors import EvidenceError, UsageError
    from sealflow.storage.local import LocalStorage, to_path

    try:
        data = LocalStorage().get(path, MAX_DOCUMENT)
    except EvidenceError as error:
        raise PolicyError(error.message) from None
    if data is None:
        raise UsageError(f"There is no policy at {printable(path)}.", code="POLICY_MISSING")
    draft = parse_draft(data, printable(path))
    inline_keys(draft, os.path.dirname(to_path(path)))
    return draft


def parse_draft(data: bytes, where: str) -> Draft:
    """Read a draft from bytes.

    Raises:
        PolicyError: Not YAML or JSON of the strict kind; names the line.
    """
    if len(data) > MAX_DOCUMENT:
        raise PolicyError(f"{where} has more than {MAX_DOCUMENT} bytes.")
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = data.decode("utf-8")
        _check_events(yaml.parse(text, Loader=loader), where)
        root = yaml.compose(text, Loader=loader)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        problem = printable(getattr(error, "problem", None) or error, 200)
        raise PolicyError(f"{where} is not YAML: {problem}{line}.") from None
    lines: Lines = {}
    body = _value(root, (), lines, where, yaml) if root is not None else None
    if not isinstance(body, dict):
        raise PolicyError(f"{where} is no mapping.")
    return Draft(body, lines, where)


def _check_events(events: Any, where: str) -> None:
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
            raise PolicyError(f"{where} uses a YAML reference; write the value out{line}.")
        if depth > _MAX_DEPTH or count > _MAX_EVENTS:
            raise PolicyError(f"{where} is nested too deep or holds too much{line}.")
        if documents > 1:
            raise PolicyError(f"{where} holds more than one document{line}.")


def _value(node: Any, path: tuple[Any, ...], lines: Lines, where: str, yaml: Any) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines, where, yaml) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise PolicyError(f"{where} has a field whose name is no text (line {line}).")
            name = str(key.value)
            if name in found:
                at = key.start_mark.line + 1
                raise PolicyError(f"{where} has the field {printable(name, 60)!r} twice (line {at}).")
            inner = (*path, name)
            lines[inner] = key.start_mark.line + 1
            found[name] = _value(item, inner, lines, where, yaml)
        return found
    return _scalar(node, line, where)


_BOOLEANS: Final = {"true": True, "false": False}


def _scalar(node: Any, line: int, where: str) -> Any:
    tag = node.tag.rpartition(":")[2]
    text = str(node.value)
    if tag == "null":
        raise PolicyError(f"{where} has a field without a value (line {line}).")
    if tag == "bool":
        # YAML 1.1 also takes yes, no, on and off; who writes these means a word as often as not.
        if text.lower() not in _BOOLEANS:
            raise PolicyError(f"{where}: write true or false, or quote {text!r} (line {line}).")
        return _BOOLEANS[text.lower()]
    if tag == "int":
        if not text.isdecimal():
            raise PolicyError(f"{where}: {printable(text, 40)!r} is no plain whole number; quote it (line {line}).")
        return int(text)
    if tag in ("str", "timestamp"):
        return text
    raise PolicyError(
        f"{where}: {printable(text, 40)!r} is neither text, a whole number nor a truth value (line {line})."
    )


def inline_keys(draft: Draft, folder: str) -> None:
    """Replace the places of keys and roots in a draft by what lies there.

    Raises:
        PolicyError: One cannot be read; names the line.
    """
    identities = draft.body.get("identities")
    for name, item in identities.items() if isinstance(identities, dict) else ():
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("key"), str):
            item["key"] = _key(draft, ("identities", name, "key"), item["key"], folder)
        certificate = item.get("certificate")
        if isinstance(certificate, dict) and isinstance(certificate.get("roots"), list):
            place = ("identities", name, "certificate", "roots")
            certificate["roots"] = [_roots(draft, place, text, folder) for text in certificate["roots"]]
    delegations = draft.body.get("delegations")
    for index, item in enumerate(delegations if isinstance(delegations, list) else ()):
        if isinstance(item, dict) and isinstance(item.get("key"), str):
            item["key"] = _key(draft, ("delegations", index, "key"), item["key"], folder)


def _key(draft: Draft, place: tuple[Any, ...], source: str, folder: str) -> str:
    try:
        return load_public_key(_found(source, folder)).pem.decode("ascii")
    except SealflowError as error:
        raise _unreadable(draft, place, error) from None


def _roots(draft: Draft, place: tuple[Any, ...], source: Any, folder: str) -> Any:
    if not isinstance(source, str) or source.startswith(_PUBLIC_KEY):
        return source
    from sealflow.keys.certificate import load_certificates, to_pem

    try:
        return "".join(to_pem(item) for item in load_certificates(_found(source, folder)))
    except SealflowError as error:
        raise _unreadable(draft, place, error) from None


def _found(source: str, folder: str) -> str:
    plain = ":" not in source and "\n" not in source
    return os.path.join(folder, source) if plain and not os.path.isabs(source) else source


def _unreadable(draft: Draft, place: tuple[Any, ...], error: SealflowError) -> PolicyError:
    return PolicyError(
        f"{draft.where}: {error.message} (line {draft.line(place)})",
        next_step=error.next_step,
        problems=[(place, error.message)],
    )
