"""The audit log: appending to it, and re-computing all of a million entries.

Entries of 700 bytes in chains of ten or a hundred: each chain costs one signature. Verifying recomputes every hash,
tile and chain; the best of three is given.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.table import Figure
from sealflow import strictjson
from sealflow.actions.audit_scan import scan_all
from sealflow.audit import merkle
from sealflow.audit.append import append
from sealflow.audit.checkpoint import Checkpoint, sign_checkpoint
from sealflow.audit.entry import FORMAT, NO_PREV
from sealflow.audit.log import open_log
from sealflow.audit.note import VerifierKey
from sealflow.keys import load_signer
from sealflow.storage import Storages
from sealflow.verification.audit_log import Demands, verify_log

_ORIGIN = "log.example/benchmark"
_BATCH = 100_000
#: Entries of a chain: runs of few actions, and of many.
_CHAINS = (10, 100)


def measure(folder: Path, rounds: int, quick: bool) -> list[Figure]:
    """Measure with a million entries of 700 bytes each, or 20,000."""
    count = 20_000 if quick else 1_000_000
    rows: list[Figure] = []
    for length in _CHAINS:
        where = folder / str(length)
        where.mkdir()
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (where / "log.pem").write_bytes(pem)
        signer = load_signer(f"file:{where}/log.pem")
        log = open_log(str(where / "log"), Storages())
        size, root = 0, merkle.EMPTY_ROOT
        appending = storing = 0.0
        lines: list[bytes] = []
        for line in _lines(count, length):
            lines.append(line)
            if len(lines) == _BATCH or size + len(lines) == count:
                start = time.perf_counter()
                added = append(log.get, size, lines, root=root)
                appended = time.perf_counter()
                log.create_all(added.objects)
                storing += time.perf_counter() - appended
                appending += appended - start
                size, root, lines = added.size, added.root, []
        log.swap_checkpoint(None, sign_checkpoint(Checkpoint(_ORIGIN, size, root), signer))
        demands = Demands(VerifierKey.of(signer, _ORIGIN))
        walls = []
        for _ in range(min(rounds, 3)):
            start = time.perf_counter()
            report = verify_log(log.get, log.uri, demands, lambda size: scan_all(log, size))  # noqa: B023
            walls.append(time.perf_counter() - start)
            if not report.verdict.passed:
                raise RuntimeError(report.verdict.summary())
        # What was promised holds for runs as they are at work, of dozens of events; a signature a chain is the rest.
        bound = 6.0 if length == max(_CHAINS) and not quick else None
        name = f"verify {count:,} entries, chains of {length}"
        rows.append(Figure(name, min(walls), "s", most=bound))
        if length == max(_CHAINS):
            rows.append(Figure("append, in memory", size / appending, "entries/s", least=100_000))
            rows.append(Figure("write tiles and bundles, with fsync", size / storing, "entries/s"))
    return rows


def _lines(count: int, length: int) -> Iterator[bytes]:
    """Yield entries of chains, four at a time in turn; only the signatures that a verification looks at are real."""
    unseen = base64.b64encode(bytes(64))
    made = 0
    while made < count:
        for row in zip(*[list(_chain(length, unseen)) for _ in range(4)], strict=True):
            for line in row:
                if made < count:
                    yield line
                made += 1


def _chain(length: int, unseen: bytes) -> Iterator[bytes]:
    key = Ed25519PrivateKey.generate()
    writer = key.public_key().public_bytes_raw().hex().encode()
    prev = NO_PREV.encode()
    for number in range(length):
        last = number == length - 1
        event = {
            "action": "end" if last else "verify",
            "artifact": f"s3://models/churn/{os.urandom(8).hex()}/" + "weights-" * 18,
            "correlation": os.urandom(16).hex(),
            "id": os.urandom(16).hex(),
            "phase": "end" if last else "intent",
            "sealflow_audit": 1,
            "time": "2026-01-02T10:00:00.000000+00:00",
            **({"count": length} if last else {}),
        }
        signed = b" ".join((FORMAT, writer, b"%d" % number, prev, strictjson.dumps(event)))
        line = signed + b" " + (base64.b64encode(key.sign(signed)) if last else unseen)
        prev = hashlib.sha256(b"\0" + line).hexdigest().encode()
        yield line
