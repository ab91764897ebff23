"""The pictures in the documents: small, embedded, and of what reports say today. Airflow's pages: test_ui_browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.documents import PAGES as DOCUMENTS
from tests.screenshots import FOLDER, MOST, PAGES, REPORTS, WORDS, Shot, reports, words

SHOTS = [*PAGES, *REPORTS]


def test_there_are_no_others() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {shot.name for shot in SHOTS} | {WORDS.name}


@pytest.mark.parametrize("shot", SHOTS, ids=lambda shot: shot.name)
def test_a_picture_is_small_and_a_page_shows_it(shot: Shot) -> None:
    data = (FOLDER / shot.name).read_bytes()
    assert len(data) <= MOST
    assert data.startswith(b"\x89PNG\r\n")
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (shot.wide, shot.high)
    assert any(f"images/screens/{shot.name})" in page.read_text(encoding="utf-8") for page in DOCUMENTS)


def test_both_themes_are_shown() -> None:
    for shots in (PAGES, REPORTS):
        assert {shot.dark for shot in shots} == {True, False}


def test_reports_say_what_they_said(tmp_path: Path) -> None:
    said = json.loads(WORDS.read_text(encoding="utf-8"))
    made = {name: words(page) for name, page in reports(tmp_path / "reports").items()}
    assert {name: said[name] for name in made} == made, "the pictures are behind: run make screenshots"


def test_words_leave_out_what_differs_from_run_to_run() -> None:
    page = "<style>p { color: red }</style><p>The key sha256:0abcdef of /tmp/folder was used at 2026-11-23T10:00:00Z."
    assert words(page) == ["The", "key", "used", "was"]
