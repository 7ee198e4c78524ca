"""Whom to call, when, and again when: the outgoing connections of one transfer.

A target is a peer the overlay joined. It is dialled at once or after ``limits.DIAL_WAIT_S``, again
``limits.DIAL_RETRY_S`` after a failure or a useless connection (doubling, spread by 20 %), never
while connected. Does NOT exchange anything; a proved connection goes to the transfer.
Threat: the overlay's addresses come from strangers: few dials at a time, slower each time.
Tests: ``test_roster``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol as Structural

from attrs import define, field
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import TimeoutError as DialTimeoutError
from twisted.internet.interfaces import IAddress, IConnector, IReactorTCP, IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, is_ipv6
from p2pdist.ids import HashKey, NodeID
from p2pdist.keys import NodeKey
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.handshake import Dialler as DiallerHandshake
from p2pdist.swarm.peerwire import NONCE_BYTES

_JITTER = 0.2


class DialOwner(Structural):
    """What a :class:`Dialler` asks and tells."""

    def wants(self, node_id: NodeID, address: Address) -> bool:
        """Tell whether a connection to the node is worth having and not there yet."""

    def accept(self, connection: PeerConnection) -> None:
        """Take a proved connection."""

    def unreachable(self, address: Address, reason: str) -> None:
        """TCP to a peer that answers on UDP failed; told once until it succeeds."""

    def dial_ended(self) -> None:
        """An outgoing connection, or the try at one, is over."""


@define(eq=False)
class _Target:
    address: Address
    node_id: NodeID
    due: float
    tries: int = 0
    reported: bool = False
    connector: IConnector | None = None
    ticket: int | None = None
    opened_at: float = 0.0


class _Call(ClientFactory):
    """One try at one target."""

    noisy = False

    def __init__(self, dialler: Dialler, target: _Target) -> None:
        self._dialler = dialler
        self._target = target

    def buildProtocol(self, addr: IAddress | None) -> PeerConnection:
        """The socket is there."""
        del addr
        return self._dialler.build(self._target)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """There will be no socket."""
        del connector
        self._dialler.failed(self._target, reason)


@define(eq=False)
class Dialler:
    """Dials the targets of one transfer.

    Args:
        clock: time.
        reactor: where to dial.
        node_key: our key.
        hash_key: the content.
        entropy: secret random bytes.
        rng: spreads retries.
        admission: the process-wide count.
        bind_host: local address to dial from, or ``None``.
        owner: asked and told.
    """

    clock: IReactorTime
    reactor: IReactorTCP
    node_key: NodeKey
    hash_key: HashKey
    entropy: Callable[[int], bytes]
    rng: random.Random
    admission: Admission
    bind_host: str | None
    owner: DialOwner
    _targets: dict[NodeID, _Target] = field(factory=dict, init=False)
    _calls: dict[_Target, None] = field(factory=dict, init=False)
    _connections: dict[PeerConnection, _Target] = field(factory=dict, init=False)
    _stopped: bool = field(default=False, init=False)

    @property
    def idle(self) -> bool:
        """Whether no outgoing connection exists or is being made."""
        return not self._calls and not self._connections

    @property
    def targets(self) -> int:
        """How many peers could be dialled."""
        return len(self._targets)

    def add(self, address: Address, node_id: NodeID, *, dial_now: bool) -> None:
        """Learn of a peer, or that it is there again: then it is dialled without back-off."""
        due = self.clock.seconds() + (0.0 if dial_now else limits.DIAL_WAIT_S)
        target = self._targets.get(node_id)
        if target is None or target.address != address:
            if len(self._targets) >= limits.PEERS_PER_OWN_TOPIC and target is None:
                return
            target = self._targets[node_id] = _Target(address, node_id, due)
        else:
            target.due, target.tries = min(target.due, due), 0
        if dial_now:
            self.tick()

    def remove(self, node_id: NodeID) -> Address | None:
        """Dial a peer no more and return where it was; its connections stay."""
        target = self._targets.pop(node_id, None)
        return None if target is None else target.address

    def tick(self) -> None:
        """Dial what is due: called every ``limits.TICK_S``."""
        now = self.clock.seconds()
        for target in list(self._targets.values()):
            if len(self._calls) >= limits.DIALS or self._stopped:
                return
            if (
                target.due <= now
                and target not in self._calls
                and target not in self._connections.values()
                and self.owner.wants(target.node_id, target.address)
            ):
                self._dial(target, now)

    def stop(self) -> None:
        """Give up tries; ``dial_ended`` follows for each. Connections are left to the owner."""
        self._stopped = True
        for target in list(self._calls):
            if target.connector is not None:
                target.connector.stopConnecting()
        for connection in list(self._connections):
            if not connection.is_open:
                connection.abort("stopping")

    def _dial(self, target: _Target, now: float) -> None:
        ticket = self.admission.enter(target.address, outgoing=True, now=now)
        if ticket is None:
            self._later(target)
            return
        target.ticket = ticket
        self._calls[target] = None
        host, port = target.address
        bind = None
        if self.bind_host is not None and (":" in self.bind_host) == is_ipv6(target.address):
            bind = (self.bind_host, 0)
        connector = self.reactor.connectTCP(
            host, port, _Call(self, target), timeout=limits.CONNECT_S, bindAddress=bind
        )
        if target in self._calls:  # else it has failed already
            target.connector = connector

    def _later(self, target: _Target) -> None:
        first, longest = limits.DIAL_RETRY_S
        pause = min(longest, first * 2 ** min(target.tries, 16))
        target.tries += 1
        target.due = self.clock.seconds() + pause * self.rng.uniform(1 - _JITTER, 1 + _JITTER)

    def build(self, target: _Target) -> PeerConnection:
        """The socket of a try is there: make its protocol."""
        del self._calls[target]
        target.connector = None
        target.reported = False
        target.opened_at = self.clock.seconds()
        handshake = DiallerHandshake(self.hash_key, self.node_key, self.entropy(NONCE_BYTES))
        connection = PeerConnection(
            clock=self.clock, handshake=handshake, watcher=self, outgoing=True
        )
        self._connections[connection] = target
        if target.ticket is not None:
            self.admission.hold(target.ticket, connection)
        return connection

    def failed(self, target: _Target, reason: Failure) -> None:
        """A try is over without a socket."""
        del self._calls[target]
        target.connector = None
        self._leave(target)
        if not self._stopped:
            self._later(target)
            if not target.reported:
                target.reported = True
                self.owner.unreachable(target.address, _why(reason))
        self.owner.dial_ended()

    def connection_proved(self, peer: PeerConnection) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionWatcher`."""
        self.owner.accept(peer)

    def connection_ended(self, peer: PeerConnection, reason: str) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionWatcher`."""
        del reason
        target = self._connections.pop(peer)
        self._leave(target)
        if peer.useful_at > target.opened_at:
            target.tries = 0
        self._later(target)
        self.owner.dial_ended()

    def _leave(self, target: _Target) -> None:
        if target.ticket is not None:
            self.admission.leave(target.ticket)
            target.ticket = None


def _why(reason: Failure) -> str:
    if reason.check(RefusedError):
        return "refused"
    if reason.check(DialTimeoutError):
        return "timed out"
    return reason.getErrorMessage()
