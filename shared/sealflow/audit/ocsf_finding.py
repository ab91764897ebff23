"""A refusal as an OCSF 1.8 event of the class Detection Finding (2004), for whoever is on call.

The audit log's events are API activity (6003, :mod:`sealflow.audit.ocsf`): everything that was done. This is the one
thing that somebody has to look at: https://schema.ocsf.io/1.8.0/classes/detection_finding.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Final

from sealflow._version import __version__
from sealflow.audit.ocsf import VERSION
from sealflow.findings import CODES, printable
from sealflow.hashing import sha256_hex
from sealflow.run_identity import RunIdentity

CLASS_UID: Final = 2004
_CATEGORY_UID: Final = 2
_CREATE: Final = 1
_NEW: Final = 1
_HIGH: Final = 4
_MAX_CODES: Final = 100


def refusal_finding(
    run: RunIdentity,
    codes: Sequence[str],
    message: str,
    *,
    artifact: str = "",
    digest: str = "",
    policy: str = "",
    now: datetime.datetime,
) -> dict[str, Any]:
    """Return the finding that a task was refused an artifact.

    Its uid follows from the attempt, the artifact and the codes: the same refusal told twice is one finding.

    Args:
        run: The attempt that was refused.
        codes: Finding codes, the deciding ones first.
        message: One or two sentences.
        artifact: Location without credentials.
        digest: Artifact digest, empty where unknown.
        policy: Digest of the policy that decided.
        now: Present time, aware.
    """
    codes = tuple(dict.fromkeys(codes))[:_MAX_CODES] or ("REFUSED",)
    uid = sha256_hex("\0".join((run.invocation, artifact, digest, *codes)).encode("utf-8", "replace"))
    first = CODES.get(codes[0])
    resource = {"name": printable(artifact, 2048), "uid": digest or printable(artifact, 2048), "type": "artifact"}
    return {
        "activity_id": _CREATE,
        "activity_name": "Create",
        "category_uid": _CATEGORY_UID,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + _CREATE,
        "type_name": "Detection Finding: Create",
        "severity_id": _HIGH,
        "severity": "High",
        "status_id": _NEW,
        "status": "New",
        "status_code": codes[0],
        "time": int(now.timestamp() * 1000),
        "message": printable(message, 2048),
        "finding_info": {
            "uid": uid,
            "title": f"{codes[0]}: {printable(artifact or run.producer, 200)} was refused",
            "desc": printable(message, 2048),
            "types": list(codes),
            "analytic": {"type_id": 1, "type": "Rule", "name": codes[0], "uid": policy or "sealflow"},
        },
        "is_alert": True,
        **({"resources": [resource]} if artifact else {}),
        **({"remediation": {"desc": first.next_step}} if first is not None and first.next_step else {}),
        "metadata": {
            "version": VERSION,
            "product": {"name": "sealflow", "vendor_name": "sealflow", "version": __version__},
            "uid": uid,
            "log_provider": "sealflow",
        },
        "unmapped": {"sealflow": {"run": run.invocation, "producer": run.producer, "codes": list(codes)}},
    }
