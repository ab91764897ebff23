"""Print the table of finding codes that docs/reference/verdicts.md holds; a test compares the two."""

from sealflow.findings import CODES

MEANING = {
    "evidence": "evidence (3)",
    "identity": "identity (4)",
    "backend": "backend (5)",
    "information": "information",
}


def table() -> str:
    """Return the Markdown table."""
    rows = [f"| `{code}` | {MEANING[kind.group]} | {kind.next_step} |" for code, kind in CODES.items()]
    return "\n".join(["| code | group (exit status) | next step |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    print(table())
