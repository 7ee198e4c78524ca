"""A topic with nothing but an attacker's nodes near it, for ``joining.py``.

Job: 100 honest production nodes with the tables they would have in the long run, and 400 sybils
nearer to the topic than any of them, who take everything and tell of each other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import common  # noqa: F401 -- finds the package
from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import HashKey
from p2pdist.keys import topic_of
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.messages import (
    Accept,
    Accepted,
    Announce,
    Announced,
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
from p2pdist.simulation.crowd import Crowd
from p2pdist.simulation.population import BITS, Mix, Population, address_of
from p2pdist.simulation.terrain import Terrain

HONEST: Final = 100
SYBILS: Final = 400
FALSE_PEERS: Final = 8


@define(eq=False)
class Eclipse(Crowd):
    """A topic that sybils have surrounded.

    Args:
        sybils: their numbers.
    """

    sybils: Sequence[int] = field(kw_only=True)

    def _make(self, number: int) -> Network:
        network = Crowd._make(self, number)
        if number in self.sybils:
            own = Sybil(self, network)
            network.methods.update(
                {GetPeers: own.take, Find: own.find, Announce: own.announce, Accept: own.accept}
            )
        return network


@define(eq=False)
class Sybil:
    """Takes what comes; whoever asks is told of sybils and of nobody."""

    crowd: Eclipse
    network: Network

    def _peers(self) -> tuple[Address, ...]:
        rng = self.crowd.rng
        nobody = [
            Address(f"12.{rng.getrandbits(8)}.{rng.getrandbits(8)}.7", 7667)
            for _ in range(FALSE_PEERS)
        ]
        return (*nobody, *map(address_of, rng.sample(self.crowd.sybils, FALSE_PEERS // 2)))

    def _nodes(self) -> tuple[NodeEntry, ...]:
        chosen = self.crowd.rng.sample(self.crowd.sybils, limits.REPLY_NODES)
        return tuple(NodeEntry(self.crowd.population.node_id(n), address_of(n)) for n in chosen)

    def take(self, source: Address, request: Request, now: float) -> Reply:
        """Take a query, drop it, offer false peers."""
        assert isinstance(request, GetPeers)
        mint = self.network.guard.mint
        src = stamp(request, source).src
        if src is not None:
            offer = Offer(
                qid=request.qid,
                node_id=self.network.node_id,
                cookie=mint.cookie(src, request.qid, now),
                swarm=100,
                peers4=self._peers(),
            )
            self.network.send(src, offer)
        return Forwarded(
            rid=request.rid,
            attempt=request.attempt,
            verdict=Verdict.TAKEN,
            units=0,
            token=mint.token(source, now),
        )

    def find(self, _source: Address, request: Request, _now: float) -> Reply:
        """Name other sybils."""
        return Found(rid=request.rid, attempt=request.attempt, nodes4=self._nodes(), nodes6=())

    def announce(self, _source: Address, request: Request, _now: float) -> Reply:
        """Take it and forget it."""
        return Announced(rid=request.rid, attempt=request.attempt, ttl_s=1800, others=9)

    def accept(self, source: Address, request: Request, now: float) -> Reply:
        """Name more false peers."""
        return Accepted(
            rid=request.rid,
            attempt=request.attempt,
            token=self.network.guard.mint.token(source, now),
            peers4=self._peers(),
            nodes4=self._nodes(),
        )


def surrounded(seed: int) -> tuple[Eclipse, HashKey]:
    """Return a world in which every sybil is nearer to the topic than any honest node."""
    rng = random.Random(f"{seed}/eclipse")
    key = HashKey(rng.randbytes(32))
    target = int.from_bytes(topic_of(key), "big")
    population = Population(Mix(nodes=HONEST + SYBILS, dead=0.0), seed)
    honest = [rng.getrandbits(BITS) for _ in range(HONEST)]
    bits = max(BITS - (one ^ target).bit_length() for one in honest) + 1
    below = BITS - bits
    near = [(target >> below << below) | rng.getrandbits(below) for _ in range(SYBILS)]
    population.ids = sorted(honest + near)
    owned = frozenset(near)
    sybils = [number for number, one in enumerate(population.ids) if one in owned]
    return Eclipse(population, Terrain(seed), seed, sybils=sybils), key
