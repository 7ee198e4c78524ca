"""Pieces that are written and not yet durable.

A sync covers the writes that came before it and no later one: a piece that is lost and written
anew while a sync runs is still unsynced afterwards, so writes are numbered.

Job: that book. Does NOT sync. Tests: ``test_store``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import define, field


@define
class Unsynced:
    """The pieces written since the last good sync.

    Attributes:
        size: bytes of all of them.
    """

    _size_of: Callable[[int], int]
    _writes: dict[int, int] = field(init=False, factory=dict)
    """The number of the last write, by piece."""
    _count: int = field(init=False, default=0)
    size: int = field(init=False, default=0)

    def __len__(self) -> int:
        return len(self._writes)

    def __iter__(self) -> Iterator[int]:
        return iter(self._writes)

    def mark(self, indices: Iterable[int]) -> None:
        """Pieces were written just now."""
        writes, size_of = self._writes, self._size_of
        size, count = 0, self._count  # locals: all pieces of a large content may come at once
        for index in indices:
            if index not in writes:
                size += size_of(index)
            count += 1
            writes[index] = count
        self.size += size
        self._count = count

    def forget(self, index: int) -> None:
        """A piece is not here any more, or is durable."""
        if self._writes.pop(index, None) is not None:
            self.size -= self._size_of(index)

    def batch(self) -> Mapping[int, int]:
        """Return what a sync that begins now will cover, for :meth:`synced`."""
        return dict(self._writes)

    def synced(self, batch: Mapping[int, int]) -> None:
        """The sync that began with ``batch`` succeeded."""
        for index, write in batch.items():
            if self._writes.get(index) == write:
                self.forget(index)
