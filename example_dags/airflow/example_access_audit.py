"""Review each week who touched the models.

The log is verified first; one that does not verify fails the task, and so do accesses that the policy does not allow.
Whatever else is found stands in the page.
"""

from airflow.sdk import dag

from sealflow_airflow import AccessAuditOperator


@dag(schedule=None, params={"reports": "s3://security/reviews", "since": "7d"})
def example_access_audit():
    AccessAuditOperator(
        task_id="review",
        since="{{ params.since }}",
        fail_on=["ACCESS_NOT_ALLOWED"],
        page="{{ params.reports }}/{{ run_id }}.html",
        report="{{ params.reports }}/{{ run_id }}.json",
    )


example_access_audit()
