"""Tell those on call that a task was refused: as an OCSF finding, in a log and, where one is named, in a place.

Orchestrators call this from what they run after a task that failed. Nothing here pauses or notifies: that is theirs.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow.actions import context
from sealflow.actions.recording import Recording
from sealflow.audit import AuditSink
from sealflow.audit.event import utc_now
from sealflow.audit.ocsf_finding import refusal_finding
from sealflow.errors import EXIT_REFUSED_EVIDENCE, EXIT_REFUSED_IDENTITY, SealflowError, VerificationError
from sealflow.storage import Storages

#: Findings go here, one JSON document a record, at the level WARNING.
LOGGER: Final = "sealflow.ocsf"
#: Most errors that are looked through for the one that refused.
_MAX_CHAIN: Final = 20

_ocsf = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Refusal:
    """What was refused.

    Attributes:
        codes: Finding or error codes, the deciding ones first.
        message: One or two sentences.
        artifact: Location without credentials; empty where unknown.
        digest: Artifact digest; empty where unknown.
        policy: Digest of the policy that decided.
    """

    codes: tuple[str, ...]
    message: str
    artifact: str = ""
    digest: str = ""
    policy: str = ""


def refusal_in(error: BaseException | None) -> Refusal | None:
    """Return what an error refused, ``None`` where it is another failure: an outage, a wrong parameter, a bug.

    Orchestrators wrap errors, so what an error was raised from is looked at, too.
    """
    for _ in range(_MAX_CHAIN):
        if error is None:
            return None
        if isinstance(error, VerificationError):
            verdict = error.verdict
            if verdict.status != "failed":
                return None
            codes = tuple(dict.fromkeys(item.code for item in verdict.findings if item.severity == "refusal"))
            return Refusal(codes, verdict.summary(), verdict.artifact, verdict.digest, verdict.policy)
        if isinstance(error, SealflowError):
            refused = error.exit_status in (EXIT_REFUSED_EVIDENCE, EXIT_REFUSED_IDENTITY) and not error.retryable
            return Refusal((error.code,), error.message) if refused else None
        # `raise … from None` hides the first error from readers, and leaves it there.
        error = error.__cause__ or error.__context__
    return None


def report_refusal(
    refusal: Refusal, place: str | None = None, *, storages: Storages | None = None, sink: AuditSink | None = None
) -> dict[str, Any]:
    """Write the OCSF finding of a refusal, and return it. The same refusal again writes nothing new.

    Args:
        refusal: What was refused.
        place: Folder or location that gets one object for each finding, named by its uid; the log alone by default.
        storages: Finds storage.
        sink: Takes audit events.

    Raises:
        UsageError: The place cannot take an object.
        UnavailableError: The place or the audit log is out of reach.
    """
    surroundings = context.current()
    finding = refusal_finding(
        surroundings.run,
        refusal.codes,
        refusal.message,
        artifact=refusal.artifact,
        digest=refusal.digest,
        policy=refusal.policy,
        now=utc_now(),
    )
    text = strictjson.dumps(finding)
    with Recording("report-refusal", refusal.artifact, surroundings, ruled=False, sink=sink) as recording:
        for code in refusal.codes[:1]:
            recording.noted(code)
        _ocsf.warning("%s", text.decode("utf-8"))
        if place:
            # Only if it is not there: who told it first told it with the same uid.
            storage = (storages or Storages()).for_uri(place)
            storage.create(f"{storage.canonical(place).rstrip('/')}/{finding['finding_info']['uid']}.json", text)
        recording.done(refusal.digest)
    return finding


def surely(what: str, act: Any, log: logging.Logger) -> bool:
    """Do one thing of several that a callback does; what fails is told, and keeps nothing else from being done.

    Args:
        what: What it is, for the log.
        act: Does it.
        log: Takes what failed.
    """
    try:
        act()
    except Exception as error:
        log.error("%s failed: %s: %s", what, type(error).__name__, error)
        return False
    return True


def refused_status(text: str) -> bool:
    """Tell whether a message of somebody else's says that a program ended with the exit status of a refusal."""
    found = {int(item) for item in re.findall(r"exit (?:code|status) ([0-9]{1,3})\b", text[: 1 << 20])}
    return not found.isdisjoint((EXIT_REFUSED_EVIDENCE, EXIT_REFUSED_IDENTITY))


def codes_in(text: str) -> Sequence[str]:
    """Return the codes of refusals that a message of somebody else's repeats, in its order."""
    from sealflow.findings import CODES

    words = re.findall(r"\b[A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+\b", text[: 1 << 20])
    return tuple(
        dict.fromkeys(word for word in words if word in CODES and CODES[word].group in ("evidence", "identity"))
    )
