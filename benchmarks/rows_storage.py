"""Rows of `reliability.py` about disks, crashes and parsers. Tools have the long runs of each."""

from __future__ import annotations

import errno
import gc
import random
import sys
import tempfile
from pathlib import Path

import kills
import parsers
from common import Report
from rows import Setting, row

from p2pdist import limits
from p2pdist.test.crashstates import SCENARIOS, BadState, Examination, quiet
from p2pdist.test.everyk import LIVES, fail_at
from p2pdist.test.fuzztargets import TARGETS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "fuzz"))

from cases import cases


@row("crash-states")
def crash_states(report: Report, setting: Setting) -> None:
    """Count disks that crashes left and the next start got right."""
    quiet()
    distinct, bad, round_ = 0, 0, setting.seed
    wanted = 60 if setting.quick else 100_000
    names = list(SCENARIOS)[: 3 if setting.quick else None]
    work = {name: Examination(SCENARIOS[name], random.Random(0)) for name in names}
    try:
        while distinct < wanted:
            for name, each in work.items():
                each.rng, each.trace = random.Random(f"{name} {round_}"), round_
                for _ in each.run(every=97 if setting.quick else 1):
                    gc.collect(1)
            round_ += 1
            distinct = sum(each.distinct for each in work.values())
    except BadState as error:
        print(error, file=sys.stderr)
        bad = 1
    report.add("crash states: different disks examined", distinct, "", at_least=wanted)
    report.add("crash states: bits without data, starts that fail", bad, "", at_most=0)


@row("every-k")
def every_k(report: Report, setting: Setting) -> None:
    """Let the k-th disk call fail in a download, a seed, a resume and a stop."""
    runs = bad = 0
    errors = (errno.EIO,) if setting.quick else (errno.EIO, errno.ENOSPC, errno.EMFILE)
    for life in LIVES:
        for code in errors:
            k = 0
            while True:
                try:
                    if not fail_at(life, k, code):
                        break
                except Exception as error:  # noqa: BLE001 -- whatever it is, it counts
                    print(f"{life}, call {k}: {error}", file=sys.stderr)
                    bad += 1
                k, runs = k + (17 if setting.quick else 1), runs + 1
    report.add("every k: calls that failed", runs, "", at_least=1)
    report.add("every k: hangs, wrong bytes, restarts that fail", bad, "", at_most=0)


@row("kills")
def kill_9(report: Report, setting: Setting) -> None:
    """Kill real processes."""
    if setting.quick:
        report.skip("kill -9: bits without data, and wrong bytes", "", "kills.py --quick has a few")
        return
    with tempfile.TemporaryDirectory(prefix="p2pk-") as top:
        kills.measure(report, Path(top), 300, 24 * limits.MIB)


@row("handles")
def handles(report: Report, setting: Setting) -> None:
    """Have more callers at a seed than it may have files open, then download from it."""
    if setting.quick:
        report.skip("silent callers at a seed with few files", "", "takes two processes")
        return
    with tempfile.TemporaryDirectory(prefix="p2pk-") as top:
        kills.crowded(report, Path(top), 600)


@row("fuzz")
def fuzz(report: Report, setting: Setting) -> None:
    """Draw inputs for each parser; the first that breaks one ends the row."""
    each = 25 if setting.quick else 200_000 // len(TARGETS) + 1
    drawn = sum(cases(name, each, setting.seed) for name in TARGETS)
    report.add(
        f"fuzz: cases drawn for {len(TARGETS)} parsers, none uncaught", drawn, "", at_least=1
    )


@row("parsers")
def parser_costs(report: Report, setting: Setting) -> None:
    """Measure the worst inputs."""
    del setting
    parsers.measure(report)
