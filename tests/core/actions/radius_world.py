"""A generated history for tests of incident response: evidence, a log, and by brute force how far something got.

The oracle shares nothing with the search but the words: it goes over all that was generated until nothing new is found.
"""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from sealflow.actions.respond_radius import BlastRadius, blast_radius
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.oms import make_oms_statement
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.evidence.statement import make_statement
from sealflow.evidence.store import EvidenceStore
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import KeySigner, load_signer
from sealflow.manifest.model import Manifest, Resource
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages
from tests.core.actions.access_log import Run, at, made
from tests.core.audit.logs import MadeLog
from tests.pki import private_pem, write_key

NOW = datetime.datetime(2026, 9, 1, tzinfo=datetime.timezone.utc)
#: Keys by name. Nobody knows whose ``stranger`` is.
NAMES = ("alice", "bob", "stolen", "stranger")


@functools.cache
def private(name: str) -> Any:
    """One key for each name: making them takes longer than the tests."""
    return ec.generate_private_key(ec.SECP256R1())


def digest(number: int | str) -> Digest:
    """The digest of an artifact."""
    return Digest("sha256", sha256_hex(f"artifact {number}".encode()))


@dataclass(frozen=True)
class Statement:
    """Provenance: who signs that what was made, from what, in which run; ``ok`` unless somebody changed it since."""

    made: int
    signer: str
    inputs: tuple[int, ...] = ()
    run: int = 0
    ok: bool = True


@dataclass(frozen=True)
class Event:
    """An entry of the log: a run reads or makes an artifact, with which outcome and key, accepting whose evidence."""

    run: int
    artifact: int
    action: str = "verify"
    outcome: str = "passed"
    key: str = ""
    signers: tuple[str, ...] = ()


@dataclass
class History:
    """All that happened."""

    statements: Sequence[Statement] = ()
    signatures: Sequence[tuple[int, str]] = ()
    events: Sequence[Event] = ()
    artifacts: int = 12

    # --- the oracle ---

    def reach(self, *, key: str = "", start: int | None = None, known: Iterable[str]) -> tuple[set[int], set[int]]:
        """Return what is touched, and what is possible besides; slowly and plainly."""
        known = set(known)
        certain = {
            (item.made, used) for item in self.statements for used in item.inputs if item.ok and item.signer in known
        }
        every = {(item.made, used) for item in self.statements for used in item.inputs}
        for number, event in enumerate(self.events):
            if event.action != "verify" or event.outcome != "passed":
                continue
            later = {
                other.artifact
                for place, other in enumerate(self.events)
                if other.action == "sign" and other.outcome == "done" and other.run == event.run and place > number
            }
            earlier = {
                other.artifact
                for place, other in enumerate(self.events)
                if other.action == "sign" and other.outcome == "done" and other.run == event.run and place < number
            }
            stated = {item.made for item in self.statements if item.run == event.run}
            for output in later | (stated - earlier):
                every.add((output, event.artifact))
        begin, perhaps = set(), set()
        if start is not None:
            begin.add(start)
        if key:
            begin |= {item.made for item in self.statements if item.signer == key and item.ok}
            begin |= {artifact for artifact, signer in self.signatures if signer == key}
            begin |= {
                event.artifact for event in self.events if event.key == key and event.outcome in ("done", "passed")
            }
            begin |= {event.artifact for event in self.events if key in event.signers and event.outcome == "passed"}
            perhaps |= {item.made for item in self.statements if item.signer == key and not item.ok}
        touched = _closure(begin, certain)
        return touched, _closure(touched | perhaps, every) - touched


def _closure(begin: set[int], edges: set[tuple[int, int]]) -> set[int]:
    found = set(begin)
    while True:
        more = {made for made, used in edges if used in found} - found
        if not more:
            return found
        found |= more


@dataclass
class World:
    """A history on disk."""

    folder: Path
    history: History
    signers: dict[str, KeySigner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            pair = write_key(self.folder, name, private(name))
            assert private_pem(private(name)) == pair.private.read_bytes()
            self.signers[name] = load_signer(pair.signer)
        self.store = EvidenceStore(str(self.folder / "evidence"), Storages())
        (self.folder / "evidence").mkdir(exist_ok=True)
        for item in self.history.statements:
            self.file(digest(item.made), "provenance", self.provenance(item))
        for artifact, signer in self.history.signatures:
            manifest = Manifest("file", "artifact", (Resource("artifact", digest(artifact).hex),))
            self.file(digest(artifact), "signature", make_bundle(make_oms_statement(manifest), self.signers[signer]))
        self.log: MadeLog | None = self.make_log() if self.history.events else None

    def fingerprint(self, name: str) -> str:
        return f"sha256:{self.signers[name].public_key.hint}"

    def run(self, number: int) -> RunIdentity:
        return RunIdentity("airflow", "flow", f"task{number}", f"run-{number}", None, 1)

    def provenance(self, item: Statement) -> bytes:
        used = [Dependency(f"file:///lake/{number}", digest(number), f"name-{number}") for number in item.inputs]
        statement = make_provenance_statement(
            f"name-{item.made}", digest(item.made), self.run(item.run), dependencies=used, now=NOW
        )
        data = make_bundle(statement, self.signers[item.signer])
        if item.ok:
            return data
        body = json.loads(data)
        other = json.loads(make_bundle(b"{}", self.signers[item.signer]))
        body["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"]
        return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    def other(self, artifact: int, signer: str, predicate: str = "https://example.org/test") -> bytes:
        """A statement of a kind that nobody here knows."""
        return make_bundle(make_statement("x", digest(artifact).as_digest_set(), predicate, {}), self.signers[signer])

    def file(self, about: Digest, kind: str, data: bytes, name: str = "") -> Path:
        folder = self.folder / "evidence" / about.path_segment
        folder.mkdir(exist_ok=True)
        path = folder / (name or f"{kind}-{sha256_hex(data)}.json")
        path.write_bytes(data)
        return path

    def make_log(self) -> MadeLog:
        runs: dict[int, Run] = {}
        lines: list[bytes] = []
        for number, event in enumerate(self.history.events):
            run = runs.setdefault(event.run, Run())
            run.run = self.run(event.run)
            more: dict[str, Any] = {"digest": str(digest(event.artifact))}
            if event.key:
                more["key"] = self.fingerprint(event.key)
            if event.signers:
                more["signers"] = tuple(self.fingerprint(name) for name in event.signers)
            before = len(run.lines)
            run.does(at(0, number * 10), f"file:///lake/{event.artifact}", event.outcome, event.action, **more)
            lines += run.lines[before:]
        return made(self.folder / "audit", lines)

    def ask(self, target: Any, *, known: Sequence[str] = ("alice", "bob", "stolen"), **options: Any) -> BlastRadius:
        if self.log is not None:
            options = {"audit_log": self.log.store.uri, "audit_log_key": str(self.log.key), **options}
        options.setdefault("identities", {name: str(self.folder / f"{name}.pub.pem") for name in known})
        return blast_radius(target, evidence_stores=[self.store.uri], **options)


def numbers(found: BlastRadius, artifacts: int) -> tuple[set[int], set[int]]:
    """The numbers of what was found touched and possible; what has no number would be a false hit."""
    by_digest = {digest(number): number for number in range(artifacts)}
    touched = {by_digest[item.digest] for item in found.radius.of("touched")}
    return touched, {by_digest[item.digest] for item in found.radius.of("possible")}
