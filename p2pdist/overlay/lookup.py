"""The initiator's side of a lookup: walks, hedges, broadcast, iterative last resort. Pure.

Job: decide, from the clock and from what came back, whom to send ``get_peers``, which offered
addresses to try and from which finders to pull the longer list. Does NOT send: every method
returns the actions to carry out, and ``next_timer`` says when to call ``advance`` again.

States::

    WALKING -(a peer joined)-> FOUND
       `----(everybody asked said no, or limits.LOOKUP_S passed)-> FAILED

Timeline of one lookup: two walks at once; hedges after 1.3 and 2.6 round trips; at 0.25 s a
question to everybody if the table is small; at 0.5 s the iterative lookup, two more walks and a
question to the descriptor's own nodes; two more at 1.5 s, and questions to neighbours far from the
topic, who are nobody's choice. A first hop that is lost is replaced at once. Why so: two walks buy
the median, timers per neighbour and hedges the tail, and the iteration cures nodes that take
queries and drop them (``docs/overlay.md``); the rest is for topics with nothing but an attacker's
nodes near them.

Threat: false offers. Only offers for an unguessable open qid count, once per finder; at most
``limits.LOOKUP_CANDIDATES`` addresses are tried, one per global host and two per subnet and offer.
The descriptor's nodes and neighbours far from the topic, whom only we chose, are heard beyond that.
Tests: ``test_lookup``, ``test_eclipse``.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from attrs import define, field, frozen

from p2pdist import limits
from p2pdist.addresses import Address, Scope, limit_key, scope, subnet_key
from p2pdist.ids import NodeID, Topic
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


class Candidate(NamedTuple):
    """A neighbour that could carry a walk; a tuple, for hundreds are made for every choice.

    Attributes:
        node_id: its id.
        address: where it is.
        srtt_s: its round-trip time, or ``None`` if never measured.
        number: its id as an integer.
    """

    node_id: NodeID
    address: Address
    srtt_s: float | None
    number: int


@frozen
class Walk:
    """Send a get_peers to ``address``.

    ``last_hop`` asks for its own table only, ``pair`` for two storers at the end of the walk.
    """

    address: Address
    qid: bytes
    wide: bool
    last_hop: bool
    pair: bool = False


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


@frozen
class AskEntries:
    """Ask the descriptor's own nodes for their tables."""


Action = Walk | Pull | TryPeer | Iterate | AskEntries
_LAST_RESORTS = frozenset({"iterate", "around"})

Cost = Callable[[Candidate], tuple[float, int]]


def walk_cost(candidates: Sequence[Candidate], topic: Topic, log2_reach: float) -> Cost:
    """Return what tells how much a walk through one of the candidates is expected to cost.

    Cost in seconds: half the round trip there, one more hop unless the candidate is likely to store
    the topic itself, and something for every bit of distance still to go to those that do.
    Source: ``benchmarks/overlay.py``, whose median and packets the shares of the typical round trip
    in ``limits`` were chosen by (``docs/overlay.md``).

    Args:
        candidates: neighbours.
        topic: looked for.
        log2_reach: log2 of the distance within which storers live.
    """
    known = sorted([c.srtt_s for c in candidates if c.srtt_s is not None])
    typical = known[len(known) // 2] if known else limits.RTO_STRANGER_S / 4
    target = int.from_bytes(topic, "big")
    sure, out = limits.WALK_STORER_BITS
    per_bit = typical * limits.WALK_BIT_COST
    hop = typical * limits.WALK_HOP_COST
    per_unsure_bit = hop / (out - sure)
    log2 = math.log2

    def cost(candidate: Candidate) -> tuple[float, int]:
        srtt_s, number = candidate[2:]
        away = number ^ target
        there_s = (typical if srtt_s is None else srtt_s) / 2
        further = log2(away) - log2_reach if away else sure
        if further <= sure:
            return there_s, away
        onward_s = hop if further >= out else (further - sure) * per_unsure_bit
        return there_s + onward_s + (further * per_bit if further > 0 else 0.0), away

    return cost


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
    _lost: int = 0
    _losses: int = 0
    _shares: dict[Address, int] = field(init=False, factory=dict)
    _first_hops: dict[bytes, Address] = field(init=False, factory=dict)
    _fruitful: dict[Address, None] = field(init=False, factory=dict)
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
            log2_reach: see :func:`walk_cost`.
            table: entries in the routing tables.
        """
        if self.state is not State.WALKING:
            return []
        if now - self.started >= limits.LOOKUP_S:
            self.state = State.FAILED
            return []
        if len(self._tried) >= limits.LOOKUP_CANDIDATES:
            # walks stop: nobody else they find would be tried
            self._steps = [step for step in self._steps if step[1] in _LAST_RESORTS]
        order = sorted(
            [c for c in candidates if self._unused(c.address)],
            key=walk_cost(candidates, self.topic, log2_reach),
        )
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
        if not self.offers and order:  # what came to nothing is begun anew elsewhere, at once
            rough = self._losses >= limits.LOSSES_ROUGH
            actions += self._walk(order, self._lost * (2 if rough else 1), wide=False)
            self._lost = 0
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
                (now + min(max(limits.HEDGE_RTTS[0] * rtt, low), high), "hedge"),
                (now + min(max(limits.HEDGE_RTTS[1] * rtt, low2), high2), "hedge"),
                (now + limits.BROADCAST_AFTER_S, "broadcast"),
                (now + limits.ITERATE_AFTER_S, "iterate"),
                (now + limits.ITERATE_AFTER_S, "attempt"),
                (now + limits.ATTEMPT_3_S, "attempt"),
                *[(now + after, "around") for after in limits.AROUND_S],
            ],
            key=lambda step: step[0],
        )

    def _step(self, step: str, order: list[Candidate], table: int) -> list[Action]:
        if step == "hedge":  # whoever was offered may still answer: more walks bring no more
            return [] if self.offers else self._walk(order, 1, wide=False)
        if step == "attempt":
            return self._walk(order, limits.WALKS, wide=True)
        if step == "iterate":
            self._iterating = True
            full = len(self._tried) >= limits.LOOKUP_CANDIDATES
            return [AskEntries()] if full else [Iterate(), AskEntries()]
        if step == "around":
            asked = order[: -limits.AROUND - 1 : -1]
            self._shares.update((c.address, limits.AROUND_PEERS) for c in asked)
            return self._walk(asked, limits.AROUND, wide=True, last_hop=True)
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
            pair = self._walks < limits.PAIR_WALKS and not last_hop
            self._walks += 1
            self._pending[candidate.address] = qid
            if not last_hop:
                self._first_hops[qid] = candidate.address
            actions.append(Walk(candidate.address, qid, wide, last_hop, pair))
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
        if self._pending.pop(address, None) is not None and address not in self._shares:
            self._lost += 1
            self._losses += 1
        self._refused[address] = None

    def visited(self, address: Address) -> None:
        """Note that the iterative lookup asks the node at ``address`` for its own table."""
        self._pending[address] = self.query

    def entry(self, address: Address) -> bool:
        """Note that a node of the descriptor is to be asked; False if it has said no already."""
        if address in self._refused:
            return False
        self._pending[address] = self.query
        self._shares[address] = limits.ENTRY_PEERS
        return True

    def iterated(self) -> None:
        """Note that the iterative lookup came to its end."""
        self._iterated = True

    def offered(self, offer: Offer, finder: Address) -> list[Action]:
        """Take an offer for one of this lookup's walks.

        Args:
            offer: decoded; its qid is one of ours.
            finder: who made it, by the UDP header (or as a relay saw it).
        """
        through = self._first_hops.get(offer.qid)
        if through is not None:
            self._fruitful[through] = None
        if self.state is State.FAILED or finder in self._finders:
            return []
        share = self._shares.get(finder, 0)
        if len(self._finders) >= limits.LOOKUP_CANDIDATES and not share:
            return []
        self._finders[finder] = None
        self.offers += 1
        peers = [*offer.peers4, *offer.peers6]
        if offer.flags & Flag.MEMBER:
            peers.insert(0, finder)
        actions = self.learned(peers, scope(finder), share)
        unheard = offer.swarm > len(peers)
        if unheard and self._pulled < limits.LOOKUP_FINDERS:
            self._pulled += 1
            actions.append(Pull(finder, offer.qid, offer.cookie))
        return actions

    def learned(self, peers: Sequence[Address], at_least: Scope, share: int = 0) -> list[Action]:
        """Choose which of the offered or pulled addresses to try.

        Args:
            peers: as told.
            at_least: who told us; a stranger on the Internet names nobody on our LAN.
            share: addresses that are tried even if ``limits.LOOKUP_CANDIDATES`` were.
        """
        most = max(limits.LOOKUP_CANDIDATES, len(self._tried) + share)
        actions: list[Action] = []
        subnets: dict[bytes, int] = {}
        for peer in peers:
            if len(self._tried) >= most:
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

    def verdict(self, now: float) -> dict[Address, bool]:
        """Return whether each walk brought an offer, by the first hop that took it.

        Empty if nobody was found, or if it is too early to say.
        """
        if self.state is not State.FOUND or now - self.started < limits.DOUBT_AFTER_S:
            return {}
        taken = [hop for hop in self._first_hops.values() if hop in self._pending]
        return {hop: hop in self._fruitful for hop in taken}

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
