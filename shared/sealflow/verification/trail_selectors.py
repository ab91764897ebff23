"""Which accesses to a bucket a trail of CloudTrail records, read so that a mistake can only be too few.

Source: AWS CloudTrail API Reference, ``EventSelector``, ``DataResource``, ``AdvancedFieldSelector``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

Kind = Literal["read", "write"]

_OBJECT: Final = "AWS::S3::Object"
#: What classic selectors write for each bucket of the account.
_ALL_BUCKETS: Final = frozenset({"arn:aws:s3", "arn:aws:s3:::"})


class Coverage(NamedTuple):
    """What selectors record of a place.

    Attributes:
        kinds: Kinds of accesses that are all recorded.
        unclear: Kinds that may be recorded, or in part.
    """

    kinds: frozenset[Kind]
    unclear: frozenset[Kind]


_BOTH: Final[frozenset[Kind]] = frozenset({"read", "write"})
_NONE: Final[frozenset[Kind]] = frozenset()
_CLASSIC: Final[dict[Any, frozenset[Kind]]] = {
    "All": _BOTH,
    "ReadOnly": frozenset({"read"}),
    "WriteOnly": frozenset({"write"}),
}


def coverage(selectors: Mapping[str, Any], target: str) -> Coverage:
    """Return what the selectors of a trail record of every object below a place.

    Args:
        selectors: Answer of ``get_event_selectors``.
        target: ARN of the bucket, a ``/`` and the key prefix.
    """
    kinds, unclear = _NONE, _NONE
    for name, one in (("EventSelectors", _classic), ("AdvancedEventSelectors", _advanced)):
        listed = selectors.get(name) or []
        if not isinstance(listed, list):
            return Coverage(_NONE, _BOTH)
        for item in listed:
            seen = one(item, target) if isinstance(item, Mapping) else Coverage(_NONE, _BOTH)
            kinds, unclear = kinds | seen.kinds, unclear | seen.unclear
    return Coverage(kinds, unclear - kinds)


def _classic(selector: Mapping[str, Any], target: str) -> Coverage:
    kinds = _CLASSIC.get(selector.get("ReadWriteType", "All"))
    resources = selector.get("DataResources") or []
    if kinds is None or not isinstance(resources, list):
        return Coverage(_NONE, _BOTH)
    bucket = target.partition("/")[0]
    partial = False
    for item in resources:
        if not isinstance(item, Mapping) or not isinstance(item.get("Values"), list):
            return Coverage(_NONE, kinds)
        if item.get("Type") != _OBJECT:
            continue
        for value in item["Values"]:
            if not isinstance(value, str):
                return Coverage(_NONE, kinds)
            everywhere = value in _ALL_BUCKETS or value == target.partition(":::")[0] + ":::"
            if everywhere or (value.startswith(f"{bucket}/") and target.startswith(value)):
                return Coverage(kinds, _NONE)
            partial = partial or value.startswith(target)
    return Coverage(_NONE, kinds if partial else _NONE)


def _advanced(selector: Mapping[str, Any], target: str) -> Coverage:
    fields = selector.get("FieldSelectors")
    if not isinstance(fields, list) or not all(isinstance(item, Mapping) for item in fields):
        return Coverage(_NONE, _BOTH)
    kinds, category, kind_of_resource, sure = _BOTH, False, False, True
    for item in fields:
        name = item.get("Field")
        conditions = {key: value for key, value in item.items() if key != "Field" and value not in (None, [])}
        only = conditions.get("Equals") if len(conditions) == 1 else None
        if name == "eventCategory":
            if only is not None and only != ["Data"]:
                return Coverage(_NONE, _NONE)
            category = only == ["Data"]
        elif name == "resources.type":
            if isinstance(only, list) and _OBJECT not in only:
                return Coverage(_NONE, _NONE)
            kind_of_resource = isinstance(only, list) and _OBJECT in only
        elif name == "readOnly" and only in (["true"], ["false"]):
            kinds = kinds & (frozenset({"read"}) if only == ["true"] else frozenset({"write"}))
        elif name == "resources.ARN":
            held = _holds(conditions, target)
            if held is False:
                return Coverage(_NONE, _NONE)
            sure = sure and held is True
        else:
            # It narrows what is recorded, and nobody knows by how much.
            sure = False
    if category and kind_of_resource and sure:
        return Coverage(kinds, _NONE)
    return Coverage(_NONE, kinds)


def _holds(conditions: Mapping[str, Any], target: str) -> bool | None:
    """Tell whether conditions on the ARN hold for all below a place, for nothing of it, or (``None``) for a part."""
    answers: list[bool | None] = []
    for operator, values in conditions.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            return None
        inside = any(value.startswith(target) for value in values)
        if operator == "StartsWith":
            answers.append(True if any(target.startswith(value) for value in values) else (None if inside else False))
        elif operator == "NotStartsWith":
            answers.append(False if any(target.startswith(value) for value in values) else (None if inside else True))
        elif operator == "Equals":
            answers.append(None if inside else False)
        elif operator == "NotEquals":
            answers.append(None if inside else True)
        else:
            answers.append(None)
    if False in answers:
        return False
    return None if None in answers else True
