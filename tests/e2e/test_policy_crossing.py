"""One signed policy in force in both orchestrators: what either signs under it the other verifies, and nothing else.

Airflow takes the policy's place from its configuration, the pipeline's tasks from the file of their environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.crossing import Crossing, codes

pytestmark = [pytest.mark.airflow, pytest.mark.kfp, pytest.mark.slow, pytest.mark.timeout(600)]


def verdict(root: Path) -> dict[str, Any]:
    (path,) = root.glob("*/verify-artifact/verdict")
    return json.loads(path.read_text())


def test_one_policy_in_both_orchestrators(tmp_path: Path) -> None:
    here = Crossing.make(tmp_path, loaders=["kfp:answer/*"])
    store, roots = here.store, here.root

    # The DAG signs. A task that no rule lets load the model is refused, on its first try.
    run = here.fit()
    assert {name: run.states[name] for name in ("fit", "stray", "notes")} == dict.fromkeys(
        ("fit", "stray", "notes"), "success"
    ), run.output
    assert (run.states["peek"], run.tries["peek"]) == ("failed", 1)
    assert codes(run.xcoms["peek", "verdict"]) == {"LOADER_NOT_ALLOWED"}

    # The pipeline takes what the right task made, and nothing that another task of the same DAG signed.
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "sealflow.json").write_text(json.dumps({"identities": {"own": str(here.own.public)}}))
    variables = {"SEALFLOW_MOUNT": str(mount)}

    def pipeline(call: str, name: str) -> tuple[bool, str]:
        done = here.machine.pipeline(call, roots / name, tmp_path, variables)
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

    (scores,) = (roots / "passed").glob("*/score/scores")
    here.check_way_back(scores)
