"""What it costs to find how far a stolen key got, in a history of ten thousand artifacts.

From evidence that verifies and from the audit log, exactly: as many as the history that was made up holds, no more
and no less.
"""

from __future__ import annotations

import datetime
import random
import statistics
from pathlib import Path

from benchmarks.measure import python, run
from benchmarks.table import Timing
from sealflow.actions.keys_generate import generate_key
from sealflow.audit import AuditEvent, merkle
from sealflow.audit.append import append
from sealflow.audit.checkpoint import Checkpoint, sign_checkpoint
from sealflow.audit.entry import Chain
from sealflow.audit.log import open_log
from sealflow.audit.note import VerifierKey
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.oms import make_oms_statement
from sealflow.evidence.provenance import Dependency, make_provenance_statement
from sealflow.hashing import Digest, sha256_hex
from sealflow.keys import load_signer
from sealflow.manifest.model import Manifest, Resource
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages

ARTIFACTS = 10_000
#: Seconds that are promised for as many.
BOUND = 10.0

_INPUTS = (1, 2, 3, 4)
_DATASETS = 20  # one artifact in so many
_NEAR = 200  # inputs are among so many artifacts before, and of the same project
_PROJECT = 1000
_STOLEN = 3000  # one artifact in so many is signed with the stolen key, some way into a project

_CHILD = """
import sys, time
from sealflow.actions.respond_radius import blast_radius
folder, target, touched, out = sys.argv[1:]
known = {name: f"{folder}/{name}.pub" for name in ("worker", "stolen")}
begun = time.perf_counter()
found = blast_radius(target, evidence_stores=[f"{folder}/evidence"], identities=known, audit_log=f"{folder}/log",
                     audit_log_key=f"{folder}/log.vkey")
took = time.perf_counter() - begun
assert found.verdict.passed, found.verdict.summary()
got = {str(item.digest) for item in found.radius.of("touched")}
want = set(open(touched).read().split())
assert got == want, (len(got - want), len(want - got))
open(out, "a").write(f"{took}\\n")
"""


def measure(folder: Path, rounds: int, quick: bool = False) -> list[Timing]:
    """Return how long it takes to find what a key, and what a dataset, touched."""
    count = ARTIFACTS // 20 if quick else ARTIFACTS
    touched = build(folder, count)
    found = []
    for name, target in (("stolen key", str(folder / "stolen.pub")), ("dataset", str(_digest(0)))):
        (folder / "touched").write_text("\n".join(sorted(touched[name])))
        out = folder / name.replace(" ", "-")
        for _ in range(max(rounds, 1)):
            run(
                [*python(_CHILD), str(folder), target, str(folder / "touched"), str(out)],
                {"SEALFLOW_AUDIT_SPOOL": str(folder / "spool")},
            )
        taken = statistics.median(float(line) for line in out.read_text().split())
        label = f"blast radius of a {name} over {count} artifacts, {len(touched[name])} touched"
        found.append(Timing(label, taken, None if quick else BOUND))
    return found


def build(folder: Path, count: int) -> dict[str, set[str]]:
    """Write a history and return the digests that the key and the first dataset touched."""
    chance = random.Random(11)
    for name in ("worker", "stolen"):
        generate_key(str(folder / name))
    signers = {name: load_signer(f"file:{folder / name}") for name in ("worker", "stolen")}
    now = datetime.datetime(2026, 9, 1, tzinfo=datetime.timezone.utc)
    touched: dict[str, set[str]] = {"stolen key": set(), "dataset": set()}
    lines: list[bytes] = []
    for number in range(count):
        digest = _digest(number)
        first = number - number % _PROJECT
        inputs = [] if number % _DATASETS == 0 else chance.sample(
            range(max(first, number - _NEAR), number), min(number - first, chance.choice(_INPUTS))
        )  # fmt: skip
        who = "stolen" if number % _STOLEN == 300 else "worker"
        run_of = RunIdentity("airflow", f"flow{number % 50}", "make", f"run-{number}", None, 1)
        used = [Dependency(f"file:///lake/{item}", _digest(item), f"data-{item}") for item in inputs]
        statement = make_provenance_statement(f"data-{number}", digest, run_of, dependencies=used, now=now)
        manifest = Manifest("file", f"data-{number}", (Resource(f"data-{number}", digest.hex),))
        place = folder / "evidence" / digest.path_segment
        place.mkdir(parents=True)
        for kind, payload in (("provenance", statement), ("signature", make_oms_statement(manifest))):
            data = make_bundle(payload, signers[who])
            (place / f"{kind}-{sha256_hex(data)}.json").write_bytes(data)
        lines += _events(run_of, number, inputs, f"sha256:{signers[who].public_key.hint}", now)
        if who == "stolen" or any(str(_digest(item)) in touched["stolen key"] for item in inputs):
            touched["stolen key"].add(str(digest))
        if number == 0 or any(str(_digest(item)) in touched["dataset"] for item in inputs):
            touched["dataset"].add(str(digest))
    _write_log(folder, lines)
    return touched


def _digest(number: int) -> Digest:
    return Digest("sha256", sha256_hex(b"%d" % number))


def _events(run_of: RunIdentity, number: int, inputs: list[int], key: str, now: datetime.datetime) -> list[bytes]:
    """The chain of a run: it verifies its inputs, and signs what it makes."""
    chain, time = Chain(), now.isoformat(timespec="microseconds")
    done: list[bytes] = []

    def add(event: AuditEvent) -> None:
        done.append(chain.add(event.to_json()).line)

    for action, item, outcome, member in (
        *(("verify", item, "passed", "") for item in inputs), ("sign", number, "done", key),
    ):  # fmt: skip
        place = f"file:///lake/{item}"
        intent = AuditEvent(action, "intent", run_of, time=time, artifact=place, key=member)
        add(intent)
        add(
            AuditEvent(
                action,
                "outcome",
                run_of,
                time=time,
                artifact=place,
                key=member,
                outcome=outcome,  # type: ignore[arg-type]
                digest=str(_digest(item)),
                correlation=intent.correlation,
            )
        )
    add(AuditEvent("end", "end", run_of, time=time, count=chain.count + 1))
    return done


def _write_log(folder: Path, lines: list[bytes]) -> None:
    generate_key(str(folder / "logkey"), algorithm="ed25519")
    signer = load_signer(f"file:{folder / 'logkey'}")
    key = VerifierKey.of(signer, "bench.example/audit")
    (folder / "log.vkey").write_text(str(key))
    store = open_log(str(folder / "log"), Storages())
    added = append(store.get, 0, lines, root=merkle.EMPTY_ROOT)
    store.create_all(added.objects)
    store.swap_checkpoint(None, sign_checkpoint(Checkpoint(key.name, added.size, added.root), signer))


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        for row in measure(Path(place), 1, "--quick" in sys.argv):
            print(f"{row.name}: {row.seconds:.2f} s")
