"""A machine's admin says whom to believe, and nothing that a pipeline hands to a task changes it."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
import sealflow_kfp
from sealflow.actions import context
from sealflow.actions.policies import places_of
from sealflow.errors import PolicyError, UnavailableError, UsageError, VerificationError
from sealflow.policy.source import forget
from sealflow_kfp import run_context
from tests.e2e.admin import Admin, rule
from tests.kubeflow.test_run_context import LOCAL, executor_input
from tests.pki import KeyPair, write_key

pytestmark = pytest.mark.kfp

FILES = {"weights.bin": b"\x00\x01\x02", "config.json": b"{}"}
Make = Callable[..., Any]


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Admin:
    """An admin whose file this Python environment has."""
    made = Admin(tmp_path / "admin")
    file = tmp_path / "admin.json"
    made.write_file(file)
    # The environment's file, since whoever runs the tests owns this code as well, and need not be root.
    monkeypatch.setattr("sealflow.policy.source.MACHINE_FILE", str(tmp_path / "no-such-file"))
    monkeypatch.setattr("sealflow.policy.source.ENVIRONMENT_FILE", str(file))
    forget()
    return made


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Be the executor process of a task."""

    def become(name: str = "train", **parameters: Any) -> None:
        place = str(Path(LOCAL).with_name(name) / "model")
        monkeypatch.setattr(sys, "argv", ["executor_main.py", "--executor_input", executor_input(place, **parameters)])

    return become


def verify(tmp_path: Path, **options: Any) -> dict[str, Any]:
    path = tmp_path / "outputs" / "verdict"
    path.unlink(missing_ok=True)
    with contextlib.suppress(VerificationError):
        sealflow_kfp.verify_artifact.python_func(verdict=str(path), **options)
    return json.loads(path.read_text())


def refusals(verdict: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in verdict["findings"] if finding["severity"] in ("refusal", "unverifiable")}


def hint(key: KeyPair) -> str:
    from sealflow.keys import load_public_key

    return load_public_key(str(key.public)).hint


def test_policy_and_not_the_settings_say_whom_to_believe(mounted, admin, task, artifact, tmp_path):
    task()
    trusted = write_key(tmp_path, "trusted")
    model = artifact("model", FILES)
    admin.publish([rule("models", f"{tmp_path}/root/**", "trusted")], {"trusted": trusted})
    sealflow_kfp.sign_output(model)
    assert refusals(verify(tmp_path, artifact=model)) == {"SIGNER_NOT_ALLOWED"}
    mine = json.dumps({"me": f"file:{mounted.key.public}"})
    assert refusals(verify(tmp_path, artifact=model, identities=mine)) == {"SIGNER_NOT_ALLOWED"}
    sealflow_kfp.sign_output(model, signer=trusted.signer)
    passed = verify(tmp_path, artifact=model)
    assert (passed["status"], passed["rules"]) == ("passed", ["models"])


@pytest.mark.parametrize(
    ("given", "chosen", "mounted_one", "expected"),
    [
        pytest.param(True, True, True, "given", id="argument-before-policy"),
        pytest.param(False, True, True, "chosen", id="policy-before-settings"),
        pytest.param(False, False, True, "mounted", id="settings-where-the-policy-chooses-none"),
        pytest.param(False, True, False, "chosen", id="policy-alone"),
    ],
)
@pytest.mark.parametrize("how", ["component", "helper", "sealed"])
def test_who_signs(mounted, admin, task, artifact, tmp_path, how, given, chosen, mounted_one, expected):
    task("train")
    keys = {"mounted": mounted.key, "given": write_key(tmp_path, "given"), "chosen": write_key(tmp_path, "chosen")}
    scope = {"pipeline": ["train-and-score"], "task": ["train" if chosen else "score"]}
    admin.publish(
        [rule("models", f"{tmp_path}/root/**", "chosen")],
        {"chosen": keys["chosen"]},
        signers=[{"scope": scope, "uri": keys["chosen"].signer}],
    )
    if not mounted_one:
        mounted.write(signer=None)
    model, signer = artifact("model", FILES), {"signer": keys["given"].signer} if given else {}
    if how == "component":
        sealflow_kfp.sign_artifact.python_func(artifact=model, evidence=artifact("evidence"), **signer)
    elif how == "helper":
        sealflow_kfp.sign_output(model, **signer)
    else:
        sealflow.sealed(outputs=["place"], **signer)(lambda place: None)(model.path)
    (found,) = Path(model.path).parent.rglob("signature-*.json")
    assert json.loads(found.read_bytes())["verificationMaterial"]["publicKey"]["hint"] == hint(keys[expected])


@pytest.mark.parametrize("how", ["component", "helper"])
def test_both_keys_sign_while_one_is_replaced(mounted, admin, task, artifact, tmp_path, how):
    """No pipeline changes: the signer that the policy chooses has a second one."""
    task("train")
    keys = {name: write_key(tmp_path, name) for name in ("old", "new")}
    admin.publish(
        [rule("models", f"{tmp_path}/root/**", "old", "new")],
        keys,
        signers=[{"uri": f"{keys['old'].signer}?also={keys['new'].signer}"}],
    )
    model = artifact("model", FILES)
    if how == "component":
        sealflow_kfp.sign_artifact.python_func(artifact=model, evidence=artifact("evidence"))
    else:
        sealflow_kfp.sign_output(model)
    for kind in ("signature", "provenance"):
        found = [json.loads(path.read_bytes()) for path in Path(model.path).parent.rglob(f"{kind}-*.json")]
        hints = {item["verificationMaterial"]["publicKey"]["hint"] for item in found}
        assert hints == {hint(key) for key in keys.values()}
        assert len({item["dsseEnvelope"]["payload"] for item in found}) == 1


def test_evidence_in_metadata_and_what_a_rule_locks(mounted, admin, task, artifact, tmp_path):
    """Metadata carries the provenance alone; a rule decides whether that is enough."""
    task()
    model = artifact("model", FILES)
    admin.publish([], {})
    sealflow_kfp.sign_output(model)
    shutil.rmtree(model.path + ".evidence")
    both = rule("models", f"{tmp_path}/root/**", "trainer", locked=["evidence"])
    alone = rule("models", f"{tmp_path}/root/**", "trainer", locked=["evidence"], evidence={"provenance": {}})
    for body, expected in ((both, {"SIGNATURE_MISSING"}), (alone, set())):
        admin.publish([body], {"trainer": mounted.key})
        forget()
        assert refusals(verify(tmp_path, artifact=model)) == expected
    # Asking for less than the rule is no way to get less; asking for more is what the lock forbids.
    with pytest.raises(PolicyError, match="POLICY_LOCKED"):
        sealflow.verify(model.path, require=["signature", "provenance"])


def test_task_may_tighten(mounted, admin, task, artifact, tmp_path):
    task()
    other = write_key(tmp_path, "other")
    admin.publish([rule("models", f"{tmp_path}/root/**", "trainer", "other")], {"trainer": mounted.key, "other": other})
    model = artifact("model", FILES)
    sealflow_kfp.sign_output(model)
    draft = tmp_path / "draft.json"
    for key, status in ((mounted.key, "passed"), (other, "failed")):
        draft.write_text(
            json.dumps(
                {
                    "apiVersion": "sealflow/v1",
                    "version": 1,
                    "expires": "2099-01-01T00:00:00Z",
                    "identities": {"mine": {"key": str(key.public)}},
                    "rules": [rule("mine", f"{tmp_path}/**", "mine")],
                }
            )
        )
        assert verify(tmp_path, artifact=model, policy=str(draft))["status"] == status
        if status == "failed":
            with pytest.raises(VerificationError), sealflow_kfp.verified_input(model, policy=str(draft)):
                pytest.fail("handed out")
    # A draft by itself names nobody whom the admin does not.
    admin.publish([rule("models", f"{tmp_path}/root/**", "other")], {"other": other})
    forget()
    draft.write_text(draft.read_text().replace(str(other.public), str(mounted.key.public)))
    assert refusals(verify(tmp_path, artifact=model, policy=str(draft))) == {"SIGNER_NOT_ALLOWED"}


def test_policy_out_of_reach_is_no_pass_and_can_be_tried_again(mounted, admin, task, artifact, tmp_path):
    task()
    model = artifact("model", FILES)
    admin.publish([rule("models", f"{tmp_path}/root/**", "trainer")], {"trainer": mounted.key})
    sealflow_kfp.sign_output(model)
    admin.policy.unlink()
    forget()
    verdict = verify(tmp_path, artifact=model)
    assert (verdict["status"], refusals(verdict)) == ("unverifiable", {"POLICY_UNAVAILABLE"})
    with pytest.raises(UnavailableError, match="POLICY_UNAVAILABLE"):
        sealflow_kfp.sign_output(model)


def test_file_as_kubernetes_mounts_a_config_map(admin, task, tmp_path, monkeypatch):
    """Links to links, so that all files of a map change at once."""
    task()
    mount = tmp_path / "etc-sealflow"
    admin.write_file(mount / "..2026_11_22" / "admin.json", minimum_version=7)
    (mount / "..data").symlink_to("..2026_11_22")
    (mount / "admin.json").symlink_to("..data/admin.json")
    monkeypatch.setattr("sealflow.policy.source.ENVIRONMENT_FILE", str(mount / "admin.json"))
    assert context.current().admin.minimum_version == 7


# --- What a pipeline can hand to a task ---


def _parameters(task: Any, patch: pytest.MonkeyPatch, folder: Path, author: Admin) -> None:
    names = ("policy_keys", "keys", "admin", "SEALFLOW_POLICY", "minimum_version")
    task(policy=str(author.policy), **dict.fromkeys(names, str(author.key.public)))


def _variables(task: Any, patch: pytest.MonkeyPatch, folder: Path, author: Admin) -> None:
    task()
    for name in ("SEALFLOW_POLICY", "SEALFLOW_POLICY_KEYS", "SEALFLOW_ADMIN", "AIRFLOW__SEALFLOW__POLICY", "HOME"):
        patch.setenv(name, str(folder))
    patch.setenv("SEALFLOW_IDENTITIES", str(author.key.public))


def _other_run(task: Any, patch: pytest.MonkeyPatch, folder: Path, author: Admin) -> None:
    task()
    context._entered.set(sealflow.Surroundings(admin=author.channel()))


def _another_tasks_name(task: Any, patch: pytest.MonkeyPatch, folder: Path, author: Admin) -> None:
    task()
    context._entered.set(sealflow.Surroundings(sealflow.RunIdentity("kfp", "other", "task", team="other")))


def _working_folder(task: Any, patch: pytest.MonkeyPatch, folder: Path, author: Admin) -> None:
    task()
    author.write_file(folder / "etc" / "sealflow" / "admin.json")
    patch.chdir(folder)


ATTACKS = {
    "parameters": _parameters,
    "variables": _variables,
    "another-run-entered": _other_run,
    "another-tasks-name": _another_tasks_name,
    "working-folder": _working_folder,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_way_around_the_policy(mounted, admin, task, artifact, tmp_path, attack, monkeypatch):
    author = Admin(tmp_path / "author")
    author.publish([rule("mine", f"{tmp_path}/**", "me")], {"me": mounted.key})
    admin.publish(
        [
            rule("models", f"{tmp_path}/root/**", "trusted", task=["train"]),
            rule("elsewhere", f"{tmp_path}/root/**", task=["task"], level="audit"),
        ],
        {"trusted": write_key(tmp_path, "trusted")},
    )
    model = artifact("model", FILES)
    sealflow_kfp.sign_output(model)
    token = context._entered.set(None)
    try:
        attack(task, monkeypatch, tmp_path, author)
        verdict = verify(tmp_path, artifact=model, identities=str(mounted.key.public))
    finally:
        context._entered.reset(token)
    assert refusals(verdict) == {"SIGNER_NOT_ALLOWED"}
    assert verdict["rules"] == ["models"]


def test_settings_name_nothing_of_the_admins(mounted, admin, task, artifact):
    task()
    admin.publish([], {})
    for name in ("policy", "keys", "policy_keys", "admin", "minimum_version"):
        mounted.settings = {}
        mounted.write(signer=mounted.key.signer, **{name: "/mine"})
        with pytest.raises(UsageError, match="unknown setting"):
            sealflow_kfp.sign_output(artifact("model", FILES))


def test_components_name_nothing_of_the_admins():
    for component in sealflow_kfp.make_components():
        assert not set(component.component_spec.inputs) & {"admin", "keys", "policy_keys", "minimum_version", "team"}
    assert run_context.admin() is None


# --- Team and location ---


@pytest.mark.parametrize(
    ("content", "team"),
    [
        pytest.param(b"research\n", "research", id="namespace"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"../other", "", id="no-namespace"),
        pytest.param(b"a" * 64, "", id="too-long"),
        pytest.param(b"research\nsales", "", id="two-lines"),
        pytest.param(b"\xff\xfe", "", id="no-text"),
        pytest.param(None, "", id="no-pod"),
    ],
)
def test_team_is_the_namespace_of_the_pod(task, tmp_path, monkeypatch, content, team):
    monkeypatch.setattr(run_context, "NAMESPACE_FILE", str(tmp_path / "namespace"))
    for name in ("KFP_NAMESPACE", "POD_NAMESPACE", "NAMESPACE", "SEALFLOW_TEAM"):
        monkeypatch.setenv(name, "sales")
    if content is not None:
        (tmp_path / "namespace").write_bytes(content)
    task(team="sales", namespace="sales")
    assert context.current().run.team == team


def test_rule_for_a_team_holds_in_its_namespace(mounted, admin, task, artifact, tmp_path, monkeypatch):
    task()
    monkeypatch.setattr(run_context, "NAMESPACE_FILE", str(tmp_path / "namespace"))
    admin.publish([rule("models", f"{tmp_path}/root/**", "trainer", team=["research"])], {"trainer": mounted.key})
    model = artifact("model", FILES)
    sealflow_kfp.sign_output(model)
    for namespace, codes in (("research", set()), ("sales", {"POLICY_NO_RULE"})):
        (tmp_path / "namespace").write_text(namespace)
        assert refusals(verify(tmp_path, artifact=model)) == codes


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        pytest.param("s3://models/churn/m.bin", "s3://models/churn/m.bin", id="s3"),
        pytest.param("minio://models/churn/m.bin", "s3://models/churn/m.bin", id="minio"),
        pytest.param("gs://models/churn/m.bin", "gs://models/churn/m.bin", id="gs"),
        pytest.param("s3://models/a%2Fb/../churn", "s3://models/a/churn", id="spelled-otherwise"),
    ],
)
def test_rule_about_an_object_store_holds_where_the_launcher_shows_it(task, uri, location):
    """A task on a cluster sees ``s3://models/x`` as ``/s3/models/x``; one policy serves DAGs and pipelines."""
    from kfp import dsl

    task()
    path = dsl.Artifact(uri=uri).path
    with sealflow.run(sealflow.Surroundings()):
        mounts = context.current().mounts
    assert location in places_of(f"file://{path}", mounts)
    assert location not in places_of(f"file://{path}")
    assert not any("://models" in place for place in places_of("file:///srv/s3/models/churn", mounts))
