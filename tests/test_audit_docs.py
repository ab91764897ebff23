"""The guide to the audit log, run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.guides import run_guide

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_guide_to_the_audit_log(tmp_path: Path) -> None:
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
    }
    run_guide(ROOT / "docs" / "how-to" / "audit.md", tmp_path, environment, blocks=7)
