"""Promise 2 as a property: no sequence of attacks brings a victim more bytes than it cost.

Random small overlays of production nodes, hostile relays among them, loss, duplicates and replays;
see ``simulation/attacks``. Bytes are datagrams with 28 bytes of headers on both sides.
"""

from __future__ import annotations

import random

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.ids import ID_BYTES, Topic
from p2pdist.simulation.attacks import KINDS, PROMISED, Arena, Attack
from p2pdist.simulation.crowd import HEAL_S
from p2pdist.simulation.population import Mix, Population
from p2pdist.simulation.terrain import Terrain
from p2pdist.test.support import TestCase

DRAIN_S = 90.0
"""Longer than any failover, repeat or late refusal."""
SIEGE = 150
"""Attacks, so far apart that no neighbour is suspect any more: then failovers go on longest."""


@frozen
class Small:
    """A small world.

    Attributes:
        nodes, hostile: how many; of the nodes, so many work for the attacker, two thirds at most.
        bucket: entries of every bucket.
        members, storers: of the topic, at most so many of the honest.
    """

    seed: int
    nodes: int
    hostile: int
    bucket: int
    members: int
    storers: int
    loss: float
    duplicated: float

    def build(self) -> Arena:
        """Make it."""
        rng = random.Random(self.seed)
        population = Population(
            Mix(nodes=self.nodes, dead=0.1), self.seed, bucket_sizes=[self.bucket]
        )
        living = population.living(*[role for role in population.roles if not role])
        arena = Arena(
            population,
            Terrain(self.seed, loss=self.loss),
            self.seed,
            hostile=tuple(rng.sample(living, min(self.hostile, self.nodes * 2 // 3))),
            duplicated=self.duplicated,
        )
        honest = arena.honest
        members = rng.sample(honest, min(self.members, len(honest)))
        storers = rng.sample(honest, min(self.storers, len(honest)))
        arena.store(Topic(rng.randbytes(ID_BYTES)), members, storers)
        return arena


def worlds() -> st.SearchStrategy[Small]:
    """Small worlds, 3 to 12 nodes."""
    return st.builds(
        Small,
        seed=st.integers(0, 2**32),
        nodes=st.integers(3, 12),
        hostile=st.integers(1, 6),
        bucket=st.integers(1, 8),
        members=st.integers(0, 3),
        storers=st.integers(1, 6),
        loss=st.sampled_from((0.0, 0.05, 0.2, 0.5, 0.5)),
        duplicated=st.sampled_from((0.0, 0.1, 0.5)),
    )


def fight(arena: Arena, steps: list[tuple[str, float]]) -> list[Attack]:
    """Start attacks, so many seconds after each other, and let everything come to its end."""
    attacks = []
    for kind, wait in steps:
        attacks.append(arena.start(kind))
        arena.timeline.run(wait)
    arena.timeline.run(DRAIN_S)
    return attacks


class AttackTests(TestCase):
    """Bytes to victims against bytes from the attacker."""

    @settings(max_examples=100)
    @given(
        worlds(),
        st.lists(
            st.tuples(st.sampled_from(PROMISED), st.floats(0.0, 2 * HEAL_S)),
            min_size=1,
            max_size=10,
        ),
    )
    def test_no_attack_pays(self, world: Small, steps: list[tuple[str, float]]) -> None:
        """However it attacks, a victim gets at most as many bytes as the attacker sent."""
        for attack in fight(world.build(), steps):
            self.assertLessEqual(attack.received, attack.spent, attack.kind)
            self.assertLessEqual(attack.offers, attack.units, attack.kind)

    def test_no_siege_pays(self) -> None:
        """Hundreds of forged origins on a bad network, among hostile relays, do not pay either."""
        for seed, hostile, loss, duplicated in (
            (1, 4, 0.5, 0.0),
            (2, 4, 0.3, 0.3),
            (3, 6, 0.0, 0.0),
            (4, 6, 0.0, 0.5),
            (5, 8, 0.0, 0.0),
        ):
            world = Small(seed, 12, hostile, 8, 0, 3, loss, duplicated)
            for attack in fight(world.build(), [("forged origin", 2 * HEAL_S)] * SIEGE):
                self.assertLessEqual(attack.received, attack.spent)
                self.assertLessEqual(attack.offers, attack.units)

    def test_attacks_reach_their_victims(self) -> None:
        """Forged origins bring offers and forged sources challenges; what they cost is counted."""
        world = Small(7, 12, 2, 8, 3, 6, 0.0, 0.0)
        attacks = fight(world.build(), [(kind, 1.0) for kind in KINDS] * 10)
        for kind in KINDS:
            got = sum(attack.received for attack in attacks if attack.kind == kind)
            if kind == "relayed offers":
                self.assertEqual(0, got, kind)
            else:
                self.assertLess(0, got, kind)
        best = max(attack.ratio for attack in attacks if attack.kind == "forged origin")
        self.assertLess(0.5, best, "the attacks are too weak to show anything")

    def test_stolen_tokens_pay_no_more_than_offers(self) -> None:
        """Queries with a stolen token bring the units they pay for and three short replies."""
        world = Small(8, 12, 2, 8, 3, 6, 0.2, 0.0)
        for attack in fight(world.build(), [("stolen token, queries", 1.0)] * 30):
            self.assertLessEqual(attack.received, 1.25 * attack.spent)
            self.assertGreaterEqual(attack.spent, limits.GET_PEERS_BYTES)
