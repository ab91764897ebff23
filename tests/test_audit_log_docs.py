"""The reference of the audit log: its commands do what it shows, its links lead somewhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.core.audit.logs import MadeLog, chain_lines
from tests.guides import check_links, run_guide

DOCS = Path(__file__).parent.parent / "docs"
REFERENCE = DOCS / "reference" / "audit-log.md"


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    log = MadeLog(tmp_path)
    log.add(chain_lines(300))
    log.add(chain_lines(300, first=5000))
    (tmp_path / "log.vkey").write_text(f"{log.key}\n")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    run_guide(REFERENCE, tmp_path, environment, blocks=6)


def test_links() -> None:
    for document in (REFERENCE, DOCS / "explanation" / "threat-model.md"):
        check_links(document)
