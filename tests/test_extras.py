"""Each extra alone, from the wheel, in an environment that holds nothing else: it installs, and its purpose loads."""

from __future__ import annotations

import runpy
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: What is run in the environment of each extra, beside signing and verifying a file.
EXTRAS: Mapping[str, str] = {
    "": "import sealflow.cli.app",
    "admission": "import sealflow_kfp.admission.server",
    "airflow": "from sealflow_airflow.operators.verify import VerifyArtifactOperator; import sealflow_airflow.plugin",
    "aws": "from airflow.providers.amazon.aws.hooks.s3 import S3Hook; import sealflow_airflow.aws",
    "azure": "from securesystemslib.signer._azure_signer import AzureSigner; import azure.identity",
    "blake3": "import blake3",
    "boto3": "from sealflow.storage import Storages; Storages().for_uri('s3://bucket/key')",
    "dvc": "import dvc.repo",
    "fsspec": "from sealflow.storage import Storages; Storages().for_uri('memory://folder/key')",
    "gcp": "from google.cloud import kms",
    "kfp": "import sealflow_kfp; sealflow_kfp.sign_artifact; sealflow_kfp.harden",
    "openlineage": "import sealflow_airflow.facets",
    "pkcs11": "import pkcs11; import sealflow.keys.pkcs11",
    "postgresql": "import psycopg; import sealflow.audit.inbox_postgresql",
    "timestamp": "import rfc3161_client; import sealflow.evidence.timestamp",
    "vault": "import hvac",
}
#: Those of who develops sealflow; `make demo` and `make test` install them.
OWN = {"demo", "docs", "test"}

_SIGN_AND_VERIFY = """
import pathlib, sealflow
from sealflow.actions.keys_generate import generate_key
pathlib.Path("model").write_text("weights")
generate_key("key.pem")
reference = sealflow.sign("model", signer="file:key.pem")
assert sealflow.verify(reference, identities={"me": "file:key.pem.pub"}, name="model").status == "passed"
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("extras")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


def test_every_extra_is_tried(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        declared = set(Parser().parsestr(archive.read(member).decode()).get_all("Provides-Extra", []))
    assert declared == {extra for extra in EXTRAS if extra} | OWN


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra or "none")
def test_an_extra_alone(extra: str, wheel: Path, tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    environment = runpy.run_path(str(ROOT / "scripts" / "bootstrap.py"))["uv_environment"](Path(sys.executable))
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True, env=environment)
    request = f"{wheel}[{extra}]" if extra else str(wheel)
    install = [uv, "pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", request]
    done = subprocess.run(install, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for program in (EXTRAS[extra], _SIGN_AND_VERIFY):
        done = subprocess.run(
            [python, "-I", "-c", program],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path / "airflow")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
