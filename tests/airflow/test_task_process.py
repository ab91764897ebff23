"""How Airflow ends a task: by its own function, in a fork that forgets the exits of its parent, by os._exit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit_events import entries

pytestmark = pytest.mark.airflow

TASK = """
import os, socket, sys
from airflow.sdk.execution_time import supervisor
import sealflow
from sealflow.actions.keys_generate import generate_key
folder, how = sys.argv[1:]
os.environ["SEALFLOW_AUDIT_SPOOL"] = folder + "/spool"
generate_key(folder + "/parent")

def task():
    generate_key(folder + "/child")
    if how == "fails":
        raise ValueError("in the task")
    if how == "exits":
        raise SystemExit(3)

ours, theirs = zip(*(socket.socketpair() for _ in range(4)))
pid = os.fork()
if not pid:
    supervisor._fork_main(*theirs[:3], theirs[3].detach(), task)
os.waitpid(pid, 0)
os._exit(0)
"""


@pytest.mark.parametrize("how", ["returns", "exits", "fails"])
def test_the_chain_of_a_task_process_ends(tmp_path: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", TASK, str(tmp_path), how], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    chains: dict[str, list[dict[str, object]]] = {}
    for entry in entries(tmp_path / "spool"):
        chains.setdefault(entry.writer, []).append(json.loads(entry.event))
    ends = {str(chain[0]["artifact"]).rpartition("/")[2]: chain[-1].get("count") for chain in chains.values()}
    # The parent was told to leave without any of this; what it had begun stays open.
    assert ends == {"parent": None, "child": 3}
