"""What a target is, and where its seeds lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sealflow.errors import SealflowError

CORPUS: Final = Path(__file__).parents[1] / "corpus"


@dataclass(frozen=True)
class Target:
    """A reader of untrusted bytes.

    Attributes:
        name: Its own, and that of its folder of seeds.
        read: Reads bytes; whatever they are, it returns or raises one of ``refuses``.
        modules: Those that decode something on the way; each of them must run when the good seeds are read.
        refuses: Its errors.
    """

    name: str
    read: Callable[[bytes], object]
    modules: tuple[str, ...]
    refuses: tuple[type[Exception], ...] = (SealflowError,)

    def seeds(self) -> dict[str, bytes]:
        """Return its seeds by their names."""
        return {path.name: path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))}


def text(data: bytes) -> str:
    """Return bytes as the text that a program would hand over for them."""
    return data.decode("utf-8", "surrogateescape")
