"""The two ends of `rpc.py`, each in a process of its own: ours and rpcudp's, server and client.

Ours is what a node runs: `Ports`, `Node`, `Network.rpc.call` on one side and
`Network.datagram_received` on the other, over Twisted's UDP, each datagram sealed, opened, decoded
with every check, its token proved, its rate counted. Three limits would end a measurement at once
(20 pings and 50 requests a second from one address, 8 calls to one address): their *values* are
raised here, the code that asks them runs.

rpcudp's server answers `rpc_ping` with its id, as in its README; its datagrams carry no token, no
checksum and no seal. Each is called in its own style: Deferreds' callbacks, and `await`. `bare`
sends a ping's 110 bytes and gets them back; `twisted` does so with msgpack, Twisted's UDP, and a
Deferred and a timer for each call.

    rpc_ends.py server WHO INTERFACE    prints its port, ends when stdin ends
    rpc_ends.py client WHO INTERFACE PORT ping|find|announce OUTSTANDING SECONDS
        prints calls per second and this process's CPU microseconds per call

    WHO is p2pdist, rpcudp, twisted or bare.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import common  # noqa: F401 -- makes p2pdist importable

WARM_UP_S = 0.3
PLENTY = (1e9, 1e9)
ID = bytes(range(20))


class Meter:
    """Counts calls from the end of the warm-up to the end of the measurement."""

    def __init__(self, seconds: float) -> None:
        self.began = time.perf_counter() + WARM_UP_S
        self.ends = self.began + seconds
        self.calls = 0
        self.cpu = 0.0
        self.warm = False

    def count(self) -> bool:
        """Count one call that was answered; tell whether to go on."""
        now = time.perf_counter()
        if self.warm:
            self.calls += 1
        elif now > self.began:
            self.warm, self.began, self.cpu = True, now, time.process_time()
        return now < self.ends

    def print(self) -> None:
        """Print calls per second and CPU microseconds per call."""
        cpu = time.process_time() - self.cpu
        print(self.calls / (time.perf_counter() - self.began), 1e6 * cpu / max(self.calls, 1))


def twisted_echo(reactor: Any) -> Any:
    """Return a protocol that sends back what comes, and calls with a Deferred and a timer each.

    The least that a call can take in Twisted: msgpack there and back, and nothing checked.
    """
    import msgpack
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import DatagramProtocol

    class Echo(DatagramProtocol):  # type: ignore[misc]
        def __init__(self) -> None:
            self.calls: dict[int, Any] = {}
            self.made = 0

        def call(self, address: tuple[str, int]) -> Any:
            self.made += 1
            done: Any = Deferred()
            self.calls[self.made] = done, reactor.callLater(1.0, done.cancel)
            self.transport.socket.sendto(msgpack.packb([0, self.made, ID, bytes(60)]), address)
            return done

        def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
            kind, number, node_id, padding = msgpack.unpackb(datagram)
            if kind:
                done, timer = self.calls.pop(number)
                timer.cancel()
                done.callback(node_id)
            else:
                row = [1, number, node_id, padding]
                self.transport.socket.sendto(msgpack.packb(row), addr)

    return Echo()


def serve_twisted(interface: str) -> None:
    """Echo until standard input ends."""
    from twisted.internet import reactor as default

    reactor: Any = default
    port = reactor.listenUDP(0, twisted_echo(reactor), interface=interface)
    print(port.getHost().port, flush=True)
    reactor.callInThread(lambda: (sys.stdin.read(), reactor.callFromThread(reactor.stop)))
    reactor.run()


def call_twisted(interface: str, port: int, outstanding: int, seconds: float) -> None:
    """Call the echo and print what was measured."""
    from twisted.internet import reactor as default

    reactor: Any = default
    echo = twisted_echo(reactor)
    reactor.listenUDP(0, echo, interface=interface)
    meter = Meter(seconds)

    def again(_reply: Any) -> None:
        if meter.count():
            echo.call((interface, port)).addCallback(again)
        else:
            reactor.crash()

    def begin() -> None:
        for _ in range(outstanding):
            again(None)

    reactor.callWhenRunning(begin)
    reactor.run()
    meter.print()


async def repeat(call: Callable[[], Awaitable[Any]], meter: Meter) -> None:
    """Call again and again."""
    while await call() and meter.count():
        pass


def open_node(reactor: Any, interface: str) -> tuple[Any, int]:
    """Open a node's ports; return its public network and port number."""
    from twisted.internet.protocol import ServerFactory

    from p2pdist import limits
    from p2pdist.keys import PUBLIC_NETWORK, NodeKey
    from p2pdist.overlay.node import Node
    from p2pdist.ports import Ports

    raised = {"RATE_PING": PLENTY, "RATE_REQUEST": PLENTY, "CALLS_PER_ADDRESS": 1024}
    for name, value in raised.items():
        setattr(limits, name, value)
    key = NodeKey.from_seed(os.urandom(32))
    node = Node(key, reactor, random.Random(1), os.urandom, time.time)
    network = node.add_network(PUBLIC_NETWORK)
    ports = Ports.bind(reactor, node, ServerFactory(), port=0, listen=(interface,))
    return network, ports.number


def serve_p2pdist(interface: str) -> None:
    """Run a node until standard input ends."""
    from twisted.internet import reactor as default

    from p2pdist.faces.process import steady

    reactor = steady(default)
    _, port = open_node(reactor, interface)
    print(port, flush=True)
    reactor.callInThread(lambda: (sys.stdin.read(), reactor.callFromThread(reactor.stop)))
    reactor.run()


def call_p2pdist(interface: str, port: int, kind: str, outstanding: int, seconds: float) -> None:
    """Call a node and print what was measured."""
    from twisted.internet import reactor as default
    from twisted.internet.defer import Deferred, gatherResults

    from p2pdist.addresses import Address
    from p2pdist.faces.process import steady
    from p2pdist.overlay.messages import Announce, Find, Ping, Status

    reactor = steady(default)
    network, _ = open_node(reactor, interface)
    own = network.node_id
    requests = {
        "ping": Ping(node_id=own),
        "find": Find(node_id=own, target=ID),
        "announce": Announce(node_id=own, topic=ID, status=Status.SEED, sequence=1),
    }
    request = requests[kind]
    address = Address("127.0.0.1", port)

    def again(_reply: Any, meter: Meter, over: Any) -> None:
        if meter.count():
            reply = network.rpc.call(address, request)
            reply.addCallbacks(again, over.errback, (meter, over))
        else:
            over.callback(None)

    def begin(_pong: Any) -> Any:
        meter = Meter(seconds)
        overs = [Deferred() for _ in range(outstanding)]
        for over in overs:
            again(None, meter, over)
        return gatherResults(overs).addCallback(lambda _: meter.print())

    reactor.callWhenRunning(
        lambda: network.contact(address).addCallback(begin).addBoth(finish, reactor)
    )
    reactor.run()


def finish(result: Any, reactor: Any) -> None:
    """End the client, loudly if something failed."""
    if result is not None:
        print(result, file=sys.stderr)
    reactor.stop()


def serve_rpcudp(_interface: str) -> None:
    """Run rpcudp's echo until standard input ends."""
    from rpcudp.protocol import RPCProtocol

    class Server(RPCProtocol):  # type: ignore[misc]
        def rpc_ping(self, _address: Any, _node_id: bytes) -> bytes:
            return ID

    async def run() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
        print(transport.get_extra_info("sockname")[1], flush=True)
        over = asyncio.Event()

        def wait() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(over.set)

        threading.Thread(target=wait, daemon=True).start()
        await over.wait()

    asyncio.run(run())


def call_rpcudp(port: int, outstanding: int, seconds: float) -> None:
    """Call rpcudp's echo and print what was measured."""
    from rpcudp.protocol import RPCProtocol

    async def run() -> None:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_datagram_endpoint(
            lambda: RPCProtocol(wait_timeout=5), local_addr=("127.0.0.1", 0)
        )

        async def call() -> bool:
            answered, result = await protocol.ping(("127.0.0.1", port), ID)
            return answered and result == ID

        meter = Meter(seconds)
        await asyncio.gather(*(repeat(call, meter) for _ in range(outstanding)))
        meter.print()

    asyncio.run(run())


def bare_socket() -> tuple[socket.socket, select.epoll]:
    """Return a bound socket, and what waits for it."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    bound.setblocking(False)
    poller = select.epoll()
    poller.register(bound, select.EPOLLIN)
    return bound, poller


def receive(bound: socket.socket, poller: select.epoll) -> tuple[bytes, tuple[str, int]]:
    """Wait for a datagram."""
    while True:
        try:
            return bound.recvfrom(2048)
        except BlockingIOError:  # noqa: PERF203 -- it means: wait
            poller.poll()


def serve_bare(_interface: str) -> None:
    """Send back what comes until standard input ends."""
    bound, poller = bare_socket()
    print(bound.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        bound.sendto(*receive(bound, poller))


def call_bare(port: int, outstanding: int, seconds: float) -> None:
    """Send and receive, and print what was measured."""
    bound, poller = bare_socket()
    meter = Meter(seconds)
    for _ in range(outstanding):
        bound.sendto(bytes(110), ("127.0.0.1", port))
    while meter.count():
        receive(bound, poller)
        bound.sendto(bytes(110), ("127.0.0.1", port))
    meter.print()


def main() -> None:
    """Be one of the ends."""
    role, who, interface, *rest = sys.argv[1:]
    if role == "server":
        {
            "p2pdist": serve_p2pdist,
            "rpcudp": serve_rpcudp,
            "bare": serve_bare,
            "twisted": serve_twisted,
        }[who](interface)
        return
    port, kind, outstanding, seconds = int(rest[0]), rest[1], int(rest[2]), float(rest[3])
    if who == "p2pdist":
        call_p2pdist(interface, port, kind, outstanding, seconds)
    elif who == "twisted":
        call_twisted(interface, port, outstanding, seconds)
    elif who == "rpcudp":
        call_rpcudp(port, outstanding, seconds)
    else:
        call_bare(port, outstanding, seconds)


if __name__ == "__main__":
    main()
