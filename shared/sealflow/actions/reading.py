"""Reading parts of an encrypted artifact: judged by its evidence, and only signed frames are released."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from sealflow.actions.encrypted import opened
from sealflow.actions.recording import Recording
from sealflow.actions.verify import judge_opened, judged_opening, settle
from sealflow.audit import AuditSink
from sealflow.encryption.refusal import refused
from sealflow.errors import UsageError, VerificationError
from sealflow.evidence import ArtifactRef
from sealflow.findings import Finding, Verdict, printable
from sealflow.keys import PassphraseCallback
from sealflow.storage import Storages
from sealflow.transfer.archive import Member
from sealflow.transfer.receive import EncryptedArtifact

if TYPE_CHECKING:
    from sealflow.policy.compose import CompiledPolicy

_PIECE: Final = 8 << 20


@dataclass(frozen=True)
class Reading:
    """An encrypted artifact that may be read.

    Attributes:
        verdict: What its evidence came to. Bytes were not read for it: each frame is compared with its signed digest
            when it is read.
    """

    verdict: Verdict
    _artifact: EncryptedArtifact
    _open: list[bool] = field(default_factory=lambda: [True], repr=False)

    @property
    def files(self) -> tuple[Member, ...]:
        """Its files: name, size and SHA-256."""
        return self._artifact.index.members

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Return a range of one file, cut at the file's end.

        Args:
            name: The file, relative to the artifact's root; the artifact's own name where it is a single file.
            start: First byte, from 0.
            length: Bytes; by default to the end.

        Raises:
            ArtifactError: There is no such file; or ``ARTIFACT_CHANGED``: another object lies there now.
            EvidenceError: ``MESSAGE_ALTERED``: a frame is not the signed one; ``FILE_CHANGED``: all of a file was read,
                and is not what was signed as this file.
            UsageError: A range that no file has; or the artifact was closed.
            UnavailableError: The store is out of reach.
        """
        return b"".join(self.pieces(name, start, length))

    def pieces(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield what :meth:`read` returns, in pieces of at most 8 MiB. Only after the last is a whole file known."""
        self._demand_open()
        member = self._artifact.member(name)
        if start < 0 or (length is not None and length < 0):
            raise UsageError("A range begins at 0 or later, and has a length of 0 or more.")
        at = min(start, member.size)
        end = member.size if length is None else min(member.size, at + length)
        digest = hashlib.sha256() if (at, end) == (0, member.size) else None
        while at < end:
            self._demand_open()
            piece = self._artifact.read(member.offset + at, min(_PIECE, end - at))
            if digest is not None:
                digest.update(piece)
            yield piece
            at += len(piece)
        if digest is not None and digest.hexdigest() != member.sha256:
            raise refused("FILE_CHANGED", f"{printable(name)} is not the file that was signed under this name.")

    def _demand_open(self) -> None:
        if not self._open:
            raise UsageError("The artifact cannot be read after the end of its `with`.")


@contextlib.contextmanager
def reading(
    artifact: str | os.PathLike[str] | ArtifactRef | dict[str, Any],
    *,
    recipients: Any = None,
    identities: Any = None,
    name: str | None = None,
    producer: str | None = None,
    evidence_store: str | None = None,
    require: Iterable[str] | None = None,
    policy: str | CompiledPolicy | None = None,
    passphrase: PassphraseCallback | None = None,
    storages: Storages | None = None,
    audit: AuditSink | None = None,
) -> Iterator[Reading]:
    """Open an encrypted artifact for reads of some of its bytes. Parameters are those of ``verify``.

    The evidence has to speak for the artifact that the index tells of, and an accepted signer for each frame: what is
    released is what was signed, but the files that were not read were not looked at.

    Raises:
        VerificationError: The verdict is not ``passed``; nothing can be read.
        UsageError: The artifact is not encrypted; a parameter or a setting cannot work.
        UnavailableError: The audit log is out of reach.
    """
    check = settle(
        artifact,
        identities=identities,
        name=name,
        producer=producer,
        evidence_store=evidence_store,
        require=require,
        policy=policy,
        recipients=recipients,
        passphrase=passphrase,
        storages=storages,
    )
    with contextlib.ExitStack() as stack:
        with Recording("read", check.canonical, check.surroundings, sink=audit, policy=check.added) as recording:
            check.unwrapped = recording.unwrapped

            def judge() -> Any:
                if not check.seems_encrypted():
                    raise UsageError(
                        "The artifact is not encrypted, or nothing is there.",
                        next_step="Open a clear artifact with `sealflow.verified`.",
                    )
                opening = stack.enter_context(opened(check))
                if opening.artifact is None:
                    return judge_opened(check, opening, None, None)
                return judge_opened(check, opening, opening.artifact.index.manifest(), None, unread=True)

            judgement = judged_opening(check, judge)
            recording.judged(judgement.verdict, judgement.location.version_id if judgement.location else None)
        verdict = judgement.verdict
        if not verdict.passed:
            final = verdict.status == "failed"
            raise (check.surroundings.refusal if final else VerificationError)(verdict)
        assert check.opened is not None  # noqa: S101  (it passed)
        note = Finding("RANGES_CHECKED", "note", check.canonical, "Only the frames that are read are checked.")
        found = Reading(replace(verdict, findings=(*verdict.findings, note)), check.opened)
        try:
            yield found
        finally:
            found._open.clear()
