"""The documentation as a site: it builds without a warning; pictures and lists are today's, commands exist."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

import sealflow
from tests.documents import blocks_of
from tests.guides import check_links, run_guide

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"])
TUTORIALS = DOCS / "tutorials"

_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_HERE_DOCUMENT = re.compile(r"<<-?'?(\w+)'?.*?^\1$", re.DOTALL | re.MULTILINE)


def fences(*languages: str) -> list[Any]:
    found = []
    for page in PAGES:
        for number, (indent, language, text) in enumerate(_FENCE.findall(page.read_text(encoding="utf-8"))):
            if language in languages:
                lines = [line.removeprefix(indent) for line in text.splitlines()]
                found.append(pytest.param("\n".join(lines), id=f"{page.relative_to(ROOT)}-{number}"))
    return found


# --- What is written in a language is of that language ---


@pytest.mark.parametrize("text", fences("python"))
def test_python_compiles(text: str) -> None:
    ast.parse(textwrap.dedent(text))


@pytest.mark.parametrize("text", fences("json"))
def test_json_parses(text: str) -> None:
    json.loads(text)


@pytest.mark.parametrize("text", fences("yaml"))
def test_yaml_parses(text: str) -> None:
    list(yaml.safe_load_all(text))


# --- Commands ---


def commands(text: str) -> list[list[str]]:
    """Return the calls of ``sealflow`` in a block of a shell, as words."""
    text = _HERE_DOCUMENT.sub("", text).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        for part in re.split(r"\s(?:&&|\|\||\||;)\s", line.removeprefix("$ ").strip()):
            if not part.startswith("sealflow "):
                continue
            words = shlex.split(part.replace("…", "x"), comments=True)
            found.append([word for word in words if not re.match(r"\d?[<>]", word)])
    return found


@functools.cache
def whole_command() -> Any:
    import typer

    from sealflow.cli.app import app

    return typer.main.get_command(app)


@pytest.mark.parametrize("text", [block for block in fences("bash", "console") if commands(block.values[0])])
def test_commands_and_options_exist(text: str) -> None:
    top = whole_command()
    for words in commands(text):
        command, rest = top, words[1:]
        while hasattr(command, "commands") and rest and rest[0] in command.commands:
            command, rest = command.commands[rest[0]], rest[1:]
        assert not getattr(command, "commands", None) or not rest or rest[0].startswith("-"), words
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in rest:
            if word.startswith("--") and word != "--":
                assert word.partition("=")[0] in {*known, "--help"}, words


def test_the_check_of_commands_sees_something() -> None:
    (words,) = commands("cat <<END\nsealflow no\nEND\n$ ls | sealflow sign model/ --signer \\\n  file:key > x # why")
    assert words == ["sealflow", "sign", "model/", "--signer", "file:key", "x"]


SYNOPSES = [item for page in PAGES for item in blocks_of(page) if re.match(r"sealflow [a-z ]+[^$]*\[--", item.text)]


@pytest.mark.parametrize("text", [pytest.param(item.text, id=str(item)) for item in SYNOPSES])
def test_a_synopsis_names_all_options(text: str) -> None:
    """Those in reference/kubeflow and reference/kubeflow-cluster: neither more nor fewer than the command has."""
    command = whole_command()
    for word in text.split()[1:]:
        if not hasattr(command, "commands"):
            break
        command = command.commands[word]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    # `-o OUTPUT` is how `--output` is written.
    named = set(re.findall(r"--[a-z-]+", text)) | ({"--output"} if "-o OUTPUT" in text else set())
    assert named == {name for name in known if name.startswith("--")} - {"--help"}


TARGETS = [words for page in PAGES for item in blocks_of(page) if item.language == "console"
           for words in re.findall(r"(?m)^(?:\$ )?make ([^#\n]+)", item.text)]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", sorted({words.strip() for words in TARGETS}))
def test_targets_of_make_exist(words: str) -> None:
    """In README, kubeflow-cluster and verify-a-release. What each does is tested elsewhere; some take long."""
    done = subprocess.run(["make", "--dry-run", *shlex.split(words)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- Pages made from something else ---


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    names = {name for name in sealflow.__all__ if not name.startswith("_")}
    assert set(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.MULTILINE)) == names


def test_every_operator_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "python-airflow.md").read_text(encoding="utf-8")
    for path in (ROOT / "airflow_plugin" / "sealflow_airflow" / "operators").glob("*.py"):
        for name in re.findall(r"^class (\w+Operator)\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert f".. autoclass:: sealflow_airflow.operators.{path.stem}.{name}\n" in text


def test_the_page_of_figures_is_what_was_measured() -> None:
    from benchmarks.record import read
    from benchmarks.report import PARTS, page

    records = read()
    assert {part.name for part in PARTS} == set(records)
    assert page(records) == (DOCS / "performance.md").read_text(encoding="utf-8"), "run python -m benchmarks PART"


@pytest.mark.parametrize("source", sorted((DOCS / "diagrams").glob("*.dot")), ids=lambda path: path.stem)
def test_a_picture_is_its_source(source: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "make_diagrams.py"))
    drawn = (DOCS / "images" / "diagrams" / f"{source.stem}.svg").read_text(encoding="utf-8")
    assert script["words"](drawn) == script["words"](script["draw"](source)), "run scripts/make_diagrams.py"


@pytest.mark.slow
def test_the_proof_page_is_that_of_the_tests() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_proof_page.py"))["page"]()
    written = (DOCS / "explanation" / "proof.md").read_text(encoding="utf-8")
    assert made == written, "docs/explanation/proof.md is behind: run scripts/make_proof_page.py"


# --- The site ---


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(DOCS),
        str(tmp_path / "site"),
    ]
    done = subprocess.run(
        [*build, "-d", str(tmp_path / "trees")], capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "first-guarded-dag.html" in home
    # It is read without a network, and tells nobody who reads it.
    for page in (tmp_path / "site").rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text(encoding="utf-8")):
            assert not re.search(r"(?:src|href)=\"(?:https?:)?//", tag), f"{page.name}: {tag}"
    assert "sealflow.sign" in (tmp_path / "site" / "reference" / "python.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda path: path.stem)
def test_links_of_a_tutorial_lead_somewhere(page: Path) -> None:
    check_links(page)


# --- Tutorials: each from nothing, as it stands ---


def _environment(folder: Path) -> dict[str, str]:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "sealflow").write_text(f"#!{sys.executable}\nfrom sealflow.cli import main\nmain()\n")
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "airflow").write_text(f'#!/bin/sh\nexec {sys.executable} -m airflow "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (folder / "empty").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SEALFLOW"))}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "NO_COLOR": "1", "COLUMNS": "200"}


@pytest.mark.airflow
@pytest.mark.slow
def test_the_first_guarded_dag(tmp_path: Path) -> None:
    run_guide(TUTORIALS / "first-guarded-dag.md", tmp_path / "empty", _environment(tmp_path), blocks=12)


@pytest.mark.kfp
@pytest.mark.slow
def test_the_first_guarded_pipeline(tmp_path: Path) -> None:
    run_guide(TUTORIALS / "first-guarded-pipeline.md", tmp_path / "empty", _environment(tmp_path), blocks=10)


@pytest.mark.slow
def test_the_first_review(tmp_path: Path) -> None:
    run_guide(TUTORIALS / "first-review.md", tmp_path / "empty", _environment(tmp_path), blocks=10)
