"""Blast radius: everything that a key, an artifact or a dataset touched, from evidence, lineage and the audit log."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import serialization

from sealflow.actions import context
from sealflow.actions.audit_opening import log_and_key, read_checkpoint
from sealflow.actions.audit_scan import scan_all
from sealflow.actions.audit_vouchers import vouchers_for
from sealflow.actions.recording import Recording
from sealflow.actions.respond_evidence import EvidenceReading
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.audit.reading import entries
from sealflow.collector import rare_collection
from sealflow.errors import ArtifactError, EvidenceError, SealflowError, UnavailableError, UsageError
from sealflow.evidence import ArtifactRef
from sealflow.evidence.reference import is_reference
from sealflow.findings import CODES, Finding, Signer, Verdict, conclude, printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import SIGNERS, PublicKey, load_public_key
from sealflow.keys.public import parse_public_key
from sealflow.manifest import build_manifest
from sealflow.policy.identities import CertificateIdentity, Identity, parse_identities
from sealflow.storage import Storages
from sealflow.storage.local import to_path
from sealflow.verification.audit_log import Demands, judge
from sealflow.verification.graph import Graph, Node
from sealflow.verification.radius import Radius, spread
from sealflow.verification.radius_evidence import Said, Signers
from sealflow.verification.radius_log import LogFacts, read_facts
from sealflow.verification.vouching import Speakers

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

_DIGEST: Final = re.compile(r"(?:sha256|dirHash):[0-9a-f]{64}")
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_PEM: Final = b"-----BEGIN PUBLIC KEY-----"


@dataclass(frozen=True)
class Target:
    """What is asked about.

    Attributes:
        text: As messages and the audit log call it.
        key: Fingerprint in hex, empty where it is no key.
        names: Certificate names, and the fingerprints of the keys of an identity.
        public: The key itself, where it was given.
        digest: The artifact digest, ``None`` where it is no artifact.
        location: Where the artifact lies, empty where only a digest was given.
        store: Where its reference says that its evidence lies.
    """

    text: str
    key: str = ""
    names: frozenset[str] = frozenset()
    public: PublicKey | None = None
    digest: Digest | None = None
    location: str = ""
    store: str = ""

    @property
    def marks(self) -> frozenset[str]:
        """What evidence is signed with that was touched."""
        return self.names | ({self.key} if self.key else set())

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        found: dict[str, Any] = {
            "text": printable(self.text, 2048),
            "key": f"sha256:{self.key}" if self.key else "",
            "holds": sorted(map(printable, self.names)),
            "digest": str(self.digest or ""),
        }
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class BlastRadius:
    """What was found.

    Attributes:
        verdict: ``passed`` where everything could be looked at and proved, whatever was found; ``unverifiable`` where
            something could not; ``failed`` where the audit log does not hold.
        target: What was asked about.
        radius: The answer.
        entries: Entries of the log that were read.
    """

    verdict: Verdict
    target: Target
    radius: Radius
    entries: int

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        radius = self.radius
        return {
            "sealflow_blast_radius": 1,
            "target": self.target.as_dict(),
            "verdict": self.verdict.as_dict(),
            "counts": {
                "touched": len(radius.of("touched")),
                "possible": len(radius.of("possible")),
                "runs": len(radius.runs),
                "reads": len(radius.readers),
                "key_uses": len(radius.uses),
                "log_entries": self.entries,
            },
            "artifacts": [item.as_dict() for item in radius.artifacts.values()],
            "runs": [item.as_dict() for item in radius.runs.values()],
            "reads": [item.as_dict() for item in radius.readers],
            "key_uses": [item.as_dict() for item in radius.uses],
            "edges": [
                {"artifact": str(item.made), "input": str(item.used), "why": item.why, "proved": item.certain}
                for item in radius.edges
            ],
        }

    def graph(self) -> Graph:
        """Return the answer as a graph to draw: what is only possible stands there unproved."""
        nodes: dict[Digest, Node] = {}
        for item in self.radius.artifacts.values():
            sure = item.certainty == "touched"
            by = (Signer("the key", f"sha256:{self.target.key}", "signature", item.signed[0]),) if item.signed else ()
            nodes[item.digest] = Node(
                item.digest,
                "dataset" if item.why == "start" else "attested" if sure else "unverifiable",
                item.name,
                tuple(item.places),
                next(iter(item.producers), ""),
                next(iter(item.runs), ""),
                by,
                codes=() if sure else ("EDGE_UNVERIFIED",),
            )
        inputs: dict[Digest, list[Digest]] = {}
        claimed: dict[Digest, list[Digest]] = {}
        for edge in self.radius.edges:
            if edge.made != edge.used:
                (inputs if edge.certain else claimed).setdefault(edge.made, []).append(edge.used)
        return Graph(
            tuple(item.digest for item in self.radius.artifacts.values() if item.via is None),
            nodes,
            {made: tuple(items) for made, items in inputs.items()},
            {made: tuple(items) for made, items in claimed.items()},
        )


def blast_radius(
    target: str | os.PathLike[str] | ArtifactRef | Digest | dict[str, Any],
    *,
    evidence_stores: Sequence[str] = (),
    identities: Any = None,
    policy: str | CompiledPolicy | None = None,
    audit_log: str | None = None,
    audit_log_key: str | None = None,
    storages: Storages | None = None,
    sink: AuditSink | None = None,
) -> BlastRadius:
    """Find everything that a key, an artifact or a dataset touched.

    Args:
        target: A key of a signer or of an authority above certificates (its fingerprint, its public half's path or
            URI); an identity, or a certificate name with its label; an artifact digest; a reference; or a location,
            whose bytes are read. ``sha256:…`` is looked for as both a key and an artifact.
        evidence_stores: The stores that are searched, besides the reference's and the one that the surroundings set,
            and those beside the places at which the log says that artifacts were made.
        identities: Whose evidence can be verified, besides the policy's; by default what the surroundings set.
        policy: One more policy, whose identities are known then.
        audit_log: Location of the audit log, by default the settings'; without one nobody knows who read what.
        audit_log_key: Its verifier key, or the path of a file that holds it, by default the settings'.
        storages: Finds storage.
        sink: Takes audit events.

    Raises:
        UsageError: A parameter cannot work, or neither a store nor a log is named.
        UnavailableError: The place for audit events is out of reach. Evidence out of reach is a finding.
        ArtifactError: The location cannot be read as an artifact.
    """
    surroundings = context.current()
    storages = storages or Storages()
    findings: list[Finding] = []
    known = _identities(surroundings, identities, policy, findings)
    asked = _of_identities(target, known) or find_target(target, storages)
    stores = _stores(evidence_stores, asked, surroundings)
    log = audit_log or surroundings.settings.audit_log
    if not stores and not log:
        raise UsageError(
            "There is nothing to search.", next_step="Name evidence stores and the audit log: --evidence-store, --log."
        )
    with Recording("blast-radius", asked.text, surroundings, sink=sink, ruled=False) as recording, rare_collection():
        signers = Signers(known, [asked.public] if asked.public is not None else [])
        findings += signers.findings
        before = len(signers.findings)
        if asked.key and not signers.knows(asked.key):
            message = "The key is not at hand, so what names it cannot be verified."
            findings.append(Finding("EDGE_UNVERIFIED", "warning", f"sha256:{asked.key}", message, next_step=_GIVE_KEY))
        reading = EvidenceReading(stores, storages, signers, asked.marks)
        said = reading.read()
        facts: LogFacts | None = None
        if log:
            # The log names keys alone: those that turned out to be under the authority or the name that is asked about.
            keys = {item.held.key for item in said if item.held.key and not asked.marks.isdisjoint(item.held.marks)}
            keys |= {mark for mark in asked.marks if _FINGERPRINT.fullmatch(mark)}
            facts = _facts(log, audit_log_key, keys, surroundings, identities, policy, storages, findings)
        else:
            message = "No audit log is named, so nobody can say who read or used what."
            findings.append(Finding("REVIEW_INCOMPLETE", "unverifiable", "audit log", message, next_step=_NAME_LOG))
        said += reading.beside(facts)
        findings += [*signers.findings[before:], *reading.findings]
        asked = _settle(asked, said, facts)
        radius = spread(said, facts, asked=asked.marks, digests=(asked.digest,) if asked.digest is not None else ())
        findings += [*radius.findings, *reading.misfiled(radius)]
        status, ordered = conclude(dict.fromkeys(findings))
        verdict = Verdict(
            status,
            printable(asked.text, 2048),
            digest=str(asked.digest or ""),
            name=f"everything that {printable(asked.text, 100)} touched",
            findings=ordered,
            checked_at=utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        recording.judged(verdict)
    return BlastRadius(verdict, asked, radius, facts.entries if facts is not None else 0)


_NAME_LOG: Final = "Name it: --log, or SEALFLOW_AUDIT_LOG."
_GIVE_KEY: Final = "Give the public key itself, or an identity or a policy that holds it."


def find_target(value: Any, storages: Storages) -> Target:
    """Return what a call names.

    Raises:
        UsageError: It names nothing that could be looked for.
        UnavailableError: It is out of reach.
        ArtifactError: Nothing lies at the location, or it cannot be taken.
    """
    if isinstance(value, PublicKey):
        return Target(f"sha256:{value.hint}", value.hint, public=value)
    if isinstance(value, Digest):
        value = str(value)
    if is_reference(value):
        ref = ArtifactRef.parse(value)
        location = storages.for_uri(ref.uri).canonical(ref.uri)
        return Target(location, digest=ref.digest, location=location, store=ref.evidence)
    text = os.fspath(value)
    if _DIGEST.fullmatch(text):
        digest = Digest.parse(text)
        return Target(text, digest.hex if digest.algorithm == "sha256" else "", digest=digest)
    if text.partition(":")[0] in SIGNERS and not text.startswith("file:"):
        public = load_public_key(text)
        return Target(text, public.hint, public=public)
    if text.lstrip().startswith("-----BEGIN"):
        public = load_public_key(text)
        return Target(f"sha256:{public.hint}", public.hint, public=public)
    storage = storages.for_uri(text)
    canonical = storage.canonical(text)
    found = storage.locate(text)
    if found is None:
        raise ArtifactError(f"Nothing lies at {printable(canonical)}.", code="ARTIFACT_MISSING")
    head = _head(canonical) if found.kind == "file" and canonical.startswith("file:") else b""
    if head.lstrip().startswith(_PEM):
        return _of_key(head, canonical)
    return Target(canonical, digest=build_manifest(storage, found).digest, location=canonical)


def _of_identities(value: Any, known: Sequence[Identity]) -> Target | None:
    """Return what an identity, or a certificate name with its label, holds; ``None`` for what is neither.

    Raises:
        UsageError: It is an identity, and a file lies here that is called so.
    """
    if not isinstance(value, str):
        return None
    if value.startswith(("subject:", "email:", "dns:", "uri:")):
        return Target(value, names=frozenset({value}))
    mine = [item for item in known if item.name == value]
    if not mine:
        return None
    if os.path.lexists(value):
        raise UsageError(
            f"{printable(value)} is an identity, and a file lies here that is called so.",
            next_step="Write ./ before the file, or give the identity's key.",
        )
    names: set[str] = set()
    for item in mine:
        names |= set(item.names) if isinstance(item, CertificateIdentity) else {item.public_key.hint}  # type: ignore[attr-defined]
    return Target(value, names=frozenset(names))


def _settle(asked: Target, said: Sequence[Said], facts: LogFacts | None) -> Target:
    """Return what ``sha256:…`` turned out to be: fingerprints of keys and digests of files look alike."""
    if not asked.key or asked.digest is None:
        return asked
    uses = [*facts.signed, *facts.accepted] if facts is not None else []
    as_key = bool(uses) or any(asked.key in item.held.marks or asked.key in item.held.hints for item in said)
    seen = (facts.makes, facts.reads) if facts is not None else ()
    as_artifact = any(use.digest == asked.digest for group in seen for use in group) or any(
        asked.digest == item.about or any(asked.digest == used for used, _ in item.inputs) for item in said
    )
    return replace(asked, digest=None) if as_key and not as_artifact else asked


def _of_key(pem: bytes, canonical: str) -> Target:
    try:
        public = parse_public_key(pem, printable(canonical))
    except UsageError as error:
        if error.code != "KEY_UNSUPPORTED":
            raise
        # An authority's key may be of a kind that signs no evidence.
        key: Any = serialization.load_pem_public_key(pem)
        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return Target(canonical, sha256_hex(key.public_bytes(*form)))
    return Target(canonical, public.hint, public=public)


def _head(canonical: str) -> bytes:
    try:
        with open(to_path(canonical), "rb") as file:
            return file.read(64 << 10)
    except OSError as error:
        raise UnavailableError(f"{printable(canonical)} cannot be read: {error.strerror}.") from None


def _stores(given: Sequence[str], target: Target, surroundings: context.Surroundings) -> list[str]:
    if isinstance(given, str):
        raise UsageError("Give the evidence stores as a list.")
    more = [target.store, surroundings.settings.evidence_store or ""]
    if not target.store and target.location:
        more.append(f"{target.location.rstrip('/')}.evidence")
    return list(dict.fromkeys((*given, *(item for item in more if item))))


def _identities(
    surroundings: context.Surroundings,
    given: Any,
    added: str | CompiledPolicy | None,
    findings: list[Finding],
) -> list[Identity]:
    """Return everybody whose key is known, verifiers and revoked ones included."""
    found = list(parse_identities(given))
    policies: list[CompiledPolicy] = []
    if added is not None:
        from sealflow.actions.policies import read_added

        policies.append(read_added(added))
    if surroundings.admin is not None:
        from sealflow.policy.source import policy_in_force

        try:
            policies.append(policy_in_force(surroundings.admin, Storages(), utc_now()).policy)
        except SealflowError as error:
            # Whoever responds has no time to repair it first; what cannot be verified is told apart.
            code = error.code if error.code in CODES else "POLICY_UNAVAILABLE"
            message = f"Its identities are not known. {error.message}"
            findings.append(Finding(code, "unverifiable", "policy", message, next_step=error.next_step))
    for item in policies:
        found += item.identities.values()
    return found or list(parse_identities(surroundings.settings.identities))


def _facts(
    log: str,
    key: str | None,
    keys: set[str],
    surroundings: context.Surroundings,
    identities: Any,
    policy: str | CompiledPolicy | None,
    storages: Storages,
    findings: list[Finding],
) -> LogFacts | None:
    """Return what the log records, ``None`` where it does not hold or is out of reach."""
    store, verifier = log_and_key(log, key, surroundings, storages)
    asked = frozenset(f"sha256:{item}" for item in keys)
    try:
        vouchers = vouchers_for(surroundings, identities, policy)
        signed = read_checkpoint(store, verifier)
        size = signed.checkpoint.size
        facts = read_facts(entries(store.get, signed.checkpoint), store.uri, asked, Speakers(vouchers))
        if facts.writers:
            report = judge(store.get, store.uri, Demands(verifier), signed, scan_all(store, size))
            if facts.writers & report.unsound:
                speakers = Speakers(vouchers, report.unsound)
                facts = read_facts(entries(store.get, signed.checkpoint), store.uri, asked, speakers)
    except EvidenceError as error:
        message = f"Nothing of the log counts. {error.message}"
        code = error.code if error.code in CODES else "LOG_ALTERED"
        findings.append(Finding(code, "refusal", store.uri, message, next_step=error.next_step))
        return None
    except UnavailableError as error:
        code = error.code if error.code in CODES else "BACKEND_UNAVAILABLE"
        findings.append(Finding(code, "unverifiable", store.uri, error.message, next_step=error.next_step))
        return None
    findings += facts.findings
    message = f"Read {size} entries of the log; what is still in spools and inboxes is not in it."
    findings.append(Finding("LINEAGE_PLACES", "note", store.uri, message, next_step=_INTEGRATE))
    return facts


_INTEGRATE: Final = "Ship and integrate first: sealflow audit ship, sealflow audit integrate."
