"""The guard with artifacts in S3, and with encrypted ones."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.airflow.conftest import TaskInstance, aws_connection
from tests.airflow.home import AirflowHome
from tests.airflow.test_guard_runs import read_lineage
from tests.e2e.admin import Admin, rule
from tests.pki import write_key
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


@dataclass
class Store:
    """A bucket with a policy for it, an asset in it, and tasks that make and use it as they like.

    Attributes:
        bucket: The bucket.
        client: An S3 client of nobody's.
        events: Events of the asset, as the API server would keep them.
        verdicts: Verdicts of all checks.
    """

    bucket: str
    client: Any
    events: list[Any] = field(default_factory=list)
    verdicts: list[Any] = field(default_factory=list)

    def asset(self) -> Any:
        from airflow.sdk import Asset

        return Asset(name="model", uri=f"s3://store@{self.bucket}/models/m")

    def put(self, text: str = "weights", name: str = "m") -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"models/{name}", Body=text.encode())

    def objects(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return [item["Key"] for item in found]

    def make(self, work: Callable[[Any], Any] | None = None, *, run: str = "r1") -> dict[str, Any]:
        """Run a task that has the asset as outlet, keep its event and return the extra of it."""
        asset = self.asset()
        context = self._context("fit", run, outlets=[asset])
        self._guarded(context, (lambda: self.put()) if work is None else lambda: work(context))
        extra: dict[str, Any] = context["outlet_events"][asset].extra
        self.told(extra, run=run)
        return extra

    def told(self, extra: Any, *, run: str = "r1", task: str = "fit") -> None:
        self.events.append(
            SimpleNamespace(
                asset=self.asset(),
                extra=extra,
                timestamp=len(self.events),
                source_dag_id="train",
                source_task_id=task,
                source_run_id=run,
                source_map_index=-1,
            )
        )

    def use(self, work: Callable[[], Any] = lambda: "used", *, run: str = "u1") -> Any:
        """Run a task that has the asset as inlet, in a DAG run that the latest event started."""
        context = self._context("use", run, inlets=[self.asset()])
        context["triggering_asset_events"] = {self.asset(): self.events[-1:]}
        return self._guarded(context, work)

    @staticmethod
    def _context(task_id: str, run: str, **lists: list[Any]) -> dict[str, Any]:
        task = SimpleNamespace(inlets=[], outlets=[])
        vars(task).update(lists)
        ti = TaskInstance(dag_id="train", task_id=task_id, run_id=run)
        ti.task = task  # type: ignore[attr-defined]
        return {
            "ti": ti,
            "task": task,
            "params": {},
            "dag_run": SimpleNamespace(conf={}),
            "triggering_asset_events": {},
            "outlet_events": {item: SimpleNamespace(extra={}) for item in task.outlets},
        }

    @staticmethod
    def _guarded(context: Any, work: Callable[[], Any]) -> Any:
        from sealflow_airflow.guard import guarded

        return guarded(context, context["task"], work)


@contextlib.contextmanager
def refused(code: str) -> Iterator[None]:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=code):
        yield


@pytest.fixture
def store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Callable[..., None], s3_server: S3Server
) -> Callable[..., Store]:
    def make(*, versioned: bool = True, reuse: bool = False, **fields: Any) -> Store:
        from sealflow.actions import guarding
        from sealflow.actions.verify import verify_artifact
        from sealflow_airflow import policy

        bucket = s3_server.make_bucket(versioned=versioned)
        admin = Admin(tmp_path / "admin")
        keys = {name: write_key(tmp_path, name) for name in ("trainer", "verifier")}
        if reuse:
            fields["reuse_verdict"] = {"max_age": "24h", "verifiers": ["verifier"]}
        identities = {"trainer": keys["trainer"], "verifier": {"key": keys["verifier"], "verifier": True}}
        if not reuse:
            del identities["verifier"]
        admin.publish([rule("models", f"s3://{bucket}/models/**", "trainer", **fields)], identities)
        connect(extra={"signer": keys["trainer"].signer})
        connect("store", **aws_connection(s3_server))
        monkeypatch.setattr(policy, "channel", lambda: admin.channel(state=str(tmp_path / "state")))
        here = Store(bucket, s3_server.client())

        def checked(*args: Any, **options: Any) -> Any:
            found = verify_artifact(*args, **options)
            here.verdicts.append(found.verdict)
            return found

        monkeypatch.setattr(guarding, "verify_artifact", checked)
        return here

    return make


@pytest.mark.parametrize("versioned", [True, False], ids=["versions", "no-versions"])
def test_from_signing_to_verifying_in_a_bucket(store, versioned):
    here = store(versioned=versioned)
    ref = here.make()["sealflow"]
    assert ref["uri"] == f"s3://{here.bucket}/models/m"
    assert ("version_id" in ref) is versioned
    assert here.use() == "used"


@pytest.mark.parametrize("versioned", [True, False], ids=["versions", "no-versions"])
def test_object_that_was_written_over_is_refused(store, versioned):
    """The reference names the version that was signed; the task reads the one that is there."""
    here = store(versioned=versioned)
    here.make()
    here.put("poison!")
    with refused("FILE_CHANGED"):
        here.use()


@pytest.mark.parametrize("versioned", [True, False], ids=["versions", "no-versions"])
def test_object_that_is_written_over_while_the_task_runs_is_refused(store, versioned):
    here = store(versioned=versioned)
    here.make()
    with refused("FILE_CHANGED"):
        here.use(lambda: here.put("poison!"))


@pytest.mark.parametrize("meanwhile", [True, False])
def test_object_that_was_deleted_is_refused(store, meanwhile):
    here = store()
    here.make()

    def delete() -> None:
        here.client.delete_object(Bucket=here.bucket, Key="models/m")

    if not meanwhile:
        delete()
    with refused("ARTIFACT_MISSING"):
        here.use(delete if meanwhile else lambda: None)


def test_same_bytes_written_again_are_the_same_artifact(store):
    here = store()
    here.make()
    here.put()
    assert here.use(here.put) is None


def test_folder_in_a_bucket(store):
    here = store()

    def write(_: Any) -> None:
        for name in ("m/a", "m/b/c"):
            here.put(name, name)

    assert here.make(write)["sealflow"]["digest"].startswith("dirHash:")
    assert here.use() == "used"
    with refused("FILE_UNSIGNED"):
        here.use(lambda: here.put("poison!", "m/d"))


def test_store_that_is_out_of_reach_is_tried_again(store, connect, closed_port):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    here = store()
    here.make()
    connect(
        "store",
        conn_type="aws",
        login="key",
        password="secret",
        extra={"endpoint_url": closed_port, "config_kwargs": {"retries": {"total_max_attempts": 1}}},
    )
    used: list[str] = []
    with pytest.raises(AirflowException, match="BACKEND_UNAVAILABLE") as failed:
        here.use(lambda: used.append("used"))
    assert not isinstance(failed.value, AirflowFailException)
    assert used == []


def test_a_run_over_a_bucket(airflow_home: AirflowHome, tmp_path: Path, s3_server: S3Server):
    bucket = s3_server.make_bucket(versioned=True)
    admin, trainer = Admin(tmp_path / "admin"), write_key(tmp_path, "trainer")
    admin.publish([rule("models", f"s3://{bucket}/models/**", "trainer")], {"trainer": trainer})
    read_lineage(airflow_home)
    run = airflow_home.run(
        "bucket",
        {},
        env={
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "guard_dags"),
            "AIRFLOW_CONN_SEALFLOW_DEFAULT": airflow_home.connection(signer=trainer.signer),
            "AIRFLOW_CONN_STORE": json.dumps(aws_connection(s3_server)),
            "GUARD_FOLDER": str(tmp_path),
            "GUARD_BUCKET": bucket,
            **admin.options(),
        },
    )
    assert run.states["use_kept"] == "success", run.output
    assert (run.states["use_tampered"], run.tries["use_tampered"]) == ("failed", 1), run.output
    assert run.failed_with("use_tampered", "FILE_CHANGED"), run.output
    assert "read poison!" not in run.output
    # What Airflow's own hook wrote, and the task did not declare.
    said = run.output.partition("starting task_id=between_tampered ")[2].partition("end task")[0]
    assert f"ARTIFACT_UNDECLARED s3://{bucket}/models/tampered" in said


# --- Verdicts that are taken over ---


@pytest.fixture
def reusing(store, connect, tmp_path):
    """A store whose object a verifier has read."""
    here = store(reuse=True)
    extra = here.make()
    settings = {"signer": f"file:{tmp_path}/trainer.pem"}
    connect(extra=settings | {"verifier": f"file:{tmp_path}/verifier.pem"})
    here.use()
    connect(extra=settings)
    return here, extra


def test_summary_is_not_believed_of_an_object_that_was_written_over(reusing):
    here, _ = reusing
    here.put("poison!")
    with refused("FILE_CHANGED"):
        here.use()
    assert not here.verdicts[-1].reused


@pytest.mark.parametrize(
    ("source", "passes"),
    [
        pytest.param({"run": "r1"}, True, id="the-one-that-signed"),
        # As one who replays an old model would: the same task, and truly signed.
        pytest.param({"run": "r2"}, False, id="another-run-of-the-task"),
        pytest.param({"run": "r1", "task": "other"}, False, id="another-task"),
        pytest.param({"run": "r1", "task": "fit/r1"}, False, id="a-task-that-begins-like-it"),
    ],
)
def test_event_is_compared_with_the_signed_run_under_a_summary_too(reusing, source, passes):
    here, extra = reusing
    here.told(extra, **source)
    with contextlib.nullcontext() if passes else refused("PRODUCER_MISMATCH"):
        here.use()
    assert here.verdicts[-1].reused


# --- Encrypted ---


@pytest.fixture
def sealed(store, connect, tmp_path):
    """A store of which a rule asks for encryption, and a connection that encrypts and opens."""
    (tmp_path / "team.key").write_bytes(bytes(range(32)))
    here = store(versioned=False, recipients={"encrypted": True})
    connect(extra={"signer": f"file:{tmp_path}/trainer.pem", "recipients": [f"aes:{tmp_path}/team.key"]})
    (tmp_path / "weights").write_text("weights")
    return here


def _upload(here: Store, tmp_path: Path, hand_on: Callable[[Any], Any] = lambda ref: ref) -> Callable[[Any], Any]:
    from sealflow_airflow import EncryptedUploadOperator

    place = f"s3://{here.bucket}/models/m"
    operator = EncryptedUploadOperator(
        task_id="up", source=f"{tmp_path}/weights", destination=place, aws_conn_id="store", overwrite=True
    )
    return lambda context: hand_on(operator.execute(context))


HANDED_ON = {
    "as-it-is": lambda ref: ref,
    "in-a-dictionary": lambda ref: {"rows": 3, "ref": ref},
    "in-a-list": lambda ref: [3, ref],
    "not-at-all": lambda ref: None,
}


@pytest.mark.parametrize("hand_on", HANDED_ON.values(), ids=HANDED_ON)
def test_encrypted_outlet_is_checked_and_handed_on(sealed, tmp_path, hand_on):
    ref = sealed.make(_upload(sealed, tmp_path, hand_on))["sealflow"]
    assert ref["encrypted"] is True
    assert sealed.use() == "used"


def test_encrypted_inlet_that_was_exchanged_is_refused(sealed, tmp_path):
    sealed.make(_upload(sealed, tmp_path))
    (tmp_path / "weights").write_text("poison!")

    def exchange() -> None:
        context = sealed._context("fit", "r2")
        _upload(sealed, tmp_path)(context)

    with refused("DIGEST_MISMATCH|FILE_CHANGED"):
        sealed.use(exchange)
    with refused("DIGEST_MISMATCH|FILE_CHANGED"):
        sealed.use()


def test_encrypted_outlet_of_another_run_is_refused(sealed, tmp_path):
    """A task that hands on what lies there already, encrypted and signed by an earlier run."""
    extra = sealed.make(_upload(sealed, tmp_path))
    with refused("PRODUCER_MISMATCH"):
        sealed.make(lambda context: extra["sealflow"], run="r2")


def test_encrypted_outlet_with_the_content_of_an_earlier_run(sealed, tmp_path):
    sealed.make(_upload(sealed, tmp_path))
    assert sealed.make(_upload(sealed, tmp_path), run="r2")["sealflow"]["encrypted"] is True
    assert sealed.use() == "used"


def test_outlet_in_clear_where_a_rule_asks_for_encryption_is_refused_where_it_is_made(sealed):
    with refused("ENCRYPTION_REQUIRED"):
        sealed.make()
    assert not [key for key in sealed.objects() if "signature-" in key]


def test_encrypted_inlet_without_the_key_is_refused(sealed, tmp_path, connect):
    sealed.make(_upload(sealed, tmp_path))
    connect(extra={"signer": f"file:{tmp_path}/trainer.pem"})
    with refused("RECIPIENT"):
        sealed.use()
