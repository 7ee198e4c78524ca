"""Examine every disk a crash may leave of a download, resume, replacement or repair.

    python tools/crash_states.py [--at-least 100000] [--state FILE] [SCENARIO ...]

Goes through all scenarios of p2pdist/test/crashstates.py; then again with pieces and syncs in
another order, until so many different disks were examined. Ends with code 1 at the first that the
next start does not get right, and says which. `--json` prints one object like the benchmarks.
`--state` keeps which disks were examined, after each round of each scenario: an invocation goes on
where the last one ended, and counts no disk twice.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from common import Report

from p2pdist.test.crashstates import SCENARIOS, BadState, Examination, quiet


class Tally:
    """What was examined by all invocations.

    Args:
        path: where that is kept, if it is.
        names: scenarios.

    Attributes:
        work: by scenario.
        rounds: likewise, those that are done.
    """

    def __init__(self, path: Path | None, names: list[str]) -> None:
        self.work = {name: Examination(SCENARIOS[name], random.Random(0)) for name in names}
        self.rounds = dict.fromkeys(names, 0)
        self._path = path
        kept = json.loads(path.read_text()) if path is not None and path.exists() else {}
        for name in self.work.keys() & kept.keys():
            self.rounds[name] = kept[name]["rounds"]
            each = self.work[name]
            each.tried, each.finished = kept[name]["tried"], kept[name]["finished"]
            each.seen.update(map(bytes.fromhex, kept[name]["seen"]))

    def save(self) -> None:
        """Write it down."""
        if self._path is None:
            return
        kept = {
            name: {
                "rounds": self.rounds[name],
                "tried": each.tried,
                "finished": each.finished,
                "seen": sorted(found.hex() for found in each.seen),
            }
            for name, each in self.work.items()
        }
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(kept))
        new.replace(self._path)


def examine(tally: Tally, at_least: int, report: Report) -> None:
    """Examine the scenarios, each with one set of known disks over all rounds."""
    work, rounds = tally.work, tally.rounds
    began = time.monotonic()
    while not all(rounds.values()) or sum(each.distinct for each in work.values()) < at_least:
        name = min(rounds, key=lambda name: rounds[name])
        each, round_ = work[name], rounds[name]
        each.rng, each.trace = random.Random(f"{name} {round_}"), round_
        for _ in each.run():
            gc.collect(1)
        rounds[name] += 1
        tally.save()
        told = f"{name:18} round {round_}: {each.tried:8} sets, {each.distinct:7} disks"
        print(f"{told}, {time.monotonic() - began:5.0f} s", file=sys.stderr, flush=True)
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
    parser.add_argument("--state", type=Path, help="what was examined, over invocations")
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), metavar="SCENARIO")
    asked = parser.parse_args()
    report = Report()
    quiet()
    try:
        examine(Tally(asked.state, asked.scenarios), asked.at_least, report)
    except BadState as error:
        print(f"BAD: {error}")
        return 1
    report.print(as_json=asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
