"""What `[sealflow]` says about the gate, read once when a process starts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

#: What `[sealflow] gate` can be.
MODES: Final = ("off", "audit", "enforce")
_YES: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
_NO: Final = frozenset({"", "0", "f", "false", "n", "no", "off"})


@dataclass(frozen=True)
class GateSettings:
    """The gate's settings.

    Attributes:
        mode: ``off``, ``audit`` or ``enforce``.
        access_audit: Whether reads of connections, variables and XComs are recorded.
        stores: Evidence stores that references may name, beside those that are always read.
        problem: Why the options could not be taken as they stand; empty when they could.
    """

    mode: str = "off"
    access_audit: bool = False
    stores: tuple[str, ...] = ()
    problem: str = ""

    @property
    def needed(self) -> bool:
        """Whether there is anything to do."""
        return self.mode != "off" or self.access_audit


def option(name: str) -> str:
    """Return an option of ``[sealflow]``, empty without one.

    A percent sign stands for itself where nothing else can be meant: keys are named by URIs, which are full of them.
    """
    from configparser import InterpolationError, RawConfigParser

    from airflow.configuration import conf
    from airflow.exceptions import AirflowConfigException

    try:
        found = conf.get("sealflow", name, fallback="")
    except (InterpolationError, AirflowConfigException, ValueError):
        # Variables stand before the file here, too.
        found = os.environ.get(f"AIRFLOW__SEALFLOW__{name.upper()}") or RawConfigParser.get(
            conf, "sealflow", name, raw=True, fallback=""
        )
    return (found or "").strip()


def read_settings() -> GateSettings:
    """Return the settings. What cannot be read, or is misspelled, closes the gate: who set it wanted it."""
    try:
        texts = {name: option(name) for name in ("gate", "gate_access_audit", "gate_evidence_stores")}
    except Exception as error:
        return GateSettings("enforce", True, problem=f"[sealflow] cannot be read: {type(error).__name__}: {error}")
    mode, access = (texts["gate"] or "off").lower(), texts["gate_access_audit"].lower()
    problems = []
    if mode not in MODES:
        problems.append(f"gate is none of {', '.join(MODES)} and counts as enforce")
    if access not in _YES | _NO:
        problems.append("gate_access_audit is neither True nor False and counts as True")
    return GateSettings(
        mode if mode in MODES else "enforce",
        access not in _NO,
        tuple(filter(None, (item.strip() for item in re.split(r"[,\n]", texts["gate_evidence_stores"])))),
        "; ".join(problems),
    )
