"""The implementations in a Workflow's parameters: where KFP writes what each task runs, and where the guard goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sealflow.errors import EvidenceError, SealflowError
from sealflow_kfp import guard_command
from sealflow_kfp.admission import quickjson, shapes
from sealflow_kfp.admission.mounts import GUARDED, may_lie, overlap, settled
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.settings import STUB_IMAGES, Settings
from sealflow_kfp.admission.shapes import shown
from sealflow_kfp.admission.variables import check_variable
from sealflow_kfp.hardening.commands import own_component, unmarked
from sealflow_kfp.hardening.platform import check_variables, check_volumes

#: Largest text of one parameter in bytes.
MAX_PARAMETER: Final = 1 << 20

#: Most guards before one command that are taken for a pipeline that went through the hardener more than once.
_MOST_GUARDS: Final = 3

#: Volumes of a platform part that begin empty.
_EMPTY: Final = ("emptyDirMounts", "empty_dir_mounts")
#: What an implementation is of: a task with a command, or an import.
TASK: Final = "task"
IMPORTER: Final = "importer"


def image_problem(image: str, settings: Settings) -> tuple[str, str] | None:
    """Return the code and the sentence for an image that a task may not have, ``None`` for one that it may."""
    rules = settings.images
    if rules.repositories and not image.startswith(rules.repositories):
        return "IMAGE_NOT_ALLOWED", f"The image {shown(image, 200)} lies in no repository that the settings name."
    if not guard_command.has_digest(image):
        return "IMAGE_NOT_PINNED", f"The image {shown(image, 200)} is named by a tag, which can be moved."
    return None


def judge_image(image: str, where: str, settings: Settings, seen: Observations) -> None:
    """Refuse an image that a task may not have."""
    problem = image_problem(image, settings)
    if problem is None:
        return
    code, message = problem
    if code == "IMAGE_NOT_PINNED" and settings.images.digests == "advised":
        seen.warn(code, where, message)
        return
    rule = "images.digests" if code == "IMAGE_NOT_PINNED" else "images.repositories"
    seen.refuse(code, where, message, rule=rule)


def is_own(command: Sequence[str], args: Sequence[str], image: str, settings: Settings) -> bool:
    """Tell whether a task is one of sealflow's own components, which guard themselves, in an image the admin named."""
    if image not in settings.images.sealflow:
        return False
    found = own_component(list(command), list(args))
    return found is not None and found[1]


def wrapped(text: str, where: str, settings: Settings, seen: Observations) -> tuple[str, str]:
    """Judge one implementation and put its command under the guard.

    Args:
        text: The JSON that KFP wrote.
        where: The parameter's name, for messages.
        settings: The admin's.
        seen: Takes what is found.

    Returns:
        What it is, empty for nothing that KFP compiles, and its text as it should be; the same text where nothing is
        to change.
    """
    try:
        body = quickjson.loads(text, limit=MAX_PARAMETER, what="It")
    except EvidenceError as error:
        seen.refuse("WORKFLOW_REFUSED", where, error.message)
        return "", text
    if not isinstance(body, dict):
        seen.refuse("WORKFLOW_REFUSED", where, "It is no object.")
        return "", text
    if "image" not in body and "command" not in body and not body.keys() - shapes.IMPORTER_FIELDS:
        seen.warn("TASK_NOT_GUARDABLE", where, "KFP's launcher imports it; no command runs that could be guarded.")
        return IMPORTER, text
    for name in sorted(body.keys() - shapes.IMPLEMENTATION_FIELDS):
        seen.refuse("WORKFLOW_REFUSED", where, f"KFP compiles no field {shown(name)} into what a task runs.")
    image, command, args = body.get("image"), shapes.texts(body.get("command")), shapes.texts(body.get("args"))
    if not isinstance(image, str) or command is None or args is None:
        seen.refuse(
            "WORKFLOW_REFUSED", where, "Its image is no text, or its command or arguments are no list of texts."
        )
        return "", text
    judge_references(text, body, where, seen)
    _judge_variables(body.get("env"), where, seen)
    if image in STUB_IMAGES:
        return TASK, text
    if "{{" in image:
        # Known when the pod is made, and judged there.
        seen.note("IMAGE_NOT_PINNED", where, f"The image {shown(image)} is known when its pod starts, and judged then.")
    else:
        judge_image(image, where, settings, seen)
    plain = _plain(command, args)
    if guard_command.looks_guarded([*plain, *args]):
        seen.refuse(
            "GUARD_FORGED", where, "It starts a guard in another way than sealflow does.",
            expected=shown(" ".join(guard_command.IN_DIRECTORY)), found=shown(" ".join([*command, *args][:6]), 120),
        )  # fmt: skip
        return "", text
    if is_own(plain, args, image, settings):
        changed = list(plain)
    elif not plain and not args:
        seen.refuse("TASK_UNGUARDED", where, "It names no command, so the guard would have none to run.")
        return "", text
    else:
        changed = [*guard_command.IN_DIRECTORY, *plain]
    if changed == command:
        return TASK, text
    return TASK, quickjson.dumps({**body, "command": changed}).decode("utf-8")


def judge_references(text: str, body: Any, where: str, seen: Observations) -> None:
    """Refuse what Argo would put something else for, once nobody looks any more."""
    reference = shapes.argo_reference(text, body)
    if reference:
        seen.refuse(
            "WORKFLOW_REFUSED", where, "It holds a reference that Argo fills in after admission.",
            found=shown(reference, 60),
        )  # fmt: skip


def judge_component(text: str, where: str, seen: Observations) -> None:
    """Judge a component, of which a task's driver reads what to run."""
    body: Any = None
    if "\\" in text:
        try:
            body = quickjson.loads(text, limit=MAX_PARAMETER, what="It")
        except EvidenceError as error:
            seen.refuse("WORKFLOW_REFUSED", where, error.message)
            return
    judge_references(text, body, where, seen)


def _plain(command: list[str], args: list[str]) -> list[str]:
    """Return a command without the guard, however often and in whichever of the two ways it was put before it."""
    for _ in range(_MOST_GUARDS):
        under = guard_command.is_guarded([*command, *args])
        length = len(command) + len(args) - len(under or ())
        if under is None or length > len(command):
            return command
        # What the hardener puts between for kfp's own local runner has no meaning on a cluster.
        command = unmarked(command) if command[length:] else []
    return command


def _judge_variables(value: Any, where: str, seen: Observations) -> None:
    listed = shapes.objects(value)
    if listed is None:
        seen.refuse("WORKFLOW_REFUSED", where, "Its variables are no list of objects.")
        return
    for item in listed:
        check_variable(item.get("name"), where, seen)


def judge_platform(text: str, where: str, settings: Settings, seen: Observations) -> None:
    """Judge what the platform part of a pipeline gives to one task: volumes, secrets, variables."""
    try:
        body = quickjson.loads(text, limit=MAX_PARAMETER, what="It")
        if not isinstance(body, dict):
            raise EvidenceError("It is no object.")
    except EvidenceError as error:
        seen.refuse("WORKFLOW_REFUSED", where, error.message)
        return
    judge_references(text, body, where, seen)
    guard = settings.guard
    for path in _members(body, "mountPath", "mount_path"):
        if overlap(settled(str(path)), GUARDED[0]):
            seen.refuse("MOUNT_REFUSED", where, f"It mounts a volume at {shown(path)}, where the guard lies.")
    for kind, part in body.items():
        for path in _members(part, "mountPath", "mount_path") if kind not in _EMPTY else ():
            # The guard's own two are judged below.
            if settled(str(path)) not in GUARDED and not may_lie(str(path), settings):
                seen.refuse(
                    "MOUNT_REFUSED", where, f"It mounts files at {shown(path)}: over the guard if the image has a "
                    "link there, or over its private copies.",
                    expected="a path of one part, such as /data", rule="images.mounts",
                )  # fmt: skip
    for name in ("privileged", "hostPath"):
        if any(_members(body, name)):
            seen.refuse("ISOLATION_BROKEN", where, f"It sets {name}.")
    try:
        check_volumes(body, "It", guard.secret, guard.policy_config_map)
    except SealflowError as error:
        seen.refuse("MOUNT_REFUSED", where, error.message)
    try:
        check_variables({}, body, "It")
    except SealflowError as error:
        seen.refuse("VARIABLE_REFUSED", where, error.message)


def _members(value: Any, *names: str) -> Iterator[Any]:
    """Yield the members of these names, however deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from (one[name] for name in names if name in one)
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
