"""What one check demands: the policy's rules and the call's own arguments in one record."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sealflow import strictjson
from sealflow.errors import UsageError
from sealflow.hashing import Digest, sha256_hex
from sealflow.policy.identities import Identity

if TYPE_CHECKING:
    from sealflow.encryption import Recipient
    from sealflow.evidence.timestamp import Authority
    from sealflow.evidence.witnessed import WitnessedLog

#: Kinds of evidence that can be demanded. Both by default.
EVIDENCE_KINDS: Final = frozenset({"signature", "provenance"})

#: Name under which a call's own arguments stand where a rule's name stands otherwise.
CALL: Final = "identities"


class Clause(NamedTuple):
    """Who must have signed.

    Attributes:
        rule: Name of the rule that asks.
        identities: Who counts. Evidence by anybody else counts for nothing, whatever other clauses say.
        at_least: How many of them, each with a key of its own.
        kinds: Kinds of evidence for which this rule asks, whatever others ask for beyond them.
    """

    rule: str
    identities: tuple[Identity, ...]
    at_least: int = 1
    kinds: frozenset[str] = EVIDENCE_KINDS

    @property
    def counted(self) -> str:
        """The kind of evidence by which signers are counted."""
        return "signature" if "signature" in self.kinds else "provenance"

    def takes(self, identity: Identity, kind: str) -> bool:
        """Tell whether a piece of evidence by an identity counts.

        Where the rule asks for no provenance nothing names a producer, so whoever may speak only for some cannot be
        heard.
        """
        limited = bool(identity.producers or identity.builders)
        bare = kind == "signature" and "provenance" not in self.kinds
        return identity in self.identities and not (bare and limited)


class ProducerDemand(NamedTuple):
    """Who must have made the artifact, proved by a key with which nobody else may speak."""

    rule: str
    patterns: tuple[str, ...]


class AgeDemand(NamedTuple):
    """How old provenance may be, in seconds, by the time that its signer wrote."""

    rule: str
    seconds: int


class StampDemand(NamedTuple):
    """A kind of evidence whose signature must carry a timestamp of an authority that the policy names."""

    rule: str
    kind: str


class FreshnessDemand(NamedTuple):
    """How the check must know that it sees no older version: a pinned digest, or provenance of at most this age."""

    rule: str
    seconds: int | None


class LoaderDemand(NamedTuple):
    """In whose tasks the artifact may be checked and opened."""

    rule: str
    patterns: tuple[str, ...]


class LineageDemand(NamedTuple):
    """Where artifacts must come from, and how closely DVC repositories are checked.

    Attributes:
        rule: Name of the rule that asks.
        traces: Whether an artifact must be traced back to where it begins.
        roots: Data owners, whose data is a beginning.
        datasets: Artifact digests that are beginnings too.
        level: Least level for DVC repositories, 0 for none.
        commits: Allowed signers of commits as OpenSSH reads them, and the branch; ``None`` where the rule says nothing.
    """

    rule: str
    traces: bool
    roots: tuple[Identity, ...] = ()
    datasets: frozenset[Digest] = frozenset()
    level: int = 0
    commits: tuple[str, str] | None = None


class KnownRecipient(NamedTuple):
    """One whom a policy knows as a recipient of encrypted artifacts.

    Attributes:
        name: Its name in the policy, with the team's before it where a team wrote it.
        provider: Key provider in the header of an artifact.
        info: Key information there.
        key: PEM text of an RSA public key, or the ARN of a key in KMS.
    """

    name: str
    provider: str
    info: bytes
    key: str

    @property
    def mark(self) -> tuple[str, bytes]:
        """By what a header names the recipient; all that a reader sees of it."""
        return self.provider, self.info

    @property
    def shown(self) -> str:
        """The recipient as messages name what stands in a header."""
        return f"{self.provider}:{self.info.decode('utf-8')}"

    def open(self) -> Recipient:
        """Return the recipient to whom a writer wraps data keys. It opens nothing unless it is a key in KMS.

        Raises:
            UsageError: The key is of a kind that we do not take.
        """
        if self.key.startswith("-----BEGIN "):
            from sealflow.encryption.raw import RsaRecipient

            what = f"policy:{self.name}"
            return RsaRecipient.from_pem(self.key, what, namespace=self.provider, name=self.info.decode("utf-8"))
        from sealflow.encryption.awskms import AwsKmsRecipient

        return AwsKmsRecipient(f"awskms:{self.key}")


class RecipientDemand(NamedTuple):
    """Who must be able to open an encrypted artifact, who alone may be, and whether it must be encrypted.

    Attributes:
        rule: Name of the rule that asks.
        required: Everyone of them must be a recipient.
        only: Nobody else may be; ``None`` for anybody.
        encrypted: Whether a clear artifact is refused.
    """

    rule: str
    required: tuple[KnownRecipient, ...] = ()
    only: tuple[KnownRecipient, ...] | None = None
    encrypted: bool = False


class Revoked(NamedTuple):
    """Since when something counts no longer, aware, and why."""

    since: datetime.datetime
    reason: str


_NO_NAMES: Final[Mapping[str, Revoked]] = {}


class Revocations(NamedTuple):
    """What counts no longer.

    Attributes:
        keys: By fingerprint, without ``sha256:``.
        digests: Why, by artifact digest. When makes no difference.
        names: By certificate name with its label: every certificate that carries it.
        digest: Hex SHA-256 of the list; empty for none.
    """

    keys: Mapping[str, Revoked]
    digests: Mapping[str, str]
    names: Mapping[str, Revoked] = _NO_NAMES
    digest: str = ""


#: Where no list says anything.
NOTHING_REVOKED: Final = Revocations({}, {})


@dataclass(frozen=True)
class Requirement:
    """What must be proved about one artifact.

    Attributes:
        clauses: Who must have signed; all clauses must hold. None means that nothing passes.
        kinds: Kinds of evidence that must be there. ``signature`` alone is for bundles of other tools: it binds the
            bytes but neither a name nor a producer.
        digest: Expected artifact digest, from a reference.
        name: Expected logical name.
        producer: Expected producer, as the call states it.
        files: Names of the files to check; empty for the whole artifact.
        accept_legacy: Accept what model-signing 0.2.0 wrote (predicate and pre-authentication encoding).
        producers: Who must have made it, as rules state it.
        ages: How old provenance may be.
        freshness: How the check must know that it sees no older version.
        loaders: In whose tasks the artifact may be used.
        lineage: Where it must come from.
        recipients: Who must be able to open it, and whether it must be encrypted.
        revoked: What counts no longer.
        stamped: Which signatures need a timestamp.
        authorities: Whose word about time is believed.
        rules: Names of the rules that matched.
        policies: Digests of the policies that they come from.
    """

    clauses: tuple[Clause, ...]
    kinds: frozenset[str] = EVIDENCE_KINDS
    digest: Digest | None = None
    name: str | None = None
    producer: str | None = None
    files: tuple[str, ...] = field(default=())
    accept_legacy: bool = False
    producers: tuple[ProducerDemand, ...] = ()
    ages: tuple[AgeDemand, ...] = ()
    freshness: tuple[FreshnessDemand, ...] = ()
    loaders: tuple[LoaderDemand, ...] = ()
    lineage: tuple[LineageDemand, ...] = ()
    recipients: tuple[RecipientDemand, ...] = ()
    revoked: Revocations = NOTHING_REVOKED
    rules: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    stamped: tuple[StampDemand, ...] = ()
    authorities: tuple[Authority | WitnessedLog, ...] = ()

    def __post_init__(self) -> None:
        if not self.kinds or not self.kinds <= EVIDENCE_KINDS:
            raise UsageError(
                f"`require` names {', '.join(sorted(map(str, self.kinds))) or 'nothing'}; "
                f"known kinds of evidence: {', '.join(sorted(EVIDENCE_KINDS))}."
            )
        if self.producer is not None and "provenance" not in self.kinds:
            raise UsageError(
                "`producer` can be checked only where provenance is required; a signature names none.",
                next_step="Add provenance to `require`, or leave `producer` out.",
            )

    @classmethod
    def of_call(cls, identities: tuple[Identity, ...]) -> Requirement:
        """Return what a call demands that says whom it believes, where no policy says anything."""
        return cls((Clause(CALL, identities),) if identities else ())

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Everybody whom some clause names, each once."""
        return tuple(dict.fromkeys(item for clause in self.clauses for item in clause.identities))

    @property
    def traces(self) -> bool:
        """Whether the artifact must be traced back to where it begins."""
        return any(item.traces for item in self.lineage)

    @property
    def beginnings(self) -> tuple[tuple[Identity, ...], frozenset[Digest]]:
        """Data owners and digests that every rule accepts as a beginning."""
        asked = [item for item in self.lineage if item.traces]
        if not asked:
            return (), frozenset()
        roots = tuple(item for item in asked[0].roots if all(item in other.roots for other in asked))
        return roots, frozenset.intersection(*(item.datasets for item in asked))

    def policy_digest(self) -> str:
        """Return ``sha256:`` and the digest of what this check trusts and demands, for the verdict.

        Raises:
            UnavailableError: A key or root cannot be read.
        """
        # What a call demands by itself has the form that verdicts were compared by before there were policies.
        own = [item for clause in self.clauses if clause.rule == CALL for item in clause.identities]
        body: dict[str, Any] = {
            "identities": _sorted(item.as_dict() for item in own),
            "require": sorted(self.kinds),
            "name": self.name,
            "producer": self.producer,
            "accept_legacy": self.accept_legacy,
        }
        if self.revoked.digest:
            body["revocations"] = self.revoked.digest
        if self.policies:
            body["policies"] = sorted(self.policies)
            body["rules"] = sorted(self.rules)
        return "sha256:" + sha256_hex(strictjson.dumps(body))


def _sorted(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=strictjson.dumps)
