"""Intent before, outcome after: the audit frame around every action."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

from sealflow.actions import context
from sealflow.actions.context import Settings, Surroundings
from sealflow.audit import AuditEvent, AuditSink
from sealflow.audit.event import MAX_SHORT, MAX_TEXT, vouched
from sealflow.audit.spool import default_spool
from sealflow.audit.writer import Writer, writer_for
from sealflow.errors import SealflowError, UnavailableError, UsageError, VerificationError
from sealflow.findings import Verdict, printable
from sealflow.run_identity import RunIdentity

if TYPE_CHECKING:
    from sealflow.actions.audit_level import Wait
    from sealflow.encryption.header import EncryptedDataKey
    from sealflow.policy.compose import CompiledPolicy, Ruling

#: Members of events that a deployment may call personal.
PERSONAL: Final = frozenset({"artifact", "host", "triggered_by"})

_told: set[str] = set()


def sink_for(surroundings: Surroundings) -> AuditSink:
    """Return this process's writer for the run, which writes where the settings say.

    A spool that they name outlives the process, so an event is durable there and the inbox has it later. With an inbox
    alone it is durable in the inbox. With neither it goes to this machine's default spool.

    Raises:
        UsageError: The settings name no inbox, or a signer that is none.
    """
    run, settings = surroundings.run, surroundings.settings
    spool, inbox = _delivery(settings)
    if run.orchestrator == "kfp" and not (settings.audit_spool or settings.audit_inbox):
        _tell_once(
            "AUDIT_EPHEMERAL: neither `audit_inbox` nor `audit_spool` is set, so the audit events of this task end "
            "with its pod."
        )

    def make() -> Writer:
        vouch = _voucher(settings.audit_signer, run) if settings.audit_signer else None
        if spool is not None:
            return Writer(run, spool=spool, vouch=vouch)
        assert inbox is not None  # noqa: S101
        from sealflow.audit.inbox import open_inbox
        from sealflow.storage import Storages

        return Writer(run, inbox=lambda: open_inbox(inbox, Storages()), vouch=vouch)

    return writer_for((run, spool, inbox, settings.audit_signer), make, context.entered())


def _voucher(uri: str, run: RunIdentity) -> Callable[[str], Mapping[str, str]]:
    def vouch(writer: str) -> Mapping[str, str]:
        from sealflow.keys import load_signer

        key = load_signer(uri)
        signature = base64.b64encode(key.sign(vouched(writer, run))).decode("ascii")
        return {"key": f"sha256:{key.public_key.hint}", "signature": signature}

    return vouch


def _tell_once(text: str) -> None:
    if text not in _told:
        _told.add(text)
        import logging

        logging.getLogger(__name__).warning("%s", text)


class Recording:
    """Records one action. Entering makes the intent durable; leaving records the outcome, errors included.

    Args:
        action: The verb.
        artifact: Location without credentials.
        surroundings: Who acts.
        key: Fingerprint of the key that is about to be used.
        sink: Takes the events.
        policy: One more policy, as the action takes it.
        ruled: Whether rules of a policy can be about what it is done to; none are about policies and keys.
        names: Logical names that the artifact is signed or expected under, which rules may name it by.

    Raises:
        UnavailableError: An event could not be made durable, or did not get as far as the policy demands.
        UsageError: The settings cannot show what the policy demands.
    """

    def __init__(
        self,
        action: str,
        artifact: str,
        surroundings: Surroundings,
        *,
        key: str = "",
        sink: AuditSink | None = None,
        policy: str | CompiledPolicy | None = None,
        ruled: bool = True,
        names: Sequence[str] = (),
    ) -> None:
        self._sink = sink or sink_for(surroundings)
        self._settings = surroundings.settings
        self._ask: Callable[[Sequence[str]], Ruling | None] | None = None
        self._ruling: Ruling | None = None
        self._wait: Wait | None = None
        #: Names with which the policies were asked; ``None`` while they gave no answer.
        self._names: tuple[str, ...] | None = None
        if ruled and (surroundings.admin is not None or policy is not None):
            from sealflow.actions.audit_level import ruling_for

            self._ask = partial(ruling_for, artifact, surroundings, policy)
            # The action itself runs into a policy that is not to be had, and says it better. If it does not, the
            # policy is asked again before the outcome is recorded.
            with contextlib.suppress(UnavailableError):
                self._rule_on(tuple(names))
        self._said = {"artifact": artifact, "host": os.uname().nodename, "triggered_by": surroundings.triggered_by}
        self._intent = AuditEvent(action, "intent", surroundings.run, key=key)
        self._outcome: Literal["done", "passed", "failed", "unverifiable", "error"] = "done"
        self._codes: tuple[str, ...] = ()
        self._digest = self._version = self._policy = self._rule = self._producer = ""
        self._signers: tuple[str, ...] = ()
        self._evidence: tuple[str, ...] = ()
        self._recipient = self._name = ""

    def done(self, digest: str, version: str | None = None) -> None:
        """Note what was made, and as which version of the object, where the store keeps versions."""
        self._digest, self._version = digest, version or ""

    def made(self, *bundles: str) -> None:
        """Note bundles of evidence, by their names in a store or their SHA-256 in hex.

        So the log holds each signature by its digest, and who sees the log sees when that was there at the latest.
        """
        self._evidence += tuple(f"sha256:{item.rpartition('-')[2].removesuffix('.json')}" for item in bundles)

    def noted(self, code: str) -> None:
        """Note an observation that decides nothing."""
        self._codes = (*self._codes, code)

    def judged(self, verdict: Verdict, version: str | None = None) -> None:
        """Note a verdict, and about which version of the object it is, where the store keeps versions."""
        self._outcome = verdict.status
        deciding = [finding.code for finding in verdict.findings if finding.severity in ("refusal", "unverifiable")]
        # Whoever reads the log must see that nobody read the bytes this time.
        self._codes = tuple(dict.fromkeys([*deciding, *(["VERDICT_REUSED"] if verdict.reused else [])]))
        self._digest, self._policy, self._producer = verdict.digest, verdict.policy, verdict.producer
        self._version, self._name = version or "", verdict.name if verdict.passed else ""
        self._rule = ", ".join(verdict.rules)
        self._signers = tuple(dict.fromkeys(signer.key for signer in verdict.signers))

    def unwrapped(self, key: EncryptedDataKey) -> None:
        """Note which recipient's key opened an encrypted artifact, as the header calls it."""
        self._recipient = f"{printable(key.provider)}:{key.name}"

    def __enter__(self) -> Recording:
        self._intent = with_said(self._intent, self._said, self._settings)
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
        unasked: SealflowError | None = None
        # What did not succeed needs no leave.
        if error is None and self._outcome in ("done", "passed"):
            try:
                self._bring_in_names()
            except SealflowError as reason:
                unasked = reason
        try:
            event = replace(
                AuditEvent(self._intent.action, "outcome", self._intent.run, outcome=self._outcome),
                artifact=self._intent.artifact,
                digest=self._digest,
                version=self._version[:MAX_TEXT],
                key=self._intent.key,
                recipient=self._recipient[:MAX_TEXT],
                codes=self._codes,
                policy=self._policy or (self._ruling.policy if self._ruling else ""),
                rule=(self._rule or self._rules())[:MAX_TEXT],
                signers=self._signers,
                evidence=tuple(dict.fromkeys(self._evidence)),
                producer=self._producer[:MAX_TEXT],
                host=self._intent.host,
                claims=self._intent.claims,
                details=self._intent.details,
                correlation=self._intent.correlation,
            )
            if self._wait is not None and error is None and unasked is None:
                self._wait(event)
            else:
                self._sink.record(event)
            if unasked is not None:
                raise unasked
        except SealflowError:
            # The first error is the one to show; without one the missing record is the error.
            if error is None:
                raise

    def _rule_on(self, names: tuple[str, ...]) -> None:
        if self._ask is None:
            return
        from sealflow.actions.audit_level import wait_for

        self._ruling = self._ask(names)
        self._wait = None if self._ruling is None else wait_for(self._ruling, self._sink, self._settings)
        self._names = names

    def _rules(self) -> str:
        return ", ".join(rule.name for rule in self._ruling.rules) if self._ruling else ""

    def _bring_in_names(self) -> None:
        """Take in what rules demand that name the artifact by the logical name that was proved only meanwhile."""
        names = self._names or ()
        if self._name and self._name not in names:
            names = (*names, self._name)
        if names == self._names:
            return
        try:
            self._rule_on(names)
        except UnavailableError:
            # What an action does without asking the policy it may do while there is none; whoever uses it asks.
            if self._names is not None:
                raise


@contextlib.contextmanager
def refusals_recorded(action: str, artifact: str) -> Iterator[None]:
    """Record what is refused before an action of its own could begin, as that action.

    Raises:
        SealflowError: The refusal; or the audit log is out of reach.
    """
    try:
        yield
    except SealflowError as error:
        with contextlib.suppress(type(error)), Recording(action, artifact, context.current(), ruled=False):
            raise error
        raise


def with_said(event: AuditEvent, said: Mapping[str, str], settings: Settings) -> AuditEvent:
    """Return an event with what may be personal or too long: in it, or by the digest of a payload.

    Args:
        event: The event.
        said: Any of ``artifact``, ``host`` and ``triggered_by``.
        settings: Say what is personal, and where payloads are kept.

    Raises:
        UsageError: The settings call something personal that nobody knows.
        UnavailableError: The payload could not be kept.
    """
    personal = _personal(settings)
    # Half of a surrogate pair has no form in any document.
    kept = {name: value.encode("utf-8", "replace").decode("utf-8") for name, value in said.items()}
    longest = {"artifact": MAX_TEXT, "triggered_by": MAX_TEXT, "host": MAX_SHORT}
    apart = {
        name: kept.pop(name)
        for name in longest
        if name in kept and (name in personal or len(kept[name]) > longest[name])
    }
    details = ""
    if any(apart.values()):
        from sealflow.audit.details import keep_details
        from sealflow.storage import Storages

        details = keep_details(apart, _details(settings), Storages())
    claims = {"triggered_by": who} if (who := kept.get("triggered_by")) else {}
    return replace(event, artifact=kept.get("artifact", ""), host=kept.get("host", ""), claims=claims, details=details)


def _personal(settings: Settings) -> frozenset[str]:
    names = frozenset(filter(None, (name.strip() for name in (settings.audit_personal or "").split(","))))
    if unknown := sorted(names - PERSONAL):
        raise UsageError(
            f"The setting audit_personal names {printable(unknown[0])!r}; known: {', '.join(sorted(PERSONAL))}."
        )
    return names


def _details(settings: Settings) -> str | None:
    if settings.audit_details:
        return os.path.expanduser(settings.audit_details)
    from sealflow.audit.details import default_details

    spool, inbox = _delivery(settings)
    return default_details(spool, inbox)


def _delivery(settings: Settings) -> tuple[str | None, str | None]:
    """Return where an event is durable: the spool or the inbox."""
    if settings.audit_spool or not settings.audit_inbox:
        return os.path.abspath(os.path.expanduser(settings.audit_spool or default_spool())), None
    return None, settings.audit_inbox
