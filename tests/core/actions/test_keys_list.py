"""Keys as the policy in force knows them."""

from __future__ import annotations

from pathlib import Path

import pytest

import sealflow
from sealflow.actions.keys_list import list_keys
from sealflow.errors import UnavailableError
from sealflow.keys import load_public_key
from tests.core.policy.deployment import Deployment, at, policy, rule


def test_the_policy_in_force_its_admins_and_its_list(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "deployment")
    key = f"sha256:{load_public_key(deployment.pem('trainer')).hint}"
    deployment.publish(
        policy(
            [rule("models", "**")],
            deployment.identities("trainer", "reviewer"),
            revocations=[{"key": key, "since": at(days=-1), "reason": "stolen"}],
        )
    )
    deployment.key("guard")
    channel = deployment.channel(waiver_keys=[str(deployment.key("guard").public)])
    with sealflow.run(sealflow.Surroundings(admin=channel)):
        found = list_keys()
        (alone,) = list_keys([str(deployment.key("admin").public)]).keys
    assert (found.believed, found.policy, found.revocations) == (
        "in force",
        str(deployment.place),
        str(deployment.revocations),
    )
    roles = {trust.identity: (trust.role, trust.state) for item in found.keys for trust in item.trust}
    assert roles == {
        "trainer": ("signer", "revoked"),
        "reviewer": ("signer", "valid"),
        "policy": ("policy", "valid"),
        "waivers": ("waivers", "valid"),
    }
    assert [item.revoked.reason for item in found.keys if item.revoked is not None] == ["stolen"]
    assert [trust.role for trust in alone.trust] == ["policy"]


def test_a_policy_that_is_not_to_be_had_is_said(tmp_path: Path) -> None:
    """An empty list would read as trusted for nothing, not revoked."""
    deployment = Deployment(tmp_path / "deployment")
    with sealflow.run(sealflow.Surroundings(admin=deployment.channel())), pytest.raises(UnavailableError):
        list_keys()
