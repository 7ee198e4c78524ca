"""The node: sockets on one side, networks on the other. Bytes in, bytes out, nothing else.

Job: read a datagram's header, hand it to the network it names, put datagrams on the right socket.
It does NOT know messages. One node may listen on several addresses and serve several networks
(one entry in a public node); IPv4-mapped addresses exist only in this module.

Threat: any datagram. What is no datagram of a network served here is counted, and answered at most
by a notice smaller than itself, by a node of a private network not at all: nobody without its key
learns that anything is here. No exception leaves ``datagramReceived``. Tests: ``test_node``,
``test_private``.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IReactorTime, ISystemHandle
from twisted.internet.protocol import DatagramProtocol

from p2pdist import limits
from p2pdist.addresses import (
    Address,
    Scope,
    from_socket,
    is_ipv6,
    scope,
    to_ipv6_socket,
    usable,
)
from p2pdist.errors import ConfigurationError, RemoteProtocolError
from p2pdist.keys import NetworkKeys, NodeKey
from p2pdist.logs import new_logger
from p2pdist.overlay.envelope import NOTICE, Header, notice, read_header
from p2pdist.overlay.guard import RateLimit
from p2pdist.overlay.network import Network
from p2pdist.overlay.reach import LocalAddress, nowhere


class NodeSocket(DatagramProtocol):
    """One UDP socket of a node.

    Args:
        node: whose.
        interface: the address it is bound to; ``"::"`` is dual-stack.
    """

    noisy = False
    _sendto: Callable[[bytes, tuple[str, int]], int] | None = None

    def __init__(self, node: Node, interface: str) -> None:
        self.node = node
        self.interface = interface
        self.ipv6 = ":" in interface

    def startProtocol(self) -> None:
        """Take the socket itself to send on, where there is one.

        The transport's ``write`` asks five times whether the host is an IP address, which takes as
        long as sealing the datagram; every :class:`Address` is one.
        """
        transport: object = self.transport
        if ISystemHandle.providedBy(transport):
            handle: Any = transport.getHandle()
            self._sendto = handle.sendto

    def stopProtocol(self) -> None:
        """Let go of the socket."""
        self._sendto = None

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Hand a datagram to the node; see :meth:`Node.datagram_received`."""
        self.node.datagram_received(datagram, from_socket(addr[0], addr[1]), self)

    def send(self, datagram: bytes, address: Address) -> None:
        """Put ``datagram`` on the wire.

        Raises:
            OSError: the kernel refuses (no route, no permission).
            MessageLengthError: the kernel finds it too long.
        """
        there = (to_ipv6_socket(address.host), address.port) if self.ipv6 else address
        if self._sendto is not None:
            self._sendto(datagram, there)
        elif self.transport is not None:
            self.transport.write(datagram, there)

    def serves(self, address: Address) -> bool:
        """Tell whether this socket can send to ``address`` at all."""
        if is_ipv6(address):
            return self.ipv6
        return not self.ipv6 or self.interface == "::"


@define(eq=False)
class Node:
    """One process's presence in the overlay.

    Args:
        key: its Ed25519 key.
        clock: schedules timeouts.
        rng: decides what need not be secret.
        entropy: returns that many unpredictable bytes.
        wall: the time of day, which alone tells that a snapshot was restored.
        local_address: returns the IP that a datagram to an address leaves from, or ``None``.

    Attributes:
        dropped: datagrams dropped before any network saw them, by rule.
    """

    key: NodeKey
    clock: IReactorTime
    rng: random.Random
    entropy: Callable[[int], bytes]
    wall: Callable[[], float]
    local_address: LocalAddress = nowhere
    dropped: Counter[str] = field(init=False, factory=Counter)
    _log = new_logger()
    _networks: dict[bytes, Network] = field(init=False, factory=dict)
    _sockets: list[NodeSocket] = field(init=False, factory=list)
    _heard_on: OrderedDict[Address, NodeSocket] = field(init=False, factory=OrderedDict)
    _notices: RateLimit[None] = field(init=False)
    _bugs: RateLimit[None] = field(init=False)
    _upkeep_at: tuple[float, float] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._notices = RateLimit(limits.RATE_CHALLENGE)
        self._bugs = RateLimit((limits.LOG_PER_KIND / 60, limits.LOG_PER_KIND))

    def add_network(self, keys: NetworkKeys) -> Network:
        """Return the network of ``keys``, made if it is new.

        Raises:
            ConfigurationError: more than ``limits.NETWORKS``, or two that share a tag.
        """
        network = self._networks.get(keys.tag)
        if network is not None and network.keys != keys:  # one pair of secrets in four billion
            raise ConfigurationError(
                f"two networks have the tag {keys.tag.hex()}; one of them needs another secret, "
                "or a process of its own"
            )
        if network is None:
            if len(self._networks) >= limits.NETWORKS:
                raise ConfigurationError(f"one node serves at most {limits.NETWORKS} networks")
            network = self._networks[keys.tag] = Network(
                keys=keys,
                node_id=self.key.node_id,
                clock=self.clock,
                rng=self.rng,
                entropy=self.entropy,
                transmit=self.transmit,
                local_address=self.local_address,
            )
        return network

    def add_socket(self, interface: str) -> NodeSocket:
        """Return a new protocol to be given to ``listenUDP`` on ``interface``.

        Raises:
            ConfigurationError: more than ``limits.SOCKETS``.
        """
        if len(self._sockets) >= limits.SOCKETS:
            raise ConfigurationError(f"one node listens on at most {limits.SOCKETS} addresses")
        socket = NodeSocket(self, interface)
        self._sockets.append(socket)
        return socket

    def forget_sockets(self) -> None:
        """Drop the protocols of sockets that could not be opened."""
        self._sockets.clear()

    @property
    def networks(self) -> list[Network]:
        """The networks served."""
        return list(self._networks.values())

    @property
    def private(self) -> bool:
        """Whether any of them has a secret."""
        return any(network.keys.private for network in self._networks.values())

    # --- in ---

    def datagram_received(self, datagram: bytes, source: Address, socket: NodeSocket) -> None:
        """Take a datagram from the wire; drops and counts what is none of ours.

        Never raises: an error of our own is logged with its traceback, at most
        ``limits.LOG_PER_KIND`` times a minute, and the socket goes on.
        """
        try:
            header = read_header(datagram)
            if not usable(source):
                self.dropped["source-unusable"] += 1
                return
            self._receive(datagram, header, source, socket)
        except RemoteProtocolError as error:
            self.dropped[error.rule] += 1
        except Exception:  # noqa: BLE001 -- a bug of ours must not cost the socket, nor flood the log
            self.dropped["bug"] += 1
            if self._bugs.allow(None, self.clock.seconds()):
                self._log.failure("datagram from {peer} met a bug", peer=str(source))

    def _receive(
        self, datagram: bytes, header: Header, source: Address, socket: NodeSocket
    ) -> None:
        network = self._networks.get(header.tag)
        if header.version == NOTICE:
            if network is not None and network.envelope.sent(header):
                for told in list(network.wrong_network):
                    told(source)
            return
        if network is None:
            self.dropped["network-unknown"] += 1
            if not self.private and self._notices.allow(None, self.clock.seconds()):
                self._put(socket, notice(header), source)
            return
        if len(self._sockets) > 1:
            self._heard_on[source] = socket
            self._heard_on.move_to_end(source)
            if len(self._heard_on) > limits.SOCKET_MEMORY:
                self._heard_on.popitem(last=False)
        network.datagram_received(datagram, header, source)

    # --- out ---

    def transmit(self, datagram: bytes, address: Address) -> None:
        """Send ``datagram``; what cannot be sent is counted and lost, as any datagram may be."""
        socket = self._heard_on.get(address) if self._heard_on else None
        socket = socket or self._socket_for(address)
        if socket is None:
            self.dropped["no-socket"] += 1
        else:
            self._put(socket, datagram, address)

    def _put(self, socket: NodeSocket, datagram: bytes, address: Address) -> None:
        try:
            socket.send(datagram, address)
        except (OSError, MessageLengthError):
            self.dropped["send-failed"] += 1

    def _socket_for(self, address: Address) -> NodeSocket | None:
        """Choose among our sockets: of the family, and bound to loopback only for loopback."""
        if len(self._sockets) == 1:
            return self._sockets[0] if self._sockets[0].serves(address) else None
        fitting = [socket for socket in self._sockets if socket.serves(address)]
        local = scope(address) is Scope.LOOPBACK

        def mismatch(socket: NodeSocket) -> bool:
            if socket.interface in {"::", "0.0.0.0"}:  # noqa: S104 -- compared, not bound
                return False
            bound_local = scope(Address(socket.interface, 1)) is Scope.LOOPBACK
            return bound_local != local

        return min(fitting, key=mismatch, default=None)

    # --- upkeep ---

    def upkeep(self) -> None:
        """Do what is due in every network; call every few seconds.

        When either clock went on by more than ``limits.CLOCK_JUMP_S`` less or more than the time
        between two calls, every network takes a new boot id: this may be a restored snapshot,
        which would use its nonces a second time (decision 6).
        """
        clocks = self.clock.seconds(), self.wall()
        jumped = self._upkeep_at is not None and any(
            abs(now - before - limits.UPKEEP_EVERY_S) > limits.CLOCK_JUMP_S
            for now, before in zip(clocks, self._upkeep_at, strict=True)
        )
        self._upkeep_at = clocks
        for network in self.networks:
            if jumped:
                network.envelope.renew()
            network.upkeep()

    def stop(self) -> None:
        """Stop every network: pending calls fail, timers end. Sockets are closed by their owner."""
        for network in self.networks:
            network.stop()
