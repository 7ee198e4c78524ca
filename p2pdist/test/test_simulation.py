"""Tests of the simulator: the ground, who lives on it, who pays for what, and what it shows."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.ids import ID_BYTES, Topic
from p2pdist.overlay.reach import State
from p2pdist.overlay.routing import Neighbour
from p2pdist.simulation.crowd import HEADERS_BYTES, KEEPALIVE_S, Crowd, Tally
from p2pdist.simulation.population import BITS, Mix, Population, Role, address_of
from p2pdist.simulation.study import Lookup, Study, World, quantile, summarize
from p2pdist.simulation.terrain import MEDIAN_S, MODELS, Terrain
from p2pdist.simulation.trace import Trace
from p2pdist.test.support import TestCase, given

KEYS = st.integers(0, 2**BITS - 1)


class TerrainTests(TestCase):
    """How far apart nodes are."""

    def test_symmetric(self):
        """There and back takes the same, in every model."""
        for model in MODELS:
            ground = Terrain(5, model)
            for a, b in ((0, 1), (7, 3), (10**6, 12)):
                self.assertEqual(ground.rtt_s(a, b), ground.rtt_s(b, a), model)

    def test_seed_decides(self):
        """The same seed gives the same distances, another one others."""
        pairs = [(n, n + 1) for n in range(50)]
        for model in MODELS:
            here, same, other = (
                [Terrain(seed, model).rtt_s(*pair) for pair in pairs] for seed in (1, 1, 2)
            )
            self.assertEqual(here, same)
            self.assertNotEqual(here, other)

    def test_median(self):
        """On the Internet half of all pairs are nearer than 60 ms, and all are some way apart."""
        ground = Terrain(1)
        times = sorted(ground.rtt_s(n, n + 1000) for n in range(4000))
        self.assertLess(abs(times[2000] - MEDIAN_S), 0.004)
        self.assertGreater(times[0], 0)

    def test_planar_triangles(self):
        """On the plane no detour is shorter than the straight way."""
        ground = Terrain(1, "planar")
        for a in range(0, 90, 3):
            there = ground.rtt_s(a, a + 1) + ground.rtt_s(a + 1, a + 2)
            self.assertGreaterEqual(there, ground.rtt_s(a, a + 2))

    def test_jitter_only_delays(self):
        """A datagram takes half of the round trip or longer."""
        ground, rng = Terrain(1), random.Random(1)
        for node in range(1, 50):
            self.assertGreater(ground.one_way_s(0, node, rng), ground.rtt_s(0, node) / 2)

    def test_loss(self):
        """So many datagrams get lost as was asked for."""
        rng, lossy, perfect = random.Random(1), Terrain(1, loss=0.25), Terrain(1, loss=0.0)
        lost = sum(lossy.lost(rng) for _ in range(4000))
        self.assertLess(abs(lost - 1000), 120)
        self.assertFalse(any(perfect.lost(rng) for _ in range(100)))


class PopulationTests(TestCase):
    """Who there is."""

    def test_shares(self):
        """Each kind has its share; the dead come on top of those that live."""
        people = Population(Mix(nodes=900, dead=0.1, nated=0.2, black_holes=0.1, liars=0.05), 1)
        expected = {
            Role.OPEN: 585,
            Role.DEAD: 100,
            Role.NATED: 180,
            Role.BLACK_HOLE: 90,
            Role.LIAR: 45,
        }
        self.assertEqual(expected, dict(Counter(people.roles)))
        self.assertEqual(1000, len(people))
        self.assertEqual(180, len(people.living(Role.NATED)))

    def test_ids(self):
        """Nodes are numbered in the order of their ids, which the seed decides."""
        people = Population(Mix(nodes=200), 1)
        self.assertEqual(sorted(people.ids), people.ids)
        self.assertEqual(people.ids, Population(Mix(nodes=200), 1).ids)
        self.assertNotEqual(people.ids, Population(Mix(nodes=200), 2).ids)
        self.assertEqual(people.ids[3], int.from_bytes(people.node_id(3), "big"))

    @given(KEYS, st.integers(1, 40), st.integers(2, 120))
    def test_closest(self, key: int, count: int, nodes: int):
        """The nearest nodes are those that comparing all of them gives."""
        people = Population(Mix(nodes=nodes), 1)
        everybody = sorted(range(len(people)), key=lambda node: people.ids[node] ^ key)
        self.assertEqual(everybody[:count], people.closest(key, count))

    @settings(max_examples=30)
    @given(st.integers(0, 149), st.sampled_from([limits.BUCKET_SIZES, (8,), (2, 1)]))
    def test_tables(self, node: int, sizes: tuple[int, ...]):
        """A table has of each bucket as many as fit, everybody of a small one, and never itself."""
        people = Population(Mix(nodes=135), 1, sizes)
        table = people.table(node)
        self.assertEqual(len(table), len(set(table)))
        self.assertEqual(table, people.table(node))
        here = Counter(self.depth(people, node, other) for other in table)
        there = Counter(self.depth(people, node, n) for n in range(len(people)) if n != node)
        for depth, living in there.items():
            size = sizes[min(depth, len(sizes) - 1)]
            self.assertEqual(min(size, living), here[depth], depth)

    def test_table_order(self):
        """Buckets follow each other, the farthest first."""
        people = Population(Mix(nodes=300), 1)
        depths = [self.depth(people, 17, other) for other in people.table(17)]
        self.assertEqual(sorted(depths), depths)

    @staticmethod
    def depth(people: Population, node: int, other: int) -> int:
        """Return in which bucket of ``node`` another one belongs."""
        return BITS - (people.ids[node] ^ people.ids[other]).bit_length()

    def test_nats_are_not_told_of(self):
        """Without NATs both tables are one; with them, the one that heeds them leaves some out."""
        plain = Population(Mix(nodes=300), 1)
        self.assertEqual(plain.table(5), plain.aware_table(5))
        people = Population(Mix(nodes=300, nated=0.5), 1)
        kinds = {people.roles[n] for n in people.table(5)}
        self.assertLessEqual({Role.NATED, Role.OPEN, Role.DEAD}, kinds)
        aware = people.aware_table(5)
        self.assertNotIn(Role.NATED, {people.roles[n] for n in aware})
        self.assertIn(Role.DEAD, {people.roles[n] for n in aware})
        self.assertNotIn(5, aware)
        self.assertTrue(aware)

    def test_pins(self):
        """A node behind a NAT pins its nearest and its quickest neighbours in turn, none dead."""
        people, ground = Population(Mix(nodes=300, nated=0.3), 1), Terrain(1)
        node = people.living(Role.NATED)[0]
        pins = people.pins(node, ground.rtt_s)
        fit = [n for n in people.aware_table(node) if people.roles[n] is not Role.DEAD]
        self.assertEqual(limits.NAT_PINNED, len(pins))
        self.assertEqual(pins[0], min(fit, key=lambda n: people.ids[n] ^ people.ids[node]))
        self.assertEqual(pins[1], min(fit, key=lambda n: ground.rtt_s(node, n)))
        self.assertLessEqual(set(pins), set(fit))


def crowd(nodes: int = 100, seed: int = 1, loss: float = 0.0, **shares: float) -> Crowd:
    """Return a crowd."""
    people = Population(Mix(nodes=nodes, **shares), seed)
    return Crowd(people, Terrain(seed, loss=loss), seed)


class Recorder:
    """A watcher that keeps what it is shown."""

    def __init__(self):
        self.seen: list[tuple[int, int | None, str, Tally]] = []
        self.size = 0

    def sent(
        self, now: float, source: int, target: int | None, datagram: bytes, fate: str, tally: Tally
    ) -> None:
        """Keep it."""
        del now
        self.seen.append((source, target, fate, tally))
        self.size += len(datagram) + HEADERS_BYTES


class CrowdTests(TestCase):
    """Nodes and what goes between them."""

    def test_made_when_spoken_to(self):
        """A node is there when its first datagram arrives, with a full table, and not before."""
        world = crowd()
        a, b = world.population.living(Role.OPEN)[:2]
        node = world.node(a)
        self.assertEqual([a], list(world.made))
        self.assertEqual(len(world.population.table(a)), len(node.neighbours))
        pong = node.contact(address_of(b))
        world.timeline.run(1.0)
        self.successResultOf(pong)
        self.assertEqual([a, b], list(world.made))

    def test_dead_and_nowhere(self):
        """A dead node answers nothing, nor does an address without a node."""
        world = crowd()
        alive, dead = world.population.living(Role.OPEN)[0], world.population.living(Role.DEAD)[0]
        world.watcher = watcher = Recorder()
        calls = [world.node(alive).contact(address_of(n)) for n in (dead, len(world.population))]
        world.timeline.run(5.0)
        for call in calls:
            self.failureResultOf(call)
        self.assertEqual({"nobody there"}, {fate for _, _, fate, _ in watcher.seen})
        self.assertEqual({dead, None}, {target for _, target, _, _ in watcher.seen})
        self.assertNotIn(dead, world.made)

    def test_tallies(self):
        """However many lookups run at once, every datagram is on exactly one account."""
        study = Study(World(mix=Mix(nodes=60)))
        study.crowd.watcher = watcher = Recorder()
        for _ in range(8):
            study.start(study.draw())
        study.crowd.timeline.run(20.0)
        tallies = [t for k in study.lookups for t in (k.cost, k.contact)]
        self.assertEqual(0, study.crowd.tally.packets)
        self.assertEqual(len(watcher.seen), sum(t.packets for t in tallies))
        self.assertEqual(watcher.size, sum(t.size for t in tallies))
        for lookup in study.lookups:
            self.assertGreater(lookup.cost.at[lookup.initiator], 0)
        lost = sum(bool(fate) for _, _, fate, _ in watcher.seen)
        both = 2 * len(watcher.seen) - lost  # a lost one is at its sender only
        self.assertEqual(both, sum(sum(t.at.values()) for t in tallies))

    def test_account_of_one(self):
        """A lookup costs alone what it costs: another one's datagrams are not on its account."""
        study = Study(World(mix=Mix(nodes=60), loss=0.0))
        study.crowd.watcher = watcher = Recorder()
        first, second = study.draw(), study.draw()
        study.start(first)
        study.crowd.timeline.run(12.0)
        before = first.cost.packets
        self.assertEqual(before, sum(tally is first.cost for *_, tally in watcher.seen))
        study.start(second)
        study.crowd.timeline.run(12.0)
        self.assertEqual(before, first.cost.packets)
        self.assertGreater(second.cost.packets, 0)

    def test_hottest(self):
        """The busiest node's datagrams are counted; an empty account has none."""
        self.assertEqual(0, Tally().hottest)
        self.assertEqual(3, Tally(at=Counter({1: 3, 2: 1})).hottest)

    def test_tokens_are_renewed(self):
        """After two epochs a renewed neighbour's token is good, so that no challenge is needed."""
        world = crowd(40)
        number = world.population.living(Role.OPEN)[0]
        node = world.node(number)
        world.timeline.run(3 * limits.TOKEN_EPOCH_S)
        paths = [node.rpc.paths[entry.address] for entry in node.neighbours]
        now = world.timeline.now
        self.assertFalse(any(path.has_token(now) for path in paths))
        world.renew_tokens()
        self.assertTrue(all(path.has_token(now) for path in paths))


class NATTests(TestCase):
    """Nodes behind NATs, as the production rules make them."""

    def setUp(self):
        self.world = crowd(110, nated=0.3)
        self.hidden = self.world.population.living(Role.NATED)

    def entries(self, number: int) -> dict[int, Neighbour]:
        """Return the entries behind NATs in a node's table."""
        hidden = [entry for entry in self.world.node(number).neighbours if entry.nat]
        numbers = (self.world.number(entry.address) for entry in hidden)
        return {n: e for n, e in zip(numbers, hidden, strict=True) if n is not None}

    def test_knows_that_it_is(self):
        """It knows that it is behind a NAT and has told its neighbours; an open one is open."""
        node = self.world.node(self.hidden[0])
        self.assertIs(State.NATED, node.reach.ipv4.state)
        for entry in node.neighbours:
            self.assertTrue(node.reach.masked(entry.address))
            self.assertEqual(node.bindings.says(entry.address), node.rpc.paths[entry.address].told)
        ordinary = self.world.node(self.world.population.living(Role.OPEN)[0])
        self.assertIs(State.OPEN, ordinary.reach.ipv4.state)

    def test_known_to_its_pins(self):
        """It is in the tables of those it pinned, where it has a free place, and in no others."""
        pinners: dict[int, set[int]] = {}
        for number in self.hidden:
            for pin in self.world.population.pins(number, self.world.terrain.rtt_s):
                pinners.setdefault(pin, set()).add(number)
        found = 0
        for number in self.world.population.living(Role.OPEN):
            entries = self.entries(number)
            known = {
                self.world.number(entry.address) for entry in self.world.node(number).neighbours
            }
            self.assertEqual(set(entries), known & set(self.hidden))
            self.assertLessEqual(set(entries), pinners.get(number, set()))
            found += len(entries)
        self.assertGreater(found, len(self.hidden))
        for number in self.hidden[:5]:
            self.assertEqual({}, self.entries(number))

    def test_stays_callable(self):
        """Its pins can call it at any time, nobody else can before it wrote to them."""
        number, (pinned, entry) = next(
            (n, item)
            for n in self.world.population.living(Role.OPEN)
            for item in self.entries(n).items()
        )
        stranger = next(
            n
            for n in self.world.population.living(Role.OPEN)
            if n not in self.world.population.pins(pinned, self.world.terrain.rtt_s)
        )
        self.world.timeline.run(2 * limits.NAT_BINDING_S + KEEPALIVE_S / 2)
        self.assertTrue(entry.callable_at(self.world.timeline.now))
        address = address_of(pinned)
        known = self.world.node(number).contact(address)
        unknown = self.world.node(stranger).contact(address)
        self.world.timeline.run(5.0)
        self.successResultOf(known)
        self.failureResultOf(unknown)
        asked = self.world.node(pinned).contact(address_of(stranger))
        self.world.timeline.run(5.0)
        self.successResultOf(asked)
        again = self.world.node(stranger).contact(address)
        self.world.timeline.run(5.0)
        self.successResultOf(again)

    def test_still_knows_later(self):
        """What its neighbours see of it is renewed with their tokens."""
        node = self.world.node(self.hidden[0])
        for _ in range(6):
            self.world.timeline.run(200.0)
            self.world.renew_tokens()
        node.reach.review(self.world.timeline.now)
        self.assertIs(State.NATED, node.reach.ipv4.state)

    def test_stores_nothing(self):
        """It is told of nobody's members."""
        study = Study(World(mix=Mix(nodes=200, nated=0.5)))
        storers = study.storers(bytes(ID_BYTES))
        self.assertEqual(limits.STORERS, len(storers))
        self.assertNotIn(Role.NATED, {study.population.roles[n] for n in storers})


class StudyTests(TestCase):
    """Whole runs."""

    def run_world(self, count: int, **world: Any) -> Study:
        """Run some lookups."""
        study = Study(World(**{"mix": Mix(nodes=100), **world}))
        study.run(count)
        self.assertEqual(count, len(study.lookups))
        return study

    def figures(self, study: Study) -> list[tuple[object, ...]]:
        """Return all that a run shows."""
        return [
            (k.initiator, k.topic, k.offered_s, k.alive_s, k.cost.packets, k.cost.size)
            for k in study.lookups
        ]

    def test_everybody_finds(self):
        """Among a hundred nodes, a tenth of their tables dead, every lookup finds a live peer."""
        study = self.run_world(15)
        summary = summarize(study.lookups)
        self.assertEqual(1.0, summary.success)
        self.assertLess(summary.p50_ms, 200)
        self.assertLessEqual(summary.p50_ms, summary.p90_ms)
        self.assertTrue(all((k.offered_s or math.inf) < (k.alive_s or 0) for k in study.lookups))

    def test_smallest(self):
        """Two nodes are enough."""
        self.assertEqual(
            1.0, summarize(self.run_world(2, mix=Mix(nodes=2, dead=0)).lookups).success
        )

    def test_seed_decides(self):
        """Two runs with one seed are equal to the last byte, with another seed they differ."""
        mix = Mix(nodes=60, nated=0.2, black_holes=0.1, liars=0.1)
        one, same, other = (
            self.figures(self.run_world(6, mix=mix, seed=seed)) for seed in (1, 1, 2)
        )
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)

    def test_bad_company(self):
        """Black holes and liars, a fifth of each, delay a lookup and do not defeat it."""
        for mix in (Mix(nodes=80, black_holes=0.2), Mix(nodes=80, liars=0.2)):
            self.assertEqual(1.0, summarize(self.run_world(8, mix=mix).lookups).success, mix)

    def test_liars_lie(self):
        """A liar that is asked offers addresses at which there is nobody."""
        study = Study(World(mix=Mix(nodes=30, liars=0.5), members=2))
        study.crowd.watcher = watcher = Recorder()
        study.run(6)
        contacts = [k.contact for k in study.lookups]
        self.assertIn((None, True), {(target, t in contacts) for _, target, _, t in watcher.seen})

    def test_behind_nats(self):
        """Who is behind a NAT finds peers at the first try."""
        mix = Mix(nodes=80, nated=0.4)
        study = self.run_world(8, mix=mix, nated_initiators=True)
        roles = {study.population.roles[k.initiator] for k in study.lookups}
        self.assertEqual({Role.NATED}, roles)
        summary = summarize(study.lookups)
        self.assertEqual(1.0, summary.success)
        self.assertLess(summary.p90_ms, 1000)


class SummaryTests(TestCase):
    """Figures of few lookups, and of failed ones."""

    def test_quantile(self):
        """The smallest value that the share does not exceed; infinity of none."""
        for expected, values, share in (
            (math.inf, [], 0.5),
            (7, [7], 0.01),
            (7, [7], 0.99),
            (2, [3, 1, 2, 4], 0.5),
            (4, [3, 1, 2, 4], 0.76),
            (1, [3, 1, 2, 4], 0.0),
            (99, list(range(1, 101)), 0.99),
        ):
            self.assertEqual(expected, quantile(values, share), (values, share))

    def test_failed_lookups(self):
        """A lookup that failed took for ever, and costs what it cost."""
        topic = Topic(bytes(ID_BYTES))
        good = Lookup(0, topic, [1], offered_s=0.1, alive_s=0.2, cost=Tally(packets=10, size=500))
        offered = Lookup(0, topic, [1], offered_s=0.3, cost=Tally(packets=20, size=1500))
        bad = Lookup(0, topic, [1], cost=Tally(packets=60, size=4000))
        summary = summarize([good, offered, bad])
        self.assertAlmostEqual(1 / 3, summary.success)
        self.assertEqual((300, math.inf), (round(summary.p50_ms), summary.p99_ms))
        self.assertEqual(math.inf, summary.alive_p50_ms)
        self.assertEqual((30, 60, 2000), (summary.packets, summary.packets_p99, summary.size))

    def test_members(self):
        """Small networks have few peers for each topic unless it is said how many."""
        for expected, nodes in ((1, 2), (1, 49), (3, 50), (3, 499), (10, 500)):
            self.assertEqual(expected, World(mix=Mix(nodes=nodes)).member_count, nodes)
        self.assertEqual(7, World(mix=Mix(nodes=2), members=7).member_count)


class TraceTests(TestCase):
    """The story of a lookup."""

    def run_traced(self, number: int = 0, count: int = 2, **shares: float) -> tuple[Study, Trace]:
        """Run some lookups at once, so that they mix, and watch one."""
        study = Study(World(mix=Mix(nodes=80, **shares), loss=0.2))
        trace = Trace(study, number)
        for _ in range(count):
            study.start(study.draw())
        study.crowd.timeline.run(20.0)
        return study, trace

    def test_tells_one(self):
        """Every datagram of the lookup has its line, and no other lookup's has one."""
        study, trace = self.run_traced(number=1, count=3)
        lookup = study.lookups[1]
        self.assertEqual(lookup.cost.packets + lookup.contact.packets, len(trace.events))
        lines = list(trace.lines())
        self.assertIn("lookup 2", lines[0])
        self.assertEqual(len(trace.events), sum(" -> " in line for line in lines))
        self.assertIn(f"#{lookup.initiator}/", lines[2])
        self.assertIn("get_peers walk 0 hop 1 units 3", lines[2])

    def test_readable(self):
        """In the worst company lines fit 100 columns, times go up, and fates are told."""
        _, trace = self.run_traced(count=3, nated=0.2, liars=0.2, black_holes=0.2)
        lines = list(trace.lines())
        self.assertLessEqual(max(map(len, lines)), 100)
        times = [float(line[:8]) for line in lines if " -> " in line]
        self.assertEqual(sorted(times), times)
        text = "\n".join(lines)
        for word in ("-- lost", "ping", "pong", "offer walk", " me", " peer", "taken", "cost: "):
            self.assertIn(word, text)

    def test_ends_with_what_was_found(self):
        """The last lines say when, through which walk and over how many hops."""
        study, trace = self.run_traced()
        found = study.lookups[0].offered_s
        assert found is not None
        summary = next(line for line in trace.lines() if line.startswith("first peers"))
        self.assertRegex(summary, rf"after {found * 1e3:.1f} ms through walk \d over \d hops?$")

    def test_finds_nobody(self):
        """A lookup that finds nobody says so, and one that never was is not told."""
        study = Study(World(mix=Mix(nodes=20), loss=0.999))
        trace = Trace(study, 0)
        study.start(study.draw())
        study.crowd.timeline.run(20.0)
        lines = list(trace.lines())
        self.assertIn("found nobody", lines)
        self.assertIn("no live peer in time", lines)
        self.assertEqual(["there is no lookup 6"], list(Trace(study, 5).lines()))
