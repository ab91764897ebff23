"""`sealflow lineage trace` and `sealflow lineage descendants`: what was made from what, proved."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealflow.cli.options import AddedPolicy, Json, Signers, grouped, identity_rules
from sealflow.cli.terminal import as_command_line, print_json, print_verdict, progress_bar
from sealflow.errors import UsageError
from sealflow.findings import printable

if TYPE_CHECKING:
    from rich.text import Text

    from sealflow.actions.trace import Traced
    from sealflow.hashing import Digest
    from sealflow.verification.graph import Graph

#: Most lines of a tree, and how deep it goes; a picture or JSON shows more.
_MAX_LINES = 300
_MAX_DEPTH = 24

_COLOURS = {
    "attested": "green",
    "dataset": "blue",
    "source": "white",
    "summarised": "magenta",
    "unverifiable": "yellow",
}

_Stores = Annotated[
    list[str] | None, typer.Option("--evidence-store", metavar="LOCATION", help="Where evidence lies. Repeatable.")
]
_Picture = Annotated[str | None, typer.Option(metavar="FILE", help="Draw it too: FILE.svg or FILE.html.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")]


@grouped
def trace(
    artifact: Annotated[
        str, typer.Argument(help="Path, location (s3://…), artifact reference (JSON text) or artifact digest.")
    ],
    *,
    signers: Signers,
    root: Annotated[
        list[str] | None,
        typer.Option(help="Data owner, at whose datasets the way ends: public key or rule (JSON). Repeatable."),
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(metavar="DIGEST", help="Artifact digest at which the way ends. Repeatable.")
    ] = None,
    evidence_store: _Stores = None,
    added: AddedPolicy,
    picture: _Picture = None,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """Follow an artifact back to every dataset that it was made from; prints the tree and the verdict.

    Only signed provenance counts. Whatever is missing or cannot be verified on the way is shown, and fails.
    """
    from sealflow.actions.trace import trace as walk

    _check_picture(picture, overwrite)
    with as_command_line(), progress_bar("Reading", as_json) as progress:
        traced = walk(
            artifact,
            identities=signers.rules(),
            roots=identity_rules(root),
            datasets=dataset or (),
            evidence_stores=evidence_store or (),
            policy=added.read(),
            progress=progress,
        )
    _show(traced, picture, as_json, forward=False)


@grouped
def descendants(
    dataset: Annotated[
        str, typer.Argument(help="Path, location (s3://…), artifact reference (JSON text) or artifact digest.")
    ],
    *,
    signers: Signers,
    evidence_store: _Stores = None,
    added: AddedPolicy,
    picture: _Picture = None,
    overwrite: _Overwrite = False,
    as_json: Json = False,
) -> None:
    """Find everything that was made from a dataset, as far as the evidence stores know.

    What merely claims to be made from it is shown too, and makes the answer unverifiable.
    """
    from sealflow.actions.trace import descendants as find

    _check_picture(picture, overwrite)
    with as_command_line(), progress_bar("Reading", as_json) as progress:
        traced = find(
            dataset,
            identities=signers.rules(),
            evidence_stores=evidence_store or (),
            policy=added.read(),
            progress=progress,
        )
    _show(traced, picture, as_json, forward=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(trace)
    app.command()(descendants)


def _check_picture(path: str | None, overwrite: bool) -> None:
    if path is None:
        return
    if not path.endswith((".svg", ".html")):
        raise UsageError("A picture is an SVG or HTML file.", next_step="Name it FILE.svg or FILE.html.")
    if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise UsageError(f"There is no folder for {printable(path)}.", next_step="Make it first.")
    if os.path.lexists(path) and not overwrite:
        raise UsageError(f"{printable(path)} exists already.", next_step="Choose another name, or give --overwrite.")


def _show(traced: Traced, picture: str | None, as_json: bool, *, forward: bool) -> None:
    if picture is not None:
        from sealflow.actions.picture import as_html, as_svg
        from sealflow.storage.local import replace_file

        draw = as_svg if picture.endswith(".svg") else as_html
        replace_file(os.path.abspath(picture), draw(traced.graph, traced.verdict).encode("utf-8"))
    if as_json:
        print_json(traced.as_dict())
    else:
        if traced.graph.starts:
            _print_tree(traced.graph, forward)
        print_verdict(traced.verdict)
    sys.exit(traced.verdict.exit_status)


def _print_tree(graph: Graph, forward: bool) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    children = _children(graph, forward)
    lines = 0
    shown: set[Digest] = set()
    trees = []
    # In the order in which a reader meets them, so that what is cut off is the end.
    stack: list[tuple[Any, Digest, bool, int]] = [(None, start, True, 0) for start in reversed(graph.starts)]
    while stack:
        parent, digest, proved, depth = stack.pop()
        lines += 1
        if lines > _MAX_LINES:
            break
        again = digest in shown and bool(children.get(digest))
        label = _label(graph, digest, proved, " (shown above)" if again else "")
        branch = Tree(label, guide_style="dim") if parent is None else parent.add(label)
        if parent is None:
            trees.append(branch)
        if again:
            continue
        shown.add(digest)
        below = children.get(digest, {})
        if below and depth >= _MAX_DEPTH:
            branch.add(Text("… further down; see --json or --picture"))
            continue
        stack += [(branch, other, known, depth + 1) for other, known in reversed(below.items())]
    # A file or another program gets whole lines.
    width = None if sys.stdout.isatty() else 2000
    console = Console(markup=False, emoji=False, highlight=False, width=width)
    for tree in trees:
        console.print(tree)
    left = len(graph.nodes) - len(shown)
    if left:
        typer.echo(f"… {left} more artifacts")


def _children(graph: Graph, forward: bool) -> dict[Digest, dict[Digest, bool]]:
    """Return what stands below each artifact in the tree, and whether the edge is proved."""
    found: dict[Digest, dict[Digest, bool]] = {}
    for edges, proved in ((graph.inputs, True), (graph.claimed, False)):
        for made, items in edges.items():
            for used in items:
                above, below = (used, made) if forward else (made, used)
                found.setdefault(above, {}).setdefault(below, proved)
    return found


def _label(graph: Graph, digest: Digest, proved: bool, suffix: str) -> Text:
    from rich.text import Text

    from sealflow.actions.picture import LOOKS, short, signed_by

    node = graph.nodes[digest]
    look = LOOKS[node.state]
    colour = _COLOURS.get(node.state, "red")
    label = Text(no_wrap=True, overflow="ignore")
    label.append(f"{look.mark} ", style=colour if proved else "red")
    label.append(printable(node.name or short(digest), 120), style="bold")
    label.append(f"  {look.word}" if proved else "  claimed, not proved", style=colour if proved else "red")
    if node.codes:
        label.append(f" ({', '.join(node.codes)})", style="red")
    by = signed_by(node)
    details = [node.producer and f"made by {printable(node.producer, 120)}", by and f"signed by {by}"]
    details += [
        node.when,
        short(digest) if node.name else "",
        printable(node.locations[0], 200) if node.locations else "",
    ]
    label.append("".join(f"  {text}" for text in details if text), style="dim")
    label.append(suffix)
    return label
