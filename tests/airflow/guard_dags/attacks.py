"""What goes wrong under guard, each in a branch of its own. All may try three times."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Asset, AssetAlias, Metadata, ObjectStoragePath, dag, task
from airflow.sdk.exceptions import DownstreamTasksSkipped

FOLDER = Path(os.environ["GUARD_FOLDER"])
DEFAULTS = {"retries": 2, "retry_delay": timedelta(seconds=0)}


def asset(name: str) -> Asset:
    return Asset(name=f"an-{FOLDER.name}-{name}", uri=f"file://{FOLDER}/models/{name}")


def write(name: str, text: str = "weights") -> Path:
    path = FOLDER / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@dag(schedule=None, default_args=DEFAULTS)
def attacks():
    def made(name: str):
        @task(task_id=f"make_{name}", outlets=[asset(name)])
        def make():
            write(name)

        return make()

    @task(inlets=[asset("tampered")])
    def use_tampered():
        print("was used")

    @task
    def tamper():
        write("tampered", "poison!")

    made("tampered") >> tamper() >> use_tampered()

    @task(inlets=[asset("swapped")])
    def use_swapped():
        write("swapped", "poison!")

    made("swapped") >> use_swapped()

    @task(inlets=[asset("swapped_by_skip")])
    def use_swapped_by_skip():
        write("swapped_by_skip", "poison!")
        raise DownstreamTasksSkipped(tasks=["behind"])

    @task
    def behind():
        print("was used")

    made("swapped_by_skip") >> use_swapped_by_skip() >> behind()

    @task(inlets=[asset("unsigned")])
    def use_unsigned():
        print("was used")

    @task
    def leave_unsigned():
        write("unsigned")

    leave_unsigned() >> use_unsigned()

    @task(outlets=[asset("missing")])
    def make_nothing():
        pass

    make_nothing()

    @task(outlets=[asset("outside")])
    def make_outside():
        path = FOLDER / "elsewhere"
        path.write_text("weights")
        yield Metadata(asset("outside"), extra={"sealflow_uri": str(path)})

    make_outside()

    # An author claims another digest and another place than what is there.
    @task(outlets=[asset("claimed")])
    def make_claimed():
        write("claimed")
        yield Metadata(asset("claimed"), extra={"sealflow": {"sealflow_ref": 1, "uri": "file:///x", "digest": "y"}})

    @task(inlets=[asset("claimed")])
    def use_claimed():
        print("claimed was used")

    make_claimed() >> use_claimed()

    # The hooks of the task are none of ours.
    @task(outlets=[asset("unhooked")])
    def make_unhooked(**context):
        write("unhooked")
        context["task"]._pre_execute_hook = context["task"]._post_execute_hook = None
        context["task"].execute = lambda context: None

    make_unhooked()

    # An outlet that the DAG did not declare.
    @task
    def make_appended(**context):
        write("appended")
        context["task"].outlets.append(asset("appended"))

    make_appended()

    @task(inlets=[asset("updated")], outlets=[asset("updated")])
    def update():
        write("updated", "more weights")

    made("updated") >> update()

    @task
    def undeclared():
        (FOLDER / "models").mkdir(exist_ok=True)
        with ObjectStoragePath(f"file://{FOLDER}/models/undeclared").open("wb") as file:
            file.write(b"x")

    undeclared_written = undeclared()

    @task
    def undeclared_read():
        with ObjectStoragePath(f"file://{FOLDER}/models/undeclared").open("rb") as file:
            file.read()

    undeclared_written >> undeclared_read()

    @task(
        outlets=[
            Asset(f"a-name-{FOLDER.name}"),
            Asset(name=f"table-{FOLDER.name}", uri=f"x-table://host/db/{FOLDER.name}"),
        ],
        inlets=[AssetAlias("nothing")],
    )
    def symbolic():
        return "done"

    symbolic()


attacks()
