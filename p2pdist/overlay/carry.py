"""Carries other nodes' queries: answers them from the PeerTable, passes them on, relays offers.

Job: carry out what ``relay`` decides, with ``guard``'s consent. It does NOT answer for this node's
own lookups (``search``). Every byte sent here is caused by a stranger: an answer goes directly to
the initiator's origin ``src`` as the first hop saw it, inside the query's units, and is never
larger than the query that caused it (decision 9). Tests: ``test_overlay``, ``test_sim_reflection``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, is_ipv6, scope
from p2pdist.errors import LocalProtocolError, NodeStopped, RPCError
from p2pdist.ids import NodeID, Topic
from p2pdist.overlay.guard import Guard
from p2pdist.overlay.lookup import Candidate
from p2pdist.overlay.messages import (
    Flag,
    Forwarded,
    GetPeers,
    Message,
    Offer,
    Reply,
    Verdict,
)
from p2pdist.overlay.peertable import PeerTable
from p2pdist.overlay.reach import Reach
from p2pdist.overlay.relay import Query, Relay, stamp
from p2pdist.overlay.rpc import RPC

LATE_REFUSAL_S = 3.0
"""How long a next hop that took a query may still hand it back."""


class Surroundings(Protocol):
    """What carrying needs from its network."""

    node_id: NodeID
    clock: IReactorTime
    guard: Guard
    rpc: RPC
    peers: PeerTable
    reach: Reach
    own_addresses: dict[Address, None]
    join_servers: dict[Topic, Callable[..., Reply]]

    def send(self, address: Address, message: Message) -> None:
        """Seal and transmit a message."""

    def walk_candidates(self, family: Address, nearer_to: bytes | None) -> list[Candidate]:
        """Return the neighbours that may carry a walk."""

    def log2_reach(self) -> float:
        """Return log2 of the distance within which a topic's storers live."""

    def table_size(self) -> int:
        """Return how many neighbours there are."""


@define(eq=False)
class Carrier:
    """Other nodes' queries at this node.

    Args:
        network: whose.
    """

    network: Surroundings
    _relay: Relay = field(init=False)
    _repeats: dict[bytes, IDelayedCall] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._relay = Relay(self.network.node_id)

    def received(self, source: Address, message: GetPeers, now: float) -> Forwarded | None:
        """Take a token-proved get_peers; return the reply to who handed it over, or drop it."""
        if self._relay.get(message.qid, now) is not None:
            return self._verdict(source, message, Verdict.TAKEN, 0, now)
        stamped = stamp(message, source)
        guard = self.network.guard
        if stamped.src is None or stamped.src in self.network.own_addresses:
            return None
        if message.hops == 0:
            allowed = guard.first_hop(source, now)
        else:
            allowed = guard.forward(source, stamped.src, now)
        if not allowed:
            return self._verdict(source, message, Verdict.BUSY, message.units, now)
        query = self._relay.take(stamped, source, now)
        if self._answer(query, now) or self._pass_on(query):
            if query.pair:
                self._pass_on(query, second=True)
            return self._verdict(source, message, Verdict.TAKEN, 0, now)
        return self._verdict(source, message, Verdict.NO_ROUTE, query.units, now)

    def _verdict(
        self, source: Address, message: GetPeers, verdict: Verdict, units: int, now: float
    ) -> Forwarded:
        return Forwarded(
            rid=message.rid,
            attempt=message.attempt,
            verdict=verdict,
            units=units,
            token=self.network.guard.mint.token(source, now),
        )

    # --- answering ---

    def _answer(self, query: Query, now: float) -> bool:
        """Offer what we know to the initiator; False if we know nobody or may not say."""
        network, message = self.network, query.message
        ipv6 = is_ipv6(query.src)
        target = query.answer_through or query.src
        peers = network.peers.sample(
            message.topic,
            limits.OFFER_PEERS_V6 if ipv6 else limits.OFFER_PEERS_V4,
            now,
            asker=query.src,
            at_least=scope(target),
        )
        member = message.topic in network.join_servers
        if not (peers or member) or not query.units:
            return False
        if target != query.upstream and not network.guard.offer(target, now):
            return False
        direct = query.answer_through is None
        offer = Offer(
            qid=message.qid,
            node_id=network.node_id,
            cookie=network.guard.mint.cookie(query.src, message.qid, now) if direct else b"",
            swarm=min(network.peers.count(message.topic, now) + member, 2**16 - 1),
            flags=Flag.MEMBER if member else 0,
            peers4=() if ipv6 else tuple(peers),
            peers6=tuple(peers) if ipv6 else (),
        )
        if not network.guard.relay(limits.OFFER_BYTES, now):
            return False
        query.units -= 1
        network.send(target, offer)
        few = network.table_size() <= limits.SMALL_TABLE
        if query.units and few and message.qid not in self._repeats:
            query.units -= 1
            self._repeats[message.qid] = network.clock.callLater(
                limits.OFFER_REPEAT_S, self._repeat, target, offer
            )
        return True

    def _repeat(self, target: Address, offer: Offer) -> None:
        """Offer once more: the first one may be lost, and few others would answer."""
        del self._repeats[offer.qid]
        now = self.network.clock.seconds()
        if self.network.guard.relay(limits.OFFER_BYTES, now):
            self.network.send(target, offer)

    def accepted(self, qid: bytes) -> None:
        """Note that the initiator took the offer: it need not be repeated."""
        repeat = self._repeats.pop(qid, None)
        if repeat is not None:
            repeat.cancel()

    # --- passing on ---

    def _pass_on(self, query: Query, *, second: bool = False) -> bool:
        """Hand the query to the next candidate; False if there is none.

        ``second``: as the second of a pair.
        """
        network = self.network
        now = network.clock.seconds()
        size = limits.GET_PEERS_WIDE_BYTES if query.message.wide else limits.GET_PEERS_BYTES
        if not network.guard.relay(size, now):
            return False  # before choosing among hundreds: a flood of queries must cost little
        table = network.table_size()
        nearer_to = query.message.topic if table > limits.SMALL_TABLE else None
        candidates = network.walk_candidates(query.src, nearer_to)
        reach = network.log2_reach()
        chosen = self._relay.next_hop(query, candidates, reach, table, second=second)
        if chosen is None:
            network.guard.relay(-size, now)  # nothing is sent
            return False
        address, copy = chosen
        if query.first_hop and copy.flags & Flag.VIA and network.reach.nated(query.src):
            # Offers are to come through us, and only from our own contacts can they.
            copy = attrs.evolve(copy, flags=copy.flags | Flag.LAST)

        def build(rid: bytes, token: bytes) -> GetPeers:
            return attrs.evolve(copy, node_id=network.node_id, rid=rid, attempt=0, token=token)

        def replied(reply: Reply) -> None:
            assert isinstance(reply, Forwarded)
            refused = reply.verdict is not Verdict.TAKEN
            if refused and self._relay.handed_back(query, address, reply.units):
                self._failed(query)

        def silent(failure: Failure) -> None:
            if not failure.check(NodeStopped):
                failure.trap(RPCError)
                self._failed(query)

        query.under_way += 1
        network.rpc.call_built(
            address,
            build,
            Forwarded,
            tries=1 if query.units else 2,  # the last copy's units are spent: only resend it
            late=replied,
            linger_s=LATE_REFUSAL_S,
        ).addCallbacks(replied, silent)
        return True

    def _failed(self, query: Query) -> None:
        """Go on elsewhere when nobody is left who has the query; else it is on its way still."""
        query.under_way -= 1
        if query.under_way or self._pass_on(query):
            return
        now = self.network.clock.seconds()
        refusal = Forwarded(
            rid=query.rid,
            attempt=query.attempt,
            verdict=Verdict.NO_ROUTE,
            units=query.units,
            token=self.network.guard.mint.token(query.upstream, now),
        )
        query.units = 0
        self.network.send(query.upstream, refusal)

    # --- relaying ---

    def relay_offer(self, source: Address, offer: Offer, now: float) -> None:
        """Pass an offer to the initiator whose first hop we are; write in who made it."""
        query = self._relay.get(offer.qid, now)
        if query is None or not query.first_hop or offer.finder is not None:
            return
        if query.relayed >= limits.GET_PEERS_WIDE_UNITS or source == query.src:
            return
        if scope(source) < scope(query.src) or not self.network.guard.relay(
            limits.OFFER_BYTES, now
        ):
            return
        try:
            self.network.send(query.src, attrs.evolve(offer, finder=source, cookie=b""))
        except LocalProtocolError:
            return  # its maker left no room for the finder's address
        query.relayed += 1

    def stop(self) -> None:
        """Cancel what would be sent later."""
        for repeat in self._repeats.values():
            repeat.cancel()
        self._repeats.clear()
