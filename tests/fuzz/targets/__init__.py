"""What reads untrusted bytes, in one table: how each reader is called, and which modules it is there for.

``corpus/<name>/`` holds the seeds of a target. One called ``good-…`` is accepted; one called ``bad-…`` is refused with
an error of ours: it was a surprise once, or is what somebody could hope to get through. Samples are made by ``python -m
tests.fuzz.make_corpus``; whoever finds bytes that make a reader fail adds them.
"""

from __future__ import annotations

from typing import Final

from tests.fuzz.targets import airflow, encryption, evidence, kubeflow, lineage, logs, policies
from tests.fuzz.targets.base import CORPUS, Target

TARGETS: Final = {
    item.name: item
    for part in (evidence, policies, logs, encryption, lineage, airflow, kubeflow)
    for item in part.TARGETS
}

__all__ = ["CORPUS", "TARGETS", "Target"]
