"""Verify an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID
from sealflow_airflow.observed import Observed, of_verdict
from sealflow_airflow.outcome import airflow_errors
from sealflow_airflow.reference import reference
from sealflow_airflow.running import Running

if TYPE_CHECKING:
    from airflow.sdk import Context


class VerifyArtifactOperator(Observed, Running, BaseOperator):
    """Let the DAG go on only with an artifact whose bytes, name and signer are the expected ones.

    A gate: what lies at the location can change behind it, so the task that uses the artifact opens the returned
    reference with ``sealflow.verified``. The verdict is pushed as XCom ``verdict``, also when it is a refusal.

    Args:
        artifact: Path, location, or the reference that signing returned (a mapping, or its JSON text).
        identities: Who may sign, by default what the admin's policy says, without one the connection's. Without any,
            nothing passes. Not a template: what decides whom to trust must not come from another task.
        name: Expected logical name.
        producer: Expected producer, a pattern such as ``airflow:train/*``.
        files: Names of files inside a folder; only these are checked, against the signed manifest.
        evidence_store: Where the evidence lies, by default the reference's, then the connection's, then
            ``[sealflow] evidence_store``, then ``<artifact>.evidence``.
        policy: One more policy, the path of a draft. It can only tighten what the admin's policy says. Not a template.
        recipients: URIs of the keys that open an encrypted artifact, by default the connection's. Not a template.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = (
        "artifact",
        "name",
        "producer",
        "files",
        "evidence_store",
        "sealflow_conn_id",
        "aws_conn_id",
    )
    ui_color = "#dff0dd"

    def __init__(
        self,
        *,
        artifact: Any,
        identities: Any = None,
        name: str | None = None,
        producer: str | None = None,
        files: Sequence[str] | str | None = None,
        evidence_store: str | None = None,
        policy: str | None = None,
        recipients: Any = None,
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.artifact = artifact
        self.identities = identities
        self.name = name
        self.producer = producer
        self.files = files
        self.evidence_store = evidence_store
        self.policy = policy
        self.recipients = recipients
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Verify, and return the checked reference in its JSON form.

        Raises:
            AirflowFailException: Refused, or a parameter cannot work.
            AirflowException: Nobody can say: the artifact, its evidence, the admin's policy or the audit log is out of
                reach.
        """
        import sealflow
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        with airflow_errors(), self._stoppable(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            checked = sealflow.verify_artifact(
                reference(self.artifact, "artifact"),
                identities=self.identities,
                name=self.name,
                producer=self.producer,
                files=self.files,
                evidence_store=self.evidence_store,
                policy=self.policy,
                recipients=self.recipients,
                storages=storages(self.aws_conn_id),
                progress=self._progress("Checking"),
            )
            seen = of_verdict(checked.verdict, evidence=checked.ref.evidence if checked.ref else "")
            self._judged(context, checked.verdict, seen)
            if checked.ref is None:
                raise sealflow.VerificationError(checked.verdict)
            self.log.info("%s Digest %s.", checked.verdict.summary(), checked.ref.digest)
            return checked.ref.as_dict()
