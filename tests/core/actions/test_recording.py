"""What the audit log says about a verification."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.change_recipients import change_recipients, list_recipients
from sealflow.actions.context import Surroundings, run
from sealflow.actions.keys_generate import generate_key
from sealflow.run_identity import RunIdentity
from tests.audit_events import read_events, spooled
from tests.trees import flip_byte


def test_the_outcome_names_the_accepted_signers_and_the_producer(tmp_path: Path) -> None:
    key = generate_key(str(tmp_path / "key.pem"))
    generate_key(str(tmp_path / "other.pem"))
    (tmp_path / "m").write_bytes(b"m")
    with run(Surroundings(RunIdentity("airflow", "train", "fit", "r"))):
        ref = sealflow.sign(tmp_path / "m", signer=f"file:{tmp_path}/key.pem")
    log = tmp_path / "spool"
    for name in ("key", "other"):
        sealflow.verify(ref, identities=str(tmp_path / f"{name}.pem.pub"), audit=spooled(log))
    events = read_events(log)
    assert [event["outcome"] for event in events if event["phase"] == "outcome"] == ["passed", "failed"]
    assert events[1]["signers"] == [f"sha256:{key.hint}"], "each key once, however much it signed"
    assert events[1]["producer"] == "airflow:train/fit"
    assert {"signers", "producer"}.isdisjoint(events[3]), "a key that nobody named was taken down as a signer"
    assert {"signers", "producer"}.isdisjoint(events[0])


# --- The use of a recipient's key ---


@pytest.fixture
def sealed(tmp_path: Path) -> dict[str, Any]:
    """Upload an artifact that two symmetric keys open; return what opens it by the second."""
    generate_key(str(tmp_path / "key.pem"))
    for name in ("first", "second", "third"):
        (tmp_path / name).write_bytes(hashlib.sha256(name.encode()).digest())
    (tmp_path / "m").write_bytes(b"m" * 1000)
    recipients = [f"aes:{tmp_path}/{name}" for name in ("first", "second")]
    place = str(tmp_path / "m.enc")
    sealflow.upload(tmp_path / "m", place, recipients=recipients, signer=f"file:{tmp_path}/key.pem")
    return {"artifact": place, "identities": f"{tmp_path}/key.pem.pub", "recipients": recipients[1]}


def verify(tmp_path: Path, artifact: str, **options: Any) -> None:
    sealflow.verify(artifact, **options)


def download(tmp_path: Path, artifact: str, **options: Any) -> None:
    sealflow.download(artifact, str(tmp_path / "copy"), **options)


def read(tmp_path: Path, artifact: str, **options: Any) -> None:
    with sealflow.reading(artifact, **options) as found:
        assert found.read("m") == b"m" * 1000


def copy(tmp_path: Path, artifact: str, **options: Any) -> None:
    sealflow.promote(artifact, str(tmp_path / "m2.enc"), signer=f"file:{tmp_path}/key.pem", **options)


def change(tmp_path: Path, artifact: str, **options: Any) -> None:
    first = f"aes:{tmp_path}/first"
    opens = [options.pop("recipients"), first]
    change_recipients(artifact, remove=[first], recipients=opens, signer=f"file:{tmp_path}/key.pem", **options)


OPENERS = [verify, download, read, copy, change]


@pytest.mark.parametrize("act", OPENERS)
def test_the_outcome_names_the_key_that_opened_the_artifact(
    sealed: dict[str, Any], tmp_path: Path, act: Callable[..., None]
) -> None:
    second = list_recipients(sealed["artifact"])[1]
    log = tmp_path / "spool"
    act(tmp_path, **sealed, audit=spooled(log))
    intent, outcome = read_events(log)
    assert outcome["recipient"] == f"{second.provider}:{second.name}"
    assert "recipient" not in intent, "nobody knows before"
    assert b"second" not in json.dumps([intent, outcome]).encode(), "the key's place is nobody's business"


def test_a_key_that_was_used_for_what_was_refused_is_named_too(sealed: dict[str, Any], tmp_path: Path) -> None:
    flip_byte(Path(sealed["artifact"]), Path(sealed["artifact"]).stat().st_size - 40)
    log = tmp_path / "spool"
    sealflow.verify(**sealed, audit=spooled(log))
    (outcome,) = [event for event in read_events(log) if event["phase"] == "outcome"]
    assert outcome["outcome"] == "failed"
    assert outcome["recipient"].startswith("sealflow:")


def test_no_key_is_named_where_none_opened_anything(sealed: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "spool"
    sealflow.verify(**{**sealed, "recipients": f"aes:{tmp_path}/third"}, audit=spooled(log))
    sealflow.verify(**{**sealed, "identities": []}, audit=spooled(log))
    sealflow.sign(tmp_path / "m", signer=f"file:{tmp_path}/key.pem", audit=spooled(log))
    assert [event for event in read_events(log) if "recipient" in event] == []
