"""Attacks by absence: backends out of reach, settings left empty. Silence is never a pass."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from typing import Any

import pytest

import sealflow
from sealflow.errors import SealflowError, UnavailableError, UsageError
from sealflow.run_identity import RunIdentity
from sealflow.storage.local import LocalStorage
from tests.attacks.world import World

# --- Nobody was named ---


@pytest.mark.parametrize("identities", [None, "", [], {}, (), "[]", "{}"], ids=repr)
def test_nobody_named(world: World, identities: Any) -> None:
    world.refuses("IDENTITY_RULE_MISSING", 4, identities=identities)


@pytest.mark.parametrize(
    "identities",
    [
        [""],
        [None],
        [{}],
        {"a": ""},
        {"a": None},
        {"a": {}},
        {"key": ""},
        {"key": None},
        {"certificate": {}},
        {"certificate": None},
        '""',
        "null",
        "[null]",
        " ",
        b"",
        b"x",
        5,
        True,
        {"a": {"key": "x", "producers": []}},
        {"a": {"key": "x", "producers": [""]}},
        {"a": {"key": "x", "builders": []}},
        {"a": {"key": "x", "verify": False}},
        {"a": {"key": "x", "certificate": {"roots": "y", "names": ["dns:z"]}}},
        ["x"] * 65,
    ],
    ids=lambda value: repr(value)[:40],
)
def test_nobody_named_rightly(tree: World, identities: Any) -> None:
    try:
        outcome = tree.check(identities=identities)
    except UsageError:
        return
    assert outcome.status == "failed"


@pytest.mark.parametrize("require", [[], (), "", ["everything"], [""], ["signature", "x"], "none", [None]], ids=repr)
def test_nothing_required(tree: World, require: Any) -> None:
    with pytest.raises(UsageError):
        tree.check(require=require)


# --- Keys ---


def _unreadable(world: World) -> str:
    # A loop of links cannot be read by anybody, root included.
    path = world.folder / "loop.pem"
    path.symlink_to(path)
    return str(path)


def test_key_file_missing_is_a_usage_error(world: World) -> None:
    for identities in (["/nowhere.pem"], [str(world.trainer.public), "/nowhere.pem"]):
        with pytest.raises(UsageError) as caught:
            world.check(identities=identities)
        assert caught.value.code == "KEY_MISSING"
    assert os.listdir(world.tmp) == []


def test_key_file_unreadable(world: World) -> None:
    world.refuses("BACKEND_UNAVAILABLE", 5, identities=_unreadable(world))


def test_key_file_unreadable_beside_one_that_holds(world: World) -> None:
    outcome = world.passes(identities=[_unreadable(world), str(world.trainer.public)])
    assert "BACKEND_UNAVAILABLE" in outcome.noted


def test_key_file_unreadable_beside_a_stranger(world: World) -> None:
    world.refuses("BACKEND_UNAVAILABLE", 5, identities=[str(world.stranger.public), _unreadable(world)])


def test_key_file_unreadable_and_bytes_changed(world: World) -> None:
    world.victim.write_bytes(b"malicious")
    outcome = world.check(identities=[str(world.trainer.public), _unreadable(world)])
    assert outcome.status != "passed"


def test_roots_unreadable(world: World) -> None:
    rule = {"certificate": {"roots": _unreadable(world), "names": ["dns:x"]}}
    assert world.check(identities=rule).status != "passed"
    # Nothing was signed with a certificate, so the roots were not needed.
    world.passes(identities=[rule, str(world.trainer.public)])


def test_private_key_as_identity_is_a_usage_error(tree: World) -> None:
    with pytest.raises(UsageError):
        tree.check(identities=str(tree.trainer.private))


class _Down:
    """A key service that does not answer."""

    asked = 0

    @classmethod
    def public_key(cls, uri: str, client: Any = None) -> Any:
        cls.asked += 1
        raise UnavailableError("KMS cannot be reached.")


@pytest.fixture
def kms_down(monkeypatch: pytest.MonkeyPatch) -> type[_Down]:
    monkeypatch.setattr("sealflow.keys.awskms.public_key", _Down.public_key)
    monkeypatch.setattr(_Down, "asked", 0)
    return _Down


def test_key_service_down(world: World, kms_down: type[_Down]) -> None:
    world.refuses("BACKEND_UNAVAILABLE", 5, identities="awskms:alias/trainer")


def test_key_service_down_beside_a_key_that_holds(world: World, kms_down: type[_Down]) -> None:
    for order in (["awskms:alias/trainer", str(world.trainer.public)], [str(world.trainer.public), "awskms:alias/x"]):
        world.passes(identities=order)


def test_key_service_down_is_asked_once_however_much_was_planted(tree: World, kms_down: type[_Down]) -> None:
    (real,) = tree.objects("signature")
    for number in range(100):
        tree.plant(real.read_bytes() + b" " * (number + 1))
    tree.check(identities="awskms:alias/trainer")
    assert kms_down.asked <= 2  # once for the evidence, once for the policy's digest


# --- Evidence ---


@pytest.fixture
def store_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, uri: str, limit: int) -> Any:
        raise UnavailableError("The store does not answer.")

    monkeypatch.setattr(LocalStorage, "list_objects", fail)


@pytest.mark.usefixtures("store_down")
def test_store_out_of_reach(world: World) -> None:
    world.refuses("BACKEND_UNAVAILABLE", 5)


@pytest.mark.usefixtures("store_down")
def test_store_out_of_reach_and_bytes_changed(world: World) -> None:
    world.victim.write_bytes(b"x")
    assert world.check().status != "passed"


def test_evidence_out_of_reach(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, uri: str, limit: int) -> Any:
        raise UnavailableError("No permission.", code="PERMISSION_DENIED")

    monkeypatch.setattr(LocalStorage, "get", fail)
    world.refuses("PERMISSION_DENIED", 5)


def test_evidence_that_vanishes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "get", lambda self, uri, limit: None)
    world.refuses("BACKEND_UNAVAILABLE", 5)


# --- Artifact ---


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_artifact_out_of_reach(world: World, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    class Broken:
        fstat = staticmethod(fail)

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    monkeypatch.setattr("sealflow.storage.local.os", Broken())
    world.refuses({"BACKEND_UNAVAILABLE", "PERMISSION_DENIED"}, 5)


def test_cloud_library_with_exceptions_of_its_own(tree: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class HttpError(Exception):
        pass

    def fail(*_: Any, **__: Any) -> Any:
        raise HttpError("503")

    monkeypatch.setattr(MemoryFileSystem, "info", fail)
    tree.refuses("BACKEND_UNAVAILABLE", 5, "memory://bucket/model", evidence_store=str(tree.store))
    monkeypatch.setattr(MemoryFileSystem, "ls", fail)
    tree.refuses("BACKEND_UNAVAILABLE", 5, evidence_store="memory://bucket/evidence")


# --- Audit ---


def test_no_audit_no_check(world: World) -> None:
    class Full:
        def record(self, event: Any) -> None:
            raise UnavailableError("The disk is full.", code="AUDIT_UNAVAILABLE")

    with pytest.raises(UnavailableError):
        world.check(audit=Full())
    assert os.listdir(world.tmp) == []


def test_no_audit_of_the_outcome_no_copy(tree: World) -> None:
    class Fails:
        calls = 0

        def record(self, event: Any) -> None:
            self.calls += 1
            if self.calls == 2:
                raise UnavailableError("The disk is full.", code="AUDIT_UNAVAILABLE")

    tree.held = True
    with pytest.raises(UnavailableError):
        tree.check(audit=Fails())
    assert os.listdir(tree.tmp) == []


def test_no_audit_no_signature(tree: World) -> None:
    tree.remove()

    class Full:
        def record(self, event: Any) -> None:
            raise UnavailableError("The disk is full.", code="AUDIT_UNAVAILABLE")

    with pytest.raises(UnavailableError):
        tree.sign(audit=Full())
    assert tree.objects() == []


# --- What the surroundings of a task can change ---


def test_environment_cannot_replace_what_a_caller_says(tree: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_IDENTITIES", str(tree.stranger.public))
    monkeypatch.setenv("SEALFLOW_EVIDENCE_STORE", str(tree.folder / "nowhere"))
    tree.remove()
    tree.sign(signer=tree.stranger.signer, evidence_store=str(tree.store))
    tree.refuses("SIGNER_NOT_ALLOWED", 4, evidence_store=str(tree.store))
    tree.refuses("IDENTITY_RULE_MISSING", 4, evidence_store=str(tree.store), identities=[])


def test_settings_of_the_run_stand_before_the_environment(tree: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_IDENTITIES", str(tree.stranger.public))
    settings = sealflow.Settings(identities=str(tree.trainer.public))
    with sealflow.run(sealflow.Surroundings(settings=settings)):
        assert sealflow.verify(str(tree.artifact)).passed
    assert not sealflow.verify(str(tree.artifact)).passed


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b"null", b"\xff", b'{"identitys": "x"}', b'{"signer": 5}', b"[" * 100_000]
)
def test_settings_that_cannot_be_read_are_no_empty_settings(
    tree: World, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    (tree.folder / "sealflow.json").write_bytes(content)
    monkeypatch.setenv("SEALFLOW_MOUNT", str(tree.folder))
    with pytest.raises(UsageError):
        tree.check()


# --- Whatever is handed in, only our own errors come out ---


@pytest.mark.parametrize(
    "artifact",
    [
        *("", " ", "\0", "a\0b", "\ud800", "{", "[]", "::", "a::b", "://", "x" * 5000),
        *("s3://", "s3://\ud800/x", "file://", "file://host/x", "gs://", "foo://bar", "awskms:alias/x"),
        *("/dev/null", "/proc/self/mem", "/", ".", "nowhere"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_odd_location(tree: World, artifact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.folder)
    (tree.folder / "sub").mkdir()
    monkeypatch.chdir(tree.folder / "sub")
    if artifact == "/":
        monkeypatch.setattr("sealflow.storage.local._walk", lambda fd, prefix, names: None)
    try:
        outcome = tree.check(artifact, evidence_store=str(tree.store))
    except SealflowError:
        return
    assert outcome.status in ("failed", "unverifiable")


@pytest.mark.parametrize("name", [b"\xff", b"a\x1b[2J", b"a\nb", b"..."], ids=repr)
def test_odd_name_of_the_artifact_itself(tree: World, name: bytes) -> None:
    path = os.path.join(os.fsencode(tree.folder), name)
    os.mkdir(path)
    with open(os.path.join(path, b"x"), "wb") as file:
        file.write(b"x")
    artifact = os.fsdecode(path)
    good = name == b"..."
    with contextlib.nullcontext() if good else pytest.raises(SealflowError) as caught:
        sealflow.sign(artifact, signer=tree.trainer.signer, evidence_store=str(tree.folder / "s"))
    assert good or "\x1b" not in str(caught.value)
    outcome = tree.check(artifact, evidence_store=str(tree.folder / "s"))
    assert (outcome.status == "passed") is good


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "x" * 5000], ids=["line-feed", "escape", "long"])
def test_odd_name_of_the_run(tree: World, text: str) -> None:
    with pytest.raises(UsageError):
        tree.sign(run=RunIdentity("airflow", text, "t", "r"))


@pytest.mark.parametrize("field", ["name", "producer"])
def test_terminal_escape_under_a_signature(tree: World, field: str) -> None:
    """A signer who is allowed may still try to write on the terminal of whoever checks."""
    statement = tree.payload("provenance")
    if field == "producer":
        statement["predicate"]["buildDefinition"]["externalParameters"]["producer"] = "airflow:\x1b[2J/x"
    name = "\x1b[2Jmodel" if field == "name" else "model"
    digests = statement["subject"][0]["digest"]
    tree.remove("provenance")
    tree.plant(tree.statement(statement["predicateType"], statement["predicate"], digests, name=name), "provenance")
    outcome = tree.refuses("EVIDENCE_MALFORMED")
    assert "\x1b" not in json.dumps(outcome.verdict.as_dict(), ensure_ascii=False) + outcome.verdict.summary()


def test_deep_tree(tree: World) -> None:
    deep = tree.folder / "deep"
    deep.mkdir()
    fd = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    try:
        tree.refuses("ARTIFACT_REFUSED", 3, str(deep), evidence_store=str(tree.store))
    finally:
        # Python's own removal recurses, and would take the whole test run down with it.
        subprocess.run(["rm", "-rf", str(deep)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lock",
    [
        b"[" * 500_000,
        b"- " * 200_000,
        b"{a: " * 200_000,
        b"stages: 2001-99-99",
        b"stages: {a: {outs: [{path: [x]}]}}",
        b"stages: {a: {outs: [5]}}",
        b"stages: 5",
        b"\xff\xfe\x00",
        b"a: &a [*a]",
        b"x: &x {outs: [%b]}\nstages: {%b}" % (b"{path: y}," * 100_000, b"".join(b"s%d: *x," % n for n in range(9999))),
    ],
    ids=["sequences", "block", "mappings", "date", "list-path", "number", "stages", "utf-16", "loop", "aliases"],
)
@pytest.mark.timeout(60)
def test_hostile_lock_file_above_the_artifact(tree: World, lock: bytes) -> None:
    """Whoever can write beside an artifact can leave a file that we read to find out where evidence may lie."""
    (tree.folder / "dvc.lock").write_bytes(lock)
    tree.passes(evidence_store=str(tree.store))
    try:
        tree.check()
    except UsageError:
        return


@pytest.mark.slow
def test_verdict_stays_small(tree: World) -> None:
    for number in range(3000):
        (tree.artifact / f"{'x' * 200}{number}").write_bytes(b"")
    (real,) = tree.objects("signature")
    for number in range(100):
        tree.plant(real.read_bytes() + b" " * (number + 1))
    outcome = tree.refuses("FILE_UNSIGNED", 3, tree.signed.ref)
    text = json.dumps(outcome.verdict.as_dict())
    assert len(outcome.verdict.as_dict()["findings"]) == 100
    assert outcome.verdict.as_dict()["findings_omitted"] > 0
    assert len(text) < 300_000


def test_verdict_of_many_copies_stays_small(tree: World) -> None:
    for kind in ("signature", "provenance"):
        (real,) = tree.objects(kind)
        for number in range(100):
            tree.plant(real.read_bytes() + b" " * (number + 1), kind)
    outcome = tree.passes()
    assert len(json.dumps(outcome.verdict.as_dict())) < 30_000
