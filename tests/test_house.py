"""Rules of the house that no linter holds."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("shared", "airflow_plugin", "kfp_components", "benchmarks", "scripts", "tests")


def _names(module: ast.Module) -> Iterator[str]:
    for item in module.body:
        if isinstance(item, ast.Assign):
            yield from (target.id for target in item.targets if isinstance(target, ast.Name))
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            yield item.target.id
        elif isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield item.name


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_module_gives_each_name_once(folder: str) -> None:
    """A second constant of one name changes what is above it, and type checkers do not mind."""
    twice = {
        path.relative_to(ROOT).as_posix(): again
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (again := [name for name, count in Counter(_names(ast.parse(path.read_bytes()))).items() if count > 1])
    }
    assert twice == {}
