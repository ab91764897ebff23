"""What the stock library signs, ours accepts, even what the stock verifier cannot open, and refuses once it changed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow import StoredEvidence
from tests.conformance.stock import Stock
from tests.conformance.support import check, codes
from tests.pki import CURVES, KeyPair, Pki, write_key
from tests.trees import SHAPES, flip_byte, write_tree

# (hash, shard size); None is one digest a file.
SERIALIZATIONS = {
    "files-sha256": ("sha256", None),
    "files-blake2b": ("blake2", None),
    "files-blake3": ("blake3", None),
    "shards-sha256": ("sha256", 1000),
    "shards-blake2b": ("blake2", 1000),
    # The stock library quietly signs whole files instead.
    "shards-blake3": ("blake3", 1000),
}

#: Files below, at and above multiples of the shard size.
SIZED = {
    f"sub/{size}.bin": bytes(range(256)) * (size // 256) + b"\0" * (size % 256) for size in (1, 999, 1000, 1001, 3500)
}

CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped-byte": (lambda model: flip_byte(model / "sub/3500.bin", 3100), "FILE_CHANGED"),
    "longer": (
        lambda model: (model / "sub/1000.bin").write_bytes((model / "sub/1000.bin").read_bytes() + b"x"),
        "FILE_CHANGED",
    ),
    "shorter": (
        lambda model: (model / "sub/1001.bin").write_bytes((model / "sub/1001.bin").read_bytes()[:-1]),
        "FILE_CHANGED",
    ),
    "added-file": (lambda model: (model / "sub/new.bin").write_bytes(b"x"), "FILE_UNSIGNED"),
    "added-empty-file": (lambda model: (model / "sub/__init__.py").write_bytes(b""), "FILE_UNSIGNED"),
    "removed-file": (lambda model: (model / "sub/1.bin").unlink(), "FILE_MISSING"),
    "renamed-file": (lambda model: (model / "sub/1.bin").rename(model / "sub/2.bin"), "FILE_MISSING"),
}


def stock_signs(
    stock: Stock, model: Path, folder: Path, signer: KeyPair | Pki, serialization: str = "files-sha256"
) -> bytes:
    """Sign with a key or a certificate; returns the bundle."""
    algorithm, shard_size = SERIALIZATIONS[serialization]
    options: dict[str, Any] = {"hash": algorithm, "shard_size": shard_size}
    if isinstance(signer, Pki):
        options |= {"certificate": str(signer.folder / "leaf.pem"), "chain": [str(signer.folder / "intermediate.pem")]}
    return stock.sign(model, folder / "model.sig", signer.private, **options)


def trusted(signer: KeyPair | Pki) -> Any:
    return signer.identity if isinstance(signer, Pki) else str(signer.public)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["key", "certificate"])
@pytest.mark.parametrize("serialization", SERIALIZATIONS)
def test_serializations(stock: Stock, keys: KeyPair, pki: Pki, tmp_path: Path, serialization: str, method: str) -> None:
    signer = keys if method == "key" else pki
    model = write_tree(tmp_path / "model", SIZED)
    bundle = stock_signs(stock, model, tmp_path, signer, serialization)
    verdict = check(model, bundle, trusted(signer))
    assert verdict.passed, verdict.summary()
    with sealflow.verified(
        model,
        evidence=[StoredEvidence("model.sig", bundle)],
        only_given_evidence=True,
        require={"signature"},
        identities=trusted(signer),
    ) as copy:
        assert {path.relative_to(copy).as_posix() for path in Path(copy).rglob("*.bin")} == set(SIZED)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "serialization", ["files-sha256", "files-blake2b", "files-blake3", "shards-sha256", "shards-blake2b"]
)
def test_changes_are_refused(stock: Stock, keys: KeyPair, tmp_path: Path, serialization: str, change: str) -> None:
    model = write_tree(tmp_path / "model", SIZED)
    bundle = stock_signs(stock, model, tmp_path, keys, serialization)
    action, code = CHANGES[change]
    action(model)
    verdict = check(model, bundle, str(keys.public))
    assert verdict.status == "failed"
    assert code in codes(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes(stock: Stock, keys: KeyPair, tmp_path: Path, shape: str) -> None:
    model = write_tree(tmp_path / "model", SHAPES[shape])
    bundle = stock_signs(stock, model, tmp_path, keys)
    verdict = check(model, bundle, str(keys.public))
    assert verdict.passed, verdict.summary()


@pytest.mark.parametrize("curve", CURVES)
def test_curves(stock: Stock, tmp_path: Path, curve: str) -> None:
    keys = write_key(tmp_path, curve=curve)
    other = write_key(tmp_path, "other", curve=curve)
    model = write_tree(tmp_path / "model", SHAPES["plain"])
    bundle = stock_signs(stock, model, tmp_path, keys)
    assert check(model, bundle, str(keys.public)).passed
    assert codes(check(model, bundle, str(other.public))) == {"SIGNER_NOT_ALLOWED"}


def test_single_file(stock: Stock, keys: KeyPair, tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {"model.bin": b"weights"}) / "model.bin"
    bundle = stock_signs(stock, model, tmp_path, keys)
    payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    assert [resource["name"] for resource in payload["predicate"]["resources"]] == ["."]
    assert check(model, bundle, str(keys.public)).passed
    flip_byte(model)
    assert codes(check(model, bundle, str(keys.public))) == {"FILE_CHANGED"}


def test_ignored_paths(stock: Stock, keys: KeyPair, tmp_path: Path) -> None:
    """Nobody vouches for an ignored file: a check in place refuses it, the held copy leaves it out."""
    model = write_tree(tmp_path / "model", {"a": b"1", "notes/todo.txt": b"2"})
    bundle = stock.sign(model, tmp_path / "model.sig", keys.private, ignore=["notes"])
    assert codes(check(model, bundle, str(keys.public))) == {"FILE_IGNORED"}
    with sealflow.verified(
        model,
        evidence=[StoredEvidence("model.sig", bundle)],
        only_given_evidence=True,
        require={"signature"},
        identities=str(keys.public),
    ) as copy:
        assert [path.name for path in Path(copy).rglob("*")] == ["a"]


def test_a_certificate_of_another_root_is_refused(stock: Stock, pki: Pki, tmp_path: Path) -> None:
    from tests.pki import write_pki

    (tmp_path / "other").mkdir()
    other = write_pki(tmp_path / "other")
    model = write_tree(tmp_path / "model", SHAPES["plain"])
    bundle = stock_signs(stock, model, tmp_path, pki)
    assert codes(check(model, bundle, other.identity)) == {"CERTIFICATE_UNTRUSTED"}
