"""A bounded queue with a place for everybody: who sends too much loses his own, and takes nobody else's turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class FairQueue(Generic[Key, Item]):
    """Holds items of many senders. Not for several threads by itself: who uses it has a lock.

    Args:
        most: Most items.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._of: OrderedDict[Key, deque[Item]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, key: Key, item: Item) -> tuple[Key, Item] | None:
        """Add an item. Where there is no room, return what was left out instead, of whoever has most waiting."""
        mine = self._of.get(key)
        if self._size >= self._most:
            longest = max(self._of, key=lambda other: len(self._of[other]))
            if longest == key or len(self._of[longest]) <= len(mine or ()) + 1:
                return key, item
            # The newest: what came first is told first.
            out = longest, self._of[longest].pop()
            self._size -= 1
            self._forget_empty(longest)
        else:
            out = None
        self._of.setdefault(key, deque()).append(item)
        self._size += 1
        return out

    def take(self, most: int, busy: Collection[Key] = ()) -> tuple[Key, list[Item]] | None:
        """Return some items of the sender whose turn it is; ``None`` where there are none.

        Args:
            most: Most items.
            busy: Senders whose turn it is not.
        """
        for key, waiting in self._of.items():
            if key in busy:
                continue
            items = [waiting.popleft() for _ in range(min(most, len(waiting)))]
            self._size -= len(items)
            self._of.move_to_end(key)
            self._forget_empty(key)
            return key, items
        return None

    def put_back(self, key: Key, items: Iterable[Item]) -> None:
        """Put items back before all others of their sender."""
        kept = list(items)
        self._of.setdefault(key, deque()).extendleft(reversed(kept))
        self._size += len(kept)
        self._forget_empty(key)

    def _forget_empty(self, key: Key) -> None:
        if not self._of[key]:
            del self._of[key]
