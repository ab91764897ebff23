"""The drill for a stolen key, run as it stands; and what the guide says of options and defaults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealflow.actions.respond_revoke import DEFAULT_LIFE
from tests.e2e.environment import PythonEnvironment
from tests.guides import check_links, run_guide

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "how-to" / "respond-to-a-stolen-key.md"


def test_links_lead_somewhere() -> None:
    check_links(GUIDE)


def test_the_default_life_is_the_codes() -> None:
    assert f"({DEFAULT_LIFE[:-1]} days after the last revocation" in GUIDE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_drill(tmp_path: Path) -> None:
    """In an environment of its own, whose `etc` holds the admin's file."""
    machine = PythonEnvironment(tmp_path / "machine")
    program = machine.python.parent / "sealflow"
    program.write_text(f"#!{machine.python}\nfrom sealflow.cli import main\nmain()\n")
    program.chmod(0o755)
    folder = tmp_path / "drill"
    folder.mkdir()
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{machine.python.parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }
    run_guide(GUIDE, folder, environment, blocks=10)
    assert (folder / "radius.html").read_text().startswith("<!DOCTYPE html>")
    assert not (folder / "lake" / "model.bin").exists()
