"""Pictures of the pages in Airflow's UI and of the reports, for the documents: ``make screenshots``.

Taken by a real browser of what the tests look at as well. With them goes what the pages said then
(``docs/images/screens/words.json``), so that a test can tell when a picture is behind.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.documents import ROOT

FOLDER = ROOT / "docs" / "images" / "screens"
WORDS = FOLDER / "words.json"
#: Bytes that a picture may have; a page is to be read over a slow line, too.
MOST = 150 << 10


@dataclass(frozen=True)
class Shot:
    """A picture: of what, how high, and whether in the dark theme."""

    of: str
    high: int
    dark: bool = False
    wide: int = 1280

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.of}-{'dark' if self.dark else 'light'}{'-narrow' if self.wide < 600 else ''}.png"


#: Of Airflow's pages (``tests.airflow.ui_browser.PAGES``), and of reports.
PAGES = (
    Shot("trust", 1180),
    Shot("trust", 1180, dark=True, wide=420),
    Shot("verdicts", 1020, dark=True),
    Shot("refused", 1050),
    Shot("evidence", 1050, dark=True),
)
REPORTS = (Shot("review", 1320), Shot("review", 1320, dark=True), Shot("trace", 640))


def words(page: str) -> list[str]:
    """Return which words stand on a page; not numbers, times, digests and keys, which each run has others of."""
    text = html.unescape(re.sub(r"<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))
    # "3 s ago", or "1 min ago" on a machine that is busy.
    return sorted(set(re.findall(r"(?<![\w/+.=:-])[A-Za-z]{3,}(?![\w/+=-])", text)) - {"ago", "min"})


@contextlib.contextmanager
def airflow_pages() -> Iterator[str]:
    """Serve Airflow's pages over a deployment of tests; yields their address. Airflow must not be imported yet."""
    with tempfile.TemporaryDirectory() as home:
        # Airflow reads these when it is imported.
        os.environ.update(AIRFLOW_HOME=f"{home}/home", AIRFLOW__CORE__LOAD_EXAMPLES="False")
        from sealflow_airflow.ui.app import make_app
        from tests.airflow.ui_browser import deployment, served

        world = Path(home) / "world"
        world.mkdir()
        with deployment(world), served(_as_installed(make_app(), str(world / "admin")), "admin") as address:
            yield address


def _as_installed(app: Any, folder: str) -> Any:
    """Say ``/etc/sealflow`` where the pages name a temporary folder, which nobody else has."""

    async def shown(scope: Any, receive: Any, send: Any) -> None:
        held: list[Any] = []

        async def later(message: Any) -> None:
            held.append(message)
            if message["type"] != "http.response.body" or message.get("more_body"):
                return
            body = b"".join(item.get("body", b"") for item in held[1:])
            body = body.replace(folder.encode(), b"/etc/sealflow")
            kept = [(name, value) for name, value in held[0]["headers"] if name.lower() != b"content-length"]
            await send({**held[0], "headers": [*kept, (b"content-length", b"%d" % len(body))]})
            await send({"type": "http.response.body", "body": body})

        await app(scope, receive, later)

    return shown


def reports(folder: Path) -> dict[str, str]:
    """Make the reports, as HTML pages: a review of a night's accesses, and the lineage of a model."""
    from sealflow.actions import audit_report, picture
    from sealflow.actions.audit_review import review_accesses
    from sealflow.actions.trace import trace
    from tests.airflow.ui_browser import night
    from tests.airflow.ui_world import Log
    from tests.lineages import Lineage, digest

    (folder / "log").mkdir(parents=True)
    log = Log(folder / "log")
    for event in night({name: f"sha256:{number:064x}" for number, name in enumerate(("trainer", "lake"))}):
        # Each run writes with a key of its own.
        log.tell(event)
    reviewed = review_accesses(log.store.uri, key=str(log.key), since="2d")
    lineage = Lineage(folder / "world")
    traced = trace(
        digest("model"),
        identities={"trainer": str(lineage.key("trainer").public)},
        roots={"owner": str(lineage.key("owner").public)},
        evidence_stores=[str(lineage.store)],
    )
    made = {"review": audit_report.as_html(reviewed.report), "trace": picture.as_html(traced.graph, traced.verdict)}
    return {name: page.replace(folder.as_uri(), "s3://audit") for name, page in made.items()}


def take(address: str, shot: Shot) -> None:
    """Write one picture, in 256 colours: such pages have hardly more."""
    import numpy as np
    from PIL import Image

    from tests.airflow.ui_browser import Look, browse

    path = FOLDER / shot.name
    browse(address, Look(shot.wide, shot.high, shot.dark), path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    colours, which, count = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    # Areas keep their very colours; it is the edges of letters that share what is left. Pillow's own way blurs both.
    common = colours[np.argsort(-count)[:256]].astype(int)
    nearest = np.array([np.abs(common - colour).sum(axis=1).argmin() for colour in colours.astype(int)], np.uint8)
    few = Image.fromarray(nearest[which.reshape(-1)].reshape(pixels.shape[:2]), "P")
    few.putpalette(common.astype(np.uint8).tobytes())
    few.save(path, optimize=True)
    if path.stat().st_size > MOST:
        raise SystemExit(f"{path.name} has {path.stat().st_size} bytes, more than {MOST}")


def read(address: str) -> str:
    """Return a page as the server sends it."""
    import urllib.request

    with urllib.request.urlopen(address, timeout=60) as answer:
        return str(answer.read().decode("utf-8"))


def main(shots: Iterable[Shot] = (*PAGES, *REPORTS)) -> None:
    """Take all pictures anew."""
    from tests.airflow.ui_browser import PAGES as PATHS

    FOLDER.mkdir(parents=True, exist_ok=True)
    said = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        # The reports first: afterwards a policy is in force.
        made = reports(Path(folder) / "reports")
        address = stack.enter_context(airflow_pages())
        for shot in shots:
            place = f"{address}/{PATHS[shot.of]}" if shot.of in PATHS else f"file://{folder}/{shot.of}.html"
            if shot.of in made:
                Path(folder, f"{shot.of}.html").write_text(made[shot.of], encoding="utf-8")
            take(place, shot)
            said[shot.of] = words(made.get(shot.of) or read(place))
    WORDS.write_text(json.dumps(said, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
