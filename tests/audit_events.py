"""For tests: what lies in an audit spool."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sealflow.audit import spool
from sealflow.audit.entry import Entry
from sealflow.audit.writer import Writer
from sealflow.run_identity import RunIdentity


def entries(folder: str | os.PathLike[str]) -> list[Entry]:
    """Return all entries in a spool, chain by chain; each chain must be sound."""
    found: list[Entry] = []
    for writer in spool.writers(str(folder)):
        with spool.opened(str(folder), writer) as chain:
            assert chain is not None
            assert chain.problem is None, chain.problem
            found += chain.entries
    return found


def read_events(folder: str | os.PathLike[str], *, ends: bool = False) -> list[dict[str, Any]]:
    """Return the events in a spool by time, without those that end chains."""
    events = [json.loads(entry.event) for entry in entries(folder)]
    kept = [event for event in events if ends or event["phase"] != "end"]
    # Chains of different runs are in no order but that of their clocks, which all run in this machine.
    return sorted(kept, key=lambda event: event["time"])


def spooled(folder: str | os.PathLike[str]) -> Writer:
    """Return an audit sink that writes to a spool."""
    return Writer(RunIdentity(), spool=str(Path(folder)))
