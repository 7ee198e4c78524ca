"""Sets of pieces as Python integers, and counters over all pieces at once.

Bit ``i`` of a mask is piece ``i``. One operation on a mask of 2^19 pieces touches 64 KiB and no
Python loop, so that picking needs no list of pieces sorted by rarity. :class:`Tally` counts per
piece with the counts standing on edge: plane ``k`` holds bit ``k`` of every piece's count, adding a
mask is one ripple of carries, and the smallest count is found plane by plane.
Does NOT know peers or states. Threat: none of its own; masks from outside are bounded before
(``peerwire``). Tests: ``test_picker``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from attrs import define, field

from p2pdist.ids import PieceIndex

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""A wire bitfield starts at the high bit of its first byte (BEP 3), a mask at the low bit."""


def bit(index: int) -> int:
    """Return the mask of one piece."""
    return 1 << index


def full(count: int) -> int:
    """Return the mask of ``count`` pieces."""
    return (1 << count) - 1


def from_bitfield(data: bytes) -> int:
    """Return the mask of a wire bitfield; spare bits become pieces beyond the last."""
    return int.from_bytes(data.translate(_REVERSED), "little")


def to_bitfield(mask: int, count: int) -> bytes:
    """Return the wire bitfield of ``count`` pieces, spare bits zero."""
    return mask.to_bytes((count + 7) // 8, "little").translate(_REVERSED)


def from_indices(indices: Iterable[int]) -> int:
    """Return the mask of these pieces, in time linear in the highest one."""
    listed = list(indices)
    data = bytearray(max(listed, default=0) // 8 + 1)
    for index in listed:
        data[index >> 3] |= 1 << (index & 7)
    return int.from_bytes(data, "little")


def indices(mask: int) -> Iterator[PieceIndex]:
    """Iterate over the pieces of a mask, lowest first; for masks of few pieces."""
    while mask:
        lowest = mask & -mask
        yield PieceIndex(lowest.bit_length() - 1)
        mask ^= lowest


def first(mask: int) -> PieceIndex:
    """Return the lowest piece of a mask that is not empty."""
    return PieceIndex((mask & -mask).bit_length() - 1)


def pick(mask: int, rng: random.Random) -> PieceIndex:
    """Return one piece of a mask that is not empty, each with the same chance.

    The n-th set bit is found by halving: the widths add up to twice the mask's, however many
    bits are set.
    """
    rank = rng.randrange(mask.bit_count())
    base, width = 0, mask.bit_length()
    while width > 1:
        half = width // 2
        low = mask & ((1 << half) - 1)
        below = low.bit_count()
        if rank < below:
            mask, width = low, half
        else:
            mask, width = mask >> half, width - half
            base, rank = base + half, rank - below
    return PieceIndex(base)


@define
class Tally:
    """One counter per piece, changed and compared for whole masks."""

    _planes: list[int] = field(factory=list)

    def add(self, mask: int) -> None:
        """Count each piece of ``mask`` once more."""
        for level, plane in enumerate(self._planes):
            if not mask:
                return
            self._planes[level] = plane ^ mask
            mask &= plane
        if mask:
            self._planes.append(mask)

    def remove(self, mask: int) -> None:
        """Count each piece of ``mask`` once less; every one must have been counted."""
        for level, plane in enumerate(self._planes):
            if not mask:
                return
            self._planes[level] = plane ^ mask
            mask ^= mask & plane
        assert not mask, "removed what was never added"

    def count(self, index: int) -> int:
        """Return the counter of one piece."""
        return sum(((plane >> index) & 1) << level for level, plane in enumerate(self._planes))

    def planes(self) -> tuple[int, ...]:
        """Return the counters as masks: that of bit 0 of every counter first."""
        return tuple(self._planes)

    def least(self, mask: int) -> int:
        """Return the pieces of ``mask`` whose counter is the smallest among them."""
        for plane in reversed(self._planes):
            if smaller := mask ^ (mask & plane):
                mask = smaller
        return mask

    def uncounted(self, mask: int) -> int:
        """Return the pieces of ``mask`` whose counter is zero."""
        for plane in self._planes:
            mask ^= mask & plane
        return mask
