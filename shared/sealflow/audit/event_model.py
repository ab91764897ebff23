"""The wire form of an audit event as a strict model; needed only by those who read events, for it loads pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sealflow.audit.event import FORMS, MAX_LISTED, MAX_SHORT, MAX_TEXT
from sealflow.run_identity import Orchestrator

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
_Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
_Short = Annotated[str, Field(min_length=1, max_length=MAX_SHORT)]
_Listed = Annotated[list[_Short], Field(min_length=1, max_length=MAX_LISTED)]
_Name = Annotated[str, Field(min_length=1)]
# Left out of the text: no other value says so, not even null. A list here would be copied for every event that is read.
_ABSENT: Any = None


def _form(name: str) -> str:
    return f"^{FORMS[name].removesuffix('?')}$"


class RunModel(BaseModel):
    """Who acts, as the task process knows it of itself."""

    model_config = _STRICT

    orchestrator: Orchestrator
    producer: _Name = Field(description="airflow:<dag>/<task>, kfp:<pipeline>/<task>, python or cli.")
    invocation: _Name = Field(description="One attempt: producer, run, map index and number of the try.")
    workflow: _Name = Field("", description="DAG id or pipeline name.")
    task: _Name = Field("", description="Task id or task name.")
    run: _Name = Field("", description="Run id.")
    map_index: int = Field(_ABSENT, description="Index of a mapped task.")
    attempt: int = Field(_ABSENT, description="Number of the try, from 1.")
    instance: _Name = Field("", description="The orchestrator's id of this attempt: task instance UUID, pod name.")
    team: _Name = Field("", description="Airflow team or DAG bundle, KFP namespace.")


class ClaimsModel(BaseModel):
    """What somebody says and nobody proves."""

    model_config = _STRICT

    triggered_by: _Text = Field(description="The user who is said to have started the run.")


class VouchModel(BaseModel):
    """The deployment's word for the chain's writer."""

    model_config = _STRICT

    key: _Short = Field(description="Fingerprint of the deployment's audit_signer.")
    signature: _Text = Field(
        description="Base64; over 'sealflow-audit-writer/v1 <writer> <run.invocation>' in UTF-8.",
    )


class EventModel(BaseModel):
    """One event of the audit log. Empty members are left out."""

    model_config = _STRICT

    sealflow_audit: Literal[1]
    id: str = Field(pattern=_form("id"), description="Unique.")
    time: str = Field(pattern=_form("time"), description="By the clock of the task's machine.")
    action: str = Field(pattern=_form("action"), description="The verb; end at the end of a chain.")
    phase: Literal["intent", "outcome", "end"] = Field(
        description="intent before a key or an artifact is used, outcome after, end for the last entry of a chain."
    )
    run: RunModel
    correlation: str = Field(pattern=_form("correlation"), description="Joins an outcome to its intent.")
    artifact: _Text = Field("", description="Location without credentials.")
    digest: _Short = Field("", description="Artifact digest.")
    version: _Text = Field("", description="Version of the object, where the store keeps versions.")
    key: _Text = Field("", description="Fingerprint of the key that is used, or URI of a key without one.")
    recipient: _Text = Field(
        "", description="Key that unwrapped an encrypted artifact's data key, as its header calls it: provider:name."
    )
    outcome: Literal["done", "passed", "failed", "unverifiable", "error"] = Field(
        "done", description="Only with the phase outcome."
    )
    codes: _Listed = Field(_ABSENT, description="Finding or error codes; MORE at the end: there were more.")
    policy: _Short = Field("", description="Digest of the policy that decided.")
    rule: _Text = Field("", description="Names of its rules that applied.")
    signers: _Listed = Field(_ABSENT, description="Fingerprints of the keys whose evidence was accepted.")
    evidence: _Listed = Field(
        _ABSENT,
        description="sha256: digests of the bundles that were made, each a signature with all that it is over; MORE at "
        "the end: there were more.",
    )
    producer: _Text = Field("", description="Producer that accepted provenance names.")
    host: _Short = Field("", description="Name of the machine or pod.")
    claims: ClaimsModel = _ABSENT
    details: str = Field(
        "", pattern=_form("details"), description="Salted digest of a payload that lies elsewhere and may be deleted."
    )
    count: int = Field(_ABSENT, ge=1, description="Entries of the chain, with the phase end.")
    after: str = Field("", pattern=_form("after"), description="Writer whose squatted chain this one goes on for.")
    vouch: VouchModel = _ABSENT
