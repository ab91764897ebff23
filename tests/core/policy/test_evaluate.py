"""The decision over supposed facts is the decision of the verification: the same cases, once supposed, once signed."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sealflow.actions.policies import places_of
from sealflow.actions.policy_tables import read_table, run_table
from sealflow.errors import PolicyError
from sealflow.evidence.bundle import make_bundle
from sealflow.evidence.oms import make_oms_statement
from sealflow.evidence.provenance import make_provenance_statement
from sealflow.evidence.store import StoredEvidence
from sealflow.keys import KeySigner, load_signer
from sealflow.manifest import build_manifest
from sealflow.policy.compose import Arguments, CompiledPolicy, compose
from sealflow.policy.document import parse_policy, seconds
from sealflow.policy.revocations import CompiledRevocations, parse_revocations
from sealflow.run_identity import ADOPTED_BUILDER, RunIdentity
from sealflow.storage import Storages
from sealflow.verification.judge import Case, Judgement
from sealflow.verification.ruling import judge_ruling

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.timezone.utc)
ARNS = {name: f"arn:aws:kms:eu-west-1:123456789012:key/{name}" for name in ("recovery", "vault", "other")}
SIGNERS = ("trainer", "anyone", "late", "gone", "stranger")
RUNS = {
    "airflow:train/fit": RunIdentity("airflow", "train", "fit", "r"),
    "kfp:p/t": RunIdentity("kfp", "p", "t", "r"),
    "python": RunIdentity(),
}


@dataclass(frozen=True)
class World:
    """An artifact and keys."""

    path: Path
    keys: dict[str, KeySigner]

    def policy(self, rules: list[dict[str, Any]]) -> CompiledPolicy:
        pem = {name: key.public_key.pem.decode() for name, key in self.keys.items()}
        body = {
            "apiVersion": "sealflow/v1",
            "version": 1,
            "expires": "2027-01-01T00:00:00Z",
            "identities": {
                "trainer": {"key": pem["trainer"], "producers": ["airflow:train/*"]},
                "twin": {"key": pem["trainer"], "producers": ["kfp:p/*"]},
                "anyone": {"key": pem["anyone"]},
                "late": {"key": pem["late"], "expires": "2026-05-01T00:00:00Z"},
                "gone": {"key": pem["gone"]},
            },
            "recipients": {name: {"kms": arn} for name, arn in ARNS.items()},
            "rules": [{**rule, "name": f"rule-{n}"} for n, rule in enumerate(rules)],
        }
        return CompiledPolicy(parse_policy(json.dumps(body).encode()), digest="0" * 64)

    @property
    def listed(self) -> CompiledRevocations:
        key = "sha256:" + self.keys["gone"].public_key.hint
        entries = [{"key": key, "since": "2026-01-01T00:00:00Z", "reason": "lost"}]
        head = {"apiVersion": "sealflow/v1", "kind": "Revocations", "version": 1, "expires": "2027-01-01T00:00:00Z"}
        return CompiledRevocations(parse_revocations(json.dumps({**head, "revocations": entries}).encode()), digest="")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    from sealflow.actions.keys_generate import generate_key

    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "m").write_bytes(b"m")
    for name in SIGNERS:
        generate_key(str(folder / name))
    return World(folder / "m", {name: load_signer(f"file:{folder / name}") for name in SIGNERS})


demands = st.one_of(
    st.sampled_from([None, {"any_of": ["trainer"]}, {"any_of": ["anyone", "trainer"]}, {"any_of": ["late", "gone"]}]),
    st.sampled_from(
        [
            {"all_of": ["trainer", "anyone"]},
            {"at_least": 2, "of": ["trainer", "twin", "anyone"]},
            {"any_of": ["trainer", "twin", "anyone", "late", "gone"]},
        ]
    ),
)
kinds = st.sampled_from(
    [None, {"signature": {}}, {"provenance": {}}, {"provenance": {"max_age": "1d"}, "signature": {}}]
)
producers = st.sampled_from([None, ["airflow:train/*"], ["airflow:train/*", "kfp:**"], ["**"]])
freshness = st.sampled_from([None, "pinned", {"max_age": "3h"}])
openers = st.sampled_from(
    [
        None,
        None,
        {"encrypted": True},
        {"required": ["recovery"]},
        {"only": ["recovery", "vault"]},
        {"required": ["vault"], "only": ["recovery", "vault"], "encrypted": True},
    ]
)
recipients = st.sampled_from([None, ["recovery"], ["recovery", "vault"], ["recovery", "vault", "other"]])
loaders = st.sampled_from([None, ["airflow:**"], ["python"]])


@st.composite
def rules(draw: st.DrawFn, folder: str) -> dict[str, Any]:
    require = {
        "identities": draw(demands),
        "evidence": draw(kinds),
        "producers": draw(producers),
        "freshness": draw(freshness),
        "loaders": draw(loaders),
        "recipients": draw(openers),
    }
    if require["evidence"] == {"signature": {}}:
        require["producers"] = None
        if require["freshness"] != "pinned":
            require["freshness"] = None
    scope: dict[str, Any] = {"artifact": [folder + draw(st.sampled_from(["/**", "/*", "/m"]))]}
    if draw(st.booleans()):
        scope["orchestrator"] = draw(st.sampled_from([["airflow"], ["python", "kfp"]]))
    return {
        "scope": scope,
        "require": {name: value for name, value in require.items() if value is not None},
        "level": draw(st.sampled_from(["enforce", "enforce", "audit", "off"])),
    }


evidence = st.fixed_dictionaries(
    {
        "by": st.sampled_from(SIGNERS),
        "kind": st.sampled_from([None, "signature", "provenance"]),
        "producer": st.sampled_from(sorted(RUNS)),
        "age": st.sampled_from([None, "2h", "40d"]),
        "adopted": st.sampled_from([False, False, False, True]),
    }
)


def supposed(world: World, item: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of a table."""
    stranger = item["by"] == "stranger"
    key = f"sha256:{world.keys['stranger'].public_key.hint}"
    entry: dict[str, Any] = {"key": key} if stranger else {"by": item["by"]}
    if item["kind"]:
        entry["kind"] = item["kind"]
    if item["kind"] != "signature":
        entry["producer"] = item["producer"]
        if item["age"]:
            entry["age"] = item["age"]
        if item["adopted"]:
            entry["builder"] = ADOPTED_BUILDER
    return entry


def signed(world: World, items: list[dict[str, Any]]) -> list[StoredEvidence]:
    """Return the same evidence, really signed."""
    storage = Storages().for_uri(str(world.path))
    location = storage.locate(str(world.path))
    assert location is not None
    manifest = build_manifest(storage, location)
    found: list[StoredEvidence] = []

    def stored(kind: str, statement: bytes, key: KeySigner) -> StoredEvidence:
        return StoredEvidence(f"{kind}-{len(found)}", make_bundle(statement, key), kind)

    for item in items:
        key = world.keys[item["by"]]
        if item["kind"] != "provenance":
            found.append(stored("signature", make_oms_statement(manifest), key))
        if item["kind"] != "signature":
            run = RUNS[item["producer"]]
            if item["adopted"]:
                run = RunIdentity(run.orchestrator, run.workflow, run.task, run.run, builder=ADOPTED_BUILDER)
            made = NOW - datetime.timedelta(seconds=seconds(item["age"]) if item["age"] else 0)
            statement = make_provenance_statement("m", manifest.digest, run, now=made)
            found.append(stored("provenance", statement, key))
    return found


def verified(
    world: World,
    policy: CompiledPolicy,
    items: list[dict[str, Any]],
    run: RunIdentity,
    pinned: bool,
    opened_by: list[str] | None,
) -> tuple[str, set[str]]:
    """Return what the verification says: the outcome and the codes of its reasons."""
    storages = Storages()
    storage = storages.for_uri(str(world.path))
    location = storage.locate(str(world.path))
    assert location is not None
    manifest = build_manifest(storage, location)
    arguments = Arguments(digest=manifest.digest if pinned else None)
    ruling = compose(
        [policy], arguments, places=places_of(location.uri), run=run, revoked=world.listed.resolved({}), now=NOW
    )
    case = Case(
        location,
        manifest,
        ruling.requirement,
        signed(world, items),
        manifest.digest,
        lambda serialization: build_manifest(storage, location, serialization=serialization),
        NOW,
        consumer=run.producer,
        holders=None if opened_by is None else [("aws-kms", ARNS[name].encode()) for name in opened_by],
    )
    judgement: Judgement = judge_ruling(case, ruling)
    verdict = judgement.verdict
    if not ruling.managed:
        return "unmanaged", set()
    if verdict.passed and judgement.relaxed:
        return "audited", set()
    if verdict.passed:
        return "passed", set()
    return "refused", {finding.code for finding in verdict.findings if finding.severity == "refusal"}


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_supposed_and_signed_evidence_come_to_the_same(world: World, data: st.DataObject) -> None:
    folder = str(world.path.parent)
    drawn = data.draw(st.lists(rules(folder), min_size=1, max_size=2))
    # What one rule says the other may contradict; such a policy is refused when it is loaded.
    try:
        policy = world.policy(drawn)
    except PolicyError as error:
        assume(error.code != "POLICY_CONTRADICTION")
        raise
    items = data.draw(st.lists(evidence, max_size=3))
    consumer = data.draw(st.sampled_from(sorted(RUNS)))
    pinned = data.draw(st.booleans())
    opened_by = data.draw(recipients)
    run = RUNS[consumer]
    case: dict[str, Any] = {
        "name": "case",
        "artifact": str(world.path),
        "evidence": [supposed(world, item) for item in items],
        "pinned": pinned,
        "recipients": opened_by or "clear",
        "expect": "passed",
    }
    case |= {
        "airflow": {"dag": run.workflow, "task": run.task},
        "kfp": {"pipeline": run.workflow, "task": run.task},
    }.get(run.orchestrator, {})
    table = {"apiVersion": "sealflow/v1", "kind": "PolicyTests", "now": NOW.isoformat(), "cases": [case]}
    (result,) = run_table(policy, *read_table(json.dumps(table).encode(), "table"), world.listed)
    status, codes = verified(world, policy, items, run, pinned, opened_by)
    assert result.outcome.status == status, (result.outcome, codes)
    if status == "refused":
        assert {item.code for item in result.outcome.shortfalls} == codes
