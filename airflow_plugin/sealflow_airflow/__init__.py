"""sealflow for Apache Airflow.

Names are loaded when they are first used, so that importing the package costs a DAG file nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealflow_airflow.decorators.sealed import sealed_task
    from sealflow_airflow.hooks.sealflow import SealflowHook
    from sealflow_airflow.operators.access_audit import AccessAuditOperator
    from sealflow_airflow.operators.audit import IntegrateAuditLogOperator
    from sealflow_airflow.operators.lineage import DvcLineageCheckOperator
    from sealflow_airflow.operators.posture import CheckPostureOperator
    from sealflow_airflow.operators.promote import PromoteArtifactOperator
    from sealflow_airflow.operators.sign import SignArtifactOperator
    from sealflow_airflow.operators.transfer import EncryptedDownloadOperator, EncryptedUploadOperator
    from sealflow_airflow.operators.verify import VerifyArtifactOperator

_WHERE = {
    "AccessAuditOperator": "sealflow_airflow.operators.access_audit",
    "CheckPostureOperator": "sealflow_airflow.operators.posture",
    "DvcLineageCheckOperator": "sealflow_airflow.operators.lineage",
    "EncryptedDownloadOperator": "sealflow_airflow.operators.transfer",
    "EncryptedUploadOperator": "sealflow_airflow.operators.transfer",
    "IntegrateAuditLogOperator": "sealflow_airflow.operators.audit",
    "PromoteArtifactOperator": "sealflow_airflow.operators.promote",
    "SealflowHook": "sealflow_airflow.hooks.sealflow",
    "SignArtifactOperator": "sealflow_airflow.operators.sign",
    "VerifyArtifactOperator": "sealflow_airflow.operators.verify",
    "sealed_task": "sealflow_airflow.decorators.sealed",
}

__all__ = [
    "AccessAuditOperator",
    "CheckPostureOperator",
    "DvcLineageCheckOperator",
    "EncryptedDownloadOperator",
    "EncryptedUploadOperator",
    "IntegrateAuditLogOperator",
    "PromoteArtifactOperator",
    "SealflowHook",
    "SignArtifactOperator",
    "VerifyArtifactOperator",
    "sealed_task",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'sealflow_airflow' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
