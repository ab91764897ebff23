"""Audit events as OCSF 1.8 events of the class API Activity (6003), for SIEMs.

Field names, numbers and required members: https://schema.ocsf.io/1.8.0/classes/api_activity. ``src_endpoint``, which
the class requires, is the machine or pod that the event names; where it names none, the attempt that ran there.
``metadata`` and ``unmapped`` say where in the log the event stands and what its leaf hashes to.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Final

from sealflow._version import __version__
from sealflow.audit.entry import Entry
from sealflow.audit.event import AuditEvent

VERSION: Final = "1.8.0"
CLASS_UID: Final = 6003
_CATEGORY_UID: Final = 6

_CREATE, _READ, _UPDATE, _OTHER = 1, 2, 3, 99
_ACTIVITY_NAMES: Final = {_CREATE: "Create", _READ: "Read", _UPDATE: "Update", _OTHER: "Other"}
_ACTIVITIES: Final = {
    "adopt": _CREATE,
    "promote": _CREATE,
    "re-sign": _CREATE,
    "sign": _CREATE,
    "sign_lineage": _CREATE,
    "summarize": _CREATE,
    "upload": _CREATE,
    "audit-review": _READ,
    "blast-radius": _READ,
    "check_lineage": _READ,
    "descendants": _READ,
    "download": _READ,
    "read": _READ,
    "trace": _READ,
    "verify": _READ,
    "change-recipients": _UPDATE,
    "pause": _UPDATE,
    "quarantine": _UPDATE,
    "revoke": _UPDATE,
}
#: Informational, and medium for what was refused: whoever gets the event decides what it means there.
_SEVERITIES: Final = {"failed": (3, "Medium"), "unverifiable": (2, "Low"), "error": (2, "Low")}
_STATUSES: Final = {"done": (1, "Success"), "passed": (1, "Success"), "": (0, "Unknown")}

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)


def to_ocsf(
    entry: Entry, event: AuditEvent, index: int, origin: str, said: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return an event in OCSF's form.

    Args:
        entry: The entry of the log that holds it.
        event: What stands in it.
        index: The entry's number in the log.
        origin: The log's name.
        said: Whether somebody vouches for who the event says it is of, as an export says it; without, it is a claim.
            Stands in ``unmapped``, and in short among ``metadata.labels``.
    """
    said = said or {"who": "claimed"}
    activity = _ACTIVITIES.get(event.action, _OTHER)
    severity, severity_name = _SEVERITIES.get(event.outcome, (1, "Informational"))
    status, status_name = _STATUSES.get(event.outcome, (2, "Failure"))
    run = event.run
    body: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": _ACTIVITY_NAMES[activity],
        "category_uid": _CATEGORY_UID,
        "category_name": "Application Activity",
        "class_uid": CLASS_UID,
        "class_name": "API Activity",
        "type_uid": CLASS_UID * 100 + activity,
        "type_name": f"API Activity: {_ACTIVITY_NAMES[activity]}",
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": status_name,
        "time": (datetime.datetime.fromisoformat(event.time) - _EPOCH) // datetime.timedelta(milliseconds=1),
        "actor": _without_empty(
            {
                "app_name": run.orchestrator,
                "app_uid": run.producer,
                "invoked_by": event.claims.get("triggered_by", ""),
                "session": {"uid": run.invocation},
            }
        ),
        "api": {
            "operation": event.action,
            "service": {"name": "sealflow"},
            "request": {"uid": event.correlation},
        },
        "src_endpoint": _without_empty(
            {"hostname": event.host, "instance_uid": run.instance, "name": event.host or run.invocation}
        ),
        "metadata": {
            "version": VERSION,
            "product": {"name": "sealflow", "vendor_name": "sealflow", "version": __version__},
            "uid": event.id,
            "correlation_uid": event.correlation,
            "log_name": origin,
            "log_provider": "sealflow",
            "log_version": "sealflow-audit/v1",
            "sequence": index,
            "original_time": event.time,
            "labels": [f"who: {said['who']}"],
        },
        "unmapped": {
            "sealflow": {
                "log": origin,
                "index": index,
                "leaf_hash": entry.hash,
                "writer": entry.writer,
                "n": entry.n,
                **said,
                "event": event.as_dict(),
            }
        },
    }
    if event.outcome:
        body["status_detail"] = ", ".join((event.outcome, *event.codes))
    if event.codes:
        body["status_code"] = event.codes[0]
    if event.artifact:
        resource = {"name": event.artifact, "uid": event.digest or event.artifact, "type": "artifact"}
        body["resources"] = [_without_empty({**resource, "version": event.version})]
    return body


def malformed_to_ocsf(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands for an entry whose event could not be read.

    Args:
        found: ``log``, ``index``, ``leaf_hash`` and ``malformed``, which says why.
    """
    return {
        "activity_id": 0,
        "activity_name": "Unknown",
        "category_uid": _CATEGORY_UID,
        "class_uid": CLASS_UID,
        "type_uid": CLASS_UID * 100,
        "severity_id": 4,
        "severity": "High",
        "status_id": 0,
        "status": "Unknown",
        "status_code": "AUDIT_MALFORMED",
        "status_detail": found["malformed"],
        # Nobody knows when, or who.
        "time": 0,
        "actor": {"app_name": "unknown"},
        "api": {"operation": "unknown", "service": {"name": "sealflow"}},
        "src_endpoint": {"name": "unknown"},
        "metadata": {
            "version": VERSION,
            "product": {"name": "sealflow", "vendor_name": "sealflow", "version": __version__},
            "log_name": found["log"],
            "sequence": found["index"],
        },
        "unmapped": {"sealflow": dict(found)},
    }


def _without_empty(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value}
