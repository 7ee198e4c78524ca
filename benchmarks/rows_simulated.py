"""Rows of `reliability.py` from the simulated network: production services, simulated time."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common import Report
from rows import Setting, row

from p2pdist.stages import Stage
from p2pdist.test import healing
from p2pdist.test.faultplan import siege
from p2pdist.test.faultworld import HEAL_S, FaultWorld, run_seed
from p2pdist.test.network import World
from p2pdist.test.servicesworld import Station, pointing
from p2pdist.test.storehouse import PIECE, content

SWEEP = Path(__file__).resolve().parents[1] / "build" / "sweep.json"
RUNS = 5000
LIARS = 9
CHURNERS = 20
CHURN_PER_MIN = 0.5
PIECES = 96
AWAY_S = 5.0
LONGEST_S = 1800.0
BANDWIDTH = 125_000.0


@row("faults")
def faults(report: Report, setting: Setting) -> None:
    """Whole swarms with the full mix of faults, and the counts that `tools/sweep.py` keeps."""
    unsafe, stuck, slowest = 0, 0, 0.0
    seeds = setting.times(200, 20)
    for seed in seeds:
        try:
            outcome = run_seed(seed, small=setting.quick)
        except AssertionError as error:
            late = type(error).__name__ == "Stuck"
            stuck, unsafe = stuck + late, unsafe + (not late)
            continue
        slowest = max(slowest, outcome.completed_s)
    runs = len(seeds)
    if SWEEP.exists():
        counts = json.loads(SWEEP.read_text(encoding="utf-8"))
        runs += counts["runs"]
        slowest = max(slowest, counts["longest_s"])
        for failed in counts["failed"]:
            late = "not reached within" in failed["text"]
            stuck, unsafe = stuck + late, unsafe + (not late)
    goal = None if setting.quick else RUNS
    report.add("faults: simulated swarms, with those of tools/sweep.py", runs, "", at_least=goal)
    report.add("faults: broken promises of safety", unsafe, "", at_most=0)
    report.add("faults: swarms that did not complete", stuck, "", at_most=0)
    report.add("faults: last copy after the last fault, most", slowest, "s", at_most=HEAL_S)


@row("poison")
def poison(report: Report, setting: Setting) -> None:
    """Nine of ten peers send wrong bytes, always; two downloaders serve each other too."""
    worst, passed_on, wrong = 0.0, 0, 0
    pieces = 10 if setting.quick else 40
    for seed in setting.times(20, 1):
        for kind in ("corrupt", "swap")[: 1 if setting.quick else 2]:
            try:
                world = FaultWorld(siege(seed, kind, liars=LIARS, pieces=pieces))
                world.run()
            except AssertionError:  # the watch of the fault simulation saw a wrong byte
                passed_on += 1
                continue
            for station in world.stations[2:]:
                wrong += not station.holds(world.made)
                wasted = world.fetched[station] - len(world.made.data)
                worst = max(worst, wasted / PIECE / LIARS)
    report.add("poison, 9 of 10: copies that are wrong", wrong, "", at_most=0)
    report.add("poison, 9 of 10: pieces wasted for each liar, most", worst, "", at_most=2)
    report.add("poison, 9 of 10: runs with a wrong byte passed on", passed_on, "", at_most=0)


@row("stall")
def stall(report: Report, setting: Setting) -> None:
    """Nine of ten peers serve well up to 99 % and then nothing more."""
    took = []
    for seed in setting.times(25, 3):
        with suppress(healing.NoScene):
            took.append(healing.after_stall(seed, LIARS))
    report.add("stall at 99 %, 9 of 10: runs in which somebody stalls", len(took), "", at_least=1)
    worst = max(took, default=math.inf)
    report.add("stall at 99 %, 9 of 10: done after it, most", worst, "s", at_most=30)


Scene = Callable[[int], float]


def heal(
    report: Report, setting: Setting, name: str, target: float, scenes: dict[str, Scene]
) -> None:
    """Add the slowest of many plays of each scene."""
    chosen = dict(list(scenes.items())[:1]) if setting.quick else scenes
    for label, scene in chosen.items():
        slowest = max(scene(seed) for seed in setting.times(10, 1))
        report.add(f"{name}{label}, most", slowest, "s", at_most=target)


@row("partition")
def partition(report: Report, setting: Setting) -> None:
    """Two of four downloaders are cut off from everybody else for a while."""
    scenes: dict[str, Scene] = {
        f" of {seconds} s": lambda seed, seconds=seconds: healing.after_partition(seed, seconds)  # type: ignore[misc]
        for seconds in (60, 20, 300, 1800)
    }
    scenes[" of 90 s, one way"] = lambda seed: healing.after_partition(seed, 90, one_way=True)
    heal(report, setting, "pieces again after a partition", 30, scenes)


@row("seed-back")
def seed_back(report: Report, setting: Setting) -> None:
    """The only seed is switched off, and on again."""
    scenes: dict[str, Scene] = {
        " 300 s": lambda seed: healing.after_seed_returns(seed, 300),
        " 1800 s": lambda seed: healing.after_seed_returns(seed, 1800),
        " 900 s, one downloader": lambda seed: healing.after_seed_returns(seed, 900, lonely=True),
    }
    heal(report, setting, "pieces again after the seed was away", 30, scenes)


@row("bootstraps-back")
def bootstraps_back(report: Report, setting: Setting) -> None:
    """The only node that a descriptor names is away, and comes back without its memory."""
    scenes: dict[str, Scene] = {
        " away 300 s": lambda seed: healing.after_bootstraps_return(seed, 300),
        " away 1800 s": lambda seed: healing.after_bootstraps_return(seed, 1800),
        " restarted": healing.newcomer_after_restart,
        " by a name whose server hung 300 s": lambda seed: healing.after_names_return(seed, 300),
    }
    heal(report, setting, "swarm found again, its node", 65, scenes)


@row("ipv6")
def ipv6(report: Report, setting: Setting) -> None:
    """No machine has an IPv4 address."""
    slowest = max(healing.ipv6_only(seed) for seed in setting.times(10, 2))
    report.add("IPv6 only: a small copy, most", slowest, "s", at_most=65)


@row("churn")
def churn(report: Report, setting: Setting) -> None:
    """Twenty downloaders; each minute half of them are killed, and come back 5 s later."""
    if setting.quick:
        report.skip("churn of 50 %/min, 20 nodes", "", "takes a minute")
        return
    worst, incomplete, kills = 0.0, 0, 0
    for seed in setting.times(5, 1):
        calm, _, _ = swarm_time(seed, PIECES, churning=False)
        busy, missing, killed = swarm_time(seed, PIECES, churning=True)
        worst, incomplete, kills = max(worst, busy / calm), incomplete + missing, kills + killed
    report.add("churn of 50 %/min, 20 nodes: processes killed", kills, "", at_least=1)
    report.add("churn of 50 %/min, 20 nodes: not complete", incomplete, "", at_most=0)
    report.add("churn of 50 %/min, 20 nodes: time against none, most", worst, "x", at_most=2)


def swarm_time(seed: int, pieces: int, *, churning: bool) -> tuple[float, int, int]:
    """Return the seconds until all have a copy, how many have none, and how many were killed."""
    world, made = World(seed), content({"model.bin": pieces * PIECE})
    world.link(delay=(0.002, 0.01), bandwidth=BANDWIDTH, loss=0.01)
    boot, source = Station.at(world, "10.0.0.1"), Station.at(world, "10.0.0.2")
    boot.run()
    source.store(made)
    source.run(pointing(made, boot))
    stations = [Station.at(world, f"10.0.1.{number + 1}") for number in range(CHURNERS)]
    for station in stations:
        station.run(pointing(made, boot))
    killed = 0
    chance = random.Random(seed)

    def rise(station: Station) -> None:
        station.host.restart()
        station.run(pointing(made, boot))

    def strike() -> None:
        nonlocal killed
        up = [station for station in stations if station.host.up]
        victim = chance.choice(up)
        killed += 1
        victim.host.kill()
        victim.disk.kill()
        source.host.reactor.callLater(AWAY_S, rise, victim)
        source.host.reactor.callLater(60 / (CHURN_PER_MIN * CHURNERS), strike)

    if churning:
        source.host.reactor.callLater(2.0, strike)
    ever: set[str] = set()
    while len(ever) < len(stations) and world.now < LONGEST_S:
        world.run(0.5)
        for station in stations:
            if station.host.up and station.session.stage is Stage.SEEDING:
                ever.add(station.host.name)
    wrong = sum(not station.holds(made) for station in stations if station.host.name in ever)
    return world.now, len(stations) - len(ever) + wrong, killed
