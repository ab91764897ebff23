"""Where Airflow's configuration of the trust policy is frozen, and where every task gets its guard.

Airflow imports this module while a process starts, through the entry point ``airflow.policy``, and that is before any
DAG file runs in it. What ``[sealflow]`` says about the policy is read then and never again: a DAG that changes the
environment or the configuration afterwards changes nothing here. Importing it never raises, since that would keep
Airflow from starting; what cannot be read is a policy that is not to be had.

Airflow calls the two hooks for each DAG file that it parses: in the DAG processor, and again in the process of every
task. Without a policy they do nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealflow.policy.source import AdminChannel, BrokenChannel

#: Options of ``[sealflow]`` and the members of :class:`~sealflow.policy.source.AdminChannel` that they set.
OPTIONS: Final = MappingProxyType(
    {
        "policy": "policy",
        "policy_keys": "keys",
        "policy_minimum_version": "minimum_version",
        "policy_managed": "managed",
        "policy_revocations": "revocations",
        "policy_revocations_minimum_version": "revocations_minimum_version",
        "policy_waivers": "waivers",
        "policy_waiver_keys": "waiver_keys",
        "policy_state": "state",
    }
)

#: Commands of Airflow whose process tasks are forked from.
_FORKS: Final = frozenset({"scheduler", "celery", "edge"})
#: What a guard loads in its task.
LOADED_AHEAD: Final = (
    "sealflow.actions.audit_level",
    "sealflow.actions.guarding",
    "sealflow.keys.file",
    "sealflow.policy.compose",
    "sealflow.policy.document",
    "sealflow.policy.source",
    "sealflow_airflow.aws",
    "sealflow_airflow.guard",
    "sealflow_airflow.hooks.sealflow",
    "sealflow_airflow.outcome",
    "sealflow_airflow.run_context",
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
    if member.endswith("minimum_version"):
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


def configured() -> bool:
    """Tell whether an admin has configured a policy, for Airflow or for this machine."""
    return bool(_FROZEN) or _machine_file()


def _hook(function: Callable[..., None]) -> Callable[..., None]:
    try:
        from airflow.policies import hookimpl
    except Exception:
        # Then nobody asks for hooks.
        return function
    # Last, so that no other policy takes the guard off again.
    marked: Callable[..., None] = hookimpl(trylast=True)(function)
    return marked


@_hook
def dag_policy(dag: Any) -> None:
    """Refuse a DAG of which nobody can guard what it reads and makes; see :mod:`sealflow_airflow.refusing`."""
    if configured():
        from sealflow_airflow.refusing import refuse_unguardable

        refuse_unguardable(dag)


@_hook
def task_policy(task: Any) -> None:
    """Put the guard in front of a task's work; see :mod:`sealflow_airflow.guard`."""
    if configured():
        from sealflow_airflow.refusing import put_guard

        put_guard(task)


def _machine_file() -> bool:
    try:
        from sealflow.policy.channel import ENVIRONMENT_FILE, MACHINE_FILE, is_there

        return any(map(is_there, (MACHINE_FILE, os.path.join(sys.prefix, ENVIRONMENT_FILE))))
    except Exception:
        # The core is broken, so nobody can tell; what is then configured for Airflow alone still counts.
        return False


def _load_ahead() -> None:
    """Load what guards need in processes that tasks are forked from: each task would spend half a second on it."""
    if _FORKS.intersection(sys.argv[1:2]) and configured():
        from importlib import import_module

        # What is broken is said by the task that needs it.
        with contextlib.suppress(Exception):
            for name in LOADED_AHEAD:
                import_module(name)


def _be_registered() -> None:
    """Have Airflow see the hooks, where importing this module is what started Airflow.

    Then Airflow has registered this module while it was half loaded, without a hook, and says nothing of it.
    """
    # An Airflow that cannot start asks for no hooks.
    with contextlib.suppress(Exception):
        manager, here = sys.modules["airflow.settings"].get_policy_plugin_manager(), sys.modules[__name__]
        name = manager.get_name(here)
        if name is not None and not manager.get_hookcallers(here):
            manager.unregister(here)
            manager.register(here, name)


_FROZEN: Final = _freeze()
_be_registered()
_load_ahead()
