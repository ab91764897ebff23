"""Who says what of a Workflow ran: the rule of the admission server, in CEL."""

from __future__ import annotations

from collections.abc import Iterator

from sealflow_kfp.admission.settings import Settings
from sealflow_kfp.kyverno.expressions import Rule, any_of, one_line, texts


def rules(settings: Settings) -> Iterator[Rule]:
    """Yield the rule."""
    fine = any_of(
        [
            f"request.userInfo.username in {texts(settings.kubeflow.status_writers)}",
            "!has(object.status) || object.status == null",
            # Go writes out a status of which nothing is known, with empty times.
            'object.status.all(name, object.status[name] == null || object.status[name] == "")',
            'request.operation == "UPDATE" && has(oldObject.status) && object.status == oldObject.status',
        ]
    )
    yield Rule(
        one_line(fine),
        "WORKFLOW_REFUSED: the status is written by somebody else than Argo and KFP, and Argo skips what it says has "
        "succeeded (kubeflow.status_writers).",
    )
