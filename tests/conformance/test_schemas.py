"""Every bundle that we write passes the published JSON schemas of OMS v1.0."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.oms import make_oms_statement
from sealflow.keys import load_signer
from sealflow.manifest import Serialization, build_manifest
from sealflow.storage import Storages
from tests.conformance.support import sign_and_export
from tests.pki import KeyPair, Pki
from tests.trees import SHAPES, write_tree


@pytest.fixture(scope="session")
def validators(vectors_dir: Path) -> dict[str, Draft202012Validator]:
    schemas = {
        path.name.partition(".")[0]: json.loads(path.read_text())
        for path in (vectors_dir / "oms" / "schemas" / "v1.0").glob("*.json")
    }
    registry = Registry().with_resources((body["$id"], Resource.from_contents(body)) for body in schemas.values())
    return {name: Draft202012Validator(body, registry=registry) for name, body in schemas.items()}


def errors(validators: dict[str, Draft202012Validator], bundle: dict[str, Any]) -> list[str]:
    """What the four schemas object to."""
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    parts = {
        "bundle": bundle,
        "envelope": bundle["dsseEnvelope"],
        "statement": statement,
        "predicate": statement["predicate"],
    }
    assert parts.keys() == validators.keys()
    return [f"{name}: {error.message}" for name, part in parts.items() for error in validators[name].iter_errors(part)]


@pytest.mark.parametrize("method", ["key", "certificate"])
@pytest.mark.parametrize("shape", SHAPES)
def test_trees(
    validators: dict[str, Draft202012Validator], keys: KeyPair, pki: Pki, tmp_path: Path, shape: str, method: str
) -> None:
    model = write_tree(tmp_path / "model", SHAPES[shape])
    signature = sign_and_export(model, (keys if method == "key" else pki).signer, tmp_path)
    assert errors(validators, json.loads(signature.read_bytes())) == []


@pytest.mark.parametrize("method", ["key", "certificate"])
def test_single_file(
    validators: dict[str, Draft202012Validator], keys: KeyPair, pki: Pki, tmp_path: Path, method: str
) -> None:
    write_tree(tmp_path, {"model.bin": b"weights"})
    signature = sign_and_export(tmp_path / "model.bin", (keys if method == "key" else pki).signer, tmp_path)
    assert errors(validators, json.loads(signature.read_bytes())) == []


def test_ignored_paths(validators: dict[str, Draft202012Validator], keys: KeyPair, tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {"a": b"1", "notes/todo": b"2", ".git/HEAD": b"3"})
    signature = sign_and_export(model, keys.signer, tmp_path, ignore=["notes", ".git"])
    bundle = json.loads(signature.read_bytes())
    assert errors(validators, bundle) == []
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["predicate"]["serialization"]["ignore_paths"] == [".git", "notes"]


@pytest.mark.parametrize("hash_type", ["sha256", "blake2b", "blake3"])
@pytest.mark.parametrize("shard_size", [0, 1000])
def test_serializations_that_only_the_library_writes(
    validators: dict[str, Draft202012Validator], keys: KeyPair, tmp_path: Path, hash_type: str, shard_size: int
) -> None:
    storages = Storages()
    model = write_tree(tmp_path / "model", {"a:b": b"x" * 2500, "c/d": b"y"})
    storage = storages.for_uri(str(model))
    location = storage.locate(str(model))
    assert location is not None
    method = Serialization("shards" if shard_size else "files", hash_type, shard_size)
    manifest = build_manifest(storage, location, serialization=method)
    bundle = make_bundle(make_oms_statement(manifest), load_signer(keys.signer))
    assert errors(validators, json.loads(bundle)) == []


def test_the_schemas_can_refuse(validators: dict[str, Draft202012Validator], keys: KeyPair, tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", SHAPES["plain"])
    bundle = json.loads(sign_and_export(model, keys.signer, tmp_path).read_bytes())
    bundle["dsseEnvelope"]["signatures"][0]["extra"] = 1
    bundle["extra"] = 1
    assert {line.partition(":")[0] for line in errors(validators, bundle)} == {"bundle", "envelope"}
