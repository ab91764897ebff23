"""The examples of docs/reference/lineage.md, run; and every code it names."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sealflow.actions.keys_generate import generate_key
from sealflow.cli.app import app
from sealflow.findings import CODES
from tests.conformance import test_dvc_control
from tests.core.lineage.repos import lock, out, write

DOCS = Path(__file__).parents[3] / "docs/reference"
TEXT = (DOCS / "lineage.md").read_text(encoding="utf-8")
TRACE = (DOCS / "trace.md").read_text(encoding="utf-8") + (DOCS / "policy.md").read_text(encoding="utf-8")


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
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
    check, tampered, sign = sessions
    info = (repo / "raw.csv").stat()
    generate_key("trainer.pem")
    for (command, expected), data, status in ((check, "1\n", 0), (tampered, "2\n", 3), (sign, "1\n", 0)):
        (repo / "raw.csv").write_text(data)
        os.utime(repo / "raw.csv", ns=(info.st_atime_ns, info.st_mtime_ns))
        done = CliRunner().invoke(app, command.split())
        output = re.sub("sha256:[0-9a-f]{64}", "sha256:…", done.output)
        assert output.replace(repo.parent.as_uri(), "file:///…") == expected
        assert done.exit_code == status


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
    named |= set(re.findall(r"`([A-Z]+_[A-Z_]+)`", TRACE))
    assert {code for code in CODES if code.startswith(starts)} <= named


def test_it_counts_the_scenarios() -> None:
    count = len(test_dvc_control.SCENARIOS) - 1
    assert f"holds {count} ways to tamper" in TEXT
    assert set(test_dvc_control.DVC_ALONE.values()) == {"CACHE_MISSING", "LEGACY_HASH"}
