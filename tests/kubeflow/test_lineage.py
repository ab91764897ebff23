"""The lineage gate: what the component does when its task runs, alone and in KFP's local runner."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sealflow_kfp
from sealflow.errors import UsageError, VerificationError
from tests.core.lineage.gitrepo import new_repo, public, snapshot, ssh_key
from tests.dvc_repository import DATA, MADE, edit, publish, write_repository
from tests.kubeflow.conftest import Mounted

pytestmark = pytest.mark.kfp


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_repository(tmp_path / "repository")


def check(tmp_path: Path, **options: Any) -> tuple[dict[str, Any], str]:
    path = tmp_path / "verdict"
    path.unlink(missing_ok=True)
    try:
        (where,) = sealflow_kfp.check_dvc_lineage.python_func(verdict=str(path), **options)
    except VerificationError:
        where = ""
    verdict = json.loads(path.read_text())
    # The verdict informs; only the exception stops the task.
    assert bool(where) is (verdict["status"] == "passed")
    return verdict, where


@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_path_passes(mounted: Mounted, repository: Path, tmp_path: Path, level: str) -> None:
    before = snapshot(repository)
    verdict, where = check(tmp_path, repository=str(repository), level=level)
    assert (verdict["status"], where) == ("passed", str(repository))
    assert snapshot(repository) == before


def test_an_artifact_passes(mounted: Mounted, repository: Path, tmp_path: Path) -> None:
    from kfp import dsl

    dataset = dsl.Dataset(name="repository", uri=str(repository))
    verdict, where = check(tmp_path, artifact=dataset, targets=["clean"])
    assert (verdict["status"], where) == ("passed", str(repository))


def test_an_artifact_of_a_store_is_handed_on_by_its_uri(
    mounted: Mounted, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp import dsl

    dataset = dsl.Dataset(name="repository", uri="s3://data/repository")
    monkeypatch.setattr(dsl.Dataset, "path", property(lambda self: str(repository)))
    assert check(tmp_path, artifact=dataset)[1] == "s3://data/repository"


def test_a_url_passes_with_the_data_of_a_named_remote(mounted: Mounted, repository: Path, tmp_path: Path) -> None:
    found = publish(repository, tmp_path)
    given = {"repository": found.url, "revision": found.commit, "remote": str(found.remote)}
    verdict, where = check(tmp_path, **given)
    assert (verdict["status"], verdict["artifact"], where) == ("passed", found.url, found.url)
    found.corrupt()
    assert check(tmp_path, **given)[0]["status"] == "failed"
    shutil.rmtree(found.remote)
    assert check(tmp_path, **given)[0]["status"] != "passed"


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "data edited, its times restored": (lambda root: edit(root / DATA), "DATA_MISMATCH"),
    "output edited, its times restored": (lambda root: edit(root / MADE), "DATA_MISMATCH"),
    "data removed": (lambda root: (root / DATA).unlink(), "DATA_MISSING"),
    "lock removed": (lambda root: (root / "dvc.lock").unlink(), "STAGE_NOT_LOCKED"),
    "folder without .dvc": (lambda root: (root / ".dvc").rename(root / "dvc"), "LINEAGE_MISSING"),
}


@pytest.mark.parametrize(("attack", "code"), ATTACKS.values(), ids=ATTACKS)
def test_tampered_repository_is_refused_on_each_attempt(
    mounted: Mounted, repository: Path, tmp_path: Path, attack: Callable[[Path], object], code: str
) -> None:
    attack(repository)
    for _attempt in range(2):
        verdict, _ = check(tmp_path, repository=str(repository))
        assert (verdict["status"], verdict["findings"][0]["code"]) == ("failed", code)


def test_refusal_is_the_last_thing_in_the_log(mounted: Mounted, repository: Path, tmp_path: Path) -> None:
    edit(repository / DATA)
    with pytest.raises(VerificationError) as caught:
        sealflow_kfp.check_dvc_lineage.python_func(repository=str(repository), verdict=str(tmp_path / "verdict"))
    lines = str(caught.value).splitlines()
    assert "sealflow: FAILED" in lines
    (machine,) = [line.split("verdict", 1)[1] for line in lines if line.startswith("  verdict ")]
    assert json.loads(machine) == caught.value.verdict.as_dict()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="no-repository"),
        pytest.param({"repository": "/r", "artifact": "dataset"}, id="two-repositories"),
        pytest.param({"repository": "/r", "level": "L0"}, id="no-such-level"),
        pytest.param({"repository": "/r", "level": ""}, id="empty-level"),
        pytest.param({"repository": "/r", "roots": '{"o": "file:/k"}'}, id="roots-below-their-level"),
        pytest.param({"repository": "/r", "branch": "refs/heads/main"}, id="branch-below-its-level"),
        pytest.param({"repository": "/r", "revision": "main"}, id="revision-below-its-level"),
    ],
)
def test_wrong_parameters_write_no_verdict(mounted: Mounted, tmp_path: Path, given: dict[str, Any]) -> None:
    path = tmp_path / "verdict"
    with pytest.raises(UsageError):
        sealflow_kfp.check_dvc_lineage.python_func(verdict=str(path), **given)
    assert not path.exists()


def test_nothing_there_is_refused(mounted: Mounted, tmp_path: Path) -> None:
    verdict, _ = check(tmp_path, repository=str(tmp_path / "nowhere"))
    assert (verdict["status"], verdict["findings"][0]["code"]) == ("failed", "LINEAGE_MISSING")


# ---------------------------------------------------------------------------------------------- KFP's local runner


def run(repository: Path, **options: Any) -> str:
    from tests.kubeflow import pipelines

    given = {"targets": [], "level": "L2", "allowed_signers": "", "branch": "", **options}
    return pipelines.lineage(repository=str(repository), **given).output


def verdict_of(root: Path) -> dict[str, Any]:
    (path,) = root.glob("*/check-dvc-lineage/verdict")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_pipeline_with_signers_in_the_mount(mounted: Mounted, local_runner: Path, tmp_path: Path) -> None:
    repo = new_repo(tmp_path / "repository")
    write_repository(repo.root)
    commit = repo.commit({})
    allowed = mounted.folder / "allowed_signers"
    allowed.write_text(f"ada@example.org {public(ssh_key())}\n")
    trust = {"level": "L3", "allowed_signers": str(allowed), "branch": "refs/heads/main"}
    assert run(repo.root, **trust) == (repo.root / MADE).read_text()
    (signer,) = verdict_of(local_runner)["signers"]
    assert signer["evidence"] == commit
    assert [event["run"]["task"] for event in mounted.events()] == ["check-dvc-lineage"] * 2


@pytest.mark.slow
def test_tampered_repository_stops_the_pipeline(
    mounted: Mounted, local_runner: Path, repository: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(repository / DATA)
    with pytest.raises(RuntimeError, match="'check-dvc-lineage'"):
        run(repository, targets=["clean"])
    assert verdict_of(local_runner)["findings"][0]["code"] == "DATA_MISMATCH"
    assert not list(local_runner.glob("*/read-file"))
    out = capfd.readouterr()
    assert "sealflow: FAILED" in out.out + out.err
