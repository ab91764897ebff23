"""From a dataset forward to what was made from it. Pure.

What somebody merely claims to have made from it is shown too, apart from what is proved, and leads no further: a
forged claim must neither hide anything nor lead to others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sealflow.errors import EvidenceError
from sealflow.evidence.bundle import parse_bundle
from sealflow.evidence.provenance import parse_dependencies, parse_provenance
from sealflow.evidence.statement import parse_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.findings import Finding
from sealflow.hashing import Digest
from sealflow.verification.assess import WITH_PROVENANCE, Assessed, Assessor
from sealflow.verification.graph import SOUND, Graph, Node
from sealflow.verification.walk import node_of

#: Most bytes of evidence that are searched.
MAX_SIZE: Final = 4 << 30
#: Most pieces of evidence that could not be read and are named.
_MAX_NAMED: Final = 20


class Descended(NamedTuple):
    """What was found.

    Attributes:
        graph: The dataset and what was made from it; an edge leads from what was made to what it was made from.
        findings: Observations.
    """

    graph: Graph
    findings: tuple[Finding, ...]


def descend(dataset: Digest, known: Mapping[Digest, Sequence[str]], assessor: Assessor) -> Descended:
    """Find everything that was made from a dataset.

    Args:
        dataset: Its digest.
        known: The artifacts whose evidence can be had, each with its locations as far as they are known.
        assessor: Judges single artifacts; it gives the evidence.

    Raises:
        UsageError: An identity names a key that does not exist or is of an unsupported kind.
    """
    claims, findings, names = _claims(known, assessor)
    name = names.get(dataset, "")
    nodes: dict[Digest, Node] = {dataset: Node(dataset, "dataset", name, tuple(known.get(dataset, ())))}
    inputs: dict[Digest, dict[Digest, None]] = {}
    claimed: dict[Digest, dict[Digest, None]] = {}
    judged: dict[Digest, Assessed] = {}
    queue = deque([dataset])
    while queue:
        used = queue.popleft()
        for made in sorted(claims.get(used, ()), key=lambda item: (item.hex, item.algorithm)):
            first = made not in judged
            if first:
                judged[made] = assessor.assess(made, known[made])
            found = judged[made]
            proved = found.state in SOUND and used in found.inputs
            (inputs if proved else claimed).setdefault(made, {})[used] = None
            if made == dataset:
                message = "Signed provenance says that the dataset was made from something that was made from it."
                findings.append(Finding("LINEAGE_CYCLE", "unverifiable", str(made), message))
                continue
            if first:
                nodes[made] = node_of(found, made, known[made], names.get(made, ""))
            if not proved:
                findings.append(_unproved(made, used, found))
            elif len(inputs[made]) == 1:
                queue.append(made)
    graph = Graph(
        (dataset,),
        nodes,
        {made: tuple(items) for made, items in inputs.items()},
        {made: tuple(items) for made, items in claimed.items()},
    )
    return Descended(graph, tuple(dict.fromkeys(findings)))


def _unproved(made: Digest, used: Digest, found: Assessed) -> Finding:
    why = next((item for item in found.findings if item.severity in ("refusal", "unverifiable")), None)
    message = "It claims to be made from the data, and nobody can rely on that."
    return Finding(
        "EDGE_UNVERIFIED",
        "unverifiable",
        str(made),
        message,
        f"proof that it was made from {used}",
        why.line() if why else "",
    )


def _claims(
    known: Mapping[Digest, Sequence[str]], assessor: Assessor
) -> tuple[dict[Digest, dict[Digest, None]], list[Finding], dict[Digest, str]]:
    """Return what claims to be made from what, whoever says so; what could not be read; and what things are called."""
    claims: dict[Digest, dict[Digest, None]] = {}
    names: dict[Digest, str] = {}
    claimed: dict[Digest, str] = {}
    findings: list[Finding] = []
    unread = 0
    for digest, locations in known.items():
        if assessor.size > MAX_SIZE:
            message = f"The stores hold more than the {MAX_SIZE} bytes of provenance that are searched."
            findings.append(Finding("EVIDENCE_TOO_MUCH", "unverifiable", "evidence", message))
            break
        found = assessor.collect(digest, locations, WITH_PROVENANCE)
        findings += [item for item in found.findings if item.severity == "unverifiable"]
        for item in found.evidence:
            try:
                own, used = _stated(item)
            except EvidenceError as error:
                unread += 1
                if unread <= _MAX_NAMED:
                    subject = f"{digest.path_segment}/{item.name}"
                    message = f"It could be provenance of something made from the data. {error.message}"
                    findings.append(Finding("EDGE_UNVERIFIED", "unverifiable", subject, message))
                continue
            claimed.setdefault(digest, own)
            for other, name in used.items():
                claims.setdefault(other, {})[digest] = None
                names.setdefault(other, name)
    if unread > _MAX_NAMED:
        message = f"{unread} pieces of provenance cannot be read; each could be of something made from the data."
        findings.append(Finding("EDGE_UNVERIFIED", "unverifiable", "evidence", message))
    return claims, findings, {**claimed, **names}


def _stated(item: StoredEvidence) -> tuple[str, dict[Digest, str]]:
    """Return the name that a piece of provenance gives its artifact, and the inputs it names. Nothing of it is proved.

    Raises:
        EvidenceError: It cannot be read.
    """
    if item.problem:
        raise EvidenceError(item.problem)
    said = parse_provenance(parse_statement(parse_bundle(item.data).payload))
    return said.name, {dependency.digest: dependency.name for dependency in parse_dependencies(said)}
