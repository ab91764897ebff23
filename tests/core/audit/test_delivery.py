"""Recording in actions: durable before a key is used, and no action without it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions import recording
from sealflow.actions.context import Settings, Surroundings, current
from sealflow.actions.keys_generate import generate_key
from sealflow.audit import AuditEvent
from sealflow.audit.details import default_details
from sealflow.audit.event import vouched
from sealflow.errors import UnavailableError, UsageError
from sealflow.keys import load_signer
from sealflow.run_identity import RunIdentity
from tests.audit_events import entries, read_events, spooled
from tests.core.actions.test_audit_ship import taken
from tests.pki import KeyPair, write_key
from tests.trees import write_tree

FIT = RunIdentity("airflow", "train", "fit", "r1")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "state" / "spool"


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "model", {"a": b"1"})


class WatchingSigner:
    """Looks into the log at the moment when the key is used."""

    def __init__(self, signer: Any, log: Path) -> None:
        self._signer = signer
        self._log = log
        self.uri, self.public_key, self.certificates = signer.uri, signer.public_key, signer.certificates
        self.seen: list[list[dict[str, Any]]] = []

    def sign(self, data: bytes) -> bytes:
        self.seen.append(read_events(self._log))
        return bytes(self._signer.sign(data))


def test_the_intent_is_on_disk_before_the_key_is_used(log: Path, keys: KeyPair, model: Path) -> None:
    signer = WatchingSigner(load_signer(keys.signer), log)
    ref = sealflow.sign(model, signer=signer, audit=spooled(log))
    for seen in signer.seen:
        (intent,) = seen
        assert (intent["action"], intent["phase"]) == ("sign", "intent")
        assert intent["key"] == f"sha256:{signer.public_key.hint}"
    assert len(signer.seen) == 2
    intent, outcome = read_events(log)
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
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "file" / "spool"))
    with pytest.raises(UnavailableError) as caught:
        sealflow.sign(model, signer=keys.signer)
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert "SEALFLOW_AUDIT_SPOOL" in caught.value.next_step


def test_refusals_are_recorded_with_their_codes(log: Path, keys: KeyPair, model: Path) -> None:
    sink = spooled(log)
    ref = sealflow.sign(model, signer=keys.signer, audit=sink)
    (model / "a").write_bytes(b"2")
    assert sealflow.verify(ref, identities=str(keys.public), audit=sink).status == "failed"
    outcome = read_events(log)[-1]
    assert outcome["outcome"] == "failed"
    assert outcome["codes"][0] == "FILE_CHANGED"
    assert outcome["policy"].startswith("sha256:")


def test_errors_are_recorded_and_the_first_one_is_raised(log: Path, keys: KeyPair, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(sealflow.SealflowError) as caught:
        sealflow.sign(tmp_path / "empty", signer=keys.signer, audit=spooled(log))
    assert read_events(log)[-1]["outcome"] == "error"
    assert read_events(log)[-1]["codes"] == [caught.value.code]
    with pytest.raises(sealflow.SealflowError) as both:
        sealflow.sign(tmp_path / "empty", signer=keys.signer, audit=BrokenSink(1))
    assert both.value.code == caught.value.code, "the missing record must not hide the first error"


def test_no_signer_is_a_usage_error_without_an_event(log: Path, model: Path) -> None:
    with pytest.raises(UsageError) as caught:
        sealflow.sign(model, audit=spooled(log))
    assert caught.value.code == "SIGNER_MISSING"
    assert not log.exists()


# --- Where the settings say ---


def signed(model: Path, keys: KeyPair, run: RunIdentity = FIT, triggered_by: str = "", **settings: str) -> None:
    around = Surroundings(run, Settings(**settings), triggered_by=triggered_by)
    with sealflow.run(around):
        sealflow.sign(model, signer=keys.signer)


def test_leaving_the_run_ends_its_chain(log: Path, keys: KeyPair, model: Path) -> None:
    signed(model, keys, audit_spool=str(log))
    *_, end = read_events(log, ends=True)
    assert (end["phase"], end["count"], end["run"]["task"]) == ("end", 3, "fit")


def test_an_inner_run_of_the_same_task_ends_nothing(log: Path, keys: KeyPair, model: Path) -> None:
    settings = Settings(audit_spool=str(log))
    with sealflow.run(Surroundings(FIT, settings)):
        sealflow.sign(model, signer=keys.signer)
        with sealflow.run(Surroundings(FIT, settings)):
            sealflow.sign(model, signer=keys.signer)
        assert not [item for item in read_events(log, ends=True) if item["phase"] == "end"]
    (end,) = [item for item in read_events(log, ends=True) if item["phase"] == "end"]
    assert end["count"] == 5


def test_with_an_inbox_alone_nothing_stays_on_the_disk(tmp_path: Path, keys: KeyPair, model: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    inbox = f"sqlite:{tmp_path}/inbox.db"
    signed(model, keys, audit_inbox=inbox)
    assert [AuditEvent.parse(entry.event).phase for entry in taken(inbox)] == ["intent", "outcome", "end"]
    assert not (tmp_path / "state").exists()


def test_without_its_inbox_no_key_is_used(tmp_path: Path, keys: KeyPair, model: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError) as caught:
        signed(model, keys, audit_inbox=f"sqlite:{tmp_path}/file/inbox.db")
    assert caught.value.code == "AUDIT_UNAVAILABLE"
    assert not Path(f"{model}.evidence").exists()


def test_the_audits_settings_come_from_one_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that names a spool must not take the events away from its admin's inbox."""
    admins = Settings(audit_inbox="s3://audit/inbox")
    assert admins.over(Settings(audit_spool="/tmp/mine", signer="file:x")) == Settings(
        audit_inbox="s3://audit/inbox", signer="file:x"
    )
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", "/tmp/mine")
    with sealflow.run(Surroundings(settings=admins)):
        assert current().settings.audit_spool is None
    with sealflow.run(Surroundings()):
        assert current().settings.audit_spool == "/tmp/mine"


def test_a_pod_that_keeps_its_events_to_itself_says_so_once(keys: KeyPair, model: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(recording, "_told", set())
    pod = RunIdentity("kfp", "train", "fit", "r1", instance="pod-1")
    signed(model, keys, pod)
    signed(model, keys, pod)
    assert caplog.text.count("AUDIT_EPHEMERAL") == 1
    signed(model, keys, pod, audit_spool=str(model.parent / "spool"))
    assert caplog.text.count("AUDIT_EPHEMERAL") == 1


def test_the_deployments_signer_vouches_for_the_writer(log: Path, keys: KeyPair, model: Path, tmp_path: Path) -> None:
    auditor = write_key(tmp_path, "auditor")
    signed(model, keys, audit_spool=str(log), audit_signer=auditor.signer)
    first, second, _ = read_events(log, ends=True)
    public = load_signer(auditor.signer).public_key
    assert first["vouch"]["key"] == f"sha256:{public.hint}"
    assert "vouch" not in second
    said = vouched(entries(log)[0].writer, FIT)
    public.verify(base64.b64decode(first["vouch"]["signature"]), said)


def test_where_nobody_vouches_no_key_is_used(log: Path, keys: KeyPair, model: Path, tmp_path: Path) -> None:
    with pytest.raises(sealflow.SealflowError):
        signed(model, keys, audit_spool=str(log), audit_signer=f"file:{tmp_path}/nowhere.pem")
    assert not Path(f"{model}.evidence").exists()
    assert not log.exists()


# --- What is personal ---


def payload(folder: Path, event: dict[str, Any]) -> dict[str, Any]:
    data = (folder / f"{event['details'].removeprefix('sha256:')}.json").read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == event["details"]
    return json.loads(data)["values"]


def test_who_triggered_a_run_is_a_claim(log: Path, keys: KeyPair, model: Path) -> None:
    signed(model, keys, triggered_by="alice", audit_spool=str(log))
    assert {item["claims"]["triggered_by"] for item in read_events(log)} == {"alice"}
    assert {item["host"] for item in read_events(log)} == {os.uname().nodename}


def test_personal_values_lie_apart_and_can_be_deleted(log: Path, keys: KeyPair, model: Path) -> None:
    signed(model, keys, triggered_by="alice", audit_spool=str(log), audit_personal="triggered_by, host")
    details = Path(f"{log}.details")
    intent, outcome = read_events(log)
    assert intent["details"] == outcome["details"]
    assert payload(details, intent) == {"triggered_by": "alice", "host": os.uname().nodename}
    assert b"alice" not in b"".join(path.read_bytes() for path in log.iterdir())
    assert "claims" not in intent
    assert "host" not in intent
    assert details.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(details)
    assert len(read_events(log)) == 2


def test_the_same_value_has_another_digest_each_time(log: Path, keys: KeyPair, model: Path) -> None:
    for _ in range(2):
        signed(model, keys, triggered_by="alice", audit_spool=str(log), audit_personal="triggered_by")
    assert len({item["details"] for item in read_events(log)}) == 2


def test_long_values_lie_apart(log: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "details")
    around = Surroundings(FIT, Settings(audit_spool=str(log), audit_details=place))
    with recording.Recording("verify", "s3://b/" + "x" * 5000, around):
        pass
    intent, _ = read_events(log)
    assert "artifact" not in intent
    assert payload(tmp_path / "details", intent)["artifact"] == "s3://b/" + "x" * 5000


def test_an_unknown_personal_member_is_refused(log: Path, keys: KeyPair, model: Path) -> None:
    with pytest.raises(UsageError, match="audit_personal"):
        signed(model, keys, audit_spool=str(log), audit_personal="run")
    assert not Path(f"{model}.evidence").exists()


def test_details_go_nowhere_beside_somebody_elses_database() -> None:
    assert default_details("/spool/", None) == "/spool.details"
    assert default_details(None, "sqlite:/x/inbox.db") == "/x/inbox.db.details"
    assert default_details(None, "s3://audit/inbox") == "s3://audit/inbox.details"
    assert default_details(None, "postgresql://host/audit") is None


def test_a_new_key_is_recorded_before_anybody_has_it(log: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        sealflow.run(Surroundings(FIT, Settings(audit_spool=str(tmp_path / "file" / "x")))),
        pytest.raises(UnavailableError),
    ):
        generate_key(str(tmp_path / "new.pem"))
    assert not (tmp_path / "new.pem").exists()
    with sealflow.run(Surroundings(FIT, Settings(audit_spool=str(log)))):
        key = generate_key(str(tmp_path / "new.pem"))
    assert [(item["action"], item["key"]) for item in read_events(log)] == [("key-generate", f"sha256:{key.hint}")] * 2
