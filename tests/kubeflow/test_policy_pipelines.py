"""Pipelines of KFP's local runner on a machine whose admin has a policy in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.admin import Admin, rule
from tests.e2e.environment import PythonEnvironment
from tests.kubeflow.conftest import Mounted
from tests.pki import write_key

pytestmark = [pytest.mark.kfp, pytest.mark.slow]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> PythonEnvironment:
    return PythonEnvironment(tmp_path_factory.mktemp("machine") / "venv")


def verdicts(root: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(root.glob("*/verify-artifact/verdict"))]


def refusals(verdict: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in verdict["findings"] if finding["severity"] == "refusal"}


def test_verify_step_under_a_policy(mounted: Mounted, machine: PythonEnvironment, tmp_path: Path) -> None:
    """The same bytes and the same key: what differs is which task signed."""
    admin, root = Admin(tmp_path / "admin"), tmp_path / "root"
    trainer = write_key(tmp_path, "trainer")
    admin.publish(
        [
            rule(
                "models",
                f"{root}/**/model",
                "trainer",
                producers=["kfp:bodies/make-signed-model"],
                evidence={"provenance": {}},
                locked=["evidence", "identities"],
            )
        ],
        {"trainer": {"key": trainer, "producers": ["kfp:bodies/make-signed-model"]}},
        signers=[{"scope": {"orchestrator": ["kfp"]}, "uri": trainer.signer}],
    )
    admin.write_file(machine.admin_file)
    # What the author's secret says is a default for what no policy governs.
    env = {"SEALFLOW_MOUNT": str(mounted.folder)}
    passed = machine.pipeline("bodies(password='x')", root / "passed", tmp_path, env)
    assert passed.returncode == 0, passed.stdout[-4000:]
    (verdict,) = verdicts(root / "passed")
    assert (verdict["status"], verdict["rules"]) == ("passed", ["models"])
    assert verdict["producer"] == "kfp:bodies/make-signed-model"
    assert {signer["identity"] for signer in verdict["signers"]} == {"trainer"}

    for attempt in ("first", "second"):
        refused = machine.pipeline("gate()", root / attempt, tmp_path, env)
        assert refused.returncode != 0
        assert "'verify-artifact'" in refused.stdout, refused.stdout[-4000:]
    first, second = *verdicts(root / "first"), *verdicts(root / "second")
    assert "kfp:gate/sign-artifact" in json.dumps(first["findings"])
    assert refusals(first) == refusals(second) == {"PRODUCER_MISMATCH"}

    # The policy gone, a managed artifact is neither passed nor refused.
    admin.policy.unlink()
    outage = machine.pipeline("bodies(password='x')", root / "outage", tmp_path, env)
    assert outage.returncode != 0
    assert "POLICY_UNAVAILABLE" in outage.stdout


def test_variables_of_a_task_change_nothing(mounted: Mounted, machine: PythonEnvironment, tmp_path: Path) -> None:
    admin, author, root = Admin(tmp_path / "admin"), Admin(tmp_path / "author"), tmp_path / "root"
    admin.publish([rule("models", f"{root}/**", "trusted")], {"trusted": write_key(tmp_path, "trusted")})
    author.publish([rule("mine", f"{root}/**", "me")], {"me": mounted.key})
    admin.write_file(machine.admin_file)
    author.write_file(tmp_path / "etc" / "sealflow" / "admin.json")
    env = {
        **author.options(),
        **dict.fromkeys(("SEALFLOW_POLICY", "SEALFLOW_ADMIN"), str(author.policy)),
        **dict.fromkeys(("VIRTUAL_ENV", "CONDA_PREFIX", "SEALFLOW_PREFIX"), str(tmp_path)),
        "SEALFLOW_MOUNT": str(mounted.folder),
        "SEALFLOW_IDENTITIES": str(mounted.key.public),
    }
    done = machine.pipeline("gate()", root, tmp_path, env)
    assert done.returncode != 0
    (verdict,) = verdicts(root)
    assert refusals(verdict) == {"SIGNER_NOT_ALLOWED"}
    # Without the admin's file the author's settings do hold; otherwise this could not fail.
    machine.admin_file.unlink()
    assert machine.pipeline("gate()", tmp_path / "free", tmp_path, env).returncode == 0
