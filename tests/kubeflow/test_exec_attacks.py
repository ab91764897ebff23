"""What a hostile producer, store or command can do to a guarded task: refused, and nothing but the log is uploaded."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sealflow_kfp.evidence_metadata import KEY, EvidenceMetadata
from sealflow_kfp.exec import MISCONFIGURED, REFUSED
from sealflow_kfp.plan import Plan, Producer
from tests.audit_events import read_events
from tests.kubeflow.launcher import Launcher, Outcome, Stored, sends
from tests.pki import KeyPair, write_key
from tests.trees import flip_byte

RUN = "11111111-1111-4111-8111-111111111111"
OTHER_RUN = "22222222-2222-4222-8222-222222222222"
MODEL, SCORES = "{{$.outputs.artifacts['model'].path}}", "{{$.outputs.artifacts['scores'].path}}"
MAKE = f"mkdir {MODEL} && cd {MODEL} && echo w > w.bin && echo c > c.json"
USE = f"cat {{{{$.inputs.artifacts['model'].path}}}}/* > {SCORES}; echo the command ran"


@dataclass
class World:
    """A launcher whose tasks have a key, and a model that one of them made."""

    launcher: Launcher
    key: KeyPair
    spool: Path

    def make(self, task: str = "train", run: str = RUN, script: str = MAKE, **more: Any) -> Stored:
        done = self.launcher.run(task, script, outputs={"model": "system.Model"}, run=run, **more)
        assert done.status == 0, done.log
        return done.outputs["model"]

    def use(self, model: Stored, script: str = USE, **more: Any) -> Outcome:
        plan = Plan("churn", "score", {"model": (Producer("train", "model"),)}, ("scores",))
        parameters = more.pop("parameters", {"sealflow_plan": plan.to_text(), "sealflow_run_id": RUN})
        return self.launcher.run(
            "score",
            script,
            inputs={"model": model},
            outputs={"scores": "system.Dataset"},
            parameters=parameters,
            **more,
        )


def write_settings(launcher: Launcher, **settings: Any) -> None:
    launcher.mount.mkdir(parents=True, exist_ok=True)
    (launcher.mount / "sealflow.json").write_text(json.dumps(settings))


@pytest.fixture
def world(tmp_path: Path) -> World:
    launcher = Launcher(tmp_path)
    launcher.mount.mkdir(parents=True)
    key = write_key(launcher.mount, "signing")
    spool = tmp_path / "spool"
    write_settings(launcher, signer=key.signer, identities={"team": f"file:{key.public}"}, audit_spool=str(spool))
    return World(launcher, key, spool)


def test_an_honest_pipeline_runs(world: World) -> None:
    done = world.use(world.make())
    assert done.status == 0, done.log
    assert "the command ran" in done.log
    assert len(done.artifacts_uploaded) == 1
    assert world.launcher.key(done.outputs["scores"].uri).read_text() == "c\nw\n"
    assert KEY in done.outputs["scores"].metadata


def _flip(world: World, model: Stored) -> Stored:
    flip_byte(world.launcher.key(model.uri) / "w.bin")
    return model


def _replayed(world: World, model: Stored) -> Stored:
    """An honestly signed model of an older run in the place of this run's, bytes and evidence."""
    old = world.make(run=OTHER_RUN, script=MAKE.replace("echo w", "echo old"))
    shutil.rmtree(world.launcher.key(model.uri))
    shutil.copytree(world.launcher.key(old.uri), world.launcher.key(model.uri))
    return replace(model, metadata=old.metadata)


def _pointed_at_other_run(world: World, model: Stored) -> Stored:
    """The metadata store says that the input is the one of the older run."""
    return world.make(run=OTHER_RUN)


def _other_task(world: World, model: Stored) -> Stored:
    """Another task of the same run made it, and signed it honestly."""
    return world.make("evil")


def _other_output(world: World, model: Stored) -> Stored:
    """The right task made it, as another output."""
    made = world.launcher.run("train", MAKE.replace("'model'", "'draft'"), outputs={"draft": "system.Model"}, run=RUN)
    return made.outputs["draft"]


def _planted(world: World, model: Stored) -> Stored:
    (world.launcher.key(model.uri) / "sitecustomize.py").write_text("evil")
    return model


def _missing(world: World, model: Stored) -> Stored:
    (world.launcher.key(model.uri) / "w.bin").unlink()
    return model


def _link(world: World, model: Stored) -> Stored:
    file = world.launcher.key(model.uri) / "w.bin"
    data = file.read_bytes()
    aside = world.launcher.root / "aside"
    aside.write_bytes(data)
    file.unlink()
    file.symlink_to(aside)
    return model


def _link_at_the_top(world: World, model: Stored) -> Stored:
    place = world.launcher.key(model.uri)
    shutil.move(place, world.launcher.root / "aside")
    place.symlink_to(world.launcher.root / "aside")
    return model


def _stripped(world: World, model: Stored) -> Stored:
    return replace(model, metadata={key: value for key, value in model.metadata.items() if key != KEY})


def _edited(world: World, model: Stored) -> Stored:
    said = EvidenceMetadata.parse(model.metadata[KEY])
    payload = json.loads(said.provenance)
    payload["dsseEnvelope"]["payload"] = payload["dsseEnvelope"]["payload"][:-8] + "QUJDRA=="
    text = EvidenceMetadata(said.digest, json.dumps(payload).encode()).to_text()
    return replace(model, metadata={**model.metadata, KEY: text})


def _no_text(world: World, model: Stored) -> Stored:
    return replace(model, metadata={**model.metadata, KEY: {"struct": {}}})


def _foreign_key(world: World, model: Stored) -> Stored:
    """Signed, as this task of this run, with a key that nobody trusts."""
    settings = json.loads((world.launcher.mount / "sealflow.json").read_text())
    write_settings(world.launcher, **{**settings, "signer": write_key(world.launcher.root, "evil").signer})
    made = world.make()
    write_settings(world.launcher, **settings)
    return made


INPUTS: dict[str, tuple[Callable[[World, Stored], Stored], str]] = {
    "tampered byte": (_flip, "EVIDENCE_OF_OTHER_ARTIFACT"),
    "replay of another run's artifact": (_replayed, "PRODUCER_MISMATCH"),
    "pointed at another run's artifact": (_pointed_at_other_run, "PRODUCER_MISMATCH"),
    "swapped producer": (_other_task, "PRODUCER_MISMATCH"),
    "swapped output": (_other_output, "NAME_MISMATCH"),
    "planted extra file": (_planted, "EVIDENCE_OF_OTHER_ARTIFACT"),
    "missing file": (_missing, "EVIDENCE_OF_OTHER_ARTIFACT"),
    "symlink": (_link, "ARTIFACT_REFUSED"),
    "symlink at the top": (_link_at_the_top, "ARTIFACT_REFUSED"),
    "stripped metadata": (_stripped, "EVIDENCE_MISSING"),
    "edited metadata": (_edited, "SIGNATURE_INVALID"),
    "metadata of another type": (_no_text, "EVIDENCE_MALFORMED"),
    "foreign key": (_foreign_key, "SIGNER_NOT_ALLOWED"),
}


def assert_nothing_uploaded(done: Outcome, status: int) -> None:
    assert done.status == status, done.log
    assert done.artifacts_uploaded == []
    assert len(done.uploaded) == 1
    assert done.outputs == {}


@pytest.mark.parametrize(("attack", "code"), INPUTS.values(), ids=INPUTS)
def test_input(world: World, attack: Callable[[World, Stored], Stored], code: str) -> None:
    done = world.use(attack(world, world.make()))
    assert_nothing_uploaded(done, REFUSED)
    assert "the command ran" not in done.log
    assert f"refusal   {code}" in done.log
    assert f"{code}" in done.termination
    assert len(done.termination.encode()) <= 4096
    # The same word stands where a review finds it.
    last = read_events(world.spool)[-1]
    assert (last["action"], last["outcome"]) == ("verify", "failed")
    assert any(item.startswith(code) for item in last["codes"])


def test_without_a_plan_the_place_says_who_made_it(world: World) -> None:
    """Bytes and evidence of another run copied over this run's are refused by their place alone."""
    model = world.make()
    assert world.use(model, parameters={}).status == 0
    assert_nothing_uploaded(world.use(_replayed(world, model), parameters={}), REFUSED)


@pytest.mark.parametrize("status", [1, 7, 97, 98])
def test_failed_child(world: World, status: int) -> None:
    done = world.use(world.make(), USE + f"; exit {status}")
    assert_nothing_uploaded(done, status)
    assert not list((world.launcher.root / "pod" / "minio").rglob("scores"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_killed_child(world: World, number: int) -> None:
    done = world.use(world.make(), USE + f"; kill -{int(number)} $$")
    assert_nothing_uploaded(done, 128 + number)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signal_to_the_wrapper_reaches_all_processes_of_the_command(world: World, number: int) -> None:
    script = USE + "; sleep 60 & echo $! > child; touch ready; wait"
    # Tests that were started by nohup ignore one of them, and what they start does, too.
    before = signal.signal(number, signal.SIG_DFL) if signal.getsignal(number) is signal.SIG_IGN else None
    try:
        done = world.use(world.make(), script, interfere=sends(number, "ready"))
    finally:
        if before is not None:
            signal.signal(number, before)
    assert_nothing_uploaded(done, 128 + number)
    child = int((world.launcher.root / "pod" / "tmp" / "child").read_text())
    assert not _runs(child)


def test_a_command_that_ends_well_when_told_to_is_done(world: World) -> None:
    script = f"trap 'echo saved > {SCORES}; exit 0' TERM; touch ready; sleep 60 & wait"
    done = world.use(world.make(), script, interfere=sends(signal.SIGTERM, "ready"))
    assert done.status == 0, done.log
    assert world.launcher.key(done.outputs["scores"].uri).read_text() == "saved\n"


def test_killed_wrapper(world: World) -> None:
    done = world.use(world.make(), USE + "; touch ready; sleep 5", interfere=sends(signal.SIGKILL, "ready"))
    assert_nothing_uploaded(done, 128 + signal.SIGKILL)


def test_nothing_of_the_command_writes_on_while_outputs_are_signed(world: World) -> None:
    script = USE + f"; (sleep 1; echo more >> {SCORES}) & echo $! > child"
    done = world.use(world.make(), script)
    assert done.status == 0
    assert not _runs(int((world.launcher.root / "pod" / "tmp" / "child").read_text()))


def _runs(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_oversized_executor_input(world: World) -> None:
    """The kernel refuses what is longer than an argument; what the wrapper takes itself is bounded by the same."""
    from sealflow.errors import EvidenceError
    from sealflow_kfp.executor_io import MAX_INPUT, ExecutorInput

    with pytest.raises(EvidenceError, match="more than the limit"):
        ExecutorInput.parse(json.dumps({"inputs": {}, "outputs": {}, "pad": "x" * MAX_INPUT}))
    with pytest.raises(OSError, match="too long"):
        world.use(world.make(), parameters={"text": "x" * MAX_INPUT})


def hostile(document: str) -> str:
    return USE + f"; cat > {{{{output_file}}}} <<'END'\n{document}\nEND"


def _item(**members: Any) -> str:
    return json.dumps({"artifacts": {"scores": {"artifacts": [members]}}})


OUTPUTS = {
    "no JSON": "{",
    "empty": "",
    "no object": "[]",
    "a key twice": '{"artifacts": {}, "artifacts": {}}',
    "too deep": "[" * 100 + "]" * 100,
    "not a number": '{"parameterValues": {"a": NaN}}',
    "artifacts of another type": '{"artifacts": []}',
    "list of another type": '{"artifacts": {"scores": {"artifacts": {}}}}',
    "item of another type": '{"artifacts": {"scores": {"artifacts": [7]}}}',
    "two artifacts": '{"artifacts": {"scores": {"artifacts": [{}, {}]}}}',
    "uri of another type": _item(uri=7),
    "metadata of another type": _item(metadata=[]),
    "location out of its folder": _item(uri="minio://bucket/../../../etc/passwd"),
    "location that nobody reads": _item(uri="https://example.com/model"),
    "two custom paths": _item(customPath="/tmp/a", custom_path="/tmp/b"),
    "custom path that is relative": _item(custom_path="../../x"),
}


@pytest.mark.slow
@pytest.mark.parametrize("document", OUTPUTS.values(), ids=OUTPUTS)
def test_hostile_executor_output(world: World, document: str) -> None:
    done = world.use(world.make(), hostile(document))
    assert_nothing_uploaded(done, REFUSED)
    assert "the command ran" in done.log


FILES = {
    "link": "ln -s /etc/passwd {{output_file}}",
    "pipe": "mkfifo {{output_file}}",
    "folder": "mkdir {{output_file}}",
    "too long": "head -c 17000000 /dev/zero | tr '\\0' ' ' > {{output_file}}",
}


@pytest.mark.parametrize("script", FILES.values(), ids=FILES)
def test_executor_output_that_is_no_plain_file(world: World, script: str) -> None:
    assert_nothing_uploaded(world.use(world.make(), f"{USE}; {script}"), REFUSED)


def test_evidence_that_the_command_claims_is_replaced(world: World) -> None:
    claimed = world.make().metadata[KEY]
    done = world.use(world.make(), hostile(_item(name="scores", metadata={KEY: claimed, "rows": 3})))
    assert done.status == 0, done.log
    assert done.outputs["scores"].metadata[KEY] != claimed
    assert done.outputs["scores"].metadata["rows"] == 3


def test_evidence_that_is_claimed_for_nothing_goes(world: World) -> None:
    claimed = world.make().metadata[KEY]
    done = world.use(world.make(), hostile(_item(metadata={KEY: claimed})) + f"\nrm {SCORES}")
    assert done.status == 0, done.log
    assert KEY not in done.outputs["scores"].metadata


LINKS = {
    "at the top": f"ln -sf /etc/passwd {SCORES}",
    "inside": f"mkdir {SCORES}; ln -s /etc/passwd {SCORES}/a",
    "to a folder": f"mkdir {SCORES}; ln -s /etc {SCORES}/a",
    "pipe": f"mkdir {SCORES}; mkfifo {SCORES}/a",
}


@pytest.mark.parametrize("script", LINKS.values(), ids=LINKS)
def test_output_that_is_no_plain_file(world: World, script: str) -> None:
    """The launcher would follow links, and upload what they lead to."""
    assert_nothing_uploaded(world.use(world.make(), script), REFUSED)


OPTIONS = {
    "mode": ["--mode=audit"],
    "mode in two words": ["--mode", "audit"],
    "policy": ["--policy", "/tmp/mine.json"],
    "identities": ["--identities={}"],
    "executor input twice": ["--executor-input", "{}"],
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_option_that_loosens(world: World, options: list[str]) -> None:
    done = world.use(_flip(world, world.make()), options=options)
    assert_nothing_uploaded(done, MISCONFIGURED)
    assert "the command ran" not in done.log


@pytest.mark.parametrize("name", ["sealflow_policy", "sealflow_mode", "sealflow_identities", "sealflow_"])
def test_parameter_that_names_a_policy(world: World, name: str) -> None:
    assert_nothing_uploaded(world.use(world.make(), parameters={name: "x"}), MISCONFIGURED)


def test_variables_of_a_pipeline_say_nothing(world: World) -> None:
    """A task with settings of its own in the environment: neither its signer nor its identities count."""
    evil = write_key(world.launcher.root, "evil")
    settings = json.loads((world.launcher.mount / "sealflow.json").read_text())
    model = _foreign_key(world, world.make())
    world.launcher.environment = {
        "SEALFLOW_SIGNER": evil.signer,
        "SEALFLOW_IDENTITIES": json.dumps({"me": f"file:{evil.public}"}),
        "SEALFLOW_MOUNT": str(world.launcher.root),
    }
    assert_nothing_uploaded(world.use(model), REFUSED)
    del settings["identities"]
    write_settings(world.launcher, **settings)
    assert_nothing_uploaded(world.use(model), MISCONFIGURED)
    del settings["signer"]
    write_settings(world.launcher, **settings)
    assert_nothing_uploaded(world.launcher.run("train", MAKE, outputs={"model": "system.Model"}), MISCONFIGURED)


def _plan(**changes: Any) -> str:
    members = {
        "pipeline": "churn",
        "task": "score",
        "inputs": {"model": (Producer("train", "model"),)},
        "outputs": ("scores",),
        **changes,
    }
    return Plan(**members).to_text()


PLANS = {
    "no plan at all": "",
    "another version": _plan().replace('"sealflow_plan":1', '"sealflow_plan":2'),
    "another pipeline": _plan(pipeline="other"),
    "another task": _plan(task="train"),
    "input not named": _plan(inputs={}),
    "output not named": _plan(outputs=()),
    "output that is none": _plan(outputs=("scores", "more")),
}


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_plan_of_something_else(world: World, plan: str) -> None:
    parameters = {"sealflow_plan": plan, "sealflow_run_id": RUN}
    assert_nothing_uploaded(world.use(world.make(), parameters=parameters), MISCONFIGURED)


def test_run_that_the_parameter_names_is_the_one_of_the_place(world: World) -> None:
    parameters = {"sealflow_plan": _plan(), "sealflow_run_id": OTHER_RUN}
    assert_nothing_uploaded(world.use(world.make(run=OTHER_RUN), parameters=parameters), MISCONFIGURED)


def test_one_of_several_producers_is_enough(world: World) -> None:
    producers = (Producer("if-1/train", "model"), Producer("else-2/retrain", "model"))
    parameters = {"sealflow_plan": _plan(inputs={"model": producers}), "sealflow_run_id": RUN}
    for task, status in (("train", 0), ("retrain", 0), ("evil", REFUSED)):
        assert world.use(world.make(task), parameters=parameters).status == status, task


def test_input_that_no_task_made_is_judged_by_identities_alone(world: World) -> None:
    parameters = {"sealflow_plan": _plan(inputs={"model": ()}), "sealflow_run_id": RUN}
    assert world.use(world.make(run=OTHER_RUN), parameters=parameters).status == 0
    assert world.use(_stripped(world, world.make()), parameters=parameters).status == REFUSED


def test_private_copies_are_gone(world: World) -> None:
    world.use(_flip(world, world.make()))
    pod = world.launcher.root / "pod"
    assert not [name for _, folders, _ in os.walk(pod) for name in folders if "sealflow-" in name]
