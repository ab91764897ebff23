"""OpenLineage's form of what an operator saw. Imported only when Airflow's OpenLineage provider asks.

A facet is a claim of the task that sent it, and no event is signed: catalogues show it, no check relies on it.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import attr
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import DatasetFacet, dataset_version_dataset

from sealflow import __version__
from sealflow_airflow.observed import Observation

#: Name of the facet among a dataset's facets.
FACET: Final = "sealflow_artifact"
#: The schema is docs/reference/sealflow-dataset-facet.schema.json; this is its ``$id`` and the place inside of it.
SCHEMA_URL: Final = "urn:sealflow:schema:openlineage-dataset-facet:v1#/$defs/SealflowArtifactDatasetFacet"
PRODUCER: Final = f"urn:sealflow:producer:airflow-operator:{__version__}"


@attr.define
class SealflowArtifactDatasetFacet(DatasetFacet):
    """The facet; members that are ``None`` are left out of the event."""

    digest: str | None = None
    versionId: str | None = None  # noqa: N815
    name: str | None = None
    producedBy: str | None = None  # noqa: N815
    run: str | None = None
    evidence: str | None = None
    signers: list[dict[str, Any]] = attr.field(factory=list)
    verdict: dict[str, Any] | None = None
    dvc: dict[str, Any] | None = None

    @staticmethod
    def _get_schema() -> str:
        return SCHEMA_URL


def operator_lineage(seen: Observation | None) -> OperatorLineage:
    """Return the dataset that a task saw: written where the task signed it, otherwise read."""
    if seen is None:
        return OperatorLineage()
    namespace, name = dataset_name(seen.location)
    facets: dict[str, DatasetFacet] = {FACET: SealflowArtifactDatasetFacet(producer=PRODUCER, **seen.facet)}
    if digest := seen.facet.get("digest"):
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(digest, producer=PRODUCER)
    if seen.written:
        return OperatorLineage(outputs=[OutputDataset(namespace, name, facets=facets)])
    return OperatorLineage(inputs=[InputDataset(namespace, name, facets=facets)])


def dataset_name(location: str) -> tuple[str, str]:
    """Return namespace and name, as Airflow itself names an asset at this location."""
    parts = urlsplit(location)
    # Who opens it is no part of a name.
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme in ("", "file"):
        return (f"file://{host}" if host else "file"), parts.path or location
    return f"{parts.scheme}://{host}", parts.path.lstrip("/") or "/"
