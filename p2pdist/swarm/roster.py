"""Who we are connected to, for one content: one connection to each node, and none to some.

Of two connections to a node the one dialled by the smaller node_id stays, on both sides; a second
one from the same side replaces the first, which is then dead without having noticed (decision 24).
Two complete nodes do not keep a connection, and do not dial each other again.
Does NOT exchange anything. Threat: nodes that sent wrong bytes and come back; nodes under many
connections. Tests: ``test_roster``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Protocol as Structural

from attrs import define
from twisted.internet.interfaces import IReactorTCP, IReactorTime

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import HashKey, NodeID
from p2pdist.keys import NodeKey
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.bans import BanList
from p2pdist.swarm.connection import ConnectionOwner, PeerConnection
from p2pdist.swarm.dialler import Dialler
from p2pdist.swarm.messages import ByeReason


@define(eq=False)
class Member:
    """A connected node, and what it said before pieces can be exchanged.

    Attributes:
        node_id: proved.
        connection: the one to it.
        pieces: mask of what it claims.
        bits: size of its bitfield in bytes, ``None`` before it came.
        interested: whether it wants anything.
        metadata_served: whether it asked for the metadata.
    """

    node_id: NodeID
    connection: PeerConnection
    pieces: int = 0
    bits: int | None = None
    interested: bool = False
    metadata_served: bool = False


class RosterOwner(ConnectionOwner, Structural):
    """What a :class:`Roster` asks and tells; its connections report to the same."""

    def is_complete(self) -> bool:
        """Tell whether we have every piece."""

    def member_joined(self, member: Member) -> None:
        """There is a connection to one more node."""

    def member_left(self, member: Member) -> bool:
        """It is closed; return whether the node claimed every piece."""

    def peer_unreachable(self, address: Address, reason: str) -> None:
        """TCP to a peer that answers on UDP failed."""

    def roster_changed(self) -> None:
        """A socket is gone, or a dial over: ``idle`` may have become true."""


class Roster:
    """The connections of one content.

    Args:
        clock: time.
        reactor: where to dial.
        node_key: our key.
        hash_key: the content.
        entropy: secret random bytes.
        rng: chance.
        admission: the process-wide count.
        bind_host: local address to dial from, or ``None``.
        owner: asked and told.

    Attributes:
        members: connected nodes, oldest first.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        reactor: IReactorTCP,
        node_key: NodeKey,
        hash_key: HashKey,
        entropy: Callable[[int], bytes],
        rng: random.Random,
        admission: Admission,
        bind_host: str | None,
        owner: RosterOwner,
    ) -> None:
        self.members: dict[NodeID, Member] = {}
        self._node_id = node_key.node_id
        self._clock = clock
        self._owner = owner
        self._bans = BanList()
        self._sockets: dict[PeerConnection, None] = {}
        self._complete: dict[NodeID, None] = {}
        self._unreachable: dict[Address, None] = {}
        self._stopping = False
        self._dialler = Dialler(
            clock=clock,
            reactor=reactor,
            node_key=node_key,
            hash_key=hash_key,
            entropy=entropy,
            rng=rng,
            admission=admission,
            bind_host=bind_host,
            owner=self,
        )

    # --- what is known ---

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self.members.values()))

    @property
    def idle(self) -> bool:
        """Whether no socket is left and none is being made."""
        return not self._sockets and self._dialler.idle

    @property
    def known(self) -> int:
        """How many peers could be dialled."""
        return self._dialler.targets

    @property
    def unreachable_count(self) -> int:
        """How many of them answer on UDP only."""
        return len(self._unreachable)

    # --- for the overlay ---

    def add(self, address: Address, node_id: NodeID, *, dial_now: bool) -> None:
        """The overlay joined a peer."""
        if not self._stopping and node_id != self._node_id:
            self._dialler.add(address, node_id, dial_now=dial_now)

    def remove(self, node_id: NodeID) -> None:
        """The overlay lost a peer; its connection stays as long as it lives."""
        address = self._dialler.remove(node_id)
        if address is not None:
            self._unreachable.pop(address, None)

    # --- for the dialler ---

    def wants(self, node_id: NodeID, address: Address) -> bool:
        """See :class:`~p2pdist.swarm.dialler.DialOwner`."""
        now = self._clock.seconds()
        if node_id in self.members or self._bans.banned(node_id, address, now):
            return False
        return not (node_id in self._complete and self._owner.is_complete())

    def unreachable(self, address: Address, reason: str) -> None:
        """See :class:`~p2pdist.swarm.dialler.DialOwner`."""
        self._unreachable[address] = None
        self._owner.peer_unreachable(address, reason)

    def dial_ended(self) -> None:
        """See :class:`~p2pdist.swarm.dialler.DialOwner`."""
        self._owner.roster_changed()

    def accept(self, connection: PeerConnection) -> None:
        """Take a proved connection, ours or a caller's; one that must not be is closed."""
        node_id = connection.node_id
        connection.attach(self._owner)
        self._sockets[connection] = None
        if connection.outgoing:
            self._unreachable.pop(connection.address, None)
        other = self.members.get(node_id)
        if self._stopping:
            connection.close(ByeReason.STOPPING)
        elif self._bans.banned(node_id, None, self._clock.seconds()):
            connection.close(ByeReason.BANNED)
        elif other is not None and not self._replaces(connection, other):
            connection.close(ByeReason.DUPLICATE)
        else:
            if other is not None:
                other.connection.close(ByeReason.DUPLICATE)
            self._complete.pop(node_id, None)
            member = self.members[node_id] = Member(node_id, connection)
            self._owner.member_joined(member)

    def _replaces(self, new: PeerConnection, old: Member) -> bool:
        if new.outgoing == old.connection.outgoing:
            return True
        return new.outgoing == (self._node_id < old.node_id)

    # --- ends ---

    def closed(self, connection: PeerConnection) -> None:
        """A connection exchanges nothing more."""
        member = self.members.get(connection.node_id)
        if member is None or member.connection is not connection:
            return
        del self.members[member.node_id]
        if self._owner.member_left(member):
            self._complete[member.node_id] = None
            if len(self._complete) > limits.PEERS_PER_OWN_TOPIC:
                del self._complete[next(iter(self._complete))]

    def gone(self, connection: PeerConnection) -> None:
        """A connection's socket is gone."""
        del self._sockets[connection]
        self._owner.roster_changed()

    def ban(self, connection: PeerConnection) -> None:
        """A node sent wrong bytes: nobody talks to it for ``limits.BAN_S``, or any more."""
        self._bans.offend(connection.node_id, connection.address, self._clock.seconds())
        member = self.members.get(connection.node_id)
        for known in (connection, *([] if member is None else [member.connection])):
            known.close(ByeReason.BANNED)

    def tick(self, now: float) -> None:
        """Look at deadlines: called every ``limits.TICK_S``."""
        for member in self:
            member.connection.tick(now)
        self._dialler.tick()

    def stop(self) -> None:
        """Close and dial no more; ``roster_changed`` follows until ``idle``."""
        self._stopping = True
        for connection in list(self._sockets):
            connection.close(ByeReason.STOPPING)
        self._dialler.stop()
