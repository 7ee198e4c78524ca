"""What a node does with somebody else's get_peers: answer, pass on, or hand back. Pure.

Job: choose the next hop, fail over to the next candidate, account for reply units. Does NOT send
and does not look into the PeerTable; ``search`` carries out what it says.

States of a query here::

    taken -> waiting for a next hop -> passed on
                  |  `-> (no reply, or refused) the next candidate, at most limits.WALK_CANDIDATES
                  `-> handed back (nobody is left; unspent units go back)

Units: a query may cause at most ``units`` offers, all hands together. They are split between the
copies a failover makes, never copied, so the honest nodes together send the address in ``src`` at
most as many bytes as whoever started it has spent (``docs/protocol.md``). A repeated query is
suppressed by its qid, which also ends loops.

Threat: forged origins, floods of queries. At most ``limits.QUERY_CACHE`` queries are remembered,
for ``limits.QUERY_CACHE_S``. Tests: ``test_relay``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import attrs
from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, Scope, scope
from p2pdist.ids import NodeID, distance
from p2pdist.overlay.lookup import Candidate, walk_cost
from p2pdist.overlay.messages import (
    Flag,
    GetPeers,
)


@define(eq=False)
class Query:
    """One query passing through this node.

    Attributes:
        message: as it will be passed on but for units: ``src`` and ``via`` stamped, hops counted.
        upstream: who handed it to us.
        rid: correlation id of that request, for a later refusal.
        attempt: its try.
        first_hop: whether we are the initiator's first hop, who relays offers to it.
        units: offers not yet handed on.
        until: when it is forgotten.
        tried: next hops so far.
        lent: units each of them was given and may hand back.
        relayed: offers passed to the initiator so far.
        under_way: next hops that have it, as far as we know.
        pair: whether its first next hop is the first of a pair.
    """

    message: GetPeers
    upstream: Address
    rid: bytes
    attempt: int
    first_hop: bool
    units: int
    until: float
    tried: dict[Address, None] = field(factory=dict)
    lent: dict[Address, int] = field(factory=dict)
    relayed: int = 0
    under_way: int = 0
    pair: bool = False

    @property
    def src(self) -> Address:
        """The initiator, as its first hop saw it."""
        assert self.message.src is not None
        return self.message.src

    @property
    def answer_through(self) -> Address | None:
        """Who relays offers to the initiator, or ``None`` when they go there directly."""
        return self.message.via if self.message.flags & Flag.VIA else None


def stamp(message: GetPeers, source: Address) -> GetPeers:
    """Return ``message`` with the addresses only its receiver can vouch for (decision 14).

    The first hop writes ``src``, the second ``via``, both from the UDP header.
    """
    if message.hops == 0:
        flags = message.flags & (Flag.LAST | Flag.NAT | Flag.PAIR)
        return attrs.evolve(message, src=source, via=None, flags=flags)
    if message.hops == 1:
        return attrs.evolve(message, via=source)
    return message


@define
class Relay:
    """Queries passing through this node.

    Args:
        own_id: of this node.
    """

    own_id: NodeID
    _queries: OrderedDict[bytes, Query] = field(init=False, factory=OrderedDict)

    def get(self, qid: bytes, now: float) -> Query | None:
        """Return the query named ``qid`` if it passed here lately."""
        query = self._queries.get(qid)
        return query if query is not None and query.until > now else None

    def take(self, message: GetPeers, source: Address, now: float) -> Query:
        """Remember a query that was not seen before; ``message`` is stamped."""
        query = Query(
            message=message,
            upstream=source,
            rid=message.rid,
            attempt=message.attempt,
            first_hop=message.hops == 0,
            units=message.units,
            until=now + limits.QUERY_CACHE_S,
        )
        self._queries[message.qid] = query
        self._queries.move_to_end(message.qid)
        if len(self._queries) > limits.QUERY_CACHE:
            self._queries.popitem(last=False)
        return query

    def next_hop(
        self,
        query: Query,
        candidates: Sequence[Candidate],
        log2_reach: float,
        table: int,
        *,
        second: bool = False,
    ) -> tuple[Address, GetPeers] | None:
        """Return whom to pass the query to and with which message, or ``None`` to hand it back.

        Candidates strictly nearer to the topic than this node come first, in walk order. If there
        is none and the table is small, the nearest others do: strict greed would break a chain of
        three nodes for half of all topics (decision 11). Where the query asks for a pair and the
        first choice is near enough to be a storer, ``query.pair`` says that a second one is to
        have it as well.

        Args:
            query: taken here.
            candidates: neighbours of the family of ``src`` that are not suspect.
            log2_reach: see :func:`p2pdist.overlay.lookup.walk_cost`.
            table: entries in the routing tables.
            second: the second of a pair is wanted: nobody but who is near enough to be a storer.
        """
        message = query.message
        if message.hops >= limits.HOPS or len(query.tried) >= limits.WALK_CANDIDATES:
            return None
        if not query.units or message.flags & Flag.LAST:
            return None
        passed = {query.upstream, query.src, message.via, *query.tried}
        fitting = [c for c in candidates if c.address not in passed]
        if not query.first_hop:
            # A finder there or behind it must be able to reach whom it answers (decision 15).
            widest = scope(query.answer_through or query.src)
            if widest < Scope.GLOBAL:
                fitting = [c for c in fitting if scope(c.address) <= widest]
        own = distance(self.own_id, message.topic)
        topic = int.from_bytes(message.topic, "big")
        reach = 2.0**log2_reach
        if second:
            fitting = [c for c in fitting if c.number ^ topic <= reach]
        nearer = [c for c in fitting if c.number ^ topic < own]
        if nearer:
            chosen = min(nearer, key=walk_cost(nearer, message.topic, log2_reach))
        elif fitting and table <= limits.SMALL_TABLE:
            chosen = min(fitting, key=lambda c: c.number ^ topic)
        else:
            return None
        flags = message.flags & ~Flag.NAT
        if chosen.number ^ topic <= reach:
            query.pair = bool(flags & Flag.PAIR) and not query.tried
            flags &= ~Flag.PAIR  # here is the pair: its members make no other
        query.tried[chosen.address] = None
        units = (query.units + 1) // 2
        query.units -= units
        query.lent[chosen.address] = units
        hidden = message.flags & Flag.NAT or scope(query.src) < scope(chosen.address)
        if query.first_hop and hidden:
            flags |= Flag.VIA
        copy = attrs.evolve(message, hops=message.hops + 1, units=units, flags=flags)
        return chosen.address, copy

    @staticmethod
    def handed_back(query: Query, next_hop: Address, units: int) -> bool:
        """Take back units a next hop refused: once, and never more than it was given.

        Returns:
            False if it handed its copy back before: a repeated refusal changes nothing.
        """
        lent = query.lent.pop(next_hop, None)
        if lent is None:
            return False
        query.units += min(units, lent)
        return True

    def __len__(self) -> int:
        return len(self._queries)
