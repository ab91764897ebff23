"""More of what an author can try, and what no guard in his own process can know."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Asset, BaseOperator, dag, task

FOLDER = Path(os.environ["GUARD_FOLDER"])
SETTINGS = {"schedule": None, "default_args": {"retries": 2, "retry_delay": timedelta(seconds=0)}}

# The options of the policy were read before this file was.
for name in [name for name in os.environ if name.startswith("AIRFLOW__SEALFLOW__")]:
    os.environ[name] = ""


def asset(name: str) -> Asset:
    return Asset(name=f"limit-{FOLDER.name}-{name}", uri=f"file://{FOLDER}/models/{name}")


def write(name: str, text: str = "weights") -> None:
    path = FOLDER / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


class Writes(BaseOperator):
    def execute(self, context):
        write(self.task_id)


class NoHooks(Writes):
    """What Airflow calls before and after the work lets nobody set it."""

    _pre_execute_hook = property(lambda self: None, lambda self, value: None)
    _post_execute_hook = property(lambda self: None, lambda self, value: None)


class Shy(dict):
    """The tasks of a DAG, hidden while Airflow asks policies about them."""

    def _seen(self):
        import traceback

        asked = any(frame.name == "bag_dag" for frame in traceback.extract_stack())
        return {} if asked else {name: dict.__getitem__(self, name) for name in dict.__iter__(self)}

    def __iter__(self):
        return iter(self._seen())

    def keys(self):
        return self._seen().keys()

    def values(self):
        return self._seen().values()

    def items(self):
        return self._seen().items()


@dag(**SETTINGS)
def limits_made():
    NoHooks(task_id="no_hooks", outlets=[asset("no_hooks")])

    @task(outlets=[asset("false")])
    def false():
        write("false", "poison!")

    false()

    @task(outlets=[asset("own")])
    def own(*, outlet_events):
        write("own")
        # Of an asset that this task does not make.
        outlet_events[asset("foreign")].extra["note"] = "mine"

    own()


@dag(**SETTINGS)
def limits_hidden():
    Writes(task_id="hidden", outlets=[asset("hidden")])


@dag(**SETTINGS)
def limits_used():
    for name in ("no_hooks", "false", "hidden"):

        @task(task_id=name, inlets=[asset(name)])
        def use():
            print("was used")

        use()

    # What somebody else could do beside the task, and take back.
    @task(inlets=[asset("own")])
    def put_back():
        path = FOLDER / "models" / "own"
        kept = path.read_text()
        path.write_text("poison!")
        used = path.read_text()
        path.write_text(kept)
        return used

    put_back()

    # So that Airflow knows the asset.
    @task(inlets=[asset("foreign")], trigger_rule="none_skipped")
    def foreign():
        pass


limits_made()
hidden = limits_hidden()
hidden.task_dict = Shy(hidden.task_dict)
limits_used()
