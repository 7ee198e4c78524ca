"""The simulated network in which the production service runs unchanged: world and hosts.

Job: one object, :class:`World`, from one seed; hosts that crash, restart, pause; nothing else to
import for a test. Everything is deterministic: the same seed gives the same trace, whatever
PYTHONHASHSEED is. Does NOT know p2pdist's protocols. Tests: ``test_network``.

The floors beneath: ``simulation.timeline`` (heap of events) < ``simwires`` (links, faults, trace) <
``simsocket``, ``simudp``, ``simtcp`` (kernel sockets under Twisted's own transports) <
``simreactor``. Usage::

    world = World(seed=7)
    world.link(loss=0.05, delay=(0.01, 0.05), bandwidth=10_000_000)
    a, b = world.host("10.0.0.1"), world.host("10.0.0.2", "fd00::2")
    b.reactor.listenUDP(7667, protocol)
    world.after_event.append(check_invariants)
    world.partition([a], [b])
    world.run(10)
    world.heal()
    result = world.wait_for(service.start(), timeout=30)
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from p2pdist.simulation.timeline import Boot, Stuck
from p2pdist.test.simreactor import SimReactor, SimResolver, SimWorkers
from p2pdist.test.simwires import Link, Machine, Record, Wires, parse_ip

__all__ = ["Host", "Link", "Record", "Stuck", "World"]

T = TypeVar("T")


class Crashable(Protocol):
    """A disk that can lose what was not synced."""

    def crash(self) -> object:
        """Lose it."""


class Host(Machine):
    """A machine with one process at a time.

    Attributes:
        world: where it is.
        reactor: the process's reactor; a new one after every start.
        workers: its :class:`~p2pdist.workers.IWorkers`.
        resolver: its DNS.
        rng: chance for production code.
        entropy: secrets for production code: ``entropy(size) -> bytes``.
        disk: whatever the test attaches; it outlives processes, and a crash of the host is told
            to it.
        starts: how many processes there were.
    """

    reactor: SimReactor
    workers: SimWorkers
    resolver: SimResolver
    entropy: Callable[[int], bytes]

    def __init__(self, world: World, name: str, addresses: tuple[str, ...]) -> None:
        super().__init__(world, name, addresses)
        self.world = world
        self.disk: Crashable | None = None
        self.starts = 0
        self._start()

    def __repr__(self) -> str:
        return f"<Host {self.name} {'up' if self.up else 'down'}>"

    @property
    def up(self) -> bool:
        """Whether its process lives."""
        return self.boot.alive

    def _start(self) -> None:
        world = self.world
        self.starts += 1
        self.boot = Boot()
        self.rng = world.chance("rng", self.name, self.starts)
        self.entropy = world.chance("entropy", self.name, self.starts).randbytes
        self.workers = SimWorkers(
            self, world.chance("workers", self.name, self.starts), world.worker_delay
        )
        self.resolver = SimResolver(self, world.dns, world.dns_delay)
        self.reactor = SimReactor(self)
        self.reactor.use_resolver(self.resolver)

    def crash(self) -> None:
        """Lose power: sockets, delayed calls and worker functions vanish without a word.

        Peers learn it by silence, or by a reset once the host is up again.
        """
        self._note("crash")
        self.boot.end()
        for stream in self.streams:
            stream.vanish()
        self.streams.clear()
        for socket in (*self.udp, *self.tcp):
            socket.close()
        if self.disk is not None:
            self.disk.crash()

    def kill(self) -> None:
        """End the process as SIGKILL does: it does nothing more, its kernel closes the sockets."""
        self._note("kill")
        self.boot.end()
        for socket in (*self.udp, *self.tcp, *self.streams):
            socket.close()

    def restart(self) -> None:
        """Start a new process, after a crash if it still lives. Production starts anew on it."""
        if self.up:
            self.crash()
        self._start()
        self._note("start")

    def pause(self) -> None:
        """Stop the process as SIGSTOP does: its kernel goes on, its events wait."""
        self.boot.pause()

    def resume(self) -> None:
        """Let a paused process go on."""
        self.boot.resume(self.world)

    def local_address(self, towards: tuple[str, int]) -> str | None:
        """Return the IP that packets to ``towards`` leave from, as its kernel says."""
        try:
            return self.source_for(towards[0], "::")
        except OSError:
            return None

    def leaks(self) -> list[str]:
        """Return what is left in the process: delayed calls, ports, connections.

        After a clean stop the list is empty.
        """
        left = [repr(call) for call in self.reactor.getDelayedCalls()]
        left += [repr(selectable) for selectable in self.reactor.getReaders()]
        streams = [stream for stream in self.streams if stream.owned]
        return left + [f"connection to {stream.peer_address}" for stream in streams]

    def _note(self, kind: str) -> None:
        self.world.record((self.name, 0), (self.name, 0), kind)


class World(Wires):
    """Everything there is, from one seed.

    Attributes:
        hosts: by name, in the order of their making.
        dns: name -> addresses; ``None`` for a name whose server never answers.
        dns_delay: seconds of a lookup, for processes started from now on.
        worker_delay: shortest and longest time of a worker function in seconds, likewise.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.hosts: dict[str, Host] = {}
        self.dns: dict[str, list[str] | None] = {}
        self.dns_delay = 0.02
        self.worker_delay = (0.0001, 0.002)

    def host(self, *addresses: str, name: str = "") -> Host:
        """Add a running host.

        Args:
            addresses: its IPs of any family; the first of a family is the source it prefers.
            name: the first address by default.

        Raises:
            ValueError: an address is none, or another host's.
        """
        name = name or addresses[0]
        host = Host(self, name, tuple(parse_ip(ip)[1] for ip in addresses))
        self.plug(host)
        self.hosts[name] = host
        return host

    def wait_for(self, waiting: Deferred[T] | Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """Run until a Deferred or coroutine is done, and return its result.

        Raises:
            Stuck: it is not done ``timeout`` simulated seconds later.
            Exception: what it failed with.
        """
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        results: list[T | Failure] = []
        deferred.addBoth(results.append)
        self.run_until(lambda: results, timeout)
        result = results[0]
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def state(self) -> str:
        """Return one line for the text of a failure."""
        down = [name for name, host in self.hosts.items() if not host.up]
        parts = [super().state(), f"{len(self.hosts)} hosts"]
        if down:
            parts.append(f"down: {' '.join(down)}")
        if self._cuts:
            parts.append(f"{len(self._cuts)} pairs cut")
        return ", ".join(parts)
