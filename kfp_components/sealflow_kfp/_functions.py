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
    artifact: dsl.Input[dsl.Artifact],
    verdict: dsl.OutputPath(str),
    evidence: Optional[dsl.Input[dsl.Artifact]] = None,
    identities: str = "",
    name: str = "",
    producer: str = "",
    evidence_store: str = "",
    files: Optional[list] = None,
    expected_ref: str = "",
    policy: str = "",
    sealflow_run_id: str = "",
) -> NamedTuple("Outputs", [("ref", str)]):
    """Verifies an artifact, and fails when the verdict is not passed.

    A gate: bytes can change behind it. A task that must use the checked bytes opens them itself with
    sealflow_kfp.verified_input().

    Args:
        artifact: The artifact, a file or a folder.
        verdict: The verdict as JSON; also the last thing in the log when the task fails, since KFP drops the outputs
            of failed tasks.
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
        ),
    )
