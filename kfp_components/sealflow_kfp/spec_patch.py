"""The spec patch: what KFP's API server merges into every Workflow that it makes, so that every pod has the guard.

``COMPILED_PIPELINE_SPEC_PATCH`` (KFP 2.15 and later) is merged into Argo's ``WorkflowSpec``. The one member that is set
here is ``podSpecPatch``, which Argo applies to each pod of the Workflow; names of templates differ from pipeline to
pipeline, and a patch of a template that is not there would make one.

It brings the guard directory, settings, keys and policy into the pods. It cannot put the guard before a command: a
strategic merge replaces a list of arguments as a whole. That is the hardener's work, or the admission server's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError, UsageError
from sealflow.findings import printable
from sealflow_kfp.admission.variables import NAMED
from sealflow_kfp.guard_command import GuardMounts, has_digest
from sealflow_kfp.guard_directory import ADMITTED

#: The environment variable of the API server.
VARIABLE: Final = "COMPILED_PIPELINE_SPEC_PATCH"
#: What Argo calls the container that runs a task.
_MAIN: Final = "main"
#: The longest value that one variable of a process can have is shorter (``MAX_ARG_STRLEN``).
MAX_PATCH: Final = 128 << 10
#: What the patch names itself, as somebody reads it back from one.
_OWN: Final = frozenset((str(item["name"]), "") for item in NAMED)
_SECRET = re.compile(r"KEY_ID|ACCESS_KEY|TOKEN$")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")


def mounts(image: str, *, secret: str = "", policy_config_map: str = "", allow_tag: bool = False) -> GuardMounts:
    """Return what the pods get.

    Args:
        image: The guard image, by digest.
        secret: Secret with settings and keys, in each namespace that runs pipelines; empty for none.
        policy_config_map: Config map with the admin's file; empty for none.
        allow_tag: Take an image that is named by a tag.

    Raises:
        UsageError: The image is none, or named by a tag alone.
    """
    if _IMAGE.fullmatch(image) is None:
        raise UsageError(f"{printable(image, 120)!r} is no name of an image.")
    if "@" in image or not allow_tag:
        _require_digest(image)
    return GuardMounts(image, secret, policy_config_map)


def _require_digest(image: str) -> None:
    if not has_digest(image):
        raise UsageError(
            f"The guard image {printable(image, 120)} is not named by digest.",
            next_step="Name it NAME@sha256:…; behind a tag lies what somebody pushed last, and every task runs it.",
        )


def patch(given: GuardMounts, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the patch of a WorkflowSpec.

    Args:
        given: What the pods get.
        environment: Variables of the tasks' containers, of those that the guard hears.

    Raises:
        UsageError: The guard does not hear a variable, or it would be a secret in clear.
    """
    return {"podSpecPatch": strictjson.dumps(pod_patch(given, environment)).decode("utf-8")}


def pod_patch(given: GuardMounts, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the patch of a PodSpec, a strategic merge; see :func:`patch`."""
    asked = sorted((environment or {}).items())
    heard = [{"name": name, "value": _heard(name, value)} for name, value in asked if (name, value) not in _OWN]
    main: dict[str, Any] = {
        "name": _MAIN,
        "env": [dict(item) for item in NAMED] + heard,
        # KFP takes all variables of a config map, and arguments could be hidden in it: those that it reads stand above.
        "envFrom": [],
        "volumeMounts": given.volume_mounts(),
    }
    return {"containers": [main], "initContainers": [given.init_container()], "volumes": given.volumes()}


def _heard(name: str, value: str) -> str:
    if name not in ADMITTED:
        raise UsageError(
            f"The guard does not hear the variable {printable(name, 80)}.",
            next_step="Settings are mounted; of variables it hears those that say how to reach a store.",
        )
    if _SECRET.search(name):
        raise UsageError(
            f"{name} would stand in clear in every pod.",
            next_step="Give the service account of the pipelines a role, or mount what is secret.",
        )
    if "{{" in value or any(ord(sign) < 32 for sign in value):
        raise UsageError(f"The value of {name} holds what Argo or Kubernetes would put something else for.")
    return value


def to_text(given: GuardMounts, environment: Mapping[str, str] | None = None, onto: bytes | None = None) -> str:
    """Return the value of :data:`VARIABLE`: one line of JSON, the same for the same arguments.

    Args:
        given: What the pods get.
        environment: As for :func:`patch`.
        onto: The value that the variable has so far; what it says is kept.

    Raises:
        UsageError: As :func:`patch`; or the value so far patches pods, too, or is no JSON object.
    """
    found: dict[str, Any] = {}
    if onto is not None:
        try:
            found = strictjson.loads(onto, limit=MAX_PATCH, what="The patch so far")
        except EvidenceError as error:
            raise UsageError(error.message) from None
        if not isinstance(found, dict):
            raise UsageError("The patch so far is no JSON object.")
        before = found.get("podSpecPatch")
        if before not in (None, "", patch(given, environment)["podSpecPatch"]):
            raise UsageError(
                "The patch so far has a podSpecPatch of its own.",
                next_step="Take it out, and merge by hand what it says with what this command gives.",
            )
    return strictjson.dumps({**found, **patch(given, environment)}).decode("utf-8")
