"""The commands of docs/explanation/interoperability.md, as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sealflow
from tests.conftest import ROOT
from tests.documents import blocks_of
from tests.pki import write_key, write_pki

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def test_the_commands(tmp_path: Path) -> None:
    """A folder signed with a key, the same signed under a certificate, and a signature that another tool made."""
    (programs := tmp_path / "bin").mkdir()
    for name, module, call in (("sealflow", "sealflow.cli", "main"), ("model_signing", "model_signing._cli", "main")):
        text = f"import sys\nsys.argv[0] = {name!r}\nfrom {module} import {call}\n{call}()\n"
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    shown = [item.text for item in blocks_of(ROOT / "docs" / "explanation" / "interoperability.md")]
    folder_for_it, export, with_key, with_certificate, foreign = re.findall(r"(?m)^\$ (.+)$", "".join(shown))

    def run(command: str, folder: Path) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    pki = write_pki(tmp_path)
    for kind, signer in (("key", write_key(tmp_path, "producer").signer), ("certificate", pki.signer)):
        folder = tmp_path / kind
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "weights.bin").write_bytes(b"weights")
        for name in ("producer.pub.pem", "root.pem"):
            (folder / name).symlink_to(tmp_path / name)
        sealflow.sign(folder / "model", signer=signer)
        run(f"{folder_for_it} && {export}", folder)
        assert (folder / "out" / "model.intoto.jsonl").read_bytes()
        assert "Verification succeeded" in run(with_key if kind == "key" else with_certificate, folder)
    (tmp_path / "key" / "model.sig").write_bytes((tmp_path / "key" / "out" / "model.sig").read_bytes())
    assert run(foreign, tmp_path / "key").startswith("passed")
