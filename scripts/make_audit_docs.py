"""Write the published JSON Schema of audit events."""

import json
from pathlib import Path

from sealflow.audit.event import event_schema

PATH = Path(__file__).resolve().parent.parent / "docs" / "reference" / "audit-event.schema.json"


def schema() -> str:
    """Return the text of the schema's file."""
    return json.dumps(event_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema(), encoding="utf-8")
