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


VECTORS = "def test_vectors(vectors_dir): pass"
PROGRAM = "def test_program(need_program): need_program('no-such-program', 'no-such', 'it was not checked')"


def run_pytest(
    folder: Path, *options: str, source: str = VECTORS, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one test that wants what is missing; the vectors are in no checkout."""
    test = folder / "test_one.py"
    test.write_text(f"{source}\n")
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
@pytest.mark.parametrize(
    ("source", "line"),
    [(VECTORS, "!!! VECTORS: conformance not checked"), (PROGRAM, "!!! PROGRAM: it was not checked")],
    ids=["vectors", "program"],
)
def test_what_is_missing_is_one_loud_line(tmp_path: Path, source: str, line: str, options: tuple[str, ...]) -> None:
    done = run_pytest(tmp_path, *options, source=source)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(line) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "variable", "what"),
    [
        (VECTORS, "SEALFLOW_REQUIRE_VECTORS", "published vectors not found"),
        (PROGRAM, "SEALFLOW_REQUIRE_PROGRAMS", "there is no no-such-program (Debian package: no-such)"),
    ],
    ids=["vectors", "program"],
)
def test_what_is_missing_fails_where_it_is_required(tmp_path: Path, source: str, variable: str, what: str) -> None:
    done = run_pytest(tmp_path, source=source, **{variable: "1"})
    assert done.returncode == 1
    assert f"{variable}=1, but {what}" in done.stdout
