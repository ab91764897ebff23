"""Runs the commands that a page quotes, and compares what they print with what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.documents import ROOT, blocks_of, runs

_STATUS = re.compile(r"^(?P<command>[^#\n]*\S)  # exit status (?P<status>\d+)$", re.MULTILINE)


def run_guide(
    guide: Path, folder: Path, environment: Mapping[str, str], *, blocks: int, sections: Sequence[str] = ()
) -> None:
    """Run a guide's ``bash`` blocks one after the other; the ``text`` block behind one is what it prints.

    A command fails the test unless the guide says ``# exit status N`` behind it. Every line of a ``text`` block must
    be among the printed lines; ``…`` stands for anything.

    Args:
        guide: The document.
        folder: Folder in which the commands run.
        environment: All of their environment.
        blocks: Blocks that are run or compared at least, so that a changed fence does not go unseen.
        sections: Titles of second level whose blocks are run; all blocks where it is empty.
    """
    if guide.is_relative_to(ROOT):
        # What tests.documents says is run must be what is run.
        # As pytest-xdist calls a test of a group: name[case]@group.
        test = re.split(r"[ @[]", os.environ["PYTEST_CURRENT_TEST"], maxsplit=1)[0]
        claim = (test, tuple(sections))
        assert claim in runs(str(guide.relative_to(ROOT))), f"{claim} is missing in tests/documents.py"
    found = [
        block
        for block in blocks_of(guide)
        if block.language in ("bash", "text") and (not sections or block.section in sections)
    ]
    assert len(found) >= blocks
    script, expected = ["set -euo pipefail"], list[tuple[int, str]]()
    for number, block in enumerate(found):
        if block.language == "text":
            expected.append((number - 1, block.text))
            continue
        script.append(f"echo '@@ {number}'")
        script.append(_STATUS.sub(r"status=0; \g<command> || status=$?; test $status = \g<status>", block.text))
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    parts = re.split(r"^@@ (\d+)$", done.stdout, flags=re.MULTILINE)
    printed = dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))
    for number, text in expected:
        compare(text, printed[number])


def compare(shown: str, printed: str) -> None:
    """Check that each line that a page shows is among the printed ones; ``…`` stands for anything."""
    for line in shown.splitlines():
        pattern = ".*".join(re.escape(piece) for piece in line.split("…"))
        assert re.search(f"^{pattern}$", printed, re.MULTILINE), f"{line!r} is not in:\n{printed}"


@dataclass(frozen=True)
class Done:
    """A command of a page, run."""

    command: str
    status: int
    output: str


def run_session(text: str, cli: Callable[..., Any], replace: Mapping[str, str] | None = None) -> list[Done]:
    """Run a block of commands in the test's folder, ``sealflow`` in this process.

    With prompts (``$ ``) the other lines are what is printed; without, all lines are commands. What a page can only
    name, such as a bucket, is replaced in the commands, and put back in what they print.

    Args:
        text: The block.
        cli: Runs ``sealflow`` with arguments, as the fixture of that name does.
        replace: What stands in the page, and what stands for it here.
    """
    replace = replace or {}
    text = text.replace("\\\n", " ")
    steps = list[tuple[str, list[str]]]()
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append((line.removeprefix("$ "), []))
        elif text.startswith("$ "):
            steps[-1][1].append(line)
        elif line.strip():
            steps.append((line, []))
    # Where the commands of this environment are, as whoever reads the page has installed them.
    installed = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    made = []
    for command, shown in steps:
        here = command
        for name, value in replace.items():
            here = here.replace(name, value)
        words = shlex.split(here, comments=True)
        if words[0] == "sealflow" and not {"|", ">", "<", "&&", ";"} & set(words):
            done = cli(*words[1:])
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", here], capture_output=True, text=True, env=installed
            )
        output = done.stdout + done.stderr
        for name, value in replace.items():
            output = output.replace(value, name)
        compare("\n".join(shown), output)
        made.append(Done(command, done.returncode, output))
    return made


def check_links(document: Path) -> None:
    """Follow a document's relative links to files and to their titles."""
    for target, _, anchor in re.findall(r"\]\(([^)#:]+)(#([^)]+))?\)", document.read_text(encoding="utf-8")):
        there = (document.parent / target).resolve()
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor
