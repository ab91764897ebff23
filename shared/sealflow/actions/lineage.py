"""Check the lineage of data that DVC tracks, up to a demanded level, and record the verdict."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions import context
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.errors import ArtifactError, SealflowError, UnavailableError, UsageError
from sealflow.findings import CODES, Finding, Severity, Signer, Verdict, conclude, printable
from sealflow.hashing import Digest
from sealflow.lineage.check import LEVELS, LineageCheck, check_repository
from sealflow.lineage.git_url import check_url, is_git_url, plain_url
from sealflow.names import check_name
from sealflow.policy.identities import Identity, parse_identities
from sealflow.policy.requirement import LineageDemand
from sealflow.storage import Storages
from sealflow.storage.local import to_path, to_uri
from sealflow.storage.resolve import is_s3

if TYPE_CHECKING:
    from sealflow.lineage.git import AllowedSigner
    from sealflow.policy.compose import Arguments, CompiledPolicy, Ruling

_PROVED: Final = {
    "L1": "L1 compared the bytes with dvc.lock and the .dvc files; whether these fit dvc.yaml and the parameters, "
    "and who wrote them, was not looked at.",
    "L2": "L2 compared bytes, lock, dvc.yaml and parameters with each other; who wrote them was not looked at, nor the "
    "remote.",
    "L3": "L3 holds for what a commit says; the remote was not looked at, nor whether the commands made the data.",
    "L4": "L4 holds for the objects that a remote is to keep, if there are any; their MD5 alone says that they are the "
    "recorded ones.",
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
    "identities": "L1",
    "evidence_store": "L1",
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

    Nothing is written into the repository and no code of it runs. DVC is needed only to fetch data for a URL. Where a
    rule of a policy asks for a higher level, that is the level.

    Args:
        repository: Folder of the repository, the one that holds ``.dvc``: a path or a ``file:`` URI. Or the URL of a
            Git repository, which is cloned into a private folder, looked at before DVC sees it, and gone afterwards.
        targets: Stages, outputs, ``.dvc`` or ``dvc.yaml`` files, relative to the folder; all when there are none.
        level: ``L1`` bytes are those of the lock; ``L2`` also the lock agrees with ``dvc.yaml``, parameters and itself;
            ``L3`` also all of that is what a commit holds, signed by an allowed signer; ``L4`` also the objects are
            whole on the remote; ``L5`` also somebody who may signed which MD5 the bytes have; ``L6`` also each output
            comes from a signed run with just these inputs, back to data of data owners.
        allowed_signers: Who may sign commits: an allowed-signers file of OpenSSH, or signers. From ``L3``.
        branch: Full name of the branch that has to hold the commit, such as ``refs/remotes/origin/main``. ``L3`` fails
            without.
        revision: The commit, by default ``HEAD``: a full id, or the name of a branch or tag. From ``L3``, and for URLs.
        remote: The remote, by default that of the committed configuration: its location, or its name there. From
            ``L4``, and for URLs, whose data comes from there and from nowhere else.
        read_remote: Read those objects of the remote whose bytes its own checksums do not prove.
        identities: Who may sign lineage statements and provenance, by default what the policy says, without one what
            the surroundings set. Below ``L5`` they are only the quicker way: what they signed is hashed with SHA-256
            alone, and anything else is read a second time.
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
    surroundings = context.current()
    storages = storages or Storages()
    where = _Place.of(repository)
    call = _Call(
        frozenset(name for name, is_given in given.items() if is_given),
        tuple(targets),
        LEVELS[level],
        allowed_signers,
        branch,
        revision,
        remote,
        read_remote,
        identities,
        evidence_store,
        parse_identities(roots) if roots is not None else None,
        frozenset(Digest.parse(text) for text in datasets),
        policy,
        storages,
        surroundings,
    )
    with Recording("check_lineage", where.uri, surroundings, sink=sink) as recording, rare_collection():
        verdict = _judge(where, call)
        recording.judged(verdict)
    return verdict


@dataclass(frozen=True)
class _Place:
    """Where a repository is.

    Attributes:
        uri: Its location, for verdicts.
        named: Its location for rules: as it was given, for those about a link on the way hold beside those about the
            folder, and with the host of a URL in its one spelling.
        path: Real path of its folder; empty for the URL of a Git repository.
        url: The URL of a Git repository; empty for a folder.
    """

    uri: str
    named: str
    path: str = ""
    url: str = ""

    @classmethod
    def of(cls, repository: str) -> _Place:
        if not is_git_url(repository):
            given = to_path(repository)
            path = os.path.realpath(given)
            return cls(to_uri(path), to_uri(given), path)
        check_url(repository)
        host, _, rest = repository.partition(":")
        # What ssh takes without a scheme has one name in rules: that with a scheme.
        short = "://" not in repository
        uri = f"ssh://{host}/{rest.lstrip('/')}" if short else repository
        return cls(uri, plain_url(uri), url=repository)


@dataclass(frozen=True)
class _Call:
    """What a call asks for, see :func:`check_lineage`."""

    given: frozenset[str]
    targets: tuple[str, ...]
    level: int
    allowed_signers: str | Iterable[AllowedSigner] | None
    branch: str | None
    revision: str | None
    remote: str | None
    read_remote: bool
    identities: Any
    evidence_store: str | None
    roots: tuple[Identity, ...] | None
    datasets: frozenset[Digest]
    policy: str | CompiledPolicy | None
    storages: Storages
    surroundings: context.Surroundings

    @property
    def arguments(self) -> Arguments:
        """What the call says about signers."""
        from sealflow.policy.compose import Arguments

        return Arguments(
            parse_identities(self.identities) if self.identities is not None else None,
            defaults=parse_identities(self.surroundings.settings.identities),
        )

    def refuse_unused(self, level: int, *, elsewhere: bool) -> None:
        """Refuse what would be passed over at a level: whoever gives it believes that it counts.

        Raises:
            UsageError: Names the first.
        """
        anyway = {"revision", "remote"} if elsewhere else set()
        for name in sorted(self.given - anyway):
            if level < LEVELS[_FROM[name]]:
                raise UsageError(f"`{name}` is for level {_FROM[name]} and above.", next_step=f"Ask for {_FROM[name]}.")


def _judge(where: _Place, call: _Call) -> Verdict:
    findings: list[Finding] = []
    signers: tuple[Signer, ...] = ()
    ruling: Ruling | None = None
    try:
        demands: tuple[LineageDemand, ...] = ()
        if call.surroundings.admin is not None or call.policy is not None:
            from sealflow.actions.policies import policies_for

            policies = policies_for(where.named, call.surroundings, call.policy)
            ruling = policies.ruling(call.arguments)
            findings += _said(ruling, where.uri, call.surroundings.run.producer)
            if policies.in_force is not None:
                findings += policies.in_force.findings
            demands = _enforced(ruling)
        level = max([call.level, *(item.level for item in demands)])
        call.refuse_unused(level, elsewhere=bool(where.url))
        with _opened(where, call) as (path, seen):
            findings += seen
            if path:
                signers, more = _check(path, where, call, level, demands)
                findings += more
    except UnavailableError as error:
        if error.code not in CODES:
            raise
        findings.append(Finding(error.code, "unverifiable", where.uri, error.message, next_step=error.next_step))
    status, ordered = conclude(dict.fromkeys(findings))
    return Verdict(
        status,
        where.uri,
        signers=signers,
        findings=ordered,
        policy=ruling.policy if ruling is not None else "",
        checked_at=utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        rules=tuple(rule.name for rule in ruling.rules) if ruling is not None else (),
    )


def _said(ruling: Ruling, subject: str, consumer: str) -> list[Finding]:
    """Return what a verdict says of the policy itself."""
    if ruling.unmatched:
        message = "The policy manages this repository, and no rule holds for this task."
        return [Finding("POLICY_NO_RULE", "refusal", subject, message, "a rule", consumer, "rules")]
    asked = [item for item in ruling.requirement.lineage if item.level]
    if ruling.level == "audit" and asked:
        message = f"The rules are only audited; enforced, they would ask for level L{max(i.level for i in asked)}."
        return [Finding("POLICY_AUDIT", "warning", subject, message, rule=", ".join(item.rule for item in asked))]
    return []


def _enforced(ruling: Ruling) -> tuple[LineageDemand, ...]:
    return ruling.requirement.lineage if ruling.level == "enforce" else ()


@contextlib.contextmanager
def _opened(where: _Place, call: _Call) -> Iterator[tuple[str, tuple[Finding, ...]]]:
    """Give the folder of the repository, of a private clone where it lies elsewhere; empty where nothing is left."""
    if not where.url:
        yield where.path, ()
        return
    from sealflow.lineage.foreign import prepared, s3_environment

    remote = call.remote
    environment = None
    if remote is not None and is_s3(remote):
        environment = s3_environment(call.storages.s3(remote).client(remote))
    with prepared(
        where.url, call.revision or "HEAD", remote=remote, targets=call.targets, environment=environment
    ) as found:
        yield found


def _check(
    path: str, where: _Place, call: _Call, level: int, demands: Sequence[LineageDemand]
) -> tuple[tuple[Signer, ...], list[Finding]]:
    """Check a folder at a level."""
    vouchers = None
    if level >= 5 or "identities" in call.given:
        from sealflow.actions.lineage_evidence import Vouchers, store_of

        store = store_of(where.path, call.evidence_store, call.surroundings, call.storages)
        given = parse_identities(call.identities) if call.identities is not None else None
        vouchers = Vouchers(where.named, store, given, call.policy, call.surroundings)
    checked = check_repository(path, call.targets, level=f"L{level}", binding=vouchers)
    findings = [*checked.findings]
    signers: tuple[Signer, ...] = ()
    sources = None
    if level >= 6 and vouchers is not None:
        from sealflow.actions.lineage_runs import Sources

        sources = Sources(path, checked)
    if level >= 3 and checked.read:
        revision = "HEAD" if where.url else call.revision or "HEAD"
        files = {**checked.read, **(sources.files if sources is not None else {})}
        for allowed, branch in _commits(call, demands):
            made, more = _commit(path, files, allowed, branch, revision)
            signers = (*signers, *made)
            findings += more if sources is None else sources.left(more)
    if level >= 4 and checked.read:
        findings += _remotes(path, checked, call)
    if vouchers is not None:
        signers = (*signers, *vouchers.signers)
        findings += vouchers.notes
    if vouchers is not None and sources is not None:
        from sealflow.actions.lineage_runs import check_runs

        made, more = check_runs(
            checked,
            vouchers,
            sources,
            beginnings=_beginnings(call, demands),
            identities=call.identities,
            policy=call.policy,
            surroundings=call.surroundings,
            storages=call.storages,
        )
        signers = (*signers, *made)
        findings += more
    findings.append(Finding("LINEAGE_LEVEL", "note", f"L{level}", _PROVED[f"L{level}"]))
    return tuple(dict.fromkeys(signers)), findings


def _commits(
    call: _Call, demands: Sequence[LineageDemand]
) -> list[tuple[str | Iterable[AllowedSigner] | None, str | None]]:
    """Return who may sign the commit and which branch must hold it: all pairs must hold, those of rules first."""
    from sealflow.lineage.git import parse_allowed_signers

    found: list[tuple[str | Iterable[AllowedSigner] | None, str | None]] = [
        (parse_allowed_signers(item.commits[0].encode("utf-8"), f"the rule {item.rule}"), item.commits[1])
        for item in demands
        if item.commits is not None
    ]
    if not found or call.allowed_signers is not None or call.branch is not None:
        found.append((call.allowed_signers, call.branch))
    return found


def _beginnings(call: _Call, demands: Sequence[LineageDemand]) -> list[tuple[tuple[Identity, ...], frozenset[Digest]]]:
    """Return where data may begin: what all rules accept, and what the call accepts. Each must hold by itself."""
    asked = [item for item in demands if item.traces]
    found = []
    if asked:
        roots = tuple(item for item in asked[0].roots if all(item in other.roots for other in asked))
        found.append((roots, frozenset.intersection(*(item.datasets for item in asked))))
    if not found or call.roots is not None or call.datasets:
        found.append((call.roots or (), call.datasets))
    return found


def _remotes(path: str, checked: LineageCheck, call: _Call) -> list[Finding]:
    from sealflow.lineage.config import is_remote_name, remote_url
    from sealflow.lineage.remote import check_remote, wanted_objects

    findings: list[Finding] = []
    for name, wanted in sorted(wanted_objects(checked.stages, checked.contents).items()):
        root = ""
        try:
            if call.remote is not None and not is_remote_name(call.remote):
                url = call.remote
            else:
                url, root = remote_url(checked.read.get(".dvc/config"), name or call.remote or None), path
            findings += check_remote(url, wanted, storages=call.storages, read=call.read_remote, root=root)
        except SealflowError as error:
            if error.code not in CODES:
                raise
            severity: Severity = "unverifiable" if isinstance(error, UnavailableError) else "refusal"
            subject = call.remote or name or "the default remote"
            findings.append(Finding(error.code, severity, subject, error.message, next_step=error.next_step))
    return findings


def _commit(
    path: str,
    files: Mapping[str, bytes | None],
    allowed_signers: str | Iterable[AllowedSigner] | None,
    branch: str | None,
    revision: str,
) -> tuple[tuple[Signer, ...], tuple[Finding, ...]]:
    from sealflow.lineage.git import check_commit, read_allowed_signers

    refused = []
    for name in files:
        try:
            check_name(name)
        except ArtifactError as error:
            refused.append(Finding("DATA_REFUSED", "refusal", name, error.message, next_step="Rename the file."))
    if refused:
        return (), tuple(refused)
    allowed = read_allowed_signers(allowed_signers) if isinstance(allowed_signers, str) else allowed_signers or ()
    commit = check_commit(path, files=files, allowed_signers=allowed, branch=branch, revision=revision)
    signers = (Signer(commit.signer, commit.key, "commit", commit.commit),) if commit.signer else ()
    return signers, commit.findings
