"""Piece arithmetic and the set of pieces a node holds.

The last-piece arithmetic of the whole project lives here. Does NOT touch disk or network.
Threat: indices and bitfields come from peers; a negative index must not wrap around and a bitfield
of the wrong size must not be believed. Tests: ``test_pieces``.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field, frozen

from p2pdist.errors import LocalProtocolError, MalformedMessage
from p2pdist.ids import PieceIndex


@frozen
class Geometry:
    """How a content of ``length`` bytes is cut into pieces.

    Attributes:
        length: bytes in all, 0 or more.
        piece_length: bytes of every piece but the last.
    """

    length: int
    piece_length: int

    @property
    def count(self) -> int:
        """Number of pieces; 0 for an empty content."""
        return -(-self.length // self.piece_length)

    def check(self, index: int) -> PieceIndex:
        """Return ``index`` as a :data:`~p2pdist.ids.PieceIndex`.

        Raises:
            MalformedMessage: outside 0 to ``count`` - 1.
        """
        if not 0 <= index < self.count:
            raise MalformedMessage("piece-index", f"{index} of {self.count}")
        return PieceIndex(index)

    def offset_of(self, index: int) -> int:
        """Return where the piece starts, in bytes from the start of the content."""
        return index * self.piece_length

    def size_of(self, index: int) -> int:
        """Return the piece's bytes: ``piece_length``, or what is left for the last one."""
        return min(self.piece_length, self.length - index * self.piece_length)

    def bytes_of(self, mask: int) -> int:
        """Return the bytes of all pieces in a mask."""
        last_there = mask and mask >> (self.count - 1)
        short = self.piece_length * self.count - self.length if last_there else 0
        return mask.bit_count() * self.piece_length - short

    def covering(self, offset: int, size: int) -> range:
        """Return the indices of the pieces that overlap ``size`` bytes from ``offset``."""
        if size <= 0:
            return range(0)
        return range(offset // self.piece_length, (offset + size - 1) // self.piece_length + 1)


@define
class Bitfield:
    """A set of piece indices, most significant bit first on the wire (BEP 3).

    Args:
        count: number of pieces; indices run from 0 to ``count`` - 1.
    """

    count: int
    _bits: bytearray = field(init=False, repr=False)
    _count_set: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._bits = bytearray((self.count + 7) // 8)

    @classmethod
    def from_bytes(cls, data: bytes, count: int) -> Bitfield:
        """Decode a bitfield of ``count`` pieces.

        Raises:
            MalformedMessage: wrong size, or a spare bit of the last byte is set.
        """
        if len(data) != (count + 7) // 8:
            raise MalformedMessage("bitfield-size", f"{len(data)} bytes for {count} pieces")
        spare = -count % 8
        if spare and data[-1] & ((1 << spare) - 1):
            raise MalformedMessage("bitfield-spare-bits")
        bitfield = cls(count)
        bitfield._bits[:] = data
        bitfield._count_set = int.from_bytes(data, "big").bit_count()
        return bitfield

    @classmethod
    def full(cls, count: int) -> Bitfield:
        """Return the set of all pieces."""
        bitfield = cls(count)
        for index in range(count):
            bitfield.set(index)
        return bitfield

    @property
    def count_set(self) -> int:
        """How many pieces are in the set."""
        return self._count_set

    @property
    def complete(self) -> bool:
        """Whether every piece is in the set; true for zero pieces."""
        return self._count_set == self.count

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < self.count:
            raise LocalProtocolError(f"piece {index} of {self.count}")
        return index >> 3, 0x80 >> (index & 7)

    def has(self, index: int) -> bool:
        """Tell whether the piece is in the set.

        Raises:
            LocalProtocolError: index out of range, here and below.
        """
        byte, mask = self._place(index)
        return bool(self._bits[byte] & mask)

    def set(self, index: int) -> None:
        """Put the piece into the set; again is fine."""
        byte, mask = self._place(index)
        if not self._bits[byte] & mask:
            self._bits[byte] |= mask
            self._count_set += 1

    def clear(self, index: int) -> None:
        """Take the piece out of the set; again is fine."""
        byte, mask = self._place(index)
        if self._bits[byte] & mask:
            self._bits[byte] ^= mask
            self._count_set -= 1

    def missing(self) -> Iterator[PieceIndex]:
        """Yield the pieces not in the set, lowest first; skips full bytes quickly."""
        for byte, bits in enumerate(self._bits):
            if bits != 0xFF:
                for index in range(byte * 8, min(byte * 8 + 8, self.count)):
                    if not bits & 0x80 >> (index & 7):
                        yield PieceIndex(index)

    def __iter__(self) -> Iterator[PieceIndex]:
        for byte, bits in enumerate(self._bits):
            if bits:
                for bit in range(8):
                    if bits & 0x80 >> bit:
                        yield PieceIndex(byte * 8 + bit)

    def to_bytes(self) -> bytes:
        """Return the wire form; spare bits are zero."""
        return bytes(self._bits)

    def copy(self) -> Bitfield:
        """Return a set of its own with the same pieces."""
        twin = Bitfield(self.count)
        twin._bits[:] = self._bits
        twin._count_set = self._count_set
        return twin
