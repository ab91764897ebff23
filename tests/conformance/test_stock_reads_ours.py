"""What we sign, the stock ``verify key`` and ``verify certificate`` accept, and refuse once it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealflow.evidence.bundle import parse_bundle
from tests.conformance.stock import Answer, Stock
from tests.conformance.support import sign_and_export
from tests.pki import CURVES, KeyPair, Pki, write_key
from tests.servers.timestamp_authority import TimestampAuthority
from tests.trees import SHAPES, flip_byte, write_tree


def largest(folder: Path) -> Path:
    """A file with bytes to change."""
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("shape", SHAPES)
def test_tree_under_a_key(stock: Stock, keys: KeyPair, tmp_path: Path, shape: str) -> None:
    model = write_tree(tmp_path / "model", SHAPES[shape])
    signature = sign_and_export(model, keys.signer, tmp_path)
    answer = stock.verify_key(model, signature, keys.public)
    assert answer.accepted, answer.output
    flip_byte(largest(model))
    assert stock.verify_key(model, signature, keys.public).status == 1


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve(stock: Stock, tmp_path: Path, curve: str) -> None:
    keys = write_key(tmp_path, curve=curve)
    other = write_key(tmp_path, "other", curve=curve)
    model = write_tree(tmp_path / "model", SHAPES["nested"])
    signature = sign_and_export(model, keys.signer, tmp_path)
    answer = stock.verify_key(model, signature, keys.public)
    assert answer.accepted, answer.output
    assert stock.verify_key(model, signature, other.public).status == 1


@pytest.mark.parametrize("shape", ["nested", "code-point-order-is-not-part-order", "unicode-names"])
def test_tree_under_a_certificate(stock: Stock, pki: Pki, tmp_path: Path, shape: str) -> None:
    model = write_tree(tmp_path / "model", SHAPES[shape])
    signature = sign_and_export(model, pki.signer, tmp_path)
    answer = stock.verify_certificate(model, signature, pki.root_file)
    assert answer.accepted, answer.output
    flip_byte(largest(model))
    assert stock.verify_certificate(model, signature, pki.root_file).status == 1


def test_added_and_removed_files_are_refused(stock: Stock, keys: KeyPair, tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", SHAPES["nested"])
    signature = sign_and_export(model, keys.signer, tmp_path)
    (model / "added").write_bytes(b"")
    assert stock.verify_key(model, signature, keys.public).status == 1
    (model / "added").unlink()
    assert stock.verify_key(model, signature, keys.public).accepted
    (model / "top.txt").unlink()
    assert stock.verify_key(model, signature, keys.public).status == 1


def test_ignored_paths_are_taken_from_the_signature(stock: Stock, keys: KeyPair, tmp_path: Path) -> None:
    model = write_tree(tmp_path / "model", {"a": b"1", "notes/todo.txt": b"2", ".git/HEAD": b"3"})
    signature = sign_and_export(model, keys.signer, tmp_path, ignore=["notes", ".git"])
    answer = stock.verify_key(model, signature, keys.public)
    assert answer.accepted, answer.output
    (model / "other").write_bytes(b"")
    assert stock.verify_key(model, signature, keys.public).status == 1


class TestSingleFile:
    """The specification demands the basename; the stock tool records and looks for ``.``."""

    def test_given_the_file_the_stock_tool_looks_for_another_name(
        self, stock: Stock, keys: KeyPair, tmp_path: Path
    ) -> None:
        write_tree(tmp_path / "model", {"model.bin": b"weights"})
        signature = sign_and_export(tmp_path / "model" / "model.bin", keys.signer, tmp_path)
        answer = stock.verify_key(tmp_path / "model" / "model.bin", signature, keys.public)
        assert answer.status == 1
        assert "Extra files found" in answer.output, answer.output

    def test_given_a_folder_with_only_that_file_it_accepts(self, stock: Stock, keys: KeyPair, tmp_path: Path) -> None:
        write_tree(tmp_path / "model", {"model.bin": b"weights"})
        signature = sign_and_export(tmp_path / "model" / "model.bin", keys.signer, tmp_path)
        answer = stock.verify_key(tmp_path / "model", signature, keys.public)
        assert answer.accepted, answer.output
        flip_byte(tmp_path / "model" / "model.bin")
        assert stock.verify_key(tmp_path / "model", signature, keys.public).status == 1


@pytest.mark.parametrize("by", ["key", "certificate"])
def test_a_stamped_signature(stock: Stock, keys: KeyPair, pki: Pki, tmp_path: Path, by: str) -> None:
    """A token of a timestamp authority lies where Sigstore's bundle has a place for it."""
    model = write_tree(tmp_path / "model", SHAPES["nested"])
    with TimestampAuthority(tmp_path / "authority").serving() as authority:
        signer = keys.signer if by == "key" else pki.signer
        signature = sign_and_export(model, signer, tmp_path, timestamp=authority.url)
    assert len(parse_bundle(signature.read_bytes()).timestamps) == 1

    def answer() -> Answer:
        if by == "key":
            return stock.verify_key(model, signature, keys.public)
        return stock.verify_certificate(model, signature, pki.root_file)

    assert answer().accepted, answer().output
    flip_byte(largest(model))
    assert answer().status == 1
