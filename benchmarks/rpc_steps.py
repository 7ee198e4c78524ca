"""Where the microseconds of a call go: both ends in this process, no socket between them, by step.

`whole` has two nodes, 32 pings outstanding, and hands each datagram over as a socket would. `steps`
does one thing at a time, with the values a ping between two acquainted nodes has. Each figure is
the best of many stretches of a few milliseconds: warm caches, nobody else on the core. A process
that sleeps between two datagrams takes twice to five times as long for the same steps (`rpc.py`,
CPU of the client per call, 1 outstanding). Limits are raised as in `rpc_ends.py`.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections import deque
from typing import Any

import attrs
from attrs import define
from common import Report, options
from rpc import cpu_us
from rpc_ends import PLENTY
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.keys import PUBLIC_NETWORK, NodeKey
from p2pdist.overlay.alarm import NEVER, Alarm
from p2pdist.overlay.envelope import Envelope, read_header
from p2pdist.overlay.messages import Ping, Pong
from p2pdist.overlay.network import Network
from p2pdist.overlay.node import Node, NodeSocket
from p2pdist.overlay.wire import decode, encode

OUTSTANDING = 32
CALLER, CALLED = Address("127.0.0.1", 40001), Address("127.0.0.1", 40002)


@define
class End:
    """A node whose socket is a queue."""

    network: Network
    socket: NodeSocket
    out: deque[bytes]

    @classmethod
    def make(cls, reactor: Any) -> End:
        """Return one of its own key."""
        key = NodeKey.from_seed(os.urandom(32))
        node = Node(key, reactor, random.Random(1), os.urandom, time.time)
        network, out = node.add_network(PUBLIC_NETWORK), deque[bytes]()
        protocol = node.add_socket("127.0.0.1")
        protocol._sendto = lambda datagram, _to: out.append(datagram) or 0  # noqa: SLF001
        return cls(network, protocol, out)

    def take(self, other: End, source: Address) -> float:
        """Receive all that ``other`` has sent; return the seconds it took."""
        began = time.perf_counter()
        for _ in range(len(other.out)):
            self.socket.datagramReceived(other.out.popleft(), source)
        return time.perf_counter() - began


def whole(report: Report, reactor: Any, seconds: float) -> None:
    """Add what a call takes at each end."""
    caller, called = End.make(reactor), End.make(reactor)
    ping = Ping(node_id=caller.network.node_id)

    def again(_pong: object) -> None:
        caller.network.rpc.call(CALLED, ping).addCallbacks(again, lambda _stopped: None)

    caller.network.contact(CALLED)
    for _ in range(2):
        called.take(caller, CALLER)
        caller.take(called, CALLED)
    for _ in range(OUTSTANDING):
        again(None)
    best = [float("inf"), float("inf")]
    ends = time.perf_counter() + 2 * seconds
    while time.perf_counter() < ends:
        there = called.take(caller, CALLER)
        back = caller.take(called, CALLED)
        best = [min(best[0], back), min(best[1], there)]
        reactor.runUntilCurrent()
    report.add("the caller, without sockets", best[0] / OUTSTANDING * 1e6, "us")
    report.add("the called, without sockets", best[1] / OUTSTANDING * 1e6, "us")
    caller.network.stop()
    called.network.stop()


@define(eq=False)
class Waiter:
    """Stands for a call."""

    due: float = NEVER


def steps(report: Report, reactor: Any, seconds: float) -> None:
    """Add what each step takes alone."""
    network = End.make(reactor).network
    ours, theirs = Envelope(PUBLIC_NETWORK, os.urandom), Envelope(PUBLIC_NETWORK, os.urandom)
    ping = Ping(node_id=network.node_id, rid=os.urandom(8), token=os.urandom(8))
    pong = Pong(rid=ping.rid, attempt=0, node_id=network.node_id, token=ping.token, observed=CALLED)
    payload, answer = encode(ping), encode(pong)
    datagram = theirs.seal(payload)
    header = read_header(datagram)
    ours.open(datagram, header)
    guard, path = network.guard, network.rpc.paths[CALLED]
    path.sample(0.001, 1.0)
    waiter = Waiter()
    alarm: Alarm[Waiter] = Alarm(reactor, lambda _waiter: None)
    alarm.set(Waiter(), reactor.seconds() + 3600)

    def timeout() -> None:
        alarm.set(waiter, reactor.seconds() + 7200)
        waiter.due = NEVER

    def promise() -> None:
        done: Deferred[None] = Deferred(lambda _done: None)
        done.addCallbacks(lambda _none: None)
        done.callback(None)

    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    far.bind(("127.0.0.1", 0))
    there = far.getsockname()

    def sockets() -> None:
        near.sendto(datagram, there)
        far.recvfrom(2048)

    with near, far:
        for name, work in {
            "both: send and receive a datagram": sockets,
            "both: read a header": lambda: read_header(datagram),
            "both: seal": lambda: theirs.seal(payload),
            "both: open": lambda: ours.open(datagram, header),
            "both: choose the socket": lambda: network.transmit(datagram, CALLED),
            "caller: Deferred, made, one callback, fired": promise,
            "caller: correlation id": lambda: os.urandom(8),
            "caller: request with id and token": lambda: attrs.evolve(ping, rid=b"", token=b""),
            "caller: encode ping": lambda: encode(ping),
            "caller: timeout, set and cancelled": timeout,
            "caller: decode pong": lambda: decode(answer),
            "caller: round-trip time and the next timeout": lambda: (
                path.sample(0.001, 1.0),
                path.rto_s(),
            ),
            "called: decode ping": lambda: decode(payload),
            "called: rate of the sender": lambda: guard.ping(CALLED, 1.0),
            "called: token, at hand": lambda: guard.mint.token(CALLED, 1.0),
            "called: encode pong": lambda: encode(pong),
        }.items():
            report.add(name, cpu_us(work, seconds), "us")
    alarm.stop()
    network.stop()


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report(seed=1)
    for name, value in {
        "RATE_PING": PLENTY,
        "RATE_REQUEST": PLENTY,
        "CALLS_PER_ADDRESS": 1024,
    }.items():
        setattr(limits, name, value)
    reactor = EPollReactor()
    reactor.seconds = time.monotonic
    seconds = 0.5 if chosen.quick else 1.5
    whole(report, reactor, 2 * seconds)
    steps(report, reactor, seconds)
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
