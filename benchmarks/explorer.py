"""One node that looks up topics and times it, on real sockets or simulated ones.

The node is the production service. As a program (``explorer.py PLAN NUMBER``) it runs on the real
reactor: it says ``ready``, waits for a line with the moment of the plan's beginning, and prints
what it saw as one JSON object.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sys
import threading
import time
from typing import Any

import common  # noqa: F401 -- makes p2pdist importable
from attrs import asdict, define, evolve, field, frozen
from netlab import address
from twisted.internet.defer import Deferred

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.config import Config
from p2pdist.faces.process import run_until_done
from p2pdist.ids import HashKey, Topic
from p2pdist.keys import topic_of
from p2pdist.machine import Machine
from p2pdist.overlay.membership import JoinedPeer, Membership
from p2pdist.overlay.messages import Reply, Status
from p2pdist.overlay.search import Search
from p2pdist.service import P2PDistService
from p2pdist.simulation.terrain import Terrain


@frozen(kw_only=True)
class Plan:
    """What all nodes do and when; times are seconds from the beginning.

    Attributes:
        seed: of the terrain, the node ids and all choices.
        nodes: how many; number 0 is everybody's bootstrap node and in no swarm.
        topics: how many.
        members: seeds of each topic.
        lookups: of each node but the bootstrap, one after the other.
        loss: share of datagrams lost.
        start_s: the nodes start within so many seconds.
        publish_at: when the seeds become members, within as many seconds.
        search_at: when the lookups begin.
        search_every_s: between two lookups of one node.
    """

    seed: int
    nodes: int
    topics: int
    members: int
    lookups: int
    loss: float
    start_s: float
    publish_at: float
    search_at: float
    search_every_s: float

    def chance(self, *names: object) -> random.Random:
        """Return a stream of chance, the same in every process."""
        return random.Random("/".join(str(name) for name in (self.seed, *names)))

    def hash_key(self, topic: int) -> HashKey:
        """Return the content's key of a topic."""
        return HashKey(hashlib.sha256(b"topic %d %d" % (self.seed, topic)).digest())

    def seeds(self, topic: int) -> list[int]:
        """Return the nodes that have a topic's content."""
        return self.chance("seeds", topic).sample(range(1, self.nodes), self.members)

    def wanted(self, number: int) -> list[int]:
        """Return the topics a node looks up, in order; it has none of them."""
        foreign = [t for t in range(self.topics) if number not in self.seeds(t)]
        return self.chance("wanted", number).choices(foreign, k=self.lookups)

    @property
    def search_end(self) -> float:
        """When every lookup is over."""
        return self.search_at + self.lookups * self.search_every_s + limits.LOOKUP_S + 1


@define
class Sight:
    """What one node saw.

    Attributes:
        neighbours: in its routing table when the lookups began.
        found_s: of each lookup, seconds until the first peer was offered; ``None``: none was.
        answered: lookups of which an offered peer answered a ping.
        extra_rtt_s: how much longer than the terrain's the measured round trips were.
        bugs: datagrams that met one.
    """

    neighbours: int = 0
    found_s: list[float | None] = field(factory=list)
    answered: int = 0
    extra_rtt_s: list[float] = field(factory=list)
    bugs: int = 0


class Unmoved:
    """Membership events that interest nobody."""

    def peer_offered(self, address: Address) -> None:
        """See :class:`~p2pdist.overlay.membership.MembershipEvents`."""

    def peer_joined(self, peer: JoinedPeer, *, by_us: bool) -> None:
        """See there."""

    def peer_left(self, peer: JoinedPeer) -> None:
        """See there."""

    def search_over(self, *, found: bool, asked: int) -> None:
        """See there."""


@define(eq=False)
class Explorer:
    """One node of the plan.

    Args:
        plan: shared by all.
        number: of this node.
        machine: whose reactor, real or simulated.

    Attributes:
        sight: what it saw so far.
        done: fires with it once the node is stopped.
    """

    plan: Plan
    number: int
    machine: Machine
    sight: Sight = field(init=False, factory=Sight)
    done: Deferred[Sight] = field(init=False, factory=Deferred)
    _service: P2PDistService = field(init=False)
    _members: list[Membership] = field(init=False, factory=list)
    _last: Search | None = field(init=False, default=None)

    def begin(self, in_s: float) -> None:
        """Carry out the plan, which begins in ``in_s`` seconds."""
        plan, number = self.plan, self.number
        # Ids are the same in every run: the entropy's first 32 bytes make the node's key.
        chance = plan.chance("node", number)
        machine = evolve(self.machine, entropy=chance.randbytes)
        bootstrap = () if number == 0 else (HostPort(address(0), limits.DEFAULT_PORT),)
        config = Config(nodes=bootstrap, listen=(address(number),), lan=False)
        self._service = P2PDistService(config, machine)
        later = self.machine.reactor.callLater
        later(in_s + plan.start_s * number / plan.nodes, self._service.startService)
        for topic in range(plan.topics):
            if number in plan.seeds(topic):
                key = plan.hash_key(topic)
                at = plan.publish_at + plan.start_s * chance.random()
                later(in_s + at, self._publish, key)
        later(in_s + plan.search_at, self._look_around)
        if number:
            begin = plan.search_at + plan.search_every_s * chance.random()
            for turn, topic in enumerate(plan.wanted(number)):
                at = begin + turn * plan.search_every_s
                later(in_s + at, self._look_up, topic_of(plan.hash_key(topic)))
        later(in_s + plan.search_end, self._end)

    def _publish(self, key: HashKey) -> None:
        member = Membership(self._service.overlay.network, key, Unmoved())
        member.start()
        member.set_status(Status.SEED)
        self._members.append(member)

    def _look_around(self) -> None:
        self.sight.neighbours = len(self._service.overlay.network.neighbours)

    def _look_up(self, topic: Topic) -> None:
        """Search as a membership does, but leave no trace: a LEFT accept is not stored."""
        network = self._service.overlay.network
        reactor = self.machine.reactor
        turn = len(self.sight.found_s)
        self.sight.found_s.append(None)
        began = reactor.seconds()

        def offered(peer: Address) -> None:
            if not network.approachable(peer):
                return
            if self.sight.found_s[turn] is None:
                self.sight.found_s[turn] = reactor.seconds() - began
            network.contact(peer).addCallbacks(alive, lambda _failure: None)

        def alive(_pong: Reply) -> None:
            self.sight.answered += not search.found
            search.joined()

        if self._last is not None:
            network.agenda.forget(self._last)
        search = Search(
            network,
            topic,
            me=lambda: (Status.LEFT, 0),
            candidate=offered,
            ended=network.agenda.ended,
        )
        self._last = search
        network.agenda.begin(search)

    def _end(self) -> None:
        network = self._service.overlay.network
        terrain = Terrain(self.plan.seed)
        for other in range(self.plan.nodes):
            path = network.rpc.paths.peek(Address(address(other), limits.DEFAULT_PORT))
            if path is not None and path.srtt_s is not None:
                self.sight.extra_rtt_s.append(path.srtt_s - terrain.rtt_s(self.number, other))
        self.sight.bugs = self._service.overlay.node.dropped["bug"]
        for member in self._members:
            member.stop()
        self._service.stopService().addCallback(lambda _: self.done.callback(self.sight))


def main() -> None:
    """Be one node on the real reactor."""
    plan, number = Plan(**json.loads(sys.argv[1])), int(sys.argv[2])
    print("ready", flush=True)
    beginning = float(sys.stdin.readline())

    def orphaned() -> None:
        sys.stdin.read()
        os._exit(1)  # whoever started us is gone

    threading.Thread(target=orphaned, daemon=True).start()

    def work(machine: Machine) -> Deferred[Any]:
        explorer = Explorer(plan, number, machine)
        explorer.begin(beginning - time.monotonic())
        return explorer.done

    with contextlib.suppress(KeyboardInterrupt):  # stopped before the end
        print(json.dumps(asdict(run_until_done(work))), flush=True)


if __name__ == "__main__":
    main()
