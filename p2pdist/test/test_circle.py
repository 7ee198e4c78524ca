"""Tests for :mod:`p2pdist.swarm.circle` and :mod:`p2pdist.swarm.targets`, and of swarms they make.

The last class runs the policy in a model of a thousand nodes (``swarmgraph``).
"""

from __future__ import annotations

import random

from p2pdist import limits
from p2pdist.ids import NodeID
from p2pdist.swarm.circle import Circle
from p2pdist.swarm.targets import Targets
from p2pdist.test.support import TestCase
from p2pdist.test.swarmgraph import Graph, Link, address, node_id


def links(own: int, callers: int, useful_at: float = 0.0) -> dict[NodeID, Link]:
    """Return a circle of so many that we called and so many that called us."""
    return {node_id(number): Link(number < own, useful_at) for number in range(own + callers)}


class CallTests(TestCase):
    """How many are called and looked for."""

    def test_calls_until_enough(self) -> None:
        """Peers are called until CIRCLE_WANTED are there; some calls may fail."""
        circle = Circle()
        self.assertEqual(limits.DIALS, circle.calls(links(0, 0).values(), 0))
        self.assertEqual(0, circle.calls(links(limits.CIRCLE_WANTED, 0).values(), 0))
        nearly = links(limits.CIRCLE_WANTED - 1, 0).values()
        self.assertEqual([2, 1, 0], [circle.calls(nearly, calling) for calling in (0, 1, 2)])

    def test_some_are_our_own_choice(self) -> None:
        """However many call us, CIRCLE_OWN are called by us, while there is a place."""
        circle = Circle()
        callers = limits.CIRCLE_MOST - limits.CIRCLE_OWN
        self.assertEqual(limits.CIRCLE_OWN, circle.calls(links(0, callers).values(), 0))
        self.assertEqual(1, circle.calls(links(7, callers).values(), 0))
        self.assertEqual(0, circle.calls(links(8, callers).values(), 0))
        self.assertEqual(0, circle.calls(links(0, limits.CIRCLE_MOST).values(), 0))

    def test_looks_for_spare_peers(self) -> None:
        """Peers are looked for until CIRCLE_SPARE more are known than wanted."""
        circle = Circle()
        enough = limits.CIRCLE_WANTED + limits.CIRCLE_SPARE
        self.assertEqual(enough, circle.lack([], 0))
        self.assertEqual(5, circle.lack(links(10, 0).values(), enough - 15))
        self.assertEqual(0, circle.lack(links(10, 0).values(), enough))
        self.assertEqual(limits.CIRCLE_OWN, circle.lack(links(0, enough).values(), 0))


class AdmitTests(TestCase):
    """Who is let in, and who goes for him."""

    def test_places(self) -> None:
        """Callers leave CIRCLE_OWN places free, and nobody comes in beyond CIRCLE_MOST."""
        circle = Circle()
        callers = limits.CIRCLE_MOST - limits.CIRCLE_OWN
        self.assertEqual((True, None), circle.admit(links(0, callers - 1), 1.0, outgoing=False))
        full = links(0, callers, useful_at=1.0)
        self.assertEqual((False, None), circle.admit(full, 1.0, outgoing=False))
        self.assertEqual((True, None), circle.admit(links(0, callers), 1.0, outgoing=True))
        full = links(limits.CIRCLE_MOST, 0)
        self.assertEqual((False, None), circle.admit(full, 1000.0, outgoing=True))

    def test_caller_takes_a_callers_place(self) -> None:
        """In a full circle the caller of least use goes, never a peer we called."""
        full = links(8, 24, useful_at=50.0)
        full[node_id(3)].useful_at = 1.0
        full[node_id(20)].useful_at = 40.0
        self.assertEqual((True, node_id(20)), Circle().admit(full, 60.0, outgoing=False))
        own = links(limits.CIRCLE_MOST, 0)
        self.assertEqual((False, None), Circle().admit(own, 60.0, outgoing=False))

    def test_swaps_are_rare(self) -> None:
        """One swap in CIRCLE_SWAP_S, and nobody goes who was of use within a tick."""
        circle, full = Circle(), links(8, 24, useful_at=10.0)
        first = 10.0 + limits.TICK_S
        self.assertEqual((False, None), circle.admit(full, first - 0.1, outgoing=False))
        self.assertTrue(circle.admit(full, first, outgoing=False)[0])
        second = first + limits.CIRCLE_SWAP_S
        self.assertEqual((False, None), circle.admit(full, second - 0.1, outgoing=False))
        self.assertTrue(circle.admit(full, second, outgoing=False)[0])


class ReplaceTests(TestCase):
    """Who is of no use."""

    def test_useless_goes_when_others_wait(self) -> None:
        """Who moved no byte for CIRCLE_USELESS_S goes if others wait, one in CIRCLE_REPLACE_S."""
        circle, members = Circle(), links(8, 12, useful_at=10.0)
        members[node_id(4)].useful_at = 5.0
        late = 5.0 + limits.CIRCLE_USELESS_S
        self.assertIsNone(circle.replace(members, late - 0.1, lambda: True))
        self.assertIsNone(circle.replace(members, late, lambda: False))
        self.assertEqual(node_id(4), circle.replace(members, late, lambda: True))
        del members[node_id(4)]
        soon = late + limits.CIRCLE_REPLACE_S
        self.assertIsNone(circle.replace(members, soon - 0.1, lambda: True))
        self.assertEqual(node_id(0), circle.replace(members, soon, lambda: True))

    def test_few_are_kept(self) -> None:
        """Below CIRCLE_WANTED nobody is sent away: others are called anyway."""
        few = links(limits.CIRCLE_WANTED - 1, 0)
        self.assertIsNone(Circle().replace(few, 1e6, lambda: True))
        self.assertIsNone(Circle().replace({}, 1e6, lambda: True))


class TargetTests(TestCase):
    """Whom to call next."""

    def make(self, seed: int = 1) -> Targets:
        """Make thirty that are due."""
        targets = Targets(random.Random(seed))
        for number in range(30):
            targets.add(address(node_id(number)), node_id(number), 0.0)
        return targets

    def test_chance_chooses(self) -> None:
        """Two nodes that heard of the same peers in the same order call others first."""
        first, second = (self.make(seed).due(0.0)[:8] for seed in (1, 2))
        common = {t.node_id for t in first} & {t.node_id for t in second}
        self.assertLess(len(common), 6)

    def test_put_off(self) -> None:
        """Who was sent away for another is left alone for the longest pause."""
        targets = self.make()
        targets.put_off(node_id(3), 100.0)
        targets.put_off(node_id(99), 100.0)
        waits = limits.DIAL_RETRY_S[1]
        self.assertNotIn(node_id(3), [t.node_id for t in targets.due(100.0 + waits - 0.1)])
        self.assertIn(node_id(3), [t.node_id for t in targets.due(100.0 + waits)])

    def test_hopeless(self) -> None:
        """Who was called in vain some times counts no more as somebody to call."""
        targets = self.make()
        target = targets.get(node_id(3))
        assert target is not None
        for _ in range(3):
            self.assertTrue(target.hopeful)
            targets.later(target, 0.0)
        self.assertFalse(target.hopeful)
        targets.add(address(node_id(3)), node_id(3), 50.0)
        self.assertTrue(target.hopeful)


class ThousandTests(TestCase):
    """What becomes of a swarm when everybody keeps to the policy."""

    def assert_well_connected(self, graph: Graph) -> None:
        """Fail unless all are connected by few steps, with few connections each."""
        fewest, most = graph.degrees()
        self.assertLessEqual(limits.CIRCLE_WANTED, fewest)
        self.assertLessEqual(most, limits.CIRCLE_MOST)
        steps = graph.diameter()
        assert steps is not None, "not connected"
        self.assertLessEqual(steps, 5)

    def test_thousand_nodes(self):
        """A thousand nodes that found three others each have 16 to 32 peers and are 5 steps apart.

        While half of them crash and newcomers take their places, those that stay are never apart.
        """
        graph = Graph(1)
        for _ in range(10):
            graph.arrive(100, found=3)
            graph.run(2)
        graph.run(15)
        self.assert_well_connected(graph)
        first = list(graph.nodes.values())
        for _ in range(10):
            graph.die(50)
            self.assertIsNotNone(graph.diameter(), "those that stay are connected at once")
            graph.arrive(50, found=3)
            graph.run(2)
            left = [len(p.links) for p in first if graph.nodes.get(p.node_id) is p]
            self.assertLessEqual(limits.CIRCLE_OWN, min(left))
        graph.run(15)
        self.assertEqual(1000, len(graph.nodes))
        self.assert_well_connected(graph)
