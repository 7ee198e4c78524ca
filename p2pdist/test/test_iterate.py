"""Tests of the iterative lookup: whom it asks, when, and when it is done."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID, distance
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.iterate import Iteration
from p2pdist.test.support import TestCase, given

TARGET = bytes(20)
OWN = b"o" * 20


def node(number: int) -> NodeEntry:
    """Return the node at distance ``number`` from the target."""
    return NodeEntry(
        NodeID(number.to_bytes(20, "big")), Address(f"10.0.{number >> 8}.{number & 255}", 7667)
    )


def numbers(entries: list[NodeEntry]) -> list[int]:
    """Return the distances of ``entries``."""
    return [distance(entry.node_id, TARGET) for entry in entries]


def iteration(*known: int, wanted: int = 8) -> Iteration:
    """Return an iteration that knows some nodes."""
    made = Iteration(TARGET, OWN, wanted)
    made.learn(node(number) for number in known)
    return made


class IterationTests(TestCase):
    """One convergence."""

    def test_asks_the_nearest(self):
        """The nearest are asked, three at a time."""
        asking = iteration(9, 2, 7, 5, 4)
        self.assertEqual([2, 4, 5], numbers(asking.due(0.0)))
        self.assertEqual(limits.ALPHA, 3)
        self.assertEqual([], asking.due(0.1))

    def test_answers_free_a_slot(self):
        """An answer, or silence, lets the next one be asked."""
        asking = iteration(1, 2, 3, 4, 5)
        asking.due(0.0)
        asking.answered(node(2).address)
        self.assertEqual([4], numbers(asking.due(0.0)))
        asking.silent(node(1).address)
        self.assertEqual([5], numbers(asking.due(0.0)))

    def test_slow_nodes_free_their_slot(self):
        """A slot is free again after its time, and the late answer still counts."""
        asking = iteration(1, 2, 3, 4)
        asking.due(0.0)
        self.assertEqual(limits.ITERATE_SLOT_S, asking.next_timer(0.1))
        self.assertEqual([4], numbers(asking.due(limits.ITERATE_SLOT_S)))
        self.assertEqual(2 * limits.ITERATE_SLOT_S, asking.next_timer(limits.ITERATE_SLOT_S))
        self.assertIsNone(asking.next_timer(2 * limits.ITERATE_SLOT_S))
        asking.answered(node(1).address)
        self.assertEqual([1], numbers(asking.nearest()))

    def test_nobody(self):
        """Without candidates it is done at once."""
        asking = iteration()
        self.assertEqual(
            ([], True, None, []),
            (asking.due(0.0), asking.done, asking.next_timer(0.0), asking.nearest()),
        )

    def test_done_when_the_nearest_answered(self):
        """It ends when the wanted number of nearest ones has answered; silent ones do not count."""
        asking = iteration(1, 2, 3, wanted=2)
        self.assertEqual([1, 2], numbers(asking.due(0.0)))
        asking.answered(node(1).address)
        self.assertFalse(asking.done)
        asking.silent(node(2).address)
        self.assertFalse(asking.done)
        self.assertEqual([3], numbers(asking.due(0.0)))
        asking.answered(node(3).address)
        self.assertTrue(asking.done)
        self.assertEqual([1, 3], numbers(asking.nearest()))

    def test_learning_nearer_ones(self):
        """Nearer nodes learned on the way are asked before it is done."""
        asking = iteration(50, wanted=1)
        asking.due(0.0)
        asking.learn([node(3)])
        asking.answered(node(50).address)
        self.assertFalse(asking.done)
        self.assertEqual([3], numbers(asking.due(0.0)))
        asking.answered(node(3).address)
        self.assertEqual((True, [3]), (asking.done, numbers(asking.nearest())))

    def test_an_answer_is_final(self):
        """An answer outweighs a lost retry; strangers' answers change nothing."""
        asking = iteration(1)
        asking.due(0.0)
        asking.answered(node(1).address)
        asking.silent(node(1).address)
        asking.answered(node(99).address)
        asking.silent(node(99).address)
        self.assertEqual([1], numbers(asking.nearest()))

    def test_late_answer_of_a_silent_one(self):
        """Who was silent and answers after all counts."""
        asking = iteration(1)
        asking.due(0.0)
        asking.silent(node(1).address)
        asking.answered(node(1).address)
        self.assertEqual([1], numbers(asking.nearest()))

    def test_own_id_and_known_addresses(self):
        """We are no candidate; an address is one candidate whoever it is said to be."""
        asking = iteration(5)
        asking.learn([NodeEntry(NodeID(OWN), node(1).address)])
        asking.learn([NodeEntry(NodeID(bytes(20)), node(5).address)])
        self.assertEqual([5], numbers(asking.due(0.0)))

    def test_candidates_are_bounded(self):
        """Made-up nodes push out farther candidates only, never one that is being asked."""
        asking = iteration(*range(1000, 1003), wanted=200)
        asking.due(0.0)
        asking.learn(node(number) for number in range(1, 500))
        self.assertLessEqual(len(asking._candidates), limits.ITERATE_NODES + limits.ALPHA)
        for number in range(1000, 1003):
            asking.answered(node(number).address)
        self.assertEqual([1000, 1001, 1002], numbers(asking.nearest()))

    @given(st.integers(0, 2**32), st.integers(5, 60), st.floats(0, 0.5))
    def test_finds_the_nearest(self, seed: int, count: int, deaf: float):
        """It ends, never asks twice, and finds the nearest living nodes of a connected network."""
        chance = random.Random(seed)
        alive = {n for n in range(1, count + 1) if chance.random() >= deaf}
        asking = iteration(*chance.sample(range(1, count + 1), 3), wanted=4)
        asked: list[int] = []
        now = 0.0
        while not asking.done:
            due = numbers(asking.due(now))
            self.assertLessEqual(len(due), limits.ALPHA)
            asked += due
            for number in due:
                if number in alive:
                    asking.answered(node(number).address)
                    asking.learn(map(node, chance.sample(range(1, count + 1), min(count, 8))))
                else:
                    asking.silent(node(number).address)
            now += 1.0
            self.assertLess(now, 200)
        self.assertEqual(len(asked), len(set(asked)))
        nearest = numbers(asking.nearest())
        self.assertEqual(sorted(nearest), nearest)
        self.assertTrue(set(nearest) <= alive)
