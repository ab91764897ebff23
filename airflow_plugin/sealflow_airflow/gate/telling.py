"""For which assets Airflow would write an event, mirrored from ``TaskInstance.register_asset_changes_in_db``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from sealflow_airflow.gate.database import AssetKey, Task, resolve
from sealflow_airflow.gate.messages import Success
from sealflow_airflow.guard import REFERENCE

#: Code and sentence where nothing is told of an outlet.
SILENT: Final = ("OUTLET_UNSIGNED", "The task has succeeded and tells nothing of an outlet that its DAG declares.")


class Told(NamedTuple):
    """An event that Airflow would write."""

    key: AssetKey
    extra: Mapping[str, Any]
    declared: bool


def told(task: Task, report: Success) -> Iterator[Told]:
    """Yield the events that Airflow would write for a message."""
    by_key: dict[AssetKey, list[Mapping[str, Any]]] = {}
    for event in report.events:
        if event.alias is None:
            by_key.setdefault(AssetKey(event.name, event.uri), []).append(event.extra)
    assets = {
        AssetKey(item.name, item.uri) for item in report.outlets if item.type == "Asset" and item.name and item.uri
    }
    names = {item.name for item in report.outlets if item.type == "AssetNameRef" and item.name}
    uris = {item.uri for item in report.outlets if item.type == "AssetUriRef" and item.uri}
    if names or uris:
        # In Airflow, too, one look-up serves both.
        assets.update(resolve(names, uris))
    for key in sorted(assets):
        for extra in by_key.get(key) or [{}]:
            yield Told(key, extra, task.declares(key))
    aliases = {item.name for item in report.outlets if item.type == "AssetAlias" and item.name}
    for event in report.events:
        if event.alias is not None and event.alias in aliases:
            yield Told(AssetKey(event.name, event.uri), event.extra, task.declares_alias(event.alias))


def plainly_wrong(event: Told) -> tuple[str, str] | None:
    """Return code and sentence of what is wrong with an event whatever evidence there is."""
    if not event.declared:
        return "OUTLET_UNDECLARED", "The task tells of an outlet that its DAG does not declare."
    if event.extra.get(REFERENCE) is None:
        return "OUTLET_UNSIGNED", "The task tells of an outlet without a reference to signed bytes."
    return None
