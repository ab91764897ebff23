"""The first thing that runs on a fresh machine takes over what pip was told there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
uv_environment = runpy.run_path(str(ROOT / "scripts" / "bootstrap.py"))["uv_environment"]


@pytest.fixture
def pip_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "pip.conf"
    settings.write_text(
        "[global]\n"
        "index-url = https://index.invalid/simple\n"
        "extra-index-url =\n    https://one.invalid/simple\n    https://two.invalid/simple\n"
    )
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))


@pytest.mark.slow
@pytest.mark.usefixtures("pip_says")
def test_files_of_pip() -> None:
    environment = uv_environment(sys.executable)
    assert environment["UV_DEFAULT_INDEX"] == "https://index.invalid/simple"
    assert environment["UV_INDEX"] == "https://one.invalid/simple https://two.invalid/simple"


@pytest.mark.slow
@pytest.mark.usefixtures("pip_says")
def test_variables_of_pip_win_over_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.invalid/simple")
    assert uv_environment(sys.executable)["UV_DEFAULT_INDEX"] == "https://variable.invalid/simple"


@pytest.mark.slow
@pytest.mark.usefixtures("pip_says")
def test_what_the_user_told_uv_wins_over_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.invalid/simple")
    assert uv_environment(sys.executable)["UV_DEFAULT_INDEX"] == "https://uv.invalid/simple"
