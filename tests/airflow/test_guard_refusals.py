"""DAGs that nobody could guard are import errors; all others get a guard, and no stored DAG changes by it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.admin import Admin, rule
from tests.pki import write_key

pytestmark = pytest.mark.airflow

HEAD = """
from airflow.sdk import DAG, Asset, AssetAlias, BaseOperator, dag, task

MODEL = Asset(name="model", uri="file://{folder}/models/model")
FREE = Asset(name="free", uri="file://{folder}/free/model")
TABLE = Asset(name="table", uri="x-table://host/db/table")

class Plain(BaseOperator):
    def execute(self, context):
        pass
"""

LOAD = """
import json, sys, time
if {broken!r}:
    sys.modules["sealflow"] = None
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
start = time.perf_counter()
bag = DagBag({folder!r}, bundle_path=__import__("pathlib").Path({folder!r}))
print()
print(json.dumps([
    {{k.rpartition("/")[2]: v for k, v in bag.import_errors.items()}},
    {{name: DagSerialization.to_dict(dag) for name, dag in bag.dags.items()}},
    sorted(name for name in sys.modules if name.startswith("sealflow")),
], default=str))
"""


class Shop:
    """A folder of DAG files, parsed in a process of its own under a policy or without one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dags = folder / "dags"
        self.dags.mkdir()
        self.admin = Admin(folder / "admin")
        self.publish()

    def publish(self, **fields: Any) -> None:
        key = write_key(self.folder, "trainer")
        self.admin.publish([rule("models", f"{self.folder}/models/**", "trainer", **fields)], {"trainer": key})

    def write(self, name: str, body: str) -> None:
        (self.dags / f"{name}.py").write_text(HEAD.format(folder=self.folder) + body)

    def parse(
        self, options: dict[str, str] | None = None, *, broken: bool = False
    ) -> tuple[dict[str, str], dict[str, Any], list[str]]:
        import os

        environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW__SEALFLOW")}
        done = subprocess.run(
            [sys.executable, "-c", LOAD.format(folder=str(self.dags), broken=broken)],
            env=environment | (self.admin.options() if options is None else options),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        self.output = done.stdout + done.stderr
        errors, dags, modules = json.loads(done.stdout.splitlines()[-1])
        return errors, dags, modules


UNGUARDABLE = {
    "trigger-ends-it": (
        """
class Bad(Plain):
    end_from_trigger = True
with DAG("d"):
    Bad(task_id="t", outlets=[{asset}])
""",
        "end_from_trigger=False",
    ),
    "trigger-starts-it": (
        """
class Bad(Plain):
    start_from_trigger = True
with DAG("d"):
    Bad(task_id="t", inlets=[{asset}])
""",
        "start_from_trigger=False",
    ),
    "mapped-and-started-by-a-trigger": (
        """
class Bad(Plain):
    start_from_trigger = True
    def __init__(self, x=0, **kwargs):
        super().__init__(**kwargs)
with DAG("d"):
    Bad.partial(task_id="t", inlets=[{asset}]).expand(x=[1])
""",
        "start_from_trigger=False",
    ),
    "stub": (
        """
with DAG("d"):
    @task.stub(outlets=[{asset}])
    def t(): ...
    t()
""",
        "outside of Python",
    ),
    "hidden-by-the-dag": (
        """
class Hide(DAG):
    @property
    def tasks(self):
        return []
with Hide("d"):
    Plain(task_id="t", outlets=[{asset}])
""",
        "hides it",
    ),
    "own-execute": (
        """
with DAG("d"):
    Plain(task_id="t", outlets=[{asset}]).execute = lambda context: None
""",
        "brings its own `execute`",
    ),
    "named-in-a-condition": (
        """
class Bad(Plain):
    start_from_trigger = True
with DAG("d"):
    Bad(task_id="t", inlets=[TABLE | (TABLE & {asset})])
""",
        "start_from_trigger=False",
    ),
    # Airflow takes this one as it stands.
    "mapped-and-named-in-a-condition": (
        """
class Bad(Plain):
    start_from_trigger = True
    def __init__(self, x=0, **kwargs):
        super().__init__(**kwargs)
with DAG("d"):
    Bad.partial(task_id="t", inlets=TABLE | {asset}).expand(x=[1])
""",
        "start_from_trigger=False",
    ),
    "argument-of-a-function": (
        """
with DAG("d"):
    @task
    def t(model):
        pass
    t({asset}).operator.execute = lambda context: None
""",
        "brings its own `execute`",
    ),
    "execute-is-a-property": (
        """
class Bad(Plain):
    execute = property(lambda self: (lambda context: None), lambda self, value: None)
with DAG("d"):
    Bad(task_id="t", outlets=[{asset}])
""",
        "lets nobody set `execute`",
    ),
}


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[dict[str, str], dict[str, Any]]]:
    found: dict[str, Any] = {}
    for asset in ("MODEL", "FREE", "TABLE"):
        shop = Shop(tmp_path_factory.mktemp(f"shop-{asset}"))
        for name, (body, _) in UNGUARDABLE.items():
            shop.write(name, body.format(asset=asset).replace('"d"', repr(name)))
        found[asset] = shop.parse()[:2]
    return found.__getitem__


@pytest.mark.parametrize("name", UNGUARDABLE)
def test_dag_that_cannot_be_guarded_is_an_import_error(parsed, name):
    errors, dags = parsed("MODEL")
    assert name not in dags
    message = errors[f"{name}.py"]
    assert message.startswith("AirflowClusterPolicyViolation")
    assert UNGUARDABLE[name][1] in message
    assert "'t'" in message


@pytest.mark.parametrize("asset", ["FREE", "TABLE"])
@pytest.mark.parametrize("name", UNGUARDABLE)
def test_the_same_dag_without_a_managed_artifact_loads(parsed, name, asset):
    errors, dags = parsed(asset)
    assert errors == {}
    assert name in dags


def test_where_rules_are_only_audited_such_a_dag_loads(tmp_path):
    shop = Shop(tmp_path)
    shop.publish(level="audit")
    for name, (body, _) in UNGUARDABLE.items():
        shop.write(name, body.format(asset="MODEL").replace('"d"', repr(name)))
    errors, dags, _ = shop.parse()
    assert (errors, set(dags)) == ({}, set(UNGUARDABLE))
    assert shop.output.count("The rules are only audited; enforced, they would refuse it.") == len(UNGUARDABLE)


GOOD = """
import pathlib
with DAG("good"):
    Plain(task_id="classic", inlets=[MODEL], outlets=[MODEL])
    class Takes(Plain):
        def __init__(self, x=0, **kwargs):
            super().__init__(**kwargs)
    Takes.partial(task_id="mapped", outlets=[MODEL]).expand(x=[1])
    @task(outlets=[AssetAlias("a")])
    def python():
        pass
    python()
"""


def test_no_stored_dag_changes_whether_a_policy_is_configured_or_not(tmp_path):
    shop = Shop(tmp_path)
    shop.write("good", GOOD)
    (errors, under, modules), (_, without, _) = shop.parse(), shop.parse({})
    assert errors == {}
    assert under["good"] == without["good"]
    # While a file is parsed nothing of the core is loaded that reads policies.
    assert {"sealflow_airflow.policy", "sealflow_airflow.refusing"} <= set(modules)
    assert not [name for name in modules if name.startswith(("sealflow.actions", "sealflow.verification"))]


def test_without_a_policy_no_guard_is_even_loaded(tmp_path):
    shop = Shop(tmp_path)
    for name, (body, _) in UNGUARDABLE.items():
        shop.write(name, body.format(asset="MODEL").replace('"d"', repr(name)))
    errors, dags, modules = shop.parse({})
    assert (errors, set(dags)) == ({}, set(UNGUARDABLE))
    assert not {"sealflow_airflow.refusing", "sealflow_airflow.stub", "sealflow_airflow.guard"} & set(modules)


@pytest.mark.parametrize("managed", ["**", "/nowhere/**"])
def test_policy_out_of_reach_refuses_what_it_may_manage(tmp_path, managed):
    shop = Shop(tmp_path)
    shop.admin.policy.unlink()
    shop.write("stub", UNGUARDABLE["stub"][0].format(asset="MODEL"))
    shop.write("good", GOOD)
    errors, dags, _ = shop.parse(shop.admin.options(policy_managed=managed))
    assert "good" in dags
    assert ("stub.py" in errors) == (managed == "**")


@pytest.mark.parametrize("option", [{"policy": "/p.json"}, {"policy_minimum_version": "three"}])
def test_broken_configuration_never_keeps_airflow_from_loading_dags(tmp_path, option):
    shop = Shop(tmp_path)
    shop.write("good", GOOD)
    errors, dags, _ = shop.parse({f"AIRFLOW__SEALFLOW__{name.upper()}": value for name, value in option.items()})
    assert errors == {}
    assert "good" in dags


def test_broken_installation_keeps_no_dag_from_loading_that_could_be_guarded(tmp_path):
    shop = Shop(tmp_path)
    shop.write("good", GOOD)
    shop.write("stub", UNGUARDABLE["stub"][0].format(asset="MODEL"))
    errors, dags, _ = shop.parse(broken=True)
    assert set(errors) == {"stub.py"}
    assert set(dags) == {"good"}


def test_broken_installation_is_one_clear_error_of_each_task_with_assets(monkeypatch):
    from airflow.sdk.exceptions import AirflowException

    from sealflow_airflow import stub

    monkeypatch.setitem(sys.modules, "sealflow_airflow.guard", None)

    class Task:
        inlets: tuple[str, ...] = ()
        outlets: tuple[str, ...] = ()

        def execute(self, context: Any) -> str:
            return "done"

    task = Task()
    assert stub.execute({"task": task}) == "done"
    task.outlets = ("something",)
    with pytest.raises(AirflowException, match="sealflow cannot be loaded here"):
        stub.execute({"task": task})


def _mapped(operator: type, **fields: Any) -> Any:
    from airflow.sdk import DAG

    from sealflow_airflow.refusing import put_guard

    with DAG("mapped"):
        task = operator.partial(task_id="t").expand(x=[1])
    put_guard(task)
    return task.unmap({"x": 1})


@pytest.fixture
def guards(monkeypatch):
    """What stood before the work of which task."""
    from sealflow_airflow import guard

    calls: list[str] = []

    def guarded(context: Any, task: Any, work: Callable[[], Any]) -> Any:
        calls.append(task.task_id)
        return work()

    monkeypatch.setattr(guard, "guarded", guarded)
    return calls


def _hostile(name: str) -> type:
    from airflow.sdk import BaseOperator

    class Plain(BaseOperator):
        def __init__(self, x: int = 0, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.x = x

        def execute(self, context: Any) -> str:
            return "worked"

        def resume_execution(self, next_method: str, next_kwargs: Any, context: Any) -> str:
            return "worked"

    class SaysSo(Plain):
        _sealflow_guarded = True

    class SetsItself(Plain):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.execute = lambda context: "worked"  # type: ignore[method-assign]
            self.resume_execution = lambda **kwargs: "worked"  # type: ignore[method-assign]

    class OverridesUs(Plain):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            cls.execute = lambda self, context: "worked"  # type: ignore[method-assign]
            cls.resume_execution = lambda self, **kwargs: "worked"  # type: ignore[method-assign]

    return {"plain": Plain, "says-so": SaysSo, "sets-itself": SetsItself, "overrides-us": OverridesUs}[name]


@pytest.mark.parametrize("name", ["plain", "says-so", "sets-itself", "overrides-us"])
def test_mapped_operator_leaves_no_guard_out(guards, name):
    from airflow.sdk.bases.operator import ExecutorSafeguard

    task = _mapped(_hostile(name))
    context: dict[str, Any] = {"task": task}
    token = ExecutorSafeguard.tracker.set(task)
    try:
        assert task.execute(context=context) == "worked"
        # As Airflow calls it.
        assert task.resume_execution(next_method="back", next_kwargs={}, context=context) == "worked"
    finally:
        ExecutorSafeguard.tracker.reset(token)
    assert guards == ["t", "t"]


TASK = """
import importlib, json, sys, types, uuid
from pathlib import Path
from airflow.sdk import Asset, BaseOperator
from airflow.sdk.bases.operator import ExecutorSafeguard
import airflow.sdk.execution_time.supervisor
from sealflow_airflow import policy, stub
for name in policy.LOADED_AHEAD:
    importlib.import_module(name)
ExecutorSafeguard.test_mode = True
place = Path(sys.argv[1])

class Work(BaseOperator):
    def execute(self, context):
        place.parent.mkdir(exist_ok=True)
        place.write_text("weights")

asset = Asset(f"file://{place}")
task = Work(task_id="t", outlets=[asset])
ti = types.SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1, id=uuid.uuid4(), task=task)
context = {"task": task, "ti": ti, "params": {}, "outlet_events": {asset: types.SimpleNamespace(extra={})}}
before = set(sys.modules)
stub.execute(context)
task.inlets, task.outlets = task.outlets, []
context |= {"triggering_asset_events": None, "inlet_events": {asset: types.SimpleNamespace(
    ascending=lambda up: types.SimpleNamespace(limit=lambda number: []))}}
stub.execute(context)
print(json.dumps(sorted(name for name in set(sys.modules) - before if name.startswith("sealflow"))))
"""


def test_all_that_a_guard_needs_is_loaded_where_tasks_are_forked_from(tmp_path):
    """What is missing there each task loads anew; that of the policy's document alone took half of a guard's time."""
    import os

    shop = Shop(tmp_path)
    signer = {"conn_type": "sealflow", "extra": {"signer": f"file:{tmp_path}/trainer.pem"}}
    done = subprocess.run(
        [sys.executable, "-c", TASK, f"{tmp_path}/models/model"],
        env=os.environ | shop.admin.options() | {"AIRFLOW_CONN_SEALFLOW_DEFAULT": json.dumps(signer)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_threat_model_names_tests_that_there_are():
    import re

    folder = Path(__file__).parent
    page = (folder.parents[1] / "docs" / "explanation" / "threat-model.md").read_text()
    section = page.partition("## The guard in Airflow")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(test_\w+)`", section))
    there = {
        name for path in folder.glob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert len(named) > 10
    assert named <= there
