"""Admission as one pure function: the bytes of an AdmissionReview in, the bytes of the answer out.

Nothing is read or written besides, so that the same question has the same answer wherever it is asked.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sealflow.errors import EvidenceError
from sealflow.findings import Finding, printable
from sealflow_kfp.admission.memo import Memo
from sealflow_kfp.admission.observations import Observations
from sealflow_kfp.admission.pipeline_version import judge_pipeline_version
from sealflow_kfp.admission.pod import judge_connection, judge_pod
from sealflow_kfp.admission.review import Operation, Review, answer, read_review
from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.admission.workflow import judge_workflow

_ARGO: Final = "argoproj.io"
_KFP: Final = "pipelines.kubeflow.org"
_CONNECTIONS: Final = frozenset({"PodExecOptions", "PodAttachOptions"})


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one request.

    Attributes:
        status: HTTP status: 200 for every answer, 400 for a body that is no AdmissionReview, which the API server
            takes for a failure and, by its `failurePolicy`, for a refusal.
        response: The body of the answer, JSON.
        kind: Kind of the object; empty where nobody could tell.
        allowed: Whether it is taken.
        findings: What was found.
        seconds: How long it took, in seconds of wall time.
        uid: The request's id; empty where nobody could tell.
        namespace: The object's namespace.
        name: The object's name for messages.
        operation: What is done with it.
    """

    status: int
    response: bytes
    kind: str
    allowed: bool
    findings: tuple[Finding, ...]
    seconds: float
    uid: str = ""
    namespace: str = ""
    name: str = ""
    operation: str = ""


def decide(body: bytes, settings: Settings, *, validate: bool = False, memo: Memo | None = None) -> Decision:
    """Answer one request of an API server.

    Args:
        body: The request's body: an AdmissionReview v1.
        settings: The admin's.
        validate: Whether a validating webhook asks, which may not change anything any more: a Workflow that is not
            under guard by then is refused.
        memo: What was found of tasks before, for these settings; makes answers quicker, and changes none.
    """
    begun = time.perf_counter()
    try:
        review = read_review(body)
    except EvidenceError as error:
        finding = Finding("REVIEW_MALFORMED", "refusal", "the request", error.message)
        response = answer("", allowed=False, message=finding.line())
        return Decision(400, response, "", False, (finding,), time.perf_counter() - begun)
    seen = Observations(review.subject)
    operations = _judge(review, settings, seen, memo)
    if operations and validate:
        seen.refuse(
            "TASK_UNGUARDED", "", f"After all changes {len(operations)} parts of it are not as the guard needs them.",
            expected="a Workflow that the mutating webhook has changed", rule="mode",
        )  # fmt: skip
    allowed = not seen.refused or not settings.enforced
    changes = operations if allowed and settings.enforced and not validate else []
    response = answer(
        review.uid,
        allowed=allowed,
        message=seen.text() if not allowed else "",
        warnings=_warnings(seen, settings, len(operations)),
        annotations=_annotations(seen, settings, changes),
        operations=changes,
    )
    return Decision(
        status=200,
        response=response,
        kind=printable(review.kind, 63),
        allowed=allowed,
        findings=tuple(seen.kept),
        seconds=time.perf_counter() - begun,
        uid=review.uid,
        namespace=printable(review.namespace, 63),
        name=review.subject,
        operation=printable(review.operation, 20),
    )


def _judge(review: Review, settings: Settings, seen: Observations, memo: Memo | None) -> list[Operation]:
    if review.operation == "DELETE":
        return []
    of = (review.group, review.kind)
    if of == (_ARGO, "Workflow"):
        return judge_workflow(review.body, settings, seen, old=review.old, memo=memo, user=review.user)
    if of == ("", "Pod"):
        judge_pod(review, settings, seen)
    elif of[0] == "" and review.kind in _CONNECTIONS:
        judge_connection(review, settings, seen)
    elif of == (_KFP, "PipelineVersion"):
        judge_pipeline_version(review.body, settings, seen)
    else:
        seen.refuse(
            "REVIEW_MALFORMED", "", "Admission is not for objects of this kind.",
            expected="a Workflow, a Pod or a PipelineVersion", found=f"'{printable(review.kind, 60)}'",
        )  # fmt: skip
    return []


def _warnings(seen: Observations, settings: Settings, changes: int) -> list[str]:
    if settings.enforced:
        return seen.lines(("warning",))
    told = [f"{line} (audit: enforced, it would be refused)" for line in seen.lines(("refusal",))]
    if changes:
        told.append(f"sealflow: audit: enforced, {changes} parts of {seen.subject} would be changed.")
    return told + seen.lines(("warning",))


def _annotations(seen: Observations, settings: Settings, changes: list[Operation]) -> dict[str, str]:
    found = {"mode": settings.mode, "verdict": "refused" if seen.refused else "passed"}
    if seen.refused:
        found["codes"] = " ".join(seen.codes())
        found["findings"] = "; ".join(seen.lines(("refusal",)))
    if changes:
        found["changes"] = str(len(changes))
    return found
