"""Write the published JSON Schemas of policies, waivers, revocations and table tests, and print lint's table."""

import json
from pathlib import Path

from sealflow.actions.policy_tables import table_schema
from sealflow.policy.document import policy_schema, waiver_schema
from sealflow.policy.lint import CHECKS
from sealflow.policy.revocations import revocations_schema

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"
SCHEMAS = {
    "policy.schema.json": policy_schema,
    "waiver.schema.json": waiver_schema,
    "revocations.schema.json": revocations_schema,
    "policy-tests.schema.json": table_schema,
}


def schema(name: str) -> str:
    """Return the text of a schema's file."""
    return json.dumps(SCHEMAS[name](), indent=2, sort_keys=True) + "\n"


def table() -> str:
    """Return the Markdown table of what lint looks for."""
    return "\n".join(
        ["| id | what is wrong |", "| --- | --- |", *(f"| `{code}` | {text} |" for code, text in CHECKS.items())]
    )


if __name__ == "__main__":
    for name in SCHEMAS:
        (FOLDER / name).write_text(schema(name), encoding="utf-8")
    print(table())
