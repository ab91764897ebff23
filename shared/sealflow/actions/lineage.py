"""Check the lineage of data that DVC tracks, up to a demanded level, and record the verdict."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from sealflow.actions import context
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.errors import ArtifactError, UsageError
from sealflow.findings import Finding, Signer, Verdict, conclude, printable
from sealflow.lineage.check import LEVELS, LineageCheck, check_repository
from sealflow.names import check_name
from sealflow.storage.local import to_path, to_uri

if TYPE_CHECKING:
    from sealflow.lineage.git import AllowedSigner

_PROVED: Final = {
    "L1": "L1 compared the bytes with dvc.lock and the .dvc files; whether these fit dvc.yaml and the parameters, "
    "and who wrote them, was not looked at.",
    "L2": "L2 compared bytes, lock, dvc.yaml and parameters with each other; who wrote them was not looked at, nor the "
    "remote.",
    "L3": "L3 holds for what a commit says; the remote was not looked at, nor whether the commands made the data.",
}


def check_lineage(
    repository: str,
    targets: Sequence[str] = (),
    *,
    level: str = "L2",
    allowed_signers: str | Iterable[AllowedSigner] | None = None,
    branch: str | None = None,
    revision: str = "HEAD",
    sink: AuditSink | None = None,
) -> Verdict:
    """Check a DVC repository, or parts of it with everything upstream of them.

    Nothing is written into the repository and no code of it runs; DVC is not needed.

    Args:
        repository: Folder of the repository, the one that holds ``.dvc``: a path or a ``file:`` URI.
        targets: Stages, outputs, ``.dvc`` or ``dvc.yaml`` files, relative to the folder; all when there are none.
        level: ``L1`` bytes are those of the lock; ``L2`` also the lock agrees with ``dvc.yaml``, parameters and itself;
            ``L3`` also all of that is what a commit holds, signed by an allowed signer.
        allowed_signers: Who may sign commits: an allowed-signers file of OpenSSH, or signers. For ``L3`` alone.
        branch: Full name of the branch that has to hold the commit, such as ``refs/remotes/origin/main``. ``L3`` fails
            without.
        revision: The commit: ``HEAD``, a full id, or the name of a branch or tag.
        sink: Takes the audit events; the settings' own when absent.

    Returns:
        The verdict; with ``L3`` it names the commit's signer.

    Raises:
        UsageError: An unknown level or target, or an argument of ``L3`` at a lower level.
        UnavailableError: A folder cannot be read, or the audit log not be written.
    """
    if isinstance(targets, str):
        raise UsageError("Give the targets as a list.")
    if level not in LEVELS:
        raise UsageError(f"{printable(level, 40)!r} is no level of lineage.", next_step=f"Use {', '.join(LEVELS)}.")
    if level != "L3" and (allowed_signers is not None or branch is not None or revision != "HEAD"):
        raise UsageError("Allowed signers, a branch and a revision are for level L3.", next_step="Ask for level L3.")
    path = os.path.realpath(to_path(repository))
    uri = to_uri(path)
    with Recording("check_lineage", uri, context.current(), sink=sink) as recording, rare_collection():
        checked = check_repository(path, targets, level=level)
        findings = [*checked.findings]
        signers: tuple[Signer, ...] = ()
        if level == "L3" and checked.read:
            signers, more = _commit(path, checked, allowed_signers, branch, revision)
            findings += more
        findings.append(Finding("LINEAGE_LEVEL", "note", level, _PROVED[level]))
        status, ordered = conclude(findings)
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
