"""What events may claim of an inlet, and what a task with audited rules may do: the guard with events of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sealflow
from sealflow.evidence import EvidenceStore, parse_bundle
from sealflow.keys import load_public_key
from sealflow.policy.source import forget
from sealflow.storage import Storages
from tests.airflow.conftest import TaskInstance
from tests.e2e.admin import Admin, rule
from tests.pki import write_key
from tests.servers.timestamp_authority import TimestampAuthority

pytestmark = pytest.mark.airflow

START = datetime(2026, 1, 1, tzinfo=UTC)


class Recent(list):  # type: ignore[type-arg]
    """As Airflow's accessor of an inlet's events, which are kept here oldest first."""

    def ascending(self, ascending: bool) -> Recent:
        return self if ascending else Recent(reversed(self))

    def limit(self, number: int) -> Recent:
        return Recent(self[:number])


@dataclass
class World:
    """A policy for a folder, events of one asset, and a task that has the asset as inlet."""

    folder: Path
    signer: str
    admin: Admin
    made: int = 0
    triggering: list[Any] = field(default_factory=list)
    recent: Recent = field(default_factory=Recent)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def asset(self) -> Any:
        from airflow.sdk import Asset

        return Asset(name="model", uri=f"file://{self.models}")

    def sign(self, place: str, *, run: str = "r1", task: str = "fit", index: int = -1, text: str = "weights") -> Any:
        """Write and sign an artifact as a task would, and return the reference."""
        from sealflow.actions.context import Settings, Surroundings
        from sealflow.run_identity import RunIdentity

        path = self.models / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        identity = RunIdentity("airflow", "train", task, run, None if index < 0 else index)
        with sealflow.run(Surroundings(identity, Settings(signer=self.signer))):
            return sealflow.sign(str(path)).as_dict()

    def event(self, extra: Any, *, run: str = "r1", task: str = "fit", index: int = -1) -> Any:
        self.made += 1
        asset = SimpleNamespace(uri=f"file://{self.models}", name="model")
        return SimpleNamespace(
            asset=asset,
            extra=extra,
            timestamp=START + timedelta(seconds=self.made),
            source_dag_id="train",
            source_task_id=task,
            source_run_id=run,
            source_map_index=index,
        )

    def run(self, work: Callable[[], Any] = lambda: None, outlets: Sequence[Any] = (), named: str = "") -> Any:
        from sealflow_airflow.guard import guarded

        asset = self.asset()
        task = SimpleNamespace(inlets=[] if outlets else [asset], outlets=list(outlets))
        ti = TaskInstance(dag_id="train", task_id="use", run_id="r1")
        ti.task = task  # type: ignore[attr-defined]
        context: Any = {
            "ti": ti,
            "task": task,
            "params": {},
            "dag_run": SimpleNamespace(conf={}),
            "triggering_asset_events": {asset: self.triggering} if self.triggering else {},
            "inlet_events": {asset: self.recent},
            "outlet_events": {
                item: SimpleNamespace(extra={"sealflow_uri": named} if named else {}) for item in outlets
            },
        }
        return guarded(context, task, work)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Callable[..., None]) -> Callable[..., World]:
    def make(beside: str = "", **fields: Any) -> World:
        from sealflow_airflow import policy

        admin, trainer = Admin(tmp_path / "admin"), write_key(tmp_path, "trainer")
        models = tmp_path / "models"
        rules = [rule("models", f"{models}", "trainer", **fields), rule("in", f"{models}/**", "trainer", **fields)]
        if beside:
            rules[0]["scope"]["artifact"].append(f"{tmp_path}/{beside}/**")
        admin.publish(rules, {"trainer": trainer})
        connect(extra={"signer": trainer.signer})
        monkeypatch.setattr(policy, "channel", lambda: admin.channel(state=str(tmp_path / "state")))
        models.mkdir()
        return World(tmp_path, trainer.signer, admin)

    return make


@contextlib.contextmanager
def refused(code: str):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=code):
        yield


def test_event_of_one_task_is_believed(world):
    here = world()
    here.triggering = [here.event({"sealflow": here.sign("good")})]
    here.run()


def test_guarded_task_signs_with_both_keys_while_one_is_replaced(world, connect, tmp_path):
    """Nothing of the task changes; the signer of the deployment has a second one."""
    here = world()
    write_key(tmp_path, "next")
    connect(extra={"signer": f"{here.signer}?also=file:{tmp_path}/next.pem"})
    asset = here.asset()
    here.run(lambda: here.models.joinpath("new").write_text("weights"), outlets=[asset])
    store = EvidenceStore(f"{here.models}.evidence", Storages())
    (digest,) = store.digests(2)
    hints = {load_public_key(f"{tmp_path}/{name}.pub.pem").hint for name in ("trainer", "next")}
    for kind in ("signature", "provenance"):
        found = [parse_bundle(item.data) for item in store.collect(digest, kinds=[kind]).objects]
        assert {bundle.hint for bundle in found} == hints
        assert len({bundle.payload for bundle in found}) == 1


def test_guarded_tasks_are_stamped_where_the_policy_says_so(world, tmp_path):
    """The policy names who stamps and asks for it: what a task makes is stamped, and what is not is no inlet."""
    from airflow.exceptions import AirflowException

    here = world()
    asks = {"evidence": {kind: {"timestamp": True} for kind in ("signature", "provenance")}}
    rules = [rule(name, place, "trainer", **asks) for name, place in
             (("models", f"{here.models}"), ("in", f"{here.models}/**"))]  # fmt: skip
    trainer = {"key": Path(f"{tmp_path}/trainer.pub.pem").read_text()}

    def publish(authority: TimestampAuthority, version: int) -> None:
        here.admin.publish(
            rules,
            {"trainer": trainer},
            signers=[{"uri": here.signer, "timestamp": "company"}],
            version=version,
            timestamp_authorities={"company": {"roots": authority.roots, "url": authority.url}},
        )
        forget()

    unstamped = here.sign("before")
    store = EvidenceStore(f"{here.models}.evidence", Storages())
    made = TimestampAuthority(tmp_path / "authority")
    with made.serving() as authority:
        publish(authority, 2)
        here.triggering = [here.event({"sealflow": unstamped})]
        with refused("TIMESTAMP_MISSING"):
            here.run()
        here.run(lambda: here.models.joinpath("before").unlink(), outlets=[here.asset()])
        (digest,) = store.digests(2)
        bundles = [parse_bundle(item.data) for item in store.collect(digest).objects]
        assert [len(bundle.timestamps) for bundle in bundles] == [1, 1]
    # Nobody answers there any more: the task may be tried again, and nothing is signed without.
    with pytest.raises(AirflowException, match="timestamp authority"):
        here.run(lambda: here.models.joinpath("after").write_text("weights"), outlets=[here.asset()])
    assert store.digests(2) == [digest]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param({"run": "r2"}, id="another-run"),
        pytest.param({"run": "r1/0"}, id="a-run-called-like-a-map-index"),
        pytest.param({"task": "other"}, id="another-task"),
        pytest.param({"index": 1}, id="another-map-index"),
        pytest.param({"index": -1}, id="no-map-index"),
        pytest.param({"run": ""}, id="no-task"),
    ],
)
def test_event_of_another_task_than_the_one_that_signed_is_refused(world, source):
    """Which task emitted an event the API server says, and the task cannot choose."""
    here = world()
    ref = here.sign("good", index=0)
    here.triggering = [here.event({"sealflow": ref}, **({"index": 0} | source))]
    with refused("PRODUCER_MISMATCH"):
        here.run()


def test_events_that_started_the_run_are_checked_and_no_later_ones(world):
    """Who asks for the latest one is in a race with the next run of the producer."""
    here = world()
    first, later = here.sign("first"), here.sign("later", run="r2")
    here.triggering = [here.event({"sealflow": first})]
    here.recent = Recent([*here.triggering, here.event({"sealflow": later}, run="r2")])
    (here.models / "later").write_text("half of it is writt")
    here.run()
    (here.models / "first").write_text("poison!")
    with refused("FILE_CHANGED"):
        here.run()


@pytest.mark.parametrize(
    ("place", "passes"),
    [("runs/r1", True), ("other/r1", False), ("models/../other/r1", False), ("runs/../other/r1", False)],
)
def test_place_that_a_rule_names_beside_the_assets_own(world, place, passes):
    here = world(beside="runs")
    path = here.folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    (here.folder / "models" / ".." / place).resolve().parent.mkdir(parents=True, exist_ok=True)
    path.resolve().write_text("weights")
    asset = here.asset()
    with contextlib.nullcontext() if passes else refused("LOCATION_OUTSIDE_ASSET|ARTIFACT_REFUSED"):
        here.run(outlets=[asset], named=str(path))
    assert bool(list(here.folder.rglob("signature-*.json"))) is passes


def test_what_the_guard_does_is_counted(world, monkeypatch):
    from airflow.sdk import Asset

    from sealflow_airflow import guard

    told: list[tuple[str, int]] = []
    monkeypatch.setattr(guard, "count", lambda name, number=1, **tags: told.append((name, number)))
    here = world()
    here.triggering = [here.event({"sealflow": here.sign("good")})]
    here.run()
    (here.models / "weights").write_text("weights")
    here.run(outlets=[here.asset(), Asset("churn"), Asset(name="t", uri="x-table://host/db/t")])
    counted = [(name.rpartition(".")[2], number) for name, number in told if number]
    assert counted == [("verified", 1), ("signed", 1), ("untouched", 2)]


def test_what_is_only_audited_is_counted(world, monkeypatch):
    from sealflow_airflow import guard

    told: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(guard, "count", lambda name, number=1, **tags: told.append((name, tags)))
    here = world(level="audit")
    here.triggering = [here.event({"sealflow": here.sign("good")})]
    (here.models / "good").write_text("poison!")
    here.run()
    assert ("sealflow.guard.audited", {"code": "FILE_CHANGED"}) in told


def test_later_event_hides_no_earlier_one_of_another_place(world):
    """A consumer reads the places in all events that started its run, so all of them are checked."""
    here = world()
    evil = dict(here.sign("evil"))
    (here.models / "evil").write_text("poison!")
    here.triggering = [here.event({"sealflow": evil}), here.event({"sealflow": here.sign("good")})]
    with refused("FILE_CHANGED"):
        here.run()


def test_place_that_an_event_names_is_the_place_that_its_reference_names(world):
    """Which of the two a consumer opens is its own affair."""
    here = world()
    ref = here.sign("good")
    (here.models / "evil").write_text("poison!")
    here.triggering = [here.event({"sealflow": ref, "sealflow_uri": str(here.models / "evil")})]
    with refused("LOCATION_OUTSIDE_ASSET"):
        here.run()


@pytest.mark.parametrize("claimed", ["good", 1, [], "{}"])
def test_reference_that_is_none_is_refused(world, claimed):
    here = world()
    here.sign("good")
    here.triggering = [here.event({"sealflow": claimed, "sealflow_uri": str(here.models / "good")})]
    with refused("REFERENCE_MALFORMED"):
        here.run()


@pytest.mark.parametrize("number", [3, 40])
@pytest.mark.parametrize("first", [True, False])
def test_all_events_of_this_run_are_checked(world, first, number):
    """A mapped task emits one event for each index, and each may name a place of its own."""
    here = world()
    refs = [here.sign(f"part-{index}", index=index) for index in range(number)]
    here.recent = Recent(here.event({"sealflow": ref}, index=index) for index, ref in enumerate(refs))
    here.run()
    (here.models / f"part-{0 if first else number - 1}").write_text("poison!")
    with refused("FILE_CHANGED"):
        here.run()


def test_event_that_its_task_replaced_is_not_asked_for(world):
    """A task that was cleared and ran again, to another place."""
    here = world()
    old, new = here.sign("old"), here.sign("new")
    (here.models / "old").unlink()
    here.recent = Recent([here.event({"sealflow": old}), here.event({"sealflow": new})])
    here.run()


def test_event_that_was_emitted_anew_is_later_than_those_between(world):
    here = world()
    first = here.event({"sealflow": here.sign("good", text="one")})
    between = here.event({"sealflow": here.sign("good", task="update", text="two")}, task="update")
    here.recent = Recent([first, between, here.event({"sealflow": here.sign("good", text="three")})])
    here.run()


@pytest.mark.parametrize("fault", ["changed-before", "changed-meanwhile", "outside", "claimed", "malformed"])
def test_audited_rule_stops_no_task_for_its_inlet(world, fault, caplog):
    here = world(level="audit")
    ref = here.sign("good")
    extra: dict[str, Any] = {"sealflow": ref}
    if fault == "outside":
        extra = {"sealflow_uri": str(here.folder / "elsewhere")}
    if fault == "malformed":
        extra = {"sealflow": {"sealflow_ref": 1}}
    here.triggering = [here.event(extra, task="another" if fault == "claimed" else "fit")]
    if fault == "changed-before":
        (here.models / "good").write_text("poison!")

    def work() -> str:
        if fault == "changed-meanwhile":
            (here.models / "good").write_text("poison!")
        return "done"

    with caplog.at_level("WARNING", logger="sealflow_airflow.guard"):
        assert here.run(work) == "done"
    assert caplog.records


def _triggers(**fields: Any) -> Any:
    from airflow.sdk.exceptions import DagRunTriggerException

    settings: dict[str, Any] = {
        "trigger_dag_id": "other",
        "dag_run_id": "r",
        "conf": None,
        "logical_date": None,
        "reset_dag_run": False,
        "skip_when_already_exists": False,
        "wait_for_completion": False,
        "allowed_states": ["success"],
        "failed_states": ["failed"],
        "poke_interval": 1,
        "deferrable": False,
    }
    return DagRunTriggerException(**settings | fields)


@pytest.mark.parametrize(
    ("level", "managed", "ends", "stopped"),
    [
        pytest.param("enforce", True, True, True, id="ends-it"),
        pytest.param("enforce", True, False, False, id="wakes-it"),
        pytest.param("enforce", False, True, False, id="of-nothing-managed"),
        pytest.param("audit", True, True, False, id="only-audited"),
    ],
)
def test_task_that_defers_to_a_trigger_which_ends_it(world, level, managed, ends, stopped):
    from airflow.sdk import Asset
    from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

    here = world(level=level)
    outlet = here.asset() if managed else Asset(name="free", uri=f"file://{here.folder}/free")

    def work() -> None:
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        trigger = TimeDeltaTrigger(timedelta(seconds=0), end_from_trigger=ends)
        raise TaskDeferred(trigger=trigger, method_name="back")

    with pytest.raises(AirflowFailException if stopped else TaskDeferred):
        here.run(work, outlets=[outlet])


@pytest.mark.parametrize(
    ("fields", "signed"),
    [
        pytest.param({}, True, id="does-not-wait"),
        pytest.param({"deferrable": True}, True, id="does-not-wait-deferrable"),
        pytest.param({"wait_for_completion": True}, True, id="waits-in-place"),
        pytest.param({"wait_for_completion": True, "deferrable": True}, False, id="comes-back"),
    ],
)
def test_task_that_comes_back_when_another_dag_is_done_signs_then(world, fields, signed):
    """What it declares may be made by the DAG that it triggers."""
    from airflow.sdk.exceptions import DagRunTriggerException

    here = world()
    (here.models / "weights").write_text("of the time before")

    def work() -> None:
        raise _triggers(**fields)

    with pytest.raises(DagRunTriggerException):
        here.run(work, outlets=[here.asset()])
    assert bool(list(here.folder.rglob("signature-*.json"))) == signed


RETURNED = {
    "dictionary": {"rows": 3},
    "text-of-one": '{"rows": 3}',
    "list": [{"rows": 3}, "{", None],
    "like-a-reference": {"sealflow_ref": 1},
    "of-a-later-version": {"sealflow_ref": 2, "uri": "file:///x"},
}


@pytest.mark.parametrize("returned", RETURNED.values(), ids=RETURNED)
def test_task_may_return_what_it_likes(world, returned):
    here = world()
    (here.models / "weights").write_text("weights")
    assert here.run(lambda: returned, outlets=[here.asset()]) == returned
    assert list(here.folder.rglob("signature-*.json"))
