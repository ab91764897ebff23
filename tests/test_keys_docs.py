"""What the documents on keys and signers show, run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sealflow.keys.signer import SIGNERS
from tests.guides import check_links, run_guide
from tests.servers.softhsm import PACKAGE, library

DOCS = Path(__file__).resolve().parent.parent / "docs"
GUIDE, REFERENCE = DOCS / "how-to" / "rotate-keys.md", DOCS / "reference" / "signers.md"


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LC_ALL": "C.UTF-8",
        **more,
    }


@pytest.mark.slow
def test_the_guide_to_rotation(tmp_path: Path) -> None:
    run_guide(GUIDE, tmp_path, environment(tmp_path), blocks=10)


@pytest.mark.slow
def test_the_example_with_a_token(tmp_path: Path, need_program: Callable[[str, str, str], None]) -> None:
    need_program("softhsm2-util", PACKAGE, "the example with a PKCS#11 token")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nlog.level = ERROR\n")
    more = {"SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf"), "SOFTHSM2_LIBRARY": library()}
    run_guide(REFERENCE, tmp_path, environment(tmp_path, **more), blocks=1)


@pytest.mark.parametrize("document", [GUIDE, REFERENCE], ids=lambda path: path.name)
def test_links(document: Path) -> None:
    check_links(document)


def test_every_scheme_is_in_the_table() -> None:
    rows = re.findall(r"^\| `([a-z0-9]+):`", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(SIGNERS) <= set(rows)
