"""What the audit log says about a verification."""

from __future__ import annotations

import json
from pathlib import Path

import sealflow
from sealflow.actions.context import Surroundings, run
from sealflow.actions.keygen import keygen
from sealflow.audit import JsonLinesSink
from sealflow.run_identity import RunIdentity


def test_the_outcome_names_the_accepted_signers_and_the_producer(tmp_path: Path) -> None:
    key = keygen(str(tmp_path / "key.pem"))
    keygen(str(tmp_path / "other.pem"))
    (tmp_path / "m").write_bytes(b"m")
    with run(Surroundings(RunIdentity("airflow", "train", "fit", "r"))):
        ref = sealflow.sign(tmp_path / "m", signer=f"file:{tmp_path}/key.pem")
    log = tmp_path / "audit.jsonl"
    for name in ("key", "other"):
        sealflow.verify(ref, identities=str(tmp_path / f"{name}.pem.pub"), audit=JsonLinesSink(str(log)))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["outcome"] for event in events if event["phase"] == "outcome"] == ["passed", "failed"]
    assert events[1]["signers"] == [f"sha256:{key.hint}"], "each key once, however much it signed"
    assert events[1]["producer"] == "airflow:train/fit"
    assert {"signers", "producer"}.isdisjoint(events[3]), "a key that nobody named was taken down as a signer"
    assert {"signers", "producer"}.isdisjoint(events[0])
