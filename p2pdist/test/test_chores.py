"""Tests of :mod:`p2pdist.overlay.chores`, and of the contents it makes bearable."""

from __future__ import annotations

from functools import partial

from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import HashKey, NodeID, Topic
from p2pdist.overlay.agenda import Agenda
from p2pdist.overlay.chores import Chores, Companions
from p2pdist.overlay.messages import Status
from p2pdist.overlay.search import Search
from p2pdist.test.overlayworld import OverlayNode, lan
from p2pdist.test.support import TestCase

PER_SECOND, BURST = limits.RATE_CHORES
HERE, THERE = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
ONE, TWO = NodeID(b"1" * 20), NodeID(b"2" * 20)


class ChoresTests(TestCase):
    """Jobs of many contents."""

    def setUp(self) -> None:
        """Make a place for jobs, and for what they did."""
        self.clock = Clock()
        self.chores = Chores(self.clock)
        self.done: list[int] = []

    def add(self, count: int, cost: float = 1.0, urgent: bool = False) -> None:
        """Add jobs numbered from 0, urgent ones from 1000."""
        for number in range(count):
            job = partial(self.done.append, number + 1000 * urgent)
            self.chores.soon(job, cost=cost, urgent=urgent)

    def test_few_run_at_once_and_many_are_spread(self) -> None:
        """A burst of RATE_CHORES at once, in order, and then so many a second."""
        self.add(int(BURST) + 30)
        self.assertEqual(list(range(int(BURST))), self.done)
        self.clock.pump([0.05] * 21)
        self.assertEqual(list(range(int(BURST + PER_SECOND))), self.done)

    def test_cost_counts(self) -> None:
        """What two requests are sent for takes the room of two."""
        self.add(int(BURST), cost=2.0)
        self.assertEqual(int(BURST) // 2, len(self.done))

    def test_urgent_ones_go_first(self) -> None:
        """A join to try does not wait for a thousand announces."""
        self.add(int(BURST) + 5)
        self.add(1, urgent=True)
        self.clock.advance(1 / PER_SECOND)
        self.assertEqual(1000, self.done[-1])

    def test_jobs_that_bring_jobs(self) -> None:
        """A chain of any length runs without recursion and with one timer."""

        def again() -> None:
            self.done.append(0)
            self.chores.soon(again)

        self.chores.soon(again)
        self.assertEqual(int(BURST), len(self.done))
        self.assertEqual(1, len(self.clock.getDelayedCalls()))

    def test_stop_leaves_nothing(self) -> None:
        """No timer, and no job that comes later."""
        self.add(int(BURST) + 5)
        self.chores.stop()
        self.chores.soon(partial(self.done.append, -1))
        self.assertEqual([], self.clock.getDelayedCalls())
        self.assertEqual(int(BURST), len(self.done))


class CompanionsTests(TestCase):
    """Who is joined in other contents."""

    def test_those_who_share_most_come_first(self) -> None:
        """At most COMPANIONS; who left every content is forgotten."""
        companions = Companions()
        companions.joined(HERE, ONE)
        for _ in range(2):
            companions.joined(THERE, TWO)
        self.assertEqual([(THERE, TWO), (HERE, ONE)], companions.best())
        companions.left(HERE, ONE)
        companions.left(HERE, ONE)
        companions.left(THERE, TWO)
        self.assertEqual([(THERE, TWO)], companions.best())
        for number in range(limits.COMPANIONS + 3):
            companions.joined(Address("10.0.1.1", number + 1), ONE)
        self.assertEqual(limits.COMPANIONS, len(companions.best()))

    def test_a_content_that_waits_joins_where_another_is(self) -> None:
        """With no place for a search, a peer of one content is found as the peer of the next."""
        world, hosts = lan(count=2)
        one = OverlayNode.on(hosts[0])
        two = OverlayNode.on(hosts[1], one)
        known, _ = one.join(Status.SEED)
        two.join()
        world.run_until(lambda: known.joined, timeout=5)
        self.patch(limits, "LOOKUPS", 0)
        key = HashKey(b"another content of the two nodes")
        one.join(Status.SEED, key)
        other, _ = two.join(Status.LEECH, key)
        world.run_until(lambda: other.joined, timeout=1)
        stranger, _ = two.join(Status.LEECH, HashKey(b"a content that nobody else has.."))
        world.run(5)
        self.assertEqual({}, stranger.joined)

    def test_who_left_is_no_companion(self) -> None:
        """Neither peers that said goodbye nor those of a content that was given up."""
        world, hosts = lan(count=2)
        one = OverlayNode.on(hosts[0])
        two = OverlayNode.on(hosts[1], one)
        known, _ = one.join(Status.SEED)
        other, _ = two.join()
        world.run_until(lambda: known.joined and other.joined, timeout=5)
        self.assertEqual([two.address], [address for address, _ in one.network.companions.best()])
        other.stop()
        world.run(2)
        self.assertEqual([], one.network.companions.best())
        self.assertEqual([], two.network.companions.best())


class AgendaTests(TestCase):
    """Whose search runs first."""

    def test_seeds_wait_for_those_who_lack_something(self) -> None:
        """They never take the last place, and go last when places are few."""
        _, (host,) = lan(count=1)
        network = OverlayNode.on(host).network
        agenda = Agenda()

        def begin(status: Status) -> Search:
            search = Search(
                network, Topic(bytes(20)), lambda: (status, 0), lambda _: None, lambda _: None
            )
            agenda.begin(search)
            return search

        seeds = [begin(Status.SEED) for _ in range(limits.LOOKUPS + 3)]
        waiting = [agenda.waits(search) for search in seeds]
        self.assertEqual([False] * (limits.LOOKUPS - 1) + [True] * 4, waiting)
        self.assertFalse(agenda.waits(begin(Status.LEECH)))
        late = begin(Status.LEECH)
        self.assertTrue(agenda.waits(late))
        agenda.ended(seeds[0])
        self.assertFalse(agenda.waits(late))
        agenda.stop()


class SeedTests(TestCase):
    """A thousand complete contents at rest."""

    def searches_of(self, status: Status) -> int:
        """Return how often a lonely member looks for peers in two hours."""
        world, (host,) = lan(count=1)
        membership, seen = OverlayNode.on(host).join(status)
        world.run(7200)
        membership.stop()
        return len(seen.searches)

    def test_lonely_seeds_search_seldom(self) -> None:
        """At most with every announce; who lacks something goes on every LOOKUP_RETRY_S."""
        self.assertLess(self.searches_of(Status.SEED), 18)
        self.assertGreater(self.searches_of(Status.LEECH), 20)
