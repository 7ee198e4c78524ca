"""Ways to move a stream through TLS 1.3: which data path private transfers should take.

One connection on loopback, sender and receiver in processes of their own, the suite and the
certificates of private swarms, blocks of 256 KiB. `memory` is what `swarm/tlsline.py` does: OpenSSL
over memory, 64 KiB read at a time, plain bytes put where they belong. `socket` gives OpenSSL the
descriptor. `Twisted` is `TLSMemoryBIOProtocol`. `plain` is what the same sockets do without TLS.
The ways take turns; medians of the rounds. CPU is the receiver's, which has more to do.
"""
# ruff: noqa: SLF001 -- other ways than ours need what ours keeps to itself

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from common import Report, options
from OpenSSL import SSL

from p2pdist import limits
from p2pdist.keys import NodeKey
from p2pdist.swarm.tls import Channel, Credentials

MIB = 1 << 20
MUCH = 1 << 20
BLOCK = 256 * 1024
WAYS = ("plain", "socket", "memory", "Twisted")
KEYS = NodeKey.from_seed(bytes([1]) * 32), NodeKey.from_seed(bytes([2]) * 32)


def blocks(total: int) -> Iterator[memoryview]:
    """Yield what is sent."""
    data = memoryview(os.urandom(4 * MIB))
    for begin in range(0, total, BLOCK):
        yield data[begin % len(data) :][:BLOCK]


def shaken(channel: Channel, end: socket.socket) -> None:
    """Finish the handshake of a channel over a blocking socket."""
    while not channel.open:
        channel.shake()
        if data := channel.outgoing(MUCH):
            end.sendall(data)
        if not channel.open:
            channel.feed(end.recv(limits.READ_BYTES))


def context(key: NodeKey) -> SSL.Context:
    """Return our settings, for whoever may be at the other end."""
    made = Credentials(key)._make_context()
    made.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    return made


def send(way: str, end: socket.socket, total: int) -> None:
    """Send everything."""
    if way == "plain":
        for block in blocks(total):
            end.sendall(block)
    elif way == "socket":
        connection = SSL.Connection(context(KEYS[0]), end)
        connection.set_accept_state()
        connection.do_handshake()
        for block in blocks(total):
            connection.sendall(block)
    else:
        channel = Credentials(KEYS[0]).accept()
        shaken(channel, end)
        for block in blocks(total):
            channel.write(block)
            while sealed := channel.outgoing(BLOCK + 8192):
                end.sendall(sealed)


def receive(way: str, end: socket.socket, total: int) -> None:
    """Take everything, each block into its place."""
    place = memoryview(bytearray(BLOCK))
    got = 0
    if way == "plain":
        while got < total:
            got += end.recv_into(place)
    elif way == "socket":
        connection = SSL.Connection(context(KEYS[1]), end)
        connection.set_connect_state()
        connection.do_handshake()
        while got < total:
            got += connection.recv_into(place[got % BLOCK :][: limits.TLS_RECORD_BYTES])
    else:
        channel = Credentials(KEYS[1]).dial(KEYS[0].node_id)
        shaken(channel, end)
        while got < total:
            channel.feed(end.recv(limits.READ_BYTES))
            while size := channel.read_into(place[got % BLOCK :]):
                got += size


def with_twisted(role: str, port: int, total: int) -> None:
    """Send or take everything with Twisted's own TLS."""
    from twisted.internet import reactor
    from twisted.internet.interfaces import (
        IOpenSSLClientConnectionCreator,
        IOpenSSLServerConnectionCreator,
    )
    from twisted.internet.protocol import Factory, Protocol
    from twisted.protocols.tls import TLSMemoryBIOFactory
    from zope.interface import implementer

    loop: Any = reactor

    @implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
    class Contexts:
        """What Twisted wants to have."""

        def clientConnectionForTLS(self, _protocol: Any) -> SSL.Connection:
            return SSL.Connection(context(KEYS[role == "receive"]))

        serverConnectionForTLS = clientConnectionForTLS

    class Sender(Protocol):
        def connectionMade(self) -> None:
            self.left = blocks(total)
            transport: Any = self.transport
            transport.registerProducer(self, False)

        def resumeProducing(self) -> None:
            transport: Any = self.transport
            block = next(self.left, None)
            if block is None:
                transport.unregisterProducer()
                transport.loseConnection()
            else:
                transport.write(bytes(block))

        def stopProducing(self) -> None:
            pass

        def connectionLost(self, reason: Any = None) -> None:
            del reason
            loop.stop()

    class Receiver(Protocol):
        got = 0

        def dataReceived(self, data: bytes) -> None:
            self.got += len(data)
            if self.got >= total:
                loop.stop()

    kind = Receiver if role == "receive" else Sender
    factory = TLSMemoryBIOFactory(Contexts(), role == "receive", Factory.forProtocol(kind))
    if role == "receive":
        factory.noisy = False
        factory.clientConnectionFailed = factory.clientConnectionLost = lambda *_: None
        factory.startedConnecting = lambda _: None
        loop.connectTCP("127.0.0.1", port, factory)
    else:
        opened = loop.listenTCP(0, factory, interface="127.0.0.1")
        print(opened.getHost().port, flush=True)
    loop.run()


def end(role: str, way: str, port: int, total: int) -> None:
    """Be one end, in a process of its own; the receiver prints seconds and CPU seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    if way == "Twisted":
        with_twisted(role, port, total)
    elif role == "send":
        with socket.create_server(("127.0.0.1", 0)) as server:
            print(server.getsockname()[1], flush=True)
            other, _ = server.accept()
        send(way, other, total)
        other.close()
    else:
        with socket.create_connection(("127.0.0.1", port)) as other:
            receive(way, other, total)
    if role == "receive":
        print(time.perf_counter() - began, time.process_time() - cpu)


def run(way: str, total: int) -> tuple[float, float]:
    """Move everything once; return seconds and the receiver's CPU seconds."""
    command = [sys.executable, __file__, "--end"]
    sender = subprocess.Popen(
        [*command, "send", way, "0", str(total)], stdout=subprocess.PIPE, text=True
    )
    assert sender.stdout is not None
    port = sender.stdout.readline().strip()
    told = subprocess.run(
        [*command, "receive", way, port, str(total)], capture_output=True, text=True, check=True
    ).stdout
    sender.wait()
    took, cpu = map(float, told.split())
    return took, cpu


def main() -> None:
    """Run."""
    if sys.argv[1:2] == ["--end"]:
        role, way, port, total = sys.argv[2:]
        end(role, way, int(port), int(total))
        return
    chosen = options(__doc__)
    report = Report()
    total, rounds = (256 * MIB, 3) if chosen.quick else (1024 * MIB, 7)
    took: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for turn in range(rounds):
        for way in WAYS if turn % 2 else reversed(WAYS):
            took[way].append(run(way, total))
    for way, runs in took.items():
        rate = statistics.median(total / MIB / seconds for seconds, _ in runs)
        report.add(f"{way}", rate, "MiB/s")
        report.add(
            f"{way}, receiver", statistics.median(cpu / (total / 2**30) for _, cpu in runs), "s/GiB"
        )
    for way in WAYS[1:]:
        ratios = [plain[0] / tls[0] for plain, tls in zip(took["plain"], took[way], strict=True)]
        report.add(f"{way} / plain", statistics.median(ratios), "x")
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
