"""Airflow finds the provider, its connection type, its configuration and its decorator."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from sealflow import __version__
from sealflow_airflow.get_provider_info import get_provider_info
from tests.airflow.home import AirflowHome

pytestmark = pytest.mark.airflow


def test_metadata_fits_airflows_schema():
    import airflow
    import jsonschema

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    info = get_provider_info()
    jsonschema.validate(info, schema)
    assert not info.keys() - schema["properties"].keys() - {"versions"}
    assert info["versions"] == [__version__]


def test_everything_named_in_the_metadata_exists():
    info = get_provider_info()
    modules = [name for group in ("operators", "hooks") for item in info[group] for name in item["python-modules"]]
    for name in modules:
        import_module(name)
    classes = [item["hook-class-name"] for item in info["connection-types"]]
    classes += [item["class-name"] for item in info["task-decorators"]]
    for name in classes:
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(import_module(module), attribute))


def test_connection_form_shows_references_only():
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    assert set(manager.field_behaviours["sealflow"]["hidden_fields"]) >= {"login", "password", "host", "schema", "port"}
    fields = {name: item for name, item in manager.connection_form_widgets.items() if "__sealflow__" in name}
    assert sorted(fields) == [
        f"extra__sealflow__{name}" for name in ("evidence_store", "identities", "recipients", "signer", "verifier")
    ]
    assert not any(item.is_sensitive for item in fields.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("providers", "list"), ["sealflow", __version__], id="provider"),
        pytest.param(
            ("providers", "hooks"),
            ["sealflow", "sealflow_airflow.hooks.sealflow.SealflowHook", "sealflow_conn_id"],
            id="hook",
        ),
        pytest.param(("config", "get-value", "sealflow", "conn_id"), ["sealflow_default"], id="config"),
    ],
)
def test_airflow_command_shows(airflow_home: AirflowHome, arguments, words):
    output = airflow_home.command(*arguments, *(["-o", "plain"] if arguments[0] == "providers" else []))
    assert any(all(word in line.split() for word in words) for line in output.splitlines()), output


HEAVY = ("boto3", "botocore", "cryptography", "dvc", "kfp", "model_signing", "pydantic_settings", "sigstore", "yaml")

PROBE = """
import sys, json
import airflow.sdk
from airflow.sdk import BaseHook, BaseOperator, conf, dag, task
import airflow.sdk.exceptions
before = set(sys.modules)
{code}
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def imported_by(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_operators_pull_in_nothing_heavy():
    names = imported_by(
        "import sealflow_airflow, sealflow_airflow.run_context\n"
        "from sealflow_airflow import DvcLineageCheckOperator, PromoteArtifactOperator, SealflowHook\n"
        "from sealflow_airflow import EncryptedDownloadOperator, EncryptedUploadOperator, IntegrateAuditLogOperator\n"
        "from sealflow_airflow import AccessAuditOperator, CheckPostureOperator\n"
        "from sealflow_airflow import SignArtifactOperator, VerifyArtifactOperator"
    )
    assert {
        f"sealflow_airflow.operators.{name}"
        for name in ("access_audit", "audit", "lineage", "posture", "promote", "sign", "transfer", "verify")
    } <= set(names)
    assert "sealflow_airflow.facets" not in names
    assert not {name.partition(".")[0] for name in names} - {"sealflow", "sealflow_airflow"}
    # The verbs themselves wait for the task.
    assert not [name for name in names if name.startswith(("sealflow.actions", "sealflow.evidence", "sealflow.keys"))]


def test_decorator_pulls_in_nothing_heavy():
    names = imported_by("from sealflow_airflow import sealed_task\nsealed_task(inputs=['a'])(lambda a: a)")
    assert not {name.partition(".")[0] for name in names} & set(HEAVY)


def test_package_alone_does_not_import_airflow():
    code = (
        "import sys, sealflow_airflow, sealflow_airflow.get_provider_info, sealflow_airflow.run_context as r\n"
        "assert r.current() is None\n"
        "print([n for n in sys.modules if n.partition('.')[0] == 'airflow'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_unknown_name_is_an_attribute_error():
    import sealflow_airflow

    assert "SignArtifactOperator" in dir(sealflow_airflow)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = sealflow_airflow.Nothing
