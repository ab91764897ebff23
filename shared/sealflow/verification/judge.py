"""The judgement. Pure: it reads through handles that it was given and returns a verdict; it writes nothing.

Order: who signed, whether the signature holds, only then what was signed, and last whether the bytes are those. Pieces
of evidence are judged one by one; a piece that fails never spoils one that holds, so planted objects can neither pass
nor block. When a demanded kind of evidence is left without a valid piece, the reasons of the failed ones are the
answer.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from sealflow.errors import EvidenceError, MissingExtraError, UnavailableError
from sealflow.evidence import oms, provenance
from sealflow.evidence.provenance import Provenance
from sealflow.evidence.statement import Statement, parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import Finding, Severity, Signer, Verdict, conclude
from sealflow.hashing import Digest
from sealflow.keys import PublicKey
from sealflow.manifest import FILES_SHA256, Manifest, Serialization
from sealflow.policy import Identity, Requirement
from sealflow.policy.decide import Fact, Shortfall, heard, missing, unsealed, untraced
from sealflow.storage import Location
from sealflow.verification.authenticate import Authentic, authenticate
from sealflow.verification.compare import differences, ignored_files

_IDENTITY_CODES = frozenset({"SIGNER_NOT_ALLOWED", "CERTIFICATE_NAME", "CERTIFICATE_UNTRUSTED"})
# Largest payload that is read in the old encoding only to name the reason of a refusal; larger ones are too dear.
_EXPLAIN_LEGACY = 4 << 20
_MISSING = {"signature": "SIGNATURE_MISSING", "provenance": "PROVENANCE_MISSING"}


# Nobody compares or shows cases, and every task would compile what does.
@dataclass(frozen=True, eq=False, repr=False)
class Case:
    """All that a judgement looks at.

    Attributes:
        location: What lies where the artifact should be.
        manifest: Manifest of the bytes that were read, of the asked-for files when only a subset was.
        requirement: What must be proved.
        evidence: Bytes that claim to be evidence, in any order.
        target: Artifact digest that the evidence was looked up by; ``None`` when it was handed over directly.
        rehash: Reads the same bytes again under another serialization.
        now: Time of the check, aware.
        held: Whether the caller works on a private copy of exactly these bytes.
        findings: What was already observed while collecting.
        consumer: Producer string of the task that checks.
        trace: Walks signed provenance back from a digest, and says what is wrong on the way.
        holders: Provider and key information of every wrapped key in the artifact's header; ``None`` for a clear one.
    """

    location: Location
    manifest: Manifest
    requirement: Requirement
    evidence: Sequence[StoredEvidence]
    target: Digest | None
    rehash: Callable[[Serialization], Manifest]
    now: datetime.datetime
    held: bool = False
    findings: Sequence[Finding] = ()
    consumer: str = ""
    trace: Callable[[Digest, Requirement], Sequence[Finding]] | None = None
    holders: Sequence[tuple[str, bytes]] | None = None

    @cached_property
    def usual_statement(self) -> bytes:
        """What an OMS signature over just these bytes signs."""
        return oms.make_oms_statement(self.manifest)


class Judgement(NamedTuple):
    """A verdict and what the caller needs beside it.

    Attributes:
        verdict: The verdict.
        provenance: The accepted provenance, if there is one.
        ignored: Files that the accepted signature leaves out; a held copy must not contain them.
        location: Where the judged bytes lay, their version pinned where the store has versions.
        names: Logical names in all authentic provenance; rules may be about them. What a call demands takes none away.
        relaxed: Whether it passed only because rules were audited or waived: such bytes are no verified input.
        runs: Invocations in all accepted provenance; several runs can make the same bytes.
    """

    verdict: Verdict
    provenance: Provenance | None
    ignored: tuple[str, ...]
    location: Location | None = None
    names: tuple[str, ...] = ()
    relaxed: bool = False
    runs: tuple[str, ...] = ()


@dataclass(eq=False, repr=False)
class _About:
    """The accepted evidence about one digest, which the bytes that were read have."""

    signers: list[Signer] = field(default_factory=list)
    facts: list[tuple[Fact, tuple[Identity, ...]]] = field(default_factory=list)
    provenances: list[Provenance] = field(default_factory=list)
    #: What must be said of those who signed.
    notes: list[Finding] = field(default_factory=list)
    #: Names under which the signatures hold.
    names: set[str] = field(default_factory=set)
    #: Names in all authentic provenance, also where it is not heard.
    said: set[str] = field(default_factory=set)
    #: Files that lie there and are not part of what has this digest.
    left_out: frozenset[str] = frozenset()

    @property
    def kinds(self) -> set[str]:
        return {signer.kind for signer in self.signers}

    @property
    def provenance(self) -> Provenance | None:
        # Several runs can make the same bytes. The latest one speaks in the verdict; each of them may.
        return max(self.provenances, key=lambda item: (item.finished_on, item.invocation), default=None)


#: Evidence counts only together with evidence about the same digest: a signature over some of the files and a
#: provenance of others do not add up. ``None`` stands for a subset whose signed whole has no digest of ours.
_Accepted = dict["Digest | None", _About]


class _Reason(NamedTuple):
    """Why a piece of evidence does not count, and for which kind it would have."""

    kind: str | None
    finding: Finding


class _Piece(NamedTuple):
    """One piece of evidence whose signature holds."""

    item: StoredEvidence
    statement: Statement
    #: The signed manifest where it is known without parsing the statement.
    signed: Manifest | None
    by: Authentic

    @property
    def identities(self) -> tuple[Identity, ...]:
        return self.by.identities

    @property
    def key(self) -> PublicKey:
        return self.by.key

    @property
    def legacy_encoding(self) -> bool:
        return self.by.legacy


def judge(case: Case) -> Judgement:
    """Judge one artifact.

    Raises:
        UsageError: An identity rule names a key that does not exist or is of an unsupported kind.
    """
    requirement = case.requirement
    findings = [finding for finding in case.findings if finding.severity != "unverifiable"]
    reasons: list[_Reason] = []
    unavailable: dict[object, Finding] = {}
    # The whole artifact's own digest is proved by having read it; a signature whose files all matched proves its own.
    accepted: _Accepted = {} if requirement.files else {case.manifest.digest: _About()}
    rehashed: dict[Serialization, Manifest] = {FILES_SHA256: case.manifest}

    if not requirement.identities:
        findings.append(
            Finding(
                "IDENTITY_RULE_MISSING",
                "refusal",
                case.location.uri,
                "Nobody was named who may sign.",
                rule="identities",
            )
        )
    pieces = [piece for item in case.evidence if (piece := _authenticate(item, case, reasons, unavailable)) is not None]
    # Signatures first: the digest that a subset's provenance must name is known only from them.
    for piece in pieces:
        if piece.statement.predicate_type in (oms.PREDICATE_TYPE, oms.LEGACY_PREDICATE_TYPE):
            _judge_signature(piece, case, accepted, rehashed, reasons, unavailable)
    for piece in pieces:
        if piece.statement.predicate_type == provenance.PREDICATE_TYPE:
            _judge_provenance(piece, case, accepted, reasons)

    digest = _digest(case, accepted)
    about = accepted.get(digest) or _About()
    said = about.provenance
    findings += _conclusions(case, accepted, digest, reasons, unavailable)
    status, ordered = conclude(findings)
    return Judgement(
        Verdict(
            status=status,
            artifact=case.location.uri,
            digest=str(digest or ""),
            name=said.name if said else "",
            producer=said.producer if said else "",
            run=said.invocation if said else "",
            signers=tuple(about.signers),
            findings=ordered,
            policy=_policy(requirement),
            checked_at=case.now.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            held=case.held and status == "passed",
            rules=requirement.rules,
        ),
        said if status == "passed" else None,
        tuple(sorted(about.left_out)),
        names=tuple(sorted({name for known in accepted.values() for name in known.said})),
        runs=tuple(dict.fromkeys(item.invocation for item in about.provenances)),
    )


def _digest(case: Case, accepted: _Accepted) -> Digest | None:
    """Return the digest that the check stands for: the demanded one, else the one about which most was proved."""
    if case.requirement.digest in accepted:
        return case.requirement.digest
    demanded = case.requirement.kinds
    return max(accepted, key=lambda digest: len(demanded & accepted[digest].kinds), default=None)


def _policy(requirement: Requirement) -> str:
    try:
        return requirement.policy_digest()
    except (UnavailableError, MissingExtraError):
        # Only a name for the rule; what the missing key means for the verdict was judged with the evidence.
        return ""


def _authenticate(
    item: StoredEvidence, case: Case, reasons: list[_Reason], unavailable: dict[object, Finding]
) -> _Piece | None:
    """Return the piece when an identity's signature over it holds; otherwise note why not."""
    requirement = case.requirement
    found = authenticate(
        item,
        requirement.identities,
        now=case.now,
        revoked=requirement.revoked,
        unavailable=unavailable,
        authorities=requirement.authorities,
        stamped=bool(requirement.stamped),
        legacy_limit=math.inf if requirement.accept_legacy else _EXPLAIN_LEGACY,
    )
    if isinstance(found, Authentic):
        # The usual case without a parser: the bytes that were signed are those that we would have signed.
        if not found.legacy and not requirement.files and found.bundle.payload == case.usual_statement:
            return _Piece(item, *oms.as_signed(case.manifest), found)
        try:
            return _Piece(item, parse_statement(found.bundle.payload), None, found)
        except EvidenceError as error:
            found = (Finding("EVIDENCE_MALFORMED", "refusal", item.name, error.message),)
    for finding in found:
        if finding.severity == "unverifiable":
            unavailable[item.name] = finding
        else:
            reasons.append(_Reason(item.kind if item.kind in _MISSING else None, finding))
    return None


def _judge_signature(
    piece: _Piece,
    case: Case,
    accepted: _Accepted,
    rehashed: dict[Serialization, Manifest],
    reasons: list[_Reason],
    unavailable: dict[object, Finding],
) -> None:
    def refuse(code: str, message: str, *, expected: str = "", found: str = "", rule: str = "signature") -> None:
        finding = Finding(code, "refusal", piece.item.name, message, expected=expected, found=found, rule=rule)
        reasons.append(_Reason("signature", finding))

    legacy = piece.legacy_encoding or piece.statement.predicate_type == oms.LEGACY_PREDICATE_TYPE
    if legacy and not case.requirement.accept_legacy:
        refuse("SIGNATURE_LEGACY", "The signature has the form of model-signing 0.2, which leaves the manifest open.")
        return
    if not piece.key.fits_oms:
        refuse("SIGNATURE_UNSUPPORTED", f"OMS v1.0 does not allow {piece.key.algorithm} signatures.")
        return
    try:
        signed = piece.signed or oms.parse_oms_statement(piece.statement, known=case.manifest)
    except EvidenceError as error:
        refuse("EVIDENCE_MALFORMED", error.message)
        return
    digest = signed.artifact_digest(case.location.kind)
    if case.target is not None and digest is not None and digest != case.target:
        refuse(
            "EVIDENCE_OF_OTHER_ARTIFACT",
            "The signature is about another artifact.",
            expected=str(case.target),
            found=str(digest),
        )
        return
    if signed.serialization.method == "shards":
        # As many ranges as bytes would fill the memory before one of them was compared.
        ranges = case.manifest.size // signed.serialization.shard_size
        if ranges > len(signed.resources):
            refuse(
                "FILE_CHANGED",
                "The artifact has more bytes than the signed ranges.",
                expected=f"{len(signed.resources)} ranges",
                found=f"at least {ranges}",
            )
            return
    try:
        # Once a serialization: the same bundle in a hundred spellings must not cost a hundred reads.
        if signed.serialization not in rehashed:
            rehashed[signed.serialization] = case.rehash(signed.serialization)
        actual = rehashed[signed.serialization]
    except (UnavailableError, MissingExtraError) as error:
        unavailable[piece.item.name] = _unavailable(error, piece.item.name)
        return
    found = differences(signed, actual, files=case.requirement.files, held=case.held, name=case.requirement.name)
    if any(finding.severity == "refusal" for finding in found):
        reasons += [_Reason("signature", finding) for finding in found]
        return
    fact = Fact("signature", piece.key.hint, piece.identities, stamp=piece.by.stamp, unstamped=piece.by.unstamped)
    speaking = heard(case.requirement, fact, case.now)
    if isinstance(speaking, Shortfall):
        refuse(**speaking._asdict())
        return
    left_out = frozenset(ignored_files(signed, actual))
    if not case.requirement.files:
        digest = case.manifest.digest
    if not case.requirement.files and left_out:
        kept = tuple(resource for resource in case.manifest.resources if resource.name not in left_out)
        digest = replace(case.manifest, resources=kept).artifact_digest(case.location.kind)
    about = accepted.setdefault(digest, _About(left_out=left_out))
    about.names |= {signed.name, *(resource.name for resource in signed.resources if case.location.kind == "file")}
    _sign_off(piece, fact, speaking, about)


def _judge_provenance(piece: _Piece, case: Case, accepted: _Accepted, reasons: list[_Reason]) -> None:
    def refuse(code: str, message: str, *, expected: str = "", found: str = "", rule: str = "provenance") -> None:
        finding = Finding(code, "refusal", piece.item.name, message, expected=expected, found=found, rule=rule)
        reasons.append(_Reason("provenance", finding))

    if piece.legacy_encoding:
        refuse("EVIDENCE_MALFORMED", "A provenance statement is signed under a legacy encoding.")
        return
    try:
        parsed = provenance.parse_provenance(piece.statement)
    except EvidenceError as error:
        refuse("EVIDENCE_MALFORMED", error.message)
        return
    requirement = case.requirement
    if parsed.digest not in accepted:
        same = parsed.digest == (case.target or requirement.digest)
        code = "DIGEST_MISMATCH" if same else "EVIDENCE_OF_OTHER_ARTIFACT"
        actual = str(next(iter(accepted), None) or "nothing proved")
        refuse(code, "The signed provenance names other bytes.", expected=str(parsed.digest), found=actual)
        return
    accepted[parsed.digest].said.add(parsed.name)
    fact = Fact(
        "provenance",
        piece.key.hint,
        piece.identities,
        parsed.producer,
        parsed.builder,
        parsed.name,
        parsed.finished_on,
        piece.by.stamp,
        piece.by.unstamped,
    )
    speaking = heard(requirement, fact, case.now)
    if isinstance(speaking, Shortfall):
        refuse(**speaking._asdict())
        return
    accepted[parsed.digest].provenances.append(parsed)
    _sign_off(piece, fact, speaking, accepted[parsed.digest])


def _sign_off(piece: _Piece, fact: Fact, speaking: tuple[Identity, ...], about: _About) -> None:
    about.facts.append((fact, speaking))
    about.notes += piece.by.notes
    about.signers.append(Signer(speaking[0].name, f"sha256:{piece.key.hint}", fact.kind, piece.item.name))


def _conclusions(
    case: Case,
    accepted: _Accepted,
    digest: Digest | None,
    reasons: Sequence[_Reason],
    unavailable: dict[object, Finding],
) -> list[Finding]:
    requirement = case.requirement
    findings: list[Finding] = []
    about = accepted.get(digest) or _About()
    kinds = about.kinds
    open_kinds = sorted(requirement.kinds - kinds)
    # What could not be read may be the very evidence that is missing, so nothing else can be the reason then.
    doubts = [finding for finding in case.findings if finding.severity == "unverifiable"]
    if requirement.digest is not None and requirement.digest not in accepted and not requirement.files:
        findings.append(
            Finding(
                "DIGEST_MISMATCH",
                "refusal",
                case.location.uri,
                "The bytes are not the signed ones.",
                expected=str(requirement.digest),
                found=str(case.manifest.digest),
                rule="reference",
            )
        )
    subset = bool(requirement.files) and "signature" in kinds
    if subset and requirement.digest is not None and requirement.digest not in accepted:
        # A subset has no digest of its own: the signed manifest stands for the rest.
        findings.append(
            Finding(
                "DIGEST_MISMATCH",
                "refusal",
                case.location.uri,
                "The signed manifest is not that of the reference.",
                expected=str(requirement.digest),
                found=", ".join(str(item) for item in accepted if item is not None),
                rule="reference",
            )
        )
    if requirement.files and "signature" not in requirement.kinds and "signature" not in kinds:
        findings.append(
            Finding(
                "SIGNATURE_MISSING",
                "refusal",
                case.location.uri,
                "A subset can be checked only against a signed manifest.",
                rule="files",
            )
        )
    # Where only a signature was asked for, it is the only one that can know the name.
    bare = "signature" in kinds and "provenance" not in requirement.kinds | kinds
    if bare and requirement.name is not None and requirement.name not in about.names:
        findings.append(
            Finding(
                "NAME_MISMATCH",
                "refusal",
                case.location.uri,
                "The artifact was signed under another name.",
                expected=requirement.name,
                found=", ".join(sorted(about.names)),
                rule="name",
            )
        )
    if not case.evidence and open_kinds and not doubts:
        findings.append(
            Finding(
                "EVIDENCE_MISSING",
                "refusal",
                case.location.uri,
                "There is no evidence for these bytes.",
                rule="evidence",
            )
        )
        open_kinds = []
    if not requirement.identities:
        # Nothing is missing but the rule; without it no evidence can count.
        open_kinds = []
    for kind in open_kinds:
        because = [reason.finding for reason in reasons if reason.kind in (kind, None)]
        if doubts:
            continue
        if any(kind in other.kinds for other in accepted.values()):
            because = [
                Finding(
                    "EVIDENCE_OF_OTHER_ARTIFACT",
                    "refusal",
                    case.location.uri,
                    f"There is a {kind}, but about other files than the rest of the evidence.",
                    expected=str(digest),
                    rule=kind,
                )
            ]
        if unavailable:
            # An identity that could not be read might have accepted what the others refused.
            findings += [finding for finding in because if finding.code not in _IDENTITY_CODES]
        else:
            findings += because or [
                Finding(_MISSING[kind], "refusal", case.location.uri, f"There is no {kind} for these bytes.", rule=kind)
            ]
    revoked = {
        str(item) for item in (digest, requirement.digest) if item is not None
    } & requirement.revoked.digests.keys()
    for text in sorted(revoked):
        findings.append(
            Finding(
                "ARTIFACT_REVOKED",
                "refusal",
                case.location.uri,
                "The artifact is revoked.",
                found=f"{text}: {requirement.revoked.digests[text]}",
                rule="revocations",
            )
        )
    for short in missing(
        requirement, about.facts, case.now, pinned=requirement.digest is not None, consumer=case.consumer
    ):
        # Without the kinds of evidence there is nobody to count yet; what could not be read may be what is missing.
        countable = short.code == "LOADER_NOT_ALLOWED" or (requirement.identities and not requirement.kinds - kinds)
        if countable and short.code != "LOADER_NOT_ALLOWED" and (doubts or unavailable):
            open_kinds = sorted(requirement.kinds)
        elif countable:
            findings.append(_refusal(case.location.uri, short))
    findings += [_refusal(case.location.uri, short) for short in unsealed(requirement, case.holders)]
    if requirement.traces and not open_kinds and not any(finding.severity == "refusal" for finding in findings):
        findings += _traced(case, digest)
    # The file that changed says more than a digest over all of them.
    findings.sort(key=lambda finding: not finding.code.startswith("FILE_"))
    shown = {id(finding) for finding in findings}
    findings += [_as(reason.finding, "warning") for reason in reasons if id(reason.finding) not in shown]
    findings += [finding if open_kinds else _as(finding, "warning") for finding in (*doubts, *unavailable.values())]
    return _unique(findings) + _notes(case, about)


def _traced(case: Case, digest: Digest | None) -> list[Finding]:
    """Return what keeps the artifact's lineage from holding, and everything else that was seen on the way."""
    if case.trace is None or digest is None:
        return [_refusal(case.location.uri, untraced(case.requirement))]
    found = list(case.trace(digest, case.requirement))
    if not any(finding.severity == "refusal" for finding in found):
        return found
    # One refusal for all: what is wrong upstream is told, and how much it weighs is for the rule that asked.
    seen = [_as(finding, "warning") if finding.severity == "refusal" else finding for finding in found]
    return [_refusal(case.location.uri, untraced(case.requirement)), *seen]


def _notes(case: Case, about: _About) -> list[Finding]:
    """Return what a reader must know so as not to believe more than was checked."""
    requirement = case.requirement
    subject = case.location.uri
    notes: list[Finding] = list(about.notes)
    if not case.held:
        notes.append(
            Finding("CHECKED_NOT_HELD", "note", subject, "The bytes were checked and can change before they are used.")
        )
    if requirement.files:
        notes.append(Finding("SUBSET_CHECKED", "note", subject, f"{len(requirement.files)} files were checked."))
    if requirement.digest is None:
        notes.append(Finding("FRESHNESS_NOT_CHECKED", "note", subject, "An older signed version would pass as well."))
    said = about.provenance
    if said is not None and requirement.name is None:
        notes.append(Finding("NAME_NOT_STATED", "note", subject, "No logical name was expected.", found=said.name))
    if "signature" not in requirement.kinds:
        notes.append(Finding("SIGNATURE_NOT_REQUIRED", "note", subject, "Judged from the signed provenance alone."))
    if "provenance" not in requirement.kinds:
        notes.append(
            Finding(
                "PROVENANCE_NOT_REQUIRED",
                "warning",
                subject,
                "The signature binds the bytes, not which artifact they are.",
            )
        )
    for name in sorted(about.left_out)[:10]:
        notes.append(
            Finding("FILE_IGNORED", "note", name, "The signature leaves this path out; so does the checked copy.")
        )
    return notes


def _refusal(subject: str, short: Shortfall) -> Finding:
    return Finding(
        short.code, "refusal", subject, short.message, expected=short.expected, found=short.found, rule=short.rule
    )


def _unavailable(error: UnavailableError | MissingExtraError, subject: str) -> Finding:
    return Finding(error.code, "unverifiable", subject, error.message, next_step=error.next_step)


def _as(finding: Finding, severity: Severity) -> Finding:
    return replace(finding, severity=severity)


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))
