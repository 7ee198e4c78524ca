"""How fast, how surely and at what cost p2pdist finds peers, beside Kademlia and a flood.

Production nodes run in `p2pdist.simulation`; the other methods (`baselines.py`) do the very same
lookups there: same nodes, distances, topics and initiators. Two worker processes share the work.
Ratios are of one run. For people a table of all worlds and methods comes first. What is measured in
other scripts and belongs to the overlay's promises is run here too, by their own functions.

With `--quick` the worlds of 10,000 nodes shrink to 1,000 with a few hundred lookups: too few for a
99th percentile, and with too few hops to be held against targets meant for 10,000, so those rows
have none.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

import baselines
import forgery
import forwarding
import memory
import rpc
from attrs import define, evolve, field, frozen
from common import Report, options

from p2pdist.simulation.population import Mix
from p2pdist.simulation.study import Lookup, Study, Summary, World, summarize

OURS: Final = "p2pdist"
TUNED, TUNED_BEP5_TABLES = "tuned Kademlia", "tuned Kademlia on BEP 5's tables"
TUNED_CLOSED: Final = "tuned, NATs not kept open"
BEP5, BEP5_OUR_TABLES = "BEP 5", "BEP 5 on our tables"
FLOOD: Final = "flood"
WORKERS: Final = 2
QUICK_NODES: Final = 1_000
SHOWN_S: Final = 1.0
"""Parts that took less are not listed."""


@frozen(kw_only=True)
class Scene:
    """Worlds that differ in nothing but their seed, and what is done there.

    Attributes:
        what: of them is special.
        nodes: that live in each.
        worlds: how many.
        lookups: in each.
        quick: worlds, and lookups in each, of a quick run; ``None``: it has none.
        methods: that are compared.
        dead, loss, black_holes, nated: shares.
        shrunk: whether this has fewer nodes than the targets are meant for.
    """

    what: str = ""
    nodes: int = 10_000
    worlds: int = 2
    lookups: int
    quick: tuple[int, int] | None
    methods: tuple[str, ...] = (OURS, TUNED)
    dead: float = 0.1
    loss: float = 0.05
    black_holes: float = 0.0
    nated: float = 0.0
    shrunk: bool = False

    @property
    def name(self) -> str:
        """Return what rows begin with."""
        what = f", {self.what}" if self.what else ""
        return f"N={self.nodes:,}{what}, {self.worlds * self.lookups:,} lookups"

    def world(self, seed: int) -> World:
        """Return one of the worlds."""
        mix = Mix(nodes=self.nodes, dead=self.dead, black_holes=self.black_holes, nated=self.nated)
        return World(mix=mix, loss=self.loss, nated_initiators=bool(self.nated), seed=seed)

    def made_quick(self) -> Scene:
        """Return what a quick run does instead."""
        assert self.quick is not None
        worlds, lookups = self.quick
        nodes = min(self.nodes, QUICK_NODES)
        return evolve(self, nodes=nodes, worlds=worlds, lookups=lookups, shrunk=nodes < self.nodes)

    def held(self, bound: float) -> float | None:
        """Return a target's bound, if it is meant for a world as large."""
        return None if self.shrunk else bound


EVERYBODY = (OURS, TUNED, BEP5, BEP5_OUR_TABLES, TUNED_BEP5_TABLES)
NATED = "60 % behind NATs, initiators too"
SCENES: Final = {
    "plain": Scene(lookups=5_000, quick=(1, 400), methods=EVERYBODY),
    "rough": Scene(what="20 % loss, 30 % dead", lookups=3_000, quick=(1, 150), loss=0.2, dead=0.3),
    "holes": Scene(what="25 % black holes", lookups=2_000, quick=(1, 150), black_holes=0.25),
    "nat": Scene(
        what=NATED,
        lookups=1_000,
        quick=(1, 150),
        nated=0.6,
        methods=(OURS, TUNED, TUNED_CLOSED, TUNED_BEP5_TABLES, BEP5),
    ),
    "10": Scene(nodes=10, worlds=20, lookups=150, quick=(20, 15), methods=(*EVERYBODY, FLOOD)),
    "100": Scene(nodes=100, worlds=10, lookups=200, quick=(2, 100), methods=(*EVERYBODY, FLOOD)),
    "1,000": Scene(nodes=1_000, lookups=1_000, quick=None, methods=EVERYBODY),
    "flood": Scene(nodes=1_000, worlds=1, lookups=40, quick=(1, 10), methods=(FLOOD,)),
}


def scenes(quick: bool) -> dict[str, Scene]:
    """Return what this run simulates."""
    if not quick:
        return SCENES
    return {key: scene.made_quick() for key, scene in SCENES.items() if scene.quick}


# --- the work, in two processes ---


@frozen
class Task:
    """What one worker does at a time: one method in some worlds of a scene."""

    key: str
    scene: Scene
    method: str
    seeds: tuple[int, ...]

    @property
    def weight(self) -> int:
        """Return roughly how long it takes: production nodes take long to make."""
        lookups = self.scene.lookups * len(self.seeds)
        return lookups + (30 * self.scene.nodes if self.method == OURS else 0)


@define
class Done:
    """What came of a task: its lookups, and how long it took."""

    task: Task
    lookups: list[Lookup]
    wall_s: float


def work(task: Task) -> Done:
    """Do one task."""
    began = time.perf_counter()
    lookups: list[Lookup] = []
    for seed in task.seeds:
        world = task.scene.world(seed)
        if task.method == OURS:
            study = Study(world)
            study.run(task.scene.lookups)
            lookups += study.lookups
        else:
            lookups += baselines.METHODS[task.method].run(world, task.scene.lookups)
    return Done(task, lookups, time.perf_counter() - began)


def tasks(chosen: dict[str, Scene]) -> list[Task]:
    """Return the work, the longest first; one world of many nodes each, many small worlds."""
    found = []
    for key, scene in chosen.items():
        seeds = range(1, scene.worlds + 1)
        groups = [tuple(seeds)] if scene.nodes < 1_000 else [(seed,) for seed in seeds]
        found += [Task(key, scene, m, group) for m in scene.methods for group in groups]
    return sorted(found, key=lambda task: -task.weight)


@define
class Results:
    """What all methods did in all scenes.

    Attributes:
        scenes: by key.
        summaries: by key and method.
        wall_s: seconds of work, likewise.
    """

    scenes: dict[str, Scene]
    summaries: dict[tuple[str, str], Summary] = field(factory=dict)
    wall_s: dict[tuple[str, str], float] = field(factory=dict)

    def simulate(self) -> None:
        """Do the work."""
        lookups: dict[tuple[str, str], list[Lookup]] = {}
        context = multiprocessing.get_context("spawn")  # each task in a fresh process: memory
        with context.Pool(WORKERS, maxtasksperchild=1) as pool:
            for done in pool.imap_unordered(work, tasks(self.scenes)):
                place = done.task.key, done.task.method
                lookups.setdefault(place, []).extend(done.lookups)
                self.wall_s[place] = self.wall_s.get(place, 0.0) + done.wall_s
                say(f"{done.task.scene.name}, {done.task.method}: {done.wall_s:.0f} s")
        self.summaries = {place: summarize(each) for place, each in lookups.items()}

    def print(self) -> None:
        """Print a table for people."""
        print(f"{'':34} {'success':>8} {'p50/p90/p99 ms':>17} {'live p50/p99':>12} ", end="")
        print(f"{'packets/p99':>14} {'KB':>8} {'hottest':>7}")
        for key, scene in self.scenes.items():
            print(f"{scene.name}, {100 * scene.loss:.0f} % loss, {100 * scene.dead:.0f} % dead")
            for method in scene.methods:
                s = self.summaries[key, method]
                times = f"{s.p50_ms:.0f}/{s.p90_ms:.0f}/{s.p99_ms:.0f}"
                live = f"{s.alive_p50_ms:.0f}/{s.alive_p99_ms:.0f}" if method == OURS else ""
                packets = f"{s.packets:.1f}/{s.packets_p99:.0f}"
                print(f"  {method:32} {100 * s.success:7.2f}% {times:>17} {live:>12} ", end="")
                print(f"{packets:>14} {s.size / 1e3:8.1f} {s.hottest:7.1f}")
        print(flush=True)


def say(text: str) -> None:
    """Tell who waits."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


# --- the rows ---


def simulated_rows(report: Report, results: Results) -> None:
    """Add what the simulations are held against."""
    plain, ours = results.scenes["plain"], results.summaries["plain", OURS]
    success(report, results, "plain", 99.99)
    against(report, results, "plain", TUNED, 0.65, 0.50)
    against(report, results, "plain", BEP5, 0.45, 0.20)
    against(report, results, "plain", BEP5_OUR_TABLES, None, None)
    name, held = plain.name, plain.held
    report.add(f"{name}: packets, mean", ours.packets, "", at_most=held(16))
    report.add(f"{name}: packets, p99", ours.packets_p99, "", at_most=held(40))
    report.add(f"{name}: bytes, mean", ours.size / 1e3, "KB", at_most=held(7))
    report.add(f"{name}: packets at the hottest node", ours.hottest, "", at_most=held(9))
    success(report, results, "rough", 99.95)
    against(report, results, "rough", TUNED, 0.45, 0.45)
    success(report, results, "holes", 99.9)
    holes, there = results.scenes["holes"], results.summaries["holes", OURS]
    report.add(f"{holes.name}: p99", there.p99_ms / 1e3, "s", at_most=holes.held(1.2))
    success(report, results, "nat", None)
    # Kademlia's nodes keep no NAT open for strangers, so that is what the target is about; on our
    # tables, which keep most NATed nodes out, the other rows hold it against ours as well.
    against(report, results, "nat", TUNED_CLOSED, 0.30, None)
    against(report, results, "nat", TUNED, None, None)
    against(report, results, "nat", TUNED_BEP5_TABLES, None, None)
    for key, p50_ms, packets in (("10", 40, 10), ("100", 60, 15)):
        scene, there = results.scenes[key], results.summaries[key, OURS]
        success(report, results, key, None)
        report.add(f"{scene.name}: p50", there.p50_ms, "ms", at_most=scene.held(p50_ms))
        report.add(f"{scene.name}: p99", there.p99_ms, "ms")
        report.add(f"{scene.name}: packets, mean", there.packets, "", at_most=scene.held(packets))
    scene, there = results.scenes["flood"], results.summaries["flood", FLOOD]
    report.add(f"{scene.name}: flood, p50", there.p50_ms, "ms")
    report.add(f"{scene.name}: flood, packets, mean", there.packets, "")


def success(report: Report, results: Results, key: str, at_least: float | None) -> None:
    """Add how many lookups found somebody."""
    value = 100 * results.summaries[key, OURS].success
    report.add(f"{results.scenes[key].name}: success", value, "%", at_least=at_least)


def against(
    report: Report, results: Results, key: str, other: str, p50: float | None, p99: float | None
) -> None:
    """Add our times as shares of another method's."""
    scene = results.scenes[key]
    ours, theirs = results.summaries[key, OURS], results.summaries[key, other]
    for what, mine, his, bound in (
        ("p50", ours.p50_ms, theirs.p50_ms, p50),
        ("p99", ours.p99_ms, theirs.p99_ms, p99),
    ):
        at_most = None if bound is None else scene.held(bound)
        report.add(f"{scene.name}: {what} / {other}", mine / his, "ratio", at_most=at_most)


def wall_rows(report: Report, results: Results) -> None:
    """Add how long each part took, two parts at a time."""
    for (key, method), seconds in results.wall_s.items():
        if seconds >= SHOWN_S:
            report.add(f"wall time, {results.scenes[key].name}, {method}", seconds, "s")


# --- rows of other scripts ---


def run_forgery(report: Report, quick: bool) -> None:
    """Few of them in quick: `forgery.py` itself has more."""
    count = 10_000 if quick else forgery.FULL
    forgery.forged_replies(report, count)
    forgery.guessed_tokens(report, count)


def run_rpc(report: Report, quick: bool) -> None:
    """Calls per second, which take too long for quick."""
    if quick:
        report.skip("calls per second", "1/s", "see rpc.py --quick")
    else:
        rpc.measure_calls(report, rounds=9, seconds=3.0)


def run_memory(report: Report, quick: bool) -> None:
    """RSS of full tables."""
    del quick
    full = memory.measured(trace=False)["all tables"]
    report.add("RSS of full overlay tables", full, "MiB", at_most=memory.ALLOWED_MIB)


def run_other(name: str, rows: tuple[str, ...]) -> Callable[[Report, bool], None]:
    """Return what runs ``measure`` of a script, which has a quick run of its own."""

    def run(report: Report, quick: bool) -> None:
        if importlib.util.find_spec(name) is None:
            why = f"there is no {name}.py"
        elif quick:
            why = f"see {name}.py --quick"
        else:
            importlib.import_module(name).measure(report, quick=False)
            return
        for row in rows:
            report.skip(row, "", why)

    return run


BORROWED: Final[dict[str, Callable[[Report, bool], None]]] = {
    "forwarding": forwarding.measure,
    "memory": run_memory,
    "forgery": run_forgery,
    "joining": run_other("joining", ("churn", "eclipse", "convergence")),
    "reflection": run_other("reflection", ("reflection",)),
    "rpc": run_rpc,
}


def borrowed_rows(report: Report, quick: bool) -> None:
    """Add the rows of other scripts; one that breaks must not cost the others theirs."""
    for name, run in BORROWED.items():
        began = time.perf_counter()
        try:
            run(report, quick)
        except Exception:  # noqa: BLE001 -- whatever it is, it is shown
            traceback.print_exc()
            report.add(f"{name}.py ran", 0, "", at_least=1)
        took = time.perf_counter() - began
        if took >= SHOWN_S:
            report.add(f"wall time, {name}", took, "s")


def main() -> None:
    """Run."""
    chosen = options(__doc__)
    began = time.perf_counter()
    report = Report(seed=1)
    results = Results(scenes(chosen.quick))
    results.simulate()
    if not chosen.json:
        results.print()
    simulated_rows(report, results)
    wall_rows(report, results)
    borrowed_rows(report, chosen.quick)
    report.add(f"wall time, all, {os.cpu_count()} cores", time.perf_counter() - began, "s")
    report.print(as_json=chosen.json)
    sys.exit(any(figure.holds is False for figure in report.figures))


if __name__ == "__main__":
    main()
