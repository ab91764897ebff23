"""Messages that the gate and Airflow might read differently, and failures that might open the gate: attacks, each once
carried out.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.airflow.gate_world import World, airflow_database, world

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(120)]
__all__ = ["airflow_database", "world"]

KINDS = ("Asset", "AssetNameRef", "AssetUriRef", "AssetAlias")


def forged(world: World, kind: str) -> dict[str, Any]:
    """A success that tells of a managed asset which its task does not declare."""
    name, uri = world.asset_name("model"), world.uri("model")
    outlet = {
        "Asset": {"name": name, "uri": uri, "type": kind},
        "AssetNameRef": {"name": name, "uri": None, "type": kind},
        "AssetUriRef": {"name": None, "uri": uri, "type": kind},
        "AssetAlias": {"name": "alias", "uri": None, "type": kind},
    }[kind]
    more = {"source_alias_name": "alias", "dest_asset_extra": {}} if kind == "AssetAlias" else {}
    return world.report([outlet], [world.event("model", {"sealflow": {"forged": 1}}, **more)])


def hidden(world: World, body: dict[str, Any], trick: str) -> bytes:
    """The same, with something in it that another reader may stumble over, in an event that Airflow drops."""
    fillers = {
        "nan": "NaN",
        "depth-33": "[" * 33 + "]" * 33,
        "surrogate": '"\\ud800"',
        "infinite": "1e999",
        **{f"depth-{number}": "[" * number + "]" * number for number in (960, 970, 971, 972, 973, 974, 975, 976, 980)},
    }
    if trick == "twice":
        return b'{"state": "success",' + json.dumps(body).encode()[1:]
    if trick == "new-member":
        return json.dumps({**body, "new_member": 1}).encode()
    dropped = {"dest_asset_key": {"name": "x", "uri": "x"}, "extra": {"x": "@"}}
    body = {**body, "outlet_events": [dropped, *body["outlet_events"]]}
    return json.dumps(body).replace('"@"', fillers[trick]).encode()


TRICKS = (
    *("twice", "nan", "depth-33", "surrogate", "infinite", "new-member"),
    *(f"depth-{number}" for number in (960, 970, 971, 972, 973, 974, 975, 976, 980)),
)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_hides_an_outlet_from_the_gate_and_shows_it_to_airflow(world: World, kind: str) -> None:
    world.store(fit=[], make=[world.asset("model")])
    fit = world.start()["fit"]
    with world.server() as client:
        for trick in TRICKS:
            status, code, message = world.send(client, fit, hidden(world, forged(world, kind), trick))
            assert (status, code) in {(403, "MESSAGE_UNREADABLE"), (403, "MESSAGE_UNKNOWN")}, (trick, message)
    assert world.state(fit) == "running"
    assert not world.emitted("model")


def away(world: World, kind: str) -> dict[str, Any]:
    return world.report([], []) if kind == "silent" else forged(world, kind)


@pytest.mark.parametrize("kind", [*KINDS[:3], "silent"])
def test_connection_that_is_not_there_opens_nothing(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SEALFLOW__CONN_ID", "nobody_made_it")
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    with world.server() as client:
        status, code, message = world.send(client, fit, away(world, kind))
    assert (status, code) == (403, "OUTLET_UNSIGNED" if kind == "silent" else "CONNECTION_MISSING"), message
    assert not world.emitted("model")


def test_secrets_that_are_away_are_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow_airflow.hooks.sealflow import SealflowHook

    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    with world.server() as client:
        monkeypatch.setattr(SealflowHook, "get_conn", lambda self: 1 / 0)
        # Whatever it is: it has to do with something managed.
        assert world.send(client, fit, away(world, "AssetNameRef"))[:2] == (503, "GATE_BROKEN")
        # For this nobody needs a connection.
        assert world.send(client, fit, away(world, "silent"))[:2] == (403, "OUTLET_UNSIGNED")


def test_slow_stores_let_no_plain_refusal_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges that wait are no way around what needs no judge."""
    import threading

    from sealflow.evidence.store import EvidenceStore
    from sealflow_airflow.gate import middleware

    world.store(fit=[world.asset("model")], other=[world.asset("other")], free=[])
    tasks = world.start()
    refs = [world.sign(tasks["fit"], "model", f"weights {number}") for number in range(6)]
    release = threading.Event()
    monkeypatch.setattr(EvidenceStore, "collect", lambda *_, **__: release.wait(20))
    monkeypatch.setattr(middleware, "PATIENCE", 0.5)
    with world.server() as client:
        try:
            for ref in refs:
                assert world.send(client, tasks["fit"], world.claim("model", ref))[:2] == (503, "GATE_BUSY")
            assert world.send(client, tasks["other"], world.report([], []))[:2] == (403, "OUTLET_UNSIGNED")
            assert world.send(client, tasks["other"], world.claim("other", None))[:2] == (403, "OUTLET_UNSIGNED")
            assert world.send(client, tasks["free"], world.claim("model", refs[0]))[:2] == (403, "OUTLET_UNDECLARED")
            assert world.send(client, tasks["free"], world.report([], []))[0] == 204
        finally:
            release.set()


def test_claim_is_judged_once_whatever_number_of_partitions_tells_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealflow.actions import attested

    judged = []
    attest = attested.attest
    monkeypatch.setattr(attested, "attest", lambda *a, **b: judged.append(1) or attest(*a, **b))
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    events = [world.event("model", {"sealflow": ref}, partition_key=str(number)) for number in range(500)]
    with world.server() as client:
        assert world.send(client, fit, world.report([world.outlet("model")], events))[0] == 204
        assert len(judged) == 1
    other = world.start("run-2")["fit"]
    many = [
        world.event("model", {"sealflow": {**ref, "digest": f"sha256:{number:064x}"}}, partition_key=str(number))
        for number in range(200)
    ]
    with world.server() as client:
        status, code, _ = world.send(client, other, world.report([world.outlet("model")], many))
    assert (status, code) == (403, "OUTLETS_TOO_MANY")
    assert len(judged) == 1


def test_message_of_many_texts_in_an_unknown_form_is_refused_at_once(world: World) -> None:
    world.store(fit=[])
    fit = world.start()["fit"]
    body = world.report([], [], new_member=[f"a/{number}" for number in range(19_000)])
    with world.server() as client:
        assert world.send(client, fit, body)[:2] == (403, "MESSAGE_UNKNOWN")


@pytest.mark.parametrize("kind", KINDS)
def test_database_that_is_away_opens_nothing(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow_airflow.gate import ruling

    world.store(fit=[], make=[world.asset("model")])
    fit = world.start()["fit"]
    monkeypatch.setattr(ruling, "task_of", lambda *_: 1 / 0)
    with world.server() as client:
        assert world.send(client, fit, forged(world, kind))[:2] == (503, "GATE_BROKEN")
        assert world.send(client, fit, world.report([], [], new_member=1))[:2] == (503, "GATE_BROKEN")
        # Nothing is told of any asset.
        assert world.send(client, fit, world.report([], []))[0] == 204
