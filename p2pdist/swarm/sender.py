"""Long things on their way out: pieces and metadata, block by block, as the socket takes them.

A :class:`BlockSender` is the transport's push producer for the whole life of a connection. It reads
ahead of the socket by at most ``limits.SEND_BUFFER_BYTES`` and writes only while the transport has
room. Control frames are written past it, at once: each block is written whole, so they always fall
between two blocks, and on a slow link blocks shrink so that none delays them by much more than
``limits.BLOCK_S``. One block at most waits in the transport, for the same reason.
Does NOT know pieces, peers or the store. Threat: a peer that never reads; it pins one read-ahead.
Tests: ``test_sender``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol as Structural

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pdist import limits
from p2pdist.storage.loan import Loan
from p2pdist.swarm.line import Line
from p2pdist.swarm.shaper import OPEN_GATE, Gate


class Socket(Structural):
    """What the swarm needs of Twisted's TCP transports.

    Attributes:
        bufferSize: bytes read at once.
    """

    bufferSize: int

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Queue bytes; joining them is left to the transport."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Tell ``producer`` from now on when there is room."""

    def unregisterProducer(self) -> None:
        """Tell it no more."""

    def pauseProducing(self) -> None:
        """Read no more for now."""

    def resumeProducing(self) -> None:
        """Read on."""

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
        read: returns the bytes at ``(offset, size)``, all of them, or it fails. Where the sender
            has a line (:attr:`BlockSender.line`) it may lend them instead.
        progressed: called with the size of each block handed to the transport.
        done: called when all were handed over.
        failed: called when a read failed; nothing more of the parcel is sent.
    """

    size: int
    header: Callable[[int, int], bytes]
    read: Callable[[int, int], Deferred[bytes] | Deferred[bytes | Loan]]
    progressed: Callable[[int], None]
    done: Callable[[], None]
    failed: Callable[[Failure], None]


@define(eq=False)
class _Bytes:
    """What was read and is not sent."""

    data: memoryview

    def __len__(self) -> int:
        return len(self.data)

    def write(self, header: bytes, size: int, sender: BlockSender) -> None:
        part, self.data = self.data[:size], self.data[size:]
        sender.transport.writeSequence((header, bytes(part)))

    def release(self) -> None:
        """Nothing is held."""


@define(eq=False)
class _Lent:
    """What was lent and is not sent."""

    loan: Loan
    begin: int = 0

    def __len__(self) -> int:
        return len(self.loan) - self.begin

    def write(self, header: bytes, size: int, sender: BlockSender) -> None:
        assert sender.line is not None, "only a line is lent to"
        stretches = self.loan.cut(self.begin, size)
        self.begin += size
        sender.line.write_file(header, stretches)

    def release(self) -> None:
        self.loan.release()


@define(eq=False)
class _Going:
    """The parcel being sent: ``sent`` <= ``read`` <= size; between them lie the chunks."""

    parcel: Parcel
    since: float
    sent: int = 0
    read: int = 0
    reading: bool = False
    chunks: list[_Bytes | _Lent] = field(factory=list)

    @property
    def buffered(self) -> int:
        return self.read - self.sent

    def release(self) -> None:
        """Give back what is not sent."""
        for chunk in self.chunks:
            chunk.release()
        self.chunks.clear()


@implementer(IPushProducer)
class BlockSender:
    """Sends parcels one after the other.

    Args:
        transport: where to.
        seconds: the clock, for the block size.
        line: ``transport``, where it is a line.

    Attributes:
        transport: where to.
        line: see above.
        gate: what blocks wait at for the rate limits; it calls :meth:`proceed`.
        paced: told the block size when it has doubled or halved.
    """

    gate: Gate = OPEN_GATE

    def __init__(
        self, transport: Socket, seconds: Callable[[], float], line: Line | None = None
    ) -> None:
        self.transport = transport
        self.line = line
        self._seconds = seconds
        self._rate = math.inf  # to begin a parcel with; on all but fast lines carefully
        self._told = 0
        self.paced: Callable[[int], None] = lambda _size: None
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
            self._drop()
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
        self._drop()
        self._queue.clear()

    def _drop(self) -> None:
        """Send no more of what is going."""
        if self._going is not None:
            self._going.release()
            self._going = None

    def proceed(self) -> None:
        """The gate has room again."""
        self._go()

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
        room = self.gate.room()
        if not room:
            return False
        self._write(going, room)
        return True

    def _read(self, going: _Going, size: int) -> None:
        going.reading = True
        waiting = going.parcel.read(going.read, size)
        waiting.addCallbacks(
            self._cb_read, self._eb_read, callbackArgs=(going, size), errbackArgs=(going,)
        )

    def _cb_read(self, data: bytes | Loan, going: _Going, size: int) -> None:
        assert len(data) == size, "a read gives all bytes or fails"
        going.reading = False
        going.read += size
        going.chunks.append(_Lent(data) if isinstance(data, Loan) else _Bytes(memoryview(data)))
        if going is self._going:
            self._go()
        else:
            going.release()

    def _eb_read(self, failure: Failure, going: _Going) -> None:
        if going is self._going:
            self._drop()
            going.parcel.failed(failure)
            self._go()

    def _write(self, going: _Going, room: int) -> None:
        chunk = going.chunks[0]
        size = min(len(chunk), self._block_bytes(going), room)
        header = going.parcel.header(going.sent, size)
        last = size == len(chunk)
        if last:
            del going.chunks[0]
        going.sent += size
        whole = going.sent == going.parcel.size
        if whole:
            self._going = None
            rate = self._rate_of(going)
            self._rate = rate if rate * limits.BLOCK_S > 2 * limits.BLOCK_BYTES else 0.0
        self.gate.spent(len(header) + size)
        # With nothing allowed to wait the transport pauses us until the block is gone.
        at_once, self.transport.bufferSize = self.transport.bufferSize, 0
        chunk.write(header, size, self)
        self.transport.bufferSize = at_once
        if last:
            chunk.release()
        going.parcel.progressed(size)
        if whole:
            going.parcel.done()

    def _block_bytes(self, going: _Going) -> int:
        quick = self._rate_of(going) * limits.BLOCK_S
        size = int(max(limits.BLOCK_MIN_BYTES, min(limits.BLOCK_BYTES, quick)))
        if not size < 2 * self._told < 4 * size:
            self._told = size
            self.paced(size)
        return size

    def _rate_of(self, going: _Going) -> float:
        """Return bytes per second of a parcel, so far."""
        if not going.sent:
            return self._rate
        elapsed_s = self._seconds() - going.since
        return going.sent / elapsed_s if elapsed_s > 0 else math.inf
