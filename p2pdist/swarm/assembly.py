"""Pieces on their way in: the memory they take together, and each one's bytes.

A piece has one buffer of its own size, taken when its first byte comes. Every buffer is paid for
from one :class:`AssemblyBudget` before the piece is asked for, and until its bytes are verified and
on disk. Then it serves the next piece: fresh memory costs as much as receiving into it.
That is also the back-pressure of a slow disk: nothing is asked for that has no room, and nothing
comes that was not asked for, so reading from sockets never has to pause.
Threat: bytes beside, behind or before the ones expected. Tests: ``test_connection``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import define, field

from p2pdist import limits
from p2pdist.errors import UnexpectedMessage
from p2pdist.ids import PieceIndex

T = TypeVar("T")


@define
class AssemblyBudget:
    """Bytes of pieces in assembly, shared by all transfers of a process.

    Args:
        limit_bytes: what may be taken together.

    Attributes:
        used_bytes: what is taken.
    """

    limit_bytes: int = limits.ASSEMBLY_BYTES
    used_bytes: int = field(default=0, init=False)
    _waiting: dict[object, Callable[[], None]] = field(factory=dict, init=False)
    _spare: list[bytearray] = field(factory=list, init=False, repr=False)

    def fits(self, size: int) -> bool:
        """Tell whether ``size`` more bytes have room."""
        return self.used_bytes + size <= self.limit_bytes

    def take(self, size: int) -> None:
        """Take ``size`` bytes. A transfer may overdraw for its only piece, so that none starves."""
        self.used_bytes += size

    def give(self, size: int) -> None:
        """Give ``size`` bytes back and tell those who wait, once."""
        self.used_bytes -= size
        if not self.used_bytes:
            self._spare.clear()
        waiting, self._waiting = self._waiting, {}
        for tell in waiting.values():
            tell()

    def buffer(self, size: int) -> bytearray:
        """Return a buffer of ``size`` bytes that were taken, with anything in it."""
        while self._spare:
            spare = self._spare.pop()
            if len(spare) == size:
                return spare
        return bytearray(size)

    def recycle(self, result: T, buffer: bytearray) -> T:
        """Take back a buffer that nobody uses any more; a callback that passes ``result`` on."""
        if sum(map(len, self._spare)) + self.used_bytes <= self.limit_bytes:
            self._spare.append(buffer)
        return result

    def when_freed(self, owner: object, tell: Callable[[], None]) -> None:
        """Call ``tell`` when bytes are given back; one call per owner."""
        self._waiting[id(owner)] = tell

    def forget(self, owner: object) -> None:
        """Take :meth:`when_freed` back."""
        self._waiting.pop(id(owner), None)


@define
class Assembly:
    """One requested piece from one peer.

    Attributes:
        index: the piece.
        size: its bytes.
        make: returns a buffer.
        wanted: False once it was cancelled; its bytes are then counted and dropped.
        received: bytes that came.
        data: the buffer; empty before the first byte and after a cancel.
    """

    index: PieceIndex
    size: int
    make: Callable[[int], bytearray] = bytearray
    wanted: bool = True
    received: int = 0
    data: bytearray = field(factory=bytearray, repr=False)

    def add(self, offset: int, data: bytes | memoryview) -> bool:
        """Take the next bytes; True when the piece is whole.

        Raises:
            UnexpectedMessage: not the next bytes, or more than the piece has.
        """
        end = offset + len(data)
        if offset != self.received or end > self.size:
            raise UnexpectedMessage(
                "piece-range", f"{offset} to {end}, expected {self.received} to {self.size}"
            )
        if self.wanted:
            self._buffer()[offset:end] = data
        self.received = end
        return end == self.size

    def place(self, offset: int, size: int) -> memoryview | None:
        """Return where ``size`` bytes from ``offset`` belong, if they are wanted and next."""
        end = offset + size
        if not self.wanted or offset != self.received or end > self.size:
            return None
        return memoryview(self._buffer())[offset:end]

    def placed(self, size: int) -> bool:
        """Take bytes that were read into their place; True when the piece is whole."""
        self.received += size
        return self.received == self.size

    def _buffer(self) -> bytearray:
        if not self.data:
            self.data = self.make(self.size)
        return self.data

    def cancel(self) -> None:
        """Drop what came; the rest is dropped as it comes."""
        self.wanted = False
        self.data = bytearray()
