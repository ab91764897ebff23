"""No block of the documents is held by nobody, and none is said to be held by a test that does not look at it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.documents import HELD, PAGES, ROOT, Block, Checks, Nobody, Runs, blocks_of

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
CLAIMS = sorted(
    {(page, item.test) for page, items in HELD.items() for item in items if isinstance(item, Runs | Checks)}
)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_held(block: Block) -> None:
    assert block.language, f"{block} says no language"
    assert any(item.holds(block) for item in HELD.get(block.page, ())), (
        f"{block} is run by no test: run it, and say so in tests/documents.py"
    )


def test_every_entry_holds_a_block() -> None:
    idle = [
        (page, item) for page, items in HELD.items() for item in items
        if not any(item.holds(block) for block in BLOCKS if block.page == page)
    ]  # fmt: skip
    assert idle == []


@pytest.mark.parametrize(("page", "test"), CLAIMS)
def test_a_test_that_holds_something_is_there_and_looks_at_the_page(page: str, test: str) -> None:
    path, _, name = test.partition("::")
    source = (ROOT / path).read_text(encoding="utf-8")
    assert name in {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    # `run_guide` itself compares what it runs with the table.
    assert Path(page).stem in source, f"{path} does not name {page}"


def test_the_exceptions_are_few_and_have_reasons() -> None:
    exceptions = [item for items in HELD.values() for item in items if isinstance(item, Nobody)]
    assert len(exceptions) <= 4
    assert all(len(item.reason) > 20 for item in exceptions)


def test_the_search_for_blocks_sees_all_of_them() -> None:
    for page in PAGES:
        fences = [line for line in page.read_text(encoding="utf-8").splitlines() if line.strip().startswith("```")]
        directives = sum(line.strip().startswith("```{") for line in fences)
        assert len(fences) == 2 * (len(blocks_of(page)) + directives), page
