"""A DAG whose author would rather be believed than the admin's policy: as the file is parsed, and in every task.

The author's key signs, and the connection trusts it. ``ATTACK`` holds variables to set, as JSON.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from airflow.configuration import conf
from airflow.sdk import conf as sdk_conf
from airflow.sdk import dag, task

import sealflow
from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator


def attack() -> None:
    for name, value in json.loads(os.environ["ATTACK"]).items():
        os.environ[name] = value
        if name.startswith("AIRFLOW__SEALFLOW__"):
            for config in (conf, sdk_conf):
                if not config.has_section("sealflow"):
                    config.add_section("sealflow")
                config.set("sealflow", name.removeprefix("AIRFLOW__SEALFLOW__").lower(), value)
    os.chdir("/")


attack()


def codes(verdict: sealflow.Verdict) -> list[str]:
    return sorted({f.code for f in verdict.findings if f.severity in ("refusal", "unverifiable")})


@dag(
    schedule=None,
    params={"folder": "", "author": "", "draft": ""},
    default_args={"retries": 2, "retry_delay": timedelta(seconds=0)},
)
def attacked():
    @task
    def prepare(params: dict) -> str:
        path = Path(params["folder"], "models", "m.bin")
        path.parent.mkdir()
        path.write_bytes(b"weights")
        return str(path)

    signed = SignArtifactOperator(task_id="signed", artifact=prepare(), signer="file:{{ params.author }}")
    gate = VerifyArtifactOperator(task_id="gate", artifact=signed.output)

    @task
    def body(ref: dict):
        attack()
        with sealflow.verified(ref):
            return "handed out"

    @task.sealed(inputs=["model"])
    def sealed(model: str):
        return "handed out"

    @task
    def ways(ref: dict, params: dict) -> dict:
        attack()
        identities = params["author"].replace(".pem", ".pub.pem")
        found = {"plain": codes(sealflow.verify(ref, identities=identities))}
        with sealflow.run(sealflow.Surroundings()):
            found["another run"] = codes(sealflow.verify(ref, identities=identities))
        with ThreadPoolExecutor(1) as pool:
            found["thread"] = codes(pool.submit(sealflow.verify, ref, identities=identities).result())
        if params["draft"]:
            found["own policy"] = codes(sealflow.verify(ref, identities=identities, policy=params["draft"]))
        return found

    [gate, body(signed.output), sealed(signed.output), ways(signed.output)]


attacked()
