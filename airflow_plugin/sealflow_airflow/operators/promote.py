"""Promote an artifact from one place to the next."""

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


class PromoteArtifactOperator(Observed, Running, BaseOperator):
    """Copy an artifact as it is, clear or encrypted, with all its evidence, and sign that this was done.

    The copied bytes are the verified ones. The verdict is pushed as XCom ``verdict``, also when it is a refusal; the
    return value is the reference to the copy. The same artifact at the destination is a success.

    Args:
        source: Location, or the reference that signing returned (a mapping, or its JSON text).
        destination: Location of the copy.
        signer: Who signs the promotion, by default whom the admin's policy chooses, then the connection's.
        recipients: URIs of the keys that open an encrypted artifact, by default the connection's: it is verified whole,
            and stays encrypted as it is. Not a template.
        identities: Who may have signed the artifact, by default what the admin's policy says, without one the
            connection's. Without any, nothing passes. Not a template.
        name: Expected logical name.
        producer: Expected producer, a pattern such as ``airflow:train/*``.
        evidence_store: Where the artifact's evidence lies, by default the reference's, then the connection's, then
            ``<source>.evidence``.
        destination_store: Where the copy's evidence goes, by default the connection's, then
            ``<destination>.evidence``.
        overwrite: Replace what lies at the destination.
        policy: One more policy, the path of a draft. It can only tighten what the admin's policy says. Not a template.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = (
        "source",
        "destination",
        "signer",
        "name",
        "producer",
        "evidence_store",
        "destination_store",
        "sealflow_conn_id",
        "aws_conn_id",
    )
    ui_color = "#dcefe9"

    def __init__(
        self,
        *,
        source: Any,
        destination: str,
        signer: str | None = None,
        recipients: Any = None,
        identities: Any = None,
        name: str | None = None,
        producer: str | None = None,
        evidence_store: str | None = None,
        destination_store: str | None = None,
        overwrite: bool = False,
        policy: str | None = None,
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.destination = destination
        self.signer = signer
        self.recipients = recipients
        self.identities = identities
        self.name = name
        self.producer = producer
        self.evidence_store = evidence_store
        self.destination_store = destination_store
        self.overwrite = overwrite
        self.policy = policy
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Promote, and return the reference to the copy in its JSON form.

        Raises:
            AirflowFailException: Refused, or a key, a parameter or what lies at the destination cannot work.
            AirflowException: Nobody can say: the artifact, its evidence, a store, a key service, the admin's policy or
                the audit log is out of reach.
        """
        import sealflow
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        with airflow_errors(), self._stoppable(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            try:
                copied = sealflow.promote_artifact(
                    reference(self.source, "source"),
                    self.destination,
                    signer=self.signer,
                    recipients=self.recipients,
                    identities=self.identities,
                    name=self.name,
                    producer=self.producer,
                    evidence_store=self.evidence_store,
                    destination_store=self.destination_store,
                    overwrite=self.overwrite,
                    policy=self.policy,
                    storages=storages(self.aws_conn_id),
                    progress=self._progress("Promoting"),
                )
            except sealflow.VerificationError as error:
                self._judged(context, error.verdict, of_verdict(error.verdict))
                raise sealflow.VerificationError(error.verdict) from None
            verdict, ref = copied.verdict, copied.ref
            self._judged(context, verdict, of_verdict(verdict))
            self.log.info("%s Digest %s, now at %s.", verdict.summary(), ref.digest, ref.uri)
            return ref.as_dict()
