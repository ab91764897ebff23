"""One task of each kind that makes an artifact, and one that uses it. No word of sealflow in here."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import Asset, AssetAlias, BaseOperator, BaseSensorOperator, Metadata, dag, task

FOLDER = Path(os.environ["GUARD_FOLDER"])
RETRY = {"retries": 2, "retry_delay": timedelta(seconds=0)}


def asset(name: str) -> Asset:
    return Asset(name=f"the-{FOLDER.name}-{name}", uri=f"file://{FOLDER}/models/{name}")


def write(name: str) -> None:
    path = FOLDER / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())


class Classic(BaseOperator):
    template_fields = ("what",)

    def __init__(self, *, what, **kwargs):
        super().__init__(**kwargs)
        self.what = what

    def execute(self, context):
        write(self.what)
        return self.what


class OwnPreExecute(Classic):
    def pre_execute(self, context):
        self.log.info("prepared")


class Sensor(BaseSensorOperator):
    def poke(self, context):
        write("sensor")
        return True


class Deferring(BaseOperator):
    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=0)), method_name="back")

    def back(self, context, event=None):
        write("deferred")


KINDS = (
    *("python", "classic", "own_pre_execute", "bash", "mapped", "sensor", "deferred", "branch", "short_circuit"),
    *("alias", "concrete", "hooked", "empty", "named", "located", "argument", "arguments"),
)


@dag(schedule=None, default_args=RETRY)
def kinds_made():
    @task(outlets=[asset("python")])
    def python():
        write("python")

    python()
    Classic(task_id="classic", what="{{ 'classic' }}", outlets=[asset("classic")])
    OwnPreExecute(task_id="own_pre_execute", what="own_pre_execute", outlets=[asset("own_pre_execute")])
    BashOperator(task_id="bash", bash_command=f"printf bash > {FOLDER}/models/bash", outlets=[asset("bash")])
    Classic.partial(task_id="mapped", outlets=[asset("mapped")]).expand(what=["mapped"])
    Sensor(task_id="sensor", poke_interval=1, outlets=[asset("sensor")])
    Deferring(task_id="deferred", outlets=[asset("deferred")])

    @task.branch(outlets=[asset("branch")])
    def branch():
        write("branch")
        return "taken"

    branch() >> [EmptyOperator(task_id="taken"), EmptyOperator(task_id="left")]

    @task.short_circuit(outlets=[asset("short_circuit")])
    def short_circuit():
        write("short_circuit")
        return False

    short_circuit() >> EmptyOperator(task_id="skipped")

    @task(outlets=[AssetAlias("some-model")])
    def alias(*, outlet_events):
        write("alias")
        outlet_events[AssetAlias("some-model")].add(asset("alias"), extra={"rows": 3})

    alias()

    @task(outlets=[asset("concrete")])
    def concrete(run_id=None):
        write(f"concrete/{run_id}")
        yield Metadata(asset("concrete"), extra={"sealflow_uri": str(FOLDER / "models" / "concrete" / run_id)})

    concrete()

    @task(outlets=[asset("hooked")])
    def hooked():
        write("hooked")

    hooked.override(pre_execute=lambda context: None, post_execute=lambda context, result: None)()

    @task
    def before_empty():
        write("empty")

    before_empty() >> EmptyOperator(task_id="empty", outlets=[asset("empty")])

    # Of the first Airflow emits no event.
    @task(outlets=[asset("condition") & asset("condition")])
    def condition():
        write("condition")

    condition()
    for how in ("named", "located", "argument", "arguments"):
        Classic(task_id=how, what=how, outlets=[asset(how)])
    # References are to an asset that some task declares.
    first = Classic(task_id="declares", what="referred", outlets=[asset("referred")])
    for how, ref in {"by_name": {"name": asset("referred").name}, "by_uri": {"uri": asset("referred").uri}}.items():
        first >> Classic(task_id=how, what="referred", outlets=[Asset.ref(**ref)])
    EmptyOperator(
        task_id="symbolic",
        outlets=[
            Asset(f"just-a-name-{FOLDER.name}"),
            Asset(name=f"t-{FOLDER.name}", uri=f"x-table://db/{FOLDER.name}"),
        ],
    )


@dag(schedule=None, default_args=RETRY)
def kinds_used():
    inlets = {
        "alias": AssetAlias("some-model"),
        "named": Asset.ref(name=asset("named").name),
        "located": Asset.ref(uri=asset("located").uri),
    }
    for kind in KINDS[:-2]:

        @task(task_id=kind, inlets=[inlets.get(kind, asset(kind))])
        def use():
            return "used"

        use()

    EmptyOperator(
        task_id="condition",
        inlets=[asset("condition") | (asset("python") & asset("bash"))],
        on_success_callback=lambda context: None,
    )

    # Airflow makes inlets of these while the task runs.
    @task
    def argument(model: Asset):
        return model.uri

    argument(asset("argument"))
    argument.override(task_id="arguments").expand(model=[asset("arguments")])


kinds_made()
kinds_used()
