"""Hostile names in object stores, where a key may be any text."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

import sealflow
from sealflow.errors import ArtifactError
from tests.pki import write_key
from tests.servers.s3 import S3Server

HOSTILE = {
    "parent": ["../outside"],
    "parent-inside": ["a/../../outside"],
    "absolute": ["/etc/passwd"],
    "empty-part": ["a//b"],
    "dot": ["./a"],
    "folder-that-holds-bytes": ["a/"],
    "backslash": ["a\\b"],
    "terminal-escape": ["a\x1b[2Jb"],
    "line-feed": ["a\nb"],
    "right-to-left": ["a\u202ebin.exe"],
    "case-collision": ["Model.bin", "model.bin"],
    "unicode-collision": ["\u00e9", "e\u0301"],
    "file-and-folder": ["a", "a/b"],
    "long-part": ["x" * 300],
    "200-levels": ["/".join("a" * 200)],
}


@pytest.mark.parametrize("names", [pytest.param(names, id=name) for name, names in HOSTILE.items()])
def test_hostile_key(s3_server: S3Server, s3_bucket: str, tmp_path: Path, names: list[str]) -> None:
    client = s3_server.client()
    pair = write_key(tmp_path)
    storages = sealflow.Storages(s3_client=client)
    client.put_object(Bucket=s3_bucket, Key="art/good.bin", Body=b"good")
    uri, store = f"s3://{s3_bucket}/art", f"s3://{s3_bucket}/evidence"
    ref = sealflow.sign(uri, signer=pair.signer, evidence_store=store, storages=storages)
    assert sealflow.verify(ref, identities=str(pair.public), storages=storages).passed
    for name in names:
        try:
            client.put_object(Bucket=s3_bucket, Key=f"art/{name}", Body=b"x")
        except ClientError:
            # SeaweedFS takes none of the worst. What it takes must be refused here.
            assert s3_server.kind == "seaweedfs"
    stored = client.list_objects_v2(Bucket=s3_bucket, Prefix="art/")["Contents"]
    listed = {item["Key"] for item in stored if item["Size"]}
    if s3_server.kind == "seaweedfs" and listed == {"art/good.bin"}:
        assert sealflow.verify(ref, identities=str(pair.public), storages=storages).passed
        return
    if not {f"art/{name}" for name in names} <= listed:
        # The server made another name of it; then it is not hostile, but still nobody signed it.
        assert not sealflow.verify(ref, identities=str(pair.public), storages=storages).passed
        return
    with pytest.raises(ArtifactError) as caught:
        sealflow.sign(uri, signer=pair.signer, evidence_store=store, storages=storages)
    assert "\x1b" not in str(caught.value)
    verdict = sealflow.verify(ref, identities=str(pair.public), storages=storages)
    assert verdict.status == "failed"
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == "ARTIFACT_REFUSED"


def test_object_that_is_also_a_folder(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    client = s3_server.client()
    pair = write_key(tmp_path)
    storages = sealflow.Storages(s3_client=client)
    client.put_object(Bucket=s3_bucket, Key="model", Body=b"good")
    uri = f"s3://{s3_bucket}/model"
    ref = sealflow.sign(uri, signer=pair.signer, storages=storages)
    client.put_object(Bucket=s3_bucket, Key="model/evil.py", Body=b"x")
    verdict = sealflow.verify(ref, identities=str(pair.public), storages=storages)
    assert verdict.status == "failed"
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == "ARTIFACT_REFUSED"


def test_object_exchanged_between_listing_and_reading(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    client = s3_server.client()
    pair = write_key(tmp_path)
    client.put_object(Bucket=s3_bucket, Key="art/a", Body=b"good")
    client.put_object(Bucket=s3_bucket, Key="art/b", Body=b"good")
    uri = f"s3://{s3_bucket}/art"
    ref = sealflow.sign(uri, signer=pair.signer, storages=sealflow.Storages(s3_client=client))

    class Racing:
        """Exchanges an object after it was listed."""

        def __getattr__(self, name: str) -> object:
            return getattr(client, name)

        def get_object(self, **arguments: str) -> object:
            if arguments["Key"] == "art/b":
                client.put_object(Bucket=s3_bucket, Key="art/b", Body=b"evil")
            return client.get_object(**arguments)

    verdict = sealflow.verify(ref, identities=str(pair.public), storages=sealflow.Storages(s3_client=Racing()))
    assert verdict.status == "failed"
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == "ARTIFACT_CHANGED"


def test_planted_objects_in_the_store(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    client = s3_server.client()
    pair = write_key(tmp_path)
    storages = sealflow.Storages(s3_client=client)
    client.put_object(Bucket=s3_bucket, Key="art/a", Body=b"good")
    ref = sealflow.sign(f"s3://{s3_bucket}/art", signer=pair.signer, storages=storages)
    folder = f"art.evidence/{ref.digest.path_segment}"
    for name in ("x", "signature-x.json", f"signature-{'0' * 64}.json", "deep/er.json", "\u202e.json"):
        client.put_object(Bucket=s3_bucket, Key=f"{folder}/{name}", Body=b"{}")
    verdict = sealflow.verify(ref, identities=str(pair.public), storages=storages)
    assert verdict.passed, verdict.summary()
