"""An admin with a key, who signs a trust policy and says in each orchestrator's own way where it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sealflow.keys import load_signer
from sealflow.policy.signed import POLICY_TYPE, make_signed
from sealflow.policy.source import AdminChannel
from tests.pki import KeyPair, write_key

Body = dict[str, Any]


class Admin:
    """An admin.

    Args:
        folder: Where key and policy lie.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.key = write_key(folder, "admin")
        self.policy = folder / "policy.json"

    def publish(
        self,
        rules: Sequence[Body],
        identities: Mapping[str, KeyPair | Body],
        *,
        signers: Sequence[Body] = (),
        version: int = 1,
        expires: str = "2099-01-01T00:00:00Z",
        key: KeyPair | None = None,
        **more: Any,
    ) -> None:
        """Sign a policy and put it in its place.

        Args:
            rules: The rules.
            identities: Key pairs, or identities whose ``key`` is a key pair.
            signers: Which signer tasks use.
            version: The version.
            expires: When it ends.
            key: Who signs it, by default the admin.
            more: Further members of the policy.
        """
        body = {
            "apiVersion": "sealflow/v1",
            "version": version,
            "expires": expires,
            "identities": {name: _identity(item) for name, item in identities.items()},
            "signers": list(signers),
            "rules": list(rules),
            **more,
        }
        signer = load_signer((key or self.key).signer)
        self.policy.write_bytes(make_signed(json.dumps(body).encode(), signer, POLICY_TYPE))

    def channel(self, **more: Any) -> AdminChannel:
        """Return the channel."""
        return AdminChannel.parse(self.members(**more), "the test")

    def members(self, **more: Any) -> Body:
        """Return the channel as an admin's file holds it."""
        return {"policy": str(self.policy), "keys": [str(self.key.public)], **more}

    def options(self, **more: str) -> dict[str, str]:
        """Return the channel as Airflow's configuration holds it, in the form of environment variables."""
        options = {"policy": str(self.policy), "policy_keys": str(self.key.public), **more}
        return {f"AIRFLOW__SEALFLOW__{name.upper()}": value for name, value in options.items()}

    def write_file(self, path: Path, **more: Any) -> None:
        """Write the admin's file of a machine or a Python environment."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.members(**more)))
        path.chmod(0o644)


def _identity(item: KeyPair | Body) -> Body:
    body = {"key": item} if isinstance(item, KeyPair) else item
    return {name: value.public.read_text() if isinstance(value, KeyPair) else value for name, value in body.items()}


def rule(name: str, artifact: str | Path, *identities: str, level: str = "enforce", **fields: Any) -> Body:
    """Return a rule.

    Args:
        name: Its name.
        artifact: Pattern of the artifacts.
        identities: Any one of whom must have signed.
        level: Its level.
        fields: ``locked``, fields of the scope (``dag``, ``task``, ``team`` …), and of what is required.
    """
    scope = {key: fields.pop(key) for key in ("orchestrator", "team", "dag", "pipeline", "task") if key in fields}
    locked = {"locked": fields.pop("locked")} if "locked" in fields else {}
    require = {"identities": {"any_of": list(identities)}, **fields} if identities else fields
    return {"name": name, "scope": {"artifact": [str(artifact)], **scope}, "require": require, "level": level, **locked}
