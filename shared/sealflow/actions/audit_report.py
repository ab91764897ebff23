"""A review of accesses as one HTML page.

Everything in it is other people's text, so everything is made printable and escaped. The page needs nothing from
elsewhere: its one script, which sorts tables, is named by its hash in the page's content security policy, and no other
script runs. Without the script the page holds the same.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sealflow import strictjson
from sealflow.findings import printable
from sealflow.storage import Storages

# Not allowed in HTML, though printable.
_NO_HTML: Final = re.compile("[\ufffe\uffff]")
#: What is not broken over lines.
_CODE: Final = re.compile("[A-Z]+(?:_[A-Z0-9]+)+")

_STYLE: Final = """
:root { color-scheme: light dark; --line: #c9ccd1; --soft: #f4f5f7; --text: #1a1d21; --back: #fff; --dim: #5c6370;
  --bad: #b42318; --warn: #8a5a00; --good: #1b7f4b; }
@media (prefers-color-scheme: dark) { :root { --line: #3b4048; --soft: #23272e; --text: #e6e8eb; --back: #16191d;
  --dim: #9aa3af; --bad: #ff8a80; --warn: #f2c46d; --good: #6fd3a0; } }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1.5rem; max-width: 90rem;
  color: var(--text); background: var(--back); }
h1 { font-size: 1.5rem; margin-bottom: .25rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.dim { color: var(--dim); } .failed, .refusal { color: var(--bad); } .passed { color: var(--good); }
.unverifiable, .warning { color: var(--warn); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.facts div { background: var(--soft); border-radius: .4rem; padding: .6rem .8rem; }
.facts b { display: block; font-size: 1.3rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; min-width: 4rem; unicode-bidi: isolate; }
th { background: var(--soft); white-space: nowrap; }
td.unverifiable, td.warning { min-width: 6rem; } td.code { overflow-wrap: normal; }
td.n, th.n { text-align: right; overflow-wrap: normal; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
"""

#: Sorts a table by the column whose heading is pressed. Reads text and writes none.
_SCRIPT: Final = """
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].textContent;
      const number = head.classList.contains("n");
      const rows = [...table.tBodies[0].rows].sort((a, b) =>
        number ? Number(key(a)) - Number(key(b)) : key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0);
      table.tBodies[0].append(...(down ? rows.reverse() : rows));
    });
  });
}
"""


def as_html(report: Mapping[str, Any]) -> str:
    """Return a review as an HTML page.

    Args:
        report: The review's JSON form.
    """
    script = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    log, period, counts = report["log"], report["period"], report["counts"]
    title = f"Access review {period['since'][:10]} to {period['until'][:10]}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{_text(title)}: <span class="{_text(report["status"])}">{_text(report["status"])}</span></h1>
<p class="dim">{_text(period["since"])} to {_text(period["until"])}; checked at {_text(report["checked_at"])}.<br>
Log {_text(log["uri"], 500)}, {_text(log["origin"])}, {log["size"]} entries, root {_text(log["root"])}.<br>
{_scope(report["scope"])}</p>
<div class="facts">
{_fact(sum(report["outcomes"].values()), "accesses")}
{_fact(counts["claimed"], "of them claimed")}
{_fact(sum(item["refused"] for item in report["principals"]), "refused")}
{_fact(sum(report["finding_counts"].values()), "findings")}
{_fact(counts.get("malformed", 0), "entries not readable")}
{_fact(counts.get("doubtful", 0), "doubtful times")}
{_fact(counts.get("open", 0), "may still go on")}
</div>
<h2>Findings</h2>
{_counts(report["finding_counts"])}
{_table(("severity", "code", "subject", "what", "expected", "found"), map(_finding, report["findings"]))}
{_more(report["findings_omitted"])}
<h2>Principals</h2>
{
        _table(
            (
                "principal",
                "who",
                "accesses#",
                "artifacts#",
                "refused#",
                "busiest day",
                "on it#",
                "limit#",
                "volume",
                "first",
                "last",
            ),
            map(_principal, report["principals"]),
        )
    }
{_more(report["principals_omitted"])}
<p class="dim">{_vouchers(report["vouchers"])}<br>
{_rule(report["volume_rule"])}</p>
<h2>Artifacts</h2>
{
        _table(
            ("artifact", "accesses#", "claimed#", "principals#", "refused#", "first", "last"),
            (
                [
                    item[name]
                    for name in (
                        "artifact",
                        "accesses",
                        "claimed",
                        "principals",
                        "refused",
                        "first",
                        "last",
                    )
                ]
                for item in report["artifacts"]
            ),
        )
    }
{_more(report["artifacts_omitted"])}
<h2>Accesses</h2>
{
        _table(
            (
                "principal",
                "who",
                "artifact",
                "accesses#",
                "refused#",
                "actions",
                "outcomes",
                "codes",
                "first",
                "last",
                "entry#",
            ),
            map(_access, report["accesses"]),
        )
    }
{_more(report["accesses_omitted"])}
{_trail(report["cloudtrail"])}
<script>{_SCRIPT}</script>
</body>
</html>
"""


def who(item: Mapping[str, Any]) -> str:
    """Return what a row of a report says of who it is about: ``vouched for by <identity>`` or ``claimed``."""
    return f"vouched for by {', '.join(item['vouched_by'])}" if item["vouched_by"] else str(item["who"])


def write_report(
    report: Mapping[str, Any], *, page: str | None, report_at: str | None, storages: Storages | None = None
) -> None:
    """Write a review where it is wanted. What lies there is replaced.

    Args:
        report: The review's JSON form.
        page: Location of the HTML page; ``None``: none is written.
        report_at: Location of the JSON; ``None``: none is written.
        storages: Write them.

    Raises:
        UsageError: A location cannot hold a file.
        UnavailableError: It cannot be written.
    """
    storages = storages or Storages()
    if page:
        storages.for_uri(page).put(page, as_html(report).encode("utf-8"), overwrite=True)
    if report_at:
        storages.for_uri(report_at).put(report_at, strictjson.dumps(report), overwrite=True)


def _scope(scope: Mapping[str, Sequence[str]]) -> str:
    parts = [f"{name} {', '.join(items)}" for name, items in scope.items() if items]
    return _text("Only " + "; ".join(parts) if parts else "All artifacts and principals.", 2000)


def _fact(number: int, word: str) -> str:
    return f"<div><b>{number}</b>{word}</div>"


def _counts(counts: Mapping[str, int]) -> str:
    if not counts:
        return "<p>None.</p>"
    return f"<p>{_text(', '.join(f'{code} {count}' for code, count in counts.items()), 4000)}</p>"


def _finding(item: Mapping[str, str]) -> list[Any]:
    return [item.get(name, "") for name in ("severity", "code", "subject", "message", "expected", "found")]


def _principal(item: Mapping[str, Any]) -> list[Any]:
    volume = item["volume"]
    busiest = volume["busiest"] or {"day": "", "accesses": 0, "limit": 0}
    said = f"{len(volume['above']) + volume['above_omitted']} days above" if volume["above"] else ""
    if volume["insufficient_history"]:
        said += f"{', ' if said else ''}{volume['insufficient_history']} days with insufficient history"
    return [
        item["principal"],
        who(item),
        item["accesses"],
        item["artifacts"],
        item["refused"],
        busiest["day"],
        busiest["accesses"],
        busiest["limit"],
        said or ("ok" if volume["days"] else ""),
        item["first"],
        item["last"],
    ]


def _access(item: Mapping[str, Any]) -> list[Any]:
    return [
        item["principal"],
        who(item),
        item["artifact"],
        item["accesses"],
        item["refused"],
        *(
            ", ".join(f"{name} {count}" for name, count in item[kind].items())
            for kind in ("actions", "outcomes", "codes")
        ),
        item["first"],
        item["last"],
        item["last_entry"],
    ]


def _vouchers(names: Sequence[str]) -> str:
    if not names:
        return "Nobody was named who may vouch for writers: all principals are what task processes say of themselves."
    return _text(
        f"May vouch for writers: {', '.join(names)}. What is claimed counts apart from what is vouched for.", 4000
    )


def _rule(rule: Mapping[str, int]) -> str:
    return (
        f"Volume: a day is above its limit with more than {rule['factor']} times the greatest count of the "
        f"{rule['baseline_days']} days before it, and more than {rule['floor']}. "
        f"Less than {rule['least_days']} days of history say nothing."
    )


def _trail(trail: Mapping[str, Any] | None) -> str:
    if trail is None:
        return "<h2>CloudTrail</h2>\n<p>Not compared.</p>"
    rows = [[name.replace("_", " "), "" if value is None else value] for name, value in trail.items()]
    return "<h2>CloudTrail</h2>\n" + _table(("what", "value"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    numeric = [head.endswith("#") for head in heads]
    head = "".join(
        f'<th class="n">{_text(name[:-1])}</th>' if right else f"<th>{_text(name)}</th>"
        for name, right in zip(heads, numeric, strict=True)
    )
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="n">{int(cell)}</td>' if right else f"<td{_class(cell)}>{_text(cell, 2048)}</td>"
            for cell, right in zip(row, numeric, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _class(cell: Any) -> str:
    if isinstance(cell, str) and len(cell) < 64 and _CODE.fullmatch(cell):
        return ' class="code"'
    return f' class="{cell}"' if cell in ("refusal", "unverifiable", "warning") else ""


def _more(count: int) -> str:
    return f"<p>{count} more are in the log and not on this page.</p>" if count else ""


def _text(value: object, limit: int = 300) -> str:
    return html.escape(_NO_HTML.sub("\ufffd", printable(value, limit)), quote=True)
