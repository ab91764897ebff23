"""Every example is run as its reader would run it: by Airflow, over what it is made for."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sealflow.audit.entry import parse_entry
from sealflow.audit.inbox import open_inbox
from sealflow.audit.note import VerifierKey
from sealflow.storage import Storages
from tests.airflow.conftest import EXAMPLES
from tests.airflow.home import AirflowHome, statements
from tests.core.actions.access_log import one
from tests.core.audit.logs import ed25519_signer
from tests.postures import BAD, GOOD
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

ROOT = EXAMPLES.parent
#: Example to what its last task returns.
PLAIN = {
    "example_sealed_task": ("score", 28),
    "example_operators": ("mean", 21.0),
    "example_task_sealed_decorator": ("load", ["1", "2", "3"]),
    "readme_dag": ("score", '{"slope": 2, "intercept": 1}'),
}
#: Run by a test of their own: where.
ELSEWHERE = {
    "example_encrypted_transfer": __file__,
    "example_gate_on_posture": __file__,
    "example_integrate_audit_log": __file__,
    "example_access_audit": __file__,
    "example_gate_on_lineage": "tests/airflow/test_lineage.py",
    # What the demo's test runs.
    "digits": "example_dags/demo/run.py",
    "digits_score": "example_dags/demo/run.py",
}


def test_every_dag_file_loads_and_is_run():
    """The whole folder, as a user who points Airflow at it would load it."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(EXAMPLES), bundle_path=EXAMPLES)
    assert bag.import_errors == {}
    assert {Path(dag.fileloc).parent.name for dag in bag.dags.values()} == {"airflow"}
    assert {Path(dag.fileloc).name for dag in bag.dags.values()} == {
        path.name for path in (EXAMPLES / "airflow").glob("*.py")
    }
    assert set(bag.dags) == set(PLAIN) | set(ELSEWHERE)
    for dag, where in ELSEWHERE.items():
        assert re.search(rf'run\(\s*"{dag}"', (ROOT / where).read_text()), (dag, where)


@pytest.mark.parametrize("dag", PLAIN)
def test_example_runs(airflow_home: AirflowHome, dag: str):
    folder = airflow_home.folder_for(dag)
    conf = {"folder": str(folder), "evidence_store": str(folder / "evidence"), "model": str(folder / "model.json")}
    run = airflow_home.run(dag, conf)
    assert set(run.states.values()) == {"success"}, run.output
    last, value = PLAIN[dag]
    assert run.xcoms[last, "return_value"] == value
    producers = {
        statement["predicate"]["buildDefinition"]["externalParameters"]["producer"]
        for statement in statements(folder)
        if "buildDefinition" in statement["predicate"]
    }
    assert producers
    assert all(producer.startswith(f"airflow:{dag}/") for producer in producers)


def transferred(home: AirflowHome, folder: Path, store: str, env: dict[str, str]) -> None:
    """Run the transfer and look at what every task returned and fetched."""
    run = home.run("example_encrypted_transfer", {"folder": str(folder), "store": store}, env=env)
    assert set(run.states.values()) == {"success"}, run.output
    assert run.xcoms["score", "return_value"] == 21
    sent, promoted, fetched = (run.xcoms[task, "return_value"] for task in ("upload", "promote", "fetch"))
    assert (sent["encrypted"], promoted["encrypted"], fetched["encrypted"]) == (True, True, False)
    assert sent["digest"] == promoted["digest"] == fetched["digest"]
    assert {run.xcoms[task, "verdict"]["status"] for task in ("promote", "fetch")} == {"passed"}
    assert (folder / "fetched" / "README.md").read_bytes() == (folder / "line" / "README.md").read_bytes()


def reveals_nothing(stored: dict[str, bytes]) -> None:
    """Nothing of the model can be read in the store: no content, no name of a file."""
    assert {name.rpartition("/")[2] for name in stored if name.endswith(".enc")} == {"line.enc"}
    words = [b"slope", b"README", b"weights", b"through points"]
    assert [(name, word) for name, data in stored.items() for word in words if word in data] == []


def test_example_of_an_encrypted_transfer(airflow_home: AirflowHome):
    folder = airflow_home.folder_for("encrypted")
    store = folder / "store"
    transferred(airflow_home, folder, str(store), {})
    reveals_nothing({str(path): path.read_bytes() for path in store.rglob("*") if path.is_file()})
    (promotion,) = [s for s in statements(store) if s["predicateType"].startswith("urn:sealflow:predicate:promotion")]
    assert promotion["predicate"]["producer"] == "airflow:example_encrypted_transfer/promote"


def test_example_of_an_encrypted_transfer_over_s3(airflow_home: AirflowHome, s3_server: S3Server, s3_bucket: str):
    folder = airflow_home.folder_for("encrypted-s3")
    transferred(airflow_home, folder, f"s3://{s3_bucket}", s3_server.environment)
    client = s3_server.client()
    stored = {
        item["Key"]: client.get_object(Bucket=s3_bucket, Key=item["Key"])["Body"].read()
        for item in client.list_objects_v2(Bucket=s3_bucket)["Contents"]
    }
    assert {name for name in stored if name.endswith(".enc")} == {"dev/line.enc", "prod/line.enc"}
    reveals_nothing(stored)


@pytest.fixture
def posture(airflow_home: AirflowHome, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Run the gate over the good bucket and another one, in a process with the buckets of tests.postures."""
    import sealflow

    def run(bucket: str) -> dict[str, str]:
        model = tmp_path / "model.json"
        model.write_text("{}")
        ref = sealflow.sign(model, signer=airflow_home.key.signer, name="churn")
        conf = {"models": f"s3://{GOOD}/churn/", "data": f"s3://{bucket}/churn/", "model": ref.as_dict()}
        done = airflow_home.run(
            "example_gate_on_posture",
            conf,
            env={
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "PYTHONPATH": f"{airflow_home.environment()['PYTHONPATH']}:{ROOT}",
            },
            # The buckets are there as long as somebody holds them.
            first="from tests.postures import world\nheld = world()\nheld.__enter__()",
        )
        return {task: f"{state} {done.tries[task]}" for task, state in done.states.items()} | {"output": done.output}

    return run


def test_example_of_the_gate_on_posture(posture: Callable[[str], dict[str, str]]):
    done = posture(GOOD)
    output = done.pop("output")
    assert done == {"gates.models": "success 1", "gates.data": "success 1", "score": "success 1"}, output


def test_example_of_the_gate_on_posture_reads_nothing_from_a_bad_bucket(posture: Callable[[str], dict[str, str]]):
    done = posture(BAD)
    output = done.pop("output")
    assert done == {"gates.models": "success 1", "gates.data": "failed 1", "score": "upstream_failed 0"}, output
    assert "POSTURE_FAILED" in output


def test_examples_of_integrating_the_audit_log_and_reviewing_it(airflow_home: AirflowHome):
    """What the first brings into the log the second reviews."""
    folder = airflow_home.folder_for("audit")
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    inbox = open_inbox(f"sqlite:{folder}/inbox.db", Storages())
    inbox.put(map(parse_entry, one(yesterday, "s3://models/churn/model.pkl")))
    inbox.close()
    signer = ed25519_signer(folder)
    conf = {"inbox": inbox.uri, "audit_log": str(folder / "log"), "signer": signer.uri}
    done = airflow_home.run("example_integrate_audit_log", conf)
    assert done.states == {"integrate": "success"}, done.output
    assert done.xcoms["integrate", "return_value"]["added"] == 3

    key = folder / "log.pub"
    key.write_text(str(VerifierKey.of(signer, "example.com/audit")))
    options = {
        "AIRFLOW__SEALFLOW__AUDIT_LOG": str(folder / "log"),
        "AIRFLOW__SEALFLOW__AUDIT_LOG_KEY": str(key),
    }
    done = airflow_home.run("example_access_audit", {"reports": str(folder / "reports"), "since": "7d"}, env=options)
    assert done.states == {"review": "success"}, done.output
    assert done.xcoms["review", "return_value"]["outcomes"] == {"passed": 1}
    (page,) = (folder / "reports").glob("*.html")
    assert "s3://models/churn/model.pkl" in page.read_text()
    (report,) = (folder / "reports").glob("*.json")
    assert json.loads(report.read_text())["outcomes"] == {"passed": 1}

    # One byte less, and there is nothing to review.
    (folder / "log" / "checkpoint").unlink()
    done = airflow_home.run("example_access_audit", {"reports": str(folder / "none"), "since": "7d"}, env=options)
    assert (done.states["review"], done.tries["review"]) == ("failed", 1), done.output
    assert done.failed_with("review", "LOG_ROLLED_BACK"), done.output
