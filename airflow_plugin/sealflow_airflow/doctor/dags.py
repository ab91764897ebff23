"""Whether the guard stands before tasks, and which stored tasks with managed assets it cannot stand before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sealflow_airflow.doctor.configured import in_force_here
from sealflow_airflow.doctor.report import Line
from sealflow_airflow.stored import assets, managed_level, out_of_reach

#: Most tasks that are named.
MAX_LISTED: Final = 100


def unguarded(same: dict[str, str]) -> Iterator[Line]:
    """See that the guard is put before tasks, and name those in Airflow's database of kinds that are refused for it."""
    from airflow.models.serialized_dag import SerializedDagModel
    from sqlalchemy.exc import SQLAlchemyError

    expected = "a guard before every task with managed assets"
    in_force = in_force_here()
    if in_force is None:
        yield Line("unguarded tasks", "note", expected, "without a policy nothing is managed")
        return
    problem = _without_guard()
    if problem:
        hint = "Repair the installation in this process, and restart it."
        yield Line("unguarded tasks", "fault", expected, problem, hint)
        return
    try:
        kept = SerializedDagModel.read_all_dags()
    except SQLAlchemyError as error:
        # As it should be on a worker.
        text = f"Airflow's database is not to be had here ({type(error).__name__})"
        yield Line("unguarded tasks", "ok", expected, f"the guard is put before every task; {text}")
        return
    found, counted = [], 0
    for dag in kept.values():
        for task in dag.task_dict.values():
            counted += 1
            uris = sorted({uri for uri in assets(task) if managed_level(uri, in_force)})
            if uris and out_of_reach(task):
                found.append(f"{dag.dag_id}/{task.task_id} ({', '.join(uris[:3])})")
    for text in found[:MAX_LISTED]:
        yield Line(
            "unguarded tasks",
            "warning",
            expected,
            f"{text}: it is stored as of a kind that no guard can be put before",
            "See that the DAG processor loads the guard, too; it refuses such a DAG.",
        )
    if len(found) > MAX_LISTED:
        yield Line("unguarded tasks", "warning", expected, f"{len(found) - MAX_LISTED} more", "Repair those first.")
    if not found:
        yield Line("unguarded tasks", "ok", expected, f"none among {counted} tasks of the database")


def _without_guard() -> str:
    """Put the guard before tasks of our own as Airflow would; return what is wrong, empty when it stands there."""
    from airflow.sdk import DAG, BaseOperator
    from airflow.settings import get_policy_plugin_manager

    from sealflow_airflow import policy, stub

    if not get_policy_plugin_manager().is_registered(policy):
        return "the policy module is not among Airflow's policies, so no guard is put before tasks"

    try:
        import sealflow_airflow.guard  # noqa: F401

        with DAG("sealflow_doctor"):
            plain, mapped = BaseOperator(task_id="plain"), BaseOperator.partial(task_id="mapped").expand_kwargs([{}])
        policy.task_policy(plain)
        policy.task_policy(mapped)
    except Exception as error:
        return f"the guard cannot be put before a task ({type(error).__name__}: {error})"
    if not policy.configured():
        return "this process started without a policy, so it guards no task"
    if plain.execute is not stub.execute or not stub.stands_before(mapped.operator_class):
        return "the policy module is loaded, and no guard stands before a task"
    return ""
