"""What an import costs, since every DAG parse and every task pays it.

In fresh processes, above a bare interpreter; the operators above ``import airflow.sdk``, which a DAG has loaded
anyway.
"""

from __future__ import annotations

import statistics
import subprocess

from benchmarks.measure import environment, interleaved, python
from benchmarks.table import Timing


def measure(rounds: int) -> list[Timing]:
    """Return the import costs, each above its own baseline in the same run."""
    core = interleaved(
        {
            "idle": python("pass"),
            "import": python("import sealflow"),
            "verbs": python("from sealflow import sign, verified, verify"),
        },
        rounds * 3,
    )
    rows = [
        Timing("import sealflow", core["import"].wall - core["idle"].wall, 0.2),
        Timing("from sealflow import sign, verified, verify", core["verbs"].wall - core["idle"].wall, 0.2),
    ]
    # airflow.sdk alone takes seconds and varies more than our share, so both are timed inside one process, often.
    code = (
        "import time, sys; import airflow.sdk; from airflow.sdk import BaseOperator, BaseHook; t = time.perf_counter();"
        "from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator;"
        "print(time.perf_counter() - t); assert not {'boto3', 'dvc', 'kfp'} & set(sys.modules)"
    )
    taken = [
        float(subprocess.run(python(code), env=environment(), capture_output=True, text=True, check=True).stdout)
        for _ in range(rounds)
    ]
    rows.append(Timing("operators, above import airflow.sdk", statistics.median(taken), 0.05))
    return rows
