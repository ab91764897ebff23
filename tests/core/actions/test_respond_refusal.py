"""What counts as a refusal, and the finding that is made of one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

import sealflow
from sealflow.actions.respond_refusal import LOGGER, Refusal, codes_in, refusal_in, report_refusal
from sealflow.audit.ocsf import VERSION
from sealflow.audit.ocsf_finding import CLASS_UID
from sealflow.errors import ArtifactError, EvidenceError, UnavailableError, UsageError, VerificationError
from sealflow.findings import Finding, Verdict
from sealflow.run_identity import RunIdentity
from tests.audit_events import read_events

FIT = RunIdentity("airflow", "train", "fit", "run-1", 2, 1)
BAD = Finding("FILE_CHANGED", "refusal", "weights", "It was changed.")


@pytest.fixture(autouse=True)
def _spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))


def verdict(status: Any = "failed", *findings: Finding) -> Verdict:
    return Verdict(status, "s3://models/m", digest="sha256:" + "a" * 64, findings=findings or (BAD,), policy="sha256:p")


def wrapped(error: BaseException, *, hidden: bool = True) -> BaseException:
    """What an orchestrator makes of an error."""
    try:
        try:
            raise error
        except BaseException as first:
            raise RuntimeError("the task failed") from (None if hidden else first)
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("hidden", [None, True, False])
@pytest.mark.parametrize(
    ("error", "codes"),
    [
        (VerificationError(verdict()), ("FILE_CHANGED",)),
        (ArtifactError("It is a link."), ("ARTIFACT_REFUSED",)),
        (EvidenceError("It was cut.", code="MESSAGE_ALTERED"), ("MESSAGE_ALTERED",)),
        (VerificationError(verdict("unverifiable", Finding("BACKEND_UNAVAILABLE", "unverifiable", "s", "m"))), None),
        (UnavailableError("The store is down."), None),
        (UsageError("No signer."), None),
        (ValueError("a bug"), None),
        (KeyboardInterrupt(), None),
    ],
    ids=repr,
)
def test_only_refusals_are_refusals(error: BaseException, codes: tuple[str, ...] | None, hidden: bool | None) -> None:
    found = refusal_in(error if hidden is None else wrapped(error, hidden=hidden))
    assert (found and found.codes) == codes


def test_no_error_and_errors_in_a_circle() -> None:
    assert refusal_in(None) is None
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert refusal_in(one) is None


NASTY = Refusal(("FILE_CHANGED", "NEW_CODE"), "\x1b[31m" + "x" * 9000, "s3://b/\u202e<script>" + "y" * 9000, "", "")


@pytest.mark.parametrize(
    "refusal",
    [NASTY, Refusal((), ""), Refusal(("KEY_REVOKED",), "The key is revoked.", "s3://m", "sha256:" + "a" * 64, "p")],
    ids=["nasty", "empty", "usual"],
)
def test_the_published_schema_takes_it(refusal: Refusal, tmp_path: Path) -> None:
    with sealflow.run(sealflow.Surroundings(FIT)):
        finding = report_refusal(refusal)
    schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION))
    validator = Draft202012Validator(schemas.get_class_schema(schemas.lookup_class_name_from_uid(CLASS_UID)))
    assert [error.message for error in validator.iter_errors(finding)] == []
    del finding["finding_info"]
    assert list(validator.iter_errors(finding))


def test_told_twice_it_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refusal = Refusal(("FILE_CHANGED",), "It was changed.", "s3://models/m", "sha256:" + "a" * 64)
    place = tmp_path / "siem"
    with caplog.at_level(logging.WARNING, LOGGER), sealflow.run(sealflow.Surroundings(FIT)):
        first = report_refusal(refusal, str(place))
        report_refusal(refusal, str(place))
    (path,) = place.iterdir()
    assert path.stem == first["finding_info"]["uid"]
    assert json.loads(path.read_bytes()) == first
    assert [json.loads(record.getMessage())["class_uid"] for record in caplog.records] == [2004, 2004]
    # Another attempt that is refused the same is another finding.
    with sealflow.run(sealflow.Surroundings(RunIdentity("airflow", "train", "fit", "run-1", 2, 2))):
        report_refusal(refusal, str(place))
    assert len(list(place.iterdir())) == 2


def test_it_is_audited(tmp_path: Path) -> None:
    with sealflow.run(sealflow.Surroundings(FIT)):
        report_refusal(Refusal(("KEY_REVOKED",), "m", "s3://models/m"))
    events = read_events(tmp_path / "spool")
    assert [(item["action"], item["phase"]) for item in events] == [
        ("report-refusal", "intent"),
        ("report-refusal", "outcome"),
    ]
    assert events[1]["codes"] == ["KEY_REVOKED"]


def test_codes_in_a_message() -> None:
    text = "main: Error (exit code 3): FILE_CHANGED s3://x: NOT_A_CODE, KEY_REVOKED BACKEND_UNAVAILABLE FILE_CHANGED"
    assert codes_in(text) == ("FILE_CHANGED", "KEY_REVOKED")
    assert codes_in("A_B" * 1_000_000) == ()
