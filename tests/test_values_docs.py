"""What pages show of files and values, compared with what the code takes and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import sealflow
from sealflow.actions.keys_generate import generate_key
from sealflow.actions.progress import ProgressLines
from sealflow.policy.identities import parse_identities
from sealflow.policy.lint import lint
from sealflow.policy.source import AdminChannel
from tests.audit_events import entries
from tests.core.audit.logs import MadeLog
from tests.core.audit.test_witness import HonestWitness
from tests.documents import ROOT, block, blocks_of
from tests.pki import NOW, write_pki
from tests.verifiers import Deployment


def alike(shown: Any, made: Any, where: str = "") -> None:
    """Check that what a page shows has the members and types of what was made; ``…`` stands for anything."""
    if isinstance(shown, str) and "…" in shown:
        return
    assert type(shown) is type(made), where
    if isinstance(shown, dict):
        assert set(shown) - {"…"} <= set(made), where
        for name in set(shown) - {"…"}:
            alike(shown[name], made[name], f"{where}.{name}")
    if isinstance(shown, list) and shown:
        assert made, where
        alike(shown[0], made[0], f"{where}[0]")


# --- Policies ---


@pytest.mark.parametrize("page", ["how-to/airflow-gate", "how-to/rotate-keys", "how-to/trusted-time"])
def test_a_part_of_a_policy(page: str, tmp_path: Path) -> None:
    """All parts that a page shows make one policy, with a trainer and a rule where it shows none."""
    log = MadeLog(tmp_path)
    witnesses = [str(HonestWitness([log.key], name).key) for name in ("witness.example/w1", "other.example/w")]
    whole: dict[str, Any] = {}
    for item in blocks_of(ROOT / "docs" / f"{page}.md"):
        if item.language != "yaml":
            continue
        # Keys that a page cuts short.
        text = re.sub(r"example\.com/audit\+\S+…", str(log.key), item.text)
        for name, key in zip(("witness", "other"), witnesses, strict=True):
            text = re.sub(rf"{name}\.example/\w+\+\w+\+\w+…", key, text)
        for member, value in yaml.safe_load(text).items():
            known = whole.setdefault(member, type(value)())
            known.update(value) if isinstance(value, dict) else known.extend(value)
    assert whole
    named = set(re.findall(r"(\w+)\.pem\.pub", str(whole))) | {"trainer"}
    for name in named:
        generate_key(str(tmp_path / f"{name}.pem"), algorithm="p256")
    (tmp_path / "tsa-root.pem").write_bytes(write_pki(tmp_path).root.pem)
    whole.setdefault("identities", {}).setdefault("trainer", {"key": "trainer.pem.pub"})
    rule = {"name": "all", "scope": {"artifact": ["s3://x/**"]}, "require": {"identities": {"any_of": ["trainer"]}}}
    whole.setdefault("rules", [rule])
    for signer in whole.get("signers", ()):
        signer.setdefault("scope", {"dag": ["train"]})
    body = {"apiVersion": "sealflow/v1", "version": 1, "expires": "2999-01-01T00:00:00Z", **whole}
    found = lint(json.dumps(body).encode(), page, str(tmp_path), NOW)
    assert found.document is not None, found.problems
    assert [problem for problem in found.problems if problem.severity == "error"] == []


@pytest.mark.parametrize("page", ["reference/policy", "reference/kubeflow"])
def test_an_admins_file(page: str) -> None:
    channel = AdminChannel.parse(json.loads(block(page, "json", "minimum_version")), page)
    assert channel.minimum_version == 12
    assert channel.manages(["s3://models/churn"])
    assert not channel.manages(["s3://other/churn"])


def test_identities() -> None:
    shown = json.loads(block("reference/verdicts", "json", "trainer.pub"))
    assert [identity.name for identity in parse_identities(shown)] == ["trainer", "release"]


# --- What sealflow writes ---


@pytest.fixture
def signed(tmp_path: Path) -> sealflow.ArtifactRef:
    """A signed folder, under a key that `trainer.pem.pub` names."""
    generate_key(str(tmp_path / "trainer.pem"), algorithm="p256")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights")
    return sealflow.sign(tmp_path / "model", signer=f"file:{tmp_path}/trainer.pem", evidence_store=str(tmp_path / "e"))


def test_a_reference(signed: sealflow.ArtifactRef) -> None:
    shown = json.loads(block("reference/verdicts", "json", "sealflow_ref"))
    assert set(shown) == set(signed.as_dict())
    alike(shown, signed.as_dict())


def test_a_verdict(signed: sealflow.ArtifactRef, tmp_path: Path) -> None:
    shown = json.loads(block("reference/verdicts", "json", "sealflow_verdict"))
    (tmp_path / "model" / "weights.bin").write_bytes(b"forged!")
    trust = {"trainer": f"file:{tmp_path}/trainer.pem.pub"}
    verdict = sealflow.verify(tmp_path / "model", identities=trust, evidence_store=str(tmp_path / "e"))
    made = verdict.as_dict()
    (finding,) = [item for item in made["findings"] if item["code"] == "FILE_CHANGED"]
    told = shown["findings"][0]
    for name in ("severity", "subject", "message", "rule"):
        assert told[name] == finding[name]
    assert set(told) == set(finding)
    assert set(shown) <= set(made)
    assert made["status"] == shown["status"]
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights")
    passed = sealflow.verify(signed, identities=trust).as_dict()
    page = (ROOT / "docs" / "reference" / "verdicts.md").read_text(encoding="utf-8")
    (signer,) = re.findall(r"`(\{\"identity\": .+?\})`", page)
    assert set(json.loads(signer)) == set(passed["signers"][0])
    assert (made["signers"], passed["status"]) == (shown["signers"], "passed")


def test_a_verification_summary(tmp_path: Path) -> None:
    shown = json.loads(block("reference/verdict-reuse", "json"))
    deployment = Deployment(tmp_path)
    deployment.publish()
    ref = deployment.make()
    deployment.gate(ref)
    ((_, made),) = deployment.summaries(ref).items()
    # An object in a store with versions, which a folder has not.
    assert shown["predicate"]["resourceUri"].partition("?versionId=")[2]
    alike(shown, made)
    assert set(shown["predicate"]) == set(made["predicate"])


def test_a_line_of_progress() -> None:
    text = block("reference/airflow", "text", "Sending").rstrip("\n")
    numbers = [float(number) for number in re.findall(r"[\d.]+", text)]
    done, total, _, rate, left = numbers
    moments = iter([0.0, 5.0])
    lines: list[str] = []
    said = ProgressLines(lines.append, "Sending", clock=lambda: next(moments))
    # As if what came before these five seconds had been told of.
    said._before = int(done * 2**30 - rate * 5 * 2**20)
    said(int(done * 2**30), int(total * 2**30))
    assert lines == [text]
    assert left == round((total - done) * 1024 / rate)


def test_the_form_of_an_entry(signed: sealflow.ArtifactRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    sealflow.verify(signed, identities={"trainer": f"file:{tmp_path}/trainer.pem.pub"})
    entry = entries(tmp_path / "spool")[0]
    for page, language in (("reference/audit-events", "text"), ("reference/audit-log", "none")):
        shown = block(page, language, "sealflow-audit/v1 <").strip()
        parts = re.sub(r"<[^>]+>", "·", shown).split(" ")
        made = entry.line.decode().split(" ")
        assert len(parts) == len(made)
        assert [part for part in parts if part != "·"] == [made[0]]
        assert re.findall(r"<([^>]+)>", shown)[::4] == ["writer", "signature"]
        assert re.fullmatch("[0-9a-f]{64}", made[1])
        json.loads(made[4])
