"""The strings that runs are compared by."""

from __future__ import annotations

import pytest

from sealflow.run_identity import RunIdentity, without_attempt


@pytest.mark.parametrize("run", ["r", "manual__#1", "r#2#3", "#", "r#\n"])
@pytest.mark.parametrize("map_index", [None, 4])
def test_attempts_of_one_run_and_of_no_other_have_one_name(run: str, map_index: int | None) -> None:
    one, two = (RunIdentity("airflow", "dag", "task#1", run, map_index, attempt).invocation for attempt in (1, 22))
    assert without_attempt(one) == without_attempt(two) == one.removesuffix("#1")
    other = RunIdentity("airflow", "dag", "task#1", f"{run}x", map_index, 1).invocation
    assert without_attempt(other) != without_attempt(one)
    # A run whose id differs behind the sign is another one.
    assert without_attempt(RunIdentity("airflow", "d", "t", "a#1", None, 1).invocation) != without_attempt(
        RunIdentity("airflow", "d", "t", "a#2", None, 1).invocation
    )
