"""The TCP part of ``private.py``: what TLS costs a transfer, handshakes, and floods of them.

Throughput: production services in processes of their own on tmpfs (``transfer_ends.py``), one
downloader with one seeder or two; plain and private take turns, ratios are taken within a round.
Handshakes: both sides of everything, from knock to the second binding, in one process.
Floods: one attacker calls a seed as fast as he can, as a stranger with a perfect ClientHello behind
a false knock, or as a member who knocks well and leaves it at that. Only the seed's CPU is counted,
and an honest download goes on meanwhile, at a rate that leaves the attacker a core: in real life he
has his own.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import transfer
from common import Report
from transfer import GIB, MIB, NAME, Course, Process, Run

from p2pdist.descriptor import DescriptorParser
from p2pdist.ids import HashKey, NodeID
from p2pdist.keys import NetworkKeys, NodeKey
from p2pdist.swarm.binding import PrivateAcceptor, PrivateDialler
from p2pdist.swarm.knock import KNOCK_BYTES, Doorkeeper, knock, knock_size
from p2pdist.swarm.tls import Credentials

SHM = "/dev/shm"
MUCH = 1 << 20
ONE, TWO = 0.40, 0.55
HANDSHAKES = 150
FLOOD_CPU, FLOOD_KEPT = 25, 0.70
PARALLEL = 50
GIVE_UP_S = 1.0
HONEST = 8 * MIB
"""Bytes per second of the honest download while a flood goes on."""


# --- throughput ---


class Pair(Course):
    """One file, and p2pdist nodes that copy it, plain or private."""

    def copy(self, *, private: bool, seeders: int, rate: int | None = None) -> Run:
        """Let one downloader fetch the file from so many seeders, and remove the copy."""
        target = self.base / "copy"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        ports = [transfer.free_port() for _ in range(seeders)]
        order = {"who": "p2pdist", "descriptor": self.describe(ports, private=private)}
        others: list[Process] = []

        def seeder() -> Process:
            first, *rest = (self.seeder(order, port) for port in ports)
            for other in rest:
                other.wait_for("ready")
                others.append(other)
            return first

        def downloader() -> Process:
            return transfer.child(**order, seed=False, port=0, folder=str(target), rate=rate)

        try:
            return self._timed(seeder, downloader)
        finally:
            for other in others:
                other.end()
            shutil.rmtree(target)

    def seeder(self, order: dict[str, Any], port: int) -> Process:
        """Start a seed."""
        return transfer.child(**order, seed=True, port=port, folder=str(self._folder))

    def describe(self, ports: list[int], *, private: bool) -> str:
        """Write a descriptor."""
        path = self.base / f"{ports[0]}.desc"
        nodes = [word for port in ports for word in ("--node", f"127.0.0.1:{port}")]
        closed = ["--private"] if private else []
        subprocess.run(
            [sys.executable, "-c", transfer.MAIN, "make", str(self._folder / NAME), *nodes,
             "--output", str(path), *closed],
            env={**os.environ, "PYTHONPATH": str(transfer.ENDS.parents[1])},
            check=True, capture_output=True,
        )  # fmt: skip
        return str(path)


def throughput(report: Report, *, quick: bool) -> None:
    """Add what private transfers reach beside plain ones."""
    size, rounds = (128 * MIB, 2) if quick else (512 * MIB, 5)
    warm = json.dumps(
        {"who": "warm", "size": 3 * size}
    )  # a machine's first touch of memory is slow
    subprocess.run([sys.executable, str(transfer.ENDS), warm], check=True, capture_output=True)
    with tempfile.TemporaryDirectory(dir=SHM) as text:
        pair = Pair(Path(text), size, transfer.Tracker())
        for seeders, label, target in ((1, "one connection", ONE), (2, "two peers", TWO)):
            if quick and seeders > 1:
                report.skip(f"{label}: private / plain", "x", "not with --quick")
                continue
            took: dict[bool, list[Run]] = {False: [], True: []}
            for turn in range(rounds):
                for private in (False, True) if turn % 2 else (True, False):
                    took[private].append(pair.copy(private=private, seeders=seeders))
            for private, name in ((False, "plain"), (True, "private")):
                runs = took[private]
                rate = statistics.median(size / MIB / run.wall_s for run in runs)
                report.add(f"{label}: {name}", rate, "MiB/s")
                cpu = statistics.median((run.down_s + run.up_s) / (size / GIB) for run in runs)
                if seeders == 1:
                    report.add(f"{label}: {name}, CPU of both", cpu, "s/GiB")
            ratios = [p.wall_s / t.wall_s for p, t in zip(took[False], took[True], strict=True)]
            report.add(f"{label}: private / plain", statistics.median(ratios), "x", at_least=target)


# --- handshakes ---


def handshake(sides: tuple[NodeKey, NodeKey], ready: list[Credentials], keys: NetworkKeys) -> None:
    """Carry one connection from the knock to both proofs."""
    content = HashKey(b"h" * 32)
    proof = keys.tcp_key(content)
    dialler, acceptor = PrivateDialler(content, proof), PrivateAcceptor(lambda: [(content, proof)])
    out = ready[0].dial(sides[1].node_id)
    out.shake()
    hello = out.outgoing(MUCH)
    data = knock(keys, sides[1].node_id, os.urandom, hello) + hello
    size = knock_size(data)
    Doorkeeper(sides[1].node_id).check(data[:size], [keys])
    into = ready[1].accept()
    into.feed(data[KNOCK_BYTES:])
    into.shake()
    out.feed(into.outgoing(MUCH))
    settled = out.shake()
    assert settled is not None
    into.feed(out.outgoing(MUCH))
    other = into.shake()
    assert other is not None
    acceptor.secured(other)
    dialler.receive(acceptor.receive(dialler.secured(settled)))
    assert dialler.peer == sides[1].node_id
    assert acceptor.peer == sides[0].node_id


def handshakes(report: Report, *, quick: bool) -> None:
    """Add how many whole handshakes one core does, both sides in one process."""
    chance = random.Random(5)
    sides = (NodeKey.from_seed(chance.randbytes(32)), NodeKey.from_seed(chance.randbytes(32)))
    ready = [Credentials(side) for side in sides]
    keys = NetworkKeys.from_secret(chance.randbytes(32))
    handshake(sides, ready, keys)
    rates = []
    for _ in range(5):
        count = 50 if quick else 300
        began = time.process_time()
        for _ in range(count):
            handshake(sides, ready, keys)
        rates.append(count / (time.process_time() - began))
    report.add("handshakes, both sides", statistics.median(rates), "/s", at_least=HANDSHAKES)


# --- floods ---


def attack(port: int, make: Callable[[], bytes], until: Callable[[], bool]) -> int:
    """Call as fast as possible; say one thing, wait for the end; return how many calls ended."""
    poll = select.epoll()
    live: dict[int, tuple[socket.socket, float]] = {}
    said: set[int] = set()
    ended = 0
    while not until():
        while len(live) < PARALLEL:
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
            live[caller.fileno()] = caller, time.perf_counter() + GIVE_UP_S
            poll.register(caller.fileno(), select.EPOLLOUT)
        over = {number for number, _ in poll.poll(0.01)}
        for number in over - said:
            try:
                live[number][0].send(make())
            except OSError:
                continue
            said.add(number)
            poll.modify(number, select.EPOLLIN)
            over.discard(number)
        now = time.perf_counter()
        over |= {number for number, (_, late) in live.items() if late < now}
        for number in over:
            poll.unregister(number)
            said.discard(number)
            live.pop(number)[0].close()
            ended += 1
    for caller, _ in live.values():
        caller.close()
    poll.close()
    return ended


def client_hello() -> bytes:
    """Return what TLS begins with."""
    hello = Credentials(NodeKey.from_seed(os.urandom(32))).dial(
        NodeKey.from_seed(bytes(32)).node_id
    )
    hello.shake()
    return hello.outgoing(MUCH)


class Fort:
    """A private seed under attack, and an honest download from it.

    Args:
        folder: an empty one.
        size: of the content, bytes.

    Attributes:
        seed: its process.
        port: its port.
        node_id: its node id.
        network: its network's keys.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._pair = Pair(folder, size, transfer.Tracker())
        self.port = transfer.free_port()
        path = self._pair.describe([self.port], private=True)
        self._order = {"who": "p2pdist", "descriptor": path}
        self._target = folder / "honest"
        state = str(folder / "state")
        self.seed = self._pair.seeder({**self._order, "state": state}, self.port)
        self.network = DescriptorParser().parse_file(path).networks()[0]
        self.seed.wait_for("ready")
        told = subprocess.run(
            [sys.executable, "-c", transfer.MAIN, "id", "--state-dir", state, "--json"],
            env={**os.environ, "PYTHONPATH": str(transfer.ENDS.parents[1])},
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        self.node_id = NodeID(bytes.fromhex(json.loads(told)["node_id"]))

    def download(
        self, keys: NetworkKeys | None = None, *, at_once: bool = True
    ) -> tuple[float, float, int]:
        """Download at a bounded rate, while somebody knocks with these keys, or nobody.

        Args:
            keys: of the attacker.
            at_once: whether he is there from the beginning, or comes a second later.

        Returns:
            Seconds it took, CPU seconds of the seed meanwhile, and the attacker's calls.
        """
        shutil.rmtree(self._target, ignore_errors=True)
        self._target.mkdir()
        leech = transfer.child(
            **self._order, seed=False, port=0, folder=str(self._target), rate=HONEST
        )
        try:
            leech.wait_for("ready")
            done = threading.Event()
            waiting = threading.Thread(target=lambda: (leech.wait_for("done"), done.set()))
            waiting.start()
            self.seed.mark()
            began = time.perf_counter()
            leech.begin()
            calls = 0
            if keys is not None:
                if not at_once:
                    time.sleep(1)
                hello = client_hello()
                make = partial(self._knocking, keys, hello)
                calls = attack(self.port, make, done.is_set)
            waiting.join()
            return time.perf_counter() - began, self.seed.cpu_s(), calls
        finally:
            leech.end()

    def _knocking(self, keys: NetworkKeys, hello: bytes) -> bytes:
        return knock(keys, self.node_id, os.urandom, hello) + hello


def flood(report: Report, *, quick: bool) -> None:
    """Add what floods cost a seed, and what an honest download keeps."""
    size = int(HONEST * (3 if quick else 15))
    with tempfile.TemporaryDirectory(dir=SHM) as text:
        fort = Fort(Path(text), size)
        try:
            calm_s, calm_cpu, _ = fort.download()
            stranger = NetworkKeys.from_secret(bytes(32))
            for label, keys in (("strangers", stranger), ("members", fort.network)):
                took_s, cpu, calls = fort.download(keys, at_once=keys is stranger)
                report.add(f"flood of {label}: calls", calls / took_s, "/s")
                extra = 100 * (cpu / took_s - calm_cpu / calm_s)
                report.add(
                    f"flood of {label}: CPU it takes", extra, "% of a core", at_most=FLOOD_CPU
                )
                report.add(
                    f"flood of {label}: the honest download keeps",
                    calm_s / took_s,
                    "x",
                    at_least=FLOOD_KEPT,
                )
        finally:
            fort.seed.end()
