"""Examine every disk a crash may leave of a download, resume, replacement or repair.

    python tools/crash_states.py [--at-least 100000] [SCENARIO ...]

Goes through all scenarios of p2pdist/test/crashstates.py; then again with pieces and syncs in
another order, until so many different disks were examined. Ends with code 1 at the first that the
next start does not get right, and says which. `--json` prints one object like the benchmarks.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from common import Report

from p2pdist.test.crashstates import SCENARIOS, BadState, Examination, quiet


def examine(names: list[str], at_least: int, report: Report) -> None:
    """Examine the scenarios, each with one set of known disks over all rounds."""
    work = {name: Examination(SCENARIOS[name], random.Random(0)) for name in names}
    began, round_ = time.monotonic(), 0
    while round_ == 0 or sum(each.distinct for each in work.values()) < at_least:
        for name, each in work.items():
            each.rng, each.trace = random.Random(f"{name} {round_}"), round_
            for _ in each.run():
                gc.collect(1)
            told = f"{name:18} round {round_}: {each.tried:8} sets, {each.distinct:7} disks"
            print(f"{told}, {time.monotonic() - began:5.0f} s", file=sys.stderr, flush=True)
        round_ += 1
    distinct = sum(each.distinct for each in work.values())
    report.add("crash states: sets of survivors", sum(e.tried for e in work.values()), "")
    report.add("crash states: different disks", distinct, "", at_least=at_least)
    report.add("crash states: finished downloads", sum(e.finished for e in work.values()), "")
    report.add("crash states: bits without data", 0, "", at_most=0)
    report.add("crash states: starts that fail", 0, "", at_most=0)


def main() -> int:
    """Examine what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-least", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), metavar="SCENARIO")
    asked = parser.parse_args()
    report = Report()
    quiet()
    try:
        examine(asked.scenarios, asked.at_least, report)
    except BadState as error:
        print(f"BAD: {error}")
        return 1
    report.print(as_json=asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
