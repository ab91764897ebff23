"""Sign policies and waivers: the admin's act that puts them in force."""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.policy_files import SignedFile, fetch, read_signed, write_file
from sealflow.actions.recording import Recording
from sealflow.actions.revocation_list import unknown_identities
from sealflow.audit.event import utc_now
from sealflow.errors import PolicyError, SealflowError, UsageError
from sealflow.findings import printable
from sealflow.keys import KeySigner, load_public_key, load_signer
from sealflow.keys.signer import PassphraseCallback
from sealflow.policy.compose import CompiledPolicy, CompiledRule
from sealflow.policy.decide import CLOCK_SKEW
from sealflow.policy.document import MAX_WAIVER, TrustPolicy, Waiver, parse_waiver
from sealflow.policy.globs import overlaps, place_pattern
from sealflow.policy.lint import Linted, Problem, did_you_mean, lint_file
from sealflow.policy.revocations import RevocationList
from sealflow.policy.signed import POLICY_TYPE, REVOCATIONS_TYPE, WAIVER_TYPE, make_signed
from sealflow.policy.source import AdminChannel, open_policy
from sealflow.storage import Storages

#: Largest number of hours that a waiver lasts, its start a little in the past.
MAX_HOURS: Final = MAX_WAIVER.days * 24 - 1


@dataclass(frozen=True)
class SignedPolicy:
    """What was signed.

    Attributes:
        kind: ``policy``, ``revocations`` or ``waiver``.
        name: The version of a policy or list, or the waiver's id.
        digest: ``sha256:`` and the digest of the signed bytes, as verdicts name a policy.
        key: ``sha256:`` and the fingerprint of the key.
        output: Where it lies.
        expires: Until when it holds.
        warnings: What lint, or the admin's channel of this machine, has to say about it.
    """

    kind: str
    name: str
    digest: str
    key: str
    output: str
    expires: datetime.datetime
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "kind": self.kind,
            **({"id": self.name} if self.kind == "waiver" else {"version": int(self.name)}),
            "digest": self.digest,
            "key": self.key,
            "output": self.output,
            "expires": _text(self.expires),
            "warnings": list(self.warnings),
        }


def sign_draft(
    path: str,
    *,
    signer: str,
    output: str,
    previous: str | None = None,
    overwrite: bool = False,
    passphrase: PassphraseCallback | None = None,
) -> SignedPolicy:
    """Lint a draft, put its keys into it, and sign it.

    Args:
        path: The draft of a policy, waiver or list of revocations.
        signer: URI of the admin's signer.
        output: Where the signed document goes.
        previous: The signed policy or list that this one follows; its version must be lower.
        overwrite: Replace what lies at ``output``; a policy there is then a previous one too.
        passphrase: Asked for the passphrase of an encrypted key.

    Raises:
        PolicyError: The draft has errors, or its version does not rise.
        UsageError: Something lies at ``output``, or the signer cannot be opened.
        UnavailableError: The key service does not answer, or a file cannot be written.
    """
    linted = lint_file(path, utc_now())
    if linted.errors or linted.draft is None or linted.document is None:
        raise errors_of(path, linted)
    document, payload = linted.document, linted.draft.json
    digest = hashlib.sha256(payload).hexdigest()
    if not isinstance(document, Waiver):
        if previous is not None:
            _follows(document, digest, read_signed(fetch(previous), printable(previous)), previous)
        if overwrite and (there := _there(output)) is not None:
            _follows(document, digest, there, output)
        name = str(document.version)
        kind, media_type = (
            ("policy", POLICY_TYPE) if isinstance(document, TrustPolicy) else ("revocations", REVOCATIONS_TYPE)
        )
    else:
        if previous is not None:
            raise UsageError("A waiver follows nothing; --previous is for policies and lists of revocations.")
        kind, name, media_type = "waiver", document.id, WAIVER_TYPE
    key = load_signer(signer, passphrase)
    warnings = [line(path, item) for item in linted.problems]
    if isinstance(document, RevocationList):
        warnings += unknown_identities(document)
    surroundings = context.current()
    mark = f"sha256:{key.public_key.hint}"
    with Recording(f"{kind}-sign", _canonical(output), surroundings, key=mark, ruled=False) as recording:
        write_file(output, make_signed(payload, key, media_type), overwrite=overwrite)
        recording.done(f"sha256:{digest}")
    return SignedPolicy(
        kind,
        name,
        f"sha256:{digest}",
        mark,
        output,
        document.expires,
        (*warnings, *_unknown_key(key, surroundings.admin, kind)),
    )


def line(path: str, item: Problem) -> str:
    """Return a problem as one line for people: place first, as compilers write it."""
    text = f"{printable(path)}:{item.line}: {item.severity} {item.id}"
    text += f" {item.place}: {item.message}" if item.place else f": {item.message}"
    return f"{text} ({item.suggestion})" if item.suggestion else text


def errors_of(path: str, linted: Linted) -> PolicyError:
    """Return the error that lists all errors of a draft."""
    count = len(linted.errors)
    return PolicyError(
        "\n  ".join(
            [f"{printable(path)} has {count} error{'s' * (count != 1)}.", *(line(path, e) for e in linted.errors)]
        ),
        next_step=f"Correct them; `sealflow policy check {printable(path)}` lists warnings too.",
    )


def _there(output: str) -> SignedFile | None:
    try:
        data = fetch(output)
    except UsageError as error:
        if error.code == "POLICY_MISSING":
            return None
        raise
    return read_signed(data, printable(output))


def _follows(document: TrustPolicy | RevocationList, digest: str, before: SignedFile, where: str) -> None:
    if not isinstance(before.document, type(document)):
        raise UsageError(f"{printable(where)} is of the kind {before.kind}, and this is another.")
    # The same text may be signed again, with another key.
    if document.version <= before.document.version and digest != before.digest:
        raise PolicyError(
            f"The version is {document.version}, and {printable(where)} has the version {before.document.version}.",
            code="POLICY_VERSION",
            next_step=f"Write `version: {before.document.version + 1}`; whoever has seen the other takes no lower one.",
            problems=[(("version",), "the version must rise with every change")],
        )


def _unknown_key(key: KeySigner, channel: Any, kind: str) -> list[str]:
    """Say that nobody on this machine will take what this key signs."""
    if not isinstance(channel, AdminChannel):
        return []
    accepted = (*channel.keys, *(channel.waiver_keys if kind == "waiver" else ()))
    try:
        if key.public_key.hint in {load_public_key(source).hint for source in accepted}:
            return []
    except SealflowError as error:
        return [f"{channel.where}: {error.message}"]
    return [f"{channel.where} does not accept {kind} signatures of this key."]


def _canonical(uri: str) -> str:
    return Storages().for_uri(uri).canonical(uri)


def make_waiver(
    *,
    rules: Sequence[str],
    artifacts: Sequence[str],
    reason: str,
    hours: int,
    signer: str,
    policy: str | None = None,
    digest: str | None = None,
    output: str | None = None,
    passphrase: PassphraseCallback | None = None,
) -> SignedPolicy:
    """Sign a waiver for rules as they stand now, and put it where the waivers of the policy lie.

    Args:
        rules: Names of the rules; a team's rule with the team before it, ``team/rule``.
        artifacts: Patterns of the artifacts.
        reason: Why; it stands in every verdict that uses the waiver.
        hours: How long it holds.
        signer: URI of the signer; its key is one for policies or one for waivers.
        policy: The signed policy, by default the one of the admin's channel.
        digest: Artifact digest, for these bytes only.
        output: Folder of the waivers, by default that of the channel, else ``<policy>.waivers``.
        passphrase: Asked for the passphrase of an encrypted key.

    Raises:
        PolicyError: A rule is unknown, or the waiver would change nothing.
        UsageError: No policy is named and none is configured; the signer cannot be opened.
        UnavailableError: The policy cannot be read, the waiver not be written.
    """
    surroundings = context.current()
    channel = surroundings.admin if isinstance(surroundings.admin, AdminChannel) else None
    if policy is None and channel is None:
        raise UsageError("No policy is configured here.", next_step="Name the signed policy with --policy.")
    place = policy or (channel.policy if channel is not None else "")
    folder = output or (channel.waivers if policy is None and channel is not None else "")
    folder = (folder or place.rstrip("/") + ".waivers").rstrip("/")
    if not 1 <= hours <= MAX_HOURS:
        raise UsageError(f"A waiver lasts from 1 to {MAX_HOURS} hours.")
    signed = read_signed(fetch(place), printable(place))
    if not isinstance(signed.document, TrustPolicy):
        raise PolicyError(f"{printable(place)} is no policy but of the kind {signed.kind}.")
    compiled = CompiledPolicy(signed.document, digest=signed.digest, uri=place)
    waived = [_rule(compiled, name) for name in dict.fromkeys(rules)]
    for rule in waived:
        _changes(rule, artifacts)
    now = utc_now().replace(microsecond=0)
    body: dict[str, Any] = {
        "apiVersion": "sealflow/v1",
        "kind": "Waiver",
        "id": f"waiver-{now:%Y%m%d}-{secrets.token_hex(4)}",
        "scope": {"artifact": list(artifacts)},
        "rules": [{"name": rule.name, "digest": rule.digest} for rule in waived],
        "reason": reason,
        # A worker's clock may be behind, and somebody is waiting.
        "not_before": _text(now - datetime.timedelta(seconds=CLOCK_SKEW)),
        "expires": _text(now + datetime.timedelta(hours=hours)),
    }
    if digest is not None:
        body["digest"] = digest
    payload = strictjson.dumps(body)
    waiver = parse_waiver(payload)
    key = load_signer(signer, passphrase)
    mark = f"sha256:{key.public_key.hint}"
    target = f"{folder}/{waiver.id}.json"
    with Recording("waiver-sign", _canonical(target), surroundings, key=mark, ruled=False) as recording:
        if not Storages().for_uri(target).create(target, make_signed(payload, key, WAIVER_TYPE)):
            raise UsageError(f"{printable(target)} exists.")
        recording.done(f"sha256:{hashlib.sha256(payload).hexdigest()}")
    return SignedPolicy(
        "waiver",
        waiver.id,
        f"sha256:{hashlib.sha256(payload).hexdigest()}",
        mark,
        target,
        waiver.expires,
        tuple(_unknown_key(key, channel, "waiver")),
    )


def _rule(policy: CompiledPolicy, name: str) -> CompiledRule:
    team, slash, _ = name.partition("/")
    source = _team(policy, team) if slash else policy
    for rule in source.rules:
        if rule.name == name:
            return rule
    known = [rule.name for rule in source.rules]
    raise PolicyError(
        f"{printable(source.uri)} has no rule {printable(name, 200)!r}.",
        next_step=did_you_mean(name, known, f"Its rules: {', '.join(known[:20]) or 'none'}."),
    )


def _team(policy: CompiledPolicy, team: str) -> CompiledPolicy:
    for item in policy.document.delegations:
        if item.team == team:
            found, _ = open_policy(
                fetch(item.policy),
                [load_public_key(item.key)],
                item.minimum_version,
                item.policy,
                team=team,
                within=item.artifact,
            )
            return found
    known = [item.team for item in policy.document.delegations]
    raise PolicyError(
        f"The policy delegates nothing to a team {printable(team, 100)!r}.",
        next_step=did_you_mean(team, known, f"Its teams: {', '.join(known[:20]) or 'none'}."),
    )


def _changes(rule: CompiledRule, artifacts: Sequence[str]) -> None:
    if rule.rule.level != "enforce":
        raise PolicyError(f"The rule {rule.name} has the level {rule.rule.level}; there is nothing to waive.")
    patterns = {*rule.rule.scope.artifact} if rule.rule.scope.artifact else set()
    for text in artifacts:
        if not any(overlaps(place_pattern(text), place_pattern(mine)) for mine in patterns):
            raise PolicyError(
                f"The rule {rule.name} is about {', '.join(sorted(patterns))}, and {printable(text)} is none of it.",
                next_step="Name with --artifact what the rule is about.",
            )


def _text(when: datetime.datetime) -> str:
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
