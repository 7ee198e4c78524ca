"""Carries out what ``lookup`` and ``iterate`` decide: the calls, timers and callbacks around them.

Job: :class:`Search` runs one lookup of a topic's peers, :class:`Convergence` one iterative lookup
of nodes. They do NOT decide anything. Both are owned by a ``Network``, which hands them offers and
tells them of new neighbours. Tests: ``test_search``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import attrs
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, limit_key, scope, subnet_key
from p2pdist.errors import NodeStopped, RequestTimedOut, RPCError
from p2pdist.ids import NodeID, Topic
from p2pdist.overlay.doubts import Doubts
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.iterate import Iteration
from p2pdist.overlay.lookup import (
    QUERY_BYTES,
    Action,
    AskEntries,
    Candidate,
    Iterate,
    Lookup,
    Pull,
    State,
    TryPeer,
    Walk,
)
from p2pdist.overlay.messages import (
    Accept,
    Accepted,
    Find,
    Flag,
    Forwarded,
    Found,
    GetPeers,
    Offer,
    Reply,
    Status,
    Verdict,
)
from p2pdist.overlay.reach import Reach
from p2pdist.overlay.rpc import RPC

CONVERGENCE_CALL_S = 2.5
"""Deadline of one question of an iterative lookup."""


class Surroundings(Protocol):
    """What a search needs from its network."""

    node_id: NodeID
    clock: IReactorTime
    rpc: RPC
    reach: Reach
    doubts: Doubts

    def walk_candidates(self) -> list[Candidate]:
        """Return the neighbours that may carry a walk."""

    def log2_reach(self) -> float:
        """Return log2 of the distance within which a topic's storers live."""

    def table_size(self) -> int:
        """Return how many neighbours there are."""

    def nearest(self, target: bytes, count: int) -> list[NodeEntry]:
        """Return known nodes near ``target``."""

    def nodes_told(self, entries: tuple[NodeEntry, ...]) -> None:
        """Take nodes somebody named."""

    def worth_asking(self, entries: tuple[NodeEntry, ...]) -> list[NodeEntry]:
        """Return those of the nodes one answer named that may be asked."""

    def unanswered(self, address: Address) -> None:
        """Note that a call timed out."""

    def no_route(self, address: Address) -> None:
        """Note that a first hop answered but knows nobody to ask."""


def few_per_subnet(
    entries: Iterable[NodeEntry], stranger: Callable[[Address], bool]
) -> list[NodeEntry]:
    """Return the nodes of one answer that may be asked.

    Strangers among them cost a ping each, so a liar must not name a victim often: one per global
    host and ``limits.SUBNET_PER_BUCKET`` per subnet.
    """
    asked: list[NodeEntry] = []
    hosts: dict[bytes, None] = {}
    subnets: Counter[bytes] = Counter()
    for entry in entries:
        if stranger(entry.address):
            host, subnet = limit_key(entry.address), subnet_key(entry.address)
            if host in hosts or (subnet and subnets[subnet] >= limits.SUBNET_PER_BUCKET):
                continue
            hosts[host] = None
            if subnet:
                subnets[subnet] += 1
        asked.append(entry)
    return asked


@define(eq=False)
class Convergence:
    """One iterative lookup of the nodes nearest to a target.

    Args:
        network: whose.
        target: 20 bytes.
        wanted: how many nearest nodes must have answered.
        visit: called with each node that answered.
        told: called with the nodes that one answer named and that may be asked.
    """

    network: Surroundings
    target: bytes
    wanted: int
    visit: Callable[[NodeEntry], None] = lambda _entry: None
    told: Callable[[list[NodeEntry]], None] = lambda _entries: None
    _iteration: Iteration = field(init=False)
    _done: Deferred[list[NodeEntry]] = field(init=False)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _over: bool = field(init=False, default=False)

    def start(self) -> Deferred[list[NodeEntry]]:
        """Begin; fires with the nodes that answered, nearest first. Never fails but by ``stop``."""
        self._iteration = Iteration(self.target, self.network.node_id, self.wanted)
        self._iteration.learn(self.network.nearest(self.target, self.wanted))
        self._done = Deferred()
        self._step()
        return self._done

    def stop(self) -> None:
        """End at once; the Deferred fails with :class:`NodeStopped`."""
        if not self._over:
            self._end()
            self._done.errback(NodeStopped("the node stopped during a lookup"))

    def _end(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self) -> None:
        """Ask whom the iteration wants asked; end, or wait for the next free slot."""
        now = self.network.clock.seconds()
        for entry in self._iteration.due(now):
            self._ask(entry)
        if self._over:
            return  # calls that failed at once brought the iteration to its end
        if self._iteration.done:
            self._end()
            self._done.callback(self._iteration.nearest())
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._iteration.next_timer(now)
        if due is not None:
            self._timer = self.network.clock.callLater(
                max(limits.TIMER_GRAIN_S, due - now), self._timer_fired
            )

    def _timer_fired(self) -> None:
        self._timer = None
        self._step()

    def _ask(self, entry: NodeEntry) -> None:
        if self._over:
            return  # ``visit`` or a call that failed at once stopped it
        called = self.network.rpc.call(
            entry.address,
            Find(node_id=self.network.node_id, target=self.target),
            tries=2,
            deadline_s=CONVERGENCE_CALL_S,
        )
        called.addCallbacks(self._cb_found, self._eb_silent, (entry,), {}, (entry,), {})

    def _cb_found(self, reply: Reply, entry: NodeEntry) -> None:
        assert isinstance(reply, Found)
        if self._over:
            return
        near = scope(entry.address)
        told = tuple(n for n in (*reply.nodes4, *reply.nodes6) if scope(n.address) >= near)
        self._iteration.answered(entry.address)
        worth = self.network.worth_asking(told)
        self._iteration.learn(worth)
        self.told(worth)
        self.visit(entry)
        self._step()

    def _eb_silent(self, failure: Failure, entry: NodeEntry) -> None:
        failure.trap(RPCError, NodeStopped)
        if failure.check(RequestTimedOut):
            self.network.unanswered(entry.address)
        if not self._over:
            self._iteration.silent(entry.address)
            self._step()


@define(eq=False)
class Search:
    """One lookup of the peers of a topic.

    Args:
        network: whose.
        topic: looked for.
        me: returns what we tell finders of ourselves: status and sequence number.
        candidate: called with each address worth a ping and a join.
        ended: called once when the lookup is over; ``search.found`` tells how.
        entries: returns where the descriptor's own nodes are.
    """

    network: Surroundings
    topic: Topic
    me: Callable[[], tuple[Status, int]]
    candidate: Callable[[Address], None]
    ended: Callable[[Search], None]
    entries: Callable[[], Sequence[Address]] = tuple
    lookup: Lookup = field(init=False)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _crawl: Convergence | None = field(init=False, default=None)
    _started: bool = field(init=False, default=False)
    _over: bool = field(init=False, default=False)
    _advancing: bool = field(init=False, default=False)
    _poked: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        query = self.network.rpc.entropy(QUERY_BYTES)
        self.lookup = Lookup(self.topic, query, self.network.clock.seconds())

    @property
    def query(self) -> bytes:
        """The first 11 bytes of the qids of its walks."""
        return self.lookup.query

    @property
    def found(self) -> bool:
        """Whether a peer joined."""
        return self.lookup.state is State.FOUND

    def start(self) -> None:
        """Begin; the lookup's time counts from now, not from when it was queued."""
        self._started = True
        self.lookup.started = self.network.clock.seconds()
        self.poke()

    def poke(self) -> None:
        """Look again: time passed, a reply came, or there is a new neighbour."""
        if self._over or not self._started:
            return
        self._poked = True
        if self._advancing:
            return  # a call failed at once; a loop, for with many neighbours recursion is too deep
        self._advancing = True
        try:
            while self._poked and not self._over:
                self._poked = False
                self._advance()
        finally:
            self._advancing = False

    def _advance(self) -> None:
        self._quiet()
        now = self.network.clock.seconds()
        network = self.network
        self._carry_out(
            self.lookup.advance(
                now, network.walk_candidates(), network.log2_reach(), network.table_size()
            )
        )
        if self._over or self._poked:
            return
        due = self.lookup.next_timer()
        if due is None:
            self._end()
        else:
            self._timer = network.clock.callLater(
                max(limits.TIMER_GRAIN_S, due - now), self._timer_fired
            )

    def _timer_fired(self) -> None:
        self._timer = None
        self.poke()

    def offered(self, offer: Offer, finder: Address) -> None:
        """Take an offer whose qid is this search's.

        A finder that a relay named is a stranger: it is pinged before anything larger goes there.
        """
        if offer.finder is not None:
            offer = attrs.evolve(offer, cookie=b"")
        self._carry_out(self.lookup.offered(offer, finder))

    def joined(self) -> None:
        """Note that a peer joined; ends the search (late offers still count for a while)."""
        self.lookup.joined()
        self.poke()

    def forgotten(self) -> None:
        """Note that no offer counts any more: time to judge who took walks."""
        now = self.network.clock.seconds()
        self.network.doubts.judge(self.lookup.verdict(now), now)

    def stop(self) -> None:
        """End without telling."""
        self._close()

    def _end(self) -> None:
        self._close()
        self.ended(self)

    def _close(self) -> None:
        self._over = True
        self._quiet()
        if self._crawl is not None:
            self._crawl.stop()

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Walk):
                self._walk(action)
            elif isinstance(action, Pull):
                self._pull(action)
            elif isinstance(action, TryPeer):
                self.candidate(action.address)
            elif isinstance(action, Iterate):
                self._iterate()
            elif isinstance(action, AskEntries):
                self._ask_entries()

    def _walk(self, walk: Walk) -> None:
        def late(reply: Reply) -> None:
            assert isinstance(reply, Forwarded)
            if reply.verdict is not Verdict.TAKEN:
                self._refused(walk.address, reply.verdict)

        flags = Flag.LAST if walk.last_hop else Flag(0)
        if walk.pair:
            flags |= Flag.PAIR
        if self.network.reach.masked(walk.address):
            flags |= Flag.NAT

        def build(rid: bytes, token: bytes) -> GetPeers:
            return GetPeers(
                node_id=self.network.node_id,
                rid=rid,
                token=token,
                qid=walk.qid,
                topic=self.topic,
                units=limits.GET_PEERS_WIDE_UNITS if walk.wide else limits.GET_PEERS_UNITS,
                flags=flags,
                wide=walk.wide,
            )

        called = self.network.rpc.call_built(
            walk.address,
            build,
            Forwarded,
            tries=1 if self.network.table_size() > limits.SMALL_TABLE else limits.TRIES,
            late=late,
            linger_s=limits.LOOKUP_S,
        )
        called.addCallbacks(late, lambda failure: self._eb_walk(failure, walk.address))

    def _eb_walk(self, failure: Failure, address: Address) -> None:
        failure.trap(RPCError, NodeStopped)
        self._refused(address, None)

    def _refused(self, address: Address, verdict: Verdict | None) -> None:
        if verdict is Verdict.NO_ROUTE:
            self.network.no_route(address)
        if not self._over:
            self.lookup.refused(address)
            self.poke()

    def _pull(self, pull: Pull) -> None:
        status, sequence = self.me()
        called = self.network.rpc.call(
            pull.finder,
            Accept(
                node_id=self.network.node_id,
                qid=pull.qid,
                cookie=pull.cookie,
                topic=self.topic,
                status=status,
                sequence=sequence,
            ),
        )
        called.addCallbacks(
            lambda reply: self._cb_pulled(reply, pull.finder),
            lambda failure: failure.trap(RPCError, NodeStopped) and None,
        )

    def _cb_pulled(self, reply: Reply, finder: Address) -> None:
        assert isinstance(reply, Accepted)
        near = scope(finder)
        self._carry_out(self.lookup.learned([*reply.peers4, *reply.peers6], near))
        nodes = (*reply.nodes4, *reply.nodes6)
        self.network.nodes_told(tuple(n for n in nodes if scope(n.address) >= near))

    def _iterate(self) -> None:
        """Crawl towards the topic and ask every node on the way for its own table."""

        def visit(entry: NodeEntry) -> None:
            qid = self.lookup.query + b"\xff"
            self.lookup.visited(entry.address)
            self._walk(Walk(entry.address, qid, wide=True, last_hop=True))

        self._crawl = Convergence(self.network, self.topic, limits.STORERS, visit)
        self._crawl.start().addCallbacks(self._cb_iterated, self._eb_iterated)

    def _ask_entries(self) -> None:
        for address in self.entries()[: limits.ENTRY_NODES]:
            if self.lookup.entry(address):
                qid = self.lookup.query + b"\xff"
                self._walk(Walk(address, qid, wide=True, last_hop=True))

    def _cb_iterated(self, _nearest: list[NodeEntry]) -> None:
        self.lookup.iterated()
        self.poke()

    @staticmethod
    def _eb_iterated(failure: Failure) -> None:
        failure.trap(NodeStopped)
