"""The reactor of one process in the simulated network, and its workers and resolver.

Job: what production code gets as ``reactor``: time, UDP, TCP, multicast, readiness of simulated
sockets; seeded stand-ins for worker threads and DNS. Does NOT run anything itself: the world does
(``network``). Tests: ``test_simreactor``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from attrs import define
from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IConnector,
    IDelayedCall,
    IListeningPort,
    IMulticastTransport,
    IReactorFDSet,
    IReactorFromThreads,
    IReactorMulticast,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from p2pdist.simulation.timeline import DelayedCall
from p2pdist.test import simtcp, simudp
from p2pdist.test.simsocket import Socket
from p2pdist.test.simwires import Machine, parse_ip
from p2pdist.workers import IWorkers

T = TypeVar("T")
Trigger = tuple[str, str, Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@implementer(
    IReactorTime, IReactorUDP, IReactorMulticast, IReactorTCP, IReactorFDSet, IReactorFromThreads
)
class SimReactor:
    """The reactor of the process that runs on ``machine`` now.

    Of IReactorCore it has what services use. ``stop`` fires the shutdown triggers and leaves the
    rest to the test.

    Attributes:
        machine: where its sockets are.
        running: until :meth:`stop`.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.running = True
        self._wires = machine.wires
        self._boot = machine.boot
        self._calls: dict[DelayedCall, None] = {}
        self._readers: dict[Any, Socket] = {}
        self._writers: dict[Any, Socket] = {}
        self._triggers: list[Trigger] = []
        self._resolver: SimResolver | None = None

    # --- time ---

    def seconds(self) -> float:
        """See :class:`IReactorTime`."""
        return self._wires.now

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002 -- the name is Twisted's
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        """See :class:`IReactorTime`."""
        assert delay >= 0, f"{delay} is not greater than or equal to 0 seconds"
        when = self._wires.now + delay
        return DelayedCall(self._wires, self._boot, self._calls, when, (callable, args, kwargs))

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """See :class:`IReactorTime`."""
        return list(self._calls)

    def callFromThread(
        self,
        callable: Callable[..., Any],  # noqa: A002 -- the name is Twisted's
        *args: object,
        **kwargs: object,
    ) -> None:
        """See :class:`IReactorFromThreads`; there are no threads, so it is the next event."""
        self.callLater(0, callable, *args, **kwargs)

    # --- the life of the process ---

    def callWhenRunning(
        self, function: Callable[..., Any], *args: object, **kwargs: object
    ) -> None:
        """Call at once: it runs."""
        function(*args, **kwargs)

    def addSystemEventTrigger(
        self,
        phase: str,
        eventType: str,
        function: Callable[..., Any],
        *args: object,
        **kwargs: object,
    ) -> Trigger:
        """See :class:`twisted.internet.interfaces.IReactorCore`."""
        trigger = (phase, eventType, function, args, kwargs)
        self._triggers.append(trigger)
        return trigger

    def removeSystemEventTrigger(self, triggerID: Trigger) -> None:
        """See :class:`twisted.internet.interfaces.IReactorCore`."""
        self._triggers.remove(triggerID)

    def fireSystemEvent(self, eventType: str) -> Deferred[None]:
        """Call the triggers, phase after phase, each once the Deferreds of the last fired.

        Returns:
            Fires when all were called.
        """
        due = [trigger for trigger in self._triggers if trigger[1] == eventType]
        self._triggers = [trigger for trigger in self._triggers if trigger[1] != eventType]

        async def fire() -> None:
            for phase in ("before", "during", "after"):
                calls = [maybeDeferred(t[2], *t[3], **t[4]) for t in due if t[0] == phase]
                await DeferredList(calls)

        return Deferred.fromCoroutine(fire())

    def stop(self) -> None:
        """Fire the shutdown triggers."""
        self.running = False
        self.fireSystemEvent("shutdown")

    def resolve(self, name: str, timeout: Sequence[int] = ()) -> Deferred[str]:  # noqa: ARG002
        """See :class:`twisted.internet.interfaces.IReactorCore`: one IPv4 address."""
        if isIPAddress(name):
            return succeed(name)
        assert self._resolver is not None, "a host's reactor has one"
        return self._resolver.resolve(name).addCallback(_first_ip4)

    def use_resolver(self, resolver: SimResolver) -> None:
        """Resolve names given to ``connectTCP`` with this."""
        self._resolver = resolver

    # --- ports and connections ---

    def listenUDP(
        self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192
    ) -> IListeningPort:
        """See :class:`IReactorUDP`."""
        listening = simudp.Port(port, protocol, interface, maxPacketSize, self)
        listening.startListening()
        return listening

    def listenMulticast(
        self,
        port: int,
        protocol: Any,
        interface: str = "",
        maxPacketSize: int = 8192,
        listenMultiple: bool = False,
    ) -> IMulticastTransport:
        """See :class:`IReactorMulticast`; IPv4 groups only, one socket per port and machine."""
        listening = simudp.MulticastPort(
            port, protocol, interface, maxPacketSize, self, listenMultiple
        )
        listening.startListening()
        return listening

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """See :class:`IReactorTCP`."""
        listening = simtcp.Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: tuple[str, int] | None = None,
    ) -> IConnector:
        """See :class:`IReactorTCP`."""
        connector = simtcp.Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    # --- readiness ---

    def addReader(self, reader: Any) -> None:
        """See :class:`IReactorFDSet`."""
        socket = self._readers[reader] = reader.socket
        socket.reader = reader
        socket.poll()

    def addWriter(self, writer: Any) -> None:
        """See :class:`IReactorFDSet`."""
        socket = self._writers[writer] = writer.socket
        socket.writer = writer
        socket.poll()

    def removeReader(self, reader: Any) -> None:
        """See :class:`IReactorFDSet`."""
        socket = self._readers.pop(reader, None)
        if socket is not None:
            socket.reader = None

    def removeWriter(self, writer: Any) -> None:
        """See :class:`IReactorFDSet`."""
        socket = self._writers.pop(writer, None)
        if socket is not None:
            socket.writer = None

    def removeAll(self) -> list[Any]:
        """See :class:`IReactorFDSet`."""
        removed = list(dict.fromkeys([*self._readers, *self._writers]))
        for selectable in removed:
            self.removeReader(selectable)
            self.removeWriter(selectable)
        return removed

    def getReaders(self) -> list[Any]:
        """See :class:`IReactorFDSet`."""
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        """See :class:`IReactorFDSet`."""
        return list(self._writers)


def _first_ip4(addresses: list[str]) -> str:
    for address in addresses:
        if ":" not in address:
            return address
    raise DNSLookupError("no IPv4 address")


@implementer(IWorkers)
@define
class SimWorkers:
    """Workers that take simulated time; what runs when the process dies is never done.

    Attributes:
        machine: where they work.
        chance: draws how long each function takes.
        delay: shortest and longest time, in seconds; change it for a slow disk.
    """

    machine: Machine
    chance: random.Random
    delay: tuple[float, float]

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """See :class:`IWorkers`; the function runs at the end of its time."""
        done: Deferred[T] = Deferred()

        def work() -> None:
            try:
                result = function()
            except Exception:  # noqa: BLE001 -- whatever it is, it is the caller's
                done.errback(Failure())
            else:
                done.callback(result)

        wires = self.machine.wires
        wires.at(wires.now + self.chance.uniform(*self.delay), self.machine.boot, work)
        return done


@define
class SimResolver:
    """DNS from the world's table.

    Attributes:
        machine: who asks.
        table: name -> addresses; ``None`` for a server that never answers.
        delay: seconds until an answer.
    """

    machine: Machine
    table: dict[str, list[str] | None]
    delay: float

    def resolve(self, name: str) -> Deferred[list[str]]:
        """Look ``name`` up; an IP address is its own answer.

        Returns:
            Fires with the addresses, or fails with ``DNSLookupError``, or never fires.
        """
        done: Deferred[list[str]] = Deferred()

        def answer() -> None:
            found = self.table.get(name, [])
            if found is None or done.called:
                return
            if found:
                done.callback(list(found))
            else:
                done.errback(DNSLookupError(f"no address for {name}"))

        try:
            return succeed([parse_ip(name)[1]])
        except ValueError:
            wires = self.machine.wires
            wires.at(wires.now + self.delay, self.machine.boot, answer)
            return done
