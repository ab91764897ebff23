"""Who should have made an input, and the refusal of what another one made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from sealflow.errors import SealflowError, VerificationError
from sealflow.findings import Finding, conclude
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata

if TYPE_CHECKING:
    from sealflow.actions.verify import Checked
    from sealflow_kfp.executor_io import Handed

_ATTEMPT: Final = re.compile(r"#[0-9]+\Z")


class Expected(NamedTuple):
    """Who should have made an input.

    Attributes:
        name: Logical name under which it is signed.
        producer: The task.
        source: The task's run, as provenance names it.
        task: The task's name.
    """

    name: str
    producer: str
    source: str
    task: str


def claimed(artifact: Handed, expected: Sequence[Expected]) -> Expected | None:
    """Return which of the expected ones an input claims to be; what is signed decides later whether it is."""
    if len(expected) <= 1:
        return expected[0] if expected else None
    from sealflow.evidence import parse_bundle, parse_provenance
    from sealflow.evidence.statement import parse_statement

    try:
        bundle = parse_bundle(EvidenceMetadata.parse(artifact.metadata.get(KEY)).provenance)
        said = parse_provenance(parse_statement(bundle.payload))
    except SealflowError:
        return None
    return next((item for item in expected if (item.name, item.producer) == (said.name, said.producer)), expected[0])


def wrong_source(checked: Checked, expected: Sequence[Expected]) -> VerificationError | None:
    """Return the refusal of an input that another task or another run made, ``None`` where there is no reason for it.

    Args:
        checked: What was found.
        expected: Any one of whom may have made it; nobody: anybody may.
    """
    if not expected:
        return None
    verdict = checked.verdict
    # A name may hold the sign before the number of an attempt; only such a number is cut off.
    runs = {_ATTEMPT.sub("", run) for run in checked.runs}
    if any(item.source in runs and item.name == verdict.name for item in expected):
        return None
    if not runs and any(item.code == "WAIVER_USED" for item in verdict.findings):
        # There is no signed run to compare, and whoever may sign waivers lets this pass.
        return None
    finding = Finding(
        "PRODUCER_MISMATCH",
        "refusal",
        verdict.artifact,
        "The input was not made by the task of this run that the pipeline takes it from.",
        expected=" or ".join(f"{item.source} ({item.name})" for item in expected[:4]),
        found=f"{', '.join(sorted(runs)[:4]) or 'no signed run'} ({verdict.name or 'no name'})",
        rule="plan",
    )
    status, findings = conclude([finding, *verdict.findings])
    return VerificationError(replace(verdict, status=status, findings=findings, held=False))
