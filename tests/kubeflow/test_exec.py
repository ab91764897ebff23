"""The wrapper around a task's command: what it does with honest tasks, and its rules for every kind of output."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.policies import places_of
from sealflow.errors import EvidenceError, UsageError
from sealflow.evidence import parse_bundle
from sealflow.keys import load_signer
from sealflow.policy.signed import POLICY_TYPE, make_signed
from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from sealflow_kfp.exec import MISCONFIGURED, REFUSED, UNAVAILABLE
from sealflow_kfp.executor_io import ExecutorInput, path_of
from sealflow_kfp.run_context import MOUNTS
from sealflow_kfp.signed_metadata import OURS
from sealflow_kfp.telling import MAX_TERMINATION, shortened
from tests.audit_events import read_events
from tests.core.encryption.messages import RSA_PEM, RSA_PUBLIC_PEM
from tests.e2e.admin import Admin, rule
from tests.kubeflow.launcher import Launcher, Outcome, Stored
from tests.pki import write_key
from tests.servers.timestamp_authority import TimestampAuthority
from tests.trees import flip_byte

RUN = "11111111-1111-4111-8111-111111111111"
MODEL, SCORES = "{{$.outputs.artifacts['model'].path}}", "{{$.outputs.artifacts['scores'].path}}"
INPUT = "{{$.inputs.artifacts['model'].path}}"


class Team:
    """A launcher, and a team's key and settings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.launcher = Launcher(root)
        self.launcher.mount.mkdir(parents=True)
        self.key = write_key(self.launcher.mount, "signing")
        self.spool = root / "spool"
        self.settings: dict[str, Any] = {
            "signer": self.key.signer,
            "identities": {"team": f"file:{self.key.public}"},
            "audit_spool": str(self.spool),
        }
        self.write()

    def write(self, **changes: Any) -> None:
        self.settings |= changes
        kept = {name: value for name, value in self.settings.items() if value is not None}
        (self.launcher.mount / "sealflow.json").write_text(json.dumps(kept))

    def make(self, script: str = f"echo weights > {MODEL}", kind: str = "system.Model", **more: Any) -> Stored:
        done = self.launcher.run("train", script, outputs={"model": kind}, **more)
        assert done.status == 0, done.log
        return done.outputs["model"]

    def use(self, model: Stored, script: str = f"cat {INPUT} > {SCORES}", **more: Any) -> Outcome:
        return self.launcher.run("score", script, inputs={"model": model}, outputs={"scores": "system.Dataset"}, **more)

    def publish(self, *rules: dict[str, Any], recipients: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Put an admin's policy in force."""
        admin = Admin(self.root / "admin")
        body = {
            "apiVersion": "sealflow/v1",
            "version": 1,
            "expires": "2099-01-01T00:00:00Z",
            "identities": {"team": {"key": self.key.public.read_text()}},
            "recipients": dict(recipients or {}),
            "rules": list(rules),
            **more,
        }
        signed = make_signed(json.dumps(body).encode(), load_signer(admin.key.signer), POLICY_TYPE)
        admin.policy.write_bytes(signed)
        admin.write_file(self.launcher.admin_file)


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def statement(stored: Stored) -> dict[str, Any]:
    """Return what the provenance in an artifact's metadata says."""
    bundle = json.loads(EvidenceMetadata.parse(stored.metadata[KEY]).provenance)
    said: dict[str, Any] = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return said


def dependencies(stored: Stored) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = statement(stored)["predicate"]["buildDefinition"]["resolvedDependencies"]
    return found


# --- Provenance ---


def test_provenance_names_verified_inputs_by_their_place_in_the_store(team: Team) -> None:
    model = team.make()
    done = team.use(model)
    (found,) = dependencies(done.outputs["scores"])
    assert found["uri"] == model.uri
    assert found["name"] == "model"
    assert found["digest"] == statement(model)["subject"][0]["digest"]
    said = statement(done.outputs["scores"])
    assert said["subject"][0]["name"] == "scores"
    assert said["predicate"]["runDetails"]["metadata"]["invocationId"] == f"kfp:churn/score/{RUN}"


def test_an_input_that_the_command_changed_is_not_named(team: Team) -> None:
    done = team.use(team.make(), f"cat {INPUT} > {SCORES}; echo more >> {INPUT}")
    assert done.status == 0
    assert dependencies(done.outputs["scores"]) == []
    assert "was changed by the command" in done.log


def test_parameters_of_the_hardener_are_none_of_the_task(team: Team) -> None:
    model = team.make(parameters={"rate": 0.5, "sealflow_run_id": RUN})
    parameters = statement(model)["predicate"]["buildDefinition"]["externalParameters"]["parameters"]
    assert set(parameters) <= {"rate"}


def test_tasks_are_stamped_where_the_policy_says_so(team: Team) -> None:
    """The policy names who stamps and asks for it; neither pipeline nor image knows of it."""
    before = team.make()
    with TimestampAuthority(team.root / "authority").serving() as authority:
        team.publish(
            rule("models", EVERYTHING, "team", evidence={"provenance": {"timestamp": True}}),
            signers=[{"uri": team.key.signer, "timestamp": "company"}],
            timestamp_authorities={"company": {"roots": authority.roots, "url": authority.url}},
        )
        refused = team.use(before)
        assert refused.status == REFUSED, refused.log
        assert "TIMESTAMP_MISSING" in refused.log
        done = team.use(team.make())
        assert done.status == 0, done.log
        bundle = parse_bundle(EvidenceMetadata.parse(done.outputs["scores"].metadata[KEY]).provenance)
        assert len(bundle.timestamps) == 1
    # Nobody answers there any more: nothing is handed on without a stamp.
    gone = team.launcher.run("train", f"echo more > {MODEL}", outputs={"model": "system.Model"})
    assert gone.status == UNAVAILABLE, gone.log
    assert "timestamp authority" in gone.log


# --- Outputs ---


def test_a_file_without_bytes_is_signed(team: Team) -> None:
    done = team.use(team.make(f": > {MODEL}"))
    assert done.status == 0, done.log
    assert len(dependencies(done.outputs["scores"])) == 1


@pytest.mark.parametrize("script", ["true", f"mkdir -p {MODEL}/a/b"], ids=["missing", "folder without files"])
def test_what_was_not_made_is_not_signed_and_believed_by_nobody(team: Team, script: str) -> None:
    model = team.make(script)
    assert KEY not in model.metadata
    done = team.use(model, "true")
    assert (done.status, done.artifacts_uploaded) == (REFUSED, [])


@pytest.mark.parametrize("files", [1, 40])
def test_folders(team: Team, files: int) -> None:
    model = team.make(f"mkdir -p {MODEL}/a; for i in $(seq {files}); do echo $i > {MODEL}/a/$i; done")
    done = team.use(model, f"cat {INPUT}/a/* | wc -l > {SCORES}")
    assert done.status == 0, done.log
    assert team.launcher.key(done.outputs["scores"].uri).read_text().strip() == str(files)


def output(**members: Any) -> str:
    return json.dumps({"artifacts": {"model": {"artifacts": [{"name": "model", **members}]}}})


@pytest.mark.parametrize("key", ["custom_path", "customPath"])
@pytest.mark.parametrize("tree", [False, True], ids=["file", "folder"])
def test_a_custom_path_is_brought_to_the_place_of_the_output(team: Team, key: str, tree: bool) -> None:
    aside = team.root / "pod" / "aside"
    make = f"mkdir {aside}; echo deep > {aside}/a" if tree else f"echo deep > {aside}"
    model = team.make(f"{make}; cat > {{{{output_file}}}} <<'END'\n{output(**{key: str(aside)})}\nEND")
    done = team.use(model, f"cat {INPUT}{'/a' if tree else ''} > {SCORES}")
    assert done.status == 0, done.log
    assert team.launcher.key(done.outputs["scores"].uri).read_text() == "deep\n"


def test_a_location_that_the_command_chose_is_the_one_that_is_signed(team: Team) -> None:
    chosen = "minio://bucket/models/chosen"
    place = team.root / "pod" / "minio" / "bucket" / "models"
    script = f"mkdir -p {place}; echo w > {place}/chosen; cat > {{{{output_file}}}} <<'END'\n{output(uri=chosen)}\nEND"
    model = team.make(script)
    assert model.uri == chosen
    assert team.use(model).status == 0
    flip_byte(team.launcher.key(chosen))
    assert team.use(model).status == REFUSED


METRICS = ["system.Metrics", "system.ClassificationMetrics", "system.SlicedClassificationMetrics"]


@pytest.mark.parametrize("kind", METRICS)
def test_metadata_without_a_file_is_signed_and_consumers_see_what_was_signed(team: Team, kind: str) -> None:
    said = {"accuracy": 1, "passed": True, "matrix": [{"row": [1, 2.5]}], "labels": {"a": "b"}}
    script = f"cat > {{{{output_file}}}} <<'END'\n{output(metadata=said)}\nEND"
    model = team.make(script, kind)
    # What the metadata store made of it, and what somebody made of it there.
    assert model.metadata["accuracy"] == 1.0
    model.metadata["accuracy"] = 0.1
    model.metadata["planted"] = "x"
    command = ["sh", "-c", 'echo "$0" > "$1"', "{{$}}", SCORES]
    done = team.launcher.run("score", command, inputs={"model": model}, outputs={"scores": "system.Dataset"})
    assert done.status == 0, done.log
    given = json.loads(team.launcher.key(done.outputs["scores"].uri).read_text())
    assert given["inputs"]["artifacts"]["model"]["artifacts"][0]["metadata"] == said
    flip_byte(team.launcher.key(model.uri), 5)
    assert team.use(model).status == REFUSED


def test_what_the_command_hands_back_is_kept(team: Team) -> None:
    said = {"parameterValues": {"rate": 0.5, "n": 3, "text": "é"}, **json.loads(output(metadata={"rows": 3}))}
    script = f"echo w > {MODEL}; cat > {{{{output_file}}}} <<'END'\n{json.dumps(said)}\nEND"
    done = team.launcher.run("train", script, outputs={"model": "system.Model"})
    assert done.output_file is not None
    kept = json.loads(json.dumps(done.output_file))
    metadata = kept["artifacts"]["model"]["artifacts"][0]["metadata"]
    assert {metadata.pop(key) and key for key in OURS} == set(OURS)
    assert kept == said


def test_a_page_about_the_task_where_the_pipeline_asks_for_one(team: Team) -> None:
    command = ["sh", "-c", f'echo w > {MODEL}; case "$0" in *sealflow_verdict*) exit 9; esac', "{{$}}"]
    done = team.launcher.run("train", command, outputs={"model": "system.Model", "sealflow_verdict": "system.HTML"})
    assert done.status == 0, done.log
    page = team.launcher.key(done.outputs["sealflow_verdict"].uri).read_text()
    assert "Signed outputs" in page
    assert str(EvidenceMetadata.parse(done.outputs["model"].metadata[KEY]).digest) in page


def test_a_task_without_artifacts_has_its_page_too_and_needs_no_settings(team: Team) -> None:
    (team.launcher.mount / "sealflow.json").unlink()
    done = team.launcher.run("train", "echo fine", outputs={"sealflow_verdict": "system.HTML"})
    assert done.status == 0, done.log
    assert "kfp:churn/train" in team.launcher.key(done.outputs["sealflow_verdict"].uri).read_text()


# --- Stores, and encryption ---


def test_a_store_gets_signature_and_provenance(team: Team) -> None:
    team.write(evidence_store=str(team.root / "evidence"))
    model = team.make()
    kinds = sorted(path.name.partition("-")[0] for path in (team.root / "evidence").rglob("*.json"))
    assert kinds == ["provenance", "signature"]
    # Then the metadata is not needed, and what is missing in the store it does not replace.
    stripped = Stored(model.uri, model.kind, {}, model.number)
    assert team.use(stripped, "true").status == 0
    next((team.root / "evidence").rglob("signature-*.json")).unlink()
    assert team.use(model, "true").status == REFUSED


def test_the_same_bytes_made_by_two_runs_count_for_each(team: Team) -> None:
    team.write(evidence_store=str(team.root / "evidence"))
    other = "22222222-2222-4222-8222-222222222222"
    first, second = team.make(), team.make(run=other)
    assert team.use(first).status == 0
    assert team.use(second, run=other).status == 0


@pytest.fixture
def sealed(team: Team) -> Team:
    (team.launcher.mount / "data.key").write_bytes(os.urandom(32))
    os.chmod(team.launcher.mount / "data.key", 0o600)
    team.write(evidence_store=str(team.root / "evidence"), recipients=[f"aes:{team.launcher.mount / 'data.key'}"])
    return team


@pytest.mark.parametrize("tree", [False, True], ids=["file", "folder"])
def test_outputs_are_encrypted_and_inputs_opened_where_they_lie(sealed: Team, tree: bool) -> None:
    script = f"mkdir {MODEL}; echo weights > {MODEL}/w" if tree else f"echo weights > {MODEL}"
    model = sealed.make(script)
    stored = sealed.launcher.key(model.uri)
    assert stored.is_file()
    assert b"weights" not in stored.read_bytes()
    done = sealed.use(model, f"cat {INPUT}{'/w' if tree else ''} | tr a-z A-Z > {SCORES}")
    assert done.status == 0, done.log
    assert b"WEIGHTS" not in sealed.launcher.key(done.outputs["scores"].uri).read_bytes()
    assert [item["uri"] for item in dependencies(done.outputs["scores"])] == [model.uri]
    flip_byte(stored, stored.stat().st_size - 40)
    assert sealed.use(model).status == REFUSED


def test_what_kfp_shows_is_not_encrypted_unless_a_policy_says_so(sealed: Team) -> None:
    model = sealed.make(f"echo '<p>hello' > {MODEL}", "system.HTML")
    assert sealed.launcher.key(model.uri).read_text() == "<p>hello\n"


def test_encryption_without_a_store_is_refused_before_the_command(sealed: Team) -> None:
    sealed.write(evidence_store=None)
    done = sealed.launcher.run("train", f"echo w > {MODEL}; echo ran", outputs={"model": "system.Model"})
    assert done.status == MISCONFIGURED
    assert "ran" not in done.log.splitlines()


# --- Under a policy ---

EVERYTHING = "s3://bucket/**"
PROVENANCE = {"evidence": {"provenance": {}}}


def test_a_policy_says_what_is_managed(team: Team) -> None:
    team.publish(rule("models", "s3://elsewhere/**", "team", **PROVENANCE))
    model = team.make()
    assert KEY not in model.metadata
    done = team.use(model)
    assert done.status == 0
    assert "0 inputs verified, 0 outputs signed, 2 artifacts not managed" in done.log


def test_a_policy_is_enforced(team: Team) -> None:
    team.publish(rule("models", EVERYTHING, "team", **PROVENANCE))
    team.write(identities=None)
    model = team.make()
    assert team.use(model).status == 0
    done = team.use(Stored(model.uri, model.kind, {}, model.number))
    assert done.status == REFUSED
    assert "EVIDENCE_MISSING" in done.termination


def test_a_policy_that_is_only_audited_lets_go_on_and_records(team: Team) -> None:
    team.publish(rule("models", EVERYTHING, "team", level="audit", **PROVENANCE))
    team.write(signer=None)
    model = team.make()
    assert KEY not in model.metadata
    done = team.use(model)
    assert done.status == 0, done.log
    assert team.launcher.key(done.outputs["scores"].uri).read_text() == "weights\n"
    verified = [event for event in read_events(team.spool) if event["action"] == "verify" and "outcome" in event]
    assert verified


@pytest.mark.parametrize("level", ["audit", "enforce"])
def test_wrong_bytes_under_each_level(team: Team, level: str) -> None:
    team.publish(rule("models", EVERYTHING, "team", level=level, **PROVENANCE))
    model = team.make()
    flip_byte(team.launcher.key(model.uri))
    done = team.use(model)
    assert done.status == (0 if level == "audit" else REFUSED)
    assert "EVIDENCE_OF_OTHER_ARTIFACT" in done.log
    failed = [event for event in read_events(team.spool) if event.get("outcome") == "failed"]
    assert failed
    if level == "audit":
        assert dependencies(done.outputs["scores"]) == []


def test_a_rule_that_names_artifacts_by_their_logical_name(team: Team) -> None:
    team.publish(rule("models", "name:model", "team", **PROVENANCE))
    model = team.make()
    assert KEY in model.metadata
    assert team.use(model).status == 0
    assert team.use(Stored(model.uri, model.kind, {}, model.number)).status == REFUSED


def test_a_policy_that_is_not_to_be_had(team: Team) -> None:
    team.publish(rule("models", EVERYTHING, "team", **PROVENANCE))
    model = team.make()
    (team.root / "admin" / "policy.json").unlink()
    done = team.use(model)
    assert (done.status, done.artifacts_uploaded) == (UNAVAILABLE, [])
    assert "POLICY_UNAVAILABLE" in done.termination


def test_an_audit_log_out_of_reach_is_no_verdict(team: Team) -> None:
    model = team.make()
    (team.root / "file").write_text("")
    team.write(audit_spool=str(team.root / "file" / "spool"))
    assert team.use(model).status == UNAVAILABLE


def test_recipients_that_a_policy_demands(team: Team) -> None:
    """Rules of a policy say to whom an output is encrypted; the settings name the key that opens it here."""
    (team.launcher.mount / "rsa.pem").write_bytes(RSA_PEM)
    (team.launcher.mount / "rsa.pem").chmod(0o600)
    team.publish(
        rule("models", EVERYTHING, "team", recipients={"required": ["readers"], "encrypted": True}, **PROVENANCE),
        recipients={"readers": {"rsa": RSA_PUBLIC_PEM.decode()}},
    )
    team.write(evidence_store=str(team.root / "evidence"))
    model = team.make()
    assert b"weights" not in team.launcher.key(model.uri).read_bytes()
    assert team.use(model).artifacts_uploaded == []
    team.write(recipients=[f"rsa:{team.launcher.mount / 'rsa.pem'}"])
    done = team.use(model)
    assert done.status == 0, done.log


def page(team: Team, inputs: dict[str, Stored], script: str) -> str:
    outputs = {"scores": "system.Dataset", "sealflow_verdict": "system.HTML"}
    done = team.launcher.run("score", script, inputs=inputs, outputs=outputs)
    assert done.status == 0, done.log
    return team.launcher.key(done.outputs["sealflow_verdict"].uri).read_text()


def test_the_page_says_what_was_let_pass_and_calls_nothing_verified_that_was_not(team: Team) -> None:
    team.publish(rule("models", EVERYTHING, "team", level="audit", **PROVENANCE))
    model = team.make()
    text = page(team, {"model": Stored(model.uri, model.kind, {}, model.number)}, f"cat {INPUT} > {SCORES}")
    assert "0 inputs verified, 1 outputs signed, 0 artifacts not managed, 1 let pass." in text
    assert "PRODUCER_MISMATCH" in text
    assert "passed" not in text
    team.publish(rule("models", "s3://elsewhere/**", "team", **PROVENANCE))
    text = page(team, {"model": model}, f"cat {INPUT} > {SCORES}")
    assert "0 inputs verified, 0 outputs signed, 2 artifacts not managed." in text
    assert "passed" not in text


def test_the_page_says_that_an_input_was_changed(team: Team) -> None:
    text = page(team, {"model": team.make()}, f"cat {INPUT} > {SCORES}; echo more >> {INPUT}")
    assert "The command changed it" in text


def test_more_than_provenance_has_room_for_is_said_before_the_command(team: Team) -> None:
    many = {f"learning_rate_of_the_layer_{number}": "v" for number in range(300)}
    script = f"echo w > {MODEL}; echo ran"
    done = team.launcher.run("train", script, outputs={"model": "system.Model"}, parameters=many)
    assert done.status == MISCONFIGURED
    assert "PROVENANCE_TOO_LONG" in done.termination
    assert "300 parameters" in done.log
    assert "ran" not in done.log.splitlines()
    few = dict(list(many.items())[:100])
    assert team.launcher.run("train", script, outputs={"model": "system.Model"}, parameters=few).status == 0


# --- Commands ---


@pytest.mark.parametrize(
    ("command", "status"),
    [(["no-such-program-at-all"], 127), (["/etc/passwd"], 126), (["sh", "-c", "exit 3"], 3), (["true"], 0)],
    ids=["not found", "not executable", "own status", "done"],
)
def test_status_of_the_command(team: Team, command: list[str], status: int) -> None:
    assert team.launcher.run("train", command).status == status


def test_the_command_has_the_environment_of_the_task(team: Team) -> None:
    team.launcher.environment = {"SEALFLOW_SIGNER": "file:/mine.pem", "RATE": "3"}
    assert team.launcher.run("train", 'test "$SEALFLOW_SIGNER$RATE" = file:/mine.pem3').status == 0


def test_any_language(team: Team) -> None:
    for command in (["awk", f'BEGIN {{ print "w" > "{MODEL}" }}'], ["cp", "/etc/hostname", MODEL]):
        assert KEY in team.launcher.run("train", command, outputs={"model": "system.Model"}).outputs["model"].metadata


# --- Shared inputs: KFP's local runner hands a consumer the producer's very file ---

LOCAL = "churn-2026-11-22-07-15-23-240111"


def local(
    team: Team, component: str, command: list[str], inputs: Mapping[str, Path] | None = None, **metadata: Any
) -> tuple[int, str, dict[str, Any]]:
    """Run a task as KFP's local runner does; ``$I``, ``$O`` and ``$J`` are the paths and the executor input."""
    folder = team.root / LOCAL / component
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "out"
    body = {
        "inputs": {
            "artifacts": {
                name: {"artifacts": [{"name": name, "uri": str(path), "metadata": metadata}]}
                for name, path in (inputs or {}).items()
            }
        },
        "outputs": {
            "artifacts": {"out": {"artifacts": [{"name": "out", "uri": str(out)}]}},
            "outputFile": str(folder / "executor_output.json"),
        },
    }
    text = json.dumps(body)
    given = str((inputs or {}).get("model", ""))
    whole = [item.replace("$J", text).replace("$I", given).replace("$O", str(out)) for item in command]
    done = subprocess.run(
        [sys.executable, "-m", "sealflow_kfp.exec", "--executor-input", text, "--", *whole],
        env={**os.environ, "SEALFLOW_MOUNT": str(team.launcher.mount), "TMPDIR": str(team.root / "pod")},
        capture_output=True,
        text=True,
    )
    file = folder / "executor_output.json"
    said = json.loads(file.read_text())["artifacts"]["out"]["artifacts"][0]["metadata"] if file.exists() else {}
    return done.returncode, done.stderr + done.stdout, said


@pytest.fixture
def made(team: Team) -> tuple[Path, dict[str, Any]]:
    status, log, said = local(team, "train", ["sh", "-c", "echo weights > $O"])
    assert status == 0, log
    return team.root / LOCAL / "train" / "out", said


def test_a_shared_input_is_a_private_copy(team: Team, made: tuple[Path, dict[str, Any]]) -> None:
    path, said = made
    code = "import sys, json; print(json.loads(sys.argv[1])['inputs']['artifacts']['model']['artifacts'][0]['uri'])"
    script = f'cat "$1" > $O; echo "$1"; chmod u+w "$1"; echo more >> "$1"; exec {sys.executable} -c "{code}" "$0"'
    status, log, out = local(team, "score", ["sh", "-c", script, "$J", "$I"], {"model": path}, **said)
    assert status == 0, log
    argument, uri = (line for line in log.splitlines() if line.startswith("/"))
    assert argument == uri != str(path)
    assert os.path.basename(argument) == "out"
    assert not os.path.exists(argument)
    assert path.read_text() == "weights\n"
    assert (team.root / LOCAL / "score" / "out").read_text() == "weights\n"
    # It was the copy that the command changed; nobody can say what it made the output from.
    assert KEY in out


def test_a_changed_shared_input_is_refused(team: Team, made: tuple[Path, dict[str, Any]]) -> None:
    path, said = made
    flip_byte(path)
    status, log, _ = local(team, "score", ["sh", "-c", "echo ran"], {"model": path}, **said)
    assert status == REFUSED
    assert "ran" not in log.splitlines()
    assert path.exists()


FORMS = {
    "alone": "{}",
    "behind an equals sign": "--model={}",
    "quoted": "cat '{}'",
    "in a script": "x={}; cat $x {}/a {}",
    "with a file in it": "{}/weights.bin",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_paths_in_arguments_are_exchanged(form: str) -> None:
    given = parsed({"model": "/root/run/train/model"})
    moved = {("model", 0): "/tmp/sealflow-x/model"}
    (argument,) = given.command([form.replace("{}", "/root/run/train/model")], given.text, moved)
    assert argument == form.replace("{}", "/tmp/sealflow-x/model")


@pytest.mark.parametrize("form", ["file://{}", "-I{}", "/backup{}", "../..{}"])
def test_a_path_that_cannot_be_exchanged_ends_the_task(form: str) -> None:
    """The command would read what nobody checked."""
    given = parsed({"model": "/root/run/train/model"})
    with pytest.raises(UsageError, match="cannot be exchanged"):
        given.command([form.replace("{}", "/root/run/train/model")], given.text, {("model", 0): "/tmp/x/model"})


@pytest.mark.parametrize("other", ["/root/run/train/model2", "/root/run/train/model-old", "/root/run/train/model.bin"])
def test_another_path_with_the_same_beginning_stays(other: str) -> None:
    given = parsed({"model": "/root/run/train/model"})
    assert given.command([other], given.text, {("model", 0): "/tmp/x/model"}) == [other]


def test_one_path_that_begins_another(tmp_path: Path) -> None:
    given = parsed({"a": "/root/run/train/m", "b": "/root/run/train/m/n"})
    moved = {("a", 0): "/tmp/1/m", ("b", 0): "/tmp/2/n"}
    assert given.command(["/root/run/train/m:/root/run/train/m/n"], given.text, moved) == ["/tmp/1/m:/tmp/2/n"]


def parsed(inputs: Mapping[str, str], outputs: Mapping[str, str] | None = None, **more: Any) -> ExecutorInput:
    def listed(items: Mapping[str, str]) -> dict[str, Any]:
        return {name: {"artifacts": [{"name": name, "uri": uri}]} for name, uri in items.items()}

    body = {"inputs": {"artifacts": listed(inputs)}, "outputs": {"artifacts": listed(outputs or {}), **more}}
    return ExecutorInput.parse(json.dumps(body))


OVERLAPS = {
    "an output in an output": ({}, {"a": "/r/run/task/a", "b": "/r/run/task/a/b"}),
    "one place twice": ({}, {"a": "/r/run/task/a", "b": "/r/run/task/a"}),
    "an output that is an input": ({"i": "/r/run/task/a"}, {"a": "/r/run/task/a"}),
    "an output in an input": ({"i": "/r/run/task", "j": "/r/run/task/x"}, {"a": "/r/run/task/y"}),
    "an input in an output": ({"i": "/r/run/task/a/b"}, {"a": "/r/run/task/a"}),
    "an output at the root": ({}, {"a": "/etc"}),
    "an output of two levels": ({}, {"a": "/etc/passwd"}),
    "an output that no task is shown": ({}, {"a": "https://example.com/model"}),
}


@pytest.mark.parametrize(("inputs", "outputs"), OVERLAPS.values(), ids=OVERLAPS)
def test_places_that_cannot_be(
    inputs: dict[str, str], outputs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Wherever the task starts.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        parsed(inputs, outputs)


def test_two_inputs_may_be_one_artifact() -> None:
    assert len(parsed({"a": "/r/run/task/a", "b": "/r/run/task/a"}).inputs) == 2


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://b/k", "/gcs/b/k"),
        ("minio://b/k", "/minio/b/k"),
        ("s3://b/k", "/s3/b/k"),
        ("oci://r/model:1", "/oci/r_model:1/models"),
        ("/local/k", "/local/k"),
        ("https://example.com/k", ""),
        ("hf://org/model", ""),
    ],
)
def test_where_the_launcher_shows_a_location(uri: str, path: str) -> None:
    assert path_of(uri, "x") == path


@pytest.mark.parametrize("uri", ["s3://b/../../etc", "s3://..", "/a/../b", "s3://b/\x00", "s3://b/a\nb", "/"])
def test_a_location_that_leads_elsewhere(uri: str) -> None:
    with pytest.raises(EvidenceError):
        path_of(uri, "x")


def test_a_workspace_is_shared() -> None:
    item = {"name": "m", "uri": "s3://b/k", "metadata": {"_kfp_workspace": True}}
    body = {"inputs": {"artifacts": {"m": {"artifacts": [item]}}}, "outputs": {}}
    given = ExecutorInput.parse(json.dumps(body))
    (found,) = given.inputs
    assert (found.path, found.shared) == ("/kfp-workspace/.artifacts/s3/b/k", True)
    rewritten = json.loads(given.rewritten({("m", 0): "/tmp/x/k"}, {}))["inputs"]["artifacts"]["m"]["artifacts"][0]
    assert (rewritten["uri"], rewritten["metadata"]) == ("/tmp/x/k", {})


def test_rules_about_a_store_hold_in_a_workspace() -> None:
    """Whoever writes the metadata store can say that an artifact lies there, where any task of the run can write."""
    for folder, location in (("gcs", "gs"), ("minio", "s3"), ("s3", "s3")):
        places = places_of(f"file:///kfp-workspace/.artifacts/{folder}/bucket/models/m", MOUNTS)
        assert f"{location}://bucket/models/m" in places


@pytest.mark.parametrize("key", ["customPath", "custom_path"])
def test_an_input_with_a_place_of_its_own(key: str) -> None:
    """The launcher would bring it there, and a lightweight component would read elsewhere."""
    body = {"inputs": {"artifacts": {"m": {"artifacts": [{"uri": "s3://b/k", key: "/tmp/x"}]}}}, "outputs": {}}
    with pytest.raises(UsageError, match="custom path"):
        ExecutorInput.parse(json.dumps(body))


def test_outputs_that_nobody_manages_stay_when_the_command_fails(team: Team) -> None:
    team.publish(rule("models", "s3://elsewhere/**", "team", **PROVENANCE))
    assert team.launcher.run("train", f"echo w > {MODEL}; exit 3", outputs={"model": "system.Model"}).status == 3
    assert list((team.root / "pod" / "minio").rglob("model"))
    (team.launcher.admin_file).unlink()
    assert team.launcher.run("train", f"echo w > {MODEL}; exit 3", outputs={"model": "system.Model"}).status == 3
    assert not list((team.root / "pod" / "minio").rglob("model"))


def test_a_list_of_artifacts() -> None:
    items = [{"name": str(n), "uri": f"/r/run/task/{n}/out"} for n in range(3)]
    given = ExecutorInput.parse(json.dumps({"inputs": {"artifacts": {"m": {"artifacts": items}}}, "outputs": {}}))
    assert [str(item) for item in given.inputs] == ["m", "m[1]", "m[2]"]
    text = given.rewritten({("m", 1): "/tmp/x/out"}, {})
    uris = [item["uri"] for item in json.loads(text)["inputs"]["artifacts"]["m"]["artifacts"]]
    assert uris == ["/r/run/task/0/out", "/tmp/x/out", "/r/run/task/2/out"]


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 3000, "\U0001f916" * 2000])
def test_the_termination_message_is_short_and_whole(text: str) -> None:
    data = shortened(text)
    assert len(data) <= MAX_TERMINATION
    assert data.decode().endswith("…")
    assert shortened("short") == b"short"
