"""A deployment with an admin's policy, a trainer who signs, and a verifier who says what it has read."""

from __future__ import annotations

import base64
import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sealflow
from sealflow import ArtifactRef, Verdict
from sealflow.actions.verify import Checked, verify_artifact
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.store import EvidenceStore
from sealflow.keys import load_signer
from sealflow.policy.draft import read_draft
from sealflow.policy.signed import POLICY_TYPE, REVOCATIONS_TYPE, make_signed
from sealflow.policy.source import AdminChannel, forget, policy_in_force
from sealflow.run_identity import RunIdentity
from sealflow.storage import Storages
from tests.pki import KeyPair, write_key

FIT = RunIdentity("airflow", "train", "fit", "run-1", None, 1)
SERVE = RunIdentity("airflow", "serve", "load", "run-2", None, 1)
CONTENT = b"200 GB of weights, more or less"


class Counting:
    """An S3 client that counts how often an artifact is read; evidence and policies are not counted.

    Attributes:
        reads: Keys that were read.
        names_null: Answer as AWS does, which names the version of what was written without versioning.
        ignores_versions: Answer as a store does that keeps no versions and overlooks that one was asked for.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.reads: list[str] = []
        self.names_null = False
        self.ignores_versions = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_object(self, **arguments: Any) -> Any:
        if ".evidence/" not in arguments["Key"]:
            self.reads.append(arguments["Key"])
        return self._client.get_object(**self._asked(arguments))

    def head_object(self, **arguments: Any) -> Any:
        answer = self._client.head_object(**self._asked(arguments))
        return {"VersionId": "null"} | answer if self.names_null else answer

    def _asked(self, arguments: dict[str, Any]) -> dict[str, Any]:
        dropped = {"VersionId"} if self.ignores_versions else set()
        return {name: value for name, value in arguments.items() if name not in dropped}


@dataclass
class Deployment:
    """Keys, a policy and a place for artifacts.

    Attributes:
        folder: Keys and policies lie here.
        client: The S3 client, ``None`` where artifacts are local files.
        bucket: The bucket, where there is a client.
    """

    folder: Path
    client: Counting | None = None
    bucket: str = ""
    admin: AdminChannel = field(init=False)
    version: int = 0

    def __post_init__(self) -> None:
        self.keys = {name: write_key(self.folder, name) for name in ("admin", "trainer", "verifier", "stranger")}
        self.storages = Storages(self.client)
        self.prefix = f"s3://{self.bucket}" if self.client is not None else str(self.folder / "models")
        self.publish()

    def key(self, name: str) -> KeyPair:
        return self.keys[name]

    def publish(
        self,
        *,
        require: dict[str, Any] | None = None,
        rules: list[dict[str, Any]] = (),  # type: ignore[assignment]
        level: str = "enforce",
        identities: dict[str, Any] | None = None,
        max_age: str = "24h",
        revocations: list[dict[str, Any]] | None = None,
        **members: Any,
    ) -> str:
        """Sign a policy with one rule about all artifacts, and a list of revocations; return the policy's digest."""
        self.version += 1
        demand: dict[str, Any] = {
            "identities": {"any_of": ["trainer"]},
            "reuse_verdict": {"max_age": max_age, "verifiers": ["verifier"]},
        }
        demand |= require or {}
        rule = {
            "name": "models",
            "scope": {"artifact": [f"{self.prefix}/**"]},
            "require": {name: value for name, value in demand.items() if value is not None},
            "level": level,
        }
        draft = {
            "apiVersion": "sealflow/v1",
            "version": self.version,
            "expires": "2099-01-01T00:00:00Z",
            "identities": {
                "trainer": {"key": str(self.key("trainer").public), "producers": ["airflow:train/*"]},
                "verifier": {"key": str(self.key("verifier").public), "verifier": True},
                **(identities or {}),
            },
            "rules": [rule, *rules],
            **members,
        }
        path = self.folder / f"policy-{self.version}.yaml"
        path.write_text(json.dumps(draft))
        read = read_draft(str(path))
        read.policy()
        signed = self.folder / f"policy-{self.version}.json"
        signed.write_bytes(make_signed(read.json, load_signer(self.key("admin").signer), POLICY_TYPE))
        channel = {"policy": str(signed), "keys": [str(self.key("admin").public)]}
        if revocations is not None:
            channel["revocations"] = str(self.folder / f"revocations-{self.version}.json")
            head = {"apiVersion": "sealflow/v1", "kind": "Revocations", "version": 1, "expires": "2099-01-01T00:00:00Z"}
            listed = json.dumps({**head, "revocations": revocations}).encode()
            bundle = make_signed(listed, load_signer(self.key("admin").signer), REVOCATIONS_TYPE)
            Path(channel["revocations"]).write_bytes(bundle)
        self.admin = AdminChannel.parse(channel, "test")
        forget()
        now = datetime.datetime.now(datetime.timezone.utc)
        return f"sha256:{policy_in_force(self.admin, Storages(), now).policy.digest}"

    def make(self, name: str = "model.bin", content: bytes = CONTENT, *, signer: str = "trainer") -> ArtifactRef:
        """Write an artifact and sign it as the training task."""
        place = f"{self.prefix}/{name}"
        if self.client is not None:
            self.client.put_object(Bucket=self.bucket, Key=name, Body=content)
        else:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            Path(place).write_bytes(content)
        with sealflow.run(sealflow.Surroundings(FIT)):
            return sealflow.sign(place, signer=self.key(signer).signer, storages=self.storages)

    def surroundings(self, run: RunIdentity = SERVE, **settings: Any) -> sealflow.Surroundings:
        return sealflow.Surroundings(run, settings=sealflow.Settings(**settings), admin=self.admin)

    def gate(
        self, artifact: Any, *, run: RunIdentity = SERVE, verifier: str | None = "verifier", **options: Any
    ) -> Checked:
        """Check at the gate."""
        given = {"verifier": self.key(verifier).signer} if verifier else {}
        with sealflow.run(self.surroundings(run)):
            return verify_artifact(artifact, storages=self.storages, **given, **options)

    def verdict(self, artifact: Any, **options: Any) -> Verdict:
        return self.gate(artifact, **options).verdict

    def reads_of(self, artifact: Any, **options: Any) -> tuple[Verdict, int]:
        """Check at the gate, and return how often the artifact was read."""
        assert self.client is not None
        self.client.reads.clear()
        verdict = self.verdict(artifact, **options)
        return verdict, len(self.client.reads)

    # --- summaries ---

    def summaries(self, ref: ArtifactRef) -> dict[str, dict[str, Any]]:
        """Return the statements of all summaries about an artifact by the objects' names."""
        objects = EvidenceStore(ref.evidence, self.storages).collect(ref.digest).objects
        return {item.name: payload(item.data) for item in objects if item.kind == "summary"}

    def statement(self, ref: ArtifactRef) -> dict[str, Any]:
        """Make a genuine summary, take it out of the store, and return its statement."""
        with sealflow.run(self.surroundings()):
            checked = verify_artifact(ref, storages=self.storages, verifier=self.key("verifier").signer)
        assert checked.verdict.passed, checked.verdict.summary()
        ((name, statement),) = self.summaries(ref).items()
        self.remove(ref, name)
        return statement

    def remove(self, ref: ArtifactRef, name: str) -> None:
        store = EvidenceStore(ref.evidence, self.storages).uri
        if self.client is not None:
            key = f"{store}/{ref.digest.path_segment}/{name}".removeprefix(f"{self.prefix}/")
            self.client.delete_object(Bucket=self.bucket, Key=key)
        else:
            (self.folder / "models" / Path(store).name / ref.digest.path_segment / name).unlink()

    def plant(self, ref: ArtifactRef, statement: dict[str, Any] | bytes, signer: str = "verifier") -> str:
        """Sign a statement and put it into the store; returns the object's name."""
        data = statement if isinstance(statement, bytes) else self.sign(statement, signer)
        return EvidenceStore(ref.evidence, self.storages).put(ref.digest, "summary", data)

    def sign(self, statement: dict[str, Any], signer: str = "verifier") -> bytes:
        return make_bundle(json.dumps(statement).encode(), load_signer(self.key(signer).signer))


def payload(bundle: bytes) -> dict[str, Any]:
    return json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))


def codes(verdict: Verdict) -> set[str]:
    return {finding.code for finding in verdict.findings}


def ago(**delta: float) -> str:
    """A time as summaries write it."""
    when = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**delta)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
