"""PipelineVersions, KFP's stored pipelines: always taken, since runs may do without; their authors are told."""

from __future__ import annotations

from typing import Any

from sealflow_kfp import guard_command
from sealflow_kfp.admission import shapes
from sealflow_kfp.admission.implementations import image_problem, is_own
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.settings import STUB_IMAGES, Settings
from sealflow_kfp.admission.shapes import shown
from sealflow_kfp.hardening import installs


def judge_pipeline_version(body: Any, settings: Settings, seen: Observations) -> None:
    """Say what admission will do to the runs of a pipeline, and what cannot be guarded."""
    spec = body.get("spec") if isinstance(body, dict) else None
    pipeline = spec.get("pipelineSpec") if isinstance(spec, dict) else None
    if not isinstance(pipeline, dict):
        seen.warn("WORKFLOW_REFUSED", "", "It holds no pipeline, so nothing can be said of its runs.")
        return
    deployment = pipeline.get("deploymentSpec")
    executors = deployment.get("executors") if isinstance(deployment, dict) else None
    unguarded = 0
    for label, executor in sorted(executors.items()) if isinstance(executors, dict) else ():
        if not isinstance(executor, dict):
            continue
        where = f"executor {shown(label)}"
        if "importer" in executor:
            seen.warn("TASK_NOT_GUARDABLE", where, "KFP's launcher imports it; no command runs that could be guarded.")
        container = executor.get("container")
        if isinstance(container, dict):
            unguarded += _judge_container(container, where, settings, seen)
    if unguarded and len(seen.kept) < 100:
        seen.warn(
            "TASK_UNGUARDED", "", f"Admission puts {unguarded} of its commands under the guard when it runs, "
            "and turns caching off; `sealflow kfp harden` says today what that changes.",
        )  # fmt: skip


def _judge_container(container: dict[str, Any], where: str, settings: Settings, seen: Observations) -> int:
    """Return whether admission will have to put the command under the guard."""
    command, args = shapes.texts(container.get("command")) or [], shapes.texts(container.get("args")) or []
    image = container.get("image")
    if not isinstance(image, str) or image in STUB_IMAGES:
        return 0
    problem = image_problem(image, settings) if "{{" not in image else None
    if problem is not None:
        code, message = problem
        refused = code != "IMAGE_NOT_PINNED" or settings.images.digests == "required"
        seen.warn(code, where, f"{message} Its runs will be refused." if refused else message)
    if packages := installs.installed(command, where):
        seen.warn(
            "TASK_NOT_GUARDABLE", where,
            f"It installs {', '.join(map(str, packages[:5]))} while it runs; the guard cannot know what comes.",
        )  # fmt: skip
    guarded = guard_command.is_guarded(command) is not None
    return 0 if guarded or is_own(command, args, image, settings) else 1
