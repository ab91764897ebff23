"""An artifact that is uploaded, and everybody around it: signer, recipient, store, whoever downloads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.download import Downloaded, download_artifact
from sealflow.actions.upload import Uploaded, upload_artifact
from sealflow.actions.verify import verify
from sealflow.encryption import Recipient, decrypt_message, load_recipient
from sealflow.evidence import EvidenceStore
from sealflow.evidence.encryption import FrameDigests, MessageId
from sealflow.findings import Verdict
from sealflow.storage import Storages
from sealflow.transfer.receive import EncryptedArtifact, look
from sealflow.transfer.send import Shape
from tests import trees
from tests.core.transfer.stores import FolderStore, Stores
from tests.pki import KeyPair, write_key

TREE: Mapping[str, bytes] = {
    "config.json": b'{"layers": 3}',
    "empty": b"",
    "run.sh": b"#!/bin/sh\necho fine\n",
    "sub/weights.bin": hashlib.sha256(b"weights").digest() * 40,
}
PLACE = "s3://bucket/model.sealed"


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder; scripts can be executed."""
    trees.write_tree(folder, files)
    for name in files:
        (folder / name).chmod(0o755 if name.endswith(".sh") else 0o644)
    return folder


def read_tree(path: Path) -> dict[str, bytes]:
    """Return name → bytes of a folder; of a file under its own name."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {str(item.relative_to(path)): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}


def giving_away(patch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return what makes a file or folder, once open, look like another user's: only root can really give one away."""
    given: set[tuple[int, int]] = set()
    fstat = os.fstat

    def told(fd: int) -> os.stat_result:
        info = fstat(fd)
        if (info.st_dev, info.st_ino) not in given:
            return info
        fields = {name: getattr(info, name) for name in dir(info) if name.startswith("st_")}
        return os.stat_result((*info[:4], info.st_uid + 1, *info[5:]), fields)

    def away(path: Path) -> None:
        info = path.stat()
        given.add((info.st_dev, info.st_ino))

    patch.setattr(os, "fstat", told)
    return away


@contextmanager
def shaped(frame: int, frames: int, *, worth: int = 0) -> Iterator[None]:
    """Cut every message in frames and parts of this size, and write down even the smallest upload."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shape, "of", classmethod(lambda cls, size, most_parts: cls(frame, frames)))
        patch.setattr("sealflow.actions.upload._WORTH_RESUMING", worth)
        yield


@dataclass
class Sender:
    """Somebody who uploads ``source`` to a place, and everything that this takes.

    Attributes:
        folder: Everything lies here.
        files: The artifact; a file of its own where it is one called ``model``.
    """

    folder: Path
    files: Mapping[str, bytes] = field(default_factory=lambda: dict(TREE))
    place: str = PLACE

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key: KeyPair = write_key(self.folder, "trainer")
        self.stranger: KeyPair = write_key(self.folder, "stranger")
        self.recipients = [self.secret("team")]
        self.store = FolderStore(self.folder / "store")
        self.source = self.folder / "model"
        self.write(self.files)
        os.environ["SEALFLOW_STATE_DIR"] = str(self.folder / "state")  # every test has an environment of its own

    def secret(self, name: str) -> str:
        """Return the URI of a symmetric key, made when first asked for."""
        path = self.folder / f"{name}.key"
        if not path.exists():
            path.write_bytes(hashlib.sha256(name.encode()).digest())
        return f"aes:{path}"

    def write(self, files: Mapping[str, bytes]) -> None:
        if list(files) == ["model"]:
            self.source.write_bytes(files["model"])
        else:
            write_tree(self.source, files)

    @property
    def storages(self) -> Storages:
        return Stores(self.store)

    def upload(self, **options: Any) -> Uploaded:
        given = {"recipients": self.recipients, "signer": self.key.signer, "storages": self.storages, **options}
        return upload_artifact(given.pop("source", self.source), given.pop("destination", self.place), **given)

    def options(self, **options: Any) -> dict[str, Any]:
        return {
            "recipients": self.recipients,
            "identities": str(self.key.public),
            "storages": self.storages,
            **options,
        }

    def verify(self, target: Any = None, **options: Any) -> Verdict:
        return verify(target or self.place, **self.options(**options))

    def download(self, target: Any = None, to: str = "copy", **options: Any) -> Downloaded:
        return download_artifact(target or self.place, self.folder / "out" / to, **self.options(**options))

    def copy(self, to: str = "copy") -> dict[str, bytes]:
        return read_tree(self.folder / "out" / to)

    def left(self) -> list[str]:
        """What lies where downloads go, hidden or not."""
        return sorted(os.listdir(self.folder / "out")) if (self.folder / "out").exists() else []

    # --- with the key ---

    @property
    def opener(self) -> Recipient:
        return load_recipient(self.recipients[0])

    @property
    def message(self) -> bytes:
        data = self.store.content(self.place)
        assert data is not None
        return data

    @property
    def plaintext(self) -> bytes:
        return decrypt_message(self.message, [self.opener], expected={})

    @contextmanager
    def opened(self, uploaded: Uploaded) -> Iterator[EncryptedArtifact]:
        """Open the object as a download does after the evidence was judged."""
        sealed = look(self.store, self.place)
        assert sealed is not None
        with sealed.object:
            yield EncryptedArtifact(sealed, self.digests(uploaded), [self.opener], expected={})

    def digests(self, uploaded: Uploaded) -> FrameDigests:
        folder = f"{uploaded.ref.evidence}/{MessageId(uploaded.message).path_segment}"
        (name,) = [item for item in self.store.list_objects(folder, 100) if item.startswith("frames-")]
        data = EvidenceStore(uploaded.ref.evidence, self.storages).get_list(
            MessageId(uploaded.message), name[7:-4], 1 << 30
        )
        assert data is not None
        return FrameDigests(data)
