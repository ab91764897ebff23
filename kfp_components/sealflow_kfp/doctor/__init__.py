"""``sealflow kfp doctor``: how a cluster with Kubeflow Pipelines is set up. Nothing is changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from sealflow import strictjson
from sealflow.audit.event import utc_now
from sealflow.errors import UsageError
from sealflow.findings import Verdict, conclude, printable
from sealflow_kfp.doctor import gates, people, pipelines, probe, runs, webhook
from sealflow_kfp.doctor.checks import CHECKS
from sealflow_kfp.doctor.kubectl import Kubectl
from sealflow_kfp.doctor.place import NobodyKnowsError, Place, Wanted
from sealflow_kfp.doctor.report import UNCLEAR, Report, Result, Said, findings

__all__ = ["CHECKS", "Kubectl", "Report", "Wanted", "examine"]

_JUDGES: Final[dict[str, Callable[[Place], Said]]] = {
    "cluster": pipelines.server,
    "workflows": pipelines.crds,
    "enforcement": gates.enforcement,
    "webhook": webhook.webhook,
    "webhook_mode": webhook.mode,
    "webhook_failure_policy": webhook.failure_policy,
    "webhook_namespaces": webhook.namespaces,
    "webhook_authority": webhook.authority,
    "webhook_certificate": webhook.certificate,
    "webhook_endpoints": webhook.endpoints,
    "kyverno": gates.kyverno,
    "refusal": probe.answers,
    "spec_patch": pipelines.spec_patch,
    "caching": pipelines.caching,
    "runs_cached": runs.runs_cached,
    "runs_guarded": runs.runs_guarded,
    "publish_logs": pipelines.publish_logs,
    "launcher_image": pipelines.image_of("V2_LAUNCHER_IMAGE"),
    "driver_image": pipelines.image_of("V2_DRIVER_IMAGE"),
    "native_mode": pipelines.native_mode,
    "secret": pipelines.secrets,
    "policy_config_map": pipelines.policy_config_maps,
    "launcher_config": pipelines.launcher_config,
    "task_accounts": people.task_accounts,
    "workflow_creators": people.workflow_creators,
    "pod_creators": people.pod_creators,
    "pod_visitors": people.pod_visitors,
    "key_readers": people.key_readers,
    "policy_writers": people.policy_writers,
    "gate_changers": people.gate_changers,
}


def examine(cluster: Kubectl, wanted: Wanted | None = None, *, skip: Mapping[str, str] | None = None) -> Report:
    """Look at a cluster.

    Args:
        cluster: Asks the questions.
        wanted: What the admin says of it.
        skip: For each check that is left out, why. Shown with the verdict.

    Returns:
        What came of each check. The verdict is ``failed`` where something is not as expected, else ``unverifiable``
        where nobody can say.

    Raises:
        UsageError: A check that is left out does not exist, or every one is.
    """
    wanted = wanted or Wanted()
    skipped = _skipped(skip or {}, wanted)
    place = Place(cluster, wanted)
    results = tuple(Result(name, wanted.kubeflow, check, _said(name, place, skipped)) for name, check in CHECKS.items())
    status, ordered = conclude(findings(results))
    demanded = {
        "checks": list(CHECKS),
        "wanted": printable(wanted, 100_000),
        "skipped": skipped,
    }
    verdict = Verdict(
        status,
        f"kubernetes:{wanted.kubeflow}",
        findings=ordered,
        policy=f"sha256:{hashlib.sha256(strictjson.dumps(demanded)).hexdigest()}",
        checked_at=utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    return Report(results, verdict)


def _said(name: str, place: Place, skipped: Mapping[str, str]) -> Said:
    if name in skipped:
        return Said("SKIPPED", skipped[name])
    try:
        return _JUDGES[name](place)
    except NobodyKnowsError as error:
        return error.said
    except UNCLEAR as error:
        return Said("UNKNOWN", f"not understood: {printable(error, 300)}", "Look at it yourself.")


def _skipped(skip: Mapping[str, str], wanted: Wanted) -> dict[str, str]:
    for name, reason in skip.items():
        if name not in CHECKS:
            raise UsageError(f"There is no check {printable(name, 60)!r}.", next_step=f"Use {', '.join(CHECKS)}.")
        if not reason.strip():
            raise UsageError(f"The check {name} is skipped without a reason.", next_step=f"Write {name}=<why>.")
    if all(name in skip for name, check in CHECKS.items() if not check.advisory):
        raise UsageError("Every check that decides is skipped, so nothing is checked.")
    unasked = {} if wanted.probe else {"refusal": "asked only with --probe"}
    return {**unasked, **skip}
