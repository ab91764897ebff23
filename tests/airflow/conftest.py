"""An Airflow home of its own, a connection as an admin would set it, and task contexts."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.airflow.home import AirflowHome, unused_port
from tests.pki import KeyPair, write_key
from tests.servers.s3 import S3Server

EXAMPLES = Path(__file__).resolve().parents[2] / "example_dags"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "airflow_home" in getattr(item, "fixturenames", ()):
            # One worker runs them all, so the database is made once.
            item.add_marker(pytest.mark.xdist_group("airflow"))
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def _process_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # Airflow reads this once, when it is imported.
    home = tmp_path_factory.mktemp("airflow-process")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(home))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        yield home


@pytest.fixture(autouse=True)
def _airflow(_process_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(_process_home))


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> AirflowHome:
    """An Airflow with a database, our examples and our test DAGs, run through its command line."""
    folder = tmp_path_factory.mktemp("airflow")
    home = AirflowHome(folder, write_key(folder, "signing"))
    home.add_dags(EXAMPLES / "airflow")
    home.add_dags(Path(__file__).parent / "dags")
    home.migrate()
    return home


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    """The key that signs and is trusted."""
    return write_key(tmp_path, "signing")


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Define a connection."""

    def define(conn_id: str = "sealflow_default", *, conn_type: str = "sealflow", **fields: Any) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps({"conn_type": conn_type, **fields}))

    return define


def aws_connection(server: S3Server, endpoint: str = "") -> dict[str, Any]:
    """The fields of an ``aws`` connection to an S3 server, or to what stands before it."""
    return {
        "conn_type": "aws",
        "login": server.access_key,
        "password": server.secret_key,
        "extra": {
            "endpoint_url": endpoint or server.endpoint_url,
            "region_name": server.region,
            "config_kwargs": {"s3": {"addressing_style": "path"}},
        },
    }


@pytest.fixture
def connection(connect: Callable[..., None], key: KeyPair) -> KeyPair:
    """The default connection signs with one key and trusts it."""
    connect(extra={"signer": key.signer, "identities": {"trainer": f"file:{key.public}"}})
    return key


@dataclass
class TaskInstance:
    """As much of a task instance as we look at, and what was pushed."""

    dag_id: str = "train"
    task_id: str = "fit"
    run_id: str = "manual__1"
    map_index: int = -1
    try_number: int = 1
    # What a run verified is remembered by its identity, so no two tests may share one.
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = json.loads(json.dumps(value))


@pytest.fixture
def context() -> dict[str, Any]:
    """A task context."""
    return {"ti": TaskInstance(), "params": {}, "dag_run": SimpleNamespace(conf={})}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A folder with two files."""
    folder = tmp_path / "data" / "measurements"
    folder.mkdir(parents=True)
    (folder / "january.csv").write_bytes(b"day,value\n1,20\n")
    (folder / "units.json").write_bytes(b"{}")
    return folder


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> str:
    """S3 is configured to be where nobody listens."""
    endpoint = f"http://127.0.0.1:{unused_port()}"
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return endpoint
