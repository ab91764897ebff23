"""Before Airflow's own Execution API and database: forged, replayed, undeclared and missing outlets are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.gate_world import World, airflow_database, world

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(120)]
__all__ = ["airflow_database", "world"]


def test_signed_outlet_of_this_run_passes_and_airflow_writes_its_event(world: World) -> None:
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    with world.server() as client:
        assert world.send(client, fit, world.claim("model", ref)) == (204, "", "")
        # Airflow's own answer to a repeated message.
        assert world.send(client, fit, world.claim("model", ref))[0] == 200
    assert world.state(fit) == "success"
    assert world.emitted("model") == [{"sealflow": ref}]
    events = world.recorded()
    assert [event["outcome"] for event in events] == ["passed", "passed"]
    assert (events[0]["run"]["workflow"], events[0]["run"]["task"]) == (world.dag_id, "fit")
    assert events[0]["run"]["instance"] == fit.instance


def other_run(world: World) -> Any:
    return world.sign(world.start("run-0")["fit"], "model", "older")


def replayed(world: World) -> Any:
    """An event of an older run of the same task, while what it made still lies there."""
    fit = world.start("run-0")["fit"]
    ref = world.sign(fit, "model", "older")
    with world.server() as client:
        assert world.send(client, fit, world.claim("model", ref))[0] == 204
    return ref


def other_task(world: World) -> Any:
    return world.sign(world.start("run-0")["other"], "model")


def by_stranger(world: World) -> Any:
    return world.sign(world.start("run-0")["fit"], "model", key=world.stranger)


def nobody(world: World) -> Any:
    ref = world.sign(world.start("run-0")["fit"], "model")
    shutil.rmtree(Path(ref["evidence"].removeprefix("file://")))
    return ref


def changed(**more: Any) -> Callable[[World], Any]:
    def make(world: World) -> Any:
        return world.sign(world.start("run-0")["fit"], "model") | {
            name: value.format(folder=world.folder) if isinstance(value, str) else value for name, value in more.items()
        }

    return make


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        pytest.param(lambda w: None, "OUTLET_UNSIGNED", id="no-reference"),
        pytest.param(other_run, "PRODUCER_MISMATCH", id="signed-by-another-run"),
        pytest.param(replayed, "PRODUCER_MISMATCH", id="older-event-replayed"),
        pytest.param(other_task, "PRODUCER_MISMATCH", id="signed-by-another-task"),
        pytest.param(by_stranger, "SIGNER_NOT_ALLOWED", id="signed-by-a-stranger"),
        pytest.param(nobody, "EVIDENCE_MISSING", id="evidence-is-gone"),
        pytest.param(lambda w: "s3://bucket/model", "REFERENCE_MALFORMED", id="reference-no-object"),
        pytest.param(lambda w: {"sealflow_ref": 1}, "REFERENCE_MALFORMED", id="reference-half"),
        pytest.param(lambda w: {"sealflow_ref": 2}, "USAGE", id="reference-of-another-version"),
        pytest.param(lambda w: [], "REFERENCE_MALFORMED", id="reference-a-list"),
        pytest.param(changed(digest="sha256:" + "0" * 64), "EVIDENCE_MISSING", id="another-digest"),
        pytest.param(changed(uri="file://{folder}/away"), "LOCATION_OUTSIDE_ASSET", id="another-place"),
        pytest.param(changed(evidence="file://{folder}/away"), "EVIDENCE_STORE_UNKNOWN", id="another-store"),
        pytest.param(changed(evidence="http://127.0.0.1:1/x"), "USAGE", id="store-on-a-server-of-the-author"),
        pytest.param(changed(more=1), "REFERENCE_MALFORMED", id="reference-with-more"),
    ],
)
def test_forged_claim_is_refused_and_nobody_is_told(world: World, claim: Callable[[World], Any], code: str) -> None:
    world.store(fit=[world.asset("model")], other=[])
    ref = claim(world)
    before = len(world.emitted("model"))
    fit = world.start()["fit"]
    with world.server() as client:
        status, found, message = world.send(client, fit, world.claim("model", ref))
    assert (status, found) == (403, code), message
    assert message.startswith("sealflow refuses this success: ")
    assert world.state(fit) == "running"
    assert len(world.emitted("model")) == before
    last = world.recorded()[-1]
    assert last["outcome"] in ("failed", "error")
    assert code in last["codes"]
    assert last["run"]["run"] == "run-1"


def test_map_index_is_bound(world: World) -> None:
    world.store(mapped=[world.asset("model")])
    tasks = world.start()
    ref = world.sign(tasks["mapped[0]"], "model")
    with world.server() as client:
        assert world.send(client, tasks["mapped[1]"], world.claim("model", ref))[1] == "PRODUCER_MISMATCH"
        assert world.send(client, tasks["mapped[0]"], world.claim("model", ref))[0] == 204


def test_outlet_that_the_dag_does_not_declare_is_refused(world: World) -> None:
    world.store(fit=[world.asset("model")], claim=[])
    tasks = world.start()
    # Even signed, and by the very task that claims it: nobody could see in the DAG that it makes this.
    ref = world.sign(tasks["claim"], "model")
    with world.server() as client:
        found = world.send(client, tasks["claim"], world.claim("model", ref))
    assert found[:2] == (403, "OUTLET_UNDECLARED"), found
    assert not world.emitted("model")


def test_same_place_under_another_name_is_undeclared(world: World) -> None:
    world.store(fit=[world.asset("model")], other=[world.asset("second", f"{world.uri('model')}/inner")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    outlet = world.outlet("second", f"{world.uri('model')}/inner")
    body = world.report([outlet], [world.event("second", {"sealflow": ref}, outlet["uri"])])
    with world.server() as client:
        assert world.send(client, fit, body)[1] == "OUTLET_UNDECLARED"


@pytest.mark.parametrize("what", ["no-event", "no-outlet", "event-of-another-asset"])
def test_success_without_what_the_dag_declares_is_refused(world: World, what: str) -> None:
    """As when the hook that signs was skipped, or the author took the outlet off the task."""
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    bodies = {
        "no-event": world.report([world.outlet("model")], []),
        "no-outlet": world.report([], []),
        "event-of-another-asset": world.report([world.outlet("model")], [world.event("other", {"sealflow": ref})]),
    }
    with world.server() as client:
        found = world.send(client, fit, bodies[what])
    assert found[:2] == (403, "OUTLET_UNSIGNED"), found
    assert not world.emitted("model")


def test_every_event_of_an_asset_needs_its_evidence(world: World) -> None:
    """Airflow writes one event for each partition."""
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    good = world.event("model", {"sealflow": world.sign(fit, "model")}, partition_key="a")
    bad = world.event("model", {}, partition_key="b")
    with world.server() as client:
        for events in ([good, bad], [bad, good]):
            assert world.send(client, fit, world.report([world.outlet("model")], events))[1] == "OUTLET_UNSIGNED"
        assert world.send(client, fit, world.report([world.outlet("model")], [good]))[0] == 204


@pytest.mark.parametrize("declared", [True, False])
def test_alias_tells_only_of_what_is_signed_and_declared(world: World, declared: bool) -> None:
    from airflow.sdk import AssetAlias

    alias = f"{world.dag_id}-alias"
    world.store(fit=[AssetAlias(alias)] if declared else [], make=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    outlets = [{"name": alias, "uri": None, "type": "AssetAlias"}]
    more = {"source_alias_name": alias, "dest_asset_extra": {}}
    with world.server() as client:
        for uri in (world.uri("model"), world.uri("model").replace("/models/", "/models//")):
            found = world.send(client, fit, world.report(outlets, [world.event("model", {}, uri, **more)]))
            assert (found[0], found[1] in ("OUTLET_UNSIGNED", "OUTLET_UNDECLARED", "USAGE")) == (403, True), found
        signed = world.report(outlets, [world.event("model", {"sealflow": ref}, **more)])
        found = world.send(client, fit, signed)
    assert found[:2] == ((204, "") if declared else (403, "OUTLET_UNDECLARED")), found


def test_alias_that_the_message_does_not_list_tells_nothing(world: World) -> None:
    """Airflow drops such an event, and so does the gate."""
    world.store(fit=[])
    fit = world.start()["fit"]
    body = world.report([], [world.event("model", {}, source_alias_name="unlisted", dest_asset_extra={})])
    with world.server() as client:
        assert world.send(client, fit, body)[0] == 204
    assert not world.emitted("model")


@pytest.mark.parametrize("kind", ["AssetNameRef", "AssetUriRef"])
def test_outlet_by_reference_is_judged_as_the_asset_it_means(world: World, kind: str) -> None:
    from airflow.sdk import Asset

    name, uri = world.asset_name("model"), world.uri("model")
    ref_of = Asset.ref(name=name) if kind == "AssetNameRef" else Asset.ref(uri=uri)
    world.store(make=[world.asset("model")], fit=[ref_of], claim=[])
    tasks = world.start()
    outlet = (
        {"name": name, "uri": None, "type": kind}
        if kind == "AssetNameRef"
        else {"name": None, "uri": uri, "type": kind}
    )
    ref = world.sign(tasks["fit"], "model")
    with world.server() as client:
        assert world.send(client, tasks["fit"], world.report([outlet], []))[1] == "OUTLET_UNSIGNED"
        body = world.report([outlet], [world.event("model", {"sealflow": ref})])
        assert world.send(client, tasks["claim"], body)[1] == "OUTLET_UNDECLARED"
        assert world.send(client, tasks["fit"], body)[0] == 204
    assert len(world.emitted("model")) == 1


def test_what_nobody_manages_passes_untouched(world: World) -> None:
    """Names, tables and places that no rule names, with whatever an author writes."""
    from airflow.sdk import Asset

    free = Asset(name=world.asset_name("free"), uri=f"file://{world.folder}/free")
    table = Asset(name=world.asset_name("table"), uri="x-table://host/db/table")
    world.store(fit=[free, table])
    fit = world.start()["fit"]
    outlets = [{"name": item.name, "uri": item.uri, "type": "Asset"} for item in (free, table)]
    events = [
        {"dest_asset_key": {"name": free.name, "uri": free.uri}, "extra": {"sealflow": "anything", "n": [1] * 99}}
    ]
    with world.server() as client:
        assert world.send(client, fit, world.report(outlets, events))[0] == 204
    assert len(world.emitted("free")) == 1
    assert not world.recorded()


def test_rules_that_only_audit_let_pass_and_record(world: World) -> None:
    world.publish(level="audit")
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    with world.server() as client:
        assert world.send(client, fit, world.claim("model", None))[0] == 204
    assert [event["codes"] for event in world.recorded()] == [["OUTLET_UNSIGNED"]]


def test_gate_that_only_audits_lets_pass_and_records(world: World) -> None:
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    with world.server("audit") as client:
        assert world.send(client, fit, world.claim("model", None))[0] == 204
    assert [event["codes"] for event in world.recorded()] == [["OUTLET_UNSIGNED"]]


def test_without_a_policy_nothing_is_judged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealflow_airflow.policy.channel", lambda: None)
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    with world.server() as client:
        assert world.send(client, fit, world.claim("model", None))[0] == 204


def test_policy_that_is_not_to_be_had_is_tried_again_for_what_it_manages(world: World) -> None:
    from airflow.sdk import Asset

    from sealflow.policy.source import forget

    free = Asset(name=world.asset_name("free"), uri=f"file://{world.folder}/free")
    world.store(fit=[world.asset("model")], other=[free])
    tasks = world.start()
    ref = world.sign(tasks["fit"], "model")
    forget()
    world.admin.policy.rename(world.folder / "away")
    with world.server() as client:
        assert world.send(client, tasks["fit"], world.claim("model", ref))[:2] == (503, "POLICY_UNAVAILABLE")
        body = world.report([{"name": free.name, "uri": free.uri, "type": "Asset"}], [])
        assert world.send(client, tasks["other"], body)[0] == 204
        (world.folder / "away").rename(world.admin.policy)
        forget()
        assert world.send(client, tasks["fit"], world.claim("model", ref))[0] == 204


def test_store_that_is_down_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.errors import UnavailableError
    from sealflow.evidence.store import EvidenceStore

    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")

    def away(*_: Any, **__: Any) -> None:
        raise UnavailableError("The store does not answer.")

    with world.server() as client, monkeypatch.context() as patch:
        patch.setattr(EvidenceStore, "collect", away)
        status, code, message = world.send(client, fit, world.claim("model", ref))
        assert (status, code) == (503, "BACKEND_UNAVAILABLE")
        assert "cannot judge" in message


def test_audit_log_that_is_down_is_tried_again(world: World) -> None:
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    world.spool.write_text("no folder")
    with world.server() as client:
        assert world.send(client, fit, world.claim("model", ref))[0] == 503


def test_failure_of_the_gate_closes_it_for_what_is_managed_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Asset

    from sealflow_airflow.gate import ruling

    free = Asset(name=world.asset_name("free"), uri=f"file://{world.folder}/free")
    world.store(fit=[world.asset("model")], other=[free])
    tasks = world.start()
    monkeypatch.setattr(ruling, "task_of", lambda *_: 1 / 0)
    with world.server() as client:
        assert world.send(client, tasks["fit"], world.claim("model", None))[:2] == (503, "GATE_BROKEN")
        body = world.report([{"name": free.name, "uri": free.uri, "type": "Asset"}], [])
        assert world.send(client, tasks["other"], body)[0] == 204


@pytest.mark.parametrize(
    ("task", "status"), [("fit", 403), ("alias", 403), ("free", 204)], ids=["managed", "who-knows", "not-managed"]
)
def test_message_of_an_unknown_form_is_refused_where_something_is_managed(world: World, task: str, status: int) -> None:
    from airflow.sdk import Asset, AssetAlias

    free = Asset(name=world.asset_name("free"), uri=f"file://{world.folder}/free")
    world.store(fit=[world.asset("model")], alias=[AssetAlias(f"{world.dag_id}-a")], free=[free])
    tasks = world.start()
    with world.server() as client:
        found = world.send(client, tasks[task], world.report([], [], new_member={"a": 1}))
    # Airflow itself knows no such member either; one that does would take it.
    assert found[0] == (status if status == 403 else 422)
    if status == 403:
        assert found[1] == "MESSAGE_UNKNOWN"
        assert "does not know the form" in found[2]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_message_that_names_a_member_twice_hides_nothing(world: World, encoding: str) -> None:
    """Airflow takes the last of two members; a reader that takes the first would see no outlet."""
    world.store(fit=[], make=[world.asset("model")])
    fit = world.start()["fit"]
    hidden = json.dumps(world.claim("model", None))[1:]
    data = f'{{"task_outlets": [], "outlet_events": [], {hidden}'.encode(encoding)
    with world.server() as client:
        assert world.send(client, fit, data)[:2] == (403, "MESSAGE_UNREADABLE")
    assert not world.emitted("model")


def test_token_of_another_task_gets_nowhere(world: World) -> None:
    world.store(fit=[world.asset("model")], other=[])
    tasks = world.start()
    ref = world.sign(tasks["fit"], "model")
    with world.server() as client:
        path = f"/execution/task-instances/{tasks['fit'].instance}/state"
        answer = client.patch(path, json=world.claim("model", ref), headers=world.headers(tasks["other"]))
        assert answer.status_code == 403
        answer = client.patch(path, json=world.claim("model", ref), headers={"Authorization": "Bearer x.y.z"})
        assert (answer.status_code, answer.json()["detail"]["code"]) == (403, "TOKEN_REFUSED")
        assert client.patch(path, json=world.claim("model", ref)).status_code == 403
    assert not world.emitted("model")
    # Nor does anybody speak in the audit log under the name of another task.
    assert not world.recorded()


@pytest.mark.parametrize("version", ["2025-04-11", "2025-08-10", "2026-04-06", "2026-06-30", "2999-01-01"])
def test_every_version_of_the_api_is_guarded(world: World, version: str) -> None:
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    with world.server() as client:
        found = world.send(client, fit, world.claim("model", None), **{"Airflow-API-Version": version})
        assert found[:2] == (403, "OUTLET_UNSIGNED")


def test_outlet_that_only_the_stored_dag_of_the_run_or_the_latest_declares_passes(world: World) -> None:
    world.store(fit=[world.asset("model")])
    fit = world.start()["fit"]
    ref = world.sign(fit, "model")
    # The DAG file was changed while the task ran.
    world.store(fit=[world.asset("model"), world.asset("more")])
    more = world.sign(fit, "more")
    both = world.report(
        [world.outlet("model"), world.outlet("more")],
        [world.event("model", {"sealflow": ref}), world.event("more", {"sealflow": more})],
    )
    with world.server() as client:
        assert world.send(client, fit, both)[0] == 204


def test_extra_for_an_asset_that_is_no_outlet_is_airflows_to_drop(world: World) -> None:
    world.store(fit=[], make=[world.asset("model")])
    fit = world.start()["fit"]
    with world.server() as client:
        assert world.send(client, fit, world.report([], [world.event("model", {"sealflow": "x"})]))[0] == 204
    assert not world.emitted("model")
