"""Runs the commands that a guide quotes, and compares what they print with what the guide shows."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_BLOCK = re.compile(r"```(bash|text)\n(.*?)```", re.DOTALL)
_STATUS = re.compile(r"^(?P<command>[^#\n]*\S)  # exit status (?P<status>\d+)$", re.MULTILINE)


def run_guide(guide: Path, folder: Path, environment: Mapping[str, str], *, blocks: int) -> None:
    """Run a guide's ``bash`` blocks one after the other; the ``text`` block behind one is what it prints.

    A command fails the test unless the guide says ``# exit status N`` behind it. Every line of a ``text`` block must
    be among the printed lines; ``…`` stands for anything.

    Args:
        guide: The document.
        folder: Folder in which the commands run.
        environment: All of their environment.
        blocks: Blocks that the guide has at least, so that a changed fence does not go unseen.
    """
    found = _BLOCK.findall(guide.read_text(encoding="utf-8"))
    assert len(found) >= blocks
    script, expected = ["set -euo pipefail"], list[tuple[int, str]]()
    for number, (kind, text) in enumerate(found):
        if kind == "text":
            expected.append((number - 1, text))
            continue
        script.append(f"echo '@@ {number}'")
        script.append(_STATUS.sub(r"status=0; \g<command> || status=$?; test $status = \g<status>", text))
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
        for line in text.splitlines():
            pattern = ".*".join(re.escape(piece) for piece in line.split("…"))
            assert re.search(f"^{pattern}$", printed[number], re.MULTILINE), f"{line!r} is not in:\n{printed[number]}"


def check_links(document: Path) -> None:
    """Follow a document's relative links to files and to their titles."""
    for target, _, anchor in re.findall(r"\]\(([^)#:]+)(#([^)]+))?\)", document.read_text(encoding="utf-8")):
        there = (document.parent / target).resolve()
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor
