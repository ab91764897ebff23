"""Counters, through Airflow's own metrics: StatsD, DogStatsD or OpenTelemetry, as ``[metrics]`` says.

What an alert needs stands in the name, since plain StatsD drops tags.
"""

from __future__ import annotations

import logging
from typing import Final

from sealflow.errors import EXIT_REFUSED_EVIDENCE, EXIT_REFUSED_IDENTITY, SealflowError

#: Every name, and what it counts.
NAMES: Final = {
    "sealflow.verdict.passed": "checks of an operator that passed",
    "sealflow.verdict.failed": "checks of an operator that refused",
    "sealflow.verdict.unverifiable": "checks of an operator of which nobody could say",
    "sealflow.refused": "tasks ended by a refusal; tag `code`",
    "sealflow.unavailable": "tries ended by a backend out of reach; tag `code`",
    "sealflow.misused": "tasks ended by a wrong parameter, key or connection; tag `code`",
    "sealflow.guard.verified": "inlets that the guard verified before a task",
    "sealflow.guard.signed": "outlets that the guard signed, or found encrypted and signed",
    "sealflow.guard.untouched": "inlets and outlets that nobody manages, of tasks under a policy",
    "sealflow.guard.undeclared": "managed artifacts that hooks used and their task did not declare",
    "sealflow.guard.audited": "refusals that a task survived, because the rules are only audited",
    "sealflow.gate.passed": "managed outlets that the gate in the API server let pass",
    "sealflow.gate.refused": "successes that the gate refused; tag `code`",
    "sealflow.gate.unavailable": "successes that the gate sent back to be tried again; tag `code`",
    "sealflow.gate.audited": "refusals of the gate that are only audited; tag `code`",
    "sealflow.gate.broken": "requests that the gate itself could not deal with",
    "sealflow.gate.accesses": "reads of connections, variables and XComs that were recorded",
    "sealflow.gate.dropped": "reads that could not be recorded in time; each gap is recorded",
    "sealflow.notary.signed": "asset events that the notary signed",
    "sealflow.notary.failed": "asset events that the notary did not sign; tag `code`",
    "sealflow.xcom.sealed": "XCom values sealed",
    "sealflow.xcom.opened": "XCom values opened",
    "sealflow.xcom.clear": "XCom values in clear that `xcom_accept_clear` let pass",
    "sealflow.xcom.refused": "XCom values refused; tag `code`",
    "sealflow.xcom.unavailable": "XCom values that could not be sealed or opened for want of a backend; tag `code`",
    "sealflow.xcom.misused": "XCom values not sealed or opened because of a wrong setting; tag `code`",
}

_log = logging.getLogger(__name__)


def count(name: str, number: int = 1, *, server: bool = False, **tags: str) -> None:
    """Count events under one of :data:`NAMES`, none by no message. A backend that fails never fails a task.

    Args:
        name: The name.
        number: How many.
        server: Whether this is a server of Airflow's: those have counters of their own, which workers do not see.
        tags: Tags.
    """
    if not number:
        return
    try:
        if server:
            from airflow.observability.stats import Stats
        else:
            from airflow.sdk.observability.stats import Stats
        Stats.incr(name, count=number, tags=tags)
    except Exception:
        _log.debug("Metric %s was not sent.", name, exc_info=True)


def count_error(of: str, error: SealflowError) -> None:
    """Count what ended a task or kept a value from being used.

    Args:
        of: First part of the name: ``sealflow`` or ``sealflow.xcom``.
        error: What was raised.
    """
    refused = error.exit_status in (EXIT_REFUSED_EVIDENCE, EXIT_REFUSED_IDENTITY)
    count(f"{of}.{'unavailable' if error.retryable else 'refused' if refused else 'misused'}", code=error.code)
