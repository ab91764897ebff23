"""One encrypted artifact, everybody who may want to harm it, and what each of them can do."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sealflow
from sealflow.actions.download import download_artifact
from sealflow.actions.reading import reading
from sealflow.actions.upload import Uploaded, upload_artifact
from sealflow.encryption import Recipient, decrypt_message, load_recipient, parse_header
from sealflow.encryption.recipient import unwrap_data_key
from sealflow.errors import SealflowError, VerificationError
from sealflow.evidence import ArtifactRef, EvidenceStore, make_bundle
from sealflow.evidence.encryption import FrameDigests, MessageId, make_encryption_statement
from sealflow.evidence.oms import make_oms_statement
from sealflow.evidence.provenance import make_provenance_statement
from sealflow.findings import Verdict
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import load_signer
from sealflow.manifest import Manifest, Resource
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages
from sealflow.transfer.archive import END, INDEX, SIGNATURE, Member, archive_path, make_index, padding, tar_header
from tests.core.encryption.messages import forge, parts
from tests.core.transfer.world import read_tree, shaped, write_tree
from tests.pki import KeyPair, write_key

FILES: Mapping[str, bytes] = {
    "a.bin": b"first weights",
    "run.sh": b"#!/bin/sh\n",
    "sub/c.bin": hashlib.sha256(b"c").digest() * 20,
}
RUN = RunIdentity("airflow", "train", "fit", "run-1", None, 1)
FRAME = 512


@dataclass
class EncryptedWorld:
    """An artifact that ``trainer`` uploaded for ``team``.

    ``stranger`` has a signing key that nobody accepts, and knows everything that stands in clear. A recipient knows the
    data key too, and can make every frame and every index; what he cannot is sign as the trainer.

    Attributes:
        folder: Everything lies here.
        frame: Content bytes of a frame.
    """

    folder: Path
    files: Mapping[str, bytes] = field(default_factory=lambda: FILES)
    frame: int = FRAME
    uploaded: Uploaded = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trainer: KeyPair = write_key(self.folder, "trainer")
        self.stranger: KeyPair = write_key(self.folder, "stranger")
        self.team = self.secret("team")
        self.source = self.folder / "source" / "model"
        self.object = self.folder / "out" / "model.sealed"
        self.store = self.folder / "out" / "model.sealed.evidence"
        self.target = self.folder / "got" / "model"
        self.tmp = self.folder / "tmp"
        self.tmp.mkdir()
        os.environ["SEALFLOW_TMPDIR"] = str(self.tmp)  # every test has an environment of its own
        write_tree(self.source, self.files)
        self.uploaded = self.upload()
        self.before = self.object.read_bytes()

    def secret(self, name: str) -> str:
        path = self.folder / f"{name}.key"
        path.write_bytes(hashlib.sha256(name.encode()).digest())
        return f"aes:{path}"

    def upload(self, **options: Any) -> Uploaded:
        given = {"recipients": [self.team], "signer": self.trainer.signer, "name": "model", **options}
        with sealflow.run(sealflow.Surroundings(RUN)), shaped(self.frame, 4):
            return upload_artifact(given.pop("source", self.source), str(given.pop("to", self.object)), **given)

    # --- what lies there ---

    @property
    def ref(self) -> ArtifactRef:
        return self.uploaded.ref

    @property
    def message(self) -> MessageId:
        return MessageId(self.uploaded.message)

    @property
    def evidence(self) -> Path:
        """Folder of the evidence about the object."""
        return self.store / self.message.path_segment

    def objects(self, kind: str, folder: Path | None = None) -> list[Path]:
        return sorted((folder or self.evidence).glob(f"{kind}-*"))

    def only(self, kind: str) -> Path:
        (path,) = self.objects(kind)
        return path

    def statement(self) -> dict[str, Any]:
        return json.loads(base64.b64decode(json.loads(self.only("encryption").read_bytes())["dsseEnvelope"]["payload"]))

    # --- what a recipient knows ---

    @property
    def opener(self) -> Recipient:
        return load_recipient(self.team)

    @property
    def plaintext(self) -> bytes:
        return decrypt_message(self.before, [self.opener], expected={})

    @property
    def data_key(self) -> bytes:
        return unwrap_data_key(parse_header(self.before), [self.opener])

    def encrypt(self, plaintext: bytes, *, fresh: bool = False, **changes: Any) -> bytes:
        """Encrypt under the artifact's own data key, message id and header, or under others."""
        header = parse_header(self.before)
        given: dict[str, Any] = {
            "data_keys": header.data_keys,
            "data_key": self.data_key,
            "context": dict(header.context.pairs),
            "frame_length": self.frame,
            "message_id": os.urandom(32) if fresh else header.message_id,
            **changes,
        }
        return forge(plaintext, **given)

    # --- what a signer can say ---

    def put(self, message: bytes) -> None:
        """Put an object in the artifact's place."""
        self.object.write_bytes(message)

    def bind(self, message: bytes, artifact: Digest, *, signer: str | None = None, provenance: bool = True) -> None:
        """Sign for an object: its frames, and where the content came from."""
        header, frames, _ = parts(message)
        digests = FrameDigests(b"".join(hashlib.sha256(piece).digest() for piece in (header, *frames)))
        about = MessageId(parse_header(message).message_id.hex())
        now = datetime.datetime.now(datetime.timezone.utc)
        key = load_signer(signer or self.trainer.signer)
        store = EvidenceStore(str(self.store), Storages())
        store.put_list(about, digests.data)
        store.put(
            about, "encryption", make_bundle(make_encryption_statement(about, digests, artifact, RUN, now=now), key)
        )
        if provenance:
            store.put(about, "provenance", make_bundle(make_provenance_statement("model", artifact, RUN, now=now), key))

    def archive(
        self,
        files: Mapping[str, bytes],
        *,
        signer: str | None = None,
        signed: Mapping[str, bytes] | None = None,
        executable: Callable[[str], bool] = lambda name: name.endswith(".sh"),
    ) -> tuple[bytes, Digest]:
        """Return an archive of files with the OMS bundle of a signer over them, or over others, and its digest."""
        made, members = bytearray(), []
        for name, content in sorted(files.items()):
            made += tar_header(archive_path("tree", "model", name), len(content), executable=executable(name))
            members.append(Member(name, len(made), len(content), sha256_hex(content), executable(name)))
            made += content + bytes(padding(len(content)))
        manifest = manifest_of(signed if signed is not None else files)
        bundle = make_bundle(make_oms_statement(manifest), load_signer(signer or self.trainer.signer))
        made += tar_header(SIGNATURE, len(bundle))
        place = (len(made), len(bundle))
        made += bundle + bytes(padding(len(bundle)))
        index = make_index("tree", "model", members, place)
        return bytes(made + tar_header(INDEX, len(index)) + index + END), manifest.digest

    # --- what everybody else sees ---

    def options(self, **options: Any) -> dict[str, Any]:
        return {"recipients": [self.team], "identities": {"trainer": str(self.trainer.public)}, **options}

    def check(self, target: Any = None, **options: Any) -> Verdict:
        return sealflow.verify(target or str(self.object), **self.options(**options))

    def passes(self) -> None:
        for target in (None, self.ref):
            assert self.check(target).status == "passed"

    def refuses(self, *codes: str, status: str = "failed", parts: bool = True, **options: Any) -> Verdict:
        """Check in every way that there is, and expect that nothing is given out and nothing left.

        Args:
            codes: One of them decides.
            status: What comes of it.
            parts: Whether those who read parts of it are refused, too.
            options: Of the check.
        """
        verdict = self.check(**options)
        assert verdict.status == status, verdict.summary()
        assert verdict.deciding_finding is not None
        if codes:
            assert verdict.deciding_finding.code in codes, verdict.as_dict()
        assert self.check(self.ref, **options).status == status
        assert self.download(**options) == status
        assert not parts or self.reads(**options) == status
        return verdict

    def download(self, target: Any = None, **options: Any) -> str:
        """Download and return the status; nothing lies at the destination, or whole what was uploaded."""
        try:
            download_artifact(target or str(self.object), self.target, **self.options(**options))
        except VerificationError as error:
            assert os.listdir(self.target.parent) == []
            return error.verdict.status
        finally:
            assert os.listdir(self.tmp) == []
        assert read_tree(self.target) == self.files
        shutil.rmtree(self.target.parent)
        return "passed"

    def reads(self, **options: Any) -> str:
        """Read a range of each file; nothing but what was uploaded comes out."""
        try:
            with reading(str(self.object), **self.options(**options)) as artifact:
                found = {member.name: artifact.read(member.name) for member in artifact.files}
        except VerificationError as error:
            return error.verdict.status
        except SealflowError:
            return "failed"
        assert found == self.files
        return "passed"


def manifest_of(files: Mapping[str, bytes]) -> Manifest:
    return Manifest("tree", "model", tuple(Resource(name, sha256_hex(data)) for name, data in sorted(files.items())))


def flips(data: bytes, bits: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes with one bit flipped, for each of these bits."""
    for bit in bits:
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(altered)
