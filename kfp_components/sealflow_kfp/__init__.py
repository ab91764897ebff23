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
        check_dvc_lineage,
        encrypted_download,
        encrypted_upload,
        make_components,
        promote_artifact,
        sign_artifact,
        verify_artifact,
    )
    from sealflow_kfp.task_body import sign_output, verified_input

_WHERE = {
    "Components": "sealflow_kfp.components",
    "check_dvc_lineage": "sealflow_kfp.components",
    "default_image": "sealflow_kfp._image",
    "encrypted_download": "sealflow_kfp.components",
    "encrypted_upload": "sealflow_kfp.components",
    "make_components": "sealflow_kfp.components",
    "mount": "sealflow_kfp._mount",
    "promote_artifact": "sealflow_kfp.components",
    "sign_artifact": "sealflow_kfp.components",
    "sign_output": "sealflow_kfp.task_body",
    "verified_input": "sealflow_kfp.task_body",
    "verify_artifact": "sealflow_kfp.components",
}

__all__ = [
    "Components",
    "check_dvc_lineage",
    "default_image",
    "encrypted_download",
    "encrypted_upload",
    "make_components",
    "mount",
    "promote_artifact",
    "sign_artifact",
    "sign_output",
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
