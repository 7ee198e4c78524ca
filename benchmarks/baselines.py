"""Three other ways to find peers, simulated in the same world as p2pdist, without its code.

Each runs the very lookups a `Study` of the same `World` draws (same ids, roles, distances, topics,
members, initiators), datagram by datagram, and fills in the same `Lookup`, so that `summarize` of
`p2pdist.simulation.study` serves all. Every datagram counts, lost ones too, with 28 bytes of
headers.

* `Flood`: a question to everybody. Random graph with 8 links a node, duplicates suppressed, time to
  live log8(N) + 2, each link stop-and-wait with 3 tries of 1 s; a holder answers the initiator
  directly and does not pass the question on.
* `Kademlia`, BEP 5: alpha 3, k 8, closest 8 in each reply. A question unanswered for `slot_s` frees
  its slot; it is not repeated, but a late answer counts. It ends with the first values, which is
  the most favourable reading of BEP 5.
* `Kademlia`, tuned: slots of 0.3 s, and silent nodes are asked again when nobody new is near.

Favours to them: values count at once, while p2pdist's success waits for a peer's answer; and a node
behind a NAT hears everybody in its table and everybody who has it in theirs, though nothing in
BEP 5 keeps those bindings open (unless `kept_open` is false). Liars are simulated as black holes.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import insort
from collections.abc import Callable, Sequence
from typing import Any, Final

import common  # noqa: F401 -- makes p2pdist importable
from attrs import define, field, frozen

from p2pdist import limits
from p2pdist.ids import ID_BYTES, Topic
from p2pdist.simulation.crowd import HEADERS_BYTES
from p2pdist.simulation.population import Population, Role
from p2pdist.simulation.study import Lookup, World
from p2pdist.simulation.terrain import Terrain

BEP5_BUCKETS: Final = (8,)
K: Final = 8
DEGREE: Final = 8
TRIES: Final = 3
RESEND_S: Final = 1.0
FLOOD_QUERY_BYTES: Final = 117
FLOOD_ACK_BYTES: Final = 48
"""On the wire, of the study behind `docs/protocol.md`: a msgpack get_peers, and its id alone."""
FLOOD_OFFER_BYTES: Final = HEADERS_BYTES + 20 + 12
"""A node's id and the query's; 6 more for each peer."""


def bencode(value: object) -> bytes:
    """Return ``value`` (bytes, list, or dict with sorted bytes keys) as BEP 3 writes it."""
    if isinstance(value, list):
        return b"l%se" % b"".join(map(bencode, value))
    if isinstance(value, dict):
        return b"d%se" % b"".join(bencode(k) + bencode(v) for k, v in value.items())
    assert isinstance(value, bytes)
    return b"%d:%s" % (len(value), value)


def _krpc(**body: object) -> int:
    """Return the wire bytes of a KRPC datagram with a transaction id and a client version."""
    tail = {"t": b"aa", "v": b"PD01"}
    kind = b"q" if "q" in body else b"r"
    message = {k.encode(): v for k, v in {**body, **tail, "y": kind}.items()}
    return len(bencode(message)) + HEADERS_BYTES


QUERY_BYTES: Final = _krpc(a={b"id": bytes(20), b"info_hash": bytes(20)}, q=b"get_peers")
"""132: 104 of payload."""


def reply_bytes(nodes: int, peers: int) -> int:
    """Return the wire bytes of a get_peers reply: 332 with 8 nodes, 470 with 16 peers as well.

    With the requester's `ip` (BEP 42), as most nodes send today.
    """
    body: dict[bytes, object] = {b"id": bytes(20), b"nodes": bytes(26 * nodes), b"token": bytes(8)}
    if peers:
        body[b"values"] = [bytes(6)] * peers
    return _krpc(ip=bytes(6), r=body)


@define(eq=False)
class Arena:
    """One world, with what all its lookups share.

    Args:
        world: what is simulated.
        bucket_sizes: of everybody's tables.
        storers: nodes that were told of each topic's members.
        kept_open: NATs let in everybody in the table of the node behind, and whose table it is in.
    """

    world: World
    bucket_sizes: Sequence[int] = limits.BUCKET_SIZES
    storers: int = limits.STORERS
    kept_open: bool = True
    population: Population = field(init=False)
    terrain: Terrain = field(init=False)
    chance: random.Random = field(init=False)
    _draws: random.Random = field(init=False)
    _open: list[int] = field(init=False)
    _initiators: list[int] = field(init=False)
    _tables: dict[int, list[int]] = field(init=False, factory=dict)
    _links: list[list[int]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        world = self.world
        self.population = Population(world.mix, world.seed, self.bucket_sizes)
        self.terrain = Terrain(world.seed, world.rtt, world.loss)
        self.chance = random.Random(f"{world.seed}/baselines")
        self._draws = random.Random(f"{world.seed}/study")  # as a Study: the same lookups
        self._open = self.population.living(Role.OPEN)
        nated = self.population.living(Role.NATED)
        self._initiators = nated if world.nated_initiators else self._open

    def draw(self) -> Lookup:
        """Choose a topic, its members, and who looks for it, exactly as `Study.draw` does."""
        topic = Topic(self._draws.randbytes(ID_BYTES))
        initiator = self._draws.choice(self._initiators)
        members = self._draws.sample(self._open, self.world.member_count + 1)
        members = [member for member in members if member != initiator]
        return Lookup(initiator, topic, members[: self.world.member_count])

    def holders(self, lookup: Lookup) -> set[int]:
        """Return who knows the topic's members: they themselves, and the nodes near to it.

        As in `Study.storers`, the told ones died since in their share, and nobody behind a NAT was
        told, for an announcing stranger does not reach it.
        """
        roles = self.population.roles
        near = self.population.closest(int.from_bytes(lookup.topic, "big"), 4 * limits.STORERS)
        told = [node for node in near if roles[node] is not Role.NATED][: self.storers]
        return {*told, *lookup.members}

    def table(self, node: int) -> list[int]:
        """Return whom a node knows."""
        table = self._tables.get(node)
        if table is None:
            table = self._tables[node] = self.population.table(node)
        return table

    def links(self, node: int) -> list[int]:
        """Return a node's links in the random graph: everybody chose half of his."""
        if not self._links:
            count = len(self.population)
            linked: list[set[int]] = [set() for _ in range(count)]
            for one in range(count):
                for other in self.chance.sample(range(count), min(DEGREE // 2, count)):
                    if other != one:
                        linked[one].add(other)
                        linked[other].add(one)
            self._links = [sorted(others) for others in linked]
        return self._links[node]


@define(eq=False)
class Play:
    """One lookup under way: its clock, its datagrams, its bill.

    Args:
        arena: where.
        lookup: is filled in.
    """

    arena: Arena
    lookup: Lookup
    now: float = field(init=False, default=0.0)
    holders: set[int] = field(init=False)
    _events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(
        init=False, factory=list
    )
    _count: int = field(init=False, default=0)
    _holes: set[tuple[int, int]] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self.holders = self.arena.holders(self.lookup)

    def run(self) -> None:
        """Play it to the end."""
        self.begin()
        events = self._events
        while events:
            self.now, _, work, arguments = heapq.heappop(events)
            work(*arguments)

    def begin(self) -> None:
        """Send the first questions."""
        raise NotImplementedError

    def after(self, delay_s: float, work: Callable[..., None], *arguments: object) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay_s, self._count, work, arguments))

    def send(
        self, source: int, target: int, size: int, work: Callable[..., None], *arguments: object
    ) -> None:
        """Send a datagram; ``work`` is what its receiver does, if it arrives."""
        arena, cost = self.arena, self.lookup.cost
        cost.packets += 1
        cost.size += size
        cost.at[source] += 1
        if self._stopped(source, target) or arena.terrain.lost(arena.chance):
            return
        delay_s = arena.terrain.one_way_s(source, target, arena.chance)
        self.after(delay_s, self._arrive, target, work, arguments)

    def _arrive(self, target: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.lookup.cost.at[target] += 1
        work(*arguments)

    def _stopped(self, source: int, target: int) -> bool:
        """Tell whether there is nobody, or a NAT that does not let ``source`` in."""
        arena = self.arena
        roles, table = arena.population.roles, arena.table
        if roles[source] is Role.NATED:
            self._holes.add((source, target))
        if roles[target] is Role.NATED:
            if (target, source) in self._holes:
                return False
            return not (arena.kept_open and (source in table(target) or target in table(source)))
        return roles[target] is Role.DEAD

    def found(self) -> None:
        """Note that the initiator has values."""
        if self.lookup.offered_s is None and self.now <= limits.LOOKUP_S:
            self.lookup.offered_s = self.lookup.alive_s = self.now


@frozen
class Rules:
    """How a Kademlia lookup asks; see the module."""

    slot_s: float = 1.0
    reask: bool = False
    alpha: int = 3


@define(eq=False)
class Kademlia(Play):
    """An iterative lookup."""

    rules: Rules
    _near: list[tuple[int, int]] = field(init=False, factory=list)  # distance to the topic, node
    _known: set[int] = field(init=False, factory=set)
    _tries: dict[int, int] = field(init=False, factory=dict)
    _slots: set[int] = field(init=False, factory=set)
    _answered: set[int] = field(init=False, factory=set)

    def begin(self) -> None:
        """Ask the nearest of the own table."""
        self._known.add(self.lookup.initiator)
        self._learn(self.arena.table(self.lookup.initiator))

    def _distance(self, node: int) -> int:
        return self.arena.population.ids[node] ^ int.from_bytes(self.lookup.topic, "big")

    def _learn(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            if node not in self._known:
                self._known.add(node)
                insort(self._near, (self._distance(node), node))
        self._ask()

    def _ask(self) -> None:
        while len(self._slots) < self.rules.alpha and self.now < limits.LOOKUP_S:
            node = self._next()
            if node is None:
                return
            self._slots.add(node)
            attempt = self._tries[node] = self._tries.get(node, 0) + 1
            self.send(self.lookup.initiator, node, QUERY_BYTES, self._answer, node)
            self.after(self.rules.slot_s, self._silent, node, attempt)

    def _next(self) -> int | None:
        """Return the nearest node not asked yet, if it is among the nearest 8 that are not silent.

        Else, by the tuned rules, the silent one nearer than those that was asked least.
        """
        window, silent = 0, []
        for _, node in self._near:
            if node not in self._tries:
                return node
            if node in self._slots or node in self._answered:
                window += 1
                if window == K:
                    break
            else:
                silent.append(node)
        if not self.rules.reask:
            return None
        return min(silent, key=self._tries.__getitem__, default=None)

    def _silent(self, node: int, attempt: int) -> None:
        if node in self._slots and self._tries[node] == attempt:
            self._slots.discard(node)
            if self.lookup.offered_s is None:
                self._ask()

    # --- at the node that was asked ---

    def _answer(self, node: int) -> None:
        closest: list[int] = []
        peers = 0
        if self.arena.population.roles[node] not in {Role.BLACK_HOLE, Role.LIAR}:
            closest = heapq.nsmallest(K, self.arena.table(node), key=self._distance)
            peers = len(self.lookup.members) if node in self.holders else 0
        size = reply_bytes(len(closest), peers)
        self.send(node, self.lookup.initiator, size, self._replied, node, closest, peers)

    # --- back at the initiator ---

    def _replied(self, node: int, closest: Sequence[int], peers: int) -> None:
        self._slots.discard(node)
        self._answered.add(node)
        if peers:
            self.found()
        if self.lookup.offered_s is None:
            self._learn(closest)


@define(eq=False)
class Flood(Play):
    """A question to everybody."""

    _seen: set[int] = field(init=False, factory=set)
    _acked: set[tuple[int, int]] = field(init=False, factory=set)

    def begin(self) -> None:
        """Ask all links."""
        hops = math.ceil(math.log(len(self.arena.population), DEGREE)) + 2
        self._seen.add(self.lookup.initiator)
        self._pass_on(self.lookup.initiator, -1, hops)

    def _pass_on(self, node: int, source: int, hops: int) -> None:
        for other in self.arena.links(node) if hops else ():
            if other != source:
                self._try(node, other, FLOOD_QUERY_BYTES, 1, self._asked, hops - 1)

    def _try(
        self,
        one: int,
        other: int,
        size: int,
        attempt: int,
        work: Callable[..., None],
        *more: object,
    ) -> None:
        """Send until it is acknowledged, three times."""
        if (one, other) in self._acked:
            return
        self.send(one, other, size, work, one, other, *more)
        if attempt < TRIES:
            self.after(RESEND_S, self._try, one, other, size, attempt + 1, work, *more)

    def _ack(self, source: int, node: int) -> None:
        self.send(node, source, FLOOD_ACK_BYTES, self._acked.add, (source, node))

    def _asked(self, source: int, node: int, hops: int) -> None:
        self._ack(source, node)
        role = self.arena.population.roles[node]
        if node in self._seen or role in {Role.BLACK_HOLE, Role.LIAR}:
            return
        self._seen.add(node)
        if node in self.holders:
            size = FLOOD_OFFER_BYTES + 6 * len(self.lookup.members)
            self._acked.discard((node, self.lookup.initiator))
            self._try(node, self.lookup.initiator, size, 1, self._offered)
        else:
            self._pass_on(node, source, hops)

    def _offered(self, finder: int, initiator: int) -> None:
        self._ack(finder, initiator)
        self.found()


@frozen
class Method:
    """A way to find peers, with the tables it runs on.

    Attributes:
        rules: of Kademlia; ``None``: flood.
        bucket_sizes: of the tables.
        storers: nodes that know each topic's members.
        kept_open: see :class:`Arena`.
    """

    rules: Rules | None
    bucket_sizes: Sequence[int] = limits.BUCKET_SIZES
    storers: int = limits.STORERS
    kept_open: bool = True

    def run(self, world: World, count: int) -> list[Lookup]:
        """Return the first ``count`` lookups of ``world``, as this method does them."""
        arena = Arena(world, self.bucket_sizes, self.storers, self.kept_open)
        lookups = [arena.draw() for _ in range(count)]
        for lookup in lookups:
            play = (
                Flood(arena, lookup) if self.rules is None else Kademlia(arena, lookup, self.rules)
            )
            play.run()
        return lookups


BEP5: Final = Rules()
TUNED: Final = Rules(slot_s=0.3, reask=True)
METHODS: Final = {
    "flood": Method(None),
    "BEP 5": Method(BEP5, BEP5_BUCKETS, K),
    "BEP 5 on our tables": Method(BEP5),
    "tuned Kademlia": Method(TUNED),
    "tuned Kademlia on BEP 5's tables": Method(TUNED, BEP5_BUCKETS, K),
    "tuned, NATs not kept open": Method(TUNED, kept_open=False),
}
