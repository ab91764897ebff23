"""Audit: every action says durably what it is about to do with a key, and what came of it.

``event`` is what is said; ``entry`` makes it a signed link of its writer's chain; ``spool`` and ``inbox`` keep it;
``writer`` brings it there.
"""

from sealflow.audit.event import AuditEvent
from sealflow.audit.sink import AuditSink

__all__ = ["AuditEvent", "AuditSink"]
