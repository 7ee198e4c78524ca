"""Calls per second between two processes on loopback, beside PyPI's `rpcudp`; and CPU per datagram.

The contestants take turns, so that a busy machine is unfair to both alike: a ratio is the median of
the ratios of the rounds. What each end runs, and which limits are raised, says `rpc_ends.py`. A
third contestant, `bare`, is two sockets that send 110 bytes to and fro, and nothing else: what the
kernel and the machine's sleep take, no code of anybody's can win back. A fourth, `twisted`, has
msgpack, a Deferred and a timer as well, and checks nothing: the floor of this runtime.

`datagram_costs` measures sealing and opening in this process; other scripts may import it.
Without `rpcudp` (`pip install rpcudp==5.0.1`) its rows are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from attrs import define, field
from common import Report, options

from p2pdist.addresses import Address
from p2pdist.ids import NodeID, Topic
from p2pdist.keys import PUBLIC_NETWORK
from p2pdist.overlay.envelope import Envelope, read_header
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.messages import Find, Found, GetPeers, Message, Offer, Ping
from p2pdist.overlay.wire import decode, encode

ENDS = Path(__file__).with_name("rpc_ends.py")
MANY = 64
AT_LEAST = {1: 2.0, MANY: 3.0}
"""Times rpcudp, with so many calls outstanding."""
FREE, ONE = "two cores", "one core"
"""Where both ends run. On one core nobody waits for an idle core to wake up, which with one call
outstanding takes longer than all the rest, and both ends' work adds up."""


@define
class End:
    """A server under measurement, and what its clients found.

    Attributes:
        who: `p2pdist`, `rpcudp`, `twisted` or `bare`.
        interface: where both its ends listen.
        rates: calls per second, by kind of call, number outstanding, and cores.
        cpu: CPU microseconds of the client per call, likewise.
    """

    who: str
    interface: str = "127.0.0.1"
    rates: dict[tuple[str, int, str], list[float]] = field(factory=dict)
    cpu: dict[tuple[str, int, str], list[float]] = field(factory=dict)
    _server: subprocess.Popen[str] = field(init=False)
    _port: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start the server."""
        self._server = subprocess.Popen(
            [sys.executable, str(ENDS), "server", self.who, self.interface],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        self._port = self._server.stdout.readline().strip()

    def stop(self) -> None:
        """Stop the server."""
        self._server.communicate()

    def measure(self, kind: str, outstanding: int, cores: str, seconds: float) -> None:
        """Run one client."""
        allowed = os.sched_getaffinity(0)
        used = allowed if cores == FREE else {min(allowed)}
        os.sched_setaffinity(self._server.pid, used)
        os.sched_setaffinity(0, used)
        try:
            arguments = ("client", self.who, self.interface, self._port, kind)
            done = subprocess.run(
                [sys.executable, str(ENDS), *arguments, str(outstanding), str(seconds)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        finally:
            os.sched_setaffinity(0, allowed)
        rate, cpu = map(float, done.stdout.split())
        self.rates.setdefault((kind, outstanding, cores), []).append(rate)
        self.cpu.setdefault((kind, outstanding, cores), []).append(cpu)


def take_turns(ends: dict[str, End], dual: End, rounds: int, seconds: float) -> None:
    """Run every client, the contestants by turns."""
    for turn in range(rounds):
        for outstanding in (1, MANY):
            for end in ends.values() if turn % 2 else reversed(ends.values()):
                end.measure("ping", outstanding, FREE, seconds)
    for _ in range(max(1, rounds // 3)):
        for outstanding in (1, MANY):
            for end in ends.values():
                end.measure("ping", outstanding, ONE, seconds)
            dual.measure("ping", outstanding, FREE, seconds)
            for kind in ("find", "announce"):
                ends["p2pdist"].measure(kind, outstanding, FREE, seconds)


def measure_calls(report: Report, *, rounds: int, seconds: float) -> None:
    """Start the servers, measure, and add the figures."""
    names = ["p2pdist", "bare", "twisted", "rpcudp"]
    if importlib.util.find_spec("rpcudp") is None:
        names.remove("rpcudp")
    ends = {name: End(name) for name in names}
    dual = End("p2pdist", "::")
    try:
        take_turns(ends, dual, rounds, seconds)
    finally:
        for end in (*ends.values(), dual):
            end.stop()
    for outstanding in (1, MANY):
        for cores in (FREE, ONE):
            compare(report, ends, outstanding, cores)
        for kind in ("find", "announce"):
            rates = ends["p2pdist"].rates[kind, outstanding, FREE]
            add_rate(report, f"{outstanding} outstanding: {kind}, token proved", rates)
        rates = dual.rates["ping", outstanding, FREE]
        add_rate(report, f"{outstanding} outstanding: ping, dual-stack sockets", rates)


def add_rate(report: Report, name: str, rates: list[float]) -> None:
    """Add the median of calls per second."""
    report.add(f"calls, {name}", median(rates), "1/s")


def compare(report: Report, ends: dict[str, End], outstanding: int, cores: str) -> None:
    """Add what each contestant reached, and the ratio."""
    what = f"{outstanding} outstanding, {cores}"
    key = ("ping", outstanding, cores)
    for name, end in ends.items():
        add_rate(report, f"{what}: {name}", end.rates[key])
        report.add(f"CPU of the client per call, {what}: {name}", median(end.cpu[key]), "us")
    if "rpcudp" not in ends:
        report.skip(f"{what}: p2pdist / rpcudp", "ratio", "rpcudp is not installed")
        return
    pairs = zip(ends["p2pdist"].rates[key], ends["rpcudp"].rates[key], strict=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    target = AT_LEAST[outstanding] if cores == FREE else None
    report.add(f"{what}: p2pdist / rpcudp", median(ratios), "ratio", at_least=target)
    report.add(f"{what}: the same, worst round", min(ratios), "ratio")


def samples() -> dict[str, Message]:
    """Return a message of each kind that costs most in a busy node."""
    node_id, token = NodeID(os.urandom(20)), os.urandom(8)
    peers = tuple(Address(f"10.1.2.{n}", 7667) for n in range(1, 14))
    nodes = tuple(NodeEntry(NodeID(os.urandom(20)), address) for address in peers[:8])
    rid, qid = os.urandom(8), os.urandom(12)
    return {
        "ping": Ping(node_id=node_id, rid=rid, token=token),
        "get_peers": GetPeers(
            node_id=node_id, rid=rid, token=token, qid=qid, topic=Topic(os.urandom(20)),
            src=peers[0], via=peers[1], hops=3,
        ),
        "offer": Offer(qid=qid, node_id=node_id, cookie=os.urandom(12), swarm=40, peers4=peers),
        "find": Find(node_id=node_id, rid=rid, token=token, target=os.urandom(20)),
        "found": Found(rid=rid, attempt=0, nodes4=nodes),
    }  # fmt: skip


def cpu_us(work: Callable[[], object], seconds: float) -> float:
    """Return the CPU microseconds of one ``work()``: the best of several short stretches."""
    best = float("inf")
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began = time.process_time()
        for _ in range(200):
            work()
        best = min(best, (time.process_time() - began) / 200)
    return best * 1e6


def datagram_costs(seconds: float = 0.3) -> dict[str, tuple[float, float]]:
    """Return CPU microseconds per datagram, by kind: (encode and seal, read, open and decode)."""
    ours = Envelope(PUBLIC_NETWORK, os.urandom)
    sender = Envelope(PUBLIC_NETWORK, os.urandom)
    costs = {}
    for kind, message in samples().items():
        datagram = sender.seal(encode(message))

        def out(message: Message = message) -> bytes:
            return sender.seal(encode(message))

        def back(datagram: bytes = datagram) -> Message:
            return decode(ours.open(datagram, read_header(datagram)))

        assert back() == message
        costs[kind] = (cpu_us(out, seconds), cpu_us(back, seconds))
    return costs


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report(seed=1)
    measure_calls(report, rounds=3 if chosen.quick else 9, seconds=0.5 if chosen.quick else 3.0)
    for kind, (out, back) in datagram_costs().items():
        report.add(f"CPU to encode and seal one {kind}", out, "us")
        report.add(f"CPU to open and decode one {kind}", back, "us")
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
