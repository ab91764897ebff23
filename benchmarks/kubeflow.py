"""What the wrapper around a KFP task's command costs: whole processes, against the bare command.

The peer hashes, signs and verifies the same with the same library, in a process of its own that runs the same
command.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import environment, interleaved, run
from benchmarks.table import Timing

#: Most seconds beyond hashing and cryptography.
TASK_BOUND = 0.1

_RUN = "churn-2026-11-22-07-15-23-240111"

# One input with its provenance, one output with signature and provenance: a verification and two signatures.
_PEER = """
import hashlib, subprocess, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
import cryptography.x509
private = serialization.load_pem_private_key(open({key!r}, "rb").read(), None)
public = serialization.load_pem_public_key(open({key!r} + ".pub", "rb").read())
def digest(path):
    return hashlib.sha256(open(path, "rb").read()).digest()
how = ec.ECDSA(hashes.SHA256())
public.verify(private.sign(digest({given!r}), how), digest({given!r}), how)
subprocess.run(sys.argv[1:], check=True)
digest({given!r})
for _ in range(2):
    private.sign(digest({made!r}), how)
"""


# The environment's own file, since no other than root may write the machine's.
_UNDER_POLICY = """
import sys
from sealflow.policy import source
source.MACHINE_FILE, source.ENVIRONMENT_FILE = {admin!r} + ".none", {admin!r}
from sealflow_kfp.exec import main
sys.exit(main())
"""

_PUBLISH = """
import json, sys
from sealflow.actions.keys_generate import generate_key
from sealflow.keys import load_signer
from sealflow.policy.signed import POLICY_TYPE, make_signed
folder = sys.argv[1]
generate_key(f"{folder}/admin")
body = {
    "apiVersion": "sealflow/v1", "version": 1, "expires": "2099-01-01T00:00:00Z",
    "identities": {"team": {"key": open(f"{folder}/signing.pub").read()}},
    "rules": [{"name": "all", "scope": {"artifact": [f"{folder}/**"]},
               "require": {"identities": {"any_of": ["team"]}, "evidence": {"provenance": {}}}}],
}
signed = make_signed(json.dumps(body).encode(), load_signer(f"file:{folder}/admin"), POLICY_TYPE)
open(f"{folder}/policy.json", "wb").write(signed)
json.dump({"policy": f"{folder}/policy.json", "keys": [f"{folder}/admin.pub"]}, open(f"{folder}/admin.json", "w"))
"""


def measure(folder: Path, rounds: int) -> list[Timing]:
    """Return what the wrapper adds to a task.

    Args:
        folder: An empty folder.
        rounds: Half of the counted runs of each command.
    """
    key = folder / "signing"
    generate = [sys.executable, "-c", "import sealflow.cli; sealflow.cli.main()", "keys", "generate", str(key)]
    subprocess.run(generate, check=True, capture_output=True, env=environment())
    settings = {
        "signer": f"file:{key}",
        "identities": {"team": f"file:{key}.pub"},
        "audit_spool": str(folder / "spool"),
    }
    (folder / "sealflow.json").write_text(json.dumps(settings))
    extra = {"SEALFLOW_MOUNT": str(folder)}
    run([sys.executable, "-c", _PUBLISH, str(folder)])
    model, scores = _place(folder, "train"), _place(folder, "score")
    make, use = (["sh", "-c", f"echo {path.parent.name} > {path}"] for path in (model, scores))
    subprocess.run([*_wrapper(model, []), *make], check=True, capture_output=True, env=environment(extra))
    said = json.loads(model.with_name("executor_output.json").read_text())
    given = said["artifacts"]["out"]["artifacts"][0]
    commands = {
        "bare": use,
        "peer": [sys.executable, "-c", _PEER.format(key=str(key), given=str(model), made=str(scores)), *use],
        "parameters": [*_wrapper(None, []), *use],
        "artifacts": [*_wrapper(scores, [given]), *use],
        "policy": [*_wrapper(scores, [given], "-c", _UNDER_POLICY.format(admin=str(folder / "admin.json"))), *use],
    }
    taken = {name: sample.wall for name, sample in interleaved(commands, 2 * rounds, extra).items()}
    return [
        Timing("wrapper, a task without artifacts, over the bare command", taken["parameters"] - taken["bare"]),
        Timing("wrapper, one input and one output, over the bare command", taken["artifacts"] - taken["bare"]),
        Timing(
            "wrapper, one input and one output, beyond hashing and cryptography",
            taken["artifacts"] - taken["peer"],
            TASK_BOUND,
        ),
        Timing("wrapper, the same under a policy", taken["policy"] - taken["peer"], TASK_BOUND),
    ]


def _place(folder: Path, component: str) -> Path:
    path = folder / _RUN / component / "out"
    path.parent.mkdir(parents=True)
    return path


def _wrapper(output: Path | None, inputs: list[dict[str, Any]], *program: str) -> list[str]:
    outputs: dict[str, Any] = {}
    if output is not None:
        outputs["artifacts"] = {"out": {"artifacts": [{"name": "out", "uri": str(output)}]}}
        outputs["outputFile"] = str(output.with_name("executor_output.json"))
    body = {"inputs": {"artifacts": {"given": {"artifacts": inputs}}} if inputs else {}, "outputs": outputs}
    return [sys.executable, *(program or ("-m", "sealflow_kfp.exec")), "--executor-input", json.dumps(body), "--"]
