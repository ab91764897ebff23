"""Verifying a whole log, proving its events, and the commands for it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions import audit_scan, audit_verify
from sealflow.actions.audit_prove import check_proof, prove_event
from sealflow.actions.audit_verify import seen_path, verify_audit_log
from sealflow.audit.entry import Chain
from sealflow.errors import EvidenceError, UsageError, VerificationError
from sealflow.storage import Storages
from sealflow.verification.audit_log import LogReport
from tests.core.audit.logs import ORIGIN, MadeLog, chain_lines
from tests.servers.s3 import S3Server

pytestmark = pytest.mark.slow


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeLog:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    made = MadeLog(tmp_path)
    monkeypatch.setenv("SEALFLOW_AUDIT_LOG", made.store.uri)
    monkeypatch.setenv("SEALFLOW_AUDIT_LOG_KEY", str(made.key))
    made.add(chain_lines(600))
    return made


def test_what_was_seen_is_kept_only_where_it_is_consistent(log: MadeLog) -> None:
    seen = Path(seen_path(log.key))
    assert verify_audit_log().size == 600
    assert seen.read_bytes() == log.checkpoint
    log.add(chain_lines(3))
    # A gap is no reason to forget that the log grew.
    log.add(chain_lines(3, end=False))
    with pytest.raises(VerificationError) as caught:
        verify_audit_log()
    assert caught.value.code == "AUDIT_GAP"
    assert seen.read_bytes() == log.checkpoint
    log.path("tile/0/000").write_bytes(bytes(8192))
    kept = seen.read_bytes()
    log.add(chain_lines(5))
    with pytest.raises(VerificationError) as caught:
        verify_audit_log()
    assert caught.value.code == "LOG_ALTERED"
    assert seen.read_bytes() == kept


def test_who_verifies_at_the_same_time_does_not_forget_what_the_other_saw(
    log: MadeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One who began before the log grew must not set back what is remembered: it could be rolled back so far."""
    slow, go_on = threading.Event(), threading.Event()
    whole = audit_verify.verify_log

    def verify_log(*arguments: Any) -> LogReport:
        report = whole(*arguments)
        if not slow.is_set():
            slow.set()
            go_on.wait(20)
        return report

    monkeypatch.setattr(audit_verify, "verify_log", verify_log)
    first = threading.Thread(target=verify_audit_log)
    first.start()
    assert slow.wait(20)
    log.add(chain_lines(10))
    second = threading.Thread(target=verify_audit_log)
    second.start()
    second.join(2)
    go_on.set()
    first.join(20)
    second.join(20)
    assert Path(seen_path(log.key)).read_bytes() == log.checkpoint


def test_several_processes_come_to_the_same(log: MadeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.add(chain_lines(900))
    (alone,) = audit_scan.scan_all(log.store, log.size)
    monkeypatch.setattr(audit_scan, "_WORTH", 500)
    monkeypatch.setattr(audit_scan.processors, "usable", lambda: 3)
    parts = audit_scan.scan_all(log.store, log.size)
    assert len(parts) == 3
    assert [root for part in parts for root in part.roots] == alone.roots
    assert parts[-1].tail == alone.tail
    together = verify_audit_log()
    assert (together.size, together.writers, together.verdict.status) == (1500, 2, "passed")
    log.path("tile/entries/004").write_bytes(b"")
    assert verify_audit_log(strict=False).verdict.status == "failed"


def test_nothing_is_run_from_the_working_folder(log: MadeLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who verifies a log may stand in its folder, where others write.
    place = log.path("sealflow/actions")
    place.mkdir(parents=True)
    ran = tmp_path / "ran"
    for name in ("__init__.py", "../__init__.py", "audit_scan.py", "../../pickle.py"):
        (place / name).write_text(f"open({str(ran)!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(place.parent.parent)
    monkeypatch.setattr(audit_scan, "_WORTH", 200)
    monkeypatch.setattr(audit_scan.processors, "usable", lambda: 2)
    assert len(audit_scan.scan_all(log.store, log.size)) == 2
    assert verify_audit_log().size == 600
    assert not ran.exists()


@pytest.mark.server
@pytest.mark.xdist_group("s3")
def test_a_log_in_s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    from sealflow.audit.log import open_log

    uri = f"s3://{s3_server.make_bucket()}/log"
    storages = Storages(s3_server.client())
    log = MadeLog(tmp_path)
    log.store = open_log(uri, storages)
    log.add(chain_lines(700))
    assert verify_audit_log(uri, str(log.key), storages=storages).size == 700
    (proved,) = prove_event(str(tmp_path / "out"), uri, str(log.key), index=500, storages=storages)
    assert check_proof(proved.files[1], str(log.key))[0].passed


def test_an_unreadable_log_is_unverifiable(log: MadeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.audit.log import FolderLog
    from sealflow.errors import UnavailableError

    def get(self: FolderLog, name: str, limit: int) -> bytes | None:
        raise UnavailableError("away")

    monkeypatch.setattr(FolderLog, "get", get)
    report = verify_audit_log(strict=False)
    assert (report.verdict.status, report.verdict.exit_status) == ("unverifiable", 5)


@pytest.mark.parametrize("by", ["index", "event", "correlation"])
def test_an_event_is_proved(log: MadeLog, tmp_path: Path, by: str) -> None:
    if by == "index":
        proved = prove_event(str(tmp_path / "out"), index=301)
    elif by == "event":
        proved = prove_event(str(tmp_path / "out"), event=f"{301:032x}")
    else:
        proved = prove_event(str(tmp_path / "out"), correlation=f"{150:032x}")
    assert [item.index for item in proved] == ([300, 301] if by == "correlation" else [301])
    entry, proof, key = proved[-1].files
    assert Path(key).read_text() == f"{log.key}\n"
    verdict, event = check_proof(proof, key)
    assert verdict.passed
    assert event == proved[-1].event
    assert check_proof(proof, key, entry=entry)[1] == event
    Path(entry).write_bytes(Path(entry).read_bytes().replace(b"verify", b"forged"))
    with pytest.raises(VerificationError) as caught:
        check_proof(proof, key, entry=entry)
    assert caught.value.code == "LOG_PROOF"


def test_what_cannot_be_proved(log: MadeLog, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for members in ({}, {"index": 1, "event": "x"}):
        with pytest.raises(UsageError):
            prove_event(out, **members)  # type: ignore[arg-type]
    for missing in ({"index": 600}, {"event": "none"}):
        with pytest.raises(EvidenceError) as caught:
            prove_event(out, **missing)  # type: ignore[arg-type]
        assert caught.value.code == "LOG_MISSING"
    log.path("tile/1/000.p/2").write_bytes(bytes(64))
    with pytest.raises(EvidenceError) as caught:
        prove_event(out, index=1)
    assert caught.value.code == "LOG_ALTERED"
    assert not (tmp_path / "out").exists()


NONSENSE = {
    "no JSON": b'{"id":"%s",}',
    "deep": b'{"id":"%s","a":' + b"[" * 500 + b"]" * 500 + b"}",
    "a member twice": b'{"id":"%s","id":1}',
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_who_writes_an_id_into_nonsense_keeps_nobody_from_proving_it(
    log: MadeLog, tmp_path: Path, nonsense: bytes
) -> None:
    chain = Chain()
    log.add([chain.add(nonsense % f"{301:032x}".encode()).line])
    (proved,) = prove_event(str(tmp_path / "out"), event=f"{301:032x}")
    assert proved.index == 301
    # That it stands there can be proved, and nobody takes it for an event.
    (odd,) = prove_event(str(tmp_path / "odd"), index=600)
    assert odd.event == {}
    verdict, event = check_proof(odd.files[1], str(log.key), strict=False)
    assert ([finding.code for finding in verdict.findings], event) == (["AUDIT_MALFORMED"], {})


def test_an_event_that_was_taken_out_of_its_bundle_is_no_missing_one(log: MadeLog, tmp_path: Path) -> None:
    bundle = log.path("tile/entries/001")
    bundle.write_bytes(bundle.read_bytes().replace(f"{301:032x}".encode(), f"{9301:032x}".encode()))
    with pytest.raises(EvidenceError) as caught:
        prove_event(str(tmp_path / "out"), event=f"{301:032x}")
    assert caught.value.code == "LOG_ALTERED"


@pytest.mark.parametrize("quorum", [-1, 1])
def test_a_quorum_that_nobody_can_have(log: MadeLog, tmp_path: Path, quorum: int) -> None:
    (proved,) = prove_event(str(tmp_path / "out"), index=1)
    with pytest.raises(UsageError):
        check_proof(proved.files[1], str(log.key), quorum=quorum)
    with pytest.raises(UsageError):
        verify_audit_log(quorum=quorum)


def test_a_proof_replaces_nothing_unasked(log: MadeLog, tmp_path: Path) -> None:
    (proved,) = prove_event(str(tmp_path / "out"), index=1)
    assert prove_event(str(tmp_path / "out"), index=1) == [proved]
    key = tmp_path / "out" / "log.vkey"
    key.write_text("the key of another log")
    with pytest.raises(UsageError, match=r"log\.vkey"):
        prove_event(str(tmp_path / "out"), index=2)
    assert not (tmp_path / "out" / "2.entry").exists()
    prove_event(str(tmp_path / "out"), index=2, overwrite=True)
    assert key.read_text().strip() == str(log.key)


@pytest.mark.parametrize("hours", ["nan", "inf", "1e300"])
def test_a_grace_is_a_number_of_hours(log: MadeLog, capsys: pytest.CaptureFixture[str], hours: str) -> None:
    assert run(capsys, "audit", "verify", "--grace-hours", hours)[0] == 2


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    from sealflow.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sealflow", *arguments])
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
    return status, capsys.readouterr().out


def test_the_commands(log: MadeLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run(capsys, "audit", "key", f"file:{tmp_path}/log.pem", "--origin", ORIGIN)
    assert (status, text.strip()) == (0, str(log.key))
    status, text = run(capsys, "audit", "verify", "--json")
    body = json.loads(text)
    assert (status, body["log"]["size"], body["verdict"]["status"]) == (0, 600, "passed")
    assert "600" in run(capsys, "audit", "verify")[1]
    status, text = run(capsys, "audit", "prove", str(tmp_path / "out"), "--index", "7", "--json")
    proof = json.loads(text)["proved"][0]["files"][1]
    assert status == 0
    status, text = run(capsys, "audit", "check-proof", proof, "--key", str(log.key), "--json")
    assert (status, json.loads(text)["event"]["id"]) == (0, f"{7:032x}")
    Path(proof).write_bytes(Path(proof).read_bytes().replace(b"index 7", b"index 6"))
    status, text = run(capsys, "audit", "check-proof", proof, "--key", str(log.key))
    assert status == 3
    assert "LOG_PROOF" in text
    log.path("tile/0/000").write_bytes(bytes(8192))
    status, text = run(capsys, "audit", "verify")
    assert status == 3
    assert "LOG_ALTERED" in text
    status, text = run(capsys, "audit", "witness", "ftp://x=y", "--json")
    assert status == 2
