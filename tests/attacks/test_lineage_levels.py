"""Attacks on the higher levels of lineage: whose word counts for what, and whose does not."""

from __future__ import annotations

import json
from typing import Any

import sealflow
from sealflow import Surroundings
from sealflow.actions import context
from sealflow.actions.lineage import check_lineage
from sealflow.actions.lineage_sign import sign_lineage
from sealflow.actions.trace import trace
from tests.core.actions.test_lineage_levels import GATE, World, codes, deployment, world
from tests.core.lineage.elsewhere import put
from tests.core.lineage.gitrepo import ssh_key
from tests.core.lineage.repos import out, write
from tests.core.policy.deployment import Deployment, policy, rule

__all__ = ["deployment", "world"]  # fixtures


def _identities(world: World) -> dict[str, Any]:
    return {
        "owner": {"key": world.owner.public.read_text()},
        "trainer": {"key": world.trainer.public.read_text(), "producers": ["airflow:train/fit"]},
    }


def _lineage(level: str, **more: Any) -> dict[str, Any]:
    signers = f"ada@example.org {ssh_key().with_name(ssh_key().name + '.pub').read_text()}"
    return {"level": level, "commits": {"allowed_signers": signers, "branch": "refs/heads/main"}, **more}


def test_a_summary_says_nothing_of_the_lock(world: World, deployment: Deployment) -> None:
    """A verifier walked back from the output; the lock then says that it was made from other data."""
    known = _identities(world) | {"verifier": deployment.identity("verifier", verifier=True)}
    demand = {"evidence": {"provenance": {}}, "reuse_verdict": {"max_age": "1d", "verifiers": ["verifier"]}}
    demand["lineage"] = _lineage("L6", roots=["owner"])
    deployment.publish(policy([rule("repos", f"{world.root.parent}/**", ("owner", "trainer"), require=demand)], known))

    def check() -> sealflow.Verdict:
        with context.run(Surroundings(GATE, admin=deployment.channel())):
            return check_lineage(str(world.root), evidence_store=world.store)

    with context.run(Surroundings(GATE, admin=deployment.channel())):
        signer = deployment.key("verifier").signer
        traced = trace(str(world.root / "out.csv"), evidence_stores=[world.store], verifier=signer)
    assert traced.verdict.passed, traced.verdict.summary()
    assert "LINEAGE_REUSED" in {item.code for item in check().findings}
    locked = json.loads((world.root / "dvc.lock").read_text())
    deps = locked["stages"]["make"]["deps"]
    locked["stages"]["make"]["deps"] = [out("raw.csv", "9\n") if dep["path"] == "raw.csv" else dep for dep in deps]
    write(world.root, {"raw.csv": "9\n", "raw.csv.dvc": {"outs": [out("raw.csv", "9\n")]}, "dvc.lock": locked})
    put(world.there.remote, "9\n")
    world.there.repo.commit({})
    sign_lineage(str(world.root), ["raw.csv.dvc"], signer=world.owner.signer, evidence_store=world.store)
    assert codes(check()) == {"INPUTS_DIFFER"}
