"""What Airflow's database says of a DAG: which assets its tasks read and make, and whether a guard can stand there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from sealflow.errors import SealflowError
from sealflow_airflow.refusing import STUB_MODULE


def out_of_reach(task: Any) -> bool:
    """Tell whether a stored task is of a kind that is refused while the guard is loaded."""
    module = str(getattr(task, "_task_module", None) or getattr(task, "task_module", ""))
    return module == STUB_MODULE or any(
        getattr(task, name, False) for name in ("start_from_trigger", "end_from_trigger")
    )


def assets(task: Any) -> Iterator[str]:
    """Yield the locations of a stored task's inlets and outlets."""
    for listed in (task.inlets or (), task.outlets or ()):
        # Airflow leaves those of mapped tasks as they stand in the database, or as their author wrote them.
        yield from _uris(listed if isinstance(listed, (list, tuple)) else [listed])


def _uris(items: Iterable[Any]) -> Iterator[str]:
    for item in items:
        encoded = item.get("__var", item) if isinstance(item, dict) else None
        member = encoded.get if isinstance(encoded, dict) else partial(getattr, item)
        # Those of a condition.
        yield from _uris(member("objects", None) or ())
        if uri := member("uri", None):
            yield str(uri)


def managed_level(uri: str, in_force: Any) -> str:
    """Return how the rules that name an asset are meant: ``enforce``, ``audit``, or empty where none names it.

    Args:
        uri: The asset's location.
        in_force: The policy in force; without one to ask, the channel, which says what is refused meanwhile.
    """
    from sealflow.actions.policies import places_of
    from sealflow.policy.compose import concerns
    from sealflow.policy.source import AdminChannel, InForce
    from sealflow.storage import Storages

    try:
        places = places_of(Storages().for_uri(uri).canonical(uri))
    except SealflowError:
        return ""
    if isinstance(in_force, InForce):
        levels = {rule.rule.level for rule in in_force.policy.rules if concerns(rule.places, places)}
        return "enforce" if "enforce" in levels else "audit" if "audit" in levels else ""
    return "enforce" if not isinstance(in_force, AdminChannel) or in_force.manages(places) else ""
