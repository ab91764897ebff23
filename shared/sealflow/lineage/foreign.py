"""Repositories from elsewhere: cloned into a private folder, looked at, given their data; then checked like any other.

Nothing of such a repository is run, and nothing that it says decides where data comes from or which credentials go
where. The caller says where data may come from. See ``clone``, ``preflight`` and ``fetch`` for the three steps.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

from sealflow.findings import Finding
from sealflow.lineage import clone
from sealflow.lineage.clone import cloned
from sealflow.lineage.fetch import SIZE_LIMIT, TIME_LIMIT, fetch
from sealflow.lineage.git_program import Stopped
from sealflow.lineage.git_url import is_git_url
from sealflow.lineage.preflight import preflight
from sealflow.lineage.source import data_source, s3_environment

__all__ = ["checked_out", "fetch", "is_git_url", "preflight", "prepared", "s3_environment"]


@contextlib.contextmanager
def checked_out(
    url: str,
    revision: str = "HEAD",
    *,
    time_limit: float = clone.TIME_LIMIT,
    size_limit: int = clone.SIZE_LIMIT,
) -> Iterator[str]:
    """Give the folder of a private clone with the files of one revision; see :func:`~sealflow.lineage.clone.cloned`.

    Raises:
        UsageError: A URL or revision that cannot be taken.
        Stopped: What stopped the clone, as a finding.
    """
    with cloned(url, revision, time_limit=time_limit, size_limit=size_limit) as found:
        yield found.root


@contextlib.contextmanager
def prepared(
    url: str,
    revision: str = "HEAD",
    *,
    remote: str | None = None,
    targets: Sequence[str] = (),
    remotes: Collection[str] = (),
    environment: Mapping[str, str] | None = None,
    python: str = sys.executable,
    clone_time_limit: float = clone.TIME_LIMIT,
    clone_size_limit: int = clone.SIZE_LIMIT,
    time_limit: float = TIME_LIMIT,
    size_limit: int = SIZE_LIMIT,
) -> Iterator[tuple[str, tuple[Finding, ...]]]:
    """Clone a repository, look at it, and fetch its data; remove all of it afterwards.

    Args:
        url: ``https://``, ``ssh://``, ``user@host:path`` or ``file:///``, without credentials.
        revision: ``HEAD`` for the default branch, a full commit id, or the name of a branch or tag. The clone's own
            ``HEAD`` is that commit, and its branches are those of the server: ``refs/remotes/origin/main``.
        remote: Where data may come from: ``s3://bucket/prefix``, a path or ``file:///path``. Without one no data is
            fetched, and the check finds what the commit holds.
        targets: As for a check.
        remotes: Further URLs that the repository's configuration may name; nothing is fetched from them.
        environment: Variables for DVC, see :func:`~sealflow.lineage.fetch.fetch`.
        python: Interpreter that has DVC.
        clone_time_limit: Seconds for the clone.
        clone_size_limit: Bytes of the clone.
        time_limit: Seconds for the data.
        size_limit: Bytes of the data.

    Yields:
        The folder of the working tree, and the findings so far. Where one of them decides, the folder is the empty
        text: there is nothing to check, and the findings are the answer.

    Raises:
        UsageError: An argument that cannot be taken.
    """
    allowed = {*remotes}
    if remote is not None:
        allowed |= {remote, data_source(remote)}
    with contextlib.ExitStack() as stack:
        root = ""
        try:
            found = stack.enter_context(cloned(url, revision, time_limit=clone_time_limit, size_limit=clone_size_limit))
            root, findings = found.root, (*found.findings, *preflight(found.root, remotes=allowed))
        except Stopped as stopped:
            findings = (stopped.finding,)
        if remote is not None and not _decided(findings):
            findings += fetch(
                root,
                remote=remote,
                targets=targets,
                environment=environment,
                python=python,
                time_limit=time_limit,
                size_limit=size_limit,
            )
        yield "" if _decided(findings) else root, findings


def _decided(findings: tuple[Finding, ...]) -> bool:
    return any(finding.severity in ("refusal", "unverifiable") for finding in findings)
