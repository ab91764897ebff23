"""Who is running: the identity that provenance and audit events carry.

An orchestrator package tells the core (:mod:`sealflow.actions.context`); the core itself knows no orchestrator. What
stands here is what the task process knows of itself: a signature over it proves that this worker held the key, not that
the author was honest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

Orchestrator = Literal["airflow", "kfp", "python", "cli"]

#: Builder ids name the place where a signature is made; a place with other security has another id and other keys.
BUILDER_IDS: Final[dict[str, str]] = {
    "airflow": "urn:sealflow:builder:airflow-task-process:v1",
    "kfp": "urn:sealflow:builder:kfp-task-process:v1",
    "python": "urn:sealflow:builder:python-process:v1",
    "cli": "urn:sealflow:builder:command-line:v1",
}

#: Says that somebody took an artifact over that existed before; who or what made it nobody knows.
ADOPTED_BUILDER: Final = "urn:sealflow:builder:adopted:v1"

# At the end alone: names and run ids may hold the sign as well.
_ATTEMPT: Final = re.compile(r"#[0-9]+\Z")


def without_attempt(invocation: str) -> str:
    """Return an invocation without the number of its attempt: what all attempts of a run have in common."""
    return _ATTEMPT.sub("", invocation)


@dataclass(frozen=True)
class RunIdentity:
    """One run of one task.

    Attributes:
        orchestrator: Where it runs.
        workflow: DAG id or pipeline name.
        task: Task id or task name.
        run: Run id.
        map_index: Index of a mapped task, ``None`` when not mapped.
        attempt: Number of the try, from 1; ``None`` when unknown.
        instance: The orchestrator's id of this attempt (task instance UUID, pod name), empty when unknown.
        team: Airflow team or DAG bundle, KFP namespace; empty when unknown.
        builder: SLSA ``builder.id`` where it is not that of the orchestrator's task process.
    """

    orchestrator: Orchestrator = "python"
    workflow: str = ""
    task: str = ""
    run: str = ""
    map_index: int | None = None
    attempt: int | None = None
    instance: str = ""
    team: str = ""
    builder: str = ""

    @property
    def producer(self) -> str:
        """``airflow:<dag>/<task>``, ``kfp:<pipeline>/<task>``, ``python`` or ``cli``: stable over runs, for rules."""
        return f"{self.orchestrator}:{self.workflow}/{self.task}" if self.workflow else self.orchestrator

    @property
    def invocation(self) -> str:
        """One string for one attempt, for SLSA's ``invocationId``."""
        if not self.run:
            return self.producer
        text = f"{self.producer}/{self.run}"
        if self.map_index is not None:
            text += f"/{self.map_index}"
        return text if self.attempt is None else f"{text}#{self.attempt}"

    @property
    def builder_id(self) -> str:
        """SLSA ``builder.id`` of signatures made in this process."""
        return self.builder or BUILDER_IDS[self.orchestrator]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; unknown members are left out."""
        members = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "builder"}
        return {name: value for name, value in members.items() if value not in (None, "")}
