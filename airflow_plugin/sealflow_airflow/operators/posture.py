"""Check how a bucket is set up before something is read from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID
from sealflow_airflow.observed import Observed, of_verdict
from sealflow_airflow.outcome import airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context


class CheckPostureOperator(Observed, BaseOperator):
    """Let the DAG go on only with a bucket that is set up as it should be, and whose keys are.

    A gate: who may change the bucket can do so behind it. Only settings are read, and nothing is changed. The verdict
    is pushed as XCom ``verdict``, also when it is a refusal, and what came of each check stands in the log; the return
    value is ``location`` as it was given, so that the tasks behind the gate can take it from there.

    What decides is no template, since a template may hold what another task or whoever starts the DAG says:
    ``kms_keys``, ``bucket_owner``, ``allow_accounts``, ``skip`` and ``strict``.

    Args:
        location: ``s3://bucket``, or a place in it.
        kms_keys: More keys to look at: ``awskms:<ARN>``.
        bucket_owner: Number of the account that must own the bucket, by default the one in
            ``SEALFLOW_BUCKET_OWNERS``, then that of the credentials.
        allow_accounts: Accounts and organizations (``o-…``) that policies may let in, beside the owner's account.
        skip: For each check that is left out, why; see docs/reference/posture.md.
        strict: Fail when the verdict is not ``passed``. Otherwise it is only reported.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for AWS, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = ("location", "sealflow_conn_id", "aws_conn_id")
    ui_color = "#e3eede"

    def __init__(
        self,
        *,
        location: str,
        kms_keys: Sequence[str] = (),
        bucket_owner: str | None = None,
        allow_accounts: Sequence[str] = (),
        skip: Mapping[str, str] | None = None,
        strict: bool = True,
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.location = location
        self.kms_keys = kms_keys
        # Not `owner`: so every operator calls who answers for it.
        self.bucket_owner = bucket_owner
        self.allow_accounts = allow_accounts
        self.skip = skip
        self.strict = strict
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> str:
        """Check, and return ``location``.

        Raises:
            AirflowFailException: A setting is not as expected, or a parameter cannot work.
            AirflowException: Nobody can say: AWS does not answer or a permission is missing, or the audit log is out of
                reach.
        """
        import sealflow
        from sealflow.actions.audit_posture import check_posture
        from sealflow_airflow.aws import clients, storages
        from sealflow_airflow.run_context import surroundings

        with airflow_errors(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            found = check_posture(
                self.location,
                kms_keys=self.kms_keys,
                bucket_owner=self.bucket_owner,
                allow_accounts=self.allow_accounts,
                skip=self.skip,
                strict=False,
                storages=storages(self.aws_conn_id),
                clients=clients(self.aws_conn_id),
            )
            for item in found.results:
                self.log.info("%-7s %s %s: %s", item.outcome, item.check, item.resource, item.found)
            self._judged(context, found.verdict, of_verdict(found.verdict))
            if self.strict and not found.verdict.passed:
                raise sealflow.VerificationError(found.verdict)
            return self.location
