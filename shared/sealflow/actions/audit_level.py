"""Wait: an action goes on when its audit event got as far as the policy demands."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from sealflow.actions.policies import policies_for
from sealflow.audit import AuditEvent, AuditSink
from sealflow.audit import spool as spools
from sealflow.audit.writer import Writer
from sealflow.errors import UnavailableError, UsageError
from sealflow.findings import printable
from sealflow.policy.compose import AUDIT_LEVELS, Arguments
from sealflow.storage import Storages

if TYPE_CHECKING:
    from sealflow.actions.context import Settings, Surroundings
    from sealflow.audit.entry import Entry
    from sealflow.audit.inbox import Inbox
    from sealflow.policy.compose import CompiledPolicy, Ruling

#: Seconds that an action waits where the settings do not say.
TIMEOUT: Final = 60.0

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0

#: Records an event, and returns when it got far enough.
Wait = Callable[[AuditEvent], None]


def ruling_for(
    artifact: str, surroundings: Surroundings, policy: str | CompiledPolicy | None, names: Sequence[str] = ()
) -> Ruling | None:
    """Return what the policies say about the artifact of an action, ``None`` where it has no location.

    Args:
        artifact: Location of the artifact.
        surroundings: Who acts.
        policy: One more policy, as the action takes it.
        names: Logical names of the artifact, as far as they are known.

    Raises:
        UnavailableError: The policy is not to be had.
    """
    try:
        return policies_for(artifact, surroundings, policy).ruling(Arguments(), names)
    except UsageError:
        # What has no location has no rules. A policy that cannot be taken the action itself refuses, and says better.
        return None


def wait_for(ruling: Ruling, sink: AuditSink, settings: Settings) -> Wait | None:
    """Return what records an action's outcome and waits for it, ``None`` where no policy demands that.

    Args:
        ruling: What the policies say about the artifact.
        sink: Takes the event.
        settings: Name inbox, log and keys.

    Raises:
        UsageError: The settings name no inbox, log or key that would show what the policy demands.
    """
    level, rules = ruling.audit
    if level in ("", AUDIT_LEVELS[0]):
        return None
    missing = [name for name in _needed(level) if not getattr(settings, name)]
    if missing or not isinstance(sink, Writer):
        raise UsageError(
            f"The rule {rules[0]} demands audit: {level}, and "
            + (f"the setting {missing[0]} is missing." if missing else "this sink cannot show it."),
            next_step=f"Set {', '.join(_needed(level))}.",
        )
    seconds = _seconds(settings.audit_timeout)

    def wait(event: AuditEvent) -> None:
        _wait(sink.write(event), level, seconds, settings)

    return wait


def _needed(level: str) -> tuple[str, ...]:
    names = ("audit_inbox", "audit_log", "audit_log_key", "audit_witness_keys")
    return names[: {"sequenced": 1, "included": 3, "witnessed": 4}[level]]


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text) if text else TIMEOUT
    except ValueError:
        seconds = -1
    if not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"The setting audit_timeout is {printable(text)!r}, which is no number of seconds.")
    return seconds


def _wait(entry: Entry, level: str, seconds: float, settings: Settings) -> None:
    from sealflow.audit.inbox import open_inbox
    from sealflow.audit.integrate import level_of
    from sealflow.audit.log import open_log
    from sealflow.audit.note import load_verifier_key

    storages = Storages()
    log = key = None
    witnesses = []
    if level != "sequenced":
        log, key = open_log(settings.audit_log or "", storages), load_verifier_key(settings.audit_log_key or "")
        witnesses = [load_verifier_key(item.strip()) for item in (settings.audit_witness_keys or "").split(",") if item]
    inbox = open_inbox(settings.audit_inbox or "", storages)
    reached = AUDIT_LEVELS[0]
    try:
        _bring(entry, inbox, settings)
        until, pause = time.monotonic() + seconds, _FIRST_PAUSE
        while True:
            reached = level_of(entry.writer, entry.n, inbox, log, key, witnesses)
            if AUDIT_LEVELS.index(reached) >= AUDIT_LEVELS.index(level):
                return
            if (left := until - time.monotonic()) <= 0:
                break
            time.sleep(min(pause, left))
            pause = min(pause * 2, _LONGEST_PAUSE)
    except UnavailableError as error:
        raise UnavailableError(
            f"The audit event cannot be followed: {error.message}", code="AUDIT_UNAVAILABLE"
        ) from error
    finally:
        inbox.close()
    raise UnavailableError(
        f"After {seconds:g} seconds the audit event is {reached}, and the policy demands that it is {level}.",
        code="AUDIT_UNAVAILABLE",
        next_step="Look whether `sealflow audit integrate` runs, then try again.",
    )


def _bring(entry: Entry, inbox: Inbox, settings: Settings) -> None:
    """Bring this writer's chain to the inbox, where so far it only lies in the spool."""
    if settings.audit_spool:
        with spools.opened(os.path.abspath(os.path.expanduser(settings.audit_spool)), entry.writer) as chain:
            if chain is not None:
                inbox.put(chain.entries)
