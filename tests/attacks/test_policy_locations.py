"""No spelling of a location leads around the rules for the place, and no folder around those for what lies in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.errors import SealflowError, UsageError
from sealflow.storage import Storages
from tests.core.policy.deployment import SCORE, Deployment, code, policy, rule
from tests.servers.s3 import S3Server

pytest_plugins = ["tests.core.policy.fixtures"]


@pytest.fixture
def protected(deployment: Deployment) -> Deployment:
    """Everything below ``models`` must come from the trainer; what lies there comes from a stranger."""
    deployment.publish(policy([rule("models", f"{deployment.folder}/models/**")], deployment.identities("trainer")))
    deployment.sign(deployment.model(), "stranger")
    (deployment.folder / "other").mkdir()
    return deployment


def _linked(folder: Path) -> str:
    (folder / "other" / "link").symlink_to(folder / "models")
    return f"{folder}/other/link/m.bin"


def _doubly_linked(folder: Path) -> str:
    (folder / "other" / "one").symlink_to(folder / "other" / "two")
    (folder / "other" / "two").symlink_to("../models")
    return f"{folder}/other/one/m.bin"


LOCAL: dict[str, Callable[[Path], str]] = {
    "path": lambda folder: f"{folder}/models/m.bin",
    "uri": lambda folder: f"file://{folder}/models/m.bin",
    "uri-one-slash": lambda folder: f"file:{folder}/models/m.bin",
    "uri-localhost": lambda folder: f"file://localhost{folder}/models/m.bin",
    "double-slash": lambda folder: f"{folder}//models//m.bin",
    "leading-double-slash": lambda folder: f"/{folder}/models/m.bin",
    "dot": lambda folder: f"{folder}/./models/./m.bin",
    "dot-dot": lambda folder: f"{folder}/other/../models/m.bin",
    "dot-dot-through-nothing": lambda folder: f"{folder}/nowhere/../models/m.bin",
    "percent-letter": lambda folder: f"file://{folder}/%6dodels/m.bin",
    "percent-slash": lambda folder: f"file://{folder}/models%2Fm.bin",
    "percent-dot-dot": lambda folder: f"file://{folder}/other/%2e%2e/models/m.bin",
    "trailing-slash": lambda folder: f"{folder}/models/m.bin/",
    "relative": lambda folder: os.path.relpath(folder / "models" / "m.bin"),
    "linked-folder": _linked,
    "linked-folder-twice": _doubly_linked,
    "through-proc-root": lambda folder: f"/proc/self/root{folder}/models/m.bin",
    "through-a-descriptor": lambda folder: f"/proc/self/fd/{os.open(folder, os.O_RDONLY)}/models/m.bin",
}


@pytest.mark.parametrize("spelling", LOCAL)
def test_local_spellings(protected: Deployment, spelling: str) -> None:
    target = LOCAL[spelling](protected.folder)
    verdict = protected.verify(target, identities=str(protected.key("stranger").public))
    assert not verdict.passed, verdict.as_dict()
    assert code(verdict) == "SIGNER_NOT_ALLOWED", verdict.as_dict()
    assert verdict.rules == ("models",)


@pytest.mark.parametrize("spelling", ["FILE:{}/models/m.bin", "File://{}/models/m.bin", "local://{}/models/m.bin"])
def test_local_spellings_that_are_refused(protected: Deployment, spelling: str) -> None:
    identities = str(protected.key("stranger").public)
    try:
        verdict = protected.verify(spelling.format(protected.folder), identities=identities)
    except SealflowError:
        return
    assert not verdict.passed


PATTERNS = {
    "path": "{}/models/**",
    "uri": "file://{}/models/**",
    "uri-localhost": "file://localhost{}/models/**",
    "uri-one-slash": "file:{}/models/**",
    "upper-case-scheme": "FILE://{}/models/**",
    "percent-in-a-uri": "file://{}/%6dodels/**",
    "file-itself": "{}/models/m.bin",
    "star": "{}/*/m.bin",
    "everything": "**",
    "any-scheme": "*://{}/models/**",
    "suffix": "**/m.bin",
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_in_any_spelling_holds(deployment: Deployment, pattern: str) -> None:
    text = PATTERNS[pattern].format(deployment.folder)
    deployment.publish(policy([rule("models", text)], deployment.identities("trainer")))
    path = deployment.model()
    deployment.sign(path, "stranger")
    verdict = deployment.verify(path, identities=str(deployment.key("stranger").public))
    assert code(verdict) == "SIGNER_NOT_ALLOWED"


@pytest.mark.parametrize("pattern", ["{}/m odels/ü*", "file://{}/m odels/ü*", "file://{}/m%20odels/%C3%BC*"])
def test_unusual_characters_in_a_pattern(deployment: Deployment, pattern: str) -> None:
    path = deployment.model("m odels/über.bin")
    deployment.publish(policy([rule("models", pattern.format(deployment.folder))], deployment.identities("trainer")))
    deployment.sign(path, "stranger")
    verdict = deployment.verify(path, identities=str(deployment.key("stranger").public))
    assert code(verdict) == "SIGNER_NOT_ALLOWED"


class TestFolders:
    """Who opens a folder opens what lies in it."""

    def world(self, deployment: Deployment, pattern: str) -> Path:
        deployment.publish(policy([rule("prod", f"{deployment.folder}/{pattern}")], deployment.identities("trainer")))
        deployment.model("data/models/prod/m.bin")
        deployment.model("data/models/dev/d.bin")
        return deployment.folder / "data"

    @pytest.mark.parametrize(
        "pattern",
        [
            "data/models/prod/**",
            "data/models/prod/m.bin",
            "data/models/*/m.bin",
            "data/*/prod/**",
            "data/models/pr*/**",
        ],
    )
    @pytest.mark.parametrize("folder", ["models/prod", "models", "."])
    def test_a_folder_above_the_managed_place(self, deployment: Deployment, pattern: str, folder: str) -> None:
        data = self.world(deployment, pattern)
        opened = data / folder
        store = str(deployment.folder / "evidence")
        deployment.sign(opened, "stranger", evidence_store=store)
        options: Any = {"identities": str(deployment.key("stranger").public), "evidence_store": store}
        assert code(deployment.verify(opened, **options)) == "SIGNER_NOT_ALLOWED"
        name = os.path.relpath(data / "models/prod/m.bin", opened)
        verdict = deployment.verify(opened, files=[name], **options)
        assert not verdict.passed
        assert verdict.rules == ("prod",)

    def test_files_beside_the_managed_place_are_free(self, deployment: Deployment) -> None:
        data = self.world(deployment, "data/models/prod/**")
        store = str(deployment.folder / "evidence")
        deployment.sign(data, "stranger", evidence_store=store)
        options: Any = {"identities": str(deployment.key("stranger").public), "evidence_store": store}
        verdict = deployment.verify(data, files=["models/dev/d.bin"], **options)
        assert verdict.passed, verdict.as_dict()
        assert verdict.rules == ()

    def test_a_pattern_by_suffix_meets_the_files_that_are_asked_for(self, deployment: Deployment) -> None:
        data = self.world(deployment, "**/m.bin")
        store = str(deployment.folder / "evidence")
        deployment.sign(data, "stranger", evidence_store=store)
        options: Any = {"identities": str(deployment.key("stranger").public), "evidence_store": store}
        verdict = deployment.verify(data, files=["models/prod/m.bin"], **options)
        assert not verdict.passed
        assert verdict.rules == ("prod",)
        assert deployment.verify(data, files=["models/dev/d.bin"], **options).passed

    @pytest.mark.parametrize(
        "pattern", ["**/m.bin", "data/**/m.bin", "data/**/*", "**.bin", "data/**/prod/*", "**/pr*/**"]
    )
    @pytest.mark.parametrize("folder", ["models/prod", "models", "."])
    def test_a_pattern_by_suffix_meets_the_folder_that_holds_such_a_file(
        self, deployment: Deployment, pattern: str, folder: str
    ) -> None:
        opened = self.world(deployment, pattern) / folder
        store = str(deployment.folder / "evidence")
        deployment.sign(opened, "stranger", evidence_store=store)
        options: Any = {"identities": str(deployment.key("stranger").public), "evidence_store": store}
        verdict = deployment.verify(opened, **options)
        assert (verdict.passed, verdict.rules) == (False, ("prod",)), verdict.as_dict()
        around = sealflow.Surroundings(SCORE, admin=deployment.channel())
        with (
            sealflow.run(around),
            pytest.raises(sealflow.VerificationError),
            sealflow.verified(str(opened), **options),
        ):
            pass
        # The trainer's word is what the rule asks for, and nothing else changes.
        deployment.sign(opened, "trainer", evidence_store=store)
        assert deployment.verify(opened, evidence_store=store).passed

    @pytest.mark.parametrize("pattern", ["**/m.bin", "data/**/m.bin", "data/**/dev/*.onnx", "elsewhere/**/d.bin"])
    def test_a_pattern_by_suffix_leaves_other_folders_alone(self, deployment: Deployment, pattern: str) -> None:
        opened = self.world(deployment, pattern) / "models/dev"
        deployment.sign(opened, "stranger")
        verdict = deployment.verify(opened, identities=str(deployment.key("stranger").public))
        assert (verdict.passed, verdict.rules) == (True, ())

    def test_a_file_by_suffix_for_which_no_rule_holds_in_this_task(self, deployment: Deployment) -> None:
        deployment.publish(policy([rule("prod", f"{deployment.folder}/**/m.bin", dag=["other"])],
                                  deployment.identities("trainer")))  # fmt: skip
        opened = deployment.model("data/models/m.bin").parent
        deployment.sign(opened, "trainer")
        verdict = deployment.verify(opened, identities=str(deployment.key("trainer").public))
        assert code(verdict) == "POLICY_NO_RULE"

    def test_a_call_that_sets_what_such_a_rule_locks(self, deployment: Deployment) -> None:
        deployment.publish(policy([rule("prod", f"{deployment.folder}/**/m.bin", locked=["identities"])],
                                  deployment.identities("trainer")))  # fmt: skip
        opened = deployment.model("data/models/m.bin").parent
        deployment.sign(opened, "trainer")
        assert deployment.verify(opened).passed
        with pytest.raises(SealflowError) as caught:
            deployment.verify(opened, identities=str(deployment.key("trainer").public))
        assert caught.value.code == "POLICY_LOCKED"

    def test_while_the_policy_is_not_to_be_had(self, deployment: Deployment) -> None:
        data = self.world(deployment, "data/models/prod/**")
        deployment.place.unlink()
        channel = deployment.channel(managed=[f"{deployment.folder}/data/models/prod/**"])
        identities = str(deployment.key("stranger").public)
        for opened in (data, data / "models", data / "models/prod", data / "models/prod/m.bin"):
            verdict = deployment.verify(opened, channel=channel, identities=identities)
            assert (verdict.status, code(verdict)) == ("unverifiable", "POLICY_UNAVAILABLE")
        verdict = deployment.verify(data / "models/dev", channel=channel, identities=identities)
        assert code(verdict) == "EVIDENCE_MISSING"


class TestOtherKindsOfRuleByAlias:
    """An alias to which a laxer rule applies takes nothing from the rules for the real place."""

    @pytest.mark.parametrize("level", ["off", "audit", "enforce"])
    def test_a_gap_at_the_real_place(self, deployment: Deployment, level: str) -> None:
        path = deployment.model("prod/m.bin")
        (deployment.folder / "lab").mkdir()
        (deployment.folder / "lab" / "link").symlink_to(deployment.folder / "prod")
        rules = [
            rule("prod", f"{deployment.folder}/prod/**", dag=["release"]),
            rule("lab", f"{deployment.folder}/lab/**", ["stranger"], level=level),
        ]
        deployment.publish(policy(rules, deployment.identities("trainer", "stranger")))
        deployment.sign(path, "stranger")
        identities = str(deployment.key("stranger").public)
        assert code(deployment.verify(path, identities=identities)) == "POLICY_NO_RULE"
        alias = deployment.folder / "lab" / "link" / "m.bin"
        store = f"{path}.evidence"
        assert code(deployment.verify(alias, identities=identities, evidence_store=store)) == "POLICY_NO_RULE"

    def test_a_gap_that_only_the_listing_of_the_real_place_shows(self, deployment: Deployment) -> None:
        opened = deployment.model("prod/models/m.bin").parent
        (deployment.folder / "lab").mkdir()
        (deployment.folder / "lab" / "link").symlink_to(deployment.folder / "prod")
        rules = [
            rule("prod", f"{deployment.folder}/prod/**/m.bin", dag=["release"]),
            rule("lab", f"{deployment.folder}/lab/**", ["stranger"]),
        ]
        deployment.publish(policy(rules, deployment.identities("trainer", "stranger")))
        deployment.sign(opened, "stranger")
        alias, store = deployment.folder / "lab" / "link" / "models", f"{opened}.evidence"
        assert code(deployment.verify(alias, evidence_store=store)) == "POLICY_NO_RULE"

    def test_both_rules_hold(self, deployment: Deployment) -> None:
        path = deployment.model("prod/m.bin")
        (deployment.folder / "lab").symlink_to(deployment.folder / "prod")
        rules = [
            rule("prod", f"{deployment.folder}/prod/**"),
            rule("lab", f"{deployment.folder}/lab/**", ["trainer", "stranger"], level="off"),
        ]
        deployment.publish(policy(rules, deployment.identities("trainer", "stranger")))
        deployment.sign(path, "stranger")
        store = f"{path}.evidence"
        verdict = deployment.verify(deployment.folder / "lab" / "m.bin", evidence_store=store)
        assert code(verdict) == "SIGNER_NOT_ALLOWED"

    def test_a_waiver_for_the_alias(self, deployment: Deployment) -> None:
        path = deployment.model("data/prod/m.bin")
        (deployment.folder / "data" / "lab").mkdir()
        (deployment.folder / "data" / "lab" / "link").symlink_to(deployment.folder / "data" / "prod")
        deployment.model("data/lab/own.bin")
        deployment.publish(policy([rule("all", f"{deployment.folder}/data/**")], deployment.identities("trainer")))
        deployment.waive(deployment.waiver("all", artifact=f"{deployment.folder}/data/lab/**"))
        assert deployment.verify(deployment.folder / "data/lab/own.bin").passed
        assert code(deployment.verify(path)) == "EVIDENCE_MISSING"
        assert code(deployment.verify(deployment.folder / "data/lab/link/m.bin")) == "EVIDENCE_MISSING"
        # Nor for a folder that holds more than what was waived, nor for a part of it.
        (deployment.folder / "data" / "lab" / "link").unlink()
        assert code(deployment.verify(deployment.folder / "data")) == "EVIDENCE_MISSING"
        assert code(deployment.verify(deployment.folder / "data", files=["prod/m.bin"])) == "EVIDENCE_MISSING"


# --- Object stores ---

S3_SPELLINGS = {
    "plain": "s3://{}/models/m.bin",
    "s3a": "s3a://{}/models/m.bin",
    "s3n": "s3n://{}/models/m.bin",
    "minio": "minio://{}/models/m.bin",
    "upper-case-scheme": "S3://{}/models/m.bin",
    "upper-case-minio": "MinIO://{}/models/m.bin",
}


@pytest.mark.server
class TestS3:
    @pytest.fixture
    def storages(self, s3_server: S3Server) -> Storages:
        return Storages(s3_client=s3_server.client())

    @pytest.fixture
    def bucket(self, deployment: Deployment, s3_server: S3Server, s3_bucket: str) -> str:
        s3_server.client().put_object(Bucket=s3_bucket, Key="models/m.bin", Body=b"weights")
        s3_server.client().put_object(Bucket=s3_bucket, Key="free/f.bin", Body=b"free")
        deployment.publish(policy([rule("models", f"s3://{s3_bucket}/models/**")], deployment.identities("trainer")))
        return s3_bucket

    def check(self, deployment: Deployment, storages: Storages, uri: str, **options: Any) -> tuple[str, ...]:
        """Let a stranger sign, and ask for the stranger; return the rules that refused."""
        store = str(deployment.folder / "evidence")
        with sealflow.run(sealflow.Surroundings(SCORE)):
            sealflow.sign(uri, signer=deployment.key("stranger").signer, evidence_store=store, storages=storages)
        identities = str(deployment.key("stranger").public)
        verdict = deployment.verify(uri, storages=storages, evidence_store=store, identities=identities, **options)
        assert verdict.passed is not bool(verdict.rules), verdict.as_dict()
        return verdict.rules

    @pytest.mark.parametrize("spelling", S3_SPELLINGS)
    def test_spellings(self, deployment: Deployment, storages: Storages, bucket: str, spelling: str) -> None:
        uri = S3_SPELLINGS[spelling].format(bucket)
        assert self.check(deployment, storages, uri) == ("models",)

    @pytest.mark.parametrize(
        "key", ["models//m.bin", "free/../models/m.bin", "./models/m.bin", "models%2Fm.bin", "%6dodels/m.bin"]
    )
    def test_keys_that_some_stores_read_otherwise(
        self, deployment: Deployment, storages: Storages, bucket: str, key: str, s3_server: S3Server
    ) -> None:
        """To this store they may be other objects; whoever reads them otherwise must find the same rule."""
        identities = str(deployment.key("stranger").public)
        verdict = deployment.verify(f"s3://{bucket}/{key}", storages=storages, identities=identities)
        assert not verdict.passed
        assert verdict.rules == ("models",)

    @pytest.mark.parametrize("folder", ["", "/", "/models", "/models/"])
    def test_folders(self, deployment: Deployment, storages: Storages, bucket: str, folder: str) -> None:
        assert self.check(deployment, storages, f"s3://{bucket}{folder}") == ("models",)

    def test_a_part_of_the_bucket(self, deployment: Deployment, storages: Storages, bucket: str) -> None:
        uri = f"s3://{bucket}"
        assert self.check(deployment, storages, uri, files=["models/m.bin"]) == ("models",)
        assert self.check(deployment, storages, uri, files=["free/f.bin"]) == ()


@pytest.mark.parametrize("bucket", ["models-abcdefg1234567-s3alias", "models-abcdefg1234567--ol-s3"])
@pytest.mark.parametrize("scheme", ["s3", "s3a", "minio"])
def test_access_points_are_refused(deployment: Deployment, scheme: str, bucket: str) -> None:
    deployment.publish(policy([rule("models", "s3://models/**")], deployment.identities("trainer")))
    with pytest.raises(UsageError, match="access point"):
        deployment.verify(f"{scheme}://{bucket}/m.bin", identities=str(deployment.key("stranger").public))


@pytest.mark.parametrize("uri", ["s3://arn:aws:s3:eu-west-1:1:accesspoint/x/m.bin", "arn:aws:s3:::models/m.bin"])
def test_arns_are_refused(deployment: Deployment, uri: str) -> None:
    deployment.publish(policy([rule("models", "s3://models/**")], deployment.identities("trainer")))
    with pytest.raises(UsageError):
        deployment.verify(uri, identities=str(deployment.key("stranger").public))


def test_the_bucket_itself(deployment: Deployment) -> None:
    """A rule about the bucket, without a slash, meets it in each of its spellings."""
    from sealflow.actions.policies import policies_for
    from sealflow.policy.compose import Arguments

    deployment.publish(policy([rule("root", ["s3://models", "gs://models"])], deployment.identities("trainer")))
    for uri in ("s3://models", "s3://models/", "S3://models//", "gs://models", "gcs://models/", "GS://models"):
        canonical = Storages().for_uri(uri).canonical(uri)
        surroundings = sealflow.Surroundings(SCORE, admin=deployment.channel())
        assert policies_for(canonical, surroundings).ruling(Arguments()).managed, uri
