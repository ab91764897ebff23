"""The notary in the API server: what it signs, over a source that the server set, and what it does not sign."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow.actions import context
from sealflow.evidence.bundle import pae, parse_bundle
from sealflow.evidence.notary import NOTARY_BUILDER, PREDICATE_TYPE
from sealflow.keys import load_public_key
from tests.airflow.gate_world import World, airflow_database, world
from tests.e2e.admin import rule
from tests.pki import KeyPair, write_key

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(120)]
__all__ = ["airflow_database", "world"]


class Office:
    """A notary who listens to the events of a world."""

    def __init__(self, world: World, key: KeyPair) -> None:
        self.world, self.key, self.store = world, key, world.folder / "notary-store"
        self.made: Any = None

    def open(self, mode: str = "event") -> None:
        from sealflow_airflow import notary_listener

        for name, value in {
            "NOTARY_SIGNER": self.key.signer,
            "NOTARY_MODE": mode,
            "NOTARY_STORE": str(self.store),
        }.items():
            self.world.patch.setenv(f"AIRFLOW__SEALFLOW__{name}", value)
        notary_listener.notary.cache_clear()
        self.made = notary_listener.notary()

    def settle(self) -> None:
        """Wait until the notary has done what waits."""
        end = time.monotonic() + 20
        while not self.made.settled() and time.monotonic() < end:
            time.sleep(0.02)
        self.made.close()

    def statements(self) -> list[dict[str, Any]]:
        """Return what was signed, each checked with the notary's public key alone."""
        found = []
        for path in sorted(self.store.rglob("notary-*.json")):
            bundle = parse_bundle(path.read_bytes())
            assert load_public_key(str(self.key.public)).verify(bundle.signature, pae(bundle.payload))
            found.append(json.loads(bundle.payload))
        return found


@pytest.fixture
def office(world: World, tmp_path: Path) -> Iterator[Office]:
    from airflow.listeners.listener import get_listener_manager

    from sealflow_airflow import notary_listener

    made = Office(world, write_key(tmp_path, "notary"))
    manager = get_listener_manager()
    manager.add_listener(notary_listener)
    yield made
    manager.pm.unregister(notary_listener)
    notary_listener.notary.cache_clear()


def test_event_is_signed_over_the_source_that_the_server_set(world: World, office: Office) -> None:
    office.open()
    world.store(mapped=[world.asset("model")])
    fit = world.start()["mapped[1]"]
    ref = world.sign(fit, "model")
    lies = {"sealflow": ref, "source_dag_id": "evil", "rows": 3}
    with world.server("enforce") as client:
        body = world.report([world.outlet("model")], [world.event("model", lies)])
        assert world.send(client, fit, body)[0] == 204
    office.settle()
    (statement,) = office.statements()
    assert statement["predicateType"] == PREDICATE_TYPE
    said = statement["predicate"]
    assert said["source"]["invocation"] == f"airflow:{world.dag_id}/mapped/run-1/1"
    assert said["asset"] == {"name": world.asset_name("model"), "uri": world.uri("model")}
    assert said["bytesRead"] is False
    assert statement["subject"][0]["digest"] == {"sha256": ref["digest"].removeprefix("sha256:")}
    assert b"evil" not in json.dumps(statement).encode()
    (event,) = world.recorded("notary")
    assert (event["outcome"], event["run"]["task"], event["key"][:7]) == ("done", "mapped", "sha256:")


def test_hashing_notary_speaks_for_the_bytes_under_a_builder_of_its_own(world: World, office: Office) -> None:
    office.open("hash")
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    with world.server("enforce") as client:
        assert world.send(client, fit, world.claim("model", ref))[0] == 204
    office.settle()
    assert [item["predicate"]["bytesRead"] for item in office.statements()] == [True]
    made = [
        json.loads(base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"]))["predicate"]
        for path in Path(ref["evidence"].removeprefix("file://")).rglob("provenance-*.json")
    ]
    assert {item["runDetails"]["builder"]["id"] for item in made} == {
        NOTARY_BUILDER,
        "urn:sealflow:builder:airflow-task-process:v1",
    }
    # A rule can ask for it: a worker who holds the worker's key alone cannot make this.
    world.admin.publish(
        [rule("seen", f"{world.folder}/models/**", "notary", evidence={"provenance": {}})],
        {"notary": {"key": office.key, "builders": [NOTARY_BUILDER], "producers": [f"airflow:{world.dag_id}/*"]}},
        version=2,
    )
    from sealflow.policy.source import forget

    forget()
    settings = context.Settings(audit_spool=str(world.folder / "consumer"))
    with sealflow.run(sealflow.Surroundings(settings=settings, admin=world.admin.channel())):
        verdict = sealflow.verify(ref)
        assert verdict.passed, verdict.summary()
        assert verdict.producer == f"airflow:{world.dag_id}/fit"
        for path in Path(ref["evidence"].removeprefix("file://")).rglob("provenance-*.json"):
            if NOTARY_BUILDER.encode() in base64.b64decode(json.loads(path.read_bytes())["dsseEnvelope"]["payload"]):
                path.unlink()
        assert sealflow.verify(ref).status == "failed"


def test_other_bytes_are_not_signed(world: World, office: Office) -> None:
    """The worker's own key signed what it liked; the notary reads what lies there."""
    office.open("hash")
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    (world.folder / "models" / "model").write_text("poison!")
    with world.server("enforce") as client:
        # A listener cannot veto, and the gate does not read bytes.
        assert world.send(client, fit, world.claim("model", ref))[0] == 204
    office.settle()
    assert len(world.emitted("model")) == 1
    assert office.statements() == []
    (event,) = world.recorded("notary")
    assert (event["outcome"], event["codes"]) == ("error", ["ARTIFACT_CHANGED"])


def test_event_without_reference_or_of_nobodys_business_is_not_signed(world: World, office: Office) -> None:
    from airflow.sdk import Asset

    office.open()
    free = Asset(name=world.asset_name("free"), uri=f"file://{world.folder}/free")
    world.store(fit=[world.asset("model"), free])
    fit = world.start()["fit"]
    outlets = [world.outlet("model"), {"name": free.name, "uri": free.uri, "type": "Asset"}]
    with world.server("off") as client:
        assert world.send(client, fit, world.report(outlets, [world.event("model", {})]))[0] == 204
    office.settle()
    assert office.statements() == []


def test_event_that_no_task_emitted_is_not_signed(world: World, office: Office) -> None:
    """As one that somebody posts to the REST API: Airflow knows no source."""
    from types import SimpleNamespace

    from sealflow.errors import ArtifactError
    from sealflow_airflow.notary import seen

    office.open()
    world.store(fit=[world.asset("model")])
    ref = world.sign(world.start()["fit"], "model")
    event = SimpleNamespace(
        asset=SimpleNamespace(name="model", uri=world.uri("model")),
        extra={"sealflow": ref, "from_rest_api": True},
        source_dag_id=None,
        source_task_id=None,
        source_run_id=None,
        source_map_index=None,
        source_aliases=[],
        partition_key=None,
    )
    with pytest.raises(ArtifactError) as refused:
        office.made.sign(seen(event))
    assert refused.value.code == "SOURCE_MISSING"
    assert office.statements() == []


def test_key_that_is_away_keeps_no_task_from_its_success(world: World, office: Office) -> None:
    office.open()
    office.key.private.unlink()
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    with world.server("enforce") as client:
        assert world.send(client, fit, world.claim("model", ref))[0] == 204
    office.settle()
    assert (world.state(fit), office.statements()) == ("success", [])


def event(dag: str, number: int = 0) -> Any:
    from sealflow.evidence.notary import SeenEvent
    from sealflow.run_identity import RunIdentity

    return SeenEvent(str(number), "s3://a/b", RunIdentity("airflow", dag, "t", "r"), {})


def test_dag_that_floods_or_is_slow_keeps_no_other_from_being_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from sealflow_airflow import notary
    from sealflow_airflow.notary import Notary, NotarySettings

    monkeypatch.setattr(notary, "MAX_WAITING", 10)
    release, signed, lost = threading.Event(), [], []

    def sign(self: Any, seen: Any) -> None:
        if seen.source.workflow == "slow":
            release.wait(20)
        signed.append(seen.source.workflow)

    monkeypatch.setattr(Notary, "sign", sign)
    monkeypatch.setattr(Notary, "_tell_lost", lambda self, seen, number: lost.append((seen.source.workflow, number)))
    made = Notary(NotarySettings("file:/none"))
    try:
        start = time.perf_counter()
        for number in range(200):
            made.take(event("slow", number))
        made.take(event("quiet"))
        assert time.perf_counter() - start < 10
        end = time.monotonic() + 10
        while "quiet" not in signed and time.monotonic() < end:
            time.sleep(0.01)
        assert signed == ["quiet"]
        assert {dag for dag, _ in lost} == {"slow"}
    finally:
        release.set()
        made.close(5)


def test_what_is_not_signed_is_recorded(world: World, office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from sealflow_airflow.notary import seen

    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")

    def emitted(extra: Any, run: str | None = "run-1") -> Any:
        return seen(
            SimpleNamespace(
                asset=SimpleNamespace(name="model", uri=world.uri("model")),
                extra=extra,
                source_dag_id=world.dag_id,
                source_task_id="fit",
                source_run_id=run,
                source_map_index=None,
                source_aliases=[],
                partition_key=None,
            )
        )

    office.open("hash")
    monkeypatch.setenv("AIRFLOW__SEALFLOW__NOTARY_MAX_BYTES", "3")
    office.open("hash")
    refused = []
    for told in (
        emitted({}),
        emitted({"sealflow": "x"}),
        emitted({"sealflow": ref}, None),
        emitted({"sealflow": {**ref, "uri": "file:///elsewhere"}}),
        emitted({"sealflow": ref}),
    ):
        with pytest.raises(Exception) as error:  # noqa: PT011  (each has a code of its own)
            office.made.sign(told)
        refused.append(error.value.code)  # type: ignore[attr-defined]
    assert refused == [
        "OUTLET_UNSIGNED",
        "REFERENCE_MALFORMED",
        "SOURCE_MISSING",
        "LOCATION_OUTSIDE_ASSET",
        "ARTIFACT_TOO_LARGE",
    ]
    office.key.private.unlink()
    office.open()
    with pytest.raises(Exception):  # noqa: B017, PT011
        office.made.sign(emitted({"sealflow": ref}))
    codes = [event["codes"][0] for event in world.recorded("notary")]
    assert codes == [*refused, "KEY_MISSING"]
    assert office.statements() == []


def test_no_listener_without_a_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    """With any listener, Airflow refuses DAGs in which a trigger ends a task."""
    from sealflow_airflow import plugin

    monkeypatch.delenv("AIRFLOW__SEALFLOW__NOTARY_SIGNER", raising=False)
    assert plugin._listeners() == []
    monkeypatch.setenv("AIRFLOW__SEALFLOW__NOTARY_SIGNER", "file:/keys/notary.pem")
    assert [item.__name__ for item in plugin._listeners()] == ["sealflow_airflow.notary_listener"]


def test_mode_that_nobody_knows_claims_the_lesser(monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow_airflow.notary import read_settings

    monkeypatch.setenv("AIRFLOW__SEALFLOW__NOTARY_MODE", "hashes")
    found = read_settings()
    assert (found.mode, "counts as event" in found.problem) == ("event", True)
