"""The guide to gates on lineage: its commands do what it says, its snippets are those of the examples."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guides import check_links, run_guide

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "how-to" / "gate-on-lineage.md"
TEXT = GUIDE.read_text(encoding="utf-8")

_SNIPPET = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(("path", "snippet"), _SNIPPET.findall(TEXT), ids=lambda value: value.partition("\n")[0][-40:])
def test_a_snippet_stands_in_its_example(path: str, snippet: str) -> None:
    assert snippet in (ROOT / path).read_text(encoding="utf-8")


def test_both_orchestrators_have_a_snippet() -> None:
    assert {Path(path).parent.name for path, _ in _SNIPPET.findall(TEXT)} == {"airflow", "kubeflow"}


@pytest.mark.parametrize(
    "path", [GUIDE, *(ROOT / "docs" / "reference" / f"{name}.md" for name in ("airflow", "kubeflow"))]
)
def test_links_lead_somewhere(path: Path) -> None:
    check_links(path)


@pytest.mark.slow
def test_the_guide_does_what_it_says(tmp_path: Path, need_program: Callable[[str, str, str], None]) -> None:
    need_program("ssh-keygen", "openssh-client", "the guide to gates on lineage was not run")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("sealflow", "sealflow.cli"), ("dvc", "dvc.cli")):
        end = "sys.exit(main())"
        (programs / name).write_text(
            f"#!{sys.executable}\nimport sys\nsys.argv[0] = {name!r}\nfrom {module} import main\n{end}\n"
        )
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    (tmp_path / "empty").mkdir()
    run_guide(GUIDE, tmp_path / "empty", environment, blocks=9)
