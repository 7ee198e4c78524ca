"""Who lives in a simulated network: ids, roles, addresses, and the tables of converged nodes. Pure.

Job: draw the nodes of a :class:`World` description from its seed, and say whom a node would have in
its routing table after it has been there for long. Does NOT make nodes (``crowd``).

A converged table is what Kademlia's rules give in the long run: every bucket holds a random choice
of the nodes that belong there, dead ones included in their share (:meth:`Population.table`). Ours
knows more (:meth:`Population.aware_table`): nobody is told of nodes behind NATs, so those are known
to the neighbours towards whom they keep bindings open (:meth:`Population.pins`) and to nobody else.
``benchmarks/overlay.py`` holds it against nodes that really joined. Tests: ``test_simulation``.
"""

from __future__ import annotations

import enum
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

from attrs import define, field, frozen

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import ID_BYTES, NodeID

BITS: Final = ID_BYTES * 8
_FIRST_SUBNET: Final = 20 << 16  # 20.0.0.0: global addresses, a /24 for each node


class Role(enum.IntEnum):
    """What a node is."""

    OPEN = 0
    DEAD = 1
    """gone, but still in tables and told of"""
    NATED = 2
    """behind a port-restricted NAT: only whom it wrote to lately can reach it"""
    BLACK_HOLE = 3
    """takes queries and drops them; finds nothing"""
    LIAR = 4
    """answers every query with peers and nodes that do not exist"""


@frozen(kw_only=True)
class Mix:
    """How many nodes there are and of which kind.

    Attributes:
        nodes: that live.
        dead: share of dead nodes among all that tables know, 0 to below 1.
        nated, black_holes, liars: shares of the living.
    """

    nodes: int
    dead: float = 0.1
    nated: float = 0.0
    black_holes: float = 0.0
    liars: float = 0.0


def _roles(mix: Mix, rng: random.Random) -> list[Role]:
    dead = round(mix.nodes * mix.dead / (1 - mix.dead))
    special = [
        *[Role.NATED] * round(mix.nodes * mix.nated),
        *[Role.BLACK_HOLE] * round(mix.nodes * mix.black_holes),
        *[Role.LIAR] * round(mix.nodes * mix.liars),
    ]
    roles = [*special, *[Role.OPEN] * (mix.nodes - len(special)), *[Role.DEAD] * dead]
    rng.shuffle(roles)
    return roles


def address_of(node: int) -> Address:
    """Return where node number ``node`` is, as everybody else sees it."""
    subnet = _FIRST_SUBNET + node
    host = f"{subnet >> 16}.{subnet >> 8 & 255}.{subnet & 255}.1"
    return Address(host, limits.DEFAULT_PORT)


@define
class Population:
    """The nodes, numbered in the order of their ids.

    Args:
        mix: how many of which kind.
        seed: decides everything.
        bucket_sizes: of the tables; BEP 5's are 8 everywhere.
    """

    mix: Mix
    seed: int
    bucket_sizes: Sequence[int] = limits.BUCKET_SIZES
    ids: list[int] = field(init=False)
    roles: list[Role] = field(init=False)
    _told: Sequence[int] = field(init=False)
    """The nodes that others are told of, and ..."""
    _told_ids: list[int] = field(init=False)
    """... their ids."""

    def __attrs_post_init__(self) -> None:
        rng = random.Random(f"{self.seed}/population")  # noqa: S311 -- a simulation
        self.roles = _roles(self.mix, rng)
        self.ids = sorted(rng.getrandbits(BITS) for _ in self.roles)
        self._told, self._told_ids = range(len(self.ids)), self.ids
        if self.mix.nated:
            self._told = [n for n, role in enumerate(self.roles) if role is not Role.NATED]
            self._told_ids = [self.ids[n] for n in self._told]

    def __len__(self) -> int:
        return len(self.ids)

    def node_id(self, node: int) -> NodeID:
        """Return the id of a node."""
        return NodeID(self.ids[node].to_bytes(ID_BYTES, "big"))

    def living(self, *roles: Role) -> list[int]:
        """Return the nodes of the given roles."""
        return [node for node, role in enumerate(self.roles) if role in roles]

    def sharing(self, prefix: int, bits: int) -> range:
        """Return the nodes whose ids begin with the first ``bits`` bits of ``prefix``."""
        below = BITS - bits
        low = prefix >> below << below
        return range(bisect_left(self.ids, low), bisect_left(self.ids, low + (1 << below)))

    def closest(self, key: int, count: int) -> list[int]:
        """Return the ``count`` nodes nearest to ``key``, dead ones too, nearest first."""
        bits = 0
        while bits < BITS and len(self.sharing(key, bits + 1)) >= count:
            bits += 1
        near = sorted(self.sharing(key, bits), key=lambda node: self.ids[node] ^ key)
        return near[:count]

    def table(self, node: int) -> list[int]:
        """Return the nodes a converged table holds where NATs are not heeded, bucket by bucket."""
        return self._draw(node, self.ids)

    def aware_table(self, node: int) -> list[int]:
        """Return the nodes told of to everybody that a converged table of ours holds.

        Those behind NATs that the table holds too are whoever has this node among its pins.
        """
        told = self._told
        return [told[place] for place in self._draw(node, self._told_ids)]

    def pins(self, node: int, rtt_s: Callable[[int, int], float]) -> list[int]:
        """Return towards whom a node behind a NAT keeps bindings open (``overlay.bindings``).

        Args:
            node: behind a NAT.
            rtt_s: how far apart two nodes are.
        """
        own = self.ids[node]
        living = [n for n in self.aware_table(node) if self.roles[n] is not Role.DEAD]
        nearest = sorted(living, key=lambda n: self.ids[n] ^ own)
        quickest = sorted(living, key=lambda n: rtt_s(node, n))
        turns = chain.from_iterable(zip(nearest, quickest, strict=True))
        return list(dict.fromkeys(turns))[: limits.NAT_PINNED]

    def _draw(self, node: int, ids: Sequence[int]) -> list[int]:
        """Return the places in ``ids``, which are sorted, of those a table holds."""
        rng = random.Random(f"{self.seed}/table/{node}")  # noqa: S311 -- a simulation
        own = self.ids[node]
        entries: list[int] = []
        low, high = 0, len(ids)  # those that share ``depth`` bits with the node
        for depth in range(BITS):
            bit = 1 << (BITS - 1 - depth)
            middle = bisect_left(ids, (own | bit) & -bit, low, high)
            if own & bit:
                sibling, low = range(low, middle), middle
            else:
                sibling, high = range(middle, high), middle
            size = self.bucket_sizes[min(depth, len(self.bucket_sizes) - 1)]
            entries += rng.sample(sibling, min(size, len(sibling)))
            if high - low == 0 or (high - low == 1 and ids[low] == own):
                break
        return entries[: limits.NEIGHBOURS]
