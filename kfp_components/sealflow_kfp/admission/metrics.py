"""What the admission server tells Prometheus: counts and times, never a name that a task's author chose.

Labels take values from short lists only, so that what is sent to the server cannot make its memory grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from sealflow.findings import CODES

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
KINDS: Final = frozenset({"Workflow", "Pod", "PipelineVersion"})
VERDICTS: Final = ("allowed", "refused", "would_refuse", "error")
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One server's metrics.

    Args:
        codes: Codes of findings that are counted by name.
    """

    def __init__(self, codes: Iterable[str] = CODES) -> None:
        self._codes = frozenset(codes)
        self._registry = CollectorRegistry()
        prefix = "sealflow_admission_"
        self._requests = Counter(f"{prefix}requests", "Reviews answered.", ["kind", "verdict"], registry=self._registry)
        self._findings = Counter(f"{prefix}findings", "Findings in them.", ["code"], registry=self._registry)
        self._seconds = Histogram(
            f"{prefix}decision_seconds", "Time to decide.", ["kind"], buckets=_SECONDS, registry=self._registry
        )
        self._waited = Histogram(
            f"{prefix}waiting_seconds", "Time before that.", buckets=_SECONDS, registry=self._registry
        )
        self._dropped = Counter(
            f"{prefix}dropped", "Requests that were not looked at.", ["reason"], registry=self._registry
        )
        self._loads = Counter(f"{prefix}certificate_loads", "Pairs that were taken.", registry=self._registry)
        self._not_after = Gauge(
            f"{prefix}certificate_not_after_seconds", "When the one in use ends, Unix time.", registry=self._registry
        )
        self._files_good = Gauge(
            f"{prefix}certificate_files_good", "0: what lies on disk was not taken.", registry=self._registry
        )
        self._enforcing = Gauge(f"{prefix}enforcing", "0: audit, nothing is refused.", registry=self._registry)
        ProcessCollector(registry=self._registry)

    def watch(self, connections: Callable[[], float], buffered: Callable[[], float]) -> None:
        """Show what the server holds at the moment: connections, and bytes of bodies."""
        for name, what, value in (
            ("connections", "Open connections.", connections),
            ("buffered_bytes", "Bytes of bodies that are held.", buffered),
        ):
            Gauge(f"sealflow_admission_{name}", what, registry=self._registry).set_function(value)

    def decided(self, kind: str, verdict: str, codes: Iterable[str], seconds: float, waited: float) -> None:
        """Count one answered review."""
        kind = kind if kind in KINDS else "other"
        self._requests.labels(kind, verdict if verdict in VERDICTS else "error").inc()
        self._seconds.labels(kind).observe(seconds)
        self._waited.observe(waited)
        for code in codes:
            self._findings.labels(code if code in self._codes else "other").inc()

    def dropped(self, reason: str) -> None:
        """Count a request that was not looked at; reasons are words of this package."""
        self._dropped.labels(reason).inc()

    def certificate(self, not_after: float, good: bool) -> None:
        """Show the certificate: when the one in use ends (Unix time), and whether the files on disk are it."""
        self._not_after.set(not_after)
        self._files_good.set(good)
        if good:
            self._loads.inc()

    def mode(self, enforcing: bool) -> None:
        """Show whether refusals are meant."""
        self._enforcing.set(enforcing)

    def render(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self._registry)
