"""The review of accesses in a task context: what it returns, writes and raises."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from tests.core.actions.access_log import at, made, one
from tests.core.audit.logs import MadeLog

pytestmark = pytest.mark.airflow

MODEL = "s3://models/churn/model.pkl"


@pytest.fixture
def log(tmp_path: Path) -> MadeLog:
    lines = [line for day in range(60) for line in one(at(day), MODEL)]
    return made(tmp_path / "world", lines + one(at(59, 60), "s3://raw/people.csv"))


def audit(context: dict[str, Any], log: MadeLog, **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import AccessAuditOperator

    given = {"since": "2026-10-01", "until": "2026-11-01"} | parameters
    operator = AccessAuditOperator(task_id="review", audit_log=log.store.uri, audit_log_key=str(log.key), **given)
    return operator.execute(context)


def test_review_returns_counts_and_writes_both_forms(connection, context, log, tmp_path):
    found = audit(context, log, page=str(tmp_path / "r.html"), report=str(tmp_path / "r.json"))
    assert (found["status"], found["outcomes"], found["finding_counts"]["FIRST_SEEN"]) == ("passed", {"passed": 31}, 1)
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads((tmp_path / "r.json").read_text())["outcomes"] == {"passed": 31}
    assert context["ti"].pushed["verdict"]["status"] == "passed"


def test_fail_on_fails_for_good_and_the_page_is_written(connection, context, log, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="FIRST_SEEN"):
        audit(context, log, fail_on=["FIRST_SEEN"], page=str(tmp_path / "r.html"))
    assert context["ti"].pushed["verdict"]["status"] == "failed"
    assert (tmp_path / "r.html").exists()


def test_log_that_does_not_verify_fails_for_good(connection, context, log):
    from airflow.sdk.exceptions import AirflowFailException

    log.path().write_bytes(log.path().read_bytes().replace(b"\n183\n", b"\n182\n"))
    with pytest.raises(AirflowFailException, match="LOG_CHECKPOINT"):
        audit(context, log)


def test_parameters_are_those_of_the_action():
    from sealflow.actions.audit_review import review_accesses
    from sealflow_airflow import AccessAuditOperator

    operator, action = (
        set(inspect.signature(function).parameters) for function in (AccessAuditOperator.__init__, review_accesses)
    )
    assert action - operator == {"log", "key", "rows", "limits", "storages", "audit"}
    deciding = {"audit_log", "audit_log_key", "roles", "policy", "fail_on", "cloudtrail", "identities", "checkpoints"}
    assert not (deciding | {"witnesses", "quorum"}) & set(AccessAuditOperator.template_fields)
