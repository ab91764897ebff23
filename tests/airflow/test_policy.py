"""The policy's place in Airflow's configuration: frozen when a process starts, and in force in every task."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.core.lineage.gitrepo import new_repo, public, ssh_key
from tests.dvc_repository import write_repository
from tests.e2e.admin import Admin, rule
from tests.pki import KeyPair, write_key

pytestmark = pytest.mark.airflow

VARIABLE = "AIRFLOW__SEALFLOW__"
NAMES = ("policy", "policy_keys", "policy_minimum_version", "policy_managed", "policy_waivers", "policy_waiver_keys")


@pytest.fixture(autouse=True)
def _nothing_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(VARIABLE):
            monkeypatch.delenv(name)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """Import the module anew, as a process does that starts with these options."""

    def import_it(**options: str) -> ModuleType:
        from sealflow_airflow import policy

        for name, value in options.items():
            monkeypatch.setenv(VARIABLE + name.upper(), value)
        spec = importlib.util.spec_from_file_location("frozen", policy.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return import_it


def test_without_options_there_is_no_channel(start):
    assert start().channel() is None


def test_options_form_the_channel(start):
    found = start(
        policy="s3://security/policy.json",
        policy_keys="/k/one.pub, /k/two.pub\n/k/three.pub",
        policy_minimum_version="7",
        policy_managed="s3://models/**\n/data/**",
        policy_waivers="s3://security/waivers",
        policy_waiver_keys="file:///k/on-call.pub",
        policy_state="/var/lib/sealflow",
    ).channel()
    assert (found.policy, found.minimum_version) == ("s3://security/policy.json", 7)
    assert found.keys == ("/k/one.pub", "/k/two.pub", "/k/three.pub")
    assert found.managed == ("s3://models/**", "/data/**")
    assert (found.waivers, found.waiver_keys) == ("s3://security/waivers", ("file:///k/on-call.pub",))
    assert found.state == "/var/lib/sealflow"


def test_last_good_policy_is_kept_in_airflows_home(start):
    from airflow.configuration import AIRFLOW_HOME

    assert start(policy="/p.json", policy_keys="/k.pub").channel().state == f"{AIRFLOW_HOME}/sealflow/policy"


BROKEN = {
    "no-keys": ({"policy": "/p.json"}, "keys"),
    "no-policy": ({"policy_keys": "/k.pub"}, "policy"),
    "only-a-version": ({"policy_minimum_version": "3"}, "policy"),
    "version-is-no-number": ({"policy_minimum_version": "three"}, "minimum_version"),
    "version-is-negative": ({"policy_minimum_version": "-1"}, "minimum_version"),
    "version-is-zero": ({"policy_minimum_version": "0"}, "minimum_version"),
    "keys-are-commas": ({"policy_keys": ",,"}, "keys"),
    "bad-pattern": ({"policy_managed": "s3://models//x"}, "managed"),
    "key-of-a-service": ({"policy_keys": "awskms:alias/admin"}, "awskms"),
    "waiver-key-of-a-service": ({"policy_waiver_keys": "awskms:alias/admin"}, "awskms"),
}


@pytest.mark.parametrize(("options", "word"), BROKEN.values(), ids=BROKEN)
def test_malformed_options_are_a_policy_that_is_not_to_be_had(start, connection, context, artifact, options, word):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from sealflow.policy.source import BrokenChannel

    good = {"policy": "/p.json", "policy_keys": "/k.pub"} if word not in ("keys", "policy") else {}
    found = start(**(good | options)).channel()
    assert isinstance(found, BrokenChannel)
    assert word in found.error.message
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sealflow_airflow.policy.channel", lambda: found)
        with pytest.raises(AirflowException, match="POLICY_UNAVAILABLE") as caught:
            verify(context, artifact)
    assert not isinstance(caught.value, AirflowFailException)
    assert context["ti"].pushed["verdict"]["status"] == "unverifiable"


def test_a_configuration_that_cannot_be_read_never_keeps_airflow_from_starting(start, monkeypatch):
    from airflow.configuration import conf

    def broken(*_: Any, **__: Any) -> str:
        raise RuntimeError("planted")

    monkeypatch.setattr(type(conf), "get", broken)
    assert "planted" in start().channel().error.message


AFTERWARDS = {
    "emptied": lambda monkeypatch, _: [monkeypatch.setenv(VARIABLE + name.upper(), "") for name in NAMES],
    "replaced": lambda monkeypatch, _: [monkeypatch.setenv(VARIABLE + name.upper(), "/mine") for name in NAMES],
    "configuration": lambda monkeypatch, _: _set_conf(monkeypatch),
    "other-home": lambda monkeypatch, folder: [
        monkeypatch.setenv(name, str(folder)) for name in ("AIRFLOW_HOME", "HOME", "AIRFLOW_CONFIG")
    ],
    "other-folder": lambda monkeypatch, folder: monkeypatch.chdir(folder),
}


def _set_conf(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.configuration import conf

    monkeypatch.setattr(type(conf), "get", lambda *_, **__: "/mine")


@pytest.mark.parametrize("change", AFTERWARDS.values(), ids=AFTERWARDS)
def test_what_changes_afterwards_changes_nothing(start, change, tmp_path):
    given = {"policy": "policies/policy.json", "policy_keys": "~/admin.pub, file:keys/two.pub", "policy_waivers": "w"}
    module = start(**given)
    # Nobody has asked for the channel yet; what counts is when the process started.
    with pytest.MonkeyPatch.context() as patch:
        expected = start(**given).channel()
        change(patch, tmp_path)
        assert module.channel() == expected
    here, home = Path.cwd(), Path.home()
    assert expected.policy == str(here / "policies" / "policy.json")
    assert expected.keys == (str(home / "admin.pub"), f"file:{here}/keys/two.pub")


def test_what_is_frozen_cannot_be_edited(start):
    module = start(policy="/p.json", policy_keys="/k.pub")
    with pytest.raises(TypeError):
        module._FROZEN["policy"] = "/mine"
    with pytest.raises(AttributeError):
        module.channel().policy = "/mine"


def fresh(code: str, **environment: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_airflow_freezes_it_before_anybody_asks():
    found = fresh(
        "import airflow, json, os, sys\n"
        "os.environ['AIRFLOW__SEALFLOW__POLICY'] = '/mine'\n"
        "assert 'sealflow_airflow.policy' in sys.modules\n"
        "ours = sorted(n for n in sys.modules if n.partition('.')[0] in ('sealflow', 'sealflow_airflow'))\n"
        "heavy = [n for n in ('boto3', 'dvc', 'kfp', 'sigstore') if n in sys.modules]\n"
        "from sealflow_airflow.run_context import admin\n"
        "print(json.dumps([admin().policy, ours, heavy]))",
        AIRFLOW__SEALFLOW__POLICY="/admins.json",
        AIRFLOW__SEALFLOW__POLICY_KEYS="/k.pub",
    )
    # Not one module of the core: each process of Airflow's pays for this one.
    allowed = {"sealflow", "sealflow._version", "sealflow_airflow", "sealflow_airflow.get_provider_info"}
    assert found[0] == "/admins.json"
    assert set(found[1]) - allowed == {"sealflow_airflow.policy"}
    assert found[2] == []


def test_status_says_what_airflows_processes_see(admin):
    """The command that the documentation gives."""
    admin.publish([rule("data", "/data/**")], {})
    (line,) = [
        line
        for line in Path(__file__).parents[2].joinpath("docs/reference/airflow.md").read_text().splitlines()
        if line.startswith("python -c ")
    ]
    command = shlex.split(line)[1:]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=120, env={**os.environ, **admin.options()}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("in force")
    assert "[sealflow]" in done.stdout


@pytest.mark.parametrize("first", ["sealflow_airflow.policy", "sealflow_airflow.run_context", "airflow.sdk"])
def test_whoever_comes_first_takes_the_snapshot(first):
    assert fresh(
        f"import json, {first}\nimport sealflow_airflow.policy as p\nprint(json.dumps(p.channel().policy))",
        AIRFLOW__SEALFLOW__POLICY="/admins.json",
        AIRFLOW__SEALFLOW__POLICY_KEYS="/k.pub",
    ) == ("/admins.json")


@pytest.mark.parametrize("first", ["airflow", "airflow.settings", "sealflow_airflow", "sealflow_airflow.policy"])
def test_the_entry_point_is_loaded_and_its_hooks_are_airflows(first: str):
    """Whatever a process imports first: what starts Airflow may be our own module, half loaded."""
    script = (
        f"import {first}\n"
        "from airflow.settings import get_policy_plugin_manager\n"
        "from sealflow_airflow import policy\n"
        "manager = get_policy_plugin_manager()\n"
        "assert manager.get_plugin('sealflow') is policy\n"
        # Of a hook with a misspelled name Airflow would say nothing.
        "assert all(caller.spec is not None for caller in manager.get_hookcallers(policy))\n"
        "assert sum(plugin is policy for _, plugin in manager.list_name_plugin()) == 1\n"
        "print(*sorted(caller.name for caller in manager.get_hookcallers(policy)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[-2:]) == (0, ["dag_policy", "task_policy"]), done.stderr


# --- In force ---


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    """An admin whose policy trusts one key for what lies in the folder of the artifact."""
    return Admin(tmp_path / "admin")


@pytest.fixture
def in_force(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Admin]:
    """Publish a policy and start Airflow with it."""

    def publish(*rules: dict[str, Any], identities: dict[str, Any], **more: Any) -> Admin:
        from sealflow.policy.source import forget

        admin.publish(rules, identities, **more)
        forget()
        channel = admin.channel()
        monkeypatch.setattr("sealflow_airflow.policy.channel", lambda: channel)
        return admin

    return publish


def sign(context: dict[str, Any], artifact: Any, **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import SignArtifactOperator

    return SignArtifactOperator(task_id="sign", artifact=str(artifact), **parameters).execute(context)


def verify(context: dict[str, Any], artifact: Any, **parameters: Any) -> dict[str, Any]:
    from sealflow_airflow import VerifyArtifactOperator

    artifact = artifact if isinstance(artifact, dict) else str(artifact)
    return VerifyArtifactOperator(task_id="verify", artifact=artifact, **parameters).execute(context)


def check_lineage(context: dict[str, Any], repository: Path, **parameters: Any) -> Any:
    """Run the gate; returns the operator, which knows what it saw."""
    from sealflow_airflow import DvcLineageCheckOperator

    gate = DvcLineageCheckOperator(task_id="gate", repository=str(repository), **parameters)
    gate.execute(context)
    return gate


def refused(context: dict[str, Any], artifact: Any, **parameters: Any) -> set[str]:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException):
        verify(context, artifact, **parameters)
    verdict = context["ti"].pushed["verdict"]
    return {finding["code"] for finding in verdict["findings"] if finding["severity"] == "refusal"}


def key_of(evidence: Path) -> str:
    (found,) = evidence.rglob("signature-*.json")
    return json.loads(found.read_bytes())["verificationMaterial"]["publicKey"]["hint"]


def hint(key: KeyPair) -> str:
    from sealflow.keys import load_public_key

    return load_public_key(str(key.public)).hint


def test_policy_and_not_the_connection_says_whom_to_believe(in_force, connection, context, artifact, tmp_path):
    trusted = write_key(tmp_path, "trusted")
    in_force(rule("data", f"{tmp_path}/**", "trusted"), identities={"trusted": trusted})
    ref = sign(context, artifact)
    assert refused(context, ref) == {"SIGNER_NOT_ALLOWED"}
    # What the call says itself is added; it stands in for nothing.
    assert refused(context, ref, identities=f"file:{connection.public}") == {"SIGNER_NOT_ALLOWED"}
    sign(context, artifact, signer=trusted.signer)
    assert verify(context, ref)["digest"] == ref["digest"]
    verdict = context["ti"].pushed["verdict"]
    assert verdict["rules"] == ["data"]
    assert verdict["policy"].startswith("sha256:")


@pytest.mark.parametrize(
    ("given", "chosen", "connected", "expected"),
    [
        pytest.param(True, True, True, "given", id="argument-before-policy"),
        pytest.param(False, True, True, "chosen", id="policy-before-connection"),
        pytest.param(False, False, True, "connected", id="connection-where-the-policy-chooses-none"),
        pytest.param(False, True, False, "chosen", id="policy-alone"),
    ],
)
@pytest.mark.parametrize("how", ["operator", "sealed"])
def test_who_signs(in_force, connect, context, artifact, tmp_path, how, given, chosen, connected, expected):
    from sealflow_airflow import sealed_task

    keys = {name: write_key(tmp_path, name) for name in ("given", "chosen", "connected")}
    scope = {"dag": ["train"], "task": ["fit"]} if chosen else {"dag": ["train"], "task": ["other"]}
    in_force(
        rule("data", f"{tmp_path}/**", "chosen"),
        identities={"chosen": keys["chosen"]},
        signers=[{"scope": scope, "uri": keys["chosen"].signer}],
    )
    if connected:
        connect(extra={"signer": keys["connected"].signer})
    signer = {"signer": keys["given"].signer} if given else {}
    if how == "operator":
        sign(context, artifact, **signer)
    else:
        from airflow.sdk import DAG

        @sealed_task(outputs=["place"], **signer)
        def fit(place: str):
            assert place == str(artifact)

        with DAG("dag"):
            task = fit(str(artifact)).operator
        task.execute(context)
    assert key_of(artifact.parent) == hint(keys[expected])


@pytest.mark.parametrize(
    ("team", "bundle", "code"),
    [
        pytest.param("research", "dags-folder", None, id="team"),
        pytest.param(None, "research", None, id="bundle-where-there-are-no-teams"),
        pytest.param("sales", "research", "POLICY_NO_RULE", id="bundle-is-no-team"),
        pytest.param(None, "dags-folder", "POLICY_NO_RULE", id="other-bundle"),
        pytest.param(None, None, "POLICY_NO_RULE", id="unknown"),
    ],
)
def test_team_is_airflows_team_or_bundle(in_force, connection, context, artifact, tmp_path, team, bundle, code):
    in_force(rule("data", f"{tmp_path}/**", "trainer", team=["research"]), identities={"trainer": connection})
    context["dag_run"] = SimpleNamespace(conf={"team_name": "research"}, team_name=team)
    context["params"] = {"team_name": "research"}
    if bundle:
        context["ti"].bundle_instance = SimpleNamespace(name=bundle)
    ref = sign(context, artifact)
    if code is None:
        assert verify(context, ref) == ref
    else:
        assert refused(context, ref) == {code}


def test_airflow_tells_a_task_its_team_and_bundle():
    """Where we look; no run by ``airflow dags test`` has either."""
    from airflow.dag_processing.bundles.base import BaseDagBundle
    from airflow.sdk.api.datamodels._generated import DagRun
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    assert "team_name" in DagRun.model_fields
    assert issubclass(BaseDagBundle, RuntimeTaskInstance.model_fields["bundle_instance"].annotation)


def test_call_may_tighten(in_force, connection, context, artifact, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    other = write_key(tmp_path, "other")
    in_force(rule("data", f"{tmp_path}/**", "trainer", "other"), identities={"trainer": connection, "other": other})
    ref = sign(context, artifact)
    draft = tmp_path / "tighter.yaml"
    head = "apiVersion: sealflow/v1\nversion: 1\nexpires: 2099-01-01T00:00:00Z\n"
    for name, pair in (("same", connection), ("tighter", other)):
        identities = f"identities: {{mine: {{key: {pair.public}}}}}\n"
        rules = json.dumps([rule(name, f"{tmp_path}/**", "mine")])
        draft.write_text(f"{head}{identities}rules: {rules}\n")
        if name == "same":
            assert verify(context, ref, policy=str(draft)) == ref
            assert context["ti"].pushed["verdict"]["rules"] == ["data", "policy/same"]
        else:
            assert refused(context, ref, policy=str(draft)) == {"SIGNER_NOT_ALLOWED"}
    draft.write_text(head + "recipients: []")
    with pytest.raises(AirflowFailException, match="POLICY_MALFORMED"):
        verify(context, ref, policy=str(draft))


def test_what_a_rule_locks_is_not_tried_again(in_force, connection, context, artifact, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    in_force(rule("data", f"{tmp_path}/**", "trainer", locked=["identities"]), identities={"trainer": connection})
    ref = sign(context, artifact)
    assert verify(context, ref) == ref
    with pytest.raises(AirflowFailException, match="POLICY_LOCKED"):
        verify(context, ref, identities=f"file:{connection.public}")


def test_policy_out_of_reach_may_be_tried_again(in_force, connection, context, artifact, tmp_path):
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from sealflow.policy.source import forget

    published = in_force(rule("data", f"{tmp_path}/**", "trainer"), identities={"trainer": connection})
    ref = sign(context, artifact)
    published.policy.rename(published.policy.with_name("gone"))
    forget()
    repository = write_repository(tmp_path / "repository")
    for attempt in (
        lambda: verify(context, ref),
        lambda: sign(context, artifact),
        lambda: check_lineage(context, repository),
    ):
        with pytest.raises(AirflowException, match="POLICY_UNAVAILABLE") as caught:
            attempt()
        assert not isinstance(caught.value, AirflowFailException)
    assert context["ti"].pushed["verdict"]["status"] == "unverifiable"


def test_rule_asks_for_more_than_the_task(in_force, connection, context, tmp_path):
    """The task asks for L1; the rule for a commit of Ada's on main, whoever else the task would believe."""
    from airflow.sdk.exceptions import AirflowFailException

    commits = {"allowed_signers": f"ada@example.org {public(ssh_key())}\n", "branch": "refs/heads/main"}
    demand = rule("repositories", f"{tmp_path}/**", "trainer", lineage={"level": "L3", "commits": commits})
    in_force(demand, identities={"trainer": connection})
    repo = new_repo(tmp_path / "repository")
    write_repository(repo.root)
    commit = repo.commit({})
    seen = check_lineage(context, repo.root, level="L1")._observed.facet
    assert (seen["dvc"]["level"], seen["dvc"]["revision"], seen["verdict"]["rules"]) == ("L3", commit, ["repositories"])

    eve = new_repo(tmp_path / "eve", key=ssh_key(owner="eve"))
    write_repository(eve.root)
    eve.commit({})
    allowed = tmp_path / "allowed"
    allowed.write_text(f"eve@example.org {public(ssh_key(owner='eve'))}\n")
    trust = {"level": "L3", "allowed_signers": str(allowed), "branch": "refs/heads/main"}
    for parameters in ({"level": "L1"}, trust):
        with pytest.raises(AirflowFailException):
            check_lineage(context, eve.root, **parameters)
        assert context["ti"].pushed["verdict"]["rules"] == ["repositories"]


@pytest.mark.parametrize("policy", ["in-force", "out-of-reach"])
def test_what_is_not_managed_runs_untouched(in_force, connection, context, artifact, tmp_path, policy, monkeypatch):
    published = in_force(rule("data", "/elsewhere/**", "trainer"), identities={"trainer": connection})
    if policy == "out-of-reach":
        published.policy.unlink()
        channel = published.channel(managed=["/elsewhere/**"])
        monkeypatch.setattr("sealflow_airflow.policy.channel", lambda: channel)
    ref = sign(context, artifact)
    assert verify(context, ref) == ref


@pytest.mark.parametrize("member", ["policy", "policy_keys", "keys", "admin", "minimum_version"])
def test_connection_names_nothing_of_the_admins(connect, context, artifact, key, member):
    from airflow.sdk.exceptions import AirflowFailException

    connect(extra={"signer": key.signer, member: "/mine"})
    with pytest.raises(AirflowFailException, match="CONNECTION_REFUSED"):
        sign(context, artifact)


def test_operators_name_nothing_of_the_admins():
    import inspect

    from sealflow_airflow import DvcLineageCheckOperator, SignArtifactOperator, VerifyArtifactOperator, sealed_task

    operators = (DvcLineageCheckOperator, SignArtifactOperator, VerifyArtifactOperator)
    for callable_ in (*(operator.__init__ for operator in operators), sealed_task):
        names = set(inspect.signature(callable_).parameters)
        assert not names & {"admin", "keys", "policy_keys", "minimum_version", "managed", "waivers", "channel"}
    assert "policy" not in VerifyArtifactOperator.template_fields


# --- Ways around it, from inside a task ---


@pytest.fixture
def distrusted(in_force, connection, context, artifact, tmp_path) -> Any:
    """A running task with an artifact whose signer the connection trusts and the admin does not."""
    from airflow.sdk.execution_time.context import set_current_context

    in_force(
        rule("data", f"{tmp_path}/**", "trusted"),
        rule("elsewhere", f"{tmp_path}/**", dag=["other"], level="audit"),
        identities={"trusted": write_key(tmp_path, "trusted")},
    )
    with set_current_context(context):
        yield sign(context, artifact), f"file:{connection.public}"


def _plain(verify: Callable[[], Any], _: Path) -> Any:
    return verify()


def _other_run(verify: Callable[[], Any], folder: Path) -> Any:
    import sealflow

    with sealflow.run(sealflow.Surroundings()):
        return verify()


def _own_admin(verify: Callable[[], Any], folder: Path) -> Any:
    import sealflow

    mine = Admin(folder / "mine")
    mine.publish([], {})
    with sealflow.run(sealflow.Surroundings(admin=mine.channel())):
        return verify()


def _thread(verify: Callable[[], Any], _: Path) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(verify).result()


def _after_the_task(verify: Callable[[], Any], _: Path) -> Any:
    """As in a callback, where Airflow has no current context."""
    from airflow.sdk.definitions._internal.contextmanager import _CURRENT_CONTEXT

    kept = list(_CURRENT_CONTEXT)
    _CURRENT_CONTEXT.clear()
    try:
        return verify()
    finally:
        _CURRENT_CONTEXT[:] = kept


def _another_tasks_name(verify: Callable[[], Any], _: Path) -> Any:
    import sealflow

    with sealflow.run(sealflow.Surroundings(sealflow.RunIdentity("airflow", "other", "task", team="other"))):
        return verify()


def _settings_of_a_mount(verify: Callable[[], Any], folder: Path) -> Any:
    (folder / "sealflow.json").write_text(json.dumps({"identities": None}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEALFLOW_MOUNT", str(folder))
        patch.setenv("SEALFLOW_POLICY", "/mine")
        return verify()


WAYS = {
    "plain": _plain,
    "another-run-entered": _other_run,
    "another-tasks-name": _another_tasks_name,
    "own-admins-channel": _own_admin,
    "thread": _thread,
    "callback": _after_the_task,
    "mount-and-variables": _settings_of_a_mount,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_way_around_the_policy(distrusted, way, tmp_path):
    import sealflow

    ref, identities = distrusted
    verdict = way(lambda: sealflow.verify(ref, identities=identities), tmp_path)
    assert {f.code for f in verdict.findings if f.severity == "refusal"} == {"SIGNER_NOT_ALLOWED"}
    assert verdict.rules == ("data",)


def test_no_task_signs_in_the_name_of_another(in_force, connection, context, artifact):
    from airflow.sdk.execution_time.context import set_current_context

    import sealflow
    from tests.airflow.home import statements

    other = sealflow.RunIdentity("airflow", "other", "task", "manual__9", instance="9", team="other")
    with set_current_context(context), sealflow.run(sealflow.Surroundings(other)):
        sealflow.sign(artifact, signer=connection.signer)
    (found,) = [s["predicate"] for s in statements(artifact.parent) if "buildDefinition" in s["predicate"]]
    assert found["buildDefinition"]["externalParameters"]["producer"] == "airflow:train/fit"
    assert found["buildDefinition"]["internalParameters"]["run"]["instance"] == context["ti"].id
