"""A review over a log that is not what it was: refused, and nothing of it counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.audit_review import Reviewed, review_accesses
from sealflow.actions.audit_verify import seen_path, verify_audit_log
from sealflow.audit.note import COSIGNATURE, VerifierKey
from sealflow.errors import UsageError
from tests.core.actions.access_log import at, made, one
from tests.core.actions.test_audit_verify import run
from tests.core.audit.logs import MadeLog, ed25519_signer

pytestmark = pytest.mark.slow

MODEL = "s3://models/churn/model.pkl"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeLog:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return made(tmp_path / "first", [line for day in range(30, 60) for line in one(at(day), MODEL)])


def review(log: MadeLog, **more: Any) -> Reviewed:
    return review_accesses(log.store.uri, key=str(log.key), since="2026-10-01", until="2026-11-01", **more)


def refused(reviewed: Reviewed) -> dict[str, int]:
    assert (reviewed.verdict.status, reviewed.verdict.exit_status) == ("failed", 3)
    assert (reviewed.report["accesses"], reviewed.report["outcomes"]) == ([], {})
    return dict(reviewed.report["finding_counts"])


def rolled_back(log: MadeLog) -> None:
    """The log as it was before its last entries, with the checkpoint that its key signed then."""
    before = log.checkpoint
    assert before is not None
    log.add(one(at(59, 60), MODEL))
    assert review(log).verdict.passed
    log.path().write_bytes(before)


def forked(log: MadeLog) -> None:
    """Another history of the same length, under the same key and at the same place."""
    other = MadeLog(log.path().parent.parent, uri=str(log.path().parent.parent / "fork"))
    other.add([line for day in range(30, 60) for line in one(at(day), "s3://models/other")])
    assert other.size == log.size
    assert review(log).verdict.passed
    shutil.rmtree(log.path().parent)
    other.path().parent.rename(log.path().parent)


def gone(log: MadeLog) -> None:
    assert review(log).verdict.passed
    log.path().unlink()


@pytest.mark.parametrize(
    ("attack", "code"), [(rolled_back, "LOG_ROLLED_BACK"), (forked, "LOG_FORKED"), (gone, "LOG_ROLLED_BACK")]
)
def test_a_review_remembers(log: MadeLog, attack: Any, code: str) -> None:
    attack(log)
    seen = Path(seen_path(log.key)).read_bytes()
    assert refused(review(log)) == {code: 1}
    # Nor does being refused once make the other history the one that is known.
    assert refused(review(log)) == {code: 1}
    assert Path(seen_path(log.key)).read_bytes() == seen


def test_what_verify_saw_a_review_knows_and_the_other_way_round(log: MadeLog) -> None:
    before = log.checkpoint
    assert before is not None
    log.add(one(at(59, 60), MODEL))
    assert verify_audit_log(log.store.uri, str(log.key)).verdict.passed
    log.path().write_bytes(before)
    assert refused(review(log)) == {"LOG_ROLLED_BACK": 1}
    report = verify_audit_log(log.store.uri, str(log.key), strict=False)
    assert report.counts == {"LOG_ROLLED_BACK": 1}


def test_a_checkpoint_that_was_kept_elsewhere(log: MadeLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    forked(log)
    kept.write_bytes(Path(seen_path(log.key)).read_bytes())
    # On a machine that saw nothing, as a pod is one.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    assert refused(review(log, checkpoints=[str(kept)])) == {"LOG_FORKED": 1}
    assert refused(review(log, checkpoints=[f"file://{kept}"])) == {"LOG_FORKED": 1}
    with pytest.raises(UsageError):
        review(log, checkpoints=[str(tmp_path / "nothing")])
    with pytest.raises(UsageError):
        review(log, checkpoints=str(kept))


def test_a_review_demands_witnesses(log: MadeLog, tmp_path: Path) -> None:
    key = VerifierKey("witness.example/w", COSIGNATURE, bytes.fromhex(_raw(tmp_path)))
    assert refused(review(log, witnesses=[str(key)])) == {"LOG_UNWITNESSED": 1}
    assert review(log, witnesses=[str(key)], quorum=0).verdict.passed
    with pytest.raises(UsageError):
        review(log, quorum=1)


def test_who_cannot_remember_says_so(log: MadeLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pod without a place to write: the review counts, and nobody takes it for one that knows what was."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    reviewed = review(log)
    assert reviewed.verdict.passed
    assert [item["severity"] for item in reviewed.report["findings"] if item["code"] == "LOG_UNREMEMBERED"] == [
        "warning"
    ]
    demanded = review(log, fail_on=["LOG_UNREMEMBERED"])
    assert (demanded.verdict.status, demanded.verdict.exit_status) == ("failed", 3)
    # To remember is what a verification is there for.
    report = verify_audit_log(log.store.uri, str(log.key), strict=False)
    assert (report.verdict.exit_status, report.verdict.findings[0].code, report.size) == (5, "LOG_UNREMEMBERED", 90)


def _raw(folder: Path) -> str:
    return VerifierKey.of(ed25519_signer(folder, "witness"), "witness.example/w").raw.hex()


def test_the_command(log: MadeLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept"
    forked(log)
    kept.write_bytes(Path(seen_path(log.key)).read_bytes())
    Path(seen_path(log.key)).unlink()
    given = ("audit", "review", "--log", log.store.uri, "--key", str(log.key), "--since", "2026-10-01")
    status, text = run(capsys, *given, "--checkpoint", str(kept), "--json")
    assert (status, json.loads(text)["finding_counts"]) == (3, {"LOG_FORKED": 1})
    status, text = run(capsys, *given)
    assert status == 0
    assert "claimed: nobody who is named vouches" in text
