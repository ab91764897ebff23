"""`sealflow kfp kyverno` and `sealflow kfp doctor`: what they print, leave behind and end with."""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from sealflow_kfp.doctor import CHECKS
from tests.core.conftest import Cli, body
from tests.kubeflow import cluster as clusters
from tests.kubeflow.cluster_pods import SETTINGS_TEXT

POLICY = """\
apiVersion: sealflow/v1
version: 7
expires: 2099-12-31T00:00:00Z
identities:
  trainer: {key: admin.pem.pub, producers: ["kfp:train/*"]}
rules:
  - name: models
    scope: {artifact: ["s3://models/**"]}
    require: {identities: {any_of: [trainer]}, producers: ["kfp:train/*"]}
"""


# --- kyverno ---


@pytest.fixture
def made(cli: Cli, tmp_path: Path) -> Path:
    """A folder with settings, keys and a signed policy."""
    (tmp_path / "settings.yaml").write_text(SETTINGS_TEXT)
    (tmp_path / "policy.yaml").write_text(POLICY)
    for name in ("admin", "other"):
        assert cli("keys", "generate", f"{name}.pem", "--algorithm", "ed25519").returncode == 0
    done = cli("policy", "sign", "policy.yaml", "--signer", "file:admin.pem", "--output", "policy.json")
    assert done.returncode == 0, done.stderr
    return tmp_path


def kyverno(cli: Cli, *more: str, **options: str) -> Any:
    given = {"settings": "settings.yaml", "policy": "policy.json", "admin-key": "admin.pem.pub", **options}
    return cli("kfp", "kyverno", *(word for name, value in given.items() for word in (f"--{name}", value)), *more)


def test_policies_are_written(cli: Cli, made: Path) -> None:
    digest = body(cli("policy", "show", "policy.json", "--json"))["digest"]
    done = kyverno(cli, "-o", "kyverno.yaml")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("(")[0].split() for line in lines[:3]] == [
        ["policy", "sealflow-pods"], ["policy", "sealflow-workflows"], ["policy", "sealflow-connections"],
    ]  # fmt: skip
    assert lines[3] == "mode       enforce: refuses"
    assert lines[4] == f"trust      {digest}"
    first = (made / "kyverno.yaml").read_bytes()
    for policy in yaml.safe_load_all(first):
        assert policy["metadata"]["annotations"]["sealflow/trust-policy"] == digest
        assert policy["metadata"]["annotations"]["sealflow/trust-policy-version"] == "7"
    # Nothing is replaced unasked, and the same settings give the same bytes.
    assert kyverno(cli, "-o", "kyverno.yaml").returncode == 2
    done = kyverno(cli, "-o", "kyverno.yaml", "--overwrite", "--json")
    assert body(done)["trust-policy"] == digest
    assert (made / "kyverno.yaml").read_bytes() == first


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"admin-key": "other.pem.pub"}, 3, "POLICY_SIGNER"),
        ({"policy": "policy.yaml"}, 2, "POLICY_UNSIGNED"),
        ({"policy": "none.json"}, 2, "POLICY_MISSING"),
        ({"settings": "none.yaml"}, 2, "cannot be read"),
        ({"settings": "policy.yaml"}, 2, "policy.yaml"),
        ({"namespace": "Team A"}, 2, "no name that Kubernetes gives"),
        ({"api-version": "v9"}, 2, "v1alpha1, v1beta1, v1"),
    ],
    ids=["another key", "a draft", "no policy", "no settings", "other settings", "a namespace", "a version"],
)
def test_what_cannot_be_leaves_nothing(options: dict[str, str], status: int, words: str, cli: Cli, made: Path) -> None:
    done = kyverno(cli, "-o", "kyverno.yaml", **options)
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr
    assert not (made / "kyverno.yaml").exists()


def test_an_expired_policy_is_refused(cli: Cli, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)
    monkeypatch.setattr("sealflow.audit.event.utc_now", lambda: later)
    done = kyverno(cli, "-o", "kyverno.yaml")
    assert (done.returncode, "has expired" in done.stderr) == (2, True), done.stderr
    assert not (made / "kyverno.yaml").exists()


# --- doctor ---


@pytest.fixture
def cluster(tmp_path: Path) -> clusters.Cluster:
    """A cluster as it should be."""
    return clusters.good(tmp_path / "cluster", clusters.authority())


def doctor(cli: Cli, cluster: clusters.Cluster, *options: str) -> Any:
    return cli("kfp", "doctor", "--kubectl", str(cluster.program()), "--namespace", "team-a", *options)


NAMES = ("--secret", "sealflow", "--policy-config-map", "sealflow-policy")


@pytest.mark.slow
def test_a_cluster_is_examined(cli: Cli, cluster: clusters.Cluster, tmp_path: Path) -> None:
    done = doctor(cli, cluster, *NAMES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[:2] == [
        "passed    kubernetes:kubeflow",
        "PASS    cluster                the namespace kubeflow",
    ]
    (container, _) = cluster.get("deployment", "ml-pipeline", "kubeflow")["spec"]["template"]["spec"]["containers"]
    container["env"] = [item for item in container["env"] if item["name"] != "CACHEENABLED"]
    (tmp_path / "settings.yaml").write_text(SETTINGS_TEXT)
    done = doctor(cli, cluster, "--settings", "settings.yaml")
    assert done.returncode == 3
    lines = done.stdout.splitlines()
    place = lines.index("FAIL    caching                not set, which means true")
    assert lines[place + 1].startswith("        expected CACHEENABLED=false")
    assert lines[place + 2] == "        next: Set it on the Deployment ml-pipeline."
    done = doctor(cli, cluster, *NAMES, "--skip", "caching=no cache is installed", "--json")
    assert done.returncode == 0
    found = body(done)
    assert [item["check"] for item in found["checks"]] == list(CHECKS)
    assert found["verdict"]["status"] == "passed"
    # What nobody named is not known, and not known is not passed.
    done = doctor(cli, cluster, "--skip", "caching=no cache is installed")
    assert done.returncode == 5
    assert doctor(cli, cluster, "--report-only").returncode == 0


def test_no_kubectl_is_an_answer(cli: Cli) -> None:
    done = cli("kfp", "doctor", "--kubectl", "/nowhere/kubectl", "--json")
    assert done.returncode == 5
    found = body(done)
    assert {item["outcome"] for item in found["checks"]} == {"UNKNOWN", "SKIPPED"}
    assert found["verdict"]["status"] == "unverifiable"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--namespace", "--all"], "no name that Kubernetes gives"),
        (["--namespace", "a b"], "no name that Kubernetes gives"),
        (["--kubeflow-namespace", "-n"], "no name that Kubernetes gives"),
        (["--account", "a/b"], "no name that Kubernetes gives"),
        (["--secret", "../x"], "no name of a secret"),
        (["--policy-config-map", "X"], "no name of a config map"),
        (["--route", "webhook"], "no route"),
        (["--allow", "somebody"], "names nobody"),
        (["--allow", "ServiceAccount x"], "names nobody"),
        (["--skip", "caching"], "CHECK=REASON"),
        (["--skip", "caching=a", "--skip", "caching=b"], "CHECK=REASON"),
        (["--skip", "none=a"], "no check"),
        (["--settings", "none.yaml"], "cannot be read"),
    ],
)
def test_what_nobody_can_ask_for(options: list[str], words: str, cli: Cli) -> None:
    done = cli("kfp", "doctor", "--kubectl", "/nowhere/kubectl", *options)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert not done.stdout


def test_settings_and_names_are_not_both_given(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(SETTINGS_TEXT)
    done = cli("kfp", "doctor", "--settings", "settings.yaml", "--secret", "sealflow")
    assert done.returncode == 2
    assert "Leave the others out" in done.stderr


def test_a_context_with_odd_characters_stays_one_word(cli: Cli, tmp_path: Path) -> None:
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> '{tmp_path}/said'\nexit 1\n")
    program.chmod(0o755)
    cli("kfp", "doctor", "--kubectl", str(program), "--context", "a b --token=x", "--time-limit", "600")
    assert "--context=a b --token=x" in (tmp_path / "said").read_text().splitlines()
    assert json.dumps("--token=x") not in (tmp_path / "said").read_text()
    assert os.path.exists(program)
