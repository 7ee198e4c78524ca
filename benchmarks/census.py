"""How long until every node knows that all are done, and what that costs: census in simulation.

A thousand production `Census` objects, each with 16 random neighbours, one way 15 to 60 ms apart. A
frame that meets the 5 % loss comes 0.25 s later, as TCP would have it. Every node downloads 2,000
pieces at its own pace and finishes between 60 and 100 % of the run; a tenth leaves in between and
comes back. Bytes are those a node sends, frames, TCP and IP headers included.

Before that, ``p2pdist wait`` on a real swarm of 16 processes (``census_swarm.py``).
"""

from __future__ import annotations

import functools
import heapq
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

import census_swarm
import common

from p2pdist import limits
from p2pdist.census import gossip
from p2pdist.census.gossip import Census, Digest, Frame, Summary, Want
from p2pdist.census.records import NodeState, Reason, Report
from p2pdist.ids import Topic
from p2pdist.keys import NodeKey
from p2pdist.limits import MIB

SEED: Final = 1
DEGREE: Final = 16
PIECES: Final = 2_000
LOSS: Final = 0.05
RESEND_S: Final = 0.25


def size_of(frame: Frame) -> int:
    """Return the bytes of a frame, headers included."""
    if isinstance(frame, Digest):
        body = 12 * len(frame.entries)
    elif isinstance(frame, Want):
        body = 8 * len(frame.tags)
    elif isinstance(frame, Summary):
        body = len(frame.hashes)
    else:
        body = sum(len(text) + len(signature) + 10 for _, text, signature in frame.entries)
    return body + limits.CENSUS_OVERHEAD_BYTES


class Fleet:
    """Nodes, their links, and one queue of what happens next."""

    def __init__(self, nodes: int, run_s: float) -> None:
        # each record is checked once for all nodes: a million signatures would take the time
        gossip.check = functools.lru_cache(maxsize=None)(gossip.check)
        self.rng = random.Random(SEED)
        self.run_s = run_s
        topic = Topic(bytes(20))
        self.censuses: list[Census[int]] = [
            Census(NodeKey.from_seed(self.rng.randbytes(32)), topic, self.rng) for _ in range(nodes)
        ]
        links: list[set[int]] = [set() for _ in range(nodes)]
        for node in range(nodes):
            while len(links[node]) < min(DEGREE, nodes - 1):
                other = self.rng.randrange(nodes)
                if other != node:
                    links[node].add(other)
                    links[other].add(node)
        self.neighbours = [sorted(others) for others in links]
        self.done_at = [run_s * self.rng.uniform(0.6, 1.0) for _ in range(nodes)]
        self.now = 0.0
        self.events: list[tuple[float, int, Any]] = []
        self.count = 0
        self.sent: Counter[int] = Counter()
        self.by_second: Counter[tuple[int, int]] = Counter()
        self.frames: Counter[str] = Counter()
        for node in range(nodes):
            self.at(self.rng.uniform(0, 3.0), (node, node, None))

    def at(self, when: float, event: tuple[int, int, Frame | None]) -> None:
        """Let something happen: ``(from, to, frame)``, a tick if there is no frame."""
        self.count += 1
        heapq.heappush(self.events, (when, self.count, event))

    def report(self, node: int) -> Report:
        """Return what a node has to say now."""
        share = min(1.0, self.now / self.done_at[node])
        have = int(PIECES * share)
        done = have == PIECES
        return Report(
            name=f"host-{node:04}.example",
            state=NodeState.SEEDING if done else NodeState.DOWNLOADING,
            reason=Reason.DONE if done else Reason.REMOTE_UPLOAD,
            have=have,
            pieces=PIECES,
            down=0 if done else 10_000_000,
            up=9_000_000,
            disk_free=10**12,
            version="1.0.0",
        )

    def post(self, source: int, frames: list[tuple[int, Frame]]) -> None:
        """Send frames."""
        for target, frame in frames:
            size = size_of(frame)
            self.sent[source] += size
            self.by_second[source, int(self.now)] += size
            self.frames[type(frame).__name__] += size
            late = RESEND_S if self.rng.random() < LOSS else 0.0
            self.at(self.now + self.rng.uniform(0.015, 0.06) + late, (source, target, frame))

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, (source, target, frame) = heapq.heappop(self.events)
        census = self.censuses[target]
        if frame is None:
            census.report(self.report(target), self.now)
            self.post(target, census.tick(self.neighbours[target], self.now))
            wait_s = min(census.tick_in_s(self.now), 1.0)  # a report may be due in between
            self.at(self.now + wait_s, (target, target, None))
        else:
            self.post(target, census.received(source, frame, self.now))

    def knowing(self) -> float:
        """Return the share of all that all know of all."""
        done = sum(
            record.report.complete for census in self.censuses for record, _ in census.entries(0.0)
        )
        return float(done) / len(self.censuses) ** 2


def measure(report: common.Report, quick: bool) -> None:
    """Add the figures."""
    nodes, run_s = (150, 60.0) if quick else (1_000, 300.0)
    fleet = Fleet(nodes, run_s)
    last = max(fleet.done_at)
    while fleet.now < last:
        fleet.step()
    mean = sum(fleet.sent.values()) / nodes / fleet.now
    complete_s = float("inf")
    check = last
    while fleet.now < last + 30:
        fleet.step()
        if fleet.now >= check:
            if fleet.knowing() >= 1.0:
                complete_s = fleet.now - last
                break
            check = fleet.now + 0.25
    name = f"{nodes:,} nodes, {100 * LOSS:.0f} % loss"
    report.add(f"{name}: every node knows all are done, after the last", complete_s, "s", at_most=5)
    report.add(f"{name}: sent by each node, mean of the run", mean / 1e3, "KB/s", at_most=4)
    burst = max(fleet.by_second.values()) / 1e3
    report.add(f"{name}: most sent by one node in one second", burst, "KB", at_most=64)
    for kind, size in sorted(fleet.frames.items()):
        report.add(f"{name}: of that, {kind.lower()} frames", size / nodes / run_s / 1e3, "KB/s")


def main() -> None:
    """Run."""
    chosen = common.options(__doc__)
    report = common.Report(seed=SEED)
    with tempfile.TemporaryDirectory(prefix="census-") as folder:
        census_swarm.measure(report, Path(folder), 16, (16 if chosen.quick else 128) * MIB)
    measure(report, chosen.quick)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
