"""What pages show of Kubeflow outside of guides: components compile, settings are read, names are the manifests'."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import sealflow
from sealflow.actions import context
from sealflow.hashing import Digest
from sealflow_kfp.evidence_metadata import EvidenceMetadata
from sealflow_kfp.guard_command import IN_IMAGE
from sealflow_kfp.spec_patch import VARIABLE
from sealflow_kfp.telling import readable
from tests.core.conftest import Cli
from tests.core.conftest import cli as cli
from tests.documents import ROOT, block, blocks_of
from tests.guides import compare, run_session
from tests.kubeflow.deployed import BASE, DEPLOY, DEPLOYMENT
from tests.kubeflow.test_exec import Team
from tests.pki import write_key
from tests.trees import flip_byte


def test_a_verdict_from_the_inbox(cli: Cli, tmp_path: Path) -> None:
    """The command of how-to/kubeflow-wrapper, for a run that was stopped."""
    shown = block("how-to/kubeflow-wrapper", "bash")
    (run,) = re.findall(r"verdict (\S+) ", shown)
    team = Team(tmp_path)
    team.write(audit_spool=None, audit_inbox=f"sqlite:{tmp_path}/inbox.db")
    model = team.make(run=run)
    flip_byte(team.launcher.key(model.uri))
    assert team.use(model, run=run).status == 97
    (done,) = run_session(shown, cli, {"postgresql://audit.example/audit": f"sqlite:{tmp_path}/inbox.db"})
    assert (done.status, "FAILED" in done.output) == (0, True), done.output


def compiled(text: str, name: str, folder: Path) -> Any:
    """Compile what a page shows, as a module of its own: KFP reads the source of what it decorates."""
    from kfp import compiler

    module = folder / "shown.py"
    module.write_text(text)
    space: dict[str, Any] = {"__name__": "shown"}
    exec(compile(text, str(module), "exec", dont_inherit=True), space)
    compiler.Compiler().compile(space[name], str(folder / "shown.yaml"))
    return yaml.safe_load((folder / "shown.yaml").read_text())


@pytest.mark.kfp
def test_an_exit_task(tmp_path: Path) -> None:
    shown = block("reference/kubeflow", "python", "respond_to_refusal").replace("...", "make_model()")
    pipeline = textwrap.indent(shown, "    ")
    head = "from kfp import dsl\nfrom sealflow_kfp import respond_to_refusal\n"
    head += "from tests.kubeflow.pipelines import make_model\n\n\n@dsl.pipeline\ndef churn():\n"
    tasks = compiled(head + pipeline, "churn", tmp_path)["root"]["dag"]["tasks"]
    given = tasks["respond-to-refusal"]["inputs"]["parameters"]
    assert given["recurring_run"]["runtimeValue"]["constant"] == "<id>"


@pytest.mark.kfp
def test_a_component_with_checks_in_its_body(tmp_path: Path) -> None:
    shown = block("reference/kubeflow", "python", "verified_input")
    head = "from kfp import dsl\nfrom sealflow_kfp import default_image\n\n\n"
    (executor,) = compiled(head + shown, "score", tmp_path)["deploymentSpec"]["executors"].values()
    source = executor["container"]["command"][-1]
    assert "sealflow_kfp.sign_output(scores)" in source
    import sealflow_kfp

    assert callable(sealflow_kfp.verified_input)
    assert callable(sealflow_kfp.sign_output)


def test_the_end_of_a_log(tmp_path: Path) -> None:
    """The block of reference/kubeflow, for a folder in which a file was changed."""
    key = write_key(tmp_path)
    model = tmp_path / "train" / "model"
    model.mkdir(parents=True)
    (model / "weights.bin").write_bytes(b"weights")
    sealflow.sign(model, signer=key.signer)
    (model / "weights.bin").write_bytes(b"forged!")
    told = readable(sealflow.verify(model, identities=f"file:{key.public}"))
    lines = block("reference/kubeflow", "text", "sealflow: FAILED").splitlines()
    assert lines[-1].strip().startswith("verdict")
    # The digests are those of other bytes.
    shown = "\n".join(re.sub(r"[0-9a-f]{4}…", "…", line) for line in lines)
    compare(re.sub(r'"findings":.*$', "…", shown), told)


def test_the_wrapper() -> None:
    words = block("reference/kubeflow", "text", "sealflow_kfp.exec").replace("'", "").split()
    assert words[: len(IN_IMAGE)] == list(IN_IMAGE)
    assert words[len(IN_IMAGE) :] == ["COMMAND…"]


def test_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secret,) = yaml.safe_load_all(block("reference/kubeflow", "yaml"))
    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", "sealflow")
    for name, text in secret["stringData"].items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("SEALFLOW_MOUNT", str(tmp_path))
    settings = context._mounted()
    assert settings.signer == "file:/var/run/sealflow/signing.pem"
    assert settings.audit_inbox == "s3://audit/inbox"
    # What the settings name in the mount is in the secret.
    named = set(re.findall(r"/var/run/sealflow/([\w.]+)", secret["stringData"]["sealflow.json"]))
    assert named == set(secret["stringData"]) - {"sealflow.json"}


def test_the_metadata() -> None:
    shown = block("reference/kubeflow", "json", "sealflow_evidence").strip()
    made = EvidenceMetadata(Digest("dirHash", "0" * 64), b"bundle").to_text()
    assert list(json.loads(shown)) == list(json.loads(made))
    assert json.loads(shown)["sealflow_evidence"] == json.loads(made)["sealflow_evidence"]


# --- Commands to a cluster, which no test has ---

KUBECTL = [
    line.removeprefix("$ ").partition("  #")[0]
    for item in blocks_of(ROOT / "docs" / "how-to" / "kubeflow-cluster.md")
    if item.language == "console"
    for line in item.text.splitlines()
    if line.startswith("$ kubectl")
]


def test_they_name_what_is_in_the_manifests() -> None:
    text = "\n".join(KUBECTL)
    overlays = re.findall(r"-k (\S+)", text)
    assert len(overlays) == 2
    page = (ROOT / "docs" / "how-to" / "kubeflow-cluster.md").read_text(encoding="utf-8")
    for overlay in overlays:
        assert (ROOT / overlay / "kustomization.yaml").is_file()
        assert (DEPLOY / "overlays" / f"{Path(overlay).name}-cert-manager" / "kustomization.yaml").is_file()
        assert f"…/overlays/{Path(overlay).name}-cert-manager" in page
    for deployment in set(re.findall(r"deployment/(\S+)", text)) - {"ml-pipeline"}:
        assert ("Deployment", deployment) in BASE
    hooks = BASE["ValidatingWebhookConfiguration", "sealflow-admission"]["webhooks"]
    selectors = [rule["key"] for hook in hooks for rule in hook["namespaceSelector"].get("matchExpressions", ())]
    selectors += [key for hook in hooks for key in hook["namespaceSelector"].get("matchLabels", ())]
    (label,) = set(re.findall(r"label namespace team-a (\S+)=true", text))
    assert label in selectors
    (named,) = re.findall(r'admission webhook "([^"]+)" denied', page)
    assert named in {hook["name"] for hook in hooks}
    (app,) = re.findall(r"-l app.kubernetes.io/name=(\S+)", text)
    assert DEPLOYMENT["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == app
    (variable,) = re.findall(r"deployment/ml-pipeline (\w+)=", text)
    assert variable == VARIABLE


@pytest.mark.parametrize("command", dict.fromkeys(KUBECTL))
def test_kubectl_knows_the_options(command: str, need_program: Callable[[str, str, str], None]) -> None:
    need_program("kubectl", "none; Kubernetes brings one, 1.27 or later", "options of kubectl in the guide not checked")
    words = shlex.split(command.partition(" | ")[0])[1:]
    if words[0] == "-n":
        words = words[2:]
    verb = words[:2] if words[0] in ("set", "rollout") else words[:1]
    known = subprocess.run(["kubectl", *verb, "--help"], capture_output=True, text=True, check=True).stdout
    for word in words[len(verb) :]:
        if word.startswith("-") and word not in ("-n",):
            assert re.search(rf"(?m)(^|\s){re.escape(word.partition('=')[0])}[=,]", known), word
