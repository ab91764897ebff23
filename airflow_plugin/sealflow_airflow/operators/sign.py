"""Sign an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID
from sealflow_airflow.observed import Observed, of_signed
from sealflow_airflow.outcome import airflow_errors
from sealflow_airflow.running import Running

if TYPE_CHECKING:
    from airflow.sdk import Context


class SignArtifactOperator(Observed, Running, BaseOperator):
    """Sign a file or a folder and return its reference.

    Args:
        artifact: Path or location.
        signer: Signer URI, by default the one that the admin's policy chooses, then the connection's.
        name: Logical name, by default the last part of the location.
        evidence_store: Where the evidence goes, by default the connection's, then ``[sealflow] evidence_store``, then
            ``<artifact>.evidence``.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = (
        "artifact",
        "signer",
        "name",
        "evidence_store",
        "sealflow_conn_id",
        "aws_conn_id",
    )
    ui_color = "#dbe7f5"

    def __init__(
        self,
        *,
        artifact: str,
        signer: str | None = None,
        name: str | None = None,
        evidence_store: str | None = None,
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.artifact = artifact
        self.signer = signer
        self.name = name
        self.evidence_store = evidence_store
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Sign, and return the reference in its JSON form.

        Raises:
            AirflowFailException: The artifact, the key or a parameter cannot work.
            AirflowException: A store, the key service, the admin's policy or the audit log is out of reach.
        """
        import sealflow
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        with airflow_errors(), self._stoppable(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            signed = sealflow.sign_artifact(
                self.artifact,
                signer=self.signer,
                name=self.name,
                evidence_store=self.evidence_store,
                storages=storages(self.aws_conn_id),
                progress=self._progress("Signing"),
            )
            self._observed = of_signed(signed)
            self.log.info(
                "Signed %s as %r: %d files, %d bytes, %s, key %s",
                signed.ref.uri,
                signed.name,
                signed.files,
                signed.size,
                signed.ref.digest,
                signed.key,
            )
            return signed.ref.as_dict()
