"""The core verification: evidence + requirement + bytes → verdict. Nothing else decides."""

from sealflow.verification.judge import Case, judge

__all__ = ["Case", "judge"]
