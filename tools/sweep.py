"""Explore new seeds of the fault simulation on all cores, and add up over invocations.

    python tools/sweep.py --count 1000           the next 1,000 seeds
    python tools/sweep.py --seconds 600          as many as there is time for
    python tools/sweep.py --seed 4711            one seed again, with its plan and its traceback

Counts are kept in a JSON file (``--state``); the next invocation goes on where the last one ended.
A failing seed prints its plan, what was broken and the command that repeats it. The exit code is 1
if any seed of this invocation failed. What is promised stands in ``p2pdist/test/faultworld.py``.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("P2PDIST_HYPOTHESIS_PROFILE", "ci")

CHUNK = 10
FAILURES_KEPT = 200


def work(seeds: range) -> list[dict[str, Any]]:
    """Run some seeds; return what became of each."""
    from p2pdist.test.faultplan import draw
    from p2pdist.test.faultworld import run_seed

    found = []
    for seed in seeds:
        began = time.process_time()
        try:
            outcome = run_seed(seed)
            gc.collect()  # a Deferred that failed unheard says so now
            row: dict[str, Any] = {
                "seed": seed,
                "completed_s": outcome.completed_s,
                "simulated_s": outcome.simulated_s,
                "events": outcome.events,
                "faults": dict(outcome.faults),
                "mended": outcome.mended,
            }
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what is looked for
            plan = str(draw(seed))
            row = {"seed": seed, "kind": type(error).__name__, "text": str(error), "plan": plan}
        row["cpu_s"] = time.process_time() - began
        found.append(row)
    return found


class Tally:
    """The counts of all invocations.

    Args:
        path: where they are kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: dict[str, Any] = {
            "next_seed": 0,
            "runs": 0,
            "failed": [],
            "simulated_s": 0.0,
            "events": 0,
            "cpu_s": 0.0,
            "longest_s": 0.0,
            "mended": 0,
            "faults": {},
        }
        if path.exists():
            self.counts.update(json.loads(path.read_text(encoding="utf-8")))

    def add(self, row: dict[str, Any]) -> None:
        """Count one seed."""
        counts = self.counts
        counts["runs"] += 1
        counts["cpu_s"] += row["cpu_s"]
        if "text" in row:
            counts["failed"] = [*counts["failed"], {"seed": row["seed"], "text": row["text"]}]
            counts["failed"] = counts["failed"][-FAILURES_KEPT:]
            return
        counts["simulated_s"] += row["simulated_s"]
        counts["events"] += row["events"]
        counts["mended"] += row["mended"]
        counts["longest_s"] = max(counts["longest_s"], row["completed_s"])
        counts["faults"] = dict(Counter(counts["faults"]) + Counter(row["faults"]))

    def save(self) -> None:
        """Write them down."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.counts, indent=1), encoding="utf-8")
        new.replace(self.path)


def repeat(seed: int, *, small: bool) -> int:
    """Run one seed and show everything."""
    from p2pdist.test.faultplan import draw
    from p2pdist.test.faultworld import run_seed

    print(draw(seed, small=small))
    try:
        outcome = run_seed(seed, small=small)
    except Exception:  # noqa: BLE001 -- it is shown
        traceback.print_exc()
        return 1
    print(f"complete {outcome.completed_s:.1f} s after the last fault; trace {outcome.trace_hash}")
    return 0


def report(row: dict[str, Any]) -> None:
    """Print a failure."""
    print(f"FAILED {row['kind']}: {row['text']}\n{row['plan']}")
    print(f"again: python tools/sweep.py --seed {row['seed']}   (commit {commit()})", flush=True)


def commit() -> str:
    """Return the commit of the tree, or nothing outside of a repository."""
    said = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip()


def sweep(tally: Tally, count: int, seconds: float, jobs: int) -> int:
    """Run the next seeds; return how many failed."""
    first = tally.counts["next_seed"]
    failed, ends = 0, time.monotonic() + seconds
    chunks = [
        range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)
    ]
    with multiprocessing.Pool(jobs) as pool:
        for rows in pool.imap(work, chunks):
            for row in rows:
                tally.add(row)
                if "text" in row:
                    failed += 1
                    report(row)
            tally.counts["next_seed"] = rows[-1]["seed"] + 1
            tally.save()
            if time.monotonic() >= ends:
                pool.terminate()
                break
    return failed


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="seeds at most (1000)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="time at most (3600)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--first", type=int, help="begin at this seed instead of the next one")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "sweep.json")
    parser.add_argument("--seed", type=int, help="run this seed only, and show it")
    parser.add_argument(
        "--small", action="store_true", help="with --seed: as the test suite runs it"
    )
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return repeat(chosen.seed, small=chosen.small)
    tally = Tally(chosen.state)
    if chosen.first is not None:
        tally.counts["next_seed"] = chosen.first
    failed = sweep(tally, chosen.count, chosen.seconds, chosen.jobs)
    counts = tally.counts
    print(
        f"{counts['runs']} runs in all, {len(counts['failed'])} failed, "
        f"{counts['simulated_s'] / 3600:.1f} simulated hours, {counts['events']} events; the last "
        f"copy at most {counts['longest_s']:.1f} s after the last fault; {counts['mended']} "
        f"sessions restarted by hand; CPU {counts['cpu_s']:.0f} s\nfaults: {counts['faults']}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
