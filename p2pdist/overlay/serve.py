"""Serves requests of proved senders: what other nodes may ask of this one.

Job: one method per kind of request, from the tables to the reply. It does NOT open datagrams, nor
ask for proofs (``network`` did), nor send; queries for peers go on to ``carry``.

Threat: askers that have proved their address and nothing else. Nobody is told of an address of
narrower scope than his own (decision 15), nor of a node behind a NAT (BEP 43 in idea); what an
asker says of himself is registered under the address it came from, within ``guard``'s limits.
Tests: ``test_overlay``, ``test_sim_discovery``, ``test_sim_nat``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, is_ipv6, scope
from p2pdist.ids import Topic
from p2pdist.overlay.agenda import Agenda
from p2pdist.overlay.carry import Carrier
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.guard import Guard
from p2pdist.overlay.lookup import QUERY_BYTES
from p2pdist.overlay.messages import (
    Accept,
    Accepted,
    Announce,
    Announced,
    Error,
    ErrorCode,
    Find,
    Forwarded,
    Found,
    GetPeers,
    Join,
    Message,
    Noted,
    Reply,
    Request,
    Status,
    StatusUpdate,
    Verdict,
)
from p2pdist.overlay.peertable import PeerTable
from p2pdist.overlay.routing import Neighbour, Neighbourhood

Serve = Callable[[Address, Request, float], "Reply | None"]
JoinServer = Callable[[Address, Join], Reply]
StatusListener = Callable[[Address, StatusUpdate], bool]


class Surroundings(Protocol):
    """What serving needs from its network."""

    guard: Guard
    neighbours: Neighbourhood
    peers: PeerTable
    agenda: Agenda
    join_servers: dict[Topic, JoinServer]
    status_listeners: dict[Topic, StatusListener]


@define(eq=False)
class Server:
    """The methods other nodes may call.

    Args:
        network: whose tables answer.
        carrier: takes queries for peers.

    Attributes:
        methods: by the type of the request; each returns the reply, or ``None`` for silence.
    """

    network: Surroundings
    carrier: Carrier
    methods: dict[type[Message], Serve] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.methods = {
            Find: self._find,
            GetPeers: self._get_peers,
            Accept: self._accept,
            Announce: self._announce,
            Join: self._join,
            StatusUpdate: self._status,
        }

    def _find(self, source: Address, request: Request, _now: float) -> Reply:
        assert isinstance(request, Find)
        four, six = self._nodes_for(source, request.target)
        return Found(rid=request.rid, attempt=request.attempt, nodes4=four, nodes6=six)

    def _nodes_for(
        self, source: Address, target: bytes
    ) -> tuple[tuple[NodeEntry, ...], tuple[NodeEntry, ...]]:
        """Return the nearest nodes that ``source`` may be told of, by family, together 8."""
        reach = scope(source)

        def fit(entry: Neighbour) -> bool:
            shown = not entry.suspect and not entry.nat and entry.address != source
            return shown and scope(entry.address) >= reach

        near = [
            NodeEntry(entry.node_id, entry.address)
            for table in (self.network.neighbours.ipv4, self.network.neighbours.ipv6)
            for entry in table.closest(target, limits.REPLY_NODES, fit)
        ]
        near.sort(key=lambda n: int.from_bytes(n.node_id, "big") ^ int.from_bytes(target, "big"))
        near = near[: limits.REPLY_NODES]
        return (
            tuple(n for n in near if not is_ipv6(n.address)),
            tuple(n for n in near if is_ipv6(n.address)),
        )

    def _get_peers(self, source: Address, request: Request, now: float) -> Reply | None:
        assert isinstance(request, GetPeers)
        own = self.network.agenda.get(request.qid[:QUERY_BYTES])
        if own is not None:  # our own query came round
            return Forwarded(
                rid=request.rid,
                attempt=request.attempt,
                verdict=Verdict.NO_ROUTE,
                units=request.units,
                token=self.network.guard.mint.token(source, now),
            )
        return self.carrier.received(source, request, now)

    def _accept(self, source: Address, request: Request, now: float) -> Reply:
        assert isinstance(request, Accept)
        self.carrier.accepted(request.qid)
        count = limits.REPLY_PEERS_V6 if is_ipv6(source) else limits.REPLY_PEERS_V4
        peers = self.network.peers
        found = tuple(peers.sample(request.topic, count, now, asker=source, at_least=scope(source)))
        four, six = self._nodes_for(source, request.topic)
        self._store(source, request, now)
        return Accepted(
            rid=request.rid,
            attempt=request.attempt,
            token=self.network.guard.mint.token(source, now),
            peers4=() if is_ipv6(source) else found,
            peers6=found if is_ipv6(source) else (),
            nodes4=four,
            nodes6=six,
        )

    def _announce(self, source: Address, request: Request, now: float) -> Reply:
        assert isinstance(request, Announce)
        refusal = self._store(source, request, now)
        if refusal is not None:
            return Error(rid=request.rid, attempt=request.attempt, error=refusal)
        others = self.network.peers.count(request.topic, now, but=source)
        others += request.topic in self.network.join_servers
        return Announced(
            rid=request.rid,
            attempt=request.attempt,
            ttl_s=limits.PEER_TTL_S,
            others=min(others, 2**16 - 1),
        )

    def _store(self, source: Address, request: Accept | Announce, now: float) -> ErrorCode | None:
        """Register what ``source`` says of itself; return why not if it is refused."""
        peers = self.network.peers
        if not peers.knows(request.topic, source) and not self.network.guard.announce(source, now):
            return ErrorCode.RATE
        entry = peers.put(
            request.topic, request.node_id, source, request.status, request.sequence, now
        )
        refused = entry is None and request.status is not Status.LEFT
        return ErrorCode.FULL if refused else None

    def _join(self, source: Address, request: Request, _now: float) -> Reply:
        assert isinstance(request, Join)
        serve = self.network.join_servers.get(request.topic)
        if serve is None:
            return Error(rid=request.rid, attempt=request.attempt, error=ErrorCode.NOT_A_PEER)
        return serve(source, request)

    def _status(self, source: Address, request: Request, now: float) -> Reply:
        assert isinstance(request, StatusUpdate)
        peers = self.network.peers
        known = peers.get(request.topic, source)
        listener = self.network.status_listeners.get(request.topic, _nobody)
        if known is None or known.node_id != request.node_id:
            # A joined peer need not be in the table: its farewell to us as a storer was faster.
            if not listener(source, request):
                return Error(rid=request.rid, attempt=request.attempt, error=ErrorCode.NOT_A_PEER)
        else:
            status, sequence = request.status, request.sequence
            entry = peers.put(request.topic, request.node_id, source, status, sequence, now)
            if entry is None or entry.sequence == sequence:
                listener(source, request)
        return Noted(rid=request.rid, attempt=request.attempt)


def _nobody(_source: Address, _update: StatusUpdate) -> bool:
    return False
