"""The ways in: what each ``nodes`` entry is said to do, and how often it is asked."""

from __future__ import annotations

from itertools import pairwise

from p2pdist import limits
from p2pdist.addresses import Address, HostPort
from p2pdist.keys import NetworkKeys
from p2pdist.overlay.bootstrap import EntryReport, EntryState
from p2pdist.overlay.messages import (
    Status,
)
from p2pdist.test.overlayworld import OverlayNode, lan
from p2pdist.test.support import TestCase

PRIVATE = NetworkKeys.from_secret(b"s" * 32)


class StateTests(TestCase):
    """Every state an entry can be in."""

    def setUp(self) -> None:
        """Make a world of three hosts."""
        self.world, (self.a, self.b, self.c) = lan(count=3)

    def states(self, node: OverlayNode) -> list[EntryState]:
        """Return the states reported, in order."""
        return [report.state for report in node.reports]

    def state(self, node: OverlayNode) -> EntryState:
        """Return how the only entry stands."""
        (report,) = node.bootstrap.reports()
        return report.state

    def test_address_that_answers(self) -> None:
        """An address is asked at once, and answers."""
        OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, "10.0.0.2")
        self.assertEqual(EntryState.ASKED, self.state(node))
        self.world.run(1)
        self.assertEqual([EntryState.ANSWERED], self.states(node))
        self.assertIsNotNone(node.network.neighbours.get(Address("10.0.0.2", 7667)))

    def test_silence_and_return(self) -> None:
        """A silent entry is said to be silent, and found when it comes up."""
        self.b.crash()
        node = OverlayNode.on(self.a, "10.0.0.2")
        self.world.run(limits.FIRST_CONTACT_WINDOW_S + 0.1)
        self.assertEqual([EntryState.SILENT], self.states(node))
        self.b.restart()
        OverlayNode.on(self.b)
        self.world.run(limits.CONTACT_RETRY_S * 3)
        self.assertEqual([EntryState.SILENT, EntryState.ANSWERED], self.states(node))

    def test_entry_that_dies_later(self) -> None:
        """An entry that answered is asked again every ENTRY_CHECK_S, and may fall silent."""
        OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, "10.0.0.2")
        self.world.run(1)
        self.b.crash()
        self.world.run(limits.ENTRY_CHECK_S * 1.3 + 10)
        self.assertEqual([EntryState.ANSWERED, EntryState.SILENT], self.states(node))

    def test_many_entries(self) -> None:
        """Many entries that answer are asked more seldom: ENTRIES_CHECKED in ENTRY_CHECK_S."""
        OverlayNode.on(self.a, *(f"10.0.1.{number}" for number in range(1, 17)))
        for number in range(1, 17):
            OverlayNode.on(self.world.host(f"10.0.1.{number}"))
        self.world.run(5)
        start = len(self.world.trace)
        self.world.run(limits.ENTRY_CHECK_S)
        asked = [r for r in self.world.trace[start:] if r.source[0] == "10.0.0.1"]
        self.assertLessEqual(len(asked), 3 * limits.ENTRIES_CHECKED)

    def test_entry_that_comes_back(self) -> None:
        """One that answered once is asked every ENTRY_RETURN_S while it is silent, for ever."""
        OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, "10.0.0.2")
        self.world.run(1)
        self.b.crash()
        self.world.run(1000)
        self.assertEqual(EntryState.SILENT, self.state(node))
        self.b.restart()
        OverlayNode.on(self.b)
        self.world.run(limits.ENTRY_RETURN_S + 1)
        self.assertEqual(EntryState.ANSWERED, self.state(node))

    def test_entry_that_is_restarted(self) -> None:
        """A node that was restarted is told of our swarms again, soon after."""
        OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, "10.0.0.2")
        node.join()
        self.world.run(10)
        self.b.crash()
        self.b.restart()
        again = OverlayNode.on(self.b)
        self.assertEqual(0, again.network.peers.total)
        self.world.run(limits.ENTRY_CHECK_S * (1 + limits.RTO_JITTER) + 5)
        self.assertEqual(1, again.network.peers.total)

    def test_name_that_resolves(self) -> None:
        """A name is resolved first; all its addresses are asked, one answer is enough."""
        self.world.dns["boot.example"] = ["10.0.0.9", "10.0.0.2", "no address"]
        OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, "boot.example")
        self.assertEqual(EntryState.RESOLVING, self.state(node))
        self.world.run(5)
        self.assertEqual([EntryState.ASKED, EntryState.ANSWERED], self.states(node))

    def test_few_addresses_of_a_name_are_used(self) -> None:
        """A name with many addresses has DNS_ADDRESSES of them asked."""
        many = [f"10.5.0.{number}" for number in range(1, 100)]
        self.world.dns["boot.example"] = many
        node = OverlayNode.on(self.a, "boot.example")
        self.world.run(2.5)
        asked = {r.target[0] for r in self.world.trace}
        self.assertEqual(set(many[: limits.DNS_ADDRESSES]), asked)
        self.assertEqual(EntryState.SILENT, self.state(node))

    def test_unknown_name_that_comes_back(self) -> None:
        """A name that is not known, or has no usable address, is asked for again."""
        node = OverlayNode.on(self.a, "boot.example")
        self.world.run(1)
        self.assertEqual([EntryState.NO_NAME], self.states(node))
        self.world.dns["boot.example"] = ["text"]
        self.world.run(10)
        self.world.dns["boot.example"] = ["224.0.0.1"]
        self.world.run(20)
        OverlayNode.on(self.b)
        self.world.dns["boot.example"] = ["10.0.0.2"]
        self.world.run(60)
        self.assertEqual(EntryState.ANSWERED, self.state(node))
        self.assertNotIn(EntryState.SILENT, self.states(node))

    def test_name_server_that_hangs(self) -> None:
        """After DNS_TIMEOUT_S the name counts as unknown; later it may work."""
        self.world.dns["boot.example"] = None
        node = OverlayNode.on(self.a, "boot.example")
        self.world.run(limits.DNS_TIMEOUT_S - 0.1)
        self.assertEqual([], node.reports)
        self.world.run(0.2)
        self.assertEqual([EntryState.NO_NAME], self.states(node))
        OverlayNode.on(self.b)
        self.world.dns["boot.example"] = ["10.0.0.2"]
        self.world.run(30)
        self.assertEqual(EntryState.ANSWERED, self.state(node))

    def test_wrong_network(self) -> None:
        """A node that serves another network says so; gone, it is silent like any other."""
        public = OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, "10.0.0.2", keys=PRIVATE)
        self.world.run(3)
        self.assertEqual([EntryState.WRONG_NETWORK], self.states(node))
        self.world.run(60)
        self.assertEqual([EntryState.WRONG_NETWORK], self.states(node))
        self.b.crash()
        self.world.run(130)
        self.assertEqual(EntryState.SILENT, self.state(node))
        del public

    def test_no_peers(self) -> None:
        """An entry with nobody to name and nobody to ask says so."""
        entry = OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, entry)
        node.join()
        self.world.run(3)
        self.assertEqual([EntryState.ANSWERED, EntryState.NO_PEERS], self.states(node))

    def test_offer_clears_no_peers(self) -> None:
        """An offer from the entry shows that it knows peers after all."""
        entry = OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, entry)
        membership, _ = node.join()
        self.world.run(3)
        self.assertEqual(EntryState.NO_PEERS, self.state(node))
        entry.join(Status.SEED)
        membership.search()
        self.world.run(1)
        self.assertEqual(EntryState.ANSWERED, self.state(node))

    def test_tcp_blocked(self) -> None:
        """The commonest firewall fault has its own name and outlives further answers."""
        OverlayNode.on(self.b)
        node = OverlayNode.on(self.a, "10.0.0.2")
        self.world.run(1)
        node.bootstrap.tcp_blocked(Address("10.0.0.2", 7667))
        node.bootstrap.tcp_blocked(Address("10.0.0.77", 7667))
        self.world.run(limits.TOKEN_REFRESH_S * 1.5)
        self.assertEqual(EntryState.TCP_BLOCKED, self.state(node))

    def test_itself(self) -> None:
        """One descriptor for all machines names this one too: no fault, and no more tries."""
        node = OverlayNode.on(self.a, "10.0.0.1")
        self.world.run(60)
        self.assertEqual([EntryState.SELF], self.states(node))
        self.assertLessEqual(len(self.world.trace), 1)

    def test_reports_are_sentences(self) -> None:
        """A report is the entry and what it does."""
        report = EntryReport(HostPort("boot.example", 7667), EntryState.SILENT)
        self.assertEqual("boot.example:7667 no answer (is it running, is UDP open?)", str(report))


class ScheduleTests(TestCase):
    """How often a silent address hears of us."""

    def test_schedule(self) -> None:
        """Three tries in 2 s, then one 5, 10, 20, 40 and ever 60 s later: 20 in ten minutes.

        Of one or two entries each is asked as often as makes three a minute.
        """
        for seed, entries, most in ((0, 3, 20), (1, 64, 20), (2, 4, 20), (3, 2, 30), (4, 1, 45)):
            world, (a,) = lan(seed=seed, count=1)
            OverlayNode.on(a, *(f"10.0.0.{number}" for number in range(9, 9 + entries)))
            world.run(600)
            times = [record.time for record in world.trace if record.target[0] == "10.0.0.9"]
            self.assertEqual({limits.PING_BYTES}, {record.length for record in world.trace})
            longest = min(limits.CONTACT_RETRY_ONE_S * entries, limits.CONTACT_RETRY_MAX_S)
            first = [time for time in times if time <= limits.FIRST_CONTACT_WINDOW_S]
            self.assertEqual(limits.FIRST_CONTACT_TRIES, len(first))
            self.assertLessEqual(len(times), most)
            pauses = [b - a for a, b in pairwise(times[2:])]
            for number, pause in enumerate(pauses):
                wanted = min(limits.CONTACT_RETRY_S * 2**number, longest)
                spread = wanted * limits.RTO_JITTER + limits.FIRST_CONTACT_WINDOW_S
                self.assertLess(abs(pause - wanted), spread, (number, pause))

    def test_entries_are_bounded_and_tried_once(self) -> None:
        """BOOTSTRAP_ENTRIES are kept; the same entry again changes nothing."""
        world, (a,) = lan(count=1)
        node = OverlayNode.on(a)
        many = tuple(HostPort("10.0.0.9", port) for port in range(1, limits.BOOTSTRAP_ENTRIES + 9))
        node.bootstrap.add(many[:2])
        node.bootstrap.add(many[:2])
        self.assertEqual(2, len(world.trace))
        node.bootstrap.add(many)
        self.assertEqual(limits.BOOTSTRAP_ENTRIES, len(node.bootstrap.reports()))
        world.run(1)

    def test_calls_that_cannot_be_made_are_made_later(self) -> None:
        """With CALLS_OUTSTANDING calls open an entry waits for its next turn."""
        world, (a, b) = lan(count=2)
        OverlayNode.on(b)
        node = OverlayNode.on(a)
        for number in range(limits.CALLS_OUTSTANDING):
            address = Address(f"10.8.{number // 200}.{number % 200 + 1}", 7667)
            node.network.rpc.ping(address).addErrback(lambda _failure: None)
        node.bootstrap.add((HostPort("10.0.0.2", 7667),))
        world.run(1)
        self.assertEqual([EntryState.SILENT], [report.state for report in node.reports])
        world.run(10)
        self.assertEqual(EntryState.ANSWERED, node.reports[-1].state)

    def test_stop_leaves_nothing(self) -> None:
        """Tries, waits and resolutions end; a second stop is fine."""
        world, (a, _) = lan(count=2)
        world.dns["hangs.example"] = None
        node = OverlayNode.on(a, "10.0.0.2", "hangs.example", "unknown.example")
        world.run(0.5)
        node.stop()
        node.stop()
        self.assertEqual(0, len(a.reactor.getDelayedCalls()))
        before = len(world.trace)
        world.run(60)
        self.assertEqual(before, len(world.trace))
        reports = len(node.reports)
        node.bootstrap.add((HostPort("10.0.0.3", 7667),))
        self.assertEqual(reports, len(node.reports))

    def test_answer_after_stop_sets_nothing_going(self) -> None:
        """A pong or a name that comes when the bootstrap has stopped starts no timer."""
        world, (a, b) = lan(count=2)
        world.dns["late.example"] = ["10.0.0.2"]
        OverlayNode.on(b)
        node = OverlayNode.on(a, "10.0.0.2", "late.example")
        node.bootstrap.stop()
        world.run(2)
        self.assertEqual(0, len(a.reactor.getDelayedCalls()))
