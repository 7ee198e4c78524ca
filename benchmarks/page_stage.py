"""A page to measure and to draw pictures of: the real `--web` service over a fleet that is made up.

1,000 machines on their way through 100,000 pieces; each second a tenth of the machines say
something new, some hundred pieces arrive and tens of thousands of copies appear at 40 peers.
Records, hosts and piece maps are the production classes; only what they say is drawn from a seed.
Prints the page's address, then a line with its CPU seconds and memory for every line on its input.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from twisted.internet import reactor as default_reactor
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from p2pdist.census.records import NodeState, Reason, Record, Report
from p2pdist.closeup import PieceMap
from p2pdist.control import Control, host_row
from p2pdist.descriptor import DescriptorParser
from p2pdist.fleet import Host
from p2pdist.ids import NodeID
from p2pdist.limits import MIB
from p2pdist.logs import new_logger
from p2pdist.swarm import masks
from p2pdist.swarm.masks import Tally
from p2pdist.web.history import Sample
from p2pdist.web.service import WebService

reactor: Any = default_reactor
KEY = "b3:" + "9f2c" * 16
PIECE = 4 * MIB
PEERS = 40
REASONS = (
    *[Reason.REMOTE_UPLOAD] * 12,
    *[Reason.WAITING_FOR_SLOTS] * 4,
    Reason.DISK,
    Reason.HASHING,
    Reason.OWN_LIMIT,
    Reason.NO_PEER_HAS_PIECES,
)


class Stage(Control):
    """Answers what a node with such a fleet would.

    Args:
        hosts: how many machines.
        pieces: of the content.
        quiet: nothing changes.
    """

    def __init__(self, hosts: int, pieces: int, *, quiet: bool) -> None:
        contents = SimpleNamespace(sessions={}, paused={})
        service: Any = SimpleNamespace(contents=contents)
        super().__init__(service, DescriptorParser())
        self.rng = random.Random(7)
        self.pieces = pieces
        self.reports = [self.first(number, hosts) for number in range(hosts)]
        self.heard = [reactor.seconds() - self.rng.random() * 8 for _ in range(hosts)]
        self.ids = [NodeID(self.rng.randbytes(20)) for _ in range(hosts)]
        self.have = self.some(0.62)
        self.tally = Tally()
        self.claims = [self.some(self.rng.uniform(0.3, 0.95)) for _ in range(PEERS)]
        gap = masks.full(pieces // 250) << (pieces * 4 // 5)  # what nobody has
        self.have &= ~gap
        self.claims = [(claim | self.have) & ~gap for claim in self.claims[:4]] + [
            claim & ~gap for claim in self.claims[4:]
        ]
        for claim in self.claims:
            self.tally.add(claim)
        self.moved = [[self.rng.randrange(2**32), self.rng.randrange(2**32)] for _ in range(PEERS)]
        self.down, self.up, self.total = 118e6, 96e6, 0
        self.flying = 0
        if not quiet:
            LoopingCall(self.live).start(1.0, now=False)

    def some(self, share: float) -> int:
        """Return a mask with about that share of pieces, here more and there fewer."""
        data = bytearray((self.pieces + 7) // 8)
        local = share
        for index in range(self.pieces):
            if index % 64 == 0:
                local = min(1.0, max(0.0, share + self.rng.gauss(0, 0.25)))
            if self.rng.random() < local:
                data[index >> 3] |= 1 << (index & 7)
        return int.from_bytes(data, "little")

    def first(self, number: int, hosts: int) -> Report:
        """Return how a machine stands at first."""
        share = min(1.0, self.rng.betavariate(5, 1.6) * 1.12)
        return self.report(f"node-{number + 1:04}.rack{number * 20 // hosts + 1:02}", share)

    def report(self, name: str, share: float) -> Report:
        """Return what a machine says."""
        done = share >= 1.0
        reason = Reason.DONE if done else self.rng.choice(REASONS)
        return Report(
            name=name,
            state=NodeState.SEEDING if done else NodeState.DOWNLOADING,
            reason=reason,
            have=min(self.pieces, int(share * self.pieces)),
            pieces=self.pieces,
            down=0 if done else self.rng.randrange(50_000_000, 130_000_000),
            up=self.rng.randrange(0, 90_000_000),
            disk_free=self.rng.randrange(20, 900) * 2**30,
            version="0.1.0",
        )

    def live(self) -> None:
        """Let a second pass."""
        now = reactor.seconds()
        for at in self.rng.sample(range(len(self.reports)), len(self.reports) // 10):
            before = self.reports[at]
            share = before.have / self.pieces + self.rng.random() * 0.01
            self.reports[at] = self.report(before.name, share)
            self.heard[at] = now
        self.have |= self.flying
        lacking = self.tally.uncounted(masks.full(self.pieces)) ^ masks.full(self.pieces)
        lacking &= ~self.have
        self.flying = sum({1 << masks.pick(lacking, self.rng) for _ in range(60)}) if lacking else 0
        for at in range(1, PEERS):
            more = masks.full(700) << self.rng.randrange(self.pieces)
            more &= self.claims[0] & ~self.claims[at]
            self.claims[at] |= more
            self.tally.add(more)
            self.moved[at][0] += self.rng.randrange(6_000_000)
            self.moved[at][1] += self.rng.randrange(5_000_000)
        self.drift()

    def drift(self) -> None:
        """Let the rates wander."""
        self.down = max(60e6, min(160e6, self.down + self.rng.uniform(-9e6, 9e6)))
        self.up = max(40e6, min(140e6, self.up + self.rng.uniform(-8e6, 8e6)))

    def piece_map(self, content: str) -> PieceMap:
        """Return the map."""
        del content
        planes = self.tally.planes()
        return PieceMap(self.pieces, self.have, self.flying & ~self.have, 0, planes)

    def moving(self) -> tuple[int, int]:
        """Return the rates."""
        return round(self.down), round(self.up)

    def look(self, question: str, content: str | None = None) -> dict[str, Any]:
        """Answer a question."""
        del content
        naming = {"name": "model-70b.safetensors", "hash_key": KEY}
        if question == "fleet":
            length = self.pieces * PIECE
            return {**naming, "length": length, "hosts": [host_row(x) for x in self.hosts()]}
        if question == "peers":
            return {**naming, "peers": [self.peer(at) for at in range(PEERS)]}
        return self.status(naming)

    def hosts(self) -> list[Host]:
        """Return all machines, stragglers first, as a node's census does."""
        now = reactor.seconds()
        hosts = []
        for node, report, heard in zip(self.ids, self.reports, self.heard, strict=True):
            age_s = now - heard
            hosts.append(Host(Record(node, 1, report, b"", b""), age_s, age_s > 60))
        return sorted(hosts, key=lambda host: host.rank)

    def peer(self, at: int) -> dict[str, Any]:
        """Return one connection."""
        return {
            "node": self.ids[at].hex(),
            "address": f"10.0.{at}.5:7667",
            "outgoing": bool(at % 2),
            "received_bytes": self.moved[at][0],
            "sent_bytes": self.moved[at][1],
        }

    def status(self, naming: dict[str, Any]) -> dict[str, Any]:
        """Return how the node stands."""
        have = self.have.bit_count()
        length = self.pieces * PIECE
        done = sum(report.complete for report in self.reports)
        content = {
            **naming,
            "stage": "leeching",
            "path": None,
            "error": "",
            "waiting_for": "",
            "length": length,
            "have_bytes": have * PIECE,
            "pieces": self.pieces,
            "have_pieces": have,
            "download_bytes_per_s": round(self.down),
            "upload_bytes_per_s": round(self.up),
            "downloaded_bytes": have * PIECE,
            "uploaded_bytes": 2**38,
            "peers": PEERS,
            "seeds": 1,
            "eta_s": round((self.pieces - have) * PIECE / self.down, 1),
            "checked": None,
            "limits": {"upload": None, "download": None},
            "nodes": [],
            "fleet": {"nodes": len(self.reports), "done": done},
        }
        return {
            "node": self.ids[0].hex(),
            "version": "0.1.0",
            "port": 7667,
            "directory": "/srv/models",
            "limits": {"upload": None, "download": None},
            "contents": [content],
            "paused": [],
        }


class Meter(LineReceiver):
    """Says what the process used, for each line that comes; ends with its input."""

    delimiter = b"\n"

    def lineReceived(self, line: bytes) -> None:
        """Tell CPU seconds and resident MiB."""
        del line
        used = resource.getrusage(resource.RUSAGE_SELF)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        memory = pages * resource.getpagesize() / 2**20
        self.sendLine(f"{used.ru_utime + used.ru_stime} {memory}".encode())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End."""
        del reason
        reactor.stop()


def main() -> None:
    """Run until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1_000)
    parser.add_argument("--pieces", type=int, default=100_000)
    parser.add_argument("--quiet", action="store_true", help="nothing changes")
    chosen = parser.parse_args()
    stage = Stage(chosen.hosts, chosen.pieces, quiet=chosen.quiet)
    page = WebService(reactor, stage, 0, random.Random(1).randbytes(32).hex())
    begin = reactor.seconds() - 300
    for step in range(60):
        page.rates.add(Sample(begin + 5 * step, *stage.moving()))
        stage.drift()
    page.startService()
    for text in (
        f"node {stage.ids[0].hex()[:8]} listens on all addresses, UDP and TCP port 7667",
        "model-70b.safetensors: looking for peers",
        "model-70b.safetensors: first peer 10.0.3.5:7667",
        "model-70b.safetensors: 60 %, 112.5 MiB/s from 40 peers",
        "model-70b.safetensors: paused: no room; 41 GiB more are needed",
        "model-70b.safetensors: goes on",
    ):
        new_logger().info("{text}", text=text)
    new_logger().warn("{text}", text="10.0.9.4:7667 answers on UDP, but TCP is blocked (timed out)")
    print(page.url, flush=True)
    StandardIO(Meter())
    reactor.run()


if __name__ == "__main__":
    main()
