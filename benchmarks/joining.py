"""How nodes join, live with churn, and find peers among sybils: production nodes, simulated time.

Job: four worlds that ``overlay.py``'s converged ones are not. ``convergence``: a thousand nodes
really join through bootstrap nodes, and their tables are held against converged ones. ``churn``:
half of all nodes are replaced every hour, without goodbye. ``eclipse``: row M6 of the attack
matrix, 400 sybils nearest to the topic among 100 honest nodes. ``doubts``: nodes that look up many
things among black holes, and learn whom to avoid.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field
from common import Report, options
from sybils import HONEST, SYBILS, surrounded
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.errors import NodeStopped, RPCError
from p2pdist.ids import HashKey, Topic, shared_prefix_bits
from p2pdist.keys import topic_of
from p2pdist.overlay.bootstrap import Bootstrap
from p2pdist.overlay.membership import JoinedPeer, Membership
from p2pdist.overlay.messages import (
    Status,
)
from p2pdist.overlay.search import Search
from p2pdist.presence import FIND_SELF_S
from p2pdist.simulation.crowd import Crowd
from p2pdist.simulation.population import Mix, Population, Role, address_of
from p2pdist.simulation.study import Study, Summary, World, quantile, summarize
from p2pdist.simulation.terrain import Terrain
from p2pdist.simulation.timeline import KERNEL

SEED: Final = 1


def _no_names(_host: str) -> Deferred[list[str]]:
    return fail(DNSLookupError())


class Unmoved:
    """Listens to a membership and does nothing."""

    def peer_offered(self, address: Address) -> None:
        """Nothing."""

    def peer_joined(self, peer: JoinedPeer, *, by_us: bool) -> None:
        """Nothing."""

    def peer_left(self, peer: JoinedPeer) -> None:
        """Nothing."""

    def search_over(self, *, found: bool, asked: int) -> None:
        """Nothing."""


# --- nodes that live ---


@define(eq=False)
class Town(Crowd):
    """A crowd whose nodes keep house as real ones do, come and die.

    Args:
        ways_in: bootstrap nodes, the descriptor's.

    Attributes:
        living: nodes that are up, in the order they came.
    """

    ways_in: Sequence[int] = field(kw_only=True)
    living: dict[int, Bootstrap] = field(init=False, factory=dict)

    def settle(self, number: int) -> None:
        """Start a node: its way in, and its upkeep from now on."""
        self.population.roles[number] = Role.OPEN
        network = self.node(number)
        network.rpc.missed = network.neighbours.missed
        bootstrap = Bootstrap(network, self.clock, self.rng, _no_names)
        self.living[number] = bootstrap
        bootstrap.add(tuple(_entry(way) for way in self.ways_in if way != number))
        bootstrap.start()
        self._upkeep_later(number, self.rng.uniform(0.0, limits.UPKEEP_EVERY_S))
        for seconds in FIND_SELF_S:
            self.timeline.at(self.timeline.now + seconds, KERNEL, self._find_self, number)

    def _find_self(self, number: int) -> None:
        """Look for the node's own id, as a ``Presence`` has it done."""
        if number in self.living:
            network = self.node(number)
            network.converge(network.node_id, limits.STORERS).addErrback(_quiet)

    def inhabit(self, number: int) -> None:
        """Start a node that has been here for long."""
        network = self.node(number)
        for entry in network.neighbours:
            entry.seen_at -= self.rng.uniform(0.0, limits.NEIGHBOUR_PING_S)
        self.settle(number)

    def _upkeep_later(self, number: int, seconds: float) -> None:
        self.timeline.at(self.timeline.now + seconds, KERNEL, self._upkeep, number)

    def _upkeep(self, number: int) -> None:
        if number in self.living:
            self.node(number).upkeep()
            self._upkeep_later(number, limits.UPKEEP_EVERY_S)

    def kill(self, number: int) -> None:
        """End a node without a word."""
        self.population.roles[number] = Role.DEAD
        self.living.pop(number).stop()
        self.node(number).stop()

    def _transmit(self, source: int, datagram: bytes, address: Address) -> None:
        if self.population.roles[source] is not Role.DEAD:
            Crowd._transmit(self, source, datagram, address)  # noqa: SLF001 -- its subclass

    def entries(self, number: int) -> Callable[[], list[Address]]:
        """Return what tells a membership of the descriptor's nodes."""
        ways = tuple(_entry(way) for way in self.ways_in)
        return lambda: self.living[number].answered(ways) if number in self.living else []


def _entry(number: int) -> HostPort:
    address = address_of(number)
    return HostPort(address.host, address.port)


@define(eq=False)
class Quest:
    """One lookup: found when the first of ``members`` answered a ping.

    Attributes:
        found_s: how long that took, over all rounds.
        rounds: searches it took so far.
    """

    crowd: Crowd
    number: int
    topic: Topic
    members: Callable[[], Sequence[int]]
    entries: Callable[[], Sequence[Address]] = tuple
    rounds_max: int = 1
    started: float = field(init=False)
    found_s: float | None = field(init=False, default=None)
    rounds: int = field(init=False, default=0)

    def start(self) -> None:
        """Begin."""
        self.started = self.crowd.timeline.now
        self._round()

    def _round(self) -> None:
        self.rounds += 1
        network = self.crowd.node(self.number)

        def ended(search: Search) -> None:
            network.agenda.ended(search)
            now = self.crowd.timeline.now
            self.crowd.timeline.at(now + limits.LOOKUP_S, KERNEL, network.agenda.forget, search)
            if self.found_s is None and self.rounds < self.rounds_max:
                self.crowd.timeline.at(now + limits.LOOKUP_RETRY_S[0], KERNEL, self._round)

        def offered(address: Address) -> None:
            if network.approachable(address):
                network.contact(address).addCallbacks(lambda _p: answered(address), _quiet)

        def answered(address: Address) -> None:
            if self.found_s is None and self.crowd.number(address) in self.members():
                self.found_s = self.crowd.timeline.now - self.started
                search.joined()

        search = Search(
            network,
            self.topic,
            me=lambda: (Status.LEECH, 1),
            candidate=offered,
            ended=ended,
            entries=self.entries,
        )
        network.agenda.begin(search)


def _quiet(failure: Failure) -> None:
    failure.trap(RPCError, NodeStopped)


# --- convergence ---


@define(eq=False)
class JoinedStudy(Study):
    """Lookups in a town whose nodes joined by themselves."""

    town: Town | None = None

    def __attrs_post_init__(self) -> None:
        Study.__attrs_post_init__(self)
        if self.town is not None:
            self.crowd = self.town


def _fill(town: Town) -> tuple[float, dict[int, float]]:
    """Return table sizes and bucket fills, each as a share of a converged table's."""
    really: dict[int, int] = {}
    ideally: dict[int, int] = {}
    for number in town.living:
        own = town.population.node_id(number)
        for entry in town.node(number).neighbours:
            depth = shared_prefix_bits(entry.node_id, own)
            really[depth] = really.get(depth, 0) + 1
        for other in town.population.table(number):
            depth = shared_prefix_bits(town.population.node_id(other), own)
            ideally[depth] = ideally.get(depth, 0) + 1
    shares = {depth: really.get(depth, 0) / count for depth, count in sorted(ideally.items())}
    return sum(really.values()) / sum(ideally.values()), shares


def convergence(report: Report, quick: bool) -> None:
    """Let nodes join, look into their tables, then look things up."""
    nodes, minutes, lookups = (120, 3, 200) if quick else (1000, 6, 1000)
    world = World(mix=Mix(nodes=nodes, dead=0.0), seed=SEED)
    plain = Study(world)
    plain.run(lookups)
    base = summarize(plain.lookups)
    for ways in (3,) if quick else (1, 3):
        population = Population(world.mix, SEED)
        town = Town(
            population,
            Terrain(SEED),
            SEED,
            converged=False,
            ways_in=range(0, nodes, nodes // ways)[:ways],
        )
        for number in range(nodes):
            town.timeline.at(town.rng.uniform(0.0, 60.0), KERNEL, town.settle, number)
        name = f"{nodes} nodes joined through {ways}"
        for minute in range(1, minutes + 1):
            town.timeline.run(60.0)
            if minute in {3, minutes}:
                share, buckets = _fill(town)
                target = 0.9 if minute == minutes else None
                report.add(
                    f"{name}: table after {minute} min", share, "of converged", at_least=target
                )
        for depth, bucket in buckets.items():
            if depth < 7:
                report.add(f"{name}: bucket {depth}", bucket, "of converged")
        study = JoinedStudy(world, population, town=town)
        study.run(lookups)
        _compare(report, name, summarize(study.lookups), base)


def _compare(report: Report, name: str, real: Summary, base: Summary) -> None:
    report.add(f"{name}: lookups that succeed", 100 * real.success, "%", at_least=99.9)
    report.add(f"{name}: p50, pre-filled", base.p50_ms, "ms")
    report.add(f"{name}: p50 against pre-filled", real.p50_ms / base.p50_ms, "x", at_most=1.15)
    report.add(f"{name}: p99 against pre-filled", real.p99_ms / base.p99_ms, "x")
    report.add(f"{name}: packets, upkeep apart", real.packets / base.packets, "x")


# --- churn ---


@define(eq=False)
class Churn:
    """Nodes that are replaced, and topics whose members are among them."""

    town: Town
    unborn: list[int]
    rng: random.Random
    topics: dict[HashKey, dict[int, Membership]] = field(init=False, factory=dict)
    quests: list[Quest] = field(init=False, factory=list)
    deaths: int = field(init=False, default=0)

    def member(self, key: HashKey) -> None:
        """Make a random node a member."""
        members = self.topics.setdefault(key, {})
        number = self._anybody(members)
        town = self.town
        joined = Membership(town.node(number), key, Unmoved(), entries=town.entries(number))
        members[number] = joined
        joined.start()
        joined.set_status(Status.SEED)

    def _anybody(self, but: dict[int, Membership]) -> int:
        ways = self.town.ways_in
        return self.rng.choice([n for n in self.town.living if n not in but and n not in ways])

    def replace(self, every_s: float) -> None:
        """Let a node die and another one come, again and again."""
        town = self.town
        dying = self._anybody({})
        town.kill(dying)
        self.deaths += 1
        if self.unborn:
            town.converged = False
            town.settle(self.unborn.pop())
        for key, members in self.topics.items():
            if members.pop(dying, None) is not None:
                self.member(key)
        again = town.timeline.now + self.rng.expovariate(1 / every_s)
        town.timeline.at(again, KERNEL, self.replace, every_s)

    def look(self) -> None:
        """Look up a random topic from a random node."""
        key = self.rng.choice(list(self.topics))
        members = self.topics[key]
        number = self._anybody(members)
        entries = self.town.entries(number)
        quest = Quest(self.town, number, topic_of(key), lambda: list(members), entries)
        self.quests.append(quest)
        quest.start()


def churn(report: Report, quick: bool) -> None:
    """Replace half of all nodes every hour, and look for members all the time."""
    nodes, topics, minutes, lookups = (120, 10, 3, 200) if quick else (1000, 30, 20, 2400)
    every_s = 3600 / (nodes / 2)
    rng = random.Random(f"{SEED}/churn")
    unborn = round(minutes * 60 / every_s * 1.3) + 5
    total = nodes + unborn
    population = Population(Mix(nodes=total, dead=0.0), SEED)
    later = rng.sample(range(1, total), unborn)
    for number in later:
        population.roles[number] = Role.DEAD
    open_ = population.living(Role.OPEN)
    town = Town(population, Terrain(SEED), SEED, ways_in=open_[:: nodes // 3][:3])
    for number in open_:
        town.inhabit(number)
    scene = Churn(town, later, rng)
    for _ in range(topics):
        key = HashKey(rng.randbytes(32))
        for _ in range(10):
            scene.member(key)
    town.timeline.run(60.0)
    scene.replace(every_s)
    before = town.tally.packets
    for _ in range(lookups):
        town.timeline.run((minutes - 1) * 60 / lookups)
        scene.look()
    town.timeline.run(limits.LOOKUP_S + 5)
    name = f"churn, {nodes} nodes"
    quests = [
        quest for quest in scene.quests if quest.number in town.living or quest.found_s is not None
    ]
    found = [quest.found_s * 1e3 for quest in quests if quest.found_s is not None]
    report.add(f"{name}: replaced", scene.deaths, "nodes")
    report.add(f"{name}: lookups", len(quests), "")
    report.add(f"{name}: find a live peer", 100 * len(found) / len(quests), "%", at_least=99.9)
    report.add(f"{name}: live peer p50", quantile(found, 0.5), "ms")
    report.add(f"{name}: live peer p99", quantile(found, 0.99), "ms")
    rate = (town.tally.packets - before) / (minutes - 1) / 60 / nodes
    report.add(f"{name}: all packets", rate, "/s/node")


# --- eclipse ---

SEEDS: Final = 10


def siege(seed: int, lookups: int, *, guarded: bool) -> list[Quest]:
    """Look for honest seeds; ``guarded``: the descriptor's three nodes are alive."""
    crowd, key = surrounded(seed)
    rng = crowd.rng
    sybils = frozenset(crowd.sybils)
    honest = [n for n in range(HONEST + SYBILS) if n not in sybils]
    ways_in = rng.sample(honest, 3)
    entries = [address_of(way) for way in ways_in] if guarded else []
    for way in ways_in:
        crowd.population.roles[way] = Role.OPEN if guarded else Role.DEAD
    others = [n for n in honest if n not in ways_in]
    seeds = rng.sample(others, SEEDS)
    for number in seeds:
        member = Membership(crowd.node(number), key, Unmoved(), entries=lambda: entries)
        member.start()
        member.set_status(Status.SEED)
    crowd.timeline.run(120.0)
    quests = []
    initiators = [n for n in others if n not in seeds]
    for step in range(lookups):
        number = initiators[step % len(initiators)]
        quest = Quest(crowd, number, topic_of(key), lambda: seeds, lambda: entries, rounds_max=3)
        quests.append(quest)
        quest.start()
        crowd.timeline.run(1.0)
    crowd.timeline.run(3 * (limits.LOOKUP_S + limits.LOOKUP_RETRY_S[0]))
    return quests


def eclipse(report: Report, quick: bool) -> None:
    """Row M6 of the attack matrix."""
    worlds, each = (1, 60) if quick else (10, 100)
    for guarded in (True, False):
        quests: list[Quest] = []
        for seed in range(worlds):
            quests += siege(SEED + seed, each, guarded=guarded)
        found = [quest for quest in quests if quest.found_s is not None]
        name = "eclipse" if guarded else "eclipse, descriptor's nodes dead"
        share = 100 * len(found) / len(quests)
        first = sum(quest.rounds == 1 for quest in found)
        report.add(f"{name}: find a seed", share, "%", at_least=99 if guarded else None)
        report.add(f"{name}: in the first round", 100 * first / len(quests), "%")
        report.add(
            f"{name}: p50", quantile([q.found_s * 1e3 for q in found if q.found_s], 0.5), "ms"
        )


# --- doubts ---


def doubts(report: Report, quick: bool) -> None:
    """Let ten nodes look up one thing after the other among 25 % black holes."""
    nodes, worlds, lookups = (400, 1, 600) if quick else (1000, 2, 2000)
    studies = []
    for seed in range(SEED, SEED + worlds):
        mix = Mix(nodes=nodes, dead=0.1, black_holes=0.25)
        study = Study(World(mix=mix, initiators=10, seed=seed))
        study.run(lookups)
        studies.append(study)
    for what, part in (
        ("first tenth", slice(0, lookups // 10)),
        ("last half", slice(lookups // 2, lookups)),
    ):
        some = summarize([lookup for study in studies for lookup in study.lookups[part]])
        name = f"10 initiators among {nodes} nodes, 25 % black holes, {what} of {lookups} lookups"
        report.add(f"{name}: p50", some.p50_ms, "ms")
        report.add(f"{name}: p99", some.p99_ms, "ms")
        report.add(f"{name}: packets, p99", some.packets_p99, "")


def measure(report: Report, quick: bool) -> None:
    """Add all rows."""
    for part in (convergence, churn, eclipse, doubts):
        part(report, quick)


def main() -> None:
    """Run all and print the figures."""
    chosen = options(__doc__)
    report = Report(SEED)
    measure(report, chosen.quick)
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
