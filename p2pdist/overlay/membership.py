"""This node's part in one swarm's overlay: finding peers, joining them, being findable.

Job: search -> ping -> join, tell joined peers our status, announce to the storers, search again
when too few peers are left. It does NOT move content: whoever listens learns of joined peers and
dials them.

States of a peer::

    offered -(ping, at most limits.PING_PARALLEL at once)-> alive -(join)-> joined -> left
        `-(silent)-> dropped                                  `-(refused)-> dropped

A newcomer that joins us is recorded as idle until it declares leech or seed.

Threat: false offers and false joins. A join needs our token and a proof of the content's key, both
ways; at most ``limits.STATUS_PEERS`` peers are kept joined, one per address, at most
``limits.PORTS_PER_HOST`` per global host. Node ids are not proved on UDP, so a joined node stays
where it is as long as it answers there. Tests: ``test_membership``, ``test_sim_discovery``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, limit_key
from p2pdist.errors import NodeStopped, RequestRefused, RequestTimedOut, RPCError
from p2pdist.ids import HashKey, NodeID, Topic
from p2pdist.keys import equal, join_proof, topic_of
from p2pdist.logs import new_logger
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.joined import JoinedPeer, MembershipEvents
from p2pdist.overlay.messages import (
    Announce,
    Announced,
    Error,
    ErrorCode,
    Join,
    Joined,
    Pong,
    Reply,
    Status,
    StatusUpdate,
)
from p2pdist.overlay.network import Network
from p2pdist.overlay.search import Search

__all__ = ["JoinedPeer", "Membership", "MembershipEvents"]
AGAIN_S = 0.5
"""Pause before the search that a storer's "others are known here" sets off."""
ANNOUNCE_COST = 2.0
"""Requests a node may see for an announce: a find and the announce itself."""


@define(eq=False)
class Membership:
    """One content's membership.

    Args:
        network: in which the swarm lives.
        hash_key: the content's.
        events: told of peers.
        entries: returns where the descriptor's own nodes are. They are storers and asked for peers
            whatever their ids: who makes hundreds of ids next to the topic is all that is near it.
    """

    network: Network
    hash_key: HashKey
    events: MembershipEvents
    entries: Callable[[], Sequence[Address]] = tuple
    topic: Topic = field(init=False)
    status: Status = field(init=False, default=Status.IDLE)
    joined: dict[NodeID, JoinedPeer] = field(init=False, factory=dict)
    _log = new_logger()
    _sequence: int = field(init=False, default=0)
    _search: Search | None = field(init=False, default=None)
    _searching: bool = field(init=False, default=False)
    _starved_until: float = field(init=False, default=0.0)
    _failures: int = field(init=False, default=0)
    _candidates: deque[Address] = field(init=False, factory=deque)
    _trying: dict[Address, None] = field(init=False, factory=dict)
    _storers: dict[Address, None] = field(init=False, factory=dict)
    _untold: dict[Address, None] = field(init=False, factory=dict)
    _next_search: IDelayedCall | None = field(init=False, default=None)
    _next_announce: IDelayedCall | None = field(init=False, default=None)
    _running: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.topic = topic_of(self.hash_key)

    # --- life ---

    def start(self, known_peers: tuple[Address, ...] = ()) -> None:
        """Become a member: searchable at once, searching at once.

        Args:
            known_peers: peers of an earlier run, tried beside the search.
        """
        self._running = True
        # Later lives of this node must outrank earlier ones for those who remember them.
        self._sequence = int(self.network.clock.seconds()) % 2**31
        self.network.peers.own(self.topic)
        self.network.join_servers[self.topic] = self._serve_join
        self.network.status_listeners[self.topic] = self._status_received
        self.network.neighbour_found.append(self._neighbour_found)
        self._start_search()
        for address in known_peers[: limits.SAVED_PEERS]:
            self.candidate(address)

    def stop(self) -> None:
        """Leave: tell joined peers and storers once, without waiting; cancel timers."""
        if not self._running:
            return
        self._set(Status.LEFT)
        self._running = False
        self.network.neighbour_found.remove(self._neighbour_found)
        del self.network.join_servers[self.topic]
        del self.network.status_listeners[self.topic]
        self.network.peers.disown(self.topic)
        for timer in filter(None, (self._next_search, self._next_announce)):
            timer.cancel()
        self._next_search = self._next_announce = None
        if self._search is not None:
            self._search.stop()
            self.network.agenda.forget(self._search)
        for peer in self.joined.values():
            self.network.companions.left(peer.address, peer.node_id)
        self._candidates.clear()

    def set_status(self, status: Status) -> None:
        """Declare what we do now to every joined peer; storers learn it by announce."""
        if status is not self.status:
            self._set(status)

    def _set(self, status: Status) -> None:
        self.status = status
        self._sequence += 1
        for peer in list(self.joined.values()):
            self._tell(peer)
        if status is not Status.IDLE:
            for storer in self._told():
                self._announce_to(storer)

    def _tell(self, peer: JoinedPeer) -> None:
        update = StatusUpdate(
            node_id=self.network.node_id,
            topic=self.topic,
            status=self.status,
            sequence=self._sequence,
        )
        self.network.rpc.call(peer.address, update).addCallbacks(
            lambda _reply: None, lambda failure: self._eb_tell(failure, peer)
        )

    def _eb_tell(self, failure: Failure, peer: JoinedPeer) -> None:
        failure.trap(RPCError, NodeStopped)
        why = failure.value
        gone = isinstance(why, RequestRefused) and why.code == ErrorCode.NOT_A_PEER
        if gone or isinstance(why, RequestTimedOut):
            self._drop(peer)  # silent, or its farewell was lost: it does not know us any more

    # --- searching ---

    def search(self) -> None:
        """Look for more peers, unless a search is under way: those that are joined give nothing."""
        self._starved_until = self.network.clock.seconds() + limits.STALL_SEARCH_S[1]
        if self._running and not self._searching:
            if self._next_search is not None:
                self._next_search.cancel()
                self._next_search = None
            self._start_search()

    def _start_search(self) -> None:
        if self._search is not None:
            self.network.agenda.forget(self._search)
        self._searching = True
        self._search = Search(
            self.network,
            self.topic,
            me=lambda: (self.status, self._sequence),
            candidate=self.candidate,
            ended=self._search_ended,
            entries=self.entries,
        )
        self.network.agenda.begin(self._search)
        if self.network.agenda.waits(self._search):
            self.network.chores.soon(self._ask_companions, urgent=True)

    def _ask_companions(self) -> None:
        """While the search waits for its turn: ask those who are joined in other contents."""
        if not self._running or self.joined:
            return
        for address, node_id in self.network.companions.best():
            if address not in self._trying:
                self._trying[address] = None
                self._join(address, node_id)

    def _search_ended(self, search: Search) -> None:
        self._searching = False
        self.network.agenda.ended(search)
        if not self._running:
            return
        self._failures = 0 if self.joined else self._failures + 1
        self.events.search_over(found=search.found, asked=search.lookup.asked)
        if self._next_announce is None:
            self._announce()
        if not self.joined:
            low, high = limits.LOOKUP_RETRY_S
            high = limits.ANNOUNCE_EVERY_S if self.status is Status.SEED else high
            self._search_in(min(low * 2 ** min(self._failures - 1, 10), high))

    def _search_in(self, seconds: float) -> None:
        """Search so much later, or earlier if that is planned: news must not put it off."""
        wait = seconds * (1 + limits.RTO_JITTER * (2 * self.network.rng.random() - 1))
        if self._next_search is not None:
            if self._next_search.getTime() <= self.network.clock.seconds() + wait:
                return
            self._next_search.cancel()
        self._next_search = self.network.clock.callLater(wait, self._search_now)

    def _search_now(self) -> None:
        self._next_search = None
        if not self._searching:
            self._start_search()

    def _neighbour_found(self, address: Address) -> None:
        """Use a new neighbour: as a storer if they are few, for a search if we wait for peers."""
        entry = self.network.neighbours.get(address)
        stores = entry is not None and not entry.nat  # nobody could ask a storer behind a NAT
        wanted = len(self._storers) < limits.STORERS or address in self.entries()
        if stores and wanted and self._next_announce is not None:
            self._untold[address] = None
            if len(self._untold) == 1:
                self.network.chores.soon(self._tell_storers)
        if not self.joined and self._next_search is not None:
            self._search_in(AGAIN_S)

    # --- announcing ---

    def _tell_storers(self) -> None:
        """Announce to the new neighbours that may be storers."""
        untold, self._untold = self._untold, {}
        for address in untold if self._running else ():
            self._announce_to(address)

    def _announce(self) -> None:
        """Find the storers and announce to each soon; again every 15 minutes or so."""
        spread = 1 + limits.ANNOUNCE_JITTER * (2 * self.network.rng.random() - 1)
        self._next_announce = self.network.clock.callLater(
            limits.ANNOUNCE_EVERY_S * spread, self._announce
        )
        self.network.chores.soon(self._announce_now, cost=ANNOUNCE_COST)

    def _announce_now(self) -> None:
        if not self._running:
            return
        self.network.converge(self.topic, limits.STORERS).addCallbacks(
            self._cb_storers, lambda failure: failure.trap(NodeStopped) and None
        )
        for peer in list(self.joined.values()):
            self._tell(peer)

    def _cb_storers(self, storers: list[NodeEntry]) -> None:
        if not self._running:
            return
        self._storers = {entry.address: None for entry in storers}
        for address in self._told():
            self._announce_to(address)

    def _told(self) -> list[Address]:
        """Return whom we announce to: the storers and the descriptor's own nodes."""
        return list(dict.fromkeys((*self._storers, *self.entries()[: limits.ENTRY_NODES])))

    def _announce_to(self, address: Address) -> None:
        announce = Announce(
            node_id=self.network.node_id,
            topic=self.topic,
            status=self.status,
            sequence=self._sequence,
        )
        self.network.rpc.call(address, announce).addCallbacks(
            lambda reply: self._cb_announced(reply, address),
            lambda failure: failure.trap(RPCError, NodeStopped) and None,
        )

    def _cb_announced(self, reply: Reply, address: Address) -> None:
        assert isinstance(reply, Announced)
        if not self._running:
            return
        if len(self._storers) < limits.STORERS and address not in self.entries():
            self._storers[address] = None
        if reply.others and not self.joined and not self._searching and not self._trying:
            self._search_in(AGAIN_S)

    # --- peers we found ---

    def candidate(self, address: Address) -> None:
        """Take an address somebody offered: ping it, join it if it answers."""
        if not self._running or address in self._trying or address in self._candidates:
            return
        lonely = self.network.clock.seconds() < self._starved_until or not self.joined
        full = len(self.joined) >= limits.JOINED_PEERS
        if full or not self.network.approachable(address, lonely=lonely):
            return
        known = next((peer for peer in self.joined.values() if peer.address == address), None)
        if known is not None:
            self._found()
            if self.network.clock.seconds() - known.since >= limits.STALL_SEARCH_S[0]:
                self.check(known.node_id).addCallback(lambda _: self._there_again(known))
            return
        if len(self._trying) >= limits.PING_PARALLEL:
            if len(self._candidates) < limits.SAVED_PEERS + limits.LOOKUP_CANDIDATES:
                self._candidates.append(address)
            return
        self._trying[address] = None
        self.events.peer_offered(address)
        self.network.contact(address).addCallbacks(
            lambda reply: self._cb_alive(reply, address),
            lambda failure: self._eb_dead(failure, address),
        )

    def _cb_alive(self, reply: Reply, address: Address) -> None:
        assert isinstance(reply, Pong)
        if not self._running:
            return
        if reply.node_id == self.network.node_id:
            self._tried(address)
        elif self._elsewhere(reply.node_id, address):
            self._tried(address)
            self._found()
        else:
            self._join(address, reply.node_id)

    def _elsewhere(self, node_id: NodeID, address: Address) -> bool:
        """Tell whether a node is joined at another address; if so, see whether it is still there.

        It may have moved, have a second address, or somebody borrows its id: whoever answers where
        it was joined keeps the place.
        """
        known = self.joined.get(node_id)
        if known is None or known.address == address:
            return False
        self.check(node_id)
        return True

    def _eb_dead(self, failure: Failure, address: Address) -> None:
        failure.trap(RPCError, NodeStopped)
        if failure.check(RequestTimedOut):
            self._log.debug("{peer} does not answer and is dropped", peer=str(address))
            self.network.peers.remove(self.topic, address)
        self._tried(address)

    def _join(self, address: Address, node_id: NodeID) -> None:
        own = self.network.node_id
        nonces: list[tuple[bytes, bytes]] = []

        def build(rid: bytes, token: bytes) -> Join:
            nonces.append((rid, token))
            proof = join_proof(self.hash_key, b"join", rid, token, own, node_id)
            return Join(node_id=own, rid=rid, token=token, topic=self.topic, proof=proof)

        def joined(reply: Reply) -> None:
            assert isinstance(reply, Joined)
            good = any(
                equal(
                    reply.proof,
                    join_proof(self.hash_key, b"joined", rid, token, node_id, own),
                )
                for rid, token in nonces
            )
            self._tried(address)
            if not self._running:
                return
            if not good or reply.node_id != node_id:
                self._log.debug("{peer} cannot prove the key", peer=str(address))
                return
            self._add(JoinedPeer(node_id, address, reply.status), by_us=True)

        def refused(failure: Failure) -> None:
            failure.trap(RPCError, NodeStopped)
            self._log.debug("{peer} is no peer: {reason}", peer=str(address), reason=failure.value)
            self._tried(address)

        self.network.rpc.call_built(address, build, Joined).addCallbacks(joined, refused)

    def _tried(self, address: Address) -> None:
        self._trying.pop(address, None)
        while self._candidates and len(self._trying) < limits.PING_PARALLEL:
            self.candidate(self._candidates.popleft())

    def _found(self) -> None:
        if self._search is not None:
            self._search.joined()

    # --- peers that found us ---

    def _serve_join(self, source: Address, request: Join) -> Reply:
        own = self.network.node_id
        rid, token = request.rid, request.token
        expected = join_proof(self.hash_key, b"join", rid, token, request.node_id, own)
        if request.node_id == own or not equal(request.proof, expected):
            return Error(rid=request.rid, attempt=request.attempt, error=ErrorCode.BAD_PROOF)
        if self._elsewhere(request.node_id, source) or not self._room_for(source):
            return Error(rid=request.rid, attempt=request.attempt, error=ErrorCode.FULL)
        self.network.peers.remove(self.topic, source)  # a new life may count from lower numbers
        self._add(JoinedPeer(request.node_id, source, Status.IDLE), by_us=False)
        return Joined(
            rid=request.rid,
            attempt=request.attempt,
            node_id=own,
            status=self.status,
            proof=join_proof(self.hash_key, b"joined", rid, token, own, request.node_id),
        )

    def _room_for(self, address: Address) -> bool:
        """Tell whether one more peer may be joined at ``address``; who is there makes room."""
        if any(peer.address == address for peer in self.joined.values()):
            return True
        if len(self.joined) >= limits.STATUS_PEERS:
            return False
        host = limit_key(address)
        same = sum(limit_key(peer.address) == host for peer in self.joined.values())
        return same < limits.PORTS_PER_HOST

    def _status_received(self, source: Address, update: StatusUpdate) -> bool:
        """Take a status; return whether it is a joined peer's."""
        peer = self.joined.get(update.node_id)
        if peer is None or peer.address != source:
            return False
        peer.status = update.status
        if update.status is Status.LEFT:
            self._drop(peer)
        return True

    def _add(self, peer: JoinedPeer, *, by_us: bool) -> None:
        known = self.joined.get(peer.node_id)
        if known is not None and not by_us:
            peer.status = known.status
        for other in list(self.joined.values()):
            if other.address == peer.address and other.node_id != peer.node_id:
                self._drop(other)  # it came back with another key
        if known is not None:
            self.network.companions.left(known.address, known.node_id)
        self.joined[peer.node_id] = peer
        self.network.companions.joined(peer.address, peer.node_id)
        now = self.network.clock.seconds()
        self.network.peers.put(
            self.topic, peer.node_id, peer.address, peer.status, 0, now, joined=True
        )
        self._failures, peer.since = 0, now
        if self._next_search is not None:
            self._next_search.cancel()
            self._next_search = None
        status = self.status  # a change of it is told to all
        self.events.peer_joined(peer, by_us=by_us)
        self._found()
        if by_us and status is not Status.IDLE and status is self.status:
            self._tell(peer)  # who joined us learns it from the reply; a status would overtake that

    def _drop(self, peer: JoinedPeer) -> None:
        """Forget a peer; search again if it was the last."""
        if self.joined.get(peer.node_id) is not peer:
            return
        del self.joined[peer.node_id]
        if self._running:
            self.network.companions.left(peer.address, peer.node_id)
        self.network.peers.remove(self.topic, peer.address)
        self.events.peer_left(peer)
        if self._running and not self.joined and not self._searching:
            self._search_in(AGAIN_S)

    def _there_again(self, peer: JoinedPeer) -> None:
        """It answered: who waits before calling it need not, as when a partition has ended."""
        if self._running and self.joined.get(peer.node_id) is peer:
            peer.since = self.network.clock.seconds()
            self.events.peer_joined(peer, by_us=True)

    def check(self, node_id: NodeID) -> Deferred[None]:
        """Ping a joined peer and drop it if it is silent; fires when that is clear, never fails."""
        peer = self.joined.get(node_id)
        if peer is None:
            return succeed(None)

        def silent(failure: Failure) -> None:
            failure.trap(RPCError, NodeStopped)
            if failure.check(RequestTimedOut):
                self._drop(peer)

        return self.network.contact(peer.address).addCallbacks(lambda _pong: None, silent)
