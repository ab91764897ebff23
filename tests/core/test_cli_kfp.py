"""`sealflow kfp harden`: what it prints, leaves behind and ends with."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sealflow_kfp.guard_command import IN_IMAGE as WRAPPER
from sealflow_kfp.hardening import harden
from tests.core.conftest import Cli, body
from tests.kubeflow.test_harden_text import CONTAINER, changed, pipeline


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A compiled pipeline."""
    return write(tmp_path, pipeline())


def write(folder: Path, *documents: Any) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def read(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def test_hardens(cli: Cli, compiled: Path, tmp_path: Path) -> None:
    done = cli("kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml", "--secret", "keys")
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "hardened.yaml") == harden([pipeline()], secret="keys").documents
    assert done.stdout.splitlines() == [
        "hardened   small  (2 tasks)",
        "wrapped    2 executors",
        "written    hardened.yaml",
    ]
    assert sorted(os.listdir(tmp_path)) == ["hardened.yaml", "pipeline.yaml"]


def test_for_the_guard_directory(cli: Cli, compiled: Path, tmp_path: Path) -> None:
    done = cli("kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml", "--guard", "directory")
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "hardened.yaml") == harden([pipeline()], guard="directory").documents
    assert "! GUARD_DIRECTORY  small: " in done.stdout
    assert "spec-patch" in done.stdout
    assert cli("kfp", "harden", "pipeline.yaml", "-o", "other.yaml", "--guard", "x").returncode == 2
    assert not (tmp_path / "other.yaml").exists()


def test_json(cli: Cli, compiled: Path) -> None:
    done = cli("kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml", "--json")
    assert body(done) == {
        "output": "hardened.yaml",
        "pipelines": [
            {
                "pipeline": "small",
                "tasks": 2,
                "wrapped": ["exec-make", "exec-use"],
                "own": [],
                "renamed": {},
                "gaps": [],
            },
        ],
    }


def test_gaps_are_printed(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, changed(f"{CONTAINER}.args", ["pip install x"]))
    done = cli("kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml")
    assert done.returncode == 0
    assert "! RUNTIME_INSTALL  exec-make: " in done.stdout
    assert "  next: Put them into the image." in done.stdout


def test_what_would_run_unguarded_is_not_written(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path, changed(f"{CONTAINER}.command", []))
    arguments = ("kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml")
    done = cli(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("PIPELINE_UNGUARDED: 1 executor would run unguarded. exec-make: It has no command")
    assert "next: Say what it runs: --entrypoint 'python=COMMAND …'" in done.stderr
    assert body(cli(*arguments, "--json"))["error"]["code"] == "PIPELINE_UNGUARDED"
    assert os.listdir(tmp_path) == ["pipeline.yaml"]
    done = cli(*arguments, "--allow-unguarded")
    assert done.returncode == 0
    assert "✗ ENTRYPOINT_UNKNOWN  exec-make" in done.stdout
    assert cli(*arguments, "--entrypoint", "python=/bin/run --name 'a b=c'", "--overwrite").returncode == 0
    container = read(tmp_path / "hardened.yaml")[0]["deploymentSpec"]["executors"]["exec-make"]["container"]
    assert container["command"] == [*WRAPPER, "/bin/run", "--name", "a b=c"]


@pytest.mark.parametrize("text", ["python", "=run", "python=", "python='", "python=   "])
def test_entrypoints_that_are_none(cli: Cli, compiled: Path, text: str) -> None:
    done = cli("kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml", "--entrypoint", text)
    assert done.returncode == 2
    assert "is not of the form IMAGE=COMMAND" in done.stderr


def test_nothing_is_written_over_unasked(cli: Cli, compiled: Path, tmp_path: Path) -> None:
    before = compiled.read_bytes()
    done = cli("kfp", "harden", "pipeline.yaml", "-o", "pipeline.yaml")
    assert (done.returncode, compiled.read_bytes()) == (2, before)
    assert done.stderr.startswith("FILE_EXISTS: ")
    assert cli("kfp", "harden", "pipeline.yaml", "-o", "pipeline.yaml", "--overwrite").returncode == 0
    once = compiled.read_bytes()
    assert once != before
    assert cli("kfp", "harden", "pipeline.yaml", "-o", "pipeline.yaml", "--overwrite").returncode == 0
    assert compiled.read_bytes() == once


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"a: [", "PIPELINE_MALFORMED", id="no-yaml"),
        pytest.param(b"kind: Secret\napiVersion: v1\n", "PIPELINE_MALFORMED", id="another-manifest"),
        pytest.param(b"#" * ((16 << 20) + 1), "PIPELINE_MALFORMED", id="long"),
        pytest.param(None, "PIPELINE_MISSING", id="nothing"),
    ],
)
def test_what_is_no_pipeline(cli: Cli, tmp_path: Path, data: bytes | None, code: str) -> None:
    if data is not None:
        (tmp_path / "pipeline.yaml").write_bytes(data)
    done = cli("kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml", "--json")
    assert done.returncode == 2
    assert body(done)["error"]["code"] == code
    assert not (tmp_path / "hardened.yaml").exists()


def test_a_wheel_without_the_kubeflow_package(cli: Cli, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sealflow_kfp"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sealflow_kfp.hardening", None)
    done = cli("kfp", "harden", "pipeline.yaml", "-o", "hardened.yaml")
    assert done.returncode == 2
    assert "EXTRA_MISSING" in done.stderr
    assert "sealflow[kfp]" in done.stderr
