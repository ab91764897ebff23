"""Check the lineage of data that DVC tracks, up to a demanded level, and record the verdict."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions import context
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.errors import ArtifactError, UsageError
from sealflow.findings import Finding, Signer, Verdict, conclude, printable
from sealflow.lineage.check import LEVELS, LineageCheck, check_repository
from sealflow.names import check_name
from sealflow.storage import Storages
from sealflow.storage.local import to_path, to_uri

if TYPE_CHECKING:
    from sealflow.lineage.git import AllowedSigner
    from sealflow.policy.compose import CompiledPolicy

_PROVED: Final = {
    "L1": "L1 compared the bytes with dvc.lock and the .dvc files; whether these fit dvc.yaml and the parameters, "
    "and who wrote them, was not looked at.",
    "L2": "L2 compared bytes, lock, dvc.yaml and parameters with each other; who wrote them was not looked at, nor the "
    "remote.",
    "L3": "L3 holds for what a commit says; the remote was not looked at, nor whether the commands made the data.",
    "L4": "L4 found the recorded objects on the remote; their MD5 alone says that they are the same.",
    "L5": "L5 holds for bytes whose SHA-256 was signed; whether the commands made them was not looked at.",
    "L6": "L6 holds for what signed runs say of their inputs; nobody ran them again.",
}

#: The level from which on each argument means something.
_FROM: Final = {
    "allowed_signers": "L3",
    "branch": "L3",
    "revision": "L3",
    "remote": "L4",
    "read_remote": "L4",
    "identities": "L5",
    "evidence_store": "L5",
    "roots": "L6",
    "datasets": "L6",
}


def check_lineage(
    repository: str,
    targets: Sequence[str] = (),
    *,
    level: str = "L2",
    allowed_signers: str | Iterable[AllowedSigner] | None = None,
    branch: str | None = None,
    revision: str | None = None,
    remote: str | None = None,
    read_remote: bool = False,
    identities: Any = None,
    evidence_store: str | None = None,
    roots: Any = None,
    datasets: Iterable[str] = (),
    policy: str | CompiledPolicy | None = None,
    storages: Storages | None = None,
    sink: AuditSink | None = None,
) -> Verdict:
    """Check a DVC repository, or parts of it with everything upstream of them.

    Nothing is written into the repository and no code of it runs; DVC is not needed.

    Args:
        repository: Folder of the repository, the one that holds ``.dvc``: a path or a ``file:`` URI.
        targets: Stages, outputs, ``.dvc`` or ``dvc.yaml`` files, relative to the folder; all when there are none.
        level: ``L1`` bytes are those of the lock; ``L2`` also the lock agrees with ``dvc.yaml``, parameters and itself;
            ``L3`` also all of that is what a commit holds, signed by an allowed signer; ``L4`` also the objects are
            whole on the remote; ``L5`` also somebody who may signed which MD5 the bytes have; ``L6`` also each output
            comes from a signed run with just these inputs, back to data of data owners.
        allowed_signers: Who may sign commits: an allowed-signers file of OpenSSH, or signers. From ``L3``.
        branch: Full name of the branch that has to hold the commit, such as ``refs/remotes/origin/main``. ``L3`` fails
            without.
        revision: The commit, by default ``HEAD``: a full id, or the name of a branch or tag.
        remote: The remote, by default that of the committed configuration: its location, or its name there. From
            ``L4``.
        read_remote: Read those objects of the remote whose bytes its own checksums do not prove.
        identities: Who may sign lineage statements and provenance, by default what the policy says, without one what
            the surroundings set. From ``L5``.
        evidence_store: Where the evidence lies, by default what the surroundings set, then ``<repository>.evidence``.
        roots: Identities of data owners, whose data is a beginning. From ``L6``.
        datasets: Artifact digests that are beginnings too.
        policy: One more policy, the path of a draft; it can only tighten.
        storages: Finds storage.
        sink: Takes the audit events; the settings' own when absent.

    Returns:
        The verdict; from ``L3`` on it names the commit's signer, from ``L5`` on also those of lineage statements.

    Raises:
        UsageError: An unknown level or target, or an argument of a higher level.
        UnavailableError: A folder cannot be read, or the audit log not be written.
    """
    if isinstance(targets, str):
        raise UsageError("Give the targets as a list.")
    if level not in LEVELS:
        raise UsageError(f"{printable(level, 40)!r} is no level of lineage.", next_step=f"Use {', '.join(LEVELS)}.")
    given = {
        "allowed_signers": allowed_signers is not None,
        "branch": branch is not None,
        "revision": revision is not None,
        "remote": remote is not None,
        "read_remote": read_remote,
        "identities": identities is not None,
        "evidence_store": evidence_store is not None,
        "roots": roots is not None,
        "datasets": bool(datasets := tuple(datasets)),
    }
    for name, is_given in given.items():
        if is_given and LEVELS[level] < LEVELS[_FROM[name]]:
            raise UsageError(f"`{name}` is for level {_FROM[name]} and above.", next_step=f"Ask for {_FROM[name]}.")
    surroundings = context.current()
    storages = storages or Storages()
    path = os.path.realpath(to_path(repository))
    uri = to_uri(path)
    with Recording("check_lineage", uri, surroundings, sink=sink) as recording, rare_collection():
        vouchers = None
        if LEVELS[level] >= 5:
            from sealflow.actions.lineage_evidence import Vouchers

            vouchers = Vouchers(path, evidence_store, identities, policy, surroundings, storages)
        checked = check_repository(path, targets, level=level, binding=vouchers)
        findings = [*checked.findings]
        signers: tuple[Signer, ...] = ()
        if LEVELS[level] >= 3 and checked.read:
            signers, more = _commit(path, checked, allowed_signers, branch, revision or "HEAD")
            findings += more
        if vouchers is not None:
            signers = (*signers, *vouchers.signers)
        findings.append(Finding("LINEAGE_LEVEL", "note", level, _PROVED[level]))
        status, ordered = conclude(dict.fromkeys(findings))
        verdict = Verdict(
            status, uri, signers=signers, findings=ordered, checked_at=utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")
        )
        recording.judged(verdict)
    return verdict


def _commit(
    path: str,
    checked: LineageCheck,
    allowed_signers: str | Iterable[AllowedSigner] | None,
    branch: str | None,
    revision: str,
) -> tuple[tuple[Signer, ...], tuple[Finding, ...]]:
    from sealflow.lineage.git import check_commit, read_allowed_signers

    refused = []
    for name in checked.read:
        try:
            check_name(name)
        except ArtifactError as error:
            refused.append(Finding("DATA_REFUSED", "refusal", name, error.message, next_step="Rename the file."))
    if refused:
        return (), tuple(refused)
    allowed = read_allowed_signers(allowed_signers) if isinstance(allowed_signers, str) else allowed_signers or ()
    commit = check_commit(
        path,
        files=checked.read,
        allowed_signers=allowed,
        branch=branch,
        revision=revision,
    )
    signers = (Signer(commit.signer, commit.key, "commit", commit.commit),) if commit.signer else ()
    return signers, commit.findings
