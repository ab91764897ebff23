"""A page about a guarded task, for KFP's own pages: what was verified, and what was signed."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sealflow_kfp.task_guard import Guard

# No script, no link, nothing that is fetched: what is shown here was written by others.
_HEAD: Final = (
    "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
    "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    "<title>sealflow</title><style>body{font:14px sans-serif}td,th{padding:.3em .8em;text-align:left;"
    "border-bottom:1px solid #ccc;overflow-wrap:anywhere}</style></head><body>"
)


def make_page(producer: str, run: str, guard: Guard | None = None) -> str:
    """Return the page.

    Args:
        producer: The task.
        run: Its run.
        guard: What was verified, signed and let pass; ``None`` for a task that has no artifact.
    """
    who = f"<p>{escape(producer)}, run {escape(run or 'unknown')}</p>"
    if guard is None:
        return f"{_HEAD}<h1>Nothing to check: the task has no artifact.</h1>{who}</body></html>\n"
    inputs = [
        (
            str(item.artifact),
            item.digest,
            f"verified: {item.verdict.summary()}"
            + (" The command changed it, so the provenance does not name it." * (str(item.artifact) in guard.changed)),
        )
        for item in guard.admitted
    ]
    outputs = [(name, str(item.ref.digest), f"signed with {item.key}") for name, item in guard.sealed]
    tables = (("Verified inputs", inputs), ("Signed outputs", outputs), ("Let pass", guard.let_pass))
    shown = "".join(_table(title, rows) for title, rows in tables if rows)
    return f"{_HEAD}<h1>{escape(guard.summary())}</h1>{who}{shown}</body></html>\n"


def _table(title: str, rows: Iterable[tuple[str, ...]]) -> str:
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{title}</h2><table>{cells}</table>"
