"""Init: a first policy, made from what the audit log says that happened.

What it writes refuses nothing: every rule is audited until the admin has read it and says otherwise.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow import strictjson
from sealflow.audit import spool
from sealflow.audit.event import MAX_EVENT, utc_now
from sealflow.errors import EvidenceError, UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.keys import load_public_key
from sealflow.policy.globs import includes
from sealflow.storage.local import to_path

#: From this many folders of one kind below a folder, the rule is about that folder.
_ALIKE: Final = 3
_MOST_FOLDERS: Final = 2000


@dataclass
class _Folder:
    """What was seen in one folder."""

    #: Fingerprint → how often evidence by it was made or accepted.
    signers: Counter[str] = field(default_factory=Counter)
    producers: set[str] = field(default_factory=set)
    consumers: set[str] = field(default_factory=set)
    signed: int = 0
    verified: int = 0
    last: str = ""

    @property
    def profile(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        return frozenset(self.signers), frozenset(self.producers), frozenset(self.consumers)

    def take(self, other: _Folder) -> None:
        self.signers += other.signers
        self.producers |= other.producers
        self.consumers |= other.consumers
        self.signed += other.signed
        self.verified += other.verified
        self.last = max(self.last, other.last)


@dataclass(frozen=True)
class FirstPolicy:
    """A generated draft.

    Attributes:
        text: The draft, YAML with comments.
        rules: How many rules it has.
        unknown: Fingerprints of keys that were seen and that no given key has.
        unread: How many lines were no events.
    """

    text: str
    rules: int
    unknown: tuple[str, ...]
    unread: int

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "policy": self.text,
            "rules": self.rules,
            "unknown_keys": [f"sha256:{item}" for item in self.unknown],
            "unread_lines": self.unread,
        }


@dataclass(frozen=True)
class _Known:
    name: str
    source: str
    hint: str


def first_policy(
    log: str | None, keys: Sequence[str] = (), *, folder: str = "", now: datetime.datetime | None = None
) -> FirstPolicy:
    """Make a first policy.

    Args:
        log: An audit spool, or the JSON lines of `sealflow audit export`; without one the draft is a template.
        keys: Public keys of those who sign, paths or URIs; matched by fingerprint.
        folder: Where the draft will lie; keys below it are named relative to it.
        now: The time, aware.

    Raises:
        UsageError: There is no such log or key.
        UnavailableError: The log cannot be read.
    """
    now = now or utc_now()
    known = _known(keys, folder or os.getcwd())
    speaks: dict[str, set[str]] = {}
    seen: dict[str, _Folder] = {}
    unread = _read(log, seen, speaks) if log is not None else 0
    merged = _merged(seen)
    used = {hint for item in merged.values() for hint in item.signers}
    unknown = tuple(sorted(used - {item.hint for item in known}))
    lines = [*_head(log, unread, now), *_identities(known, speaks, unknown, merged, observed=log is not None)]
    rules, count = _rules(merged, known, speaks)
    return FirstPolicy("\n".join([*lines, *rules, ""]), count, unknown, unread)


# --- Reading what happened ---


def _read(path: str, seen: dict[str, _Folder], speaks: dict[str, set[str]]) -> int:
    unread = 0
    for data in _spooled(to_path(path)) if os.path.isdir(to_path(path)) else _lines(path):
        try:
            if data is None:
                raise ValueError
            body = strictjson.loads(data, limit=2 * MAX_EVENT, what="The event")
            # An export has each event beside its place in the log.
            _take(body.get("event", body), seen, speaks)
        except (EvidenceError, KeyError, TypeError, AttributeError, ValueError):
            unread += 1
    return unread


def _spooled(folder: str) -> Iterator[bytes | None]:
    """Yield the events in a spool, and nothing for what was altered."""
    for writer in spool.writers(folder):
        with spool.opened(folder, writer) as chain:
            if chain is not None:
                yield from (entry.event for entry in chain.entries)
                if chain.problem is not None:
                    yield None


def _lines(path: str) -> Iterator[bytes]:
    try:
        with open(to_path(path), "rb") as file:
            yield from iter(lambda: file.readline(2 * MAX_EVENT), b"")
    except FileNotFoundError:
        raise UsageError(f"There are no audit events at {printable(path)}.") from None
    except OSError as error:
        raise UnavailableError(f"The audit events {printable(path)} cannot be read: {error.strerror}.") from None


def _take(event: Mapping[str, Any], seen: dict[str, _Folder], speaks: dict[str, set[str]]) -> None:
    if event["sealflow_audit"] != 1:
        raise ValueError
    if event["phase"] != "outcome" or event["action"] not in ("sign", "verify"):
        return
    actor, artifact, when = str(event["run"]["producer"]), str(event["artifact"]), str(event["time"])
    if event["action"] == "sign":
        if event["outcome"] != "done":
            return
        keys, producer = [str(event["key"])], actor
    else:
        # Only what a verification accepted: anybody can write the rest.
        if event["outcome"] != "passed":
            return
        keys, producer = [str(item) for item in event.get("signers", ())], str(event.get("producer", ""))
    hints = [item.removeprefix("sha256:") for item in keys if re.fullmatch(r"sha256:[0-9a-f]{64}", item)]
    if not hints or len(seen) >= _MOST_FOLDERS:
        return
    place = seen.setdefault(artifact.rpartition("/")[0], _Folder())
    place.signers.update(hints)
    place.last = max(place.last, when[:10])
    if producer:
        place.producers.add(producer)
        for hint in hints:
            speaks.setdefault(hint, set()).add(producer)
    if event["action"] == "sign":
        place.signed += 1
    else:
        place.verified += 1
        place.consumers.add(actor)


def _merged(seen: Mapping[str, _Folder]) -> dict[str, _Folder]:
    """Put folders of one kind together in the one that holds them: versions and dates are no rules."""
    found = dict(seen)
    changed = True
    while changed:
        changed = False
        groups: dict[str, list[str]] = {}
        for name in found:
            above = name.rpartition("/")[0]
            # Never above a bucket or a first folder.
            if above.partition("://")[2].strip("/"):
                groups.setdefault(above, []).append(name)
        for above, names in sorted(groups.items()):
            others = [name for name in found if name == above or name.startswith(above + "/")]
            if len(names) >= _ALIKE and len({found[name].profile for name in others}) == 1:
                whole = _Folder()
                for name in others:
                    whole.take(found.pop(name))
                found[above] = whole
                changed = True
                break
    return found


# --- Writing it down ---


def _known(keys: Sequence[str], folder: str) -> list[_Known]:
    found: list[_Known] = []
    for source in keys:
        hint = load_public_key(source).hint
        if any(item.hint == hint for item in found):
            continue
        base = os.path.basename(source.partition("?")[0].rstrip("/")) or "key"
        plain = re.sub(r"(\.pem|\.pub|\.key|[-_.]?public)+$", "", base)
        found.append(_Known(_unique(_slug(plain) or "key", {item.name for item in found}), _near(source, folder), hint))
    return found


def _near(source: str, folder: str) -> str:
    if ":" in source or source.lstrip().startswith("-----BEGIN"):
        return source
    path = os.path.relpath(source, folder)
    return os.path.abspath(source) if path.startswith("..") else path


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:80]


def _unique(name: str, taken: Iterable[str]) -> str:
    number, found = 1, name
    while found in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(_quoted(text) for text in sorted(texts)) + "]"


def _head(log: str | None, unread: int, now: datetime.datetime) -> list[str]:
    expires = (now + datetime.timedelta(days=365)).strftime("%Y-%m-%dT00:00:00Z")
    source = f"# Made from {printable(log)}" if log is not None else "# A template"
    lines = [f"{source} on {now:%Y-%m-%d}. It refuses nothing yet: read it, then change `level` rule by rule."]
    if unread:
        lines.append(f"# {unread} lines of the log could not be read.")
    return [
        *lines,
        "# sealflow policy check THIS_FILE; then sealflow policy sign THIS_FILE --signer … --output …",
        "apiVersion: sealflow/v1",
        "# Raise it with every change; nobody who has seen a version takes a lower one.",
        "version: 1",
        "# From then on all managed work stops, so sign it again in time; warnings begin 30 days before.",
        f"expires: {expires}",
        "# How long the last good policy stands in when this one is out of reach or expired.",
        "grace_hours: 24",
    ]


def _identities(
    known: Sequence[_Known],
    speaks: Mapping[str, set[str]],
    unknown: Sequence[str],
    merged: Mapping[str, _Folder],
    *,
    observed: bool,
) -> list[str]:
    lines: list[str] = []
    for hint in unknown:
        places = sorted(name for name, item in merged.items() if hint in item.signers)
        more = f" and {len(places) - 3} more folders" if len(places) > 3 else ""
        lines += [
            f"  # Seen and not known: the key sha256:{hint}",
            f"  #   signed in {', '.join(printable(_shown(name)) for name in places[:3])}{more}",
            f"  #   for {printable(', '.join(sorted(speaks.get(hint, ()))) or 'nobody named')}.",
            "  #   Find out whose key it is. If it may sign, run this again with its public key (--key FILE).",
        ]
    active: list[str] = []
    for item in known:
        producers = speaks.get(item.hint, set())
        if observed and not producers and not any(item.hint in found.signers for found in merged.values()):
            lines.append(f"  # {item.name}: {_quoted(item.source)} was given, and nothing that it signed was seen.")
            continue
        active += [f"  {item.name}:", f"    # sha256:{item.hint}", f"    key: {_quoted(item.source)}"]
        patterns = _patterns(producers)
        if patterns:
            active += ["    # The tasks that were seen to sign with it; for no other may it speak.", patterns]
        else:
            active.append('    # producers: ["airflow:<dag>/<task>"]  for which tasks it may speak; absent: for all')
    if active:
        return ["identities:", *lines, *active]
    return [
        "# Who may sign. Each needs a key of its own; `sealflow keys generate` makes one.",
        "# identities:",
        *lines,
        "#   trainer:",
        "#     key: trainer.pem.pub",
        '#     producers: ["airflow:train/fit"]',
    ]


def _patterns(producers: set[str]) -> str:
    return f"    producers: {_list(producers)}" if _listable(producers) else ""


def _listable(texts: set[str]) -> bool:
    """Tell whether names can stand as patterns: a star in one would mean more than was seen."""
    return 0 < len(texts) <= 100 and all("*" not in text and printable(text, 2000) == text for text in texts)


def _shown(folder: str) -> str:
    if folder.startswith("file://"):
        path = to_path(folder) if folder != "file://" else "/"
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return folder


def _place(folder: str, others: Iterable[str]) -> str | None:
    """Return the pattern for a folder, ``None`` where none can name it."""
    text = _shown(folder).rstrip("/")
    if "*" in text or "\ufffd" in text or printable(text, len(text)) != text or "//" in text.partition("://")[2]:
        return None
    deeper = any(other.startswith(folder + "/") for other in others if other != folder)
    return f"{text}/*" if deeper else f"{text}/**"


def _rules(
    merged: Mapping[str, _Folder], known: Sequence[_Known], speaks: Mapping[str, set[str]]
) -> tuple[list[str], int]:
    names: set[str] = set()
    active: list[str] = []
    idle: list[str] = []
    for folder, item in sorted(merged.items()):
        place = _place(folder, merged)
        if place is None:
            idle.append(f"  # {_quoted(printable(_shown(folder)))} holds characters that no pattern can name; no rule.")
            continue
        signers = [one for one in known if one.hint in item.signers]
        seen = f"{item.verified} accepted by verifications, {item.signed} signed, the last on {item.last}"
        if not signers:
            idle += [f"  # {_quoted(place)}: {seen}, by keys that are not known (see above); no rule yet."]
            continue
        name = _unique(_slug("-".join(_shown(folder).rstrip("/").split("/")[-2:])) or "all", names)
        names.add(name)
        lines = [f"  # {seen}.", f"  - name: {name}", "    scope:"]
        if place.endswith("/*"):
            lines.append("      # One level only: what lies deeper has rules of its own.")
        lines += [f"      artifact: [{_quoted(place)}]", "    require:"]
        strangers = len(item.signers) - len(signers)
        if strangers:
            lines.append(
                f"      # {strangers} more signed here and are not known (see above); enforced, they are refused."
            )
        lines += [
            "      # Any one of those whose signatures were seen here.",
            f"      identities: {{any_of: {_list(one.name for one in signers)}}}",
            *_producers(item, signers, speaks),
        ]
        if _listable(item.consumers):
            lines += [
                "      # The tasks that were seen to use it; enforced, others are refused. Remove it to let all load.",
                f"      loaders: {_list(item.consumers)}",
            ]
        lines += [
            "    # Says in every verdict what would be refused (POLICY_AUDIT). When that is silent: level: enforce",
            "    level: audit",
        ]
        active += lines
    if active:
        return ["rules:", *idle, *active], len(names)
    template = [
        "# rules:",
        *idle,
        "#   - name: models",
        "#     scope:",
        '#       artifact: ["s3://models/**"]  # all below; /data/models/** for paths',
        "#     require:",
        "#       identities: {any_of: [trainer]}  # who may sign",
        '#       producers: ["airflow:train/fit"]  # who must have made it, proved by a key of its own',
        "#     level: audit  # enforce, when the warnings are gone",
    ]
    return ["# What must be proved, by folder.", *template], 0


def _producers(item: _Folder, signers: Sequence[_Known], speaks: Mapping[str, set[str]]) -> list[str]:
    """Return the demand on producers, where the keys can prove it."""
    wanted = sorted(item.producers)
    if not _listable(item.producers):
        return []
    shared = [
        one.name
        for one in signers
        if not speaks.get(one.hint) or not all(any(includes(w, text) for w in wanted) for text in speaks[one.hint])
    ]
    if len(shared) == len(signers):
        return [
            f"      # Made by {', '.join(wanted)}. Not demanded: {', '.join(shared)} signs for others too, so its key",
            "      # proves none of them. Give each producer a key of its own, then demand:",
            f"      # producers: {_list(wanted)}",
        ]
    lines = ["      # Who was seen to make it."]
    if shared:
        lines.append(f"      # {', '.join(shared)} signs for others too, so its signatures alone prove nothing here.")
    return [*lines, f"      producers: {_list(wanted)}"]
