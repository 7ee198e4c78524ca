"""Latency and packets of a lookup against the number of nodes, and the plot of it in the docs.

The same lookups as in `overlay.py` (5 % loss, 10 % dead entries, the same worlds for all methods),
from 10 nodes to 100,000, fewer of them in the larger worlds: a production node takes time and
memory to make. `--plot FILE` draws an SVG, for which the `benchmarks` extra brings matplotlib.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from typing import Final

import baselines
from attrs import frozen
from common import Report, options

from p2pdist.simulation.population import Mix
from p2pdist.simulation.study import Lookup, Study, Summary, World, summarize

OURS: Final = "p2pdist"
METHODS: Final = (OURS, "tuned Kademlia", "BEP 5")
SIZES: Final = {
    10: (40, 100),
    30: (40, 100),
    100: (20, 200),
    300: (10, 300),
    1_000: (2, 1_500),
    3_000: (1, 2_000),
    10_000: (1, 2_000),
    30_000: (1, 400),
    100_000: (1, 200),
}
"""Nodes: worlds, and lookups in each."""
QUICK: Final = {10: (10, 40), 100: (2, 100), 1_000: (1, 200)}
LIVE: Final = 2
"""Processes at a time."""


@frozen
class Task:
    """One method among so many nodes."""

    nodes: int
    method: str
    worlds: int
    lookups: int


def work(task: Task) -> tuple[Task, Summary]:
    """Do one task."""
    lookups: list[Lookup] = []
    for seed in range(1, task.worlds + 1):
        world = World(mix=Mix(nodes=task.nodes, dead=0.1), seed=seed)
        if task.method == OURS:
            study = Study(world)
            study.run(task.lookups)
            lookups += study.lookups
        else:
            lookups += baselines.METHODS[task.method].run(world, task.lookups)
    return task, summarize(lookups)


def simulate(quick: bool) -> dict[tuple[int, str], Summary]:
    """Return what each method does among each number of nodes."""
    sizes = QUICK if quick else SIZES
    tasks = [
        Task(nodes, m, *sizes[nodes]) for nodes in sorted(sizes, reverse=True) for m in METHODS
    ]
    context = multiprocessing.get_context("spawn")  # each task in a fresh process: memory
    with context.Pool(LIVE, maxtasksperchild=1) as pool:
        done = pool.imap_unordered(work, tasks)
        return {(task.nodes, task.method): summary for task, summary in done}


def add_rows(report: Report, summaries: dict[tuple[int, str], Summary]) -> None:
    """Add what was found, the small worlds first."""
    for (nodes, method), there in sorted(summaries.items()):
        name = f"N={nodes:,}, {method}"
        report.add(f"{name}: success", 100 * there.success, "%")
        report.add(f"{name}: p50", there.p50_ms, "ms")
        report.add(f"{name}: p99", there.p99_ms, "ms")
        report.add(f"{name}: packets", there.packets, "")


def plot(summaries: dict[tuple[int, str], Summary], file: Path) -> None:
    """Draw latency and packets against the number of nodes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "p2pdist", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    figure, (times, packets) = plt.subplots(1, 2, figsize=(9, 3.6))
    sizes = sorted({nodes for nodes, _ in summaries})
    for method, color in zip(METHODS, ("#0b6e4f", "#c05621", "#718096"), strict=True):
        found = [summaries[nodes, method] for nodes in sizes]
        times.plot(sizes, [s.p50_ms for s in found], color=color, marker="o", label=method)
        times.plot(sizes, [s.p99_ms for s in found], color=color, marker="o", linestyle=":")
        packets.plot(sizes, [s.packets for s in found], color=color, marker="o", label=method)
    for axes, label in (
        (times, "milliseconds: median, and 99th percentile (dotted)"),
        (packets, "packets"),
    ):
        axes.set_xscale("log")
        axes.set_xlabel("nodes")
        axes.set_title(label, fontsize=9)
        axes.grid(alpha=0.3)
    times.set_yscale("log")
    packets.set_ylim(bottom=0)
    packets.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None, "Creator": None})


def main() -> None:
    """Run."""
    more = argparse.ArgumentParser(add_help=False)
    more.add_argument("--plot", type=Path, metavar="FILE", help="draw an SVG")
    chosen = options(__doc__, more)
    report = Report(seed=1)
    summaries = simulate(chosen.quick)
    if chosen.plot:
        plot(summaries, chosen.plot)
    add_rows(report, summaries)
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
