"""What the evidence of one artifact adds up to, as one step of a walk over signed provenance. Pure.

Who signed, what was signed, about which digest, and what the rules that hold for just this artifact make of it. Nobody
reads the artifact's bytes here: its digest is what a start or signed provenance states, and evidence must be about it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from sealflow.errors import EvidenceError
from sealflow.evidence import oms, provenance, summary
from sealflow.evidence.bundle import Bundle
from sealflow.evidence.own_provenance import read_own_form
from sealflow.evidence.provenance import Dependency, Provenance, parse_dependencies, parse_provenance
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import Finding, Signer
from sealflow.hashing import Digest
from sealflow.keys import PublicKey
from sealflow.policy import Identity, Requirement
from sealflow.policy.decide import Fact, Shortfall, heard, missing
from sealflow.run_identity import ADOPTED_BUILDER
from sealflow.verification.authenticate import Authentic, authenticate
from sealflow.verification.graph import State
from sealflow.verification.opening import Opened
from sealflow.verification.reuse import Wanted, choose

#: Kinds of evidence that every artifact on the way is asked for.
WITH_PROVENANCE: Final = frozenset({"provenance"})
WITH_SUMMARIES: Final = frozenset({"provenance", summary.KIND})
SIGNATURE: Final = frozenset({"signature"})

#: Reasons that may be wrong where an identity's key cannot be had.
_IDENTITY_CODES: Final = frozenset({"SIGNER_NOT_ALLOWED", "CERTIFICATE_NAME", "CERTIFICATE_UNTRUSTED"})

_NONE_STATED: Final[frozenset[frozenset[Digest]]] = frozenset()
#: Most refused pieces of evidence that are named for one artifact.
_MAX_NAMED: Final = 10


class Gathered(NamedTuple):
    """Evidence that was found about a digest.

    Attributes:
        evidence: Bytes that claim to be evidence.
        findings: What was observed on the way; ``unverifiable`` where something could not be read.
        opened: For each piece the same, opened ahead, or ``None``. Empty where nothing was.
    """

    evidence: Sequence[StoredEvidence]
    findings: Sequence[Finding] = ()
    opened: Sequence[Opened | None] = ()


class Reuse(NamedTuple):
    """Under which condition a verification summary stands for the rest of the way.

    Attributes:
        policy: ``sha256:`` and the digest of the policy in force.
        requirement: ``sha256:`` and the digest of all that a walk from this artifact demands.
        seconds: Greatest age.
        verifiers: Who may say it.
    """

    policy: str
    requirement: str
    seconds: int
    verifiers: tuple[Identity, ...]


@dataclass(frozen=True)
class Terms:
    """What holds for one artifact.

    Attributes:
        requirement: What must be proved. Provenance is, whatever kinds it names.
        ruled: Whether an admin's rules are about it. Then neither a data owner's signature nor a listed digest takes
            anything away from what they demand.
        reuse: Whether a summary may stand for the rest of the way.
    """

    requirement: Requirement
    ruled: bool = False
    reuse: Reuse | None = None


#: Gives the evidence of these kinds about a digest, for which these locations are known.
Gather = Callable[[Digest, Sequence[str], frozenset[str]], Gathered]
#: Gives what holds for a digest with these locations and signed names, or why nobody can say.
TermsFor = Callable[[Digest, Sequence[str], Sequence[str]], "Terms | Finding"]


class Start(NamedTuple):
    """Where a walk begins.

    Attributes:
        digest: The artifact.
        locations: Where it lies, as far as that is known.
        pinned: Whether the caller states the digest, so that no older version can stand in.
    """

    digest: Digest
    locations: tuple[str, ...] = ()
    pinned: bool = True


class _Said(NamedTuple):
    """Provenance whose signature holds and that is about the digest."""

    piece: Authentic
    said: Provenance
    #: What it was made from, where that is parsed already.
    inputs: tuple[Dependency, ...] | None = None


@dataclass(slots=True)
class Assessed:
    """What the evidence of one digest adds up to.

    Attributes:
        state: Its state, without regard to what it was made from.
        terms: What held for it.
        names: Signed names of all authentic provenance.
        name: Signed name in the latest provenance that counts, as the three that follow.
        producer: Signed producer.
        run: Signed invocation id.
        when: Signed time.
        signers: Who made the accepted evidence.
        inputs: What it was made from: the locations and the names that are stated for each. Empty where the way ends.
        stated: All that each accepted provenance names, sources included.
        findings: What decides, then warnings and notes.
    """

    state: State
    terms: Terms | None = None
    names: tuple[str, ...] = ()
    name: str = ""
    producer: str = ""
    run: str = ""
    when: str = ""
    signers: tuple[Signer, ...] = ()
    inputs: dict[Digest, list[Dependency]] = field(default_factory=dict)
    stated: frozenset[frozenset[Digest]] = frozenset()
    findings: tuple[Finding, ...] = ()


class _Holder(NamedTuple):
    """Those whose key made signatures, and which of them the requirement names, and which are data owners."""

    identities: tuple[Identity, ...]
    key: PublicKey
    mine: tuple[Identity, ...]
    owners: tuple[Identity, ...]


class _Trust(NamedTuple):
    """Whom a requirement believes."""

    requirement: Requirement
    #: Also the data owners.
    everybody: tuple[Identity, ...]
    named: frozenset[Identity]
    #: By the key's fingerprint, those who turned out to hold it: who does depends on nothing else in a bundle that
    #: names its key by just that, and neither the time nor the revoked keys change during a walk.
    holders: dict[str, _Holder]


class Assessor:
    """Judges single digests; what it learns about identities out of reach holds for all of them.

    Args:
        gather: Gives evidence.
        terms_for: Gives what holds for an artifact.
        roots: Data owners.
        datasets: Digests that end a walk.
        now: Time of the check, aware.
        consumer: Producer string of the task that checks.
    """

    def __init__(
        self,
        gather: Gather,
        terms_for: TermsFor,
        *,
        roots: Sequence[Identity] = (),
        datasets: Collection[Digest] = (),
        now: datetime.datetime,
        consumer: str = "",
    ) -> None:
        self.gather = gather
        self.terms_for = terms_for
        self.roots = tuple(roots)
        self.datasets = frozenset(datasets)
        self.now = now
        self.consumer = consumer
        self.unavailable: dict[object, Finding] = {}
        #: Told which key a bundle turned out to be signed with, where somebody opens others ahead.
        self.learn: Callable[[Bundle, PublicKey], None] | None = None
        #: Bytes of evidence so far.
        self.size = 0
        self._trust: _Trust | None = None

    def assess(self, digest: Digest, locations: Sequence[str] = (), start: Start | None = None) -> Assessed:
        """Judge one digest by its own evidence.

        Args:
            digest: The digest.
            locations: Where it is said to lie.
            start: Set where a walk begins here.

        Raises:
            UsageError: An identity names a key that does not exist or is of an unsupported kind.
        """
        terms = self.terms_for(digest, locations, ())
        if isinstance(terms, Finding):
            return undecided(terms)
        found = self.collect(digest, locations, WITH_SUMMARIES)
        judging = _Judging(self, digest, locations, terms, found, start)
        names = judging.open()
        more = bool(names)
        # Names bring rules, rules bring signers, and what these signed may say one more name.
        while more:
            named = self.terms_for(digest, locations, names)
            if isinstance(named, Finding):
                return undecided(named)
            if named is terms or named == terms:
                break
            terms = named
            judging = _Judging(self, digest, locations, terms, found, start)
            known = names
            names = tuple(sorted({*known, *judging.open()}))
            more = names != known
        judged = judging.conclude()
        judged.names = names
        return judged

    def collect(self, digest: Digest, locations: Sequence[str], kinds: frozenset[str]) -> Gathered:
        """Gather evidence and count its bytes."""
        found = self.gather(digest, locations, kinds)
        self.size += sum([len(item.data) for item in found.evidence])
        return found

    def trust(self, requirement: Requirement) -> _Trust:
        """Return whom a requirement believes. Most artifacts of a walk have the same one."""
        if self._trust is None or self._trust.requirement is not requirement:
            named = requirement.identities
            self._trust = _Trust(requirement, tuple(dict.fromkeys((*named, *self.roots))), frozenset(named), {})
        return self._trust


class _Judging:
    """The judgement of one digest."""

    def __init__(
        self,
        walk: Assessor,
        digest: Digest,
        locations: Sequence[str],
        terms: Terms,
        found: Gathered,
        start: Start | None,
    ) -> None:
        self.walk = walk
        self.digest = digest
        self.locations = locations
        self.terms = terms
        self.requirement = terms.requirement
        self.trust = walk.trust(terms.requirement)
        self.found = found
        self.start = start
        self.doubts = [finding for finding in found.findings if finding.severity == "unverifiable"]
        self.said: list[_Said] = []
        self.refused: list[Finding] = []
        self.notes: list[Finding] = []
        self.facts: list[tuple[Fact, tuple[Identity, ...]]] = []
        self.accepted: list[_Said] = []
        #: Whether a data owner vouches for it, and whether one does who could not have signed it as its producer.
        self.owned = self.vouched = False
        self.signers: list[Signer] = []
        self.stated: set[frozenset[Digest]] = set()

    def open(self) -> tuple[str, ...]:
        """Read the provenance whose signature holds, and return the names that it gives the artifact."""
        everybody, ahead = self.trust.everybody, self.found.opened
        for index, item in enumerate(self.found.evidence):
            if item.kind not in (None, "provenance"):
                continue
            opened = ahead[index] if ahead else None
            piece = self._authentic(item, everybody, opened)
            if piece is None:
                continue
            if opened is None and self.walk.learn is not None:
                self.walk.learn(piece.bundle, piece.key)
            inputs: tuple[Dependency, ...] | None
            if opened is not None:
                said, inputs = opened.said, opened.inputs
            elif (own := read_own_form(piece.bundle.payload)) is not None:
                said, inputs = own
            else:
                inputs = None
                try:
                    statement = parse_statement(piece.bundle.payload)
                    if item.kind is None and statement.predicate_type != provenance.PREDICATE_TYPE:
                        continue  # handed over without a name that says of what kind it is
                    said = parse_provenance(statement)
                except EvidenceError as error:
                    self._refuse(item, "EVIDENCE_MALFORMED", error.message)
                    continue
            if said.digest != self.digest:
                message = "The signed provenance names other bytes."
                self._refuse(item, "EVIDENCE_OF_OTHER_ARTIFACT", message, str(self.digest), str(said.digest))
                continue
            self.said.append(_Said(piece, said, inputs))
        if len(self.said) == 1:
            return (self.said[0].said.name,)
        return tuple(sorted({item.said.name for item in self.said}))

    def conclude(self) -> Assessed:
        """Return what the evidence adds up to."""
        for item in self.said:
            self._hear(item)
        if "signature" in self.requirement.kinds:
            self._hear_signatures()
        listed_as_bad = self.requirement.revoked.digests
        revoked = listed_as_bad.get(str(self.digest)) if listed_as_bad else None
        if revoked is not None:
            message = "The artifact is revoked."
            return self._made("refused", [self._finding("ARTIFACT_REVOKED", message, "", revoked, "revocations")])
        listed = self.digest in self.walk.datasets
        left_open = self._left_open()
        if left_open:
            owned = not self.terms.ruled and (listed or self.owned)
            return self._made("dataset", []) if owned else self._unsound(left_open)
        if listed or self.vouched:
            return self._made("dataset", [])
        inputs = self._inputs()
        if isinstance(inputs, Finding):
            made = self._made("refused", [inputs])
            made.stated = self._all_stated()
            return made
        if all(item.source for items in inputs.values() for item in items):
            # Sources alone are no beginning: whoever signs could call everything a source.
            return self._made("dataset", []) if self.owned else self._made("refused", [self._no_root()])
        made = self._made("attested", [])
        made.inputs, made.stated = inputs, self._all_stated()
        if self.terms.reuse is not None:
            self._summarise(made, self.terms.reuse)
        return made

    def _authentic(
        self, item: StoredEvidence, identities: tuple[Identity, ...], opened: Opened | None = None
    ) -> Authentic | None:
        walk = self.walk
        # Where an identity is out of reach, everybody is asked each time.
        alone = opened.key if opened is not None and _names_key_alone(opened) and not walk.unavailable else ""
        if self.requirement.stamped:
            alone = ""  # each piece brings a timestamp of its own
        known = self.trust.holders.get(alone)
        if known is not None and opened is not None and not item.altered and not item.problem:
            return Authentic(item, opened.bundle, known.identities, known.key)
        found = authenticate(
            item,
            identities,
            now=walk.now,
            revoked=self.requirement.revoked,
            unavailable=walk.unavailable,
            authorities=self.requirement.authorities,
            stamped=bool(self.requirement.stamped),
            opened=opened,
        )
        if isinstance(found, Authentic):
            self.notes += found.notes
            if found.notes or found.stamp is not None or self.requirement.stamped:
                # It counts by its timestamp; another piece of that key must bring its own.
                return found
            if alone == found.key.hint and not walk.unavailable:
                self.trust.holders[alone] = self._holder(found)
            return found
        self.doubts += [finding for finding in found if _open(finding)]
        # The reasons that say most: not those of everybody who has nothing to do with it.
        told = [finding for finding in found if finding.code != "SIGNER_NOT_ALLOWED" and not _open(finding)]
        told = told or [finding for finding in found if not _open(finding)]
        self.refused += [replace(finding, subject=self._object(item)) for finding in told]
        return None

    def _holder(self, piece: Authentic) -> _Holder:
        known = self.trust.holders.get(piece.key.hint)
        if known is not None and known.identities is piece.identities:
            return known
        named, roots = self.trust.named, self.walk.roots
        mine = tuple([identity for identity in piece.identities if identity in named])
        owners = tuple([identity for identity in piece.identities if identity in roots])
        return _Holder(piece.identities, piece.key, mine, owners)

    def _hear(self, item: _Said) -> None:
        piece, said, _ = item
        _, _, mine, owners = self._holder(piece)
        owner = self._owner(said, owners) if owners else None
        if owner is not None and not isinstance(owner, Shortfall):
            self.owned = True
        if not mine:
            # Only a data owner signed it. Where rules are about the artifact, that is not enough.
            if isinstance(owner, Shortfall):
                self._refuse(piece.item, *owner)
            elif owner is not None:
                self.vouched = True
                self._sign(owner, piece, "provenance")
                self.accepted.append(item)
                if self.terms.ruled:
                    message = "A data owner signed it, and the rules for it ask for others."
                    expected = ", ".join([identity.name for identity in self.requirement.identities])
                    self._refuse(piece.item, "SIGNER_NOT_ALLOWED", message, expected, owner.name, "roots")
            return
        told = (said.producer, said.builder, said.name, said.finished_on)
        fact = Fact("provenance", piece.key.hint, mine, *told, piece.stamp, piece.unstamped)
        speaking = heard(self.requirement, fact, self.walk.now)
        if isinstance(speaking, Shortfall):
            self._refuse(piece.item, *speaking)
            return
        self.facts.append((fact, speaking))
        self.accepted.append(item)
        self._sign(speaking[0], piece, "provenance")

    def _owner(self, said: Provenance, owners: tuple[Identity, ...]) -> Identity | Shortfall:
        """Return the data owner of those who signed through whom provenance speaks, or why none does."""
        if said.builder == ADOPTED_BUILDER:
            message = "Somebody adopted the artifact as it lay there; who made it is not known."
            return Shortfall("PROVENANCE_ADOPTED", message, "provenance of a run", f"on {said.finished_on}", "roots")
        for identity in owners:
            if identity.may_speak_for(said.producer, said.builder):
                return identity
        message = "The data owner may not speak for this producer."
        expected = ", ".join(text for identity in owners for text in (*identity.producers, *identity.builders))
        return Shortfall("PRODUCER_NOT_ALLOWED", message, expected, f"{said.producer} ({said.builder})", owners[0].name)

    def _hear_signatures(self) -> None:
        """Take the OMS signatures over exactly what has this digest; nobody reads bytes here."""
        found = self.walk.collect(self.digest, self.locations, SIGNATURE)
        self.doubts += [finding for finding in found.findings if finding.severity == "unverifiable"]
        kind: Literal["file", "tree"] = "file" if self.digest.algorithm == "sha256" else "tree"
        for item in found.evidence:
            piece = self._authentic(item, self.requirement.identities)
            if piece is None:
                continue
            try:
                statement = parse_statement(piece.bundle.payload)
                if statement.predicate_type != oms.PREDICATE_TYPE or not piece.key.fits_oms:
                    message = "This is no OMS v1.0 signature with a key that OMS v1.0 allows."
                    self._refuse(item, "SIGNATURE_UNSUPPORTED", message)
                    continue
                signed = oms.parse_oms_statement(statement).artifact_digest(kind)
            except EvidenceError as error:
                self._refuse(item, "EVIDENCE_MALFORMED", error.message)
                continue
            if signed != self.digest:
                message = "The signature is about another artifact, or only the bytes could tell about which."
                self._refuse(item, "EVIDENCE_OF_OTHER_ARTIFACT", message, str(self.digest), str(signed or ""))
                continue
            by = (piece.key.hint, piece.identities)
            fact = Fact("signature", *by, stamp=piece.stamp, unstamped=piece.unstamped)
            speaking = heard(self.requirement, fact, self.walk.now)
            if isinstance(speaking, Shortfall):
                self._refuse(item, *speaking)
            else:
                self.facts.append((fact, speaking))
                self._sign(speaking[0], piece, "signature")

    def _left_open(self) -> list[Finding]:
        """Return what the requirement leaves open, as refusals or, where something could not be read, as doubts."""
        requirement, walk = self.requirement, self.walk
        if not requirement.clauses:
            return [self._finding("IDENTITY_RULE_MISSING", "Nobody was named who may sign it.", rule="identities")]
        open_kinds = {*requirement.kinds, "provenance"} - {fact.kind for fact, _ in self.facts}
        doubts = list(self.doubts)
        if walk.unavailable:
            doubts += [walk.unavailable[item] for item in self.trust.everybody if item in walk.unavailable]
        if open_kinds:
            # What could not be read may be the very piece that is missing, and an identity out of reach might accept
            # what the others refused.
            if self.doubts:
                return doubts
            if doubts:
                return [*(item for item in self.refused if item.code not in _IDENTITY_CODES), *doubts]
            return self._absent(open_kinds)
        pinned = self.start is None or self.start.pinned
        shorts = missing(requirement, self.facts, walk.now, pinned=pinned, consumer=walk.consumer)
        return doubts if shorts and doubts else [self._finding(*short) for short in shorts]

    def _absent(self, open_kinds: set[str]) -> list[Finding]:
        begins = self.start is not None
        if self.refused:
            return list(dict.fromkeys(self.refused))[:_MAX_NAMED]
        if begins and not self.found.evidence:
            return [self._finding("EVIDENCE_MISSING", "There is no evidence about the artifact.", rule="evidence")]
        if "provenance" not in open_kinds:
            return [self._finding("SIGNATURE_MISSING", "There is no signature over these bytes.", rule="signature")]
        if begins:
            return [self._finding("PROVENANCE_MISSING", "There is no provenance of these bytes.", rule="provenance")]
        return [self._finding("DEP_UNATTESTED", "Nobody signed where this input comes from.", rule="provenance")]

    def _inputs(self) -> dict[Digest, list[Dependency]] | Finding:
        """Return what the artifact was made from, on which all accepted provenance must agree."""
        # Runs may differ in their sources and still have made the same bytes from the same data.
        stated: dict[frozenset[Digest], dict[Digest, list[Dependency]]] = {}
        for piece, said, opened in self.accepted:
            try:
                dependencies = parse_dependencies(said) if opened is None else opened
            except EvidenceError as error:
                subject = self._object(piece.item)
                return Finding("EVIDENCE_MALFORMED", "refusal", subject, error.message, rule="provenance")
            made = {dependency.digest: [dependency] for dependency in dependencies}
            if len(made) < len(dependencies):
                made = {digest: [] for digest in made}
                for dependency in dependencies:
                    made[dependency.digest].append(dependency)
            if self.start is not None:
                self.stated.add(frozenset(made))
            if len(self.accepted) == 1:
                return made
            data = [used for used, items in made.items() if not all(item.source for item in items)]
            together = stated.setdefault(frozenset(data), made)
            if together is not made:
                for digest, items in made.items():
                    together.setdefault(digest, []).extend(items)
        if len(stated) > 1:
            # Who verified the artifact and signed it once more says nothing of what it was made from.
            stated.pop(frozenset({self.digest}), None)
        if len(stated) > 1:
            message = "Accepted provenance of the same bytes names different inputs."
            found = "; ".join(sorted(map(_spelled, stated))[:_MAX_NAMED])
            return self._finding("LINEAGE_AMBIGUOUS", message, "one set of inputs", found, "provenance")
        return next(iter(stated.values()))

    def _all_stated(self) -> frozenset[frozenset[Digest]]:
        # One empty set for all: only starts have more.
        return frozenset(self.stated) if self.stated else _NONE_STATED

    def _no_root(self) -> Finding:
        owners = ", ".join(identity.name for identity in self.walk.roots)
        return self._finding(
            "ROOT_NOT_ALLOWED",
            "Its provenance names nothing that it was made from, and nobody vouches for it as a dataset.",
            f"signed by {owners}" if owners else "a data owner, or a listed digest",
            "signed by " + ", ".join(dict.fromkeys(signer.identity for signer in self.signers)),
            "roots",
        )

    def _summarise(self, made: Assessed, reuse: Reuse) -> None:
        """Let a verifier's summary stand for the rest of the way."""
        objects = [item for item in self.found.evidence if item.kind == summary.KIND]
        revoked, now = self.requirement.revoked, self.walk.now
        terms = (reuse.policy, reuse.requirement, reuse.seconds, reuse.verifiers)
        accepted, findings = choose(
            objects, Wanted(self.digest, None, *terms, revoked, now, True, self.requirement.authorities)
        )
        told = [replace(finding, subject=f"{self.digest.path_segment}/{finding.subject}") for finding in findings]
        made.findings = (*made.findings, *told)
        if accepted is None:
            return
        subject = f"{self.digest.path_segment}/{accepted.evidence}"
        if f"sha256:{accepted.key}" in {signer.key for signer in made.signers}:
            message = "A verification summary does not count. Its key signed the artifact too."
            refused = Finding("SUMMARY_REFUSED", "warning", subject, message, rule="reuse_verdict")
            made.findings = (*made.findings, refused)
            return
        when = accepted.summary.time.strftime("%Y-%m-%dT%H:%M:%SZ")
        message = "A verification summary stands for the rest of the way."
        expected, found = f"at most {reuse.seconds} seconds old", f"{accepted.verifier} walked it at {when}"
        made.state, made.inputs = "summarised", {}
        note = Finding("LINEAGE_REUSED", "note", subject, message, expected, found, "reuse_verdict")
        made.findings = (*made.findings, note)

    def _unsound(self, findings: list[Finding]) -> Assessed:
        codes = {finding.code for finding in findings}
        refused = any(finding.severity == "refusal" for finding in findings)
        absent = codes <= {"DEP_UNATTESTED", "EVIDENCE_MISSING", "PROVENANCE_MISSING"}
        return self._made("unattested" if absent else "refused" if refused else "unverifiable", findings)

    def _made(self, state: State, deciding: list[Finding]) -> Assessed:
        findings = deciding
        if self.refused or self.doubts or self.found.findings or self.notes:
            rest = [replace(item, severity="warning") for item in (*self.refused, *self.doubts) if item not in deciding]
            rest += [replace(item, subject=f"{self.digest.path_segment}/{item.subject}") for item in self.notes]
            rest += [item for item in self.found.findings if item.severity in ("warning", "note")]
            # A flood of refused objects names nobody new.
            findings = [*deciding, *list(dict.fromkeys(rest))[:_MAX_NAMED]]
        made = Assessed(state, self.terms, signers=tuple(self.signers), findings=tuple(findings))
        if self.accepted:
            # Several runs can make the same bytes. The latest one speaks; each of them may.
            said = max(self.accepted, key=lambda item: (item.said.finished_on, item.said.invocation)).said
            made.name, made.producer, made.run, made.when = said.name, said.producer, said.invocation, said.finished_on
        return made

    def _sign(self, identity: Identity, piece: Authentic, kind: str) -> None:
        self.signers.append(Signer(identity.name, f"sha256:{piece.key.hint}", kind, piece.item.name))

    def _object(self, item: StoredEvidence) -> str:
        return f"{self.digest.path_segment}/{item.name}"

    def _refuse(
        self, item: StoredEvidence, code: str, message: str, expected: str = "", found: str = "", rule: str = ""
    ) -> None:
        self.refused.append(Finding(code, "refusal", self._object(item), message, expected, found, rule))

    def _finding(self, code: str, message: str, expected: str = "", found: str = "", rule: str = "") -> Finding:
        return Finding(code, "refusal", str(self.digest), message, expected, found, rule)


def undecided(finding: Finding) -> Assessed:
    """Return what is left where nobody can say what holds for an artifact, or how to go on."""
    return Assessed("refused" if finding.severity == "refusal" else "unverifiable", findings=(finding,))


def _open(finding: Finding) -> bool:
    return finding.severity == "unverifiable"


def _names_key_alone(opened: Opened) -> bool:
    bundle = opened.bundle
    return bundle.hint == opened.key and not bundle.chain and not bundle.keyless


def _spelled(digests: Iterable[Digest]) -> str:
    return " + ".join(sorted(str(item)[:20] for item in digests)) or "nothing"
