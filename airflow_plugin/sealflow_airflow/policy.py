"""Where Airflow's configuration of the trust policy is frozen.

Airflow imports this module while a process starts, through the entry point ``airflow.policy``, and that is before any
DAG file runs in it. What ``[sealflow]`` says about the policy is read then and never again: a DAG that changes the
environment or the configuration afterwards changes nothing here. Importing it never raises, since that would keep
Airflow from starting; what cannot be read is a policy that is not to be had.
"""

from __future__ import annotations

import functools
import os
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealflow.policy.source import AdminChannel, BrokenChannel

#: Options of ``[sealflow]`` and the members of :class:`~sealflow.policy.source.AdminChannel` that they set.
OPTIONS: Final = MappingProxyType(
    {
        "policy": "policy",
        "policy_keys": "keys",
        "policy_minimum_version": "minimum_version",
        "policy_managed": "managed",
        "policy_waivers": "waivers",
        "policy_waiver_keys": "waiver_keys",
        "policy_state": "state",
    }
)

_LISTS: Final = frozenset({"keys", "managed", "waiver_keys"})
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@functools.cache
def channel() -> AdminChannel | BrokenChannel | None:
    """Return the admin's channel as it was configured when this process started, ``None`` where none was."""
    if not _FROZEN:
        return None
    from sealflow.errors import SealflowError, UsageError
    from sealflow.policy.source import AdminChannel, BrokenChannel

    try:
        if isinstance(_FROZEN, str):
            raise UsageError(f"Airflow's configuration cannot be read: {_FROZEN}")
        return AdminChannel.parse(_FROZEN, "[sealflow] in Airflow's configuration")
    except SealflowError as error:
        return BrokenChannel(error)


def _freeze() -> Mapping[str, Any] | str:
    """Return the members of the channel, or why they cannot be read."""
    try:
        from airflow.configuration import AIRFLOW_HOME, conf

        texts = {option: (conf.get("sealflow", option, fallback="") or "").strip() for option in OPTIONS}
        members = {OPTIONS[option]: _value(OPTIONS[option], text) for option, text in texts.items() if text}
        if members:
            members.setdefault("state", _anchored(os.path.join(AIRFLOW_HOME, "sealflow", "policy")))
        return MappingProxyType(members)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _value(member: str, text: str) -> Any:
    if member == "minimum_version":
        return int(text) if text.isdecimal() else text
    if member in _LISTS:
        items = [item.strip() for item in re.split(r"[,\n]", text)]
        return tuple(item if member == "managed" else _anchored(item) for item in items if item)
    return _anchored(text)


def _anchored(place: str) -> str:
    # A relative path or a home folder would mean another place after a DAG has changed directory or HOME.
    if place.startswith("file:") and not place.startswith("file:/"):
        return "file:" + os.path.abspath(place.removeprefix("file:"))
    return place if _SCHEME.match(place) else os.path.abspath(os.path.expanduser(place))


_FROZEN: Final = _freeze()
