"""Many writers at once into one store: none fails, and nobody sees half an object."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import pytest

import sealflow
from sealflow.hashing import sha256_hex
from tests.attacks.world import World
from tests.audit_events import read_events


def _sign(artifact: str, signer: str, times: int, log: str) -> int:
    os.environ["SEALFLOW_AUDIT_SPOOL"] = log
    for _ in range(times):
        sealflow.sign(artifact, signer=signer)
    return times


@pytest.mark.slow
def test_many_processes_sign_the_same_artifact(tree: World, tmp_path: Path) -> None:
    processes, times = 6, 5
    log = tmp_path / "spool"
    context = multiprocessing.get_context("spawn")
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        # A reader beside the writers: each object is whole from the moment that it has its name.
        while not stop.is_set():
            for path in tree.objects():
                if sha256_hex(path.read_bytes()) not in path.name:
                    seen.append(path.name)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with context.Pool(processes) as pool:
            arguments = [(str(tree.artifact), tree.trainer.signer, times, str(log))] * processes
            assert pool.starmap(_sign, arguments) == [times] * processes
    finally:
        stop.set()
        watcher.join()
    assert seen == []
    objects = tree.objects()
    # ECDSA is randomised, so every signature is an object of its own; provenance too.
    assert len(objects) == 2 * (processes * times + 1)
    assert sorted(os.listdir(tree.evidence)) == [path.name for path in objects], "a temporary object was left"
    events = read_events(log)
    assert len(events) == 2 * processes * times
    assert {event["phase"] for event in events} == {"intent", "outcome"}
    outcome = tree.passes()
    assert not [finding for finding in outcome.verdict.findings if finding.code.startswith("EVIDENCE")]


@pytest.mark.slow
def test_verifying_while_others_sign(tree: World) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def sign() -> None:
        while not stop.is_set():
            try:
                sealflow.sign(str(tree.artifact), signer=tree.trainer.signer)
            except BaseException as error:
                errors.append(error)

    writer = threading.Thread(target=sign)
    writer.start()
    try:
        for _ in range(30):
            assert sealflow.verify(str(tree.artifact), identities=str(tree.trainer.public)).passed
    finally:
        stop.set()
        writer.join()
    assert errors == []


def test_killed_writer_leaves_nothing_that_counts(tree: World) -> None:
    """What a killed writer leaves has a private name, which no check reads."""
    (path,) = tree.objects("signature")
    half = path.with_name(f".{path.name}.0123456789abcdef")
    half.write_bytes(path.read_bytes()[:100])
    tree.passes()
    path.unlink()
    tree.refuses("SIGNATURE_MISSING")
