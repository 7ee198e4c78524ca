"""Most peers are hostile, all the time: what an honest download still gets, to the figure.

Rows M1 to M5, M7 and A4 of the attack matrix in ``docs/reliability.md``; what single messages do is
in ``test_hostile``, ``test_connection`` and their kin.
"""

from __future__ import annotations

from p2pdist import limits
from p2pdist.ids import NodeID
from p2pdist.swarm.messages import Grant, Interest, Message, Request
from p2pdist.test import healing
from p2pdist.test.faultplan import siege
from p2pdist.test.faultworld import FaultWorld
from p2pdist.test.lies import on_request, reject
from p2pdist.test.storehouse import PIECE
from p2pdist.test.support import TestCase
from p2pdist.test.swarmfakes import Liar, LiarNode, SwarmNode, file_of
from p2pdist.test.test_hostile import HostileCase


class PoisonTests(TestCase):
    """Row M1, with whole services that serve each other what they have."""

    def test_nine_of_ten_corrupt_everything(self) -> None:
        """The copies are right, two pieces at most are wasted on each liar, none is passed on."""
        world = FaultWorld(siege(1, "corrupt"))
        world.run()  # its watch fails at the first wrong byte that an honest node gives
        for station in world.stations[2:]:
            self.assertTrue(station.holds(world.made))
            wasted = world.fetched[station] - len(world.made.data)
            liars = len(world.crooks)
            self.assertGreater(wasted, 0, "nobody lied")
            self.assertLessEqual(wasted, limits.CORRUPT_PIECES_MAX * liars * PIECE)


class WithholdingTests(HostileCase):
    """Rows M2 and M3."""

    def test_stall_at_99_percent(self) -> None:
        """Nine of ten peers fall silent at 99 %: the copy is complete within 30 s."""
        self.assertLessEqual(healing.after_stall(1), 30)

    def test_half_of_them_lie_about_what_they_have(self) -> None:
        """Beside five liars a copy takes 2.2 times as long at most as from the five seeds alone."""

        def seconds(liars: int) -> float:
            self.setUp()
            self.world.link(delay=0.005, bandwidth=200_000.0)
            victim = self.victim_of(*[on_request(reject)] * liars, pieces=40)
            for number in range(5):
                source = self.node(50 + number, victim.content)
                source.seed()
                victim.meet(source)
            began = self.world.now
            self.finish([victim])
            return self.world.now - began

        self.assertLessEqual(seconds(5), 2.2 * seconds(0))


class ThiefTests(HostileCase):
    """Row M5."""

    def test_reader_of_everything_leaves_the_others_their_share(self) -> None:
        """One who takes all it can and confirms nothing leaves three others 90 % of their share."""

        def thief(liar: Liar, message: Message) -> None:
            if isinstance(message, Grant):
                liar.say(Request(message.index))

        def seconds(stolen: bool) -> float:
            self.setUp()
            self.world.link(delay=0.005, bandwidth=200_000.0)
            made = file_of(60)
            source = self.add_seed(made)
            friends: list[SwarmNode] = [self.node(number, made) for number in (2, 3, 4)]
            if stolen:
                liar = LiarNode(self.world, 100, made, thief)
                liar.bits = bytes(8)
                liar.dial(source.address)
                self.world.run(1)
                liar.connections[0].say(Interest(True))
            for friend in friends:  # they do not know each other: all comes from the seed
                friend.leech()
                friend.meet(source)
            began = self.world.now
            self.finish(friends)
            return self.world.now - began

        fair = 4 / 3 * seconds(False)
        self.assertLessEqual(seconds(True), fair / 0.9)


class GossipTests(TestCase):
    """Row A4."""

    def test_made_up_peers_are_hardly_asked(self) -> None:
        """Ten liars name thousands of strangers: no TCP goes there, few datagrams in all."""
        world = FaultWorld(siege(1, "gossip", liars=10, pieces=4, leeches=1))
        world.run()
        strange = [r for r in world.world.trace if r.target[0].startswith("10.77.")]
        self.assertEqual([], [record for record in strange if record.kind == "syn"])
        asked: dict[str, int] = {}
        for record in strange:
            asked[record.target[0]] = asked.get(record.target[0], 0) + 1
        self.assertLessEqual(max(asked.values(), default=0), limits.FIRST_CONTACT_TRIES)
        self.assertLessEqual(len(asked), 10 * limits.PEX_VAIN * 3)


class IdentityTests(TestCase):
    """Row M7."""

    def test_chosen_ids_do_not_collide(self) -> None:
        """Multiples of 2^61 - 1, all equal as hashes of numbers, are different keys as ids."""
        ids = [NodeID((k * (2**61 - 1)).to_bytes(20, "big")) for k in range(8000)]
        self.assertEqual(1, len({hash(int.from_bytes(each, "big")) for each in ids}))
        self.assertGreater(len({hash(each) for each in ids}), 7990)
