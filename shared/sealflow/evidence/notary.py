"""What a notary says of an event: which run an orchestrator's own server saw telling of an artifact, and what it told.

The server sets the source, not the task. Of the bytes a notary speaks only where it has read them itself; that it says
with SLSA provenance under a builder id of its own.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sealflow import strictjson
from sealflow._version import __version__
from sealflow.evidence.reference import ArtifactRef
from sealflow.evidence.statement import make_statement
from sealflow.run_identity import RunIdentity

PREDICATE_TYPE: Final = "urn:sealflow:predicate:asset-event:v1"

#: Kind of the evidence object.
KIND: Final = "notary"

#: Builder id of provenance by a notary that has read the bytes.
NOTARY_BUILDER: Final = "urn:sealflow:builder:airflow-notary:v1"


@dataclass(frozen=True)
class SeenEvent:
    """An event as the server has it.

    Attributes:
        name: The asset's name.
        uri: The asset's uri.
        source: The run that the server saw emitting it.
        extra: What the run told with it: claims.
        partition: Its partition, empty without one.
        aliases: Names of the aliases through which it was told.
    """

    name: str
    uri: str
    source: RunIdentity
    extra: Mapping[str, Any]
    partition: str = ""
    aliases: Sequence[str] = ()


def make_notary_statement(event: SeenEvent, ref: ArtifactRef, *, hashed: bool, now: datetime.datetime) -> bytes:
    """Return the statement about an event as canonical JSON, ready to be signed.

    Args:
        event: The event.
        ref: The reference in its extra; its digest is the subject, and the run's claim.
        hashed: Whether the notary read the bytes and found this digest.
        now: When the event was seen, aware.
    """
    predicate = {
        "asset": {"name": event.name, "uri": event.uri},
        "source": {"producer": event.source.producer, "invocation": event.source.invocation, **event.source.as_dict()},
        "reference": ref.as_dict(),
        "extraDigest": {"sha256": hashlib.sha256(strictjson.dumps(dict(event.extra))).hexdigest()},
        "partition": event.partition,
        "aliases": list(event.aliases),
        "bytesRead": hashed,
        "seenOn": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notary": {"id": NOTARY_BUILDER, "version": {"sealflow": __version__}},
    }
    return make_statement(event.name, ref.digest.as_digest_set(), PREDICATE_TYPE, predicate)
