"""Sign and verify: what comes back, what a copy holds, what is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import sealflow
from sealflow import RunIdentity, Settings, Surroundings, UsageError, VerificationError
from sealflow.errors import ArtifactError, UnavailableError
from tests.pki import KeyPair, Pki, write_key, write_pki
from tests.trees import SHAPES, flip_byte, write_tree


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return write_pki(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "model", SHAPES["nested"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["key", "certificate"])
def test_trees(tmp_path: Path, keys: KeyPair, pki: Pki, shape: str, method: str) -> None:
    model = write_tree(tmp_path / "model", SHAPES[shape])
    signer, trusted = (keys.signer, str(keys.public)) if method == "key" else (pki.signer, pki.identity)
    ref = sealflow.sign(model, signer=signer)
    verdict = sealflow.verify(ref, identities=trusted, name="model", producer="python")
    assert verdict.passed, verdict.summary()
    assert verdict.digest == str(ref.digest)
    assert {signer.kind for signer in verdict.signers} == {"signature", "provenance"}
    with sealflow.verified(ref, identities=trusted) as copy:
        assert {
            path.relative_to(copy).as_posix(): path.read_bytes() for path in Path(copy).rglob("*") if path.is_file()
        } == SHAPES[shape]
    assert not os.path.exists(copy)


def test_what_signing_returns(model: Path, keys: KeyPair) -> None:
    signed = sealflow.sign_artifact(model, signer=keys.signer, name="the model")
    assert (signed.name, signed.producer, signed.files) == ("the model", "python", 3)
    assert signed.size == sum(map(len, SHAPES["nested"].values()))
    assert {name.partition("-")[0] for name in signed.evidence} == {"signature", "provenance"}
    assert signed.as_dict()["ref"] == signed.ref.as_dict()


def test_evidence_is_stored_beside_the_artifact_or_where_it_is_said(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    ref = sealflow.sign(model, signer=keys.signer)
    assert ref.evidence == f"file://{model}.evidence"
    other = sealflow.sign(model, signer=keys.signer, evidence_store=str(tmp_path / "store"))
    assert other.evidence == f"file://{tmp_path}/store"
    assert sealflow.verify(model, identities=str(keys.public)).passed
    assert sealflow.verify(model, identities=str(keys.public), evidence_store=str(tmp_path / "store")).passed
    assert sealflow.verify(other, identities=str(keys.public)).passed


def test_the_copy_is_private_and_gone_afterwards_even_after_an_error(
    model: Path, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALFLOW_TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    ref = sealflow.sign(model, signer=keys.signer)
    with sealflow.verified(ref, identities=str(keys.public)) as copy:
        place = tmp_path / "tmp" / Path(copy).relative_to(tmp_path / "tmp").parts[0]
        assert place.stat().st_mode & 0o077 == 0
    with pytest.raises(ZeroDivisionError), sealflow.verified(ref, identities=str(keys.public)):
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "tmp") == []


def test_nothing_is_handed_out_of_a_refused_artifact(
    model: Path, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALFLOW_TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    ref = sealflow.sign(model, signer=keys.signer)
    flip_byte(model / "top.txt")
    with pytest.raises(VerificationError) as caught, sealflow.verified(ref, identities=str(keys.public)):
        raise AssertionError("handed out")
    assert caught.value.code == "FILE_CHANGED"
    assert caught.value.exit_status == 3
    assert not caught.value.verdict.held
    assert os.listdir(tmp_path / "tmp") == []


def test_the_copy_outlives_a_change_of_the_source(model: Path, keys: KeyPair) -> None:
    ref = sealflow.sign(model, signer=keys.signer)
    with sealflow.held(ref, identities=str(keys.public)) as (copy, verdict):
        assert verdict.held
        flip_byte(model / "top.txt")
        assert (Path(copy) / "top.txt").read_bytes() == b"top"


@pytest.mark.parametrize("files", [["top.txt"], "top.txt", ("top.txt", "a/b/other.bin")])
def test_a_subset_is_checked_against_the_signed_manifest(model: Path, keys: KeyPair, files: object) -> None:
    ref = sealflow.sign(model, signer=keys.signer)
    (model / "a/b/c/deep.bin").write_bytes(b"changed, but not asked for")
    verdict = sealflow.verify(ref, identities=str(keys.public), files=files)  # type: ignore[arg-type]
    assert verdict.passed, verdict.summary()
    assert "SUBSET_CHECKED" in {finding.code for finding in verdict.findings}
    assert verdict.digest == str(ref.digest)
    with sealflow.verified(ref, files, identities=str(keys.public)) as copy:  # type: ignore[arg-type]
        found = sorted(path.relative_to(copy).as_posix() for path in Path(copy).rglob("*") if path.is_file())
    assert found == sorted([files] if isinstance(files, str) else files)  # type: ignore[arg-type]
    flip_byte(model / "top.txt")
    assert sealflow.verify(ref, identities=str(keys.public), files=files).status == "failed"  # type: ignore[arg-type]


@pytest.mark.parametrize("files", [["absent.txt"], ["top.txt", "absent.txt"], ["a"]])
def test_files_that_are_not_signed_cannot_be_asked_for(model: Path, keys: KeyPair, files: list[str]) -> None:
    ref = sealflow.sign(model, signer=keys.signer)
    verdict = sealflow.verify(ref, identities=str(keys.public), files=files)
    assert verdict.status == "failed"
    assert verdict.findings[0].code == "FILE_UNSIGNED"


@pytest.mark.parametrize("files", [[], ["../x"], ["/etc/passwd"], [""]])
def test_subsets_that_make_no_sense(model: Path, keys: KeyPair, files: list[str]) -> None:
    ref = sealflow.sign(model, signer=keys.signer)
    with pytest.raises((UsageError, ArtifactError)):
        sealflow.verify(ref, identities=str(keys.public), files=files)


def test_settings_come_from_the_environment_and_from_a_mount(
    model: Path, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "mount", {"sealflow.json": b'{"signer": "file:%s"}' % bytes(keys.private)})
    monkeypatch.setenv("SEALFLOW_MOUNT", str(tmp_path / "mount"))
    monkeypatch.setenv("SEALFLOW_IDENTITIES", str(keys.public))
    monkeypatch.setenv("SEALFLOW_EVIDENCE_STORE", str(tmp_path / "store"))
    ref = sealflow.sign(model)
    assert ref.evidence == f"file://{tmp_path}/store"
    assert sealflow.verify(ref).passed
    # The environment fills gaps. What an admin mounted, a task's environment cannot replace.
    monkeypatch.setenv("SEALFLOW_SIGNER", "file:/absent")
    assert sealflow.sign(model).digest == ref.digest


def test_the_environment_cannot_point_away_from_what_is_mounted(
    model: Path, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealflow.actions import context

    write_tree(tmp_path / "admin", {"sealflow.json": b'{"identities": "%s"}' % bytes(keys.public)})
    write_tree(tmp_path / "author", {"sealflow.json": b'{"identities": "file:/somebody/else"}'})
    monkeypatch.setattr(context, "MOUNT", str(tmp_path / "admin"))
    monkeypatch.setenv("SEALFLOW_MOUNT", str(tmp_path / "author"))
    monkeypatch.setenv("SEALFLOW_IDENTITIES", "file:/somebody/else")
    assert context.current().settings.identities == str(keys.public)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"key": "x"}', b'{"signer": 1}', b"x" * (300 << 10)])
def test_a_mounted_file_that_is_wrong_is_an_error(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    write_tree(tmp_path / "mount", {"sealflow.json": text})
    monkeypatch.setenv("SEALFLOW_MOUNT", str(tmp_path / "mount"))
    with pytest.raises(UsageError):
        sealflow.verify(model, identities="x")


def test_a_run_s_verified_inputs_are_its_own(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    from sealflow.actions.context import verified_inputs

    ref = sealflow.sign(model, signer=keys.signer)
    one, two = RunIdentity("airflow", "d", "t", "one"), RunIdentity("airflow", "d", "t", "two")
    with sealflow.run(Surroundings(one)):
        assert sealflow.verify(ref, identities=str(keys.public)).passed
        assert sealflow.verify(ref, identities=str(keys.public)).passed
        flip_byte(model / "top.txt")
        assert not sealflow.verify(ref, identities=str(keys.public)).passed
    assert [item.digest for item in verified_inputs(one)] == [ref.digest]
    assert verified_inputs(two) == ()
    assert verified_inputs(RunIdentity()) == (), "a process outside of orchestrators is no run"


def test_sealed(tmp_path: Path, keys: KeyPair) -> None:
    data = write_tree(tmp_path / "data", {"a.csv": b"1"})
    settings = Settings(signer=keys.signer, identities=str(keys.public))
    with sealflow.run(Surroundings(RunIdentity("airflow", "d", "t", "sealed"), settings)):
        ref = sealflow.sign(data)

        @sealflow.sealed(inputs=["data"], outputs=["model"])
        def train(data: str, model: str) -> None:
            assert data != str(tmp_path / "data")
            Path(model).write_bytes((Path(data) / "a.csv").read_bytes() + b"trained")

        result = train(ref.as_dict(), str(tmp_path / "model.bin"))
        assert sealflow.verify(result).passed
        flip_byte(data / "a.csv")
        with pytest.raises(VerificationError):
            train(ref.as_dict(), str(tmp_path / "other.bin"))
    assert not (tmp_path / "other.bin").exists()


def test_sealed_refuses_names_that_are_no_parameters() -> None:
    with pytest.raises(UsageError, match="no parameter 'b'"):
        sealflow.sealed(inputs=["b"])(lambda a: None)
    with pytest.raises(UsageError, match="both an input and an output"):
        sealflow.sealed(inputs=["a"], outputs=["a"])


@pytest.mark.parametrize("ignore", [["*.txt"], ["../x"], ["/x"], [""], ["a?"], ["[a]"]])
def test_ignored_paths_are_exact_and_inside(model: Path, keys: KeyPair, ignore: list[str]) -> None:
    with pytest.raises((UsageError, ArtifactError)):
        sealflow.sign(model, signer=keys.signer, ignore=ignore)


def test_an_ed25519_key_cannot_sign_an_artifact(model: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    keys = write_key(tmp_path, key=ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(UsageError) as caught:
        sealflow.sign(model, signer=keys.signer)
    assert caught.value.code == "KEY_UNSUPPORTED"


def test_a_disk_without_room_is_no_verdict(model: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = sealflow.sign(model, signer=keys.signer)
    monkeypatch.setattr("sealflow.manifest.build._copy", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with (
        pytest.raises(UnavailableError, match="No space left") as caught,
        sealflow.verified(ref, identities=str(keys.public)),
    ):
        raise AssertionError("handed out")
    assert "SEALFLOW_TMPDIR" in caught.value.next_step


def test_checking_changes_nothing(model: Path, keys: KeyPair) -> None:
    """A check never deletes, repairs or re-permissions what it looks at."""
    ref = sealflow.sign(model, signer=keys.signer)
    (model / "extra").write_bytes(b"")

    def state() -> dict[str, tuple[int, ...]]:
        parent = model.parent
        return {
            str(path.relative_to(parent)): (info.st_mode, info.st_mtime_ns, info.st_size, info.st_ino)
            for path in (model, *model.rglob("*"), *Path(f"{model}.evidence").rglob("*"))
            if (info := path.lstat())
        }

    before = state()
    for _ in range(2):
        assert sealflow.verify(ref, identities=str(keys.public)).status == "failed"
    assert state() == before


def test_a_process_forgets_old_runs() -> None:
    from sealflow.actions import context
    from sealflow.evidence.provenance import Dependency
    from sealflow.hashing import Digest

    made = Dependency("file:///a", Digest("sha256", "0" * 64), "a")
    runs = [RunIdentity("airflow", "d", "t", f"run-{number}") for number in range(300)]
    for run in runs:
        context.remember_verified(run, made)
    assert context.verified_inputs(runs[-1]) == (made,)
    assert context.verified_inputs(runs[0]) == ()
