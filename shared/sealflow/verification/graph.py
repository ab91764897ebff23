"""The graph that a walk over signed provenance draws: artifacts by digest, each with what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from sealflow.findings import Signer, printable
from sealflow.hashing import Digest

State = Literal["attested", "dataset", "source", "summarised", "unattested", "refused", "unverifiable", "cycle"]

#: States under which nothing is left open at an artifact.
SOUND: Final[frozenset[State]] = frozenset({"attested", "dataset", "source", "summarised"})


class Node(NamedTuple):
    """One artifact.

    Attributes:
        digest: Artifact digest.
        state: ``attested``: made by a signed run from the inputs that the graph shows; ``source``: code and the like,
            which a run names beside its data, and which nobody follows; ``dataset``: a root, signed by a
            data owner or listed; ``summarised``: a verifier's summary stands for what lies behind it; ``unattested``:
            nobody signed where it comes from; ``refused``: the evidence does not hold or contradicts itself;
            ``unverifiable``: nobody can say; ``cycle``: it would be made from itself.
        name: Signed logical name; that which an artifact made from it states, where nothing of its own is accepted.
        locations: Where signed provenance says that it lay; hints.
        producer: Signed producer.
        run: Signed invocation id.
        signers: Who made the accepted evidence.
        when: Signed time, RFC 3339 in UTC.
        codes: Codes of what keeps it from being sound.
    """

    digest: Digest
    state: State
    name: str = ""
    locations: tuple[str, ...] = ()
    producer: str = ""
    run: str = ""
    signers: tuple[Signer, ...] = ()
    when: str = ""
    codes: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is left open here; what lies behind it is another matter."""
        return self.state in SOUND

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form; empty members are left out."""
        members: dict[str, Any] = {
            "digest": str(self.digest),
            "state": self.state,
            "name": printable(self.name),
            "locations": [printable(text, 2048) for text in self.locations],
            "producer": printable(self.producer, 2048),
            "run": printable(self.run, 2048),
            "signers": [{"identity": item.identity, "key": item.key, "kind": item.kind} for item in self.signers],
            "when": self.when,
            "codes": list(self.codes),
        }
        return {key: value for key, value in members.items() if value}


@dataclass(frozen=True)
class Graph:
    """What was found. Edges are those that accepted provenance states.

    Attributes:
        starts: Where the walk began.
        nodes: The artifacts, nearest first.
        inputs: What each artifact was made from, in the order of the digests; only where there is something.
        claimed: Edges that somebody claims and nobody could prove; a search for descendants shows them.
    """

    starts: tuple[Digest, ...]
    nodes: Mapping[Digest, Node]
    inputs: Mapping[Digest, tuple[Digest, ...]]
    claimed: Mapping[Digest, tuple[Digest, ...]] = field(default_factory=dict)

    @property
    def edges(self) -> int:
        """The number of edges."""
        return sum(map(len, self.inputs.values()))

    @property
    def roots(self) -> tuple[Node, ...]:
        """The datasets at which the walk ended."""
        return tuple(node for node in self.nodes.values() if node.state == "dataset")

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "starts": [str(item) for item in self.starts],
            "nodes": [node.as_dict() for node in self.nodes.values()],
            "edges": [
                {"artifact": str(made), "input": str(used)} for made, items in self.inputs.items() for used in items
            ]
            + [
                {"artifact": str(made), "input": str(used), "proved": False}
                for made, items in self.claimed.items()
                for used in items
            ],
        }
