"""What it costs to harden a compiled pipeline of Kubeflow.

200 tasks in several parts, in fresh processes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import environment, python, run
from benchmarks.table import Timing

#: Tasks of the pipeline: chains of three in loops, beside each other.
TASKS = 200

_COMPILE = """
import sys
from kfp import compiler, dsl

@dsl.component(base_image="python:3.11", packages_to_install=["numpy==2.0.0"])
def make(model: dsl.Output[dsl.Model], text: str = "weights"):
    with open(model.path, "w") as file:
        file.write(text)

@dsl.component(base_image="python:3.11")
def turn(source: dsl.Input[dsl.Artifact], turned: dsl.Output[dsl.Dataset]):
    with open(source.path) as file, open(turned.path, "w") as target:
        target.write(file.read()[::-1])

@dsl.container_component
def copy(source: dsl.Input[dsl.Artifact], copied: dsl.Output[dsl.Dataset]):
    return dsl.ContainerSpec(image="alpine", command=["cp"], args=[source.path, copied.path])

@dsl.pipeline
def large():
    for _ in range(int(sys.argv[2]) // 4):
        made = make()
        with dsl.ParallelFor(["a", "b"]) as text:
            other = make(text=text)
            turn(source=other.outputs["model"])
        copy(source=made.outputs["model"])

compiler.Compiler().compile(large, sys.argv[1])
"""

# A fresh process each time, as the command is one; the second time shows what is warm.
_CHILD = """
import json, sys, time
with open(sys.argv[1], "rb") as file:
    text = file.read()
start = time.perf_counter()
from sealflow_kfp.hardening import harden_text
imported = time.perf_counter() - start
taken = []
for _ in range(2):
    start = time.perf_counter()
    done = harden_text(text, secret="keys", policy_config_map="policy")
    taken.append(time.perf_counter() - start)
assert done.reports[0].tasks == len(done.reports[0].wrapped) == int(sys.argv[2])
print(json.dumps([imported, *taken]))
"""


def measure(work: Path, rounds: int) -> list[Timing]:
    """Return the medians over fresh processes."""
    compiled = work / "pipeline.yaml"
    # In a file: a component takes its source from there.
    source = work / "compiled.py"
    source.write_text(_COMPILE)
    run([sys.executable, str(source), str(compiled), str(TASKS)])
    samples = []
    for _ in range(2 * rounds):
        command = [*python(_CHILD), str(compiled), str(TASKS)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
        samples.append(json.loads(done.stdout))
    imported, first, second = (statistics.median(column) for column in zip(*samples, strict=True))
    return [
        Timing(f"harden a pipeline of {TASKS} tasks, a fresh process", first, 0.5),
        Timing("the same again", second),
        Timing("imports of the hardener", imported),
    ]
