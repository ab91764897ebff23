"""`airflow sealflow doctor`: each thing that can be wrong, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.airflow.home import AirflowHome
from tests.e2e.admin import Admin, rule
from tests.pki import write_key

pytestmark = pytest.mark.airflow


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SEALFLOW_", "AIRFLOW__SEALFLOW__")):
            monkeypatch.delenv(name)


@pytest.fixture
def in_force(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Admin]:
    from sealflow.policy.source import forget

    def publish(**more: Any) -> Admin:
        admin = Admin(tmp_path / "admin")
        admin.publish([rule("models", f"{tmp_path}/models/**", level=more.pop("level", "enforce"))], {}, **more)
        forget()
        channel = admin.channel(managed=[f"{tmp_path}/models/**"])
        monkeypatch.setattr("sealflow_airflow.policy.channel", lambda: channel)
        return admin

    return publish


def lines(check: Any) -> list[Any]:
    return list(check({}))


def one(check: Any) -> tuple[str, str]:
    (line,) = lines(check)
    assert line.expected
    assert line.next_step or line.state in ("ok", "note")
    return line.state, line.found


# --- The installation ---


def test_this_installation_is_sound():
    from sealflow_airflow.doctor.installation import distribution, entry_points, hooks

    for check in (distribution, entry_points, hooks):
        assert {line.state for line in lines(check)} <= {"ok", "note"}


def test_broken_installation_is_one_clear_sentence():
    code = (
        "import sys\nsys.modules['sealflow'] = None\nfrom sealflow_airflow.cli import get_commands\n"
        "get_commands()[0].subcommands[0].func(None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert "sealflow cannot be loaded here (ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_entry_points(monkeypatch):
    from sealflow_airflow.doctor import installation

    monkeypatch.setattr(installation.metadata, "entry_points", lambda group: [])
    assert [line.state for line in lines(installation.entry_points)] == ["fault", "fault"]


def test_second_distribution(monkeypatch, tmp_path):
    from sealflow_airflow.doctor.installation import distribution

    made = tmp_path / "sealflow-0.0.9.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: sealflow\nVersion: 0.0.9\n")
    other = tmp_path / "elsewhere-1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (other / "top_level.txt").write_text("sealflow\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = [line for line in lines(distribution) if line.state == "fault"]
    assert any(str(tmp_path) in line.found for line in found)
    assert any("elsewhere" in line.found for line in found)


def test_package_that_pythonpath_shadows(tmp_path):
    (tmp_path / "sealflow_kfp").mkdir()
    for package in ("sealflow", "sealflow_airflow"):
        source = Path(__import__(package).__file__).parent
        (tmp_path / package).symlink_to(source) if package == "sealflow" else _copied(source, tmp_path / package)
    code = (
        "import json\nfrom sealflow_airflow.doctor.installation import distribution\n"
        "print(json.dumps([(l.state, l.found) for l in distribution({})]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert [text for state, text in found if state == "fault" and "PYTHONPATH puts first" in text]


def _copied(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)


def test_misspelled_hook(monkeypatch):
    from airflow.policies import hookimpl
    from airflow.settings import get_policy_plugin_manager

    from sealflow_airflow.doctor.installation import hooks

    class Plugin:
        @staticmethod
        @hookimpl
        def task_polcy(task):
            """Never called."""

    manager = get_policy_plugin_manager()
    manager.register(Plugin, "mistaken")
    try:
        (fault,) = [line for line in lines(hooks) if line.state == "fault"]
    finally:
        manager.unregister(Plugin)
    assert "mistaken.task_polcy" in fault.found


# --- The policy: three states ---


def test_without_a_policy_enforcement_is_inert():
    from sealflow_airflow.doctor.configured import policy

    state, found = one(policy)
    assert state == "warning"
    assert "enforcement is inert" in found


def test_policy_in_force(in_force):
    from sealflow_airflow.doctor.configured import policy

    in_force(version=3)
    state, found = one(policy)
    assert state == "ok"
    assert "version 3, sha256:" in found


def test_policy_that_is_not_to_be_had(in_force):
    from sealflow_airflow.doctor.configured import policy

    in_force().policy.unlink()
    state, found = one(policy)
    assert state == "unknown"
    assert "POLICY_UNAVAILABLE" in found


def test_file_of_the_machine_stands_before_the_configuration(in_force, monkeypatch, tmp_path):
    from sealflow_airflow.doctor.configured import policy

    admin = in_force()
    machine = admin.channel(minimum_version=1, state=str(tmp_path / "state"))
    monkeypatch.setattr("sealflow.actions.context._machine_channel", lambda: machine)
    found = lines(policy)
    assert [line.state for line in found] == ["warning", "ok"]
    assert "is not asked: the test stands before it" in found[0].found


def test_waiver(monkeypatch):
    from sealflow_airflow.doctor import configured

    waiver = {"id": "w1", "rules": ["models"], "expires": "2026-12-01T00:00:00Z", "reason": "outage"}
    found = {"state": "none", "waivers": [waiver | {"holds": True}, waiver | {"id": "w2", "holds": False}]}
    monkeypatch.setattr(configured, "_status", lambda: found)
    state, text = one(configured.expiry)
    assert state == "warning"
    assert text.startswith("the waiver w1 turns off models until 2026-12-01")


def test_policy_that_ends_soon(in_force):
    import datetime

    from sealflow_airflow.doctor.configured import expiry

    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3)
    in_force(expires=soon.strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert one(expiry)[0] == "warning"


def test_nothing_ends(in_force):
    from sealflow_airflow.doctor.configured import expiry

    in_force()
    assert one(expiry) == ("ok", "nothing")


@pytest.mark.parametrize(("days", "state"), [(-1, "fault"), (5, "warning"), (90, "ok")], ids=["past", "soon", "later"])
def test_certificate_of_the_connection(tmp_path, connect, days, state):
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    from sealflow_airflow.doctor.configured import expiry

    now = datetime.datetime.now(datetime.timezone.utc)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trainer")])
    end = now + datetime.timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(end - datetime.timedelta(days=100))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "chain.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    connect(extra={"signer": f"file:/keys/trainer.pem?certificate={path}"})
    found = one(expiry)
    # Options of other schemes, and a second signer's chain.
    for uri in (
        "awskms:alias/x?region=eu-west-1&certificate={}",
        "file:/keys/a.pem?also=file:/keys/b.pem%3Fcertificate={}",
    ):
        connect(extra={"signer": uri.format(path)})
        assert one(expiry) == found
    assert found[0] == state
    assert ("CN=trainer" in found[1]) is (state != "ok")


# --- XCom ---


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    from sealflow_airflow import xcom

    def configure(**options: str) -> None:
        key = tmp_path / "xcom.key"
        key.write_bytes(bytes(32))
        key.chmod(0o600)
        given = {"xcom_keys": f"aes:{key}?name=november", **options}
        monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "sealflow_airflow.xcom.SealedXComBackend")
        monkeypatch.setattr(xcom, "_FROZEN", {name: given.get(name, "") for name in xcom._OPTIONS})
        xcom.keys.cache_clear()
        xcom.storage.cache_clear()

    yield configure
    xcom.keys.cache_clear()
    xcom.storage.cache_clear()


def test_xcoms_are_not_sealed():
    from sealflow_airflow.doctor.configured import xcom

    assert one(xcom)[0] == "note"


def test_xcoms_are_sealed(sealed):
    from sealflow_airflow.doctor.configured import xcom

    sealed()
    same: dict[str, str] = {}
    (line,) = xcom(same)
    assert line.state == "ok"
    assert same["xcom keys"].startswith("november ")
    assert "00000000" not in same["xcom keys"]


@pytest.mark.parametrize(
    "differs",
    [
        {"key": bytes([7]) * 32},
        {"xcom_storage": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"},
        {"xcom_max_bytes": "1000"},
        {"xcom_accept_clear": "True"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_workers_that_could_not_read_each_others_xcoms_are_told_apart(sealed, tmp_path, differs):
    from sealflow_airflow.doctor.configured import xcom

    here: dict[str, str] = {}
    sealed()
    assert list(xcom(here))
    there: dict[str, str] = {}
    sealed(**{name: item for name, item in differs.items() if name != "key"})
    # Another key under the same name.
    (tmp_path / "xcom.key").write_bytes(differs.get("key", bytes(32)))
    assert list(xcom(there))
    assert len(here.items() ^ there.items()) == 2


def test_xcoms_in_clear_are_accepted(sealed):
    from sealflow_airflow.doctor.configured import xcom

    sealed(xcom_accept_clear="True")
    assert [line.state for line in lines(xcom)] == ["ok", "warning"]


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "elsewhere"])
@pytest.mark.parametrize("named", [True, False], ids=["no-file", "no-option"])
def test_xcom_keys_are_missing(sealed, tmp_path, worker, named):
    """A scheduler, an API server and a DAG processor need none, and should have none."""
    from functools import partial

    from sealflow_airflow.doctor import _guarded
    from sealflow_airflow.doctor.configured import xcom

    sealed(xcom_keys=f"aes:{tmp_path}/none?name=november" if named else "")
    same: dict[str, str] = {}
    (line,) = _guarded("xcom backend", partial(xcom, worker=worker), same)
    assert (line.state, line.found.partition(":")[0]) == ("fault" if worker else "note", "KEY_MISSING")
    assert same["xcom keys"] == "none here"


def test_key_that_is_a_wrong_one_is_a_fault_everywhere(sealed, tmp_path):
    from sealflow_airflow.doctor import _guarded
    from sealflow_airflow.doctor.configured import xcom

    sealed()
    (tmp_path / "xcom.key").write_bytes(b"short")
    (line,) = _guarded("xcom backend", xcom, {})
    assert line.state == "fault"


@pytest.mark.parametrize("worker", [True, False], ids=["worker", "elsewhere"])
def test_certificate_that_is_not_here(tmp_path, connect, worker):
    from functools import partial

    from sealflow_airflow.doctor import _guarded
    from sealflow_airflow.doctor.configured import expiry

    connect(extra={"signer": f"file:/keys/trainer.pem?certificate={tmp_path}/none.pem"})
    (line,) = _guarded("expiry", partial(expiry, worker=worker), {})
    assert (line.state, line.found.partition(":")[0]) == ("fault" if worker else "note", "KEY_MISSING")


# --- The connection ---


@pytest.mark.parametrize(
    ("worker", "signer", "state"),
    [
        pytest.param(False, "file:/nowhere/trainer.pem", "note", id="elsewhere"),
        pytest.param(True, "file:/nowhere/trainer.pem", "fault", id="key-missing"),
        pytest.param(True, "file:{here}/trainer.pem", "ok", id="key-there"),
        pytest.param(True, "", "note", id="none"),
    ],
)
def test_keys_of_the_connection(tmp_path, connect, worker, signer, state):
    from functools import partial

    from sealflow_airflow.doctor.configured import connection

    write_key(tmp_path, "trainer")
    connect(extra={"signer": signer.format(here=tmp_path)} if signer else {})
    assert one(partial(connection, worker=worker))[0] == state


# --- The environment ---

SETTINGS = {
    "misspelled-option": ("AIRFLOW__SEALFLOW__POLCY", "fault"),
    # Airflow runs commands and asks the secrets backend only for options that are sensitive; none of ours is.
    "command": ("AIRFLOW__SEALFLOW__XCOM_KEYS_CMD", "fault"),
    "secret": ("AIRFLOW__SEALFLOW__POLICY_KEYS_SECRET", "fault"),
    "small-letters": ("AIRFLOW__SEALFLOW__policy", "fault"),
    "not-read-in-airflow": ("SEALFLOW_AUDIT_LOG", "warning"),
    "nobody-reads-it": ("SEALFLOW_POLICY", "warning"),
    "counts-as-a-default": ("SEALFLOW_SIGNER", "note"),
}


@pytest.mark.parametrize(("name", "state"), SETTINGS.values(), ids=SETTINGS)
def test_variables(monkeypatch, name, state):
    from sealflow_airflow.doctor.configured import environment

    monkeypatch.setenv(name, "hunter2")
    found = one(environment)
    assert found[0] == state
    assert name in found[1]
    assert "hunter2" not in found[1]


def test_variable_that_an_option_stands_before(monkeypatch):
    from sealflow_airflow.doctor.configured import environment

    monkeypatch.setenv("SEALFLOW_EVIDENCE_STORE", "/one")
    assert one(environment)[0] == "note"
    monkeypatch.setenv("AIRFLOW__SEALFLOW__EVIDENCE_STORE", "/two")
    state, found = one(environment)
    assert state == "warning"
    assert "ignored" in found


@pytest.fixture
def in_file(monkeypatch):
    """Lets airflow.cfg hold options of ours."""
    from airflow.configuration import conf

    if before := conf.has_section("sealflow"):
        kept = dict(conf.items("sealflow", raw=True))
        conf.remove_section("sealflow")
    yield lambda **options: conf.read_dict({"sealflow": options})
    conf.remove_section("sealflow")
    if before:
        conf.read_dict({"sealflow": kept})


def test_variable_that_stands_before_the_file(in_file, monkeypatch):
    from sealflow_airflow.doctor.configured import environment

    in_file(conn_id="theirs", polcy="")
    monkeypatch.setenv("AIRFLOW__SEALFLOW__CONN_ID", "mine")
    found = lines(environment)
    assert [(line.state, line.found.partition(" ")[0]) for line in found] == [
        ("warning", "AIRFLOW__SEALFLOW__CONN_ID"),
        ("fault", "polcy"),
    ]


def test_defaults_that_airflow_wrote_into_its_file_are_nobodys_choice(in_file, monkeypatch):
    from sealflow_airflow.doctor.configured import environment

    in_file(conn_id="sealflow_default", policy="")
    monkeypatch.setenv("AIRFLOW__SEALFLOW__CONN_ID", "mine")
    monkeypatch.setenv("AIRFLOW__SEALFLOW__POLICY", "/mine")
    assert one(environment)[0] == "ok"


def test_a_clean_environment():
    from sealflow_airflow.doctor.configured import environment

    assert one(environment)[0] == "ok"


def test_airflow_reads_no_command_and_no_secret_for_our_options(monkeypatch):
    """As `environment` takes it."""
    from airflow.configuration import conf

    assert not {option for section, option in conf.sensitive_config_values if section == "sealflow"}
    monkeypatch.setenv("AIRFLOW__SEALFLOW__XCOM_KEYS_CMD", "echo aes:/mine")
    monkeypatch.setenv("AIRFLOW__SEALFLOW__xcom_storage", "mine")
    assert not conf.get("sealflow", "xcom_keys", fallback="")
    assert not conf.get("sealflow", "xcom_storage", fallback="")


def test_the_core_reads_no_other_variables():
    """A new one has to be named here, or in Airflow it is called unread."""
    import re

    from sealflow_airflow.doctor.configured import VARIABLES

    root = Path(__file__).resolve().parents[2] / "shared" / "sealflow"
    read = set()
    for path in root.rglob("*.py"):
        read |= set(re.findall(r"SEALFLOW_[A-Z0-9_]*[A-Z]", path.read_text()))
    ours = {name for name in read if not name.startswith("SEALFLOW_AUDIT")} - {"SEALFLOW_LINEAGE", "SEALFLOW_KFP_IMAGE"}
    assert ours == set(VARIABLES)


# --- DAGs ---


@pytest.fixture
def guarded_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process that started while a policy was configured."""
    from sealflow_airflow import policy

    monkeypatch.setattr(policy, "configured", lambda: True)


@pytest.fixture
def dags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guarded_process: None) -> None:
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.sdk import DAG, Asset
    from airflow.serialization.serialized_objects import DagSerialization

    from sealflow_airflow import SignArtifactOperator

    asset = Asset(name="churn", uri=f"file://{tmp_path}/models/churn")
    other = Asset(name="notes", uri=f"file://{tmp_path}/notes")
    symbolic = Asset(name="symbolic")
    with DAG("train", schedule=None) as dag:
        BashOperator(task_id="fit", bash_command="true", outlets=[asset])
        BashOperator(task_id="use", bash_command="true", inlets=[asset, symbolic])
        BashOperator(task_id="note", bash_command="true", outlets=[other])
        SignArtifactOperator(task_id="sign", artifact="x", outlets=[asset])
        SignArtifactOperator.partial(task_id="sign_all", outlets=[asset]).expand(artifact=["x", "y"])
        BashOperator.partial(task_id="fit_all", outlets=[asset]).expand(bash_command=["true"])
        BashOperator(task_id="either", bash_command="true", inlets=[symbolic | (symbolic & asset)])
        BashOperator.partial(task_id="either_all", inlets=symbolic | asset).expand(bash_command=["true"])
        BashOperator.partial(task_id="refer_all", inlets=[Asset.ref(uri=asset.uri)]).expand(bash_command=["true"])
    kept = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    monkeypatch.setattr(SerializedDagModel, "read_all_dags", classmethod(lambda cls: {"train": kept}))


@pytest.fixture
def out_of_reach(dags: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All stored tasks are of a kind that no guard can be put before."""
    from sealflow_airflow.doctor import dags as checks

    monkeypatch.setattr(checks, "out_of_reach", lambda task: True)


def test_stored_tasks_with_managed_assets_are_found_however_these_are_given(out_of_reach, in_force):
    from sealflow_airflow.doctor.dags import unguarded

    in_force()
    found = lines(unguarded)
    tasks = ["fit", "use", "sign", "sign_all", "fit_all", "either", "either_all", "refer_all"]
    assert [line.found.partition(" ")[0] for line in found] == [f"train/{task}" for task in tasks]
    assert {line.state for line in found} == {"warning"}


def test_without_a_rule_that_is_on_nothing_is_managed(out_of_reach, in_force):
    from sealflow_airflow.doctor.dags import unguarded

    in_force(level="off")
    assert one(unguarded)[0] == "ok"


def test_the_channel_says_what_is_managed_while_the_policy_is_out_of_reach(out_of_reach, in_force):
    from sealflow_airflow.doctor.dags import unguarded

    in_force().policy.unlink()
    assert len(lines(unguarded)) == 8


def test_without_a_policy_nothing_is_managed(dags):
    from sealflow_airflow.doctor.dags import unguarded

    assert one(unguarded)[0] == "note"


def test_a_worker_has_no_database_to_look_into(guarded_process, in_force, monkeypatch):
    from airflow.models.serialized_dag import SerializedDagModel
    from sqlalchemy.exc import OperationalError

    from sealflow_airflow.doctor.dags import unguarded

    def unreachable(_: Any) -> Any:
        raise OperationalError("SELECT", {}, Exception("no such table"))

    in_force()
    monkeypatch.setattr(SerializedDagModel, "read_all_dags", classmethod(unreachable))
    state, found = one(unguarded)
    assert state == "ok"
    assert "OperationalError" in found


def test_where_the_guard_is_put_before_tasks_all_is_well(dags, in_force):
    from sealflow_airflow.doctor.dags import unguarded

    in_force()
    assert one(unguarded) == ("ok", "none among 9 tasks of the database")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("configured", lambda: False, "started without a policy"),
        ("task_policy", lambda task: None, "no guard stands before a task"),
        ("task_policy", None, "cannot be put before a task"),
    ],
)
def test_guard_that_is_loaded_and_does_not_guard_is_a_fault(dags, in_force, monkeypatch, name, value, said):
    from sealflow_airflow import policy
    from sealflow_airflow.doctor.dags import unguarded

    in_force()
    monkeypatch.setattr(policy, name, value)
    state, found = one(unguarded)
    assert state == "fault"
    assert said in found


def test_policy_module_that_airflow_did_not_load_is_a_fault(dags, in_force, monkeypatch):
    from airflow.settings import get_policy_plugin_manager

    from sealflow_airflow.doctor.dags import unguarded
    from sealflow_airflow.doctor.installation import hooks

    in_force()
    monkeypatch.setattr(type(get_policy_plugin_manager()), "is_registered", lambda *_: False)
    assert one(unguarded) == (
        "fault",
        "the policy module is not among Airflow's policies, so no guard is put before tasks",
    )
    assert lines(hooks)[0].state == "fault"


def test_stored_task_of_a_kind_that_cannot_be_guarded_is_named(dags, in_force, monkeypatch):
    from airflow.models.serialized_dag import SerializedDagModel

    from sealflow_airflow.doctor.dags import unguarded

    in_force()
    task = SerializedDagModel.read_all_dags()["train"].task_dict["fit"]
    monkeypatch.setattr(task, "start_from_trigger", True)
    (line,) = lines(unguarded)
    assert (line.state, line.found.partition(" ")[0]) == ("warning", "train/fit")


# --- The report ---


def run(monkeypatch: pytest.MonkeyPatch, capsys: Any, *checks: Any, compare: Any = None, as_json: bool = True) -> Any:
    from sealflow_airflow import doctor

    report = doctor.Report(tuple(checks), {"version": "1", "policy": "none"}, "worker")
    if checks:
        monkeypatch.setattr(doctor, "examine", lambda _, worker: report)
    with pytest.raises(SystemExit) as ended:
        doctor.main(SimpleNamespace(json=as_json, compare=compare, worker=False))
    out = capsys.readouterr()
    return ended.value.code, json.loads(out.out) if as_json and out.out else out.out + out.err


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (("ok", "note", "warning"), 0),
        (("ok", "unknown"), 5),
        (("unknown", "fault"), 3),
    ],
    ids=["sound", "nobody-can-say", "wrong"],
)
def test_exit_status(monkeypatch, capsys, states, status):
    from sealflow_airflow.doctor import Line

    made = [Line("check", state, "this", "that\x1b[31m", "do it") for state in states]
    code, body = run(monkeypatch, capsys, *made)
    assert (code, body["ok"], len(body["lines"])) == (status, status == 0, len(states))
    code, text = run(monkeypatch, capsys, *made, as_json=False)
    assert code == status
    assert "\x1b" not in text


def test_a_check_that_fails_is_unknown():
    from sealflow_airflow.doctor import Line, _guarded

    def broken(_: Any) -> Any:
        yield Line("one", "ok", "a", "b")
        raise RuntimeError("no database")

    found = _guarded("one", broken, {})
    assert [(line.state, line.next_step != "") for line in found] == [("ok", False), ("unknown", True)]


def test_reports_are_compared(tmp_path):
    from sealflow.errors import UsageError
    from sealflow_airflow.doctor.report import compared

    path = tmp_path / "report.json"
    path.write_text(json.dumps({"host": "scheduler", "same": {"version": "1", "policy": "version 2"}}))
    found = list(compared(str(path), {"version": "1", "policy": "version 1", "hooks": ""}))
    assert {line.expected.partition(" ")[0]: line.state for line in found} == {
        "version": "ok",
        "policy": "fault",
        "hooks": "fault",
    }
    path.write_text(json.dumps({"host": "worker", "same": {"xcom keys": "november 1234"}}))
    assert [line.state for line in compared(str(path), {"xcom keys": "none here"})] == ["note"]
    assert [line.state for line in compared(str(path), {"xcom keys": "november 5678"})] == ["fault"]
    for text in ("[]", "{", '{"host": 1, "same": {}}'):
        path.write_text(text)
        with pytest.raises(UsageError, match="no report"):
            list(compared(str(path), {}))
    with pytest.raises(UsageError, match="cannot be read"):
        list(compared(str(tmp_path / "none"), {}))


def test_by_airflows_command_line(airflow_home: AirflowHome, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "sealflow", "doctor", "--json"],
        env=airflow_home.environment(AIRFLOW__SEALFLOW__POLCY="x"),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    body = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, body["ok"]) == (3, False), done.stdout
    assert [line["found"] for line in body["lines"] if line["state"] == "fault"] == [
        "AIRFLOW__SEALFLOW__POLCY, which nobody reads"
    ]
    assert {line["check"] for line in body["lines"]} == {
        "distribution",
        "entry points",
        "hooks",
        "installation",
        "policy",
        "gate",
        "notary",
        "connection",
        "xcom backend",
        "environment",
        "unguarded tasks",
        "expiry",
    }
    first = tmp_path / "first.json"
    first.write_text(json.dumps(body))
    key = write_key(tmp_path, "admin")
    admin = {"POLICY": str(tmp_path / "none.json"), "POLICY_KEYS": str(key.public)}
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "sealflow", "doctor", "--worker", "--compare", str(first)],
        env=airflow_home.environment(**{f"AIRFLOW__SEALFLOW__{name}": value for name, value in admin.items()}),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 3, done.stdout
    assert "unknown policy: POLICY_UNAVAILABLE" in done.stdout
    assert "fault   compared: unavailable" in done.stdout
    assert "ok      connection: signer " in done.stdout
