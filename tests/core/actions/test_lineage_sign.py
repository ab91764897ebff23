"""Signing what a DVC repository holds, and level L5 over it."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sealflow
from sealflow import RunIdentity, Surroundings
from sealflow.actions import context
from sealflow.actions.lineage import check_lineage
from sealflow.actions.lineage_evidence import Vouchers, store_of
from sealflow.actions.lineage_sign import sign_lineage
from sealflow.audit.event import utc_now
from sealflow.errors import UsageError, VerificationError
from sealflow.evidence.lineage import make_lineage_statement
from sealflow.hashing import Digest, sha256_hex
from sealflow.lineage.check import LineageCheck, check_repository
from sealflow.policy import parse_identities
from sealflow.storage import Storages
from tests.audit_events import read_events
from tests.core.lineage.repos import FIRST, SECOND, codes, lock, md5, out, simple, write
from tests.pki import KeyPair, write_key

RUN = RunIdentity("airflow", "train", "fit", "run-1", None, 1)


@pytest.fixture
def key(tmp_path: Path) -> KeyPair:
    return write_key(tmp_path)


def chain(root: Path) -> Path:
    """A folder of data, a stage that reads one file of it and some code, and a stage that reads what that one made."""
    listing = json.dumps([{"md5": md5("1\n"), "relpath": "a.csv"}, {"md5": md5("2\n"), "relpath": "s/b.csv"}])
    data = {"path": "data", "hash": "md5", "md5": md5(listing) + ".dir", "size": 4, "nfiles": 2}
    return write(
        root,
        {
            "data/a.csv": "1\n",
            "data/s/b.csv": "2\n",
            "data.dvc": {"outs": [data]},
            "code.py": "print()\n",
            "clean.csv": "3\n",
            "model.bin": "4\n",
            "dvc.yaml": {
                "stages": {
                    "clean": {"cmd": "c", "deps": ["data/a.csv", "code.py"], "outs": ["clean.csv"]},
                    "train": {"cmd": "t", "deps": ["clean.csv", "data"], "outs": ["model.bin"]},
                }
            },
            "dvc.lock": lock(
                clean={
                    "cmd": "c",
                    "deps": [out("data/a.csv", "1\n"), out("code.py", "print()\n")],
                    "outs": [out("clean.csv", "3\n")],
                },
                train={"cmd": "t", "deps": [out("clean.csv", "3\n"), data], "outs": [out("model.bin", "4\n")]},
            ),
        },
    )


def check(root: Path, identities: Any, *targets: str) -> LineageCheck:
    """Level L5 without the levels below that need Git and a remote."""
    surroundings, storages = context.current(), Storages()
    store = store_of(str(root), None, surroundings, storages)
    given = parse_identities(identities) if identities is not None else None
    vouchers = Vouchers(root.as_uri(), store, given, None, surroundings)
    return check_repository(str(root), targets, level="L5", binding=vouchers)


def statements(root: Path, kind: str) -> list[dict[str, Any]]:
    found = []
    for path in sorted(root.with_name(f"{root.name}.evidence").glob(f"*/{kind}-*.json")):
        found.append(json.loads(base64.b64decode(json.loads(path.read_text())["dsseEnvelope"]["payload"])))
    return found


def test_what_is_signed_passes(tmp_path: Path, key: KeyPair) -> None:
    root = chain(tmp_path / "r")
    made = sign_lineage(str(root), signer=key.signer)
    assert set(made.statements) == {"data", "clean.csv", "model.bin", "data/a.csv", "code.py"}
    assert set(made.refs) == {"data", "clean.csv", "model.bin"}
    found = check(root, str(key.public))
    assert codes(found) == set()
    # Nobody needed an MD5 for that: the recorded ones are signed.
    assert found.contents["model.bin"].digest == md5("4\n")
    assert {file.md5 for file in (found.contents["data"].files or {}).values()} == {""}


def test_outputs_are_artifacts_like_all_others(tmp_path: Path, key: KeyPair) -> None:
    made = sign_lineage(str(chain(tmp_path / "r")), signer=key.signer)
    for path, ref in made.refs.items():
        verdict = sealflow.verify(ref, identities=str(key.public), name=path)
        assert verdict.passed, verdict.summary()


def test_the_statement(tmp_path: Path, key: KeyPair) -> None:
    root = chain(tmp_path / "r")
    with context.run(Surroundings(RUN)):
        sign_lineage(str(root), ["data.dvc"], signer=key.signer)
    (said,) = statements(root, "lineage")
    a, b = sha256_hex(b"1\n"), sha256_hex(b"2\n")
    tree = hashlib.sha256(f"{a}  a.csv\n{b}  s/b.csv\n".encode()).hexdigest()
    assert said["predicateType"] == "urn:sealflow:predicate:dvc-lineage:v1"
    assert said["subject"] == [{"name": "data", "digest": {"dirHash": tree}}]
    predicate = said["predicate"]
    assert predicate["data"] == {
        "path": "data",
        "md5": json.loads((root / "data.dvc").read_text())["outs"][0]["md5"],
        "size": 4,
        "nfiles": 2,
    }
    assert (predicate["stage"], predicate["run"]["producer"]) == ("data.dvc", "airflow:train/fit")


def test_provenance_names_what_the_stage_read(tmp_path: Path, key: KeyPair) -> None:
    """A file inside of an output stands for the output, and code is marked as such."""
    root = chain(tmp_path / "r")
    made = sign_lineage(str(root), ["clean", "train", "data.dvc"], signer=key.signer)
    inputs = {
        said["subject"][0]["name"]: {
            (item["name"], *item["digest"].values(), item.get("annotations", {}).get("sealflow_role", ""))
            for item in said["predicate"]["buildDefinition"]["resolvedDependencies"]
        }
        for said in statements(root, "provenance")
    }
    data, clean = made.refs["data"].digest.hex, made.refs["clean.csv"].digest.hex
    assert inputs == {
        "data": set(),
        "clean.csv": {("data", data, ""), ("code.py", sha256_hex(b"print()\n"), "source")},
        "model.bin": {("clean.csv", clean, ""), ("data", data, "")},
    }


def test_what_the_run_read_beyond_the_lock_is_said(tmp_path: Path, key: KeyPair) -> None:
    root = chain(tmp_path / "r")
    (tmp_path / "extra").write_text("more")
    ref = sealflow.sign(tmp_path / "extra", signer=key.signer)
    # A process remembers what a run has read, and other tests have this run too.
    with context.run(Surroundings(replace(RUN, run=str(tmp_path)))):
        assert sealflow.verify(ref, identities=str(key.public)).passed
        sign_lineage(str(root), ["train"], signer=key.signer)
    (said,) = statements(root, "provenance")
    names = [item["name"] for item in said["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert names == ["clean.csv", "data", "extra"]


def test_only_the_targets_are_signed(tmp_path: Path, key: KeyPair) -> None:
    root = chain(tmp_path / "r")
    assert set(sign_lineage(str(root), ["train"], signer=key.signer).statements) == {"model.bin"}
    assert codes(check(root, str(key.public))) == {"MD5_UNBOUND"}


def test_signing_again_adds_to_it(tmp_path: Path, key: KeyPair) -> None:
    root = chain(tmp_path / "r")
    sign_lineage(str(root), signer=key.signer)
    sign_lineage(str(root), signer=key.signer)
    assert codes(check(root, str(key.public))) == set()


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("model.bin", "x\n", "DATA_MISMATCH"),
        ("data/s/b.csv", "x\n", "DATA_MISMATCH"),
        ("code.py", "evil()\n", "DATA_MISMATCH"),
        ("dvc.yaml", {"stages": {}}, "STAGE_ORPHAN"),
    ],
)
def test_nothing_is_signed_that_does_not_agree(tmp_path: Path, key: KeyPair, name: str, data: Any, code: str) -> None:
    root = write(chain(tmp_path / "r"), {name: data})
    with pytest.raises(VerificationError) as caught:
        sign_lineage(str(root), signer=key.signer)
    assert code in {finding.code for finding in caught.value.verdict.findings}
    assert not root.with_name("r.evidence").exists()


def test_what_cannot_be_signed(tmp_path: Path, key: KeyPair) -> None:
    empty = write(tmp_path / "r", {"d.dvc": {"outs": [{"path": "d", "hash": "md5", "md5": md5("[]") + ".dir"}]}})
    (empty / "d").mkdir()
    legacy = write(tmp_path / "s", {"x": "1\n", "x.dvc": {"outs": [{"path": "x", "md5": md5("1\n")}]}})
    odd = write(tmp_path / "t", {"a\nb": "1", "a.dvc": {"outs": [out("a\nb", "1")]}})
    for root, code in ((empty, "DATA_REFUSED"), (legacy, "LEGACY_HASH"), (odd, "DATA_REFUSED")):
        with pytest.raises(VerificationError) as caught:
            sign_lineage(str(root), signer=key.signer)
        assert code in {finding.code for finding in caught.value.verdict.findings if finding.severity == "refusal"}


def test_a_missing_signer_leaves_nothing_behind(tmp_path: Path) -> None:
    root = chain(tmp_path / "r")
    with pytest.raises(UsageError, match="no signer"):
        sign_lineage(str(root))
    assert not root.with_name("r.evidence").exists()


def test_the_store_is_not_inside(tmp_path: Path, key: KeyPair) -> None:
    root = chain(tmp_path / "r")
    with pytest.raises(UsageError, match="inside the repository"):
        sign_lineage(str(root), signer=key.signer, evidence_store=str(root / "evidence"))


# --- Attacks on what was signed ---


def test_a_twin_with_the_same_md5_is_refused(tmp_path: Path, key: KeyPair) -> None:
    assert hashlib.md5(FIRST).digest() == hashlib.md5(SECOND).digest()
    assert FIRST != SECOND
    root = write(tmp_path / "r", {"x": FIRST, "x.dvc": {"outs": [out("x", FIRST)]}})
    sign_lineage(str(root), signer=key.signer)
    assert codes(check(root, str(key.public))) == set()
    (root / "x").write_bytes(SECOND)
    assert codes(check_repository(str(root))) == set()  # what DVC and L2 say
    found = check(root, str(key.public))
    assert codes(found) == {"SHA256_MISMATCH", "MD5_UNBOUND"}


def test_below_l5_a_signature_is_only_the_quicker_way(tmp_path: Path, key: KeyPair) -> None:
    root = chain(tmp_path / "r")
    sign_lineage(str(root), ["data.dvc"], signer=key.signer)
    assert check_lineage(str(root), level="L2", identities=str(key.public)).passed
    store = (tmp_path / "elsewhere").as_uri()
    assert check_lineage(str(root), level="L2", identities=str(key.public), evidence_store=store).passed
    for name in ("data/a.csv", "model.bin"):
        before = (root / name).read_bytes()
        (root / name).write_bytes(b"x\n")
        assert not check_lineage(str(root), level="L1", identities=str(key.public)).passed
        (root / name).write_bytes(before)
    twins = write(tmp_path / "t", {"x": FIRST, "x.dvc": {"outs": [out("x", FIRST)]}})
    sign_lineage(str(twins), signer=key.signer)
    (twins / "x").write_bytes(SECOND)
    assert check_lineage(str(twins), level="L2").passed
    found = check_lineage(str(twins), level="L2", identities=str(key.public))
    assert [item.code for item in found.findings if item.severity == "refusal"] == ["SHA256_MISMATCH"]


def test_changed_data_is_named_by_its_file(tmp_path: Path, key: KeyPair) -> None:
    root = chain(tmp_path / "r")
    sign_lineage(str(root), signer=key.signer)
    write(root, {"data/s/b.csv": "x\n", ".dvc/cache/x": ""})
    found = [item for item in check(root, str(key.public)).findings if item.severity == "refusal"]
    assert {item.code for item in found} == {"DATA_MISMATCH"}


def _statement(root: Path, name: str, *, md5_of: bytes | None = None, digest_of: bytes | None = None) -> bytes:
    data = (root / name).read_bytes()
    return make_lineage_statement(
        name,
        Digest("sha256", sha256_hex(data if digest_of is None else digest_of)),
        md5=md5(data if md5_of is None else md5_of),
        size=len(data),
        nfiles=None,
        stage="make",
        run=RunIdentity(),
        now=utc_now(),
    )


@pytest.mark.parametrize("attack", ["other md5", "other digest", "cut", "stranger", "provenance", "no kind"])
def test_statements_that_bind_nothing(tmp_path: Path, key: KeyPair, attack: str) -> None:
    from sealflow.evidence import EvidenceStore, make_bundle
    from sealflow.keys import load_signer

    root = simple(tmp_path / "r")
    store = EvidenceStore(root.with_name("r.evidence").as_uri(), Storages())
    (tmp_path / "stranger").mkdir()
    stranger = write_key(tmp_path / "stranger")
    for name in ("in.csv", "out.csv"):
        digest = Digest("sha256", sha256_hex((root / name).read_bytes()))
        statement = _statement(
            root,
            name,
            md5_of=b"other" if attack == "other md5" else None,
            digest_of=b"other" if attack == "other digest" else None,
        )
        signer = load_signer((stranger if attack == "stranger" else key).signer)
        bundle = make_bundle(statement, signer)
        if attack == "cut":
            bundle = bundle[:-2]
        store.put(digest, {"provenance": "provenance", "no kind": "other"}.get(attack, "lineage"), bundle)
    assert codes(check(root, str(key.public))) >= {"MD5_UNBOUND"}


def test_nobody_named_means_nobody_believed(tmp_path: Path, key: KeyPair) -> None:
    root = simple(tmp_path / "r")
    sign_lineage(str(root), signer=key.signer)
    assert codes(check(root, None)) == {"IDENTITY_RULE_MISSING"}


def test_a_signer_speaks_for_its_producers_alone(tmp_path: Path, key: KeyPair) -> None:
    root = simple(tmp_path / "r")
    with context.run(Surroundings(RUN)):
        sign_lineage(str(root), signer=key.signer)
    right = {"key": str(key.public), "producers": ["airflow:train/*"]}
    wrong = {"key": str(key.public), "producers": ["airflow:other/*"]}
    assert codes(check(root, right)) == set()
    assert codes(check(root, wrong)) == {"MD5_UNBOUND", "PRODUCER_NOT_ALLOWED"}


def test_a_store_out_of_reach_is_no_pass(tmp_path: Path, key: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.errors import UnavailableError
    from sealflow.evidence import EvidenceStore

    root = simple(tmp_path / "r")
    sign_lineage(str(root), signer=key.signer)

    def down(*_: Any, **__: Any) -> Any:
        raise UnavailableError("The store does not answer.")

    monkeypatch.setattr(EvidenceStore, "collect", down)
    found = check(root, str(key.public))
    assert {item.severity for item in found.findings if item.code == "BACKEND_UNAVAILABLE"} == {"unverifiable"}


def test_records_come_in_pairs(tmp_path: Path, key: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    root = simple(tmp_path / "r")
    sign_lineage(str(root), ["make"], signer=key.signer)
    events = read_events(tmp_path / "spool")
    assert [(event["action"], event.get("outcome", "intent")) for event in events] == [
        ("check_lineage", "intent"), ("check_lineage", "passed"), ("sign_lineage", "intent"), ("sign_lineage", "done"),
        ("sign_lineage", "intent"), ("sign_lineage", "done"),
    ]  # fmt: skip
