"""What a hardener says about its work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sealflow.findings import printable

#: Codes of gaps, and what each means.
GAPS: Final = {
    "ENTRYPOINT_UNKNOWN": "The executor has no command; what its image runs cannot be put behind the wrapper.",
    "EXECUTOR_UNKNOWN": "The executor is neither a container nor an importer.",
    "LIFECYCLE_HOOK": "The container runs a command of its own before the cache is asked.",
    "IMPORTER": "No command of the task runs in KFP's own image, so nothing is verified there.",
    "OCI_INPUT": "The artifact lies in an image that the cluster mounts.",
    "WORKSPACE": "Tasks share a volume on which each can change what another reads.",
    "RUNTIME_INSTALL": "The task installs packages while it runs: code that nobody signed.",
    "INSTALL_REMOVED": "The task no longer installs packages when it runs; its image has to hold them.",
    "PROGRAM_VARIABLE": "An environment variable changes the programs, certificates or folders that the wrapper uses.",
    "PROGRAM_VOLUME": "A volume lies over programs or private copies, and its writers can change them.",
    "SAME_NAME": "Several tasks have one name in the places of outputs, and what one makes passes as the other's.",
    "LOOP": "What one iteration of a loop makes passes where another iteration's is expected.",
    "GUARD_DIRECTORY": "Tasks start from the guard directory, which the cluster mounts; without it none starts.",
    "LARGE_INPUT": "What KFP hands to the task may be longer than one argument can be (131,071 bytes).",
    "OTHER_RELEASE": "It has the name of a component of sealflow's, but not its source; it is wrapped like any other.",
}
#: What leaves a task unguarded. Everything else is judged by the guard of the task that reads it.
UNGUARDED: Final = frozenset({"ENTRYPOINT_UNKNOWN", "EXECUTOR_UNKNOWN", "LIFECYCLE_HOOK"})


@dataclass(frozen=True, order=True)
class Gap:
    """Something that the hardener could not cover.

    Attributes:
        code: A key of :data:`GAPS`.
        where: The executor or task.
        message: One sentence.
        next_step: What the reader can do.
    """

    code: str
    where: str
    message: str
    next_step: str = ""

    @property
    def unguarded(self) -> bool:
        """Whether a task would run without a guard."""
        return self.code in UNGUARDED

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "code": self.code,
            "where": printable(self.where),
            "unguarded": self.unguarded,
            "message": self.message,
            "next_step": self.next_step,
        }


@dataclass
class Report:
    """What was done to one pipeline.

    Attributes:
        pipeline: Its name.
        tasks: How many tasks of containers there are, those of shared parts counted each time.
        wrapped: Labels of the executors that run behind the wrapper.
        own: Labels of the executors that are components of sealflow's and check for themselves.
        gaps: What could not be covered.
        renamed: Tasks that had another one's name: the path that each had, and its name now.
    """

    pipeline: str
    tasks: int = 0
    wrapped: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    gaps: set[Gap] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)

    def unguarded(self) -> Iterator[Gap]:
        """Yield the gaps that leave a task unguarded."""
        return (gap for gap in sorted(self.gaps) if gap.unguarded)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "pipeline": printable(self.pipeline),
            "tasks": self.tasks,
            "wrapped": sorted(map(printable, self.wrapped)),
            "own": sorted(map(printable, self.own)),
            "renamed": {printable(path): printable(name) for path, name in self.renamed.items()},
            "gaps": [gap.as_dict() for gap in sorted(self.gaps)],
        }
