"""Nodes that do not do as they should: black holes and liars, made of honest nodes.

Job: replace what a ``Network`` answers. Tests: ``test_simulation``.
"""

from __future__ import annotations

import random

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import ID_BYTES, NodeID
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.messages import (
    Find,
    Forwarded,
    Found,
    GetPeers,
    Offer,
    Reply,
    Request,
    Verdict,
)
from p2pdist.overlay.network import Network
from p2pdist.overlay.relay import stamp
from p2pdist.simulation.population import Role

FALSE_PEERS = 3


def play(role: Role, network: Network, rng: random.Random) -> None:
    """Make ``network`` behave as its role says; open, NATed and dead ones need nothing."""

    def take(source: Address, request: Request, now: float) -> Reply:
        """Take the query, and nothing comes of it."""
        assert isinstance(request, GetPeers)
        return Forwarded(
            rid=request.rid,
            attempt=request.attempt,
            verdict=Verdict.TAKEN,
            units=0,
            token=network.guard.mint.token(source, now),
        )

    def find_nothing(source: Address, request: Request, now: float) -> Reply:
        """Answer, with nobody."""
        del source, now
        return Found(rid=request.rid, attempt=request.attempt, nodes4=(), nodes6=())

    def offer_lies(source: Address, request: Request, now: float) -> Reply:
        """Take the query, and offer the initiator peers that do not exist."""
        assert isinstance(request, GetPeers)
        stamped = stamp(request, source)
        if stamped.src is not None:
            offer = Offer(
                qid=request.qid,
                node_id=network.node_id,
                cookie=network.guard.mint.cookie(stamped.src, request.qid, now),
                swarm=FALSE_PEERS,
                peers4=tuple(_nobody(rng) for _ in range(FALSE_PEERS)),
            )
            network.send(stamped.src, offer)
        return take(source, request, now)

    def find_lies(source: Address, request: Request, now: float) -> Reply:
        """Name nodes that do not exist, nearer to the target than anybody."""
        assert isinstance(request, Find)
        del source, now
        near = int.from_bytes(request.target, "big") >> 64
        nodes = tuple(
            NodeEntry(
                NodeID(((near << 64) | rng.getrandbits(64)).to_bytes(ID_BYTES, "big")), _nobody(rng)
            )
            for _ in range(limits.REPLY_NODES)
        )
        return Found(rid=request.rid, attempt=request.attempt, nodes4=nodes, nodes6=())

    if role is Role.BLACK_HOLE:
        network.methods.update({GetPeers: take, Find: find_nothing})
    elif role is Role.LIAR:
        network.methods.update({GetPeers: offer_lies, Find: find_lies})


def _nobody(rng: random.Random) -> Address:
    """Return a global address at which no simulated node lives."""
    number = rng.getrandbits(24)
    return Address(f"12.{number >> 16}.{number >> 8 & 255}.{number & 255 or 1}", 7667)
