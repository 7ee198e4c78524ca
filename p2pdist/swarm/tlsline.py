"""The socket of a private connection: TLS between a TCP transport and its ``PeerConnection``.

    shaking -> open        TLS is up: the connection is told what it settled, and goes on
    any     -> closed      ``abortConnection``, ``loseConnection``, or the transport's end

To Twisted, or to the ``line`` that reads for it, this is the protocol; to the connection it is the
transport (:class:`~p2pdist.swarm.sender.Socket`). Both exist from the start, so that one deadline
covers TLS and all of the handshake. What the connection writes before TLS is up waits for it.
Does NOT know keys, messages or swarms. No alert is ever sent: refusals are resets, all alike, and a
proper end is a ``bye``.
Threat: anything but TLS 1.3 with the right node. Tests: ``test_private_tcp``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.errors import RemoteProtocolError
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.line import Line, speed_up
from p2pdist.swarm.sender import Socket
from p2pdist.swarm.tls import Channel

_OUTGOING_BYTES = limits.BLOCK_BYTES + 8 * 1024
"""A block and the TLS around it."""


class TLSLine(Protocol):
    """See the module.

    Args:
        connection: whose socket it is.
        channel: its TLS.
        opening: returns what goes before our ClientHello, if we dialled.

    Attributes:
        bufferSize: bytes read at once.
    """

    _line: Line | None = None
    _socket: Socket

    def __init__(
        self,
        connection: PeerConnection,
        channel: Channel,
        opening: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._opening = opening
        self._waiting: list[bytes] = []
        self._closed = False

    def connectionMade(self) -> None:
        """Begin: who dialled speaks first."""
        self._line = speed_up(self.transport, self)
        self._socket = self._line or cast("Socket", self.transport)
        self._connection.makeConnection(cast("Any", self))
        if self._opening is not None:
            self._channel.shake()
            hello = self._channel.outgoing(_OUTGOING_BYTES)
            self._socket.write(self._opening(hello) + hello)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The socket is gone."""
        self._closed = True
        if self._line is not None:
            self._line.close()
        self._connection.connectionLost(reason)

    # --- in ---

    def place(self) -> None:
        """See :class:`~p2pdist.swarm.line.Receiver`: TLS has to be taken off first."""

    def placed(self, size: int) -> None:
        """See :class:`~p2pdist.swarm.line.Receiver`; nothing has a place."""

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if self._closed:
            return
        try:
            self._channel.feed(data)
            if self._channel.open or self._shake():
                self._deliver()
        except RemoteProtocolError as error:
            self._connection.log.debug("{error}", error=error)
            self._connection.abort(str(error))

    def _shake(self) -> bool:
        """Go on with the handshake; tell whether it is over."""
        secured = self._channel.shake()
        self._flush()
        if secured is None:
            return False
        waiting, self._waiting = self._waiting, []
        self.writeSequence(waiting)
        self._connection.secured(secured)
        return True

    def _deliver(self) -> None:
        """Hand on all plain bytes there are; those of pieces go where they belong."""
        connection, channel = self._connection, self._channel
        while not self._closed:
            place = connection.place()
            if place is None:
                data = channel.read()
                if not data:
                    return
                connection.dataReceived(data)
            else:
                size = channel.read_into(place)
                if not size:
                    return
                connection.placed(size)

    # --- out: see Socket ---

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send bytes."""
        if not self._channel.open:
            self._waiting += data
            return
        for part in data:
            self._channel.write(part)
        self._flush()

    def _flush(self) -> None:
        while not self._closed and (sealed := self._channel.outgoing(_OUTGOING_BYTES)):
            self._socket.write(sealed)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Tell ``producer`` from now on when there is room."""
        self._socket.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """Tell it no more."""
        self._socket.unregisterProducer()

    def pauseProducing(self) -> None:
        """Read no more for now; what was read is handed on."""
        self._socket.pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        self._socket.resumeProducing()

    @property
    def bufferSize(self) -> int:
        """See :class:`~p2pdist.swarm.sender.Socket`; TLS adds little."""
        return self._socket.bufferSize

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self._socket.bufferSize = size

    def loseConnection(self) -> None:
        """Close when everything is sent."""
        self._closed = True
        self._socket.loseConnection()

    def abortConnection(self) -> None:
        """Close now."""
        self._closed = True
        self._socket.abortConnection()

    def getPeer(self) -> IAddress:
        """Return the other end."""
        return self._socket.getPeer()

    # --- what the connection tunes ---

    def setTcpNoDelay(self, on: bool) -> None:
        """See ITCPTransport."""
        cast("Any", self.transport).setTcpNoDelay(on)

    def getHandle(self) -> Any:
        """Return the socket beneath."""
        return cast("Any", self.transport).getHandle()
