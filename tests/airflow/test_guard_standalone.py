"""A whole Airflow with scheduler and API server: asset-scheduled DAGs that do not know of sealflow, under a policy.

Once on SQLite and once on PostgreSQL, both with the LocalExecutor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.airflow.home import AirflowHome, statements
from tests.airflow.standalone import STANDALONE, Standalone, standalone, until
from tests.airflow.test_guard_runs import Guarded
from tests.airflow.test_xcom_runs import environment as sealed_xcoms
from tests.pki import write_key

pytestmark = STANDALONE

DAGS = Path(__file__).parent / "guard_chain"

STARTED = (
    *("chain_make", "chain_swap_make", "chain_post", "chain_give", "chain_claim", "chain_trigger", "chain_killed"),
    "chain_defer",
)

# Ends tasks, and does not say so as Airflow's own do. Triggers are looked for in plugins.
QUIET_TRIGGER = """
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent

class QuietTrigger(BaseTrigger):
    def serialize(self):
        return "quiet_trigger.QuietTrigger", {}

    async def run(self):
        yield TaskSuccessEvent()
"""


class Chain(Guarded):
    """A running Airflow and its artifacts."""

    running: Standalone
    #: DAG to its first run, of those that no event starts.
    first: dict[str, str]

    def done(self, dag: str) -> dict[str, tuple[str, int]]:
        """Wait for the end of a DAG's first run."""
        return self.running.finished(dag, self.first[dag])

    def input_of(self, dag: str, task: str = "use") -> list[str]:
        found = [
            statement["predicate"]["buildDefinition"]
            for statement in statements(self.folder)
            if "buildDefinition" in statement["predicate"]
        ]
        return [
            item["uri"]
            for one in found
            if one["externalParameters"]["producer"] == f"airflow:{dag}/{task}"
            for item in one["resolvedDependencies"]
        ]

    def emitted(self, asset: str) -> int:
        """Return how many events of an asset there are."""
        events = "SELECT count(*) FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name = ?"
        return int(self.home.rows(events, f"chain-{asset}")[0][0])


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp(f"standalone-{request.param}")
    server = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    home = AirflowHome(folder, write_key(folder, "signing"), server)
    home.add_dags(DAGS)
    plugins = home.home / "plugins"
    plugins.mkdir()
    (plugins / "quiet_trigger.py").write_text(QUIET_TRIGGER)
    made = Chain(home, "chain")
    environment = made.environment(**sealed_xcoms(home) | {"AIRFLOW__CORE__DAGS_FOLDER": str(home.dags)})
    with standalone(home, environment) as made.running:
        number = (DAGS / "chain.py").read_text().count("@dag(")
        until(lambda: home.rows("SELECT count(*) FROM dag")[0][0] == number or None, 120, "the DAGs")
        # All at once, and each test waits for its own.
        made.first = {dag: made.running.trigger(dag) for dag in STARTED}
        yield made


def test_from_signing_to_verifying_over_assets(chain: Chain):
    running = chain.running
    assert chain.done("chain_make") == {"make": ("success", 1)}, running.log("chain_make")
    running.started("chain_use")
    assert running.finished("chain_use") == {"use": ("success", 1)}, running.log("chain_use")
    assert chain.input_of("chain_use") == [f"file://{chain.folder}/models/model"]
    # Behind it, a task writes over what was signed, and the next one has it as inlet.
    running.started("chain_late")
    assert running.finished("chain_late") == {"tamper": ("success", 1), "use": ("failed", 1)}
    assert "FILE_CHANGED" in running.log("chain_late")
    assert "was used" not in running.log("chain_late")


def test_what_is_swapped_between_check_and_use_is_caught(chain: Chain):
    running = chain.running
    assert chain.done("chain_swap_make") == {"make": ("success", 1)}
    running.started("chain_swap")
    assert running.finished("chain_swap") == {"use": ("failed", 1)}
    assert "FILE_CHANGED" in running.log("chain_swap")
    # Nothing that was made of it is handed on.
    assert (chain.folder / "models" / "spoilt").exists()
    assert not list((chain.folder / "models").rglob("spoilt.evidence/**/*.json"))
    assert chain.emitted("spoilt") == 0


def test_event_that_no_task_emitted_is_refused(chain: Chain):
    running = chain.running
    assert chain.done("chain_post") == {"make": ("success", 1)}
    running.started("chain_posted")
    # The event of the task is believed, and the same one posted by somebody is not.
    assert running.finished("chain_posted") == {"use": ("success", 1)}, running.log("chain_posted")
    (asset,) = running.call("GET", "/api/v2/assets?name_pattern=chain-posted")["assets"]
    extra = chain.extra("posted")
    first = len(running.runs("chain_posted"))
    running.call("POST", "/api/v2/assets/events", {"asset_id": asset["id"], "extra": extra})
    running.started("chain_posted", first + 1)
    assert running.finished("chain_posted") == {"use": ("failed", 1)}
    assert "PRODUCER_MISMATCH" in running.log("chain_posted")


def test_xcom_that_no_task_pushed_is_refused(chain: Chain):
    running = chain.running
    run = chain.first["chain_give"]
    assert chain.done("chain_give") == {"give": ("success", 1)}, running.log("chain_give")
    entries = f"/api/v2/dags/chain_give/dagRuns/{run}/taskInstances/give/xcomEntries"
    forged = {"threshold": 0.1}
    running.call("POST", entries, {"key": "posted", "value": forged, "map_index": -1})
    running.call("PATCH", f"{entries}/patched", {"value": json.dumps(forged), "map_index": -1})
    done = running.finished("chain_take", running.trigger("chain_take", run=run))
    expected = {"given": ("success", 1), "posted": ("failed", 1), "patched": ("failed", 1)}
    assert done == expected, running.log("chain_take")
    assert "VALUE_CLEAR" in running.log("chain_take")


def test_outlet_that_another_task_claims_is_refused_where_it_is_used(chain: Chain):
    """This ring cannot keep an author from leaving the guard in his own process; whoever reads the outlet can tell."""
    running = chain.running
    assert chain.done("chain_claim") == {"make": ("success", 1), "claim": ("success", 1)}

    def verdicts() -> list[str] | None:
        states = [running.tasks("chain_believe", one).get("use", ("", 0))[0] for one in running.runs("chain_believe")]
        return states if "failed" in states else None

    until(verdicts, 120, "chain_believe")
    assert "PRODUCER_MISMATCH" in running.log("chain_believe")


def test_task_that_triggers_a_dag_signs_its_outlet(chain: Chain):
    running = chain.running
    done = chain.done("chain_trigger")
    assert done == {"prepare": ("success", 1), "trigger": ("success", 1)}, running.log("chain_trigger")
    assert chain.extra("triggered")["sealflow"]["digest"]
    assert list(Path(chain.folder, "models", "triggered.evidence").rglob("signature-*.json"))


def test_task_that_is_killed_leaves_nothing_signed_and_the_next_try_is_believed(chain: Chain):
    running = chain.running
    done = chain.done("chain_killed")
    assert done == {"make": ("success", 2), "leave": ("failed", 1)}, running.log("chain_killed")
    running.started("chain_survive")
    assert running.finished("chain_survive") == {"use": ("success", 1)}, running.log("chain_survive")
    assert (chain.emitted("killed"), chain.emitted("left")) == (1, 0)
    signed = list((chain.folder / "models" / "killed.evidence").rglob("signature-*.json"))
    assert len(signed) == 1
    assert not list((chain.folder / "models").rglob("left.evidence/**/*.json"))


def test_what_is_out_of_reach_is_tried_again_until_it_is_back(chain: Chain):
    running, policy = chain.running, chain.admin.policy
    away = policy.rename(policy.with_suffix(".away"))
    try:
        run = running.trigger("chain_outage")
        until(lambda: "POLICY_UNAVAILABLE" in running.log("chain_outage") or None, 120, "a try that fails")
        # Nothing is run that could not be guarded.
        assert not (chain.folder / "models" / "outage").exists()
    finally:
        away.rename(policy)
    ((state, tries),) = running.finished("chain_outage", run).values()
    assert state == "success", running.log("chain_outage")
    assert tries > 1
    assert (chain.folder / "models" / "outage").read_text() == f"made by try {tries}"
    assert chain.extra("outage")["sealflow"]["digest"]


def test_trigger_that_ends_a_task_emits_no_event(chain: Chain):
    """One that says so is an error; of one that does not, nothing is seen, and nobody is told of the outlet."""
    running = chain.running
    done = chain.done("chain_defer")
    assert done == {"said": ("failed", 1), "quiet": ("success", 1)}, running.log("chain_defer")
    assert "would end the task without its worker" in running.log("chain_defer")
    assert (chain.emitted("said"), chain.emitted("quiet")) == (0, 0)
