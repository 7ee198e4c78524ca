"""Real nodes on a lossy, slow network, beside their simulated twins.

Fifty node processes, each in a network namespace: 5 % of the datagrams are lost, round trips are
lognormal with a median of 60 ms (``netlab.py``). All join through one node, three seed each of
twenty topics, then all look up topics of others, about a thousand times. The same plan with the
same ids, distances and losses runs in the simulated network; what counts is the ratio. With
``--quick`` 16 nodes and fewer lookups.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from attrs import asdict
from common import Report, options
from explorer import Explorer, Plan, Sight
from netlab import Lab, address, missing, signals_as_exit

from p2pdist.machine import Machine as Seams
from p2pdist.simulation.terrain import Terrain
from p2pdist.storage.realdisk import RealDisk
from p2pdist.test.network import World
from p2pdist.test.simwires import Machine

LEAD_S = 8.0
"""From the last node's being ready to the beginning: all of them still start their reactors."""
FULL = Plan(
    seed=1, nodes=50, topics=20, members=3, lookups=21, loss=0.05,
    start_s=5.0, publish_at=75.0, search_at=95.0, search_every_s=2.5,
)  # fmt: skip
QUICK = Plan(
    seed=1, nodes=16, topics=8, members=3, lookups=10, loss=0.05,
    start_s=1.0, publish_at=7.0, search_at=10.0, search_every_s=0.8,
)  # fmt: skip
TWINS = 3
"""Simulated runs with other weather: their 99th percentile is steadier than one run's."""
RATIO_MAX = 1.3
ROUTER_LATE_MS = 6
"""A tenth of the median round trip."""
TAIL_LOOKUPS = 500
"""Fewer say nothing about a 99th percentile."""


def real(plan: Plan) -> tuple[list[Sight], dict[str, float]]:
    """Run the plan with real processes; return what they saw, and the router's figures."""
    script = str(__file__).replace("real_overlay", "explorer")
    with signals_as_exit(), Lab(plan.nodes, plan.seed, plan.loss) as lab:
        job = json.dumps(asdict(plan))
        nodes = [
            lab.start(number, sys.executable, script, job, str(number))
            for number in range(plan.nodes)
        ]
        for node in nodes:
            hear(node)
        beginning = time.monotonic() + LEAD_S
        for node in nodes:
            assert node.stdin is not None
            node.stdin.write(f"{beginning!r}\n")
            node.stdin.flush()
        sights = [Sight(**json.loads(hear(node))) for node in nodes]
        lab.close()
        return sights, lab.router


def hear(node: subprocess.Popen[str]) -> str:
    """Return the next line a node prints."""
    assert node.stdout is not None
    line = node.stdout.readline()
    if not line:
        raise SystemExit("a node ended before its time")
    return line


class Twin(World):
    """The simulated network with the terrain's delays."""

    def __init__(self, plan: Plan, weather: int) -> None:
        super().__init__(weather)
        self.link(loss=plan.loss)
        self._terrain = Terrain(plan.seed)
        self._number = {address(number): number for number in range(plan.nodes)}

    def transit(self, a: Machine, b: Machine) -> float | None:
        """Draw how many seconds a packet takes; ``None``: it is lost."""
        if super().transit(a, b) is None:
            return None
        one, two = (self._number[machine.name] for machine in (a, b))
        return self._terrain.one_way_s(one, two, a.weather)


def simulated(plan: Plan, weather: int) -> list[Sight]:
    """Run the plan in the simulated network; ``weather`` decides what is lost and jitter."""
    world = Twin(plan, weather)
    explorers = []
    for number in range(plan.nodes):
        host = world.host(address(number))
        seams = Seams(
            reactor=host.reactor,
            workers=host.workers,
            disk=RealDisk(),  # without descriptors it is not touched
            resolve=host.resolver.resolve,
            entropy=host.entropy,
            rng=host.rng,
            wall=host.reactor.seconds,
        )
        explorers.append(Explorer(plan, number, seams))
        explorers[-1].begin(0.0)
    return [world.wait_for(explorer.done, timeout=600) for explorer in explorers]


def times_s(sights: list[Sight]) -> list[float]:
    """Return all lookups' times, sorted; one without result counts as endless."""
    return sorted(
        float("inf") if found is None else found for sight in sights for found in sight.found_s
    )


def percentile(values: list[float], percent: int) -> float:
    """Return the nearest-rank percentile of sorted values."""
    return values[min(len(values) * percent // 100, len(values) - 1)]


def add(report: Report, label: str, sights: list[Sight]) -> None:
    """Add the figures of one kind of run."""
    times = times_s(sights)
    found = sum(value <= 10 for value in times)
    tables = statistics.median(sight.neighbours for sight in sights)
    report.add(f"{label}: lookups", len(times), "")
    report.add(f"{label}: first peer offered, p50", 1000 * percentile(times, 50), "ms")
    report.add(f"{label}: first peer offered, p99", 1000 * percentile(times, 99), "ms")
    report.add(f"{label}: success within 10 s", 100 * found / len(times), "%")
    report.add(f"{label}: an offered peer answered", 100 * answered(sights) / len(times), "%")
    report.add(f"{label}: neighbours of a node, median", tables, "")


def answered(sights: list[Sight]) -> int:
    """Return in how many lookups an offered peer answered."""
    return sum(sight.answered for sight in sights)


def compare(report: Report, plan: Plan) -> None:
    """Run both and add all figures."""
    sights, router = real(plan)
    twins = [sight for weather in range(TWINS) for sight in simulated(plan, weather)]
    add(report, "real", sights)
    add(report, "simulated", twins)
    true, model = times_s(sights), times_s(twins)
    for percent in (50, 99):
        name = f"real / simulated, p{percent}"
        if percent == 99 and len(true) < TAIL_LOOKUPS:
            report.skip(name, "ratio", f"fewer than {TAIL_LOOKUPS} lookups")
            continue
        ratio = percentile(true, percent) / percentile(model, percent)
        report.add(name, ratio, "ratio", at_most=RATIO_MAX)
    for label, these in (("real", sights), ("simulated", twins)):
        extra = sorted(value for sight in these for value in sight.extra_rtt_s)
        name = f"{label}: round trip beyond the terrain's"
        report.add(f"{name}, p50", 1000 * percentile(extra, 50), "ms")
    report.add("router: packets", router["packets"], "")
    report.add("router: packets lost by itself", router["lost"], "", at_most=0)
    report.add("router: forwarded too late by, p50", 1000 * router["late_p50_s"], "ms")
    late_ms = 1000 * router["late_p99_s"]
    report.add("router: forwarded too late by, p99", late_ms, "ms", at_most=ROUTER_LATE_MS)
    report.add("datagrams that met a bug", sum(s.bugs for s in (*sights, *twins)), "", at_most=0)


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    plan = QUICK if chosen.quick else FULL
    report = Report(seed=plan.seed)
    why = missing()
    if why:
        report.skip("real / simulated, p50", "ratio", why)
        report.skip("real / simulated, p99", "ratio", why)
    else:
        compare(report, plan)
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
