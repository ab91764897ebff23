"""The component that integrates the audit log: what it does when its task runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sealflow_kfp
from sealflow.audit.inbox import open_inbox
from sealflow.errors import EvidenceError
from sealflow.storage import Storages
from tests.audit_events import entries
from tests.core.audit.chains import chain as made_chain
from tests.core.audit.logs import ORIGIN, ed25519_signer
from tests.kubeflow.conftest import Mounted

pytestmark = pytest.mark.kfp


def test_it_integrates(mounted: Mounted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inbox = open_inbox(f"sqlite:{tmp_path}/inbox.db", Storages())
    inbox.put(made_chain(3))
    inbox.close()
    options = {
        "signer": ed25519_signer(tmp_path).uri,
        "origin": ORIGIN,
        "inbox": inbox.uri,
        "audit_log": str(tmp_path / "log"),
    }
    (done,) = sealflow_kfp.integrate_audit_log.python_func(**options)
    assert (done["added"], done["size"], done["findings"]) == (3, 3, [])
    assert "3 entries added" in capsys.readouterr().out
    (tmp_path / "log" / "checkpoint").unlink()
    with pytest.raises(EvidenceError, match="LOG_TRUNCATED"):
        sealflow_kfp.integrate_audit_log.python_func(**options)


def test_the_chain_of_a_task_ends_with_a_signed_count(mounted: Mounted, tmp_path: Path) -> None:
    """A process of its own, as a pod's: the chain ends when the process does, whatever its task body did."""
    (tmp_path / "model").write_bytes(b"weights")
    body = (
        "import sys, sealflow_kfp\n"
        "from kfp import dsl\n"
        "made = dsl.Artifact(name='model', uri=sys.argv[1])\n"
        "sealflow_kfp.sign_output(made)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", body, str(tmp_path / "model")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    chain = entries(mounted.spool)
    last = json.loads(chain[-1].event)
    assert [entry.n for entry in chain] == list(range(len(chain)))
    assert (last["phase"], last["count"]) == ("end", len(chain))
    assert len(chain) >= 3, "an intent and an outcome before the end"
    assert all(entry.is_signed() for entry in chain)
