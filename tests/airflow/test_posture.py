"""The posture gate in a task context, and in a group of tasks."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import pytest

from tests.postures import ACCOUNT, BAD, GOOD, SKIP, client

pytestmark = pytest.mark.airflow


def check(context: dict[str, Any], location: str, **parameters: Any) -> str:
    from sealflow_airflow import CheckPostureOperator

    return CheckPostureOperator(task_id="gate", location=location, **parameters).execute(context)


def test_a_good_bucket_passes(aws, connection, context, caplog):
    with caplog.at_level(logging.INFO):
        where = check(context, f"s3://{GOOD}/a/", skip=SKIP, bucket_owner=ACCOUNT, kms_keys=[f"awskms:{aws}"])
    assert where == f"s3://{GOOD}/a/"
    assert context["ti"].pushed["verdict"]["status"] == "passed"


def test_a_bad_bucket_fails_for_good(aws, connection, context):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="POSTURE_FAILED"):
        check(context, f"s3://{BAD}")
    assert context["ti"].pushed["verdict"]["status"] == "failed"


def test_what_nobody_knows_may_be_tried_again(aws, connection, context, monkeypatch):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    # Another account's trails: nobody here knows.
    with pytest.raises(AirflowException, match="POSTURE_UNKNOWN") as raised:
        check(
            context,
            f"s3://{GOOD}",
            skip={**SKIP, "account_public_access": "organization"},
            bucket_owner="111111111111",
            allow_accounts=[ACCOUNT],
        )
    assert not isinstance(raised.value, AirflowFailException)


def test_a_bad_bucket_can_be_only_reported(aws, connection, context):
    assert check(context, f"s3://{BAD}", strict=False) == f"s3://{BAD}"
    assert context["ti"].pushed["verdict"]["status"] == "failed"


def test_a_wrong_parameter_fails_for_good(connection, context):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="without a reason"):
        check(context, f"s3://{GOOD}", skip={"tls_only": ""})


def test_the_connection_makes_all_clients(aws, connection, connect, context):
    connect("store", conn_type="aws", login="testing", password="testing", extra={"region_name": "eu-central-1"})
    assert check(context, f"s3://{GOOD}", skip=SKIP, aws_conn_id="store") == f"s3://{GOOD}"


def test_an_unknown_connection_fails_for_good(connection, context):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="CONNECTION_MISSING"):
        check(context, f"s3://{GOOD}", aws_conn_id="nobody")


def test_only_the_place_and_connections_are_templates():
    from sealflow.actions.audit_posture import check_posture
    from sealflow_airflow import CheckPostureOperator

    assert set(CheckPostureOperator.template_fields) == {"location", "sealflow_conn_id", "aws_conn_id"}
    ours = inspect.signature(CheckPostureOperator.__init__).parameters
    theirs = inspect.signature(check_posture).parameters
    for name in theirs.keys() - {"storages", "clients"}:
        assert ours[name].default == theirs[name].default
    made = CheckPostureOperator(task_id="gate", location="s3://b", bucket_owner=ACCOUNT, owner="team")
    assert (made.bucket_owner, made.owner) == (ACCOUNT, "team")


def test_gates_stand_in_groups_and_are_mapped():
    from airflow.sdk import DAG, TaskGroup

    from sealflow_airflow import CheckPostureOperator

    with DAG("posture", schedule=None) as dag, TaskGroup("gates"):
        CheckPostureOperator(task_id="models", location="s3://models", skip=SKIP)
        CheckPostureOperator.partial(task_id="data", skip=SKIP).expand(location=["s3://a", "s3://b"])
    assert set(dag.task_ids) == {"gates.models", "gates.data"}
    assert dag.get_task("gates.models").output is not None


def test_client_of_the_tests_is_mocked(aws):
    assert client("sts").get_caller_identity()["Account"] == ACCOUNT
