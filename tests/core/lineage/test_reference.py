"""The examples of docs/reference/lineage.md, run; and every code it names."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sealflow.cli.app import app
from sealflow.findings import CODES
from tests.conformance import test_dvc_control
from tests.core.lineage.repos import lock, out, write

TEXT = (Path(__file__).parents[3] / "docs/reference/lineage.md").read_text(encoding="utf-8")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEALFLOW_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    monkeypatch.chdir(tmp_path)
    stage = {"cmd": "train", "deps": ["raw.csv"], "outs": ["model"]}
    locked = lock(train={"cmd": "train", "deps": [out("raw.csv", "1\n")], "outs": [out("model", "m")]})
    text = (
        "schema: '2.0'\nstages:\n  train: {cmd: train, deps: [\n"
        + str(locked["stages"]["train"]["deps"][0])
        + "], outs: "
        + str(locked["stages"]["train"]["outs"])
        + "}\n"
    )
    object_ = f".dvc/cache/files/md5/{out('', 'm')['md5'][:2]}/{out('', 'm')['md5'][2:]}"
    return write(
        tmp_path / "repo",
        {"raw.csv": "1\n", "model": "m", "dvc.yaml": {"stages": {"train": stage}}, "dvc.lock": text, object_: "m"},
    )


def test_the_examples(repo: Path) -> None:
    sessions = re.findall(r"```console\n\$ sealflow (.*?)\n(.*?)```", TEXT, re.S)
    assert len(sessions) == 2
    for index, (command, expected) in enumerate(sessions):
        if index == 1:
            info = (repo / "raw.csv").stat()
            (repo / "raw.csv").write_text("2\n")
            os.utime(repo / "raw.csv", ns=(info.st_atime_ns, info.st_mtime_ns))
        done = CliRunner().invoke(app, command.split())
        assert done.output.replace(repo.parent.as_uri(), "file:///…") == expected
        assert done.exit_code == (3 if index else 0)


def test_the_example_in_python(repo: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(code, {})
    (repo / "raw.csv").write_text("2\n")
    with pytest.raises(SystemExit, match="DATA_MISMATCH"):
        exec(code, {})


def test_it_names_every_code_and_no_other() -> None:
    section = TEXT[TEXT.index("## Codes") : TEXT.index("## Beside DVC")]
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", section))
    assert named <= set(CODES)
    starts = ("DATA_", "LOCK_", "STAGE_", "LINEAGE_", "PARAMS_", "CACHE_", "CMD_", "CHAIN_", "OUT_", "GRAPH_", "DVC_")
    assert {code for code in CODES if code.startswith(starts)} <= named


def test_it_counts_the_scenarios() -> None:
    count = len(test_dvc_control.SCENARIOS) - 1
    assert f"holds {count} ways to tamper" in TEXT
    assert set(test_dvc_control.DVC_ALONE.values()) == {"CACHE_MISSING", "LEGACY_HASH"}
