"""The pages in a real browser: they are laid out, follow the theme, run nothing and can be used by keyboard."""

from __future__ import annotations

import html
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import screenshots
from tests.airflow.ui_browser import BEHIND, PACKAGE, PAGES, Look, browse, deployment, served

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def address(
    need_program: Callable[[str, str, str], None], tmp_path_factory: pytest.TempPathFactory, _process_home: Path
) -> Iterator[str]:
    need_program("chromium", PACKAGE, "the pages in Airflow's UI were not opened in a browser")
    from sealflow_airflow.ui.app import make_app

    with deployment(tmp_path_factory.mktemp("deployment")), served(make_app(), "admin") as found:
        yield found


def pixels(path: Path) -> tuple[int, int, list[bytes]]:
    """Width, height and rows of an 8-bit RGB or RGBA picture in PNG (its rows unfiltered, 3 bytes a pixel)."""
    data, at, packed, head = path.read_bytes(), 8, b"", b""
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        head = body if kind == b"IHDR" else head
        packed += body if kind == b"IDAT" else b""
        at += size + 12
    width, height = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big")
    step = {2: 3, 6: 4}[head[9]]
    raw, before, rows = zlib.decompress(packed), bytearray(width * step), []
    for number in range(height):
        start = number * (width * step + 1)
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + width * step])
        for x in range(len(row)):
            left = row[x - step] if x >= step else 0
            up, corner = before[x], before[x - step] if x >= step else 0
            if kind == 1:
                row[x] = (row[x] + left) & 255
            elif kind == 2:
                row[x] = (row[x] + up) & 255
            elif kind == 3:
                row[x] = (row[x] + (left + up) // 2) & 255
            elif kind == 4:
                about = left + up - corner
                near = min((left, up, corner), key=lambda value: abs(about - value))
                row[x] = (row[x] + near) & 255
        before = row
        rows.append(b"".join(bytes(row[x : x + 3]) for x in range(0, len(row), step)))
    return width, height, rows


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", ["trust", "refused"])
def test_a_page_has_the_colours_of_the_theme_and_says_nothing_to_the_console(address, page, dark, tmp_path):
    picture = tmp_path / "page.png"
    _, console = browse(f"{address}/{PAGES[page]}", Look(800, 700, dark), picture)
    # Whatever the content security policy forbids, and whatever cannot be fetched, the browser says there.
    assert console == ""
    width, height, rows = pixels(picture)
    assert (width, height) == (800, 700)
    ground = b"\x11\x11\x11" if dark else b"\xff\xff\xff"
    corner = rows[height // 2][:3]
    assert corner == ground
    # The style sheet was taken: without it there would be no colour but that of links.
    seen = {rows[y][x : x + 3] for y in range(0, height, 3) for x in range(0, 3 * width, 9)}
    wanted = {"trust": ("#14271d", "#e7f4ec"), "refused": ("#311614", "#fdecea")}[page][not dark]
    assert bytes.fromhex(wanted[1:]) in seen


@pytest.mark.parametrize("page", PAGES)
def test_in_airflows_frame_a_page_fits_a_telephone_and_all_of_it_is_reached_by_keyboard(address, page):
    document, console = browse(f"{address.removesuffix('/sealflow')}/frame?{PAGES[page]}", Look())
    assert console == ""
    found = json.loads(html.unescape(re.search(r'<pre id="found">(.*?)</pre>', document, re.S)[1]))
    # What is wider scrolls inside of its own region.
    assert found["width"] <= 400
    assert found["reached"] > 5
    assert found["unseen"] == []
    assert found["scripts"] == 0
    # The frame's page was set to dark by Airflow, whatever the browser prefers.
    assert found["dark"] is True


def test_the_browser_finds_the_pages_behind_a_proxys_prefix(address):
    assert BEHIND in address
    document, console = browse(f"{address}/", Look())
    assert console == ""
    assert "<title>Trust" in document
    links = set(re.findall(r'href="([a-z]+)(?:\?[^"]*)?"', document))
    for link in sorted(links - {"proof"}):
        found, console = browse(f"{address}/{link}", Look())
        assert console == ""
        assert "Not found" not in found or link == "evidence"


def test_the_pictures_in_the_documents_are_of_these_pages(address):
    said = json.loads(screenshots.WORDS.read_text(encoding="utf-8"))
    for name in {shot.of for shot in screenshots.PAGES}:
        found = screenshots.words(screenshots.read(f"{address}/{PAGES[name]}"))
        assert found == said[name], "the pictures are behind: run make screenshots"
