"""Review who touched what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from sealflow_airflow.hooks.sealflow import DEFAULT_CONN_ID
from sealflow_airflow.observed import Observed, of_verdict
from sealflow_airflow.outcome import airflow_errors

if TYPE_CHECKING:
    from airflow.sdk import Context


class AccessAuditOperator(Observed, BaseOperator):
    """Review the accesses that the audit log records in a period, and write the report.

    The log is verified first: one that does not verify, or that did not grow out of what this worker saw of it last,
    fails the task. Other findings are reported, and fail it only
    where ``fail_on`` names their codes. The verdict is pushed as XCom ``verdict``; the return value says what was
    counted.

    What decides is no template, since a template may hold what another task or whoever starts the DAG says:
    ``audit_log``, ``audit_log_key``, ``cloudtrail``, ``roles``, ``policy``, ``identities``, ``checkpoints``,
    ``witnesses``, ``quorum``, ``fail_on`` and ``grace``.

    Args:
        audit_log: Location of the log, by default the one of ``[sealflow]``.
        audit_log_key: The log's verifier key or the path of a file that holds it, by default the one of ``[sealflow]``.
        since: Begin of the period: a date, a time (``{{ data_interval_start | ts }}``), or a duration such as ``7d``.
        until: End of the period, by default now.
        artifacts: Patterns over locations of artifacts; all by default.
        principals: Patterns over producers such as ``airflow:train/*``; all by default.
        datasets: Locations each of which is one dataset with all below it; by default, each folder.
        cloudtrail: Folder or location in S3 of CloudTrail's log files, to be compared with.
        roles: Patterns over ARNs, and for each the patterns of the principals that act under it.
        policy: One more policy, the path of a draft, that accesses are held against beside the admin's.
        identities: Who may vouch for writers of events, beside whom the policies name; without a policy, by default the
            connection's.
        checkpoints: Locations of checkpoints of the log that were kept elsewhere; it must have grown out of each.
        witnesses: Verifier keys of the log's witnesses, or paths.
        quorum: How many of them must have cosigned, by default all.
        fail_on: Codes of findings that fail the task, or ``all``; ``AUDIT_CLAIMED``: events for whose writer nobody
            vouches.
        grace: How long an action or a run may last before its missing end is a finding.
        page: Where the report goes as one HTML page; nowhere by default. What lies there is replaced.
        report: Where the report goes as JSON; nowhere by default. What lies there is replaced.
        sealflow_conn_id: Connection of type ``sealflow``.
        aws_conn_id: Connection with credentials for S3, by default the worker's own AWS configuration.
    """

    template_fields: Sequence[str] = (
        "since",
        "until",
        "artifacts",
        "principals",
        "datasets",
        "page",
        "report",
        "sealflow_conn_id",
        "aws_conn_id",
    )
    ui_color = "#e8e3ee"

    def __init__(
        self,
        *,
        audit_log: str | None = None,
        audit_log_key: str | None = None,
        since: str | None = None,
        until: str | None = None,
        artifacts: Sequence[str] = (),
        principals: Sequence[str] = (),
        datasets: Sequence[str] = (),
        cloudtrail: str | None = None,
        roles: Mapping[str, Sequence[str]] | None = None,
        policy: str | None = None,
        identities: Any = None,
        checkpoints: Sequence[str] = (),
        witnesses: Sequence[str] = (),
        quorum: int | None = None,
        fail_on: Sequence[str] = (),
        grace: str = "1d",
        page: str | None = None,
        report: str | None = None,
        sealflow_conn_id: str = DEFAULT_CONN_ID,
        aws_conn_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.audit_log = audit_log
        self.audit_log_key = audit_log_key
        self.since = since
        self.until = until
        self.artifacts = artifacts
        self.principals = principals
        self.datasets = datasets
        self.cloudtrail = cloudtrail
        self.roles = roles
        self.policy = policy
        self.identities = identities
        self.checkpoints = checkpoints
        self.witnesses = witnesses
        self.quorum = quorum
        self.fail_on = fail_on
        self.grace = grace
        self.page = page
        self.report = report
        self.sealflow_conn_id = sealflow_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Review, and return status, counts and counts of findings.

        Raises:
            AirflowFailException: The log does not verify, a code of ``fail_on`` was found, or a parameter cannot work.
            AirflowException: Nobody can say: the log, the trail or the admin's policy is out of reach, or there was
                more than a review holds.
        """
        import sealflow
        from sealflow.actions.audit_report import write_report
        from sealflow.actions.audit_review import review_accesses
        from sealflow_airflow.aws import storages
        from sealflow_airflow.run_context import surroundings

        found = storages(self.aws_conn_id)
        with airflow_errors(), sealflow.run(surroundings(context, self.sealflow_conn_id)):
            reviewed = review_accesses(
                self.audit_log,
                key=self.audit_log_key,
                since=self.since,
                until=self.until,
                artifacts=self.artifacts,
                principals=self.principals,
                datasets=self.datasets,
                cloudtrail=self.cloudtrail,
                roles=self.roles,
                policy=self.policy,
                identities=self.identities,
                checkpoints=self.checkpoints,
                witnesses=self.witnesses,
                quorum=self.quorum,
                fail_on=self.fail_on,
                grace=self.grace,
                storages=found,
            )
            write_report(reviewed.report, page=self.page, report_at=self.report, storages=found)
            self._judged(context, reviewed.verdict, of_verdict(reviewed.verdict))
            if not reviewed.verdict.passed:
                raise sealflow.VerificationError(reviewed.verdict)
            return {
                name: reviewed.report[name] for name in ("status", "period", "counts", "outcomes", "finding_counts")
            }
