"""What Kubeflow, Argo and Kubernetes hand over."""

from __future__ import annotations

import json
import sys
import tempfile
from types import SimpleNamespace
from typing import Final

from sealflow.errors import EvidenceError, SealflowError
from tests.fuzz.targets.base import Target, text


def _executor_input(data: bytes) -> object:
    from sealflow_kfp.executor_io import ExecutorInput

    return ExecutorInput.parse(text(data))


def _executor_output(data: bytes) -> object:
    from sealflow_kfp.executor_io import ExecutorOutput

    return ExecutorOutput.parse(data)


def _review(data: bytes) -> object:
    from sealflow_kfp.admission.decide import decide
    from sealflow_kfp.admission.server import _uid
    from tests.kubeflow.cluster_pods import SETTINGS

    _uid(data)
    decision = decide(data, SETTINGS)
    answer = json.loads(decision.response)["response"]
    assert answer["allowed"] is decision.allowed
    if not decision.allowed:
        raise EvidenceError("It is refused.")
    return decision


def _admission_settings(data: bytes) -> object:
    from sealflow_kfp.admission.settings import parse_settings

    return parse_settings(data)


def _template(data: bytes) -> object:
    from sealflow_kfp.admission.argo_template import _problem

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        # Kubernetes hands over text.
        raise EvidenceError("It is no text.") from None
    if why := _problem(text, driver=True):
        raise EvidenceError(why)
    return text


def _pipeline(data: bytes) -> object:
    from sealflow_kfp.hardening import harden_text

    return harden_text(data, secret="keys")


def _plan(data: bytes) -> object:
    from sealflow_kfp.plan import Plan

    return Plan.parse(text(data))


def _lock(data: bytes) -> object:
    from sealflow_kfp.hardening.installs import Lock

    return Lock.parse(data, "the lock")


def _evidence_metadata(data: bytes) -> object:
    from sealflow_kfp.evidence_metadata import EvidenceMetadata

    return EvidenceMetadata.parse(text(data))


def _patch(data: bytes) -> object:
    from sealflow_kfp import spec_patch
    from sealflow_kfp.spec_patch import GuardMounts

    return spec_patch.to_text(GuardMounts(f"registry.example/guard@sha256:{'0' * 64}", "sealflow"), onto=data)


def _patch_in_place(data: bytes) -> object:
    from sealflow_kfp.doctor.pipelines import spec_patch
    from sealflow_kfp.spec_patch import GuardMounts

    place = SimpleNamespace(
        variable=lambda _: data.decode("utf-8", "replace"),
        wanted=SimpleNamespace(mounts=GuardMounts("", "")),
        not_there=lambda *_: SimpleNamespace(outcome="FAIL", found="not set"),
    )
    said = spec_patch(place)  # type: ignore[arg-type]
    if said.outcome != "PASS":
        raise EvidenceError(said.found)
    return said


def _metadata_in_a_file(data: bytes) -> object:
    from sealflow_kfp.signed_metadata import in_file

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        found = in_file(file.name)
    if found is None:
        raise EvidenceError("It is another file.")
    return found


def _run_context(data: bytes) -> object:
    from sealflow_kfp.run_context import current

    before = sys.argv
    sys.argv = ["component", "--executor_input", text(data)]
    try:
        found = current()
    finally:
        sys.argv = before
    if found is None:
        raise EvidenceError("No launcher wrote that.")
    return found


def _task_of_a_run(data: bytes) -> object:
    from sealflow_kfp.doctor.runs import _enables

    return _enables(data.decode("utf-8", "replace"))


def _ca_bundle(data: bytes) -> object:
    from sealflow_kfp.doctor.webhook import _ends

    return list(_ends(data.decode("utf-8", "replace")))


def _unclear_run() -> tuple[type[Exception], ...]:
    from sealflow_kfp.doctor.report import UnclearError

    return (SealflowError, UnclearError)


TARGETS: Final = [
    Target("executor-input", _executor_input, ("sealflow_kfp.executor_io",)),
    Target("executor-output", _executor_output, ("sealflow_kfp.executor_io",)),
    Target(
        "admission-review",
        _review,
        (
            "sealflow_kfp.admission.review",
            "sealflow_kfp.admission.quickjson",
            "sealflow_kfp.admission.implementations",
            "sealflow_kfp.admission.server",
            "sealflow_kfp.admission.workflow",
        ),
    ),
    Target("admission-settings", _admission_settings, ("sealflow_kfp.admission.settings",)),
    Target("argo-template", _template, ("sealflow_kfp.admission.argo_template",)),
    Target("pipeline", _pipeline, ("sealflow_kfp.hardening.reading",)),
    Target("plan", _plan, ("sealflow_kfp.plan",)),
    Target("lock", _lock, ("sealflow_kfp.hardening.installs",)),
    Target("evidence-metadata", _evidence_metadata, ("sealflow_kfp.evidence_metadata",)),
    Target("spec-patch", _patch, ("sealflow_kfp.spec_patch",)),
    Target("patch-in-place", _patch_in_place, ("sealflow_kfp.doctor.pipelines",), _unclear_run()),
    Target("metadata-in-a-file", _metadata_in_a_file, ("sealflow_kfp.signed_metadata",)),
    Target("run-context", _run_context, ("sealflow_kfp.run_context",)),
    Target("task-of-a-run", _task_of_a_run, ("sealflow_kfp.doctor.runs",), _unclear_run()),
    Target("ca-bundle", _ca_bundle, ("sealflow_kfp.doctor.webhook",), _unclear_run()),
]
