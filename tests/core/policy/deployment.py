"""A deployment for tests: an admin with a key and a channel, producers with keys, artifacts, and checks in a task."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import sealflow
from sealflow.actions.sign import Signed
from sealflow.findings import Verdict
from sealflow.keys import KeySigner, load_signer
from sealflow.policy.compose import CompiledPolicy
from sealflow.policy.document import Waiver, parse_policy, parse_waiver
from sealflow.policy.signed import POLICY_TYPE, REVOCATIONS_TYPE, WAIVER_TYPE, make_signed
from sealflow.policy.source import AdminChannel, BrokenChannel, forget
from sealflow.run_identity import RunIdentity
from tests.pki import NOW, KeyPair, write_key

Body = dict[str, Any]

FIT = RunIdentity("airflow", "train", "fit", "run-1", None, 1, team="ml")
SCORE = RunIdentity("airflow", "score", "load", "run-2", None, 1, team="ml")


def at(**delta: float) -> str:
    """Return a time relative to now as documents write it."""
    return (NOW + datetime.timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def policy(rules: Sequence[Body] = (), identities: Mapping[str, Body] | None = None, **more: Any) -> Body:
    """Return a policy document."""
    head = {"apiVersion": "sealflow/v1", "version": 1, "expires": at(days=300)}
    return {**head, "identities": dict(identities or {}), "rules": list(rules), **more}


def rule(name: str, artifact: str | Path | Sequence[str], any_of: Sequence[str] = ("trainer",), **more: Any) -> Body:
    """Return a rule; ``require`` adds to its identities, other members are its own or its scope's."""
    places = [str(artifact)] if isinstance(artifact, (str, Path)) else list(artifact)
    scope = {key: more.pop(key) for key in ("orchestrator", "team", "dag", "pipeline", "task") if key in more}
    require = more.pop("require", {})
    if any_of:
        require = {"identities": {"any_of": list(any_of)}, **require}
    return {"name": name, "scope": {"artifact": places, **scope}, "require": require, **more}


def compiled(body: Body, **options: Any) -> CompiledPolicy:
    """Compile a document without signing it."""
    data = json.dumps(body).encode()
    return CompiledPolicy(parse_policy(data), digest=options.pop("digest", "ab" * 32), **options)


def _signer(uri: str) -> KeySigner:
    # By what lies there: a later test may get the folder of an earlier one.
    return _opened(uri, Path(uri.removeprefix("file:")).read_bytes())


@cache
def _opened(uri: str, _: bytes) -> KeySigner:
    return load_signer(uri)


class Deployment:
    """An admin, producers, and what they wrote.

    Args:
        folder: Everything lies here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._keys: dict[str, KeyPair] = {}
        self.place = folder / "admin" / "policy.json"
        self.place.parent.mkdir(exist_ok=True)
        self.waivers = folder / "admin" / "policy.json.waivers"
        self.body: Body = {}
        self.revocations = folder / "admin" / "revocations.json"
        self.listed = 0

    # --- people ---

    def key(self, name: str) -> KeyPair:
        """Return somebody's key pair, made when first asked for."""
        if name not in self._keys:
            self._keys[name] = write_key(self.folder, name)
        return self._keys[name]

    def pem(self, name: str) -> str:
        return self.key(name).public.read_text()

    def identity(self, key: str = "trainer", **more: Any) -> Body:
        return {"key": self.pem(key), **more}

    def identities(self, *names: str) -> dict[str, Body]:
        """Return identities whose names are those of their keys."""
        return {name: self.identity(name) for name in names}

    # --- the admin ---

    def bundle(self, body: Any, key: str = "admin", payload_type: str = POLICY_TYPE) -> bytes:
        """Return a signed document."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return make_signed(data, _signer(self.key(key).signer), payload_type)

    def publish(self, body: Body, key: str = "admin", place: Path | None = None) -> Body:
        """Sign a policy and put it in its place; its ``revocations``, if any, become the list."""
        body = dict(body)
        if "revocations" in body:
            self.revoke(body.pop("revocations"))
        (place or self.place).write_bytes(self.bundle(body, key))
        if place is None:
            self.body = body
        forget()
        return body

    def revoke(self, entries: Sequence[Body], key: str = "admin", **changes: Any) -> Body:
        """Sign the next list of revocations and put it in its place; the channel names it from then on."""
        self.listed += 1
        head = {"apiVersion": "sealflow/v1", "kind": "Revocations", "version": self.listed, "expires": at(days=300)}
        body = {**head, "revocations": list(entries), **changes}
        self.revocations.write_bytes(self.bundle(body, key, REVOCATIONS_TYPE))
        forget()
        return body

    def channel(self, **changes: Any) -> AdminChannel:
        """Return the admin's channel."""
        body = {"policy": str(self.place), "keys": [str(self.key("admin").public)], **changes}
        if self.listed:
            body.setdefault("revocations", str(self.revocations))
        return AdminChannel.parse(body, "the test's channel")

    def waiver(self, *rules: str, artifact: str | Sequence[str] = "**", **changes: Any) -> Body:
        """Return a waiver of rules of the published policy, as they stand."""
        known = {item.name: item.digest for item in compiled(self.body).rules}
        head = {"apiVersion": "sealflow/v1", "kind": "Waiver", "id": "w1", "reason": "the store burned down"}
        places = [artifact] if isinstance(artifact, str) else list(artifact)
        body = {
            **head,
            "scope": {"artifact": places, **changes.pop("scope", {})},
            "rules": [{"name": name, "digest": known[name]} for name in rules],
            "not_before": at(hours=-1),
            "expires": at(days=3),
        }
        return {**body, **changes}

    def waive(self, body: Body, key: str = "admin", name: str = "w1.json", payload_type: str = WAIVER_TYPE) -> None:
        """Sign a waiver and put it in its place."""
        self.waivers.mkdir(exist_ok=True)
        (self.waivers / name).write_bytes(self.bundle(body, key, payload_type))
        forget()

    def parsed_waiver(self, body: Body) -> Waiver:
        return parse_waiver(json.dumps(body).encode())

    # --- the others ---

    def model(self, name: str = "models/m.bin", data: bytes = b"the weights") -> Path:
        """Write an artifact."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def sign(self, path: Path | str, key: str = "trainer", run: RunIdentity = FIT, **options: Any) -> Signed:
        with sealflow.run(sealflow.Surroundings(run)):
            return sealflow.sign_artifact(path, signer=_signer(self.key(key).signer), **options)

    def verify(
        self,
        target: Any,
        run: RunIdentity = SCORE,
        channel: AdminChannel | BrokenChannel | None = None,
        *,
        settings: sealflow.Settings | None = None,
        **options: Any,
    ) -> Verdict:
        """Check in a task under the admin's policy."""
        surroundings = sealflow.Surroundings(run, admin=channel or self.channel())
        if settings is not None:
            surroundings = replace(surroundings, settings=settings)
        with sealflow.run(surroundings):
            return sealflow.verify(
                target if isinstance(target, (dict, sealflow.ArtifactRef)) else str(target), **options
            )

    def draft(self, body: Body, name: str = "draft.yaml") -> str:
        """Write a policy that a call adds; JSON is YAML."""
        path = self.folder / name
        path.write_text(json.dumps(body))
        return str(path)


def code(verdict: Verdict) -> str:
    """Return the code that decided, ``passed`` for none."""
    first = verdict.deciding_finding
    return first.code if first else verdict.status


def codes(verdict: Verdict) -> set[str]:
    """Return all codes of a verdict."""
    return {finding.code for finding in verdict.findings}
