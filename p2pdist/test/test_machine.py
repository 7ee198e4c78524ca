"""The seams to this computer."""

from __future__ import annotations

import resource
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.addresses import Address, Scope, scope
from p2pdist.faces.process import steady
from p2pdist.machine import (
    allow_files,
    local_address,
    own_addresses,
    private_addresses,
    real_machine,
    resolve_with,
)
from p2pdist.storage.disk import IDisk
from p2pdist.test.support import TestCase
from p2pdist.workers import IWorkers


@define
class FakeResolver:
    """Finds the given addresses at once."""

    hosts: tuple[str, ...]

    def resolveHostName(self, receiver: Any, name: str) -> None:
        """Tell the receiver."""
        del name
        receiver.resolutionBegan(None)
        for host in self.hosts:
            receiver.addressResolved(Address(host, 0))
        receiver.resolutionComplete()


@define
class FakeReactor:
    """As much of a reactor as a machine touches."""

    nameResolver: FakeResolver
    triggers: list[tuple[str, str, Any]]

    def addSystemEventTrigger(self, phase: str, event: str, call: Any) -> None:
        """Record it."""
        self.triggers.append((phase, event, call))


class FilesTests(TestCase):
    """How many files the process may have open."""

    def test_as_many_as_it_may(self):
        """The soft limit rises to ``limits.FILES_WANTED``, or as far as the hard one lets it."""
        infinite = resource.RLIM_INFINITY
        for before, after in (
            ((256, 4 * limits.FILES_WANTED), limits.FILES_WANTED),
            ((256, 300), 300),
            ((256, infinite), limits.FILES_WANTED),
            ((1 << 20, 1 << 20), 1 << 20),
            ((infinite, infinite), limits.FILES_WANTED),
        ):
            held = [before]
            self.patch(resource, "getrlimit", lambda _which, held=held: held[-1])
            self.patch(resource, "setrlimit", lambda _which, new, held=held: held.append(new))
            self.assertEqual(after, allow_files())
            self.assertEqual(before[1], held[-1][1])


class ResolveTests(TestCase):
    """Host names."""

    def test_all_addresses(self):
        """Every address of both families is returned."""
        reactor = FakeReactor(FakeResolver(("10.0.0.1", "fd00::1")), [])
        self.assertEqual(["10.0.0.1", "fd00::1"], self.result_of(resolve_with(reactor, "x")))

    def test_unknown_name(self):
        """A name without addresses fails with DNSLookupError."""
        reactor = FakeReactor(FakeResolver(()), [])
        self.error_of(resolve_with(reactor, "x"), DNSLookupError)

    def test_answer_after_nobody_waits(self):
        """An answer that comes after its time is dropped."""

        @define
        class Slow(FakeResolver):
            def resolveHostName(self, receiver: Any, name: str) -> None:
                del name
                late.append(receiver)

        late: list[Any] = []
        waiting = resolve_with(FakeReactor(Slow(("10.0.0.1",)), []), "x")
        clock = Clock()
        waiting.addTimeout(10, clock)
        clock.advance(10)
        self.error_of(waiting, Exception)
        FakeResolver(("10.0.0.1",)).resolveHostName(late[0], "x")


class RealMachineTests(TestCase):
    """What production uses."""

    def test_seams_are_filled(self):
        """Workers, disk, entropy and chance are there; the workers end with the reactor."""
        reactor = FakeReactor(FakeResolver(("10.0.0.1",)), [])
        machine = real_machine(reactor)
        (phase, event, stop) = reactor.triggers[0]
        stop()
        self.assertEqual(("after", "shutdown"), (phase, event))
        self.assertTrue(IWorkers.providedBy(machine.workers))
        self.assertTrue(IDisk.providedBy(machine.disk))
        self.assertNotEqual(machine.entropy(16), machine.entropy(16))
        resolved: Deferred[list[str]] = machine.resolve("x")
        self.assertEqual(["10.0.0.1"], self.result_of(resolved))

    def test_private_addresses(self):
        """Only private IPv4 addresses of this machine count, and never loopback."""
        for ip in private_addresses():
            self.assertIs(Scope.PRIVATE, scope(Address(ip, 1)))

    def test_own_addresses(self):
        """What others are told of this machine is reachable: no loopback; the nearest first."""
        scopes = [scope(Address(ip, 1)) for ip in own_addresses()]
        self.assertNotIn(Scope.LOOPBACK, scopes)
        self.assertEqual(sorted(scopes), scopes)
        self.assertLessEqual(set(private_addresses()), set(own_addresses()))

    def test_local_address(self):
        """A datagram to an address of our own can leave from that very address, others cannot."""
        for ip in ("127.0.0.1", "127.1.2.3", *private_addresses()):
            self.assertEqual(ip, local_address(Address(ip, 9)))
        self.assertNotEqual("203.0.113.77", local_address(Address("203.0.113.77", 9)))
        self.assertIsNone(local_address(Address("255.255.255.255", 9)), "broadcasts are refused")

    def test_clock_cannot_be_set(self):
        """The reactor's clock becomes one that setting the time of day does not move."""
        clock = Clock()
        self.assertIs(clock, steady(clock))
        first = clock.seconds()
        self.assertLessEqual(first, clock.seconds())
        self.assertGreater(first, 0)
