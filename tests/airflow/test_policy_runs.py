"""Whole DAG runs under an admin's policy, by Airflow's own command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.airflow.home import AirflowHome, Run
from tests.e2e.admin import Admin, rule
from tests.pki import write_key

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAGS = Path(__file__).parent / "policy_dags"
OPTIONS = (
    "POLICY",
    "POLICY_KEYS",
    "POLICY_MINIMUM_VERSION",
    "POLICY_MANAGED",
    "POLICY_WAIVERS",
    "POLICY_WAIVER_KEYS",
    "POLICY_STATE",
)
HEAD = "apiVersion: sealflow/v1\nversion: 1\nexpires: 2099-01-01T00:00:00Z\n"


def nothing(_: Path, __: Admin) -> dict[str, str]:
    return {}


def emptied(_: Path, __: Admin) -> dict[str, str]:
    return {f"AIRFLOW__SEALFLOW__{name}": "" for name in OPTIONS}


def replaced(folder: Path, author: Admin) -> dict[str, str]:
    return author.options() | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW_CONFIG": str(folder / "airflow.cfg"),
        "HOME": str(folder),
        "SEALFLOW_POLICY": str(author.policy),
        "SEALFLOW_MOUNT": str(folder),
        "SEALFLOW_IDENTITIES": str(author.key.public),
        "AIRFLOW__SEALFLOW__POLICY_MANAGED": "/nowhere/**",
        "AIRFLOW__SEALFLOW__POLICY_STATE": str(folder),
    }


def attacked(home: AirflowHome, name: str, attack: Callable[[Path, Admin], dict[str, str]], configured: bool) -> Run:
    """Run the DAG of an author whose key only the connection trusts."""
    folder = home.folder_for(name)
    # The author has a policy of their own, and may be an admin to themselves.
    author, admin = Admin(folder / "author"), Admin(folder / "admin")
    author.publish([rule("mine", f"{folder}/**", "me")], {"me": author.key})
    admin.publish([rule("models", f"{folder}/models/**", "trainer")], {"trainer": write_key(folder, "trainer")})
    draft = folder / "draft.yaml"
    draft.write_text(f"{HEAD}identities: {{me: {{key: {author.key.public}}}}}\n")
    with draft.open("a") as file:
        file.write(f"rules: {json.dumps([rule('mine', f'{folder}/**', 'me')])}\n")
    conf = {"folder": str(folder), "author": str(author.key.private), "draft": str(draft)}
    return home.run(
        "attacked",
        conf,
        env={
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW_CONN_SEALFLOW_DEFAULT": home.connection(identities=f"file:{author.key.public}"),
            "ATTACK": json.dumps(attack(folder, author)),
            "DRAFT": str(draft),
            **(admin.options() if configured else {}),
        },
    )


@pytest.mark.parametrize("attack", [nothing, emptied, replaced], ids=["nothing", "emptied", "replaced"])
def test_the_admins_policy_decides_whatever_a_dag_sets(airflow_home: AirflowHome, attack):
    run = attacked(airflow_home, f"attacked-{attack.__name__}", attack, configured=True)
    for task in ("gate", "body", "sealed"):
        assert (run.states[task], run.tries[task]) == ("failed", 1), run.output
        assert run.failed_with(task, "SIGNER_NOT_ALLOWED"), run.output
    assert run.states["ways"] == "success", run.output
    found = run.xcoms["ways", "return_value"]
    assert set(found) == {"plain", "another run", "thread", "own policy"}
    assert all("SIGNER_NOT_ALLOWED" in codes for codes in found.values()), found
    assert run.xcoms["gate", "verdict"]["rules"] == ["models"]


def test_without_an_admins_policy_the_author_is_believed(airflow_home: AirflowHome):
    """What the attacks would reach: without it the test above could not fail."""
    run = attacked(airflow_home, "not-attacked", nothing, configured=False)
    assert set(run.states.values()) == {"success"}, run.output
    assert run.xcoms["ways", "return_value"] == {"plain": [], "another run": [], "thread": [], "own policy": []}


@pytest.fixture(scope="module")
def policed(airflow_home: AirflowHome) -> Run:
    folder = airflow_home.folder_for("policed")
    keys = {name: write_key(folder, name) for name in ("trainer", "other")}
    admin = Admin(folder / "admin")
    admin.publish(
        [
            rule("models", f"{folder}/models/**", "trainer", producers=["airflow:policed/fit"]),
            rule("loaded", f"{folder}/models/loaded", loaders=["airflow:policed/load"]),
            rule("locked", f"{folder}/models/locked", "trainer", locked=["identities"]),
            rule("other-team", f"{folder}/models/other_team", team=["research"], loaders=["airflow:nobody/*"]),
        ],
        {
            "trainer": {"key": keys["trainer"], "producers": ["airflow:policed/fit"]},
            "other": {"key": keys["other"], "producers": ["airflow:policed/publish"]},
        },
        signers=[
            {"scope": {"dag": ["policed"], "task": ["fit"]}, "uri": keys["trainer"].signer},
            {"scope": {"dag": ["policed"], "task": ["publish"]}, "uri": keys["other"].signer},
        ],
    )
    draft = folder / "draft.yaml"
    draft.write_text(f"{HEAD}identities: {{other: {{key: {keys['other'].public}}}}}\n")
    with draft.open("a") as file:
        file.write(f"rules: {json.dumps([rule('tighter', f'{folder}/models/tighter', 'other')])}\n")
    return airflow_home.run(
        "policed",
        {"folder": str(folder), **{name: str(pair.private) for name, pair in keys.items()}},
        env={
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "ATTACK": "{}",
            "DRAFT": str(draft),
            **admin.options(policy_managed=f"{folder}/models/**"),
        },
    )


@pytest.mark.parametrize(
    ("task", "code"),
    [
        pytest.param("gate_wrong_task", "PRODUCER_MISMATCH", id="another-task-of-the-dag"),
        pytest.param("gate_wrong_key", "SIGNER_NOT_ALLOWED", id="another-key"),
        pytest.param("gate_loaded", "LOADER_NOT_ALLOWED", id="loaded-by-another-task"),
        pytest.param("gate_locked", "POLICY_LOCKED", id="argument-that-a-rule-locks"),
        pytest.param("gate_tighter", "SIGNER_NOT_ALLOWED", id="added-policy"),
    ],
)
def test_refused_by_the_policy_on_the_first_try(policed: Run, task: str, code: str):
    assert (policed.states[task], policed.tries[task]) == ("failed", 1), policed.output
    assert policed.failed_with(task, code), policed.output


def test_passed_under_the_policy(policed: Run):
    passed = ("fit", "gate_good", "gate_other_team", "load", "publish")
    assert {policed.states[task] for task in passed} == {"success"}, policed.output
    assert policed.xcoms["load", "return_value"] == "models/loaded"
    verdict = policed.xcoms["gate_good", "verdict"]
    assert (verdict["producer"], verdict["rules"]) == ("airflow:policed/fit", ["models"])
    assert [signer["identity"] for signer in verdict["signers"]] == ["trainer", "trainer"]


def test_unmanaged_artifact_ran_untouched(policed: Run):
    verdict = policed.xcoms["gate_notes", "verdict"]
    assert (verdict["status"], verdict["rules"]) == ("passed", [])
    assert "NOT_MANAGED" in {finding["code"] for finding in verdict["findings"]}


def test_policy_out_of_reach_is_tried_again_and_others_run(airflow_home: AirflowHome):
    folder = airflow_home.folder_for("outage")
    admin = Admin(folder / "admin")
    trainer = write_key(folder, "trainer")
    run = airflow_home.run(
        "policed",
        {"folder": str(folder), "trainer": str(trainer.private), "other": str(trainer.private)},
        env={
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "ATTACK": "{}",
            "DRAFT": "",
            **admin.options(policy_managed=f"{folder}/models/**"),
        },
    )
    assert (run.states["fit"], run.tries["fit"]) == ("failed", 3), run.output
    assert run.failed_with("fit", "POLICY_UNAVAILABLE"), run.output
    # With an explicit signer nothing is asked of the policy; whoever uses what was signed asks it.
    assert (run.states["gate_wrong_task"], run.tries["gate_wrong_task"]) == ("failed", 3), run.output
    assert run.xcoms["gate_wrong_task", "verdict"]["status"] == "unverifiable"
    assert run.states["gate_notes"] == "success", run.output
