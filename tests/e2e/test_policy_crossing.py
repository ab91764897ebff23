"""One signed policy in force in both orchestrators: what either signs under it the other verifies, and nothing else.

Airflow takes the policy's place from its configuration, the pipeline's tasks from the file of their environment.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.home import AirflowHome
from tests.e2e.admin import Admin, rule
from tests.e2e.environment import PythonEnvironment
from tests.pki import write_key

pytestmark = [pytest.mark.airflow, pytest.mark.kfp, pytest.mark.slow, pytest.mark.timeout(600)]


def verdict(root: Path) -> dict[str, Any]:
    (path,) = root.glob("*/verify-artifact/verdict")
    return json.loads(path.read_text())


def codes(found: dict[str, Any], severity: str = "refusal") -> set[str]:
    return {finding["code"] for finding in found["findings"] if finding["severity"] == severity}


def test_one_policy_in_both_orchestrators(tmp_path: Path) -> None:
    own = write_key(tmp_path, "own")
    (tmp_path / "airflow").mkdir()
    home = AirflowHome(tmp_path / "airflow", own)
    home.add_dags(Path(__file__).parent / "dags")
    home.migrate()
    machine = PythonEnvironment(tmp_path / "venv")

    store, roots = tmp_path / "store", tmp_path / "kfp"
    for name in ("models", "free"):
        (store / name).mkdir(parents=True)
    dag_key, pipeline_key = write_key(tmp_path, "dag"), write_key(tmp_path, "pipeline")
    admin = Admin(tmp_path / "admin")
    admin.publish(
        [
            rule(
                "models",
                f"{store}/models/**",
                "trainer",
                producers=["airflow:crossing/fit"],
                loaders=["kfp:answer/*"],
            ),
            rule("scores", f"{roots}/**/scores", "scorer", producers=["kfp:answer/score"]),
        ],
        {
            "trainer": {"key": dag_key, "producers": ["airflow:crossing/fit"]},
            "scorer": {"key": pipeline_key, "producers": ["kfp:answer/score"]},
        },
        signers=[
            {"scope": {"dag": ["crossing"], "task": ["fit"]}, "uri": dag_key.signer},
            {"scope": {"pipeline": ["answer"], "task": ["score"]}, "uri": pipeline_key.signer},
        ],
    )
    admin.write_file(machine.admin_file)
    configured = admin.options()

    # The DAG signs. A task that no rule lets load the model is refused, on its first try.
    run = home.run("crossing", {"folder": str(store), "key": str(dag_key.private)}, env=configured)
    assert {name: run.states[name] for name in ("fit", "stray", "notes")} == dict.fromkeys(
        ("fit", "stray", "notes"), "success"
    ), run.output
    assert (run.states["peek"], run.tries["peek"]) == ("failed", 1)
    assert codes(run.xcoms["peek", "verdict"]) == {"LOADER_NOT_ALLOWED"}

    # The pipeline takes what the right task made, and nothing that another task of the same DAG signed.
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "sealflow.json").write_text(json.dumps({"identities": {"own": str(own.public)}}))
    variables = {"SEALFLOW_MOUNT": str(mount)}

    def pipeline(call: str, name: str) -> tuple[bool, str]:
        done = machine.pipeline(call, roots / name, tmp_path, variables)
        return done.returncode == 0, done.stdout

    passed, output = pipeline(f"answer(uri={str(store / 'models' / 'fitted')!r})", "passed")
    assert passed, output[-4000:]
    found = verdict(roots / "passed")
    assert (found["status"], found["producer"], found["rules"]) == ("passed", "airflow:crossing/fit", ["models"])
    in_airflow = run.xcoms["peek", "verdict"]
    assert found["policy"] == in_airflow["policy"] != ""

    for call, name, code in (
        (f"answer(uri={str(store / 'models' / 'stray')!r})", "stray", "PRODUCER_MISMATCH"),
        (f"verify_again(uri={str(store / 'models' / 'fitted')!r})", "peek", "LOADER_NOT_ALLOWED"),
    ):
        passed, output = pipeline(call, name)
        assert not passed
        assert codes(verdict(roots / name)) == {code}, output[-4000:]

    # What no rule names runs as it did without a policy: the connection's key signed it, the mount's identity takes it.
    passed, output = pipeline(f"verify_again(uri={str(store / 'free' / 'notes')!r})", "free")
    assert passed, output[-4000:]
    assert "NOT_MANAGED" in codes(verdict(roots / "free"), "note")

    # And back. The same scores signed by a task of Airflow's own are not the pipeline's.
    (scores,) = (roots / "passed").glob("*/score/scores")
    copy = roots / "copied" / "scores"
    copy.parent.mkdir()
    shutil.copy(scores, copy)
    back = home.run("crossing_back", {"scores": str(scores), "copied": str(copy)}, env=configured)
    assert (back.states["gate"], back.states["read"]) == ("success", "success"), back.output
    assert back.xcoms["read", "return_value"] == "sthgiew"
    assert back.xcoms["gate", "verdict"]["producer"] == "kfp:answer/score"
    assert back.xcoms["gate", "verdict"]["rules"] == ["scores"]
    assert (back.states["gate_signed_again"], back.tries["gate_signed_again"]) == ("failed", 1), back.output
    assert codes(back.xcoms["gate_signed_again", "verdict"]) == {"SIGNER_NOT_ALLOWED"}
