"""Let the k-th call to the disk fail, for every k, in a download, a seed, a resume and a stop.

    python tools/every_k.py [--json] [ERROR ...]        default: EIO ENOSPC EMFILE EACCES EROFS

Each time two whole nodes live in the simulated network (p2pdist/test/everyk.py). Ends with code 1
at the first k where a node hangs, keeps or serves a wrong byte, or does not finish when it is
started again, and names life, k and error.
"""

from __future__ import annotations

import argparse
import errno
import gc
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from common import Report

from p2pdist.test.everyk import LIVES, fail_at

ERRORS = ("EIO", "ENOSPC", "EMFILE", "EACCES", "EROFS")


def main() -> int:
    """Fail everywhere."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("errors", nargs="*", default=list(ERRORS), metavar="ERROR")
    asked = parser.parse_args()
    report, began = Report(seed=1), time.monotonic()
    for life in LIVES:
        runs = 0
        for name in asked.errors:
            k = 0
            while True:
                try:
                    reached = fail_at(life, k, getattr(errno, name))
                except Exception as error:  # noqa: BLE001 -- whatever it is, say where
                    print(f"BAD: {life}, {name} in call {k}: {type(error).__name__}: {error}")
                    return 1
                if not reached:
                    break
                k, runs = k + 1, runs + 1
                gc.collect(1)
            elapsed = time.monotonic() - began
            print(f"{life:10}{name:8}{k:5} calls, {elapsed:5.0f} s", file=sys.stderr, flush=True)
        report.add(f"every k, {life}: calls that failed, all survived", runs, "", at_least=1)
    report.print(as_json=asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
