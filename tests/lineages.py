"""A small lineage for tests: two datasets of a data owner, a cleaned table, a model; evidence alone, no bytes."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import sealflow
from sealflow import ArtifactRef
from sealflow.actions.trace import Traced, descendants, trace
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.oms import make_oms_statement
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.evidence.store import EvidenceStore
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import load_signer
from sealflow.manifest import build_manifest
from sealflow.run_identity import ADOPTED_BUILDER, RunIdentity
from sealflow.storage import Storages
from tests.core.policy.deployment import Body, Deployment, policy, rule

LOAD = RunIdentity("airflow", "ingest", "load", "run-0", None, 1, team="data")
CLEAN = RunIdentity("airflow", "prepare", "clean", "run-1", None, 1, team="ml")
FIT = RunIdentity("kfp", "train", "fit", "run-2", None, 1, team="ml")
AUDIT = RunIdentity("airflow", "audit", "trace", "run-3", None, 1, team="audit")
RUNS = {"raw": LOAD, "labels": LOAD, "clean": CLEAN, "model": FIT}

#: What is made from what, and who signs it.
GRAPH: dict[str, tuple[str, tuple[str, ...]]] = {
    "raw": ("owner", ()),
    "labels": ("owner", ()),
    "clean": ("trainer", ("raw",)),
    "model": ("trainer", ("clean", "labels")),
}


def digest(name: str) -> Digest:
    """The digest of the artifact that a name stands for."""
    return Digest("sha256", sha256_hex(name.encode()))


class Lineage(Deployment):
    """The lineage, signed, in one evidence store.

    Args:
        folder: Everything lies here.
        build: Whether the graph is signed at once.
    """

    def __init__(self, folder: Path, *, build: bool = True) -> None:
        super().__init__(folder)
        self.store = folder / "evidence"
        self.options: dict[str, Any] = {}
        self.channel_in_force = False
        self.version = 0
        if build:
            for name, (signer, inputs) in GRAPH.items():
                self.attest(name, inputs, signer)

    # --- evidence ---

    def lies(self, name: str) -> str:
        return f"file://{self.folder}/data/{name}"

    def statement(
        self,
        name: str,
        inputs: Iterable[str] = (),
        run: RunIdentity | None = None,
        *,
        ago: datetime.timedelta = datetime.timedelta(),
        places: Callable[[str], str] | None = None,
        adopted: bool = False,
    ) -> Body:
        run = run or RUNS.get(name, CLEAN)
        if adopted:
            run = RunIdentity(run.orchestrator, run.workflow, run.task, run.run, builder=ADOPTED_BUILDER)
        made = make_provenance_statement(
            name,
            digest(name),
            run,
            dependencies=[Dependency((places or self.lies)(item), digest(item), item) for item in inputs],
            adoption="it was there" if adopted else None,
            now=datetime.datetime.now(datetime.timezone.utc) - ago,
        )
        return json.loads(made)

    def attest(self, name: str, inputs: Iterable[str] = (), signer: str = "trainer", **options: Any) -> Path:
        """Sign where an artifact comes from, and file it."""
        filed = options.pop("filed", name)
        return self.file(filed, self.signed(self.statement(name, inputs, **options), signer))

    def signed(self, statement: Any, signer: str = "trainer") -> bytes:
        data = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
        return make_bundle(data, load_signer(self.key(signer).signer))

    def signature(self, name: str, signer: str, filed: str | None = None) -> Path:
        """Make an OMS signature over the bytes of an artifact, and file it."""
        folder = self.folder / "bytes"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(name)
        storage = Storages().for_uri(str(path))
        location = storage.locate(str(path))
        assert location is not None
        manifest = build_manifest(storage, location)
        assert manifest.digest == digest(name)
        return self.file(filed or name, self.signed(make_oms_statement(manifest), signer), "signature")

    def file(self, name: str, data: bytes, kind: str = "provenance") -> Path:
        """Put an object among the evidence of an artifact, under the name that its bytes deserve."""
        folder = self.store / digest(name).path_segment
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{kind}-{sha256_hex(data)}.json"
        path.write_bytes(data)
        return path

    def objects(self, name: str, kind: str = "") -> list[Path]:
        return sorted((self.store / digest(name).path_segment).glob(f"{kind}*.json"))

    def remove(self, name: str, kind: str = "") -> None:
        for path in self.objects(name, kind):
            path.unlink()

    def again(self, name: str, change: Callable[[Body], None], signer: str | None = None) -> None:
        """Replace an artifact's provenance by a changed one, truly signed."""
        (path,) = self.objects(name, "provenance")
        statement = payload(path.read_bytes())
        change(statement)
        path.unlink()
        self.file(name, self.signed(statement, signer or GRAPH[name][0]))

    # --- checks ---

    def ref(self, name: str = "model") -> ArtifactRef:
        store = EvidenceStore(str(self.store), Storages())
        return ArtifactRef(self.lies(name), digest(name), store.uri)

    def surroundings(self, run: RunIdentity = AUDIT, **settings: Any) -> sealflow.Surroundings:
        admin = self.channel() if self.channel_in_force else None
        return sealflow.Surroundings(run, settings=sealflow.Settings(**settings), admin=admin)

    def trace(self, name: str = "model", **options: Any) -> Traced:
        options = {**self.options, **options}
        if not self.channel_in_force:
            options.setdefault("identities", {"trainer": str(self.key("trainer").public)})
        options.setdefault("roots", {"owner": str(self.key("owner").public)})
        with sealflow.run(self.surroundings(**options.pop("settings", {}))):
            return trace(options.pop("target", None) or self.ref(name), **options)

    def descendants(self, name: str = "raw", **options: Any) -> Traced:
        options.setdefault("identities", [str(self.key("trainer").public), str(self.key("owner").public)])
        options.setdefault("evidence_stores", [str(self.store)])
        with sealflow.run(self.surroundings()):
            return descendants(digest(name), **options)

    # --- an admin ---

    def govern(self, rules: Sequence[Body] = (), identities: dict[str, Body] | None = None, **more: Any) -> None:
        """Put a policy in force: data by the owner, everything else by the trainer, and summaries by a verifier."""
        reuse = {"reuse_verdict": {"max_age": "1d", "verifiers": ["verifier"]}}
        evidence = {"evidence": {"provenance": {}}}
        data = [self.lies("raw"), self.lies("labels")]
        made = [self.lies("clean"), self.lies("model")]
        usual = [
            rule("data", data, ["owner"], require={**reuse, **evidence}),
            rule("made", made, ["trainer"], require={**reuse, **evidence}),
        ]
        known = {
            "owner": self.identity("owner"),
            "trainer": self.identity("trainer"),
            "verifier": self.identity("verifier", verifier=True),
        }
        self.version += 1
        known |= identities or {}
        self.publish(policy(list(rules) or usual, known, version=self.version, **more))
        self.channel_in_force = True

    def summaries(self, name: str = "model") -> list[Path]:
        return self.objects(name, "summary")

    def summary(self, name: str = "model") -> Body:
        """Make a genuine summary, take it away, and return its statement."""
        traced = self.trace(name, verifier=self.key("verifier").signer)
        assert traced.verdict.passed, traced.verdict.summary()
        (path,) = self.summaries(name)
        statement = payload(path.read_bytes())
        path.unlink()
        return statement


def payload(bundle: bytes) -> Body:
    return json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))


def states(traced: Traced) -> dict[str, str]:
    """Name → state."""
    return {node.name: node.state for node in traced.graph.nodes.values()}


def deciding(traced: Traced) -> set[str]:
    """Codes of what decided."""
    return {item.code for item in traced.verdict.findings if item.severity in ("refusal", "unverifiable")}


def noted(traced: Traced) -> set[str]:
    """Codes of everything else."""
    return {item.code for item in traced.verdict.findings} - deciding(traced)
