"""What an author can do in his own process: one task each that leaves the guard out, and one that uses what it made."""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Asset, BaseOperator, dag, task

FOLDER = Path(os.environ["GUARD_FOLDER"])
SETTINGS = {"schedule": None, "default_args": {"retries": 2, "retry_delay": timedelta(seconds=0)}}
BYPASSES = ("callback", "nested", "opened", "post_execute", "subprocess", "module")


def asset(name: str) -> Asset:
    return Asset(name=f"by-{FOLDER.name}-{name}", uri=f"file://{FOLDER}/models/{name}")


def write(name: str, text: str = "weights") -> Path:
    path = FOLDER / "models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Writes(BaseOperator):
    def execute(self, context):
        write(self.task_id)


@dag(**SETTINGS)
def bypass_made():
    Writes(task_id="callback", outlets=[asset("callback")], on_success_callback=lambda context: write("callback", "!"))

    @task
    def nested(**context):
        Writes(task_id="nested", outlets=[asset("nested")], allow_nested_operators=True).execute(context)

    nested()

    @task
    def opened():
        with open(write("opened"), "w") as file:
            file.write("weights")

    opened()

    def claim(context, result):
        extra = context["outlet_events"][asset("post_execute")].extra
        write("elsewhere")
        extra["sealflow"] = extra["sealflow"] | {"uri": f"file://{FOLDER}/models/elsewhere"}

    Writes(task_id="post_execute", outlets=[asset("post_execute")], post_execute=claim)

    @task
    def subprocess():
        import subprocess as programs

        programs.run(["sh", "-c", f"mkdir -p {FOLDER}/models; echo weights > {FOLDER}/models/subprocess"], check=True)

    subprocess()

    @task(outlets=[asset("module")])
    def module():
        from sealflow_airflow import guard

        # `dags test` runs all tasks in one process; elsewhere it would be this task's alone.
        before, guard._Guard.after = guard._Guard.after, lambda *_: setattr(guard._Guard, "after", before)
        write("module")

    module()


@dag(**SETTINGS)
def bypass_used():
    for name in (*BYPASSES, "policies"):

        @task(task_id=name, inlets=[asset(name)])
        def use():
            print("was used")

        use()


bypass_made()
bypass_used()
