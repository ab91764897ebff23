"""Recovery with nothing of ours: the official SDK opens what an upload wrote, tar unpacks it, the stock tool verifies.

The oracles: aws-encryption-sdk with its Material Providers Library, aws-encryption-cli, GNU tar, model_signing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.upload import upload_artifact
from sealflow.encryption import parse_header
from tests.conformance.stock import Stock
from tests.conftest import ROOT
from tests.core.encryption.messages import RSA_PEM, RSA_PUBLIC_PEM, parts
from tests.core.transfer.world import read_tree, shaped, write_tree
from tests.pki import KeyPair, write_key
from tests.servers.s3 import moto_server

# The SDK takes seconds to import.
pytestmark = [pytest.mark.slow, pytest.mark.oracle]

pytest_plugins = ["tests.conformance.test_encryption_sdk"]

TREES: dict[str, dict[str, bytes]] = {
    "one": {"a.bin": b"weights"},
    "empty-file": {"a.bin": b""},
    "nested": {"a.bin": os.urandom(3000), "run.sh": b"#!/bin/sh\n", "sub/-rf": b"x", "sub/ü/日本.bin": b"y" * 513},
    "long-names": {f"{'d' * 200}/{'n' * 255}": b"long", "b" * 100: b"hundred", "c" * 101: b"more"},
    "many": {f"part-{number:04}": bytes([number % 256]) * number for number in range(300)},
}


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path, "trainer")


@pytest.fixture
def recipients(tmp_path: Path) -> dict[str, str]:
    """Three keys, each of which opens all."""
    (tmp_path / "rsa.pub").write_bytes(RSA_PUBLIC_PEM)
    (tmp_path / "aes.key").write_bytes(bytes([7]) * 32)
    return {"rsa": f"rsa:{tmp_path / 'rsa.pub'}", "aes": f"aes:{tmp_path / 'aes.key'}"}


def uploaded(source: Path, key: KeyPair, recipients: Any, target: Path) -> bytes:
    upload_artifact(source, str(target), recipients=list(recipients), signer=key.signer)
    return target.read_bytes()


def unpacked(plaintext: bytes, folder: Path) -> Path:
    """Unpack with stock tar; return the folder."""
    folder.mkdir()
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["tar", "-xf", "-", "-C", folder], input=plaintext, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    return folder


def keyring(sdk: Any, message: bytes, kind: str) -> Any:
    """Make a keyring from what stands in clear in the object."""
    from tests.conformance.test_encryption_sdk import aes_keyring, rsa_keyring

    for wrapped in parse_header(message).data_keys:
        symmetric = len(wrapped.ciphertext) == 48
        if symmetric is (kind == "aes"):
            return (aes_keyring if symmetric else rsa_keyring)(sdk, wrapped.name)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["rsa", "aes"])
@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("frame", [512, 4096, 1 << 18], ids=str)
def test_trees(
    sdk: Any, stock: Stock, tmp_path: Path, key: KeyPair, recipients: dict[str, str], kind: str, tree: str, frame: int
) -> None:
    source = write_tree(tmp_path / "in" / "model", TREES[tree])
    with shaped(frame, 3):
        message = uploaded(source, key, recipients.values(), tmp_path / "model.sealed")
    plaintext, header = sdk.client.decrypt(source=message, keyring=keyring(sdk, message, kind))
    assert header.encryption_context["sealflow-artifact"] == "model.sealed"
    found = unpacked(plaintext, tmp_path / "out")
    assert sorted(os.listdir(found)) == [".sealflow", "model"]
    assert read_tree(found / "model") == TREES[tree]
    for path in (found / "model").rglob("*"):
        if path.is_file():
            assert bool(path.stat().st_mode & 0o111) is path.name.endswith(".sh")
    signature = found / ".sealflow" / "signature.json"
    assert stock.verify_key(found / "model", signature, key.public).accepted
    altered = found / "model" / sorted(TREES[tree])[0]
    altered.write_bytes(altered.read_bytes() + b"x")
    assert not stock.verify_key(found / "model", signature, key.public).accepted


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4095, 4096, 4097, 300_000], ids=str)
def test_files(sdk: Any, stock: Stock, tmp_path: Path, key: KeyPair, recipients: dict[str, str], size: int) -> None:
    source = tmp_path / "in" / "model.bin"
    source.parent.mkdir()
    source.write_bytes(os.urandom(size))
    with shaped(4096, 2):
        message = uploaded(source, key, recipients.values(), tmp_path / "model.sealed")
    for kind in recipients:
        plaintext, _ = sdk.client.decrypt(source=message, keyring=keyring(sdk, message, kind))
        found = unpacked(plaintext, tmp_path / f"out-{kind}")
        assert (found / "model.bin").read_bytes() == source.read_bytes()
        # It verifies folders only, and signatures at their root unless they are told to be left out.
        ours = found / ".sealflow"
        assert stock.verify_key(found, ours / "signature.json", key.public, "--ignore-paths", str(ours)).accepted


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_last_frame_that_is_full_or_nearly(
    sdk: Any, tmp_path: Path, key: KeyPair, recipients: dict[str, str], more: int
) -> None:
    """The plaintext as long as one frame, or as two, a byte less or more."""
    source = write_tree(tmp_path / "in" / "model", TREES["one"])
    length = 0
    while not length:
        with shaped(1 << 20, 1):
            message = uploaded(source, key, recipients.values(), tmp_path / "first")
        length = len(sdk.client.decrypt(source=message, keyring=keyring(sdk, message, "aes"))[0])
    for number, frame in enumerate((length + more, length // 2 + more)):
        with shaped(frame, 1):
            message = uploaded(source, key, recipients.values(), tmp_path / f"second-{number}")
        plaintext, _ = sdk.client.decrypt(source=message, keyring=keyring(sdk, message, "aes"))
        found = unpacked(plaintext, tmp_path / f"out-{number}")
        assert read_tree(found / "model") == TREES["one"]


def test_many_frames(sdk: Any, tmp_path: Path, key: KeyPair, recipients: dict[str, str]) -> None:
    """As an upload cuts it by itself, in frames of 256 KiB and parts of 8 MiB."""
    source = write_tree(tmp_path / "in" / "model", {"a": os.urandom(20 << 20), "b": os.urandom(1 << 18)})
    message = uploaded(source, key, recipients.values(), tmp_path / "model.sealed")
    assert len(parts(message)[1]) > 80
    plaintext, _ = sdk.client.decrypt(source=message, keyring=keyring(sdk, message, "rsa"))
    assert read_tree(unpacked(plaintext, tmp_path / "out") / "model") == read_tree(source)


def test_keys_in_kms(sdk: Any, kms: Any, stock: Stock, tmp_path: Path, key: KeyPair, recipients: Any) -> None:
    arns = [kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
    source = write_tree(tmp_path / "in" / "model", TREES["nested"])
    for number, order in enumerate(
        ([f"awskms:{arn}" for arn in arns], [recipients["aes"], *(f"awskms:{arn}" for arn in arns)])
    ):
        message = uploaded(source, key, order, tmp_path / f"{number}.sealed")
        for arn in arns:
            opener = sdk.mpl.create_aws_kms_keyring(
                input=sdk.models.CreateAwsKmsKeyringInput(kms_key_id=arn, kms_client=kms)
            )
            plaintext, _ = sdk.client.decrypt(source=message, keyring=opener)
            found = unpacked(plaintext, tmp_path / f"out-{number}-{arn[-12:]}")
            assert read_tree(found / "model") == TREES["nested"]
            assert stock.verify_key(found / "model", found / ".sealflow" / "signature.json", key.public).accepted


@pytest.fixture
def documented() -> tuple[str, str, str]:
    """The script, the commands with it, and those with the official command, of the documentation."""
    page = (ROOT / "docs" / "reference" / "encryption.md").read_text(encoding="utf-8")
    passage = page.partition("## Opening it without us")[2]
    (script,) = re.findall(r"<!-- A test runs exactly this. -->\n```python\n(.*?)```", passage, re.DOTALL)
    with_script, with_command = re.findall(r"<!-- A test runs exactly this. -->\n```sh\n(.*?)```", passage, re.DOTALL)
    return script, with_script, with_command


@pytest.mark.parametrize("tree", ["nested", "many"])
def test_the_documented_way(
    sdk: Any,
    stock: Stock,
    need_program: Callable[[str, str, str], None],
    tmp_path: Path,
    key: KeyPair,
    recipients: dict[str, str],
    documented: tuple[str, str, str],
    tree: str,
) -> None:
    """Exactly what is written there, in a folder without anything of ours."""
    need_program("openssl", "openssl", "the documented recovery was not run")
    source = write_tree(tmp_path / "in" / "model", TREES[tree])
    folder = tmp_path / "recovery"
    folder.mkdir()
    uploaded(source, key, [recipients["rsa"]], folder / "model.sealed")
    script, commands, _ = documented
    (folder / "recover.py").write_text(script)
    (folder / "private.pem").write_bytes(RSA_PEM)
    (folder / "signer.pub.pem").write_bytes(key.public.read_bytes())
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "PYTHONSAFEPATH": "1",
    }
    done = subprocess.run(["sh", "-euc", commands], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Verification succeeded" in done.stdout + done.stderr
    assert read_tree(folder / "recovered" / "model") == TREES[tree]


# --- The official command, in an environment with nothing else ---


@pytest.fixture(scope="module")
def command(oracle_environment: Callable[[str, list[str], str], Path]) -> Path:
    """The folder of the official command. It needs another release of the SDK than its keyrings do."""
    return oracle_environment("cli", ["aws-encryption-sdk-cli>=4"], "recovery with the official command not run")


@pytest.fixture(scope="module")
def kms_server() -> Iterator[str]:
    """The endpoint of a mock of KMS that other processes reach."""
    with moto_server() as server:
        yield server.endpoint_url


def in_kms(endpoint: str) -> str:
    """Make a key; return its ARN."""
    import boto3

    access = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("kms", region_name="eu-west-1", endpoint_url=endpoint, **access)
    arn: str = client.create_key()["KeyMetadata"]["Arn"]
    return arn


def run_command(command: Path, endpoint: str, arn: str, folder: Path, commands: str) -> Any:
    """Run what is documented as a stranger would, who has the command and a key in KMS."""
    environment = {
        "PATH": f"{command}:/usr/bin:/bin",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "NO_PROXY": "127.0.0.1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "key_arn": arn,
    }
    return subprocess.run(["sh", "-euc", commands], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("tree", TREES)
def test_the_official_command(
    command: Path,
    kms_server: str,
    stock: Stock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    key: KeyPair,
    recipients: dict[str, str],
    documented: tuple[str, str, str],
    tree: str,
) -> None:
    """Exactly what is written there. Each of two keys opens it, whoever else can."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", kms_server)
    arns = [in_kms(kms_server) for _ in range(2)]
    source = write_tree(tmp_path / "in" / "model", TREES[tree])
    others = list(recipients.values())
    with shaped(4096, 3):
        message = uploaded(source, key, [others[0], *(f"awskms:{arn}" for arn in arns), others[1]], tmp_path / "sealed")
    for arn in arns:
        folder = tmp_path / f"recovery-{arn[-12:]}"
        folder.mkdir()
        (folder / "model.sealed").write_bytes(message)
        done = run_command(command, kms_server, arn, folder, documented[2])
        assert done.returncode == 0, done.stderr
        found = folder / "recovered"
        assert sorted(os.listdir(found)) == [".sealflow", "model"]
        assert read_tree(found / "model") == TREES[tree]
        assert stock.verify_key(found / "model", found / ".sealflow" / "signature.json", key.public).accepted


def test_what_the_official_command_refuses(
    command: Path,
    kms_server: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    key: KeyPair,
    documented: tuple[str, str, str],
) -> None:
    """So that the test above would see it if the command opened anything at all."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", kms_server)
    arn, another = in_kms(kms_server), in_kms(kms_server)
    source = write_tree(tmp_path / "in" / "model", TREES["nested"])
    message = uploaded(source, key, [f"awskms:{arn}"], tmp_path / "sealed")
    altered = bytearray(message)
    altered[-100] ^= 1
    for number, (stored, opener) in enumerate([(message, another), (bytes(altered), arn), (message[:-1], arn)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "model.sealed").write_bytes(stored)
        assert run_command(command, kms_server, opener, folder, documented[2]).returncode != 0
        assert not (folder / "recovered").exists()
