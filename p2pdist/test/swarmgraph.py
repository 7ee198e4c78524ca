"""A swarm as a graph: the production policy (circle, targets, pex) without sockets.

Job: fixture only. A call is answered at once, what a peer tells arrives at once, and the overlay is
a draw among those who came earlier, with its bounds. Tests: used by ``test_circle``.
"""

from __future__ import annotations

import random
from functools import lru_cache

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, scope
from p2pdist.ids import NodeID
from p2pdist.swarm.circle import Circle
from p2pdist.swarm.messages import PeerFlag, Peers
from p2pdist.swarm.pex import Hearsay, Telling
from p2pdist.swarm.targets import Target, Targets

SLOTS = 3
"""Peers a node moves pieces with in one tick."""


@lru_cache(maxsize=4096)
def node_id(number: int) -> NodeID:
    """Return the id of the node with this number."""
    return NodeID(number.to_bytes(20, "big"))


@lru_cache(maxsize=4096)
def address(node: NodeID) -> Address:
    """Return where a node is."""
    return Address(".".join(map(str, (10, *node[-3:]))), 7667)


def node_at(told: Address) -> NodeID:
    """Return who is at an address."""
    return NodeID(bytes(17) + bytes(map(int, told.host.split(".")[1:])))


@define
class Link:
    """One side of a connection; see :class:`p2pdist.swarm.circle.Kept`."""

    outgoing: bool
    useful_at: float = 0.0
    room: bool = True


@define(eq=False)
class Point:
    """One node: the production policy and nothing else.

    Attributes:
        links: by the id of the other node.
        telling: likewise.
        joined: whom the overlay joined, by either side.
    """

    graph: Graph
    node_id: NodeID
    rng: random.Random
    circle: Circle = field(factory=Circle)
    targets: Targets = field(init=False)
    hearsay: Hearsay = field(init=False)
    links: dict[NodeID, Link] = field(factory=dict)
    telling: dict[NodeID, Telling] = field(factory=dict)
    joined: dict[NodeID, None] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.targets = Targets(self.rng)
        self.hearsay = Hearsay(self.rng)

    @property
    def address(self) -> Address:
        """Where it is."""
        return address(self.node_id)

    # --- the overlay ---

    def offered(self, node: NodeID) -> None:
        """Join a node somebody named, as the overlay does: if it lives, and both have room."""
        other = self.graph.nodes.get(node)
        if other is None or other is self or node in self.joined:
            return
        if len(self.joined) < limits.JOINED_PEERS and len(other.joined) < limits.STATUS_PEERS:
            self.met(other, 0.0)
            other.met(self, limits.DIAL_WAIT_S)

    def met(self, other: Point, wait_s: float) -> None:
        """A node is joined."""
        self.joined[other.node_id] = None
        self.hearsay.joined(other.address)
        self.targets.add(other.address, other.node_id, self.graph.now + wait_s)

    def forget(self, node: NodeID) -> None:
        """The overlay lost a node."""
        self.joined.pop(node, None)
        self.targets.remove(node)

    # --- connections ---

    def connect(self, other: Point, *, outgoing: bool) -> None:
        """A connection is there."""
        self.links[other.node_id] = Link(outgoing, self.graph.now)
        self.telling[other.node_id] = Telling(scope(other.address))
        self.hearsay.met(other.node_id, other.address, self.graph.now)

    def lose(self, node: NodeID) -> None:
        """It is gone."""
        del self.links[node], self.telling[node]
        target = self.targets.get(node)
        if target is not None:
            self.targets.later(target, self.graph.now)

    def part(self, node: NodeID) -> None:
        """Close a connection for another."""
        self.targets.put_off(node, self.graph.now)
        self.lose(node)
        self.graph.nodes[node].lose(self.node_id)

    def waiting(self) -> list[Target]:
        """Return those that could be called."""
        due = self.targets.due(self.graph.now)
        return [target for target in due if target.node_id not in self.links]

    def call(self, target: Target) -> None:
        """Call a node: it may be dead, or have no room and name others."""
        now, other = self.graph.now, self.graph.nodes.get(target.node_id)
        if other is None:
            self.targets.later(target, now)
            if not target.hopeful:
                self.forget(target.node_id)  # the overlay finds out too
            return
        welcome, goes = other.circle.admit(other.links, now, outgoing=False)
        if goes is not None:
            other.part(goes)
        if welcome:
            self.connect(other, outgoing=True)
            other.connect(self, outgoing=False)
        else:
            self.targets.later(target, now)
            self.hearsay.met(other.node_id, other.address, now)
            others = Telling(scope(self.address)).news(other.view(), None, now, room=False)
            assert others is not None, "that there is no room is news"
            self.hearsay.heard(other.node_id, others, now)

    # --- a tick ---

    def tick(self) -> None:
        """Do what a roster does in a tick; some peers are of use meanwhile."""
        now, links = self.graph.now, self.links.values()
        self.work(now)
        goes = self.circle.replace(self.links, now, lambda: bool(self.waiting()))
        if goes is not None:
            self.part(goes)
        for target in self.waiting() if self.circle.calls(links, 0) else ():
            if self.circle.calls(links, 0):
                self.call(target)
        self.tell(now)
        hopeful = [target for target in self.targets.all() if target.hopeful]
        waiting = sum(target.node_id not in self.links for target in hopeful)
        known = {target.address for target in self.targets.all()}
        lack = self.circle.lack(links, waiting)
        for told in self.hearsay.draw(lack, now, lambda told: told not in known):
            self.offered(node_at(told))

    def work(self, now: float) -> None:
        """Move pieces with some peers."""
        for node in self.rng.sample(list(self.links), min(SLOTS, len(self.links))):
            other = self.graph.nodes[node]
            self.links[node].useful_at = other.links[self.node_id].useful_at = now
            other.hearsay.received(self.node_id, limits.BLOCK_BYTES)

    def view(self) -> dict[Address, PeerFlag]:
        """Return who can be told of."""
        return {
            address(node): PeerFlag.REACHED if link.outgoing else PeerFlag(0)
            for node, link in self.links.items()
            if link.room
        }

    def tell(self, now: float) -> None:
        """Tell each peer of the others."""
        view, room = self.view(), self.circle.room(self.links.values())
        for node, telling in self.telling.items():
            news = telling.news(view, address(node), now, room=room)
            if news is not None:
                self.graph.nodes[node].heard(self.node_id, news)

    def heard(self, node: NodeID, news: Peers) -> None:
        """A peer tells of others."""
        self.links[node].room = news.room
        self.hearsay.heard(node, news, self.graph.now)


class Graph:
    """A swarm.

    Args:
        seed: of all chance in it.

    Attributes:
        nodes: those that live.
        now: the time.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.nodes: dict[NodeID, Point] = {}
        self.now = 0.0
        self._next = 1

    def arrive(self, count: int, *, found: int) -> None:
        """So many come; the overlay offers each so many of those that are there."""
        for _ in range(count):
            here = list(self.nodes)
            point = Point(self, node_id(self._next), random.Random(self.rng.random()))
            self.nodes[point.node_id] = point
            self._next += 1
            for node in self.rng.sample(here, min(found, len(here))):
                point.offered(node)

    def die(self, count: int) -> list[Point]:
        """So many crash, and half of the overlay hears of it at once; return who stays."""
        for node in self.rng.sample(list(self.nodes), count):
            point = self.nodes.pop(node)
            for other in point.links:
                self.nodes[other].lose(node)
            for other in point.joined:
                if other in self.nodes and self.rng.random() < 0.5:
                    self.nodes[other].forget(node)
        return list(self.nodes.values())

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now += limits.TICK_S
            for point in self.rng.sample(list(self.nodes.values()), len(self.nodes)):
                point.tick()

    def degrees(self) -> tuple[int, int]:
        """Return the fewest and the most connections of a node."""
        counts = [len(point.links) for point in self.nodes.values()]
        return min(counts), max(counts)

    def diameter(self) -> int | None:
        """Return the longest of the shortest ways, or ``None`` if not all are connected."""
        place = {node: index for index, node in enumerate(self.nodes)}
        ways = [[place[other] for other in point.links] for point in self.nodes.values()]
        reached = [1 << index for index in range(len(ways))]
        steps, whole = 0, (1 << len(ways)) - 1
        while any(mask != whole for mask in reached):
            further = list(reached)
            for index, others in enumerate(ways):
                for other in others:
                    further[index] |= reached[other]
            if further == reached:
                return None
            reached, steps = further, steps + 1
        return steps
