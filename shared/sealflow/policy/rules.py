"""Rules of a policy: where each holds, and what must be proved there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from sealflow.policy.form import Form
from sealflow.policy.form_parts import About, Between, Size
from sealflow.policy.globs import NAME_PREFIX, place_pattern
from sealflow.policy.values import ArtifactDigest, Duration, Name, Names, Orchestrator, Patterns, Places, Text

#: Most recipients that one document knows, and that one rule demands: an artifact has at most 32.
MAX_RECIPIENTS: Final = 1000
MAX_REQUIRED: Final = 32


class Scope(Form):
    """Where a rule holds: every given field must match. Lists are alternatives; ``*`` and ``**`` as in locations."""

    artifact: Annotated[
        Places | None, About("Locations (s3://models/**, /data/**), or signed logical names (name:churn-*).")
    ] = None
    orchestrator: Annotated[tuple[Orchestrator, ...], Size(1, float("inf"))] | None = None
    team: Patterns | None = None
    dag: Patterns | None = None
    pipeline: Patterns | None = None
    task: Patterns | None = None

    def _check(self) -> None:
        if self.dag and self.pipeline:
            raise ValueError("a task belongs to a dag or to a pipeline, never to both; write two rules")


class IdentityDemand(Form):
    """Who must have signed, counted by distinct keys."""

    any_of: Names | None = None
    all_of: Names | None = None
    at_least: Annotated[int, Between(1, 64)] | None = None
    of: Names | None = None

    def _check(self) -> None:
        forms = [self.any_of is not None, self.all_of is not None, self.at_least is not None or self.of is not None]
        if sum(forms) != 1 or (self.at_least is None) != (self.of is None):
            raise ValueError("identities takes exactly one of any_of, all_of, and at_least with of")
        names = self.names
        if len(names) > 1 and len(set(names)) != len(names):
            raise ValueError("identities names somebody twice")
        if self.of is not None and self.at_least is not None and self.at_least > len(self.of):
            raise ValueError(f"at_least {self.at_least} of {len(self.of)} can never hold")

    @property
    def names(self) -> tuple[str, ...]:
        """All identities named."""
        return self.any_of or self.all_of or self.of or ()

    @property
    def count(self) -> int:
        """How many distinct ones must have signed."""
        return len(self.all_of) if self.all_of is not None else self.at_least or 1


class EvidenceDemand(Form):
    """What one kind of evidence must fulfil beyond being there."""

    max_age: Duration | None = None
    timestamp: Annotated[
        bool, About("One of the policy's timestamp authorities has seen its signature: by a token, or in a log.")
    ] = False


class FreshnessDemand(Form):
    """How recent an artifact must be where no reference pins its digest."""

    max_age: Duration


class ReuseDemand(Form):
    """A gate may accept a verification summary instead of reading everything again."""

    max_age: Duration
    verifiers: Annotated[Names | None, About("Identities marked `verifier`; absent: all of them.")] = None


class CommitDemand(Form):
    """Who must have signed the commit that a DVC repository is checked against, and where it must have been merged."""

    allowed_signers: Annotated[
        str,
        Size(1, 262144),
        About("As OpenSSH and Git read it; text in a signed policy, a path in a draft, which signing replaces."),
    ]
    branch: Annotated[Text, About("Full name of the branch, such as refs/remotes/origin/main.")]


_Datasets = Annotated[tuple[ArtifactDigest, ...], Size(1, 10_000)]


class LineageDemand(Form):
    """Where an artifact must come from, and how closely DVC repositories are checked."""

    roots: Annotated[Names | None, About("Data owners: what they signed is a beginning.")] = None
    datasets: Annotated[_Datasets | None, About("Artifact digests that are beginnings too.")] = None
    level: Annotated[
        Literal["L1", "L2", "L3", "L4", "L5", "L6"] | None,
        About("Least level at which DVC repositories in the scope are checked."),
    ] = None
    commits: CommitDemand | None = None

    def _check(self) -> None:
        if self.roots is None and self.datasets is None and self.level is None:
            raise ValueError("lineage needs roots or datasets, where artifacts begin, or a level for DVC repositories")
        if self.commits is not None and (self.level is None or self.level < "L3"):
            raise ValueError("commits are looked at from level L3 on")

    @property
    def traces(self) -> bool:
        """Whether artifacts must be traced back to where they begin."""
        return self.roots is not None or self.datasets is not None


_Required = Annotated[tuple[Name, ...], Size(1, MAX_REQUIRED)]
_Only = Annotated[tuple[Name, ...], Size(1, MAX_RECIPIENTS)]


class RecipientDemand(Form):
    """Who must be able to open an artifact that is stored encrypted, and whether it must be."""

    required: Annotated[_Required | None, About("Each of them must be able to open it.")] = None
    only: Annotated[_Only | None, About("Nobody else may be; absent: anybody may.")] = None
    encrypted: Annotated[
        bool, About("A clear artifact is refused; otherwise the rule speaks of encrypted ones only.")
    ] = False

    def _check(self) -> None:
        if self.required is None and self.only is None and not self.encrypted:
            raise ValueError("recipients needs required or only, who opens artifacts, or encrypted: true")
        for named in (self.required or (), self.only or ()):
            if len(set(named)) != len(named):
                raise ValueError("recipients names somebody twice")
        left_out = [name for name in self.required or () if self.only is not None and name not in self.only]
        if left_out:
            raise ValueError(f"`only` leaves out {left_out[0]}, which is required")

    @property
    def names(self) -> tuple[str, ...]:
        """All recipients named, each once."""
        return tuple(dict.fromkeys((*(self.required or ()), *(self.only or ()))))


_Evidence = Annotated[Mapping[Literal["signature", "provenance"], EvidenceDemand], Size(1, float("inf"))]


class Require(Form):
    """What must be proved."""

    identities: IdentityDemand | None = None
    evidence: Annotated[_Evidence | None, About("Absent: signature and provenance.")] = None
    producers: Annotated[Patterns | None, About("Who must have made it, proved by a key of its own.")] = None
    freshness: Literal["pinned"] | FreshnessDemand | None = None
    loaders: Annotated[Patterns | None, About("Producers in whose tasks it may be checked and opened.")] = None
    lineage: LineageDemand | None = None
    recipients: RecipientDemand | None = None
    reuse_verdict: ReuseDemand | None = None
    audit: Annotated[
        Literal["spooled", "sequenced", "included", "witnessed"] | None,
        About("How far the audit event of an action must get before the task goes on."),
    ] = None


Level = Literal["enforce", "audit", "off"]
Lockable = Literal["identities", "evidence", "producers", "freshness", "loaders", "lineage", "recipients"]


class Rule(Form):
    """One rule."""

    name: Name
    scope: Scope
    require: Require = Require()
    level: Level = "enforce"
    locked: Annotated[
        tuple[Lockable, ...], About("Fields that team policies, authors and calls may not even tighten.")
    ] = ()

    def _check(self) -> None:
        if self.scope.artifact is None:
            raise ValueError("a rule names the artifacts for which it holds: scope.artifact")
        if self.level == "off":
            broad = [item for item in self.scope.artifact if not _narrow(item)]
            if broad:
                raise ValueError(f"level off is never global, and {broad[0]!r} names no bucket or folder")
        producers = self.require.producers
        evidence = self.require.evidence
        if evidence is not None and "provenance" not in evidence:
            if producers:
                raise ValueError("producers can be checked only where provenance is required")
            if self.require.lineage is not None and self.require.lineage.traces:
                raise ValueError("lineage can be traced only where provenance is required")
            if isinstance(self.require.freshness, FreshnessDemand):
                raise ValueError("freshness by age can be checked only where provenance is required")
        if evidence is not None and (signature := evidence.get("signature")) is not None and signature.max_age:
            raise ValueError("a signature says no time; put max_age on provenance")


def _narrow(pattern: str) -> bool:
    # A literal bucket, host or first folder, in the one form in which locations are compared.
    text = place_pattern(pattern)
    text = text.partition("://")[2] if "://" in text else text.removeprefix(NAME_PREFIX)
    first = text.lstrip("/").partition("/")[0]
    return bool(first) and "*" not in first
