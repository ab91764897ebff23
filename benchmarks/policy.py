"""What a policy costs: reading it in a fresh process, and one decision under it.

A policy of 500 rules. What is read once in a process is told apart from what each decision costs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path

from benchmarks.measure import environment, python, run
from benchmarks.table import Timing

RULES = 500
IDENTITIES = 100

# A fresh process each time, as a task is one: nothing is warm but the file system.
_CHILD = """
import datetime, json, sys, time
start = time.perf_counter()
import sealflow.actions.verify, sealflow.policy.document, sealflow.policy.compose, sealflow.policy.decide
imported = time.perf_counter() - start
from sealflow.policy.compose import Arguments, compose
from sealflow.policy.decide import Fact, heard, missing
from sealflow.policy.globs import readings
from sealflow.policy.source import AdminChannel, policy_in_force
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages
now = datetime.datetime.now(datetime.timezone.utc)
channel = AdminChannel(sys.argv[1], (sys.argv[2],))
start = time.perf_counter()
in_force = policy_in_force(channel, Storages(), now, cached=False)
loaded = time.perf_counter() - start
policy = in_force.policy
assert len(policy.rules) == int(sys.argv[3])
made = now.strftime("%Y-%m-%dT%H:%M:%SZ")
taken = []
for index in range(2000):
    number = index * 7 % len(policy.rules)
    team = f"team{number % 100}"
    name = f"{team}/model{number}"
    run = RunIdentity("airflow", f"{team}-score{number}", "load", "run")
    start = time.perf_counter()
    places = readings(f"s3://models/{name}/v{index}/model.bin")
    ruling = compose([policy], Arguments(), places=places, run=run, now=now)
    demand = ruling.requirement
    speaks = demand.identities
    facts = [
        Fact("signature", "k", speaks),
        Fact("provenance", "k", speaks, f"airflow:{team}-train{number}/fit", "urn:builder", "model", made),
    ]
    spoken = [(fact, heard(demand, fact, now)) for fact in facts]
    short = missing(demand, spoken, now, pinned=False, consumer=run.producer)
    taken.append(time.perf_counter() - start)
    assert ruling.rules and all(isinstance(item, tuple) for _, item in spoken) and not short, (spoken, short)
print(json.dumps({"import": imported, "load": loaded, "decisions": taken}))
"""


def measure(work: Path, rounds: int) -> list[Timing]:
    """Return the medians over fresh processes."""
    make_policy(work)
    samples = []
    for _ in range(2 * rounds):
        command = [*python(_CHILD), str(work / "policy.json"), str(work / "admin.pem.pub"), str(RULES)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
        samples.append(json.loads(done.stdout))
    decisions = [second for sample in samples for second in sample["decisions"]]
    firsts = [sample["decisions"][0] for sample in samples]
    return [
        Timing(f"load and verify a policy of {RULES} rules", statistics.median(s["load"] for s in samples), 0.05),
        Timing("one decision under it", statistics.median(decisions), 0.0002),
        Timing("the first decision of a process", statistics.median(firsts)),
        Timing("imports of a process that has a policy", statistics.median(s["import"] for s in samples)),
    ]


def make_policy(work: Path) -> None:
    """Write and sign a policy with rules of all kinds."""
    code = """
import sys, yaml
from sealflow.actions.keys_generate import generate_key
from sealflow.keys import load_signer
from sealflow.policy.draft import read_draft
from sealflow.policy.signed import POLICY_TYPE, make_signed
work, rules, identities = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
generate_key(f"{work}/admin.pem")
for index in range(identities):
    generate_key(f"{work}/{index}.pem")
body = {
    "apiVersion": "sealflow/v1", "version": 1, "expires": "2099-01-01T00:00:00Z",
    "identities": {f"team{i}": {"key": f"{i}.pem.pub", "producers": [f"airflow:team{i}-*/*"]}
                   for i in range(identities)},
    "rules": [{
        "name": f"rule{i}",
        "scope": {
            "artifact": [f"s3://models/team{i % identities}/model{i}/**", f"/data/models/{i}/**"],
            "dag": [f"team{i % identities}-score{i}"],
        },
        "require": {
            "identities": {"any_of": [f"team{i % identities}"]},
            "evidence": {"signature": {}, "provenance": {"max_age": "30d"}},
            "producers": [f"airflow:team{i % identities}-*/*"],
            "loaders": [f"airflow:team{i % identities}-score{i}/*"],
        },
    } for i in range(rules - 1)] + [{"name": "all", "scope": {"artifact": ["s3://models/**"]}, "require": {}}],
}
open(f"{work}/policy.yaml", "w").write(yaml.safe_dump(body))
signed = make_signed(read_draft(f"{work}/policy.yaml").json, load_signer(f"file:{work}/admin.pem"), POLICY_TYPE)
open(f"{work}/policy.json", "wb").write(signed)
"""
    run([*python(code), str(work), str(RULES), str(IDENTITIES)])
