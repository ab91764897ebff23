"""Send artifacts as encrypted objects, and fetch them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID
from sealflow_airflow.observed import Observed, of_signed, of_verdict
from sealflow_airflow.outcome import airflow_errors
from sealflow_airflow.reference import location, reference
from sealflow_airflow.running import Running

if TYPE_CHECKING:
    from airflow.sdk import Context


class EncryptedUploadOperator(Observed, Running, BaseOperator):
    """Encrypt, sign and store a file or a folder as one object, and return its reference.

    The source is read once, in constant memory. Nothing is visible at the destination before all of it is there, its
    evidence included. A try that was interrupted is gone on with by the next one on the same worker; the same artifact
    at the destination, its stored bytes checked again, is a success.

    Args:
        source: Path or location of the file or folder.
        destination: Location of the encrypted object.
        recipients: URIs of the keys that can open it, by default the connection's. What the admin's policy demands is
            added. Not a template: who can read must not come from another task.
        signer: Signer URI, by default the one that the admin's policy chooses, then the connection's.
        name: Logical name, by default the last part of the destination. It stands in clear in the object.
        evidence_store: Where the evidence goes, by default the connection's, then ``[sealflow] evidence_store``, then
            ``<destination>.evidence``.
        overwrite: Replace what lies at the destination.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = (
        "source",
        "destination",
        "signer",
        "name",
        "evidence_store",
        "sealflow_conn_id",
        "aws_conn_id",
    )
    ui_color = "#f5e6cf"

    def __init__(
        self,
        *,
        source: str,
        destination: str,
        recipients: Any = None,
        signer: str | None = None,
        name: str | None = None,
        evidence_store: str | None = None,
        overwrite: bool = False,
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.destination = destination
        self.recipients = recipients
        self.signer = signer
        self.name = name
        self.evidence_store = evidence_store
        self.overwrite = overwrite
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Upload, and return the reference in its JSON form.

        Raises:
            AirflowFailException: The artifact, a key, a parameter or what lies at the destination cannot work.
            AirflowException: A store, a key service, the admin's policy or the audit log is out of reach.
        """
        import sealflow
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        with airflow_errors(), self._stoppable(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            uploaded = sealflow.upload_artifact(
                location(self.source, "source"),
                self.destination,
                recipients=self.recipients,
                signer=self.signer,
                name=self.name,
                evidence_store=self.evidence_store,
                overwrite=self.overwrite,
                storages=storages(self.aws_conn_id),
                progress=self._progress("Sending"),
            )
            self._observed = of_signed(uploaded)
            self.log.info(
                "%s %s as %r: %d files, %d bytes in %d stored ones, %s, key %s",
                "Found" if uploaded.existed else "Sent",
                uploaded.ref.uri,
                uploaded.name,
                uploaded.files,
                uploaded.size,
                uploaded.stored,
                uploaded.ref.digest,
                uploaded.key,
            )
            return uploaded.ref.as_dict()


class EncryptedDownloadOperator(Observed, Running, BaseOperator):
    """Copy an artifact to a path of the worker, verified, and decrypted where it is encrypted.

    Nothing is at the destination before the verdict is ``passed``, and then everything at once. A try that was
    interrupted is gone on with by the next one on the same worker, after what is there was checked. The verdict is
    pushed as XCom ``verdict``, also when it is a refusal; the return value is the reference to the copy.

    Airflow may run the next task on another worker: give a destination that both see, or open the encrypted reference
    there with ``sealflow.verified``, which leaves nothing behind in clear.

    Args:
        artifact: Location, or the reference that the upload returned (a mapping, or its JSON text).
        destination: Path of the file or folder to make.
        recipients: URIs of the keys that open it, by default the connection's. Not a template.
        identities: Who may sign, by default what the admin's policy says, without one the connection's. Without any,
            nothing passes. Not a template.
        name: Expected logical name.
        producer: Expected producer, a pattern such as ``airflow:train/*``.
        evidence_store: Where the evidence lies, by default the reference's, then the connection's, then
            ``<artifact>.evidence``.
        destination_store: Where the copy's evidence goes, by default the connection's, then
            ``<destination>.evidence``.
        overwrite: Replace what lies at the destination.
        policy: One more policy, the path of a draft. It can only tighten what the admin's policy says. Not a template.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = (
        "artifact",
        "destination",
        "name",
        "producer",
        "evidence_store",
        "destination_store",
        "sealflow_conn_id",
        "aws_conn_id",
    )
    ui_color = "#f5e6cf"

    def __init__(
        self,
        *,
        artifact: Any,
        destination: str,
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
        self.artifact = artifact
        self.destination = destination
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
        """Download, and return the reference to the copy in its JSON form.

        Raises:
            AirflowFailException: Refused, or a parameter or what lies at the destination cannot work.
            AirflowException: Nobody can say: the artifact, its evidence, a key service, the admin's policy or the audit
                log is out of reach; or there is no room for the copy.
        """
        import sealflow
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        with airflow_errors(), self._stoppable(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            try:
                downloaded = sealflow.download_artifact(
                    reference(self.artifact, "artifact"),
                    self.destination,
                    recipients=self.recipients,
                    identities=self.identities,
                    name=self.name,
                    producer=self.producer,
                    evidence_store=self.evidence_store,
                    destination_store=self.destination_store,
                    overwrite=self.overwrite,
                    policy=self.policy,
                    storages=storages(self.aws_conn_id),
                    progress=self._progress("Fetching"),
                )
            except sealflow.VerificationError as error:
                self._judged(context, error.verdict, of_verdict(error.verdict))
                raise sealflow.VerificationError(error.verdict) from None
            verdict, ref = downloaded.verdict, downloaded.ref
            self._judged(context, verdict, of_verdict(verdict))
            self.log.info("%s Digest %s, now at %s.", verdict.summary(), ref.digest, ref.uri)
            return ref.as_dict()
