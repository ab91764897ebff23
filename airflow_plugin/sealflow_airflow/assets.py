"""Where the assets of a task lie, as our storages write it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/@]*)@")


class Place(NamedTuple):
    """Where an asset lies.

    Attributes:
        uri: Its location, or whatever its author calls it by.
        name: Its name where that is not its uri.
        conn_id: The connection that its author names before an ``@``.
    """

    uri: str
    name: str | None = None
    conn_id: str | None = None

    @classmethod
    def parse(cls, uri: str, name: str | None = None) -> Place:
        """Return the place of an asset's uri, such as ``s3://aws_default@bucket/key``."""
        named = name if name and name != uri else None
        match = _USER.match(uri)
        if match is None:
            return cls(uri, named)
        # A rule is about a place, whoever opens it.
        return cls(match[1] + uri[match.end() :], named, match[2].partition(":")[0] or None)


def each(items: Any) -> Iterator[Any]:
    """Yield what a task lists, and of conditions (``a & b``, ``a | b``, ``@asset.multi``) each asset that they name.

    Args:
        items: Inlets or outlets. Airflow leaves those of a mapped task as their author wrote them.
    """
    if not items:
        return
    from airflow.sdk.definitions.asset import BaseAsset

    for item in (items,) if isinstance(items, (BaseAsset, str)) else items:
        objects = getattr(item, "objects", None) if isinstance(item, BaseAsset) else None
        if objects is None:
            yield item
        else:
            yield from each(objects)


def inlets_of(task: Any) -> Iterator[Any]:
    """Yield what a task reads: its inlets, and the assets among the arguments of a decorated function.

    Airflow makes inlets of the latter only while the task runs.

    Args:
        task: An operator, or a mapped one, of which the arguments that are not mapped are known.
    """
    yield from each(task.inlets)
    decorator = sys.modules.get("airflow.sdk.bases.decorator")
    kind = task.operator_class if getattr(task, "is_mapped", False) else type(task)
    if decorator is None or not isinstance(kind, type) or not issubclass(kind, decorator.DecoratedOperator):
        return
    from airflow.sdk.definitions.asset import Asset

    given = getattr(task, "partial_kwargs", None) or vars(task)
    arguments = (*(given.get("op_args") or ()), *(given.get("op_kwargs") or {}).values())
    yield from (item for item in arguments if isinstance(item, Asset))


def place_of(item: Any, *, ask: bool = False) -> Place | None:
    """Return the place of an inlet or outlet, ``None`` where it is no asset with a place, or nobody was asked for it.

    Args:
        item: What a task lists.
        ask: Whether to ask Airflow's API server where an asset lies that is given by its name.
    """
    from airflow.sdk.definitions.asset import Asset, AssetNameRef, AssetUriRef

    if isinstance(item, Asset):
        return Place.parse(item.uri, item.name)
    if isinstance(item, AssetUriRef):
        return Place.parse(item.uri)
    if isinstance(item, AssetNameRef) and ask:
        from airflow.sdk.execution_time.context import OutletEventAccessors

        # Not in the task's own: there it would leave the trace of an outlet.
        key = OutletEventAccessors()[item].key
        return Place.parse(key.uri, key.name)
    return None


def alias_name(item: Any) -> str | None:
    """Return the name of an asset alias, ``None`` for anything else."""
    from airflow.sdk.definitions.asset import AssetAlias

    return item.name if isinstance(item, AssetAlias) else None
