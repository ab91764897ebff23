"""A DAG's model in a pipeline that knows nothing of sealflow and was hardened, and the pipeline's scores in a DAG.

One signed policy is in force on both sides.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.crossing import Crossing
from tests.kubeflow.run_hardened import MARK

pytestmark = [pytest.mark.airflow, pytest.mark.kfp, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_dag_feeds_a_hardened_pipeline_and_back(tmp_path: Path) -> None:
    here = Crossing.make(tmp_path)
    store, root = here.store, here.root

    run = here.fit()
    assert (run.states["fit"], run.states["stray"]) == ("success", "success"), run.output

    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "sealflow.json").write_text(json.dumps({"audit_spool": str(tmp_path / "spool")}))

    def pipeline(model: str, hardened: bool = True) -> tuple[dict[str, Any], str]:
        runs = [{"name": "scoring", "arguments": {"uri": str(store / "models" / model)}, "hardened": hardened}]
        code = f"from tests.kubeflow.run_hardened import main\nmain({ {'root': str(root), 'runs': runs}!r})"
        done = here.machine.run(code, tmp_path, {"SEALFLOW_MOUNT": str(mount)})
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
        return json.loads(line[len(MARK) :]), done.stdout

    # What another task of the same DAG signed with the same key is read by the pipeline as it was written, and refused
    # by the same pipeline hardened.
    result, told = pipeline("stray", hardened=False)
    assert result["error"] == "", told[-4000:]
    shutil.rmtree(root)
    result, told = pipeline("stray")
    assert "score" in result["error"]
    assert "PRODUCER_MISMATCH" in told, told[-4000:]
    assert not list(root.glob("*/score/scores"))

    result, told = pipeline("fitted")
    assert result["error"] == "", told[-4000:]
    assert "1 inputs verified, 1 outputs signed" in told

    (scores,) = root.glob("*/score/scores")
    here.check_way_back(scores)
