"""Long things on their way out: pieces and metadata, block by block, as the socket takes them.

A :class:`BlockSender` is the transport's push producer for the whole life of a connection. It reads
ahead of the socket by at most ``limits.SEND_BUFFER_BYTES`` and writes only while the transport has
room. Control frames are written past it, at once: each block is written whole, so they always fall
between two blocks, and on a slow link blocks shrink so that none delays them by much more than
``limits.BLOCK_S``.
Does NOT know pieces, peers or the store. Threat: a peer that never reads; it pins one read-ahead.
Tests: ``test_sender``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol as Structural

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pdist import limits


class Socket(Structural):
    """What the swarm needs of Twisted's TCP transports."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Queue bytes; joining them is left to the transport."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Tell ``producer`` from now on when there is room."""

    def unregisterProducer(self) -> None:
        """Tell it no more."""

    def loseConnection(self) -> None:
        """Close when everything queued is written."""

    def abortConnection(self) -> None:
        """Close now."""

    def getPeer(self) -> IAddress:
        """Return the other end."""


@define(eq=False)
class Parcel:
    """Something long to send.

    Args:
        size: its bytes, at least 1.
        header: returns the frame header for ``(offset, size)``.
        read: returns the bytes at ``(offset, size)``; all of them, or it fails.
        progressed: called with the size of each block handed to the transport.
        done: called when all were handed over.
        failed: called when a read failed; nothing more of the parcel is sent.
    """

    size: int
    header: Callable[[int, int], bytes]
    read: Callable[[int, int], Deferred[bytes]]
    progressed: Callable[[int], None]
    done: Callable[[], None]
    failed: Callable[[Failure], None]


@define(eq=False)
class _Going:
    """The parcel being sent: ``sent`` <= ``read`` <= size; between them lie the chunks."""

    parcel: Parcel
    since: float
    sent: int = 0
    read: int = 0
    reading: bool = False
    chunks: list[memoryview] = field(factory=list)

    @property
    def buffered(self) -> int:
        return self.read - self.sent


@implementer(IPushProducer)
class BlockSender:
    """Sends parcels one after the other.

    Args:
        transport: where to.
        seconds: the clock, for the block size.
    """

    def __init__(self, transport: Socket, seconds: Callable[[], float]) -> None:
        self._transport = transport
        self._seconds = seconds
        self._queue: list[Parcel] = []
        self._going: _Going | None = None
        self._paused = False
        self._stopped = False
        self._busy = False

    def send(self, parcel: Parcel) -> None:
        """Send ``parcel`` after those handed over before."""
        self._queue.append(parcel)
        self._go()

    def cancel(self, parcel: Parcel) -> None:
        """Send no more blocks of ``parcel``; none of its functions is called any more."""
        if self._going is not None and self._going.parcel is parcel:
            self._going = None
            self._go()
        elif parcel in self._queue:
            self._queue.remove(parcel)

    def pauseProducing(self) -> None:
        """The transport has enough for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self._paused = False
        self._go()

    def stopProducing(self) -> None:
        """The connection is gone or going; nothing is sent or called any more."""
        self._stopped = True
        self._going = None
        self._queue.clear()

    def _go(self) -> None:
        """Write what can be written and read what may be read; calls from within come here too."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._step():
                pass
        finally:
            self._busy = False

    def _step(self) -> bool:
        """Do one thing; False when there is nothing to do until somebody calls."""
        if self._stopped:
            return False
        if self._going is None:
            if not self._queue:
                return False
            self._going = _Going(self._queue.pop(0), self._seconds())
        going = self._going
        left = going.parcel.size - going.read
        if left and not going.reading and going.buffered <= limits.SEND_BUFFER_BYTES // 2:
            self._read(going, min(left, limits.SEND_BUFFER_BYTES - going.buffered))
            return True
        if self._paused or not going.chunks:
            return False
        self._write(going)
        return True

    def _read(self, going: _Going, size: int) -> None:
        going.reading = True
        waiting = going.parcel.read(going.read, size)
        waiting.addCallbacks(
            self._cb_read, self._eb_read, callbackArgs=(going, size), errbackArgs=(going,)
        )

    def _cb_read(self, data: bytes, going: _Going, size: int) -> None:
        assert len(data) == size, "a read gives all bytes or fails"
        going.reading = False
        going.read += size
        going.chunks.append(memoryview(data))
        if going is self._going:
            self._go()

    def _eb_read(self, failure: Failure, going: _Going) -> None:
        if going is self._going:
            self._going = None
            going.parcel.failed(failure)
            self._go()

    def _write(self, going: _Going) -> None:
        chunk = going.chunks[0]
        size = min(len(chunk), self._block_bytes(going))
        header = going.parcel.header(going.sent, size)
        if size == len(chunk):
            del going.chunks[0]
        else:
            going.chunks[0] = chunk[size:]
        going.sent += size
        whole = going.sent == going.parcel.size
        if whole:
            self._going = None
        self._transport.writeSequence((header, bytes(chunk[:size])))
        going.parcel.progressed(size)
        if whole:
            going.parcel.done()

    def _block_bytes(self, going: _Going) -> int:
        elapsed_s = self._seconds() - going.since
        if elapsed_s <= 0:
            return limits.BLOCK_BYTES
        quick = int(going.sent / elapsed_s * limits.BLOCK_S)
        return max(limits.BLOCK_MIN_BYTES, min(limits.BLOCK_BYTES, quick))
