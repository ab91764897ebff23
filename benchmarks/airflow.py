"""What the guard costs in Airflow: parsing a DAG file, and running a task without large artifacts.

Airflow answers at once here. In a running one each inlet costs a question to its API server more, for the events, and
each task one for the connection.

Tasks of LocalExecutor are forked from a process that has loaded the guard's modules. In a pod of KubernetesExecutor,
and on macOS, each task is in a process that has loaded nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import environment
from benchmarks.table import Timing

#: Most seconds.
PARSE_BOUND = 0.02
TASK_BOUND = 0.05
TASKS = 20

_DAG = """
from airflow.sdk import Asset, dag, task

@dag(schedule=None)
def bench():
    for number in range({tasks}):
        @task(task_id=f"t{{number}}", inlets=[Asset(f"file://{folder}/in/{{number}}")],
              outlets=[Asset(f"file://{folder}/models/{{number}}")])
        def work():
            pass
        work()
bench()
"""

# In one process each, since Airflow's own import takes seconds and varies more than our share. The first parse is
# the one that a worker pays, whose process is new for each task; it loads whatever the guard needs.
_PARSE = """
import sys, time
from pathlib import Path
import airflow.settings
airflow.settings.initialize()
from airflow.dag_processing.dagbag import DagBag
import airflow.providers.standard.decorators.python
DagBag({warm!r}, bundle_path=Path({warm!r}))
start = time.perf_counter()
bag = DagBag({dags!r}, bundle_path=Path({dags!r}))
taken = time.perf_counter() - start
assert not bag.import_errors, bag.import_errors
print(taken)
"""

_TASK = """
import json, sys, time, types, uuid
from airflow.sdk import Asset, BaseOperator
from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.execution_time.context import InletEventsAccessors, OutletEventAccessors
import airflow.settings
airflow.settings.initialize()
# Every task is forked from a process that has it.
import airflow.sdk.execution_time.supervisor
from sealflow_airflow import policy, stub
if {ahead!r}:
    # As in a process that was forked from the scheduler.
    from importlib import import_module
    for name in policy.LOADED_AHEAD:
        import_module(name)
ExecutorSafeguard.test_mode = True
folder, guarded = {folder!r}, {guarded!r}

class Work(BaseOperator):
    def execute(self, context):
        with open(folder + "/models/out", "w") as file:
            file.write("weights")

class Nothing(dict):
    def __missing__(self, key):
        raise KeyError(key)

class NoEvents:
    def __getitem__(self, key):
        return self
    def ascending(self, value):
        return self
    def limit(self, value):
        return []

def once():
    task = Work(task_id="t", inlets=[Asset("file://" + folder + "/models/in")],
                outlets=[Asset("file://" + folder + "/models/out")])
    ti = types.SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, id=uuid.uuid4(),
                               task=task)
    context = {{"task": task, "ti": ti, "params": {{}}, "outlet_events": OutletEventAccessors(),
               "inlet_events": NoEvents(), "triggering_asset_events": Nothing()}}
    start = time.perf_counter()
    (stub.execute if guarded else task.execute)(context=context)
    taken = time.perf_counter() - start
    assert not guarded or context["outlet_events"][task.outlets[0]].extra["sealflow"]
    return taken

print(json.dumps([once() for _ in range(5)]))
"""

_SIGN = """
import sealflow
open({place!r}, "w").write("weights")
sealflow.sign({place!r}, signer={signer!r})
"""


def measure(folder: Path, rounds: int) -> list[Timing]:
    """Return what a guard adds to a file of 20 tasks, and to a task with one inlet and one outlet.

    Args:
        folder: An empty folder.
        rounds: How often each is measured.
    """
    import statistics

    key, ruling = make_policy(folder)
    (folder / "models").mkdir()
    run_python(_SIGN.format(place=f"{folder}/models/in", signer=f"file:{key}"), {})
    dags, warm = folder / "dags", folder / "warm"
    for place, tasks in ((dags, TASKS), (warm, 0)):
        place.mkdir()
        (place / "bench.py").write_text(_DAG.format(folder=folder, tasks=tasks))
    plain = {
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_SEALFLOW_DEFAULT": json.dumps({"conn_type": "sealflow", "extra": {"signer": f"file:{key}"}}),
    }
    ruled = {**plain, **ruling}
    parse = _PARSE.format(dags=str(dags), warm=str(warm))
    taken: dict[str, list[float]] = {"plain": [], "ruled": [], "first": [], "forked": [], "later": [], "bare": []}
    for _ in range(rounds):
        taken["plain"].append(float(run_python(parse, plain)))
        taken["ruled"].append(float(run_python(parse, ruled)))
        for name, ahead in (("first", False), ("forked", True)):
            once, *later = json.loads(run_python(_TASK.format(folder=str(folder), guarded=True, ahead=ahead), ruled))
            taken[name].append(once)
            taken["later"] += later
        taken["bare"] += json.loads(run_python(_TASK.format(folder=str(folder), guarded=False, ahead=False), plain))
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return [
        Timing(f"guard, parsing a file with {TASKS} tasks", middle["ruled"] - middle["plain"], PARSE_BOUND),
        Timing("guard, a task in a process that has loaded nothing", middle["first"] - middle["bare"]),
        Timing("guard, a task forked from a scheduler, policy not yet read", middle["forked"] - middle["bare"]),
        Timing("guard, a task, all of that done", middle["later"] - middle["bare"], TASK_BOUND),
    ]


def make_policy(folder: Path) -> tuple[str, dict[str, str]]:
    """Sign a policy that manages a folder's models; return who may sign them, and Airflow's options for the policy."""
    from sealflow.keys import load_signer
    from sealflow.policy.signed import POLICY_TYPE, make_signed

    key, admin = (make_key(folder, name) for name in ("trainer", "admin"))
    body = {
        "apiVersion": "sealflow/v1",
        "version": 1,
        "expires": "2099-01-01T00:00:00Z",
        "identities": {"trainer": {"key": Path(f"{key}.pub").read_text()}},
        "rules": [
            {
                "name": "models",
                "scope": {"artifact": [f"{folder}/models/**"]},
                "require": {"identities": {"any_of": ["trainer"]}},
            }
        ],
    }
    policy = folder / "policy.json"
    policy.write_bytes(make_signed(json.dumps(body).encode(), load_signer(f"file:{admin}"), POLICY_TYPE))
    return key, {"AIRFLOW__SEALFLOW__POLICY": str(policy), "AIRFLOW__SEALFLOW__POLICY_KEYS": f"{admin}.pub"}


def make_key(folder: Path, name: str) -> str:
    """Make a key pair and return the private key's path."""
    subprocess.run(
        [sys.executable, "-c", "import sealflow.cli; sealflow.cli.main()", "keys", "generate", str(folder / name)],
        check=True,
        capture_output=True,
        env=environment(),
    )
    return str(folder / name)


def run_python(code: str, env: dict[str, str]) -> str:
    """Run a program in a process of its own and return its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(env), capture_output=True, text=True, cwd=os.path.sep
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
