"""What an import costs: every DAG parse and every task pays for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"boto3", "botocore", "dvc", "kfp", "airflow", "pydantic", "cryptography", "yaml", "fsspec", "sigstore",
         "blake3", "model_signing", "sqlalchemy", "typer", "rich", "jsonschema", "importlib.metadata"}  # fmt: skip


def modules(statement: str) -> set[str]:
    """All modules that are loaded after a statement."""
    script = f"import sys\n{statement}\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def loaded(statement: str) -> set[str]:
    """The heavy ones among them."""
    return HEAVY & modules(statement)


def baseline() -> set[str]:
    # What the environment itself loads at start-up (editable installs, coverage) is not ours.
    return loaded("pass")


def test_the_package() -> None:
    assert loaded("import sealflow") - baseline() == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "errors",
        "findings",
        "hashing",
        "names",
        "strictjson",
        "strictyaml",
        "run_identity",
        "manifest",
        "storage",
        "audit",
    ],
)
def test_modules_that_need_no_keys(module: str) -> None:
    assert loaded(f"import sealflow.{module}") - baseline() == set()


def test_all_public_names_without_optional_libraries() -> None:
    """Keys need cryptography; nothing else is loaded before it is used."""
    statement = "import sealflow\nfor name in sealflow.__all__: getattr(sealflow, name)"
    assert loaded(statement) - baseline() <= {"cryptography"}


SIGN = """
import sealflow
from sealflow.actions.keys_generate import generate_key
generate_key({folder!r} + "/key")
ref = sealflow.sign({folder!r} + "/model", signer="file:" + {folder!r} + "/key")
"""
VERIFY = """
assert sealflow.verify(ref, identities={folder!r} + "/key.pub").passed
"""


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder with a model in it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").touch()
    return str(tmp_path)


def test_signing_and_verifying_a_local_tree_loads_no_optional_library(folder: str) -> None:
    assert loaded((SIGN + VERIFY).format(folder=folder)) - baseline() <= {"cryptography"}


UNDER_POLICY = """
import json
from sealflow.keys import load_signer
from sealflow.policy import source
from sealflow.policy.signed import POLICY_TYPE, make_signed
generate_key({folder!r} + "/admin")
body = {{
    "apiVersion": "sealflow/v1", "version": 1, "expires": "2099-01-01T00:00:00Z",
    "identities": {{"me": {{"key": open({folder!r} + "/key.pub").read()}}}},
    "rules": [{{"name": "all", "scope": {{"artifact": [{folder!r} + "/**"]}},
                "require": {{"identities": {{"any_of": ["me"]}}, "freshness": "pinned"}}}}],
}}
signed = make_signed(json.dumps(body).encode(), load_signer("file:" + {folder!r} + "/admin"), POLICY_TYPE)
open({folder!r} + "/policy.json", "wb").write(signed)
with open({folder!r} + "/admin.json", "w") as file:
    json.dump({{"policy": {folder!r} + "/policy.json", "keys": [{folder!r} + "/admin.pub"]}}, file)
source.MACHINE_FILE, source.ENVIRONMENT_FILE = "/none", {folder!r} + "/admin.json"
verdict = sealflow.verify(ref)
assert verdict.passed and verdict.policy, verdict
"""


def test_a_verdict_under_a_policy_loads_nothing_more(folder: str) -> None:
    """Its reader is ours: every task waits for it."""
    code = (SIGN + UNDER_POLICY).format(folder=folder)
    assert loaded(code) - baseline() <= {"cryptography"}


def test_signing_without_a_policy_loads_nothing_that_would_read_one(folder: str) -> None:
    ours = {name for name in modules(SIGN.format(folder=folder)) if name.startswith("sealflow.policy.")}
    assert ours == {"sealflow.policy.channel"}


def test_verifying_without_policy_and_verifier_loads_nothing_that_serves_them(folder: str) -> None:
    needless = {"actions.policies", "actions.reuse", "evidence.summary", "policy.source", "verification.reuse"}
    assert not modules((SIGN + VERIFY).format(folder=folder)) & {f"sealflow.{name}" for name in needless}


def test_signing_and_verifying_clear_artifacts_loads_nothing_that_encrypts_walks_or_warns(folder: str) -> None:
    needless = {"logging", "sealflow.encryption", "sealflow.evidence.own_provenance", "sealflow.transfer"}
    assert not (modules((SIGN + VERIFY).format(folder=folder)) - modules("pass")) & needless


def test_names_are_found_late_and_unknown_ones_are_refused() -> None:
    import sealflow

    assert set(sealflow.__all__) <= set(dir(sealflow))
    for name in sealflow.__all__:
        assert getattr(sealflow, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sealflow.nothing  # noqa: B018
