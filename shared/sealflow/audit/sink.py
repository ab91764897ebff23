"""Where audit events go. A sink returns only when the event would survive a crash."""

from __future__ import annotations

import fcntl
import os
from typing import Protocol

from sealflow.audit.event import AuditEvent
from sealflow.errors import UnavailableError
from sealflow.findings import printable


class AuditSink(Protocol):
    """Takes audit events."""

    def record(self, event: AuditEvent) -> None:
        """Make the event durable.

        Raises:
            UnavailableError: It could not be made durable; the action must not go on.
        """


class JsonLinesSink:
    """Appends events to a file of JSON lines, fsynced one by one; safe for many processes at once.

    Args:
        path: The file; its folder is made when missing.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def record(self, event: AuditEvent) -> None:
        """See :class:`AuditSink`."""
        line = event.to_json() + b"\n"
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                size = os.fstat(fd).st_size
                # A writer that died in the middle left a line without its end; close it, so that this one stays whole.
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    line = b"\n" + line
                written = os.write(fd, line)
                if written != len(line):
                    os.ftruncate(fd, size)
                    raise OSError("the disk is full")
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise UnavailableError(
                f"The audit log {printable(self.path)} cannot be written: {error.strerror or error}.",
                code="AUDIT_UNAVAILABLE",
                next_step="Give this process a writable audit log (`audit_log`, SEALFLOW_AUDIT_LOG).",
            ) from None


def default_path() -> str:
    """Return ``$XDG_STATE_HOME/sealflow/audit.jsonl``."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "sealflow", "audit.jsonl")
