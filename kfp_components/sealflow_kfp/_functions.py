"""The source of the components: functions that hand their parameters to the installed package, and nothing else.

KFP copies their source into the compiled pipeline, so annotations here are not deferred, and the bodies import what
they use.
"""

from typing import NamedTuple, Optional

from kfp import dsl


def sign_artifact(
    artifact: dsl.Input[dsl.Artifact],
    evidence: dsl.Output[dsl.Artifact],
    signer: str = "",
    name: str = "",
    evidence_store: str = "",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("ref", str)]):
    """Signs an artifact: an OMS signature over its manifest and a SLSA provenance statement.

    Args:
        artifact: The artifact, a file or a folder.
        evidence: The evidence, a folder; its metadata holds the provenance, which verifies without the folder.
        signer: Signer URI such as file:/var/run/sealflow/signing.pem, by default the one that the admin's policy
            chooses, then the one of the mounted settings. A reference, never a key.
        name: Logical name, by default the last part of the artifact's location.
        evidence_store: A store that gets the evidence as well, by default the one of the mounted settings.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        ref: The ArtifactRef as JSON.
    """
    from sealflow_kfp import _bodies

    return (_bodies.sign(artifact, evidence, signer, name, evidence_store),)


def verify_artifact(
    verdict: dsl.OutputPath(str),
    artifact: Optional[dsl.Input[dsl.Artifact]] = None,
    evidence: Optional[dsl.Input[dsl.Artifact]] = None,
    identities: str = "",
    name: str = "",
    producer: str = "",
    evidence_store: str = "",
    files: Optional[list] = None,
    expected_ref: str = "",
    policy: str = "",
    recipients: str = "",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("ref", str)]):
    """Verifies an artifact, and fails when the verdict is not passed.

    A gate: bytes can change behind it. A task that must use the checked bytes opens them itself with
    sealflow_kfp.verified_input().

    Args:
        verdict: The verdict as JSON; also the last thing in the log when the task fails, since KFP drops the outputs
            of failed tasks.
        artifact: The artifact, a file or a folder; left open, what expected_ref names is checked where it lies.
        evidence: The output evidence of sign_artifact, where that made the evidence.
        identities: Who may sign, as JSON, by default what the admin's policy says, without one what the mounted
            settings say. Without any, nothing passes.
        name: Expected logical name.
        producer: Expected producer, a pattern such as kfp:train/*.
        evidence_store: The store that holds the evidence.
        files: Names of files inside the artifact; only these are checked.
        expected_ref: ArtifactRef as JSON from a trusted place; its digest is required.
        policy: One more policy, the path of a draft in the image or a mount. It can only tighten what the admin's
            policy says.
        recipients: URIs of the keys that open an encrypted artifact, one or a JSON list, by default those of the
            mounted settings. References such as aes:/var/run/sealflow/team.key, never keys.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        ref: The ArtifactRef of what was checked, as JSON.
    """
    from sealflow_kfp import _bodies

    return (
        _bodies.verify(
            artifact,
            evidence,
            verdict,
            identities=identities,
            name=name,
            producer=producer,
            evidence_store=evidence_store,
            files=files,
            expected_ref=expected_ref,
            policy=policy,
            recipients=recipients,
        ),
    )


def audit_access(
    verdict: dsl.OutputPath(str),
    report: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    audit_log: str = "",
    audit_log_key: str = "",
    since: str = "",
    until: str = "",
    artifacts: Optional[list] = None,
    principals: Optional[list] = None,
    datasets: Optional[list] = None,
    cloudtrail: str = "",
    roles: Optional[dict] = None,
    policy: str = "",
    identities: Optional[list] = None,
    checkpoints: Optional[list] = None,
    witnesses: Optional[list] = None,
    quorum: int = 0,
    fail_on: Optional[list] = None,
    grace: str = "1d",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("status", str)]):
    """Reviews who touched what, by the audit log; fails when the log does not verify.

    Args:
        verdict: The verdict as JSON; also the last thing in the log when the task fails, since KFP drops the outputs
            of failed tasks.
        report: The report as JSON.
        page: The report as one HTML page.
        audit_log: Location of the log, by default the one of the mounted settings.
        audit_log_key: The log's verifier key or the path of a file that holds it, by default the one of the mounted
            settings.
        since: Begin of the period: a date, an RFC 3339 time, or a duration before its end. By default 7d.
        until: End of the period, by default now.
        artifacts: Patterns over locations of artifacts; all by default.
        principals: Patterns over producers such as kfp:train/*; all by default.
        datasets: Locations each of which is one dataset with all below it; by default, each folder.
        cloudtrail: Folder or location in S3 of CloudTrail's log files, to be compared with.
        roles: Patterns over ARNs, and for each the patterns of the principals that act under it.
        policy: One more policy, the path of a draft in the image or a mount, that accesses are held against beside
            the admin's.
        identities: Who may vouch for writers of events, beside whom the policies name; without a policy, by default
            those of the mounted settings.
        checkpoints: Locations of checkpoints of the log that were kept elsewhere; it must have grown out of each.
        witnesses: Verifier keys of the log's witnesses, or paths.
        quorum: How many of them must have cosigned; 0: all.
        fail_on: Codes of findings that fail the task, or all; AUDIT_CLAIMED: events for whose writer nobody vouches.
        grace: How long an action or a run may last before its missing end is a finding.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        status: The verdict's status.
    """
    from sealflow_kfp import _bodies

    return (
        _bodies.audit_access(
            audit_log,
            verdict,
            report,
            page,
            key=audit_log_key,
            since=since,
            until=until,
            artifacts=artifacts,
            principals=principals,
            datasets=datasets,
            cloudtrail=cloudtrail,
            roles=roles,
            policy=policy,
            identities=identities,
            checkpoints=checkpoints,
            witnesses=witnesses,
            quorum=quorum,
            fail_on=fail_on,
            grace=grace,
        ),
    )


def check_dvc_lineage(
    verdict: dsl.OutputPath(str),
    repository: str = "",
    artifact: Optional[dsl.Input[dsl.Artifact]] = None,
    targets: Optional[list] = None,
    level: str = "L2",
    allowed_signers: str = "",
    branch: str = "",
    revision: str = "",
    remote: str = "",
    read_remote: bool = False,
    identities: str = "",
    evidence_store: str = "",
    roots: str = "",
    datasets: Optional[list] = None,
    policy: str = "",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("repository", str)]):
    """Checks the lineage of data that DVC tracks, and fails when the verdict is not passed.

    A gate: what lies in a repository can change behind it.

    Args:
        verdict: The verdict as JSON; also the last thing in the log when the task fails, since KFP drops the outputs
            of failed tasks.
        repository: The DVC repository: a Git URL, or a path that is mounted into the task. Either this or artifact.
        artifact: An artifact that is a DVC repository: the folder that holds .dvc. Either this or repository.
        targets: Stages, outputs, .dvc or dvc.yaml files, relative to the repository, with everything upstream of
            them; by default all.
        level: What is demanded, L1 to L6.
        allowed_signers: Path of an allowed-signers file of OpenSSH in the image or a mount: who may sign commits.
            From L3.
        branch: Full name of the branch that has to hold the commit, such as refs/remotes/origin/main. From L3.
        revision: The commit, by default HEAD: a full id, or the name of a branch or tag. From L3, and for Git URLs.
        remote: URL or name of the remote that has to hold the same objects, by default the repository's own. From L4.
        read_remote: Whether those objects of the remote are read whose bytes its own checksums do not prove. From L4.
        identities: Who may sign lineage statements and provenance, as JSON, by default what the admin's policy says,
            without one what the mounted settings say. From L5.
        evidence_store: The store that holds that evidence.
        roots: Identities of data owners, as JSON, with whose signed datasets the walk ends. From L6.
        datasets: Digests of artifacts that end the walk too. From L6.
        policy: One more policy, the path of a draft in the image or a mount. It can only tighten what the admin's
            policy says.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        repository: Where the checked repository lies: the parameter, or the artifact's URI.
    """
    from sealflow_kfp import _bodies

    return (
        _bodies.check_dvc_lineage(
            repository,
            artifact,
            verdict,
            targets=targets,
            level=level,
            allowed_signers=allowed_signers,
            branch=branch,
            revision=revision,
            remote=remote,
            read_remote=read_remote,
            identities=identities,
            evidence_store=evidence_store,
            roots=roots,
            datasets=datasets,
            policy=policy,
        ),
    )


def check_posture(
    verdict: dsl.OutputPath(str),
    location: str,
    kms_keys: Optional[list] = None,
    bucket_owner: str = "",
    allow_accounts: Optional[list] = None,
    skip: Optional[dict] = None,
    strict: bool = True,
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("location", str)]):
    """Checks how a bucket and its keys in AWS are set up, and fails when the verdict is not passed.

    A gate: who may change the bucket can do so behind it.

    Args:
        verdict: The verdict as JSON; also the last thing in the log when the task fails, since KFP drops the outputs
            of failed tasks.
        location: s3://bucket, or a place in it.
        kms_keys: More keys to look at, as awskms:<ARN>.
        bucket_owner: Number of the account that must own the bucket, by default the one in SEALFLOW_BUCKET_OWNERS,
            then that of the credentials.
        allow_accounts: Accounts and organizations (o-...) that policies may let in, beside the owner's account.
        skip: For each check that is left out, why.
        strict: Fail when the verdict is not passed. Otherwise it is only reported.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        location: The parameter, for the tasks behind the gate.
    """
    from sealflow_kfp import _bodies

    return (
        _bodies.check_posture(
            location,
            verdict,
            strict=strict,
            kms_keys=kms_keys,
            bucket_owner=bucket_owner,
            allow_accounts=allow_accounts,
            skip=skip,
        ),
    )


def encrypted_upload(
    artifact: dsl.Input[dsl.Artifact],
    destination: str,
    recipients: str = "",
    signer: str = "",
    name: str = "",
    evidence_store: str = "",
    overwrite: bool = False,
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("ref", str)]):
    """Encrypts, signs and stores an artifact as one object.

    Args:
        artifact: The artifact, a file or a folder.
        destination: Location of the encrypted object, such as s3://models/churn.enc.
        recipients: URIs of the keys that can open it, one or a JSON list, by default those of the mounted settings.
            What the admin's policy demands is added. References, never keys.
        signer: Signer URI such as file:/var/run/sealflow/signing.pem, by default the one that the admin's policy
            chooses, then the one of the mounted settings. A reference, never a key.
        name: Logical name, by default the last part of the destination. It stands in clear in the object.
        evidence_store: Where the evidence goes, by default the store of the mounted settings, then
            <destination>.evidence.
        overwrite: Replace what lies at the destination.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        ref: The ArtifactRef as JSON.
    """
    from sealflow_kfp import _bodies

    return (
        _bodies.encrypted_upload(
            artifact,
            destination,
            recipients=recipients,
            signer=signer,
            name=name,
            evidence_store=evidence_store,
            overwrite=overwrite,
        ),
    )


def encrypted_download(
    artifact: dsl.Output[dsl.Artifact],
    verdict: dsl.OutputPath(str),
    source: str,
    recipients: str = "",
    identities: str = "",
    name: str = "",
    producer: str = "",
    evidence_store: str = "",
    policy: str = "",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("ref", str)]):
    """Fetches an artifact, verified, and decrypted where it is encrypted; fails when the verdict is not passed.

    The output lies in the pipeline root in clear. A task that only needs the bytes opens the reference itself with
    sealflow.verified(), which leaves nothing behind.

    Args:
        artifact: The artifact, a file or a folder; its metadata holds the provenance, which verifies it.
        verdict: The verdict as JSON; also the last thing in the log when the task fails, since KFP drops the outputs
            of failed tasks.
        source: The ArtifactRef of the encrypted artifact as JSON, or its location.
        recipients: URIs of the keys that open it, one or a JSON list, by default those of the mounted settings.
            References, never keys.
        identities: Who may sign, as JSON, by default what the admin's policy says, without one what the mounted
            settings say. Without any, nothing passes.
        name: Expected logical name.
        producer: Expected producer, a pattern such as kfp:train/*.
        evidence_store: The store that holds the evidence, by default the one that the reference names.
        policy: One more policy, the path of a draft in the image or a mount. It can only tighten what the admin's
            policy says.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        ref: The ArtifactRef of the output, as JSON.
    """
    from sealflow_kfp import _bodies

    return (
        _bodies.encrypted_download(
            source,
            artifact,
            verdict,
            recipients=recipients,
            identities=identities,
            name=name,
            producer=producer,
            evidence_store=evidence_store,
            policy=policy,
        ),
    )


def integrate_audit_log(
    signer: str,
    origin: str,
    inbox: str = "",
    audit_log: str = "",
    witnesses: Optional[list] = None,
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("integration", dict)]):
    """Brings everything that waits in the audit inbox into the log, and signs a checkpoint.

    May be run as often as you like, by several at once, and be killed: what is half done the next run finishes.

    Args:
        signer: The log's Ed25519 key, as a URI such as file:/var/run/sealflow/log.pem. No task that writes audit events
            may be able to use it, so mount it from a secret of its own.
        origin: The log's name, such as example.com/audit.
        inbox: Location of the inbox, by default the one of the mounted settings.
        audit_log: Location of the log, by default the one of the mounted settings.
        witnesses: Who cosigns the checkpoint, as <url>=<verifier key>.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        integration: What was done: how many entries were added, size and root of the log, what was left out.
    """
    from sealflow_kfp import _bodies

    return (_bodies.integrate_audit_log(signer, origin, inbox=inbox, log=audit_log, witnesses=witnesses),)


def respond_to_refusal(
    status: dsl.PipelineTaskFinalStatus,
    recurring_run: str = "",
    host: str = "",
    ocsf: str = "",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("codes", list)]):
    """Responds to a run that was refused an artifact: disables its recurring run, tells a SIEM. For dsl.ExitHandler.

    Does nothing where the run succeeded, or failed of anything else.

    Args:
        status: How the run ended; KFP fills it in.
        recurring_run: Id of the recurring run that is disabled; empty: none.
        host: KFP's API, by default the one that the client finds in the cluster.
        ocsf: Folder or location that gets the OCSF finding; it is in the task's log at any rate.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        codes: Codes of the refusal; empty where there was none.
    """
    from sealflow_kfp import _bodies

    return (_bodies.respond_to_refusal(status, recurring_run, host, ocsf),)


def promote_artifact(
    verdict: dsl.OutputPath(str),
    source: str,
    destination: str,
    signer: str = "",
    recipients: str = "",
    identities: str = "",
    name: str = "",
    producer: str = "",
    evidence_store: str = "",
    destination_store: str = "",
    overwrite: bool = False,
    policy: str = "",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("ref", str)]):
    """Copies an artifact as it is, clear or encrypted, with all its evidence, and signs that this was done.

    Fails when the verdict is not passed; then nothing was copied.

    Args:
        verdict: The verdict as JSON; also the last thing in the log when the task fails, since KFP drops the outputs
            of failed tasks.
        source: The ArtifactRef as JSON, or a location.
        destination: Location of the copy.
        signer: Who signs the promotion, by default whom the admin's policy chooses, then the one of the mounted
            settings. A reference, never a key.
        recipients: URIs of the keys that open an encrypted artifact, one or a JSON list, by default those of the
            mounted settings. It is verified whole, and stays encrypted as it is.
        identities: Who may have signed the artifact, as JSON, by default what the admin's policy says, without one what
            the mounted settings say. Without any, nothing passes.
        name: Expected logical name.
        producer: Expected producer, a pattern such as kfp:train/*.
        evidence_store: The store that holds the artifact's evidence, by default the one that the reference names.
        destination_store: Where the copy's evidence goes, by default the store of the mounted settings, then
            <destination>.evidence.
        overwrite: Replace what lies at the destination.
        policy: One more policy, the path of a draft in the image or a mount. It can only tighten what the admin's
            policy says.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        ref: The ArtifactRef of the copy, as JSON.
    """
    from sealflow_kfp import _bodies

    return (
        _bodies.promote(
            source,
            destination,
            verdict,
            overwrite=overwrite,
            signer=signer,
            recipients=recipients,
            identities=identities,
            name=name,
            producer=producer,
            evidence_store=evidence_store,
            destination_store=destination_store,
            policy=policy,
        ),
    )


def verified_import(
    artifact: dsl.Output[dsl.Artifact],
    verdict: dsl.OutputPath(str),
    uri: str,
    digest: str = "",
    recipients: str = "",
    identities: str = "",
    name: str = "",
    producer: str = "",
    evidence_store: str = "",
    policy: str = "",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("ref", str)]):
    """Imports an artifact, verified; fails when the verdict is not passed. Stands where dsl.importer would.

    What it hands on is a copy whose bytes are the verified ones. Where a signer is set, it signs that copy, and its
    provenance names what was imported. An importer looks at nothing, and hands on a location whose bytes can change
    before they are read.

    Args:
        artifact: The artifact, a file or a folder; its metadata holds the provenance, which verifies it.
        verdict: The verdict as JSON; also the last thing in the log when the task fails, since KFP drops the outputs
            of failed tasks.
        uri: The location, such as s3://models/churn or minio://models/churn.
        digest: The digest that the artifact must have, such as sha256:… for a file and dirHash:… for a folder.
        recipients: URIs of the keys that open an encrypted artifact, one or a JSON list, by default those of the
            mounted settings. References, never keys.
        identities: Who may sign, as JSON, by default what the admin's policy says, without one what the mounted
            settings say. Without any, nothing passes.
        name: Expected logical name.
        producer: Expected producer, a pattern such as airflow:train/*.
        evidence_store: The store that holds the evidence, by default the one of the mounted settings, then the one
            beside the artifact.
        policy: One more policy, the path of a draft in the image or a mount. It can only tighten what the admin's
            policy says.
        sealflow_run_id: The run; filled in by itself.

    Returns:
        ref: The ArtifactRef of the output, as JSON.
    """
    from sealflow_kfp import _bodies

    return (
        _bodies.verified_import(
            uri,
            artifact,
            verdict,
            digest=digest,
            recipients=recipients,
            identities=identities,
            name=name,
            producer=producer,
            evidence_store=evidence_store,
            policy=policy,
        ),
    )
