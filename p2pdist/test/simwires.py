"""The wires of the simulated network: which packets arrive, when, and what was sent.

Job: machines with their addresses and bound ports, links and their faults, partitions, the trace.
Does NOT know sockets or Twisted (``simudp``, ``simtcp``) nor processes (``network``).
Every draw comes from the sending machine's own stream of chance, named by seed and machine: a
machine more does not change what befalls the others. Tests: ``test_network``.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import random
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from attrs import define, field, frozen

from p2pdist.simulation.timeline import KERNEL, Boot, Timeline

LOOPBACK_S: Final = 20e-6
TRACE_KEPT: Final = 200_000
_TRACE_FOLD: Final = 4096
_FIRST_FREE_PORT: Final = 49152

SocketAddress = tuple[str, int]


class Record(NamedTuple):
    """One line of the trace.

    Attributes:
        time: simulated seconds.
        source: ``(ip, port)``; port 0 for what a whole host does.
        target: where to.
        kind: ``udp``, ``syn``, ``tcp``, ``fin``, ``rst``, ``crash``, ``kill`` or ``start``.
        length: payload bytes. Never the payload: it may be encrypted anew in each run
            (decision 29).
    """

    time: float
    source: SocketAddress
    target: SocketAddress
    kind: str
    length: int

    def __str__(self) -> str:
        source, target = (f"{ip}:{port}" for ip, port in (self.source, self.target))
        return f"{self.time:12.6f}  {source:>24} -> {target:<24} {self.kind:5} {self.length:6}"


def _range(delay: float | tuple[float, float]) -> tuple[float, float]:
    return delay if isinstance(delay, tuple) else (delay, delay)


@frozen(kw_only=True)
class Link:
    """What one direction between two machines does to packets.

    Attributes:
        loss: chance that a packet is lost; TCP sends it again after a while.
        delay: shortest and longest time one way, in seconds; one number for both.
        duplicate: chance that a datagram comes twice.
        reorder: chance that a datagram is held back ...
        reorder_s: ... by up to so many seconds.
        corrupt: chance that one bit of a datagram is flipped.
        mtu: longest datagram, in payload bytes; longer ones vanish.
        split: chance that a TCP segment is cut in two at any byte.
    """

    loss: float = 0.0
    delay: tuple[float, float] = field(default=(0.01, 0.01), converter=_range)
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_s: float = 0.2
    corrupt: float = 0.0
    mtu: int = 65507
    split: float = 0.05


@lru_cache(maxsize=65536)
def parse_ip(text: str) -> tuple[bool, str]:
    """Return whether ``text`` is written as IPv6, and the canonical IP that packets carry.

    An IPv4-mapped IPv6 address is written as IPv6 and carried by IPv4 packets.

    Raises:
        ValueError: no IP address.
    """
    ip = ipaddress.ip_address(text)
    if isinstance(ip, ipaddress.IPv6Address):
        return True, str(ip.ipv4_mapped or ip)
    return False, str(ip)


@lru_cache(maxsize=65536)
def is_loopback(ip: str) -> bool:
    """Tell whether packets to ``ip`` stay on their machine."""
    return ipaddress.ip_address(ip).is_loopback


def is_multicast(ip: str) -> bool:
    """Tell whether ``ip`` is an IPv4 group (LAN discovery uses no other)."""
    return ":" not in ip and 224 <= int(ip.partition(".")[0]) <= 239


def shown(ip: str, *, ipv6: bool) -> str:
    """Return ``ip`` as a socket of that family shows it: IPv4 on IPv6 is mapped, as on Linux."""
    return "::ffff:" + ip if ipv6 and ":" not in ip else ip


def refuse(code: int) -> OSError:
    """Return the error a system call fails with."""
    return OSError(code, os.strerror(code))


class Bound(Protocol):
    """A socket that holds a port."""

    def arrive(self, what: Any, source: SocketAddress) -> None:
        """Take a datagram's bytes or a connection's socket; ``source`` is its ``(ip, port)``."""

    def close(self) -> None:
        """Close it, as the end of its process does."""


@define(eq=False)
class Lane:
    """A machine's uplink or downlink; segments pass it one after the other.

    Only TCP queues here: fair queueing lets sparse datagrams by.

    Attributes:
        rate: bytes per second.
        free_at: when the last segment taken has passed.
    """

    rate: float
    free_at: float = 0.0

    def take(self, now: float, size: int) -> float:
        """Queue ``size`` bytes; return when they have passed."""
        self.free_at = max(now, self.free_at) + size / self.rate
        return self.free_at


class Ports:
    """The bound sockets of one protocol on one machine; two wildcards of a port exclude each other.

    ``::`` hears IPv4 too, as on Linux, so it excludes ``0.0.0.0`` (decision 16).
    """

    def __init__(self) -> None:
        self._bound: dict[SocketAddress, Bound] = {}

    def __iter__(self) -> Iterator[Bound]:
        return iter(list(self._bound.values()))

    def in_use(self, ip: str, port: int) -> bool:
        """Tell whether another socket has this port on an overlapping address."""
        return any(
            other_port == port and (other == ip or "::" in (ip, other) or self._wild4(ip, other))
            for other, other_port in self._bound
        )

    @staticmethod
    def _wild4(ip: str, other: str) -> bool:
        return "0.0.0.0" in (ip, other) and ":" not in ip + other

    def bind(self, ip: str, port: int, socket: Bound) -> None:
        """Give ``socket`` the port on ``ip``, which must not be in use."""
        self._bound[ip, port] = socket

    def release(self, ip: str, port: int, socket: Bound) -> None:
        """Free the port if ``socket`` still has it."""
        if self._bound.get((ip, port)) is socket:
            del self._bound[ip, port]

    def find(self, ip: str, port: int) -> Bound | None:
        """Return who hears ``ip``: its own socket before the wildcards."""
        bound = self._bound
        found = bound.get((ip, port))
        if found is None and ":" not in ip:
            found = bound.get(("0.0.0.0", port))
        return found or bound.get(("::", port))


class Machine:
    """What the wires know of a host: it outlives its processes.

    Attributes:
        wires: the network it hangs on.
        name: of the host; its streams of chance are named after it.
        addresses: its IPs, in the order in which it prefers them as source.
        boot: the process of now, or the last one when it is down.
        weather: chance of what befalls the packets it sends.
        uplink: bandwidth out, ``None`` for unlimited.
        downlink: bandwidth in.
        udp: bound UDP sockets.
        tcp: listening TCP sockets.
        streams: its ends of TCP connections.
        router: the NAT before it, see ``simnat``; without one it is reached from everywhere.
    """

    def __init__(self, wires: Wires, name: str, addresses: tuple[str, ...]) -> None:
        self.wires = wires
        self.name = name
        self.addresses = addresses
        self.boot = Boot()
        self.weather = wires.chance("weather", name)
        self.uplink: Lane | None = None
        self.downlink: Lane | None = None
        self.udp = Ports()
        self.tcp = Ports()
        self.streams: dict[Any, None] = {}
        self.router: Machine | None = None
        self._next_port = _FIRST_FREE_PORT

    def set_bandwidth(self, up: float | None, down: float | None) -> None:
        """Limit TCP to so many bytes per second out and in; ``None`` lifts the limit."""
        self.uplink = None if up is None else Lane(up)
        self.downlink = None if down is None else Lane(down)

    def owns(self, ip: str) -> bool:
        """Tell whether packets to ``ip`` end here."""
        return ip in self.addresses or is_loopback(ip)

    def outward(
        self, inside: Machine, source: SocketAddress, target: SocketAddress
    ) -> SocketAddress:
        """Return the source that a datagram from ``inside`` shows behind this router."""
        raise NotImplementedError

    def inward(
        self, source: SocketAddress, target: SocketAddress
    ) -> tuple[Machine, SocketAddress] | None:
        """Return the machine and socket that a datagram arriving here is for."""
        del source
        return self, target

    def free_port(self, ports: Ports, ip: str) -> int:
        """Return the next free port; a port is not given again soon, not even after a restart."""
        while True:
            port = self._next_port
            self._next_port = port + 1 if port < 65535 else _FIRST_FREE_PORT
            if not ports.in_use(ip, port):
                return port

    def check_bind(self, ports: Ports, ip: str, port: int) -> int:
        """Return ``port``, or a free one for 0.

        Raises:
            OSError: EADDRNOTAVAIL or EADDRINUSE.
        """
        if ip not in {"0.0.0.0", "::"} and not self.owns(ip) and not is_multicast(ip):
            raise refuse(errno.EADDRNOTAVAIL)
        if port == 0:
            return self.free_port(ports, ip)
        if ports.in_use(ip, port):
            raise refuse(errno.EADDRINUSE)
        return port

    def source_for(self, target: str, bound: str) -> str:
        """Return the IP that packets to ``target`` carry as source.

        That is the bound one, else the target itself on its own machine, else the first address
        of the target's family.

        Raises:
            OSError: ENETUNREACH without such an address; EINVAL from loopback to elsewhere.
        """
        if bound not in {"0.0.0.0", "::"}:
            if is_loopback(bound) and not self.owns(target):
                raise refuse(errno.EINVAL)
            return bound
        if self.owns(target):
            return target
        for ip in self.addresses:
            if (":" in ip) == (":" in target):
                return ip
        raise refuse(errno.ENETUNREACH)


class Wires(Timeline):
    """All machines and what lies between them.

    Attributes:
        groups: multicast groups and the bound sockets that joined them, by machine.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.groups: dict[str, dict[Bound, Machine]] = {}
        self._machines: dict[str, Machine] = {}
        self._link = Link()
        self._links: dict[tuple[Machine, Machine], Link] = {}
        self._cuts: dict[tuple[Machine, Machine], None] = {}
        self._clogs: dict[tuple[Machine, Machine], float] = {}
        self._bandwidth: float | None = None
        self._hash = hashlib.sha256()
        self._folded: deque[tuple[Any, ...]] = deque(maxlen=TRACE_KEPT)
        self._fresh: list[tuple[Any, ...]] = []

    def chance(self, *names: object) -> random.Random:
        """Return the stream of chance of this seed and these names, the same in every run."""
        return random.Random("/".join(str(name) for name in (self.seed, *names)))

    def plug(self, machine: Machine) -> None:
        """Connect a machine's addresses."""
        for ip in machine.addresses:
            if ip in self._machines:
                raise ValueError(f"{ip} belongs to {self._machines[ip].name}")
            self._machines[ip] = machine
        machine.set_bandwidth(self._bandwidth, self._bandwidth)

    # --- weather ---

    def link(self, *, bandwidth: float | None = None, **link: Any) -> None:
        """Set what every pair without a link of its own does, and every host's bandwidth.

        Args:
            bandwidth: bytes per second of each host's uplink and of its downlink.
            link: attributes of :class:`Link`; those not named get their defaults.
        """
        self._link = Link(**link)
        self._bandwidth = bandwidth
        for machine in self._machines.values():
            machine.set_bandwidth(bandwidth, bandwidth)

    def link_between(self, a: Machine, b: Machine, *, one_way: bool = False, **link: Any) -> None:
        """Give a pair a :class:`Link` of its own, from ``a`` to ``b`` or both ways."""
        self._links[a, b] = Link(**link)
        if not one_way:
            self._links[b, a] = self._links[a, b]

    def link_of(self, a: Machine, b: Machine) -> Link:
        """Return the link that packets from ``a`` to ``b`` take."""
        return self._links.get((a, b), self._link) if self._links else self._link

    def partition(
        self, these: Iterable[Machine], those: Iterable[Machine], *, one_way: bool = False
    ) -> None:
        """Cut all pairs between two groups; one way, only packets from the first are lost.

        Datagrams sent across are lost; TCP data waits, and its connection is lost after
        ``simtcp.TCP_TIMEOUT_S``. Packets already under way arrive.
        """
        those = list(those)
        for a in these:
            for b in those:
                self._cuts[a, b] = None
                if not one_way:
                    self._cuts[b, a] = None

    def clog(self, a: Machine, b: Machine, seconds: float, *, one_way: bool = False) -> None:
        """Hold everything sent between two hosts until ``seconds`` from now."""
        self._clogs[a, b] = self.now + seconds
        if not one_way:
            self._clogs[b, a] = self.now + seconds

    def heal(self) -> None:
        """End all partitions and clogs. Links stay as they are set."""
        self._cuts.clear()
        self._clogs.clear()

    # --- packets ---

    def route(self, sender: Machine, ip: str) -> Machine | None:
        """Return the machine that packets from ``sender`` to ``ip`` reach."""
        if is_loopback(ip):
            return sender
        found = self._machines.get(ip)
        return found if found and found.router in {None, sender.router} else None

    def is_cut(self, a: Machine, b: Machine) -> bool:
        """Tell whether packets from ``a`` to ``b`` are lost without exception."""
        return a is not b and ((a, b) in self._cuts or self.link_of(a, b).loss >= 1)

    def transit(self, a: Machine, b: Machine) -> float | None:
        """Draw how many seconds a packet from ``a`` to ``b`` takes; ``None``: it is lost."""
        if a is b:
            return LOOPBACK_S
        if self._cuts and (a, b) in self._cuts:
            return None
        link = self.link_of(a, b)
        draw = a.weather.random
        if link.loss and draw() < link.loss:
            return None
        low, high = link.delay
        delay = low + (high - low) * draw()
        if self._clogs:
            delay += max(0.0, self._clogs.get((a, b), 0.0) - self.now)
        return delay

    def send_datagram(
        self, sender: Machine, source: SocketAddress, target: SocketAddress, data: bytes
    ) -> None:
        """Send a datagram towards ``target`` and see what becomes of it."""
        receiver = self.route(sender, target[0])
        if sender.router and receiver and receiver.router is None:
            source = sender.router.outward(sender, source, target)
        self.record(source, target, "udp", len(data))
        if receiver is not None:
            self._carry(sender, receiver, source, target, data)
        elif is_multicast(target[0]):
            members = self.groups.get(target[0], {})
            for member in dict.fromkeys(members.values()):
                self._carry(sender, member, source, target, data)

    def _carry(
        self,
        sender: Machine,
        receiver: Machine,
        source: SocketAddress,
        target: SocketAddress,
        data: bytes,
    ) -> None:
        link = self.link_of(sender, receiver)
        if len(data) > link.mtu and sender is not receiver:
            return
        draw = sender.weather.random
        for _ in range(2 if link.duplicate and draw() < link.duplicate else 1):
            delay = self.transit(sender, receiver)
            if delay is None:
                continue
            if link.reorder and draw() < link.reorder:
                delay += link.reorder_s * draw()
            if link.corrupt and draw() < link.corrupt:
                data = _flip_a_bit(data, sender.weather)
            self.at(self.now + delay, KERNEL, self._deliver, receiver, source, target, data)

    def _deliver(
        self, receiver: Machine, source: SocketAddress, target: SocketAddress, data: bytes
    ) -> None:
        ended = receiver.inward(source, target)
        if ended is None:
            return
        receiver, (ip, port) = ended
        socket = receiver.udp.find(ip, port)
        if socket is None:
            return
        if is_multicast(ip) and socket not in self.groups.get(ip, {}):
            return
        socket.arrive(data, source)

    # --- trace ---

    def record(
        self, source: SocketAddress, target: SocketAddress, kind: str, length: int = 0
    ) -> None:
        """Add a :class:`Record` of this moment to the trace."""
        self._fresh.append((self.now, source, target, kind, length))
        if len(self._fresh) >= _TRACE_FOLD:
            self._fold()

    def _fold(self) -> None:
        self._hash.update(repr(self._fresh).encode())
        self._folded.extend(self._fresh)
        self._fresh.clear()

    @property
    def trace(self) -> list[Record]:
        """The last records, at least :data:`TRACE_KEPT` if there were so many."""
        return [Record(*record) for record in (*self._folded, *self._fresh)]

    def trace_hash(self) -> str:
        """Return 64 hexadecimal digits that stand for the whole trace, in any process."""
        digest = self._hash.copy()
        digest.update(repr(self._fresh).encode())
        return digest.hexdigest()


def _flip_a_bit(data: bytes, chance: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    bit = chance.randrange(len(data) * 8)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
