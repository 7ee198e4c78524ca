"""The outgoing connections of one transfer: calls whoever is due, and says how that went.

Job: sockets, their places in the process's count, back-off told to ``targets``. Does NOT decide how
many are called (``circle``, through its owner) nor exchange anything; a proved connection goes to
the owner. Threat: the overlay's addresses come from strangers: few calls at a time, slower each
time. Tests: ``test_roster``.
"""

from __future__ import annotations

import random
from typing import Protocol as Structural

from attrs import define, field
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import TimeoutError as DialTimeoutError
from twisted.internet.interfaces import IAddress, IConnector, IReactorTCP, IReactorTime
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, is_ipv6
from p2pdist.ids import HashKey, NodeID
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.connection import PeerConnection
from p2pdist.swarm.handshake import Handshake
from p2pdist.swarm.targets import Target, Targets
from p2pdist.swarm.transport import Way


class DialOwner(Structural):
    """What a :class:`Dialler` asks and tells."""

    def calls_wanted(self, calling: int) -> int:
        """Return how many more peers to call, when so many are being called."""

    def wants(self, node_id: NodeID, address: Address) -> bool:
        """Tell whether a connection to the node is worth having and not there yet."""

    def accept(self, connection: PeerConnection) -> None:
        """Take a proved connection."""

    def unreachable(self, address: Address, reason: str) -> None:
        """TCP to a peer that answers on UDP failed; told once until it succeeds."""

    def dial_ended(self) -> None:
        """An outgoing connection, or the try at one, is over."""


class _Call(ClientFactory):
    """One try at one target."""

    noisy = False

    def __init__(self, dialler: Dialler, target: Target, ticket: int) -> None:
        self.target = target
        self.ticket = ticket
        self.connector: IConnector | None = None
        self.opened_at = 0.0
        self._dialler = dialler

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """The socket is there."""
        del addr
        return self._dialler.build(self)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """There will be no socket."""
        del connector
        self._dialler.failed(self, reason)


@define(eq=False)
class Dialler:
    """Dials the targets of one transfer.

    Args:
        clock: time.
        reactor: where to dial.
        way: how connections are opened.
        hash_key: the content.
        rng: spreads retries.
        admission: the process-wide count.
        bind_host: local address to dial from, or ``None``.
        owner: asked and told.

    Attributes:
        targets: the peers that may be called.
    """

    clock: IReactorTime
    reactor: IReactorTCP
    way: Way
    hash_key: HashKey
    rng: random.Random
    admission: Admission
    bind_host: str | None
    owner: DialOwner
    targets: Targets = field(init=False)
    _calls: dict[Target, _Call] = field(factory=dict, init=False)
    _connections: dict[PeerConnection, _Call] = field(factory=dict, init=False)
    _stopped: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.targets = Targets(self.rng)

    @property
    def idle(self) -> bool:
        """Whether no outgoing connection exists or is being made."""
        return not self._calls and not self._connections

    def add(
        self, address: Address, node_id: NodeID, *, dial_now: bool, is_open: bool = True
    ) -> None:
        """Learn of a peer, or that it is there again: then it is dialled without back-off."""
        due = self.clock.seconds() + (0.0 if dial_now else limits.DIAL_WAIT_S)
        self.targets.add(address, node_id, due, is_open=is_open)
        if dial_now:
            self.tick()

    def tick(self) -> None:
        """Dial as many of those that are due as are wanted: called every ``limits.TICK_S``."""
        now = self.clock.seconds()
        waiting = self.waiting(now) if self._may_call() else []
        for target in waiting:
            if self._may_call():  # a call may fail at once, and its owner stop
                self._dial(target, now)

    def _may_call(self) -> bool:
        return not self._stopped and self.owner.calls_wanted(len(self._calls)) > 0

    def waiting(self, now: float) -> list[Target]:
        """Return those that could be called now, in the order of chance."""
        connected = {call.target for call in self._connections.values()}
        return [
            target
            for target in self.targets.due(now)
            if target not in self._calls
            and target not in connected
            and self.owner.wants(target.node_id, target.address)
        ]

    def stop(self) -> None:
        """Give up tries; ``dial_ended`` follows for each. Connections are left to the owner."""
        self._stopped = True
        for call in list(self._calls.values()):
            if call.connector is not None:
                call.connector.stopConnecting()
        for connection in list(self._connections):
            if not connection.is_open:
                connection.abort("stopping")

    def _dial(self, target: Target, now: float) -> None:
        ticket = self.admission.enter(target.address, outgoing=True, now=now, content=self.hash_key)
        if ticket is None:
            self.targets.later(target, now)
            return
        call = self._calls[target] = _Call(self, target, ticket)
        host, port = target.address
        bind = None
        if self.bind_host is not None and (":" in self.bind_host) == is_ipv6(target.address):
            bind = (self.bind_host, 0)
        connector = self.reactor.connectTCP(
            host, port, call, timeout=limits.CONNECT_S, bindAddress=bind
        )
        if target in self._calls:  # else it has failed already
            call.connector = connector

    def build(self, call: _Call) -> Protocol:
        """The socket of a try is there: make its protocol."""
        del self._calls[call.target]
        call.connector = None
        call.target.blocked = False
        call.opened_at = self.clock.seconds()
        target = call.target
        connection, protocol = self.way.dial(
            self.hash_key, target.node_id, target.tries, self._connect
        )
        self._connections[connection] = call
        self.admission.hold(call.ticket, connection)
        return protocol

    def _connect(self, handshake: Handshake) -> PeerConnection:
        return PeerConnection(clock=self.clock, handshake=handshake, watcher=self, outgoing=True)

    def failed(self, call: _Call, reason: Failure) -> None:
        """A try is over without a socket."""
        target = call.target
        del self._calls[target]
        call.connector = None
        self.admission.leave(call.ticket)
        if not self._stopped:
            self.targets.later(target, self.clock.seconds())
            if not target.blocked:
                target.blocked = True
                self.owner.unreachable(target.address, _why(reason))
        self.owner.dial_ended()

    def connection_proved(self, peer: PeerConnection) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionWatcher`."""
        self.owner.accept(peer)

    def connection_ended(self, peer: PeerConnection, reason: str) -> None:
        """See :class:`~p2pdist.swarm.connection.ConnectionWatcher`."""
        del reason
        call = self._connections.pop(peer)
        self.admission.leave(call.ticket)
        if peer.useful_at > call.opened_at:
            call.target.tries = 0
        self.targets.later(call.target, self.clock.seconds())
        self.owner.dial_ended()


def _why(reason: Failure) -> str:
    if reason.check(RefusedError):
        return "refused"
    if reason.check(DialTimeoutError):
        return "timed out"
    return reason.getErrorMessage()
