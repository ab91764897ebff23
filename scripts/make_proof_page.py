"""Write docs/explanation/proof.md, every attack and fault that the tests try: ``python scripts/make_proof_page.py``."""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "explanation" / "proof.md"

#: Attacks of one orchestrator, and faults, stand beside what they are about; all of tests/attacks is taken.
ELSEWHERE = (
    "tests/airflow/test_gate_closed.py",
    "tests/airflow/test_gate_rulings.py",
    "tests/airflow/test_guard_broken.py",
    "tests/airflow/test_guard_refusals.py",
    "tests/conformance/test_defects_of_stock.py",
    "tests/core/transfer/test_faults.py",
    "tests/core/transfer/test_killed_s3.py",
    "tests/core/transfer/test_resume.py",
    "tests/e2e/test_compromise.py",
    "tests/kubeflow/test_admission_fields.py",
    "tests/kubeflow/test_admission_http.py",
    "tests/kubeflow/test_admission_tls.py",
    "tests/kubeflow/test_exec_attacks.py",
    "tests/kubeflow/test_exec_escapes.py",
    "tests/kubeflow/test_guard_attacks.py",
)
_HEAD = """# What was attacked

Each line is something that somebody could try, or that could go wrong, and the test that holds what must come of it.
`scripts/make_proof_page.py` makes this page from the tests, and a test fails while it is behind. `make test` runs
all of it.

{count} cases of {functions} attempts.
"""
# Names of a case that only count.
_NUMBER = re.compile(r"\d+")
# Cases that stand on the line of their test, and characters of a name that are shown.
_FEW, _LONG = 6, 80


def page() -> str:
    """Return the whole page."""
    paths = [*sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests" / "attacks").glob("test_*.py")), *ELSEWHERE]
    cases = collected(paths)
    parts = [
        _HEAD.format(
            count=f"{sum(max(len(names), 1) for found in cases.values() for names in found.values()):,}",
            functions=f"{sum(map(len, cases.values())):,}",
        )
    ]
    for path in paths:
        title, sentences = said(ROOT / path)
        parts.append(f"## {title}\n\n`{path}`\n")
        parts += [_entry(sentences[name], name, names) for name, names in cases[path].items()]
        parts.append("")
    return "\n".join(parts)


def collected(paths: list[str]) -> dict[str, dict[str, list[str]]]:
    """Ask pytest: path to name of a test to the names of its cases."""
    asked = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider"]
    done = subprocess.run([*asked, *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-4000:])
    found: dict[str, dict[str, list[str]]] = {path: {} for path in paths}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"(tests/[^:]+)::(\w+)(?:\[(.*)\])?(?:@[\w.-]+)?", line)
        if match is not None:
            path, name, case = match.groups()
            found[path].setdefault(name, []).extend([] if case is None else [case])
    return found


def said(path: Path) -> tuple[str, dict[str, str]]:
    """Read what a module says it is about, and each of its tests; a test's name is a sentence without blanks."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    sentences = {}
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            words = node.name.removeprefix("test_").replace("_", " ")
            more = (ast.get_docstring(node) or "").partition("\n\n")[0]
            sentences[node.name] = f"{words[:1].upper()}{words[1:]}." + (f" {_plain(more)}" if more else "")
    return _plain((ast.get_docstring(module) or path.stem).partition("\n")[0]).rstrip("."), sentences


def _entry(sentence: str, name: str, cases: list[str]) -> str:
    line = f"- {sentence} `{name}`"
    names = list(_shortened(cases))
    if not names:
        return line
    listed = " · ".join(f"`{_printable(case)}`" for case in names)
    if len(names) <= _FEW:
        return f"{line}: {listed}"
    return f"{line}\n  <details><summary>{len(cases)} cases</summary>\n\n  {listed}\n\n  </details>\n"


def _shortened(cases: list[str]) -> Iterator[str]:
    """Give back names; of those that only count, the first and the last."""
    for counts, group in itertools.groupby(cases, key=lambda case: _NUMBER.fullmatch(case) is not None):
        names = list(group)
        if counts and len(names) > 2:
            yield f"{names[0]} … {names[-1]}"
        else:
            yield from names


def _printable(case: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in case).replace("`", "'")
    return text if len(text) <= _LONG else text[:_LONG] + "…"


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
