"""What an operator saw of its artifact, kept for lineage catalogues.

Nothing of OpenLineage is imported before Airflow's OpenLineage provider, where it is installed and has a place to send
events to, asks an operator for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from sealflow.actions.sign import Signed
    from sealflow.findings import Verdict

#: Most items of each list: an event is a message, and the verdict itself is in XCom and in the audit log.
MAX_LISTED: Final = 20
#: Most findings that a task's log names.
MAX_LOGGED: Final = 100


@dataclass(frozen=True)
class Observation:
    """One artifact, seen once.

    Attributes:
        location: Where it lies, without credentials.
        facet: Members of the facet; see docs/reference/sealflow-dataset-facet.schema.json.
        written: Whether the task is where this version of the artifact comes from.
    """

    location: str
    facet: dict[str, Any]
    written: bool = False


def of_signed(signed: Signed) -> Observation:
    """Return what signing says of an artifact."""
    facet = {
        "digest": str(signed.ref.digest),
        "versionId": signed.ref.version_id,
        "name": signed.name,
        "producedBy": signed.producer,
        "evidence": signed.ref.evidence,
        "signers": [{"key": signed.key, "kind": kind} for kind in ("signature", "provenance")],
    }
    return Observation(signed.ref.uri, facet, written=True)


def of_verdict(verdict: Verdict, *, evidence: str = "", dvc: dict[str, Any] | None = None) -> Observation:
    """Return what a check says of an artifact, refused ones included."""
    body = verdict.as_dict()
    judged = {
        "status": body["status"],
        "codes": _distinct(finding["code"] for finding in body["findings"]),
        "policy": body["policy"] or None,
        "rules": body["rules"][:MAX_LISTED],
        "checkedAt": body["checked_at"] or None,
        "reused": body["reused"],
    }
    facet = {
        **{member: body[member] or None for member in ("digest", "name", "run")},
        # Not `producer`: so every facet calls whoever sent it.
        "producedBy": body["producer"] or None,
        "evidence": evidence or None,
        "signers": [
            {"identity": signer["identity"], "key": signer["key"], "kind": signer["kind"]}
            for signer in body["signers"][:MAX_LISTED]
        ],
        "verdict": judged,
        "dvc": dvc,
    }
    return Observation(verdict.artifact, facet)


def of_lineage(verdict: Verdict, *, level: str, targets: Sequence[str]) -> Observation:
    """Return what a check of a DVC repository says of it.

    Args:
        verdict: What came of it. It says which level was held, for a policy can ask for a higher one, and whose
            signature of which commit counted.
        level: What the task asked for.
        targets: What was checked.
    """
    held = next((finding.subject for finding in verdict.findings if finding.code == "LINEAGE_LEVEL"), level)
    revision = next((signer.evidence for signer in verdict.signers if signer.kind == "commit"), None)
    return of_verdict(
        verdict, dvc={"level": held, "revision": revision, "targets": [str(item) for item in targets[:MAX_LISTED]]}
    )


def _distinct(codes: Any) -> list[str]:
    return list(dict.fromkeys(codes))[:MAX_LISTED]


class Observed:
    """Gives an operator the methods by which Airflow's OpenLineage provider asks what a task read and wrote."""

    log: Any
    _observed: Observation | None = None

    def _judged(self, context: Context, verdict: Verdict, seen: Observation) -> None:
        """Tell a verdict, before a refusal is raised: in the XCom ``verdict``, in the log, and to catalogues."""
        from sealflow_airflow.metrics import count

        count(f"sealflow.verdict.{verdict.status}")
        self._observed = seen
        context["ti"].xcom_push(key="verdict", value=verdict.as_dict())
        for finding in verdict.findings[:MAX_LOGGED]:
            self.log.info("%s", finding.line())

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage:
        """Return the artifact as a dataset with our facet; see :mod:`sealflow_airflow.facets`."""
        from sealflow_airflow.facets import operator_lineage

        return operator_lineage(self._observed)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage:
        """Return the same for a task that failed: a refused artifact is a dataset with a refusal."""
        return self.get_openlineage_facets_on_complete(task_instance)
