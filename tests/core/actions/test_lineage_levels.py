"""All levels over one repository, in a folder and from elsewhere, and what a policy makes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow import RunIdentity, Surroundings
from sealflow.actions import context
from sealflow.actions.lineage import check_lineage
from sealflow.actions.lineage_sign import sign_lineage
from sealflow.actions.trace import descendants, trace
from sealflow.errors import UsageError
from sealflow.findings import Verdict
from sealflow.hashing import dir_hash, sha256_hex
from sealflow.lineage.check import LEVELS
from tests.core.lineage.elsewhere import BRANCH, FOLDER, Elsewhere, folder_out, make, put
from tests.core.lineage.gitrepo import allowed, ssh_key
from tests.core.lineage.repos import lock, md5, out, write
from tests.core.policy.deployment import Deployment, policy, rule
from tests.pki import KeyPair, write_key

# Real repositories, or many signatures: minutes all together.
pytestmark = pytest.mark.slow

GATE = RunIdentity("airflow", "train", "gate", "run-1", None, 1)
CODE = "#!/bin/sh\n"
DECIDES = ("refusal", "unverifiable")


@dataclass
class World:
    """Somebody's repository with its data in place, signed by who owns the data and by the run that made the rest."""

    there: Elsewhere
    owner: KeyPair
    trainer: KeyPair
    store: str

    @property
    def root(self) -> Path:
        return self.there.repo.root

    def run(self, number: int = 1) -> RunIdentity:
        """A run of the training task. A process remembers what a run has read, so each test has runs of its own."""
        return RunIdentity("airflow", "train", "fit", f"{self.root}/{number}", None, 1)

    def sign(self) -> None:
        sign_lineage(str(self.root), ["raw.csv.dvc", "data.dvc"], signer=self.owner.signer, evidence_store=self.store)
        with context.run(Surroundings(self.run())):
            sign_lineage(str(self.root), ["make"], signer=self.trainer.signer, evidence_store=self.store)

    def arguments(self, level: str) -> dict[str, Any]:
        """What a level needs."""
        given: dict[str, Any] = {"level": level}
        if LEVELS[level] >= 3:
            given |= {"allowed_signers": allowed(ssh_key()), "branch": "refs/heads/main"}
        if LEVELS[level] >= 5:
            trainer = {"key": str(self.trainer.public), "producers": ["airflow:train/fit"]}
            given |= {"identities": {"owner": str(self.owner.public), "trainer": trainer}}
            given |= {"evidence_store": self.store}
        if LEVELS[level] >= 6:
            given |= {"roots": {"owner": str(self.owner.public)}}
        return given

    def check(self, level: str, **more: Any) -> Verdict:
        return check_lineage(str(self.root), **{**self.arguments(level), **more})

    def check_url(self, level: str, **more: Any) -> Verdict:
        given = {**self.arguments(level), "remote": str(self.there.remote), **more}
        if LEVELS[level] >= 3:
            given["branch"] = BRANCH
        return check_lineage(self.there.url, **given)


def codes(verdict: Verdict) -> set[str]:
    return {finding.code for finding in verdict.findings if finding.severity in DECIDES}


@pytest.fixture
def world(tmp_path: Path) -> World:
    there = make(tmp_path)
    locked = lock(
        make={
            "cmd": "go",
            "deps": [out("code/train.sh", CODE), folder_out("data", FOLDER), out("raw.csv", "1\n")],
            "outs": [out("out.csv", "2\n")],
            "params": {"params.yaml": {"lr": 0.1}},
        }
    )
    stage = {"cmd": "go", "deps": ["code/train.sh", "raw.csv", "data"], "outs": ["out.csv"], "params": ["lr"]}
    there.push({"dvc.yaml": {"stages": {"make": stage}}, "dvc.lock": locked})
    write(
        there.repo.root, {"raw.csv": "1\n", "out.csv": "2\n", **{f"data/{name}": data for name, data in FOLDER.items()}}
    )
    for name in ("owner", "trainer"):
        (tmp_path / name).mkdir()
    made = World(
        there, write_key(tmp_path / "owner"), write_key(tmp_path / "trainer"), (tmp_path / "evidence").as_uri()
    )
    made.sign()
    return made


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_holds(world: World, level: str) -> None:
    verdict = world.check(level)
    assert verdict.passed, verdict.summary()
    assert verdict.findings[-1].subject == level or any(item.subject == level for item in verdict.findings)


@pytest.mark.parametrize("level", ["L1", "L3", "L5", "L6"])
def test_every_level_holds_for_a_repository_from_elsewhere(world: World, level: str) -> None:
    verdict = world.check_url(level)
    assert verdict.passed, verdict.summary()
    assert verdict.artifact == world.there.url


def _edit(name: str, data: str) -> Callable[[World], None]:
    return lambda world: (world.root / name).write_text(data) and None


def _spoil_remote(world: World) -> None:
    put(world.there.remote, "X\n", digest=md5("2\n"))


def _lose_remote(world: World) -> None:
    (world.there.remote / "files/md5" / md5("2\n")[:2] / md5("2\n")[2:]).unlink()


def _forget(kind: str) -> Callable[[World], None]:
    def forget(world: World) -> None:
        for path in Path(world.store.removeprefix("file://")).glob(f"*/{kind}-*.json"):
            path.unlink()

    return forget


def _record_by_hand(world: World) -> None:
    """What `dvc commit --force` does: any file becomes the output of a stage."""
    write(world.root, {"out.csv": "evil\n"})
    locked = json.loads((world.root / "dvc.lock").read_text())
    locked["stages"]["make"]["outs"] = [out("out.csv", "evil\n")]
    write(world.root, {"dvc.lock": locked})
    put(world.there.remote, "evil\n")
    world.there.repo.commit({})


def _other_inputs(world: World) -> None:
    """The run that signed the output had read something else than the lock says."""
    _forget("provenance")(world)
    extra = world.root.parent / "extra"
    extra.write_text("more")
    ref = sealflow.sign(extra, signer=world.owner.signer)
    with context.run(Surroundings(world.run(2))):
        assert sealflow.verify(ref, identities=str(world.owner.public)).passed
        sign_lineage(str(world.root), ["make"], signer=world.trainer.signer, evidence_store=world.store)
    sign_lineage(str(world.root), ["raw.csv.dvc", "data.dvc"], signer=world.owner.signer, evidence_store=world.store)


def _not_an_owner(world: World) -> None:
    """Whoever trained signs the data too."""
    _forget("provenance")(world)
    with context.run(Surroundings(world.run())):
        sign_lineage(str(world.root), signer=world.trainer.signer, evidence_store=world.store)


#: Name, what is done, the level from which on it is seen, and a code that says so.
ATTACKS: list[tuple[str, Callable[[World], None], str, str]] = [
    ("data edited", _edit("raw.csv", "9\n"), "L1", "DATA_MISMATCH"),
    ("parameters edited", _edit("params.yaml", "lr: 9\n"), "L2", "PARAMS_DRIFT"),
    ("lock not committed", _edit("params.yaml", "lr: 0.1\nother: 1\n"), "L3", "GIT_DIRTY"),
    ("remote overwritten", _spoil_remote, "L4", "REMOTE_CORRUPT"),
    ("remote lost an object", _lose_remote, "L4", "REMOTE_MISSING"),
    ("nobody signed", _forget("lineage"), "L5", "MD5_UNBOUND"),
    ("output recorded by hand", _record_by_hand, "L5", "MD5_UNBOUND"),
    ("no provenance", _forget("provenance"), "L6", "EVIDENCE_MISSING"),
    ("the run read more", _other_inputs, "L6", "INPUTS_DIFFER"),
    ("no data owner signed", _not_an_owner, "L6", "ROOT_NOT_ALLOWED"),
]


@pytest.mark.parametrize(("attack", "level", "code"), [item[1:] for item in ATTACKS], ids=[item[0] for item in ATTACKS])
def test_attacks_are_seen_from_their_level_on(
    world: World, attack: Callable[[World], None], level: str, code: str
) -> None:
    attack(world)
    for name, number in LEVELS.items():
        verdict = world.check(name)
        if number < LEVELS[level]:
            assert verdict.passed, verdict.summary()
        else:
            assert (verdict.status, code in codes(verdict)) == ("failed", True), (name, verdict.summary())


def test_code_that_no_commit_holds_needs_an_owner(world: World) -> None:
    """L3 looks at the files of DVC; what a stage runs is looked at from L6 on."""
    world.there.repo.git("rm", "-q", "--cached", "code/train.sh")
    write(world.root, {".git/info/exclude": "/code\n"})
    world.there.repo.commit({}, message="Forget the code")
    assert world.check("L5").passed
    assert "code/train.sh" in {item.subject for item in world.check("L6").findings if item.severity == "refusal"}
    sealflow.sign(world.root / "code/train.sh", signer=world.owner.signer, evidence_store=world.store)
    verdict = world.check("L6")
    assert verdict.passed, verdict.summary()


def test_a_listed_digest_is_a_beginning(world: World) -> None:
    digests = [f"sha256:{sha256_hex(b'1' + bytes([10]))}"]
    assert "ROOT_NOT_ALLOWED" in codes(world.check("L6", roots=None, datasets=digests))
    tree = dir_hash((name, sha256_hex(data)) for name, data in FOLDER.items())
    verdict = world.check("L6", roots=None, datasets=[*digests, str(tree)])
    assert verdict.passed, verdict.summary()


def test_a_clone_checks_what_was_pushed(world: World) -> None:
    _spoil_remote(world)
    verdict = world.check_url("L3")
    assert not verdict.passed
    assert verdict.artifact == world.there.url
    world.there.repo.key = ssh_key(owner="eve")
    world.there.push({"params.yaml": {"lr": 0.1, "more": 1}})
    put(world.there.remote, "2\n")
    assert codes(world.check_url("L3")) == {"SIGNER_NOT_ALLOWED"}


def test_arguments_are_not_passed_over(world: World) -> None:
    with pytest.raises(UsageError, match="level L6"):
        check_lineage(str(world.root), level="L5", roots=str(world.owner.public))
    with pytest.raises(UsageError, match="Name the evidence store"):
        world.check_url("L5", evidence_store=None)


# --- The policy ---


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "deployment")


def _lineage(world: World, level: str, **more: Any) -> dict[str, Any]:
    signers = f"ada@example.org {ssh_key().with_name(ssh_key().name + '.pub').read_text()}"
    commits = {"allowed_signers": signers, "branch": "refs/heads/main"}
    return {"level": level, **({"commits": commits} if LEVELS[level] >= 3 else {}), **more}


def _under(deployment: Deployment, world: World, body: dict[str, Any], **more: Any) -> Verdict:
    deployment.publish(body)
    with context.run(Surroundings(GATE, admin=deployment.channel())):
        return check_lineage(str(world.root), **more)


def _identities(world: World) -> dict[str, Any]:
    return {
        "owner": {"key": world.owner.public.read_text()},
        "trainer": {"key": world.trainer.public.read_text(), "producers": ["airflow:train/fit"]},
    }


def test_a_rule_raises_the_level(world: World, deployment: Deployment) -> None:
    rules = [rule("repos", f"{world.root.parent}/**", ("owner", "trainer"), require={"lineage": _lineage(world, "L3")})]
    verdict = _under(deployment, world, policy(rules, _identities(world)), level="L1")
    assert verdict.passed, verdict.summary()
    assert [item.subject for item in verdict.findings if item.code == "LINEAGE_LEVEL"] == ["L3"]
    assert verdict.rules == ("repos",)
    (world.root / "params.yaml").write_text("lr: 0.1\nother: 1\n")
    assert codes(_under(deployment, world, policy(rules, _identities(world)), level="L1")) == {"GIT_DIRTY"}


def test_a_rule_says_whom_to_believe(world: World, deployment: Deployment) -> None:
    lineage = _lineage(world, "L6", roots=["owner"])
    rules = [rule("repos", f"{world.root.parent}/**", ("owner", "trainer"), require={"lineage": lineage})]
    verdict = _under(deployment, world, policy(rules, _identities(world)), evidence_store=world.store)
    assert verdict.passed, verdict.summary()
    lineage = _lineage(world, "L6", roots=["trainer"])
    rules = [rule("repos", f"{world.root.parent}/**", ("owner", "trainer"), require={"lineage": lineage})]
    verdict = _under(deployment, world, policy(rules, _identities(world)), evidence_store=world.store)
    assert "ROOT_NOT_ALLOWED" in codes(verdict), verdict.summary()


def test_a_call_cannot_widen_who_may_sign_commits(world: World, deployment: Deployment) -> None:
    eve = f"eve@example.org {ssh_key(owner='eve').with_name(ssh_key(owner='eve').name + '.pub').read_text()}"
    lineage = {"level": "L3", "commits": {"allowed_signers": eve, "branch": "refs/heads/main"}}
    rules = [rule("repos", f"{world.root.parent}/**", ("owner",), require={"lineage": lineage})]
    verdict = _under(
        deployment,
        world,
        policy(rules, _identities(world)),
        allowed_signers=allowed(ssh_key()),
        branch="refs/heads/main",
    )
    assert codes(verdict) == {"SIGNER_NOT_ALLOWED"}


def test_an_audited_rule_says_what_it_would_ask(world: World, deployment: Deployment) -> None:
    lineage = _lineage(world, "L3")
    rules = [rule("repos", f"{world.root.parent}/**", ("owner",), require={"lineage": lineage}, level="audit")]
    (world.root / "params.yaml").write_text("lr: 0.1\nother: 1\n")
    verdict = _under(deployment, world, policy(rules, _identities(world)), level="L2")
    assert verdict.passed
    assert "POLICY_AUDIT" in {item.code for item in verdict.findings}


def test_no_rule_for_this_task_refuses(world: World, deployment: Deployment) -> None:
    rules = [rule("repos", f"{world.root.parent}/**", ("owner",), dag="other", require={"lineage": {"level": "L1"}})]
    rules[0]["scope"]["dag"] = ["other"]
    assert codes(_under(deployment, world, policy(rules, _identities(world)), level="L1")) == {"POLICY_NO_RULE"}


def test_an_unreadable_policy_is_no_pass(world: World, deployment: Deployment) -> None:
    channel = deployment.channel(managed=[f"{world.root.parent}/**"])
    with context.run(Surroundings(GATE, admin=channel)):
        verdict = check_lineage(str(world.root), level="L1")
    assert (verdict.status, codes(verdict)) == ("unverifiable", {"POLICY_UNAVAILABLE"})


# --- Around the levels ---


def test_call_and_policy_may_both_name_beginnings(world: World, deployment: Deployment) -> None:
    lineage = _lineage(world, "L6", roots=["owner"])
    rules = [rule("repos", f"{world.root.parent}/**", ("owner", "trainer"), require={"lineage": lineage})]
    body = policy(rules, _identities(world))
    given: dict[str, Any] = {"evidence_store": world.store}
    assert _under(deployment, world, body, roots=str(world.owner.public), **given).passed
    refused = _under(deployment, world, body, roots=str(world.trainer.public), **given)
    assert "ROOT_NOT_ALLOWED" in codes(refused), refused.summary()


def test_two_stages_may_make_the_same_bytes(world: World) -> None:
    """An empty file is made in many ways; joined by digest, their runs name different inputs."""
    locked = json.loads((world.root / "dvc.lock").read_text())
    stages = json.loads((world.root / "dvc.yaml").read_text())
    locked["stages"]["copy"] = {"cmd": "c", "deps": [out("raw.csv", "1\n")], "outs": [out("copy.csv", "2\n")]}
    stages["stages"]["copy"] = {"cmd": "c", "deps": ["raw.csv"], "outs": ["copy.csv"]}
    write(
        world.root,
        {"dvc.lock": locked, "dvc.yaml": stages, "copy.csv": "2\n", ".gitignore": "/raw.csv\n/data\n/*.csv\n"},
    )
    world.there.repo.commit({})
    with context.run(Surroundings(world.run(3))):
        sign_lineage(str(world.root), ["copy"], signer=world.trainer.signer, evidence_store=world.store)
    verdict = world.check("L6")
    assert verdict.passed, verdict.summary()
    locked["stages"]["copy"]["deps"] = [folder_out("data", FOLDER)]
    stages["stages"]["copy"]["deps"] = ["data"]
    write(world.root, {"dvc.lock": locked, "dvc.yaml": stages})
    world.there.repo.commit({})
    assert "LINEAGE_AMBIGUOUS" in codes(world.check("L6"))


def test_what_a_repository_holds_is_found_without_naming_the_store(world: World) -> None:
    for name in ("raw.csv", "out.csv"):
        assert not sealflow.verify(world.root / name, identities=str(world.owner.public)).passed
    sign_lineage(str(world.root), ["raw.csv.dvc", "data.dvc"], signer=world.owner.signer)
    with context.run(Surroundings(world.run())):
        sign_lineage(str(world.root), ["make"], signer=world.trainer.signer)
    both = {"owner": str(world.owner.public), "trainer": str(world.trainer.public)}
    assert sealflow.verify(world.root / "out.csv", identities=both).passed
    traced = trace(world.root / "out.csv", identities=both, roots={"owner": str(world.owner.public)})
    assert traced.verdict.passed, traced.verdict.summary()
    store = f"{world.root.as_uri()}.evidence"
    found = descendants(world.root / "raw.csv", identities=both, evidence_stores=[store])
    assert {node.name for node in found.graph.nodes.values()} == {"raw.csv", "out.csv"}
    assert not any(place.endswith("/work") for node in found.graph.nodes.values() for place in node.locations)


def test_a_folder_that_may_not_be_read_is_no_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def stat(path: Any, *more: Any, **named: Any) -> os.stat_result:
        # The tests may run as root, who may look into everything.
        if str(path).endswith("/.dvc/."):
            raise PermissionError
        return real(path, *more, **named)

    monkeypatch.setattr(os, "stat", stat)
    verdict = world.check("L1")
    assert (verdict.status, codes(verdict)) == ("unverifiable", {"PERMISSION_DENIED"})
