"""A release: the same bytes each time, a bill of materials, signed with ourselves and opened by the stock tool."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

import sealflow
from tests.pki import KeyPair, write_key

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "make_release.py"))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("release")]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return write_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, key: KeyPair) -> Path:
    folder = tmp_path_factory.mktemp("release") / "sealflow"
    assert SCRIPT["main"]([key.signer, "--output", str(folder)]) == 0
    return folder


def test_it_holds_wheel_source_and_bill(release: Path) -> None:
    version = sealflow.__version__
    assert {path.name for path in release.iterdir()} == {
        f"sealflow-{version}-py3-none-any.whl",
        f"sealflow-{version}.tar.gz",
        "sealflow.cdx.json",
    }


def test_the_source_holds_what_it_should(release: Path) -> None:
    (source,) = release.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert tops == {
        ".gitignore", "CHANGELOG.md", "Containerfile", "LICENSE", "PKG-INFO", "README.md", "airflow_plugin", "deploy",
        "constraints.txt", "kfp_components", "pyproject.toml", "shared",
    }  # fmt: skip


def test_the_same_commit_gives_the_same_bytes(release: Path, tmp_path: Path) -> None:
    SCRIPT["build"](tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (release / path.name).read_bytes(), path.name


def test_the_bill_is_one_and_names_what_users_get(release: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (release / "sealflow.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    names = {component["name"].lower() for component in bill["components"]}
    assert {"cryptography", "pydantic", "apache-airflow", "kfp", "boto3", "dvc"} <= names
    assert not names & {"pytest", "ruff", "model-signing", "sphinx", "sealflow"}
    assert bill["metadata"]["component"]["version"] == sealflow.__version__
    # Where it was made is nobody's business.
    assert str(ROOT) not in text


def test_it_is_signed_by_us_and_opened_by_the_stock_tool(release: Path, key: KeyPair) -> None:
    verdict = sealflow.verify(release, identities={"maintainers": f"file:{key.public}"}, name="sealflow")
    assert verdict.status == "passed"
    command: list[Any] = [sys.executable, "-m", "model_signing", "verify", "key"]
    command += ["--signature", release.with_suffix(".sig"), "--public_key", key.public, release]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_lies_there_already_is_not_signed(tmp_path: Path, key: KeyPair) -> None:
    (tmp_path / "planted.whl").write_bytes(b"PK")
    with pytest.raises(SystemExit) as caught:
        SCRIPT["main"]([key.signer, "--output", str(tmp_path)])
    assert caught.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["planted.whl"]
