"""What pages show of Airflow outside of guides: options exist, DAGs can be made, commands are Airflow's."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

from sealflow_airflow.get_provider_info import get_provider_info
from tests.documents import ROOT, block, blocks_of

pytestmark = pytest.mark.airflow

OPTIONS = get_provider_info()["config"]["sealflow"]["options"]
#: Pages with pieces of `airflow.cfg`.
PAGES = [
    "how-to/airflow-gate", "how-to/airflow-guard", "how-to/airflow-pages", "how-to/sealed-xcom", "reference/airflow",
]  # fmt: skip
PIECES = [
    pytest.param(item.text, id=f"{page}-{number}")
    for page in PAGES
    for number, item in enumerate(blocks_of(ROOT / "docs" / f"{page}.md"))
    if item.language == "ini"
]


@pytest.mark.parametrize("text", PIECES)
def test_options_exist(text: str) -> None:
    """Ours are those of our provider; others those that Airflow, or a provider of its own, knows."""
    from airflow.configuration import conf

    parser = ConfigParser(interpolation=None)
    parser.read_string(text)
    assert parser.sections()
    for section in parser.sections():
        for name, value in parser.items(section):
            assert value
            if section == "sealflow":
                assert name in OPTIONS, name
            else:
                assert conf.has_option(section, name) or _known_to_provider(section, name), f"[{section}] {name}"
            if "." in value and re.fullmatch(r"[\w.]+\.[A-Z]\w+", value):
                module, _, attribute = value.rpartition(".")
                assert hasattr(importlib.import_module(module), attribute), value


def _known_to_provider(section: str, name: str) -> bool:
    module = importlib.import_module(f"airflow.providers.{section}.get_provider_info")
    return name in module.get_provider_info()["config"][section]["options"]


def test_variables_are_options() -> None:
    found = re.findall(r"(?m)^AIRFLOW__SEALFLOW__(\w+)=(.+)$", block("how-to/airflow-gate", "sh", "AIRFLOW__"))
    assert len(found) == 3
    assert {name.lower() for name, _ in found} <= set(OPTIONS)
    (mode,) = [value for name, value in found if name == "NOTARY_MODE"]
    assert mode in OPTIONS["notary_mode"]["description"]


def test_the_gates_application() -> None:
    from uvicorn.main import main

    words = shlex.split(block("how-to/airflow-gate", "sh", "uvicorn"))
    given = main.make_context("uvicorn", words[1:]).params
    assert (given["factory"], given["port"]) == (True, 9091)
    module, _, attribute = given["app"].partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_guarded_tasks() -> None:
    """The tasks of how-to/airflow-guard make DAGs, which the guard's rules for DAGs take."""
    from airflow.sdk import DAG, Asset, Metadata, task

    declared, elsewhere = (
        item.text for item in blocks_of(ROOT / "docs" / "how-to" / "airflow-guard.md") if item.language == "python"
    )
    space: dict[str, Any] = {"Asset": Asset, "Metadata": Metadata, "task": task}
    for number, text in enumerate((declared, elsewhere)):
        with DAG(f"guide-{number}") as dag:
            # The second one goes on from the first: it names the same asset.
            exec(compile(text, "airflow-guard", "exec", dont_inherit=True), space)
            space["train"]()
            if number == 0:
                space["score"]()
        train = dag.get_task("train")
        assert [asset.uri for asset in train.outlets] == ["s3://models/churn"]
    assert [asset.uri for asset in dag.get_task("train").outlets] == [space["model"].uri]
    (event,) = list(space["train"].function(run_id="run-1"))
    assert event.extra == {"sealflow_uri": "s3://models/churn/run-1"}


def test_on_refusal() -> None:
    """The callback of how-to/respond-to-a-stolen-key."""
    said: list[Any] = []
    space: dict[str, Any] = {"slack": said.append, "pager": said.append}
    exec(compile(block("how-to/respond-to-a-stolen-key", "python"), "guide", "exec"), space)
    made = space["on_failure_callback"]
    assert (made.pause_conn_id, made.ocsf, len(made.notifiers)) == ("airflow_api", "s3://siem/findings", 2)
    # What is no refusal calls nobody.
    made({"exception": ValueError("a bug")})
    assert said == []


def test_a_key_for_xcoms(tmp_path: Path) -> None:
    """The key of how-to/sealed-xcom, made by its command and taken by the backend's own reader."""
    from sealflow.actions.recipients import open_recipients

    command = block("how-to/sealed-xcom", "sh").replace("/etc/sealflow", str(tmp_path))
    subprocess.run(["bash", "-euc", command], check=True)
    (made,) = tmp_path.iterdir()
    assert (made.stat().st_size, made.stat().st_mode & 0o777) == (32, 0o600)
    (recipient,) = open_recipients([f"aes:{made}?name=2026-11"])
    assert recipient


def _parsed(words: list[str]) -> argparse.Namespace:
    from airflow.cli import cli_parser

    return cli_parser.get_parser().parse_args(words)


def test_the_connection(connect: Callable[..., None]) -> None:
    """What reference/airflow gives to `airflow connections add` is a connection that the hook takes."""
    from sealflow_airflow.hooks.sealflow import SealflowHook

    words = shlex.split(block("reference/airflow", "sh", "connections add"))
    given = _parsed(words[1:])
    assert (given.conn_id, given.conn_type) == ("sealflow_default", "sealflow")
    extra = json.loads(given.conn_extra)
    connect(extra=extra)
    settings = SealflowHook().get_conn()
    assert (settings.signer, settings.evidence_store) == (extra["signer"], extra["evidence_store"])
    assert settings.identities == extra["identities"]


def test_the_doctors_commands() -> None:
    lines = re.findall(r"(?m)^airflow (.+?)(?: > \S+)? +#.*$", block("reference/airflow", "sh", "doctor"))
    first, second = (_parsed(line.split()) for line in lines)
    assert (first.json, second.worker, second.compare) == (True, True, ["scheduler.json"])
