"""Who we are connected to, for one content: one connection to each node, and none to some.

Of two connections to a node the one dialled by the smaller node_id stays, on both sides; a second
one from the same side replaces the first, which is then dead without having noticed (decision 24).
Two complete nodes do not keep a connection, and do not dial each other again. How many there are
and who goes for another is the ``circle``'s to say; peers tell each other of peers (``pex``).
Does NOT exchange pieces. Threat: nodes that sent wrong bytes and come back; nodes under many
connections; liars, see ``pex``. Tests: ``test_roster``, ``test_sim_pex``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Protocol as Structural

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTCP, IReactorTime

from p2pdist import limits
from p2pdist.addresses import Address, scope
from p2pdist.ids import HashKey, NodeID
from p2pdist.logs import new_logger
from p2pdist.overlay.guard import RateLimit
from p2pdist.swarm.admission import Admission
from p2pdist.swarm.bans import BanList
from p2pdist.swarm.circle import Circle
from p2pdist.swarm.connection import ConnectionOwner, PeerConnection
from p2pdist.swarm.dialler import Dialler
from p2pdist.swarm.events import TransferEvents
from p2pdist.swarm.messages import Bitfield, ByeReason, Message, PeerFlag, Peers
from p2pdist.swarm.pex import Hearsay, Telling
from p2pdist.swarm.transport import Way


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
        room: whether it takes callers, as it says.
        telling: what it was told of other peers.
    """

    node_id: NodeID
    connection: PeerConnection
    pieces: int = 0
    bits: int | None = None
    interested: bool = False
    metadata_served: bool = False
    room: bool = True
    telling: Telling = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.telling = Telling(scope(self.connection.address))


class RosterOwner(ConnectionOwner, Structural):
    """What a :class:`Roster` asks and tells; its connections report to the same."""

    def is_complete(self) -> bool:
        """Tell whether we have every piece."""

    def member_joined(self, member: Member) -> None:
        """There is a connection to one more node."""

    def member_left(self, member: Member) -> bool:
        """It is closed; return whether the node claimed every piece."""

    def roster_changed(self) -> None:
        """A socket is gone, or a dial over: ``idle`` may have become true."""


class Roster:
    """The connections of one content.

    Args:
        clock: time.
        reactor: where to dial.
        node_id: ours.
        way: how connections are opened.
        hash_key: the content.
        rng: chance.
        admission: the process-wide count.
        bind_host: local address to dial from, or ``None``.
        owner: asked and told.
        events: told of peers that cannot be reached, and of peers others told us of.

    Attributes:
        members: connected nodes, oldest first.
    """

    log = new_logger()

    def __init__(
        self,
        *,
        clock: IReactorTime,
        reactor: IReactorTCP,
        node_id: NodeID,
        way: Way,
        hash_key: HashKey,
        rng: random.Random,
        admission: Admission,
        bind_host: str | None,
        owner: RosterOwner,
        events: TransferEvents,
    ) -> None:
        self.members: dict[NodeID, Member] = {}
        self._node_id = node_id
        self._clock = clock
        self._owner = owner
        self._events = events
        self._circle = Circle()
        self._hearsay = Hearsay(rng)
        self._bans = BanList()
        self._complaints: RateLimit[None] = RateLimit(
            (limits.LOG_PER_KIND / 60, limits.LOG_PER_KIND)
        )
        self._sockets: dict[PeerConnection, None] = {}
        self._complete: dict[NodeID, tuple[Address, PeerFlag] | None] = {}
        self._telling: IDelayedCall | None = None
        self._stopping = False
        self._dialler = Dialler(
            clock=clock,
            reactor=reactor,
            way=way,
            hash_key=hash_key,
            rng=rng,
            admission=admission,
            bind_host=bind_host,
            owner=self,
        )
        self._targets = self._dialler.targets

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
        return len(self._targets)

    @property
    def unreachable_count(self) -> int:
        """How many of them answer on UDP only."""
        return sum(target.blocked for target in self._targets.all())

    def _connections(self) -> dict[NodeID, PeerConnection]:
        return {node_id: member.connection for node_id, member in self.members.items()}

    # --- for the overlay ---

    def add(
        self, address: Address, node_id: NodeID, *, dial_now: bool, is_open: bool = True
    ) -> None:
        """The overlay joined a peer; ``is_open``: strangers can call it, as far as is known."""
        if not self._stopping and node_id != self._node_id:
            self._hearsay.joined(address)
            self._dialler.add(address, node_id, dial_now=dial_now, is_open=is_open)
            self._try_hearsay(self._clock.seconds())  # who told of it has credit again

    def remove(self, node_id: NodeID) -> None:
        """The overlay lost a peer; its connection stays as long as it lives."""
        self._targets.remove(node_id)

    # --- for the dialler ---

    def calls_wanted(self, calling: int) -> int:
        """See :class:`~p2pdist.swarm.dialler.DialOwner`."""
        return self._circle.calls(self._connections().values(), calling)

    def wants(self, node_id: NodeID, address: Address) -> bool:
        """See :class:`~p2pdist.swarm.dialler.DialOwner`."""
        now = self._clock.seconds()
        if node_id in self.members or self._bans.banned(node_id, address, now):
            return False
        return not (node_id in self._complete and self._owner.is_complete())

    def unreachable(self, address: Address, reason: str) -> None:
        """See :class:`~p2pdist.swarm.dialler.DialOwner`."""
        self._events.peer_unreachable(address, reason)

    def dial_ended(self) -> None:
        """See :class:`~p2pdist.swarm.dialler.DialOwner`."""
        self._owner.roster_changed()

    def accept(self, connection: PeerConnection) -> None:
        """Take a proved connection, ours or a caller's; one that must not be is closed."""
        node_id = connection.node_id
        connection.attach(self._owner)
        self._sockets[connection] = None
        other = self.members.get(node_id)
        if self._stopping:
            connection.close(ByeReason.STOPPING)
        elif self._bans.banned(node_id, None, self._clock.seconds()):
            connection.close(ByeReason.BANNED)
        elif other is not None and not self._replaces(connection, other):
            connection.close(ByeReason.DUPLICATE)
        elif other is None and not self._make_room(connection):
            self._refuse(connection)
        else:
            if other is not None:
                other.connection.close(ByeReason.DUPLICATE)
            self._complete.pop(node_id, None)
            member = self.members[node_id] = Member(node_id, connection)
            self._hearsay.met(node_id, connection.address, self._clock.seconds())
            if self._telling is None:
                self._telling = self._clock.callLater(limits.PEX_SOON_S, self._tell_soon)
            self._owner.member_joined(member)

    def _make_room(self, connection: PeerConnection) -> bool:
        """Tell whether there is a place for one more; somebody may have to go for it."""
        welcome, goes = self._circle.admit(
            self._connections(), self._clock.seconds(), outgoing=connection.outgoing
        )
        if goes is not None:
            self._let_go(goes)
        return welcome

    def _refuse(self, connection: PeerConnection) -> None:
        """Send somebody away, and say who else there is."""
        telling, now = Telling(scope(connection.address)), self._clock.seconds()
        others = telling.news(self._view(), None, now, room=False)
        if others is not None:
            connection.send(others)
        connection.close(ByeReason.FULL)

    def _let_go(self, node_id: NodeID) -> None:
        """Close a connection for another, and do not call at once whom we sent away."""
        self._targets.put_off(node_id, self._clock.seconds())
        self.members[node_id].connection.close(ByeReason.FULL)

    def _replaces(self, new: PeerConnection, old: Member) -> bool:
        if new.outgoing == old.connection.outgoing:
            return True
        return new.outgoing == (self._node_id < old.node_id)

    # --- peers tell of peers ---

    def heard(self, member: Member, message: Message) -> bool:
        """Take a message if it tells of peers; count its bytes in any case.

        Raises:
            UnexpectedMessage: it came too soon after the last.
        """
        if isinstance(message, Bitfield):
            self.received(member, len(message.bits))
        if not isinstance(message, Peers):
            return False
        now = self._clock.seconds()
        self._hearsay.heard(member.node_id, message, now)
        member.room = message.room
        self._try_hearsay(now)
        return True

    def received(self, member: Member, size: int) -> None:
        """A peer sent so many bytes."""
        self._hearsay.received(member.node_id, size)

    def _vouched(self, member: Member) -> tuple[Address, PeerFlag] | None:
        """Return where a member can be called, if we know it ourselves."""
        connection, target = member.connection, self._targets.get(member.node_id)
        if connection.outgoing:
            return connection.address, PeerFlag.REACHED
        if target is None or not target.open or target.blocked:
            return None
        # A caller's port says nothing; where it joined from does, if that is the same machine.
        same = target.address.host == connection.address.host
        return (target.address, PeerFlag(0)) if same else None

    def _view(self) -> dict[Address, PeerFlag]:
        """Return who is good to call: members, and complete peers we parted from as such."""
        parted = [
            vouched
            for node_id, vouched in self._complete.items()
            if self._targets.get(node_id) is not None
        ]
        connected = [self._vouched(member) for member in self if member.room]
        return dict(vouched for vouched in (*connected, *parted) if vouched is not None)

    def _tell_soon(self) -> None:
        """Tell newcomers of each other: those of one rollout all come in the same moment."""
        self._telling = None
        self._tell(self._clock.seconds())

    def _tell(self, now: float) -> None:
        view, room = self._view(), self._circle.room(self._connections().values())
        for member in self:
            vouched = self._vouched(member)
            itself = None if vouched is None else vouched[0]
            news = member.telling.news(view, itself, now, room=room)
            if news is not None:
                member.connection.send(news)

    def _try_hearsay(self, now: float) -> None:
        """Have some of those that peers told of joined, while there are too few to call."""
        if self._stopping or self._owner.is_complete():
            return
        known = {target.address for target in self._targets.all()}
        waiting = sum(
            target.hopeful
            and target.node_id not in self.members
            and self.wants(target.node_id, target.address)
            for target in self._targets.all()
        )
        lack = self._circle.lack(self._connections().values(), waiting)
        known.update(member.connection.address for member in self)
        for address in self._hearsay.draw(lack, now, lambda address: address not in known):
            self._events.peer_told(address)

    # --- ends ---

    def closed(self, connection: PeerConnection) -> None:
        """A connection exchanges nothing more."""
        member = self.members.get(connection.node_id)
        if member is None or member.connection is not connection:
            return
        vouched = self._vouched(member)
        del self.members[member.node_id]
        if self._owner.member_left(member):
            self._complete[member.node_id] = vouched
            if len(self._complete) > limits.PEERS_PER_OWN_TOPIC:
                del self._complete[next(iter(self._complete))]

    def gone(self, connection: PeerConnection) -> None:
        """A connection's socket is gone."""
        del self._sockets[connection]
        self._owner.roster_changed()

    def ban(self, connection: PeerConnection, what: str) -> None:
        """A node sent wrong bytes: nobody talks to it for ``limits.BAN_S``, or any more.

        At most ``limits.LOG_PER_KIND`` a minute are logged: keys to offend with cost nothing.
        """
        now = self._clock.seconds()
        self._bans.offend(connection.node_id, connection.address, now)
        if self._complaints.allow(None, now):
            self.log.info("{peer} sent {what}", peer=connection.address, what=what)
        member = self.members.get(connection.node_id)
        for known in (connection, *([] if member is None else [member.connection])):
            known.close(ByeReason.BANNED)

    def tick(self, now: float) -> None:
        """Look at deadlines: called every ``limits.TICK_S``."""
        for member in self:
            member.connection.tick(now)
        others = self._dialler.waiting
        goes = self._circle.replace(self._connections(), now, lambda: bool(others(now)))
        if goes is not None:
            self._let_go(goes)
        self._dialler.tick()
        self._tell(now)
        self._try_hearsay(now)

    def stop(self) -> None:
        """Close and dial no more; ``roster_changed`` follows until ``idle``."""
        self._stopping = True
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._dialler.stop()  # before the rest says goodbye: it aborts what is not open
        for connection in list(self._sockets):
            connection.close(ByeReason.STOPPING)
