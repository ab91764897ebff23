"""Every way in which tasks hand values to each other."""

import json
import os

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, get_current_context, task

# What a DAG file sets changes nothing: the backend was configured when the process started.
os.environ["AIRFLOW__SEALFLOW__XCOM_KEYS"] = "aes:/nowhere/mine.key"
os.environ["AIRFLOW__SEALFLOW__XCOM_ACCEPT_CLEAR"] = "True"

SECRET = "hunter2-9f2c-not-a-word"


@dag(schedule=None, params={"database": ""})
def sealed_xcoms():
    @task
    def numbers():
        return [1, 2, 3]

    @task
    def times_two(number):
        get_current_context()["ti"].xcom_push("note", f"{SECRET} {number}")
        return number * 2

    @task
    def total(values):
        assert len(values) == 3
        assert list(values) == [2, 4, 6]
        assert values[-1] == 6
        assert values[1:] == [4, 6]
        assert values[-2:] == [4, 6]
        assert values[::-1] == [6, 4, 2]
        ti = get_current_context()["ti"]
        assert ti.xcom_pull("times_two", key="note") == [f"{SECRET} {n}" for n in (1, 2, 3)]
        assert ti.xcom_pull("times_two", map_indexes=1) == 4
        assert ti.xcom_pull("times_two", map_indexes=[0, 2]) == [2, 6]
        assert ti.xcom_pull("numbers", map_indexes=None) == [1, 2, 3]
        assert ti.xcom_pull(["numbers", "times_two"]) == [[1, 2, 3], 2, 4, 6]
        assert ti.xcom_pull("nobody") is None
        return sum(values)

    @task(multiple_outputs=True)
    def parts():
        return {"a": SECRET, "b": (1, 2)}

    @task
    def joined(a, b):
        assert (a, b) == (SECRET, (1, 2))
        return "joined"

    @task.branch
    def choose():
        return "chosen"

    @task
    def chosen():
        return {"large": [SECRET] * 500}

    @task
    def not_chosen():
        raise AssertionError("was skipped")

    doubled = times_two.expand(number=numbers())
    templated = BashOperator(task_id="templated", bash_command="test '{{ ti.xcom_pull(\"total\") }}' = 12 && echo good")
    total(doubled) >> templated
    pair = parts()
    joined(pair["a"], pair["b"])
    choose() >> [chosen(), not_chosen()]


@dag(schedule=None, params={"database": ""})
def swapped_xcoms():
    """Between the tasks somebody writes to the database, as whoever holds its password can."""

    @task
    def salary():
        return {"anna": 90}

    @task
    def bonus():
        return {"anna": 9}

    @task
    def clear():
        return "a value"

    @task
    def attack():
        import sqlite3

        run = get_current_context()["run_id"]
        base = sqlite3.connect(get_current_context()["params"]["database"], timeout=60)
        with base:
            rows = dict(
                base.execute("SELECT task_id, value FROM xcom WHERE run_id = ? AND key = 'return_value'", (run,))
            )
            for name, value in {
                "salary": rows["bonus"],
                "bonus": rows["bonus"].replace('"bytes": 11', '"bytes": 12'),
                "clear": json.dumps("injected"),
            }.items():
                assert base.execute(
                    "UPDATE xcom SET value = ? WHERE run_id = ? AND task_id = ?", (value, run, name)
                ).rowcount
        base.close()

    @task(retries=2)
    def read_salary(value):
        raise AssertionError("was used")

    @task(retries=2)
    def read_bonus(value):
        raise AssertionError("was used")

    templated = BashOperator(
        task_id="read_clear", bash_command="echo 'was used' {{ ti.xcom_pull('clear') }}", retries=2, do_xcom_push=False
    )
    attacked = attack()
    made = [salary(), bonus(), clear()]
    made >> attacked >> [read_salary(made[0]), read_bonus(made[1]), templated]


@dag(schedule=None, params={"run": ""})
def pulls_from_elsewhere():
    """Pulls what another DAG's run left, and what somebody posted there."""

    @task(retries=2)
    def pull(key):
        context = get_current_context()
        return context["ti"].xcom_pull("total", dag_id="sealed_xcoms", run_id=context["params"]["run"], key=key)

    pull.override(task_id="left")("return_value")
    pull.override(task_id="posted")("injected")


sealed_xcoms()
swapped_xcoms()
pulls_from_elsewhere()
