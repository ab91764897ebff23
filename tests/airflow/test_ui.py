"""The pages' routes: who gets what, and that nothing which others wrote is more than text."""

from __future__ import annotations

import base64
import html.parser
import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sealflow.actions.audit_prove import check_proof
from tests.airflow.ui_world import STORY, Log, Users, database, store_dags, told
from tests.e2e.admin import Admin, rule

pytestmark = pytest.mark.airflow

ROUTES = (
    "/", "/trust", "/verdicts", "/dags", "/evidence?dag_id=train&run_id=manual__1", "/proof?index=3", "/style.css",
)  # fmt: skip
UNKNOWN = ("/nowhere", "/docs", "/redoc", "/openapi.json", "/static/x", "/..%2f", "/trust/", "/evidence/x")
USERS = {
    "admin": ["*"],
    "viewer": ["train"],
    "reader": ["*", "-audit"],
    "stranger": ["-plugins", "*"],
    "nobody": [],
}


@pytest.fixture(scope="module")
def airflow_database(tmp_path_factory: pytest.TempPathFactory, _process_home: Path) -> Iterator[None]:
    with database(tmp_path_factory.mktemp("database") / "airflow.db"):
        store_dags(
            {"train": ["s3://models/churn"], "score": ["s3://models/out"], "prepare": [], "hidden": ["s3://models/x"]},
            triggered=["hidden"],
        )
        yield


@pytest.fixture
def log(tmp_path: Path) -> Log:
    made = Log(tmp_path)
    made.tell(*STORY)
    return made


@pytest.fixture
def pages(
    airflow_database: None, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Callable[..., Any]]:
    """Ask the pages as a user, ``None`` for nobody."""
    from airflow.api_fastapi.app import _AuthManagerState
    from starlette.testclient import TestClient

    from sealflow_airflow.ui.app import make_app

    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_LOG", log.store.uri)
    monkeypatch.setenv("AIRFLOW__SEALFLOW__AUDIT_LOG_KEY", str(log.key_file))
    monkeypatch.setenv("AIRFLOW__SEALFLOW__PAGES_STATE", str(tmp_path / "pages"))
    monkeypatch.setattr(_AuthManagerState, "instance", Users(USERS))
    # On a busy machine the first answer of each kind takes longer than a reader would wait.
    monkeypatch.setattr("sealflow_airflow.ui.aged.PATIENCE", 60.0)
    monkeypatch.setattr("sealflow_airflow.ui.follow.FIRST_WAIT", 60.0)

    def make(app: Any = None) -> Callable[..., Any]:
        client = TestClient(app or make_app(), base_url="http://airflow.example", follow_redirects=False)

        def ask(path: str, user: str | None = "admin", method: str = "GET", **headers: str) -> Any:
            if user is not None:
                headers["authorization"] = f"Bearer {user}"
            return client.request(method, path, headers=headers)

        return ask

    return make


@pytest.fixture
def ask(pages: Callable[..., Callable[..., Any]]) -> Callable[..., Any]:
    return pages()


# --- Who gets what ---


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "STRANGE"])
@pytest.mark.parametrize("path", [*ROUTES, *UNKNOWN])
def test_whoever_is_not_signed_in_gets_401_whatever_he_asks_for(ask, path, method):
    answer = ask(path, None, method)
    assert answer.status_code == 401
    assert "manual__" not in answer.text


@pytest.mark.parametrize("path", [*ROUTES, *UNKNOWN])
def test_a_token_that_is_none_signs_nobody_in(ask, path):
    assert ask(path, "mallory").status_code == 401


def test_the_cookie_of_a_browser_signs_in_and_a_wrong_one_does_not(ask):
    assert ask("/trust", None, cookie="_token=admin").status_code == 200
    assert ask("/trust", None, cookie="_token=mallory").status_code == 401
    # What is said expressly counts, not what the browser adds.
    assert ask("/trust", "mallory", cookie="_token=admin").status_code == 401


def test_websockets_are_closed(pages):
    from starlette.testclient import TestClient
    from starlette.websockets import WebSocketDisconnect

    from sealflow_airflow.ui.app import make_app

    pages()
    with pytest.raises(WebSocketDisconnect), TestClient(make_app()).websocket_connect("/trust"):
        pass


@pytest.mark.parametrize("path", [*ROUTES, *UNKNOWN])
def test_who_may_not_see_plugins_gets_403(ask, path):
    assert ask(path, "stranger").status_code == 403


@pytest.mark.parametrize("path", UNKNOWN)
def test_there_is_nothing_else(ask, path):
    assert ask(path).status_code == 404


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "STRANGE"])
def test_nothing_can_be_changed(ask, path, method):
    assert ask(path, "admin", method).status_code == 405


@pytest.mark.parametrize("path", [*ROUTES, *UNKNOWN])
@pytest.mark.parametrize("user", ["admin", "stranger", None])
def test_every_answer_forbids_scripts_and_other_peoples_frames(ask, path, user):
    policy = ask(path, user).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'self'" in policy
    assert ask(path, user).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/trust", "/verdicts", "/dags", "/evidence?dag_id=train&run_id=manual__1"])
def test_no_page_is_kept_by_anybody(ask, path):
    assert ask(path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("user", "seen"),
    [
        ("admin", {"train", "score", "prepare", "hidden", "pipeline"}),
        ("viewer", {"train"}),
        ("reader", {"train", "score", "prepare", "hidden"}),
        ("nobody", set()),
    ],
)
@pytest.mark.parametrize("path", ["/trust", "/verdicts", "/dags", "/verdicts?artifact=s3", "/verdicts?dag=score"])
def test_a_user_sees_permitted_dags_only(ask, user, seen, path):
    text = ask(path, user).text
    named = {
        dag
        for dag in ("train", "score", "prepare", "hidden", "pipeline")
        if re.search(rf"<td>\W*(<[^>]*>)?{dag}\b", text)
    }
    assert named <= seen
    if path == "/verdicts":
        assert named == seen - {"hidden"}
    if path == "/dags":
        assert named == seen - {"pipeline"}


@pytest.mark.parametrize(
    ("user", "dag", "status"),
    [
        ("admin", "train", 200),
        ("viewer", "train", 200),
        ("viewer", "score", 404),
        ("viewer", "hidden", 404),
        ("viewer", "nowhere", 404),
        ("nobody", "train", 404),
        ("admin", "nowhere", 404),
        ("admin", "", 404),
        ("admin", "~", 404),
        ("admin", "%00", 404),
    ],
)
def test_the_evidence_of_a_dag_that_one_may_not_see_is_not_found(ask, user, dag, status):
    answer = ask(f"/evidence?dag_id={dag}&run_id=manual__1", user)
    assert answer.status_code == status
    if status == 404:
        assert answer.text == ask("/evidence?dag_id=other&run_id=x", user).text


@pytest.mark.parametrize(
    "given", ["", "?dag_id=train", "?run_id=manual__1", "?dag_id=train&dag_id=score&run_id=manual__1"]
)
def test_of_two_names_for_one_thing_the_page_shows_the_one_that_was_asked_for(ask, given):
    answer = ask(f"/evidence{given}", "viewer")
    assert answer.status_code == (200 if given == "?dag_id=train" else 404)


@pytest.mark.parametrize(
    ("user", "index", "status"),
    [
        ("admin", "3", 200),
        ("admin", "15", 200),
        ("viewer", "3", 200),
        ("viewer", "7", 404),
        ("viewer", "15", 404),
        ("viewer", "0", 404),
        ("admin", "99", 404),
        ("admin", "-1", 404),
        ("admin", "1e3", 404),
        ("admin", "٣", 404),
        ("admin", "9" * 40, 404),
        ("admin", "", 404),
        ("reader", "3", 403),
        ("reader", "15", 404),
        ("nobody", "3", 404),
    ],
)
def test_who_may_have_a_proof(ask, user, index, status):
    ask("/trust", "admin")
    assert ask(f"/proof?index={index}", user).status_code == status


def test_a_proof_holds_for_somebody_who_has_nothing_but_the_logs_key(ask, log, tmp_path):
    ask("/trust")
    answer = ask("/proof?index=3", "viewer")
    path = tmp_path / "3.tlog-proof"
    path.write_bytes(answer.content)
    verdict, event = check_proof(str(path), str(log.key_file))
    assert verdict.passed
    assert event["artifact"] == "s3://lake/data"
    assert answer.headers["content-disposition"] == 'attachment; filename="3.tlog-proof"'


def test_a_log_that_was_altered_gives_no_proof(ask, log):
    ask("/trust")
    for path in log.path("tile/entries").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(path.read_bytes().replace(b"s3://lake", b"s3://lies"))
    answer = ask("/proof?index=3")
    assert answer.status_code == 503
    assert "Entry 3 is not the one" in answer.text


# --- What the pages say ---


def text_of(page: str) -> str:
    """The text that a reader sees."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_a_refusal_says_who_what_why_and_the_next_step(ask):
    text = text_of(ask("/evidence?dag_id=score&run_id=manual__2&task_id=load&map_index={MAP_INDEX}").text)
    assert "load may not use s3://models/churn." in text
    assert "Next step: Ask the producer to sign the artifact again" in text
    assert "FILE_CHANGED , SIGNATURE_INVALID" in text
    assert "by rule models" in text


def test_what_nobody_can_say_is_never_shown_as_passed(ask):
    text = text_of(ask("/evidence?dag_id=score&run_id=manual__3").text)
    assert "Nobody could say whether load may use" in text
    assert "recorded holds" not in text


def test_an_error_of_a_code_that_nobody_lists_points_to_the_tasks_log(ask):
    text = text_of(ask("/evidence?dag_id=train&run_id=manual__4").text)
    assert "fit could not sign" in text
    assert "Look at the end of the task's log" in text


def test_a_run_shows_what_came_in_from_whom_and_what_went_out(ask):
    page = ask("/evidence?dag_id=train&run_id=manual__1").text
    text = text_of(page)
    assert "All that this run recorded holds: 1 artifact came in verified, 1 went out signed." in text
    assert "s3://lake/data" in text
    assert "airflow:prepare/clean" in text
    assert page.count("<svg") == 1
    assert '<title id="lineage-title">' in page
    assert 'href="proof?index=3"' in page


def test_what_an_earlier_try_was_refused_is_told_apart_from_what_holds_now(ask, log):
    first = told("verify", "failed", run="tried", artifact="s3://a", codes=("FILE_CHANGED",))
    again = replace(first, run=replace(first.run, attempt=2), id="e" * 32)
    log.tell(first)
    text = text_of(ask("/evidence?dag_id=train&run_id=tried").text)
    assert "fit may not use s3://a." in text
    assert "Earlier tries" not in text
    log.tell(replace(again, outcome="passed", codes=()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sealflow_airflow.ui.follow.EVERY", 0.0)
        patch.setattr("sealflow_airflow.ui.follow.WAIT", 60.0)
        text = text_of(ask("/evidence?dag_id=train&run_id=tried").text)
    assert "All that the last try recorded holds: 1 artifact came in verified" in text
    assert "Earlier tries were refused" in text


def test_what_the_policy_says_of_others_is_for_those_who_see_everything(pages, tmp_path, monkeypatch):
    from airflow.api_fastapi.app import _AuthManagerState

    from tests.airflow.ui_browser import deployment

    pages()
    (tmp_path / "world").mkdir()
    with deployment(tmp_path / "world"):
        monkeypatch.setattr(_AuthManagerState, "instance", Users({"admin": ["*"], "one": ["churn_train"]}))
        ask = pages()
        seen, less = (text_of(ask("/trust", user).text) for user in ("admin", "one"))
    told_to_all = ("In force: version 12.", "The policy expires within 30 days.", "The identity expires within 7 days.")
    told_to_some = ("DATA-41", "INC-7", "old-trainer", "policy.json", "Named by", "Teams", "auditor")
    assert [text for text in told_to_all if text not in less] == []
    assert [text for text in (*told_to_all, *told_to_some) if text not in seen] == []
    assert [text for text in told_to_some if text in less] == []


def test_a_warning_names_what_ends(pages, tmp_path, monkeypatch):
    from tests.airflow.ui_browser import deployment

    pages()
    (tmp_path / "world").mkdir()
    with deployment(tmp_path / "world"):
        text = text_of(pages()("/trust").text)
    assert re.search(r"The identity expires within 7 days\. lake, 20", text)
    assert re.search(r"old-trainer signs artifacts sha256:\w+… the beginning ✗ ended", text)
    assert "Signed before there were keys; DATA-41." in text
    assert "Laptop stolen. INC-7" in text


def test_a_run_of_which_nothing_is_recorded_says_why_that_may_be(ask):
    text = text_of(ask("/evidence?dag_id=train&run_id=none").text)
    assert "Nothing is recorded of this run." in text
    assert "Next step:" in text


def test_of_what_others_made_the_picture_shows_only_the_digest(ask):
    page = ask("/evidence?dag_id=train&run_id=manual__1", "viewer").text
    picture = page[page.index("<svg") : page.index("</svg>")]
    assert "not yours to see" not in picture
    assert "s3://lake/data" in picture  # the run itself was given it
    assert "manual__1" in picture


def test_one_task_instance_shows_its_own_alone(ask, log):
    log.tell(*(told(run="mapped", map_index=number, artifact=f"s3://part/{number}") for number in range(3)))
    page = ask("/evidence?dag_id=train&run_id=mapped&task_id=fit&map_index=1").text
    assert "s3://part/1" in page
    assert "s3://part/2" not in page
    assert "fit[1]" in page
    assert "s3://part/2" in ask("/evidence?dag_id=train&run_id=mapped&task_id=fit&map_index=-1").text


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Admin:
    from sealflow.policy.source import forget

    made = Admin(tmp_path / "admin")
    rules = [
        rule("models", "s3://models/churn"),
        rule("out", "s3://models/out", level="audit"),
        rule("x", "s3://models/x"),
    ]
    made.publish(rules, {})
    forget()
    channel = made.channel(managed=["s3://models/**"])
    monkeypatch.setattr("sealflow_airflow.policy.channel", lambda: channel)
    return made


def test_the_page_says_which_policy_is_in_force_and_which_dags_it_guards(ask, admin):
    text = text_of(ask("/trust").text)
    assert "In force: version" in text
    rows = text_of(ask("/dags").text)
    assert re.search(r"hidden ✗ not guarded No guard can stand before make_0", rows)
    assert re.search(r"score \? audited only Rules name s3://models/out, and only audit", rows)
    assert re.search(r"train ✓ guarded Rules name s3://models/churn\.", rows)
    assert re.search(r"prepare · nothing managed", rows)


def test_a_policy_that_is_not_to_be_had_is_said_first(ask, admin, tmp_path):
    from sealflow.policy.source import forget

    for path in (tmp_path / "admin").rglob("*.json"):
        path.unlink()
    forget()
    text = text_of(ask("/trust").text)
    assert "A policy is configured, and it is not to be had (POLICY_UNAVAILABLE)." in text
    assert "In force" not in text


def test_without_a_policy_no_dag_is_called_guarded(ask):
    text = text_of(ask("/dags").text)
    assert "No policy is configured" in text
    assert "✓ guarded" not in text


def test_what_is_wrong_with_the_log_is_said_on_every_page(ask, log):
    ask("/trust")
    log.path().write_bytes(log.path().read_bytes().replace(b"log.example", b"log.evil---"))
    from sealflow_airflow.ui import follow

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follow, "EVERY", 0.0)
        patch.setattr(follow, "WAIT", 5.0)
        for path in ("/trust", "/verdicts", "/dags", "/evidence?dag_id=train&run_id=manual__1"):
            text = text_of(ask(path).text)
            assert "The audit log cannot be read on: LOG_CHECKPOINT" in text
            assert "What is shown is older." in text


def test_without_a_log_the_page_says_what_to_set(pages, monkeypatch):
    monkeypatch.delenv("AIRFLOW__SEALFLOW__AUDIT_LOG")
    assert "No audit log is configured" in text_of(pages()("/trust").text)


def test_an_index_that_cannot_be_written_leaves_the_rest_of_the_page(pages, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIRFLOW__SEALFLOW__PAGES_STATE", str(tmp_path / "file" / "pages"))
    for path in ("/trust", "/verdicts", "/dags", "/evidence?dag_id=train&run_id=manual__1"):
        answer = pages()(path)
        assert answer.status_code == 200
        assert "The index of verdicts cannot be used." in text_of(answer.text)


# --- Behind a proxy ---


@pytest.mark.parametrize(
    "path", ["/trust", "/verdicts?artifact=s3", "/dags", "/evidence?dag_id=train&run_id=manual__1"]
)
def test_every_link_is_relative_so_that_any_prefix_holds(ask, path):
    page = ask(path).text
    links = re.findall(r'(?:href|src|action)="([^"]*)"', page)
    assert len(links) > 3
    assert not [link for link in links if link.startswith("/") or "//" in link.partition("?")[0]]


def test_the_first_page_is_found_under_a_prefix(ask):
    assert ask("/").headers["location"] == "trust"


# --- Hostile text ---

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '"\' onmouseover=alert(1) x="',
    "svg": "</text></svg><img src=x onerror=alert(1)>",
    "template": "{{ 7777 * 7 }}{% raw %}",
    "comment": "--><b>bold</b><!--",
    "direction": "safe\u202egpj.exe",
    "control": "line\nbreak\x1b[31m\x07",
    "link": "javascript:alert(1)",
    "entity": "&lt;script&gt;",
    "style": "</style><style>*{display:none}",
}


class Reader(html.parser.HTMLParser):
    """Notes what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in ("href", "action", "src")]


def shape(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


@pytest.mark.parametrize("bad", HOSTILE.values(), ids=HOSTILE)
def test_what_others_wrote_is_text_and_nothing_else(pages, log, bad):
    digest = f"sha256:{9:064x}"
    log.tell(
        told(
            "verify", "failed", task=bad, run="manual__1", artifact=f"s3://x/{bad}", digest=digest,
            codes=(bad, "FILE_CHANGED"), rule=bad, producer=bad, signers=(bad,), key=bad,
        ),
        told("sign", "done", task=bad, run=bad, artifact=f"s3://y/{bad}", digest=digest, key=bad, producer=bad),
        told("sign", "done", dag=bad, task=bad, run=bad, digest=digest, key=bad, orchestrator="kfp"),
    )  # fmt: skip
    ask = pages()
    calm = shape("".join(ask(path).text for path in ("/trust", "/evidence?dag_id=score&run_id=manual__2")))
    from urllib.parse import quote

    for path in (
        "/trust",
        "/verdicts",
        f"/verdicts?dag={quote(bad)}&task={quote(bad)}&run={quote(bad)}&artifact={quote(bad)}&code={quote(bad)}"
        f"&since={quote(bad)}&status={quote(bad)}&before={quote(bad)}",
        f"/dags?dag={quote(bad)}&state={quote(bad)}&page={quote(bad)}",
        "/evidence?dag_id=train&run_id=manual__1",
        f"/evidence?dag_id=train&run_id={quote(bad)}",
        f"/evidence?dag_id=train&run_id=manual__1&task_id={quote(bad)}&map_index={quote(bad)}",
        f"/{quote(bad, safe='')}",
    ):
        page = ask(path).text
        made = shape(page)
        assert not made.tags & {"script", "img", "iframe", "object", "b", "style"}
        assert not {name for name in made.attributes if name.startswith("on")}
        assert made.tags <= calm.tags | {"form", "select", "option", "input", "label", "button", "strong", "path"}
        assert not [link for link in made.links if link.lower().startswith(("javascript:", "data:", "//"))]
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
        # Whole: digests may hold these figures.
        assert not re.search(r"(?<![0-9a-f])54439(?![0-9a-f])", text_of(page))


def test_the_hostile_texts_are_shown_so_that_somebody_can_see_what_happened(pages, log):
    log.tell(told("verify", "failed", task=HOSTILE["script"], codes=("FILE_CHANGED",)))
    assert "<script>alert(1)</script>" in html.unescape(pages()("/verdicts?status=failed").text)


# --- For everybody ---


@pytest.mark.parametrize(
    "path", ["/trust", "/verdicts", "/dags", "/evidence?dag_id=train&run_id=manual__1", "/nowhere"]
)
def test_landmarks_headings_and_names(ask, path):
    page = ask(path).text
    assert page.startswith("<!DOCTYPE html>")
    assert '<html lang="en">' in page
    assert page.count("<main") == page.count("<h1") == page.count("<header>") == page.count("<footer>") == 1
    assert 'href="#main"' in page
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    tables = re.findall(r"<table>.*?</table>", page, re.S)
    assert all("<caption" in table and 'scope="col"' in table for table in tables)
    # What scrolls can be reached by the keyboard and has a name.
    assert len(re.findall(r'class="scroll[^"]*" role="region" aria-label="[^"]+" tabindex="0"', page)) == page.count(
        'class="scroll'
    )
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'aria-labelledby="([^" ]*)"', page)) <= set(ids)
    controls = re.findall(r"<(?:input|select)\b[^>]*>", page)
    assert len(controls) == len(re.findall(r"<label>[^<]*<(?:input|select)\b", page))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_as_wcag_2_asks(dark):
    from sealflow_airflow.ui.pages import style

    roots = re.findall(r":root \{(.*?)\}", style(), re.S)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", roots[1 if dark else 0]))
    pairs = [(text, back) for text in ("text", "dim", "link") for back in ("back", "soft")]
    pairs += [(name, back) for name in ("good", "bad", "warn") for back in (f"{name}-back", "back", "soft")]
    pairs += [(text, f"{name}-back") for text in ("text", "dim", "link") for name in ("good", "bad", "warn")]
    pairs += [("back", "link"), ("text", "plain")]
    for text, back in pairs:
        bright, dim = sorted((luminance(colours[text]), luminance(colours[back])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, back)


def test_the_style_sheet_fetches_nothing(ask):
    answer = ask("/style.css")
    assert answer.headers["content-type"].startswith("text/css")
    assert "url(" not in answer.text
    assert "@import" not in answer.text


# --- The plugin's part ---


def test_what_the_plugin_shows_is_relative_and_known_to_airflow():
    from typing import get_args

    from airflow.api_fastapi.core_api.datamodels.plugins import BaseDestinationLiteral

    from sealflow_airflow.ui import EXTERNAL_VIEWS, FASTAPI_APPS

    assert [item["destination"] for item in EXTERNAL_VIEWS] == ["nav", "dag_run", "task_instance"]
    for item in EXTERNAL_VIEWS:
        assert item["destination"] in get_args(BaseDestinationLiteral)
        assert item["href"].startswith(FASTAPI_APPS[0]["url_prefix"].removeprefix("/") + "/")
    assert len({item["url_route"] for item in EXTERNAL_VIEWS}) == 3


def test_the_plugins_entry_builds_the_pages_when_they_are_asked_for(pages):
    from sealflow_airflow.ui import Pages

    ask = pages(Pages())
    assert ask("/trust", None).status_code == 401
    assert ask("/trust").status_code == 200


@pytest.mark.parametrize(
    ("said", "shown"),
    [("", True), ("True", True), ("on", True), ("False", False), ("0", False), ("maybe", False), ("%(x)s", False)],
)
def test_no_option_keeps_the_plugin_from_being_imported(monkeypatch, said, shown):
    import sealflow_airflow.ui

    monkeypatch.setenv("AIRFLOW__SEALFLOW__PAGES", said)
    try:
        importlib.reload(sealflow_airflow.ui)
        assert bool(sealflow_airflow.ui.FASTAPI_APPS) == bool(sealflow_airflow.ui.EXTERNAL_VIEWS) == shown
    finally:
        monkeypatch.delenv("AIRFLOW__SEALFLOW__PAGES")
        importlib.reload(sealflow_airflow.ui)


class Obliging(Users):
    """As Airflow's simple auth manager: what is asked of no DAG it answers by the role alone."""

    def is_authorized_dag(self, **asked: Any) -> bool:
        return asked.get("details") is None or super().is_authorized_dag(**asked)


@pytest.mark.parametrize("user", ["viewer", "nobody"])
def test_what_belongs_to_no_dag_is_seen_only_by_who_sees_all_of_them(ask, monkeypatch, user):
    from airflow.api_fastapi.app import _AuthManagerState

    monkeypatch.setattr(_AuthManagerState, "instance", Obliging(USERS))
    page = ask("/verdicts", user).text
    assert "pipeline" not in text_of(page).replace("DAG or pipeline", "")
    assert "score" not in page
    assert ask("/proof?index=15", user).status_code == 404
    assert "pipeline" in text_of(ask("/verdicts", "admin").text).replace("DAG or pipeline", "")


def test_where_dags_belong_to_teams_nobody_sees_what_belongs_to_no_dag(ask, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    assert "pipeline" not in text_of(ask("/verdicts", "admin").text).replace("DAG or pipeline", "")
    assert ask("/proof?index=15", "admin").status_code == 404


def test_airflows_own_way_to_know_a_user_is_what_we_call(ask):
    """A new Airflow whose function takes something else has to show here."""
    import inspect

    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user

    assert list(inspect.signature(get_user).parameters) == ["request", "_oauth_token", "bearer_credentials"]
    assert callable(bearer_scheme)
    assert ask("/trust", None, authorization="Basic " + base64.b64encode(b"admin:admin").decode()).status_code == 401
