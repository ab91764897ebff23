"""What most tests of policies start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sealflow.policy.source import forget
from tests.core.policy.deployment import Deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    forget()
    yield Deployment(tmp_path / "deployment")
    forget()
