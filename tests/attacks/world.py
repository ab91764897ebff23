"""One signed artifact, its signer, and the four ways of checking it."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sealflow
from sealflow.actions.sign import Signed
from sealflow.actions.verify import held
from sealflow.errors import VerificationError
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.statement import make_statement
from sealflow.findings import Verdict
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import load_signer
from sealflow.run_identity import RunIdentity
from tests.pki import KeyPair, write_key

TREE = {"a.bin": b"first weights", "b.bin": b"other weights", "sub/c.json": b'{"layers": 3}'}
FILE = b"the one and only model"
RUN = RunIdentity("airflow", "train", "fit", "run-1", None, 1)
#: Codes that only inform.
INFORMATION = frozenset({"refusal", "unverifiable"})


@dataclass(frozen=True)
class Outcome:
    """What a check answered, and what it left behind."""

    verdict: Verdict
    handed_out: dict[str, bytes] | None
    left_behind: list[str]

    @property
    def status(self) -> str:
        return self.verdict.status

    @property
    def code(self) -> str | None:
        first = self.verdict.deciding_finding
        return first.code if first else None

    @property
    def codes(self) -> set[str]:
        return {finding.code for finding in self.verdict.findings if finding.severity in INFORMATION}

    @property
    def noted(self) -> set[str]:
        return {finding.code for finding in self.verdict.findings if finding.severity not in INFORMATION}


@dataclass
class World:
    """An artifact signed by ``trainer`` in a folder of its own.

    Attributes:
        folder: Everything lies here.
        kind: ``file`` or ``tree``.
        pinned: Whether checks are given the reference instead of the path.
        held: Whether checks ask for the held copy instead of the gate's answer.
    """

    folder: Path
    kind: str
    pinned: bool = False
    held: bool = False
    trainer: KeyPair = field(init=False)
    stranger: KeyPair = field(init=False)
    signed: Signed = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.trainer = write_key(self.folder, "trainer")
        self.stranger = write_key(self.folder, "stranger")
        self.tmp = self.folder / "tmp"
        self.tmp.mkdir()
        self.artifact = self.folder / "model"
        if self.kind == "tree":
            for name, data in TREE.items():
                (self.artifact / name).parent.mkdir(parents=True, exist_ok=True)
                (self.artifact / name).write_bytes(data)
        else:
            self.artifact.write_bytes(FILE)
        self.signed = self.sign()

    # --- the artifact ---

    @property
    def victim(self) -> Path:
        """One file of the artifact."""
        return self.artifact / "a.bin" if self.kind == "tree" else self.artifact

    def content(self) -> dict[str, bytes]:
        """Return name → bytes as they lie there now."""
        return read_all(self.artifact)

    # --- evidence ---

    @property
    def store(self) -> Path:
        return self.folder / "model.evidence"

    @property
    def evidence(self) -> Path:
        """The folder of the artifact's evidence."""
        return self.store / self.signed.ref.digest.path_segment

    def objects(self, kind: str = "") -> list[Path]:
        return sorted(self.evidence.glob(f"{kind}*.json"))

    def bundle(self, kind: str) -> dict[str, Any]:
        """Return a parsed bundle of ours."""
        (path,) = self.objects(kind)
        return json.loads(path.read_bytes())

    def plant(self, data: bytes | dict[str, Any], kind: str = "signature", *, digest: Digest | None = None) -> Path:
        """Put an object into the store under the name that its bytes deserve."""
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        folder = self.store / (digest or self.signed.ref.digest).path_segment
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{kind}-{sha256_hex(data)}.json"
        path.write_bytes(data)
        return path

    def remove(self, kind: str = "") -> None:
        for path in self.objects(kind):
            path.unlink()

    def sign(self, *, signer: str | None = None, run: RunIdentity = RUN, **options: Any) -> Signed:
        with sealflow.run(sealflow.Surroundings(run)):
            return sealflow.sign_artifact(self.artifact, signer=signer or self.trainer.signer, **options)

    def statement(
        self,
        predicate_type: str,
        predicate: dict[str, Any],
        digests: dict[str, str],
        *,
        name: str = "model",
        signer: str | None = None,
    ) -> bytes:
        """Return a bundle over any statement, truly signed."""
        return make_bundle(
            make_statement(name, digests, predicate_type, predicate), load_signer(signer or self.trainer.signer)
        )

    def payload(self, kind: str) -> dict[str, Any]:
        return json.loads(base64.b64decode(self.bundle(kind)["dsseEnvelope"]["payload"]))

    # --- checks ---

    def check(self, target: Any = None, **options: Any) -> Outcome:
        """Check in this world's way."""
        target = target if target is not None else self.signed.ref if self.pinned else str(self.artifact)
        options.setdefault("identities", {"trainer": str(self.trainer.public)})
        os.environ["SEALFLOW_TMPDIR"] = str(self.tmp)
        handed_out = None
        if self.held:
            try:
                with held(target, **options) as (path, verdict):
                    handed_out = read_all(Path(path))
                    assert Path(path).name == "model" or Path(path).is_dir()
            except VerificationError as error:
                verdict = error.verdict
        else:
            verdict = sealflow.verify(target, **options)
        return Outcome(verdict, handed_out, os.listdir(self.tmp))

    def passes(self, target: Any = None, **options: Any) -> Outcome:
        """Check and expect a pass."""
        outcome = self.check(target, **options)
        assert outcome.status == "passed", outcome.verdict.summary()
        assert outcome.verdict.exit_status == 0
        assert outcome.left_behind == []
        assert (outcome.handed_out is not None) is self.held
        return outcome

    def refuses(self, codes: str | set[str], exit_status: int = 3, target: Any = None, **options: Any) -> Outcome:
        """Check and expect a refusal (or, with exit status 5, that nobody can say) for one of the codes."""
        outcome = self.check(target, **options)
        wanted = {codes} if isinstance(codes, str) else codes
        assert outcome.status == ("unverifiable" if exit_status == 5 else "failed"), outcome.verdict.as_dict()
        assert outcome.code in wanted, outcome.verdict.as_dict()
        assert outcome.verdict.exit_status == exit_status, outcome.verdict.as_dict()
        assert outcome.handed_out is None
        assert outcome.left_behind == []
        return outcome


def read_all(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {str(item.relative_to(path)): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}


def copy_evidence(source: World, target: World) -> None:
    """Copy all evidence of one artifact to where another's is looked for, names kept."""
    target.evidence.mkdir(parents=True, exist_ok=True)
    for path in source.objects():
        shutil.copy(path, target.evidence / path.name)


Attack = Callable[[World], object]
