"""One signed policy in force in Airflow and in Kubeflow's tasks, and the way from a DAG into a pipeline and back."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.airflow.home import AirflowHome, Run
from tests.e2e.admin import Admin, rule
from tests.e2e.environment import PythonEnvironment
from tests.pki import KeyPair, write_key


def codes(found: dict[str, Any], severity: str = "refusal") -> set[str]:
    return {finding["code"] for finding in found["findings"] if finding["severity"] == severity}


@dataclass
class Crossing:
    """An Airflow and another Python environment that share an admin, who trusts one key of each.

    Attributes:
        own: A key that no rule names.
        store: Where the DAG ``crossing`` writes: what lies in ``models`` is managed, what lies in ``free`` is not.
        root: Where the pipeline ``answer`` writes; its ``scores`` are managed.
    """

    folder: Path
    own: KeyPair
    dag_key: KeyPair
    home: AirflowHome
    machine: PythonEnvironment
    admin: Admin
    store: Path
    root: Path

    @classmethod
    def make(cls, folder: Path, **models: Any) -> Crossing:
        """Set everything up; ``models`` is what the models' rule asks for besides."""
        own = write_key(folder, "own")
        (folder / "airflow").mkdir()
        home = AirflowHome(folder / "airflow", own)
        home.add_dags(Path(__file__).parent / "dags")
        home.migrate()
        store, root = folder / "store", folder / "kfp"
        for name in ("models", "free"):
            (store / name).mkdir(parents=True)
        dag_key, pipeline_key = write_key(folder, "dag"), write_key(folder, "pipeline")
        admin = Admin(folder / "admin")
        admin.publish(
            [
                rule("models", f"{store}/models/**", "trainer", producers=["airflow:crossing/fit"], **models),
                rule("scores", f"{root}/**/scores", "scorer", producers=["kfp:answer/score"]),
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
        machine = PythonEnvironment(folder / "venv")
        admin.write_file(machine.admin_file)
        return cls(folder, own, dag_key, home, machine, admin, store, root)

    def fit(self) -> Run:
        """Run the DAG that makes the model."""
        arguments = {"folder": str(self.store), "key": str(self.dag_key.private)}
        return self.home.run("crossing", arguments, env=self.admin.options())

    def check_way_back(self, scores: Path) -> None:
        """A DAG takes the pipeline's scores; the same, signed by a task of Airflow's own, are not the pipeline's."""
        copy = self.root / "copied" / "scores"
        copy.parent.mkdir()
        shutil.copy(scores, copy)
        back = self.home.run("crossing_back", {"scores": str(scores), "copied": str(copy)}, env=self.admin.options())
        assert (back.states["gate"], back.states["read"]) == ("success", "success"), back.output
        assert back.xcoms["read", "return_value"] == "sthgiew"
        assert back.xcoms["gate", "verdict"]["producer"] == "kfp:answer/score"
        assert back.xcoms["gate", "verdict"]["rules"] == ["scores"]
        assert (back.states["gate_signed_again"], back.tries["gate_signed_again"]) == ("failed", 1), back.output
        assert codes(back.xcoms["gate_signed_again", "verdict"]) == {"SIGNER_NOT_ALLOWED"}
