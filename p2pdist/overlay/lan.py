"""LAN discovery: nodes on one local network find each other by multicast, without any address.

Job: hail the group when a node starts and every five minutes, contact who hails. It does NOT trust:
whoever hailed goes through ping and join like any other. IPv4 multicast with TTL 1 on private
interfaces; IPv6 link-local is out, because Twisted's UDP cuts the zone off (decision 15).

A hail wears the envelope and is answered by a ping from the hailed, after up to 0.2 s, and with a
probability that keeps a thousand nodes from answering at once; a node that shares a content with
the caller always answers. Source: BEP 14 in idea; one hail a minute and source is acted upon.

Threat: floods and spoofed sources on the LAN: only private and loopback sources count, at most
``limits.LAN_SOURCES`` are remembered. Tests: ``test_lan``.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field
from twisted.internet.error import CannotListenError, MulticastJoinError
from twisted.internet.interfaces import (
    IDelayedCall,
    IMulticastTransport,
    IReactorMulticast,
    IReactorTime,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, Scope, from_socket, scope, usable
from p2pdist.errors import NodeStopped, RemoteProtocolError, RPCError
from p2pdist.ids import Topic
from p2pdist.logs import new_logger
from p2pdist.overlay.envelope import read_header
from p2pdist.overlay.messages import (
    Hail,
)
from p2pdist.overlay.network import Network
from p2pdist.overlay.wire import decode, encode

PREFIX_BYTES = 8
ANSWERS_WANTED = 8
"""How many of the nodes that hear a stranger's hail should answer it."""


class GroupSocket(DatagramProtocol):
    """The multicast socket.

    Args:
        discovery: told of every datagram.
        interfaces: private IPv4 addresses of this machine to hail on.
    """

    noisy = False

    def __init__(self, discovery: LANDiscovery, interfaces: tuple[str, ...]) -> None:
        self.discovery = discovery
        self.interfaces = interfaces

    def startProtocol(self) -> None:
        """Join the group on every interface."""
        multicast = IMulticastTransport(self.transport)
        multicast.setTTL(1)
        multicast.setLoopbackMode(True)  # several nodes may share this machine
        for interface in self.interfaces:
            joined = multicast.joinGroup(limits.LAN_GROUP, interface)
            joined.addErrback(self.discovery.cannot_join, interface)

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Hand a datagram over."""
        self.discovery.heard(datagram, from_socket(addr[0], addr[1]))

    def hail(self, datagram: bytes) -> None:
        """Send ``datagram`` to the group on every interface."""
        assert self.transport is not None
        for interface in self.interfaces:
            # Fires at once, as the interface is an address: the datagram leaves through it.
            chosen = IMulticastTransport(self.transport).setOutgoingInterface(interface)
            chosen.addCallback(lambda _: self._write(datagram))
            chosen.addErrback(self.discovery.cannot_hail, interface)

    def _write(self, datagram: bytes) -> None:
        if self.transport is not None:
            self.transport.write(datagram, (limits.LAN_GROUP, limits.LAN_PORT))


@define(eq=False)
class LANDiscovery:
    """Hails for one network, and hears others.

    Args:
        network: whose.
        reactor: opens the multicast socket, schedules hails.
        rng: spreads answers.
        port: UDP and TCP port of this node.
        interfaces: private IPv4 addresses of this machine.
        candidate: called with the topic and the address of a peer on this LAN.
    """

    network: Network
    reactor: IReactorTime
    rng: random.Random
    port: int
    interfaces: tuple[str, ...]
    candidate: Callable[[Topic, Address], None]
    _log = new_logger()
    _socket: GroupSocket | None = field(init=False, default=None)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _answers: dict[Address, IDelayedCall] = field(init=False, factory=dict)
    _sources: OrderedDict[tuple[Address, bool], float] = field(init=False, factory=OrderedDict)
    _hails: int = field(init=False, default=0)

    def start(self) -> None:
        """Open the socket and hail; a machine without multicast only logs that it has none."""
        if not self.interfaces:
            return
        multicast = IReactorMulticast(self.reactor)
        self._socket = GroupSocket(self, self.interfaces)
        try:
            multicast.listenMulticast(limits.LAN_PORT, self._socket, listenMultiple=True)
        except (OSError, CannotListenError) as error:
            self._socket = None
            self._log.info("LAN discovery is off: {error}", error=str(error))
            return
        self._timer = self.reactor.callLater(limits.LAN_FIRST_S[0], self._hail)

    def stop(self) -> None:
        """Cancel timers; closes the socket."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for answer in self._answers.values():
            answer.cancel()
        self._answers.clear()
        if self._socket is not None and self._socket.transport is not None:
            self._socket.transport.stopListening()
        self._socket = None

    def _hail(self) -> None:
        """Hail now, again soon in the first seconds, then every five minutes or so."""
        assert self._socket is not None
        self._hails += 1
        first = limits.LAN_FIRST_S
        if self._hails < len(first):
            wait = first[self._hails] - first[self._hails - 1]
        else:
            wait = limits.LAN_EVERY_S * (1 + limits.ANNOUNCE_JITTER * (2 * self.rng.random() - 1))
        self._timer = self.reactor.callLater(wait, self._hail)
        topics = list(self.network.join_servers)
        self.rng.shuffle(topics)
        prefixes = tuple(topic[:PREFIX_BYTES] for topic in topics[: limits.LAN_TOPICS])
        message = Hail(port=self.port, topics=prefixes)
        self._socket.hail(self.network.envelope.seal(encode(message)))

    def hail_soon(self) -> None:
        """Hail again as at the start: a content was added. Many at once share one hail."""
        if self._timer is not None:
            self._hails = 0
            if self._timer.getTime() - self.reactor.seconds() > limits.LAN_SOON_S:
                self._timer.reset(limits.LAN_SOON_S)

    def heard(self, datagram: bytes, source: Address) -> None:
        """Take a datagram from the group; what is no hail of this network is dropped."""
        if scope(source) is Scope.GLOBAL:
            return
        try:
            header = read_header(datagram)
            if header.tag != self.network.keys.tag:
                return
            message = decode(self.network.envelope.open(datagram, header))
        except RemoteProtocolError as error:
            self.network.dropped[error.rule] += 1
            return
        address = Address(source.host, message.port) if isinstance(message, Hail) else source
        if isinstance(message, Hail) and usable(address):
            self._answer(address, message)

    def _answer(self, address: Address, hail: Hail) -> None:
        now = self.reactor.seconds()
        shared = [
            topic for topic in self.network.join_servers if topic[:PREFIX_BYTES] in hail.topics
        ]
        # The first hail of a node that just started names nothing yet; the next one may.
        source = address, bool(shared)
        last = self._sources.get(source)
        if last is not None and now - last < limits.LAN_PER_SOURCE_S:
            return
        if address in self._answers or len(self._answers) >= limits.LAN_SOURCES:
            return
        self._sources[source] = now
        self._sources.move_to_end(source)
        if len(self._sources) > limits.LAN_SOURCES:
            self._sources.popitem(last=False)
        if not shared and self.rng.random() > ANSWERS_WANTED / len(self._sources):
            return
        wait = self.rng.random() * limits.LAN_ANSWER_S
        self._answers[address] = self.reactor.callLater(wait, self._contact, address, shared)

    def _contact(self, address: Address, shared: list[Topic]) -> None:
        del self._answers[address]
        if shared:
            for topic in shared:
                self.candidate(topic, address)
        elif self.network.approachable(address):
            self.network.contact(address).addErrback(
                lambda failure: failure.trap(RPCError, NodeStopped) and None
            )

    # --- trouble ---

    def cannot_join(self, failure: Failure, interface: str) -> None:
        """Log that an interface has no multicast; the others go on."""
        self._log.info(
            "LAN discovery is off on {interface}: {reason}",
            interface=interface,
            reason=failure.getErrorMessage(),
        )

    def cannot_hail(self, failure: Failure, interface: str) -> None:
        """Log that a hail could not be sent; the next one is tried all the same."""
        failure.trap(OSError, MulticastJoinError)
        self._log.debug(
            "cannot hail on {interface}: {reason}",
            interface=interface,
            reason=failure.getErrorMessage(),
        )
