"""Every attack meets a file and a tree, by path and by reference, at the gate and for the held copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealflow.audit.note import VerifierKey
from tests.attacks.world import World

#: The quick tests take the shortest way and the longest; the others add those between.
_QUICK = {("file", "path", "gate"), ("tree", "pinned", "held")}


# First, so that `-m` sees the markers.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "world" in item.fixturenames and hasattr(item, "callspec"):
            way = tuple(item.callspec.params.get(name) for name in ("kind", "given", "way"))
            if None not in way and way not in _QUICK:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["file", "tree"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["path", "pinned"])
def given(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["gate", "held"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def world(tmp_path: Path, kind: str, given: str, way: str, monkeypatch: pytest.MonkeyPatch) -> World:
    # Set by every check; restored with the test.
    monkeypatch.setenv("SEALFLOW_TMPDIR", str(tmp_path))
    return World(tmp_path / "world", kind, given == "pinned", way == "held")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A tree checked by path at the gate, for attacks where the way makes no difference."""
    monkeypatch.setenv("SEALFLOW_TMPDIR", str(tmp_path))
    return World(tmp_path / "world", "tree")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A file checked by path at the gate."""
    monkeypatch.setenv("SEALFLOW_TMPDIR", str(tmp_path))
    return World(tmp_path / "world", "file")


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of keys, for each signature that was checked under one."""
    checked: list[str] = []
    verifies = VerifierKey.verifies

    def counting(self: VerifierKey, text: bytes, signature: bytes) -> bool:
        checked.append(self.name)
        return verifies(self, text, signature)

    monkeypatch.setattr(VerifierKey, "verifies", counting)
    return checked
