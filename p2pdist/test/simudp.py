"""Simulated UDP sockets under Twisted's own ports.

Job: bind, send, receive into a bounded buffer, multicast membership. Does NOT decide which
datagrams arrive (``simwires``). Tests: ``test_simudp``.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from typing import Any, Final

from twisted.internet import udp

from p2pdist.test.simsocket import Socket
from p2pdist.test.simwires import SocketAddress, parse_ip, refuse, shown

DATAGRAM_BYTES_MAX: Final = 65507
RECEIVE_BUFFER_BYTES: Final = 212_992
"""Linux' default net.core.rmem_default; what does not fit is lost."""


class DatagramSocket(Socket):
    """A UDP socket.

    Attributes:
        overflowed: datagrams lost because the process did not read them in time.
    """

    def __init__(self, machine: Any, family: int) -> None:
        super().__init__(machine, family)
        self.overflowed = 0
        self._received: deque[tuple[bytes, SocketAddress]] = deque()
        self._received_bytes = 0
        self._groups: list[str] = []
        self._connected: SocketAddress | None = None

    def bind(self, address: SocketAddress) -> None:
        """See :meth:`socket.socket.bind`."""
        ip = parse_ip(address[0])[1] if address[0] else self.ip
        self.port = self.machine.check_bind(self.machine.udp, ip, address[1])
        self.ip = ip
        self.machine.udp.bind(ip, self.port, self)

    def connect(self, address: SocketAddress) -> None:
        """See :meth:`socket.socket.connect`: hear and send to nobody else."""
        self._connected = parse_ip(address[0])[1], address[1]

    def send(self, data: bytes) -> int:
        """See :meth:`socket.socket.send`."""
        assert self._connected is not None
        return self.sendto(data, self._connected)

    def sendto(self, data: bytes, address: SocketAddress) -> int:
        """See :meth:`socket.socket.sendto`."""
        if len(data) > DATAGRAM_BYTES_MAX:
            raise refuse(errno.EMSGSIZE)
        ip = parse_ip(address[0])[1]
        if not 0 < address[1] < 65536:
            raise refuse(errno.EINVAL)
        source = self.machine.source_for(ip, self.ip)
        self.machine.wires.send_datagram(
            self.machine, (source, self.port), (ip, address[1]), bytes(data)
        )
        return len(data)

    def arrive(self, what: bytes, source: SocketAddress) -> None:
        """Take a datagram from the wires."""
        if self._connected is not None and source != self._connected:
            return
        if self._received_bytes + len(what) > RECEIVE_BUFFER_BYTES:
            self.overflowed += 1
            return
        self._received.append((what, source))
        self._received_bytes += len(what)
        self.wake()

    def recvfrom(self, size: int) -> tuple[bytes, tuple[Any, ...]]:
        """See :meth:`socket.socket.recvfrom`; what exceeds ``size`` is cut off."""
        if not self._received:
            raise BlockingIOError(errno.EWOULDBLOCK, "nothing to read")
        data, (ip, port) = self._received.popleft()
        self._received_bytes -= len(data)
        return data[:size], (shown(ip, ipv6=self.ipv6), port, 0, 0)[: 4 if self.ipv6 else 2]

    def readable(self) -> bool:
        """Tell whether a datagram waits."""
        return bool(self._received)

    def writable(self) -> bool:
        """Datagrams are never held back."""
        return True

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Join and leave IPv4 groups; keep other options."""
        if level == socket.IPPROTO_IP and option == socket.IP_ADD_MEMBERSHIP:
            group = socket.inet_ntoa(value[:4])
            self._groups.append(group)
            self.machine.wires.groups.setdefault(group, {})[self] = self.machine
        elif level == socket.IPPROTO_IP and option == socket.IP_DROP_MEMBERSHIP:
            self._leave(socket.inet_ntoa(value[:4]))
        else:
            super().setsockopt(level, option, value)

    def _leave(self, group: str) -> None:
        if group not in self._groups:
            raise refuse(errno.EADDRNOTAVAIL)
        self._groups.remove(group)
        self.machine.wires.groups[group].pop(self, None)

    def close(self) -> None:
        """See :meth:`socket.socket.close`."""
        for group in list(self._groups):
            self._leave(group)
        self.closed = True
        self._received.clear()
        self.machine.udp.release(self.ip, self.port, self)


class Port(udp.Port):
    """Twisted's UDP port on a simulated socket."""

    reactor: Any

    def createInternetSocket(self) -> Any:
        """Make the socket."""
        return DatagramSocket(self.reactor.machine, self.addressFamily)


class MulticastPort(udp.MulticastPort):
    """Twisted's multicast port on a simulated socket."""

    reactor: Any

    def createInternetSocket(self) -> Any:
        """Make the socket."""
        return DatagramSocket(self.reactor.machine, self.addressFamily)
