"""The review of accesses: what it counts, what it finds, and which numbers it says so with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sealflow.actions.audit_review import Reviewed
from sealflow.errors import UsageError
from sealflow.verification.accesses import Limits
from tests.conftest import ROOT
from tests.core.actions.access_log import Run, at, found, made, one, review
from tests.core.audit.test_cloudtrail import log_file, record
from tests.core.policy import deployment

pytestmark = pytest.mark.slow

MODEL = "s3://models/churn/model.pkl"


def daily(count: int = 1, days: range = range(60), artifact: str = MODEL, **more: Any) -> list[bytes]:
    """What one principal does each day."""
    return [line for day in days for number in range(count) for line in one(at(day, number), artifact, **more)]


def codes(reviewed: Reviewed) -> dict[str, int]:
    return reviewed.report["finding_counts"]


def test_usual_month_passes_with_its_counts(tmp_path: Path) -> None:
    reviewed = review(made(tmp_path, daily()))
    assert (reviewed.verdict.status, reviewed.verdict.exit_status, codes(reviewed)) == ("passed", 0, {})
    report = reviewed.report
    assert report["counts"]["entries"] == 180
    assert report["outcomes"] == {"passed": 30}
    assert report["log"]["size"] == 180
    assert report["log"]["origin"] == "log.example/audit"
    (access,) = report["accesses"]
    assert access == {
        "principal": "airflow:train/fit",
        "who": "claimed",
        "vouched_by": [],
        "artifact": MODEL,
        "accesses": 30,
        "refused": 0,
        "denied_then_allowed": False,
        "first": "2026-10-01T00:00:01Z",
        "last": "2026-10-30T00:00:01Z",
        "first_entry": 91,
        "last_entry": 178,
        "actions": {"verify": 30},
        "outcomes": {"passed": 30},
        "codes": {},
    }
    (principal,) = report["principals"]
    assert (principal["artifacts"], principal["accesses"], principal["volume"]["days"]) == (1, 30, 30)
    assert report["artifacts"][0]["principals"] == 1


def test_refusals_are_counted_with_their_codes(tmp_path: Path) -> None:
    lines = daily() + one(at(59, 9), MODEL, "failed", codes=("DIGEST_MISMATCH", "SIGNER_NOT_ALLOWED"))
    report = review(made(tmp_path, lines)).report
    assert report["codes"] == {"DIGEST_MISMATCH": 1, "SIGNER_NOT_ALLOWED": 1}
    assert report["accesses"][0]["refused"] == 1
    assert report["principals"][0]["refused"] == report["artifacts"][0]["refused"] == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"artifacts": ["s3://models/**"]}, 30),
        ({"artifacts": ["s3://models/*"]}, 0),
        ({"principals": ["airflow:train/*"]}, 30),
        ({"principals": ["airflow:score/*"]}, 30),
        ({"principals": ["kfp:**"]}, 0),
        ({"artifacts": ["/data/**"], "principals": ["airflow:score/*"]}, 30),
        ({"artifacts": ["/data/**", "s3://models/**"]}, 60),
        ({"since": "2026-10-10", "until": "2026-10-11"}, 2),
        ({"since": "2026-10-10T00:00:01Z", "until": "2026-10-10T00:00:01.000001Z"}, 1),
        ({"since": "2d"}, 2),
    ],
    ids=str,
)
def test_scope_and_period(tmp_path: Path, arguments: dict[str, Any], expected: int) -> None:
    lines = [
        line for day in range(60) for line in one(at(day), MODEL) + one(at(day, 60), "file:///data/x", workflow="score")
    ]
    assert sum(review(made(tmp_path, lines), **arguments).report["outcomes"].values()) == expected


def test_missing_end_of_a_chain_is_a_gap(tmp_path: Path) -> None:
    run = Run().does(at(40), MODEL)
    reviewed = review(made(tmp_path, daily(days=range(40)) + run.lines))
    (gap,) = found(reviewed, "AUDIT_GAP")
    assert gap["subject"] == run.run.invocation
    assert "2 entries" in gap["found"]
    assert reviewed.verdict.passed


def test_missing_entry_of_an_ended_chain_is_a_gap(tmp_path: Path) -> None:
    lines = Run().does(at(40), MODEL).ends(at(40))
    reviewed = review(made(tmp_path, [*daily(days=range(40)), lines[0], lines[2]]))
    assert ["3 entries" in item["expected"] for item in found(reviewed, "AUDIT_GAP")] == [False, True]


def test_intent_without_outcome_is_a_gap_though_the_chain_ended(tmp_path: Path) -> None:
    run = Run()
    run.event(at(40), "intent", artifact=MODEL)
    reviewed = review(made(tmp_path, daily(days=range(40)) + run.ends(at(40))))
    (gap,) = found(reviewed, "AUDIT_GAP")
    assert (gap["subject"], gap["expected"]) == (MODEL, "an outcome")
    assert reviewed.report["outcomes"]["missing"] == 1


def test_what_may_still_go_on_is_no_gap(tmp_path: Path) -> None:
    run = Run()
    run.event(at(59, 86_000), "intent", artifact=MODEL)
    log = made(tmp_path, daily() + run.lines)
    open_still = review(log, until="2026-10-31T00:00:00Z")
    assert (codes(open_still), open_still.report["counts"]["open"]) == ({}, 2)
    assert codes(review(log, until="2026-11-10T00:00:00Z"))["AUDIT_GAP"] == 2
    assert codes(review(log, until="2026-10-31T00:00:00Z", grace="1m"))["AUDIT_GAP"] == 2


def test_another_writer_cannot_close_an_intent(tmp_path: Path) -> None:
    """Correlations are public in the log; what a stranger says of them closes nothing."""
    run, stranger = Run(), Run()
    intent = run.event(at(40), "intent", artifact=MODEL)
    stranger.event(at(40), "outcome", artifact=MODEL, outcome="passed", correlation=intent.correlation)
    lines = daily(days=range(40)) + run.ends(at(40)) + stranger.ends(at(40))
    assert [item["subject"] for item in found(review(made(tmp_path, lines)), "AUDIT_GAP")] == [MODEL]


def test_writer_that_goes_on_for_its_run_closes_the_intent_but_leaves_the_gap(tmp_path: Path) -> None:
    squatted, goes_on = Run(), Run()
    goes_on.run = squatted.run
    intent = squatted.event(at(40), "intent", artifact=MODEL)
    goes_on.event(
        at(40), "outcome", artifact=MODEL, outcome="passed", correlation=intent.correlation, after=squatted.chain.writer
    )
    reviewed = review(made(tmp_path, daily(days=range(40)) + squatted.lines + goes_on.ends(at(40))))
    (gap,) = found(reviewed, "AUDIT_GAP")
    assert goes_on.chain.writer[:16] in gap["found"]


def test_first_seen_pairs_are_of_datasets(tmp_path: Path) -> None:
    lines = (
        daily()
        + one(at(50), "s3://models/churn/other.pkl")
        + one(at(51), "s3://raw/people/2026.csv")
        + one(at(52), "s3://raw/people/2027.csv")
    )
    log = made(tmp_path, lines)
    assert [item["subject"] for item in found(review(log), "FIRST_SEEN")] == ["s3://raw/people/"]
    assert found(review(log, datasets=["s3://raw", "s3://raw/people"]), "FIRST_SEEN")[0]["subject"] == "s3://raw/people"


def test_volume_names_the_numbers_that_it_used(tmp_path: Path) -> None:
    lines = daily(30, range(12, 45)) + daily(61, range(45, 46)) + daily(60, range(46, 47))
    reviewed = review(made(tmp_path, lines))
    (item,) = found(reviewed, "VOLUME")
    assert (item["subject"], item["expected"], item["found"]) == (
        "airflow:train/fit", "at most 60 (the most before was 30)", "61",
    )  # fmt: skip
    said = reviewed.report["principals"][0]["volume"]
    assert said["above"] == [
        {"day": "2026-10-16", "accesses": 61, "greatest": 30, "limit": 60, "history": 28, "status": "above"}
    ]


def test_short_history_is_said_and_is_not_ok(tmp_path: Path) -> None:
    lines = daily() + daily(80, range(55, 56), workflow="eve")
    reviewed = review(made(tmp_path, lines))
    (item,) = found(reviewed, "INSUFFICIENT_HISTORY")
    assert (item["subject"], item["expected"]) == ("airflow:eve/fit", "14 days of history")
    assert "80 accesses" in item["found"]
    eve = next(item for item in reviewed.report["principals"] if item["principal"] == "airflow:eve/fit")
    assert (eve["volume"]["insufficient_history"], eve["volume"]["busiest"]["status"]) == (1, "insufficient_history")


def test_young_log_says_that_first_times_say_little(tmp_path: Path) -> None:
    reviewed = review(made(tmp_path, daily(days=range(25, 60))))
    assert [item["subject"] for item in found(reviewed, "INSUFFICIENT_HISTORY")] == ["airflow:train/fit", "the log"][
        ::1
    ]


@pytest.mark.parametrize(
    ("first", "more"),
    [("failed", {"codes": ("SIGNER_NOT_ALLOWED",)}), ("error", {"codes": ("PERMISSION_DENIED",)})],
)
def test_denied_then_allowed(tmp_path: Path, first: str, more: dict[str, Any]) -> None:
    lines = daily() + one(at(59, 60), MODEL, first, **more) + one(at(59, 120), MODEL) + one(at(59, 180), MODEL)
    reviewed = review(made(tmp_path, lines))
    (item,) = found(reviewed, "DENIED_THEN_ALLOWED")
    assert item["subject"] == MODEL
    assert item["found"].startswith("refused in entry 181, passed in entry 184")
    assert reviewed.report["accesses"][0]["denied_then_allowed"]


@pytest.mark.parametrize("outcome", ["error", "unverifiable"])
def test_outage_then_success_is_nothing(tmp_path: Path, outcome: str) -> None:
    lines = daily() + one(at(59, 60), MODEL, outcome, codes=("BACKEND_UNAVAILABLE",)) + one(at(59, 120), MODEL)
    assert codes(review(made(tmp_path, lines))) == {}


def test_fail_on_makes_a_code_fail(tmp_path: Path) -> None:
    log = made(tmp_path, daily() + one(at(59, 60), "s3://raw/x"))
    assert review(log).verdict.exit_status == 0
    assert review(log, fail_on=["VOLUME"]).verdict.exit_status == 0
    for fail_on in (["FIRST_SEEN"], ["all"]):
        verdict = review(log, fail_on=fail_on).verdict
        assert (verdict.status, verdict.exit_status, verdict.findings[0].code) == ("failed", 3, "FIRST_SEEN")


def policy(folder: Path, **require: Any) -> str:
    path = folder / "policy.yaml"
    rules = [deployment.rule("models", "s3://models/**", (), dag=["train"], require=require)]
    path.write_text(json.dumps(deployment.policy(rules)))
    return str(path)


def test_accesses_outside_of_the_policy(tmp_path: Path) -> None:
    lines = (
        daily()
        + daily(workflow="score")
        + daily(task="peek")
        + daily(task="peek", action="sign", outcome="done")
        + daily(workflow="free", artifact="s3://other/x")
        + one(at(50), MODEL, "failed", workflow="refused")
    )
    draft = policy(tmp_path, loaders=["airflow:train/fit"], producers=["airflow:train/fit"])
    reviewed = review(made(tmp_path, lines), policy=draft, fail_on=["ACCESS_NOT_ALLOWED"])
    assert [(item["found"].split(", ")[0], item.get("rule")) for item in found(reviewed, "ACCESS_NOT_ALLOWED")] == [
        ("verify by airflow:score/fit (claimed)", None),
        ("verify by airflow:train/peek (claimed)", "policy/models"),
        ("sign by airflow:train/peek (claimed)", "policy/models"),
    ]
    assert reviewed.verdict.exit_status == 4


# -- CloudTrail


def trail(folder: Path, *records: Any) -> str:
    place = folder / "trail" / "AWSLogs" / "111122223333" / "CloudTrail" / "eu-central-1" / "2026" / "10" / "20"
    place.mkdir(parents=True, exist_ok=True)
    (place / "a_CloudTrail_1.json.gz").write_bytes(log_file(*records))
    digest = folder / "trail" / "AWSLogs" / "111122223333" / "CloudTrail-Digest" / "2026"
    digest.mkdir(parents=True, exist_ok=True)
    (digest / "digest.json.gz").write_bytes(gzip.compress(b"{}"))
    return str(folder / "trail")


def asked(time: str, key: str = "churn/model.pkl", bucket: str = "models", **more: Any) -> dict[str, Any]:
    return record(eventTime=time, requestParameters={"bucketName": bucket, "key": key}, **more)


NOON = "2026-10-20T12:00:00Z"


def compared(folder: Path, lines: list[bytes], *records: Any, **more: Any) -> Reviewed:
    return review(made(folder, lines), cloudtrail=trail(folder, *records), **more)


def test_both_know_the_access(tmp_path: Path) -> None:
    records = [asked(NOON), asked("2026-10-20T12:04:00Z"), asked(NOON, "churn/model.pkl.evidence/x/signature-1.json")]
    reviewed = compared(tmp_path, one(at(49, 43_200), MODEL), *records)
    assert not {"UNRECORDED_ACCESS", "PHANTOM_ACCESS", "TRAIL_SILENT"} & set(codes(reviewed))
    report = reviewed.report["cloudtrail"]
    assert (report["records"], report["explained"], report["unrecorded"], report["phantom"]) == (3, 3, 0, 0)
    assert "time" in report["joined_by"]


@pytest.mark.parametrize(
    "other",
    [
        asked("2026-10-20T12:06:00Z"),
        asked("2026-10-20T11:54:00Z"),
        asked(NOON, "churn/model.pkl2"),
        asked(NOON, "churn"),
        asked(NOON, bucket="models2"),
        record(eventTime=NOON, requestParameters={"bucketName": "models", "key": "churn/model.pkl", "versionId": "v2"}),
    ],
    ids=["later", "earlier", "longer name", "folder", "bucket", "version"],
)
def test_unrecorded_access(tmp_path: Path, other: dict[str, Any]) -> None:
    lines = one(at(49, 43_200), MODEL, version="v1")
    reviewed = compared(tmp_path, lines, asked(NOON), other, other, fail_on=["UNRECORDED_ACCESS"])
    (item,) = found(reviewed, "UNRECORDED_ACCESS")
    assert item["found"].startswith("2 GetObject")
    assert "assumed-role/trainer/worker" in item["message"]
    assert reviewed.verdict.exit_status == 3


def test_tree_explains_what_lies_in_it(tmp_path: Path) -> None:
    reviewed = compared(tmp_path, one(at(49, 43_200), "s3://models/churn"), asked(NOON), asked(NOON, "churn/a/b"))
    assert "UNRECORDED_ACCESS" not in codes(reviewed)


def test_long_action_explains_requests_until_its_outcome(tmp_path: Path) -> None:
    run = Run()
    intent = run.event(at(49, 36_000), "intent", artifact=MODEL)
    run.event(at(49, 50_000), "outcome", artifact=MODEL, outcome="done", correlation=intent.correlation)
    reviewed = compared(tmp_path, run.ends(at(49, 50_000)), asked(NOON))
    assert not {"UNRECORDED_ACCESS", "PHANTOM_ACCESS"} & set(codes(reviewed))


def test_phantom_access(tmp_path: Path) -> None:
    lines = one(at(49, 43_200), MODEL) + one(at(50), MODEL, outcome="done", action="upload")
    reviewed = compared(tmp_path, lines, asked(NOON))
    (item,) = found(reviewed, "PHANTOM_ACCESS")
    assert item["found"].startswith("entry 4, ")


@pytest.mark.parametrize(
    "more",
    [{"codes": ("VERDICT_REUSED",)}, {"outcome": "failed"}, {"outcome": "error"}, {"action": "trace"}],
    ids=str,
)
def test_what_need_not_reach_the_store_is_no_phantom(tmp_path: Path, more: dict[str, Any]) -> None:
    lines = one(at(49, 43_200), MODEL) + one(at(50), MODEL, **more)
    assert "PHANTOM_ACCESS" not in codes(compared(tmp_path, lines, asked(NOON)))


def test_trail_without_the_bucket_is_unverifiable(tmp_path: Path) -> None:
    reviewed = compared(tmp_path, one(at(49, 43_200), MODEL), asked(NOON, bucket="elsewhere"), artifacts=["s3://m*/**"])
    assert found(reviewed, "TRAIL_SILENT")[0]["subject"] == "s3://models"
    assert (reviewed.verdict.status, reviewed.verdict.exit_status) == ("unverifiable", 5)


def test_requests_that_s3_denied_are_counted_only(tmp_path: Path) -> None:
    records = [asked(NOON), asked("2026-10-21T12:00:00Z", errorCode="AccessDenied")]
    reviewed = compared(tmp_path, one(at(49, 43_200), MODEL), *records)
    assert reviewed.report["cloudtrail"]["denied"] == 1
    assert "UNRECORDED_ACCESS" not in codes(reviewed)


def test_roles_bind_requests_to_principals(tmp_path: Path) -> None:
    lines = one(at(49, 43_200), MODEL)
    reviewed = compared(
        tmp_path, lines, asked(NOON), roles={"arn:aws:sts::*:assumed-role/trainer/*": ["airflow:train/*"]}
    )
    assert "UNRECORDED_ACCESS" not in codes(reviewed)
    reviewed = compared(tmp_path / "b", lines, asked(NOON), roles={"arn:**/trainer/*": ["kfp:**"]})
    assert codes(reviewed)["UNRECORDED_ACCESS"] == 1
    reviewed = compared(tmp_path / "c", lines, asked(NOON), roles={"arn:**/other/*": ["kfp:**"]})
    assert "UNRECORDED_ACCESS" not in codes(reviewed)


def test_malformed_file_of_the_trail_fails_and_the_others_are_read(tmp_path: Path) -> None:
    place = trail(tmp_path, asked(NOON))
    (tmp_path / "trail" / "zzz.json.gz").write_bytes(b"\x1f\x8bnonsense")
    reviewed = review(made(tmp_path, one(at(49, 43_200), MODEL)), cloudtrail=place)
    assert (reviewed.verdict.status, reviewed.report["cloudtrail"]["explained"]) == ("failed", 1)
    assert found(reviewed, "TRAIL_MALFORMED")[0]["subject"] == "zzz.json.gz"


def test_reports_follow_the_published_schema(tmp_path: Path) -> None:
    schema = json.loads((ROOT / "docs" / "reference" / "access-review.schema.json").read_text())
    lines = daily() + daily(70, range(58, 59)) + one(at(59, 60), "s3://raw/x", "failed", codes=("FILE_CHANGED",))
    log = made(tmp_path, lines)
    full = review(log, cloudtrail=trail(tmp_path, asked(NOON))).report
    empty = review(log, artifacts=["s3://none/**"]).report
    log.path().unlink()
    for report in (full, empty, review(log).report):
        Draft202012Validator(schema).validate(report)
    assert not Draft202012Validator(schema).is_valid({**full, "more": 1})


# -- Evidence that is wrong, and arguments that cannot work


def test_malformed_entries_are_findings(tmp_path: Path) -> None:
    good = daily()
    bad = [b"nonsense", good[0].replace(b"verify", b"VERIFY"), b"\xff" * 60_000]
    reviewed = review(made(tmp_path, good + bad), fail_on=["AUDIT_MALFORMED"])
    assert [item["subject"] for item in found(reviewed, "AUDIT_MALFORMED")] == ["entry 180", "entry 181", "entry 182"]
    assert (reviewed.report["outcomes"], reviewed.verdict.exit_status) == ({"passed": 30}, 3)


def test_log_that_does_not_verify_fails_and_counts_nothing(tmp_path: Path) -> None:
    log = made(tmp_path, daily(20))
    bundle = log.path("tile/entries/000")
    data = bytearray(bundle.read_bytes())
    data[5000] ^= 1
    bundle.chmod(0o644)
    bundle.write_bytes(data)
    reviewed = review(log)
    assert (reviewed.verdict.status, reviewed.verdict.exit_status) == ("failed", 3)
    assert codes(reviewed) == {"LOG_ALTERED": 3}
    assert (reviewed.report["accesses"], reviewed.report["counts"]["in_period"]) == ([], 0)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda log: log.path().unlink(), "LOG_MISSING"),
        (lambda log: log.path().write_bytes(log.path().read_bytes().replace(b"\n180\n", b"\n179\n")), "LOG_CHECKPOINT"),
        (lambda log: log.path("tile/entries/000.p/180").unlink(), "LOG_TRUNCATED"),
    ],
    ids=["missing", "edited", "truncated"],
)
def test_broken_logs_are_named(tmp_path: Path, damage: Any, code: str) -> None:
    log = made(tmp_path, daily())
    damage(log)
    reviewed = review(log)
    assert (reviewed.verdict.exit_status, codes(reviewed)) == (3, {code: 1})


@pytest.mark.parametrize(
    "arguments",
    [
        {"since": "yesterday"},
        {"since": "2026-13-01"},
        {"until": "2026-09-01"},
        {"since": "0d"},
        {"artifacts": "s3://models/**"},
        {"artifacts": ["s3://models/***"]},
        {"artifacts": ["name:churn"]},
        {"principals": ["***"]},
        {"fail_on": ["NONSENSE"]},
        {"grace": "soon"},
        {"rows": 0},
        {"roles": {"arn:**": ["kfp:**"]}},
        {"cloudtrail": "/nowhere"},
        {"key": ""},
        {"key": "log.example/audit+00000000+AAAA"},
    ],
    ids=str,
)
def test_arguments_that_cannot_work(tmp_path: Path, arguments: dict[str, Any]) -> None:
    from sealflow.actions.audit_review import review_accesses

    log = made(tmp_path, daily())
    given = {"key": str(log.key), "since": "2026-10-01", "until": "2026-11-01"} | arguments
    with pytest.raises(UsageError):
        review_accesses(log.store.uri, **given)


def test_bounds_are_said_and_never_pass(tmp_path: Path) -> None:
    lines = [line for number in range(30) for line in one(at(40, number), f"s3://models/{number}/x")]
    log = made(tmp_path, daily(days=range(40)) + lines)
    for limits in (Limits(pairs=10), Limits(names=500), Limits(open=0)):
        reviewed = review(log, limits=limits)
        assert (reviewed.verdict.status, codes(reviewed)["REVIEW_INCOMPLETE"]) == ("unverifiable", 1)
        assert reviewed.report["counts"]["left_out"] > 0


def test_report_is_cut_with_a_count(tmp_path: Path) -> None:
    lines = [line for number in range(30) for line in one(at(40, number), f"s3://models/{number}/x")]
    report = review(made(tmp_path, daily(days=range(40)) + lines), rows=10).report
    assert (len(report["accesses"]), report["accesses_omitted"]) == (10, 21)
    assert (len(report["artifacts"]), report["artifacts_omitted"]) == (10, 21)
    assert len(report["findings"]) + report["findings_omitted"] == sum(report["finding_counts"].values())
