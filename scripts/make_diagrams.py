"""Draw docs/diagrams/*.dot as docs/images/diagrams/*.svg: ``python scripts/make_diagrams.py``."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def draw(source: Path) -> str:
    """Return a diagram as SVG, without what names the program that drew it."""
    import pygraphviz

    svg = pygraphviz.AGraph(string=source.read_text(encoding="utf-8")).draw(format="svg", prog="dot").decode()
    return re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)


def words(svg: str) -> list[str]:
    """Return what a diagram says, which no machine's fonts change."""
    return re.findall(r"<(?:title|text)[^>]*>([^<]*)<", svg)


def main() -> None:
    """Draw all of them anew."""
    target = DOCS / "images" / "diagrams"
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted((DOCS / "diagrams").glob("*.dot")):
        (target / f"{source.stem}.svg").write_text(draw(source), encoding="utf-8")


if __name__ == "__main__":
    main()
