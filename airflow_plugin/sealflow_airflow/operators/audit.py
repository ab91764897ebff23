"""Integrate the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID
from sealflow_airflow.outcome import airflow_errors
from sealflow_airflow.running import Running

if TYPE_CHECKING:
    from airflow.sdk import Context


class IntegrateAuditLogOperator(Running, BaseOperator):
    """Bring everything that waits in the audit inbox into the log, and sign a checkpoint.

    May be run as often as you like, by several at once, and be killed: what is half done the next run finishes. What
    is no entry, or not signed by its writer, is left out and named in the task's log and in the return value.

    Args:
        signer: The log's Ed25519 key, as a URI. No task that writes audit events may be able to use it, so let this
            one run in a queue of its own.
        origin: The log's name, such as ``example.com/audit``.
        inbox: Location of the inbox, by default the one of ``[sealflow]``.
        audit_log: Location of the log, a folder or in S3, by default the one of ``[sealflow]``.
        witnesses: Who cosigns the checkpoint, as ``<url>=<verifier key>``. Not a template.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = ("signer", "origin", "inbox", "audit_log", "sealflow_conn_id", "aws_conn_id")
    ui_color = "#e3e3ee"

    def __init__(
        self,
        *,
        signer: str,
        origin: str,
        inbox: str | None = None,
        audit_log: str | None = None,
        witnesses: Sequence[str] = (),
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.signer = signer
        self.origin = origin
        self.inbox = inbox
        self.audit_log = audit_log
        self.witnesses = witnesses
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Integrate, and return what was done in its JSON form.

        Raises:
            AirflowFailException: The log is not as it was left, a witness knows another history, or a parameter cannot
                work. Nothing was signed over it.
            AirflowException: Inbox, log or key are out of reach.
        """
        import sealflow
        from sealflow.actions.audit_integrate import integrate_audit_log
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        with airflow_errors(), self._stoppable(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            done = integrate_audit_log(
                self.inbox,
                self.audit_log,
                signer=self.signer,
                origin=self.origin,
                witnesses=self.witnesses,
                storages=storages(self.aws_conn_id),
                progress=lambda size: self.log.info("%d entries are in the log.", size),
            )
            for finding in done.findings:
                self.log.warning("%s %s: %s", finding.code, finding.subject, finding.message)
            self.log.info("%d entries added to %s, which has %d now.", done.added, done.log, done.size)
            return done.as_dict()
