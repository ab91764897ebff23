"""Audit: every action says durably what it is about to do with a key, and what came of it."""

from sealflow.audit.event import AuditEvent
from sealflow.audit.sink import AuditSink, JsonLinesSink, default_path

__all__ = ["AuditEvent", "AuditSink", "JsonLinesSink", "default_path"]
