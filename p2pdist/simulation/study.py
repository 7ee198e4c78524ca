"""Lookups in a simulated network, and what they took.

Job: start lookups of random topics from random nodes, each with its own members and storers, and
note when the initiator had its first peers and what it cost everybody. Does NOT say whether that is
good (``benchmarks/overlay.py`` does).

A lookup here is a production ``Search``: offered addresses are pinged as a membership does, and
the first live member ends it. Its cost is every datagram sent for it by anybody, retransmissions
and late ones included; the pings to offered peers are counted apart (every method pays those).

Tests: ``test_simulation``.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field, frozen
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.errors import NodeStopped, RPCError
from p2pdist.ids import ID_BYTES, Topic
from p2pdist.overlay.messages import Error, ErrorCode, Join, Reply, Status
from p2pdist.overlay.network import Network
from p2pdist.overlay.search import Search
from p2pdist.simulation.crowd import Crowd, Tally
from p2pdist.simulation.population import Mix, Population, Role, address_of
from p2pdist.simulation.terrain import Terrain
from p2pdist.simulation.timeline import KERNEL

LOOKUPS_PER_NODE_S: Final = 0.2
"""Lookups that one node starts per second, far below its neighbours' limits, ..."""
LOOKUPS_S: Final = 50.0
"""... and all nodes together."""
RENEW_S: Final = 200.0
DRAIN_S: Final = 15.0
"""What a lookup sent may cause work for so long after it."""


@frozen(kw_only=True)
class World:
    """What is simulated.

    Attributes:
        mix: nodes, by kind.
        loss: share of datagrams lost.
        rtt: one of ``terrain.MODELS``.
        members: peers of each topic; ``None``: 1, 3 or 10 by the size of the network.
        nated_initiators: lookups start behind NATs.
        initiators: how many nodes start them all; ``None``: any may.
        seed: decides everything.
    """

    mix: Mix
    loss: float = 0.05
    rtt: str = "internet"
    members: int | None = None
    nated_initiators: bool = False
    initiators: int | None = None
    seed: int = 1

    @property
    def member_count(self) -> int:
        """Return how many peers each topic has."""
        if self.members is not None:
            return self.members
        return 1 if self.mix.nodes < 50 else 3 if self.mix.nodes < 500 else 10


@define(eq=False)
class Lookup:
    """One lookup and what came of it.

    Attributes:
        initiator: node.
        topic: looked for.
        members: nodes that have it.
        started: simulated seconds.
        offered_s: until the initiator had the first peers, ``None`` if it never had.
        alive_s: until one of them answered a ping.
        cost: of the lookup.
        contact: of the pings to offered peers.
    """

    initiator: int
    topic: Topic
    members: Sequence[int]
    started: float = 0.0
    offered_s: float | None = None
    alive_s: float | None = None
    cost: Tally = field(factory=Tally)
    contact: Tally = field(factory=Tally)

    @property
    def success(self) -> bool:
        """Whether live peers were found in time."""
        return self.alive_s is not None


@define(eq=False)
class Study:
    """Lookups in one world.

    Args:
        world: what is simulated.
        population: its nodes, made here unless given.
    """

    world: World
    population: Population = field()
    terrain: Terrain = field(init=False)
    crowd: Crowd = field(init=False)
    lookups: list[Lookup] = field(init=False, factory=list)
    _rng: random.Random = field(init=False)
    _initiators: list[int] = field(init=False)
    _open: list[int] = field(init=False)

    @population.default
    def _population(self) -> Population:
        return Population(self.world.mix, self.world.seed)

    def __attrs_post_init__(self) -> None:
        world = self.world
        self.terrain = Terrain(world.seed, world.rtt, world.loss)
        self.crowd = Crowd(self.population, self.terrain, world.seed)
        self._rng = random.Random(f"{world.seed}/study")  # noqa: S311 -- a simulation
        self._open = self.population.living(Role.OPEN)
        nated = self.population.living(Role.NATED)
        self._initiators = nated if world.nated_initiators else self._open
        if world.initiators is not None:
            self._initiators = self._rng.sample(self._initiators, world.initiators)

    # --- running ---

    def run(self, count: int, progress: Callable[[int, int], None] = lambda _d, _t: None) -> None:
        """Run ``count`` lookups; ``progress(done, count)`` is called now and then."""
        timeline = self.crowd.timeline
        pace = min(LOOKUPS_S, LOOKUPS_PER_NODE_S * len(self._initiators))
        begin = timeline.now
        renew = begin + RENEW_S
        for number in range(count):
            when = begin + number / pace
            if when >= renew:
                timeline.run(renew - timeline.now)
                self.crowd.renew_tokens()
                renew += RENEW_S
            timeline.run(when - timeline.now)
            self.start(self.draw())
            if number % 50 == 0:
                progress(number, count)
        timeline.run(limits.LOOKUP_S + DRAIN_S)
        progress(count, count)

    def draw(self) -> Lookup:
        """Choose a topic, its members, and who looks for it; tell the storers."""
        topic = Topic(self._rng.randbytes(ID_BYTES))
        initiator = self._rng.choice(self._initiators)
        members = self._rng.sample(self._open, self.world.member_count + 1)
        members = [member for member in members if member != initiator][: self.world.member_count]
        self._store(topic, members)
        return Lookup(initiator, topic, members)

    def storers(self, topic: bytes) -> list[int]:
        """Return the nodes that were told of a topic's members, those that died since too."""
        near = self.population.closest(int.from_bytes(topic, "big"), 4 * limits.STORERS)
        told = [n for n in near if self.population.roles[n] is not Role.NATED]
        return told[: limits.STORERS]

    def _store(self, topic: Topic, members: Sequence[int]) -> None:
        now = self.crowd.timeline.now
        for storer in self.storers(topic):
            if self.population.roles[storer] is Role.DEAD:
                continue
            table = self.crowd.node(storer).peers
            for member in members:
                node_id, address = self.population.node_id(member), address_of(member)
                if member != storer:
                    table.put(topic, node_id, address, Status.SEED, 1, now)
        for member in members:
            self.crowd.node(member).join_servers[topic] = _refuse

    def start(self, lookup: Lookup) -> None:
        """Start a lookup now; it is noted in :attr:`lookups`."""
        self.lookups.append(lookup)
        lookup.started = self.crowd.timeline.now
        network = self.crowd.node(lookup.initiator)
        with self.crowd.on_account(lookup.cost):
            search = Search(
                network,
                lookup.topic,
                me=lambda: (Status.LEECH, 1),
                candidate=lambda address: self._offered(lookup, network, search, address),
                ended=network.agenda.ended,
            )
            network.agenda.begin(search)
        self.crowd.timeline.at(
            lookup.started + limits.LOOKUP_S + DRAIN_S,
            KERNEL,
            functools.partial(self._forget, lookup, network, search),
        )

    def _offered(self, lookup: Lookup, network: Network, search: Search, address: Address) -> None:
        elapsed = self.crowd.timeline.now - lookup.started
        if lookup.offered_s is None and self.crowd.number(address) in lookup.members:
            lookup.offered_s = elapsed

        def answered(_pong: Reply) -> None:
            if lookup.alive_s is None and self.crowd.number(address) in lookup.members:
                lookup.alive_s = self.crowd.timeline.now - lookup.started
                with self.crowd.on_account(lookup.cost):
                    search.joined()

        def silent(failure: Failure) -> None:
            failure.trap(RPCError, NodeStopped)

        if network.approachable(address):
            with self.crowd.on_account(lookup.contact):
                network.contact(address).addCallbacks(answered, silent)

    def _forget(self, lookup: Lookup, network: Network, search: Search) -> None:
        network.agenda.forget(search)
        for member in lookup.members:
            self.crowd.node(member).join_servers.pop(lookup.topic, None)


def _refuse(source: Address, request: Join) -> Reply:
    """Answer a join nobody sends here: lookups end with a ping."""
    del source
    return Error(rid=request.rid, attempt=request.attempt, error=ErrorCode.NOT_A_PEER)


# --- figures ---


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that ``share`` of them do not exceed; infinity of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.inf


@frozen(kw_only=True)
class Summary:
    """What a number of lookups took; milliseconds, datagrams and bytes per lookup.

    Attributes:
        lookups: how many.
        success: share that found a live peer within ``limits.LOOKUP_S``.
        p50_ms, p90_ms, p99_ms: until the initiator had the first peers; a failed one counts as
            infinite.
        alive_p50_ms, alive_p99_ms: until one of them had answered.
        packets, packets_p99: datagrams.
        size: bytes with headers, mean.
        hottest: datagrams at the busiest node of each lookup, mean.
        contact: datagrams of pings to offered peers, mean.
    """

    lookups: int
    success: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    alive_p50_ms: float
    alive_p99_ms: float
    packets: float
    packets_p99: float
    size: float
    hottest: float
    contact: float


def summarize(lookups: Sequence[Lookup]) -> Summary:
    """Return the figures of some lookups, one or more."""
    count = len(lookups)
    offered = [math.inf if k.offered_s is None else k.offered_s * 1e3 for k in lookups]
    alive = [math.inf if k.alive_s is None else k.alive_s * 1e3 for k in lookups]
    packets = [k.cost.packets for k in lookups]
    return Summary(
        lookups=count,
        success=sum(k.success for k in lookups) / count,
        p50_ms=quantile(offered, 0.5),
        p90_ms=quantile(offered, 0.9),
        p99_ms=quantile(offered, 0.99),
        alive_p50_ms=quantile(alive, 0.5),
        alive_p99_ms=quantile(alive, 0.99),
        packets=sum(packets) / count,
        packets_p99=quantile(packets, 0.99),
        size=sum(k.cost.size for k in lookups) / count,
        hottest=sum(k.cost.hottest for k in lookups) / count,
        contact=sum(k.contact.packets for k in lookups) / count,
    )
