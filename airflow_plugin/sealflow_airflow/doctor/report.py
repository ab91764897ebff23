"""What a check says, and how two processes are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from sealflow import strictjson
from sealflow.errors import EXIT_OK, EXIT_REFUSED_EVIDENCE, EXIT_UNVERIFIABLE, EvidenceError, UsageError
from sealflow.findings import printable

State = Literal["ok", "note", "warning", "fault", "unknown"]

#: What stands instead of keys where there are none, as there should be none where no task runs.
NO_KEYS: Final = "none here"

_MAX_REPORT: Final = 1 << 20


@dataclass(frozen=True)
class Line:
    """What one check found.

    Attributes:
        check: Name of the check.
        state: ``fault``: it is wrong; ``unknown``: nobody can say; ``warning``: it may be meant so.
        expected: What should be there.
        found: What is there.
        next_step: What the reader can do; empty where nothing is to be done.
    """

    check: str
    state: State
    expected: str
    found: str
    next_step: str = ""


@dataclass(frozen=True)
class Report:
    """All lines, and what has to be the same in all processes.

    Attributes:
        lines: The lines.
        same: What to compare between processes.
        host: Name of the machine.
    """

    lines: tuple[Line, ...]
    same: Mapping[str, str]
    host: str

    @property
    def exit_status(self) -> int:
        """3 for a fault, 5 if nobody can say whether there is one, 0 otherwise."""
        states = {line.state for line in self.lines}
        return EXIT_REFUSED_EVIDENCE if "fault" in states else EXIT_UNVERIFIABLE if "unknown" in states else EXIT_OK

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON knows it."""
        lines = [{name: printable(text, 2000) for name, text in asdict(line).items()} for line in self.lines]
        return {"host": self.host, "ok": self.exit_status == EXIT_OK, "same": dict(self.same), "lines": lines}


def compared(path: str, same: Mapping[str, str]) -> Iterator[Line]:
    """Compare with the report of another process.

    Args:
        path: A file with that report, in JSON.
        same: What has to be the same, as this process has it.

    Raises:
        UsageError: The file holds no report.
    """
    try:
        with open(path, "rb") as file:
            body = strictjson.loads(file.read(_MAX_REPORT + 1), limit=_MAX_REPORT, what="The report")
        other, host = (
            strictjson.member(body, "same", dict, "The report"),
            strictjson.member(body, "host", str, "The report"),
        )
    except OSError as error:
        raise UsageError(f"{printable(path)} cannot be read: {error.strerror}.") from None
    except EvidenceError as error:
        raise UsageError(
            f"{printable(path)} is no report. {error.message}",
            next_step="Make one there: airflow sealflow doctor --json > report.json",
        ) from None
    for name in sorted(same.keys() | other.keys()):
        here, there = same.get(name, "nothing"), str(other.get(name, "nothing"))
        expected = f"{name} as on {printable(host, 100)}: {there}"
        if here == there:
            yield Line("compared", "ok", expected, here)
        elif NO_KEYS in (here, there):
            yield Line("compared", "note", expected, f"{here}; to be compared where tasks run")
        else:
            yield Line("compared", "fault", expected, here, "Give both processes the same installation and options.")
