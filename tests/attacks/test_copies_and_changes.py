"""Copies, downloads and changes of recipients under attack: from the store, by who shares a folder, by accident."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import sealflow
from sealflow.actions import change_recipients as changes
from sealflow.actions import copy as copies
from sealflow.actions import placing
from sealflow.actions.adopt import adopt
from sealflow.actions.change_recipients import change_recipients, list_recipients
from sealflow.actions.copy import promote_artifact
from sealflow.actions.download import download_artifact
from sealflow.actions.reading import reading
from sealflow.actions.uploads import unfinished_uploads
from sealflow.audit.event import utc_now
from sealflow.encryption.recipient import Published
from sealflow.errors import ArtifactError, PolicyError, SealflowError, UnavailableError, UsageError, VerificationError
from sealflow.evidence.promotion import make_promotion_statement
from sealflow.evidence.statement import parse_statement
from sealflow.findings import Finding, Verdict
from sealflow.hashing import Digest
from sealflow.storage.local import LocalStorage
from tests.attacks.encrypted_world import FILES, RUN, EncryptedWorld
from tests.attacks.test_encrypted_policy import PEM, Place
from tests.audit_events import read_events, spooled
from tests.core.encryption.messages import ARN, RSA_PEM, RSA_PUBLIC_PEM
from tests.core.policy.deployment import FIT, Deployment, policy, rule
from tests.core.transfer.stores import FolderStore, Stores
from tests.core.transfer.world import read_tree, write_tree
from tests.pki import public_pem

pytestmark = pytest.mark.slow

pytest_plugins = ["tests.core.policy.fixtures"]

MALLORY = public_pem(rsa.generate_private_key(65537, 2048)).decode()
VAULT = hashlib.sha256(RSA_PUBLIC_PEM).hexdigest()


@pytest.fixture
def world(tmp_path: Path) -> EncryptedWorld:
    return EncryptedWorld(tmp_path / "world")


@pytest.fixture
def vault(tmp_path: Path) -> str:
    (tmp_path / "vault.pem").write_bytes(RSA_PEM)
    (tmp_path / "vault.pub").write_bytes(RSA_PUBLIC_PEM)
    return f"rsa:{tmp_path}/vault.pub"


def clear(world: EncryptedWorld, name: str = "model", files: Any = None) -> Path:
    """Return a clear artifact that the trainer signed; of one file where it is one."""
    path = world.folder / "clear" / name
    if isinstance(files, bytes):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files)
    else:
        write_tree(path, files or FILES)
    sealflow.sign(path, signer=world.trainer.signer)
    return path


def copy(world: EncryptedWorld, source: Any, to: Any, **options: Any) -> Any:
    return promote_artifact(source, str(to), **world.options(signer=world.trainer.signer, **options))


def change(world: EncryptedWorld, **options: Any) -> Any:
    artifact = options.pop("artifact", str(world.object))
    return change_recipients(artifact, **world.options(signer=world.trainer.signer, **options))


def fetch(world: EncryptedWorld, verb: str, source: Any, to: Any, **options: Any) -> None:
    """Copy or download."""
    if verb == "copy":
        copy(world, str(source), to, **options)
    else:
        download_artifact(str(source), to, **world.options(**options))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(item.relative_to(folder)): item.read_bytes() for item in sorted(folder.rglob("*")) if item.is_file()}


# --- Overwriting: nothing is lost ---


@pytest.mark.parametrize("verb", ["copy", "download"])
@pytest.mark.parametrize("before", ["folder", "file", "link", "dangling-link"])
@pytest.mark.parametrize("failing", ["error", "taken"])
def test_what_lay_there_comes_back_where_the_new_one_cannot_be_placed(
    world: EncryptedWorld, monkeypatch: pytest.MonkeyPatch, verb: str, before: str, failing: str
) -> None:
    source, target = clear(world), world.folder / "place" / "made"
    target.parent.mkdir()
    if before == "folder":
        write_tree(target, {"precious": b"old"})
    elif before == "file":
        target.write_bytes(b"old")
    else:
        (world.folder / "elsewhere").write_bytes(b"old") if before == "link" else None
        target.symlink_to(world.folder / "elsewhere")
    rename = os.rename

    def fail(old: Any, new: Any, **more: Any) -> None:
        if str(new) == str(target) and str(old).endswith("artifact"):
            if failing == "taken":
                write_tree(target, {"quick": b"somebody else"})
            else:
                raise OSError(5, "Input/output error")
        rename(old, new, **more)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(SealflowError):
        fetch(world, verb, source, target, overwrite=True)
    kept = files_below(target.parent)
    if failing == "taken":
        assert kept["made/quick"] == b"somebody else"
    if before == "folder":
        assert b"old" in kept.values(), "the old artifact is gone, and the new one is not there"
    elif before == "file":
        assert b"old" in kept.values()
    else:
        assert any(path.is_symlink() for path in target.parent.rglob("*")), "the link is gone"
    if failing == "error":
        assert os.path.lexists(target)
        # A download keeps what it has for the next attempt.
        assert verb == "download" or os.listdir(target.parent) == ["made"]


def test_a_download_that_was_killed_between_two_renames_gives_back_what_lay_there(
    world: EncryptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = clear(world), world.folder / "place" / "made"
    write_tree(target, {"precious": b"old"})
    rename = os.rename

    class Killed(BaseException):
        pass

    def kill(old: Any, new: Any, **more: Any) -> None:
        if str(new) == str(target):
            raise Killed
        rename(old, new, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", kill)
        patch.setattr(placing, "_restore", lambda *_: None)
        with pytest.raises(Killed):
            download_artifact(str(source), target, **world.options(overwrite=True))
    assert not target.exists()
    (source / "a.bin").write_bytes(b"altered")
    with pytest.raises(VerificationError):
        download_artifact(str(source), target, **world.options(overwrite=True))
    assert read_tree(target) == {"precious": b"old"}


@pytest.mark.parametrize("verb", ["copy", "download"])
@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("where", ["itself", "above", "the-evidence", "by-a-link"])
def test_a_destination_that_holds_or_is_the_source_is_refused(
    world: EncryptedWorld, verb: str, encrypted: bool, where: str
) -> None:
    source = world.object if encrypted else clear(world)
    evidence = Path(f"{source}.evidence")
    link = world.folder / "link"
    link.symlink_to(source.parent)
    target = {
        "itself": source, "above": source.parent, "the-evidence": evidence,
        "by-a-link": link / source.name,
    }[where]  # fmt: skip
    before = files_below(world.folder)
    with pytest.raises(UsageError):
        fetch(world, verb, source, target, overwrite=True)
    assert files_below(world.folder) == before


@pytest.mark.parametrize("verb", ["copy", "download"])
def test_an_evidence_store_in_the_copy_is_refused(world: EncryptedWorld, verb: str) -> None:
    source, target = clear(world), world.folder / "place" / "made"
    with pytest.raises(UsageError):
        fetch(world, verb, source, target, destination_store=str(target / "evidence"))
    assert not target.exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("encrypted", [True, False])
def test_a_dangling_link_is_no_free_place(world: EncryptedWorld, kind: str, encrypted: bool) -> None:
    source = world.object if encrypted else clear(world, "m", b"weights" if kind == "file" else None)
    target = world.folder / "made"
    target.symlink_to(world.folder / "nowhere")
    with pytest.raises(ArtifactError):
        copy(world, str(source), target)
    with pytest.raises(ArtifactError):
        download_artifact(str(source), target, **world.options())
    assert target.is_symlink()
    assert not (world.folder / "nowhere").exists()


def test_a_link_is_replaced_and_not_followed(world: EncryptedWorld) -> None:
    source = clear(world, "m", b"weights")
    (world.folder / "other").write_bytes(b"other")
    target = world.folder / "made"
    target.symlink_to(world.folder / "other")
    download_artifact(str(source), target, **world.options(overwrite=True))
    assert (world.folder / "other").read_bytes() == b"other"
    assert not target.is_symlink()
    assert target.read_bytes() == b"weights"


# --- The private folder ---


def partial_of(source: Path, target: Path) -> Path:
    mark = hashlib.sha256(f"{source.as_uri()}\0{target}".encode()).hexdigest()[:16]
    return target.parent / f".{target.name}.{mark}.partial"


@pytest.mark.parametrize("planted", ["link", "file", "open-to-others"])
def test_a_planted_private_folder_is_not_used(world: EncryptedWorld, planted: str) -> None:
    source, target = clear(world), world.folder / "place" / "made"
    target.parent.mkdir()
    trap = world.folder / "trap"
    trap.mkdir()
    folder = partial_of(source, target)
    if planted == "link":
        folder.symlink_to(trap)
    elif planted == "file":
        folder.write_bytes(b"")
    else:
        folder.mkdir(mode=0o777)
        folder.chmod(0o777)
    with pytest.raises(UnavailableError):
        download_artifact(str(source), target, **world.options())
    assert not target.exists()
    assert os.listdir(trap) == []


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "名" * 85], ids=["255", "two-bytes", "three-bytes"])
@pytest.mark.parametrize("verb", ["copy", "download"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_longest_names(world: EncryptedWorld, name: str, verb: str, kind: str) -> None:
    content = b"weights" if kind == "file" else {"n" * 255: b"weights"}
    source = world.folder / "clear" / name
    if kind == "file":
        source.parent.mkdir()
        source.write_bytes(b"weights")
    else:
        write_tree(source, content)
    store, other = str(world.folder / "evidence"), str(world.folder / "other-evidence")
    sealflow.sign(source, signer=world.trainer.signer, evidence_store=store)
    target = world.folder / "place" / name
    fetch(world, verb, source, target, evidence_store=store, destination_store=other)
    assert files_below(target.parent) == files_below(source.parent)


def test_what_a_killed_download_left_does_not_stop_the_next(world: EncryptedWorld) -> None:
    """A process can die between any two steps."""
    source, target = clear(world), world.folder / "place" / "made"
    folder = partial_of(source, target)
    folder.mkdir(parents=True, mode=0o700)
    for name in ("artifact.mode", "artifact.old.mode", "mode"):
        (folder / name).touch()
    download_artifact(str(source), target, **world.options())
    assert read_tree(target) == FILES


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002])
def test_a_copy_has_the_modes_that_the_umask_allows(world: EncryptedWorld, mask: int) -> None:
    source = clear(world)
    before = os.umask(mask)
    try:
        download_artifact(str(source), world.folder / "one" / "made", **world.options())
        copy(world, source, world.folder / "two" / "made")
    finally:
        os.umask(before)
    for place in ("one", "two"):
        modes = {item.name: item.stat().st_mode & 0o777 for item in (world.folder / place / "made").rglob("*")}
        assert modes == {"a.bin": 0o666 & ~mask, "run.sh": 0o666 & ~mask, "sub": 0o777 & ~mask, "c.bin": 0o666 & ~mask}


# --- Copies ---


@pytest.mark.parametrize("frame", [1, 3 << 20, 5 << 20])
def test_an_encrypted_artifact_of_any_frame_length_is_copied_whole(tmp_path: Path, frame: int) -> None:
    size = 7 << 20 if frame > 1 else 10
    world = EncryptedWorld(tmp_path / "world", {"a.bin": bytes(size)}, frame=frame)
    copy(world, str(world.object), world.folder / "prod" / "model")
    assert (world.folder / "prod" / "model").read_bytes() == world.before


def test_an_artifact_that_is_replaced_between_check_and_copy(
    world: EncryptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = copies.judge_opened

    def replace(*given: Any, **more: Any) -> Any:
        found = judge(*given, **more)
        other = world.object.with_name("other")
        other.write_bytes(world.before[:-1] + b"x")
        os.replace(other, world.object)
        return found

    monkeypatch.setattr(copies, "judge_opened", replace)
    with pytest.raises(SealflowError):
        copy(world, str(world.object), world.folder / "prod" / "model")
    assert not (world.folder / "prod" / "model").exists()


def test_a_copy_is_refused_where_evidence_cannot_be_read(
    world: EncryptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reader of the copy may demand must not be lost on the way without a word."""
    source = clear(world)
    digest = Digest.parse(sealflow.verify(source, **world.options()).digest)
    folder = Path(f"{source}.evidence") / digest.path_segment
    data = b'{"lineage": 1}'
    name = f"lineage-{hashlib.sha256(data).hexdigest()}.json"
    (folder / name).write_bytes(data)
    get = LocalStorage.get

    def down(self: Any, uri: str, limit: int) -> bytes | None:
        if uri.endswith(name) and "/clear/" in uri:
            raise UnavailableError("The store does not answer.", code="BACKEND_UNAVAILABLE")
        return get(self, uri, limit)

    monkeypatch.setattr(LocalStorage, "get", down)
    with pytest.raises(UnavailableError):
        copy(world, source, world.folder / "prod" / "model")
    monkeypatch.undo()
    copy(world, source, world.folder / "prod" / "model")
    assert list((world.folder / "prod" / "model.evidence").rglob(name))


def test_an_interrupted_copy_of_a_folder_to_a_store_can_be_finished(world: EncryptedWorld) -> None:
    memory = fsspec.filesystem("memory")
    source, place = clear(world), "memory://interrupted/model"
    try:
        memory.pipe_file("/interrupted/model/a.bin", FILES["a.bin"])
        copy(world, source, place, overwrite=True)
        assert memory.cat("/interrupted/model/run.sh") == FILES["run.sh"]
        # A file where the folder was, and a folder where the file was, would be mixtures.
        memory.rm("/interrupted", recursive=True)
        memory.pipe_file("/interrupted/single/inner", b"x")
        single = clear(world, "single", b"weights")
        with pytest.raises(SealflowError):
            copy(world, single, "memory://interrupted/single", overwrite=True)
    finally:
        memory.rm("/interrupted", recursive=True)


def test_a_promotion_says_that_the_rules_were_only_audited(world: EncryptedWorld) -> None:
    warning = Finding("POLICY_AUDIT", "warning", "file:///m", "The rules are only audited.")
    verdict = Verdict("passed", "file:///m", digest=str(world.ref.digest), findings=(warning,))
    statement = make_promotion_statement(world.ref.digest, "file:///m", "file:///n", verdict, RUN, now=utc_now())
    assert parse_statement(statement).predicate["verdict"]["warnings"] == ["POLICY_AUDIT"]


@pytest.mark.parametrize("encrypted", [True, False])
def test_an_audit_log_tells_a_refusal_from_an_error(world: EncryptedWorld, encrypted: bool) -> None:
    source = world.object if encrypted else clear(world)
    log = world.folder / "spool"
    given = world.options(signer=world.trainer.signer, identities=str(world.stranger.public))
    given["audit"] = spooled(log)
    with pytest.raises(VerificationError):
        promote_artifact(str(source), str(world.folder / "prod"), **given)
    with pytest.raises(VerificationError):
        change_recipients(str(world.object), add=[world.secret("other")], **given)
    events = read_events(log)
    told = {(item["action"], item["outcome"]) for item in events if item["phase"] == "outcome"}
    assert told - {("verify", "failed")} == {("promote", "failed"), ("change-recipients", "failed")}
    assert all(item["codes"] for item in events if item["phase"] == "outcome")


def test_an_adopted_artifact_is_promoted_as_one(world: EncryptedWorld) -> None:
    """Its provenance goes along, and says in the new place too that nobody saw it made."""
    source = write_tree(world.folder / "found" / "model", FILES)
    adopt(source.parent, reason="inherited", signer=world.trainer.signer)
    with pytest.raises(VerificationError, match="PROVENANCE_ADOPTED"):
        copy(world, str(source), world.folder / "prod" / "model")
    assert not (world.folder / "prod").exists()
    made = copy(world, str(source), world.folder / "prod" / "model", require="signature")
    before = {path.name: path.read_bytes() for path in source.parent.rglob("provenance-*")}
    after = {path.name: path.read_bytes() for path in (world.folder / "prod").rglob("provenance-*")}
    assert before
    assert before == after
    assert made.verdict.passed
    (stored,) = (world.folder / "prod").rglob("promotion-*.json")
    said = json.loads(base64.b64decode(json.loads(stored.read_bytes())["dsseEnvelope"]["payload"]))["predicate"]
    assert said["verdict"]["warnings"] == [item.code for item in made.verdict.findings if item.severity == "warning"]


def test_what_passes_only_under_audited_rules_is_promoted_with_that_said(deployment: Deployment) -> None:
    place = Place(deployment)
    place.publish(None, level="audit")
    source = place.object.with_name("clear")
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(b"nobody signed this")
    with sealflow.run(sealflow.Surroundings(FIT, admin=deployment.channel())):
        made = promote_artifact(
            str(source),
            str(place.folder / "prod"),
            signer=deployment.key("trainer").signer,
        )
    (stored,) = (place.folder / "prod.evidence").rglob("promotion-*.json")
    said = json.loads(base64.b64decode(json.loads(stored.read_bytes())["dsseEnvelope"]["payload"]))["predicate"]
    assert made.verdict.passed
    assert "POLICY_AUDIT" in said["verdict"]["warnings"]


@pytest.mark.parametrize("there", [("a.bin",), ("a.bin", "sub/c.bin"), tuple(FILES)])
def test_a_copy_to_a_store_goes_on_where_it_was_interrupted(world: EncryptedWorld, there: tuple[str, ...]) -> None:
    """Without overwriting: what lies there must be files of the artifact, each whole."""
    memory = fsspec.filesystem("memory")
    source = clear(world)
    try:
        for name in there:
            memory.pipe_file(f"/halfway/model/{name}", FILES[name])
        # This kind of store cannot protect what lies there, so nothing new is written unless that is asked for.
        sent = set(FILES) - set(there)
        if sent:
            with pytest.raises(UsageError, match="OVERWRITE_NOT_PROTECTED"):
                copy(world, source, "memory://halfway/model")
        else:
            assert copy(world, source, "memory://halfway/model").existed
        memory.pipe_file("/halfway/model/a.bin", b"other")
        with pytest.raises(ArtifactError, match="ARTIFACT_EXISTS"):
            copy(world, source, "memory://halfway/model")
        assert memory.cat("/halfway/model/a.bin") == b"other"
    finally:
        memory.rm("/halfway", recursive=True)


def test_an_interrupted_copy_is_started_again(world: EncryptedWorld) -> None:
    """In a store that protects what lies there."""
    store = FolderStore(world.folder / "store")
    source, place = clear(world), "s3://bucket/model"

    def stop(step: str) -> None:
        if step == "put" and len(store.objects()) == 2:
            raise UnavailableError("The store does not answer.", code="BACKEND_UNAVAILABLE")

    store.hook = stop
    with pytest.raises(UnavailableError):
        copy(world, source, place, storages=Stores(store))
    assert len(store.objects()) == 2
    store.hook = lambda _: None
    made = copy(world, source, place, storages=Stores(store))
    assert not made.existed
    assert {name: store.content(f"{place}/{name}") for name in FILES} == FILES
    assert sealflow.verify(made.ref, **world.options(storages=Stores(store))).passed


# --- What a policy says ---


@pytest.fixture
def governed(deployment: Deployment) -> Place:
    """An artifact for the team and the recovery key, where the policy demands the latter and nobody else."""
    place = Place(deployment)
    place.publish({"required": ["recovery"], "encrypted": True})
    place.upload([place.team], admin=True)
    return place


def change_governed(place: Place, **options: Any) -> None:
    given = {"recipients": [place.team], "signer": place.deployment.key("trainer").signer, **options}
    with sealflow.run(sealflow.Surroundings(FIT, admin=place.deployment.channel())):
        change_recipients(str(place.object), **given)


def test_a_recipient_whom_the_policy_demands_cannot_be_removed(governed: Place) -> None:
    before = governed.object.read_bytes()
    with pytest.raises(PolicyError) as refused:
        change_governed(governed, remove=[governed.public])
    assert refused.value.code == "RECIPIENT_REQUIRED"
    assert governed.object.read_bytes() == before


ONLY = {"required": ["recovery"], "only": ["recovery"], "encrypted": True}


def test_a_recipient_whom_the_policy_forbids_cannot_be_added(governed: Place) -> None:
    before = governed.object.read_bytes()
    other = str(governed.folder / "prod" / "m")
    publish(
        governed,
        rule("models", f"{governed.folder}/models/**", ("trainer",)),
        rule("prod", f"{governed.folder}/prod/**", ("trainer",), require={"recipients": ONLY}),
    )
    for more in ([governed.mallory], [governed.mallory, governed.public]):
        with pytest.raises(PolicyError, match="RECIPIENT_NOT_ALLOWED"):
            change_governed(governed, add=more, remove=["team"], destination=other)
    change_governed(governed, remove=["team"], destination=other)
    assert len(list_recipients(other)) == 1
    assert governed.object.read_bytes() == before


def publish(place: Place, *rules: Any) -> None:
    identities = place.deployment.identities("trainer")
    place.deployment.publish(policy(list(rules), identities, recipients={"recovery": {"rsa": PEM}}, version=2))


def test_what_somebody_can_open_does_not_go_where_the_policy_forbids_it(governed: Place) -> None:
    publish(
        governed,
        rule("models", f"{governed.folder}/models/**", ("trainer",)),
        rule("prod", f"{governed.folder}/prod/**", ("trainer",), require={"recipients": ONLY}),
    )
    given = {"recipients": [governed.team], "signer": governed.deployment.key("trainer").signer}
    with (
        sealflow.run(sealflow.Surroundings(FIT, admin=governed.deployment.channel())),
        pytest.raises(PolicyError, match="RECIPIENT_NOT_ALLOWED"),
    ):
        promote_artifact(str(governed.object), str(governed.folder / "prod" / "m"), **given)
    assert not (governed.folder / "prod").exists()


@pytest.mark.parametrize("verb", ["change", "promote"])
def test_one_more_policy_of_the_call_binds_the_new_object_too(governed: Place, verb: str) -> None:
    """It is about who may open what is written, not only about what is read."""
    only = rule("call", f"{governed.folder}/prod/**", ("trainer",), require={"recipients": ONLY})
    body = policy([only], governed.deployment.identities("trainer"), recipients={"recovery": {"rsa": PEM}})
    draft = governed.folder / "call.json"
    draft.write_text(json.dumps(body))
    other = str(governed.folder / "prod" / "m")
    publish(governed, rule("models", f"{governed.folder}/models/**", ("trainer",)))
    given = {"recipients": [governed.team], "signer": governed.deployment.key("trainer").signer, "policy": str(draft)}
    calls = {
        "change": lambda: change_recipients(str(governed.object), add=governed.mallory, destination=other, **given),
        "promote": lambda: promote_artifact(str(governed.object), other, **given),
    }
    with (
        sealflow.run(sealflow.Surroundings(FIT, admin=governed.deployment.channel())),
        pytest.raises(PolicyError, match="RECIPIENT_NOT_ALLOWED"),
    ):
        calls[verb]()
    assert not (governed.folder / "prod").exists()


# --- Recipients ---


def test_an_index_with_another_key_under_a_kept_name(
    world: EncryptedWorld, monkeypatch: pytest.MonkeyPatch, vault: str
) -> None:
    """The name of an RSA key is the digest of it; whoever wraps to another one gives the artifact away."""
    change(world, add=[vault])
    before = world.object.read_bytes()
    real = changes._everybody

    def lied(check: Any, demanded: Any, published: Any, *rest: Any) -> Any:
        return real(check, demanded, [Published("sealflow", VAULT, MALLORY)], *rest)

    monkeypatch.setattr(changes, "_everybody", lied)
    with pytest.raises(UsageError, match="not at hand"):
        change(world, add=[world.secret("other")])
    assert world.object.read_bytes() == before
    # With the key itself at hand nobody needs the index.
    change(world, add=[world.secret("other")], recipients=[world.team, vault])
    assert len(list_recipients(str(world.object))) == 3


@pytest.mark.parametrize("key", [f"{ARN}?endpoint=http://127.0.0.1:1", f"{ARN}%3Fendpoint=x", f"//{ARN}"])
def test_an_index_that_sends_the_data_key_to_another_endpoint(key: str) -> None:
    for name in ("", ARN):
        assert changes._public(Published("aws-kms", name, key)) is None
        assert changes._public(Published("aws-kms", name, ARN)) is not None
    assert changes._public(Published("aws-kms", ARN, ARN[:-1] + "0")) is None


@pytest.mark.parametrize("twice", ["other-name", "other-namespace"])
def test_somebody_who_is_removed_by_one_of_two_names(world: EncryptedWorld, vault: str, twice: str) -> None:
    other = f"{vault}?name=second" if twice == "other-name" else f"{vault}?namespace=theirs"
    change(world, add=[vault, other])
    before = world.object.read_bytes()
    with pytest.raises(UsageError, match="too"):
        change(world, remove=[f"sealflow:{VAULT}"])
    assert world.object.read_bytes() == before
    change(world, remove=[vault, other])
    assert len(list_recipients(str(world.object))) == 1


def test_a_name_that_means_two_keys(world: EncryptedWorld) -> None:
    one, two = (f"{world.secret(name)}?namespace={name}&name=team" for name in ("one", "two"))
    keys = [world.team, one, two]
    change(world, add=[one, two], recipients=[world.team])
    with pytest.raises(UsageError, match="two"):
        change(world, remove=["team"], recipients=keys)
    change(world, remove=["one:team"], recipients=keys)
    assert [item.provider for item in list_recipients(str(world.object))] == ["sealflow", "two"]


def test_somebody_who_is_added_and_removed_at_once(world: EncryptedWorld, vault: str) -> None:
    with pytest.raises(UsageError):
        change(world, add=[world.team], remove=[world.team])
    change(world, add=[vault])
    with pytest.raises(UsageError):
        change(world, add=[vault], remove=[VAULT])


def test_a_change_does_not_replace_what_somebody_else_put_there(
    world: EncryptedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = changes.write_encryption_evidence

    def replace(*given: Any, **more: Any) -> Any:
        found = real(*given, **more)
        other = world.object.with_name("other")
        other.write_bytes(b"a newer one")
        os.replace(other, world.object)
        return found

    monkeypatch.setattr(changes, "write_encryption_evidence", replace)
    with pytest.raises(ArtifactError) as refused:
        change(world, add=[world.secret("other")])
    assert refused.value.code == "ARTIFACT_CHANGED"
    assert world.object.read_bytes() == b"a newer one"
    assert [item for item in os.listdir(world.object.parent) if item.endswith(".partial")] == []


def test_a_change_elsewhere_takes_all_evidence_along(world: EncryptedWorld) -> None:
    """What lies by the artifact's digest alone, such as another signature or lineage, is demanded there too."""
    shared = world.store / world.ref.digest.path_segment
    data = (next(iter(shared.glob("provenance-*")))).read_bytes()
    name = f"lineage-{hashlib.sha256(data).hexdigest()}.json"
    (shared / name).write_bytes(data)
    other = world.folder / "elsewhere" / "model.sealed"
    made = change(world, add=[world.secret("other")], destination=str(other))
    assert world.check(made.ref).passed
    assert list(Path(f"{other}.evidence").rglob(name))


# --- Reading ---


def test_nothing_is_read_after_the_end(world: EncryptedWorld) -> None:
    with reading(str(world.object), **world.options()) as found:
        pieces = found.pieces("sub/c.bin")
        assert found.read("a.bin", 6, 1 << 80) == b"weights"
        assert found.read("a.bin", 1 << 80) == b""
        with pytest.raises(UsageError):
            found.read("a.bin", -1)
    for use in (lambda: found.read("a.bin"), lambda: list(pieces), lambda: found.read("a.bin", 0, 0)):
        with pytest.raises(UsageError, match="end"):
            use()
    assert len(found.files) == len(FILES)


# --- Unfinished uploads ---


def test_an_upload_that_is_not_ours_does_not_keep_ours(tmp_path: Path) -> None:
    ours = tmp_path / ".model.00000000000000aa.partial"
    theirs = tmp_path / ".another.00000000000000bb.partial"
    ours.write_bytes(b"x")
    theirs.write_bytes(b"y")
    os.link(theirs, tmp_path / "name")  # an upload of ours has one name
    with pytest.raises(ArtifactError):
        unfinished_uploads(str(tmp_path), abort=True)
    assert not ours.exists()
    assert (tmp_path / "name").read_bytes() == b"y"


def test_an_upload_of_a_clock_that_is_ahead_is_listed(tmp_path: Path) -> None:
    ahead = tmp_path / ".model.00000000000000aa.partial"
    ahead.write_bytes(b"x")
    os.utime(ahead, (4e9, 4e9))
    assert len(unfinished_uploads(str(tmp_path))) == 1
    assert unfinished_uploads(str(tmp_path), older_than="1m") == ()
