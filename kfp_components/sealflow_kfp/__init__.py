"""sealflow for Kubeflow Pipelines: components that sign, verify, move and check artifacts, and helpers for task bodies.

    >>> import sealflow_kfp
    >>> signed = sealflow_kfp.sign_artifact(artifact=train.outputs["model"])          # doctest: +SKIP
    >>> sealflow_kfp.verify_artifact(                                                  # doctest: +SKIP
    ...     artifact=train.outputs["model"], evidence=signed.outputs["evidence"]
    ... )

Names are loaded when they are first used: importing ``kfp`` takes seconds, and only components need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sealflow_kfp._image import default_image
    from sealflow_kfp._mount import mount
    from sealflow_kfp.components import (
        Components,
        audit_access,
        check_dvc_lineage,
        check_posture,
        encrypted_download,
        encrypted_upload,
        integrate_audit_log,
        make_components,
        promote_artifact,
        respond_to_refusal,
        sign_artifact,
        verified_import,
        verify_artifact,
    )
    from sealflow_kfp.hardening import harden
    from sealflow_kfp.task_body import sign_output, verified_input

_WHERE = {
    "Components": "sealflow_kfp.components",
    "audit_access": "sealflow_kfp.components",
    "check_dvc_lineage": "sealflow_kfp.components",
    "check_posture": "sealflow_kfp.components",
    "default_image": "sealflow_kfp._image",
    "encrypted_download": "sealflow_kfp.components",
    "encrypted_upload": "sealflow_kfp.components",
    "harden": "sealflow_kfp.hardening",
    "integrate_audit_log": "sealflow_kfp.components",
    "make_components": "sealflow_kfp.components",
    "mount": "sealflow_kfp._mount",
    "promote_artifact": "sealflow_kfp.components",
    "respond_to_refusal": "sealflow_kfp.components",
    "sign_artifact": "sealflow_kfp.components",
    "sign_output": "sealflow_kfp.task_body",
    "verified_import": "sealflow_kfp.components",
    "verified_input": "sealflow_kfp.task_body",
    "verify_artifact": "sealflow_kfp.components",
}

__all__ = [
    "Components",
    "audit_access",
    "check_dvc_lineage",
    "check_posture",
    "default_image",
    "encrypted_download",
    "encrypted_upload",
    "harden",
    "integrate_audit_log",
    "make_components",
    "mount",
    "promote_artifact",
    "respond_to_refusal",
    "sign_artifact",
    "sign_output",
    "verified_import",
    "verified_input",
    "verify_artifact",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'sealflow_kfp' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
