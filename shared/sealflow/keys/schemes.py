"""Tables of URI schemes, each with what opens a key of that scheme. Others can extend them."""

from __future__ import annotations

from typing import Generic, TypeVar

from sealflow.errors import UsageError
from sealflow.findings import printable

Factory = TypeVar("Factory")


class Schemes(dict[str, Factory], Generic[Factory]):
    """URI scheme to factory. Entry points of the group ``sealflow.<noun>s`` are loaded when a scheme is not known.

    Args:
        noun: What is opened, for messages.
        examples: URIs, for messages.
        factories: Those of our own schemes.
    """

    def __init__(self, noun: str, examples: str, factories: dict[str, Factory]) -> None:
        super().__init__(factories)
        self._noun = noun
        self._examples = examples

    def register(self, scheme: str, factory: Factory) -> None:
        """Add a URI scheme. A scheme that is taken stays as it is.

        Raises:
            UsageError: The scheme is taken.
        """
        if self.setdefault(scheme, factory) is not factory:
            raise UsageError(f"The {self._noun} scheme {printable(scheme, 60)!r} is taken.")

    def find(self, uri: str) -> Factory:
        """Return what opens a URI.

        Raises:
            UsageError: It is no URI, or nobody knows its scheme.
        """
        scheme, colon, _ = uri.partition(":")
        if not colon:
            # Not repeated: somebody may have put the key itself here, in one form or another, and messages end up in
            # logs.
            raise UsageError(
                f"The {self._noun} is not a {self._noun} URI.",
                next_step=f"Write {self._examples}.",
            )
        if scheme not in self:
            self._load_entry_points()
        if scheme not in self:
            known = ", ".join(sorted(self))
            raise UsageError(f"No {self._noun} knows the scheme {printable(scheme, 60)!r}; known: {known}.")
        return self[scheme]

    def _load_entry_points(self) -> None:
        from importlib.metadata import entry_points

        for entry in entry_points(group=f"sealflow.{self._noun}s"):
            self.setdefault(entry.name, entry.load())
