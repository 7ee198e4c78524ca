"""Thousands of production overlay nodes on one timeline: they are made when first spoken to.

Job: carry datagrams between ``Network`` objects over a terrain, make a node with its converged
table when its first datagram arrives, and charge every datagram to the work that caused it. Does
NOT decide what the nodes do, and has no sockets: for those, and for files, there is the test
suite's simulated network.

Who causes what: while a piece of work runs, its :class:`Tally` is the account; a timer set or a
datagram sent then runs later under the same account. So a lookup pays for its retransmissions and
for what others sent on its behalf, however many lookups run at once.

Behind NATs: such a node is as if it had been there for long. It knows that it is, its neighbours
heard so, and its bindings towards those it pinned never close, for nodes would ping them whether
made here or not. Nobody else reaches it but in answer.

Tests: ``test_simulation``.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID
from p2pdist.keys import PUBLIC_NETWORK
from p2pdist.overlay.envelope import read_header
from p2pdist.overlay.guard import TokenMint
from p2pdist.overlay.network import Network
from p2pdist.overlay.routing import Neighbour
from p2pdist.simulation.population import Population, Role, address_of
from p2pdist.simulation.roles import play
from p2pdist.simulation.terrain import JITTER_S, Terrain
from p2pdist.simulation.timeline import KERNEL, DelayedCall, Timeline

HEADERS_BYTES: Final = 28
"""IPv4 and UDP headers, counted with every datagram."""
NAT_BINDING_S: Final = 60.0
"""How long a simulated NAT lets answers in after the last datagram out (RFC 4787 asks for 120)."""
KEEPALIVE_S: Final = 20.0
"""What a node knows of those that pinned it is renewed so often, as their pings would."""
PRIVATE_HOST: Final = "192.168.0.2"
"""Every node's own address behind its NAT."""
HEAL_S: Final = 5.0
"""A converged world stays as it is: what a node learned of a dead entry it forgets so much later,
which is when the upkeep of real nodes looks again (and, unlike here, would drop the dead)."""


@define(eq=False)
class Tally:
    """What one piece of work cost.

    Attributes:
        packets: datagrams sent by anybody for it.
        size: their bytes, headers included.
        at: datagrams sent and received by each node.
    """

    packets: int = 0
    size: int = 0
    at: Counter[int] = field(factory=Counter)

    @property
    def hottest(self) -> int:
        """Datagrams at the busiest node."""
        return max(self.at.values(), default=0)


class Watcher(Protocol):
    """Is shown every datagram."""

    def sent(
        self, now: float, source: int, target: int | None, datagram: bytes, fate: str, tally: Tally
    ) -> None:
        """Take note: ``fate`` is "" or why the datagram never arrives."""


@implementer(IReactorTime)
@define(eq=False)
class CrowdClock:
    """The clock of all nodes; its delayed calls run on the account under which they were set."""

    crowd: Crowd
    _pending: dict[DelayedCall, None] = field(init=False, factory=dict)

    def seconds(self) -> float:
        """See :class:`IReactorTime`."""
        return self.crowd.timeline.now

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 -- the name in IReactorTime
        *args: Any,
        **kw: Any,
    ) -> IDelayedCall:
        """See :class:`IReactorTime`."""
        crowd = self.crowd
        when = crowd.timeline.now + delay
        work = (crowd.run_for, (crowd.tally, callable, *args), kw)
        return DelayedCall(crowd.timeline, KERNEL, self._pending, when, work)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """See :class:`IReactorTime`."""
        return list(self._pending)


@define(eq=False)
class Crowd:
    """All nodes and what is between them.

    Args:
        population: who they are.
        terrain: how far apart.
        seed: of everything that happens.
        converged: nodes begin with full tables; else with empty ones.

    Attributes:
        timeline: what happens when.
        clock: for the nodes.
        tally: the account of the work that runs now.
        watcher: is shown every datagram, if there is one.
        made: nodes made so far, by number.
    """

    population: Population
    terrain: Terrain
    seed: int
    converged: bool = True
    timeline: Timeline = field(init=False)
    clock: CrowdClock = field(init=False)
    tally: Tally = field(init=False, factory=Tally)
    watcher: Watcher | None = field(init=False, default=None)
    made: dict[int, Network] = field(init=False, factory=dict)
    _rng: random.Random = field(init=False)
    _numbers: dict[str, int] = field(init=False)
    _places: dict[int, tuple[NodeID, Address]] = field(init=False, factory=dict)
    _mints: dict[int, TokenMint] = field(init=False, factory=dict)
    _bindings: dict[tuple[int, int], float] = field(init=False, factory=dict)
    """Until when a node behind a NAT lets another's datagrams in, pins apart."""
    _pins: dict[int, list[int]] = field(init=False, factory=dict)
    """Towards whom each node behind a NAT keeps bindings open, and ..."""
    _pinned_by: dict[int, list[int]] = field(init=False, factory=dict)
    """... the same the other way round."""
    _held: list[Neighbour] = field(init=False, factory=list)
    """Entries of those in the tables of whom they pinned."""

    def __attrs_post_init__(self) -> None:
        self.timeline = Timeline(self.seed)
        self.timeline.events_max = 2**62
        self.clock = CrowdClock(self)
        self._rng = random.Random(f"{self.seed}/crowd")  # noqa: S311 -- a simulation
        self._numbers = {address_of(node).host: node for node in range(len(self.population))}
        if self.converged:
            self._pin()

    @property
    def rng(self) -> random.Random:
        """Chance for everything that happens."""
        return self._rng

    # --- accounts ---

    def run_for(self, tally: Tally, work: Callable[..., object], *args: Any, **kw: Any) -> None:
        """Do a piece of work on the account ``tally``."""
        before, self.tally = self.tally, tally
        try:
            work(*args, **kw)
        finally:
            self.tally = before

    @contextmanager
    def on_account(self, tally: Tally) -> Iterator[None]:
        """The block's datagrams and timers go on the account ``tally``."""
        before, self.tally = self.tally, tally
        try:
            yield
        finally:
            self.tally = before

    # --- nodes ---

    def node(self, number: int) -> Network:
        """Return a node, made now if nobody spoke to it before."""
        network = self.made.get(number)
        if network is None:
            network = self.made[number] = self._make(number)
        return network

    def number(self, address: Address) -> int | None:
        """Return the node at ``address``."""
        return self._numbers.get(address.host)

    def _place(self, number: int) -> tuple[NodeID, Address]:
        """Return id and address of a node: one object each in all tables."""
        place = self._places.get(number)
        if place is None:
            place = self._places[number] = self.population.node_id(number), address_of(number)
        return place

    def _make(self, number: int) -> Network:
        node_id, address = self._place(number)
        hidden = self.population.roles[number] is Role.NATED
        host = PRIVATE_HOST if hidden else address.host
        network = Network(
            keys=PUBLIC_NETWORK,
            node_id=node_id,
            clock=self.clock,
            rng=self._rng,
            entropy=self._rng.randbytes,
            transmit=functools.partial(self._transmit, number),
            local_address=lambda _towards: host,
        )
        network.guard.mint = self._mint(number)
        if self.converged:
            self._converge(number, network)
            network.rpc.missed = functools.partial(self._missed, network)
        play(self.population.roles[number], network, self._rng)
        return network

    def _mint(self, number: int) -> TokenMint:
        """Return what makes a node's tokens: others hold some before the node is made."""
        mint = self._mints.get(number)
        if mint is None:
            mint = self._mints[number] = TokenMint(self._rng.randbytes)
        return mint

    def _converge(self, number: int, network: Network) -> None:
        """Give a node the neighbours it would have, and what it would know of the way to each."""
        now = self.timeline.now
        _, own = self._place(number)
        table = self.population.aware_table(number)
        self._observe(number, network, table)
        says = network.bindings.says(own)
        for neighbour in table:
            node_id, address = self._place(neighbour)
            if network.neighbours.verified(node_id, address, now):
                self._acquaint(number, network, neighbour)
                network.rpc.paths[address].told = says
        for neighbour in self._pinned_by.get(number, ()):
            node_id, address = self._place(neighbour)
            if network.neighbours.verified(node_id, address, now, nat=True):
                self._acquaint(number, network, neighbour)
                entry = network.neighbours.get(address)
                assert entry is not None
                self._held.append(entry)

    def _acquaint(self, number: int, network: Network, neighbour: int) -> None:
        """Tell a node how far a neighbour is, and that one's token."""
        now = self.timeline.now
        _, own = self._place(number)
        path = network.rpc.paths[self._place(neighbour)[1]]
        path.sample(self.terrain.rtt_s(number, neighbour) + 2 * JITTER_S, now)
        path.rttvar_s = JITTER_S
        path.grant(self._mint(neighbour).token(own, now), now)

    def _observe(self, number: int, network: Network, table: Sequence[int]) -> None:
        """Let neighbours have seen a node: it knows whether it is behind a NAT."""
        _, own = self._place(number)
        for observer in self._pins.get(number) or table[: limits.OBSERVERS_AGREEING]:
            _, address = self._place(observer)
            network.reach.sent(address)
            network.reach.observed(address, own, self.timeline.now)

    def _pin(self) -> None:
        """Let every node behind a NAT choose its pins."""
        hidden = self.population.living(Role.NATED)
        for number in hidden:
            self._pins[number] = self.population.pins(number, self.terrain.rtt_s)
            for pinned in self._pins[number]:
                self._pinned_by.setdefault(pinned, []).append(number)
        if hidden:
            self._keep_alive()

    def _keep_alive(self) -> None:
        """Do what the pings of nodes behind NATs to their pins would."""
        now = self.timeline.now
        for entry in self._held:
            entry.seen_at, entry.misses = now, 0
        self.timeline.at(now + KEEPALIVE_S, KERNEL, self._keep_alive)

    def renew_tokens(self) -> None:
        """Let every node have pinged its neighbours: it has their tokens, and was seen by them."""
        now = self.timeline.now
        for number, network in self.made.items():
            _, own = self._place(number)
            known = []
            for entry in network.neighbours:
                neighbour = self.number(entry.address)
                assert neighbour is not None
                known.append(neighbour)
                network.rpc.paths[entry.address].grant(self._mint(neighbour).token(own, now), now)
            self._observe(number, network, known)

    def _missed(self, network: Network, address: Address) -> None:
        entry = network.neighbours.get(address)
        if entry is not None and not entry.suspect:
            entry.misses = 1
            self.timeline.at(self.timeline.now + HEAL_S, KERNEL, setattr, entry, "misses", 0)

    # --- datagrams ---

    def _transmit(self, source: int, datagram: bytes, address: Address) -> None:
        tally = self.tally
        tally.packets += 1
        tally.size += len(datagram) + HEADERS_BYTES
        tally.at[source] += 1
        target = self._numbers.get(address.host)
        now = self.timeline.now
        fate = self._fate(source, target, now)
        if self.watcher is not None:
            self.watcher.sent(now, source, target, datagram, fate, tally)
        if not fate:
            assert target is not None
            arrival = now + self.terrain.one_way_s(source, target, self._rng)
            self.timeline.at(arrival, KERNEL, self._deliver, source, target, datagram, tally)

    def _fate(self, source: int, target: int | None, now: float) -> str:
        roles = self.population.roles
        if roles[source] is Role.NATED and target is not None:
            self._bindings[source, target] = now + NAT_BINDING_S
        if target is None or roles[target] is Role.DEAD:
            return "nobody there"
        if roles[target] is Role.NATED and not self._let_in(target, source, now):
            return "stopped by a NAT"
        return "lost" if self.terrain.lost(self._rng) else ""

    def _let_in(self, target: int, source: int, now: float) -> bool:
        """Tell whether the NAT before ``target`` passes on what ``source`` sends."""
        if self._bindings.get((target, source), -1.0) >= now:
            return True
        return source in self._pins.get(target, ())

    def _deliver(self, source: int, target: int, datagram: bytes, tally: Tally) -> None:
        tally.at[target] += 1
        network = self.node(target)
        before, self.tally = self.tally, tally
        try:
            network.datagram_received(datagram, read_header(datagram), self._place(source)[1])
        finally:
            self.tally = before
