"""Attacks on the review of accesses: by what events hold, by clocks, and by their number.

Nothing that a writer says runs in a page or a terminal, leaves the period, or fills the reviewer's memory.
"""

from __future__ import annotations

import base64
import datetime
import json
import re
import tracemalloc
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sealflow.actions.audit_report import as_html
from sealflow.audit.clock import SKEW
from sealflow.verification.accesses import DAY, AccessReview, Limits, Scope
from tests.core.actions.access_log import UTC, Run, at, found, made, one, review
from tests.core.conftest import Cli, cli

pytestmark = pytest.mark.slow

__all__ = ["cli"]  # a fixture

MODEL = "s3://models/churn/model.pkl"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></table></script><script src=//evil.example></script>",
    "javascript:alert(1)",
    "&lt;script&gt;",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\u202egnp.exe",
    "a\u2066b\u2069\u200f",
    "\x9b31m\x07\x08\x7f",
    "line\nend\r\u2028\u2029",
    "[bold red]markup[/]",
    "\ufffe\uffff\x00",
    "{{7*7}}${7*7}%s%n",
]


def steady(days: int = 60) -> list[bytes]:
    hours = range(0, 24 * days, 6)
    return [line for hour in hours for line in one(at(hour / 24), MODEL, workflow=f"w{hour % 7}")]


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        (
            self.scripts if self.tags[-1:] and self.tags[-1][0] == "script" and self.lasttag == "script" else self.text
        ).append(data)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_stay_text_in_the_page(tmp_path: Path, text: str) -> None:
    lines = steady()
    for day, outcome in ((50, "failed"), (51, "passed")):
        run = Run(text, text)
        run.does(at(day), f"s3://b/{text}/x", outcome, codes=(text[:200],), action="verify")
        lines += run.ends(at(day)) if outcome == "passed" else run.lines
    page = as_html(review(made(tmp_path, lines)).report)
    plain = as_html(review(made(tmp_path / "plain", steady())).report)
    read = Page(page)
    kinds = {tag for tag, _ in Page(plain).tags} | {"tr", "td"}
    assert {tag for tag, _ in read.tags} <= kinds
    assert [tag for tag, _ in read.tags].count("script") == 1
    for tag, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "style")], tag
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufffe\uffff]", page)


def test_page_lets_one_script_run_and_fetches_nothing(tmp_path: Path) -> None:
    page = as_html(review(made(tmp_path, steady())).report)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy.split("; ") == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert not re.search(r"(https?:)?//[a-z]", page.replace(f"file://{tmp_path}", "").replace("s3://", ""))
    assert "innerHTML" not in script
    assert "eval" not in script


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_do_nothing_to_a_terminal(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SEALFLOW_AUDIT_SPOOL", str(tmp_path / "spool"))
    log = made(
        tmp_path / "world", [*steady(), *one(at(50), f"s3://b/{text}", "failed", workflow=text, codes=(text[:200],))]
    )
    done = cli(
        "audit",
        "review",
        "--log",
        log.store.uri,
        "--key",
        str(log.key),
        "--since",
        "2026-10-01",
        "--until",
        "2026-11-01",
    )
    assert done.returncode == 0
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", done.stdout)


def test_largest_events_are_read_and_cut(tmp_path: Path) -> None:
    lines = steady()
    for number in range(200):
        lines += one(at(50, number), "s3://b/" + "x" * 4000 + str(number), task="t" * 15_000)
    report = review(made(tmp_path, lines)).report
    assert len(report["accesses"]) == 207
    assert len(as_html(report)) < 2 << 20


def test_many_different_codes_and_actions_stay_bounded(tmp_path: Path) -> None:
    run = Run()
    for number in range(60):
        codes = tuple(f"CODE_{number}_{other}" for other in range(90))
        run.does(at(50, number), MODEL, "failed", action=f"do-{'a' * (number % 60 + 1)}", codes=codes)
    report = review(made(tmp_path, steady() + run.ends(at(50)))).report
    access = next(item for item in report["accesses"] if item["principal"] == "airflow:train/fit")
    assert access["refused"] == 60
    assert len(access["codes"]) + len(access["actions"]) <= Limits().marks + 3
    assert len(report["codes"]) <= 1001


# -- Clocks


@pytest.mark.parametrize("days", [-400, -40, -5, 5, 40], ids=str)
def test_false_clock_does_not_carry_an_access_out_of_the_period(tmp_path: Path, days: int) -> None:
    """Read in October's second week, said to be read at another time: the neighbours know better."""
    lines = steady(40)
    thief = Run("thief", "steal")
    for number in range(100):
        thief.does(at(40 + days, number), f"s3://raw/people/{number}")
    lines += thief.ends(at(40 + days))
    lines += [line for number in range(40) for line in one(at(40, 60 * number), MODEL, workflow=f"v{number}")]
    reviewed = review(made(tmp_path, lines), since="2026-10-08", until="2026-10-13")
    assert [item["subject"] for item in found(reviewed, "AUDIT_CLOCK")] == [thief.run.invocation]
    stolen = [item for item in reviewed.report["accesses"] if item["principal"] == thief.principal]
    assert len(stolen) == 100
    assert "s3://raw/people/" in [item["subject"] for item in found(reviewed, "FIRST_SEEN")]


def test_false_history_is_no_history(tmp_path: Path) -> None:
    """Accesses dated back over four weeks neither make a pair known nor raise the volume that is usual."""
    lines = steady(45)
    thief = Run("thief", "steal")
    for day in range(10, 40):
        for number in range(100):
            thief.does(at(day, number), "s3://raw/people/x")
    lines += thief.lines
    lines += [line for number in range(40) for line in one(at(45, 60 * number), MODEL, workflow=f"v{number}")]
    reviewed = review(made(tmp_path, lines), since="2026-10-14", until="2026-10-18")
    assert "s3://raw/people/" in [item["subject"] for item in found(reviewed, "FIRST_SEEN")]
    said = next(item for item in reviewed.report["principals"] if item["principal"] == thief.principal)
    assert said["volume"]["busiest"]["status"] == "insufficient_history"


def test_future_is_reviewed_now(tmp_path: Path) -> None:
    now = datetime.datetime.now(UTC)
    lines = [
        line
        for hour in range(50, 0, -1)
        for line in one(now - datetime.timedelta(hours=hour), MODEL, workflow=f"w{hour}")
    ]
    lines += one(now + datetime.timedelta(microseconds=SKEW, days=900), MODEL, workflow="thief")
    reviewed = review(made(tmp_path, lines), since="7d", until=None)
    assert "airflow:thief/fit" in [item["principal"] for item in reviewed.report["principals"]]
    assert len(found(reviewed, "AUDIT_CLOCK")) == 1


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00.000000+00:00", "9999-12-31T23:59:59.999999+00:00"])
def test_ends_of_the_calendar_break_nothing(tmp_path: Path, time: str) -> None:
    lines = [*steady(), *one(datetime.datetime.fromisoformat("2026-10-20T00:00:00+00:00"), MODEL)]
    run = Run("edge")
    run.event(datetime.datetime.fromisoformat(time), "outcome", artifact=MODEL, outcome="passed")
    log = made(tmp_path, lines + run.lines + steady())
    reviewed = review(log, since="2026-09-01")
    assert json.dumps(reviewed.report)
    assert as_html(reviewed.report)


# -- Number


def many(count: int, pairs: int, start: int = 20_300 * DAY) -> Iterator[bytes]:
    """Entries of so many different pairs, without the cost of signing them."""
    signature = base64.b64encode(bytes(64)).decode()
    for number in range(count):
        moment = datetime.datetime.fromtimestamp((start + number * 86_400) / 1e6, UTC)
        principal = f"airflow:w{number % 97}/t"
        event = {
            "action": "verify",
            "artifact": f"s3://models/{number % pairs // 1000}/{number % pairs}",
            "correlation": f"{number:032x}",
            "id": f"{number:032x}",
            "outcome": "passed",
            "phase": "outcome",
            "run": {
                "invocation": f"{principal}/r",
                "orchestrator": "airflow",
                "producer": principal,
                "run": "r",
                "task": "t",
                "workflow": f"w{number % 97}",
            },
            "sealflow_audit": 1,
            "time": moment.isoformat(timespec="microseconds"),
        }
        text = json.dumps(event, sort_keys=True, separators=(",", ":"))
        writer = f"{number % 5000:064x}"
        yield f"sealflow-audit/v1 {writer} {number // 5000} {'0' * 64} {text} {signature}".encode()


def peak(count: int, pairs: int, limits: Limits) -> tuple[AccessReview, int]:
    scope = Scope(20_300 * DAY, 20_400 * DAY)
    checked = AccessReview(scope, now=20_400 * DAY, limits=limits)
    tracemalloc.start()
    try:
        checked.read(many(count, pairs))
        checked.finish()
        return checked, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_memory_follows_the_bounds_and_not_the_number_of_events() -> None:
    limits = Limits(pairs=2000, open=6000, findings=50)
    # The first writes the reader's own caches.
    peak(500, 500, limits)
    few, small = peak(6_000, 5_000, limits)
    lots, large = peak(24_000, 24_000, limits)
    assert few.counts["entries"] * 4 == lots.counts["entries"]
    assert lots.findings.counts["REVIEW_INCOMPLETE"] == 1
    assert len(lots.accesses) == 2000
    assert large < small * 1.5 + (4 << 20)
