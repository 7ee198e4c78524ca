"""Thousands of production overlay nodes on one timeline: they are made when first spoken to.

Job: carry datagrams between ``Network`` objects over a terrain, make a node with its converged
table when its first datagram arrives, and charge every datagram to the work that caused it. Does
NOT decide what the nodes do, and has no sockets: for those, and for files, there is the test
suite's simulated network.

Who causes what: while a piece of work runs, its :class:`Tally` is the account; a timer set or a
datagram sent then runs later under the same account. So a lookup pays for its retransmissions and
for what others sent on its behalf, however many lookups run at once.

Tests: ``test_simulation``.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from p2pdist.addresses import Address
from p2pdist.keys import PUBLIC_NETWORK
from p2pdist.overlay.envelope import read_header
from p2pdist.overlay.guard import TokenMint
from p2pdist.overlay.network import Network
from p2pdist.simulation.population import Population, Role, address_of
from p2pdist.simulation.roles import play
from p2pdist.simulation.terrain import JITTER_S, Terrain
from p2pdist.simulation.timeline import KERNEL, DelayedCall, Timeline

HEADERS_BYTES: Final = 28
"""IPv4 and UDP headers, counted with every datagram."""
NAT_BINDING_S: Final = 60.0
"""How long a simulated NAT lets answers in after the last datagram out (RFC 4787 asks for 120)."""
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
        self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any
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
    _mints: dict[int, TokenMint] = field(init=False, factory=dict)
    _bindings: dict[tuple[int, int], float] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.timeline = Timeline(self.seed)
        self.timeline.events_max = 2**62
        self.clock = CrowdClock(self)
        self._rng = random.Random(f"{self.seed}/crowd")  # noqa: S311 -- a simulation
        self._numbers = {address_of(node).host: node for node in range(len(self.population))}

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

    def _make(self, number: int) -> Network:
        network = Network(
            keys=PUBLIC_NETWORK,
            node_id=self.population.node_id(number),
            clock=self.clock,
            rng=self._rng,
            entropy=self._rng.randbytes,
            transmit=functools.partial(self._transmit, number),
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
        own = address_of(number)
        for neighbour in self.population.table(number):
            address = address_of(neighbour)
            node_id = self.population.node_id(neighbour)
            if not network.neighbours.verified(node_id, address, now):
                continue
            path = network.rpc.paths[address]
            path.sample(self.terrain.rtt_s(number, neighbour) + 2 * JITTER_S, now)
            path.rttvar_s = JITTER_S
            path.grant(self._mint(neighbour).token(own, now), now)

    def renew_tokens(self) -> None:
        """Give every node its neighbours' present tokens, as their pings would."""
        now = self.timeline.now
        for number, network in self.made.items():
            for entry in network.neighbours:
                neighbour = self.number(entry.address)
                assert neighbour is not None
                token = self._mint(neighbour).token(address_of(number), now)
                network.rpc.paths[entry.address].grant(token, now)

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
        if roles[target] is Role.NATED and self._bindings.get((target, source), -1.0) < now:
            return "stopped by a NAT"
        return "lost" if self.terrain.lost(self._rng) else ""

    def _deliver(self, source: int, target: int, datagram: bytes, tally: Tally) -> None:
        tally.at[target] += 1
        network = self.node(target)
        before, self.tally = self.tally, tally
        try:
            network.datagram_received(datagram, read_header(datagram), address_of(source))
        finally:
            self.tally = before
