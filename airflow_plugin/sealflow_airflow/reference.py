"""What operators take for an artifact, and the usual slips."""

from __future__ import annotations

from typing import Any


def reference(value: Any, parameter: str) -> Any:
    """Return a location or a reference as it was given.

    Args:
        value: A location, a mapping or its JSON text.
        parameter: Name of the operator's parameter.

    Raises:
        UsageError: ``REFERENCE_MALFORMED``: a template rendered a mapping as Python text, which is no JSON.
    """
    if isinstance(value, str) and value.lstrip().startswith("{'"):
        from sealflow.errors import UsageError

        raise UsageError(
            f"`{parameter}` is a reference in Python's notation.",
            code="REFERENCE_MALFORMED",
            next_step="Pass the task's `.output`, or write {{ ti.xcom_pull(…) | tojson }}.",
        )
    return value


def location(value: Any, parameter: str) -> Any:
    """Return a location of which nobody has said anything yet.

    Args:
        value: The location.
        parameter: Name of the operator's parameter.

    Raises:
        UsageError: It is a reference: what it names was signed, and is to be checked before it is signed anew.
    """
    from sealflow.evidence.reference import is_reference

    if is_reference(value):
        from sealflow.errors import UsageError

        raise UsageError(
            f"`{parameter}` is a reference to a signed artifact, not a location.",
            next_step="PromoteArtifactOperator moves what was signed as it is. To encrypt it, upload the checked copy "
            "in a task body: with sealflow.verified(ref) as path: …",
        )
    return value
