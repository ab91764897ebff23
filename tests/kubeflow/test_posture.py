"""The posture gate: what the component does when its task runs."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import sealflow_kfp
from sealflow.errors import VerificationError
from tests.kubeflow.conftest import Mounted
from tests.postures import ACCOUNT, BAD, GOOD, SKIP

pytestmark = pytest.mark.kfp


def check(path: Path, **options: Any) -> str:
    (where,) = sealflow_kfp.check_posture.python_func(verdict=str(path), **options)
    return str(where)


def test_a_good_bucket_passes(aws: str, mounted: Mounted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "verdict"
    where = check(path, location=f"s3://{GOOD}/a/", skip=SKIP, bucket_owner=ACCOUNT, kms_keys=[f"awskms:{aws}"])
    assert where == f"s3://{GOOD}/a/"
    assert json.loads(path.read_text())["status"] == "passed"
    assert "PASS    tls_only s3://models: such a Deny" in capsys.readouterr().out
    assert [(e["action"], e.get("outcome")) for e in mounted.events()] == [("posture", None), ("posture", "passed")]


def test_a_bad_bucket_fails_with_its_verdict(aws: str, mounted: Mounted, tmp_path: Path) -> None:
    path = tmp_path / "verdict"
    with pytest.raises(VerificationError, match="POSTURE_FAILED"):
        check(path, location=f"s3://{BAD}")
    assert json.loads(path.read_text())["status"] == "failed"


def test_a_bad_bucket_can_be_only_reported(aws: str, mounted: Mounted, tmp_path: Path) -> None:
    path = tmp_path / "verdict"
    assert check(path, location=f"s3://{BAD}", strict=False) == f"s3://{BAD}"
    assert json.loads(path.read_text())["status"] == "failed"


def test_component_takes_what_the_action_takes() -> None:
    from sealflow.actions.audit_posture import check_posture

    spec = sealflow_kfp.check_posture.component_spec
    action = inspect.signature(check_posture).parameters
    assert set(spec.inputs) == set(action) - {"storages", "clients"} | {"sealflow_run_id"}
    assert [name for name, item in spec.inputs.items() if not item.optional] == ["location"]
    # What is left open must demand what the action demands by itself.
    assert spec.inputs["strict"].default is action["strict"].default is True
