"""Fixtures of the conformance tests: the stock tool, keys, certificates."""

from __future__ import annotations

import importlib.metadata
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance import stock as stock_tool
from tests.conftest import ROOT
from tests.pki import KeyPair, Pki, write_key, write_pki

# Read here, because every test runs without them.
uv_environment: dict[str, str] = runpy.run_path(str(ROOT / "scripts" / "bootstrap.py"))["uv_environment"](
    Path(sys.executable)
)
REQUIRE_ORACLES = os.environ.get("SEALFLOW_REQUIRE_ORACLES") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"stock", "past_release"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.oracle)


def install_or_skip(arguments: list[str], package: str, unchecked: str, loud: Callable[[str], None]) -> None:
    """Install with uv, or skip loudly; fail where the tests may not go without it."""
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", *arguments]
    done = subprocess.run(install, env=uv_environment, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0].strip()
        what = f"{package} cannot be installed ({reason})"
        if REQUIRE_ORACLES:
            pytest.fail(f"SEALFLOW_REQUIRE_ORACLES=1, but {what}")
        loud(f"{unchecked}, {what}")
        pytest.skip(what)


@pytest.fixture(scope="session")
def stock() -> Iterator[stock_tool.Stock]:
    """The stock tool of the test environment."""
    with stock_tool.running() as running:
        yield running


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    """A key pair on P-256."""
    return write_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """A root, an intermediate and a leaf that may sign."""
    return write_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def store(tmp_path: Path) -> str:
    """An evidence store."""
    return str(tmp_path / "evidence")


@pytest.fixture(scope="session")
def oracle_environment(
    tmp_path_factory: pytest.TempPathFactory, loud: Callable[[str], None]
) -> Callable[[str, list[str], str], Path]:
    """Make an environment of its own for a stock tool, or skip loudly: ``make("dvc", ["dvc[s3]==3"], "DVC not run")``.

    What is called returns the folder of its programs.
    """

    def make(name: str, packages: list[str], unchecked: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "venv"
        programs = folder / "bin"
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--no-config", "--python", sys.executable, folder], check=True)
        install_or_skip(["--python", str(programs / "python"), *packages], packages[0], f"ORACLE: {unchecked}", loud)
        return programs

    return make


@pytest.fixture(scope="session")
def dvc_s3_python(oracle_environment: Callable[[str, list[str], str], Path]) -> Path:
    """The interpreter of an environment with DVC for S3, which needs an older boto3 than ours."""
    release = f"dvc[s3]=={importlib.metadata.version('dvc')}"
    return oracle_environment("dvc-s3", [release], "DVC on S3 not run") / "python"
