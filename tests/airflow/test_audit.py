"""The operator that integrates the audit log, in a task context."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from sealflow.audit.inbox import open_inbox
from sealflow.storage import Storages
from tests.core.audit.chains import chain, forged
from tests.core.audit.logs import ORIGIN, ed25519_signer

pytestmark = pytest.mark.airflow


def place(folder: Path, *chains: Any) -> dict[str, Any]:
    inbox = open_inbox(f"sqlite:{folder}/inbox.db", Storages())
    for entries in chains:
        inbox.put(entries)
    inbox.close()
    signer = ed25519_signer(folder).uri
    return {"inbox": inbox.uri, "audit_log": str(folder / "log"), "signer": signer, "origin": ORIGIN}


def integrate(context: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import IntegrateAuditLogOperator

    return IntegrateAuditLogOperator(task_id="integrate", **parameters).execute(context)


def test_it_integrates_and_names_what_it_left_out(connection, context, tmp_path, capfd):
    hostile = chain(1)
    done = integrate(context, **place(tmp_path, chain(3), [forged(hostile[0])]))
    assert (done["added"], done["size"]) == (3, 3)
    assert [finding["code"] for finding in done["findings"]] == ["AUDIT_SIGNATURE"]
    told = capfd.readouterr()
    assert f"AUDIT_SIGNATURE {hostile[0].writer}/0" in told.out + told.err
    assert "3 entries added" in told.out + told.err


def test_an_altered_log_fails_for_good(connection, context, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    places = place(tmp_path, chain(3))
    integrate(context, **places)
    (tmp_path / "log" / "checkpoint").unlink()
    with pytest.raises(AirflowFailException, match="LOG_TRUNCATED"):
        integrate(context, **places)


def test_what_is_out_of_reach_may_be_tried_again(connection, context, tmp_path):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    places = place(tmp_path, chain(1)) | {"inbox": "postgresql://127.0.0.1:9/none"}
    with pytest.raises(AirflowException, match="AUDIT_UNAVAILABLE") as raised:
        integrate(context, **places)
    assert not isinstance(raised.value, AirflowFailException)


def test_every_parameter_is_kept_under_its_name():
    from sealflow_airflow import IntegrateAuditLogOperator

    names = set(inspect.signature(IntegrateAuditLogOperator.__init__).parameters) - {"self", "kwargs"}
    made = IntegrateAuditLogOperator(task_id="x", **dict.fromkeys(names, "v"))
    assert {name: getattr(made, name) for name in names} == dict.fromkeys(names, "v")
    assert set(made.template_fields) == names - {"witnesses"}
