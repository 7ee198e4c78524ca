"""What passing on one get_peers costs a node of N = 10,000, in CPU time, with its full table.

The node gets distinct queries of a neighbour and of distinct initiators: it opens and decodes each,
chooses the next hop among its neighbours, seals, transmits (into a list), sets the timer,
acknowledges, and takes the next hop's acknowledgement. Nothing is ever retransmitted. Simulated
time goes on between queries, unmeasured, so that no rate limit is met.
"""

from __future__ import annotations

import random
import sys
import time
from statistics import median

import hostile
from common import Report, options

from p2pdist.addresses import Address
from p2pdist.ids import ID_BYTES, Topic
from p2pdist.keys import PUBLIC_NETWORK
from p2pdist.overlay.envelope import Envelope, read_header
from p2pdist.overlay.messages import RID_BYTES, Forwarded, GetPeers, Verdict
from p2pdist.overlay.network import Network
from p2pdist.overlay.wire import decode
from p2pdist.simulation.crowd import Crowd
from p2pdist.simulation.population import Mix, Population, Role, address_of
from p2pdist.simulation.terrain import Terrain

NODES = 10_000
FULL, QUICK = 2_000, 1_000
BATCH = 100
GAP_S = 0.1
"""Simulated seconds between two queries."""
ALLOWED_US = 300.0
"""For the median of the means of batches: who shares the caches makes some of them slower."""


class Forwarder:
    """A node under measurement, and the neighbour that keeps asking it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.population = Population(Mix(nodes=NODES), seed)
        self.crowd = Crowd(self.population, Terrain(seed), seed)
        number = self.population.living(Role.OPEN)[0]
        self.network: Network = self.crowd.node(number)
        self.sent: list[tuple[bytes, Address]] = []
        self.network.transmit = lambda datagram, to: self.sent.append((datagram, to))
        roles = self.population.roles
        known = (self.crowd.number(entry.address) for entry in self.network.neighbours)
        asker = next(n for n in known if n is not None and roles[n] is Role.OPEN)
        self.asker, self.asker_id = address_of(asker), self.population.node_id(asker)
        self.seal = hostile.Sealer(self.chance)
        self.reader = Envelope(PUBLIC_NETWORK, self.chance.randbytes)

    def query(self) -> bytes:
        """Return a query nobody sent before."""
        chance = self.chance
        token = self.network.guard.mint.token(self.asker, self.crowd.timeline.now)
        message = GetPeers(
            node_id=self.asker_id,
            rid=chance.randbytes(RID_BYTES),
            token=token,
            qid=chance.randbytes(12),
            topic=Topic(chance.randbytes(ID_BYTES)),
            src=hostile.global_address(chance),
            hops=1,
        )
        return self.seal(message)

    def receive(self, datagram: bytes, source: Address) -> float:
        """Let a datagram arrive; return the CPU seconds it took."""
        began = time.process_time_ns()
        self.network.datagram_received(datagram, read_header(datagram), source)
        return (time.process_time_ns() - began) / 1e9

    def one(self) -> float | None:
        """Return the CPU seconds of passing on one query; ``None`` if nobody nearer is known."""
        datagram = self.query()
        self.sent.clear()
        took = self.receive(datagram, self.asker)
        onward = None
        for out, to in self.sent:
            message = decode(self.reader.open(out, read_header(out)))
            if isinstance(message, GetPeers):
                onward = message, to
        if onward is not None:
            request, to = onward
            token = self.chance.randbytes(8)
            taken = Forwarded(
                rid=request.rid,
                attempt=request.attempt,
                verdict=Verdict.TAKEN,
                units=0,
                token=token,
            )
            took += self.receive(self.seal(taken), to)
        self.crowd.timeline.run(GAP_S)
        return took if onward is not None else None


def measure(report: Report, quick: bool) -> None:
    """Add the figures."""
    count = QUICK if quick else FULL
    forwarder = Forwarder(1)
    for _ in range(BATCH):
        forwarder.one()
    took = [forwarder.one() for _ in range(count)]
    passed = [1e6 * seconds for seconds in took if seconds is not None]
    batches = [passed[begin : begin + BATCH] for begin in range(0, len(passed), BATCH)]
    means = [sum(batch) / len(batch) for batch in batches]
    what = f"forwarding one get_peers of {count:,}"
    report.add(f"{what}: CPU", median(means), "us", at_most=ALLOWED_US)
    report.add(f"{what}: mean of all", sum(passed) / len(passed), "us")
    report.add(f"{what}: worst batch", max(means), "us")
    report.add(f"{what}: passed on", 100 * len(passed) / count, "%", at_least=95)
    report.add("neighbours it chose from", len(forwarder.network.neighbours), "")


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    report = Report(seed=1)
    measure(report, chosen.quick)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
