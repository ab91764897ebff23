"""Hardened pipelines under the other release of KFP that the extra allows, in an environment of its own.

Its exact pins of requests and urllib3 keep it out of the environment of the other tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sealflow
from tests.conftest import ROOT
from tests.kubeflow.conftest import Mounted, mounted  # noqa: F401  (a fixture)
from tests.kubeflow.run_hardened import run_all
from tests.kubeflow.test_harden_runs import EVERYWHERE, outputs_of, signed_by

pytestmark = [pytest.mark.kfp, pytest.mark.slow, pytest.mark.oracle]

#: The newest that needs no override of what it pins.
RELEASE = "kfp[kubernetes]==2.17.0"


@pytest.fixture(scope="module")
def newer(oracle_environment: Callable[[str, list[str], str], Path]) -> Path:
    """The interpreter of an environment with KFP 2.17."""
    return (
        oracle_environment("kfp-2-17", [RELEASE, f"{ROOT}[kfp]"], "hardened pipelines not run on KFP 2.17") / "python"
    )


def test_unchanged_pipelines_run_hardened(newer: Path, mounted: Mounted, tmp_path: Path) -> None:  # noqa: F811
    root = tmp_path / "root"
    # Its own runner stops at `nested` and `one_of`, hardened or not.
    expected = {**EVERYWHERE, "nested_text": "cba", "collected": "ba,dc", "with_exit": None}
    del expected["nested"]
    for result in run_all(newer, root, list(expected)):
        assert outputs_of(result) == expected[result["name"]]
    assert signed_by(root, "steps") == {"kfp:steps/make/model": [], "kfp:steps/copy/copied": ["model"]}
    verified = [event for event in mounted.events() if event["phase"] == "outcome" and event["action"] == "verify"]
    assert {event["outcome"] for event in verified} == {"passed"}


def test_a_cached_task_checks_nothing_and_a_hardened_one_is_never_cached(
    newer: Path,
    mounted: Mounted,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The pitfall: KFP's cache knows an artifact by its name, and not by a byte of it."""
    model = tmp_path / "model"
    model.write_bytes(b"weights")
    mounted.write(evidence_store=str(tmp_path / "store"))
    sealflow.sign(model)
    plainly = {"name": "checked_import", "hardened": False, "arguments": {"uri": str(model)}}
    hardened = {**plainly, "hardened": True}
    planted = {"before": [str(model), "planted"]}
    first, second, third, fourth = run_all(
        newer,
        tmp_path / "root",
        [hardened, plainly, {**plainly, **planted}, {**hardened, **planted}],
        caching=True,
    )
    assert outputs_of(first) == outputs_of(second) == "weights"
    # What was checked yesterday is reported as checked today.
    assert outputs_of(third) == "weights"
    assert "check" in fourth["error"]
    assert "FILE_CHANGED" in fourth["told"], fourth["told"][-4000:]


def test_both_releases_compile_to_what_is_hardened_alike(newer: Path, tmp_path: Path) -> None:
    """But for the release's own number, hardened pipelines are the same to the byte."""
    code = (
        "import sys, kfp\n"
        "from kfp import compiler\n"
        "from sealflow_kfp.hardening import harden_text\n"
        "from tests.kubeflow import hardened_pipelines\n"
        "for pipeline in hardened_pipelines.ALL:\n"
        "    compiler.Compiler().compile(pipeline, sys.argv[1])\n"
        "    text = harden_text(open(sys.argv[1], 'rb').read(), secret='keys').text.decode()\n"
        "    print(text.replace(kfp.__version__, 'RELEASE'))\n"
    )
    found = [
        subprocess.run(
            [str(python), "-c", code, str(tmp_path / f"{number}.yaml")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ).stdout
        for number, python in enumerate((sys.executable, newer))
    ]
    assert found[0] == found[1]
    assert found[0].count("sealflow_kfp.exec") > 20
