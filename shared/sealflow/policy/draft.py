"""Drafts: policies as people write them, in YAML or JSON, with the line of every field.

YAML is read strictly: no references, no duplicate keys, no depth, and no guessing at dates.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson, strictyaml
from sealflow.errors import EvidenceError, PolicyError, SealflowError
from sealflow.findings import printable
from sealflow.keys import load_public_key
from sealflow.policy.document import MAX_DOCUMENT, TrustPolicy, Waiver, parse_policy, parse_waiver

_PUBLIC_KEY: Final = "-----BEGIN "


@dataclass(frozen=True)
class Draft:
    """A draft as it was read.

    Attributes:
        body: The document as JSON values.
        lines: Path of names and indices → line, from 1; sequences and mappings have the line of their first entry.
        where: Name for messages.
    """

    body: dict[str, Any]
    lines: strictyaml.Lines
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
    from sealflow.errors import UsageError
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
    try:
        body, lines = strictyaml.loads(data, limit=MAX_DOCUMENT, what=where)
    except EvidenceError as error:
        raise PolicyError(error.message) from None
    if not isinstance(body, dict):
        raise PolicyError(f"{where} is no mapping.")
    try:
        strictjson.dumps(body)
    except UnicodeEncodeError:
        # YAML lets each half of a pair be escaped; joined or not is up to the reader.
        raise PolicyError(f"{where} holds half of a surrogate pair; write the character itself.") from None
    return Draft(body, lines, where)


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
    recipients = draft.body.get("recipients")
    for name, item in recipients.items() if isinstance(recipients, dict) else ():
        if isinstance(item, dict) and isinstance(item.get("rsa"), str):
            item["rsa"] = _rsa(draft, ("recipients", name, "rsa"), item["rsa"], folder)
    authorities = draft.body.get("timestamp_authorities")
    for name, item in authorities.items() if isinstance(authorities, dict) else ():
        if isinstance(item, dict) and isinstance(item.get("roots"), list):
            listed = ("timestamp_authorities", name, "roots")
            item["roots"] = [_roots(draft, listed, text, folder) for text in item["roots"]]
    rules = draft.body.get("rules")
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        commits: Any = rule
        for name in ("require", "lineage", "commits"):
            commits = commits.get(name) if isinstance(commits, dict) else None
        if isinstance(commits, dict) and isinstance(commits.get("allowed_signers"), str):
            where = ("rules", index, "require", "lineage", "commits", "allowed_signers")
            commits["allowed_signers"] = _allowed_signers(draft, where, commits["allowed_signers"], folder)
    delegations = draft.body.get("delegations")
    for index, item in enumerate(delegations if isinstance(delegations, list) else ()):
        if isinstance(item, dict) and isinstance(item.get("key"), str):
            item["key"] = _key(draft, ("delegations", index, "key"), item["key"], folder)


def _key(draft: Draft, place: tuple[Any, ...], source: str, folder: str) -> str:
    try:
        return load_public_key(_found(source, folder)).pem.decode("ascii")
    except SealflowError as error:
        raise _unreadable(draft, place, error) from None


def _rsa(draft: Draft, place: tuple[Any, ...], source: str, folder: str) -> str:
    if source.startswith("aes:"):
        return source  # refused where the document is read, which says why
    from sealflow.encryption.raw import RsaRecipient
    from sealflow.keys.public import read_key_file

    given = source.lstrip().startswith(_PUBLIC_KEY)
    try:
        pem = source.encode("utf-8") if given else read_key_file(_found(source, folder))
        what = "The given text" if given else source
        return RsaRecipient.from_pem(pem, what).public_pem.decode("ascii")
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


def _allowed_signers(draft: Draft, place: tuple[Any, ...], source: str, folder: str) -> str:
    # A path has no line end, and the text of such a file has one, or at least a key after a blank.
    if "\n" in source or " " in source.strip():
        return source
    from sealflow.storage.local import LocalStorage

    try:
        data = LocalStorage().get(_found(source, folder), MAX_DOCUMENT)
        if data is None:
            raise EvidenceError(f"There is no file {printable(source)}.")
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _unreadable(draft, place, EvidenceError(f"{printable(source)} is not UTF-8.")) from None
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
