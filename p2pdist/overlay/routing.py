"""The routing table: neighbours in k-buckets by XOR distance. Pure.

Job: which verified nodes are known, which of them are nearest to a key, who replaces the dead.
Does NOT send; ``network`` reports what answered and what did not. One table serves one address
family. Sizes, caps and states: ``limits``, Kademlia (2002), discv5's table rules.

States of an entry::

    absent -(answered us)-> verified -(1 miss)-> suspect -(3 misses)-> absent: a replacement
                               ^-------(any answer)--'                 moves up

An entry that says it is behind a NAT takes a free place only, ``limits.NAT_PER_TABLE`` at most, and
makes way for any open newcomer. It can be called for ``limits.NAT_BINDING_S`` after it wrote.

Threat: tables filled by one party. Only nodes that answered us, or proved their address by our
token, come in; long-lived entries are never evicted for newcomers; global addresses are capped
per subnet. Tests: ``test_routing``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, is_ipv6, subnet_key
from p2pdist.errors import LocalProtocolError
from p2pdist.ids import ID_BYTES, NodeID, distance, shared_prefix_bits
from p2pdist.overlay.fields import NodeEntry


@define(eq=False)
class Neighbour:
    """A verified node.

    Attributes:
        node_id: its id.
        address: where it answered.
        seen_at: when it last answered or proved itself.
        misses: calls it left unanswered since.
        nat: whether it says that it is behind a NAT.
        number: its id as an integer, for distances.
    """

    node_id: NodeID
    address: Address
    seen_at: float
    misses: int = 0
    nat: bool = False
    number: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.number = int.from_bytes(self.node_id, "big")

    @property
    def suspect(self) -> bool:
        """Whether walks should avoid it for now."""
        return self.misses > 0

    def callable_at(self, now: float) -> bool:
        """Tell whether a call gets in: it is open, or its NAT's binding towards us surely is."""
        return not self.nat or now - self.seen_at < limits.NAT_BINDING_S


@define
class _Bucket:
    size: int
    entries: dict[NodeID, Neighbour] = field(factory=dict)
    replacements: OrderedDict[NodeID, Neighbour] = field(factory=OrderedDict)
    changed_at: float = 0.0
    held: int = 0
    wait_s: float = 0.0

    def due_at(self) -> float:
        """Return when it is looked through again."""
        full = len(self.entries) >= self.size
        return self.changed_at + (limits.BUCKET_REFRESH_S if full else self.wait_s)

    def looked_through(self, now: float) -> None:
        """Note that it is being looked through; the next time depends on what the last brought."""
        grew = len(self.entries) > self.held
        self.wait_s = limits.BUCKET_GROW_S if grew else self.wait_s * 4 or limits.BUCKET_GROW_S
        self.wait_s = min(self.wait_s, limits.BUCKET_REFRESH_S)
        self.held = len(self.entries)
        self.changed_at = now


@define
class RoutingTable:
    """Neighbours of one address family.

    Args:
        own_id: the node whose table this is.
    """

    own_id: NodeID
    _buckets: list[_Bucket] = field(init=False)
    _by_address: dict[Address, Neighbour] = field(init=False, factory=dict)
    _subnets: dict[bytes, int] = field(init=False, factory=dict)
    _log2_reach: float | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        sizes = limits.BUCKET_SIZES
        self._buckets = [
            _Bucket(sizes[min(depth, len(sizes) - 1)]) for depth in range(ID_BYTES * 8)
        ]

    def __len__(self) -> int:
        return len(self._by_address)

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(list(self._by_address.values()))

    def get(self, address: Address) -> Neighbour | None:
        """Return the neighbour at ``address``."""
        return self._by_address.get(address)

    def verified(
        self, node_id: NodeID, address: Address, now: float, nat: bool | None = None
    ) -> bool:
        """Note that the node at ``address`` answered or proved itself; True if it is in the table.

        A node seen under a new address keeps its old entry while that one still answers.

        Args:
            node_id: as it says.
            address: where it is.
            now: seconds.
            nat: whether it says that it is behind a NAT; ``None`` if it said nothing of that.
        """
        if node_id == self.own_id:
            return False
        bucket = self._bucket(node_id)
        entry = bucket.entries.get(node_id)
        if entry is not None and entry.address == address:
            entry.seen_at, entry.misses = now, 0
            return nat is None or nat == entry.nat or self._turned(entry, nat=nat)
        at_address = self._by_address.get(address)
        if nat is None:  # it moved within its NAT, or restarted there
            nat = any(known is not None and known.nat for known in (entry, at_address))
        if at_address is not None:  # restarted with another key, or somebody else's turn there
            self._remove(at_address)
        if entry is not None:
            if not entry.suspect and entry.callable_at(now):
                return False
            self._remove(entry)
        newcomer = Neighbour(node_id, address, now, nat=nat)
        if self._room(bucket, newcomer) or self._make_room(bucket, newcomer):
            self._insert(bucket, newcomer)
            return True
        if newcomer.nat:
            return False
        bucket.replacements[node_id] = newcomer
        bucket.replacements.move_to_end(node_id)
        if len(bucket.replacements) > limits.REPLACEMENTS:
            bucket.replacements.popitem(last=False)
        return False

    def missed(self, address: Address) -> None:
        """Note that the node at ``address`` left a call unanswered; the third time it goes."""
        entry = self._by_address.get(address)
        if entry is None:
            return
        entry.misses += 1
        if entry.misses < limits.MISSES_DEAD:
            return
        bucket = self._bucket(entry.node_id)
        self._remove(entry)
        while bucket.replacements:
            _, candidate = bucket.replacements.popitem()
            if candidate.address not in self._by_address and self._room(bucket, candidate):
                self._insert(bucket, candidate)
                return

    def closest(
        self,
        key: bytes,
        count: int,
        accept: Callable[[Neighbour], bool] = lambda _entry: True,
    ) -> list[Neighbour]:
        """Return up to ``count`` accepted neighbours, nearest to ``key`` first.

        Args:
            key: 20 bytes; distance is XOR as a big-endian integer.
            count: 1 to ``limits.NEIGHBOURS``.
            accept: which neighbours count.

        Raises:
            LocalProtocolError: ``count`` out of range.

        Source: Kademlia (Maymounkov and Mazieres 2002), section 2.1.
        """
        if not 1 <= count <= limits.NEIGHBOURS:
            raise LocalProtocolError(f"closest() of {count} neighbours")
        target = int.from_bytes(key, "big")
        ranked = sorted([(entry.number ^ target, entry) for entry in self._by_address.values()])
        return list(islice((entry for _, entry in ranked if accept(entry)), count))

    def stale_buckets(self, now: float) -> list[int]:
        """Return the depths, up to the deepest in use, of buckets that are to be looked through.

        Full ones are when nothing changed for a refresh period; others sooner, while that helps.
        """
        deepest = max((d for d, b in enumerate(self._buckets) if b.entries), default=-1)
        return [depth for depth in range(deepest + 1) if now >= self._buckets[depth].due_at()]

    def wants(self, entry: NodeEntry) -> bool:
        """Tell whether a node somebody named is unknown and its bucket has a free place."""
        bucket = self._bucket(entry.node_id)
        known = entry.node_id in bucket.entries or entry.address in self._by_address
        return not known and len(bucket.entries) < bucket.size

    def refreshed(self, depth: int, now: float) -> None:
        """Note that bucket ``depth`` is being looked through."""
        self._buckets[depth].looked_through(now)

    def size_estimate(self) -> float:
        """Estimate how many nodes the network has from how near the nearest sixteen are."""
        nearest = self.closest(self.own_id, 16)
        if not nearest:
            return 1.0
        reach = distance(nearest[-1].node_id, self.own_id)
        return max(float(len(self)), len(nearest) * 2.0**160 / max(reach, 1))

    def log2_reach(self) -> float:
        """Return log2 of the distance within which about ``limits.STORERS`` nodes live."""
        if self._log2_reach is None:
            nodes = max(self.size_estimate(), 1.0)
            self._log2_reach = 160 + math.log2(limits.STORERS) - math.log2(nodes)
        return self._log2_reach

    def _bucket(self, node_id: NodeID) -> _Bucket:
        return self._buckets[min(shared_prefix_bits(node_id, self.own_id), ID_BYTES * 8 - 1)]

    def _room(self, bucket: _Bucket, newcomer: Neighbour, without: Neighbour | None = None) -> bool:
        """Tell whether there is a place for ``newcomer``; ``without`` counts as gone."""
        if newcomer.nat and self._nats() >= limits.NAT_PER_TABLE:
            return False
        gone = without is not None
        near = without is not None and without.node_id in bucket.entries
        if len(bucket.entries) - near >= bucket.size or len(self) - gone >= limits.NEIGHBOURS:
            return False
        subnet = subnet_key(newcomer.address)
        if subnet is None or subnet not in self._subnets:
            return True
        mate = without is not None and subnet_key(without.address) == subnet
        if self._subnets.get(subnet, 0) - mate >= limits.SUBNET_PER_TABLE:
            return False
        here = sum(1 for entry in bucket.entries.values() if subnet_key(entry.address) == subnet)
        return here - (near and mate) < limits.SUBNET_PER_BUCKET

    def _make_room(self, bucket: _Bucket, newcomer: Neighbour) -> bool:
        """Let an open newcomer have a place of an entry behind a NAT, the longest unheard first."""
        if newcomer.nat:
            return False
        hidden = [entry for entry in self._by_address.values() if entry.nat]
        for entry in sorted(hidden, key=lambda entry: entry.seen_at):
            if self._room(bucket, newcomer, without=entry):
                self._remove(entry)
                return True
        return False

    def _turned(self, entry: Neighbour, *, nat: bool) -> bool:
        """Take what an entry now says of itself; False if that costs it its place."""
        if nat and self._nats() >= limits.NAT_PER_TABLE:
            self._remove(entry)
            return False
        entry.nat = nat
        return True

    def _nats(self) -> int:
        return sum(entry.nat for entry in self._by_address.values())

    def _insert(self, bucket: _Bucket, entry: Neighbour) -> None:
        bucket.entries[entry.node_id] = entry
        bucket.replacements.pop(entry.node_id, None)
        if len(bucket.entries) >= bucket.size:
            bucket.changed_at = entry.seen_at
        self._log2_reach = None
        self._by_address[entry.address] = entry
        subnet = subnet_key(entry.address)
        if subnet is not None:
            self._subnets[subnet] = self._subnets.get(subnet, 0) + 1

    def _remove(self, entry: Neighbour) -> None:
        del self._bucket(entry.node_id).entries[entry.node_id]
        self._log2_reach = None
        del self._by_address[entry.address]
        subnet = subnet_key(entry.address)
        if subnet is not None:
            self._subnets[subnet] -= 1
            if not self._subnets[subnet]:
                del self._subnets[subnet]


@define
class Neighbourhood:
    """The routing tables of both address families as one (BEP 32 keeps them apart, and so do we).

    Args:
        own_id: the node whose tables these are.
    """

    own_id: NodeID
    ipv4: RoutingTable = field(init=False)
    ipv6: RoutingTable = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ipv4 = RoutingTable(self.own_id)
        self.ipv6 = RoutingTable(self.own_id)

    def __len__(self) -> int:
        return len(self.ipv4) + len(self.ipv6)

    def __iter__(self) -> Iterator[Neighbour]:
        yield from self.ipv4
        yield from self.ipv6

    def table(self, address: Address) -> RoutingTable:
        """Return the table of the family of ``address``."""
        return self.ipv6 if is_ipv6(address) else self.ipv4

    def verified(
        self, node_id: NodeID, address: Address, now: float, nat: bool | None = None
    ) -> bool:
        """See :meth:`RoutingTable.verified`."""
        return self.table(address).verified(node_id, address, now, nat)

    def missed(self, address: Address) -> None:
        """See :meth:`RoutingTable.missed`."""
        self.table(address).missed(address)

    def get(self, address: Address) -> Neighbour | None:
        """See :meth:`RoutingTable.get`; a call less, as every datagram asks."""
        return (self.ipv6 if ":" in address.host else self.ipv4).get(address)
