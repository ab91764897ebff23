"""What it costs to walk a large lineage, and to take a verification summary instead.

100,000 attestations in files, in the page cache. The bare P-256 verifications, one for each, are what no walk can
do without.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
import statistics
from pathlib import Path

from benchmarks.measure import python, run
from benchmarks.table import Timing
from sealflow.actions.keys_generate import generate_key
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.evidence.summary import LINEAGE, make_summary_statement
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import KeySigner, load_signer
from sealflow.run_identity import RunIdentity

ATTESTATIONS = 100_000

#: How many inputs an artifact has; with the datasets, which have none, some 3.8 on average.
_INPUTS = (1, 2, 3, 4, 4, 4, 4, 5, 6, 7)
_DATASETS = 20  # one artifact in so many
_NEAR = 2_000  # inputs are among so many artifacts before

_CHILD = """
import datetime, os, sys, time
from sealflow.actions.gathering import EvidenceReader
from sealflow.actions.trace import trace
from sealflow.collector import rare_collection
from sealflow.evidence.provenance import parse_digest_set
from sealflow.hashing import Digest
from sealflow.policy import Requirement, parse_identities
from sealflow.policy.requirement import Clause
from sealflow.storage import Storages
from sealflow.verification.assess import Start, Terms
from sealflow.verification.walk import walk
what, folder, start, count, out = sys.argv[1:]
identities = {"trainer": f"{folder}/trainer.pub"}
roots = {"owner": f"{folder}/owner.pub"}
store = f"{folder}/evidence"
if what == "one":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
if what != "pure":
    begun = time.perf_counter()
    traced = trace(start, identities=identities, roots=roots, evidence_stores=[store])
    took = time.perf_counter() - begun
    assert traced.verdict.passed, traced.verdict.summary()
    graph = traced.graph
else:
    reader = EvidenceReader([store], Storages(), beside=False)
    kinds = frozenset({"provenance", "summary"})
    held = {digest: reader(digest, (), kinds) for digest in reader.stores[0].digests(1 << 20)}
    terms = Terms(Requirement((Clause("identities", parse_identities(identities)),), frozenset({"provenance"})))
    owners = parse_identities(roots)
    now = datetime.datetime.now(datetime.timezone.utc)
    begun = time.perf_counter()
    with rare_collection():
        begin = [Start(Digest.parse(start))]
        walked = walk(begin, lambda digest, *_: held[digest], lambda *_: terms, roots=owners, now=now)
    took = time.perf_counter() - begun
    assert not walked.findings, walked.findings[:3]
    graph = walked.graph
assert len(graph.nodes) == int(count), len(graph.nodes)
open(out, "a").write(f"{took}\\n")
"""

_BARE = """
import sys, time
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
count, out = sys.argv[1:]
key, how, statement = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256()), bytes(1700)
signature, public = key.sign(statement, how), key.public_key()
begun = time.perf_counter()
for _ in range(int(count)):
    public.verify(signature, statement, how)
open(out, "a").write(f"{time.perf_counter() - begun}\\n")
"""

_SUMMARY = """
import datetime, statistics, sys, time
from sealflow.actions.gathering import EvidenceReader
from sealflow.hashing import Digest
from sealflow.policy import Requirement, parse_identities
from sealflow.policy.requirement import Clause
from sealflow.storage import Storages
from sealflow.verification.assess import Reuse, Start, Terms
from sealflow.verification.walk import walk
folder, start, out = sys.argv[1:]
who = {name: parse_identities({name: f"{folder}/{name}.pub"}) for name in ("trainer", "owner", "verifier")}
requirement = Requirement((Clause("identities", who["trainer"]),), frozenset({"provenance"}))
terms = Terms(requirement, True, Reuse("sha256:" + "ab" * 32, "sha256:" + "cd" * 32, 86400, who["verifier"]))
reader = EvidenceReader([f"{folder}/summarised"], Storages())
taken = []
for _ in range(500):
    now = datetime.datetime.now(datetime.timezone.utc)
    begun = time.perf_counter()
    walked = walk([Start(Digest.parse(start))], reader, lambda *_: terms, roots=who["owner"], now=now)
    taken.append(time.perf_counter() - begun)
    assert walked.reused
open(out, "a").write(f"{statistics.median(taken)}\\n")
"""


def measure(work: Path, rounds: int, quick: bool) -> list[Timing]:
    """Return the medians."""
    count = ATTESTATIONS // 50 if quick else ATTESTATIONS
    for name in ("trainer", "owner", "verifier"):
        generate_key(str(work / name))
    edges, start = _sign_graph(work, count)
    usual = _digest(11)
    _sign_summary(work, usual)
    settings = {"SEALFLOW_AUDIT_SPOOL": str(work / "spool")}
    for _ in range(rounds):
        for what in ("store", "one", "pure"):
            out = str(work / f"{what}.times")
            run([*python(_CHILD), what, str(work), str(start), str(count), out], settings)
        run([*python(_BARE), str(count), str(work / "bare.times")], settings)
        run([*python(_SUMMARY), str(work), str(usual), str(work / "summary.times")], settings)
    name = f"{count:,} attestations, {edges / count:.1f} inputs each"
    return [
        Timing(f"{name}: trace from a local store", _median(work / "store.times"), 20.0),
        Timing(f"{name}: the same on one processor", _median(work / "one.times")),
        Timing(f"{name}: walk alone, in one process", _median(work / "pure.times")),
        Timing(f"{count:,} bare verifications of P-256, in one process", _median(work / "bare.times")),
        Timing("a verification summary instead", _median(work / "summary.times"), 0.005),
    ]


def _median(path: Path) -> float:
    return statistics.median(map(float, path.read_text().split()))


def _digest(number: int) -> Digest:
    return Digest("sha256", hashlib.sha256(b"%d" % number).hexdigest())


def _sign_graph(work: Path, count: int) -> tuple[int, Digest]:
    """Sign a graph in which everything leads to one artifact; return the number of edges and that artifact."""
    chance = random.Random(7)
    signers = {name: load_signer(f"file:{work / name}") for name in ("trainer", "owner")}
    now = datetime.datetime.now(datetime.timezone.utc)
    loose: set[int] = set()
    edges = 0
    for number in range(count):
        last = number == count - 1
        inputs: list[int] = []
        if last:
            inputs = sorted(loose)
        elif number >= 10 and number % _DATASETS:
            known = range(max(0, number - _NEAR), number)
            inputs = chance.sample(known, min(len(known), chance.choice(_INPUTS)))
        edges += len(inputs)
        loose.difference_update(inputs)
        loose.add(number)
        run_of = RunIdentity("airflow", "prepare", f"step-{number % 40}", f"scheduled__{number}", None, 1, team="ml")
        statement = make_provenance_statement(
            f"part-{number:06}.parquet",
            _digest(number),
            run_of,
            dependencies=[
                Dependency(f"file:///lake/prepared/part-{other:06}.parquet", _digest(other), f"part-{other:06}.parquet")
                for other in inputs
            ],
            parameters={"day": "2026-01-01"},
            now=now,
        )
        _file(work / "evidence", _digest(number), "provenance", statement, signers["trainer" if inputs else "owner"])
    return edges, _digest(count - 1)


def _sign_summary(work: Path, start: Digest) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    (provenance,) = (work / "evidence" / start.path_segment).iterdir()
    folder = work / "summarised" / start.path_segment
    folder.mkdir(parents=True)
    (folder / provenance.name).write_bytes(provenance.read_bytes())
    statement = make_summary_statement(
        "model",
        start,
        orchestrator="airflow",
        now=now,
        resource="file:///lake/model",
        policy_uri="s3://admin/policy.json",
        policy="sha256:" + "ab" * 32,
        requirement="sha256:" + "cd" * 32,
        levels=[LINEAGE],
        inputs=[("", sha256_hex(json.dumps(number).encode())) for number in range(500)],
    )
    _file(work / "summarised", start, "summary", statement, load_signer(f"file:{work / 'verifier'}"))


def _file(store: Path, digest: Digest, kind: str, statement: bytes, signer: KeySigner) -> None:
    bundle = make_bundle(statement, signer)
    folder = store / digest.path_segment
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}-{sha256_hex(bundle)}.json").write_bytes(bundle)
