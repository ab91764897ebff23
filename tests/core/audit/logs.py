"""Logs and their keys, made for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealflow.audit import merkle
from sealflow.audit.append import append
from sealflow.audit.checkpoint import NAME, Checkpoint, open_checkpoint, sign_checkpoint
from sealflow.audit.entry import Chain
from sealflow.audit.log import LogStore, open_log
from sealflow.audit.note import VerifierKey
from sealflow.keys import KeySigner, load_signer
from sealflow.storage import Storages

ORIGIN = "log.example/audit"


def ed25519_signer(folder: Path, name: str = "log") -> KeySigner:
    """A signer whose key lies in a file; the same name gives the same key."""
    path = folder / f"{name}.pem"
    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(pem)
    return load_signer(f"file:{path}")


class MadeLog:
    """A log, and what appends to it as an integrator does."""

    def __init__(self, folder: Path, uri: str | None = None, origin: str = ORIGIN, key: str = "log") -> None:
        self.signer = ed25519_signer(folder, key)
        self.key = VerifierKey.of(self.signer, origin)
        self.store: LogStore = open_log(uri or str(folder / "log"), Storages())
        self.checkpoint: bytes | None = None

    @property
    def size(self) -> int:
        """Entries so far."""
        return self._state()[0]

    def _state(self) -> tuple[int, bytes]:
        if self.checkpoint is None:
            return 0, merkle.EMPTY_ROOT
        opened = open_checkpoint(self.checkpoint, self.key).checkpoint
        return opened.size, opened.root

    def add(self, lines: Sequence[bytes]) -> bytes:
        """Append lines, and return the new checkpoint."""
        size, root = self._state()
        added = append(self.store.get, size, lines, root=root)
        self.store.create_all(added.objects)
        note = sign_checkpoint(Checkpoint(self.key.name, added.size, added.root), self.signer)
        assert self.store.swap_checkpoint(self.checkpoint, note)
        self.checkpoint = note
        return note

    def path(self, name: str = NAME) -> Path:
        """The file of an object, for logs in folders."""
        return Path(self.store.uri.removeprefix("file://")) / name


def event(number: int = 0, **members: object) -> bytes:
    """The canonical JSON of an event that has what the log looks at."""
    body = {
        "sealflow_audit": 1,
        "id": f"{number:032x}",
        "time": "2026-01-02T10:00:00.000000+00:00",
        "action": "verify",
        "phase": "intent",
        "correlation": f"{number // 2:032x}",
        **members,
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def chain_lines(count: int, *, end: bool = True, first: int = 0) -> list[bytes]:
    """The entries of one writer: ``count`` of them, the last of which says so."""
    chain = Chain()
    lines = [chain.add(event(first + number)).line for number in range(count - end)]
    if end:
        lines.append(chain.add(event(first + count, phase="end", action="end", count=count)).line)
    return lines
