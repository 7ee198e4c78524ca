"""The initiator's side of a lookup: walks, hedges, broadcast, iterative last resort. Pure.

Job: decide, from the clock and from what came back, whom to send ``get_peers``, which offered
addresses to try and from which finders to pull the longer list. Does NOT send: every method
returns the actions to carry out, and ``next_timer`` says when to call ``advance`` again.

States::

    WALKING -(a peer joined)-> FOUND
       `----(everybody asked said no, or limits.LOOKUP_S passed)-> FAILED

Timeline of one lookup: two walks at once; hedges after about two and four round trips; at 0.25 s a
question to everybody if the table is small; at 0.5 s the iterative lookup and two more walks; two
more at 1.5 s. Why so: two walks buy the median, timers per neighbour and hedges the tail, and the
iteration cures nodes that take queries and drop them (``docs/protocol.md``).

Threat: false offers. Only offers for an unguessable open qid count, once per finder; at most
``limits.LOOKUP_CANDIDATES`` addresses are tried, one per global host and two per subnet and offer.
Tests: ``test_lookup``.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Sequence

from attrs import define, field, frozen

from p2pdist import limits
from p2pdist.addresses import Address, Scope, limit_key, scope, subnet_key
from p2pdist.ids import NodeID, Topic, distance
from p2pdist.overlay.messages import (
    Flag,
    Offer,
)

QUERY_BYTES = 11
"""Of a qid; the twelfth byte numbers the walk."""


class State(enum.Enum):
    """Where a lookup stands."""

    WALKING = 0
    FOUND = 1
    FAILED = 2


@frozen
class Candidate:
    """A neighbour that could carry a walk.

    Attributes:
        node_id: its id.
        address: where it is.
        srtt_s: its round-trip time, or ``None`` if never measured.
    """

    node_id: NodeID
    address: Address
    srtt_s: float | None


@frozen
class Walk:
    """Send a get_peers to ``address``; ``last_hop`` asks for its own table only."""

    address: Address
    qid: bytes
    wide: bool
    last_hop: bool


@frozen
class Pull:
    """Accept the offer: ask the finder for its longer list."""

    finder: Address
    qid: bytes
    cookie: bytes


@frozen
class TryPeer:
    """Ping this offered address, and join it if it answers."""

    address: Address


@frozen
class Iterate:
    """Start the iterative lookup beside the walks."""


Action = Walk | Pull | TryPeer | Iterate


def walk_order(candidates: Sequence[Candidate], topic: Topic, log2_reach: float) -> list[Candidate]:
    """Return candidates by what a walk through them is expected to cost, cheapest first.

    Cost in seconds: half the round trip there, plus a quarter of the median one-way time for every
    bit of distance still to go to the nodes that store the topic. Source: the simulation behind
    ``docs/protocol.md`` (latency-aware next hops: p50 104 against 132 ms).

    Args:
        candidates: neighbours.
        topic: looked for.
        log2_reach: log2 of the distance within which storers live.
    """
    known = [c.srtt_s for c in candidates if c.srtt_s is not None]
    typical = statistics.median(known) if known else limits.RTO_STRANGER_S / 4

    def cost(candidate: Candidate) -> float:
        rtt = typical if candidate.srtt_s is None else candidate.srtt_s
        away = math.log2(max(distance(candidate.node_id, topic), 1))
        return rtt / 2 + max(0.0, away - log2_reach) / 4 * typical / 2

    return sorted(candidates, key=lambda c: (cost(c), distance(c.node_id, topic)))


@define
class Lookup:
    """One lookup of the peers of one topic.

    Args:
        topic: looked for.
        query: 11 unpredictable bytes, the first of every walk's qid.
        started: now.
    """

    topic: Topic
    query: bytes
    started: float
    state: State = State.WALKING
    offers: int = 0
    _walks: int = 0
    _pending: dict[Address, bytes] = field(init=False, factory=dict)
    _refused: dict[Address, None] = field(init=False, factory=dict)
    _finders: dict[Address, None] = field(init=False, factory=dict)
    _tried: dict[Address, None] = field(init=False, factory=dict)
    _tried_hosts: dict[bytes, None] = field(init=False, factory=dict)
    _pulled: int = 0
    _steps: list[tuple[float, str]] = field(init=False, factory=list)
    _iterating: bool = False
    _iterated: bool = False

    # --- what drives it ---

    def advance(
        self, now: float, candidates: Sequence[Candidate], log2_reach: float, table: int
    ) -> list[Action]:
        """Do what is due.

        Args:
            now: seconds.
            candidates: neighbours that may carry a walk.
            log2_reach: see :func:`walk_order`.
            table: entries in the routing tables.
        """
        if self.state is not State.WALKING:
            return []
        if now - self.started >= limits.LOOKUP_S:
            self.state = State.FAILED
            return []
        if len(self._tried) >= limits.LOOKUP_CANDIDATES:
            self._steps.clear()  # walks stop: nobody else they find would be tried
            return []
        order = [
            c for c in walk_order(candidates, self.topic, log2_reach) if self._unused(c.address)
        ]
        if not self._walks:
            if not order:
                return []  # the bootstrap is at work: the first neighbour sets us going
            self._plan(now, candidates)
            return self._walk(order, limits.WALKS, wide=False)
        actions: list[Action] = []
        while self._steps and self._steps[0][0] <= now:
            _, step = self._steps.pop(0)
            actions += self._step(step, order, table)
            order = [c for c in order if self._unused(c.address)]
        if not self._pending and order:
            actions += self._walk(order, 1, wide=True)  # everybody so far said no: go on at once
        self._give_up_early(order)
        return actions

    def next_timer(self) -> float | None:
        """Return when :meth:`advance` has something to do by the clock, or ``None`` when over."""
        if self.state is not State.WALKING:
            return None
        return self._steps[0][0] if self._steps else self.started + limits.LOOKUP_S

    def _plan(self, now: float, candidates: Sequence[Candidate]) -> None:
        known = [c.srtt_s for c in candidates if c.srtt_s is not None]
        rtt = statistics.median(known) if known else limits.RTO_STRANGER_S
        low, high = limits.HEDGE_1_S
        low2, high2 = limits.HEDGE_2_S
        self._steps = sorted(
            [
                (now + min(max(2 * rtt, low), high), "hedge"),
                (now + min(max(4 * rtt, low2), high2), "hedge"),
                (now + limits.BROADCAST_AFTER_S, "broadcast"),
                (now + limits.ITERATE_AFTER_S, "iterate"),
                (now + limits.ITERATE_AFTER_S, "attempt"),
                (now + limits.ATTEMPT_3_S, "attempt"),
            ],
            key=lambda step: step[0],
        )

    def _step(self, step: str, order: list[Candidate], table: int) -> list[Action]:
        if step == "hedge":
            return self._walk(order, 1, wide=True)
        if step == "attempt":
            return self._walk(order, limits.WALKS, wide=True)
        if step == "iterate":
            self._iterating = True
            return [Iterate()]
        if table > limits.SMALL_TABLE or self.offers:
            return []
        return self._walk(order, limits.SMALL_TABLE, wide=True, last_hop=True)

    def _walk(
        self, order: list[Candidate], count: int, *, wide: bool, last_hop: bool = False
    ) -> list[Action]:
        """Start walks through the cheapest candidates, through different subnets where possible."""
        actions: list[Action] = []
        subnets: dict[bytes, None] = {}
        spread = sorted(order, key=lambda c: _seen_subnet(subnets, c.address))
        for candidate in spread[:count]:
            qid = self.query + bytes([min(self._walks, 255)])
            self._walks += 1
            self._pending[candidate.address] = qid
            actions.append(Walk(candidate.address, qid, wide, last_hop))
        return actions

    def _unused(self, address: Address) -> bool:
        return address not in self._pending and address not in self._refused

    def _give_up_early(self, order: list[Candidate]) -> None:
        """Fail as soon as nothing is left that could bring an answer."""
        if order or self._pending or self.offers:
            return
        if self._iterated or not self._iterating:
            self._steps = [step for step in self._steps if step[1] == "iterate"]
            if not self._steps:
                self.state = State.FAILED

    # --- what came back ---

    def refused(self, address: Address) -> None:
        """Note that a first hop said no route or busy, or did not answer."""
        self._pending.pop(address, None)
        self._refused[address] = None

    def visited(self, address: Address) -> None:
        """Note that the iterative lookup asks the node at ``address`` for its own table."""
        self._pending[address] = self.query

    def iterated(self) -> None:
        """Note that the iterative lookup came to its end."""
        self._iterated = True

    def offered(self, offer: Offer, finder: Address) -> list[Action]:
        """Take an offer for one of this lookup's walks.

        Args:
            offer: decoded; its qid is one of ours.
            finder: who made it, by the UDP header (or as a relay saw it).
        """
        if self.state is State.FAILED or finder in self._finders:
            return []
        if len(self._finders) >= limits.LOOKUP_CANDIDATES:
            return []
        self._finders[finder] = None
        self.offers += 1
        peers = [*offer.peers4, *offer.peers6]
        if offer.flags & Flag.MEMBER:
            peers.insert(0, finder)
        actions = self.learned(peers, at_least=scope(finder))
        if self._pulled < limits.LOOKUP_FINDERS:
            self._pulled += 1
            actions.append(Pull(finder, offer.qid, offer.cookie))
        return actions

    def learned(self, peers: Sequence[Address], at_least: Scope) -> list[Action]:
        """Choose which of the offered or pulled addresses to try.

        Args:
            peers: as told.
            at_least: who told us; a stranger on the Internet names nobody on our LAN.
        """
        actions: list[Action] = []
        subnets: dict[bytes, int] = {}
        for peer in peers:
            if len(self._tried) >= limits.LOOKUP_CANDIDATES:
                break
            host, subnet = limit_key(peer), subnet_key(peer)
            if peer in self._tried or host in self._tried_hosts or scope(peer) < at_least:
                continue
            if subnet is not None:
                subnets[subnet] = subnets.get(subnet, 0) + 1
                if subnets[subnet] > limits.SUBNET_PER_BUCKET:
                    continue
            self._tried[peer] = None
            self._tried_hosts[host] = None
            actions.append(TryPeer(peer))
        return actions

    def joined(self) -> None:
        """Note that a peer joined: the lookup has done its work."""
        if self.state is State.WALKING:
            self.state = State.FOUND

    def walked(self, address: Address) -> bool:
        """Tell whether ``address`` is a first hop of this lookup."""
        return address in self._pending or address in self._refused

    @property
    def asked(self) -> int:
        """First hops asked."""
        return len(self._pending) + len(self._refused)


def _seen_subnet(subnets: dict[bytes, None], address: Address) -> bool:
    """Tell whether the subnet of ``address`` came before, and remember it."""
    key = subnet_key(address)
    if key is None:
        return False
    seen = key in subnets
    subnets[key] = None
    return seen
