"""Whole DAG runs under a policy, of DAGs that do not know of sealflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.airflow.home import AirflowHome, Run, statements
from tests.e2e.admin import Admin, rule
from tests.pki import write_key

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

DAGS = Path(__file__).parent / "guard_dags"
KINDS = (
    "python",
    "classic",
    "own_pre_execute",
    "bash",
    "mapped",
    "sensor",
    "deferred",
    "branch",
    "short_circuit",
    "alias",
    "concrete",
    "hooked",
    "empty",
    "named",
    "located",
    "argument",
)


def read_lineage(home: AirflowHome) -> None:
    """Do what our plugin does wherever its entry point is installed."""
    plugins = home.home / "plugins"
    plugins.mkdir(exist_ok=True)
    (plugins / "reads_lineage.py").write_text(
        "from sealflow_airflow.plugin import SealflowPlugin\n"
        "class ReadsLineage(SealflowPlugin):\n    name = 'reads_lineage'\n"
    )


class Guarded:
    """A folder with artifacts, and a policy for it."""

    def __init__(self, home: AirflowHome, name: str, **fields: object) -> None:
        self.home, self.folder = home, home.folder_for(name)
        self.admin = Admin(self.folder / "admin")
        self.trainer = write_key(self.folder, "trainer")
        self.admin.publish([rule("models", f"{self.folder}/models/**", "trainer", **fields)], {"trainer": self.trainer})

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW_CONN_SEALFLOW_DEFAULT": self.home.connection(signer=self.trainer.signer),
            "GUARD_FOLDER": str(self.folder),
            **self.admin.options(),
            **more,
        }

    def run(self, dag: str, **more: str) -> Run:
        return self.home.run(dag, {}, env=self.environment(**more))

    def extra(self, asset: str) -> dict[str, object]:
        """Return the extra of an asset's latest event."""
        import json

        rows = self.home.rows(
            "SELECT e.extra FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.uri = ? ORDER BY e.id DESC",
            f"file://{self.folder}/models/{asset}",
        )
        return json.loads(rows[0][0])


@pytest.fixture(scope="module")
def kinds(airflow_home: AirflowHome) -> tuple[Guarded, Run, Run]:
    guarded = Guarded(airflow_home, "kinds")
    made = guarded.run("kinds_made")
    return guarded, made, guarded.run("kinds_used")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_task_is_guarded(kinds: tuple[Guarded, Run, Run], kind: str):
    guarded, made, used = kinds
    ref = guarded.extra(kind)["sealflow"]
    assert ref["digest"].startswith("sha256:"), made.output
    folder = guarded.folder / "models"
    producers = {
        statement["predicate"]["buildDefinition"]["externalParameters"]["producer"]
        for statement in statements(folder)
        if "buildDefinition" in statement["predicate"]
        and statement["subject"][0]["digest"]["sha256"] == ref["digest"].removeprefix("sha256:")
    }
    assert producers == {f"airflow:kinds_made/{kind}"}
    assert (used.states[kind], used.tries[kind]) == ("success", 1), used.output
    assert "1 inlets verified" in _said(used, kind)


def _said(run: Run, task: str) -> str:
    return run.output.partition(f"starting task_id={task} ")[2].partition("end task")[0]


def test_every_asset_of_a_condition_is_guarded(kinds: tuple[Guarded, Run, Run]):
    guarded, made, used = kinds
    assert "1 outlets signed" in _said(made, "condition"), made.output
    assert list((guarded.folder / "models" / "condition.evidence").rglob("signature-*.json"))
    assert "3 inlets verified" in _said(used, "condition"), used.output


@pytest.mark.parametrize("how", ["by_name", "by_uri"])
def test_outlet_that_is_a_reference_to_an_asset_is_signed(kinds: tuple[Guarded, Run, Run], how: str):
    guarded, made, _ = kinds
    assert "1 outlets signed" in _said(made, how), made.output
    events = guarded.home.rows("SELECT extra FROM asset_event WHERE source_task_id = ?", how)
    assert ["sealflow" in extra for (extra,) in events] == [True]


def test_asset_that_is_mapped_as_an_argument_is_guarded(kinds: tuple[Guarded, Run, Run]):
    used = kinds[2]
    assert used.states["arguments[0]"] == "success", used.output
    assert "1 inlets verified" in _said(used, "arguments")


@pytest.fixture(scope="module")
def attacks(airflow_home: AirflowHome) -> tuple[Guarded, Run]:
    guarded = Guarded(airflow_home, "attacks")
    read_lineage(airflow_home)
    return guarded, guarded.run("attacks")


@pytest.mark.parametrize(
    ("task", "code"),
    [
        pytest.param("use_tampered", "FILE_CHANGED", id="tampered"),
        pytest.param("use_swapped", "FILE_CHANGED", id="swapped-between-verify-and-end"),
        pytest.param("use_swapped_by_skip", "FILE_CHANGED", id="swapped-by-a-task-that-skips"),
        pytest.param("use_unsigned", "EVIDENCE_MISSING", id="unsigned"),
        pytest.param("make_nothing", "ARTIFACT_MISSING", id="outlet-that-was-not-made"),
        pytest.param("make_outside", "LOCATION_OUTSIDE_ASSET", id="another-place"),
    ],
)
def test_refused_on_the_first_try(attacks: tuple[Guarded, Run], task: str, code: str):
    _, run = attacks
    assert (run.states[task], run.tries[task]) == ("failed", 1), run.output
    assert run.failed_with(task, code), run.output


def test_what_an_author_claims_is_not_believed(attacks: tuple[Guarded, Run]):
    guarded, run = attacks
    assert run.states["use_claimed"] == "success", run.output
    ref = guarded.extra("claimed")["sealflow"]
    assert ref["uri"] == f"file://{guarded.folder}/models/claimed"


@pytest.mark.parametrize("task", ["make_unhooked", "make_appended", "update", "symbolic", "undeclared"])
def test_tasks_that_pass(attacks: tuple[Guarded, Run], task: str):
    assert attacks[1].states[task] == "success", attacks[1].output


@pytest.mark.parametrize("name", ["unhooked", "appended", "updated"])
def test_what_a_task_does_to_its_own_object_takes_no_guard_away(attacks: tuple[Guarded, Run], name: str):
    assert list((attacks[0].folder / "models" / f"{name}.evidence").rglob("signature-*.json"))


def test_an_artifact_that_was_replaced_is_no_input(attacks: tuple[Guarded, Run]):
    found = [
        statement["predicate"]["buildDefinition"]
        for statement in statements(attacks[0].folder / "models" / "updated.evidence")
        if "buildDefinition" in statement["predicate"]
    ]
    assert {item["externalParameters"]["producer"] for item in found} == {
        "airflow:attacks/make_updated",
        "airflow:attacks/update",
    }
    assert [item.get("resolvedDependencies", []) for item in found] == [[], []]


def test_assets_without_bytes_of_ours_are_untouched_and_counted(attacks: tuple[Guarded, Run]):
    assert "0 inlets verified, 0 outlets signed, 2 assets not managed" in _said(attacks[1], "symbolic")


def test_what_hooks_use_undeclared_is_a_finding(attacks: tuple[Guarded, Run]):
    guarded, run = attacks
    assert "The task wrote a managed artifact that it does not declare" in _said(run, "undeclared")
    assert "The task read a managed artifact that it does not declare" in _said(run, "undeclared_read")
    place = f"file://{guarded.folder}/models/undeclared"
    events = [event for event in guarded.home.events() if event["artifact"] == place]
    assert {(event["action"], event["phase"]) for event in events} == {("observe", "intent"), ("observe", "outcome")}
    assert [event["codes"] for event in events if event["phase"] == "outcome"] == [["ARTIFACT_UNDECLARED"]] * 2


@pytest.fixture(scope="module")
def bypasses(airflow_home: AirflowHome) -> tuple[Guarded, dict[str, Run], Run]:
    guarded = Guarded(airflow_home, "bypasses")
    unguarded = guarded.run("unguarded", AIRFLOW__CORE__DAGS_FOLDER=str(DAGS.parent / "guard_unguarded"))
    made = guarded.run("bypass_made")
    by_task = dict.fromkeys(made.states, made) | dict.fromkeys(unguarded.states, unguarded)
    return guarded, by_task, guarded.run("bypass_used")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param("policies", "EVIDENCE_MISSING", id="airflows-policies-replaced"),
        pytest.param("module", "EVIDENCE_MISSING", id="guard-replaced-in-memory"),
        pytest.param("callback", "FILE_CHANGED", id="work-in-a-callback"),
        pytest.param("nested", "EVIDENCE_MISSING", id="operator-inside-of-a-task"),
        pytest.param("opened", "EVIDENCE_MISSING", id="open-and-nothing-declared"),
        pytest.param("subprocess", "EVIDENCE_MISSING", id="another-process"),
        pytest.param("post_execute", "NAME_MISMATCH", id="claim-after-the-work"),
    ],
)
def test_what_this_ring_cannot_stop_is_refused_where_it_is_used(
    bypasses: tuple[Guarded, dict[str, Run], Run], name: str, code: str
):
    _, made, used = bypasses
    # An author can do what he likes in his own process.
    assert made[name].states[name] == "success", made[name].output
    assert (used.states[name], used.tries[name]) == ("failed", 1), used.output
    assert used.failed_with(name, code), _said(used, name)
    assert "was used" not in _said(used, name)


def test_without_a_policy_nothing_is_there(airflow_home: AirflowHome):
    guarded = Guarded(airflow_home, "absent")
    options = dict.fromkeys(guarded.admin.options(), "")
    run = guarded.run("states", AIRFLOW_CONN_SEALFLOW_DEFAULT=airflow_home.connection(), **options)
    assert set(run.states.values()) == {"success"}, run.output
    assert "sealflow" not in guarded.extra("state")
    assert not list(guarded.folder.rglob("*.evidence"))
    assert "inlets verified" not in run.output


def test_while_the_policy_is_not_to_be_had_managed_tasks_are_tried_again(airflow_home: AirflowHome):
    guarded = Guarded(airflow_home, "outage-of-the-policy")
    guarded.admin.policy.unlink()
    options = guarded.admin.options(policy_managed=f"{guarded.folder}/models/**")
    run = guarded.run("states", **options)
    assert (run.states["make_models"], run.tries["make_models"]) == ("failed", 3), run.output
    assert run.failed_with("make_models", "POLICY_UNAVAILABLE"), run.output
    # Nothing was run that could not be guarded.
    assert not (guarded.folder / "models").exists()
    assert (run.states["make_free"], run.states["use_free"]) == ("success", "success"), run.output


def test_audited_rules_stop_nothing(airflow_home: AirflowHome):
    guarded = Guarded(airflow_home, "audited", level="audit")
    run = guarded.run("states", AIRFLOW_CONN_SEALFLOW_DEFAULT=airflow_home.connection())
    assert set(run.states.values()) == {"success"}, run.output
    assert "SIGNER_MISSING" in run.output
    assert "POLICY_AUDIT" in run.output
    assert "sealflow" not in guarded.extra("state")
