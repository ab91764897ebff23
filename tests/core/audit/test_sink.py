"""The audit log: durable before a key is used, whole under many writers, and no action without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.audit import AuditEvent, JsonLinesSink, default_path
from sealflow.errors import UnavailableError, UsageError
from sealflow.keys import load_signer
from sealflow.run_identity import RunIdentity
from tests.pki import KeyPair, write_key
from tests.trees import write_tree

RUN = RunIdentity()


def event(artifact: str = "x") -> AuditEvent:
    return AuditEvent("sign", "intent", RUN, artifact)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.jsonl"


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "model", {"a": b"1"})


def test_appends_and_syncs(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    sink = JsonLinesSink(str(log))
    sink.record(event("one"))
    sink.record(event("two"))
    assert [line["artifact"] for line in lines(log)] == ["one", "two"]
    assert synced[-1] == log.stat().st_size
    assert len(synced) >= 2


def test_only_its_owner_reads_it(log: Path) -> None:
    JsonLinesSink(str(log)).record(event())
    assert log.stat().st_mode & 0o777 == 0o600
    assert log.parent.stat().st_mode & 0o777 == 0o700


def test_a_torn_line_does_not_swallow_the_next(log: Path) -> None:
    sink = JsonLinesSink(str(log))
    sink.record(event("one"))
    with open(log, "ab") as file:
        file.write(b'{"torn": ')
    sink.record(event("two"))
    first, torn, second = log.read_bytes().splitlines()
    assert json.loads(first)["artifact"] == "one"
    assert torn == b'{"torn": '
    assert json.loads(second)["artifact"] == "two"


@pytest.mark.slow
def test_many_processes_at_once(log: Path) -> None:
    script = """
import sys
from sealflow.audit import AuditEvent, JsonLinesSink
from sealflow.run_identity import RunIdentity
sink = JsonLinesSink(sys.argv[1])
for number in range(50):
    sink.record(AuditEvent("sign", "intent", RunIdentity(), f"{sys.argv[2]}-{number}-" + "x" * 3000))
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, str(log), str(number)]) for number in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    found = [line["artifact"].split("-")[:2] for line in lines(log)]
    assert len(found) == 200
    for writer in range(4):
        assert [number for name, number in found if name == str(writer)] == [str(number) for number in range(50)]


def test_a_write_that_falls_short_leaves_no_half_line(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = JsonLinesSink(str(log))
    sink.record(event("one"))
    before = log.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
    with pytest.raises(UnavailableError, match="disk is full"):
        sink.record(event("two"))
    assert log.read_bytes() == before


def test_a_link_is_not_followed(log: Path, tmp_path: Path) -> None:
    log.parent.mkdir()
    (tmp_path / "target").write_bytes(b"")
    log.symlink_to(tmp_path / "target")
    with pytest.raises(UnavailableError):
        JsonLinesSink(str(log)).record(event())
    assert (tmp_path / "target").read_bytes() == b""


def test_default_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_path() == "/state/sealflow/audit.jsonl"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert default_path() == "/home/x/.local/state/sealflow/audit.jsonl"


# --- In actions ---


class WatchingSigner:
    """Looks into the log at the moment when the key is used."""

    def __init__(self, signer: Any, log: Path) -> None:
        self._signer = signer
        self._log = log
        self.uri, self.public_key, self.certificates = signer.uri, signer.public_key, signer.certificates
        self.seen: list[list[dict[str, Any]]] = []

    def sign(self, data: bytes) -> bytes:
        self.seen.append(lines(self._log))
        return bytes(self._signer.sign(data))


def test_the_intent_is_on_disk_before_the_key_is_used(log: Path, keys: KeyPair, model: Path) -> None:
    signer = WatchingSigner(load_signer(keys.signer), log)
    ref = sealflow.sign(model, signer=signer, audit=JsonLinesSink(str(log)))
    for seen in signer.seen:
        (intent,) = seen
        assert (intent["action"], intent["phase"]) == ("sign", "intent")
        assert intent["key"] == f"sha256:{signer.public_key.hint}"
    assert len(signer.seen) == 2
    intent, outcome = lines(log)
    assert outcome["phase"] == "outcome"
    assert outcome["outcome"] == "done"
    assert outcome["digest"] == str(ref.digest)
    assert outcome["correlation"] == intent["correlation"]


class BrokenSink:
    """Fails at the event with the given number."""

    def __init__(self, fails_at: int) -> None:
        self.left = fails_at

    def record(self, event: AuditEvent) -> None:
        if not self.left:
            raise UnavailableError("The log is gone.", code="AUDIT_UNAVAILABLE")
        self.left -= 1


def test_without_a_log_no_key_is_used(log: Path, keys: KeyPair, model: Path) -> None:
    log.parent.mkdir()
    log.touch()
    signer = WatchingSigner(load_signer(keys.signer), log)
    with pytest.raises(UnavailableError) as caught:
        sealflow.sign(model, signer=signer, audit=BrokenSink(0))
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert caught.value.exit_status == 5
    assert signer.seen == []
    assert not Path(f"{model}.evidence").exists()


def test_without_a_log_nothing_is_verified(keys: KeyPair, model: Path) -> None:
    ref = sealflow.sign(model, signer=keys.signer)
    for number in (0, 1):
        with pytest.raises(UnavailableError):
            sealflow.verify(ref, identities=str(keys.public), audit=BrokenSink(number))
        with (
            pytest.raises(UnavailableError),
            sealflow.verified(ref, identities=str(keys.public), audit=BrokenSink(number)),
        ):
            raise AssertionError("handed out without a record")


def test_a_log_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, keys: KeyPair, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SEALFLOW_AUDIT_LOG", str(tmp_path / "file" / "audit.jsonl"))
    with pytest.raises(UnavailableError) as caught:
        sealflow.sign(model, signer=keys.signer)
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert "SEALFLOW_AUDIT_LOG" in caught.value.next_step


def test_refusals_are_recorded_with_their_codes(log: Path, keys: KeyPair, model: Path) -> None:
    sink = JsonLinesSink(str(log))
    ref = sealflow.sign(model, signer=keys.signer, audit=sink)
    (model / "a").write_bytes(b"2")
    assert sealflow.verify(ref, identities=str(keys.public), audit=sink).status == "failed"
    outcome = lines(log)[-1]
    assert outcome["outcome"] == "failed"
    assert outcome["codes"][0] == "FILE_CHANGED"
    assert outcome["policy"].startswith("sha256:")


def test_errors_are_recorded_and_the_first_one_is_raised(log: Path, keys: KeyPair, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(sealflow.SealflowError) as caught:
        sealflow.sign(tmp_path / "empty", signer=keys.signer, audit=JsonLinesSink(str(log)))
    assert lines(log)[-1]["outcome"] == "error"
    assert lines(log)[-1]["codes"] == [caught.value.code]
    with pytest.raises(sealflow.SealflowError) as both:
        sealflow.sign(tmp_path / "empty", signer=keys.signer, audit=BrokenSink(1))
    assert both.value.code == caught.value.code, "the missing record must not hide the first error"


def test_no_signer_is_a_usage_error_without_an_event(log: Path, model: Path) -> None:
    with pytest.raises(UsageError) as caught:
        sealflow.sign(model, audit=JsonLinesSink(str(log)))
    assert caught.value.code == "SIGNER_MISSING"
    assert not log.exists()
