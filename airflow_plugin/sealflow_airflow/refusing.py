"""Guards are put on tasks here, and DAGs are refused of which nobody could guard what they read and make.

Called while a DAG file is parsed, so nothing of the core is loaded unless a DAG holds something that cannot be guarded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from sealflow_airflow import stub
from sealflow_airflow.assets import each, inlets_of, place_of

if TYPE_CHECKING:
    from airflow.sdk import DAG

#: Where tasks are made that another language does.
STUB_MODULE: Final = "airflow.providers.standard.decorators.stub"

_log = logging.getLogger(__name__)


def put_guard(task: Any) -> None:
    """Put the guard in front of a task's work.

    Args:
        task: An operator, or a mapped one, whose operators are made when they run.
    """
    operator = _mapped(task)
    if operator is not None:
        if isinstance(operator, type):
            task.operator_class = stub.guarded_class(operator)
        return
    for name in stub.WORK:
        if name not in vars(task):
            # What keeps us out was refused with its DAG, where it concerns a managed artifact.
            _set(task, name, getattr(stub, name))


def refuse_unguardable(dag: DAG) -> None:
    """Refuse a DAG that has a task which cannot be guarded and reads or makes a managed artifact.

    Raises:
        AirflowClusterPolicyViolation: Says of each such task why, and what to do.
    """
    said, audited = [], []
    for what, why, assets in _unguardable(dag, _all_tasks(dag)):
        concern = _concern(assets, dag)
        if concern:
            (said if concern == "enforced" else audited).append(f"{what} {why}")
    about = f"sealflow cannot guard the DAG {dag.dag_id!r}, which reads or makes managed artifacts."
    if audited:
        _log.warning("%s The rules are only audited; enforced, they would refuse it. %s", about, " ".join(audited))
    if said:
        from airflow.exceptions import AirflowClusterPolicyViolation

        raise AirflowClusterPolicyViolation(f"{about} {' '.join(said)}")


def _all_tasks(dag: DAG) -> dict[str, Any]:
    # Whatever the DAG's class says about them: this is where Airflow looks a task up to run it.
    found: Mapping[str, Any] = getattr(dag, "task_dict", None) or {}
    return dict(found)


def _unguardable(dag: DAG, tasks: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield whom, why and which assets it concerns."""
    shown = {task.task_id for task in dag.tasks}
    for task_id, task in tasks.items():
        assets = [*inlets_of(task), *each(task.outlets)]
        if not assets:
            continue
        what = f"Task {task_id!r}:"
        if task_id not in shown:
            yield what, "the DAG's class hides it from policies. Use a plain DAG.", assets
        for why in _reasons(task):
            yield what, why, assets


def _reasons(task: Any) -> Iterator[str]:
    operator = _mapped(task)
    kind = operator if isinstance(operator, type) else type(task)
    if _flag(task, "end_from_trigger"):
        yield "it ends in the triggerer, where nothing is signed. Set end_from_trigger=False."
    elif _flag(task, "start_from_trigger"):
        yield "its trigger starts before anything is verified. Set start_from_trigger=False."
    if any(item.__module__ == STUB_MODULE for item in kind.__mro__):
        yield (
            "it runs outside of Python, where no guard is. Sign and verify there with `sealflow sign` and "
            "`sealflow verify`, and declare the asset at a Python task beside it."
        )
    elif operator is None:
        for name in stub.WORK:
            own = vars(task).get(name)
            if own is not None and own is not getattr(stub, name):
                yield f"it brings its own `{name}`. Put it into the operator's class."
            elif own is None and not _takes(task, name):
                yield f"its class lets nobody set `{name}`. Define it as a plain method."


def _mapped(task: Any) -> Any:
    """Return the class whose operators a mapped task makes, ``None`` for any other task."""
    return task.operator_class if getattr(task, "is_mapped", False) else None


def _flag(task: Any, name: str) -> bool:
    operator = _mapped(task)
    given = (getattr(task, "partial_kwargs", None) or {}).get(name)
    return bool(getattr(task, name, False) or given or getattr(operator, name, False))


def _takes(task: Any, name: str) -> bool:
    if not _set(task, name, getattr(stub, name)):
        return False
    # A class can answer with something else than what was set.
    return getattr(task, name, None) is getattr(stub, name)


def _set(task: Any, name: str, value: Any) -> bool:
    try:
        setattr(task, name, value)
    except Exception:
        return False
    return True


def _concern(assets: Iterable[Any], dag: DAG) -> str:
    """Tell whether rules about one of the assets are ``enforced`` or ``audited``, empty where nobody manages any.

    If nobody can tell, they are enforced.
    """
    found = ""
    try:
        import sealflow
        from sealflow.actions.guarding import managed
        from sealflow.run_identity import RunIdentity

        with sealflow.run(sealflow.Surroundings(RunIdentity("airflow", dag.dag_id))):
            for item in assets:
                if _only_a_run_tells(item):
                    return "enforced"
                place = place_of(item)
                known = None if place is None else managed(place.uri)
                if known is not None and known.enforced:
                    return "enforced"
                found = found or ("audited" if known is not None else "")
    except Exception:
        return "enforced"
    return found


def _only_a_run_tells(item: Any) -> bool:
    from airflow.sdk.definitions.asset import AssetAlias, AssetNameRef

    return isinstance(item, (AssetAlias, AssetNameRef))
