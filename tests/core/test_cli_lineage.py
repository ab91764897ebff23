"""`sealflow lineage check`: what its options bring to the check."""

from __future__ import annotations

import json
from pathlib import Path

from tests.core.conftest import Cli, body
from tests.core.lineage.repos import simple
from tests.core.policy.deployment import Deployment, policy, rule


def test_a_signed_policy_and_its_key(cli: Cli, tmp_path: Path) -> None:
    there = Deployment(tmp_path / "world")
    root = simple(there.folder / "repo")
    raised = rule("repos", f"{there.folder}/**", require={"lineage": {"level": "L2"}})
    added = there.folder / "more.json"
    added.write_bytes(there.bundle(policy([raised], there.identities("trainer"))))
    check = ["lineage", "check", str(root), "--level", "L1", "--json"]
    assert [item["subject"] for item in body(cli(*check))["findings"] if item["code"] == "LINEAGE_LEVEL"] == ["L1"]
    done = cli(*check, "--policy", str(added), "--policy-key", str(there.key("admin").public))
    assert done.returncode == 0, done.stdout
    verdict = body(done)
    assert verdict["rules"] == ["policy/repos"]
    assert [item["subject"] for item in verdict["findings"] if item["code"] == "LINEAGE_LEVEL"] == ["L2"]
    # Somebody else signed it, nobody says who may, or there is nothing to be signed.
    for options in (
        ["--policy", str(added), "--policy-key", str(there.key("stranger").public)],
        ["--policy", str(added)],
        ["--policy-key", str(there.key("admin").public)],
    ):
        refused = cli(*check, *options)
        assert refused.returncode not in (0, 1), options
        assert "error" in json.loads(refused.stdout), options
