"""`sealflow lineage trace` and `descendants`: trees, JSON, pictures, exit statuses."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from sealflow.actions.picture import MAX_DRAWN, as_html, as_svg
from sealflow.findings import Finding, Verdict, conclude
from sealflow.hashing import Digest, sha256_hex
from sealflow.verification.graph import Graph, Node, State
from tests.core.conftest import Cli, body
from tests.core.policy.deployment import policy, rule
from tests.lineages import Lineage, digest

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    return Lineage(tmp_path / "world")


@pytest.fixture
def trust(lineage: Lineage) -> list[str]:
    """Options that name whom to believe and where evidence lies."""
    return [
        "--identity", str(lineage.key("trainer").public), "--root", str(lineage.key("owner").public),
        "--evidence-store", str(lineage.store),
    ]  # fmt: skip


def test_a_tree(cli: Cli, trust: list[str]) -> None:
    done = cli("lineage", "trace", str(digest("model")), *trust)
    assert done.returncode == 0
    tree = done.stdout.splitlines()[:4]
    assert tree[0].startswith("✓ model  attested  made by kfp:train/fit  signed by identities")
    assert sorted(re.findall(r"[✓■] (\w+)", "".join(tree[1:]))) == ["clean", "labels", "raw"]
    assert "passed" in done.stdout
    assert "LINEAGE_NOT_HELD" in done.stdout
    # Nobody's terminal wrapped it.
    assert all(len(line.split("sha256:")) == 2 for line in tree)


def test_json(cli: Cli, trust: list[str]) -> None:
    found = body(cli("lineage", "trace", str(digest("model")), *trust, "--json"))
    assert found["verdict"]["status"] == "passed"
    assert len(found["graph"]["nodes"]) == 4
    assert len(found["graph"]["edges"]) == 3


def test_exit_statuses(cli: Cli, lineage: Lineage, trust: list[str]) -> None:
    assert cli("lineage", "trace", str(digest("nothing")), *trust).returncode == 3
    assert cli("lineage", "trace", str(digest("model")), *trust[:2], *trust[4:]).returncode == 4
    assert cli("lineage", "trace", str(digest("model")), *trust, "--certificate-name", "dns:x").returncode == 2
    assert cli("lineage", "trace", str(digest("model")), *trust, "--policy-key", "x").returncode == 2
    assert cli("lineage", "trace", str(digest("model")), *trust, "--dataset", "md5:x").returncode == 2
    (path,) = lineage.objects("raw")
    path.unlink()
    path.symlink_to("/nowhere")
    assert cli("lineage", "trace", str(digest("model")), *trust).returncode == 5


def test_a_missing_edge_is_shown(cli: Cli, lineage: Lineage, trust: list[str]) -> None:
    lineage.remove("raw")
    done = cli("lineage", "trace", str(digest("model")), *trust)
    assert done.returncode == 3
    assert "✗ raw  unattested (DEP_UNATTESTED)" in done.stdout
    assert "signed provenance of this input of clean" in done.stdout


def test_listed_datasets(cli: Cli, trust: list[str]) -> None:
    listed = ["--dataset", str(digest("raw")), "--dataset", str(digest("labels"))]
    done = cli("lineage", "trace", str(digest("model")), *trust[:2], *trust[4:], *listed)
    assert done.returncode == 0


@pytest.mark.parametrize("signed", [False, True], ids=["draft", "signed"])
def test_a_rule_says_where_data_begins(cli: Cli, tmp_path: Path, lineage: Lineage, signed: bool) -> None:
    """Nobody names a data owner on the command line."""
    file = tmp_path / "more.json"
    for owner, status in (("owner", 0), ("trainer", 4)):
        places = [lineage.lies(name) for name in ("raw", "labels", "clean", "model")]
        demand = {"evidence": {"provenance": {}}, "lineage": {"roots": [owner]}}
        made = rule("made", places, ["trainer", "owner"], require=demand)
        draft = policy([made], lineage.identities("trainer", "owner"))
        file.write_bytes(lineage.bundle(draft) if signed else json.dumps(draft).encode())
        options = ["--policy", str(file), "--evidence-store", str(lineage.store)]
        options += ["--policy-key", str(lineage.key("admin").public)] if signed else []
        done = cli("lineage", "trace", lineage.ref().to_json(), *options, "--json")
        assert done.returncode == status, done.stdout
        if status:
            refusals = [item for item in body(done)["verdict"]["findings"] if item["severity"] == "refusal"]
            assert {item["code"] for item in refusals} == {"ROOT_NOT_ALLOWED"}


def test_a_reference(cli: Cli, lineage: Lineage, trust: list[str]) -> None:
    assert cli("lineage", "trace", lineage.ref().to_json(), *trust[:4]).returncode == 0


def test_descendants(cli: Cli, lineage: Lineage, trust: list[str]) -> None:
    options = [*trust[:2], "--identity", str(lineage.key("owner").public), *trust[4:]]
    done = cli("lineage", "descendants", str(digest("raw")), *options)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("■ raw  dataset")
    assert lines[1].startswith("└── ✓ clean")
    assert lines[2].startswith("    └── ✓ model")
    assert "LINEAGE_PLACES" in done.stdout
    lineage.attest("evil", ["raw"], "stranger")
    done = cli("lineage", "descendants", str(digest("raw")), *options)
    assert done.returncode == 5
    assert "evil  claimed, not proved" in done.stdout
    assert cli("lineage", "descendants", str(digest("raw")), *options[:4]).returncode == 2


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_pictures(cli: Cli, tmp_path: Path, lineage: Lineage, trust: list[str], suffix: str) -> None:
    lineage.remove("labels")
    name = f"lineage.{suffix}"
    done = cli("lineage", "trace", str(digest("model")), *trust, "--picture", name)
    assert done.returncode == 3
    drawn = (tmp_path / name).read_text(encoding="utf-8")
    for text in ("model", "clean", "raw", "labels", "kfp:train/fit", "✗ unattested", "■ dataset", "✓ attested"):
        assert text in drawn
    svg = ElementTree.fromstring(drawn[drawn.index("<svg") : drawn.index("</svg>") + 6])
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == "lineage-title lineage-desc"
    assert [item.tag.partition("}")[2] for item in svg[:2]] == ["title", "desc"]
    # Never over a file that is there.
    again = cli("lineage", "trace", str(digest("model")), *trust, "--picture", name)
    assert again.returncode == 2
    assert cli("lineage", "trace", str(digest("model")), *trust, "--picture", name, "--overwrite").returncode == 3


def test_a_picture_of_another_kind(cli: Cli, trust: list[str]) -> None:
    done = cli("lineage", "trace", str(digest("model")), *trust, "--picture", "x.png", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["next_step"] == "Name it FILE.svg or FILE.html."


# --- Large graphs ---


def _graph(count: int, width: int, state: State = "attested") -> Graph:
    names = [Digest("sha256", sha256_hex(b"%d" % number)) for number in range(count)]
    nodes = {item: Node(item, state, f"part-{number}") for number, item in enumerate(names)}
    inputs = {
        names[number]: tuple(names[number * width + 1 : number * width + 1 + width])
        for number in range(count)
        if number * width + 1 < count
    }
    return Graph((names[0],), nodes, inputs)


VERDICT = Verdict("passed", "file:///model", name="model")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 2, 5_000], ids=["chain", "tree", "star"])
def test_large_graphs_stay_small_pictures(width: int) -> None:
    graph = _graph(5_000, width)
    for draw in (as_svg, as_html):
        drawn = draw(graph, VERDICT)
        assert drawn.count("<g>") == MAX_DRAWN
        assert f"{5_000 - MAX_DRAWN} more" in drawn
        assert len(drawn) < 1 << 20


def _levels(*widths: int) -> Graph:
    """Columns of so many artifacts, each made from the whole column before it and from everything on the very left."""
    columns = [
        [Digest("sha256", sha256_hex(f"{column}/{row}".encode())) for row in range(width)]
        for column, width in enumerate(widths)
    ]
    inputs = {
        made: tuple(dict.fromkeys([*columns[number], *columns[0]]))
        for number, column in enumerate(columns[1:])
        for made in column
    }
    nodes = {item: Node(item, "attested", "x") for column in columns for item in column}
    return Graph(tuple(columns[-1]), nodes, inputs)


@pytest.mark.parametrize("widths", [(1, 1, 1), (2, 3, 4, 1), (1, 5, 2, 3), (4, 1, 6, 1), (3, 8, 8, 8, 5)])
def test_long_edges_run_between_rows(widths: tuple[int, ...]) -> None:
    """An edge behind the box of another artifact looks as if it went through it."""
    drawn = ElementTree.fromstring(as_svg(_levels(*widths), VERDICT))
    inside = "{http://www.w3.org/2000/svg}"
    boxes = [
        tuple(int(item.get(name, "")) for name in ("x", "y", "width", "height"))
        for item in drawn.iterfind(f"{inside}g/{inside}rect")
    ]
    assert len(boxes) == sum(widths)
    ways = [item.get("d", "") for item in drawn.iterfind(f"{inside}path") if item.get("fill") == "none"]
    level = re.compile(r"M\d+ \d+ C\d+ \d+ \d+ \d+ (?P<start>\d+) (?P<y>\d+) H(?P<end>\d+) C")
    long = [
        {name: int(text) for name, text in found.groupdict().items()} for way in ways if (found := level.match(way))
    ]
    assert len(long) == widths[0] * sum(widths[2:])
    for way in long:
        assert way["start"] < way["end"]
        for x, y, width, height in boxes:
            beside = x + width <= way["start"] or way["end"] <= x
            assert beside or not y <= way["y"] <= y + height, (way, x, y)


def test_what_is_not_proved_is_drawn_first() -> None:
    graph = _graph(5_000, 1)
    last = list(graph.nodes)[250]
    far = list(graph.nodes)[4_999]
    graph.nodes[last] = Node(last, "refused", "the-bad-one")  # type: ignore[index]
    star = _graph(5_000, 5_000)
    end = list(star.nodes)[4_999]
    star.nodes[end] = Node(end, "refused", "the-bad-one")  # type: ignore[index]
    for drawn in (as_svg(graph, VERDICT), as_svg(star, VERDICT)):
        assert "the-bad-one" in drawn
    assert str(far) not in as_svg(graph, VERDICT)


def test_circles_can_be_drawn() -> None:
    names = [Digest("sha256", sha256_hex(b"%d" % number)) for number in range(3)]
    nodes = {item: Node(item, "cycle", "x") for item in names}
    inputs = {names[0]: (names[1],), names[1]: (names[2],), names[2]: (names[0], names[2])}
    status, findings = conclude([Finding("LINEAGE_CYCLE", "refusal", "x", "It is a circle.")])
    graph = Graph((names[0],), nodes, inputs, {names[1]: (names[0],)})
    for draw in (as_svg, as_html):
        assert draw(graph, Verdict(status, "x", findings=findings)).count("<g>") == 3


def test_nothing_to_draw() -> None:
    for draw in (as_svg, as_html):
        assert "failed" in draw(Graph((), {}, {}), Verdict("failed", "file:///gone"))


@pytest.mark.slow
def test_large_trees_are_cut(cli: Cli, lineage: Lineage, trust: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from sealflow.actions import trace as module
    from sealflow.actions.trace import Traced

    for width in (1, 2, 5_000):
        graph = _graph(5_000, width)
        monkeypatch.setattr(module, "trace", lambda *_, graph=graph, **__: Traced(VERDICT, graph))
        done = cli("lineage", "trace", str(digest("model")), *trust)
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) < 320
        assert "more artifacts" in done.stdout


def test_a_shared_input_is_spelled_out_once(cli: Cli, lineage: Lineage, trust: list[str]) -> None:
    lineage.attest("left", ["clean"])
    lineage.attest("right", ["clean"])
    lineage.attest("top", ["left", "right"])
    done = cli("lineage", "trace", str(digest("top")), *trust)
    assert done.stdout.count("clean  attested") == 2
    assert done.stdout.count("(shown above)") == 1
    assert done.stdout.count("raw  dataset") == 1
