"""What admission leaves of a Workflow is run: its pod's arguments, as KFP's launcher runs them, under the wrapper."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealflow_kfp import guard_command
from sealflow_kfp.admission.decide import decide
from sealflow_kfp.evidence_metadata import KEY
from sealflow_kfp.exec import REFUSED
from tests.kubeflow.argo import Task, compiled
from tests.kubeflow.argo_pods import stored, task_pod
from tests.kubeflow.cluster_pods import SETTINGS, changed, review
from tests.kubeflow.launcher import Launcher, Outcome, Stored
from tests.kubeflow.test_exec import INPUT, MODEL, SCORES, Team
from tests.trees import flip_byte

pytestmark = pytest.mark.slow

TRAIN = Task("train", command=("sh", "-c", f"echo weights > {MODEL}"))
SCORE = Task("score", command=("sh", "-c", 'cat "$0" > "$1"'), args=(INPUT, SCORES), after=("train",))


@pytest.fixture(scope="module")
def arguments() -> dict[str, list[str]]:
    """The arguments of each task's container, as they pass the gate."""
    workflow = changed(compiled([TRAIN, SCORE]))
    found = {}
    for name in ("train", "score"):
        pod = stored(task_pod(workflow, name))
        assert decide(review(pod), SETTINGS).allowed
        found[name] = pod["spec"]["containers"][1]["args"]
    return found


def run(launcher: Launcher, task: str, args: list[str], **more: object) -> Outcome:
    """Run a container's arguments as they stand; only the guard directory's program is this Python."""
    assert args[0] == guard_command.GUARD_PROGRAM
    launcher.wrapped = False
    return launcher.run(task, [*launcher._start(launcher.root / "pod"), *args[1:]], **more)  # type: ignore[arg-type]


def test_a_changed_workflows_tasks_sign_and_verify(tmp_path: Path, arguments: dict[str, list[str]]) -> None:
    launcher = Team(tmp_path).launcher
    made = run(launcher, "train", arguments["train"], outputs={"model": "system.Model"})
    assert made.status == 0, made.log
    model = made.outputs["model"]
    assert KEY in model.metadata
    used = run(launcher, "score", arguments["score"], inputs={"model": model}, outputs={"scores": "system.Dataset"})
    assert used.status == 0, used.log
    assert launcher.key(used.outputs["scores"].uri).read_text() == "weights\n"
    assert KEY in used.outputs["scores"].metadata


def test_a_changed_workflows_tasks_refuse_a_changed_input(tmp_path: Path, arguments: dict[str, list[str]]) -> None:
    launcher = Team(tmp_path).launcher
    model = run(launcher, "train", arguments["train"], outputs={"model": "system.Model"}).outputs["model"]
    flip_byte(launcher.key(model.uri))
    refused = run(launcher, "score", arguments["score"], inputs={"model": model}, outputs={"scores": "system.Dataset"})
    assert refused.status == REFUSED
    assert refused.artifacts_uploaded == []
    forged = Stored(model.uri, model.kind, {}, model.number)
    refused = run(launcher, "score", arguments["score"], inputs={"model": forged}, outputs={"scores": "system.Dataset"})
    assert refused.status == REFUSED
