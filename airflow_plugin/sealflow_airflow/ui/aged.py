"""Values that cost something to make: made in a thread, used for a while, shown with their age."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

#: How many seconds a page waits for the very first value.
PATIENCE: Final = 2.0
#: After how many seconds a value that could not be made is tried again.
_AGAIN: Final = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Seen(Generic[T]):
    """A value and its age.

    Attributes:
        value: The value, ``None`` while there is none.
        age: Seconds since it was made.
        problem: Why a newer one could not be made; empty when it could.
    """

    value: T | None
    age: int
    problem: str


class Aged(Generic[T]):
    """Makes a value again when it is asked for and has become old.

    Args:
        make: Makes it.
        fresh_for: How many seconds it is used without making another one.
    """

    def __init__(self, make: Callable[[], T], fresh_for: float) -> None:
        self._make = make
        self._fresh_for = fresh_for
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._value: T | None = None
        self._at = 0.0
        self._due = float("-inf")
        self._problem = ""

    def get(self, patience: float | None = None) -> Seen[T]:
        """Return the value: the old one while a new one is made.

        Args:
            patience: How many seconds the very first one is waited for.
        """
        with self._lock:
            if time.monotonic() >= self._due and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="sealflow-pages", daemon=True)
                self._thread.start()
            thread = self._thread
        if self._value is None and thread is not None:
            thread.join(PATIENCE if patience is None else patience)
        age = 0 if self._value is None else max(0, int(time.monotonic() - self._at))
        return Seen(self._value, age, self._problem)

    def _run(self) -> None:
        try:
            made = self._make()
        except Exception as error:
            # Whatever it was, the page says it; one that is not there says nothing.
            self._problem, self._due = f"{type(error).__name__}: {error}", time.monotonic() + _AGAIN
            return
        now = time.monotonic()
        self._value, self._at, self._problem, self._due = made, now, "", now + self._fresh_for
