"""Bring what every task recorded into the audit log, once a minute.

Several runs at once, a run that is killed, and a run too many do no harm. The log's key must be out of reach for the
tasks that are recorded, so this one runs in a queue whose workers hold nothing else.
"""

from airflow.sdk import dag

from sealflow_airflow import IntegrateAuditLogOperator


@dag(schedule="* * * * *", catchup=False, max_active_runs=1, params={"inbox": "", "audit_log": "", "signer": ""})
def example_integrate_audit_log():
    IntegrateAuditLogOperator(
        task_id="integrate",
        signer="{{ params.signer or 'file:/etc/sealflow-log/log.pem' }}",
        origin="example.com/audit",
        inbox="{{ params.inbox }}",
        audit_log="{{ params.audit_log }}",
        queue="audit",
        retries=3,
    )


example_integrate_audit_log()
