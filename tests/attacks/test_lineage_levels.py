"""Attacks on the higher levels of lineage: whose word counts for what, and whose does not."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow import Surroundings
from sealflow.actions import context
from sealflow.actions.lineage import check_lineage
from sealflow.actions.lineage_sign import sign_lineage
from sealflow.actions.trace import trace
from sealflow.errors import UsageError
from sealflow.findings import Verdict
from sealflow.hashing import sha256_hex
from sealflow.keys.signer import stamped_by
from tests.core.actions.test_lineage_levels import GATE, World, codes, deployment, world
from tests.core.lineage.elsewhere import put
from tests.core.lineage.gitrepo import ssh_key
from tests.core.lineage.repos import out, write
from tests.core.policy.deployment import Deployment, at, policy, rule
from tests.servers.timestamp_authority import TimestampAuthority

# Real repositories, or many signatures: minutes all together.
pytestmark = pytest.mark.slow

__all__ = ["deployment", "world"]  # fixtures


def _identities(world: World) -> dict[str, Any]:
    return {
        "owner": {"key": world.owner.public.read_text()},
        "trainer": {"key": world.trainer.public.read_text(), "producers": ["airflow:train/fit"]},
    }


def _lineage(level: str, **more: Any) -> dict[str, Any]:
    signers = f"ada@example.org {ssh_key().with_name(ssh_key().name + '.pub').read_text()}"
    return {"level": level, "commits": {"allowed_signers": signers, "branch": "refs/heads/main"}, **more}


def _forget(world: World, kind: str) -> None:
    for path in Path(world.store.removeprefix("file://")).glob(f"*/{kind}-*.json"):
        path.unlink()


def _read_too(world: World, files: dict[str, str], *, commit: dict[str, str] | None = None) -> None:
    """Let the stage read more files, as lock and commit say, and have all of it signed once more."""
    stages = json.loads((world.root / "dvc.yaml").read_text())
    locked = json.loads((world.root / "dvc.lock").read_text())
    for name, data in files.items():
        stages["stages"]["make"]["deps"].append(name)
        locked["stages"]["make"]["deps"].append(out(name, data))
    write(world.root, {"dvc.yaml": stages, "dvc.lock": locked})
    world.there.repo.commit({})
    write(world.root, files)
    _forget(world, "provenance")
    sign_lineage(str(world.root), ["raw.csv.dvc", "data.dvc"], signer=world.owner.signer, evidence_store=world.store)
    with context.run(Surroundings(world.run(2))):
        sign_lineage(str(world.root), ["make"], signer=world.trainer.signer, evidence_store=world.store)


def test_a_summary_says_nothing_of_the_lock(world: World, deployment: Deployment) -> None:
    """A verifier walked back from the output; the lock then says that it was made from other data."""
    known = _identities(world) | {"verifier": deployment.identity("verifier", verifier=True)}
    demand = {"evidence": {"provenance": {}}, "reuse_verdict": {"max_age": "1d", "verifiers": ["verifier"]}}
    demand["lineage"] = _lineage("L6", roots=["owner"])
    deployment.publish(policy([rule("repos", f"{world.root.parent}/**", ("owner", "trainer"), require=demand)], known))

    def check() -> sealflow.Verdict:
        with context.run(Surroundings(GATE, admin=deployment.channel())):
            return check_lineage(str(world.root), evidence_store=world.store)

    with context.run(Surroundings(GATE, admin=deployment.channel())):
        signer = deployment.key("verifier").signer
        traced = trace(str(world.root / "out.csv"), evidence_stores=[world.store], verifier=signer)
    assert traced.verdict.passed, traced.verdict.summary()
    assert "LINEAGE_REUSED" in {item.code for item in check().findings}
    locked = json.loads((world.root / "dvc.lock").read_text())
    deps = locked["stages"]["make"]["deps"]
    locked["stages"]["make"]["deps"] = [out("raw.csv", "9\n") if dep["path"] == "raw.csv" else dep for dep in deps]
    write(world.root, {"raw.csv": "9\n", "raw.csv.dvc": {"outs": [out("raw.csv", "9\n")]}, "dvc.lock": locked})
    put(world.there.remote, "9\n")
    world.there.repo.commit({})
    sign_lineage(str(world.root), ["raw.csv.dvc"], signer=world.owner.signer, evidence_store=world.store)
    assert codes(check()) == {"INPUTS_DIFFER"}


def test_no_owner_vouches_for_what_the_check_rests_on(world: World) -> None:
    """A stage that reads its parameters file does not make that file data."""
    changed = (world.root / "params.yaml").read_text() + "\n"
    _read_too(world, {"params.yaml": changed})
    sealflow.sign(world.root / "params.yaml", signer=world.owner.signer, evidence_store=world.store)
    assert codes(world.check("L6")) == {"GIT_DIRTY"}


def test_an_owner_vouches_for_one_file_and_not_for_its_neighbour(world: World) -> None:
    """Both names are one where findings cut them short."""
    folder = "/".join(["d" * 100] * 4)
    _read_too(world, {f"{folder}/code.py": "evil", f"{folder}/data.csv": "good"})
    sealflow.sign(world.root / folder / "data.csv", signer=world.owner.signer, evidence_store=world.store)
    assert codes(world.check("L6")) == {"EVIDENCE_MISSING"}
    sealflow.sign(world.root / folder / "code.py", signer=world.owner.signer, evidence_store=world.store)
    verdict = world.check("L6")
    assert verdict.passed, verdict.summary()


def test_a_stage_without_data_hides_behind_one_that_makes_the_same_bytes(world: World) -> None:
    """Code alone is no beginning of data, whoever else made these bytes from some."""
    locked = json.loads((world.root / "dvc.lock").read_text())
    stages = json.loads((world.root / "dvc.yaml").read_text())
    code = locked["stages"]["make"]["deps"][0]
    locked["stages"]["forge"] = {"cmd": "f", "deps": [code], "outs": [out("forged.csv", "2\n")]}
    stages["stages"]["forge"] = {"cmd": "f", "deps": [code["path"]], "outs": ["forged.csv"]}
    ignored = "/raw.csv\n/data\n/*.csv\n"
    write(world.root, {"dvc.lock": locked, "dvc.yaml": stages, "forged.csv": "2\n", ".gitignore": ignored})
    world.there.repo.commit({})
    with context.run(Surroundings(world.run(2))):
        sign_lineage(str(world.root), ["forge"], signer=world.trainer.signer, evidence_store=world.store)
    assert codes(world.check("L6")) == {"LINEAGE_AMBIGUOUS"}
    assert codes(world.check("L6", targets=["forge"])) == {"LINEAGE_AMBIGUOUS"}


def test_a_rule_about_a_link_holds_for_the_repository_behind_it(world: World, deployment: Deployment) -> None:
    link = world.root.parent / "link"
    link.symlink_to(world.root)
    rules = [rule("repos", f"{link}/**", ("owner", "trainer"), require={"lineage": _lineage("L3")})]
    deployment.publish(policy(rules, _identities(world)))
    (world.root / "params.yaml").write_text("lr: 0.1\nother: 1\n")
    with context.run(Surroundings(GATE, admin=deployment.channel())):
        assert codes(check_lineage(str(link), level="L1")) == {"GIT_DIRTY"}


def test_data_with_rules_for_other_tasks_needs_a_rule(world: World, deployment: Deployment) -> None:
    """The repository has rules for this task and a part of its data has none, so nobody else may say who signs."""
    rules = [
        rule("data", f"{world.root}/data/**", ("owner",)),
        rule("raw", f"{world.root}/raw.csv", ("owner",), dag=["other"]),
    ]
    deployment.publish(policy(rules, _identities(world)))
    eve = deployment.key("eve")
    sign_lineage(str(world.root), ["raw.csv.dvc"], signer=eve.signer, evidence_store=world.store)
    given = {**world.arguments("L5"), "identities": str(eve.public)}
    with context.run(Surroundings(GATE, admin=deployment.channel())):
        assert codes(check_lineage(str(world.root), ["raw.csv.dvc"], **given)) == {"POLICY_NO_RULE"}
        # Below L5 signed statements are the quicker way only.
        assert check_lineage(str(world.root), ["raw.csv.dvc"], **{**given, "level": "L3"}).passed


def test_a_target_that_was_not_looked_at_is_none(world: World) -> None:
    write(world.root, {"nested/.dvc/config": "", "nested/x.dvc": {"outs": [out("x", "1")]}})
    with pytest.raises(UsageError, match="names no stage"):
        check_lineage(str(world.root), ["raw.csv.dvc", "nested"])


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("https://git.example/team/**", "https://GIT.Example/team/churn.git"),
        ("https://git.example/team/**", "https://git.example:443/team/churn.git"),
        ("https://git.example/team/**", "https://git.example//team/churn.git"),
        ("https://git.example/team/**", "https://git.example/%74eam/churn.git"),
        ("ssh://git@git.example/team/**", "ssh://git@git.example:0022/team/churn.git"),
        ("ssh://git@git.example/team/**", "git@GIT.example:team/churn.git"),
        ("ssh://git@git.example:2222/team/**", "ssh://git@git.EXAMPLE:2222/team/churn.git"),
        ("ssh://git@[::1]/team/**", "ssh://git@[::1]:22/team/churn.git"),
    ],
    ids=["case", "port", "slashes", "escape", "ssh port", "short form", "other port", "address"],
)
def test_no_spelling_of_a_server_slips_past_a_rule(
    deployment: Deployment, pattern: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that holds for another task alone refuses; no server is called here."""
    monkeypatch.setattr("sealflow.lineage.foreign.prepared", lambda *_, **__: contextlib.nullcontext(("", ())))
    deployment.publish(policy([rule("repos", pattern, dag=["other"])], {"trainer": deployment.identity()}))
    with context.run(Surroundings(GATE, admin=deployment.channel())):
        verdict = check_lineage(url, level="L1")
    assert codes(verdict) == {"POLICY_NO_RULE"}, verdict.summary()


@pytest.mark.parametrize("level", ["L5", "L6"])
def test_a_key_that_does_not_exist_is_the_callers_error(world: World, level: str) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.pem"):
        world.check(level, identities={"nobody": "/nowhere.pem"})


@pytest.mark.parametrize("level", ["L5", "L6"])
def test_who_vouched_before_he_was_revoked(world: World, deployment: Deployment, tmp_path: Path, level: str) -> None:
    """A statement about data counts by its timestamp, and the verdict says so; without one it does not count."""
    allowed = ("owner", "trainer")
    rules = [rule("repos", str(world.root), allowed), rule("data", f"{world.root}/**", allowed)]
    hint = f"sha256:{sha256_hex(world.owner.public.read_bytes())}"

    def check() -> Verdict:
        given = {name: value for name, value in world.arguments(level).items() if name != "identities"}
        with context.run(Surroundings(GATE, admin=deployment.channel())):
            return check_lineage(str(world.root), ["raw.csv.dvc"], **given)

    with TimestampAuthority(tmp_path / "authority").serving() as authority:
        believed = {"company": {"roots": authority.roots}}
        deployment.publish(policy(rules, _identities(world), timestamp_authorities=believed))
        deployment.revoke([{"key": hint, "since": at(hours=1), "reason": "stolen"}])
        assert "KEY_REVOKED" in codes(check())
        signer = stamped_by(world.owner.signer, authority.url)
        sign_lineage(str(world.root), ["raw.csv.dvc"], signer=signer, evidence_store=world.store)
    verdict = check()
    assert verdict.passed, verdict.summary()
    told = [item for item in verdict.findings if item.code == "SIGNED_BEFORE_REVOCATION"]
    assert any("lineage-" in item.subject for item in told), verdict.summary()
    assert {item.severity for item in told} == {"warning"}
