"""The same in one decorator: what comes in is verified and held, what goes out is signed.

The function itself knows nothing of sealflow, so it can be tested alone. ``@task.sealed`` and ``sealed_task`` are the
same; editors know the parameters of the second.
"""

from pathlib import Path

from airflow.sdk import dag, task

from sealflow_airflow import sealed_task


@dag(schedule=None, params={"folder": "/var/lib/models"})
def example_task_sealed_decorator():
    @task.sealed(outputs=["destination"])
    def extract(destination: str):
        Path(destination).write_text("3\n1\n2\n")

    @task.sealed(inputs=["source"], outputs=["destination"], retries=2)
    def transform(source: str, destination: str):
        lines = sorted(Path(source).read_text().splitlines())
        Path(destination).write_text("\n".join(lines))

    @sealed_task(inputs=["source"])
    def load(source: str):
        return Path(source).read_text().split()

    raw = extract(destination="{{ params.folder }}/raw.txt")
    load(transform(source=raw, destination="{{ params.folder }}/sorted.txt"))


example_task_sealed_decorator()
