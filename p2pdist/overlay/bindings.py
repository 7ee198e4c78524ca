"""Behind a NAT: keeps the bindings to a few neighbours open, and tells all of them how it stands.

Job: act on what ``reach`` found out. A node that others see at a foreign address pings up to
``limits.NAT_PINNED`` *pinned* neighbours every ``limits.NAT_KEEPALIVE_S``, so that these can call
it; half of them the nearest by XOR (their walks come our way), half the quickest (ours begin
there). A neighbour that knows no better hears at once that we are behind a NAT, or no longer are:
before it names us to anybody. It does NOT find that out.

Threat: none from outside; at most ``limits.NAT_PINNED`` pings a round, and what is to be told in
steps. Tests: ``test_bindings``, ``test_sim_nat``.
"""

from __future__ import annotations

import random
from itertools import chain
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, Scope, scope
from p2pdist.errors import NodeStopped, RPCError
from p2pdist.ids import NodeID, distance
from p2pdist.logs import new_logger
from p2pdist.overlay.messages import Flag, Ping, Reply
from p2pdist.overlay.reach import Reach, Side, State
from p2pdist.overlay.routing import Neighbour, Neighbourhood, RoutingTable
from p2pdist.overlay.rpc import RPC

TOLD_AT_ONCE = 8
"""Neighbours told of a change in one step."""
NAT = int(Flag.NAT)


class Surroundings(Protocol):
    """What keeping bindings needs from its network."""

    node_id: NodeID
    clock: IReactorTime
    rng: random.Random
    rpc: RPC
    neighbours: Neighbourhood
    reach: Reach

    def contact(self, address: Address) -> Deferred[Reply]:
        """Ping a neighbour."""


@define(eq=False)
class Bindings:
    """The bindings of one network's socket.

    Args:
        network: whose.
    """

    network: Surroundings
    _log = new_logger()
    _pinned: dict[Address, float] = field(init=False, factory=dict)
    """When each is pinged next."""
    _said: dict[str, State] = field(init=False, factory=dict)

    @property
    def pinned(self) -> list[Address]:
        """The neighbours towards whom bindings are kept open."""
        return list(self._pinned)

    def says(self, address: Address) -> int:
        """Return the ``flags`` of pings and pongs to ``address``: what we say of ourselves."""
        return NAT if self.network.reach.nated(address) else 0

    def tell(self, address: Address) -> None:
        """Tell the node at ``address`` how we stand, if it may have heard otherwise.

        In a ping with its token, which it believes: the first ping to a stranger has none.
        """
        path, says = self.network.rpc.paths.peek(address), self.says(address)
        if path is not None and path.told != says:
            path.told = says
            ping = Ping(node_id=self.network.node_id, flags=says)
            self.network.rpc.call(address, ping).addErrback(_quietly)

    def changed(self) -> None:
        """Act on what ``reach`` found out just now."""
        network = self.network
        self._log_change("IPv4", network.reach.ipv4)
        self._log_change("IPv6", network.reach.ipv6)
        known = ((e.address, network.rpc.paths.peek(e.address)) for e in network.neighbours)
        told = [a for a, path in known if path is not None and path.told != self.says(a)]
        for address in told[:TOLD_AT_ONCE]:
            self.tell(address)

    def upkeep(self) -> None:
        """Do what is due; call every few seconds."""
        network = self.network
        now = network.clock.seconds()
        network.reach.review(now)
        self.changed()
        for side, table in (
            (network.reach.ipv4, network.neighbours.ipv4),
            (network.reach.ipv6, network.neighbours.ipv6),
        ):
            self._pin(side, table, now)
        for address, due in list(self._pinned.items()):
            if due <= now:
                spread = 1 + limits.RTO_JITTER * (2 * network.rng.random() - 1)
                self._pinned[address] = now + limits.NAT_KEEPALIVE_S * spread
                network.contact(address).addErrback(_quietly)

    def _pin(self, side: Side, table: RoutingTable, now: float) -> None:
        """Unpin whoever left the table, and all without a NAT; fill free places."""
        pins = 0
        for address in self.pinned:
            if self.network.neighbours.table(address) is table:
                if side.translated is None or table.get(address) is None:
                    del self._pinned[address]
                else:
                    pins += 1
        if side.translated is not None and pins < limits.NAT_PINNED:
            for entry in self._preferred(table)[: limits.NAT_PINNED - pins]:
                self._pinned[entry.address] = now

    def _preferred(self, table: RoutingTable) -> list[Neighbour]:
        """Return whom to pin, best first: in turn the nearest and the quickest; open ones first."""

        def rtt(entry: Neighbour) -> float:
            path = self.network.rpc.paths.peek(entry.address)
            return limits.RTO_MAX_S if path is None or path.srtt_s is None else path.srtt_s

        fit = [
            entry
            for entry in table
            if not entry.suspect
            and entry.address not in self._pinned
            and scope(entry.address) is Scope.GLOBAL
        ]
        nearest = sorted(fit, key=lambda entry: distance(entry.node_id, self.network.node_id))
        quickest = sorted(fit, key=rtt)
        turns = chain.from_iterable(zip(nearest, quickest, strict=True))
        order = {entry.address: entry for entry in turns}
        return sorted(order.values(), key=lambda entry: entry.nat)

    def _log_change(self, family: str, side: Side) -> None:
        """Log a change once; that a node is open is news only where it was thought not to be."""
        before = self._said.get(family, State.OPEN)
        if side.state in {before, State.UNKNOWN}:
            return
        self._said[family] = side.state
        if side.state is State.NATED:
            self._log.info(
                "this node is behind a NAT in {family}, seen at {host}: peers cannot call it "
                "first; it keeps up to {count} bindings open",
                family=family,
                host=side.translated,
                count=limits.NAT_PINNED,
            )
        else:
            self._log.info("peers can call this node in {family} after all", family=family)


def _quietly(failure: Failure) -> None:
    """Let a call fail that nobody waits for."""
    failure.trap(RPCError, NodeStopped)
