"""Tests of simulated time, the reactor, workers and resolver."""

from __future__ import annotations

from functools import partial

from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled, DNSLookupError
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IDelayedCall,
    IListeningPort,
    IMulticastTransport,
    IPushProducer,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorMulticast,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
    ITCPTransport,
    IUDPTransport,
)
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Factory, Protocol
from twisted.internet.task import Clock, LoopingCall, deferLater
from zope.interface.verify import verifyObject

from p2pdist.test.network import Host, Stuck, World
from p2pdist.test.support import TestCase, given
from p2pdist.workers import IWorkers


class InterfaceTests(TestCase):
    """What the simulator hands out keeps Twisted's interfaces."""

    def test_reactor(self):
        """The reactor provides what production asks of one."""
        reactor = World(1).host("10.0.0.1").reactor
        for interface in (
            IReactorTime,
            IReactorUDP,
            IReactorMulticast,
            IReactorTCP,
            IReactorFDSet,
            IReactorFromThreads,
        ):
            self.assertTrue(verifyObject(interface, reactor))

    def test_calls_and_ports(self):
        """Delayed calls, ports and connectors provide theirs."""
        reactor = World(1).host("10.0.0.1").reactor
        self.assertTrue(verifyObject(IDelayedCall, reactor.callLater(1, int)))
        port = reactor.listenUDP(0, DatagramProtocol())
        self.assertTrue(verifyObject(IListeningPort, port))
        self.assertTrue(verifyObject(IUDPTransport, port))
        group = reactor.listenMulticast(0, DatagramProtocol())
        self.assertTrue(verifyObject(IMulticastTransport, group))
        self.assertTrue(verifyObject(IListeningPort, reactor.listenTCP(0, Factory())))
        connector = reactor.connectTCP("10.0.0.2", 1, ClientFactory())
        self.assertTrue(verifyObject(IConnector, connector))

    def test_tcp_transport(self):
        """Both ends of a connection are transports, producers and consumers."""
        world = World(1)
        host = world.host("10.0.0.1")
        host.reactor.listenTCP(80, Factory.forProtocol(Protocol))
        made: list[Protocol] = []

        class Made(Protocol):
            def connectionMade(self) -> None:
                made.append(self)

        host.reactor.connectTCP("10.0.0.1", 80, ClientFactory.forProtocol(Made))
        world.run(1)
        for interface in (ITCPTransport, IPushProducer, IConsumer):
            self.assertTrue(verifyObject(interface, made[0].transport))

    def test_workers(self):
        """The workers keep production's interface."""
        self.assertTrue(verifyObject(IWorkers, World(1).host("10.0.0.1").workers))


class TimeTests(TestCase):
    """Delayed calls."""

    def setUp(self):
        self.world = World(1)
        self.reactor = self.world.host("10.0.0.1").reactor
        self.ran: list[tuple[float, str]] = []

    def note(self, name: str) -> None:
        """Write down that and when it ran."""
        self.ran.append((self.reactor.seconds(), name))

    def test_each_at_its_own_time(self):
        """A run of ten seconds runs every call at its own moment, nested ones too."""
        self.reactor.callLater(2, self.note, "b")
        self.reactor.callLater(1, lambda: self.reactor.callLater(0.5, self.note, "a"))
        self.world.run(10)
        self.assertEqual([(1.5, "a"), (2, "b")], self.ran)
        self.assertEqual(10, self.reactor.seconds())

    def test_ties_in_order(self):
        """Calls for one moment run in the order of their making."""
        for name in "cab":
            self.reactor.callLater(1, self.note, name)
        self.world.run(1)
        self.assertEqual(["c", "a", "b"], [name for _, name in self.ran])

    def test_cancel(self):
        """A cancelled call does not run, is not listed, and cannot be cancelled again."""
        call = self.reactor.callLater(1, self.note, "never")
        self.assertEqual([call], self.reactor.getDelayedCalls())
        call.cancel()
        self.assertFalse(call.active())
        self.assertEqual([], self.reactor.getDelayedCalls())
        self.assertRaises(AlreadyCancelled, call.cancel)
        self.assertRaises(AlreadyCancelled, call.reset, 1)
        self.world.run(2)
        self.assertEqual([], self.ran)

    def test_called(self):
        """A call that ran says so."""
        call = self.reactor.callLater(0, self.note, "x")
        self.assertTrue(call.active())
        self.world.run(0)
        self.assertFalse(call.active())
        self.assertRaises(AlreadyCalled, call.cancel)
        self.assertRaises(AlreadyCalled, call.delay, 1)

    def test_reset_and_delay(self):
        """Reset counts from now, delay from the call's time; both may bring it forward."""
        late = self.reactor.callLater(1, self.note, "late")
        early = self.reactor.callLater(9, self.note, "early")
        put_off = self.reactor.callLater(1, self.note, "put off")
        late.reset(5)
        early.reset(0.5)
        put_off.delay(2)
        self.assertEqual((5, 0.5, 3), (late.getTime(), early.getTime(), put_off.getTime()))
        self.world.run(10)
        self.assertEqual([(0.5, "early"), (3, "put off"), (5, "late")], self.ran)

    @given(st.lists(st.tuples(st.sampled_from(["reset", "delay", "wait"]), st.integers(0, 9))))
    def test_moves_as_the_clock_does(self, moves: list[tuple[str, int]]):
        """However a call is moved about, it runs once, when Twisted's Clock would run it."""
        world, clock = World(1), Clock()
        reactor = world.host("10.0.0.1").reactor
        ran: list[float] = []
        expected: list[float] = []
        ours = reactor.callLater(5, lambda: ran.append(reactor.seconds()))
        theirs = clock.callLater(5, lambda: expected.append(clock.seconds()))
        for move, seconds in moves:
            if move == "wait":
                world.run(seconds)
                clock.pump([1] * seconds)
            elif theirs.active():
                getattr(ours, move)(seconds)
                getattr(theirs, move)(seconds)
            world.run(0)
            clock.advance(0)
        world.run(100)
        clock.pump([1] * 100)
        self.assertEqual(expected, ran)

    def test_negative_delay(self):
        """The past is refused, as by the real reactor."""
        self.assertRaises(AssertionError, self.reactor.callLater, -1, self.note, "x")

    def test_error_is_logged(self):
        """An error in a delayed call is logged and time goes on."""
        self.reactor.callLater(1, lambda: 1 / 0)
        self.reactor.callLater(2, self.note, "after")
        self.world.run(3)
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.assertEqual([(2, "after")], self.ran)

    def test_looping_call(self):
        """Twisted's LoopingCall keeps its pace."""
        loop = LoopingCall(self.note, "tick")
        loop.clock = self.reactor
        loop.start(1.0)
        self.world.run(2.5)
        loop.stop()
        self.assertEqual([0, 1, 2], [when for when, _ in self.ran])
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_call_from_thread(self):
        """CallFromThread runs in an event of its own."""
        self.reactor.callFromThread(self.note, "x")
        self.assertEqual([], self.ran)
        self.world.run(0)
        self.assertEqual([(0, "x")], self.ran)

    def test_triggers(self):
        """Shutdown triggers run phase by phase and wait for Deferreds."""
        cleaning: Deferred[None] = Deferred()
        self.reactor.addSystemEventTrigger("after", "shutdown", self.note, "after")
        self.reactor.addSystemEventTrigger("during", "shutdown", self.note, "during")
        self.reactor.addSystemEventTrigger("before", "shutdown", lambda: cleaning)
        gone = self.reactor.addSystemEventTrigger("before", "shutdown", self.note, "gone")
        self.reactor.removeSystemEventTrigger(gone)
        self.reactor.callWhenRunning(self.note, "running")
        self.reactor.stop()
        self.assertFalse(self.reactor.running)
        self.assertEqual(["running"], [name for _, name in self.ran])
        cleaning.callback(None)
        self.assertEqual(["running", "during", "after"], [name for _, name in self.ran])


class RunTests(TestCase):
    """How the world runs."""

    def setUp(self):
        self.world = World(7)
        self.reactor = self.world.host("10.0.0.1").reactor

    def test_run_until(self):
        """It stops right after the event that makes the predicate true."""
        ran: list[int] = []
        self.reactor.callLater(1.5, ran.append, 1)
        self.reactor.callLater(2, ran.append, 2)
        self.assertEqual(1.5, self.world.run_until(lambda: ran))
        self.assertEqual([1], ran)

    def test_run_until_in_vain(self):
        """What does not come fails with seed and time."""
        self.reactor.callLater(100, int)
        error = self.assertRaises(Stuck, self.world.run_until, lambda: False, 5)
        self.assertIn("not reached within 5 s; seed 7, time 5.000000 s", str(error))

    def test_wait_for(self):
        """A Deferred or coroutine is waited for; its error is raised."""
        self.assertEqual(7, self.world.wait_for(deferLater(self.reactor, 3, lambda: 7)))
        self.assertEqual(3, self.world.now)

        async def fails() -> None:
            await deferLater(self.reactor, 1)
            raise KeyError("x")

        self.assertRaises(KeyError, self.world.wait_for, fails())
        self.assertRaises(Stuck, self.world.wait_for, Deferred(), 5)

    def test_checks_after_every_event(self):
        """A check that fails stops the run at that event and names seed and time."""
        state = {"sound": True}

        def check() -> None:
            assert state["sound"], "not sound"

        self.world.after_event.append(check)
        self.reactor.callLater(1, state.update, sound=False)
        self.reactor.callLater(1.5, state.update, sound=True)
        error = self.assertRaises(AssertionError, self.world.run, 5)
        self.assertIn("not sound; seed 7, time 1.000000 s", str(error))

    def test_endless_moment(self):
        """Calls that make each other without time passing are found out."""

        def again() -> None:
            self.reactor.callLater(0, again)

        again()
        error = self.assertRaises(Stuck, self.world.run, 1)
        self.assertIn("too many events", str(error))

    def test_events_max(self):
        """A run with too many events is stopped."""
        self.world.events_max = 10
        loop = LoopingCall(int)
        loop.clock = self.reactor
        loop.start(1)
        self.assertRaises(Stuck, self.world.run, 100)


class WorkersTests(TestCase):
    """Simulated workers."""

    def setUp(self):
        self.world = World(1)
        self.host: Host = self.world.host("10.0.0.1")

    def test_result_takes_time(self):
        """The result comes after a while."""
        done = self.host.workers.run(lambda: 5)
        self.assert_waiting(done)
        self.assertEqual(5, self.world.wait_for(done))
        self.assertGreater(self.world.now, 0)

    def test_error(self):
        """What the function raises is the Deferred's failure."""
        done = self.host.workers.run(lambda: 1 / 0)
        self.world.run(1)
        self.error_of(done, ZeroDivisionError)

    def test_any_order(self):
        """Functions handed over in order may finish in another."""
        finished: list[int] = []
        for number in range(20):
            self.host.workers.run(partial(finished.append, number))
        self.world.run(1)
        self.assertNotEqual(sorted(finished), finished)
        self.assertEqual(list(range(20)), sorted(finished))

    def test_slow_disk(self):
        """The delay can be changed while it runs."""
        self.host.workers.delay = (3.0, 3.0)
        self.world.wait_for(self.host.workers.run(int))
        self.assertEqual(3, self.world.now)

    def test_crash(self):
        """A crash before the end: the function never ran."""
        ran: list[int] = []
        done = self.host.workers.run(lambda: ran.append(1))
        self.host.crash()
        self.world.run(1)
        self.assertEqual([], ran)
        self.assert_waiting(done)


class ResolverTests(TestCase):
    """Simulated DNS."""

    def setUp(self):
        self.world = World(1)
        self.host = self.world.host("10.0.0.1")
        self.world.dns["seed.example"] = ["fd00::1", "10.0.0.1"]

    def test_answers(self):
        """A name gives its addresses after a while, an address itself."""
        answer = self.host.resolver.resolve("seed.example")
        self.assert_waiting(answer)
        self.assertEqual(["fd00::1", "10.0.0.1"], self.world.wait_for(answer))
        self.assertEqual(["10.0.0.9"], self.result_of(self.host.resolver.resolve("10.0.0.9")))

    def test_unknown(self):
        """An unknown name fails as Twisted's resolver does."""
        answer = self.host.resolver.resolve("nowhere.example")
        self.world.run(1)
        self.error_of(answer, DNSLookupError)

    def test_hangs(self):
        """A name may get no answer at all; a later change of the table does not help it."""
        self.world.dns["dead.example"] = None
        answer = self.host.resolver.resolve("dead.example")
        self.world.run(600)
        self.assert_waiting(answer)

    def test_cancelled(self):
        """A caller that gives up hears nothing more."""
        answer = self.host.resolver.resolve("seed.example")
        answer.addErrback(lambda _: None)
        answer.cancel()
        self.world.run(1)

    def test_connect_by_name(self):
        """ConnectTCP takes names, and fails when there is no such name."""
        made: list[str] = []

        class Noting(ClientFactory):
            protocol = Protocol

            def clientConnectionFailed(self, _connector, reason):
                made.append(reason.type.__name__)

            def buildProtocol(self, addr):
                made.append(addr.host)
                return Protocol()

        self.host.reactor.listenTCP(80, Factory.forProtocol(Protocol))
        self.host.reactor.connectTCP("seed.example", 80, Noting())
        self.world.run(1)
        self.host.reactor.connectTCP("nowhere.example", 80, Noting())
        self.world.run(1)
        self.assertEqual(["10.0.0.1", "DNSLookupError"], made)


class ChanceTests(TestCase):
    """Where chance comes from."""

    def test_streams_do_not_disturb_each_other(self):
        """Another host changes nothing for the first; each start of a host draws anew."""
        alone, together = World(5), World(5)
        a = alone.host("10.0.0.1")
        together.host("10.0.0.9")
        b = together.host("10.0.0.1")
        self.assertEqual(a.entropy(16), b.entropy(16))
        self.assertEqual(a.rng.random(), b.rng.random())
        again = World(5).host("10.0.0.1")
        again.restart()
        fresh = World(5).host("10.0.0.1")
        self.assertNotEqual(fresh.rng.random(), again.rng.random())
        self.assertNotEqual(fresh.entropy(16), again.entropy(16))
