"""DAGs that start one another over assets, for a whole Airflow."""

import os
import signal
from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import Asset, BaseOperator, dag, task

FOLDER = Path(os.environ["GUARD_FOLDER"])
DEFAULTS = {"retries": 2, "retry_delay": timedelta(seconds=0)}
SETTINGS = {"default_args": DEFAULTS, "is_paused_upon_creation": False, "start_date": datetime(2020, 1, 1)}


def asset(name: str) -> Asset:
    return Asset(name=f"chain-{name}", uri=f"file://{FOLDER}/models/{name}")


def write(name: str, text: str) -> None:
    path = FOLDER / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@dag(schedule=None, **SETTINGS)
def chain_make():
    @task(outlets=[asset("model")])
    def make(run_id=None):
        write("model", run_id)

    make()


@dag(schedule=[asset("model")], **SETTINGS)
def chain_use():
    @task(inlets=[asset("model")], outlets=[asset("report")])
    def use():
        write("report", (FOLDER / "models" / "model").read_text() * 2)

    use()


@dag(schedule=[asset("report")], **SETTINGS)
def chain_late():
    @task
    def tamper():
        write("report", "poison!")

    @task(inlets=[asset("report")])
    def use():
        print("was used")

    tamper() >> use()


@dag(schedule=[asset("posted")], **SETTINGS)
def chain_posted():
    @task(inlets=[asset("posted")])
    def use():
        print("was used")

    use()


@dag(schedule=None, **SETTINGS)
def chain_post():
    @task(outlets=[asset("posted")])
    def make():
        write("posted", "weights")

    make()


@dag(schedule=None, **SETTINGS)
def chain_trigger():
    @task
    def prepare():
        write("triggered", "weights")

    prepare() >> TriggerDagRunOperator(task_id="trigger", trigger_dag_id="chain_give", outlets=[asset("triggered")])


# A task of another DAG claims that it made the model.
@dag(schedule=None, **SETTINGS)
def chain_claim():
    @task(outlets=[asset("claimed")])
    def make():
        write("claimed", "weights")

    @task
    def claim(**context):
        from sealflow_airflow import guard

        # In its own process an author can do what he likes.
        guard._Guard.after = lambda *_: None
        context["task"].outlets.append(asset("claimed"))
        context["outlet_events"][asset("claimed")].extra.update({"note": "mine"})

    make() >> claim()


@dag(schedule=[asset("claimed")], max_active_runs=1, **SETTINGS)
def chain_believe():
    @task(inlets=[asset("claimed")])
    def use(triggering_asset_events):
        print("used", triggering_asset_events)

    use()


@dag(schedule=None, **SETTINGS)
def chain_swap_make():
    @task(outlets=[asset("swapped")])
    def make():
        write("swapped", "weights")

    make()


@dag(schedule=[asset("swapped")], **SETTINGS)
def chain_swap():
    @task(inlets=[asset("swapped")], outlets=[asset("spoilt")])
    def use():
        # As if somebody else did, between the check and the use.
        write("swapped", "poison!")
        write("spoilt", (FOLDER / "models" / "swapped").read_text())

    use()


@dag(schedule=None, **SETTINGS)
def chain_killed():
    @task(outlets=[asset("killed")])
    def make(ti=None):
        write("killed", "half of ")
        if ti.try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        write("killed", "half of the weights and the other half")

    # Airflow takes it for a failure, whatever the status says.
    @task(outlets=[asset("left")], retries=0)
    def leave():
        write("left", "weights")
        os._exit(0)

    make()
    leave()


@dag(schedule=[asset("killed")], **SETTINGS)
def chain_survive():
    @task(inlets=[asset("killed")])
    def use():
        assert (FOLDER / "models" / "killed").read_text().endswith("the other half")

    use()


@dag(schedule=None, **SETTINGS | {"default_args": {"retries": 8, "retry_delay": timedelta(seconds=1)}})
def chain_outage():
    @task(outlets=[asset("outage")])
    def make(ti=None):
        write("outage", f"made by try {ti.try_number}")

    make()


# The triggerer would end these, where nobody signs.
class Deferring(BaseOperator):
    def __init__(self, *, quiet, **kwargs):
        super().__init__(**kwargs)
        self.quiet = quiet

    def execute(self, context):
        write(self.task_id, "weights")
        if self.quiet:
            from quiet_trigger import QuietTrigger

            self.defer(trigger=QuietTrigger(), method_name="back")
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=0), end_from_trigger=True), method_name="back")

    def back(self, context, event=None):
        raise AssertionError("came back")


@dag(schedule=None, **SETTINGS)
def chain_defer():
    Deferring(task_id="said", quiet=False, outlets=[asset("said")])
    Deferring(task_id="quiet", quiet=True, outlets=[asset("quiet")])


@dag(schedule=None, **SETTINGS)
def chain_give():
    @task
    def give(ti=None):
        ti.xcom_push("patched", {"threshold": 0.9})
        return {"threshold": 0.9}

    give()


@dag(schedule=None, params={"run": ""}, **SETTINGS)
def chain_take():
    @task
    def take(key, params=None, ti=None):
        return ti.xcom_pull("give", dag_id="chain_give", run_id=params["run"], key=key)

    take.override(task_id="given")("return_value")
    take.override(task_id="posted")("posted")
    take.override(task_id="patched")("patched")


for made in (
    *(chain_make, chain_use, chain_late, chain_posted, chain_post, chain_trigger, chain_claim, chain_believe),
    *(chain_swap_make, chain_swap, chain_killed, chain_survive, chain_outage, chain_defer, chain_give, chain_take),
):
    made()
