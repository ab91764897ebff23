"""What past releases of the stock tool signed, ours accepts: each is installed and signs here and now.

A registry is needed to install them. Without one a loud line says so, or the tests fail under
SEALFLOW_REQUIRE_ORACLES=1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance import stock as stock_tool
from tests.conformance.support import check, codes
from tests.pki import KeyPair, Pki
from tests.trees import SHAPES, flip_byte, write_tree

# Up to 1.0.1 they need sigstore 3, which needs an older cryptography. None declares pyopenssl.
_OLD = ["sigstore<4", "cryptography<45", "pyopenssl<26"]
RELEASES = {"0.2.0": _OLD, "0.3.1": _OLD, "1.0.0": _OLD, "1.0.1": _OLD, "1.1.0": ["pyopenssl"], "1.1.1": ["pyopenssl"]}
LEGACY = "0.2.0"

# In one worker, so that each is installed once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("past-releases")]


@pytest.fixture(scope="module", params=RELEASES)
def past_release(
    request: pytest.FixtureRequest, oracle_environment: Callable[[str, list[str], str], Path]
) -> Iterator[tuple[str, stock_tool.Stock]]:
    """A release and the running tool."""
    release = request.param
    packages = [f"model-signing=={release}", *RELEASES[release]]
    programs = oracle_environment("release", packages, "bundles of a past release not checked")
    with stock_tool.running(programs / "python") as running:
        yield release, running


def sign(tool: stock_tool.Stock, model: Path, folder: Path, signer: KeyPair | Pki) -> bytes:
    options = {}
    if isinstance(signer, Pki):
        options = {"certificate": str(signer.folder / "leaf.pem"), "chain": [str(signer.folder / "intermediate.pem")]}
    return tool.sign(model, folder / "model.sig", signer.private, **options)


@pytest.mark.parametrize("method", ["key", "certificate"])
@pytest.mark.parametrize("shape", ["nested", "unicode-names", "code-point-order-is-not-part-order", "empty-files"])
def test_tree(
    past_release: tuple[str, stock_tool.Stock], keys: KeyPair, pki: Pki, tmp_path: Path, shape: str, method: str
) -> None:
    release, tool = past_release
    signer, trusted = (keys, str(keys.public)) if method == "key" else (pki, pki.identity)
    model = write_tree(tmp_path / "model", SHAPES[shape])
    if (release, method) == ("0.3.1", "certificate"):
        # That release could never do it; bundles of its form were made from its source tree only.
        with pytest.raises(AssertionError, match="raw_byutes"):
            sign(tool, model, tmp_path, signer)
        return
    bundle = sign(tool, model, tmp_path, signer)
    plain = check(model, bundle, trusted)
    if release == LEGACY:
        assert codes(plain) == {"SIGNATURE_LEGACY"}
        assert check(model, bundle, trusted, accept_legacy=True).passed
    else:
        assert plain.passed, plain.summary()
    flip_byte(max(model.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size))
    assert codes(check(model, bundle, trusted, accept_legacy=True)) == {"FILE_CHANGED"}


def test_single_file(past_release: tuple[str, stock_tool.Stock], keys: KeyPair, tmp_path: Path) -> None:
    release, tool = past_release
    model = write_tree(tmp_path, {"model.bin": b"weights"}) / "model.bin"
    bundle = sign(tool, model, tmp_path, keys)
    assert check(model, bundle, str(keys.public), accept_legacy=release == LEGACY).passed
    flip_byte(model)
    assert codes(check(model, bundle, str(keys.public), accept_legacy=True)) == {"FILE_CHANGED"}


def test_the_forms_are_the_ones_that_the_specification_lists(
    past_release: tuple[str, stock_tool.Stock], keys: KeyPair, tmp_path: Path
) -> None:
    """Otherwise the tests above would accept today's form six times."""
    release, tool = past_release
    model = write_tree(tmp_path / "model", SHAPES["plain"])
    bundle = json.loads(sign(tool, model, tmp_path, keys))
    material = bundle["verificationMaterial"]
    assert ("rawBytes" in material["publicKey"]) == (release < "1.1")
    assert ("hint" in material["publicKey"]) == (release >= "1.1")
    assert ("tlogEntries" in material) == (release >= "1.1")
