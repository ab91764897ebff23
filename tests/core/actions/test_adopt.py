"""Adopting what existed before: what is signed and what is left alone, and a run that is stopped and goes on."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import sealflow
from sealflow.actions.adopt import Adoption, adopt
from sealflow.actions.inspect import inspect_evidence
from sealflow.errors import UnavailableError, UsageError
from sealflow.run_identity import ADOPTED_BUILDER
from sealflow.storage.local import LocalStorage
from sealflow.storage.s3 import S3Storage
from tests.audit_events import read_events
from tests.pki import KeyPair, write_key
from tests.servers.s3 import S3Server
from tests.trees import write_tree
from tests.verifiers import Deployment, codes, payload

REASON = "Made before anything was signed; looked through by the platform team."
CONTENT = {"a.bin": b"a", "b.bin": b"bb", "tree/x": b"x", "tree/sub/y": b"yy"}


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "models", CONTENT)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Locations of the local artifacts whose bytes were read."""
    seen: list[str] = []
    real = LocalStorage.open

    def spy(self: LocalStorage, location: Any) -> Any:
        seen.append(location.uri.rpartition("/")[2])
        return real(self, location)

    monkeypatch.setattr(LocalStorage, "open", spy)
    return seen


def run(folder: Any, keys: KeyPair, **options: Any) -> Adoption:
    return adopt(folder, **({"reason": REASON, "signer": keys.signer} | options))


def statuses(done: Adoption) -> dict[str, str]:
    """Status by location below the folder."""
    base = done.prefix.rstrip("/") + "/"
    return {item.location.removeprefix(base): item.status for item in done.artifacts}


def snapshot(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in sorted(folder.rglob("*"))
    }


def provenances(artifact: Any, **options: Any) -> list[dict[str, Any]]:
    items = inspect_evidence(artifact, **options)
    return [item["provenance"] for item in items if "provenance" in item]


# --- What is signed ---


def test_each_file_and_folder_directly_in_it(models: Path, keys: KeyPair) -> None:
    done = run(models, keys)
    assert statuses(done) == {"a.bin": "signed", "b.bin": "signed", "tree": "signed"}
    assert (done.exit_status, done.size) == (0, 6)
    for item in done.artifacts:
        assert sealflow.verify(item.location, identities=str(keys.public), require=["signature"]).passed
        (said,) = provenances(item.location)
        assert said["builder"] == ADOPTED_BUILDER
        assert said["adopted_because"] == REASON
        assert said["inputs"] == []


def test_every_file_below(models: Path, keys: KeyPair) -> None:
    done = run(models, keys, files=True)
    assert statuses(done) == {"a.bin": "signed", "b.bin": "signed", "tree/sub/y": "signed", "tree/x": "signed"}
    assert sealflow.verify(models / "tree/sub/y", identities=str(keys.public), require="signature").passed
    # What was just made is no artifact.
    again = run(models, keys, files=True, journal=models.parent / "other.jsonl")
    assert set(statuses(again).values()) == {"has evidence"}
    assert len(again.artifacts) == 4


def test_provenance_of_adoption_proves_no_making(models: Path, keys: KeyPair) -> None:
    run(models, keys)
    verdict = sealflow.verify(models / "a.bin", identities=str(keys.public))
    assert verdict.status == "failed"
    assert verdict.deciding_finding is not None
    assert verdict.deciding_finding.code == "PROVENANCE_ADOPTED"


def test_rules_of_a_policy_and_adopted_artifacts(tmp_path: Path) -> None:
    """A rule that asks for provenance refuses, one that asks for a signature alone passes."""
    world = Deployment(tmp_path)
    write_tree(tmp_path / "models", {"a.bin": b"a"})
    trust = {"archivist": {"key": str(world.key("stranger").public)}}
    signature = {"identities": {"any_of": ["archivist"]}, "evidence": {"signature": {}}}
    for require, code in (
        (signature | {"evidence": None}, "PROVENANCE_ADOPTED"),
        (signature | {"evidence": {"provenance": {}}}, "PROVENANCE_ADOPTED"),
        (signature | {"evidence": None, "producers": ["**"]}, "PROVENANCE_ADOPTED"),
        (signature, None),
    ):
        world.publish(require=require, identities=trust)
        with sealflow.run(world.surroundings()):
            assert run(world.prefix, world.key("stranger")).exit_status == 0
        verdict = world.verdict(f"{world.prefix}/a.bin")
        assert verdict.passed is (code is None), verdict.summary()
        assert "PROVENANCE_ADOPTED" in codes(verdict)
        assert code is None or verdict.deciding_finding.code == code  # type: ignore[union-attr]


def test_the_rule_in_the_guide(models: Path, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs/how-to/adopt.md").read_text()
    example = guide.partition("```yaml\n")[2].partition("```")[0].replace("/data/models", str(models))
    archivist = write_key(tmp_path, "archivist")
    (tmp_path / "archivist.pem.pub").write_bytes(archivist.public.read_bytes())
    draft = tmp_path / "policy.yaml"
    draft.write_text(f"apiVersion: sealflow/v1\nversion: 1\nexpires: 2099-01-01T00:00:00Z\n{example}")
    run(models, archivist)
    verdict = sealflow.verify(models / "a.bin", policy=str(draft))
    assert verdict.passed, verdict.summary()
    assert verdict.rules == ("policy/old-models",)
    assert not sealflow.verify(models / "a.bin", policy=str(draft), require=["provenance"]).passed


def test_the_policy_chooses_the_signer(tmp_path: Path) -> None:
    world = Deployment(tmp_path)
    write_tree(tmp_path / "models", {"a.bin": b"a", "b.bin": b"b"})
    scope = {"artifact": [f"{world.prefix}/a*"]}
    world.publish(signers=[{"scope": scope, "uri": world.key("stranger").signer}])
    with sealflow.run(world.surroundings(signer=world.key("trainer").signer)):
        done = adopt(world.prefix, reason=REASON)
    assert done.exit_status == 0
    for name, key in (("a.bin", "stranger"), ("b.bin", "trainer")):
        place = f"{world.prefix}/{name}"
        assert sealflow.verify(place, identities=str(world.key(key).public), require="signature").passed


def test_a_run_that_verified_inputs_and_has_parameters_says_nothing_of_them(models: Path, keys: KeyPair) -> None:
    identity = sealflow.RunIdentity("airflow", "adopt", "all", "r", None, 1)
    made = sealflow.sign(models / "tree", signer=keys.signer, name="in", evidence_store=str(models.parent / "in"))
    with sealflow.run(sealflow.Surroundings(identity, parameters={"secret": "x"})):
        sealflow.verify(made, identities={"any": str(keys.public)})
        done = run(models, keys)
    place = next(item.location for item in done.artifacts if item.location.endswith("a.bin"))
    (said,) = provenances(place)
    assert said["inputs"] == []
    assert said["producer"] == "airflow:adopt/all"
    (bundle,) = (models / "a.bin.evidence").rglob("provenance-*.json")
    definition = payload(bundle.read_bytes())["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["parameters"] == {}
    assert definition["internalParameters"]["adoption"] == {"reason": REASON}


def test_one_store_for_all(models: Path, keys: KeyPair, opened: list[str]) -> None:
    store = models / "evidence-of-all"
    options = {"evidence_store": str(store)}
    assert statuses(run(models, keys, **options)) == {"a.bin": "signed", "b.bin": "signed", "tree": "signed"}
    assert not list(models.glob("*.evidence"))
    assert sealflow.verify(models / "tree", identities=str(keys.public), require="signature", **options).passed
    opened.clear()
    assert set(statuses(run(models, keys, **options)).values()) == {"done before"}
    assert opened == []


def test_events_are_those_of_signing(models: Path, keys: KeyPair, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    done = run(models, keys)
    events = read_events(tmp_path / "spool")
    assert [(item["action"], item["phase"]) for item in events] == [("sign", "intent"), ("sign", "outcome")] * 3
    assert [item["digest"] for item in events[1::2]] == [item.digest for item in done.artifacts]


def test_a_passphrase_is_asked_for_once(models: Path, tmp_path: Path) -> None:
    from sealflow.actions.keys_generate import generate_key

    generate_key(str(tmp_path / "sealed.pem"), passphrase=b"secret")
    asked = []

    def passphrase(uri: str) -> bytes:
        asked.append(uri)
        return b"secret"

    done = adopt(models, reason=REASON, signer=f"file:{tmp_path}/sealed.pem", passphrase=passphrase)
    assert done.exit_status == 0
    assert len(asked) == 1


# --- What is left alone ---


def test_a_dry_run_writes_nothing(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    home = Path(os.environ["HOME"])
    before = snapshot(tmp_path), snapshot(home)
    done = run(models, keys, dry_run=True, signer=None)
    assert statuses(done) == {"a.bin": "to sign", "b.bin": "to sign", "tree": "to sign"}
    assert [(item.files, item.size) for item in done.artifacts] == [(1, 1), (1, 2), (2, 3)]
    assert done.size == 6
    assert (snapshot(tmp_path), snapshot(home)) == before
    # And of an earlier run it knows what is done.
    run(models, keys)
    (models / "c.bin").write_bytes(b"c")
    before = snapshot(tmp_path), snapshot(home)
    assert statuses(run(models, keys, dry_run=True))["c.bin"] == "to sign"
    assert run(models, keys, dry_run=True).count("done before") == 3
    assert (snapshot(tmp_path), snapshot(home)) == before


def test_what_has_evidence_is_left_alone(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    """Bytes that somebody signed and somebody else changed must not become good by being adopted."""
    sealflow.sign(models / "a.bin", signer=write_key(tmp_path, "producer").signer)
    (models / "a.bin").write_bytes(b"changed")
    evidence = snapshot(models / "a.bin.evidence")
    done = run(models, keys)
    assert statuses(done) == {"a.bin": "has evidence", "b.bin": "signed", "tree": "signed"}
    assert done.exit_status == 0
    assert snapshot(models / "a.bin.evidence") == evidence


def test_what_cannot_be_taken_is_told_and_the_others_are_signed(models: Path, keys: KeyPair) -> None:
    (models / "a-link").symlink_to(models / "a.bin")
    (models / "folder-link").symlink_to(models / "tree")
    (models / "empty").mkdir()
    os.mkfifo(models / "pipe")
    write_tree(models / "with-link", {"x": b"x"})
    (models / "with-link" / "y").symlink_to("x")
    (models / "new\nline").write_bytes(b"")
    write_tree(models / "with-git", {".git/config": b""})
    done = run(models, keys)
    assert statuses(done) == {
        "a-link": "refused",
        "a.bin": "signed",
        "b.bin": "signed",
        "empty": "refused",
        "folder-link": "refused",
        "new%0Aline": "refused",
        "pipe": "refused",
        "tree": "signed",
        "with-git": "refused",
        "with-link": "refused",
    }
    assert done.exit_status == 3
    assert all(item.message and item.code for item in done.artifacts if item.status == "refused")
    assert {path.name for path in models.glob("*.evidence")} == {"a.bin.evidence", "b.bin.evidence", "tree.evidence"}
    # The same once more: nothing changes, and the exit status still says that something is left.
    again = run(models, keys)
    assert again.count("done before") == 3
    assert again.exit_status == 3


def test_no_link_is_followed_below(models: Path, keys: KeyPair, tmp_path: Path, monkeypatch) -> None:
    """Also none that takes a folder's place after the listing."""
    outside = write_tree(tmp_path / "outside", {"secret": b"s"})
    real = LocalStorage.list_folders

    def swap(self: LocalStorage, uri: str, limit: int) -> list[str]:
        found = real(self, uri, limit)
        if "tree" in found:
            (models / "tree").rename(tmp_path / "away")
            (models / "tree").symlink_to(outside)
        return found

    monkeypatch.setattr(LocalStorage, "list_folders", swap)
    done = run(models, keys, files=True)
    assert statuses(done) == {"a.bin": "signed", "b.bin": "signed", "tree": "refused"}
    assert list(outside.iterdir()) == [outside / "secret"]


def test_a_store_inside_a_dvc_tracked_folder(models: Path, keys: KeyPair) -> None:
    (models.parent / "models.dvc").write_text("outs: []")
    done = run(models, keys)
    assert set(statuses(done).values()) == {"refused"}
    assert {item.code for item in done.artifacts} == {"EVIDENCE_STORE_INSIDE_TREE"}
    assert run(models, keys, evidence_store=str(models.parent / "store")).exit_status == 0


def test_what_is_out_of_reach(models: Path, keys: KeyPair, monkeypatch) -> None:
    real = LocalStorage.create

    def fail(self: LocalStorage, uri: str, data: bytes) -> bool:
        if "b.bin.evidence" in uri:
            raise UnavailableError("The store is down.")
        return real(self, uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", fail)
        done = run(models, keys)
    assert statuses(done) == {"a.bin": "signed", "b.bin": "unavailable", "tree": "signed"}
    assert done.exit_status == 5
    assert statuses(run(models, keys)) == {"a.bin": "done before", "b.bin": "signed", "tree": "done before"}


def test_without_an_audit_log_nothing_goes_on(models: Path, keys: KeyPair, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "key.pem" / "log"))
    with pytest.raises(UnavailableError, match="audit spool"):
        run(models, keys)
    assert not list(models.glob("*.evidence"))


@pytest.mark.parametrize("reason", ["", "  ", "x" * 1025, "a\nb", "a\x1b[2Jb", "a\u202eb", "\udc80"])
def test_a_reason_is_one_readable_line(models: Path, keys: KeyPair, reason: str) -> None:
    with pytest.raises(UsageError, match="reason"):
        run(models, keys, reason=reason)
    assert not list(models.glob("*.evidence"))


def test_what_cannot_work_is_said_before_the_first_artifact(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    for folder, signer, message in (
        (models / "a.bin", keys.signer, "is no folder"),
        (models / "nothing", keys.signer, "is no folder"),
        (models, None, "no signer"),
        (models, f"file:{tmp_path}/nothing.pem", "no key file"),
        (models, str(keys.private), "not a signer URI"),
    ):
        with pytest.raises(UsageError, match=message):
            adopt(folder, reason=REASON, signer=signer)
    assert not list(models.glob("*.evidence"))


# --- The journal ---


def test_finished_artifacts_are_not_read_again(models: Path, keys: KeyPair, opened: list[str]) -> None:
    run(models, keys)
    assert opened == ["a.bin", "b.bin", "tree"]
    opened.clear()
    (models / "c.bin").write_bytes(b"c")
    done = run(models, keys)
    assert statuses(done) == {"a.bin": "done before", "b.bin": "done before", "c.bin": "signed", "tree": "done before"}
    assert opened == ["c.bin"]
    assert [item.digest for item in done.artifacts if item.status == "done before"] == [
        str(sealflow.verify(models / name, identities=str(keys.public), require="signature").digest)
        for name in ("a.bin", "b.bin", "tree")
    ]


@pytest.mark.parametrize("name", ["a.bin", "tree/sub/y", "tree/new"])
@pytest.mark.parametrize("shared", [False, True], ids=["beside", "one-store"])
def test_what_changed_since_is_not_signed_again(models: Path, keys: KeyPair, name: str, shared: bool) -> None:
    options = {"evidence_store": str(models.parent / "store")} if shared else {}
    run(models, keys, **options)
    (models / name).write_bytes(b"other")
    done = run(models, keys, **options)
    changed = name.partition("/")[0]
    assert statuses(done)[changed] == "changed"
    assert done.exit_status == 3
    verdict = sealflow.verify(models / changed, identities=str(keys.public), require="signature", **options)
    assert verdict.status == "failed"


def test_evidence_that_is_gone_is_made_again(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    run(models, keys)
    (models / "a.bin.evidence").rename(tmp_path / "gone")
    assert statuses(run(models, keys)) == {"a.bin": "signed", "b.bin": "done before", "tree": "done before"}


def test_a_journal_inside_the_folder_is_no_artifact(models: Path, keys: KeyPair) -> None:
    journal = models / "journal.jsonl"
    for expected in ("signed", "done before"):
        assert statuses(run(models, keys, journal=journal)) == {
            "a.bin": expected,
            "b.bin": expected,
            "tree": expected,
        }


def test_lines_that_a_stop_tore_apart(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    run(models, keys, journal=journal)
    first, second, third = journal.read_bytes().splitlines(keepends=True)
    for name in ("b.bin", "tree"):
        (models / f"{name}.evidence").rename(tmp_path / f"{name}.gone")
    journal.write_bytes(first + b'{"location":3}\n' + b"[]\n" + second[:40])
    done = run(models, keys, journal=journal)
    assert statuses(done) == {"a.bin": "done before", "b.bin": "signed", "tree": "signed"}
    assert run(models, keys, journal=journal).count("done before") == 3
    assert len(third) > 40


@pytest.mark.parametrize("size", [1, 11, 40])
def test_a_first_line_that_a_stop_tore_apart(models: Path, keys: KeyPair, tmp_path: Path, size: int) -> None:
    journal = tmp_path / "journal.jsonl"
    run(models, keys, journal=journal)
    journal.write_bytes(journal.read_bytes()[:size])
    done = run(models, keys, journal=journal)
    assert (done.count("has evidence"), done.exit_status) == (3, 0)


def test_two_runs_do_not_share_a_journal(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with open(journal, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="Another run"):
            run(models, keys, journal=journal)
        assert run(models, keys, journal=journal, dry_run=True).count("to sign") == 3


@pytest.mark.parametrize(
    "text",
    ["mine\n", "{\n", "{}", '{"version": 2}', '{\n  "digest": "sha256:0"\n}\n', "\n", "[]\n{}\n", '{"digest":7}\n'],
)
def test_a_file_that_is_no_journal(models: Path, keys: KeyPair, tmp_path: Path, text: str) -> None:
    other = tmp_path / "notes.txt"
    other.write_text(text)
    with pytest.raises(UsageError, match="no journal"):
        run(models, keys, journal=other)
    assert other.read_text() == text


def test_a_journal_must_be_a_file(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("mine\n")
    (tmp_path / "link").symlink_to(other)
    for path in (tmp_path / "link", tmp_path, other / "below"):
        with pytest.raises((UsageError, UnavailableError)):
            run(models, keys, journal=path)
    assert not list(models.glob("*.evidence"))


def test_runs_with_other_arguments_have_other_journals(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = write_key(tmp_path, "other")
    journals = {
        run(models, keys, dry_run=True).journal,
        run(models, keys, dry_run=True, files=True).journal,
        run(models, keys, dry_run=True, evidence_store=str(tmp_path / "s")).journal,
        run(models, other, dry_run=True).journal,
        run(models / "tree", keys, dry_run=True).journal,
    }
    assert len(journals) == 5


def test_stopped_between_the_two_bundles(models: Path, keys: KeyPair, monkeypatch) -> None:
    """What is half made counts as unsigned, for whatever rule, and the next run makes it whole."""
    real = LocalStorage.create
    written = []

    def stop(self: LocalStorage, uri: str, data: bytes) -> bool:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(uri)
        return real(self, uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "create", stop)
        with pytest.raises(KeyboardInterrupt):
            run(models, keys)
    for require in (["signature"], ["provenance"], ["signature", "provenance"]):
        assert not sealflow.verify(models / "a.bin", identities=str(keys.public), require=require).passed
    assert statuses(run(models, keys)) == {"a.bin": "signed", "b.bin": "signed", "tree": "signed"}
    assert sealflow.verify(models / "a.bin", identities=str(keys.public), require="signature").passed


def _command(folder: Path, keys: KeyPair, journal: Path, *options: str) -> list[str]:
    call = [sys.executable, "-c", "from sealflow.cli import main; main()", "adopt", str(folder), "--reason", REASON]
    return [*call, "--signer", keys.signer, "--journal", str(journal), *options]


def _killed_after(count: int, command: list[str], journal: Path) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if journal.exists() and journal.read_bytes().count(b"\n") >= count:
                break
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(tmp_path: Path, keys: KeyPair, opened: list[str]) -> None:
    names = [f"m{number:03}.bin" for number in range(150)]
    models = write_tree(tmp_path / "models", {name: name.encode() for name in names})
    journal = tmp_path / "journal.jsonl"
    finished: set[str] = set()
    for more in (1, 30, 30):
        _killed_after(len(finished) + more, _command(models, keys, journal), journal)
        lines = [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        locations = [line["location"] for line in lines]
        # Nothing that was done is done again.
        assert len(set(locations)) == len(locations)
        assert finished < set(locations)
        finished = set(locations)
    # At most the one that was being signed is there without a line; it is whole or does not count.
    for name in names:
        verdict = sealflow.verify(models / name, identities=str(keys.public), require="signature")
        objects = list((models / f"{name}.evidence").rglob("*.json"))
        if verdict.passed:
            assert {path.name.partition("-")[0] for path in objects} == {"signature", "provenance"}
        else:
            assert not any(path.name.startswith("signature") for path in objects)
    opened.clear()
    done = run(models, keys, journal=journal)
    assert done.exit_status == 0
    assert done.count("done before") == len(finished)
    assert done.count("has evidence") <= 3
    assert len(opened) == done.count("signed") > 0
    assert all(
        sealflow.verify(models / name, identities=str(keys.public), require="signature").passed for name in names
    )
    assert run(models, keys, journal=journal).count("signed") == 0


# --- The command ---


@pytest.mark.slow
def test_the_command(models: Path, keys: KeyPair, tmp_path: Path) -> None:
    (models / "link").symlink_to("a.bin")
    journal = tmp_path / "journal.jsonl"
    listed = subprocess.run(_command(models, keys, journal, "--dry-run"), capture_output=True, text=True)
    assert listed.returncode == 3
    assert "3 to sign (6 bytes), 1 refused" in listed.stdout
    assert "symbolic link" in listed.stdout
    assert not journal.exists()
    done = subprocess.run(_command(models, keys, journal, "--json"), capture_output=True, text=True)
    assert done.returncode == 3
    body = json.loads(done.stdout)
    assert body["counts"] == {"refused": 1, "signed": 3}
    assert body["journal"] == str(journal)
    assert body["artifacts"][0] == {
        "location": f"file://{models}/a.bin",
        "status": "signed",
        "files": 1,
        "size": 1,
        "digest": body["artifacts"][0]["digest"],
        "evidence": f"file://{models}/a.bin.evidence",
    }
    (models / "link").unlink()
    again = subprocess.run(_command(models, keys, journal), capture_output=True, text=True)
    assert again.returncode == 0
    assert "3 done before" in again.stdout


# --- Other storage ---


@pytest.fixture
def memory() -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    for name, data in CONTENT.items():
        fs.pipe(f"/models/{name}", data)
    yield "memory://models"
    fs.store.clear()


def test_any_file_system_of_fsspec(memory: str, keys: KeyPair) -> None:
    assert statuses(run(memory, keys)) == {"a.bin": "signed", "b.bin": "signed", "tree": "signed"}
    assert sealflow.verify(f"{memory}/tree", identities=str(keys.public), require="signature").passed
    assert set(statuses(run(memory, keys)).values()) == {"done before"}


def _put(client: Any, bucket: str, names: dict[str, bytes]) -> None:
    for name, data in names.items():
        client.put_object(Bucket=bucket, Key=name, Body=data)


@pytest.mark.parametrize("prefix", ["models/", ""], ids=["prefix", "bucket"])
@pytest.mark.parametrize("files", [False, True], ids=["children", "files"])
def test_s3(
    s3_server: S3Server, s3_versioned_bucket: str, keys: KeyPair, monkeypatch, prefix: str, files: bool
) -> None:
    client = s3_server.client()
    storages = sealflow.Storages(client)
    _put(client, s3_versioned_bucket, {prefix + name: data for name, data in CONTENT.items()})
    uri = f"s3://{s3_versioned_bucket}/{prefix}"
    names = ["a.bin", "b.bin", "tree/sub/y", "tree/x"] if files else ["a.bin", "b.bin", "tree"]
    options = {"storages": storages, "files": files}
    assert statuses(run(uri, keys, dry_run=True, **options)) == dict.fromkeys(names, "to sign")
    done = run(uri, keys, **options)
    assert statuses(done) == dict.fromkeys(names, "signed")
    for item in done.artifacts:
        verdict = sealflow.verify(
            item.location, identities=str(keys.public), require="signature", evidence_store=item.evidence,
            storages=storages,
        )  # fmt: skip
        assert verdict.passed, verdict.summary()
    monkeypatch.setattr(S3Storage, "open", lambda *_: pytest.fail("an artifact was read again"))
    assert statuses(run(uri, keys, **options)) == dict.fromkeys(names, "done before")
    assert statuses(run(uri, keys, journal="j.jsonl", dry_run=True, **options)) == dict.fromkeys(names, "has evidence")
    client.put_object(Bucket=s3_versioned_bucket, Key=f"{prefix}a.bin", Body=b"z")
    assert statuses(run(uri, keys, **options)) == dict.fromkeys(names, "done before") | {"a.bin": "changed"}


def test_hostile_names_in_s3(s3_server: S3Server, s3_bucket: str, keys: KeyPair) -> None:
    if s3_server.kind == "seaweedfs":
        pytest.skip("SeaweedFS takes no such names")
    client = s3_server.client()
    hostile = {"m//twice": b"", "m/..": b"", "m/../up": b"", "m/a\nb": b"", "m/x": b"", "m/x/y": b"", "m/marker/": b""}
    _put(client, s3_bucket, hostile | {"m/good": b"g"})
    storages = sealflow.Storages(client)
    for files in (False, True):
        done = run(f"s3://{s3_bucket}/m", keys, storages=storages, files=files, journal=f"{files}.jsonl", dry_run=True)
        found = statuses(done)
        assert found["good"] == "to sign"
        assert {"", "..", "a\nb", "x"} <= found.keys()
        assert {status for name, status in found.items() if name not in ("good", "x/y")} == {"refused"}
        assert done.exit_status == 3
    assert statuses(run(f"s3://{s3_bucket}/m", keys, storages=storages))["good"] == "signed"
    listed = client.list_objects_v2(Bucket=s3_bucket)["Contents"]
    assert {item["Key"].split("/")[1] for item in listed} == {
        *(name.split("/")[1] for name in hostile),
        "good",
        "good.evidence",
    }
