"""A plain TCP socket at full speed: pieces go out by sendfile and come in where they belong.

Twisted's transports copy what they send three times and hand out what they receive as new objects.
A :class:`Line` takes reading and writing over from such a transport, on a descriptor of its own for
the same socket, and leaves it the life of the connection: connecting, closing, and telling the
protocol of its end. :func:`speed_up` makes one where that can be done; TLS and simulated sockets
keep their transports, which do the same, slower.

    reading    ours -> the transport's for good (``_hand_back``) at the end of the stream or an
               error, so that the transport meets it too and ends the connection in its own way
    writing    straight into the socket; what it does not take is queued, and the producer paused

Does NOT know frames. Blocks a moment where pages of a lent file were warmed and dropped again.
Threat: peers that send or read drop by drop; nothing is queued but what the owner bounds.
Tests: ``test_line``.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final
from typing import Protocol as Structural

from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    IReactorFDSet,
    IReadWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pdist import limits
from p2pdist.storage.loan import Stretch

_MORE: Final = getattr(socket, "MSG_MORE", 0)


class Receiver(Structural):
    """Whom a line brings what it reads."""

    def place(self) -> memoryview | None:
        """Return where the next bytes belong, as far as that is known."""

    def placed(self, size: int) -> None:
        """So many bytes stand there now."""

    def dataReceived(self, data: bytes) -> None:
        """Take bytes whose place was not known."""


def speed_up(transport: Any, receiver: Receiver) -> Line | None:
    """Return a line that stands for ``transport``, or ``None`` where it must do without one."""
    get_handle = getattr(transport, "getHandle", None)
    reactor = getattr(transport, "reactor", None)
    if get_handle is None or not IReactorFDSet.providedBy(reactor):
        return None
    handle = get_handle()
    if not isinstance(handle, socket.socket) or getattr(transport, "TLS", False):
        return None
    try:
        return Line(transport, reactor, handle.dup(), receiver)
    except OSError:
        return None  # out of descriptors


@implementer(IReadWriteDescriptor)
class Line:
    """See the module; the methods are those of :class:`~p2pdist.swarm.sender.Socket`.

    Args:
        transport: whose socket it is; it stops reading.
        reactor: its own.
        descriptor: a duplicate of its socket, ours from now on.
        receiver: gets what comes in.

    Attributes:
        bufferSize: bytes read at once.
    """

    def __init__(
        self, transport: Any, reactor: IReactorFDSet, descriptor: socket.socket, receiver: Receiver
    ) -> None:
        self.bufferSize = limits.BLOCK_BYTES
        self._transport = transport
        self._reactor = reactor
        self._socket = descriptor
        self._receiver = receiver
        self._beyond = bytearray(limits.READ_BEYOND_BYTES)
        self._queue: deque[memoryview | Stretch] = deque()
        self._producer: IPushProducer | None = None
        self._full = False  # the producer is paused
        self._losing = False
        self._dead = False
        self._handed_back = False
        self._awaited = 1
        transport.pauseProducing()
        reactor.addReader(self)

    # --- what reactors call ---

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "Line"

    def connectionLost(self, reason: Failure) -> None:
        """The socket broke: let the transport find out."""
        del reason
        self._hand_back()

    def doRead(self) -> None:
        """Read once: into the place of what comes, if there is one, and a little beyond."""
        place = self._receiver.place()
        try:
            if place is None:
                data = self._socket.recv(min(self.bufferSize, limits.READ_BYTES))
                size = len(data)
            else:
                buffers = [place[: self.bufferSize]]
                if len(place) <= self.bufferSize:
                    buffers.append(memoryview(self._beyond))
                size = self._socket.recvmsg_into(buffers)[0]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self._hand_back()
            return
        if place is None:
            self._receiver.dataReceived(data)
        else:
            there = min(size, len(place))
            self._receiver.placed(there)
            if size > there and not self._dead:
                self._receiver.dataReceived(bytes(self._beyond[: size - there]))
        if not (self._dead or self._handed_back):
            self._await_rest()

    def _await_rest(self) -> None:
        """Let the kernel collect the rest of a block: nothing else can come before its end.

        On a slow link a block comes in many segments, and each would wake us for itself.
        """
        rest = self._receiver.place()
        size = 1 if rest is None else min(len(rest), self.bufferSize, limits.READ_BYTES)
        if size != self._awaited:
            self._awaited = size
            with suppress(OSError):  # where this cannot be set, we are woken more often
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def doWrite(self) -> None:
        """Go on with the queue."""
        self._flush()
        if self._queue or self._dead:
            return
        self._reactor.removeWriter(self)
        if self._losing:
            self._transport.loseConnection()
        elif self._full:
            self._full = False
            if self._producer is not None:
                self._producer.resumeProducing()

    # --- out ---

    def write(self, data: bytes) -> None:
        """Send bytes, or queue them."""
        self._put([memoryview(data)])

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send bytes, or queue them."""
        self._put([memoryview(part) for part in data])

    def write_file(self, header: bytes, stretches: list[Stretch]) -> None:
        """Send a header and what stands in files behind it; each stretch is released when sent."""
        self._put([memoryview(header), *stretches])

    def _put(self, items: Iterable[memoryview | Stretch]) -> None:
        waiting = bool(self._queue)
        self._queue.extend(items)
        if self._dead:
            self._drop()
        elif not waiting:
            self._flush()
            if self._queue:
                self._reactor.addWriter(self)
        if self._queue and not self._full and self._producer is not None:
            self._full = True
            self._producer.pauseProducing()

    def _flush(self) -> None:
        """Send what the socket takes now."""
        queue = self._queue
        try:
            while queue:
                item = queue[0]
                if isinstance(item, Stretch):
                    sent = os.sendfile(self._socket.fileno(), item.handle, item.offset, item.size)
                    if not sent:  # the file is shorter than it was: the frame cannot be finished
                        self.abortConnection()
                        return
                    rest: memoryview | Stretch | None = item.after(sent)
                else:
                    sent = self._socket.send(item, _MORE if len(queue) > 1 else 0)
                    rest = item[sent:] or None
                if rest is None:
                    queue.popleft()
                else:
                    queue[0] = rest
        except (BlockingIOError, InterruptedError):
            self._push()
        except OSError:
            self._drop()
            self._hand_back()

    def _push(self) -> None:
        """Let the kernel send what it took.

        It knows that more is due and waits 200 ms for a full segment, 64 KiB on loopback; but while
        that waits it says that there is no room. To set this option again pushes, see tcp(7).
        """
        with suppress(OSError):  # no TCP
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _drop(self) -> None:
        for item in self._queue:
            if isinstance(item, Stretch):
                item.release()
        self._queue.clear()

    # --- flow and end ---

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Tell ``producer`` from now on when there is room."""
        assert streaming, "a push producer"
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Tell it no more."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Read no more for now."""
        if self._handed_back:
            self._transport.pauseProducing()
        else:
            self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Read on."""
        if self._handed_back:
            self._transport.resumeProducing()
        elif not (self._dead or self._losing):
            self._reactor.addReader(self)

    def _hand_back(self) -> None:
        """Let the transport read; it meets the same end."""
        if not self._handed_back and not self._dead:
            self._handed_back = True
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self._transport.resumeProducing()

    def loseConnection(self) -> None:
        """Close when everything queued is sent."""
        self._losing = True
        self._reactor.removeReader(self)
        if not self._queue:
            self._transport.loseConnection()

    def abortConnection(self) -> None:
        """Close now."""
        self._drop()
        self._transport.abortConnection()

    def getPeer(self) -> IAddress:
        """Return the other end."""
        peer: IAddress = self._transport.getPeer()
        return peer

    def close(self) -> None:
        """Give the descriptor back; the transport is gone."""
        if not self._dead:
            self._dead = True
            self._drop()
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
            self._socket.close()
