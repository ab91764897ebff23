"""A test sees nothing of the machine's settings, and says loudly what it could not check."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest

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
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
@pytest.mark.parametrize(
    "source",
    [
        "import pytest\n@pytest.mark.skipif(True, reason='no such thing')\ndef test_one(): pass",
        "import pytest\ndef test_one(): pytest.skip('no such thing')",
        "import pytest\n@pytest.fixture\ndef thing(): pytest.skip('no such thing')\ndef test_one(thing): pass",
    ],
    ids=["mark", "call", "fixture"],
)
def test_nothing_is_left_out_where_all_is_required(tmp_path: Path, source: str, options: tuple[str, ...]) -> None:
    assert run_pytest(tmp_path, *options, source=source).returncode == 0
    done = run_pytest(tmp_path, *options, source=source, SEALFLOW_REQUIRE_ALL="1")
    assert done.returncode == 1, done.stdout
    assert "SEALFLOW_REQUIRE_ALL=1, but this was left out: " in done.stdout
    assert "no such thing" in done.stdout


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


@pytest.mark.parametrize(
    ("marks", "expression", "seen"),
    [
        ("pytest.mark.slow", "not slow", False),
        ("[pytest.mark.airflow, pytest.mark.timeout(120)]", "not slow and not airflow", False),
        ("pytest.mark.oracle", "not slow and not kfp", True),
        ("pytest.mark.slow", "", True),
        ("pytest.mark.slow", "not slow or kfp", True),
        ("pytest.mark.slow", "slow and not kfp", True),
        ("pytest.mark.slower", "not slow", True),
    ],
)
def test_a_file_is_left_out_only_where_all_its_tests_would_be(
    tmp_path: Path,
    pytestconfig: pytest.Config,
    monkeypatch: pytest.MonkeyPatch,
    marks: str,
    expression: str,
    seen: bool,
) -> None:
    test = tmp_path / "test_one.py"
    test.write_text(f"import pytest\n\npytestmark = {marks}\n")
    monkeypatch.setattr(pytestconfig.option, "markexpr", expression)
    assert (conftest.pytest_ignore_collect(test, pytestconfig) is None) is seen
    # Whoever names a file wants to be told that nothing of it is selected.
    monkeypatch.setattr(pytestconfig, "args", [f"{test}::test"])
    assert conftest.pytest_ignore_collect(test, pytestconfig) is None


def test_each_test_has_a_folder_of_its_own(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    assert list(tmp_path.iterdir()) == []
    assert tmp_path.name.startswith(request.node.name[:26])
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
