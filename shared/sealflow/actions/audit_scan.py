"""Checks stretches of a log, some of them in processes of their own."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
from itertools import pairwise
from typing import Final

from sealflow.actions import processors
from sealflow.audit.log import FolderLog, LogStore, open_log
from sealflow.errors import UnavailableError
from sealflow.storage import Storages
from sealflow.verification.audit_log import Segment, bundles, scan
from sealflow.verification.vouching import Vouchers

# A process needs a quarter of a second to come up, in which another one checks this many entries.
_WORTH: Final = 100_000
# Requests to a store that is far away are sent so many at a time.
_AHEAD: Final = 16


def scan_all(log: LogStore, size: int, vouchers: Vouchers | None = None) -> list[Segment]:
    """Return the segments of a log, checked by as many processes as there are processors for.

    Args:
        log: The log.
        size: Its entries.
        vouchers: Who may vouch for writers.

    Raises:
        UnavailableError: The log cannot be read.
    """
    end = bundles(size)
    count = min(processors.usable(), size // _WORTH) if isinstance(log, FolderLog) and sys.executable else 1
    if count < 2:
        return [scan(log.get, size, 0, end, 0 if isinstance(log, FolderLog) else _AHEAD, vouchers=vouchers)]
    bounds = [end * number // count for number in range(count + 1)]
    command = [sys.executable, "-c", _begin(), log.uri, str(size)]
    others = [
        # Not a worker of multiprocessing: that would run the caller's own program once more.
        subprocess.Popen(  # noqa: S603 - ourselves
            [*command, str(first), str(last)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for first, last in pairwise(bounds[1:])
    ]
    try:
        for process in others:
            _tell(process, vouchers.to_json() if vouchers is not None else b"")
        segments = [scan(log.get, size, 0, bounds[1], vouchers=vouchers)]
        for process in others:
            data, _ = process.communicate()
            if process.returncode:
                raise UnavailableError("A process that was to check a part of the log failed.")
            segments.append(pickle.loads(data))  # noqa: S301 - our own process wrote it
    finally:
        for process in others:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    return segments


def _tell(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101
    # One that is dead already shows by its status.
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(data)
    process.stdin = None


def _begin() -> str:
    """Return the program of another process.

    Its modules are looked for where ours are. `-m` would look into the working folder first, and whoever verifies a log
    may well stand in it: then those who can write there would say what is found, and do it in the reviewer's name.
    """
    path = [item for item in sys.path if isinstance(item, str)]
    return f"import sys; sys.path[:] = {path!r}; from {__name__} import main; main(sys.argv[1:])"


def main(arguments: list[str]) -> None:
    """Check a stretch, and write what it came to."""
    uri, size, first, last = arguments
    told = sys.stdin.buffer.read()
    vouchers = Vouchers.parse(told) if told else None
    segment = scan(open_log(uri, Storages()).get, int(size), int(first), int(last), vouchers=vouchers)
    pickle.dump(segment, sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
