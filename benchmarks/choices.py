"""What the bounds of a lookup were chosen by: the same lookups with other values of `limits`.

10,000 production nodes, 5 % loss, 10 % dead entries, the same lookups for every choice, which
differs from the released one in the values its name tells.
"""

from __future__ import annotations

import multiprocessing
from typing import Any, Final

from common import Report, options

from p2pdist import limits

LIVE: Final = 2
CHOICES: Final[dict[str, dict[str, Any]]] = {
    "as released": {},
    "next hop by distance alone": {"WALK_BIT_COST": 1e6},
    "next hop by round-trip time alone": {"WALK_BIT_COST": 0.0, "WALK_HOP_COST": 0.0},
    "next hop by time and 0.125 round trips for each bit": {
        "WALK_BIT_COST": 0.125,
        "WALK_HOP_COST": 0.0,
    },
    "16 storers": {"STORERS": 16},
    "32 storers": {"STORERS": 32},
    "1 walk": {"WALKS": 1},
    "3 walks": {"WALKS": 3},
    "no pair of storers": {"PAIR_WALKS": 0},
    "a pair of storers for each walk": {"PAIR_WALKS": 99},
    "timeouts 20 ms above the round trip": {"RTO_VARIANCE_FLOOR_S": 0.02},
    "hedges after 1.3 and 2.6 round trips": {"HEDGE_RTTS": (1.3, 2.6)},
    "hedges after 2.5 and 4 round trips": {"HEDGE_RTTS": (2.5, 4.0)},
    "no hedges": {"HEDGE_RTTS": (1e3, 1e3), "HEDGE_1_S": (9.0, 9.0), "HEDGE_2_S": (9.0, 9.0)},
    "buckets of 8": {"BUCKET_SIZES": (8,)},
    "buckets of 16": {"BUCKET_SIZES": (16,)},
    "buckets of 64, 32, then 24": {"BUCKET_SIZES": (64, 32, 24)},
}
QUICK: Final = ("as released", "16 storers", "1 walk")


def work(task: tuple[str, int, int]) -> tuple[str, Any]:
    """Do the lookups with one choice; in a process of its own."""
    name, nodes, lookups = task
    for limit, value in CHOICES[name].items():
        setattr(limits, limit, value)
    # imported here, for defaults are taken from limits as modules are read
    from p2pdist.simulation.population import Mix
    from p2pdist.simulation.study import Study, World, summarize

    study = Study(World(mix=Mix(nodes=nodes, dead=0.1)))
    study.run(lookups)
    return name, summarize(study.lookups)


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    nodes, lookups, names = (600, 200, QUICK) if chosen.quick else (10_000, 2_000, tuple(CHOICES))
    report = Report(seed=1)
    context = multiprocessing.get_context("spawn")
    with context.Pool(LIVE, maxtasksperchild=1) as pool:
        for name, there in pool.imap(work, [(name, nodes, lookups) for name in names]):
            report.add(f"{name}: success", 100 * there.success, "%")
            report.add(f"{name}: p50", there.p50_ms, "ms")
            report.add(f"{name}: p99", there.p99_ms, "ms")
            report.add(f"{name}: packets", there.packets, "")
            report.add(f"{name}: bytes", there.size / 1e3, "KB")
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
