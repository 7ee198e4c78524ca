"""One TCP connection between two peers: a Twisted protocol around wire, handshake and sender.

    connecting -> proving     ``connectionMade``: preface, handshake, ``limits.HANDSHAKE_S`` in all
    proving    -> open        the handshake names the peer; the owner takes over
    any        -> closing     ``close``: a bye, then the socket, ``limits.CLOSE_S`` at most; the
                              owner hears ``connection_closed`` at once
    any        -> gone        ``connectionLost``; the owner hears ``connection_gone``

Job: move messages, keep the bytes of requested pieces apart until each is whole, notice silence.
What was not asked for closes the connection. Does NOT decide what to fetch or serve (``exchange``),
nor who may connect (``admission``).
Threat: everything that comes in. Errors of the other side are counted by rule and logged at debug
level; nothing it sends can raise out of ``dataReceived``. Tests: ``test_connection``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, cast
from typing import Protocol as Structural

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, from_socket
from p2pdist.errors import RemoteProtocolError, UnexpectedMessage
from p2pdist.ids import NodeID, PieceIndex
from p2pdist.logs import new_logger
from p2pdist.swarm.assembly import Assembly
from p2pdist.swarm.binding import PrivateAcceptor, PrivateDialler, Secured
from p2pdist.swarm.handshake import Handshake
from p2pdist.swarm.line import Line, speed_up
from p2pdist.swarm.messages import (
    Block,
    Bye,
    ByeReason,
    Cancel,
    KeepAlive,
    Message,
    Received,
    Reject,
    Request,
)
from p2pdist.swarm.peerwire import PREFACE, PeerWire, bye_reason, encode
from p2pdist.swarm.roundtrips import RoundTrip, round_trip
from p2pdist.swarm.sender import BlockSender, Socket
from p2pdist.swarm.shaper import OPEN_GATE, Gate, Share

_TCP_NOTSENT_LOWAT: Final = 25
"""Linux; the socket module names it only on other systems."""


class ConnectionOwner(Structural):
    """What a proved connection reports to."""

    def message_received(self, peer: PeerConnection, message: Message) -> None:
        """Take a message.

        Raises:
            RemoteProtocolError: it may not come now; the connection is closed.
        """

    def piece_bytes_received(self, peer: PeerConnection, size: int) -> None:
        """``size`` more bytes of a wanted piece are here."""

    def piece_received(self, peer: PeerConnection, index: PieceIndex, data: bytearray) -> None:
        """A wanted piece is whole, and not verified."""

    def connection_closed(self, peer: PeerConnection, reason: str) -> None:
        """Nothing more comes from it, or can be sent; called once, from within ``close`` too."""

    def connection_gone(self, peer: PeerConnection) -> None:
        """Its socket is gone too."""


class ConnectionWatcher(Structural):
    """What follows a connection from its start, before it has an owner."""

    def connection_proved(self, peer: PeerConnection) -> None:
        """The handshake is over; find an owner and :meth:`PeerConnection.attach` it, or close."""

    def connection_ended(self, peer: PeerConnection, reason: str) -> None:
        """The connection is gone, proved or not; ``reason`` is for people."""


class PeerConnection(Protocol):
    """A connection to one peer.

    Args:
        clock: time.
        handshake: our side of it.
        watcher: told when it is proved and when it ends.
        outgoing: whether we dialled.
        handshake_s: how long that may take.

    Attributes:
        address: the other end's socket address.
        node_id: who is proved to be there; there is none before.
        useful_at: last time a piece's bytes moved either way.
        received_bytes: of wanted pieces.
        sent_bytes: of pieces.
        remote_bye: reason the other side gave for closing, or ``None``.
    """

    log = new_logger()
    address: Address
    node_id: NodeID
    sender: BlockSender
    _line: Line | None
    _socket: Socket

    def __init__(
        self,
        *,
        clock: IReactorTime,
        handshake: Handshake,
        watcher: ConnectionWatcher,
        outgoing: bool,
        handshake_s: float = limits.HANDSHAKE_S,
    ) -> None:
        self.clock = clock
        self.handshake = handshake
        self.outgoing = outgoing
        self.useful_at = clock.seconds()
        self.received_bytes = self.sent_bytes = 0
        self.remote_bye: int | None = None
        self._handshake_s = handshake_s
        self._watcher = watcher
        self._owner: ConnectionOwner | None = None
        self._wire = PeerWire()
        self._intake: Gate = OPEN_GATE
        self._requests: dict[PieceIndex, Assembly] = {}
        self._heard_at = self._spoke_at = clock.seconds()
        self._closing = False
        self._reason = ""
        self._deadline: IDelayedCall | None = None

    # --- life ---

    def connectionMade(self) -> None:
        """Introduce ourselves."""
        _tune(self.transport)
        self._line = speed_up(self.transport, self)
        self._socket = self._line or cast("Socket", self.transport)
        self.address = address_of(self._socket.getPeer())
        self.sender = BlockSender(self._socket, self.clock.seconds, self._line)
        self.sender.paced = self._hold_back
        self._socket.registerProducer(self.sender, True)
        self._deadline = self.clock.callLater(self._handshake_s, self._too_late)
        self._socket.write(PREFACE)
        start = self.handshake.start()
        if start is not None:
            self.send(start)

    def secured(self, channel: Secured) -> None:
        """TLS below us is up (private swarms): go on with the handshake."""
        assert isinstance(self.handshake, (PrivateDialler, PrivateAcceptor)), "else there is no TLS"
        start = self.handshake.secured(channel)
        if start is not None:
            self.send(start)

    def _hold_back(self, block_bytes: int) -> None:
        """Let no more wait in the kernel than part of a block: it delays what comes behind it."""
        _set_notsent(self.transport, block_bytes // 4)

    def attach(self, owner: ConnectionOwner) -> None:
        """Report to ``owner`` from now on."""
        self._owner = owner

    def obey(self, share: Share) -> None:
        """Keep to these rate limits from now on."""
        self.sender.gate = share.upload_gate(self.sender.proceed)
        self._intake = share.download_gate(self._read_on)

    @property
    def is_open(self) -> bool:
        """Whether messages can still be exchanged."""
        return self._owner is not None and not self._closing

    def close(self, reason: ByeReason, text: str = "") -> None:
        """Say goodbye and close; control frames queued before go out if the other side reads.

        Who has proved nothing in a private swarm hears nothing. Again is fine.
        """
        if self._closing:
            return
        if self._owner is None and self.handshake.silent:
            self.abort(text or f"refused: {reason.name.lower()}")
            return
        self.send(Bye(reason))
        self._end(text or f"closed by us: {reason.name.lower()}")
        self._set_deadline(limits.CLOSE_S)
        self._socket.loseConnection()

    def abort(self, text: str) -> None:
        """Close without a word; also cuts a polite close short."""
        self._end(text)
        self._socket.abortConnection()

    def shed(self) -> None:
        """Make room for others (:class:`~p2pdist.swarm.admission.Admitted`)."""
        self.close(ByeReason.FULL)

    def _end(self, text: str) -> None:
        """Stop exchanging messages and tell the owner, once."""
        self._set_deadline(None)
        if self._closing:
            return
        self._closing = True
        self._reason = text
        self._requests.clear()
        self.sender.stopProducing()
        self.sender.gate.close()
        self._intake.close()
        self._socket.unregisterProducer()
        if self._owner is not None:
            self._owner.connection_closed(self, text)

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None:
            self._deadline = self.clock.callLater(seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        self.abort("no handshake in time")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The socket is gone."""
        self._end(reason.getErrorMessage())
        if self._line is not None:
            self._line.close()
        self.log.debug(
            "connection to {peer} ended: {reason}", peer=self.address, reason=self._reason
        )
        if self._owner is not None:
            self._owner.connection_gone(self)
        self._watcher.connection_ended(self, self._reason)

    # --- in ---

    def dataReceived(self, data: bytes) -> None:
        """Take bytes from the socket."""
        self._heard_at = self.clock.seconds()
        self._intake.spent(len(data))
        self._bound_reading()
        try:
            for message in self._wire.receive_data(data):
                if self._closing:
                    return
                self._receive(message)
        except RemoteProtocolError as error:
            self.refuse(error)

    def _bound_reading(self) -> None:
        """Read only what the rate limits allow; at nothing TCP slows the other side down."""
        room = self._intake.room()
        if room:
            most = limits.READ_BYTES if self._line is None else limits.BLOCK_BYTES
            self._socket.bufferSize = min(room, most)
        else:
            self._socket.pauseProducing()

    def _read_on(self) -> None:
        self._socket.resumeProducing()
        self._bound_reading()

    def refuse(self, error: RemoteProtocolError) -> None:
        """Close because the other side broke a rule."""
        self.log.debug(
            "{peer} broke rule {rule}: {error}", peer=self.address, rule=error.rule, error=error
        )
        self.close(bye_reason(error), str(error))

    def _receive(self, message: Message) -> None:
        if isinstance(message, Bye):
            self.remote_bye = message.reason
            self.abort(f"closed by peer: {_name(message.reason)}")
        elif self._owner is None:
            self._prove(message)
        elif isinstance(message, Block):
            self._block_received(message)
        elif not isinstance(message, KeepAlive):
            if isinstance(message, Reject):
                self._check_reject(message)
            self._owner.message_received(self, message)

    def _prove(self, message: Message) -> None:
        answer = self.handshake.receive(message)
        if answer is not None:
            self.send(answer)
        if self.handshake.peer is not None:
            self.node_id = self.handshake.peer
            self._wire.proved = True
            self._set_deadline(None)
            self._watcher.connection_proved(self)
            assert self._owner is not None or self._closing, "a proved connection has an owner"

    def _block_received(self, block: Block) -> None:
        assembly = self._requests.get(block.index)
        if assembly is None:
            raise UnexpectedMessage("unrequested-piece", str(block.index))
        self._bytes_came(assembly, len(block.data), whole=assembly.add(block.offset, block.data))

    def _bytes_came(self, assembly: Assembly, size: int, *, whole: bool) -> None:
        if whole:
            del self._requests[assembly.index]
            self.send(Received(assembly.index))
        if assembly.wanted and self._owner is not None:
            self.useful_at = self._heard_at
            self.received_bytes += size
            self._owner.piece_bytes_received(self, size)
            if whole:
                self._owner.piece_received(self, assembly.index, assembly.data)

    def place(self) -> memoryview | None:
        """See :class:`~p2pdist.swarm.line.Receiver`: the rest of a block goes into its piece."""
        coming = self._wire.coming
        if coming is None or self._closing:
            return None
        index, offset, size = coming
        assembly = self._requests.get(index)
        return None if assembly is None else assembly.place(offset, size)

    def placed(self, size: int) -> None:
        """See :class:`~p2pdist.swarm.line.Receiver`."""
        coming = self._wire.coming
        assert coming is not None, "it had a place"
        assembly = self._requests[coming[0]]
        self._wire.came(size)
        self._heard_at = self.clock.seconds()
        self._intake.spent(size)
        self._bound_reading()
        self._bytes_came(assembly, size, whole=assembly.placed(size))

    def _check_reject(self, reject: Reject) -> None:
        if self._requests.pop(reject.index, None) is None:
            raise UnexpectedMessage("unrequested-reject", str(reject.index))

    # --- out ---

    def send(self, message: Message) -> None:
        """Send a control frame; nothing happens once the connection is closing."""
        if not self._closing:
            self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Send an encoded control frame, as :meth:`send` does."""
        if not self._closing:
            self._spoke_at = self.clock.seconds()
            self.sender.gate.spent(len(frame))
            self._socket.write(frame)

    def round_trip(self) -> RoundTrip | None:
        """Return what the connection's packets take, where the system tells."""
        return round_trip(self.transport)

    def may_request(self, index: PieceIndex) -> bool:
        """Tell whether a request would have room: cancelled ones count until they are settled."""
        return index not in self._requests and len(self._requests) < limits.REQUESTS_MAX

    def request(
        self, index: PieceIndex, size: int, make: Callable[[int], bytearray] = bytearray
    ) -> None:
        """Take a grant: ask for a piece of ``size`` bytes; ``make`` gives the buffer for them."""
        assert index not in self._requests, "asked for already"
        self._requests[index] = Assembly(index, size, make)
        self.send(Request(index))

    def cancel(self, index: PieceIndex) -> None:
        """Take a request back; nothing more is reported of it."""
        assembly = self._requests.get(index)
        if assembly is not None and assembly.wanted:
            assembly.cancel()
            self.send(Cancel(index))

    def tick(self, now: float) -> None:
        """Notice silence, and break our own: called every ``limits.TICK_S``."""
        if not self.is_open:
            return
        if now - self._heard_at >= limits.IDLE_S:
            self.close(ByeReason.IDLE)
        elif now - self._spoke_at >= limits.KEEPALIVE_S:
            self.send(KeepAlive())


def address_of(end: object) -> Address:
    """Return the address of a TCP socket's end."""
    assert isinstance(end, IPv4Address | IPv6Address), "TCP"
    return from_socket(end.host, end.port)


def _name(reason: int) -> str:
    try:
        return ByeReason(reason).name.lower()
    except ValueError:
        return f"code {reason}"


def _tune(transport: object) -> None:
    """Send small frames at once, and keep the kernel from taking more than it can send soon."""
    set_no_delay: Callable[[bool], None] | None = getattr(transport, "setTcpNoDelay", None)
    if set_no_delay is None:
        return
    try:
        set_no_delay(True)
    except OSError:
        return  # the socket is gone already
    _set_notsent(transport, 0)


def _set_notsent(transport: object, size: int) -> None:
    """Set what the kernel takes beyond what it sends now, within ``limits.NOTSENT_BYTES``."""
    get_handle: Callable[[], socket.socket] | None = getattr(transport, "getHandle", None)
    if get_handle is None:
        return
    least, most = limits.NOTSENT_BYTES
    size = max(least, min(most, size))
    try:
        get_handle().setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, size)
    except OSError:
        return  # another system, or the socket is gone already: only slower
