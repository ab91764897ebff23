"""What stands in front of every task's ``execute`` where a policy is configured.

Attributes of a task object are no part of the DAG that Airflow stores, so no DAG gets a new version by these, whatever
becomes of the code behind them. They load that code when the task runs, and never while a file is parsed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

#: Methods of an operator in which its work is done: at first, and after a trigger woke it up.
WORK: Final = ("execute", "resume_execution")


def execute(context: Context) -> Any:
    """Stand in for a task's ``execute``."""
    # Airflow runs a copy of the task that we were put on, with its templates rendered.
    live = context["task"]
    return _guarded(context, live, lambda: type(live).execute(live, context))


def resume_execution(next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
    """Stand in for a task's ``resume_execution``."""
    live = context["task"]
    return _guarded(context, live, lambda: type(live).resume_execution(live, next_method, next_kwargs, context))


class _Work:
    """Stands before one of the methods of an operator's class.

    Setting the attribute replaces the work and not the guard: operators may do so while they are made.
    """

    def __init__(self, operator: type[BaseOperator], name: str) -> None:
        self._operator, self._name = operator, name

    def __get__(self, task: Any, owner: Any = None) -> Any:
        if task is None:
            return getattr(self._operator, self._name)

        def run(*args: Any, **kwargs: Any) -> Any:
            own = vars(task).get(self._name)
            work = own or partial(getattr(self._operator, self._name), task)
            return _guarded(
                kwargs["context"] if "context" in kwargs else args[-1], task, partial(work, *args, **kwargs)
            )

        return run

    def __set__(self, task: Any, value: Any) -> None:
        vars(task)[self._name] = value


#: Classes that were made here; what a class says of itself is its author's word.
_made: WeakSet[type] = WeakSet()


@lru_cache(maxsize=1024)
def guarded_class(operator: type[BaseOperator]) -> type[BaseOperator]:
    """Return an operator's class with guarded work, for tasks that are made only when they run (mapped ones).

    It has the operator's name and module, which are part of the stored DAG.
    """
    if operator in _made:
        return operator
    members = {
        "__module__": operator.__module__,
        "__qualname__": operator.__qualname__,
        "__doc__": operator.__doc__,
    }
    made: type[BaseOperator] = type(operator)(operator.__name__, (operator,), members)
    for name in WORK:
        # Last, so that nothing which runs when a class is made has the last word.
        type.__setattr__(made, name, _Work(operator, name))
    _made.add(made)
    return made


def stands_before(operator: type) -> bool:
    """Tell whether a class is one whose work is guarded."""
    return operator in _made


def _guarded(context: Context, task: BaseOperator, work: Callable[[], Any]) -> Any:
    from sealflow_airflow.assets import inlets_of

    concerned = bool(task.outlets) or any(True for _ in inlets_of(task))
    try:
        from sealflow_airflow.guard import guarded

        if concerned:
            # The guard loads it behind its first steps, and what it needs is what an installation can lack.
            import_module("sealflow.actions.guarding")
    except Exception as error:
        # A broken installation must not stop what has nothing to do with it, and must not let pass what has.
        if not concerned:
            return work()
        from airflow.sdk.exceptions import AirflowException

        raise AirflowException(
            f"A sealflow policy is configured, and sealflow cannot be loaded here ({type(error).__name__}: {error}). "
            "Nothing was run. Repair the installation on this worker."
        ) from error
    return guarded(context, task, work)
