"""Kinds of values in documents of an admin: names, texts, durations, times, patterns and places."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Final, Literal

from sealflow.policy.form_parts import About, Check, Matches, Size
from sealflow.policy.globs import check_pattern, check_place

_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(text: str) -> int:
    """Return the seconds of a duration such as ``90m``, ``24h``, ``30d`` or ``2w``."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if match is None:
        raise ValueError("a duration is a number with m, h, d or w, such as 24h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def _artifact_digest(text: str) -> None:
    if not re.fullmatch(r"(sha256|dirHash):[0-9a-f]{64}", text):
        raise ValueError("an artifact digest is sha256: or dirHash: and 64 hex digits")


def _pattern(text: str) -> None:
    if problem := check_pattern(text):
        raise ValueError(problem)


def _place(text: str) -> None:
    if problem := check_place(text):
        raise ValueError(problem)


Api = Literal["sealflow/v1"]
Moment = datetime.datetime
Name = Annotated[str, Matches(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Names = Annotated[tuple[Name, ...], Size(1, 64)]
Text = Annotated[str, Size(1, 2000), Matches(r"^[^\x00-\x1f\x7f-\x9f]*$")]
Texts = Annotated[tuple[Text, ...], Size(1, 100)]
Duration = Annotated[str, Matches(r"^[1-9][0-9]{0,5}[mhdw]$"), About(examples=("24h", "30d"))]
ArtifactDigest = Annotated[str, Check(_artifact_digest)]
Pattern = Annotated[Text, Check(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], Size(1, 100)]
Place = Annotated[Text, Check(_place)]
Places = Annotated[tuple[Place, ...], Size(1, 100)]
Orchestrator = Literal["airflow", "kfp", "python", "cli"]
#: PEM text of a public key, and of certificates.
KeyText = Annotated[str, Size(1, 8192)]
Roots = Annotated[tuple[Annotated[str, Size(1, 65536)], ...], Size(1, 16)]
