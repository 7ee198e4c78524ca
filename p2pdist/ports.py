"""Opening the node's ports: UDP and TCP under one number, on every address asked for.

Job: bind, or say in one sentence what is in the way and what to do. Tests: ``test_service``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory

from p2pdist import limits
from p2pdist.errors import ConfigurationError
from p2pdist.overlay.guard import RateLimit
from p2pdist.overlay.node import Node

FREE_PORT_TRIES = 10
"""How often a free UDP port is drawn whose TCP port must be free too."""


@frozen
class Inherited:
    """A UDP and a TCP socket of one address that somebody else opened.

    Attributes:
        udp: file descriptor, bound.
        tcp: file descriptor, listening.
        family: ``AF_INET`` or ``AF_INET6``.
        interface: IP address they are bound to.
        port: of both.
    """

    udp: int
    tcp: int
    family: int
    interface: str
    port: int


@define
class Ports:
    """The open ports of one node.

    Attributes:
        number: UDP and TCP port number.
    """

    number: int
    _open: list[IListeningPort] = field(factory=list)
    _entrances: list[_Entrance] = field(factory=list)

    @classmethod
    def bind(
        cls,
        reactor: Any,
        node: Node,
        factory: IProtocolFactory,
        *,
        port: int,
        listen: tuple[str, ...],
    ) -> Ports:
        """Open UDP for ``node`` and TCP for ``factory``.

        Args:
            reactor: opens sockets.
            node: gets a socket for each address.
            factory: answers TCP connections.
            port: the number, or 0 for any free one.
            listen: IP addresses; empty for one dual-stack socket, or IPv4 where there is no IPv6.

        Raises:
            ConfigurationError: an address or port cannot be had.
        """
        tries = FREE_PORT_TRIES if port == 0 else 1
        for left in range(tries - 1, -1, -1):
            ports = cls(port)
            try:
                for interface in listen or ("::",):
                    ports._open_one(reactor, node, factory, interface)
            except CannotListenError as error:
                ports._abandon(node)
                if not listen and _no_ipv6(error):
                    return cls.bind(reactor, node, factory, port=port, listen=("0.0.0.0",))  # noqa: S104
                if not left:
                    raise _explained(error) from error
            except ConfigurationError:
                ports._abandon(node)
                raise
            else:
                return ports
        raise AssertionError("unreachable")  # pragma: no cover

    @classmethod
    def adopt(
        cls, reactor: Any, node: Node, factory: IProtocolFactory, pairs: Sequence[Inherited]
    ) -> Ports:
        """Take over sockets that are open already; their descriptors are the reactor's now.

        ``pairs`` is one or more of one port number, other arguments as :meth:`bind`.
        """
        ports = cls(pairs[0].port)
        for pair in pairs:
            socket = node.add_socket(pair.interface)
            for descriptor in (pair.udp, pair.tcp):
                os.set_blocking(descriptor, False)  # systemd hands them over blocking
            udp = reactor.adoptDatagramPort(pair.udp, pair.family, socket, maxPacketSize=2048)
            udp.doRead = partial(_read_few, udp)
            tcp = reactor.adoptStreamPort(pair.tcp, pair.family, factory)
            ports._open += [udp, tcp]
            ports._entrances.append(_Entrance(tcp, reactor))
            for descriptor in (pair.udp, pair.tcp):  # the reactor has copies
                os.close(descriptor)
        return ports

    def _open_one(
        self, reactor: Any, node: Node, factory: IProtocolFactory, interface: str
    ) -> None:
        udp = reactor.listenUDP(
            self.number, node.add_socket(interface), interface=interface, maxPacketSize=2048
        )
        self._open.append(udp)
        udp.doRead = partial(_read_few, udp)
        self.number = udp.getHost().port
        tcp = reactor.listenTCP(self.number, factory, interface=interface)
        self._open.append(tcp)
        self._entrances.append(_Entrance(tcp, reactor))

    def _abandon(self, node: Node) -> None:
        self._close_entrances()
        for opened in self._open:
            maybeDeferred(opened.stopListening)
        node.forget_sockets()

    def _close_entrances(self) -> None:
        for entrance in self._entrances:
            entrance.close()
        self._entrances = []

    def close(self) -> Deferred[None]:
        """Stop listening; fires when every port is closed."""
        self._close_entrances()
        closing = [maybeDeferred(opened.stopListening) for opened in self._open]
        self._open = []
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)


class _Entrance:
    """Accepts callers one at a time, and not too many a second.

    Twisted's own ``doRead`` accepts all that wait, a hundred and more, before anything is read from
    the first: by then a flood has displaced the honest among them (``admission``).
    """

    def __init__(self, port: Any, reactor: Any) -> None:
        self._port = port
        self._reactor = reactor
        self._limit: RateLimit[None] = RateLimit(limits.RATE_ACCEPTS)
        self._pause: IDelayedCall | None = None
        port.doRead = self._accept

    def _accept(self) -> None:
        if self._limit.allow(None, self._reactor.seconds()):
            self._port.numberAccepts = 1
            type(self._port).doRead(self._port)
        else:
            self._port.stopReading()
            self._pause = self._reactor.callLater(limits.ACCEPT_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._port.startReading()

    def close(self) -> None:
        """Accept nobody any more."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None


def _read_few(port: Any) -> None:
    """Read so many datagrams, then let the reactor turn to others.

    Twisted's own ``doRead`` counts bytes: whoever sends empty datagrams faster than they are read
    keeps it reading for ever, and nothing else happens in the process.
    """
    for _ in range(limits.UDP_READ_DATAGRAMS):
        try:
            datagram, source = port.socket.recvfrom(port.maxPacketSize)
        except OSError:  # nothing is left, or news of a datagram sent earlier
            return
        port.protocol.datagramReceived(datagram, source)


def _no_ipv6(error: CannotListenError) -> bool:
    number = getattr(error.socketError, "errno", None)
    return number in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


def _explained(error: CannotListenError) -> ConfigurationError:
    number = getattr(error.socketError, "errno", None)
    host = f"[{error.interface}]" if ":" in error.interface else error.interface
    where = f"cannot listen on {host}:{error.port}"
    if number == errno.EADDRINUSE:
        return ConfigurationError(
            f"{where}: the port is in use; choose another --port, or stop the program that has it"
        )
    if number == errno.EADDRNOTAVAIL:
        return ConfigurationError(f"{where}: this machine has no such address; see --listen")
    if number in {errno.EACCES, errno.EPERM}:
        return ConfigurationError(f"{where}: not permitted; choose a --port above 1023")
    return ConfigurationError(f"{where}: {error.socketError}")
