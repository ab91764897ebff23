"""Train, store the model encrypted, bring it to production with all its evidence, and use it there.

The connection ``sealflow_default`` says with ``recipients`` who can open it. ``score`` opens the encrypted object
itself and leaves nothing behind; ``fetch`` is for programs that want a file.
"""

import json
from datetime import timedelta
from pathlib import Path

from airflow.sdk import dag, task

import sealflow
from sealflow_airflow import EncryptedDownloadOperator, EncryptedUploadOperator, PromoteArtifactOperator


@dag(schedule=None, params={"folder": "/var/lib/models", "store": "s3://models"})
def example_encrypted_transfer():
    @task
    def train(params: dict):
        model = Path(params["folder"], "line")
        model.mkdir(exist_ok=True)
        (model / "weights.json").write_text(json.dumps({"slope": 2, "intercept": 1}))
        (model / "README.md").write_text("A line through points.\n")
        return str(model)

    # A try that is cut off by the timeout leaves nothing that anybody could take for the model; the next one goes on.
    upload = EncryptedUploadOperator(
        task_id="upload",
        source=train(),
        destination="{{ params.store }}/dev/line.enc",
        name="line",
        retries=2,
        execution_timeout=timedelta(hours=1),
    )
    promote = PromoteArtifactOperator(
        task_id="promote",
        source=upload.output,
        destination="{{ params.store }}/prod/line.enc",
        producer="airflow:example_encrypted_transfer/upload",
        retries=2,
    )
    EncryptedDownloadOperator(
        task_id="fetch", artifact=promote.output, destination="{{ params.folder }}/fetched", name="line", retries=2
    )

    @task(retries=2)
    def score(model: dict, x: float):
        with sealflow.verified(model, name="line") as path:
            line = json.loads(Path(path, "weights.json").read_text())
        return line["slope"] * x + line["intercept"]

    score(promote.output, x=10)


example_encrypted_transfer()
