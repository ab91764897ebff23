"""The review of accesses: what the component does when its task runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sealflow_kfp
from sealflow.errors import VerificationError
from tests.core.actions.access_log import at, made, one
from tests.core.audit.logs import MadeLog

pytestmark = pytest.mark.kfp

MODEL = "s3://models/churn/model.pkl"


@pytest.fixture
def log(tmp_path: Path) -> MadeLog:
    lines = [line for day in range(60) for line in one(at(day), MODEL)]
    return made(tmp_path / "world", lines + one(at(59, 60), "s3://raw/people.csv"))


def audit(folder: Path, log: MadeLog, **options: Any) -> str:
    outputs = {name: SimpleNamespace(path=str(folder / "out" / name)) for name in ("report", "page")}
    given = {"since": "2026-10-01", "until": "2026-11-01"} | options
    (status,) = sealflow_kfp.audit_access.python_func(
        verdict=str(folder / "verdict"), audit_log=log.store.uri, audit_log_key=str(log.key), **outputs, **given
    )
    return str(status)


def test_review_leaves_verdict_report_and_page(log: MadeLog, tmp_path: Path) -> None:
    assert audit(tmp_path, log) == "passed"
    assert json.loads((tmp_path / "verdict").read_text())["status"] == "passed"
    assert json.loads((tmp_path / "out" / "report").read_text())["outcomes"] == {"passed": 31}
    assert (tmp_path / "out" / "page").read_text().startswith("<!DOCTYPE html>")


def test_refusal_fails_and_leaves_the_verdict(log: MadeLog, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="FIRST_SEEN"):
        audit(tmp_path, log, fail_on=["FIRST_SEEN"])
    assert json.loads((tmp_path / "verdict").read_text())["status"] == "failed"


def test_log_that_does_not_verify_fails(log: MadeLog, tmp_path: Path) -> None:
    log.path().write_bytes(log.path().read_bytes().replace(b"\n183\n", b"\n182\n"))
    with pytest.raises(VerificationError, match="LOG_CHECKPOINT"):
        audit(tmp_path, log)
