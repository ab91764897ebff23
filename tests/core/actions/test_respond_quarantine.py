"""Quarantine: revoked first, moved whole, found by no reference, and no byte lost whenever it is killed."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions.quarantine_moving import Move
from sealflow.actions.respond_quarantine import Quarantined, quarantine
from sealflow.actions.revocation_list import read_list
from sealflow.actions.verify import verify
from sealflow.errors import ArtifactError, SealflowError, UsageError
from sealflow.hashing import Digest
from sealflow.manifest import build_manifest
from sealflow.storage import Storages
from tests.audit_events import read_events
from tests.core.conftest import Cli, body
from tests.core.policy.deployment import Deployment
from tests.servers.s3 import S3Server

FILES = {"weights.bin": b"w" * 100_000, "sub/config.json": b"{}", "sub/tokens": b"t" * 10}


@pytest.fixture(autouse=True)
def _spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


class Scene(Deployment):
    """A model on disk, signed, and an admin who may revoke it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.model = folder / "lake" / "model"
        self.prefix = folder / "quarantine"
        self.list = folder / "admin" / "list.json"
        for name, data in FILES.items():
            path = self.model / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.single = folder / "lake" / "single.bin"
        self.single.write_bytes(b"one file")

    def sign(self, path: Path | None = None) -> sealflow.ArtifactRef:
        return sealflow.sign(path or self.model, signer=self.key("trainer").signer)

    def check(self, ref: sealflow.ArtifactRef) -> str:
        return verify(ref, identities={"trainer": str(self.key("trainer").public)}).status

    def quarantine(self, artifact: Any, **options: Any) -> Quarantined:
        given: dict[str, Any] = {
            "to": str(self.prefix),
            "reason": "poisoned",
            "list_place": str(self.list),
            "signer": self.key("admin").signer,
            "new_list": True,
            **options,
        }
        return quarantine(artifact, **given)

    def revoked(self) -> set[str | None]:
        found = read_list(str(self.list), [str(self.key("admin").public)])
        return {item.digest for item in found.document.revocations} if found is not None else set()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "scene")


def content(place: str) -> Digest:
    storages = Storages()
    storage = storages.for_uri(place)
    found = storage.locate(place)
    assert found is not None, place
    return build_manifest(storage, found).digest


@pytest.mark.parametrize("kind", ["model", "single"])
def test_moved_with_its_evidence_and_revoked(scene: Scene, kind: str) -> None:
    path = scene.model if kind == "model" else scene.single
    ref = scene.sign(path)
    assert scene.check(ref) == "passed"
    done = scene.quarantine(ref)
    assert not path.exists()
    assert content(done.place) == ref.digest == done.digest
    assert scene.revoked() == {str(ref.digest)}
    assert scene.check(ref) == "failed"
    # The evidence is where the bytes are, and still says what it said.
    kept = sealflow.ArtifactRef(done.place, ref.digest, done.evidence)
    assert scene.check(kept) == "passed"
    assert oct(scene.prefix.stat().st_mode & 0o777) == "0o700"
    assert [item.name for item in path.parent.iterdir() if item.name.startswith(".")] == []


def test_copies_elsewhere_are_refused_under_the_policy(scene: Scene) -> None:
    """That is what the revocation is for: the move alone reaches one place of many."""
    from tests.core.policy.deployment import policy, rule

    ref = scene.sign()
    copy = scene.folder / "lake" / "copy"
    import shutil

    shutil.copytree(scene.model, copy)
    scene.publish(policy([rule("all", "**", ["trainer"])], scene.identities("trainer")))
    elsewhere = sealflow.ArtifactRef(f"file://{copy}", ref.digest, ref.evidence)

    def status(**more: Any) -> tuple[str, set[str]]:
        with sealflow.run(sealflow.Surroundings(admin=scene.channel(**more))):
            verdict = verify(elsewhere)
        return verdict.status, {item.code for item in verdict.findings if item.severity == "refusal"}

    assert status() == ("passed", set())
    scene.quarantine(ref)
    assert status(revocations=str(scene.list)) == ("failed", {"ARTIFACT_REVOKED"})


def test_again_is_a_success(scene: Scene) -> None:
    ref = scene.sign()
    first = scene.quarantine(ref)
    for again in (ref, str(scene.model)):
        second = scene.quarantine(again)
        assert (second.existed, second.place, second.revoked) == (True, first.place, first.revoked)
    # The same bytes made there anew are moved, too.
    for name, data in FILES.items():
        path = scene.model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert not scene.quarantine(ref).existed
    assert not scene.model.exists()


def test_other_bytes_are_left_alone(scene: Scene) -> None:
    ref = scene.sign()
    (scene.model / "weights.bin").write_bytes(b"new and good")
    with pytest.raises(ArtifactError, match="Other bytes"):
        scene.quarantine(ref)
    assert (scene.model / "weights.bin").read_bytes() == b"new and good"
    assert scene.revoked() == set()


@pytest.mark.parametrize(
    "options",
    [{"list_place": None}, {"signer": None}, {"to": "http://web/x"}, {"signer": "file:/nowhere.pem"}],
    ids=repr,
)
def test_what_cannot_work_moves_nothing(scene: Scene, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        scene.quarantine(scene.model, **options)
    assert content(str(scene.model))


def test_prefixes_that_overlap(scene: Scene) -> None:
    for to in (scene.model / "inside", scene.model, scene.folder / "lake"):
        with pytest.raises(UsageError, match="inside of"):
            scene.quarantine(scene.model, to=str(to))
    with pytest.raises(ArtifactError, match="Nothing lies"):
        scene.quarantine(scene.folder / "nothing")


def test_without_revocation_it_says_what_is_open(scene: Scene) -> None:
    done = scene.quarantine(scene.model, revoked=False, list_place=None, signer=None)
    assert done.revoked is None
    assert any("not revoked" in text for text in done.warnings)


def test_unsound_evidence_is_kept_byte_for_byte(scene: Scene) -> None:
    ref = scene.sign()
    store = Path(ref.evidence.removeprefix("file://")) / ref.digest.path_segment
    (store / "nonsense.txt").write_bytes(b"left by the thief")
    (store / ("provenance-" + "0" * 64 + ".json")).write_bytes(b"{}")
    done = scene.quarantine(ref)
    kept = Path(done.evidence.removeprefix("file://")) / ref.digest.path_segment
    assert {item.name: item.read_bytes() for item in kept.iterdir()} == {
        item.name: item.read_bytes() for item in store.iterdir()
    }


def test_another_file_system(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def across(source: str, target: str) -> None:
        if ".quarantined" in str(source) and "/artifact/" in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", across)
    digest = content(str(scene.model))
    assert content(scene.quarantine(scene.model).place) == digest
    assert not scene.model.exists()


def test_written_to_while_it_is_moved(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def late(source: str, target: str) -> None:
        if ".quarantined" in str(target):
            (scene.model / "late").write_bytes(b"late")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(ArtifactError) as caught:
        scene.quarantine(scene.model)
    assert caught.value.code == "ARTIFACT_CHANGED"
    assert (scene.model / "late").read_bytes() == b"late"


def remake(scene: Scene, files: dict[str, bytes] = FILES) -> None:
    for name, data in files.items():
        path = scene.model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_written_to_while_it_is_moved_a_second_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in quarantine already; what is renamed aside is read all the same before any of it is removed."""
    scene.quarantine(scene.model)
    remake(scene)
    rename = os.rename

    def late(source: str, target: str) -> None:
        if ".quarantined" in str(target):
            (scene.model / "weights.bin").write_bytes(b"NEW BYTES")
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(ArtifactError):
        scene.quarantine(scene.model)
    assert (scene.model / "weights.bin").read_bytes() == b"NEW BYTES"


@pytest.mark.parametrize("other", [False, True], ids=["the same", "another"])
def test_remade_after_an_attempt_died(scene: Scene, other: bool) -> None:
    """An attempt had taken it aside; what lies there by now is what is asked for."""
    old = content(str(scene.model))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Move, "_bring", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scene.quarantine(scene.model)
    assert not scene.model.exists()
    remake(scene, {**FILES, "weights.bin": b"other"} if other else FILES)
    new = content(str(scene.model))
    done = scene.quarantine(scene.model)
    assert not scene.model.exists()
    assert done.digest == new
    assert scene.revoked() == {str(old), str(new)}
    for digest in (old, new):
        assert content(str(scene.prefix / digest.path_segment / "artifact" / "model")) == digest


def test_what_is_written_after_it_was_moved_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Move.run

    def then(self: Move) -> None:
        run(self)
        remake(scene, {"weights.bin": b"new and good"})

    monkeypatch.setattr(Move, "run", then)
    done = scene.quarantine(scene.model)
    assert any("meanwhile" in text for text in done.warnings)
    assert (scene.model / "weights.bin").read_bytes() == b"new and good"


@pytest.mark.server
@pytest.mark.xdist_group("s3")
def test_in_s3_nothing_is_removed_that_was_not_copied(
    scene: Scene, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealflow.storage.s3 import S3Storage

    client, bucket = s3_server.client(), s3_server.make_bucket()
    for name, data in FILES.items():
        client.put_object(Bucket=bucket, Key=f"lake/model/{name}", Body=data)
    facts = S3Storage.facts

    def late(self: S3Storage, uri: str) -> Any:
        if uri.endswith("weights.bin"):
            client.put_object(Bucket=bucket, Key="lake/model/weights.bin", Body=b"NEW BYTES")
        return facts(self, uri)

    monkeypatch.setattr(S3Storage, "facts", late)
    with pytest.raises(ArtifactError, match="written to"):
        scene.quarantine(f"s3://{bucket}/lake/model", to=f"s3://{bucket}/quarantine", storages=Storages(client))
    assert client.get_object(Bucket=bucket, Key="lake/model/weights.bin")["Body"].read() == b"NEW BYTES"


def test_the_intent_comes_before_the_act(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[str, str]]] = []
    run = Move.run

    def looking(self: Move) -> None:
        seen.append([(event["action"], event["phase"]) for event in read_events(tmp_path / "spool")])
        run(self)

    monkeypatch.setattr(Move, "run", looking)
    digest = content(str(scene.model))
    scene.quarantine(scene.model)
    assert seen[0][0] == ("quarantine", "intent")
    last = read_events(tmp_path / "spool")[-1]
    assert (last["action"], last["outcome"], last["digest"]) == ("quarantine", "done", str(digest))


def test_a_forged_reference_revokes_nobody_elses_artifact(scene: Scene) -> None:
    """Who is suspected hands out the reference; what it says of an encrypted object nobody here can check."""
    from sealflow.actions.upload import upload

    innocent = scene.sign()
    team = scene.folder / "team.key"
    team.write_bytes(bytes(range(32)))
    store = str(scene.folder / "evidence")
    sent = upload(
        scene.single, str(scene.folder / "lake" / "x.enc"), signer=scene.key("trainer").signer,
        recipients=[f"aes:{team}"], evidence_store=store,
    )  # fmt: skip
    forged = sealflow.ArtifactRef(sent.uri, innocent.digest, sent.evidence, encrypted=True)
    done = scene.quarantine(forged)
    assert scene.revoked() == set()
    assert any(str(innocent.digest) in text and "encrypted" in text for text in done.warnings)
    kept = Path(done.evidence.removeprefix("file://"))
    assert [path.name[:8] for path in kept.iterdir() if path.name.startswith("message")] == ["message-"]
    assert scene.check(innocent) == "passed"
    # The responder knows better.
    scene.quarantine(forged, content=sent.digest)
    assert scene.revoked() == {str(sent.digest)}


# --- Killed ---

_CALLS = ("rename", "link", "unlink", "rmdir", "mkdir", "fsync", "replace")


def killed_at(number: int, act: Callable[[], object]) -> bool:
    """Do something in a process of its own that dies before its nth change of the disk; tell whether it came so far."""
    child = os.fork()
    if child == 0:
        count = 0

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **more: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os._exit(9)
                return call(*arguments, **more)

            return run

        for name in _CALLS:
            setattr(os, name, dying(getattr(os, name)))
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9), f"ended with {code}"
    return code == 9


def somewhere(scene: Scene, digest: Digest) -> bool:
    """Whether the bytes lie whole at their place, aside, or in quarantine."""
    places = [scene.model, *scene.model.parent.glob(".model.*.quarantined"), *scene.prefix.glob("*/artifact/model")]
    for place in places:
        try:
            if place.exists() and content(str(place)) == digest:
                return True
        except SealflowError:
            continue
    return False


@pytest.mark.slow
@pytest.mark.parametrize("across", [False, True], ids=["one file system", "two"])
def test_killed_at_any_point(tmp_path: Path, across: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def two(source: Any, target: Any) -> None:
        if ".quarantined" in str(source) and "/artifact/" in str(target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    if across:
        monkeypatch.setattr(os, "rename", two)
    number, ends = 0, 0
    while True:
        number += 1
        scene = Scene(tmp_path / str(number))
        ref = scene.sign()
        scene.key("admin")
        if not killed_at(number, lambda scene=scene, ref=ref: scene.quarantine(ref)):  # type: ignore[misc]
            break
        ends += 1
        assert somewhere(scene, ref.digest), f"lost at change {number}"
        done = scene.quarantine(ref)
        assert content(done.place) == ref.digest
        assert not scene.model.exists()
        assert not list(scene.model.parent.glob(".model*"))
        assert scene.revoked() == {str(ref.digest)}
        assert scene.check(sealflow.ArtifactRef(done.place, ref.digest, done.evidence)) == "passed"
    assert ends > 15


# --- Stores ---


@pytest.mark.server
@pytest.mark.xdist_group("s3")
@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("to", ["s3", "disk"])
def test_in_s3(scene: Scene, s3_server: S3Server, versioned: bool, to: str) -> None:
    client, bucket = s3_server.client(), s3_server.make_bucket(versioned=versioned)
    storages = Storages(client)
    for name, data in FILES.items():
        client.put_object(Bucket=bucket, Key=f"lake/model/{name}", Body=data)
    client.put_object(Bucket=bucket, Key="lake/single.bin", Body=b"one file")
    prefix = f"s3://{bucket}/quarantine" if to == "s3" else str(scene.prefix)
    for name in ("model", "single.bin"):
        ref = sealflow.sign(f"s3://{bucket}/lake/{name}", signer=scene.key("trainer").signer, storages=storages)
        done = scene.quarantine(ref, to=prefix, storages=storages)
        target = storages.for_uri(done.place)
        found = target.locate(done.place)
        assert found is not None
        assert build_manifest(target, found).digest == ref.digest
        assert storages.for_uri(ref.uri).locate(ref.uri) is None
        assert scene.quarantine(ref, to=prefix, storages=storages).existed
        assert str(ref.digest) in scene.revoked()
        # A version that the reference names can be kept by the bucket: the list refuses it.
        trust = {"trainer": str(scene.key("trainer").public)}
        kept = sealflow.ArtifactRef(done.place, ref.digest, done.evidence)
        assert verify(kept, identities=trust, storages=storages).passed
    if versioned:
        versions = client.list_object_versions(Bucket=bucket, Prefix="lake/").get("Versions", [])
        assert len(versions) >= len(FILES) + 1


@pytest.mark.server
@pytest.mark.xdist_group("s3")
def test_in_s3_broken_off_at_any_request(scene: Scene, s3_server: S3Server) -> None:
    """Each request once is the last one of a process; the next process goes on."""
    digest = content(str(scene.model))
    for number in range(1, 200):
        client, bucket = s3_server.client(), s3_server.make_bucket()
        for name, data in FILES.items():
            client.put_object(Bucket=bucket, Key=f"lake/model/{name}", Body=data)
        count = 0

        class Killed(BaseException):
            pass

        def counting(**_: Any) -> None:
            nonlocal count
            count += 1
            if count == number:  # noqa: B023
                raise Killed

        client.meta.events.register("before-send.s3", counting)
        given: dict[str, Any] = {"to": f"s3://{bucket}/quarantine", "storages": Storages(client)}
        try:
            scene.quarantine(f"s3://{bucket}/lake/model", **given)
        except Killed:
            pass
        else:
            assert number > 20
            return
        done = scene.quarantine(f"s3://{bucket}/lake/model", **given)
        storage = given["storages"].for_uri(done.place)
        found = storage.locate(done.place)
        assert found is not None
        assert build_manifest(storage, found).digest == digest
        assert storage.locate(f"s3://{bucket}/lake/model") is None
    pytest.fail("it never ends")


def test_the_command(cli: Cli, scene: Scene) -> None:
    ref = scene.sign()
    common = ["--to", str(scene.prefix), "--reason", "poisoned", "--list", str(scene.list)]
    assert cli("respond", "quarantine", ref.to_json(), *common, "--signer", scene.key("admin").signer).returncode == 2
    done = cli(
        "respond", "quarantine", ref.to_json(), *common, "--signer", scene.key("admin").signer, "--new-list", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert body(done)["digest"] == str(ref.digest)
    again = cli("respond", "quarantine", str(scene.model), *common, "--signer", scene.key("admin").signer)
    assert again.stdout.startswith("in quarantine already")
    assert cli("respond", "quarantine", str(scene.single), *common).returncode == 2
    assert cli("respond", "quarantine", str(scene.single), *common[:4], "--no-revoke").returncode == 0
