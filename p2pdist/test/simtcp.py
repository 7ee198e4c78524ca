"""Simulated TCP sockets under Twisted's own clients, servers and ports.

Job: connect, accept, read, write, close, reset. Does NOT carry the bytes (``simpipe``).
Tests: ``test_simtcp``.

States of a :class:`StreamSocket`: ``new`` -> ``connecting`` (:meth:`~StreamSocket.connect_ex`) ->
``open`` (handshake) -> ``closed`` (:meth:`~StreamSocket.close`). Orthogonal: an error (reset, timed
out) that ends both directions, and ``vanished`` (its machine crashed: it answers nothing).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque
from typing import Any, Final

from twisted.internet import tcp
from twisted.logger import Logger

from p2pdist.simulation.timeline import KERNEL
from p2pdist.test.simpipe import RTO_S, Pipe
from p2pdist.test.simsocket import Socket
from p2pdist.test.simwires import Machine, SocketAddress, parse_ip, refuse

SYN_RETRIES: Final = 6
_LINGER_0: Final = struct.pack("ii", 1, 0)


class StreamSocket(Socket):
    """One end of a TCP connection.

    Attributes:
        vanished: its machine crashed.
        owned: a process has it; one that was not accepted yet is the kernel's alone.
        peer_address: ``(ip, port)`` of the other end.
    """

    def __init__(self, machine: Machine, family: int) -> None:
        super().__init__(machine, family)
        self.vanished = False
        self.owned = False
        self.peer_address: SocketAddress = ("", 0)
        self._state = "new"
        self._out: Pipe | None = None
        self._in: Pipe | None = None
        self._received: deque[bytes] = deque()
        self._ended = False  # the other side's FIN came
        self._error = 0

    # --- connecting ---

    def bind(self, address: SocketAddress) -> None:
        """See :meth:`socket.socket.bind`; a listener's port is no obstacle (SO_REUSEADDR)."""
        ip = parse_ip(address[0])[1] if address[0] else self.ip
        if ip not in {"0.0.0.0", "::"} and not self.machine.owns(ip):
            raise refuse(errno.EADDRNOTAVAIL)
        self.ip, self.port = ip, address[1]

    def connect_ex(self, address: tuple[Any, ...]) -> int:
        """See :meth:`socket.socket.connect_ex`: EINPROGRESS, then ready with SO_ERROR or done."""
        if self._state == "open":
            return errno.EISCONN
        if self._state == "connecting":
            return errno.EALREADY
        self.owned = True
        target = parse_ip(address[0])[1]
        try:
            self.ip = self.machine.source_for(target, self.ip)
        except OSError as error:
            assert error.errno is not None
            return error.errno
        self.port = self.port or self.machine.free_port(self.machine.tcp, self.ip)
        self.peer_address = target, address[1]
        self._state = "connecting"
        self.machine.streams[self] = None
        self._syn(0)
        return errno.EINPROGRESS

    def _syn(self, retry: int) -> None:
        if self._state != "connecting" or self._error or self.vanished:
            return
        if retry > SYN_RETRIES:
            self.fail(errno.ETIMEDOUT)
            return
        wires = self.machine.wires
        wires.record(self.address, self.peer_address, "syn")
        target = wires.route(self.machine, self.peer_address[0])
        delay = None if target is None else wires.transit(self.machine, target)
        if delay is not None:
            wires.at(wires.now + delay, KERNEL, self._syn_arrives, target)
        wires.at(wires.now + 2**retry, KERNEL, self._syn, retry + 1)

    def _syn_arrives(self, target: Machine) -> None:
        if not target.boot.alive:
            return
        wires = self.machine.wires
        listener = target.tcp.find(*self.peer_address)
        delay = wires.transit(target, self.machine)
        if delay is None:
            return
        if listener is None:
            wires.record(self.peer_address, self.address, "rst")
            wires.at(wires.now + delay, KERNEL, self._refused)
        elif isinstance(listener, ListeningSocket) and listener.has_room():
            wires.at(wires.now + delay, KERNEL, self._established, listener)

    def _refused(self) -> None:
        if self._state == "connecting":
            self.fail(errno.ECONNREFUSED)

    def _established(self, listener: ListeningSocket) -> None:
        if self._state != "connecting" or self._error or self.vanished:
            return
        wires = self.machine.wires
        peer = StreamSocket(listener.machine, listener.family)
        peer.boot = listener.boot
        peer.ip, peer.port = self.peer_address
        peer.peer_address = self.address
        to_peer, from_peer = Pipe(self, peer), Pipe(peer, self)
        self._join(to_peer, from_peer)
        peer._join(from_peer, to_peer)
        delay = wires.transit(self.machine, peer.machine)
        arrival = wires.now + (RTO_S if delay is None else delay)
        wires.at(arrival, KERNEL, listener.arrive, peer, self.address)
        self.wake()

    def _join(self, outgoing: Pipe, incoming: Pipe) -> None:
        self._out, self._in = outgoing, incoming
        self._state = "open"
        self.vanished = not self.boot.alive
        if not self.vanished:
            self.machine.streams[self] = None

    # --- reading and writing ---

    def readable(self) -> bool:
        """Tell whether there are bytes, an end or an error."""
        return bool(self._received or self._ended or self._error)

    def writable(self) -> bool:
        """Tell whether there is room, or an error to fetch; also how connecting ends."""
        if self._state == "open" and self._out is not None:
            return bool(self._error) or self._out.ended or self._out.room() > 0
        return bool(self._error)

    def recv(self, size: int) -> bytes:
        """See :meth:`socket.socket.recv`; one segment at most."""
        if self._received:
            data = self._received.popleft()
            if len(data) > size:
                self._received.appendleft(data[size:])
                data = data[:size]
            assert self._in is not None
            self._in.credit(len(data))
            return data
        if self._error:
            raise refuse(self._error)
        if self._ended:
            return b""
        raise BlockingIOError(errno.EWOULDBLOCK, "nothing to read")

    def send(self, data: bytes | memoryview) -> int:
        """See :meth:`socket.socket.send`."""
        if self._error:
            raise refuse(self._error)
        assert self._out is not None
        if self._out.ended:
            raise refuse(errno.EPIPE)
        size = min(len(data), self._out.room())
        if size == 0 and data:
            raise BlockingIOError(errno.EWOULDBLOCK, "no room")
        self._out.push(data[:size])
        return size

    def arrive(self, kind: str, data: bytes) -> None:
        """Take a segment from the wire; a socket that is closed answers data with RST."""
        if self.vanished:
            return
        if kind == "rst":
            self.fail(errno.ECONNRESET)
        elif self._state == "closed":
            if kind == "tcp" and self._out is not None:
                self._out.reset()
        elif kind == "fin":
            self._ended = True
            self.wake()
        elif not self._error:
            self._received.append(data)
            self.wake()

    def fail(self, error: int) -> None:
        """End both directions with an error, fetched by the next call or as SO_ERROR."""
        if self._out is not None:
            self._out.stop()
        if self._state != "closed" and not self.vanished and not self._error:
            self._error = error
            self.wake()

    # --- closing ---

    def shutdown(self, how: int) -> None:
        """See :meth:`socket.socket.shutdown`."""
        if self._state != "open":
            raise refuse(errno.ENOTCONN)
        if how != socket.SHUT_RD and self._out is not None:
            self._out.finish()

    def close(self) -> None:
        """See :meth:`socket.socket.close`.

        As on Linux it resets the connection, and with it loses what was not sent yet, when it was
        told to (SO_LINGER 0) or when bytes that came were not read.
        """
        if self._state == "open" and self._out is not None and not self._error:
            linger = self.options.get((socket.SOL_SOCKET, socket.SO_LINGER))
            if linger == _LINGER_0 or self._received:
                self._out.reset()
            else:
                self._out.finish()
        self._state = "closed"
        self.closed = True
        self._received.clear()
        self.machine.streams.pop(self, None)

    def vanish(self) -> None:
        """Cease to exist without a word: the machine crashed."""
        self.vanished = True
        if self._out is not None and self._in is not None:
            self._out.stop()
            self._in.orphan()

    # --- names and options ---

    def getpeername(self) -> tuple[Any, ...]:
        """See :meth:`socket.socket.getpeername`."""
        return self.name_of(*self.peer_address)

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        """Return an option; SO_ERROR is fetched once."""
        if level == socket.SOL_SOCKET and option == socket.SO_ERROR:
            error, self._error = self._error, 0
            return error
        return super().getsockopt(level, option, size)


class ListeningSocket(Socket):
    """A TCP socket that accepts."""

    def __init__(self, machine: Machine, family: int) -> None:
        super().__init__(machine, family)
        self.family = family
        self._backlog = 0
        self._pending: deque[StreamSocket] = deque()

    def bind(self, address: tuple[Any, ...]) -> None:
        """See :meth:`socket.socket.bind`."""
        ip = parse_ip(address[0])[1] if address[0] else self.ip
        self.port = self.machine.check_bind(self.machine.tcp, ip, address[1])
        self.ip = ip

    def listen(self, backlog: int) -> None:
        """See :meth:`socket.socket.listen`."""
        self._backlog = backlog
        self.machine.tcp.bind(self.ip, self.port, self)

    def has_room(self) -> bool:
        """Tell whether another connection may wait to be accepted."""
        return len(self._pending) < self._backlog

    def arrive(self, what: StreamSocket, source: SocketAddress) -> None:  # noqa: ARG002
        """Take a connection from the wires."""
        if what.vanished:
            return
        if self.closed:
            what.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            what.close()
        else:
            self._pending.append(what)
            self.wake()

    def accept(self) -> tuple[StreamSocket, tuple[Any, ...]]:
        """See :meth:`socket.socket.accept`."""
        if not self._pending:
            raise BlockingIOError(errno.EWOULDBLOCK, "nobody there")
        accepted = self._pending.popleft()
        accepted.owned = True
        return accepted, accepted.getpeername()

    def readable(self) -> bool:
        """Tell whether a connection waits."""
        return bool(self._pending)

    def writable(self) -> bool:
        """Nothing is written here."""
        return False

    def shutdown(self, how: int) -> None:
        """See :meth:`socket.socket.shutdown`."""

    def close(self) -> None:
        """See :meth:`socket.socket.close`; who waited to be accepted is reset."""
        self.closed = True
        self.machine.tcp.release(self.ip, self.port, self)
        while self._pending:
            self.arrive(self._pending.popleft(), ("", 0))


class Client(tcp.Client):
    """Twisted's TCP client on a simulated socket."""

    def createInternetSocket(self) -> Any:
        """Make the socket."""
        return StreamSocket(self.connector.reactor.machine, self.addressFamily)


class Connector(tcp.Connector):
    """Twisted's connector with such a client."""

    def _makeTransport(self) -> Client:
        return Client(self.host, self.port, self.bindAddress, self, self.reactor)


class Port(tcp.Port):
    """Twisted's TCP port on a simulated socket."""

    factory: Any
    reactor: Any
    _log = Logger()

    def createInternetSocket(self) -> Any:
        """Make the socket."""
        return ListeningSocket(self.reactor.machine, self.addressFamily)

    def doRead(self) -> None:
        """Accept one connection; the original's way needs real descriptors."""
        accepted, address = self.socket.accept()
        try:
            protocol = self.factory.buildProtocol(self._buildAddr(address))
            if protocol is None:
                accepted.close()
                return
            self.sessionno += 1
            transport = self.transport(
                accepted, protocol, address, self, self.sessionno, self.reactor
            )
            protocol.makeConnection(transport)
        except Exception:  # noqa: BLE001 -- as the original: log it and go on listening
            self._log.failure("unhandled error while accepting")
