"""Judge what a reference claims by its signed evidence alone, for who decides before anybody reads the artifact.

A gate in front of an orchestrator's database has to answer within seconds, and may have no right to read data. It asks
whether signed evidence says that this run made an artifact of this digest. What lies at the location is not hashed, so
the answer is about the claim; whoever uses the artifact still checks the bytes. Of an encrypted artifact the header is
read, since its evidence is kept by an id that stands there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from sealflow.actions import context
from sealflow.actions.checking import Check
from sealflow.actions.guarding import Managed, Told, wrong_source
from sealflow.actions.recording import Recording
from sealflow.actions.verify import Checked, judge_unread, judged_opening, settle
from sealflow.audit.event import utc_now
from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UsageError, VerificationError
from sealflow.evidence import ArtifactRef, StoredEvidence, default_store
from sealflow.evidence.bundle import parse_bundle
from sealflow.evidence.encryption import KIND as ENCRYPTION
from sealflow.evidence.encryption import MAX_LIST
from sealflow.evidence.oms import PREDICATE_TYPE, parse_oms_statement
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import SUMMARY
from sealflow.findings import Finding, Verdict, conclude, printable
from sealflow.hashing import Digest
from sealflow.manifest import Manifest, Resource
from sealflow.policy.compose import Arguments, compose_without_policy
from sealflow.policy.globs import inside
from sealflow.storage import Location, Storages
from sealflow.verification.judge import Judgement

if TYPE_CHECKING:
    from sealflow.audit import AuditSink

#: Most bytes of evidence that one judgement reads. A signature lists all files: this is one over some 300,000.
MAX_EVIDENCE: Final = 64 << 20


def attest(
    place: Managed,
    ref: ArtifactRef,
    *,
    told: Told,
    stores: Sequence[str] = (),
    storages: Storages | None = None,
    audit: AuditSink | None = None,
) -> Checked:
    """Judge whether signed evidence says that a run made what a reference names, without reading the artifact.

    Args:
        place: Where the artifact lies; the reference names this place.
        ref: The reference.
        told: Who is known to have made it, from somebody who knows.
        stores: Evidence stores in which the reference may say that its evidence lies, beside the one that is set and
            the one beside the artifact. A reference is anybody's word, and must not choose what this process reads.
        storages: Finds storage.
        audit: Takes audit events.

    Raises:
        VerificationError: Refused, or nobody can say.
        UsageError: A setting cannot work, or the reference names another evidence store.
        UnavailableError: The audit log is out of reach.
    """
    surroundings = context.current()
    # What policies demand of the events of actions, tasks wait for; who stands between them must answer at once.
    with Recording("gate", place.uri, surroundings, sink=audit, ruled=False) as recording:
        storages = storages or Storages()
        demand_known_store(ref, place, stores, storages)
        check = settle(ref, storages=storages)
        judgement = judged_opening(check, lambda: _judge(check))
        verdict = judgement.verdict
        verdict = replace(verdict, findings=tuple(item for item in verdict.findings if item.code != "CHECKED_NOT_HELD"))
        checked = Checked(verdict, ref, judgement.runs)
        if verdict.passed and (finding := wrong_source(checked, told)) is not None:
            status, findings = conclude([finding, *verdict.findings])
            checked = replace(checked, verdict=replace(verdict, status=status, findings=findings))
        recording.judged(checked.verdict, ref.version_id)
    if not checked.verdict.passed:
        raise VerificationError(checked.verdict)
    return checked


def refuse(place: Managed, code: str, message: str, *, expected: str = "", found: str = "") -> VerificationError:
    """Record that a task claims an artifact in vain, and return the refusal.

    Args:
        place: The artifact's place.
        code: Code of the finding.
        message: One sentence.
        expected: What would have been right.
        found: What was said.

    Raises:
        UnavailableError: The audit log is out of reach.
    """
    finding = Finding(code, "refusal", place.uri, message, expected=expected, found=found, rule="gate")
    ruling = place.policies.ruling(Arguments())
    verdict = Verdict(
        "failed",
        place.uri,
        findings=(finding,),
        policy=ruling.policy,
        rules=tuple(rule.name for rule in ruling.rules),
        checked_at=utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    with Recording("gate", place.uri, context.current(), ruled=False) as recording:
        recording.judged(verdict)
    return VerificationError(verdict)


def demand_known_store(ref: ArtifactRef, place: Managed, stores: Iterable[str], storages: Storages) -> None:
    """Refuse a reference that names an evidence store which nobody here has named.

    Raises:
        UsageError: ``EVIDENCE_STORE_UNKNOWN``.
    """

    def canonical(uri: str) -> str:
        return storages.for_uri(uri).canonical(uri).rstrip("/")

    known = [*stores]
    if configured := context.current().settings.evidence_store:
        known.append(configured)
    try:
        known.append(default_store(place.uri, storages))
    except UsageError:
        known.append(place.uri.rstrip("/") + ".evidence")
    named = canonical(ref.evidence)
    if not any(named == one or named.startswith(inside(one, "")) for one in map(canonical, known)):
        raise UsageError(
            f"The reference says that the evidence lies in {printable(ref.evidence)}, which is not read here.",
            code="EVIDENCE_STORE_UNKNOWN",
            next_step=f"Keep it in {printable(known[-1])}, or have the admin name the store.",
        )


def _at_the_gate(check: Check) -> Check:
    """Return the check with what can be asked of whoever makes an artifact.

    Who may use it and where it has come from is asked where it is used. Rules can be for those alone who use it: then
    it must come from somebody whom the policy names at all.
    """
    ruling = check.ruling
    if check.policies is not None and ruling.unmatched and check.policies.in_force is not None:
        arguments = Arguments(tuple(check.policies.in_force.policy.identities.values()), digest=check.arguments.digest)
        made = compose_without_policy(arguments, check.surroundings.run)
        revoked = ruling.requirement.revoked
        ruling = replace(
            made, requirement=replace(made.requirement, revoked=revoked), policy=ruling.policy, uri=ruling.uri
        )
    requirement = replace(ruling.requirement, loaders=(), lineage=())
    if check.ref is not None and check.ref.encrypted:
        # The signature over the files lies inside of what is encrypted, so who opens it judges that.
        clauses = tuple(item._replace(kinds=frozenset({"provenance"})) for item in requirement.clauses)
        requirement = replace(requirement, clauses=clauses, kinds=frozenset({"provenance"}))
    return replace(check, policies=None, ruling=replace(ruling, requirement=requirement))


def _judge(check: Check) -> Judgement:
    assert check.ref is not None  # noqa: S101  (it was settled from a reference)
    assert check.store is not None  # noqa: S101
    if check.ref.encrypted:
        return _judge_encrypted(_at_the_gate(check))
    found = check.store.collect(check.ref.digest, MAX_EVIDENCE)
    content = _content(check.ref, found.objects)
    location = Location(check.canonical, content.kind or "file", content.name, check.ref.version_id)
    if content.resources:
        check.look_inside(content)
    return _judged(_at_the_gate(check), location, content, found.objects, found.findings(check.store.uri))


def _judged(
    check: Check, location: Location, content: Manifest, evidence: Iterable[StoredEvidence], noted: Sequence[Finding]
) -> Judgement:
    kept = tuple(item for item in evidence if item.kind != SUMMARY)
    # What was collected is not read again.
    handed = replace(check, handed=(*check.handed, *kept), exclusive=True, store=None)
    judgement = judge_unread(handed, location, content, noted)
    if judgement is None:
        raise EvidenceError(
            "The signature is over hashes from which no artifact digest follows; only the bytes could tell.",
            code="SIGNATURE_UNSUPPORTED",
            next_step="Sign with sealflow.",
        )
    verdict = judgement.verdict
    return judgement._replace(location=location, verdict=replace(verdict, policy=check.ruling.policy or verdict.policy))


@dataclass(frozen=True)
class _Pinned(Manifest):
    """A manifest of which nothing is known but its digest."""

    pinned: Digest = field(default_factory=lambda: Digest("dirHash", ""))

    @property
    def digest(self) -> Digest:
        return self.pinned


def _content(ref: ArtifactRef, evidence: Iterable[StoredEvidence]) -> Manifest:
    """Return what the artifact of this digest consists of: a tree as the first statement lists it that has the digest.

    Whose statement that is does not matter: the digest binds all names and digests.
    """
    name = ref.uri.rstrip("/").rpartition("/")[2] or ref.uri
    if ref.digest.algorithm == "sha256":
        return Manifest("file", name, (Resource(name, ref.digest.hex),))
    for item in evidence:
        if item.kind != "signature":
            continue
        try:
            statement = parse_statement(parse_bundle(item.data).payload)
            if statement.predicate_type != PREDICATE_TYPE:
                continue
            said = parse_oms_statement(statement)
        except SealflowError:
            continue
        if said.artifact_digest("tree") == ref.digest:
            return Manifest("tree", name, tuple(sorted(said.resources)))
    return _Pinned("tree", name, (), pinned=ref.digest)


@dataclass(frozen=True)
class _Closed:
    """As much of an encrypted artifact as shows without its key."""

    holders: tuple[tuple[str, bytes], ...]


def _judge_encrypted(check: Check) -> Judgement:
    """Judge an encrypted artifact as far as that goes without its keys: who stands for its frames, and which run."""
    from sealflow.transfer.receive import look
    from sealflow.verification.encryption import Bound, judge_encryption

    assert check.ref is not None  # noqa: S101
    assert check.store is not None  # noqa: S101
    store, sealed = check.store, look(check.storage, check.uri, check.ref.version_id)
    if sealed is None:
        raise ArtifactError(f"Nothing that is encrypted lies at {printable(check.canonical)}.", code="ARTIFACT_MISSING")
    with sealed.object:
        found = store.collect(sealed.message, MAX_EVIDENCE, kinds={ENCRYPTION, "provenance"})
        bound = judge_encryption(
            found.objects,
            check.requirement,
            sealed.header,
            sealed.layout.frames,
            lambda digest: store.get_list(sealed.message, digest, MAX_LIST),
            now=utc_now(),
        )
    noted = found.findings(store.uri)
    if not isinstance(bound, Bound):
        status, findings = conclude([*noted, *bound])
        status = "failed" if status == "passed" else status
        rules = check.requirement.rules
        said = Verdict(status, check.canonical, findings=findings, policy=check.ruling.policy, rules=rules)
        return Judgement(said, None, ())
    if bound.said.artifact != check.ref.digest:
        raise EvidenceError(
            "The reference names another artifact than the statement about the encrypted object.",
            code="ENCRYPTION_UNBOUND",
        )
    kind: Literal["file", "tree"] = "file" if check.ref.digest.algorithm == "sha256" else "tree"
    name = check.canonical.rpartition("/")[2]
    content = _Pinned(kind, name, (), pinned=check.ref.digest)
    location = Location(check.canonical, kind, name, sealed.object.version_id)
    holders = tuple((key.provider, key.info) for key in sealed.header.data_keys)
    closed = replace(check, opened=cast(Any, _Closed(holders)))
    return _judged(closed, location, content, [item for item in found.objects if item.kind != ENCRYPTION], noted)
