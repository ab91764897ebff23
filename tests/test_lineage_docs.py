"""The guide to gates on lineage: its commands do what it says, its snippets are those of the examples."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "how-to" / "gate-on-lineage.md"
TEXT = GUIDE.read_text(encoding="utf-8")

_SNIPPET = re.compile(r"<!-- example: (\S+) -->\n```python\n(.*?)```", re.DOTALL)
_BLOCK = re.compile(r"```(bash|text)\n(.*?)```", re.DOTALL)
_STATUS = re.compile(r"^(?P<command>[^#\n]*\S)  # exit status (?P<status>\d+)$", re.MULTILINE)


@pytest.mark.parametrize(("path", "snippet"), _SNIPPET.findall(TEXT), ids=lambda value: value.partition("\n")[0][-40:])
def test_a_snippet_stands_in_its_example(path: str, snippet: str) -> None:
    assert snippet in (ROOT / path).read_text(encoding="utf-8")


def test_both_orchestrators_have_a_snippet() -> None:
    assert {Path(path).parent.name for path, _ in _SNIPPET.findall(TEXT)} == {"airflow", "kubeflow"}


@pytest.mark.parametrize(
    "path", [GUIDE, *(ROOT / "docs" / "reference" / f"{name}.md" for name in ("airflow", "kubeflow"))]
)
def test_links_lead_somewhere(path: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#:]+)(#([^)]+))?\)", path.read_text(encoding="utf-8")):
        there = (path.parent / target).resolve()
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor


@pytest.mark.slow
def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("there is no ssh-keygen (Debian package: openssh-client)")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("sealflow", "sealflow.cli"), ("dvc", "dvc.cli")):
        end = "sys.exit(main())"
        (programs / name).write_text(
            f"#!{sys.executable}\nimport sys\nsys.argv[0] = {name!r}\nfrom {module} import main\n{end}\n"
        )
        (programs / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(tmp_path / "site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    blocks = _BLOCK.findall(TEXT)
    assert len(blocks) >= 9
    (tmp_path / "empty").mkdir()
    script, expected = ["set -euo pipefail"], list[tuple[int, str]]()
    for number, (kind, text) in enumerate(blocks):
        if kind == "text":
            expected.append((number - 1, text))
            continue
        script.append(f"echo '@@ {number}'")
        script.append(_STATUS.sub(r"status=0; \g<command> || status=$?; test $status = \g<status>", text))
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path / "empty",
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
