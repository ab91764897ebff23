"""The window in which one key replaces another, written into the draft of a policy.

A new identity is put beside the old one, the old one gets an end, and every list in which any one suffices names both.
The text is changed only where it must be, so that comments and layout stay; what comes out is read again and compared
with what was meant, and nothing else is handed back.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import PolicyError, SealflowError, UsageError
from sealflow.findings import printable
from sealflow.keys import PublicKey
from sealflow.policy.draft import Draft, parse_draft

#: Members of an identity that its successor takes over.
_TAKEN_OVER: Final = ("producers", "builders", "verifier")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})

_Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Window:
    """A window, opened.

    Attributes:
        text: The draft's new text; the old one where all of it was there already.
        identities: Name of each old identity to its successor's.
        notes: What an admin has to decide.
        changed: Whether the text is another one.
    """

    text: str
    identities: Mapping[str, str]
    notes: tuple[str, ...]
    changed: bool


def open_window(
    text: str,
    draft: Draft,
    *,
    old: PublicKey,
    new: PublicKey,
    start: datetime.datetime,
    end: datetime.datetime,
    name: str | None = None,
) -> Window:
    """Return a draft in which a new key counts from ``start`` and an old one beside it until ``end``.

    What is there already stays, so that a second run changes nothing: a successor, and an end that is earlier.

    Args:
        text: The draft's text.
        draft: The same, read, with its keys in it.
        old: The key that is replaced.
        new: The key that replaces it.
        start: When the new key begins to count, aware.
        end: When the old key ceases to, aware.
        name: Name of the new identity; the old one's with the date by default.

    Raises:
        UsageError: ``KEY_MISSING``: no identity of the draft has the old key.
        PolicyError: The draft is no policy, or its layout cannot be changed safely.
    """
    document = draft.policy()
    raw = parse_draft(text.encode("utf-8"), draft.where)
    known = {item: body for item, body in _mapping(draft.body.get("identities")).items() if isinstance(body, dict)}
    olds = [item for item, body in known.items() if body.get("key") == old.pem.decode("ascii")]
    if not olds:
        raise UsageError(
            f"No identity of {draft.where} has the key sha256:{old.hint[:12]}….",
            code="KEY_MISSING",
            next_step="Name the public key that is replaced, as the draft knows it.",
        )
    if name is not None and len(olds) > 1:
        raise UsageError(f"{len(olds)} identities have the old key; leave the new name out.")
    body = copy.deepcopy(raw.body)
    pairs = {item: _successor(item, known, new) or name or f"{item}-{start:%Y-%m-%d}" for item in olds}
    edits: list[tuple[str, _Path, Any]] = []
    for item, successor in pairs.items():
        if successor not in known:
            taken = {field: known[item][field] for field in _TAKEN_OVER if field in known[item]}
            made = {"key": new.pem.decode("ascii"), **taken, "valid_from": _text(start)}
            edits.append(("before", ("identities", item), (successor, made)))
            body["identities"] = {**body["identities"], successor: made}
        elif known[successor].get("key") != new.pem.decode("ascii"):
            raise UsageError(f"The draft has another identity of the name {printable(successor)}; choose a name.")
        there = document.identities[item].expires
        if there is None or there > end:
            edits.append(("set", ("identities", item, "expires"), _text(end)))
            body["identities"][item]["expires"] = _text(end)
    notes = []
    for (place, names, several), (_, there_before, _) in zip(_lists(body), _lists(raw.body), strict=True):
        for item, successor in pairs.items():
            if item not in names or successor in names:
                continue
            if several:
                # Two keys of one holder would count as two holders.
                notes.append(
                    f"{_shown(place)} counts several signers, so {successor} was not put beside {item}. Name it in "
                    "its place once the artifacts are signed with both keys."
                )
                continue
            edits.append(("after", (*place, there_before.index(item)), successor))
            names.insert(names.index(item) + 1, successor)
    if edits and isinstance(body.get("version"), int):
        body["version"] += 1
        edits.append(("set", ("version",), body["version"]))
    made_text = _apply(text, raw, edits) if edits else text
    _demand_meant(made_text, body, draft.where)
    return Window(made_text, pairs, tuple(notes), bool(edits))


def _successor(item: str, known: Mapping[str, Any], new: PublicKey) -> str | None:
    for name, body in known.items():
        same = all(body.get(field) == known[item].get(field) for field in _TAKEN_OVER)
        if same and body.get("key") == new.pem.decode("ascii"):
            return name
    return None


def _lists(body: Mapping[str, Any]) -> Iterator[tuple[_Path, list[Any], bool]]:
    """Yield the lists of a document that name identities, and whether more than any one of each must have signed."""
    rules = body.get("rules")
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        require = _mapping(_mapping(rule).get("require"))
        place: _Path = ("rules", index, "require")
        demand = _mapping(require.get("identities"))
        for name, several in (("any_of", False), ("all_of", True), ("of", demand.get("at_least") != 1)):
            if isinstance(names := demand.get(name), list):
                yield (*place, "identities", name), names, several
        for field, name in (("lineage", "roots"), ("reuse_verdict", "verifiers")):
            if isinstance(names := _mapping(require.get(field)).get(name), list):
                yield (*place, field, name), names, False


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _apply(text: str, raw: Draft, edits: list[tuple[str, _Path, Any]]) -> str:
    import yaml

    # The parser written in Python: it says where each thing stands, in characters.
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    changes: list[tuple[int, int, str]] = []
    for kind, path, value in edits:
        if kind == "set" and (found := _find(root, path)) is not None:
            node = found[1]
            quoted = isinstance(value, str) and (node.style is not None or found[2])
            changes.append((node.start_mark.index, node.end_mark.index, json.dumps(value) if quoted else str(value)))
            continue
        if kind == "set":
            # A field that is not there goes before the first of its neighbours.
            found = _find(root, path[:-1])
            assert found is not None  # noqa: S101  (it was found in the document)
            first, flow = found[1].value[0][0], bool(found[1].flow_style)
            changes.append(_insertion(first, {path[-1]: value}, flow))
            continue
        found = _find(root, path)
        assert found is not None  # noqa: S101  (it was found in the document)
        key, node, flow = found
        if kind == "before":
            successor, made = value
            changes.append(_insertion(key, {successor: made}, flow))
        elif flow:
            word = json.dumps(value) if node.style else _word(value)
            changes.append((node.end_mark.index, node.end_mark.index, f", {word}"))
        else:
            # Under the dash of its neighbour.
            line = text.rfind("\n", 0, node.start_mark.index) + 1
            indent = text[line : node.start_mark.index].rpartition("-")[0]
            changes.append((node.end_mark.index, node.end_mark.index, f"\n{indent}- {_word(value)}"))
    for start, end, inserted in sorted(changes, key=lambda item: item[0], reverse=True):
        text = text[:start] + inserted + text[end:]
    return text


def _find(root: Any, path: _Path) -> tuple[Any, Any, bool] | None:
    """Return the key's node, the value's, and whether they stand in flow style; a list's items are their own keys."""
    key, node, flow = None, root, False
    for part in path:
        flow = bool(node.flow_style)
        if isinstance(part, int):
            key = node = node.value[part]
            continue
        found = next((pair for pair in node.value if pair[0].value == part), None)
        if found is None:
            return None
        key, node = found
    return key, node, flow


def _insertion(before: Any, fields: Mapping[Any, Any], flow: bool) -> tuple[int, int, str]:
    index, column = before.start_mark.index, before.start_mark.column
    if flow:
        return index, index, "".join(f"{json.dumps(name)}: {json.dumps(value)}, " for name, value in fields.items())
    lines = []
    for name, value in fields.items():
        if isinstance(value, dict):
            lines.append(f"{_word(name)}:")
            lines += [f"  {item}: {json.dumps(inner)}" for item, inner in value.items()]
        else:
            lines.append(f"{_word(name)}: {_word(value)}")
    return index, index, "".join(f"{line}\n{' ' * column}" for line in lines)


def _word(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text)


def _demand_meant(text: str, body: Mapping[str, Any], where: str) -> None:
    read: Draft | None = None
    with contextlib.suppress(SealflowError):
        read = parse_draft(text.encode("utf-8"), where)
    if read is None or strictjson.dumps(read.body) != strictjson.dumps(body):
        raise PolicyError(
            f"The layout of {where} cannot be changed safely.",
            next_step="Write the document in plain block style, one field a line, or add the identity by hand.",
        )
    read.policy()


def _text(when: datetime.datetime) -> str:
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(place: _Path) -> str:
    from sealflow.policy.document import place as text

    return text(place)
