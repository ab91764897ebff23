"""A lineage graph as a picture: SVG, or an HTML page around it.

Everything in a graph is other people's text, so everything is made printable and escaped. A picture needs nothing from
elsewhere: no script, no font, no style sheet, no link.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sealflow.findings import Verdict, printable
from sealflow.hashing import Digest
from sealflow.verification.graph import Graph, Node, State

#: Most artifacts in a picture; the others are counted.
MAX_DRAWN: Final = 300
_MAX_FINDINGS: Final = 100

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN, _HEAD = 250, 66, 70, 18, 24, 70

# Not allowed in XML, though printable.
_NO_XML: Final = re.compile("[\ufffe\uffff]")


class Look(NamedTuple):
    """How a state looks, with and without colour."""

    mark: str
    word: str
    fill: str
    line: str
    dashed: bool = False


LOOKS: Final[dict[State, Look]] = {
    "attested": Look("✓", "attested", "#e8f3ec", "#1b7f4b"),
    "dataset": Look("■", "dataset", "#e6eefb", "#1d5fbf"),
    "source": Look("·", "source", "#f2f2f2", "#6b6b6b"),
    "summarised": Look("≡", "summarised", "#efe9fb", "#6541b5"),
    "unattested": Look("✗", "unattested", "#fdeaea", "#b42318", True),
    "refused": Look("✗", "refused", "#fdeaea", "#b42318", True),
    "unverifiable": Look("?", "unverifiable", "#fdf3dc", "#96690a", True),
    "cycle": Look("↻", "cycle", "#fdeaea", "#b42318", True),
}


class _Box(NamedTuple):
    node: Node
    x: int
    y: int


def as_svg(graph: Graph, verdict: Verdict) -> str:
    """Return a graph as an SVG document. Data stands on the left, what was made from it on the right.

    Args:
        graph: The graph.
        verdict: The verdict over it; the heading.
    """
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _svg(graph, verdict)


def as_html(graph: Graph, verdict: Verdict) -> str:
    """Return a graph as an HTML page: the picture, the artifacts as a table, and the findings.

    Args:
        graph: The graph.
        verdict: The verdict over it.
    """
    rows = "\n".join(_row(graph.nodes[digest]) for digest in _drawn(graph))
    more = len(graph.nodes) - MAX_DRAWN
    findings = "\n".join(
        f"<li>{_text(item.severity)}: {_text(item.line(), 1000)}</li>" for item in verdict.findings[:_MAX_FINDINGS]
    )
    left = len(verdict.findings) - _MAX_FINDINGS
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(_title(verdict))}</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #1a1a1a; background: #fff; }}
figure {{ margin: 1rem 0; overflow-x: auto; border: 1px solid #ccc; }}
table {{ border-collapse: collapse; }}
th, td {{ border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; min-width: 6rem; unicode-bidi: isolate; }}
th {{ white-space: nowrap; }}
</style>
</head>
<body>
<h1>{_text(_title(verdict))}</h1>
<p>{_text(_counted(graph))} Checked at {_text(verdict.checked_at)}.</p>
<figure>
{_svg(graph, verdict)}
</figure>
<h2>Findings</h2>
<ul>
{findings or "<li>none</li>"}
{f"<li>{left} more</li>" if left > 0 else ""}
</ul>
<h2>Artifacts</h2>
<table>
<thead><tr><th>state</th><th>name</th><th>producer</th><th>run</th><th>signed by</th><th>when</th><th>digest</th>\
<th>locations</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
{f"<p>{more} more</p>" if more > 0 else ""}
</body>
</html>
"""


def short(digest: Digest) -> str:
    """Return the beginning of a digest, enough to tell artifacts apart in a picture."""
    return f"{digest.algorithm}:{digest.hex[:12]}…"


def signed_by(node: Node) -> str:
    """Return the names of those who signed what is accepted about an artifact."""
    return ", ".join(dict.fromkeys(printable(signer.identity) for signer in node.signers))


def _title(verdict: Verdict) -> str:
    return f"Lineage of {verdict.name or verdict.artifact}: {verdict.status}"


def _counted(graph: Graph) -> str:
    unsound = sum(not node.sound for node in graph.nodes.values())
    claimed = sum(map(len, graph.claimed.values()))
    return (
        f"{len(graph.nodes)} artifacts, {graph.edges} edges; {unsound} artifacts not proved"
        + (f", {claimed} edges only claimed" if claimed else "")
        + "."
    )


def _row(node: Node) -> str:
    look = LOOKS[node.state]
    codes = f" ({', '.join(node.codes)})" if node.codes else ""
    cells = (
        f"{look.mark} {look.word}{codes}",
        node.name,
        node.producer,
        node.run,
        signed_by(node),
        node.when,
        str(node.digest),
        " ".join(node.locations[:8]),
    )
    return "<tr>" + "".join(f"<td>{_text(cell, 2048)}</td>" for cell in cells) + "</tr>"


def _svg(graph: Graph, verdict: Verdict) -> str:
    boxes, width, height = _layout(graph)
    more = len(graph.nodes) - len(boxes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="lineage-title lineage-desc" font-family="system-ui, sans-serif">',
        f'<title id="lineage-title">{_text(_title(verdict))}</title>',
        f'<desc id="lineage-desc">{_text(_counted(graph))} Data stands on the left, what was made from it on the right.'
        "</desc>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_MARGIN}" y="32" font-size="16" font-weight="600">{_text(_cut(_title(verdict), 110))}</text>',
        f'<text x="{_MARGIN}" y="52" font-size="12">{_text(_counted(graph))}'
        + (f" {more} more artifacts are not drawn." if more else "")
        + "</text>",
    ]
    for edges, proved in ((graph.inputs, True), (graph.claimed, False)):
        for made, items in edges.items():
            if made in boxes:
                parts += [_edge(boxes[used], boxes[made], proved) for used in items if used in boxes]
    parts += [_box(box) for box in boxes.values()]
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _edge(used: _Box, made: _Box, proved: bool) -> str:
    x1, y1 = used.x + _WIDTH, used.y + _HEIGHT // 2
    x2, y2 = made.x, made.y + _HEIGHT // 2
    bend = max(30, abs(x2 - x1) // 2)
    way = f"C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"
    if x2 - x1 > _GAP_X:
        # Between the rows, so that it does not run behind other artifacts as if it went through them.
        half, between = _GAP_X // 2, y1 + (_HEIGHT + _GAP_Y) // 2 * (1 if y2 >= y1 else -1)
        way = (
            f"C{x1 + half} {y1} {x1 + half} {between} {x1 + _GAP_X} {between} H{x2 - _GAP_X} "
            f"C{x2 - half} {between} {x2 - half} {y2} {x2} {y2}"
        )
    style = 'stroke="#666"' if proved else 'stroke="#b42318" stroke-dasharray="5 4"'
    return (
        f'<path d="M{x1} {y1} {way}" fill="none" {style}/>'
        f'<path d="M{x2} {y2} l-8 -4 v8 z" fill="{"#666" if proved else "#b42318"}"/>'
    )


def _box(box: _Box) -> str:
    node, look = box.node, LOOKS[box.node.state]
    dashes = ' stroke-dasharray="6 4"' if look.dashed else ""
    signer = signed_by(node)
    last = f"{look.mark} {look.word}" + (f", {node.codes[0]}" if node.codes else f", by {signer}" if signer else "")
    hover = "\n".join(
        text
        for text in (
            node.name,
            str(node.digest),
            f"{look.word} {' '.join(node.codes)}",
            f"made by {node.run or node.producer}" if node.producer else "",
            f"signed by {signer} at {node.when}" if signer else "",
            *node.locations[:8],
        )
        if text
    )
    x, y = box.x + 12, box.y
    return (
        f"<g><title>{_text(hover, 4096, lines=True)}</title>"
        f'<rect x="{box.x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="{look.fill}" '
        f'stroke="{look.line}" stroke-width="1.5"{dashes}/>'
        f'<text x="{x}" y="{y + 21}" font-size="13" font-weight="600">'
        f"{_text(_cut(node.name or short(node.digest), 32))}</text>"
        f'<text x="{x}" y="{y + 38}" font-size="11">{_text(_cut(node.producer or short(node.digest), 38))}</text>'
        f'<text x="{x}" y="{y + 55}" font-size="11" fill="{look.line}">{_text(_cut(last, 38))}</text></g>'
    )


def _drawn(graph: Graph) -> list[Digest]:
    """Return what is drawn: what is not proved with the way to it, then the nearest."""
    if len(graph.nodes) <= MAX_DRAWN:
        return list(graph.nodes)
    behind: dict[Digest, Digest] = {}
    neighbours = _neighbours(graph)
    reached = list(graph.starts)
    seen = set(reached)
    for digest in reached:  # grows at its end meanwhile
        for other in neighbours.get(digest, ()):
            if other not in seen:
                seen.add(other)
                behind[other] = digest
                reached.append(other)
    chosen: dict[Digest, None] = dict.fromkeys(graph.starts[:MAX_DRAWN])
    for digest, node in graph.nodes.items():
        way = []
        step: Digest | None = digest if not node.sound else None
        while step is not None and step not in chosen:
            way.append(step)
            step = behind.get(step)
        if len(chosen) + len(way) <= MAX_DRAWN:
            chosen.update(dict.fromkeys(way))
    for digest in graph.nodes:
        if len(chosen) >= MAX_DRAWN:
            break
        chosen[digest] = None
    return [digest for digest in graph.nodes if digest in chosen]


def _neighbours(graph: Graph) -> Mapping[Digest, Iterable[Digest]]:
    """Return what stands next to each artifact, seen from the starts."""
    found: dict[Digest, dict[Digest, None]] = {}
    for edges in (graph.inputs, graph.claimed):
        for made, items in edges.items():
            for used in items:
                found.setdefault(made, {})[used] = None
                found.setdefault(used, {})[made] = None
    return found


def _layout(graph: Graph) -> tuple[dict[Digest, _Box], int, int]:
    drawn = _drawn(graph)
    columns = _columns(graph, set(drawn))
    layers: dict[int, list[Digest]] = {}
    for digest in drawn:
        layers.setdefault(columns[digest], []).append(digest)
    users: dict[Digest, list[Digest]] = {}
    for edges in (graph.inputs, graph.claimed):
        for made, items in edges.items():
            for used in items:
                users.setdefault(used, []).append(made)
    boxes: dict[Digest, _Box] = {}
    place: dict[Digest, float] = {}
    tallest = max(map(len, layers.values()), default=0)
    for column in sorted(layers, reverse=True):
        # Beside what was made from it, so that few lines cross.
        members = layers[column]
        for index, digest in enumerate(members):
            near = [place[made] for made in users.get(digest, ()) if made in place]
            place[digest] = sum(near) / len(near) if near else float(index)
        members.sort(key=lambda digest: (place[digest], digest.hex))
        # Whole rows in all columns: the gaps between them are the way of long edges.
        top = _HEAD + (tallest - len(members)) // 2 * (_HEIGHT + _GAP_Y)
        for index, digest in enumerate(members):
            place[digest] = index + (tallest - len(members)) / 2
            x, y = _MARGIN + column * (_WIDTH + _GAP_X), top + index * (_HEIGHT + _GAP_Y)
            boxes[digest] = _Box(graph.nodes[digest], x, y)
    width = 2 * _MARGIN + max(1, len(layers)) * (_WIDTH + _GAP_X) - _GAP_X
    height = _HEAD + max(1, tallest) * (_HEIGHT + _GAP_Y) + _MARGIN
    return boxes, max(width, 640), height


def _columns(graph: Graph, drawn: set[Digest]) -> dict[Digest, int]:
    """Return each artifact's column: one further to the right than everything that it was made from."""
    inputs = {
        made: [used for used in (*graph.inputs.get(made, ()), *graph.claimed.get(made, ())) if used in drawn]
        for made in drawn
    }
    waiting = {made: len(set(items)) for made, items in inputs.items()}
    users: dict[Digest, list[Digest]] = {}
    for made, items in inputs.items():
        for used in set(items):
            users.setdefault(used, []).append(made)
    column = dict.fromkeys(drawn, 0)
    ready = [made for made, count in waiting.items() if not count]
    done = 0
    while done < len(drawn):
        if not ready:
            # Only circles are left; one of them is opened where it is entered first.
            ready.append(min((made for made, count in waiting.items() if count > 0), key=lambda item: item.hex))
        used = ready.pop()
        if waiting[used] < 0:
            continue
        waiting[used] = -1
        done += 1
        for made in users.get(used, ()):
            if waiting[made] > 0:
                column[made] = max(column[made], column[used] + 1)
                waiting[made] -= 1
                if not waiting[made]:
                    ready.append(made)
    shown = sorted(set(column.values()))
    return {digest: shown.index(value) for digest, value in column.items()}


def _cut(text: str, limit: int) -> str:
    return printable(text, limit)


def _text(text: str, limit: int = 300, *, lines: bool = False) -> str:
    parts = text.split("\n") if lines else [text]
    safe = "\n".join(printable(part, limit) for part in parts)
    return html.escape(_NO_XML.sub("\ufffd", safe), quote=True)
