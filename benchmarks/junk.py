"""Junk at line rate: 30,000 datagrams a second on loopback at a node that runs in its own process.

Each kind of junk goes on for ten seconds (with `--quick` three). The node's own 10-ms timer says
how late the reactor comes round, which is what a transfer's TCP connections would feel; memory,
tables and log are looked at, and an honest neighbour calls all the time.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import hostile
from common import Report, options
from netlab import signals_as_exit

from p2pdist import limits
from p2pdist.errors import RemoteProtocolError
from p2pdist.keys import PUBLIC_NETWORK
from p2pdist.overlay.envelope import Envelope, read_header
from p2pdist.overlay.messages import NO_TOKEN, Message, Pong
from p2pdist.overlay.wire import decode

RATE = 30_000
DISTINCT = 20_000
SOURCES = 256
BURST = 1000
BURST_S = 0.001
LATE_MS = 50
GROWTH_MIB = 4
ALL_MIB = 24
"""What all full tables and the allocator may take together (`memory.py` measures the tables)."""
LINES = 5
Junk = Callable[[random.Random, "Victim"], Iterator[tuple[int, bytes]]]
"""Yields the source's number and the datagram."""


class Victim:
    """The node, seen from outside.

    Args:
        port: its UDP port on 127.0.0.1.
        sources: sockets to send from.
    """

    def __init__(self, port: int, sources: int) -> None:
        self.address = ("127.0.0.1", port)
        self.sockets = []
        for _ in range(sources):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.connect(self.address)
            one.setblocking(False)
            self.sockets.append(one)

    def ask(self, one: socket.socket, message: Message, within_s: float) -> Message | None:
        """Send a message; return what comes back in time, or ``None``."""
        envelope = hostile.Sealer(random.Random())
        reader = Envelope(PUBLIC_NETWORK, random.Random().randbytes)
        one.send(envelope(message))
        one.settimeout(within_s)
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            try:
                datagram = one.recv(2048)
                header = read_header(datagram)
                answer = decode(reader.open(datagram, header))
            except (OSError, RemoteProtocolError):
                continue
            if getattr(answer, "rid", None) == getattr(message, "rid", b""):
                return answer
        return None

    def token(self, number: int) -> bytes:
        """Return the node's token for a source."""
        one = self.sockets[number]
        pong = self.ask(one, hostile.ping(random.Random(number), NO_TOKEN), 1.0)
        one.setblocking(False)
        return pong.token if isinstance(pong, Pong) else NO_TOKEN

    def call(self) -> float | None:
        """Ping as a neighbour does, three tries; return after how long it answered."""
        began = time.monotonic()
        for attempt in range(limits.FIRST_CONTACT_TRIES):
            ping = hostile.ping(random.Random(time.monotonic_ns() + attempt), NO_TOKEN)
            if self.ask(self.sockets[0], ping, limits.RTO_STRANGER_S) is not None:
                return time.monotonic() - began
        return None


# --- kinds of junk ---


def crumbs(chance: random.Random, _victim: Victim) -> Iterator[tuple[int, bytes]]:
    """Empty and nearly empty datagrams, of which the most go into a kernel's buffer."""
    while True:
        yield chance.randrange(SOURCES), chance.randbytes(chance.randrange(3))


def noise(chance: random.Random, _victim: Victim) -> Iterator[tuple[int, bytes]]:
    """Random bytes of random lengths."""
    while True:
        yield chance.randrange(SOURCES), chance.randbytes(chance.randrange(1500))


def strangers(chance: random.Random, *, fresh: bool) -> Iterator[tuple[int, bytes]]:
    """Sealed: nonsense, every message, with tokens and ids made up."""
    sealer = hostile.Sealer(chance, fresh=fresh)
    kinds = (hostile.ping, hostile.offer, *hostile.REQUESTS, hostile.reply)
    while True:
        kind = chance.randrange(len(kinds) + 1)
        made: Message | bytes = hostile.nonsense(chance)
        if kind < len(kinds):
            made = kinds[kind](chance, chance.randbytes(8))
        yield chance.randrange(SOURCES), sealer(made)


def many_processes(chance: random.Random, _victim: Victim) -> Iterator[tuple[int, bytes]]:
    """A boot id, and so a key, for each datagram."""
    return strangers(chance, fresh=True)


def one_process(chance: random.Random, _victim: Victim) -> Iterator[tuple[int, bytes]]:
    """One boot id."""
    return strangers(chance, fresh=False)


def proved(chance: random.Random, victim: Victim) -> Iterator[tuple[int, bytes]]:
    """Requests with the node's own tokens, as anybody gets them who asks."""
    tokens = [victim.token(number) for number in range(SOURCES)]
    sealer = hostile.Sealer(chance)
    while True:
        source = chance.randrange(SOURCES)
        yield source, sealer(chance.choice(hostile.REQUESTS)(chance, tokens[source]))


KINDS: dict[str, Junk] = {
    "crumbs": crumbs,
    "noise": noise,
    "sealed, many boot ids": many_processes,
    "sealed, one boot id": one_process,
    "sealed, true tokens": proved,
}
RATES = {"crumbs": 1_000_000}
"""Of these kinds as many go out as can: a small datagram costs its sender next to nothing."""


# --- sending ---


def send(port: int, kind: str, seconds: float, pipe: Connection) -> None:
    """Be the sender: make the junk, say so, send it at the rate, say how much went out."""
    keep_to(1)
    victim = Victim(port, SOURCES)
    made = KINDS[kind](random.Random(kind), victim)
    ready = [(victim.sockets[source].send, junk) for source, junk in _take(made, DISTINCT)]
    pipe.send(None)
    pipe.recv()
    rate = RATES.get(kind, RATE)
    sent, turn = 0, 0
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        for _ in range(min(int(elapsed * rate) - sent, BURST)):
            put, junk = ready[turn]
            turn = (turn + 1) % DISTINCT
            try:
                put(junk)
                sent += 1
            except OSError:  # the buffer is full for a moment
                break
        if elapsed * rate <= sent + BURST:
            time.sleep(BURST_S)
    pipe.send((sent, time.monotonic() - began))


def keep_to(core: int, process: int = 0) -> None:
    """Keep a process to one core where there are two, so that sender and node run side by side."""
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(process, {sorted(os.sched_getaffinity(0))[core]})


def _take(made: Iterator[tuple[int, bytes]], count: int) -> list[tuple[int, bytes]]:
    return [next(made) for _ in range(count)]


def kernel_drops(port: int) -> int:
    """Return how many datagrams the kernel dropped for want of room at a port."""
    for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
        words = line.split()
        if int(words[1].split(":")[1], 16) == port:
            return int(words[-1])
    raise SystemExit("the node has no UDP socket")


# --- measuring ---


class Node:
    """The process that is flooded."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("junk_node.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self._hear())
        keep_to(0, self._process.pid)
        with contextlib.suppress(PermissionError):  # it is the node that is measured
            os.setpriority(os.PRIO_PROCESS, self._process.pid, -15)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the node ended")
        return line

    def look(self) -> dict[str, Any]:
        """Return what the node says of the time since the last look."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._hear())
        return said

    def stop(self) -> None:
        """End it."""
        self._process.communicate(timeout=20)


def flood(report: Report, node: Node, neighbour: Victim, kind: str, seconds: float) -> None:
    """Send one kind of junk and add its figures."""
    here, there = multiprocessing.Pipe()
    sender = multiprocessing.Process(target=send, args=(node.port, kind, seconds, there))
    sender.start()
    calls: list[float | None] = []
    try:
        here.recv()
        drops = kernel_drops(node.port)
        node.look()
        here.send(None)
        ends = time.monotonic() + seconds
        warm: dict[str, Any] = {}
        while (left := ends - time.monotonic()) > 0.2:
            calls.append(neighbour.call())
            if not warm and left < 2 / 3 * seconds:
                warm = node.look()
            time.sleep(0.1)
        over = node.look()
        sent, took = here.recv()
    finally:
        sender.terminate()
        sender.join()
    dropped = kernel_drops(node.port) - drops
    report.add(f"{kind}: sent per second", sent / took, "1/s")
    report.add(f"{kind}: read by the node per second", (sent - dropped) / took, "1/s")
    late_ms = 1000 * max(warm["late_p99_s"], over["late_p99_s"])
    report.add(f"{kind}: timers late by, p99", late_ms, "ms", at_most=LATE_MS)
    most = 1000 * max(warm["late_max_s"], over["late_max_s"])
    report.add(f"{kind}: timers late by, most", most, "ms")
    growth = (over["rss_kib"] - warm["rss_kib"]) / 1024
    report.add(f"{kind}: memory grown in the last two thirds", growth, "MiB", at_most=GROWTH_MIB)
    report.add(f"{kind}: log lines", warm["lines"] + over["lines"], "", at_most=LINES)
    report.add(f"{kind}: tables over their bound", len(over["overfull"]), "", at_most=0)
    answered = 100 * sum(call is not None for call in calls) / len(calls)
    report.add(f"{kind}: neighbour's calls answered meanwhile", answered, "%")
    after = sum(neighbour.call() is not None for _ in range(5))
    report.add(f"{kind}: of 5 calls afterwards answered", after, "", at_least=5)


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report(seed=1)
    with signals_as_exit():
        node = Node()
        try:
            time.sleep(1.0)
            neighbour = Victim(node.port, 1)
            before = node.look()
            for kind in KINDS:
                flood(report, node, neighbour, kind, 3.0 if chosen.quick else 10.0)
            after = node.look()
        finally:
            node.stop()
    growth = (after["rss_kib"] - before["rss_kib"]) / 1024
    report.add("memory after all against before", growth, "MiB", at_most=ALL_MIB)
    report.add("datagrams that met a bug", after["bugs"], "", at_most=0)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
