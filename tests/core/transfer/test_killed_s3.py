"""Transfers with a real S3 server in processes that are killed, at whatever they are just doing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.verify import verify
from sealflow.storage import Storages
from tests.core.transfer.world import read_tree, write_tree
from tests.pki import KeyPair, write_key
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

PROGRAM = """
import json, sys
verb, options = sys.argv[1], json.loads(sys.argv[2])
if verb == "upload":
    from sealflow.actions.upload import upload_artifact as act
else:
    from sealflow.actions.download import download_artifact as act
print("ready", flush=True)
act(options.pop("from"), options.pop("to"), **options)
"""


class Field:
    """A source of four parts, keys, and a bucket behind a proxy that writes down what passes."""

    def __init__(self, folder: Path, server: S3Server, bucket: str, proxy: FaultProxy) -> None:
        self.folder, self.server, self.proxy = folder, server, proxy
        self.key: KeyPair = write_key(folder, "trainer")
        (folder / "team.key").write_bytes(os.urandom(32))
        self.reader = {"recipients": f"aes:{folder / 'team.key'}", "identities": str(self.key.public)}
        self.place = f"s3://{bucket}/model.sealed"
        self.files = {"weights.bin": os.urandom(26 << 20), "run.sh": b"#!/bin/sh\n", "z.bin": os.urandom(1 << 20)}
        self.source = write_tree(folder / "source" / "model", self.files)

    def run(self, verb: str, options: dict[str, Any], seconds: float | None) -> bool:
        """Run one transfer, kill it so many seconds after its imports; tell whether it came to its end."""
        environment = {
            **os.environ,
            **replace(self.server, endpoint_url=self.proxy.endpoint).environment,
            "SEALFLOW_STATE_DIR": str(self.folder / "state"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, verb, json.dumps(options)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return False
        assert process.returncode == 0, errors
        return True

    def upload(self, seconds: float | None = None) -> bool:
        options = {
            "from": str(self.source),
            "to": self.place,
            "recipients": self.reader["recipients"],
            "signer": self.key.signer,
            "overwrite": True,
        }
        return self.run("upload", options, seconds)

    def download(self, seconds: float | None = None) -> bool:
        return self.run("download", {"from": self.place, "to": str(self.folder / "copy"), **self.reader}, seconds)

    def status(self) -> str:
        verdict = verify(self.place, storages=Storages(self.server.client()), **self.reader)
        return verdict.deciding_finding.code if verdict.deciding_finding is not None else verdict.status

    def sent(self) -> dict[tuple[str, str], set[str]]:
        """Digests of all that was sent whole, by upload and part; what a kill cut off has another digest."""
        found: dict[tuple[str, str], set[str]] = {}
        for seen in self.proxy.seen("UploadPart"):
            if seen.length != int(seen.headers["content-length"]):
                continue
            found.setdefault((seen.query["uploadId"], seen.query["partNumber"]), set()).add(seen.digest)
        return found


@pytest.fixture
def there(tmp_path: Path, s3_server: S3Server, s3_bucket: str) -> Iterator[Field]:
    with FaultProxy(s3_server.endpoint_url) as proxy:
        yield Field(tmp_path, s3_server, s3_bucket, proxy)


def test_upload(there: Field) -> None:
    """Before the first one is through nothing can be seen; afterwards the old one or the new one, whole."""
    begun = time.monotonic()
    assert there.upload()
    whole = time.monotonic() - begun
    assert there.status() == "passed"
    chance = random.Random(7)
    kills = 0
    for number in range(12):
        if number % 3 == 2:
            (there.source / "z.bin").write_bytes(os.urandom(1 << 20))
        # A machine that has become busier than when it was measured gets longer.
        while not there.upload(chance.uniform(0, whole) * (1 + kills / 12)):
            kills += 1
            assert kills < 100
            assert there.status() == "passed"
    assert there.upload()
    assert there.status() == "passed"
    assert kills > 3
    sent = there.sent()
    assert all(len(digests) == 1 for digests in sent.values())
    there.files["z.bin"] = (there.source / "z.bin").read_bytes()
    assert there.download()
    assert read_tree(there.folder / "copy") == there.files


def test_first_upload(there: Field) -> None:
    """Nothing lies there until all does, and what had arrived is not sent again."""
    delays = iter([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.2, 1.5])
    done = False
    while not done and (delay := next(delays, None)) is not None:
        done = there.upload(delay)
        assert there.status() in (("passed",) if done else ("passed", "ARTIFACT_MISSING"))
    assert done or there.upload()
    assert there.status() == "passed"
    assert all(len(digests) == 1 for digests in there.sent().values())


def test_download(there: Field) -> None:
    assert there.upload()
    begun = time.monotonic()
    assert there.download()
    whole = time.monotonic() - begun
    chance = random.Random(3)
    kills = 0
    for _ in range(8):
        shutil.rmtree(there.folder / "copy")
        shutil.rmtree(there.folder / "copy.evidence")
        while not there.download(chance.uniform(0, whole) * (1 + kills / 12)):
            kills += 1
            assert kills < 100
            assert not (there.folder / "copy").exists() or read_tree(there.folder / "copy") == there.files
        assert read_tree(there.folder / "copy") == there.files
        assert os.access(there.folder / "copy" / "run.sh", os.X_OK)
    assert kills > 2
    assert not list(there.folder.glob(".copy.*"))
