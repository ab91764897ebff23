"""Where audit events go. A sink returns only when the event is durable."""

from __future__ import annotations

from typing import Protocol

from sealflow.audit.event import AuditEvent


class AuditSink(Protocol):
    """Takes audit events."""

    def record(self, event: AuditEvent) -> None:
        """Make the event durable.

        Raises:
            UnavailableError: It could not be made durable; the action must not go on.
        """
