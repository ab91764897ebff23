"""The README says what the examples say, and names only files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

_EXAMPLE = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    ("path", "snippet"), _EXAMPLE.findall(README), ids=lambda value: value.partition("\n")[0][-40:]
)
def test_a_snippet_stands_in_its_example(path: str, snippet: str) -> None:
    assert _bare(snippet) in _bare((ROOT / path).read_text(encoding="utf-8"))


def test_both_orchestrators_have_a_snippet() -> None:
    assert len(_EXAMPLE.findall(README)) == 2


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_a_link_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_the_two_commands_are_there() -> None:
    assert "make demo" in README
    assert "make test" in README


def _bare(text: str) -> str:
    # Imports are grouped by the linter of the example's own folder; blank lines and markers say nothing.
    return "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("# ["))
