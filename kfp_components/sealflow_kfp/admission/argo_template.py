"""What Argo tells its own program in a pod: the template, as JSON in a variable.

Its program does what stands there, before a task and after it: it brings files to any path that an artifact names, its
own program's among them, sends files away, and starts a command again. KFP uses none of that, so only what KFP
compiles is taken. Go reads names of members in any case, so whatever is not listed here word for word is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sealflow import strictjson
from sealflow.errors import EvidenceError
from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.shapes import shown

VARIABLE: Final = "ARGO_TEMPLATE"
#: Largest template in bytes; one that Argo leaves in a variable is a good deal smaller.
_MAX_TEMPLATE: Final = 1 << 20
#: Members of a template that has a container, and where logs go, which Argo fills in itself.
TEMPLATE_FIELDS: Final = shapes.POD_TEMPLATE_FIELDS | {"archiveLocation"}
#: Where logs may go: the stores that bring no program along.
LOCATION_FIELDS: Final = frozenset({"archiveLogs", "artifactory", "azure", "gcs", "oss", "s3"})
OUTPUT_FIELDS: Final = frozenset({"default", "description", "name", "value", "valueFrom"})
#: Where KFP's driver writes what it says.
OUTPUT_PATH: Final = r"/tmp/outputs/[A-Za-z0-9_-]{1,100}"  # noqa: S108 - a path in KFP's own pods
_OUTPUT_PATH = re.compile(OUTPUT_PATH)


def outputs_problem(outputs: Any, *, driver: bool) -> str:
    """Say what is wrong with the outputs of a template; empty for nothing.

    Args:
        outputs: They.
        driver: Whether it runs KFP's driver, the only one that says anything to Argo.
    """
    if not outputs:
        return ""
    parameters = shapes.objects(outputs.get("parameters")) if isinstance(outputs, dict) else None
    if parameters is None or outputs.keys() - {"parameters"}:
        return "Its outputs are not parameters alone."
    if parameters and not driver:
        return "It has outputs, which KFP gives to its driver alone."
    for item in parameters:
        source = item.get("valueFrom")
        path = source.get("path") if isinstance(source, dict) and not source.keys() - {"default", "path"} else None
        if item.keys() - OUTPUT_FIELDS or not isinstance(path, str) or _OUTPUT_PATH.fullmatch(path) is None:
            return f"Its output {shown(item.get('name'))} is not what KFP's driver writes at {shown(path)}."
    return ""


def _problem(text: str, *, driver: bool) -> str:
    try:
        body = strictjson.loads(text.encode("utf-8"), limit=_MAX_TEMPLATE, what="It")
    except EvidenceError:
        return "It is not written out as JSON."
    if not isinstance(body, dict):
        return "It is no object."
    more = sorted(body.keys() - TEMPLATE_FIELDS)
    if more:
        return f"KFP compiles no field {shown(more[0])}."
    inputs, location = body.get("inputs") or {}, body.get("archiveLocation") or {}
    if not isinstance(inputs, dict) or inputs.keys() - {"artifacts", "parameters"} or inputs.get("artifacts"):
        return "It brings artifacts into the pod."
    if not isinstance(location, dict) or location.keys() - LOCATION_FIELDS:
        return "It sends logs to a place of another kind."
    return outputs_problem(body.get("outputs"), driver=driver)


def judge_template(
    container: Mapping[str, Any], where: str, seen: Observations, *, required: bool, driver: bool
) -> None:
    """Judge the template that a container hands to Argo's program.

    Args:
        container: One of Argo's own, or the one that Argo's program starts.
        where: Its name for messages.
        seen: Takes what is found.
        required: Whether it has to have one; others read the file that Argo's first container wrote.
        driver: Whether the pod runs KFP's driver.
    """
    given = [item for item in shapes.objects(container.get("env")) or [] if item.get("name") == VARIABLE]
    if not given and not required:
        return
    text = given[0].get("value") if len(given) == 1 and given[0].keys() == {"name", "value"} else None
    problem = _problem(text, driver=driver) if isinstance(text, str) else "It is not there once, written out."
    if problem:
        seen.refuse(
            "MOUNT_REFUSED", where, f"What Argo's program is told ({VARIABLE}) is not a template of KFP's. {problem}",
            expected="the template as KFP compiles it, without artifacts, of less than 128 KiB",
            found=shown(text, 120),
        )  # fmt: skip
