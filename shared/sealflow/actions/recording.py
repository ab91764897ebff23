"""Intent before, outcome after: the audit frame around every action."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Literal

from sealflow.actions.context import Surroundings
from sealflow.audit import AuditEvent, AuditSink, JsonLinesSink, default_path
from sealflow.errors import SealflowError, VerificationError
from sealflow.findings import Verdict


def sink_for(surroundings: Surroundings) -> AuditSink:
    """Return the sink that the settings name, or the default one."""
    return JsonLinesSink(os.path.expanduser(surroundings.settings.audit_log or default_path()))


class Recording:
    """Records one action. Entering makes the intent durable; leaving records the outcome, errors included.

    Args:
        action: The verb.
        artifact: Location without credentials.
        surroundings: Who acts.
        key: Fingerprint of the key that is about to be used.
        sink: Takes the events.

    Raises:
        UnavailableError: An event could not be made durable.
    """

    def __init__(
        self, action: str, artifact: str, surroundings: Surroundings, *, key: str = "", sink: AuditSink | None = None
    ) -> None:
        self._sink = sink or sink_for(surroundings)
        self._intent = AuditEvent(action, "intent", surroundings.run, artifact[:4096], key=key)
        self._outcome: Literal["done", "passed", "failed", "unverifiable", "error"] = "done"
        self._codes: tuple[str, ...] = ()
        self._digest = self._policy = self._producer = ""
        self._signers: tuple[str, ...] = ()

    def done(self, digest: str) -> None:
        """Note what was made."""
        self._digest = digest

    def judged(self, verdict: Verdict) -> None:
        """Note a verdict."""
        self._outcome = verdict.status
        deciding = [finding.code for finding in verdict.findings if finding.severity in ("refusal", "unverifiable")]
        # Whoever reads the log must see that nobody read the bytes this time.
        self._codes = tuple(dict.fromkeys([*deciding, *(["VERDICT_REUSED"] if verdict.reused else [])]))
        self._digest, self._policy, self._producer = verdict.digest, verdict.policy, verdict.producer
        self._signers = tuple(dict.fromkeys(signer.key for signer in verdict.signers))

    def __enter__(self) -> Recording:
        self._sink.record(self._intent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, VerificationError):
            self.judged(error.verdict)
        elif error is not None:
            self._outcome = "error"
            self._codes = (error.code if isinstance(error, SealflowError) else type(error).__name__,)
        event = AuditEvent(
            self._intent.action,
            "outcome",
            self._intent.run,
            self._intent.artifact,
            digest=self._digest,
            key=self._intent.key,
            outcome=self._outcome,
            codes=self._codes,
            policy=self._policy,
            signers=self._signers,
            producer=self._producer,
            correlation=self._intent.correlation,
        )
        try:
            self._sink.record(event)
        except SealflowError:
            # The first error is the one to show; without one the missing record is the error.
            if error is None:
                raise
