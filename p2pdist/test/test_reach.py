"""Tests of what a node finds out about its own reachability."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.overlay.reach import Reach, Side, State
from p2pdist.test.support import TestCase

OWN = "192.168.1.2"
OUTSIDE = Address("20.1.0.9", 40001)
SEVERAL = limits.OBSERVERS_AGREEING


def observer(number: int, last: int = 1) -> Address:
    """Return a node in a subnet of its own."""
    return Address(f"30.{number // 256}.{number % 256}.{last}", 7667)


def private_host(towards: Address) -> str | None:
    """Stand for a machine with one private address: whatever it is asked, it leaves from there."""
    del towards
    return OWN


def public_host(towards: Address) -> str | None:
    """Stand for a machine with the address that others see, and another one."""
    return towards.host if towards.host in {OUTSIDE.host, "20.2.0.1"} else "20.2.0.1"


class PrivateCase(TestCase):
    """A machine whose own address nobody outside sees."""

    def setUp(self):
        self.side = Side(private_host)

    def see(self, count: int, now: float = 0.0, address: Address = OUTSIDE) -> bool:
        """Let observers of so many subnets see us; return whether the last one changed a thing."""
        return [self.side.observed(observer(n), address, now) for n in range(count)][-1]


class ObserverTests(PrivateCase):
    """What others see."""

    def test_two_subnets_make_a_nat(self):
        """With the second subnet that sees the same foreign host, the state is NATED."""
        self.assertFalse(self.see(SEVERAL - 1))
        self.assertEqual(State.UNKNOWN, self.side.state)
        self.assertIsNone(self.side.translated)
        self.assertTrue(self.side.observed(observer(99), OUTSIDE._replace(port=7), 0.0))
        self.assertEqual((State.NATED, OUTSIDE.host), (self.side.state, self.side.translated))

    def test_one_subnet_says_it_ten_times(self):
        """However often and from however many hosts one subnet says it, nobody is flagged."""
        for last in range(1, 11):
            self.side.observed(observer(1, last), OUTSIDE, 0.0)
        self.assertEqual(State.UNKNOWN, self.side.state)

    def test_subnets_must_agree(self):
        """Two subnets that see different hosts decide nothing."""
        self.side.observed(observer(1), OUTSIDE, 0.0)
        self.side.observed(observer(2), Address("20.1.0.10", 1), 0.0)
        self.assertEqual(State.UNKNOWN, self.side.state)

    def test_first_observer_masks(self):
        """A walk right after the first pong is answered through its first hop already."""
        self.assertFalse(self.side.masked)
        self.see(1)
        self.assertTrue(self.side.masked)

    def test_private_observers_and_views_do_not_count(self):
        """In a private network nothing is concluded, nor from a private view."""
        for number in range(4):
            self.side.observed(Address(f"10.0.{number}.1", 7667), OUTSIDE, 0.0)
            self.side.observed(observer(number), Address("10.9.9.9", 7667), 0.0)
            self.side.observed(observer(number), Address("127.0.0.1", 7667), 0.0)
        self.assertEqual((State.UNKNOWN, False), (self.side.state, self.side.masked))

    def test_views_grow_old(self):
        """What was seen OBSERVATION_S ago says nothing any more."""
        self.see(SEVERAL)
        self.assertFalse(self.side.review(limits.OBSERVATION_S))
        self.assertTrue(self.side.review(limits.OBSERVATION_S + 1))
        self.assertEqual((State.UNKNOWN, False), (self.side.state, self.side.masked))

    def test_observers_are_bounded(self):
        """OBSERVERS subnets are remembered, the longest silent forgotten first."""
        self.see(SEVERAL)
        for number in range(100, 100 + limits.OBSERVERS - 1):
            self.side.observed(observer(number), Address(f"21.0.0.{number}", 1), 1.0)
        self.assertEqual(State.UNKNOWN, self.side.state)


class StrangerTests(PrivateCase):
    """Calls that came in unasked."""

    def setUp(self):
        super().setUp()
        self.see(SEVERAL)
        self.stranger = observer(500)

    def test_stranger_proves_that_we_can_be_called(self):
        """A fresh ping from a subnet we never sent to ends the flag; bindings are still kept."""
        self.assertTrue(self.side.called(self.stranger, 1.0))
        self.assertEqual((State.OPEN, False), (self.side.state, self.side.masked))
        self.assertEqual(OUTSIDE.host, self.side.translated)

    def test_proof_may_come_first(self):
        """The stranger may come before anybody told us where he sees us."""
        side = Side(private_host)
        side.called(self.stranger, 0.0)
        for number in range(SEVERAL):
            side.observed(observer(number), OUTSIDE, 1.0)
        self.assertEqual((State.OPEN, False), (side.state, side.masked))

    def test_proof_ends(self):
        """After REACHED_S without another stranger the flag is back."""
        self.side.called(self.stranger, 0.0)
        self.see(SEVERAL, limits.REACHED_S - 1)
        self.assertEqual(State.OPEN, self.side.state)
        self.assertTrue(self.side.review(limits.REACHED_S))
        self.assertEqual(State.NATED, self.side.state)

    def test_proof_is_void_behind_another_nat(self):
        """A proof holds for the outside address it came to."""
        self.side.called(self.stranger, 0.0)
        self.see(SEVERAL, 1.0, Address("20.7.7.7", 1))
        self.assertEqual((State.NATED, "20.7.7.7"), (self.side.state, self.side.translated))

    def test_who_was_written_to_proves_nothing(self):
        """A NAT lets in whom we wrote to: neither he nor his subnet counts."""
        self.side.sent(self.stranger)
        self.assertFalse(self.side.called(self.stranger, 1.0))
        self.assertFalse(self.side.called(observer(500, 77), 1.0))
        self.assertEqual(State.NATED, self.side.state)

    def test_who_is_behind_the_same_nat_proves_nothing(self):
        """Nor does somebody who shares our outside address, or comes from a private one."""
        self.assertFalse(self.side.called(OUTSIDE._replace(port=9), 1.0))
        self.assertFalse(self.side.called(Address("192.168.1.77", 7667), 1.0))
        self.assertEqual(State.NATED, self.side.state)

    def test_sent_subnets_are_bounded(self):
        """SENT_SUBNETS are remembered, the longest unused forgotten first."""
        self.side.sent(self.stranger)
        self.side.sent(Address("10.0.0.1", 7667))
        for number in range(1000, 1000 + limits.SENT_SUBNETS - 1):
            self.side.sent(observer(number))
        self.assertFalse(self.side.called(self.stranger, 1.0))
        self.side.sent(observer(900))
        self.assertTrue(self.side.called(self.stranger, 1.0))


class OpenTests(TestCase):
    """A machine that others see at an address of its own."""

    def test_own_address_is_open(self):
        """One observer that sees an address of ours settles it; so does the second address."""
        for host in ("20.2.0.1", OUTSIDE.host):
            side = Side(public_host)
            self.assertTrue(side.observed(observer(1), Address(host, 7667), 0.0))
            self.assertEqual(State.OPEN, side.state)
            self.assertIsNone(side.translated)

    def test_liars_must_outnumber_the_others(self):
        """Two subnets that lie flag nobody while as many tell the truth."""
        side = Side(public_host)
        foreign = Address("20.66.6.6", 7667)
        for number in range(SEVERAL):
            side.observed(observer(number), OUTSIDE, 0.0)
            side.observed(observer(100 + number), foreign, 0.0)
        self.assertEqual((State.OPEN, False), (side.state, side.masked))
        side.observed(observer(200), foreign, 0.0)
        self.assertEqual(State.NATED, side.state)

    def test_machine_that_cannot_tell(self):
        """Without a way to learn its own addresses a node is never flagged."""
        reach = Reach()
        for number in range(9):
            self.assertFalse(reach.observed(observer(number), OUTSIDE, 0.0))
        self.assertFalse(reach.nated(OUTSIDE))


class FamilyTests(TestCase):
    """Both families of one node."""

    def setUp(self):
        self.six = Address("2a00:1::9", 7667)
        self.reach = Reach(lambda towards: towards.host if ":" in towards.host else OWN)

    def test_families_stand_for_themselves(self):
        """Behind a NAT in IPv4 and open in IPv6, as most homes are."""
        for number in range(SEVERAL):
            self.reach.observed(observer(number), OUTSIDE, 0.0)
            self.reach.observed(Address(f"2a00:{number + 2}::1", 7667), self.six, 0.0)
        self.assertTrue(self.reach.nated(OUTSIDE) and self.reach.masked(OUTSIDE))
        self.assertFalse(self.reach.nated(self.six) or self.reach.masked(self.six))
        self.assertEqual(State.OPEN, self.reach.ipv6.state)
        self.reach.sent(self.six)
        self.assertFalse(self.reach.called(self.six, 1.0))
        self.assertTrue(self.reach.called(observer(500), 1.0))
        self.assertTrue(self.reach.review(limits.REACHED_S))

    def test_no_view_across_families(self):
        """An observer cannot have seen an address of the other family."""
        for number in range(9):
            self.reach.observed(observer(number), Address("2a00:66::6", 7667), 0.0)
        self.assertEqual(State.UNKNOWN, self.reach.ipv6.state)
