"""Level L6: each output comes from a signed run with just the lock's inputs, back to data of data owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions.context import Surroundings
from sealflow.actions.gathering import EvidenceReader
from sealflow.actions.lineage_evidence import Vouchers
from sealflow.actions.trace import Rules, walk_under
from sealflow.errors import ArtifactError, UnavailableError
from sealflow.findings import Finding, Signer, printable
from sealflow.hashing import Digest, sha256_hex
from sealflow.lineage.check import LineageCheck
from sealflow.lineage.content import Content, WorkTree
from sealflow.lineage.repository import Stage
from sealflow.policy import Identity
from sealflow.storage import Storages
from sealflow.verification.assess import Start
from sealflow.verification.walk import Walked

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

#: Bytes of sources that are compared with a commit; larger ones are data, and need an owner.
_MAX_SOURCES: Final = 256 << 20
_MAX_SOURCE: Final = 64 << 20
#: Codes with which a comparison with the commit says that a file is not its.
_NOT_COMMITTED: Final = frozenset({"GIT_UNTRACKED", "GIT_DIRTY", "ARTIFACT_REFUSED"})


class Sources:
    """What stages read that no stage writes: code, and small data beside it. A signed commit vouches for what it holds.

    Args:
        path: Folder of the repository.
        checked: What was found there.

    Attributes:
        files: Bytes of the sources, by path relative to the repository.
        paths: Paths of the sources.
    """

    def __init__(self, path: str, checked: LineageCheck) -> None:
        self.files: dict[str, bytes | None] = {}
        # What the check itself rests on must be the commit's, also where a stage reads it.
        self._relied = frozenset(map(printable, checked.read))
        self.paths = sorted(
            {
                place
                for stage in checked.stages
                for place, source in checked.inputs(stage).items()
                if source and place in checked.contents
            }
        )
        # A source whose bytes are not held cannot be compared, and is not committed then.
        self._missing: set[str] = set()
        left = _MAX_SOURCES
        with WorkTree(path) as tree:
            for place in self.paths:
                for name, sha256 in _files(place, checked.contents[place]):
                    try:
                        data = tree.get(name, min(left, _MAX_SOURCE))
                    except (ArtifactError, UnavailableError):
                        data = None
                    # Of the bytes that were checked, and of no others.
                    if data is None or sha256_hex(data) != sha256:
                        self._missing.add(name)
                        continue
                    left -= len(data)
                    self.files[name] = data

    def left(self, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        """Take out of the findings about a commit what only says that a source is not part of it."""
        # Findings show long names cut short, so one of them can be about several files.
        known: dict[str, list[str]] = {}
        for name in self.files:
            known.setdefault(printable(name), []).append(name)
        kept = []
        for finding in findings:
            if finding.code not in _NOT_COMMITTED:
                kept.append(finding)
                continue
            self._missing.update(known.get(finding.subject, ()))
            if finding.subject not in known or finding.subject in self._relied:
                kept.append(finding)
        return tuple(kept)

    def uncommitted(self) -> list[str]:
        """Return the sources for which no commit vouches."""
        return [
            place
            for place in self.paths
            if any(name == place or name.startswith(f"{place}/") for name in self._missing)
        ]


def _files(place: str, content: Content) -> list[tuple[str, str]]:
    if content.files is None:
        return [(place, content.sha256)]
    return [(f"{place}/{name}", file.sha256) for name, file in content.files.items()]


def check_runs(
    checked: LineageCheck,
    vouchers: Vouchers,
    sources: Sources,
    *,
    beginnings: Sequence[tuple[tuple[Identity, ...], frozenset[Digest]]],
    identities: Any,
    policy: str | CompiledPolicy | None,
    surroundings: Surroundings,
    storages: Storages,
) -> tuple[tuple[Signer, ...], tuple[Finding, ...]]:
    """Check that every output was made by a signed run from what the lock says, back to where the data begins.

    Args:
        checked: What was found in the repository; its digests are those of ``vouchers``.
        vouchers: Knows the digests, the evidence store and the locations.
        sources: What stages read that no stage writes, compared with the commit.
        beginnings: Data owners, and digests that are beginnings too: each pair must hold by itself.
        identities: Who may sign, if the call says so.
        policy: One more policy.
        surroundings: Who checks.
        storages: Finds storage.

    Returns:
        Those who signed provenance of outputs, and what is wrong.
    """
    reader = EvidenceReader([vouchers.store.uri], storages)
    digests = vouchers.digests
    outputs = [
        (stage, place)
        for stage in checked.stages
        for item in stage.recorded_outs
        if (place := stage.place(item.path)) in digests and place is not None
    ]
    # Who reads the lock states each digest: no older version can stand in.
    begun = dict.fromkeys([*(place for _, place in outputs), *sources.uncommitted()])
    starts = [Start(digests[place], (vouchers.location(place),)) for place in begun if place in digests]
    walks = [
        walk_under(starts, reader, Rules(surroundings, storages, identities, *pair, policy), *pair)
        for pair in beginnings
    ]
    walked = walks[0]
    same = _same_bytes(outputs, checked, digests, walked)
    # People know data by its path, and evidence by its digest.
    paths = {str(digests[place]): place for place in reversed(list(begun)) if place in digests}
    findings = [
        replace(item, subject=paths.get(item.subject, item.subject))
        for each in walks
        for item in each.findings
        if item.code != "LINEAGE_AMBIGUOUS" or item.subject not in same
    ]
    signers: dict[Signer, None] = {}
    for stage, place in outputs:
        signers.update(dict.fromkeys(walked.graph.nodes[digests[place]].signers))
        if stage.dvc is None:
            findings += _inputs_differ(stage, place, checked, digests, walked)
    return tuple(signers), tuple(findings)


def _same_bytes(
    outputs: Sequence[tuple[Stage, str]], checked: LineageCheck, digests: dict[str, Digest], walked: Walked
) -> set[str]:
    """Return the digests that several stages made from different inputs, each with a signed run of its own.

    An empty file is made in many ways. Whatever they read is looked at anyway: all of it lies in this repository. A
    stage that reads sources alone does not count: by itself it would begin nowhere.
    """
    made: dict[Digest, list[bool]] = {}
    for stage, place in outputs:
        if stage.dvc is None:
            inputs = {name: source for name, source in checked.inputs(stage).items() if name in digests}
            wanted = frozenset(digests[name] for name in inputs)
            proved = wanted in walked.stated.get(digests[place], frozenset()) and not all(inputs.values())
            made.setdefault(digests[place], []).append(proved)
    return {str(digest) for digest, proved in made.items() if len(proved) > 1 and all(proved)}


def _inputs_differ(
    stage: Stage, place: str, checked: LineageCheck, digests: dict[str, Digest], walked: Walked
) -> list[Finding]:
    """Say so when no accepted run made an output from just what the lock records."""
    digest = digests[place]
    # A summary stands for the way behind an output, and says nothing of the lock.
    if walked.graph.nodes[digest].state not in ("attested", "summarised"):
        return []  # a beginning needs no run, and anything else was refused already
    wanted = {name: digests[name] for name in checked.inputs(stage) if name in digests}
    stated = walked.stated[digest]
    if frozenset(wanted.values()) in stated:
        return []
    nearest = min(stated, key=lambda item: len(item ^ frozenset(wanted.values())))
    names = {used: name for name, used in digests.items()}
    missing = [name for name, used in wanted.items() if used not in nearest]
    extra = [names.get(used, str(used)) for used in sorted(nearest - set(wanted.values()), key=str)]
    message = f"No signed run made it from just what the lock records of {printable(stage.address)}."
    return [
        Finding(
            "INPUTS_DIFFER",
            "refusal",
            place,
            message,
            f"also {', '.join(missing[:10])}" if missing else "nothing beyond the lock",
            f"also {', '.join(extra[:10])}" if extra else "less than the lock records",
        )
    ]
