"""The reference names every code there is."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_of_codes_is_the_one_in_the_code() -> None:
    table = runpy.run_path(str(ROOT / "scripts" / "make_codes_table.py"))["table"]()
    assert table in (ROOT / "docs" / "reference" / "verdicts.md").read_text(encoding="utf-8"), (
        "docs/reference/verdicts.md is behind: paste the output of scripts/make_codes_table.py"
    )
