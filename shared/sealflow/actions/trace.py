"""Trace: from an artifact back to the datasets behind it, and from a dataset to what was made from it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.ahead import ReadAhead
from sealflow.actions.gathering import EvidenceReader
from sealflow.actions.policies import Policies, places_of, policies_at
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.errors import (
    ArtifactError,
    EvidenceError,
    MissingExtraError,
    SealflowError,
    UnavailableError,
    UsageError,
)
from sealflow.evidence import ArtifactRef, EvidenceStore, StoredEvidence, make_bundle, summary
from sealflow.evidence.place import is_repository
from sealflow.evidence.reference import is_reference
from sealflow.findings import CODES, Finding, Verdict, conclude, printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import KeySigner, load_signer
from sealflow.manifest import build_manifest
from sealflow.manifest.build import Progress
from sealflow.policy import Requirement, parse_identities
from sealflow.policy.compose import Arguments, Ruling, compose_without_policy
from sealflow.policy.identities import Identity, KeyIdentity
from sealflow.storage import Storages
from sealflow.verification.assess import Assessor, Gather, Gathered, Reuse, Start, Terms
from sealflow.verification.descend import Descended, descend
from sealflow.verification.graph import Graph, Node
from sealflow.verification.reuse import Wanted, choose
from sealflow.verification.walk import Ahead, Walked, walk

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

#: Most artifacts of one evidence store that are looked at for descendants.
MAX_ARTIFACTS: Final = 200_000
#: After how many seconds a verifier says again what it said already, at most.
_RENEW_AFTER: Final = 24 * 3600
_DIGEST: Final = re.compile(r"(?:sha256|dirHash):[0-9a-f]{64}")


@dataclass(frozen=True)
class Traced:
    """What a trace found.

    Attributes:
        verdict: The verdict; its artifact, digest, name, producer, run and signers are those of the start.
        graph: The graph.
    """

    verdict: Verdict
    graph: Graph

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"sealflow_lineage": 1, "verdict": self.verdict.as_dict(), "graph": self.graph.as_dict()}


@dataclass(frozen=True)
class _Target:
    """What a call names.

    Attributes:
        subject: How messages and the audit log call it.
        digest: Its digest; ``None`` until its bytes are read.
        location: Where it lies; empty when only a digest is given.
        ref: The reference that was given.
    """

    subject: str
    digest: Digest | None
    location: str
    ref: ArtifactRef | None = None


def trace(
    artifact: str | os.PathLike[str] | ArtifactRef | Digest | dict[str, Any],
    *,
    identities: Any = None,
    roots: Any = None,
    datasets: Iterable[str | Digest] = (),
    evidence_stores: Sequence[str] = (),
    policy: str | CompiledPolicy | None = None,
    verifier: str | KeySigner | None = None,
    storages: Storages | None = None,
    sink: AuditSink | None = None,
    progress: Progress | None = None,
) -> Traced:
    """Walk from an artifact back to the datasets that it was made from, over signed provenance alone.

    Args:
        artifact: A location, whose bytes are read; or a reference or an artifact digest, with which nothing is.
        identities: Who may sign provenance on the way, by default what the policy says, without one what the
            surroundings set.
        roots: Data owners: identities whose signed provenance ends the walk. Without any, and without datasets, those
            that the artifact's own rules accept.
        datasets: Artifact digests that end the walk too.
        evidence_stores: Where evidence is looked for; also in the reference's store, in the one that the surroundings
            set, and beside each location that signed provenance names.
        policy: One more policy, the path of a draft; it can only tighten.
        verifier: Signer of verification summaries, by default the one that the surroundings set. With one, a trace that
            passes under a policy in force leaves a summary; where the policy's `reuse_verdict` allows it, a later trace
            takes such a summary instead of walking on.
        storages: Finds storage.
        sink: Takes audit events.
        progress: Called while the artifact is read.

    Raises:
        UsageError: A parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach. Evidence out of reach is an ``unverifiable`` verdict.
    """
    surroundings = context.current()
    storages = storages or Storages()
    target = _target(artifact, storages)
    listed = _digests(datasets)
    owners = parse_identities(roots)
    rules = Rules(surroundings, storages, identities, owners, listed, policy)
    stores = _stores(evidence_stores, target, surroundings)
    reader = EvidenceReader(stores, storages)
    signer, problem = _open_verifier(verifier or surroundings.settings.verifier)
    with Recording("trace", target.subject, surroundings, sink=sink) as recording, rare_collection():
        digest, notes = _read(target, storages, progress)
        if digest is None:
            made = Traced(_verdict(target, None, None, "", notes), Graph((), {}, {}))
            recording.judged(made.verdict)
            return made
        locations = (target.location,) if target.location else ()
        if roots is None and not listed:
            owners, listed = rules.begin_as_ruled(digest, locations)
        start = Start(digest, locations, pinned=target.digest is not None)
        with ReadAhead(reader) as gather:
            walked = walk_under([start], gather, rules, owners, listed, ahead=gather)
        notes += rules.notes(target.subject)
        ruling = rules.ruling_of(locations, walked.graph.nodes[digest].name)
        verdict = _verdict(target, walked, ruling, rules.demanded(ruling), [*walked.findings, *notes])
        recording.judged(verdict)
    made = Traced(verdict, walked.graph)
    if verdict.passed and not walked.reused and ruling is not None and (signer or problem):
        made = _Summary(surroundings, storages, rules, ruling, target, sink).leave(made, stores, signer, problem)
    return made


def walk_back(
    digest: Digest,
    requirement: Requirement,
    *,
    location: str,
    handed: Sequence[StoredEvidence],
    stores: Sequence[str],
    identities: Any,
    policy: str | CompiledPolicy | None,
    surroundings: context.Surroundings,
    storages: Storages,
) -> tuple[Finding, ...]:
    """Return what keeps an artifact whose own evidence holds from having come from where its rules want it to.

    Args:
        digest: The artifact.
        requirement: What its rules demand.
        location: Where it lies.
        handed: Evidence about it that was handed over.
        stores: Where evidence is looked for first.
        identities: Who may sign, if the call says so.
        policy: One more policy.
        surroundings: Who checks.
        storages: Finds storage.
    """
    roots, datasets = requirement.beginnings
    rules = Rules(surroundings, storages, identities, roots, datasets, policy)
    settled = surroundings.settings.evidence_store
    reader = EvidenceReader([*stores, *([settled] if settled else [])], storages)

    with ReadAhead(reader) as ahead:

        def gather(asked: Digest, locations: Sequence[str], kinds: frozenset[str]) -> Gathered:
            found = ahead(asked, locations, kinds)
            if asked != digest or not handed:
                return found
            # What was handed over comes first, and nobody opened that.
            return Gathered((*handed, *found.evidence), found.findings)

        return walk_under([Start(digest, (location,))], gather, rules, roots, datasets, ahead=ahead).findings


def walk_under(
    starts: Sequence[Start],
    gather: Gather,
    rules: Rules,
    roots: tuple[Identity, ...],
    datasets: frozenset[Digest],
    *,
    ahead: Ahead | None = None,
) -> Walked:
    """Walk, and walk again from whatever on the way has rules of its own that say where it must begin.

    No summary stands in on those further walks: it would speak of the beginnings that were asked for first.

    Returns:
        The first walk, with the findings of all.
    """

    def without_summaries(digest: Digest, locations: Sequence[str], names: Sequence[str]) -> Terms | Finding:
        found = rules(digest, locations, names)
        return replace(found, reuse=None) if isinstance(found, Terms) and found.reuse is not None else found

    consumer = rules.consumer
    first = walk(starts, gather, rules, roots=roots, datasets=datasets, now=rules.now, consumer=consumer, ahead=ahead)
    begun = {item.digest for item in starts}
    findings = dict.fromkeys(first.findings)
    waiting = [first]
    done: set[tuple[Digest, tuple[Identity, ...], frozenset[Digest]]] = set()
    while waiting:
        again: dict[tuple[tuple[Identity, ...], frozenset[Digest]], list[Start]] = {}
        seen = waiting.pop()
        for node in seen.graph.nodes.values():
            beginnings = rules.beginnings(node, seen.names.get(node.digest, ()))
            if beginnings is None or (node.digest in begun and beginnings == (roots, datasets)):
                continue
            if (node.digest, *beginnings) not in done:
                done.add((node.digest, *beginnings))
                again.setdefault(beginnings, []).append(Start(node.digest, node.locations))
        for (owners, listed), more in again.items():
            walked = walk(
                more,
                gather,
                without_summaries,
                roots=owners,
                datasets=listed,
                now=rules.now,
                consumer=consumer,
                ahead=ahead,
            )
            findings |= dict.fromkeys(walked.findings)
            waiting.append(walked)
    return first._replace(findings=tuple(findings))


def descendants(
    dataset: str | os.PathLike[str] | ArtifactRef | Digest | dict[str, Any],
    *,
    identities: Any = None,
    evidence_stores: Sequence[str] = (),
    policy: str | CompiledPolicy | None = None,
    storages: Storages | None = None,
    sink: AuditSink | None = None,
    progress: Progress | None = None,
) -> Traced:
    """Find everything that was made from a dataset, directly or not, as far as evidence stores know.

    Args:
        dataset: A location, whose bytes are read; or a reference or an artifact digest, with which nothing is.
        identities: Who may sign provenance, as for :func:`trace`.
        evidence_stores: The stores that are searched, besides the reference's and the one that the surroundings set.
            What lies elsewhere is not found, and the verdict says where was looked.
        policy: One more policy; it can only tighten.
        storages: Finds storage.
        sink: Takes audit events.
        progress: Called while the dataset is read.

    Returns:
        The graph of what was made from it. The verdict is ``passed`` only where everything that claims to be made from
        it is proved to be, and every store could be read; it never says that there is nothing else.

    Raises:
        UsageError: No store is named, or a parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach.
    """
    surroundings = context.current()
    storages = storages or Storages()
    target = _target(dataset, storages)
    rules = Rules(surroundings, storages, identities, (), frozenset(), policy)
    stores = _stores(evidence_stores, target, surroundings)
    if not stores:
        raise UsageError("There is no evidence store to search.", next_step="Name one: --evidence-store LOCATION.")
    reader = EvidenceReader(stores, storages, beside=False)
    with Recording("descendants", target.subject, surroundings, sink=sink) as recording, rare_collection():
        digest, notes = _read(target, storages, progress)
        if digest is None:
            made = Traced(_verdict(target, None, None, "", notes), Graph((), {}, {}))
            recording.judged(made.verdict)
            return made
        known: dict[Digest, tuple[str, ...]] = {}
        for store in reader.stores:
            found = _artifacts_in(store)
            if isinstance(found, Finding):
                notes.append(found)
                continue
            # The default store of an artifact says where that lies.
            place = (store.uri.removesuffix(".evidence"),) if store.uri.endswith(".evidence") else ()
            if place and is_repository(place[0]):
                place = ()  # what such a store speaks about lies somewhere in the repository
            for item in found[:MAX_ARTIFACTS]:
                known[item] = tuple(dict.fromkeys((*known.get(item, ()), *place)))
            count = len(found[:MAX_ARTIFACTS])
            message = f"Looked for provenance of {count} artifacts here; what lies elsewhere is not found."
            notes.append(Finding("LINEAGE_PLACES", "note", store.uri, message))
            if len(found) > MAX_ARTIFACTS:
                message = f"The store holds evidence of more than {MAX_ARTIFACTS} artifacts."
                notes.append(Finding("EVIDENCE_TOO_MUCH", "unverifiable", store.uri, message))
        assessor = Assessor(reader, rules, now=rules.now, consumer=surroundings.run.producer)
        descended: Descended = descend(digest, known, assessor)
        notes += rules.notes(target.subject)
        verdict = _verdict(target, None, None, rules.demanded(None), [*descended.findings, *notes], digest)
        recording.judged(verdict)
    return Traced(verdict, descended.graph)


def _target(value: Any, storages: Storages) -> _Target:
    if isinstance(value, Digest):
        return _Target(str(value), value, "")
    if is_reference(value):
        ref = ArtifactRef.parse(value)
        canonical = storages.for_uri(ref.uri).canonical(ref.uri)
        return _Target(canonical, ref.digest, canonical, ref)
    text = os.fspath(value)
    if _DIGEST.fullmatch(text):
        return _Target(text, Digest.parse(text), "")
    canonical = storages.for_uri(text).canonical(text)
    return _Target(canonical, None, canonical)


def _digests(values: Iterable[str | Digest]) -> frozenset[Digest]:
    if isinstance(values, str):
        raise UsageError("Give the datasets as a list of artifact digests.")
    return frozenset(item if isinstance(item, Digest) else Digest.parse(item) for item in values)


def _stores(given: Sequence[str], target: _Target, surroundings: context.Surroundings) -> list[str]:
    if isinstance(given, str):
        raise UsageError("Give the evidence stores as a list.")
    more = [target.ref.evidence if target.ref is not None else "", surroundings.settings.evidence_store or ""]
    if target.ref is None and target.location:
        more.append(f"{target.location.rstrip('/')}.evidence")
    return list(dict.fromkeys((*given, *(item for item in more if item))))


def _read(target: _Target, storages: Storages, progress: Progress | None) -> tuple[Digest | None, list[Finding]]:
    """Return the digest of what the call names, and what the verdict should say about it."""
    if target.digest is not None:
        message = "The digest was given; nobody read the artifact's bytes."
        return target.digest, [Finding("LINEAGE_NOT_HELD", "note", target.subject, message)]
    storage = storages.for_uri(target.location)
    try:
        location = storage.locate(target.location)
        if location is None:
            raise ArtifactError(f"Nothing lies at {printable(target.location)}.", code="ARTIFACT_MISSING")
        digest = build_manifest(storage, location, progress=progress).digest
    except (ArtifactError, UnavailableError) as error:
        out_of_reach = isinstance(error, UnavailableError)
        code = error.code if error.code in CODES else "BACKEND_UNAVAILABLE" if out_of_reach else "ARTIFACT_REFUSED"
        severity: Any = "unverifiable" if out_of_reach else "refusal"
        return None, [Finding(code, severity, target.subject, error.message, next_step=error.next_step)]
    message = "The bytes were checked and can change before they are used."
    return digest, [Finding("CHECKED_NOT_HELD", "note", target.subject, message)]


def _artifacts_in(store: EvidenceStore) -> list[Digest] | Finding:
    try:
        return store.digests(MAX_ARTIFACTS + 1)
    except SealflowError as error:
        code = error.code if error.code in CODES else "BACKEND_UNAVAILABLE"
        return Finding(code, "unverifiable", store.uri, error.message, next_step=error.next_step)


def _verdict(
    target: _Target,
    walked: Walked | None,
    ruling: Ruling | None,
    policy: str,
    findings: Iterable[Finding],
    digest: Digest | None = None,
) -> Verdict:
    status, ordered = conclude(dict.fromkeys(findings))
    begun = walked.graph.nodes[walked.graph.starts[0]] if walked is not None else None
    return Verdict(
        status,
        target.subject,
        digest=str((begun.digest if begun is not None else digest) or ""),
        name=begun.name if begun is not None else "",
        producer=begun.producer if begun is not None else "",
        run=begun.run if begun is not None else "",
        signers=begun.signers if begun is not None else (),
        findings=ordered,
        policy=policy,
        checked_at=utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        rules=ruling.requirement.rules if ruling is not None else (),
        reused=walked.reused if walked is not None else False,
    )


class Rules:
    """What holds for each artifact on the way; see :data:`sealflow.verification.assess.TermsFor`.

    A walk relaxes nothing: rules that are only audited, and waivers, let artifacts be used; they make no lineage.
    """

    def __init__(
        self,
        surroundings: context.Surroundings,
        storages: Storages,
        identities: Any,
        roots: tuple[Identity, ...],
        datasets: frozenset[Digest],
        policy: str | CompiledPolicy | None,
    ) -> None:
        self.now = utc_now()
        self._surroundings = surroundings
        self._storages = storages
        self._roots = roots
        self._datasets = datasets
        self._added = policy
        self._arguments = Arguments(
            parse_identities(identities) if identities is not None else None,
            defaults=parse_identities(surroundings.settings.identities),
        )
        self._policies: dict[tuple[str, ...], Policies | Finding] = {}
        self._terms: dict[tuple[tuple[str, ...], tuple[str, ...]], Terms | Finding] = {}
        self._alone: Terms | None = None
        self._in_force = ""
        if surroundings.admin is None and policy is None:
            self._alone = self._made(compose_without_policy(self._arguments, surroundings.run))

    def __call__(self, digest: Digest, locations: Sequence[str], names: Sequence[str]) -> Terms | Finding:
        """Return what holds for an artifact."""
        if self._alone is not None:
            return self._alone
        key = (tuple(locations), tuple(names))
        if key not in self._terms:
            found = self._ruling(key[0], key[1])
            self._terms[key] = found if isinstance(found, Finding) else self._made(found)
        return self._terms[key]

    @property
    def consumer(self) -> str:
        """Producer string of the task that checks."""
        return self._surroundings.run.producer

    def begin_as_ruled(
        self, digest: Digest, locations: Sequence[str]
    ) -> tuple[tuple[Identity, ...], frozenset[Digest]]:
        """Take where the rules of an artifact want it to begin for what the call says of it, and return that."""
        found = self(digest, locations, ())
        if isinstance(found, Terms) and found.requirement.traces:
            self._roots, self._datasets = found.requirement.beginnings
            self._terms.clear()  # what a summary must say depends on it
        return self._roots, self._datasets

    def beginnings(
        self, node: Node, names: Sequence[str] = ()
    ) -> tuple[tuple[Identity, ...], frozenset[Digest]] | None:
        """Return where an artifact's own rules want it to begin; ``None`` where they say nothing of it.

        Args:
            node: The artifact.
            names: All its signed names, where it has several.
        """
        if self._alone is not None or node.state == "source":
            return None
        found = self(node.digest, node.locations, names or ((node.name,) if node.name else ()))
        if isinstance(found, Finding) or not found.requirement.traces:
            return None
        return found.requirement.beginnings

    def ruling_of(self, locations: tuple[str, ...], name: str) -> Ruling | None:
        """Return what the policies say about an artifact, ``None`` where none does."""
        if self._alone is not None:
            return None
        found = self._ruling(locations, (name,) if name else ())
        return None if isinstance(found, Finding) else found

    def demanded(self, ruling: Ruling | None) -> str:
        """Return the digest of the policy in force; without one, of what is demanded of the artifact."""
        requirement = ruling.requirement if ruling is not None else self._alone.requirement if self._alone else None
        try:
            return self._in_force or (requirement.policy_digest() if requirement is not None else "")
        except (UnavailableError, MissingExtraError):
            return ""

    def notes(self, subject: str) -> list[Finding]:
        """Return what a verdict should say about the policies themselves."""
        found: dict[Finding, None] = {}
        for policies in self._policies.values():
            if isinstance(policies, Policies) and policies.in_force is not None:
                found.update(dict.fromkeys(policies.in_force.findings))
        if any(isinstance(item, Terms) and not item.ruled for item in self._terms.values()):
            message = (
                "No rule of the policy is about some of the artifacts; for those the call alone says who may sign."
            )
            found[Finding("NOT_MANAGED", "note", subject, message)] = None
        return list(found)

    def lineage_digest(self, ruling: Ruling) -> str:
        """Return the digest of all that a walk from an artifact demands, for its verification summary.

        Raises:
            UnavailableError: A key cannot be read.
        """
        body = {
            "sealflow_walk": 1,
            "requirement": ruling.requirement.policy_digest(),
            "roots": _canonical(self._roots),
            "datasets": sorted(map(str, self._datasets)),
            # Who is believed where no rule is about an artifact on the way.
            "identities": _canonical(self._arguments.defaults),
        }
        return "sha256:" + sha256_hex(strictjson.dumps(body))

    def summarisable(self, ruling: Ruling) -> bool:
        """Tell whether a summary can name all that a walk from this artifact depends on.

        The rules of teams on the way are not in the admin's policy, nor in what is demanded of the artifact itself.
        """
        policies = next((item for item in self._policies.values() if isinstance(item, Policies)), None)
        in_force = policies.in_force if policies is not None else None
        delegates = in_force is None or bool(in_force.policy.document.delegations)
        return bool(ruling.rules) and bool(ruling.policy) and not ruling.call_adds and not delegates

    def _ruling(self, locations: tuple[str, ...], names: tuple[str, ...]) -> Ruling | Finding:
        policies = self._policies_of(locations)
        if isinstance(policies, Finding):
            return policies
        ruling = policies.ruling(self._arguments, names)
        if ruling.unmatched:
            message = "The policy manages this artifact, and no rule holds for this task."
            found = self._surroundings.run.producer
            subject = ", ".join(locations) or ", ".join(names)
            return Finding("POLICY_NO_RULE", "refusal", subject, message, "a rule", found, "rules")
        if self._in_force not in ("", ruling.policy):
            message = "The policy changed during the walk."
            return Finding("POLICY_UNAVAILABLE", "unverifiable", ruling.uri, message, next_step="Trace again.")
        self._in_force = ruling.policy
        return ruling

    def _policies_of(self, locations: tuple[str, ...]) -> Policies | Finding:
        if locations not in self._policies:
            try:
                places: dict[str, None] = {}
                for location in locations:
                    canonical = self._storages.for_uri(location).canonical(location)
                    places.update(dict.fromkeys(places_of(canonical, self._surroundings.mounts)))
            except UsageError as error:
                message = f"Nobody can tell which rules hold for this location. {error.message}"
                return Finding("POLICY_UNAVAILABLE", "unverifiable", ", ".join(locations), message)
            try:
                self._policies[locations] = policies_at(tuple(places), self._surroundings, self._added)
            except UnavailableError as error:
                code = error.code if error.code in CODES else "POLICY_UNAVAILABLE"
                subject = ", ".join(locations)
                finding = Finding(code, "unverifiable", subject, error.message, next_step=error.next_step)
                self._policies[locations] = finding
        return self._policies[locations]

    def _made(self, ruling: Ruling) -> Terms:
        requirement = ruling.requirement
        if not ruling.rules:
            # Without rules the call says whom it believes, and provenance is all that a walk needs.
            requirement = replace(requirement, kinds=frozenset({"provenance"}))
        elif requirement.loaders:
            # Nothing is handed out to anybody.
            requirement = replace(requirement, loaders=())
        reuse = None
        if ruling.reuse is not None and self.summarisable(ruling):
            try:
                demanded = self.lineage_digest(ruling)
                reuse = Reuse(ruling.policy, demanded, ruling.reuse.seconds, ruling.reuse.verifiers)
            except (EvidenceError, UnavailableError):
                reuse = None
        return Terms(requirement, bool(ruling.rules), reuse)


def _canonical(identities: Iterable[Identity]) -> list[Any]:
    return sorted((item.as_dict() for item in identities), key=strictjson.dumps)


def _open_verifier(verifier: str | KeySigner | None) -> tuple[KeySigner | None, UnavailableError | None]:
    try:
        return (load_signer(verifier) if isinstance(verifier, str) else verifier), None
    except UnavailableError as error:
        return None, error


@dataclass(frozen=True)
class _Summary:
    """Leaves the verification summary of a walk that passed; the verdict stands, whether that succeeds or not."""

    surroundings: context.Surroundings
    storages: Storages
    rules: Rules
    ruling: Ruling
    target: _Target
    sink: AuditSink | None

    def leave(
        self, made: Traced, stores: Sequence[str], signer: KeySigner | None, problem: UnavailableError | None
    ) -> Traced:
        """Leave one, unless a younger one of this verifier says the same.

        Raises:
            UnavailableError: The audit log is out of reach; no key is used then.
        """
        if not self.rules.summarisable(self.ruling):
            return made
        if not stores:
            return made
        where = stores[0]
        try:
            if problem is not None:
                raise problem
            if signer is not None:
                self._write(made, EvidenceStore(where, self.storages), signer)
        except SealflowError as error:
            if error.code == "AUDIT_UNAVAILABLE":
                raise
            message = f"There is no verification summary of this walk. {error.message}"
            finding = Finding("SUMMARY_NOT_WRITTEN", "warning", where, message, next_step=error.next_step)
            status, ordered = conclude([*made.verdict.findings, finding])
            return replace(made, verdict=replace(made.verdict, status=status, findings=ordered))
        return made

    def _write(self, made: Traced, store: EvidenceStore, signer: KeySigner) -> None:
        key = f"sha256:{signer.public_key.hint}"
        signers = [item for node in made.graph.nodes.values() for item in node.signers]
        if key in {item.key for item in signers}:
            raise UsageError("The verifier's key signed something on the way; who produces cannot vouch for itself.")
        digest = made.graph.starts[0]
        reuse, ruling = self.ruling.reuse, self.ruling
        age = min(_RENEW_AFTER, reuse.seconds // 2 if reuse is not None else _RENEW_AFTER)
        demanded = self.rules.lineage_digest(ruling)
        own = KeyIdentity(key, (), (), signer.public_key.pem.decode("ascii"))
        revoked = ruling.requirement.revoked
        wanted = Wanted(digest, None, ruling.policy, demanded, age, (own,), revoked, self.rules.now, True)
        if choose(store.collect(digest, kinds={summary.KIND}).objects, wanted)[0] is not None:
            return
        # The names of the objects hold the digests of their bytes.
        used = sorted({item.evidence.rpartition("-")[2].removesuffix(".json") for item in signers})
        location = self.target.location
        statement = summary.make_summary_statement(
            made.verdict.name or self.target.subject,
            digest,
            orchestrator=self.surroundings.run.orchestrator,
            now=self.rules.now,
            resource=summary.resource_uri(location, None) if location else f"urn:sealflow:artifact:{digest}",
            policy_uri=ruling.uri,
            policy=ruling.policy,
            requirement=demanded,
            levels=[summary.LINEAGE],
            inputs=[("", sha256) for sha256 in used],
        )
        with Recording("summarize", self.target.subject, self.surroundings, key=key, sink=self.sink) as recording:
            store.put(digest, summary.KIND, make_bundle(statement, signer))
            recording.done(str(digest))
