"""What an author tries in vain, and what this ring cannot know: the rest of the threat model's table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.airflow.home import AirflowHome, Run, statements
from tests.airflow.test_guard_runs import Guarded

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAGS = Path(__file__).parent / "guard_limits"


@pytest.fixture(scope="module")
def limits(airflow_home: AirflowHome) -> tuple[Guarded, dict[str, Run]]:
    guarded = Guarded(airflow_home, "limits")
    names = ("limits_made", "limits_hidden", "limits_used")
    return guarded, {name: guarded.run(name, AIRFLOW__CORE__DAGS_FOLDER=str(DAGS)) for name in names}


def producers(guarded: Guarded, name: str) -> set[str]:
    found = [
        statement["predicate"]["buildDefinition"]["externalParameters"]["producer"]
        for statement in statements(guarded.folder / "models" / f"{name}.evidence")
        if "buildDefinition" in statement["predicate"]
    ]
    return set(found)


def test_dag_file_that_empties_the_options_is_guarded_all_the_same(limits: tuple[Guarded, dict[str, Run]]):
    guarded, runs = limits
    assert set(runs["limits_made"].states.values()) == {"success"}, runs["limits_made"].output
    assert producers(guarded, "own") == {"airflow:limits_made/own"}


def test_operator_that_lets_nobody_set_its_hooks_is_guarded(limits: tuple[Guarded, dict[str, Run]]):
    guarded, runs = limits
    assert producers(guarded, "no_hooks") == {"airflow:limits_made/no_hooks"}
    assert runs["limits_used"].states["no_hooks"] == "success", runs["limits_used"].output


def test_extra_for_an_asset_that_a_task_does_not_make_is_dropped(limits: tuple[Guarded, dict[str, Run]]):
    guarded, _ = limits
    query = "SELECT count(*) FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name = ?"
    emitted = {name: guarded.home.rows(query, f"limit-limits-{name}")[0][0] for name in ("own", "foreign")}
    assert emitted == {"own": 1, "foreign": 0}


def test_tasks_that_are_hidden_from_policies_are_not_guarded_and_refused_where_used(
    limits: tuple[Guarded, dict[str, Run]],
):
    """Nothing in the author's own process can hold him; whoever uses what he made can tell."""
    guarded, runs = limits
    assert runs["limits_hidden"].states == {"hidden": "success"}, runs["limits_hidden"].output
    assert producers(guarded, "hidden") == set()
    used = runs["limits_used"]
    assert (used.states["hidden"], used.tries["hidden"]) == ("failed", 1), used.output
    assert used.failed_with("hidden", "EVIDENCE_MISSING"), used.output


def test_false_bytes_are_signed_in_the_name_of_who_made_them(limits: tuple[Guarded, dict[str, Run]]):
    """A signature says who, not that it is good."""
    guarded, runs = limits
    assert runs["limits_used"].states["false"] == "success", runs["limits_used"].output
    assert producers(guarded, "false") == {"airflow:limits_made/false"}


def test_what_is_put_back_before_the_task_ends_is_not_seen(limits: tuple[Guarded, dict[str, Run]]):
    """A task gets a path; who needs the very bytes that were checked opens them with `sealflow.verified`."""
    used = limits[1]["limits_used"]
    assert used.states["put_back"] == "success", used.output
    assert used.xcoms["put_back", "return_value"] == "poison!"
