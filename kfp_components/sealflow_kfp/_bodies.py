"""What the components do once their task runs; the components themselves only hand over their parameters."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.sign import chosen_signer, sign_artifact
from sealflow.actions.verify import verify_artifact
from sealflow.errors import EvidenceError, UsageError, VerificationError
from sealflow.evidence import ArtifactRef, EvidenceStore, parse_bundle, parse_provenance
from sealflow.evidence.provenance import MAX_PROVENANCE_BUNDLE
from sealflow.evidence.statement import parse_statement
from sealflow.findings import Verdict
from sealflow.hashing import Digest
from sealflow.storage import Storages
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from sealflow_kfp.task_body import case_of, is_remote, note, reference, sign_output
from sealflow_kfp.telling import readable

if TYPE_CHECKING:
    from kfp.dsl import Artifact

    from sealflow.manifest.build import Progress

_MINIO: Final = "minio://"


class RefusedError(VerificationError):
    """A refusal whose text, the last thing in the task's log, is the whole verdict.

    KFP drops the outputs of a failed task, the verdict among them.
    """

    def __str__(self) -> str:
        return readable(self.verdict)


def sign(artifact: Artifact, evidence: Artifact, signer: str, name: str, evidence_store: str) -> str:
    """Sign, leave the evidence in the ``evidence`` output and its metadata, and return the reference as JSON."""
    os.makedirs(evidence.path, exist_ok=True)
    kept = evidence_store or context.current().settings.evidence_store
    store = kept or evidence.path
    signed = sign_artifact(
        artifact.path,
        signer=signer or None,
        name=name or None,
        evidence_store=store,
        progress=_progress("Signing"),
    )
    if kept:
        _copy(kept, evidence.path, signed.ref.digest, signed.evidence)
    note(evidence, signed)
    lies = signed.ref.evidence if kept or not is_remote(evidence) else evidence.uri
    return reference(artifact, signed.ref, lies).to_json()


def _copy(store: str, folder: str, digest: Digest, names: tuple[str, ...]) -> None:
    storages = Storages()
    copy = EvidenceStore(folder, storages)
    for item in EvidenceStore(store, storages).collect(digest).objects:
        if item.name in names and item.kind is not None:
            copy.put(digest, item.kind, item.data)


def verify(
    artifact: Artifact | None,
    evidence: Artifact | None,
    verdict_path: str,
    *,
    evidence_store: str,
    files: list[str] | None,
    expected_ref: str,
    **more: Any,
) -> str:
    """Verify, write the verdict, and return the checked artifact's reference as JSON.

    Args:
        artifact: The artifact; ``None``: what ``expected_ref`` names.
        evidence: What the sign component made.
        verdict_path: Where the verdict goes.
        evidence_store: Where the evidence lies.
        files: Names of files inside a folder.
        expected_ref: The expected reference.
        more: What else the action takes; empty ones count as not given.

    Raises:
        UsageError: Neither ``artifact`` nor ``expected_ref``, or a parameter cannot work.
        RefusedError: The verdict is not ``passed``.
    """
    if artifact is None and (not expected_ref or evidence is not None):
        raise UsageError(
            "Give `artifact`, or `expected_ref` alone, which says where the artifact and its evidence lie."
        )
    if artifact is None:
        subject: str | ArtifactRef = ArtifactRef.parse(expected_ref)
        options: dict[str, Any] = {"evidence_store": evidence_store} if evidence_store else {}
    else:
        subject, options = case_of(artifact, evidence, expected_ref or None, evidence_store or None)
    checked = verify_artifact(subject, files=files or None, progress=_progress("Checking"), **_given(more), **options)
    verdict = checked.verdict
    _tell(verdict, verdict_path)
    if artifact is None:
        return (checked.ref or ArtifactRef.parse(expected_ref)).to_json()
    lies = options.get("evidence_store") or ""
    if isinstance(subject, ArtifactRef) and not options:
        # The evidence was found where the reference said.
        lies = subject.evidence
    if evidence is not None and lies == evidence.path and is_remote(evidence):
        lies = evidence.uri
    ref = ArtifactRef(
        verdict.artifact,
        Digest.parse(verdict.digest),
        Storages().for_uri(lies).canonical(lies) if lies else "",
        encrypted=checked.ref is not None and checked.ref.encrypted,
    )
    return reference(artifact, ref, ref.evidence).to_json()


def encrypted_upload(artifact: Artifact, destination: str, *, overwrite: bool, **more: Any) -> str:
    """Upload, and return the reference as JSON.

    Args:
        artifact: The artifact.
        destination: Location of the encrypted object.
        overwrite: Replace what lies there.
        more: What else the action takes; empty ones count as not given.
    """
    from sealflow.actions.upload import upload_artifact

    uploaded = upload_artifact(
        artifact.path, destination, overwrite=overwrite, progress=_progress("Sending"), **_given(more)
    )
    done = "Found" if uploaded.existed else "Sent"
    print(
        f"{done} {uploaded.ref.uri}: {uploaded.files} files, {uploaded.size} bytes, {uploaded.ref.digest}", flush=True
    )
    return uploaded.ref.to_json()


def verified_import(uri: str, artifact: Artifact, verdict_path: str, *, digest: str, **more: Any) -> str:
    """Import to the output ``artifact``, sign it, write the verdict, and return the output's reference as JSON.

    Args:
        uri: Location, as KFP's importer takes it.
        artifact: The output; its metadata gets the provenance, this task's where a signer is set.
        verdict_path: Where the verdict goes.
        digest: The digest that is required; empty for any that the evidence speaks for.
        more: What else the action takes; empty ones count as not given.

    Raises:
        UsageError: The location or the digest is none.
        RefusedError: The verdict is not ``passed``; the output was not made.
    """
    # KFP's name for a store that speaks S3.
    location = f"s3://{uri[len(_MINIO) :]}" if uri.startswith(_MINIO) else uri
    if not location:
        raise UsageError("`uri` is empty; say where the artifact lies.")
    source: str | ArtifactRef = location
    if digest:
        kept = more.get("evidence_store") or context.current().settings.evidence_store
        beside = Storages().for_uri(location).canonical(location).rstrip("/") + ".evidence"
        source = ArtifactRef(location, Digest.parse(digest), kept or beside)
    ref = encrypted_download(source, artifact, verdict_path, **more)
    # The copy has a name and a place that its producer did not sign. Where nobody signs for this task, that is left to
    # those who read it: the metadata holds the producer's own provenance.
    place = Storages().for_uri(artifact.path).canonical(artifact.path)
    return sign_output(artifact).to_json() if chosen_signer(place, context.current()) else ref


def encrypted_download(source: str | ArtifactRef, artifact: Artifact, verdict_path: str, **more: Any) -> str:
    """Download to the output ``artifact``, write the verdict, and return the output's reference as JSON.

    Args:
        source: Reference or location.
        artifact: The output; its metadata gets the provenance.
        verdict_path: Where the verdict goes.
        more: What else the action takes; empty ones count as not given.

    Raises:
        RefusedError: The verdict is not ``passed``; the output was not made.
    """
    from sealflow.actions.download import download_artifact

    # The output lies in the pipeline root in clear, so its signature tells nobody more; beside it nothing would stay.
    kept = context.current().settings.evidence_store
    try:
        downloaded = download_artifact(
            source, artifact.path, destination_store=kept, progress=_progress("Fetching"), **_given(more)
        )
    except VerificationError as error:
        _tell(error.verdict, verdict_path)
        raise
    _tell(downloaded.verdict, verdict_path)
    provenance = _provenance(downloaded.ref, downloaded.verdict)
    if provenance is not None:
        artifact.metadata[KEY] = EvidenceMetadata(downloaded.ref.digest, provenance).to_text()
    return reference(
        artifact, downloaded.ref, downloaded.ref.evidence if kept or not is_remote(artifact) else ""
    ).to_json()


def _provenance(ref: ArtifactRef, verdict: Verdict) -> bytes | None:
    """Return the provenance that a verdict speaks of, from the evidence that came along with a copy."""
    for item in EvidenceStore(ref.evidence, Storages()).collect(ref.digest, kinds={"provenance"}).objects:
        try:
            said = parse_provenance(parse_statement(parse_bundle(item.data).payload))
        except EvidenceError:
            continue
        claims = (said.digest, said.name, said.producer, said.invocation)
        if (
            claims == (ref.digest, verdict.name, verdict.producer, verdict.run)
            and len(item.data) <= MAX_PROVENANCE_BUNDLE
        ):
            return item.data
    return None


def promote(source: str, destination: str, verdict_path: str, *, overwrite: bool, **more: Any) -> str:
    """Promote, write the verdict, and return the copy's reference as JSON.

    Args:
        source: Reference or location.
        destination: Location of the copy.
        verdict_path: Where the verdict goes.
        overwrite: Replace what lies there.
        more: What else the action takes; empty ones count as not given.

    Raises:
        RefusedError: The verdict is not ``passed``; nothing was copied.
    """
    from sealflow.actions.copy import promote_artifact

    try:
        copied = promote_artifact(
            source, destination, overwrite=overwrite, progress=_progress("Promoting"), **_given(more)
        )
    except VerificationError as error:
        _tell(error.verdict, verdict_path)
        raise
    _tell(copied.verdict, verdict_path)
    return copied.ref.to_json()


def check_dvc_lineage(
    repository: str,
    artifact: Artifact | None,
    verdict_path: str,
    *,
    targets: list[str] | None,
    level: str,
    **more: Any,
) -> str:
    """Check a DVC repository, write the verdict, and return where the repository lies.

    Args:
        repository: A Git URL or a path; empty when ``artifact`` is given.
        artifact: A folder that is a repository.
        verdict_path: Where the verdict goes.
        targets: What of it is checked.
        level: What is demanded.
        more: What else the action takes; empty ones count as not given.

    Raises:
        UsageError: Neither or both of ``repository`` and ``artifact``, or a parameter cannot work.
        RefusedError: The verdict is not ``passed``.
    """
    from sealflow.actions.lineage import check_lineage

    if bool(repository) is (artifact is not None):
        raise UsageError("Give either `repository`, a Git URL or a mounted path, or `artifact`, and not both.")
    place, named = (artifact.path, artifact.uri) if artifact is not None else (repository, repository)
    verdict = check_lineage(
        place,
        targets or (),
        level=level,
        **_given(more),
    )
    _tell(verdict, verdict_path)
    return str(named)


def check_posture(location: str, verdict_path: str, *, strict: bool, **more: Any) -> str:
    """Check how a bucket is set up, write the verdict, and return the location.

    Args:
        location: The bucket, or a place in it.
        verdict_path: Where the verdict goes.
        strict: Raise unless the verdict is ``passed``.
        more: What else the action takes; empty ones count as not given.

    Raises:
        RefusedError: ``strict``, and the verdict is not ``passed``.
    """
    from sealflow.actions.audit_posture import check_posture

    found = check_posture(location, strict=False, **_given(more))
    for item in found.results:
        print(f"{item.outcome:<7} {item.check} {item.resource}: {item.found}", flush=True)
    _tell(found.verdict, verdict_path, strict=strict)
    return location


def integrate_audit_log(signer: str, origin: str, **more: Any) -> dict[str, Any]:
    """Integrate what waits in the audit inbox, and return what was done in its JSON form.

    Args:
        signer: The log's key, as a URI.
        origin: The log's name.
        more: What else the action takes; empty ones count as not given.
    """
    from sealflow.actions.audit_integrate import integrate_audit_log

    done = integrate_audit_log(
        signer=signer,
        origin=origin,
        progress=lambda size: print(f"{size} entries are in the log.", flush=True),
        **_given(more),
    )
    for finding in done.findings:
        print(f"{finding.code} {finding.subject}: {finding.message}", flush=True)
    print(f"{done.added} entries added to {done.log}, which has {done.size} now.", flush=True)
    return done.as_dict()


def respond_to_refusal(status: Any, recurring_run: str, host: str, ocsf: str) -> list[str]:
    """Respond to a run that was refused an artifact, and return the codes of the refusal.

    KFP tells an exit task no more than the message of what failed: the codes in it, or the exit status with which the
    task wrapper and the command line refuse.

    Args:
        status: ``PipelineTaskFinalStatus``.
        recurring_run: Id of the recurring run that is disabled; empty: none.
        host: KFP's API; empty: as the client finds it.
        ocsf: Place that gets the finding; empty: none.

    Raises:
        SealflowError: Something could not be done; what could be, was.
    """
    from sealflow.actions import context
    from sealflow.actions.recording import Recording
    from sealflow.actions.respond_refusal import Refusal, codes_in, refused_status, report_refusal
    from sealflow.errors import SealflowError, UnavailableError

    message = str(getattr(status, "error_message", "") or "")
    codes = list(codes_in(message))
    if status.state != "FAILED" or not (codes or refused_status(message)):
        print("The run was refused nothing.", flush=True)
        return []
    run = str(getattr(status, "pipeline_job_resource_name", "") or "")
    problem: SealflowError | None = None
    if recurring_run:
        try:
            with Recording("pause", f"kfp:{recurring_run}", context.current(), ruled=False) as recording:
                try:
                    from kfp import Client

                    Client(host=host or None).disable_recurring_run(recurring_run)
                except Exception as error:
                    # Not its text: a client's errors repeat headers.
                    raise UnavailableError(f"The recurring run was not disabled ({type(error).__name__}).") from None
                recording.done("")
        except SealflowError as error:
            problem = error
    report_refusal(Refusal(tuple(codes) or ("REFUSED",), message[:2000], run), ocsf or None)
    print(f"The run {run} was refused: {', '.join(codes) or 'by its exit status'}.", flush=True)
    if problem is not None:
        raise problem
    return codes


def audit_access(log: str, verdict_path: str, report: Artifact, page: Artifact, **more: Any) -> str:
    """Review accesses, write the verdict and the report in both forms, and return the verdict's status.

    Args:
        log: Location of the log; empty: the settings'.
        verdict_path: Where the verdict goes.
        report: Gets the report as JSON.
        page: Gets the report as an HTML page.
        more: What else the action takes; empty ones count as not given.

    Raises:
        RefusedError: The verdict is not ``passed``.
    """
    from sealflow.actions.audit_report import write_report
    from sealflow.actions.audit_review import review_accesses

    reviewed = review_accesses(log or None, **_given(more))
    for output in (report, page):
        os.makedirs(os.path.dirname(output.path), exist_ok=True)
    write_report(reviewed.report, page=page.path, report_at=report.path)
    _tell(reviewed.verdict, verdict_path)
    return reviewed.verdict.status


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    # KFP knows no parameter that is not there, only empty ones.
    return {name: value for name, value in parameters.items() if value}


def _progress(what: str) -> Progress:
    from sealflow.actions.progress import ProgressLines

    return ProgressLines(partial(print, flush=True), what)


def _tell(verdict: Verdict, path: str, *, strict: bool = True) -> None:
    # First of all: a refusal below must not be able to lose it.
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(strictjson.dumps(verdict.as_dict()))
    if strict and not verdict.passed:
        raise RefusedError(verdict)
    print(readable(verdict), flush=True)
