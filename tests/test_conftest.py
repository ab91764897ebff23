"""A test sees nothing of the machine's settings, and says loudly what it could not check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_home_is_empty_and_no_setting_leaks_in() -> None:
    assert list(Path.home().iterdir()) == []
    assert not [name for name in os.environ if name.startswith("SEALFLOW_")]
    assert [name for name in os.environ if name.startswith("AWS_")] == ["AWS_EC2_METADATA_DISABLED"]


def run_pytest(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one test that wants the vectors, in a checkout that has none beside it."""
    test = folder / "test_vectors.py"
    test.write_text("def test_vectors(vectors_dir): pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-c", ROOT / "pyproject.toml", f"--rootdir={folder}", *options, test],
        cwd=ROOT,
        env={**os.environ, "SEALFLOW_VECTORS": str(folder / "absent"), **variables},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_missing_vectors_are_one_loud_line(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run_pytest(tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("!!! VECTORS: conformance not checked") == 1


@pytest.mark.slow
def test_missing_vectors_fail_where_they_are_required(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SEALFLOW_REQUIRE_VECTORS="1")
    assert done.returncode == 1
    assert "SEALFLOW_REQUIRE_VECTORS=1, but published vectors not found" in done.stdout
