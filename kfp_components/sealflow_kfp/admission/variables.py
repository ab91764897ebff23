"""Environment variables that a task may not bring along."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.shapes import shown
from sealflow_kfp.guard_directory import ADMITTED

# SEALFLOW_… are settings, which come by mounts alone; the others put a library into every program that is started.
# What else an image or a task sets (PATH, PYTHON…, LD_LIBRARY_PATH) the guard's own program does not hear.
_REFUSED = re.compile(r"SEALFLOW_.*|LD_PRELOAD|LD_AUDIT|ARGO_DEBUG_.*", re.IGNORECASE)


#: Variables of KFP's and Argo's own programs: what KFP, Argo, the cluster and clouds write, and what a spec patch may
#: bring. Others could name a program or a file to them (PATH, KUBECONFIG, AWS_CONFIG_FILE).
PROGRAM_PATTERN: Final = r"ARGO_[A-Z0-9_]+|KFP_[A-Z0-9_]+|TRACEPARENT|TRACESTATE|GODEBUG"
PROGRAM_VARIABLES: Final = frozenset(name for name in ADMITTED if not name.startswith("SEALFLOW_")) | {
    "AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID",
    "METADATA_GRPC_SERVICE_HOST", "METADATA_GRPC_SERVICE_PORT",
}  # fmt: skip
_PROGRAM = re.compile(PROGRAM_PATTERN)
#: The one config map that KFP gives as variables to tasks and imports. Whoever may write it could put any variable into
#: it (``ARGO_CONTAINER_ARGS_FILE``, ``PATH``), so the two that KFP reads are named in its place.
SOURCE: Final = {"configMapRef": {"name": "metadata-grpc-configmap", "optional": True}}
NAMED: Final = tuple(
    {
        "name": name,
        "valueFrom": {"configMapKeyRef": {"key": name, "name": "metadata-grpc-configmap", "optional": True}},
    }
    for name in ("METADATA_GRPC_SERVICE_HOST", "METADATA_GRPC_SERVICE_PORT")
)


def check_sources(container: Mapping[str, Any], where: str, seen: Observations) -> None:
    """Refuse variables that nobody sees at admission."""
    if container.get("envFrom"):
        seen.refuse(
            "VARIABLE_REFUSED", where, "It takes variables from where nobody can see them at admission (envFrom).",
            expected="none, as the admission server and the spec patch leave it",
            found=shown(container["envFrom"], 120),
        )  # fmt: skip


def check_program_variables(container: Mapping[str, Any], more: frozenset[str], where: str, seen: Observations) -> None:
    """Refuse variables of KFP's or Argo's own programs that neither writes.

    Args:
        container: It.
        more: Further names, of the settings.
        where: Its name for messages.
        seen: Takes what is found.
    """
    for item in shapes.objects(container.get("env")) or []:
        name = shapes.name_of(item)
        if name not in PROGRAM_VARIABLES and name not in more and _PROGRAM.fullmatch(name) is None:
            seen.refuse(
                "VARIABLE_REFUSED", where, f"Neither KFP nor Argo gives its program the variable {shown(name)}.",
                rule="kubeflow.variables",
            )  # fmt: skip


def check_variable(name: Any, where: str, seen: Observations) -> None:
    """Refuse one variable that would change the guard, or how Argo starts it."""
    if not isinstance(name, str) or not name:
        seen.refuse("VARIABLE_REFUSED", where, "It sets a variable without a name.")
    elif name == shapes.HIDDEN_ARGUMENTS:
        seen.refuse(
            "ARGUMENTS_HIDDEN", where, "Its arguments come from a config map, where nobody can see them at admission.",
            expected="arguments in the pod", found=shown(name),
        )  # fmt: skip
    elif _REFUSED.fullmatch(name) is not None:
        seen.refuse("VARIABLE_REFUSED", where, f"It sets the variable {shown(name)}.")
