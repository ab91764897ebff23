"""Environment variables that a task may not bring along."""

from __future__ import annotations

import re
from typing import Any

from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.shapes import shown

# SEALFLOW_… are settings, which come by mounts alone; the others put a library into every program that is started.
# What else an image or a task sets (PATH, PYTHON…, LD_LIBRARY_PATH) the guard's own program does not hear.
_REFUSED = re.compile(r"SEALFLOW_.*|LD_PRELOAD|LD_AUDIT|ARGO_DEBUG_.*", re.IGNORECASE)


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
