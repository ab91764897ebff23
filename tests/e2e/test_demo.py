"""The demo's whole story, run as a user runs it: both orchestrators, the cross-over, the refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.kfp
@pytest.mark.timeout(600)
def test_the_demo_goes_as_it_should(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    told = subprocess.run(
        [sys.executable, "example_dags/demo/run.py"],
        cwd=ROOT,
        env={**os.environ, "SEALFLOW_DEMO_DIR": str(place), "COLUMNS": "160", "AIRFLOW__CORE__UNIT_TEST_MODE": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "none of digits.joblib, sklearn, LogisticRegression in" in told.stdout
    assert "with the key     passed" in told.stdout
    assert "with another     refused: RECIPIENT_MISSING" in told.stdout
    assert "refused on try 1 of 3: MESSAGE_ALTERED" in told.stdout
    assert told.stdout.count("refused on attempt") == 2
    assert "passed under the rule models-by-kfp" in told.stdout
    assert "refused on try 1: LOADER_NOT_ALLOWED" in told.stdout
    # The control: what DVC itself says of the very data that both gates refuse.
    assert "dvc status       Data and pipelines are up to date." in told.stdout
    assert "Airflow's gate   refused on try 1 of 3: DATA_MISMATCH data/digits/0/" in told.stdout
    assert "KFP's gate       refused: DATA_MISMATCH data/digits/0/" in told.stdout
    assert "signed entries under one signed checkpoint" in told.stdout
    assert "the next reader  refused: LOG_ALTERED" in told.stdout
    # Nothing is believed from the account alone: the evidence is there, from both keys, and an outsider can check it.
    bundles = [json.loads(path.read_bytes()) for path in (place / "evidence").glob("*/*.json")]
    hints = {bundle["verificationMaterial"]["publicKey"]["hint"] for bundle in bundles}
    assert len(hints) == 2
    # Airflow's model was never written in clear, but by who opened it with the key.
    clear = [path for path in place.rglob("*") if path.is_file() and b"LogisticRegression" in path.read_bytes()]
    assert {path.relative_to(place).parts[0] for path in clear} <= {"opened", "logs", "airflow"}
    assert (place / "opened" / "digits.joblib") in clear
    model = next((place / "kfp" / "digits").glob("*/train/model"))
    judged = subprocess.run(
        [
            *(sys.executable, "-c", "from sealflow.cli import main; main()", "verify", str(model), "--json"),
            *("--evidence-store", str(place / "evidence"), "--identity", str(place / "keys" / "kfp.pem.pub")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    verdict = json.loads(judged.stdout)
    assert verdict["status"] == "passed", verdict
    assert verdict["producer"] == "kfp:digits/train"


@pytest.mark.slow
@pytest.mark.airflow
@pytest.mark.timeout(300)
def test_the_demo_fails_when_a_step_does(tmp_path: Path) -> None:
    """A demo that cannot fail shows nothing: without DVC on its path of modules it must say so and end with 1."""
    broken = tmp_path / "modules" / "dvc"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('planted')")
    told = subprocess.run(
        [sys.executable, "example_dags/demo/run.py"],
        cwd=ROOT,
        env={**os.environ, "SEALFLOW_DEMO_DIR": str(tmp_path / "demo"), "PYTHONPATH": str(broken.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert "The demo failed" in told.stdout
