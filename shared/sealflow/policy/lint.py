"""Lint: what is wrong with a draft of a policy or waiver, all of it at once, each with its line and what to write.

Errors are what would be refused later, or would silently protect nothing; warnings are what an admin should have meant.
"""

from __future__ import annotations

import datetime
import difflib
import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal

from sealflow import strictjson
from sealflow.errors import EvidenceError, PolicyError, SealflowError, UsageError
from sealflow.findings import printable
from sealflow.policy import document as forms
from sealflow.policy.compose import CompiledPolicy, CompiledRule, can_meet
from sealflow.policy.document import TrustPolicy, Waiver, parse_policy, parse_waiver
from sealflow.policy.draft import Draft, inline_keys, parse_draft
from sealflow.policy.form import Form, replaced
from sealflow.policy.globs import NAME_PREFIX, includes, literal, overlaps, place_pattern
from sealflow.policy.revocations import RevocationList, parse_revocations
from sealflow.storage.resolve import ALIASES, S3_SCHEMES

Severity = Literal["error", "warning"]
Place = tuple[Any, ...]

#: Every id that lint reports, and what it means. ``docs/reference/policy.md`` holds them as a table; a test compares.
CHECKS: Final[dict[str, str]] = {
    "DRAFT_UNREADABLE": "not YAML or JSON of the strict kind: references, duplicate fields, several documents",
    "VERSION_TOO_NEW": "the `apiVersion` is newer than this release",
    "FIELD_MISSING": "a field that must be there is not",
    "FIELD_UNKNOWN": "a field that this form does not have, mostly misspelt",
    "FIELD_MALFORMED": "a value of the wrong kind, or fields that do not go together",
    "FIELD_NOT_LANDED": "a field whose capability this release does not have; it is refused, never ignored",
    "KEY_UNREADABLE": "a key or root that the draft names cannot be read",
    "NAME_TWICE": "two rules of one name, or two delegations of one team",
    "POLICY_EXPIRED": "the policy or list has expired; nobody would take it",
    "POLICY_EXPIRES_SOON": "the policy or list expires within 30 days",
    "POLICY_NO_GRACE": "no `grace_hours`: an outage of the policy's place stops all managed work at once",
    "POLICY_EMPTY": "there is no rule, so nothing is managed",
    "IDENTITY_UNKNOWN": "a rule names an identity that the policy does not have",
    "IDENTITY_UNUSED": "no rule names the identity",
    "IDENTITY_ANY_PRODUCER": "the identity has no `producers`: whoever holds its key may speak for every task",
    "IDENTITY_EXPIRED": "the identity has expired; nothing that it signed counts",
    "IDENTITY_EXPIRES_SOON": "the identity expires within 30 days",
    "VERIFIER_MISUSED": "a verifier is named as a signer of artifacts, or a signer as a verifier",
    "VERIFIER_UNUSED": "no rule reuses verdicts of the verifier",
    "VERIFIER_MISSING": "a rule reuses verdicts, and the policy has no verifier",
    "RECIPIENT_UNKNOWN": "a rule names a recipient that the policy does not have",
    "RECIPIENT_UNUSED": "no rule names the recipient",
    "RECIPIENTS_CLEAR": "a rule says who opens artifacts, and says nothing about those that lie in clear",
    "PATTERN_NO_PLACE": "the pattern can match nothing: its scheme is no storage, or it is no location",
    "PATTERN_LIKE_FOLDER": "the pattern has no wildcard and ends like a folder: what lies below it is not meant",
    "RULE_NEVER_MATCHES": "fields of the scope exclude each other, so the rule holds for no task",
    "RULE_NEVER_PASSES": "no evidence can fulfil the rule: it refuses everything",
    "RULE_NO_IDENTITIES": "the rule names nobody who may sign, so alone it refuses everything",
    "RULE_TWICE": "two rules say the same",
    "RULES_CONTRADICT": "two rules can meet at one artifact, and nobody satisfies both",
    "RULE_OFF_IDLE": "an `off` rule that a stricter rule covers: the strictest level counts, so it exempts nothing",
    "LINEAGE_NO_COMMITS": "a rule asks for signed commits and says not by whom: every call names its own signers",
    "LEVEL_AUDIT": "the rule is only audited: it refuses nothing",
    "LEVEL_RAISED": "an audited rule meets an enforced one; where they meet, both are enforced",
    "KEY_SHARED": "under a `producers` rule: a key that may also speak for other producers proves none of them",
    "PRODUCER_NEVER_WRITTEN": "the pattern fits no producer that any orchestrator writes",
    "DELEGATIONS_OVERLAP": "two teams are given the same artifacts; both policies apply there",
    "SIGNER_SHADOWED": "an earlier entry of `signers` takes in all that this one does",
    "WAIVER_EXPIRED": "the waiver has expired",
    "WAIVER_BROAD": "the waiver's artifacts begin with a wildcard",
}

_SOON: Final = datetime.timedelta(days=30)
_ORCHESTRATORS: Final = ("airflow", "kfp", "python", "cli")
#: Storages of fsspec; whatever else is installed there counts too.
_KNOWN_SCHEMES: Final = frozenset(
    {"abfs", "box", "dbfs", "dropbox", "ftp", "gdrive", "gs", "hdfs", "hf", "lakefs", "memory", "oci", "oss", "sftp"}
    | {"smb", "ssh", "tos", "wandb", "webdav", "webhdfs"}
)
#: Producers as :class:`~sealflow.run_identity.RunIdentity` writes them.
_PRODUCERS: Final = ("airflow:**/**", "kfp:**/**", "python", "cli", "airflow", "kfp")
_MOST_CONTRADICTIONS: Final = 20


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        line: Line in the draft, from 1.
        id: A key of :data:`CHECKS`.
        severity: ``error`` or ``warning``.
        place: The field, such as ``rules[3].scope.dag``; empty for the document.
        message: One sentence.
        suggestion: What to write instead; may be empty.
    """

    line: int
    id: str
    severity: Severity
    place: str
    message: str
    suggestion: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "line": self.line,
            "id": self.id,
            "severity": self.severity,
            "place": self.place,
            "message": self.message,
            "suggestion": self.suggestion,
        }


Document = TrustPolicy | Waiver | RevocationList
_PARSERS: Final[dict[type[Document], Callable[[bytes, str], Document]]] = {
    TrustPolicy: parse_policy,
    Waiver: parse_waiver,
    RevocationList: parse_revocations,
}


@dataclass(frozen=True)
class Linted:
    """What lint found.

    Attributes:
        problems: By line.
        draft: The draft with its keys inlined, where it could be read.
        document: The policy, waiver or list of revocations, where it has the form of one.
    """

    problems: tuple[Problem, ...]
    draft: Draft | None = None
    document: Document | None = field(default=None)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep it from being signed."""
        return tuple(item for item in self.problems if item.severity == "error")


def lint_file(path: str, now: datetime.datetime) -> Linted:
    """Lint a draft; relative keys are looked for beside it.

    Args:
        path: A local file.
        now: The time, aware.

    Raises:
        UsageError: There is no such file.
        UnavailableError: It cannot be read.
    """
    from sealflow.storage.local import LocalStorage, to_path

    try:
        data = LocalStorage().get(path, forms.MAX_DOCUMENT)
    except EvidenceError as error:
        return Linted((Problem(1, "DRAFT_UNREADABLE", "error", "", error.message),))
    if data is None:
        raise UsageError(f"There is no draft at {printable(path)}.", code="POLICY_MISSING")
    return lint(data, printable(path), os.path.dirname(to_path(path)), now)


def lint(data: bytes, where: str, folder: str, now: datetime.datetime) -> Linted:
    """Lint a draft from bytes.

    Args:
        data: YAML or JSON.
        where: Name for messages.
        folder: Where relative keys are looked for.
        now: The time, aware.
    """
    try:
        draft = parse_draft(data, where)
    except PolicyError as error:
        line = re.search(r"\(line (\d+)\)", error.message)
        text = re.sub(r" ?\(line \d+\)", "", error.message)
        quote = re.search(r"quote '(\w+)'", text)
        hint = f'"{quote[1]}"' if quote else ""
        return Linted((Problem(int(line[1]) if line else 1, "DRAFT_UNREADABLE", "error", "", text, hint),))
    if "dsseEnvelope" in draft.body:
        text = "This is signed already; lint looks at drafts."
        return Linted((Problem(1, "DRAFT_UNREADABLE", "error", "", text, f"sealflow policy show {where}"),))
    run = _Lint(draft, now)
    if draft.body.get("kind") == "Waiver":
        document: Document | None = run.waiver()
    elif draft.body.get("kind") == "Revocations":
        document = run.revocations()
    else:
        document = run.policy(folder)
    return Linted(tuple(sorted(dict.fromkeys(run.problems), key=lambda item: item.line)), draft, document)


@dataclass(frozen=True)
class _Named:
    """An identity as it stands in the draft, as far as it has the right form."""

    producers: tuple[str, ...]
    marks: frozenset[str]
    verifier: bool
    expired: bool


class _Lint:
    """One run. Looks at the draft itself, so that one malformed field hides no other problem."""

    def __init__(self, draft: Draft, now: datetime.datetime) -> None:
        self.draft = draft
        self.now = now
        self.problems: list[Problem] = []
        self.identities: dict[str, _Named] = {}

    def say(self, severity: Severity, code: str, where: Place, message: str, suggestion: str = "") -> None:
        self.problems.append(
            Problem(self.draft.line(where), code, severity, forms.place(where), message + ".", suggestion)
        )

    def error(self, code: str, where: Place, message: str, suggestion: str = "") -> None:
        self.say("error", code, where, message, suggestion)

    def warn(self, code: str, where: Place, message: str, suggestion: str = "") -> None:
        self.say("warning", code, where, message, suggestion)

    # --- The kinds of documents ---

    def policy(self, folder: str) -> TrustPolicy | None:
        self._keys(folder)
        body = self.draft.body
        self._lifetime()
        self._identities(_mapping(body.get("identities")))
        rules = [(("rules", index), _mapping(item)) for index, item in _items(body.get("rules"))]
        for where, rule in rules:
            self._rule(where, rule)
        self._repeated(rules)
        if not rules:
            self.warn(
                "POLICY_EMPTY", ("rules",), "There is no rule, so nothing is managed", "add a rule for each folder"
            )
        self._unused(rules)
        self._signers()
        self._delegations()
        found = self._parsed(TrustPolicy)
        assert found is None or isinstance(found, TrustPolicy)  # noqa: S101  (as asked for)
        if found is not None and not any(item.severity == "error" for item in self.problems):
            self._compiled(found)
        return found

    def waiver(self) -> Waiver | None:
        scope = _mapping(self.draft.body.get("scope"))
        self._scope(("scope",), scope)
        for index, text in _texts(scope.get("artifact")):
            if literal(text).rpartition("://")[2] in ("", "/", NAME_PREFIX):
                self.warn(
                    "WAIVER_BROAD",
                    ("scope", "artifact", index),
                    f"{text!r} waives for every bucket or folder",
                    "name the artifact",
                )
        expires = _time(self.draft.body.get("expires"))
        if expires is not None and expires <= self.now:
            self.error("WAIVER_EXPIRED", ("expires",), "The waiver has expired", "write a later time, or a new waiver")
        found = self._parsed(Waiver)
        assert found is None or isinstance(found, Waiver)  # noqa: S101  (as asked for)
        return found

    def revocations(self) -> RevocationList | None:
        self._lifetime("The list")
        found = self._parsed(RevocationList)
        assert found is None or isinstance(found, RevocationList)  # noqa: S101  (as asked for)
        return found

    # --- Form ---

    def _parsed(self, model: type[Document]) -> Document | None:
        try:
            return _PARSERS[model](self.draft.json, self.draft.where)
        except PolicyError as error:
            if error.code == "POLICY_TOO_NEW":
                self.error("VERSION_TOO_NEW", ("apiVersion",), error.problems[0][1], error.next_step)
                return None
            if error.code == "POLICY_FIELD_NOT_LANDED":
                for where, text in error.problems:
                    self.error("FIELD_NOT_LANDED", where, _upper(text), "remove the field")
                self._form(_without_not_landed(self.draft.body), model)
            else:
                self._form(self.draft.body, model, error)
            return None

    def _form(self, body: dict[str, Any], model: type[Document], error: PolicyError | None = None) -> None:
        """Report what the models say, in words, each field once."""
        if error is None:
            try:
                _PARSERS[model](strictjson.dumps(body), self.draft.where)
            except PolicyError as other:
                error = other
            else:
                return
        explained = any(
            item.id in ("IDENTITY_UNKNOWN", "NAME_TWICE", "RECIPIENT_UNKNOWN", "VERIFIER_MISUSED")
            for item in self.problems
        )  # what the document's own last check says again, without a line
        told = {item.place for item in self.problems if item.id == "PATTERN_NO_PLACE"}
        for where, code, text, suggestion in in_words(error.problems, body, model):
            if forms.place(where) not in told if where else not explained:
                self.error(code, where, text, suggestion)

    # --- Parts of a policy ---

    def _keys(self, folder: str) -> None:
        """Put keys into the draft, one by one, so that each unreadable one is told."""
        for table in ("identities", "recipients", "timestamp_authorities"):
            for name, item in _mapping(self.draft.body.get(table)).items():
                part = Draft({table: {name: item}}, self.draft.lines, self.draft.where)
                self._inline(part, folder, (table, name))
        for index, item in _items(self.draft.body.get("delegations")):
            self._inline(Draft({"delegations": [item]}, {}, self.draft.where), folder, ("delegations", index, "key"))

    def _inline(self, part: Draft, folder: str, where: Place) -> None:
        try:
            inline_keys(part, folder)
        except PolicyError as error:
            found = error.problems[0]
            place = (
                found[0] if found[0][:1] in (("identities",), ("recipients",), ("timestamp_authorities",)) else where
            )
            hint = error.next_step or "name a file beside the draft, an absolute path, or a URI"
            self.error("KEY_UNREADABLE", place, found[1].rstrip("."), hint)

    def _lifetime(self, noun: str = "The policy") -> None:
        body = self.draft.body
        expires = _time(body.get("expires"))
        if expires is not None and expires <= self.now:
            self.error("POLICY_EXPIRED", ("expires",), f"{noun} expired on {body['expires']}", "write a later date")
        elif expires is not None and expires - self.now <= _SOON:
            days = max(1, (expires - self.now).days)
            self.warn(
                "POLICY_EXPIRES_SOON",
                ("expires",),
                f"{noun} expires in {_count(days, 'day')}",
                "write a later date",
            )
        if not body.get("grace_hours"):
            self.warn(
                "POLICY_NO_GRACE",
                ("grace_hours",),
                "Without grace_hours an outage of its place stops all managed work at once",
                "grace_hours: 24, and a `state` folder in the admin's channel",
            )

    def _identities(self, listed: Mapping[str, Any]) -> None:
        for name, raw in listed.items():
            item, where = _mapping(raw), ("identities", name)
            expires = _time(item.get("expires"))
            expired = expires is not None and expires <= self.now
            self.identities[name] = _Named(
                tuple(text for _, text in _texts(item.get("producers"))),
                _marks(item),
                item.get("verifier") is True,
                expired,
            )
            if expires is not None and expired:
                text = f"The identity {name} expired on {item['expires']}; nothing that it signed counts"
                self.warn("IDENTITY_EXPIRED", (*where, "expires"), text, "extend it, or remove it from the policy")
            elif expires is not None and expires - self.now <= _SOON:
                days = max(1, (expires - self.now).days)
                text = f"The identity {name} expires in {_count(days, 'day')}"
                self.warn(
                    "IDENTITY_EXPIRES_SOON", (*where, "expires"), text, "write a later date, or add its successor"
                )
            self._producers((*where, "producers"), item.get("producers"))
            if "producers" not in item and item.get("verifier") is not True:
                self.warn(
                    "IDENTITY_ANY_PRODUCER",
                    where,
                    f"Whoever holds the key of {name} may speak for every task",
                    "producers: [airflow:<dag>/<task>]",
                )

    def _producers(self, where: Place, value: Any) -> None:
        for index, text in _texts(value):
            if text == "*":
                self.warn(
                    "PRODUCER_NEVER_WRITTEN",
                    (*where, index),
                    "'*' stays in one segment, so it fits python and cli only",
                    "** for all, airflow:** for all of Airflow",
                )
            elif not any(overlaps(text, form) for form in _PRODUCERS):
                self.error(
                    "PRODUCER_NEVER_WRITTEN",
                    (*where, index),
                    f"No orchestrator writes a producer that {printable(text)!r} fits; "
                    "they are airflow:<dag>/<task>, kfp:<pipeline>/<task>, python, cli",
                    _like_producer(text),
                )

    def _rule(self, where: Place, rule: Mapping[str, Any]) -> None:
        name = printable(rule.get("name") or forms.place(where), 100)
        scope, require = _mapping(rule.get("scope")), _mapping(rule.get("require"))
        self._scope((*where, "scope"), scope)
        self._producers((*where, "require", "producers"), require.get("producers"))
        self._producers((*where, "require", "loaders"), require.get("loaders"))
        if rule.get("level") == "audit":
            self.warn(
                "LEVEL_AUDIT",
                (*where, "level"),
                f"The rule {name} is only audited: it refuses nothing",
                "level: enforce",
            )
        named = self._named(where, name, _mapping(require.get("identities")))
        if named is None:
            if rule.get("level") != "off":
                self.warn(
                    "RULE_NO_IDENTITIES",
                    where,
                    f"The rule {name} names nobody who may sign; where no other rule does, it refuses everything",
                    "require: {identities: {any_of: [<identity>]}}",
                )
        else:
            self._signable(where, name, require, named)
        self._loadable(where, name, scope, require)
        if "lineage" in require:
            self._lineage((*where, "require", "lineage"), name, _mapping(require["lineage"]))
        if "recipients" in require:
            self._recipients((*where, "require", "recipients"), name, _mapping(require["recipients"]))
        if "reuse_verdict" in require:
            self._reuse((*where, "require", "reuse_verdict"), name, _mapping(require["reuse_verdict"]))

    def _named(self, where: Place, name: str, demand: Mapping[str, Any]) -> list[str] | None:
        """Return the known identities that a rule names, ``None`` where it names none."""
        found: list[str] = []
        some = False
        for form in ("any_of", "all_of", "of"):
            for index, text in _texts(demand.get(form)):
                some = True
                if self._fits(
                    (*where, "require", "identities", form, index),
                    name,
                    text,
                    f"The rule {name} names {text} as a signer, and it is a verifier",
                    "name who signs artifacts, or remove `verifier` from the identity",
                ):
                    found.append(text)
        return found if some else None

    def _fits(self, where: Place, rule: str, text: str, misused: str, instead: str, *, verifier: bool = False) -> bool:
        """Tell whether a rule may name an identity there, and say why not: it is unknown, or of the other kind.

        Args:
            where: The field.
            rule: Name of the rule.
            text: Name of the identity.
            misused: Message where it is of the other kind.
            instead: What to write then.
            verifier: Verifiers belong there, and no signers.
        """
        known = self.identities.get(text)
        if known is None:
            hint = "add it under identities" + (" with `verifier: true`" if verifier else "")
            others = [item for item, other in self.identities.items() if other.verifier or not verifier]
            message = f"The rule {rule} names {printable(text, 100)!r}, which is no identity of this policy"
            self.error("IDENTITY_UNKNOWN", where, message, did_you_mean(text, others, hint))
        elif known.verifier != verifier:
            self.error("VERIFIER_MISUSED", where, misused, instead)
        else:
            return True
        return False

    def _signable(self, where: Place, name: str, require: Mapping[str, Any], named: Sequence[str]) -> None:
        """Look for a rule that no evidence can fulfil."""
        demand = _mapping(require.get("identities"))
        everybody = sum(len(_texts(demand.get(form))) for form in ("any_of", "all_of", "of"))
        wanted = [text for _, text in _texts(require.get("producers"))]
        if wanted:
            self._alone((*where, "require", "producers"), name, wanted, named, everybody)
        if not named or len(named) < everybody:
            return  # what is unknown was told, and what it would add nobody knows
        least = demand.get("at_least")
        count = len(named) if "all_of" in demand else least if isinstance(least, int) else 1
        place = (*where, "require", "identities")
        good = [item for item in named if not self.identities[item].expired]
        marks = {mark for item in good for mark in self.identities[item].marks}
        if len(good) < count:
            self.error("RULE_NEVER_PASSES", place, f"Too few of those whom the rule {name} names have not expired")
        elif len(marks) < count and all(self.identities[item].marks for item in good):
            self.error(
                "RULE_NEVER_PASSES",
                place,
                f"The rule {name} wants {count} signers, each with another key; they have {_count(len(marks), 'key')}",
                "give each of them a key",
            )
        evidence = _mapping(require.get("evidence"))
        if evidence and "provenance" not in evidence and all(self.identities[item].producers for item in good):
            self.error(
                "RULE_NEVER_PASSES",
                (*where, "require", "evidence"),
                f"A signature alone names no producer, and whoever the rule {name} names may speak for some only",
                "require provenance too, or name an identity without producers",
            )

    def _alone(self, where: Place, name: str, wanted: Sequence[str], named: Sequence[str], everybody: int) -> None:
        doubtful = {item: rest for item in named if (rest := self._others(item, wanted))}
        for item, rest in doubtful.items():
            text = f"The key of {item} may also speak for {rest}, so under the rule {name} it proves no producer"
            only = f"give each producer a key of its own, or let the rule accept {rest} too"
            if len(doubtful) == everybody:
                self.error("KEY_SHARED", where, text + "; nothing can pass", only)
            else:
                self.warn("KEY_SHARED", where, text, only)

    def _others(self, name: str, wanted: Sequence[str]) -> str:
        """Say for whom the holder of an identity's key may speak beyond the wanted producers."""
        mine = self.identities[name]
        # A verifier that shares a key is told for itself.
        peers = [
            item for item in self.identities.values() if item is mine or (item.marks & mine.marks and not item.verifier)
        ]
        if any(not item.producers for item in peers):
            return "every producer"
        spoken = dict.fromkeys(text for item in peers for text in item.producers)
        return ", ".join(text for text in spoken if not any(includes(wide, text) for wide in wanted))

    def _loadable(self, where: Place, name: str, scope: Mapping[str, Any], require: Mapping[str, Any]) -> None:
        loaders = [text for _, text in _texts(require.get("loaders"))]
        tasks = list(_tasks(scope))
        if loaders and tasks and not any(overlaps(text, task) for text in loaders for task in tasks):
            self.error(
                "RULE_NEVER_PASSES",
                (*where, "require", "loaders"),
                f"The rule {name} holds for tasks of its scope only, and none of them is among its loaders",
                "let scope and loaders name the same tasks",
            )

    def _lineage(self, where: Place, name: str, lineage: Mapping[str, Any]) -> None:
        if str(lineage.get("level", "")) >= "L3" and "commits" not in lineage:
            self.warn(
                "LINEAGE_NO_COMMITS",
                where,
                f"The rule {name} asks for signed commits, and every call says by whom",
                "add commits: {allowed_signers: <path>, branch: refs/remotes/origin/main}",
            )
        for index, text in _texts(lineage.get("roots")):
            misused = f"The rule {name} begins at data of {text}, a verifier, which signs no artifacts"
            self._fits((*where, "roots", index), name, text, misused, "name the data owner's own key")

    def _recipients(self, where: Place, name: str, demand: Mapping[str, Any]) -> None:
        known = _mapping(self.draft.body.get("recipients"))
        for form in ("required", "only"):
            for index, text in _texts(demand.get(form)):
                if text not in known:
                    message = f"The rule {name} names {printable(text, 100)!r}, which is no recipient of this policy"
                    hint = did_you_mean(text, known, "add it under recipients, beside identities")
                    self.error("RECIPIENT_UNKNOWN", (*where, form, index), message, hint)
        if ("required" in demand or "only" in demand) and "encrypted" not in demand:
            self.warn(
                "RECIPIENTS_CLEAR",
                where,
                f"The rule {name} says who opens artifacts, and takes those that lie in clear for anybody",
                "encrypted: true, or encrypted: false if that is meant",
            )

    def _reuse(self, where: Place, name: str, reuse: Mapping[str, Any]) -> None:
        if "verifiers" not in reuse and not any(item.verifier for item in self.identities.values()):
            self.warn(
                "VERIFIER_MISSING",
                where,
                f"The rule {name} reuses verdicts, and the policy has no verifier",
                "mark an identity with `verifier: true`",
            )
        for index, text in _texts(reuse.get("verifiers")):
            misused = f"The rule {name} reuses verdicts of {text}, which is no verifier"
            instead = "a verifier needs `verifier: true`, a key of its own, and signs no artifacts"
            self._fits((*where, "verifiers", index), name, text, misused, instead, verifier=True)

    def _scope(self, where: Place, scope: Mapping[str, Any]) -> None:
        for index, text in _texts(scope.get("artifact")):
            place = (*where, "artifact", index)
            problem = _no_place(text)
            if problem is not None:
                self.error("PATTERN_NO_PLACE", place, *problem)
            elif not text.startswith(NAME_PREFIX) and _like_folder(text):
                self.warn(
                    "PATTERN_LIKE_FOLDER",
                    place,
                    f"{printable(text)!r} has no wildcard, so it names this one artifact and nothing below it",
                    f"{text}/** for all below it",
                )
        given = {text for _, text in _texts(scope.get("orchestrator"))} & set(_ORCHESTRATORS)
        possible = given or set(_ORCHESTRATORS)
        for name, needs in (
            ("dag", {"airflow"}),
            ("pipeline", {"kfp"}),
            ("task", {"airflow", "kfp"}),
            ("team", {"airflow", "kfp"}),
        ):
            if (
                scope.get(name)
                and not possible & needs
                and not any(text in ("*", "**") for _, text in _texts(scope[name]))
            ):
                self.error(
                    "RULE_NEVER_MATCHES",
                    (*where, name),
                    f"`{name}` is of {' and '.join(sorted(needs))} only; `orchestrator` is {', '.join(sorted(given))}",
                    f"remove `{name}`, or add {' or '.join(sorted(needs))} to `orchestrator`",
                )

    def _repeated(self, rules: Sequence[tuple[Place, Mapping[str, Any]]]) -> None:
        names: dict[str, Place] = {}
        texts: dict[bytes, str] = {}
        for where, rule in rules:
            name = rule.get("name")
            if isinstance(name, str):
                if name in names:
                    line = self.draft.line((*names[name], "name"))
                    self.error(
                        "NAME_TWICE",
                        (*where, "name"),
                        f"Line {line} has a rule of the name {printable(name, 100)!r}",
                        "choose another name",
                    )
                names.setdefault(name, where)
            said = strictjson.dumps({key: rule.get(key) for key in ("scope", "require", "level")})
            if said in texts and "scope" in rule:
                self.warn("RULE_TWICE", where, f"The rule says what {texts[said]} says already", "remove one of them")
            texts.setdefault(said, str(name))

    def _unused(self, rules: Sequence[tuple[Place, Mapping[str, Any]]]) -> None:
        used: set[str] = set()
        opening: set[str] = set()
        reused: set[str] = set()
        for _, rule in rules:
            require = _mapping(rule.get("require"))
            demand = _mapping(require.get("identities"))
            used |= {text for form in ("any_of", "all_of", "of") for _, text in _texts(demand.get(form))}
            used |= {text for _, text in _texts(_mapping(require.get("lineage")).get("roots"))}
            demand = _mapping(require.get("recipients"))
            opening |= {text for form in ("required", "only") for _, text in _texts(demand.get(form))}
            if "reuse_verdict" in require:
                reuse = _mapping(require["reuse_verdict"])
                listed = {text for _, text in _texts(reuse.get("verifiers"))}
                reused |= listed or {name for name, item in self.identities.items() if item.verifier}
        for name, item in self.identities.items():
            peers = [
                other for other, known in self.identities.items() if known.marks & item.marks and not known.verifier
            ]
            if item.verifier and peers:
                text = (
                    f"The verifier {name} has the key of {peers[0]}, which signs artifacts; nobody vouches for itself"
                )
                self.error("VERIFIER_MISUSED", ("identities", name), text, "give the verifier a key of its own")
            if item.verifier and name not in reused:
                self.warn(
                    "VERIFIER_UNUSED",
                    ("identities", name),
                    f"No rule reuses verdicts of {name}",
                    "add reuse_verdict to a rule, or remove the verifier",
                )
            elif not item.verifier and name not in used:
                self.warn(
                    "IDENTITY_UNUSED", ("identities", name), f"No rule names {name}", "name it in a rule, or remove it"
                )

        for name in _mapping(self.draft.body.get("recipients")):
            if name not in opening:
                self.warn(
                    "RECIPIENT_UNUSED", ("recipients", name), f"No rule names {name}", "name it in a rule, or remove it"
                )

    def _signers(self) -> None:
        before: list[tuple[int, Mapping[str, Any]]] = []
        for index, raw in _items(self.draft.body.get("signers")):
            scope = _mapping(_mapping(raw).get("scope"))
            self._scope(("signers", index, "scope"), scope)
            for number, other in before:
                if all(_takes_in(other.get(name), scope.get(name), name) for name in other):
                    line = self.draft.line(("signers", number))
                    text = f"The entry in line {line} takes in all that this one does, and stands first"
                    self.warn("SIGNER_SHADOWED", ("signers", index), text, "put the narrower entry first")
                    break
            before.append((index, scope))

    def _delegations(self) -> None:
        seen: list[tuple[str, tuple[str, ...]]] = []
        for index, raw in _items(self.draft.body.get("delegations")):
            item, where = _mapping(raw), ("delegations", index)
            self._scope(where, {"artifact": item.get("artifact")})
            team = str(item.get("team"))
            mine = tuple(place_pattern(text) for _, text in _texts(item.get("artifact")))
            for other, theirs in seen:
                if other == team:
                    self.error(
                        "NAME_TWICE",
                        (*where, "team"),
                        f"The team {printable(team, 100)} has another delegation",
                        "list all its artifacts in one",
                    )
                elif any(overlaps(left, right) for left in mine for right in theirs):
                    self.warn(
                        "DELEGATIONS_OVERLAP",
                        (*where, "artifact"),
                        f"The team {printable(other, 100)} is given some of these too; both policies apply there",
                        "give each team its own folder",
                    )
            seen.append((team, mine))

    # --- What needs the whole policy ---

    def _compiled(self, policy: TrustPolicy) -> None:
        places = {rule.name: ("rules", index) for index, rule in enumerate(policy.rules)}
        rest = policy
        compiled: CompiledPolicy | None = None
        for _ in range(_MOST_CONTRADICTIONS):
            try:
                compiled = CompiledPolicy(rest)
                break
            except PolicyError as error:
                where = error.problems[0][0]
                if error.code != "POLICY_CONTRADICTION":
                    self.error("FIELD_MALFORMED", where, error.message.rstrip("."), error.next_step)
                    return
                # Told under its place in the whole policy; then the next pair is looked for without this rule.
                rule = rest.rules[where[1]]
                where = (*places[rule.name], *where[2:])
                self.error("RULES_CONTRADICT", where, error.message.rstrip("."), error.next_step)
                rest = replaced(rest, rules=tuple(item for item in rest.rules if item is not rule))
            except SealflowError as error:
                self.error("FIELD_MALFORMED", ("identities",), error.message.rstrip("."), error.next_step)
                return
        if compiled is not None and rest is policy:
            self._levels(compiled, places)

    def _levels(self, policy: CompiledPolicy, places: Mapping[str, Place]) -> None:
        """Look for rules whose level is not what it says: the strictest level counts where rules meet."""
        if all(rule.rule.level == "enforce" for rule in policy.rules):
            return
        nearby = _Nearby(policy.rules)
        for rule in policy.rules:
            where = (*places[rule.rule.name], "level")
            if rule.rule.level == "audit":
                enforced = (other for other in nearby.of(rule) if other.rule.level == "enforce")
                meets = [other.rule.name for other in enforced if can_meet(rule, other)]
                if meets:
                    text = f"The rule {rule.rule.name} is enforced where it meets {', '.join(meets[:5])}"
                    self.warn("LEVEL_RAISED", where, text, "enforce both, or let their scopes not overlap")
            elif rule.rule.level == "off":
                stricter = (other for other in nearby.of(rule) if other.rule.level != "off")
                over = next((other for other in stricter if _covers(other, rule)), None)
                if over is not None:
                    text = f"The rule {over.rule.name} holds wherever {rule.rule.name} does, and its level is stricter"
                    self.warn("RULE_OFF_IDLE", where, text, f"let {over.rule.name} leave these artifacts out")


class _Nearby:
    """Finds rules that may be about the same artifacts: of two such patterns one begins literally as the other does."""

    def __init__(self, rules: Iterable[CompiledRule]) -> None:
        self._starting: dict[str, list[CompiledRule]] = {}
        for rule in rules:
            for pattern in (*rule.places, *(NAME_PREFIX + name for name in rule.names)):
                self._starting.setdefault(literal(pattern), []).append(rule)
        self._starts = sorted(self._starting)

    def of(self, rule: CompiledRule) -> list[CompiledRule]:
        """Return the others, each once, by name."""
        found: dict[int, CompiledRule] = {}
        for pattern in (*rule.places, *(NAME_PREFIX + name for name in rule.names)):
            start = literal(pattern)
            starts = [start[:size] for size in range(len(start))]
            for index in range(bisect_left(self._starts, start), len(self._starts)):
                if not self._starts[index].startswith(start):
                    break
                starts.append(self._starts[index])
            for text in starts:
                found.update((id(other), other) for other in self._starting.get(text, ()))
        found.pop(id(rule), None)
        return sorted(found.values(), key=lambda other: other.rule.name)


def _covers(wide: CompiledRule, narrow: CompiledRule) -> bool:
    mine, theirs = wide.rule.scope.as_json(without="none"), narrow.rule.scope.as_json(without="none")
    return all(_takes_in(mine[name], theirs.get(name), name) for name in mine)


def _takes_in(wide: Any, narrow: Any, name: str) -> bool:
    if not narrow:
        return not wide
    if name == "orchestrator":
        return set(narrow) <= set(wide)
    make = place_pattern if name == "artifact" else str
    return all(any(includes(make(left), make(right)) for left in wide) for right in narrow)


# --- Reading what may be malformed ---


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[tuple[int, Any]]:
    return list(enumerate(value)) if isinstance(value, list) else []


def _texts(value: Any) -> list[tuple[int, str]]:
    return [(index, item) for index, item in _items(value) if isinstance(item, str) and item]


def _time(value: Any) -> datetime.datetime | None:
    try:
        found = datetime.datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _marks(item: Mapping[str, Any]) -> frozenset[str]:
    """Return by what two identities of one holder are known."""
    if isinstance(item.get("key"), str):
        return frozenset({item["key"]})
    return frozenset(text for _, text in _texts(_mapping(item.get("certificate")).get("names")))


def _without_not_landed(body: dict[str, Any]) -> dict[str, Any]:
    rules = []
    for rule in body.get("rules", ()):
        require = rule.get("require") if isinstance(rule, dict) else None
        if isinstance(require, dict):
            rule = {**rule, "require": {name: value for name, value in require.items() if name not in forms.NOT_LANDED}}
        rules.append(rule)
    return {**body, "rules": rules}


def _tasks(scope: Mapping[str, Any]) -> Iterator[str]:
    """Yield patterns of the producers whose tasks a scope takes in."""
    chosen = [text for _, text in _texts(scope.get("orchestrator"))] or _ORCHESTRATORS
    tasks = [text for _, text in _texts(scope.get("task"))] or ["**"]
    for orchestrator in chosen:
        field_name = {"airflow": "dag", "kfp": "pipeline"}.get(orchestrator)
        if scope.get("dag" if field_name == "pipeline" else "pipeline"):
            continue
        if field_name is None:
            if not (scope.get("dag") or scope.get("pipeline") or scope.get("task") or scope.get("team")):
                yield orchestrator
            continue
        for workflow in [text for _, text in _texts(scope.get(field_name))] or ["**"]:
            yield from (f"{orchestrator}:{workflow}/{task}" for task in tasks)


# --- Patterns ---


@lru_cache(maxsize=1)
def _schemes() -> frozenset[str]:
    try:
        from fsspec import available_protocols
    except ImportError:
        return _KNOWN_SCHEMES
    return _KNOWN_SCHEMES | frozenset(available_protocols())


def _no_place(pattern: str) -> tuple[str, str] | None:
    """Say why a pattern over locations can match none, and what to write."""
    shown = printable(pattern)
    if pattern.startswith(NAME_PREFIX):
        if pattern == NAME_PREFIX:
            return "'name:' names nothing", "name:churn-*"
        return None
    if pattern.startswith("/"):
        return None
    place = place_pattern(pattern)
    scheme, mark, rest = place.partition("://")
    if mark and "*" not in scheme:
        if scheme == "file" and not rest.startswith(("/", "*")):
            return f"{shown!r} names a host; files are named by an absolute path", f"/{rest}"
        if scheme in ("file", *S3_SCHEMES) or (scheme in _schemes() and scheme not in (*ALIASES, "http", "https")):
            return None
        return f"{scheme}:// is no storage whose bytes sealflow reads, so {shown!r} can match nothing", (
            "the location that tasks read, such as s3://bucket/folder/**, or name:<logical name>"
        )
    if any(overlaps(place, f"{known}://**") for known in ("file", "s3", *sorted(_KNOWN_SCHEMES))):
        return None
    return f"{shown!r} has no scheme, so it matches no location", (
        f"name:{pattern} for a signed logical name, or a location: s3://bucket/{pattern}, /data/{pattern}"
    )


def _like_folder(pattern: str) -> bool:
    return "*" not in pattern and "." not in pattern.rpartition("/")[2]


def _like_producer(text: str) -> str:
    orchestrator, colon, rest = text.partition(":")
    if colon and orchestrator in ("airflow", "kfp"):
        return (
            f"{text}/*"
            if "/" not in rest
            else f"{orchestrator}:<{'dag' if orchestrator == 'airflow' else 'pipeline'}>/<task>"
        )
    head, _, tail = text.partition("/")
    if head in ("airflow", "kfp") and tail:
        return f"{head}:{tail}" if "/" in tail else f"{head}:{tail}/*"
    if re.fullmatch(r"[A-Za-z0-9._*-]+/[A-Za-z0-9._*-]+", text):
        return f"airflow:{text} or kfp:{text}"
    return did_you_mean(text, ("python", "cli"), f"airflow:{text}/* or kfp:{text}/*")


# --- The models' own messages, in words ---

_LISTS: Final = "a list is expected"
_WORDS: Final = (
    (r"valid (tuple|array|list|set)", _LISTS),
    (r"valid (dictionary|object|mapping)|instance of", "a mapping is expected"),
    (r"valid string", "text is expected"),
    (r"valid integer", "a whole number is expected"),
    (r"valid boolean", "true or false is expected"),
    (r"valid datetime|timezone info", "a time with its zone is expected"),
    (r"at least 1 (item|character)", "it is empty"),
    (r"\[mhdw\]", "a duration is a number with m, h, d or w"),
    (r"sha256:\[0-9a-f\]", "sha256: and 64 hex digits are expected"),
    (
        r"should match pattern '\^\[A-Za-z0-9\]",
        "a name has letters, digits and . _ - and begins with a letter or digit",
    ),
    (r"should match pattern", "it holds a control character"),
)
#: Fields that take one of several forms; what each form says about the same value would be noise.
_FORMS: Final = {
    "freshness": ("it is neither `pinned` nor a mapping with max_age", "freshness: {max_age: 24h}"),
    "recipients": ("it is neither `clear` nor a list of recipients", "recipients: [recovery]"),
    "name": ("a waived rule is named as in the policy, a team's with the team before it", "team/rule"),
}
_EXAMPLES: Final = {
    "apiVersion": "apiVersion: sealflow/v1",
    "version": "version: 1",
    "expires": "expires: 2027-06-30T00:00:00Z",
    "not_before": "not_before: 2027-06-01T00:00:00Z",
    "since": "since: 2027-06-01T00:00:00Z",
    "max_age": "max_age: 24h",
    "scope": "scope: {artifact: [s3://bucket/folder/**]}",
}


def in_words(
    problems: Iterable[tuple[Place, str]], body: Mapping[str, Any], model: type[Form]
) -> Iterator[tuple[Place, str, str, str]]:
    """Put what a model says about a document into words: each field once, with a suggestion.

    Args:
        problems: Paths and messages of the model, with the names of union members in the paths.
        body: The document.
        model: The model.

    Yields:
        Path in the document, id, message without a period, suggestion.
    """
    found: dict[Place, list[str]] = {}
    unions: set[Place] = set()
    keys: set[Place] = set()
    for raw, message in problems:
        where, union = _real(raw, body, model)
        found.setdefault(where, []).append(message)
        if raw[-1:] == ("[key]",):
            keys.add(where)
        if union:
            unions.add(where)
            unions.update(where[:size] for size in range(1, len(where)) if where[size - 1] in _FORMS)
    for where, messages in found.items():
        value = where[-1] if where in keys else _at(body, where)
        if value and "at least 1 item" in messages[0]:
            continue  # it is counted without its malformed items, which are told themselves
        if where in unions and where and where[-1] in _FORMS:
            if isinstance(value, dict) and any(other[: len(where)] == where and other != where for other in found):
                continue  # the mapping was meant; what is wrong inside it is told there
            text, suggestion = _FORMS[where[-1]]
            yield where, "FIELD_MALFORMED", _upper(text), suggestion
            continue
        yield (where, *_in_words(where, messages[0], value, model))


def _in_words(where: Place, message: str, value: Any, model: type[Form]) -> tuple[str, str, str]:
    last = str(where[-1]) if where else ""
    if message == "this field is missing":
        return "FIELD_MISSING", f"The field {last!r} is missing", _EXAMPLES.get(last, "")
    if message == "this field is unknown":
        known = _members(where[:-1], model)
        return (
            "FIELD_UNKNOWN",
            f"The field {printable(last, 60)!r} is unknown",
            did_you_mean(last, known, f"known here: {', '.join(known)}" if known else ""),
        )
    options = re.findall(r"'([a-z0-9/]+)'", message.partition(" (found ")[0]) if "should be '" in message else []
    if options:
        text = f"{printable(value, 60)!r} is none of {', '.join(options)}"
        return "FIELD_MALFORMED", text, did_you_mean(str(value), options, "")
    for pattern, words in _WORDS:
        if re.search(pattern, message):
            shown = (
                f" (found {printable(value, 60)!r})"
                if isinstance(value, (str, int)) and "PRIVATE" not in str(value)
                else ""
            )
            suggestion = f"{last}: [{value}]" if words == _LISTS and isinstance(value, str) else _EXAMPLES.get(last, "")
            return "FIELD_MALFORMED", _upper(words) + shown, suggestion
    text, _, suggestion = message.partition("; ")
    # A message that ends with what to do keeps it as the suggestion.
    text = re.sub(r" \(found .*\)$", "", text)
    return "FIELD_MALFORMED", _upper(text), re.sub(r" \(found .*\)$", "", suggestion)


def _real(raw: Place, body: Any, model: type[Form]) -> tuple[Place, bool]:
    """Return the path without what stands only in the model, and whether that was a member of a union."""
    node, kept, union = body, list[Any](), False
    for number, part in enumerate(raw):
        inside = (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and 0 <= part < len(node)
        )
        if inside:
            node = node[part]
            kept.append(part)
        elif number == len(raw) - 1 and isinstance(node, dict) and isinstance(part, str) and re.fullmatch(r"\w+", part):
            # Members of a union: the models' names, and types of the language.
            is_form = part in ("str", "int", "bool", *_schema(model).get("$defs", ()))
            kept += [] if is_form else [part]
            union = union or is_form
        elif part != "[key]":
            union = True
    return tuple(kept), union


def _at(body: Any, where: Place) -> Any:
    for part in where:
        try:
            body = body[part]
        except (KeyError, IndexError, TypeError):
            return None
    return body


def _members(where: Place, model: type[Form]) -> tuple[str, ...]:
    """Return the fields of the mapping at a path."""
    schema = _schema(model)
    nodes = _resolved([schema], schema)
    for part in where:
        inner = [node["items"] for node in nodes if isinstance(part, int) and "items" in node]
        for node in nodes:
            below = node.get("properties", {}).get(part, node.get("additionalProperties"))
            inner += [below] if isinstance(below, dict) else []
        nodes = _resolved(inner, schema)
    return tuple(name for node in nodes for name in node.get("properties", ()))


_schemas: Final[dict[type, dict[str, Any]]] = {}


def _schema(model: type[Form]) -> dict[str, Any]:
    from sealflow.policy.form_models import plain_schema

    if model not in _schemas:
        _schemas[model] = plain_schema(model)
    return _schemas[model]


def _resolved(nodes: Iterable[dict[str, Any]], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for node in nodes:
        if "$ref" in node:
            found += _resolved([schema["$defs"][node["$ref"].rpartition("/")[2]]], schema)
        elif "anyOf" in node:
            found += _resolved(node["anyOf"], schema)
        else:
            found.append(node)
    return found


def did_you_mean(text: str, known: Iterable[str], otherwise: str) -> str:
    """Return a suggestion: the known name that is closest, or something else where none is close."""
    close = difflib.get_close_matches(text, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else otherwise


def _upper(text: str) -> str:
    # Not what begins with a scheme or a quotation.
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"
