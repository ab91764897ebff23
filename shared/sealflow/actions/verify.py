"""Verify: collect evidence, read the bytes, let the verification judge, record the verdict.

``verify`` is a gate: the bytes can change behind it. ``verified`` hands out a private copy whose bytes are the judged
ones.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions import context
from sealflow.actions.checking import Check
from sealflow.actions.recipients import recipient_uris
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.collector import rare_collection
from sealflow.errors import (
    EXIT_REFUSED_EVIDENCE,
    EXIT_REFUSED_IDENTITY,
    ArtifactError,
    EvidenceError,
    SealflowError,
    UnavailableError,
    UsageError,
    VerificationError,
)
from sealflow.evidence import ArtifactRef, EvidenceStore, StoredEvidence, default_store
from sealflow.evidence.provenance import Dependency
from sealflow.evidence.reference import is_reference
from sealflow.evidence.store import MAX_BYTES, SUMMARY
from sealflow.findings import CODES, Finding, Verdict, conclude, printable
from sealflow.hashing import Digest
from sealflow.keys import KeySigner, PassphraseCallback
from sealflow.manifest import Manifest, Serialization, build_manifest
from sealflow.manifest.build import Progress
from sealflow.names import check_name
from sealflow.policy import Requirement, parse_identities
from sealflow.policy.compose import Arguments, compose_without_policy
from sealflow.storage import Location, Storages
from sealflow.verification.judge import Case, Judgement, judge
from sealflow.verification.ruling import judge_ruling

if TYPE_CHECKING:
    from sealflow.actions.encrypted import Opening
    from sealflow.actions.policies import Policies
    from sealflow.policy.compose import CompiledPolicy

#: Exit statuses of errors that speak about the artifact and its evidence.
_REFUSED: Final = frozenset({EXIT_REFUSED_EVIDENCE, EXIT_REFUSED_IDENTITY})
#: How many other artifacts' evidence is looked at to explain a refusal.
_EXPLAIN: Final = 8
#: How many artifacts' evidence is tried for a subset that no reference pins.
_SEARCH: Final = 256


class _BytesNeeded(Exception):  # noqa: N818  (no error: a question that only the bytes answer)
    """A piece of evidence can be judged only by reading the bytes."""


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        verdict: The verdict.
        ref: The reference to hand on: it pins the checked digest, and the object version where there is one. ``None``
            unless the verdict is ``passed`` and the evidence lies in a store.
        runs: Invocations in all provenance that counted.
    """

    verdict: Verdict
    ref: ArtifactRef | None
    runs: tuple[str, ...] = ()


def verify(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    *,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    files: Iterable[str] | None = None,
    evidence_store: str | None = None,
    evidence: Sequence[StoredEvidence] = (),
    only_given_evidence: bool = False,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    accept_legacy: bool = False,
    recipients: Any = None,
    verifier: str | KeySigner | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Check an artifact where it lies and return the verdict; never raises for a refusal.

    :func:`verify_artifact` returns more.

    Args:
        artifact: Path, location, or the reference that signing returned (its digest is then required).
        identities: Who may sign, by default what the policy says, without one what the surroundings set. Without any,
            nothing passes.
        name: Expected logical name.
        producer: Expected producer, a pattern such as ``airflow:train/*``.
        files: Names of files inside a folder; only these are read and checked, against the signed manifest.
        evidence_store: Where the evidence lies, by default the reference's, then what the surroundings set, then
            ``<artifact>.evidence``.
        evidence: Further evidence that was handed over, such as a bundle from a KFP artifact's metadata.
        only_given_evidence: Look at ``evidence`` only and at no store.
        require: Kinds of evidence that must be there, by default what the policy asks for, without one both.
        policy: One more policy, the path of a draft; like every other argument it can only tighten.
        accept_legacy: Accept what model-signing 0.2 wrote.
        recipients: URIs of the keys that may open an encrypted artifact, by default what the surroundings set.
        verifier: Signer of verification summaries, by default the one that the surroundings set. With one, a full
            check that passes under a policy in force leaves a summary in the evidence store; where the policy's
            `reuse_verdict` allows it, this gate takes such a summary instead of reading one version of one object.
        passphrase: Asked for the passphrase of such a key.
        storages: Finds storage.
        audit: Takes audit events.
        progress: Called with bytes read and, when known, bytes in all.

    Raises:
        UsageError: A parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach. Unreachable artifacts and evidence are ``unverifiable``
            verdicts.
    """
    return verify_artifact(
        artifact,
        identities=identities,
        name=name,
        producer=producer,
        files=files,
        evidence_store=evidence_store,
        evidence=evidence,
        only_given_evidence=only_given_evidence,
        require=require,
        policy=policy,
        accept_legacy=accept_legacy,
        recipients=recipients,
        verifier=verifier,
        passphrase=passphrase,
        storages=storages,
        audit=audit,
        progress=progress,
    ).verdict


def verify_artifact(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    *,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    files: Iterable[str] | None = None,
    evidence_store: str | None = None,
    evidence: Sequence[StoredEvidence] = (),
    only_given_evidence: bool = False,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    accept_legacy: bool = False,
    recipients: Any = None,
    verifier: str | KeySigner | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Check as :func:`verify` does and return the reference beside the verdict."""
    check = settle(
        artifact,
        identities=identities,
        name=name,
        producer=producer,
        files=files,
        evidence_store=evidence_store,
        evidence=evidence,
        exclusive=only_given_evidence,
        require=require,
        policy=policy,
        accept_legacy=accept_legacy,
        recipients=recipients,
        verifier=verifier,
        passphrase=passphrase,
        storages=storages,
    )
    with Recording("verify", check.canonical, check.surroundings, sink=audit, policy=check.added) as recording:
        check.unwrapped = recording.unwrapped
        judgement = _judge(check, copy_to=None, progress=progress)
        recording.judged(judgement.verdict, judgement.location.version_id if judgement.location else None)
    judgement = _summarise(check, judgement, audit)
    remember(check, judgement)
    return Checked(judgement.verdict, _reference(check, judgement), judgement.runs)


@contextlib.contextmanager
def verified(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    files: Iterable[str] | None = None,
    *,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    evidence_store: str | None = None,
    evidence: Sequence[StoredEvidence] = (),
    only_given_evidence: bool = False,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    recipients: Any = None,
    verifier: str | KeySigner | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Iterator[str]:
    """Give a private copy of an artifact whose bytes are exactly the verified ones; it is gone afterwards.

    A file's copy keeps its name. Parameters are those of :func:`verify`.

    Yields:
        The path of the copy: a file for a file, a folder for a folder.

    Raises:
        VerificationError: The verdict is not ``passed``; nothing was handed out.
        UsageError: A parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach, or there is no room for the copy.
    """
    with held(
        artifact,
        files,
        identities=identities,
        name=name,
        producer=producer,
        evidence_store=evidence_store,
        evidence=evidence,
        only_given_evidence=only_given_evidence,
        require=require,
        policy=policy,
        recipients=recipients,
        verifier=verifier,
        passphrase=passphrase,
        storages=storages,
        audit=audit,
        progress=progress,
    ) as (path, _):
        yield path


@contextlib.contextmanager
def held(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    files: Iterable[str] | None = None,
    *,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    evidence_store: str | None = None,
    evidence: Sequence[StoredEvidence] = (),
    only_given_evidence: bool = False,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    recipients: Any = None,
    verifier: str | KeySigner | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[str, Verdict]]:
    """Do what :func:`verified` does and yield the verdict beside the path."""
    check = settle(
        artifact,
        identities=identities,
        name=name,
        producer=producer,
        files=files,
        evidence_store=evidence_store,
        evidence=evidence,
        exclusive=only_given_evidence,
        require=require,
        policy=policy,
        recipients=recipients,
        verifier=verifier,
        passphrase=passphrase,
        storages=storages,
    )
    import shutil
    import tempfile

    # mkdtemp makes the folder 0700: nobody else can reach the copy between the check and the use.
    try:
        folder = tempfile.mkdtemp(prefix="sealflow-", dir=os.environ.get("SEALFLOW_TMPDIR") or None)
    except OSError as error:
        raise _no_room(error) from None
    try:
        path, checked = check_into(check, os.path.join(folder, "artifact"), "verify", audit, progress)
        yield path, checked.verdict
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_into(
    check: Check, content: str, action: str, audit: AuditSink | None, progress: Progress | None
) -> tuple[str, Checked]:
    """Copy an artifact into a folder that nobody else can reach, and judge the copy.

    Args:
        check: What is to be checked.
        content: The folder; it is made here.
        action: The verb for the audit log.
        audit: Takes audit events.
        progress: Called with bytes read and, when known, bytes in all.

    Returns:
        The path of the copy, the folder or the single file in it, and what was found.

    Raises:
        VerificationError: The verdict is not ``passed``; what lies in the folder must not be used.
        UsageError: A parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach, or there is no room for the copy.
    """
    with Recording(action, check.canonical, check.surroundings, sink=audit, policy=check.added) as recording:
        check.unwrapped = recording.unwrapped
        os.mkdir(content, 0o700)
        judgement = _judge(check, copy_to=content, progress=progress)
        recording.judged(judgement.verdict, judgement.location.version_id if judgement.location else None)
    if not judgement.verdict.passed:
        final = judgement.verdict.status == "failed"
        raise (check.surroundings.refusal if final else VerificationError)(judgement.verdict)
    for ignored in judgement.ignored:
        _remove(content, ignored)
    if check.opened is not None:
        check.opened.give_modes(content)
    judgement = _summarise(check, judgement, audit)
    remember(check, judgement)
    path = content
    if judgement.verdict.digest.startswith("sha256:"):
        path = os.path.join(content, os.listdir(content)[0])
    return path, Checked(judgement.verdict, _reference(check, judgement), judgement.runs)


def settle(
    artifact: Any,
    *,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    files: Iterable[str] | None = None,
    evidence_store: str | None = None,
    evidence: Sequence[StoredEvidence] = (),
    exclusive: bool = False,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    accept_legacy: bool = False,
    recipients: Any = None,
    verifier: str | KeySigner | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
) -> Check:
    """Settle the parameters of one check; they are those of :func:`verify`.

    Raises:
        UsageError: A parameter or a setting cannot work.
    """
    surroundings = context.current()
    storages = storages or Storages()
    ref = ArtifactRef.parse(artifact) if is_reference(artifact) else None
    uri = ref.uri if ref is not None else os.fspath(artifact)
    storage = storages.for_uri(uri)
    canonical = storage.canonical(uri)
    chosen = _names(files)
    arguments = Arguments(
        parse_identities(identities) if identities is not None else None,
        None if require is None else frozenset([require] if isinstance(require, str) else require),
        ref.digest if ref is not None else None,
        name or None,
        producer or None,
        chosen,
        accept_legacy,
        parse_identities(surroundings.settings.identities),
    )
    policies: Policies | None = None
    blocked: UnavailableError | None = None
    if surroundings.admin is not None or policy is not None:
        from sealflow.actions.policies import policies_for

        try:
            policies = policies_for(canonical, surroundings, policy)
        except UnavailableError as error:
            blocked = error
    ruling = policies.ruling(arguments) if policies is not None else compose_without_policy(arguments, surroundings.run)
    store = None
    if not exclusive:
        where = evidence_store or (ref.evidence if ref else None) or surroundings.settings.evidence_store
        store = EvidenceStore(where or default_store(canonical, storages), storages)
    return Check(
        surroundings,
        storages,
        storage,
        uri,
        canonical,
        ref,
        store,
        tuple(evidence),
        exclusive,
        arguments,
        policies,
        ruling,
        blocked,
        verifier or surroundings.settings.verifier or None,
        policy,
        recipients=recipient_uris(recipients) or recipient_uris(surroundings.settings.recipients),
        passphrase=passphrase,
    )


def _remove(content: str, name: str) -> None:
    """Remove a file from the copy, and the folders that are empty then: an empty package can be imported too."""
    os.unlink(os.path.join(content, name))
    while name := name.rpartition("/")[0]:
        try:
            os.rmdir(os.path.join(content, name))
        except OSError:
            return


def _names(files: Iterable[str] | None) -> tuple[str, ...]:
    if files is None:
        return ()
    names = (files,) if isinstance(files, str) else tuple(files)
    if not names:
        raise UsageError("`files` is an empty list; leave it out to check the whole artifact.")
    for item in names:
        try:
            check_name(item)
        except ArtifactError as error:
            raise UsageError(f"`files`: {error.message}") from None
        except (AttributeError, TypeError):
            raise UsageError(f"`files` holds a name that is no text but {type(item).__name__}.") from None
    return names


@rare_collection()
def _judge(check: Check, copy_to: str | None, progress: Progress | None) -> Judgement:
    """Judge; whatever keeps the artifact or its evidence from being read becomes a verdict, never a pass."""
    return judged_opening(check, lambda: _judge_read(check, copy_to, progress))


def judged_opening(check: Check, judge_it: Callable[[], Judgement]) -> Judgement:
    """Return a judgement; whatever keeps the artifact or its evidence from being read becomes a verdict.

    Args:
        check: The check.
        judge_it: Reads and judges.

    Raises:
        UsageError: A parameter or a setting cannot work.
        UnavailableError: There is no room for the private copy.
    """
    if check.blocked is not None:
        return _unreadable(check, check.blocked)
    try:
        return judge_it()
    except UsageError:
        raise
    except SealflowError as error:
        if not isinstance(error, UnavailableError) and error.exit_status not in _REFUSED:
            raise
        return _unreadable(check, error)
    except OSError as error:
        # Only writing the private copy can get here: the storages translate their own errors.
        raise _no_room(error) from None


def _judge_read(check: Check, copy_to: str | None, progress: Progress | None) -> Judgement:
    if check.seems_encrypted():
        return _judge_encrypted(check, copy_to, progress)
    location = check.storage.locate(check.uri)
    if location is None:
        raise ArtifactError(f"Nothing lies at {printable(check.canonical)}.", code="ARTIFACT_MISSING")
    versioned = location.version_id is not None
    if check.ref is not None and check.ref.version_id and location.kind == "file":
        location = location._replace(version_id=check.ref.version_id)
    said: tuple[Finding, ...] = ()
    if copy_to is None and versioned and check.ruling.reuse is not None:
        from sealflow.actions.reuse import stand_in

        reused, said = stand_in(check, location, lambda content: _judge_unread(check, location, content))
        if reused is not None:
            return reused
    if check.requirement.files and location.kind == "file":
        raise UsageError("`files` chooses inside a folder, and this artifact is a single file.")
    if check.verifier is not None:
        from sealflow.actions.reuse import open_verifier

        open_verifier(check)
    manifest = build_manifest(
        check.storage, location, files=check.requirement.files or None, copy_to=copy_to, progress=progress
    )
    check.look_inside(manifest)
    judgement = _judge_bytes(check, location, manifest, copy_to, said)
    verdict = judgement.verdict
    return judgement._replace(location=location, verdict=replace(verdict, policy=check.ruling.policy or verdict.policy))


def _judge_encrypted(check: Check, copy_to: str | None, progress: Progress | None) -> Judgement:
    """Judge an encrypted artifact: who stands for its frames, and then what they hold as any other artifact."""
    from sealflow.actions.encrypted import opened

    with opened(check) as opening:
        if opening.artifact is None:
            return judge_opened(check, opening, None, None)
        files = check.requirement.files or None
        if files and opening.location.kind == "file":
            raise UsageError("`files` chooses inside a folder, and this artifact is a single file.")
        if check.verifier is not None:
            from sealflow.actions.reuse import open_verifier

            open_verifier(check)
        manifest = build_manifest(check.source, opening.location, files=files, copy_to=copy_to, progress=progress)
        return judge_opened(check, opening, manifest, copy_to)


def judge_opened(
    check: Check, opening: Opening, manifest: Manifest | None, copy_to: str | None, *, unread: bool = False
) -> Judgement:
    """Judge an encrypted artifact after the question who stands for its frames.

    Args:
        check: The check.
        opening: What came of opening it.
        manifest: Made from its bytes, or told by its index; ``None`` where it was not opened.
        copy_to: Folder with the copy that will be used.
        unread: Whether the manifest is only told.
    """
    if manifest is None:
        return _refused(check, opening.findings)
    check.look_inside(manifest)
    said: list[Finding] = list(opening.findings)
    assert opening.said is not None  # noqa: S101  (it was opened)
    signed = opening.said.artifact
    if not check.requirement.files and manifest.digest != signed:
        said.append(_other_artifact(check, str(signed), str(manifest.digest)))
    whole = replace(check, handed=tuple(opening.evidence))
    # What lies beside the object is enough as a rule. Evidence never takes away from other evidence, so what lies by
    # the artifact's digest is looked at only where that is not enough.
    near = replace(whole, store=None, exclusive=True)
    judgement = _judge_bytes(near, opening.location, manifest, copy_to, said, unread=unread)
    if not judgement.verdict.passed or judgement.relaxed:
        judgement = _judge_bytes(whole, opening.location, manifest, copy_to, said, unread=unread)
    verdict = judgement.verdict
    if verdict.passed and verdict.digest != str(signed):
        return _refused(check, (_other_artifact(check, str(signed), verdict.digest), *verdict.findings))
    return judgement._replace(
        location=opening.location, verdict=replace(verdict, policy=check.ruling.policy or verdict.policy)
    )


def _other_artifact(check: Check, expected: str, found: str) -> Finding:
    return Finding(
        "ENCRYPTION_UNBOUND",
        "refusal",
        check.canonical,
        "What was encrypted is not the artifact that the statement about its frames names.",
        expected=expected,
        found=found,
        rule="encryption",
    )


def _no_room(error: OSError) -> UnavailableError:
    return UnavailableError(
        f"The private copy cannot be written: {error.strerror or error}.",
        next_step="Point SEALFLOW_TMPDIR to a place with enough room.",
    )


def _judge_bytes(
    check: Check,
    location: Location,
    manifest: Manifest,
    copy_to: str | None,
    noted: Sequence[Finding] = (),
    *,
    unread: bool = False,
) -> Judgement:
    requirement = check.requirement
    check.found.summaries.clear()
    target = requirement.digest or (None if requirement.files or check.exclusive else manifest.digest)
    evidence, findings = list(check.handed), list[Finding]()
    if check.store is not None:
        # A subset has no digest to look evidence up by; without a reference every signed manifest is tried.
        wanted = [target] if target is not None else check.store.digests(_SEARCH + 1)
        left = MAX_BYTES
        for digest in wanted[:_SEARCH]:
            collected = check.store.collect(digest, left)
            left -= sum(len(item.data) for item in collected.objects)
            # What a verifier once concluded is no evidence of what it concluded from.
            evidence += [item for item in collected.objects if item.kind != SUMMARY]
            if target is not None:
                check.found.summaries += [item for item in collected.objects if item.kind == SUMMARY]
            findings += collected.findings(check.store.uri)
        if len(wanted) > _SEARCH:
            findings.append(
                Finding(
                    "EVIDENCE_TOO_MUCH",
                    "unverifiable",
                    check.store.uri,
                    f"The store holds evidence of more than the {_SEARCH} artifacts that one check tries.",
                    next_step="Pass the ArtifactRef; it says which of them is meant.",
                )
            )

    def rehash(serialization: Serialization) -> Manifest:
        if unread:
            raise _BytesNeeded
        if copy_to is None:
            return build_manifest(check.source, location, serialization=serialization, files=requirement.files or None)
        # The copy is what will be used, so the copy is what must be hashed again.
        local = check.storages.for_uri(copy_to)
        kind = location.kind
        where = copy_to if kind == "tree" else os.path.join(copy_to, location.name)
        copied = Location(local.canonical(where), kind, location.name)
        return build_manifest(local, copied, serialization=serialization)

    said = check.policies.findings(check.ruling, check.canonical) if check.policies is not None else ()
    case = Case(
        location,
        manifest,
        requirement,
        evidence,
        target,
        rehash,
        utc_now(),
        copy_to is not None,
        (*said, *noted, *findings),
        check.surroundings.run.producer,
        partial(_walk_back, check),
        check.opened.holders if check.opened is not None else None,
    )
    doubtful = any(finding.severity == "unverifiable" for finding in findings)
    silent = not evidence and not doubtful and check.store is not None and target is not None
    judgement = _judge_under(check, case)
    if requirement.digest is not None or requirement.files:
        return judgement
    if judgement.relaxed:
        return _contradiction(check, case) or judgement
    if check.store is not None and silent and not judgement.verdict.passed and not check.ruling.unmatched:
        return _explain(check.store, case, _EXPLAIN) or judgement
    return judgement


def _judge_unread(check: Check, location: Location, content: Manifest) -> Judgement | None:
    """Judge the evidence for bytes that are only said to be these; ``None`` where that leads nowhere."""
    try:
        return judge_unread(check, location, content)
    except (ArtifactError, EvidenceError, UnavailableError):
        return None


def judge_unread(
    check: Check, location: Location, content: Manifest, noted: Sequence[Finding] = ()
) -> Judgement | None:
    """Judge the evidence for bytes that nobody reads; ``None`` where only the bytes could tell.

    Args:
        check: The check.
        location: Where the artifact is said to lie.
        content: What it is said to consist of.
        noted: What was observed before.

    Raises:
        SealflowError: The evidence cannot be read.
    """
    try:
        return _judge_bytes(check, location, content, None, noted, unread=True)
    except _BytesNeeded:
        return None


def _contradiction(check: Check, case: Case) -> Judgement | None:
    """Return a refusal where the artifact's own store holds good evidence, and all of it is about other bytes.

    Whatever lies there speaks about this artifact, so no level and no waiver lets it pass, whatever store a call names.
    """
    try:
        store = EvidenceStore(default_store(check.canonical, check.storages), check.storages)
    except UsageError:
        return None  # where none may lie, none was written
    return None if store.collect(case.manifest.digest).objects else _explain(store, case, _SEARCH)


def _judge_under(check: Check, case: Case) -> Judgement:
    """Judge under the ruling, and again as long as signed logical names bring in rules of their own.

    Names bring rules, rules bring signers, and what these signed may say one more name.
    """
    ruling = check.ruling
    judgement = judge_ruling(case, ruling)
    while True:
        named = check.deciding(judgement)
        if named.rules == ruling.rules and named.managed == ruling.managed:
            return judgement
        ruling = named
        again = judge_ruling(replace(case, requirement=ruling.requirement), ruling)
        judgement = again._replace(names=tuple(sorted({*judgement.names, *again.names})))


def _summarise(check: Check, judgement: Judgement, audit: AuditSink | None) -> Judgement:
    if check.verifier is None:
        return judgement
    from sealflow.actions.reuse import summarise

    return summarise(check, judgement, audit)


def _explain(store: EvidenceStore, case: Case, most: int) -> Judgement | None:
    """Say what changed, when a store holds good evidence for other bytes at this location; never a pass.

    The other artifact's digest is required, so the bytes at hand cannot satisfy it.
    """
    best: Judgement | None = None
    for digest in store.digests(most):
        requirement = replace(case.requirement, digest=digest)
        found = judge(replace(case, requirement=requirement, target=digest, evidence=store.collect(digest).objects))
        changed = [finding for finding in found.verdict.findings if finding.code.startswith("FILE_")]
        if not found.verdict.passed and changed:
            distance = len(changed)
            if best is None or distance < sum(f.code.startswith("FILE_") for f in best.verdict.findings):
                best = found
    return best


def _walk_back(check: Check, digest: Digest, requirement: Requirement) -> Sequence[Finding]:
    """Say what keeps signed provenance from leading back to where the rules want the artifact to come from."""
    from sealflow.actions.trace import walk_back

    return walk_back(
        digest,
        requirement,
        location=check.canonical,
        handed=check.handed,
        stores=[check.store.uri] if check.store is not None else [],
        identities=check.arguments.identities,
        policy=check.added,
        surroundings=check.surroundings,
        storages=check.storages,
    )


def _refused(check: Check, findings: Sequence[Finding]) -> Judgement:
    status, ordered = conclude(findings)
    verdict = Verdict(
        # Whatever was found: what comes here is not to be had.
        "failed" if status == "passed" else status,
        check.canonical,
        findings=ordered,
        checked_at=utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        policy=check.ruling.policy,
        rules=check.requirement.rules,
    )
    return Judgement(verdict, None, ())


def _unreadable(check: Check, error: SealflowError) -> Judgement:
    severity = "unverifiable" if isinstance(error, UnavailableError) else "refusal"
    code = (
        error.code
        if error.code in CODES
        else ("BACKEND_UNAVAILABLE" if severity == "unverifiable" else "ARTIFACT_REFUSED")
    )
    finding = Finding(code, severity, check.canonical, error.message, next_step=error.next_step)  # type: ignore[arg-type]
    return _refused(check, (finding,))


def _reference(check: Check, judgement: Judgement) -> ArtifactRef | None:
    verdict, location = judgement.verdict, judgement.location
    store = check.store.uri if check.store is not None else check.ref.evidence if check.ref is not None else None
    # A subset of a whole that was signed in shards has no digest of ours, so nothing can be pinned.
    if not verdict.passed or not verdict.digest or location is None or store is None:
        return None
    digest, encrypted = Digest.parse(verdict.digest), check.opened is not None
    return ArtifactRef(location.uri, digest, store, location.version_id, encrypted)


def remember(check: Check, judgement: Judgement) -> None:
    """Note an input that this run read whole and verified; what it signs later names it."""
    verdict = judgement.verdict
    # What this run signs later names inputs whose digests were made from bytes; a reused verdict is somebody's word.
    if verdict.passed and verdict.digest and not judgement.relaxed and not verdict.reused:
        context.remember_verified(
            check.surroundings.run,
            Dependency(check.canonical, Digest.parse(verdict.digest), verdict.name or verdict.artifact),
        )
