"""Table tests: cases that an admin keeps beside a policy, each with what the verification should say.

A case supposes evidence whose signatures hold; :func:`sealflow.policy.evaluate.evaluate` decides about it with the same
functions as the verification.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sealflow.actions.policies import places_of
from sealflow.audit.event import utc_now
from sealflow.encryption.raw import NAMESPACE
from sealflow.encryption.recipient import KMS_PROVIDER
from sealflow.errors import PolicyError
from sealflow.findings import CODES, printable
from sealflow.hashing import sha256_hex
from sealflow.policy.compose import Arguments, CompiledPolicy, Ruling, compose
from sealflow.policy.decide import Fact
from sealflow.policy.draft import Draft, parse_draft
from sealflow.policy.evaluate import Outcome, evaluate
from sealflow.policy.form import Form, Problem, problems, read
from sealflow.policy.form_parts import About, Matches, Size
from sealflow.policy.identities import CertificateIdentity, Identity, KeyIdentity
from sealflow.policy.lint import did_you_mean, in_words
from sealflow.policy.requirement import NOTHING_REVOKED, Revocations
from sealflow.policy.revocations import CompiledRevocations
from sealflow.policy.source import resolve
from sealflow.policy.values import Api, Duration, Moment, Name, Orchestrator, Text, seconds
from sealflow.run_identity import BUILDER_IDS, RunIdentity
from sealflow.storage import Storages
from sealflow.verification.ruling import RELAXABLE

_Status = Literal["passed", "refused", "audited", "unmanaged"]


_Fingerprint = Annotated[str, Matches(r"^sha256:[0-9a-f]{64}$")]
_Digest = Annotated[str, Matches(r"^(sha256|dirHash):[0-9a-f]{64}$")]
_Recipients = Annotated[tuple[Text, ...], Size(1, 32)]


class Supposed(Form):
    """Evidence that is supposed to be there, its signature good."""

    by: Annotated[Name | None, About("The identity whose key signed.")] = None
    key: Annotated[
        _Fingerprint | None, About("Or the fingerprint of the key, for somebody whom the policy may not know.")
    ] = None
    kind: Annotated[Literal["signature", "provenance"] | None, About("Absent: one of each.")] = None
    producer: Annotated[Text | None, About("Signed producer, such as airflow:train/fit.")] = None
    builder: Annotated[Text | None, About("Signed builder id; absent: that of the producer's tasks.")] = None
    age: Annotated[Duration | None, About("How old the provenance is; absent: of this moment.")] = None
    timestamp: Annotated[
        Moment | None, About("When a timestamp authority of the policy saw the signature; absent: none did.")
    ] = None

    def _check(self) -> None:
        if (self.by is None) == (self.key is None):
            raise ValueError("evidence is signed by exactly one of by and key")
        if (self.kind == "signature") == (self.producer is not None):
            raise ValueError("provenance names its producer, and a signature names none")
        if self.kind == "signature" and (self.builder or self.age):
            raise ValueError("a signature names neither a builder nor a time")


class Case(Form):
    """One case."""

    name: Text
    artifact: Text
    orchestrator: Orchestrator | None = None
    dag: Text | None = None
    pipeline: Text | None = None
    task: Text | None = None
    team: Text | None = None
    logical_name: Annotated[Text | None, About("Signed logical name; absent: the last part.")] = None
    digest: Annotated[_Digest | None, About("Artifact digest, to test a revocation.")] = None
    evidence: Annotated[tuple[Supposed, ...], Size(0, 64)] = ()
    pinned: Annotated[bool, About("The task holds the artifact's reference.")] = False
    traced: Annotated[
        bool, About("Signed provenance leads back to where the rules want it to come from (lineage).")
    ] = False
    recipients: Annotated[
        Literal["clear"] | _Recipients,
        About(
            "To whom it is encrypted: recipients of the policy, or of somebody unknown to it sha256: and the "
            "fingerprint of an RSA key, or an ARN."
        ),
    ] = "clear"
    expect: _Status
    code: Annotated[Text | None, About("A code that must be among the reasons.")] = None
    rules: Annotated[tuple[Text, ...] | None, About("Exactly the rules that must hold.")] = None

    def _check(self) -> None:
        if self.dag and self.pipeline:
            raise ValueError("a task belongs to a dag or to a pipeline, never to both; write two cases")
        wanted = "airflow" if self.dag else "kfp" if self.pipeline else self.orchestrator
        if self.orchestrator not in (None, wanted):
            raise ValueError(f"a {'dag' if self.dag else 'pipeline'} is {wanted}'s; remove orchestrator")
        if self.code is not None and self.expect not in ("refused", "audited"):
            raise ValueError("a code is the reason of a refusal; remove it, or expect refused")
        if self.code is not None and self.code not in CODES:
            raise ValueError(
                f"{self.code} is no code; {did_you_mean(self.code, CODES, 'see docs/reference/verdicts.md')}"
            )

    @property
    def run(self) -> RunIdentity:
        """The task that checks."""
        orchestrator = "airflow" if self.dag else "kfp" if self.pipeline else self.orchestrator or "python"
        return RunIdentity(
            orchestrator,
            self.dag or self.pipeline or "",
            self.task or "",
            team=self.team or "",
        )


class PolicyTests(Form):
    """A table of cases."""

    apiVersion: Api  # noqa: N815  (the name in the document)
    kind: Literal["PolicyTests"]
    now: Annotated[Moment | None, About("Time of the checks; absent: the present.")] = None
    cases: Annotated[tuple[Case, ...], Size(1, 10_000)]


def table_schema() -> dict[str, Any]:
    """Return the published JSON Schema of table tests (draft 2020-12)."""
    from sealflow.policy.form_models import schema_of

    return schema_of(PolicyTests, "tests")


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        case: The case.
        line: Its line in the table.
        outcome: What the policy says.
        rules: Names of the rules that hold.
        differences: What was expected and what was found; empty where they are the same.
    """

    case: Case
    line: int
    outcome: Outcome
    rules: tuple[str, ...]
    differences: tuple[tuple[str, str, str], ...]

    @property
    def ok(self) -> bool:
        """Whether the case came out as expected."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.case.name,
            "line": self.line,
            "ok": self.ok,
            "status": self.outcome.status,
            "rules": list(self.rules),
            "reasons": [item._asdict() for item in self.outcome.shortfalls],
            "differences": [{"of": of, "expected": want, "found": found} for of, want, found in self.differences],
        }


def read_table(data: bytes, where: str) -> tuple[PolicyTests, Draft]:
    """Read a table.

    Raises:
        PolicyError: It is none; the message names the first line at fault, and ``problems`` all places.
    """
    draft = parse_draft(data, where)
    try:
        return read(PolicyTests, draft.body), draft
    except ValueError:
        raise _refused(draft, problems(PolicyTests, draft.json, draft.body)) from None


def _refused(draft: Draft, problems: list[Problem]) -> PolicyError:
    told = list(in_words(problems, draft.body, PolicyTests))
    lines = [
        f"{draft.where}:{draft.line(where)}: {text}{f'; {suggestion}' if suggestion else ''}."
        for where, _, text, suggestion in told
    ]
    return PolicyError(
        "The table cannot be read.\n  " + "\n  ".join(lines),
        code="TABLE_MALFORMED",
        problems=[(where, text) for where, _, text, _ in told],
    )


def run_table(
    policy: CompiledPolicy, table: PolicyTests, draft: Draft, revocations: CompiledRevocations | None = None
) -> list[Result]:
    """Run all cases.

    Args:
        policy: The policy, as the admin's.
        table: The cases.
        draft: The table as it was read, for lines.
        revocations: The list of revocations, as the admin's.

    Raises:
        PolicyError: Evidence is by somebody whom the policy does not have.
        UsageError: An artifact is no location.
    """
    now = table.now or utc_now()
    revoked = resolve(revocations, policy)[0] if revocations is not None else NOTHING_REVOKED
    return [_run(policy, case, index, draft, now, revoked) for index, case in enumerate(table.cases)]


def _run(
    policy: CompiledPolicy, case: Case, index: int, draft: Draft, now: datetime.datetime, revoked: Revocations
) -> Result:
    places = places_of(Storages().for_uri(case.artifact).canonical(case.artifact))
    logical = case.logical_name or case.artifact.rstrip("/").rpartition("/")[2]
    facts = [
        fact
        for number, item in enumerate(case.evidence)
        for fact in _facts(policy, item, logical, now, ("cases", index, "evidence", number), draft)
    ]

    def ruling(names: tuple[str, ...]) -> Ruling:
        return compose([policy], Arguments(), places=places, names=names, run=case.run, revoked=revoked, now=now)

    holders = _holders(policy, case, index, draft)

    def decide(found: Ruling) -> Outcome:
        return evaluate(
            found,
            facts,
            now,
            pinned=case.pinned,
            traced=case.traced,
            consumer=case.run.producer,
            relaxable=RELAXABLE,
            digest=case.digest or "",
            holders=holders,
        )

    first = ruling(())
    outcome = decide(first)
    names = outcome.names
    if not first.managed:
        # A call that names the signers itself hears what they signed.
        names = tuple(sorted({fact.name for fact in facts if fact.name}))
    named = ruling(names) if names else first
    if named.rules != first.rules or named.managed != first.managed:
        first, outcome = named, decide(named)
    rules = tuple(rule.name for rule in first.rules)
    return Result(case, draft.line(("cases", index)), outcome, rules, tuple(_differences(case, outcome, rules)))


def _holders(policy: CompiledPolicy, case: Case, index: int, draft: Draft) -> list[tuple[str, bytes]] | None:
    """Return what the header of the supposed artifact would name, ``None`` for one in clear."""
    if case.recipients == "clear":
        return None
    found = []
    for number, name in enumerate(case.recipients):
        if name in policy.recipients:
            found.append(policy.recipients[name].mark)
        elif name.startswith("arn:"):
            found.append((KMS_PROVIDER, name.encode("utf-8")))
        elif re.fullmatch(r"sha256:[0-9a-f]{64}", name):
            found.append((NAMESPACE, name.removeprefix("sha256:").encode("ascii")))
        else:
            hint = did_you_mean(name, policy.recipients, "or give the fingerprint or the ARN of a stranger's key")
            raise _unknown(draft, ("cases", index, "recipients", number), f"{printable(name)} is no recipient", hint)
    return found


def _unknown(draft: Draft, where: tuple[Any, ...], what: str, hint: str) -> PolicyError:
    text = f"{what} of the policy"
    return PolicyError(
        f"{draft.where}:{draft.line(where)}: {text}; {hint}.", code="TABLE_MALFORMED", problems=[(where, text)]
    )


def _differences(case: Case, outcome: Outcome, rules: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    codes = tuple(dict.fromkeys(item.code for item in outcome.shortfalls))
    if outcome.status != case.expect:
        yield "expect", case.expect, outcome.status
    if case.code is not None and case.code not in codes:
        yield "code", case.code, ", ".join(codes) or "none"
    if case.rules is not None and set(case.rules) != set(rules):
        yield "rules", ", ".join(sorted(case.rules)) or "none", ", ".join(sorted(rules)) or "none"


def _facts(
    policy: CompiledPolicy, item: Supposed, logical: str, now: datetime.datetime, where: tuple[Any, ...], draft: Draft
) -> Iterator[Fact]:
    everybody = {**policy.identities, **policy.verifiers}
    if item.by is not None and item.by not in everybody:
        hint = did_you_mean(item.by, everybody, "or give the fingerprint of a stranger's `key`")
        raise _unknown(draft, (*where, "by"), f"{item.by} is no identity", hint)
    if item.by is not None:
        signer = everybody[item.by]
        key = _key(signer)
        holders = tuple(other for other in everybody.values() if other is signer or _same_holder(signer, other))
    else:
        key = (item.key or "").removeprefix("sha256:")
        holders = tuple(other for other in everybody.values() if _key(other) == key)
    if item.kind != "provenance":
        yield Fact("signature", key, holders, stamp=item.timestamp)
    if item.kind != "signature":
        producer = item.producer or ""
        orchestrator = producer.partition(":")[0]
        builder = item.builder or BUILDER_IDS.get(orchestrator, BUILDER_IDS["python"])
        made = now - datetime.timedelta(seconds=seconds(item.age) if item.age else 0)
        time = made.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield Fact("provenance", key, holders, producer, builder, logical, time, item.timestamp)


def _key(identity: Identity) -> str:
    if isinstance(identity, KeyIdentity):
        return identity.public_key.hint
    # Certificates come and go; whoever has the name counts as one.
    assert isinstance(identity, CertificateIdentity)  # noqa: S101  (the only other kind)
    return sha256_hex(repr(sorted(identity.names)).encode())


def _same_holder(one: Identity, other: Identity) -> bool:
    if isinstance(one, KeyIdentity) and isinstance(other, KeyIdentity):
        return one.public_key.hint == other.public_key.hint
    if isinstance(one, CertificateIdentity) and isinstance(other, CertificateIdentity):
        return not set(one.names).isdisjoint(other.names) and not set(one.roots).isdisjoint(other.roots)
    return False
